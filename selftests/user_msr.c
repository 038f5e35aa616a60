// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * MSR filters, MSR exits to userspace, and features that are MSRs.
 */
#include "guest.h"

#define MSR_NOWHERE	0x474f4f00
#define MSR_TSC_ADJUST	0x3b
#define MSR_FS_BASE	0xc0000100
#define MSR_GS_BASE	0xc0000101
#define MSR_X2APIC_TPR	0x808
#define MSR_APIC_BASE	0x1b
#define MSR_PLATFORM_INFO 0xce
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_UCODE_REV	0x8b
#define ALL_REASONS	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | \
			 KVM_MSR_EXIT_REASON_FILTER)

static struct vm *vm;
static struct vcpu *vcpu;

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

static int cap_enable(uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

/* One range of count MSRs; allowed is the bitmap's first byte. */
static int filter_set(uint32_t flags, uint32_t range_flags, uint32_t base, uint32_t count,
		      uint8_t allowed)
{
	uint8_t bitmap[0x800] = { allowed };
	struct kvm_msr_filter filter = { .flags = flags };

	filter.ranges[0].flags = range_flags;
	filter.ranges[0].base = base;
	filter.ranges[0].nmsrs = count;
	filter.ranges[0].bitmap = bitmap;
	return ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

static bool msr_exit(uint32_t reason, uint32_t msr, uint32_t why)
{
	struct kvm_run *run = vcpu->run;

	return vcpu_exit(vcpu, reason) & CHECK_EQ(run->msr.index, msr) &
	       CHECK_EQ(run->msr.reason, why) & CHECK_EQ(run->msr.error, 0);
}

static void unknown_payload(void)
{
	uint64_t value = 0;

	GUEST_EQ(rdmsr_try(MSR_NOWHERE, &value), TRAP_NONE);
	GUEST_EQ(value, 0x1122334455667788);
	GUEST_EQ(wrmsr_try(MSR_NOWHERE, 0x8877665544332211), TRAP_NONE);
	GUEST_EQ(rdmsr_try(MSR_NOWHERE, &value), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_APIC_BASE, ~0ul), TRAP_NONE);
	guest_sync(1);
	GUEST_EQ(rdmsr_try(MSR_NOWHERE, &value), TRAP_GP);
	guest_done();
}

static void unknown(void)
{
	machine_create(unknown_payload);
	CHECK_ERRNO(cap_enable(KVM_CAP_X86_USER_SPACE_MSR, 1ull << 33), EINVAL);
	CHECK_CALL(cap_enable(KVM_CAP_X86_USER_SPACE_MSR, ALL_REASONS));
	msr_exit(KVM_EXIT_X86_RDMSR, MSR_NOWHERE, KVM_MSR_EXIT_REASON_UNKNOWN);
	vcpu->run->msr.data = 0x1122334455667788;
	if (msr_exit(KVM_EXIT_X86_WRMSR, MSR_NOWHERE, KVM_MSR_EXIT_REASON_UNKNOWN))
		CHECK_EQ(vcpu->run->msr.data, 0x8877665544332211);
	msr_exit(KVM_EXIT_X86_RDMSR, MSR_NOWHERE, KVM_MSR_EXIT_REASON_UNKNOWN);
	vcpu->run->msr.error = 1;
	msr_exit(KVM_EXIT_X86_WRMSR, MSR_APIC_BASE, KVM_MSR_EXIT_REASON_INVAL);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(cap_enable(KVM_CAP_X86_USER_SPACE_MSR, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void filter_payload(void)
{
	uint64_t value = 0;

	/* Registers that the CPU otherwise lets the guest have to itself. */
	wrmsr(MSR_FS_BASE, 0x1000);
	wrmsr(MSR_GS_BASE, 0x2000);
	guest_sync(1);
	GUEST_EQ(rdmsr_try(MSR_FS_BASE, &value), TRAP_GP);
	GUEST_EQ(rdmsr_try(MSR_GS_BASE, &value), TRAP_NONE);
	GUEST_EQ(value, 0x2000);
	GUEST_EQ(wrmsr_try(MSR_FS_BASE, 0x3000), TRAP_NONE);
	guest_sync(2);
	GUEST_EQ(rdmsr_try(MSR_FS_BASE, &value), TRAP_NONE);
	GUEST_EQ(value, 0x4000);
	guest_sync(3);
	/* All but one denied; the APIC's are never. */
	GUEST_EQ(rdmsr_try(MSR_TSC_ADJUST, &value), TRAP_NONE);
	GUEST_EQ(rdmsr_try(MSR_APIC_BASE, &value), TRAP_GP);
	GUEST_EQ(rdmsr_try(MSR_X2APIC_TPR, &value), TRAP_NONE);
	guest_sync(4);
	GUEST_EQ(rdmsr_try(MSR_APIC_BASE, &value), TRAP_NONE);
	GUEST_EQ(rdmsr(MSR_FS_BASE), 0x3000);
	guest_done();
}

static void x2apic_then_filter(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	filter_payload();
}

static void filter(void)
{
	machine_create(x2apic_then_filter);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(filter_set(KVM_MSR_FILTER_DEFAULT_ALLOW, KVM_MSR_FILTER_READ, MSR_FS_BASE, 2, 2));
	vcpu_sync(vcpu, 2);
	CHECK_CALL(cap_enable(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER));
	msr_exit(KVM_EXIT_X86_RDMSR, MSR_FS_BASE, KVM_MSR_EXIT_REASON_FILTER);
	vcpu->run->msr.data = 0x4000;
	vcpu_sync(vcpu, 3);
	CHECK_CALL(cap_enable(KVM_CAP_X86_USER_SPACE_MSR, 0));
	CHECK_CALL(filter_set(KVM_MSR_FILTER_DEFAULT_DENY,
			      KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, MSR_TSC_ADJUST, 1, 1));
	vcpu_sync(vcpu, 4);
	CHECK_CALL(filter_set(KVM_MSR_FILTER_DEFAULT_ALLOW, 0, 0, 0, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void filter_nonsense(void)
{
	machine_create(filter_payload);
	CHECK_ERRNO(filter_set(2, 0, 0, 0, 0), EINVAL);
	CHECK_ERRNO(filter_set(0, 4, 0, 1, 0), EINVAL);
	CHECK_ERRNO(filter_set(0, KVM_MSR_FILTER_READ, 0, 0x600 * 8 + 1, 0), EINVAL);
	CHECK_ERRNO(filter_set(0, KVM_MSR_FILTER_READ, 0, 0xffffffff, 0), EINVAL);
	CHECK_ERRNO(filter_set(KVM_MSR_FILTER_DEFAULT_DENY, 0, 0, 0, 0), EINVAL);
	CHECK_CALL(filter_set(0, KVM_MSR_FILTER_READ, 0xffffffff, 0x600 * 8, 0xff));
	machine_destroy();
}

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[4];
};

static void features(void)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[64];
	} list = { .head.nmsrs = 0 };
	struct msrs msrs = { .head.nmsrs = 1 };
	uint32_t i;

	machine_create(filter_payload);
	CHECK_ERRNO(ioctl(vm->node, KVM_GET_MSR_FEATURE_INDEX_LIST, &list), E2BIG);
	CHECK(list.head.nmsrs > 0 && list.head.nmsrs <= 64, "%u features", list.head.nmsrs);
	CHECK_CALL(ioctl(vm->node, KVM_GET_MSR_FEATURE_INDEX_LIST, &list));
	for (i = 0; i < list.head.nmsrs && i < 64; i++) {
		msrs.entry[0].index = list.index[i];
		CHECK_EQ(ioctl(vm->node, KVM_GET_MSRS, &msrs), 1);
		/* What may be had at most is what a vCPU begins with, or can be given. */
		if (list.index[i] == MSR_UCODE_REV || list.index[i] == MSR_ARCH_CAPABILITIES)
			CHECK(vcpu_msr_set(vcpu, list.index[i], msrs.entry[0].data), "MSR %#x",
			      list.index[i]);
	}
	CHECK(vcpu_msr_set(vcpu, MSR_UCODE_REV, 0x1234500000000), "UCODE_REV");
	CHECK_EQ(vcpu_msr_get(vcpu, MSR_UCODE_REV), 0x1234500000000);
	msrs.entry[0].index = MSR_TSC_ADJUST;
	CHECK_EQ(ioctl(vm->node, KVM_GET_MSRS, &msrs), 0);
	machine_destroy();
}

static void platform_payload(void)
{
	uint64_t value = 0;

	GUEST_EQ(rdmsr_try(MSR_PLATFORM_INFO, &value), TRAP_NONE);
	GUEST_EQ(value, 0x1200);
	GUEST_EQ(wrmsr_try(MSR_PLATFORM_INFO, 0), TRAP_GP);
	guest_sync(1);
	GUEST_EQ(rdmsr_try(MSR_PLATFORM_INFO, &value), TRAP_GP);
	guest_done();
}

static void platform_info(void)
{
	machine_create(platform_payload);
	CHECK(vcpu_msr_set(vcpu, MSR_PLATFORM_INFO, 0x1200), "PLATFORM_INFO");
	vcpu_sync(vcpu, 1);
	CHECK_CALL(cap_enable(KVM_CAP_MSR_PLATFORM_INFO, 0));
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "unknown", unknown },
	{ "filter", filter },
	{ "filter_nonsense", filter_nonsense },
	{ "features", features },
	{ "platform_info", platform_info },
};

TAP_MAIN(cases)
