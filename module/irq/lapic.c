// SPDX-License-Identifier: GPL-2.0-only
/*
 * The local APIC of a vCPU: xAPIC page, x2APIC MSRs, timer, and the way from a message to the vCPUs
 * that it names. Intel SDM vol. 3, "Advanced Programmable Interrupt Controller (APIC)".
 *
 * Registers are kept as struct kvm_lapic_state lays them out, one each 16 bytes. Whose they are:
 *
 *   IRR and TMR are anybody's: devices, other vCPUs and the timer set bits in them, from any
 *   context, by atomic operations. All others are written by the holder of vcpu->lock, which
 *   KVM_RUN is, and read by anybody: hence READ_ONCE and WRITE_ONCE in their accessors. The task
 *   priority is also the CPU's, where it lets the guest change that by itself (VT-x).
 *
 *   What the vCPU's thread has to look for is summed up: bit n of irr_sum (isr_sum) is set where
 *   the nth 32 vectors may have one requested (in service). To find the highest vector is then two
 *   bit scans, to find that there is none is one load. The summary errs on one side only: a word
 *   with a bit in it has its summary bit, or whoever set the bit is about to set that, to make the
 *   request and to kick. Hence the order in irr_set(): vector, summary, request, kick; and in
 *   irr_clear(): vector, summary, and another look at the word.
 *
 *   A vector that is set already needs no second kick: who set it has not come to his kick yet, or
 *   the vCPU knows. Setting and clearing are atomic and full barriers: what was written to memory
 *   before a vector was requested again is seen by the handler that the first request leads to.
 *
 * The timer is one hrtimer. Whoever holds vcpu->lock starts it, and changes what its callback uses
 * (initial count and divider, deadline, change between deadline and count modes) only after
 * hrtimer_cancel(), which waits for a callback under way. The callback itself takes no lock.
 *
 * Paravirtual end of interrupt. When an interrupt goes in whose end concerns nobody but the APIC,
 * and none waits behind it, a byte of the guest's memory is set: the offer to clear it in place of
 * a write to EOI, which would be an exit. Whether the guest took the offer is found out by
 * withdrawing it, no sooner than something depends on it: a request (whatever may change which
 * interrupt comes next makes one), the guest's access to its APIC, the end of hw->run. So there is
 * no offer while the vCPU does not run, and who saves the vCPU and its memory finds each interrupt
 * in service or ended. Inside hw->run nothing may sleep: where the byte is not present just then,
 * MOAT_REQ_KICK ends the run, and the offer is withdrawn after it. An EOI that is counted late is
 * counted all the same.
 *
 * A guest that changes its task priority all the time, by MMIO, can be patched by userspace to
 * change it in a page (KVM_SET_VAPIC_ADDR) that also shows what is in service and requested. Such
 * guests are few and old: MOAT_REQ_VAPIC, which nobody takes, makes each exit the last of its run,
 * and the core looks at the page after it and writes to the page before the next.
 *
 * EOI broadcast suppression is not offered (bit 24 of the version): it needs an I/O APIC with an
 * EOI register, and userspace's may have none. So SVR bit 12 is reserved.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <asm/kvm_para.h>

#include "../compat.h"
#include "../hw.h"
#include "../x86/x86.h"
#include "irq.h"

#define LAPIC_VERSION	(0x14 | 5 << 16)	/* integrated, local vector table entries 0 to 5 */

#define BASE_ADDRESS	GENMASK_ULL(51, 12)

#define X2APIC_ICR_RESERVED	(GENMASK_ULL(31, 20) | GENMASK_ULL(17, 16) | BIT_ULL(13))

#define XAPIC_BROADCAST		0xff
#define X2APIC_BROADCAST	U32_MAX

#define VECTOR_MIN	16		/* lower ones are exceptions' */
#define BUS_CYCLE_NS	1		/* as KVM's APIC bus, 1 GHz */
#define PERIOD_MIN_NS	200000		/* a periodic timer must not keep the host busy */

/* Bits of lapic->events. */
enum { EVENT_INIT, EVENT_SIPI };

struct moat_lapic {
	u8 *regs;			/* (c) vcpu->apic_page */
	struct moat_vcpu *vcpu;		/* (c) */
	unsigned long irr_sum;		/* (a) */
	u32 isr_sum;			/* (v) */
	unsigned long errors;		/* (a) for the ESR at the next write to it */
	unsigned long events;		/* (a) EVENT_* */
	u8 sipi_vector;			/* (a) before EVENT_SIPI */
	struct hrtimer timer;
	ktime_t target;			/* end of the count; (v) when cancelled, else callback's */
	u64 period_ns;			/* (v) with the timer cancelled */
	u64 deadline;			/* the same as target; guest TSC, 0 when disarmed */
};

/* Registers */

static u32 lapic_get(const struct moat_lapic *lapic, u32 offset)
{
	return READ_ONCE(*(const u32 *)(lapic->regs + offset));
}

static void lapic_set(struct moat_lapic *lapic, u32 offset, u32 value)
{
	WRITE_ONCE(*(u32 *)(lapic->regs + offset), value);
}

static bool lapic_on(const struct moat_vcpu *vcpu)
{
	return READ_ONCE(vcpu->msrs.apic_base) & MSR_IA32_APICBASE_ENABLE;
}

static bool lapic_is_x2apic(const struct moat_vcpu *vcpu)
{
	return READ_ONCE(vcpu->msrs.apic_base) & X2APIC_ENABLE;
}

/* By software, in the spurious-interrupt vector register. */
static bool lapic_enabled(const struct moat_lapic *lapic)
{
	return lapic_get(lapic, APIC_SPIV) & APIC_SPIV_APIC_ENABLED;
}

/* Vectors */

/* Where a vector's word is, and its bit counted from the first word: they are 16 bytes apart. */
static u32 vector_word(u32 base, u8 vector)
{
	return base + vector / 32 * 16;
}

