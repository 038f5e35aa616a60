// SPDX-License-Identifier: MIT OR GPL-2.0
#include "userspace/vmm/bus.h"
#include "userspace/vmm/events.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/layout.h"

static uint64_t events_read(void *device, uint64_t offset, unsigned int len)
{
	struct events *events = device;
	uint32_t value;

	if (len != 4 || offset % 4 || offset / 4 >= EVENTS_EJECT)
		return 0;
	pthread_mutex_lock(&events->lock);
	value = events->pending[offset / 4];
	events->pending[offset / 4] = 0;
	pthread_mutex_unlock(&events->lock);
	return value;
}

static void events_write(void *device, uint64_t offset, uint64_t value, unsigned int len)
{
	struct events *events = device;

	if (len == 4 && offset == 4 * EVENTS_EJECT && events->eject)
		events->eject(events->owner, value);
}

static const struct bus_ops events_ops = { events_read, events_write };

void events_init(struct events *events, struct ioapic *ioapic, struct bus *pio)
{
	*events = (struct events){ .ioapic = ioapic };
	pthread_mutex_init(&events->lock, NULL);
	bus_add(pio, LAYOUT_PORT_EVENTS, LAYOUT_PORT_EVENTS_SIZE, &events_ops, events);
}

void events_on_eject(struct events *events, void (*eject)(void *owner, uint32_t slots), void *owner)
{
	events->eject = eject;
	events->owner = owner;
}

void events_raise(struct events *events, unsigned int which, uint32_t bits)
{
	pthread_mutex_lock(&events->lock);
	events->pending[which] |= bits;
	pthread_mutex_unlock(&events->lock);
	ioapic_set_line(events->ioapic, LAYOUT_PIN_EVENTS, true);
	ioapic_set_line(events->ioapic, LAYOUT_PIN_EVENTS, false);
}
