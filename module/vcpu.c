// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vCPU: its file, its life, and the outer run loop.
 *
 * KVM_RUN is two nested loops. The outer one, here, may sleep: it looks at signals, serves
 * requests, waits where the vCPU is halted, and handles what the vendor's loop (hw->run) could
 * not. The inner one is entered with the guest's FPU loaded and preemption off, and left when
 * there is work for this.
 *
 * Attention. Whoever wants a vCPU to look at something sets a bit in vcpu->requests and calls
 * moat_vcpu_kick(). A vCPU in the guest has said so in vcpu->mode before it last read its
 * requests, so either it sees the bit, or the kick sees the mode and interrupts its CPU. A halted
 * one is woken.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/sched/stat.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>
#include <trace/events/ipi.h>
#include <asm/debugreg.h>
#include <asm/kvm_para.h>

#include "compat.h"
#include "hw.h"
#include "irq/irq.h"
#include "x86/x86.h"

#define HALT_POLL_FIRST_NS	10000

static unsigned int halt_poll_ns = 200000;
module_param(halt_poll_ns, uint, 0644);
MODULE_PARM_DESC(halt_poll_ns, "How long a halted vCPU polls at most before its thread sleeps, in ns; 0: never");

static const struct file_operations vcpu_fops;

/* With the VM, when no file refers to either; also what was made halfway. */
void moat_vcpu_destroy(struct moat_vcpu *vcpu)
{
	moat_hw->vcpu_destroy(vcpu);
	moat_lapic_destroy(vcpu);
	moat_fpu_destroy(vcpu);
	vfree(vcpu->ring.entry);
	kvfree(vcpu->cpuid);
	free_page((unsigned long)vcpu->apic_page);
	free_page((unsigned long)vcpu->pio_data);
	free_page((unsigned long)vcpu->run);
	kfree(vcpu);
}

static int vcpu_alloc_parts(struct moat_vcpu *vcpu)
{
	int r;

	vcpu->run = (struct kvm_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->pio_data = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	vcpu->apic_page = (u8 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vcpu->run || !vcpu->pio_data || !vcpu->apic_page)
		return -ENOMEM;
	r = moat_dirty_ring_create(vcpu);
	if (!r)
		r = moat_fpu_create(vcpu);
	if (!r && vcpu->vm->irqchip)
		r = moat_lapic_create(vcpu);
	if (!r)
		r = moat_hw->vcpu_create(vcpu);
	return r;
}

static struct moat_vcpu *vcpu_alloc(struct moat_vm *vm, u32 id)
{
	struct moat_vcpu *vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL_ACCOUNT);
	int r;

	if (!vcpu)
		return ERR_PTR(-ENOMEM);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->cpu = -1;
	vcpu->events.external = -1;
	mutex_init(&vcpu->lock);
	rcuwait_init(&vcpu->wait);
	r = vcpu_alloc_parts(vcpu);
	if (r) {
		moat_vcpu_destroy(vcpu);
		return ERR_PTR(r);
	}
	return vcpu;
}

void moat_vcpu_reset(struct moat_vcpu *vcpu, bool init)
{
	vcpu->events = (struct moat_events) { .external = -1 };
	atomic_set(&vcpu->nmi_queued, 0);
	vcpu->eoi_pending = false;
	vcpu->emul.active = false;
	vcpu->complete = NULL;
	WRITE_ONCE(vcpu->pv_unhalted, false);
	moat_hw->vcpu_reset(vcpu, init);
	moat_fpu_reset(vcpu, init);
	moat_msr_reset(vcpu, init);
	if (vcpu->lapic)
		moat_lapic_reset(vcpu, init);
	moat_regs_reset(vcpu, init);
	moat_request(vcpu, MOAT_REQ_EVENT);
}

