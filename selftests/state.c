// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * More of a vCPU's state: the second forms of SREGS and XSAVE, events with payloads, registers that
 * go through kvm_run, attributes, counters, quirks.
 */
#include "guest.h"

#define CR0_PG		0x80000000ul
#define CR4_PAE		0x20
#define DR6_RESET	0xffff0ff0
#define MSR_MISC_ENABLE	0x1a0
#define MISC_ENABLE_MWAIT (1ul << 18)
#define CPUID_MWAIT	8
#define PDPT		GUEST_FREE

static struct vm *vm;
static struct vcpu *vcpu;

static void machine_create(bool lapic, void *payload)
{
	vm = vm_create(GUEST_RAM, lapic);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static int cap_enable(uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

static void done_payload(void)
{
	guest_done();
}

static void sregs2(void)
{
	uint64_t pdpt[4] = { 0x100001, 0x200001, 0, 0x300001 };
	struct kvm_sregs sregs;
	struct kvm_sregs2 s, again;

	machine_create(false, done_payload);
	sregs = vcpu_sregs(vcpu);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS2, &s));
	CHECK(!memcmp(&s, &sregs, offsetof(struct kvm_sregs2, flags)), "SREGS2 is not SREGS");
	CHECK_EQ(s.flags, 0);
	s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_SREGS2, &s), EINVAL);
	s.flags = 2;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_SREGS2, &s), EINVAL);
	/* PAE paging, where the four entries are part of the state. */
	vm_copy(vm, PDPT, pdpt, sizeof(pdpt));
	s.flags = 0;
	s.cs.l = 0;
	s.efer = 0;
	s.cr3 = PDPT;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS2, &s));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS2, &again));
	CHECK_EQ(again.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	CHECK(!memcmp(again.pdptrs, pdpt, sizeof(pdpt)), "PDPTRs differ");
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS2, &again));
	machine_destroy();
}

static void xsave2(void)
{
	long size = node_has(KVM_CAP_XSAVE2);
	struct kvm_xsave *one, *two;

	machine_create(false, done_payload);
	if (CHECK(size >= 4096, "KVM_CAP_XSAVE2 %ld", size)) {
		one = calloc(1, 4096);
		two = calloc(1, size);
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XSAVE, one));
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_XSAVE2, two));
		CHECK(!memcmp(one, two, 4096), "XSAVE2 is not XSAVE");
		CHECK_CALL(ioctl(vcpu->fd, KVM_SET_XSAVE, two));
		free(one);
		free(two);
	}
	machine_destroy();
}

static volatile uint64_t seen_cr2, seen_dr6, seen_error;

static void pf_handler(struct trap_frame *frame)
{
	seen_cr2 = read_cr2();
	seen_error = frame->error;
}

static void db_handler(struct trap_frame *frame)
{
	uint64_t dr6;

	(void)frame;
	__asm__ volatile("movq %%dr6, %0" : "=r"(dr6));
	seen_dr6 = dr6;
}

static void payload_payload(void)
{
	guest_handlers[TRAP_PF] = pf_handler;
	guest_handlers[TRAP_DB] = db_handler;
	guest_sync(1);
	GUEST_EQ(seen_cr2, 0x123456000);
	GUEST_EQ(seen_error, 4);
	guest_sync(2);
	GUEST_EQ(seen_dr6, DR6_RESET | 2);
	guest_done();
}

static int pending_set(uint8_t vector, bool has_error, uint32_t error, uint64_t payload)
{
	struct kvm_vcpu_events ev = {
		.exception = { .nr = vector, .pending = 1, .has_error_code = has_error,
			       .error_code = error },
		.flags = KVM_VCPUEVENT_VALID_PAYLOAD,
		.exception_has_payload = 1, .exception_payload = payload,
	};

	return ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &ev);
}

/* An exception that is pending has not written CR2 or DR6 yet: that goes with it. */
static void exception_payload(void)
{
	struct kvm_vcpu_events ev;

	machine_create(false, payload_payload);
	CHECK_ERRNO(pending_set(TRAP_PF, true, 4, 0), EINVAL);
	CHECK_CALL(cap_enable(KVM_CAP_EXCEPTION_PAYLOAD, 1));
	vcpu_sync(vcpu, 1);
	/* At a report the OUT still has to be completed: do that. */
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	vcpu->run->immediate_exit = 0;
	CHECK_CALL(pending_set(TRAP_PF, true, 4, 0x123456000));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &ev));
	CHECK(ev.flags & KVM_VCPUEVENT_VALID_PAYLOAD, "flags %#x", ev.flags);
	CHECK_EQ(ev.exception.pending, 1);
	CHECK_EQ(ev.exception.injected, 0);
	CHECK_EQ(ev.exception_has_payload, 1);
	CHECK_EQ(ev.exception_payload, 0x123456000);
	CHECK_EQ(vcpu_sregs(vcpu).cr2, 0);
	vcpu_sync(vcpu, 2);
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	vcpu->run->immediate_exit = 0;
	CHECK_CALL(pending_set(TRAP_DB, false, 0, 2));
	vcpu_finish(vcpu);
	CHECK_ERRNO(pending_set(2, false, 0, 0), EINVAL);
	CHECK_ERRNO(pending_set(32, false, 0, 0), EINVAL);
	machine_destroy();
}

