// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The back end gets the transport's own eventfds, so that no request passes here. Guest memory goes
 * by guest-physical addresses on the wire: it learns none of this process's.
 *
 * Requests in flight are in a region of memory where the back end has one (INFLIGHT_SHMFD), which
 * is ours and outlives it. For one without, vring_track.c keeps an account of each ring: then the
 * back end's calls come here first, on eventfds of our own, and go on to the transport's.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "devmodel/device.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/vhost_share.h"
#include "userspace/vmm/vhost_user.h"
#include "userspace/vmm/vring_track.h"

/* What a back end may ask for to keep a request in, with something for each queue. */
#define SHARE_INFLIGHT_EACH	64ULL
#define SHARE_INFLIGHT_QUEUE	4096ULL

/**
 * struct vhost_queue - a queue as the transport gave it
 * @source: waits for our own call, where rings are tracked
 * @served: a back end has had it since the driver set it up
 */
struct vhost_queue {
	struct loop_source source;
	struct vhost_share *share;
	struct dev_vring ring;
	struct vring_track track;
	bool served;
};

static int share_set_memory(const struct vhost_share *share, struct vhost_user *user)
{
	const struct dev_memory *map = &share->memory->map;
	struct vhost_user_map region[VHOST_USER_REGIONS_MAX];
	uint64_t offset = 0;

	_Static_assert(DEV_MAX_REGIONS <= VHOST_USER_REGIONS_MAX, "all fit into one message");
	for (unsigned int i = 0; i < map->count; i++) {
		region[i] = (struct vhost_user_map){
			.gpa = map->region[i].gpa,
			.size = map->region[i].size,
			.user = map->region[i].gpa,
			.offset = offset,
			.fd = share->memory->fd,
		};
		offset += region[i].size;
	}
	return vhost_user_set_memory(user, region, map->count);
}

/* Requests in flight */

static int share_make_inflight(struct vhost_share *share, struct vhost_user *user)
{
	const uint64_t most = share->count * (SHARE_INFLIGHT_EACH * VRING_TRACK_SIZE_MAX +
					      SHARE_INFLIGHT_QUEUE);
	uint64_t size;
	int err = vhost_user_get_inflight(user, share->count, VRING_TRACK_SIZE_MAX, &size);

	if (err)
		return err;
	if (!size || size > most) {
		log_error("%s: the back end wants %llu bytes to keep requests in", share->name,
			  (unsigned long long)size);
		return -EPROTO;
	}
	share->inflight = fd_memory("inflight", size);
	share->inflight_size = size;
	return share->inflight < 0 ? share->inflight : 0;
}

static int share_set_inflight(struct vhost_share *share, struct vhost_user *user)
{
	int err = 0;

	if (share->tracked)
		return 0;
	if (share->inflight < 0)
		err = share_make_inflight(share, user);
	return err ? err : vhost_user_set_inflight(user, share->inflight, share->inflight_size,
						   share->count, VRING_TRACK_SIZE_MAX);
}

static void share_drop_inflight(struct vhost_share *share)
{
	fd_close(share->inflight);
	share->inflight = -1;
}

/* The transport has found both rings to be memory. */
static struct vring_avail *queue_avail(const struct vhost_queue *queue)
{
	return memory_at(queue->share->memory, queue->ring.avail, 6 + 2 * queue->ring.size);
}

static struct vring_used *queue_used(const struct vhost_queue *queue)
{
	return memory_at(queue->share->memory, queue->ring.used, 6 + 8 * queue->ring.size);
}

unsigned int vhost_share_outstanding(const struct vhost_share *share)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < share->count && share->running; i++) {
		const struct vhost_queue *queue = &share->queue[i];

		if (queue->ring.size)
			sum += (uint16_t)(__atomic_load_n(&queue_avail(queue)->idx, __ATOMIC_RELAXED) -
					  __atomic_load_n(&queue_used(queue)->idx, __ATOMIC_RELAXED));
	}
	return sum;
}

/* A tracked queue's call: on the account first, then the driver may know. */
static void queue_called(struct loop_source *source)
{
	struct vhost_queue *queue = (struct vhost_queue *)source;

	if (!fd_take_event(source->fd))
		return;
	pthread_mutex_lock(queue->share->lock);
	if (queue->share->running && queue->ring.size) {
		vring_track_update(&queue->track);
		fd_signal_event(queue->ring.call);
	}
	pthread_mutex_unlock(queue->share->lock);
}

