/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The memory in which requests in flight are recorded. The front end keeps it while a back end is
 * gone, and hands it to the next one. What is in it is told in devmodel/virtq_inflight.h.
 */
#ifndef DEVMODEL_VHOST_USER_INFLIGHT_H
#define DEVMODEL_VHOST_USER_INFLIGHT_H

#include <stddef.h>

#include "include/moat/vhost_user.h"

struct inflight {
	void *base;
	size_t length;
	uint16_t num_queues;
	uint16_t queue_size;
};

/**
 * inflight_create - new memory, of zeroes, for @area's queues and queue size
 * @area: its size and offset are filled in
 *
 * Return: a descriptor; a negative errno.
 */
int inflight_create(struct vhost_user_inflight *area);

/* Maps an area. @ret untouched on failure; -EINVAL where it is too small for what it is to hold. */
int inflight_map(const struct vhost_user_inflight *area, int fd, struct inflight *ret);

/* Fine where nothing is mapped. */
void inflight_unmap(struct inflight *inflight);

/* The record of a queue; NULL where there is none. */
void *inflight_queue(const struct inflight *inflight, unsigned int index);

/* The record of a queue tells nothing any more: the front end knows where the queue goes on. */
void inflight_forget(const struct inflight *inflight, unsigned int index);

#endif /* DEVMODEL_VHOST_USER_INFLIGHT_H */
