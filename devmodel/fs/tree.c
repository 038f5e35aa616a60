// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The process's root is the tree (userspace/lib/sandbox.c), so that nothing that is done by a path can
 * lead out of it. Here it is asked for once more, with each name: openat2() goes down from a directory
 * by one component, over no symbolic link, and to no other file system. So what is mounted below the
 * tree does not belong to it: a procfs would show, and let change, this process itself.
 *
 * Names are looked up without opening anything (O_PATH): that is harmless for devices, FIFOs and
 * sockets, which are shown and never opened. To open a regular file later, its name is of no use, as
 * it may be another file's by then. The descriptor is, by way of /proc/self/fd; the empty root has
 * no such thing, so that a descriptor of that folder is made before, as a mount of its own: "..", in
 * there, is the folder itself.
 *
 * A directory may be moved out of the tree by others while it is known here. Its own ".." is then
 * not below the tree's mount any more, and the kernel refuses to go there; so do we, from then on, to
 * go anywhere from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devmodel/fs/tree.h"

static int tree_openat2(int dir, const char *name, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };
	int fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

static int tree_down(int dir, const char *name, int flags, mode_t mode)
{
	return tree_openat2(dir, name, flags | O_NOFOLLOW, mode,
			    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

struct tree_name tree_name(int fd)
{
	struct tree_name name;

	snprintf(name.text, sizeof(name.text), "%d", fd);
	return name;
}

int tree_root(const char *path)
{
	return tree_openat2(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
}

int tree_within(int dir)
{
	int fd = tree_openat2(dir, "..", O_PATH, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int tree_find(int dir, const char *name)
{
	return tree_down(dir, name, O_PATH, 0);
}

int tree_create(int dir, const char *name, int flags, mode_t mode)
{
	return tree_down(dir, name, flags | O_CREAT | O_EXCL, mode);
}

int tree_open(int self, int fd, int flags)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISLNK(st.st_mode))
		return -ELOOP;
	if (!S_ISREG(st.st_mode))
		return -ENXIO;
	return tree_openat2(self, tree_name(fd).text, flags | O_NOCTTY, 0, 0);
}

int tree_open_directory(int fd)
{
	return tree_down(fd, ".", O_RDONLY | O_DIRECTORY, 0);
}

int tree_path(int self, int fd)
{
	return tree_openat2(self, tree_name(fd).text, O_PATH, 0, 0);
}
