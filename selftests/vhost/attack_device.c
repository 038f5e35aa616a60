// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A disk that is up to no good: moat-blk, but that it keeps each descriptor which it was ever given, maps
 * each as far as it goes, and reads all of that again and again while it serves its requests. What
 * it finds of the guest's marked memory (attack.h) it counts, and alters. It is in the sandbox of all
 * device programs, from which nothing is taken for it but what it needs to see that a touch failed.
 *
 * At SIGHUP it says how many units of 16 bytes it has ever seen, of memory in no request and of
 * such that is in some.
 *
 * usage: attack_device --socket PATH --disk FILE [--uid N --gid N]
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "devmodel/blk/blk.h"
#include "devmodel/device.h"
#include "devmodel/vhost_user/program.h"
#include "selftests/vhost/attack.h"
#include "userspace/lib/sandbox.h"

#define DESCRIPTORS	512
#define PAGE		4096UL
#define LENGTH_MAX	(64UL << 20)	/* tried of what does not say how long it is */

static const struct sandbox_call calls[] = {
	{ SYS_io_uring_enter, 0, "the disk", 0, 0, 0 },
	{ SYS_lseek, 0, "how long is it?", 0, 0, 0 },
	{ SYS_rt_sigreturn, 0, "a touch failed", 0, 0, 0 },
	{ SYS_clock_nanosleep, 0, "a pause", 0, 0, 0 },
	{ 0 },
};

static uint8_t seen[ATTACK_PAGES][ATTACK_UNITS];
static struct {
	uint8_t *at;
	size_t len;
} mapping[DESCRIPTORS];
static __thread sigjmp_buf failed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* In place of the program's own: nothing is given back. */
int __wrap_close(int fd);
int __wrap_close(int fd)
{
	return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

static void touch_failed(int signal)
{
	siglongjmp(failed, signal);
}

/* Each of these two may fail at any moment, and is one frame to come back to. */
static bool __attribute__((noinline)) page_read(void *to, const void *from)
{
	if (sigsetjmp(failed, 0))
		return false;
	memcpy(to, from, PAGE);
	return true;
}

static void __attribute__((noinline)) word_write(volatile uint32_t *to, uint32_t value)
{
	if (!sigsetjmp(failed, 0))
		*to = value;
}

static void page_attack(uint8_t *at)
{
	static struct attack_unit copy[PAGE / sizeof(struct attack_unit)];
	struct attack_unit *there = (struct attack_unit *)at;

	if (!page_read(copy, at))
		return;
	for (unsigned int i = 0; i < PAGE / sizeof(*copy); i++) {
		uint32_t page = copy[i].page, unit = copy[i].unit & ~ATTACK_ALTERED;

		if (copy[i].magic != ATTACK_MAGIC || page >= ATTACK_PAGES || unit >= ATTACK_UNITS)
			continue;
		seen[page][unit] = 1;
		word_write(&there[i].unit, unit | ATTACK_ALTERED);
	}
}

static void descriptor_map(int fd)
{
	off_t end = lseek(fd, 0, SEEK_END);
	size_t len = end > 0 ? (size_t)end : LENGTH_MAX;
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (at == MAP_FAILED)
		at = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (at == MAP_FAILED)
		return;
	mapping[fd].at = at;
	mapping[fd].len = len;
}

static void descriptor_attack(int fd)
{
	if (!mapping[fd].at)
		descriptor_map(fd);
	for (size_t offset = 0; offset + PAGE <= mapping[fd].len; offset += PAGE)
		page_attack(mapping[fd].at + offset);
}

static void *attack(void *arg)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	struct sigaction action = { .sa_handler = touch_failed, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	for (;;) {
		for (int fd = 3; fd < DESCRIPTORS; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				descriptor_attack(fd);
		nanosleep(&pause, NULL);
	}
	return arg;
}

static unsigned int count(unsigned int first, unsigned int pages)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < pages * ATTACK_UNITS; i++)
		sum += seen[first + i / ATTACK_UNITS][i % ATTACK_UNITS];
	return sum;
}

/* The disk, with a thread more. */
static struct device_ops ops;
static const struct device_ops *real;

static void begin(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, attack, NULL);
}

static int start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		 const struct dev_vring *rings)
{
	pthread_once(&once, begin);
	return real->start(dev, memory, features, rings);
}

static int report(struct device *dev)
{
	(void)dev;
	fprintf(stderr, "seen: %u %u\n", count(0, ATTACK_IDLE), count(ATTACK_IDLE, ATTACK_ASKED));
	return 0;
}

static const struct option options[] = {
	{ "disk", required_argument, NULL, 1 },
	{ 0 },
};

static int take_option(void *arguments, int option, const char *value)
{
	(void)option;
	*(const char **)arguments = value;
	return 0;
}

static int open_device(void *arguments, struct device **ret)
{
	struct blk_options disk = {
		.fd = open(*(const char **)arguments, O_RDWR | O_CLOEXEC), .direct_fd = -1, .queues = 1,
	};
	int err = blk_create(&disk, ret);

	if (err)
		return err;
	real = (*ret)->ops;
	ops = *real;
	ops.start = start;
	(*ret)->ops = &ops;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct program program = {
		.name = "attack_device", .help = "", .options = options, .take = take_option,
		.open = open_device, .refresh = report, .calls = calls,
	};
	const char *disk = NULL;

	syscall(SYS_close_range, 3, ~0U, 0);	/* what it was not given */
	return program_main(&program, &disk, argc, argv);
}
