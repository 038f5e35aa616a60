// SPDX-License-Identifier: GPL-2.0-only
/*
 * What KVM offers to guests that know it, beside its clock (clock.c) and what concerns the APIC
 * (irq/lapic.c): steal time, and hypercalls.
 *
 * The page of steal time tells how long the vCPU's thread has waited for a CPU, as the scheduler
 * counts it, and whether it has been preempted. No notifier of the scheduler's is needed for that.
 * Inside hw->run preemption is off; hw->run comes back where another thread wants the CPU, and
 * before preemption is on again moat_steal_away() marks the page. MOAT_REQ_STEAL goes with the
 * mark, so that no way leads back into the guest but by moat_steal_update(), which takes the mark
 * away. The thread may be preempted elsewhere too, while it serves a fault for instance: the guest
 * then believes that the vCPU runs, and loses nothing but time. A vCPU that has halted, or whose
 * thread is in userspace, has not been preempted; so KVM has it.
 *
 * The guest takes the mark literally. It does not ask such a vCPU to flush its TLB by an IPI, but
 * sets KVM_VCPU_FLUSH_TLB beside the mark, and whoever takes the mark away flushes. So the page is
 * marked only between two instructions: the emulation of one may have translated addresses already.
 */
#include <linux/kvm_para.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <asm/kvm_para.h>

#include "../irq/irq.h"
#include "x86.h"

#define STEAL_GPA(vcpu, member)									\
	(((vcpu)->msrs.steal_time & KVM_STEAL_VALID_BITS) +					\
	 offsetof(struct kvm_steal_time, member))

bool moat_pv_allows(struct moat_vcpu *vcpu, u32 features)
{
	return !vcpu->pv_enforced ||
	       !(features & ~moat_cpuid_told(vcpu, KVM_CPUID_FEATURES, CPUID_EAX));
}

/* Steal time */

int moat_steal_time_write(struct moat_vcpu *vcpu, u64 value)
{
	if ((value & KVM_STEAL_RESERVED_MASK) || !sched_info_on())
		return -EINVAL;
	vcpu->msrs.steal_time = value;
	vcpu->steal_marked = true;	/* a page that was saved may be */
	moat_request(vcpu, MOAT_REQ_STEAL);
	return 0;
}

void moat_steal_away(struct moat_vcpu *vcpu)
{
	static const u8 preempted = KVM_VCPU_PREEMPTED;

	if (!(vcpu->msrs.steal_time & KVM_MSR_ENABLED) || vcpu->steal_marked)
		return;
	pagefault_disable();
	vcpu->steal_marked = !moat_guest_write(vcpu, STEAL_GPA(vcpu, preempted), &preempted,
					       sizeof(preempted));
	pagefault_enable();
	moat_request(vcpu, MOAT_REQ_STEAL);
}

static void steal_back(struct moat_vcpu *vcpu)
{
	u64 gpa = STEAL_GPA(vcpu, preempted), old = KVM_VCPU_PREEMPTED;
	int tries = 4;		/* other vCPUs may change it all the time */

	while (moat_guest_cmpxchg(vcpu, gpa, &old, 0, 1) && --tries)
		;
	vcpu->steal_marked = false;
	if (!tries || (old & KVM_VCPU_FLUSH_TLB))
		moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
}

void moat_steal_update(struct moat_vcpu *vcpu)
{
	u64 run_delay = current->sched_info.run_delay, gpa = STEAL_GPA(vcpu, steal), steal;
	s64 since = run_delay - vcpu->steal_run_delay;

	vcpu->steal_run_delay = run_delay;
	if (!(vcpu->msrs.steal_time & KVM_MSR_ENABLED))
		return;
	if (vcpu->steal_marked)
		steal_back(vcpu);
	/* Another thread than before may have waited less. */
	if (since <= 0 || moat_guest_read(vcpu->vm, gpa, &steal, sizeof(steal)))
		return;
	steal += since;
	moat_versioned_write(vcpu, STEAL_GPA(vcpu, version), gpa, &steal, sizeof(steal));
}

/* Hypercalls */

/* A vCPU that waits for a lock has halted, or is about to. */
static long hypercall_kick_cpu(struct moat_vcpu *target)
{
	if (target) {
		WRITE_ONCE(target->pv_unhalted, true);
		moat_vcpu_wake(target);
	}
	return 0;
}

/*
 * To the vCPUs whose APIC ids are in a bitmap of two registers, counted from the third argument;
 * the fourth is the low half of an ICR. Answers how many accepted it.
 */
static long hypercall_send_ipi(struct moat_vcpu *vcpu, bool long_mode)
{
	unsigned long ids[2] = { vcpu->gpr[RBX], vcpu->gpr[RCX] };
	u32 first = vcpu->gpr[RDX], icr = vcpu->gpr[RSI], bit;
	long accepted = 0;

	if (!vcpu->lapic)
		return -KVM_EOPNOTSUPP;
	if (icr & (APIC_DEST_LOGICAL | APIC_DEST_ALLBUT))
		return -KVM_EINVAL;
	if (!long_mode) {
		ids[0] = (u32)ids[0] | ids[1] << 32;
		ids[1] = 0;
	}
	if (first >= MOAT_MAX_VCPUS)
		return 0;
	for_each_set_bit(bit, ids, 2 * BITS_PER_LONG)
		accepted += moat_lapic_send(vcpu, icr, first + bit, true);
	return accepted;
}

/* The guest waits for a vCPU that was preempted: the thread makes room before it goes on. */
static long hypercall_sched_yield(struct moat_vcpu *vcpu, const struct moat_vcpu *target)
{
	if (target && READ_ONCE(target->steal_marked))
		moat_request(vcpu, MOAT_REQ_YIELD);
	return 0;
}

static long hypercall_do(struct moat_vcpu *vcpu, u64 nr, bool long_mode)
{
	if (nr == KVM_HC_VAPIC_POLL_IRQ)
		return 0;	/* the exit was all that is wanted */
	if (nr == KVM_HC_KICK_CPU && moat_pv_allows(vcpu, BIT(KVM_FEATURE_PV_UNHALT)))
		return hypercall_kick_cpu(moat_vm_vcpu(vcpu->vm, vcpu->gpr[RCX]));
	if (nr == KVM_HC_SEND_IPI && moat_pv_allows(vcpu, BIT(KVM_FEATURE_PV_SEND_IPI)))
		return hypercall_send_ipi(vcpu, long_mode);
	if (nr == KVM_HC_SCHED_YIELD && moat_pv_allows(vcpu, BIT(KVM_FEATURE_PV_SCHED_YIELD)))
		return hypercall_sched_yield(vcpu, moat_vm_vcpu(vcpu->vm, vcpu->gpr[RBX]));
	return -KVM_ENOSYS;
}

void moat_hypercall(struct moat_vcpu *vcpu, u8 cpl, bool long_mode)
{
	u64 mask = long_mode ? U64_MAX : U32_MAX;
	long answer = -KVM_EPERM;

	if (!cpl)
		answer = hypercall_do(vcpu, vcpu->gpr[RAX] & mask, long_mode);
	vcpu->gpr[RAX] = answer & mask;
}
