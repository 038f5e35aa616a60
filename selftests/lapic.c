// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The local APIC in the kernel (KVM_CAP_SPLIT_IRQCHIP): registers by MMIO and by MSR, priorities,
 * the timer's three modes, IPIs of all kinds between vCPUs, and what the host may set and signal.
 */
#include "guest.h"

#define MSR_APIC_BASE	0x1b
#define MSR_DEADLINE	0x6e0
#define BASE_BSP	0x100
#define BASE_X2APIC	0x400
#define BASE_ENABLE	0x800
#define XAPIC		0xfee00000ul

#define REG_ID		0x20
#define REG_VERSION	0x30
#define REG_TPR		0x80
#define REG_PPR		0xa0
#define REG_EOI		0xb0
#define REG_LDR		0xd0
#define REG_DFR		0xe0
#define REG_SVR		0xf0
#define REG_ISR		0x100
#define REG_IRR		0x200
#define REG_ICR		0x300
#define REG_ICR2	0x310
#define REG_LVT_TIMER	0x320
#define REG_LVT_LINT0	0x350
#define REG_TIMER_INIT	0x380
#define REG_TIMER_NOW	0x390
#define REG_TIMER_DIV	0x3e0

#define ICR_LOWEST	0x100
#define ICR_NMI		0x400
#define ICR_INIT	0x500
#define ICR_SIPI	0x600
#define ICR_LOGICAL	0x800
#define ICR_ASSERT	0x4000
#define ICR_SELF	0x40000
#define ICR_ALL		0x80000
#define ICR_OTHERS	0xc0000

#define LVT_MASKED	0x10000
#define LVT_PERIODIC	0x20000
#define LVT_DEADLINE	0x40000

#define VECTOR		0x51
#define VECTOR_LOW	0x41
#define VECTOR_HIGH	0x81
#define MAX_VCPUS	4
#define AP_CODE		0x8000	/* SIPI vector 8 */
#define AP_MARK		0x9000

static struct vm *vm;
static struct vcpu *vcpus[MAX_VCPUS];

static volatile bool x2apic;
static volatile uint64_t taken[256];
static volatile uint64_t taken_by[MAX_VCPUS];
static volatile uint64_t ready, quit;
static volatile uint64_t isr_seen, ppr_seen;

/* ---- The guest's side ---- */

static void apic_write(uint32_t reg, uint32_t value)
{
	if (x2apic)
		wrmsr(0x800 + reg / 16, value);
	else
		*(volatile uint32_t *)(XAPIC + reg) = value;
}

static uint32_t apic_read(uint32_t reg)
{
	return x2apic ? rdmsr(0x800 + reg / 16) : *(volatile uint32_t *)(XAPIC + reg);
}

static uint32_t apic_id(void)
{
	return x2apic ? apic_read(REG_ID) : apic_read(REG_ID) >> 24;
}

static void icr_write(uint32_t dest, uint32_t low)
{
	if (x2apic) {
		wrmsr(0x800 + REG_ICR / 16, (uint64_t)dest << 32 | low);
		return;
	}
	apic_write(REG_ICR2, dest << 24);
	apic_write(REG_ICR, low);
}

static bool vector_in(uint32_t reg, unsigned int vector)
{
	return apic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

static void apic_enable(bool x2)
{
	if (x2)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_X2APIC | BASE_ENABLE);
	x2apic = x2;
	apic_write(REG_SVR, 0x1ff);
	apic_write(REG_TPR, 0);
}

static void irq_handler(struct trap_frame *frame)
{
	__atomic_add_fetch(&taken[frame->vector], 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&taken_by[apic_id()], 1, __ATOMIC_SEQ_CST);
	isr_seen = vector_in(REG_ISR, frame->vector);
	ppr_seen = apic_read(REG_PPR);
	apic_write(REG_EOI, 0);
}

static void nmi_handler(struct trap_frame *frame)
{
	__atomic_add_fetch(&taken[frame->vector], 1, __ATOMIC_SEQ_CST);
}

static void irq_on(void)
{
	__asm__ volatile("sti; nop" : : : "memory");
}

static void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* Waits for a count, by HLT or by a loop; the host's deadline ends what never comes. */
static void taken_wait(unsigned int vector, uint64_t count)
{
	while (taken[vector] < count)
		cpu_pause();
}