static unsigned int vector_bit(u8 vector)
{
	return vector / 32 * 128 + vector % 32;
}

static unsigned long *vector_bits(struct moat_lapic *lapic, u32 base)
{
	return (unsigned long *)(lapic->regs + base);
}

static int vector_highest(const struct moat_lapic *lapic, u32 base, u32 sum)
{
	while (sum) {
		unsigned int n = __fls(sum);
		u32 word = lapic_get(lapic, base + n * 16);

		if (word)
			return n * 32 + __fls(word);
		sum &= ~BIT(n);
	}
	return -1;
}

static int irr_highest(const struct moat_lapic *lapic)
{
	return vector_highest(lapic, APIC_IRR, READ_ONCE(lapic->irr_sum));
}

static int isr_highest(const struct moat_lapic *lapic)
{
	return vector_highest(lapic, APIC_ISR, lapic->isr_sum);
}

/* Any context. */
static void irr_set(struct moat_lapic *lapic, u8 vector, bool level)
{
	unsigned int bit = vector_bit(vector);

	if (test_bit(bit, vector_bits(lapic, APIC_TMR)) != level)
		assign_bit(bit, vector_bits(lapic, APIC_TMR), level);
	if (test_and_set_bit(bit, vector_bits(lapic, APIC_IRR)))
		return;
	set_bit(vector / 32, &lapic->irr_sum);
	moat_request(lapic->vcpu, MOAT_REQ_EVENT);
	moat_vcpu_kick(lapic->vcpu);
}

/* The vCPU's own thread. A vector set meanwhile in the same word keeps the summary. */
static void irr_clear(struct moat_lapic *lapic, u8 vector)
{
	u32 word = vector_word(APIC_IRR, vector);

	clear_bit(vector_bit(vector), vector_bits(lapic, APIC_IRR));
	if (lapic_get(lapic, word))
		return;
	clear_bit(vector / 32, &lapic->irr_sum);
	smp_mb__after_atomic();	/* pairs with the order in irr_set() */
	if (lapic_get(lapic, word))
		set_bit(vector / 32, &lapic->irr_sum);
}

/* After all vectors may have changed. */
static void lapic_sum_up(struct moat_lapic *lapic)
{
	unsigned int n;

	WRITE_ONCE(lapic->irr_sum, 0);
	lapic->isr_sum = 0;
	smp_mb();	/* pairs with the order in irr_set() */
	for (n = 0; n < 8; n++) {
		if (lapic_get(lapic, APIC_IRR + n * 16))
			set_bit(n, &lapic->irr_sum);
		if (lapic_get(lapic, APIC_ISR + n * 16))
			lapic->isr_sum |= BIT(n);
	}
}

static u32 lapic_ppr(struct moat_lapic *lapic)
{
	u32 tpr = lapic_get(lapic, APIC_TASKPRI);
	int isr = isr_highest(lapic);

	return isr < 0 || (tpr & 0xf0) >= (isr & 0xf0) ? tpr : isr & 0xf0;
}

int moat_lapic_highest_irr(struct moat_vcpu *vcpu)
{
	return irr_highest(vcpu->lapic);
}

int moat_lapic_pending(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic = vcpu->lapic;
	int vector = irr_highest(lapic);

	if (vector < 0 || (vector & 0xf0) <= (lapic_ppr(lapic) & 0xf0))
		return -1;
	return vector;
}

/* Whether somebody else than the APIC waits for the end of this interrupt. */
static bool eoi_is_awaited(const struct moat_vcpu *vcpu, u8 vector)
{
	return unlikely(test_bit(vector, vcpu->vm->eoi_vectors));
}

/* The byte in guest memory by which an interrupt can be ended: 1 it is offered, 0 not, or taken. */
static int pv_eoi_change(struct moat_vcpu *vcpu, u64 msr, u64 old, u64 new)
{
	return moat_guest_cmpxchg(vcpu, msr & ~(u64)KVM_MSR_ENABLED, &old, new, 1);
}

static void pv_eoi_offer(struct moat_vcpu *vcpu)
{
	pagefault_disable();
	if (!pv_eoi_change(vcpu, vcpu->msrs.pv_eoi, 0, 1))
		vcpu->pv_eoi_offer = vcpu->msrs.pv_eoi;
	pagefault_enable();
}

int moat_lapic_accept(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic = vcpu->lapic;
	int vector = moat_lapic_pending(vcpu);
	u32 word = vector_word(APIC_ISR, vector);

	if (vector < 0)
		return -1;
	irr_clear(lapic, vector);
	lapic_set(lapic, word, lapic_get(lapic, word) | BIT(vector % 32));
	lapic->isr_sum |= BIT(vector / 32);
	if ((vcpu->msrs.pv_eoi & KVM_MSR_ENABLED) && irr_highest(lapic) < 0 &&
	    !eoi_is_awaited(vcpu, vector))
		pv_eoi_offer(vcpu);
	return vector;
}

/* Less may be held back than before. */
static void lapic_recheck(struct moat_vcpu *vcpu)
{
	if (moat_lapic_pending(vcpu) >= 0)
		moat_request(vcpu, MOAT_REQ_EVENT);
}

/* An IOAPIC waits for the end of this vector: the kernel's, or userspace's. */
static void lapic_tell_ioapic(struct moat_vcpu *vcpu, u8 vector)
{
	bool level = test_bit(vector_bit(vector), vector_bits(vcpu->lapic, APIC_TMR));

	if (vcpu->vm->chips) {
		moat_ioapic_eoi(vcpu->vm->chips, vector, level);
	} else if (level) {
		vcpu->eoi_vector = vector;
		vcpu->eoi_pending = true;
	}
}

