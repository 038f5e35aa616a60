// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-blk (virtio 1.2, section 5.2) on a file or a block device.
 *
 * A request is a header of 16 bytes, data, and a status byte at the very end; how these are spread
 * over descriptors is the driver's choice. Requests are carried out one after the other, in place:
 * the host's kernel reads into, and writes from, the guest's own pages, so data is touched once.
 *
 * Without VIRTIO_BLK_F_FLUSH the driver has no way to ask for durability, so each write is durable
 * before it is completed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devmodel/blk.h"
#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

#define BLK_SECTOR		512
#define BLK_QUEUE_SIZE		VIRTQ_SIZE_MAX

/* Of one discard or write-zeroes request: bounds its time where zeroes must be written. */
#define BLK_RANGE_SECTORS_MAX	(32 << 11)
#define BLK_ZEROES_SIZE		(64 << 10)

struct blk {
	struct device dev;
	struct worker worker;
	struct dev_memory memory;
	struct virtq vq;
	struct virtq_chain chain;
	struct virtio_blk_config config;
	uint64_t sectors;
	int fd;
	bool read_only;
	bool write_through;
	char id[VIRTIO_BLK_ID_BYTES];
};

static bool blk_in_range(const struct blk *blk, uint64_t sector, uint64_t sectors)
{
	return sector <= blk->sectors && sectors <= blk->sectors - sector;
}

static uint8_t blk_status(int err)
{
	if (!err)
		return VIRTIO_BLK_S_OK;
	return err == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static int blk_sync(const struct blk *blk)
{
	return fdatasync(blk->fd) ? -errno : 0;
}

/* All of some pieces from, or to, the file. */
static int blk_transfer(const struct blk *blk, struct iovec *iov, unsigned int count,
			uint64_t offset, bool write)
{
	while (count) {
		ssize_t n = write ? pwritev(blk->fd, iov, count, offset) :
				    preadv(blk->fd, iov, count, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;	/* the file has become shorter */
		iov_advance(&iov, &count, n);
		offset += n;
	}
	return 0;
}

static int blk_read(struct blk *blk, uint64_t sector, uint32_t *ret_written)
{
	struct virtq_chain *chain = &blk->chain;
	uint64_t len = iov_bytes(chain->writable, chain->writable_count);
	int err;

	if (len % BLK_SECTOR || !blk_in_range(blk, sector, len / BLK_SECTOR))
		return -EIO;
	err = blk_transfer(blk, chain->writable, chain->writable_count, sector * BLK_SECTOR, false);
	if (!err)
		*ret_written = len;
	return err;
}

static int blk_write(struct blk *blk, uint64_t sector)
{
	struct virtq_chain *chain = &blk->chain;
	uint64_t len = iov_bytes(chain->readable, chain->readable_count);
	int err;

	if (blk->read_only || len % BLK_SECTOR || !blk_in_range(blk, sector, len / BLK_SECTOR))
		return -EIO;
	err = blk_transfer(blk, chain->readable, chain->readable_count, sector * BLK_SECTOR, true);
	return err || !blk->write_through ? err : blk_sync(blk);
}

/* What the file system cannot do by itself. */
static int blk_write_zeroes(const struct blk *blk, uint64_t offset, uint64_t len)
{
	static const uint8_t zeroes[BLK_ZEROES_SIZE];

	while (len) {
		size_t some = len < sizeof(zeroes) ? len : sizeof(zeroes);
		struct iovec iov = { .iov_base = (void *)zeroes, .iov_len = some };
		int err = blk_transfer(blk, &iov, 1, offset, true);

		if (err)
			return err;
		offset += some;
		len -= some;
	}
	return 0;
}

static int blk_zero_range(const struct blk *blk, uint64_t offset, uint64_t len, bool unmap)
{
	int mode = unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	if (!fallocate(blk->fd, mode | FALLOC_FL_KEEP_SIZE, offset, len))
		return 0;
	return errno == EOPNOTSUPP ? blk_write_zeroes(blk, offset, len) : -errno;
}

/* A discard that cannot be done is done: the driver has no claim on what it reads there. */
static int blk_discard_range(const struct blk *blk, uint64_t offset, uint64_t len)
{
	if (!fallocate(blk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len))
		return 0;
	return errno == EOPNOTSUPP ? 0 : -errno;
}

/* Discard and write-zeroes: exactly one range, as announced. */
static int blk_range(struct blk *blk, uint32_t type)
{
	const bool discard = type == VIRTIO_BLK_T_DISCARD;
	struct virtio_blk_discard_write_zeroes range;
	uint64_t offset, len;
	int err;

	if (blk->read_only || chain_read(&blk->chain, &range, sizeof(range)) != sizeof(range) ||
	    blk->chain.readable_count)
		return -EIO;
	if (range.flags & ~(discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return -EOPNOTSUPP;
	if (range.num_sectors > BLK_RANGE_SECTORS_MAX ||
	    !blk_in_range(blk, range.sector, range.num_sectors))
		return -EIO;
	offset = range.sector * BLK_SECTOR;
	len = (uint64_t)range.num_sectors * BLK_SECTOR;
	if (!len)
		return 0;
	err = discard ? blk_discard_range(blk, offset, len) :
			blk_zero_range(blk, offset, len, range.flags);
	return err || !blk->write_through ? err : blk_sync(blk);
}

static int blk_get_id(struct blk *blk, uint32_t *ret_written)
{
	*ret_written = chain_write(&blk->chain, blk->id, sizeof(blk->id));
	return 0;
}

static int blk_dispatch(struct blk *blk, const struct virtio_blk_outhdr *header,
			uint32_t *ret_written)
{
	switch (header->type) {
	case VIRTIO_BLK_T_IN:
		return blk_read(blk, header->sector, ret_written);
	case VIRTIO_BLK_T_OUT:
		return blk_write(blk, header->sector);
	case VIRTIO_BLK_T_FLUSH:
		return blk_sync(blk);
	case VIRTIO_BLK_T_GET_ID:
		return blk_get_id(blk, ret_written);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return blk_range(blk, header->type);
	}
	return -EOPNOTSUPP;
}

/* Return: bytes written to the chain. One without room for a status can only be dropped. */
static uint32_t blk_request(struct blk *blk)
{
	struct virtio_blk_outhdr header;
	uint32_t written = 0;
	uint8_t *status = chain_take_last(&blk->chain);
	int err = -EIO;

	if (!status)
		return 0;
	if (chain_read(&blk->chain, &header, sizeof(header)) == sizeof(header))
		err = blk_dispatch(blk, &header, &written);
	*status = blk_status(err);
	/*
	 * The length counts from the chain's start up to the first byte not written: of a request
	 * that failed with data to read, the status is not among these.
	 */
	if (iov_bytes(blk->chain.writable, blk->chain.writable_count) && !written)
		return 0;
	return written + 1;
}

static void blk_serve(struct blk *blk)
{
	do {
		virtq_kick_disable(&blk->vq);
		while (!worker_ends(&blk->worker) && virtq_pop(&blk->vq, &blk->chain) > 0) {
			virtq_push(&blk->vq, &blk->chain, blk_request(blk));
			virtq_notify(&blk->vq);
		}
	} while (!worker_ends(&blk->worker) && virtq_kick_enable(&blk->vq));
}

static void *blk_run(void *arg)
{
	struct blk *blk = arg;
	struct pollfd wait[] = { { 0 }, { .fd = blk->vq.kick, .events = POLLIN } };
	eventfd_t count;

	blk_serve(blk);		/* there may have been kicks before this thread */
	while (worker_wait(&blk->worker, wait, 2)) {
		eventfd_read(blk->vq.kick, &count);
		blk_serve(blk);
	}
	return NULL;
}

static uint64_t blk_features(struct device *dev)
{
	const struct blk *blk = (struct blk *)dev;
	uint64_t features = VIRTQ_FEATURES | 1ULL << VIRTIO_BLK_F_SEG_MAX |
			    1ULL << VIRTIO_BLK_F_BLK_SIZE | 1ULL << VIRTIO_BLK_F_FLUSH;

	if (blk->read_only)
		return features | 1ULL << VIRTIO_BLK_F_RO;
	return features | 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void blk_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct blk *)dev)->config + offset, len);
}

static int blk_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		     const struct dev_vring *rings)
{
	struct blk *blk = (struct blk *)dev;
	int err;

	blk->memory = *memory;
	blk->write_through = !(features >> VIRTIO_BLK_F_FLUSH & 1);
	err = virtq_init(&blk->vq, &blk->memory, &rings[0], features);
	return err ? err : worker_start(&blk->worker, "blk", blk_run, blk);
}