static void registers_common(uint64_t id)
{
	uint32_t version = apic_read(REG_VERSION);

	GUEST_EQ(apic_id(), id);
	GUEST_EQ(version & 0xf0, 0x10);
	GUEST_CHECK((version >> 16 & 0xff) >= 4);
	apic_write(REG_TPR, 0x30);
	GUEST_EQ(apic_read(REG_TPR), 0x30);
	GUEST_EQ(apic_read(REG_PPR), 0x30);
	__asm__ volatile("movq %0, %%cr8" : : "r"(5ul) : "memory");
	GUEST_EQ(apic_read(REG_TPR), 0x50);
	apic_write(REG_TPR, 0);
	apic_write(REG_LVT_LINT0, 0x700);
	GUEST_EQ(apic_read(REG_LVT_LINT0) & 0x1f7ff, 0x700);
	apic_write(REG_LVT_LINT0, LVT_MASKED);
	GUEST_EQ(apic_read(REG_LVT_LINT0), LVT_MASKED);
	apic_write(REG_TIMER_DIV, 0xb);
	GUEST_EQ(apic_read(REG_TIMER_DIV), 0xb);
}

static void xapic_payload(void)
{
	/* After reset: enabled in the base, off by software, all masked. */
	GUEST_EQ(rdmsr(MSR_APIC_BASE), XAPIC | BASE_BSP | BASE_ENABLE);
	GUEST_EQ(apic_read(REG_SVR), 0xff);
	GUEST_EQ(apic_read(REG_LVT_TIMER), LVT_MASKED);
	apic_enable(false);
	registers_common(0);
	apic_write(REG_LDR, 0x42000000);
	GUEST_EQ(apic_read(REG_LDR), 0x42000000);
	GUEST_EQ(apic_read(REG_DFR), 0xffffffff);
	apic_write(REG_DFR, 0x0fffffff);
	GUEST_EQ(apic_read(REG_DFR), 0x0fffffff);
	/* The version cannot be written. */
	apic_write(REG_VERSION, 0);
	GUEST_CHECK(apic_read(REG_VERSION) != 0);
	guest_done();
}

static void x2apic_payload(void)
{
	uint64_t value;

	GUEST_EQ(rdmsr_try(0x802, &value), TRAP_GP);
	apic_enable(true);
	registers_common(0);
	GUEST_EQ(apic_read(REG_LDR), 1);
	GUEST_EQ(wrmsr_try(0x802, 1), TRAP_GP);		/* ID: read-only */
	GUEST_EQ(wrmsr_try(0x80d, 1), TRAP_GP);		/* LDR: read-only */
	GUEST_EQ(rdmsr_try(0x80e, &value), TRAP_GP);	/* DFR: none */
	GUEST_EQ(rdmsr_try(0x831, &value), TRAP_GP);	/* upper half of the ICR: none */
	/* Back to xAPIC only through off. */
	GUEST_EQ(wrmsr_try(MSR_APIC_BASE, XAPIC | BASE_BSP | BASE_ENABLE), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_APIC_BASE, XAPIC | BASE_BSP), TRAP_NONE);
	GUEST_EQ(wrmsr_try(MSR_APIC_BASE, XAPIC | BASE_BSP | BASE_ENABLE), TRAP_NONE);
	GUEST_EQ(wrmsr_try(MSR_APIC_BASE, 1ul << 60), TRAP_GP);
	guest_done();
}

