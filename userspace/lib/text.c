// SPDX-License-Identifier: MIT OR GPL-2.0
#include "userspace/lib/text.h"

void text_clean(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((text[i] < ' ' && text[i] != '\n' && text[i] != '\t') || text[i] == 0x7f)
			text[i] = '.';
}
