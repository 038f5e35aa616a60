// SPDX-License-Identifier: GPL-2.0-only
/*
 * The inner loop: into the guest and out of it, until the core is needed.
 *
 * The whole of vmx_run() has preemption off. The loop itself has interrupts off too, and the CPU is
 * in VMX operation. A host interrupt ends the guest's run; vmx_pause() lets it in and, if nothing
 * came of it that this thread must attend to, the guest goes on.
 *
 * Events: what vcpu->events and the APIC hold is looked at only when MOAT_REQ_EVENT says that
 * something changed. An event that was put in for an entry counts as delivered unless the vectoring
 * information of the exit says that its delivery was cut short; then it is put back as "injected" and
 * goes first.
 */
#include <linux/interrupt.h>
#include <linux/sched.h>
#include <asm/fsgsbase.h>
#include <asm/processor-flags.h>

#include "../inner.h"
#include "../trace.h"
#include "vmx.h"

/*
 * Translations are tagged by the VPID, and those of guest-physical addresses by the EPT's root. VPIDs
 * are handed out CPU by CPU. When a CPU has none left, its generation ends: everything is flushed, and
 * each vCPU takes a new one when it next comes by.
 */
static void vpid_assign(struct vmx_vcpu *vmx, struct vmx_cpu *vc)
{
	if (vc->vpid_next > U16_MAX) {
		vc->vpid_generation++;
		vc->vpid_next = 1;
		invvpid_all();
	}
	vmx->vpid_generation = vc->vpid_generation;
	vmcs_write(VIRTUAL_PROCESSOR_ID, vc->vpid_next++);
}

static void vmx_tlb_flush(struct moat_vcpu *vcpu)
{
	invept(vmx_features.invept_extent, vmcs_read(EPT_POINTER));
}

void vmx_debug_enter(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	vmx->dr_loaded = true;
	/* Where userspace debugs the guest, its accesses are emulated. */
	if (!vcpu->debug.control)
		vmx_control_set(vmx, CPU_BASED_MOV_DR_EXITING, false);
	guest_debug_load(vcpu);
	vmx->dr7 = moat_debug_dr7(vcpu);
	vmcs_write(GUEST_DR7, vmx->dr7);
	set_debugreg(vcpu->debug.control ? DR6_RESET : vcpu->dr6, 6);
}

static void vmx_debug_leave(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	vmx->dr_loaded = false;
	vmx_control_set(vmx, CPU_BASED_MOV_DR_EXITING, true);
	if (!vcpu->debug.control) {
		guest_debug_save(vcpu);
		get_debugreg(vcpu->dr6, 6);
		vcpu->dr7 = vmcs_read(GUEST_DR7);
		vmx->dr7 = vcpu->dr7;
	}
	set_debugreg(DR6_RESERVED, 6);
}

/* MSRs that no VMCS switches, for the whole run: the host needs its own only for userspace. */
static void msrs_load(struct vmx_vcpu *vmx)
{
	native_wrmsrl(MSR_STAR, vmx->star);
	native_wrmsrl(MSR_LSTAR, vmx->lstar);
	native_wrmsrl(MSR_SYSCALL_MASK, vmx->syscall_mask);
}

/* What the guest cannot change without an exit. */
static void msrs_store(struct vmx_vcpu *vmx)
{
	msrs_load(vmx);
	vmcs_write(GUEST_SYSENTER_CS, vmx->sysenter_cs);
	vmcs_write(GUEST_SYSENTER_ESP, vmx->sysenter_esp);
	vmcs_write(GUEST_SYSENTER_EIP, vmx->sysenter_eip);
	vmcs_write(GUEST_IA32_PAT, vmx->pat);
	vmx->msrs_dirty = false;
}

static void msrs_enter(struct vmx_vcpu *vmx, struct vmx_cpu *vc)
{
	vc->kernel_gs_base = __rdmsr(MSR_KERNEL_GS_BASE);
	native_wrmsrl(MSR_KERNEL_GS_BASE, vmx->kernel_gs_base);
	msrs_load(vmx);
}