static void priority_payload(uint64_t x2)
{
	apic_enable(x2);
	guest_handlers[VECTOR] = irq_handler;
	guest_handlers[VECTOR_LOW] = irq_handler;
	guest_handlers[VECTOR_HIGH] = irq_handler;
	/* Off: it stays in the IRR. */
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR);
	GUEST_EQ(vector_in(REG_IRR, VECTOR), 1);
	GUEST_EQ(vector_in(REG_ISR, VECTOR), 0);
	irq_on();
	GUEST_EQ(taken[VECTOR], 1);
	GUEST_EQ(isr_seen, 1);
	GUEST_EQ(ppr_seen & 0xf0, VECTOR & 0xf0);
	GUEST_EQ(vector_in(REG_IRR, VECTOR), 0);
	GUEST_EQ(vector_in(REG_ISR, VECTOR), 0);
	GUEST_EQ(apic_read(REG_PPR), 0);
	/* The TPR keeps its class and those below away, by CR8 as well. */
	apic_write(REG_TPR, VECTOR & 0xf0);
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR);
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_HIGH);
	GUEST_EQ(taken[VECTOR_HIGH], 1);
	GUEST_EQ(taken[VECTOR], 1);
	GUEST_EQ(taken[VECTOR_LOW], 0);
	__asm__ volatile("movq %0, %%cr8; nop; nop" : : "r"(4ul) : "memory");
	GUEST_EQ(taken[VECTOR], 2);
	GUEST_EQ(taken[VECTOR_LOW], 0);
	apic_write(REG_TPR, 0);
	GUEST_EQ(taken[VECTOR_LOW], 1);
	if (x2) {
		wrmsr(0x83f, VECTOR);
		GUEST_EQ(taken[VECTOR], 3);
	}
	/* Two of a vector are one. */
	irq_off();
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
	irq_on();
	GUEST_EQ(taken[VECTOR_LOW], 2);
	guest_done();
}

static volatile uint64_t nested_order[4], nested_count;

/* Interrupts on in the handler: only a higher class may come before its EOI. */
static void nested_handler(struct trap_frame *frame)
{
	nested_order[nested_count++] = frame->vector;
	if (frame->vector == VECTOR) {
		icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_LOW);
		icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR_HIGH);
		irq_on();
		irq_off();
		GUEST_EQ(nested_count, 2);
	}
	apic_write(REG_EOI, 0);
}

static void nested_payload(uint64_t x2)
{
	apic_enable(x2);
	guest_handlers[VECTOR] = nested_handler;
	guest_handlers[VECTOR_LOW] = nested_handler;
	guest_handlers[VECTOR_HIGH] = nested_handler;
	irq_on();
	icr_write(0, ICR_SELF | ICR_ASSERT | VECTOR);
	GUEST_EQ(nested_count, 3);
	GUEST_EQ(nested_order[0], VECTOR);
	GUEST_EQ(nested_order[1], VECTOR_HIGH);
	GUEST_EQ(nested_order[2], VECTOR_LOW);
	guest_done();
}

/* ---- Timer ---- */

static void timer_oneshot_payload(uint64_t x2)
{
	uint32_t now, later;

	apic_enable(x2);
	guest_handlers[VECTOR] = irq_handler;
	irq_on();
	apic_write(REG_TIMER_DIV, 0xb);
	apic_write(REG_LVT_TIMER, VECTOR);
	apic_write(REG_TIMER_INIT, 20000000);
	now = apic_read(REG_TIMER_NOW);
	later = apic_read(REG_TIMER_NOW);
	GUEST_CHECK(now <= 20000000 && later <= now && later > 0);
	taken_wait(VECTOR, 1);
	GUEST_EQ(apic_read(REG_TIMER_NOW), 0);
	guest_sync(1);		/* the host waits */
	GUEST_EQ(taken[VECTOR], 1);
	/* Stopped before its time. */
	apic_write(REG_TIMER_INIT, 50000000);
	apic_write(REG_TIMER_INIT, 0);
	guest_sync(2);
	GUEST_EQ(taken[VECTOR], 1);
	/* Masked. */
	apic_write(REG_LVT_TIMER, LVT_MASKED | VECTOR);
	apic_write(REG_TIMER_INIT, 1000);
	guest_sync(3);
	GUEST_EQ(taken[VECTOR], 1);
	guest_done();
}

static void timer_periodic_payload(uint64_t x2)
{
	apic_enable(x2);
	guest_handlers[VECTOR] = irq_handler;
	irq_on();
	apic_write(REG_TIMER_DIV, 0xb);
	apic_write(REG_LVT_TIMER, LVT_PERIODIC | VECTOR);
	apic_write(REG_TIMER_INIT, 10000000);
	taken_wait(VECTOR, 8);
	apic_write(REG_TIMER_INIT, 0);
	guest_done();
}

