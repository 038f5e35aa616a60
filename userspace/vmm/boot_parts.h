/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the ways to boot have in common, and each of them. For boot*.c only. */
#ifndef VMM_BOOT_PARTS_H
#define VMM_BOOT_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/vmm/boot.h"

struct memory;

/* Descriptors of a GDT, as Linux asks for them; a task's takes two entries. */
#define BOOT_GDT_CODE		2
#define BOOT_GDT_DATA		3
#define BOOT_GDT_TASK		4
#define BOOT_GDT_SIZE		(6 * sizeof(uint64_t))

/*
 * The ways, each in a file of its name. Return: 0 with all loaded but the reset vector; BOOT_ANOTHER
 * where the kernel is not of that kind, with nothing said; or a negative errno.
 */
#define BOOT_ANOTHER		1

int boot_linux_load(const struct memory *memory, const struct boot_image *image,
		    struct boot_entry *ret_entry);
int boot_pvh_load(const struct memory *memory, const struct boot_image *image,
		  struct boot_entry *ret_entry);
int boot_multiboot_load(const struct memory *memory, const struct boot_image *image,
			struct boot_entry *ret_entry);

/* Say what is wrong with that kernel. Return: -ENOEXEC. */
int boot_refuse(const struct boot_file *file, const char *fault);

/* Read from the kernel. Return: 0; -ENODATA, with nothing said, where it ends first; or a negative errno. */
int boot_read(const struct boot_file *file, void *to, size_t len, uint64_t offset);

/* Copy from the kernel to where boot_check_room() found room. */
int boot_load_file(const struct memory *memory, const struct boot_file *file, uint64_t gpa,
		   uint64_t len, uint64_t offset);

/*
 * Can a kernel have [base, base + room)? That is memory above the first MiB, where only it and the
 * initial RAM disk are, and below the hole. Return: 0, -ENOEXEC or -ENOMEM.
 */
int boot_check_room(const struct memory *memory, const struct boot_file *file, uint64_t base,
		    uint64_t room);

/* Both 0 where there is none. */
struct boot_module {
	uint64_t base;
	uint64_t size;
};

/* Put the initial RAM disk, if there is one, as high as it goes between @start and @top, on a page of its own. */
int boot_load_initrd(const struct memory *memory, const struct boot_file *file, uint64_t start,
		     uint64_t top, struct boot_module *ret);

/* At LAYOUT_CMDLINE; the kernel takes no more than @most bytes. */
int boot_set_cmdline(const struct memory *memory, const char *cmdline, size_t most);

/* The map of memory; all three have the numbers of types that firmware's E820 has. */
#define BOOT_RAM		1
#define BOOT_RESERVED		2
#define BOOT_RANGES		5

struct boot_range {
	uint64_t start;
	uint64_t size;
	uint32_t type;
};

/* Return: how many of @ranges[BOOT_RANGES] there are. */
unsigned int boot_ranges(const struct memory *memory, struct boot_range *ranges);

#endif /* VMM_BOOT_PARTS_H */