static void lapic_eoi(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic = vcpu->lapic;
	int vector = isr_highest(lapic);
	u32 word, left;

	if (vector < 0)
		return;
	word = vector_word(APIC_ISR, vector);
	left = lapic_get(lapic, word) & ~BIT(vector % 32);
	lapic_set(lapic, word, left);
	if (!left)
		lapic->isr_sum &= ~BIT(vector / 32);
	if (eoi_is_awaited(vcpu, vector))
		lapic_tell_ioapic(vcpu, vector);
	lapic_recheck(vcpu);
}

void moat_pv_eoi_withdraw(struct moat_vcpu *vcpu, bool may_sleep)
{
	int r;

	if (!may_sleep)
		pagefault_disable();
	r = pv_eoi_change(vcpu, vcpu->pv_eoi_offer, 1, 0);
	if (!may_sleep)
		pagefault_enable();
	if (r == -EFAULT && !may_sleep) {
		moat_request(vcpu, MOAT_REQ_KICK);
		return;
	}
	vcpu->pv_eoi_offer = 0;
	if (r)
		lapic_eoi(vcpu);
}

/* Local interrupts: errors, timer */

/* Any context. A further error of the kind, before the guest has looked, interrupts no more. */
static void lapic_error(struct moat_lapic *lapic, u32 error)
{
	u32 lvt = lapic_get(lapic, APIC_LVTERR);
	u8 vector = lvt & APIC_VECTOR_MASK;

	if (test_and_set_bit(__ffs(error), &lapic->errors))
		return;
	if (!(lvt & APIC_LVT_MASKED) && vector >= VECTOR_MIN)
		irr_set(lapic, vector, false);
}

/* Any context. */
static void lapic_interrupt(struct moat_lapic *lapic, u8 vector, bool level)
{
	if (vector < VECTOR_MIN)
		lapic_error(lapic, APIC_ESR_RECVILL);
	else
		irr_set(lapic, vector, level);
}

static bool timer_is_deadline(const struct moat_lapic *lapic)
{
	return lapic_get(lapic, APIC_LVTT) & APIC_LVT_TIMER_TSCDEADLINE;
}

static bool timer_is_periodic(const struct moat_lapic *lapic)
{
	return !timer_is_deadline(lapic) &&
	       (lapic_get(lapic, APIC_LVTT) & APIC_LVT_TIMER_PERIODIC);
}

/* Bits 3, 1 and 0 are the logarithm of the divider less 1, and 7 stands for 1. */
static u64 timer_tick_ns(const struct moat_lapic *lapic)
{
	u32 divide = lapic_get(lapic, APIC_TDCR);
	u32 shift = ((divide & 3) | (divide & 8) >> 1) + 1;

	return (u64)BUS_CYCLE_NS << (shift & 7);
}

static void timer_fire(struct moat_lapic *lapic)
{
	u32 lvt = lapic_get(lapic, APIC_LVTT);

	if (!(lvt & APIC_LVT_MASKED))
		lapic_interrupt(lapic, lvt & APIC_VECTOR_MASK, false);
}

/* Nanoseconds until the guest's TSC reaches the deadline, rounded up; 0 when it has. */
static u64 deadline_left(const struct moat_lapic *lapic)
{
	u64 deadline = READ_ONCE(lapic->deadline);
	u64 now = moat_guest_tsc(lapic->vcpu);
	u64 never = (u64)tsc_khz << 40;		/* 34 years, and no overflow below */

	if (deadline <= now)
		return 0;
	return mul_u64_u32_div(min(deadline - now, never), 1000000, tsc_khz) + 1;
}

/*
 * In hard interrupt context. The host's clock is disciplined and the TSC is not, and the guest may
 * have moved its TSC: where the deadline has not been reached, there is some more to wait.
 */
static enum hrtimer_restart timer_expired(struct hrtimer *timer)
{
	struct moat_lapic *lapic = container_of(timer, struct moat_lapic, timer);
	u64 left;

	if (timer_is_deadline(lapic)) {
		left = deadline_left(lapic);
		if (left) {
			hrtimer_set_expires(timer, ktime_add_ns(ktime_get(), left));
			return HRTIMER_RESTART;
		}
		WRITE_ONCE(lapic->deadline, 0);
	}
	timer_fire(lapic);
	if (!timer_is_periodic(lapic))
		return HRTIMER_NORESTART;
	/* From the last target, not from now: no drift. Periods that were missed are left out. */
	hrtimer_forward_now(timer, ns_to_ktime(lapic->period_ns));
	WRITE_ONCE(lapic->target, hrtimer_get_expires(timer));
	return HRTIMER_RESTART;
}

/* Counts down from count, once or in periods of the initial count. */
static void timer_start(struct moat_lapic *lapic, u32 count)
{
	u64 tick = timer_tick_ns(lapic);

	lockdep_assert_held(&lapic->vcpu->lock);
	hrtimer_cancel(&lapic->timer);
	lapic->period_ns = max_t(u64, lapic_get(lapic, APIC_TMICT) * tick, PERIOD_MIN_NS);
	lapic->target = 0;
	if (!count)
		return;
	lapic->target = ktime_add_ns(ktime_get(), count * tick);
	hrtimer_start(&lapic->timer, lapic->target, HRTIMER_MODE_ABS_HARD);
}

static u32 timer_count(struct moat_lapic *lapic)
{
	ktime_t target = READ_ONCE(lapic->target);
	s64 left;
	u64 count;

	if (!target || timer_is_deadline(lapic))
		return 0;
	left = ktime_to_ns(ktime_sub(target, ktime_get()));
	if (left <= 0) {
		if (!timer_is_periodic(lapic))
			return 0;
		/* The callback is late: the count has begun anew all the same. */
		left = lapic->period_ns - (u64)-left % lapic->period_ns;
	}
	count = div64_u64(left, timer_tick_ns(lapic));
	return min_t(u64, count, lapic_get(lapic, APIC_TMICT));
}

static void timer_stop(struct moat_lapic *lapic)
{
	hrtimer_cancel(&lapic->timer);
	lapic->target = 0;
	WRITE_ONCE(lapic->deadline, 0);
}