static void timer_deadline_payload(uint64_t x2)
{
	uint64_t deadline;
	uint32_t i;

	apic_enable(x2);
	guest_handlers[VECTOR] = irq_handler;
	apic_write(REG_LVT_TIMER, LVT_DEADLINE | VECTOR);
	GUEST_EQ(rdmsr(MSR_DEADLINE), 0);
	irq_on();
	for (i = 1; i <= 5; i++) {
		deadline = rdtsc() + 5000000;
		wrmsr(MSR_DEADLINE, deadline);
		taken_wait(VECTOR, i);
		GUEST_CHECK(rdtsc() >= deadline);
		GUEST_EQ(rdmsr(MSR_DEADLINE), 0);
	}
	/* One in the past fires at once; zero disarms. */
	wrmsr(MSR_DEADLINE, 1);
	taken_wait(VECTOR, 6);
	wrmsr(MSR_DEADLINE, rdtsc() + 100000000);
	wrmsr(MSR_DEADLINE, 0);
	guest_sync(1);
	GUEST_EQ(taken[VECTOR], 6);
	guest_done();
}

static void hlt_payload(uint64_t x2)
{
	uint64_t i, before;

	apic_enable(x2);
	guest_handlers[VECTOR] = irq_handler;
	apic_write(REG_LVT_TIMER, LVT_DEADLINE | VECTOR);
	for (i = 1; i <= 5; i++) {
		before = rdtsc();
		wrmsr(MSR_DEADLINE, before + 20000000);
		while (taken[VECTOR] < i)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		GUEST_CHECK(rdtsc() >= before + 20000000);
	}
	guest_done();
}

/* ---- Several vCPUs ---- */

static void others_wait(uint64_t id, bool x2)
{
	apic_enable(x2);
	if (!x2)
		apic_write(REG_LDR, 1u << (24 + id));
	if (!x2)
		apic_write(REG_DFR, 0xffffffff);
	irq_on();
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!quit)
		cpu_pause();
	guest_done();
}

static void ipi_count(uint32_t dest, uint32_t low, uint64_t expected, uint64_t receivers)
{
	unsigned int vector = low & 0xff;
	uint64_t i, total = 0;
	uint64_t until;

	for (i = 0; i < MAX_VCPUS; i++)
		taken_by[i] = 0;
	taken[vector] = 0;
	icr_write(dest, low | ICR_ASSERT);
	taken_wait(vector, expected);
	/* Long enough for one too many. */
	until = rdtsc() + 2000000;
	while (rdtsc() < until)
		cpu_pause();
	GUEST_EQ(taken[vector], expected);
	for (i = 0; i < MAX_VCPUS; i++) {
		total += taken_by[i];
		if (!(receivers >> i & 1))
			GUEST_EQ(taken_by[i], 0);
	}
	GUEST_EQ(total, expected);
}

static void ipi_payload(uint64_t x2)
{
	guest_handlers[VECTOR] = irq_handler;
	apic_enable(x2);
	if (!x2) {
		apic_write(REG_LDR, 1u << 24);
		apic_write(REG_DFR, 0xffffffff);
	}
	irq_on();
	while (ready < 3)
		cpu_pause();
	ipi_count(1, VECTOR, 1, 0x2);
	ipi_count(3, VECTOR, 1, 0x8);
	ipi_count(0, VECTOR, 1, 0x1);
	ipi_count(0, ICR_SELF | VECTOR, 1, 0x1);
	ipi_count(0, ICR_ALL | VECTOR, 4, 0xf);
	ipi_count(0, ICR_OTHERS | VECTOR, 3, 0xe);
	ipi_count(x2 ? 0xffffffff : 0xff, VECTOR, 4, 0xf);
	ipi_count(0x6, ICR_LOGICAL | VECTOR, 2, 0x6);
	ipi_count(0x9, ICR_LOGICAL | VECTOR, 2, 0x9);
	ipi_count(0xe, ICR_LOGICAL | ICR_LOWEST | VECTOR, 1, 0xe);
	quit = 1;
	guest_done();
}

static void nmi_wait_payload(uint64_t id)
{
	guest_handlers[TRAP_NMI] = nmi_handler;
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!quit && id)
		cpu_pause();
	guest_done();
}

