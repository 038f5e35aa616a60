// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The control socket between clients, good and bad, and verbs that only note what they are asked. Then all
 * that is no message, each byte of one in its turn, and at random.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/vmm/control.h"

#define WAIT_MS		5000

static struct control control;
static struct sockaddr_un address;
static int listener;

/* The verbs */

static unsigned int calls;
static struct control_request last;
static char got[8];
static int kept = -1;

static int note(const struct control_request *request)
{
	__atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
	last = *request;
	return 0;
}

static int verb_info(struct control_call *call)
{
	call->answer.info.pid = 1234;
	return call->owner == &control && call->descriptor < 0 ? note(call->request) : -EBADE;
}

static int verb_value(struct control_call *call)
{
	note(call->request);
	return call->request->value == 5 ? 0 : -EDOM;
}

static int verb_reads(struct control_call *call)
{
	if (pread(call->descriptor, got, sizeof(got) - 1, 0) < 0)
		return -errno;
	return note(call->request);
}

static int verb_keeps(struct control_call *call)
{
	kept = call->descriptor;
	call->descriptor = -1;
	return note(call->request);
}

static int verb_later(struct control_call *call)
{
	note(call->request);
	return CONTROL_LATER;
}

static int verb_resumes(struct control_call *call)
{
	note(call->request);
	control_finish_late(call->owner, CONTROL_PAUSE, -EXDEV);
	control_tell(call->owner, CONTROL_RESTARTED, "a name");
	return 0;
}

static const struct control_verb table[CONTROL_DUMP + 1] = {
	[CONTROL_INFO] = { .act = verb_info },
	[CONTROL_PAUSE] = { .act = verb_later },
	[CONTROL_RESUME] = { .act = verb_resumes },
	[CONTROL_BALLOON] = { .act = verb_value, .value = true },
	[CONTROL_CONSOLE] = { .act = verb_keeps, .descriptor = true },
	[CONTROL_ATTACH] = {
		.act = verb_reads, .descriptor = true, .isolation = true, .type = true, .name = true,
	},
	[CONTROL_DETACH] = { .act = verb_value, .name = true },
};

/* The client */

static int client(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	EXPECT(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)));
	return fd;
}

static bool readable(int fd, int ms)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, ms) == 1;
}

static struct control_answer answer_of(int fd)
{
	struct control_answer answer = { .what = -1 };

	EXPECT(readable(fd, WAIT_MS) && recv(fd, &answer, sizeof(answer), 0) == sizeof(answer));
	return answer;
}

static bool is_dropped(int fd)
{
	char byte;

	return readable(fd, WAIT_MS) && recv(fd, &byte, 1, 0) <= 0;
}

static struct control_answer ask(int fd, struct control_request request, int descriptor)
{
	struct control_answer answer;

	request.serial = rand();
	EXPECT(!fd_send(fd, &request, sizeof(request), descriptor));
	answer = answer_of(fd);
	EXPECT(answer.what == request.what && answer.serial == request.serial);
	return answer;
}

static const struct control_request info = { .what = CONTROL_INFO };
static const struct control_request attach = {
	.what = CONTROL_ATTACH, .isolation = CONTROL_SHARED, .type = "blk", .name = "disk",
};

/* Tests */

static void test_answers(void)
{
	int fd = client(), file = memfd_create("file", MFD_CLOEXEC);
	struct control_answer answer = ask(fd, info, -1);

	EXPECT(!answer.error && answer.info.pid == 1234);
	EXPECT(!ask(fd, (struct control_request){ .what = CONTROL_BALLOON, .value = 5 }, -1).error);
	EXPECT(ask(fd, (struct control_request){ .what = CONTROL_BALLOON, .value = 6 }, -1).error ==
	       -EDOM);
	EXPECT(pwrite(file, "content", 7, 0) == 7);
	EXPECT(!ask(fd, attach, file).error && !strcmp(got, "content") &&
	       !strcmp(last.name, "disk") && last.isolation == CONTROL_SHARED);
	EXPECT(!ask(fd, (struct control_request){ .what = CONTROL_CONSOLE }, file).error);
	EXPECT(kept >= 0 && pread(kept, got, 7, 0) == 7);
	fd_close(kept);
	close(file);
	close(fd);
}

