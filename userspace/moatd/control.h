/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A connection to a running machine's launcher: include/moat/control.h. */
#ifndef MOATD_CONTROL_H
#define MOATD_CONTROL_H

#include <systemd/sd-event.h>

#include "include/moat/control.h"

struct control;

/* @answer: NULL: the connection has ended before there was one. */
typedef void (*control_answer_t)(void *arg, const struct control_answer *answer);

/**
 * struct control_ops - what is to be known without being asked for
 * @event: the launcher says something by itself
 * @ended: the connection is gone, as the launcher is, or it talks nonsense; control_destroy() may be
 *	called in here
 */
struct control_ops {
	void (*event)(void *arg, const struct control_answer *event);
	void (*ended)(void *arg);
};

/* Takes @fd over. NULL: no memory. */
struct control *control_create(sd_event *event, int fd, const struct control_ops *ops, void *arg);

/* Who waits for an answer is told that there is none. NULL is fine. */
void control_destroy(struct control *control);

/**
 * control_ask - one request
 * @fd: goes along, and stays the caller's; -1: none
 * @then: called with the answer, or without; not called where an error is returned. May be NULL
 *
 * Return: 0 or a negative errno
 */
int control_ask(struct control *control, const struct control_request *request, int fd,
		control_answer_t then, void *arg);

#endif /* MOATD_CONTROL_H */
