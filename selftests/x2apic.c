// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * APIC ids of 32 bits (KVM_CAP_X2APIC_API): in the APICs' state, in messages, and among more vCPUs
 * than an xAPIC could name.
 */
#include "guest.h"
#include "pc.h"

#define VECTOR		0x51
#define VECTOR_ALL	0x61
#define ICR		0x830
#define ICR_LOGICAL	0x800
#define ICR_OTHERS	0xc0000
#define MANY		70
#define GSI_MSI		40

static struct vm *vm;
static struct vcpu *vcpus[MANY];
static volatile uint32_t taken_by[1024];	/* by APIC id */
static volatile uint64_t ready, quit, ids[MANY];

static int api_enable(uint64_t flags)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X2APIC_API, .args = { flags } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap);
}

static int msi(uint32_t dest, uint32_t low, uint8_t vector)
{
	struct kvm_msi msi = {
		.address_lo = XAPIC | (dest & 0xff) << 12 | low, .address_hi = dest & ~0xffu,
		.data = vector,
	};

	return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

static uint32_t lapic_id(struct vcpu *vcpu, struct kvm_lapic_state *state)
{
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_LAPIC, state));
	return *(uint32_t *)(state->regs + APIC_ID);
}

static void arguments(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X2APIC_API, .flags = 1 };
	struct kvm_msi bad = { .address_lo = XAPIC, .address_hi = 1, .data = VECTOR };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} table = {
		.head.nr = 1,
		.entry = { .gsi = GSI_MSI, .type = KVM_IRQ_ROUTING_MSI,
			   .u.msi = { XAPIC, 1, VECTOR } },
	};

	CHECK_EQ(node_has(KVM_CAP_X2APIC_API), 3);
	vm = vm_create(GUEST_RAM, IRQCHIP_SPLIT);
	vcpus[0] = vcpu_create(vm, 0);
	CHECK_ERRNO(api_enable(4), EINVAL);
	CHECK_ERRNO(api_enable(1ull << 40), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_ENABLE_CAP, &cap), EINVAL);
	CHECK_CALL(ioctl(vm->fd, KVM_SIGNAL_MSI, &bad) < 0 && errno != EPERM ? -1 : 0);
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	CHECK_CALL(api_enable(0));
	CHECK_CALL(api_enable(KVM_X2APIC_API_USE_32BIT_IDS));
	CHECK_ERRNO(ioctl(vm->fd, KVM_SIGNAL_MSI, &bad), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry.u.msi.address_hi = 0x100;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	vcpu_destroy(vcpus[0]);
	vm_destroy(vm);
}

static void state_payload(void)
{
	apic_enable(true);
	guest_sync2(1, rdmsr(0x802));
	guest_done();
}

/* Bits 31 to 24 in xAPIC mode, all of them in x2APIC mode. */
static void state(void)
{
	struct kvm_lapic_state regs;
	struct report report;
	uint32_t id = 300, wide;

	for (wide = 0; wide < 2; wide++) {
		vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
		if (wide)
			CHECK_CALL(api_enable(KVM_X2APIC_API_USE_32BIT_IDS));
		CHECK_CALL(ioctl(vm->fd, KVM_SET_BOOT_CPU_ID, id));
		vcpus[0] = vcpu_create(vm, id);
		CHECK_EQ(lapic_id(vcpus[0], &regs), id << 24);
		CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, &regs));
		vcpu_set_long(vcpus[0], state_payload, 0);
		report = vcpu_wait(vcpus[0]);
		CHECK_EQ(report.kind, REPORT_SYNC);
		CHECK_EQ(report.value2, id);
		CHECK_EQ(lapic_id(vcpus[0], &regs), wide ? id : id << 24);
		if (wide) {
			*(uint32_t *)(regs.regs + APIC_ID) = id + 1;
			CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, &regs), EINVAL);
			*(uint32_t *)(regs.regs + APIC_ID) = id;
		}
		CHECK_CALL(ioctl(vcpus[0]->fd, KVM_SET_LAPIC, &regs));
		vcpu_finish(vcpus[0]);
		vcpu_destroy(vcpus[0]);
		vm_destroy(vm);
	}
}

/* ---- Many vCPUs ---- */

static void handler(struct trap_frame *frame)
{
	taken_by[rdmsr(0x802)]++;
	__atomic_add_fetch(&pc_taken[frame->vector], 1, __ATOMIC_SEQ_CST);
	wrmsr(0x80b, 0);
}

