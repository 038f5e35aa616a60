// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What an exit costs, by the guest's own TSC: a loop of one exiting instruction between two RDTSC,
 * less the same loop of nothing.
 *
 * In a lab with --icount the TSC counts instructions of guest and host together, so the figure is
 * how many the host spends, and the few of the guest's that make the exit. Elsewhere it is cycles.
 * Each figure is the least of several batches, after one to warm up: what interrupts of the host's
 * add is not the exit's. In each batch the first round does not count either: what it brings in
 * besides is not the exit's.
 *
 * Where a wait is part of it, somebody counts the instructions that pass in the wait, and they are
 * taken off: the guest itself, in a loop, where its timer interrupts it while it runs; a thread of
 * the lowest kind on the same CPU, where the vCPU's thread sleeps. (With another thread there,
 * neither hypervisor polls instead of sleeping.)
 *
 * Prints "NAME FIGURE" lines for scripts/bench; FIGURE is "-" where the node has no such thing.
 *
 * usage: bench_exits [NAME...]
 */
#include <sched.h>
#include <sys/eventfd.h>

#include "guest.h"

#define BATCHES		8
#define ROUNDS		500

#define PORT_USER	0x510
#define PORT_EVENT	0x520
#define PORT_ELCR	0x4d0
#define MMIO_EVENT	(GUEST_MMIO + 0x1000)
#define MMIO_EVENT_ANY	(GUEST_MMIO + 0x2000)
#define XAPIC_EOI	0xfee000b0ul
#define XAPIC_ICR	0xfee00300ul

#define MSR_APIC_BASE	0x1b
#define MSR_DEADLINE	0x6e0
#define X2APIC_TPR	0x808
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_ICR	0x830
#define X2APIC_LVTT	0x832
#define X2APIC_SELF	0x83f

#define VECTOR		0x51
#define ICR_ASSERT	0x4000
#define ICR_SELF	0x40000
#define LVTT_DEADLINE	0x40000
#define DELAY		20000		/* a timer's, in ticks of the TSC: longer than it takes to arm */
#define FAR		(1ull << 40)

/* Memory that only the fault kinds use, in a slot of its own. */
#define COLD_GPA	0x40000000ul
#define COLD_HUGE	32		/* rounds with 2 MiB pages */

struct machine {
	struct vm *vm;
	struct vcpu *vcpu;
	struct vcpu *other;	/* runs with the first, for IPIs */
	uint8_t *cold;
	size_t cold_size;
	pthread_t idler;
	bool has_idler;
};

/*
 * struct kind - one kind of exit
 * @irqchip: all interrupt controllers are in the kernel; else the local APICs only.
 * @rounds: in a batch; 0 for ROUNDS.
 * @set_up: the host's part, before the guest runs; false where the node cannot.
 * @refresh: the host's part, before each batch.
 * @prepare: the guest's part, once.
 * @once: the guest's part, one exit. What of it is spent waiting, it adds to waited.
 * @measure: the whole, where the guest has no part in it: one batch.
 */
struct kind {
	const char *name;
	bool irqchip;
	unsigned int rounds;
	bool (*set_up)(struct machine *m);
	void (*refresh)(struct machine *m);
	void (*prepare)(void);
	void (*once)(void);
	uint64_t (*measure)(struct machine *m);
};

/* ---- The guest ---- */

static uint64_t turn;			/* round of the batch */
static volatile uint64_t waited;	/* instructions, in this batch */
static volatile uint64_t taken;		/* interrupts */
static volatile uint64_t idle_count;	/* the host's thread that runs while the guest is halted */
static volatile bool ready, quit, fired;

static uint8_t port_read(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* Counts its own instructions into count, until somebody else sets stop. */
static void count_until(volatile uint64_t *count, volatile bool *stop)
{
	__asm__ volatile("1: addq $3, %0\n\t"
			 "cmpb $0, %1\n\t"
			 "je 1b"
			 : "+m"(*count) : "m"(*stop) : "memory", "cc");
}

static void x2apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	wrmsr(X2APIC_SVR, 0x1ff);
}

