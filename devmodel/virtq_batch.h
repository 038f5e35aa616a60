/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Several chains of a split virtqueue given back at once; virtq_batch.c tells how. */
#ifndef DEVMODEL_VIRTQ_BATCH_H
#define DEVMODEL_VIRTQ_BATCH_H

#include "devmodel/virtq.h"

/* A chain that is given back, of which @written bytes at the front of the writable part are set. */
struct virtq_used {
	uint16_t head;
	uint32_t written;
};

/* virtq_init(), for a queue whose process before this one may have used virtq_push_batch(). */
int virtq_init_batch(struct virtq *vq, const struct dev_memory *memory,
		     const struct dev_vring *ring, uint64_t features);

/* Give chains back so that the driver sees none of them or all, as does who comes after a kill. */
void virtq_push_batch(struct virtq *vq, const struct virtq_used *used, unsigned int count);

#endif /* DEVMODEL_VIRTQ_BATCH_H */
