// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The gate, between a driver and a back end that are both played here: what gets through, exact to the
 * byte; and what either can do to the other, which is nothing. There are no windows here, so all is
 * copied; selftests/vmctl_gate.sh has them.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/vhost_mock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/gate_request.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/shadow.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/vhost_user.h"

#define MEMORY		(4 << 20)
#define SIZE		64
#define DESC		0x1000
#define AVAIL		0x2000
#define USED		0x3000
#define DATA		0x100000
#define PAGE		4096
#define FEATURES	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX | \
			 1ULL << VIRTIO_RING_F_INDIRECT_DESC)

/* The driver's side. */
static struct memory memory;
static struct dev_vring ring;
static struct vring_desc *desc;
static struct vring_avail *avail;
static struct vring_used *used;

/* The gate. */
static struct vhost_isolation *gate;
static struct loop loop;
static pthread_mutex_t lock;
static unsigned int lost;

/* The back end's: what it was given, and where it is in it. */
static struct mock mock;
static struct vhost_user user;
static uint8_t *shared;
static size_t shared_size;
static uint16_t device_next;

static void *at(uint64_t gpa)
{
	return memory_at(&memory, gpa, 1);
}

static int event(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static bool wait_event(int fd)
{
	eventfd_t count;

	for (unsigned int i = 0; i < 2000; i++) {
		if (!eventfd_read(fd, &count))
			return true;
		usleep(500);
	}
	return false;
}

/* The back end */

static void device_connect(uint64_t features)
{
	int ends[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
	mock_init(&mock, ends[1]);
	mock.features = features;
	mock_start(&mock);
	user = (struct vhost_user){ .name = "test", .socket = ends[0], .requests = -1 };
	vhost_user_begin(&user, 5000);
	EXPECT(!vhost_user_negotiate(&user));
}

/* It has its queues now. */
static void device_open(void)
{
	shared_size = lseek(mock.memory, 0, SEEK_END);
	shared = mmap(NULL, shared_size, PROT_READ | PROT_WRITE, MAP_SHARED, mock.memory, 0);
	EXPECT(shared != MAP_FAILED);
	device_next = 0;
}

static void device_disconnect(void)
{
	if (shared)
		munmap(shared, shared_size);
	shared = NULL;
	vhost_user_disconnect(&user);
	mock_join(&mock);
	mock_finish(&mock);
}

static struct vring_desc *device_desc(unsigned int head)
{
	struct vring_desc *first = (struct vring_desc *)(shared + SHADOW_DESC) + head;

	if (first->flags & VRING_DESC_F_INDIRECT)
		first = (struct vring_desc *)(shared + (first->addr - (1ULL << 32)));
	return first;
}

/* Piece @i of the request at @head. */
static uint8_t *device_piece(unsigned int head, unsigned int i, uint32_t *ret_len)
{
	struct vring_desc *table = (struct vring_desc *)(shared + SHADOW_DESC);
	struct vring_desc *d = device_desc(head);

	while (i--)
		d = table[head].flags & VRING_DESC_F_INDIRECT ? d + 1 : &table[d->next];
	if (ret_len)
		*ret_len = d->len;
	return shared + (d->addr - (1ULL << 32));
}

/* The last byte of the request. */
static uint8_t *device_status(unsigned int head)
{
	const struct vring_desc *first = (struct vring_desc *)(shared + SHADOW_DESC) + head;
	unsigned int last = 0;
	uint32_t len;
	uint8_t *data;

	if (first->flags & VRING_DESC_F_INDIRECT)
		last = first->len / sizeof(*first) - 1;
	data = device_piece(head, last, &len);
	return data + len - 1;
}

/* The next request; -1: there is none. */
static int device_take(void)
{
	struct vring_avail *a = (struct vring_avail *)(shared + SHADOW_AVAIL);

	for (unsigned int i = 0; i < 1000; i++) {
		if (__atomic_load_n(&a->idx, __ATOMIC_ACQUIRE) != device_next)
			return a->ring[device_next++ % SHADOW_SIZE];
		usleep(500);
	}
	return -1;
}

static bool device_has_nothing(void)
{
	struct vring_avail *a = (struct vring_avail *)(shared + SHADOW_AVAIL);

	usleep(20000);
	return __atomic_load_n(&a->idx, __ATOMIC_ACQUIRE) == device_next;
}

static void device_give(uint32_t head, uint32_t len)
{
	struct vring_used *u = (struct vring_used *)(shared + SHADOW_USED);

	u->ring[u->idx % SHADOW_SIZE] = (struct vring_used_elem){ head, len };
	__atomic_store_n(&u->idx, u->idx + 1, __ATOMIC_RELEASE);
	eventfd_write(mock.call[0], 1);
}

/* The driver */

static void piece(unsigned int i, uint64_t gpa, uint32_t len, uint16_t flags)
{
	desc[i] = (struct vring_desc){ gpa, len, flags, i + 1 };
}

/* A disk's read: 16 bytes of a header, @len of data, a status; at descriptors from @head on. */
static void read_request(unsigned int head, uint64_t data, uint32_t len)
{
	piece(head, DATA + head * PAGE, 16, VRING_DESC_F_NEXT);
	piece(head + 1, data, len, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE);
	piece(head + 2, DATA + head * PAGE + 100, 1, VRING_DESC_F_WRITE);
	memset(at(DATA + head * PAGE), 0xa0 + head, 16);
	*(uint8_t *)at(DATA + head * PAGE + 100) = 0xff;
}

static void make_available(unsigned int head)
{
	avail->ring[avail->idx % SIZE] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_RELEASE);
	eventfd_write(ring.kick, 1);
}

static bool is_used(uint16_t index, unsigned int head)
{
	for (unsigned int i = 0; i < 2000; i++) {
		if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) >= index)
			return used->ring[(index - 1) % SIZE].id == head;
		usleep(500);
	}
	return false;
}

