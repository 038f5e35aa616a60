// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-vsock, the program: in its sandbox, with a guest and programs of the host that are this
 * test, good ones and bad ones.
 */
#include <errno.h>
#include <linux/virtio_vsock.h>
#include <stdarg.h>

#include "selftests/unit/program_front.h"

#define PROGRAM		"build/bin/moat-vsock"
#define CID		42
#define PORT		1024	/* of the host's: somebody listens there */
#define GUEST		7000	/* a port of the guest's */
#define CREDIT		65536
#define HEADER		sizeof(struct virtio_vsock_hdr)
#define OWN_KIB		1024

enum { RX, TX, EVENT };

/* Of the memory for data: buffers for the guest, what it sends, and what it is told of. */
#define RX_BUFFERS	8
#define RX_SIZE		(4 * PAGE)
#define TX_AT		(DATA + RX_BUFFERS * RX_SIZE)
#define EVENT_AT	(MEMORY_SIZE - PAGE)
#define TX_MAX		(EVENT_AT - TX_AT)

static char path[96];
static int behind_port;
static unsigned int rx_taken;
static struct virtio_vsock_hdr heard;
static uint8_t heard_data[RX_SIZE];
static uint32_t guest_alloc = 262144, guest_fwd;

/* The host */

static struct sockaddr_un host_address(const char *suffix)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path, suffix);
	return address;
}

static void host_listen(void)
{
	const struct sockaddr_un address = host_address("_1024");

	unlink(address.sun_path);
	behind_port = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	EXPECT(!bind(behind_port, (struct sockaddr *)&address, sizeof(address)));
	EXPECT(!listen(behind_port, 4096));
}

static void set_patience(int fd)
{
	const struct timeval limit = { .tv_sec = TIMEOUT_MS / 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

static int host_accept(void)
{
	struct pollfd wait = { .fd = behind_port, .events = POLLIN };
	int fd = poll(&wait, 1, TIMEOUT_MS) == 1 ? accept(behind_port, NULL, NULL) : -1;

	EXPECT(fd >= 0);
	set_patience(fd);
	return fd;
}

/* Connects, and says something. */
static int host_connect(const char *says)
{
	const struct sockaddr_un address = host_address("");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	set_patience(fd);
	EXPECT(!connect(fd, (struct sockaddr *)&address, sizeof(address)));
	EXPECT(write(fd, says, strlen(says)) == (ssize_t)strlen(says));
	return fd;
}

static bool host_gets(int fd, const void *bytes, size_t len)
{
	static uint8_t got[CREDIT];

	return recv(fd, got, len, MSG_WAITALL) == (ssize_t)len && !memcmp(got, bytes, len);
}

/* The end, after what was sent before; with an error or without. */
static bool host_ended(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	return !n || (n < 0 && errno == ECONNRESET);
}

/* The guest */

static void guest_offer(unsigned int buffer)
{
	ring_describe(RX, buffer, DATA + buffer * RX_SIZE, RX_SIZE, VRING_DESC_F_WRITE);
	ring_submit(RX, buffer);
}

/* The next packet, into @heard; 0 where none comes. Its buffer is not given again. */
static bool guest_hear_only(int timeout)
{
	int64_t len = ring_complete(RX, timeout);
	const uint8_t *from = memory + DATA + rx_taken % RX_BUFFERS * RX_SIZE;

	if (len < (int64_t)HEADER)
		return false;
	rx_taken++;
	memcpy(&heard, from, HEADER);
	memcpy(heard_data, from + HEADER, len - HEADER);
	return heard.len == len - HEADER && heard.src_cid == 2 && heard.dst_cid == CID;
}

static bool guest_hear(int timeout)
{
	if (!guest_hear_only(timeout))
		return false;
	guest_offer((rx_taken - 1) % RX_BUFFERS);
	return true;
}

/* Is the next packet this operation, from a port of the host's to one of the guest's? */
static bool guest_hears(unsigned int op, uint32_t guest_port, uint32_t host_port)
{
	return guest_hear(TIMEOUT_MS) && heard.op == op && heard.dst_port == guest_port &&
	       heard.src_port == host_port;
}

static void tx_submit(size_t len)
{
	ring_describe(TX, 0, TX_AT, len, 0);
	ring_submit(TX, 0);
}

static struct virtio_vsock_hdr header_of(unsigned int op, uint32_t guest_port, uint32_t host_port)
{
	return (struct virtio_vsock_hdr){
		.src_cid = CID, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .buf_alloc = guest_alloc,
		.fwd_cnt = guest_fwd,
	};
}

/* A packet as it is, with @len bytes in all; taken? */
static bool guest_says_raw(const struct virtio_vsock_hdr *header, const void *data, size_t len)
{
	memcpy(memory + TX_AT, header, HEADER);
	if (data)
		memcpy(memory + TX_AT + HEADER, data, len - HEADER);
	tx_submit(len);
	return ring_complete(TX, TIMEOUT_MS) == 0;
}

static bool guest_says(unsigned int op, uint32_t guest_port, uint32_t host_port)
{
	const struct virtio_vsock_hdr header = header_of(op, guest_port, host_port);

	return guest_says_raw(&header, NULL, HEADER);
}

static bool guest_sends(uint32_t guest_port, uint32_t host_port, const void *data, uint32_t len)
{
	struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, guest_port, host_port);

	header.len = len;
	return guest_says_raw(&header, data, HEADER + len);
}

static bool guest_shuts(uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
	struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_SHUTDOWN, guest_port, host_port);

	header.flags = flags;
	return guest_says_raw(&header, NULL, HEADER);
}

