// SPDX-License-Identifier: MIT OR GPL-2.0
/* MSI-X as PCI 3.0, section 6.8.2, has it. */
#include <errno.h>
#include <stdlib.h>

#include "userspace/vmm/msix.h"
#include "userspace/vmm/vm.h"

#define MSIX_ADDRESS_LOW	0
#define MSIX_ADDRESS_HIGH	4
#define MSIX_DATA		8
#define MSIX_VECTOR_CONTROL	12
#define MSIX_VECTOR_MASKED	1
#define MSIX_ADDRESS_BITS	0xfffffffcu

int msix_init(struct msix *msix, struct vm *vm, unsigned int count)
{
	*msix = (struct msix){ .vm = vm, .count = count };
	msix->entry = calloc(count, sizeof(*msix->entry));
	if (!msix->entry)
		return -ENOMEM;
	for (unsigned int i = 0; i < count; i++)
		msix->entry[i].masked = true;
	return 0;
}

void msix_finish(struct msix *msix)
{
	free(msix->entry);
	msix->entry = NULL;
	msix->count = 0;
}

const struct msix_entry *msix_open(const struct msix *msix, unsigned int vector)
{
	if (!msix->enabled || msix->masked || vector >= msix->count || msix->entry[vector].masked)
		return NULL;
	return &msix->entry[vector];
}

static void msix_service(struct msix *msix, struct msix_entry *entry)
{
	if (!entry->pending || !msix_open(msix, entry - msix->entry))
		return;
	entry->pending = false;
	vm_signal_msi(msix->vm, entry->address, entry->data);
}

void msix_control(struct msix *msix, bool enabled, bool masked)
{
	msix->enabled = enabled;
	msix->masked = masked;
	for (unsigned int i = 0; i < msix->count; i++)
		msix_service(msix, &msix->entry[i]);
}

void msix_raise(struct msix *msix, unsigned int vector)
{
	if (!msix->enabled || vector >= msix->count)
		return;
	msix->entry[vector].pending = true;
	msix_service(msix, &msix->entry[vector]);
}

static uint32_t msix_entry_read(const struct msix_entry *entry, unsigned int field)
{
	switch (field) {
	case MSIX_ADDRESS_LOW:
		return entry->address;
	case MSIX_ADDRESS_HIGH:
		return entry->address >> 32;
	case MSIX_DATA:
		return entry->data;
	}
	return entry->masked ? MSIX_VECTOR_MASKED : 0;
}

static void msix_entry_write(struct msix_entry *entry, unsigned int field, uint32_t value)
{
	switch (field) {
	case MSIX_ADDRESS_LOW:
		entry->address = (entry->address & ~0xffffffffULL) | (value & MSIX_ADDRESS_BITS);
		break;
	case MSIX_ADDRESS_HIGH:
		entry->address = (uint32_t)entry->address | (uint64_t)value << 32;
		break;
	case MSIX_DATA:
		entry->data = value;
		break;
	case MSIX_VECTOR_CONTROL:
		entry->masked = value & MSIX_VECTOR_MASKED;
		break;
	}
}

/* Whole aligned words of 4 or 8 bytes only, as the standard asks of software. */
static bool msix_legal(uint64_t offset, unsigned int len, uint64_t size)
{
	return (len == 4 || len == 8) && !(offset % len) && offset < size;
}

uint64_t msix_table_read(const struct msix *msix, uint64_t offset, unsigned int len)
{
	const struct msix_entry *entry;
	unsigned int field = offset % MSIX_ENTRY_SIZE;
	uint64_t value;

	if (!msix_legal(offset, len, (uint64_t)msix->count * MSIX_ENTRY_SIZE))
		return 0;
	entry = &msix->entry[offset / MSIX_ENTRY_SIZE];
	value = msix_entry_read(entry, field);
	if (len == 8)
		value |= (uint64_t)msix_entry_read(entry, field + 4) << 32;
	return value;
}

void msix_table_write(struct msix *msix, uint64_t offset, uint64_t value, unsigned int len)
{
	struct msix_entry *entry;
	unsigned int field = offset % MSIX_ENTRY_SIZE;

	if (!msix_legal(offset, len, (uint64_t)msix->count * MSIX_ENTRY_SIZE))
		return;
	entry = &msix->entry[offset / MSIX_ENTRY_SIZE];
	msix_entry_write(entry, field, value);
	if (len == 8)
		msix_entry_write(entry, field + 4, value >> 32);
	msix_service(msix, entry);
}

uint64_t msix_pending_read(const struct msix *msix, uint64_t offset, unsigned int len)
{
	uint64_t value = 0;
	unsigned int first = offset * 8;

	if (!msix_legal(offset, len, (msix->count + 63) / 64 * 8))
		return 0;
	for (unsigned int i = 0; i < len * 8 && first + i < msix->count; i++)
		value |= (uint64_t)msix->entry[first + i].pending << i;
	return value;
}