static void msrs_leave(struct vmx_vcpu *vmx, const struct vmx_cpu *vc)
{
	vmx->kernel_gs_base = __rdmsr(MSR_KERNEL_GS_BASE);
	native_wrmsrl(MSR_KERNEL_GS_BASE, vc->kernel_gs_base);
	native_wrmsrl(MSR_STAR, vc->star);
	native_wrmsrl(MSR_LSTAR, vc->lstar);
	native_wrmsrl(MSR_SYSCALL_MASK, vc->syscall_mask);
}

/* What of the host's state differs from CPU to CPU only. */
static void host_cpu_store(const struct vmx_cpu *vc)
{
	vmcs_write(HOST_GS_BASE, vc->gs_base);
	vmcs_write(HOST_TR_BASE, vc->tr_base);
	vmcs_write(HOST_GDTR_BASE, vc->gdt.address);
	vmcs_write(HOST_IDTR_BASE, vc->idt.address);
	vmcs_write(HOST_IA32_SYSENTER_CS, vc->sysenter_cs);
	vmcs_write(HOST_IA32_SYSENTER_ESP, vc->sysenter_esp);
	vmcs_write(HOST_IA32_SYSENTER_EIP, vc->sysenter_eip);
}

/* What an exit loads from the VMCS, which has to be as it is now. */
static void host_state_store(struct vmx_vcpu *vmx, struct vmx_cpu *vc)
{
	u64 cr3 = __read_cr3(), cr4 = vc->cr4 | X86_CR4_VMXE, fs_base;

	if (boot_cpu_has(X86_FEATURE_FSGSBASE))
		fs_base = rdfsbase();
	else
		rdmsrl(MSR_FS_BASE, fs_base);
	if (vmx->host_cpu != smp_processor_id()) {
		host_cpu_store(vc);
		vmx->host_cpu = smp_processor_id();
	}
	if (vmx->host_cr3 != cr3)
		vmcs_write(HOST_CR3, cr3);
	if (vmx->host_cr4 != cr4)
		vmcs_write(HOST_CR4, cr4);
	if (vmx->host_fs_base != fs_base)
		vmcs_write(HOST_FS_BASE, fs_base);
	vmx->host_cr3 = cr3;
	vmx->host_cr4 = cr4;
	vmx->host_fs_base = fs_base;
}

/* What an exit spoils: limits of the tables, and whatever is in the segment registers. */
static void host_segments_save(struct vmx_cpu *vc)
{
	native_store_gdt(&vc->gdt);
	store_idt(&vc->idt);
	savesegment(ds, vc->ds);
	savesegment(es, vc->es);
	savesegment(fs, vc->fs);
	savesegment(gs, vc->gs);
	store_ldt(vc->ldt);
	vc->debugctl = get_debugctlmsr();
}

static void host_segments_restore(struct vmx_vcpu *vmx, const struct vmx_cpu *vc)
{
	native_load_gdt(&vc->gdt);
	native_load_idt(&vc->idt);
	invalidate_tss_limit();
	if (unlikely(vc->ldt))
		asm volatile("lldt %0" : : "m" (vc->ldt));
	if (unlikely(vc->ds | vc->es)) {
		loadsegment(ds, vc->ds);
		loadsegment(es, vc->es);
	}
	if (unlikely(vc->fs)) {		/* which loads the base too */
		loadsegment(fs, vc->fs);
		wrmsrl(MSR_FS_BASE, vmx->host_fs_base);
	}
	if (unlikely(vc->gs))		/* of user mode: the active base stays */
		load_gs_index(vc->gs);
	if (unlikely(vc->debugctl))
		update_debugctlmsr(vc->debugctl);
}

/* L1TF: what the host left in the first-level cache is not for the guest. */
static void l1d_flush(void)
{
	if (vmx_features.l1d_flush)
		native_wrmsrl(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
}

/* Into VMX operation, with this CPU's part of the vCPU. False where the CPU is another's. */
static bool vmx_cpu_enter(struct moat_vcpu *vcpu)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	if (!vmx_operation_enter(vmx))
		return false;
	if (unlikely(!vmx->ready))
		vmx_vmcs_init(vcpu);
	host_segments_save(vc);
	host_state_store(vmx, vc);
	if (vmx->vpid_generation != vc->vpid_generation) {
		if (vmx_features.vpid)
			vpid_assign(vmx, vc);
		vmx->vpid_generation = vc->vpid_generation;
		vmx_tlb_flush(vcpu);
	}
	vmcs_write(TSC_OFFSET, vcpu->msrs.tsc_offset);
	if (vmx_features.timer)
		vmcs_write(VMX_PREEMPTION_TIMER_VALUE, vmx_features.timer);
	msrs_enter(vmx, vc);
	predictor_barrier(vcpu);
	l1d_flush();
	return true;
}

