// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Callers and guests that mean harm: each gets an errno, an exit or its own time's end, and the
 * host goes on.
 *
 * What a nonsense state comes to differs from CPU to CPU. What must hold is that SET refuses it or
 * that KVM_RUN returns, at the latest when a signal asks, and that the same vCPU works with a good
 * state afterwards.
 */
#include <signal.h>
#include <sys/wait.h>

#include "guest.h"

#define SHORT_MS	60

static struct vm *vm;
static struct vcpu *vcpu;

static void good_payload(uint64_t value)
{
	guest_sync(value);
	guest_done();
}

static void machine_create(void)
{
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
	vcpu_deadline_ms = 8000;
}

/* Takes what is left of the last run away: pending I/O, events. */
static void vcpu_clean(void)
{
	struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};

	vcpu->run->immediate_exit = 1;
	vcpu_run(vcpu);
	vcpu->run->immediate_exit = 0;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events));
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug));
}

static void still_good(uint64_t value)
{
	vcpu_clean();
	vcpu_deadline_ms = 8000;
	vcpu_astray = false;
	vcpu_set_long(vcpu, good_payload, value);
	vcpu_sync(vcpu, value);
	vcpu_finish(vcpu);
}

static void vcpu_ids(void)
{
	struct vm *bare = vm_create_bare();
	int fd = ioctl(bare->fd, KVM_CREATE_VCPU, 0);

	CHECK(fd >= 0, "KVM_CREATE_VCPU 0: errno %d", errno);
	CHECK_ERRNO(ioctl(bare->fd, KVM_CREATE_VCPU, 0), EEXIST);
	CHECK_ERRNO(ioctl(bare->fd, KVM_CREATE_VCPU, 0x7fffffff), EINVAL);
	CHECK_ERRNO(ioctl(bare->fd, KVM_CREATE_VCPU, ~0ul), EINVAL);
	CHECK_ERRNO(ioctl(bare->fd, KVM_CREATE_VCPU, 1ul << 32 | 0x7fffffff), EINVAL);
	/* Its number is taken as long as its VM is there. */
	close(fd);
	CHECK_ERRNO(ioctl(bare->fd, KVM_CREATE_VCPU, 0), EEXIST);
	vm_destroy(bare);
}

/* Runs what is there, briefly; anything but a refusal to come back will do. */
static void run_briefly(const char *what)
{
	struct report report;
	int i;

	vcpu_deadline_ms = SHORT_MS;
	for (i = 0; i < 3; i++) {
		report = vcpu_wait(vcpu);
		if (report.kind == REPORT_TIMEOUT || report.kind == REPORT_ERROR)
			return;
		if (vcpu->run->exit_reason == KVM_EXIT_FAIL_ENTRY ||
		    vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ||
		    vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN)
			return;
	}
	CHECK(vcpu->run->exit_reason && vcpu->run->exit_reason < 64, "%s: exit %u", what,
	      vcpu->run->exit_reason);
}

#define NONSENSE(what, change) \
	do { \
		vcpu_clean(); \
		vcpu_set_long(vcpu, good_payload, 1); \
		s = vcpu_sregs(vcpu); \
		change; \
		if (!ioctl(vcpu->fd, KVM_SET_SREGS, &s)) \
			run_briefly(what); \
	} while (0)

