/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* `vmctl run -- cmd`: the host's side of include/moat/run.h. */
#ifndef VMCTL_SESSION_H
#define VMCTL_SESSION_H

#include "userspace/vmctl/launch.h"

/* Digits of those of standard input, output and error for which the guest gets a terminal. */
const char *session_terminals(void);

/*
 * Gives the machine its channel, starts it and stays until the command in it ends. Return: the
 * command's status, or a negative errno, after a line.
 */
int session_run(struct launch *launch);

#endif /* VMCTL_SESSION_H */