long moat_vm_create_vcpu(void *object, void *arg, unsigned long id)
{
	struct moat_vm *vm = object;
	struct moat_vcpu *vcpu;
	struct file *file;
	char name[24];
	int fd;

	lockdep_assert_held(&vm->lock);
	if (id >= (vm->max_vcpu_ids ?: MOAT_MAX_VCPUS))
		return -EINVAL;
	if (moat_vm_vcpu(vm, id))
		return -EEXIST;
	vcpu = vcpu_alloc(vm, id);
	if (IS_ERR(vcpu))
		return PTR_ERR(vcpu);
	/* With APICs in the kernel, all but the boot processor wait for INIT and SIPI. */
	vcpu->mp_state = vm->irqchip && id != vm->bsp_id ? KVM_MP_STATE_UNINITIALIZED :
							   KVM_MP_STATE_RUNNABLE;
	moat_vcpu_reset(vcpu, false);

	snprintf(name, sizeof(name), "moat-vcpu:%u", vcpu->id);
	fd = moat_file_prepare(name, &vcpu_fops, vcpu, O_RDWR, &file);
	if (fd < 0) {
		moat_vcpu_destroy(vcpu);
		return fd;
	}
	moat_vm_get(vm);
	rcu_assign_pointer(vm->vcpus[id], vcpu);
	vm->vcpu_count++;
	/* Whoever sees the bound sees the vCPU. */
	smp_store_release(&vm->vcpu_bound, max(vm->vcpu_bound, vcpu->id + 1));
	moat_stats_vcpu_add(vcpu);
	fd_install(fd, file);
	return fd;
}

/* Attention */

void moat_vcpu_wake(struct moat_vcpu *vcpu)
{
	if (rcuwait_wake_up(&vcpu->wait))
		vcpu->stats.wakeups++;
}

void moat_vcpu_kick(struct moat_vcpu *vcpu)
{
	int cpu, me;

	/* A full barrier between the request and the reading of the mode. */
	moat_vcpu_wake(vcpu);
	if (READ_ONCE(vcpu->mode) != MOAT_IN_GUEST)
		return;
	me = get_cpu();
	cpu = READ_ONCE(vcpu->cpu);
	if (cpu != me && cpu >= 0 && cpu_online(cpu)) {
		vcpu->stats.kicks++;
		smp_send_reschedule(cpu);
	}
	put_cpu();
}

/* Events */

static bool exception_is_contributory(u8 vector)
{
	return vector == X86_TRAP_DE || (vector >= X86_TRAP_TS && vector <= X86_TRAP_GP);
}

/* A second exception while one is on its way: AMD APM vol. 2, "#DF—Double-Fault Exception". */
static bool exception_doubles(u8 first, u8 second)
{
	if (second == X86_TRAP_PF)
		return first == X86_TRAP_PF;
	return exception_is_contributory(second) &&
	       (exception_is_contributory(first) || first == X86_TRAP_PF);
}

void moat_exception_begin(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;

	ev->exception.pending = false;
	ev->exception.injected = true;
	if (!ev->exception.has_payload)
		return;
	ev->exception.has_payload = false;
	if (ev->exception.vector == X86_TRAP_PF)
		moat_sregs_change(vcpu)->cr2 = ev->exception.payload;
	else if (ev->exception.vector == X86_TRAP_DB)
		vcpu->dr6 = (vcpu->dr6 & ~DR_TRAP_BITS) | ev->exception.payload;
}

void moat_inject_exception(struct moat_vcpu *vcpu, u8 vector, bool has_error, u32 error)
{
	struct moat_events *ev = &vcpu->events;

	if (ev->exception.pending || ev->exception.injected) {
		if (ev->exception.vector == X86_TRAP_DF) {
			moat_request(vcpu, MOAT_REQ_TRIPLE_FAULT);
			return;
		}
		if (exception_doubles(ev->exception.vector, vector)) {
			vector = X86_TRAP_DF;
			has_error = true;
			error = 0;
		}
	}
	ev->exception.pending = true;
	ev->exception.injected = false;
	ev->exception.has_payload = false;
	ev->exception.vector = vector;
	/* Real mode has no error codes. */
	ev->exception.has_error = has_error && (moat_sregs(vcpu)->cr0 & X86_CR0_PE);
	ev->exception.error = error;
	moat_request(vcpu, MOAT_REQ_EVENT);
}

void moat_inject_gp(struct moat_vcpu *vcpu)
{
	moat_inject_exception(vcpu, X86_TRAP_GP, true, 0);
}

