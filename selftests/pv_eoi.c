// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * KVM_FEATURE_PV_EOI: a byte in guest memory by which the guest ends an interrupt without an exit;
 * when it is offered, when it is not, and what the host makes of it.
 */
#include "guest.h"

#define MSR_APIC_BASE	0x1b
#define MSR_PV_EOI	0x4b564d04
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_ISR	0x810
#define X2APIC_ICR	0x830
#define XAPIC		0xfee00000ul

#define FEATURE_PV_EOI	(1u << 6)
#define ICR_ASSERT	0x4000
#define ICR_SELF	0x40000
#define MSI_LEVEL	0x8000

#define VECTOR_LOW	0x41
#define VECTOR		0x51
#define VECTOR_HIGH	0x81

#define ROUNDS		200
#define WARM_ROUNDS	4
#define PAGE_GPA	0x40000000ul
#define PAGE_SIZE_SLOT	0x1000ul

static struct vm *vm;
static struct vcpu *vcpu;

static volatile uint32_t offer __attribute__((aligned(64))), other_offer;
static volatile uint64_t taken[256], spared, written;
static volatile uint64_t offered_at_first, offered_later, quit, twice;

static bool machine_create(void *payload, uint64_t arg)
{
	struct kvm_cpuid_entry2 *leaf;

	vm = vm_create(GUEST_RAM, true);
	leaf = vm_cpuid(vm, 0x40000001, 0);
	if (!leaf || !(leaf->eax & FEATURE_PV_EOI)) {
		vm_destroy(vm);
		tap_skip("KVM_FEATURE_PV_EOI is not there");
		return false;
	}
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, arg);
	return true;
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* ---- The guest's side ---- */

static void x2apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	wrmsr(X2APIC_SVR, 0x1ff);
}

static void offer_enable(void)
{
	x2apic_enable();
	wrmsr(MSR_PV_EOI, (uintptr_t)&offer | 1);
	GUEST_EQ(rdmsr(MSR_PV_EOI), (uintptr_t)&offer | 1);
	GUEST_EQ(offer, 0);
}

static void ipi_self(uint32_t vector)
{
	wrmsr(X2APIC_ICR, ICR_SELF | ICR_ASSERT | vector);
}

static bool in_service(uint32_t vector)
{
	return rdmsr(X2APIC_ISR + vector / 32) >> vector % 32 & 1;
}

static void irq_on(void)
{
	__asm__ volatile("sti; nop; nop" : : : "memory");
}

static void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* As Linux does: one instruction looks and takes. */
static bool offer_take(uintptr_t at)
{
	bool was;

	__asm__ volatile("btrl $0, (%1)" : "=@ccc"(was) : "r"(at) : "memory");
	spared += was;
	return was;
}

static void end_of_interrupt(void)
{
	if (offer_take((uintptr_t)&offer))
		return;
	written++;
	wrmsr(X2APIC_EOI, 0);
}

static void plain_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	end_of_interrupt();
}

static void many_payload(uint64_t enable)
{
	int i;

	guest_handlers[VECTOR] = plain_handler;
	x2apic_enable();
	if (enable)
		offer_enable();
	irq_on();
	for (i = 0; i < ROUNDS; i++)
		ipi_self(VECTOR);
	irq_off();
	GUEST_EQ(taken[VECTOR], ROUNDS);
	GUEST_CHECK(!in_service(VECTOR));
	guest_sync2(spared, written);
	guest_done();
}

