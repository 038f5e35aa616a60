// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-blk: a disk for one machine, by the vhost-user protocol. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devmodel/blk/blk.h"
#include "devmodel/vhost_user/program.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/sandbox.h"

static const char help[] =
"Usage: moat-blk --disk PATH { --socket PATH | --fd N } [OPTION]...\n"
"Serve a file or a block device as a virtio disk, to a front end of vhost-user.\n"
"\n"
"  --disk PATH             a raw file or a block device; /proc/self/fd/N: as handed over\n"
"  --read-only             nothing can be written\n"
"  --direct                past the host's page cache, where guest memory allows it\n"
"  --queues N              queues, each with a thread; 1 by default, at most 16\n"
"  --serial TEXT           what the guest reads as serial number, 20 bytes at most\n"
"  --bytes-per-second N    the most that it may move; N may end in K, M or G\n"
"  --ops-per-second N      the most requests\n";

static const char notes[] =
"SIGHUP: look at the size of the disk once more, and tell the guest. SIGTERM: end.\n";

enum { BLK_DISK = 1, BLK_READ_ONLY, BLK_DIRECT, BLK_QUEUES, BLK_SERIAL, BLK_BYTES, BLK_OPS };

static const struct option options[] = {
	{ "disk", required_argument, NULL, BLK_DISK },
	{ "read-only", no_argument, NULL, BLK_READ_ONLY },
	{ "direct", no_argument, NULL, BLK_DIRECT },
	{ "queues", required_argument, NULL, BLK_QUEUES },
	{ "serial", required_argument, NULL, BLK_SERIAL },
	{ "bytes-per-second", required_argument, NULL, BLK_BYTES },
	{ "ops-per-second", required_argument, NULL, BLK_OPS },
	{ 0 },
};

static const struct sandbox_call blk_calls[] = {
	{ SYS_io_uring_enter, 0, "I/O, by rings that were made and restricted before", 0, 0, 0 },
	{ SYS_ioctl, 0, "the size of a block device", 2, ~0ULL, BLKGETSIZE64 },
	{ 0 },
};

struct arguments {
	const char *path;
	bool direct;
	struct blk_options disk;
};

static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;
	struct blk_options *disk = &arguments->disk;
	uint64_t queues;

	switch (option) {
	case BLK_DISK:
		arguments->path = value;
		return 0;
	case BLK_READ_ONLY:
		disk->read_only = true;
		return 0;
	case BLK_DIRECT:
		arguments->direct = true;
		return 0;
	case BLK_QUEUES:
		if (parse_uint(value, 1, BLK_QUEUES_MAX, &queues))
			return -EINVAL;
		disk->queues = queues;
		return 0;
	case BLK_SERIAL:
		disk->serial = value;
		return strlen(value) <= VIRTIO_BLK_ID_BYTES ? 0 : -EINVAL;
	case BLK_BYTES:
		return parse_size(value, 1, UINT64_MAX, &disk->bytes_per_second) ? -EINVAL : 0;
	case BLK_OPS:
		return parse_uint(value, 1, UINT64_MAX, &disk->ops_per_second) ? -EINVAL : 0;
	}
	return -EINVAL;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (arguments->path)
		return 0;
	log_error("it takes --disk: see --help");
	return -EINVAL;
}

static int open_direct(const char *path, int fd, int flags)
{
	char self[32];
	int direct;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	direct = open(self, flags | O_DIRECT | O_CLOEXEC);
	if (direct < 0)
		log_error("%s: no direct I/O (%s), it goes through the page cache", path,
			  strerror(errno));
	return direct;
}

static int open_disk(struct arguments *arguments)
{
	const int flags = arguments->disk.read_only ? O_RDONLY : O_RDWR;
	int err, fd = fd_open(arguments->path, flags);

	if (fd < 0) {
		log_error("cannot open %s: %s", arguments->path, strerror(-fd));
		return fd;
	}
	/* A process before holds it while the kernel works on its requests: none comes after one of ours. */
	err = lock_wait(fd, arguments->disk.read_only);
	if (err) {
		log_error("%s is in use by another process", arguments->path);
		return err;
	}
	arguments->disk.fd = fd;
	if (arguments->direct)
		arguments->disk.direct_fd = open_direct(arguments->path, fd, flags);
	return 0;
}

static int open_device(void *from, struct device **ret)
{
	struct arguments *arguments = from;
	int err = open_disk(arguments);

	if (err)
		return err;
	err = blk_create(&arguments->disk, ret);
	if (err)
		log_error("%s cannot be a disk: %s%s", arguments->path, strerror(-err),
			  err == -ENOSYS || err == -EPERM ?
			  "; it takes io_uring, which this host does not allow" : "");
	return err;
}

static const struct program program = {
	.name = "moat-blk", .help = help, .notes = notes, .options = options,
	.take = take_option, .check = check_options, .open = open_device,
	.refresh = blk_resize, .calls = blk_calls,
};

int main(int argc, char **argv)
{
	struct arguments arguments = { .disk = { .direct_fd = -1, .queues = 1 } };

	return program_main(&program, &arguments, argc, argv);
}