/* Is the next event that there are no connections any more? */
static bool guest_is_reset(void)
{
	const struct virtio_vsock_event *event = (void *)(memory + EVENT_AT);

	return ring_complete(EVENT, TIMEOUT_MS) == sizeof(*event) &&
	       event->id == VIRTIO_VSOCK_EVENT_TRANSPORT_RESET;
}

static void event_offer(void)
{
	ring_describe(EVENT, 0, EVENT_AT, sizeof(struct virtio_vsock_event), VRING_DESC_F_WRITE);
	ring_submit(EVENT, 0);
}

/* A connection to the host's program. Return: its socket. */
static int guest_connects(uint32_t guest_port)
{
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, guest_port, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RESPONSE, guest_port, PORT));
	EXPECT(heard.buf_alloc == CREDIT && heard.type == VIRTIO_VSOCK_TYPE_STREAM);
	return host_accept();
}

/* A connection to the guest's. Return: the host's port. */
static uint32_t guest_accepts(uint32_t guest_port)
{
	EXPECT(guest_hear(TIMEOUT_MS) && heard.op == VIRTIO_VSOCK_OP_REQUEST);
	EXPECT(heard.dst_port == guest_port);
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RESPONSE, guest_port, heard.src_port));
	return heard.src_port;
}

/* Program, guest and host are new; the guest has its event. */
static void start(void)
{
	program_start((const char *[]){ PROGRAM, "--socket", socket_path, "--cid", "42", "--listen",
					path, NULL });
	EXPECT(front_connect());
	front_set_up(0, 3);
	rx_taken = 0;
	guest_alloc = 262144;
	guest_fwd = 0;
}

static void begin(void)
{
	front_begin();
	host_listen();
	for (unsigned int i = 0; i < RX_BUFFERS; i++)
		guest_offer(i);
	event_offer();
	start();
	EXPECT(guest_is_reset());
}

static void finish(void)
{
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
	close(behind_port);
}

/* Tests */

static void fill(uint8_t *bytes, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (i * 7 + seed + (i >> 8)) & 0xff;
}

