// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A fuzzer's way into the queue code: the first byte chooses features and size, the others are the
 * guest's memory from the descriptor table on. With clang: -fsanitize=fuzzer,address,undefined.
 */
#include "selftests/unit/virtq_ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Small distances between the parts of the ring, so that short inputs reach all of them. */
#define FUZZ_AVAIL	(RING_DESC + 0x100)
#define FUZZ_USED	(RING_DESC + 0x200)

static void fuzz_serve(struct virtq *vq)
{
	static struct virtq_chain chain;
	unsigned int served = 0;
	uint8_t buf[64];

	while (virtq_pop(vq, &chain) > 0 && served++ < vq->size) {
		if (!ring_holds(chain.readable, chain.readable_count) ||
		    !ring_holds(chain.writable, chain.writable_count))
			abort();
		chain_read(&chain, buf, sizeof(buf));
		chain_take_last(&chain);
		virtq_push(vq, &chain, chain_write(&chain, buf, sizeof(buf)));
		virtq_notify(vq);
	}
	virtq_kick_enable(vq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dev_vring ring;
	struct virtq vq;

	if (!size)
		return 0;
	ring = ring_set_up(1 << data[0] % 5);
	ring.avail = FUZZ_AVAIL;
	ring.used = FUZZ_USED;
	if (size > RING_REGION_SIZE)
		size = RING_REGION_SIZE;
	memcpy(ring_at(RING_DESC), data + 1, size - 1);
	if (!virtq_init(&vq, &ring_memory, &ring, (uint64_t)data[0] << 24))
		fuzz_serve(&vq);
	ring_tear_down(&ring);
	return 0;
}
