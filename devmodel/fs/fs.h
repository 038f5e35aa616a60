/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_FS_FS_H
#define DEVMODEL_FS_FS_H

#include <stdbool.h>
#include <stdint.h>

#define FS_TAG_MAX	36
#define FS_QUEUES_MAX	8

struct device;

/**
 * struct fs_options - what a file system is made of
 * @tag: what the guest mounts it by, 1 to FS_TAG_MAX bytes
 * @root: the tree, an absolute path, which is opened when the device is first started
 * @self: the place of a descriptor of /proc/self/fd, which is there by then; stays the caller's
 * @empty: the same, of an empty directory
 * @writable: it can be changed
 * @queues: of requests, 1 to FS_QUEUES_MAX; each has a thread of its own, as has that of
 *	high priority
 * @nodes: the most files that the guest may know at once, TABLE_LIMIT_MAX at most
 * @handles: the most that it may have open
 */
struct fs_options {
	const char *tag;
	const char *root;
	const int *self;
	const int *empty;
	bool writable;
	unsigned int queues;
	uint32_t nodes;
	uint32_t handles;
};

/* A tree of files. Return: 0, -EINVAL for options that are none, or -ENOMEM. */
int fs_create(const struct fs_options *options, struct device **ret);

#endif /* DEVMODEL_FS_FS_H */
