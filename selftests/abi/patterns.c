// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The first process of a guest that is saved or moved while it writes memory.
 *
 * A thread on each CPU has a piece of memory, in which each word tells its place and how often it
 * has been written. Pass after pass, it finds in each what it wrote in the pass before, and writes
 * the next. So a page that comes back older, or was mixed up with another, is seen in the pass that
 * follows, and said: "LOST"; a pass that found all as it was is said as well.
 */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE_SIZE	(12 << 20)
#define PIECE_WORDS	(PIECE_SIZE / sizeof(uint64_t))
/* "moat" in the upper half of each word, for those who look for the pieces from outside */
#define WORD_MARK	(0x74616f6dull << 32)

struct piece {
	unsigned int cpu;
	unsigned int pass;
	volatile uint64_t *word;
};

/* The place and the pass both count: an older word is never the right one, and no neighbour is. */
static uint64_t word_value(const struct piece *piece, size_t place, unsigned int pass)
{
	uint32_t number = piece->cpu * PIECE_WORDS + place;

	return WORD_MARK | (number * 2654435761u + pass * 40503u);
}

static void piece_fill(struct piece *piece)
{
	size_t i;

	for (i = 0; i < PIECE_WORDS; i++)
		piece->word[i] = word_value(piece, i, piece->pass);
}

/* How many words are not those of the last pass; all are those of the next one afterwards. */
static size_t piece_pass(struct piece *piece)
{
	size_t i, lost = 0;
	uint64_t got;

	for (i = 0; i < PIECE_WORDS; i++) {
		got = piece->word[i];
		piece->word[i] = word_value(piece, i, piece->pass + 1);
		if (got == word_value(piece, i, piece->pass))
			continue;
		if (!lost++)
			printf("LOST: cpu %u word %zu holds %llx\n", piece->cpu, i,
			       (unsigned long long)got);
	}
	piece->pass++;
	return lost;
}

static void *piece_run(void *data)
{
	struct piece *piece = data;
	cpu_set_t set;
	size_t lost;

	CPU_ZERO(&set);
	CPU_SET(piece->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		printf("LOST: cpu %u is not there\n", piece->cpu);
	piece_fill(piece);
	for (;;) {
		lost = piece_pass(piece);
		if (lost)
			printf("LOST: cpu %u pass %u: %zu words\n", piece->cpu, piece->pass, lost);
		else
			printf("cpu %u pass %u\n", piece->cpu, piece->pass);
	}
	return NULL;
}

static void piece_start(struct piece *piece, unsigned int cpu)
{
	pthread_t thread;

	piece->cpu = cpu;
	piece->pass = 1;
	piece->word = mmap(NULL, PIECE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	if (piece->word == MAP_FAILED || pthread_create(&thread, NULL, piece_run, piece))
		printf("LOST: no memory or no thread for cpu %u\n", cpu);
}

int main(void)
{
	unsigned int cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu;
	struct piece *pieces = calloc(cpus, sizeof(*pieces));

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!pieces)
		return 1;
	printf("%u cpus\n", cpus);
	for (cpu = 0; cpu < cpus; cpu++)
		piece_start(&pieces[cpu], cpu);
	for (;;)
		pause();
}
