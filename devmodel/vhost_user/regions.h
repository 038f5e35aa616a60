/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Guest memory, as a front end hands it over. */
#ifndef DEVMODEL_VHOST_USER_REGIONS_H
#define DEVMODEL_VHOST_USER_REGIONS_H

#include "devmodel/device.h"
#include "include/moat/vhost_user.h"

_Static_assert(VHOST_USER_REGIONS_MAX == DEV_MAX_REGIONS, "a table fits into a table");

/**
 * struct regions - a memory table, mapped
 * @memory: for devices
 * @mapping: for each region, where the front end has it, and what was mapped: from the page, or
 *	huge page, in which it begins, on
 */
struct regions {
	struct dev_memory memory;
	struct {
		uint64_t userspace_addr;
		void *base;
		size_t length;
	} mapping[VHOST_USER_REGIONS_MAX];
};

/**
 * regions_map - map a table that message_read_memory() has checked
 * @fds: one for each region; they stay the caller's
 *
 * Return: 0; -EINVAL for a region past the end of its file; another negative errno. @ret untouched
 * then.
 */
int regions_map(const struct vhost_user_memory *table, const int *fds, struct regions *ret);

/* Fine for regions of which none is mapped. */
void regions_unmap(struct regions *regions);

/* The guest-physical address of one of the front end's. -EFAULT where that is no guest memory. */
int regions_gpa(const struct regions *regions, uint64_t userspace_addr, uint64_t *ret_gpa);

/* Where @len bytes from a guest-physical address on are; NULL unless whole in one region. */
void *regions_at(const struct regions *regions, uint64_t gpa, uint64_t len);

#endif /* DEVMODEL_VHOST_USER_REGIONS_H */
