// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * CPUID and MSRs as the guest sees them, and kvmclock.
 */
#include <time.h>

#include "guest.h"

#define MSR_TSC		0x10
#define MSR_APIC_BASE	0x1b
#define MSR_PAT		0x277
#define MSR_EFER	0xc0000080
#define MSR_STAR	0xc0000081
#define MSR_LSTAR	0xc0000082
#define MSR_CSTAR	0xc0000083
#define MSR_SFMASK	0xc0000084
#define MSR_FS_BASE	0xc0000100
#define MSR_GS_BASE	0xc0000101
#define MSR_KERNEL_GS	0xc0000102
#define MSR_TSC_AUX	0xc0000103
#define MSR_WALL_CLOCK	0x4b564d00
#define MSR_SYSTEM_TIME	0x4b564d01
#define MSR_UNKNOWN	0x5678

#define CLOCK_PAGE	(GUEST_FREE + 0x1000)
#define WALL_PAGE	(GUEST_FREE + 0x3000)

struct pvclock {
	uint32_t version, pad;
	uint64_t tsc, ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad2[2];
};

static struct vm *vm;
static struct vcpu *vcpu;

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

/* ---- CPUID ---- */

static volatile struct {
	uint32_t leaf, index, out[4];
} asked;

static void cpuid_payload(void)
{
	uint32_t out[4], i;

	for (;;) {
		cpuid(asked.leaf, asked.index, out);
		for (i = 0; i < 4; i++)
			asked.out[i] = out[i];
		guest_sync(asked.leaf);
	}
}

static bool cpuid_ask(uint32_t leaf, uint32_t index, uint32_t out[4])
{
	__typeof__(asked) *at = GUEST_VAR(vm, asked);

	at->leaf = leaf;
	at->index = index;
	if (!vcpu_sync(vcpu, leaf))
		return false;
	memcpy(out, (const void *)at->out, 16);
	return true;
}

/* Bits that follow the vCPU's state: APIC, OSXSAVE; OSPKE; the size of the XSAVE area. */
static bool leaf_is_live(const struct kvm_cpuid_entry2 *e)
{
	return e->function == 1 || e->function == 7 || e->function == 0xd ||
	       e->function == 0x80000001 || e->function == 0x40000001;
}

static void cpuid_as_set(void)
{
	struct kvm_cpuid_entry2 *e;
	uint32_t out[4], i;

	machine_create(cpuid_payload, 0);
	for (i = 0; i < vm->cpuid->nent; i++) {
		e = &vm->cpuid->entries[i];
		if (leaf_is_live(e) || !cpuid_ask(e->function, e->index, out))
			continue;
		CHECK(out[0] == e->eax && out[1] == e->ebx && out[2] == e->ecx && out[3] == e->edx,
		      "leaf %#x.%u: guest sees %#x %#x %#x %#x, set was %#x %#x %#x %#x",
		      e->function, e->index, out[0], out[1], out[2], out[3], e->eax, e->ebx, e->ecx,
		      e->edx);
	}
	machine_destroy();
}

static void cpuid_changed(void)
{
	struct kvm_cpuid_entry2 *e;
	uint32_t out[4];

	machine_create(cpuid_payload, 0);
	e = vm_cpuid(vm, 0x80000002, 0);
	if (!CHECK(e, "there is no leaf 0x80000002"))
		return;
	e->eax = 0x74616f4d;
	e->ebx = 0x12345678;
	e = vm_cpuid(vm, 0x40000000, 0);
	e->eax = 0x40000001;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_CPUID2, vm->cpuid));
	cpuid_ask(0x80000002, 0, out);
	CHECK_EQ(out[0], 0x74616f4d);
	CHECK_EQ(out[1], 0x12345678);
	cpuid_ask(0x40000000, 0, out);
	CHECK(!memcmp(&out[1], "KVMKVMKVM\0\0\0", 12), "the signature is %.12s", (char *)&out[1]);
	/* A leaf within the range that is not there is all zero. */
	cpuid_ask(0x40000099, 0, out);
	cpuid_ask(0x8fffffff, 0, out);
	machine_destroy();
}

