/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interrupts: the controllers in the kernel, and the ways into them.
 */
#ifndef MOAT_IRQ_H
#define MOAT_IRQ_H

#include <asm/apicdef.h>
#include <asm/msr-index.h>

#include "../moat.h"

/* irq/lapic.c: one local APIC, as struct kvm_lapic_state lays its registers out. */
int moat_lapic_create(struct moat_vcpu *vcpu);
void moat_lapic_destroy(struct moat_vcpu *vcpu);
/* To the state after power-on, or after INIT (which keeps the APIC base and the id). */
void moat_lapic_reset(struct moat_vcpu *vcpu, bool init);

/* Whether gpa is inside this vCPU's xAPIC page, and the page is on. */
static inline bool moat_lapic_covers(const struct moat_vcpu *vcpu, u64 gpa)
{
	u64 base = vcpu->msrs.apic_base;

	return !((gpa ^ base) & PAGE_MASK) && vcpu->lapic &&
	       (base & (MSR_IA32_APICBASE_ENABLE | X2APIC_ENABLE)) == MSR_IA32_APICBASE_ENABLE;
}

/*
 * An access there, or false: aligned 32-bit ones work, others read 0 or are ignored, as in hardware.
 */
bool moat_lapic_mmio(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write);

/* x2APIC MSRs 0x800..0x8ff: 0, or -EINVAL for what must be #GP. */
int moat_lapic_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value);
int moat_lapic_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value);
/* IA32_APIC_BASE (also by the host, from KVM_SET_SREGS): 0 or -EINVAL for an illegal change. */
int moat_lapic_set_base(struct moat_vcpu *vcpu, u64 value, bool host);
/* IA32_TSC_DEADLINE. */
u64 moat_lapic_get_deadline(struct moat_vcpu *vcpu);
void moat_lapic_set_deadline(struct moat_vcpu *vcpu, u64 guest_tsc);

/* CR8, the task priority (0..15). */
void moat_cr8_set(struct moat_vcpu *vcpu, u8 cr8);

/* The vector that would be delivered now, by priority against PPR, or -1. Changes nothing. */
int moat_lapic_pending(struct moat_vcpu *vcpu);
/* Highest vector requested, whatever the priority, or -1: what a TPR threshold is compared with. */
int moat_lapic_highest_irr(struct moat_vcpu *vcpu);
/* Accepts that vector: IRR to ISR. Returns it. */
int moat_lapic_accept(struct moat_vcpu *vcpu);
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
/* Whether external interrupts from a PIC reach this vCPU (LVT0 ExtINT, or APIC off). */
bool moat_lapic_accepts_pic(struct moat_vcpu *vcpu);

/* moat_irq.shorthand */
enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

/*
 * Sends an interrupt to the vCPUs that it names; source is who sent it, or NULL for a device, which
 * uses no shorthand. Returns how many accepted it, as KVM_SIGNAL_MSI answers; one that had the
 * vector requested already counts. Any context.
 */
int moat_irq_deliver(struct moat_vm *vm, struct moat_vcpu *source, const struct moat_irq *irq);

/* Whether a vCPU that it names has the vector requested or in service. Any context. */
bool moat_irq_in_progress(struct moat_vm *vm, const struct moat_irq *irq);

/* irq/irqchip.c */
struct moat_chips {
	struct moat_vm *vm;		/* (c) */
	raw_spinlock_t lock;		/* guards all below; taken in hard interrupts */
	u8 holders[KVM_NR_IRQCHIPS][KVM_IOAPIC_NUM_PINS];	/* a bit for each who has it up */
	struct kvm_ioapic_state ioapic;
	u32 delivered;			/* edges that were sent, of lines in ioapic.irr */
	struct kvm_pic_state pic[2];
	bool pic_output;		/* they ask for a CPU; read without the lock too */
	unsigned long pic_acked;	/* pins whose end is to be told, the second's from 8 on */
	struct moat_pit *pit;		/* (m) NULL or set once */
	bool speaker;			/* (m) before pit: it has the port of the speaker */
};

unsigned long moat_chips_lock(struct moat_chips *chips) __acquires(&chips->lock);
void moat_chips_unlock(struct moat_chips *chips, unsigned long flags) __releases(&chips->lock);
void moat_irqchip_destroy(struct moat_vm *vm);

