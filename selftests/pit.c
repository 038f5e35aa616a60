// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The interval timer in the kernel (KVM_CREATE_PIT2): its counters by ports, the ticks that the first
 * makes at GSI 0, those that are made up for, and its state.
 */
#include "guest.h"
#include "pc.h"

#define PIT_HZ		1193182
#define PIT		0x40
#define PIT_CONTROL	0x43
#define SPEAKER		0x61
#define VECTOR		0x51
#define TICK_COUNT	11932	/* 10 ms */
#define SLOW_COUNT	59659	/* 50 ms */

static struct vm *vm;
static struct vcpu *vcpu;

static void machine_create(void *payload, uint64_t arg)
{
	struct kvm_pit_config config = { .flags = KVM_PIT_SPEAKER_DUMMY };

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_PIT2, &config));
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, arg);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static struct kvm_pit_state2 pit_get(void)
{
	struct kvm_pit_state2 state;

	memset(&state, 0xff, sizeof(state));
	CHECK_CALL(ioctl(vm->fd, KVM_GET_PIT2, &state));
	return state;
}

static void reinject(bool on)
{
	struct kvm_reinject_control control = { .pit_reinject = on };

	CHECK_CALL(ioctl(vm->fd, KVM_REINJECT_CONTROL, &control));
}

/* ---- The guest's side ---- */

static void pit_load(unsigned int n, uint8_t mode, uint16_t count)
{
	outb(PIT_CONTROL, n << 6 | 0x30 | mode << 1);
	outb(PIT + n, count);
	outb(PIT + n, count >> 8);
}

static uint16_t pit_count(unsigned int n)
{
	uint8_t low;

	outb(PIT_CONTROL, n << 6);
	low = inb(PIT + n);
	return low | inb(PIT + n) << 8;
}

static void ticks_setup(bool x2)
{
	apic_enable(x2);
	outb(PIC1 + 1, 0xff);
	guest_handlers[VECTOR] = apic_handler;
	ioapic_set(0, VECTOR);
}

/* ---- Creation ---- */

static void creation(void)
{
	struct kvm_pit_config config = { 0 };
	struct kvm_reinject_control control = { 0 };
	struct kvm_pit_state2 state = { 0 };

	CHECK_EQ(node_has(KVM_CAP_PIT2), 1);
	CHECK_EQ(node_has(KVM_CAP_PIT_STATE2), 1);
	CHECK_EQ(node_has(KVM_CAP_REINJECT_CONTROL), 1);
	vm = vm_create_bare();
	/* KVM of Linux 6.1 would make one that ticks for nobody. */
	if (node_is_moat())
		CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_PIT2, &config), ENOENT);
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_PIT2, &state), ENXIO);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_PIT2, &state), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_PIT2, &state), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_REINJECT_CONTROL, &control), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_REINJECT_CONTROL, 8), EFAULT);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_PIT2, &config));
	CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_PIT2, &config), EEXIST);
	CHECK_CALL(ioctl(vm->fd, KVM_REINJECT_CONTROL, &control));
	vm_destroy(vm);
}

/* Without its flag, the speaker's port is userspace's; without a PIT, all of them are. */
static void ports_payload(void)
{
	outb(SPEAKER, 1);
	outb(PIT_CONTROL, 0x34);
	guest_done();
}

static void ports(void)
{
	struct kvm_pit_config config = { 0 };

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_PIT2, &config));
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, ports_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.port, SPEAKER);
	vcpu_finish(vcpu);
	machine_destroy();

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, ports_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.port, SPEAKER);
	vcpu_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.port, PIT_CONTROL);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Counters ---- */

