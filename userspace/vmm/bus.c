// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Who answers at an address. The ranges are fixed before the guest starts, so that looking one up
 * takes no lock; what moves at run time, as PCI's BARs, moves within a range whose owner knows.
 */
#include <assert.h>
#include <string.h>

#include "userspace/vmm/bus.h"

void bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops,
	     void *device)
{
	assert(bus->count < BUS_RANGES);
	bus->range[bus->count++] = (struct bus_range){
		.base = base, .size = size, .ops = ops, .device = device,
	};
}

static const struct bus_range *bus_find(const struct bus *bus, uint64_t address, unsigned int len)
{
	for (unsigned int i = 0; i < bus->count; i++) {
		const struct bus_range *range = &bus->range[i];
		uint64_t offset = address - range->base;

		if (address >= range->base && offset < range->size && len <= range->size - offset)
			return range;
	}
	return NULL;
}

void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned int len)
{
	const struct bus_range *range = bus_find(bus, address, len);
	uint64_t value = UINT64_MAX;

	if (range)
		value = range->ops->read(range->device, address - range->base, len);
	memcpy(data, &value, len);
}

void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned int len)
{
	const struct bus_range *range = bus_find(bus, address, len);
	uint64_t value = 0;

	if (!range || !range->ops->write)
		return;
	memcpy(&value, data, len);
	range->ops->write(range->device, address - range->base, value, len);
}
