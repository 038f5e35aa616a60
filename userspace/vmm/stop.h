/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_STOP_H
#define VMM_STOP_H

/**
 * struct stop - how a machine comes to its end: the first who asks says with which status
 * @event: eventfd, readable from then on
 */
struct stop {
	int event;
	int status;		/* -1: goes on */
};

int stop_init(struct stop *stop);
void stop_finish(struct stop *stop);

/* From any thread, any number of times. */
void stop_request(struct stop *stop, int status);

/* The status once someone has asked, else -1. */
int stop_status(const struct stop *stop);

#endif /* VMM_STOP_H */
