/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What a program that serves somebody untrusted gives up, once it has all that it needs. */
#ifndef LIB_SANDBOX_H
#define LIB_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SANDBOX_LISTS_MAX	6

/* In the place of a system call: one more argument of the one before. */
#define SANDBOX_AND		(-1)

/* In the place of an error: who has the listener of the filter (seccomp_unotify(2)) does it instead. */
#define SANDBOX_ASK		(-2)

/**
 * struct sandbox_call - a system call, and why
 * @number: as SYS_read; or SANDBOX_AND
 * @error: 0: it is allowed; an errno: it fails so, and does no harm; or SANDBOX_ASK
 * @why: what it is for; NULL ends a list
 * @argument: from 1 on: only allowed if that argument, masked by @mask, is @value. 0: any
 *	arguments
 */
struct sandbox_call {
	int number;
	int error;
	const char *why;
	unsigned int argument;
	uint64_t mask;
	uint64_t value;
};

/**
 * struct sandbox_tree - a directory that becomes the root
 * @path: where it is. Nothing in it is a program or a device to this process, no symbolic link leads
 *	anywhere. What is mounted below it is there, too
 * @writable: it can be changed, as far as the user may
 * @programs: they are, after all, and links lead somewhere, within it: to start one
 * @ret_self: gets a descriptor of /proc/self/fd, by whose entries descriptors are opened anew; to
 *	this process it has no parent, so that nothing else of /proc is within reach. May be NULL
 * @ret_empty: gets a descriptor (O_PATH) of a directory that is empty, and stays so. May be NULL
 */
struct sandbox_tree {
	const char *path;
	bool writable;
	bool programs;
	int *ret_self;
	int *ret_empty;
};

/**
 * struct sandbox - what remains
 * @uid: to change to; -1: stays
 * @gid: the same; without any supplementary groups
 * @tree: what is below the root; NULL: nothing
 * @no_network: it insists on having no network, nor Unix sockets but those of a path, and those that it has
 * @calls: lists of system calls. Any other one kills the process
 * @forbids: any other one is allowed
 * @ret_listener: gets the listener, if calls ask
 */
struct sandbox {
	uid_t uid;
	gid_t gid;
	const struct sandbox_tree *tree;
	bool no_network;
	bool forbids;
	int *ret_listener;
	const struct sandbox_call *calls[SANDBOX_LISTS_MAX];
};

/* What libc calls for threads and memory, threads of userspace/lib/thread.h among them: a list. */
extern const struct sandbox_call sandbox_libc[];

/* One more list of system calls; there is room for SANDBOX_LISTS_MAX. */
void sandbox_allow(struct sandbox *sandbox, const struct sandbox_call *calls);

/**
 * sandbox_enter - give up all rights, for good
 * @ret_step: what it was that failed, in words
 *
 * The root is @tree, or empty and read-only, afterwards, there are no capabilities and no way to get any, and
 * a system call that is not listed kills the process. Its network and System V objects, where the host
 * lets it have some, are its own and empty; descriptors that it has stay what they are. Call it while
 * there is only one thread.
 *
 * Return: 0; a negative errno, and then the process can only end. An empty root is the only thing
 * that a host may refuse (no user namespaces for ordinary users): then sandbox_enter() goes on, and
 * returns 1.
 */
int sandbox_enter(const struct sandbox *sandbox, const char **ret_step);

/**
 * sandbox_forbid - give up some system calls, for good, here and in all programs started from here
 * @calls: each fails with its error, which is not 0
 *
 * No program that is started gets new privileges either (no_new_privs). Return: 0 or a negative errno.
 */
int sandbox_forbid(const struct sandbox_call *calls);

#endif /* LIB_SANDBOX_H */