u64 moat_lapic_get_deadline(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic = vcpu->lapic;

	return lapic && timer_is_deadline(lapic) ? READ_ONCE(lapic->deadline) : 0;
}

void moat_lapic_set_deadline(struct moat_vcpu *vcpu, u64 guest_tsc)
{
	struct moat_lapic *lapic = vcpu->lapic;
	u64 left;

	if (!lapic || !timer_is_deadline(lapic))
		return;
	lockdep_assert_held(&vcpu->lock);
	timer_stop(lapic);
	if (!guest_tsc)
		return;
	WRITE_ONCE(lapic->deadline, guest_tsc);
	left = deadline_left(lapic);
	if (left) {
		hrtimer_start(&lapic->timer, ktime_add_ns(ktime_get(), left),
			      HRTIMER_MODE_ABS_HARD);
	} else {
		WRITE_ONCE(lapic->deadline, 0);
		timer_fire(lapic);
	}
}

/* Messages */

static void lapic_event(struct moat_vcpu *vcpu)
{
	moat_request(vcpu, MOAT_REQ_APIC);
	moat_vcpu_kick(vcpu);
}

/* One message at one vCPU. Whether it was accepted. Any context. */
static bool irq_receive(struct moat_vcpu *vcpu, const struct moat_irq *irq)
{
	struct moat_lapic *lapic = vcpu->lapic;

	if (!lapic || !lapic_on(vcpu))
		return false;
	switch (irq->delivery << 8) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
		if (!lapic_enabled(lapic))
			return false;
		lapic_interrupt(lapic, irq->vector, irq->level);
		return true;
	case APIC_DM_NMI:
		moat_inject_nmi(vcpu);
		moat_vcpu_kick(vcpu);
		return true;
	case APIC_DM_INIT:
		/* De-asserting means nothing since the Pentium 4. */
		if (irq->level && !irq->assert)
			return false;
		/* Whatever came before is void. */
		xchg(&lapic->events, BIT(EVENT_INIT));
		lapic_event(vcpu);
		return true;
	case APIC_DM_STARTUP:
		WRITE_ONCE(lapic->sipi_vector, irq->vector);
		smp_wmb();	/* pairs with xchg() in moat_lapic_accept_events() */
		set_bit(EVENT_SIPI, &lapic->events);
		lapic_event(vcpu);
		return true;
	default:	/* SMI, ExtINT: there is no such thing here */
		return false;
	}
}

/*
 * To everybody in its mode. Unless userspace says that it knows better, devices reach all by the
 * xAPIC's broadcast.
 */
static bool irq_is_broadcast(const struct moat_vcpu *vcpu, const struct moat_vcpu *source,
			     const struct moat_irq *irq)
{
	bool quirk = !source && !(READ_ONCE(vcpu->vm->x2apic_api) &
				  KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);

	if (irq->dest == XAPIC_BROADCAST && !irq->x2apic)
		return quirk || !lapic_is_x2apic(vcpu);
	return irq->dest == X2APIC_BROADCAST && lapic_is_x2apic(vcpu);
}

static u32 x2apic_ldr(u32 id)
{
	return id >> 4 << 16 | BIT(id & 15);
}

static bool irq_matches_logical(const struct moat_vcpu *vcpu, u32 dest)
{
	const struct moat_lapic *lapic = vcpu->lapic;
	u32 ldr;

	if (lapic_is_x2apic(vcpu)) {
		ldr = x2apic_ldr(vcpu->id);
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	}
	ldr = lapic_get(lapic, APIC_LDR) >> 24;
	if (lapic_get(lapic, APIC_DFR) >> 28 == 0xf)
		return ldr & dest & 0xff;
	return ldr >> 4 == (dest >> 4 & 0xf) && (ldr & dest & 0xf);
}

static bool irq_matches(const struct moat_vcpu *vcpu, const struct moat_vcpu *source,
			const struct moat_irq *irq)
{
	if (irq->shorthand == SHORTHAND_OTHERS)
		return vcpu != source;
	if (irq->shorthand == SHORTHAND_ALL || irq_is_broadcast(vcpu, source, irq))
		return true;
	return irq->logical ? irq_matches_logical(vcpu, irq->dest) : vcpu->id == irq->dest;
}

/* All vCPUs that the message names, or of these the one whose task priority is lowest. */
static int irq_multicast(struct moat_vm *vm, struct moat_vcpu *source, const struct moat_irq *irq)
{
	struct moat_vcpu *vcpu, *lowest = NULL;
	u32 id, tpr, lowest_tpr = U32_MAX;
	int accepted = 0;

	moat_for_each_vcpu(vm, vcpu, id) {
		if (!vcpu->lapic || !irq_matches(vcpu, source, irq))
			continue;
		if (irq->delivery != APIC_DELIVERY_MODE_LOWESTPRIO) {
			accepted += irq_receive(vcpu, irq);
			continue;
		}
		tpr = lapic_get(vcpu->lapic, APIC_TASKPRI);
		if (tpr < lowest_tpr && lapic_on(vcpu) && lapic_enabled(vcpu->lapic)) {
			lowest = vcpu;
			lowest_tpr = tpr;
		}
	}
	return lowest ? irq_receive(lowest, irq) : accepted;
}

int moat_irq_deliver(struct moat_vm *vm, struct moat_vcpu *source, const struct moat_irq *irq)
{
	struct moat_vcpu *vcpu;

	if (irq->shorthand == SHORTHAND_SELF)
		return irq_receive(source, irq);
	if (irq->shorthand || irq->logical || irq->dest == XAPIC_BROADCAST ||
	    irq->dest == X2APIC_BROADCAST)
		return irq_multicast(vm, source, irq);
	if (irq->dest >= MOAT_MAX_VCPUS)
		return 0;
	vcpu = moat_vm_vcpu(vm, array_index_nospec(irq->dest, MOAT_MAX_VCPUS));
	return vcpu && irq_receive(vcpu, irq);
}

