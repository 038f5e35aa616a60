// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-blk, but that one request ends it: a write to sector 4096. For a test, in the place of moat-blk.
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "devmodel/blk/blk.h"
#include "devmodel/vhost_user/program.h"
#include "devmodel/virtq.h"
#include "userspace/lib/sandbox.h"

#define POISON	4096

static const struct sandbox_call calls[] = {
	{ SYS_io_uring_enter, 0, "the disk", 0, 0, 0 },
	{ 0 },
};

static const struct option options[] = {
	{ "disk", required_argument, NULL, 1 },
	{ 0 },
};

int __real_virtq_pop(struct virtq *vq, struct virtq_chain *chain);
int __wrap_virtq_pop(struct virtq *vq, struct virtq_chain *chain);

int __wrap_virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	int some = __real_virtq_pop(vq, chain);
	struct virtio_blk_outhdr header;

	if (some <= 0 || chain->readable->iov_len < sizeof(header))
		return some;
	memcpy(&header, chain->readable->iov_base, sizeof(header));
	if (header.type == VIRTIO_BLK_T_OUT && header.sector == POISON)
		abort();
	return some;
}

static int take_option(void *arguments, int option, const char *value)
{
	(void)option;
	*(const char **)arguments = value;
	return 0;
}

static int open_device(void *arguments, struct device **ret)
{
	const struct blk_options disk = {
		.fd = open(*(const char **)arguments, O_RDWR | O_CLOEXEC), .direct_fd = -1, .queues = 1,
	};

	return blk_create(&disk, ret);
}

int main(int argc, char **argv)
{
	static const struct program program = {
		.name = "moat-blk", .help = "", .options = options, .take = take_option,
		.open = open_device, .calls = calls,
	};
	const char *disk = NULL;

	return program_main(&program, &disk, argc, argv);
}
