/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_IOAPIC_H
#define VMM_IOAPIC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "userspace/vmm/layout.h"

struct bus;
struct vm;

/**
 * struct ioapic - an I/O APIC of 24 pins
 * @entry: redirection table
 * @line: bit n: pin n is asserted
 * @edge: bit n: pin n had an edge that no message has been sent for yet
 * @routed: the messages that the kernel was last told of, 0: none
 */
struct ioapic {
	struct vm *vm;
	pthread_mutex_t lock;
	uint64_t entry[LAYOUT_PINS];
	uint64_t routed[LAYOUT_PINS];
	uint32_t line;
	uint32_t edge;
	uint8_t select;
	uint8_t id;
};

void ioapic_init(struct ioapic *ioapic, struct vm *vm, struct bus *mmio);
void ioapic_finish(struct ioapic *ioapic);

/* Polarity is the guest's view only: @asserted is what the device means. */
void ioapic_set_line(struct ioapic *ioapic, unsigned int pin, bool asserted);

/* A local APIC got an EOI for @vector, which a level-triggered pin sends. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif /* VMM_IOAPIC_H */
