// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Accesses to the task priority of the xAPIC: told to userspace (KVM_TPR_ACCESS_REPORTING), and
 * through a page of the guest's memory in its place (KVM_SET_VAPIC_ADDR).
 */
#include "guest.h"

#define XAPIC		0xfee00000ul
#define REG_TPR		0x80
#define REG_EOI		0xb0
#define REG_SVR		0xf0
#define REG_ISR		0x100
#define REG_ICR		0x300

#define ICR_SELF_IPI	0x44000
#define VECTOR_LOW	0x41
#define VECTOR_HIGH	0x81
#define HC_VAPIC_POLL_IRQ 1
#define PORT_VAPIC	0x7e
#define PORT_OTHER	0x510
#define PAGE_GPA	0x40000000ul
#define STRIKES		1000

static struct vm *vm;
static struct vcpu *vcpu;

static volatile struct {
	uint8_t tpr, isr, zero, irr;
} vapic __attribute__((aligned(4)));
static volatile uint64_t taken[256], isr_seen, irr_seen;

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

static bool vapic_missing(void)
{
	if (node_has(KVM_CAP_VAPIC))
		return false;
	tap_skip("KVM_CAP_VAPIC is not there");
	return true;
}

static int report_accesses(uint32_t enabled, uint32_t flags)
{
	struct kvm_tpr_access_ctl control = { .enabled = enabled, .flags = flags };

	return ioctl(vcpu->fd, KVM_TPR_ACCESS_REPORTING, &control);
}

static int vapic_set(uint64_t gpa)
{
	struct kvm_vapic_addr addr = { .vapic_addr = gpa };

	return ioctl(vcpu->fd, KVM_SET_VAPIC_ADDR, &addr);
}

/* ---- The guest's side ---- */

static void apic_write(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)(XAPIC + reg) = value;
}

static uint32_t apic_read(uint32_t reg)
{
	return *(volatile uint32_t *)(XAPIC + reg);
}

static uint64_t read_cr8(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr8, %0" : "=r"(value) : : "memory");
	return value;
}

static void write_cr8(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr8" : : "r"(value) : "memory");
}

static void poll_irq(void)
{
	uint64_t answer;

	__asm__ volatile("vmmcall" : "=a"(answer) : "0"((uint64_t)HC_VAPIC_POLL_IRQ) : "memory");
	GUEST_EQ(answer, 0);
}

static void irq_on(void)
{
	__asm__ volatile("sti; nop; nop" : : : "memory");
}

static void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

static void irq_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	/* Any exit brings the page up to date. */
	poll_irq();
	isr_seen = vapic.isr;
	irr_seen = vapic.irr;
	apic_write(REG_EOI, 0);
}

/* ---- Reports ---- */

extern const char tpr_write_insn[], tpr_read_insn[];

static void accesses_payload(void)
{
	uint32_t value = 0x30;

	apic_write(REG_SVR, 0x1ff);
	guest_sync(1);
	__asm__ volatile(".globl tpr_write_insn, tpr_read_insn\n"
			 "tpr_write_insn: movl %0, (%1)\n"
			 : : "r"(value), "r"(XAPIC + REG_TPR) : "memory");
	__asm__ volatile("tpr_read_insn: movl (%1), %0\n"
			 : "=r"(value) : "r"(XAPIC + REG_TPR) : "memory");
	GUEST_EQ(value, 0x30);
	/* Other registers, and other ways to this one, are not told of. */
	apic_write(REG_EOI, 0);
	apic_read(REG_SVR);
	write_cr8(4);
	GUEST_EQ(read_cr8(), 4);
	guest_sync(2);
	apic_write(REG_TPR, 0);
	GUEST_EQ(apic_read(REG_TPR), 0);
	guest_done();
}

static void tpr_exit(const char *insn, bool write)
{
	if (!vcpu_exit(vcpu, KVM_EXIT_TPR_ACCESS))
		return;
	CHECK_EQ(vcpu->run->tpr_access.rip, (uintptr_t)insn);
	CHECK_EQ(vcpu->run->tpr_access.is_write, write);
	/* It has been done by then. */
	CHECK(vcpu_regs(vcpu).rip > (uintptr_t)insn, "RIP is %#llx still",
	      (unsigned long long)vcpu_regs(vcpu).rip);
}

