/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the VT-x back end share.
 *
 * A CPU is in VMX operation only while a guest runs on it, interrupts off: where they are let in,
 * and where the loop ends, it leaves it. So CR4.VMXE, which the kernel does not know of, is never in
 * the way of those who write CR4, INIT is never blocked, and no VMCS is left behind on another CPU.
 */
#ifndef MOAT_VMX_H
#define MOAT_VMX_H

#include <asm/desc.h>

#include "../inner.h"
#include "vmcs.h"

#define VMX_SEGMENTS		8

/* A vCPU's own part. */
struct vmx_vcpu {
	struct vmcs *vmcs;
	u64 vmcs_pa;
	bool ready;		/* the VMCS has what it starts with */
	bool current_here;	/* this CPU is in VMX operation, and the VMCS the current one */
	bool launched;
	int host_cpu;		/* whose host state the VMCS has */
	u64 vpid_generation;	/* of the CPU in vcpu->cpu; 0 for none yet */
	bool flush;		/* translations go before the next entry */
	bool msrs_dirty;	/* what of the MSRs is in the VMCS, or in the CPU, is to be written */

	/* What the VMCS has, where it need not be read: */
	u64 rip, rsp, rflags, dr7;
	u64 host_cr3, host_cr4, host_fs_base;
	u32 interruptibility;
	u32 controls;		/* primary processor-based */
	u32 secondary;
	u32 exception_bitmap;
	u32 tpr_threshold;
	u32 ar[VMX_SEGMENTS];	/* as vcpu->sregs has them, VMX_AR_NONE for unknown */

	/* Of the last exit. */
	u32 reason;
	u32 vectoring;

	/* Registers of the guest's that are in no VMCS, or that the guest cannot change by itself. */
	u64 cr2;
	u64 star, lstar, cstar, syscall_mask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat;

	bool dr_loaded;		/* DR0-3 and DR6 hold the guest's values, accesses make no exit */
	bool injecting;		/* an event was put in for this entry */
	bool soft_injected;	/* ... INT3 or INTO by it */
};

#define VMX_AR_NONE	(~0u)

/* A CPU's own part: what of its state is the same for all runs, and what is put aside in one. */
struct vmx_cpu {
	struct vmcs *vmxon;
	u32 vpid_next;
	u64 vpid_generation;
	u64 gs_base, tr_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 star, lstar, syscall_mask;

	struct desc_ptr gdt, idt;
	u16 ds, es, fs, gs, ldt;
	unsigned long cr4;
	u64 kernel_gs_base;
	u64 debugctl;
};

DECLARE_PER_CPU(struct vmx_cpu, vmx_cpus);

/* The controls of all guests, and what else the CPU offers. */
struct vmx_features {
	u32 revision;
	u32 pin, primary, secondary, exit, entry;
	u64 eptp_flags;
	unsigned long invept_extent;
	u32 timer;		/* of the preemption timer, where it is used */
	u32 x2apic;		/* secondary control of vCPUs in x2APIC mode */
	bool vpid;
	u64 host_efer, host_pat;
	bool l1d_flush;
};

extern struct vmx_features vmx_features;
extern unsigned int vmx_ple_window;
extern u64 vmx_msr_bitmap_pa, vmx_msr_bitmap_x2apic_pa, vmx_msr_bitmap_all_pa;

static inline struct vmx_vcpu *vmx_of(struct moat_vcpu *vcpu)
{
	return vcpu->hw;
}

static inline void vmx_control_set(struct vmx_vcpu *vmx, u32 bits, bool on)
{
	u32 controls = on ? vmx->controls | bits : vmx->controls & ~bits;

	if (controls != vmx->controls)
		vmcs_write(CPU_BASED_VM_EXEC_CONTROL, controls);
	vmx->controls = controls;
}

/* vmx.c */
/* Into VMX operation with the VMCS current, and out of it. False where the CPU is another's. Twins. */
bool vmx_operation_enter(struct vmx_vcpu *vmx);
void vmx_operation_leave(struct vmx_vcpu *vmx);

/* vmcs.c */
void vmx_vcpu_reset(struct moat_vcpu *vcpu, bool init);
void vmx_vmcs_init(struct moat_vcpu *vcpu);
void vmx_sregs_load(struct moat_vcpu *vcpu);
/* False where a page of the guest's is to be brought in first: vcpu->fault. */
bool vmx_sregs_store(struct moat_vcpu *vcpu);
int vmx_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value);
int vmx_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value);
extern const u32 vmx_msr_list[];

/* run.c */
enum moat_exit vmx_run(struct moat_vcpu *vcpu);
/* Out of VMX operation, to let the host's interrupts in, and back. False where it is over. */
bool vmx_pause(struct moat_vcpu *vcpu);
void vmx_debug_enter(struct moat_vcpu *vcpu);

/* exit.c */
/* MOAT_NR_EXITS where the exit is served and the guest may go on at once. */
enum moat_exit vmx_exit(struct moat_vcpu *vcpu);
void vmx_code_find(struct moat_vcpu *vcpu, struct moat_code *ret_code);

/* enter.S */
/*
 * Enters the guest with the registers in gpr[] (all but RSP, which is in the VMCS), by VMRESUME where
 * it was launched before; returns after the exit: 0, or 1 where the entry failed. Interrupts off.
 */
int vmx_enter(u64 *gpr, bool launched);

#endif
