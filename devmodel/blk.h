/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_BLK_H
#define DEVMODEL_BLK_H

#include <stdbool.h>

struct device;

/**
 * blk_create - a disk whose contents are a regular file or a block device
 * @fd: open for reading, and for writing too unless @read_only; the device's from here on, but not
 *	on failure
 *
 * Return: 0; -EINVAL for a size that is 0 or not whole sectors of 512 bytes; -ENOTBLK for what is
 * neither file nor block device; another negative errno.
 */
int blk_create(int fd, bool read_only, struct device **ret);

#endif /* DEVMODEL_BLK_H */
