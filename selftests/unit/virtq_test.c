// SPDX-License-Identifier: MIT OR GPL-2.0
/* Split rings, and drivers that keep the rules, that break each of them, that are random. */
#include <errno.h>

#include "devmodel/virtq_inflight.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/virtq_ring.h"

#define SIZE		8
#define FUZZ_ROUNDS	200000
#define SPLIT_FEATURES	(VIRTQ_FEATURES & ~(1ULL << VIRTIO_F_RING_PACKED))

static struct dev_vring ring;
static struct virtq vq;
static struct virtq_chain chain;

static void begin(uint64_t features)
{
	ring = ring_set_up(SIZE);
	EXPECT(virtq_init(&vq, &ring_memory, &ring, features) == 0);
}

static void end(void)
{
	ring_tear_down(&ring);
}

/* Byte by byte, since a table may straddle regions. */
static void put_desc(uint64_t table, unsigned int index, struct vring_desc desc)
{
	for (unsigned int i = 0; i < sizeof(desc); i++)
		*(char *)ring_at(table + index * sizeof(desc) + i) = ((char *)&desc)[i];
}

static void put_avail(uint16_t head)
{
	struct vring_avail *avail = ring_at(RING_AVAIL);

	avail->ring[avail->idx % SIZE] = head;
	avail->idx++;
}

static void expect_broken(void)
{
	eventfd_t count = 0;

	EXPECT(virtq_pop(&vq, &chain) == -EPROTO);
	EXPECT(!eventfd_read(ring.err, &count) && count == 1);
	EXPECT(virtq_pop(&vq, &chain) == -EPROTO);
	EXPECT(eventfd_read(ring.err, &count) < 0);	/* said once */
	EXPECT(!virtq_kick_enable(&vq));
}

/* One descriptor, or two with the second at index 1, that must break the queue. */
static void refuse(uint64_t features, struct vring_desc first, struct vring_desc second)
{
	begin(features);
	put_desc(RING_DESC, 0, first);
	put_desc(RING_DESC, 1, second);
	put_avail(0);
	expect_broken();
	end();
}

static void test_plain(void)
{
	struct vring_used *used;
	char buf[32] = "";

	begin(0);
	EXPECT(virtq_pop(&vq, &chain) == 0);
	strcpy(ring_at(RING_DATA), "hello, ");
	strcpy(ring_at(RING_APART), "device");
	put_desc(RING_DESC, 3, (struct vring_desc){ RING_DATA, 7, VRING_DESC_F_NEXT, 5 });
	put_desc(RING_DESC, 5, (struct vring_desc){ RING_APART, 6, VRING_DESC_F_NEXT, 1 });
	put_desc(RING_DESC, 1, (struct vring_desc){ RING_DATA + 64, 4, VRING_DESC_F_WRITE, 0 });
	put_avail(3);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	EXPECT(chain.readable_count == 2 && chain.writable_count == 1 && chain.bytes == 17);
	EXPECT(iov_bytes(chain.readable, chain.readable_count) == 13);
	EXPECT(chain_read(&chain, buf, 3) == 3 && !strcmp(buf, "hel"));
	EXPECT(chain_read(&chain, buf + 3, 20) == 10 && !strcmp(buf, "hello, device"));
	EXPECT(chain_read(&chain, buf, 1) == 0);
	EXPECT(chain_take_last(&chain) == (uint8_t *)ring_at(RING_DATA + 67));
	EXPECT(chain_write(&chain, "abcdef", 6) == 3);
	EXPECT(!memcmp(ring_at(RING_DATA + 64), "abc\0", 4));
	EXPECT(!chain_take_last(&chain));
	virtq_push(&vq, &chain, 4);
	used = ring_at(RING_USED);
	EXPECT(used->idx == 1 && used->ring[0].id == 3 && used->ring[0].len == 4);
	EXPECT(virtq_pop(&vq, &chain) == 0);
	end();
}

static void test_indices_wrap(void)
{
	struct vring_avail *avail;
	struct vring_used *used;

	ring = ring_set_up(SIZE);
	avail = ring_at(RING_AVAIL);
	used = ring_at(RING_USED);
	ring.next_avail = 0xfffa;
	avail->idx = 0xfffa;
	used->idx = 0xfffa;
	EXPECT(virtq_init(&vq, &ring_memory, &ring, 0) == 0);
	put_desc(RING_DESC, 0, (struct vring_desc){ RING_DATA, 1, 0, 0 });
	for (int i = 0; i < 100; i++) {
		put_avail(0);
		EXPECT(virtq_pop(&vq, &chain) == 1);
		virtq_push(&vq, &chain, 0);
	}
	EXPECT(virtq_pop(&vq, &chain) == 0);
	EXPECT(used->idx == (uint16_t)(0xfffa + 100));
	end();
}

