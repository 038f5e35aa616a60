// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <time.h>

#include "userspace/lib/clock.h"
#include "userspace/vmm/pause.h"
#include "userspace/vmm/stop.h"

/* A vCPU may be waiting for a device's process, which has five seconds for a step. */
#define PAUSE_WAIT_MS	10000
#define PAUSE_LOOK_NS	50000000

void pause_init(struct pause *pause, struct stop *stop)
{
	*pause = (struct pause){ .stop = stop };
	pthread_mutex_init(&pause->lock, NULL);
	pthread_cond_init(&pause->changed, NULL);
}

bool pause_is_wanted(const struct pause *pause)
{
	return __atomic_load_n(&pause->wanted, __ATOMIC_SEQ_CST);
}

void pause_stand(struct pause *pause)
{
	pthread_mutex_lock(&pause->lock);
	pause->standing++;
	pthread_cond_broadcast(&pause->changed);
	while (pause->wanted && stop_status(pause->stop) < 0)
		pthread_cond_wait(&pause->changed, &pause->lock);
	pause->standing--;
	pthread_mutex_unlock(&pause->lock);
}

void pause_want(struct pause *pause, bool wanted)
{
	pthread_mutex_lock(&pause->lock);
	__atomic_store_n(&pause->wanted, wanted, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&pause->changed);
	pthread_mutex_unlock(&pause->lock);
}

/* The end of a machine wakes nobody here, so it is looked for. */
static void pause_look(struct pause *pause)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += PAUSE_LOOK_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&pause->changed, &pause->lock, &until);
}

int pause_wait(struct pause *pause, unsigned int count)
{
	const int64_t deadline = clock_ms() + PAUSE_WAIT_MS;
	int err = 0;

	pthread_mutex_lock(&pause->lock);
	while (!err && pause->standing < count) {
		if (stop_status(pause->stop) >= 0)
			err = -ESHUTDOWN;
		else if (clock_ms() > deadline)
			err = -ETIMEDOUT;
		else
			pause_look(pause);
	}
	pthread_mutex_unlock(&pause->lock);
	return err;
}