static void nonsense_sregs(void)
{
	struct kvm_sregs s;

	machine_create();
	vcpu_astray = true;
	NONSENSE("CR3 beyond memory", s.cr3 = 0x7ffff000);
	NONSENSE("CR3 in MMIO", s.cr3 = GUEST_MMIO);
	NONSENSE("CR3 of zero", s.cr3 = 0);
	NONSENSE("no code segment", s.cs.present = 0);
	NONSENSE("unusable code segment", s.cs.unusable = 1);
	NONSENSE("L and D", s.cs.db = 1);
	NONSENSE("data for code", s.cs.type = 3);
	NONSENSE("no stack segment", s.ss.unusable = 1);
	NONSENSE("ring 3", s.cs.dpl = 3; s.ss.dpl = 3; s.cs.selector = 0xb; s.ss.selector = 0x13);
	NONSENSE("RPL of its own", s.cs.dpl = 1; s.ss.dpl = 2);
	NONSENSE("no TSS", s.tr.unusable = 1; s.tr.present = 0);
	NONSENSE("TSS of no type", s.tr.type = 0);
	NONSENSE("NW without CD", s.cr0 |= 1ul << 29);
	NONSENSE("upper half of CR0", s.cr0 |= 1ul << 33);
	NONSENSE("paging without protection", s.cr0 &= ~1ul);
	NONSENSE("LMA without LME", s.efer = 0x400);
	NONSENSE("SVME", s.efer |= 0x1000);
	NONSENSE("reserved bits of EFER", s.efer |= 1ul << 30);
	NONSENSE("not canonical GDT", s.gdt.base = 1ul << 62);
	NONSENSE("not canonical FS", s.fs.base = 1ul << 62);
	NONSENSE("CR8 of 99", s.cr8 = 99);
	NONSENSE("real mode far away", s.cr0 = 0x10; s.efer = 0; s.cr4 = 0; s.cs.l = 0);
	NONSENSE("interrupt that is none", s.interrupt_bitmap[0] = 1);
	NONSENSE("all interrupts", memset(s.interrupt_bitmap, 0xff, sizeof(s.interrupt_bitmap)));
	NONSENSE("APIC elsewhere", s.apic_base = 0x12345900);
	NONSENSE("all ones", memset(&s, 0xff, sizeof(s)));
	still_good(0x11);
	machine_destroy();
}

static uint64_t seed = 0x123456789;

static uint64_t random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* One random change to a state that works, so that most states get as far as the entry. */
static void sregs_mutate(struct kvm_sregs *s)
{
	uint8_t *bytes = (uint8_t *)s;
	unsigned int i, n = 1 + random64() % 4;

	for (i = 0; i < n; i++)
		bytes[random64() % sizeof(*s)] ^= 1u << random64() % 8;
}

static void random_states(void)
{
	struct kvm_regs r;
	struct kvm_sregs s;
	unsigned int i, entered = 0;

	machine_create();
	vcpu_astray = true;
	for (i = 0; i < 400; i++) {
		vcpu_clean();
		vcpu_set_long(vcpu, good_payload, 1);
		s = vcpu_sregs(vcpu);
		sregs_mutate(&s);
		if (ioctl(vcpu->fd, KVM_SET_SREGS, &s))
			continue;
		r = vcpu_regs(vcpu);
		if (i % 4 == 0)
			r.rflags = random64();
		if (i % 8 == 0)
			r.rip = random64();
		ioctl(vcpu->fd, KVM_SET_REGS, &r);
		vcpu_deadline_ms = 10;
		vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
		vcpu_wait(vcpu);
		entered++;
	}
	tap_note("%u of 400 states were taken", entered);
	CHECK(entered > 50, "only %u states were taken", entered);
	still_good(0x12);
	machine_destroy();
}

static void random_code(void)
{
	unsigned int i, j;

	machine_create();
	vcpu_astray = true;
	for (i = 0; i < 200; i++) {
		for (j = 0; j < 64; j++)
			((uint64_t *)(vm->ram + GUEST_FREE))[j] = random64();
		vcpu_clean();
		vcpu_set_long(vcpu, (void *)GUEST_FREE, GUEST_MMIO + i * 8);
		vcpu_deadline_ms = 10;
		vcpu_wait(vcpu);
	}
	/* The code may have written anywhere: a new machine must be as good as any. */
	machine_destroy();
	machine_create();
	still_good(0x13);
	machine_destroy();
}

/* ---- kvm_run is the caller's to scribble on, between an exit and its completion above all ---- */

static void scribble_payload(void)
{
	uint64_t count = 64, to = GUEST_FREE;

	__asm__ volatile("inl %w1, %k0" : "=a"(count) : "d"(0x510) : "memory");
	count = 64;
	__asm__ volatile("rep; insb" : "+c"(count), "+D"(to) : "d"(0x510) : "memory");
	*(volatile uint64_t *)(GUEST_MMIO + 4);
	*(volatile uint64_t *)(GUEST_MMIO + 0xffc);
	*(volatile uint64_t *)(GUEST_MMIO + 0xffc) = 1;
	to = GUEST_FREE;
	count = 64;
	__asm__ volatile("rep; outsb" : "+c"(count), "+S"(to) : "d"(0x510) : "memory");
	guest_done();
}

