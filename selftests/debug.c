// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * KVM_SET_GUEST_DEBUG: steps, hardware and software breakpoints, injected traps, and what the guest
 * sees of them, which is nothing.
 */
#include "guest.h"

#define DR6_STEP	0xffff4ff0
#define DR6_BD		0xffff2ff0
#define DR6_B(n)	(0xffff0ff0 | 1u << (n))
#define DR7_GD		0x2000
#define RFLAGS_TF	0x100

static struct vm *vm;
static struct vcpu *vcpu;

extern const char step_first[], step_cpuid[], step_msr[], step_out[], step_last[];
extern const char watch_write[], after_write[];

static void machine_create(void *payload)
{
	vm = vm_create(GUEST_RAM, true);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static int debug_set(uint32_t control, const uint64_t *dr, uint64_t dr7)
{
	struct kvm_guest_debug debug = { .control = control };

	if (dr)
		memcpy(debug.arch.debugreg, dr, 4 * sizeof(*dr));
	debug.arch.debugreg[7] = dr7;
	return ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug);
}

/* Runs to a debug exit and checks what it tells. */
static bool debug_exit(uint32_t exception, const void *pc, uint64_t dr6)
{
	struct kvm_run *run = vcpu->run;

	return vcpu_exit(vcpu, KVM_EXIT_DEBUG) & CHECK_EQ(run->debug.arch.exception, exception) &
	       CHECK_EQ(run->debug.arch.pc, (uintptr_t)pc) & CHECK_EQ(run->debug.arch.dr6, dr6);
}

static void step_payload(void)
{
	uint64_t flags;

	guest_sync(1);
	/* Instructions that the CPU executes, and some that exit and are completed by others. */
	__asm__ volatile("movl $1, %%eax\n"
			 "step_first: nop\n"
			 "step_cpuid: cpuid\n"
			 "step_msr: movl $0x1b, %%ecx; rdmsr\n"
			 "step_out: movw $0x510, %%dx; outb %%al, %%dx\n"
			 "step_last: pushfq; popq %0"
			 : "=r"(flags) : : "rax", "rbx", "rcx", "rdx", "memory");
	guest_sync(flags);
	guest_done();
}

static void single_step(void)
{
	unsigned int steps = 0;

	machine_create(step_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, NULL, 0));
	/* Out of the report's code first. */
	do
		if (!vcpu_exit(vcpu, KVM_EXIT_DEBUG))
			goto out;
	while (vcpu->run->debug.arch.pc != (uintptr_t)step_first && ++steps < 50);
	CHECK_EQ(vcpu->run->debug.arch.dr6, DR6_STEP);
	debug_exit(TRAP_DB, step_cpuid, DR6_STEP);
	debug_exit(TRAP_DB, step_msr, DR6_STEP);
	debug_exit(TRAP_DB, step_msr + 5, DR6_STEP);
	debug_exit(TRAP_DB, step_out, DR6_STEP);
	debug_exit(TRAP_DB, step_out + 4, DR6_STEP);
	/* The port's exit comes first, then that of the step over it. */
	vcpu_exit(vcpu, KVM_EXIT_IO);
	debug_exit(TRAP_DB, step_last, DR6_STEP);
	CHECK_EQ(vcpu_regs(vcpu).rflags & RFLAGS_TF, 0);
	CHECK_CALL(debug_set(0, NULL, 0));
	{
		struct report report = vcpu_wait(vcpu);

		CHECK_EQ(report.kind, REPORT_SYNC);
		CHECK_EQ(report.value & RFLAGS_TF, 0);
	}
	vcpu_finish(vcpu);
out:
	machine_destroy();
}

static volatile uint64_t watched;

static void watch_payload(void)
{
	__asm__ volatile("watch_write: movq $5, watched\n"
			 "after_write: nop" : : : "memory");
	GUEST_EQ(watched, 5);
	guest_done();
}

