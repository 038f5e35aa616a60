// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The thread of a ring: it passes frames until it has to wait, for the driver (a kick), the tap, or
 * the time that a limit gives. Each ring has a thread, so that the two directions go on beside each
 * other.
 */
#include <sys/eventfd.h>

#include "devmodel/net/queue.h"
#include "userspace/lib/array.h"

/* The driver is told of frames at the latest when so many have passed. */
#define NET_BATCH	32

enum { NET_POLL_KICK = WORKER_POLL_STOP + 1, NET_POLL_TAP, NET_POLL_COUNT };

uint32_t queue_header(uint64_t features)
{
	if (features >> VIRTIO_F_VERSION_1 & 1 || features >> VIRTIO_NET_F_MRG_RXBUF & 1)
		return sizeof(struct virtio_net_hdr_v1);
	return sizeof(struct virtio_net_hdr);
}

/* Read by another thread, whenever it likes. */
static void count_add(uint64_t *count, uint64_t amount)
{
	__atomic_store_n(count, *count + amount, __ATOMIC_RELAXED);
}

void queue_passed(struct net_queue *queue, uint32_t bytes)
{
	count_add(&queue->counts.frames, 1);
	count_add(&queue->counts.bytes, bytes - queue->header);
}

enum net_step queue_dropped(struct net_queue *queue)
{
	count_add(&queue->counts.dropped, 1);
	return NET_PASSED;
}

enum net_step queue_gone(struct net_queue *queue)
{
	if (queue->gone)
		queue->gone();
	return NET_TAP_GONE;
}

/* Passes frames until it takes something else than time of this thread. @ret_wait: of the limit. */
static enum net_step queue_pass(struct net_queue *queue, int *ret_wait)
{
	enum net_step step = NET_PASSED;

	for (unsigned int frames = 1; step == NET_PASSED; frames++) {
		*ret_wait = limit_wait(queue->limit);
		if (*ret_wait || worker_ends(&queue->worker))
			break;
		step = queue->step(queue);
		if (frames % NET_BATCH == 0)
			virtq_notify(&queue->vq);
	}
	virtq_notify(&queue->vq);
	return step;
}

/* Until there is something to wait for: filled in, but for the time in ms, which is returned. */
static int queue_serve(struct net_queue *queue, struct pollfd *wait)
{
	enum net_step step;
	int ms;

	do {
		virtq_kick_disable(&queue->vq);
		step = queue_pass(queue, &ms);
	} while (step == NET_NEEDS_BUFFERS && virtq_kick_enable(&queue->vq) &&
		 !worker_ends(&queue->worker));
	wait[NET_POLL_KICK] = (struct pollfd){
		.fd = step == NET_NEEDS_BUFFERS ? queue->vq.kick : -1, .events = POLLIN,
	};
	wait[NET_POLL_TAP] = (struct pollfd){
		.fd = step == NET_NEEDS_TAP ? queue->tap : -1, .events = queue->tap_events,
	};
	return ms ? ms : -1;
}

static void *queue_run(void *arg)
{
	struct pollfd wait[NET_POLL_COUNT] = { { 0 } };
	struct net_queue *queue = arg;
	eventfd_t count;

	while (worker_wait_for(&queue->worker, wait, NET_POLL_COUNT, queue_serve(queue, wait)))
		if (wait[NET_POLL_KICK].revents)
			eventfd_read(queue->vq.kick, &count);
	return NULL;
}

int queue_start(struct net_queue *queue, const char *name)
{
	return worker_start(&queue->worker, name, queue_run, queue);
}

void queue_stop(struct net_queue *queue)
{
	worker_stop(&queue->worker);
}
