// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The vhost-user front end against a back end that does wrong in each way at each message: it says
 * no to the caller, in time, keeps no descriptor, and reads nothing past its end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "selftests/unit/vhost_mock.h"
#include "userspace/lib/fd.h"
#include "userspace/vmm/vhost_user.h"

/* As long as a busy machine may take; and where nothing comes, it need not be long. */
#define PATIENCE_MS	5000
#define SHORT_MS	100
#define CONFIG		60

static struct mock mock;
static struct vhost_user user;
static int memory, event;

static void open_pair(void)
{
	int ends[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
	mock_init(&mock, ends[1]);
	user.name = "mock";
	vhost_user_connect(&user, ends[0]);
	vhost_user_begin(&user, PATIENCE_MS);
}

static void close_pair(void)
{
	vhost_user_disconnect(&user);
	mock_join(&mock);
	mock_finish(&mock);
}

/* All that there is to be said, up to the first error. */
static int say_rings(void)
{
	const struct vhost_user_vring vring = {
		.size = 64, .base = 7, .desc = 0x1000, .avail = 0x2000, .used = 0x3000,
		.kick = event, .call = event, .err = event,
	};
	uint16_t base;
	int err = vhost_user_set_vring(&user, 0, &vring);

	if (!err)
		err = vhost_user_enable_vring(&user, 0, true);
	return err ? err : vhost_user_stop_vring(&user, 0, &base);
}

static int say_inflight(void)
{
	uint64_t size;
	int err;

	if (!vhost_user_has(&user, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
		return 0;
	err = vhost_user_get_inflight(&user, 1, 64, &size);
	return err ? err : vhost_user_set_inflight(&user, memory, size, 1, 64);
}

static int say_config(void)
{
	uint8_t config[CONFIG];
	int err = vhost_user_get_config(&user, config, CONFIG);

	if (err)
		return err;
	EXPECT(config[0] == 0x5a && config[CONFIG - 1] == 0x5a);
	return vhost_user_set_config(&user, 32, config, 1);
}

static int say_all(void)
{
	const struct vhost_user_map region[] = {
		{ .gpa = 0, .size = 4096, .fd = memory },
		{ .gpa = 1 << 30, .size = 4096, .user = 1 << 30, .offset = 4096, .fd = memory },
	};
	int err = vhost_user_negotiate(&user);

	if (!err)
		err = say_config();
	if (!err)
		err = vhost_user_set_features(&user, 1ULL << 32);
	if (!err)
		err = vhost_user_set_memory(&user, region, 2);
	if (!err)
		err = say_inflight();
	if (!err)
		err = say_rings();
	return err ? err : vhost_user_sync(&user);
}

static const unsigned int asked[] = {
	1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 24, 25, 31, 32,
};

#define ASKED	(sizeof(asked) / sizeof(asked[0]))

static void test_good(void)
{
	open_pair();
	mock_start(&mock);
	EXPECT(!say_all());
	EXPECT(!vhost_user_check(&user));
	EXPECT(user.features == MOCK_FEATURES && user.queues == 1);
	EXPECT(!vhost_user_has(&user, 15));
	close_pair();
	EXPECT(!mock.wrong);
	for (unsigned int i = 0; i < ASKED; i++)
		EXPECT(mock.seen[asked[i]] == 1);
	EXPECT(mock.base[0] == 7 && mock.enabled == 1);
}

/* One that acknowledges nothing, and has none of what may be left out. */
static void test_plain(void)
{
	open_pair();
	mock.protocol = 1ULL << 9;
	mock_start(&mock);
	EXPECT(!say_all());
	EXPECT(user.requests < 0 && user.queues == 1);
	close_pair();
	EXPECT(!mock.wrong && mock.seen[1] == 2);
	EXPECT(!mock.seen[17] && !mock.seen[21] && !mock.seen[31] && !mock.seen[32]);
}

static void test_old(void)
{
	open_pair();
	mock.features &= ~(1ULL << 32);
	mock_start(&mock);
	EXPECT(say_all() == -ENOTSUP);
	close_pair();
	open_pair();
	mock.features &= ~(1ULL << 30);
	mock_start(&mock);
	EXPECT(say_all() == -ENOTSUP);
	close_pair();
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Is it no fault here after all? An answer too many shows when the next is looked for. */
static bool harmless(unsigned int request, enum mock_fault fault)
{
	return (fault == MOCK_NO_FD && request != 31) ||
	       (fault == MOCK_REFUSE && (!mock.seen[request] || request == 1 || request == 11 ||
					 request == 15 || request == 17 || request == 24 ||
					 request == 31));
}

static void try_fault(unsigned int request, enum mock_fault fault)
{
	unsigned int before = mock_descriptors();
	bool waits = fault == MOCK_SILENT || fault == MOCK_DRIP;
	int64_t start = now_ms();
	int err;

	open_pair();
	mock.fault = fault;
	mock.at = request;
	if (waits)
		vhost_user_begin(&user, SHORT_MS);
	mock_start(&mock);
	err = say_all();
	if (!EXPECT(now_ms() - start < PATIENCE_MS))
		printf("# request %u, fault %u: late\n", request, fault);
	close_pair();
	if (!EXPECT(waits ? err || !mock.faulty :
		    !err == (!mock.faulty || harmless(request, fault))))
		printf("# request %u, fault %u: returned %d\n", request, fault, err);
	EXPECT(fault != MOCK_REFUSE || !err || err == -EREMOTEIO);
	if (!EXPECT(mock_descriptors() == before))
		printf("# request %u, fault %u: a descriptor is left\n", request, fault);
}

static void test_faults(void)
{
	for (unsigned int i = 0; i < ASKED; i++)
		for (enum mock_fault fault = MOCK_SILENT; fault < MOCK_FAULTS; fault++)
			try_fault(asked[i], fault);
}

/* What was answered is of the right form, and senseless. */
static void test_senseless(void)
{
	uint16_t base;
	uint8_t config[CONFIG];

	open_pair();
	mock_start(&mock);
	EXPECT(!vhost_user_negotiate(&user));
	EXPECT(!vhost_user_stop_vring(&user, 0, &base));
	close_pair();
	/* The mock sends back what it got: here, an index and a length that were not asked for. */
	open_pair();
	EXPECT(send(mock.fd, (uint32_t[]){ 11, 5, 8, 1, 0 }, 20, 0) == 20);
	EXPECT(vhost_user_stop_vring(&user, 0, &base) == -EPROTO);
	EXPECT(send(mock.fd, (uint32_t[]){ 11, 5, 8, 0, 0x10000 }, 20, 0) == 20);
	EXPECT(vhost_user_stop_vring(&user, 0, &base) == -EPROTO);
	EXPECT(send(mock.fd, (uint32_t[]){ 24, 5, 16, 4, 4, 0, 0 }, 28, 0) == 28);
	EXPECT(vhost_user_get_config(&user, config, 4) == -EPROTO);
	EXPECT(send(mock.fd, (uint32_t[]){ 24, 5, 16, 0, 256, 0, 0 }, 28, 0) == 28);
	EXPECT(vhost_user_get_config(&user, config, 4) == -EPROTO);
	mock_start(&mock);
	close_pair();
}

/* Answers of random bytes behind headers that are right as often as not, and then the end. */
static void test_random(void)
{
	unsigned int before = mock_descriptors();

	srand(3);
	for (unsigned int i = 0; i < 3000; i++) {
		uint32_t words[200];

		for (unsigned int j = 0; j < 200; j++)
			words[j] = rand();
		for (unsigned int j = 0; j < 200; j += 5) {
			words[j] = j < 5 ? 1 : asked[rand() % ASKED];
			words[j + 1] = 5;
			words[j + 2] = rand() % 8 ? 8 : rand();
			words[j + 3] |= rand() % 2 ? 1 << 30 : 0;
			words[j + 4] |= rand() % 2;
		}
		open_pair();
		EXPECT(send(mock.fd, words, sizeof(words), 0) == sizeof(words));
		shutdown(mock.fd, SHUT_WR);
		EXPECT(say_all() < 0);
		mock_start(&mock);
		close_pair();
	}
	EXPECT(mock_descriptors() == before);
}

static void test_unasked(void)
{
	open_pair();
	EXPECT(!vhost_user_check(&user));
	EXPECT(send(mock.fd, "x", 1, 0) == 1);
	EXPECT(vhost_user_check(&user) == -EPROTO);
	mock_start(&mock);
	close_pair();
	open_pair();
	shutdown(mock.fd, SHUT_RDWR);
	EXPECT(vhost_user_check(&user) == -ECONNRESET);
	mock_start(&mock);
	close_pair();
}

/* A back end that reads nothing: the socket is full at some time. */
static void test_deaf(void)
{
	int64_t start = now_ms();
	int err = 0;

	open_pair();
	user.protocol = 0;
	vhost_user_begin(&user, SHORT_MS);
	for (unsigned int i = 0; i < 100000 && !err; i++)
		err = vhost_user_set_features(&user, i);
	EXPECT(err == -ETIMEDOUT);
	EXPECT(now_ms() - start < PATIENCE_MS);
	shutdown(mock.fd, SHUT_RDWR);
	mock_start(&mock);
	close_pair();
}

/* Requests of the back end's */

static int request(uint32_t number, uint32_t flags, uint32_t size, bool with_fd)
{
	uint32_t message[] = { number, flags, size, 0, 0 };
	struct iovec iov = { message, 12 + (size > 8 ? 8 : size) };
	char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (with_fd) {
		msg.msg_control = space;
		msg.msg_controllen = sizeof(space);
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &event, sizeof(int));
	}
	sendmsg(mock.requests, &msg, MSG_NOSIGNAL);
	vhost_user_begin(&user, PATIENCE_MS);
	return vhost_user_take_request(&user);
}

static void open_requests(void)
{
	open_pair();
	mock_start(&mock);
	EXPECT(!vhost_user_negotiate(&user));
}

static void test_requests(void)
{
	static const struct {
		uint32_t number, flags, size;
		bool fd;
	} bad[] = {
		{ 1, 1, 0, false }, { 3, 1, 8, true }, { 2, 1, 8, false }, { 2, 0, 0, false },
		{ 2, 1 | 1 << 2, 0, false }, { 2, 1, UINT32_MAX, false }, { 2, 1, 0, true },
		{ 0, 1, 0, false },
	};
	unsigned int before = mock_descriptors();
	uint32_t reply[5];

	open_requests();
	EXPECT(!vhost_user_take_request(&user));
	EXPECT(request(2, 1, 0, false) == 1);
	EXPECT(!vhost_user_take_request(&user));
	EXPECT(request(2, 1 | 1 << 3, 0, false) == 1);
	EXPECT(recv(mock.requests, reply, sizeof(reply), MSG_DONTWAIT) == 20);
	EXPECT(reply[0] == 2 && reply[1] == 5 && reply[2] == 8 && !reply[3] && !reply[4]);
	close_pair();
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		open_requests();
		if (!EXPECT(request(bad[i].number, bad[i].flags, bad[i].size, bad[i].fd) < 0))
			printf("# request %u\n", i);
		close_pair();
	}
	open_requests();
	EXPECT(send(mock.requests, "half", 4, 0) == 4);
	vhost_user_begin(&user, SHORT_MS);
	EXPECT(vhost_user_take_request(&user) == -ETIMEDOUT);
	close_pair();
	open_requests();
	shutdown(mock.requests, SHUT_RDWR);
	EXPECT(vhost_user_take_request(&user) == -ECONNRESET);
	close_pair();
	EXPECT(mock_descriptors() == before);
}

static void test_connect(void)
{
	char path[200];

	memset(path, 'x', sizeof(path));
	path[199] = '\0';
	EXPECT(fd_connect(path) == -ENAMETOOLONG);
	EXPECT(fd_connect("/nowhere/at/all") == -ENOENT);
}

static const struct unit_test tests[] = {
	{ "a good back end gets every message in its form", test_good },
	{ "one without acknowledgements and extras is asked at the end", test_plain },
	{ "one before virtio 1, or without protocol features, is refused", test_old },
	{ "each fault at each message", test_faults },
	{ "answers of the right form with wrong contents", test_senseless },
	{ "random answers", test_random },
	{ "words that nobody asked for, and the end", test_unasked },
	{ "a back end that reads nothing", test_deaf },
	{ "requests of the back end's, right and wrong", test_requests },
	{ "sockets that are not there", test_connect },
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (!freopen("/dev/null", "w", stderr))	/* each fault is said there */
		return 1;
	memory = memfd_create("memory", 0);
	event = eventfd(0, EFD_NONBLOCK);
	if (memory < 0 || event < 0 || ftruncate(memory, 8192))
		return 1;
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
