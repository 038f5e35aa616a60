// SPDX-License-Identifier: MIT OR GPL-2.0
/* virtio-blk (virtio 1.2, section 5.2) on a file or a block device: the device round its queues. */
#include <errno.h>
#include <linux/fs.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "devmodel/blk/blk.h"
#include "devmodel/blk/queue.h"
#include "devmodel/device.h"
#include "userspace/lib/fd.h"

/* @active: queues from the first on that serve their rings; the driver may do without some. */
struct blk {
	struct device dev;
	struct device_ops ops;
	struct dev_memory memory;
	struct blk_disk disk;
	struct virtio_blk_config config;
	bool active[BLK_QUEUES_MAX];
	struct blk_queue queue[];
};

static uint64_t blk_features(struct device *dev)
{
	const struct blk *blk = (struct blk *)dev;
	uint64_t features = VIRTQ_FEATURES | 1ULL << VIRTIO_BLK_F_SEG_MAX |
			    1ULL << VIRTIO_BLK_F_BLK_SIZE | 1ULL << VIRTIO_BLK_F_FLUSH;

	if (blk->ops.queue_count > 1)
		features |= 1ULL << VIRTIO_BLK_F_MQ;
	if (blk->disk.read_only)
		return features | 1ULL << VIRTIO_BLK_F_RO;
	return features | 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void blk_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct blk *)dev)->config + offset, len);
}

static void blk_stop(struct device *dev)
{
	struct blk *blk = (struct blk *)dev;

	for (unsigned int i = 0; i < blk->ops.queue_count; i++)
		if (blk->active[i])
			queue_stop(&blk->queue[i]);
	memset(blk->active, 0, sizeof(blk->active));
}

static int blk_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		     const struct dev_vring *rings)
{
	struct blk *blk = (struct blk *)dev;

	blk->memory = *memory;
	blk->disk.write_through = !(features >> VIRTIO_BLK_F_FLUSH & 1);
	for (unsigned int i = 0; i < blk->ops.queue_count; i++) {
		int err;

		if (!rings[i].size)
			continue;
		err = queue_start(&blk->queue[i], &blk->memory, &rings[i], features);
		if (err) {
			blk_stop(dev);
			return err;
		}
		blk->active[i] = true;
	}
	return 0;
}

static void blk_destroy(struct device *dev)
{
	struct blk *blk = (struct blk *)dev;

	for (unsigned int i = 0; i < blk->ops.queue_count; i++)
		queue_finish(&blk->queue[i]);
	fd_close(blk->disk.fd);
	fd_close(blk->disk.direct_fd);
	free(blk);
}

static const struct device_ops blk_ops = {
	.name = "blk",
	.virtio_id = VIRTIO_ID_BLOCK,
	.queue_size_max = VIRTQ_SIZE_MAX,
	.config_size = sizeof(struct virtio_blk_config),
	.features = blk_features,
	.config_read = blk_config_read,
	.start = blk_start,
	.stop = blk_stop,
	.destroy = blk_destroy,
};

static int blk_bytes(int fd, const struct stat *st, uint64_t *ret_bytes)
{
	if (S_ISREG(st->st_mode)) {
		*ret_bytes = st->st_size;
		return 0;
	}
	if (!S_ISBLK(st->st_mode))
		return -ENOTBLK;
	return ioctl(fd, BLKGETSIZE64, ret_bytes) ? -errno : 0;
}

static int blk_sectors(int fd, const struct stat *st, uint64_t *ret_sectors)
{
	uint64_t bytes;
	int err = blk_bytes(fd, st, &bytes);

	if (err)
		return err;
	if (!bytes || bytes % BLK_SECTOR)
		return -EINVAL;
	*ret_sectors = bytes / BLK_SECTOR;
	return 0;
}

int blk_resize(struct device *dev)
{
	struct blk *blk = (struct blk *)dev;
	uint64_t sectors;
	struct stat st;
	int err;

	if (fstat(blk->disk.fd, &st))
		return -errno;
	err = blk_sectors(blk->disk.fd, &st, &sectors);
	if (err)
		return err;
	if (sectors == blk->disk.sectors)
		return 0;
	__atomic_store_n(&blk->disk.sectors, sectors, __ATOMIC_RELAXED);
	blk->config.capacity = sectors;
	return 1;
}

/* A chain is header, data and status. */
static void blk_configure(struct blk *blk)
{
	blk->config = (struct virtio_blk_config){
		.capacity = blk->disk.sectors,
		.seg_max = BLK_SEG_MAX,
		.blk_size = BLK_SECTOR,
		.num_queues = blk->ops.queue_count,
		.max_discard_sectors = BLK_RANGE_SECTORS_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = 1,
		.max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = 1,
	};
}

/* Stays the same for a file, and tells two apart, without giving away where they are. */
static void blk_identify(struct blk_disk *disk, const struct stat *st, const char *serial)
{
	uint64_t hash = (st->st_dev * 0x9e3779b97f4a7c15ULL) ^ st->st_ino;
	char id[VIRTIO_BLK_ID_BYTES + 1] = "";

	hash *= 0xff51afd7ed558ccdULL;
	snprintf(id, sizeof(id), "%016llx", (unsigned long long)(hash ^ hash >> 33));
	if (serial)
		snprintf(id, sizeof(id), "%s", serial);
	memcpy(disk->id, id, sizeof(disk->id));
}

static int blk_init(struct blk *blk, const struct blk_options *options)
{
	struct blk_disk *disk = &blk->disk;
	struct stat st;
	int err;

	if (fstat(options->fd, &st))
		return -errno;
	err = blk_sectors(options->fd, &st, &disk->sectors);
	if (err)
		return err;
	disk->fd = options->fd;
	disk->direct_fd = options->direct_fd;
	disk->read_only = options->read_only;
	limit_init(&disk->limit, options->bytes_per_second, options->ops_per_second);
	blk->dev.ops = &blk->ops;
	blk->ops = blk_ops;
	blk->ops.queue_count = options->queues;
	blk_configure(blk);
	blk_identify(disk, &st, options->serial);
	return 0;
}

static int blk_init_queues(struct blk *blk)
{
	unsigned int depth = BLK_DISK_DEPTH / blk->ops.queue_count;

	if (depth > BLK_DEPTH)
		depth = BLK_DEPTH;
	for (unsigned int i = 0; i < blk->ops.queue_count; i++) {
		int err = queue_init(&blk->queue[i], &blk->disk, depth);

		if (!err)
			continue;
		while (i--)
			queue_finish(&blk->queue[i]);
		return err;
	}
	return 0;
}

int blk_create(const struct blk_options *options, struct device **ret)
{
	struct blk *blk;
	int err;

	if (!options->queues || options->queues > BLK_QUEUES_MAX)
		return -EINVAL;
	blk = calloc(1, sizeof(*blk) + options->queues * sizeof(blk->queue[0]));
	if (!blk)
		return -ENOMEM;
	err = blk_init(blk, options);
	if (!err)
		err = blk_init_queues(blk);
	if (err) {
		free(blk);
		return err;
	}
	*ret = &blk->dev;
	return 0;
}
