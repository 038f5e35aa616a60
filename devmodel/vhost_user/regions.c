// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What is mapped is the region and nothing beside it, but for the page in which it begins or ends:
 * hugetlbfs has large ones. Of a regular file, a memfd among them, the region must be within its
 * size. A peer that makes its file shorter later gets this process killed by SIGBUS, and has
 * itself to blame.
 */
#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "devmodel/vhost_user/regions.h"

/* The size of the pages that a file is mapped in, a power of two. */
static uint64_t region_granule(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) || fs.f_type != HUGETLBFS_MAGIC)
		return sysconf(_SC_PAGESIZE);
	return fs.f_bsize;
}

static int region_check(const struct vhost_user_region *region, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) &&
	    region->mmap_offset + region->memory_size > (uint64_t)st.st_size)
		return -EINVAL;
	return 0;
}

static int region_map(struct regions *regions, const struct vhost_user_region *region, int fd)
{
	const unsigned int i = regions->memory.count;
	const uint64_t granule = region_granule(fd);
	const uint64_t slack = region->mmap_offset % granule;
	size_t length;
	void *base;
	int err = region_check(region, fd);

	if (err)
		return err;
	length = (slack + region->memory_size + granule - 1) / granule * granule;
	base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		    region->mmap_offset - slack);
	if (base == MAP_FAILED)
		return -errno;
	regions->mapping[i].userspace_addr = region->userspace_addr;
	regions->mapping[i].base = base;
	regions->mapping[i].length = length;
	regions->memory.region[i] = (struct dev_region){
		.gpa = region->guest_phys_addr, .size = region->memory_size,
		.hva = (char *)base + slack,
	};
	regions->memory.count++;
	return 0;
}

int regions_map(const struct vhost_user_memory *table, const int *fds, struct regions *ret)
{
	struct regions regions = { .memory.count = 0 };

	for (unsigned int i = 0; i < table->nregions; i++) {
		int err = region_map(&regions, &table->regions[i], fds[i]);

		if (err) {
			regions_unmap(&regions);
			return err;
		}
	}
	*ret = regions;
	return 0;
}

void regions_unmap(struct regions *regions)
{
	for (unsigned int i = 0; i < regions->memory.count; i++)
		munmap(regions->mapping[i].base, regions->mapping[i].length);
	regions->memory.count = 0;
}

int regions_gpa(const struct regions *regions, uint64_t userspace_addr, uint64_t *ret_gpa)
{
	for (unsigned int i = 0; i < regions->memory.count; i++) {
		const struct dev_region *region = &regions->memory.region[i];
		const uint64_t from = regions->mapping[i].userspace_addr;

		if (userspace_addr < from || userspace_addr - from >= region->size)
			continue;
		*ret_gpa = region->gpa + (userspace_addr - from);
		return 0;
	}
	return -EFAULT;
}

void *regions_at(const struct regions *regions, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < regions->memory.count; i++) {
		const struct dev_region *region = &regions->memory.region[i];
		const uint64_t offset = gpa - region->gpa;

		if (gpa >= region->gpa && offset < region->size && len <= region->size - offset)
			return (char *)region->hva + offset;
	}
	return NULL;
}
