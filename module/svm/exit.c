// SPDX-License-Identifier: GPL-2.0-only
/*
 * One small function an exit. Interrupts are off, preemption is off, nothing here sleeps. Each
 * returns MOAT_NR_EXITS where the guest may go on at once.
 */
#include <linux/interrupt.h>
#include <linux/irqflags.h>

#include "../inner.h"
#include "svm.h"

#define GO_ON MOAT_NR_EXITS

void svm_code_find(struct moat_vcpu *vcpu, struct moat_code *ret_code)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	u16 attrib = vmcb->cs.attrib;

	ret_code->cr3 = vmcb->cr3;
	ret_code->linear = vcpu->rip;
	ret_code->mode = INSN_64;
	if (unlikely(!(attrib & SVM_SEGMENT_L))) {
		if (!(vmcb->cr0 & X86_CR0_PG))
			ret_code->cr3 = MOAT_NO_PAGING;
		ret_code->linear = (u32)(vmcb->cs.base + vcpu->rip);
		ret_code->mode = attrib & SVM_SEGMENT_DB ? INSN_32 : INSN_16;
	}
	if (unlikely(vmcb->cpl == 3))
		ret_code->mode = MOAT_CODE_OF_USER;
}

/*
 * Where the instruction ends that exited; false where that cannot be known without sleeping. CPUs
 * without nRIP save (and the emulated one) leave it to us to read the instruction.
 */
static bool insn_end(struct moat_vcpu *vcpu, u64 *ret_rip)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	const struct moat_insn *insn;

	if (svm_features.nrip && vmcb->next_rip) {
		*ret_rip = vmcb->next_rip;
		return true;
	}
	insn = moat_insn_find(vcpu);
	if (insn)
		*ret_rip = moat_insn_next(vcpu, insn);
	return insn;
}

static enum moat_exit exit_gp(struct moat_vcpu *vcpu)
{
	return inner_gp(vcpu);
}

static enum moat_exit exit_ud(struct moat_vcpu *vcpu)
{
	moat_inject_ud(vcpu);
	return GO_ON;
}

static enum moat_exit exit_skip(struct moat_vcpu *vcpu)
{
	u64 rip;

	return insn_end(vcpu, &rip) ? inner_skip(vcpu, rip) : MOAT_EXIT_PREFETCH;
}

static enum moat_exit exit_mwait(struct moat_vcpu *vcpu)
{
	return inner_has_mwait(vcpu) ? exit_skip(vcpu) : exit_ud(vcpu);
}

/* Nothing of the guest's: a host event that has been served by now. */
static enum moat_exit exit_host(struct moat_vcpu *vcpu)
{
	return GO_ON;
}

/* Not inline, as the next two: it needs a frame, for variables in memory, the others do not. */
static noinline enum moat_exit exit_cpuid(struct moat_vcpu *vcpu)
{
	u64 rip;

	return insn_end(vcpu, &rip) ? inner_cpuid(vcpu, rip) : MOAT_EXIT_PREFETCH;
}

static noinline enum moat_exit exit_msr(struct moat_vcpu *vcpu)
{
	u64 rip;

	if (!insn_end(vcpu, &rip))
		return MOAT_EXIT_PREFETCH;
	return inner_msr(vcpu, svm_of(vcpu)->vmcb->exit_info_1, rip);
}

static enum moat_exit exit_hypercall(struct moat_vcpu *vcpu)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	u64 rip;

	if (!insn_end(vcpu, &rip))
		return MOAT_EXIT_PREFETCH;
	moat_hypercall(vcpu, vmcb->cpl, vmcb->cs.attrib & SVM_SEGMENT_L);
	return inner_skip(vcpu, rip);
}

static noinline enum moat_exit exit_hlt(struct moat_vcpu *vcpu)
{
	u64 rip;

	return insn_end(vcpu, &rip) ? inner_hlt(vcpu, rip) : MOAT_EXIT_PREFETCH;
}

static enum moat_exit exit_intr(struct moat_vcpu *vcpu)
{
	/* Whatever comes in may set breakpoints of the host's, or take them away. */
	if (svm_of(vcpu)->dr_loaded || this_cpu_read(moat_cpus.dr_active))
		return MOAT_EXIT_AGAIN;
	/* One instruction with interrupts on lets in all that wait. */
	local_irq_enable();
	asm volatile("nop");
	local_irq_disable();
	return inner_may_go_on() ? GO_ON : MOAT_EXIT_AGAIN;
}

static enum moat_exit exit_window(struct moat_vcpu *vcpu)
{
	svm_window_close(svm_of(vcpu));
	moat_request(vcpu, MOAT_REQ_EVENT);
	return moat_window_requested(vcpu) ? MOAT_EXIT_AGAIN : GO_ON;
}

/*
 * The IRET that ends an NMI handler. The next NMI may go in when it has been executed, not before:
 * where one waits, after a step; else when RIP is found elsewhere.
 */
