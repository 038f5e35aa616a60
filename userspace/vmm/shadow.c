// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What is in flight is known from memory of our own. The descriptors, and the driver area, are written
 * and never read back; of the device area each value is read once. A device that gives back what it
 * does not have, or more than there is, has broken the ring; one that spoils what it was given
 * gets to read its own nonsense.
 *
 * A chain of several pieces is an indirect table, if the device knows these: then a ring of so many
 * entries holds as many requests. There is a table for each head; heads are used again as soon as can
 * be, so that few tables are ever touched.
 */
#include <errno.h>

#include "userspace/vmm/shadow.h"

_Static_assert(SHADOW_AVAIL + 6 + 2 * SHADOW_SIZE <= SHADOW_USED, "the driver area has room");
_Static_assert(SHADOW_USED + 6 + 8 * SHADOW_SIZE <= SHADOW_TABLES, "so has the device area");

static struct vring_desc *shadow_desc(const struct shadow *shadow, unsigned int index)
{
	return (struct vring_desc *)((char *)shadow->memory + SHADOW_DESC) + index;
}

static struct vring_avail *shadow_avail(const struct shadow *shadow)
{
	return (struct vring_avail *)((char *)shadow->memory + SHADOW_AVAIL);
}

static struct vring_used *shadow_used(const struct shadow *shadow)
{
	return (struct vring_used *)((char *)shadow->memory + SHADOW_USED);
}

static uint16_t *shadow_used_event(const struct shadow *shadow)
{
	return &shadow_avail(shadow)->ring[SHADOW_SIZE];
}

static uint16_t *shadow_avail_event(const struct shadow *shadow)
{
	return (uint16_t *)&shadow_used(shadow)->ring[SHADOW_SIZE];
}

void shadow_init(struct shadow *shadow, void *memory, uint64_t address, uint64_t features)
{
	*shadow = (struct shadow){
		.memory = memory, .address = address,
		.indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1,
		.event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1,
	};
	while (shadow->free_count < SHADOW_SIZE) {
		shadow->free[shadow->free_count] = SHADOW_SIZE - 1 - shadow->free_count;
		shadow->free_count++;
	}
}

/* A descriptor, and the next one if @more. */
static void desc_write(struct vring_desc *to, const struct vring_desc *from, bool more, uint16_t next)
{
	*to = (struct vring_desc){
		.addr = from->addr, .len = from->len,
		.flags = from->flags | (more ? VRING_DESC_F_NEXT : 0), .next = more ? next : 0,
	};
}

static uint16_t add_table(struct shadow *shadow, const struct vring_desc *desc, unsigned int count)
{
	uint16_t head = shadow->free[--shadow->free_count];
	uint64_t offset = SHADOW_TABLES + head * sizeof(*desc) * SHADOW_SIZE;
	struct vring_desc *table = (struct vring_desc *)((char *)shadow->memory + offset);

	for (unsigned int i = 0; i < count; i++)
		desc_write(&table[i], &desc[i], i + 1 < count, i + 1);
	*shadow_desc(shadow, head) = (struct vring_desc){
		.addr = shadow->address + offset, .len = count * sizeof(*desc),
		.flags = VRING_DESC_F_INDIRECT,
	};
	shadow->length[head] = 1;
	return head;
}

static uint16_t add_chain(struct shadow *shadow, const struct vring_desc *desc, unsigned int count)
{
	uint16_t next = 0;

	/* From its end, so that each entry knows the next one. */
	for (unsigned int i = count; i--; ) {
		uint16_t at = shadow->free[--shadow->free_count];

		desc_write(shadow_desc(shadow, at), &desc[i], i + 1 < count, next);
		shadow->next[at] = next;
		next = at;
	}
	shadow->length[next] = count;
	return next;
}

unsigned int shadow_needs(const struct shadow *shadow, unsigned int count)
{
	return shadow->indirect ? 1 : count;
}

uint16_t shadow_add(struct shadow *shadow, const struct vring_desc *desc, unsigned int count)
{
	bool table = shadow->indirect && count > 1;
	uint16_t head = table ? add_table(shadow, desc, count) : add_chain(shadow, desc, count);

	__atomic_store_n(&shadow_avail(shadow)->ring[shadow->added++ % SHADOW_SIZE], head,
			 __ATOMIC_RELAXED);
	return head;
}

bool shadow_publish(struct shadow *shadow)
{
	uint16_t before = shadow->published;

	if (before == shadow->added)
		return false;
	shadow->published = shadow->added;
	__atomic_store_n(&shadow_avail(shadow)->idx, shadow->added, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (shadow->event_index)
		return vring_need_event(__atomic_load_n(shadow_avail_event(shadow), __ATOMIC_RELAXED),
					shadow->added, before);
	return !(__atomic_load_n(&shadow_used(shadow)->flags, __ATOMIC_RELAXED) &
		 VRING_USED_F_NO_NOTIFY);
}

static void chain_free(struct shadow *shadow, uint16_t head)
{
	unsigned int count = shadow->length[head];

	shadow->length[head] = 0;
	while (count--) {
		shadow->free[shadow->free_count++] = head;
		head = shadow->next[head];
	}
}

int shadow_take(struct shadow *shadow, uint16_t *ret_head, uint32_t *ret_written)
{
	struct vring_used *used = shadow_used(shadow);
	struct vring_used_elem *elem = &used->ring[shadow->taken % SHADOW_SIZE];
	uint16_t ready = __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) - shadow->taken;
	uint32_t id;

	if (!ready)
		return 0;
	id = __atomic_load_n(&elem->id, __ATOMIC_RELAXED);
	if (ready > SHADOW_SIZE || id >= SHADOW_SIZE || !shadow->length[id])
		return -EPROTO;
	shadow->taken++;
	*ret_written = __atomic_load_n(&elem->len, __ATOMIC_RELAXED);
	*ret_head = id;
	chain_free(shadow, id);
	return 1;
}

/* With event indices, an index that is not moved on asks for nothing more. */
void shadow_call_disable(struct shadow *shadow)
{
	if (!shadow->event_index)
		__atomic_store_n(&shadow_avail(shadow)->flags, VRING_AVAIL_F_NO_INTERRUPT,
				 __ATOMIC_RELAXED);
}

bool shadow_call_enable(struct shadow *shadow)
{
	if (shadow->event_index)
		__atomic_store_n(shadow_used_event(shadow), shadow->taken, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&shadow_avail(shadow)->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&shadow_used(shadow)->idx, __ATOMIC_RELAXED) != shadow->taken;
}
