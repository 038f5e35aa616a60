// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Linux by the 64-bit boot protocol (Documentation/arch/x86/boot.rst): the protected-mode part of a
 * bzImage is loaded where it prefers, and entered in long mode, 512 bytes in, on identity-mapped
 * page tables, with the address of the boot parameters in RSI.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/boot.h"
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

#define GDT_CODE		2
#define GDT_DATA		3
#define GDT_TASK		4
#define GDT_CODE_64		0x00af9b000000ffffULL
#define GDT_DATA_32		0x00cf93000000ffffULL
#define GDT_TASK_64		0x00008b0000000067ULL

#define PTE_TABLE		0x03	/* present, writable */
#define PTE_LEAF		0x83	/* ... and large */
#define PAGE_TABLE_ENTRIES	512
#define PAGE_TABLE_GIB		4

#define CR0_PE			0x00000001
#define CR0_ET			0x00000010
#define CR0_PG			0x80000000
#define CR4_PAE			0x00000020
#define EFER_LME		0x00000100
#define EFER_LMA		0x00000400

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

static unsigned long long boot_mib(uint64_t bytes)
{
	return (bytes + (1 << 20) - 1) >> 20;
}

static int file_open(struct boot_file *file, const char *what)
{
	int err;

	file->fd = -1;
	if (!file->path)
		return 0;
	file->fd = fd_open(file->path, O_RDONLY);
	if (file->fd < 0) {
		log_error("cannot open %s %s: %s", what, file->path, strerror(-file->fd));
		return file->fd;
	}
	err = fd_size(file->fd, &file->size);
	if (err)
		log_error("%s %s is not a regular file", what, file->path);
	return err;
}

int boot_open(struct boot_image *image)
{
	int err = file_open(&image->kernel, "kernel");
	int also = file_open(&image->initrd, "initrd");

	if (!err && !also)
		return 0;
	boot_close(image);
	return err ? err : also;
}

void boot_close(struct boot_image *image)
{
	fd_close(image->kernel.fd);
	fd_close(image->initrd.fd);
	image->kernel.fd = -1;
	image->initrd.fd = -1;
}

static int file_load(const struct boot_file *file, const char *what, const struct memory *memory,
		     uint64_t gpa, uint64_t len, uint64_t offset)
{
	int err = memory_load(memory, gpa, len, file->fd, offset);

	if (err)
		log_error("cannot read %s %s: %s", what, file->path,
			  err == -ENODATA ? "it is cut short" : strerror(-err));
	return err;
}

/* The header ends where its jump at the start leads, in a kernel newer than this struct. */
static uint64_t boot_header_size(const struct setup_header *header)
{
	uint64_t size = offsetof(struct setup_header, jump) + 2 + (header->jump >> 8);

	return size < sizeof(*header) ? size : sizeof(*header);
}

static const char *boot_header_fault(const struct setup_header *header)
{
	if (header->boot_flag != BOOT_FLAG || header->header != BOOT_MAGIC)
		return "is not a bzImage; name a kernel as /boot/vmlinuz-*";
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
	int err;

	err = fd_pread_full(file->fd, header, sizeof(*header), BOOT_HEADER);
	if (err && err != -ENODATA) {
		log_error("cannot read kernel %s: %s", file->path, strerror(-err));
		return err;
	}
	fault = err ? "is not a bzImage; name a kernel as /boot/vmlinuz-*" :
		      boot_header_fault(header);
	sectors = header->setup_sects ? header->setup_sects : BOOT_SETUP_DEFAULT;
	kernel->payload = (sectors + 1) * BOOT_SECTOR;
	if (!fault && file->size <= kernel->payload)
		fault = "is cut short";
	if (fault) {
		log_error("kernel %s %s", file->path, fault);
		return -ENOEXEC;
	}
	kernel->size = file->size - kernel->payload;
	return 0;
}

/* Where the kernel goes, and whether there is room for it to unpack itself. */
static int boot_place(struct boot_kernel *kernel, const struct memory *memory, const char *path)
{
	uint64_t room = kernel->header.init_size;

	if (room < kernel->size)
		room = kernel->size;
	kernel->base = kernel->header.pref_address;
	if (kernel->base < LAYOUT_HIGH || kernel->base > LAYOUT_HOLE) {
		log_error("kernel %s wants to be loaded at %#llx, where no memory is", path,
			  (unsigned long long)kernel->base);
		return -ENOEXEC;
	}
	kernel->end = kernel->base + room;
	if (kernel->end > memory_low_end(memory)) {
		log_error("kernel %s needs at least %llu MiB of memory; give it more by --mem",
			  path, boot_mib(kernel->end));
		return -ENOMEM;
	}
	return 0;
}

static int boot_load_kernel(struct boot_kernel *kernel, const struct memory *memory,
			    const struct boot_file *file)
{
	int err = boot_inspect(kernel, file);

	if (!err)
		err = boot_place(kernel, memory, file->path);
	if (!err)
		err = file_load(file, "kernel", memory, kernel->base, kernel->size,
				kernel->payload);
	return err;
}

/* As high as the kernel can take it, out of the way of its unpacking. */
static int boot_place_initrd(const struct boot_kernel *kernel, const struct memory *memory,
			     const char *path, uint64_t size, uint64_t *ret_base)
{
	uint64_t top = memory_low_end(memory);
	uint64_t start = (kernel->end + BOOT_PAGE - 1) & ~(BOOT_PAGE - 1);

	if (top > kernel->header.initrd_addr_max + 1ULL)
		top = kernel->header.initrd_addr_max + 1ULL;
	top &= ~(BOOT_PAGE - 1);
	if (start > top || size > top - start) {
		log_error("initrd %s does not fit beside the kernel; raise --mem to %lluM", path,
			  boot_mib(start + size));
		return -ENOMEM;
	}
	*ret_base = (top - size) & ~(BOOT_PAGE - 1);
	return 0;
}

