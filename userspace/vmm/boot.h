/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include <stdint.h>

struct memory;

/**
 * struct boot_image - what a guest is started from
 * @kernel: path of a bzImage
 * @initrd: path, or NULL
 * @cmdline: the kernel's command line
 * @acpi_rsdp: where the ACPI tables start
 */
struct boot_image {
	const char *kernel;
	const char *initrd;
	const char *cmdline;
	uint64_t acpi_rsdp;
};

/**
 * struct boot_entry - the state of the boot processor, to be set by boot_set_vcpu()
 */
struct boot_entry {
	uint64_t rip;
	uint64_t rsi;
};

/* Fill guest memory. Says itself what failed. Return: 0 or a negative errno. */
int boot_load(const struct memory *memory, const struct boot_image *image,
	      struct boot_entry *ret_entry);

/* Put a vCPU of the kernel's into the state that the 64-bit boot protocol asks for. */
int boot_set_vcpu(int vcpu, const struct boot_entry *entry);

#endif /* VMM_BOOT_H */
