// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Packets (virtio 1.2, section 5.10.6): what the guest says, and what it is told. A packet that
 * makes no sense where it comes ends its connection, by VIRTIO_VSOCK_OP_RST; one from or to others
 * than this guest and the host is not heard.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/vsock/conn.h"
#include "userspace/lib/array.h"

/* From the guest */

bool conns_can_take(const struct vsock_conns *conns)
{
	return conns->refused_count < CONNS_REFUSED;
}

static void packet_refuse(struct vsock_conns *conns, const struct vsock_packet *packet)
{
	const unsigned int at = (conns->refused_first + conns->refused_count++) % CONNS_REFUSED;

	conns->refused[at] = (struct vsock_packet){
		.guest_port = packet->guest_port, .host_port = packet->host_port,
		.type = packet->type, .op = VIRTIO_VSOCK_OP_RST,
	};
}

static void conn_note_credit(struct vsock_conn *conn, const struct vsock_packet *packet)
{
	conn->guest_alloc = packet->buf_alloc;
	conn->guest_fwd = packet->fwd_cnt;
}

/* The guest connects to a program of the host's. */
static void packet_connect(struct vsock_conns *conns, const struct vsock_packet *packet)
{
	struct vsock_conn *conn = NULL;
	int fd = -1;

	if (packet->op == VIRTIO_VSOCK_OP_REQUEST && conns->count < conns->max)
		fd = host_connect(&conns->host, packet->host_port);
	if (fd >= 0)
		conn = conn_new(conns, fd);
	if (!conn) {
		packet_refuse(conns, packet);
		return;
	}
	conn_bind(conns, conn, CONN_OPEN, packet->guest_port, packet->host_port);
	conn_note_credit(conn, packet);
	conn_say(conns, conn, VIRTIO_VSOCK_OP_RESPONSE);
}

/* Of a connection that there is. 0; a negative errno where that has to end. */
typedef int take_packet(struct vsock_conns *conns, struct vsock_conn *conn,
			const struct vsock_packet *packet, struct virtq_chain *chain);

/* The program is told, and may have sent something already. */
static int take_response(struct vsock_conns *conns, struct vsock_conn *conn,
			 const struct vsock_packet *packet, struct virtq_chain *chain)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);

	(void)conns;
	(void)packet;
	(void)chain;
	if (conn->state != CONN_REQUESTED || conn->pending & 1U << VIRTIO_VSOCK_OP_REQUEST)
		return -EPROTO;
	if (write(conn->fd, line, len) != len)
		return -EPIPE;
	conn->state = CONN_OPEN;
	conn->readable = true;
	return 0;
}

static int take_shutdown(struct vsock_conns *conns, struct vsock_conn *conn,
			 const struct vsock_packet *packet, struct virtq_chain *chain)
{
	(void)chain;
	if (conn->state != CONN_OPEN)
		return -EPROTO;
	conn->guest_shut |= packet->flags & CONN_BOTH;
	if (packet->flags & VIRTIO_VSOCK_SHUTDOWN_RCV && conn->fd >= 0)
		shutdown(conn->fd, SHUT_RD);
	conn_settle(conns, conn);
	return 0;
}

