// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What an exit costs, by the guest's own TSC: a loop of one exiting instruction between two RDTSC.
 *
 * In a lab with --icount the TSC counts instructions of guest and host together, so the figure is
 * how many the host spends, but for the three or four of the loop itself. Elsewhere it is cycles.
 * Each figure is the least of several batches, after one to warm up: what interrupts of the host's
 * add is not the exit's.
 *
 * Prints "NAME FIGURE" lines for scripts/bench.
 */
#include "guest.h"

#define PORT_BENCH	0x510
#define BATCHES		8
#define ROUNDS		500
#define VECTOR		0x51
#define ICR_ASSERT	0x4000

enum kind { EXIT_CPUID, EXIT_MSR, EXIT_EOI, EXIT_PORT, EXIT_MMIO, EXIT_IPI, EXIT_KINDS };

static const char *const names[EXIT_KINDS] = {
	[EXIT_CPUID] = "cpuid", [EXIT_MSR] = "apic_base_read", [EXIT_EOI] = "x2apic_eoi",
	[EXIT_PORT] = "port_out", [EXIT_MMIO] = "mmio_write", [EXIT_IPI] = "ipi_halted",
};

static volatile uint64_t ready, pinged, quit;

static void x2apic_enable(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
}

static void ping(void)
{
	uint64_t before = pinged;

	wrmsr(0x830, 1ull << 32 | ICR_ASSERT | VECTOR);
	while (pinged == before)
		cpu_pause();
}

static void pong_handler(struct trap_frame *frame)
{
	(void)frame;
	pinged++;
	wrmsr(0x80b, 0);
}

static void halted_payload(void)
{
	guest_handlers[VECTOR] = pong_handler;
	x2apic_enable();
	ready = 1;
	while (!quit)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void exit_once(enum kind kind)
{
	uint32_t out[4];

	switch (kind) {
	case EXIT_CPUID:
		cpuid(1, 0, out);
		return;
	case EXIT_MSR:
		rdmsr(0x1b);
		return;
	case EXIT_EOI:
		wrmsr(0x80b, 0);
		return;
	case EXIT_PORT:
		outb(PORT_BENCH, 0);
		return;
	case EXIT_MMIO:
		*(volatile uint32_t *)GUEST_MMIO = 0;
		return;
	default:
		ping();
	}
}

static __attribute__((always_inline)) inline uint64_t batch(enum kind kind)
{
	uint64_t start = rdtsc();
	int i;

	for (i = 0; i < ROUNDS; i++)
		exit_once(kind);
	return (rdtsc() - start) / ROUNDS;
}

static void bench_payload(uint64_t kind)
{
	uint64_t i, took;

	x2apic_enable();
	while (kind == EXIT_IPI && !ready)
		cpu_pause();
	for (i = 0; i <= BATCHES; i++) {
		/* One loop a kind: the compiler leaves the instruction alone in it. */
		switch (kind) {
		case EXIT_CPUID:
			took = batch(EXIT_CPUID);
			break;
		case EXIT_MSR:
			took = batch(EXIT_MSR);
			break;
		case EXIT_EOI:
			took = batch(EXIT_EOI);
			break;
		case EXIT_PORT:
			took = batch(EXIT_PORT);
			break;
		case EXIT_MMIO:
			took = batch(EXIT_MMIO);
			break;
		default:
			took = batch(EXIT_IPI);
		}
		guest_sync2(i, took);
	}
	quit = 1;
	wrmsr(0x830, 1ull << 32 | ICR_ASSERT | VECTOR);
	guest_done();
}

/* The shortest way round: KVM_RUN, and a look at why it came back. */
static bool run_to_sync(struct vcpu *vcpu, uint64_t *took)
{
	struct kvm_run *run = vcpu->run;

	for (;;) {
		if (vcpu_run(vcpu))
			return false;
		if (run->exit_reason == KVM_EXIT_MMIO)
			continue;
		if (run->exit_reason != KVM_EXIT_IO)
			return false;
		if (run->io.port == PORT_BENCH)
			continue;
		if (run->io.port != PORT_SYNC)
			return false;
		*took = vcpu_regs(vcpu).rsi;
		return true;
	}
}

static void bench(enum kind kind)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct vm *vm = vm_create(GUEST_RAM, true);
	struct vcpu *vcpu = vcpu_create(vm, 0), *other = vcpu_create(vm, 1);
	uint64_t took, best = ~0ull;
	int i;

	vcpu_set_long(vcpu, bench_payload, kind);
	if (kind == EXIT_IPI) {
		vcpu_set_long(other, halted_payload, 0);
		ioctl(other->fd, KVM_SET_MP_STATE, &runnable);
		vcpu_deadline_ms = 60000;
		vcpu_spawn(other);
	}
	for (i = 0; i <= BATCHES; i++) {
		if (!run_to_sync(vcpu, &took))
			tap_bail("%s: exit %u, port %#x", names[kind], vcpu->run->exit_reason,
				 vcpu->run->io.port);
		if (i && took < best)
			best = took;
	}
	printf("%s %llu\n", names[kind], (unsigned long long)best);
	vcpu_finish(vcpu);
	if (kind == EXIT_IPI)
		vcpu_join(other);
	vcpu_destroy(other);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

int main(void)
{
	enum kind kind;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (kind = 0; kind < EXIT_KINDS; kind++)
		bench(kind);
	return 0;
}
