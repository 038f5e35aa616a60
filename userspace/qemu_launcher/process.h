/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* QEMU as a process: process.c tells what it can do. */
#ifndef QEMU_LAUNCHER_PROCESS_H
#define QEMU_LAUNCHER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "userspace/qemu_launcher/options.h"
#include "userspace/qemu_launcher/parts.h"

#define PROCESS_LINE	256

/**
 * struct process
 * @pidfd: is readable when it has ended
 * @output: what it says, of which @said has what is not yet a line
 * @listener: of what it asks for, until process_close_listener()
 * @qmp, @line: our ends of the sockets
 */
struct process {
	pid_t pid;
	int pidfd;
	int output;
	int listener;
	int qmp;
	int line;
	unsigned int length;
	char said[PROCESS_LINE];
};

/* With one thread, and all rights. Says itself what failed. 0 or a negative errno. */
int process_start(struct process *process, const struct options *options, const struct parts *parts);

/* It has opened, or asks to open, something: it gets the node. False: nothing more will be asked for. */
bool process_answer(struct process *process, int node);
void process_close_listener(struct process *process);

/* Log what it has said, by lines. False: it will say no more. */
bool process_hear(struct process *process);

/* Wait for its end, for @ms, and then end it. What there was to say of how it ended is logged. */
void process_end(struct process *process, int ms);

#endif /* QEMU_LAUNCHER_PROCESS_H */