/*
 * Where the successor begins. With a region it adds what it finds there; without, what is in
 * flight is put behind. Whatever the other had asked of the driver's kicks is void.
 */
static int queue_resume(struct vhost_queue *queue, uint16_t *ret_base)
{
	struct vring_used *used = queue_used(queue);

	*ret_base = __atomic_load_n(&used->idx, __ATOMIC_RELAXED);
	__atomic_store_n(&used->flags, 0, __ATOMIC_RELAXED);
	return queue->share->tracked ? vring_track_repeat(&queue->track, ret_base) : 0;
}

/* Serving */

static int share_set_queue(struct vhost_share *share, struct vhost_user *user, unsigned int index)
{
	struct vhost_queue *queue = &share->queue[index];
	const struct dev_vring *ring = &queue->ring;
	struct vhost_user_vring vring = {
		.size = ring->size, .base = ring->next_avail,
		.desc = ring->desc, .avail = ring->avail, .used = ring->used,
		.kick = ring->kick, .err = ring->err,
		.call = share->tracked ? queue->source.fd : ring->call,
	};

	if (!ring->size)
		return 0;
	if (queue->served && queue_resume(queue, &vring.base)) {
		log_error("%s: queue %u does not show which requests are in flight", share->name,
			  index);
		fd_signal_event(ring->err);
		queue->ring.size = 0;
		return 0;
	}
	queue->served = true;
	return vhost_user_set_vring(user, index, &vring);
}

/* What either side may have missed meanwhile, it finds when it looks: have both look. */
static void queue_nudge(const struct vhost_queue *queue)
{
	fd_signal_event(queue->ring.kick);
	fd_signal_event(queue->ring.call);
}

int vhost_share_serve(struct vhost_share *share, struct vhost_user *user)
{
	int err = vhost_user_set_features(user, share->features);

	if (!err)
		err = share_set_memory(share, user);
	if (!err)
		err = share_set_inflight(share, user);
	for (unsigned int i = 0; i < share->count && !err; i++)
		err = share_set_queue(share, user, i);
	for (unsigned int i = 0; i < share->count && !err; i++)
		if (share->queue[i].ring.size)
			err = vhost_user_enable_vring(user, i, true);
	if (!err)
		err = vhost_user_sync(user);
	for (unsigned int i = 0; i < share->count && !err; i++)
		if (share->queue[i].ring.size)
			queue_nudge(&share->queue[i]);
	return err;
}

void vhost_share_start(struct vhost_share *share, uint64_t features, const struct dev_vring *rings)
{
	for (unsigned int i = 0; i < share->count; i++) {
		struct vhost_queue *queue = &share->queue[i];

		queue->ring = rings[i];
		queue->served = false;
		if (queue->ring.size)
			vring_track_init(&queue->track, queue_avail(queue), queue_used(queue),
					 queue->ring.size, queue->ring.next_avail);
	}
	share->features = features;
	share->running = true;
}

int vhost_share_stop(struct vhost_share *share, struct vhost_user *user)
{
	uint16_t base;
	int err = 0;

	for (unsigned int i = 0; i < share->count && user->socket >= 0 && !err; i++)
		if (share->queue[i].ring.size)
			err = vhost_user_stop_vring(user, i, &base);
	share->running = false;
	share_drop_inflight(share);
	return err;
}

int vhost_share_init(struct vhost_share *share, struct loop *loop)
{
	int err = 0;

	share->inflight = -1;
	share->queue = calloc(share->count, sizeof(*share->queue));
	if (!share->queue)
		return -ENOMEM;
	for (unsigned int i = 0; i < share->count; i++)
		share->queue[i] = (struct vhost_queue){
			.source = { .fd = -1, .ready = queue_called }, .share = share,
		};
	for (unsigned int i = 0; i < share->count && share->tracked && !err; i++) {
		struct loop_source *source = &share->queue[i].source;

		source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		err = source->fd < 0 ? -errno : loop_add(loop, source);
	}
	return err;
}

void vhost_share_finish(struct vhost_share *share)
{
	for (unsigned int i = 0; i < share->count && share->queue; i++)
		fd_close(share->queue[i].source.fd);
	free(share->queue);
	share_drop_inflight(share);
}
