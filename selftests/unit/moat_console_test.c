// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-console, the program: in its sandbox, over its socket, with a driver that is this test. */
#include <linux/virtio_console.h>

#include "selftests/unit/program_front.h"

#define PROGRAM	"build/bin/moat-console"

enum { TO_GUEST, FROM_GUEST, CONTROL_IN, CONTROL_OUT, PORT_IN, PORT_OUT };

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
	/* Nobody reads any more: what the guest says is lost, and it may say more. */
	close(from[0]);
	close(from[1]);
	for (unsigned int i = 0; i < 3; i++) {
		ring_submit(FROM_GUEST, 0);
		EXPECT(ring_complete(FROM_GUEST, TIMEOUT_MS) == 0);
	}
	want_line();
	EXPECT(write(to[1], "more", 4) == 4 && line_arrives("more"));
	EXPECT(program_end(SIGTERM) == 0);
	/* What was handed over is as it was. */
	EXPECT(!(fcntl(to[0], F_GETFL) & O_NONBLOCK));
	close(to[0]);
	close(to[1]);
	front_end();
}

/* The next thing that the program says of ports. */
static bool hears(uint32_t id, uint16_t event)
{
	struct virtio_console_control said;

	ring_describe(CONTROL_IN, 0, DATA + 2 * PAGE, PAGE, VRING_DESC_F_WRITE);
	ring_submit(CONTROL_IN, 0);
	if (ring_complete(CONTROL_IN, TIMEOUT_MS) < (int64_t)sizeof(said))
		return false;
	memcpy(&said, memory + DATA + 2 * PAGE, sizeof(said));
	return said.id == id && said.event == event && said.value == 1;
}

static void says(uint32_t id, uint16_t event)
{
	const struct virtio_console_control said = { .id = id, .event = event, .value = 1 };

	memcpy(memory + DATA + 3 * PAGE, &said, sizeof(said));
	ring_describe(CONTROL_OUT, 0, DATA + 3 * PAGE, sizeof(said), 0);
	ring_submit(CONTROL_OUT, 0);
	EXPECT(ring_complete(CONTROL_OUT, TIMEOUT_MS) == 0);
}

/* A console and a port, which the guest opens; the next process goes on with both. */
static void test_ports(void)
{
	char port[64];
	int pair[2];

	begin();
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	for (unsigned int i = 0; i < 3; i++) {
		snprintf(port, sizeof(port), "agent,/proc/self/fd/%d", pair[1]);
		program_start((const char *[]){ PROGRAM, "--console", ptsname(terminal), "--port",
						port, "--socket", socket_path, NULL });
		EXPECT(front_connect());
		front_set_up(1ULL << VIRTIO_CONSOLE_F_MULTIPORT, 6);
		if (!i)
			says(0, VIRTIO_CONSOLE_DEVICE_READY);
		EXPECT(hears(0, VIRTIO_CONSOLE_PORT_ADD) && hears(1, VIRTIO_CONSOLE_PORT_ADD));
		says(1, VIRTIO_CONSOLE_PORT_READY);
		EXPECT(hears(1, VIRTIO_CONSOLE_PORT_NAME) && hears(1, VIRTIO_CONSOLE_PORT_OPEN));
		if (!i)
			says(1, VIRTIO_CONSOLE_PORT_OPEN);
		ring_describe(PORT_IN, 0, DATA, PAGE, VRING_DESC_F_WRITE);
		ring_submit(PORT_IN, 0);
		EXPECT(write(pair[0], "hello", 5) == 5);
		EXPECT(ring_complete(PORT_IN, TIMEOUT_MS) == 5 && !memcmp(memory + DATA, "hello", 5));
		EXPECT(guest_says("a line"));
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		close(front);
	}
	close(pair[0]);
	close(pair[1]);
	close(terminal);
	front_end();
}

static void test_command_line(void)
{
	EXPECT(program_exits(PROGRAM, "--port /dev/null --fd 0", 2));
	EXPECT(program_exits(PROGRAM, "--port ,/dev/null --fd 0", 2));
	EXPECT(program_exits(PROGRAM, "--port a-name-of-exactly-32-characters-,/dev/null --fd 0", 2));
	EXPECT(program_exits(PROGRAM, "$(printf -- '--console x %.0s' 1 2 3 4 5 6 7 8 9) --fd 0", 2));
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
	{ "ports, and those of a process before", test_ports },
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