static void triple_fault_payload(void)
{
	guest_sync(1);
	guest_done();
}

static void triple_fault(void)
{
	struct kvm_vcpu_events ev = { .flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT };

	machine_create(false, triple_fault_payload);
	vcpu_sync(vcpu, 1);
	ev.triple_fault.pending = 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &ev), EINVAL);
	CHECK_CALL(cap_enable(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1));
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &ev));
	memset(&ev, 0, sizeof(ev));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &ev));
	CHECK(ev.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT, "flags %#x", ev.flags);
	CHECK_EQ(ev.triple_fault.pending, 1);
	vcpu_exit(vcpu, KVM_EXIT_SHUTDOWN);
	machine_destroy();
}

static void sync_payload(void)
{
	uint64_t value = 0;

	for (;;) {
		__asm__ volatile("outb %%al, $0xe4" : "+S"(value) : "D"(7ul), "a"(0) : "memory");
		value++;
	}
}

static void sync_regs(void)
{
	struct kvm_run *run;
	struct kvm_regs regs;

	machine_create(false, sync_payload);
	run = vcpu->run;
	CHECK_EQ(node_has(KVM_CAP_SYNC_REGS), KVM_SYNC_X86_VALID_FIELDS);
	run->kvm_valid_regs = 1ull << 40;
	CHECK_EQ(vcpu_run(vcpu), -EINVAL);
	run->kvm_valid_regs = 0;
	run->kvm_dirty_regs = 1ull << 40 | KVM_SYNC_X86_REGS;
	CHECK_EQ(vcpu_run(vcpu), -EINVAL);
	run->kvm_dirty_regs = 0;
	run->s.regs.regs.rsi = 0xabab;
	CHECK_EQ(vcpu_run_on(vcpu), 0);
	CHECK_EQ(run->s.regs.regs.rsi, 0xabab);
	run->kvm_valid_regs = KVM_SYNC_X86_VALID_FIELDS;
	CHECK_EQ(vcpu_run_on(vcpu), 0);
	regs = vcpu_regs(vcpu);
	CHECK_EQ(regs.rsi, 1);
	CHECK(!memcmp(&run->s.regs.regs, &regs, sizeof(regs)), "s.regs differs");
	CHECK_EQ(run->s.regs.sregs.cr3, vcpu_sregs(vcpu).cr3);
	run->s.regs.regs.rsi = 0x1000;
	run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	CHECK_EQ(vcpu_run_on(vcpu), 0);
	CHECK_EQ(run->kvm_dirty_regs, 0);
	CHECK_EQ(run->s.regs.regs.rsi, 0x1001);
	run->s.regs.sregs.cr4 = ~0ull;
	run->kvm_dirty_regs = KVM_SYNC_X86_SREGS;
	CHECK_EQ(vcpu_run(vcpu), -EINVAL);
	machine_destroy();
}

static void tsc_payload(void)
{
	for (;;)
		guest_sync(rdtsc());
}

static void tsc_offset(void)
{
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
	uint64_t offset = 0, got = 0, before, after;
	struct report report;
	size_t i;
	static const uint64_t offsets[] = { 0, 1ull << 40, -(1ull << 30) };

	machine_create(false, tsc_payload);
	attr.addr = (uintptr_t)&offset;
	CHECK_CALL(ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attr));
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		offset = offsets[i];
		attr.addr = (uintptr_t)&offset;
		CHECK_CALL(ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr));
		attr.addr = (uintptr_t)&got;
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr));
		CHECK_EQ(got, offset);
		before = rdtsc();
		report = vcpu_wait(vcpu);
		after = rdtsc();
		CHECK(report.value - offset >= before && report.value - offset <= after,
		      "guest %#llx, offset %#llx, host %#llx to %#llx",
		      (unsigned long long)report.value, (unsigned long long)offset,
		      (unsigned long long)before, (unsigned long long)after);
	}
	attr.addr = 8;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr), EFAULT);
	attr.attr = 1;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attr), ENXIO);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr), ENXIO);
	machine_destroy();
}

