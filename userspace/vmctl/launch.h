/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* moat-vmm as a child process. */
#ifndef VMCTL_LAUNCH_H
#define VMCTL_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#define LAUNCH_ARGUMENTS	128
#define LAUNCH_DESCRIPTORS	32

/**
 * struct launch - a command line for moat-vmm, and the descriptors that it names
 * @incomplete: more was added than there is room for
 * @status: as a shell has it, once @pid is 0 again
 */
struct launch {
	char *argument[LAUNCH_ARGUMENTS + 1];
	unsigned int arguments;
	int descriptor[LAUNCH_DESCRIPTORS];
	unsigned int descriptors;
	bool incomplete;
	pid_t pid;
	int status;
};

/* A program that comes with vmctl: beside it, else by PATH. 0, or -ENOENT after a line. */
int launch_find(const char *name, char *ret);

/* Add to the command line; no more than fits is added, which launch_start() then says. */
void launch_init(struct launch *launch);
void launch_add(struct launch *launch, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A descriptor that the command line names is the child's from here on. */
void launch_keep(struct launch *launch, int fd);

/* Start it. 0 or a negative errno, after a line. Its descriptors are closed here. */
int launch_start(struct launch *launch);

/* Has it ended? Never waits. */
bool launch_ended(struct launch *launch);

/* End it, if it has not; and wait for that. */
void launch_finish(struct launch *launch);

#endif /* VMCTL_LAUNCH_H */
