/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <stdint.h>

#include "devmodel/device.h"

/**
 * struct memory - the guest's RAM
 * @fd: memfd that holds all of it, in guest-physical order without the hole
 * @map: the same as devices see it
 */
struct memory {
	int fd;
	struct dev_memory map;
};

int memory_init(struct memory *memory, uint64_t size);
void memory_finish(struct memory *memory);

/* Where [gpa, gpa + len) is in this process; NULL unless all of it is RAM of one region. */
void *memory_at(const struct memory *memory, uint64_t gpa, uint64_t len);

/* The other way, for what is in there. */
uint64_t memory_gpa(const struct memory *memory, const void *hva);

/**
 * memory_load - copy a file into RAM
 * @gpa: where to; with @len, RAM of one region
 *
 * The kernel does it, page for page, with no page fault here. Not once others have the memory.
 *
 * Return: 0 or a negative errno; -ENODATA where the file ends first.
 */
int memory_load(const struct memory *memory, uint64_t gpa, uint64_t len, int fd, uint64_t offset);

/* All of it, in bytes. */
uint64_t memory_size(const struct memory *memory);

/* End of the RAM below the PCI hole. */
uint64_t memory_low_end(const struct memory *memory);

#endif /* VMM_MEMORY_H */
