/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Slots of equal size, lent out in runs of neighbours; the first that fit, so that few are ever touched. */
#ifndef VMM_RUNS_H
#define VMM_RUNS_H

#include <stdint.h>

#define RUNS_MAX	16384

/* All zeroes, but for @size: none is lent. */
struct runs {
	unsigned int size;	/* at most RUNS_MAX */
	uint64_t busy[RUNS_MAX / 64];
};

/* Return: the first of @count neighbours, at least one; -1: there are none so long. */
int runs_take(struct runs *runs, unsigned int count);
void runs_give(struct runs *runs, unsigned int first, unsigned int count);

#endif /* VMM_RUNS_H */
