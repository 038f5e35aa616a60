/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdint.h>

/**
 * struct bus_ops - what answers in a range
 * @read: @len bytes at @offset into the range, in the low bytes of the value
 * @write: the same the other way; NULL: writes are ignored
 *
 * Called on any vCPU's thread, on several at once: locking is the device's own business. @len is 1
 * to 8, not always a power of two, and offset + len is within the range. No more is checked.
 */
struct bus_ops {
	uint64_t (*read)(void *device, uint64_t offset, unsigned int len);
	void (*write)(void *device, uint64_t offset, uint64_t value, unsigned int len);
};

struct bus_range {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *device;
};

#define BUS_RANGES	16

/* The I/O ports or the memory-mapped registers of the machine. */
struct bus {
	unsigned int count;
	struct bus_range range[BUS_RANGES];
};

/* Only before the first vCPU runs. Ranges do not overlap, by the layout. */
void bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops,
	     void *device);

/* Data is @len (at most 8) bytes as the guest sees them. Where nothing answers: all ones. */
void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned int len);
void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned int len);

#endif /* VMM_BUS_H */
