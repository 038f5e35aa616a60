/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* An initramfs being written: a "newc" cpio archive (Documentation/driver-api/early-userspace). */
#ifndef VMCTL_CPIO_H
#define VMCTL_CPIO_H

#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>

struct cpio {
	FILE *out;
	unsigned int entries;
};

/* All return 0 or a negative errno. A @path is absolute; one must come after its directory. */
int cpio_init(struct cpio *cpio);
int cpio_add_directory(struct cpio *cpio, const char *path, mode_t mode);
int cpio_add_link(struct cpio *cpio, const char *path, const char *target);
int cpio_add_data(struct cpio *cpio, const char *path, mode_t mode, const void *data, size_t len);

/* A file's contents; -EIO where it has become shorter meanwhile. */
int cpio_add_file(struct cpio *cpio, const char *path, int fd);

/* Return: a descriptor of the whole archive, read from its start, or a negative errno. */
int cpio_finish(struct cpio *cpio);

/* Instead of cpio_finish(), also after it. */
void cpio_abandon(struct cpio *cpio);

#endif /* VMCTL_CPIO_H */
