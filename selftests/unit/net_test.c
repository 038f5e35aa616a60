// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The network device, driven over its rings as by a guest's driver. In the place of a tap there is
 * a socket, which keeps frames apart as a tap does; what is asked of the tap is written down.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "devmodel/net/net.h"
#include "devmodel/net/queue.h"
#include "devmodel/net/tap.h"
#include "devmodel/virtq_inflight.h"
#include "selftests/unit/device_driver.h"
#include "userspace/lib/array.h"

#define HEADER		sizeof(struct virtio_net_hdr_v1)
#define FAR		(QUEUES * QUEUE_STRIDE)	/* memory that no ring needs, and a piece of it */
#define FAR_PIECE	0x2000
#define MERGE		(RING_FEATURES | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_NET_F_MRG_RXBUF)
#define PLAIN		(RING_FEATURES | 1ULL << VIRTIO_F_VERSION_1)
#define FUZZ_ROUNDS	3000

enum { RX, TX, RX2, TX2 };

static int host[2], inner[2];	/* of each pair, the other end of the tap; and the device's */
static uint8_t frame[HEADER + NET_FRAME_MAX + 100];
static uint8_t got[sizeof(frame)];

/* What the device asks of its tap */

static struct {
	uint32_t header;
	uint64_t features;
	bool unused[2];
	int err;
} tap;

int tap_set_up(int fd, uint32_t header, uint64_t features)
{
	EXPECT(fd == inner[0]);
	tap.header = header;
	tap.features = features;
	return tap.err;
}

int tap_use(int fd, bool use)
{
	EXPECT(fd == inner[0] || fd == inner[1]);
	tap.unused[fd == inner[1]] = !use;
	return 0;
}