static enum moat_exit exit_iret(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	svm->vmcb->intercept_misc1 &= ~SVM_IRET;
	if (!vcpu->events.nmi.pending) {
		svm->iret_wait = true;
		svm->iret_rip = vcpu->rip;
		return GO_ON;
	}
	svm->iret_wait = false;
	svm->iret_step = true;
	svm->iret_own_tf = !((vcpu->rflags | moat_debug_tf(vcpu)) & X86_EFLAGS_TF);
	vcpu->rflags |= X86_EFLAGS_TF | X86_EFLAGS_RF;
	return GO_ON;
}

/* True where nothing but the step made the #DB, of which the guest is to see nothing. */
static bool iret_step_end(struct moat_vcpu *vcpu, u64 *dr6)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	svm->iret_step = false;
	vcpu->events.nmi.masked = false;
	moat_request(vcpu, MOAT_REQ_EVENT);
	if (!svm->iret_own_tf)
		return false;
	*dr6 &= ~DR_STEP;	/* RFLAGS is what IRET loaded */
	return !(*dr6 & DR_TRAP_BITS);
}

static enum moat_exit exit_db(struct moat_vcpu *vcpu)
{
	u64 dr6 = svm_of(vcpu)->vmcb->dr6;
	bool ours = svm_of(vcpu)->iret_step && iret_step_end(vcpu, &dr6);

	/* Where userspace debugs the guest, the guest's own DR6 is not in the VMCB. */
	if (likely(!vcpu->debug.control))
		vcpu->dr6 = dr6;
	return ours ? GO_ON : inner_db(vcpu, dr6);
}

/* Userspace's breakpoint: it knows whether it is the guest's own after all. */
static enum moat_exit exit_bp(struct moat_vcpu *vcpu)
{
	moat_debug_exit(vcpu, X86_TRAP_BP, DR6_RESET);
	return GO_ON;
}

static enum moat_exit exit_exception_ud(struct moat_vcpu *vcpu)
{
	return MOAT_EXIT_UNDEFINED;
}

/*
 * Both may be raised again by their own delivery, before the CPU looks for interrupts: so the host
 * takes its interrupts after each. AMD APM vol. 2, "Priorities Among Simultaneous Events".
 */
static enum moat_exit exit_ac(struct moat_vcpu *vcpu)
{
	moat_inject_exception(vcpu, X86_TRAP_AC, true, 0);
	return MOAT_EXIT_AGAIN;
}

/* A machine check came while the guest ran: it is the host's, raised again for its handler. */
static enum moat_exit exit_mc(struct moat_vcpu *vcpu)
{
	asm volatile("int $18");
	return MOAT_EXIT_AGAIN;
}

static enum moat_exit dr_emulate(struct moat_vcpu *vcpu)
{
	u64 code = svm_of(vcpu)->vmcb->exit_code;
	unsigned int dr, gpr;
	int len;

	if (inner_dr_is_guarded(vcpu))
		return GO_ON;
	len = moat_insn_mov_operands(vcpu, &dr, &gpr);
	if (len <= 0)
		return MOAT_EXIT_PREFETCH;
	return inner_dr(vcpu, dr, gpr, code >= SVM_EXIT_WRITE_DR0, vcpu->rip + len);
}

/* The guest gets DR0-3 and has them until this run ends. */
static enum moat_exit exit_dr(struct moat_vcpu *vcpu)
{
	if (vcpu->debug.control)
		return dr_emulate(vcpu);
	svm_debug_enter(vcpu);
	return GO_ON;
}

/* LMSW, SMSW and CLTS can do no harm: the CPU itself may execute them, on the guest's CR0. */
static enum moat_exit cr0_direct(struct svm_vcpu *svm)
{
	svm_cr0_hide(svm, svm->vmcb->cr0 | svm->cr0_hidden, 0);
	svm->vmcb->intercept_misc1 &= ~SVM_CR0_SEL_WRITE;
	return GO_ON;
}

/* Which register is up to the instruction: emulated CPUs make an exit for CR0 of any. */
static enum moat_exit exit_read_cr(struct moat_vcpu *vcpu)
{
	unsigned int cr, gpr;
	int len = moat_insn_mov_operands(vcpu, &cr, &gpr);

	if (!len)
		return MOAT_EXIT_PREFETCH;
	if (len < 0 || svm_of(vcpu)->vmcb->cpl)	/* user mode has SMSW, and no more */
		return cr0_direct(svm_of(vcpu));
	vcpu->gpr[gpr] = moat_cr_read(vcpu, cr);
	return inner_skip(vcpu, vcpu->rip + len);
}

static enum moat_exit exit_write_cr(struct moat_vcpu *vcpu)
{
	unsigned int cr, gpr;
	int len = moat_insn_mov_operands(vcpu, &cr, &gpr);

	if (!len)
		return MOAT_EXIT_PREFETCH;
	if (len < 0)
		return cr0_direct(svm_of(vcpu));
	return inner_write_cr(vcpu, cr, gpr, vcpu->rip + len);
}

static enum moat_exit exit_xsetbv(struct moat_vcpu *vcpu)
{
	u64 rip;

	if (!insn_end(vcpu, &rip))
		return MOAT_EXIT_PREFETCH;
	return inner_xsetbv(vcpu, svm_of(vcpu)->vmcb->cpl, rip);
}

