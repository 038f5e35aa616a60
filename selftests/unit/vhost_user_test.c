// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The back end of vhost-user, and front ends that keep the rules and break each of them. No test
 * may leave a descriptor open, whatever came.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "devmodel/virtq.h"
#include "devmodel/virtq_inflight.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/vhost_user_front.h"
#include "userspace/lib/array.h"

#define QUEUES		2
#define QUEUE_SIZE	256
#define CONFIG_SIZE	8
#define PAGE		4096
#define MEMORY_SIZE	(16 * PAGE)
#define GPA		0x100000
#define UVA		0x7f0000000000
#define STRIDE		(4 * PAGE)

/* The device: it notes what it is told. */

static struct {
	bool running;
	unsigned int starts;
	uint64_t features;
	struct dev_memory memory;
	struct dev_vring ring[QUEUES];
} fake;

static uint64_t fake_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

static void fake_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	(void)dev;
	EXPECT(len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len);
	memcpy(buf, "abcdefgh" + offset, len);
}

static int fake_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		      const struct dev_vring *rings)
{
	static struct virtq vq;

	(void)dev;
	for (unsigned int i = 0; i < QUEUES; i++)
		if (rings[i].size && virtq_init(&vq, memory, &rings[i], features))
			return -EFAULT;
	EXPECT(!fake.running);
	fake.running = true;
	fake.starts++;
	fake.features = features;
	fake.memory = *memory;
	memcpy(fake.ring, rings, sizeof(fake.ring));
	return 0;
}

static void fake_stop(struct device *dev)
{
	(void)dev;
	EXPECT(fake.running);
	fake.running = false;
}

static const struct device_ops fake_ops = {
	.name = "fake", .queue_count = QUEUES, .queue_size_max = QUEUE_SIZE / 4,
	.config_size = CONFIG_SIZE, .features = fake_features, .config_read = fake_config_read,
	.start = fake_start, .stop = fake_stop,
};

static struct device device = { .ops = &fake_ops };
static unsigned int files;

static void begin(void)
{
	files = front_open_files();
	memset(&fake, 0, sizeof(fake));
	EXPECT(!backend_create(&device, &backend));
	front_attach();
}

static void end(void)
{
	front_detach();
	EXPECT(!fake.running);
	backend_destroy(backend);
	EXPECT(front_open_files() == files);
}

/* Serves one message that must be refused, and begins anew. */
static void expect_refused(void)
{
	EXPECT(backend_serve(backend) == -EPROTO);
	front_detach();
	front_attach();
}

/* Well-formed messages */

static int memory_fd(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	EXPECT(fd >= 0 && !ftruncate(fd, MEMORY_SIZE));
	return fd;
}

static const struct vhost_user_memory one_region = {
	.nregions = 1,
	.regions = { { .guest_phys_addr = GPA, .memory_size = MEMORY_SIZE, .userspace_addr = UVA } },
};

static size_t memory_bytes(const struct vhost_user_memory *memory)
{
	return 8 + memory->nregions * sizeof(memory->regions[0]);
}

static int set_memory(const struct vhost_user_memory *memory)
{
	int fd = memory_fd(), fds[] = { fd, fd, fd, fd, fd, fd, fd, fd };

	front_send(VHOST_USER_SET_MEM_TABLE, 0, memory, memory_bytes(memory), fds,
		   memory->nregions);
	close(fd);
	return backend_serve(backend);
}

static struct vhost_user_vring_addr ring_addr(unsigned int index)
{
	const uint64_t base = UVA + index * STRIDE;

	return (struct vhost_user_vring_addr){
		.index = index, .desc = base, .avail = base + PAGE, .used = base + 2 * PAGE,
	};
}

static void give_fd(uint32_t request, unsigned int index)
{
	int fd = eventfd(0, 0);

	EXPECT(front_do_fd(request, index, fd) == 1);
	close(fd);
}

static void set_ring_as(unsigned int index, unsigned int size, uint32_t base)
{
	const struct vhost_user_vring_addr addr = ring_addr(index);

	EXPECT(front_do_state(VHOST_USER_SET_VRING_NUM, index, size) == 1);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_BASE, index, base) == 1);
	EXPECT(front_do(VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1) == 1);
	give_fd(VHOST_USER_SET_VRING_CALL, index);
	give_fd(VHOST_USER_SET_VRING_KICK, index);
}

static void set_ring(unsigned int index)
{
	set_ring_as(index, 16, 0);
}

static void negotiate_packed(void)
{
	EXPECT(front_do_u64(VHOST_USER_SET_FEATURES, 1ULL << VHOST_USER_F_PROTOCOL_FEATURES |
			    1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_RING_PACKED) == 1);
}

