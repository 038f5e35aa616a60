// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Machine checks that userspace reports to the guest.
 */
#include "guest.h"

#define MCG_CAP		0x179
#define MCG_STATUS	0x17a
#define MCG_CTL		0x17b
#define MC_CTL(n)	(0x400 + 4 * (n))
#define MC_STATUS(n)	(0x401 + 4 * (n))
#define MC_ADDR(n)	(0x402 + 4 * (n))

#define CAP_CTL_P	0x100
#define STATUS_VAL	(1ull << 63)
#define STATUS_OVER	(1ull << 62)
#define STATUS_UC	(1ull << 61)
#define STATUS_MCIP	4
#define CR4_MCE		0x40
#define TRAP_MC		18
#define BANKS		10

static struct vm *vm;
static struct vcpu *vcpu;

static void machine_create(void *payload)
{
	uint64_t cap = BANKS | CAP_CTL_P;

	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, 0);
	CHECK_CALL(ioctl(vcpu->fd, KVM_X86_SETUP_MCE, &cap));
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static int report(uint8_t bank, uint64_t status, uint64_t addr)
{
	struct kvm_x86_mce mce = {
		.status = status, .addr = addr, .mcg_status = STATUS_MCIP, .bank = bank,
	};

	return ioctl(vcpu->fd, KVM_X86_SET_MCE, &mce);
}

static void setup(void)
{
	uint64_t cap = 0, supported = 0;

	machine_create(NULL);
	CHECK(node_has(KVM_CAP_MCE) >= BANKS, "KVM_CAP_MCE %d", node_has(KVM_CAP_MCE));
	CHECK_CALL(ioctl(vm->node, KVM_X86_GET_MCE_CAP_SUPPORTED, &supported));
	CHECK(supported & CAP_CTL_P, "supported %#llx", (unsigned long long)supported);
	CHECK_EQ(vcpu_msr_get(vcpu, MCG_CAP), BANKS | CAP_CTL_P);
	CHECK_EQ(vcpu_msr_get(vcpu, MCG_CTL), ~0ull);
	CHECK_EQ(vcpu_msr_get(vcpu, MC_CTL(BANKS - 1)), ~0ull);
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_X86_SETUP_MCE, &cap), EINVAL);
	cap = 33;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_X86_SETUP_MCE, &cap), EINVAL);
	cap = BANKS | 1ull << 40;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_X86_SETUP_MCE, &cap), EINVAL);
	CHECK_ERRNO(report(BANKS, STATUS_VAL, 0), EINVAL);
	CHECK_ERRNO(report(255, STATUS_VAL, 0), EINVAL);
	CHECK_ERRNO(report(0, 0, 0), EINVAL);
	machine_destroy();
}

static volatile uint64_t checks, status_seen, addr_seen;

static void check_handler(struct trap_frame *frame)
{
	(void)frame;
	checks++;
	status_seen = rdmsr(MC_STATUS(3));
	addr_seen = rdmsr(MC_ADDR(3));
	wrmsr(MC_STATUS(3), 0);
	wrmsr(MCG_STATUS, 0);
}

static void registers_payload(void)
{
	uint64_t value;

	GUEST_EQ(rdmsr_try(MC_CTL(BANKS), &value), TRAP_GP);
	GUEST_EQ(wrmsr_try(MC_CTL(0), 0x1234), TRAP_GP);
	GUEST_EQ(wrmsr_try(MC_CTL(0), ~0ull), TRAP_NONE);
	GUEST_EQ(wrmsr_try(MC_STATUS(0), 1), TRAP_GP);
	GUEST_EQ(wrmsr_try(MC_STATUS(0), 0), TRAP_NONE);
	GUEST_EQ(wrmsr_try(MC_ADDR(0), 0x5000), TRAP_NONE);
	GUEST_EQ(rdmsr(MC_ADDR(0)), 0x5000);
	guest_done();
}

static void registers(void)
{
	machine_create(registers_payload);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void uncorrected_payload(void)
{
	guest_handlers[TRAP_MC] = check_handler;
	write_cr4(read_cr4() | CR4_MCE);
	guest_sync(1);
	GUEST_EQ(checks, 1);
	GUEST_EQ(status_seen, STATUS_VAL | STATUS_UC | 0x135);
	GUEST_EQ(addr_seen, 0x7000);
	guest_sync(2);
	/* Without CR4.MCE it is the end. */
	write_cr4(read_cr4() & ~CR4_MCE);
	guest_sync(3);
	guest_done();
}

static void uncorrected(void)
{
	machine_create(uncorrected_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(report(3, STATUS_VAL | STATUS_UC | 0x135, 0x7000));
	vcpu_sync(vcpu, 2);
	vcpu_sync(vcpu, 3);
	CHECK_CALL(report(3, STATUS_VAL | STATUS_UC, 0));
	vcpu_exit(vcpu, KVM_EXIT_SHUTDOWN);
	machine_destroy();
}

static void corrected_payload(void)
{
	guest_sync(1);
	GUEST_EQ(rdmsr(MC_STATUS(2)), STATUS_VAL | STATUS_OVER | 2);
	guest_done();
}

/* The guest finds it when it looks. */
static void corrected(void)
{
	machine_create(corrected_payload);
	vcpu_sync(vcpu, 1);
	CHECK_CALL(report(2, STATUS_VAL | 1, 0x1000));
	CHECK_CALL(report(2, STATUS_VAL | 2, 0x2000));
	CHECK_EQ(vcpu_msr_get(vcpu, MC_ADDR(2)), 0x2000);
	/* One that is not corrected is not overwritten. */
	CHECK(vcpu_msr_set(vcpu, MC_STATUS(4), STATUS_VAL | STATUS_UC), "MC4_STATUS");
	CHECK_CALL(report(4, STATUS_VAL | 7, 0x1000));
	CHECK_EQ(vcpu_msr_get(vcpu, MC_STATUS(4)), STATUS_VAL | STATUS_UC | STATUS_OVER);
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "setup", setup },
	{ "registers", registers },
	{ "uncorrected", uncorrected },
	{ "corrected", corrected },
};

TAP_MAIN(cases)
