// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/worker.h"
#include "userspace/lib/thread.h"

int worker_start(struct worker *worker, const char *name, void *(*run)(void *arg), void *arg)
{
	int err;

	worker->ends = false;
	worker->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->stop < 0)
		return -errno;
	err = thread_start(&worker->thread, name, run, arg);
	if (err)
		close(worker->stop);
	return err;
}

void worker_stop(struct worker *worker)
{
	__atomic_store_n(&worker->ends, true, __ATOMIC_RELAXED);
	eventfd_write(worker->stop, 1);
	pthread_join(worker->thread, NULL);
	close(worker->stop);
}

bool worker_ends(const struct worker *worker)
{
	return __atomic_load_n(&worker->ends, __ATOMIC_RELAXED);
}

bool worker_wait(struct worker *worker, struct pollfd *wait, unsigned int count)
{
	return worker_wait_for(worker, wait, count, -1);
}

bool worker_wait_for(struct worker *worker, struct pollfd *wait, unsigned int count,
		     int timeout_ms)
{
	int n;

	wait[WORKER_POLL_STOP] = (struct pollfd){ .fd = worker->stop, .events = POLLIN };
	do {
		n = poll(wait, count, timeout_ms);
	} while (n < 0 && errno == EINTR);
	/* Any other error would only repeat itself at full speed. */
	return n >= 0 && !wait[WORKER_POLL_STOP].revents;
}
