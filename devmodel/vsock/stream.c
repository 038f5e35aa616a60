// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Data, in both directions.
 *
 * To the guest: read from the socket right into a chain, as much as the guest has said it has room
 * for.
 *
 * From the guest: written from the chain right into the socket. What it may send is bounded by
 * credit, of which it is given as much as the socket is sure to take; so nothing has to be kept
 * here when a program of the host's is slow, and the chain goes back at once.
 *
 * How much that is: a socket is writable for poll() as long as a quarter of its buffer is in use,
 * and takes data until all of it is. The kernel counts what the data takes in memory, which is at
 * most 3.3 times the data where it comes in pieces of CONN_SMALL bytes or more, and 768 times
 * where it comes in single bytes. So once the socket is not writable, pieces smaller than that are
 * gathered, and that is all that is ever kept; and credit is given back while it is writable.
 * Credit of a sixth of the buffer (host.c) then takes 3.3 / 6 of it, where 3 / 4 are free. Should
 * a kernel count more, the connection is reset.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "devmodel/vsock/conn.h"

/* In one system call; a packet to the guest has no more. */
#define STREAM_PIECES	64

/* From the guest */

/* Nobody reads it. */
static void conn_discard(struct vsock_conn *conn)
{
	conn->small_len = 0;
	conn->returned = conn->taken;
}

/* What the socket has no place for. */
static int conn_keep(struct vsock_conn *conn, struct virtq_chain *chain, uint32_t len)
{
	if (conn->small_len + len > CONN_SMALL)
		return -ENOBUFS;
	if (len)
		chain_read(chain, conn->small + conn->small_len, len);
	conn->small_len += len;
	return 0;
}

/* @n bytes are gone, of what was kept first. Return: those of the chain. */
static uint32_t conn_written(struct vsock_conn *conn, uint32_t n)
{
	const uint32_t kept = n < conn->small_len ? n : conn->small_len;

	conn->small_len -= kept;
	memmove(conn->small, conn->small + kept, conn->small_len);
	return n - kept;
}

/* What was kept, and @len bytes of @chain. */
static int conn_push(struct vsock_conn *conn, struct virtq_chain *chain, uint32_t len)
{
	while (conn->small_len || len) {
		struct iovec part[1 + STREAM_PIECES] = { { conn->small, conn->small_len } };
		unsigned int parts = 1;
		ssize_t n;

		if (len)
			parts += iov_part(chain->readable, chain->readable_count, 0, len, part + 1,
					  STREAM_PIECES);
		n = writev(conn->fd, part, parts);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? conn_keep(conn, chain, len) : -errno;
		n = conn_written(conn, n);
		if (n)
			iov_advance(&chain->readable, &chain->readable_count, n);
		len -= n;
	}
	return 0;
}

static void conn_give_back(struct vsock_conns *conns, struct vsock_conn *conn)
{
	conn->returned = conn->taken - conn->small_len;
	if (conn->returned - conn->told >= conns->host.credit / 2)
		conn_say(conns, conn, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/* A program may have closed its end, or said that it does not read any more. */
static int conn_pushed(struct vsock_conns *conns, struct vsock_conn *conn, int err)
{
	if (err != -EPIPE && err != -ECONNRESET)
		return err;
	conn_discard(conn);
	conn_shut(conns, conn, VIRTIO_VSOCK_SHUTDOWN_RCV);
	return 0;
}

int conn_write(struct vsock_conns *conns, struct vsock_conn *conn, struct virtq_chain *chain,
	       uint32_t len)
{
	int err;

	if ((uint64_t)(conn->taken - conn->returned) + len > conns->host.credit)
		return -EPROTO;
	conn->taken += len;
	if (conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		conn_discard(conn);
		return 0;
	}
	if (conn->small_len + len < CONN_SMALL && !host_has_room(conn->fd))
		return conn_keep(conn, chain, len);
	err = conn_pushed(conns, conn, conn_push(conn, chain, len));
	if (!err && conn->fd >= 0 && conn->taken - conn->returned > conns->host.credit / 2 &&
	    host_has_room(conn->fd))
		conn_give_back(conns, conn);
	return err;
}

void conn_flush(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn_pushed(conns, conn, conn_push(conn, NULL, 0))) {
		conn_reset(conns, conn);
		return;
	}
	conn_give_back(conns, conn);
	conn_settle(conns, conn);
}

void conn_settle(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn->small_len)
		return;
	if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && conn->fd >= 0 && !conn->cut) {
		conn->cut = true;
		shutdown(conn->fd, SHUT_WR);
	}
	if (conn->guest_shut == CONN_BOTH)
		conn_reset(conns, conn);
}

/* To the guest */

/* A guest that says it has got what was not sent has no room either. */
static uint32_t conn_guest_room(const struct vsock_conn *conn)
{
	const uint32_t used = conn->sent - conn->guest_fwd;

	return used < conn->guest_alloc ? conn->guest_alloc - used : 0;
}

/* There may be some, but for the guest's room. */
static bool conn_may_have_data(const struct vsock_conn *conn)
{
	return conn->state == CONN_OPEN && conn->readable &&
	       !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
	       !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND);
}

bool conn_has_data(const struct vsock_conn *conn)
{
	return conn_may_have_data(conn) && conn_guest_room(conn);
}

void conn_ask_for_room(struct vsock_conns *conns, struct vsock_conn *conn)
{
	if (conn_guest_room(conn)) {
		conn->asked = false;
	} else if (conn_may_have_data(conn) && !conn->asked) {
		conn->asked = true;
		conn_say(conns, conn, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	}
}

/* There is nothing, or never again. */
static void conn_read_nothing(struct vsock_conns *conns, struct vsock_conn *conn, ssize_t n)
{
	const int err = n ? errno : 0;

	if (err == EINTR)
		return;
	conn->readable = false;
	if (!err)
		conn_shut(conns, conn, VIRTIO_VSOCK_SHUTDOWN_SEND |
			  (host_is_gone(conn->fd) ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0));
	else if (err != EAGAIN)
		conn_reset(conns, conn);
}

uint32_t conn_read(struct vsock_conns *conns, struct vsock_conn *conn,
		   const struct virtq_chain *chain)
{
	const uint32_t room = conn_guest_room(conn);
	struct iovec part[STREAM_PIECES];
	unsigned int parts = iov_part(chain->writable, chain->writable_count, PACKET_HEADER,
				      room < PACKET_DATA_MAX ? room : PACKET_DATA_MAX, part,
				      STREAM_PIECES);
	ssize_t n = readv(conn->fd, part, parts);

	if (n > 0)
		conn->sent += n;
	else
		conn_read_nothing(conns, conn, n);
	return n > 0 ? n : 0;
}
