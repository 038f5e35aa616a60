// SPDX-License-Identifier: MIT OR GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/definition.h"
#include "userspace/moatd/store.h"

#define STORE_SUFFIX	".yaml"
#define STORE_NEW	".new-"		/* no machine's name begins so */
#define STORE_MARK	".mark-"

static void file_name(char *file, size_t room, const char *prefix, const char *name)
{
	snprintf(file, room, "%s%s" STORE_SUFFIX, prefix, name);
}

/* Cuts the suffix off; false: it is no definition's. */
static bool file_is_definition(char *file)
{
	const size_t len = strlen(file), suffix = strlen(STORE_SUFFIX);

	if (len <= suffix || strcmp(file + len - suffix, STORE_SUFFIX))
		return false;
	file[len - suffix] = '\0';
	return definition_name_valid(file);
}

int store_list(int dir, void (*each)(void *arg, const char *name), void *arg)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	if (!list) {
		const int err = -errno;

		fd_close(copy);
		return err;
	}
	while ((entry = readdir(list))) {
		if (!strncmp(entry->d_name, STORE_NEW, strlen(STORE_NEW)))
			unlinkat(dir, entry->d_name, 0);
		else if (file_is_definition(entry->d_name))
			each(arg, entry->d_name);
	}
	closedir(list);
	return 0;
}

static int file_read(int fd, char **ret_text, size_t *ret_len)
{
	uint64_t size;
	char *text;
	int err = fd_size(fd, &size);

	if (!err && size > DEFINITION_TEXT_MAX)
		err = -EFBIG;
	if (err)
		return err;
	text = malloc(size + 1);
	if (!text)
		return -ENOMEM;
	err = fd_pread_full(fd, text, size, 0);
	if (err) {
		free(text);
		return err;
	}
	text[size] = '\0';
	*ret_text = text;
	*ret_len = size;
	return 0;
}

int store_load(int dir, const char *name, char **ret_text, size_t *ret_len)
{
	char file[DEFINITION_NAME + 16];
	int err, fd;

	file_name(file, sizeof(file), "", name);
	fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	err = file_read(fd, ret_text, ret_len);
	close(fd);
	return err;
}

static int file_write(int dir, const char *file, const char *text)
{
	int err, fd = openat(dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	err = fd_write_full(fd, text, strlen(text));
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	return err;
}

int store_save(int dir, const char *name, const char *text)
{
	char file[DEFINITION_NAME + 16], new[DEFINITION_NAME + 16];
	int err;

	file_name(file, sizeof(file), "", name);
	file_name(new, sizeof(new), STORE_NEW, name);
	err = file_write(dir, new, text);
	if (!err && renameat(dir, new, dir, file))
		err = -errno;
	if (err) {
		unlinkat(dir, new, 0);
		return err;
	}
	return fsync(dir) ? -errno : 0;
}

int store_remove(int dir, const char *name)
{
	char file[DEFINITION_NAME + 16];

	file_name(file, sizeof(file), "", name);
	return unlinkat(dir, file, 0) || fsync(dir) ? -errno : 0;
}

void store_mark(int dir, const char *name, bool marked)
{
	char file[DEFINITION_NAME + 16];

	snprintf(file, sizeof(file), STORE_MARK "%s", name);
	if (marked)
		fd_close(openat(dir, file, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
	else
		unlinkat(dir, file, 0);
}

bool store_marked(int dir, const char *name)
{
	char file[DEFINITION_NAME + 16];
	int fd;

	snprintf(file, sizeof(file), STORE_MARK "%s", name);
	fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	fd_close(fd);
	return fd >= 0;
}
