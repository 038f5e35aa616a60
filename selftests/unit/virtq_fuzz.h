/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the fuzzers of the queue code have in common: a device, its driver, its front end, and a
 * program for them, the input. Its first bytes set the queue up; then each byte is a step, and takes
 * its arguments from those that follow. The driver may write anywhere in the ring's region; the
 * front end, in the record of requests in flight; and the device's process may die and be followed
 * by another.
 *
 * What must hold, beside that no sanitizer complains: a chain's pieces lie in memory, heads that
 * the device is given are below the ring's size, and of a packed ring it holds none twice.
 */
#ifndef MOAT_VIRTQ_FUZZ_H
#define MOAT_VIRTQ_FUZZ_H

#include "devmodel/virtq_inflight.h"
#include "selftests/unit/virtq_ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_HELD_MAX	64

/* Small distances between the parts of the ring, so that short inputs reach all of them. */
#define FUZZ_AVAIL	(RING_DESC + 0x100)
#define FUZZ_USED	(RING_DESC + 0x200)
#define FUZZ_TABLE	(RING_DESC + 0x300)

/**
 * struct fuzz - all that there is
 * @data: what is left of the program
 * @record: of requests in flight, of just the size that it has to have
 * @held: what the device has taken and not given back
 * @driver_at, @driver_wrap: where a driver that keeps to the rules would go on
 */
static struct fuzz {
	const uint8_t *data;
	size_t size;
	bool packed;
	uint64_t features;
	uint8_t *record;
	size_t record_size;
	struct dev_vring ring;
	struct virtq vq;
	struct virtq_chain chain;
	uint16_t held[FUZZ_HELD_MAX];
	unsigned int held_count;
	uint16_t driver_at;
	bool driver_wrap;
	uint16_t resume;
} fuzz;

/* Makes a chain available, as a driver of that layout does; @what chooses where its buffers are. */
typedef void fuzz_offer(unsigned int count, uint8_t what);

/* Behind the end of the program are zeroes. */
static void fuzz_take_bytes(void *to, size_t len)
{
	size_t some = len < fuzz.size ? len : fuzz.size;

	memset(to, 0, len);
	memcpy(to, fuzz.data, some);
	fuzz.data += some;
	fuzz.size -= some;
}

static uint8_t fuzz_take_byte(void)
{
	uint8_t byte;

	fuzz_take_bytes(&byte, 1);
	return byte;
}

static uint16_t fuzz_take_word(void)
{
	uint16_t word;

	fuzz_take_bytes(&word, 2);
	return word;
}

/* Steps of the device */

static bool fuzz_chain_good(const struct virtq_chain *chain)
{
	for (unsigned int i = 0; i < fuzz.held_count && fuzz.packed; i++)
		if (fuzz.held[i] == chain->head)
			return false;
	return chain->head < fuzz.ring.size && ring_holds(chain->readable, chain->readable_count) &&
	       ring_holds(chain->writable, chain->writable_count);
}

static void fuzz_pop(void)
{
	uint8_t buf[64];

	if (fuzz.held_count == FUZZ_HELD_MAX || virtq_pop(&fuzz.vq, &fuzz.chain) <= 0)
		return;
	if (!fuzz_chain_good(&fuzz.chain))
		abort();
	memset(buf, 0xa5, sizeof(buf));
	chain_read(&fuzz.chain, buf, sizeof(buf));
	chain_take_last(&fuzz.chain);
	chain_write(&fuzz.chain, buf, sizeof(buf));
	fuzz.held[fuzz.held_count++] = fuzz.chain.head;
}

/* As many as there are of @count, together. */
static void fuzz_push(uint8_t which, unsigned int count)
{
	struct virtq_used used[4];
	unsigned int given = 0;

	for (; given < count && fuzz.held_count; given++) {
		const unsigned int at = which % fuzz.held_count;

		used[given] = (struct virtq_used){ fuzz.held[at], which };
		fuzz.held[at] = fuzz.held[--fuzz.held_count];
	}
	if (given)
		virtq_push_batch(&fuzz.vq, used, given);
}

