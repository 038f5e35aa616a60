// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest and its host do with stream sockets between them. Each sends back what comes by any
 * connection, and ends that when the other has; and each has connections to the other by which it sends
 * bytes, one side's end of the stream behind them, and sees whether the same come back, and then the end.
 * The guest has one more, by which nothing is sent: it ends when the device does.
 *
 *	vsock_work guest SECONDS
 *	vsock_work host PATH		until SIGTERM; PATH is what moat-vsock listens at
 *	init SECONDS			the guest's process 1, with modules in /modules
 *
 * A round is a connection from its beginning to its end. A round that is broken off by an error is no
 * failure of the streams': whether there may be any, the caller knows.
 */
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "selftests/vhost/guest.h"

#define HOST_PORT	1024
#define GUEST_PORT	52
#define CLIENTS		4
#define MANY		200
#define PIECE		16384
#define STUCK_MS	20000
#define STACK		65536

enum outcome { ROUND_GOOD, ROUND_BROKEN, ROUND_WRONG, ROUND_STUCK, ROUND_OUTCOMES };

static const char *const outcome_names[] = { "rounds", "broken", "wrong", "stuck" };
static const uint32_t sizes[] = { 1, 100000, 777, 1 << 20, 65536, 0, 300001 };

static const char *path;	/* the host's; NULL: this is the guest */
static unsigned int outcomes[ROUND_OUTCOMES], ended, many;
static uint64_t passed;
static volatile sig_atomic_t ending;

static void thread_begin(void *(*run)(void *arg), intptr_t arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	if (!pthread_create(&thread, &attr, run, (void *)arg))
		pthread_detach(thread);
	pthread_attr_destroy(&attr);
}

/* Sockets. A descriptor, or -1 */

static int unix_socket(const char *suffix, int (*use)(int fd, const struct sockaddr *to,
						      socklen_t len))
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path, suffix);
	if (!use(fd, (struct sockaddr *)&address, sizeof(address)))
		return fd;
	close(fd);
	return -1;
}

