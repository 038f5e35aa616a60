// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A vCPU's state through the GET and SET ioctls: what is set is what is got, and nonsense is
 * refused.
 */
#include <sys/syscall.h>

#include "guest.h"

#define MSR_EFER	0xc0000080
#define CR0_PG		0x80000000ul
#define CR4_PAE		0x20
#define EFER_LME	0x100
#define EFER_LMA	0x400
#define MAX_MSRS	512

static struct vm *vm;
static struct vcpu *vcpu;

static void machine_create(bool lapic)
{
	vm = vm_create(GUEST_RAM, lapic);
	vcpu = vcpu_create(vm, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void regs_payload(void)
{
	/* Whatever is in the registers goes to memory, in the order of struct kvm_regs. */
	__asm__ volatile("movq %rax, 0x9000; movq %rbx, 0x9008; movq %rcx, 0x9010\n\t"
			 "movq %rdx, 0x9018; movq %rsi, 0x9020; movq %rdi, 0x9028\n\t"
			 "movq %rsp, 0x9030; movq %rbp, 0x9038; movq %r8, 0x9040\n\t"
			 "movq %r9, 0x9048; movq %r10, 0x9050; movq %r11, 0x9058\n\t"
			 "movq %r12, 0x9060; movq %r13, 0x9068; movq %r14, 0x9070\n\t"
			 "movq %r15, 0x9078\n\t"
			 "notq %rax; notq %rbx; notq %r15; notq %rbp\n\t"
			 "outb %al, $0xe0");
}

static void regs(void)
{
	struct kvm_regs in, out;
	uint64_t *p = (uint64_t *)&in;
	size_t i;

	machine_create(false);
	vcpu_set_long(vcpu, regs_payload, 0);
	in = vcpu_regs(vcpu);
	for (i = 0; i < 16; i++)
		p[i] = 0x1111111111111111 * i + 0x8000000000000001;
	in.rip = (uintptr_t)regs_payload;
	in.rflags = 0x246;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_REGS, &in));
	out = vcpu_regs(vcpu);
	CHECK(!memcmp(&in, &out, sizeof(in)), "KVM_GET_REGS differs from KVM_SET_REGS");
	if (vcpu_finish(vcpu)) {
		for (i = 0; i < 16; i++)
			CHECK_EQ(((uint64_t *)(vm->ram + 0x9000))[i], p[i]);
		out = vcpu_regs(vcpu);
		CHECK_EQ(out.rax, ~in.rax);
		CHECK_EQ(out.rbx, ~in.rbx);
		CHECK_EQ(out.rbp, ~in.rbp);
		CHECK_EQ(out.r15, ~in.r15);
		CHECK_EQ(out.rcx, in.rcx);
	}
	/* Bit 1 of RFLAGS is always set. */
	in.rflags = 0;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_REGS, &in));
	CHECK_EQ(vcpu_regs(vcpu).rflags, 2);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_GET_REGS, 8), EFAULT);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_REGS, 8), EFAULT);
	machine_destroy();
}

static void sregs(void)
{
	struct kvm_sregs in, out;

	machine_create(false);
	/* The state after reset. */
	in = vcpu_sregs(vcpu);
	CHECK_EQ(in.cr0, 0x60000010);
	CHECK_EQ(in.cs.base, 0xffff0000);
	CHECK_EQ(in.cs.selector, 0xf000);
	CHECK_EQ(in.efer, 0);
	CHECK_EQ(vcpu_regs(vcpu).rip, 0xfff0);
	vcpu_set_long(vcpu, regs_payload, 0);
	in = vcpu_sregs(vcpu);
	in.cr2 = 0x123456789abc;
	in.cr8 = 7;
	in.fs.base = 0x7fff00001000;
	in.gs.base = 0xffff800000000000;
	in.gdt.limit = 0x77;
	in.idt.base = 0x5000;
	in.es.unusable = 1;
	in.es.present = 0;
	in.ldt.base = 0x6000;
	in.ldt.selector = 0x38;
	in.ldt.limit = 0xfff;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &in));
	out = vcpu_sregs(vcpu);
	CHECK_EQ(out.cr2, in.cr2);
	CHECK_EQ(out.cr8, in.cr8);
	CHECK_EQ(out.fs.base, in.fs.base);
	CHECK_EQ(out.gs.base, in.gs.base);
	CHECK_EQ(out.gdt.limit, in.gdt.limit);
	CHECK_EQ(out.idt.base, in.idt.base);
	CHECK_EQ(out.es.unusable, 1);
	CHECK_EQ(out.ldt.base, in.ldt.base);
	CHECK_EQ(out.ldt.selector, in.ldt.selector);
	CHECK_EQ(out.cr0, in.cr0);
	CHECK_EQ(out.cr3, in.cr3);
	CHECK_EQ(out.cr4, in.cr4);
	CHECK_EQ(out.efer, in.efer);
	CHECK_EQ(out.apic_base, in.apic_base);
	CHECK_EQ(out.cs.l, 1);
	CHECK_EQ(out.cs.limit, in.cs.limit);
	CHECK_EQ(out.ss.selector, in.ss.selector);
	CHECK_EQ(out.tr.base, in.tr.base);
	machine_destroy();
}

