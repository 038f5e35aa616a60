/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* `vmctl run` without a command: the guest's serial port is the terminal. */
#ifndef VMCTL_CONSOLE_H
#define VMCTL_CONSOLE_H

#include "userspace/vmctl/launch.h"

/*
 * Gives the machine its serial port, starts it and stays until it ends. Return: the status that it
 * ended with, or a negative errno, after a line.
 */
int console_run(struct launch *launch);

/*
 * The terminal is that of a machine which runs, by a stream socket, which is taken over; until the machine
 * ends, or Ctrl-A x. Return: an exit status, or a negative errno, after a line.
 */
int console_attach(int fd);

#endif /* VMCTL_CONSOLE_H */
