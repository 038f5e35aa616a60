// SPDX-License-Identifier: GPL-2.0-only
/*
 * The inner loop: into the guest and out of it, until the core is needed.
 *
 * The whole of svm_run() has preemption off, so whatever is per CPU is set up once at its start.
 * The loop itself has interrupts off too. A host interrupt ends the guest's run; it is let in by
 * svm_interrupts() and, if nothing came of it that this thread must attend to, the guest goes on.
 *
 * Events: what vcpu->events and the APIC hold is looked at only when MOAT_REQ_EVENT says that
 * something changed. An exception or NMI that was put into event_inject counts as delivered unless
 * exit_int_info says that its delivery was cut short; then it is put back as "injected" and goes
 * first.
 */
#include <linux/interrupt.h>
#include <linux/sched.h>
#include <linux/thread_info.h>
#include <asm/processor-flags.h>

#include "../inner.h"
#include "../trace.h"
#include "svm.h"

/*
 * ASIDs are handed out CPU by CPU. When a CPU has none left, its generation ends: everything is
 * flushed, and each vCPU takes a new ASID when it next comes by.
 */
static void asid_assign(struct svm_vcpu *svm, struct svm_cpu *sc)
{
	if (sc->asid_next > svm_features.asid_max) {
		sc->asid_generation++;
		sc->asid_next = 1;
		svm->vmcb->tlb_control = SVM_TLB_FLUSH_ALL;
	}
	svm->asid_generation = sc->asid_generation;
	svm->vmcb->asid = sc->asid_next++;
}

static void svm_tlb_flush(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	if (!svm_features.flush_by_asid)
		asid_assign(svm, this_cpu_ptr(&svm_cpus));
	else if (svm->vmcb->tlb_control != SVM_TLB_FLUSH_ALL)
		svm->vmcb->tlb_control = SVM_TLB_FLUSH_ASID;
}

/*
 * A new generation begins with a flush of all, at the entry of the vCPU that began it. Where that
 * did not take place, the next vCPU to come by begins another.
 */
static void svm_flush_missed(struct moat_vcpu *vcpu)
{
	svm_of(vcpu)->asid_generation = 0;
	this_cpu_write(svm_cpus.asid_next, U32_MAX);
}

void svm_debug_enter(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	svm->dr_loaded = true;
	/* Where userspace debugs the guest, its accesses are emulated. */
	if (!vcpu->debug.control)
		svm->vmcb->intercept_dr = 0;
	guest_debug_load(vcpu);
}

static void svm_debug_leave(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	svm->dr_loaded = false;
	svm->vmcb->intercept_dr = U32_MAX;
	if (!vcpu->debug.control)
		guest_debug_save(vcpu);
}

/* XSAVES cannot be intercepted: what it would save of the host's must not be there. */
static void xss_enter(void)
{
	if (svm_features.host_xss)
		wrmsrl(MSR_IA32_XSS, 0);
}

static void xss_leave(void)
{
	if (svm_features.host_xss)
		wrmsrl(MSR_IA32_XSS, svm_features.host_xss);
}

/*
 * This CPU's part of the vCPU: a translation tag of its own, and the host's hidden registers
 * saved.
 */
static void svm_cpu_enter(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);

	if (svm->asid_generation != sc->asid_generation)
		asid_assign(svm, sc);
	predictor_barrier(vcpu);
	asm volatile("vmsave %0" : : "a" (sc->host_pa) : "memory");
	svm->vmcb->tsc_offset = vcpu->msrs.tsc_offset;
	svm->vmcb->intercept_misc1 |= SVM_CR0_SEL_WRITE;	/* see exit_write_cr() */
	if (moat_debug_dr7(vcpu) & (DR_GLOBAL_ENABLE_MASK | DR_LOCAL_ENABLE_MASK))
		svm_debug_enter(vcpu);
}

static void inject(struct moat_vcpu *vcpu, u32 type_and_vector, bool has_error, u32 error)
{
	struct vmcb *vmcb = svm_of(vcpu)->vmcb;

	vmcb->event_inject = type_and_vector | SVM_EVENT_VALID |
			     (has_error ? SVM_EVENT_HAS_ERROR | (u64)error << 32 : 0);
	svm_of(vcpu)->injecting = true;
	vcpu->stats.injections++;
	trace_moat_inject(vcpu->id, type_and_vector, error);
}

/*
 * An interrupt is given as a virtual one (V_IRQ), when it can be taken at once: the CPU takes it
 * before the guest's next instruction. Where that cannot be, a virtual interrupt that is
 * intercepted makes an exit of the moment when it can.
 */