static void negotiate(uint64_t protocol_features)
{
	EXPECT(front_do_u64(VHOST_USER_SET_FEATURES, 1ULL << VHOST_USER_F_PROTOCOL_FEATURES |
			    1ULL << VIRTIO_F_VERSION_1) == 1);
	EXPECT(front_do_u64(VHOST_USER_SET_PROTOCOL_FEATURES, protocol_features) == 1);
}

static void set_up(void)
{
	negotiate(0);
	EXPECT(set_memory(&one_region) == 1);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_ring(i);
	EXPECT(!fake.running);
	for (unsigned int i = 0; i < QUEUES; i++)
		EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, i, 1) == 1);
	EXPECT(fake.running);
}

static uint16_t *used_index(unsigned int ring)
{
	return (uint16_t *)((char *)fake.memory.region[0].hva + ring * STRIDE + 2 * PAGE + 2);
}

/* Tests */

static void test_features(void)
{
	uint64_t value;

	begin();
	EXPECT(front_do(VHOST_USER_GET_FEATURES, NULL, 0, -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_FEATURES, &value, sizeof(value), NULL));
	EXPECT(value == (VIRTQ_FEATURES | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << 30));
	EXPECT(front_do(VHOST_USER_GET_PROTOCOL_FEATURES, NULL, 0, -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_PROTOCOL_FEATURES, &value, sizeof(value), NULL));
	EXPECT(front_do_u64(VHOST_USER_SET_PROTOCOL_FEATURES, value) == 1);
	EXPECT(front_do(VHOST_USER_GET_QUEUE_NUM, NULL, 0, -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_QUEUE_NUM, &value, sizeof(value), NULL));
	EXPECT(value == QUEUES);
	EXPECT(front_do_u64(VHOST_USER_SET_FEATURES, 1) == -EPROTO);
	EXPECT(strstr(backend_fault(backend), "SET_FEATURES"));
	EXPECT(front_do_u64(VHOST_USER_SET_PROTOCOL_FEATURES, 1ULL << 63) == -EPROTO);
	end();
}

/* All messages, and what belongs to them. */
static const struct shape {
	uint32_t request;
	uint32_t size;
	unsigned int fds;
} shapes[] = {
	{ VHOST_USER_GET_FEATURES, 0, 0 },
	{ VHOST_USER_SET_FEATURES, 8, 0 },
	{ VHOST_USER_SET_OWNER, 0, 0 },
	{ VHOST_USER_RESET_OWNER, 0, 0 },
	{ VHOST_USER_SET_MEM_TABLE, 40, 1 },
	{ VHOST_USER_SET_VRING_NUM, 8, 0 },
	{ VHOST_USER_SET_VRING_ADDR, 40, 0 },
	{ VHOST_USER_SET_VRING_BASE, 8, 0 },
	{ VHOST_USER_GET_VRING_BASE, 8, 0 },
	{ VHOST_USER_SET_VRING_KICK, 8, 1 },
	{ VHOST_USER_SET_VRING_CALL, 8, 1 },
	{ VHOST_USER_SET_VRING_ERR, 8, 1 },
	{ VHOST_USER_GET_PROTOCOL_FEATURES, 0, 0 },
	{ VHOST_USER_SET_PROTOCOL_FEATURES, 8, 0 },
	{ VHOST_USER_GET_QUEUE_NUM, 0, 0 },
	{ VHOST_USER_SET_VRING_ENABLE, 8, 0 },
	{ VHOST_USER_SET_BACKEND_REQ_FD, 0, 1 },
	{ VHOST_USER_GET_CONFIG, 20, 0 },
	{ VHOST_USER_SET_CONFIG, 20, 0 },
	{ VHOST_USER_GET_INFLIGHT_FD, 24, 0 },
	{ VHOST_USER_SET_INFLIGHT_FD, 24, 1 },
	{ VHOST_USER_RESET_DEVICE, 0, 0 },
};

/* A payload that would be fine. */
static void shape_fill(const struct shape *shape, uint8_t *payload)
{
	const struct vhost_user_config config = { .size = 8 };
	const struct vhost_user_inflight inflight = {
		.mmap_size = MEMORY_SIZE, .num_queues = 1, .queue_size = 16,
	};

	memset(payload, 0, 1024);
	if (shape->request == VHOST_USER_SET_MEM_TABLE)
		memcpy(payload, &one_region, 40);
	if (shape->size == 20)
		memcpy(payload, &config, 20);
	if (shape->size == 24)
		memcpy(payload, &inflight, sizeof(inflight));
	if (shape->request == VHOST_USER_SET_VRING_NUM)
		payload[4] = 16;
}

