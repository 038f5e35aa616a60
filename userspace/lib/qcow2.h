/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the head of a qcow2 image says: enough to tell whether it may be given to a program of QEMU's. */
#ifndef LIB_QCOW2_H
#define LIB_QCOW2_H

#include <stdint.h>

#define QCOW2_NAME_MAX	64

/**
 * struct qcow2 - an image that is complete in itself
 * @size: of the disk that it holds
 * @snapshots: how many there are in it
 * @snapshots_at: where their table is
 */
struct qcow2 {
	uint64_t size;
	uint32_t snapshots;
	uint64_t snapshots_at;
};

/**
 * qcow2_read - read and check the head
 * @ret_why: what is wrong with it
 *
 * An image that names another file (a backing file, or one for its data) is refused: who opens it would
 * open that, with rights that are not those of who made the image. So are encrypted ones, those marked
 * as corrupt, and what has features that are not known here. Return: 0 or a negative errno.
 */
int qcow2_read(int fd, struct qcow2 *ret, const char **ret_why);

/**
 * struct qcow2_snapshot - one of an image
 * @name: what is not printable in it, or too long, is not there
 * @seconds: when it was made
 */
struct qcow2_snapshot {
	char name[QCOW2_NAME_MAX];
	uint64_t size;
	uint64_t seconds;
};

/* The one at *@at, which is where the table is for the first, and moves on. 0 or a negative errno. */
int qcow2_read_snapshot(int fd, uint64_t *at, struct qcow2_snapshot *ret);

#endif /* LIB_QCOW2_H */
