// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest does with its disk, and what is checked of it.
 *
 * As process 1 of a guest, with modules in /modules: several threads write their parts of /dev/vda
 * past the page cache, in pieces of random size and order, flush, and read all of it back; one round
 * after the other until the time is up. What a sector holds follows from its number and the round.
 * It prints the rounds of each thread, and ends the machine.
 *
 *	init SECONDS				as above
 *	disk_work work FILE SECONDS		in a guest that is up: the same, with a file or device
 *	disk_work FILE ROUNDS...		outside: does the file hold what these rounds left?
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "selftests/vhost/guest.h"

#define SECTOR		512
#define WORDS		(SECTOR / sizeof(uint64_t))
#define WORKERS		6
#define PIECE_MAX	(128 << 10)

struct worker {
	pthread_t thread;
	unsigned int number;
	unsigned int rounds;
	uint64_t random;
	uint64_t *piece;
	int fd;
};

static uint64_t part_size;
static time_t end_time;
static atomic_uint errors;

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

static void sector_fill(uint64_t *words, uint64_t sector, unsigned int round)
{
	for (unsigned int i = 0; i < WORDS; i++)
		words[i] = mix(sector * 64 + i + ((uint64_t)round << 48));
}

static bool sector_holds(const uint64_t *words, uint64_t sector, unsigned int round)
{
	uint64_t wanted[WORDS];

	sector_fill(wanted, sector, round);
	return !memcmp(words, wanted, sizeof(wanted));
}

static void fail(const struct worker *worker, const char *what, uint64_t offset)
{
	if (errors++ < 10)
		printf("error: worker %u, round %u: %s at %#llx: %s\n", worker->number,
		       worker->rounds, what, (unsigned long long)offset, strerror(errno));
}

static void piece_write(struct worker *worker, uint64_t offset, size_t len)
{
	for (size_t at = 0; at < len; at += SECTOR)
		sector_fill(worker->piece + at / 8, (offset + at) / SECTOR, worker->rounds);
	if (pwrite(worker->fd, worker->piece, len, offset) != (ssize_t)len)
		fail(worker, "write", offset);
}

static void piece_check(struct worker *worker, uint64_t offset, size_t len)
{
	if (pread(worker->fd, worker->piece, len, offset) != (ssize_t)len) {
		fail(worker, "read", offset);
		return;
	}
	errno = 0;
	for (size_t at = 0; at < len; at += SECTOR)
		if (!sector_holds(worker->piece + at / 8, (offset + at) / SECTOR, worker->rounds))
			fail(worker, "wrong data", offset + at);
}

/* The part in pieces of random size, one after the other, from a random place on. */
static void part_do(struct worker *worker, void (*piece)(struct worker *, uint64_t, size_t))
{
	const uint64_t base = worker->number * part_size;
	uint64_t done = 0, at;

	worker->random = mix(worker->random + 1);
	at = worker->random % (part_size / SECTOR) * SECTOR;
	while (done < part_size) {
		size_t len;

		worker->random = mix(worker->random + 1);
		len = (1 + worker->random % (PIECE_MAX / SECTOR)) * SECTOR;
		if (len > part_size - done)
			len = part_size - done;
		if (len > part_size - at)
			len = part_size - at;
		piece(worker, base + at, len);
		done += len;
		at = (at + len) % part_size;
	}
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;

	while (time(NULL) < end_time && !errors) {
		worker->rounds++;
		part_do(worker, piece_write);
		if (fdatasync(worker->fd))
			fail(worker, "flush", 0);
		part_do(worker, piece_check);
	}
	return NULL;
}

static int disk_work(const char *path, unsigned int seconds)
{
	static struct worker worker[WORKERS];
	int fd = open(path, O_RDWR | O_DIRECT);
	const off_t size = lseek(fd, 0, SEEK_END);

	if (size <= 0) {
		printf("error: %s: %s\n", path, strerror(errno));
		return 1;
	}
	part_size = size / WORKERS / SECTOR * SECTOR;
	end_time = time(NULL) + seconds;
	printf("working\n");
	for (unsigned int i = 0; i < WORKERS; i++) {
		worker[i].number = i;
		worker[i].fd = fd;
		worker[i].piece = aligned_alloc(4096, PIECE_MAX);
		pthread_create(&worker[i].thread, NULL, worker_run, &worker[i]);
	}
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(worker[i].thread, NULL);
	printf("errors: %u\nrounds:", errors);
	for (unsigned int i = 0; i < WORKERS; i++)
		printf(" %u", worker[i].rounds);
	printf(" end\n");
	return errors > 0;
}

static int disk_verify(const char *path, char **rounds)
{
	static uint64_t piece[PIECE_MAX / 8];
	struct worker worker = { .piece = piece, .fd = open(path, O_RDONLY) };
	const off_t size = lseek(worker.fd, 0, SEEK_END);

	if (size <= 0)
		return 1;
	part_size = size / WORKERS / SECTOR * SECTOR;
	for (unsigned int i = 0; i < WORKERS; i++) {
		worker.number = i;
		worker.rounds = atoi(rounds[i]);
		part_do(&worker, piece_check);
	}
	return errors > 0;
}

/* By bit 34 of the features that the driver has negotiated. */
static void guest_say_rings(void)
{
	FILE *file = fopen("/sys/block/vda/device/features", "r");
	char bits[65] = "";

	if (file && fscanf(file, "%64s", bits) == 1)
		printf("rings: %s\n", bits[34] == '1' ? "packed" : "split");
	if (file)
		fclose(file);
}

static void guest_run(unsigned int seconds)
{
	guest_begin();
	guest_wait_for("/dev/vda");
	guest_say_rings();
	disk_work("/dev/vda", seconds);
	guest_end();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		guest_run(argc > 1 ? atoi(argv[1]) : 10);
	if (argc == 4 && !strcmp(argv[1], "work"))
		return disk_work(argv[2], atoi(argv[3]));
	if (argc != 2 + WORKERS) {
		fprintf(stderr, "usage: disk_work { FILE ROUNDS... | work FILE SECONDS }\n");
		return 2;
	}
	return disk_verify(argv[1], argv + 2);
}