static void xapic_enable(void)
{
	*(volatile uint32_t *)0xfee000f0ul = 0x1ff;
}

static void interrupts_on(void)
{
	__asm__ volatile("sti" : : : "memory");
}

static void write_cr8(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr8" : : "r"(value) : "memory");
}

static void nothing(void)
{
}

static void do_cpuid(void)
{
	uint32_t out[4];

	cpuid(1, 0, out);
}

static void do_hypercall(void)
{
	uint64_t number = 1;	/* KVM_HC_VAPIC_POLL_IRQ */

	__asm__ volatile("vmmcall" : "+a"(number) : : "memory");
}

static void do_cr8(void)
{
	write_cr8(turn & 1);
}

/* Priority 15 holds back an interrupt of each vector below. */
static void cr8_hold(void)
{
	x2apic_enable();
	write_cr8(15);
	wrmsr(X2APIC_SELF, VECTOR);
}

static void do_cr8_held(void)
{
	write_cr8(14 | (turn & 1));
}

static void do_apic_base_read(void)
{
	rdmsr(MSR_APIC_BASE);
}

static void do_x2apic_tpr(void)
{
	wrmsr(X2APIC_TPR, (turn & 1) << 4);
}

static void do_x2apic_eoi(void)
{
	wrmsr(X2APIC_EOI, 0);
}

static void do_xapic_eoi(void)
{
	*(volatile uint32_t *)XAPIC_EOI = 0;
}

static void do_xapic_icr(void)
{
	*(volatile uint32_t *)XAPIC_ICR = ICR_SELF | ICR_ASSERT | VECTOR;
}

static void do_elcr_read(void)
{
	port_read(PORT_ELCR);
}

static void do_port_out(void)
{
	outb(PORT_USER, 0);
}

static void do_port_in(void)
{
	port_read(PORT_USER);
}

static void do_mmio_write(void)
{
	*(volatile uint32_t *)GUEST_MMIO = 0;
}

static void do_mmio_read(void)
{
	(void)*(volatile uint32_t *)GUEST_MMIO;
}

static void do_mmio_event(void)
{
	*(volatile uint16_t *)MMIO_EVENT = 0;
}

static void do_mmio_event_any(void)
{
	*(volatile uint16_t *)MMIO_EVENT_ANY = 0;
}

static void do_port_event(void)
{
	outb(PORT_EVENT, 0);
}

static void take_handler(struct trap_frame *frame)
{
	(void)frame;
	taken++;
	fired = true;
	wrmsr(X2APIC_EOI, 0);
}

/* The other vCPU's payloads: it takes interrupts, halted or running. */
static void halted_payload(uint64_t arg)
{
	(void)arg;
	x2apic_enable();
	ready = true;
	while (!quit)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	guest_done();
}

static void running_payload(uint64_t arg)
{
	(void)arg;
	x2apic_enable();
	interrupts_on();
	ready = true;
	while (!quit)
		cpu_pause();
	guest_done();
}

static void ipi_prepare(void)
{
	guest_handlers[VECTOR] = take_handler;
	x2apic_enable();
	while (!ready)
		cpu_pause();
}

static void do_ipi(void)
{
	uint64_t before = taken;

	wrmsr(X2APIC_ICR, 1ull << 32 | ICR_ASSERT | VECTOR);
	while (taken == before)
		cpu_pause();
}

static void self_prepare(void)
{
	guest_handlers[VECTOR] = take_handler;
	x2apic_enable();
	interrupts_on();
}

static void do_ipi_self(void)
{
	fired = false;
	wrmsr(X2APIC_SELF, VECTOR);
	while (!fired)
		;
}

static void deadline_prepare(void)
{
	guest_handlers[VECTOR] = take_handler;
	x2apic_enable();
	wrmsr(X2APIC_LVTT, LVTT_DEADLINE | VECTOR);
}