static void test_lengths_and_descriptors(void)
{
	static uint8_t payload[1024];
	int fds[9];

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = memory_fd();
	for (unsigned int i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *shape = &shapes[i];
		const uint32_t sizes[] = { shape->size - 1, shape->size + 1, 4, 272, 1000 };

		shape_fill(shape, payload);
		for (unsigned int j = !shape->size; j < ARRAY_SIZE(sizes); j++) {
			front_send(shape->request, 0, payload, sizes[j], fds, shape->fds);
			expect_refused();
		}
		front_send(shape->request, 0, payload, shape->size, fds, shape->fds + 1);
		expect_refused();
		front_send(shape->request, 0, payload, shape->size, fds, 9);
		expect_refused();
		front_send(shape->request, VHOST_USER_FLAG_NEED_REPLY, payload, shape->size, fds,
			   !shape->fds);
		expect_refused();
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	end();
}

/* That it is for the lengths that the test before this one has them refused. */
static void test_shapes_are_served(void)
{
	static uint8_t payload[1024];

	for (unsigned int i = 0; i < ARRAY_SIZE(shapes); i++) {
		int fd = memory_fd(), got;

		begin();
		shape_fill(&shapes[i], payload);
		front_send(shapes[i].request, 0, payload, shapes[i].size, &fd, shapes[i].fds);
		got = backend_serve(backend);
		/* This device has nothing to write. */
		EXPECT(got == (shapes[i].request == VHOST_USER_SET_CONFIG ? -EOPNOTSUPP : 1));
		end();
		close(fd);
	}
}

static void test_headers(void)
{
	static const uint32_t flags[] = { 0, 2, 3, 5, 0x11, 0x80000001 };
	struct vhost_user_header header = { .request = 1 };

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(flags); i++) {
		header.flags = flags[i];
		front_send_raw(&header, sizeof(header), NULL, 0);
		expect_refused();
	}
	header.flags = 1;
	header.size = UINT32_MAX;
	front_send_raw(&header, sizeof(header), NULL, 0);
	expect_refused();
	header.size = 269;
	front_send_raw(&header, sizeof(header), NULL, 0);
	expect_refused();
	end();
}

static void test_unknown_messages(void)
{
	static const uint32_t unknown[] = { 0, 6, 7, 19, 20, 22, 35, 38, 200, UINT32_MAX };
	int fd = memory_fd();

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(unknown); i++) {
		front_send(unknown[i], VHOST_USER_FLAG_NEED_REPLY, "12345678", 8, &fd, 1);
		expect_refused();
	}
	end();
	close(fd);
}

/* The front end stops, or goes, in the middle of a message. */
static void test_short_messages(void)
{
	const struct vhost_user_header header = {
		VHOST_USER_SET_FEATURES, VHOST_USER_VERSION, 8,
	};

	begin();
	front_send_raw(&header, 5, NULL, 0);
	EXPECT(backend_serve(backend) == -ETIMEDOUT);
	front_detach();
	front_attach();
	front_send_raw(&header, sizeof(header), NULL, 0);
	EXPECT(backend_serve(backend) == -ETIMEDOUT);
	front_detach();
	front_attach();
	front_send_raw(&header, sizeof(header), NULL, 0);
	shutdown(front, SHUT_WR);
	expect_refused();
	front_send_raw(&header, 7, NULL, 0);
	shutdown(front, SHUT_WR);
	expect_refused();
	shutdown(front, SHUT_WR);
	EXPECT(backend_serve(backend) == 0);
	end();
}

static void test_descriptors_in_excess(void)
{
	int fd = memory_fd(), fds[FRONT_FDS_MAX];
	uint8_t bytes[sizeof(struct vhost_user_header)] = { 1, 0, 0, 0, 1 };

	for (unsigned int i = 0; i < FRONT_FDS_MAX; i++)
		fds[i] = fd;
	begin();
	front_send(VHOST_USER_GET_FEATURES, 0, NULL, 0, fds, FRONT_FDS_MAX);
	expect_refused();
	/* Some with each piece of a message. */
	front_send_raw(bytes, 4, fds, 8);
	front_send_raw(bytes + 4, 4, fds, 8);
	front_send_raw(bytes + 8, 4, fds, 8);
	expect_refused();
	/* With what follows, that nobody reads. */
	front_send(VHOST_USER_GET_FEATURES, 0, NULL, 0, fds, 8);
	front_send(VHOST_USER_GET_FEATURES, 0, NULL, 0, fds, 8);
	expect_refused();
	end();
	close(fd);
}

