/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The device's side of a split virtqueue (virtio 1.2, section 2.7); virtq.c tells how. */
#ifndef DEVMODEL_VIRTQ_H
#define DEVMODEL_VIRTQ_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devmodel/device.h"

#define VIRTQ_SIZE_MAX	256

/* A chain has at most so many pieces, also where buffers straddle regions. */
#define VIRTQ_IOV_MAX	(2 * VIRTQ_SIZE_MAX)

/* The ring features that this code handles, for a device to offer. */
#define VIRTQ_FEATURES	(1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX)

/**
 * struct virtq_inflight - vhost-user's record of the requests in flight of a split virtqueue
 *
 * The layout is that of "Inflight I/O tracking" in the vhost-user specification. The memory is
 * shared with a peer that is not trusted.
 */
struct virtq_inflight {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct virtq_inflight_desc {
		uint8_t inflight;
		uint8_t padding[5];
		uint16_t next;
		uint64_t counter;
	} desc[];
};

#define VIRTQ_INFLIGHT_VERSION	1

/**
 * struct virtq - a queue that a device serves, from one thread
 * @memory: what its buffers may lie in; the caller's, and stays
 * @desc: guest-physical address of the descriptor table
 * @next_avail: index into the driver area of the next chain to take
 * @next_used: index into the device area of the next chain to give back
 * @signalled: next_used when the driver was last interrupted, if @has_signalled
 * @counter: orders the requests recorded in @inflight
 * @again: heads of the chains that a process before this one took and did not give back, in the
 *	order in which it took them
 * @broken: the driver did what it must not, and the queue is left alone from then on
 */
struct virtq {
	const struct dev_memory *memory;
	uint64_t desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t size;
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t signalled;
	struct virtq_inflight *inflight;
	uint64_t counter;
	uint16_t again[VIRTQ_SIZE_MAX];
	uint16_t again_count;
	uint16_t again_next;
	bool has_signalled;
	bool indirect;
	bool event_index;
	bool broken;
	int kick;
	int call;
	int err;
};

/**
 * struct virtq_chain - a request: what the device may read, then what it may write
 * @readable: what is left of the readable part; chain_read() takes from its front
 * @writable: what is left of the writable part; chain_write() takes from its front
 * @bytes: of both parts together when the chain was taken, fits in 32 bits
 * @head: what the driver knows the chain by
 *
 * All pieces are non-empty and lie in the device's memory. What they hold is the guest's and may
 * change at any moment: copy, then look.
 */
struct virtq_chain {
	struct iovec *readable;
	struct iovec *writable;
	unsigned int readable_count;
	unsigned int writable_count;
	uint64_t bytes;
	uint16_t head;
	struct iovec iov[VIRTQ_IOV_MAX];
};

/**
 * virtq_init - begin to serve a queue
 * @features: as negotiated
 *
 * With a record of requests in flight, those of a process that died come first, once more.
 *
 * Return: 0; -EINVAL for a size that is none; -EFAULT for a ring not aligned or not in one region.
 */
int virtq_init(struct virtq *vq, const struct dev_memory *memory, const struct dev_vring *ring,
	       uint64_t features);

/**
 * virtq_pop - take the next chain
 * Return: 1; 0 when there is none; -EPROTO when the queue is broken, which is reported by vq->err.
 */
int virtq_pop(struct virtq *vq, struct virtq_chain *chain);

/* Give a chain back, of which @written bytes at the front of the writable part are now set. */
void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);

/* The same for a chain of which only the head was kept. */
void virtq_push_head(struct virtq *vq, uint16_t head, uint32_t written);

/* Does the driver want to know of what was pushed since it was last asked? */
bool virtq_should_notify(struct virtq *vq);

/* Interrupt the driver if it wants that. */
void virtq_notify(struct virtq *vq);

/* Ask the driver for no kicks; it may send some all the same. */
void virtq_kick_disable(struct virtq *vq);

/* Ask the driver for kicks. True: something came in before it could know; no kick tells of that. */
bool virtq_kick_enable(struct virtq *vq);

/* How many bytes are in some pieces. */
uint64_t iov_bytes(const struct iovec *iov, unsigned int count);

/* Drop up to @len bytes from the front of some pieces. */
void iov_advance(struct iovec **iov, unsigned int *count, size_t len);

/* Copy from, or to, the front of a part and drop that from it. Return: bytes; fewer at its end. */
size_t chain_read(struct virtq_chain *chain, void *buf, size_t len);
size_t chain_write(struct virtq_chain *chain, const void *buf, size_t len);

/* Drop the last byte of the writable part. Return: where it is; NULL where nothing is writable. */
uint8_t *chain_take_last(struct virtq_chain *chain);

#endif /* DEVMODEL_VIRTQ_H */