static void test_guest_connects(void)
{
	static uint8_t data[CREDIT];
	int fd;

	begin();
	fd = guest_connects(GUEST);
	fill(data, sizeof(data), 1);
	EXPECT(guest_sends(GUEST, PORT, data, sizeof(data) / 4));
	EXPECT(host_gets(fd, data, sizeof(data) / 4));
	EXPECT(write(fd, data, 10000) == 10000);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 10000);
	EXPECT(!memcmp(heard_data, data, 10000));
	/* Once the guest has gone, in both directions, it gets an answer, and the program the end. */
	EXPECT(guest_shuts(GUEST, PORT, 3));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	EXPECT(host_ended(fd));
	close(fd);
	finish();
}

static void test_host_connects(void)
{
	uint32_t port;
	char line[32];
	int fd;

	begin();
	fd = host_connect("CONNECT 52\nearly");
	port = guest_accepts(52);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, 52, port) && heard.len == 5);
	EXPECT(!memcmp(heard_data, "early", 5));
	snprintf(line, sizeof(line), "OK %u\n", port);
	EXPECT(host_gets(fd, line, strlen(line)));
	EXPECT(guest_sends(52, port, "answer", 6));
	EXPECT(host_gets(fd, "answer", 6));
	/* The program goes: the guest is told, and agrees. */
	close(fd);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_SHUTDOWN, 52, port) && heard.flags == 3);
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, 52, port));
	EXPECT(!guest_hear(QUIET_MS));
	finish();
}

/* To a port that the guest has nobody at, or by a program that has gone in the meantime. */
static void test_host_refused(void)
{
	uint32_t port;
	int fd;

	begin();
	fd = host_connect("CONNECT 53\n");
	EXPECT(guest_hear(TIMEOUT_MS) && heard.op == VIRTIO_VSOCK_OP_REQUEST);
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, 53, heard.src_port));
	EXPECT(host_ended(fd));
	close(fd);
	fd = host_connect("CONNECT 53\n");
	EXPECT(guest_hear(TIMEOUT_MS) && heard.op == VIRTIO_VSOCK_OP_REQUEST);
	port = heard.src_port;
	close(fd);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, 53, port));
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RESPONSE, 53, port));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, 53, port));
	finish();
}

static void test_half_closed(void)
{
	int fd;

	begin();
	fd = guest_connects(GUEST);
	EXPECT(guest_sends(GUEST, PORT, "question", 8));
	EXPECT(guest_shuts(GUEST, PORT, VIRTIO_VSOCK_SHUTDOWN_SEND));
	EXPECT(host_gets(fd, "question", 8) && host_ended(fd));
	EXPECT(write(fd, "answer", 6) == 6);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 6);
	/* What it said that it will not do. */
	EXPECT(guest_sends(GUEST, PORT, "more", 4));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	close(fd);

	fd = guest_connects(GUEST);
	EXPECT(!shutdown(fd, SHUT_WR));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST, PORT));
	EXPECT(heard.flags == VIRTIO_VSOCK_SHUTDOWN_SEND);
	EXPECT(guest_sends(GUEST, PORT, "more", 4) && host_gets(fd, "more", 4));
	close(fd);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST, PORT) && heard.flags == 3);
	/* Nobody reads that any more; it is no fault. */
	EXPECT(guest_sends(GUEST, PORT, "more", 4));
	EXPECT(!guest_hear(QUIET_MS));
	EXPECT(guest_shuts(GUEST, PORT, 3));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	finish();
}

/* Neither side reads any more, but both are there. */
static void test_receivers_shut(void)
{
	int fd;

	begin();
	fd = guest_connects(GUEST);
	EXPECT(guest_shuts(GUEST, PORT, VIRTIO_VSOCK_SHUTDOWN_RCV));
	EXPECT(guest_sends(GUEST, PORT, "x", 1) && host_gets(fd, "x", 1));
	EXPECT(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	EXPECT(!shutdown(fd, SHUT_RD));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST, PORT) && heard.flags == 3);
	close(fd);
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, GUEST, PORT));

	fd = guest_connects(GUEST);
	EXPECT(!shutdown(fd, SHUT_RD));
	EXPECT(guest_sends(GUEST, PORT, "x", 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST, PORT));
	EXPECT(heard.flags == VIRTIO_VSOCK_SHUTDOWN_RCV);
	EXPECT(write(fd, "y", 1) == 1);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 1);
	close(fd);
	finish();
}

