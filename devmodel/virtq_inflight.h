/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Records of the requests in flight of a virtqueue, laid out as "Inflight I/O tracking" in the
 * vhost-user specification has it. The memory is shared with a peer that is not trusted. Before its
 * first use it is all zeroes.
 */
#ifndef DEVMODEL_VIRTQ_INFLIGHT_H
#define DEVMODEL_VIRTQ_INFLIGHT_H

#include <stddef.h>
#include <stdint.h>

#define VIRTQ_INFLIGHT_VERSION	1

/* Of a split ring: an entry for each descriptor, in use where that is the head of a chain. */
struct virtq_inflight_split {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct virtq_inflight_split_desc {
		uint8_t inflight;
		uint8_t padding[5];
		uint16_t next;
		uint64_t counter;
	} desc[];
};

/* Where the device gives back next, stored as one. @old_idx, @old_wrap: before it began to. */
union virtq_inflight_used {
	struct {
		uint16_t idx;
		uint16_t old_idx;
		uint8_t wrap;
		uint8_t old_wrap;
		uint16_t padding;
	};
	uint64_t whole;
};

/*
 * Of a packed ring, where descriptors are overwritten by used ones before they are done with: an
 * entry for each descriptor taken, a copy. Entries are linked, those of a chain and those that are
 * free; @inflight, @last, @num and @counter are of a chain's first one.
 */
struct virtq_inflight_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	union virtq_inflight_used used;
	uint8_t padding[8];
	struct virtq_inflight_packed_desc {
		uint8_t inflight;
		uint8_t padding;
		uint16_t next;
		uint16_t last;
		uint16_t num;
		uint64_t counter;
		uint16_t id;
		uint16_t flags;
		uint32_t len;
		uint64_t addr;
	} desc[];
};

_Static_assert(offsetof(struct virtq_inflight_split, desc) == 16, "split record");
_Static_assert(sizeof(struct virtq_inflight_split_desc) == 16, "its entry");
_Static_assert(offsetof(struct virtq_inflight_packed, desc) == 32, "packed record");
_Static_assert(sizeof(struct virtq_inflight_packed_desc) == 32, "its entry");

#endif /* DEVMODEL_VIRTQ_INFLIGHT_H */
