// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The privileged half. It has all rights, so it does little, and believes nothing: a request has exactly the
 * length of its kind, and what is in it is checked again. It never talks to a guest, a launcher's user or a
 * client; its own memory holds nothing that would be lost with it.
 *
 * A request is served in a child, which answers by itself. The children end with this process, as the other half
 * does, and all of them hold the lock on the directory of places: so the next moatd begins when they are gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/moatd/front.h"
#include "userspace/moatd/keeper.h"
#include "userspace/moatd/place.h"
#include "userspace/moatd/serve.h"

#define KEEPER_LOCK_TRIES	500
#define KEEPER_LOCK_MS		20
#define KEEPER_WORKERS		256
#define KEEPER_PAUSE_MS		1000
#define KEEPER_PATIENCE_MS	5000	/* of the next other half, with what was done for the last */

/**
 * struct keeper_kind - a kind of request
 * @length: of what it carries
 * @serve: in a child. Sets the answer's @why where it fails. Return: 0; a descriptor that goes with the
 *	answer, where @gives; or a negative errno
 */
struct keeper_kind {
	size_t length;
	bool gives;
	int (*serve)(struct keeper_work *work, const void *carried);
};

struct keeper_worker {
	pid_t pid;	/* 0: none */
	struct keeper_head head;
};

struct keeper {
	struct keeper_options *options;
	pid_t pid;
	int listener;
	int signals;
	int lock;
	int link;		/* to the other half; -1: there is none */
	pid_t front;		/* 0: there is none */
	int64_t front_ended;	/* on the clock of clock_ms() */
	bool ending;
	unsigned int working;
	struct keeper_worker worker[KEEPER_WORKERS];
};

/* The other half takes what it asked for: it is waited for. */
static void answer_send(int link, const struct keeper_answer *answer, int fd)
{
	struct pollfd room = { .fd = link, .events = POLLOUT };

	while (fd_send(link, answer, sizeof(*answer), fd) == -EAGAIN)
		poll(&room, 1, -1);
}

static const struct keeper_kind keeper_kinds[] = {
	[KEEPER_LIST] = { 0, false, serve_list },
	[KEEPER_START] = { sizeof(struct keeper_start), true, serve_start },
	[KEEPER_CONNECT] = { sizeof(struct keeper_name), true, serve_connect },
	[KEEPER_REAP] = { sizeof(struct keeper_name), false, serve_reap },
	[KEEPER_KILL] = { sizeof(struct keeper_name), false, serve_kill },
	[KEEPER_CLEAN] = { sizeof(struct keeper_name), false, serve_clean },
	[KEEPER_LIMITS] = { sizeof(struct definition), false, serve_limits },
	[KEEPER_USAGE] = { sizeof(struct keeper_name), false, serve_usage },
	[KEEPER_LOG] = { sizeof(struct keeper_name), true, serve_log },
	[KEEPER_BOOTED] = { 0, false, serve_booted },
	[KEEPER_ATTACH] = { sizeof(struct keeper_start), false, serve_attach },
	[KEEPER_FORGET] = { sizeof(struct keeper_start), false, serve_forget },
	[KEEPER_NETWORK_START] = { sizeof(struct keeper_network), false, serve_network_start },
	[KEEPER_NETWORK_STOP] = { sizeof(struct keeper_name), false, serve_network_stop },
	[KEEPER_DISK_LIST] = { 0, false, serve_disk_list },
	[KEEPER_DISK_CREATE] = { sizeof(struct keeper_disk), false, serve_disk_create },
	[KEEPER_DISK_RESIZE] = { sizeof(struct keeper_disk), false, serve_disk_resize },
	[KEEPER_DISK_DELETE] = { sizeof(struct keeper_disk), false, serve_disk_delete },
	[KEEPER_DISK_SNAPSHOT] = { sizeof(struct keeper_disk), false, serve_disk_snapshot },
	[KEEPER_DISK_SNAPSHOT_DELETE] = { sizeof(struct keeper_disk), false, serve_disk_snapshot_delete },
	[KEEPER_DISK_REVERT] = { sizeof(struct keeper_disk), false, serve_disk_revert },
	[KEEPER_DISK_SNAPSHOTS] = { sizeof(struct keeper_disk), false, serve_disk_snapshots },
};

