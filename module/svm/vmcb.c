// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VMCB's contents: what it starts with, and its registers to and from the core's form.
 */
#include <linux/mm.h>
#include <asm/msr.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "../x86/x86.h"
#include "svm.h"

#define MISC1	(SVM_INTR | SVM_NMI | SVM_SMI | SVM_INIT | SVM_CR0_SEL_WRITE | SVM_RDPMC |	\
		 SVM_CPUID | SVM_RSM | SVM_INVD | SVM_HLT | SVM_INVLPGA | SVM_IOIO | SVM_MSR |	\
		 SVM_FERR_FREEZE | SVM_SHUTDOWN)
#define MISC2	(SVM_VMRUN | SVM_VMMCALL | SVM_VMLOAD | SVM_VMSAVE | SVM_STGI | SVM_CLGI | \
		 SVM_SKINIT | SVM_WBINVD | SVM_MONITOR | SVM_MWAIT | SVM_MWAIT_ARMED | SVM_XSETBV | \
		 SVM_RDPRU)

#define PAT_RESET	0x0007040600070406ULL

/* INIT keeps the MSRs that are in the VMCB; all other registers are the core's to set. */
void svm_vcpu_reset(struct moat_vcpu *vcpu, bool init)
{
	struct svm_vcpu *svm = svm_of(vcpu);
	struct vmcb *vmcb = svm->vmcb;

	memset(vmcb, 0, init ? offsetof(struct vmcb, es) : sizeof(*vmcb));
	if (!init)
		vmcb->g_pat = PAT_RESET;
	vmcb->intercept_cr = SVM_CR_WRITE(4);
	vmcb->intercept_dr = U32_MAX;
	vmcb->intercept_misc1 = MISC1;
	vmcb->intercept_misc2 = MISC2;
	vmcb->iopm_base = svm_iopm_pa;
	vmcb->vintr = SVM_V_INTR_MASKING;
	vmcb->nested_control = 1;
	vmcb->nested_cr3 = stage2_root_address(&vcpu->vm->stage2);
	svm->asid_generation = 0;
	svm->iret_step = false;
	svm->iret_wait = false;
	memset(svm->attrib, 0xff, sizeof(svm->attrib));
}

/* Attributes seldom change: taking them apart again is most of the work. */
static void segment_load(struct kvm_segment *to, const struct svm_segment *from, u16 *attrib)
{
	to->base = from->base;
	to->limit = from->limit;
	to->selector = from->selector;
	if (from->attrib == *attrib)
		return;
	*attrib = from->attrib;
	to->type = from->attrib & 15;
	to->s = from->attrib >> 4 & 1;
	to->dpl = from->attrib >> 5 & 3;
	to->present = from->attrib >> 7 & 1;
	to->avl = from->attrib >> 8 & 1;
	to->l = from->attrib >> 9 & 1;
	to->db = from->attrib >> 10 & 1;
	to->g = from->attrib >> 11 & 1;
	to->unusable = !to->present;
	to->padding = 0;
}

static void segment_store(struct svm_segment *to, const struct kvm_segment *from)
{
	bool present = from->present && !from->unusable;

	to->base = from->base;
	to->limit = from->limit;
	to->selector = from->selector;
	to->attrib = (from->type & 15) | (from->s & 1) << 4 | (from->dpl & 3) << 5 | present << 7 |
		     (from->avl & 1) << 8 | (from->l & 1) << 9 | (from->db & 1) << 10 |
		     (from->g & 1) << 11;
}

void svm_sregs_load(struct moat_vcpu *vcpu)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	struct kvm_sregs *s = &vcpu->sregs;
	u16 *attrib = svm_of(vcpu)->attrib;

	segment_load(&s->cs, &vmcb->cs, &attrib[0]);
	segment_load(&s->ds, &vmcb->ds, &attrib[1]);
	segment_load(&s->es, &vmcb->es, &attrib[2]);
	segment_load(&s->fs, &vmcb->fs, &attrib[3]);
	segment_load(&s->gs, &vmcb->gs, &attrib[4]);
	segment_load(&s->ss, &vmcb->ss, &attrib[5]);
	segment_load(&s->tr, &vmcb->tr, &attrib[6]);
	segment_load(&s->ldt, &vmcb->ldtr, &attrib[7]);
	/* The privilege level is a field of its own; by the core's rule it is that of SS. */
	s->ss.dpl = vmcb->cpl;
	s->gdt.base = vmcb->gdtr.base;
	s->gdt.limit = vmcb->gdtr.limit;
	s->idt.base = vmcb->idtr.base;
	s->idt.limit = vmcb->idtr.limit;
	s->cr0 = vmcb->cr0 | svm_of(vcpu)->cr0_hidden;
	s->cr2 = vmcb->cr2;
	s->cr3 = vmcb->cr3;
	s->cr4 = vmcb->cr4;
	s->efer = vmcb->efer & ~EFER_SVME;
}

