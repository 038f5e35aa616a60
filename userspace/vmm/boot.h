/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include <stdbool.h>
#include <stdint.h>

struct memory;

/* Open where there is a @path. */
struct boot_file {
	const char *path;
	int fd;
	uint64_t size;
};

/**
 * struct boot_image - what a guest is started from
 * @kernel: a bzImage, a PVH ELF kernel, or a multiboot kernel
 * @initrd: its path may be NULL
 * @cmdline: the kernel's command line
 * @acpi_rsdp: where the ACPI tables start
 */
struct boot_image {
	struct boot_file kernel;
	struct boot_file initrd;
	const char *cmdline;
	uint64_t acpi_rsdp;
};

/**
 * struct boot_entry - the state of the boot processor, to be set by boot_set_vcpu()
 * @long_mode: on the page tables and descriptors at LAYOUT_PAGE_TABLES and LAYOUT_GDT; else in 32-bit
 *	protected mode, without paging. Segments are flat in both.
 */
struct boot_entry {
	bool long_mode;
	uint64_t rip;
	uint64_t rax;
	uint64_t rbx;
	uint64_t rsi;
};

/* Open both files, and nothing more. Says itself what failed. Return: 0 or a negative errno. */
int boot_open(struct boot_image *image);

/* Fine after an open that failed, and a second time. */
void boot_close(struct boot_image *image);

/*
 * Fill guest memory, which is all zeroes but for the ACPI tables. Says itself what failed.
 * Return: 0 or a negative errno.
 */
int boot_load(const struct memory *memory, const struct boot_image *image,
	      struct boot_entry *ret_entry);

/* Put a vCPU of the kernel's into the state that the boot protocol asks for. */
int boot_set_vcpu(int vcpu, const struct boot_entry *entry);

#endif /* VMM_BOOT_H */
