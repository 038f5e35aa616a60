/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Finds shared libraries as glibc's dynamic loader does, see ld.so(8). */
#ifndef VMCTL_LIBRARY_H
#define VMCTL_LIBRARY_H

#include <stddef.h>

#define LIBRARY_CACHE	"/etc/ld.so.cache"

/* What /etc/ld.so.cache holds, and LD_LIBRARY_PATH as the guest will have it (NULL: none). */
struct library_index {
	char *cache;
	size_t cache_size;
	const char *path;
};

/* Without a cache there is just nothing in it. 0 or a negative errno. */
int library_index_init(struct library_index *index, const char *path);
void library_index_finish(struct library_index *index);

/* Who asks for a library: its directory is what $ORIGIN stands for. Paths may be NULL. */
struct library_user {
	const char *directory;
	const char *rpath;
	const char *runpath;
	const char *program_rpath;
};

/**
 * library_find - the files that the loader may take for a name
 * @visit: called for each, from the first place in the search that has any; which of these the
 *	loader takes may depend on the guest's CPU. Negative: stop, and return that
 *
 * Return: 0; -ENOENT where there is none; what @visit returned.
 */
int library_find(const struct library_index *index, const char *name,
		 const struct library_user *user, int (*visit)(void *arg, const char *path),
		 void *arg);

#endif /* VMCTL_LIBRARY_H */
