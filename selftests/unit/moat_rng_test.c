// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-rng, the program: in its sandbox, over its socket, with a driver that is this test. */
#include "selftests/unit/program_front.h"

#define PROGRAM	"build/bin/moat-rng"

static void start(void)
{
	program_start((const char *[]){ PROGRAM, "--socket", socket_path, NULL });
	EXPECT(front_connect());
	front_set_up(0, 1);
}

/* One request for 64 bytes: are they other than they were? */
static bool request(void)
{
	uint8_t before[64];

	memcpy(before, memory + DATA, sizeof(before));
	ring_describe(0, 0, DATA, sizeof(before), VRING_DESC_F_WRITE);
	ring_submit(0, 0);
	return ring_complete(0, TIMEOUT_MS) == sizeof(before) &&
	       memcmp(before, memory + DATA, sizeof(before));
}

static void test_serves(void)
{
	front_begin();
	start();
	EXPECT(request() && request());
	/* Of more than it gives at once. */
	ring_describe(0, 0, DATA, 32 * PAGE, VRING_DESC_F_WRITE);
	ring_submit(0, 0);
	EXPECT(ring_complete(0, TIMEOUT_MS) == PAGE);
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* A ring that is broken is left alone; what comes with the next front end is served. */
static void test_broken(void)
{
	front_begin();
	start();
	ring_describe(0, 0, DATA, 64, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
	ring_describe(0, 1, DATA, 64, VRING_DESC_F_NEXT);
	ring_submit(0, 0);
	EXPECT(ring_complete(0, QUIET_MS) < 0);
	close(front);
	memset(memory, 0, MEMORY_SIZE);
	EXPECT(front_connect());
	front_set_up(0, 1);
	EXPECT(request());
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

static void test_killed_and_started(void)
{
	front_begin();
	for (unsigned int i = 0; i < 4; i++) {
		start();
		EXPECT(request());
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		/* While nobody is there. */
		ring_submit(0, 0);
		close(front);
		start();
		EXPECT(ring_complete(0, TIMEOUT_MS) == 64);
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		close(front);
	}
	front_end();
}

static void test_command_line(void)
{
	EXPECT(program_exits(PROGRAM, "", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 more", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 --disk x", 2));
	EXPECT(program_exits(PROGRAM, "--help", 0));
	EXPECT(program_exits(PROGRAM, "--socket /none/none", 1));
}

static const struct unit_test tests[] = {
	{ "random bytes are served", test_serves },
	{ "a broken ring ends with its front end", test_broken },
	{ "killed and started again", test_killed_and_started },
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