static void accesses(void)
{
	struct kvm_lapic_state state;

	if (vapic_missing())
		return;
	machine_create(accesses_payload);
	vcpu_sync(vcpu, 1);
	CHECK_ERRNO(report_accesses(1, 1), EINVAL);
	CHECK_CALL(report_accesses(1, 0));
	tpr_exit(tpr_write_insn, true);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_LAPIC, &state));
	CHECK_EQ(state.regs[REG_TPR], 0x30);
	tpr_exit(tpr_read_insn, false);
	vcpu_sync(vcpu, 2);
	CHECK_CALL(report_accesses(0, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* The same instruction again and again, which may go another way once it is known. */
static void again_payload(void)
{
	uint64_t count = 4;

	guest_sync(1);
	__asm__ volatile(".globl tpr_again_insn\n"
			 "tpr_again_insn: movl $0x10, (%1)\n"
			 "	decq %0\n"
			 "	jnz tpr_again_insn\n"
			 : "+r"(count) : "r"(XAPIC + REG_TPR) : "memory", "cc");
	guest_done();
}

extern const char tpr_again_insn[];

static void again(void)
{
	int i;

	if (vapic_missing())
		return;
	machine_create(again_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(report_accesses(1, 0));
	for (i = 0; i < 4; i++)
		tpr_exit(tpr_again_insn, true);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* One instruction for the APIC and for userspace: both hear of it, each its own. */
static void both_payload(void)
{
	const volatile void *from = (void *)(XAPIC + REG_TPR);
	volatile void *to = (void *)GUEST_MMIO;

	apic_write(REG_SVR, 0x1ff);
	apic_write(REG_TPR, 0x20);
	guest_sync(1);
	__asm__ volatile(".globl tpr_movs_insn\n"
			 "tpr_movs_insn: movsl\n" : "+S"(from), "+D"(to) : : "memory");
	guest_done();
}

extern const char tpr_movs_insn[];

static void both(void)
{
	uint32_t written = 0;
	int i;

	if (vapic_missing())
		return;
	machine_create(both_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(report_accesses(1, 0));
	for (i = 0; i < 2; i++) {
		struct report report = vcpu_wait(vcpu);

		if (report.kind != REPORT_EXIT) {
			vcpu_explain(vcpu, &report, "an exit");
			break;
		}
		if (vcpu->run->exit_reason == KVM_EXIT_MMIO) {
			memcpy(&written, vcpu->run->mmio.data, sizeof(written));
			continue;
		}
		CHECK_EQ(vcpu->run->exit_reason, KVM_EXIT_TPR_ACCESS);
		if (node_is_moat())	/* KVM has only one place for both */
			CHECK_EQ(vcpu->run->tpr_access.rip, (uintptr_t)tpr_movs_insn);
	}
	CHECK_EQ(written, 0x20);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- The page ---- */

static void page_payload(void)
{
	guest_handlers[VECTOR_LOW] = irq_handler;
	guest_handlers[VECTOR_HIGH] = irq_handler;
	apic_write(REG_SVR, 0x1ff);
	apic_write(REG_TPR, 0x20);
	guest_sync(1);
	/* What the APIC had is what the page shows. */
	poll_irq();
	GUEST_EQ(vapic.tpr, 0x20);
	GUEST_EQ(apic_read(REG_TPR), 0x20);
	/* Raised in the page, it holds interrupts back; */
	vapic.tpr = 0x70;
	apic_write(REG_ICR, ICR_SELF_IPI | VECTOR_LOW);
	irq_on();
	GUEST_EQ(taken[VECTOR_LOW], 0);
	GUEST_EQ(vapic.irr, VECTOR_LOW);
	GUEST_EQ(apic_read(REG_TPR), 0x70);
	GUEST_EQ(read_cr8(), 7);
	apic_write(REG_ICR, ICR_SELF_IPI | VECTOR_HIGH);
	GUEST_EQ(taken[VECTOR_HIGH], 1);
	GUEST_EQ(isr_seen, VECTOR_HIGH & 0xf0);
	GUEST_EQ(irr_seen, VECTOR_LOW);
	/* lowered, it lets them in, once the host has a look. */
	vapic.tpr = 0;
	poll_irq();
	GUEST_EQ(taken[VECTOR_LOW], 1);
	GUEST_EQ(isr_seen, VECTOR_LOW & 0xf0);
	GUEST_EQ(vapic.irr, 0);
	irq_off();
	guest_sync(2);
	guest_done();
}

static void page(void)
{
	if (vapic_missing())
		return;
	machine_create(page_payload);
	vcpu_sync(vcpu, 1);
	GUEST_VAR(vm, vapic)->tpr = 0x20;
	CHECK_CALL(vapic_set((uintptr_t)&vapic));
	vcpu_sync(vcpu, 2);
	CHECK_EQ(GUEST_VAR(vm, vapic)->tpr, 0);
	CHECK_EQ(GUEST_VAR(vm, vapic)->isr, 0);
	CHECK_CALL(vapic_set(0));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* The guest changes it without an exit; who saves the APIC finds it changed. */
static void saved_payload(void)
{
	apic_write(REG_SVR, 0x1ff);
	guest_sync(1);
	vapic.tpr = 0x50;
	guest_sync(2);
	GUEST_EQ(apic_read(REG_TPR), 0x50);
	GUEST_EQ(vapic.tpr, 0x50);
	guest_sync(3);
	/* Switched off, the page is a page. */
	vapic.tpr = 0x10;
	poll_irq();
	GUEST_EQ(vapic.tpr, 0x10);
	GUEST_EQ(apic_read(REG_TPR), 0x50);
	guest_done();
}

static void saved(void)
{
	struct kvm_lapic_state state;

	if (vapic_missing())
		return;
	machine_create(saved_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(vapic_set((uintptr_t)&vapic));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_LAPIC, &state));
	CHECK_EQ(state.regs[REG_TPR], 0x50);
	vcpu_sync(vcpu, 3);
	CHECK_CALL(vapic_set(0));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* Interrupts from the host, a guest that waits by HLT and masks by the page: none is lost. */
static void storm_payload(void)
{
	uint64_t i;

	guest_handlers[VECTOR_LOW] = irq_handler;
	apic_write(REG_SVR, 0x1ff);
	guest_sync(1);
	for (i = 0; i < STRIKES; i++) {
		vapic.tpr = 0xf0;
		irq_on();
		apic_write(REG_ICR, ICR_SELF_IPI | VECTOR_LOW);
		GUEST_EQ(taken[VECTOR_LOW], i);
		irq_off();
		vapic.tpr = 0;
		__asm__ volatile("sti; hlt" : : : "memory");
		GUEST_EQ(taken[VECTOR_LOW], i + 1);
	}
	guest_done();
}

static void storm(void)
{
	if (vapic_missing())
		return;
	machine_create(storm_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(vapic_set((uintptr_t)&vapic));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void spin_payload(void)
{
	apic_write(REG_SVR, 0x1ff);
	guest_sync(1);
	GUEST_EQ(apic_read(REG_TPR), 0);
	guest_sync(2);
	guest_done();
}

static void addresses(void)
{
	void *memory = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	if (vapic_missing())
		return;
	machine_create(spin_payload);
	CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE, memory, KVM_MEM_READONLY));
	CHECK_ERRNO(vapic_set(GUEST_MMIO), EINVAL);
	CHECK_ERRNO(vapic_set(~3ull), EINVAL);
	CHECK_ERRNO(vapic_set(PAGE_GPA), EINVAL);
	CHECK_CALL(vapic_set(0));
	vcpu_sync(vcpu, 1);
	/* Its memory goes away under it: the vCPU can be run, interrupted and ended all the same. */
	CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
	CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE, memory, 0));
	CHECK_CALL(vapic_set(PAGE_GPA));
	CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE, memory, 0));
	vcpu_finish(vcpu);
	machine_destroy();
	munmap(memory, PAGE_SIZE);
}

static void no_lapic(void)
{
	if (vapic_missing())
		return;
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	CHECK_ERRNO(vapic_set((uintptr_t)&vapic), EINVAL);
	CHECK_ERRNO(vapic_set(0), EINVAL);
	CHECK_CALL(report_accesses(1, 0));
	machine_destroy();
}

/* ---- Port 0x7e ---- */

extern const char out_vapic_end[], out_other_insn[];

static void port_payload(void)
{
	__asm__ volatile(".globl out_vapic_end, out_other_insn\n"
			 "	outb %%al, $0x7e\n"
			 "out_vapic_end:\n"
			 "	movw $0x510, %%dx\n"
			 "out_other_insn:\n"
			 "	outb %%al, %%dx\n"
			 : : "a"(0) : "rdx", "memory");
	guest_done();
}

/* Of an OUT to this port userspace finds RIP behind it, and may patch it. */
static void port(void)
{
	machine_create(port_payload);
	if (vcpu_exit(vcpu, KVM_EXIT_IO)) {
		CHECK_EQ(vcpu->run->io.port, PORT_VAPIC);
		CHECK_EQ(vcpu_regs(vcpu).rip, (uintptr_t)out_vapic_end);
	}
	if (vcpu_exit(vcpu, KVM_EXIT_IO)) {
		CHECK_EQ(vcpu->run->io.port, PORT_OTHER);
		CHECK_EQ(vcpu_regs(vcpu).rip, (uintptr_t)out_other_insn);
	}
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "tpr_access", accesses },
	{ "tpr_access_again", again },
	{ "tpr_access_and_mmio", both },
	{ "page", page },
	{ "page_saved", saved },
	{ "page_and_hlt", storm },
	{ "addresses", addresses },
	{ "without_lapic", no_lapic },
	{ "port_7e", port },
};

TAP_MAIN(cases)