static void test_straddling(void)
{
	char buf[16];

	begin(0);
	memset(ring_at(RING_TOUCHING - 4), 'a', 4);
	memset(ring_at(RING_TOUCHING), 'b', 8);
	put_desc(RING_DESC, 0, (struct vring_desc){ RING_TOUCHING - 4, 12, 0, 0 });
	put_avail(0);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	EXPECT(chain.readable_count == 2 && ring_holds(chain.readable, chain.readable_count));
	EXPECT(chain_read(&chain, buf, sizeof(buf)) == 12 && !memcmp(buf, "aaaabbbbbbbb", 12));
	end();
}

static void test_zero_length(void)
{
	begin(0);
	put_desc(RING_DESC, 0, (struct vring_desc){ 0, 0, VRING_DESC_F_NEXT, 1 });
	put_desc(RING_DESC, 1, (struct vring_desc){ RING_DATA, 5, VRING_DESC_F_WRITE, 0 });
	put_avail(0);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	EXPECT(!chain.readable_count && chain.writable_count == 1 && chain.bytes == 5);
	end();
}

static void test_indirect(void)
{
	const uint64_t table = RING_TOUCHING - 24;	/* an entry of it straddles */

	begin(1ULL << VIRTIO_RING_F_INDIRECT_DESC);
	put_desc(RING_DESC, 0, (struct vring_desc){ RING_DATA, 1, VRING_DESC_F_NEXT, 2 });
	put_desc(RING_DESC, 2, (struct vring_desc){ table, 48,
		 VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0 });
	put_desc(table, 0, (struct vring_desc){ RING_DATA, 2, VRING_DESC_F_NEXT, 1 });
	put_desc(table, 1, (struct vring_desc){ RING_DATA, 3,
		 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2 });
	put_desc(table, 2, (struct vring_desc){ RING_DATA, 4, VRING_DESC_F_WRITE, 0 });
	put_avail(0);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	EXPECT(chain.readable_count == 2 && chain.writable_count == 2 && chain.bytes == 10);
	end();
}

static void test_refuses_loops(void)
{
	struct vring_desc self = { RING_DATA, 1, VRING_DESC_F_NEXT, 0 };
	struct vring_desc other = { RING_DATA, 1, VRING_DESC_F_NEXT, 1 };

	refuse(0, self, self);
	refuse(0, other, self);
	self.len = 0;
	refuse(0, self, self);
}

static void test_refuses_addresses(void)
{
	static const struct { uint64_t gpa; uint32_t len; } bad[] = {
		{ 0, 1 }, { RING_DESC - 1, 1 }, { RING_DESC - 1, 2 },
		{ RING_TOUCHING + RING_REGION_SIZE, 1 }, { RING_TOUCHING, RING_REGION_SIZE + 1 },
		{ RING_APART, 0xffffffff }, { RING_APART + RING_REGION_SIZE - 1, 2 },
		{ UINT64_MAX, 1 }, { UINT64_MAX - 3, 8 }, { UINT64_MAX - 0xff, 0xffffffff },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vring_desc desc = { bad[i].gpa, bad[i].len, 0, 0 };

		refuse(0, desc, desc);
		desc.flags = VRING_DESC_F_WRITE;
		refuse(0, desc, desc);
	}
}

static void test_refuses_wrapping_length(void)
{
	static struct dev_memory all = { .count = 1 };
	struct vring_desc half = { 0, 0x80000000, VRING_DESC_F_NEXT, 1 };
	struct vring_desc more = { 0, 0x80000000, 0, 0 };

	begin(0);
	all.region[0] = ring_memory.region[0];
	all.region[0].size = 1ULL << 40;	/* as if: the pieces are never touched */
	vq.memory = &all;
	half.addr = RING_DATA;
	more.addr = RING_DATA;
	put_desc(RING_DESC, 0, half);
	put_desc(RING_DESC, 1, more);
	put_avail(0);
	expect_broken();
	end();
}

