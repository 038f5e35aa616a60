// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A network device may spread a frame over several chains, which the driver must then find
 * together: all go into the device area, and only then its index moves, over all of them.
 *
 * In the record of requests in flight, the heads of such a batch are linked from the last one back
 * (last_batch_head, next), before the index moves; so after a kill between that and the last mark
 * being taken away, the difference of the two indices says how many of the list are done. A batch
 * of one is what virtq_push_head() leaves.
 */
#include "devmodel/virtq_batch.h"

/* Takes away the marks of what was given back just before the end. */
static void inflight_settle_batch(const struct virtq *vq, struct virtq_inflight *inflight)
{
	uint16_t head = __atomic_load_n(&inflight->last_batch_head, __ATOMIC_RELAXED);
	uint16_t count = vq->next_used - __atomic_load_n(&inflight->used_idx, __ATOMIC_RELAXED);

	if (inflight->version != VIRTQ_INFLIGHT_VERSION || count > vq->size)
		return;
	for (; count && head < vq->size; count--) {
		inflight->desc[head].inflight = 0;
		head = __atomic_load_n(&inflight->desc[head].next, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

/* Without the record, virtq_init() says where the ring is, which the record is settled by. */
int virtq_init_batch(struct virtq *vq, const struct dev_memory *memory,
		     const struct dev_vring *ring, uint64_t features)
{
	struct dev_vring bare = *ring;
	int err;

	bare.inflight = NULL;
	err = virtq_init(vq, memory, &bare, features);
	if (err || !ring->inflight)
		return err;
	inflight_settle_batch(vq, ring->inflight);
	return virtq_init(vq, memory, ring, features);
}

static void inflight_link(struct virtq_inflight *inflight, const struct virtq_used *used,
			  unsigned int count)
{
	for (unsigned int i = 1; i < count; i++)
		__atomic_store_n(&inflight->desc[used[i].head].next, used[i - 1].head,
				 __ATOMIC_RELAXED);
	__atomic_store_n(&inflight->last_batch_head, used[count - 1].head, __ATOMIC_RELEASE);
}

static void inflight_unmark(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		__atomic_store_n(&vq->inflight->desc[used[i].head].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&vq->inflight->used_idx, vq->next_used, __ATOMIC_RELEASE);
}

void virtq_push_batch(struct virtq *vq, const struct virtq_used *used, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		const uint16_t at = vq->next_used + i;
		struct vring_used_elem *elem = &vq->used->ring[at & (vq->size - 1)];

		__atomic_store_n(&elem->id, used[i].head, __ATOMIC_RELAXED);
		__atomic_store_n(&elem->len, used[i].written, __ATOMIC_RELAXED);
	}
	if (vq->inflight)
		inflight_link(vq->inflight, used, count);
	vq->next_used += count;
	__atomic_store_n(&vq->used->idx, vq->next_used, __ATOMIC_RELEASE);
	if (vq->inflight)
		inflight_unmark(vq, used, count);
}