static void scribbles(void)
{
	struct kvm_run *run;
	unsigned int byte, n;

	machine_create();
	run = vcpu->run;
	for (byte = 0; byte <= 0xff; byte += 0x55) {
		vcpu_clean();
		vcpu_set_long(vcpu, scribble_payload, 0);
		for (n = 0; n < 400; n++) {
			/*
			 * All that userspace does not tell by: every exit's own part, and the
			 * data.
			 */
			run->exit_reason = byte * 0x01010101;
			memset(&run->hw, byte, sizeof(run->padding));
			memset(run + 1, byte, vcpu->run_size - sizeof(*run));
			if (vcpu_run_on(vcpu) || (run->exit_reason == KVM_EXIT_IO &&
					       run->io.port == PORT_DONE))
				break;
			CHECK(run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO,
			      "exit %u after %u", run->exit_reason, n);
		}
		CHECK(run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DONE,
		      "the guest's end is not reached: exit %u after %u", run->exit_reason, n);
	}
	memset(run, 0, vcpu->run_size);
	still_good(0x14);
	machine_destroy();
}

static void mapping_beyond(void)
{
	int status = 0;
	pid_t pid;
	uint8_t *p;

	machine_create();
	p = mmap(NULL, vcpu->run_size + 64 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		 vcpu->fd, 0);
	if (p != MAP_FAILED) {
		pid = fork();
		if (!pid) {
			signal(SIGBUS, SIG_DFL);
			p[vcpu->run_size + 8 * PAGE_SIZE] = 1;
			_exit(0);
		}
		waitpid(pid, &status, 0);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS,
		      "a touch beyond kvm_run: status %#x, wanted SIGBUS", status);
		munmap(p, vcpu->run_size + 64 * PAGE_SIZE);
	}
	still_good(0x15);
	machine_destroy();
}

/* ---- Guests ---- */

static volatile uint64_t loops;

static void loop_handler(struct trap_frame *frame)
{
	(void)frame;
	loops++;		/* and back to the same UD2 */
}

static void loop_payload(void)
{
	guest_handlers[TRAP_UD] = loop_handler;
	__asm__ volatile("ud2" : : : "memory");
}

static void must_time_out(const char *what)
{
	struct report report;
	uint64_t start = clock_ns();

	vcpu_deadline_ms = 300;
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_TIMEOUT, "%s: report %d, exit %u", what, report.kind,
	      vcpu->run->exit_reason);
	CHECK(clock_ns() - start < 5000000000ull, "%s: took %llu ms to stop", what,
	      (unsigned long long)(clock_ns() - start) / 1000000);
}

static void fault_loop(void)
{
	machine_create();
	vcpu_set_long(vcpu, loop_payload, 0);
	must_time_out("a fault loop");
	CHECK(*GUEST_VAR(vm, loops) > 0, "the guest took no fault");
	still_good(0x16);
	machine_destroy();
}

static void deaf_payload(void)
{
	uint32_t a = 0, b, c, d;

	__asm__ volatile("cli\n1: xorl %%eax, %%eax; cpuid; jmp 1b"
			 : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
}

/*
 * A state that no CPU enters a guest in (code that is 64 and 32 bits at once) costs one KVM_RUN, and
 * nothing of the vCPU's. What the CPU left of it must not be run: not by a guest that has its
 * interrupts off, and keeps the host's out.
 */
static void refused_entry(void)
{
	struct kvm_sregs sregs, after;
	struct kvm_regs regs, regs_after;

	machine_create();
	vcpu_set_long(vcpu, deaf_payload, 0);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs));
	sregs.cs.db = 1;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs)) {
		CHECK_EQ(errno, EINVAL);
	} else {
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_REGS, &regs));
		vcpu_exit(vcpu, KVM_EXIT_FAIL_ENTRY);
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_SREGS, &after));
		CHECK(!memcmp(&sregs, &after, sizeof(sregs)), "the segments changed");
		CHECK_CALL(ioctl(vcpu->fd, KVM_GET_REGS, &regs_after));
		CHECK(!memcmp(&regs, &regs_after, sizeof(regs)), "the registers changed");
		sregs.cs.db = 0;
		CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	}
	must_time_out("a guest with interrupts off");
	still_good(0x1b);
	machine_destroy();
}