/* How many EOIs cost an exit. Each interrupt must come in either case. */
static void ends_of(bool enable, uint64_t *ret_spared, uint64_t *ret_written)
{
	struct report report;

	if (!machine_create(many_payload, enable))
		return;
	report = vcpu_wait(vcpu);
	if (report.kind != REPORT_SYNC)
		vcpu_explain(vcpu, &report, "the count");
	*ret_spared = *GUEST_VAR(vm, spared);
	*ret_written = *GUEST_VAR(vm, written);
	CHECK_EQ(*GUEST_VAR(vm, offer), 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void many(void)
{
	uint64_t spared_on = 0, written_on = 0, spared_off = 0, written_off = 0;

	ends_of(true, &spared_on, &written_on);
	ends_of(false, &spared_off, &written_off);
	tap_note("%d interrupts: %llu EOI exits with PV EOI, %llu without", ROUNDS,
		 (unsigned long long)written_on, (unsigned long long)written_off);
	CHECK_EQ(spared_off, 0);
	CHECK_EQ(written_off, ROUNDS);
	CHECK_EQ(spared_on + written_on, ROUNDS);
	/* A host interrupt may now and then take an offer back. */
	CHECK(written_on < ROUNDS / 10, "%llu EOIs were written all the same",
	      (unsigned long long)written_on);
}

/* An interrupt that waits behind another needs the other's end: no offer. */
static void behind_handler(struct trap_frame *frame)
{
	if (frame->vector == VECTOR_HIGH)
		offered_at_first = offer;
	else
		offered_later = offer;
	plain_handler(frame);
}

/* The last of some rounds is what counts: by then no handler makes exits of its own, by faults. */
static void behind_payload(void)
{
	int i;

	guest_handlers[VECTOR_HIGH] = behind_handler;
	guest_handlers[VECTOR_LOW] = behind_handler;
	offer_enable();
	for (i = 1; i <= WARM_ROUNDS; i++) {
		irq_off();
		ipi_self(VECTOR_LOW);
		ipi_self(VECTOR_HIGH);
		irq_on();
		GUEST_EQ(taken[VECTOR_HIGH], i);
		GUEST_EQ(taken[VECTOR_LOW], i);
	}
	GUEST_EQ(offered_at_first, 0);
	GUEST_EQ(offered_later, 1);
	GUEST_CHECK(!in_service(VECTOR_HIGH) && !in_service(VECTOR_LOW));
	guest_done();
}

/* It comes while the other is handled: what was offered is taken back. */
static void withdrawn_handler(struct trap_frame *frame)
{
	if (frame->vector == VECTOR_HIGH) {
		offered_at_first = offer;
		ipi_self(VECTOR_LOW);
		offered_later = offer;
	}
	plain_handler(frame);
}

static void withdrawn_payload(void)
{
	int i;

	guest_handlers[VECTOR_HIGH] = withdrawn_handler;
	guest_handlers[VECTOR_LOW] = withdrawn_handler;
	offer_enable();
	irq_on();
	for (i = 1; i <= WARM_ROUNDS; i++) {
		ipi_self(VECTOR_HIGH);
		GUEST_EQ(offered_later, 0);
		GUEST_EQ(taken[VECTOR_HIGH], i);
		GUEST_EQ(taken[VECTOR_LOW], i);
	}
	GUEST_EQ(offered_at_first, 1);
	guest_done();
}

/* One interrupts the handler of another: each end is its own. */
static void nested_handler(struct trap_frame *frame)
{
	if (frame->vector == VECTOR_LOW) {
		ipi_self(VECTOR_HIGH);
		irq_on();
		irq_off();
		GUEST_EQ(taken[VECTOR_HIGH], 1);
		GUEST_CHECK(in_service(VECTOR_LOW) && !in_service(VECTOR_HIGH));
	}
	plain_handler(frame);
}

static void nested_payload(void)
{
	int i;

	guest_handlers[VECTOR_HIGH] = nested_handler;
	guest_handlers[VECTOR_LOW] = nested_handler;
	offer_enable();
	irq_on();
	for (i = 1; i <= ROUNDS; i++) {
		ipi_self(VECTOR_LOW);
		GUEST_EQ(taken[VECTOR_LOW], 1);
		GUEST_EQ(taken[VECTOR_HIGH], 1);
		taken[VECTOR_LOW] = 0;
		taken[VECTOR_HIGH] = 0;
	}
	GUEST_CHECK(!in_service(VECTOR_HIGH) && !in_service(VECTOR_LOW));
	guest_done();
}

/* The guest need not take the offer. */
static void ignored_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	wrmsr(X2APIC_EOI, 0);
	offered_later |= offer;
}

static void ignored_payload(void)
{
	int i;

	guest_handlers[VECTOR] = ignored_handler;
	offer_enable();
	irq_on();
	for (i = 0; i < ROUNDS; i++)
		ipi_self(VECTOR);
	GUEST_EQ(taken[VECTOR], ROUNDS);
	GUEST_EQ(offered_later, 0);
	GUEST_CHECK(!in_service(VECTOR));
	guest_done();
}

/* Where the byte is, may change between the offer and the end. */
static void moved_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	wrmsr(MSR_PV_EOI, (uintptr_t)&other_offer | 1);
	GUEST_EQ(other_offer, 0);
	wrmsr(X2APIC_EOI, 0);
	GUEST_EQ(offer, 0);
	offered_later |= other_offer;
	wrmsr(MSR_PV_EOI, (uintptr_t)&offer | 1);
}