static void test_refuses_order(void)
{
	refuse(0, (struct vring_desc){ RING_DATA, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1 },
	       (struct vring_desc){ RING_DATA, 1, 0, 0 });
}

static void test_refuses_indices(void)
{
	struct vring_desc past = { RING_DATA, 1, VRING_DESC_F_NEXT, SIZE };
	struct vring_avail *avail;

	refuse(0, past, past);
	past.next = 0xffff;
	refuse(0, past, past);
	begin(0);
	put_avail(SIZE);
	expect_broken();
	end();
	begin(0);
	avail = ring_at(RING_AVAIL);
	avail->idx = SIZE + 1;
	expect_broken();
	end();
	begin(0);
	avail = ring_at(RING_AVAIL);
	avail->idx = 0xffff;
	expect_broken();
	end();
}

static void test_refuses_indirect(void)
{
	const uint64_t on = 1ULL << VIRTIO_RING_F_INDIRECT_DESC;
	struct vring_desc table = { RING_DATA, 16, VRING_DESC_F_INDIRECT, 0 }, bad;

	refuse(0, table, table);			/* not negotiated */
	bad = table;
	bad.flags |= VRING_DESC_F_NEXT;
	refuse(on, bad, table);
	bad = table;
	bad.len = 0;
	refuse(on, bad, table);
	bad.len = 17;
	refuse(on, bad, table);
	bad.len = 16 * (SIZE + 1);
	refuse(on, bad, table);
	bad = table;
	bad.addr = RING_DESC;		/* holds itself */
	refuse(on, bad, table);
	bad = table;
	bad.addr = UINT64_MAX - 7;
	refuse(on, bad, table);
	bad.addr = RING_TOUCHING + RING_REGION_SIZE - 8;
	refuse(on, bad, table);
	bad = table;
	bad.addr = RING_DESC + 16;		/* a chain that leaves the table */
	refuse(on, bad, (struct vring_desc){ RING_DATA, 1, VRING_DESC_F_NEXT, 1 });
}

static void test_refuses_rings(void)
{
	struct dev_vring bad;

	begin(0);
	bad = ring;
	bad.size = 0;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EINVAL);
	bad.size = 6;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EINVAL);
	bad.size = 2 * VIRTQ_SIZE_MAX;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EINVAL);
	bad = ring;
	bad.desc += 8;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	bad = ring;
	bad.avail++;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	bad = ring;
	bad.used += 2;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	bad = ring;
	bad.desc = 0;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	bad = ring;
	bad.used = RING_TOUCHING - 64;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	bad = ring;
	bad.avail = UINT64_MAX - 1;
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 0) == -EFAULT);
	end();
}

static void use_one(void)
{
	put_avail(0);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	virtq_push(&vq, &chain, 0);
}

static void test_notify_flags(void)
{
	struct vring_avail *avail;
	struct vring_used *used;
	eventfd_t count = 0;

	begin(0);
	avail = ring_at(RING_AVAIL);
	used = ring_at(RING_USED);
	put_desc(RING_DESC, 0, (struct vring_desc){ RING_DATA, 1, 0, 0 });
	use_one();
	virtq_notify(&vq);
	EXPECT(!eventfd_read(ring.call, &count) && count == 1);
	avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	use_one();
	virtq_notify(&vq);
	EXPECT(eventfd_read(ring.call, &count) < 0);
	virtq_kick_disable(&vq);
	EXPECT(used->flags == VRING_USED_F_NO_NOTIFY);
	EXPECT(!virtq_kick_enable(&vq) && !used->flags);
	put_avail(0);
	EXPECT(virtq_kick_enable(&vq));
	end();
}

static void test_notify_event_index(void)
{
	struct vring_avail *avail;
	uint16_t *used_event, *avail_event;

	begin(1ULL << VIRTIO_RING_F_EVENT_IDX);
	avail = ring_at(RING_AVAIL);
	used_event = &avail->ring[SIZE];
	avail_event = ring_at(RING_USED + 4 + 8 * SIZE);
	put_desc(RING_DESC, 0, (struct vring_desc){ RING_DATA, 1, 0, 0 });
	use_one();
	EXPECT(virtq_should_notify(&vq));		/* the first time, whatever the event */
	EXPECT(!virtq_should_notify(&vq));		/* nothing new */
	*used_event = 3;
	use_one();
	EXPECT(!virtq_should_notify(&vq));
	use_one();
	EXPECT(!virtq_should_notify(&vq));
	use_one();
	use_one();
	EXPECT(virtq_should_notify(&vq));		/* went past it, not only onto it */
	EXPECT(!virtq_kick_enable(&vq) && *avail_event == 5);
	put_avail(0);
	EXPECT(virtq_kick_enable(&vq));
	virtq_kick_disable(&vq);
	EXPECT(*avail_event == 5);
	end();
}