static void test_refused(void)
{
	struct virtio_vsock_hdr header;

	begin();
	/* Nobody listens there; there is no such connection, or operation, or type. */
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT + 1));
	EXPECT(guest_sends(GUEST, PORT, "data", 4));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	EXPECT(guest_says(77, GUEST, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	header = header_of(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT);
	header.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	EXPECT(guest_says_raw(&header, NULL, HEADER));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	EXPECT(heard.type == VIRTIO_VSOCK_TYPE_SEQPACKET);
	/* That is no question. */
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	EXPECT(!guest_hear(QUIET_MS));
	finish();
}

/* From or to others than this guest and its host: not heard, and nobody is told. */
static void test_others(void)
{
	struct virtio_vsock_hdr header;
	int fd;

	begin();
	fd = guest_connects(GUEST);
	header = header_of(VIRTIO_VSOCK_OP_RST, GUEST, PORT);
	header.src_cid = CID + 1;
	EXPECT(guest_says_raw(&header, NULL, HEADER));
	header.src_cid = CID | 1ULL << 32;
	EXPECT(guest_says_raw(&header, NULL, HEADER));
	header.src_cid = CID;
	header.dst_cid = CID;
	EXPECT(guest_says_raw(&header, NULL, HEADER));
	header = header_of(VIRTIO_VSOCK_OP_RST, GUEST, PORT);
	EXPECT(guest_says_raw(&header, NULL, HEADER - 1));
	EXPECT(guest_says_raw(&header, NULL, 1));
	/* Nothing of the device's to read at all. */
	ring_describe(TX, 0, TX_AT, HEADER, VRING_DESC_F_WRITE);
	ring_submit(TX, 0);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0);
	EXPECT(!guest_hear(QUIET_MS));
	EXPECT(guest_sends(GUEST, PORT, "still", 5) && host_gets(fd, "still", 5));
	close(fd);
	finish();
}

/* Each of them ends its connection, and no other. */
static void test_nonsense(void)
{
	struct virtio_vsock_hdr header;
	int other, fd;

	begin();
	other = guest_connects(1);
	fd = guest_connects(GUEST);
	/* Less data than it says. */
	header = header_of(VIRTIO_VSOCK_OP_RW, GUEST, PORT);
	header.len = 5;
	EXPECT(guest_says_raw(&header, "data", HEADER + 4));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT) && host_ended(fd));
	close(fd);
	fd = guest_connects(GUEST);
	header.len = UINT32_MAX;
	EXPECT(guest_says_raw(&header, "data", HEADER + 4));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT) && host_ended(fd));
	close(fd);
	/* A connection that there is; an answer to nothing; no operation. */
	static const unsigned int ops[] = {
		VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_INVALID, 8, 77,
		UINT16_MAX,
	};
	for (unsigned int i = 0; i < ARRAY_SIZE(ops); i++) {
		fd = guest_connects(GUEST);
		EXPECT(guest_says(ops[i], GUEST, PORT));
		EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT) && host_ended(fd));
		close(fd);
	}
	/* More data than it says is no fault; neither is none. */
	header.len = 2;
	EXPECT(guest_says_raw(&(struct virtio_vsock_hdr){ 0 }, NULL, HEADER));
	header.src_port = 1;
	EXPECT(guest_says_raw(&header, "data", HEADER + 4) && guest_sends(1, PORT, NULL, 0));
	EXPECT(guest_sends(1, PORT, "!", 1) && host_gets(other, "da!", 3));
	close(other);
	finish();
}

