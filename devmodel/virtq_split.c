// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Split rings (virtio 1.2, section 2.7): a table of descriptors, and a ring of heads in each
 * direction.
 *
 * Requests outlive a process that is killed by a record in memory that outlives it: a head is
 * marked once its chain is taken, and unmarked once it is in the device area. Between those two
 * stores lies the only moment in which the record is behind the ring; last_batch_head tells of
 * which head, and next of those given back with it; the difference of used_idx, of how many. The
 * index to go on from is that of the device area, plus the requests in flight.
 */
#include "devmodel/virtq_format.h"
#include "devmodel/virtq_inflight.h"

/* Those that were given back just before the end may still be marked. */
static void inflight_settle(const struct virtq *vq, struct virtq_inflight_split *inflight)
{
	uint16_t head = __atomic_load_n(&inflight->last_batch_head, __ATOMIC_RELAXED);
	uint16_t count = vq->next_used - __atomic_load_n(&inflight->used_idx, __ATOMIC_RELAXED);

	if (inflight->version != VIRTQ_INFLIGHT_VERSION || count > vq->size)
		count = 0;
	for (; count && head < vq->size; count--) {
		inflight->desc[head].inflight = 0;
		head = __atomic_load_n(&inflight->desc[head].next, __ATOMIC_RELAXED);
	}
	inflight->version = VIRTQ_INFLIGHT_VERSION;
	inflight->desc_num = vq->size;
	__atomic_store_n(&inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

/* What a process before this one left in flight is to be taken first, sorted by the counters. */
static void split_recover(struct virtq *vq)
{
	struct virtq_inflight_split *inflight = vq->inflight;
	uint64_t counter[VIRTQ_SIZE_MAX];

	inflight_settle(vq, inflight);
	for (unsigned int head = 0; head < vq->size; head++) {
		const struct virtq_inflight_split_desc *desc = &inflight->desc[head];

		if (__atomic_load_n(&desc->inflight, __ATOMIC_RELAXED))
			virtq_again(vq, counter, head,
				    __atomic_load_n(&desc->counter, __ATOMIC_RELAXED));
	}
	vq->next_avail = vq->next_used + vq->again_count;
}

static void inflight_mark(struct virtq *vq, uint16_t head)
{
	struct virtq_inflight_split *inflight = vq->inflight;
	struct virtq_inflight_split_desc *desc = &inflight->desc[head];

	__atomic_store_n(&desc->counter, vq->counter++, __ATOMIC_RELAXED);
	__atomic_store_n(&desc->inflight, 1, __ATOMIC_RELEASE);
}

/* From the last one back. */
static void inflight_link(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	struct virtq_inflight_split *inflight = vq->inflight;

	for (unsigned int i = 1; i < count; i++)
		__atomic_store_n(&inflight->desc[used[i].head].next, used[i - 1].head,
				 __ATOMIC_RELAXED);
	__atomic_store_n(&inflight->last_batch_head, used[count - 1].head, __ATOMIC_RELEASE);
}

static void inflight_unmark(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	struct virtq_inflight_split *inflight = vq->inflight;

	for (unsigned int i = 0; i < count; i++)
		__atomic_store_n(&inflight->desc[used[i].head].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

static int split_init(struct virtq *vq, const struct dev_vring *ring)
{
	const uint64_t size = ring->size;

	if (size & (size - 1))
		return -EINVAL;
	vq->split = (struct virtq_split){
		.desc = virtq_area(vq, ring->desc, 16 * size, VRING_DESC_ALIGN_SIZE),
		.avail = virtq_area(vq, ring->avail, 6 + 2 * size, VRING_AVAIL_ALIGN_SIZE),
		.used = virtq_area(vq, ring->used, 6 + 8 * size, VRING_USED_ALIGN_SIZE),
	};
	if (!vq->split.desc || !vq->split.avail || !vq->split.used)
		return -EFAULT;
	vq->next_avail = ring->next_avail;
	vq->next_used = __atomic_load_n(&vq->split.used->idx, __ATOMIC_RELAXED);
	if (vq->inflight)
		split_recover(vq);
	return 0;
}

/**
 * struct chain_walk - where a walk over descriptors is
 * @table: the table, of @count entries
 * @index: the entry to look at next
 * @budget: entries that may still be looked at
 */
struct chain_walk {
	struct desc_table table;
	uint32_t count;
	uint32_t index;
	uint32_t budget;
	bool indirect;
};

/* An indirect table ends the chain that names it, and holds no other. */
static int chain_enter(const struct virtq *vq, struct chain_walk *walk,
		       const struct vring_desc *desc)
{
	if (walk->indirect || (desc->flags & VRING_DESC_F_NEXT))
		return -EPROTO;
	walk->count = indirect_open(vq, desc->addr, desc->len, &walk->table);
	walk->budget = walk->count;
	walk->index = 0;
	walk->indirect = true;
	return walk->count ? 0 : -EPROTO;
}

/* 1: the chain goes on, 0: it is whole. */
static int chain_step(const struct virtq *vq, struct virtq_chain *chain, struct chain_walk *walk)
{
	struct vring_desc desc;
	int err;

	if (walk->index >= walk->count || !walk->budget--)
		return -EPROTO;
	err = desc_fetch(vq, &walk->table, walk->index, &desc);
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
		.table.hva = vq->split.desc, .count = vq->size, .index = head, .budget = vq->size,
	};
	int more;

	chain->head = head;
	chain_begin(chain);
	do {
		more = chain_step(vq, chain, &walk);
	} while (more > 0);
	chain_end(chain);
	return more;
}

/* The head of the chain to take next. 1, 0 for none, -EPROTO. */
static int split_next(const struct virtq *vq, uint16_t *ret_head)
{
	uint16_t index;

	if (vq->again_next < vq->again_count) {
		*ret_head = vq->again[vq->again_next];
		return 1;
	}
	index = __atomic_load_n(&vq->split.avail->idx, __ATOMIC_ACQUIRE);
	if (index == vq->next_avail)
		return 0;
	if ((uint16_t)(index - vq->next_avail) > vq->size)
		return -EPROTO;
	*ret_head = __atomic_load_n(&vq->split.avail->ring[vq->next_avail & (vq->size - 1)],
				    __ATOMIC_RELAXED);
	return *ret_head < vq->size ? 1 : -EPROTO;
}

static int split_pop(struct virtq *vq, struct virtq_chain *chain)
{
	uint16_t head;
	int some = split_next(vq, &head);

	if (some <= 0)
		return some;
	if (chain_build(vq, chain, head))
		return -EPROTO;
	if (vq->again_next < vq->again_count) {
		vq->again_next++;
		return 1;
	}
	if (vq->inflight)
		inflight_mark(vq, head);
	vq->next_avail++;
	return 1;
}

static void split_push(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	struct vring_used *ring = vq->split.used;

	for (unsigned int i = 0; i < count; i++) {
		const uint16_t at = vq->next_used + i;
		struct vring_used_elem *elem = &ring->ring[at & (vq->size - 1)];

		__atomic_store_n(&elem->id, used[i].head, __ATOMIC_RELAXED);
		__atomic_store_n(&elem->len, used[i].written, __ATOMIC_RELAXED);
	}
	if (vq->inflight)
		inflight_link(vq, used, count);
	vq->next_used += count;
	vq->unsignalled += count;
	__atomic_store_n(&ring->idx, vq->next_used, __ATOMIC_RELEASE);
	if (vq->inflight)
		inflight_unmark(vq, used, count);
}

/* The field behind the driver area's ring: the driver wants to be told when that index is used. */
static uint16_t split_used_event(const struct virtq *vq)
{
	return __atomic_load_n(&vq->split.avail->ring[vq->size], __ATOMIC_RELAXED);
}

/* The field behind the device area's ring: the device wants to be told when that index is there. */
static void split_set_avail_event(struct virtq *vq, uint16_t index)
{
	__atomic_store_n((uint16_t *)&vq->split.used->ring[vq->size], index, __ATOMIC_RELAXED);
}

static bool split_wants_call(const struct virtq *vq, uint32_t news)
{
	if (!vq->event_index)
		return !(__atomic_load_n(&vq->split.avail->flags, __ATOMIC_RELAXED) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	return news > vq->size ||
	       vring_need_event(split_used_event(vq), vq->next_used, vq->next_used - news);
}

/* With event indices, an index that is not moved on asks for nothing more. */
static void split_wants_kick(struct virtq *vq, bool wanted)
{
	if (!vq->event_index)
		__atomic_store_n(&vq->split.used->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY,
				 __ATOMIC_RELAXED);
	else if (wanted)
		split_set_avail_event(vq, vq->next_avail);
}

static bool split_waits(const struct virtq *vq)
{
	return __atomic_load_n(&vq->split.avail->idx, __ATOMIC_RELAXED) != vq->next_avail;
}

const struct virtq_format virtq_split_format = {
	.init = split_init,
	.pop = split_pop,
	.push = split_push,
	.wants_call = split_wants_call,
	.wants_kick = split_wants_kick,
	.waits = split_waits,
};