static int boot_load_initrd(const struct boot_kernel *kernel, const struct memory *memory,
			    const struct boot_file *file, struct boot_params *params)
{
	uint64_t base;
	int err = boot_place_initrd(kernel, memory, file->path, file->size, &base);

	if (!err && file->size)
		err = file_load(file, "initrd", memory, base, file->size, 0);
	if (!err) {
		params->hdr.ramdisk_image = base;
		params->hdr.ramdisk_size = file->size;
	}
	return err;
}

static int boot_set_cmdline(const struct boot_kernel *kernel, const struct memory *memory,
			    const char *cmdline, struct boot_params *params)
{
	size_t len = strlen(cmdline), most = kernel->header.cmdline_size;

	if (most > LAYOUT_LOW_END - LAYOUT_CMDLINE - 1)
		most = LAYOUT_LOW_END - LAYOUT_CMDLINE - 1;
	if (len > most) {
		log_error("the kernel's command line is %zu bytes long, %zu fit; shorten --append",
			  len, most);
		return -E2BIG;
	}
	memcpy(memory_at(memory, LAYOUT_CMDLINE, len + 1), cmdline, len + 1);
	params->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	return 0;
}

static void boot_add_e820(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
	params->e820_table[params->e820_entries++] = (struct boot_e820_entry){
		.addr = start, .size = end - start, .type = type,
	};
}

static void boot_set_e820(struct boot_params *params, const struct memory *memory)
{
	enum { E820_RAM = 1, E820_RESERVED = 2 };

	boot_add_e820(params, 0, LAYOUT_LOW_END, E820_RAM);
	boot_add_e820(params, LAYOUT_LOW_END, LAYOUT_HIGH, E820_RESERVED);
	boot_add_e820(params, LAYOUT_HIGH, memory_low_end(memory), E820_RAM);
	boot_add_e820(params, LAYOUT_ECAM, LAYOUT_ECAM + LAYOUT_ECAM_SIZE, E820_RESERVED);
	for (unsigned int i = 1; i < memory->map.count; i++) {
		const struct dev_region *region = &memory->map.region[i];

		boot_add_e820(params, region->gpa, region->gpa + region->size, E820_RAM);
	}
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
	uint64_t *gdt = memory_at(memory, LAYOUT_GDT, 6 * sizeof(*gdt));

	memset(gdt, 0, 6 * sizeof(*gdt));
	gdt[GDT_CODE] = GDT_CODE_64;
	gdt[GDT_DATA] = GDT_DATA_32;
	gdt[GDT_TASK] = GDT_TASK_64;
}

/*
 * All the firmware there is: the entry of a PC's, where kernels jump to for a reset when they know
 * no better, in real mode. On a hardware-reduced machine without EFI, Linux knows no better. It
 * writes the reset register.
 */
static void boot_set_reset_vector(const struct memory *memory)
{
	static const uint8_t code[] = {
		0xb0, 0x01,						/* mov $1, %al */
		0xba, LAYOUT_PORT_RESET & 0xff, LAYOUT_PORT_RESET >> 8,	/* mov $port, %dx */
		0xee,							/* out %al, (%dx) */
		0xf4,							/* hlt */
		0xeb, 0xfd,						/* jmp to the hlt */
	};

	memcpy(memory_at(memory, LAYOUT_RESET_VECTOR, sizeof(code)), code, sizeof(code));
}

int boot_load(const struct memory *memory, const struct boot_image *image,
	      struct boot_entry *ret_entry)
{
	struct boot_params *params = memory_at(memory, LAYOUT_BOOT_PARAMS, sizeof(*params));
	struct boot_kernel kernel = { 0 };
	int err;

	err = boot_load_kernel(&kernel, memory, &image->kernel);
	if (err)
		return err;
	boot_set_params(params, &kernel);
	params->acpi_rsdp_addr = image->acpi_rsdp;
	boot_set_e820(params, memory);
	err = boot_set_cmdline(&kernel, memory, image->cmdline, params);
	if (!err && image->initrd.path)
		err = boot_load_initrd(&kernel, memory, &image->initrd, params);
	if (err)
		return err;
	boot_set_page_tables(memory);
	boot_set_gdt(memory);
	boot_set_reset_vector(memory);
	ret_entry->rip = kernel.base + BOOT_ENTRY_64;
	ret_entry->rsi = LAYOUT_BOOT_PARAMS;
	return 0;
}

static void boot_set_segments(struct kvm_sregs *sregs)
{
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = GDT_DATA * 8, .type = 3, .present = 1,
		.db = 1, .s = 1, .g = 1,
	};

	sregs->cs = (struct kvm_segment){
		.limit = 0xffffffff, .selector = GDT_CODE * 8, .type = 11, .present = 1,
		.s = 1, .l = 1, .g = 1,
	};
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67, .selector = GDT_TASK * 8, .type = 11, .present = 1,
	};
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = 6 * sizeof(uint64_t) - 1;
	sregs->idt.limit = 0;
}

int boot_set_vcpu(int vcpu, const struct boot_entry *entry)
{
	struct kvm_regs regs = { .rip = entry->rip, .rsi = entry->rsi, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	boot_set_segments(&sregs);
	sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
	sregs.cr3 = LAYOUT_PAGE_TABLES;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}
