// SPDX-License-Identifier: GPL-2.0-only
/*
 * One small function an exit. Interrupts are off, preemption is off, nothing here sleeps. Each
 * returns MOAT_NR_EXITS where the guest may go on at once.
 */
#include <linux/interrupt.h>
#include <linux/irqflags.h>
#include <asm/apic.h>
#include <asm/sync_core.h>

#include "../inner.h"
#include "vmx.h"

#define GO_ON MOAT_NR_EXITS

void vmx_code_find(struct moat_vcpu *vcpu, struct moat_code *ret_code)
{
	u32 cs, ss;
	u64 base;

	if (vcpu->sregs_valid || !vmx_of(vcpu)->current_here) {
		const struct kvm_sregs *s = moat_sregs(vcpu);

		ret_code->cr3 = s->cr3;
		if (!(s->cr0 & X86_CR0_PG))
			ret_code->cr3 = MOAT_NO_PAGING;
		cs = (s->cs.l && (s->efer & EFER_LMA) ? VMX_AR_L_MASK : 0) | (s->cs.db ? VMX_AR_DB_MASK : 0);
		ss = s->ss.dpl << 5;
		base = s->cs.base;
	} else {
		ret_code->cr3 = vmcs_read(GUEST_CR3);
		cs = vmcs_read(GUEST_CS_AR_BYTES);
		ss = vmcs_read(GUEST_SS_AR_BYTES);
		base = vmcs_read(GUEST_CS_BASE);
		if (!(cs & VMX_AR_L_MASK) && !(vmcs_read(GUEST_CR0) & X86_CR0_PG))
			ret_code->cr3 = MOAT_NO_PAGING;
	}
	ret_code->linear = cs & VMX_AR_L_MASK ? vcpu->rip : (u32)(base + vcpu->rip);
	ret_code->mode = cs & VMX_AR_L_MASK ? INSN_64 : cs & VMX_AR_DB_MASK ? INSN_32 : INSN_16;
	if (unlikely(VMX_AR_DPL(ss) == 3))
		ret_code->mode = MOAT_CODE_OF_USER;
}

static bool code_is_64bit(void)
{
	return vmcs_read(GUEST_CS_AR_BYTES) & VMX_AR_L_MASK;
}

/* Where the instruction ends that exited. */
static u64 insn_end(struct moat_vcpu *vcpu)
{
	u64 rip = vcpu->rip + vmcs_read(VM_EXIT_INSTRUCTION_LEN);

	return unlikely((rip ^ vcpu->rip) >> 32) && !code_is_64bit() ? (u32)rip : rip;
}

static u8 guest_cpl(void)
{
	return VMX_AR_DPL(vmcs_read(GUEST_SS_AR_BYTES));
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
	return inner_skip(vcpu, insn_end(vcpu));
}

static enum moat_exit exit_mwait(struct moat_vcpu *vcpu)
{
	return inner_has_mwait(vcpu) ? exit_skip(vcpu) : exit_ud(vcpu);
}

/* It waits for another vCPU, which may be waiting for this very CPU. The PAUSE is executed again. */
static enum moat_exit exit_pause(struct moat_vcpu *vcpu)
{
	moat_request(vcpu, MOAT_REQ_YIELD);
	return MOAT_EXIT_AGAIN;
}

/* Nothing of the guest's: a host event that has been served by now. */
static enum moat_exit exit_host(struct moat_vcpu *vcpu)
{
	return GO_ON;
}

static enum moat_exit exit_cpuid(struct moat_vcpu *vcpu)
{
	return inner_cpuid(vcpu, insn_end(vcpu));
}

static enum moat_exit exit_msr(struct moat_vcpu *vcpu)
{
	return inner_msr(vcpu, vmx_of(vcpu)->reason == EXIT_REASON_MSR_WRITE, insn_end(vcpu));
}

static enum moat_exit exit_hypercall(struct moat_vcpu *vcpu)
{
	moat_hypercall(vcpu, guest_cpl(), code_is_64bit());
	return exit_skip(vcpu);
}

