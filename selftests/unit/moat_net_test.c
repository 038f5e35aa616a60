// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-net, the program: in its sandbox, over its socket, with a driver that is this test, on a tap
 * in a network namespace of the test's own. Where none can be had there is nothing to test.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "selftests/unit/program_front.h"

#define PROGRAM		"build/bin/moat-net"
#define TAP		"moat0"
#define ETHERTYPE	0x88b5	/* for experiments: nobody else's */
#define HEADER		sizeof(struct virtio_net_hdr_v1)
#define LEN		1000
#define FEATURES	(1ULL << VIRTIO_NET_F_MRG_RXBUF)

enum { RX, TX, RX2, TX2 };

static int packets;	/* the host's side of the tap */
static uint8_t frame[LEN];

/* The tap */

static int tap_queue(const char *name, int flags)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | flags };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	strcpy(ifr.ifr_name, name);
	if (fd >= 0 && !ioctl(fd, TUNSETIFF, &ifr))
		return fd;
	close(fd);
	return -1;
}

/* One that stays when nobody has it open, and is up; the socket gets its frames of our type. */
static bool tap_make(void)
{
	struct ifreq ifr = { .ifr_name = TAP };
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE) };
	int fd = tap_queue(TAP, IFF_VNET_HDR | IFF_MULTI_QUEUE);

	if (fd < 0 || ioctl(fd, TUNSETPERSIST, 1))
		return false;
	close(fd);
	packets = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	ifr.ifr_flags = IFF_UP;
	if (packets < 0 || ioctl(packets, SIOCSIFFLAGS, &ifr))
		return false;
	address.sll_ifindex = if_nametoindex(TAP);
	for (unsigned int i = 0; i < LEN; i++)
		frame[i] = i * 3;
	memset(frame, 0xff, ETH_ALEN);
	memcpy(frame + ETH_ALEN, "\2\0\0\0\0\1", ETH_ALEN);
	frame[12] = ETHERTYPE >> 8;
	frame[13] = ETHERTYPE & 0xff;
	return !bind(packets, (struct sockaddr *)&address, sizeof(address));
}

/* The program has the tap open: before, what is sent is lost. */
static void host_send(uint8_t mark)
{
	frame[LEN - 1] = mark;
	EXPECT(send(packets, frame, LEN, 0) == LEN);
}

static bool host_gets(uint8_t mark)
{
	struct pollfd wait = { .fd = packets, .events = POLLIN };
	uint8_t got[2 * LEN];

	frame[LEN - 1] = mark;
	return poll(&wait, 1, TIMEOUT_MS) == 1 && recv(packets, got, sizeof(got), 0) == LEN &&
	       !memcmp(got, frame, LEN);
}

/* The driver */

static uint32_t place(unsigned int ring, uint16_t index)
{
	return DATA + (ring * SIZE + index) * PAGE / 2;
}

static void post(unsigned int ring, uint16_t index)
{
	ring_describe(ring, index, place(ring, index), PAGE / 2, VRING_DESC_F_WRITE);
	ring_submit(ring, index);
}

/* The next frame of our type: those that the host's kernel sends of itself get their chain back. */
static bool guest_gets(unsigned int ring, uint8_t mark)
{
	const struct vring_used *used = ring_page(ring, 2);
	int64_t len;

	while ((len = ring_complete(ring, TIMEOUT_MS)) >= 0) {
		const uint16_t head = used->ring[(uint16_t)(used_seen[ring] - 1) % SIZE].id;
		const uint8_t *got = memory + place(ring, head) + HEADER;

		if (!memcmp(got + 12, frame + 12, 2))
			return len == HEADER + LEN && !memcmp(got, frame, LEN - 1) &&
			       got[LEN - 1] == mark;
		post(ring, head);
	}
	return false;
}

static void guest_send(unsigned int ring, uint16_t index, uint8_t mark)
{
	frame[LEN - 1] = mark;
	memset(memory + place(ring, index), 0, HEADER);
	memcpy(memory + place(ring, index) + HEADER, frame, LEN);
	ring_describe(ring, index, place(ring, index), HEADER + LEN, 0);
	ring_submit(ring, index);
}

/* As nobody, where this is root. */
static void start(const char *option, const char *value, unsigned int rings)
{
	program_start((const char *[]){ PROGRAM, "--tap", TAP, "--socket", socket_path, option,
					value, getuid() ? NULL : "--uid", "65534", "--gid", "65534",
					NULL });
	EXPECT(front_connect());
	front_set_up(FEATURES, rings);
}