static void refuse_memory(struct vhost_user_memory memory, struct vhost_user_region second)
{
	memory.regions[1] = second;
	EXPECT(set_memory(&memory) == -EPROTO);
	front_detach();
	front_attach();
}

static void test_memory_refused(void)
{
	struct vhost_user_memory memory = one_region;
	const struct vhost_user_region first = one_region.regions[0], *same = &first;
	struct vhost_user_region other = {
		.guest_phys_addr = GPA + MEMORY_SIZE, .memory_size = PAGE,
		.userspace_addr = UVA + MEMORY_SIZE,
	}, bad;

	begin();
	memory.nregions = 2;
	refuse_memory(memory, *same);
	bad = other;
	bad.memory_size = 0;
	refuse_memory(memory, bad);
	bad = other;
	bad.guest_phys_addr = UINT64_MAX - PAGE + 1;
	refuse_memory(memory, bad);
	bad = other;
	bad.userspace_addr = UINT64_MAX - 1;
	refuse_memory(memory, bad);
	bad = other;
	bad.mmap_offset = UINT64_MAX - 1;
	refuse_memory(memory, bad);
	bad.mmap_offset = INT64_MAX - 1;
	refuse_memory(memory, bad);
	bad = other;
	bad.guest_phys_addr = GPA + MEMORY_SIZE - 1;
	refuse_memory(memory, bad);
	bad.guest_phys_addr = GPA - PAGE + 1;
	refuse_memory(memory, bad);
	bad = other;
	bad.userspace_addr = UVA + PAGE;
	refuse_memory(memory, bad);
	EXPECT(!fake.running);
	end();
}

static void test_memory_counts_refused(void)
{
	struct { struct vhost_user_memory memory; uint8_t more[64]; } table = {
		.memory = one_region,
	};
	static const uint32_t counts[] = { 0, 2, 9, 0x10000000, 0x08000001, UINT32_MAX };
	int fd = memory_fd(), fds[] = { fd, fd, fd, fd, fd, fd, fd, fd };

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(counts); i++) {
		table.memory.nregions = counts[i];
		front_send(VHOST_USER_SET_MEM_TABLE, 0, &table, 40, &fd, 1);
		expect_refused();
		front_send(VHOST_USER_SET_MEM_TABLE, 0, &table, 264, fds, 8);
		expect_refused();
	}
	end();
	close(fd);
}

/* Past the end of its file; what cannot be mapped; and the memory before stays in use. */
static void test_memory_failures(void)
{
	struct vhost_user_memory memory = one_region;
	int fd = eventfd(0, 0);
	uint64_t ack = 0;

	begin();
	set_up();
	EXPECT(front_do_u64(VHOST_USER_SET_PROTOCOL_FEATURES,
			    1ULL << VHOST_USER_PROTOCOL_F_REPLY_ACK) == 1);
	front_send(VHOST_USER_SET_MEM_TABLE, VHOST_USER_FLAG_NEED_REPLY, &memory, 40, &fd, 1);
	EXPECT(backend_serve(backend) == 1);
	EXPECT(front_reply(VHOST_USER_SET_MEM_TABLE, &ack, sizeof(ack), NULL) && ack);
	EXPECT(fake.running && fake.starts == QUEUES && !*used_index(0));
	memory.regions[0].mmap_offset = PAGE;
	EXPECT(set_memory(&memory) == -EINVAL);
	end();
	close(fd);
}

/* Regions in any order, from the middle of a page of their file. */
static void test_memory_mapped(void)
{
	const struct vhost_user_memory memory = {
		.nregions = 3,
		.regions = {
			{ GPA + PAGE, PAGE, UVA + 8 * PAGE, 512 },
			{ 0, PAGE, UVA, 2 * PAGE },
			{ GPA, PAGE, UVA + 2 * PAGE, PAGE },
		},
	};
	int fds[3], got;

	begin();
	negotiate(0);
	for (unsigned int i = 0; i < 3; i++) {
		fds[i] = memory_fd();
		EXPECT(pwrite(fds[i], "0\0001\0002" + 2 * i, 1, memory.regions[i].mmap_offset) == 1);
	}
	front_send(VHOST_USER_SET_MEM_TABLE, 0, &memory, memory_bytes(&memory), fds, 3);
	got = backend_serve(backend);
	EXPECT(got == 1);
	for (unsigned int i = 0; i < 3; i++)
		close(fds[i]);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_NUM, 0, 1) == 1);
	EXPECT(front_do(VHOST_USER_SET_VRING_ADDR, &(struct vhost_user_vring_addr){
		.desc = UVA + 256, .avail = UVA + 512, .used = UVA + 1024 }, 40, -1) == 1);
	give_fd(VHOST_USER_SET_VRING_KICK, 0);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == 1 && fake.running);
	EXPECT(fake.memory.count == 3 && fake.memory.region[0].gpa == 0 &&
	       fake.memory.region[1].gpa == GPA && fake.memory.region[2].gpa == GPA + PAGE);
	EXPECT(*(char *)fake.memory.region[0].hva == '1');
	EXPECT(*(char *)fake.memory.region[1].hva == '2');
	EXPECT(*(char *)fake.memory.region[2].hva == '0');
	EXPECT(fake.ring[0].desc == 256 && fake.ring[0].size == 1 && !fake.ring[1].size);
	end();
}

