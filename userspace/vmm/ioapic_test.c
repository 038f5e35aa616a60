// SPDX-License-Identifier: MIT OR GPL-2.0
/* The IOAPIC as a guest programs it, with messages and routes noted instead of sent. */
#include <stdio.h>
#include <string.h>

#include "userspace/vmm/bus.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/vm.h"

#define ENTRY_LEVEL	(1u << 15)
#define ENTRY_REMOTE	(1u << 14)
#define ENTRY_MASKED	(1u << 16)

static unsigned int checks, failures;

static void check(bool good, const char *what)
{
	checks++;
	failures += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, what);
}

static unsigned int sent, routed;
static uint64_t sent_address;
static uint32_t sent_data, routes, route_data;

void vm_signal_msi(struct vm *vm, uint64_t address, uint32_t data)
{
	(void)vm;
	sent++;
	sent_address = address;
	sent_data = data;
}

void vm_set_route(struct vm *vm, unsigned int gsi, uint64_t address, uint32_t data)
{
	(void)vm;
	(void)gsi;
	routed++;
	routes = address ? 1 : 0;
	route_data = data;
}

static struct bus mmio;
static struct ioapic ioapic;

static uint32_t get(unsigned int index)
{
	uint32_t value = index;

	bus_write(&mmio, LAYOUT_IOAPIC, &value, 4);
	bus_read(&mmio, LAYOUT_IOAPIC + 0x10, &value, 4);
	return value;
}

static void set(unsigned int index, uint32_t value)
{
	bus_write(&mmio, LAYOUT_IOAPIC, &index, 4);
	bus_write(&mmio, LAYOUT_IOAPIC + 0x10, &value, 4);
}

static void set_entry(unsigned int pin, uint32_t low, uint8_t dest)
{
	set(0x11 + 2 * pin, (uint32_t)dest << 24);
	set(0x10 + 2 * pin, low);
}

static void test_registers(void)
{
	check(get(1) == 0x170020, "version 0x20 with 24 pins");
	check(get(0x10) == ENTRY_MASKED, "pins are masked at first");
	set(0, 0x05000000);
	check(get(0) == 0x05000000, "the id can be set");
	set(0x10, 0xffffffff);
	check(get(0x10) == 0x1afff, "status and remote IRR cannot");
	check(get(0x40) == 0xffffffff, "no entry past the last");
	set(0x40, 0);
}

static void test_edge(void)
{
	set_entry(4, 0x30, 3);
	ioapic_set_line(&ioapic, 4, true);
	check(sent == 1 && sent_address == 0xfee03000 && sent_data == 0x4030,
	      "an edge is a message");
	ioapic_set_line(&ioapic, 4, true);
	check(sent == 1, "no change is no edge");
	ioapic_set_line(&ioapic, 4, false);
	set_entry(4, 0x30 | ENTRY_MASKED, 3);
	ioapic_set_line(&ioapic, 4, true);
	ioapic_set_line(&ioapic, 4, false);
	check(sent == 1, "none while masked");
	set_entry(4, 0x30, 3);
	check(sent == 2, "but once when unmasked");
	set_entry(4, 0x30, 3);
	check(sent == 2 && !routed, "and no more; the kernel need not know of edges");
}

static void test_level(void)
{
	uint32_t vector = 0x51;

	set_entry(16, 0x51 | ENTRY_LEVEL, 1);
	check(routed == 1 && routes == 1 && route_data == 0xc051, "the kernel learns of a level");
	ioapic_set_line(&ioapic, 16, true);
	check(sent == 3 && (get(0x10 + 32) & ENTRY_REMOTE), "a level sets remote IRR");
	ioapic_set_line(&ioapic, 16, false);
	ioapic_set_line(&ioapic, 16, true);
	check(sent == 3, "nothing more before the EOI");
	ioapic_eoi(&ioapic, 0x52);
	check(sent == 3, "another vector's EOI does nothing");
	ioapic_eoi(&ioapic, 0x51);
	check(sent == 4, "its EOI sends again while the pin is asserted");
	set_entry(16, 0x51 | ENTRY_LEVEL | ENTRY_MASKED, 1);
	check(routes == 1, "masked in service, its EOI is still waited for");
	ioapic_set_line(&ioapic, 16, false);
	bus_write(&mmio, LAYOUT_IOAPIC + 0x40, &vector, 4);
	check(sent == 4 && !(get(0x10 + 32) & ENTRY_REMOTE) && !routes,
	      "the EOI register ends it, and the kernel's interest");
}

int main(void)
{
	ioapic_init(&ioapic, NULL, &mmio);
	test_registers();
	set_entry(0, ENTRY_MASKED, 0);
	routed = 0;
	test_edge();
	test_level();
	ioapic_finish(&ioapic);
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