static void vmx_cpu_leave(struct moat_vcpu *vcpu)
{
	const struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);
	struct vmx_vcpu *vmx = vmx_of(vcpu);

	vmx_operation_leave(vmx);
	host_segments_restore(vmx, vc);
	msrs_leave(vmx, vc);
}

bool vmx_pause(struct moat_vcpu *vcpu)
{
	vmx_cpu_leave(vcpu);
	/* One instruction with interrupts on lets in all that wait. */
	local_irq_enable();
	asm volatile("nop");
	local_irq_disable();
	return inner_may_go_on() && vmx_cpu_enter(vcpu);
}

/* Events */

static void inject(struct moat_vcpu *vcpu, u32 type_and_vector, bool has_error, u32 error)
{
	/* In real mode, exceptions have no error codes. */
	if (has_error) {
		u64 cr0 = vcpu->sregs_valid ? vcpu->sregs.cr0 : vmcs_read(GUEST_CR0);

		has_error = cr0 & X86_CR0_PE;
		vmcs_write(VM_ENTRY_EXCEPTION_ERROR_CODE, error);
	}
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, type_and_vector | INTR_INFO_VALID_MASK |
					     (has_error ? INTR_INFO_DELIVER_CODE_MASK : 0));
	vmx_of(vcpu)->injecting = true;
	vcpu->stats.injections++;
	trace_moat_inject(vcpu->id, type_and_vector, error);
}

/*
 * INT3 and INTO, which userspace may inject: the CPU returns behind the instruction. Where delivery is
 * cut short it begins again.
 */
static u32 exception_type(struct moat_vcpu *vcpu)
{
	const struct moat_insn *insn;

	if (!moat_exception_is_soft(vcpu->events.exception.vector))
		return INTR_TYPE_HARD_EXCEPTION;
	insn = moat_insn_find(vcpu);
	vmcs_write(VM_ENTRY_INSTRUCTION_LEN, insn ? insn->length : 1);
	vmx_of(vcpu)->soft_injected = true;
	return INTR_TYPE_SOFT_EXCEPTION;
}

/* What an exit cut short goes first. True where there was one. */
static bool inject_again(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;

	if (ev->exception.injected)
		inject(vcpu, exception_type(vcpu) | ev->exception.vector, ev->exception.has_error,
		       ev->exception.error);
	else if (ev->nmi.injected)
		inject(vcpu, INTR_TYPE_NMI_INTR | X86_TRAP_NMI, false, 0);
	else if (ev->interrupt.injected)
		inject(vcpu, INTR_TYPE_EXT_INTR | ev->interrupt.vector, false, 0);
	else
		return false;
	return true;
}

static bool inject_nmi(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;

	if (!ev->nmi.pending || ev->nmi.masked || vcpu->irq_shadow || interrupts_blocked(vcpu))
		return false;
	ev->nmi.pending--;
	ev->nmi.masked = true;
	ev->nmi.injected = true;
	inject(vcpu, INTR_TYPE_NMI_INTR | X86_TRAP_NMI, false, 0);
	return true;
}

static void inject_interrupt(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;
	int vector;

	if (!(vcpu->rflags & X86_EFLAGS_IF) || vcpu->irq_shadow || interrupts_blocked(vcpu))
		return;
	vector = moat_interrupt_accept(vcpu);
	if (vector < 0)
		return;
	ev->interrupt.injected = true;
	ev->interrupt.soft = false;
	ev->interrupt.vector = vector;
	inject(vcpu, INTR_TYPE_EXT_INTR | vector, false, 0);
}

static void tpr_threshold_set(struct vmx_vcpu *vmx, u32 threshold)
{
	if ((vmx_features.primary & CPU_BASED_TPR_SHADOW) && vmx->tpr_threshold != threshold)
		vmcs_write(TPR_THRESHOLD, threshold);
	vmx->tpr_threshold = threshold;
}