static void virq_set(struct svm_vcpu *svm, u8 vector)
{
	svm->vmcb->vintr &= ~SVM_V_INTR_VECTOR;
	svm->vmcb->vintr |= SVM_V_IRQ | SVM_V_INTR_PRIO | SVM_V_IGN_TPR | (u64)vector << 32;
	svm->vmcb->intercept_misc1 &= ~SVM_VINTR;
}

void svm_window_close(struct svm_vcpu *svm)
{
	svm->vmcb->vintr &= ~SVM_V_IRQ;
	svm->vmcb->intercept_misc1 &= ~SVM_VINTR;
}

static void svm_window_open(struct svm_vcpu *svm)
{
	virq_set(svm, 0);
	svm->vmcb->intercept_misc1 |= SVM_VINTR;
}

/*
 * Whether the event whose delivery the exit cut short is the virtual interrupt. Emulated CPUs may
 * call it an exception, but leave V_IRQ set.
 */
static bool virq_cut_short(struct moat_vcpu *vcpu)
{
	const struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	u64 info = vmcb->exit_int_info;

	return (info & SVM_EVENT_VALID) && vcpu->events.interrupt.injected &&
	       (info & 0xff) == vcpu->events.interrupt.vector &&
	       ((info & SVM_EVENT_TYPE) == SVM_EVENT_INTR || (vmcb->vintr & SVM_V_IRQ));
}

/* After an exit: was the interrupt taken? If not, it stays where it is. */
static void virq_leave(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	if (virq_cut_short(vcpu)) {
		virq_set(svm, vcpu->events.interrupt.vector);
		return;
	}
	if (svm->vmcb->vintr & SVM_V_IRQ)
		return;
	vcpu->events.interrupt.injected = false;
	/* What is behind it has not been looked at. */
	if (window_is_wanted(vcpu) || (vcpu->lapic && moat_lapic_highest_irr(vcpu) >= 0))
		moat_request(vcpu, MOAT_REQ_EVENT);
}

/* What an exit cut short goes first. True where there was one. */
static bool inject_again(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;

	if (ev->exception.injected)
		inject(vcpu, SVM_EVENT_EXCEPTION | ev->exception.vector, ev->exception.has_error,
		       ev->exception.error);
	else if (ev->nmi.injected)
		inject(vcpu, SVM_EVENT_NMI | X86_TRAP_NMI, false, 0);
	else
		return false;
	return true;
}

/*
 * INT3 and INTO, which userspace may inject: the guest is to return behind the instruction. Where
 * delivery is cut short it begins again, from where the instruction is.
 */
static void soft_exception_begin(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;
	const struct moat_insn *insn;

	if (!moat_exception_is_soft(ev->exception.vector))
		return;
	svm_of(vcpu)->soft_injected = true;
	svm_of(vcpu)->soft_rip = vcpu->rip;
	insn = moat_insn_find(vcpu);
	vcpu->rip += insn ? insn->length : 1;
}

static bool inject_nmi(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;

	if (!ev->nmi.pending || ev->nmi.masked || vcpu->irq_shadow || interrupts_blocked(vcpu))
		return false;
	ev->nmi.pending--;
	ev->nmi.masked = true;
	ev->nmi.injected = true;
	inject(vcpu, SVM_EVENT_NMI | X86_TRAP_NMI, false, 0);
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
	vcpu->stats.injections++;
	trace_moat_inject(vcpu->id, SVM_EVENT_INTR | vector, 0);
}

/* What could not go in at once: sees to it that it does, at the right moment. */
static void svm_windows(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;
	struct svm_vcpu *svm = svm_of(vcpu);
	bool nmi_waits = ev->nmi.pending && !ev->nmi.masked;

	if (ev->interrupt.injected)
		virq_set(svm, ev->interrupt.vector);
	else if (window_is_wanted(vcpu) && !interrupts_blocked(vcpu))
		svm_window_open(svm);
	else
		svm_window_close(svm);
	if (ev->nmi.masked && !svm->iret_step)
		svm->vmcb->intercept_misc1 |= SVM_IRET;
	/* An NMI waits for the end of an interrupt shadow: try again at the next exit. */
	if (nmi_waits)
		moat_request(vcpu, MOAT_REQ_EVENT);
	/*
	 * Requested, and held back by nothing but the task priority: see it change. (With a virtual
	 * interrupt outstanding, the emulated CPU dies of the guest's changing it.)
	 */
	if ((svm->vmcb->vintr & SVM_V_IRQ) || held_by_priority(vcpu))
		svm->vmcb->intercept_cr |= SVM_CR_WRITE(8);
	else
		svm->vmcb->intercept_cr &= ~SVM_CR_WRITE(8);
}