static void blk_stop(struct device *dev)
{
	worker_stop(&((struct blk *)dev)->worker);
}

static void blk_destroy(struct device *dev)
{
	close(((struct blk *)dev)->fd);
	free(dev);
}

static const struct device_ops blk_ops = {
	.name = "blk",
	.virtio_id = VIRTIO_ID_BLOCK,
	.queue_count = 1,
	.queue_size_max = BLK_QUEUE_SIZE,
	.config_size = sizeof(struct virtio_blk_config),
	.features = blk_features,
	.config_read = blk_config_read,
	.start = blk_start,
	.stop = blk_stop,
	.destroy = blk_destroy,
};

static int blk_size(int fd, const struct stat *st, uint64_t *ret_bytes)
{
	if (S_ISREG(st->st_mode)) {
		*ret_bytes = st->st_size;
		return 0;
	}
	if (!S_ISBLK(st->st_mode))
		return -ENOTBLK;
	return ioctl(fd, BLKGETSIZE64, ret_bytes) ? -errno : 0;
}

/* A chain is header, data and status, and no longer than the queue. */
static void blk_configure(struct blk *blk)
{
	blk->config = (struct virtio_blk_config){
		.capacity = blk->sectors,
		.seg_max = BLK_QUEUE_SIZE - 2,
		.blk_size = BLK_SECTOR,
		.max_discard_sectors = BLK_RANGE_SECTORS_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = 1,
		.max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};
}

/* Stays the same for a file, and tells two apart, without giving away where they are. */
static void blk_identify(struct blk *blk, const struct stat *st)
{
	uint64_t hash = (st->st_dev * 0x9e3779b97f4a7c15ULL) ^ st->st_ino;
	char id[VIRTIO_BLK_ID_BYTES + 1] = "";

	hash *= 0xff51afd7ed558ccdULL;
	snprintf(id, sizeof(id), "%016llx", (unsigned long long)(hash ^ hash >> 33));
	memcpy(blk->id, id, sizeof(blk->id));
}

int blk_create(int fd, bool read_only, struct device **ret)
{
	uint64_t bytes;
	struct stat st;
	struct blk *blk;
	int err;

	if (fstat(fd, &st))
		return -errno;
	err = blk_size(fd, &st, &bytes);
	if (err)
		return err;
	if (!bytes || bytes % BLK_SECTOR)
		return -EINVAL;
	blk = calloc(1, sizeof(*blk));
	if (!blk)
		return -ENOMEM;
	blk->dev.ops = &blk_ops;
	blk->fd = fd;
	blk->read_only = read_only;
	blk->sectors = bytes / BLK_SECTOR;
	blk_configure(blk);
	blk_identify(blk, &st);
	*ret = &blk->dev;
	return 0;
}
