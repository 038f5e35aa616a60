// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Connections: a table of them, and what happens at their sockets.
 *
 * A connection is known by the guest's port and the host's. What is to be said to the guest is a
 * bit of the connection (pending), data stays in the socket until the guest has a buffer and credit
 * for it, and what a packet without a connection is answered has a bounded queue, for which the
 * guest's own ring waits. So nothing here grows with what a guest or a program does, but up to
 * CONNS_MAX.
 *
 * Sockets are waited for by edges. An event carries the place in the table; where that was given
 * to another connection since, it says nothing wrong: each socket is asked again.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devmodel/vsock/conn.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"

#define CONNS_EVENTS	64

/* Of the descriptors that a process may have, those that are for other things. */
#define CONNS_OTHER_FDS	128

/* In the place of a place in the table. */
#define CONNS_LISTENER	CONNS_MAX

static int conns_watch(const struct vsock_conns *conns, int fd, uint32_t events, unsigned int place)
{
	struct epoll_event event = { .events = events | EPOLLET, .data.u64 = place };

	return epoll_ctl(conns->poll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* As many as there may be descriptors for. */
static unsigned int conns_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return CONNS_MAX;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur <= 2 * CONNS_OTHER_FDS)
		return CONNS_OTHER_FDS / 2;
	return files.rlim_cur - CONNS_OTHER_FDS < CONNS_MAX ? files.rlim_cur - CONNS_OTHER_FDS :
							       CONNS_MAX;
}

int conns_init(struct vsock_conns *conns)
{
	int err;

	TAILQ_INIT(&conns->turns);
	conns->max = conns_limit();
	conns->poll = epoll_create1(EPOLL_CLOEXEC);
	if (conns->poll < 0)
		return -errno;
	err = conns_watch(conns, conns->host.listener, EPOLLIN, CONNS_LISTENER);
	if (err)
		close(conns->poll);
	return err;
}

void conns_finish(struct vsock_conns *conns)
{
	close(conns->poll);
}

/* The table */

static struct vsock_conn **bucket_of(struct vsock_conns *conns, uint32_t guest_port,
				     uint32_t host_port)
{
	return &conns->bucket[(guest_port ^ host_port) % CONNS_BUCKETS];
}

struct vsock_conn *conn_find(struct vsock_conns *conns, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *conn = *bucket_of(conns, guest_port, host_port);

	while (conn && (conn->guest_port != guest_port || conn->host_port != host_port))
		conn = conn->next;
	return conn;
}

struct vsock_conn *conn_new(struct vsock_conns *conns, int fd)
{
	struct vsock_conn *conn = conns->free ? conns->free : &conns->conn[conns->touched];
	struct vsock_conn *next = conns->free ? conn->next : NULL;

	if (conns->count == conns->max ||
	    conns_watch(conns, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, conn - conns->conn)) {
		close(fd);
		return NULL;
	}
	conns->touched += !conns->free;
	conns->free = next;
	conns->count++;
	memset(conn, 0, offsetof(struct vsock_conn, small));
	conn->fd = fd;
	return conn;
}

void conn_bind(struct vsock_conns *conns, struct vsock_conn *conn, enum conn_state state,
	       uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn **bucket = bucket_of(conns, guest_port, host_port);

	conn->state = state;
	conn->guest_port = guest_port;
	conn->host_port = host_port;
	conn->next = *bucket;
	*bucket = conn;
}

static void conn_unbind(struct vsock_conns *conns, struct vsock_conn *conn)
{
	struct vsock_conn **at = bucket_of(conns, conn->guest_port, conn->host_port);

	while (*at != conn)
		at = &(*at)->next;
	*at = conn->next;
}

static void conn_unqueue(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn->waits)
		TAILQ_REMOVE(&conns->turns, conn, turn);
	conn->waits = false;
}

static void conn_close(struct vsock_conn *conn)
{
	fd_close(conn->fd);
	conn->fd = -1;
	conn->small_len = 0;
	conn->readable = false;
}