static void refuse_state(uint32_t request, uint32_t index, uint32_t num)
{
	EXPECT(front_do_state(request, index, num) == -EPROTO);
	front_detach();
	front_attach();
}

static void test_rings_refused(void)
{
	struct vhost_user_vring_addr addr = ring_addr(0);
	int fd = eventfd(0, 0);
	uint64_t bits = 1ULL << 9;

	begin();
	refuse_state(VHOST_USER_SET_VRING_NUM, QUEUES, 16);
	refuse_state(VHOST_USER_SET_VRING_NUM, UINT32_MAX, 16);
	refuse_state(VHOST_USER_SET_VRING_NUM, 0, 0);
	refuse_state(VHOST_USER_SET_VRING_NUM, 0, 3);
	refuse_state(VHOST_USER_SET_VRING_NUM, 0, 512);
	refuse_state(VHOST_USER_SET_VRING_NUM, 0, 0x10010);
	refuse_state(VHOST_USER_SET_VRING_BASE, QUEUES, 0);
	refuse_state(VHOST_USER_SET_VRING_BASE, 0, 0x10000);
	refuse_state(VHOST_USER_GET_VRING_BASE, QUEUES, 0);
	refuse_state(VHOST_USER_SET_VRING_ENABLE, QUEUES, 1);
	refuse_state(VHOST_USER_SET_VRING_ENABLE, 0, 2);
	addr.flags = 1;
	front_send(VHOST_USER_SET_VRING_ADDR, 0, &addr, sizeof(addr), NULL, 0);
	expect_refused();
	addr = ring_addr(QUEUES);
	front_send(VHOST_USER_SET_VRING_ADDR, 0, &addr, sizeof(addr), NULL, 0);
	expect_refused();
	for (uint32_t request = VHOST_USER_SET_VRING_KICK; request <= VHOST_USER_SET_VRING_ERR;
	     request++) {
		front_send(request, 0, &bits, sizeof(bits), &fd, 1);
		expect_refused();
		EXPECT(front_do_fd(request, QUEUES, fd) == -EPROTO);
		EXPECT(front_do_fd(request, 0, -1) ==
		       (request == VHOST_USER_SET_VRING_KICK ? -EPROTO : 1));
	}
	end();
	close(fd);
}

/* Each part of a ring: outside, across an end, not aligned, anywhere near the ends of addresses. */
static void test_rings_outside_memory(void)
{
	static const uint64_t bad[] = {
		0, UVA - 16, UVA + MEMORY_SIZE, UVA + MEMORY_SIZE - 16, UVA + 1, GPA, UINT64_MAX - 15,
		UINT64_MAX,
	};

	for (unsigned int i = 0; i < 3 * ARRAY_SIZE(bad); i++) {
		struct vhost_user_vring_addr addr = ring_addr(1);
		uint64_t *part[] = { &addr.desc, &addr.avail, &addr.used };

		*part[i % 3] = bad[i / 3];
		begin();
		negotiate(0);
		EXPECT(set_memory(&one_region) == 1);
		set_ring(1);
		EXPECT(front_do(VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1) == 1);
		EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 1, 1) == -EPROTO);
		EXPECT(!fake.running);
		end();
	}
	/* No memory at all. */
	begin();
	negotiate(0);
	set_ring(0);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == -EPROTO && !fake.running);
	end();
}

