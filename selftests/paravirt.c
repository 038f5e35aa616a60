// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * KVM's paravirtual features but PV EOI (pv_eoi.c) and the clock (cpuid_msr.c): steal time,
 * KVM_HC_KICK_CPU, KVM_HC_SEND_IPI, poll control, KVM_KVMCLOCK_CTRL, and that a guest gets no more
 * than its CPUID names where KVM_CAP_ENFORCE_PV_FEATURE_CPUID wants it so.
 */
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "guest.h"

#define MSR_APIC_BASE	0x1b
#define MSR_SYSTEM_TIME	0x4b564d01
#define MSR_STEAL_TIME	0x4b564d03
#define MSR_PV_EOI	0x4b564d04
#define MSR_POLL	0x4b564d05
#define X2APIC_ID	0x802
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f

#define HC_VAPIC_POLL_IRQ 1
#define HC_KICK_CPU	5
#define HC_SEND_IPI	10
#define HC_SCHED_YIELD	11
#define HC_UNKNOWN	0x77

#define KVM_EPERM	1
#define KVM_EINVAL	22
#define KVM_ENOSYS	1000

#define PV_LEAF		0x40000001
#define PV_STEAL_TIME	(1u << 5)
#define PV_EOI		(1u << 6)
#define PV_UNHALT	(1u << 7)
#define PV_TLB_FLUSH	(1u << 9)
#define PV_SEND_IPI	(1u << 11)
#define PV_SCHED_YIELD	(1u << 13)
#define PV_POLL_CONTROL	(1u << 12)

#define ICR_LOGICAL	0x800
#define ICR_SELF	0x40000
#define ICR_NMI		0x400
#define ICR_ASSERT	0x4000
#define VECTOR		0x51
#define MAX_VCPUS	4
#define FAR_ID		70		/* of an APIC, beyond one register of a bitmap */

#define PREEMPTED	1
#define FLUSH_TLB	2
#define GUEST_STOPPED	2

struct steal {
	uint64_t steal;
	uint32_t version, flags;
	uint8_t preempted, pad[47];
};

static struct vm *vm;
static struct vcpu *vcpus[MAX_VCPUS];

static volatile struct steal steal_page __attribute__((aligned(64)));
static volatile uint8_t clock_page[32] __attribute__((aligned(32)));
static volatile uint64_t taken, nmis, ready, halted, woken, quit;

static void machine_create(unsigned int n, void *payload, uint64_t arg)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	unsigned int i;

	vm = vm_create(GUEST_RAM, true);
	for (i = 0; i < n; i++) {
		vcpus[i] = vcpu_create(vm, i == MAX_VCPUS - 1 ? FAR_ID : i);
		vcpu_set_long(vcpus[i], payload, arg);
		CHECK_CALL(ioctl(vcpus[i]->fd, KVM_SET_MP_STATE, &runnable));
	}
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

static bool features_missing(uint32_t bits)
{
	struct kvm_cpuid_entry2 *leaf = vm_cpuid(vm, PV_LEAF, 0);

	if (leaf && (leaf->eax & bits) == bits)
		return false;
	machine_destroy();
	tap_skip("features %#x are not there", bits);
	return true;
}

/* ---- The guest's side ---- */

static uint64_t hypercall(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t answer;

	__asm__ volatile("vmmcall"
			 : "=a"(answer) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return answer;
}

static void x2apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	wrmsr(X2APIC_SVR, 0x1ff);
}

static void irq_handler(struct trap_frame *frame)
{
	(void)frame;
	__atomic_add_fetch(&taken, 1, __ATOMIC_SEQ_CST);
	wrmsr(X2APIC_EOI, 0);
}

static void nmi_handler(struct trap_frame *frame)
{
	(void)frame;
	__atomic_add_fetch(&nmis, 1, __ATOMIC_SEQ_CST);
}

/* ---- Steal time ---- */

static void steal_payload(void)
{
	GUEST_EQ(wrmsr_try(MSR_STEAL_TIME, (uintptr_t)&steal_page | 3), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_STEAL_TIME, (uintptr_t)&steal_page | 0x21), TRAP_GP);
	GUEST_EQ(rdmsr(MSR_STEAL_TIME), 0);
	wrmsr(MSR_STEAL_TIME, (uintptr_t)&steal_page | 1);
	GUEST_EQ(rdmsr(MSR_STEAL_TIME), (uintptr_t)&steal_page | 1);
	for (;;) {
		GUEST_EQ(steal_page.version & 1, 0);
		GUEST_EQ(steal_page.flags, 0);
		GUEST_EQ(steal_page.preempted, 0);
		guest_sync2(1, steal_page.steal);
	}
}

