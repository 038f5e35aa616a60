/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_PARSE_H
#define LIB_PARSE_H

#include <stdint.h>

/*
 * Both take the whole of a string or nothing of it: decimal digits, no sign, no space.
 * Return: 0; -EINVAL for what is no number; -ERANGE outside min..max. ret_value untouched then.
 */
int parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

/* Bytes, or with a suffix KiB, MiB, GiB: K, M or G, of either case. */
int parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

#endif /* LIB_PARSE_H */