static void moved_payload(void)
{
	volatile uint8_t *zero = (uint8_t *)GUEST_FREE;
	int i;

	guest_handlers[VECTOR] = moved_handler;
	offer_enable();
	irq_on();
	for (i = 1; i <= ROUNDS; i++) {
		ipi_self(VECTOR);
		GUEST_EQ(taken[VECTOR], i);
	}
	GUEST_EQ(offered_later, 0);
	/* Off, with an offer that was taken and that the host has not asked for: the address is void. */
	guest_handlers[VECTOR] = plain_handler;
	*zero = 1;
	for (i = 1; i <= ROUNDS; i++) {
		wrmsr(MSR_PV_EOI, (uintptr_t)&offer | 1);
		ipi_self(VECTOR);
		wrmsr(MSR_PV_EOI, (uintptr_t)zero);
		GUEST_CHECK(!in_service(VECTOR));
		GUEST_EQ(*zero, 1);
	}
	GUEST_CHECK(spared > ROUNDS / 2);
	guest_done();
}

/* Address 0, where the GDT's unused entry is, is as good as any. */
static void zero_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	if (!offer_take(0))
		wrmsr(X2APIC_EOI, 0);
}

static void zero_payload(void)
{
	int i;

	guest_handlers[VECTOR] = zero_handler;
	x2apic_enable();
	wrmsr(MSR_PV_EOI, 1);
	irq_on();
	for (i = 1; i <= ROUNDS; i++) {
		ipi_self(VECTOR);
		GUEST_EQ(taken[VECTOR], i);
	}
	GUEST_CHECK(spared > ROUNDS / 2);
	GUEST_CHECK(!in_service(VECTOR));
	guest_done();
}

/* Through the xAPIC's page, the same. */
static void xapic_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	if (!offer_take((uintptr_t)&offer))
		*(volatile uint32_t *)(XAPIC + 0xb0) = 0;
}

static void xapic_payload(void)
{
	int i;

	guest_handlers[VECTOR] = xapic_handler;
	*(volatile uint32_t *)(XAPIC + 0xf0) = 0x1ff;
	wrmsr(MSR_PV_EOI, (uintptr_t)&offer | 1);
	irq_on();
	for (i = 0; i < ROUNDS; i++)
		*(volatile uint32_t *)(XAPIC + 0x300) = ICR_SELF | ICR_ASSERT | VECTOR;
	irq_off();
	GUEST_EQ(taken[VECTOR], ROUNDS);
	GUEST_CHECK(spared > ROUNDS * 9 / 10);
	GUEST_EQ(*(volatile uint32_t *)(XAPIC + 0x120), 0);
	guest_done();
}