static void shutdown_payload(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none;

	__asm__ volatile("lidt %0; int3" : : "m"(none) : "memory");
}

static void shutdowns(void)
{
	int i;

	machine_create();
	for (i = 0; i < 100 && !tap_failed(); i++) {
		vcpu_set_long(vcpu, shutdown_payload, 0);
		vcpu_exit(vcpu, KVM_EXIT_SHUTDOWN);
	}
	still_good(0x17);
	machine_destroy();
}

/* #DB by a write to the very stack that #DB's frame goes to: a CPU may deliver it for ever. */
static void db_loop_payload(void)
{
	__asm__ volatile("ltr %w0" : : "r"(GUEST_TR) : "memory");
	__asm__ volatile("movq %0, %%dr0; movq %1, %%dr7"
			 :
			 : "r"(GUEST_FREE + 0xff0), "r"(0x000d0402ul));
	__asm__ volatile("1: movq $1, %0; jmp 1b"
			 :
			 : "m"(*(uint64_t *)(GUEST_FREE + 0xff0))
			 : "memory");
}

/* QEMU's TCG aborts in it (bql_lock_impl), which tells nothing of the host that it emulates. */
static bool cpu_is_tcg(void)
{
	uint32_t out[4];

	cpuid(1, 0, out);
	if (!(out[2] >> 31))
		return false;
	cpuid(0x40000000, 0, out);
	return !memcmp(&out[1], "TCGTCGTCGTCG", 12);
}

static void db_loop(void)
{
	struct report report;

	if (cpu_is_tcg())
		SKIP("the emulated CPU does not survive it");
	machine_create();
	vm->ram[GUEST_IDT + 16 * TRAP_DB + 4] = 1;
	*(uint64_t *)(vm->ram + GUEST_TSS + 0x24) = GUEST_FREE + 0x1000;
	vm->ram[GUEST_GDT + GUEST_TR + 5] = 0x89;
	vcpu_set_long(vcpu, db_loop_payload, 0);
	vcpu_deadline_ms = 300;
	report = vcpu_wait(vcpu);
	tap_note("ends as report %d", report.kind);
	machine_destroy();
}

/* Page tables that are in MMIO, or point to themselves, cost the guest alone. */
static void strange_tables(void)
{
	struct kvm_sregs s;

	machine_create();
	vcpu_set_long(vcpu, good_payload, 1);
	s = vcpu_sregs(vcpu);
	s.cr3 = 0x40000000;	/* no memory there */
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &s));
	run_briefly("page tables in nothing");
	memset(vm->ram + GUEST_FREE, 0, PAGE_SIZE);
	*(uint64_t *)(vm->ram + GUEST_FREE) = GUEST_FREE | 3;
	vcpu_clean();
	vcpu_set_long(vcpu, good_payload, 1);
	s.cr3 = GUEST_FREE;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &s));
	run_briefly("a page table of itself");
	still_good(0x18);
	machine_destroy();
}

/*
 * An instruction is emulated at an address where another one was before, which is still in the page
 * that was mapped there. A read is not the write that it was, least of all to a page that may only
 * be read.
 */
#define CODE_AT		0xa00000ul
#define CODE_WRITE	(GUEST_FREE + 0x1000)
#define CODE_READ	(GUEST_FREE + 0x2000)
#define READ_ONLY	0xb00000ul
#define READ_ONLY_GPA	(GUEST_MMIO + 0x1000)

static volatile uint64_t code_pte;

static void code_call(uint64_t at)
{
	__asm__ volatile("call *%1" : : "a"(at), "c"(CODE_AT) : "rbx", "memory");
}

static void read_or_write_payload(void)
{
	code_call(GUEST_MMIO);
	*(volatile uint64_t *)code_pte = CODE_READ | 3;
	__asm__ volatile("invlpg (%0)" : : "r"(CODE_AT) : "memory");
	code_call(READ_ONLY);
	guest_done();
}

