/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Tests that speak TAP. A program is a table of cases given to tap_main(); a case is a function
 * that checks as often as it likes and goes on after a check that fails, so that one run shows all
 * that is wrong. Each check that fails says where, and with which values.
 *
 *	PROGRAM			runs all cases
 *	PROGRAM NAME...		runs the cases so named
 */
#ifndef MOAT_TAP_H
#define MOAT_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tap_case {
	const char *name;
	void (*run)(void);
};

/* Exit status: 0 all passed, 1 something failed, 4 every case was skipped (kselftest's numbers). */
int tap_main(int argc, char **argv, const struct tap_case *cases, size_t count);

/* A line for the reader, no verdict. */
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Marks the running case as skipped; it must then return. */
void tap_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the whole program, where nothing can be tested at all. */
void tap_bail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* True where the running case has failed already. */
bool tap_failed(void);

bool tap_check(bool holds, const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
bool tap_check_eq(uint64_t got, uint64_t want, const char *file, int line, const char *what);

/* Each is true where it holds; what follows the condition is a printf format and its values. */
#define CHECK(holds, ...) tap_check(!!(holds), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK_EQ(got, want) \
	tap_check_eq((uint64_t)(got), (uint64_t)(want), __FILE__, __LINE__, #got)

/* A system call's result: wants -1 and this errno. */
#define CHECK_ERRNO(call, want) \
	({ \
		long r_ = (call); \
		int e_ = r_ < 0 ? errno : 0; \
		tap_check(r_ < 0 && e_ == (want), __FILE__, __LINE__, \
			  "%s: got %ld, errno %d (%s), wanted errno %d (%s)", \
			  #call, r_, e_, strerror(e_), (want), strerror(want)); \
	})
/* A system call's result: wants no error. */
#define CHECK_CALL(call) \
	({ \
		long r_ = (call); \
		tap_check(r_ >= 0, __FILE__, __LINE__, "%s: %ld, errno %d (%s)", #call, r_, errno, \
			  strerror(errno)); \
	})

#define SKIP(...) do { tap_skip(__VA_ARGS__); return; } while (0)

#define TAP_MAIN(cases) \
	int main(int argc, char **argv) \
	{ \
		return tap_main(argc, argv, cases, sizeof(cases) / sizeof((cases)[0])); \
	}

#endif