static bool fuzz_begin(void)
{
	fuzz.held_count = 0;
	return !virtq_init(&fuzz.vq, &ring_memory, &fuzz.ring, fuzz.features);
}

/* Steps of the others */

/* Descriptors, indices, flags, tables. */
static void fuzz_write_ring(void)
{
	const uint16_t offset = fuzz_take_word() % 0x400;

	fuzz_take_bytes((char *)ring_at(RING_DESC) + offset, 1 + fuzz_take_byte() % 32);
}

static void fuzz_write_record(void)
{
	const uint16_t offset = fuzz_take_word() % (fuzz.record_size - 8);

	fuzz_take_bytes(fuzz.record + offset, 1 + fuzz_take_byte() % 8);
}

/* Near the ends of regions, or in the ring itself. */
static uint64_t fuzz_address(uint8_t what)
{
	static const uint64_t near[] = {
		RING_DATA, RING_TOUCHING - 16, RING_APART, FUZZ_TABLE, RING_DESC,
		RING_TOUCHING + RING_REGION_SIZE - 32, RING_TOUCHING - 24, 0,
	};

	return near[what % 8] + (what >> 3);
}

/* False: the queue cannot be begun with. */
static bool fuzz_step(fuzz_offer *offer)
{
	const uint8_t step = fuzz_take_byte();

	switch (step % 8) {
	case 0:
		fuzz_pop();
		break;
	case 1:
		fuzz_push(step >> 3, 1 + (step >> 6));
		break;
	case 2:
		virtq_notify(&fuzz.vq);
		break;
	case 3:
		virtq_kick_disable(&fuzz.vq);
		virtq_kick_enable(&fuzz.vq);
		break;
	case 4:
		fuzz_write_ring();
		break;
	case 5:
		fuzz_write_record();
		break;
	case 6:
		offer(1 + (step >> 3) % 4, fuzz_take_byte());
		break;
	case 7:
		return fuzz_begin();
	}
	return true;
}

static void fuzz_set_up_record(uint16_t size)
{
	fuzz.record_size = fuzz.packed ? offsetof(struct virtq_inflight_packed, desc[size]) :
					 offsetof(struct virtq_inflight_split, desc[size]);
	fuzz.record = calloc(1, fuzz.record_size);
}

static void fuzz_set_up(void)
{
	const uint8_t set_up = fuzz_take_byte();

	fuzz.features = (uint64_t)fuzz.packed << VIRTIO_F_RING_PACKED |
			(uint64_t)(set_up & 3) << VIRTIO_RING_F_INDIRECT_DESC;
	fuzz.ring = ring_set_up(fuzz.packed ? 1 + (set_up >> 4) : 1 << (set_up >> 4) % 5);
	fuzz_set_up_record(fuzz.ring.size);
	fuzz.ring.avail = FUZZ_AVAIL;
	fuzz.ring.used = FUZZ_USED;
	fuzz.ring.inflight = set_up & 4 ? fuzz.record : NULL;
	fuzz.ring.resume = &fuzz.resume;
	fuzz.ring.next_avail = fuzz_take_word();
	fuzz.ring.next_used = fuzz.ring.next_avail;
	fuzz.driver_at = fuzz.ring.next_avail & 0x7fff;
	fuzz.driver_wrap = fuzz.ring.next_avail >> 15;
	if (set_up & 8)
		fuzz_take_bytes(fuzz.record, fuzz.record_size);
}

static void fuzz_run(const uint8_t *data, size_t size, bool packed, fuzz_offer *offer)
{
	memset(&fuzz, 0, sizeof(fuzz));
	fuzz.data = data;
	fuzz.size = size;
	fuzz.packed = packed;
	fuzz_set_up();
	if (fuzz_begin())
		while (fuzz.size && fuzz_step(offer))
			;
	free(fuzz.record);
	ring_tear_down(&fuzz.ring);
}

#endif
