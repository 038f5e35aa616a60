/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Connections of the guest and programs of the host: conn.c, stream.c, guest.c and greeting.c. */
#ifndef DEVMODEL_VSOCK_CONN_H
#define DEVMODEL_VSOCK_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "devmodel/virtq.h"
#include "devmodel/vsock/host.h"
#include "devmodel/vsock/packet.h"

#define CONNS_MAX	1024
#define CONN_SMALL	512
#define CONN_BOTH	(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* So many programs may be about to say what they want; with one more, the first has to go. */
#define CONNS_GREETING	32

/* Packets without a connection that wait for their answer. */
#define CONNS_REFUSED	64

/**
 * enum conn_state - the life of a connection
 * @CONN_FREE: there is none
 * @CONN_GREETING: a program of the host's has not said yet to which port; the guest does not know
 * @CONN_REQUESTED: that program waits for the guest to accept
 * @CONN_OPEN: data may pass
 * @CONN_OVER: without a socket; the guest is still to be told, by VIRTIO_VSOCK_OP_RST
 */
enum conn_state { CONN_FREE, CONN_GREETING, CONN_REQUESTED, CONN_OPEN, CONN_OVER };

/**
 * struct vsock_conn - a connection
 * @next: of the same bucket, or of those that are free
 * @turn: while @waits
 * @waits: for a buffer of the guest's
 * @readable: the socket may have something, or its end
 * @asked: the guest was asked how much more it takes, and has not said
 * @cut: what is to be sent to the socket has ended there, too
 * @guest_shut: what the guest will not do any more, of VIRTIO_VSOCK_SHUTDOWN_*
 * @host_shut: what the host will not do any more
 * @small_len: bytes in @small: of the guest's that the socket is to get, or of a greeting
 * @fd: the socket; -1: the program has closed it, or it is CONN_OVER
 * @pending: by bits of VIRTIO_VSOCK_OP_*, what the guest is to be sent
 * @taken: bytes that the guest has sent
 * @returned: of these, those that count as gone from the buffer that it was told of
 * @told: what it was told last of @returned
 * @sent: bytes that it was sent
 * @guest_alloc, @guest_fwd: what it has said last of its own buffer
 */
struct vsock_conn {
	struct vsock_conn *next;
	TAILQ_ENTRY(vsock_conn) turn;
	uint8_t state;
	bool waits;
	bool readable;
	bool asked;
	bool cut;
	uint8_t guest_shut;
	uint8_t host_shut;
	uint16_t small_len;
	int fd;
	uint32_t guest_port;
	uint32_t host_port;
	uint32_t pending;
	uint32_t taken;
	uint32_t returned;
	uint32_t told;
	uint32_t sent;
	uint32_t guest_alloc;
	uint32_t guest_fwd;
	uint8_t small[CONN_SMALL];
};

TAILQ_HEAD(vsock_turns, vsock_conn);

#define CONNS_BUCKETS	256

/**
 * struct vsock_conns - all of a device
 * @poll: an epoll descriptor, which is readable when conns_hear() has something to do
 * @knocks: somebody may wait at the listener
 * @max: as many as there may be, at most CONNS_MAX
 * @touched: the first so many of @conn were in use before
 * @count: that are not CONN_FREE
 * @turns: those that wait for a buffer of the guest's, who came first first
 * @host_port: the one that the last program of the host's got
 * @refused: packets that are answered by VIRTIO_VSOCK_OP_RST
 */
struct vsock_conns {
	uint64_t guest_cid;
	struct host host;
	int poll;
	bool knocks;
	unsigned int max;
	unsigned int touched;
	unsigned int count;
	uint32_t host_port;
	struct vsock_turns turns;
	struct vsock_conn *free;
	struct vsock_conn *bucket[CONNS_BUCKETS];
	struct vsock_conn *greeting[CONNS_GREETING];
	unsigned int greetings;
	unsigned int refused_first;
	unsigned int refused_count;
	struct vsock_packet refused[CONNS_REFUSED];
	struct vsock_conn conn[CONNS_MAX];
};

