// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What I/O that the kernel serves itself costs, as bench_exits.c measures: in a lab with --icount, the
 * host's instructions for one access.
 *
 * Prints "NAME FIGURE" lines.
 */
#include <fcntl.h>
#include <sys/eventfd.h>

#include "guest.h"
#include "pc.h"

#define PORT_EVENT	0x510
#define PORT_ZONE	0x520
#define BATCHES		8
#define ROUNDS		50	/* fewer than the ring has room for */
#define VECTOR		0x51
#define LINE		5

enum kind {
	ACCESS_ELCR, ACCESS_PIO_EVENT, ACCESS_MMIO_EVENT, ACCESS_PIO_ZONE, ACCESS_MMIO_ZONE,
	ACCESS_XAPIC_EOI, ACCESS_PIO_LOOP, ACCESS_KINDS
};

static const char *const names[ACCESS_KINDS] = {
	[ACCESS_ELCR] = "elcr_read", [ACCESS_PIO_EVENT] = "pio_ioeventfd",
	[ACCESS_MMIO_EVENT] = "mmio_ioeventfd", [ACCESS_PIO_ZONE] = "pio_coalesced",
	[ACCESS_MMIO_ZONE] = "mmio_coalesced", [ACCESS_XAPIC_EOI] = "xapic_eoi",
	[ACCESS_PIO_LOOP] = "pio_ioeventfd_to_irqfd",
};

static __attribute__((always_inline)) inline void access_once(enum kind kind)
{
	switch (kind) {
	case ACCESS_ELCR:
		inb(ELCR);
		return;
	case ACCESS_PIO_EVENT:
	case ACCESS_PIO_LOOP:
		outl(PORT_EVENT, 1);
		return;
	case ACCESS_MMIO_EVENT:
		*(volatile uint32_t *)GUEST_MMIO = 1;
		return;
	case ACCESS_PIO_ZONE:
		outl(PORT_ZONE, 1);
		return;
	case ACCESS_MMIO_ZONE:
		*(volatile uint32_t *)(GUEST_MMIO + 0x1000) = 1;
		return;
	default:
		*(volatile uint32_t *)(XAPIC + APIC_EOI) = 0;
	}
}

static __attribute__((always_inline)) inline uint64_t batch(enum kind kind)
{
	uint64_t start = rdtsc();
	int i;

	for (i = 0; i < ROUNDS; i++)
		access_once(kind);
	return (rdtsc() - start) / ROUNDS;
}

static void bench_payload(uint64_t kind)
{
	uint64_t i, took;

	apic_enable(false);
	guest_handlers[VECTOR] = apic_handler;
	if (kind == ACCESS_PIO_LOOP)
		irq_on();
	for (i = 0; i <= BATCHES; i++) {
		switch (kind) {
		case ACCESS_ELCR:
			took = batch(ACCESS_ELCR);
			break;
		case ACCESS_PIO_EVENT:
		case ACCESS_PIO_LOOP:
			took = batch(ACCESS_PIO_EVENT);
			break;
		case ACCESS_MMIO_EVENT:
			took = batch(ACCESS_MMIO_EVENT);
			break;
		case ACCESS_PIO_ZONE:
			took = batch(ACCESS_PIO_ZONE);
			break;
		case ACCESS_MMIO_ZONE:
			took = batch(ACCESS_MMIO_ZONE);
			break;
		default:
			took = batch(ACCESS_XAPIC_EOI);
		}
		guest_sync2(i, took);
	}
	guest_done();
}

static void ioeventfd(struct vm *vm, uint64_t addr, uint32_t flags, int fd)
{
	struct kvm_ioeventfd args = { .fd = fd, .addr = addr, .len = 4, .flags = flags };

	if (ioctl(vm->fd, KVM_IOEVENTFD, &args))
		tap_bail("KVM_IOEVENTFD: %s", strerror(errno));
}

static void zone(struct vm *vm, uint64_t addr, uint32_t pio)
{
	struct kvm_coalesced_mmio_zone args = { .addr = addr, .size = 16, .pio = pio };

	if (ioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &args))
		tap_bail("KVM_REGISTER_COALESCED_MMIO: %s", strerror(errno));
}

/* The eventfd of the port raises a line that is a message to the very vCPU. */
static void loop_back(struct vm *vm, int fd)
{
	struct kvm_irqfd args = { .fd = fd, .gsi = LINE };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} table = {
		.head.nr = 1,
		.entry = { .gsi = LINE, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { XAPIC, 0, VECTOR } },
	};

	if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table) || ioctl(vm->fd, KVM_IRQFD, &args))
		tap_bail("KVM_IRQFD: %s", strerror(errno));
}

static void bench(enum kind kind)
{
	struct vm *vm = vm_create(GUEST_RAM, IRQCHIP_KERNEL);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	struct kvm_coalesced_mmio_ring *ring =
		(void *)((char *)vcpu->run + KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE);
	int fd = eventfd(0, EFD_NONBLOCK);
	struct report report;
	uint64_t best = ~0ull;
	int i;

	ioeventfd(vm, PORT_EVENT, KVM_IOEVENTFD_FLAG_PIO, fd);
	ioeventfd(vm, GUEST_MMIO, 0, fd);
	zone(vm, PORT_ZONE, 1);
	zone(vm, GUEST_MMIO + 0x1000, 0);
	if (kind == ACCESS_PIO_LOOP)
		loop_back(vm, fd);
	vcpu_set_long(vcpu, bench_payload, kind);
	for (i = 0; i <= BATCHES; i++) {
		report = vcpu_wait(vcpu);
		if (report.kind != REPORT_SYNC)
			tap_bail("%s: exit %u", names[kind], vcpu->run->exit_reason);
		ring->first = ring->last = 0;
		if (i && report.value2 < best)
			best = report.value2;
	}
	printf("%s %llu\n", names[kind], (unsigned long long)best);
	vcpu_finish(vcpu);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
	close(fd);
}

int main(void)
{
	enum kind kind;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (kind = 0; kind < ACCESS_KINDS; kind++)
		bench(kind);
	return 0;
}
