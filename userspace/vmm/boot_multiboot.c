// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Multiboot (the Multiboot Specification, version 0.6.96): a file of any format with a header in its
 * first 8 KiB, which either gives the addresses that it is to be loaded at, or leaves these to the
 * file's being ELF. The kernel is entered in 32-bit protected mode, without paging, with a magic
 * number in EAX and the address of what it is told in EBX. What it has for a GDT is unspecified.
 *
 * It is given the command line as it is, with no name of the kernel before it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "userspace/vmm/boot_elf.h"
#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define MULTIBOOT_SEARCH	8192
#define MULTIBOOT_MAGIC		0x1badb002
#define MULTIBOOT_EAX		0x2badb002

/* What a kernel asks for in its header. Of the lower half, what is not known has to be refused. */
#define ASKS_PAGES		(1 << 0)	/* modules on pages of their own */
#define ASKS_MEMORY		(1 << 1)
#define ASKS_ALL		0xffff
#define HAS_ADDRESSES		(1 << 16)

/* What it is told. */
#define TOLD_MEMORY		(1 << 0)
#define TOLD_CMDLINE		(1 << 2)
#define TOLD_MODULES		(1 << 3)
#define TOLD_MAP		(1 << 6)

/* The addresses are there with HAS_ADDRESSES only. */
struct multiboot_header {
	uint32_t magic;
	uint32_t flags;
	uint32_t checksum;

	uint32_t header;
	uint32_t load;
	uint32_t load_end;	/* 0: the end of the file */
	uint32_t bss_end;	/* 0: nothing follows */
	uint32_t entry;
};

#define HEADER_SHORT	offsetof(struct multiboot_header, header)

struct multiboot_module {
	uint32_t start;
	uint32_t end;
	uint32_t cmdline;
	uint32_t reserved;
};

struct multiboot_range {
	uint32_t rest;		/* how many bytes follow */
	uint64_t start;
	uint64_t size;
	uint32_t type;
} __attribute__((packed));

/* What the kernel is told, and what that points to. */
struct multiboot_info {
	uint32_t flags;
	uint32_t kib_lower;
	uint32_t kib_upper;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t module_count;
	uint32_t modules;
	uint32_t symbols[4];
	uint32_t range_bytes;
	uint32_t ranges;
	uint32_t others[16];	/* drives, APM, video */

	struct multiboot_module module;
	struct multiboot_range range[BOOT_RANGES];
	char no_cmdline[1];	/* the module's */
};

static_assert(offsetof(struct multiboot_info, range_bytes) == 44, "the specification's place");
static_assert(offsetof(struct multiboot_info, module) == 116, "the specification's size");
static_assert(sizeof(struct multiboot_range) == 24, "the specification's size");
static_assert(sizeof(struct multiboot_info) <= LAYOUT_PAGE_TABLES - LAYOUT_BOOT_PARAMS, "room");

#define MULTIBOOT_ADDRESS(member) (LAYOUT_BOOT_PARAMS + offsetof(struct multiboot_info, member))

/* All of a header is to be in what is searched. What is there by chance only, has no good checksum. */
static int header_find(struct multiboot_header *header, const struct boot_file *file,
		       uint64_t *ret_offset)
{
	uint32_t words[MULTIBOOT_SEARCH / sizeof(uint32_t)];
	size_t len = file->size < sizeof(words) ? file->size : sizeof(words);
	int err = boot_read(file, words, len, 0);

	if (err)
		return err == -ENODATA ? BOOT_ANOTHER : err;
	for (size_t i = 0; (i * sizeof(*words)) + HEADER_SHORT <= len; i++) {
		size_t size = len - i * sizeof(*words);

		if (words[i] != MULTIBOOT_MAGIC || words[i] + words[i + 1] + words[i + 2])
			continue;
		if (size > sizeof(*header))
			size = sizeof(*header);
		if ((words[i + 1] & HAS_ADDRESSES) && size < sizeof(*header))
			continue;
		memcpy(header, &words[i], size);
		*ret_offset = i * sizeof(*words);
		return 0;
	}
	return BOOT_ANOTHER;
}

/* By the addresses in the header, which itself is at @offset. */
static int header_segment(const struct multiboot_header *header, uint64_t offset,
			  const struct boot_file *file, struct boot_segment *ret)
{
	const uint64_t before = (uint64_t)header->header - header->load;
	uint64_t load_end = header->load_end, bss_end = header->bss_end;

	if (header->header < header->load || before > offset)
		return boot_refuse(file, "has a multiboot header that is not where it says");
	offset -= before;
	if (!load_end)
		load_end = header->load + (file->size - offset);
	if (!bss_end)
		bss_end = load_end;
	if (load_end < header->load || bss_end < load_end)
		return boot_refuse(file, "has a multiboot header with an end before its start");
	*ret = (struct boot_segment){
		.offset = offset, .size = load_end - header->load, .base = header->load,
		.room = bss_end - header->load, .virt = header->load,
	};
	return 0;
}

