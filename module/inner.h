/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the inner loops of both vendors share: the host's registers that are put aside while a guest
 * runs, and the exits that are the same but for how the vendor tells of them. Interrupts are off,
 * preemption is off, nothing here sleeps.
 */
#ifndef MOAT_INNER_H
#define MOAT_INNER_H

#include <linux/hardirq.h>
#include <asm/debugreg.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>

#include "compat.h"
#include "hw.h"
#include "irq/irq.h"
#include "x86/x86.h"

/* A CPU's own part. */
struct moat_cpu {
	bool owned;		/* Moat may run guests on it */
	unsigned long dr[4];	/* the host's, while a guest runs */
	bool dr_active;
	u64 tsc_aux;		/* the host's: it does not change while the CPU is up */
	u64 last_vcpu;		/* a number of its own, for the branch predictor barrier */
};

DECLARE_PER_CPU(struct moat_cpu, moat_cpus);

/* RDTSCP or RDPID. */
static inline bool inner_has_tsc_aux(void)
{
	return boot_cpu_has(X86_FEATURE_RDTSCP) || boot_cpu_has(X86_FEATURE_RDPID);
}

/* Takes the CPU, or takes it back. */
static inline void inner_cpu_enable(void)
{
	struct moat_cpu *mc = this_cpu_ptr(&moat_cpus);

	if (inner_has_tsc_aux())
		rdmsrl_safe(MSR_TSC_AUX, &mc->tsc_aux);
	mc->last_vcpu = 0;
	mc->owned = true;
}

