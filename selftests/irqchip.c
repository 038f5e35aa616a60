// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The interrupt controllers of a PC in the kernel (KVM_CREATE_IRQCHIP): I/O APIC, the two PICs,
 * routing of lines to their pins, and what KVM_IRQ_LINE_STATUS answers.
 */
#include "guest.h"
#include "pc.h"

#define VECTOR		0x51
#define VECTOR_TWO	0x61
#define LINE		5
#define MAX_VCPUS	3
#define AP_CODE		0x8000
#define AP_MARK		0x9000

static struct vm *vm;
static struct vcpu *vcpus[MAX_VCPUS];
static volatile uint64_t ready, quit, seen;

static void machine_create(unsigned int n, void *payload, uint64_t arg)
{
	unsigned int i;

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	for (i = 0; i < n; i++)
		vcpus[i] = vcpu_create(vm, i);
	vcpu_set_long(vcpus[0], payload, arg);
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

static void vcpu_make_runnable(struct vcpu *vcpu)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };

	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state));
}

/* KVM_IRQ_LINE_STATUS: its answer. */
static int line(uint32_t gsi, uint32_t level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	CHECK_CALL(ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &line));
	return line.status;
}

static void line_quiet(uint32_t gsi, uint32_t level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	CHECK_CALL(ioctl(vm->fd, KVM_IRQ_LINE, &line));
}

static struct kvm_irqchip chip_get(uint32_t id)
{
	struct kvm_irqchip chip = { .chip_id = id };

	CHECK_CALL(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
	return chip;
}

static void chip_set(const struct kvm_irqchip *chip)
{
	CHECK_CALL(ioctl(vm->fd, KVM_SET_IRQCHIP, chip));
}

/* ---- Creation ---- */

static void creation(void)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_irq_level line = { .irq = LINE };
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_irq_routing empty = { 0 };

	CHECK_EQ(node_has(KVM_CAP_IRQCHIP), 1);
	CHECK_EQ(node_has(KVM_CAP_IRQ_INJECT_STATUS), 1);
	vm = vm_create_bare();
	CHECK_ERRNO(ioctl(vm->fd, KVM_IRQ_LINE, &line), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_IRQ_LINE_STATUS, &line), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_IRQCHIP, &chip), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &empty), EINVAL);
	CHECK_CALL(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
	CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), EEXIST);
	CHECK_ERRNO(ioctl(vm->fd, KVM_ENABLE_CAP, &split), EEXIST);
	chip.chip_id = 3;
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_IRQCHIP, &chip), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_IRQCHIP, 8), EFAULT);
	vm_destroy(vm);

	vm = vm_create_bare();
	CHECK_CALL(ioctl(vm->fd, KVM_ENABLE_CAP, &split));
	CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), EEXIST);
	chip.chip_id = KVM_IRQCHIP_IOAPIC;
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip), ENXIO);
	vm_destroy(vm);

	vm = vm_create_bare();
	vcpu_create(vm, 0);
	CHECK_ERRNO(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), EINVAL);
	vm_destroy(vm);
}

/* The PICs are the kernel's: userspace has nothing to inject, and no window to wait for. */
static void window_payload(void)
{
	irq_on();
	guest_sync(1);
	guest_done();
}

