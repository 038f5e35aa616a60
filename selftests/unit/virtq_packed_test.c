// SPDX-License-Identifier: MIT OR GPL-2.0
/* Packed rings, and drivers that keep the rules, that break each of them, that are random. */
#include <errno.h>

#include "devmodel/virtq_inflight.h"
#include "selftests/unit/unit.h"
#include "selftests/unit/virtq_ring.h"

#define SIZE		6	/* no power of two */
#define RANDOM_ROUNDS	200000
#define NEXT		VRING_DESC_F_NEXT
#define WRITE		VRING_DESC_F_WRITE
#define INDIRECT	VRING_DESC_F_INDIRECT
#define INDIRECT_ON	(1ULL << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_ON	(1ULL << VIRTIO_RING_F_EVENT_IDX)

static struct dev_vring ring;
static struct virtq vq;
static struct virtq_chain chain;
static uint16_t resume;

/* Where the driver is: puts descriptors, and looks for used ones. */
static struct {
	unsigned int put;
	unsigned int seen;
	bool put_wrap;
	bool seen_wrap;
} driver;

static struct {
	struct virtq_inflight_packed record;
	struct virtq_inflight_packed_desc desc[SIZE];
} inflight;

static int init(uint64_t features)
{
	return virtq_init(&vq, &ring_memory, &ring, features | 1ULL << VIRTIO_F_RING_PACKED);
}

static void begin_at(uint64_t features, uint16_t index, bool wrap)
{
	ring = ring_set_up(SIZE);
	ring.next_avail = index | wrap << 15;
	ring.next_used = ring.next_avail;
	ring.resume = &resume;
	driver.put = driver.seen = index;
	driver.put_wrap = driver.seen_wrap = wrap;
	EXPECT(init(features) == 0);
}

static void begin(uint64_t features)
{
	begin_at(features, 0, true);
}

static void end(void)
{
	ring_tear_down(&ring);
}

static struct vring_packed_desc *ring_desc(unsigned int index)
{
	return (struct vring_packed_desc *)ring_at(RING_DESC) + index;
}

/* One descriptor at the driver's place. A chain is to be put from its last one to its first. */
static void put_at(unsigned int place, bool wrap, struct vring_packed_desc desc)
{
	desc.flags |= wrap ? 1 << VRING_PACKED_DESC_F_AVAIL : 1 << VRING_PACKED_DESC_F_USED;
	*ring_desc(place) = desc;
}

static void put(uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	put_at(driver.put, driver.put_wrap, (struct vring_packed_desc){ addr, len, id, flags });
	driver.put_wrap ^= driver.put + 1 == SIZE;
	driver.put = (driver.put + 1) % SIZE;
}

/* A chain of @count readable bytes, each by itself. */
static void put_chain(unsigned int count, uint16_t id)
{
	for (unsigned int i = 0; i < count; i++)
		put(RING_DATA + i, 1, id, i + 1 < count ? NEXT : 0);
}

/* What the driver finds where it looks for a used descriptor, of a chain of @count. */
static bool used_is(unsigned int count, uint16_t id, uint32_t len)
{
	const struct vring_packed_desc *desc = ring_desc(driver.seen);
	const uint16_t both = 1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED;

	if ((desc->flags & both) != (driver.seen_wrap ? both : 0) || desc->id != id ||
	    desc->len != len || !(desc->flags & WRITE) != !len)
		return false;
	driver.seen_wrap ^= driver.seen + count >= SIZE;
	driver.seen = (driver.seen + count) % SIZE;
	return true;
}

