/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A driver for tests of devices: its rings, in memory of the test, and its one device. */
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
#define AREA_DATA	0x4000
#define TIMEOUT_MS	5000
#define QUIET_MS	100

static struct dev_memory memory = { .count = 1 };
static struct dev_vring ring[QUEUES];
static struct device *device;
static uint16_t used_seen[QUEUES];

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
		ring[i].desc = base;
		ring[i].avail = base + AREA_AVAIL;
		ring[i].used = base + AREA_USED;
		used_seen[i] = 0;
	}
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

static inline void kick(unsigned int queue, uint16_t head)
{
	struct vring_avail *avail = at(queue, AREA_AVAIL);

	avail->ring[avail->idx % SIZE] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_SEQ_CST);
	eventfd_write(ring[queue].kick, 1);
}

/* Waits for a completion, whose length is returned; -1 where none comes. */
static inline int64_t complete(unsigned int queue, int timeout)
{
	struct vring_avail *avail = at(queue, AREA_AVAIL);
	struct vring_used *used = at(queue, AREA_USED);
	struct pollfd wait = { .fd = ring[queue].call, .events = POLLIN };
	eventfd_t count;

	__atomic_store_n(&avail->ring[SIZE], used_seen[queue], __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) == used_seen[queue]) {
		if (poll(&wait, 1, timeout) <= 0)
			return -1;
		eventfd_read(ring[queue].call, &count);
	}
	return used->ring[used_seen[queue]++ % SIZE].len;
}

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

#endif
