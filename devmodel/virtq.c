// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Split virtqueues, the device's side.
 *
 * The guest may change the ring and the descriptors at any moment, and for the worse. So each value
 * is read once, into a local, and what was checked is that local:
 *
 * - A chain becomes a list of pieces before the device sees anything of it. Each piece was
 *   translated by way of the memory table, and cut where it runs from one region into the next; so
 *   no address or length of the guest's is ever used again, and none can point outside.
 * - A chain of more descriptors than the queue has entries is a loop. That bounds the walk, and
 *   with it the time that a driver can cost.
 * - The record of requests in flight is the peer's to spoil, too. All that it can do is to have the
 *   guest's own descriptors looked at once more.
 * - A driver that breaks a rule of the standard which leaves no sound meaning breaks its queue:
 *   that is reported once, and no more is read from the ring. The device itself goes on.
 *
 * The order between ring and buffers, on both sides, is that of section 2.7.13 of virtio 1.2: the
 * driver area's index is loaded with acquire before what it publishes is read, the device area's is
 * stored with release after what it publishes is written; and a full barrier stands between writing
 * one's own index or event field and reading the other side's.
 *
 * Requests outlive a process that is killed by a record in memory that outlives it: a head is marked
 * once its chain is taken, and unmarked once it is in the device area. Between those two stores
 * lies the only moment in which the record is behind the ring; last_batch_head tells of which
 * head, and used_idx that it was so. The index to go on from is that of the device area, plus the
 * requests in flight.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devmodel/virtq.h"

/* The bytes in one region from @gpa on, at most @len, and where they are; 0: @gpa is not memory. */
static uint64_t memory_span(const struct dev_memory *memory, uint64_t gpa, uint64_t len,
			    void **ret_hva)
{
	for (unsigned int i = 0; i < memory->count; i++) {
		const struct dev_region *region = &memory->region[i];
		uint64_t offset = gpa - region->gpa;

		if (gpa < region->gpa || offset >= region->size)
			continue;
		*ret_hva = (char *)region->hva + offset;
		return len < region->size - offset ? len : region->size - offset;
	}
	return 0;
}

/*
 * One read of guest memory: the barrier, which might use the copy, keeps the compiler from reading
 * again later.
 */
static void guest_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	__asm__ __volatile__("" : : "r" (to) : "memory");
}

static int virtq_fetch(const struct virtq *vq, uint64_t gpa, struct vring_desc *ret)
{
	size_t done = 0;

	while (done < sizeof(*ret)) {
		void *hva;
		uint64_t span = memory_span(vq->memory, gpa + done, sizeof(*ret) - done, &hva);

		if (!span)
			return -EPROTO;
		guest_copy((char *)ret + done, hva, span);
		done += span;
	}
	return 0;
}

static int virtq_break(struct virtq *vq)
{
	vq->broken = true;
	if (vq->err >= 0)
		eventfd_write(vq->err, 1);
	return -EPROTO;
}

/* A part of the ring, whole in one region and aligned. */
static void *virtq_area(const struct dev_memory *memory, uint64_t gpa, uint64_t len,
			unsigned int align)
{
	void *hva;

	if (gpa % align || memory_span(memory, gpa, len, &hva) != len)
		return NULL;
	return hva;
}

