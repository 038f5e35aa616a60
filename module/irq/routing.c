// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts from outside of the guest's CPUs: messages, and lines (GSIs), which are routed to
 * messages or to pins of the interrupt controllers. With these in userspace (split), the first GSIs
 * are the pins of its I/O APIC, which sets for each the message that the pin's redirection entry
 * stands for.
 *
 * The table of routes is made whole, published under vm->lock, and read under vm->srcu: an
 * interrupt goes by the old table or by the new one.
 */
#include <linux/bitmap.h>
#include <linux/overflow.h>

#include "irq.h"

/* Intel SDM vol. 3, "Message Signalled Interrupts" */
#define MSI_ADDRESS_LOGICAL	BIT_ULL(2)
#define MSI_ADDRESS_REDIRECT	BIT_ULL(3)
#define MSI_DATA_LEVEL		BIT(15)

static bool msi_is_wide(const struct moat_vm *vm)
{
	return READ_ONCE(vm->x2apic_api) & KVM_X2APIC_API_USE_32BIT_IDS;
}

/* The upper half of an address: bits 31 to 8 are those of the destination. */
static int msi_check(const struct moat_vm *vm, u32 flags, u32 address_hi)
{
	if (flags & ~KVM_MSI_VALID_DEVID)
		return -EINVAL;
	return msi_is_wide(vm) && (address_hi & 0xff) ? -EINVAL : 0;
}

int moat_msi_deliver(struct moat_vm *vm, u64 address, u32 data)
{
	u32 wide = msi_is_wide(vm) ? address >> 32 & ~0xffu : 0;
	struct moat_irq irq = {
		.dest = wide | (address >> 12 & 0xff),
		.vector = data & 0xff,
		.delivery = data >> 8 & 7,
		.logical = address & MSI_ADDRESS_LOGICAL,
		.level = data & MSI_DATA_LEVEL,
		.assert = true,
	};

	/* A redirected fixed one is lowest priority by another name. */
	if (irq.logical && (address & MSI_ADDRESS_REDIRECT) && !irq.delivery)
		irq.delivery = APIC_DELIVERY_MODE_LOWESTPRIO;
	return moat_irq_deliver(vm, NULL, &irq);
}

static const struct moat_route *route_find(struct moat_vm *vm, u32 gsi)
{
	const struct moat_routing *routing = srcu_dereference(vm->routing, &vm->srcu);

	if (!routing || gsi >= routing->count)
		return NULL;
	return &routing->route[array_index_nospec(gsi, routing->count)];
}

/* The pins that a line leads to, each up as long as somebody holds it up. */
static int pins_set(struct moat_chips *chips, const struct moat_route *route, u8 source, bool level,
		    bool exact)
{
	unsigned int chip, pin;
	int r, status = -1;
	u8 *holders;

	for (chip = 0; chip < KVM_NR_IRQCHIPS; chip++) {
		if (!route->pin[chip])
			continue;
		pin = route->pin[chip] - 1;
		holders = &chips->holders[chip][pin];
		*holders = level ? *holders | BIT(source) : *holders & ~BIT(source);
		r = chip == KVM_IRQCHIP_IOAPIC ? moat_ioapic_line(chips, pin, *holders, exact) :
						 moat_pic_line(chips, chip * 8 + pin, *holders);
		if (r >= 0)
			status = max(status, 0) + r;
	}
	return status;
}

/* A line that is routed to a message is an edge: it says something when it is raised. */
static int route_set(struct moat_vm *vm, const struct moat_route *route, u8 source, bool level,
		     bool exact)
{
	unsigned long flags;
	int status;

	if (route->msi)
		return level ? moat_msi_deliver(vm, route->address, route->data) : -1;
	if (!vm->chips)
		return -1;
	flags = moat_chips_lock(vm->chips);
	status = pins_set(vm->chips, route, source, level, exact);
	moat_chips_unlock(vm->chips, flags);
	return status;
}

int moat_gsi_set(struct moat_vm *vm, u32 gsi, u8 source, bool level, bool exact)
{
	int index = srcu_read_lock(&vm->srcu);
	const struct moat_route *route = route_find(vm, gsi);
	int status = route ? route_set(vm, route, source, level, exact) : -1;

	srcu_read_unlock(&vm->srcu, index);
	return status;
}

void moat_pin_acked(struct moat_vm *vm, unsigned int chip, unsigned int pin)
{
	int index = srcu_read_lock(&vm->srcu);
	u32 gsi = srcu_dereference(vm->routing, &vm->srcu)->gsi[chip][pin];

	srcu_read_unlock(&vm->srcu, index);
	if (gsi == GSI_TIMER + 1 && vm->chips->pit)
		moat_pit_acked(vm->chips->pit);
	if (gsi)
		moat_irqfd_acked(vm, gsi - 1);
}

/* Making a table */

static int entry_check(const struct moat_vm *vm, const struct kvm_irq_routing_entry *entry)
{
	u32 pin = entry->u.irqchip.pin, chip = entry->u.irqchip.irqchip;

	if (entry->gsi >= MOAT_NR_GSIS)
		return -EINVAL;
	if (entry->type == KVM_IRQ_ROUTING_MSI)
		return msi_check(vm, entry->flags, entry->u.msi.address_hi);
	if (entry->type != KVM_IRQ_ROUTING_IRQCHIP || entry->flags || !vm->chips ||
	    chip >= KVM_NR_IRQCHIPS)
		return -EINVAL;
	return pin < (chip == KVM_IRQCHIP_IOAPIC ? KVM_IOAPIC_NUM_PINS : 8) ? 0 : -EINVAL;
}

