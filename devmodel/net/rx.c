// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Frames to the guest. A tap does not tell how long the next frame is, and what does not fit is cut
 * off. So chains are taken from the ring until there is room for the longest frame, and kept for
 * the next one where less was needed; the tap writes header and frame right into them.
 *
 * Where the ring has less room, as when the guest is slow, the last piece of what is read into is
 * memory of our own, which is only touched by a frame that does not fit. Such a frame waits for
 * more chains, with the rest of it here, and those behind it wait in the tap. With no chain at all
 * nothing is read. A driver that does not merge has to make each chain long enough; a frame that is
 * longer is dropped.
 *
 * Of a stream, frames come in parts, and each is read into memory of our own first.
 *
 * The chains of a frame are given back together, in the order in which they were taken.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "devmodel/net/queue.h"

/* Is there no place for one more chain? */
static bool rx_is_full(const struct net_rx *rx)
{
	return rx->chains == VIRTQ_SIZE_MAX || rx->pieces + VIRTQ_IOV_MAX > NET_RX_PIECES;
}

/* Takes one more chain. False: there is none. */
static bool rx_take(struct net_rx *rx)
{
	const struct virtq_chain *chain = &rx->queue.chain;
	struct net_rx_chain *held = &rx->held[rx->chains];

	if (virtq_pop(&rx->queue.vq, &rx->queue.chain) <= 0)
		return false;
	*held = (struct net_rx_chain){
		.head = chain->head, .pieces = chain->writable_count,
		.room = iov_bytes(chain->writable, chain->writable_count),
	};
	memcpy(rx->iov + rx->pieces, chain->writable, held->pieces * sizeof(rx->iov[0]));
	rx->pieces += held->pieces;
	rx->room += held->room;
	rx->chains++;
	return true;
}

/* Takes chains until there is room for @bytes, or as many as there are. */
static void rx_gather(struct net_rx *rx, uint64_t bytes)
{
	while (rx->room < bytes && !rx_is_full(rx) && rx_take(rx))
		;
}

static void rx_make_room(struct net_rx *rx)
{
	if (rx->merges)
		rx_gather(rx, rx->queue.header + NET_FRAME_MAX);
	else if (!rx->chains)
		rx_take(rx);
}

/* Copies to where @offset bytes of the chains' room are before it. */
static void rx_put(const struct net_rx *rx, uint64_t offset, const void *from, size_t len)
{
	for (const struct iovec *iov = rx->iov; len; iov++) {
		size_t some = 0;

		if (offset < iov->iov_len) {
			some = iov->iov_len - offset < len ? iov->iov_len - offset : len;
			memcpy((char *)iov->iov_base + offset, from, some);
		}
		offset -= offset < iov->iov_len ? offset : iov->iov_len;
		from = (const char *)from + some;
		len -= some;
	}
}

/* The first @chains are the driver's again. */
static void rx_forget(struct net_rx *rx, unsigned int chains)
{
	unsigned int pieces = 0;

	for (unsigned int i = 0; i < chains; i++) {
		pieces += rx->held[i].pieces;
		rx->room -= rx->held[i].room;
	}
	rx->chains -= chains;
	rx->pieces -= pieces;
	memmove(rx->held, rx->held + chains, rx->chains * sizeof(rx->held[0]));
	memmove(rx->iov, rx->iov + pieces, rx->pieces * sizeof(rx->iov[0]));
}

/* The frame fits into the chains. */
static void rx_give(struct net_rx *rx)
{
	struct virtq_used used[VIRTQ_SIZE_MAX];
	uint32_t left = rx->frame;
	uint16_t count = 0;

	while (left) {
		const struct net_rx_chain *held = &rx->held[count];
		const uint32_t written = left < held->room ? left : held->room;

		used[count++] = (struct virtq_used){ held->head, written };
		left -= written;
	}
	rx_put(rx, rx->placed, rx->spill + rx->spilled, rx->frame - rx->placed);
	if (rx->queue.header == sizeof(struct virtio_net_hdr_v1))
		rx_put(rx, offsetof(struct virtio_net_hdr_v1, num_buffers), &count, sizeof(count));
	virtq_push_batch(&rx->queue.vq, used, count);
	rx_forget(rx, count);
}

