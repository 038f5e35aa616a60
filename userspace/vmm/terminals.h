/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Those at the other end of a serial port that is served: each a stream socket, which finds what the port
 * said last, and then all that it says, and may type. None is waited for.
 */
#ifndef VMM_TERMINALS_H
#define VMM_TERMINALS_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TERMINALS_MAX	8
#define TERMINALS_KEPT	(64 << 10)
#define TERMINALS_ROOM	(2 * TERMINALS_KEPT)

/**
 * struct terminal
 * @fd: -1: there is none
 * @silent: nothing more will be typed
 * @next: of all bytes that the port has said, the one that it is to get next
 */
struct terminal {
	int fd;
	bool silent;
	uint64_t next;
};

/**
 * struct terminals
 * @lock: guards all; one thread serves, others add
 * @said: bytes, of which the last are in @room, each at its number modulo its size. A new terminal gets
 *	TERMINALS_KEPT of them, and has time to take them: one that is farther behind than there is room is dropped
 */
struct terminals {
	pthread_mutex_t lock;
	struct terminal terminal[TERMINALS_MAX];
	uint64_t said;
	uint8_t room[TERMINALS_ROOM];
};

/* NULL: there is no memory. */
struct terminals *terminals_create(void);
void terminals_destroy(struct terminals *terminals);

/* @fd becomes one, and is closed in time. 0, or -EMFILE; then it is the caller's. */
int terminals_add(struct terminals *terminals, int fd);

/* What the port says. Who is so far behind that there would be a gap is dropped. */
void terminals_say(struct terminals *terminals, const uint8_t *bytes, size_t count);

/* What to wait for, in TERMINALS_MAX entries; @typing: can the port take what is typed? */
void terminals_plan(struct terminals *terminals, struct pollfd *plan, bool typing);

/* Send what there is to be sent, as far as it is taken. */
void terminals_send(struct terminals *terminals);

/* What was typed at one that is ready, at most @room bytes. Return: how many; 0: nothing. */
size_t terminals_take(struct terminals *terminals, const struct pollfd *ready, uint8_t *bytes,
		      size_t room);

#endif /* VMM_TERMINALS_H */