static void nmi_payload(uint64_t x2)
{
	guest_handlers[TRAP_NMI] = nmi_handler;
	apic_enable(x2);
	while (ready < 1)
		cpu_pause();
	icr_write(1, ICR_NMI | ICR_ASSERT);
	taken_wait(TRAP_NMI, 1);
	icr_write(1, ICR_NMI | ICR_ASSERT);
	taken_wait(TRAP_NMI, 2);
	quit = 1;
	guest_done();
}

/* The halted one is woken each time. */
static void sleeper_payload(void)
{
	guest_handlers[VECTOR] = irq_handler;
	apic_enable(x2apic);
	ready = 1;
	while (!quit)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void waker_payload(uint64_t x2)
{
	uint64_t i;

	x2apic = x2;
	apic_enable(x2);
	while (!ready)
		cpu_pause();
	for (i = 1; i <= 200; i++) {
		icr_write(1, ICR_ASSERT | VECTOR);
		taken_wait(VECTOR, i);
	}
	quit = 1;
	icr_write(1, ICR_ASSERT | VECTOR);
	guest_done();
}

/* ---- INIT and SIPI ---- */

__asm__(".pushsection .text\n"
	".code16\n"
	".globl ap_start, ap_end\n"
	"ap_start:\n"
	"	movw %cs, %ax\n"
	"	movw $0, %bx\n"
	"	movw %bx, %ds\n"
	"	movw %ax, 0x9002\n"
	"	lock; incw 0x9000\n"
	"1:	cmpw $0, 0x9004\n"
	"	je 1b\n"
	"	outb %al, $0xe0\n"
	"ap_end:\n"
	".code64\n"
	".popsection\n");

extern const char ap_start[], ap_end[];

static void sipi_payload(uint64_t x2)
{
	volatile uint16_t *mark = (uint16_t *)AP_MARK;

	apic_enable(x2);
	/* The second SIPI finds a vCPU that runs, and does nothing. */
	icr_write(1, ICR_INIT | ICR_ASSERT);
	icr_write(1, ICR_SIPI | ICR_ASSERT | AP_CODE >> 12);
	icr_write(1, ICR_SIPI | ICR_ASSERT | AP_CODE >> 12);
	while (!*mark)
		cpu_pause();
	GUEST_EQ(mark[1], AP_CODE >> 4);
	/* INIT stops it in mid-run, SIPI starts it again from the beginning. */
	icr_write(1, ICR_INIT | ICR_ASSERT);
	icr_write(1, ICR_SIPI | ICR_ASSERT | AP_CODE >> 12);
	while (*mark < 2)
		cpu_pause();
	mark[2] = 1;
	guest_done();
}

/* ---- The host's side ---- */

static void machine_create(unsigned int n, void *payload, uint64_t arg)
{
	unsigned int i;

	vm = vm_create(GUEST_RAM, true);
	for (i = 0; i < n; i++)
		vcpus[i] = vcpu_create(vm, i);
	vcpu_set_long(vcpus[0], payload, arg);
}

static void machine_destroy(void)
{
	unsigned int i;

	for (i = 0; i < MAX_VCPUS; i++) {
		vcpu_destroy(vcpus[i]);
		vcpus[i] = NULL;
	}
	vm_destroy(vm);
}

static void vcpu_make_runnable(struct vcpu *vcpu)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };

	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state));
}