static inline void predictor_barrier(struct moat_vcpu *vcpu)
{
	u64 number = vcpu->vm->number * MOAT_MAX_VCPUS + vcpu->id;

	if (this_cpu_read(moat_cpus.last_vcpu) == number)
		return;
	this_cpu_write(moat_cpus.last_vcpu, number);
	if (boot_cpu_has(X86_FEATURE_IBPB))
		native_wrmsrl(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
}

/* The debug registers of the host's own thread; the exit leaves DR7 with nothing enabled. */
static inline void host_debug_save(struct moat_cpu *mc)
{
	mc->dr_active = hw_breakpoint_active();
	if (!mc->dr_active)
		return;
	get_debugreg(mc->dr[0], 0);
	get_debugreg(mc->dr[1], 1);
	get_debugreg(mc->dr[2], 2);
	get_debugreg(mc->dr[3], 3);
	set_debugreg(0UL, 7);
}

static inline void host_debug_restore(const struct moat_cpu *mc)
{
	if (!mc->dr_active)
		return;
	set_debugreg(mc->dr[0], 0);
	set_debugreg(mc->dr[1], 1);
	set_debugreg(mc->dr[2], 2);
	set_debugreg(mc->dr[3], 3);
	set_debugreg(DR6_RESERVED, 6);	/* or what the guest left there is taken for the thread's */
	set_debugreg((unsigned long)__this_cpu_read(cpu_dr7), 7);
}

/* DR0 to DR3 as they are in force; back again, where they are the guest's own. */
static inline void guest_debug_load(struct moat_vcpu *vcpu)
{
	const u64 *dr = vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP ? vcpu->debug.dr : vcpu->dr;

	set_debugreg(dr[0], 0);
	set_debugreg(dr[1], 1);
	set_debugreg(dr[2], 2);
	set_debugreg(dr[3], 3);
}

static inline void guest_debug_save(struct moat_vcpu *vcpu)
{
	get_debugreg(vcpu->dr[0], 0);
	get_debugreg(vcpu->dr[1], 1);
	get_debugreg(vcpu->dr[2], 2);
	get_debugreg(vcpu->dr[3], 3);
}

/*
 * True where the host's value has to come back: the guest may set its own anew in between. That it
 * was told of no RDTSCP does not keep it from executing it.
 */
static inline bool tsc_aux_enter(struct moat_vcpu *vcpu)
{
	if (!inner_has_tsc_aux() || vcpu->msrs.tsc_aux == this_cpu_read(moat_cpus.tsc_aux))
		return false;
	native_wrmsrl(MSR_TSC_AUX, vcpu->msrs.tsc_aux);
	return true;
}

static inline void tsc_aux_leave(bool changed)
{
	if (changed)
		native_wrmsrl(MSR_TSC_AUX, this_cpu_read(moat_cpus.tsc_aux));
}

static inline void spec_ctrl_enter(struct moat_vcpu *vcpu)
{
	if (vcpu->spec_ctrl_allowed && vcpu->msrs.spec_ctrl != this_cpu_read(x86_spec_ctrl_current))
		native_wrmsrl(MSR_IA32_SPEC_CTRL, vcpu->msrs.spec_ctrl);
}

static inline void spec_ctrl_leave(struct moat_vcpu *vcpu)
{
	u64 host;

	if (!vcpu->spec_ctrl_allowed)
		return;
	host = this_cpu_read(x86_spec_ctrl_current);
	if (vcpu->msrs.spec_ctrl != host)
		native_wrmsrl(MSR_IA32_SPEC_CTRL, host);
}

/*
 * The exceptions that make an exit. #DB and #AC are taken although they are the guest's own: a guest
 * whose delivery of one raises it again would never let go of the CPU (CVE-2015-5307,
 * CVE-2015-8104). #MC is the host's. #UD may be a hypercall of the other vendor's, #BP a breakpoint
 * of userspace's.
 */
static inline u32 exceptions(const struct moat_vcpu *vcpu)
{
	u32 bits = BIT(X86_TRAP_DB) | BIT(X86_TRAP_AC) | BIT(X86_TRAP_MC);

	if (!(READ_ONCE(vcpu->vm->quirks_off) & KVM_X86_QUIRK_FIX_HYPERCALL_INSN))
		bits |= BIT(X86_TRAP_UD);
	if (unlikely(vcpu->debug.control & KVM_GUESTDBG_USE_SW_BP))
		bits |= BIT(X86_TRAP_BP);
	return bits;
}

/*
 * Something waits that is not on its way: an interrupt, or userspace. Not where the APIC would keep
 * userspace's interrupt out: the window would open again and again, and the guest get nowhere.
 */
static inline bool window_is_wanted(struct moat_vcpu *vcpu)
{
	if (moat_interrupt_pending(vcpu))
		return true;
	return moat_window_requested(vcpu) && (!vcpu->lapic || moat_lapic_accepts_pic(vcpu));
}

/* Requested, and held back by nothing but the task priority. */
static inline bool held_by_priority(struct moat_vcpu *vcpu)
{
	return vcpu->lapic && moat_lapic_highest_irr(vcpu) >= 0 && moat_lapic_pending(vcpu) < 0;
}

/* Userspace that steps through the guest may want no interrupts meanwhile. */
static inline bool interrupts_blocked(const struct moat_vcpu *vcpu)
{
	return unlikely(vcpu->debug.control & KVM_GUESTDBG_BLOCKIRQ);
}

/* False where the core must serve a request first, or something came that this thread must see. */
static inline bool inner_may_go_on(void)
{
	return !moat_work_pending() && !local_softirq_pending() && this_cpu_read(moat_cpus.owned) &&
	       !hw_breakpoint_active();
}

/* The exits. Each goes on at next_rip, behind the instruction. */

static inline enum moat_exit inner_skip(struct moat_vcpu *vcpu, u64 next_rip)
{
	moat_insn_skip(vcpu, next_rip);
	return MOAT_NR_EXITS;
}

static inline enum moat_exit inner_gp(struct moat_vcpu *vcpu)
{
	moat_inject_gp(vcpu);
	return MOAT_NR_EXITS;
}

/* Of memory that the host has, where nothing is in the way. */
static inline enum moat_exit inner_fault(struct moat_vcpu *vcpu)
{
	return moat_mmu_fault(vcpu, true) ? MOAT_EXIT_FAULT : MOAT_NR_EXITS;
}

/* MONITOR and MWAIT do nothing, unless the guest is to be told that they are not there. */
static inline bool inner_has_mwait(struct moat_vcpu *vcpu)
{
	return !(READ_ONCE(vcpu->vm->quirks_off) & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS) ||
	       moat_cpuid_has_mwait(vcpu);
}

static inline enum moat_exit inner_cpuid(struct moat_vcpu *vcpu, u64 next_rip)
{
	moat_cpuid_execute(vcpu);
	return inner_skip(vcpu, next_rip);
}

static inline enum moat_exit inner_msr(struct moat_vcpu *vcpu, bool write, u64 next_rip)
{
	u32 index = vcpu->gpr[RCX];
	u64 value = 0;
	int r;

	if (write) {
		value = (u32)vcpu->gpr[RAX] | vcpu->gpr[RDX] << 32;
		r = moat_msr_write(vcpu, index, value, false);
	} else {
		r = moat_msr_read(vcpu, index, &value, false);
		if (!r) {
			vcpu->gpr[RAX] = (u32)value;
			vcpu->gpr[RDX] = value >> 32;
		}
	}
	if (r)
		return moat_msr_to_user(vcpu, write, value, r, next_rip) ? MOAT_EXIT_USER :
									   inner_gp(vcpu);
	moat_insn_skip(vcpu, next_rip);
	return unlikely(vcpu->eoi_pending) ? MOAT_EXIT_AGAIN : MOAT_NR_EXITS;
}

static inline enum moat_exit inner_hlt(struct moat_vcpu *vcpu, u64 next_rip)
{
	moat_insn_skip(vcpu, next_rip);
	if (vcpu->lapic && moat_interrupt_due(vcpu)) {
		moat_request(vcpu, MOAT_REQ_EVENT);
		return MOAT_NR_EXITS;
	}
	return MOAT_EXIT_HLT;
}

static inline enum moat_exit inner_xsetbv(struct moat_vcpu *vcpu, u8 cpl, u64 next_rip)
{
	u64 value = (u32)vcpu->gpr[RAX] | vcpu->gpr[RDX] << 32;

	if (cpl || moat_xcr_write(vcpu, vcpu->gpr[RCX], value))
		return inner_gp(vcpu);
	return inner_skip(vcpu, next_rip);
}

static inline enum moat_exit inner_write_cr(struct moat_vcpu *vcpu, unsigned int cr,
					    unsigned int gpr, u64 next_rip)
{
	if (moat_cr_write(vcpu, cr, vcpu->gpr[gpr]))
		return inner_gp(vcpu);
	if (cr == 8)
		moat_request(vcpu, MOAT_REQ_EVENT);
	return inner_skip(vcpu, next_rip);
}

/* MOV of DRn, where userspace debugs the guest. */
static inline enum moat_exit inner_dr(struct moat_vcpu *vcpu, unsigned int dr, unsigned int gpr,
				      bool write, u64 next_rip)
{
	moat_request(vcpu, MOAT_REQ_KICK);	/* DR0-3 are loaded when a run begins */
	if (!moat_dr_access(vcpu, dr, gpr, write))
		return MOAT_NR_EXITS;
	return inner_skip(vcpu, next_rip);
}

static inline bool inner_dr_is_guarded(struct moat_vcpu *vcpu)
{
	if (!(moat_debug_dr7(vcpu) & DR7_GD))
		return false;
	moat_debug_exit(vcpu, X86_TRAP_DB, DR6_RESET | DR6_BD);
	return true;
}

/* #DB that is the guest's, or userspace's: dr6 as the CPU has it. */
static inline enum moat_exit inner_db(struct moat_vcpu *vcpu, u64 dr6)
{
	const u64 causes = DR_TRAP_BITS | DR_STEP | DR_SWITCH | DR6_BD;

	if (vcpu->debug.control & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP)) {
		moat_debug_exit(vcpu, X86_TRAP_DB, dr6);
		return MOAT_NR_EXITS;
	}
	if (vcpu->debug.control)
		vcpu->dr6 = (vcpu->dr6 & ~DR_TRAP_BITS) | (dr6 & causes);
	moat_inject_exception(vcpu, X86_TRAP_DB, false, 0);
	return MOAT_EXIT_AGAIN;
}

static inline enum moat_exit inner_unknown(struct moat_vcpu *vcpu, u64 code)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
	run->internal.ndata = 2;
	run->internal.data[0] = code;
	run->internal.data[1] = vcpu->cpu;
	return MOAT_EXIT_USER;
}

#endif