static void net_begin_with(struct net_options options, uint64_t features)
{
	const int room = 400000;

	begin();
	memset(&tap, 0, sizeof(tap));
	for (unsigned int i = 0; i < options.pairs; i++) {
		int fds[2];

		EXPECT(!socketpair(AF_UNIX, (options.stream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_NONBLOCK, 0,
				   fds));
		setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		host[i] = fds[0];
		inner[i] = fds[1];
		options.tap[i] = fds[1];
	}
	for (unsigned int i = 0; i < sizeof(frame); i++)
		frame[i] = i < HEADER ? 0 : i * 7 + i / 251;
	EXPECT(!net_create(&options, &device));
	start(features);
}

static void net_begin(uint64_t features)
{
	net_begin_with((struct net_options){ .pairs = 1 }, features);
}

static void net_end(void)
{
	const unsigned int pairs = device->ops->queue_count / 2;

	stop();
	end();
	for (unsigned int i = 0; i < pairs; i++)
		close(host[i]);
}

static uint64_t dropped(enum net_direction direction)
{
	return net_counts(device, direction).dropped;
}

/* A frame of @len bytes, without its header, for the guest. */
static void host_send(unsigned int pair, size_t len)
{
	EXPECT(send(host[pair], frame, HEADER + len, 0) == (ssize_t)(HEADER + len));
}

/* A chain for frames: piece @index of the far memory, which is ring @queue's as well. */
static void post(unsigned int queue, uint16_t index, uint32_t len)
{
	put(queue, index, FAR - queue * QUEUE_STRIDE + index * FAR_PIECE, len,
	    VRING_DESC_F_WRITE);
	kick(queue, index);
}

/* Takes @count chains that were given back, in the order of posting, as a frame of @len bytes. */
static bool arrives(unsigned int queue, uint16_t first, unsigned int count, size_t len)
{
	struct virtio_net_hdr_v1 header;
	size_t have = 0;

	for (unsigned int i = 0; i < count; i++) {
		const int64_t some = complete(queue, TIMEOUT_MS);
		const uint16_t index = (first + i) % SIZE;

		if (some < 0 || have + some > sizeof(got))
			return false;
		memcpy(got + have, at(0, FAR + index * FAR_PIECE), some);
		have += some;
	}
	memcpy(&header, got, sizeof(header));
	return have == HEADER + len && header.num_buffers == count &&
	       !memcmp(got + HEADER, frame + HEADER, len);
}

/* To the guest */

static void test_receives(void)
{
	net_begin(PLAIN);
	post(RX, 0, FAR_PIECE);
	EXPECT(complete(RX, QUIET_MS) < 0);
	host_send(0, 1514);
	EXPECT(arrives(RX, 0, 1, 1514));
	host_send(0, 60);
	host_send(0, 61);
	post(RX, 1, FAR_PIECE);
	post(RX, 2, FAR_PIECE);
	EXPECT(arrives(RX, 1, 1, 60) && arrives(RX, 2, 1, 61));
	EXPECT(net_counts(device, NET_RECEIVED).frames == 3);
	EXPECT(net_counts(device, NET_RECEIVED).bytes == 1514 + 60 + 61);
	net_end();
}

/* The longest frame over several chains; what was taken for it and not needed is kept. */
static void test_merges(void)
{
	net_begin(MERGE);
	for (unsigned int i = 0; i < 12; i++)
		post(RX, i, FAR_PIECE);
	host_send(0, 100);
	EXPECT(arrives(RX, 0, 1, 100));
	host_send(0, NET_FRAME_MAX);
	EXPECT(arrives(RX, 1, 9, NET_FRAME_MAX));
	host_send(0, FAR_PIECE - HEADER);
	EXPECT(arrives(RX, 10, 1, FAR_PIECE - HEADER));
	host_send(0, 14);
	EXPECT(arrives(RX, 11, 1, 14));
	net_end();
}

/* A frame that fits into what is there in part waits for the rest, and the next one behind it. */
static void test_waits_for_more(void)
{
	net_begin(MERGE);
	post(RX, 0, 1000);
	post(RX, 1, 1000);
	host_send(0, 5000);
	host_send(0, 70);
	EXPECT(complete(RX, QUIET_MS) < 0);
	post(RX, 2, 1000);
	EXPECT(complete(RX, QUIET_MS) < 0);
	EXPECT(recv(inner[0], got, sizeof(got), MSG_PEEK) == HEADER + 70);
	for (unsigned int i = 3; i < 7; i++)
		post(RX, i, 1000);
	EXPECT(arrives(RX, 0, 6, 5000) && arrives(RX, 6, 1, 70));
	EXPECT(!dropped(NET_RECEIVED));
	net_end();
}

static void test_stays_in_tap(void)
{
	net_begin(MERGE);
	host_send(0, 300);
	EXPECT(complete(RX, QUIET_MS) < 0);
	EXPECT(recv(inner[0], got, sizeof(got), MSG_PEEK) == HEADER + 300);
	post(RX, 0, FAR_PIECE);
	EXPECT(arrives(RX, 0, 1, 300));
	net_end();
}

static void test_chain_too_short(void)
{
	net_begin(PLAIN);
	post(RX, 0, 1000);
	host_send(0, 1000 - HEADER + 1);
	host_send(0, 1000 - HEADER);
	EXPECT(arrives(RX, 0, 1, 1000 - HEADER) && dropped(NET_RECEIVED) == 1);
	net_end();
}

/* What is longer than any frame was cut off. */
static void test_too_long_to_receive(void)
{
	net_begin(MERGE);
	for (unsigned int i = 0; i < 10; i++)
		post(RX, i, FAR_PIECE);
	host_send(0, NET_FRAME_MAX + 1);
	host_send(0, 44);
	EXPECT(arrives(RX, 0, 1, 44) && dropped(NET_RECEIVED) == 1);
	net_end();
}

/* The header, and the number in it, in pieces of a byte. */
static void test_small_pieces(void)
{
	net_begin(PLAIN);
	for (unsigned int i = 0; i < 15; i++)
		put(RX, i, AREA_DATA + i, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
	put(RX, 15, AREA_DATA + 15, 2000, VRING_DESC_F_WRITE);
	kick(RX, 0);
	host_send(0, 1500);
	EXPECT(complete(RX, TIMEOUT_MS) == HEADER + 1500);
	EXPECT(((struct virtio_net_hdr_v1 *)at(RX, AREA_DATA))->num_buffers == 1);
	EXPECT(!memcmp(at(RX, AREA_DATA + HEADER), frame + HEADER, 1500));
	net_end();
}

/* Chains that add up to many pieces and little room: their frames are lost, not the device. */
static void test_pieces_without_end(void)
{
	struct vring_desc *table;

	net_begin(MERGE);
	table = at(RX, AREA_DATA);
	for (unsigned int i = 0; i < SIZE; i++)
		table[i] = (struct vring_desc){
			FAR + i, 1, VRING_DESC_F_WRITE | (i < SIZE - 1 ? VRING_DESC_F_NEXT : 0), i + 1,
		};
	for (unsigned int i = 0; i < SIZE; i++) {
		put(RX, i, AREA_DATA, SIZE * sizeof(*table), VRING_DESC_F_INDIRECT);
		kick(RX, i);
	}
	host_send(0, 2000);
	EXPECT(complete(RX, QUIET_MS) < 0);
	/* More than a ring of entries, as only a driver makes available that breaks the rules. */
	for (unsigned int i = 0; i < 40; i++) {
		kick(RX, i % SIZE);
		usleep(1000);
	}
	for (unsigned int i = 0; i < 50 && !dropped(NET_RECEIVED); i++)
		usleep(10000);
	EXPECT(dropped(NET_RECEIVED) == 1);
	net_end();
}

/* Memory that is not there when the host's kernel writes to it. */
static void test_memory_gone(void)
{
	void *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	net_begin(PLAIN);
	stop();
	memory.count = 2;
	memory.region[1] = (struct dev_region){ .gpa = 1 << 30, .size = 4096, .hva = none };
	start(PLAIN);
	put(RX, 0, 0, 2000, VRING_DESC_F_WRITE);
	((struct vring_desc *)at(RX, 0))->addr = 1 << 30;
	kick(RX, 0);
	put(TX, 0, 0, 2000, 0);
	((struct vring_desc *)at(TX, 0))->addr = 1 << 30;
	kick(TX, 0);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 1);
	host_send(0, 200);
	EXPECT(complete(RX, QUIET_MS) < 0 && dropped(NET_RECEIVED) == 1);
	EXPECT(!mprotect(none, 4096, PROT_READ | PROT_WRITE));
	host_send(0, 200);
	EXPECT(complete(RX, TIMEOUT_MS) == HEADER + 200);
	net_end();
	memory.count = 1;
	munmap(none, 4096);
}

/* From the guest */

/* A frame of @len bytes in all, in two pieces that are cut in the middle of the header. */
static void guest_send(unsigned int queue, uint32_t len)
{
	const uint32_t offset = FAR - queue * QUEUE_STRIDE;

	memcpy(at(0, FAR), frame, len < sizeof(frame) ? len : sizeof(frame));
	put(queue, 0, offset, 5, VRING_DESC_F_NEXT);
	put(queue, 1, offset + 5, len - 5, 0);
	kick(queue, 0);
}

static bool host_gets(unsigned int pair, size_t len)
{
	struct pollfd wait = { .fd = host[pair], .events = POLLIN };

	return poll(&wait, 1, TIMEOUT_MS) == 1 &&
	       recv(host[pair], got, sizeof(got), 0) == (ssize_t)len && !memcmp(got, frame, len);
}

static void test_sends(void)
{
	net_begin(MERGE);
	guest_send(TX, HEADER + 60);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + 60));
	guest_send(TX, HEADER + NET_FRAME_MAX);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + NET_FRAME_MAX));
	EXPECT(net_counts(device, NET_SENT).frames == 2 && !dropped(NET_SENT));
	EXPECT(net_counts(device, NET_SENT).bytes == 60 + NET_FRAME_MAX);
	net_end();
}