static enum moat_exit exit_hlt(struct moat_vcpu *vcpu)
{
	return inner_hlt(vcpu, insn_end(vcpu));
}

static enum moat_exit exit_intr(struct moat_vcpu *vcpu)
{
	/* Whatever comes in may set breakpoints of the host's, or take them away. */
	if (vmx_of(vcpu)->dr_loaded || this_cpu_read(moat_cpus.dr_active))
		return MOAT_EXIT_AGAIN;
	return vmx_pause(vcpu) ? GO_ON : MOAT_EXIT_AGAIN;
}

/*
 * An NMI of the host's ended the guest's run, and is not delivered; until the next IRET there is no
 * other. So the CPU sends itself one, and lets it in.
 */
static enum moat_exit exit_nmi(struct moat_vcpu *vcpu)
{
	u64 base;

	rdmsrl(MSR_IA32_APICBASE, base);
	if (base & X2APIC_ENABLE) {
		u64 id;

		rdmsrl(APIC_BASE_MSR + (APIC_ID >> 4), id);
		wrmsrl(APIC_BASE_MSR + (APIC_ICR >> 4), id << 32 | APIC_DM_NMI | APIC_INT_ASSERT);
	} else {
		native_apic_mem_write(APIC_ICR2, native_apic_mem_read(APIC_ID));
		native_apic_mem_write(APIC_ICR, APIC_DM_NMI | APIC_INT_ASSERT);
	}
	iret_to_self();
	return GO_ON;
}

/* An interrupt, or an NMI, can go in now; or the guest lowered its task priority below the limit. */
static enum moat_exit exit_window(struct moat_vcpu *vcpu)
{
	vmx_control_set(vmx_of(vcpu), CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING,
			false);
	moat_request(vcpu, MOAT_REQ_EVENT);
	return moat_window_requested(vcpu) ? MOAT_EXIT_AGAIN : GO_ON;
}

static enum moat_exit exit_db(struct moat_vcpu *vcpu)
{
	const u64 causes = DR_TRAP_BITS | DR_STEP | DR_SWITCH | DR6_BD;
	u64 found = vmcs_read(EXIT_QUALIFICATION) & causes;
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	/* The CPU leaves DR6 as it was. Where userspace debugs the guest, that is not the guest's. */
	if (vcpu->debug.control)
		return inner_db(vcpu, DR6_RESET | found);
	if (vmx->dr_loaded)
		get_debugreg(vcpu->dr6, 6);
	vcpu->dr6 = (vcpu->dr6 & ~DR_TRAP_BITS) | found;
	if (vmx->dr_loaded)
		set_debugreg(vcpu->dr6, 6);
	return inner_db(vcpu, vcpu->dr6);
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
 * It may be raised again by its own delivery, before the CPU looks for interrupts: so the host takes
 * its interrupts after each.
 */
static enum moat_exit exit_ac(struct moat_vcpu *vcpu)
{
	moat_inject_exception(vcpu, X86_TRAP_AC, true, vmcs_read(VM_EXIT_INTR_ERROR_CODE));
	return MOAT_EXIT_AGAIN;
}

/* A machine check came while the guest ran: it is the host's, raised again for its handler. */
static enum moat_exit exit_mc(struct moat_vcpu *vcpu)
{
	asm volatile("int $18");
	return MOAT_EXIT_AGAIN;
}

static enum moat_exit exit_unknown(struct moat_vcpu *vcpu)
{
	return inner_unknown(vcpu, vmx_of(vcpu)->reason);
}

static enum moat_exit exit_exception(struct moat_vcpu *vcpu)
{
	u32 info = vmcs_read(VM_EXIT_INTR_INFO);

	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR)
		return exit_nmi(vcpu);
	/* Raised by the IRET that had just let NMIs in: it has not been executed after all. */
	if ((info & INTR_INFO_UNBLOCK_NMI) && !(vmx_of(vcpu)->vectoring & VECTORING_INFO_VALID_MASK))
		vcpu->events.nmi.masked = true;
	switch (info & INTR_INFO_VECTOR_MASK) {
	case X86_TRAP_DB:
		return exit_db(vcpu);
	case X86_TRAP_BP:
		return exit_bp(vcpu);
	case X86_TRAP_UD:
		return exit_exception_ud(vcpu);
	case X86_TRAP_AC:
		return exit_ac(vcpu);
	case X86_TRAP_MC:
		return exit_mc(vcpu);
	default:
		return exit_unknown(vcpu);
	}
}

