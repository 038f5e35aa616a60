// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Programs of the host's that want to be connected: "CONNECT PORT\n" is what they say, and "OK
 * PORT\n" what they are told when the guest has accepted, with a port of ours. Until a program has
 * said it, its place is one of a few, and goes to a later one where there are too many; so who
 * says nothing keeps nobody away.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "devmodel/vsock/conn.h"
#include "userspace/lib/parse.h"

#define GREETING_WORD	"CONNECT "
#define GREETING_MAX	(sizeof(GREETING_WORD) + 10)	/* with the end of the line */

/* At once, before others are served again. */
#define ACCEPT_MAX	16

/* Ports of ours, for those who come from the host, are from the first of these on. */
#define HOST_PORT_FIRST	0x40000000u
#define HOST_PORTS	0x40000000u

void conn_greeted(struct vsock_conns *conns, const struct vsock_conn *conn)
{
	for (unsigned int i = 0; i < CONNS_GREETING; i++)
		if (conns->greeting[i] == conn)
			conns->greeting[i] = NULL;
}

static void conns_welcome(struct vsock_conns *conns, int fd)
{
	struct vsock_conn **place = &conns->greeting[conns->greetings++ % CONNS_GREETING];
	struct vsock_conn *conn;

	if (*place)
		conn_free(conns, *place);
	conn = conn_new(conns, fd);
	if (!conn)
		return;
	conn->state = CONN_GREETING;
	*place = conn;
	conn_greet(conns, conn);
}

bool conns_can_accept(const struct vsock_conns *conns)
{
	return conns->knocks && conns->count < conns->max;
}

void conns_accept(struct vsock_conns *conns)
{
	for (unsigned int i = 0; i < ACCEPT_MAX && conns_can_accept(conns); i++) {
		int fd = host_accept(&conns->host);

		if (fd >= 0)
			conns_welcome(conns, fd);
		else if (fd != -EINTR && fd != -ECONNABORTED)
			conns->knocks = false;
	}
}

/* One that no other connection to that port of the guest's has. */
static uint32_t port_choose(struct vsock_conns *conns, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = HOST_PORT_FIRST + conns->host_port++ % HOST_PORTS;
	} while (conn_find(conns, guest_port, port));
	return port;
}

/* @line is a string, without its end of line. */
static void conn_request(struct vsock_conns *conns, struct vsock_conn *conn, const char *line)
{
	const size_t word = strlen(GREETING_WORD);
	uint64_t port;

	if (strncmp(line, GREETING_WORD, word) ||
	    parse_uint(line + word, 0, UINT32_MAX - 1, &port)) {
		conn_free(conns, conn);
		return;
	}
	conn_greeted(conns, conn);
	conn->small_len = 0;
	conn_bind(conns, conn, CONN_REQUESTED, port, port_choose(conns, port));
	conn_say(conns, conn, VIRTIO_VSOCK_OP_REQUEST);
}

/* What is behind the line is the guest's: no byte more is read. */
void conn_greet(struct vsock_conns *conns, struct vsock_conn *conn)
{
	char *line = (char *)conn->small;
	ssize_t n;

	while ((n = read(conn->fd, line + conn->small_len, 1)) == 1) {
		if (line[conn->small_len] == '\n') {
			line[conn->small_len] = '\0';
			conn_request(conns, conn, line);
			return;
		}
		if (++conn->small_len == GREETING_MAX)
			break;
	}
	if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		conn_free(conns, conn);
}