/* All of it */

static void lose(void *owner)
{
	(void)owner;
	gate->ops->lost(gate);
	gate->ops->blame(gate);
	__atomic_add_fetch(&lost, 1, __ATOMIC_SEQ_CST);
}

static bool is_lost(unsigned int times)
{
	for (unsigned int i = 0; i < 4000; i++) {
		if (__atomic_load_n(&lost, __ATOMIC_SEQ_CST) >= times)
			return true;
		usleep(500);
	}
	return false;
}

static void start(void)
{
	pthread_mutex_lock(&lock);
	memset(avail, 0, 8 + 2 * SIZE);
	memset(used, 0, 8 + 8 * SIZE);
	gate->ops->start(gate, FEATURES, &ring);
	pthread_mutex_unlock(&lock);
}

static void serve(uint64_t features)
{
	device_connect(features);
	pthread_mutex_lock(&lock);
	EXPECT(!gate->ops->serve(gate, &user));
	pthread_mutex_unlock(&lock);
	device_open();
}

static void open_gate(void)
{
	const struct vhost_isolation setup = {
		.ops = &vhost_gate, .name = "test", .memory = &memory, .vm = -1, .loop = &loop,
		.lock = &lock, .lose = lose, .count = 1, .failure = VHOST_FAIL_BLK,
	};

	lost = 0;
	pthread_mutex_init(&lock, NULL);
	EXPECT(!loop_init(&loop) && !vhost_gate.create(&setup, NULL, &gate));
	EXPECT(!loop_start(&loop, "test"));
	ring = (struct dev_vring){
		.size = SIZE, .desc = DESC, .avail = AVAIL, .used = USED,
		.kick = event(), .call = event(), .err = event(),
	};
	start();
	serve(MOCK_FEATURES);
}

static int stop(void)
{
	int err;

	pthread_mutex_lock(&lock);
	err = gate->ops->stop(gate, &user);
	pthread_mutex_unlock(&lock);
	return err;
}

static void close_gate(void)
{
	stop();
	device_disconnect();
	loop_finish(&loop);
	gate->ops->destroy(gate);
	fd_close(ring.kick);
	fd_close(ring.call);
	fd_close(ring.err);
}

/* The back end goes, and another one comes. */
static void replace(bool blamed)
{
	pthread_mutex_lock(&lock);
	gate->ops->lost(gate);
	if (blamed)
		gate->ops->blame(gate);
	pthread_mutex_unlock(&lock);
	device_disconnect();
	serve(MOCK_FEATURES);
}

/* Tests */

