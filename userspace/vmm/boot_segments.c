// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>

#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/boot_segments.h"

static int segment_check(const struct memory *memory, const struct boot_file *file,
			 const struct boot_segment *segment)
{
	if (segment->size > segment->room)
		return boot_refuse(file, "has a segment with more bytes than memory for them");
	if (segment->offset > file->size || segment->size > file->size - segment->offset)
		return boot_refuse(file, "is cut short");
	return boot_check_room(memory, file, segment->base, segment->room);
}

/* Of segments that have each been checked: so nothing wraps. */
static bool segments_overlap(const struct boot_segments *segments)
{
	for (unsigned int i = 0; i < segments->count; i++) {
		const struct boot_segment *a = &segments->segment[i];

		for (unsigned int j = 0; j < i; j++) {
			const struct boot_segment *b = &segments->segment[j];

			if (a->base < b->base + b->room && b->base < a->base + a->room)
				return true;
		}
	}
	return false;
}

static bool segments_have(const struct boot_segments *segments, uint64_t entry)
{
	for (unsigned int i = 0; i < segments->count; i++) {
		const struct boot_segment *segment = &segments->segment[i];

		if (entry >= segment->base && entry - segment->base < segment->size)
			return true;
	}
	return false;
}

static int segments_check(const struct memory *memory, const struct boot_file *file,
			  const struct boot_segments *segments, uint64_t entry)
{
	for (unsigned int i = 0; i < segments->count; i++) {
		int err = segment_check(memory, file, &segments->segment[i]);

		if (err)
			return err;
	}
	if (segments_overlap(segments))
		return boot_refuse(file, "has segments that overlap");
	if (!segments_have(segments, entry))
		return boot_refuse(file, "has its entry outside of what is loaded");
	return 0;
}

int boot_load_segments(const struct memory *memory, const struct boot_file *file,
		       const struct boot_segments *segments, uint64_t entry, uint64_t *ret_end)
{
	int err = segments_check(memory, file, segments, entry);
	uint64_t end = 0;

	for (unsigned int i = 0; i < segments->count && !err; i++) {
		const struct boot_segment *segment = &segments->segment[i];

		err = boot_load_file(memory, file, segment->base, segment->size, segment->offset);
		if (end < segment->base + segment->room)
			end = segment->base + segment->room;
	}
	if (!err)
		*ret_end = end;
	return err;
}
