/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The reader of ELF kernels, of 32 and of 64 bits. For boot*.c only. */
#ifndef VMM_BOOT_ELF_H
#define VMM_BOOT_ELF_H

#include <elf.h>
#include <stdint.h>

#include "userspace/vmm/boot_segments.h"

struct boot_file;

/* Its headers, in the form for 64 bits. Of what they say, only the count is checked. */
struct boot_elf {
	Elf64_Ehdr header;
	Elf64_Phdr program[BOOT_SEGMENTS];
};

/* Return: 0; BOOT_ANOTHER for what is no ELF file, with nothing said; or a negative errno. */
int boot_elf_read(struct boot_elf *elf, const struct boot_file *file);

/* What there is to be loaded. */
void boot_elf_segments(const struct boot_elf *elf, struct boot_segments *ret);

/*
 * The number, of 4 or 8 bytes, in the first note of that name and type. Return: 0; BOOT_ANOTHER
 * where there is none, with nothing said; or a negative errno.
 */
int boot_elf_find_note(const struct boot_elf *elf, const struct boot_file *file, const char *name,
		       uint32_t type, uint64_t *ret);

#endif /* VMM_BOOT_ELF_H */
