// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-console, the program: in its sandbox, over its socket, with a driver that is this test. */
#include "selftests/unit/program_front.h"

#define PROGRAM	"build/bin/moat-console"

enum { TO_GUEST, FROM_GUEST };

static int terminal;

/* The master of a terminal whose slave the program opens by its path. */
static void start(void)
{
	program_start((const char *[]){ PROGRAM, "--console", ptsname(terminal), "--socket",
					socket_path, NULL });
	EXPECT(front_connect());
	front_set_up(0, 2);
}

static void begin(void)
{
	front_begin();
	terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	EXPECT(terminal >= 0 && !grantpt(terminal) && !unlockpt(terminal));
}

static void end(void)
{
	EXPECT(program_end(SIGTERM) == 0);
	close(terminal);
	front_end();
}

static void put_line(const char *line)
{
	EXPECT(write(terminal, line, strlen(line)) == (ssize_t)strlen(line));
}

/* A line goes to the guest, for which it has posted a buffer. */
static bool line_arrives(const char *line)
{
	return ring_complete(TO_GUEST, TIMEOUT_MS) == (int64_t)strlen(line) &&
	       !memcmp(memory + DATA, line, strlen(line));
}

static void want_line(void)
{
	ring_describe(TO_GUEST, 0, DATA, PAGE, VRING_DESC_F_WRITE);
	ring_submit(TO_GUEST, 0);
}

static bool guest_says(const char *text)
{
	char got[64] = "";
	struct pollfd wait = { .fd = terminal, .events = POLLIN };

	strcpy((char *)memory + DATA + PAGE, text);
	ring_describe(FROM_GUEST, 0, DATA + PAGE, strlen(text), 0);
	ring_submit(FROM_GUEST, 0);
	return ring_complete(FROM_GUEST, TIMEOUT_MS) == 0 && poll(&wait, 1, TIMEOUT_MS) == 1 &&
	       read(terminal, got, sizeof(got) - 1) > 0 && !strcmp(got, text);
}

/* The terminal echoes lines; that is not the guest's. */
static void drop_echo(void)
{
	char got[64];
	struct pollfd wait = { .fd = terminal, .events = POLLIN };

	EXPECT(poll(&wait, 1, TIMEOUT_MS) == 1 && read(terminal, got, sizeof(got)) > 0);
}

static void test_serves(void)
{
	begin();
	start();
	EXPECT(guest_says("hello, host"));
	want_line();
	put_line("hello, guest\n");
	EXPECT(line_arrives("hello, guest\n"));
	end();
}

/* What the guest waits for when the program is killed comes by the next one. */
static void test_killed_and_started(void)
{
	begin();
	start();
	want_line();
	for (unsigned int i = 0; i < 3; i++) {
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		close(front);
		start();
		put_line("a line\n");
		EXPECT(line_arrives("a line\n"));
		drop_echo();
		EXPECT(guest_says("still here"));
		want_line();
	}
	end();
}

static void test_pipes(void)
{
	char in[32], paths[80], got[8];
	int to[2], from[2];

	front_begin();
	EXPECT(!pipe2(to, O_CLOEXEC) && !pipe2(from, O_CLOEXEC));
	fcntl(to[0], F_SETFD, 0);
	fcntl(from[1], F_SETFD, 0);
	snprintf(in, sizeof(in), "/proc/self/fd/%d", to[0]);
	snprintf(paths, sizeof(paths), "%s,/proc/self/fd/%d", in, from[1]);
	program_start((const char *[]){ PROGRAM, "--console", paths, "--socket", socket_path,
					NULL });
	EXPECT(front_connect());
	front_set_up(0, 2);
	want_line();
	EXPECT(write(to[1], "in", 2) == 2 && line_arrives("in"));
	memcpy(memory + DATA + PAGE, "out", 3);
	ring_describe(FROM_GUEST, 0, DATA + PAGE, 3, 0);
	ring_submit(FROM_GUEST, 0);
	EXPECT(read(from[0], got, sizeof(got)) == 3 && !memcmp(got, "out", 3));
	EXPECT(program_end(SIGTERM) == 0);
	for (unsigned int i = 0; i < 2; i++) {
		close(to[i]);
		close(from[i]);
	}
	front_end();
}

static void test_command_line(void)
{
	EXPECT(program_exits(PROGRAM, "--fd 3", 2));
	EXPECT(program_exits(PROGRAM, "--console /dev/null", 2));
	EXPECT(program_exits(PROGRAM, "--console /none --fd 0", 1));
	EXPECT(program_exits(PROGRAM, "--console /dev/null,/none --fd 0", 1));
	EXPECT(program_exits(PROGRAM, "--help", 0));
}

static const struct unit_test tests[] = {
	{ "a terminal is served", test_serves },
	{ "killed and started again", test_killed_and_started },
	{ "two pipes, handed over", test_pipes },
	{ "command lines that are none", test_command_line },
};

int main(void)
{
	int status;

	if (!program_tests_begin())
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	program_tests_end();
	return status;
}
