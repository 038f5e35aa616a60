// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the gate between a driver and a back end that both write what the input says,
 * where they can: the driver its memory, the back end the memory that it shares, each at any moment;
 * with kicks, calls, back ends that go and come, and resets in between. The connection and the loop
 * are played here, so that nothing waits.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/shadow.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/vhost_user.h"

#define MEMORY		(1 << 20)
#define QUEUES		2
#define SIZE		16
#define RING		0x1000	/* of each queue: descriptors, and behind these the two areas */
#define STRIDE		(16 << 20)
#define SOURCES		64
#define STEPS		400

static struct memory memory;
static struct vhost_isolation *gate;
static struct vhost_user user;
static struct loop loop;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dev_vring rings[QUEUES];
static struct loop_source *sources[SOURCES];
static unsigned int source_count;
static uint8_t *shared;
static size_t shared_size;
static bool dropped;

/* In the place of the loop and the connection */

int loop_add_edge(struct loop *l, struct loop_source *source)
{
	(void)l;
	for (unsigned int i = 0; i < source_count; i++)
		if (sources[i] == source)
			return 0;
	if (source_count < SOURCES)
		sources[source_count++] = source;
	return 0;
}

void loop_remove(struct loop *l, struct loop_source *source)
{
	(void)l;
	(void)source;
}

int vhost_user_set_features(struct vhost_user *u, uint64_t features)
{
	(void)u;
	(void)features;
	return 0;
}

int vhost_user_set_memory(struct vhost_user *u, const struct vhost_user_map *map, unsigned int count)
{
	(void)u;
	(void)count;
	if (shared)
		munmap(shared, shared_size);
	shared_size = map[0].size;
	shared = mmap(NULL, shared_size, PROT_READ | PROT_WRITE, MAP_SHARED, map[0].fd, 0);
	return 0;
}

int vhost_user_set_vring(struct vhost_user *u, unsigned int index, const struct vhost_user_vring *vring)
{
	(void)u;
	(void)index;
	(void)vring;
	return 0;
}

int vhost_user_enable_vring(struct vhost_user *u, unsigned int index, bool enable)
{
	(void)u;
	(void)index;
	(void)enable;
	return 0;
}

int vhost_user_sync(struct vhost_user *u)
{
	(void)u;
	return 0;
}

int vhost_user_stop_vring(struct vhost_user *u, unsigned int index, uint16_t *ret_base)
{
	(void)u;
	(void)index;
	*ret_base = 0;
	return 0;
}

void log_error(const char *format, ...)
{
	(void)format;
}

static void lose(void *owner)
{
	(void)owner;
	gate->ops->lost(gate);
	gate->ops->blame(gate);
	dropped = true;
}

/* The input */

static const uint8_t *input, *input_end;

static uint8_t next8(void)
{
	return input < input_end ? *input++ : 0;
}

static uint16_t next16(void)
{
	uint16_t high = next8();

	return high << 8 | next8();
}

/* The two sides */

static struct vring_desc *desc(unsigned int queue)
{
	return memory_at(&memory, rings[queue].desc, 16 * SIZE);
}

static void push_available(unsigned int queue, uint16_t head)
{
	struct vring_avail *avail = memory_at(&memory, rings[queue].avail, 6 + 2 * SIZE);

	avail->ring[avail->idx % SIZE] = head;
	avail->idx++;
}

static void write_desc(unsigned int queue)
{
	struct vring_desc *d = &desc(queue)[next8() % SIZE];

	*d = (struct vring_desc){
		.addr = next16() * 64, .len = next16(), .flags = next8() & 7, .next = next8() & 31,
	};
}

/* A request as a disk's driver makes it. */
static void write_request(unsigned int queue)
{
	struct vring_desc *d = desc(queue);
	unsigned int head = next8() % (SIZE - 2);

	d[head] = (struct vring_desc){ 0x10000, 16, VRING_DESC_F_NEXT, head + 1 };
	d[head + 1] = (struct vring_desc){
		0x20000 + next8() * 32, next16(), VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, head + 2,
	};
	d[head + 2] = (struct vring_desc){ 0x10100, 1, VRING_DESC_F_WRITE, 0 };
	push_available(queue, head);
}

static void give_back(unsigned int queue)
{
	struct vring_used *used = (struct vring_used *)(shared + queue * STRIDE + SHADOW_USED);

	used->ring[used->idx % SHADOW_SIZE].id = next8();
	used->ring[used->idx % SHADOW_SIZE].len = next16();
	used->idx++;
}

static void serve(void)
{
	dropped = gate->ops->serve(gate, &user);
	if (dropped)
		gate->ops->lost(gate);
}

static void start(uint8_t features)
{
	gate->ops->start(gate, 1ULL << 32 | (uint64_t)(features & 3) << 28, rings);
	user.features = 1ULL << 32 | (uint64_t)(features >> 2 & 3) << 28;
	serve();
}

static void fire(void)
{
	struct loop_source *source = sources[next8() % source_count];

	if (source->fd >= 0)
		source->ready(source);
}

static void step(void)
{
	uint8_t what = next8();
	unsigned int queue = what >> 7;

	switch (what & 15) {
	case 0:
		write_desc(queue);
		break;
	case 1:
		push_available(queue, next8() % (SIZE + 1));
		break;
	case 2:
		((uint16_t *)memory_at(&memory, 0, 1))[next16() % (2 * RING)] = next16();
		break;
	case 3:
		if (!dropped)
			shared[queue * STRIDE + next16() % (SHADOW_TABLES + 8192)] = next8();
		break;
	case 4:
	case 5:
		if (!dropped)
			give_back(queue);
		break;
	case 6:
		gate->ops->lost(gate);
		if (what & 16)
			gate->ops->blame(gate);
		serve();
		break;
	case 7:
		gate->ops->stop(gate, &user);
		start(what >> 4);
		break;
	case 8:
	case 9:
		write_request(queue);
		break;
	default:
		fire();
		if (dropped)
			serve();
	}
}

static void set_up(void)
{
	memory_init(&memory, MEMORY);
	for (unsigned int i = 0; i < QUEUES; i++)
		rings[i] = (struct dev_vring){
			.size = SIZE, .desc = RING * (i + 1), .avail = RING * (i + 1) + 0x400,
			.used = RING * (i + 1) + 0x800,
			.kick = eventfd(0, EFD_NONBLOCK), .call = eventfd(0, EFD_NONBLOCK),
			.err = eventfd(0, EFD_NONBLOCK),
		};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhost_isolation setup = {
		.ops = &vhost_gate, .name = "fuzz", .memory = &memory, .vm = -1, .loop = &loop,
		.lock = &lock, .lose = lose, .count = QUEUES,
	};

	if (!memory.map.count)
		set_up();
	memset(memory_at(&memory, 0, 1), 0, 4 * RING);
	input = data;
	input_end = data + size;
	source_count = 0;
	setup.failure = next8() % 3;
	user = (struct vhost_user){ .socket = 0 };
	if (vhost_gate.create(&setup, NULL, &gate))
		abort();
	start(next8());
	for (unsigned int i = 0; i < STEPS && input < input_end; i++)
		step();
	gate->ops->stop(gate, &user);
	gate->ops->destroy(gate);
	return 0;
}
