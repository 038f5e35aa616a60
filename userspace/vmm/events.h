/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What ACPI is told while the machine runs, by its generic event device (dsdt.asl): an interrupt, and four
 * registers of 32 bits from LAYOUT_PORT_EVENTS on. Those that are read are 0 from then on.
 *
 *	0	read: bit 0: the power button was pressed
 *	4	read: bit N: something has come into slot N of the PCI bus
 *	8	read: bit N: what is in slot N is asked for
 *	12	write: bit N: the guest has let go of what is in slot N
 */
#ifndef VMM_EVENTS_H
#define VMM_EVENTS_H

#include <pthread.h>
#include <stdint.h>

struct bus;
struct ioapic;

enum { EVENTS_BUTTON, EVENTS_SLOT_UP, EVENTS_SLOT_DOWN, EVENTS_EJECT };

/**
 * struct events
 * @eject: called on a vCPU's thread with the slots that the guest has let go; @owner is its
 * @pending: by EVENTS_, up to the one that is written
 */
struct events {
	struct ioapic *ioapic;
	void (*eject)(void *owner, uint32_t slots);
	void *owner;
	pthread_mutex_t lock;
	uint32_t pending[EVENTS_EJECT];
};

void events_init(struct events *events, struct ioapic *ioapic, struct bus *pio);

/* Before the guest runs. */
void events_on_eject(struct events *events, void (*eject)(void *owner, uint32_t slots), void *owner);

/* From any thread: bits are added to a register, and the guest is told. */
void events_raise(struct events *events, unsigned int which, uint32_t bits);

#endif /* VMM_EVENTS_H */