static void test_serves(void)
{
	front_begin();
	start("--mtu", "1400", 2);
	for (unsigned int i = 0; i < 8; i++)
		post(RX, i);
	for (unsigned int i = 0; i < 8; i++) {
		guest_send(TX, i, i);
		EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(i));
		host_send(100 + i);
		EXPECT(guest_gets(RX, 100 + i));
	}
	kill(child, SIGHUP);
	guest_send(TX, 0, 77);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(77));
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* What the host's kernel refuses is dropped; frames after it are not. */
static void test_header_is_checked(void)
{
	struct virtio_net_hdr_v1 *header;

	front_begin();
	start("--queues", "1", 2);
	guest_send(TX, 0, 1);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(1));
	header = (void *)(memory + place(TX, 0));
	*header = (struct virtio_net_hdr_v1){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 0xfff0, .csum_offset = 0xff00,
	};
	ring_submit(TX, 0);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0);
	*header = (struct virtio_net_hdr_v1){ .gso_type = 0x7f, .gso_size = 0 };
	ring_submit(TX, 0);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0);
	guest_send(TX, 1, 2);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(2));
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* Buffers that the killed process held, and frames that came while there was none. */
static void test_killed_and_started(void)
{
	struct vhost_user_inflight area = { .num_queues = 2, .queue_size = SIZE };
	int fd = memfd_create("inflight", MFD_CLOEXEC);

	front_begin();
	EXPECT(!ftruncate(fd, 2 * PAGE));
	area.mmap_size = 2 * PAGE;
	for (unsigned int i = 0; i < SIZE; i++)
		post(RX, i);
	for (unsigned int i = 0; i < 5; i++) {
		guest_send(TX, i, i);
		program_start((const char *[]){ PROGRAM, "--tap", TAP, "--socket", socket_path,
						NULL });
		EXPECT(front_connect());
		send_fd(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd);
		front_set_up(FEATURES, 2);
		EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(i));
		host_send(50 + i);
		EXPECT(guest_gets(RX, 50 + i));
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		close(front);
	}
	close(fd);
	front_end();
}

/* Of two pairs, the one that has no rings gets no frames. */
static void test_pairs(void)
{
	front_begin();
	start("--queues", "2", 2);
	for (unsigned int i = 0; i < SIZE; i++) {
		post(RX, i);
		post(RX2, i);
	}
	for (unsigned int i = 0; i < 4; i++) {
		host_send(i);
		EXPECT(guest_gets(RX, i));
	}
	ring_set_up(RX2);
	ring_set_up(TX2);
	guest_send(TX2, 0, 9);
	EXPECT(ring_complete(TX2, TIMEOUT_MS) == 0 && host_gets(9));
	send_state(VHOST_USER_SET_VRING_ENABLE, RX2, 0);
	send_state(VHOST_USER_SET_VRING_ENABLE, TX2, 0);
	guest_send(TX, 0, 10);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(10));
	host_send(11);
	EXPECT(guest_gets(RX, 11));
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

static void test_drops_and_goes_on(void)
{
	front_begin();
	start("--queues", "1", 2);
	send_state(VHOST_USER_SET_VRING_NUM, 2, SIZE);
	EXPECT(dropped());
	close(front);
	memset(memory, 0, MEMORY_SIZE);
	EXPECT(front_connect());
	front_set_up(FEATURES, 2);
	guest_send(TX, 0, 3);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(3));
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

static void test_handed_over(void)
{
	char number[16];
	int fd = tap_queue(TAP, IFF_VNET_HDR | IFF_MULTI_QUEUE);

	front_begin();
	snprintf(number, sizeof(number), "%d", fd);
	fcntl(fd, F_SETFD, 0);
	program_start((const char *[]){ PROGRAM, "--tap-fd", number, "--socket", socket_path,
					NULL });
	close(fd);
	EXPECT(front_connect());
	front_set_up(FEATURES, 2);
	guest_send(TX, 0, 4);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && host_gets(4));
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* A frame each way, behind its length. */
static void stream_passes(int stream)
{
	static const uint8_t length[] = { 0, 0, LEN >> 8, LEN & 0xff };
	struct pollfd wait = { .fd = stream, .events = POLLIN };
	uint8_t got[4 + LEN];

	EXPECT(front_connect());
	front_set_up(FEATURES, 2);
	guest_send(TX, 0, 5);
	EXPECT(ring_complete(TX, TIMEOUT_MS) == 0 && poll(&wait, 1, TIMEOUT_MS) == 1);
	EXPECT(recv(stream, got, sizeof(got), MSG_WAITALL) == 4 + LEN);
	EXPECT(!memcmp(got, length, 4) && !memcmp(got + 4, frame, LEN));
	post(RX, 0);
	frame[LEN - 1] = 6;
	EXPECT(send(stream, length, 4, 0) == 4 && send(stream, frame, LEN, 0) == LEN);
	EXPECT(guest_gets(RX, 6));
}

