// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * PCI Express root bus.
 *
 * Configuration space is bytes and, for each, a mask of the bits that the guest can change: sizing
 * and moving of BARs, and most capabilities, need no code beyond that. A BAR answers wherever its
 * register says at the time of an access, within the window that the bridge has in the DSDT; what
 * the guest puts outside of it, or over another one, reaches nobody, or the first.
 *
 * Functions come and go. One that goes is out of its slot first, so that nobody finds it any more, and who has
 * found it before holds its lock "busy" until he is done with it.
 */
#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "userspace/vmm/bus.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/pci.h"

#define PCI_ADDRESS_ENABLE	0x80000000u
#define PCI_PORTS		8
#define PCI_PORT_DATA		4

#define ECAM_SLOT_SHIFT		15
#define ECAM_FUNCTION_MASK	0x7000
#define ECAM_REGISTER_MASK	0xfff

/* Of the window, where a slot's BARs are at first. */
#define PCI_SLOT_MEM		(LAYOUT_PCI_MEM_SIZE / PCI_SLOTS)

#define BRIDGE_VENDOR		0x1b36	/* Red Hat: a host bridge without registers of its own */
#define BRIDGE_DEVICE		0x0008
#define BRIDGE_CLASS		0x060000

static const struct pci_function_ops bridge_ops;

uint32_t pci_config_get(const struct pci_function *function, unsigned int offset, unsigned int len)
{
	uint32_t value = 0;

	memcpy(&value, function->config + offset, len);
	return value;
}

void pci_config_set(struct pci_function *function, unsigned int offset, uint32_t value,
		    unsigned int len)
{
	memcpy(function->config + offset, &value, len);
}

static void pci_config_allow(struct pci_function *function, unsigned int offset, uint32_t bits,
			     unsigned int len)
{
	memcpy(function->writable + offset, &bits, len);
}

void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops,
		       const struct pci_identity *identity)
{
	memset(function, 0, sizeof(*function));
	pthread_rwlock_init(&function->busy, NULL);
	function->ops = ops;
	function->cap_end = PCI_STD_HEADER_SIZEOF;
	function->cap_last = PCI_CAPABILITY_LIST;
	pci_config_set(function, PCI_VENDOR_ID, identity->vendor, 2);
	pci_config_set(function, PCI_DEVICE_ID, identity->device, 2);
	pci_config_set(function, PCI_CLASS_REVISION, identity->class << 8 | identity->revision, 4);
	pci_config_set(function, PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor, 2);
	pci_config_set(function, PCI_SUBSYSTEM_ID, identity->subsystem, 2);
	pci_config_allow(function, PCI_COMMAND,
			 PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE, 2);
	pci_config_allow(function, PCI_INTERRUPT_LINE, 0xff, 1);
	pci_config_allow(function, PCI_CACHE_LINE_SIZE, 0xff, 1);
}

unsigned int pci_function_add_cap(struct pci_function *function, uint8_t id, void *body,
				  unsigned int len)
{
	unsigned int at = function->cap_end;
	uint8_t *bytes = body;

	assert(at + len <= PCI_CONFIG_SIZE);
	bytes[PCI_CAP_LIST_ID] = id;
	bytes[PCI_CAP_LIST_NEXT] = 0;
	memcpy(function->config + at, bytes, len);
	function->config[function->cap_last] = at;
	function->cap_last = at + PCI_CAP_LIST_NEXT;
	function->cap_end = (at + len + 3) & ~3u;
	function->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	return at;
}

void pci_function_add_bar(struct pci_function *function, unsigned int bar, uint32_t size)
{
	assert(size >= 16 && !(size & (size - 1)));
	function->bar_size[bar] = size;
	pci_config_allow(function, PCI_BASE_ADDRESS_0 + 4 * bar, ~(size - 1), 4);
}

