// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <sys/eventfd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/stop.h"

int stop_init(struct stop *stop)
{
	stop->status = -1;
	pthread_mutex_init(&stop->lock, NULL);
	stop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return stop->event < 0 ? -errno : 0;
}

void stop_finish(struct stop *stop)
{
	fd_close(stop->event);
	stop->event = -1;
}

void stop_request(struct stop *stop, enum control_end end, int status)
{
	pthread_mutex_lock(&stop->lock);
	if (stop->status < 0) {
		stop->end = end;
		if (end != CONTROL_END_OFF && end != CONTROL_END_STATUS && end != CONTROL_END_ASKED)
			log_last(stop->text, sizeof(stop->text));
		__atomic_store_n(&stop->status, status, __ATOMIC_SEQ_CST);
		eventfd_write(stop->event, 1);
	}
	pthread_mutex_unlock(&stop->lock);
}

int stop_status(const struct stop *stop)
{
	return __atomic_load_n(&stop->status, __ATOMIC_SEQ_CST);
}
