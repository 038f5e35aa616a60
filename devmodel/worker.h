/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The one thread of a device: it waits for descriptors, and can be told to end. */
#ifndef DEVMODEL_WORKER_H
#define DEVMODEL_WORKER_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>

struct worker {
	pthread_t thread;
	int stop;		/* eventfd */
	bool ends;
};

/* 0 or a negative errno; @run ends when worker_wait() says so. */
int worker_start(struct worker *worker, const char *name, void *(*run)(void *arg), void *arg);

/* Has the thread end, and waits for that. */
void worker_stop(struct worker *worker);

/* Is the thread to end? For loops that a guest could keep busy without an end. */
bool worker_ends(const struct worker *worker);

/* What worker_wait() polls. The first entry is the worker's own; the others are the caller's. */
#define WORKER_POLL_STOP	0

/* Waits until one of @count entries is ready. False: the thread is to end. */
bool worker_wait(struct worker *worker, struct pollfd *wait, unsigned int count);

/* The same, but no longer than @timeout_ms; -1 is without an end. */
bool worker_wait_for(struct worker *worker, struct pollfd *wait, unsigned int count,
		     int timeout_ms);

#endif /* DEVMODEL_WORKER_H */
