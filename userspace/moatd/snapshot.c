// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/qcow2.h"
#include "userspace/moatd/disk_file.h"
#include "userspace/moatd/image.h"

/* QEMU would take digits for a number. */
static int snapshot_check(const char *snapshot, char *why)
{
	if (!disk_name_check(snapshot) && !(*snapshot >= '0' && *snapshot <= '9'))
		return 0;
	return disk_fail(why, -EINVAL, "not a name of a snapshot: it is like a disk's, with a letter first");
}

/* The disk, for one that changes it. */
static int snapshot_take(int dir, const char *name, const char *snapshot, struct disk_file *ret, char *why)
{
	int err = snapshot_check(snapshot, why);

	return err ? err : disk_take(dir, name, ret, why);
}

struct search {
	const char *name;
	bool found;
};

static int search_one(void *context, const struct disk_snapshot *snapshot)
{
	struct search *search = context;

	search->found = !strcmp(search->name, snapshot->name);
	return search->found;
}

static int list_qcow2(int fd, int (*each)(void *context, const struct disk_snapshot *snapshot),
		      void *context, char *why)
{
	struct qcow2_snapshot found;
	struct qcow2 qcow2;
	const char *fault;
	int err = qcow2_read(fd, &qcow2, &fault);

	if (err)
		return disk_fail(why, err, "%s", fault);
	for (uint32_t i = 0; i < qcow2.snapshots && !err; i++) {
		struct disk_snapshot snapshot = { 0 };

		err = qcow2_read_snapshot(fd, &qcow2.snapshots_at, &found);
		if (err)
			return disk_fail(why, err, "its list of snapshots cannot be read");
		snprintf(snapshot.name, sizeof(snapshot.name), "%.*s", DISK_NAME_MAX, found.name);
		snapshot.size = found.size;
		snapshot.seconds = found.seconds;
		err = each(context, &snapshot);
	}
	return err;
}

/* Of a qcow2 image that is locked: QEMU would allow two of one name. */
static int qcow2_change(const struct disk_file *disk, const char *what, const char *snapshot, char *why)
{
	struct search search = { .name = snapshot };
	int err = list_qcow2(disk->fd, search_one, &search, why);
	const bool creates = !strcmp(what, "-c");

	if (err < 0)
		return err;
	if (search.found && creates)
		return disk_fail(why, -EEXIST, "there is a snapshot %s", snapshot);
	if (!search.found && !creates)
		return disk_fail(why, -ENOENT, "there is no snapshot %s", snapshot);
	err = image_snapshot(disk->fd, what, snapshot, why);
	if (!err && fsync(disk->fd))
		err = disk_fail(why, -errno, "%s", strerror(errno));
	return err;
}

/* @from becomes a file of its own, whose owner is the disk's. */
static int raw_duplicate(const struct disk_file *disk, int from, const char *file, bool replace, char *why)
{
	struct disk_file copy;
	struct stat st;
	int err, copied;

	if (fstat(disk->fd, &st))
		return disk_fail(why, -errno, "%s", strerror(errno));
	err = disk_new(disk->dir, st.st_uid, &copy, why);
	if (err)
		return err;
	copied = image_copy(from, copy.fd, false, NULL, why);
	if (copied < 0) {
		disk_drop(&copy);
		return copied;
	}
	err = disk_publish(&copy, file, replace, why);
	return err ? err : copied;
}

static int raw_create(const struct disk_file *disk, const char *name, const char *snapshot, char *why)
{
	char file[DISK_FILE];

	disk_file_name(file, name, snapshot, DISK_RAW);
	return raw_duplicate(disk, disk->fd, file, false, why);
}

static int raw_revert(const struct disk_file *disk, const char *name, const char *snapshot, char *why)
{
	char file[DISK_FILE];
	int err, from;

	disk_file_name(file, name, snapshot, DISK_RAW);
	from = openat(disk->dir, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (from < 0)
		return disk_fail(why, -errno, "snapshot %s: %s", snapshot, strerror(errno));
	err = raw_duplicate(disk, from, disk->file, true, why);
	close(from);
	return err < 0 ? err : 0;
}

static int raw_delete(const struct disk_file *disk, const char *name, const char *snapshot, char *why)
{
	char file[DISK_FILE];

	disk_file_name(file, name, snapshot, DISK_RAW);
	return unlinkat(disk->dir, file, 0) ?
	       disk_fail(why, -errno, "snapshot %s: %s", snapshot, strerror(errno)) : 0;
}

static int snapshot_change(int dir, const char *name, const char *snapshot, const char *what,
			   int (*raw)(const struct disk_file *disk, const char *name,
				      const char *snapshot, char *why), char *why)
{
	struct disk_file disk;
	int err = snapshot_take(dir, name, snapshot, &disk, why);

	if (err)
		return err;
	if (disk.format == DISK_QCOW2)
		err = qcow2_change(&disk, what, snapshot, why);
	else
		err = raw(&disk, name, snapshot, why);
	close(disk.fd);
	return err;
}

int disk_snapshot_create(int dir, const char *name, const char *snapshot, char *why)
{
	return snapshot_change(dir, name, snapshot, "-c", raw_create, why);
}

int disk_snapshot_delete(int dir, const char *name, const char *snapshot, char *why)
{
	return snapshot_change(dir, name, snapshot, "-d", raw_delete, why);
}

int disk_snapshot_revert(int dir, const char *name, const char *snapshot, char *why)
{
	return snapshot_change(dir, name, snapshot, "-a", raw_revert, why);
}

/* Listing: a disk may be in use meanwhile, and its list of a moment ago. */

struct listing {
	int (*each)(void *context, const struct disk_snapshot *snapshot);
	void *context;
};

static int list_raw_one(void *context, int dir, const char *file, const char *name)
{
	const struct listing *listing = context;
	struct disk_snapshot snapshot = { 0 };
	struct stat st;

	if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	snprintf(snapshot.name, sizeof(snapshot.name), "%s", name);
	snapshot.size = st.st_size;
	snapshot.seconds = st.st_mtime;
	return listing->each(listing->context, &snapshot);
}

int disk_snapshot_list(int dir, const char *name,
		       int (*each)(void *context, const struct disk_snapshot *snapshot),
		       void *context, char *why)
{
	struct listing listing = { .each = each, .context = context };
	struct disk_file disk;
	int err = disk_find(dir, name, O_RDONLY, &disk, why);

	if (err)
		return err;
	if (disk.format == DISK_QCOW2)
		err = list_qcow2(disk.fd, each, context, why);
	else
		err = disk_each_raw_snapshot(dir, name, list_raw_one, &listing);
	close(disk.fd);
	return err;
}