void work_more(struct keeper_work *work)
{
	work->answer.more = 1;
	answer_send(work->link, &work->answer, -1);
	work->answer.more = 0;
}

/* Requests */

static const struct keeper_kind *kind_find(uint32_t what, size_t length)
{
	if (what >= ARRAY_SIZE(keeper_kinds) || !keeper_kinds[what].serve ||
	    length != sizeof(struct keeper_head) + keeper_kinds[what].length)
		return NULL;
	return &keeper_kinds[what];
}

static _Noreturn void worker_run(struct keeper *keeper, const struct keeper_kind *kind,
				 const struct keeper_head *head, const void *carried)
{
	struct keeper_work work = { .options = keeper->options, .link = keeper->link };
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != keeper->pid)
		_exit(1);
	work.answer.what = head->what;
	work.answer.serial = head->serial;
	ret = kind->serve(&work, carried);
	if (ret < 0)
		work_fail(&work, ret, "refused");
	work.answer.error = ret < 0 ? ret : 0;
	answer_send(keeper->link, &work.answer, kind->gives && ret >= 0 ? ret : -1);
	_exit(0);
}

/* A child that died has not answered; nor has one that was never made. */
static void keeper_refuse(struct keeper *keeper, const struct keeper_head *head, int err)
{
	struct keeper_answer answer = { .what = head->what, .serial = head->serial, .error = err };

	snprintf(answer.why, sizeof(answer.why), "moatd: %s", err == -EOWNERDEAD ?
		 "the process at work on it was killed" : strerror(-err));
	if (keeper->link >= 0)
		answer_send(keeper->link, &answer, -1);
}

static void keeper_start_worker(struct keeper *keeper, const struct keeper_kind *kind,
				const struct keeper_head *head, const void *carried)
{
	for (unsigned int i = 0; i < KEEPER_WORKERS; i++) {
		struct keeper_worker *worker = &keeper->worker[i];

		if (worker->pid)
			continue;
		worker->head = *head;
		worker->pid = fork();
		if (!worker->pid)
			worker_run(keeper, kind, head, carried);
		if (worker->pid > 0) {
			keeper->working++;
			return;
		}
		worker->pid = 0;
		break;
	}
	keeper_refuse(keeper, head, -EAGAIN);
}

static void keeper_drop_front(struct keeper *keeper)
{
	fd_close(keeper->link);
	keeper->link = -1;
	if (keeper->front)
		kill(keeper->front, SIGKILL);
}