static void test_through(void)
{
	uint8_t *data = at(DATA + 0x80000), expected[600];
	uint32_t len;
	int head;

	open_gate();
	memset(data - 8, 0x11, 616);
	read_request(0, DATA + 0x80000, 600);
	make_available(0);
	head = device_take();
	EXPECT(head >= 0);
	EXPECT(!memcmp(device_piece(head, 0, &len), at(DATA), 16) && len == 16);
	memset(device_piece(head, 1, &len), 0x77, 600);
	memset(expected, 0x77, sizeof(expected));
	EXPECT(len == 600);
	*device_piece(head, 2, &len) = 0;
	EXPECT(len == 1);
	EXPECT(used->idx == 0 && data[0] == 0x11);
	device_give(head, 601);
	EXPECT(is_used(1, 0) && used->ring[0].len == 601);
	EXPECT(!memcmp(data, expected, 600) && data[-1] == 0x11 && data[600] == 0x11);
	EXPECT(*(uint8_t *)at(DATA + 100) == 0);
	EXPECT(wait_event(ring.call));
	close_gate();
}

/* What is next to a piece in the guest's page is nowhere in what the back end has. */
static void test_exact(void)
{
	static const char secret[] = "next to it";
	uint8_t *page = at(DATA + 0x90000);

	open_gate();
	for (unsigned int i = 0; i < PAGE; i += sizeof(secret))
		memcpy(page + i, secret, PAGE - i < sizeof(secret) ? PAGE - i : sizeof(secret));
	memset(page + 1000, 0x22, 40);
	piece(0, DATA + 0x90000 + 1000, 40, VRING_DESC_F_NEXT);
	piece(1, DATA + 0x90000 + 2000, 300, VRING_DESC_F_WRITE);
	make_available(0);
	EXPECT(device_take() >= 0);
	EXPECT(!memmem(shared, shared_size, secret, sizeof(secret) - 1));
	close_gate();
}

/* Of what was written, as much as the back end says comes through; and a disk's status. */
static void test_short(void)
{
	uint8_t *data = at(DATA + 0xa0000);
	int head;

	open_gate();
	memset(data, 0x33, 512);
	read_request(0, DATA + 0xa0000, 512);
	make_available(0);
	head = device_take();
	memset(device_piece(head, 1, NULL), 0x44, 512);
	*device_status(head) = VIRTIO_BLK_S_IOERR;
	device_give(head, 10);
	EXPECT(is_used(1, 0) && used->ring[0].len == 10);
	EXPECT(data[9] == 0x44 && data[10] == 0x33);
	EXPECT(*(uint8_t *)at(DATA + 100) == VIRTIO_BLK_S_IOERR);
	close_gate();
}

/* 20 requests of 1 MiB have no room at once; each has its turn. */
static void test_room(void)
{
	unsigned int done = 0;
	int head;

	open_gate();
	for (unsigned int i = 0; i < 20; i++) {
		read_request(3 * i, DATA + 0x100000, 1 << 20);
		make_available(3 * i);
	}
	while (done < 20 && (head = device_take()) >= 0) {
		*device_status(head) = 0;
		device_give(head, (1 << 20) + 1);
		done++;
	}
	EXPECT(done == 20 && is_used(20, 57));
	close_gate();
}

/* One of 3 MiB, more than is copied usually. */
static void test_large(void)
{
	uint32_t len;
	int head;

	open_gate();
	piece(0, 0x80000, 3 << 20, VRING_DESC_F_NEXT);
	piece(1, DATA, 1, VRING_DESC_F_WRITE);
	*(uint8_t *)at(0x80000 + (3 << 20) - 1) = 0x99;
	make_available(0);
	head = device_take();
	EXPECT(device_piece(head, 0, &len)[(3 << 20) - 1] == 0x99 && len == 3 << 20);
	device_give(head, 1);
	EXPECT(is_used(1, 0));
	close_gate();
}

/* A back end without indirect tables and event indices gets chains. */
static void test_chains(void)
{
	struct vring_desc *table;
	int head;

	open_gate();
	pthread_mutex_lock(&lock);
	gate->ops->lost(gate);
	pthread_mutex_unlock(&lock);
	device_disconnect();
	serve(MOCK_FEATURES & ~(3ULL << 28));
	table = (struct vring_desc *)(shared + SHADOW_DESC);
	for (unsigned int i = 0; i < 200; i++) {
		read_request(0, DATA + 0xb0000, 200);
		make_available(0);
		head = device_take();
		if (!EXPECT(head >= 0 && !(table[head].flags & VRING_DESC_F_INDIRECT)))
			break;
		EXPECT(!memcmp(device_piece(head, 0, NULL), at(DATA), 16));
		device_give(head, 201);
		if (!EXPECT(is_used(i + 1, 0)))
			break;
	}
	close_gate();
}