static void svm_events(struct moat_vcpu *vcpu)
{
	struct vmcb *vmcb = svm_of(vcpu)->vmcb;
	struct moat_events *ev = &vcpu->events;

	vmcb->intercept_exceptions = exceptions(vcpu);
	vmcb->msrpm_base = rcu_access_pointer(vcpu->vm->msr_filter) ? svm_msrpm_all_pa :
								      svm_msrpm_pa;
	moat_nmi_collect(vcpu);
	if (!inject_again(vcpu)) {
		if (ev->exception.pending) {
			moat_exception_begin(vcpu);
			soft_exception_begin(vcpu);
			inject_again(vcpu);
		} else if (!inject_nmi(vcpu) && !ev->interrupt.injected) {
			inject_interrupt(vcpu);
		}
	}
	svm_windows(vcpu);
}

/* False where the core must serve a request first. */
static bool svm_requests(struct moat_vcpu *vcpu)
{
	if (vcpu->pv_eoi_offer)
		moat_pv_eoi_withdraw(vcpu, false);
	if (READ_ONCE(vcpu->requests) & ~MOAT_REQS_FAST)
		return false;
	if (moat_request_take(vcpu, MOAT_REQ_TLB_FLUSH))
		svm_tlb_flush(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_EVENT))
		svm_events(vcpu);
	/* The core is to look at the page after each exit. */
	if (test_bit(MOAT_REQ_VAPIC, &vcpu->requests))
		moat_request(vcpu, MOAT_REQ_KICK);
	return true;
}

static void svm_state_enter(struct moat_vcpu *vcpu, struct vmcb *vmcb)
{
	vmcb->rax = vcpu->gpr[RAX];
	vmcb->rsp = vcpu->gpr[RSP];
	vmcb->rip = vcpu->rip;
	vmcb->rflags = vcpu->rflags;
	vmcb->interrupt_shadow = vcpu->irq_shadow;
	vmcb->dr6 = vcpu->dr6;
	vmcb->dr7 = vcpu->dr7;
	if (unlikely(vcpu->debug.control)) {
		vmcb->rflags |= moat_debug_tf(vcpu);
		vmcb->dr6 = DR6_RESET;
		vmcb->dr7 = moat_debug_dr7(vcpu);
	}
	vmcb->vintr = (vmcb->vintr & ~SVM_V_TPR) | moat_cr8(vcpu);
	if (vcpu->sregs_dirty)
		svm_sregs_store(vcpu);
}

static void svm_state_leave(struct moat_vcpu *vcpu, struct vmcb *vmcb)
{
	u8 cr8 = vmcb->vintr & 0xf;

	vcpu->gpr[RAX] = vmcb->rax;
	vcpu->gpr[RSP] = vmcb->rsp;
	vcpu->rip = vmcb->rip;
	vcpu->rflags = vmcb->rflags;
	vcpu->irq_shadow = vmcb->interrupt_shadow & 1;
	if (likely(!vcpu->debug.control)) {
		vcpu->dr6 = vmcb->dr6;
		vcpu->dr7 = vmcb->dr7;
	} else {
		vcpu->rflags &= ~moat_debug_tf(vcpu);
	}
	vcpu->sregs_valid = false;
	if (unlikely(cr8 != moat_cr8(vcpu)))
		moat_cr8_set(vcpu, cr8);
}

/* Was everything delivered that was injected? What was not goes back, to be injected first. */
static void svm_events_leave(struct moat_vcpu *vcpu, struct vmcb *vmcb)
{
	struct moat_events *ev = &vcpu->events;
	u64 info = vmcb->exit_int_info;
	bool soft = svm_of(vcpu)->soft_injected;
	u8 vector = info & 0xff;

	vmcb->event_inject = 0;
	svm_of(vcpu)->injecting = false;
	svm_of(vcpu)->soft_injected = false;
	ev->exception.injected = false;
	ev->nmi.injected = false;
	if (!(info & SVM_EVENT_VALID))
		return;
	moat_request(vcpu, MOAT_REQ_EVENT);
	if (virq_cut_short(vcpu))
		return;
	switch (info & SVM_EVENT_TYPE) {
	case SVM_EVENT_NMI:
		ev->nmi.injected = true;
		break;
	case SVM_EVENT_EXCEPTION:
		/* INT3 and INTO are raised again by their instruction, or by us. */
		if (moat_exception_is_soft(vector)) {
			ev->exception.pending = soft;
			if (soft)
				vcpu->rip = svm_of(vcpu)->soft_rip;
			break;
		}
		ev->exception.injected = true;
		ev->exception.vector = vector;
		ev->exception.has_error = info & SVM_EVENT_HAS_ERROR;
		ev->exception.error = info >> 32;
		break;
	default:		/* INT n: raised again by its instruction */
		break;
	}
}

