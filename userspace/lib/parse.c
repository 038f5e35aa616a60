// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>

#include "userspace/lib/parse.h"

/* Digits up to the first character that is none, which *end then points to. */
static int parse_digits(const char *text, const char **end, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, *text - '0', &value))
			return -ERANGE;
	*end = text;
	*ret_value = value;
	return 0;
}

static int parse_range(uint64_t value, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	if (value < min || value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	const char *end;
	uint64_t value;
	int err = parse_digits(text, &end, &value);

	if (err)
		return err;
	if (*end)
		return -EINVAL;
	return parse_range(value, min, max, ret_value);
}

static int parse_suffix(char suffix)
{
	switch (suffix) {
	case '\0':
		return 0;
	case 'k': case 'K':
		return 10;
	case 'm': case 'M':
		return 20;
	case 'g': case 'G':
		return 30;
	}
	return -EINVAL;
}

int parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	const char *end;
	uint64_t value;
	int shift, err = parse_digits(text, &end, &value);

	if (err)
		return err;
	shift = parse_suffix(*end);
	if (shift < 0 || (*end && end[1]))
		return -EINVAL;
	if (value > UINT64_MAX >> shift)
		return -ERANGE;
	return parse_range(value << shift, min, max, ret_value);
}
