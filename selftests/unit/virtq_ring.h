/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Guest memory with a ring in it, for tests of the queue code: three regions, of which the first
 * two touch, each an allocation of its own, so that the address sanitizer sees a byte too far.
 */
#ifndef MOAT_VIRTQ_RING_H
#define MOAT_VIRTQ_RING_H

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/virtq.h"

#define RING_REGION_SIZE	0x4000
#define RING_TOUCHING		0x14000	/* where the second region begins, and the first ends */
#define RING_APART		0x80000000
#define RING_DESC		0x10000
#define RING_AVAIL		0x11000
#define RING_USED		0x12000
#define RING_DATA		0x13000

static struct dev_memory ring_memory = {
	.count = 3,
	.region = {
		{ .gpa = RING_DESC, .size = RING_REGION_SIZE },
		{ .gpa = RING_TOUCHING, .size = RING_REGION_SIZE },
		{ .gpa = RING_APART, .size = RING_REGION_SIZE },
	},
};

static struct dev_vring ring_set_up(uint16_t size)
{
	for (unsigned int i = 0; i < ring_memory.count; i++)
		ring_memory.region[i].hva = calloc(1, RING_REGION_SIZE);
	return (struct dev_vring){
		.size = size, .desc = RING_DESC, .avail = RING_AVAIL, .used = RING_USED,
		.kick = -1, .call = eventfd(0, EFD_NONBLOCK), .err = eventfd(0, EFD_NONBLOCK),
	};
}

static void ring_tear_down(const struct dev_vring *ring)
{
	for (unsigned int i = 0; i < ring_memory.count; i++)
		free(ring_memory.region[i].hva);
	close(ring->call);
	close(ring->err);
}

/* NULL for what is no memory. */
static void *ring_at(uint64_t gpa)
{
	for (unsigned int i = 0; i < ring_memory.count; i++) {
		uint64_t offset = gpa - ring_memory.region[i].gpa;

		if (offset < RING_REGION_SIZE)
			return (char *)ring_memory.region[i].hva + offset;
	}
	return NULL;
}

/* Is each piece of a part whole in one region, and not empty? */
static bool ring_holds(const struct iovec *iov, unsigned int count)
{
	for (; count; count--, iov++) {
		bool inside = false;

		for (unsigned int i = 0; i < ring_memory.count; i++) {
			size_t offset = (char *)iov->iov_base - (char *)ring_memory.region[i].hva;

			inside |= offset < RING_REGION_SIZE &&
				  iov->iov_len <= RING_REGION_SIZE - offset;
		}
		if (!inside || !iov->iov_len)
			return false;
	}
	return true;
}

#endif
