// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Guest RAM: one memfd, mapped shared, so that it can be handed to a device process; at most two
 * pieces of it, below and above the PCI hole that ends at 4 GiB.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define MEMORY_HIGH	(1ULL << 32)

static int memory_map(struct memory *memory, uint64_t gpa, uint64_t size, uint64_t offset)
{
	struct dev_region *region = &memory->map.region[memory->map.count];
	void *hva = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 memory->fd, offset);

	if (hva == MAP_FAILED)
		return -errno;
	*region = (struct dev_region){ .gpa = gpa, .size = size, .hva = hva };
	memory->map.count++;
	return 0;
}

int memory_init(struct memory *memory, uint64_t size)
{
	uint64_t low = size < LAYOUT_HOLE ? size : LAYOUT_HOLE;
	int err;

	*memory = (struct memory){ .fd = fd_memory("guest-ram", size) };
	err = memory->fd < 0 ? memory->fd : memory_map(memory, 0, low, 0);
	if (!err && size > low)
		err = memory_map(memory, MEMORY_HIGH, size - low, low);
	if (err) {
		log_error("cannot get %llu MiB of guest memory: %s; try a smaller --mem",
			  (unsigned long long)size >> 20, strerror(-err));
		memory_finish(memory);
	}
	return err;
}

void memory_finish(struct memory *memory)
{
	for (unsigned int i = 0; i < memory->map.count; i++)
		munmap(memory->map.region[i].hva, memory->map.region[i].size);
	memory->map.count = 0;
	fd_close(memory->fd);
	memory->fd = -1;
}

void *memory_at(const struct memory *memory, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < memory->map.count; i++) {
		const struct dev_region *region = &memory->map.region[i];
		uint64_t offset = gpa - region->gpa;

		if (gpa >= region->gpa && offset < region->size && len <= region->size - offset)
			return (char *)region->hva + offset;
	}
	return NULL;
}

/* Where it is in the memfd. */
static uint64_t memory_offset(const struct memory *memory, uint64_t gpa)
{
	return gpa < MEMORY_HIGH ? gpa : gpa - MEMORY_HIGH + memory_low_end(memory);
}

int memory_load(const struct memory *memory, uint64_t gpa, uint64_t len, int fd, uint64_t offset)
{
	off_t from = offset;

	if (lseek(memory->fd, memory_offset(memory, gpa), SEEK_SET) < 0)
		return -errno;
	while (len) {
		ssize_t n = sendfile(memory->fd, fd, &from, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		len -= n;
	}
	return 0;
}

uint64_t memory_gpa(const struct memory *memory, const void *hva)
{
	const struct dev_region *region = memory->map.region;

	while ((uintptr_t)hva - (uintptr_t)region->hva >= region->size)
		region++;
	return region->gpa + ((const char *)hva - (const char *)region->hva);
}

uint64_t memory_low_end(const struct memory *memory)
{
	return memory->map.region[0].size;
}

uint64_t memory_size(const struct memory *memory)
{
	uint64_t size = 0;

	for (unsigned int i = 0; i < memory->map.count; i++)
		size += memory->map.region[i].size;
	return size;
}
