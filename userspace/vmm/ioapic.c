// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * I/O APIC (Intel 82093AA, and the EOI register of version 0x20).
 *
 * A pin turns into a message to the local APICs by its redirection entry. An edge sends one
 * message; one that comes while the entry is masked waits for the unmasking, since no driver could
 * tell it from a lost interrupt. A level sends one message and sets the entry's remote IRR; the EOI
 * clears that, and sends again while the pin is still asserted.
 *
 * The local APICs are in the kernel, which reports EOIs only for the vectors that it knows a
 * level-triggered pin to send: it reads them off the GSI routing table, kept in step here. An entry
 * stays in there while its remote IRR is set, masked or not, else its EOI would be missed.
 */
#include <string.h>

#include "userspace/vmm/bus.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/vm.h"

#define IOAPIC_REG_SELECT	0x00
#define IOAPIC_REG_WINDOW	0x10
#define IOAPIC_REG_EOI		0x40

#define IOAPIC_ID		0x00
#define IOAPIC_VERSION		0x01
#define IOAPIC_ARBITRATION	0x02
#define IOAPIC_ENTRY		0x10
#define IOAPIC_VERSION_VALUE	(0x20 | (LAYOUT_PINS - 1) << 16)

#define ENTRY_VECTOR		0xffULL
#define ENTRY_DELIVERY		(7ULL << 8)
#define ENTRY_EXTINT		(7ULL << 8)
#define ENTRY_LOGICAL		(1ULL << 11)
#define ENTRY_STATUS		(1ULL << 12)
#define ENTRY_REMOTE_IRR	(1ULL << 14)
#define ENTRY_LEVEL		(1ULL << 15)
#define ENTRY_MASKED		(1ULL << 16)
#define ENTRY_DEST_SHIFT	56
#define ENTRY_READ_ONLY		(ENTRY_STATUS | ENTRY_REMOTE_IRR)
#define ENTRY_WRITABLE		(0xff0000000001ffffULL & ~ENTRY_READ_ONLY)

#define MSI_ADDRESS		0xfee00000
#define MSI_DEST_SHIFT		12
#define MSI_LOGICAL		(1 << 2)
#define MSI_LEVEL		(1 << 15)
#define MSI_ASSERT		(1 << 14)

static uint32_t ioapic_msi_address(uint64_t entry)
{
	uint32_t address = MSI_ADDRESS | entry >> ENTRY_DEST_SHIFT << MSI_DEST_SHIFT;

	return entry & ENTRY_LOGICAL ? address | MSI_LOGICAL : address;
}

static uint32_t ioapic_msi_data(uint64_t entry)
{
	uint32_t data = MSI_ASSERT | (entry & (ENTRY_VECTOR | ENTRY_DELIVERY));

	return entry & ENTRY_LEVEL ? data | MSI_LEVEL : data;
}

static void ioapic_send(struct ioapic *ioapic, uint64_t entry)
{
	if ((entry & ENTRY_DELIVERY) == ENTRY_EXTINT)
		return;		/* there is no 8259A to give a vector */
	vm_signal_msi(ioapic->vm, ioapic_msi_address(entry), ioapic_msi_data(entry));
}

/* Send what the state of a pin calls for. */
static void ioapic_service(struct ioapic *ioapic, unsigned int pin)
{
	uint64_t entry = ioapic->entry[pin];
	uint32_t bit = 1u << pin;

	if (entry & ENTRY_MASKED)
		return;
	if (entry & ENTRY_LEVEL) {
		if (!(ioapic->line & bit) || (entry & ENTRY_REMOTE_IRR))
			return;
		ioapic->entry[pin] |= ENTRY_REMOTE_IRR;
	} else if (!(ioapic->edge & bit)) {
		return;
	}
	ioapic->edge &= ~bit;
	ioapic_send(ioapic, entry);
}

/* What the kernel is to know of a pin; 0 for nothing. */
static uint64_t ioapic_route(uint64_t entry)
{
	if (!(entry & ENTRY_LEVEL) || ((entry & ENTRY_MASKED) && !(entry & ENTRY_REMOTE_IRR)))
		return 0;
	return entry & ~(ENTRY_READ_ONLY | ENTRY_MASKED);
}

static void ioapic_update_route(struct ioapic *ioapic, unsigned int pin)
{
	uint64_t route = ioapic_route(ioapic->entry[pin]);

	if (ioapic->routed[pin] == route)
		return;
	ioapic->routed[pin] = route;
	vm_set_route(ioapic->vm, pin, route ? ioapic_msi_address(route) : 0,
		     ioapic_msi_data(route));
}