static void keeper_request(struct keeper *keeper)
{
	static struct {
		struct keeper_head head;
		struct keeper_start carried;	/* the longest */
	} packet;
	ssize_t n = recv(keeper->link, &packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
	const struct keeper_kind *kind;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	kind = n >= (ssize_t)sizeof(packet.head) ? kind_find(packet.head.what, n) : NULL;
	if (kind) {
		keeper_start_worker(keeper, kind, &packet.head, &packet.carried);
		return;
	}
	if (n > 0)
		log_error("a request that is none, of %zd bytes: the other half is made anew", n);
	keeper_drop_front(keeper);
}

/* The other half */

static void keeper_start_front(struct keeper *keeper)
{
	char booted[PATH_MAX];
	int ends[2];

	booted_path(keeper->options, booted);
	keeper->options->first = access(booted, F_OK);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
		log_error("cannot make a socket: %s", strerror(errno));
		return;
	}
	keeper->front = fork();
	if (!keeper->front) {
		close(ends[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(front_run(keeper->options, keeper->listener, ends[1], keeper->lock));
	}
	close(ends[1]);
	if (keeper->front < 0) {
		log_error("cannot start the other half: %s", strerror(errno));
		keeper->front = 0;
		close(ends[0]);
		return;
	}
	keeper->link = ends[0];
}

static void keeper_front_ended(struct keeper *keeper, int status)
{
	keeper->front = 0;
	keeper->front_ended = clock_ms();
	fd_close(keeper->link);
	keeper->link = -1;
	if (keeper->ending)
		return;
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		keeper->ending = true;
		return;
	}
	log_error("the unprivileged half has ended (%s %d): made anew",
		  WIFSIGNALED(status) ? "signal" : "status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void keeper_worker_ended(struct keeper *keeper, pid_t pid, int status)
{
	for (unsigned int i = 0; i < KEEPER_WORKERS; i++) {
		struct keeper_worker *worker = &keeper->worker[i];

		if (worker->pid != pid)
			continue;
		if (status)
			keeper_refuse(keeper, &worker->head, -EOWNERDEAD);
		worker->pid = 0;
		keeper->working--;
	}
}

static void keeper_reap(struct keeper *keeper)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == keeper->front)
			keeper_front_ended(keeper, status);
		else
			keeper_worker_ended(keeper, pid, status);
	}
}

static void keeper_signal(struct keeper *keeper)
{
	struct signalfd_siginfo info;

	while (read(keeper->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		keeper->ending = true;
		keeper_drop_front(keeper);
	}
	keeper_reap(keeper);
}

static void keeper_kill_workers(struct keeper *keeper)
{
	for (unsigned int i = 0; i < KEEPER_WORKERS; i++)
		if (keeper->worker[i].pid)
			kill(keeper->worker[i].pid, SIGKILL);
}

/*
 * Another one begins once nobody serves requests of the one before any more, and never at full speed. What takes
 * long is cut off: it would be by the end of this process, too. Return: how long to wait for what happens; 0: it
 * has begun.
 */
static int64_t keeper_renew(struct keeper *keeper)
{
	static int64_t started;
	int64_t pause;

	if (keeper->working) {
		pause = keeper->front_ended + KEEPER_PATIENCE_MS - clock_ms();
		if (pause > 0)
			return pause;
		keeper_kill_workers(keeper);
		return KEEPER_PATIENCE_MS;
	}
	pause = started ? started + KEEPER_PAUSE_MS - clock_ms() : 0;
	if (pause > 0)
		return pause;
	started = clock_ms();
	keeper_start_front(keeper);
	return 0;
}

/* Requests wait while all that can serve them are at work. */
static void keeper_turn(struct keeper *keeper)
{
	const int64_t pause = keeper->front ? -1 : keeper_renew(keeper);
	struct pollfd wait[] = {
		{ .fd = keeper->signals, .events = POLLIN },
		{ .fd = keeper->working < KEEPER_WORKERS ? keeper->link : -1, .events = POLLIN },
	};

	if (!pause)
		return;
	if (poll(wait, ARRAY_SIZE(wait), pause) <= 0)
		return;
	if (wait[0].revents)
		keeper_signal(keeper);
	if (wait[1].revents && keeper->link >= 0)
		keeper_request(keeper);
}

static int keeper_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int keeper_lock(const struct keeper_options *options)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/lock", options->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	for (unsigned int i = 0; i < KEEPER_LOCK_TRIES; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		poll(NULL, 0, KEEPER_LOCK_MS);
	}
	close(fd);
	return -EBUSY;
}

int keeper_run(struct keeper_options *options, int listener, int lock)
{
	static struct keeper keeper;
	int err = place_init(options);

	if (err) {
		log_error("%s: %s", options->run, strerror(-err));
		return 1;
	}
	keeper = (struct keeper){
		.options = options, .pid = getpid(), .listener = listener, .lock = lock, .link = -1,
	};
	keeper.signals = keeper_signals();
	while (!keeper.ending || keeper.front)
		keeper_turn(&keeper);
	return 0;
}
