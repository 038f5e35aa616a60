// SPDX-License-Identifier: MIT OR GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "userspace/moatd/why.h"

int why_say(char *why, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, WHY_SIZE, format, args);
	va_end(args);
	why[strcspn(why, "\n")] = '\0';
	return err;
}
