// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A program, or process 1, of a guest whose disk is not to be trusted: marks memory (attack.h), writes some of it to the
 * disk for a while, in pieces small and large, and says at last what of it was altered. Its argument is
 * for how many seconds.
 */
#include <stdlib.h>
#include <time.h>

#include "selftests/vhost/attack.h"
#include "selftests/vhost/guest.h"

#define PAGE	4096
#define LARGE	(128 * PAGE)

static void mark(struct attack_unit *pages)
{
	for (uint32_t page = 0; page < ATTACK_PAGES; page++)
		for (uint32_t unit = 0; unit < ATTACK_UNITS; unit++)
			pages[page * ATTACK_UNITS + unit] =
				(struct attack_unit){ ATTACK_MAGIC, page, unit };
}

static unsigned int altered(const struct attack_unit *pages, uint32_t first, uint32_t count)
{
	unsigned int sum = 0;

	for (uint32_t i = 0; i < count * ATTACK_UNITS; i++) {
		const struct attack_unit *unit = &pages[first * ATTACK_UNITS + i];

		sum += unit->magic != ATTACK_MAGIC || unit->page != first + i / ATTACK_UNITS ||
		       unit->unit != i % ATTACK_UNITS;
	}
	return sum;
}

/* A round of requests, out of the pages that are for that. */
static unsigned int ask(int disk, char *from, char *into)
{
	unsigned int failed = 0;

	for (unsigned int i = 0; i < 64; i++) {
		failed += pwrite(disk, from + i * PAGE + 512, 512, i * PAGE) != 512;
		failed += pwrite(disk, from + (64 + i) * PAGE, PAGE, i * PAGE) != PAGE;
		failed += pread(disk, into, PAGE, i * PAGE) != PAGE;
	}
	failed += pwrite(disk, from + 128 * PAGE, LARGE, LARGE) != LARGE;
	failed += pread(disk, into, LARGE, LARGE) != LARGE;
	return failed;
}

int main(int argc, char **argv)
{
	const size_t bytes = ATTACK_PAGES * PAGE;
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	unsigned int failed = 0, rounds = 0;
	char *pages, *into;
	int disk;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		guest_begin();
	guest_wait_for("/dev/vda");
	disk = open("/dev/vda", O_RDWR | O_DIRECT);
	if (posix_memalign((void **)&pages, PAGE, bytes) || posix_memalign((void **)&into, PAGE, LARGE))
		return 1;
	mark((struct attack_unit *)pages);
	for (; time(NULL) < end; rounds++)
		failed += ask(disk, pages + ATTACK_IDLE * PAGE, into);
	printf("rounds: %u\n", rounds);
	printf("failed: %u\n", failed);
	printf("altered: %u %u\n", altered((struct attack_unit *)pages, 0, ATTACK_IDLE),
	       altered((struct attack_unit *)pages, ATTACK_IDLE, ATTACK_ASKED));
	if (getpid() == 1)
		guest_end();
	return failed != 0;
}
