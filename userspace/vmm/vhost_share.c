// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * isolation=shared: what a back end gets to see of a machine is all of its memory, and the driver's own
 * rings.
 *
 * The back end gets the transport's own eventfds, so that no request passes here. Guest memory goes
 * by guest-physical addresses on the wire: it learns none of this process's.
 *
 * Requests in flight are in a region of memory where the back end has one (INFLIGHT_SHMFD), which
 * is ours and outlives it. For one without, vring_track.c keeps an account of each ring: then the
 * back end's calls come here first, on eventfds of our own, and go on to the transport's.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "devmodel/device.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/vhost_user.h"
#include "userspace/vmm/vring_track.h"

/* What a back end may ask for to keep a request in, with something for each queue. */
#define SHARE_INFLIGHT_EACH	64ULL
#define SHARE_INFLIGHT_QUEUE	4096ULL

/* Those of the ring that split rings in shared memory can have, if the back end has. */
#define SHARE_RING_FEATURES	(1ULL << VIRTIO_RING_F_INDIRECT_DESC | \
				 1ULL << VIRTIO_RING_F_EVENT_IDX | \
				 1ULL << VIRTIO_F_VERSION_1)

/**
 * struct vhost_share - the queues
 * @tracked: the back end keeps no region for requests in flight
 * @inflight: the region, of @inflight_size bytes; or -1
 */
struct vhost_share {
	struct vhost_isolation base;
	bool tracked;
	int inflight;
	uint64_t inflight_size;
	struct vhost_queue *queue;
};

/**
 * struct vhost_queue - a queue as the transport gave it
 * @source: waits for our own call, where rings are tracked
 * @served: a back end has had it since the driver set it up
 * @begun: the index into the used ring when the last one got it
 */
struct vhost_queue {
	struct loop_source source;
	struct vhost_share *share;
	struct dev_vring ring;
	struct vring_track track;
	bool served;
	uint16_t begun;
};

static int share_set_memory(const struct vhost_share *share, struct vhost_user *user)
{
	const struct dev_memory *map = &share->base.memory->map;
	struct vhost_user_map region[VHOST_USER_REGIONS_MAX];
	uint64_t offset = 0;

	_Static_assert(DEV_MAX_REGIONS <= VHOST_USER_REGIONS_MAX, "all fit into one message");
	for (unsigned int i = 0; i < map->count; i++) {
		region[i] = (struct vhost_user_map){
			.gpa = map->region[i].gpa,
			.size = map->region[i].size,
			.user = map->region[i].gpa,
			.offset = offset,
			.fd = share->base.memory->fd,
		};
		offset += region[i].size;
	}
	return vhost_user_set_memory(user, region, map->count);
}

/* Requests in flight */