static uint64_t run_delay(void)
{
	unsigned long long ran = 0, waited = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", (long)syscall(SYS_gettid));
	f = fopen(path, "re");
	if (!f || fscanf(f, "%llu %llu", &ran, &waited) != 2)
		tap_bail("%s: cannot be read", path);
	fclose(f);
	return waited;
}

static uint64_t steal_ask(void)
{
	struct report report = vcpu_wait(vcpus[0]);

	if (report.kind != REPORT_SYNC)
		vcpu_explain(vcpus[0], &report, "the time stolen");
	return report.value2;
}

struct pinned {
	pthread_t thread;
	volatile bool stop;
};

static void thread_pin(pthread_t thread, unsigned int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_setaffinity_np(thread, sizeof(one), &one);
}

static void *pinned_rival(void *arg)
{
	struct pinned *rival = arg;

	thread_pin(pthread_self(), 0);
	while (!rival->stop)
		;
	return NULL;
}

/* Until this thread has waited that long for a CPU that it shares with another. */
static void be_delayed(uint64_t ns)
{
	uint64_t start = run_delay(), end = clock_ns() + 8000000000ull;
	struct pinned rival = { 0 };

	thread_pin(pthread_self(), 0);
	pthread_create(&rival.thread, NULL, pinned_rival, &rival);
	while (run_delay() - start < ns && clock_ns() < end)
		sched_yield();
	rival.stop = true;
	pthread_join(rival.thread, NULL);
}

static void steal_time(void)
{
	uint64_t before, after, waited;
	uint32_t version;

	machine_create(1, steal_payload, 0);
	if (features_missing(PV_STEAL_TIME))
		return;
	steal_ask();
	before = steal_ask();
	CHECK(before <= run_delay(), "%llu ns stolen from a thread that waited %llu",
	      (unsigned long long)before, (unsigned long long)run_delay());
	version = GUEST_VAR(vm, steal_page)->version;
	waited = run_delay();
	be_delayed(3000000);
	waited = run_delay() - waited;
	CHECK(waited >= 3000000, "the thread waited only %llu ns", (unsigned long long)waited);
	after = steal_ask();
	CHECK(after - before >= waited, "waited %llu ns, of which %llu are stolen",
	      (unsigned long long)waited, (unsigned long long)(after - before));
	CHECK(after - before <= waited + 2000000000, "%llu ns stolen of %llu",
	      (unsigned long long)(after - before), (unsigned long long)waited);
	CHECK(GUEST_VAR(vm, steal_page)->version > version, "the version stood still");
	machine_destroy();
}

/* ---- Preempted ---- */

#define FLUSH_VA	0x900000ul
#define PAGE_A		0xa00000ul
#define PAGE_B		0xb00000ul

static volatile uint64_t unmarked;

/* Runs with its page unmarked, always. */
static void spin_payload(void)
{
	wrmsr(MSR_STEAL_TIME, (uintptr_t)&steal_page | 1);
	while (!quit) {
		if (steal_page.preempted)
			guest_fail("marked while it runs", 0, steal_page.preempted, 0);
		unmarked++;
	}
	guest_done();
}

static void *pinned_vcpu(void *arg)
{
	thread_pin(pthread_self(), 0);
	vcpus[0]->finished = vcpu_finish(vcpus[0]);
	return arg;
}

/*
 * The vCPU and a rival share a CPU, and this thread, on another, looks at the page. Each time that
 * it is marked, does what another vCPU would do, and says whether the mark was there still.
 */
static unsigned int preempted_times(bool (*meanwhile)(unsigned int round))
{
	volatile struct steal *page = GUEST_VAR(vm, steal_page);
	struct pinned vcpu = { 0 }, rival = { 0 };
	uint64_t end = clock_ns() + 2000000000ull;
	unsigned int times = 0, round = 0;

	pthread_create(&vcpu.thread, NULL, pinned_vcpu, &vcpu);
	pthread_create(&rival.thread, NULL, pinned_rival, &rival);
	thread_pin(pthread_self(), 1);
	while (clock_ns() < end && times < 30) {
		if (page->preempted == PREEMPTED && meanwhile(++round))
			times++;
	}
	*GUEST_VAR(vm, quit) = 1;
	rival.stop = true;
	pthread_join(rival.thread, NULL);
	pthread_join(vcpu.thread, NULL);
	CHECK(vcpus[0]->finished, "the payload did not come to its end");
	return times;
}