/* One that was given back just before the end may still be marked. */
static void inflight_settle(const struct virtq *vq, struct virtq_inflight *inflight)
{
	uint16_t last = __atomic_load_n(&inflight->last_batch_head, __ATOMIC_RELAXED);

	if (inflight->version == VIRTQ_INFLIGHT_VERSION && inflight->used_idx != vq->next_used &&
	    last < vq->size)
		inflight->desc[last].inflight = 0;
	inflight->version = VIRTQ_INFLIGHT_VERSION;
	inflight->desc_num = vq->size;
	__atomic_store_n(&inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

/* What a process before this one left in flight is to be taken first, sorted by the counters. */
static void virtq_recover(struct virtq *vq, struct virtq_inflight *inflight)
{
	uint64_t counter[VIRTQ_SIZE_MAX];
	unsigned int count = 0, at;

	inflight_settle(vq, inflight);
	for (unsigned int head = 0; head < vq->size; head++) {
		const struct virtq_inflight_desc *desc = &inflight->desc[head];
		const uint64_t own = __atomic_load_n(&desc->counter, __ATOMIC_RELAXED);

		if (!__atomic_load_n(&desc->inflight, __ATOMIC_RELAXED))
			continue;
		for (at = count++; at && counter[at - 1] > own; at--) {
			counter[at] = counter[at - 1];
			vq->again[at] = vq->again[at - 1];
		}
		counter[at] = own;
		vq->again[at] = head;
	}
	vq->again_count = count;
	vq->counter = count ? counter[count - 1] + 1 : 0;
	vq->next_avail = vq->next_used + count;
	vq->inflight = inflight;
}

static void inflight_mark(struct virtq *vq, uint16_t head)
{
	struct virtq_inflight_desc *desc = &vq->inflight->desc[head];

	__atomic_store_n(&desc->counter, vq->counter++, __ATOMIC_RELAXED);
	__atomic_store_n(&desc->inflight, 1, __ATOMIC_RELEASE);
}

static void inflight_unmark(struct virtq *vq, uint16_t head)
{
	__atomic_store_n(&vq->inflight->desc[head].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&vq->inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

int virtq_init(struct virtq *vq, const struct dev_memory *memory, const struct dev_vring *ring,
	       uint64_t features)
{
	uint64_t size = ring->size;

	if (!size || size > VIRTQ_SIZE_MAX || (size & (size - 1)))
		return -EINVAL;
	*vq = (struct virtq){
		.memory = memory,
		.desc = ring->desc,
		.avail = virtq_area(memory, ring->avail, 6 + 2 * size, VRING_AVAIL_ALIGN_SIZE),
		.used = virtq_area(memory, ring->used, 6 + 8 * size, VRING_USED_ALIGN_SIZE),
		.size = size,
		.next_avail = ring->next_avail,
		.indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
		.event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1,
		.kick = ring->kick,
		.call = ring->call,
		.err = ring->err,
	};
	if (!vq->avail || !vq->used ||
	    !virtq_area(memory, ring->desc, 16 * size, VRING_DESC_ALIGN_SIZE))
		return -EFAULT;
	vq->next_used = __atomic_load_n(&vq->used->idx, __ATOMIC_RELAXED);
	if (ring->inflight)
		virtq_recover(vq, ring->inflight);
	return 0;
}

/* Readable pieces come first, so the order in the list is that of the chain. */
static int chain_add(const struct virtq *vq, struct virtq_chain *chain, uint64_t gpa, uint32_t len,
		     bool writable)
{
	if (!writable && chain->writable_count)
		return -EPROTO;
	chain->bytes += len;
	if (chain->bytes > UINT32_MAX)
		return -EPROTO;
	while (len) {
		unsigned int at = chain->readable_count + chain->writable_count;
		void *hva;
		uint64_t span = memory_span(vq->memory, gpa, len, &hva);

		if (!span || at == VIRTQ_IOV_MAX)
			return -EPROTO;
		chain->iov[at] = (struct iovec){ .iov_base = hva, .iov_len = span };
		if (writable)
			chain->writable_count++;
		else
			chain->readable_count++;
		gpa += span;
		len -= span;
	}
	return 0;
}

/**
 * struct chain_walk - where a walk over descriptors is
 * @table: guest-physical address of the table, of @count entries
 * @index: the entry to look at next
 * @budget: entries that may still be looked at
 */
struct chain_walk {
	uint64_t table;
	uint32_t count;
	uint32_t index;
	uint32_t budget;
	bool indirect;
};

/* An indirect table ends the chain that names it, and holds no other. */
static int chain_enter(const struct virtq *vq, struct chain_walk *walk,
		       const struct vring_desc *desc)
{
	uint32_t count = desc->len / sizeof(*desc);
	uint64_t end;

	if (__builtin_add_overflow(desc->addr, desc->len, &end))
		return -EPROTO;
	if (!vq->indirect || walk->indirect || (desc->flags & VRING_DESC_F_NEXT))
		return -EPROTO;
	if (!count || desc->len % sizeof(*desc) || count > vq->size)
		return -EPROTO;
	*walk = (struct chain_walk){
		.table = desc->addr, .count = count, .budget = count, .indirect = true,
	};
	return 0;
}

/* 1: the chain goes on, 0: it is whole. */
static int chain_step(const struct virtq *vq, struct virtq_chain *chain, struct chain_walk *walk)
{
	struct vring_desc desc;
	int err;

	if (walk->index >= walk->count || !walk->budget--)
		return -EPROTO;
	err = virtq_fetch(vq, walk->table + walk->index * sizeof(desc), &desc);
	if (err)
		return err;
	if (desc.flags & VRING_DESC_F_INDIRECT) {
		err = chain_enter(vq, walk, &desc);
		return err ? err : 1;
	}
	err = chain_add(vq, chain, desc.addr, desc.len, desc.flags & VRING_DESC_F_WRITE);
	if (err)
		return err;
	walk->index = desc.next;
	return !!(desc.flags & VRING_DESC_F_NEXT);
}

static int chain_build(const struct virtq *vq, struct virtq_chain *chain, uint16_t head)
{
	struct chain_walk walk = {
		.table = vq->desc, .count = vq->size, .index = head, .budget = vq->size,
	};
	int more;

	chain->head = head;
	chain->bytes = 0;
	chain->readable_count = 0;
	chain->writable_count = 0;
	do {
		more = chain_step(vq, chain, &walk);
	} while (more > 0);
	chain->readable = chain->iov;
	chain->writable = chain->iov + chain->readable_count;
	return more;
}

/* The head of the chain to take next. 1, 0 for none, -EPROTO. */
static int virtq_next(const struct virtq *vq, uint16_t *ret_head)
{
	uint16_t index;

	if (vq->again_next < vq->again_count) {
		*ret_head = vq->again[vq->again_next];
		return 1;
	}
	index = __atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE);
	if (index == vq->next_avail)
		return 0;
	if ((uint16_t)(index - vq->next_avail) > vq->size)
		return -EPROTO;
	*ret_head = __atomic_load_n(&vq->avail->ring[vq->next_avail & (vq->size - 1)],
				    __ATOMIC_RELAXED);
	return *ret_head < vq->size ? 1 : -EPROTO;
}

int virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	uint16_t head;
	int some;

	if (vq->broken)
		return -EPROTO;
	some = virtq_next(vq, &head);
	if (!some)
		return 0;
	if (some < 0 || chain_build(vq, chain, head))
		return virtq_break(vq);
	if (vq->again_next < vq->again_count) {
		vq->again_next++;
		return 1;
	}
	if (vq->inflight)
		inflight_mark(vq, head);
	vq->next_avail++;
	return 1;
}

void virtq_push_head(struct virtq *vq, uint16_t head, uint32_t written)
{
	struct vring_used_elem *elem = &vq->used->ring[vq->next_used & (vq->size - 1)];

	__atomic_store_n(&elem->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&elem->len, written, __ATOMIC_RELAXED);
	if (vq->inflight)
		__atomic_store_n(&vq->inflight->last_batch_head, head, __ATOMIC_RELAXED);
	vq->next_used++;
	__atomic_store_n(&vq->used->idx, vq->next_used, __ATOMIC_RELEASE);
	if (vq->inflight)
		inflight_unmark(vq, head);
}

void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	virtq_push_head(vq, chain->head, written);
}

/* The field behind the driver area's ring: the driver wants to be told when that index is used. */
static uint16_t virtq_used_event(const struct virtq *vq)
{
	return __atomic_load_n(&vq->avail->ring[vq->size], __ATOMIC_RELAXED);
}

/* The field behind the device area's ring: the device wants to be told when that index is there. */
static void virtq_set_avail_event(struct virtq *vq, uint16_t index)
{
	__atomic_store_n((uint16_t *)&vq->used->ring[vq->size], index, __ATOMIC_RELAXED);
}

bool virtq_should_notify(struct virtq *vq)
{
	uint16_t old = vq->signalled;
	bool had = vq->has_signalled;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_index)
		return !(__atomic_load_n(&vq->avail->flags, __ATOMIC_RELAXED) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	vq->signalled = vq->next_used;
	vq->has_signalled = true;
	return !had || vring_need_event(virtq_used_event(vq), vq->next_used, old);
}

void virtq_notify(struct virtq *vq)
{
	if (virtq_should_notify(vq) && vq->call >= 0)
		eventfd_write(vq->call, 1);
}

/* With event indices, an index that is not moved on asks for nothing more. */
void virtq_kick_disable(struct virtq *vq)
{
	if (!vq->event_index)
		__atomic_store_n(&vq->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtq_kick_enable(struct virtq *vq)
{
	if (vq->broken)
		return false;
	if (vq->event_index)
		virtq_set_avail_event(vq, vq->next_avail);
	else
		__atomic_store_n(&vq->used->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&vq->avail->idx, __ATOMIC_RELAXED) != vq->next_avail;
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