static void sregs_nonsense(void)
{
	struct kvm_sregs good, bad;

	machine_create(false);
	vcpu_set_long(vcpu, regs_payload, 0);
	good = vcpu_sregs(vcpu);
#define REFUSED(change) \
	do { \
		bad = good; \
		change; \
		CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_SREGS, &bad), EINVAL); \
	} while (0)
	REFUSED(bad.cr4 |= 1ul << 40);
	REFUSED(bad.cr4 |= 1ul << 15);
	REFUSED(bad.cr4 &= ~CR4_PAE);
	REFUSED(bad.efer &= ~EFER_LMA);
	REFUSED(bad.cr0 &= ~CR0_PG);
	REFUSED(bad.cr3 |= 1ul << 60);
	REFUSED(bad.apic_base |= 1ul << 60);
#undef REFUSED
	/* None of it was taken. */
	bad = vcpu_sregs(vcpu);
	CHECK(!memcmp(&good, &bad, sizeof(good)), "a refused KVM_SET_SREGS changed something");
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_SREGS, 8), EFAULT);
	machine_destroy();
}

static void fpu_payload(void)
{
	/* Out of its initial state, which a fresh vCPU's KVM_SET_FPU does not end on KVM. */
	__asm__ volatile("fld1; pcmpeqb %xmm0, %xmm0; outb %al, $0xe4");
	__asm__ volatile("movdqu %xmm0, 0x9000; movdqu %xmm15, 0x9010; fnstcw 0x9024\n\t"
			 "fstpt 0x9030\n\t"
			 "pcmpeqb %xmm3, %xmm3; fld1\n\t"
			 "outb %al, $0xe0");
}

static void fpu(void)
{
	static const uint8_t pi[10] = {0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40};
	struct kvm_fpu in = { 0 }, out;

	machine_create(false);
	vcpu_set_long(vcpu, fpu_payload, 0);
	vcpu_sync(vcpu, 0);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_FPU, &in));
	CHECK_EQ(in.fcw, 0x37f);
	CHECK_EQ(*(uint64_t *)in.xmm[0], ~0ul);
	memset(in.xmm[0], 0xa5, 16);
	memset(in.xmm[15], 0x5a, 16);
	memcpy(in.fpr[0], pi, sizeof(pi));
	in.fsw = 0;
	in.ftwx = 0x01;
	in.fcw = 0x27f;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_FPU, &in));
	memset(&out, 0xee, sizeof(out));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_FPU, &out));
	CHECK(!memcmp(in.xmm, out.xmm, sizeof(in.xmm)), "XMM registers differ");
	CHECK(!memcmp(in.fpr[0], out.fpr[0], 10), "ST(0) differs");
	CHECK_EQ(out.ftwx, 0x01);
	CHECK_EQ(out.fcw, 0x27f);
	if (vcpu_finish(vcpu)) {
		CHECK(!memcmp(vm->ram + 0x9000, in.xmm[0], 16), "XMM0 in the guest differs");
		CHECK(!memcmp(vm->ram + 0x9010, in.xmm[15], 16), "XMM15 in the guest differs");
		CHECK_EQ(*(uint16_t *)(vm->ram + 0x9024), 0x27f);
		CHECK(!memcmp(vm->ram + 0x9030, pi, 10), "ST(0) in the guest differs");
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_FPU, &out));
		CHECK_EQ(*(uint64_t *)out.xmm[3], ~0ul);
		CHECK_EQ(*(uint64_t *)out.xmm[0], 0xa5a5a5a5a5a5a5a5);
	}
	machine_destroy();
}

