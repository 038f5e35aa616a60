// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Packed rings (virtio 1.2, section 2.8): one ring of descriptors, in which used ones take the
 * place of those that were available. Two bits of each and a wrap counter on each side tell which
 * is which.
 *
 * A chain is known by the buffer id that its last descriptor has, and giving it back skips as many
 * descriptors as it had. So these counts are kept by id. An id that the ring has no number for, or
 * that is in flight already, breaks the queue, and so do more descriptors in flight than there are.
 *
 * Requests outlive a process that is killed by a record in memory that outlives it. Since a used
 * descriptor may lie where a chain in flight was, the record has a copy of all descriptors taken.
 * Of what a take or a give-back changes, the record knows the state before (old_free_head, and the
 * old half of used) and after. A take counts once old_free_head has moved on, all else being
 * written by then. A give-back counts once the used descriptor is in the ring. One that was under
 * way when the process died is thus completed or undone: it was, if the two halves of used differ;
 * and it counts, if the ring shows at the old index anything but a descriptor made available, which
 * is what it had there before. Several chains that are given back together count together, by the
 * first of them, whose descriptor comes last. Of what is then free, only the first entry may still
 * be marked, or those up to the old first one. The position to take from is not in the record: it
 * is ahead of used by all descriptors in flight.
 *
 * The links between entries are kept here as well; those in the record are read when it is taken
 * over, and not again.
 */
#include "devmodel/virtq_format.h"
#include "devmodel/virtq_inflight.h"

#define PACKED_AVAIL	(1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED	(1u << VRING_PACKED_DESC_F_USED)
#define PACKED_WRAP	(1u << VRING_PACKED_EVENT_F_WRAP_CTR)
#define PACKED_EVENT	3u

static uint16_t position_pack(uint16_t index, bool wrap)
{
	return index | (wrap ? PACKED_WRAP : 0);
}

static void position_advance(const struct virtq *vq, uint16_t *index, bool *wrap,
			     unsigned int count)
{
	*index += count;
	if (*index < vq->size)
		return;
	*index -= vq->size;
	*wrap = !*wrap;
}

/* Is a descriptor with @flags one that the driver has made available in the lap of @wrap? */
static bool packed_is_available(uint16_t flags, bool wrap)
{
	return !!(flags & PACKED_AVAIL) == wrap && !!(flags & PACKED_USED) != wrap;
}

static uint16_t packed_flags(const struct virtq *vq, uint16_t index)
{
	return __atomic_load_n(&vq->packed.ring[index].flags, __ATOMIC_ACQUIRE);
}

/* The record: taking */

/* In the entry that is free next. */
static void record_copy(struct virtq *vq, const struct vring_packed_desc *desc)
{
	struct virtq_inflight_packed *record = vq->inflight;
	struct virtq_inflight_packed_desc *entry = &record->desc[vq->packed.free];

	entry->addr = desc->addr;
	entry->len = desc->len;
	entry->flags = desc->flags;
	entry->id = desc->id;
	vq->packed.free = vq->packed.next[vq->packed.free];
}

/* The chain of @count descriptors, whose copies begin at @first and end at @last. */
static void record_take(struct virtq *vq, uint16_t first, uint16_t last, uint16_t count)
{
	struct virtq_inflight_packed *record = vq->inflight;
	struct virtq_inflight_packed_desc *entry = &record->desc[first];

	entry->last = last;
	entry->num = count;
	entry->counter = vq->counter++;
	__atomic_store_n(&entry->inflight, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&record->free_head, vq->packed.free, __ATOMIC_RELEASE);
	__atomic_store_n(&record->old_free_head, vq->packed.free, __ATOMIC_RELEASE);
}

/* The record: giving back */

static void record_link(struct virtq *vq, uint16_t from, uint16_t to)
{
	struct virtq_inflight_packed *record = vq->inflight;

	vq->packed.next[from] = to;
	__atomic_store_n(&record->desc[from].next, to, __ATOMIC_RELEASE);
}

