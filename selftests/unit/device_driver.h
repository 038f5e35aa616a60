/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A driver for tests of devices: its rings, split or packed, in the test's memory; its one device. */
#ifndef MOAT_DEVICE_DRIVER_H
#define MOAT_DEVICE_DRIVER_H

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "devmodel/virtq.h"
#include "selftests/unit/unit.h"

#define MEMORY_SIZE	0x100000
#define QUEUE_STRIDE	0x10000
#define QUEUES		8
#define SIZE		16
#define AREA_AVAIL	0x1000
#define AREA_USED	0x2000
#define AREA_PACKED	0x3000
#define AREA_DATA	0x4000
#define TIMEOUT_MS	5000
#define QUIET_MS	100

/* Whether rings are packed is not for each test to say. */
#define RING_FEATURES	(VIRTQ_FEATURES & ~(1ULL << VIRTIO_F_RING_PACKED))

static struct dev_memory memory = { .count = 1 };
static struct dev_vring ring[QUEUES];
static struct device *device;
static uint16_t used_seen[QUEUES];

/* Of packed rings: where the driver goes on, and of how many descriptors each chain is. */
static bool packed;
static struct {
	unsigned int put;
	unsigned int seen;
	bool put_wrap;
	bool seen_wrap;
	unsigned int count[SIZE + 1];
} driver[QUEUES];

static inline void *at(unsigned int queue, unsigned int offset)
{
	return (char *)memory.region[0].hva + queue * QUEUE_STRIDE + offset;
}

static inline void start(uint64_t features)
{
	memset(memory.region[0].hva, 0, MEMORY_SIZE);
	for (unsigned int i = 0; i < QUEUES; i++) {
		uint64_t base = i * QUEUE_STRIDE;

		ring[i].size = SIZE;
		ring[i].desc = packed ? base + AREA_PACKED : base;
		ring[i].next_avail = packed ? DEV_PACKED_START : 0;
		ring[i].next_used = ring[i].next_avail;
		ring[i].avail = base + AREA_AVAIL;
		ring[i].used = base + AREA_USED;
		used_seen[i] = 0;
		driver[i].put = driver[i].seen = 0;
		driver[i].put_wrap = driver[i].seen_wrap = true;
	}
	features |= (uint64_t)packed << VIRTIO_F_RING_PACKED;
	EXPECT(!device->ops->start(device, &memory, features, ring));
}

/* The same, of rings that go on where they are, with nothing in flight. */
static inline void start_again(uint64_t features)
{
	for (unsigned int i = 0; i < QUEUES; i++) {
		ring[i].next_avail = packed ? driver[i].put | driver[i].put_wrap << 15 :
					      used_seen[i];
		ring[i].next_used = driver[i].seen | driver[i].seen_wrap << 15;
	}
	features |= (uint64_t)packed << VIRTIO_F_RING_PACKED;
	EXPECT(!device->ops->start(device, &memory, features, ring));
}

static inline void stop(void)
{
	device->ops->stop(device);
}

static inline void begin(void)
{
	memory.region[0].size = MEMORY_SIZE;
	memory.region[0].hva = malloc(MEMORY_SIZE);
	for (unsigned int i = 0; i < QUEUES; i++) {
		ring[i].kick = eventfd(0, EFD_NONBLOCK);
		ring[i].call = eventfd(0, EFD_NONBLOCK);
		ring[i].err = eventfd(0, EFD_NONBLOCK);
	}
}

static inline void end(void)
{
	device->ops->destroy(device);
	for (unsigned int i = 0; i < QUEUES; i++) {
		close(ring[i].kick);
		close(ring[i].call);
		close(ring[i].err);
	}
	free(memory.region[0].hva);
}

/* Puts @desc at @index, and makes @head available where it is the chain's last. */
static inline void put(unsigned int queue, uint16_t index, uint32_t offset, uint32_t len,
		       uint16_t flags)
{
	struct vring_desc *desc = at(queue, index * sizeof(*desc));

	*desc = (struct vring_desc){
		.addr = queue * QUEUE_STRIDE + offset, .len = len, .flags = flags,
		.next = index + 1,
	};
}

