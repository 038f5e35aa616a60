// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "selftests/moatd/api_world.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/moatd/api.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"

#define LAUNCHERS	64
#define ANSWERS		4096

/* The keeper */

struct pending {
	int64_t due;	/* 0: none */
	struct keeper_answer answer;
	int fd;
};

static int link_fd;
static struct pending pending[ANSWERS];
static int launcher[LAUNCHERS];

static bool chance(unsigned int percent)
{
	return (unsigned int)rand() % 100 < percent;
}

static void random_bytes(void *to, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((char *)to)[i] = rand();
}

static unsigned int delay(void)
{
	return chance(80) ? 0 : chance(75) ? rand() % 50 : chance(90) ? rand() % 1000 : 3000 + rand() % 5000;
}

static void answer_in(unsigned int ms, const struct keeper_answer *answer, int fd)
{
	for (unsigned int i = 0; i < ANSWERS; i++) {
		if (pending[i].due)
			continue;
		pending[i] = (struct pending){ clock_ms() + ms, *answer, fd };
		return;
	}
	abort();
}

/* One end is a launcher's from now on. Return: the other one, or -1. */
static int launcher_make(void)
{
	int ends[2];

	for (unsigned int i = 0; i < LAUNCHERS; i++) {
		if (launcher[i] >= 0)
			continue;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
			return -1;
		launcher[i] = ends[0];
		return ends[1];
	}
	return -1;
}

static int log_make(void)
{
	static char text[100000];
	int fd = memfd_create("log", MFD_CLOEXEC);

	random_bytes(text, sizeof(text));
	if (write(fd, text, rand() % sizeof(text)) < 0)
		abort();
	return fd;
}

/* What comes before the last answer of a kind that has many. */
static void answer_more(const struct keeper_answer *last)
{
	struct keeper_answer answer = *last;

	answer.more = 1;
	for (unsigned int i = rand() % 4; i; i--) {
		random_bytes(&answer.ended, sizeof(answer.ended));
		memset(&answer.disk, 0, sizeof(answer.disk));
		strcpy(answer.disk.name, "disk");
		answer.hundredths = rand() % 10000;
		answer_in(0, &answer, -1);
	}
}

static void fill(struct keeper_answer *answer)
{
	switch (answer->what) {
	case KEEPER_REAP:
	case KEEPER_KILL:
		random_bytes(&answer->ended, sizeof(answer->ended));
		answer->ended.end = rand() % (CONTROL_END_FAILED + 1);
		for (unsigned int i = 0; i < sizeof(answer->ended.text); i++)
			answer->ended.text[i] = ' ' + rand() % 90;
		answer->ended.text[rand() % sizeof(answer->ended.text)] = '\0';
		answer->ended.text[sizeof(answer->ended.text) - 1] = '\0';
		break;
	case KEEPER_USAGE:
		random_bytes(&answer->usage, sizeof(answer->usage));
		break;
	default:
		break;
	}
}

static void keeper_serve(const struct keeper_head *head)
{
	struct keeper_answer answer = { .what = head->what, .serial = head->serial };
	const bool lists = head->what == KEEPER_LIST || head->what == KEEPER_BOOTED;
	int fd = -1;

	if (!lists && chance(15)) {
		answer.error = chance(50) ? -EOWNERDEAD : -(1 + rand() % 120);
		snprintf(answer.why, sizeof(answer.why), "the keeper of the test says so");
	} else if (head->what == KEEPER_START || head->what == KEEPER_LOG) {
		fd = head->what == KEEPER_LOG ? log_make() : launcher_make();
		answer.error = fd < 0 ? -EAGAIN : 0;
	} else {
		fill(&answer);
	}
	if (head->what >= KEEPER_DISK_LIST)
		answer_more(&answer);
	answer_in(lists ? 0 : delay(), &answer, fd);
}

static void keeper_send(struct pending *due)
{
	struct pollfd room = { .fd = link_fd, .events = POLLOUT };

	while (fd_send(link_fd, &due->answer, sizeof(due->answer), due->fd) == -EAGAIN)
		poll(&room, 1, 100);
	fd_close(due->fd);
	due->due = 0;
}

