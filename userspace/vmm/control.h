/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The control socket of a machine (include/moat/control.h): connections, messages, and who is asked. */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "moat/control.h"
#include "userspace/lib/loop.h"

#define CONTROL_CLIENTS	8
#define CONTROL_LATER	1

/**
 * struct control_call - a request that is to be served
 * @owner: of the verbs
 * @descriptor: that came with it; who keeps it leaves -1. -1: none did
 * @answer: to be filled in, where there is a struct in it
 */
struct control_call {
	void *owner;
	const struct control_request *request;
	int descriptor;
	struct control_answer answer;
};

/**
 * struct control_verb - what a request asks for
 * @act: do it, or say that it cannot be done. Return: 0 or a negative errno; CONTROL_LATER: control_finish_late()
 *	will be called. NULL: there is no such request
 * @descriptor: one comes with the request; else none does
 * @value, @isolation, @type, @name: the request has it; what it does not have is 0 in it
 */
struct control_verb {
	int (*act)(struct control_call *call);
	bool descriptor;
	bool value;
	bool isolation;
	bool type;
	bool name;
};

struct control;

/**
 * struct control_client - a connection
 * @source: its descriptor is -1 where there is none
 * @late: the request whose answer comes later, and nothing is read before; 0: none
 */
struct control_client {
	struct loop_source source;
	struct control *control;
	uint32_t late;
	uint32_t serial;
};

/**
 * struct control
 * @loop: in which all is done; its owner may have it wait for more
 * @verbs: by enum control_what, CONTROL_DUMP + 1 of them
 * @owner: of the verbs
 */
struct control {
	struct loop loop;
	struct loop_source listener;
	const struct control_verb *verbs;
	void *owner;
	struct control_client client[CONTROL_CLIENTS];
};

/* Does the request have all that its verb says, and nothing else? */
bool control_is_legal(const struct control_request *request, const struct control_verb *verb,
		      bool descriptor);

/* @listener: a socket of SOCK_SEQPACKET that listens; stays the caller's. 0 or a negative errno. */
int control_init(struct control *control, int listener, const struct control_verb *verbs,
		 void *owner);

/* From now on requests are served. 0 or a negative errno. */
int control_listen(struct control *control);

/* The answer to what was to be answered later. In the loop's thread. */
void control_finish_late(struct control *control, uint32_t what, int error);

/* Tell all of something. In the loop's thread. */
void control_tell(struct control *control, uint32_t what, const char *name);

/* Fine where it was not started. */
void control_finish(struct control *control);

#endif /* VMM_CONTROL_H */
