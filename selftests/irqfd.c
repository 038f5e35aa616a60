// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Lines that an eventfd raises (KVM_IRQFD): by messages and by pins, with resampling, and what
 * becomes of them when descriptors are closed, routes change, or the VM goes.
 */
#include <fcntl.h>
#include <sys/eventfd.h>

#include "guest.h"
#include "pc.h"

#define VECTOR		0x51
#define VECTOR_TWO	0x61
#define LINE		5
#define GSI_MSI		40

static struct vm *vm;
static struct vcpu *vcpu;
static volatile uint64_t quit;

static void machine_create(enum irqchip irqchip, void *payload, uint64_t arg)
{
	vm = vm_create(GUEST_RAM, irqchip);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, arg);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static int event_create(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	if (fd < 0)
		tap_bail("eventfd: %s", strerror(errno));
	return fd;
}

static void event_signal(int fd)
{
	uint64_t one = 1;

	CHECK_EQ(write(fd, &one, sizeof(one)), sizeof(one));
}

/* How often it was signalled; 0 for not at all, within half a second. */
static uint64_t event_count(int fd)
{
	uint64_t count, until = clock_ns() + 500000000;

	do {
		if (read(fd, &count, sizeof(count)) == sizeof(count))
			return count;
		usleep(1000);
	} while (clock_ns() < until);
	return 0;
}

static int irqfd(int fd, uint32_t gsi, uint32_t flags, int resamplefd)
{
	struct kvm_irqfd args = {
		.fd = fd, .gsi = gsi, .flags = flags, .resamplefd = resamplefd,
	};

	return ioctl(vm->fd, KVM_IRQFD, &args);
}

/* One GSI as a message of this vector; with chips, LINE at its pin too. */
static void route(uint8_t vector)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[3];
	} table = {
		.head.nr = vm->irqchip == IRQCHIP_KERNEL ? 3 : 1,
		.entry = {
			{ .gsi = GSI_MSI, .type = KVM_IRQ_ROUTING_MSI,
			  .u.msi = { XAPIC, 0, vector } },
			{ .gsi = LINE, .type = KVM_IRQ_ROUTING_IRQCHIP,
			  .u.irqchip = { KVM_IRQCHIP_IOAPIC, LINE } },
			{ .gsi = LINE, .type = KVM_IRQ_ROUTING_IRQCHIP,
			  .u.irqchip = { KVM_IRQCHIP_PIC_MASTER, LINE } },
		},
	};

	CHECK_CALL(ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table));
}

static uint64_t guest_taken(unsigned int vector)
{
	return (*GUEST_VAR(vm, pc_taken))[vector];
}

/* Interrupts are on: a round trip to the host, and what came meanwhile has been taken. */
static void rounds_payload(uint64_t entry)
{
	uint64_t i;

	apic_enable(false);
	guest_handlers[VECTOR] = apic_handler;
	guest_handlers[VECTOR_TWO] = apic_handler;
	if (entry) {
		outb(PIC1 + 1, 0xff);
		ioapic_set(LINE, entry);
	}
	irq_on();
	for (i = 1; !quit; i++)
		guest_sync(i);
	guest_done();
}

static uint64_t rounds;

static void round_trip(void)
{
	vcpu_sync(vcpu, ++rounds);
}

static void rounds_begin(enum irqchip irqchip, uint64_t entry)
{
	machine_create(irqchip, rounds_payload, entry);
	rounds = 0;
	route(VECTOR);
	round_trip();
}

static void rounds_end(void)
{
	*GUEST_VAR(vm, quit) = 1;
	vcpu_finish(vcpu);
	machine_destroy();
}

/* ---- Arguments ---- */

