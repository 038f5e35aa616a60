// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A VM's own ioctls that no guest needs to run for: its clock, addresses, boot processor, routing.
 */
#include "guest.h"

#define SECOND_NS	1000000000ull

static void clock_runs(void)
{
	struct vm *vm = vm_create_bare();
	struct kvm_clock_data a = { 0 }, b = { 0 };
	uint64_t before = clock_ns(), passed;

	CHECK_CALL(ioctl(vm->fd, KVM_GET_CLOCK, &a));
	usleep(50000);
	CHECK_CALL(ioctl(vm->fd, KVM_GET_CLOCK, &b));
	passed = clock_ns() - before;
	CHECK(b.clock - a.clock >= 45000000 && b.clock - a.clock <= passed + 5000000,
	      "the clock went %llu ns on in %llu", (unsigned long long)(b.clock - a.clock),
	      (unsigned long long)passed);
	vm_destroy(vm);
}

/* Set to a time that was read at a real time some seconds ago, it makes up for them. */
static void clock_set(void)
{
	struct vm *vm = vm_create_bare();
	struct kvm_clock_data set = { .clock = 1000 * SECOND_NS }, got = { 0 };

	CHECK_CALL(ioctl(vm->fd, KVM_SET_CLOCK, &set));
	CHECK_CALL(ioctl(vm->fd, KVM_GET_CLOCK, &got));
	CHECK(got.clock >= set.clock && got.clock < set.clock + SECOND_NS, "set to %llu, is %llu",
	      (unsigned long long)set.clock, (unsigned long long)got.clock);
	set.flags = 1u << 31;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_CLOCK, &set), EINVAL);
	if (got.flags & KVM_CLOCK_REALTIME) {
		set.flags = KVM_CLOCK_REALTIME;
		set.realtime = got.realtime - 5 * SECOND_NS;
		CHECK_CALL(ioctl(vm->fd, KVM_SET_CLOCK, &set));
		CHECK_CALL(ioctl(vm->fd, KVM_GET_CLOCK, &got));
		CHECK(got.clock >= set.clock + 5 * SECOND_NS &&
		      got.clock < set.clock + 6 * SECOND_NS, "set to %llu 5 s ago, is %llu",
		      (unsigned long long)set.clock, (unsigned long long)got.clock);
	}
	vm_destroy(vm);
}

static void addresses(void)
{
	struct vm *vm = vm_create_bare();
	uint64_t identity = 0xfffbc000;

	CHECK_CALL(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000));
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffff000), EINVAL);
	CHECK_CALL(ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity));
	vcpu_create(vm, 0);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity), EINVAL);
	vm_destroy(vm);
}

static void boot_processor(void)
{
	struct vm *vm = vm_create_bare();
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_sregs sregs;
	struct vcpu *vcpu;

	CHECK_CALL(ioctl(vm->fd, KVM_ENABLE_CAP, &split));
	CHECK_CALL(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 1));
	vcpu = vcpu_create(vm, 0);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs));
	CHECK_EQ(sregs.apic_base & 0x100, 0);
	vcpu = vcpu_create(vm, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs));
	CHECK_EQ(sregs.apic_base & 0x100, 0x100);
	CHECK(ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0) > 0, "no TSC frequency");
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, 0), EBUSY);
	vm_destroy(vm);
}

static void routing(void)
{
	struct vm *vm = vm_create_bare();
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_irq_level line = { .irq = 3, .level = 1 };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[2];
	} table = { .head.nr = 1 };

	CHECK_ERRNO(ioctl(vm->fd, KVM_IRQ_LINE, &line), ENXIO);
	CHECK_CALL(ioctl(vm->fd, KVM_ENABLE_CAP, &split));
	CHECK_CALL(ioctl(vm->fd, KVM_IRQ_LINE, &line));
	table.entry[0].gsi = 3;
	table.entry[0].type = KVM_IRQ_ROUTING_MSI;
	table.entry[0].u.msi.address_lo = 0xfee00000;
	table.entry[0].u.msi.data = 0x41;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	table.entry[0].flags = 1u << 31;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[0].flags = 0;
	table.entry[0].gsi = 1u << 20;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[0].gsi = 3;
	table.entry[1] = table.entry[0];
	table.head.nr = 2;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.head.nr = 0;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "clock_runs", clock_runs },
	{ "clock_set", clock_set },
	{ "addresses", addresses },
	{ "boot_processor", boot_processor },
	{ "routing", routing },
};

TAP_MAIN(cases)