/* What could not go in at once: sees to it that it does, at the right moment. */
static void vmx_windows(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	u32 threshold = 0;

	vmx_control_set(vmx, CPU_BASED_INTR_WINDOW_EXITING,
			window_is_wanted(vcpu) && !interrupts_blocked(vcpu));
	vmx_control_set(vmx, CPU_BASED_NMI_WINDOW_EXITING,
			vcpu->events.nmi.pending && !interrupts_blocked(vcpu));
	/* It must not be above the priority that there is. */
	if (held_by_priority(vcpu))
		threshold = min_t(u32, moat_lapic_highest_irr(vcpu) >> 4, moat_cr8(vcpu));
	tpr_threshold_set(vmx, threshold);
}

/* Which MSRs make no exit; in x2APIC mode, the task priority is one of them. */
static void msrs_choose(struct moat_vcpu *vcpu, struct vmx_vcpu *vmx)
{
	bool x2apic = vcpu->lapic && (vcpu->msrs.apic_base & X2APIC_ENABLE) && vmx_features.x2apic;
	u32 secondary = vmx_features.secondary | (x2apic ? vmx_features.x2apic : 0);

	if (vmx->secondary != secondary)
		vmcs_write(SECONDARY_VM_EXEC_CONTROL, secondary);
	vmx->secondary = secondary;
	vmcs_write(MSR_BITMAP, rcu_access_pointer(vcpu->vm->msr_filter) ? vmx_msr_bitmap_all_pa :
			       x2apic ? vmx_msr_bitmap_x2apic_pa : vmx_msr_bitmap_pa);
}

static void vmx_events(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	u32 bitmap = exceptions(vcpu);

	if (vmx->exception_bitmap != bitmap)
		vmcs_write(EXCEPTION_BITMAP, bitmap);
	vmx->exception_bitmap = bitmap;
	msrs_choose(vcpu, vmx);
	moat_nmi_collect(vcpu);
	if (!inject_again(vcpu)) {
		if (ev->exception.pending) {
			moat_exception_begin(vcpu);
			inject_again(vcpu);
		} else if (!inject_nmi(vcpu)) {
			inject_interrupt(vcpu);
		}
	}
	vmx_windows(vcpu);
}

/* False where the core must serve a request first. */
static bool vmx_requests(struct moat_vcpu *vcpu)
{
	if (vcpu->pv_eoi_offer)
		moat_pv_eoi_withdraw(vcpu, false);
	if (READ_ONCE(vcpu->requests) & ~MOAT_REQS_FAST)
		return false;
	if (moat_request_take(vcpu, MOAT_REQ_TLB_FLUSH))
		vmx_tlb_flush(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_EVENT))
		vmx_events(vcpu);
	/* The core is to look at the page after each exit. */
	if (test_bit(MOAT_REQ_VAPIC, &vcpu->requests))
		moat_request(vcpu, MOAT_REQ_KICK);
	return true;
}

/*
 * The shadow of STI or MOV SS, and whether NMIs are blocked. Which of the two instructions it was is
 * known only where the CPU told; and in it, a step that the flag asks for is a pending one, which
 * userspace's step is not.
 */
static void interruptibility_enter(struct moat_vcpu *vcpu, struct vmx_vcpu *vmx)
{
	const u32 shadow = GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS;
	bool shadowed = vcpu->irq_shadow && !moat_debug_tf(vcpu);
	u32 now = vmx->interruptibility & shadow;
	u64 pending;

	if (shadowed != !!now)
		now = !shadowed ? 0 : vcpu->rflags & X86_EFLAGS_IF ? GUEST_INTR_STATE_STI :
									     GUEST_INTR_STATE_MOV_SS;
	if (vcpu->events.nmi.masked && !vcpu->events.nmi.injected)
		now |= GUEST_INTR_STATE_NMI;
	if (now != vmx->interruptibility)
		vmcs_write(GUEST_INTERRUPTIBILITY_INFO, now);
	vmx->interruptibility = now;
	if (!(now & shadow))
		return;
	pending = vmcs_read(GUEST_PENDING_DBG_EXCEPTIONS) & ~VMX_PENDING_BS;
	if (vcpu->rflags & X86_EFLAGS_TF)
		pending |= VMX_PENDING_BS;
	vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, pending);
}

