// SPDX-License-Identifier: MIT OR GPL-2.0
#include "userspace/lib/thread.h"

#define THREAD_STACK_SIZE	(128 << 10)

int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attr;
	int err;

	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	err = pthread_attr_setstacksize(&attr, THREAD_STACK_SIZE);
	if (!err)
		err = pthread_create(ret_thread, &attr, run, arg);
	if (!err)
		pthread_setname_np(*ret_thread, name);
	pthread_attr_destroy(&attr);
	return -err;
}
