// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer, a way into the model check: the first byte chooses format and levels, the others
 * are the program.
 */
#include <stdio.h>
#include <stdlib.h>

#include "selftests/unit/stage2_model.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	const char *failure;
	int line;

	if (!size)
		return 0;
	failure = stage2_model_run(data + 1, size - 1, data[0] & 1, data[0] & 2 ? 5 : 4, &line);
	if (failure) {
		fprintf(stderr, "stage2_model.c:%d: does not hold: %s\n", line, failure);
		abort();
	}
	return 0;
}