static void test_rings_start_and_stop(void)
{
	struct vhost_user_vring_state state;

	begin();
	set_up();
	EXPECT(fake.ring[0].size == 16 && fake.ring[1].desc == GPA + STRIDE);
	EXPECT(fake.ring[1].avail == GPA + STRIDE + PAGE);
	EXPECT(fcntl(fake.ring[0].kick, F_GETFL) & O_NONBLOCK);
	EXPECT(fcntl(fake.ring[0].call, F_GETFL) & O_NONBLOCK);
	*used_index(0) = 7;
	*used_index(1) = 9;
	EXPECT(front_do_state(VHOST_USER_GET_VRING_BASE, 0, 0) == 1);
	EXPECT(front_reply(VHOST_USER_GET_VRING_BASE, &state, sizeof(state), NULL));
	EXPECT(state.index == 0 && state.num == 7);
	/* The other one goes on, from where it was. */
	EXPECT(fake.running && !fake.ring[0].size && fake.ring[1].next_avail == 9);
	give_fd(VHOST_USER_SET_VRING_KICK, 0);
	EXPECT(fake.running && fake.ring[0].size && fake.ring[0].next_avail == 7);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 1, 0) == 1 && !fake.ring[1].size);
	EXPECT(front_do(VHOST_USER_RESET_DEVICE, NULL, 0, -1) == 1 && !fake.running);
	end();
}

static uint32_t ring_base(unsigned int index)
{
	struct vhost_user_vring_state state = { .num = 0 };

	EXPECT(front_do_state(VHOST_USER_GET_VRING_BASE, index, 0) == 1);
	EXPECT(front_reply(VHOST_USER_GET_VRING_BASE, &state, sizeof(state), NULL));
	return state.num;
}

static void set_up_packed(unsigned int size, uint32_t base)
{
	set_ring_as(0, size, base);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == 1);
}

/* Both indices and wrap counters come and go by the base; sizes are any. */
static void test_packed_rings(void)
{
	begin();
	negotiate_packed();
	EXPECT(set_memory(&one_region) == 1);
	set_up_packed(6, 0x80030002);
	EXPECT(fake.running && fake.ring[0].size == 6 && !fake.ring[0].inflight);
	EXPECT(fake.ring[0].next_avail == 2 && fake.ring[0].next_used == 0x8003);
	EXPECT(*fake.ring[0].resume == 0x8003);
	*fake.ring[0].resume = 5;	/* as far as the device has come */
	EXPECT(ring_base(0) == 0x00050005);
	EXPECT(ring_base(0) == 0x00050005);
	give_fd(VHOST_USER_SET_VRING_KICK, 0);
	EXPECT(fake.running && fake.ring[0].next_avail == 5 && fake.ring[0].next_used == 5);
	*fake.ring[0].resume = 0x8001;
	/* Whatever else stops the device, it goes on there. */
	EXPECT(set_memory(&one_region) == 1);
	EXPECT(fake.starts == 3 && fake.ring[0].next_avail == 0x8001);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_NUM, 0, QUEUE_SIZE + 1) == -EPROTO);
	end();
}

static void refuse_packed(unsigned int size, uint32_t base)
{
	begin();
	negotiate_packed();
	EXPECT(set_memory(&one_region) == 1);
	set_ring_as(0, size, base);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == -EPROTO && !fake.running);
	end();
}

static void test_packed_rings_refused(void)
{
	refuse_packed(6, 6);
	refuse_packed(6, 0x8006);
	refuse_packed(6, 6 << 16);
	refuse_packed(6, 0xffffffff);
	/* What was set up as a packed ring does not become a split one. */
	begin();
	negotiate_packed();
	EXPECT(set_memory(&one_region) == 1);
	set_up_packed(6, 0x80008000);
	EXPECT(fake.running);
	EXPECT(front_do_u64(VHOST_USER_SET_FEATURES, 1ULL << VHOST_USER_F_PROTOCOL_FEATURES |
			    1ULL << VIRTIO_F_VERSION_1) == -EPROTO && !fake.running);
	end();
}

/* Before protocol features there was nothing to enable a ring by. */
static void test_rings_enabled_by_default(void)
{
	begin();
	EXPECT(front_do_u64(VHOST_USER_SET_FEATURES, 1ULL << VIRTIO_F_VERSION_1) == 1);
	EXPECT(set_memory(&one_region) == 1);
	set_ring(0);
	EXPECT(fake.running && fake.features == 1ULL << VIRTIO_F_VERSION_1);
	end();
}

static void test_call_exchanged_in_place(void)
{
	eventfd_t count = 0;
	int fd, call, starts;

	begin();
	set_up();
	call = fake.ring[1].call;
	starts = fake.starts;
	fd = eventfd(0, 0);
	EXPECT(front_do_fd(VHOST_USER_SET_VRING_CALL, 1, fd) == 1);
	/* One that a process before this one may have owed. */
	EXPECT(!eventfd_read(fd, &count) && count == 1);
	eventfd_write(call, 5);
	EXPECT(!eventfd_read(fd, &count) && count == 5);
	EXPECT(front_do_fd(VHOST_USER_SET_VRING_CALL, 1, -1) == 1);
	eventfd_write(call, 1);
	EXPECT(eventfd_read(fd, &count) < 0 && fake.starts == (unsigned int)starts);
	close(fd);
	end();
}