static void counting_payload(void)
{
	uint16_t first, later;

	/* Counts down, and begins anew. */
	pit_load(1, 2, 1000);
	first = pit_count(1);
	GUEST_CHECK(first >= 1 && first <= 1000);
	/* The latched count stays what it was until it is read. */
	outb(PIT_CONTROL, 0x40);
	first = inb(PIT + 1);
	guest_sync(1);
	outb(PIT_CONTROL, 0x40);
	first |= inb(PIT + 1) << 8;
	GUEST_CHECK(first >= 1 && first <= 1000);
	/* One half only. */
	outb(PIT_CONTROL, 0x50 | 2 << 1);
	outb(PIT + 1, 100);
	first = inb(PIT + 1);
	GUEST_CHECK(first >= 1 && first <= 100);
	outb(PIT_CONTROL, 0x60 | 2 << 1);
	outb(PIT + 1, 1);
	GUEST_CHECK(inb(PIT + 1) <= 1);
	/* Goes on counting from 0xffff. */
	pit_load(2, 0, 60000);
	first = pit_count(2);
	later = pit_count(2);
	GUEST_CHECK(later <= first && first <= 60000);
	/* Read-back: status, then count. */
	pit_load(1, 3, 5000);
	outb(PIT_CONTROL, 0xc0 | 1 << 2);
	GUEST_EQ(inb(PIT + 1) & 0x3f, 0x36);
	later = inb(PIT + 1);
	later |= inb(PIT + 1) << 8;
	GUEST_CHECK(later && later <= 5000);
	guest_done();
}

