// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The TAP half of a test program: which case runs, whether it failed, and a clock on it.
 *
 * A case that hangs is a result too: SIGALRM names it and ends the program. Cases run in the main
 * thread; checks may come from any thread.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

#define CASE_SECONDS	18

static atomic_bool case_failed;
static bool case_skipped;
static const char *case_name = "start";
static char skip_reason[200];

static void line_print(const char *file, int line, const char *format, va_list args)
{
	char text[500];

	vsnprintf(text, sizeof(text), format, args);
	if (file)
		printf("# %s:%d: %s\n", file, line, text);
	else
		printf("# %s\n", text);
}

void tap_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	line_print(NULL, 0, format, args);
	va_end(args);
}

void tap_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(skip_reason, sizeof(skip_reason), format, args);
	va_end(args);
	case_skipped = true;
}

void tap_bail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("Bail out! %s: ", case_name);
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(1);
}

bool tap_failed(void)
{
	return case_failed;
}

bool tap_check(bool holds, const char *file, int line, const char *format, ...)
{
	va_list args;

	if (holds)
		return true;
	case_failed = true;
	va_start(args, format);
	line_print(file, line, format, args);
	va_end(args);
	return false;
}

bool tap_check_eq(uint64_t got, uint64_t want, const char *file, int line, const char *what)
{
	return tap_check(got == want, file, line, "%s: got %#llx, wanted %#llx", what,
			 (unsigned long long)got, (unsigned long long)want);
}

/* From a signal handler: write(), no stdio. */
static void death_say(int sig)
{
	const char *why = sig == SIGALRM ? ": still running, deadline passed\n" :
			  sig == SIGSEGV ? ": the test program got SIGSEGV\n" :
					   ": the test program got SIGBUS\n";
	ssize_t n;

	n = write(STDOUT_FILENO, "Bail out! ", 10);
	n += write(STDOUT_FILENO, case_name, strlen(case_name));
	n += write(STDOUT_FILENO, why, strlen(why));
	_exit(n > 0 ? 1 : 2);
}

static bool case_chosen(const char *name, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!strcmp(name, argv[i]))
			return true;
	return argc < 2;
}

/* True where it passed or was skipped. */
static bool case_run(const struct tap_case *c, size_t number)
{
	case_failed = false;
	case_skipped = false;
	case_name = c->name;
	alarm(CASE_SECONDS);
	c->run();
	alarm(0);
	if (case_skipped && !case_failed)
		printf("ok %zu - %s # SKIP %s\n", number, c->name, skip_reason);
	else
		printf("%sok %zu - %s\n", case_failed ? "not " : "", number, c->name);
	return !case_failed;
}

int tap_main(int argc, char **argv, const struct tap_case *cases, size_t count)
{
	size_t i, ran = 0, skipped = 0;
	bool passed = true;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, death_say);
	signal(SIGSEGV, death_say);
	signal(SIGBUS, death_say);
	printf("TAP version 13\n");
	for (i = 0; i < count; i++) {
		if (!case_chosen(cases[i].name, argc, argv))
			continue;
		passed &= case_run(&cases[i], ++ran);
		skipped += case_skipped;
	}
	printf("1..%zu\n", ran);
	if (!passed || !ran)
		return 1;
	return skipped == ran ? 4 : 0;
}