static void test_config(void)
{
	struct vhost_user_config config = { .offset = 2, .size = 100 };

	begin();
	front_send(VHOST_USER_GET_CONFIG, 0, &config, VHOST_USER_CONFIG_HEAD + 100, NULL, 0);
	EXPECT(backend_serve(backend) == 1);
	EXPECT(front_reply(VHOST_USER_GET_CONFIG, &config, VHOST_USER_CONFIG_HEAD + 100, NULL));
	EXPECT(!memcmp(config.region, "cdefgh\0", 7) && !config.region[99]);
	config.offset = 256;
	config.size = 1;
	front_send(VHOST_USER_GET_CONFIG, 0, &config, VHOST_USER_CONFIG_HEAD + 1, NULL, 0);
	expect_refused();
	config.offset = UINT32_MAX;
	front_send(VHOST_USER_GET_CONFIG, 0, &config, VHOST_USER_CONFIG_HEAD + 1, NULL, 0);
	expect_refused();
	config.offset = 0;
	config.size = UINT32_MAX;
	front_send(VHOST_USER_GET_CONFIG, 0, &config, VHOST_USER_CONFIG_HEAD + 1, NULL, 0);
	expect_refused();
	end();
}

static void test_config_change_is_told(void)
{
	struct vhost_user_header header;
	int pair[2];

	begin();
	EXPECT(!backend_config_changed(backend));
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	EXPECT(front_do(VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, pair[1]) == 1);
	close(pair[1]);
	EXPECT(!backend_config_changed(backend));
	EXPECT(read(pair[0], &header, sizeof(header)) == sizeof(header));
	EXPECT(header.request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG && !header.size);
	close(pair[0]);
	EXPECT(backend_config_changed(backend) == -EPIPE);
	end();
}

static int set_inflight(struct vhost_user_inflight area, int fd)
{
	int got = front_do(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd);

	front_detach();
	front_attach();
	return got;
}

static void test_inflight(void)
{
	struct vhost_user_inflight area = { .num_queues = QUEUES, .queue_size = 16 }, bad;
	const struct virtq_inflight_split *record;
	int fd = -1;

	begin();
	EXPECT(front_do(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), &fd));
	EXPECT(area.mmap_size >= QUEUES * (16 + 16 * 16) && !area.mmap_offset);
	EXPECT(ftruncate(fd, 0) < 0);	/* sealed */
	EXPECT(front_do(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd) == 1);
	set_up();
	EXPECT(fake.ring[0].inflight && fake.ring[1].inflight);
	record = fake.ring[0].inflight;
	EXPECT(record->version == 1 && record->desc_num == 16);
	bad = area;
	bad.num_queues++;
	EXPECT(set_inflight(bad, fd) == -EPROTO);
	bad = area;
	bad.queue_size = 512;
	EXPECT(set_inflight(bad, fd) == -EPROTO);
	bad = area;
	bad.queue_size = 32;
	EXPECT(set_inflight(bad, fd) == -EINVAL);
	bad = area;
	bad.mmap_size = UINT64_MAX;
	EXPECT(set_inflight(bad, fd) == -EINVAL);
	bad = area;
	bad.mmap_offset = UINT64_MAX - 4095;
	EXPECT(set_inflight(bad, fd) == -EINVAL);
	bad = area;
	bad.mmap_offset = 4096;
	EXPECT(set_inflight(bad, fd) == -EINVAL);
	close(fd);
	end();
}

/*
 * Where a packed ring goes on is in the record for who follows one that died, whatever the base;
 * and in the base, once a front end was told.
 */
static void test_inflight_of_packed_rings(void)
{
	struct vhost_user_inflight area = { .num_queues = QUEUES, .queue_size = 16 };
	struct virtq_inflight_packed *record;
	int fd = -1;

	begin();
	negotiate_packed();
	EXPECT(front_do(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), &fd));
	EXPECT(area.mmap_size >= QUEUES * (32 + 16 * 32));
	EXPECT(front_do(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd) == 1);
	close(fd);
	EXPECT(set_memory(&one_region) == 1);
	set_up_packed(6, 0x80008000);
	record = fake.ring[0].inflight;
	EXPECT(record->version == 1 && record->desc_num == 6 && record->used.old_wrap == 1);
	record->used.idx = 4;
	record->used.old_idx = 4;
	EXPECT(front_do_state(VHOST_USER_SET_VRING_BASE, 0, 0x80008000) == 1);
	EXPECT(fake.running && *fake.ring[0].resume == 0x8004);
	EXPECT(ring_base(0) == 0x80048004 && record->version == 0);
	set_up_packed(6, 0x00010001);
	EXPECT(fake.running && *fake.ring[0].resume == 1 && record->used.old_idx == 1);
	EXPECT(front_do(VHOST_USER_RESET_DEVICE, NULL, 0, -1) == 1 && record->version == 0);
	end();
}

