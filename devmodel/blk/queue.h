/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A queue of a disk: its thread, its io_uring, and the requests in flight. queue.c tells how. */
#ifndef DEVMODEL_BLK_QUEUE_H
#define DEVMODEL_BLK_QUEUE_H

#include <liburing.h>
#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#include "devmodel/limit.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

#define BLK_SECTOR	512

/*
 * Requests that the host's kernel works on at once; others wait in the ring. A queue has at most
 * BLK_DEPTH, a disk so many that their memory is bounded, whatever the driver asks for.
 */
#define BLK_DEPTH		64
#define BLK_DISK_DEPTH		128

/* Pieces of data in a request, as announced; and some more, where these straddle regions. */
#define BLK_SEG_MAX	126
#define BLK_IOV_MAX	(BLK_SEG_MAX + 10)

/* Of one discard or write-zeroes request. */
#define BLK_RANGE_SECTORS_MAX	(32 << 11)

/**
 * struct blk_disk - what the queues of a disk share
 * @sectors: changes when the file is resized; read by atomic loads
 * @write_through: the driver has no way to ask for durability
 */
struct blk_disk {
	int fd;
	int direct_fd;
	uint64_t sectors;
	bool read_only;
	bool write_through;
	char id[VIRTIO_BLK_ID_BYTES];
	struct limit limit;
};

/* What the host's kernel is asked to do for a request, now. */
enum blk_step { BLK_READ, BLK_WRITE, BLK_DISCARD, BLK_ZERO, BLK_UNMAP, BLK_SYNC };

/**
 * struct blk_request - a request in flight
 * @left: of a transfer, what is not done yet; it begins at @offset
 * @length: of a range, in bytes
 * @status: where the driver wants it
 * @written: bytes that the driver finds before the status, if all goes well
 * @reads: the driver has room for data
 * @direct: the step goes past the page cache
 */
struct blk_request {
	struct iovec *left;
	unsigned int left_count;
	uint64_t offset;
	uint64_t length;
	uint8_t *status;
	uint32_t written;
	uint16_t head;
	enum blk_step step;
	bool reads;
	bool direct;
	struct iovec iov[BLK_IOV_MAX];
};

/**
 * struct blk_queue - a queue
 * @depth: requests that there are
 * @free: the requests not in flight; apart from them, so that what is never used stays untouched
 */
struct blk_queue {
	struct blk_disk *disk;
	struct worker worker;
	struct virtq vq;
	struct virtq_chain chain;
	struct io_uring uring;
	unsigned int depth;
	unsigned int free_count;
	struct blk_request *free[BLK_DEPTH];
	struct blk_request request[BLK_DEPTH];
};

/* 0 or a negative errno. The disk's descriptors are final by now: nothing else can be reached. */
int queue_init(struct blk_queue *queue, struct blk_disk *disk, unsigned int depth);
void queue_finish(struct blk_queue *queue);

int queue_start(struct blk_queue *queue, const struct dev_memory *memory,
		const struct dev_vring *ring, uint64_t features);

/* Returns when no request is in flight any more. */
void queue_stop(struct blk_queue *queue);

#endif /* DEVMODEL_BLK_QUEUE_H */
