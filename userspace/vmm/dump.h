/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A machine that stands still, as an ELF core: memory by guest-physical addresses, and a thread for each vCPU. */
#ifndef VMM_DUMP_H
#define VMM_DUMP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "userspace/lib/loop.h"

struct memory;
struct vcpu;

/**
 * struct dump - one that is being written, or none
 * @done: an eventfd, for a loop of who asked, who sets @ready
 * @running: there is a thread, until dump_end()
 * @ends: it is to end early
 * @head: all that comes before memory
 */
struct dump {
	struct loop_source done;
	bool running;
	bool ends;
	int fd;
	int result;
	const struct memory *memory;
	void *head;
	size_t head_size;
	pthread_t thread;
};

int dump_init(struct dump *dump);

/**
 * dump_begin - write it, in a thread of its own
 * @fd: a file, whose content goes; becomes the dump's, if there is no error
 *
 * Return: 0, and @done will tell; -ESPIPE: it is no file; or another negative errno.
 */
int dump_begin(struct dump *dump, const struct memory *memory, const struct vcpu *vcpu,
	       unsigned int cpus, int fd);

/* It is done. Return: 0, or what failed. */
int dump_end(struct dump *dump);

/* Ends one that is not done; but does not wait for ever. */
void dump_finish(struct dump *dump);

#endif /* VMM_DUMP_H */