static void record_set_used(struct virtq *vq, uint16_t old_index, bool old_wrap)
{
	struct virtq_inflight_packed *record = vq->inflight;
	const union virtq_inflight_used used = {
		.idx = vq->next_used, .wrap = vq->packed.used_wrap,
		.old_idx = old_index, .old_wrap = old_wrap,
	};

	__atomic_store_n(&record->used.whole, used.whole, __ATOMIC_RELEASE);
}

/* Before the used descriptors are there; vq tells of the state after, but for what is free. */
static void record_begin_give(struct virtq *vq, const struct virtq_used *used, unsigned int count,
			      uint16_t old_index, bool old_wrap)
{
	struct virtq_inflight_packed *record = vq->inflight;

	for (unsigned int i = 0; i < count; i++) {
		record_link(vq, vq->packed.buffer[used[i].head].last, vq->packed.free);
		vq->packed.free = vq->packed.buffer[used[i].head].first;
	}
	__atomic_store_n(&record->free_head, vq->packed.free, __ATOMIC_RELEASE);
	record_set_used(vq, old_index, old_wrap);
}

/* And after that. */
static void record_end_give(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	struct virtq_inflight_packed *record = vq->inflight;

	for (unsigned int i = 0; i < count; i++)
		__atomic_store_n(&record->desc[vq->packed.buffer[used[i].head].first].inflight, 0,
				 __ATOMIC_RELEASE);
	__atomic_store_n(&record->old_free_head, vq->packed.free, __ATOMIC_RELEASE);
	record_set_used(vq, vq->next_used, vq->packed.used_wrap);
}

/* The record: of a process before this one */

/* What is free from @at on, up to @end, may still be marked. */
static void record_unmark(struct virtq *vq, uint16_t at, uint16_t end)
{
	struct virtq_inflight_packed *record = vq->inflight;

	for (unsigned int i = 0; i < vq->size && at < vq->size; i++) {
		record->desc[at].inflight = 0;
		if (at == end)
			return;
		at = __atomic_load_n(&record->desc[at].next, __ATOMIC_RELAXED);
	}
}

/* Which entries are free, and where the ring goes on. False: the record is spoilt. */
static bool record_settle(struct virtq *vq)
{
	struct virtq_inflight_packed *record = vq->inflight;
	const union virtq_inflight_used used = {
		.whole = __atomic_load_n(&record->used.whole, __ATOMIC_RELAXED),
	};
	const uint16_t old_free = __atomic_load_n(&record->old_free_head, __ATOMIC_RELAXED);
	uint16_t free = old_free;

	if (used.idx >= vq->size || used.old_idx >= vq->size)
		return false;
	vq->next_used = used.old_idx;
	vq->packed.used_wrap = used.old_wrap;
	if ((used.idx != used.old_idx || used.wrap != used.old_wrap) &&
	    !packed_is_available(packed_flags(vq, used.old_idx), used.old_wrap)) {
		vq->next_used = used.idx;
		vq->packed.used_wrap = used.wrap;
		free = __atomic_load_n(&record->free_head, __ATOMIC_RELAXED);
	}
	record_unmark(vq, free, old_free);
	return true;
}

/* The entries of the chain that begins at @first. False: they are others' already, or none. */
static bool record_claim(struct virtq *vq, uint16_t first, bool *claimed)
{
	struct virtq_inflight_packed *record = vq->inflight;
	uint16_t count = __atomic_load_n(&record->desc[first].num, __ATOMIC_RELAXED);
	uint16_t at = first, before = vq->size;

	if (!count)
		return false;
	for (; count; count--) {
		if (at >= vq->size || claimed[at])
			return false;
		claimed[at] = true;
		if (before < vq->size)
			vq->packed.next[before] = at;
		before = at;
		at = __atomic_load_n(&record->desc[at].next, __ATOMIC_RELAXED);
	}
	vq->packed.next[before] = vq->size;
	return true;
}

