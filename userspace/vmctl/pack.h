/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A guest's root file system, put together from the host's files. Each file is in there at the path
 * that it has on the host, with all symbolic links on the way, so that what finds it here finds it
 * there. The first to come to a path stays.
 */
#ifndef VMCTL_PACK_H
#define VMCTL_PACK_H

#include <limits.h>
#include <stdbool.h>

#include "userspace/vmctl/cpio.h"

struct pack {
	struct cpio cpio;
	char **paths;
	size_t count;
	size_t room;
};

int pack_init(struct pack *pack);
void pack_finish(struct pack *pack);

/**
 * pack_host - a file or directory of the host's (the directory itself, not what is in it)
 * @ret_real: its path without links; PATH_MAX bytes
 *
 * Return: 1 when it is new, 0 when it was in there, or a negative errno.
 */
int pack_host(struct pack *pack, const char *path, char *ret_real);

/* What is made for the guest; its directory must be in there. 0 or a negative errno. */
int pack_directory(struct pack *pack, const char *path, mode_t mode);
int pack_link(struct pack *pack, const char *path, const char *target);
int pack_data(struct pack *pack, const char *path, mode_t mode, const void *data, size_t len);

/* The host's file @fd at another path. */
int pack_file_as(struct pack *pack, const char *path, int fd);

#endif /* VMCTL_PACK_H */