/* Each BAR at a multiple of its size, and no two on one page, in what is the slot's share of the window. */
static int pci_place(struct pci_function *function)
{
	uint32_t next = 0;

	for (unsigned int bar = 0; bar < PCI_FUNCTION_BARS; bar++) {
		uint32_t size = function->bar_size[bar];
		uint32_t unit = size < 4096 ? 4096 : size;

		if (!size)
			continue;
		next = (next + unit - 1) & ~(unit - 1);
		if (unit > PCI_SLOT_MEM || next > PCI_SLOT_MEM - unit)
			return -ENOSPC;
		pci_config_set(function, PCI_BASE_ADDRESS_0 + 4 * bar,
			       LAYOUT_PCI_MEM + function->slot * PCI_SLOT_MEM + next, 4);
		next += unit;
	}
	return 0;
}

int pci_add(struct pci *pci, struct pci_function *function)
{
	int err = -ENOSPC;

	pthread_rwlock_wrlock(&pci->lock);
	for (unsigned int slot = 0; slot < PCI_SLOTS && err; slot++) {
		if (pci->slot[slot])
			continue;
		function->slot = slot;
		err = pci_place(function);
		if (err)
			break;
		pci->slot[slot] = function;
	}
	pthread_rwlock_unlock(&pci->lock);
	return err;
}

void pci_hide(struct pci *pci, struct pci_function *function)
{
	pthread_rwlock_wrlock(&pci->lock);
	if (pci->slot[function->slot] == function)
		pci->slot[function->slot] = NULL;
	pthread_rwlock_unlock(&pci->lock);
}

void pci_remove(struct pci *pci, struct pci_function *function)
{
	pci_hide(pci, function);
	pthread_rwlock_wrlock(&function->busy);
	pthread_rwlock_unlock(&function->busy);
}

/* @where as ECAM has it: bus, device, function, register. */
static struct pci_function *pci_find(struct pci *pci, uint64_t where, unsigned int len)
{
	uint64_t slot = where >> ECAM_SLOT_SHIFT;

	if (slot >= PCI_SLOTS || (where & ECAM_FUNCTION_MASK) || (len != 1 && len != 2 && len != 4))
		return NULL;
	return pci->slot[slot];
}

static uint32_t pci_config_read(struct pci *pci, uint64_t where, unsigned int len)
{
	struct pci_function *function = pci_find(pci, where, len);
	unsigned int offset = where & ECAM_REGISTER_MASK;

	if (!function)
		return UINT32_MAX;
	if (offset + len > PCI_CONFIG_SIZE)
		return 0;	/* no extended capability */
	if (function->ops->config_read)
		function->ops->config_read(function, offset, len);
	return pci_config_get(function, offset, len);
}

static void pci_config_write(struct pci *pci, uint64_t where, uint32_t value, unsigned int len)
{
	struct pci_function *function = pci_find(pci, where, len);
	unsigned int offset = where & ECAM_REGISTER_MASK;
	uint32_t allowed = 0;

	if (!function || offset + len > PCI_CONFIG_SIZE)
		return;
	memcpy(&allowed, function->writable + offset, len);
	if (!allowed)
		return;
	value = (pci_config_get(function, offset, len) & ~allowed) | (value & allowed);
	pci_config_set(function, offset, value, len);
	if (function->ops->config_written)
		function->ops->config_written(function, offset, len);
}

static uint64_t ecam_read(void *device, uint64_t offset, unsigned int len)
{
	struct pci *pci = device;
	uint64_t value;

	pthread_rwlock_wrlock(&pci->lock);
	value = pci_config_read(pci, offset, len);
	pthread_rwlock_unlock(&pci->lock);
	return value;
}

static void ecam_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct pci *pci = device;

	pthread_rwlock_wrlock(&pci->lock);
	pci_config_write(pci, offset, value, len);
	pthread_rwlock_unlock(&pci->lock);
}

/* What 0xcf8 points at, as ECAM would have it; past its end where it points at nothing. */
static uint64_t port_where(const struct pci *pci, uint64_t offset)
{
	uint32_t address = pci->address;

	if (!(address & PCI_ADDRESS_ENABLE))
		return UINT64_MAX;
	return (uint64_t)(address & 0xffff00) << 4 | (address & 0xfc) | (offset - PCI_PORT_DATA);
}

