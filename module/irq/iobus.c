// SPDX-License-Identifier: GPL-2.0-only
/*
 * What of a guest's port and memory-mapped I/O the kernel serves itself.
 *
 * It is asked by the emulator, and by the vendors' loops with interrupts off.
 */
#include "irq.h"

#define PORT_LAST	0x4d1

/* Chips of 8 bits: a wider access reads 0 and writes nothing. */
struct port_range {
	u16 first;
	u16 count;
	void (*access)(struct moat_vm *vm, u16 port, u8 *value, bool in);
};

static const struct port_range port_ranges[] = {
	{ 0x20, 2, moat_pic_port },
	{ 0xa0, 2, moat_pic_port },
	{ 0x4d0, 2, moat_elcr_port },
	/* Those of a PIT. */
	{ 0x40, 4, moat_pit_port },
	{ 0x61, 1, moat_pit_port },
};

/* The last ones come with a PIT, and with its speaker. */
static const struct port_range *port_find(const struct moat_chips *chips, u16 port,
					  unsigned int size)
{
	unsigned int i, count, offset;

	if (!chips || port > PORT_LAST)
		return NULL;
	/* Pairs with moat_vm_create_pit2(). */
	count = smp_load_acquire(&chips->pit) ? 4 + chips->speaker : 3;
	for (i = 0; i < count; i++) {
		offset = port - port_ranges[i].first;
		if (offset < port_ranges[i].count && offset + size <= port_ranges[i].count)
			return &port_ranges[i];
	}
	return NULL;
}

bool moat_iobus_port(struct moat_vm *vm, u16 port, u32 *value, unsigned int size, bool in)
{
	const struct port_range *range = port_find(vm->chips, port, size);

	if (!range)
		return !in && rcu_access_pointer(vm->io[true]) &&
		       moat_ioeventfd_write(vm, true, port, *value, size);
	if (in)
		*value = 0;
	if (size == 1)
		range->access(vm, port, (u8 *)value, in);
	return true;
}

bool moat_iobus_mmio(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write)
{
	struct moat_vm *vm = vcpu->vm;
	u64 value = 0;

	if (moat_lapic_mmio(vcpu, gpa, data, len, write) ||
	    (vm->chips && moat_ioapic_mmio(vm->chips, gpa, data, len, write)))
		return true;
	if (!write || !rcu_access_pointer(vm->io[false]))
		return false;
	memcpy(&value, data, len);
	return moat_ioeventfd_write(vm, false, gpa, value, len);
}
