/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The serial line: QEMU at one end, a stream socket, and at the other all terminals there are. */
#ifndef QEMU_LAUNCHER_LINE_H
#define QEMU_LAUNCHER_LINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/vmm/terminals.h"

#define LINE_TYPED	256

/**
 * struct line
 * @fd: QEMU's socket; -1: it has gone
 * @wake: an eventfd: there is a terminal more, or the end (@ending)
 * @typed: @count bytes that QEMU has not taken yet
 */
struct line {
	int fd;
	int wake;
	bool ending;
	pthread_t thread;
	struct terminals *terminals;
	size_t count;
	uint8_t typed[LINE_TYPED];
};

/* @fd is taken over. 0 or a negative errno. */
int line_init(struct line *line, int fd);

/* From any thread; the descriptor is taken over where it returns 0. */
int line_add(struct line *line, int fd);

/* What was said last is passed on, as far as it is taken. */
void line_finish(struct line *line);

#endif /* QEMU_LAUNCHER_LINE_H */