/* All that are nobody's are free. Return: how many are not. */
static unsigned int record_set_free(struct virtq *vq, const bool *claimed)
{
	struct virtq_inflight_packed *record = vq->inflight;
	unsigned int count = 0;

	vq->packed.free = vq->size;
	for (unsigned int at = vq->size; at--; ) {
		count += claimed[at];
		if (claimed[at])
			continue;
		record_link(vq, at, vq->packed.free);
		vq->packed.free = at;
	}
	__atomic_store_n(&record->free_head, vq->packed.free, __ATOMIC_RELEASE);
	__atomic_store_n(&record->old_free_head, vq->packed.free, __ATOMIC_RELEASE);
	record_set_used(vq, vq->next_used, vq->packed.used_wrap);
	return count;
}

static bool record_take_over(struct virtq *vq)
{
	struct virtq_inflight_packed *record = vq->inflight;
	bool claimed[VIRTQ_SIZE_MAX] = { false };
	uint64_t counter[VIRTQ_SIZE_MAX];

	if (!record_settle(vq))
		return false;
	for (unsigned int at = 0; at < vq->size; at++) {
		if (!__atomic_load_n(&record->desc[at].inflight, __ATOMIC_RELAXED))
			continue;
		if (!record_claim(vq, at, claimed))
			return false;
		virtq_again(vq, counter, at,
			    __atomic_load_n(&record->desc[at].counter, __ATOMIC_RELAXED));
	}
	vq->next_avail = vq->next_used;
	vq->packed.avail_wrap = vq->packed.used_wrap;
	position_advance(vq, &vq->next_avail, &vq->packed.avail_wrap,
			 record_set_free(vq, claimed));
	return true;
}

/* One that was of a ring of another size tells nothing of this one. */
static void record_open(struct virtq *vq)
{
	static const bool unclaimed[VIRTQ_SIZE_MAX];
	struct virtq_inflight_packed *record = vq->inflight;

	if (__atomic_load_n(&record->version, __ATOMIC_RELAXED) == VIRTQ_INFLIGHT_VERSION &&
	    __atomic_load_n(&record->desc_num, __ATOMIC_RELAXED) == vq->size) {
		if (!record_take_over(vq))
			virtq_break(vq);
		return;
	}
	for (unsigned int at = 0; at < vq->size; at++)
		record->desc[at].inflight = 0;
	record_set_free(vq, unclaimed);
	record->desc_num = vq->size;
	__atomic_store_n(&record->version, VIRTQ_INFLIGHT_VERSION, __ATOMIC_RELEASE);
}

/* Taking chains */

/* A descriptor of the ring, or the record's copy of one, each part of it read once. */

static void packed_fetch(const struct virtq *vq, uint16_t index, struct vring_packed_desc *ret)
{
	const struct vring_packed_desc *desc = &vq->packed.ring[index];

	ret->flags = packed_flags(vq, index);
	ret->addr = __atomic_load_n(&desc->addr, __ATOMIC_RELAXED);
	ret->len = __atomic_load_n(&desc->len, __ATOMIC_RELAXED);
	ret->id = __atomic_load_n(&desc->id, __ATOMIC_RELAXED);
}

static void record_fetch(const struct virtq *vq, uint16_t at, struct vring_packed_desc *ret)
{
	const struct virtq_inflight_packed *record = vq->inflight;
	const struct virtq_inflight_packed_desc *entry = &record->desc[at];

	ret->flags = __atomic_load_n(&entry->flags, __ATOMIC_RELAXED);
	ret->addr = __atomic_load_n(&entry->addr, __ATOMIC_RELAXED);
	ret->len = __atomic_load_n(&entry->len, __ATOMIC_RELAXED);
	ret->id = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
}

/* In an indirect table, the only flag that means anything is that of writable buffers. */
static int chain_add_table(const struct virtq *vq, struct virtq_chain *chain,
			   uint64_t gpa, uint32_t len)
{
	struct desc_table table;
	const uint32_t count = indirect_open(vq, gpa, len, &table);
	struct vring_packed_desc desc;
	int err = count ? 0 : -EPROTO;

	for (uint32_t i = 0; i < count && !err; i++) {
		err = desc_fetch(vq, &table, i, &desc);
		if (!err)
			err = chain_add(vq, chain, desc.addr, desc.len,
					desc.flags & VRING_DESC_F_WRITE);
	}
	return err;
}