static int take_data(struct vsock_conns *conns, struct vsock_conn *conn,
		     const struct vsock_packet *packet, struct virtq_chain *chain)
{
	if (conn->state != CONN_OPEN || conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		return -EPROTO;
	return conn_write(conns, conn, chain, packet->len);
}

/* What it says of credit is noted of each packet. */
static int take_credit(struct vsock_conns *conns, struct vsock_conn *conn,
		       const struct vsock_packet *packet, struct virtq_chain *chain)
{
	(void)conns;
	(void)packet;
	(void)chain;
	return conn->state == CONN_OPEN ? 0 : -EPROTO;
}

static int take_credit_request(struct vsock_conns *conns, struct vsock_conn *conn,
			       const struct vsock_packet *packet, struct virtq_chain *chain)
{
	int err = take_credit(conns, conn, packet, chain);

	if (err)
		return err;
	if (conn->fd >= 0 && host_has_room(conn->fd))
		conn->returned = conn->taken - conn->small_len;
	conn_say(conns, conn, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	return 0;
}

/* Another one, as a request of what there is, has no place here. */
static take_packet *const packet_takers[] = {
	[VIRTIO_VSOCK_OP_RESPONSE] = take_response,
	[VIRTIO_VSOCK_OP_SHUTDOWN] = take_shutdown,
	[VIRTIO_VSOCK_OP_RW] = take_data,
	[VIRTIO_VSOCK_OP_CREDIT_UPDATE] = take_credit,
	[VIRTIO_VSOCK_OP_CREDIT_REQUEST] = take_credit_request,
};

static void conn_take(struct vsock_conns *conns, struct vsock_conn *conn,
		      const struct vsock_packet *packet, struct virtq_chain *chain)
{
	take_packet *take = packet->op < ARRAY_SIZE(packet_takers) ? packet_takers[packet->op] :
								    NULL;

	conn_note_credit(conn, packet);
	if (!take || take(conns, conn, packet, chain))
		conn_reset(conns, conn);
	conn_go_on(conns, conn);
}

void conns_take(struct vsock_conns *conns, struct virtq_chain *chain)
{
	struct vsock_packet packet;
	struct vsock_conn *conn = NULL;

	if (packet_read(chain, conns->guest_cid, &packet))
		return;
	if (packet.type == VIRTIO_VSOCK_TYPE_STREAM)
		conn = conn_find(conns, packet.guest_port, packet.host_port);
	if (packet.op == VIRTIO_VSOCK_OP_RST) {
		if (conn)
			conn_free(conns, conn);
	} else if (packet.type != VIRTIO_VSOCK_TYPE_STREAM) {
		packet_refuse(conns, &packet);
	} else if (!conn) {
		packet_connect(conns, &packet);
	} else if (conn->state != CONN_OVER) {
		conn_take(conns, conn, &packet, chain);
	}
}

/* To the guest */

static uint32_t conn_give(struct vsock_conns *conns, struct vsock_conn *conn, unsigned int op,
			  uint32_t len, struct virtq_chain *chain)
{
	const struct vsock_packet packet = {
		.guest_port = conn->guest_port, .host_port = conn->host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .len = len,
		.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? conn->host_shut : 0,
		.buf_alloc = conns->host.credit, .fwd_cnt = conn->returned,
	};

	/* Each packet tells of credit. */
	conn->pending &= ~(1U << op | 1U << VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	conn->told = conn->returned;
	if (op == VIRTIO_VSOCK_OP_RST)
		conn_free(conns, conn);
	return packet_write(chain, conns->guest_cid, &packet) + len;
}

/* What is to be said first goes first: that is the order of the numbers. */
static uint32_t conn_give_next(struct vsock_conns *conns, struct vsock_conn *conn,
			       struct virtq_chain *chain)
{
	uint32_t len;

	if (conn->pending)
		return conn_give(conns, conn, __builtin_ctz(conn->pending), 0, chain);
	len = conn_has_data(conn) ? conn_read(conns, conn, chain) : 0;
	return len ? conn_give(conns, conn, VIRTIO_VSOCK_OP_RW, len, chain) : 0;
}

static uint32_t refused_give(struct vsock_conns *conns, struct virtq_chain *chain)
{
	const struct vsock_packet *packet = &conns->refused[conns->refused_first];

	conns->refused_first = (conns->refused_first + 1) % CONNS_REFUSED;
	conns->refused_count--;
	return packet_write(chain, conns->guest_cid, packet);
}

bool conns_wait(const struct vsock_conns *conns)
{
	return conns->refused_count || !TAILQ_EMPTY(&conns->turns);
}

uint32_t conns_give(struct vsock_conns *conns, struct virtq_chain *chain)
{
	struct vsock_conn *conn;
	uint32_t given = 0;

	if (conns->refused_count)
		return refused_give(conns, chain);
	while (!given && (conn = conns_next(conns))) {
		given = conn_give_next(conns, conn, chain);
		if (conn->state != CONN_FREE)
			conn_go_on(conns, conn);
	}
	return given;
}