/* The guest has as much credit as it was told, and no more; and gets it back. */
static void test_credit(void)
{
	static uint8_t data[CREDIT / 2];
	uint32_t told = 0, sent = 0;
	int fd;

	begin();
	fd = guest_connects(GUEST);
	fill(data, sizeof(data), 3);
	/* A program that does not read: at some time there is no more. */
	while (sent - told < CREDIT && sent < 64 * CREDIT) {
		EXPECT(guest_sends(GUEST, PORT, data, sizeof(data)));
		sent += sizeof(data);
		if (guest_hear(QUIET_MS))
			told = heard.fwd_cnt;
	}
	EXPECT(sent - told == CREDIT);
	for (uint32_t got = 0; got < sent; got += sizeof(data))
		EXPECT(host_gets(fd, data, sizeof(data)));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST, PORT) && heard.fwd_cnt == sent);
	/* Once more, until there is none; then one byte. */
	for (told = sent; sent - told < CREDIT; sent += sizeof(data)) {
		EXPECT(guest_sends(GUEST, PORT, data, sizeof(data)));
		if (guest_hear(QUIET_MS))
			told = heard.fwd_cnt;
	}
	EXPECT(guest_sends(GUEST, PORT, data, 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	close(fd);
	finish();
}

/* All of the credit in single bytes, to a program that does not read yet. */
static void test_single_bytes(void)
{
	uint8_t data[CREDIT];
	int fd;

	begin();
	fd = guest_connects(GUEST);
	fill(data, sizeof(data), 5);
	for (unsigned int i = 0; i < sizeof(data) && EXPECT(guest_sends(GUEST, PORT, data + i, 1)); i++)
		;
	EXPECT(guest_shuts(GUEST, PORT, 3));
	/* The end comes when the last of them is there. */
	EXPECT(host_gets(fd, data, sizeof(data)) && host_ended(fd));
	close(fd);
	finish();
}

/* Sends as long as there is credit; nothing else is heard than that there is more. Return: bytes. */
static uint32_t guest_spends(const uint8_t *data, uint32_t piece)
{
	uint32_t told = 0, sent = 0;

	do {
		while (sent + piece - told <= CREDIT && EXPECT(guest_sends(GUEST, PORT, data, piece)))
			sent += piece;
		if (!guest_hear(QUIET_MS))
			break;
		EXPECT(heard.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		told = heard.fwd_cnt;
	} while (sent < 64 * CREDIT);
	return sent;
}

/* In pieces of which the host's kernel counts far more than there is in them. */
static void test_pieces(void)
{
	static const uint32_t pieces[] = { 500, 512, 705, 1729, 3777, 20000 };
	static uint8_t data[CREDIT];

	begin();
	fill(data, sizeof(data), 9);
	for (unsigned int i = 0; i < ARRAY_SIZE(pieces); i++) {
		int fd = guest_connects(GUEST);
		uint32_t sent = guest_spends(data, pieces[i]);

		EXPECT(sent > CREDIT - pieces[i] && sent < 64 * CREDIT);
		EXPECT(guest_shuts(GUEST, PORT, VIRTIO_VSOCK_SHUTDOWN_SEND));
		for (; sent; sent -= pieces[i])
			EXPECT(host_gets(fd, data, pieces[i]));
		EXPECT(host_ended(fd));
		while (guest_hear(QUIET_MS))
			EXPECT(heard.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
		close(fd);
	}
	finish();
}

/* The guest gets as much as it has room for. */
static void test_guest_credit(void)
{
	int fd;

	begin();
	guest_alloc = 100;
	fd = guest_connects(GUEST);
	EXPECT(write(fd, heard_data, 1000) == 1000);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 100);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST, PORT));
	EXPECT(!guest_hear(QUIET_MS));
	guest_fwd = 60;
	EXPECT(guest_says(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 60);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST, PORT));
	/* A guest that has got more than there was, or has no room at all. */
	guest_fwd = 5000;
	EXPECT(guest_says(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST, PORT));
	guest_alloc = 0;
	EXPECT(guest_says(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST, PORT));
	EXPECT(!guest_hear(QUIET_MS));
	guest_fwd = 160;
	guest_alloc = UINT32_MAX;
	EXPECT(guest_says(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT) && heard.len == 840);
	close(fd);
	finish();
}