/*
 * VMRUN found the VMCB's state illegal: nothing has run, and what the VMCB holds now is no state of
 * the guest's. (The emulated CPU leaves the host's there, and clears V_INTR_MASKING, without which
 * a guest keeps the host's interrupts out.) All of it goes in anew, as the core has it.
 */
static void svm_refused(struct moat_vcpu *vcpu)
{
	svm_flush_missed(vcpu);
	svm_vcpu_reset(vcpu, true);
	svm_of(vcpu)->injecting = false;
	vcpu->sregs_valid = true;
	vcpu->sregs_dirty = true;
	moat_request(vcpu, MOAT_REQ_EVENT);
	vcpu->run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	vcpu->run->fail_entry.hardware_entry_failure_reason = SVM_EXIT_INVALID;
	vcpu->run->fail_entry.cpu = vcpu->cpu;
}

/* Once into the guest and out. MOAT_NR_EXITS: served, go on. */
static enum moat_exit svm_step(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);
	struct vmcb *vmcb = svm->vmcb;

	/* An exit may have woken who is to run here. Before events are on their way in. */
	if (unlikely(need_resched()) || (READ_ONCE(vcpu->requests) && !svm_requests(vcpu))) {
		if (vmcb->tlb_control == SVM_TLB_FLUSH_ALL)
			svm_flush_missed(vcpu);
		return MOAT_EXIT_AGAIN;
	}
	svm_state_enter(vcpu, vmcb);
	trace_moat_entry(vcpu->id, vcpu->rip);

	moat_xcr0_enter(vcpu);
	spec_ctrl_enter(vcpu);
	svm_enter(vcpu->gpr, svm->vmcb_pa, this_cpu_read(svm_cpus.host_pa));
	spec_ctrl_leave(vcpu);
	moat_xcr0_leave(vcpu);

	vmcb->tlb_control = SVM_TLB_KEEP;
	vcpu->stats.exits++;
	if (unlikely(vmcb->exit_code == SVM_EXIT_INVALID)) {
		svm_refused(vcpu);
		return MOAT_EXIT_USER;
	}
	svm_state_leave(vcpu, vmcb);
	if (unlikely(svm->iret_wait) && vcpu->rip != svm->iret_rip) {
		svm->iret_wait = false;
		vcpu->events.nmi.masked = false;
		moat_request(vcpu, MOAT_REQ_EVENT);
	}
	if (svm->injecting || (vmcb->exit_int_info & SVM_EVENT_VALID))
		svm_events_leave(vcpu, vmcb);
	if (vcpu->events.interrupt.injected)
		virq_leave(vcpu);
	if (trace_moat_exit_enabled())
		trace_moat_exit(vcpu->id, vmcb->exit_code, vcpu->rip, vmcb->exit_info_1,
				vmcb->exit_info_2);
	return svm_exit(vcpu);
}

/*
 * Whoever finds the vCPU in the guest must find it on the right CPU: hence first the one, then the
 * other.
 */
static void svm_attend(struct moat_vcpu *vcpu)
{
	int cpu = smp_processor_id();

	if (vcpu->cpu != cpu) {
		svm_of(vcpu)->asid_generation = 0;
		WRITE_ONCE(vcpu->cpu, cpu);
		moat_clock_moved(vcpu);
	}
	/* Pairs with moat_vcpu_kick(): it sees the mode, or svm_step() sees its request. */
	smp_store_mb(vcpu->mode, MOAT_IN_GUEST);
}

enum moat_exit svm_run(struct moat_vcpu *vcpu)
{
	struct moat_cpu *mc = this_cpu_ptr(&moat_cpus);
	enum moat_exit exit = MOAT_EXIT_AGAIN;
	bool tsc_aux;

	local_irq_disable();
	svm_attend(vcpu);
	if (moat_work_pending() || !mc->owned)
		goto leave;
	host_debug_save(mc);
	tsc_aux = tsc_aux_enter(vcpu);
	xss_enter();
	svm_cpu_enter(vcpu);
	do {
		exit = svm_step(vcpu);
	} while (exit == MOAT_NR_EXITS);
	if (svm_of(vcpu)->dr_loaded)
		svm_debug_leave(vcpu);
	xss_leave();
	tsc_aux_leave(tsc_aux);
	host_debug_restore(mc);
leave:
	WRITE_ONCE(vcpu->mode, MOAT_OUTSIDE);
	local_irq_enable();
	return exit;
}