static bool flush_ask(unsigned int round)
{
	volatile uint8_t *byte = &GUEST_VAR(vm, steal_page)->preempted;
	uint8_t was = PREEMPTED;

	(void)round;
	return __atomic_compare_exchange_n(byte, &was, PREEMPTED | FLUSH_TLB, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Marked while another thread has the CPU, unmarked in the guest, whatever was asked meanwhile. */
static void preempted(void)
{
	unsigned int times;

	machine_create(1, spin_payload, 0);
	if (features_missing(PV_STEAL_TIME | PV_TLB_FLUSH))
		return;
	times = preempted_times(flush_ask);
	tap_note("preempted %u times", times);
	CHECK(times >= 5, "it was told %u times", times);
	CHECK_EQ(GUEST_VAR(vm, steal_page)->preempted & FLUSH_TLB, 0);
	machine_destroy();
}

static void flush_payload(void)
{
	uint64_t value, last = 0;

	wrmsr(MSR_STEAL_TIME, (uintptr_t)&steal_page | 1);
	while (!quit) {
		value = *(volatile uint64_t *)FLUSH_VA;
		if (value < last)
			guest_fail("an old translation", 0, value, last);
		last = value;
	}
	guest_done();
}

/*
 * Each round the page at FLUSH_VA is another, and the old one holds what must not be seen any more.
 * (A CPU that forgets its translations at each exit, as the emulated one, cannot fail here.)
 */
static bool flush_change(unsigned int round)
{
	uint64_t *a = (uint64_t *)(vm->ram + PAGE_A), *b = (uint64_t *)(vm->ram + PAGE_B);

	*(round & 1 ? b : a) = 2 * round;
	vm_map_page(vm, FLUSH_VA, round & 1 ? PAGE_B : PAGE_A, 3);
	if (!flush_ask(round)) {
		/* It runs again: without an IPI nobody makes it flush. Back to where it was. */
		*(round & 1 ? a : b) = 2 * round;
		vm_map_page(vm, FLUSH_VA, round & 1 ? PAGE_A : PAGE_B, 3);
		return false;
	}
	*(round & 1 ? a : b) = 0;
	return true;
}

static void tlb_flush(void)
{
	machine_create(1, flush_payload, 0);
	if (features_missing(PV_STEAL_TIME | PV_TLB_FLUSH))
		return;
	vm_map_page(vm, FLUSH_VA, PAGE_A, 3);
	CHECK(preempted_times(flush_change) >= 5, "it was preempted too seldom");
	machine_destroy();
}

static void idle_payload(uint64_t poll)
{
	guest_handlers[VECTOR] = irq_handler;
	x2apic_enable();
	wrmsr(MSR_STEAL_TIME, (uintptr_t)&steal_page | 1);
	wrmsr(MSR_POLL, poll);
	ready = 1;
	while (!quit) {
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		GUEST_EQ(steal_page.preempted, 0);
	}
	guest_done();
}

static void wait_for(volatile uint64_t *what, uint64_t value)
{
	uint64_t end = clock_ns() + 8000000000ull;

	while (*what != value && clock_ns() < end)
		usleep(1000);
	CHECK_EQ(*what, value);
}

static void msi_send(uint32_t vector)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = vector };

	CHECK_EQ(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi), 1);
}

/* Who has halted has not been preempted: the guest's scheduler would take it for busy. */
static void not_preempted(void)
{
	int i;

	machine_create(1, idle_payload, 1);
	if (features_missing(PV_STEAL_TIME))
		return;
	vcpu_spawn(vcpus[0]);
	wait_for(GUEST_VAR(vm, ready), 1);
	for (i = 1; i <= 10; i++) {
		usleep(20000);
		CHECK_EQ(GUEST_VAR(vm, steal_page)->preempted, 0);
		msi_send(VECTOR);
		wait_for(GUEST_VAR(vm, taken), i);
	}
	*GUEST_VAR(vm, quit) = 1;
	msi_send(VECTOR);
	vcpu_join(vcpus[0]);
	machine_destroy();
}

/* Out of the guest by a signal. */
static void interrupt_run(void)
{
	struct report report;

	vcpu_deadline_ms = 50;
	report = vcpu_wait(vcpus[0]);
	vcpu_deadline_ms = 8000;
	if (report.kind != REPORT_TIMEOUT)
		vcpu_explain(vcpus[0], &report, "a timeout");
}

/* The page comes and goes, and is no memory at all: no harm to anybody. */
static void hostile_payload(uint64_t gpa)
{
	GUEST_EQ(wrmsr_try(MSR_STEAL_TIME, gpa | 1), TRAP_NONE);
	GUEST_EQ(rdmsr(MSR_STEAL_TIME), gpa | 1);
	while (!quit)
		cpu_pause();
	guest_sync(1);
	guest_done();
}

static void steal_hostile(void)
{
	static const uint64_t gpas[] = { GUEST_MMIO, GUEST_RAM, ~63ull, 0xffffffffffc0, 1ull << 52,
					 0x40000000 };
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(gpas); i++) {
		machine_create(1, hostile_payload, gpas[i]);
		CHECK_CALL(vm_slot(vm, 1, 0x40000000, PAGE_SIZE, page, KVM_MEM_READONLY));
		interrupt_run();
		be_delayed(1000000);
		interrupt_run();
		*GUEST_VAR(vm, quit) = 1;
		vcpu_sync(vcpus[0], 1);
		vcpu_finish(vcpus[0]);
		CHECK(!((uint64_t *)page)[0] && !((uint64_t *)page)[2], "read-only memory changed");
		machine_destroy();
	}
	munmap(page, PAGE_SIZE);
}