static enum moat_exit dr_emulate(struct moat_vcpu *vcpu)
{
	u64 what = vmcs_read(EXIT_QUALIFICATION);

	if (inner_dr_is_guarded(vcpu))
		return GO_ON;
	return inner_dr(vcpu, VMX_DR_NUMBER(what), VMX_DR_GPR(what), !(what & VMX_DR_FROM),
			insn_end(vcpu));
}

/* The guest gets DR0-3 and has them until this run ends. */
static enum moat_exit exit_dr(struct moat_vcpu *vcpu)
{
	if (vcpu->debug.control)
		return dr_emulate(vcpu);
	vmx_debug_enter(vcpu);
	return GO_ON;
}

static enum moat_exit exit_read_cr(struct moat_vcpu *vcpu, u64 what)
{
	vcpu->gpr[VMX_CR_GPR(what)] = moat_cr_read(vcpu, VMX_CR_NUMBER(what));
	return exit_skip(vcpu);
}

static enum moat_exit exit_write_cr(struct moat_vcpu *vcpu, u64 what)
{
	return inner_write_cr(vcpu, VMX_CR_NUMBER(what), VMX_CR_GPR(what), insn_end(vcpu));
}

/* CLTS and LMSW change only what is the guest's own, and make none. */
static enum moat_exit exit_cr(struct moat_vcpu *vcpu)
{
	u64 what = vmcs_read(EXIT_QUALIFICATION);

	switch (VMX_CR_TYPE(what)) {
	case VMX_CR_TO:
		return exit_write_cr(vcpu, what);
	case VMX_CR_FROM:
		return exit_read_cr(vcpu, what);
	default:
		return exit_unknown(vcpu);
	}
}

static enum moat_exit exit_xsetbv(struct moat_vcpu *vcpu)
{
	return inner_xsetbv(vcpu, guest_cpl(), insn_end(vcpu));
}

static enum moat_exit exit_io(struct moat_vcpu *vcpu)
{
	u64 what = vmcs_read(EXIT_QUALIFICATION);

	if (what & VMX_IO_STRING)
		return MOAT_EXIT_EMULATE;
	vcpu->io.port = VMX_IO_PORT(what);
	vcpu->io.size = VMX_IO_SIZE(what);
	vcpu->io.in = what & VMX_IO_IN;
	vcpu->io.next_rip = insn_end(vcpu);
	return moat_io_in_kernel(vcpu) ? GO_ON : MOAT_EXIT_IO;
}

static enum moat_exit exit_fault(struct moat_vcpu *vcpu)
{
	u64 what = vmcs_read(EXIT_QUALIFICATION);

	vcpu->fault.gpa = vmcs_read(GUEST_PHYSICAL_ADDRESS);
	vcpu->fault.write = what & VMX_EPT_WRITE;
	vcpu->fault.fetch = what & VMX_EPT_FETCH;
	vcpu->fault.final = (what & VMX_EPT_LINEAR) && (what & VMX_EPT_FINAL);
	vcpu->fault.delivery = vmx_of(vcpu)->vectoring & VECTORING_INFO_VALID_MASK;
	if ((what & VMX_EPT_UNBLOCKED_NMI) && !vcpu->fault.delivery)
		vcpu->events.nmi.masked = true;
	/* Of memory that is only not mapped yet, this is soon found out. */
	if (moat_insn_is_known(vcpu) && code_is_64bit())
		return moat_mmio_move(vcpu);
	return inner_fault(vcpu);
}

/* Every task switch makes an exit. An event that came by a task gate is delivered by the switch. */
static enum moat_exit exit_task_switch(struct moat_vcpu *vcpu)
{
	u64 what = vmcs_read(EXIT_QUALIFICATION);
	struct moat_events *ev = &vcpu->events;
	u32 type = vmx_of(vcpu)->vectoring & VECTORING_INFO_TYPE_MASK;
	bool vectored = vmx_of(vcpu)->vectoring & VECTORING_INFO_VALID_MASK;