bool moat_irq_in_progress(struct moat_vm *vm, const struct moat_irq *irq)
{
	unsigned int bit = vector_bit(irq->vector);
	struct moat_vcpu *vcpu;
	u32 id;

	moat_for_each_vcpu(vm, vcpu, id)
		if (irq_matches(vcpu, NULL, irq) &&
		    (test_bit(bit, vector_bits(vcpu->lapic, APIC_IRR)) ||
		     test_bit(bit, vector_bits(vcpu->lapic, APIC_ISR))))
			return true;
	return false;
}

int moat_lapic_send(struct moat_vcpu *vcpu, u32 icr, u32 dest, bool x2apic)
{
	struct moat_irq irq = {
		.dest = dest,
		.vector = icr & APIC_VECTOR_MASK,
		.delivery = (icr & APIC_DM_FIXED_MASK) >> 8,
		.logical = icr & APIC_DEST_LOGICAL,
		.assert = icr & APIC_INT_ASSERT,
		.shorthand = icr >> 18 & 3,
		.x2apic = x2apic,
	};

	if (irq.delivery <= APIC_DELIVERY_MODE_LOWESTPRIO && irq.vector < VECTOR_MIN) {
		lapic_error(vcpu->lapic, APIC_ESR_SENDILL);
		return 0;
	}
	/* All other IPIs are edge-triggered, whatever the bit says. */
	if (irq.delivery == APIC_DELIVERY_MODE_INIT)
		irq.level = icr & APIC_INT_LEVELTRIG;
	return moat_irq_deliver(vcpu->vm, vcpu, &irq);
}

/* Register access */

enum { XAPIC_R = 1, XAPIC_W = 2, X2APIC_R = 4, X2APIC_W = 8 };

#define XAPIC_RW	(XAPIC_R | XAPIC_W)
#define BOTH_R		(XAPIC_R | X2APIC_R)
#define BOTH_W		(XAPIC_W | X2APIC_W)
#define BOTH_RW		(BOTH_R | BOTH_W)

/*
 * One register. Bits that are neither in keep nor in mute are reserved: ignored in the xAPIC, #GP
 * in the x2APIC. KVM_SET_LAPIC restores the bits in keep and in state.
 */
struct lapic_reg {
	u32 keep;	/* bits that a write changes */
	u32 mute;	/* bits that a write may carry, without effect */
	u32 state;
	u8 access;
};

#define LVT(bits, quiet)									\
	{ .access = BOTH_RW, .keep = APIC_LVT_MASKED | APIC_VECTOR_MASK | (bits),		\
	  .mute = APIC_SEND_PENDING | (quiet) }
#define LINT	LVT(APIC_MODE_MASK | APIC_INPUT_POLARITY | APIC_LVT_LEVEL_TRIGGER,		\
		    APIC_LVT_REMOTE_IRR)
#define VECTORS	{ .access = BOTH_R, .state = ~0 }

#define SVR_BITS (APIC_VECTOR_MASK | APIC_SPIV_APIC_ENABLED | APIC_SPIV_FOCUS_DISABLED)

#define REG(offset)	((offset) >> 4)

static const struct lapic_reg lapic_regs[REG(KVM_APIC_REG_SIZE)] = {
	[REG(APIC_ID)] = { .access = BOTH_R },
	[REG(APIC_LVR)] = { .access = BOTH_R },
	[REG(APIC_TASKPRI)] = { .access = BOTH_RW, .keep = APIC_TPRI_MASK },
	[REG(APIC_ARBPRI)] = { .access = XAPIC_R },
	[REG(APIC_PROCPRI)] = { .access = BOTH_R },
	[REG(APIC_EOI)] = { .access = BOTH_W },
	[REG(APIC_RRR)] = { .access = XAPIC_R },
	[REG(APIC_LDR)] = { .access = XAPIC_RW | X2APIC_R, .keep = APIC_LDR_MASK },
	[REG(APIC_DFR)] = { .access = XAPIC_RW, .keep = 0xf0000000, .state = ~0 },
	[REG(APIC_SPIV)] = { .access = BOTH_RW, .keep = SVR_BITS },
	[REG(APIC_ISR) ... REG(APIC_ISR) + 7] = VECTORS,
	[REG(APIC_TMR) ... REG(APIC_TMR) + 7] = VECTORS,
	[REG(APIC_IRR) ... REG(APIC_IRR) + 7] = VECTORS,
	[REG(APIC_ESR)] = { .access = BOTH_RW, .state = 0xff },
	/* The x2APIC's is 64 bits wide: not from this table. */
	[REG(APIC_ICR)] = { .access = XAPIC_RW | X2APIC_R, .keep = ~APIC_ICR_BUSY },
	[REG(APIC_ICR2)] = { .access = XAPIC_RW, .keep = 0xff000000, .state = ~0 },
	[REG(APIC_LVTT)] = LVT(APIC_LVT_TIMER_PERIODIC | APIC_LVT_TIMER_TSCDEADLINE, 0),
	[REG(APIC_LVTTHMR) ... REG(APIC_LVTPC)] = LVT(APIC_MODE_MASK, 0),
	[REG(APIC_LVT0) ... REG(APIC_LVT1)] = LINT,
	[REG(APIC_LVTERR)] = LVT(0, 0),
	[REG(APIC_TMICT)] = { .access = BOTH_RW, .keep = ~0 },
	[REG(APIC_TMCCT)] = { .access = BOTH_R },
	[REG(APIC_TDCR)] = { .access = BOTH_RW, .keep = 0xb },
	[REG(APIC_SELF_IPI)] = { .access = X2APIC_W, .keep = APIC_VECTOR_MASK },
};

static const struct lapic_reg lapic_no_reg;

static const struct lapic_reg *reg_find(u32 offset)
{
	u32 index = offset >> 4;

	if (index >= ARRAY_SIZE(lapic_regs))
		return &lapic_no_reg;
	return &lapic_regs[array_index_nospec(index, ARRAY_SIZE(lapic_regs))];
}