/* ---- KVM_HC_KICK_CPU ---- */

static void unhalt_payload(uint64_t unused)
{
	uint64_t id;

	(void)unused;
	x2apic_enable();
	id = rdmsr(X2APIC_ID);
	if (id == 0) {
		GUEST_EQ(hypercall(HC_KICK_CPU, 0, 2, 0, 0), 0);	/* no such vCPU */
		GUEST_EQ(hypercall(HC_KICK_CPU, 0, 1ull << 40, 0, 0), 0);
		guest_sync(1);
		GUEST_EQ(hypercall(HC_KICK_CPU, 0, 1, 0, 0), 0);
		guest_done();
	}
	/* Interrupts are off: nothing else ends this. */
	halted = 1;
	__asm__ volatile("cli; hlt" : : : "memory");
	woken = 1;
	/* Before it halts: it does not. */
	GUEST_EQ(hypercall(HC_KICK_CPU, 0, 1, 0, 0), 0);
	__asm__ volatile("cli; hlt" : : : "memory");
	woken = 2;
	guest_done();
}

static void unhalt(void)
{
	machine_create(2, unhalt_payload, 0);
	if (features_missing(PV_UNHALT))
		return;
	vcpu_spawn(vcpus[1]);
	wait_for(GUEST_VAR(vm, halted), 1);
	usleep(20000);
	vcpu_sync(vcpus[0], 1);
	usleep(20000);
	CHECK_EQ(*GUEST_VAR(vm, woken), 0);
	vcpu_finish(vcpus[0]);
	vcpu_join(vcpus[1]);
	CHECK_EQ(*GUEST_VAR(vm, woken), 2);
	machine_destroy();
}

/* Kicked while its thread is in userspace: who saves it finds that it may run. */
static void unhalt_saved(void)
{
	struct kvm_mp_state state;
	struct report report;

	machine_create(2, unhalt_payload, 0);
	if (features_missing(PV_UNHALT))
		return;
	vcpu_deadline_ms = 100;
	report = vcpu_wait(vcpus[1]);
	vcpu_deadline_ms = 8000;
	if (report.kind != REPORT_TIMEOUT)
		vcpu_explain(vcpus[1], &report, "a timeout");
	CHECK_CALL(ioctl(vcpus[1]->fd, KVM_GET_MP_STATE, &state));
	CHECK_EQ(state.mp_state, KVM_MP_STATE_HALTED);
	vcpu_sync(vcpus[0], 1);
	vcpu_finish(vcpus[0]);
	CHECK_CALL(ioctl(vcpus[1]->fd, KVM_GET_MP_STATE, &state));
	CHECK_EQ(state.mp_state, KVM_MP_STATE_RUNNABLE);
	vcpu_finish(vcpus[1]);
	machine_destroy();
}

/* ---- KVM_HC_SEND_IPI ---- */

static void ipi_payload(uint64_t unused)
{
	uint64_t id;

	(void)unused;
	guest_handlers[VECTOR] = irq_handler;
	guest_handlers[TRAP_NMI] = nmi_handler;
	x2apic_enable();
	id = rdmsr(X2APIC_ID);
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	if (id) {
		while (!quit)
			__asm__ volatile("sti; pause; cli" : : : "memory");
		guest_done();
	}
	while (ready < MAX_VCPUS)
		cpu_pause();
	/* All of them, itself too; with ids that nobody has. */
	GUEST_EQ(hypercall(HC_SEND_IPI, ~0ull, ~0ull, 0, ICR_ASSERT | VECTOR), MAX_VCPUS);
	__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	while (taken < MAX_VCPUS)
		cpu_pause();
	/* 1 and 2, and FAR_ID by the second register. */
	GUEST_EQ(hypercall(HC_SEND_IPI, 3, 1ull << (FAR_ID - 1 - 64), 1, VECTOR), 3);
	while (taken < MAX_VCPUS + 3)
		cpu_pause();
	GUEST_EQ(hypercall(HC_SEND_IPI, 1, 0, FAR_ID, ICR_NMI), 1);
	while (nmis < 1)
		cpu_pause();
	GUEST_EQ(hypercall(HC_SEND_IPI, 0, 0, 0, VECTOR), 0);
	GUEST_EQ(hypercall(HC_SEND_IPI, ~0ull, ~0ull, 1000000, VECTOR), 0);
	GUEST_EQ(hypercall(HC_SEND_IPI, ~0ull, ~0ull, 0xffffff00, VECTOR), 0);
	GUEST_EQ(hypercall(HC_SEND_IPI, 1, 0, 0, ICR_LOGICAL | VECTOR), -KVM_EINVAL);
	GUEST_EQ(hypercall(HC_SEND_IPI, 1, 0, 0, ICR_SELF | VECTOR), -KVM_EINVAL);
	guest_sync(1);
	GUEST_EQ(taken, MAX_VCPUS + 3);
	GUEST_EQ(nmis, 1);
	quit = 1;
	guest_done();
}

