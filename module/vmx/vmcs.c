// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VMCS's contents: what it starts with, and its registers to and from the core's form.
 *
 * The guest owns of CR0 what it may change without anybody's help. Of the rest, and of all of CR4, the
 * shadow has what it believes to be there; a write that differs makes an exit.
 */
#include <linux/mm.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "vmx.h"

#define CR0_GUEST_OWNS	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_WP |	\
			 X86_CR0_AM | X86_CR0_PG)
/* On while the guest runs, whatever it believes; off likewise: caches stay on. */
#define CR0_ALWAYS	X86_CR0_NE
#define CR0_NEVER	(X86_CR0_CD | X86_CR0_NW)

/* Between two PAUSEs of one loop at most, in TSC cycles. */
#define PLE_GAP_CYCLES	128

#define PAT_RESET	0x0007040600070406ULL

/* INIT keeps the MSRs; all registers are the core's to set. */
void vmx_vcpu_reset(struct moat_vcpu *vcpu, bool init)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	vmx->ready = false;
	vmx->vpid_generation = 0;
	vmx->dr_loaded = false;
	if (init)
		return;
	vmx->star = 0;
	vmx->lstar = 0;
	vmx->cstar = 0;
	vmx->syscall_mask = 0;
	vmx->kernel_gs_base = 0;
	vmx->sysenter_cs = 0;
	vmx->sysenter_esp = 0;
	vmx->sysenter_eip = 0;
	vmx->pat = PAT_RESET;
}

/* A VMCS that was just made current, cleared, for the first time since the reset. */
void vmx_vmcs_init(struct moat_vcpu *vcpu)
{
	const struct vmx_features *f = &vmx_features;
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	vmcs_write(PIN_BASED_VM_EXEC_CONTROL, f->pin);
	vmcs_write(CPU_BASED_VM_EXEC_CONTROL, f->primary);
	vmcs_write(VM_EXIT_CONTROLS, f->exit);
	vmcs_write(VM_ENTRY_CONTROLS, f->entry);
	vmcs_write(VM_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write(VM_ENTRY_MSR_LOAD_COUNT, 0);
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MASK, 0);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
	vmcs_write(EXCEPTION_BITMAP, 0);
	vmcs_write(CR3_TARGET_COUNT, 0);
	vmcs_write(EPT_POINTER, stage2_root_address(&vcpu->vm->stage2) | f->eptp_flags);
	if (f->primary & CPU_BASED_TPR_SHADOW) {
		vmcs_write(VIRTUAL_APIC_PAGE_ADDR, __pa(vcpu->apic_page));
		vmcs_write(TPR_THRESHOLD, 0);
	}
	if (f->secondary & SECONDARY_EXEC_PAUSE_LOOP_EXITING) {
		vmcs_write(PLE_GAP, PLE_GAP_CYCLES);
		vmcs_write(PLE_WINDOW, vmx_ple_window);
	}
	if (f->secondary & SECONDARY_EXEC_ENCLS_EXITING)
		vmcs_write(ENCLS_EXITING_BITMAP, ~0ULL);
	vmcs_write(VMCS_LINK_POINTER, ~0ULL);
	vmcs_write(GUEST_IA32_DEBUGCTL, 0);
	vmcs_write(GUEST_ACTIVITY_STATE, GUEST_ACTIVITY_ACTIVE);
	vmcs_write(GUEST_INTERRUPTIBILITY_INFO, 0);
	vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	vmcs_write(CR0_GUEST_HOST_MASK, ~(u64)CR0_GUEST_OWNS);
	vmcs_write(CR4_GUEST_HOST_MASK, ~0ULL);
	vmcs_write(HOST_CR0, read_cr0());
	vmcs_write(HOST_IA32_PAT, f->host_pat);
	vmcs_write(HOST_IA32_EFER, f->host_efer);
	vmcs_write(HOST_CS_SELECTOR, __KERNEL_CS);
	vmcs_write(HOST_SS_SELECTOR, __KERNEL_DS);
	vmcs_write(HOST_DS_SELECTOR, 0);
	vmcs_write(HOST_ES_SELECTOR, 0);
	vmcs_write(HOST_FS_SELECTOR, 0);
	vmcs_write(HOST_GS_SELECTOR, 0);
	vmcs_write(HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);

	vmx->host_cpu = -1;
	vmx->host_cr3 = ~0ULL;
	vmx->host_cr4 = ~0ULL;
	vmx->host_fs_base = ~0ULL;
	vmx->rip = ~vcpu->rip;
	vmx->rsp = ~vcpu->gpr[RSP];
	vmx->rflags = ~vcpu->rflags;
	vmx->dr7 = ~vcpu->dr7;
	vmx->interruptibility = 0;
	vmx->controls = f->primary;
	vmx->secondary = 0;
	vmx->exception_bitmap = 0;
	vmx->tpr_threshold = 0;
	vmx->injecting = false;
	vmx->soft_injected = false;
	vmx->msrs_dirty = true;
	vmx->ready = true;
	/* What was in the old one is in vcpu->sregs: a reset sets all of them. */
	vcpu->sregs_dirty = true;
	moat_request(vcpu, MOAT_REQ_EVENT);
}

