// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes that nobody has to answer: one is a signal on an eventfd (KVM_IOEVENTFD), or goes into a
 * ring from which userspace takes it when it next has something to do (coalesced zones).
 *
 * Memory and ports have a table each, published whole as slots and routes are: eventfds by their
 * address, then the zones. Several eventfds may share an address, by the length or by the value
 * that is written.
 */
#include <linux/eventfd.h>
#include <linux/overflow.h>

#include "../compat.h"
#include "irq.h"

#define MAX_ENTRIES	16384	/* each change copies them */
#define NONE		U32_MAX

struct io_entry {
	u64 addr;
	u64 value;			/* for which it is, by_value */
	u32 len;			/* of an access, 0 any; or a zone's size */
	u32 by_value;
	struct eventfd_ctx *eventfd;	/* NULL: a zone */
};

struct moat_io_table {
	u32 events;			/* how many are eventfds */
	u32 count;
	struct io_entry entry[];
};

static const struct moat_io_table table_empty;

static const struct moat_io_table *table_of(struct moat_vm *vm, bool pio)
{
	return srcu_dereference_check(vm->io[pio], &vm->srcu, lockdep_is_held(&vm->lock)) ?:
	       &table_empty;
}

/* The first eventfd at or behind addr. */
static u32 event_find(const struct moat_io_table *table, u64 addr)
{
	u32 low = 0, high = table->events;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (table->entry[mid].addr < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The first zone that holds all of this. */
static u32 zone_find(const struct moat_io_table *table, u64 addr, u32 len)
{
	const struct io_entry *zone;
	u32 i;

	for (i = table->events; i < table->count; i++) {
		zone = &table->entry[i];
		if (addr >= zone->addr && len <= zone->len && addr - zone->addr <= zone->len - len)
			return i;
	}
	return NONE;
}

/* Writes */

static bool event_signal(const struct moat_io_table *table, u64 addr, u64 value, u32 len)
{
	const struct io_entry *entry = &table->entry[event_find(table, addr)];

	for (; entry < &table->entry[table->events] && entry->addr == addr; entry++)
		if ((!entry->len || entry->len == len) &&
		    (!entry->by_value || entry->value == value)) {
			moat_eventfd_signal(entry->eventfd);
			return true;
		}
	return false;
}

/* False where no zone is, or the ring is full, or userspace has made a mess of it. */
static bool ring_put(struct moat_vm *vm, const struct moat_io_table *table, bool pio, u64 addr,
		     u64 value, u32 len)
{
	struct kvm_coalesced_mmio write = { .phys_addr = addr, .len = len, .pio = pio };
	struct kvm_coalesced_mmio_ring *ring = vm->ring;
	unsigned long flags;
	u32 last, next;
	bool room;

	if (zone_find(table, addr, len) == NONE)
		return false;
	memcpy(write.data, &value, sizeof(value));
	raw_spin_lock_irqsave(&vm->ring_lock, flags);
	last = READ_ONCE(ring->last);
	next = (last + 1) % KVM_COALESCED_MMIO_MAX;
	room = last < KVM_COALESCED_MMIO_MAX && next != READ_ONCE(ring->first);
	if (room) {
		last = array_index_nospec(last, KVM_COALESCED_MMIO_MAX);
		ring->coalesced_mmio[last] = write;
		/* Userspace sees the entry before it sees that there is one. */
		smp_store_release(&ring->last, next);
	}
	raw_spin_unlock_irqrestore(&vm->ring_lock, flags);
	return room;
}

bool moat_ioeventfd_write(struct moat_vm *vm, bool pio, u64 addr, u64 value, u32 len)
{
	int index = srcu_read_lock(&vm->srcu);
	const struct moat_io_table *table = table_of(vm, pio);
	bool done = event_signal(table, addr, value, len) ||
		    ring_put(vm, table, pio, addr, value, len);

	srcu_read_unlock(&vm->srcu, index);
	return done;
}

/* Changes */

/* A new table without one entry, or NONE, and with another, or NULL. It owns its eventfds. */
static int table_change(struct moat_vm *vm, bool pio, u32 without, const struct io_entry *add)
{
	const struct moat_io_table *old = table_of(vm, pio);
	struct moat_io_table *new;
	u32 i, place;

	lockdep_assert_held(&vm->lock);
	if (add && old->count == MAX_ENTRIES)
		return -ENOSPC;
	new = kvzalloc(struct_size(new, entry, old->count + 1), GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;
	place = !add ? NONE : add->eventfd ? event_find(old, add->addr) : old->count;
	for (i = 0; i <= old->count; i++) {
		if (i == place)
			new->entry[new->count++] = *add;
		if (i < old->count && i != without)
			new->entry[new->count++] = old->entry[i];
	}
	while (new->events < new->count && new->entry[new->events].eventfd)
		new->events++;
	rcu_assign_pointer(vm->io[pio], new);
	synchronize_srcu_expedited(&vm->srcu);
	if (without < old->events)
		eventfd_ctx_put(old->entry[without].eventfd);
	if (old != &table_empty)
		kvfree(old);
	return 0;
}

/* The same entry; or else one that a write for this could be for too. */
static u32 event_match(const struct moat_io_table *table, const struct io_entry *e, bool same)
{
	const struct io_entry *other;
	u32 i;

	for (i = event_find(table, e->addr); i < table->events; i++) {
		other = &table->entry[i];
		if (other->addr != e->addr)
			break;
		if (same ? !memcmp(other, e, sizeof(*e)) :
			   !other->len || !e->len || (other->len == e->len &&
			   (!other->by_value || !e->by_value || other->value == e->value)))
			return i;
	}
	return NONE;
}

long moat_vm_ioeventfd(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_ioeventfd *args = arg;
	bool pio = args->flags & KVM_IOEVENTFD_FLAG_PIO;
	bool assign = !(args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN);
	struct io_entry entry = { .addr = args->addr, .len = args->len };
	int r;
	u32 i;

	if (args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO |
			    KVM_IOEVENTFD_FLAG_DEASSIGN))
		return -EINVAL;
	if (args->len > 8 || hweight32(args->len) > 1 || args->addr + args->len < args->addr)
		return -EINVAL;
	if (args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) {
		if (!args->len)
			return -EINVAL;
		entry.by_value = true;
		entry.value = args->datamatch;
	}
	entry.eventfd = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(entry.eventfd))
		return PTR_ERR(entry.eventfd);
	i = event_match(table_of(object, pio), &entry, !assign);
	if (assign)
		r = i == NONE ? table_change(object, pio, NONE, &entry) : -EEXIST;
	else
		r = i == NONE ? -ENOENT : table_change(object, pio, i, NULL);
	if (r || !assign)
		eventfd_ctx_put(entry.eventfd);
	return r;
}

long moat_vm_register_coalesced(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_coalesced_mmio_zone *zone = arg;
	struct io_entry entry = { .addr = zone->addr, .len = zone->size };

	return zone->pio > 1 ? -EINVAL : table_change(object, zone->pio, NONE, &entry);
}

/* All that hold this one. */
long moat_vm_unregister_coalesced(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_coalesced_mmio_zone *zone = arg;
	int r = 0;
	u32 i;

	if (zone->pio > 1)
		return -EINVAL;
	while (!r) {
		i = zone_find(table_of(object, zone->pio), zone->addr, zone->size);
		if (i == NONE)
			break;
		r = table_change(object, zone->pio, i, NULL);
	}
	return r;
}

int moat_ioeventfd_init(struct moat_vm *vm)
{
	raw_spin_lock_init(&vm->ring_lock);
	vm->ring = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	return vm->ring ? 0 : -ENOMEM;
}

void moat_ioeventfd_destroy(struct moat_vm *vm)
{
	const struct moat_io_table *table;
	unsigned int pio;
	u32 i;

	for (pio = 0; pio < 2; pio++) {
		table = rcu_dereference_protected(vm->io[pio], true);
		for (i = 0; table && i < table->events; i++)
			eventfd_ctx_put(table->entry[i].eventfd);
		kvfree(table);
	}
	free_page((unsigned long)vm->ring);
}