static void run_alone(void *payload)
{
	if (!machine_create(payload, 0))
		return;
	vcpu_finish(vcpu);
	CHECK_EQ(*GUEST_VAR(vm, offer), 0);
	machine_destroy();
}

static void behind(void)
{
	run_alone(behind_payload);
}

static void withdrawn(void)
{
	run_alone(withdrawn_payload);
}

static void nested(void)
{
	run_alone(nested_payload);
}

static void ignored(void)
{
	run_alone(ignored_payload);
}

static void moved(void)
{
	run_alone(moved_payload);
}

static void zero(void)
{
	run_alone(zero_payload);
}

static void xapic(void)
{
	run_alone(xapic_payload);
}

/* ---- What the host sees of it ---- */

static void saved_handler(struct trap_frame *frame)
{
	offered_at_first = offer;
	guest_sync(1);
	/* The host has been there: it took the offer back. */
	offered_later = offer;
	plain_handler(frame);
}

static void saved_payload(void)
{
	int i;

	guest_handlers[VECTOR] = saved_handler;
	offer_enable();
	irq_on();
	for (i = 1; i <= WARM_ROUNDS; i++) {
		ipi_self(VECTOR);
		GUEST_EQ(taken[VECTOR], i);
		GUEST_EQ(offered_later, 0);
		GUEST_EQ(spared, 0);
	}
	GUEST_EQ(offered_at_first, 1);
	guest_handlers[VECTOR] = plain_handler;
	ipi_self(VECTOR);
	guest_sync2(2, spared);
	guest_done();
}

static bool isr_has(const struct kvm_lapic_state *state, unsigned int vector)
{
	return (uint8_t)state->regs[0x100 + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1;
}

/* Whoever saves the vCPU in mid-interrupt finds it in service, and no offer in its memory. */
static void saved(void)
{
	struct kvm_lapic_state state;
	struct report report;
	int i;

	if (!machine_create(saved_payload, 0))
		return;
	for (i = 0; i < WARM_ROUNDS; i++) {
		vcpu_sync(vcpu, 1);
		CHECK_EQ(*GUEST_VAR(vm, offer), 0);
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_LAPIC, &state));
		CHECK(isr_has(&state, VECTOR), "the interrupt is not in service");
	}
	CHECK_EQ(vcpu_msr_get(vcpu, MSR_PV_EOI), (uintptr_t)&offer | 1);
	report = vcpu_wait(vcpu);
	if (report.kind != REPORT_SYNC || report.value != 2)
		vcpu_explain(vcpu, &report, "sync 2");
	CHECK_EQ(report.value2, 1);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_LAPIC, &state));
	CHECK(!isr_has(&state, VECTOR), "the interrupt is still in service");
	vcpu_finish(vcpu);
	machine_destroy();
}

static void level_payload(void)
{
	guest_handlers[VECTOR] = behind_handler;
	offer_enable();
	guest_sync(1);
	irq_on();
	irq_off();
	GUEST_EQ(taken[VECTOR], 1);
	GUEST_EQ(offered_later, 0);
	GUEST_EQ(written, 1);
	guest_done();
}

/* The end of a level-triggered interrupt is the IOAPIC's to know. */
static void level(void)
{
	struct kvm_msi msi = { .address_lo = XAPIC, .data = VECTOR | MSI_LEVEL | ICR_ASSERT };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} routing = {
		.head.nr = 1,
		.entry = { .gsi = 5, .type = KVM_IRQ_ROUTING_MSI,
			   .u.msi = { .address_lo = XAPIC, .data = VECTOR | MSI_LEVEL } },
	};

	if (!machine_create(level_payload, 0))
		return;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routing));
	vcpu_sync(vcpu, 1);
	CHECK_EQ(ioctl(vm->fd, KVM_SIGNAL_MSI, &msi), 1);
	if (vcpu_exit(vcpu, KVM_EXIT_IOAPIC_EOI))
		CHECK_EQ(vcpu->run->eoi.vector, VECTOR);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Addresses ---- */