static uint64_t port_read(void *device, uint64_t offset, unsigned int len)
{
	struct pci *pci = device;
	uint64_t value = UINT64_MAX;

	pthread_rwlock_wrlock(&pci->lock);
	if (offset >= PCI_PORT_DATA)
		value = pci_config_read(pci, port_where(pci, offset), len);
	else if (!offset && len == 4)
		value = pci->address;
	pthread_rwlock_unlock(&pci->lock);
	return value;
}

static void port_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct pci *pci = device;

	pthread_rwlock_wrlock(&pci->lock);
	if (offset >= PCI_PORT_DATA)
		pci_config_write(pci, port_where(pci, offset), value, len);
	else if (!offset && len == 4)
		pci->address = value;
	pthread_rwlock_unlock(&pci->lock);
}

/* The BAR of a function at @address, and the offset into it; -1: none. */
static int pci_function_decode(const struct pci_function *function, uint32_t address,
			       unsigned int len, uint64_t *ret_offset)
{
	if (!(pci_config_get(function, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY))
		return -1;
	for (unsigned int bar = 0; bar < PCI_FUNCTION_BARS; bar++) {
		uint32_t size = function->bar_size[bar];
		uint32_t base = pci_config_get(function, PCI_BASE_ADDRESS_0 + 4 * bar, 4);

		if (!size || address < base || address - base >= size ||
		    len > size - (address - base))
			continue;
		*ret_offset = address - base;
		return bar;
	}
	return -1;
}

/* The bus's lock is let go before the function is called, whose own says until when it has to stay. */
static struct pci_function *pci_decode(struct pci *pci, uint64_t offset, unsigned int len,
				       int *ret_bar, uint64_t *ret_offset)
{
	struct pci_function *found = NULL;

	pthread_rwlock_rdlock(&pci->lock);
	for (unsigned int slot = 0; slot < PCI_SLOTS && !found; slot++) {
		struct pci_function *function = pci->slot[slot];

		if (!function)
			continue;
		*ret_bar = pci_function_decode(function, LAYOUT_PCI_MEM + offset, len, ret_offset);
		if (*ret_bar >= 0)
			found = function;
	}
	if (found)
		pthread_rwlock_rdlock(&found->busy);
	pthread_rwlock_unlock(&pci->lock);
	return found;
}

static uint64_t window_read(void *device, uint64_t offset, unsigned int len)
{
	struct pci_function *function;
	uint64_t at, value;
	int bar;

	function = pci_decode(device, offset, len, &bar, &at);
	if (!function)
		return UINT64_MAX;
	value = function->ops->bar_read(function, bar, at, len);
	pthread_rwlock_unlock(&function->busy);
	return value;
}

static void window_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct pci_function *function;
	uint64_t at;
	int bar;

	function = pci_decode(device, offset, len, &bar, &at);
	if (!function)
		return;
	function->ops->bar_write(function, bar, at, value, len);
	pthread_rwlock_unlock(&function->busy);
}

static const struct bus_ops ecam_ops = { ecam_read, ecam_write };
static const struct bus_ops port_ops = { port_read, port_write };
static const struct bus_ops window_ops = { window_read, window_write };

void pci_init(struct pci *pci, struct bus *pio, struct bus *mmio)
{
	static const struct pci_identity bridge = {
		.vendor = BRIDGE_VENDOR, .device = BRIDGE_DEVICE, .class = BRIDGE_CLASS,
	};

	memset(pci, 0, sizeof(*pci));
	pthread_rwlock_init(&pci->lock, NULL);
	pci_function_init(&pci->bridge, &bridge_ops, &bridge);
	pci_add(pci, &pci->bridge);
	bus_add(mmio, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, &ecam_ops, pci);
	bus_add(mmio, LAYOUT_PCI_MEM, LAYOUT_PCI_MEM_SIZE, &window_ops, pci);
	bus_add(pio, LAYOUT_PORT_PCI, PCI_PORTS, &port_ops, pci);
}

void pci_finish(struct pci *pci)
{
	pthread_rwlock_destroy(&pci->lock);
}
