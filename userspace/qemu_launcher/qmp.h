/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What is said to a QEMU, and by it: QMP, a JSON object a line. QEMU is believed nothing: what is no message, too
 * long, or an answer to nothing ends the connection, and with it the machine.
 *
 * One thread at a time uses it. A call waits for its answer; events that come meanwhile are kept, and @news is
 * signalled, so that who waits for that handles them where no call is under way.
 */
#ifndef QEMU_LAUNCHER_QMP_H
#define QEMU_LAUNCHER_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/lib/loop.h"

struct json_object;

#define QMP_LINE_MAX	(1 << 20)
#define QMP_EVENTS_MAX	256
#define QMP_WHY		160

/**
 * struct qmp - a connection
 * @source: its descriptor; -1: it has ended
 * @news: an eventfd: there are @events, an array, or it has ended
 * @line: @length bytes of one that is not complete, of @room
 * @serial: of the last call; @answer: to that, or NULL
 * @greeted: QEMU has said hello
 * @why: what QEMU said of the last call that failed
 */
struct qmp {
	struct loop_source source;
	struct loop_source news;
	struct json_object *events;
	char *line;
	size_t length;
	size_t room;
	uint32_t serial;
	struct json_object *answer;
	bool greeted;
	char why[QMP_WHY];
};

/* @fd: a stream socket, which is taken over, whatever the result. 0 or a negative errno. */
int qmp_init(struct qmp *qmp, int fd);
void qmp_finish(struct qmp *qmp);

/* Take in what has come, or some of it, without waiting: also as the @source's handler. False: the connection has ended. */
bool qmp_read(struct qmp *qmp);

/**
 * qmp_call - have QEMU do something, and wait for its answer
 * @arguments: are taken over; NULL: none
 * @fd: goes with it; -1: none
 * @ret: what it returns, to be put; may be NULL
 *
 * Return: 0; -EIO: it was refused, @why tells; -ECONNRESET: the connection has ended, or QEMU does not answer.
 */
int qmp_call(struct qmp *qmp, const char *command, struct json_object *arguments, int fd,
	     struct json_object **ret);

/* The next event, to be put; NULL: there is none. */
struct json_object *qmp_next_event(struct qmp *qmp);

/* A member of an object; NULL, 0 or "" where it is not there, or something else. */
struct json_object *qmp_member(struct json_object *object, const char *key);
const char *qmp_text(struct json_object *object, const char *key);
uint64_t qmp_number(struct json_object *object, const char *key);

#endif /* QEMU_LAUNCHER_QMP_H */