/* Segments: fields of one kind are numbered in the order of ES, CS, SS, DS, FS, GS, LDTR, TR. */

#define FIELD(base, n)	((base) + 2 * (n))

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR };

/* Access rights seldom change: taking them apart again is most of the work. */
static void segment_load(struct kvm_segment *to, unsigned int n, u32 *known)
{
	u32 ar = vmcs_read(FIELD(GUEST_ES_AR_BYTES, n));

	to->base = vmcs_read(FIELD(GUEST_ES_BASE, n));
	to->limit = vmcs_read(FIELD(GUEST_ES_LIMIT, n));
	to->selector = vmcs_read(FIELD(GUEST_ES_SELECTOR, n));
	if (ar == *known)
		return;
	*known = ar;
	to->type = ar & 15;
	to->s = ar >> 4 & 1;
	to->dpl = VMX_AR_DPL(ar);
	to->unusable = !!(ar & VMX_AR_UNUSABLE_MASK);
	to->present = !to->unusable && (ar >> 7 & 1);
	to->avl = ar >> 12 & 1;
	to->l = ar >> 13 & 1;
	to->db = ar >> 14 & 1;
	to->g = ar >> 15 & 1;
	to->padding = 0;
}

/*
 * The CPU wants the accessed bit of what is usable, as if the segment had been loaded, and, of TR,
 * that of a task that runs.
 */
static u32 segment_rights(const struct kvm_segment *from, unsigned int n)
{
	u32 type = from->type & 15;

	if (n == SEG_TR && !from->s)
		type |= 2;
	else if (from->s)
		type |= 1;
	return type | (from->s & 1) << 4 | (from->dpl & 3) << 5 |
	       (from->present && !from->unusable) << 7 | (from->avl & 1) << 12 |
	       (from->l & 1) << 13 | (from->db & 1) << 14 | (from->g & 1) << 15 |
	       (from->unusable || !from->present ? VMX_AR_UNUSABLE_MASK : 0);
}

static void segment_store(const struct kvm_segment *from, unsigned int n)
{
	vmcs_write(FIELD(GUEST_ES_BASE, n), from->base);
	vmcs_write(FIELD(GUEST_ES_LIMIT, n), from->limit);
	vmcs_write(FIELD(GUEST_ES_SELECTOR, n), from->selector);
	vmcs_write(FIELD(GUEST_ES_AR_BYTES, n), segment_rights(from, n));
}

static struct kvm_segment *segment_of(struct kvm_sregs *s, unsigned int n)
{
	struct kvm_segment *const segments[VMX_SEGMENTS] = {
		&s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs, &s->ldt, &s->tr,
	};

	return segments[n];
}

static void sregs_read(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	struct kvm_sregs *s = &vcpu->sregs;
	unsigned int n;

	for (n = 0; n < VMX_SEGMENTS; n++)
		segment_load(segment_of(s, n), n, &vmx->ar[n]);
	s->gdt.base = vmcs_read(GUEST_GDTR_BASE);
	s->gdt.limit = vmcs_read(GUEST_GDTR_LIMIT);
	s->idt.base = vmcs_read(GUEST_IDTR_BASE);
	s->idt.limit = vmcs_read(GUEST_IDTR_LIMIT);
	s->cr0 = (vmcs_read(GUEST_CR0) & CR0_GUEST_OWNS) |
		 (vmcs_read(CR0_READ_SHADOW) & ~(u64)CR0_GUEST_OWNS);
	s->cr2 = vmx->cr2;
	s->cr3 = vmcs_read(GUEST_CR3);
	s->cr4 = vmcs_read(CR4_READ_SHADOW);
	s->efer = vmcs_read(GUEST_IA32_EFER);
}

/* Outside the loop, the VMCS is borrowed from memory for a moment. */
void vmx_sregs_load(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	unsigned long flags;

	if (vmx->current_here) {
		sregs_read(vcpu);
		return;
	}
	local_irq_save(flags);
	if (!WARN_ON_ONCE(!vmx_operation_enter(vmx))) {
		sregs_read(vcpu);
		vmx_operation_leave(vmx);
	}
	local_irq_restore(flags);
}