void moat_inject_ud(struct moat_vcpu *vcpu)
{
	moat_inject_exception(vcpu, X86_TRAP_UD, false, 0);
}

void moat_inject_nmi(struct moat_vcpu *vcpu)
{
	atomic_inc(&vcpu->nmi_queued);
	moat_request(vcpu, MOAT_REQ_EVENT);
}

void moat_nmi_collect(struct moat_vcpu *vcpu)
{
	struct moat_events *ev = &vcpu->events;
	/* One being handled leaves room for one more; without one, two can wait. */
	unsigned int room = ev->nmi.masked || ev->nmi.injected ? 1 : 2;

	if (!atomic_read(&vcpu->nmi_queued))
		return;
	ev->nmi.pending = min_t(unsigned int, room,
				ev->nmi.pending + atomic_xchg(&vcpu->nmi_queued, 0));
}

/* One from a PIC, the kernel's or userspace's, that the local APIC lets through. */
static bool extint_pending(struct moat_vcpu *vcpu)
{
	const struct moat_chips *chips = vcpu->vm->chips;

	return (chips ? READ_ONCE(chips->pic_output) : vcpu->events.external >= 0) &&
	       (!vcpu->lapic || moat_lapic_accepts_pic(vcpu));
}

bool moat_interrupt_pending(struct moat_vcpu *vcpu)
{
	return extint_pending(vcpu) || (vcpu->lapic && moat_lapic_pending(vcpu) >= 0);
}

int moat_interrupt_accept(struct moat_vcpu *vcpu)
{
	int vector = vcpu->events.external;

	if (!extint_pending(vcpu))
		return vcpu->lapic ? moat_lapic_accept(vcpu) : -1;
	if (vcpu->vm->chips)
		return moat_pic_accept(vcpu->vm->chips);
	vcpu->events.external = -1;
	return vector;
}

bool moat_window_requested(struct moat_vcpu *vcpu)
{
	return READ_ONCE(vcpu->run->request_interrupt_window) &&
	       vcpu->vm->irqchip != MOAT_IRQCHIP_KERNEL;
}

bool moat_interrupt_due(struct moat_vcpu *vcpu)
{
	return (vcpu->rflags & X86_EFLAGS_IF) &&
	       (vcpu->events.interrupt.injected || moat_interrupt_pending(vcpu));
}

/* Waiting */

static bool vcpu_has_event(struct moat_vcpu *vcpu)
{
	const struct moat_events *ev = &vcpu->events;

	if (ev->exception.pending || atomic_read(&vcpu->nmi_queued) ||
	    (ev->nmi.pending && !ev->nmi.masked) || READ_ONCE(vcpu->pv_unhalted))
		return true;
	return moat_lapic_has_events(vcpu) || moat_interrupt_due(vcpu);
}

/* Anything that a vCPU which is not running must get up for. */
static bool vcpu_must_wake(struct moat_vcpu *vcpu)
{
	switch (READ_ONCE(vcpu->mp_state)) {
	case KVM_MP_STATE_RUNNABLE:
		return true;
	case KVM_MP_STATE_HALTED:
		return vcpu_has_event(vcpu) || test_bit(MOAT_REQ_TRIPLE_FAULT, &vcpu->requests);
	default:
		return moat_lapic_has_events(vcpu);
	}
}

/*
 * A halted vCPU is often wanted again at once: look for that for a while, which is much cheaper
 * than to put the CPU to sleep and wake it. How long follows what the last halts were like: it
 * grows while they end soon after the polling did, and is given up by those that last.
 */
static bool vcpu_poll(struct moat_vcpu *vcpu)
{
	u64 start = rdtsc(), cycles = div_u64((u64)vcpu->poll_ns * tsc_khz, USEC_PER_SEC);

	while (single_task_running() && !need_resched() && !signal_pending(current)) {
		if (vcpu_must_wake(vcpu)) {
			vcpu->stats.polls++;
			return true;
		}
		if (rdtsc() - start >= cycles)
			break;
		cpu_relax();
	}
	return false;
}