static void code_of_another_page(void)
{
	static const uint8_t write[] = { 0x89, 0x18, 0xc3 };	/* mov [rax], ebx; ret */
	static const uint8_t read[] = { 0x8b, 0x18, 0xc3 };
	uint64_t dir;

	machine_create();
	vm_copy(vm, CODE_WRITE, write, sizeof(write));
	vm_copy(vm, CODE_READ, read, sizeof(read));
	vm_map_page(vm, CODE_AT, CODE_WRITE, 3);
	vm_map_page(vm, READ_ONLY, READ_ONLY_GPA, 1);
	dir = *(uint64_t *)(vm->ram + GUEST_TABLES + 2 * PAGE_SIZE + (CODE_AT >> 21) * 8);
	*GUEST_VAR(vm, code_pte) = (dir & ~0xffful) + (CODE_AT >> 12 & 511) * 8;
	vcpu_set_long(vcpu, read_or_write_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	CHECK(vcpu->run->mmio.is_write, "the first is no write");
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	CHECK(!vcpu->run->mmio.is_write, "a write to %#llx, which is read-only",
	      vcpu->run->mmio.phys_addr);
	CHECK_EQ(vcpu->run->mmio.phys_addr, READ_ONLY_GPA);
	vcpu_finish(vcpu);
	still_good(0x1a);
	machine_destroy();
}

static void deaf_child(void)
{
	vcpu_set_long(vcpu, loop_payload, 0);
	for (;;)
		vcpu_run(vcpu);
}

/* It dies soon, or the case fails: it is not waited for in vain. */
static void must_die(pid_t pid)
{
	uint64_t start = clock_ns();
	int status = 0;
	pid_t dead;

	usleep(300000);
	kill(pid, SIGKILL);
	do {
		usleep(10000);
		dead = waitpid(pid, &status, WNOHANG);
	} while (!dead && clock_ns() - start < 5000000000ull);
	CHECK(dead == pid, "SIGKILL does not end it");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", status);
}

/* SIGKILL is enough for whoever blocks everything else. */
static void kill_works(void)
{
	sigset_t all;
	pid_t pid;

	pid = fork();
	if (!pid) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		machine_create();
		deaf_child();
	}
	must_die(pid);
}

/*
 * A signal mask that can be read in part only. What is left in force must not be that part:
 * SIGKILL, taken out of a mask when it is taken over as a whole, would be in it, and the guest go
 * on for ever.
 */
static void half_mask_child(void)
{
	uint8_t *end = (uint8_t *)mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + PAGE_SIZE;
	struct kvm_signal_mask *whole = (void *)(end - 12), *half = (void *)(end - 6);

	munmap(end, PAGE_SIZE);
	machine_create();
	memset(end - 12, 0, 12);
	whole->len = 8;
	if (ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, whole))
		_exit(1);
	half->len = 8;
	half->sigset[0] = 0xff;
	half->sigset[1] = 0xff;
	if (!ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, half) || errno != EFAULT)
		_exit(2);
	deaf_child();
}

static void half_a_signal_mask(void)
{
	pid_t pid = fork();

	if (!pid)
		half_mask_child();
	must_die(pid);
}

/* A VM belongs to the process that made it. */
static void other_process(void)
{
	int status = 0;
	pid_t pid;

	machine_create();
	vcpu_set_long(vcpu, good_payload, 0x19);
	pid = fork();
	if (!pid) {
		_exit(ioctl(vcpu->fd, KVM_RUN, 0) == -1 && errno == EIO &&
		      vm_slot(vm, 5, MIB(64), PAGE_SIZE, vm->ram, 0) == -1 && errno == EIO ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	CHECK(status == 0, "a child could use its parent's VM: status %#x", status);
	vcpu_sync(vcpu, 0x19);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "vcpu_ids", vcpu_ids },
	{ "nonsense_sregs", nonsense_sregs },
	{ "random_states", random_states },
	{ "random_code", random_code },
	{ "scribbled_kvm_run", scribbles },
	{ "mapping_beyond_kvm_run", mapping_beyond },
	{ "fault_loop", fault_loop },
	{ "refused_entry", refused_entry },
	{ "shutdown_again_and_again", shutdowns },
	{ "debug_exception_loop", db_loop },
	{ "strange_page_tables", strange_tables },
	{ "code_of_another_page", code_of_another_page },
	{ "kill_works", kill_works },
	{ "half_a_signal_mask", half_a_signal_mask },
	{ "other_process", other_process },
};

TAP_MAIN(cases)