static void arguments(void)
{
	int fd = event_create(), other = event_create(), null = open("/dev/null", O_RDWR);

	CHECK_EQ(node_has(KVM_CAP_IRQFD), 1);
	CHECK_EQ(node_has(KVM_CAP_IRQFD_RESAMPLE), 1);
	vm = vm_create_bare();
	CHECK_ERRNO(irqfd(fd, 3, 0, 0), EINVAL);
	vm_destroy(vm);
	vm = vm_create(GUEST_RAM, IRQCHIP_SPLIT);
	CHECK_ERRNO(irqfd(fd, 3, KVM_IRQFD_FLAG_RESAMPLE, other), EINVAL);
	CHECK_CALL(irqfd(fd, 3, 0, 0));
	vm_destroy(vm);

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	CHECK_ERRNO(irqfd(fd, 3, 4, 0), EINVAL);
	CHECK_ERRNO(irqfd(-1, 3, 0, 0), EBADF);
	CHECK_ERRNO(irqfd(null, 3, 0, 0), EINVAL);
	CHECK_ERRNO(irqfd(fd, 3, KVM_IRQFD_FLAG_RESAMPLE, -1), EBADF);
	CHECK_ERRNO(irqfd(fd, 3, KVM_IRQFD_FLAG_RESAMPLE, null), EINVAL);
	/* What failed has left nothing behind. */
	CHECK_CALL(irqfd(fd, 3, 0, 0));
	CHECK_ERRNO(irqfd(fd, 3, 0, 0), EBUSY);
	CHECK_ERRNO(irqfd(fd, 4, 0, 0), EBUSY);
	CHECK_CALL(irqfd(other, 3, KVM_IRQFD_FLAG_RESAMPLE, fd));
	/* Nothing to take away: no error. */
	CHECK_CALL(irqfd(fd, 4, KVM_IRQFD_FLAG_DEASSIGN, 0));
	CHECK_ERRNO(irqfd(fd, 4, 0, 0), EBUSY);
	CHECK_ERRNO(irqfd(-1, 4, KVM_IRQFD_FLAG_DEASSIGN, 0), EBADF);
	CHECK_CALL(irqfd(fd, 3, KVM_IRQFD_FLAG_DEASSIGN, 0));
	CHECK_CALL(irqfd(fd, 1u << 30, 0, 0));
	event_signal(fd);
	CHECK_CALL(irqfd(fd, 1u << 30, KVM_IRQFD_FLAG_DEASSIGN, 0));
	vm_destroy(vm);
	close(fd);
	close(other);
	close(null);
}

/* ---- Edges ---- */

static void edges(enum irqchip irqchip, uint32_t gsi)
{
	int fd = event_create();
	uint64_t count;

	rounds_begin(irqchip, irqchip == IRQCHIP_KERNEL ? VECTOR : 0);
	/* Signalled before it was assigned. */
	event_signal(fd);
	CHECK_CALL(irqfd(fd, gsi, 0, 0));
	usleep(20000);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 1);
	/* The signal is taken by the line, and is not there for others. */
	event_signal(fd);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 2);
	CHECK_ERRNO(read(fd, &count, sizeof(count)), EAGAIN);
	event_signal(fd);
	event_signal(fd);
	round_trip();
	CHECK(guest_taken(VECTOR) >= 3, "nothing came");
	count = guest_taken(VECTOR);
	CHECK_CALL(irqfd(fd, gsi, KVM_IRQFD_FLAG_DEASSIGN, 0));
	event_signal(fd);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), count);
	CHECK_EQ(event_count(fd), 1);
	rounds_end();
	close(fd);
}

static void edge_msi(void)
{
	edges(IRQCHIP_SPLIT, GSI_MSI);
	edges(IRQCHIP_KERNEL, GSI_MSI);
}

static void edge_pin(void)
{
	edges(IRQCHIP_KERNEL, LINE);
}

static void routes_change(void)
{
	int fd = event_create();

	rounds_begin(IRQCHIP_SPLIT, 0);
	CHECK_CALL(irqfd(fd, GSI_MSI, 0, 0));
	event_signal(fd);
	round_trip();
	route(VECTOR_TWO);
	event_signal(fd);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 1);
	CHECK_EQ(guest_taken(VECTOR_TWO), 1);
	rounds_end();
	close(fd);
}

/* Closed by all, an eventfd is forgotten: another takes its place, though it may have its address. */
static void closing(void)
{
	unsigned int i;
	int fd;

	rounds_begin(IRQCHIP_SPLIT, 0);
	for (i = 1; i <= 50; i++) {
		fd = event_create();
		if (!CHECK_CALL(irqfd(fd, GSI_MSI, 0, 0)))
			break;
		event_signal(fd);
		round_trip();
		CHECK_EQ(guest_taken(VECTOR), i);
		close(fd);
	}
	rounds_end();
}

/* The descriptors outlive the VM. */
static void vm_goes_first(void)
{
	int fd = event_create(), resample = event_create();

	vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	CHECK_CALL(irqfd(fd, LINE, KVM_IRQFD_FLAG_RESAMPLE, resample));
	vm_destroy(vm);
	event_signal(fd);
	CHECK_EQ(event_count(fd), 1);
	close(fd);
	close(resample);
}

static void halted_payload(void)
{
	apic_enable(false);
	guest_handlers[VECTOR] = apic_handler;
	guest_sync(1);
	taken_halt(VECTOR, 20);
	guest_done();
}