static enum moat_exit exit_io(struct moat_vcpu *vcpu)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	u32 info = vmcb->exit_info_1;

	if (info & SVM_IO_STRING)
		return MOAT_EXIT_EMULATE;
	vcpu->io.port = info >> 16;
	vcpu->io.size = SVM_IO_SIZE(info);
	vcpu->io.in = info & SVM_IO_IN;
	vcpu->io.next_rip = vmcb->exit_info_2;
	return moat_io_in_kernel(vcpu) ? GO_ON : MOAT_EXIT_IO;
}

static enum moat_exit exit_fault(struct moat_vcpu *vcpu)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	u64 error = vmcb->exit_info_1;

	vcpu->fault.gpa = vmcb->exit_info_2;
	vcpu->fault.write = error & SVM_NPF_WRITE;
	vcpu->fault.fetch = error & SVM_NPF_FETCH;
	vcpu->fault.final = error & SVM_NPF_FINAL;
	vcpu->fault.delivery = vmcb->exit_int_info & SVM_EVENT_VALID;
	/* Of memory that is only not mapped yet, this is soon found out. */
	if ((vmcb->cs.attrib & SVM_SEGMENT_L) && moat_insn_is_known(vcpu))
		return moat_mmio_move(vcpu);
	return inner_fault(vcpu);
}

static enum moat_exit exit_shutdown(struct moat_vcpu *vcpu)
{
	return MOAT_EXIT_SHUTDOWN;
}

static enum moat_exit exit_unknown(struct moat_vcpu *vcpu)
{
	return inner_unknown(vcpu, svm_of(vcpu)->vmcb->exit_code);
}

typedef enum moat_exit (*svm_exit_fn)(struct moat_vcpu *vcpu);

static const svm_exit_fn svm_exits[SVM_EXIT_TABLE] = {
	[SVM_EXIT_READ_CR0] = exit_read_cr,
	[SVM_EXIT_WRITE_CR0] = exit_write_cr,
	[SVM_EXIT_CR0_SEL_WRITE] = exit_write_cr,
	[SVM_EXIT_WRITE_CR4] = exit_write_cr,
	[SVM_EXIT_WRITE_CR8] = exit_write_cr,
	[SVM_EXIT_READ_DR0 ... SVM_EXIT_WRITE_DR7] = exit_dr,
	[SVM_EXIT_EXCEPTION_DB] = exit_db,
	[SVM_EXIT_EXCEPTION_BP] = exit_bp,
	[SVM_EXIT_EXCEPTION_UD] = exit_exception_ud,
	[SVM_EXIT_EXCEPTION_AC] = exit_ac,
	[SVM_EXIT_EXCEPTION_MC] = exit_mc,
	[SVM_EXIT_NMI] = exit_host,
	[SVM_EXIT_SMI] = exit_host,
	[SVM_EXIT_INIT] = exit_host,
	[SVM_EXIT_VINTR] = exit_window,
	[SVM_EXIT_RDPMC] = exit_gp,
	[SVM_EXIT_RSM] = exit_ud,
	[SVM_EXIT_IRET] = exit_iret,
	[SVM_EXIT_INVD] = exit_skip,
	[SVM_EXIT_INVLPGA] = exit_ud,
	[SVM_EXIT_FERR_FREEZE] = exit_host,
	[SVM_EXIT_SHUTDOWN] = exit_shutdown,
	[SVM_EXIT_VMRUN] = exit_ud,
	[SVM_EXIT_VMMCALL] = exit_hypercall,
	[SVM_EXIT_VMLOAD] = exit_ud,
	[SVM_EXIT_VMSAVE] = exit_ud,
	[SVM_EXIT_STGI] = exit_ud,
	[SVM_EXIT_CLGI] = exit_ud,
	[SVM_EXIT_SKINIT] = exit_ud,
	[SVM_EXIT_WBINVD] = exit_skip,
	[SVM_EXIT_MONITOR] = exit_mwait,
	[SVM_EXIT_MWAIT] = exit_mwait,
	[SVM_EXIT_MWAIT_ARMED] = exit_mwait,
	[SVM_EXIT_XSETBV] = exit_xsetbv,
	[SVM_EXIT_RDPRU] = exit_ud,
};

enum moat_exit svm_exit(struct moat_vcpu *vcpu)
{
	u64 code = svm_of(vcpu)->vmcb->exit_code;

	/* The frequent ones directly: an indirect call is dear where retpolines are on. */
	switch (code) {
	case SVM_EXIT_INTR:
		return exit_intr(vcpu);
	case SVM_EXIT_MSR:
		return exit_msr(vcpu);
	case SVM_EXIT_CPUID:
		return exit_cpuid(vcpu);
	case SVM_EXIT_HLT:
		return exit_hlt(vcpu);
	case SVM_EXIT_IOIO:
		return exit_io(vcpu);
	case SVM_EXIT_NPF:
		return exit_fault(vcpu);
	}
	if (code < ARRAY_SIZE(svm_exits) && svm_exits[code])
		return svm_exits[code](vcpu);
	return exit_unknown(vcpu);
}