static u32 reg_read(struct moat_lapic *lapic, u32 offset)
{
	bool x2apic = lapic_is_x2apic(lapic->vcpu);
	u32 id = lapic->vcpu->id;

	switch (offset) {
	case APIC_ID:
		return x2apic ? id : id << 24;
	case APIC_LVR:
		return LAPIC_VERSION;
	case APIC_PROCPRI:
		return lapic_ppr(lapic);
	case APIC_LDR:
		return x2apic ? x2apic_ldr(id) : lapic_get(lapic, offset);
	case APIC_TMCCT:
		return timer_count(lapic);
	}
	return lapic_get(lapic, offset);
}

static void tpr_write(struct moat_vcpu *vcpu, u8 tpr)
{
	lapic_set(vcpu->lapic, APIC_TASKPRI, tpr);
	lapic_recheck(vcpu);
}

static void icr_write(struct moat_lapic *lapic, u32 value)
{
	lapic_set(lapic, APIC_ICR, value);
	moat_lapic_send(lapic->vcpu, value, lapic_get(lapic, APIC_ICR2) >> 24, false);
}

static void svr_write(struct moat_lapic *lapic, u32 value)
{
	u32 lvt;

	lapic_set(lapic, APIC_SPIV, value);
	if (value & APIC_SPIV_APIC_ENABLED)
		return;
	for (lvt = APIC_LVTT; lvt <= APIC_LVTERR; lvt += 16)
		lapic_set(lapic, lvt, lapic_get(lapic, lvt) | APIC_LVT_MASKED);
}

static void lvt_write(struct moat_lapic *lapic, u32 offset, u32 value)
{
	if (offset == APIC_LVTT &&
	    !(moat_cpuid_told(lapic->vcpu, 1, CPUID_ECX) & F(TSC_DEADLINE_TIMER)))
		value &= ~APIC_LVT_TIMER_TSCDEADLINE;
	/* To and from the deadline mode disarms; between the others the count goes on. */
	if (offset == APIC_LVTT &&
	    ((value ^ lapic_get(lapic, offset)) & APIC_LVT_TIMER_TSCDEADLINE)) {
		timer_stop(lapic);
		lapic_set(lapic, APIC_TMICT, 0);
	}
	if (!lapic_enabled(lapic))
		value |= APIC_LVT_MASKED;
	lapic_set(lapic, offset, value);
	/* The PIC may get through now. */
	if (offset == APIC_LVT0)
		moat_request(lapic->vcpu, MOAT_REQ_EVENT);
}

/* Not inlined: what guests write all the time, in reg_write(), needs no frame then. */
static noinline void reg_write_rare(struct moat_lapic *lapic, u32 offset, u32 value)
{
	u32 count;

	switch (offset) {
	case APIC_SPIV:
		svr_write(lapic, value);
		return;
	case APIC_LVTT ... APIC_LVTERR:
		lvt_write(lapic, offset, value);
		return;
	case APIC_TMICT:
		if (timer_is_deadline(lapic))
			return;
		lapic_set(lapic, offset, value);
		timer_start(lapic, value);
		return;
	case APIC_TDCR:		/* the count goes on from where it is, at another pace */
		count = timer_count(lapic);
		lapic_set(lapic, offset, value);
		if (!timer_is_deadline(lapic))
			timer_start(lapic, count);
		return;
	case APIC_ESR:		/* the errors since the last write show themselves */
		value = xchg(&lapic->errors, 0);
		break;
	case APIC_DFR:
		value |= APIC_DFR_CLUSTER;
		break;
	}
	lapic_set(lapic, offset, value);
}

/* value has no bits but those that the register keeps. */
static void reg_write(struct moat_lapic *lapic, u32 offset, u32 value)
{
	if (offset == APIC_EOI)
		lapic_eoi(lapic->vcpu);
	else if (offset == APIC_TASKPRI)
		tpr_write(lapic->vcpu, value);
	else if (offset == APIC_ICR)
		icr_write(lapic, value);
	else if (offset == APIC_SELF_IPI)
		moat_lapic_send(lapic->vcpu, APIC_DEST_SELF | value, 0, true);
	else
		reg_write_rare(lapic, offset, value);
}

/* The register at gpa; none where an access is not one that hardware answers. */
static const struct lapic_reg *mmio_find(struct moat_lapic *lapic, u64 gpa, unsigned int len,
					 u8 access)
{
	const struct lapic_reg *reg;

	if (len != 4 || (gpa & 15))
		return NULL;
	reg = reg_find(offset_in_page(gpa));
	if (!(reg->access & XAPIC_RW))
		lapic_error(lapic, APIC_ESR_ILLREGA);
	return reg->access & access ? reg : NULL;
}

/* Userspace may want to hear of each access to the task priority. */
static void tpr_report(struct moat_vcpu *vcpu, u64 gpa, bool write)
{
	if (!vcpu->tpr_reporting || offset_in_page(gpa) != APIC_TASKPRI)
		return;
	vcpu->tpr_access.rip = vcpu->rip;
	vcpu->tpr_access.is_write = write;
	moat_request(vcpu, MOAT_REQ_TPR_ACCESS);
}

bool moat_lapic_mmio(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write)
{
	const struct lapic_reg *reg;
	u32 value;

	if (!moat_lapic_covers(vcpu, gpa))
		return false;
	if (vcpu->pv_eoi_offer)
		moat_pv_eoi_withdraw(vcpu, false);
	reg = mmio_find(vcpu->lapic, gpa, len, write ? XAPIC_W : XAPIC_R);
	if (reg)
		tpr_report(vcpu, gpa, write);
	if (reg && write) {
		memcpy(&value, data, sizeof(value));
		reg_write(vcpu->lapic, offset_in_page(gpa), value & reg->keep);
	} else if (reg) {
		value = reg_read(vcpu->lapic, offset_in_page(gpa));
		memcpy(data, &value, sizeof(value));
	} else if (!write) {
		memset(data, 0, len);
	}
	return true;
}