static void single(void *payload, uint64_t arg)
{
	machine_create(1, payload, arg);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void xapic_registers(void)
{
	single(xapic_payload, 0);
}

static void x2apic_registers(void)
{
	single(x2apic_payload, 0);
}

static void priorities(void)
{
	single(priority_payload, 0);
	single(priority_payload, 1);
}

static void nested(void)
{
	single(nested_payload, 0);
	single(nested_payload, 1);
}

static void timer_oneshot(void)
{
	uint64_t x2;

	for (x2 = 0; x2 < 2; x2++) {
		machine_create(1, timer_oneshot_payload, x2);
		vcpu_sync(vcpus[0], 1);
		usleep(50000);
		vcpu_sync(vcpus[0], 2);
		usleep(100000);
		vcpu_sync(vcpus[0], 3);
		usleep(50000);
		vcpu_finish(vcpus[0]);
		machine_destroy();
	}
}

/* The host's clock judges the period: one tick is 1 ns in KVM's APIC, divided by 1 here. */
static void timer_periodic(void)
{
	uint64_t x2, start, took;

	for (x2 = 0; x2 < 2; x2++) {
		machine_create(1, timer_periodic_payload, x2);
		start = clock_ns();
		vcpu_finish(vcpus[0]);
		took = clock_ns() - start;
		CHECK(took >= 70000000, "8 periods of 10 ms took %llu us",
		      (unsigned long long)took / 1000);
		machine_destroy();
	}
}

static void timer_deadline(void)
{
	struct kvm_cpuid_entry2 *e;

	machine_create(1, timer_deadline_payload, 1);
	e = vm_cpuid(vm, 1, 0);
	if (!(e->ecx & 1u << 24)) {
		machine_destroy();
		SKIP("no TSC deadline timer");
	}
	vcpu_sync(vcpus[0], 1);
	usleep(100000);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void hlt_timer(void)
{
	single(hlt_payload, 0);
	single(hlt_payload, 1);
}

static void ipi(uint64_t x2)
{
	unsigned int i;

	machine_create(MAX_VCPUS, ipi_payload, x2);
	*GUEST_VAR(vm, x2apic) = x2;
	for (i = 1; i < MAX_VCPUS; i++) {
		vcpu_set_long(vcpus[i], others_wait, i);
		if (x2) {
			struct kvm_regs regs = vcpu_regs(vcpus[i]);

			regs.rsi = 1;
			CHECK_CALL(ioctl(vcpus[i]->fd, KVM_SET_REGS, &regs));
		}
		vcpu_make_runnable(vcpus[i]);
		vcpu_spawn(vcpus[i]);
	}
	vcpu_finish(vcpus[0]);
	*GUEST_VAR(vm, quit) = 1;
	for (i = 1; i < MAX_VCPUS; i++)
		vcpu_join(vcpus[i]);
	machine_destroy();
}

static void ipi_xapic(void)
{
	ipi(0);
}

static void ipi_x2apic(void)
{
	ipi(1);
}

static void pair(void *payload, void *other, uint64_t x2)
{
	machine_create(2, payload, x2);
	*GUEST_VAR(vm, x2apic) = x2;
	vcpu_set_long(vcpus[1], other, 1);
	vcpu_make_runnable(vcpus[1]);
	vcpu_spawn(vcpus[1]);
	vcpu_finish(vcpus[0]);
	*GUEST_VAR(vm, quit) = 1;
	vcpu_join(vcpus[1]);
	machine_destroy();
}

static void nmi_ipi(void)
{
	pair(nmi_payload, nmi_wait_payload, 0);
	pair(nmi_payload, nmi_wait_payload, 1);
}

static void ipi_wakes(void)
{
	pair(waker_payload, sleeper_payload, 0);
	pair(waker_payload, sleeper_payload, 1);
}

static void init_sipi(void)
{
	uint64_t x2;

	for (x2 = 0; x2 < 2; x2++) {
		machine_create(2, sipi_payload, x2);
		memcpy(vm->ram + AP_CODE, ap_start, ap_end - ap_start);
		vcpu_spawn(vcpus[1]);
		vcpu_finish(vcpus[0]);
		vcpu_join(vcpus[1]);
		CHECK_EQ(*(uint16_t *)(vm->ram + AP_MARK), 2);
		machine_destroy();
	}
}

static void state(void)
{
	struct kvm_lapic_state in, out;
	uint32_t *regs = (uint32_t *)in.regs;

	machine_create(1, xapic_payload, 0);
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_GET_LAPIC, &in));
	CHECK_EQ(regs[REG_ID / 4], 0);
	CHECK_EQ(regs[REG_SVR / 4], 0xff);
	CHECK_EQ(regs[REG_LVT_TIMER / 4], LVT_MASKED);
	CHECK_EQ(regs[REG_DFR / 4], 0xffffffff);
	/* Set as it was, it is as it was: LINT0 too, by which a PIC is heard. */
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, &in));
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_GET_LAPIC, &out));
	CHECK(!memcmp(&in, &out, sizeof(in)), "what was got cannot be set");
	regs[REG_SVR / 4] = 0x1ff;
	regs[REG_TPR / 4] = 0x20;
	regs[(REG_IRR + VECTOR / 32 * 16) / 4] |= 1u << VECTOR % 32;
	regs[REG_LVT_LINT0 / 4] = 0x8700;
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, &in));
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_GET_LAPIC, &out));
	CHECK_EQ(((uint32_t *)out.regs)[REG_SVR / 4], 0x1ff);
	CHECK_EQ(((uint32_t *)out.regs)[REG_TPR / 4], 0x20);
	CHECK_EQ(((uint32_t *)out.regs)[REG_LVT_LINT0 / 4] & 0x1f7ff, 0x8700);
	CHECK(((uint32_t *)out.regs)[(REG_IRR + VECTOR / 32 * 16) / 4] & 1u << VECTOR % 32,
	      "the vector set in IRR is lost");
	CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_GET_LAPIC, 8), EFAULT);
	CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, 8), EFAULT);
	machine_destroy();
}

