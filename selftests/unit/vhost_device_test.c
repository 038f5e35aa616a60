// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A device whose back end comes and goes: what its successor is given, and that none takes the
 * device along.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/vhost_mock.h"
#include "userspace/lib/fd.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/vhost_device.h"
#include "userspace/vmm/vhost_isolation.h"

#define MEMORY		(4 << 20)
#define SIZE		64
#define DESC		0x1000
#define AVAIL		0x2000
#define USED		0x3000
#define FEATURES	(1ULL << 32 | 1ULL << 28)
#define CONNECTIONS	8

static char path[64];
static struct memory memory;
static const struct vhost_isolation isolation = {
	.ops = &vhost_share, .memory = &memory, .vm = -1,
};
static struct device *dev;
static struct dev_vring ring;
static struct vring_avail *avail;
static struct vring_used *used;

/* The back ends, one after the other; the next begins when the one before has ended. */
static struct mock mocks[CONNECTIONS];
static unsigned int planned, come;
static int listener;
static pthread_t server;

static void *serve(void *arg)
{
	struct mock *mock;

	(void)arg;
	while (come < planned) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			break;
		mock = &mocks[come];
		mock->fd = fd;
		__atomic_add_fetch(&come, 1, __ATOMIC_SEQ_CST);
		mock_serve(mock);
	}
	return NULL;
}

static bool wait_for(const unsigned int *what, unsigned int count)
{
	for (unsigned int i = 0; i < 5000; i++) {
		if (__atomic_load_n(what, __ATOMIC_SEQ_CST) >= count)
			return true;
		usleep(1000);
	}
	return false;
}

static void plan(unsigned int count)
{
	planned = count;
	come = 0;
	for (unsigned int i = 0; i < count; i++)
		mock_init(&mocks[i], -1);
}

static int origin_connect(struct vhost_origin *of)
{
	(void)of;
	return fd_connect(path);
}

static struct vhost_origin origin = { .name = "mock", .connect = origin_connect };

static bool create(const char *type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 4))
		return false;
	pthread_create(&server, NULL, serve, NULL);
	dev = NULL;
	return !vhost_device_create(vhost_type_find(type), &origin, &isolation, &dev);
}

static void start(void)
{
	memset(avail, 0, 6 + 2 * SIZE);
	memset(used, 0, 6 + 8 * SIZE);
	EXPECT(!dev->ops->start(dev, &memory.map, FEATURES, &ring));
}

static void destroy(void)
{
	if (dev)
		dev->ops->destroy(dev);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
	for (unsigned int i = 0; i < planned; i++)
		mock_finish(&mocks[i]);
}

static void die(unsigned int i)
{
	shutdown(mocks[i].fd, SHUT_RDWR);
}

static void add(unsigned int head)
{
	avail->ring[avail->idx % SIZE] = head;
	avail->idx++;
}

static void complete(unsigned int head)
{
	used->ring[used->idx % SIZE].id = head;
	used->idx++;
}

static void test_life(void)
{
	uint8_t config[4] = { 0 };

	plan(1);
	EXPECT(create("blk"));
	EXPECT(dev->ops->virtio_id == 2 && dev->ops->queue_count == 1);
	EXPECT(dev->ops->features(dev) == (1ULL << 32 | 1ULL << 29 | 1ULL << 28 | 0x246));
	dev->ops->config_read(dev, 56, config, 4);
	EXPECT(config[0] == 0x5a && config[3] == 0x5a);
	mocks[0].config[32] = 1;
	dev->ops->config_write(dev, 32, config, 1);
	dev->ops->config_read(dev, 32, config, 1);
	EXPECT(config[0] == 1);
	start();
	EXPECT(mocks[0].enabled == 1);
	dev->ops->stop(dev);
	EXPECT(mocks[0].seen[11] == 1);
	start();
	EXPECT(mocks[0].enabled == 2 && mocks[0].seen[31] == 2);
	dev->ops->stop(dev);
	destroy();
	EXPECT(!mocks[0].wrong);
}

/* With a region for requests in flight, this is what the successor gets, as it was left. */
static void test_inflight(void)
{
	char mark[8] = { 0 };
	eventfd_t count;

	plan(2);
	EXPECT(create("blk"));
	start();
	EXPECT(pwrite(mocks[0].inflight, "a mark", 7, 100) == 7);
	EXPECT(ftruncate(mocks[0].inflight, 0) && ftruncate(mocks[0].memory, 0));
	add(0);
	add(1);
	complete(1);
	used->flags = 1;
	eventfd_read(ring.kick, &count);
	eventfd_read(ring.call, &count);
	die(0);
	EXPECT(wait_for(&mocks[1].enabled, 1));
	EXPECT(pread(mocks[1].inflight, mark, 7, 100) == 7 && !strcmp(mark, "a mark"));
	EXPECT(mocks[1].base[0] == 1 && !mocks[1].seen[31] && !used->flags);
	dev->ops->stop(dev);
	EXPECT(!eventfd_read(ring.kick, &count) && !eventfd_read(ring.call, &count));
	start();
	EXPECT(mocks[1].seen[31] == 1);		/* a new one for a new start */
	EXPECT(pread(mocks[1].inflight, mark, 7, 100) == 7 && !mark[0]);
	dev->ops->stop(dev);
	destroy();
}

