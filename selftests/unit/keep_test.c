// SPDX-License-Identifier: MIT OR GPL-2.0
/* Requests to the keeper, and its answers: what neither of the two waits for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/moatd/keep.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define MANY		2000

static sd_event *event;
static int keeper;
static unsigned int answered, more, failed;

static void then(void *arg, const struct keeper_answer *answer, int fd)
{
	EXPECT(fd < 0 || !close(fd));
	answered += !answer->more;
	more += answer->more;
	failed += !!answer->error;
	*(unsigned int *)arg += 1;
}

static void turn(void)
{
	while (sd_event_run(event, 1000) > 0)
		;
}

struct request {
	struct keeper_head head;
	struct keeper_name name;
};

/* The next request, in its order; false: there is none. */
static bool take(struct request *request)
{
	return recv(keeper, request, sizeof(*request), MSG_DONTWAIT) ==
	       (ssize_t)(sizeof(request->head) + sizeof(request->name));
}

static void say(const struct request *request, uint32_t further)
{
	const struct keeper_answer answer = {
		.what = request->head.what, .serial = request->head.serial, .more = further,
	};

	EXPECT(send(keeper, &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer));
	turn();
}

/* The keeper reads nothing, and yet nobody waits for it. */
static void test_many(void)
{
	static unsigned int own[MANY];
	struct request request;
	unsigned int n = 0;

	answered = failed = 0;
	for (unsigned int i = 0; i < MANY; i++)
		keep_ask_name(KEEPER_USAGE, "web", then, &own[i]);
	EXPECT(!failed);
	turn();
	while (take(&request)) {
		EXPECT(request.head.serial == ++n && !strcmp(request.name.name, "web"));
		say(&request, 0);
	}
	EXPECT(n == MANY && answered == MANY);
	for (unsigned int i = 0; i < MANY; i++)
		EXPECT(own[i] == 1);
}

/* Many answers to one, none to none, and two where one was to be. */
static void test_answers(void)
{
	struct request request, other;
	unsigned int own = 0;

	answered = more = 0;
	keep_ask_name(KEEPER_LIST, "web", then, &own);
	turn();
	EXPECT(take(&request));
	say(&request, 1);
	say(&request, 1);
	other = request;
	other.head.serial = 12345;
	say(&other, 0);
	other = request;
	other.head.what = KEEPER_KILL;
	say(&other, 0);
	EXPECT(more == 2 && !answered);
	say(&request, 0);
	say(&request, 0);
	say(&request, 1);
	EXPECT(more == 2 && answered == 1 && own == 3);
	keep_ask_name(KEEPER_FORGET, "web", NULL, NULL);
	turn();
	EXPECT(take(&request));
	say(&request, 0);
}

/* Where there is no keeper any more, requests are told so, and the loop ends. */
static void test_end(void)
{
	unsigned int own = 0;

	failed = 0;
	close(keeper);
	keep_ask_name(KEEPER_USAGE, "web", then, &own);
	EXPECT(own == 1 && failed == 1);
	EXPECT(sd_event_loop(event) == 1);
}

static const struct unit_test tests[] = {
	{ "many requests that nobody reads", test_many },
	{ "answers, more and other than there should be", test_answers },
	{ "the end of the keeper", test_end },
};

int main(void)
{
	int ends[2], status;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ||
	    sd_event_new(&event) < 0 || keep_init(event, ends[1]) < 0)
		return 1;
	keeper = ends[0];
	status = unit_main(tests, ARRAY_SIZE(tests));
	sd_event_unref(event);
	return status;
}