/*
 * Firmware runs with caches off, as after power-on: the guest's CR0 says so, the CPU's does not, or
 * it would be very slow. While they differ, the guest's accesses to CR0 are emulated.
 */
void svm_cr0_hide(struct svm_vcpu *svm, u64 cr0, u64 hidden)
{
	svm->cr0_hidden = hidden;
	svm->vmcb->cr0 = cr0 & ~hidden;
	svm->vmcb->intercept_cr &= ~(SVM_CR_READ(0) | SVM_CR_WRITE(0));
	if (hidden)
		svm->vmcb->intercept_cr |= SVM_CR_READ(0) | SVM_CR_WRITE(0);
}

void svm_sregs_store(struct moat_vcpu *vcpu)
{
	struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	const struct kvm_sregs *s = &vcpu->sregs;

	segment_store(&vmcb->cs, &s->cs);
	segment_store(&vmcb->ds, &s->ds);
	segment_store(&vmcb->es, &s->es);
	segment_store(&vmcb->fs, &s->fs);
	segment_store(&vmcb->gs, &s->gs);
	segment_store(&vmcb->ss, &s->ss);
	segment_store(&vmcb->tr, &s->tr);
	segment_store(&vmcb->ldtr, &s->ldt);
	vmcb->cpl = s->ss.dpl & 3;
	vmcb->gdtr.base = s->gdt.base;
	vmcb->gdtr.limit = s->gdt.limit;
	vmcb->idtr.base = s->idt.base;
	vmcb->idtr.limit = s->idt.limit;
	svm_cr0_hide(svm_of(vcpu), s->cr0, s->cr0 & (X86_CR0_CD | X86_CR0_NW));
	vmcb->cr2 = s->cr2;
	vmcb->cr3 = s->cr3;
	vmcb->cr4 = s->cr4;
	vmcb->efer = s->efer | EFER_SVME;
	vcpu->sregs_dirty = false;
	memset(svm_of(vcpu)->attrib, 0xff, sizeof(svm_of(vcpu)->attrib));
}

const u32 svm_msr_list[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE,
	MSR_FS_BASE, MSR_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, MSR_IA32_CR_PAT, 0
};

static u64 *svm_msr_field(struct vmcb *vmcb, u32 index)
{
	switch (index) {
	case MSR_STAR:
		return &vmcb->star;
	case MSR_LSTAR:
		return &vmcb->lstar;
	case MSR_CSTAR:
		return &vmcb->cstar;
	case MSR_SYSCALL_MASK:
		return &vmcb->sfmask;
	case MSR_KERNEL_GS_BASE:
		return &vmcb->kernel_gs_base;
	case MSR_IA32_SYSENTER_CS:
		return &vmcb->sysenter_cs;
	case MSR_IA32_SYSENTER_ESP:
		return &vmcb->sysenter_esp;
	case MSR_IA32_SYSENTER_EIP:
		return &vmcb->sysenter_eip;
	case MSR_IA32_CR_PAT:
		return &vmcb->g_pat;
	default:
		return NULL;
	}
}

int svm_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	const u64 *field = svm_msr_field(svm_of(vcpu)->vmcb, index);

	if (field)
		*value = *field;
	else if (index == MSR_FS_BASE)
		*value = moat_sregs(vcpu)->fs.base;
	else if (index == MSR_GS_BASE)
		*value = moat_sregs(vcpu)->gs.base;
	else
		return -ENOENT;
	return 0;
}

int svm_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	u64 *field = svm_msr_field(svm_of(vcpu)->vmcb, index);

	if (field)
		*field = value;
	else if (index == MSR_FS_BASE)
		moat_sregs_change(vcpu)->fs.base = value;
	else if (index == MSR_GS_BASE)
		moat_sregs_change(vcpu)->gs.base = value;
	else
		return -ENOENT;
	return 0;
}