static int share_make_inflight(struct vhost_share *share, struct vhost_user *user)
{
	const uint64_t most = share->base.count * (SHARE_INFLIGHT_EACH * VRING_TRACK_SIZE_MAX +
					      SHARE_INFLIGHT_QUEUE);
	uint64_t size;
	int err = vhost_user_get_inflight(user, share->base.count, VRING_TRACK_SIZE_MAX, &size);

	if (err)
		return err;
	if (!size || size > most) {
		log_error("%s: the back end wants %llu bytes to keep requests in", share->base.name,
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
						   share->base.count, VRING_TRACK_SIZE_MAX);
}

static void share_drop_inflight(struct vhost_share *share)
{
	fd_close(share->inflight);
	share->inflight = -1;
}

/* The transport has found both rings to be memory. */
static struct vring_avail *queue_avail(const struct vhost_queue *queue)
{
	return memory_at(queue->share->base.memory, queue->ring.avail, 6 + 2 * queue->ring.size);
}

static struct vring_used *queue_used(const struct vhost_queue *queue)
{
	return memory_at(queue->share->base.memory, queue->ring.used, 6 + 8 * queue->ring.size);
}

static unsigned int share_outstanding(const struct vhost_isolation *isolation)
{
	const struct vhost_share *share = (const struct vhost_share *)isolation;
	unsigned int sum = 0;

	for (unsigned int i = 0; i < share->base.count && share->base.running; i++) {
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
	pthread_mutex_lock(queue->share->base.lock);
	if (queue->share->base.running && queue->ring.size) {
		vring_track_update(&queue->track);
		fd_signal_event(queue->ring.call);
	}
	pthread_mutex_unlock(queue->share->base.lock);
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
		log_error("%s: queue %u does not show which requests are in flight", share->base.name,
			  index);
		fd_signal_event(ring->err);
		queue->ring.size = 0;
		return 0;
	}
	queue->served = true;
	queue->begun = __atomic_load_n(&queue_used(queue)->idx, __ATOMIC_RELAXED);
	return vhost_user_set_vring(user, index, &vring);
}

/* What either side may have missed meanwhile, it finds when it looks: have both look. */
static void queue_nudge(const struct vhost_queue *queue)
{
	fd_signal_event(queue->ring.kick);
	fd_signal_event(queue->ring.call);
}

static int share_serve(struct vhost_isolation *isolation, struct vhost_user *user)
{
	struct vhost_share *share = (struct vhost_share *)isolation;
	int err = vhost_user_set_features(user, share->base.features);

	if (!err)
		err = share_set_memory(share, user);
	if (!err)
		err = share_set_inflight(share, user);
	for (unsigned int i = 0; i < share->base.count && !err; i++)
		err = share_set_queue(share, user, i);
	for (unsigned int i = 0; i < share->base.count && !err; i++)
		if (share->queue[i].ring.size)
			err = vhost_user_enable_vring(user, i, true);
	if (!err)
		err = vhost_user_sync(user);
	for (unsigned int i = 0; i < share->base.count && !err; i++)
		if (share->queue[i].ring.size)
			queue_nudge(&share->queue[i]);
	return err;
}

static bool share_progressed(const struct vhost_isolation *isolation)
{
	const struct vhost_share *share = (const struct vhost_share *)isolation;
	bool progressed = false;

	for (unsigned int i = 0; i < isolation->count && isolation->running; i++) {
		const struct vhost_queue *queue = &share->queue[i];

		if (queue->ring.size && queue->served)
			progressed |= __atomic_load_n(&queue_used(queue)->idx, __ATOMIC_RELAXED) !=
				      queue->begun;
	}
	return progressed;
}

/* All is where it outlives the back end; which request it may have died of, is not known. */
static void share_lost(struct vhost_isolation *isolation)
{
	(void)isolation;
}

static void share_start(struct vhost_isolation *isolation, uint64_t features,
			const struct dev_vring *rings)
{
	struct vhost_share *share = (struct vhost_share *)isolation;

	for (unsigned int i = 0; i < share->base.count; i++) {
		struct vhost_queue *queue = &share->queue[i];

		queue->ring = rings[i];
		queue->served = false;
		if (queue->ring.size)
			vring_track_init(&queue->track, queue_avail(queue), queue_used(queue),
					 queue->ring.size, queue->ring.next_avail);
	}
	share->base.features = features;
	share->base.running = true;
}

static int share_stop(struct vhost_isolation *isolation, struct vhost_user *user)
{
	struct vhost_share *share = (struct vhost_share *)isolation;
	uint16_t base;
	int err = 0;

	for (unsigned int i = 0; i < share->base.count && user->socket >= 0 && !err; i++)
		if (share->queue[i].ring.size)
			err = vhost_user_stop_vring(user, i, &base);
	share->base.running = false;
	share_drop_inflight(share);
	return err;
}

/* A queue's own call, where rings are tracked. */
static int queue_watch(struct vhost_queue *queue)
{
	queue->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->source.fd < 0)
		return -errno;
	return loop_add(queue->share->base.loop, &queue->source);
}

static void share_destroy(struct vhost_isolation *isolation)
{
	struct vhost_share *share = (struct vhost_share *)isolation;

	for (unsigned int i = 0; i < share->base.count && share->queue; i++)
		fd_close(share->queue[i].source.fd);
	free(share->queue);
	share_drop_inflight(share);
	free(share);
}

static int share_create(const struct vhost_isolation *setup, const struct vhost_user *user,
			struct vhost_isolation **ret)
{
	struct vhost_share *share = calloc(1, sizeof(*share));
	int err = 0;

	if (!share)
		return -ENOMEM;
	share->base = *setup;
	share->inflight = -1;
	share->tracked = !vhost_user_has(user, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
	share->queue = calloc(share->base.count, sizeof(*share->queue));
	if (!share->queue)
		err = -ENOMEM;
	for (unsigned int i = 0; i < share->base.count && share->queue; i++)
		share->queue[i] = (struct vhost_queue){
			.source = { .fd = -1, .ready = queue_called }, .share = share,
		};
	for (unsigned int i = 0; i < share->base.count && share->tracked && !err; i++)
		err = queue_watch(&share->queue[i]);
	if (err)
		share_destroy(&share->base);
	else
		*ret = &share->base;
	return err;
}

static uint64_t share_ring_features(uint64_t offered)
{
	return offered & SHARE_RING_FEATURES;
}

static const char *share_lacks(const struct vhost_isolation *isolation,
			       const struct vhost_user *user)
{
	const struct vhost_share *share = (const struct vhost_share *)isolation;

	if (!share->tracked && !vhost_user_has(user, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
		return "a region for requests in flight";
	return NULL;
}

const struct vhost_isolation_ops vhost_share = {
	.name = "shared",
	.ring_features = share_ring_features,
	.create = share_create,
	.destroy = share_destroy,
	.lacks = share_lacks,
	.start = share_start,
	.serve = share_serve,
	.progressed = share_progressed,
	.lost = share_lost,
	.blame = share_lost,
	.stop = share_stop,
	.outstanding = share_outstanding,
};
