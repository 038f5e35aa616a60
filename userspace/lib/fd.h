/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_FD_H
#define LIB_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * fd_open - open a path, or take over a descriptor that was handed to this process
 * @path: a file; or /proc/self/fd/N, for which the descriptor itself is duplicated: that works
 *	without any right to open the file anew
 * @flags: O_RDONLY or O_RDWR; O_CLOEXEC is added
 *
 * Return: a descriptor or a negative errno; -EACCES for a descriptor of which @flags asks too much
 */
int fd_open(const char *path, int flags);

/* A connection to who listens at @path, which never waits. Return: it, or a negative errno. */
int fd_connect(const char *path);

/* The number of a descriptor that @path names as /proc/self/fd/N; else -1. */
int fd_number(const char *path);

/* Close all from @first on but @count of them. */
void fd_close_but(int first, const int *keep, unsigned int count);

/**
 * fd_listen - a Unix socket of streams that others can connect to
 * @path: where. A socket that is there goes: it may be of a process before this
 * @backlog: so many may wait to be accepted
 *
 * Return: a descriptor or a negative errno.
 */
int fd_listen(const char *path, int backlog);

/*
 * Eventfds that another process has too, and may have made blocking, or emptied or filled just now.
 * fd_take_event(): was it signalled since it was last taken? fd_signal_event(): one more, unless it
 * is full.
 */
bool fd_take_event(int fd);
void fd_signal_event(int fd);

/*
 * Memory to be shared with others, all zeroes. Its size is sealed: who gets the descriptor cannot cut
 * it short, which would end all that have it mapped. Return: a descriptor or a negative errno.
 */
int fd_memory(const char *name, uint64_t size);

/*
 * A message on a socket of SOCK_SEQPACKET, and a descriptor with it, if @fd is one. Neither waits.
 *
 * fd_send(): 0 or a negative errno. fd_receive(): the length of the message, 0 at the end; a negative errno,
 * -EPROTO: it is longer than @len, or more than one descriptor came. *@ret_fd is -1 where there is none.
 */
int fd_send(int socket, const void *message, size_t len, int fd);
ssize_t fd_receive(int socket, void *message, size_t len, int *ret_fd);

/* Close what is open; -1 is fine. */
void fd_close(int fd);

/**
 * fd_pread_full - read @len bytes at @offset, whatever the pieces that they come in
 * Return: 0 or a negative errno, -ENODATA where the file ends first
 */
int fd_pread_full(int fd, void *buf, size_t len, uint64_t offset);

/* Write all of @buf, waiting as it takes. Return: 0 or a negative errno. */
int fd_write_full(int fd, const void *buf, size_t len);

/* Size of a regular file. Return: 0, -EINVAL for anything else but a file, or a negative errno. */
int fd_size(int fd, uint64_t *ret_size);

#endif /* LIB_FD_H */
