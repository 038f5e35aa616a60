/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_LOG_H
#define LIB_LOG_H

#include <stddef.h>

#define LOG_LAST_MAX	128

/**
 * log_name - what every line starts with
 * @program: as "moat-vmm"
 * @instance: as the name of a machine, or NULL. Both strings must stay
 */
void log_name(const char *program, const char *instance);

/**
 * log_error - one line on standard error: what went wrong, and what to do about it
 *
 * The line is written whole by one write(2), so that the lines of several threads do not mix.
 */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What this thread has said last, without what every line starts with, and cut at LOG_LAST_MAX; "": nothing. */
void log_last(char *ret, size_t size);

#endif /* LIB_LOG_H */