/* Who listens at a path; and a connection that is handed over, with whose end the process ends in order. */
static void test_streams(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), stream, ends[2];
	char handed[32];

	front_begin();
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/stream", folder);
	EXPECT(!bind(listener, (struct sockaddr *)&address, sizeof(address)) && !listen(listener, 1));
	program_start((const char *[]){ PROGRAM, "--stream", address.sun_path, "--socket", socket_path, NULL });
	stream = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	stream_passes(stream);
	EXPECT(program_end(SIGTERM) == 0);
	close(stream);
	close(listener);
	unlink(address.sun_path);
	front_end();
	front_begin();
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) && !fcntl(ends[1], F_SETFD, 0));
	snprintf(handed, sizeof(handed), "/proc/self/fd/%d", ends[1]);
	program_start((const char *[]){ PROGRAM, "--stream", handed, "--socket", socket_path, NULL });
	close(ends[1]);
	stream_passes(ends[0]);
	post(RX, 1);
	close(ends[0]);
	EXPECT(program_ended() == 0);
	front_end();
	EXPECT(program_exits(PROGRAM, "--stream /nowhere --fd 0", 1));
}

/* Of a tap that is no such. */
static void test_refuses(void)
{
	int plain = tap_queue("plain", 0);
	char line[32];

	EXPECT(plain >= 0);
	fcntl(plain, F_SETFD, 0);
	snprintf(line, sizeof(line), "--tap-fd %d --fd 0", plain);
	EXPECT(program_exits(PROGRAM, line, 1));
	EXPECT(program_exits(PROGRAM, "--tap-fd 0 --fd 1", 1));
	EXPECT(program_exits(PROGRAM, "--tap plain --fd 0", 1));
	EXPECT(program_exits(PROGRAM, "--tap lo --fd 0", 1));
	EXPECT(program_exits(PROGRAM, "--tap a-name-that-is-too-long --fd 0", 1));
	close(plain);
}

static void test_command_line(void)
{
	static const char *const bad[] = {
		"", "--tap x", "--fd 3", "--tap x --tap-fd 4 --fd 3", "--tap x --fd 3 --queues 0",
		"--tap x --fd 3 --queues 9", "--tap-fd 3,4 --fd 5 --queues 3", "--tap-fd , --fd 3",
		"--tap-fd 3, --fd 4", "--tap-fd 1,2,3,4,5,6,7,8,9 --fd 10", "--tap-fd -1 --fd 3",
		"--tap x --stream y --fd 3", "--stream x --user --fd 3", "--stream x --fd 3 --queues 2",
		"--user --fd 3 --queues 2", "--tap x --fd 3 --mtu 67", "--tap x --fd 3 --mtu 65536",
		"--tap x --fd 3 --mac 02:00:00:00:00", "--tap x --fd 3 --mac 01:00:00:00:00:00",
		"--tap x --fd 3 --mac 02:00:00:00:00:0x", "--tap x --fd 3 --mac 02:00:00:00:00:00:00",
		"--tap x --fd 3 --rx-bytes-per-second 0", "--tap x --fd 3 --tx-frames-per-second 1K",
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT(program_exits(PROGRAM, bad[i], 2));
	EXPECT(program_exits(PROGRAM, "--help", 0));
}

static const struct unit_test tests[] = {
	{ "frames are passed both ways", test_serves },
	{ "headers that the host's kernel refuses", test_header_is_checked },
	{ "killed and started again", test_killed_and_started },
	{ "pairs of queues, as the front end has them", test_pairs },
	{ "a front end that breaks a rule is dropped, the next one served", test_drops_and_goes_on },
	{ "a tap that is handed over", test_handed_over },
	{ "streams", test_streams },
	{ "what is no such tap", test_refuses },
	{ "command lines that are none", test_command_line },
};

int main(void)
{
	int status;

	if (unshare(CLONE_NEWNET | (getuid() ? CLONE_NEWUSER : 0)) || !tap_make()) {
		printf("1..0 # SKIP no tap can be made here: %s\n", strerror(errno));
		return 0;
	}
	if (!program_tests_begin())
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	program_tests_end();
	return status;
}
