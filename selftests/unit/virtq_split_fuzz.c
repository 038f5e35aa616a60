// SPDX-License-Identifier: MIT OR GPL-2.0
/* For libFuzzer: the queue code on a split ring. virtq_fuzz.h tells what the input is. */
#include "selftests/unit/virtq_fuzz.h"

/* One behind the other from @head on. */
static void split_put(struct vring_desc *table, uint16_t head, uint16_t mask, unsigned int count,
		      uint8_t what)
{
	for (unsigned int i = 0; i < count; i++)
		table[(head + i) & mask] = (struct vring_desc){
			.addr = fuzz_address(what + i), .len = fuzz_take_byte(),
			.flags = (i + 1 < count ? VRING_DESC_F_NEXT : 0) |
				 (2 * i >= count ? VRING_DESC_F_WRITE : 0),
			.next = (head + i + 1) & mask,
		};
}

static void split_offer(unsigned int count, uint8_t what)
{
	const uint16_t mask = fuzz.ring.size - 1, head = fuzz.driver_at & mask;
	struct vring_avail *avail = ring_at(FUZZ_AVAIL);
	struct vring_desc *desc = ring_at(RING_DESC);

	if (what & 0x80) {
		split_put(ring_at(FUZZ_TABLE), 0, 0xf, count, what);
		desc[head] = (struct vring_desc){
			.addr = FUZZ_TABLE, .len = count * sizeof(*desc),
			.flags = VRING_DESC_F_INDIRECT,
		};
	} else {
		split_put(desc, head, mask, count, what);
	}
	avail->ring[avail->idx & mask] = head;
	avail->idx++;
	fuzz.driver_at += count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_run(data, size, false, split_offer);
	return 0;
}
