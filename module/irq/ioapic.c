// SPDX-License-Identifier: GPL-2.0-only
/*
 * The I/O APIC: 24 lines, each of which a redirection entry turns into a message to local APICs.
 * Intel 82093AA datasheet. It has no EOI register: the end of a level-triggered interrupt comes by
 * its vector from the local APICs.
 *
 * irr in its state tells which lines are up. An edge is sent when its line rises, once: it is noted
 * in `delivered` as long as the line stays up, and is no business of another host's that the state
 * is moved to. A level is sent when its line is up, its entry is not masked and nobody handles the
 * one before (remote IRR).
 *
 * vm->eoi_vectors spares the ends of all other interrupts the way here: it has the vectors of
 * levels, and those of the pins that the timer may be at, which wants to know when a tick was
 * served.
 *
 * A line that is let down in answer to an end must be down before the entry is looked at again: so
 * moat_ioapic_eoi() tells of the end first, without the lock, then clears remote IRR.
 */
#include "irq.h"

#define IOAPIC_BASE	0xfec00000
#define IOAPIC_SIZE	0x100
#define IOAPIC_PINS	KVM_IOAPIC_NUM_PINS
#define TIMER_PINS	(BIT(0) | BIT(2))

/* Offsets in the page; what the window shows by the number in the first, entries in two halves. */
enum { IOAPIC_SELECT = 0x00, IOAPIC_WINDOW = 0x10 };
enum { WINDOW_ID, WINDOW_VERSION, WINDOW_ARB_ID, WINDOW_ENTRIES = 0x10 };

#define IOAPIC_VERSION	(0x11 | (IOAPIC_PINS - 1) << 16)
#define ENTRY_READONLY	(BIT(12) | BIT(14))	/* delivery status, remote IRR */

typedef typeof(((struct kvm_ioapic_state *)NULL)->redirtbl[0]) ioapic_entry;

static struct moat_irq entry_irq(const ioapic_entry *entry)
{
	return (struct moat_irq) {
		.dest = entry->fields.dest_id,
		.vector = entry->fields.vector,
		.delivery = entry->fields.delivery_mode,
		.logical = entry->fields.dest_mode,
		.level = entry->fields.trig_mode,
		.assert = true,
	};
}

/* Sends what a line that is up stands for, if it may. */
static int ioapic_send(struct moat_chips *chips, unsigned int pin)
{
	ioapic_entry *entry = &chips->ioapic.redirtbl[pin];
	struct moat_irq irq = entry_irq(entry);
	int accepted;

	if (entry->fields.mask || (irq.level && entry->fields.remote_irr))
		return -1;
	if (!irq.level)
		chips->delivered |= BIT(pin);
	accepted = moat_irq_deliver(chips->vm, NULL, &irq);
	if (accepted && irq.level)
		entry->fields.remote_irr = 1;
	return accepted ?: -1;
}

int moat_ioapic_line(struct moat_chips *chips, u8 pin, bool level, bool exact)
{
	struct moat_irq irq = entry_irq(&chips->ioapic.redirtbl[pin]);
	bool was_up = chips->ioapic.irr & BIT(pin);

	lockdep_assert_held(&chips->lock);
	if (!level) {
		chips->ioapic.irr &= ~BIT(pin);
		chips->delivered &= ~BIT(pin);
		return 1;
	}
	if (exact && !irq.level && moat_irq_in_progress(chips->vm, &irq))
		return 0;
	chips->ioapic.irr |= BIT(pin);
	return was_up && !irq.level ? 0 : ioapic_send(chips, pin);
}

static void ioapic_scan(struct moat_chips *chips)
{
	unsigned long vectors[ARRAY_SIZE(chips->vm->eoi_vectors)] = { 0 };
	unsigned int i;

	for (i = 0; i < IOAPIC_PINS; i++) {
		const ioapic_entry *entry = &chips->ioapic.redirtbl[i];

		if (entry->fields.trig_mode || (TIMER_PINS & BIT(i)))
			__set_bit(entry->fields.vector, vectors);
	}
	for (i = 0; i < ARRAY_SIZE(vectors); i++)
		WRITE_ONCE(chips->vm->eoi_vectors[i], vectors[i]);
}

/* The pins of this vector that are handled no more: those that are still up come again. */
static void ioapic_resume(struct moat_chips *chips, unsigned long pins)
{
	unsigned int pin;

	for_each_set_bit(pin, &pins, IOAPIC_PINS) {
		ioapic_entry *entry = &chips->ioapic.redirtbl[pin];

		entry->fields.remote_irr = 0;
		if (entry->fields.trig_mode && (chips->ioapic.irr & BIT(pin)))
			ioapic_send(chips, pin);
	}
}

