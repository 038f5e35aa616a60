// SPDX-License-Identifier: MIT OR GPL-2.0
/* For libFuzzer: the queue code on a packed ring. virtq_fuzz.h tells what the input is. */
#include "selftests/unit/virtq_fuzz.h"

static void packed_put(struct vring_packed_desc desc)
{
	struct vring_packed_desc *ring = ring_at(RING_DESC);

	if (fuzz.driver_at >= fuzz.ring.size)
		return;
	desc.flags |= fuzz.driver_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
					 1 << VRING_PACKED_DESC_F_USED;
	ring[fuzz.driver_at++] = desc;
	if (fuzz.driver_at < fuzz.ring.size)
		return;
	fuzz.driver_at = 0;
	fuzz.driver_wrap = !fuzz.driver_wrap;
}

static void packed_offer(unsigned int count, uint8_t what)
{
	struct vring_packed_desc *table = ring_at(FUZZ_TABLE);
	const uint16_t id = fuzz_take_byte() % 16;

	for (unsigned int i = 0; i < count; i++) {
		struct vring_packed_desc desc = {
			.addr = fuzz_address(what + i), .len = fuzz_take_byte(), .id = id,
			.flags = 2 * i >= count ? VRING_DESC_F_WRITE : 0,
		};

		if (what & 0x80) {
			table[i] = desc;
			continue;
		}
		desc.flags |= i + 1 < count ? VRING_DESC_F_NEXT : 0;
		packed_put(desc);
	}
	if (what & 0x80)
		packed_put((struct vring_packed_desc){
			.addr = FUZZ_TABLE, .len = count * sizeof(*table), .id = id,
			.flags = VRING_DESC_F_INDIRECT,
		});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_run(data, size, true, packed_offer);
	return 0;
}
