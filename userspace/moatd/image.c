// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/qcow2.h"
#include "userspace/moatd/disk_file.h"
#include "userspace/moatd/image.h"
#include "userspace/qemu/tool.h"

_Static_assert(DISK_WHY == TOOL_WHY, "one buffer");

#define COPY_STEP	(64ULL << 20)

/* Whatever they open is what they get, so the names mean nothing (tool.h). */
#define SOURCE		"\"file\":{\"driver\":\"file\",\"filename\":\"source\",\"cache\":{\"direct\":true}}"
#define SOURCE_RAW	"json:{\"driver\":\"raw\"," SOURCE "}"
#define SOURCE_QCOW2	"json:{\"driver\":\"qcow2\",\"backing\":null," SOURCE "}"
#define TARGET		"target"
#define TARGET_OPTIONS	"driver=qcow2,file.driver=file,file.filename=target"

int image_size(int fd, enum disk_format format, uint64_t *ret, unsigned int *ret_snapshots, char *why)
{
	struct qcow2 qcow2;
	const char *fault;
	int err;

	if (format == DISK_RAW) {
		/* Of a block device, too. */
		const off_t end = lseek(fd, 0, SEEK_END);

		*ret = end;
		return end < 0 ? disk_fail(why, -errno, "no size: %s", strerror(errno)) : 0;
	}
	err = qcow2_read(fd, &qcow2, &fault);
	if (err)
		return disk_fail(why, err, "%s", fault);
	*ret = qcow2.size;
	if (ret_snapshots)
		*ret_snapshots = qcow2.snapshots;
	return 0;
}

/* Copies */

static void copy_tell(const struct disk_spec *spec, uint64_t at, uint64_t size)
{
	if (spec && spec->progress)
		spec->progress(spec->context, at / (size / 10000 + 1));
}

/* Through the kernel, which may share blocks, or have a server copy them; else through memory. */
static ssize_t copy_some(int from, int to, off_t at, size_t length)
{
	static char buf[1 << 20];
	off_t out = at;
	ssize_t n = copy_file_range(from, &at, to, &out, length, 0);

	if (n > 0 || (n < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP &&
		      errno != ENOSYS))
		return n;
	n = pread(from, buf, length < sizeof(buf) ? length : sizeof(buf), out);
	return n > 0 ? pwrite(to, buf, n, out) : n;
}

static int copy_extent(int from, int to, off_t at, off_t end, off_t size, const struct disk_spec *spec)
{
	while (at < end) {
		const size_t left = end - at;
		ssize_t n = copy_some(from, to, at, left < COPY_STEP ? left : COPY_STEP);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		at += n;
		copy_tell(spec, at, size);
	}
	return 0;
}

static int copy_data(int from, int to, off_t size, const struct disk_spec *spec)
{
	off_t at = 0, end = 0;
	int err = ftruncate(to, size) ? -errno : 0;

	while (!err && end < size) {
		at = lseek(from, end, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			break;
		end = at < 0 ? at : lseek(from, at, SEEK_HOLE);
		if (end < 0)
			return -errno;
		err = copy_extent(from, to, at, end < size ? end : size, size, spec);
	}
	return err;
}

int image_copy(int from, int to, bool share, const struct disk_spec *spec, char *why)
{
	struct stat st;
	int err;

	if (fstat(from, &st) || !S_ISREG(st.st_mode))
		return disk_fail(why, -EINVAL, "the image is not a regular file");
	if (!ioctl(to, FICLONE, from))
		return 0;
	if (share)
		return disk_fail(why, -EOPNOTSUPP, "the file system cannot share the image's blocks: %s",
				 strerror(errno));
	err = copy_data(from, to, st.st_size, spec);
	return err ? disk_fail(why, err, "the image cannot be copied: %s", strerror(-err)) : 1;
}

/* qemu-img */

static int image_run(const char *const *argument, int read, int write, const struct disk_spec *spec,
		     char *why)
{
	const struct tool tool = {
		.argument = argument, .files = { .read = read, .write = write },
		.progress = spec ? spec->progress : NULL, .context = spec ? spec->context : NULL,
	};

	if (tool_find(TOOL_IMG))
		return disk_fail(why, -ENOENT, "qemu-img is not there: install it (Debian: qemu-utils)");
	return tool_run(&tool, why);
}

int image_convert(const struct disk_spec *spec, int to, char *why)
{
	const char *const argument[] = {
		TOOL_IMG, "convert", "-p", "-O", spec->format == DISK_QCOW2 ? "qcow2" : "raw",
		spec->from_format == DISK_QCOW2 ? SOURCE_QCOW2 : SOURCE_RAW, TARGET, NULL,
	};

	return image_run(argument, spec->from, to, spec, why);
}

int image_make(int fd, uint64_t size, char *why)
{
	char bytes[24];
	const char *const argument[] = {
		TOOL_IMG, "create", "-q", "-f", "qcow2", TARGET, bytes, NULL,
	};

	snprintf(bytes, sizeof(bytes), "%" PRIu64, size);
	return image_run(argument, -1, fd, NULL, why);
}

int image_resize(int fd, uint64_t size, char *why)
{
	char bytes[24];
	const char *const argument[] = {
		TOOL_IMG, "resize", "-q", "--shrink", "--image-opts", TARGET_OPTIONS, bytes, NULL,
	};

	snprintf(bytes, sizeof(bytes), "%" PRIu64, size);
	return image_run(argument, -1, fd, NULL, why);
}

int image_snapshot(int fd, const char *what, const char *snapshot, char *why)
{
	const char *const argument[] = {
		TOOL_IMG, "snapshot", "-q", what, snapshot, "--image-opts", TARGET_OPTIONS, NULL,
	};

	return image_run(argument, -1, fd, NULL, why);
}