static void without_lapic(void)
{
	struct kvm_lapic_state lapic = { 0 };
	struct kvm_msi msi = { .address_lo = XAPIC, .data = VECTOR };
	struct vm *plain = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu = vcpu_create(plain, 0);

	CHECK_ERRNO(ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic), EINVAL);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic), EINVAL);
	CHECK_ERRNO(ioctl(plain->fd, KVM_SIGNAL_MSI, &msi), EINVAL);
	vcpu_destroy(vcpu);
	vm_destroy(plain);
}

static void split_arguments(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct vm *plain = vm_create_bare();
	struct vcpu *vcpu;

	cap.args[0] = 1000000;
	CHECK_ERRNO(ioctl(plain->fd, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.args[0] = 24;
	cap.flags = 1;
	CHECK_ERRNO(ioctl(plain->fd, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.flags = 0;
	CHECK_CALL(ioctl(plain->fd, KVM_ENABLE_CAP, &cap));
	CHECK_ERRNO(ioctl(plain->fd, KVM_ENABLE_CAP, &cap), EEXIST);
	vm_destroy(plain);
	/* Too late once there is a vCPU. */
	plain = vm_create_bare();
	vcpu = vcpu_create(plain, 0);
	CHECK_ERRNO(ioctl(plain->fd, KVM_ENABLE_CAP, &cap), EEXIST);
	vcpu_destroy(vcpu);
	vm_destroy(plain);
}

static void msi_payload(void)
{
	uint64_t i;

	guest_handlers[VECTOR] = irq_handler;
	apic_enable(false);
	irq_on();
	for (i = 1; i <= 3; i++) {
		guest_sync(i);
		taken_wait(VECTOR, i);
	}
	__asm__ volatile("cli" : : : "memory");
	guest_sync(4);
	while (taken[VECTOR] < 4)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void signal_msi(void)
{
	struct kvm_msi msi = { .address_lo = XAPIC, .data = VECTOR };
	uint64_t i;
	int r;

	machine_create(1, msi_payload, 0);
	for (i = 1; i <= 4; i++) {
		vcpu_sync(vcpus[0], i);
		r = ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
		CHECK(r > 0, "KVM_SIGNAL_MSI: %d, errno %d", r, errno);
	}
	/* To nobody. */
	msi.address_lo = XAPIC | 7 << 12;
	r = ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
	CHECK(r <= 0, "an MSI to APIC 7, which is none: %d", r);
	msi.flags = ~0u;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi), EINVAL);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "xapic_registers", xapic_registers },
	{ "x2apic_registers", x2apic_registers },
	{ "priorities", priorities },
	{ "nested", nested },
	{ "timer_oneshot", timer_oneshot },
	{ "timer_periodic", timer_periodic },
	{ "timer_deadline", timer_deadline },
	{ "hlt_timer", hlt_timer },
	{ "ipi_xapic", ipi_xapic },
	{ "ipi_x2apic", ipi_x2apic },
	{ "ipi_nmi", nmi_ipi },
	{ "ipi_wakes_halted", ipi_wakes },
	{ "init_sipi", init_sipi },
	{ "lapic_state", state },
	{ "without_lapic", without_lapic },
	{ "split_arguments", split_arguments },
	{ "signal_msi", signal_msi },
};

TAP_MAIN(cases)
