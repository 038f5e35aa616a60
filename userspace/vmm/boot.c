// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Starting a kernel without firmware. There are three ways, and the image tells which it takes:
 * Linux's own, of a bzImage (boot_linux.c); PVH, of an ELF file with a note that says so (boot_pvh.c);
 * and multiboot, of a file with its header (boot_multiboot.c), whatever else it is.
 *
 * All of the image is somebody else's. It is read in the sandbox; each number in it is read once, and
 * checked before it is used. What the launcher itself puts into memory is below the first MiB, all
 * that an image asks for above.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define CR0_PE			0x00000001
#define CR0_ET			0x00000010
#define CR0_PG			0x80000000
#define CR4_PAE			0x00000020
#define EFER_LME		0x00000100
#define EFER_LMA		0x00000400

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

static int (*const boot_ways[])(const struct memory *memory, const struct boot_image *image,
				struct boot_entry *ret_entry) = {
	boot_linux_load, boot_pvh_load, boot_multiboot_load,
};

static int boot_refuse_unknown(const struct boot_file *file)
{
	char magic[SELFMAG];
	int err = boot_read(file, magic, sizeof(magic), 0);

	if (!err && !memcmp(magic, ELFMAG, SELFMAG))
		return boot_refuse(file, "is an ELF file that says no way to boot it: it has neither "
				   "a note for PVH nor a multiboot header");
	return boot_refuse(file, "is not a bzImage, nor made for PVH or multiboot; name a kernel as "
			   "/boot/vmlinuz-*");
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
	int err = BOOT_ANOTHER;

	for (unsigned int i = 0; i < ARRAY_SIZE(boot_ways) && err == BOOT_ANOTHER; i++)
		err = boot_ways[i](memory, image, ret_entry);
	if (err == BOOT_ANOTHER)
		err = boot_refuse_unknown(&image->kernel);
	if (!err)
		boot_set_reset_vector(memory);
	return err;
}

static void boot_set_segments(struct kvm_sregs *sregs, bool long_mode)
{
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = BOOT_GDT_DATA * 8, .type = 3, .present = 1,
		.db = 1, .s = 1, .g = 1,
	};

	sregs->cs = (struct kvm_segment){
		.limit = 0xffffffff, .selector = BOOT_GDT_CODE * 8, .type = 11, .present = 1,
		.s = 1, .l = long_mode, .db = !long_mode, .g = 1,
	};
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67, .selector = BOOT_GDT_TASK * 8, .type = 11, .present = 1,
	};
	sregs->idt.limit = 0;
}

static void boot_set_long_mode(struct kvm_sregs *sregs)
{
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = BOOT_GDT_SIZE - 1;
	sregs->cr0 |= CR0_PG;
	sregs->cr3 = LAYOUT_PAGE_TABLES;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
}

int boot_set_vcpu(int vcpu, const struct boot_entry *entry)
{
	struct kvm_regs regs = {
		.rip = entry->rip, .rax = entry->rax, .rbx = entry->rbx, .rsi = entry->rsi,
		.rflags = 2,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	boot_set_segments(&sregs, entry->long_mode);
	sregs.cr0 = CR0_PE | CR0_ET;
	if (entry->long_mode)
		boot_set_long_mode(&sregs);
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}