static void do_deadline_write(void)
{
	wrmsr(MSR_DEADLINE, FAR + turn);
}

static void timer_prepare(void)
{
	deadline_prepare();
	interrupts_on();
}

static void do_timer_running(void)
{
	fired = false;
	wrmsr(MSR_DEADLINE, rdtsc() + DELAY);
	count_until(&waited, &fired);
}

static void do_timer_halted(void)
{
	uint64_t before = idle_count;

	wrmsr(MSR_DEADLINE, rdtsc() + DELAY);
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	waited += idle_count - before;
}

static void do_touch(void)
{
	*(volatile uint8_t *)(COLD_GPA + turn * PAGE_SIZE) = 1;
}

static void do_touch_huge(void)
{
	*(volatile uint8_t *)(COLD_GPA + turn * MIB(2)) = 1;
}

/* Not to be merged with its caller: the loop has to be the same for all. */
static __attribute__((noipa)) uint64_t loop(void (*once)(void), uint64_t rounds)
{
	uint64_t start;

	turn = 0;
	once();
	waited = 0;
	start = rdtsc();
	for (turn = 1; turn <= rounds; turn++)
		once();
	return rdtsc() - start - waited;
}

static void payload(const struct kind *kind)
{
	uint64_t i, rounds = kind->rounds ?: ROUNDS, own;

	if (kind->prepare)
		kind->prepare();
	for (i = 0; i <= BATCHES; i++) {
		guest_sync(i);
		own = loop(nothing, rounds);
		guest_sync2(i, (loop(kind->once, rounds) - own) / rounds);
	}
	quit = true;
	if (ready)
		wrmsr(X2APIC_ICR, 1ull << 32 | ICR_ASSERT | VECTOR);
	guest_done();
}

/* ---- The host ---- */

/* Where there is but one CPU, all threads take turns on it. */
static void pin(pthread_t thread, int cpu)
{
	cpu_set_t set;

	cpu %= sysconf(_SC_NPROCESSORS_ONLN);
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(thread, sizeof(set), &set))
		tap_bail("no CPU %d", cpu);
}

static bool other_start(struct machine *m, void *entry)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };

	m->other = vcpu_create(m->vm, 1);
	vcpu_set_long(m->other, entry, 0);
	ioctl(m->other->fd, KVM_SET_MP_STATE, &runnable);
	vcpu_deadline_ms = 60000;
	vcpu_spawn(m->other);
	pin(m->other->thread, 1);
	return true;
}

static bool halted_set_up(struct machine *m)
{
	return other_start(m, halted_payload);
}

static bool running_set_up(struct machine *m)
{
	return other_start(m, running_payload);
}

static void *idler(void *vm)
{
	struct sched_param param = { 0 };

	if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &param))
		tap_bail("SCHED_IDLE");
	count_until(GUEST_VAR((struct vm *)vm, idle_count), GUEST_VAR((struct vm *)vm, quit));
	return NULL;
}

static bool idler_set_up(struct machine *m)
{
	if (pthread_create(&m->idler, NULL, idler, m->vm))
		tap_bail("pthread_create failed");
	pin(m->idler, 0);
	m->has_idler = true;
	return true;
}

static bool event_assign(struct machine *m, uint64_t addr, uint32_t len, uint32_t flags)
{
	struct kvm_ioeventfd event = {
		.addr = addr, .len = len, .flags = flags, .fd = eventfd(0, EFD_CLOEXEC),
	};

	return ioctl(m->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) > 0 &&
	       !ioctl(m->vm->fd, KVM_IOEVENTFD, &event);
}

static bool mmio_event_set_up(struct machine *m)
{
	return event_assign(m, MMIO_EVENT, 2, 0);
}

static bool mmio_event_any_set_up(struct machine *m)
{
	return event_assign(m, MMIO_EVENT_ANY, 0, 0);
}