/* The record of requests in flight. */

static union {
	struct virtq_inflight_split record;
	uint8_t bytes[sizeof(struct virtq_inflight_split) +
		      SIZE * sizeof(struct virtq_inflight_split_desc)];
} inflight;

static void inflight_begin(uint16_t index)
{
	memset(&inflight, 0, sizeof(inflight));
	begin(0);
	ring.inflight = &inflight.record;
	ring.next_avail = index;
	((struct vring_avail *)ring_at(RING_AVAIL))->idx = index;
	((struct vring_used *)ring_at(RING_USED))->idx = index;
	for (unsigned int i = 0; i < SIZE; i++)
		put_desc(RING_DESC, i, (struct vring_desc){ RING_DATA + i, 1, 0, 0 });
	EXPECT(virtq_init(&vq, &ring_memory, &ring, 0) == 0);
}

/* Another process takes over, as the one before it has left things. */
static void inflight_next(void)
{
	EXPECT(virtq_init(&vq, &ring_memory, &ring, 0) == 0);
}

static void expect_head(uint16_t head)
{
	EXPECT(virtq_pop(&vq, &chain) == 1 && chain.head == head);
}

static void inflight_resubmits(uint16_t index)
{
	static const uint16_t order[] = { 5, 2, 7, 0 };

	inflight_begin(index);
	for (unsigned int i = 0; i < 4; i++) {
		put_avail(order[i]);
		expect_head(order[i]);
	}
	virtq_push_head(&vq, 2, 0);
	inflight_next();
	expect_head(5);
	virtq_push_head(&vq, 5, 0);
	inflight_next();
	put_avail(1);
	expect_head(7);
	expect_head(0);
	expect_head(1);
	EXPECT(virtq_pop(&vq, &chain) == 0);
	inflight_next();
	expect_head(7);
	expect_head(0);
	expect_head(1);
	virtq_push_head(&vq, 7, 0);
	virtq_push_head(&vq, 0, 0);
	virtq_push_head(&vq, 1, 0);
	EXPECT(((struct vring_used *)ring_at(RING_USED))->idx == (uint16_t)(index + 5));
	inflight_next();
	EXPECT(virtq_pop(&vq, &chain) == 0 && !virtq_kick_enable(&vq));
	end();
}

static void test_inflight_resubmits(void)
{
	inflight_resubmits(0);
	inflight_resubmits(0xfffe);
}

/* Killed between any two stores of giving back: the request is done once, or done again. */
static void test_inflight_between_stores(void)
{
	struct vring_used *used;

	inflight_begin(0);
	used = ring_at(RING_USED);
	put_avail(3);
	put_avail(4);
	expect_head(3);
	expect_head(4);
	inflight.record.last_batch_head = 3;
	inflight_next();
	expect_head(3);			/* not in the device area yet */
	expect_head(4);
	used->ring[0].id = 3;
	used->idx = 1;
	inflight_next();
	expect_head(4);			/* it was, and was still marked */
	EXPECT(virtq_pop(&vq, &chain) == 0);
	used->idx = 2;
	inflight.record.last_batch_head = 4;
	inflight.record.desc[4].inflight = 0;
	inflight_next();		/* used_idx was the last to be stored */
	EXPECT(virtq_pop(&vq, &chain) == 0 && inflight.record.used_idx == 2);
	end();
}

/* Whatever is in the record, what comes of it is a head of the ring, each at most once. */
static void test_inflight_spoilt(void)
{
	inflight_begin(0);
	for (unsigned int i = 0; i < 10000; i++) {
		unsigned int seen = 0;

		for (unsigned int j = 0; j < sizeof(inflight.bytes); j++)
			inflight.bytes[j] = rand() >> 8;
		inflight_next();
		while (virtq_pop(&vq, &chain) > 0) {
			EXPECT(chain.head < SIZE && !(seen >> chain.head & 1));
			seen |= 1u << chain.head;
		}
	}
	end();
}