static void routing_add_pin(struct moat_routing *routing, u32 gsi, u32 chip, u32 pin)
{
	routing->route[gsi].pin[chip] = pin + 1;
	routing->gsi[chip][pin] = gsi + 1;
}

/* -EINVAL where a GSI would stand for two messages, for two pins of a chip, or for both kinds. */
static int routing_add(struct moat_routing *routing, const struct kvm_irq_routing_entry *entry)
{
	struct moat_route *route = &routing->route[entry->gsi];
	bool pin = entry->type == KVM_IRQ_ROUTING_IRQCHIP;

	if (route->msi || (pin ? route->pin[entry->u.irqchip.irqchip] :
				 memchr_inv(route->pin, 0, sizeof(route->pin)) != NULL))
		return -EINVAL;
	if (pin) {
		routing_add_pin(routing, entry->gsi, entry->u.irqchip.irqchip,
				entry->u.irqchip.pin);
		return 0;
	}
	route->msi = true;
	route->address = (u64)entry->u.msi.address_hi << 32 | entry->u.msi.address_lo;
	route->data = entry->u.msi.data;
	return 0;
}

/* Of which vectors a userspace IOAPIC is told the end: those of its pins' levels. */
static void routing_scan(struct moat_vm *vm, const struct moat_routing *routing)
{
	unsigned long vectors[ARRAY_SIZE(vm->eoi_vectors)] = { 0 };
	u32 i;

	for (i = 0; i < min(routing->count, vm->ioapic_pins); i++)
		if (routing->route[i].data & MSI_DATA_LEVEL)
			__set_bit(routing->route[i].data & 0xff, vectors);
	for (i = 0; i < ARRAY_SIZE(vectors) && !vm->chips; i++)
		WRITE_ONCE(vm->eoi_vectors[i], vectors[i]);
}

static void routing_publish(struct moat_vm *vm, struct moat_routing *routing)
{
	struct moat_routing *old;

	lockdep_assert_held(&vm->lock);
	old = rcu_replace_pointer(vm->routing, routing, lockdep_is_held(&vm->lock));
	routing_scan(vm, routing);
	synchronize_srcu_expedited(&vm->srcu);
	kvfree(old);
}

static int routing_set(struct moat_vm *vm, const struct kvm_irq_routing_entry *entries, u32 nr)
{
	struct moat_routing *routing;
	u32 i, count = 0;

	for (i = 0; i < nr; i++) {
		if (entry_check(vm, &entries[i]))
			return -EINVAL;
		count = max(count, entries[i].gsi + 1);
	}
	routing = kvzalloc(struct_size(routing, route, count), GFP_KERNEL_ACCOUNT);
	if (!routing)
		return -ENOMEM;
	routing->count = count;
	for (i = 0; i < nr; i++)
		if (routing_add(routing, &entries[i])) {
			kvfree(routing);
			return -EINVAL;
		}
	routing_publish(vm, routing);
	return 0;
}

/* As a PC's pins are wired, where nobody says otherwise: GSIs are pins. */
int moat_routing_create(struct moat_vm *vm)
{
	struct moat_routing *routing;
	u32 gsi;

	routing = kvzalloc(struct_size(routing, route, KVM_IOAPIC_NUM_PINS), GFP_KERNEL_ACCOUNT);
	if (!routing)
		return -ENOMEM;
	routing->count = KVM_IOAPIC_NUM_PINS;
	for (gsi = 0; gsi < KVM_IOAPIC_NUM_PINS; gsi++) {
		routing_add_pin(routing, gsi, KVM_IRQCHIP_IOAPIC, gsi);
		if (gsi < 16)
			routing_add_pin(routing, gsi, gsi / 8, gsi % 8);
	}
	routing_publish(vm, routing);
	return 0;
}

/* Ioctls */

long moat_vm_set_gsi_routing(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_irq_routing *head = arg;
	const struct kvm_irq_routing __user *user = (const void __user *)uarg;
	struct kvm_irq_routing_entry *entries;
	struct moat_vm *vm = object;
	int r;

	if (!vm->irqchip || head->nr > MOAT_NR_GSIS || head->flags)
		return -EINVAL;
	if (!head->nr)
		return routing_set(vm, NULL, 0);
	entries = vmemdup_user(user->entries, array_size(head->nr, sizeof(*entries)));
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	r = routing_set(vm, entries, head->nr);
	kvfree(entries);
	return r;
}

long moat_vm_signal_msi(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_msi *msi = arg;
	struct moat_vm *vm = object;

	if (!moat_irqchip(vm) || msi_check(vm, msi->flags, msi->address_hi))
		return -EINVAL;
	return moat_msi_deliver(vm, (u64)msi->address_hi << 32 | msi->address_lo, msi->data);
}

static long irq_line(struct moat_vm *vm, struct kvm_irq_level *line, bool exact)
{
	if (!moat_irqchip(vm))
		return -ENXIO;
	line->status = moat_gsi_set(vm, line->irq, MOAT_LINE_USER, line->level, exact);
	return 0;
}

long moat_vm_irq_line(void *object, void *arg, unsigned long uarg)
{
	return irq_line(object, arg, false);
}

/*
 * Who asks wants to make up for lost ticks of the clock at pin 8; of other lines, an edge that
 * comes before the end of the last must not be lost.
 */
long moat_vm_irq_line_status(void *object, void *arg, unsigned long uarg)
{
	return irq_line(object, arg, ((const struct kvm_irq_level *)arg)->irq == GSI_RTC);
}