static void other_payload(void)
{
	apic_enable(true);
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!quit)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void first_payload(void)
{
	uint64_t i, id;

	apic_enable(true);
	guest_handlers[VECTOR] = handler;
	guest_handlers[VECTOR_ALL] = handler;
	irq_on();
	while (ready < MANY - 1)
		cpu_pause();
	/* Each by its id, by turns physically and logically. */
	for (i = 0; i < MANY; i++) {
		id = ids[i];
		if (i % 2)
			wrmsr(ICR, (id >> 4 << 16 | 1u << (id & 15)) << 32 | ICR_LOGICAL | VECTOR);
		else
			wrmsr(ICR, id << 32 | VECTOR);
		taken_wait(VECTOR, i + 1);
		GUEST_EQ(taken_by[id], 1);
	}
	GUEST_EQ(pc_taken[VECTOR], MANY);
	/* Everybody, and everybody else. */
	wrmsr(ICR, 0xffffffffull << 32 | VECTOR_ALL);
	taken_wait(VECTOR_ALL, MANY);
	wrmsr(ICR, ICR_OTHERS | VECTOR_ALL);
	taken_wait(VECTOR_ALL, 2 * MANY - 1);
	/* 255 is an id like others. */
	wrmsr(ICR, 255ull << 32 | VECTOR);
	taken_wait(VECTOR, MANY + 1);
	GUEST_EQ(pc_taken[VECTOR], MANY + 1);
	guest_sync(1);
	/* The host sends a message to each. */
	taken_wait(VECTOR, 2 * MANY + 1);
	for (i = 0; i < MANY; i++)
		GUEST_EQ(taken_by[ids[i]], 4 - !i + (ids[i] == 255));
	guest_sync(2);
	/* And one to 255, which was to all of them before. */
	taken_wait(VECTOR_ALL, 3 * MANY - 1);
	guest_sync(3);
	taken_wait(VECTOR, 2 * MANY + 2);
	GUEST_EQ(pc_taken[VECTOR], 2 * MANY + 2);
	quit = 1;
	wrmsr(ICR, ICR_OTHERS | VECTOR_ALL);
	guest_done();
}

/* Ids that the stacks of the tests can tell apart; 255 and beyond among them. */
static uint64_t many_id(unsigned int i)
{
	return i < 67 ? (i == 55 ? 255 : i) : 100 * (i - 65) + i;
}

static void many(void)
{
	unsigned int i;

	vm = vm_create(GUEST_RAM, IRQCHIP_SPLIT);
	CHECK_CALL(api_enable(KVM_X2APIC_API_USE_32BIT_IDS));
	for (i = 0; i < MANY; i++) {
		struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };

		(*GUEST_VAR(vm, ids))[i] = many_id(i);
		vcpus[i] = vcpu_create(vm, many_id(i));
		vcpu_set_long(vcpus[i], i ? (void *)other_payload : (void *)first_payload, 0);
		CHECK_CALL(ioctl(vcpus[i]->fd, KVM_SET_MP_STATE, &runnable));
	}
	vcpu_deadline_ms = 40000;
	for (i = 1; i < MANY; i++)
		vcpu_spawn(vcpus[i]);
	vcpu_sync(vcpus[0], 1);
	for (i = 0; i < MANY; i++)
		if (i != 55)
			CHECK_EQ(msi(many_id(i), 0, VECTOR), 1);
	/* Id 255 cannot be named as long as that is everybody: by its cluster it can. */
	CHECK_EQ(msi(15 << 16 | 1 << 15, 4, VECTOR), 1);
	CHECK(msi(2000, 0, VECTOR) <= 0, "a message to a vCPU that is none");
	vcpu_sync(vcpus[0], 2);
	CHECK_EQ(msi(255, 0, VECTOR_ALL), MANY);
	vcpu_sync(vcpus[0], 3);
	CHECK_CALL(api_enable(KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK));
	CHECK_EQ(msi(255, 0, VECTOR), 1);
	vcpu_finish(vcpus[0]);
	*GUEST_VAR(vm, quit) = 1;
	msi(0xffffffff, 0, VECTOR_ALL);
	for (i = 1; i < MANY; i++)
		vcpu_join(vcpus[i]);
	vcpu_deadline_ms = 8000;
	for (i = 0; i < MANY; i++)
		vcpu_destroy(vcpus[i]);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "arguments", arguments },
	{ "state", state },
	{ "many", many },
};

TAP_MAIN(cases)