/* Too short, too long, nothing, all of memory: dropped, counted, and the next one is sent. */
static void test_no_frames(void)
{
	net_begin(MERGE);
	guest_send(TX, HEADER + ETH_HLEN - 1);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 1);
	guest_send(TX, HEADER + NET_FRAME_MAX + 1);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 2);
	put(TX, 0, 0, 0, 0);
	kick(TX, 0);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 3);
	put(TX, 0, AREA_DATA, 1000, VRING_DESC_F_WRITE);
	kick(TX, 0);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 4);
	((struct vring_desc *)at(TX, 0))[0] = (struct vring_desc){ 0, MEMORY_SIZE, 0, 0 };
	kick(TX, 0);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 5);
	guest_send(TX, HEADER + ETH_HLEN);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + ETH_HLEN));
	net_end();
}

/* A tap that takes no more has the guest wait; what is not sent when the device stops is, later. */
static void test_tap_full(void)
{
	unsigned int sent = 0;

	net_begin(MERGE);
	do {
		guest_send(TX, HEADER + 30000);
	} while (complete(TX, QUIET_MS) == 0 && sent++ < 1000);
	EXPECT(sent && sent < 1000);
	stop();
	for (unsigned int i = 0; i < sent; i++)
		EXPECT(host_gets(0, HEADER + 30000));
	EXPECT(recv(host[0], got, sizeof(got), 0) < 0);
	start(MERGE);
	guest_send(TX, HEADER + 99);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + 99));
	net_end();
}

