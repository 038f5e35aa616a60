// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the connections of a socket device between a guest and programs of the host that
 * both do as the input says. The input is a row of steps, each a byte and its arguments: a packet
 * of the guest's, well-formed but for what it says, or any bytes; a buffer for it, in pieces; a
 * program that comes, sends, receives, or goes. Programs are the other ends of socket pairs:
 * host.c is played here.
 *
 * What must hold, beside that no sanitizer complains: a packet to the guest is one, of the length
 * that it says, and in the buffer; what is kept is bounded; and nobody has more credit than was
 * given.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/vsock/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CID		42
#define CREDIT		4096
#define PROGRAMS	16
#define STEPS		200

static struct vsock_conns conns;
static struct virtq_chain chain;
static int programs[PROGRAMS];	/* 0: none */
static unsigned int program_next;
static int knocking;		/* a program that has not been accepted; 0: none */
static struct {
	const uint8_t *data;
	size_t size;
} input;

/* Behind the end of the input are zeroes. */
static void take(void *to, size_t len)
{
	const size_t some = len < input.size ? len : input.size;

	memset(to, 0, len);
	if (some)
		memcpy(to, input.data, some);
	input.data += some;
	input.size -= some;
}

static uint8_t take_byte(void)
{
	uint8_t byte;

	take(&byte, 1);
	return byte;
}

static void check(bool holds)
{
	if (!holds)
		abort();
}

/* In the place of host.c */

static int program_new(int *ret_program)
{
	int pair[2];

	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	*ret_program = pair[0];
	return pair[1];
}

static int *program_place(void)
{
	int *place = &programs[program_next++ % PROGRAMS];

	if (*place)
		close(*place);
	return place;
}

int host_connect(const struct host *host, uint32_t port)
{
	(void)host;
	return port & 1 ? program_new(program_place()) : -ECONNREFUSED;
}

int host_accept(const struct host *host)
{
	int fd = knocking;

	(void)host;
	knocking = 0;
	return fd ? fd : -EAGAIN;
}

bool host_has_room(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };

	return poll(&wait, 1, 0) == 1 && wait.revents & POLLOUT;
}

bool host_is_gone(int fd)
{
	struct pollfd wait = { .fd = fd };

	return poll(&wait, 1, 0) == 1 && wait.revents & (POLLHUP | POLLERR);
}

/* Chains: each piece has memory of its own, so that what is beyond it is found. */

static uint64_t chain_fill(bool writable, const void *bytes, size_t len)
{
	unsigned int count = 0;
	size_t done = 0;

	while (done < len && count < VIRTQ_IOV_MAX) {
		size_t some = 1 + take_byte() * 4;

		some = some < len - done ? some : len - done;
		chain.iov[count] = (struct iovec){ malloc(some), some };
		memset(chain.iov[count].iov_base, 0, some);
		if (bytes)
			memcpy(chain.iov[count].iov_base, (const char *)bytes + done, some);
		count++;
		done += some;
	}
	chain.readable = chain.writable = chain.iov;
	chain.readable_count = writable ? 0 : count;
	chain.writable_count = writable ? count : 0;
	return done;
}

/* Pieces move on in the chain as they are read: @pieces has them as they were. */
static void chain_free(struct iovec *pieces, unsigned int count)
{
	while (count--)
		free(pieces[count].iov_base);
}

static void guest_say(const void *bytes, size_t len)
{
	static struct iovec pieces[VIRTQ_IOV_MAX];
	unsigned int count;

	if (!conns_can_take(&conns))
		return;
	chain_fill(false, bytes, len);
	count = chain.readable_count;
	memcpy(pieces, chain.iov, count * sizeof(pieces[0]));
	conns_take(&conns, &chain);
	chain_free(pieces, count);
}

/* Steps */

static void step_raw(void)
{
	uint8_t bytes[256];
	const size_t len = take_byte();

	take(bytes, len);
	guest_say(bytes, len);
}

/* The ports are few, so that they meet; or those that the last programs of the host's got. */
static void step_packet(void)
{
	static uint8_t bytes[PACKET_HEADER + 8192];
	struct virtio_vsock_hdr header = { .src_cid = CID, .dst_cid = 2 };
	const uint8_t what = take_byte(), ports = take_byte();
	uint16_t len;

	take(&len, sizeof(len));
	len %= sizeof(bytes) - PACKET_HEADER;
	header.op = what & 7;
	header.type = what & 0x40 ? 2 : 1;
	header.src_port = ports & 3;
	header.dst_port = ports & 0x10 ? 0x40000000 + (ports >> 2 & 3) : ports >> 2 & 3;
	header.flags = ports >> 6;
	header.len = what & 0x20 ? len * 65537u : what & 0x10 ? len / 2 : len;
	take(&header.buf_alloc, what & 8 ? 4 : 2);
	take(&header.fwd_cnt, what & 8 ? 4 : 2);
	memcpy(bytes, &header, sizeof(header));
	guest_say(bytes, PACKET_HEADER + len);
}

