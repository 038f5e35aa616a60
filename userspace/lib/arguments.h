/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_ARGUMENTS_H
#define LIB_ARGUMENTS_H

#define ARGUMENTS_MAX	400

/**
 * struct arguments - a command line that is put together, all zeroes at first
 * @value: NULL behind the last
 * @err: 0; -ENOMEM or -E2BIG: it is not complete
 */
struct arguments {
	char *value[ARGUMENTS_MAX + 1];
	unsigned int count;
	int err;
};

void arguments_add(struct arguments *arguments, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void arguments_finish(struct arguments *arguments);

#endif /* LIB_ARGUMENTS_H */