/* Both */

static void test_configuration(void)
{
	struct net_options options = {
		.pairs = 2, .has_mac = true, .mac = { 2, 0, 0, 0, 0, 7 }, .mtu = 9000,
	};
	struct virtio_net_config config = { 0 };
	uint64_t features;

	net_begin_with(options, MERGE);
	features = device->ops->features(device);
	EXPECT(features >> VIRTIO_NET_F_MAC & 1 && features >> VIRTIO_NET_F_MTU & 1);
	EXPECT(features >> VIRTIO_NET_F_MQ & 1 && !(features >> VIRTIO_NET_F_CTRL_VQ & 1));
	EXPECT(device->ops->config_size == 12 && device->ops->queue_count == 4);
	device->ops->config_read(device, 0, &config, 12);
	EXPECT(!memcmp(config.mac, options.mac, ETH_ALEN) && config.mtu == 9000);
	EXPECT(config.max_virtqueue_pairs == 2);
	EXPECT(tap.header == 12 && (tap.features & MERGE) == MERGE);
	net_end();
	net_begin(0);
	features = device->ops->features(device);
	EXPECT(!(features >> VIRTIO_NET_F_MAC & 1) && !(features >> VIRTIO_NET_F_MTU & 1));
	EXPECT(!(features >> VIRTIO_NET_F_MQ & 1) && tap.header == 10);
	net_end();
	options.pairs = NET_PAIRS_MAX + 1;
	EXPECT(net_create(&options, &device) == -EINVAL);
}

/* Frames of an old driver have a header that is shorter. */
static void test_short_header(void)
{
	net_begin(0);
	post(RX, 0, FAR_PIECE);
	EXPECT(send(host[0], frame, 10 + 64, 0) == 10 + 64);
	EXPECT(complete(RX, TIMEOUT_MS) == 10 + 64 && !memcmp(at(0, FAR), frame, 10 + 64));
	guest_send(TX, 10 + ETH_HLEN);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, 10 + ETH_HLEN));
	net_end();
}

/* Each pair passes frames; one that the driver does without is not the tap's to use. */
static void test_pairs(void)
{
	net_begin_with((struct net_options){ .pairs = 2 }, MERGE);
	EXPECT(!tap.unused[0] && !tap.unused[1]);
	for (unsigned int i = 0; i < SIZE; i++) {
		post(i % 2 ? RX2 : RX, i, FAR_PIECE);
		host_send(i % 2, 100 + i);
		EXPECT(arrives(i % 2 ? RX2 : RX, i, 1, 100 + i));
	}
	guest_send(TX2, HEADER + 50);
	EXPECT(complete(TX2, TIMEOUT_MS) == 0 && host_gets(1, HEADER + 50));
	stop();
	ring[RX2].size = 0;
	ring[TX2].size = 0;
	EXPECT(!device->ops->start(device, &memory, MERGE, ring));
	EXPECT(!tap.unused[0] && tap.unused[1]);
	stop();
	start(MERGE);
	EXPECT(!tap.unused[0] && !tap.unused[1]);
	stop();
	tap.err = -EBADFD;
	EXPECT(device->ops->start(device, &memory, MERGE, ring) == -EIO);
	tap.err = 0;
	start(MERGE);
	net_end();
}

/* 40 frames of which 100 may pass in a second, after a burst of a tenth of one. */
static void test_limits(void)
{
	for (unsigned int i = 0; i < 2 * NET_DIRECTIONS; i++) {
		const enum net_direction direction = i / 2;
		struct net_options options = { .pairs = 1 };
		uint64_t from, took;

		if (i % 2)
			options.frames_per_second[direction] = 100;
		else
			options.bytes_per_second[direction] = 100 * (HEADER + 500);
		net_begin_with(options, MERGE);
		from = now_ms();
		for (unsigned int j = 0; j < 40; j++) {
			if (direction == NET_SENT) {
				guest_send(TX, HEADER + 500);
				EXPECT(complete(TX, TIMEOUT_MS) == 0);
			} else {
				post(RX, j % SIZE, FAR_PIECE);
				host_send(0, 500);
				EXPECT(arrives(RX, j % SIZE, 1, 500));
			}
		}
		took = now_ms() - from;
		EXPECT(took >= 250 && took < 1500);
		net_end();
	}
}

