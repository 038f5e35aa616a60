/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interrupts: the local APICs in the kernel, and the ways into them.
 */
#ifndef MOAT_IRQ_H
#define MOAT_IRQ_H

#include "../moat.h"

/* irq/lapic.c: one local APIC, as struct kvm_lapic_state lays its registers out. */
int moat_lapic_create(struct moat_vcpu *vcpu);
void moat_lapic_destroy(struct moat_vcpu *vcpu);
/* To the state after power-on, or after INIT (which keeps the APIC base and the id). */
void moat_lapic_reset(struct moat_vcpu *vcpu, bool init);

/* Whether gpa is inside this vCPU's xAPIC page, and the page is on. */
bool moat_lapic_covers(struct moat_vcpu *vcpu, u64 gpa);
/* The xAPIC page: aligned 32-bit accesses work, others read 0 or are ignored, as in hardware. */
void moat_lapic_mmio_read(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len);
void moat_lapic_mmio_write(struct moat_vcpu *vcpu, u64 gpa, const void *data, unsigned int len);

/* x2APIC MSRs 0x800..0x8ff: 0, or -EINVAL for what must be #GP. */
int moat_lapic_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value);
int moat_lapic_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value);
/* IA32_APIC_BASE (also by the host, from KVM_SET_SREGS): 0 or -EINVAL for an illegal change. */
int moat_lapic_set_base(struct moat_vcpu *vcpu, u64 value, bool host);
/* IA32_TSC_DEADLINE. */
u64 moat_lapic_get_deadline(struct moat_vcpu *vcpu);
void moat_lapic_set_deadline(struct moat_vcpu *vcpu, u64 guest_tsc);

/* CR8, and the vendor's copy of the task priority (0..15). Cheap: each entry and exit. */
u8 moat_lapic_get_cr8(struct moat_vcpu *vcpu);
void moat_lapic_set_cr8(struct moat_vcpu *vcpu, u8 cr8);

/* The vector that would be delivered now, by priority against PPR, or -1. Changes nothing. */
int moat_lapic_pending(struct moat_vcpu *vcpu);
/* Highest vector requested, whatever the priority, or -1: what a TPR threshold is compared with. */
int moat_lapic_highest_irr(struct moat_vcpu *vcpu);
/* Accepts that vector: IRR to ISR. */
void moat_lapic_accept(struct moat_vcpu *vcpu, u8 vector);
/*
 * With vcpu->pv_eoi_offer: the guest may end its interrupt in memory no more; has it done so? In
 * the vendor's loop before it looks at requests, and, where it may sleep, after it.
 */
void moat_pv_eoi_withdraw(struct moat_vcpu *vcpu, bool may_sleep);
/* With MOAT_REQ_VAPIC: the page's task priority becomes the APIC's; it shows the APIC's state. */
void moat_vapic_look(struct moat_vcpu *vcpu);
void moat_vapic_show(struct moat_vcpu *vcpu);
/* Sends what is written to the ICR, to dest; how many accepted it. */
int moat_lapic_send(struct moat_vcpu *vcpu, u32 icr, u32 dest, bool x2apic);

/* INIT and SIPI that arrived: changes vcpu->mp_state, resets. In the vCPU's own thread. */
void moat_lapic_accept_events(struct moat_vcpu *vcpu);
bool moat_lapic_has_events(struct moat_vcpu *vcpu);
/* Whether external interrupts from a userspace PIC reach this vCPU (LVT0 ExtINT, or APIC off). */
bool moat_lapic_accepts_pic(struct moat_vcpu *vcpu);

void moat_lapic_get_state(struct moat_vcpu *vcpu, struct kvm_lapic_state *state);
int moat_lapic_set_state(struct moat_vcpu *vcpu, const struct kvm_lapic_state *state);

/*
 * Sends an interrupt to the vCPUs that it names; source is who sent it, or NULL for a device, which
 * uses no shorthand. Returns how many accepted it, as KVM_SIGNAL_MSI answers; one that had the
 * vector requested already counts. Any context.
 */
int moat_irq_deliver(struct moat_vm *vm, struct moat_vcpu *source, const struct moat_irq *irq);

/* irq/routing.c */
/* How many vCPUs accepted it, 0 where the guest blocks it: as KVM_SIGNAL_MSI. Any context. */
int moat_msi_deliver(struct moat_vm *vm, u64 address, u32 data);
/* Whether an EOI of this level-triggered vector on this vCPU must reach the userspace IOAPIC. */
bool moat_routing_wants_eoi(struct moat_vcpu *vcpu, u8 vector);

long moat_vcpu_get_lapic(void *object, void *arg, unsigned long uarg);
long moat_vcpu_set_lapic(void *object, void *arg, unsigned long uarg);
long moat_vcpu_set_vapic_addr(void *object, void *arg, unsigned long uarg);
long moat_vcpu_tpr_access_reporting(void *object, void *arg, unsigned long uarg);
long moat_vm_signal_msi(void *object, void *arg, unsigned long uarg);
long moat_vm_set_gsi_routing(void *object, void *arg, unsigned long uarg);
long moat_vm_irq_line(void *object, void *arg, unsigned long uarg);

#endif
