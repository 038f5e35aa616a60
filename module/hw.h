/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that the core knows of a vendor. module/svm and module/vmx each provide one of these.
 */
#ifndef MOAT_HW_H
#define MOAT_HW_H

#include <asm/apicdef.h>

#include "moat.h"

/**
 * struct moat_hw_ops - a vendor's back end
 * @name: as in messages, "AMD-V" or "VT-x".
 * @stage2: format of the second-level page tables.
 * @setup: looks whether the CPU can do it and allocates what all VMs share; says why not.
 * @teardown: undoes @setup.
 * @cpu_enable: turns virtualization on, on this CPU, interrupts off; -EBUSY where another holds it.
 * @cpu_disable: turns off what @cpu_enable turned on, on this CPU; harmless where it was off.
 * @vcpu_create: allocates vcpu->hw.
 * @vcpu_destroy: frees it, NULL or not.
 * @vcpu_reset: brings the vendor's hidden state and MSRs to that of power-on, or of INIT; registers
 *	are the core's.
 * @sregs_load: reads the hardware's copy of segments and control registers into vcpu->sregs.
 * @code_find: where the vCPU's code runs, without reading all of vcpu->sregs.
 * @msr_read: an MSR whose hardware copy is the vendor's; 0 or -ENOENT.
 * @msr_write: the same; the core has checked canonical addresses and reserved bits where it knows
 * them.
 * @msr_list: the indices for which @msr_read and @msr_write answer, ending with 0.
 * @run: enters the guest until there is something that the vendor's own loop cannot serve. Called
 *	with preemption off, guest FPU loaded, interrupts on; returns so.
 */
struct moat_hw_ops {
	const char *name;
	const struct stage2_format *stage2;
	int (*setup)(void);
	void (*teardown)(void);
	int (*cpu_enable)(void);
	void (*cpu_disable)(void);
	int (*vcpu_create)(struct moat_vcpu *vcpu);
	void (*vcpu_destroy)(struct moat_vcpu *vcpu);
	void (*vcpu_reset)(struct moat_vcpu *vcpu, bool init);
	void (*sregs_load)(struct moat_vcpu *vcpu);
	void (*code_find)(struct moat_vcpu *vcpu, struct moat_code *ret_code);
	int (*msr_read)(struct moat_vcpu *vcpu, u32 index, u64 *value);
	int (*msr_write)(struct moat_vcpu *vcpu, u32 index, u64 value);
	const u32 *msr_list;
	enum moat_exit (*run)(struct moat_vcpu *vcpu);
};

/* The vendor in use; set once, by moat_host_init(). */
extern const struct moat_hw_ops *moat_hw;
extern const struct moat_hw_ops svm_hw_ops;
extern const struct moat_hw_ops vmx_hw_ops;

/* host.c */
int moat_host_init(void);
void moat_host_exit(void);

/* Segments and control registers, read from the hardware's copy where it is newer. */
static inline struct kvm_sregs *moat_sregs(struct moat_vcpu *vcpu)
{
	if (!vcpu->sregs_valid) {
		moat_hw->sregs_load(vcpu);
		vcpu->sregs_valid = true;
	}
	return &vcpu->sregs;
}

/* The same, to be changed. */
static inline struct kvm_sregs *moat_sregs_change(struct moat_vcpu *vcpu)
{
	vcpu->sregs_dirty = true;
	return moat_sregs(vcpu);
}

/* Bits 3:0 of the task priority are none of CR8's. */
static inline u8 moat_cr8(const struct moat_vcpu *vcpu)
{
	return vcpu->apic_page[APIC_TASKPRI] >> 4;
}

#endif
