/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What is in the files of disks: copied, converted, changed. As in disk.h: 0 or a negative errno, and why. */
#ifndef MOATD_IMAGE_H
#define MOATD_IMAGE_H

#include "userspace/moatd/disk.h"

/**
 * image_copy - have an empty file hold what another one does
 * @share: by sharing blocks, or not at all (-EOPNOTSUPP)
 * @spec: for its progress; may be NULL
 *
 * Return: 0: blocks are shared; 1: it is a copy, with the same holes; or a negative errno.
 */
int image_copy(int from, int to, bool share, const struct disk_spec *spec, char *why);

/* From and to what formats they have, if one of them is qcow2. */
int image_convert(const struct disk_spec *spec, int to, char *why);

/* Of a qcow2 image, which is made, or changed. */
int image_make(int fd, uint64_t size, char *why);
int image_resize(int fd, uint64_t size, char *why);

/* @what: an option of `qemu-img snapshot`: "-c", "-d", "-a". */
int image_snapshot(int fd, const char *what, const char *snapshot, char *why);

/* What a guest sees of it. @ret_snapshots: of a qcow2 image; may be NULL. */
int image_size(int fd, enum disk_format format, uint64_t *ret, unsigned int *ret_snapshots, char *why);

#endif /* MOATD_IMAGE_H */
