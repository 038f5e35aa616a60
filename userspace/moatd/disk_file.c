// SPDX-License-Identifier: MIT OR GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/moatd/disk_file.h"

/* No disk's name begins like it. */
#define NEW_PREFIX	".new-"

static const char *const disk_suffix[] = { [DISK_RAW] = "raw", [DISK_QCOW2] = "qcow2" };

int disk_fail(char *why, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, DISK_WHY, format, args);
	va_end(args);
	return err;
}

static bool name_has(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int disk_name_check(const char *name)
{
	const size_t length = strnlen(name, DISK_NAME_MAX + 1);

	if (!name_has(*name) || length > DISK_NAME_MAX)
		return -EINVAL;
	for (size_t i = 1; i < length; i++)
		if (!name_has(name[i]) && !strchr("-_.", name[i]))
			return -EINVAL;
	return 0;
}

void disk_file_name(char *ret, const char *name, const char *snapshot, enum disk_format format)
{
	snprintf(ret, DISK_FILE, "%.*s%s%.*s.%s", DISK_NAME_MAX, name, snapshot ? "@" : "",
		 DISK_NAME_MAX, snapshot ? snapshot : "", disk_suffix[format]);
}

/* What was locked may have been deleted, or replaced, before it was. */
bool disk_is_current(const struct disk_file *disk)
{
	struct stat named, open;

	return !fstatat(disk->dir, disk->file, &named, AT_SYMLINK_NOFOLLOW) &&
	       !fstat(disk->fd, &open) && named.st_ino == open.st_ino &&
	       named.st_dev == open.st_dev;
}

static int file_lock(const struct disk_file *disk)
{
	int err = lock_take(disk->fd, false);

	return !err && !disk_is_current(disk) ? -EAGAIN : err;
}

int disk_find(int dir, const char *name, int flags, struct disk_file *ret, char *why)
{
	*ret = (struct disk_file){ .dir = dir, .fd = -1 };
	if (disk_name_check(name))
		return disk_fail(why, -EINVAL, "not a name of a disk");
	for (ret->format = DISK_RAW; ret->format <= DISK_QCOW2; ret->format++) {
		disk_file_name(ret->file, name, NULL, ret->format);
		ret->fd = openat(dir, ret->file, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (ret->fd >= 0 || errno != ENOENT)
			break;
	}
	return ret->fd >= 0 ? 0 : disk_fail(why, -errno, "disk %s: %s", name, strerror(errno));
}

int disk_take(int dir, const char *name, struct disk_file *ret, char *why)
{
	int err = disk_find(dir, name, O_RDWR, ret, why);

	if (err)
		return err;
	err = file_lock(ret);
	if (!err)
		return 0;
	close(ret->fd);
	return err == -EAGAIN ? disk_fail(why, -EBUSY, "disk %s is in use", name) :
				disk_fail(why, err, "disk %s: it cannot be locked: %s", name, strerror(-err));
}

int disk_new(int dir, uid_t owner, struct disk_file *ret, char *why)
{
	uint64_t number;
	int err;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return disk_fail(why, -EIO, "no random number for a name");
	*ret = (struct disk_file){ .dir = dir };
	snprintf(ret->file, sizeof(ret->file), NEW_PREFIX "%016" PRIx64, number);
	ret->fd = openat(dir, ret->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (ret->fd < 0)
		return disk_fail(why, -errno, "no new file: %s", strerror(errno));
	err = file_lock(ret);
	if (!err && fchown(ret->fd, owner, -1))
		err = -errno;
	if (!err)
		return 0;
	disk_drop(ret);
	return disk_fail(why, err, "a new file cannot be given to its owner: %s", strerror(-err));
}

/* Not even one of the other format may have the name: who publishes does so alone. */
static int publish_new(const struct disk_file *disk, const char *file)
{
	const size_t stem = strrchr(file, '.') - file;
	struct stat st;

	for (size_t i = 0; i < sizeof(disk_suffix) / sizeof(disk_suffix[0]); i++) {
		char other[DISK_FILE];

		snprintf(other, sizeof(other), "%.*s.%s", (int)stem, file, disk_suffix[i]);
		if (!fstatat(disk->dir, other, &st, AT_SYMLINK_NOFOLLOW))
			return -EEXIST;
	}
	return renameat2(disk->dir, disk->file, disk->dir, file, RENAME_NOREPLACE) ? -errno : 0;
}

static int publish(const struct disk_file *disk, const char *file, bool replace)
{
	int alone = openat(disk->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (alone < 0 || fsync(disk->fd) || flock(alone, LOCK_EX))
		err = -errno;
	if (!err && !replace)
		err = publish_new(disk, file);
	else if (!err && renameat(disk->dir, disk->file, disk->dir, file))
		err = -errno;
	/* Otherwise it might be gone again after a crash of the host, which is no reason to undo it. */
	if (!err)
		fsync(alone);
	fd_close(alone);
	return err;
}

int disk_publish(struct disk_file *disk, const char *file, bool replace, char *why)
{
	int err = publish(disk, file, replace);

	if (err) {
		disk_drop(disk);
		return err == -EEXIST ? disk_fail(why, err, "there is one of that name: %s", file) :
					disk_fail(why, err, "%s: %s", file, strerror(-err));
	}
	close(disk->fd);
	return 0;
}

void disk_drop(struct disk_file *disk)
{
	unlinkat(disk->dir, disk->file, 0);
	close(disk->fd);
}

/* Directories */

static DIR *directory_open(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *ret = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !ret)
		close(fd);
	return ret;
}

int disk_sweep(int dir, char *why)
{
	DIR *directory = directory_open(dir);
	const struct dirent *entry;

	if (!directory)
		return disk_fail(why, -errno, "the directory of disks: %s", strerror(errno));
	while ((entry = readdir(directory))) {
		struct disk_file disk = { .dir = dir };

		if (strncmp(entry->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) ||
		    strlen(entry->d_name) >= sizeof(disk.file))
			continue;
		strcpy(disk.file, entry->d_name);
		disk.fd = openat(dir, disk.file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (disk.fd < 0)
			continue;
		if (!lock_take(disk.fd, false))
			disk_drop(&disk);
		else
			close(disk.fd);
	}
	closedir(directory);
	return 0;
}

/* Where @file is that of a disk, or of a snapshot of one: its name, "NAME" or "NAME@SNAPSHOT". */
static bool file_parse(const char *file, char *ret_name, enum disk_format *ret_format)
{
	const char *dot = strrchr(file, '.');

	if (!dot || dot - file >= DISK_FILE)
		return false;
	snprintf(ret_name, DISK_FILE, "%.*s", (int)(dot - file), file);
	for (*ret_format = DISK_RAW; *ret_format <= DISK_QCOW2; (*ret_format)++)
		if (!strcmp(dot + 1, disk_suffix[*ret_format]))
			return true;
	return false;
}

int disk_list(int dir, int (*each)(void *context, const struct disk_info *info), void *context,
	      char *why)
{
	DIR *directory = directory_open(dir);
	const struct dirent *entry;
	int err = 0;

	if (!directory)
		return disk_fail(why, -errno, "the directory of disks: %s", strerror(errno));
	while (!err && (entry = readdir(directory))) {
		enum disk_format format;
		struct disk_info info;
		char name[DISK_FILE];

		if (file_parse(entry->d_name, name, &format) && !disk_name_check(name) &&
		    !disk_look(dir, name, &info, why) && info.format == format)
			err = each(context, &info);
	}
	closedir(directory);
	return err;
}

int disk_each_raw_snapshot(int dir, const char *name,
			   int (*each)(void *context, int dir, const char *file, const char *snapshot),
			   void *context)
{
	DIR *directory = directory_open(dir);
	const size_t length = strlen(name);
	const struct dirent *entry;
	int err = 0;

	if (!directory)
		return -errno;
	while (!err && (entry = readdir(directory))) {
		enum disk_format format;
		char stem[DISK_FILE];

		if (!strncmp(entry->d_name, name, length) && entry->d_name[length] == '@' &&
		    file_parse(entry->d_name, stem, &format) && format == DISK_RAW &&
		    !disk_name_check(stem + length + 1))
			err = each(context, dir, entry->d_name, stem + length + 1);
	}
	closedir(directory);
	return err;
}
