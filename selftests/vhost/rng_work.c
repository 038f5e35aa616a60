// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest does with its entropy source, as process 1, with modules in /modules: it reads blocks
 * of random bytes until the time is up. No two in a row are the same, in none is a byte far more
 * often than others.
 *
 *	init SECONDS
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "selftests/vhost/guest.h"

#define BLOCK	4096
#define OFTEN	64	/* of BLOCK / 256 on average */

static uint8_t block[2][BLOCK];

static bool block_read(int fd, uint8_t *to)
{
	for (size_t have = 0; have < BLOCK;) {
		ssize_t n = read(fd, to + have, BLOCK - have);

		if (n <= 0)
			return false;
		have += n;
	}
	return true;
}

static bool block_is_random(const uint8_t *bytes, const uint8_t *before)
{
	unsigned int count[256] = { 0 };

	for (unsigned int i = 0; i < BLOCK; i++)
		if (++count[bytes[i]] > OFTEN)
			return false;
	return memcmp(bytes, before, BLOCK);
}

static void guest_run(unsigned int seconds)
{
	unsigned int blocks = 0, errors = 0;
	time_t end;
	int fd;

	guest_begin();
	guest_wait_for("/dev/hwrng");
	fd = open("/dev/hwrng", O_RDONLY);
	if (fd < 0 || !block_read(fd, block[1]))
		guest_end();
	printf("working\n");
	for (end = time(NULL) + seconds; time(NULL) < end; blocks++) {
		uint8_t *now = block[blocks % 2];

		errors += !block_read(fd, now) || !block_is_random(now, block[!(blocks % 2)]);
	}
	printf("errors: %u\nblocks: %u end\n", errors, blocks);
	guest_end();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		guest_run(argc > 1 ? atoi(argv[1]) : 10);
	fprintf(stderr, "a guest's process 1\n");
	return 2;
}
