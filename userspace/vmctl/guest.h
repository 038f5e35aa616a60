/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The initramfs of a guest that runs one of the host's programs. */
#ifndef VMCTL_GUEST_H
#define VMCTL_GUEST_H

#include <stddef.h>

#include "userspace/vmctl/kernel.h"

/**
 * struct guest - what goes into it
 * @argv: the command, NULL-terminated
 * @env: NAME=value, or NAME for the caller's value; beats what is passed anyway
 * @types: of its devices, each with a comma after it: "blk,net,"
 * @terminals: as session_terminals() has it
 */
struct guest {
	const struct kernel *kernel;
	char **argv;
	char **env;
	size_t env_count;
	const char *types;
	const char *terminals;
};

/*
 * Return: a descriptor of the initramfs. Else, after a line: -ENOENT and -EACCES where that is the
 * command itself, -EIO for all else.
 */
int guest_pack(const struct guest *guest);

#endif /* VMCTL_GUEST_H */