/* With two back ends, one after the other, that have no region for requests in flight. */
static void start_tracked(void)
{
	plan(2);
	mocks[0].protocol &= ~(1ULL << 12);
	mocks[1].protocol &= ~(1ULL << 12);
	EXPECT(create("blk"));
	start();
}

static void wait_event(int fd)
{
	eventfd_t count;

	for (unsigned int i = 0; i < 5000 && eventfd_read(fd, &count); i++)
		usleep(1000);
}

/* Without one, the ring has in it what is to be repeated. */
static void test_tracked(void)
{
	eventfd_t count;

	start_tracked();
	eventfd_read(ring.call, &count);
	for (unsigned int round = 0; round < 100; round++) {
		add(10);
		add(11 + round % 20);
		complete(11 + round % 20);
		if (!round)
			continue;
		complete(10);		/* so that one 10 stays out */
		eventfd_write(mocks[0].call[0], 1);
		wait_event(ring.call);
	}
	die(0);
	EXPECT(wait_for(&mocks[1].enabled, 1));
	EXPECT(mocks[1].base[0] == used->idx && avail->ring[used->idx % SIZE] == 10);
	destroy();
}

/* Without one, and the account does not add up: the driver has to reset it. */
static void test_broken(void)
{
	start_tracked();
	add(3);
	complete(5);
	add(4);
	die(0);
	wait_event(ring.err);
	EXPECT(wait_for(&come, 2) && !mocks[1].enabled);
	dev->ops->stop(dev);
	start();
	EXPECT(wait_for(&mocks[1].enabled, 1));
	destroy();
}

static void test_changed(void)
{
	uint32_t message[] = { 2, 1, 0 };
	eventfd_t count;
	uint8_t byte;
	bool told = false;

	plan(1);
	EXPECT(create("blk"));
	mocks[0].config[0] = 0x17;
	EXPECT(send(mocks[0].requests, message, 12, 0) == 12);
	for (unsigned int i = 0; i < 5000 && !told; i++) {
		told = !eventfd_read(vhost_device_config_event(dev), &count);
		usleep(1000);
	}
	dev->ops->config_read(dev, 0, &byte, 1);
	EXPECT(told && byte == 0x17);
	destroy();
}

/* Successors that will not do, each in its way, and at last one that does. */
static void test_successors(void)
{
	unsigned int i = 1;

	plan(7);
	mocks[i++].features &= ~(1ULL << 28);
	mocks[i++].protocol &= ~(1ULL << 9);
	mocks[i++].protocol &= ~(1ULL << 12);
	mocks[i++].queues = 0;
	mocks[i++].features = 0;
	mocks[0].queues = mocks[i].queues = 1;
	EXPECT(create("blk"));
	start();
	die(0);
	EXPECT(wait_for(&come, 7) && wait_for(&mocks[6].enabled, 1));
	for (i = 1; i < 6; i++)
		EXPECT(!mocks[i].enabled);
	destroy();
}

/* How many rings does a back end get of a socket device, if it has @queues? */
static unsigned int enabled_of(unsigned int queues)
{
	const struct dev_vring rings[] = { ring, ring, ring };
	unsigned int enabled = 0;

	plan(1);
	mocks[0].queues = queues;
	if (EXPECT(create("vsock") && dev->ops->queue_count == 3)) {
		EXPECT(!dev->ops->start(dev, &memory.map, FEATURES, rings));
		enabled = mocks[0].enabled;
		dev->ops->stop(dev);
	}
	destroy();
	return enabled;
}

/* The ring for events is the back end's where it has one; and then its successor's. */
static void test_events(void)
{
	const struct dev_vring rings[] = { ring, ring, ring };

	EXPECT(enabled_of(2) == 2 && enabled_of(3) == 3 && enabled_of(4) == 3);
	plan(3);
	mocks[0].queues = mocks[2].queues = 3;
	mocks[1].queues = 2;
	EXPECT(create("vsock"));
	EXPECT(!dev->ops->start(dev, &memory.map, FEATURES, rings));
	die(0);
	EXPECT(wait_for(&mocks[2].enabled, 3) && !mocks[1].enabled);
	dev->ops->stop(dev);
	destroy();
}

