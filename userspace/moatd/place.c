// SPDX-License-Identifier: MIT OR GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/text.h"
#include "userspace/moatd/keeper.h"
#include "userspace/moatd/place.h"

#define PLACE_ALL	"machines"
#define PLACE_ENDED	"ended"
#define PLACE_UID	"uid"

/* Of the directory of all, or of one machine, or of what is in there. */
static void place_path(const struct keeper_options *options, const char *name, const char *file,
		       char *ret)
{
	snprintf(ret, PATH_MAX, "%s/" PLACE_ALL "%s%s%s%s", options->run, name ? "/" : "",
		 name ? name : "", file ? "/" : "", file ? file : "");
}

int place_init(const struct keeper_options *options)
{
	char path[PATH_MAX];

	place_path(options, NULL, NULL, path);
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int place_list(const struct keeper_options *options,
	       void (*each)(void *arg, const char *name), void *arg)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *list;

	place_path(options, NULL, NULL, path);
	list = opendir(path);
	if (!list)
		return -errno;
	while ((entry = readdir(list)))
		if (definition_name_valid(entry->d_name))
			each(arg, entry->d_name);
	closedir(list);
	return 0;
}

/* Users */

struct taken {
	const struct keeper_options *options;
	uint8_t *is;	/* one for each user that there may be */
};

static void uid_taken(void *arg, const char *name)
{
	const struct taken *taken = arg;
	const struct keeper_options *options = taken->options;
	char path[PATH_MAX], text[16] = "";
	uint64_t uid;
	int fd;

	place_path(options, name, PLACE_UID, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0 &&
	    !parse_uint(text, options->uid_first, options->uid_first + options->uid_count - 1ULL, &uid))
		taken->is[uid - options->uid_first] = 1;
	close(fd);
}

static int uid_write(const struct keeper_options *options, const char *name, uint32_t uid)
{
	char path[PATH_MAX], text[16];
	int err, fd;

	place_path(options, name, PLACE_UID, path);
	snprintf(text, sizeof(text), "%u", uid);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = fd_write_full(fd, text, strlen(text));
	close(fd);
	return err;
}

/* The caller has the lock. */
static int uid_choose(const struct keeper_options *options, const char *name, uint32_t *ret_uid)
{
	struct taken taken = { options, calloc(options->uid_count, 1) };
	uint32_t i = 0;
	int err;

	if (!taken.is)
		return -ENOMEM;
	err = place_list(options, uid_taken, &taken);
	while (i < options->uid_count && taken.is[i])
		i++;
	free(taken.is);
	if (err || i == options->uid_count)
		return err ? err : -ENOSPC;
	err = uid_write(options, name, options->uid_first + i);
	if (!err)
		*ret_uid = options->uid_first + i;
	return err;
}

int place_create(const struct keeper_options *options, const char *name, uint32_t *ret_uid)
{
	char all[PATH_MAX], path[PATH_MAX];
	int err = 0, lock;

	place_path(options, NULL, NULL, all);
	place_path(options, name, NULL, path);
	lock = open(all, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0)
		return -errno;
	if (flock(lock, LOCK_EX) || mkdir(path, 0700))
		err = -errno;
	if (!err) {
		err = uid_choose(options, name, ret_uid);
		if (err)
			place_remove(options, name);
	}
	close(lock);
	return err;
}

/* Sockets */

static int place_address(const struct keeper_options *options, const char *name,
			 const char *socket, struct sockaddr_un *ret)
{
	char path[PATH_MAX];

	place_path(options, name, socket, path);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret->sun_path, path);
	return 0;
}

int place_listen(const struct keeper_options *options, const char *name, const char *socket_name)
{
	struct sockaddr_un address;
	int err = place_address(options, name, socket_name, &address), fd;

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, 8))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int place_connect(const struct keeper_options *options, const char *name, const char *socket_name)
{
	struct sockaddr_un address;
	int err = place_address(options, name, socket_name, &address), fd;

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* The end */

int place_open_ended(const struct keeper_options *options, const char *name)
{
	char path[PATH_MAX];
	int fd;

	place_path(options, name, PLACE_ENDED, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int place_ended(const struct keeper_options *options, const char *name, struct control_ended *ret)
{
	int fd = place_open_ended(options, name);

	if (fd < 0)
		return fd;
	memset(ret, 0, sizeof(*ret));
	if (pread(fd, ret, sizeof(*ret), 0) != sizeof(*ret) || ret->end > CONTROL_END_FAILED)
		memset(ret, 0, sizeof(*ret));
	ret->text[sizeof(ret->text) - 1] = '\0';
	text_clean(ret->text, strlen(ret->text));
	close(fd);
	return 0;
}

void place_mark_asked(const struct keeper_options *options, const char *name)
{
	const struct control_ended asked = { .end = CONTROL_END_ASKED };
	struct control_ended ended;
	int fd;

	if (place_ended(options, name, &ended) || ended.end)
		return;
	fd = place_open_ended(options, name);
	if (fd < 0)
		return;
	fd_write_full(fd, &asked, sizeof(asked));
	close(fd);
}

int place_remove(const struct keeper_options *options, const char *name)
{
	static const char *const files[] = {
		PLACE_CONTROL, PLACE_SUPERVISOR, PLACE_ENDED, PLACE_UID, NULL,
	};
	char path[PATH_MAX];

	for (unsigned int i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		place_path(options, name, files[i], path);
		if (files[i] ? unlink(path) : rmdir(path))
			if (errno != ENOENT)
				return -errno;
	}
	return 0;
}
