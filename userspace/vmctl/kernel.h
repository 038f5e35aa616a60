/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The kernel that a guest boots, and its modules. */
#ifndef VMCTL_KERNEL_H
#define VMCTL_KERNEL_H

#include <limits.h>

#define KERNEL_VERSION_MAX	128

/**
 * struct kernel - a kernel that was found
 * @fd: its file
 * @version: as uname -r will say in the guest; "" where the file does not tell
 */
struct kernel {
	int fd;
	char path[PATH_MAX];
	char version[KERNEL_VERSION_MAX];
};

/*
 * The named one; without a name the host's own, else $MOAT_KERNEL, else that of the build tree
 * which vmctl is in. 0 or a negative errno, after a line that says what is wrong.
 */
int kernel_open(const char *named, struct kernel *ret);

/*
 * Its lib/modules/VERSION: below or at $MOAT_MODULES, the host's, or beside the kernel. 0 or a
 * negative errno, after a line that says what is wrong.
 */
int kernel_modules(const struct kernel *kernel, char *ret);

#endif /* VMCTL_KERNEL_H */