static void counting(void)
{
	machine_create(counting_payload, 0);
	vcpu_sync(vcpu, 1);
	usleep(2000);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* As a kernel measures its TSC: the output of the third counter, at the gate's port. */
static void speaker_payload(void)
{
	uint64_t flips = 0, i;
	uint8_t last, now;

	outb(SPEAKER, 0);
	GUEST_EQ(inb(SPEAKER) & 3, 0);
	outb(SPEAKER, 3);
	GUEST_EQ(inb(SPEAKER) & 3, 3);
	outb(SPEAKER, 1);
	guest_sync(1);
	pit_load(2, 0, 35795);	/* 30 ms */
	GUEST_EQ(inb(SPEAKER) & 0x20, 0);
	while (!(inb(SPEAKER) & 0x20))
		;
	guest_sync(2);
	last = inb(SPEAKER) & 0x10;
	for (i = 0; i < 100000 && flips < 4; i++) {
		now = inb(SPEAKER) & 0x10;
		flips += now != last;
		last = now;
	}
	GUEST_EQ(flips, 4);
	guest_done();
}

static void speaker(void)
{
	uint64_t start, took;

	machine_create(speaker_payload, 0);
	vcpu_sync(vcpu, 1);
	start = clock_ns();
	vcpu_sync(vcpu, 2);
	took = clock_ns() - start;
	CHECK(took >= 30000000, "30 ms took %llu us", (unsigned long long)took / 1000);
	CHECK_EQ(pit_get().flags, 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Ticks ---- */

static void periodic_payload(uint64_t mode)
{
	ticks_setup(mode & 1);
	pit_load(0, mode, TICK_COUNT);
	taken_halt(VECTOR, 10);
	/* Stopped by a single tick that is masked. */
	ioapic_set(0, VECTOR | ENTRY_MASKED);
	pit_load(0, 0, 1);
	guest_done();
}

static void periodic(void)
{
	uint64_t mode, start, took;

	for (mode = 2; mode <= 3; mode++) {
		machine_create(periodic_payload, mode);
		start = clock_ns();
		vcpu_finish(vcpu);
		took = clock_ns() - start;
		CHECK(took >= 100000000, "10 ticks of 10 ms took %llu us",
		      (unsigned long long)took / 1000);
		machine_destroy();
	}
}

static void oneshot_payload(uint64_t mode)
{
	uint64_t i;

	ticks_setup(false);
	for (i = 1; i <= 3; i++) {
		guest_sync(i);
		pit_load(0, mode, TICK_COUNT);
		taken_halt(VECTOR, i);
	}
	guest_sync(i);
	irq_on();
	GUEST_EQ(pc_taken[VECTOR], 3);
	guest_done();
}

static void oneshot(void)
{
	uint64_t i, start;

	machine_create(oneshot_payload, 0);
	vcpu_sync(vcpu, 1);
	for (i = 2; i <= 4; i++) {
		start = clock_ns();
		vcpu_sync(vcpu, i);
		CHECK(clock_ns() - start >= 10000000, "too early");
	}
	usleep(50000);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* By way of the PIC, as a PC starts. */
static void pic_payload(void)
{
	guest_handlers[PIC_BASE] = pic_handler;
	pic_setup(0xfffe, 0);
	pit_load(0, 2, TICK_COUNT);
	taken_halt(PIC_BASE, 5);
	guest_done();
}

static void ticks_by_pic(void)
{
	machine_create(pic_payload, 0);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* A count of 1 would be a million ticks a second. */
static void fast_payload(void)
{
	ticks_setup(false);
	guest_sync(1);
	pit_load(0, 2, 1);
	taken_halt(VECTOR, 50);
	guest_sync(2);
	guest_done();
}

static void period_has_a_minimum(void)
{
	uint64_t start, took;

	machine_create(fast_payload, 0);
	reinject(false);
	vcpu_sync(vcpu, 1);
	start = clock_ns();
	vcpu_sync(vcpu, 2);
	took = clock_ns() - start;
	CHECK(took >= 50 * 150000ull, "50 ticks took %llu us", (unsigned long long)took / 1000);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Ticks while the guest does something else ---- */

static volatile uint64_t tick_late;

static void missed_payload(uint64_t by_pic)
{
	unsigned int vector = by_pic ? PIC_BASE : VECTOR;
	uint64_t until;

	if (by_pic) {
		guest_handlers[PIC_BASE] = pic_handler;
		pic_setup(0xfffe, 0);
	} else {
		ticks_setup(true);
	}
	pit_load(0, 2, TICK_COUNT);
	taken_halt(vector, 1);
	irq_off();
	guest_sync(1);		/* the host lets 600 ms pass */
	until = rdtsc() + 200000000;
	irq_on();
	while (rdtsc() < until)
		cpu_pause();
	irq_off();
	guest_sync2(2, pc_taken[vector]);
	guest_done();
}

static uint64_t missed(uint64_t by_pic, bool on)
{
	struct report report;

	machine_create(missed_payload, by_pic);
	reinject(on);
	vcpu_sync(vcpu, 1);
	usleep(600000);
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_SYNC && report.value == 2, "no report");
	vcpu_finish(vcpu);
	machine_destroy();
	return report.value2;
}

static void reinjection(void)
{
	uint64_t by_pic, n;

	for (by_pic = 0; by_pic < 2; by_pic++) {
		n = missed(by_pic, true);
		CHECK(n >= 55, "only %llu ticks of at least 60", (unsigned long long)n);
		n = missed(by_pic, false);
		CHECK(n <= 40, "%llu ticks where they may get lost", (unsigned long long)n);
	}
}

/* Those that came while its line was masked are not made up for. */
static void masked_payload(void)
{
	ticks_setup(false);
	ioapic_set(0, VECTOR | ENTRY_MASKED);
	pit_load(0, 2, SLOW_COUNT);
	guest_sync(1);		/* the host lets 600 ms pass */
	ioapic_set(0, VECTOR);
	taken_halt(VECTOR, 3);
	guest_sync2(2, pc_taken[VECTOR]);
	guest_done();
}

static void masked(void)
{
	struct report report;

	machine_create(masked_payload, 0);
	vcpu_sync(vcpu, 1);
	usleep(600000);
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_SYNC && report.value == 2, "no report");
	CHECK(report.value2 <= 11, "%llu ticks at once", (unsigned long long)report.value2);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- State ---- */

static void state_payload(void)
{
	ticks_setup(false);
	guest_sync(1);
	taken_halt(VECTOR, 3);
	guest_sync(2);
	irq_on();
	guest_sync(3);
	irq_off();
	taken_halt(VECTOR, 5);
	guest_done();
}

static void state(void)
{
	struct kvm_pit_state2 in, out;
	unsigned int i;

	machine_create(state_payload, 0);
	vcpu_sync(vcpu, 1);
	in = pit_get();
	for (i = 0; i < 3; i++) {
		CHECK_EQ(in.channels[i].count, 65536);
		CHECK_EQ(in.channels[i].gate, i != 2);
		CHECK_EQ(in.channels[i].mode, 0xff);
	}
	CHECK_EQ(in.flags, 0);
	for (i = 0; i < 9; i++)
		CHECK_EQ(in.reserved[i], 0);
	for (i = 0; i < 3; i++)
		in.channels[i] = (struct kvm_pit_channel_state) {
			.count = TICK_COUNT + i, .latched_count = 77 + i, .count_latched = 3,
			.status_latched = 1, .status = 0x36, .read_state = 4, .write_state = 4,
			.write_latch = 0x12, .rw_mode = 3, .mode = i ? 3 : 2, .gate = 1,
			.count_load_time = clock_ns(),
		};
	in.flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_PIT2, &in));
	out = pit_get();
	for (i = 0; i < 3; i++) {
		/* KVM loads the counts anew. */
		if (!node_is_moat())
			out.channels[i].count_load_time = in.channels[i].count_load_time;
		CHECK(!memcmp(&in.channels[i], &out.channels[i], sizeof(in.channels[i])),
		      "counter %u: another state than was set", i);
	}
	CHECK_EQ(out.flags, in.flags);
	/* It ticks. */
	vcpu_sync(vcpu, 2);
	/* The HPET has its line. */
	in = pit_get();
	in.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_PIT2, &in));
	usleep(20000);
	CHECK_EQ(pit_get().flags, KVM_PIT_FLAGS_HPET_LEGACY);
	usleep(50000);
	vcpu_sync(vcpu, 3);
	CHECK((*GUEST_VAR(vm, pc_taken))[VECTOR] <= 4, "it ticks on: %llu",
	      (unsigned long long)(*GUEST_VAR(vm, pc_taken))[VECTOR]);
	in.flags = 0;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_PIT2, &in));
	vcpu_finish(vcpu);
	machine_destroy();
}

