// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-blk: a disk for one machine, by the vhost-user protocol. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "devmodel/blk/blk.h"
#include "devmodel/vhost_user/server.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/sandbox.h"

#define LOCK_TRIES		100
#define LOCK_PAUSE_NS		(100 * 1000000L)

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
"  --ops-per-second N      the most requests\n"
SERVER_HELP
"  --help                  this text\n"
"\n"
"SIGHUP: look at the size of the disk once more, and tell the guest. SIGTERM: end.\n";

enum { BLK_DISK = 1, BLK_READ_ONLY, BLK_DIRECT, BLK_QUEUES, BLK_SERIAL, BLK_BYTES, BLK_OPS, BLK_HELP };

static const struct option long_options[] = {
	SERVER_LONG_OPTIONS,
	{ "disk", required_argument, NULL, BLK_DISK },
	{ "read-only", no_argument, NULL, BLK_READ_ONLY },
	{ "direct", no_argument, NULL, BLK_DIRECT },
	{ "queues", required_argument, NULL, BLK_QUEUES },
	{ "serial", required_argument, NULL, BLK_SERIAL },
	{ "bytes-per-second", required_argument, NULL, BLK_BYTES },
	{ "ops-per-second", required_argument, NULL, BLK_OPS },
	{ "help", no_argument, NULL, BLK_HELP },
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
	struct server_options server;
};

/* 0 or -EINVAL. */
static int take_option(struct arguments *arguments, int option, const char *value)
{
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
	return server_option(&arguments->server, option, value);
}

/* 0; 1 where the help was all; -EINVAL. */
static int take_options(struct arguments *arguments, int argc, char **argv)
{
	int index, option;

	while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (option == BLK_HELP) {
			fputs(help, stdout);
			return 1;
		}
		if (option == '?')
			return -EINVAL;
		if (take_option(arguments, option, optarg)) {
			log_error("--%s cannot be %s", long_options[index].name, optarg);
			return -EINVAL;
		}
	}
	if (optind != argc || !arguments->path) {
		log_error("it takes --disk, and nothing but options: see --help");
		return -EINVAL;
	}
	return server_check(&arguments->server);
}

/*
 * Nobody else writes the disk. A process that was killed a moment ago holds the lock as long as the
 * kernel still works on its requests: so none of these comes after one of ours.
 */
static int lock_disk(int fd, bool read_only)
{
	const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (!flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB))
			return 0;
		if (errno != EWOULDBLOCK)
			break;
		nanosleep(&pause, NULL);
	}
	return -errno;
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
	err = lock_disk(fd, arguments->disk.read_only);
	if (err) {
		log_error("%s is in use by another process", arguments->path);
		return err;
	}
	arguments->disk.fd = fd;
	if (arguments->direct)
		arguments->disk.direct_fd = open_direct(arguments->path, fd, flags);
	return 0;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {
		.disk = { .direct_fd = -1, .queues = 1 }, .server = SERVER_OPTIONS,
	};
	struct device *dev;
	int err;

	log_name("moat-blk", NULL);
	err = take_options(&arguments, argc, argv);
	if (err)
		return err > 0 ? 0 : 2;
	if (open_disk(&arguments))
		return 1;
	err = blk_create(&arguments.disk, &dev);
	if (err) {
		log_error("%s cannot be a disk: %s%s", arguments.path, strerror(-err),
			  err == -ENOSYS || err == -EPERM ?
			  "; it takes io_uring, which this host does not allow" : "");
		return 1;
	}
	return server_run(&arguments.server, dev, blk_resize, blk_calls);
}