static void addresses_payload(void)
{
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, (uintptr_t)&offer | 2), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, (uintptr_t)&offer | 3), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, GUEST_MMIO | 1), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, ~3ull | 1), TRAP_GP);
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, PAGE_GPA | 1), TRAP_GP);	/* read-only memory */
	GUEST_EQ(rdmsr(MSR_PV_EOI), 0);
	/* Where it is off, it is a number. */
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, GUEST_MMIO), TRAP_NONE);
	GUEST_EQ(rdmsr(MSR_PV_EOI), GUEST_MMIO);
	GUEST_EQ(wrmsr_try(MSR_PV_EOI, 0), TRAP_NONE);
	guest_done();
}

static void addresses(void)
{
	void *page = mmap(NULL, PAGE_SIZE_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	if (!machine_create(addresses_payload, 0))
		return;
	CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE_SLOT, page, KVM_MEM_READONLY));
	vcpu_finish(vcpu);
	CHECK(!vcpu_msr_set(vcpu, MSR_PV_EOI, GUEST_MMIO | 1), "the host may name no memory");
	machine_destroy();
	munmap(page, PAGE_SIZE_SLOT);
}

static void vanished_handler(struct trap_frame *frame)
{
	taken[frame->vector]++;
	wrmsr(X2APIC_EOI, 0);
}

static void vanished_payload(void)
{
	uint64_t i;

	guest_handlers[VECTOR] = vanished_handler;
	x2apic_enable();
	wrmsr(MSR_PV_EOI, PAGE_GPA | 1);
	guest_sync(1);
	irq_on();
	for (i = 1; !quit; i++) {
		ipi_self(VECTOR);
		GUEST_CHECK(taken[VECTOR] >= i + twice);
		twice = taken[VECTOR] - i;
	}
	irq_off();
	GUEST_CHECK(i > ROUNDS);
	guest_done();
}

/* The page comes and goes, read-only at times, and its owner loses it: no interrupt is lost. */
static void vanished(void)
{
	uint64_t end;
	void *page = mmap(NULL, PAGE_SIZE_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	if (!machine_create(vanished_payload, 0))
		return;
	CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE_SLOT, page, 0));
	vcpu_sync(vcpu, 1);
	vcpu_spawn(vcpu);
	end = clock_ns() + 1500000000ull;
	while (clock_ns() < end && !tap_failed()) {
		usleep(1000);
		CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
		CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE_SLOT, page, KVM_MEM_READONLY));
		CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
		CHECK_CALL(vm_slot(vm, 1, PAGE_GPA, PAGE_SIZE_SLOT, page, 0));
		mprotect(page, PAGE_SIZE_SLOT, PROT_NONE);
		usleep(100);
		mprotect(page, PAGE_SIZE_SLOT, PROT_READ | PROT_WRITE);
		madvise(page, PAGE_SIZE_SLOT, MADV_DONTNEED);
	}
	*GUEST_VAR(vm, quit) = 1;
	vcpu_join(vcpu);
	/* The emulated CPU injects some events twice where KVM asks for it once. */
	CHECK(*GUEST_VAR(vm, twice) == 0 || !node_is_moat(), "%llu interrupts came twice",
	      (unsigned long long)*GUEST_VAR(vm, twice));
	machine_destroy();
	munmap(page, PAGE_SIZE_SLOT);
}

static const struct tap_case cases[] = {
	{ "spares_exits", many },
	{ "not_where_one_waits_behind", behind },
	{ "withdrawn_for_a_new_one", withdrawn },
	{ "nested", nested },
	{ "ignored_by_the_guest", ignored },
	{ "moved", moved },
	{ "address_zero", zero },
	{ "xapic", xapic },
	{ "saved_in_mid_interrupt", saved },
	{ "not_for_level_triggered", level },
	{ "addresses", addresses },
	{ "memory_that_vanishes", vanished },
};

TAP_MAIN(cases)