static void no_window(void)
{
	struct kvm_interrupt irq = { .irq = VECTOR };

	machine_create(1, window_payload, 0);
	vcpus[0]->run->request_interrupt_window = 1;
	vcpu_sync(vcpus[0], 1);
	CHECK_EQ(vcpus[0]->run->ready_for_interrupt_injection, 1);
	CHECK_ERRNO(ioctl(vcpus[0]->fd, KVM_INTERRUPT, &irq), ENXIO);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* ---- I/O APIC ---- */

static void ioapic_registers_payload(void)
{
	unsigned int pin;

	GUEST_EQ(ioapic_read(IOAPIC_VERSION), 0x170011);
	ioapic_write(IOAPIC_VERSION, 0);
	GUEST_EQ(ioapic_read(IOAPIC_VERSION), 0x170011);
	GUEST_EQ(ioapic_read(IOAPIC_ID), 0);
	ioapic_write(IOAPIC_ID, 0xff000000);
	GUEST_EQ(ioapic_read(IOAPIC_ID), 0x0f000000);
	for (pin = 0; pin < 24; pin++)
		GUEST_EQ(ioapic_entry(pin), ENTRY_MASKED);
	ioapic_set(LINE, ENTRY_DEST(3) | ENTRY_MASKED | ENTRY_LEVEL | 0x7000 | VECTOR);
	/* Delivery status and remote IRR cannot be written. */
	GUEST_EQ(ioapic_entry(LINE), ENTRY_DEST(3) | ENTRY_MASKED | ENTRY_LEVEL | 0x2000 | VECTOR);
	GUEST_EQ(ioapic_read(IOAPIC_ENTRY + 2 * 24), 0xffffffff);
	ioapic_write(IOAPIC_ENTRY + 2 * 24, 0x1234);
	ioapic_write(0xff, 0x1234);
	/* The register's number is a byte, whatever the width of the access. */
	*(volatile uint32_t *)IOAPIC = 0xabcdef01;
	GUEST_EQ(*(volatile uint32_t *)IOAPIC, 1);
	*(volatile uint8_t *)IOAPIC = IOAPIC_ID;
	GUEST_EQ(*(volatile uint32_t *)(IOAPIC + 0x10), 0x0f000000);
	/* Between the registers there is nothing. */
	*(volatile uint32_t *)(IOAPIC + 0x20) = ~0u;
	GUEST_EQ(*(volatile uint32_t *)(IOAPIC + 0x20), 0);
	guest_done();
}

static void ioapic_registers(void)
{
	machine_create(1, ioapic_registers_payload, 0);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void edge_payload(uint64_t x2)
{
	apic_enable(x2);
	outb(PIC1 + 1, 0xff);
	guest_handlers[VECTOR] = apic_handler;
	ioapic_set(LINE, VECTOR);
	irq_on();
	guest_sync(1);
	taken_wait(VECTOR, 1);
	guest_sync(2);
	GUEST_EQ(pc_taken[VECTOR], 1);
	guest_sync(3);
	taken_wait(VECTOR, 2);
	ioapic_set(LINE, VECTOR | ENTRY_MASKED);
	guest_sync(4);
	/* What came while the entry was masked is lost. */
	ioapic_set(LINE, VECTOR);
	guest_sync(5);
	GUEST_EQ(pc_taken[VECTOR], 2);
	irq_off();
	guest_sync(6);
	taken_halt(VECTOR, 3);
	guest_done();
}

static void edge(uint64_t x2)
{
	machine_create(1, edge_payload, x2);
	vcpu_sync(vcpus[0], 1);
	CHECK_EQ(line(LINE, 1), 1);
	vcpu_sync(vcpus[0], 2);
	/* It is up already. */
	CHECK_EQ(line(LINE, 1), 0);
	vcpu_sync(vcpus[0], 3);
	CHECK_EQ(line(LINE, 0), 1);
	CHECK_EQ(line(LINE, 7), 1);
	line_quiet(LINE, 0);
	vcpu_sync(vcpus[0], 4);
	CHECK_EQ(line(LINE, 1), -1);
	vcpu_sync(vcpus[0], 5);
	line_quiet(LINE, 0);
	vcpu_sync(vcpus[0], 6);
	line_quiet(LINE, 1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void ioapic_edge(void)
{
	edge(0);
	edge(1);
}

static void level_handler(struct trap_frame *frame)
{
	pc_taken[frame->vector]++;
	GUEST_EQ(ioapic_entry(LINE) & ENTRY_REMOTE, ENTRY_REMOTE);
	guest_sync2(100, pc_taken[frame->vector]);
	apic_write(APIC_EOI, 0);
}

static void level_payload(uint64_t x2)
{
	apic_enable(x2);
	outb(PIC1 + 1, 0xff);
	guest_handlers[VECTOR] = level_handler;
	ioapic_set(LINE, VECTOR | ENTRY_LEVEL);
	irq_on();
	guest_sync(1);
	taken_wait(VECTOR, 3);
	GUEST_EQ(ioapic_entry(LINE) & ENTRY_REMOTE, 0);
	/* Raised while masked: it comes when the mask goes. */
	ioapic_set(LINE, VECTOR | ENTRY_LEVEL | ENTRY_MASKED);
	guest_sync(2);
	GUEST_EQ(pc_taken[VECTOR], 3);
	ioapic_set(LINE, VECTOR | ENTRY_LEVEL);
	taken_wait(VECTOR, 4);
	/* Taken, not ended, and put right by way of edge mode. */
	irq_off();
	guest_sync(3);
	GUEST_EQ(ioapic_entry(LINE) & ENTRY_REMOTE, ENTRY_REMOTE);
	ioapic_set(LINE, VECTOR | ENTRY_MASKED);
	ioapic_set(LINE, VECTOR | ENTRY_LEVEL | ENTRY_MASKED);
	GUEST_EQ(ioapic_entry(LINE) & ENTRY_REMOTE, 0);
	guest_done();
}

static void level(uint64_t x2)
{
	machine_create(1, level_payload, x2);
	vcpu_sync(vcpus[0], 1);
	CHECK_EQ(line(LINE, 1), 1);
	vcpu_sync(vcpus[0], 100);
	/* Being handled. */
	CHECK_EQ(line(LINE, 1), -1);
	/* Still up at the end: again. */
	vcpu_sync(vcpus[0], 100);
	vcpu_sync(vcpus[0], 100);
	line_quiet(LINE, 0);
	vcpu_sync(vcpus[0], 2);
	CHECK_EQ(line(LINE, 1), -1);
	vcpu_sync(vcpus[0], 100);
	line_quiet(LINE, 0);
	vcpu_sync(vcpus[0], 3);
	CHECK_EQ(line(LINE, 1), 1);
	line_quiet(LINE, 0);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void ioapic_level(void)
{
	level(0);
	level(1);
}

/* ---- Other vCPUs ---- */

static void target_handler(struct trap_frame *frame)
{
	seen = apic_read(APIC_ID) >> 24;
	apic_handler(frame);
}

static void target_payload(uint64_t id)
{
	apic_enable(false);
	apic_write(APIC_LDR, 1u << (24 + id));
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!quit)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

/* A level by turns at each vCPU, physically and logically, all but the first halted. */
static void targets_payload(void)
{
	uint64_t i, n = 0;

	apic_enable(false);
	apic_write(APIC_LDR, 1u << 24);
	outb(PIC1 + 1, 0xff);
	guest_handlers[VECTOR] = target_handler;
	irq_on();
	while (ready < MAX_VCPUS - 1)
		cpu_pause();
	for (i = 0; i < 20 * MAX_VCPUS; i++) {
		uint64_t id = i % MAX_VCPUS;

		if (i % 2)
			ioapic_set(LINE, ENTRY_DEST(1 << id) | ENTRY_LOGICAL | ENTRY_LEVEL | VECTOR);
		else
			ioapic_set(LINE, ENTRY_DEST(id) | ENTRY_LEVEL | VECTOR);
		guest_sync(1);
		taken_wait(VECTOR, ++n);
		GUEST_EQ(seen, id);
		/* All its ends have been seen: the line is down. */
		while (ioapic_entry(LINE) & ENTRY_REMOTE)
			cpu_pause();
		n = pc_taken[VECTOR];
	}
	/* Lowest priority of all: one takes it. Fixed: each. */
	ioapic_set(LINE, ENTRY_DEST(0xff) | ENTRY_LOGICAL | 0x100 | VECTOR_TWO);
	guest_sync(2);
	taken_wait(VECTOR_TWO, 1);
	ioapic_set(LINE, ENTRY_DEST(0xff) | VECTOR_TWO);
	guest_sync(2);
	taken_wait(VECTOR_TWO, 1 + MAX_VCPUS);
	GUEST_EQ(pc_taken[VECTOR_TWO], 1 + MAX_VCPUS);
	quit = 1;
	ioapic_set(LINE, ENTRY_DEST(0xff) | VECTOR_TWO);
	guest_sync(2);
	guest_done();
}

static void ioapic_targets(void)
{
	struct report report;
	unsigned int i;

	machine_create(MAX_VCPUS, targets_payload, 0);
	for (i = 1; i < MAX_VCPUS; i++) {
		vcpu_set_long(vcpus[i], target_payload, i);
		vcpu_make_runnable(vcpus[i]);
		vcpu_spawn(vcpus[i]);
	}
	*(guest_handler **)(vm->ram + (uintptr_t)&guest_handlers[VECTOR_TWO]) = apic_handler;
	for (;;) {
		report = vcpu_wait(vcpus[0]);
		if (report.kind != REPORT_SYNC)
			break;
		line_quiet(LINE, 1);
		line_quiet(LINE, 0);
	}
	if (report.kind != REPORT_DONE)
		vcpu_explain(vcpus[0], &report, "the payload's end");
	*GUEST_VAR(vm, quit) = 1;
	line_quiet(LINE, 1);
	for (i = 1; i < MAX_VCPUS; i++)
		vcpu_join(vcpus[i]);
	machine_destroy();
}

/* ---- The clock's line ---- */

static void rtc_payload(void)
{
	apic_enable(false);
	outb(PIC2 + 1, 0xff);
	guest_handlers[VECTOR] = apic_handler;
	ioapic_set(8, VECTOR);
	guest_sync(1);
	GUEST_EQ(apic_vector(APIC_IRR, VECTOR), 1);
	irq_on();
	GUEST_EQ(pc_taken[VECTOR], 1);
	irq_off();
	guest_sync(2);
	irq_on();
	GUEST_EQ(pc_taken[VECTOR], 2);
	ioapic_set(8, VECTOR | ENTRY_MASKED);
	guest_sync(3);
	guest_done();
}

/* Until the guest has ended it, another tick is none: who asks for the status makes up for it. */
static void rtc_coalescing(void)
{
	machine_create(1, rtc_payload, 0);
	vcpu_sync(vcpus[0], 1);
	CHECK_EQ(line(8, 1), 1);
	line(8, 0);
	CHECK_EQ(line(8, 1), 0);
	line(8, 0);
	CHECK_EQ(line(8, 1), 0);
	line(8, 0);
	vcpu_sync(vcpus[0], 2);
	CHECK_EQ(line(8, 1), 1);
	line(8, 0);
	CHECK_EQ(line(8, 1), 0);
	line(8, 0);
	vcpu_sync(vcpus[0], 3);
	CHECK_EQ(line(8, 1), -1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* ---- PICs ---- */

static void pic_registers_payload(void)
{
	pic_setup(0xa55a, 0);
	GUEST_EQ(inb(PIC1 + 1), 0x5a);
	GUEST_EQ(inb(PIC2 + 1), 0xa5);
	GUEST_EQ(pic_isr(PIC1), 0);
	GUEST_EQ(pic_irr(PIC2), 0);
	outb(ELCR, 0xff);
	outb(ELCR + 1, 0xff);
	GUEST_EQ(inb(ELCR), 0xf8);
	GUEST_EQ(inb(ELCR + 1), 0xde);
	/* Bytes only. */
	outw(PIC1, 0xffff);
	GUEST_EQ(inb(PIC1 + 1), 0x5a);
	/* By a string instruction, too. */
	__asm__ volatile("rep outsb" : : "d"(PIC1 + 1), "S"("\x12\x34"), "c"(2) : "memory");
	GUEST_EQ(inb(PIC1 + 1), 0x34);
	guest_done();
}

static void pic_registers(void)
{
	machine_create(1, pic_registers_payload, 0);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void pic_payload(uint64_t how)
{
	static const unsigned int lines[] = { 0, 3, 7, 8, 12, 15 };
	unsigned int i, vector;

	for (vector = PIC_BASE; vector < PIC_BASE + 16; vector++)
		guest_handlers[vector] = pic_handler;
	/* Through LVT0, as after reset, or with the APIC off. */
	if (how)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~(uint64_t)BASE_ENABLE);
	pic_setup(0, 0);
	for (i = 0; i < 6; i++) {
		vector = PIC_BASE + lines[i];
		guest_sync2(1, lines[i]);
		irq_on();
		GUEST_EQ(pc_taken[vector], 1);
		irq_off();
		guest_sync2(1, lines[i]);
		taken_halt(vector, 2);
		GUEST_EQ(pic_isr(PIC1), 0);
		GUEST_EQ(pic_isr(PIC2), 0);
	}
	guest_done();
}

static void pic_lines(uint64_t how)
{
	struct report report;

	machine_create(1, pic_payload, how);
	for (;;) {
		report = vcpu_wait(vcpus[0]);
		if (report.kind != REPORT_SYNC)
			break;
		CHECK_EQ(line(report.value2, 1), 1);
		line_quiet(report.value2, 0);
		CHECK_EQ(line(report.value2, 1), 0);
		line_quiet(report.value2, 0);
	}
	if (report.kind != REPORT_DONE)
		vcpu_explain(vcpus[0], &report, "the payload's end");
	machine_destroy();
}

static void pic_by_lvt0(void)
{
	pic_lines(0);
}

static void pic_without_apic(void)
{
	pic_lines(1);
}

static volatile uint64_t order[8], order_count;

static void order_handler(struct trap_frame *frame)
{
	order[order_count++] = frame->vector - PIC_BASE;
	pic_handler(frame);
}

static void order_is(uint64_t a, uint64_t b, uint64_t c)
{
	GUEST_EQ(order_count, 3);
	GUEST_EQ(order[0], a);
	GUEST_EQ(order[1], b);
	GUEST_EQ(order[2], c);
	order_count = 0;
}

static void priority_payload(void)
{
	unsigned int vector;

	for (vector = PIC_BASE; vector < PIC_BASE + 16; vector++)
		guest_handlers[vector] = order_handler;
	pic_setup(0, 0);
	guest_sync(1);
	GUEST_EQ(pic_irr(PIC1), 0x2c);
	irq_on();
	irq_off();
	order_is(10, 3, 5);	/* the second chip is at pin 2 */
	/* Pin 4 is the lowest: 5, 6, 7, 0 and so on to 4. */
	outb(PIC1, 0xc4);
	guest_sync(1);
	irq_on();
	irq_off();
	order_is(5, 10, 3);
	/* Masked, and let through again. */
	outb(PIC1, 0xc7);
	outb(PIC1 + 1, 0x08);
	guest_sync(1);
	irq_on();
	irq_off();
	GUEST_EQ(order_count, 2);
	outb(PIC1 + 1, 0);
	irq_on();
	irq_off();
	order_is(10, 5, 3);
	guest_done();
}

static void pic_priorities(void)
{
	static const unsigned int lines[] = { 5, 3, 10 };
	unsigned int i, round;

	machine_create(1, priority_payload, 0);
	for (round = 0; round < 3; round++) {
		vcpu_sync(vcpus[0], 1);
		for (i = 0; i < 3; i++) {
			line_quiet(lines[i], 1);
			line_quiet(lines[i], 0);
		}
	}
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* In service until it is ended: lower ones wait, higher ones come. */
static void nested_handler(struct trap_frame *frame)
{
	order[order_count++] = frame->vector - PIC_BASE;
	if (frame->vector == PIC_BASE + 5) {
		GUEST_EQ(pic_isr(PIC1), 0x20);
		guest_sync(2);
		irq_on();
		irq_off();
		GUEST_EQ(order_count, 2);
	}
	outb(PIC1, 0x60 | (frame->vector - PIC_BASE));	/* the end of this one */
}

static void nested_payload(void)
{
	guest_handlers[PIC_BASE + 3] = nested_handler;
	guest_handlers[PIC_BASE + 5] = nested_handler;
	guest_handlers[PIC_BASE + 6] = nested_handler;
	pic_setup(0, 0);
	guest_sync(1);
	irq_on();
	irq_off();
	order_is(5, 3, 6);
	guest_done();
}

static void pic_nested(void)
{
	machine_create(1, nested_payload, 0);
	vcpu_sync(vcpus[0], 1);
	line_quiet(5, 1);
	vcpu_sync(vcpus[0], 2);
	line_quiet(6, 1);
	line_quiet(3, 1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

static void mode_handler(struct trap_frame *frame)
{
	pc_taken[frame->vector]++;
}

static void level_pic_handler(struct trap_frame *frame)
{
	if (pc_taken[frame->vector] == 2)
		guest_sync(3);
	pic_handler(frame);
}

static void mode_payload(void)
{
	guest_handlers[PIC_BASE + 5] = mode_handler;
	/* Automatic end. */
	pic_setup(0, 2);
	guest_sync(1);
	irq_on();
	irq_off();
	GUEST_EQ(pc_taken[PIC_BASE + 5], 1);
	GUEST_EQ(pic_isr(PIC1), 0);
	/* Level: comes as long as the line is up; gone with it. */
	guest_handlers[PIC_BASE + 5] = level_pic_handler;
	outb(ELCR, 0x20);
	pic_setup(0, 0);
	guest_sync(2);
	GUEST_EQ(pic_irr(PIC1), 0x20);
	irq_on();
	taken_wait(PIC_BASE + 5, 3);
	irq_off();
	GUEST_EQ(pc_taken[PIC_BASE + 5], 3);
	GUEST_EQ(pic_irr(PIC1), 0);
	/* Polled. */
	outb(ELCR, 0);
	pic_setup(0, 0);
	outb(PIC1, 0x0c);
	GUEST_EQ(inb(PIC1) & 0x80, 0);
	guest_sync(4);
	outb(PIC1, 0x0c);
	GUEST_EQ(inb(PIC1) & 7, 5);
	GUEST_EQ(pic_irr(PIC1), 0);
	GUEST_EQ(pic_isr(PIC1), 0);
	guest_done();
}

static void pic_modes(void)
{
	machine_create(1, mode_payload, 0);
	vcpu_sync(vcpus[0], 1);
	line_quiet(5, 1);
	line_quiet(5, 0);
	vcpu_sync(vcpus[0], 2);
	line_quiet(5, 1);
	vcpu_sync(vcpus[0], 3);
	line_quiet(5, 0);
	vcpu_sync(vcpus[0], 4);
	line_quiet(5, 1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* Asked for while LVT0 was masked: it comes when LVT0 opens. */
static void lvt0_payload(void)
{
	guest_handlers[PIC_BASE + 4] = pic_handler;
	apic_enable(false);
	pic_setup(0, 0);
	irq_on();
	guest_sync(1);
	GUEST_EQ(pc_taken[PIC_BASE + 4], 0);
	apic_write(APIC_LVT0, LVT_EXTINT);
	GUEST_EQ(pc_taken[PIC_BASE + 4], 1);
	guest_done();
}

static void pic_lvt0_opens(void)
{
	if (!node_is_moat())
		SKIP("KVM does not look again when LVT0 changes");
	machine_create(1, lvt0_payload, 0);
	vcpu_sync(vcpus[0], 1);
	line_quiet(4, 1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* ---- Routing ---- */

struct table {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entry[4];
};

static void route_pin(struct table *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	table->entry[table->head.nr++] = (struct kvm_irq_routing_entry) {
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { chip, pin },
	};
}

static void route_msi(struct table *table, uint32_t gsi, uint8_t vector)
{
	table->entry[table->head.nr++] = (struct kvm_irq_routing_entry) {
		.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { XAPIC, 0, vector },
	};
}

static void routing_errors(void)
{
	struct table table = { 0 };
	struct kvm_irq_routing too_many = { .nr = 1u << 20 };

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &too_many), EINVAL);
	/* One pin of each chip. */
	route_pin(&table, 40, KVM_IRQCHIP_PIC_MASTER, 7);
	route_pin(&table, 40, KVM_IRQCHIP_PIC_SLAVE, 7);
	route_pin(&table, 40, KVM_IRQCHIP_IOAPIC, 23);
	route_msi(&table, 41, VECTOR);
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	table.head.flags = 1;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.head.flags = 0;
	table.entry[1].u.irqchip.irqchip = KVM_IRQCHIP_PIC_MASTER;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[1].u.irqchip.irqchip = 3;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[1].u.irqchip.irqchip = KVM_IRQCHIP_PIC_SLAVE;
	table.entry[1].u.irqchip.pin = 8;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[1].u.irqchip.pin = 7;
	table.entry[2].u.irqchip.pin = 24;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[2].u.irqchip.pin = 23;
	table.entry[2].flags = 1;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[2].flags = 0;
	/* A message and a pin, either way round. */
	table.entry[3].gsi = 40;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.entry[0] = table.entry[3];
	table.head.nr = 2;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	table.head.nr = 1;
	table.entry[0].gsi = 4095;
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	table.entry[0].gsi = 4096;
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	vm_destroy(vm);
	/* No chips, no pins. */
	vm = vm_create(GUEST_RAM, IRQCHIP_SPLIT);
	table.head.nr = 0;
	route_pin(&table, 40, KVM_IRQCHIP_IOAPIC, 3);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table), EINVAL);
	vm_destroy(vm);
}

static void routing_payload(void)
{
	apic_enable(false);
	guest_handlers[VECTOR] = apic_handler;
	guest_handlers[VECTOR_TWO] = apic_handler;
	guest_handlers[PIC_BASE + 3] = pic_handler;
	apic_write(APIC_LVT0, LVT_EXTINT);
	pic_setup(0, 0);
	ioapic_set(20, VECTOR);
	irq_on();
	guest_sync(1);
	GUEST_EQ(pc_taken[VECTOR], 1);
	GUEST_EQ(pc_taken[PIC_BASE + 3], 1);
	guest_sync(2);
	GUEST_EQ(pc_taken[VECTOR_TWO], 1);
	GUEST_EQ(pc_taken[VECTOR], 1);
	guest_done();
}

static void routing(void)
{
	struct table table = { 0 };

	machine_create(1, routing_payload, 0);
	route_pin(&table, 100, KVM_IRQCHIP_IOAPIC, 20);
	route_pin(&table, 100, KVM_IRQCHIP_PIC_MASTER, 3);
	route_msi(&table, 7, VECTOR_TWO);
	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
	vcpu_sync(vcpus[0], 1);
	CHECK_EQ(line(100, 1), 2);
	CHECK_EQ(line(100, 0), 2);
	vcpu_sync(vcpus[0], 2);
	CHECK_EQ(line(7, 1), 1);
	CHECK_EQ(line(7, 0), -1);
	/* Routed no more, never routed, out of range. */
	CHECK_EQ(line(LINE, 1), -1);
	CHECK_EQ(line(99, 1), -1);
	CHECK_EQ(line(1u << 30, 1), -1);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* ---- State ---- */

static void ioapic_state(void)
{
	struct kvm_irqchip a, b;
	unsigned int i;

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	a = chip_get(KVM_IRQCHIP_IOAPIC);
	CHECK_EQ(a.chip.ioapic.base_address, IOAPIC);
	for (i = 0; i < 24; i++) {
		CHECK_EQ(a.chip.ioapic.redirtbl[i].bits, ENTRY_MASKED);
		a.chip.ioapic.redirtbl[i].bits = ENTRY_DEST(i) | ENTRY_MASKED | (0x30 + i);
	}
	a.chip.ioapic.redirtbl[7].bits |= ENTRY_LEVEL | ENTRY_REMOTE;
	a.chip.ioapic.ioregsel = 0x12;
	a.chip.ioapic.id = 5;
	a.chip.ioapic.irr = 0x81;
	chip_set(&a);
	b = chip_get(KVM_IRQCHIP_IOAPIC);
	CHECK(!memcmp(&a, &b, sizeof(a)), "the state that was set is another now");
	line_quiet(7, 0);
	b = chip_get(KVM_IRQCHIP_IOAPIC);
	CHECK_EQ(b.chip.ioapic.irr, 0x01);
	vm_destroy(vm);
}

static void pic_state(void)
{
	struct kvm_irqchip a, b;
	uint32_t id;

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	for (id = KVM_IRQCHIP_PIC_MASTER; id <= KVM_IRQCHIP_PIC_SLAVE; id++) {
		a = chip_get(id);
		CHECK_EQ(a.chip.pic.elcr_mask, id ? 0xde : 0xf8);
		a.chip.pic.irr = 0x20;
		a.chip.pic.imr = 0x5f;
		a.chip.pic.isr = 0x10;
		a.chip.pic.irq_base = 0x70;
		a.chip.pic.priority_add = 3;
		a.chip.pic.init_state = 2;
		a.chip.pic.elcr = 0x18;
		a.chip.pic.auto_eoi = 1;
		chip_set(&a);
		b = chip_get(id);
		CHECK(!memcmp(&a, &b, sizeof(a)), "chip %u: another state than was set", id);
	}
	vm_destroy(vm);
}

/* Moved in mid-flight: a line that is up and was not sent comes on the new machine. */
static void moved_payload(void)
{
	apic_enable(false);
	guest_handlers[VECTOR] = apic_handler;
	irq_on();
	guest_sync(1);
	GUEST_EQ(pc_taken[VECTOR], 1);
	guest_done();
}

static void state_raises(void)
{
	struct kvm_irqchip chip;

	machine_create(1, moved_payload, 0);
	vcpu_sync(vcpus[0], 1);
	chip = chip_get(KVM_IRQCHIP_IOAPIC);
	chip.chip.ioapic.redirtbl[LINE].bits = VECTOR;
	chip.chip.ioapic.irr = 1 << LINE;
	chip_set(&chip);
	/* It has been sent: that is nobody's business any more. */
	chip = chip_get(KVM_IRQCHIP_IOAPIC);
	CHECK_EQ(chip.chip.ioapic.irr, 0);
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* Whatever userspace restores, the guest's accesses stay inside of the arrays. */
static void hostile_payload(void)
{
	unsigned int i;

	for (i = 0; i < 256; i++) {
		ioapic_write(i, 0xffffffff);
		ioapic_read(i);
	}
	for (i = 0; i < 256; i++) {
		outb(PIC1, i);
		inb(PIC1);
		outb(PIC1 + 1, i);
		outb(PIC2, i);
		inb(PIC2);
	}
	guest_done();
}

static void hostile_state(void)
{
	struct kvm_irqchip chip;
	uint32_t id;

	machine_create(1, hostile_payload, 0);
	for (id = 0; id < 3; id++) {
		chip = chip_get(id);
		memset(&chip.chip, 0xff, sizeof(chip.chip));
		if (id == KVM_IRQCHIP_IOAPIC)
			chip.chip.ioapic.base_address = IOAPIC;
		chip_set(&chip);
	}
	for (id = 0; id < 32; id++) {
		line_quiet(id, 1);
		line_quiet(id, 0);
	}
	vcpu_finish(vcpus[0]);
	machine_destroy();
}

/* ---- Start-up of another processor ---- */

__asm__(".pushsection .text\n"
	".code16\n"
	".globl ap_start, ap_end\n"
	"ap_start:\n"
	"	xorw %ax, %ax\n"
	"	movw %ax, %ds\n"
	"	lock; incw 0x9000\n"
	"	outb %al, $0xe0\n"
	"ap_end:\n"
	".code64\n"
	".popsection\n");

extern const char ap_start[], ap_end[];

static void sipi_payload(void)
{
	volatile uint16_t *mark = (uint16_t *)AP_MARK;

	apic_enable(true);
	wrmsr(0x830, 1ull << 32 | 0x4500);
	wrmsr(0x830, 1ull << 32 | 0x4600 | AP_CODE >> 12);
	while (!*mark)
		cpu_pause();
	guest_done();
}

static void init_sipi(void)
{
	machine_create(2, sipi_payload, 0);
	memcpy(vm->ram + AP_CODE, ap_start, ap_end - ap_start);
	vcpu_spawn(vcpus[1]);
	vcpu_finish(vcpus[0]);
	vcpu_join(vcpus[1]);
	machine_destroy();
}

/* ---- Many at once ---- */

#define STRESS_ROUNDS	60

static volatile uint64_t served[2];

/* The device lowers its line when the handler says so. */
static void stress_handler(struct trap_frame *frame)
{
	unsigned int n = frame->vector == VECTOR_TWO;

	guest_sync2(LINE + n, 0);
	served[n]++;
	apic_write(APIC_EOI, 0);
}

static void stress_payload(uint64_t id)
{
	apic_enable(false);
	if (!id) {
		outb(PIC1 + 1, 0xff);
		guest_handlers[VECTOR] = stress_handler;
		guest_handlers[VECTOR_TWO] = stress_handler;
		ioapic_set(LINE, ENTRY_DEST(0) | ENTRY_LEVEL | VECTOR);
		ioapic_set(LINE + 1, ENTRY_DEST(1) | ENTRY_LEVEL | VECTOR_TWO);
	}
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (served[id] < STRESS_ROUNDS)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void *stress_vcpu(void *arg)
{
	struct vcpu *vcpu = arg;
	struct report report = vcpu_wait(vcpu);

	while (report.kind == REPORT_SYNC) {
		line_quiet(report.value, 0);
		report = vcpu_wait(vcpu);
	}
	if (report.kind != REPORT_DONE)
		vcpu_explain(vcpu, &report, "the payload's end");
	return NULL;
}

static void *stress_device(void *arg)
{
	unsigned int n = (uintptr_t)arg, i;
	volatile uint64_t *count = &(*GUEST_VAR(vm, served))[n];
	uint64_t until = clock_ns() + 12000000000ull;

	/* An APIC that is not on yet would not take it. */
	while (*GUEST_VAR(vm, ready) < 2 && clock_ns() < until)
		usleep(100);
	for (i = 0; i < STRESS_ROUNDS; i++) {
		line_quiet(LINE + n, 1);
		while (*count <= i && clock_ns() < until)
			usleep(20);
		if (!CHECK(*count > i, "line %u: interrupt %u never came", LINE + n, i))
			break;
	}
	return NULL;
}

static void stress(void)
{
	pthread_t devices[2], threads[2];
	unsigned int i;

	vcpu_deadline_ms = 14000;
	machine_create(2, stress_payload, 0);
	vcpu_set_long(vcpus[1], stress_payload, 1);
	vcpu_make_runnable(vcpus[1]);
	for (i = 0; i < 2; i++) {
		pthread_create(&threads[i], NULL, stress_vcpu, vcpus[i]);
		pthread_create(&devices[i], NULL, stress_device, (void *)(uintptr_t)i);
	}
	for (i = 0; i < 2; i++) {
		pthread_join(devices[i], NULL);
		pthread_join(threads[i], NULL);
	}
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "creation", creation },
	{ "no_window", no_window },
	{ "ioapic_registers", ioapic_registers },
	{ "ioapic_edge", ioapic_edge },
	{ "ioapic_level", ioapic_level },
	{ "ioapic_targets", ioapic_targets },
	{ "rtc_coalescing", rtc_coalescing },
	{ "pic_registers", pic_registers },
	{ "pic_by_lvt0", pic_by_lvt0 },
	{ "pic_without_apic", pic_without_apic },
	{ "pic_priorities", pic_priorities },
	{ "pic_nested", pic_nested },
	{ "pic_modes", pic_modes },
	{ "pic_lvt0_opens", pic_lvt0_opens },
	{ "routing_errors", routing_errors },
	{ "routing", routing },
	{ "ioapic_state", ioapic_state },
	{ "pic_state", pic_state },
	{ "state_raises", state_raises },
	{ "hostile_state", hostile_state },
	{ "init_sipi", init_sipi },
	{ "stress", stress },
};

TAP_MAIN(cases)