/* False where a page of the guest's is needed first. */
static bool vmx_state_enter(struct moat_vcpu *vcpu, struct vmx_vcpu *vmx)
{
	u64 rflags = vcpu->rflags | moat_debug_tf(vcpu), dr7 = moat_debug_dr7(vcpu);

	if (vmx->rip != vcpu->rip)
		vmcs_write(GUEST_RIP, vcpu->rip);
	if (vmx->rsp != vcpu->gpr[RSP])
		vmcs_write(GUEST_RSP, vcpu->gpr[RSP]);
	if (vmx->rflags != rflags)
		vmcs_write(GUEST_RFLAGS, rflags);
	if (!vmx->dr_loaded && vmx->dr7 != dr7)
		vmcs_write(GUEST_DR7, dr7);
	vmx->rip = vcpu->rip;
	vmx->rsp = vcpu->gpr[RSP];
	vmx->rflags = rflags;
	if (!vmx->dr_loaded)
		vmx->dr7 = dr7;
	interruptibility_enter(vcpu, vmx);
	if (unlikely(vmx->msrs_dirty))
		msrs_store(vmx);
	if (vcpu->sregs_dirty && !vmx_sregs_store(vcpu))
		return false;
	if (native_read_cr2() != vmx->cr2)
		native_write_cr2(vmx->cr2);
	return true;
}

static void vmx_state_leave(struct moat_vcpu *vcpu, struct vmx_vcpu *vmx)
{
	vmx->cr2 = native_read_cr2();
	vmx->rip = vmcs_read(GUEST_RIP);
	vmx->rsp = vmcs_read(GUEST_RSP);
	vmx->rflags = vmcs_read(GUEST_RFLAGS);
	vmx->interruptibility = vmcs_read(GUEST_INTERRUPTIBILITY_INFO);
	vcpu->rip = vmx->rip;
	vcpu->gpr[RSP] = vmx->rsp;
	vcpu->rflags = vmx->rflags;
	if (unlikely(vcpu->debug.control))
		vcpu->rflags &= ~moat_debug_tf(vcpu);
	vcpu->irq_shadow = vmx->interruptibility & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS);
	vcpu->events.nmi.masked = vmx->interruptibility & GUEST_INTR_STATE_NMI;
	vcpu->sregs_valid = false;
}

/* Was everything delivered that was injected? What was not goes back, to be injected first. */
static void vmx_events_leave(struct moat_vcpu *vcpu, struct vmx_vcpu *vmx)
{
	struct moat_events *ev = &vcpu->events;
	bool soft = vmx->soft_injected;
	u8 vector = vmx->vectoring;

	vmx->injecting = false;
	vmx->soft_injected = false;
	ev->exception.injected = false;
	ev->nmi.injected = false;
	ev->interrupt.injected = false;
	if (!(vmx->vectoring & VECTORING_INFO_VALID_MASK))
		return;
	moat_request(vcpu, MOAT_REQ_EVENT);
	switch (vmx->vectoring & VECTORING_INFO_TYPE_MASK) {
	case INTR_TYPE_EXT_INTR:
		ev->interrupt.injected = true;
		ev->interrupt.vector = vector;
		break;
	case INTR_TYPE_NMI_INTR:
		ev->nmi.injected = true;
		ev->nmi.masked = true;
		break;
	case INTR_TYPE_HARD_EXCEPTION:
		ev->exception.injected = true;
		ev->exception.vector = vector;
		ev->exception.has_error = vmx->vectoring & VECTORING_INFO_DELIVER_CODE_MASK;
		if (ev->exception.has_error)
			ev->exception.error = vmcs_read(IDT_VECTORING_ERROR_CODE);
		break;
	default:		/* INT n, INT3, INTO: raised again by the instruction, or by us */
		ev->exception.pending = soft;
		break;
	}
}

/*
 * The entry failed: nothing has run. What the VMCS holds of the guest is as it was written; no event
 * has gone in.
 */
static void vmx_refused(struct moat_vcpu *vcpu, u64 why)
{
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);
	vmx_of(vcpu)->injecting = false;
	moat_request(vcpu, MOAT_REQ_EVENT);
	vcpu->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	vcpu->run->fail_entry.hardware_entry_failure_reason = why;
	vcpu->run->fail_entry.cpu = vcpu->cpu;
}