int moat_lapic_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	struct moat_lapic *lapic = vcpu->lapic;
	u32 offset = (index - APIC_BASE_MSR) << 4;
	const struct lapic_reg *reg = reg_find(offset);

	if (!lapic || !lapic_is_x2apic(vcpu) || !(reg->access & X2APIC_R))
		return -EINVAL;
	if (vcpu->pv_eoi_offer)
		moat_pv_eoi_withdraw(vcpu, false);
	*value = reg_read(lapic, offset);
	if (offset == APIC_ICR)
		*value |= (u64)lapic_get(lapic, APIC_ICR2) << 32;
	return 0;
}

static int icr_write_x2apic(struct moat_vcpu *vcpu, u64 value)
{
	if (value & X2APIC_ICR_RESERVED)
		return -EINVAL;
	lapic_set(vcpu->lapic, APIC_ICR, (u32)value & ~APIC_ICR_BUSY);
	lapic_set(vcpu->lapic, APIC_ICR2, value >> 32);
	moat_lapic_send(vcpu, value, value >> 32, true);
	return 0;
}

/* EOI and ICR are what guests write all the time: they come first, and by themselves. */
int moat_lapic_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	u32 offset = (index - APIC_BASE_MSR) << 4;
	const struct lapic_reg *reg;

	if (!vcpu->lapic || !lapic_is_x2apic(vcpu))
		return -EINVAL;
	if (offset == APIC_EOI && !value) {
		if (vcpu->pv_eoi_offer)
			moat_pv_eoi_withdraw(vcpu, false);
		lapic_eoi(vcpu);
		return 0;
	}
	if (offset == APIC_ICR)
		return icr_write_x2apic(vcpu, value);
	reg = reg_find(offset);
	if (!(reg->access & X2APIC_W) || (value & ~(u64)(reg->keep | reg->mute)))
		return -EINVAL;
	reg_write(vcpu->lapic, offset, value & reg->keep);
	return 0;
}

void moat_cr8_set(struct moat_vcpu *vcpu, u8 cr8)
{
	if (vcpu->lapic)
		tpr_write(vcpu, cr8 << 4);
	else
		vcpu->apic_page[APIC_TASKPRI] = cr8 << 4;
}

void moat_vapic_look(struct moat_vcpu *vcpu)
{
	u8 tpr;

	if (moat_guest_read(vcpu->vm, vcpu->vapic_gpa, &tpr, sizeof(tpr)) ||
	    tpr == (u8)vcpu->vapic_shown)
		return;
	vcpu->vapic_shown = (vcpu->vapic_shown & ~0xff) | tpr;
	tpr_write(vcpu, tpr);
}

void moat_vapic_show(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic = vcpu->lapic;
	u32 isr = max(isr_highest(lapic), 0), irr = max(irr_highest(lapic), 0);
	u32 word = lapic_get(lapic, APIC_TASKPRI) | (isr & 0xf0) << 8 | irr << 24;

	if (word != vcpu->vapic_shown &&
	    !moat_guest_write(vcpu, vcpu->vapic_gpa, &word, sizeof(word)))
		vcpu->vapic_shown = word;
}

bool moat_lapic_accepts_pic(struct moat_vcpu *vcpu)
{
	u32 lvt = lapic_get(vcpu->lapic, APIC_LVT0);

	if (!lapic_on(vcpu))
		return true;
	return !(lvt & APIC_LVT_MASKED) && (lvt & APIC_MODE_MASK) == APIC_DM_EXTINT;
}

/* Life */

static void lapic_reset_regs(struct moat_lapic *lapic)
{
	struct moat_vcpu *vcpu = lapic->vcpu;
	u32 lvt;

	timer_stop(lapic);
	memset(lapic->regs, 0, KVM_APIC_REG_SIZE);
	for (lvt = APIC_LVTT; lvt <= APIC_LVTERR; lvt += 16)
		lapic_set(lapic, lvt, APIC_LVT_MASKED);
	/* Where firmware would have connected the PIC. KVM does so, and boot loaders rely on it. */
	if (vcpu->msrs.apic_base & MSR_IA32_APICBASE_BSP)
		lapic_set(lapic, APIC_LVT0, APIC_DM_EXTINT);
	lapic_set(lapic, APIC_DFR, APIC_DFR_FLAT);
	lapic_set(lapic, APIC_SPIV, 0xff);
	WRITE_ONCE(lapic->errors, 0);
	lapic_sum_up(lapic);
}

void moat_lapic_reset(struct moat_vcpu *vcpu, bool init)
{
	if (!init)
		WRITE_ONCE(vcpu->lapic->events, 0);
	lapic_reset_regs(vcpu->lapic);
	clear_bit(MOAT_REQ_VAPIC, &vcpu->requests);
}