/* A ring that has more entries than its record would write past it. */
static void test_inflight_too_small_for_ring(void)
{
	struct vhost_user_inflight area = { .num_queues = QUEUES, .queue_size = 8 };
	int fd = -1;

	begin();
	EXPECT(front_do(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), -1) == 1);
	EXPECT(front_reply(VHOST_USER_GET_INFLIGHT_FD, &area, sizeof(area), &fd));
	EXPECT(front_do(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd) == 1);
	close(fd);
	negotiate(0);
	EXPECT(set_memory(&one_region) == 1);
	set_ring(0);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == -EPROTO && !fake.running);
	end();
}

static void test_acks(void)
{
	uint64_t ack = 1;

	begin();
	front_send(VHOST_USER_SET_OWNER, VHOST_USER_FLAG_NEED_REPLY, NULL, 0, NULL, 0);
	EXPECT(backend_serve(backend) == 1);
	EXPECT(recv(front, &ack, sizeof(ack), MSG_DONTWAIT) < 0);	/* not negotiated */
	negotiate(1ULL << VHOST_USER_PROTOCOL_F_REPLY_ACK);
	front_send(VHOST_USER_SET_OWNER, VHOST_USER_FLAG_NEED_REPLY, NULL, 0, NULL, 0);
	EXPECT(backend_serve(backend) == 1);
	EXPECT(front_reply(VHOST_USER_SET_OWNER, &ack, sizeof(ack), NULL) && !ack);
	/* One reply, where there is one anyway. */
	front_send(VHOST_USER_GET_QUEUE_NUM, VHOST_USER_FLAG_NEED_REPLY, NULL, 0, NULL, 0);
	EXPECT(backend_serve(backend) == 1);
	EXPECT(front_reply(VHOST_USER_GET_QUEUE_NUM, &ack, sizeof(ack), NULL) && ack == QUEUES);
	EXPECT(recv(front, &ack, sizeof(ack), MSG_DONTWAIT) < 0);
	end();
}

/* Nothing of one front end is left for the next. */
static void test_next_front_end(void)
{
	begin();
	set_up();
	front_detach();
	EXPECT(!fake.running);
	front_attach();
	give_fd(VHOST_USER_SET_VRING_KICK, 0);
	EXPECT(front_do_state(VHOST_USER_SET_VRING_ENABLE, 0, 1) == 1 && !fake.running);
	front_detach();
	front_attach();
	set_up();
	end();
}

static const struct unit_test tests[] = {
	{ "features are told, and no others taken", test_features },
	{ "each message of another length, or with other descriptors, is refused",
	  test_lengths_and_descriptors },
	{ "the same messages are served as they should be", test_shapes_are_served },
	{ "headers that no request has are refused", test_headers },
	{ "unknown messages are refused", test_unknown_messages },
	{ "messages that end in the middle are refused", test_short_messages },
	{ "descriptors in excess are closed", test_descriptors_in_excess },
	{ "regions that are empty, wrap or overlap are refused", test_memory_refused },
	{ "numbers of regions that lie are refused", test_memory_counts_refused },
	{ "regions that cannot be mapped change nothing", test_memory_failures },
	{ "regions are mapped from where they begin", test_memory_mapped },
	{ "rings that there cannot be are refused", test_rings_refused },
	{ "rings outside of memory are refused", test_rings_outside_memory },
	{ "rings start and stop one by one", test_rings_start_and_stop },
	{ "packed rings go on where they ended", test_packed_rings },
	{ "packed rings that there cannot be are refused", test_packed_rings_refused },
	{ "rings start by themselves without protocol features", test_rings_enabled_by_default },
	{ "interrupts are exchanged under a running device", test_call_exchanged_in_place },
	{ "the configuration is read, and nothing past it", test_config },
	{ "a change of the configuration is told", test_config_change_is_told },
	{ "records of requests in flight are made and taken", test_inflight },
	{ "a packed ring goes on by its record, until the front end knows",
	  test_inflight_of_packed_rings },
	{ "a record smaller than its ring is refused", test_inflight_too_small_for_ring },
	{ "acknowledged is what is asked for", test_acks },
	{ "the next front end finds nothing of the last", test_next_front_end },
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main(tests, ARRAY_SIZE(tests));
}