static int descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* All that there is when nobody is connected; connections are closed a moment after their clients. */
static int idle_descriptors;

static bool nothing_is_left(void)
{
	for (int i = 0; i < WAIT_MS && descriptors() != idle_descriptors; i++)
		usleep(1000);
	return descriptors() == idle_descriptors;
}

/* Each closes its connection, leaves no descriptor behind, and does not come to any verb. */
static void expect_none(const void *message, size_t len, int descriptor)
{
	unsigned int before = __atomic_load_n(&calls, __ATOMIC_SEQ_CST);
	int fd = client();

	EXPECT(!fd_send(fd, message, len, descriptor));
	if (!EXPECT(is_dropped(fd)))
		printf("# of %zu bytes, what is %u\n", len, *(const uint32_t *)message);
	EXPECT(__atomic_load_n(&calls, __ATOMIC_SEQ_CST) == before);
	close(fd);
}

static void expect_no_request(struct control_request request, int descriptor)
{
	expect_none(&request, sizeof(request), descriptor);
}

static void test_wrong(void)
{
	char space[sizeof(struct control_request) + 1] = { CONTROL_INFO };
	struct control_request full = attach;

	for (size_t len = 1; len <= sizeof(space); len++)
		if (len != sizeof(struct control_request))
			expect_none(space, len, -1);
	for (uint32_t what = 0; what < 70; what++)
		if (what > CONTROL_DUMP || !table[what].act)
			expect_no_request((struct control_request){ .what = what }, -1);
	expect_no_request((struct control_request){ .what = 0x80000001 }, -1);
	expect_no_request(info, 0);
	expect_no_request(attach, -1);
	memset(full.name, 'x', sizeof(full.name));
	expect_no_request(full, 0);
	full = attach;
	memset(full.type, 'x', sizeof(full.type));
	expect_no_request(full, 0);
	full = attach;
	full.isolation = 2;
	expect_no_request(full, 0);
	full = attach;
	*full.name = '\0';
	expect_no_request(full, 0);
}

/* Of a request that has nothing but its number, no other byte may be set. */
static void test_each_byte(void)
{
	for (size_t at = 8; at < sizeof(info); at++) {
		union {
			struct control_request request;
			char bytes[sizeof(info)];
		} wrong = { .request = info };

		wrong.bytes[at] = 1;
		expect_none(&wrong, sizeof(wrong), -1);
		wrong.request.what = CONTROL_DETACH;
		if (at < offsetof(struct control_request, name))
			expect_none(&wrong, sizeof(wrong), -1);
	}
	EXPECT(nothing_is_left());
}

/* A second descriptor: none is taken. */
static void test_two_descriptors(void)
{
	char space[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)&attach, sizeof(attach) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space),
	};
	int fd = client();

	*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	EXPECT(sendmsg(fd, &msg, 0) == sizeof(attach) && is_dropped(fd));
	close(fd);
	EXPECT(nothing_is_left());
}

static void test_many(void)
{
	int fd[CONTROL_CLIENTS], more;

	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++) {
		fd[i] = client();
		ask(fd[i], info, -1);
	}
	more = client();
	EXPECT(is_dropped(more));
	close(more);
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++)
		EXPECT(!ask(fd[i], info, -1).error);
	close(fd[3]);
	for (unsigned int i = 0; i < 1000; i++) {
		fd[3] = client();
		if (!fd_send(fd[3], &info, sizeof(info), -1) && !is_dropped(fd[3]))
			break;
		close(fd[3]);
	}
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++)
		close(fd[i]);
}

