/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Unit tests that speak TAP: a test is a function, a test program a table of them given to
 * unit_main(). What does not hold is said in a comment line, and fails the test that is running,
 * which goes on.
 */
#ifndef MOAT_UNIT_H
#define MOAT_UNIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct unit_test {
	const char *name;
	void (*run)(void);
};

static bool unit_failed;

static inline bool unit_check(bool holds, const char *what, const char *file, int line)
{
	if (!holds) {
		unit_failed = true;
		printf("# %s:%d: does not hold: %s\n", file, line, what);
	}
	return holds;
}

/* True where it holds. */
#define EXPECT(what) unit_check(!!(what), #what, __FILE__, __LINE__)

/* The program's exit status. */
static inline int unit_main(const struct unit_test *tests, size_t count)
{
	bool failed = false;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%zu\n", count);
	for (i = 0; i < count; i++) {
		unit_failed = false;
		tests[i].run();
		failed |= unit_failed;
		printf("%sok %zu - %s\n", unit_failed ? "not " : "", i + 1, tests[i].name);
	}
	return failed;
}

#endif
