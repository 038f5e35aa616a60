// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Chains of a split ring that are given back together, and what a kill in the middle of that leaves.
 * Those of a packed one are in virtq_packed_test.c.
 */
#include <errno.h>

#include "devmodel/virtq_inflight.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/virtq_ring.h"
#include "userspace/lib/array.h"

#define SIZE	8
#define TAKEN	5

static struct dev_vring ring;
static struct virtq vq;
static struct virtq_chain chain;
static union {
	struct virtq_inflight_split record;
	uint8_t bytes[sizeof(struct virtq_inflight_split) +
		      SIZE * sizeof(struct virtq_inflight_split_desc)];
} inflight;

static void post(uint16_t head)
{
	struct vring_desc *desc = ring_at(RING_DESC);
	struct vring_avail *avail = ring_at(RING_AVAIL);

	desc[head] = (struct vring_desc){ RING_DATA, 16, VRING_DESC_F_WRITE, 0 };
	avail->ring[avail->idx % SIZE] = head;
	avail->idx++;
}

/* A ring of which heads TAKEN - 1 down to 0 were taken, at an index shortly before it wraps. */
static void begin(void)
{
	memset(&inflight, 0, sizeof(inflight));
	ring = ring_set_up(SIZE);
	ring.inflight = &inflight.record;
	ring.next_avail = 0xfffd;
	((struct vring_avail *)ring_at(RING_AVAIL))->idx = 0xfffd;
	((struct vring_used *)ring_at(RING_USED))->idx = 0xfffd;
	EXPECT(!virtq_init(&vq, &ring_memory, &ring, 0));
	for (int head = TAKEN - 1; head >= 0; head--)
		post(head);
	for (int head = TAKEN - 1; head >= 0; head--)
		EXPECT(virtq_pop(&vq, &chain) == 1 && chain.head == head);
}

static void end(void)
{
	ring_tear_down(&ring);
}

static void push(uint16_t first, unsigned int count)
{
	struct virtq_used used[SIZE];

	for (unsigned int i = 0; i < count; i++)
		used[i] = (struct virtq_used){ first - i, 100 + first - i };
	virtq_push_batch(&vq, used, count);
}

/* What a process after this one takes first. */
static bool next_takes(const uint16_t *heads, unsigned int count)
{
	if (virtq_init(&vq, &ring_memory, &ring, 0))
		return false;
	for (unsigned int i = 0; i < count; i++)
		if (virtq_pop(&vq, &chain) != 1 || chain.head != heads[i])
			return false;
	return virtq_pop(&vq, &chain) == 0;
}

static void test_together(void)
{
	const struct vring_used *used;

	begin();
	used = ring_at(RING_USED);
	push(4, 1);
	EXPECT(used->idx == 0xfffe);
	push(3, 4);
	EXPECT(used->idx == 2);
	for (unsigned int i = 0; i < TAKEN; i++) {
		EXPECT(used->ring[(0xfffd + i) % SIZE].id == 4 - i);
		EXPECT(used->ring[(0xfffd + i) % SIZE].len == 104 - i);
	}
	for (unsigned int i = 0; i < SIZE; i++)
		EXPECT(!inflight.record.desc[i].inflight);
	EXPECT(inflight.record.used_idx == 2);
	end();
}

static void test_rest_outlives(void)
{
	begin();
	push(4, 2);
	EXPECT(next_takes((const uint16_t[]){ 2, 1, 0 }, 3));
	end();
}

/* Killed after the index moved: with none, some or all of the marks taken away. */
static void test_killed_between(void)
{
	for (unsigned int cleared = 0; cleared <= 3; cleared++) {
		begin();
		push(4, 3);
		inflight.record.used_idx = 0xfffd;
		for (unsigned int i = cleared; i < 3; i++)
			inflight.record.desc[4 - i].inflight = 1;
		EXPECT(next_takes((const uint16_t[]){ 1, 0 }, 2));
		EXPECT(inflight.record.used_idx == 0);
		end();
	}
}

/* Killed before the index moved: nothing was given back. */
static void test_killed_before(void)
{
	begin();
	inflight.record.desc[3].next = 4;
	inflight.record.last_batch_head = 3;
	EXPECT(next_takes((const uint16_t[]){ 4, 3, 2, 1, 0 }, 5));
	end();
}

/* After a batch of virtq_push(), which links nothing. */
static void test_beside_single(void)
{
	begin();
	virtq_push_head(&vq, 4, 0);
	virtq_push_head(&vq, 3, 0);
	inflight.record.used_idx = 0xfffe;
	inflight.record.desc[3].inflight = 1;
	EXPECT(next_takes((const uint16_t[]){ 2, 1, 0 }, 3));
	end();
}

/* Whatever the record says, it is heads of this ring that are taken. */
static void test_spoilt(void)
{
	srand(1);
	for (unsigned int i = 0; i < 20000; i++) {
		begin();
		for (unsigned int j = 0; j < sizeof(inflight.bytes); j++)
			inflight.bytes[j] = rand() % 3 ? rand() % SIZE : rand();
		inflight.record.version = VIRTQ_INFLIGHT_VERSION;
		EXPECT(!virtq_init(&vq, &ring_memory, &ring, 0));
		for (unsigned int j = 0; j < 2 * SIZE && virtq_pop(&vq, &chain) > 0; j++)
			EXPECT(chain.head < SIZE && ring_holds(chain.writable, chain.writable_count));
		end();
	}
}

static const struct unit_test tests[] = {
	{ "a batch is seen whole", test_together },
	{ "what is not given back outlives the process", test_rest_outlives },
	{ "killed while giving back, once is enough", test_killed_between },
	{ "killed before giving back, all is taken again", test_killed_before },
	{ "batches of one", test_beside_single },
	{ "a spoilt record", test_spoilt },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