static void step_buffer(void)
{
	static struct iovec pieces[VIRTQ_IOV_MAX];
	struct virtio_vsock_hdr header;
	uint64_t room = chain_fill(true, NULL, PACKET_HEADER + 1 + take_byte() * 16);
	const unsigned int count = chain.writable_count;
	uint32_t bytes;

	memcpy(pieces, chain.iov, count * sizeof(pieces[0]));
	bytes = room > PACKET_HEADER ? conns_give(&conns, &chain) : 0;
	check(bytes <= room && (!bytes || bytes >= PACKET_HEADER));
	chain.readable = pieces;
	chain.readable_count = count;
	if (bytes) {
		struct iovec part[PACKET_HEADER];
		unsigned int parts = iov_part(pieces, count, 0, PACKET_HEADER, part, PACKET_HEADER);
		size_t at = 0;

		for (unsigned int i = 0; i < parts; at += part[i++].iov_len)
			memcpy((char *)&header + at, part[i].iov_base, part[i].iov_len);
		check(at == PACKET_HEADER && header.src_cid == 2 && header.dst_cid == CID);
		check(header.len == bytes - PACKET_HEADER);
		check(header.op >= VIRTIO_VSOCK_OP_REQUEST &&
		      header.op <= VIRTIO_VSOCK_OP_CREDIT_REQUEST);
		check((header.op == VIRTIO_VSOCK_OP_RW) == !!header.len);
	}
	chain_free(pieces, count);
}

static void step_knock(void)
{
	static const char good[] = "CONNECT 1\nearly";
	uint8_t bytes[64];
	const uint8_t len = take_byte();
	int *place;

	if (knocking)
		return;
	place = program_place();
	knocking = program_new(place);
	take(bytes, len % sizeof(bytes));
	if (len & 0x80)
		check(write(*place, good, sizeof(good) - 1) > 0);
	else if (len && write(*place, bytes, len % sizeof(bytes)) < 0)
		check(false);
	eventfd_write(conns.host.listener, 1);
}

static void step_program(void)
{
	static uint8_t bytes[65536];
	const uint8_t what = take_byte();
	int *program = &programs[what % PROGRAMS];

	if (!*program)
		return;
	switch (what / PROGRAMS % 8) {
	case 0:
		close(*program);
		*program = 0;
		break;
	case 1:
		shutdown(*program, SHUT_WR);
		break;
	case 2:
		shutdown(*program, SHUT_RD);
		break;
	case 3:
		(void)!read(*program, bytes, take_byte());
		break;
	case 4:
		(void)!read(*program, bytes, sizeof(bytes));
		break;
	default:
		(void)!send(*program, bytes, take_byte() * 64, MSG_NOSIGNAL);
	}
}

static void step_hear(void)
{
	conns_hear(&conns);
}

static void check_all(void)
{
	unsigned int count = 0, waiting = 0;
	struct vsock_conn *conn;

	for (unsigned int i = 0; i < conns.touched; i++) {
		conn = &conns.conn[i];
		count += conn->state != CONN_FREE;
		waiting += conn->waits;
		check(conn->state != CONN_FREE || !conn->waits);
		check(conn->small_len <= CONN_SMALL);
		check(conn->state != CONN_OPEN || conn->taken - conn->returned <= CREDIT);
		check(conn->state != CONN_OVER || (conn->fd < 0 && conn->waits));
	}
	TAILQ_FOREACH(conn, &conns.turns, turn)
		waiting--;
	check(!waiting && count == conns.count && conns.refused_count <= CONNS_REFUSED);
}

static void begin(void)
{
	memset(&conns, 0, offsetof(struct vsock_conns, conn));
	conns.guest_cid = CID;
	conns.host.credit = CREDIT;
	conns.host.listener = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	check(!conns_init(&conns));
}

static void finish(void)
{
	conns_drop(&conns);
	check(!conns.count && !conns_wait(&conns));
	conns_finish(&conns);
	close(conns.host.listener);
	for (unsigned int i = 0; i < PROGRAMS; i++) {
		if (programs[i])
			close(programs[i]);
		programs[i] = 0;
	}
	if (knocking)
		close(knocking);
	knocking = 0;
}

/* As every program of devices has it. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const steps[])(void) = {
		step_packet, step_raw, step_buffer, step_knock, step_program, step_hear,
		step_packet, step_buffer,
	};

	input.data = data;
	input.size = size;
	begin();
	for (unsigned int i = 0; i < STEPS && input.size; i++) {
		steps[take_byte() % 8]();
		check_all();
	}
	finish();
	return 0;
}