static void tsc_khz(void)
{
	long khz;

	machine_create(false, done_payload);
	khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	CHECK(khz > 0, "%ld kHz", khz);
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_TSC_KHZ, 0));
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_TSC_KHZ, khz));
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_TSC_KHZ, khz + khz / 10000));
	if (!node_has(KVM_CAP_TSC_CONTROL))
		CHECK(ioctl(vcpu->fd, KVM_SET_TSC_KHZ, khz / 2) < 0, "half the rate");
	machine_destroy();
}

static void system_attributes(void)
{
	uint64_t features = 0;
	struct kvm_device_attr attr = { .attr = KVM_X86_XCOMP_GUEST_SUPP };

	machine_create(false, done_payload);
	attr.addr = (uintptr_t)&features;
	CHECK_CALL(ioctl(vm->node, KVM_HAS_DEVICE_ATTR, &attr));
	CHECK_CALL(ioctl(vm->node, KVM_GET_DEVICE_ATTR, &attr));
	CHECK_EQ(features, vm_cpuid(vm, 0xd, 0)->eax);
	attr.group = 1;
	CHECK_ERRNO(ioctl(vm->node, KVM_GET_DEVICE_ATTR, &attr), ENXIO);
	machine_destroy();
}

static void counters(void)
{
	const char *name = node_is_moat() ? "user_exits" : "exits";
	int vm_stats, vcpu_stats;
	uint64_t before, after;

	machine_create(false, sync_payload);
	vm_stats = ioctl(vm->fd, KVM_GET_STATS_FD, NULL);
	vcpu_stats = ioctl(vcpu->fd, KVM_GET_STATS_FD, NULL);
	CHECK_CALL(vm_stats);
	CHECK_CALL(vcpu_stats);
	vcpu_wait(vcpu);
	before = stat_read(vcpu_stats, name);
	vcpu_wait(vcpu);
	after = stat_read(vcpu_stats, name);
	CHECK(after > before && after < before + 100, "%llu, then %llu",
	      (unsigned long long)before, (unsigned long long)after);
	CHECK(stat_read(vm_stats, "pages_4k") + stat_read(vm_stats, "pages_2m") > 0, "no pages");
	/* A descriptor keeps alive what it counts. */
	machine_destroy();
	CHECK_EQ(stat_read(vcpu_stats, name), after);
	close(vm_stats);
	close(vcpu_stats);
}

static void mwait_payload(void)
{
	uint32_t out[4];

	for (;;) {
		cpuid(1, 0, out);
		guest_sync2(GUEST_TRY("monitor", : : "a"(&seen_cr2), "c"(0), "d"(0)
				      : "r11", "memory"), out[2] & CPUID_MWAIT);
	}
}

static void monitor(bool expect_mwait, uint64_t expect_trap)
{
	struct report report = vcpu_wait(vcpu);

	CHECK_EQ(report.value, expect_trap);
	CHECK_EQ(report.value2, expect_mwait ? CPUID_MWAIT : 0);
}

static void mwait_quirks(void)
{
	uint64_t quirks = node_has(KVM_CAP_DISABLE_QUIRKS2);

	machine_create(false, mwait_payload);
	CHECK(quirks & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS, "quirks %#llx",
	      (unsigned long long)quirks);
	CHECK_ERRNO(cap_enable(KVM_CAP_DISABLE_QUIRKS2, 1ull << 50), EINVAL);
	monitor(false, TRAP_NONE);
	CHECK_CALL(cap_enable(KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS |
			      KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT));
	CHECK(vcpu_msr_set(vcpu, MSR_MISC_ENABLE, 0), "MISC_ENABLE");
	monitor(false, TRAP_UD);
	CHECK(vcpu_msr_set(vcpu, MSR_MISC_ENABLE, MISC_ENABLE_MWAIT), "MISC_ENABLE");
	monitor(true, TRAP_NONE);
	machine_destroy();
}

static uint8_t hypercall_insn[4];

static void hypercall_payload(uint64_t modrm)
{
	uint64_t answer = 1, trap;

	hypercall_insn[0] = 0x0f;
	hypercall_insn[1] = 0x01;
	hypercall_insn[2] = modrm;
	hypercall_insn[3] = 0xc3;
	/* KVM_HC_VAPIC_POLL_IRQ */
	trap = GUEST_TRY("call hypercall_insn", : "+a"(answer) : : "r11", "memory");
	guest_sync2(trap, answer);
	guest_done();
}