/*
 * irq/ioapic.c, irq/pic.c: under the chips' lock, but for those that take it. Setting a line, here
 * and below, answers as KVM_IRQ_LINE_STATUS does: -1 nobody got it, 0 it is one with an earlier
 * one, else how many did.
 */
void moat_ioapic_reset(struct moat_chips *chips);
void moat_ioapic_set_state(struct moat_chips *chips, const struct kvm_ioapic_state *state);
int moat_ioapic_line(struct moat_chips *chips, u8 pin, bool level, bool exact);
/* Takes the lock. False where gpa is not in the IOAPIC's page. */
bool moat_ioapic_mmio(struct moat_chips *chips, u64 gpa, void *data, unsigned int len, bool write);
/* Takes the lock. The end of a vector of vm->eoi_vectors; level as its local APIC remembers it. */
void moat_ioapic_eoi(struct moat_chips *chips, u8 vector, bool level);

void moat_pic_reset(struct moat_chips *chips);
void moat_pic_set_state(struct moat_chips *chips, bool second, const struct kvm_pic_state *state);
int moat_pic_line(struct moat_chips *chips, u8 pin, bool level);
/* These two take the lock. */
void moat_pic_port(struct moat_vm *vm, u16 port, u8 *value, bool in);
void moat_elcr_port(struct moat_vm *vm, u16 port, u8 *value, bool in);
/* Takes the lock. Which vector a CPU is told to take, in answer to its acknowledgement. */
u8 moat_pic_accept(struct moat_chips *chips);

/* irq/pit.c */
void moat_pit_destroy(struct moat_pit *pit);
void moat_pit_port(struct moat_vm *vm, u16 port, u8 *value, bool in);
/* A tick was handled to its end. */
void moat_pit_acked(struct moat_pit *pit);

/* irq/routing.c */
#define GSI_TIMER	0
#define GSI_RTC		8

/* Who holds a line up: it is up as long as one of them does. */
enum moat_line_source { MOAT_LINE_USER, MOAT_LINE_RESAMPLE, MOAT_LINE_PIT };

int moat_routing_create(struct moat_vm *vm);
/* How many vCPUs accepted it, 0 where the guest blocks it: as KVM_SIGNAL_MSI. Any context. */
int moat_msi_deliver(struct moat_vm *vm, u64 address, u32 data);
/*
 * Sets a GSI's line as for source. With exact, an edge whose predecessor the guest has not ended
 * yet is not made, which the answer 0 tells. Any context.
 */
int moat_gsi_set(struct moat_vm *vm, u32 gsi, u8 source, bool level, bool exact);
/* The guest has ended the interrupt of a pin. The chips' lock is not held. */
void moat_pin_acked(struct moat_vm *vm, unsigned int chip, unsigned int pin);

/* irq/irqfd.c */
void moat_irqfd_init(struct moat_vm *vm);
void moat_irqfd_destroy(struct moat_vm *vm);
/* The guest has ended an interrupt of this line. */
void moat_irqfd_acked(struct moat_vm *vm, u32 gsi);

/* irq/ioeventfd.c */
int moat_ioeventfd_init(struct moat_vm *vm);
void moat_ioeventfd_destroy(struct moat_vm *vm);
/* Makes a write of at most 8 bytes into a signal, or puts it into the ring; or false. */
bool moat_ioeventfd_write(struct moat_vm *vm, bool pio, u64 addr, u64 value, u32 len);

/* irq/iobus.c: what of I/O is served here. False where it is userspace's to do. Nothing sleeps. */
bool moat_iobus_port(struct moat_vm *vm, u16 port, u32 *value, unsigned int size, bool in);
bool moat_iobus_mmio(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write);

moat_ioctl_fn moat_vcpu_get_lapic, moat_vcpu_set_lapic, moat_vcpu_set_vapic_addr,
	moat_vcpu_tpr_access_reporting, moat_vm_signal_msi, moat_vm_set_gsi_routing,
	moat_vm_irq_line, moat_vm_irq_line_status, moat_vm_create_irqchip, moat_vm_get_irqchip,
	moat_vm_set_irqchip, moat_vm_ioeventfd, moat_vm_register_coalesced,
	moat_vm_unregister_coalesced, moat_vm_irqfd, moat_vm_create_pit2, moat_vm_get_pit2,
	moat_vm_set_pit2, moat_vm_reinject_control;

#endif
