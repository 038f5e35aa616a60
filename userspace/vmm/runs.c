// SPDX-License-Identifier: MIT OR GPL-2.0
#include "userspace/vmm/runs.h"

/* The first slot from @at on that is busy, or that is not, where @flip is ~0; @end: none is. */
static unsigned int runs_find(const struct runs *runs, unsigned int at, unsigned int end,
			      uint64_t flip)
{
	while (at < end) {
		uint64_t word = (runs->busy[at / 64] ^ flip) >> at % 64;

		if (word) {
			at += __builtin_ctzll(word);
			break;
		}
		at += 64 - at % 64;
	}
	return at < end ? at : end;
}

static void runs_mark(struct runs *runs, unsigned int first, unsigned int count, uint64_t busy)
{
	while (count) {
		unsigned int shift = first % 64, some = 64 - shift;
		uint64_t mask;

		if (some > count)
			some = count;
		mask = ~0ULL >> (64 - some) << shift;
		runs->busy[first / 64] = (runs->busy[first / 64] & ~mask) | (busy & mask);
		first += some;
		count -= some;
	}
}

int runs_take(struct runs *runs, unsigned int count)
{
	unsigned int at = runs_find(runs, 0, runs->size, ~0ULL);

	while (count <= runs->size - at) {
		unsigned int busy = runs_find(runs, at, at + count, 0);

		if (busy == at + count) {
			runs_mark(runs, at, count, ~0ULL);
			return at;
		}
		at = runs_find(runs, busy, runs->size, ~0ULL);
	}
	return -1;
}

void runs_give(struct runs *runs, unsigned int first, unsigned int count)
{
	runs_mark(runs, first, count, 0);
}
