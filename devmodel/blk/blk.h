/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_BLK_BLK_H
#define DEVMODEL_BLK_BLK_H

#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#define BLK_QUEUES_MAX	16

struct device;

/**
 * struct blk_options - what a disk is made of
 * @fd: a regular file or a block device, open for reading, and for writing too unless @read_only
 * @direct_fd: the same, opened once more with O_DIRECT; -1: all I/O goes through the page cache
 * @queues: 1 to BLK_QUEUES_MAX; each has a thread of its own
 * @serial: what VIRTIO_BLK_T_GET_ID tells, at most VIRTIO_BLK_ID_BYTES of it; NULL: made of the
 *	file's inode
 * @bytes_per_second: the most that all reads and writes may move; 0: any
 * @ops_per_second: the most requests; 0: any
 */
struct blk_options {
	int fd;
	int direct_fd;
	bool read_only;
	unsigned int queues;
	const char *serial;
	uint64_t bytes_per_second;
	uint64_t ops_per_second;
};

/**
 * blk_create - a disk whose contents are a regular file or a block device
 * @options: its descriptors are the device's from here on, but not on failure
 *
 * Return: 0; -EINVAL for a size that is 0 or not whole sectors of 512 bytes, or a number of queues
 * that is none; -ENOTBLK for what is neither file nor block device; another negative errno, as
 * -ENOSYS or -EPERM where the host has no io_uring.
 */
int blk_create(const struct blk_options *options, struct device **ret);

/**
 * blk_resize - look at the size of the file once more
 * Return: 1 where it has changed, and the configuration with it; 0; -EINVAL for a size as above,
 * which leaves all as it was; another negative errno.
 */
int blk_resize(struct device *dev);

#endif /* DEVMODEL_BLK_BLK_H */
