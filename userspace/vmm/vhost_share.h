/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * isolation=shared: what a back end gets to see of a machine is all of its memory, and the driver's
 * own rings. vhost_share.c tells how requests in flight outlive it.
 */
#ifndef VMM_VHOST_SHARE_H
#define VMM_VHOST_SHARE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct dev_vring;
struct loop;
struct memory;
struct vhost_queue;
struct vhost_user;

/**
 * struct vhost_share - the queues of a device, and who serves them
 * @name: what messages call it
 * @lock: the device's, which guards all of this and is held by callers
 * @count: of queues
 * @running: between start and stop
 * @tracked: the back end keeps no region for requests in flight
 * @features: chosen by the driver
 * @inflight: the region, of @inflight_size bytes; or -1
 */
struct vhost_share {
	const char *name;
	const struct memory *memory;
	pthread_mutex_t *lock;
	unsigned int count;
	bool running;
	bool tracked;
	uint64_t features;
	int inflight;
	uint64_t inflight_size;
	struct vhost_queue *queue;
};

/* The other members are set by then. @loop is where calls of the back end's may be waited for. */
int vhost_share_init(struct vhost_share *share, struct loop *loop);

/* After the loop's end. Fine after an init that failed. */
void vhost_share_finish(struct vhost_share *share);

/* The driver is ready: these are its rings. Whether a back end is there is another matter. */
void vhost_share_start(struct vhost_share *share, uint64_t features, const struct dev_vring *rings);

/* Have a back end serve the driver's rings, as the first since the start or as a successor. */
int vhost_share_serve(struct vhost_share *share, struct vhost_user *user);

/* Undo the start. With a @user whose connection is down, or is lost, the rest is done all the same. */
int vhost_share_stop(struct vhost_share *share, struct vhost_user *user);

/* How many requests the driver has out, whether begun or not. */
unsigned int vhost_share_outstanding(const struct vhost_share *share);

#endif /* VMM_VHOST_SHARE_H */
