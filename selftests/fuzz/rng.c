// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Random numbers that find errors: borders more often than what is between them.
 */
#include "fuzz.h"

uint64_t rng_number(struct rng *rng)
{
	static const uint64_t borders[] = {
		0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
		0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffff, 0x800000000000,
		0xffff800000000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull,
	};

	switch (rng_below(rng, 6)) {
	case 0:
		return rng_next(rng);
	case 1:
		return 1ull << rng_below(rng, 64);
	case 2:
		return rng_next(rng) >> rng_below(rng, 64);
	case 3:
		return RNG_PICK(rng, borders) + rng_below(rng, 5) - 2;
	default:
		return RNG_PICK(rng, borders);
	}
}

void rng_fill(struct rng *rng, void *data, size_t size)
{
	uint8_t *byte = data;
	uint64_t x = 0;
	size_t i;

	for (i = 0; i < size; i++, x >>= 8) {
		if (i % 8 == 0)
			x = rng_next(rng);
		byte[i] = x;
	}
}

void rng_mutate(struct rng *rng, void *data, size_t size)
{
	unsigned int n = 1 + rng_below(rng, 3);
	uint8_t *byte = data;
	uint64_t value;
	size_t at;

	while (n--) {
		at = rng_below(rng, size);
		if (rng_one_in(rng, 2)) {
			byte[at] ^= 1u << rng_below(rng, 8);
		} else if (rng_one_in(rng, 2) && size >= 8) {
			value = rng_number(rng);
			memcpy(byte + at % (size - 7) / 8 * 8, &value, 8);
		} else {
			byte[at] = rng_number(rng);
		}
	}
}
