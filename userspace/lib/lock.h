/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The lock of a disk, against being used twice: all programs of Moat's that read or write one have it.
 *
 * It is of the open file description (F_OFD_SETLK), so it lasts as long as anybody has that, or a
 * descriptor that was handed over, or I/O of a process that was killed is still going on; and it is gone
 * with the last of these. Its place is far behind all data, and away from where QEMU has its own.
 */
#ifndef LIB_LOCK_H
#define LIB_LOCK_H

#include <stdbool.h>

/* @fd is one user of several that only read; or the only one. Return: 0, -EAGAIN: in use, another errno. */
int lock_take(int fd, bool read_only);

/* The same, for up to ten seconds, in which a user that was killed may come to its end. */
int lock_wait(int fd, bool read_only);

/* Does anybody use it by another descriptor? */
bool lock_is_taken(int fd);

#endif /* LIB_LOCK_H */