static u32 vcpu_poll_limit(struct moat_vcpu *vcpu)
{
	u64 limit = READ_ONCE(vcpu->vm->halt_poll_ns);

	/* The guest may say that it polls itself. */
	if (!(vcpu->msrs.poll_control & KVM_MSR_ENABLED))
		return 0;
	return limit > U32_MAX ? READ_ONCE(halt_poll_ns) : limit;
}

static void vcpu_poll_adapt(struct moat_vcpu *vcpu, u64 slept_ns)
{
	u32 most = vcpu_poll_limit(vcpu);

	if (slept_ns > most)
		vcpu->poll_ns = 0;
	else
		vcpu->poll_ns = min(most, max_t(u32, HALT_POLL_FIRST_NS, vcpu->poll_ns * 2));
}

static void vcpu_sleep(struct moat_vcpu *vcpu)
{
	u64 start = ktime_get_ns();

	prepare_to_rcuwait(&vcpu->wait);
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (vcpu_must_wake(vcpu) || signal_pending(current))
			break;
		schedule();
	}
	finish_rcuwait(&vcpu->wait);
	vcpu_poll_adapt(vcpu, ktime_get_ns() - start);
}

static int vcpu_wait(struct moat_vcpu *vcpu)
{
	vcpu->stats.halts++;
	if (!vcpu->poll_ns || !vcpu_poll(vcpu))
		vcpu_sleep(vcpu);
	if (!vcpu_must_wake(vcpu))
		return -EINTR;
	if (vcpu->mp_state == KVM_MP_STATE_HALTED && vcpu_has_event(vcpu)) {
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
		WRITE_ONCE(vcpu->pv_unhalted, false);
	}
	return 0;
}

/* What an exit needs of the core: 1 go on, 0 exit to userspace, negative error. */

static int exit_again(struct moat_vcpu *vcpu)
{
	return 1;
}

static int exit_fault(struct moat_vcpu *vcpu)
{
	int r = moat_mmu_fault(vcpu, false);
	enum moat_exit exit;

	if (r != -ENOENT)
		return r ?: 1;
	if (vcpu->fault.delivery)
		return moat_internal_error(vcpu, KVM_INTERNAL_ERROR_DELIVERY_EV);
	exit = moat_mmio_move(vcpu);
	return exit == MOAT_EXIT_FAULT ? moat_emulate(vcpu) : exit != MOAT_EXIT_USER;
}

static int exit_hlt(struct moat_vcpu *vcpu)
{
	if (vcpu->lapic) {
		vcpu->mp_state = KVM_MP_STATE_HALTED;
		return 1;
	}
	vcpu->run->exit_reason = KVM_EXIT_HLT;
	return 0;
}