/* One that does something wrong at some message, and then a good one. */
static void try_fault(unsigned int at, enum mock_fault fault)
{
	plan(3);
	mocks[1].at = at;
	mocks[1].fault = fault;
	EXPECT(create("blk"));
	start();
	add(9);
	die(0);
	if (!EXPECT(wait_for(&mocks[2].enabled, 1)))
		printf("# after a fault at request %u\n", at);
	EXPECT(mocks[1].faulty && mocks[2].base[0] == 0);
	dev->ops->stop(dev);
	destroy();
}

static void test_faults(void)
{
	static const unsigned int at[] = {
		1, 2, 3, 5, 8, 9, 10, 12, 13, 14, 15, 17, 18, 21, 24, 32,
	};
	static const enum mock_fault faults[] = { MOCK_DEAD, MOCK_DEAD_HEADER, MOCK_LONG, MOCK_FDS };
	unsigned int before = mock_descriptors();

	for (unsigned int i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		for (unsigned int j = 0; j < 4; j++)
			try_fault(at[i], faults[j]);
	EXPECT(mock_descriptors() == before);
}

/* The driver starts, stops and looks while nobody is there. */
static void test_away(void)
{
	uint8_t byte = 0;

	plan(2);
	EXPECT(create("blk"));
	die(0);
	shutdown(listener, SHUT_RDWR);
	start();
	dev->ops->config_read(dev, 0, &byte, 1);
	EXPECT(byte == 0x5a);
	dev->ops->config_write(dev, 0, &byte, 1);
	dev->ops->stop(dev);
	start();
	dev->ops->stop(dev);
	destroy();
}

/* The last one there is: nobody is looked for, and the device stays. */
static void test_last(void)
{
	plan(1);
	EXPECT(create("blk"));
	start();
	origin.last = true;
	die(0);
	usleep(100000);
	dev->ops->stop(dev);
	start();
	dev->ops->stop(dev);
	destroy();
	EXPECT(come == 1);
	origin.last = false;
}

static void test_create(void)
{
	static const enum mock_fault faults[] = { MOCK_DEAD, MOCK_EMPTY, MOCK_HUGE };

	EXPECT(!vhost_type_find("tape") && !vhost_type_find(""));
	for (unsigned int i = 0; i < 3; i++) {
		plan(1);
		mocks[0].at = i == 1 ? 24 : 1;
		mocks[0].fault = faults[i];
		EXPECT(!create("blk"));
		destroy();
	}
	plan(1);
	mocks[0].protocol &= ~(1ULL << 9);
	EXPECT(!create("fs"));
	destroy();
	plan(1);
	mocks[0].queues = ~0ULL;
	EXPECT(create("blk") && dev->ops->queue_count == 64);
	destroy();
	plan(1);
	mocks[0].protocol &= ~(1ULL << 9);
	mocks[0].features = ~0ULL;
	EXPECT(create("net") && dev->ops->queue_count == 2 && !dev->ops->config_size);
	if (dev)	/* no MAC, no link status, no control queue, nothing of packed rings */
		EXPECT(!(dev->ops->features(dev) & (1 << 5 | 1 << 16 | 1 << 17 | 1ULL << 34)));
	destroy();
	EXPECT(vhost_device_create(vhost_type_find("blk"), &origin, &isolation, &dev) < 0);
}

static const struct unit_test tests[] = {
	{ "start, configuration, stop, and start again", test_life },
	{ "the successor gets the requests in flight, by their region", test_inflight },
	{ "and by the ring, where there is no region", test_tracked },
	{ "a ring that does not show them needs a reset", test_broken },
	{ "the configuration changes", test_changed },
	{ "successors that lack something", test_successors },
	{ "a ring that not all back ends have", test_events },
	{ "successors that fail at each message", test_faults },
	{ "nobody is there", test_away },
	{ "nobody comes any more", test_last },
	{ "back ends that no device is made of", test_create },
};

static int eventfd_new(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (!getenv("VERBOSE") && !freopen("/dev/null", "w", stderr))
		return 1;
	snprintf(path, sizeof(path), "/tmp/vhost_device_test.%d", getpid());
	if (memory_init(&memory, MEMORY))
		return 1;
	ring = (struct dev_vring){
		.size = SIZE, .desc = DESC, .avail = AVAIL, .used = USED,
		.kick = eventfd_new(), .call = eventfd_new(), .err = eventfd_new(),
	};
	avail = memory_at(&memory, AVAIL, 6 + 2 * SIZE);
	used = memory_at(&memory, USED, 6 + 8 * SIZE);
	unit_main(tests, sizeof(tests) / sizeof(tests[0]));
	unlink(path);
	memory_finish(&memory);
	return unit_failed;
}