	vcpu->task = (struct moat_task_switch) {
		.selector = what, .by = what >> 30 & 3, .next_rip = vcpu->rip,
		.has_error = ev->exception.injected && ev->exception.has_error,
		.error = ev->exception.error,
	};
	if (!vectored || type == INTR_TYPE_SOFT_INTR || type == INTR_TYPE_SOFT_EXCEPTION ||
	    type == INTR_TYPE_PRIV_SW_EXCEPTION)
		vcpu->task.next_rip = insn_end(vcpu);
	ev->exception.injected = false;
	if (type == INTR_TYPE_SOFT_EXCEPTION)
		ev->exception.pending = false;
	ev->nmi.injected = false;
	ev->interrupt.injected = false;
	return MOAT_EXIT_TASK;
}

static enum moat_exit exit_shutdown(struct moat_vcpu *vcpu)
{
	return MOAT_EXIT_SHUTDOWN;
}

typedef enum moat_exit (*vmx_exit_fn)(struct moat_vcpu *vcpu);

static const vmx_exit_fn vmx_exits[] = {
	[EXIT_REASON_EXCEPTION_NMI] = exit_exception,
	[EXIT_REASON_TRIPLE_FAULT] = exit_shutdown,
	[EXIT_REASON_INIT_SIGNAL] = exit_host,
	[EXIT_REASON_INTERRUPT_WINDOW] = exit_window,
	[EXIT_REASON_NMI_WINDOW] = exit_window,
	[EXIT_REASON_TASK_SWITCH] = exit_task_switch,
	[EXIT_REASON_INVD] = exit_skip,
	[EXIT_REASON_RDPMC] = exit_gp,
	[EXIT_REASON_VMCALL] = exit_hypercall,
	[EXIT_REASON_VMCLEAR ... EXIT_REASON_VMON] = exit_ud,
	[EXIT_REASON_CR_ACCESS] = exit_cr,
	[EXIT_REASON_DR_ACCESS] = exit_dr,
	[EXIT_REASON_MWAIT_INSTRUCTION] = exit_mwait,
	[EXIT_REASON_MONITOR_INSTRUCTION] = exit_mwait,
	[EXIT_REASON_PAUSE_INSTRUCTION] = exit_pause,
	[EXIT_REASON_MCE_DURING_VMENTRY] = exit_mc,
	[EXIT_REASON_TPR_BELOW_THRESHOLD] = exit_window,
	[EXIT_REASON_INVEPT] = exit_ud,
	[EXIT_REASON_PREEMPTION_TIMER] = exit_intr,
	[EXIT_REASON_INVVPID] = exit_ud,
	[EXIT_REASON_WBINVD] = exit_skip,
	[EXIT_REASON_XSETBV] = exit_xsetbv,
	[EXIT_REASON_ENCLS] = exit_ud,
};

enum moat_exit vmx_exit(struct moat_vcpu *vcpu)
{
	u32 reason = vmx_of(vcpu)->reason;

	/* The frequent ones directly: an indirect call is dear where retpolines are on. */
	switch (reason) {
	case EXIT_REASON_EXTERNAL_INTERRUPT:
		return exit_intr(vcpu);
	case EXIT_REASON_MSR_READ:
	case EXIT_REASON_MSR_WRITE:
		return exit_msr(vcpu);
	case EXIT_REASON_CPUID:
		return exit_cpuid(vcpu);
	case EXIT_REASON_HLT:
		return exit_hlt(vcpu);
	case EXIT_REASON_IO_INSTRUCTION:
		return exit_io(vcpu);
	case EXIT_REASON_EPT_VIOLATION:
		return exit_fault(vcpu);
	}
	if (reason < ARRAY_SIZE(vmx_exits) && vmx_exits[reason])
		return vmx_exits[reason](vcpu);
	return exit_unknown(vcpu);
}