static void send_ipi(void)
{
	unsigned int i;

	machine_create(MAX_VCPUS, ipi_payload, 0);
	if (features_missing(PV_SEND_IPI))
		return;
	for (i = 1; i < MAX_VCPUS; i++)
		vcpu_spawn(vcpus[i]);
	vcpu_sync(vcpus[0], 1);
	usleep(20000);
	vcpu_finish(vcpus[0]);
	for (i = 1; i < MAX_VCPUS; i++)
		vcpu_join(vcpus[i]);
	machine_destroy();
}

/* 32-bit code: two registers of 32 ids each, and an answer of 32 bits. */
__asm__(".pushsection .rodata\n"
	".code32\n"
	"ipi32_start:\n"
	"	movl $10, %eax\n"
	"	xorl %ebx, %ebx\n"
	"	movl $0x40, %ecx\n"		/* 32 + 6, from 32 */
	"	movl $32, %edx\n"
	"	movl $0x51, %esi\n"
	"	vmmcall\n"
	"	outl %eax, $0x51\n"
	"	movl $0x77, %eax\n"
	"	vmmcall\n"
	"	outl %eax, $0x51\n"
	"	hlt\n"
	".code64\n"
	".popsection\n");
extern const char ipi32_start[];

static uint32_t port_value(struct vcpu *vcpu)
{
	uint32_t value = 0;

	if (vcpu_exit(vcpu, KVM_EXIT_IO))
		memcpy(&value, (uint8_t *)vcpu->run + vcpu->run->io.data_offset, sizeof(value));
	return value;
}

static void send_ipi_32(void)
{
	struct kvm_lapic_state state;

	machine_create(MAX_VCPUS, ipi_payload, 0);
	if (features_missing(PV_SEND_IPI))
		return;
	CHECK_CALL(ioctl(vcpus[MAX_VCPUS - 1]->fd, KVM_GET_LAPIC, &state));
	state.regs[0xf1] = 1;		/* switched on by software */
	CHECK_CALL(ioctl(vcpus[MAX_VCPUS - 1]->fd, KVM_SET_LAPIC, &state));
	vcpu_set_protected(vcpus[0], (uintptr_t)ipi32_start);
	CHECK_EQ(port_value(vcpus[0]), 1);
	CHECK_CALL(ioctl(vcpus[MAX_VCPUS - 1]->fd, KVM_GET_LAPIC, &state));
	CHECK(state.regs[0x200 + VECTOR / 32 * 16 + VECTOR % 32 / 8] & 1 << VECTOR % 8,
	      "the interrupt did not come");
	CHECK_EQ(port_value(vcpus[0]), (uint32_t)-KVM_ENOSYS);
	CHECK_EQ(vcpu_regs(vcpus[0]).rax, (uint32_t)-KVM_ENOSYS);
	machine_destroy();
}

static void no_lapic_payload(void)
{
	GUEST_CHECK((int64_t)hypercall(HC_SEND_IPI, 1, 0, 0, VECTOR) < 0);
	GUEST_EQ(hypercall(HC_KICK_CPU, 0, 0, 0, 0), 0);
	GUEST_EQ(hypercall(HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
	GUEST_EQ(hypercall(HC_UNKNOWN, 0, 0, 0, 0), -KVM_ENOSYS);
	GUEST_EQ(hypercall(1ull << 32 | HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), -KVM_ENOSYS);
	guest_done();
}

static void no_lapic(void)
{
	vm = vm_create(GUEST_RAM, false);
	vcpus[0] = vcpu_create(vm, 0);
	vcpu_set_long(vcpus[0], no_lapic_payload, 0);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* Ring 3 asks for nothing. */
static void ring3_payload(void)
{
	if (hypercall(HC_VAPIC_POLL_IRQ, 0, 0, 0, 0) == (uint64_t)-KVM_EPERM &&
	    hypercall(HC_SEND_IPI, 1, 0, 0, VECTOR) == (uint64_t)-KVM_EPERM)
		*(volatile uint64_t *)&ready = 1;
	for (;;)
		cpu_pause();
}

static void ring3(void)
{
	struct kvm_sregs sregs;
	uint64_t *table;
	int i;

	machine_create(1, ring3_payload, 0);
	/* Its pages may be used by ring 3. */
	table = (uint64_t *)(vm->ram + GUEST_TABLES + 2 * 4096);
	for (i = 0; i < 8; i++)
		table[i] |= 4;
	sregs = vcpu_sregs(vcpus[0]);
	sregs.cs.dpl = 3;
	sregs.ss.dpl = 3;
	sregs.cs.selector |= 3;
	sregs.ss.selector |= 3;
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_SREGS, &sregs));
	interrupt_run();
	CHECK_EQ(*GUEST_VAR(vm, ready), 1);
	machine_destroy();
}

/* ---- Polling ---- */

static void poll_payload(void)
{
	GUEST_EQ(rdmsr(MSR_POLL), 1);
	GUEST_EQ(wrmsr_try(MSR_POLL, 2), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_POLL, 1ull << 63), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_POLL, 0), TRAP_NONE);
	GUEST_EQ(rdmsr(MSR_POLL), 0);
	guest_done();
}