static void test_successor(void)
{
	int head[5];

	open_gate();
	for (unsigned int i = 0; i < 5; i++) {
		read_request(3 * i, DATA + 0xc0000 + i * PAGE, 512);
		make_available(3 * i);
	}
	for (unsigned int i = 0; i < 5; i++)
		head[i] = device_take();
	device_give(head[1], 513);
	device_give(head[3], 513);
	EXPECT(is_used(2, 9));
	EXPECT(gate->ops->outstanding(gate) == 3);
	replace(false);
	EXPECT(*device_piece(head[0] = device_take(), 0, NULL) == 0xa0);
	EXPECT(*device_piece(head[1] = device_take(), 0, NULL) == 0xa6);
	EXPECT(*device_piece(head[2] = device_take(), 0, NULL) == 0xac);
	EXPECT(device_has_nothing());
	for (unsigned int i = 0; i < 3; i++)
		device_give(head[i], 513);
	EXPECT(is_used(5, 12) && !lost);
	close_gate();
}

/* Of three requests the second one crashes whoever takes it. */
static void test_quarantine(void)
{
	unsigned int crashes = 0;
	int head;

	open_gate();
	for (unsigned int i = 0; i < 3; i++) {
		read_request(3 * i, DATA + 0xd0000 + i * PAGE, 512);
		make_available(3 * i);
	}
	for (unsigned int i = 0; i < 12 && used->idx < 3; i++) {
		head = device_take();
		if (head < 0)
			break;
		if (*device_piece(head, 0, NULL) == 0xa3) {
			replace(true);
			crashes++;
			continue;
		}
		if (crashes < 2)
			continue;	/* slow, and so taken along twice */
		*device_status(head) = 0;
		device_give(head, 513);
		usleep(10000);
	}
	EXPECT(is_used(3, 6) && crashes == 3);
	EXPECT(*(uint8_t *)at(DATA + 100) == 0);
	EXPECT(*(uint8_t *)at(DATA + 3 * PAGE + 100) == VIRTIO_BLK_S_IOERR);
	EXPECT(*(uint8_t *)at(DATA + 6 * PAGE + 100) == 0);
	close_gate();
}

/* Buffers that wait to be filled, while others' requests crash whoever takes them: all are there, and none is failed. */
static void test_buffers(void)
{
	int head[3];

	open_gate();
	for (unsigned int i = 0; i < 3; i++) {
		piece(i, DATA + 0xd0000 + i * PAGE, 512, VRING_DESC_F_WRITE);
		make_available(i);
	}
	for (unsigned int i = 0; i < 5; i++) {
		for (unsigned int j = 0; j < 3; j++)
			EXPECT((head[j] = device_take()) >= 0);
		replace(true);
	}
	for (unsigned int j = 0; j < 3; j++)
		device_give(head[j] = device_take(), 512);
	EXPECT(is_used(3, 2) && !lost);
	close_gate();
}

/* Ten times: killed from without, which is nobody's fault. */
static void test_blameless(void)
{
	int head;

	open_gate();
	read_request(0, DATA + 0xe0000, 512);
	make_available(0);
	for (unsigned int i = 0; i < 10; i++) {
		EXPECT(device_take() >= 0);
		replace(false);
	}
	head = device_take();
	*device_status(head) = 0;
	device_give(head, 513);
	EXPECT(is_used(1, 0) && *(uint8_t *)at(DATA + 100) == 0);
	close_gate();
}

/* What a back end must not do, and what comes of it: it is dropped, and the request is served by another. */
static void hostile(void (*act)(int head))
{
	int head;

	open_gate();
	read_request(0, DATA + 0xe0000, 512);
	make_available(0);
	head = device_take();
	act(head);
	EXPECT(is_lost(1));
	device_disconnect();
	serve(MOCK_FEATURES);
	head = device_take();
	EXPECT(head >= 0);
	*device_status(head) = 0;
	device_give(head, 513);
	EXPECT(is_used(used->idx ? used->idx : 1, 0) && lost == 1);
	close_gate();
}

static void give_other(int head)
{
	device_give(head + 1, 0);
}

