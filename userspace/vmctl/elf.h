/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What an x86-64 program or library asks of the dynamic loader.
 *
 * vmctl reads that itself rather than have the loader list it: the loader maps what it lists, as
 * the file says, into its own process, and a program that somebody wants in a machine of its own is
 * not to be given that here.
 */
#ifndef VMCTL_ELF_H
#define VMCTL_ELF_H

#include <limits.h>

#define ELF_NEEDED_MAX	512

/**
 * struct elf - strings are NULL where there are none
 * @interp: the loader
 * @rpath: directories to search for what is needed; counts only without @runpath
 */
struct elf {
	char *interp;
	char *rpath;
	char *runpath;
	char *needed[ELF_NEEDED_MAX];
	unsigned int needed_count;
};

/**
 * elf_read - read from a file, which may be anything
 * Return: 0; -ENOEXEC for no ELF file; -ENOTSUP for one of another machine; -EINVAL for a broken
 * one; another negative errno. There is something to free only after 0.
 */
int elf_read(int fd, struct elf *ret);

void elf_free(struct elf *elf);

#endif /* VMCTL_ELF_H */