static bool pops(uint16_t id, unsigned int count)
{
	return virtq_pop(&vq, &chain) == 1 && chain.head == id &&
	       chain.readable_count + chain.writable_count == count;
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

static void refuse(uint64_t features, struct vring_packed_desc first,
		   struct vring_packed_desc second)
{
	begin(features);
	put(first.addr, first.len, first.id, first.flags);
	put(second.addr, second.len, second.id, second.flags);
	expect_broken();
	end();
}

static void test_plain(void)
{
	char buf[32] = "";

	begin(0);
	EXPECT(virtq_pop(&vq, &chain) == 0);
	strcpy(ring_at(RING_DATA), "hello, ");
	strcpy(ring_at(RING_APART), "device");
	put(RING_DATA, 7, 9, NEXT);
	put(RING_APART, 6, 8, NEXT);
	put(RING_DATA + 64, 4, 5, WRITE);
	EXPECT(virtq_pop(&vq, &chain) == 1);
	EXPECT(chain.head == 5);	/* the last one's */
	EXPECT(chain.readable_count == 2 && chain.writable_count == 1 && chain.bytes == 17);
	EXPECT(chain_read(&chain, buf, 20) == 13 && !strcmp(buf, "hello, device"));
	EXPECT(chain_write(&chain, "abcdef", 6) == 4);
	virtq_push(&vq, &chain, 4);
	EXPECT(used_is(3, 5, 4));
	EXPECT(virtq_pop(&vq, &chain) == 0);
	end();
}

/* Chains of all lengths, over many laps, from any place on. */
static void test_laps(void)
{
	for (unsigned int at = 0; at < 2 * SIZE; at++) {
		begin_at(0, at % SIZE, at / SIZE);
		for (unsigned int i = 0; i < 100; i++) {
			const unsigned int count = 1 + i % SIZE;

			EXPECT(virtq_pop(&vq, &chain) == 0);
			put_chain(count, i % SIZE);
			EXPECT(pops(i % SIZE, count));
			virtq_push(&vq, &chain, i);
			EXPECT(used_is(count, i % SIZE, i));
			EXPECT(resume == (driver.seen | driver.seen_wrap << 15));
		}
		end();
	}
}

/* A used descriptor may take the place of one that belongs to a chain still in flight. */
static void test_out_of_order(void)
{
	begin(0);
	put_chain(2, 0);
	put_chain(3, 1);
	put_chain(1, 2);
	EXPECT(pops(0, 2) && pops(1, 3) && pops(2, 1));
	EXPECT(virtq_pop(&vq, &chain) == 0);
	virtq_push_head(&vq, 2, 0);
	virtq_push_head(&vq, 0, 7);
	EXPECT(used_is(1, 2, 0) && used_is(2, 0, 7));
	put_chain(3, 2);
	EXPECT(pops(2, 3));
	virtq_push_head(&vq, 2, 0);
	virtq_push_head(&vq, 1, 0);
	EXPECT(used_is(3, 2, 0) && used_is(3, 1, 0));
	end();
}

static void put_table(uint64_t table, unsigned int index, struct vring_packed_desc desc)
{
	for (unsigned int i = 0; i < sizeof(desc); i++)
		*(char *)ring_at(table + index * sizeof(desc) + i) = ((char *)&desc)[i];
}

/* The driver sees those given back together in the order of the list. */
static void test_together(void)
{
	static const struct virtq_used used[] = { { 5, 0 }, { 2, 0 }, { 0, 0 } };

	for (unsigned int at = 0; at < 2 * SIZE; at++) {
		begin_at(0, at % SIZE, at / SIZE);
		put_chain(1, 2);
		put_chain(3, 0);
		put_chain(2, 5);
		EXPECT(pops(2, 1) && pops(0, 3) && pops(5, 2));
		virtq_push_batch(&vq, used, 3);
		EXPECT(used_is(2, 5, 0) && used_is(1, 2, 0) && used_is(3, 0, 0));
		EXPECT(resume == (driver.seen | driver.seen_wrap << 15));
		end();
	}
}

static void test_indirect(void)
{
	const uint64_t tables[] = { RING_DATA + 256, RING_TOUCHING - 24 };

	for (unsigned int i = 0; i < 2; i++) {		/* of the second, an entry straddles */
		begin(INDIRECT_ON);
		put(tables[i], 48, 3, INDIRECT | WRITE);
		/* Flags but the one for writing mean nothing in there, nor do ids. */
		put_table(tables[i], 0, (struct vring_packed_desc){ RING_DATA, 2, 77, 0 });
		put_table(tables[i], 1, (struct vring_packed_desc){ RING_DATA, 3, 78,
			  WRITE | INDIRECT });
		put_table(tables[i], 2, (struct vring_packed_desc){ RING_DATA, 4, 79,
			  WRITE | NEXT });
		EXPECT(pops(3, 3) && chain.readable_count == 1 && chain.bytes == 9);
		virtq_push(&vq, &chain, 7);
		EXPECT(used_is(1, 3, 7));
		end();
	}
}

static void test_refuses_indirect(void)
{
	const struct vring_packed_desc table = { RING_DATA, 16, 0, INDIRECT };
	struct vring_packed_desc bad = table, plain = { RING_DATA, 1, 0, NEXT };

	refuse(0, table, table);			/* not negotiated */
	refuse(INDIRECT_ON, plain, table);		/* linked to others */
	bad.flags |= NEXT;
	refuse(INDIRECT_ON, bad, table);
	bad = table;
	bad.len = 0;
	refuse(INDIRECT_ON, bad, table);
	bad.len = 17;
	refuse(INDIRECT_ON, bad, table);
	bad.len = 16 * (SIZE + 1);
	refuse(INDIRECT_ON, bad, table);
	bad = table;
	bad.addr = UINT64_MAX - 7;
	refuse(INDIRECT_ON, bad, table);
	bad.addr = RING_TOUCHING + RING_REGION_SIZE - 8;
	refuse(INDIRECT_ON, bad, table);
}

static void test_refuses_chains(void)
{
	const struct vring_packed_desc plain = { RING_DATA, 1, 0, 0 };
	struct vring_packed_desc bad = plain;

	bad.id = SIZE;					/* an id that is none */
	refuse(0, bad, plain);
	bad.id = 0xffff;
	refuse(0, bad, plain);
	bad = plain;
	bad.addr = RING_DESC - 1;
	refuse(0, bad, plain);
	bad.addr = RING_TOUCHING + RING_REGION_SIZE;
	refuse(0, bad, plain);
	bad = plain;
	bad.flags = WRITE | NEXT;			/* readable after writable */
	refuse(0, bad, plain);
	begin(0);
	for (unsigned int i = 0; i < SIZE; i++)		/* without an end */
		put(RING_DATA, 1, 0, NEXT);
	expect_broken();
	end();
}

static void test_refuses_ids_in_flight(void)
{
	begin(0);
	put_chain(1, 4);
	put_chain(1, 4);
	EXPECT(pops(4, 1));
	expect_broken();
	virtq_push_head(&vq, 4, 0);	/* what was taken is given back all the same */
	EXPECT(used_is(1, 4, 0));
	end();
}

/* A driver that makes more available than there is room for. */
static void test_refuses_more_than_there_are(void)
{
	begin(0);
	put_chain(4, 0);
	EXPECT(pops(0, 4));
	put_chain(3, 1);
	expect_broken();
	end();
	begin(0);
	for (unsigned int i = 0; i < SIZE; i++)
		put_chain(1, i);
	for (unsigned int i = 0; i < SIZE; i++)
		EXPECT(pops(i, 1));
	put_chain(1, 0);
	expect_broken();
	end();
}

static void refuse_ring(struct dev_vring bad, int err)
{
	EXPECT(virtq_init(&vq, &ring_memory, &bad, 1ULL << VIRTIO_F_RING_PACKED) == err);
}

static void test_refuses_rings(void)
{
	struct dev_vring bad;

	begin(0);
	bad = ring;
	bad.size = 0;
	refuse_ring(bad, -EINVAL);
	bad.size = VIRTQ_SIZE_MAX + 1;
	refuse_ring(bad, -EINVAL);
	bad = ring;
	bad.next_avail = SIZE;
	refuse_ring(bad, -EINVAL);
	bad = ring;
	bad.next_used = SIZE | 0x8000;
	refuse_ring(bad, -EINVAL);
	bad = ring;
	bad.desc += 8;
	refuse_ring(bad, -EFAULT);
	bad = ring;
	bad.avail += 2;
	refuse_ring(bad, -EFAULT);
	bad = ring;
	bad.used += 2;
	refuse_ring(bad, -EFAULT);
	bad = ring;
	bad.desc = RING_TOUCHING - 16 * (SIZE - 1);	/* in one region */
	refuse_ring(bad, -EFAULT);
	bad = ring;
	bad.used = RING_DESC - 4;
	refuse_ring(bad, -EFAULT);
	bad.used = UINT64_MAX - 3;
	refuse_ring(bad, -EFAULT);
	end();
}

static void use(unsigned int count)
{
	put_chain(count, 0);
	EXPECT(pops(0, count));
	virtq_push(&vq, &chain, 0);
	EXPECT(used_is(count, 0, 0));
}

static void driver_wants(uint16_t off_wrap, uint16_t flags)
{
	*(struct vring_packed_desc_event *)ring_at(RING_AVAIL) =
		(struct vring_packed_desc_event){ off_wrap, flags };
}

static void test_calls_by_flags(void)
{
	eventfd_t count = 0;

	begin(0);
	EXPECT(!virtq_should_notify(&vq));	/* nothing is new */
	use(1);
	virtq_notify(&vq);
	EXPECT(!eventfd_read(ring.call, &count) && count == 1);
	driver_wants(0, VRING_PACKED_EVENT_FLAG_DISABLE);
	use(1);
	virtq_notify(&vq);
	EXPECT(eventfd_read(ring.call, &count) < 0);
	driver_wants(0, VRING_PACKED_EVENT_FLAG_ENABLE);
	for (unsigned int i = 0; i < SIZE; i++)	/* a whole lap is something new, too */
		use(1);
	EXPECT(virtq_should_notify(&vq) && !virtq_should_notify(&vq));
	driver_wants(3, VRING_PACKED_EVENT_FLAG_DESC);	/* not negotiated */
	use(1);
	EXPECT(virtq_should_notify(&vq));
	end();
}

/* From each place on: an event at each distance is told of when it is passed, and only then. */
static void test_calls_by_event(void)
{
	for (unsigned int at = 0; at < 4 * SIZE * SIZE; at++) {
		const unsigned int place = at % SIZE, event = place + at / SIZE % SIZE;
		const bool wrap = at / SIZE / SIZE & 1;
		const unsigned int chunk = 1 + (at / SIZE / SIZE > 1);

		begin_at(EVENT_ON, place, wrap);
		driver_wants(event % SIZE | (event < SIZE ? wrap : !wrap) << 15,
			     VRING_PACKED_EVENT_FLAG_DESC);
		vq.has_signalled = true;
		for (unsigned int i = place; i < place + SIZE; i += chunk) {
			use(chunk);
			EXPECT(virtq_should_notify(&vq) == (i <= event && event < i + chunk));
		}
		end();
	}
}

/* The driver may have said what it wants to hear of to a process before this one. */
static void test_first_call(void)
{
	begin(EVENT_ON);
	driver_wants(0x8000 | 1, VRING_PACKED_EVENT_FLAG_DESC);
	use(1);
	EXPECT(virtq_should_notify(&vq));
	driver_wants(0x8000 | 4, VRING_PACKED_EVENT_FLAG_DESC);
	use(1);
	EXPECT(!virtq_should_notify(&vq));
	end();
}

static void test_kicks(void)
{
	const struct vring_packed_desc_event *device;

	begin(0);
	device = ring_at(RING_USED);
	virtq_kick_disable(&vq);
	EXPECT(device->flags == VRING_PACKED_EVENT_FLAG_DISABLE);
	EXPECT(!virtq_kick_enable(&vq) && device->flags == VRING_PACKED_EVENT_FLAG_ENABLE);
	put_chain(1, 0);
	EXPECT(virtq_kick_enable(&vq));
	end();
	begin(EVENT_ON);
	device = ring_at(RING_USED);
	EXPECT(!virtq_kick_enable(&vq));
	EXPECT(device->flags == VRING_PACKED_EVENT_FLAG_DESC && device->off_wrap == 0x8000);
	virtq_kick_disable(&vq);
	EXPECT(device->flags == VRING_PACKED_EVENT_FLAG_DISABLE);
	use(SIZE - 1);
	EXPECT(!virtq_kick_enable(&vq) && device->off_wrap == (0x8000 | (SIZE - 1)));
	use(2);
	EXPECT(!virtq_kick_enable(&vq) && device->off_wrap == 1);
	end();
}

/* The record of requests in flight. */

static void inflight_begin(uint16_t index, bool wrap)
{
	memset(&inflight, 0, sizeof(inflight));
	begin_at(INDIRECT_ON, index, wrap);
	ring.inflight = &inflight.record;
	EXPECT(init(INDIRECT_ON) == 0);
}

/* Another process takes over; of where the ring was, its front end knows only the beginning. */
static void inflight_next(void)
{
	EXPECT(init(INDIRECT_ON) == 0);
}

static void inflight_resubmits(uint16_t index, bool wrap)
{
	inflight_begin(index, wrap);
	put_chain(2, 3);
	put_chain(1, 0);
	put_chain(3, 5);
	EXPECT(pops(3, 2) && pops(0, 1) && pops(5, 3));
	virtq_push_head(&vq, 0, 0);	/* over the first one's descriptor */
	EXPECT(used_is(1, 0, 0));
	inflight_next();
	EXPECT(pops(3, 2) && chain.readable[1].iov_base == ring_at(RING_DATA + 1));
	virtq_push_head(&vq, 3, 0);
	EXPECT(used_is(2, 3, 0));
	inflight_next();
	put_chain(2, 1);
	EXPECT(pops(5, 3) && pops(1, 2));
	EXPECT(virtq_pop(&vq, &chain) == 0);
	inflight_next();
	EXPECT(pops(5, 3) && pops(1, 2));
	virtq_push_head(&vq, 1, 0);
	virtq_push_head(&vq, 5, 0);
	EXPECT(used_is(2, 1, 0) && used_is(3, 5, 0));
	EXPECT(resume == (driver.seen | driver.seen_wrap << 15));
	inflight_next();
	EXPECT(virtq_pop(&vq, &chain) == 0 && !virtq_kick_enable(&vq));
	use(SIZE);
	end();
}

static void test_inflight_resubmits(void)
{
	for (unsigned int at = 0; at < 2 * SIZE; at++)
		inflight_resubmits(at % SIZE, at / SIZE);
}

/*
 * Killed between any two stores: ring and record are put together from what they were before and
 * after a step, so many of its stores done, in the order in which virtq_packed.c makes them.
 */
struct state {
	uint8_t ring[SIZE * sizeof(struct vring_packed_desc)];
	struct virtq_inflight_packed record;
	struct virtq_inflight_packed_desc desc[SIZE];
};

static void state_save(struct state *state)
{
	memcpy(state->ring, ring_at(RING_DESC), sizeof(state->ring));
	memcpy(&state->record, &inflight, sizeof(inflight));
}

static void state_load(const struct state *state)
{
	memcpy(ring_at(RING_DESC), state->ring, sizeof(state->ring));
	memcpy(&inflight, &state->record, sizeof(inflight));
}

#define COPY(field)	(state.field = after->field)

/* A take of the chain whose first entry is @first, after @stores of it. */
static void state_of_take(const struct state *before, const struct state *after, uint16_t first,
			  unsigned int stores)
{
	struct state state = *before;

	if (stores > 0) {
		memcpy(state.desc, after->desc, sizeof(state.desc));
		state.desc[first].inflight = before->desc[first].inflight;
	}
	if (stores > 1)
		COPY(desc[first].inflight);
	if (stores > 2)
		COPY(record.free_head);
	if (stores > 3)
		COPY(record.old_free_head);
	state_load(&state);
}

static void test_inflight_killed_while_taking(void)
{
	for (unsigned int at = 0; at < 2 * SIZE * 5; at++) {
		const unsigned int stores = at % 5, index = at / 5 % SIZE;
		struct state before, after;

		inflight_begin(index, at / 5 / SIZE);
		put_chain(2, 3);
		put_chain(3, 1);
		EXPECT(pops(3, 2));
		state_save(&before);
		EXPECT(pops(1, 3));
		state_save(&after);
		state_of_take(&before, &after, before.record.free_head, stores);
		inflight_next();
		/* Out of the record, or once more out of the ring. */
		EXPECT(vq.again_count == (stores < 4 ? 1 : 2));
		EXPECT(pops(3, 2) && pops(1, 3));
		EXPECT(virtq_pop(&vq, &chain) == 0);
		virtq_push_head(&vq, 1, 0);
		virtq_push_head(&vq, 3, 0);
		EXPECT(used_is(3, 1, 0) && used_is(2, 3, 0));
		use(SIZE);
		end();
	}
}

/* That a take was under way is not for the driver to deny. */
static void test_inflight_taking_undone(void)
{
	struct state before, after;

	inflight_begin(0, true);
	put_chain(2, 3);
	state_save(&before);
	EXPECT(pops(3, 2));
	state_save(&after);
	state_of_take(&before, &after, 0, 3);
	ring_desc(0)->flags = 0;
	inflight_next();
	EXPECT(vq.again_count == 0 && virtq_pop(&vq, &chain) == 0);
	driver.put = 0;
	use(SIZE);
	end();
}

/* Giving back of the chain whose entries begin at @first and end at @last. */
static void state_of_give(const struct state *before, const struct state *after, uint16_t first,
			  uint16_t last, unsigned int stores)
{
	struct state state = *before;

	if (stores > 0)
		COPY(desc[last].next);
	if (stores > 1)
		COPY(record.free_head);
	if (stores > 2)
		COPY(record.used.idx), COPY(record.used.wrap);
	if (stores > 3)
		memcpy(state.ring, after->ring, sizeof(state.ring));
	if (stores > 4)
		COPY(desc[first].inflight);
	if (stores > 5)
		COPY(record.old_free_head);
	if (stores > 6)
		COPY(record.used);
	state_load(&state);
}

static void test_inflight_killed_while_giving(void)
{
	for (unsigned int at = 0; at < 2 * SIZE * 8 * 2; at++) {
		const unsigned int stores = at % 8, index = at / 8 % SIZE;
		const bool refilled = at / 8 / SIZE / 2;
		struct state before, after;
		uint16_t first, last;

		inflight_begin(index, at / 8 / SIZE & 1);
		put_chain(2, 3);
		put_chain(3, 1);
		EXPECT(pops(3, 2) && pops(1, 3));
		first = vq.packed.buffer[1].first;
		last = vq.packed.buffer[1].last;
		state_save(&before);
		virtq_push_head(&vq, 1, 0);
		state_save(&after);
		state_of_give(&before, &after, first, last, stores);
		if (stores > 3) {
			EXPECT(used_is(3, 1, 0));
			if (refilled)		/* over the used descriptor, even */
				put_chain(4, 1);
		}
		inflight_next();
		EXPECT(pops(3, 2));
		EXPECT(stores > 3 || pops(1, 3));
		EXPECT(stores <= 3 || !refilled || pops(1, 4));
		EXPECT(virtq_pop(&vq, &chain) == 0);
		virtq_push_head(&vq, 3, 0);
		EXPECT(used_is(2, 3, 0));
		if (stores <= 3 || refilled)
			virtq_push_head(&vq, 1, 0);
		EXPECT((stores > 3 && !refilled) || used_is(stores > 3 ? 4 : 3, 1, 0));
		use(SIZE);
		end();
	}
}

/*
 * The same of two chains at once, whose entries begin at @first and end at @last, and whose used
 * descriptors begin at @index.
 */
static void state_of_gives(const struct state *before, const struct state *after,
			   const uint16_t *first, const uint16_t *last, unsigned int index,
			   unsigned int stores)
{
	const size_t place = index * sizeof(struct vring_packed_desc);
	struct state state = *before;

	for (unsigned int i = 0; i < 2; i++)
		if (stores > i)
			COPY(desc[last[i]].next);
	if (stores > 2)
		COPY(record.free_head);
	if (stores > 3)
		COPY(record.used.idx), COPY(record.used.wrap);
	if (stores > 4)
		memcpy(state.ring, after->ring, sizeof(state.ring));
	if (stores == 5)		/* but for the first of them */
		memcpy(state.ring + place, before->ring + place, sizeof(struct vring_packed_desc));
	for (unsigned int i = 0; i < 2; i++)
		if (stores > 6 + i)
			COPY(desc[first[i]].inflight);
	if (stores > 8)
		COPY(record.old_free_head);
	if (stores > 9)
		COPY(record.used);
	state_load(&state);
}

static void test_inflight_killed_while_giving_several(void)
{
	static const struct virtq_used used[] = { { 1, 0 }, { 0, 0 } };

	for (unsigned int at = 0; at < 2 * SIZE * 11; at++) {
		const unsigned int stores = at % 11, index = at / 11 % SIZE;
		struct state before, after;
		uint16_t first[2], last[2];

		inflight_begin(index, at / 11 / SIZE);
		put_chain(2, 3);
		put_chain(1, 0);
		put_chain(3, 1);
		EXPECT(pops(3, 2) && pops(0, 1) && pops(1, 3));
		for (unsigned int i = 0; i < 2; i++) {
			first[i] = vq.packed.buffer[used[i].head].first;
			last[i] = vq.packed.buffer[used[i].head].last;
		}
		state_save(&before);
		virtq_push_batch(&vq, used, 2);
		state_save(&after);
		state_of_gives(&before, &after, first, last, index, stores);
		EXPECT(stores <= 5 || (used_is(3, 1, 0) && used_is(1, 0, 0)));
		inflight_next();
		EXPECT(pops(3, 2));
		EXPECT(stores > 5 || (pops(0, 1) && pops(1, 3)));
		EXPECT(virtq_pop(&vq, &chain) == 0);
		if (stores <= 5) {
			virtq_push_batch(&vq, used, 2);
			EXPECT(used_is(3, 1, 0) && used_is(1, 0, 0));
		}
		virtq_push_head(&vq, 3, 0);
		EXPECT(used_is(2, 3, 0));
		use(SIZE);
		end();
	}
}

/* A record of another ring, or that was declared void, counts for nothing. */
static void test_inflight_of_another(void)
{
	inflight_begin(0, true);
	put_chain(2, 3);
	EXPECT(pops(3, 2));
	inflight.record.desc_num = SIZE + 1;
	inflight_next();
	EXPECT(vq.again_count == 0 && pops(3, 2));
	inflight.record.version = 0;
	inflight_next();
	EXPECT(vq.again_count == 0 && pops(3, 2));
	inflight_next();
	EXPECT(vq.again_count == 1 && pops(3, 2));
	end();
}

static void refuse_record(void)
{
	eventfd_t count;

	inflight_next();
	EXPECT(virtq_pop(&vq, &chain) == -EPROTO);
	EXPECT(!eventfd_read(ring.err, &count));
	end();
	inflight_begin(0, true);
	put_chain(2, 3);
	put_chain(2, 1);
	EXPECT(pops(3, 2) && pops(1, 2));
}

static void test_inflight_spoilt(void)
{
	inflight_begin(0, true);
	put_chain(2, 3);
	put_chain(2, 1);
	EXPECT(pops(3, 2) && pops(1, 2));
	inflight.record.used.old_idx = SIZE;
	refuse_record();
	inflight.record.used.idx = 0xffff;
	refuse_record();
	inflight.record.desc[0].num = 0;
	refuse_record();
	inflight.record.desc[0].num = SIZE + 1;
	refuse_record();
	inflight.record.desc[0].next = SIZE;
	refuse_record();
	inflight.record.desc[0].next = 0;
	refuse_record();
	inflight.record.desc[0].next = 2;	/* the other one's */
	refuse_record();
	inflight.record.desc[1].inflight = 1;	/* within the first */
	inflight.record.desc[1].num = 1;
	refuse_record();
	inflight.record.desc[0].flags &= ~NEXT;	/* shorter than it says */
	refuse_record();
	inflight.record.desc[1].flags |= NEXT;	/* longer */
	refuse_record();
	inflight.record.desc[1].id = SIZE;
	refuse_record();
	inflight.record.desc[0].addr = 0;
	refuse_record();
	end();
}

static uint32_t random_next(void)
{
	static uint64_t state = 0x6d6f61742d767132;

	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return state >> 33;
}

/* Whatever is in the record, no chain comes of it twice, and none outside memory. */
static void test_inflight_random(void)
{
	unsigned int served = 0;

	inflight_begin(0, true);
	for (unsigned int i = 0; i < RANDOM_ROUNDS; i++) {
		unsigned int seen = 0;

		for (unsigned int j = 0; j < SIZE; j++)
			inflight.desc[j] = (struct virtq_inflight_packed_desc){
				.inflight = random_next() % 2, .next = random_next() % (SIZE + 2),
				.num = random_next() % 3, .counter = random_next(),
				.id = random_next() % (SIZE + 1), .addr = RING_DATA, .len = 1,
				.flags = random_next() % 4 ? 0 : random_next() % 8,
			};
		inflight.record.used.old_idx = random_next() % (SIZE + 1);
		inflight.record.old_free_head = random_next() % (SIZE + 2);
		inflight.record.desc_num = SIZE;
		inflight_next();
		while (virtq_pop(&vq, &chain) > 0) {
			EXPECT(chain.head < SIZE && !(seen >> chain.head & 1));
			EXPECT(ring_holds(chain.readable, chain.readable_count));
			EXPECT(ring_holds(chain.writable, chain.writable_count));
			seen |= 1u << chain.head;
			served++;
		}
		for (unsigned int id = 0; id < SIZE; id++)
			if (seen >> id & 1)
				virtq_push_head(&vq, id, 0);
	}
	EXPECT(served > RANDOM_ROUNDS / 10);
	end();
}

static void random_desc(unsigned int place)
{
	put_at(place, random_next() % 16 ? true : false, (struct vring_packed_desc){
		.addr = random_next() % 16 ? RING_DATA + random_next() % 64 :
					     RING_TOUCHING + RING_REGION_SIZE - 24,
		.len = random_next() % 16 ? random_next() % 3 * 16 : random_next(),
		.id = random_next() % 16 ? random_next() % SIZE : random_next(),
		.flags = random_next() % 4 ? random_next() % 2 : random_next() % 8,
	});
}

static void test_random(void)
{
	unsigned int served = 0, broken = 0;

	begin(0);
	for (unsigned int i = 0; i < RANDOM_ROUNDS; i++) {
		unsigned int taken = 0;

		for (unsigned int j = 0; j < SIZE; j++)
			random_desc(j);
		EXPECT(init(random_next() % 4 ? INDIRECT_ON | EVENT_ON : 0) == 0);
		while (taken <= SIZE && virtq_pop(&vq, &chain) > 0) {
			EXPECT(ring_holds(chain.readable, chain.readable_count));
			EXPECT(ring_holds(chain.writable, chain.writable_count));
			if (random_next() % 2)
				virtq_push(&vq, &chain, random_next() % 2);
			taken++;
		}
		served += taken;
		broken += vq.broken;
		virtq_notify(&vq);
	}
	/* Both happen often, or the test tests little. */
	EXPECT(served > RANDOM_ROUNDS / 10 && broken > RANDOM_ROUNDS / 10);
	end();
}

static const struct unit_test tests[] = {
	{ "a chain is read, written and given back", test_plain },
	{ "chains of all lengths, lap after lap", test_laps },
	{ "chains are given back in any order", test_out_of_order },
	{ "chains are given back together", test_together },
	{ "indirect tables", test_indirect },
	{ "malformed indirect tables are refused", test_refuses_indirect },
	{ "malformed chains are refused", test_refuses_chains },
	{ "ids that are in flight are refused", test_refuses_ids_in_flight },
	{ "more in flight than there are descriptors is refused", test_refuses_more_than_there_are },
	{ "rings that there cannot be are refused", test_refuses_rings },
	{ "interrupts by flags", test_calls_by_flags },
	{ "interrupts by event", test_calls_by_event },
	{ "the first interrupt, whatever the event", test_first_call },
	{ "kicks by flags and by event", test_kicks },
	{ "requests in flight outlive a process, in order", test_inflight_resubmits },
	{ "killed while taking, nothing is lost", test_inflight_killed_while_taking },
	{ "killed while taking, and the ring says otherwise", test_inflight_taking_undone },
	{ "killed while giving back, once is enough", test_inflight_killed_while_giving },
	{ "killed while giving several back", test_inflight_killed_while_giving_several },
	{ "a record that is of another ring, or void", test_inflight_of_another },
	{ "a spoilt record breaks the queue", test_inflight_spoilt },
	{ "random records", test_inflight_random },
	{ "random descriptors", test_random },
};

int main(void)
{
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