/* The tap goes away under the device, which then has nothing to do, and does nothing. */
static void test_tap_gone(void)
{
	net_begin(MERGE);
	post(RX, 0, FAR_PIECE);
	host_send(0, 100);
	EXPECT(arrives(RX, 0, 1, 100));
	shutdown(host[0], SHUT_RDWR);
	post(RX, 1, FAR_PIECE);
	EXPECT(complete(RX, QUIET_MS) < 0);
	guest_send(TX, HEADER + 100);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 1);
	net_end();
}

/* What was taken when a process died is taken by the next one, of either direction, in order. */
static void test_resubmits(void)
{
	union {
		struct virtq_inflight_split record;
		uint8_t bytes[sizeof(struct virtq_inflight_split) +
			      SIZE * sizeof(struct virtq_inflight_split_desc)];
	} inflight[2] = { 0 };

	net_begin(MERGE);
	stop();
	for (unsigned int i = 0; i < 2; i++)
		ring[i].inflight = &inflight[i].record;
	start(MERGE);
	for (unsigned int i = 0; i < 4; i++)
		post(RX, i, FAR_PIECE);
	host_send(0, 2 * FAR_PIECE - HEADER);
	EXPECT(arrives(RX, 0, 2, 2 * FAR_PIECE - HEADER));
	stop();
	EXPECT(inflight[0].record.desc[2].inflight && inflight[0].record.desc[3].inflight);
	EXPECT(!inflight[0].record.desc[1].inflight && inflight[0].record.used_idx == 2);
	/* The same rings, as a transport that knows no index would describe them. */
	EXPECT(!device->ops->start(device, &memory, MERGE, ring));
	host_send(0, FAR_PIECE + 100);
	EXPECT(arrives(RX, 2, 2, FAR_PIECE + 100));
	guest_send(TX, HEADER + 80);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + 80));
	EXPECT(!inflight[1].record.desc[0].inflight && inflight[1].record.used_idx == 1);
	ring[RX].inflight = NULL;
	ring[TX].inflight = NULL;
	net_end();
}

/* A ring that breaks a rule is left alone, and the other goes on. */
static void test_broken(void)
{
	struct pollfd wait;

	net_begin(MERGE);
	kick(RX, SIZE);
	wait = (struct pollfd){ .fd = ring[RX].err, .events = POLLIN };
	EXPECT(poll(&wait, 1, TIMEOUT_MS) == 1);
	host_send(0, 100);
	guest_send(TX, HEADER + 100);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && host_gets(0, HEADER + 100));
	stop();
	start(MERGE);
	post(RX, 0, FAR_PIECE);
	EXPECT(arrives(RX, 0, 1, 100));
	net_end();
}

/* A stream */

static unsigned int streams_gone;

static void stream_gone(void)
{
	__atomic_fetch_add(&streams_gone, 1, __ATOMIC_RELAXED);
}

static void stream_begin(uint64_t features)
{
	streams_gone = 0;
	net_begin_with((struct net_options){ .pairs = 1, .stream = true, .gone = stream_gone }, features);
}

/* A frame of @len bytes behind a length, which may be another one, in writes of @piece bytes. */
static void stream_send(uint32_t length, size_t len, size_t piece)
{
	static uint8_t all[4 + sizeof(frame)];

	for (unsigned int i = 0; i < 4; i++)
		all[i] = length >> (24 - 8 * i);
	memcpy(all + 4, frame + HEADER, len);
	for (size_t at = 0, some; at < 4 + len; at += some) {
		some = 4 + len - at < piece ? 4 + len - at : piece;
		EXPECT(send(host[0], all + at, some, 0) == (ssize_t)some);
	}
}

/* Takes @len bytes, as they come. */
static bool stream_takes(void *to, size_t len)
{
	struct pollfd wait = { .fd = host[0], .events = POLLIN };

	for (size_t at = 0; at < len;) {
		const ssize_t n = poll(&wait, 1, TIMEOUT_MS) == 1 ? recv(host[0], (char *)to + at, len - at, 0) : 0;

		if (n <= 0)
			return false;
		at += n;
	}
	return true;
}

