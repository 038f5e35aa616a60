// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/moatd/disk_file.h"
#include "userspace/moatd/image.h"

#define GROUPS_MAX	64

static bool size_is_good(uint64_t size)
{
	return size && size % DISK_SECTOR == 0 && size <= DISK_SIZE_MAX;
}

/* Making one */

static int create_check(const struct disk_spec *spec, uint64_t *ret_size, char *why)
{
	uint64_t image = 0;
	int err;

	if (disk_name_check(spec->name))
		return disk_fail(why, -EINVAL, "not a name of a disk: letters, digits and -_. are, 48 at most");
	if (spec->from >= 0) {
		err = image_size(spec->from, spec->from_format, &image, NULL, why);
		if (err)
			return err;
	}
	*ret_size = spec->size ?: (image + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	if (!size_is_good(*ret_size))
		return disk_fail(why, -EINVAL, "a disk has whole sectors of 512 bytes, and 64 TiB at most");
	if (*ret_size < image)
		return disk_fail(why, -EINVAL, "the image has %llu bytes, and the disk is to have less",
				 (unsigned long long)image);
	if (spec->reflink && (spec->from < 0 || spec->format != DISK_RAW || spec->from_format != DISK_RAW))
		return disk_fail(why, -EOPNOTSUPP, "a disk shares blocks with a raw image, if it is raw itself");
	return 0;
}

static int resize_file(int fd, enum disk_format format, uint64_t size, char *why)
{
	if (format == DISK_QCOW2)
		return image_resize(fd, size, why);
	return ftruncate(fd, size) ? disk_fail(why, -errno, "no such size: %s", strerror(errno)) : 0;
}

static int create_fill(const struct disk_spec *spec, int fd, uint64_t size, char *why)
{
	uint64_t have = 0;
	int err;

	if (spec->from < 0)
		return spec->format == DISK_QCOW2 ? image_make(fd, size, why) :
						    resize_file(fd, DISK_RAW, size, why);
	if (spec->format == DISK_RAW && spec->from_format == DISK_RAW)
		err = image_copy(spec->from, fd, spec->reflink, spec, why);
	else
		err = image_convert(spec, fd, why);
	if (err >= 0)
		err = image_size(fd, spec->format, &have, NULL, why);
	return err || have == size ? err : resize_file(fd, spec->format, size, why);
}

int disk_create(int dir, const struct disk_spec *spec, char *why)
{
	struct disk_file disk;
	char file[DISK_FILE];
	uint64_t size = 0;
	int err = create_check(spec, &size, why);

	if (!err)
		err = disk_new(dir, spec->owner, &disk, why);
	if (err)
		return err;
	err = create_fill(spec, disk.fd, size, why);
	if (err) {
		disk_drop(&disk);
		return err;
	}
	disk_file_name(file, spec->name, NULL, spec->format);
	return disk_publish(&disk, file, false, why);
}

/* Looking at one */

static int count_one(void *context, int dir, const char *file, const char *snapshot)
{
	(void)dir;
	(void)file;
	(void)snapshot;
	++*(unsigned int *)context;
	return 0;
}

int disk_look(int dir, const char *name, struct disk_info *ret, char *why)
{
	struct disk_info info = { 0 };
	struct disk_file disk;
	struct stat st;
	int err = disk_find(dir, name, O_RDONLY, &disk, why);

	if (err)
		return err;
	if (fstat(disk.fd, &st)) {
		close(disk.fd);
		return disk_fail(why, -errno, "disk %s: %s", name, strerror(errno));
	}
	strcpy(info.name, name);
	info.format = disk.format;
	info.allocated = st.st_blocks * 512ULL;
	info.owner = st.st_uid;
	info.in_use = lock_is_taken(disk.fd);
	/* One that is damaged has no size; it is there all the same. */
	image_size(disk.fd, info.format, &info.size, &info.snapshots, why);
	close(disk.fd);
	if (info.format == DISK_RAW)
		disk_each_raw_snapshot(dir, name, count_one, &info.snapshots);
	*ret = info;
	return 0;
}

/* Changing one */

static int resize_check(const struct disk_file *disk, uint64_t size, bool shrink, uint64_t *ret_have,
			char *why)
{
	int err = image_size(disk->fd, disk->format, ret_have, NULL, why);

	if (err)
		return err;
	if (!size_is_good(size))
		return disk_fail(why, -EINVAL, "a disk has whole sectors of 512 bytes, and 64 TiB at most");
	if (size < *ret_have && !shrink)
		return disk_fail(why, -EINVAL, "the disk has %llu bytes: what is behind the new end would be lost",
				 (unsigned long long)*ret_have);
	return 0;
}

int disk_resize(int dir, const char *name, uint64_t size, bool shrink, char *why)
{
	struct disk_file disk;
	uint64_t have;
	int err = disk_take(dir, name, &disk, why);

	if (err)
		return err;
	err = resize_check(&disk, size, shrink, &have, why);
	if (!err && have != size)
		err = resize_file(disk.fd, disk.format, size, why);
	if (!err && fsync(disk.fd))
		err = disk_fail(why, -errno, "disk %s: %s", name, strerror(errno));
	close(disk.fd);
	return err;
}

static int delete_one(void *context, int dir, const char *file, const char *snapshot)
{
	(void)context;
	(void)snapshot;
	return unlinkat(dir, file, 0) ? -errno : 0;
}

/* The disk comes last: one of the same name must never find snapshots of this one. */
int disk_delete(int dir, const char *name, char *why)
{
	struct disk_file disk;
	int err = disk_take(dir, name, &disk, why);

	if (err)
		return err;
	if (disk.format == DISK_RAW)
		err = disk_each_raw_snapshot(dir, name, delete_one, NULL);
	if (!err && unlinkat(dir, disk.file, 0))
		err = -errno;
	close(disk.fd);
	return err ? disk_fail(why, err, "disk %s cannot be deleted: %s", name, strerror(-err)) : 0;
}

/* Opening one for a user */

/**
 * struct rights - those of this thread, before
 */
struct rights {
	uid_t uid;
	gid_t gid;
	int group_count;
	gid_t group[GROUPS_MAX];
};

static void rights_restore(const struct rights *rights)
{
	if (rights->uid)
		return;
	setfsuid(rights->uid);
	setfsgid(rights->gid);
	syscall(SYS_setgroups, rights->group_count, rights->group);
}

/* Of this thread alone, and for files alone; what root may do beside goes with the user's number. */
static int rights_take(const struct disk_user *user, struct rights *ret)
{
	ret->uid = geteuid();
	ret->gid = getegid();
	/* Who is not root has only its own. */
	if (ret->uid)
		return ret->uid == user->uid ? 0 : -EPERM;
	ret->group_count = syscall(SYS_getgroups, GROUPS_MAX, ret->group);
	if (ret->group_count < 0 || syscall(SYS_setgroups, 0, NULL))
		return -errno;
	setfsgid(user->gid);
	setfsuid(user->uid);
	if ((uid_t)setfsuid(-1) == user->uid && (gid_t)setfsgid(-1) == user->gid)
		return 0;
	rights_restore(ret);
	return -EPERM;
}

/*
 * Where nothing is that would hold us up, as a FIFO does. What we have open ourselves is within a user's
 * reach by /proc/self/fd, with no right to it where it has no owner, as memory; so no such link is followed.
 */
static int open_as(int dir, const char *path, const struct disk_user *user, int flags)
{
	const struct open_how how = {
		.flags = flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS,
	};
	struct rights rights;
	int fd, err = rights_take(user, &rights);

	if (err)
		return err;
	fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	err = errno;
	rights_restore(&rights);
	return fd < 0 ? -err : fd;
}

static int open_check(int fd, const char *path, enum disk_format format, bool read_only, char *why)
{
	uint64_t size;
	struct stat st;
	int err;

	if (fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return disk_fail(why, -EINVAL, "disk %.60s: it is neither a file nor a block device", path);
	if (fcntl(fd, F_SETFL, read_only ? O_RDONLY : O_RDWR))
		return disk_fail(why, -errno, "disk %.60s: %s", path, strerror(errno));
	err = lock_take(fd, read_only);
	if (err == -EAGAIN)
		return disk_fail(why, -EBUSY, "disk %.60s is in use", path);
	if (err)
		return disk_fail(why, err, "disk %.60s: it cannot be locked: %s", path, strerror(-err));
	err = image_size(fd, format, &size, NULL, why);
	if (!err && !size_is_good(size))
		err = disk_fail(why, -EINVAL, "disk %.60s: its size is none of a disk", path);
	return err;
}

/* From @fd on, which is closed where it is no disk. */
static int open_finish(int fd, const char *path, enum disk_format format, bool read_only, int *ret_fd,
		       char *why)
{
	int err = fd < 0 ? disk_fail(why, fd, "disk %.60s: %s", path, strerror(-fd)) :
			   open_check(fd, path, format, read_only, why);

	if (!err)
		*ret_fd = fd;
	else
		fd_close(fd);
	return err;
}

int disk_open_path(const char *path, enum disk_format format, const struct disk_user *user,
		   bool read_only, int *ret_fd, char *why)
{
	if (*path != '/')
		return disk_fail(why, -EINVAL, "disk %.60s: give its whole path", path);
	return open_finish(open_as(AT_FDCWD, path, user, read_only ? O_RDONLY : O_RDWR), path, format,
			   read_only, ret_fd, why);
}

int disk_open(int dir, const char *name, const struct disk_user *user, bool read_only, int *ret_fd,
	      enum disk_format *ret_format, char *why)
{
	struct disk_file disk;
	int err = disk_find(dir, name, O_PATH, &disk, why);

	if (err)
		return err;
	close(disk.fd);
	disk.fd = open_as(dir, disk.file, user, (read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW);
	err = open_finish(disk.fd, name, disk.format, read_only, &disk.fd, why);
	if (err)
		return err;
	if (!disk_is_current(&disk)) {
		close(disk.fd);
		return disk_fail(why, -EBUSY, "disk %s was changed just now", name);
	}
	*ret_fd = disk.fd;
	*ret_format = disk.format;
	return 0;
}