/* The @count-th of a chain. An indirect table is a chain by itself. */
static int chain_add_desc(const struct virtq *vq, struct virtq_chain *chain,
			  const struct vring_packed_desc *desc, unsigned int count)
{
	if (vq->packed.taken + count > vq->size)
		return -EPROTO;
	chain->head = desc->id;
	if (!(desc->flags & VRING_DESC_F_INDIRECT))
		return chain_add(vq, chain, desc->addr, desc->len, desc->flags & VRING_DESC_F_WRITE);
	if (count > 1 || (desc->flags & VRING_DESC_F_NEXT))
		return -EPROTO;
	return chain_add_table(vq, chain, desc->addr, desc->len);
}

/* The chain is whole, and its id the last that was read. */
static int chain_name(struct virtq *vq, struct virtq_chain *chain, unsigned int count,
		      uint16_t first, uint16_t last)
{
	const uint16_t id = chain->head;

	if (id >= vq->size || vq->packed.buffer[id].count)
		return -EPROTO;
	chain_end(chain);
	vq->packed.buffer[id].count = count;
	vq->packed.buffer[id].first = first;
	vq->packed.buffer[id].last = last;
	vq->packed.taken += count;
	return 1;
}

/* What the process before this one had taken and not given back: out of the record. */
static int packed_pop_again(struct virtq *vq, struct virtq_chain *chain)
{
	const uint16_t first = vq->again[vq->again_next++];
	struct vring_packed_desc desc;
	uint16_t at = first, last;
	unsigned int count = 0;

	chain_begin(chain);
	do {
		record_fetch(vq, at, &desc);
		if (chain_add_desc(vq, chain, &desc, ++count))
			return -EPROTO;
		last = at;
		at = vq->packed.next[at];
	} while (at < vq->size && (desc.flags & VRING_DESC_F_NEXT));
	if (at < vq->size || (desc.flags & VRING_DESC_F_NEXT))
		return -EPROTO;
	return chain_name(vq, chain, count, first, last);
}

static int packed_pop(struct virtq *vq, struct virtq_chain *chain)
{
	const uint16_t first = vq->packed.free;
	struct vring_packed_desc desc;
	unsigned int count = 0;
	uint16_t last = first;

	if (vq->again_next < vq->again_count)
		return packed_pop_again(vq, chain);
	packed_fetch(vq, vq->next_avail, &desc);
	if (!packed_is_available(desc.flags, vq->packed.avail_wrap))
		return 0;
	chain_begin(chain);
	for (;;) {
		if (chain_add_desc(vq, chain, &desc, ++count))
			return -EPROTO;
		last = vq->packed.free;
		if (vq->inflight)
			record_copy(vq, &desc);
		position_advance(vq, &vq->next_avail, &vq->packed.avail_wrap, 1);
		if (!(desc.flags & VRING_DESC_F_NEXT))
			break;
		packed_fetch(vq, vq->next_avail, &desc);
	}
	if (chain_name(vq, chain, count, first, last) < 0)
		return -EPROTO;
	if (vq->inflight)
		record_take(vq, first, last, count);
	return 1;
}

/* Giving them back */

/* Return: its flags, which are for the caller to write: from then on it is used. */
static uint16_t packed_write(struct virtq *vq, uint16_t index, bool wrap,
			     const struct virtq_used *used)
{
	struct vring_packed_desc *desc = &vq->packed.ring[index];

	__atomic_store_n(&desc->id, used->head, __ATOMIC_RELAXED);
	__atomic_store_n(&desc->len, used->written, __ATOMIC_RELAXED);
	return (wrap ? PACKED_AVAIL | PACKED_USED : 0) |
	       (used->written ? VRING_DESC_F_WRITE : 0);
}