static void wakes_halted(void)
{
	int fd = event_create(), i;

	machine_create(IRQCHIP_SPLIT, halted_payload, 0);
	route(VECTOR);
	CHECK_CALL(irqfd(fd, GSI_MSI, 0, 0));
	vcpu_sync(vcpu, 1);
	vcpu_spawn(vcpu);
	for (i = 1; i <= 20; i++) {
		uint64_t until = clock_ns() + 5000000000ull;

		event_signal(fd);
		while (guest_taken(VECTOR) < (uint64_t)i && clock_ns() < until)
			usleep(100);
		usleep(i * 100);
	}
	vcpu_join(vcpu);
	machine_destroy();
	close(fd);
}

/* ---- Levels, resampled ---- */

static void resample(void)
{
	struct kvm_irq_level line = { .irq = LINE, .level = 1 };
	int fd = event_create(), again = event_create();
	uint32_t flags = KVM_IRQFD_FLAG_RESAMPLE;

	rounds_begin(IRQCHIP_KERNEL, VECTOR | ENTRY_LEVEL);
	CHECK_CALL(irqfd(fd, LINE, flags, again));
	event_signal(fd);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 1);
	CHECK_EQ(event_count(again), 1);
	/* The line is down since the end of the interrupt. */
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 1);
	event_signal(fd);
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 2);
	CHECK_EQ(event_count(again), 1);
	/* Ended by a device of userspace's that shares the line: everybody looks. */
	CHECK_CALL(ioctl(vm->fd, KVM_IRQ_LINE, &line));
	line = (struct kvm_irq_level) { .irq = LINE };
	CHECK_CALL(ioctl(vm->fd, KVM_IRQ_LINE, &line));
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 3);
	CHECK_EQ(event_count(again), 1);
	/* Taken away while it has the line up: the line goes down. */
	CHECK_CALL(irqfd(fd, LINE, flags | KVM_IRQFD_FLAG_DEASSIGN, 0));
	round_trip();
	CHECK_EQ(guest_taken(VECTOR), 3);
	rounds_end();
	close(fd);
	close(again);
}

static void resample_dies(void)
{
	int fd = event_create(), again = event_create();
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	unsigned int i;

	/* Masked: the line stays up. */
	rounds_begin(IRQCHIP_KERNEL, VECTOR | ENTRY_LEVEL | ENTRY_MASKED);
	CHECK_CALL(irqfd(fd, LINE, KVM_IRQFD_FLAG_RESAMPLE, again));
	event_signal(fd);
	usleep(20000);
	CHECK_CALL(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
	CHECK_EQ(chip.chip.ioapic.irr & 1 << LINE, 1 << LINE);
	close(fd);
	for (i = 0; i < 100 && chip.chip.ioapic.irr; i++) {
		usleep(10000);
		CHECK_CALL(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip));
	}
	CHECK_EQ(chip.chip.ioapic.irr & 1 << LINE, 0);
	rounds_end();
	close(again);
}

/* Two devices on one line: what one wants is not lost when the other is served. */
static void resample_shared(void)
{
	int fd[2], again[2], i;

	rounds_begin(IRQCHIP_KERNEL, VECTOR | ENTRY_LEVEL);
	for (i = 0; i < 2; i++) {
		fd[i] = event_create();
		again[i] = event_create();
		CHECK_CALL(irqfd(fd[i], LINE, KVM_IRQFD_FLAG_RESAMPLE, again[i]));
	}
	for (i = 0; i < 2; i++) {
		event_signal(fd[i]);
		round_trip();
		CHECK_EQ(guest_taken(VECTOR), i + 1);
		CHECK_EQ(event_count(again[0]), 1);
		CHECK_EQ(event_count(again[1]), 1);
	}
	rounds_end();
	for (i = 0; i < 2; i++) {
		close(fd[i]);
		close(again[i]);
	}
}

static void resample_pic_payload(void)
{
	uint64_t i;

	guest_handlers[PIC_BASE + LINE] = pic_handler;
	pic_setup(0, 0);
	outb(ELCR, 1 << LINE);
	irq_on();
	for (i = 1; i <= 3; i++)
		guest_sync(i);
	guest_done();
}