/* An entry is a virtual address, where it is one of a segment's; and else what some take it for. */
static uint64_t segments_entry(const struct boot_segments *segments, uint64_t entry)
{
	for (unsigned int i = 0; i < segments->count; i++) {
		const struct boot_segment *segment = &segments->segment[i];

		if (entry >= segment->virt && entry - segment->virt < segment->size)
			return entry - segment->virt + segment->base;
	}
	return entry;
}

static int multiboot_read_elf(const struct boot_file *file, struct boot_segments *ret_segments,
			      uint64_t *ret_entry)
{
	struct boot_elf elf;
	int err = boot_elf_read(&elf, file);

	if (err == BOOT_ANOTHER)
		return boot_refuse(file, "has a multiboot header without addresses, and is no ELF file");
	if (err)
		return err;
	boot_elf_segments(&elf, ret_segments);
	*ret_entry = segments_entry(ret_segments, elf.header.e_entry);
	return 0;
}

static int multiboot_read(const struct boot_file *file, struct boot_segments *ret_segments,
			  uint64_t *ret_entry)
{
	struct multiboot_header header = { 0 };
	uint64_t offset;
	int err = header_find(&header, file, &offset);

	if (err)
		return err;
	if (header.flags & ASKS_ALL & ~(ASKS_PAGES | ASKS_MEMORY))
		return boot_refuse(file, "asks for more in its multiboot header than there is: it can "
				   "have modules on pages, and the map of memory, but no video mode");
	if (!(header.flags & HAS_ADDRESSES))
		return multiboot_read_elf(file, ret_segments, ret_entry);
	ret_segments->count = 1;
	*ret_entry = header.entry;
	return header_segment(&header, offset, file, &ret_segments->segment[0]);
}

static void multiboot_set_ranges(struct multiboot_info *info, const struct memory *memory)
{
	struct boot_range ranges[BOOT_RANGES];
	unsigned int count = boot_ranges(memory, ranges);

	for (unsigned int i = 0; i < count; i++)
		info->range[i] = (struct multiboot_range){
			.rest = sizeof(info->range[i]) - sizeof(info->range[i].rest),
			.start = ranges[i].start, .size = ranges[i].size, .type = ranges[i].type,
		};
	info->ranges = MULTIBOOT_ADDRESS(range);
	info->range_bytes = count * sizeof(info->range[0]);
}

static void multiboot_set_info(const struct memory *memory, const struct boot_module *initrd)
{
	struct multiboot_info *info = memory_at(memory, LAYOUT_BOOT_PARAMS, sizeof(*info));

	*info = (struct multiboot_info){
		.flags = TOLD_MEMORY | TOLD_CMDLINE | TOLD_MODULES | TOLD_MAP,
		.kib_lower = LAYOUT_LOW_END >> 10,
		.kib_upper = (memory_low_end(memory) - LAYOUT_HIGH) >> 10,
		.cmdline = LAYOUT_CMDLINE,
	};
	multiboot_set_ranges(info, memory);
	if (!initrd->size)
		return;
	info->module_count = 1;
	info->modules = MULTIBOOT_ADDRESS(module);
	info->module = (struct multiboot_module){
		.start = initrd->base, .end = initrd->base + initrd->size,
		.cmdline = MULTIBOOT_ADDRESS(no_cmdline),
	};
}

int boot_multiboot_load(const struct memory *memory, const struct boot_image *image,
			struct boot_entry *ret_entry)
{
	struct boot_segments segments;
	struct boot_module initrd;
	uint64_t entry = 0, end;
	int err = multiboot_read(&image->kernel, &segments, &entry);

	if (err)
		return err;
	err = boot_load_segments(memory, &image->kernel, &segments, entry, &end);
	if (!err)
		err = boot_set_cmdline(memory, image->cmdline, SIZE_MAX);
	if (!err)
		err = boot_load_initrd(memory, &image->initrd, end, LAYOUT_HOLE, &initrd);
	if (err)
		return err;
	multiboot_set_info(memory, &initrd);
	*ret_entry = (struct boot_entry){
		.rip = entry, .rax = MULTIBOOT_EAX, .rbx = LAYOUT_BOOT_PARAMS,
	};
	return 0;
}