static inline void offer_split(unsigned int queue, uint16_t head)
{
	struct vring_avail *avail = at(queue, AREA_AVAIL);

	avail->ring[avail->idx % SIZE] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_SEQ_CST);
}

/* What the table of a split ring has from @head on goes into the packed one, by that id. */
static inline void offer_packed(unsigned int queue, uint16_t head)
{
	const struct vring_desc *from = at(queue, head * sizeof(*from));
	struct vring_packed_desc *to, *first = NULL;
	uint16_t first_flags = 0, flags;

	driver[queue].count[head] = 0;
	do {
		to = (struct vring_packed_desc *)at(queue, AREA_PACKED) + driver[queue].put;
		flags = from->flags | (driver[queue].put_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
								1 << VRING_PACKED_DESC_F_USED);
		*to = (struct vring_packed_desc){
			from->addr, from->len, head, first ? flags : to->flags,
		};
		first_flags = first ? first_flags : flags;
		first = first ? first : to;
		driver[queue].count[head]++;
		driver[queue].put_wrap ^= driver[queue].put + 1 == SIZE;
		driver[queue].put = (driver[queue].put + 1) % SIZE;
	} while (from++->flags & VRING_DESC_F_NEXT);
	__atomic_store_n(&first->flags, first_flags, __ATOMIC_SEQ_CST);
}

static inline void kick(unsigned int queue, uint16_t head)
{
	if (packed)
		offer_packed(queue, head);
	else
		offer_split(queue, head);
	eventfd_write(ring[queue].kick, 1);
}

/* Has the driver something to see? Until then it asks for an interrupt when it has. */
static inline bool sees_split(unsigned int queue)
{
	struct vring_avail *avail = at(queue, AREA_AVAIL);
	struct vring_used *used = at(queue, AREA_USED);

	__atomic_store_n(&avail->ring[SIZE], used_seen[queue], __ATOMIC_SEQ_CST);
	return __atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) != used_seen[queue];
}

static inline struct vring_packed_desc *packed_seen(unsigned int queue)
{
	return (struct vring_packed_desc *)at(queue, AREA_PACKED) + driver[queue].seen;
}

static inline bool sees_packed(unsigned int queue)
{
	const uint16_t both = 1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED;
	struct vring_packed_desc_event *event = at(queue, AREA_AVAIL);
	uint16_t flags;

	__atomic_store_n(&event->off_wrap, driver[queue].seen | driver[queue].seen_wrap << 15,
			 __ATOMIC_SEQ_CST);
	__atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_SEQ_CST);
	flags = __atomic_load_n(&packed_seen(queue)->flags, __ATOMIC_SEQ_CST);
	return (flags & both) == (driver[queue].seen_wrap ? both : 0);
}

static inline uint32_t take_packed(unsigned int queue)
{
	const struct vring_packed_desc *desc = packed_seen(queue);

	driver[queue].seen += driver[queue].count[desc->id];
	driver[queue].seen_wrap ^= driver[queue].seen >= SIZE;
	driver[queue].seen %= SIZE;
	return desc->len;
}

static inline uint32_t take_split(unsigned int queue)
{
	const struct vring_used *used = at(queue, AREA_USED);

	return used->ring[used_seen[queue]++ % SIZE].len;
}

/* Waits for a completion, whose length is returned; -1 where none comes. */
static inline int64_t complete(unsigned int queue, int timeout)
{
	struct pollfd wait = { .fd = ring[queue].call, .events = POLLIN };
	eventfd_t count;

	while (!(packed ? sees_packed(queue) : sees_split(queue))) {
		if (poll(&wait, 1, timeout) <= 0)
			return -1;
		eventfd_read(ring[queue].call, &count);
	}
	return packed ? take_packed(queue) : take_split(queue);
}

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

#endif
