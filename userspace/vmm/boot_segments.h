/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Images that say of each of their parts where it goes. */
#ifndef VMM_BOOT_SEGMENTS_H
#define VMM_BOOT_SEGMENTS_H

#include <stdbool.h>
#include <stdint.h>

struct boot_file;
struct memory;

#define BOOT_SEGMENTS	64

/**
 * struct boot_segment - a part of an image
 * @offset: of @size bytes in the file
 * @base: where they go, with @room bytes of memory in all; what follows the bytes is zero
 * @virt: the address by which the image itself calls @base
 */
struct boot_segment {
	uint64_t offset;
	uint64_t size;
	uint64_t base;
	uint64_t room;
	uint64_t virt;
};

struct boot_segments {
	unsigned int count;
	struct boot_segment segment[BOOT_SEGMENTS];
};

/*
 * Check all of them, then load them. @entry, a guest-physical address, has to be among the bytes of
 * one. @ret_end is the end of the last in memory. Says itself what is wrong.
 */
int boot_load_segments(const struct memory *memory, const struct boot_file *file,
		       const struct boot_segments *segments, uint64_t entry, uint64_t *ret_end);

#endif /* VMM_BOOT_SEGMENTS_H */