static void xsave(void)
{
	static struct kvm_xsave in, out;

	machine_create(false);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XSAVE, &in));
	memset(&in.region[40], 0xc3, 256);	/* XMM0-15 */
	in.region[6] = 0x1fa0;			/* MXCSR */
	in.region[128] |= 3;			/* XSTATE_BV: x87, SSE */
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_XSAVE, &in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XSAVE, &out));
	CHECK(!memcmp(&in.region[40], &out.region[40], 256), "XMM registers differ");
	CHECK_EQ(out.region[6], 0x1fa0);
	CHECK((out.region[128] & 3) == 3, "XSTATE_BV %#x", out.region[128]);
	in = out;
	in.region[6] = 0xffffffff;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XSAVE, &in), EINVAL);
	in = out;
	in.region[129] |= 0x40000000;		/* XSTATE_BV, a component that no CPU has */
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XSAVE, &in), EINVAL);
	in = out;
	in.region[140] = 1;			/* reserved in the header */
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XSAVE, &in), EINVAL);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XSAVE, &in));
	CHECK(!memcmp(&in, &out, sizeof(in)), "a refused KVM_SET_XSAVE changed something");
	machine_destroy();
}

static void xcrs(void)
{
	static const uint64_t bad[] = { 0, 2, 5, 1ul << 62, ~0ul };
	struct kvm_xcrs in = { .nr_xcrs = 1 }, out;
	struct kvm_cpuid_entry2 *e;
	size_t i;

	machine_create(false);
	e = vm_cpuid(vm, 1, 0);
	if (!e || !(e->ecx & 1u << 26)) {
		machine_destroy();
		SKIP("the CPU has no XSAVE");
	}
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XCRS, &out));
	CHECK_EQ(out.nr_xcrs, 1);
	CHECK_EQ(out.xcrs[0].value, 1);
	e = vm_cpuid(vm, 0xd, 0);
	in.xcrs[0].value = e ? e->eax & 7 : 3;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_XCRS, &in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XCRS, &out));
	CHECK_EQ(out.xcrs[0].value, in.xcrs[0].value);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		in.xcrs[0].value = bad[i];
		CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XCRS, &in), EINVAL);
	}
	in = out;
	in.nr_xcrs = KVM_MAX_XCRS + 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XCRS, &in), EINVAL);
	in = out;
	in.flags = 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_XCRS, &in), EINVAL);
	machine_destroy();
}

static void debugregs(void)
{
	struct kvm_debugregs in = {
		.db = { 0x1000, 0x2000, 0x7fffffffe000, 0xffff800000001000 },
		.dr6 = 0xffff0ff1, .dr7 = 0x402,
	}, out;

	machine_create(false);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &out));
	CHECK_EQ(out.dr6, 0xffff0ff0);
	CHECK_EQ(out.dr7, 0x400);
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &out));
	CHECK(!memcmp(in.db, out.db, sizeof(in.db)), "DR0-3 differ");
	CHECK_EQ(out.dr6, in.dr6);
	CHECK_EQ(out.dr7, in.dr7);
	in.dr7 = 1ul << 32;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &in), EINVAL);
	in.dr7 = 0x400;
	in.dr6 = 1ul << 32;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &in), EINVAL);
	in.dr6 = 0xffff0ff0;
	in.flags = 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &in), EINVAL);
	machine_destroy();
}

static struct kvm_msrs *msrs_alloc(void)
{
	return calloc(1, sizeof(struct kvm_msrs) + MAX_MSRS * sizeof(struct kvm_msr_entry));
}

/* All that are in the index list can be read, and what was read can be written. */
static void msrs_listed(void)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_MSRS * sizeof(uint32_t));
	struct kvm_msrs *all = msrs_alloc();
	uint32_t i;
	int n;

	machine_create(true);
	list->nmsrs = MAX_MSRS;
	CHECK_CALL(ioctl(vm->node, KVM_GET_MSR_INDEX_LIST, list));
	for (i = 0; i < list->nmsrs; i++)
		all->entries[i].index = list->indices[i];
	all->nmsrs = list->nmsrs;
	n = ioctl(vcpu->fd, KVM_GET_MSRS, all);
	CHECK(n == (int)all->nmsrs, "KVM_GET_MSRS: %d of %u, stopped at %#x", n, all->nmsrs,
	      n >= 0 && n < (int)all->nmsrs ? all->entries[n].index : 0);
	n = ioctl(vcpu->fd, KVM_SET_MSRS, all);
	CHECK(n == (int)all->nmsrs, "KVM_SET_MSRS: %d of %u, stopped at %#x with %#llx", n,
	      all->nmsrs, n >= 0 && n < (int)all->nmsrs ? all->entries[n].index : 0,
	      n >= 0 && n < (int)all->nmsrs ? all->entries[n].data : 0);
	free(list);
	free(all);
	machine_destroy();
}