static void poll_control(void)
{
	machine_create(1, poll_payload, 0);
	if (features_missing(PV_POLL_CONTROL))
		return;
	vcpu_finish(vcpus[0]);
	CHECK_EQ(vcpu_msr_get(vcpus[0], MSR_POLL), 0);
	CHECK(vcpu_msr_set(vcpus[0], MSR_POLL, 1), "the host cannot set it");
	CHECK(!vcpu_msr_set(vcpus[0], MSR_POLL, 4), "the host can set reserved bits");
	machine_destroy();
}

static int vm_enable(uint32_t cap, uint32_t flags, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .flags = flags, .args = { arg } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

static void halt_poll_cap(void)
{
	if (!node_has(KVM_CAP_HALT_POLL))
		SKIP("KVM_CAP_HALT_POLL is not there");
	machine_create(1, idle_payload, 0);
	CHECK_ERRNO(vm_enable(KVM_CAP_HALT_POLL, 1, 1000), EINVAL);
	CHECK_ERRNO(vm_enable(KVM_CAP_HALT_POLL, 0, 1ull << 32), EINVAL);
	machine_destroy();
}

static uint64_t thread_time(pthread_t thread)
{
	struct timespec ts = { 0 };
	clockid_t clock;

	pthread_getcpuclockid(thread, &clock);
	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/*
 * Percent of its time that a vCPU's thread runs, which halts and is woken each 3 ms. By a thread that
 * sleeps on another CPU: Linux 6.12 counts one that has just gone to sleep as one that would run.
 */
static unsigned int polling_share(uint64_t limit, uint64_t poll)
{
	uint64_t i, start, ran;

	machine_create(1, idle_payload, poll);
	CHECK_CALL(vm_enable(KVM_CAP_HALT_POLL, 0, limit));
	vcpu_spawn(vcpus[0]);
	thread_pin(vcpus[0]->thread, 1);
	wait_for(GUEST_VAR(vm, ready), 1);
	start = clock_ns();
	ran = thread_time(vcpus[0]->thread);
	for (i = 1; i <= 200; i++) {
		usleep(3000);
		msi_send(VECTOR);
	}
	ran = thread_time(vcpus[0]->thread) - ran;
	start = clock_ns() - start;
	*GUEST_VAR(vm, quit) = 1;
	msi_send(VECTOR);
	vcpu_join(vcpus[0]);
	machine_destroy();
	return ran * 100 / start;
}

/* Where seconds may be polled, 3 ms are; not where none may, nor where the guest has it so. */
static void halt_polling(void)
{
	unsigned int long_polls, no_polls, unwanted;

	if (!node_has(KVM_CAP_HALT_POLL))
		SKIP("KVM_CAP_HALT_POLL is not there");
	thread_pin(pthread_self(), 0);
	long_polls = polling_share(0xffffffff, 1);
	no_polls = polling_share(0, 1);
	unwanted = polling_share(0xffffffff, 0);
	tap_note("the thread runs for %u%% of its time, without polling %u%%, by the guest's wish %u%%",
		 long_polls, no_polls, unwanted);
	CHECK(long_polls > 2 * no_polls, "no more polling where it is allowed");
	CHECK(long_polls > 2 * unwanted, "the guest's wish is ignored");
}

/* ---- KVM_KVMCLOCK_CTRL ---- */

static void clock_payload(void)
{
	guest_sync(1);
	wrmsr(MSR_SYSTEM_TIME, (uintptr_t)clock_page | 1);
	for (;;)
		guest_sync2(2, clock_page[29]);
}

static uint64_t clock_flags(void)
{
	struct report report = vcpu_wait(vcpus[0]);

	if (report.kind != REPORT_SYNC || report.value != 2)
		vcpu_explain(vcpus[0], &report, "the clock's flags");
	return report.value2;
}

static void clock_stopped(void)
{
	struct kvm_clock_data now = { 0 };
	int fd;

	if (!node_has(KVM_CAP_KVMCLOCK_CTRL))
		SKIP("KVM_CAP_KVMCLOCK_CTRL is not there");
	machine_create(1, clock_payload, 0);
	fd = vcpus[0]->fd;
	vcpu_sync(vcpus[0], 1);
	CHECK_ERRNO(ioctl(fd, KVM_KVMCLOCK_CTRL, 0), EINVAL);
	CHECK_EQ(clock_flags() & GUEST_STOPPED, 0);
	CHECK_CALL(ioctl(fd, KVM_KVMCLOCK_CTRL, 0));
	CHECK_EQ(clock_flags() & GUEST_STOPPED, GUEST_STOPPED);
	/* It stands until the guest has seen it, whatever else is written meanwhile; */
	CHECK_CALL(ioctl(vm->fd, KVM_GET_CLOCK, &now));
	now.flags = 0;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_CLOCK, &now));
	CHECK_EQ(clock_flags() & GUEST_STOPPED, GUEST_STOPPED);
	/* and then it is gone. */
	(*GUEST_VAR(vm, clock_page))[29] &= ~GUEST_STOPPED;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_CLOCK, &now));
	CHECK_EQ(clock_flags() & GUEST_STOPPED, 0);
	machine_destroy();
}