static int vsock_socket(unsigned int cid, unsigned int port,
			int (*use)(int fd, const struct sockaddr *to, socklen_t len))
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (!use(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	close(fd);
	return -1;
}

/* Through moat-vsock: by its own greeting. */
static int guest_connect(void)
{
	char request[32], answer[32];
	int fd = unix_socket("", connect);
	ssize_t n = 1;

	if (fd < 0)
		return -1;
	snprintf(request, sizeof(request), "CONNECT %u\n", GUEST_PORT);
	if (write(fd, request, strlen(request)) != (ssize_t)strlen(request))
		n = 0;
	for (size_t have = 0; n == 1 && have < sizeof(answer); have++) {
		n = read(fd, answer + have, 1);
		if (n == 1 && answer[have] == '\n')
			return fd;
	}
	close(fd);
	return -1;
}

static int peer_connect(void)
{
	return path ? guest_connect() : vsock_socket(VMADDR_CID_HOST, HOST_PORT, connect);
}

/* What comes goes back */

static void *echo_run(void *arg)
{
	const int fd = (intptr_t)arg;
	char bytes[PIECE];
	ssize_t n, done = 0;

	while (done >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t at = 0; done >= 0 && at < n; at += done)
			done = send(fd, bytes + at, n - at, MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void *accept_run(void *arg)
{
	const int listener = (intptr_t)arg;

	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd >= 0)
			thread_begin(echo_run, fd);
	}
	return NULL;
}

static bool serve(void)
{
	char suffix[16];
	int fd;

	snprintf(suffix, sizeof(suffix), "_%u", HOST_PORT);
	fd = path ? unix_socket(suffix, bind) : vsock_socket(VMADDR_CID_ANY, GUEST_PORT, bind);
	if (fd < 0 || listen(fd, MANY))
		return false;
	thread_begin(accept_run, fd);
	return true;
}

/* Rounds */

/* The byte at a place of a stream. */
static uint8_t byte_at(uint32_t seed, uint32_t place)
{
	const uint32_t mixed = (place ^ seed) * 2654435761u;

	return mixed >> 24 ^ mixed >> 11;
}

struct round {
	int fd;
	uint32_t seed, size, sent, got;
};

/* @false: it is broken. */
static bool round_send(struct round *round)
{
	uint8_t bytes[PIECE];
	uint32_t len = round->size - round->sent;
	ssize_t n;

	len = len < sizeof(bytes) ? len : sizeof(bytes);
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = byte_at(round->seed, round->sent + i);
	n = send(round->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN;
	round->sent += n;
	return round->sent < round->size || !shutdown(round->fd, SHUT_WR);
}

/* What is wrong or an end; ROUND_OUTCOMES: neither. */
static enum outcome round_receive(struct round *round)
{
	uint8_t bytes[PIECE];
	ssize_t n = recv(round->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN ? ROUND_OUTCOMES : ROUND_BROKEN;
	if (!n)
		return round->got == round->size ? ROUND_GOOD : ROUND_BROKEN;
	for (ssize_t i = 0; i < n; i++, round->got++)
		if (round->got >= round->sent || bytes[i] != byte_at(round->seed, round->got))
			return ROUND_WRONG;
	return ROUND_OUTCOMES;
}

static enum outcome round_finish(struct round *round)
{
	struct pollfd wait = { .fd = round->fd };
	enum outcome outcome = ROUND_OUTCOMES;

	if (!round->size && shutdown(round->fd, SHUT_WR))
		return ROUND_BROKEN;
	while (outcome == ROUND_OUTCOMES) {
		wait.events = POLLIN | (round->sent < round->size ? POLLOUT : 0);
		if (poll(&wait, 1, STUCK_MS) <= 0)
			return ROUND_STUCK;
		if (wait.revents & ~POLLOUT)
			outcome = round_receive(round);
		if (wait.revents & POLLOUT && outcome == ROUND_OUTCOMES && !round_send(round))
			outcome = ROUND_BROKEN;
	}
	return outcome;
}

static void round_count(struct round *round)
{
	enum outcome outcome = round_finish(round);

	close(round->fd);
	if (ending)
		return;
	__atomic_add_fetch(&outcomes[outcome], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&passed, round->got, __ATOMIC_RELAXED);
}

static void *client_run(void *arg)
{
	for (uint32_t n = (intptr_t)arg; !ending; n++) {
		struct round round = {
			.fd = peer_connect(), .seed = n * 77, .size = sizes[n % 7],
		};

		if (round.fd >= 0)
			round_count(&round);
		else
			usleep(50000);
	}
	return NULL;
}

/* As many as that at once, each of which works. */
static void do_many(void)
{
	static struct round round[MANY];

	for (unsigned int i = 0; i < MANY; i++) {
		round[i] = (struct round){ .fd = peer_connect(), .seed = i, .size = 100 + i };
		many += round[i].fd >= 0;
	}
	for (unsigned int i = 0; i < MANY; i++)
		if (round[i].fd >= 0)
			round_count(&round[i]);
}

static void *idle_run(void *arg)
{
	char byte;

	(void)arg;
	for (;;) {
		int fd = peer_connect();

		if (fd < 0) {
			usleep(50000);
			continue;
		}
		if (read(fd, &byte, 1) <= 0)
			__atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
		close(fd);
	}
	return NULL;
}

static void say_all(void)
{
	for (unsigned int i = 0; i < ROUND_OUTCOMES; i++)
		printf("%s: %u\n", outcome_names[i], outcomes[i]);
	printf("bytes: %llu\nmany: %u\nended: %u\nwork: end\n", (unsigned long long)passed, many,
	       ended);
}

/* 0, or the exit status of a failure. */
static int guest_work(unsigned int seconds)
{
	for (unsigned int i = 0; i < 100 && !serve(); i++)
		usleep(100000);
	thread_begin(idle_run, 0);
	do_many();
	printf("working\n");
	for (unsigned int i = 0; i < CLIENTS; i++)
		thread_begin(client_run, i * 1000003);
	sleep(seconds);
	ending = 1;
	say_all();
	return 0;
}

static void end(int number)
{
	(void)number;
	ending = 1;
}

static int host_work(void)
{
	char suffix[128];

	snprintf(suffix, sizeof(suffix), "%s_%u", path, HOST_PORT);
	unlink(suffix);
	signal(SIGTERM, end);
	if (!serve())
		return 1;
	for (unsigned int i = 0; i < CLIENTS; i++)
		thread_begin(client_run, i * 1000003);
	while (!ending)
		usleep(50000);
	say_all();
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1) {
		guest_begin();
		guest_work(argc > 1 ? atoi(argv[1]) : 10);
		/* For the host, whose connections are not to break. */
		sleep(2);
		guest_end();
	}
	if (argc == 3 && !strcmp(argv[1], "guest"))
		return guest_work(atoi(argv[2]));
	path = argv[2];
	if (argc == 3 && !strcmp(argv[1], "host"))
		return host_work();
	fprintf(stderr, "usage: vsock_work guest SECONDS | host PATH\n");
	return 2;
}
