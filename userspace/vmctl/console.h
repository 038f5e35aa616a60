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

#endif /* VMCTL_CONSOLE_H */