/* A single tick whose time is long over may never have been seen: it comes again. */
static void state_oneshot_payload(void)
{
	ticks_setup(false);
	guest_sync(1);
	taken_halt(VECTOR, 1);
	guest_done();
}

static void state_oneshot(void)
{
	struct kvm_pit_state2 in;

	machine_create(state_oneshot_payload, 0);
	vcpu_sync(vcpu, 1);
	in = pit_get();
	in.channels[0].mode = 0;
	in.channels[0].count = TICK_COUNT;
	in.channels[0].count_load_time = 1;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_PIT2, &in));
	vcpu_finish(vcpu);
	machine_destroy();
}

static void hostile_payload(void)
{
	unsigned int i, n;

	for (i = 0; i < 256; i += 15) {
		for (n = 0; n < 4; n++) {
			outb(PIT + n, i);
			inb(PIT + n);
		}
		outb(SPEAKER, i);
		inb(SPEAKER);
	}
	guest_done();
}

/* No state makes the kernel divide by zero, or tick without end. */
static void hostile_state(void)
{
	static const int64_t times[] = { 0, -1, INT64_MIN, INT64_MAX, 1 };
	struct kvm_pit_state2 in;
	unsigned int i, n, mode;

	machine_create(hostile_payload, 0);
	for (i = 0; i < ARRAY_SIZE(times); i++)
		for (mode = 0; mode < 8; mode++) {
			memset(&in, 0xff, sizeof(in));
			for (n = 0; n < 3; n++) {
				in.channels[n].count = i % 2;
				in.channels[n].mode = mode;
				in.channels[n].count_load_time = times[i];
			}
			in.flags = 0;
			CHECK_CALL(ioctl(vm->fd, KVM_SET_PIT2, &in));
			vcpu_set_long(vcpu, hostile_payload, 0);
			vcpu_finish(vcpu);
		}
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "creation", creation },
	{ "ports", ports },
	{ "counting", counting },
	{ "speaker", speaker },
	{ "periodic", periodic },
	{ "oneshot", oneshot },
	{ "ticks_by_pic", ticks_by_pic },
	{ "period_has_a_minimum", period_has_a_minimum },
	{ "reinjection", reinjection },
	{ "masked", masked },
	{ "state", state },
	{ "state_oneshot", state_oneshot },
	{ "hostile_state", hostile_state },
};

TAP_MAIN(cases)