/* What was read, if in part. */
static enum net_step rx_place(struct net_rx *rx)
{
	if (rx->merges)
		rx_gather(rx, rx->frame);
	if (rx->frame > rx->room) {
		if (rx->merges && !rx_is_full(rx))
			return NET_NEEDS_BUFFERS;
		rx->frame = 0;
		return queue_dropped(&rx->queue);
	}
	queue_passed(&rx->queue, rx->frame);
	rx_give(rx);
	rx->frame = 0;
	return NET_PASSED;
}

/* EFAULT is of the guest's memory, which is not there: so is the frame. */
static enum net_step rx_refused(struct net_rx *rx, int err)
{
	if (err == EAGAIN || err == EINTR)
		return NET_NEEDS_TAP;
	return err == EFAULT ? queue_dropped(&rx->queue) : NET_TAP_GONE;
}

static enum net_step rx_read(struct net_rx *rx)
{
	struct net_queue *queue = &rx->queue;
	ssize_t n;

	rx->iov[rx->pieces] = (struct iovec){ rx->spill, sizeof(rx->spill) };
	n = readv(queue->tap, rx->iov, rx->pieces + 1);
	if (n < 0)
		return rx_refused(rx, errno);
	if (n < queue->header)
		return NET_TAP_GONE;
	limit_take(queue->limit, n);
	/* Longer than any frame: some of it may be missing. */
	if (n > queue->header + NET_FRAME_MAX)
		return queue_dropped(queue);
	rx->frame = n;
	rx->placed = rx->frame < rx->room ? rx->frame : rx->room;
	return rx_place(rx);
}

/* The header, in front of the frame, says nothing, for nothing is left undone in it. */
static enum net_step rx_read_stream(struct net_rx *rx)
{
	struct net_queue *queue = &rx->queue;
	const int n = stream_read(queue->tap, &rx->in, rx->spill + NET_HEADER_MAX, ETH_HLEN, NET_FRAME_MAX);

	if (n == -EAGAIN)
		return NET_NEEDS_TAP;
	if (n < 0)
		return queue_gone(queue);
	rx->spilled = NET_HEADER_MAX - queue->header;
	memset(rx->spill + rx->spilled, 0, queue->header);
	rx->frame = queue->header + n;
	rx->placed = 0;
	limit_take(queue->limit, rx->frame);
	return rx_place(rx);
}

static enum net_step rx_step(struct net_queue *queue)
{
	struct net_rx *rx = (struct net_rx *)queue;

	if (rx->frame)
		return rx_place(rx);
	rx_make_room(rx);
	if (!rx->chains)
		return NET_NEEDS_BUFFERS;
	return queue->stream ? rx_read_stream(rx) : rx_read(rx);
}

void rx_init(struct net_rx *rx, int tap, const struct net_options *options, struct limit *limit)
{
	rx->queue.stream = options->stream;
	rx->queue.gone = options->gone;
	rx->queue.tap = tap;
	rx->queue.tap_events = POLLIN;
	rx->queue.limit = limit;
	rx->queue.step = rx_step;
}

int rx_start(struct net_rx *rx, const struct dev_memory *memory, const struct dev_vring *ring,
	     uint64_t features)
{
	int err = virtq_init(&rx->queue.vq, memory, ring, features);

	if (err)
		return err;
	rx->queue.header = queue_header(features);
	rx->merges = features >> VIRTIO_NET_F_MRG_RXBUF & 1;
	rx->chains = 0;
	rx->pieces = 0;
	rx->room = 0;
	rx->frame = 0;
	return queue_start(&rx->queue, "net-rx");
}