static void ioapic_write_entry(struct ioapic *ioapic, unsigned int index, uint32_t value)
{
	unsigned int pin = index / 2, shift = index % 2 * 32;
	uint64_t half = 0xffffffffULL << shift & ENTRY_WRITABLE;
	uint64_t *entry = &ioapic->entry[pin];

	*entry = (*entry & ~half) | ((uint64_t)value << shift & half);
	if (!(*entry & ENTRY_LEVEL))
		*entry &= ~ENTRY_REMOTE_IRR;
	ioapic_update_route(ioapic, pin);
	ioapic_service(ioapic, pin);
}

static uint32_t ioapic_read_register(struct ioapic *ioapic)
{
	unsigned int index = ioapic->select - IOAPIC_ENTRY;

	switch (ioapic->select) {
	case IOAPIC_ID:
	case IOAPIC_ARBITRATION:
		return (uint32_t)ioapic->id << 24;
	case IOAPIC_VERSION:
		return IOAPIC_VERSION_VALUE;
	}
	if (index < 2 * LAYOUT_PINS)
		return ioapic->entry[index / 2] >> index % 2 * 32;
	return UINT32_MAX;
}

static void ioapic_write_register(struct ioapic *ioapic, uint32_t value)
{
	unsigned int index = ioapic->select - IOAPIC_ENTRY;

	if (ioapic->select == IOAPIC_ID)
		ioapic->id = value >> 24 & 0xf;
	else if (index < 2 * LAYOUT_PINS)
		ioapic_write_entry(ioapic, index, value);
}

static void ioapic_end(struct ioapic *ioapic, uint8_t vector)
{
	for (unsigned int pin = 0; pin < LAYOUT_PINS; pin++) {
		uint64_t entry = ioapic->entry[pin];

		if (!(entry & ENTRY_REMOTE_IRR) || (entry & ENTRY_VECTOR) != vector)
			continue;
		ioapic->entry[pin] &= ~ENTRY_REMOTE_IRR;
		ioapic_service(ioapic, pin);
		ioapic_update_route(ioapic, pin);
	}
}

static uint64_t ioapic_read(void *device, uint64_t offset, unsigned int len)
{
	struct ioapic *ioapic = device;
	uint32_t value = 0;

	if (len != 4)
		return value;
	pthread_mutex_lock(&ioapic->lock);
	if (offset == IOAPIC_REG_SELECT)
		value = ioapic->select;
	else if (offset == IOAPIC_REG_WINDOW)
		value = ioapic_read_register(ioapic);
	pthread_mutex_unlock(&ioapic->lock);
	return value;
}

static void ioapic_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct ioapic *ioapic = device;

	if (len != 4)
		return;
	pthread_mutex_lock(&ioapic->lock);
	if (offset == IOAPIC_REG_SELECT)
		ioapic->select = value;
	else if (offset == IOAPIC_REG_WINDOW)
		ioapic_write_register(ioapic, value);
	else if (offset == IOAPIC_REG_EOI)
		ioapic_end(ioapic, value);
	pthread_mutex_unlock(&ioapic->lock);
}

static const struct bus_ops ioapic_ops = { ioapic_read, ioapic_write };

void ioapic_init(struct ioapic *ioapic, struct vm *vm, struct bus *mmio)
{
	*ioapic = (struct ioapic){ .vm = vm };
	pthread_mutex_init(&ioapic->lock, NULL);
	for (unsigned int pin = 0; pin < LAYOUT_PINS; pin++)
		ioapic->entry[pin] = ENTRY_MASKED;
	bus_add(mmio, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE, &ioapic_ops, ioapic);
}

void ioapic_finish(struct ioapic *ioapic)
{
	pthread_mutex_destroy(&ioapic->lock);
}

void ioapic_set_line(struct ioapic *ioapic, unsigned int pin, bool asserted)
{
	uint32_t bit = 1u << pin;

	pthread_mutex_lock(&ioapic->lock);
	if (asserted && !(ioapic->line & bit))
		ioapic->edge |= bit;
	ioapic->line = asserted ? ioapic->line | bit : ioapic->line & ~bit;
	ioapic_service(ioapic, pin);
	pthread_mutex_unlock(&ioapic->lock);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
	pthread_mutex_lock(&ioapic->lock);
	ioapic_end(ioapic, vector);
	pthread_mutex_unlock(&ioapic->lock);
}
