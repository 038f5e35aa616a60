// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/qcow2.h"
#include "userspace/qemu_launcher/command.h"
#include "userspace/qemu_launcher/parts.h"

/* QEMU insists on a descriptor that says itself that it is only for reading. */
static int disk_narrow(int *fd)
{
	char path[32];
	int narrow;

	if ((fcntl(*fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
	narrow = open(path, O_RDONLY | O_CLOEXEC);
	if (narrow < 0)
		return -errno;
	close(*fd);
	*fd = narrow;
	return 0;
}

static int disk_check(const struct parts_device *device)
{
	struct qcow2 qcow2;
	const char *why;
	int err;

	err = lock_wait(device->fd, device->what.read_only);
	if (err)
		return err;
	err = device->what.qcow2 ? qcow2_read(device->fd, &qcow2, &why) : 0;
	if (err)
		log_error("%s: %s", device->what.name, why);
	return err;
}

int parts_take(struct parts_device *device, const struct options_device *what, int fd)
{
	struct stat st;
	int err = 0;

	*device = (struct parts_device){ .what = *what, .fd = fd };
	if (!what->network) {
		err = fstat(fd, &st) ? -errno : 0;
		device->block = !err && S_ISBLK(st.st_mode);
		if (!err && ((!device->block && !S_ISREG(st.st_mode)) ||
			     (fcntl(fd, F_GETFL) & O_ACCMODE) != (what->read_only ? O_RDONLY : O_RDWR)))
			err = -EINVAL;
		if (!err)
			err = disk_check(device);
	}
	if (err)
		device->fd = -1;
	return err;
}

static int open_path(const char *path, int flags)
{
	int fd = fd_open(path, flags);

	if (fd < 0)
		log_error("cannot open %s: %s", path, strerror(-fd));
	return fd;
}

static int device_open(struct parts_device *device, const struct options_device *what)
{
	const bool read_only = what->read_only && !what->network;
	int fd = open_path(what->path, read_only ? O_RDONLY : O_RDWR), err;

	if (fd < 0)
		return fd;
	err = read_only ? disk_narrow(&fd) : 0;
	if (!err)
		err = parts_take(device, what, fd);
	if (err) {
		log_error("%s: %s", what->name, strerror(-err));
		close(fd);
	}
	fd = fd_number(what->path);
	if (fd > STDERR_FILENO)
		close(fd);
	return err;
}

/* As they are when the machine is new, unless there are some. */
static int vars_fill(int to, const char *tree)
{
	char path[PATH_MAX];
	struct stat is, wanted;
	off_t at = 0;
	int from, err = 0;

	snprintf(path, sizeof(path), "%s" COMMAND_UEFI_VARS, tree);
	from = open_path(path, O_RDONLY);
	if (from < 0)
		return from;
	if (fstat(from, &wanted) || fstat(to, &is))
		err = -errno;
	if (!err && is.st_size != wanted.st_size) {
		if (ftruncate(to, 0) || lseek(to, 0, SEEK_SET))
			err = -errno;
		while (!err && at < wanted.st_size)
			if (sendfile(to, from, &at, wanted.st_size - at) <= 0)
				err = errno ? -errno : -EIO;
	}
	close(from);
	return err;
}

static int vars_open(struct parts *parts, const struct options *options)
{
	int err;

	if (options->firmware != FIRMWARE_UEFI)
		return 0;
	parts->vars = options->uefi_vars >= 0 ? options->uefi_vars : memfd_create("vars", MFD_CLOEXEC);
	err = parts->vars < 0 ? -errno : vars_fill(parts->vars, options->tree);
	if (err)
		log_error("the variables of UEFI: %s", strerror(-err));
	return err;
}

/* A CD is seen by many. */
static int cdrom_open(struct parts *parts, const char *path)
{
	int fd = open_path(path, O_RDONLY), err;

	if (fd < 0)
		return fd;
	err = disk_narrow(&fd);
	if (!err)
		err = lock_wait(fd, true);
	if (err) {
		log_error("%s: %s", path, err == -EAGAIN ? "is being written to" : strerror(-err));
		close(fd);
		return err;
	}
	parts->cdrom[parts->cdrom_count++] = fd;
	return 0;
}

int parts_open(struct parts *parts, const struct options *options)
{
	int err;

	*parts = (struct parts){ .vars = -1 };
	for (unsigned int i = 0; i < PARTS_DEVICES; i++)
		parts->device[i].fd = -1;
	parts->node = open_path(options->node, O_RDWR);
	err = parts->node < 0 ? parts->node : vars_open(parts, options);
	for (unsigned int i = 0; i < options->device_count && !err; i++)
		err = device_open(&parts->device[i], &options->device[i]);
	for (unsigned int i = 0; i < options->cdrom_count && !err; i++)
		err = cdrom_open(parts, options->cdrom[i]);
	if (err)
		parts_close(parts);
	return err;
}

void parts_each(const struct parts *parts, void (*each)(void *arg, int fd), void *arg)
{
	if (parts->vars >= 0)
		each(arg, parts->vars);
	for (unsigned int i = 0; i < parts->cdrom_count; i++)
		each(arg, parts->cdrom[i]);
	for (unsigned int i = 0; i < PARTS_DEVICES; i++)
		if (parts->device[i].fd >= 0)
			each(arg, parts->device[i].fd);
}

static void part_close(void *arg, int fd)
{
	(void)arg;
	fd_close(fd);
}

void parts_close(struct parts *parts)
{
	fd_close(parts->node);
	parts_each(parts, part_close, NULL);
	*parts = (struct parts){ .node = -1, .vars = -1 };
	for (unsigned int i = 0; i < PARTS_DEVICES; i++)
		parts->device[i].fd = -1;
}
