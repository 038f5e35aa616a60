/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the AMD-V back end share.
 */
#ifndef MOAT_SVM_H
#define MOAT_SVM_H

#include "../hw.h"
#include "vmcb.h"

#define SVM_SEGMENTS		8
#define SVM_ATTRIB_NONE		0xffff

/* A vCPU's own part. */
struct svm_vcpu {
	struct vmcb *vmcb;
	u64 vmcb_pa;
	u64 asid_generation;	/* of the CPU in vcpu->cpu; 0 for none yet */
	u16 attrib[SVM_SEGMENTS];	/* as vcpu->sregs has them, SVM_ATTRIB_NONE for unknown */
	u64 cr0_hidden;		/* bits of the guest's CR0 that the CPU's own does not have */
	bool dr_loaded;		/* DR0-3 hold the guest's values, accesses are not intercepted */
	bool injecting;		/* event_inject was set for this entry */
	bool soft_injected;	/* ... INT3 or INTO by it */
	u64 soft_rip;		/* ... which is there */
	bool iret_step;		/* single-stepping over the IRET that ends an NMI */
	bool iret_own_tf;	/* ... with a trap flag that the guest did not set */
	bool iret_wait;		/* that IRET, at iret_rip, goes on as it is */
	u64 iret_rip;
};

/* A CPU's own part. */
struct svm_cpu {
	void *hsave;		/* the processor's own host save area */
	u64 host_pa;		/* where VMSAVE keeps what VMRUN does not */
	u32 asid_next;
	u64 asid_generation;
};

DECLARE_PER_CPU(struct svm_cpu, svm_cpus);

struct svm_features {
	u32 asid_max;
	bool nrip;
	bool flush_by_asid;
	u64 host_xss;
};

extern struct svm_features svm_features;
extern u64 svm_iopm_pa, svm_msrpm_pa, svm_msrpm_all_pa;

static inline struct svm_vcpu *svm_of(struct moat_vcpu *vcpu)
{
	return vcpu->hw;
}

/* vmcb.c */
void svm_vcpu_reset(struct moat_vcpu *vcpu, bool init);
void svm_sregs_load(struct moat_vcpu *vcpu);
void svm_sregs_store(struct moat_vcpu *vcpu);
void svm_cr0_hide(struct svm_vcpu *svm, u64 cr0, u64 hidden);
int svm_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value);
int svm_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value);
extern const u32 svm_msr_list[];

/* run.c */
enum moat_exit svm_run(struct moat_vcpu *vcpu);
void svm_debug_enter(struct moat_vcpu *vcpu);
void svm_window_close(struct svm_vcpu *svm);

/* exit.c */
/* MOAT_NR_EXITS where the exit is served and the guest may go on at once. */
enum moat_exit svm_exit(struct moat_vcpu *vcpu);
void svm_code_find(struct moat_vcpu *vcpu, struct moat_code *ret_code);

/* enter.S */
/*
 * Enters the guest with the registers in gpr[] (all but RAX and RSP, which are in the VMCB),
 * returns after #VMEXIT. Interrupts off before and after; a pending one ends the guest's run.
 */
void svm_enter(u64 *gpr, u64 vmcb_pa, u64 host_pa);

#endif