/* All else in @conns is zero, but for the guest's CID and the host. 0 or a negative errno. */
int conns_init(struct vsock_conns *conns);

/* No connection is left; the guest is told of none. */
void conns_drop(struct vsock_conns *conns);

/* Frees what conns_init() took, after conns_drop(). */
void conns_finish(struct vsock_conns *conns);

/* Takes some of what has happened at the sockets, and some of those who knock. */
void conns_hear(struct vsock_conns *conns);

/* May somebody knock for whom there is room? @poll does not tell. */
bool conns_can_accept(const struct vsock_conns *conns);

/* A packet of the guest's: only while there is room for an answer. */
bool conns_can_take(const struct vsock_conns *conns);
void conns_take(struct vsock_conns *conns, struct virtq_chain *chain);

/**
 * conns_give - put a packet for the guest into a chain
 * Return: its bytes; 0: there is nothing to say now, and the chain is as before.
 */
uint32_t conns_give(struct vsock_conns *conns, struct virtq_chain *chain);

/* Does something wait for a chain? */
bool conns_wait(const struct vsock_conns *conns);

/* For the files of connections */

/* A connection without a state yet; NULL, and @fd is closed, where there cannot be one more. */
struct vsock_conn *conn_new(struct vsock_conns *conns, int fd);

/* It is between these ports from here on. */
void conn_bind(struct vsock_conns *conns, struct vsock_conn *conn, enum conn_state state,
	       uint32_t guest_port, uint32_t host_port);
struct vsock_conn *conn_find(struct vsock_conns *conns, uint32_t guest_port, uint32_t host_port);

/* There is no such connection any more, and the guest knows, or is to be told. */
void conn_free(struct vsock_conns *conns, struct vsock_conn *conn);
void conn_reset(struct vsock_conns *conns, struct vsock_conn *conn);

/* The guest is to be sent a VIRTIO_VSOCK_OP_*. */
void conn_say(struct vsock_conns *conns, struct vsock_conn *conn, unsigned int op);

/* It waits for a buffer of the guest's, if there is something for one. */
void conn_go_on(struct vsock_conns *conns, struct vsock_conn *conn);

/* The one that has waited longest, which does no more; or NULL. */
struct vsock_conn *conns_next(struct vsock_conns *conns);

/* The host, too, will not do that any more. */
void conn_shut(struct vsock_conns *conns, struct vsock_conn *conn, uint8_t flags);

/**
 * conn_write - data of the guest's to the socket
 * @len: bytes, of the readable part of @chain, which has as many
 *
 * Return: 0; -EPROTO for more than the guest may send, or another negative errno where the
 * connection has to end.
 */
int conn_write(struct vsock_conns *conns, struct vsock_conn *conn, struct virtq_chain *chain,
	       uint32_t len);

/* The socket has room: what was kept goes there. Either one may end the connection. */
void conn_flush(struct vsock_conns *conns, struct vsock_conn *conn);

/* What the guest has shut is shut at the socket, once that has all data. */
void conn_settle(struct vsock_conns *conns, struct vsock_conn *conn);

/* Has the socket, as far as is known, something that the guest has room for? Else, ask it. */
bool conn_has_data(const struct vsock_conn *conn);
void conn_ask_for_room(struct vsock_conns *conns, struct vsock_conn *conn);

/* Reads data into @chain, behind the place of a header. Return: bytes, 0 for none. */
uint32_t conn_read(struct vsock_conns *conns, struct vsock_conn *conn,
		   const struct virtq_chain *chain);

/* Takes some of those who knock. */
void conns_accept(struct vsock_conns *conns);

/* Hears what a program says first, and ends that. */
void conn_greet(struct vsock_conns *conns, struct vsock_conn *conn);
void conn_greeted(struct vsock_conns *conns, const struct vsock_conn *conn);

#endif /* DEVMODEL_VSOCK_CONN_H */