void moat_ioapic_eoi(struct moat_chips *chips, u8 vector, bool level)
{
	unsigned long pins = 0, flags = moat_chips_lock(chips);
	unsigned int pin;

	for (pin = 0; pin < IOAPIC_PINS; pin++)
		if (chips->ioapic.redirtbl[pin].fields.vector == vector)
			pins |= BIT(pin);
	moat_chips_unlock(chips, flags);
	for_each_set_bit(pin, &pins, IOAPIC_PINS)
		moat_pin_acked(chips->vm, KVM_IRQCHIP_IOAPIC, pin);
	if (!level)
		return;
	flags = moat_chips_lock(chips);
	ioapic_resume(chips, pins);
	moat_chips_unlock(chips, flags);
}

/* The page */

/* The entry, half of which is in the window, or NULL. */
static ioapic_entry *window_entry(struct moat_chips *chips)
{
	u32 pin = (chips->ioapic.ioregsel - WINDOW_ENTRIES) / 2;

	if (chips->ioapic.ioregsel < WINDOW_ENTRIES || pin >= IOAPIC_PINS)
		return NULL;
	return &chips->ioapic.redirtbl[array_index_nospec(pin, IOAPIC_PINS)];
}

static u32 window_read(struct moat_chips *chips)
{
	u32 select = chips->ioapic.ioregsel;
	const ioapic_entry *entry = window_entry(chips);

	if (select == WINDOW_ID || select == WINDOW_ARB_ID)
		return chips->ioapic.id << 24;
	if (select == WINDOW_VERSION)
		return IOAPIC_VERSION;
	return entry ? entry->bits >> (select % 2 * 32) : U32_MAX;
}

static void window_write(struct moat_chips *chips, u32 value)
{
	u32 select = chips->ioapic.ioregsel;
	u64 changes = select % 2 ? GENMASK_ULL(63, 32) : U32_MAX & ~ENTRY_READONLY;
	ioapic_entry *entry = window_entry(chips);

	if (select == WINDOW_ID)
		chips->ioapic.id = value >> 24 & 0xf;
	if (!entry)
		return;
	entry->bits = (entry->bits & ~changes) | ((u64)value << (select % 2 * 32) & changes);
	ioapic_scan(chips);
	/* Guests get rid of a remote IRR by way of edge mode, for want of an EOI register. */
	if (!entry->fields.trig_mode)
		entry->fields.remote_irr = 0;
	else if (chips->ioapic.irr & BIT(entry - chips->ioapic.redirtbl))
		ioapic_send(chips, entry - chips->ioapic.redirtbl);
}

bool moat_ioapic_mmio(struct moat_chips *chips, u64 gpa, void *data, unsigned int len, bool write)
{
	u64 offset = gpa - READ_ONCE(chips->ioapic.base_address), value = 0;
	unsigned long flags;

	if (offset >= IOAPIC_SIZE)
		return false;
	if (write)
		memcpy(&value, data, len);
	flags = moat_chips_lock(chips);
	if (offset == IOAPIC_SELECT && write)
		chips->ioapic.ioregsel = value & 0xff;
	else if (offset == IOAPIC_SELECT)
		value = chips->ioapic.ioregsel;
	else if (offset == IOAPIC_WINDOW && write)
		window_write(chips, value);
	else if (offset == IOAPIC_WINDOW)
		value = window_read(chips);
	moat_chips_unlock(chips, flags);
	if (!write)
		memcpy(data, &value, len);
	return true;
}

/* Lines that are up in the state are raised anew: what they stand for was not sent yet. */
void moat_ioapic_set_state(struct moat_chips *chips, const struct kvm_ioapic_state *state)
{
	unsigned long up = state->irr;
	unsigned int pin;

	chips->ioapic = *state;
	chips->ioapic.id &= 0xf;
	chips->ioapic.irr = 0;
	chips->delivered = 0;
	ioapic_scan(chips);
	for_each_set_bit(pin, &up, IOAPIC_PINS)
		moat_ioapic_line(chips, pin, true, false);
}

void moat_ioapic_reset(struct moat_chips *chips)
{
	unsigned int pin;

	chips->ioapic.base_address = IOAPIC_BASE;
	for (pin = 0; pin < IOAPIC_PINS; pin++)
		chips->ioapic.redirtbl[pin].fields.mask = 1;
}
