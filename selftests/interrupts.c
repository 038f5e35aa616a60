// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Events into a guest without a local APIC in the kernel: KVM_INTERRUPT, KVM_NMI, exceptions, and
 * what may delay them.
 */
#include "guest.h"

#define VECTOR		0x51
#define VECTOR_TWO	0x61
#define IST_STACK	(GUEST_FREE + 0x10000)	/* top of the stack that the host takes away */
#define UNMAPPED	0xa00000ul

static struct vm *vm;
static struct vcpu *vcpu;

static volatile uint64_t taken[256];		/* how often each vector came */
static volatile uint64_t taken_rip, shadow_end;

static void machine_create(void *payload, uint64_t arg)
{
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, arg);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void count_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	taken_rip = frame->rip;
}

static int interrupt(uint32_t vector)
{
	struct kvm_interrupt irq = { .irq = vector };

	return ioctl(vcpu->fd, KVM_INTERRUPT, &irq);
}

static void interrupt_payload(void)
{
	guest_handlers[VECTOR] = count_handler;
	__asm__ volatile("sti; nop" : : : "memory");
	guest_sync(1);
	GUEST_EQ(taken[VECTOR], 1);
	guest_sync(2);
	GUEST_EQ(taken[VECTOR], 2);
	__asm__ volatile("cli" : : : "memory");
	guest_sync(3);
	GUEST_EQ(taken[VECTOR], 2);
	__asm__ volatile("sti; nop; nop" : : : "memory");
	GUEST_EQ(taken[VECTOR], 3);
	guest_done();
}

static void interrupts(void)
{
	machine_create(interrupt_payload, 0);
	vcpu_sync(vcpu, 1);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 1);
	CHECK_CALL(interrupt(VECTOR));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(interrupt(VECTOR));
	vcpu_sync(vcpu, 3);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 0);
	vcpu->run->request_interrupt_window = 1;
	vcpu_exit(vcpu, KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 1);
	CHECK_EQ(vcpu->run->if_flag, 1);
	vcpu->run->request_interrupt_window = 0;
	CHECK_CALL(interrupt(VECTOR));
	vcpu_finish(vcpu);
	CHECK_ERRNO(interrupt(256), EINVAL);
	CHECK_ERRNO(interrupt(~0u), EINVAL);
	machine_destroy();
}

static void shadow_payload(void)
{
	uint64_t end;

	guest_handlers[VECTOR] = count_handler;
	guest_sync(1);
	/* STI, then one instruction that no interrupt comes before. */
	__asm__ volatile("leaq 1f(%%rip), %0; movq %0, shadow_end; sti; nop; 1: nop; nop; cli"
			 : "=r"(end) : : "memory");
	GUEST_EQ(taken[VECTOR], 1);
	GUEST_CHECK(taken_rip >= shadow_end);
	guest_sync(2);
	/* STI; CLI opens no window at all. */
	__asm__ volatile("sti; cli; nop; nop" : : : "memory");
	GUEST_EQ(taken[VECTOR], 1);
	guest_sync(3);
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void sti_shadow(void)
{
	machine_create(shadow_payload, 0);
	vcpu_sync(vcpu, 1);
	vcpu->run->request_interrupt_window = 1;
	if (vcpu_exit(vcpu, KVM_EXIT_IRQ_WINDOW_OPEN)) {
		CHECK(vcpu_regs(vcpu).rip >= *GUEST_VAR(vm, shadow_end),
		      "window at rip %#llx, the shadow ends at %#llx", vcpu_regs(vcpu).rip,
		      (unsigned long long)*GUEST_VAR(vm, shadow_end));
		CHECK_CALL(interrupt(VECTOR));
	}
	vcpu->run->request_interrupt_window = 0;
	vcpu_sync(vcpu, 2);
	vcpu->run->request_interrupt_window = 1;
	vcpu_sync(vcpu, 3);
	vcpu->run->request_interrupt_window = 0;
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 1);
	CHECK_CALL(interrupt(VECTOR));
	vcpu_finish(vcpu);
	CHECK_EQ(taken[VECTOR], 0);
	CHECK_EQ((*GUEST_VAR(vm, taken))[VECTOR], 2);
	machine_destroy();
}

static void nmi_handler(struct trap_frame *frame)
{
	uint64_t before = ++taken[frame->vector];

	if (before == 1)
		guest_sync(2);
	/* Another one waits for the IRET of this. */
	GUEST_EQ(taken[frame->vector], before);
}

static void nmi_payload(void)
{
	guest_handlers[TRAP_NMI] = nmi_handler;
	guest_sync(1);
	guest_sync(3);
	GUEST_EQ(taken[TRAP_NMI], 2);
	__asm__ volatile("hlt" : : : "memory");
	GUEST_EQ(taken[TRAP_NMI], 3);
	guest_done();
}