static void give_far(int head)
{
	(void)head;
	device_give(0x7fffffff, 0);
}

static void give_long(int head)
{
	device_give(head, 514);
}

static void give_huge(int head)
{
	device_give(head, UINT32_MAX);
}

static void give_many(int head)
{
	(void)head;
	((struct vring_used *)(shared + SHADOW_USED))->idx = 300;
	eventfd_write(mock.call[0], 1);
}

static void scribble(int head)
{
	(void)head;
	memset(shared, 0xee, shared_size);
	eventfd_write(mock.call[0], 1);
}

static void flood(int head)
{
	(void)head;
	for (unsigned int i = 0; i < 4000000 && !__atomic_load_n(&lost, __ATOMIC_SEQ_CST); i++)
		eventfd_write(mock.call[0], 1);
}

static void test_hostile(void)
{
	static void (*const acts[])(int head) = {
		give_other, give_far, give_long, give_huge, give_many, scribble, flood,
	};

	for (unsigned int i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		hostile(acts[i]);
}

static void test_twice(void)
{
	int head;

	open_gate();
	read_request(0, DATA + 0xe0000, 512);
	make_available(0);
	head = device_take();
	device_give(head, 513);
	EXPECT(is_used(1, 0));
	device_give(head, 513);
	EXPECT(is_lost(1) && used->idx == 1);
	close_gate();
}

/* A kick that cannot be told holds up nobody but the back end itself. */
static void test_full_kick(void)
{
	int head;

	open_gate();
	eventfd_write(mock.kick[0], 0xfffffffffffffffeULL);
	read_request(0, DATA + 0xe0000, 512);
	make_available(0);
	head = device_take();
	device_give(head, 513);
	EXPECT(head >= 0 && is_used(1, 0));
	close_gate();
}

/* A driver that breaks its ring has to reset; nothing of it reaches the back end. */
static void broken(unsigned int head, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	open_gate();
	desc[1] = (struct vring_desc){ gpa, len, flags, next };
	make_available(head);
	EXPECT(wait_event(ring.err) && device_has_nothing());
	stop();
	start();
	pthread_mutex_lock(&lock);
	vhost_user_begin(&user, 5000);
	EXPECT(!gate->ops->serve(gate, &user));
	pthread_mutex_unlock(&lock);
	munmap(shared, shared_size);
	device_open();
	read_request(0, DATA + 0xe0000, 512);
	make_available(0);
	EXPECT(device_take() >= 0 && !lost);
	close_gate();
}

static void test_driver(void)
{
	broken(1, DATA, 16, VRING_DESC_F_NEXT, 1);		/* a loop */
	broken(SIZE, 0, 0, 0, 0);				/* past the ring */
	broken(1, MEMORY - 8, 16, 0, 0);			/* past memory */
	broken(1, UINT64_MAX - 4, 16, 0, 0);			/* wraps */
	broken(1, DATA, 8, VRING_DESC_F_INDIRECT, 0);		/* half a table */
	/* More than there is room for. */
	for (unsigned int i = 2; i < 5; i++)
		piece(i, 0, 3 << 20, i < 4 ? VRING_DESC_F_NEXT : 0);
	broken(1, 0, 3 << 20, VRING_DESC_F_NEXT, 2);
}

/* Of no bytes: there is nothing to ask a back end. */
static void test_empty(void)
{
	open_gate();
	piece(0, DATA, 0, 0);
	make_available(0);
	EXPECT(is_used(1, 0) && used->ring[0].len == 0 && device_has_nothing());
	close_gate();
}

/* Stopped with requests in flight: what is done is done, and nothing comes after. */
static void test_stop(void)
{
	uint8_t *data = at(DATA + 0xe0000);
	int head[2];

	open_gate();
	memset(data, 0x55, PAGE);
	read_request(0, DATA + 0xe0000, 512);
	read_request(3, DATA + 0xe0000 + 512, 512);
	make_available(0);
	make_available(3);
	head[0] = device_take();
	head[1] = device_take();
	memset(device_piece(head[0], 1, NULL), 0x66, 512);
	device_give(head[0], 513);
	EXPECT(!stop());
	EXPECT(used->idx == 1 && data[0] == 0x66 && data[512] == 0x55);
	memset(device_piece(head[1], 1, NULL), 0x66, 512);
	device_give(head[1], 513);
	usleep(20000);
	EXPECT(used->idx == 1 && data[512] == 0x55 && !lost);
	start();
	pthread_mutex_lock(&lock);
	vhost_user_begin(&user, 5000);
	EXPECT(!gate->ops->serve(gate, &user));
	pthread_mutex_unlock(&lock);
	munmap(shared, shared_size);
	device_open();
	EXPECT(device_has_nothing());
	close_gate();
}

/* How pieces are cut, without any ring. */
static void test_cut(void)
{
	static struct gate_area area = {
		.bounce.size = 16, .granules_max = 16, .pages.size = 8, .bounce_at = 0x10000, .window_at = 0x20000,
	};
	static struct virtq_chain chain;
	struct iovec iov[] = { { at(DATA + 100), 3 * PAGE }, { at(DATA + 8 * PAGE), 2 * PAGE } };
	struct gate_request request = { 0 };
	struct vring_desc d[8];

	chain.readable = iov;
	chain.writable = iov + 1;
	chain.readable_count = chain.writable_count = 1;
	chain.bytes = 5 * PAGE;
	EXPECT(!gate_request_init(&request, &chain) && request.writable == 2 * PAGE);
	EXPECT(!gate_request_place(&request, &area, 4));
	EXPECT(request.pages == 4 && request.granules == 9 && request.descriptors == 4);
	gate_request_describe(&request, d);
	EXPECT(d[0].addr == 0x10000 && d[0].len == PAGE - 100 && !d[0].flags);
	EXPECT(d[1].addr == 0x20000 && d[1].len == 2 * PAGE && !d[1].flags);
	EXPECT(d[2].addr == 0x10000 + 4000 && d[2].len == 100);
	EXPECT(d[3].addr == 0x20000 + 2 * PAGE && d[3].len == 2 * PAGE &&
	       d[3].flags == VRING_DESC_F_WRITE);
	gate_request_leave(&request, &area);
	EXPECT(gate_request_place(&request, &area, ~0u) == -E2BIG);	/* too much to copy */
	EXPECT(!gate_request_place(&request, &area, 5) && request.pages == 4);
	EXPECT(request.count == 4);
	EXPECT(runs_take(&area.pages, 5) < 0 && runs_take(&area.pages, 4) == 4);
	free(request.segment);
}

static void test_runs(void)
{
	static struct runs runs = { .size = 200 };

	EXPECT(runs_take(&runs, 201) == -1);
	EXPECT(runs_take(&runs, 60) == 0 && runs_take(&runs, 70) == 60 && runs_take(&runs, 70) == 130);
	EXPECT(runs_take(&runs, 1) == -1);
	runs_give(&runs, 60, 70);
	EXPECT(runs_take(&runs, 71) == -1 && runs_take(&runs, 5) == 60 && runs_take(&runs, 65) == 65);
	runs_give(&runs, 10, 3);
	runs_give(&runs, 190, 10);
	EXPECT(runs_take(&runs, 4) == 190 && runs_take(&runs, 3) == 10);
}

static const struct unit_test tests[] = {
	{ "runs of slots", test_runs },
	{ "whole pages are granted, and the ends are copied", test_cut },
	{ "a request goes through, and its answer back", test_through },
	{ "the back end sees the pieces, and nothing beside them", test_exact },
	{ "a short answer, and a disk's status", test_short },
	{ "more requests than there is room for", test_room },
	{ "a request that is large", test_large },
	{ "a back end that knows no indirect tables", test_chains },
	{ "the successor gets what is in flight, in order", test_successor },
	{ "a request that crashes three is failed, and no other", test_quarantine },
	{ "buffers that are only to be filled are not suspected", test_buffers },
	{ "a request is not blamed for what was killed", test_blameless },
	{ "back ends that break the rules", test_hostile },
	{ "one that gives back twice", test_twice },
	{ "one that cannot be kicked", test_full_kick },
	{ "drivers that break the rules", test_driver },
	{ "a request of no bytes", test_empty },
	{ "stopped in the middle, and started again", test_stop },
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (!getenv("VERBOSE") && !freopen("/dev/null", "w", stderr))
		return 1;
	if (memory_init(&memory, MEMORY))
		return 1;
	desc = at(DESC);
	avail = at(AVAIL);
	used = at(USED);
	unit_main(tests, sizeof(tests) / sizeof(tests[0]));
	memory_finish(&memory);
	return unit_failed;
}
