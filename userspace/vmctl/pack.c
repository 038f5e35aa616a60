// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmctl/pack.h"

#define PACK_LINKS_MAX	40

int pack_init(struct pack *pack)
{
	*pack = (struct pack){ 0 };
	return cpio_init(&pack->cpio);
}

void pack_finish(struct pack *pack)
{
	for (size_t i = 0; i < pack->count; i++)
		free(pack->paths[i]);
	free(pack->paths);
	cpio_abandon(&pack->cpio);
}

static bool pack_has(const struct pack *pack, const char *path)
{
	for (size_t i = 0; i < pack->count; i++)
		if (!strcmp(pack->paths[i], path))
			return true;
	return false;
}

/* 1: the path is new, and is the caller's to add. */
static int pack_claim(struct pack *pack, const char *path)
{
	char *copy;

	if (pack_has(pack, path))
		return 0;
	if (pack->count == pack->room) {
		size_t room = pack->room ? 2 * pack->room : 256;
		char **paths = realloc(pack->paths, room * sizeof(*paths));

		if (!paths)
			return -ENOMEM;
		pack->paths = paths;
		pack->room = room;
	}
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	pack->paths[pack->count++] = copy;
	return 1;
}

int pack_directory(struct pack *pack, const char *path, mode_t mode)
{
	int new = pack_claim(pack, path);

	return new > 0 ? cpio_add_directory(&pack->cpio, path, mode) : new;
}

int pack_link(struct pack *pack, const char *path, const char *target)
{
	int new = pack_claim(pack, path);

	return new > 0 ? cpio_add_link(&pack->cpio, path, target) : new;
}

int pack_data(struct pack *pack, const char *path, mode_t mode, const void *data, size_t len)
{
	int new = pack_claim(pack, path);

	return new > 0 ? cpio_add_data(&pack->cpio, path, mode, data, len) : new;
}

int pack_file_as(struct pack *pack, const char *path, int fd)
{
	int new = pack_claim(pack, path);

	return new > 0 ? cpio_add_file(&pack->cpio, path, fd) : new;
}

static int pack_file(struct pack *pack, const char *path)
{
	int err, fd, new = pack_claim(pack, path);

	if (new <= 0)
		return new;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = cpio_add_file(&pack->cpio, path, fd);
	close(fd);
	return err ? err : 1;
}

/**
 * struct walk - along a path
 * @done: what is behind, without links; "" is the root
 * @todo: what is ahead
 */
struct walk {
	char done[PATH_MAX];
	char todo[PATH_MAX];
	unsigned int links;
};

/* The next component of @todo into @name. False at its end. */
static bool walk_next(struct walk *walk, char *name)
{
	char *at = walk->todo + strspn(walk->todo, "/");
	size_t len = strcspn(at, "/");

	if (!len || len > NAME_MAX)
		return false;
	memcpy(name, at, len);
	name[len] = '\0';
	memmove(walk->todo, at + len, strlen(at + len) + 1);
	return true;
}

/* What is ahead of it now is the link's target. */
static int walk_follow(struct walk *walk, struct pack *pack, const char *path)
{
	char target[PATH_MAX], todo[PATH_MAX];
	ssize_t len = readlink(path, target, sizeof(target) - 1);
	int err;

	if (len < 0)
		return -errno;
	target[len] = '\0';
	if (++walk->links > PACK_LINKS_MAX)
		return -ELOOP;
	err = pack_link(pack, path, target);
	if (err < 0)
		return err;
	if (snprintf(todo, sizeof(todo), "%s/%s", target, walk->todo) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(walk->todo, todo);
	if (target[0] == '/')
		walk->done[0] = '\0';
	return 0;
}

static int walk_step(struct walk *walk, struct pack *pack, const char *name)
{
	char path[PATH_MAX];
	struct stat st;
	int new;

	if (!strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) {
		char *last = strrchr(walk->done, '/');

		if (last)
			*last = '\0';
		return 0;
	}
	if (snprintf(path, sizeof(path), "%s/%s", walk->done, name) >= PATH_MAX)
		return -ENAMETOOLONG;
	if (lstat(path, &st))
		return -errno;
	if (S_ISLNK(st.st_mode))
		return walk_follow(walk, pack, path);
	if (S_ISDIR(st.st_mode))
		new = pack_directory(pack, path, st.st_mode & 07777);
	else
		new = S_ISREG(st.st_mode) ? pack_file(pack, path) : -EINVAL;
	strcpy(walk->done, path);
	return new;
}

int pack_host(struct pack *pack, const char *path, char *ret_real)
{
	struct walk walk = { .done = "" };
	char name[NAME_MAX + 1];
	int new = 0;

	if (strlen(path) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(walk.todo, path);
	while (new >= 0 && walk_next(&walk, name))
		new = walk_step(&walk, pack, name);
	if (new < 0)
		return new;
	if (walk.todo[strspn(walk.todo, "/")])
		return -ENAMETOOLONG;
	strcpy(ret_real, walk.done[0] ? walk.done : "/");
	return new;
}