static void nmi(void)
{
	struct kvm_vcpu_events events;

	machine_create(nmi_payload, 0);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_NMI, 0));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events));
	CHECK_EQ(events.nmi.masked, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_NMI, 0));
	vcpu_sync(vcpu, 3);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events));
	CHECK_EQ(events.nmi.masked, 0);
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	CHECK_CALL(ioctl(vcpu->fd, KVM_NMI, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Exceptions of the guest's own ---- */

static volatile uint64_t zero;

static void exceptions_payload(void)
{
	uint64_t vector;

	vector = GUEST_TRY("xorl %%edx, %%edx; movl $1, %%eax; divq zero",
			   :
			   :
			   : "rax", "rdx", "r11", "memory");
	GUEST_EQ(vector, TRAP_DE);
	GUEST_EQ(GUEST_TRY("ud2", : : : "r11", "memory"), TRAP_UD);
	GUEST_EQ(GUEST_TRY("int3", : : : "r11", "memory"), TRAP_BP);
	vector = GUEST_TRY("movq (%0), %%rax", : : "r"(1ul << 62) : "rax", "r11", "memory");
	GUEST_EQ(vector, TRAP_GP);
	GUEST_EQ(guest_caught.error, 0);
	vector = GUEST_TRY("movw %w0, %%ds", : : "r"(0x1238) : "r11", "memory");
	GUEST_EQ(vector, TRAP_GP);
	GUEST_EQ(guest_caught.error, 0x1238);
	vector = GUEST_TRY("movq (%0), %%rax", : : "r"(UNMAPPED + 8) : "rax", "r11", "memory");
	GUEST_EQ(vector, TRAP_PF);
	GUEST_EQ(guest_caught.error, 0);
	GUEST_EQ(guest_caught.cr2, UNMAPPED + 8);
	vector = GUEST_TRY("movq %%rax, (%0)", : : "r"(UNMAPPED + 16) : "r11", "memory");
	GUEST_EQ(vector, TRAP_PF);
	GUEST_EQ(guest_caught.error, 2);
	GUEST_EQ(guest_caught.cr2, UNMAPPED + 16);
	/* TF: a #DB after the next instruction. */
	vector = GUEST_TRY("pushfq; orq $0x100, (%%rsp); popfq; nop; nop",
			   :
			   :
			   : "r11", "memory", "cc");
	GUEST_EQ(vector, TRAP_DB);
	guest_done();
}

static void exceptions(void)
{
	machine_create(exceptions_payload, 0);
	vm_map_page(vm, UNMAPPED, 0, 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void double_fault_handler(struct trap_frame *frame)
{
	GUEST_EQ(frame->error, 0);
	guest_sync(frame->vector);
	guest_done();
}

static void double_fault_payload(void)
{
	guest_handlers[TRAP_DF] = double_fault_handler;
	__asm__ volatile("ltr %w0" : : "r"(GUEST_TR) : "memory");
	__asm__ volatile("movq %0, %%rsp; ud2" : : "r"(UNMAPPED + 0x800) : "memory");
}

/* Gate `vector` switches to the stack of IST entry 1. */
static void vector_use_ist(unsigned int vector)
{
	vm->ram[GUEST_IDT + 16 * vector + 4] = 1;
	*(uint64_t *)(vm->ram + GUEST_TSS + 0x24) = IST_STACK;
	/* LTR wants an available TSS. */
	vm->ram[GUEST_GDT + GUEST_TR + 5] = 0x89;
}

/* No stack: #UD cannot be delivered, nor the #PF from that; #DF has a stack of its own. */
static void double_fault(void)
{
	machine_create(double_fault_payload, 0);
	vm_map_page(vm, UNMAPPED, 0, 0);
	vector_use_ist(TRAP_DF);
	vcpu_sync(vcpu, TRAP_DF);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void triple_fault_payload(void)
{
	__asm__ volatile("movq %0, %%rsp; ud2" : : "r"(UNMAPPED + 0x800) : "memory");
}

static void triple_fault(void)
{
	machine_create(triple_fault_payload, 0);
	vm_map_page(vm, UNMAPPED, 0, 0);
	vcpu_exit(vcpu, KVM_EXIT_SHUTDOWN);
	machine_destroy();
}

/*
 * ---- Events whose delivery meets a second-level fault ----
 *
 * The handler's stack is on a page that the host has just dropped: the CPU stops in the middle of
 * the delivery, and the hypervisor must begin it anew, once, with the right return address.
 */
enum delivery { DELIVER_IRQ, DELIVER_NMI, DELIVER_INT, DELIVER_UD, DELIVER_BP, DELIVER_PF };

static volatile uint64_t expect_rip;

static void delivery_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	taken_rip = frame->rip;
	if (frame->vector == TRAP_UD || frame->vector == TRAP_PF)
		frame->rip += 2;
}

/* Vectors of all kinds, each after a sync at which the host takes the stack away. */
static void delivery_payload(uint64_t kind)
{
	static const uint8_t vectors[] = {VECTOR, TRAP_NMI, VECTOR_TWO, TRAP_UD, TRAP_BP, TRAP_PF};
	uint64_t i;

	for (i = 0; i < 6; i++)
		guest_handlers[vectors[i]] = delivery_handler;
	__asm__ volatile("ltr %w0; sti; nop" : : "r"(GUEST_TR) : "memory");
	for (i = 1; i <= 20; i++) {
		guest_sync(i);
		if (kind == DELIVER_INT)
			__asm__ volatile(
				"leaq 1f(%%rip), %%rax; movq %%rax, expect_rip; int $0x61; 1:"
				:
				:
				: "rax", "memory");
		if (kind == DELIVER_UD)
			__asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, expect_rip; 1: ud2"
					 : : : "rax", "memory");
		if (kind == DELIVER_BP)
			__asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, expect_rip; int3; 1:"
					 : : : "rax", "memory");
		if (kind == DELIVER_PF)
			__asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, expect_rip;\n\t"
					 "1: movb (%0), %%al"
					 : : "r"(UNMAPPED) : "rax", "memory");
		GUEST_EQ(taken[vectors[kind]], i);
		if (kind > DELIVER_NMI)
			GUEST_EQ(taken_rip, expect_rip);
		if (kind == DELIVER_PF)
			GUEST_EQ(read_cr2(), UNMAPPED);
	}
	guest_done();
}

static void delivery(enum delivery kind, unsigned int vector)
{
	int i;

	machine_create(delivery_payload, kind);
	vm_map_page(vm, UNMAPPED, 0, 0);
	vector_use_ist(vector);
	for (i = 1; i <= 20 && vcpu_sync(vcpu, i); i++) {
		madvise(vm->ram + IST_STACK - PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
		if (kind == DELIVER_IRQ)
			CHECK_CALL(interrupt(vector));
		if (kind == DELIVER_NMI)
			CHECK_CALL(ioctl(vcpu->fd, KVM_NMI, 0));
	}
	vcpu_finish(vcpu);
	machine_destroy();
}

static void delivery_irq(void)
{
	delivery(DELIVER_IRQ, VECTOR);
}

static void delivery_nmi(void)
{
	delivery(DELIVER_NMI, TRAP_NMI);
}

static void delivery_int(void)
{
	delivery(DELIVER_INT, VECTOR_TWO);
}

static void delivery_ud(void)
{
	delivery(DELIVER_UD, TRAP_UD);
}

static void delivery_bp(void)
{
	delivery(DELIVER_BP, TRAP_BP);
}

static void delivery_pf(void)
{
	delivery(DELIVER_PF, TRAP_PF);
}

/* An interrupt and an NMI at once: both come, the NMI first. */
static volatile uint64_t first;

static void first_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	if (!first)
		first = frame->vector;
}

static void both_payload(void)
{
	guest_handlers[VECTOR] = first_handler;
	guest_handlers[TRAP_NMI] = first_handler;
	__asm__ volatile("sti; nop" : : : "memory");
	guest_sync(1);
	__asm__ volatile("nop; nop" : : : "memory");
	GUEST_EQ(taken[VECTOR], 1);
	GUEST_EQ(taken[TRAP_NMI], 1);
	guest_done();
}

static void both(void)
{
	machine_create(both_payload, 0);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(interrupt(VECTOR));
	CHECK_CALL(ioctl(vcpu->fd, KVM_NMI, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* The APIC lets a PIC's interrupts through or not; this is not the guest's interrupt flag. */
static void deaf_payload(void)
{
	volatile uint32_t *lvt0 = (uint32_t *)0xfee00350;
	uint64_t i;

	*(volatile uint32_t *)0xfee000f0 = 0x1ff;
	*lvt0 = 0x10000;	/* masked */
	__asm__ volatile("sti" : : : "memory");
	for (i = 0; i < 1000000; i++)
		cpu_pause();
	guest_sync(1);
	*lvt0 = 0x700;		/* external interrupts */
	for (;;)
		cpu_pause();
}

/*
 * A window that cannot open as long as LVT0 is masked is waited for in vain, but the guest runs.
 * Then it opens, however little else happens.
 */
static void deaf_apic_window(void)
{
	vm = vm_create(GUEST_RAM, true);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, deaf_payload, 0);
	vcpu->run->request_interrupt_window = 1;
	vcpu_sync(vcpu, 1);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 0);
	vcpu_exit(vcpu, KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 1);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "interrupt", interrupts },
	{ "sti_shadow", sti_shadow },
	{ "nmi", nmi },
	{ "nmi_and_interrupt", both },
	{ "exceptions", exceptions },
	{ "double_fault", double_fault },
	{ "triple_fault", triple_fault },
	{ "delivery_interrupt", delivery_irq },
	{ "delivery_nmi", delivery_nmi },
	{ "delivery_int_n", delivery_int },
	{ "delivery_invalid_opcode", delivery_ud },
	{ "delivery_breakpoint", delivery_bp },
	{ "delivery_page_fault", delivery_pf },
	{ "deaf_apic_window", deaf_apic_window },
};

TAP_MAIN(cases)