/* The first one last: the driver looks at none behind one that is not used. */
static void packed_write_all(struct virtq *vq, uint16_t index, bool wrap,
			     const struct virtq_used *used, unsigned int count)
{
	const uint16_t first = index;
	const uint16_t first_flags = packed_write(vq, index, wrap, used);

	for (unsigned int i = 1; i < count; i++) {
		uint16_t flags;

		position_advance(vq, &index, &wrap, vq->packed.buffer[used[i - 1].head].count);
		flags = packed_write(vq, index, wrap, &used[i]);
		__atomic_store_n(&vq->packed.ring[index].flags, flags, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&vq->packed.ring[first].flags, first_flags, __ATOMIC_RELEASE);
}

static void packed_push(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	const uint16_t old_index = vq->next_used;
	const bool old_wrap = vq->packed.used_wrap;
	unsigned int descs = 0;

	for (unsigned int i = 0; i < count; i++)
		descs += vq->packed.buffer[used[i].head].count;
	vq->packed.taken -= descs;
	vq->unsignalled += descs;
	position_advance(vq, &vq->next_used, &vq->packed.used_wrap, descs);
	if (vq->inflight)
		record_begin_give(vq, used, count, old_index, old_wrap);
	packed_write_all(vq, old_index, old_wrap, used, count);
	if (vq->inflight)
		record_end_give(vq, used, count);
	for (unsigned int i = 0; i < count; i++)
		vq->packed.buffer[used[i].head].count = 0;
	if (vq->packed.resume)
		*vq->packed.resume = position_pack(vq->next_used, vq->packed.used_wrap);
}

/* Who wants to hear of it */

static bool packed_wants_call(const struct virtq *vq, uint32_t news)
{
	const struct vring_packed_desc_event *driver = vq->packed.driver;
	const uint16_t flags = __atomic_load_n(&driver->flags, __ATOMIC_ACQUIRE) & PACKED_EVENT;
	uint16_t at, event;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_index || news > vq->size)
		return true;
	at = __atomic_load_n(&driver->off_wrap, __ATOMIC_RELAXED);
	event = at & ~PACKED_WRAP;
	if (!!(at & PACKED_WRAP) != vq->packed.used_wrap)
		event -= vq->size;
	return vring_need_event(event, vq->next_used, vq->next_used - news);
}

static void packed_wants_kick(struct virtq *vq, bool wanted)
{
	struct vring_packed_desc_event *device = vq->packed.device;
	uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (wanted && vq->event_index) {
		__atomic_store_n(&device->off_wrap,
				 position_pack(vq->next_avail, vq->packed.avail_wrap),
				 __ATOMIC_RELAXED);
		flags = VRING_PACKED_EVENT_FLAG_DESC;
	} else if (wanted) {
		flags = VRING_PACKED_EVENT_FLAG_ENABLE;
	}
	__atomic_store_n(&device->flags, flags, __ATOMIC_RELEASE);
}

static bool packed_waits(const struct virtq *vq)
{
	return packed_is_available(packed_flags(vq, vq->next_avail), vq->packed.avail_wrap);
}

static int packed_init(struct virtq *vq, const struct dev_vring *ring)
{
	struct virtq_packed *packed = &vq->packed;

	vq->next_avail = ring->next_avail & ~PACKED_WRAP;
	vq->next_used = ring->next_used & ~PACKED_WRAP;
	if (vq->next_avail >= vq->size || vq->next_used >= vq->size)
		return -EINVAL;
	*packed = (struct virtq_packed){
		.ring = virtq_area(vq, ring->desc, vq->size * sizeof(*packed->ring), 16),
		.driver = virtq_area(vq, ring->avail, sizeof(*packed->driver), 4),
		.device = virtq_area(vq, ring->used, sizeof(*packed->device), 4),
		.resume = ring->resume,
		.avail_wrap = ring->next_avail & PACKED_WRAP,
		.used_wrap = ring->next_used & PACKED_WRAP,
	};
	if (!packed->ring || !packed->driver || !packed->device)
		return -EFAULT;
	if (vq->inflight)
		record_open(vq);
	if (packed->resume)
		*packed->resume = position_pack(vq->next_used, packed->used_wrap);
	return 0;
}

const struct virtq_format virtq_packed_format = {
	.init = packed_init,
	.pop = packed_pop,
	.push = packed_push,
	.wants_call = packed_wants_call,
	.wants_kick = packed_wants_kick,
	.waits = packed_waits,
};