/* The hardware's state is undefined after a shutdown; userspace finds that of INIT. */
static int exit_shutdown(struct moat_vcpu *vcpu)
{
	moat_vcpu_reset(vcpu, true);
	vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

static int exit_filled_in(struct moat_vcpu *vcpu)
{
	return 0;
}

/* A userspace IOAPIC waits for the end of this interrupt. */
static int vcpu_exit_eoi(struct moat_vcpu *vcpu)
{
	vcpu->eoi_pending = false;
	vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	vcpu->run->eoi.vector = vcpu->eoi_vector;
	return 0;
}

static int (*const vcpu_exits[MOAT_NR_EXITS])(struct moat_vcpu *vcpu) = {
	[MOAT_EXIT_AGAIN] = exit_again,
	[MOAT_EXIT_FAULT] = exit_fault,
	[MOAT_EXIT_EMULATE] = moat_emulate,
	[MOAT_EXIT_PREFETCH] = moat_insn_prefetch,
	[MOAT_EXIT_IO] = moat_io_exit,
	[MOAT_EXIT_UNDEFINED] = moat_undefined,
	[MOAT_EXIT_HLT] = exit_hlt,
	[MOAT_EXIT_TASK] = moat_task_switch,
	[MOAT_EXIT_SHUTDOWN] = exit_shutdown,
	[MOAT_EXIT_USER] = exit_filled_in,
};

/* The outer loop */

/* Of a PIC in userspace; with one in the kernel, nothing is amiss. */
static bool vcpu_can_take_interrupt(struct moat_vcpu *vcpu)
{
	if (vcpu->vm->irqchip == MOAT_IRQCHIP_KERNEL)
		return true;
	return (vcpu->rflags & X86_EFLAGS_IF) && !vcpu->irq_shadow &&
	       !vcpu->events.interrupt.injected && vcpu->events.external < 0 &&
	       (!vcpu->lapic || moat_lapic_accepts_pic(vcpu));
}

static int vcpu_exit_tpr_access(struct moat_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_TPR_ACCESS;
	vcpu->run->tpr_access = vcpu->tpr_access;
	return 0;
}

/* Requests that may sleep. 1 enter the guest, 0 exit to userspace, negative error. */
static int vcpu_serve_requests(struct moat_vcpu *vcpu)
{
	moat_request_take(vcpu, MOAT_REQ_KICK);
	if (moat_dirty_ring_exit(vcpu))		/* before anything that writes */
		return 0;
	if (test_bit(MOAT_REQ_VAPIC, &vcpu->requests))
		moat_vapic_show(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_TRIPLE_FAULT))
		return exit_shutdown(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_DEBUG))
		return moat_debug_to_user(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_APIC))
		moat_lapic_accept_events(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_CLOCK))
		moat_clock_update(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_YIELD))
		yield();
	if (moat_request_take(vcpu, MOAT_REQ_STEAL))
		moat_steal_update(vcpu);
	if (moat_request_take(vcpu, MOAT_REQ_TPR_ACCESS))
		return vcpu_exit_tpr_access(vcpu);
	if (moat_window_requested(vcpu) && vcpu_can_take_interrupt(vcpu)) {
		vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
		return 0;
	}
	return 1;
}

static int vcpu_interrupted(struct moat_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_INTR;
	return -EINTR;
}

/* Until the guest may be entered: 1; or 0 or an error for userspace. */
static int vcpu_prepare(struct moat_vcpu *vcpu)
{
	int r;

	do {
		if (moat_user_work_pending())
			return vcpu_interrupted(vcpu);
		cond_resched();
		if (current->sched_info.run_delay != vcpu->steal_run_delay)
			moat_request(vcpu, MOAT_REQ_STEAL);
		if (vcpu->eoi_pending)
			return vcpu_exit_eoi(vcpu);
		if (READ_ONCE(vcpu->requests) || moat_window_requested(vcpu)) {
			r = vcpu_serve_requests(vcpu);
			if (r <= 0)
				return r;
		}
		if (vcpu->mp_state == KVM_MP_STATE_RUNNABLE)
			return 1;
		if (vcpu_wait(vcpu))
			return vcpu_interrupted(vcpu);
		if (vcpu->lapic && vcpu->mp_state != KVM_MP_STATE_RUNNABLE)
			moat_request(vcpu, MOAT_REQ_APIC);
	} while (true);
}

static int vcpu_loop(struct moat_vcpu *vcpu)
{
	enum moat_exit exit;
	int r;

	do {
		r = vcpu_prepare(vcpu);
		if (r <= 0)
			return r;
		moat_fpu_enter(vcpu);
		current->flags |= PF_VCPU;	/* a tick in here is the guest's time */
		exit = moat_hw->run(vcpu);
		current->flags &= ~PF_VCPU;
		if (exit == MOAT_EXIT_AGAIN && need_resched())
			moat_steal_away(vcpu);
		moat_fpu_leave(vcpu);
		if (vcpu->pv_eoi_offer)
			moat_pv_eoi_withdraw(vcpu, true);
		if (test_bit(MOAT_REQ_VAPIC, &vcpu->requests))
			moat_vapic_look(vcpu);
		vcpu->stats.slow_exits++;
		r = vcpu_exits[exit](vcpu);
	} while (r > 0);
	return r;
}