/* Without buffers for answers, questions wait in the ring. */
static void test_answers_not_taken(void)
{
	const struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1);
	unsigned int taken = 0, answers = 0;

	begin();
	for (unsigned int i = 0; i < RX_BUFFERS; i++)
		EXPECT(guest_says_raw(&header, NULL, HEADER) && guest_hear_only(TIMEOUT_MS));
	for (; taken < 1000; taken++) {
		memcpy(memory + TX_AT, &header, HEADER);
		tx_submit(HEADER);
		if (ring_complete(TX, QUIET_MS) < 0)
			break;
	}
	EXPECT(taken > 0 && taken < 1000);
	for (unsigned int i = 0; i < RX_BUFFERS; i++)
		guest_offer(i);
	while (guest_hear(QUIET_MS))
		answers++;
	EXPECT(answers == taken + 1 && ring_complete(TX, QUIET_MS) == 0);
	finish();
}

/* Buffers that have no room for a header, or for one only. */
static void test_small_buffers(void)
{
	begin();
	for (unsigned int i = 0; i < RX_BUFFERS; i++)
		EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1) &&
		       guest_hear_only(TIMEOUT_MS));
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1));
	ring_describe(RX, 0, DATA, HEADER - 1, VRING_DESC_F_WRITE);
	ring_submit(RX, 0);
	EXPECT(ring_complete(RX, TIMEOUT_MS) == 0);
	ring_describe(RX, 0, DATA, HEADER, 0);
	ring_submit(RX, 0);
	EXPECT(ring_complete(RX, TIMEOUT_MS) == 0);
	rx_taken = 0;
	guest_offer(0);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT + 1));
	/* In pieces, none of which has room for a header. */
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1) && guest_hear_only(TIMEOUT_MS));
	rx_taken = 0;
	for (unsigned int i = 0; i < 5; i++)
		ring_describe(RX, i, DATA + 10 * i, 10, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
	ring_describe(RX, 5, DATA + 50, 10, VRING_DESC_F_WRITE);
	ring_submit(RX, 0);
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, GUEST, PORT + 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT + 1));
	finish();
}

/* KiB of the program's own: what it has changed, and shares with nobody. Only root may see. */
static unsigned int own_kib(void)
{
	char name[64], line[256];
	unsigned int own = 0, kib;
	bool shared = false;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/%d/smaps", child);
	file = fopen(name, "r");
	while (file && fgets(line, sizeof(line), file)) {
		char rights[5];

		if (sscanf(line, "%*x-%*x %4s", rights) == 1)
			shared = rights[3] == 's';
		if (!shared && sscanf(line, "Private_Dirty: %u", &kib) == 1)
			own += kib;
	}
	if (file)
		fclose(file);
	return own;
}

/* There are 1024 connections, and the next one is refused, until one has gone. */
static void test_many(void)
{
	unsigned int own, open = 0;
	int fd;

	begin();
	for (; open < 1100; open++) {
		EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, open, PORT));
		if (!EXPECT(guest_hear(TIMEOUT_MS)) || heard.op == VIRTIO_VSOCK_OP_RST)
			break;
		EXPECT(guest_sends(open, PORT, "x", 1));
	}
	EXPECT(open == 1024);
	own = own_kib();
	printf("# with %u connections, moat-vsock has %u KiB of its own\n", open, own);
	EXPECT(getuid() || (own > 0 && own <= OWN_KIB));
	/* A program of the host's waits, too. */
	fd = host_connect("CONNECT 56\n");
	EXPECT(!guest_hear(QUIET_MS));
	EXPECT(guest_shuts(5, PORT, 3) && guest_hears(VIRTIO_VSOCK_OP_RST, 5, PORT));
	guest_accepts(56);
	EXPECT(host_gets(fd, "OK ", 3));
	EXPECT(guest_says(VIRTIO_VSOCK_OP_RST, 6, PORT));
	EXPECT(guest_says(VIRTIO_VSOCK_OP_REQUEST, 2000, PORT));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RESPONSE, 2000, PORT));
	close(fd);
	finish();
}