static bool stream_gets(size_t len)
{
	uint8_t length[4];

	return stream_takes(length, sizeof(length)) &&
	       ((uint32_t)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3]) == len &&
	       stream_takes(got, len) && !memcmp(got, frame + HEADER, len);
}

static void test_stream_receives(void)
{
	stream_begin(MERGE);
	for (unsigned int i = 0; i < 4; i++)
		post(RX, i, FAR_PIECE);
	stream_send(100, 100, 1000);
	EXPECT(arrives(RX, 0, 1, 100));
	stream_send(200, 200, 1);
	EXPECT(arrives(RX, 1, 1, 200));
	stream_send(FAR_PIECE, FAR_PIECE, 777);
	EXPECT(arrives(RX, 2, 2, FAR_PIECE));
	/* Two that are there at once, before there is a buffer. */
	stream_send(300, 300, 1000);
	stream_send(NET_FRAME_MAX, NET_FRAME_MAX, 30000);
	post(RX, 4, FAR_PIECE);
	EXPECT(arrives(RX, 4, 1, 300));
	for (unsigned int i = 5; i < 5 + (NET_FRAME_MAX + HEADER) / FAR_PIECE + 1; i++)
		post(RX, i % SIZE, FAR_PIECE);
	EXPECT(arrives(RX, 5, (NET_FRAME_MAX + HEADER) / FAR_PIECE + 1, NET_FRAME_MAX));
	EXPECT(!dropped(NET_RECEIVED) && !streams_gone);
	net_end();
}

static void test_stream_sends(void)
{
	stream_begin(MERGE);
	guest_send(TX, HEADER + 60);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && stream_gets(60));
	guest_send(TX, HEADER + NET_FRAME_MAX);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && stream_gets(NET_FRAME_MAX));
	guest_send(TX, HEADER + ETH_HLEN - 1);
	guest_send(TX, HEADER + NET_FRAME_MAX + 1);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && complete(TX, TIMEOUT_MS) == 0 && dropped(NET_SENT) == 2);
	guest_send(TX, HEADER + ETH_HLEN);
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && stream_gets(ETH_HLEN));
	net_end();
}

/* What was begun is finished, whatever happens to the rings: frames begin where they should. */
static void test_stream_full(void)
{
	unsigned int sent = 0;

	stream_begin(MERGE);
	do {
		guest_send(TX, HEADER + 30001);
	} while (complete(TX, QUIET_MS) == 0 && sent++ < 1000);
	EXPECT(sent && sent < 1000);
	stop();
	start(MERGE);
	guest_send(TX, HEADER + 99);
	for (unsigned int i = 0; i < sent; i++)
		EXPECT(stream_gets(30001));
	EXPECT(complete(TX, TIMEOUT_MS) == 0 && stream_gets(99));
	EXPECT(!dropped(NET_SENT));
	net_end();
}

/* A frame that goes on after another driver has come, with headers of another size. */
static void test_stream_half(void)
{
	stream_begin(MERGE);
	post(RX, 0, FAR_PIECE);
	stream_send(100, 40, 1000);
	EXPECT(complete(RX, QUIET_MS) < 0);
	stop();
	start(0);
	post(RX, 0, FAR_PIECE);
	EXPECT(send(host[0], frame + HEADER + 40, 60, 0) == 60);
	EXPECT(complete(RX, TIMEOUT_MS) == 10 + 100 && !memcmp(at(0, FAR + 10), frame + HEADER, 100));
	net_end();
}

/* What is no frame, and an end, are told once, and nothing is read after them. */
static void test_stream_gone(void)
{
	static const uint32_t bad[] = { 0, ETH_HLEN - 1, NET_FRAME_MAX + 1, 0x80000000, ~0U };

	for (unsigned int i = 0; i <= ARRAY_SIZE(bad); i++) {
		stream_begin(MERGE);
		post(RX, 0, FAR_PIECE);
		if (i < ARRAY_SIZE(bad))
			stream_send(bad[i], 1000, 2000);
		else
			shutdown(host[0], SHUT_WR);
		EXPECT(complete(RX, QUIET_MS) < 0);
		EXPECT(__atomic_load_n(&streams_gone, __ATOMIC_RELAXED) == 1);
		net_end();
	}
}