static void msrs_values(void)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
	} rows[] = {
		{ 0x174, 0x10 }, { 0x175, 0x88001000 }, { 0x176, 0x81000000 },
		{ 0x277, 0x0007010600070106 }, { 0x2ff, 0xc06 }, { 0xc0000081, 0x0023001000000000 },
		{ 0xc0000082, 0xffffffff81800000 }, { 0xc0000083, 0xffffffff81800100 },
		{ 0xc0000084, 0x47700 }, { 0xc0000100, 0x7f0000001000 },
		{ 0xc0000101, 0xffff888000002000 }, { 0xc0000102, 0x7f0000003000 },
	};
	size_t i;

	machine_create(true);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		CHECK(vcpu_msr_set(vcpu, rows[i].msr, rows[i].value), "MSR %#x is not taken",
		      rows[i].msr);
		CHECK(vcpu_msr_get(vcpu, rows[i].msr) == rows[i].value,
		      "MSR %#x: got %#llx, wanted %#llx", rows[i].msr,
		      (unsigned long long)vcpu_msr_get(vcpu, rows[i].msr),
		      (unsigned long long)rows[i].value);
	}
	/* Not canonical; a memory type that is none. */
	CHECK(!vcpu_msr_set(vcpu, 0xc0000082, 1ul << 62),
	      "LSTAR takes an address that is not canonical");
	CHECK(!vcpu_msr_set(vcpu, 0x277, 2), "PAT takes type 2");
	CHECK(!vcpu_msr_set(vcpu, MSR_EFER, 1ul << 50), "EFER takes bit 50");
	machine_destroy();
}

static void msrs_partial(void)
{
	struct kvm_msrs *msrs = msrs_alloc();

	machine_create(true);
	msrs->nmsrs = 4;
	msrs->entries[0].index = 0x174;
	msrs->entries[1].index = 0x277;
	msrs->entries[2].index = 0x5678;	/* no such MSR */
	msrs->entries[3].index = 0x175;
	CHECK_EQ(ioctl(vcpu->fd, KVM_GET_MSRS, msrs), 2);
	msrs->entries[0].data = 0x18;
	msrs->entries[3].data = 0x1234;
	CHECK_EQ(ioctl(vcpu->fd, KVM_SET_MSRS, msrs), 2);
	CHECK_EQ(vcpu_msr_get(vcpu, 0x174), 0x18);
	CHECK_EQ(vcpu_msr_get(vcpu, 0x175), 0);
	msrs->nmsrs = 0;
	CHECK_EQ(ioctl(vcpu->fd, KVM_GET_MSRS, msrs), 0);
	msrs->nmsrs = ~0u;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_GET_MSRS, msrs), E2BIG);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_MSRS, msrs), E2BIG);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_GET_MSRS, 8), EFAULT);
	free(msrs);
	machine_destroy();
}

/* Leaves in which the vCPU's own state shows: OSXSAVE, OSPKE, the size of XSAVE. */
static bool leaf_is_live(uint32_t leaf)
{
	return leaf == 1 || leaf == 7 || leaf == 0xd || leaf == 0x40000001 || leaf == 0x80000001;
}

static void cpuid2_compare(const struct kvm_cpuid2 *got, const struct kvm_cpuid2 *want)
{
	const struct kvm_cpuid_entry2 *g, *w;
	uint32_t i;

	for (i = 0; i < want->nent; i++) {
		g = &got->entries[i];
		w = &want->entries[i];
		CHECK(g->function == w->function && g->index == w->index &&
			      (leaf_is_live(w->function) || (g->eax == w->eax && g->ebx == w->ebx &&
							     g->ecx == w->ecx && g->edx == w->edx)),
		      "leaf %#x.%u: got %#x %#x %#x %#x, wanted %#x %#x %#x %#x", w->function,
		      w->index, g->eax, g->ebx, g->ecx, g->edx, w->eax, w->ebx, w->ecx, w->edx);
	}
}

static void cpuid2(void)
{
	size_t size = sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *got = calloc(1, size);

	machine_create(false);
	got->nent = 256;
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_CPUID2, got));
	cpuid2_compare(got, vm->cpuid);
	got->nent = 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_GET_CPUID2, got), E2BIG);
	got->nent = 100000;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_CPUID2, got), E2BIG);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_CPUID2, 8), EFAULT);
	free(got);
	machine_destroy();
}

