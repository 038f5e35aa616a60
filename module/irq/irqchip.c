// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PC's own interrupt controllers, taken together: their lock, their life, their ioctls.
 *
 * They are slow devices that a running guest seldom touches, so one lock serves them all. It is
 * taken in hard interrupts. What the guest has ended at the PICs is noted in pic_acked, and told
 * when the lock has been let go: who is told may set lines.
 */
#include "irq.h"

unsigned long moat_chips_lock(struct moat_chips *chips) __acquires(&chips->lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&chips->lock, flags);
	return flags;
}

void moat_chips_unlock(struct moat_chips *chips, unsigned long flags) __releases(&chips->lock)
{
	unsigned long acked = chips->pic_acked;
	unsigned int pin;

	chips->pic_acked = 0;
	raw_spin_unlock_irqrestore(&chips->lock, flags);
	for_each_set_bit(pin, &acked, 16)
		moat_pin_acked(chips->vm, pin / 8, pin % 8);
}

long moat_vm_create_irqchip(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	int r;

	if (vm->irqchip)
		return -EEXIST;
	if (vm->vcpu_count)
		return -EINVAL;
	vm->chips = kzalloc(sizeof(*vm->chips), GFP_KERNEL_ACCOUNT);
	if (!vm->chips)
		return -ENOMEM;
	vm->chips->vm = vm;
	raw_spin_lock_init(&vm->chips->lock);
	moat_pic_reset(vm->chips);
	moat_ioapic_reset(vm->chips);
	r = moat_routing_create(vm);
	if (r)
		moat_irqchip_destroy(vm);
	else	/* pairs with moat_irqchip() */
		smp_store_release(&vm->irqchip, MOAT_IRQCHIP_KERNEL);
	return r;
}

/* Also what is there where creating it failed halfway. */
void moat_irqchip_destroy(struct moat_vm *vm)
{
	if (vm->chips)
		moat_pit_destroy(vm->chips->pit);
	kvfree(rcu_replace_pointer(vm->routing, NULL, true));
	kfree(vm->chips);
	vm->chips = NULL;
}

static long irqchip_state(struct moat_vm *vm, struct kvm_irqchip *state, bool set)
{
	bool ioapic = state->chip_id == KVM_IRQCHIP_IOAPIC, second = state->chip_id & 1;
	struct moat_chips *chips = vm->chips;
	unsigned long flags;

	if (!chips)
		return -ENXIO;
	if (state->chip_id >= KVM_NR_IRQCHIPS)
		return -EINVAL;
	flags = moat_chips_lock(chips);
	if (set && ioapic) {
		moat_ioapic_set_state(chips, &state->chip.ioapic);
	} else if (set) {
		moat_pic_set_state(chips, second, &state->chip.pic);
	} else if (ioapic) {
		state->chip.ioapic = chips->ioapic;
		state->chip.ioapic.irr &= ~chips->delivered;
	} else {
		state->chip.pic = chips->pic[second];
	}
	moat_chips_unlock(chips, flags);
	return 0;
}

long moat_vm_get_irqchip(void *object, void *arg, unsigned long uarg)
{
	return irqchip_state(object, arg, false);
}

long moat_vm_set_irqchip(void *object, void *arg, unsigned long uarg)
{
	return irqchip_state(object, arg, true);
}