/* ---- What CPUID does not name ---- */

static const struct {
	uint32_t msr, feature;
} pv_msrs[] = {
	{ 0x11, 1 << 0 }, { 0x12, 1 << 0 }, { 0x4b564d00, 1 << 3 }, { MSR_SYSTEM_TIME, 1 << 3 },
	{ MSR_STEAL_TIME, PV_STEAL_TIME }, { MSR_PV_EOI, PV_EOI }, { MSR_POLL, PV_POLL_CONTROL },
};

/* Async page faults, and the migration control of encrypted guests, are nobody's. */
static const uint32_t no_msrs[] = { 0x4b564d02, 0x4b564d06, 0x4b564d07, 0x4b564d08, 0x4b564dff };

static const struct {
	uint32_t nr, feature;
} pv_calls[] = {
	{ HC_KICK_CPU, PV_UNHALT }, { HC_SEND_IPI, PV_SEND_IPI },
	{ HC_SCHED_YIELD, PV_SCHED_YIELD }, { HC_UNKNOWN, 0 },
};

static void enforced_payload(uint64_t features)
{
	uint64_t value, i, allowed;

	for (i = 0; i < ARRAY_SIZE(pv_msrs); i++) {
		allowed = pv_msrs[i].feature & features;
		GUEST_EQ(rdmsr_try(pv_msrs[i].msr, &value), allowed ? TRAP_NONE : TRAP_GP);
		GUEST_EQ(wrmsr_try(pv_msrs[i].msr, 0), allowed ? TRAP_NONE : TRAP_GP);
	}
	for (i = 0; i < ARRAY_SIZE(no_msrs); i++) {
		if (features & 0x80000000)
			break;
		GUEST_EQ(rdmsr_try(no_msrs[i], &value), TRAP_GP);
		GUEST_EQ(wrmsr_try(no_msrs[i], 0), TRAP_GP);
	}
	for (i = 0; i < ARRAY_SIZE(pv_calls); i++) {
		allowed = pv_calls[i].feature & features;
		value = hypercall(pv_calls[i].nr, 0, 0, 0, 0);
		GUEST_EQ(value, allowed ? 0 : (uint64_t)-KVM_ENOSYS);
	}
	GUEST_EQ(hypercall(HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
	guest_done();
}

static void enforced_with(uint32_t features, bool enforce)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
				      .args = { enforce } };

	machine_create(1, enforced_payload, enforce ? features : 0xffffffff);
	vm_cpuid(vm, PV_LEAF, 0)->eax = features;
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_CPUID2, vm->cpuid));
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_ENABLE_CAP, &cap));
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void enforced(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .flags = 1 };

	if (!node_has(KVM_CAP_ENFORCE_PV_FEATURE_CPUID))
		SKIP("KVM_CAP_ENFORCE_PV_FEATURE_CPUID is not there");
	machine_create(1, enforced_payload, 0);
	CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.flags = 0;
	cap.cap = KVM_CAP_SPLIT_IRQCHIP;
	CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_ENABLE_CAP, &cap), EINVAL);
	machine_destroy();
	enforced_with(0, false);
	enforced_with(0, true);
	enforced_with(1 << 0, true);
	enforced_with(1 << 3 | PV_STEAL_TIME | PV_SEND_IPI, true);
	enforced_with(PV_EOI | PV_UNHALT | PV_POLL_CONTROL, true);
}

/* ---- Saved and restored ---- */

