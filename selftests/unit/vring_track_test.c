// SPDX-License-Identifier: MIT OR GPL-2.0
/* The account of requests in flight, against a driver and a device that work in random order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/unit.h"
#include "userspace/vmm/vring_track.h"

#define SIZE	16

static struct {
	uint16_t flags, idx, ring[SIZE + 1];
} avail;

static struct {
	uint16_t flags, idx;
	struct vring_used_elem ring[SIZE];
} used;

static struct vring_track track;
static bool in_flight[SIZE];

static void begin(uint16_t base)
{
	memset(&avail, 0, sizeof(avail));
	memset(&used, 0, sizeof(used));
	memset(in_flight, 0, sizeof(in_flight));
	avail.idx = base;
	used.idx = base;
	vring_track_init(&track, (struct vring_avail *)&avail, (struct vring_used *)&used, SIZE,
			 base);
}

static void add(unsigned int head)
{
	in_flight[head] = true;
	avail.ring[avail.idx++ % SIZE] = head;
}

static void complete(unsigned int head)
{
	in_flight[head] = false;
	used.ring[used.idx++ % SIZE].id = head;
}

/* What the successor finds between the indices is what is in flight, each once. */
static void check_repeat(void)
{
	bool found[SIZE] = { false };
	uint16_t base = 0;

	if (!EXPECT(!vring_track_repeat(&track, &base)))
		return;
	EXPECT(base == used.idx);
	for (; base != avail.idx && !unit_failed; base++) {
		EXPECT(!found[avail.ring[base % SIZE]]);
		found[avail.ring[base % SIZE]] = true;
	}
	EXPECT(!memcmp(found, in_flight, sizeof(found)));
}

static void test_order(void)
{
	begin(0);
	check_repeat();
	for (unsigned int i = 0; i < 4; i++)
		add(i);
	complete(1);
	check_repeat();
	EXPECT(avail.ring[1] == 0 && avail.ring[2] == 2 && avail.ring[3] == 3);
	complete(3);
	check_repeat();
	EXPECT(avail.ring[2] == 0 && avail.ring[3] == 2);
}

/* One request stays while the rings go round many times. */
static void test_long(void)
{
	begin(65530);
	add(5);
	for (unsigned int i = 0; i < 1000; i++) {
		add(6 + i % 4);
		complete(6 + i % 4);
		vring_track_update(&track);
	}
	add(3);
	check_repeat();
	EXPECT(avail.ring[used.idx % SIZE] == 5);
}

static unsigned int random_of(const bool *set)
{
	unsigned int head = rand() % SIZE;

	while (!set[head])
		head = (head + 1) % SIZE;
	return head;
}

/* A driver that gets a head back for use when it is interrupted, before which is the account. */
static void test_random(void)
{
	bool unused[SIZE];
	unsigned int left = SIZE;

	srand(1);
	begin(40000);
	memset(unused, true, sizeof(unused));
	for (unsigned int i = 0; i < 200000; i++) {
		unsigned int flying = (uint16_t)(avail.idx - used.idx);

		if (left && (!flying || rand() % 2)) {
			unsigned int head = random_of(unused);

			unused[head] = false;
			left--;
			add(head);
		} else if (flying) {
			complete(random_of(in_flight));
		}
		if (!(rand() % 64) || (!left && used.idx == avail.idx)) {
			vring_track_update(&track);
			for (unsigned int head = 0; head < SIZE; head++)
				unused[head] = !in_flight[head];
			left = SIZE - (uint16_t)(avail.idx - used.idx);
		}
		if (!(rand() % 16))
			check_repeat();
	}
}

static void test_lost(void)
{
	uint16_t base;

	begin(0);
	add(0);
	for (unsigned int i = 0; i < SIZE; i++) {
		add(1);
		complete(1);
	}
	EXPECT(vring_track_repeat(&track, &base) == -EPROTO);
	add(2);
	complete(2);
	EXPECT(vring_track_repeat(&track, &base) == -EPROTO);
	complete(0);
	vring_track_update(&track);
	add(7);
	check_repeat();
}

/* What either side writes there may be anything. */
static void test_hostile(void)
{
	uint16_t base;

	srand(2);
	for (unsigned int i = 0; i < 20000; i++) {
		if (!(i % 16))
			begin(rand());
		for (unsigned int j = 0; j < sizeof(avail); j++)
			if (!(rand() % 8))
				((uint8_t *)&avail)[j] = rand();
		for (unsigned int j = 0; j < sizeof(used); j++)
			if (!(rand() % 8))
				((uint8_t *)&used)[j] = rand();
		avail.idx = used.idx + rand() % (SIZE + 2);
		vring_track_repeat(&track, &base);
	}
	begin(0);
	add(1);
	avail.ring[0] = SIZE;
	EXPECT(vring_track_repeat(&track, &base) == -EPROTO);
	begin(0);
	add(1);
	add(1);
	EXPECT(vring_track_repeat(&track, &base) == -EPROTO);
	begin(0);
	add(1);
	add(2);
	complete(3);
	EXPECT(vring_track_repeat(&track, &base) == -EPROTO);
}

static const struct unit_test tests[] = {
	{ "what is in flight is repeated, in its order", test_order },
	{ "a request that the rings no longer show", test_long },
	{ "random orders", test_random },
	{ "more happened than the rings show: that is known, until nothing is in flight", test_lost },
	{ "rings of nonsense", test_hostile },
};

int main(void)
{
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