static uint64_t fuzz_state = 0x6d6f61742d767131;

static uint32_t fuzz_random(void)
{
	fuzz_state = fuzz_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return fuzz_state >> 33;
}

static uint64_t fuzz_address(void)
{
	static const uint64_t near[] = {
		RING_DESC, RING_DATA, RING_TOUCHING, RING_TOUCHING + RING_REGION_SIZE, RING_APART,
		RING_APART + RING_REGION_SIZE, 0, RING_DESC + 32,
	};

	return near[fuzz_random() % 8] + (int)(fuzz_random() % 65) - 32;
}

/* Mostly legal, so that walks are long. */
static void fuzz_descriptors(uint64_t table)
{
	for (unsigned int i = 0; i < SIZE; i++) {
		struct vring_desc desc = {
			.addr = fuzz_random() % 8 ? RING_DATA + fuzz_random() % 64 : fuzz_address(),
			.len = fuzz_random() % 8 ? fuzz_random() % 48 : fuzz_random(),
			.flags = fuzz_random() % 4 ? fuzz_random() % 2 : fuzz_random() % 8,
			.next = fuzz_random() % 16 ? fuzz_random() % SIZE : fuzz_random(),
		};

		if (desc.flags & VRING_DESC_F_INDIRECT)
			desc.addr = RING_TOUCHING - 40,
			desc.len = 16 * (fuzz_random() % (SIZE + 2));
		put_desc(table, i, desc);
	}
}

static unsigned int fuzz_serve(void)
{
	unsigned int served = 0;

	while (virtq_pop(&vq, &chain) > 0) {
		char buf[100];

		EXPECT(ring_holds(chain.readable, chain.readable_count));
		EXPECT(ring_holds(chain.writable, chain.writable_count));
		EXPECT(chain.bytes == iov_bytes(chain.readable, chain.readable_count) +
				      iov_bytes(chain.writable, chain.writable_count));
		memset(buf, 0x5a, sizeof(buf));
		chain_read(&chain, buf, sizeof(buf));
		virtq_push(&vq, &chain, 0);
		served++;
		if (served > SIZE)
			break;
	}
	return served;
}

static void test_random(void)
{
	unsigned int served = 0, broken = 0;

	begin(SPLIT_FEATURES);
	for (unsigned int i = 0; i < FUZZ_ROUNDS; i++) {
		struct vring_avail *avail = ring_at(RING_AVAIL);

		avail->idx = 0;
		EXPECT(virtq_init(&vq, &ring_memory, &ring,
				  fuzz_random() % 4 ? SPLIT_FEATURES : 0) == 0);
		fuzz_descriptors(RING_DESC);
		fuzz_descriptors(RING_TOUCHING - 40);
		avail->ring[0] = fuzz_random() % 32 ? fuzz_random() % SIZE : fuzz_random();
		avail->idx = fuzz_random() % 32 ? 1 : fuzz_random() % (SIZE + 2);
		served += fuzz_serve();
		broken += vq.broken;
		virtq_notify(&vq);
	}
	/* Both happen often, or the test tests little. */
	EXPECT(served > FUZZ_ROUNDS / 20 && broken > FUZZ_ROUNDS / 20);
	end();
}

static const struct unit_test tests[] = {
	{ "a chain is read, written and given back", test_plain },
	{ "indices wrap", test_indices_wrap },
	{ "a buffer that straddles regions is cut", test_straddling },
	{ "empty descriptors are skipped", test_zero_length },
	{ "indirect tables", test_indirect },
	{ "loops are refused", test_refuses_loops },
	{ "addresses outside memory are refused", test_refuses_addresses },
	{ "chains of 4 GiB and more are refused", test_refuses_wrapping_length },
	{ "readable after writable is refused", test_refuses_order },
	{ "indices past the ring are refused", test_refuses_indices },
	{ "malformed indirect tables are refused", test_refuses_indirect },
	{ "rings outside memory are refused", test_refuses_rings },
	{ "interrupts and kicks by flags", test_notify_flags },
	{ "interrupts and kicks by event index", test_notify_event_index },
	{ "requests in flight outlive a process, in order", test_inflight_resubmits },
	{ "killed while giving back, once is enough", test_inflight_between_stores },
	{ "a spoilt record of requests in flight", test_inflight_spoilt },
	{ "random descriptors", test_random },
};

int main(void)
{
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
