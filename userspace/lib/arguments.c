// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "userspace/lib/arguments.h"

void arguments_add(struct arguments *arguments, const char *format, ...)
{
	va_list args;
	char *text;
	int len;

	va_start(args, format);
	len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0) {
		arguments->err = -ENOMEM;
	} else if (arguments->count == ARGUMENTS_MAX) {
		arguments->err = -E2BIG;
		free(text);
	} else {
		arguments->value[arguments->count++] = text;
	}
}

void arguments_finish(struct arguments *arguments)
{
	while (arguments->count)
		free(arguments->value[--arguments->count]);
}
