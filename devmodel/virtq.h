/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The device's side of a virtqueue (virtio 1.2, sections 2.7 and 2.8); virtq.c tells how. */
#ifndef DEVMODEL_VIRTQ_H
#define DEVMODEL_VIRTQ_H

#include <linux/virtio_config.h>
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
#define VIRTQ_FEATURES	(1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX | \
			 1ULL << VIRTIO_F_RING_PACKED)

struct virtq_format;

/* What is of a split ring only. */
struct virtq_split {
	const void *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

/**
 * struct virtq_packed - what is of a packed ring only
 * @driver, @device: of whom each wants to hear
 * @resume: where next_used and its wrap counter are kept up to date, or NULL
 * @avail_wrap, @used_wrap: the wrap counters that go with next_avail and next_used
 * @taken: descriptors of the chains in flight
 * @buffer: by id, the chain in flight; @count descriptors, 0: there is none, that are kept in the
 *	entries @first to @last of the record of requests in flight
 * @free: the first entry of the record that is free; the queue's size: none is
 * @next: the entry behind each, of those that are free or of the same chain; in the same way
 */
struct virtq_packed {
	struct vring_packed_desc *ring;
	const struct vring_packed_desc_event *driver;
	struct vring_packed_desc_event *device;
	uint16_t *resume;
	bool avail_wrap;
	bool used_wrap;
	uint16_t taken;
	uint16_t free;
	uint16_t next[VIRTQ_SIZE_MAX];
	struct {
		uint16_t count;
		uint16_t first;
		uint16_t last;
	} buffer[VIRTQ_SIZE_MAX];
};

/**
 * struct virtq - a queue that a device serves, from one thread
 * @format: how its ring is laid out
 * @memory: what its buffers may lie in; the caller's, and stays
 * @next_avail: index into the ring of the next chain to take
 * @next_used: ... and of where the next one is given back
 * @unsignalled: what next_used has moved on by since virtq_should_notify() was last asked
 * @has_signalled: it was asked before
 * @inflight: record of the requests in flight, shared with a peer that is not trusted; or NULL
 * @counter: orders the requests in there
 * @again: what a process before this one took and did not give back, in the order in which it took
 *	it: heads of chains, of a packed ring by their entries in @inflight
 * @broken: the driver did what it must not, and the queue is left alone from then on
 */
struct virtq {
	const struct virtq_format *format;
	const struct dev_memory *memory;
	uint16_t size;
	uint16_t next_avail;
	uint16_t next_used;
	bool has_signalled;
	bool indirect;
	bool event_index;
	bool broken;
	uint32_t unsignalled;
	int kick;
	int call;
	int err;
	void *inflight;
	uint64_t counter;
	uint16_t again[VIRTQ_SIZE_MAX];
	uint16_t again_count;
	uint16_t again_next;
	union {
		struct virtq_split split;
		struct virtq_packed packed;
	};
};

/**
 * struct virtq_chain - a request: what the device may read, then what it may write
 * @readable: what is left of the readable part; chain_read() takes from its front
 * @writable: what is left of the writable part; chain_write() takes from its front
 * @bytes: of both parts together when the chain was taken, fits in 32 bits
 * @head: what the driver knows the chain by: its first descriptor, or the buffer's id
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
 * Return: 0; -EINVAL for a size or an index that is none; -EFAULT for a ring not aligned or not in
 * one region.
 */
int virtq_init(struct virtq *vq, const struct dev_memory *memory, const struct dev_vring *ring,
	       uint64_t features);

/* Has nothing been given back yet? Wrong once in many laps, when it is where it began. */
bool virtq_is_new(const struct virtq *vq);

/**
 * virtq_pop - take the next chain
 * Return: 1; 0 when there is none; -EPROTO when the queue is broken, which is reported by vq->err.
 */
int virtq_pop(struct virtq *vq, struct virtq_chain *chain);

/* Give a chain back, of which @written bytes at the front of the writable part are now set. */
void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);

/* The same for a chain of which only the head was kept. */
void virtq_push_head(struct virtq *vq, uint16_t head, uint32_t written);

/* A chain that is given back, of which @written bytes at the front of the writable part are set. */
struct virtq_used {
	uint16_t head;
	uint32_t written;
};

/*
 * Give @count chains back, which are different ones and at least one, so that the driver sees none of
 * them or all, as does who comes after a kill.
 */
void virtq_push_batch(struct virtq *vq, const struct virtq_used *used, unsigned int count);

/* Was something pushed since this was last asked, and does the driver want to know of it? */
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