static void resample_pic(void)
{
	int fd = event_create(), again = event_create();

	machine_create(IRQCHIP_KERNEL, resample_pic_payload, 0);
	CHECK_CALL(irqfd(fd, LINE, KVM_IRQFD_FLAG_RESAMPLE, again));
	vcpu_sync(vcpu, 1);
	event_signal(fd);
	usleep(20000);
	vcpu_sync(vcpu, 2);
	CHECK_EQ(guest_taken(PIC_BASE + LINE), 1);
	CHECK_EQ(event_count(again), 1);
	event_signal(fd);
	usleep(20000);
	vcpu_sync(vcpu, 3);
	CHECK_EQ(guest_taken(PIC_BASE + LINE), 2);
	CHECK_EQ(event_count(again), 1);
	vcpu_finish(vcpu);
	machine_destroy();
	close(fd);
	close(again);
}

/* ---- All at once ---- */

static volatile bool stop;

/* Assigns, signals, and lets go, by turns by deassigning and by closing. */
static void *churn(void *arg)
{
	uint32_t gsi = (uintptr_t)arg ? LINE : GSI_MSI, flags = (uintptr_t)arg ? 2 : 0;
	struct kvm_irqfd args = { .gsi = gsi };
	int again = event_create(), fd, i;
	uint64_t one = 1;

	for (i = 0; !stop; i++) {
		fd = event_create();
		args.fd = fd;
		args.flags = flags;
		args.resamplefd = again;
		if (!CHECK_CALL(ioctl(vm->fd, KVM_IRQFD, &args)))
			break;
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			break;
		if (i % 2) {
			args.flags |= KVM_IRQFD_FLAG_DEASSIGN;
			CHECK_CALL(ioctl(vm->fd, KVM_IRQFD, &args));
		}
		close(fd);
	}
	tap_note("%d times", i);
	close(again);
	return NULL;
}

static void *signaller(void *arg)
{
	int fd = (uintptr_t)arg;
	uint64_t one = 1;

	while (!stop) {
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			break;
		usleep(50);
	}
	return NULL;
}

static void *rerouter(void *arg)
{
	(void)arg;
	while (!stop) {
		route(VECTOR_TWO);
		route(VECTOR);
	}
	return NULL;
}

static void stress_payload(void)
{
	apic_enable(true);
	outb(PIC1 + 1, 0xff);
	guest_handlers[VECTOR] = apic_handler;
	guest_handlers[VECTOR_TWO] = apic_handler;
	ioapic_set(LINE, VECTOR | ENTRY_LEVEL);
	irq_on();
	while (!quit)
		cpu_pause();
	guest_done();
}

static void stress(void)
{
	int fd = event_create();
	pthread_t threads[4];
	unsigned int i;

	machine_create(IRQCHIP_KERNEL, stress_payload, 0);
	route(VECTOR);
	CHECK_CALL(irqfd(fd, GSI_MSI, 0, 0));
	vcpu_spawn(vcpu);
	stop = false;
	pthread_create(&threads[0], NULL, churn, (void *)0);
	pthread_create(&threads[1], NULL, churn, (void *)1);
	pthread_create(&threads[2], NULL, signaller, (void *)(uintptr_t)fd);
	pthread_create(&threads[3], NULL, rerouter, NULL);
	sleep(4);
	stop = true;
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	*GUEST_VAR(vm, quit) = 1;
	vcpu_join(vcpu);
	CHECK(guest_taken(VECTOR) > 1, "the guest took %llu interrupts",
	      (unsigned long long)guest_taken(VECTOR));
	machine_destroy();
	close(fd);
}

/* VMs go while others signal what they were assigned. */
static void stress_destruction(void)
{
	int fd = event_create(), again = event_create();
	pthread_t thread;
	unsigned int i;

	stop = false;
	pthread_create(&thread, NULL, signaller, (void *)(uintptr_t)fd);
	for (i = 0; i < 30; i++) {
		vm = vm_create_bare();
		CHECK_CALL(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0));
		CHECK_CALL(irqfd(fd, LINE, KVM_IRQFD_FLAG_RESAMPLE, again));
		vm_destroy(vm);
	}
	stop = true;
	pthread_join(thread, NULL);
	close(fd);
	close(again);
}

static const struct tap_case cases[] = {
	{ "arguments", arguments },
	{ "edge_msi", edge_msi },
	{ "edge_pin", edge_pin },
	{ "routes_change", routes_change },
	{ "closing", closing },
	{ "vm_goes_first", vm_goes_first },
	{ "wakes_halted", wakes_halted },
	{ "resample", resample },
	{ "resample_dies", resample_dies },
	{ "resample_shared", resample_shared },
	{ "resample_pic", resample_pic },
	{ "stress", stress },
	{ "stress_destruction", stress_destruction },
};

TAP_MAIN(cases)