static void hardware_breakpoints(void)
{
	const uint64_t dr[4] = { (uintptr_t)watch_write, (uintptr_t)&watched };

	machine_create(watch_payload);
	/* DR0: execution; DR1: writes of 8 bytes. */
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, dr,
			     0x400 | 1 | 4 | 9u << 20));
	if (debug_exit(TRAP_DB, watch_write, DR6_B(0))) {
		/* Past the instruction that the breakpoint is at. */
		CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, dr,
				     0x400 | 4 | 9u << 20));
		debug_exit(TRAP_DB, after_write, DR6_B(1));
	}
	CHECK_CALL(debug_set(0, NULL, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void own_dr_payload(void)
{
	uint64_t dr0 = 0, dr6 = 0, dr7 = 0;

	__asm__ volatile("movq %0, %%dr0" : : "r"(0x1234ul));
	guest_sync(1);
	__asm__ volatile("movq %%dr0, %0" : "=r"(dr0));
	__asm__ volatile("movq %%dr6, %0" : "=r"(dr6));
	__asm__ volatile("movq %%dr7, %0" : "=r"(dr7));
	GUEST_EQ(dr0, 0x1234);
	GUEST_EQ(dr6, 0xffff0ff0);
	GUEST_EQ(dr7, 0x400);
	__asm__ volatile("movq %0, %%dr1" : : "r"(0x5678ul));
	__asm__ volatile("movq %0, %%dr7" : : "r"(0x700ul));
	guest_sync(2);
	GUEST_EQ(GUEST_TRY("movq %0, %%dr7", : : "r"(1ul << 32) : "r11", "memory"), TRAP_GP);
	write_cr4(read_cr4() | 8);
	GUEST_EQ(GUEST_TRY("movq %0, %%dr4", : : "r"(0ul) : "r11", "memory"), TRAP_UD);
	guest_done();
}

/* Userspace's registers are in force, the guest reads and writes its own. */
static void guests_own_registers(void)
{
	const uint64_t dr[4] = { 0xdead0000 };
	struct kvm_debugregs regs;

	machine_create(own_dr_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, dr, 0x401));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &regs));
	CHECK_EQ(regs.db[0], 0x1234);
	CHECK_EQ(regs.db[1], 0x5678);
	CHECK_EQ(regs.dr7, 0x700);
	vcpu_finish(vcpu);
	machine_destroy();
}

extern const char gd_access[];

static void general_detect_payload(void)
{
	uint64_t value;

	__asm__ volatile("gd_access: movq %%dr0, %0" : "=r"(value));
	guest_done();
}

static void general_detect(void)
{
	if (!node_is_moat())
		SKIP("KVM on AMD-V leaves it to the CPU");
	machine_create(general_detect_payload);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, NULL, 0x400 | DR7_GD));
	debug_exit(TRAP_DB, gd_access, DR6_BD);
	CHECK_CALL(debug_set(0, NULL, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static volatile uint64_t traps, trap_rip;
extern const char own_bp[];

static void trap_handler(struct trap_frame *frame)
{
	traps++;
	trap_rip = frame->rip;
}

static void breakpoint_payload(void)
{
	guest_handlers[TRAP_BP] = trap_handler;
	__asm__ volatile("own_bp: int3" : : : "memory");
	GUEST_EQ(traps, 1);
	GUEST_EQ(trap_rip, (uintptr_t)own_bp + 1);
	guest_sync(1);
	guest_done();
}

static void halt_payload(void)
{
	guest_handlers[TRAP_DB] = trap_handler;
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf; hlt; pushf; andl $~0x100, (%%rsp); popf"
			 : : : "memory", "cc");
	GUEST_EQ(traps, 4);
	guest_done();
}

/* A guest that steps over HLT sees the step, though nothing wakes it. */
static void step_over_halt(void)
{
	machine_create(halt_payload);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* A breakpoint that is not userspace's own goes back to the guest. */
static void software_breakpoints(void)
{
	struct report report;

	machine_create(breakpoint_payload);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, NULL, 0));
	report = vcpu_wait(vcpu);
	if (report.kind == REPORT_SYNC) {
		machine_destroy();
		SKIP("this CPU does not intercept INT3");
	}
	CHECK_EQ(vcpu->run->exit_reason, KVM_EXIT_DEBUG);
	CHECK_EQ(vcpu->run->debug.arch.exception, TRAP_BP);
	CHECK_EQ(vcpu->run->debug.arch.pc, (uintptr_t)own_bp);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP, NULL, 0));
	vcpu_sync(vcpu, 1);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* INT3 by userspace, where the guest has one: it returns behind it. */
