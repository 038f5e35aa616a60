// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * PVH (Xen's docs/misc/pvh.pandoc, "x86/HVM direct boot ABI", and its public header
 * arch-x86/hvm/start_info.h): an ELF kernel that gives a physical entry in a note of Xen's. It is
 * entered in 32-bit protected mode, without paging, with the address of the start info in EBX. What
 * it has for a GDT is unspecified. Linux has the note with CONFIG_PVH, in its vmlinux.
 */
#include <assert.h>
#include <string.h>

#include "userspace/vmm/boot_elf.h"
#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define PVH_NOTE_NAME	"Xen"
#define PVH_NOTE_ENTRY	18		/* XEN_ELFNOTE_PHYS32_ENTRY */
#define PVH_MAGIC	0x336ec578	/* "xEn3", the E with its highest bit set */
#define PVH_VERSION	1		/* with the map of memory */

struct pvh_module {
	uint64_t base;
	uint64_t size;
	uint64_t cmdline;
	uint64_t reserved;
};

struct pvh_range {
	uint64_t start;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

/* The start info, and what it points to. */
struct pvh_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t module_count;
	uint64_t modules;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t ranges;
	uint32_t range_count;
	uint32_t reserved;

	struct pvh_module module;
	struct pvh_range range[BOOT_RANGES];
};

static_assert(offsetof(struct pvh_info, module) == 56, "the ABI's size");
static_assert(sizeof(struct pvh_info) <= LAYOUT_PAGE_TABLES - LAYOUT_BOOT_PARAMS, "room");

#define PVH_ADDRESS(member)	(LAYOUT_BOOT_PARAMS + offsetof(struct pvh_info, member))

static void pvh_set_info(const struct memory *memory, const struct boot_module *initrd,
			 uint64_t rsdp)
{
	struct pvh_info *info = memory_at(memory, LAYOUT_BOOT_PARAMS, sizeof(*info));
	struct boot_range ranges[BOOT_RANGES];

	*info = (struct pvh_info){
		.magic = PVH_MAGIC, .version = PVH_VERSION, .cmdline = LAYOUT_CMDLINE,
		.rsdp = rsdp, .ranges = PVH_ADDRESS(range),
		.range_count = boot_ranges(memory, ranges),
	};
	for (unsigned int i = 0; i < info->range_count; i++)
		info->range[i] = (struct pvh_range){
			.start = ranges[i].start, .size = ranges[i].size, .type = ranges[i].type,
		};
	if (!initrd->size)
		return;
	info->module_count = 1;
	info->modules = PVH_ADDRESS(module);
	info->module = (struct pvh_module){ .base = initrd->base, .size = initrd->size };
}

int boot_pvh_load(const struct memory *memory, const struct boot_image *image,
		  struct boot_entry *ret_entry)
{
	struct boot_segments segments;
	struct boot_module initrd;
	struct boot_elf elf;
	uint64_t entry, end;
	int err = boot_elf_read(&elf, &image->kernel);

	if (!err)
		err = boot_elf_find_note(&elf, &image->kernel, PVH_NOTE_NAME, PVH_NOTE_ENTRY,
					 &entry);
	if (err)
		return err;
	boot_elf_segments(&elf, &segments);
	err = boot_load_segments(memory, &image->kernel, &segments, entry, &end);
	if (!err)
		err = boot_set_cmdline(memory, image->cmdline, SIZE_MAX);
	if (!err)
		err = boot_load_initrd(memory, &image->initrd, end, LAYOUT_HOLE, &initrd);
	if (err)
		return err;
	pvh_set_info(memory, &initrd, image->acpi_rsdp);
	*ret_entry = (struct boot_entry){ .rip = entry, .rbx = LAYOUT_BOOT_PARAMS };
	return 0;
}
