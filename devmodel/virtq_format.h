/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the two layouts of a ring and the code that is common to them know of each other. */
#ifndef DEVMODEL_VIRTQ_FORMAT_H
#define DEVMODEL_VIRTQ_FORMAT_H

#include <errno.h>
#include <string.h>

#include "devmodel/virtq.h"

/**
 * struct virtq_format - the ring of a queue, by its layout
 * @init: all else in @vq is set; 0 or a negative errno
 * @pop: 1; 0 when there is no chain; -EPROTO for what breaks the queue
 * @push: give back what was taken by these names, all at once
 * @wants_call: does the driver want an interrupt, now that next_used has come @news further? More
 *	than the queue's size: it cannot have said that it does not
 * @wants_kick: ask the driver for kicks, or for none
 * @waits: is there something to take that the driver may not have kicked for?
 */
struct virtq_format {
	int (*init)(struct virtq *vq, const struct dev_vring *ring);
	int (*pop)(struct virtq *vq, struct virtq_chain *chain);
	void (*push)(struct virtq *vq, const struct virtq_used *used, unsigned int count);
	bool (*wants_call)(const struct virtq *vq, uint32_t news);
	void (*wants_kick)(struct virtq *vq, bool wanted);
	bool (*waits)(const struct virtq *vq);
};

extern const struct virtq_format virtq_split_format;
extern const struct virtq_format virtq_packed_format;

/* The bytes in one region from @gpa on, at most @len, and where they are; 0: @gpa is not memory. */
static inline uint64_t memory_span(const struct dev_memory *memory, uint64_t gpa, uint64_t len,
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
static inline void guest_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	__asm__ __volatile__("" : : "r" (to) : "memory");
}

/**
 * struct desc_table - descriptors of either layout, one behind the other
 * @hva: where they are, all in one region; NULL: they are in several
 */
struct desc_table {
	uint64_t gpa;
	const char *hva;
};

_Static_assert(sizeof(struct vring_desc) == sizeof(struct vring_packed_desc), "both have 16 bytes");

/* Of an indirect table, which begins and ends anywhere. */
int desc_fetch_pieces(const struct virtq *vq, uint64_t gpa, void *ret);

/* 0 or -EPROTO. */
static inline int desc_fetch(const struct virtq *vq, const struct desc_table *table, uint32_t index,
			     void *ret)
{
	const uint64_t offset = index * sizeof(struct vring_desc);

	if (!table->hva)
		return desc_fetch_pieces(vq, table->gpa + offset, ret);
	guest_copy(ret, table->hva + offset, sizeof(struct vring_desc));
	return 0;
}

static inline void chain_begin(struct virtq_chain *chain)
{
	chain->bytes = 0;
	chain->readable_count = 0;
	chain->writable_count = 0;
}

/* Readable pieces come first, so the order in the list is that of the chain. */
static inline int chain_add(const struct virtq *vq, struct virtq_chain *chain, uint64_t gpa,
			    uint32_t len, bool writable)
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

static inline void chain_end(struct virtq_chain *chain)
{
	chain->readable = chain->iov;
	chain->writable = chain->iov + chain->readable_count;
}

/* How many descriptors an indirect table has, and where they are; 0: it is none. */
static inline uint32_t indirect_open(const struct virtq *vq, uint64_t gpa, uint32_t len,
				     struct desc_table *ret_table)
{
	const uint32_t count = len / sizeof(struct vring_desc);
	uint64_t end;
	void *hva = NULL;

	if (!vq->indirect || len % sizeof(struct vring_desc) || count > vq->size ||
	    __builtin_add_overflow(gpa, len, &end))
		return 0;
	ret_table->gpa = gpa;
	ret_table->hva = memory_span(vq->memory, gpa, len, &hva) == len ? hva : NULL;
	return count;
}

/* A part of the ring, whole in one region and aligned; or NULL. */
void *virtq_area(const struct virtq *vq, uint64_t gpa, uint64_t len, unsigned int align);

/* Leave the queue alone from here on, and say so. Return: -EPROTO. */
int virtq_break(struct virtq *vq);

/**
 * virtq_again - what a process before this one left in flight is to be taken once more
 * @counter: of all that were named so far, room for the queue's size; sorted
 */
void virtq_again(struct virtq *vq, uint64_t *counter, uint16_t head, uint64_t own);

#endif /* DEVMODEL_VIRTQ_FORMAT_H */