static void breakpoint_injected(void)
{
	const uint64_t dr[4] = { (uintptr_t)own_bp };

	machine_create(breakpoint_payload);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, dr, 0x401));
	debug_exit(TRAP_DB, own_bp, DR6_B(0));
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP, NULL, 0));
	vcpu_sync(vcpu, 1);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void inject_payload(void)
{
	guest_handlers[TRAP_DB] = trap_handler;
	guest_sync(1);
	GUEST_EQ(traps, 1);
	guest_done();
}

static void injected(void)
{
	struct kvm_vcpu_events events;

	machine_create(inject_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB, NULL, 0));
	CHECK_ERRNO(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB, NULL, 0), EBUSY);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events));
	CHECK_EQ(events.exception.injected, 1);
	CHECK_EQ(events.exception.nr, TRAP_DB);
	vcpu_finish(vcpu);
	machine_destroy();
}

static volatile uint64_t interrupts;

static void interrupt_handler(struct trap_frame *frame)
{
	(void)frame;
	interrupts++;
}

extern const char block_sti[], block_nop[], block_end[];

static void block_payload(void)
{
	guest_handlers[0x51] = interrupt_handler;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	wrmsr(0x830, 0x40000 | 0x51);
	guest_sync(1);
	__asm__ volatile("block_sti: sti\n"
			 "block_nop: nop; nop\n"
			 "block_end: nop" : : : "memory");
	GUEST_EQ(interrupts, 1);
	guest_done();
}

/* Stepping with BLOCKIRQ is not led astray by an interrupt. */
static void interrupts_blocked(void)
{
	const uint64_t dr[4] = { (uintptr_t)block_sti };

	if (!(node_has(KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ))
		SKIP("no KVM_GUESTDBG_BLOCKIRQ");
	machine_create(block_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, dr, 0x401));
	debug_exit(TRAP_DB, block_sti, DR6_B(0));
	CHECK_CALL(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ,
			     NULL, 0));
	debug_exit(TRAP_DB, block_nop, DR6_STEP);
	debug_exit(TRAP_DB, block_nop + 1, DR6_STEP);
	debug_exit(TRAP_DB, block_end, DR6_STEP);
	CHECK_EQ(*GUEST_VAR(vm, interrupts), 0);
	CHECK_CALL(debug_set(0, NULL, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void nonsense(void)
{
	machine_create(watch_payload);
	if (node_is_moat()) {
		CHECK_ERRNO(debug_set(1u << 31 | KVM_GUESTDBG_ENABLE, NULL, 0), EINVAL);
		CHECK_ERRNO(debug_set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, NULL, 1ull << 32),
			    EINVAL);
	}
	/* Without ENABLE nothing is in force. */
	CHECK_CALL(debug_set(KVM_GUESTDBG_SINGLESTEP, NULL, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "single_step", single_step },
	{ "hardware_breakpoints", hardware_breakpoints },
	{ "guests_own_registers", guests_own_registers },
	{ "general_detect", general_detect },
	{ "software_breakpoints", software_breakpoints },
	{ "breakpoint_injected", breakpoint_injected },
	{ "injected", injected },
	{ "interrupts_blocked", interrupts_blocked },
	{ "nonsense", nonsense },
	{ "step_over_halt", step_over_halt },
};

TAP_MAIN(cases)
