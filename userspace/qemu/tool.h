/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Programs of QEMU's that read images, which are not trusted: qemu-img and qemu-storage-daemon.
 *
 * Such a program has no file system but the host's /usr, read-only, and no network, and is nobody in
 * particular. The file that it is to work on it gets in a way that takes no right to open it, and no name:
 * whatever it opens for reading and writing, or for reading past the page cache, is answered, by way of the
 * filter of its system calls, with the descriptor that it was given for that; so whatever an image says of
 * other files, these are not to be had.
 */
#ifndef QEMU_TOOL_H
#define QEMU_TOOL_H

#include <stdint.h>
#include <sys/types.h>

/* As programs are named where /usr is the root. */
#define TOOL_IMG	"/bin/qemu-img"
#define TOOL_STORAGE	"/bin/qemu-storage-daemon"

#define TOOL_WHY	160

/**
 * struct tool_files - what a program gets
 * @read: when it opens something for reading past the page cache; -1: nothing
 * @write: when it opens something for reading and writing; -1: nothing
 */
struct tool_files {
	int read;
	int write;
};

/**
 * struct tool - a program to be run to its end
 * @argument: NULL is the last; the first is TOOL_IMG, say
 * @progress: is called with what it says of it, in hundredths of a per cent; may be NULL
 */
struct tool {
	const char *const *argument;
	struct tool_files files;
	void (*progress)(void *context, unsigned int hundredths);
	void *context;
};

/* Is it installed? */
int tool_find(const char *program);

/* Enter the sandbox, to execute a program in it. @ret_step: what it was that failed. 0 or a negative errno. */
int tool_confine(uid_t uid, gid_t gid, int *ret_listener, const char **ret_step);

/* The listener, from the sandbox to who answers. tool_take_over() waits for it: it, or a negative errno. */
int tool_hand_over(int socket, int fd);
int tool_take_over(int socket);

/* Answer what has come on the listener. 0, or a negative errno: no more will come. */
int tool_answer(int listener, const struct tool_files *files);

/**
 * tool_run - run a program, and wait for its end
 * @why: where it fails, what it said last (TOOL_WHY bytes)
 *
 * It ends when this process does. Return: 0 or a negative errno; -EIO: it has failed.
 */
int tool_run(const struct tool *tool, char *why);

#endif /* QEMU_TOOL_H */