static void cpuid_live_payload(void)
{
	uint32_t out[4];

	cpuid(1, 0, out);
	GUEST_EQ(out[2] >> 27 & 1, 0);		/* OSXSAVE follows CR4 */
	write_cr4(read_cr4() | 1ul << 18);
	cpuid(1, 0, out);
	GUEST_EQ(out[2] >> 27 & 1, 1);
	__asm__ volatile("xsetbv" : : "a"(3), "d"(0), "c"(0) : "memory");
	cpuid(0xd, 0, out);
	GUEST_EQ(out[1], 576);
	GUEST_EQ(GUEST_TRY("xsetbv", : : "a"(2), "d"(0), "c"(0) : "r11", "memory"), TRAP_GP);
	GUEST_EQ(GUEST_TRY("xsetbv", : : "a"(3), "d"(0), "c"(1) : "r11", "memory"), TRAP_GP);
	guest_done();
}

static void cpuid_live(void)
{
	machine_create(cpuid_live_payload, 0);
	if (!(vm_cpuid(vm, 1, 0)->ecx & 1u << 26)) {
		machine_destroy();
		SKIP("the CPU has no XSAVE");
	}
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- MSRs ---- */

static void msr_payload(void)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} rows[] = {
		{ MSR_STAR, 0x0023001000000000 }, { MSR_LSTAR, 0xffffffff81800000 },
		{ MSR_CSTAR, 0xffffffff81800100 }, { MSR_SFMASK, 0x47700 },
		{ MSR_FS_BASE, 0x7f0000001000 }, { MSR_GS_BASE, 0xffff888000002000 },
		{ MSR_KERNEL_GS, 0x7f0000003000 }, { MSR_PAT, 0x0007010600070106 },
		{ 0x174, 0x10 }, { 0x175, 0x81001000 }, { 0x176, 0x81002000 },
	};
	uint64_t value;
	uint32_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		GUEST_EQ(wrmsr_try(rows[i].msr, rows[i].value), TRAP_NONE);
		GUEST_EQ(rdmsr_try(rows[i].msr, &value), TRAP_NONE);
		GUEST_EQ(value, rows[i].value);
	}
	guest_sync(1);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		GUEST_EQ(rdmsr(rows[i].msr), rows[i].value);
	GUEST_EQ(rdmsr_try(MSR_UNKNOWN, &value), TRAP_GP);
	GUEST_EQ(guest_caught.error, 0);
	GUEST_EQ(wrmsr_try(MSR_UNKNOWN, 1), TRAP_GP);
	GUEST_EQ(rdmsr_try(0x40001234, &value), TRAP_GP);
	/* Values that the architecture refuses. */
	GUEST_EQ(wrmsr_try(MSR_PAT, 2), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_EFER, rdmsr(MSR_EFER) | 1ul << 40), TRAP_GP);
	GUEST_EQ(rdmsr(MSR_LSTAR), 0xffffffff81800000);
	/* LME cannot change under paging. */
	GUEST_EQ(wrmsr_try(MSR_EFER, rdmsr(MSR_EFER) & ~0x100ul), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_EFER, rdmsr(MSR_EFER)), TRAP_NONE);
	GUEST_EQ(rdmsr(MSR_EFER), 0xd01);
	guest_done();
}

