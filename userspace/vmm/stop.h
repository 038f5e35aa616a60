/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_STOP_H
#define VMM_STOP_H

#include <pthread.h>

#include "moat/control.h"

/**
 * struct stop - how a machine comes to its end: the first who asks says how, and with which status
 * @event: eventfd, readable from then on
 * @lock: guards the rest, which does not change once @status is set
 */
struct stop {
	int event;
	pthread_mutex_t lock;
	int status;		/* -1: goes on */
	enum control_end end;
	char text[CONTROL_TEXT];
};

int stop_init(struct stop *stop);
void stop_finish(struct stop *stop);

/*
 * From any thread, any number of times. Why a guest crashed, was reset or could not go on is what the
 * thread has said last.
 */
void stop_request(struct stop *stop, enum control_end end, int status);

/* The status once someone has asked, else -1. */
int stop_status(const struct stop *stop);

#endif /* VMM_STOP_H */
