/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What `vmctl run -- cmd` and moat-init, process 1 of its guest, say to each other: frames on the
 * byte stream of a virtio console, /dev/hvc0 in the guest. All numbers are little-endian.
 *
 * A frame is struct run_frame and then @len bytes, at most RUN_PAYLOAD_MAX. Neither side trusts the
 * other: a frame of a type that the other must not send, of a wrong length or with a value out of
 * range ends the run.
 *
 *	type		from	payload
 *	RUN_READY	guest	struct run_number: RUN_VERSION. The command was started. The first
 *				frame of all, before it the host sends nothing
 *	RUN_STDIN	host	input; no bytes: its end
 *	RUN_STDOUT	guest	output; no bytes: its end
 *			host	no bytes: nobody reads that any more
 *	RUN_STDERR		as RUN_STDOUT
 *	RUN_CREDIT	both	struct run_credit
 *	RUN_SIGNAL	host	struct run_number: a signal for the command's process group
 *	RUN_WINDOW_SIZE	host	struct run_window_size: of the terminal
 *	RUN_EXIT	guest	struct run_number: exit status, 0 to 255, as a shell gives it. The
 *				last frame: disks are unmounted
 *
 * A sender may have RUN_WINDOW bytes of each stream under way that no RUN_CREDIT has told of. So a
 * reader that is slow holds up its own stream and nothing else, and neither side needs more memory
 * for a stream than that.
 *
 * What to run comes in the guest's initramfs, in RUN_COMMAND_FILE: strings that end in NUL, the
 * first character of each telling what the rest is.
 *
 *	m	file of a kernel module to load, in this order
 *	r	tag of the virtio file system that becomes the root, to be read only
 *	f	"TAG DIRECTORY": a virtio file system that is mounted there, below that root
 *	y	a directory there that is empty, and in memory
 *	c	working directory
 *	p	the program's file
 *	a	an argument, from argv[0] on
 *	e	a variable of the environment, NAME=value
 *	w	"ROWS COLUMNS": size of the terminal
 *	t	digits of those of the descriptors 0, 1 and 2 that are a terminal
 */
#ifndef MOAT_RUN_H
#define MOAT_RUN_H

#include <assert.h>
#include <stdint.h>

#define RUN_VERSION		1
#define RUN_PAYLOAD_MAX		4096
#define RUN_WINDOW		65536
#define RUN_FOLDER		"/.moat"
#define RUN_COMMAND_FILE	RUN_FOLDER "/command"
#define RUN_CHANNEL		"/dev/hvc0"

enum run_type {
	RUN_READY = 1,
	RUN_STDIN,
	RUN_STDOUT,
	RUN_STDERR,
	RUN_CREDIT,
	RUN_SIGNAL,
	RUN_WINDOW_SIZE,
	RUN_EXIT,
};

/**
 * struct run_frame - what each frame begins with
 * @type: enum run_type
 * @reserved: zero
 * @len: bytes of payload that follow
 */
struct run_frame {
	uint8_t type;
	uint8_t reserved[3];
	uint32_t len;
};

/**
 * struct run_credit - more of a stream may be sent
 * @stream: RUN_STDIN from the guest, RUN_STDOUT or RUN_STDERR from the host
 * @reserved: zero
 * @bytes: how many of those under way were taken, at least 1
 */
struct run_credit {
	uint8_t stream;
	uint8_t reserved[3];
	uint32_t bytes;
};

struct run_number {
	uint32_t value;
};

/* As struct winsize has them. */
struct run_window_size {
	uint16_t rows;
	uint16_t columns;
	uint16_t width;
	uint16_t height;
};

static_assert(sizeof(struct run_frame) == 8, "no padding");
static_assert(sizeof(struct run_credit) == 8, "no padding");
static_assert(sizeof(struct run_number) == 4, "no padding");
static_assert(sizeof(struct run_window_size) == 8, "no padding");

#endif /* MOAT_RUN_H */