static void msrs(void)
{
	machine_create(msr_payload, 0);
	vcpu_sync(vcpu, 1);
	CHECK_EQ(vcpu_msr_get(vcpu, MSR_LSTAR), 0xffffffff81800000);
	CHECK_EQ(vcpu_msr_get(vcpu, MSR_KERNEL_GS), 0x7f0000003000);
	CHECK_EQ(vcpu_msr_get(vcpu, MSR_STAR), 0x0023001000000000);
	CHECK_EQ(vcpu_sregs(vcpu).gs.base, 0xffff888000002000);
	CHECK_EQ(vcpu_sregs(vcpu).fs.base, 0x7f0000001000);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void tsc_payload(void)
{
	uint64_t a, b, vector, value;
	uint32_t aux;

	a = rdtsc();
	b = rdmsr(MSR_TSC);
	GUEST_CHECK(b >= a);
	guest_sync(1);
	GUEST_CHECK(rdtsc() > b);
	wrmsr(MSR_TSC, 0x1000000000000);
	a = rdtsc();
	GUEST_CHECK(a >= 0x1000000000000 && a < 0x1010000000000);
	vector = wrmsr_try(MSR_TSC_AUX, 0x1234);
	if (vector == TRAP_NONE) {
		GUEST_EQ(rdmsr_try(MSR_TSC_AUX, &value), TRAP_NONE);
		GUEST_EQ(value, 0x1234);
		__asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx", "memory");
		GUEST_EQ(aux, 0x1234);
		guest_sync(2);
		__asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx", "memory");
		GUEST_EQ(aux, 0x1234);
	} else {
		guest_sync(2);
	}
	guest_done();
}

static void tsc(void)
{
	uint64_t a, b;

	machine_create(tsc_payload, 0);
	vcpu_sync(vcpu, 1);
	vcpu_sync(vcpu, 2);
	a = vcpu_msr_get(vcpu, MSR_TSC);
	b = vcpu_msr_get(vcpu, MSR_TSC);
	CHECK(b >= a && a >= 0x1000000000000, "TSC reads %#llx, then %#llx", (unsigned long long)a,
	      (unsigned long long)b);
	/* TSC_AUX of the host, as getcpu() by RDTSCP has it, is the host's again. */
	vcpu_finish(vcpu);
	machine_destroy();
}

static void cr_payload(void)
{
	GUEST_EQ(GUEST_TRY("movq %0, %%cr4", : : "r"(read_cr4() | 1ul << 15) : "r11", "memory"),
		 TRAP_GP);
	GUEST_EQ(GUEST_TRY("movq %0, %%cr4",
			   :
			   : "r"(read_cr4() & ~0x20ul)
			   : "r11", "memory"),
		 TRAP_GP);
	/* PG without PE; NW without CD. */
	GUEST_EQ(GUEST_TRY("movq %0, %%cr0", : : "r"(0x80000030ul) : "r11", "memory"), TRAP_GP);
	GUEST_EQ(GUEST_TRY("movq %0, %%cr0", : : "r"(0xa0010033ul) : "r11", "memory"), TRAP_GP);
	/* CD and back, TS and back: no harm. */
	__asm__ volatile(
		"movq %%cr0, %%rax; btsq $30, %%rax; movq %%rax, %%cr0; btrq $30, %%rax;\n\t"
		"btsq $3, %%rax; movq %%rax, %%cr0; clts"
		:
		:
		: "rax", "memory");
	guest_done();
}

static void control_registers(void)
{
	machine_create(cr_payload, 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

#define CR0_TS		8ul
#define CR0_CD_NW	0x60000000ul

static uint64_t read_cr0(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr0, %0" : "=r"(value) : : "memory");
	return value;
}

static void write_cr0(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr0" : : "r"(value) : "memory");
}

/* The caches' bits stay as they are written, by whichever instruction CR0 is changed or read. */
static void cr0_caches_payload(void)
{
	uint64_t cr0 = read_cr0(), status = 0, cr3, cr8;

	GUEST_EQ(cr0 & CR0_CD_NW, CR0_CD_NW);
	/* The other registers are what they are. */
	GUEST_EQ(read_cr4() & 0x20, 0x20);
	__asm__ volatile("movq %%cr3, %0; movq %0, %%cr3" : "=r"(cr3) : : "memory");
	GUEST_EQ(cr3, GUEST_TABLES);
	__asm__ volatile("movq %0, %%cr2" : : "r"(0x1234567ul) : "memory");
	GUEST_EQ(read_cr2(), 0x1234567);
	__asm__ volatile("movq %1, %%cr8; movq %%cr8, %0" : "=r"(cr8) : "r"(5ul) : "memory");
	GUEST_EQ(cr8, 5);
	write_cr4(read_cr4() | 8);
	GUEST_EQ(read_cr4() & 8, 8);
	write_cr0(cr0 | CR0_TS);
	GUEST_EQ(read_cr0(), cr0 | CR0_TS);
	__asm__ volatile("clts" : : : "memory");
	GUEST_EQ(read_cr0(), cr0);
	__asm__ volatile("smsw %0" : "=r"(status));
	GUEST_EQ(status & 0xffff, cr0 & 0xffff);
	__asm__ volatile("lmsw %w0" : : "r"(cr0 | CR0_TS) : "memory");
	GUEST_EQ(read_cr0(), cr0 | CR0_TS);
	write_cr0(cr0 & ~CR0_CD_NW);
	GUEST_EQ(read_cr0(), cr0 & ~CR0_CD_NW);
	guest_sync(1);
	write_cr0(cr0);
	cpuid(0, 0, (uint32_t[4]){ 0 });
	GUEST_EQ(read_cr0(), cr0);
	guest_done();
}

static void cr0_caches(void)
{
	struct kvm_sregs sregs;

	machine_create(cr0_caches_payload, 0);
	sregs = vcpu_sregs(vcpu);
	sregs.cr0 |= CR0_CD_NW;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	vcpu_sync(vcpu, 1);
	CHECK_EQ(vcpu_sregs(vcpu).cr0 & CR0_CD_NW, 0);
	vcpu_finish(vcpu);
	CHECK_EQ(vcpu_sregs(vcpu).cr0 & CR0_CD_NW, CR0_CD_NW);
	machine_destroy();
}

static void instructions_payload(void)
{
	GUEST_EQ(GUEST_TRY("vmmcall", : "+a"((uint64_t){ 0x77 }) : : "r11", "memory"), TRAP_NONE);
	GUEST_EQ(GUEST_TRY("invd", : : : "r11", "memory"), TRAP_NONE);
	GUEST_EQ(GUEST_TRY("wbinvd", : : : "r11", "memory"), TRAP_NONE);
	GUEST_EQ(GUEST_TRY("invlpg 0x9000", : : : "r11", "memory"), TRAP_NONE);
	GUEST_EQ(GUEST_TRY("pause", : : : "r11", "memory"), TRAP_NONE);
	/* No nested virtualization where CPUID has none. */
	guest_done();
}

static void instructions(void)
{
	machine_create(instructions_payload, 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* Without SVM in its CPUID the guest has none: not by EFER, not by the instructions. */
static void no_svm_payload(void)
{
	GUEST_EQ(wrmsr_try(MSR_EFER, rdmsr(MSR_EFER) | 1ul << 12), TRAP_GP);
	GUEST_EQ(GUEST_TRY("vmrun", : : "a"(0x9000) : "r11", "memory"), TRAP_UD);
	GUEST_EQ(GUEST_TRY("vmsave", : : "a"(0x9000) : "r11", "memory"), TRAP_UD);
	GUEST_EQ(GUEST_TRY("vmload", : : "a"(0x9000) : "r11", "memory"), TRAP_UD);
	GUEST_EQ(GUEST_TRY("clgi", : : : "r11", "memory"), TRAP_UD);
	GUEST_EQ(GUEST_TRY("stgi", : : : "r11", "memory"), TRAP_UD);
	guest_done();
}

static void no_svm(void)
{
	struct kvm_cpuid_entry2 *e;

	machine_create(no_svm_payload, 0);
	e = vm_cpuid(vm, 0x80000001, 0);
	e->ecx &= ~4u;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_CPUID2, vm->cpuid));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- kvmclock ---- */

static uint64_t clock_read(volatile struct pvclock *c)
{
	uint32_t version;
	uint64_t ns, delta;

	do {
		version = c->version;
		__asm__ volatile("lfence" : : : "memory");
		delta = rdtsc() - c->tsc;
		if (c->shift >= 0)
			delta <<= c->shift;
		else
			delta >>= -c->shift;
		ns = c->ns + (uint64_t)(((unsigned __int128)delta * c->mul) >> 32);
		__asm__ volatile("lfence" : : : "memory");
	} while (version & 1 || version != c->version);
	return ns;
}

static void clock_payload(uint64_t id)
{
	volatile struct pvclock *c = (void *)(CLOCK_PAGE + id * 64);

	wrmsr(MSR_SYSTEM_TIME, (uintptr_t)c | 1);
	GUEST_EQ(rdmsr(MSR_SYSTEM_TIME), (uintptr_t)c | 1);
	for (;;)
		guest_sync2(id, clock_read(c));
}

static uint64_t clock_ask(struct vcpu *v)
{
	struct report report = vcpu_wait(v);

	if (report.kind != REPORT_SYNC)
		vcpu_explain(v, &report, "the clock");
	return report.value2;
}

static void clock_alone(void)
{
	uint64_t before, after, host;
	int64_t error;

	machine_create(clock_payload, 0);
	before = clock_ask(vcpu);
	host = clock_ns();
	usleep(500000);
	after = clock_ask(vcpu);
	host = clock_ns() - host;
	error = (int64_t)(after - before) - (int64_t)host;
	/* 2% beside what an exit and its scheduling take. */
	CHECK(error < (int64_t)host / 50 + 20000000 && error > -(int64_t)host / 50 - 20000000,
	      "the guest's clock went %llu us in the host's %llu us",
	      (unsigned long long)(after - before) / 1000, (unsigned long long)host / 1000);
	machine_destroy();
}

/* Read in turn on two vCPUs, time never goes back. */
static void clock_two(void)
{
	struct vcpu *other;
	uint64_t last = 0, now;
	int64_t worst = 0;
	int i;

	machine_create(clock_payload, 0);
	other = vcpu_create(vm, 1);
	vcpu_set_long(other, clock_payload, 1);
	for (i = 0; i < 400 && !tap_failed(); i++) {
		now = clock_ask(i & 1 ? other : vcpu);
		if ((int64_t)(now - last) < worst)
			worst = now - last;
		last = now;
	}
	CHECK(worst == 0, "the clock went back by %lld ns", (long long)-worst);
	vcpu_destroy(other);
	machine_destroy();
}

static void wall_payload(void)
{
	volatile struct {
		uint32_t version, sec, nsec;
	} *wall = (void *)WALL_PAGE;

	wrmsr(MSR_WALL_CLOCK, WALL_PAGE);
	wrmsr(MSR_SYSTEM_TIME, CLOCK_PAGE | 1);
	GUEST_EQ(wall->version & 1, 0);
	guest_sync2(wall->sec, clock_read((void *)CLOCK_PAGE));
	guest_done();
}

/* Wall clock at boot and time since then make the host's time of day. */
static void wall_clock(void)
{
	struct timespec real;
	struct report report;
	int64_t sum;

	machine_create(wall_payload, 0);
	report = vcpu_wait(vcpu);
	if (report.kind != REPORT_SYNC)
		vcpu_explain(vcpu, &report, "the wall clock");
	clock_gettime(CLOCK_REALTIME, &real);
	sum = report.value + report.value2 / 1000000000;
	CHECK(sum >= real.tv_sec - 3 && sum <= real.tv_sec + 3, "guest %lld s, host %lld s",
	      (long long)sum, (long long)real.tv_sec);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "cpuid_as_set", cpuid_as_set },
	{ "cpuid_changed", cpuid_changed },
	{ "cpuid_live_bits", cpuid_live },
	{ "msrs", msrs },
	{ "tsc", tsc },
	{ "control_registers", control_registers },
	{ "cr0_caches", cr0_caches },
	{ "instructions", instructions },
	{ "no_svm", no_svm },
	{ "clock", clock_alone },
	{ "clock_two_vcpus", clock_two },
	{ "wall_clock", wall_clock },
};

TAP_MAIN(cases)
