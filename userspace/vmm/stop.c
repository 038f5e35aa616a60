// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmm/stop.h"

int stop_init(struct stop *stop)
{
	stop->status = -1;
	stop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return stop->event < 0 ? -errno : 0;
}

void stop_finish(struct stop *stop)
{
	fd_close(stop->event);
	stop->event = -1;
}

void stop_request(struct stop *stop, int status)
{
	int goes_on = -1;

	if (__atomic_compare_exchange_n(&stop->status, &goes_on, status, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		eventfd_write(stop->event, 1);
}

int stop_status(const struct stop *stop)
{
	return __atomic_load_n(&stop->status, __ATOMIC_SEQ_CST);
}