/* What is no greeting ends; who says nothing keeps nobody away. */
static void test_bad_greetings(void)
{
	static const char *const bad[] = {
		"\n", "CONNECT\n", "CONNECT \n", "connect 52\n", "CONNECT 52 \n", "CONNECT -1\n",
		"CONNECT 4294967295\n", "CONNECT 99999999999", "CONNECT 0x10\n", "GET / HTTP/1.1\r\n",
		"CONNECT 52\r\n", "CONNECT 0000000000052\n",
	};
	int silent[100], fd;

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = host_connect(bad[i]);
		if (!EXPECT(host_ended(fd)))
			printf("# by: %s\n", bad[i]);
		close(fd);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(silent); i++)
		silent[i] = host_connect(i % 2 ? "" : "CONNECT 5");
	fd = host_connect("CONNECT ");
	EXPECT(write(fd, "54\n", 3) == 3);
	guest_accepts(54);
	EXPECT(host_gets(fd, "OK ", 3) && host_ended(silent[0]));
	/* It goes before it has read all. */
	close(fd);
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, 54, heard.src_port));
	/* The last of them may still speak. */
	EXPECT(write(silent[98], "5\n", 2) == 2);
	guest_accepts(55);
	for (unsigned int i = 0; i < ARRAY_SIZE(silent); i++)
		close(silent[i]);
	finish();
}

/* What comes by a port of the guest's is its own, also where another has that of the host's. */
static void test_ports_apart(void)
{
	uint32_t port;
	int a, b;

	begin();
	a = host_connect("CONNECT 60\n");
	port = guest_accepts(60);
	b = host_connect("CONNECT 60\n");
	EXPECT(guest_accepts(60) != port);
	EXPECT(guest_sends(60, port, "a", 1) && host_gets(a, "OK ", 3));
	EXPECT(guest_sends(61, port, "b", 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, 61, port));
	EXPECT(host_gets(b, "OK ", 3));
	close(a);
	close(b);
	finish();
}

/* Killed, connections have gone: the guest is told, and new ones work. */
static void test_killed_and_started(void)
{
	int fd;

	begin();
	fd = guest_connects(GUEST);
	EXPECT(program_end(SIGKILL) == -SIGKILL);
	EXPECT(host_ended(fd));
	close(fd);
	close(front);
	event_offer();
	program_start((const char *[]){ PROGRAM, "--socket", socket_path, "--cid", "42", "--listen",
					path, NULL });
	EXPECT(front_connect());
	front_set_up(0, 3);
	EXPECT(guest_is_reset());
	EXPECT(guest_sends(GUEST, PORT, "x", 1));
	EXPECT(guest_hears(VIRTIO_VSOCK_OP_RST, GUEST, PORT));
	fd = guest_connects(GUEST);
	EXPECT(guest_sends(GUEST, PORT, "x", 1) && host_gets(fd, "x", 1));
	close(fd);
	finish();
}

/* Rings that are stopped and go on keep their connections; without the front end they go. */
static void test_stopped(void)
{
	struct vhost_user_vring_state state;
	int fd;

	begin();
	fd = guest_connects(GUEST);
	for (unsigned int i = 0; i < 3; i++) {
		send_state(VHOST_USER_GET_VRING_BASE, i, 0);
		EXPECT(receive(&state, sizeof(state)));
	}
	for (unsigned int i = 0; i < 3; i++)
		ring_set_up(i);
	EXPECT(guest_sends(GUEST, PORT, "x", 1) && host_gets(fd, "x", 1));
	EXPECT(write(fd, "y", 1) == 1 && guest_hears(VIRTIO_VSOCK_OP_RW, GUEST, PORT));
	event_offer();
	EXPECT(ring_complete(EVENT, QUIET_MS) < 0);
	close(front);
	EXPECT(host_ended(fd));
	close(fd);
	EXPECT(front_connect());
	front_set_up(0, 3);
	EXPECT(guest_is_reset());
	finish();
}