/* First what the last exit left open, then the guest. */
static int vcpu_resume(struct moat_vcpu *vcpu)
{
	int (*complete)(struct moat_vcpu *vcpu) = vcpu->complete;
	int r = 1;

	if (complete) {
		vcpu->complete = NULL;
		r = complete(vcpu);
	}
	if (r > 0 && moat_immediate_exit(vcpu->run))
		r = -EINTR;
	return r > 0 ? vcpu_loop(vcpu) : r;
}

/* What every return to userspace tells. */
static void vcpu_report(struct moat_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	run->if_flag = !!(vcpu->rflags & X86_EFLAGS_IF);
	run->cr8 = moat_cr8(vcpu);
	run->apic_base = vcpu->msrs.apic_base;
	run->flags = 0;
	run->ready_for_interrupt_injection = vcpu_can_take_interrupt(vcpu);
}

/*
 * What of the registers goes through kvm_run instead of ioctls. Another thread may write there at
 * any time: so set gets a copy.
 */
static const struct {
	u64 bit;
	u32 offset, size;
	moat_ioctl_fn *get, *set;
} vcpu_synced[] = {
#define SYNC(BIT, member, get, set)								\
	{ BIT, offsetof(struct kvm_run, s.regs.member),						\
	  sizeof_field(struct kvm_run, s.regs.member), get, set }
	SYNC(KVM_SYNC_X86_REGS, regs, moat_vcpu_get_regs, moat_vcpu_set_regs),
	SYNC(KVM_SYNC_X86_SREGS, sregs, moat_vcpu_get_sregs, moat_vcpu_set_sregs),
	SYNC(KVM_SYNC_X86_EVENTS, events, moat_vcpu_get_events, moat_vcpu_set_events),
};

static int vcpu_sync_in(struct moat_vcpu *vcpu, u64 dirty)
{
	struct kvm_sregs copy;	/* the largest of them */
	unsigned int i;

	static_assert(sizeof(copy) >= sizeof(struct kvm_regs) &&
		      sizeof(copy) >= sizeof(struct kvm_vcpu_events));
	for (i = 0; i < ARRAY_SIZE(vcpu_synced); i++) {
		if (!(dirty & vcpu_synced[i].bit))
			continue;
		memcpy(&copy, (void *)vcpu->run + vcpu_synced[i].offset, vcpu_synced[i].size);
		barrier();	/* no second look at what is shared */
		if (vcpu_synced[i].set(vcpu, &copy, 0))
			return -EINVAL;
	}
	vcpu->run->kvm_dirty_regs = 0;
	return 0;
}

static void vcpu_sync_out(struct moat_vcpu *vcpu)
{
	u64 valid = READ_ONCE(vcpu->run->kvm_valid_regs);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vcpu_synced); i++)
		if (valid & vcpu_synced[i].bit)
			vcpu_synced[i].get(vcpu, (void *)vcpu->run + vcpu_synced[i].offset, 0);
}

