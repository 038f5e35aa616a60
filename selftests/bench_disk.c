// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Process 1 of a guest: reads and writes its first disk, past the page cache, and switches the machine
 * off. Each stretch of equal requests is between the two marks that scripts/bench-count.c counts
 * from and to; what comes before it, of the same kind, has all warm. scripts/bench-devices has the names
 * of the stretches, in the same order.
 */
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdlib.h>

#include "selftests/vhost/guest.h"

#define DISK		"/dev/vda"
#define DISK_BYTES	(64 << 20)
#define DEPTH_MAX	32

static const struct stretch {
	unsigned int size;
	unsigned int depth;
	unsigned int requests;
	int random;
	int write;
} stretches[] = {
	{ 4096, 1, 1000, 1, 0 },
	{ 4096, 1, 1000, 1, 1 },
	{ 4096, 32, 3200, 1, 0 },
	{ 4096, 32, 3200, 1, 1 },
	{ 131072, 1, 256, 0, 0 },
	{ 131072, 1, 256, 0, 1 },
	{ 131072, 32, 512, 0, 0 },
	{ 131072, 32, 512, 0, 1 },
};

static aio_context_t context;
static int disk;
static char *buffers;
static uint32_t seed = 1;

static void fail(const char *what)
{
	perror(what);
	reboot(RB_POWER_OFF);
	exit(1);
}

static uint64_t place(const struct stretch *s, unsigned int i)
{
	unsigned int slots = DISK_BYTES / s->size;

	seed = seed * 1664525 + 1013904223;
	return (uint64_t)(s->random ? (seed >> 8) % slots : i % slots) * s->size;
}

static void submit(const struct stretch *s, unsigned int i, unsigned int slot)
{
	struct iocb iocb = {
		.aio_data = slot, .aio_fildes = disk, .aio_nbytes = s->size,
		.aio_lio_opcode = s->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_buf = (uintptr_t)buffers + (uint64_t)slot * s->size, .aio_offset = place(s, i),
	};
	struct iocb *list = &iocb;

	if (syscall(SYS_io_submit, context, 1, &list) != 1)
		fail("io_submit");
}

static void run(const struct stretch *s, unsigned int requests)
{
	struct io_event events[DEPTH_MAX];
	unsigned int begun = 0, done = 0;

	while (begun < s->depth && begun < requests) {
		submit(s, begun, begun);
		begun++;
	}
	while (done < requests) {
		long n = syscall(SYS_io_getevents, context, 1, DEPTH_MAX, events, NULL);

		if (n < 1)
			fail("io_getevents");
		for (long i = 0; i < n; i++, done++) {
			if (events[i].res != s->size)
				fail("a request");
			if (begun < requests)
				submit(s, begun++, events[i].data);
		}
	}
}

int main(void)
{
	guest_begin();
	guest_wait_for(DISK);
	disk = open(DISK, O_RDWR | O_DIRECT);
	if (disk < 0)
		fail(DISK);
	if (posix_memalign((void **)&buffers, 4096, DEPTH_MAX * 131072) ||
	    syscall(SYS_io_setup, DEPTH_MAX, &context))
		fail("io_setup");
	for (unsigned int i = 0; i < sizeof(stretches) / sizeof(stretches[0]); i++) {
		const struct stretch *s = &stretches[i];

		run(s, s->requests / 4 + s->depth);
		__asm__ volatile("nopl 0x54414f4d(%rax,%rax)");
		run(s, s->requests);
		__asm__ volatile("nopl 0x54414f4e(%rax,%rax)");
		printf("stretch %u done\n", i);
	}
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 0;
}
