// SPDX-License-Identifier: MIT OR GPL-2.0
/* Requests about disks. Whose a disk is, its file says; it is asked here, where the files are. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/disk.h"
#include "userspace/moatd/owner.h"
#include "userspace/moatd/serve.h"

int disk_directory(const struct keeper_options *options)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/disks", options->state);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool text_ends(const char *text, size_t room)
{
	return memchr(text, 0, room);
}

static bool disk_legal(const struct keeper_disk *disk)
{
	return text_ends(disk->name, sizeof(disk->name)) && text_ends(disk->from, sizeof(disk->from)) &&
	       text_ends(disk->snapshot, sizeof(disk->snapshot)) && !disk_name_check(disk->name) &&
	       disk->format <= DISK_QCOW2 && disk->from_format <= DISK_QCOW2;
}

/* The directory, where the disk is whose it has to be; or a negative errno. */
static int disk_begin(struct keeper_work *work, const struct keeper_disk *disk)
{
	struct disk_info info;
	int dir, err;

	if (!disk_legal(disk))
		return -EINVAL;
	dir = disk_directory(work->options);
	if (dir < 0)
		return work_fail(work, dir, "disks");
	err = disk_look(dir, disk->name, &info, work->answer.why);
	if (!err && disk->uid && info.owner != disk->uid) {
		err = -EPERM;
		snprintf(work->answer.why, KEEPER_WHY, "disk %s is another user's", disk->name);
	}
	if (!err)
		return dir;
	close(dir);
	return err;
}

static int list_each(void *context, const struct disk_info *info)
{
	struct keeper_work *work = context;

	work->answer.disk = *info;
	work_more(work);
	memset(&work->answer.disk, 0, sizeof(work->answer.disk));
	return 0;
}

int serve_disk_list(struct keeper_work *work, const void *carried)
{
	int err, dir = disk_directory(work->options);

	(void)carried;
	if (dir < 0)
		return work_fail(work, dir, "disks");
	err = disk_list(dir, list_each, work, work->answer.why);
	close(dir);
	return err;
}

static void create_progress(void *context, unsigned int hundredths)
{
	struct keeper_work *work = context;

	work->answer.hundredths = hundredths;
	work_more(work);
}

int serve_disk_create(struct keeper_work *work, const void *carried)
{
	const struct keeper_disk *disk = carried;
	struct disk_spec spec = {
		.name = disk->name, .format = disk->format, .size = disk->size, .owner = disk->uid,
		.from = -1, .from_format = disk->from_format, .progress = create_progress,
		.context = work,
	};
	int dir, err;

	if (!disk_legal(disk))
		return -EINVAL;
	if (*disk->from) {
		spec.from = owner_open(disk->uid, disk->from, O_RDONLY);
		if (spec.from < 0)
			return work_fail(work, spec.from, disk->from);
	}
	dir = disk_directory(work->options);
	err = dir < 0 ? work_fail(work, dir, "disks") : disk_sweep(dir, work->answer.why);
	if (!err)
		err = disk_create(dir, &spec, work->answer.why);
	fd_close(spec.from);
	fd_close(dir);
	return err;
}

int serve_disk_resize(struct keeper_work *work, const void *carried)
{
	const struct keeper_disk *disk = carried;
	int err, dir = disk_begin(work, disk);

	if (dir < 0)
		return dir;
	err = disk_resize(dir, disk->name, disk->size, disk->shrink, work->answer.why);
	close(dir);
	return err;
}

int serve_disk_delete(struct keeper_work *work, const void *carried)
{
	const struct keeper_disk *disk = carried;
	int err, dir = disk_begin(work, disk);

	if (dir < 0)
		return dir;
	err = disk_delete(dir, disk->name, work->answer.why);
	close(dir);
	return err;
}

static int snapshot_serve(struct keeper_work *work, const struct keeper_disk *disk,
			  int (*act)(int, const char *, const char *, char *))
{
	int err, dir = disk_begin(work, disk);

	if (dir < 0)
		return dir;
	err = act(dir, disk->name, disk->snapshot, work->answer.why);
	close(dir);
	return err < 0 ? err : 0;
}

int serve_disk_snapshot(struct keeper_work *work, const void *carried)
{
	return snapshot_serve(work, carried, disk_snapshot_create);
}

int serve_disk_snapshot_delete(struct keeper_work *work, const void *carried)
{
	return snapshot_serve(work, carried, disk_snapshot_delete);
}

int serve_disk_revert(struct keeper_work *work, const void *carried)
{
	return snapshot_serve(work, carried, disk_snapshot_revert);
}

static int snapshots_each(void *context, const struct disk_snapshot *snapshot)
{
	struct keeper_work *work = context;

	work->answer.snapshot = *snapshot;
	work_more(work);
	memset(&work->answer.snapshot, 0, sizeof(work->answer.snapshot));
	return 0;
}

int serve_disk_snapshots(struct keeper_work *work, const void *carried)
{
	const struct keeper_disk *disk = carried;
	int err, dir = disk_begin(work, disk);

	if (dir < 0)
		return dir;
	err = disk_snapshot_list(dir, disk->name, snapshots_each, work, work->answer.why);
	close(dir);
	return err;
}