/* Once into the guest and out. MOAT_NR_EXITS: served, go on. */
static enum moat_exit vmx_step(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vmx_of(vcpu);
	int failed;

	/* An exit may have woken who is to run here. Before events are on their way in. */
	if (unlikely(need_resched()) || (READ_ONCE(vcpu->requests) && !vmx_requests(vcpu)))
		return MOAT_EXIT_AGAIN;
	if (unlikely(!vmx_state_enter(vcpu, vmx))) {
		moat_request(vcpu, MOAT_REQ_EVENT);
		return MOAT_EXIT_FAULT;
	}
	trace_moat_entry(vcpu->id, vcpu->rip);

	moat_xcr0_enter(vcpu);
	spec_ctrl_enter(vcpu);
	failed = vmx_enter(vcpu->gpr, vmx->launched);
	spec_ctrl_leave(vcpu);
	moat_xcr0_leave(vcpu);

	vcpu->stats.exits++;
	if (unlikely(failed)) {
		vmx_refused(vcpu, vmcs_read(VM_INSTRUCTION_ERROR));
		return MOAT_EXIT_USER;
	}
	vmx->reason = vmcs_read(VM_EXIT_REASON);
	if (unlikely(vmx->reason & VMX_EXIT_REASONS_FAILED_VMENTRY)) {
		vmx_refused(vcpu, vmx->reason);
		return MOAT_EXIT_USER;
	}
	vmx->launched = true;
	vmx->vectoring = vmcs_read(IDT_VECTORING_INFO_FIELD);
	vmx_state_leave(vcpu, vmx);
	if (vmx->injecting || (vmx->vectoring & VECTORING_INFO_VALID_MASK))
		vmx_events_leave(vcpu, vmx);
	if (trace_moat_exit_enabled())
		trace_moat_exit(vcpu->id, vmx->reason, vcpu->rip, vmcs_read(EXIT_QUALIFICATION),
				vmcs_read(VM_EXIT_INTR_INFO));
	return vmx_exit(vcpu);
}

/*
 * Whoever finds the vCPU in the guest must find it on the right CPU: hence first the one, then the
 * other.
 */
static void vmx_attend(struct moat_vcpu *vcpu)
{
	int cpu = smp_processor_id();

	if (vcpu->cpu != cpu) {
		vmx_of(vcpu)->vpid_generation = 0;
		WRITE_ONCE(vcpu->cpu, cpu);
		moat_clock_moved(vcpu);
	}
	/* Pairs with moat_vcpu_kick(): it sees the mode, or vmx_step() sees its request. */
	smp_store_mb(vcpu->mode, MOAT_IN_GUEST);
}

static enum moat_exit vmx_busy(struct moat_vcpu *vcpu)
{
	pr_err_once("VT-x was taken by another hypervisor: unload it (rmmod kvm_intel kvm)\n");
	vmx_of(vcpu)->injecting = false;
	vcpu->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	vcpu->run->fail_entry.hardware_entry_failure_reason = EXIT_REASON_VMON;
	vcpu->run->fail_entry.cpu = vcpu->cpu;
	return MOAT_EXIT_USER;
}

enum moat_exit vmx_run(struct moat_vcpu *vcpu)
{
	struct moat_cpu *mc = this_cpu_ptr(&moat_cpus);
	enum moat_exit exit = MOAT_EXIT_AGAIN;
	bool tsc_aux;

	local_irq_disable();
	vmx_attend(vcpu);
	if (moat_work_pending() || !mc->owned)
		goto leave;
	if (unlikely(!vmx_cpu_enter(vcpu))) {
		exit = vmx_busy(vcpu);
		goto leave;
	}
	host_debug_save(mc);
	tsc_aux = tsc_aux_enter(vcpu);
	if (moat_debug_dr7(vcpu) & (DR_GLOBAL_ENABLE_MASK | DR_LOCAL_ENABLE_MASK))
		vmx_debug_enter(vcpu);
	do {
		exit = vmx_step(vcpu);
	} while (exit == MOAT_NR_EXITS);
	if (vmx_of(vcpu)->dr_loaded)
		vmx_debug_leave(vcpu);
	tsc_aux_leave(tsc_aux);
	host_debug_restore(mc);
	if (vmx_of(vcpu)->current_here)
		vmx_cpu_leave(vcpu);
leave:
	WRITE_ONCE(vcpu->mode, MOAT_OUTSIDE);
	local_irq_enable();
	return exit;
}