static int vcpu_check_run(struct moat_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u64 cr8, dirty = READ_ONCE(run->kvm_dirty_regs);

	if ((READ_ONCE(run->kvm_valid_regs) | dirty) & ~KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (dirty && vcpu_sync_in(vcpu, dirty))
		return -EINVAL;
	if (vcpu->lapic)
		return 0;
	cr8 = READ_ONCE(run->cr8);
	if (cr8 > 15)
		return -EINVAL;
	moat_cr8_set(vcpu, cr8);
	return 0;
}

static long vcpu_run(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	int r;

	lockdep_assert_held(&vcpu->lock);
	if (uarg)
		return -EINVAL;
	r = vcpu_check_run(vcpu);
	if (r)
		return r;
	if (moat_window_requested(vcpu))
		moat_request(vcpu, MOAT_REQ_EVENT);
	/* Into real_blocked: a signal that is blocked but for this kills nobody meanwhile. */
	if (vcpu->sigset_active)
		sigprocmask(SIG_SETMASK, &vcpu->sigset, &current->real_blocked);
	r = vcpu_resume(vcpu);
	vcpu_report(vcpu);
	vcpu_sync_out(vcpu);
	vcpu->stats.user_exits++;
	if (vcpu->sigset_active) {
		sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
		sigemptyset(&current->real_blocked);
	}
	return r;
}

static long vcpu_set_signal_mask(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_signal_mask *mask = arg;
	sigset_t sigset;

	if (!mask) {
		vcpu->sigset_active = false;
		return 0;
	}
	if (mask->len != sizeof(sigset))
		return -EINVAL;
	/* Whole or not at all: a part would be without what is taken out of it below. */
	if (copy_from_user(&sigset, (void __user *)(uarg + sizeof(*mask)), sizeof(sigset)))
		return -EFAULT;
	sigdelsetmask(&sigset, sigmask(SIGKILL) | sigmask(SIGSTOP));
	vcpu->sigset = sigset;
	vcpu->sigset_active = true;
	return 0;
}

static long vcpu_interrupt(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_interrupt *irq = arg;

	if (irq->irq > U8_MAX)
		return -EINVAL;
	if (vcpu->vm->irqchip == MOAT_IRQCHIP_KERNEL)
		return -ENXIO;
	if (vcpu->lapic && vcpu->events.external >= 0)
		return -EEXIST;
	vcpu->events.external = irq->irq;
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}

static long vcpu_enable_cap(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_enable_cap *cap = arg;

	if (cap->flags || cap->cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID)
		return -EINVAL;
	vcpu->pv_enforced = cap->args[0];
	return 0;
}

static long vcpu_nmi(void *object, void *arg, unsigned long uarg)
{
	moat_inject_nmi(object);
	return 0;
}

const struct moat_ioctl moat_vcpu_ioctls[] = {
	{ KVM_RUN, MOAT_LOCK_VCPU, vcpu_run },
	{ KVM_GET_REGS, MOAT_LOCK_VCPU, moat_vcpu_get_regs },
	{ KVM_SET_REGS, MOAT_LOCK_VCPU, moat_vcpu_set_regs },
	{ KVM_GET_SREGS, MOAT_LOCK_VCPU, moat_vcpu_get_sregs },
	{ KVM_SET_SREGS, MOAT_LOCK_VCPU, moat_vcpu_set_sregs },
	{ KVM_INTERRUPT, MOAT_LOCK_VCPU, vcpu_interrupt },
	{ KVM_NMI, MOAT_LOCK_VCPU, vcpu_nmi },
	{ KVM_GET_SREGS2, MOAT_LOCK_VCPU, moat_vcpu_get_sregs2 },
	{ KVM_SET_SREGS2, MOAT_LOCK_VCPU, moat_vcpu_set_sregs2 },
	{ KVM_GET_FPU, MOAT_LOCK_VCPU, moat_vcpu_get_fpu },
	{ KVM_SET_FPU, MOAT_LOCK_VCPU, moat_vcpu_set_fpu },
	{ KVM_GET_XSAVE, MOAT_LOCK_VCPU, moat_vcpu_get_xsave },
	{ KVM_GET_XSAVE2, MOAT_LOCK_VCPU, moat_vcpu_get_xsave },
	{ KVM_SET_XSAVE, MOAT_LOCK_VCPU, moat_vcpu_set_xsave },
	{ KVM_GET_XCRS, MOAT_LOCK_VCPU, moat_vcpu_get_xcrs },
	{ KVM_SET_XCRS, MOAT_LOCK_VCPU, moat_vcpu_set_xcrs },
	{ KVM_GET_MSRS, MOAT_LOCK_VCPU, moat_vcpu_get_msrs },
	{ KVM_SET_MSRS, MOAT_LOCK_VCPU, moat_vcpu_set_msrs },
	{ KVM_SET_CPUID2, MOAT_LOCK_VCPU, moat_vcpu_set_cpuid2 },
	{ KVM_GET_CPUID2, MOAT_LOCK_VCPU, moat_vcpu_get_cpuid2 },
	{ KVM_GET_LAPIC, MOAT_LOCK_VCPU, moat_vcpu_get_lapic },
	{ KVM_SET_LAPIC, MOAT_LOCK_VCPU, moat_vcpu_set_lapic },
	{ KVM_GET_MP_STATE, MOAT_LOCK_VCPU, moat_vcpu_get_mp_state },
	{ KVM_SET_MP_STATE, MOAT_LOCK_VCPU, moat_vcpu_set_mp_state },
	{ KVM_GET_VCPU_EVENTS, MOAT_LOCK_VCPU, moat_vcpu_get_events },
	{ KVM_SET_VCPU_EVENTS, MOAT_LOCK_VCPU, moat_vcpu_set_events },
	{ KVM_GET_DEBUGREGS, MOAT_LOCK_VCPU, moat_vcpu_get_debugregs },
	{ KVM_SET_DEBUGREGS, MOAT_LOCK_VCPU, moat_vcpu_set_debugregs },
	{ KVM_GET_TSC_KHZ, MOAT_LOCK_VCPU, moat_vcpu_get_tsc_khz },
	{ KVM_SET_TSC_KHZ, MOAT_LOCK_VCPU, moat_vcpu_set_tsc_khz },
	{ KVM_HAS_DEVICE_ATTR, MOAT_LOCK_VCPU, moat_vcpu_has_device_attr },
	{ KVM_GET_DEVICE_ATTR, MOAT_LOCK_VCPU, moat_vcpu_get_device_attr },
	{ KVM_SET_DEVICE_ATTR, MOAT_LOCK_VCPU, moat_vcpu_set_device_attr },
	{ KVM_SET_GUEST_DEBUG, MOAT_LOCK_VCPU, moat_vcpu_set_guest_debug },
	{ KVM_X86_SETUP_MCE, MOAT_LOCK_VCPU, moat_vcpu_setup_mce },
	{ KVM_X86_SET_MCE, MOAT_LOCK_VCPU, moat_vcpu_set_mce },
	{ KVM_GET_STATS_FD, MOAT_LOCK_VCPU, moat_vcpu_get_stats_fd },
	{ KVM_KVMCLOCK_CTRL, MOAT_LOCK_VCPU, moat_vcpu_kvmclock_ctrl },
	{ KVM_SET_VAPIC_ADDR, MOAT_LOCK_VCPU, moat_vcpu_set_vapic_addr },
	{ KVM_TPR_ACCESS_REPORTING, MOAT_LOCK_VCPU, moat_vcpu_tpr_access_reporting },
	{ KVM_ENABLE_CAP, MOAT_LOCK_VCPU, vcpu_enable_cap },
	{ KVM_SET_SIGNAL_MASK, MOAT_LOCK_VCPU, vcpu_set_signal_mask, true },
	{ }
};

static long vcpu_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct moat_vcpu *vcpu = file->private_data;

	if (vcpu->vm->mm != current->mm)
		return -EIO;
	return moat_ioctl(moat_vcpu_ioctls, vcpu, &vcpu->lock, cmd, uarg);
}