int moat_lapic_create(struct moat_vcpu *vcpu)
{
	struct moat_lapic *lapic;

	if (!tsc_khz)
		return -EOPNOTSUPP;
	lapic = kzalloc(sizeof(*lapic), GFP_KERNEL_ACCOUNT);
	if (!lapic)
		return -ENOMEM;
	lapic->regs = vcpu->apic_page;
	lapic->vcpu = vcpu;
	moat_hrtimer_setup(&lapic->timer, timer_expired, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	vcpu->lapic = lapic;
	return 0;
}

void moat_lapic_destroy(struct moat_vcpu *vcpu)
{
	if (!vcpu->lapic)
		return;
	hrtimer_cancel(&vcpu->lapic->timer);
	kfree(vcpu->lapic);
	vcpu->lapic = NULL;
}

bool moat_lapic_has_events(struct moat_vcpu *vcpu)
{
	return vcpu->lapic && READ_ONCE(vcpu->lapic->events);
}

static void lapic_start_up(struct moat_vcpu *vcpu, u8 vector)
{
	struct kvm_sregs *sregs = moat_sregs_change(vcpu);

	sregs->cs.selector = vector << 8;
	sregs->cs.base = vector << 12;
	vcpu->rip = 0;
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
}

void moat_lapic_accept_events(struct moat_vcpu *vcpu)
{
	unsigned long events;

	lockdep_assert_held(&vcpu->lock);
	if (!vcpu->lapic)
		return;
	events = xchg(&vcpu->lapic->events, 0);
	if (events & BIT(EVENT_INIT)) {
		moat_vcpu_reset(vcpu, true);
		vcpu->mp_state = vcpu->msrs.apic_base & MSR_IA32_APICBASE_BSP ?
					 KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	if ((events & BIT(EVENT_SIPI)) && (vcpu->mp_state == KVM_MP_STATE_INIT_RECEIVED ||
					   vcpu->mp_state == KVM_MP_STATE_UNINITIALIZED))
		lapic_start_up(vcpu, READ_ONCE(vcpu->lapic->sipi_vector));
}

#define BASE_MODE	(MSR_IA32_APICBASE_ENABLE | X2APIC_ENABLE)

/* Off, xAPIC and x2APIC: "x2APIC State Transitions". The host may go straight to any. */
static bool base_is_legal(struct moat_vcpu *vcpu, u64 value, bool host)
{
	u64 from = vcpu->msrs.apic_base & BASE_MODE, to = value & BASE_MODE;

	if ((value & ~(BASE_ADDRESS | BASE_MODE | MSR_IA32_APICBASE_BSP)) || to == X2APIC_ENABLE)
		return false;
	if (host)
		return true;
	if ((value & BASE_ADDRESS & ~vcpu->gpa_mask) ||
	    (to == BASE_MODE && !(moat_cpuid_told(vcpu, 1, CPUID_ECX) & F(X2APIC))))
		return false;
	/* From off to x2APIC, and from x2APIC to xAPIC, there is no way but through the third. */
	return to == BASE_MODE ? from : from != BASE_MODE || !to;
}

int moat_lapic_set_base(struct moat_vcpu *vcpu, u64 value, bool host)
{
	u64 old = vcpu->msrs.apic_base;

	if (!base_is_legal(vcpu, value, host))
		return -EINVAL;
	WRITE_ONCE(vcpu->msrs.apic_base, value);
	moat_request(vcpu, MOAT_REQ_EVENT);
	/* An APIC that is switched off forgets. */
	if (vcpu->lapic && (old & MSR_IA32_APICBASE_ENABLE) && !(value & MSR_IA32_APICBASE_ENABLE))
		lapic_reset_regs(vcpu->lapic);
	return 0;
}

/* State, as KVM documents it: ICR in two halves, in x2APIC mode too. */

static u32 *state_reg(struct kvm_lapic_state *state, u32 offset)
{
	return (u32 *)(state->regs + offset);
}

/* An x2APIC's id has 32 bits there for those who asked for it. */
static u32 state_id(const struct moat_vcpu *vcpu)
{
	bool wide = READ_ONCE(vcpu->vm->x2apic_api) & KVM_X2APIC_API_USE_32BIT_IDS;

	return wide && lapic_is_x2apic(vcpu) ? vcpu->id : vcpu->id << 24;
}

long moat_vcpu_get_lapic(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct moat_lapic *lapic = vcpu->lapic;
	u32 offset;

	if (!lapic)
		return -EINVAL;
	for (offset = 0; offset < KVM_APIC_REG_SIZE; offset += 16)
		*state_reg(arg, offset) = reg_read(lapic, offset);
	*state_reg(arg, APIC_ID) = state_id(vcpu);
	return 0;
}

static void timer_restore(struct moat_lapic *lapic, u32 count)
{
	u32 initial = lapic_get(lapic, APIC_TMICT);

	if (timer_is_deadline(lapic)) {
		moat_lapic_set_deadline(lapic->vcpu, lapic->deadline);
		return;
	}
	WRITE_ONCE(lapic->deadline, 0);
	if (!count && timer_is_periodic(lapic))
		count = initial;
	timer_start(lapic, min(count, initial));
}

long moat_vcpu_set_lapic(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct moat_lapic *lapic = vcpu->lapic;
	u32 offset;

	if (!lapic || *state_reg(arg, APIC_ID) != state_id(vcpu))
		return -EINVAL;
	hrtimer_cancel(&lapic->timer);
	for (offset = 0; offset < KVM_APIC_REG_SIZE; offset += 16) {
		const struct lapic_reg *reg = reg_find(offset);

		lapic_set(lapic, offset, *state_reg(arg, offset) & (reg->keep | reg->state));
	}
	lapic_sum_up(lapic);
	timer_restore(lapic, *state_reg(arg, APIC_TMCCT));
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}

long moat_vcpu_set_vapic_addr(void *object, void *arg, unsigned long uarg)
{
	u64 gpa = ((const struct kvm_vapic_addr *)arg)->vapic_addr;
	struct moat_vcpu *vcpu = object;

	if (!vcpu->lapic || (gpa && !moat_guest_has(vcpu->vm, gpa, true)))
		return -EINVAL;
	vcpu->vapic_gpa = gpa;
	vcpu->vapic_shown = ~0;		/* reserved bits: no page is like this */
	assign_bit(MOAT_REQ_VAPIC, &vcpu->requests, gpa);
	/* Where the ring of dirty pages has no room, it is shown when the vCPU runs. */
	if (gpa && !moat_dirty_ring_is_short(vcpu, MOAT_RING_RESERVED))
		moat_vapic_show(vcpu);
	return 0;
}

long moat_vcpu_tpr_access_reporting(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_tpr_access_ctl *control = arg;
	struct moat_vcpu *vcpu = object;

	if (control->flags)
		return -EINVAL;
	vcpu->tpr_reporting = control->enabled;
	return 0;
}