/* VMCALL on AMD, VMMCALL on Intel: put right on the spot, or #UD. */
static void hypercall_quirk(void)
{
	static const uint8_t modrm[2] = { 0xc1, 0xd9 };
	unsigned int fixed = 0, i;
	struct report report;

	for (i = 0; i < 2; i++) {
		machine_create(false, hypercall_payload);
		vcpu_set_long(vcpu, hypercall_payload, modrm[i]);
		report = vcpu_wait(vcpu);
		CHECK_EQ(report.value, TRAP_NONE);
		CHECK_EQ(report.value2, 0);
		fixed += (*GUEST_VAR(vm, hypercall_insn))[2] != modrm[i];
		machine_destroy();
	}
	CHECK_EQ(fixed, 1);
	fixed = 0;
	for (i = 0; i < 2; i++) {
		machine_create(false, hypercall_payload);
		vcpu_set_long(vcpu, hypercall_payload, modrm[i]);
		CHECK_CALL(cap_enable(KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN));
		report = vcpu_wait(vcpu);
		fixed += report.kind == REPORT_SYNC && report.value == TRAP_NONE;
		CHECK_EQ((*GUEST_VAR(vm, hypercall_insn))[2], modrm[i]);
		machine_destroy();
	}
	CHECK_EQ(fixed, 1);
}

static void vcpu_ids(void)
{
	machine_create(false, done_payload);
	machine_destroy();
	vm = vm_create(GUEST_RAM, false);
	CHECK_ERRNO(cap_enable(KVM_CAP_MAX_VCPU_ID, node_has(KVM_CAP_MAX_VCPU_ID) + 1), EINVAL);
	if (node_is_moat()) {		/* and newer KVM */
		CHECK_CALL(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 3));
		CHECK_ERRNO(cap_enable(KVM_CAP_MAX_VCPU_ID, 2), EINVAL);
		CHECK_CALL(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 0));
	}
	CHECK_CALL(cap_enable(KVM_CAP_MAX_VCPU_ID, 2));
	CHECK_ERRNO(cap_enable(KVM_CAP_MAX_VCPU_ID, 3), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_VCPU, 2), EINVAL);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_VCPU, 1));
	vm_destroy(vm);
}

/* KVM_GET_CPUID2 says what the guest's CPUID would. */
static void cpuid_lives(void)
{
	struct kvm_sregs sregs;
	struct kvm_cpuid2 *list;
	uint32_t i, osxsave = 0;

	machine_create(true, done_payload);
	sregs = vcpu_sregs(vcpu);
	sregs.cr4 |= 1ul << 18;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	list = calloc(1, sizeof(*list) + 256 * sizeof(list->entries[0]));
	list->nent = 256;
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_CPUID2, list));
	for (i = 0; i < list->nent; i++) {
		if (list->entries[i].function == 1)
			osxsave = list->entries[i].ecx & 1u << 27;
		if (list->entries[i].function == 0xd && !list->entries[i].index)
			CHECK_EQ(list->entries[i].ebx, 576);
	}
	CHECK(osxsave, "OSXSAVE is not told");
	/* MWAIT, once told, stays. */
	for (i = 0; i < list->nent; i++)
		if (list->entries[i].function == 1)
			list->entries[i].ecx |= 1u << 3;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_CPUID2, list));
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_CPUID2, list));
	list->nent = 256;
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_CPUID2, list));
	for (i = 0; i < list->nent; i++)
		if (list->entries[i].function == 1)
			CHECK(list->entries[i].ecx & 1u << 3, "MWAIT is forgotten");
	vcpu_finish(vcpu);
	/* The same again is no change. (KVM thinks it is, after OSXSAVE.) */
	if (node_is_moat())
		CHECK_CALL(ioctl(vcpu->fd, KVM_SET_CPUID2, list));
	list->entries[0].eax--;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_CPUID2, list), EINVAL);
	free(list);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "sregs2", sregs2 },
	{ "xsave2", xsave2 },
	{ "exception_payload", exception_payload },
	{ "triple_fault", triple_fault },
	{ "sync_regs", sync_regs },
	{ "tsc_offset", tsc_offset },
	{ "tsc_khz", tsc_khz },
	{ "system_attributes", system_attributes },
	{ "counters", counters },
	{ "mwait_quirks", mwait_quirks },
	{ "hypercall_quirk", hypercall_quirk },
	{ "vcpu_ids", vcpu_ids },
	{ "cpuid_lives", cpuid_lives },
};

TAP_MAIN(cases)
