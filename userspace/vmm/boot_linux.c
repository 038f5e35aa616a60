// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Linux by the 64-bit boot protocol (Documentation/arch/x86/boot.rst): the protected-mode part of a
 * bzImage is loaded where it prefers, and entered in long mode, 512 bytes in, on identity-mapped
 * page tables, with the address of the boot parameters in RSI.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define BOOT_MAGIC		0x53726448	/* "HdrS" */
#define BOOT_PROTOCOL		0x020c
#define BOOT_FLAG		0xaa55
#define BOOT_SECTOR		512
#define BOOT_SETUP_DEFAULT	4
#define BOOT_ENTRY_64		0x200
#define BOOT_LOADER_OTHER	0xff
#define BOOT_PAGE		4096ULL
#define BOOT_HEADER		offsetof(struct boot_params, hdr)

#define GDT_CODE_64		0x00af9b000000ffffULL
#define GDT_DATA_32		0x00cf93000000ffffULL
#define GDT_TASK_64		0x00008b0000000067ULL

#define PTE_TABLE		0x03	/* present, writable */
#define PTE_LEAF		0x83	/* ... and large */
#define PAGE_TABLE_ENTRIES	512
#define PAGE_TABLE_GIB		4

/**
 * struct boot_kernel - a bzImage that has been looked at
 * @payload: offset of the protected-mode part in the file, of @size bytes
 * @base: where it goes
 * @end: the first byte that the kernel does not need to itself before it reads the memory map
 */
struct boot_kernel {
	struct setup_header header;
	uint64_t payload;
	uint64_t size;
	uint64_t base;
	uint64_t end;
};

/* The header ends where its jump at the start leads, in a kernel newer than this struct. */
static uint64_t boot_header_size(const struct setup_header *header)
{
	uint64_t size = offsetof(struct setup_header, jump) + 2 + (header->jump >> 8);

	return size < sizeof(*header) ? size : sizeof(*header);
}

static const char *boot_header_fault(const struct setup_header *header)
{
	if (header->version < BOOT_PROTOCOL || !(header->loadflags & LOADED_HIGH))
		return "is a kernel too old to be booted in 64-bit mode; it takes 3.8 or newer";
	if (!(header->xloadflags & XLF_KERNEL_64))
		return "is a 32-bit kernel; name a 64-bit one";
	return NULL;
}

static int boot_inspect(struct boot_kernel *kernel, const struct boot_file *file)
{
	struct setup_header *header = &kernel->header;
	unsigned int sectors;
	const char *fault;
	int err = boot_read(file, header, sizeof(*header), BOOT_HEADER);

	if (err)
		return err == -ENODATA ? BOOT_ANOTHER : err;
	if (header->boot_flag != BOOT_FLAG || header->header != BOOT_MAGIC)
		return BOOT_ANOTHER;
	fault = boot_header_fault(header);
	sectors = header->setup_sects ? header->setup_sects : BOOT_SETUP_DEFAULT;
	kernel->payload = (sectors + 1) * BOOT_SECTOR;
	if (!fault && file->size <= kernel->payload + BOOT_ENTRY_64)
		fault = "is cut short";
	if (fault)
		return boot_refuse(file, fault);
	kernel->size = file->size - kernel->payload;
	return 0;
}

/* Where the kernel goes, and whether there is room for it to unpack itself. */
static int boot_place(struct boot_kernel *kernel, const struct memory *memory,
		      const struct boot_file *file)
{
	uint64_t room = kernel->header.init_size;

	if (room < kernel->size)
		room = kernel->size;
	kernel->base = kernel->header.pref_address;
	kernel->end = kernel->base + room;
	return boot_check_room(memory, file, kernel->base, room);
}

static int boot_load_kernel(struct boot_kernel *kernel, const struct memory *memory,
			    const struct boot_file *file)
{
	int err = boot_inspect(kernel, file);

	if (!err)
		err = boot_place(kernel, memory, file);
	if (!err)
		err = boot_load_file(memory, file, kernel->base, kernel->size, kernel->payload);
	return err;
}

static void boot_set_e820(struct boot_params *params, const struct memory *memory)
{
	struct boot_range ranges[BOOT_RANGES];

	params->e820_entries = boot_ranges(memory, ranges);
	for (unsigned int i = 0; i < params->e820_entries; i++)
		params->e820_table[i] = (struct boot_e820_entry){
			.addr = ranges[i].start, .size = ranges[i].size, .type = ranges[i].type,
		};
}

static void boot_set_params(struct boot_params *params, const struct boot_kernel *kernel)
{
	memset(params, 0, sizeof(*params));
	memcpy(&params->hdr, &kernel->header, boot_header_size(&kernel->header));
	params->hdr.type_of_loader = BOOT_LOADER_OTHER;
	params->hdr.code32_start = kernel->base;
	params->hdr.vid_mode = 0xffff;		/* normal */
}

/* The first 4 GiB as they are, by 2 MiB pages. */
static void boot_set_page_tables(const struct memory *memory)
{
	uint64_t base = LAYOUT_PAGE_TABLES;
	uint64_t *table = memory_at(memory, base, (2 + PAGE_TABLE_GIB) * BOOT_PAGE);
	uint64_t *level3 = table + PAGE_TABLE_ENTRIES;
	uint64_t *level2 = level3 + PAGE_TABLE_ENTRIES;

	memset(table, 0, 2 * BOOT_PAGE);
	table[0] = (base + BOOT_PAGE) | PTE_TABLE;
	for (uint64_t i = 0; i < PAGE_TABLE_GIB; i++)
		level3[i] = (base + (2 + i) * BOOT_PAGE) | PTE_TABLE;
	for (uint64_t i = 0; i < PAGE_TABLE_GIB * PAGE_TABLE_ENTRIES; i++)
		level2[i] = i << 21 | PTE_LEAF;
}

static void boot_set_gdt(const struct memory *memory)
{
	uint64_t *gdt = memory_at(memory, LAYOUT_GDT, BOOT_GDT_SIZE);

	memset(gdt, 0, BOOT_GDT_SIZE);
	gdt[BOOT_GDT_CODE] = GDT_CODE_64;
	gdt[BOOT_GDT_DATA] = GDT_DATA_32;
	gdt[BOOT_GDT_TASK] = GDT_TASK_64;
}

int boot_linux_load(const struct memory *memory, const struct boot_image *image,
		    struct boot_entry *ret_entry)
{
	struct boot_params *params = memory_at(memory, LAYOUT_BOOT_PARAMS, sizeof(*params));
	struct boot_module initrd;
	struct boot_kernel kernel = { 0 };
	int err;

	err = boot_load_kernel(&kernel, memory, &image->kernel);
	if (err)
		return err;
	boot_set_params(params, &kernel);
	params->acpi_rsdp_addr = image->acpi_rsdp;
	boot_set_e820(params, memory);
	err = boot_set_cmdline(memory, image->cmdline, kernel.header.cmdline_size);
	if (!err)
		err = boot_load_initrd(memory, &image->initrd, kernel.end,
				       kernel.header.initrd_addr_max + 1ULL, &initrd);
	if (err)
		return err;
	params->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	params->hdr.ramdisk_image = initrd.base;
	params->hdr.ramdisk_size = initrd.size;
	boot_set_page_tables(memory);
	boot_set_gdt(memory);
	*ret_entry = (struct boot_entry){
		.long_mode = true, .rip = kernel.base + BOOT_ENTRY_64, .rsi = LAYOUT_BOOT_PARAMS,
	};
	return 0;
}