static vm_fault_t vcpu_fault(struct vm_fault *vmf)
{
	struct moat_vcpu *vcpu = vmf->vma->vm_file->private_data;
	struct page *page;

	if (vmf->pgoff == 0)
		page = virt_to_page(vcpu->run);
	else if (vmf->pgoff == KVM_PIO_PAGE_OFFSET)
		page = virt_to_page(vcpu->pio_data);
	else if (vmf->pgoff == KVM_COALESCED_MMIO_PAGE_OFFSET)
		page = virt_to_page(vcpu->vm->ring);
	else
		page = moat_dirty_ring_page(vcpu, vmf->pgoff);
	if (!page)
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct vcpu_vm_ops = {
	.fault = vcpu_fault,
};

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct moat_vcpu *vcpu = file->private_data;

	/* A copy of a ring is of no use, nor is it code. */
	if ((moat_dirty_ring_page(vcpu, vma->vm_pgoff) ||
	     moat_dirty_ring_page(vcpu, vma->vm_pgoff + vma_pages(vma) - 1)) &&
	    (vma->vm_flags & (VM_EXEC | VM_SHARED)) != VM_SHARED)
		return -EINVAL;
	vma->vm_ops = &vcpu_vm_ops;
	return 0;
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	struct moat_vcpu *vcpu = file->private_data;

	moat_vm_put(vcpu->vm);
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = vcpu_mmap,
	.release = vcpu_release,
	.llseek = noop_llseek,
};
