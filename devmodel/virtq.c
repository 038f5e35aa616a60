// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Virtqueues, the device's side: what split rings (virtq_split.c) and packed ones (virtq_packed.c)
 * have in common.
 *
 * The guest may change the ring and the descriptors at any moment, and for the worse. So each value
 * is read once, into a local, and what was checked is that local:
 *
 * - A chain becomes a list of pieces before the device sees anything of it. Each piece was
 *   translated by way of the memory table, and cut where it runs from one region into the next; so
 *   no address or length of the guest's is ever used again, and none can point outside.
 * - A chain of more descriptors than the queue has entries is a loop, or a lie. That bounds the
 *   walk, and with it the time that a driver can cost.
 * - The record of requests in flight is the peer's to spoil, too. All that it can do is to have the
 *   device work once more in what is the guest's anyway, or to break the queue.
 * - A driver that breaks a rule of the standard which leaves no sound meaning breaks its queue:
 *   that is reported once, and no more is read from the ring. The device itself goes on.
 *
 * The order between ring and buffers, on both sides, is that of virtio 1.2: what the driver
 * publishes by is loaded with acquire before what it publishes is read, and what the device
 * publishes by is stored with release after that is written; and a full barrier stands between
 * writing one's own side of the ring and reading the other's.
 */
#include <sys/eventfd.h>

#include "devmodel/virtq_format.h"

int virtq_break(struct virtq *vq)
{
	vq->broken = true;
	if (vq->err >= 0)
		eventfd_write(vq->err, 1);
	return -EPROTO;
}

/* Regions of a peer's choice may begin anywhere, in its address space and in ours. */
void *virtq_area(const struct virtq *vq, uint64_t gpa, uint64_t len, unsigned int align)
{
	void *hva = NULL;

	if (gpa % align || memory_span(vq->memory, gpa, len, &hva) != len ||
	    (uintptr_t)hva % align)
		return NULL;
	return hva;
}

int desc_fetch_pieces(const struct virtq *vq, uint64_t gpa, void *ret)
{
	const size_t size = sizeof(struct vring_desc);
	size_t done = 0;

	while (done < size) {
		void *hva;
		uint64_t span = memory_span(vq->memory, gpa + done, size - done, &hva);

		if (!span)
			return -EPROTO;
		guest_copy((char *)ret + done, hva, span);
		done += span;
	}
	return 0;
}

void virtq_again(struct virtq *vq, uint64_t *counter, uint16_t head, uint64_t own)
{
	unsigned int at = vq->again_count++;

	for (; at && counter[at - 1] > own; at--) {
		counter[at] = counter[at - 1];
		vq->again[at] = vq->again[at - 1];
	}
	counter[at] = own;
	vq->again[at] = head;
	vq->counter = counter[vq->again_count - 1] + 1;
}

int virtq_init(struct virtq *vq, const struct dev_memory *memory, const struct dev_vring *ring,
	       uint64_t features)
{
	if (!ring->size || ring->size > VIRTQ_SIZE_MAX)
		return -EINVAL;
	*vq = (struct virtq){
		.format = features >> VIRTIO_F_RING_PACKED & 1 ? &virtq_packed_format :
								 &virtq_split_format,
		.memory = memory,
		.size = ring->size,
		.indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
		.event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1,
		.kick = ring->kick,
		.call = ring->call,
		.err = ring->err,
		.inflight = ring->inflight,
	};
	return vq->format->init(vq, ring);
}

int virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	int some;

	if (vq->broken)
		return -EPROTO;
	some = vq->format->pop(vq, chain);
	return some < 0 ? virtq_break(vq) : some;
}

bool virtq_is_new(const struct virtq *vq)
{
	return !vq->next_used && (vq->format != &virtq_packed_format || vq->packed.used_wrap);
}

void virtq_push_head(struct virtq *vq, uint16_t head, uint32_t written)
{
	vq->format->push(vq, &(struct virtq_used){ head, written }, 1);
}

void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	virtq_push_head(vq, chain->head, written);
}

void virtq_push_batch(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	vq->format->push(vq, used, count);
}

bool virtq_should_notify(struct virtq *vq)
{
	const uint32_t news = vq->has_signalled ? vq->unsignalled : UINT32_MAX;

	if (!vq->unsignalled)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vq->unsignalled = 0;
	vq->has_signalled = true;
	return vq->format->wants_call(vq, news);
}

void virtq_notify(struct virtq *vq)
{
	if (virtq_should_notify(vq) && vq->call >= 0)
		eventfd_write(vq->call, 1);
}

void virtq_kick_disable(struct virtq *vq)
{
	vq->format->wants_kick(vq, false);
}

bool virtq_kick_enable(struct virtq *vq)
{
	if (vq->broken)
		return false;
	vq->format->wants_kick(vq, true);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vq->format->waits(vq);
}

uint64_t iov_bytes(const struct iovec *iov, unsigned int count)
{
	uint64_t bytes = 0;

	while (count--)
		bytes += iov++->iov_len;
	return bytes;
}

void iov_advance(struct iovec **iov, unsigned int *count, size_t len)
{
	while (*count && len >= (*iov)->iov_len) {
		len -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + len;
		(*iov)->iov_len -= len;
	}
}

size_t chain_read(struct virtq_chain *chain, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len && chain->readable_count) {
		size_t some = chain->readable->iov_len;

		if (some > len - done)
			some = len - done;
		guest_copy((char *)buf + done, chain->readable->iov_base, some);
		iov_advance(&chain->readable, &chain->readable_count, some);
		done += some;
	}
	return done;
}

size_t chain_write(struct virtq_chain *chain, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len && chain->writable_count) {
		size_t some = chain->writable->iov_len;

		if (some > len - done)
			some = len - done;
		memcpy(chain->writable->iov_base, (const char *)buf + done, some);
		iov_advance(&chain->writable, &chain->writable_count, some);
		done += some;
	}
	return done;
}

uint8_t *chain_take_last(struct virtq_chain *chain)
{
	struct iovec *last;

	if (!chain->writable_count)
		return NULL;
	last = &chain->writable[chain->writable_count - 1];
	if (!--last->iov_len)
		chain->writable_count--;
	return (uint8_t *)last->iov_base + last->iov_len;
}
