// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * One thread here, for messages and signals; devices have their own for the rings. A front end that
 * breaks a rule is dropped, with a line that says which, and the next one is served.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "devmodel/vhost_user/backend.h"
#include "devmodel/vhost_user/server.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"

/* A front end that stops in the middle of a message is dropped. */
#define SERVER_TIMEOUT_SECONDS	5

static const struct sandbox_call server_calls[] = {
	{ SYS_accept4, 0, "front ends, from a socket that was there before", 0, 0, 0 },
	{ SYS_setsockopt, 0, "the time that a front end may take for a message", 0, 0, 0 },
	{ SYS_recvmsg, 0, "messages", 0, 0, 0 },
	{ SYS_sendmsg, 0, "replies", 0, 0, 0 },
	{ SYS_poll, 0, "waiting, for messages, signals and kicks", 0, 0, 0 },
	{ SYS_read, 0, "kicks and signals", 0, 0, 0 },
	{ SYS_write, 0, "interrupts, and what there is to say", 0, 0, 0 },
	{ SYS_close, 0, "descriptors of a front end that is gone", 0, 0, 0 },
	{ SYS_dup3, 0, "one interrupt's descriptor in the place of another", 0, 0, 0 },
	{ SYS_fcntl, 0, "that nothing waits for a descriptor; seals", 0, 0, 0 },
	{ SYS_fstat, 0, "is a region within its file?", 0, 0, 0 },
	{ SYS_newfstatat, 0, "the same, as libc makes it of fstat()", 4, 0x1000, 0x1000 },
	{ SYS_fstatfs, 0, "how large the pages of a region are", 0, 0, 0 },
	{ SYS_memfd_create, 0, "the record of requests in flight", 0, 0, 0 },
	{ SYS_ftruncate, 0, "its size", 0, 0, 0 },
	{ SYS_eventfd2, 0, "telling a thread to end; descriptors that a front end keeps back", 0, 0, 0 },
	{ 0 },
};

/**
 * struct server - a device, and whoever is to be waited for
 * @listener: where front ends come from; -1: only @peer does
 * @peer: a front end that waits to be attached, as well as the one that is; -1: there is none
 * @signals: SIGHUP, SIGTERM, SIGINT
 */
struct server {
	struct device *dev;
	struct backend *backend;
	int (*refresh)(struct device *dev);
	bool once;
	int listener;
	int peer;
	int signals;
};

static int server_open(struct server *server, const struct server_options *options)
{
	int listens = 0;
	socklen_t size = sizeof(listens);
	int fd = options->fd;

	if (options->socket) {
		server->listener = fd_listen(options->socket, 1);
		if (server->listener < 0)
			log_error("cannot listen at %s: %s", options->socket,
				  strerror(-server->listener));
		return server->listener < 0 ? server->listener : 0;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size)) {
		log_error("--fd %d: %s", fd, strerror(errno));
		return -errno;
	}
	server->listener = listens ? fd : -1;
	server->peer = listens ? -1 : fd;
	return 0;
}

static int server_open_signals(struct server *server)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Whoever reads what the device writes may go. */
	signal(SIGPIPE, SIG_IGN);
	server->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return server->signals < 0 ? -errno : 0;
}

static int server_confine(const struct server_options *options)
{
	struct sandbox sandbox = options->sandbox;
	const char *step;
	int err;

	sandbox_allow(&sandbox, server_calls);
	sandbox_allow(&sandbox, sandbox_libc);
	err = sandbox_enter(&sandbox, &step);

	if (err < 0)
		log_error("no sandbox: %s: %s", step, strerror(-err));
	else if (err)
		log_error("this host lets a user have no empty root; the rest of the sandbox holds");
	/* What set-up took is not to count as what the device takes. */
	malloc_trim(0);
	return err < 0 ? err : 0;
}

static void server_refresh(struct server *server)
{
	int changed = server->refresh ? server->refresh(server->dev) : 0;

	if (changed < 0)
		log_error("the device stays as it was: %s", strerror(-changed));
	else if (changed && backend_config_changed(server->backend))
		log_error("the front end cannot be told that the device has changed");
}

/* True: to end. */
static bool server_signal(struct server *server)
{
	struct signalfd_siginfo info;

	if (read(server->signals, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo != SIGHUP)
		return true;
	server_refresh(server);
	return false;
}

static void server_attach(struct server *server)
{
	const struct timeval limit = { .tv_sec = SERVER_TIMEOUT_SECONDS };

	setsockopt(server->peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(server->peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	backend_attach(server->backend, server->peer);
}

static void server_accept(struct server *server)
{
	server->peer = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
	if (server->peer >= 0)
		server_attach(server);
}

/* True: to end, since there is nobody to wait for. */
static bool server_detach(struct server *server)
{
	backend_detach(server->backend);
	server->peer = -1;
	return server->once || server->listener < 0;
}

/* True: to end. */
static bool server_message(struct server *server)
{
	int got = backend_serve(server->backend);

	if (got > 0)
		return false;
	if (got < 0)
		log_error("front end dropped: %s", backend_fault(server->backend));
	return server_detach(server);
}

/* While there is a front end, others wait. */
static bool server_turn(struct server *server)
{
	struct pollfd wait[] = {
		{ .fd = server->signals, .events = POLLIN },
		{ .fd = server->peer < 0 ? server->listener : server->peer, .events = POLLIN },
	};

	if (poll(wait, 2, -1) < 0)
		return errno != EINTR;
	if (wait[0].revents && server_signal(server))
		return true;
	if (!wait[1].revents)
		return false;
	if (server->peer >= 0)
		return server_message(server);
	server_accept(server);
	return false;
}

static int server_init(struct server *server, const struct server_options *options)
{
	int err = server_open(server, options);

	if (!err)
		err = server_open_signals(server);
	if (!err)
		err = backend_create(server->dev, &server->backend);
	return err;
}

int server_run(const struct server_options *options, struct device *dev,
	       int (*refresh)(struct device *dev))
{
	struct server server = {
		.dev = dev, .refresh = refresh, .once = options->once,
		.listener = -1, .peer = -1, .signals = -1,
	};
	const bool failed = server_init(&server, options) || server_confine(options);

	if (!failed && server.peer >= 0)
		server_attach(&server);
	while (!failed && !server_turn(&server))
		;
	backend_destroy(server.backend);
	dev->ops->destroy(dev);
	return failed;
}