static void keeper_read(void)
{
	static struct {
		struct keeper_head head;
		struct keeper_start carried;
	} packet;
	ssize_t n = recv(link_fd, &packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);

	if (!n)
		exit(0);
	if (n < 0)
		return;
	if (n < (ssize_t)sizeof(packet.head) || n > (ssize_t)sizeof(packet))
		abort();
	keeper_serve(&packet.head);
}

/* A launcher */

static void launcher_end(int *fd)
{
	close(*fd);
	*fd = -1;
}

static void launcher_say(int fd, uint32_t what, const struct control_request *request)
{
	struct control_answer answer = { .what = what };

	random_bytes(&answer.space, sizeof(answer.space));
	if (what >= CONTROL_DETACHED)
		memcpy(answer.name, request->name, sizeof(answer.name));
	else
		answer.serial = request->serial;
	if (what < CONTROL_DETACHED && chance(20))
		answer.error = -(1 + rand() % 120);
	if (send(fd, &answer, chance(1) ? sizeof(answer) / 2 : sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void launcher_serve(int *fd)
{
	struct control_request request;

	if (recv(*fd, &request, sizeof(request), MSG_DONTWAIT) != sizeof(request) || chance(2)) {
		launcher_end(fd);
		return;
	}
	if (chance(3))
		launcher_say(*fd, rand(), &request);
	if (chance(90))
		launcher_say(*fd, request.what, &request);
	if (chance(10) || (request.what == CONTROL_DETACH && chance(50)))
		launcher_say(*fd, chance(70) ? CONTROL_DETACHED : CONTROL_RESTARTED, &request);
	if (request.what == CONTROL_BUTTON && chance(50))
		launcher_end(fd);
}

static _Noreturn void keeper_loop(void)
{
	struct pollfd wait[LAUNCHERS + 1];

	for (unsigned int i = 0; i < LAUNCHERS; i++)
		launcher[i] = -1;
	for (;;) {
		for (unsigned int i = 0; i < LAUNCHERS; i++)
			wait[i] = (struct pollfd){ .fd = launcher[i], .events = POLLIN };
		wait[LAUNCHERS] = (struct pollfd){ .fd = link_fd, .events = POLLIN };
		poll(wait, LAUNCHERS + 1, 5);
		for (unsigned int i = 0; i < LAUNCHERS; i++)
			if (wait[i].revents)
				launcher_serve(&launcher[i]);
		if (wait[LAUNCHERS].revents)
			keeper_read();
		for (unsigned int i = 0; i < ANSWERS; i++)
			if (pending[i].due && pending[i].due <= clock_ms())
				keeper_send(&pending[i]);
	}
}

/* The front, as front.c makes it, but for its sandbox: that leaves the sanitizers no room */

static sd_event *front_event;
static int front_listener;

static void front_ready(void)
{
	networks_start();
	if (varlink_serve(&api, front_event, front_listener) < 0)
		abort();
}

static int front_directory(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (mkdir(path, 0700) && errno != EEXIST)
		abort();
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static _Noreturn void front_loop(const char *dir, int listener, int link)
{
	front_listener = listener;
	if (sd_event_new(&front_event) < 0 || keep_init(front_event, link) < 0 ||
	    networks_init(front_event, front_directory(dir, "networks")) < 0 ||
	    machines_init(front_event, front_directory(dir, "machines"), true, 60, front_ready) < 0)
		abort();
	/* The keeper's end ends it: then it is looked for leaks. */
	exit(sd_event_loop(front_event) == 1 ? 0 : 2);
}

static pid_t fork_with(void)
{
	pid_t pid = fork();

	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

pid_t api_world_start(const char *dir, int listener, unsigned int seed, pid_t *ret_keeper)
{
	int ends[2];
	pid_t front;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -errno;
	*ret_keeper = fork_with();
	if (!*ret_keeper) {
		close(ends[1]);
		close(listener);
		link_fd = ends[0];
		srand(seed);
		keeper_loop();
	}
	close(ends[0]);
	front = fork_with();
	if (!front)
		front_loop(dir, listener, ends[1]);
	close(ends[1]);
	return front;
}
