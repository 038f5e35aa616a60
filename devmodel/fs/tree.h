/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* How files of the tree are reached: by one name at a time, and never out of it. tree.c tells how. */
#ifndef DEVMODEL_FS_TREE_H
#define DEVMODEL_FS_TREE_H

#include <sys/types.h>

/* What the descriptor @fd is called in /proc/self/fd. */
struct tree_name {
	char text[12];
};

struct tree_name tree_name(int fd);

/* Each returns a descriptor or a negative errno, but for tree_within(): 0 or that. */

/* The root, an absolute path. */
int tree_root(const char *path);

/* Is a directory still in the tree? -ENOENT where it was moved out, or may not be looked into. */
int tree_within(int dir);

/* What has a name in a directory, of any type: O_PATH. */
int tree_find(int dir, const char *name);

/* A new file, open by @flags. */
int tree_create(int dir, const char *name, int flags, mode_t mode);

/* What an O_PATH descriptor stands for, opened by @flags: only a regular file ever is. */
int tree_open(int self, int fd, int flags);

/* The same for a directory, to be read. */
int tree_open_directory(int fd);

/* Another descriptor for an open file: O_PATH. */
int tree_path(int self, int fd);

#endif /* DEVMODEL_FS_TREE_H */
