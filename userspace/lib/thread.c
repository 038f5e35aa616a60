// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "userspace/lib/thread.h"

#define THREAD_STACK_SIZE	(128 << 10)

struct thread_start {
	void *(*run)(void *arg);
	void *arg;
	char name[16];
};

/* A thread names itself: to name another one takes a file, which there is none of in a sandbox. */
static void *thread_run(void *arg)
{
	const struct thread_start start = *(struct thread_start *)arg;

	free(arg);
	pthread_setname_np(pthread_self(), start.name);
	return start.run(start.arg);
}

int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg)
{
	struct thread_start *start = malloc(sizeof(*start));
	pthread_attr_t attr;
	int err = pthread_attr_init(&attr);

	if (err || !start) {
		free(start);
		return err ? -err : -ENOMEM;
	}
	*start = (struct thread_start){ .run = run, .arg = arg };
	snprintf(start->name, sizeof(start->name), "%s", name);
	err = pthread_attr_setstacksize(&attr, THREAD_STACK_SIZE);
	if (!err)
		err = pthread_create(ret_thread, &attr, thread_run, start);
	if (err)
		free(start);
	pthread_attr_destroy(&attr);
	return -err;
}
