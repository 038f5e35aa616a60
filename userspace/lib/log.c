// SPDX-License-Identifier: MIT OR GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"

#define LOG_LINE_MAX	512

static const char *log_program = "moat";
static const char *log_instance;
static __thread char log_text[LOG_LAST_MAX];

void log_name(const char *program, const char *instance)
{
	log_program = program;
	log_instance = instance;
}

/* snprintf() says how much it would have written: keep to what there is. */
static size_t log_clamp(size_t at, int added)
{
	if (added < 0)
		return at;
	at += added;
	return at < LOG_LINE_MAX - 1 ? at : LOG_LINE_MAX - 1;
}

void log_error(const char *format, ...)
{
	char line[LOG_LINE_MAX];
	size_t begin, at = 0;
	va_list args;

	if (log_instance)
		at = log_clamp(at, snprintf(line, sizeof(line) - 1, "%s: %s: ", log_program,
					    log_instance));
	else
		at = log_clamp(at, snprintf(line, sizeof(line) - 1, "%s: ", log_program));
	begin = at;
	va_start(args, format);
	at = log_clamp(at, vsnprintf(line + at, sizeof(line) - 1 - at, format, args));
	va_end(args);
	line[at] = '\0';
	snprintf(log_text, sizeof(log_text), "%.*s", LOG_LAST_MAX - 1, line + begin);
	line[at++] = '\n';
	fd_write_full(STDERR_FILENO, line, at);
}

void log_last(char *ret, size_t size)
{
	snprintf(ret, size, "%s", log_text);
}
