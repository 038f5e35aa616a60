/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* An event loop in a thread of its own: descriptors, and what to call when one can be read. */
#ifndef LIB_LOOP_H
#define LIB_LOOP_H

#include <pthread.h>

struct loop_source {
	int fd;
	void (*ready)(struct loop_source *source);
};

struct loop {
	int epoll;
	int stop;		/* eventfd */
	pthread_t thread;
};

int loop_init(struct loop *loop);
int loop_add(struct loop *loop, struct loop_source *source);

/* Called once for each time that it becomes ready, or more is there: an eventfd need not be read. */
int loop_add_edge(struct loop *loop, struct loop_source *source);

/* Its handler may still be called for what was ready before. */
void loop_remove(struct loop *loop, struct loop_source *source);

/*
 * Waits until what was removed before, by whatever thread but the loop's own, is called no more. The loop has
 * been started. 0 or a negative errno.
 */
int loop_sync(struct loop *loop);
int loop_start(struct loop *loop, const char *name);

/* Ends the thread, which has run its last handler on return; fine when it was not started. */
void loop_finish(struct loop *loop);

#endif /* LIB_LOOP_H */
