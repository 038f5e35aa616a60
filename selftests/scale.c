// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * One machine of 64 vCPUs, each with a thread of its own: all of them fault in memory, exit and
 * send interrupts at once, then one token goes round by IPIs from halted vCPU to halted vCPU. In a
 * lab with --smp 64 each has a CPU.
 */
#include "guest.h"

#define VCPUS		64
#define ROUNDS		4		/* of the token */
#define PAGES		64		/* each vCPU's own, cold */
#define EXITS		200
#define VECTOR		0x51
#define ICR_ASSERT	0x4000
#define RAM		MIB(64)
#define OWN(id)		(GUEST_FREE + (id) * PAGES * PAGE_SIZE)

static struct vm *vm;
static struct vcpu *vcpus[VCPUS];
static volatile uint64_t started, worked, token[VCPUS], interrupts[VCPUS];

static void ipi(uint64_t id)
{
	wrmsr(0x830, id << 32 | ICR_ASSERT | VECTOR);
}

static void handler(struct trap_frame *frame)
{
	(void)frame;
	interrupts[rdmsr(0x802)]++;
	wrmsr(0x80b, 0);
}

static void count(volatile uint64_t *counter)
{
	__asm__ volatile("lock; incq %0" : "+m"(*counter) : : "memory");
}

/* Memory, exits, and an interrupt for the next one, all at the same time as all others. */
static void work(uint64_t id)
{
	uint64_t i, sum = 0;
	uint32_t out[4];

	for (i = 0; i < PAGES; i++)
		*(volatile uint64_t *)(OWN(id) + i * PAGE_SIZE) = id << 32 | i;
	for (i = 0; i < EXITS; i++) {
		cpuid(0, 0, out);
		rdmsr(0x1b);
	}
	ipi((id + 1) % VCPUS);
	for (i = 0; i < PAGES; i++)
		sum += *(volatile uint64_t *)(OWN(id) + i * PAGE_SIZE);
	GUEST_EQ(sum, (id << 32) * PAGES + PAGES * (PAGES - 1) / 2);
}

static void payload(uint64_t id)
{
	uint64_t round;

	guest_handlers[VECTOR] = handler;
	wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
	wrmsr(0x80f, 0x1ff);
	GUEST_EQ(rdmsr(0x802), id);
	count(&started);
	while (started < VCPUS)
		cpu_pause();
	work(id);
	count(&worked);
	for (round = 1; round <= ROUNDS; round++) {
		/* The first one begins when all are ready, and has what it sent back to it. */
		while (!id && worked < VCPUS)
			cpu_pause();
		while (token[id] < round - !id)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		token[(id + 1) % VCPUS]++;
		ipi((id + 1) % VCPUS);
	}
	guest_done();
}

static void many_vcpus(void)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	uint64_t id, start = clock_ns();

	vcpu_deadline_ms = 120000;
	vm = vm_create(RAM, true);
	for (id = 0; id < VCPUS; id++) {
		vcpus[id] = vcpu_create(vm, id);
		vcpu_set_long(vcpus[id], payload, id);
		CHECK_CALL(ioctl(vcpus[id]->fd, KVM_SET_MP_STATE, &runnable));
	}
	for (id = 0; id < VCPUS; id++)
		vcpu_spawn(vcpus[id]);
	for (id = 0; id < VCPUS; id++)
		CHECK(vcpu_join(vcpus[id]), "vCPU %llu", (unsigned long long)id);
	for (id = 0; id < VCPUS; id++)
		CHECK_EQ((*GUEST_VAR(vm, token))[id], ROUNDS);
	tap_note("%d vCPUs on %ld CPUs: %llu ms", VCPUS, sysconf(_SC_NPROCESSORS_ONLN),
		 (unsigned long long)(clock_ns() - start) / 1000000);
	for (id = 0; id < VCPUS; id++)
		vcpu_destroy(vcpus[id]);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "many_vcpus", many_vcpus },
};

TAP_MAIN(cases)