static bool msr_is_listed(uint32_t msr)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[1024];
	} list = { .head.nmsrs = 1024 };
	uint32_t i;

	if (ioctl(vm->node, KVM_GET_MSR_INDEX_LIST, &list))
		return false;
	for (i = 0; i < list.head.nmsrs; i++)
		if (list.head.indices[i] == msr)
			return true;
	return false;
}

static void msrs_saved(void)
{
	const struct {
		uint32_t msr;
		uint64_t value;
	} rows[] = {
		{ MSR_STEAL_TIME, (uintptr_t)&steal_page | 1 },
		{ MSR_PV_EOI, (uintptr_t)&ready | 1 }, { MSR_POLL, 0 },
	};
	struct kvm_mp_state init = { .mp_state = KVM_MP_STATE_RUNNABLE };
	unsigned int i;

	machine_create(1, steal_payload, 0);
	if (features_missing(PV_STEAL_TIME | PV_EOI | PV_POLL_CONTROL))
		return;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		CHECK(msr_is_listed(rows[i].msr), "MSR %#x is not listed", rows[i].msr);
		CHECK(vcpu_msr_set(vcpus[0], rows[i].msr, rows[i].value), "MSR %#x", rows[i].msr);
		CHECK_EQ(vcpu_msr_get(vcpus[0], rows[i].msr), rows[i].value);
	}
	CHECK(!vcpu_msr_set(vcpus[0], MSR_STEAL_TIME, 0x43), "reserved bits were taken");
	CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_MP_STATE, &init));
	machine_destroy();
}

/* A saved page says that the vCPU does not run; so does its copy, until it runs there. */
static void restored_payload(void)
{
	GUEST_EQ(steal_page.preempted, 0);
	GUEST_EQ(rdmsr(MSR_STEAL_TIME), (uintptr_t)&steal_page | 1);
	guest_done();
}

static void restored(void)
{
	machine_create(1, restored_payload, 0);
	if (features_missing(PV_STEAL_TIME))
		return;
	GUEST_VAR(vm, steal_page)->preempted = PREEMPTED | FLUSH_TLB;
	CHECK(vcpu_msr_set(vcpus[0], MSR_STEAL_TIME, (uintptr_t)&steal_page | 1), "not taken");
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void init_payload(uint64_t unused)
{
	(void)unused;
	x2apic_enable();
	if (rdmsr(X2APIC_ID) == 0) {
		while (!ready)
			cpu_pause();
		wrmsr(0x830, 1ull << 32 | ICR_ASSERT | 0x500);
		guest_sync(1);
		guest_done();
	}
	wrmsr(MSR_STEAL_TIME, (uintptr_t)&steal_page | 1);
	wrmsr(MSR_PV_EOI, (uintptr_t)&halted | 1);
	wrmsr(MSR_POLL, 0);
	ready = 1;
	for (;;)
		cpu_pause();
}

/* INIT forgets the pages; what a new kernel finds there is its own. */
static void init_resets(void)
{
	struct report report;

	machine_create(2, init_payload, 0);
	if (features_missing(PV_STEAL_TIME | PV_EOI | PV_POLL_CONTROL))
		return;
	vcpu_deadline_ms = 100;
	do {
		report = vcpu_wait(vcpus[1]);
	} while (report.kind == REPORT_TIMEOUT && !*GUEST_VAR(vm, ready));
	vcpu_deadline_ms = 8000;
	vcpu_sync(vcpus[0], 1);
	vcpu_deadline_ms = 100;
	report = vcpu_wait(vcpus[1]);
	vcpu_deadline_ms = 8000;
	CHECK_EQ(vcpu_msr_get(vcpus[1], MSR_STEAL_TIME), 0);
	CHECK_EQ(vcpu_msr_get(vcpus[1], MSR_PV_EOI), 0);
	CHECK_EQ(vcpu_msr_get(vcpus[1], MSR_POLL), 0);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "steal_time", steal_time },
	{ "preempted", preempted },
	{ "preempted_tlb_flush", tlb_flush },
	{ "not_preempted_while_halted", not_preempted },
	{ "steal_time_hostile", steal_hostile },
	{ "kick_cpu", unhalt },
	{ "kick_cpu_saved", unhalt_saved },
	{ "send_ipi", send_ipi },
	{ "send_ipi_32_bit", send_ipi_32 },
	{ "hypercalls_without_lapic", no_lapic },
	{ "hypercalls_of_ring_3", ring3 },
	{ "poll_control", poll_control },
	{ "halt_poll_limit", halt_poll_cap },
	{ "halt_polling", halt_polling },
	{ "kvmclock_ctrl", clock_stopped },
	{ "enforced_cpuid", enforced },
	{ "msrs_saved", msrs_saved },
	{ "restored", restored },
	{ "init_resets", init_resets },
};

TAP_MAIN(cases)