static void test_stream_features(void)
{
	struct net_options options = { .pairs = 2, .stream = true };
	uint64_t features;

	EXPECT(net_create(&options, &device) == -EINVAL);
	stream_begin(MERGE);
	features = device->ops->features(device);
	EXPECT(features >> VIRTIO_NET_F_MRG_RXBUF & 1 && !(features >> VIRTIO_NET_F_CSUM & 1));
	EXPECT(!(features & (0xffULL << VIRTIO_NET_F_GUEST_TSO4)) && !(features >> VIRTIO_NET_F_GUEST_CSUM & 1));
	net_end();
}

static void fuzz_ring(unsigned int queue)
{
	static const uint32_t lengths[] = { 0, 1, 11, 12, 13, 200, 1526, 5000, 0x10000, ~0U };

	for (unsigned int i = 0; i < SIZE; i++) {
		struct vring_desc *desc = at(queue, i * sizeof(*desc));
		const uint64_t addr = FAR + rand() % (MEMORY_SIZE - FAR);

		*desc = (struct vring_desc){
			.addr = rand() % 200 ? addr : (uint64_t)rand() << 30 | rand(),
			.len = lengths[rand() % ARRAY_SIZE(lengths)],
			.flags = rand() % 60 ? (queue % 2 ? 0 : VRING_DESC_F_WRITE) | !(rand() % 3) :
					      rand() % 8,
			.next = rand() % 100 ? (i + 1) % SIZE : (unsigned int)rand(),
		};
	}
	for (int i = rand() % 4; i; i--)
		kick(queue, rand() % 200 ? rand() % SIZE : rand());
}

/* Random rings under a device that works; each round may break them, and starts them again. */
static void test_random(void)
{
	srand(1);
	net_begin(MERGE);
	for (unsigned int i = 0; i < FUZZ_ROUNDS; i++) {
		const size_t len = rand() % 3 ? rand() % 2000 : rand() % NET_FRAME_MAX;

		fuzz_ring(RX);
		fuzz_ring(TX);
		send(host[0], frame, HEADER + len, MSG_DONTWAIT);
		usleep(200);
		while (recv(host[0], got, sizeof(got), MSG_DONTWAIT) > 0)
			;
		if (rand() % 3)
			continue;
		stop();
		start(rand() % 2 ? MERGE : rand() % 2 ? PLAIN : 0);
	}
	EXPECT(net_counts(device, NET_RECEIVED).frames > 100);
	EXPECT(net_counts(device, NET_SENT).frames > 100);
	net_end();
}

static void pack_rings(void)
{
	packed = true;
}

#define EACH_RING \
	{ "a frame for the guest, a chain each", test_receives }, \
	{ "a long frame is spread over chains", test_merges }, \
	{ "a frame waits for the chains that it takes", test_waits_for_more }, \
	{ "without chains, frames stay in the tap", test_stays_in_tap }, \
	{ "a chain that is too short for a frame", test_chain_too_short }, \
	{ "a frame that is longer than any", test_too_long_to_receive }, \
	{ "a header in small pieces", test_small_pieces }, \
	{ "memory that is not there", test_memory_gone }, \
	{ "frames of the guest", test_sends }, \
	{ "what of the guest's is no frame", test_no_frames }, \
	{ "a tap that takes no more", test_tap_full }, \
	{ "configuration and features", test_configuration }, \
	{ "the header of old drivers", test_short_header }, \
	{ "pairs beside each other, and without rings", test_pairs }, \
	{ "limits are kept", test_limits }, \
	{ "a tap that goes away", test_tap_gone }, \
	{ "a broken ring, and a fresh start", test_broken }, \
	{ "a stream: frames for the guest, in pieces and at once", test_stream_receives }, \
	{ "a stream: frames of the guest", test_stream_sends }, \
	{ "a stream that takes no more", test_stream_full }, \
	{ "a stream: half a frame, and another driver", test_stream_half }, \
	{ "a stream that ends, or is none", test_stream_gone }, \
	{ "a stream: features", test_stream_features }

static const struct unit_test tests[] = {
	EACH_RING,
	{ "chains of many pieces and no room", test_pieces_without_end },
	{ "what was in flight is taken again", test_resubmits },
	{ "random rings", test_random },
	{ "from here on with packed rings:", pack_rings },
	EACH_RING,
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main(tests, ARRAY_SIZE(tests));
}
