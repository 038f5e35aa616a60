/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A program of the host's: where it is, and what it needs to run elsewhere. */
#ifndef VMCTL_PROGRAM_H
#define VMCTL_PROGRAM_H

#include <limits.h>

#include "userspace/vmctl/pack.h"

/**
 * program_find - as a shell does: by PATH, or a path as it is
 * @ret: its absolute path, PATH_MAX bytes
 *
 * Return: 0; -ENOENT; -EACCES for what is there but cannot be executed; -ENAMETOOLONG.
 */
int program_find(const char *name, char *ret);

/**
 * program_pack - a program with the loader and libraries, or interpreter, that it names
 * @library_path: LD_LIBRARY_PATH of the guest, or NULL
 *
 * Return: 0 or a negative errno, after a line that says what is wrong.
 */
int program_pack(struct pack *pack, const char *path, const char *library_path);

/* A busybox at its path, with a link for each command that has no other program. 0 or an errno. */
int program_pack_busybox(struct pack *pack);

#endif /* VMCTL_PROGRAM_H */