/* As QEMU has it: two rings, and no events. */
static void test_two_rings(void)
{
	int fd;

	front_begin();
	host_listen();
	for (unsigned int i = 0; i < RX_BUFFERS; i++)
		guest_offer(i);
	program_start((const char *[]){ PROGRAM, "--socket", socket_path, "--cid", "42", "--listen",
					path, NULL });
	EXPECT(front_connect());
	front_set_up(0, 2);
	rx_taken = 0;
	fd = guest_connects(GUEST);
	EXPECT(guest_sends(GUEST, PORT, "x", 1) && host_gets(fd, "x", 1));
	close(fd);
	finish();
}

static void test_configuration(void)
{
	union {
		struct vhost_user_config head;
		uint8_t bytes[VHOST_USER_CONFIG_HEAD + 8];
	} config = { .head = { .size = 8 } };
	uint64_t cid;

	begin();
	send_u64(VHOST_USER_SET_PROTOCOL_FEATURES, 1ULL << VHOST_USER_PROTOCOL_F_CONFIG, -1);
	send_fd(VHOST_USER_GET_CONFIG, &config, sizeof(config.bytes), -1);
	EXPECT(receive(&config, sizeof(config.bytes)));
	memcpy(&cid, config.head.region, sizeof(cid));
	EXPECT(cid == CID);
	finish();
}

static void test_command_line(void)
{
	EXPECT(program_exits(PROGRAM, "--socket /none/none --cid 3", 2));
	EXPECT(program_exits(PROGRAM, "--socket /none/none --listen /tmp/moat-none", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 --cid 2 --listen /none/none", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 --cid 4294967295 --listen /none/none", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 --cid x --listen /none/none", 2));
	EXPECT(program_exits(PROGRAM, "--cid 3 --listen /none/none", 2));
	EXPECT(program_exits(PROGRAM, "--fd 3 --cid 3 --listen /none/none", 1));
	EXPECT(program_exits(PROGRAM, "--help", 0));
}

static const struct unit_test tests[] = {
	{ "the guest connects to the host", test_guest_connects },
	{ "the host connects to the guest", test_host_connects },
	{ "the host is refused, or gives up", test_host_refused },
	{ "streams of one direction", test_half_closed },
	{ "sides that do not receive", test_receivers_shut },
	{ "what is unknown is reset", test_refused },
	{ "what is not between guest and host is not heard", test_others },
	{ "what makes no sense ends its connection, and no other", test_nonsense },
	{ "the guest's credit", test_credit },
	{ "... spent in single bytes", test_single_bytes },
	{ "... and in pieces", test_pieces },
	{ "the host's credit", test_guest_credit },
	{ "answers that the guest does not take", test_answers_not_taken },
	{ "buffers that are too small, or in pieces", test_small_buffers },
	{ "as many connections as there can be", test_many },
	{ "greetings that are none, or do not come", test_bad_greetings },
	{ "connections are known by both ports", test_ports_apart },
	{ "killed and started again", test_killed_and_started },
	{ "rings that are stopped, and a front end that goes", test_stopped },
	{ "without a ring for events", test_two_rings },
	{ "the guest's context ID", test_configuration },
	{ "command lines that are none", test_command_line },
};

int main(void)
{
	int status;

	if (!program_tests_begin())
		return 1;
	snprintf(path, sizeof(path), "%s/vsock", folder);
	status = unit_main(tests, ARRAY_SIZE(tests));
	unlink(path);
	unlink(host_address("_1024").sun_path);
	program_tests_end();
	return status;
}