/* With PAE, the CPU has the top entries in registers. Where there is no memory, none is present. */
static bool pdptrs_store(struct moat_vcpu *vcpu)
{
	const struct kvm_sregs *s = &vcpu->sregs;
	u64 entry[4] = { 0 }, gpa = s->cr3 & GENMASK_ULL(31, 5);
	unsigned int i;

	if (!(s->cr0 & X86_CR0_PG) || !(s->cr4 & X86_CR4_PAE) || (s->efer & EFER_LMA))
		return true;
	if (moat_guest_has(vcpu->vm, gpa, false) &&
	    moat_guest_read_atomic(vcpu->vm, gpa, entry, sizeof(entry))) {
		vcpu->fault.gpa = gpa;
		vcpu->fault.write = false;
		vcpu->fault.fetch = false;
		vcpu->fault.delivery = false;
		vcpu->fault.final = false;
		return false;
	}
	for (i = 0; i < ARRAY_SIZE(entry); i++)
		vmcs_write(FIELD(GUEST_PDPTR0, i), entry[i]);
	return true;
}

bool vmx_sregs_store(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	struct kvm_sregs *s = &vcpu->sregs;
	unsigned int n;

	if (!pdptrs_store(vcpu))
		return false;
	for (n = 0; n < VMX_SEGMENTS; n++)
		segment_store(segment_of(s, n), n);
	vmcs_write(GUEST_GDTR_BASE, s->gdt.base);
	vmcs_write(GUEST_GDTR_LIMIT, s->gdt.limit);
	vmcs_write(GUEST_IDTR_BASE, s->idt.base);
	vmcs_write(GUEST_IDTR_LIMIT, s->idt.limit);
	vmcs_write(GUEST_CR0, (s->cr0 & ~(u64)CR0_NEVER) | CR0_ALWAYS);
	vmcs_write(CR0_READ_SHADOW, s->cr0);
	vmcs_write(GUEST_CR3, s->cr3);
	vmcs_write(GUEST_CR4, s->cr4 | X86_CR4_VMXE);
	vmcs_write(CR4_READ_SHADOW, s->cr4);
	vmcs_write(GUEST_IA32_EFER, s->efer);
	vmcs_write(VM_ENTRY_CONTROLS, vmx_features.entry |
				      (s->efer & EFER_LMA ? VM_ENTRY_IA32E_MODE : 0));
	vmx->cr2 = s->cr2;
	vcpu->sregs_dirty = false;
	memset(vmx->ar, 0xff, sizeof(vmx->ar));
	return true;
}

const u32 vmx_msr_list[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE,
	MSR_FS_BASE, MSR_GS_BASE,
	MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, MSR_IA32_CR_PAT, 0
};

static u64 *vmx_msr_field(struct vmx_vcpu *vmx, u32 index)
{
	switch (index) {
	case MSR_STAR:
		return &vmx->star;
	case MSR_LSTAR:
		return &vmx->lstar;
	case MSR_CSTAR:
		return &vmx->cstar;
	case MSR_SYSCALL_MASK:
		return &vmx->syscall_mask;
	case MSR_KERNEL_GS_BASE:
		return &vmx->kernel_gs_base;
	case MSR_IA32_SYSENTER_CS:
		return &vmx->sysenter_cs;
	case MSR_IA32_SYSENTER_ESP:
		return &vmx->sysenter_esp;
	case MSR_IA32_SYSENTER_EIP:
		return &vmx->sysenter_eip;
	case MSR_IA32_CR_PAT:
		return &vmx->pat;
	default:
		return NULL;
	}
}

int vmx_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	const u64 *field = vmx_msr_field(vmx, index);

	if (index == MSR_KERNEL_GS_BASE && vmx->current_here)
		rdmsrl(MSR_KERNEL_GS_BASE, vmx->kernel_gs_base);
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

int vmx_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	u64 *field = vmx_msr_field(vmx_of(vcpu), index);

	if (field)
		*field = value;
	else if (index == MSR_FS_BASE)
		moat_sregs_change(vcpu)->fs.base = value;
	else if (index == MSR_GS_BASE)
		moat_sregs_change(vcpu)->gs.base = value;
	else
		return -ENOENT;
	if (index == MSR_KERNEL_GS_BASE && vmx_of(vcpu)->current_here)
		wrmsrl(MSR_KERNEL_GS_BASE, value);
	vmx_of(vcpu)->msrs_dirty = true;
	return 0;
}