/* Who takes no answers loses the connection, and holds up nobody. */
static void test_lazy(void)
{
	struct pollfd wait = { .events = POLLOUT };
	int lazy = client(), other = client();

	wait.fd = lazy;
	for (unsigned int i = 0; i < 100000 && !(wait.revents & POLLHUP); i++) {
		send(lazy, &info, sizeof(info), MSG_DONTWAIT | MSG_NOSIGNAL);
		poll(&wait, 1, 1);
	}
	EXPECT(wait.revents & POLLHUP);
	EXPECT(!ask(other, info, -1).error);
	close(lazy);
	close(other);
}

/* The answer comes late; what is asked meanwhile is answered after that, and events come between. */
static void test_late(void)
{
	static const struct control_request later = { .what = CONTROL_PAUSE, .serial = 77 };
	int waiting = client(), other = client();
	struct control_answer answer;

	EXPECT(!fd_send(waiting, &later, sizeof(later), -1));
	EXPECT(!fd_send(waiting, &info, sizeof(info), -1));
	EXPECT(!readable(waiting, 100) && !ask(other, info, -1).error);
	EXPECT(!fd_send(other, &(struct control_request){ .what = CONTROL_RESUME },
			sizeof(struct control_request), -1));
	answer = answer_of(waiting);
	EXPECT(answer.what == CONTROL_PAUSE && answer.serial == 77 && answer.error == -EXDEV);
	answer = answer_of(waiting);
	EXPECT(answer.what == CONTROL_RESTARTED && !answer.serial && !strcmp(answer.name, "a name"));
	EXPECT(answer_of(waiting).what == CONTROL_INFO);
	EXPECT(answer_of(other).what == CONTROL_RESTARTED && answer_of(other).what == CONTROL_RESUME);
	EXPECT(!fd_send(waiting, &later, sizeof(later), -1));
	close(waiting);		/* it has gone when its answer comes */
	EXPECT(!fd_send(other, &(struct control_request){ .what = CONTROL_RESUME },
			sizeof(struct control_request), -1));
	EXPECT(answer_of(other).what == CONTROL_RESTARTED && answer_of(other).what == CONTROL_RESUME);
	close(other);
}

static void test_random(void)
{
	int file = memfd_create("file", MFD_CLOEXEC);
	union {
		struct control_request request;
		unsigned char bytes[sizeof(info)];
	} message;

	for (unsigned int i = 0; i < 20000; i++) {
		int fd = client();

		memset(&message, 0, sizeof(message));
		if (rand() % 2)
			message.request = attach;
		message.request.what = rand() % (CONTROL_DUMP + 2);
		if (message.request.what == CONTROL_PAUSE || message.request.what == CONTROL_CONSOLE)
			message.request.what = CONTROL_INFO;
		for (int changes = rand() % 4; changes > 0; changes--)
			message.bytes[4 + rand() % (sizeof(message) - 4)] = rand();
		fd_send(fd, &message, rand() % 8 ? sizeof(message) : (size_t)rand() % sizeof(message),
			rand() % 2 ? file : -1);
		readable(fd, WAIT_MS);
		close(fd);
	}
	close(file);
	EXPECT(nothing_is_left());
}

static const struct unit_test tests[] = {
	{ "requests are answered", test_answers },
	{ "what is no request ends its connection", test_wrong },
	{ "whichever byte it is that should not be there", test_each_byte },
	{ "a descriptor too many", test_two_descriptors },
	{ "so many connections, and no more", test_many },
	{ "who takes no answers", test_lazy },
	{ "an answer that comes late", test_late },
	{ "messages at random", test_random },
};

int main(void)
{
	int status;

	address.sun_family = AF_UNIX;
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "control_test.%d", getpid());
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 64) ||
	    control_init(&control, listener, table, &control) || control_listen(&control))
		return 1;
	srand(1);
	idle_descriptors = descriptors();
	status = unit_main(tests, ARRAY_SIZE(tests));
	control_finish(&control);
	close(listener);
	return status;
}