static bool port_event_set_up(struct machine *m)
{
	return event_assign(m, PORT_EVENT, 1, KVM_IOEVENTFD_FLAG_PIO);
}

static void cold_slot(struct machine *m, size_t size)
{
	if (vm_slot(m->vm, 1, COLD_GPA, size, m->cold, 0))
		tap_bail("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
}

static bool cold_map(struct machine *m, size_t size, int advice)
{
	uint8_t *mem = mmap(NULL, size + MIB(2), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		tap_bail("mmap: %s", strerror(errno));
	m->cold = (uint8_t *)(((uintptr_t)mem + MIB(2) - 1) & ~(MIB(2) - 1));
	m->cold_size = size;
	if (madvise(m->cold, size, advice))
		return false;
	memset(m->cold, 1, size);
	cold_slot(m, size);
	return true;
}

static bool small_set_up(struct machine *m)
{
	return cold_map(m, (ROUNDS + 1) * PAGE_SIZE, MADV_NOHUGEPAGE);
}

/* What of this process the host has mapped by huge pages. */
static uint64_t huge_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	unsigned long long kb = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "AnonHugePages: %llu", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb << 10;
}

static bool huge_set_up(struct machine *m)
{
	uint64_t before = huge_bytes();

	return cold_map(m, (COLD_HUGE + 1) * MIB(2), MADV_HUGEPAGE) &&
	       huge_bytes() - before >= m->cold_size;
}

/* Only the second level forgets. */
static void refresh_slot(struct machine *m)
{
	cold_slot(m, 0);
	cold_slot(m, m->cold_size);
}

/* The host has no memory there either. */
static void refresh_memory(struct machine *m)
{
	if (madvise(m->cold, m->cold_size, MADV_DONTNEED))
		tap_bail("madvise: %s", strerror(errno));
}

static uint64_t measure_immediate(struct machine *m)
{
	uint64_t start, took;
	int i;

	m->vcpu->run->immediate_exit = 1;
	start = rdtsc();
	for (i = 0; i < ROUNDS; i++)
		if (vcpu_run(m->vcpu) != -EINTR)
			tap_bail("immediate_exit does not end KVM_RUN");
	took = (rdtsc() - start) / ROUNDS;
	m->vcpu->run->immediate_exit = 0;
	return took;
}

/* The shortest way round: KVM_RUN, and a look at why it came back. */
static uint64_t run_to_sync(const struct kind *kind, struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	for (;;) {
		if (vcpu_run_on(vcpu))
			break;
		if (run->exit_reason == KVM_EXIT_MMIO)
			continue;
		if (run->exit_reason != KVM_EXIT_IO)
			break;
		if (run->io.port == PORT_USER)
			continue;
		if (run->io.port != PORT_SYNC)
			break;
		return vcpu_regs(vcpu).rsi;
	}
	tap_bail("%s: exit %u, port %#x", kind->name, run->exit_reason, run->io.port);
}

static uint64_t measure_batch(const struct kind *kind, struct machine *m)
{
	if (kind->measure)
		return kind->measure(m);
	run_to_sync(kind, m->vcpu);
	if (kind->refresh)
		kind->refresh(m);
	return run_to_sync(kind, m->vcpu);
}

static void machine_end(struct machine *m)
{
	if (m->other)
		vcpu_join(m->other);
	if (m->has_idler) {
		*GUEST_VAR(m->vm, quit) = true;
		pthread_join(m->idler, NULL);
	}
	vcpu_destroy(m->other);
	vcpu_destroy(m->vcpu);
	vm_destroy(m->vm);
	if (m->cold)
		munmap(m->cold, m->cold_size);
}

static void bench(const struct kind *kind)
{
	struct machine m = { .vm = vm_create(GUEST_RAM, !kind->irqchip) };
	uint64_t took, best = ~0ull;
	int i;

	if ((kind->irqchip && ioctl(m.vm->fd, KVM_CREATE_IRQCHIP)) ||
	    (kind->set_up && !kind->set_up(&m))) {
		printf("%s -\n", kind->name);
		machine_end(&m);
		return;
	}
	m.vcpu = vcpu_create(m.vm, 0);
	vcpu_set_long(m.vcpu, payload, (uintptr_t)kind);
	for (i = 0; i <= BATCHES; i++) {
		took = measure_batch(kind, &m);
		if (i && took < best)
			best = took;
	}
	printf("%s %llu\n", kind->name, (unsigned long long)best);
	if (!kind->measure)
		vcpu_finish(m.vcpu);
	machine_end(&m);
}

static const struct kind kinds[] = {
	{ "cpuid", .prepare = x2apic_enable, .once = do_cpuid },
	{ "hypercall", .prepare = x2apic_enable, .once = do_hypercall },
	{ "apic_base_read", .prepare = x2apic_enable, .once = do_apic_base_read },
	{ "cr8_write", .prepare = x2apic_enable, .once = do_cr8 },
	{ "cr8_write_held", .prepare = cr8_hold, .once = do_cr8_held },
	{ "x2apic_tpr", .prepare = x2apic_enable, .once = do_x2apic_tpr },
	{ "x2apic_eoi", .prepare = x2apic_enable, .once = do_x2apic_eoi },
	{ "deadline_write", .prepare = deadline_prepare, .once = do_deadline_write },
	{ "xapic_eoi", .prepare = xapic_enable, .once = do_xapic_eoi },
	{ "xapic_icr", .prepare = xapic_enable, .once = do_xapic_icr },
	{ "elcr_read", .irqchip = true, .prepare = x2apic_enable, .once = do_elcr_read },
	{ "mmio_event", .set_up = mmio_event_set_up, .prepare = x2apic_enable,
	  .once = do_mmio_event },
	{ "mmio_event_any", .set_up = mmio_event_any_set_up, .prepare = x2apic_enable,
	  .once = do_mmio_event_any },
	{ "port_event", .set_up = port_event_set_up, .prepare = x2apic_enable,
	  .once = do_port_event },
	{ "port_out", .prepare = x2apic_enable, .once = do_port_out },
	{ "port_in", .prepare = x2apic_enable, .once = do_port_in },
	{ "mmio_write", .prepare = x2apic_enable, .once = do_mmio_write },
	{ "mmio_read", .prepare = x2apic_enable, .once = do_mmio_read },
	{ "run_immediate", .measure = measure_immediate },
	{ "ipi_halted", .set_up = halted_set_up, .prepare = ipi_prepare, .once = do_ipi },
	{ "ipi_running", .set_up = running_set_up, .prepare = ipi_prepare, .once = do_ipi },
	{ "ipi_self", .prepare = self_prepare, .once = do_ipi_self },
	{ "timer_running", .rounds = 50, .prepare = timer_prepare, .once = do_timer_running },
	{ "timer_halted", .rounds = 50, .set_up = idler_set_up, .prepare = deadline_prepare,
	  .once = do_timer_halted },
	{ "fault_4k", .set_up = small_set_up, .refresh = refresh_slot, .prepare = x2apic_enable,
	  .once = do_touch },
	{ "fault_2m", .rounds = COLD_HUGE, .set_up = huge_set_up, .refresh = refresh_slot,
	  .prepare = x2apic_enable, .once = do_touch_huge },
	{ "fault_4k_fresh", .set_up = small_set_up, .refresh = refresh_memory,
	  .prepare = x2apic_enable, .once = do_touch },
	{ "fault_2m_fresh", .rounds = COLD_HUGE, .set_up = huge_set_up, .refresh = refresh_memory,
	  .prepare = x2apic_enable, .once = do_touch_huge },
};

static bool wanted(const char *name, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pin(pthread_self(), 0);
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (wanted(kinds[i].name, argc, argv))
			bench(&kinds[i]);
	return 0;
}
