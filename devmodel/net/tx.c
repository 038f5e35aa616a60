// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Frames from the guest. A chain is a header and a frame, as the tap takes them: the host's kernel
 * reads both out of the guest's pages, once, and checks each field of the header. What is checked
 * here is the length, of pieces that are no longer the driver's to change.
 */
#include <errno.h>
#include <sys/uio.h>

#include "devmodel/net/queue.h"

static bool tx_is_frame(const struct net_queue *queue, uint64_t bytes)
{
	return bytes >= queue->header + ETH_HLEN && bytes <= queue->header + NET_FRAME_MAX;
}

/* Of a stream that ended, the other direction hears. */
static enum net_step tx_write_stream(struct net_tx *tx, uint64_t bytes)
{
	struct net_queue *queue = &tx->queue;
	const int err = stream_write(queue->tap, &tx->out, queue->chain.readable, queue->chain.readable_count,
				     queue->header, bytes - queue->header);

	if (err)
		return err == -EAGAIN ? NET_NEEDS_TAP : queue_dropped(queue);
	queue_passed(queue, bytes);
	return NET_PASSED;
}

/* A frame that the tap refuses is dropped, as a network does. */
static enum net_step tx_write(struct net_tx *tx, uint64_t bytes)
{
	struct net_queue *queue = &tx->queue;
	const struct virtq_chain *chain = &queue->chain;

	if (!tx_is_frame(queue, bytes))
		return queue_dropped(queue);
	if (queue->stream)
		return tx_write_stream(tx, bytes);
	if (writev(queue->tap, chain->readable, chain->readable_count) < 0)
		return errno == EAGAIN || errno == EINTR ? NET_NEEDS_TAP : queue_dropped(queue);
	queue_passed(queue, bytes);
	return NET_PASSED;
}

static enum net_step tx_step(struct net_queue *queue)
{
	struct net_tx *tx = (struct net_tx *)queue;
	const struct virtq_chain *chain = &queue->chain;
	enum net_step step;
	uint64_t bytes;

	if (tx->out.left && stream_flush(queue->tap, &tx->out) == -EAGAIN)
		return NET_NEEDS_TAP;
	if (!tx->held && virtq_pop(&queue->vq, &queue->chain) <= 0)
		return NET_NEEDS_BUFFERS;
	bytes = iov_bytes(chain->readable, chain->readable_count);
	step = tx_write(tx, bytes);
	tx->held = step != NET_PASSED;
	if (!tx->held) {
		limit_take(queue->limit, bytes);
		virtq_push(&queue->vq, chain, 0);
	}
	return step;
}

void tx_init(struct net_tx *tx, int tap, const struct net_options *options, struct limit *limit)
{
	tx->queue.stream = options->stream;
	tx->queue.gone = options->gone;
	tx->out.rest = tx->rest;
	tx->queue.tap = tap;
	tx->queue.tap_events = POLLOUT;
	tx->queue.limit = limit;
	tx->queue.step = tx_step;
}

int tx_start(struct net_tx *tx, const struct dev_memory *memory, const struct dev_vring *ring,
	     uint64_t features)
{
	int err = virtq_init(&tx->queue.vq, memory, ring, features);

	if (err)
		return err;
	tx->queue.header = queue_header(features);
	tx->held = false;
	return queue_start(&tx->queue, "net-tx");
}