void conn_free(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn->state == CONN_GREETING)
		conn_greeted(conns, conn);
	else
		conn_unbind(conns, conn);
	conn_unqueue(conns, conn);
	conn_close(conn);
	conn->state = CONN_FREE;
	conn->next = conns->free;
	conns->free = conn;
	conns->count--;
}

void conn_reset(struct vsock_conns *conns, struct vsock_conn *conn)
{
	conn_close(conn);
	conn->state = CONN_OVER;
	conn->pending = 0;
	conn_say(conns, conn, VIRTIO_VSOCK_OP_RST);
}

void conn_shut(struct vsock_conns *conns, struct vsock_conn *conn, uint8_t flags)
{
	if (!(flags & ~conn->host_shut))
		return;
	conn->host_shut |= flags;
	if (conn->host_shut == CONN_BOTH)
		conn_close(conn);
	conn_say(conns, conn, VIRTIO_VSOCK_OP_SHUTDOWN);
}

void conns_drop(struct vsock_conns *conns)
{
	for (unsigned int i = 0; i < conns->touched; i++)
		if (conns->conn[i].state != CONN_FREE)
			conn_free(conns, &conns->conn[i]);
	conns->refused_count = 0;
}

/* Turns */

static void conn_queue(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn->waits || (!conn->pending && !conn_has_data(conn)))
		return;
	TAILQ_INSERT_TAIL(&conns->turns, conn, turn);
	conn->waits = true;
}

void conn_say(struct vsock_conns *conns, struct vsock_conn *conn, unsigned int op)
{
	conn->pending |= 1U << op;
	conn_queue(conns, conn);
}

void conn_go_on(struct vsock_conns *conns, struct vsock_conn *conn)
{
	conn_ask_for_room(conns, conn);
	conn_queue(conns, conn);
}

struct vsock_conn *conns_next(struct vsock_conns *conns)
{
	struct vsock_conn *conn = TAILQ_FIRST(&conns->turns);

	if (conn)
		conn_unqueue(conns, conn);
	return conn;
}

/* Sockets */

/* A guest that was asked nothing yet need not know. */
static void conn_hear_requested(struct vsock_conns *conns, struct vsock_conn *conn, uint32_t events)
{
	if (!(events & (EPOLLHUP | EPOLLERR)))
		conn->readable = true;
	else if (conn->pending & 1U << VIRTIO_VSOCK_OP_REQUEST)
		conn_free(conns, conn);
	else
		conn_reset(conns, conn);
}

/* Nothing more is to be read. */
static bool conn_has_ended(const struct vsock_conn *conn)
{
	return conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
	       conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV;
}

static void conn_hear_open(struct vsock_conns *conns, struct vsock_conn *conn, uint32_t events)
{
	if (conn->fd < 0)
		return;
	if (events & ~EPOLLOUT)
		conn->readable = true;
	if (events & EPOLLHUP && conn_has_ended(conn))
		conn_shut(conns, conn, CONN_BOTH);
	else if (events & EPOLLOUT)
		conn_flush(conns, conn);
	conn_go_on(conns, conn);
}

static void conns_hear_one(struct vsock_conns *conns, const struct epoll_event *event)
{
	struct vsock_conn *conn = &conns->conn[event->data.u64];

	if (event->data.u64 == CONNS_LISTENER)
		conns->knocks = true;
	else if (conn->state == CONN_GREETING)
		conn_greet(conns, conn);
	else if (conn->state == CONN_REQUESTED)
		conn_hear_requested(conns, conn, event->events);
	else if (conn->state == CONN_OPEN)
		conn_hear_open(conns, conn, event->events);
}

void conns_hear(struct vsock_conns *conns)
{
	struct epoll_event events[CONNS_EVENTS];
	int count = epoll_wait(conns->poll, events, ARRAY_SIZE(events), 0);

	for (int i = 0; i < count; i++)
		conns_hear_one(conns, &events[i]);
	conns_accept(conns);
}