static void mp_state(void)
{
	struct kvm_mp_state state = { 0 };

	machine_create(false);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_MP_STATE, &state));
	CHECK_EQ(state.mp_state, KVM_MP_STATE_RUNNABLE);
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state));
	/* Without a local APIC in the kernel there is no other. */
	state.mp_state = KVM_MP_STATE_INIT_RECEIVED;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state), EINVAL);
	machine_destroy();

	machine_create(true);
	state.mp_state = KVM_MP_STATE_HALTED;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_MP_STATE, &state));
	CHECK_EQ(state.mp_state, KVM_MP_STATE_HALTED);
	state.mp_state = 0x7777;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state), EINVAL);
	vcpu_destroy(vcpu);
	vcpu = vcpu_create(vm, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_MP_STATE, &state));
	CHECK_EQ(state.mp_state, KVM_MP_STATE_UNINITIALIZED);
	machine_destroy();
}

static void events_payload(void)
{
	guest_sync(0);
	guest_done();
}

static void vcpu_events(void)
{
	struct kvm_vcpu_events in, out;

	machine_create(false);
	vcpu_set_long(vcpu, events_payload, 0);
	memset(&in, 0xee, sizeof(in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &in));
	CHECK_EQ(in.exception.injected, 0);
	CHECK_EQ(in.interrupt.injected, 0);
	CHECK_EQ(in.nmi.injected | in.nmi.pending | in.nmi.masked, 0);
	in.nmi.masked = 1;
	in.nmi.pending = 1;
	in.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	in.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &out));
	CHECK_EQ(out.nmi.masked, 1);
	CHECK_EQ(out.nmi.pending, 1);
	CHECK(out.interrupt.shadow, "the interrupt shadow is lost");
	/* #UD into the guest, which reports it as a trap. */
	memset(&in, 0, sizeof(in));
	in.exception.injected = 1;
	in.exception.nr = TRAP_UD;
	in.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &in));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &out));
	CHECK_EQ(out.exception.injected, 1);
	CHECK_EQ(out.exception.nr, TRAP_UD);
	in.flags = ~0u;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &in), EINVAL);
	in.flags = 0;
	in.exception.nr = 32;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &in), EINVAL);
	in.exception.nr = TRAP_NMI;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &in), EINVAL);
	machine_destroy();
}

static void injected_payload(void)
{
	guest_sync(GUEST_TRY("outb %%al, %w0", : : "d"(0x510), "a"(0) : "r11", "memory"));
	guest_sync(guest_caught.error);
	guest_done();
}

/* An exception that userspace injects goes to the guest's handler, with its error code. */
static void exception_injected(void)
{
	struct kvm_vcpu_events events = {
		.exception = {
			.injected = 1, .nr = TRAP_GP, .has_error_code = 1, .error_code = 0x1230,
		},
	};

	machine_create(false);
	vcpu_set_long(vcpu, injected_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_IO);
	/* The port access ends first, as in any client that sets state. */
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	vcpu->run->immediate_exit = 0;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events));
	vcpu_sync(vcpu, TRAP_GP);
	vcpu_sync(vcpu, 0x1230);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* State taken out of one vCPU and put into another goes on there. */
static void moved_payload(void)
{
	uint64_t i, sum = 0;

	wrmsr(0xc0000102, 0x1234000);
	for (i = 0; i < 10; i++) {
		sum += i;
		guest_sync(sum);
	}
	guest_sync(rdmsr(0xc0000102));
	guest_done();
}

static void moved(void)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	uint64_t i, sum = 0;

	machine_create(false);
	vcpu_set_long(vcpu, moved_payload, 0);
	for (i = 0; i < 5; i++)
		vcpu_sync(vcpu, sum += i);
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	r = vcpu_regs(vcpu);
	s = vcpu_sregs(vcpu);
	CHECK_EQ(vcpu_msr_get(vcpu, 0xc0000102), 0x1234000);
	vcpu_destroy(vcpu);
	vcpu = vcpu_create(vm, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &s));
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_REGS, &r));
	CHECK(vcpu_msr_set(vcpu, 0xc0000102, 0x1234000), "KERNEL_GS_BASE is not taken");
	for (; i < 10; i++)
		vcpu_sync(vcpu, sum += i);
	vcpu_sync(vcpu, 0x1234000);
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "regs", regs },
	{ "sregs", sregs },
	{ "sregs_nonsense", sregs_nonsense },
	{ "fpu", fpu },
	{ "xsave", xsave },
	{ "xcrs", xcrs },
	{ "debugregs", debugregs },
	{ "msrs_listed", msrs_listed },
	{ "msrs_values", msrs_values },
	{ "msrs_partial", msrs_partial },
	{ "cpuid2", cpuid2 },
	{ "mp_state", mp_state },
	{ "vcpu_events", vcpu_events },
	{ "exception_injected", exception_injected },
	{ "state_moved", moved },
};

TAP_MAIN(cases)
