// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts from outside of the guest's CPUs: messages, and the lines (GSIs) that are routed to
 * messages. There is no I/O APIC in the kernel: its pins are the first GSIs, for each of which the
 * userspace I/O APIC sets the message that the pin's redirection entry stands for.
 *
 * The table of routes is made whole, published under vm->lock, and read under vm->srcu: an
 * interrupt goes by the old table or by the new one.
 */
#include <linux/bitmap.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <asm/apicdef.h>

#include "irq.h"

/* Intel SDM vol. 3, "Message Signalled Interrupts" */
#define MSI_ADDRESS_LOGICAL	BIT_ULL(2)
#define MSI_ADDRESS_REDIRECT	BIT_ULL(3)
#define MSI_DATA_LEVEL		BIT(15)

int moat_msi_deliver(struct moat_vm *vm, u64 address, u32 data)
{
	struct moat_irq irq = {
		.dest = address >> 12 & 0xff,
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

/* False where the GSI leads nowhere. */
static bool route_find(struct moat_vm *vm, u32 gsi, struct moat_route *route)
{
	const struct moat_routing *routing;
	int index = srcu_read_lock(&vm->srcu);

	route->valid = false;
	routing = srcu_dereference(vm->routing, &vm->srcu);
	if (routing && gsi < routing->count)
		*route = routing->route[array_index_nospec(gsi, routing->count)];
	srcu_read_unlock(&vm->srcu, index);
	return route->valid;
}

/*
 * By the vector alone, as an EOI message of the bus says no more: that the pin's message has been
 * aimed at another vCPU since does not matter.
 */
bool moat_routing_wants_eoi(struct moat_vcpu *vcpu, u8 vector)
{
	struct moat_vm *vm = vcpu->vm;
	const struct moat_routing *routing;
	int index = srcu_read_lock(&vm->srcu);
	bool wants;

	routing = srcu_dereference(vm->routing, &vm->srcu);
	wants = routing && test_bit(vector, routing->eoi_vectors);
	srcu_read_unlock(&vm->srcu, index);
	return wants;
}

static int entry_check(const struct kvm_irq_routing_entry *entry)
{
	if (entry->gsi >= MOAT_NR_GSIS || entry->type != KVM_IRQ_ROUTING_MSI)
		return -EINVAL;
	return entry->flags & ~KVM_MSI_VALID_DEVID ? -EINVAL : 0;
}

static struct moat_routing *routing_alloc(const struct kvm_irq_routing_entry *entries, u32 nr)
{
	struct moat_routing *routing;
	u32 i, count = 0;

	for (i = 0; i < nr; i++) {
		if (entry_check(&entries[i]))
			return ERR_PTR(-EINVAL);
		count = max(count, entries[i].gsi + 1);
	}
	routing = kvzalloc(struct_size(routing, route, count), GFP_KERNEL_ACCOUNT);
	if (!routing)
		return ERR_PTR(-ENOMEM);
	routing->count = count;
	return routing;
}

/* -EINVAL where a GSI comes twice: it can stand for one message only. */
static int routing_fill(struct moat_routing *routing, const struct kvm_irq_routing_entry *entries,
			u32 nr, u32 ioapic_pins)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		const struct kvm_irq_routing_entry *entry = &entries[i];
		struct moat_route *route = &routing->route[entry->gsi];

		if (route->valid)
			return -EINVAL;
		route->valid = true;
		route->address = (u64)entry->u.msi.address_hi << 32 | entry->u.msi.address_lo;
		route->data = entry->u.msi.data;
		if (entry->gsi < ioapic_pins && (route->data & MSI_DATA_LEVEL))
			__set_bit(route->data & 0xff, routing->eoi_vectors);
	}
	return 0;
}

static void routing_publish(struct moat_vm *vm, struct moat_routing *routing)
{
	struct moat_routing *old;

	lockdep_assert_held(&vm->lock);
	old = rcu_replace_pointer(vm->routing, routing, lockdep_is_held(&vm->lock));
	synchronize_srcu(&vm->srcu);
	kvfree(old);
}

static int routing_set(struct moat_vm *vm, const struct kvm_irq_routing_entry *entries, u32 nr)
{
	struct moat_routing *routing = routing_alloc(entries, nr);
	int r;

	if (IS_ERR(routing))
		return PTR_ERR(routing);
	r = routing_fill(routing, entries, nr, vm->ioapic_pins);
	if (r) {
		kvfree(routing);
		return r;
	}
	routing_publish(vm, routing);
	return 0;
}

long moat_vm_set_gsi_routing(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_irq_routing *head = arg;
	const struct kvm_irq_routing __user *user = (const void __user *)uarg;
	struct kvm_irq_routing_entry *entries;
	struct moat_vm *vm = object;
	int r;

	if (!vm->split_irqchip || head->nr > MOAT_NR_GSIS || head->flags)
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

	if (!READ_ONCE(vm->split_irqchip) || (msi->flags & ~KVM_MSI_VALID_DEVID))
		return -EINVAL;
	return moat_msi_deliver(vm, (u64)msi->address_hi << 32 | msi->address_lo, msi->data);
}

/* A line that is routed to a message is an edge: it says something when it is raised. */
long moat_vm_irq_line(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_irq_level *line = arg;
	struct moat_vm *vm = object;
	struct moat_route route;

	if (!READ_ONCE(vm->split_irqchip))
		return -ENXIO;
	if (line->level && route_find(vm, line->irq, &route))
		moat_msi_deliver(vm, route.address, route.data);
	return 0;
}
