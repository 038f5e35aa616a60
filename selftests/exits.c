// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What KVM_RUN returns with: ports, HLT, SHUTDOWN, INTR, INTERNAL_ERROR, and what it leaves in
 * kvm_run.
 */
#include <sys/time.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "guest.h"

#define PORT_TEST	0x510
#define PORT_LOW	0x71
#define BUFFER		GUEST_FREE
#define STRING_BYTES	6000		/* more than the page that kvm_run has for data */

static struct vm *vm;
static struct vcpu *vcpu;

static void machine_create(void *payload, uint64_t arg)
{
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, payload, arg);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void *run_data(void)
{
	return (uint8_t *)vcpu->run + vcpu->run->io.data_offset;
}

/* One port exit with everything as it must be. */
static bool port_exit(uint8_t direction, uint16_t port, uint8_t size, uint32_t count)
{
	struct kvm_run *run = vcpu->run;

	return vcpu_exit(vcpu, KVM_EXIT_IO) &
	       CHECK_EQ(run->io.direction, direction) & CHECK_EQ(run->io.port, port) &
	       CHECK_EQ(run->io.size, size) & CHECK_EQ(run->io.count, count) &
	       CHECK(run->io.data_offset >= sizeof(*run) &&
		     run->io.data_offset + size * count <= vcpu->run_size,
		     "data_offset %#llx of %#zx", run->io.data_offset, vcpu->run_size);
}

static void out_payload(void)
{
	__asm__ volatile("movq $0x8877665544332211, %%rax\n\t"
			 "movw %0, %%dx\n\t"
			 "outb %%al, %%dx; outw %%ax, %%dx; outl %%eax, %%dx\n\t"
			 "outb %%al, %1; outw %%ax, %1; outl %%eax, %1"
			 : : "i"(PORT_TEST), "i"(PORT_LOW) : "rax", "rdx", "memory");
	guest_done();
}

static void port_out(void)
{
	static const uint8_t bytes[] = { 0x11, 0x22, 0x33, 0x44 };
	static const uint8_t sizes[] = { 1, 2, 4, 1, 2, 4 };
	size_t i;

	machine_create(out_payload, 0);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (port_exit(KVM_EXIT_IO_OUT, i < 3 ? PORT_TEST : PORT_LOW, sizes[i], 1))
			CHECK(!memcmp(run_data(), bytes, sizes[i]), "OUT %zu: first byte %#x", i,
			      *(uint8_t *)run_data());
	vcpu_finish(vcpu);
	machine_destroy();
}

static void in_payload(void)
{
	uint64_t b = ~0ul, w = ~0ul, l = ~0ul;

	__asm__ volatile("inb %w1, %b0" : "+a"(b) : "d"(PORT_TEST) : "memory");
	__asm__ volatile("inw %w1, %w0" : "+a"(w) : "d"(PORT_TEST) : "memory");
	__asm__ volatile("inl %w1, %k0" : "+a"(l) : "d"(PORT_TEST) : "memory");
	GUEST_EQ(b, 0xffffffffffffffa1);
	GUEST_EQ(w, 0xffffffffffffa2a1);
	GUEST_EQ(l, 0xa4a3a2a1);
	__asm__ volatile("inb %1, %b0" : "+a"(b) : "i"(PORT_LOW) : "memory");
	GUEST_EQ(b, 0xffffffffffffffa1);
	guest_done();
}

static void port_in(void)
{
	static const uint8_t bytes[] = { 0xa1, 0xa2, 0xa3, 0xa4 };
	static const uint8_t sizes[] = { 1, 2, 4, 1 };
	size_t i;

	machine_create(in_payload, 0);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (port_exit(KVM_EXIT_IO_IN, i < 3 ? PORT_TEST : PORT_LOW, sizes[i], 1))
			memcpy(run_data(), bytes, sizes[i]);
	vcpu_finish(vcpu);
	machine_destroy();
}

/*
 * ---- String I/O: in which pieces it comes is the node's choice, the bytes in order are not. ----
 */

static void outs_payload(void)
{
	uint64_t from, n;

#define OUTS(insn, first, count) \
	(from = (first), n = (count), \
	 ({ __asm__ volatile(insn : "+S"(from), "+c"(n) : "d"(PORT_TEST) : "memory"); }))
	OUTS("outsb", BUFFER, 7);
	GUEST_EQ(from, BUFFER + 1);
	GUEST_EQ(n, 7);
	OUTS("outsl", BUFFER + 1, 7);
	GUEST_EQ(from, BUFFER + 5);
	OUTS("rep; outsb", BUFFER + 5, STRING_BYTES);
	GUEST_EQ(from, BUFFER + 5 + STRING_BYTES);
	GUEST_EQ(n, 0);
	OUTS("rep; outsw", BUFFER + 0xffb, 9);
	GUEST_EQ(from, BUFFER + 0xffb + 18);
	OUTS("rep; outsl", BUFFER + 0x1ff6, 5);
	GUEST_EQ(from, BUFFER + 0x1ff6 + 20);
	OUTS("rep; outsb", BUFFER, 0);
	GUEST_EQ(from, BUFFER);
	OUTS("std; rep; outsl; cld", BUFFER + 0x100, 3);
	GUEST_EQ(from, BUFFER + 0x100 - 12);
	guest_done();
}

/* Takes OUT exits until there are this many bytes; false where something else came. */
static bool outs_collect(uint8_t *to, size_t bytes, uint8_t size)
{
	struct kvm_run *run = vcpu->run;
	size_t got = 0, n;

	while (got < bytes) {
		if (!vcpu_exit(vcpu, KVM_EXIT_IO) || !CHECK_EQ(run->io.size, size) ||
		    !CHECK_EQ(run->io.direction, KVM_EXIT_IO_OUT) ||
		    !CHECK_EQ(run->io.port, PORT_TEST))
			return false;
		n = (size_t)run->io.count * size;
		if (!CHECK(n && n <= bytes - got, "%zu bytes, %zu are left", n, bytes - got))
			return false;
		memcpy(to + got, run_data(), n);
		got += n;
	}
	return true;
}

static void outs_check(uint64_t from, size_t bytes, uint8_t size)
{
	static uint8_t got[STRING_BYTES];

	if (outs_collect(got, bytes, size))
		CHECK(!memcmp(got, vm->ram + from, bytes),
		      "OUTS of %zu bytes of %u from %#llx differ", bytes, size,
		      (unsigned long long)from);
}

static void string_out(void)
{
	uint8_t back[12];
	size_t i;

	machine_create(outs_payload, 0);
	for (i = 0; i < 0x4000; i++)
		vm->ram[BUFFER + i] = i * 3 + i / 256;
	outs_check(BUFFER, 1, 1);
	outs_check(BUFFER + 1, 4, 4);
	outs_check(BUFFER + 5, STRING_BYTES, 1);
	outs_check(BUFFER + 0xffb, 18, 2);
	outs_check(BUFFER + 0x1ff6, 20, 4);
	if (outs_collect(back, 12, 4))
		for (i = 0; i < 3; i++)
			CHECK(!memcmp(back + 4 * i, vm->ram + BUFFER + 0x100 - 4 * i, 4),
			      "backwards OUTS, element %zu", i);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void ins_payload(void)
{
	uint64_t to, n;

#define INS(insn, first, count) \
	(to = (first), n = (count), \
	 ({ __asm__ volatile(insn : "+D"(to), "+c"(n) : "d"(PORT_TEST) : "memory"); }))
	INS("insb", BUFFER, 7);
	GUEST_EQ(to, BUFFER + 1);
	GUEST_EQ(n, 7);
	INS("insw", BUFFER + 1, 7);
	INS("rep; insb", BUFFER + 3, STRING_BYTES);
	GUEST_EQ(to, BUFFER + 3 + STRING_BYTES);
	GUEST_EQ(n, 0);
	INS("rep; insl", BUFFER + 0x1ff6, 5);
	GUEST_EQ(to, BUFFER + 0x1ff6 + 20);
	INS("std; rep; insw; cld", BUFFER + 0x3000, 3);
	GUEST_EQ(to, BUFFER + 0x3000 - 6);
	guest_done();
}

static uint8_t in_byte(size_t i)
{
	return 0x17 + i * 5 + i / 256;
}

/* Answers IN exits with in_byte(0), (1), ...; the guest must ask for exactly so many. */
static bool ins_feed(size_t bytes, uint8_t size)
{
	struct kvm_run *run = vcpu->run;
	size_t given = 0, n, i;

	while (given < bytes) {
		if (!vcpu_exit(vcpu, KVM_EXIT_IO) || !CHECK_EQ(run->io.size, size) ||
		    !CHECK_EQ(run->io.direction, KVM_EXIT_IO_IN))
			return false;
		n = (size_t)run->io.count * size;
		if (!CHECK(n && n <= bytes - given, "%zu bytes, %zu are left", n, bytes - given))
			return false;
		for (i = 0; i < n; i++)
			((uint8_t *)run_data())[i] = in_byte(given + i);
		given += n;
	}
	return true;
}

static void ins_check(uint64_t at, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		if (!CHECK(vm->ram[at + i] == in_byte(i),
			   "INS at %#llx: byte %zu is %#x, wanted %#x", (unsigned long long)at, i,
			   vm->ram[at + i], in_byte(i)))
			return;
}

static void moved_count_payload(void)
{
	uint64_t to, n;

	INS("rep; insb", BUFFER, 2);
	GUEST_EQ(to, BUFFER + 1);
	GUEST_EQ(n, 0);
	INS("rep; insb", BUFFER, 3);
	GUEST_EQ(to, BUFFER + 5000);
	GUEST_EQ(n, 0);
	guest_done();
}

/* Userspace changes RCX before it completes an exit: what was served is used, as far as it goes. */
static void string_moved_count(void)
{
	struct report report;
	struct kvm_regs regs;

	machine_create(moved_count_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vcpu->run->io.count, 2);
	memset(run_data(), 0x11, 2);
	regs = vcpu_regs(vcpu);
	regs.rcx = 1;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_REGS, &regs));
	vcpu_exit(vcpu, KVM_EXIT_IO);
	CHECK_EQ(vm->ram[BUFFER], 0x11);
	CHECK_EQ(vm->ram[BUFFER + 1], 0);
	CHECK_EQ(vcpu->run->io.count, 3);
	memset(run_data(), 0x22, 3);
	regs = vcpu_regs(vcpu);
	regs.rcx = 5000;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_REGS, &regs));
	while ((report = vcpu_wait(vcpu)).kind == REPORT_EXIT)
		memset(run_data(), 0x22, vcpu->run->io.count);
	CHECK_EQ(report.kind, REPORT_DONE);
	CHECK_EQ(vm->ram[BUFFER + 4999], 0x22);
	CHECK_EQ(vm->ram[BUFFER + 5000], 0);
	machine_destroy();
}

static void string_in(void)
{
	size_t i;

	machine_create(ins_payload, 0);
	ins_feed(1, 1);
	ins_feed(2, 2);
	ins_check(BUFFER, 1);
	ins_feed(STRING_BYTES, 1);
	ins_check(BUFFER + 1, 2);
	ins_feed(20, 4);
	ins_check(BUFFER + 3, STRING_BYTES);
	ins_feed(6, 2);
	ins_check(BUFFER + 0x1ff6, 20);
	vcpu_finish(vcpu);
	for (i = 0; i < 6; i++)
		CHECK_EQ(vm->ram[BUFFER + 0x3000 - i / 2 * 2 + i % 2], in_byte(i));
	machine_destroy();
}

__asm__(".pushsection .text\n"
	".code16\n"
	".globl string16_start, string16_end\n"
	"string16_start:\n"
	"	movw $0x510, %dx\n"
	"	movw $0x9000, %si\n"
	"	movw $0x9100, %di\n"
	"	movw $5, %cx\n"
	"	rep; outsb\n"
	"	movw $5, %cx\n"
	"	rep; insb\n"
	"	outb %al, $0xe0\n"
	"string16_end:\n"
	".code32\n"
	".globl string32_start\n"
	"string32_start:\n"
	"	movw $0x510, %dx\n"
	"	movl $0x800000, %esi\n"
	"	movl $0x800100, %edi\n"
	"	movl $5, %ecx\n"
	"	rep; outsl\n"
	"	movl $5, %ecx\n"
	"	rep; insl\n"
	"	outb %al, $0xe0\n"
	".code64\n"
	".popsection\n");

extern const char string16_start[], string16_end[], string32_start[];

static void string_old_modes(void)
{
	machine_create(NULL, 0);
	memcpy(vm->ram + 0x8000, string16_start, string16_end - string16_start);
	memcpy(vm->ram + 0x9000, "hello", 5);
	vcpu_set_real(vcpu, 0x8000);
	outs_check(0x9000, 5, 1);
	ins_feed(5, 1);
	vcpu_finish(vcpu);
	ins_check(0x9100, 5);

	memcpy(vm->ram + 0x800000, "twenty bytes of data", 20);
	vcpu_set_protected(vcpu, (uintptr_t)string32_start);
	outs_check(0x800000, 20, 4);
	ins_feed(20, 4);
	vcpu_finish(vcpu);
	ins_check(0x800100, 20);
	machine_destroy();
}

/* ---- HLT, SHUTDOWN ---- */

static void hlt_payload(void)
{
	__asm__ volatile("cli; hlt" : : : "memory");
	guest_sync(1);
	__asm__ volatile("hlt" : : : "memory");
	guest_done();
}

static void hlt(void)
{
	machine_create(hlt_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	CHECK_EQ(vcpu->run->if_flag, 0);
	vcpu_sync(vcpu, 1);
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	vcpu_finish(vcpu);
	machine_destroy();
}

static void shutdown_payload(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none;

	__asm__ volatile("lidt %0; ud2" : : "m"(none) : "memory");
	guest_done();
}

static void shutdown(void)
{
	machine_create(shutdown_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_SHUTDOWN);
	/* It is no end: with a new state the vCPU runs again. */
	vcpu_set_long(vcpu, hlt_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	machine_destroy();
}

/* ---- Leaving a guest that does not ---- */

static volatile uint64_t guest_count;

static void spin_payload(void)
{
	for (;;)
		guest_count++;
}

static volatile int signals;

static void signal_count(int sig)
{
	(void)sig;
	signals++;
}

static void signal_prepare(int sig)
{
	struct sigaction act = { .sa_handler = signal_count };

	sigaction(sig, &act, NULL);
	signals = 0;
}

static void *signal_later(void *thread)
{
	usleep(100000);
	pthread_kill(*(pthread_t *)thread, SIGUSR1);
	return NULL;
}

static void intr(void)
{
	pthread_t self = pthread_self(), other;
	uint64_t before;
	int i;

	machine_create(spin_payload, 0);
	signal_prepare(SIGUSR1);
	for (i = 0; i < 3; i++) {
		before = *GUEST_VAR(vm, guest_count);
		pthread_create(&other, NULL, signal_later, &self);
		CHECK_EQ(vcpu_run(vcpu), -EINTR);
		pthread_join(other, NULL);
		CHECK_EQ(vcpu->run->exit_reason, KVM_EXIT_INTR);
		CHECK_EQ(signals, i + 1);
		CHECK(*GUEST_VAR(vm, guest_count) > before, "the guest did not run");
	}
	machine_destroy();
}

static void immediate_exit(void)
{
	struct kvm_regs regs;

	machine_create(spin_payload, 0);
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	CHECK_EQ(*GUEST_VAR(vm, guest_count), 0);
	regs = vcpu_regs(vcpu);
	CHECK_EQ(regs.rip, (uintptr_t)spin_payload);
	machine_destroy();
}

static void in_once_payload(void)
{
	guest_sync(inl(PORT_TEST));
	guest_sync(*(volatile uint32_t *)GUEST_MMIO);
	guest_done();
}

/* With immediate_exit, what userspace answered is completed all the same, and no more. */
static void immediate_completes(void)
{
	struct kvm_regs before, after;

	machine_create(in_once_payload, 0);
	port_exit(KVM_EXIT_IO_IN, PORT_TEST, 4, 1);
	before = vcpu_regs(vcpu);
	*(uint32_t *)run_data() = 0x600df00d;
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	after = vcpu_regs(vcpu);
	CHECK_EQ(after.rax & 0xffffffff, 0x600df00d);
	CHECK(after.rip >= before.rip && after.rip - before.rip <= 4, "rip %#llx, then %#llx",
	      before.rip, after.rip);
	*(uint32_t *)run_data() = 0;
	vcpu->run->immediate_exit = 0;
	vcpu_sync(vcpu, 0x600df00d);
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	memcpy(vcpu->run->mmio.data, "\x78\x56\x34\x12", 4);
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	memset(vcpu->run->mmio.data, 0, 8);
	vcpu->run->immediate_exit = 0;
	vcpu_sync(vcpu, 0x12345678);
	vcpu_finish(vcpu);
	machine_destroy();
}

/*
 * The clock of the CPU time that a thread has used up is looked at on the thread's way to userspace,
 * which a guest that never exits must not keep it from. (The other clock is there to end the case.)
 */
static void cpu_time_limit(void)
{
	struct itimerval used = { .it_value.tv_usec = 200000 }, net = { .it_value.tv_sec = 5 };
	uint64_t start = clock_ns();

	machine_create(spin_payload, 0);
	signal_prepare(SIGPROF);
	signal_prepare(SIGALRM);
	setitimer(ITIMER_PROF, &used, NULL);
	setitimer(ITIMER_REAL, &net, NULL);
	while (!signals)
		CHECK_EQ(vcpu_run(vcpu), -EINTR);
	CHECK(clock_ns() - start < 4000000000ull, "the guest goes on");
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	machine_destroy();
}

/* A signal that only KVM_RUN lets in is still pending afterwards. */
static void signal_mask(void)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} mask = { .head.len = 8 };
	sigset_t blocked, pending;

	machine_create(spin_payload, 0);
	signal_prepare(SIGUSR2);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	mask.head.len = 7;
	CHECK_ERRNO(ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask), EINVAL);
	mask.head.len = 8;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask));
	pthread_kill(pthread_self(), SIGUSR2);
	CHECK_EQ(signals, 0);
	CHECK_EQ(vcpu_run(vcpu), -EINTR);
	CHECK_EQ(vcpu->run->exit_reason, KVM_EXIT_INTR);
	CHECK_EQ(signals, 0);
	sigpending(&pending);
	CHECK(sigismember(&pending, SIGUSR2) == 1, "SIGUSR2 is not pending any more");
	/* NULL takes the mask away: pending and blocked, the signal does not end a run. */
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, NULL));
	vcpu_set_long(vcpu, hlt_payload, 0);
	vcpu_exit(vcpu, KVM_EXIT_HLT);
	pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
	CHECK_EQ(signals, 1);
	machine_destroy();
}

/* Blocked by all but KVM_RUN, without a handler, and sent while that runs: nobody dies of it. */
static void signal_mask_child(void)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} mask = { .head.len = 8 };
	pthread_t self = pthread_self(), sender;
	sigset_t set;
	int sig;

	machine_create(spin_payload, 0);
	signal(SIGUSR1, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) ||
	    pthread_create(&sender, NULL, signal_later, &self))
		_exit(1);
	if (vcpu_run(vcpu) != -EINTR || sigwait(&set, &sig) || sig != SIGUSR1)
		_exit(2);
	_exit(0);
}

static void signal_mask_kills_nobody(void)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		signal_mask_child();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

/* ---- Beyond memory ---- */

static void jump_payload(uint64_t to)
{
	__asm__ volatile("jmp *%0" : : "r"(to));
}

static void jump_into_mmio(void)
{
	machine_create(jump_payload, GUEST_MMIO);
	if (vcpu_exit(vcpu, KVM_EXIT_INTERNAL_ERROR))
		CHECK_EQ(vcpu->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	CHECK_EQ(vcpu_regs(vcpu).rip, GUEST_MMIO);
	machine_destroy();
}

static void jump_real_mode(void)
{
	struct kvm_sregs sregs;

	/* The reset vector, with nothing there. */
	machine_create(NULL, 0);
	vcpu_set_real(vcpu, 0xfff0);
	sregs = vcpu_sregs(vcpu);
	sregs.cs.base = 0xffff0000;
	sregs.cs.selector = 0xf000;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
	if (vcpu_exit(vcpu, KVM_EXIT_INTERNAL_ERROR))
		CHECK_EQ(vcpu->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	machine_destroy();
}

/* An instruction that no decoder has for MMIO: not a hang, and not taken for something else. */
static void strange_payload(uint64_t at)
{
	__asm__ volatile("fxsave (%0)" : : "r"(at) : "memory");
	guest_done();
}

static void strange_instruction(void)
{
	struct report report;
	int n = 0;

	machine_create(strange_payload, GUEST_MMIO);
	do {
		report = vcpu_wait(vcpu);
	} while (report.kind == REPORT_EXIT && vcpu->run->exit_reason == KVM_EXIT_MMIO &&
		 ++n < 200);
	/* KVM's emulator knows FXSAVE; either way the vCPU comes back. */
	CHECK(report.kind == REPORT_DONE || (report.kind == REPORT_EXIT &&
	      vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR), "report %d, exit %u, %d of MMIO",
	      report.kind, vcpu->run->exit_reason, n);
	machine_destroy();
}

static void run_fields_payload(void)
{
	__asm__ volatile("sti; nop" : : : "memory");
	guest_sync(1);
	__asm__ volatile("cli; movq $5, %%rax; movq %%rax, %%cr8" : : : "rax", "memory");
	guest_sync(2);
	guest_done();
}

static void run_fields(void)
{
	machine_create(run_fields_payload, 0);
	vcpu_sync(vcpu, 1);
	CHECK_EQ(vcpu->run->if_flag, 1);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 1);
	CHECK_EQ(vcpu->run->cr8, 0);
	CHECK_EQ(vcpu->run->apic_base & ~0xffful, 0xfee00000);
	vcpu_sync(vcpu, 2);
	CHECK_EQ(vcpu->run->if_flag, 0);
	CHECK_EQ(vcpu->run->ready_for_interrupt_injection, 0);
	CHECK_EQ(vcpu->run->cr8, 5);
	/* Without a local APIC in the kernel CR8 is userspace's, too. */
	vcpu->run->cr8 = 0;
	vcpu_finish(vcpu);
	CHECK_EQ(vcpu_sregs(vcpu).cr8, 0);
	machine_destroy();
}

/*
 * Two vCPUs on one CPU, each of which waits for the other: where loops of PAUSE make exits, a turn
 * costs no time slice.
 */
#define TURNS		60
#define TURN_MS		1

static volatile uint64_t turn;

static void pause_loop_payload(uint64_t self)
{
	while (turn < TURNS) {
		if (turn % 2 == self)
			turn = turn + 1;
		__asm__ volatile("pause");
	}
	guest_done();
}

static bool pauses_are_told(void)
{
	FILE *file = fopen("/sys/module/moat/parameters/ple_window", "re");
	unsigned int window = 0;

	if (file) {
		if (fscanf(file, "%u", &window) != 1)
			window = 0;
		fclose(file);
	}
	return node_is_moat() && window;
}

static void pause_loop(void)
{
	bool told = pauses_are_told();
	struct vcpu *vcpus[2];
	uint64_t start, ms;
	cpu_set_t one, before;
	int i;

	vm = vm_create(GUEST_RAM, IRQCHIP_NONE);
	for (i = 0; i < 2; i++) {
		vcpus[i] = vcpu_create(vm, i);
		vcpu_set_long(vcpus[i], pause_loop_payload, i);
	}
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_getaffinity(0, sizeof(before), &before);
	sched_setaffinity(0, sizeof(one), &one);
	start = clock_ns();
	for (i = 0; i < 2; i++)
		vcpu_spawn(vcpus[i]);
	for (i = 0; i < 2; i++)
		vcpu_join(vcpus[i]);
	ms = (clock_ns() - start) / 1000000;
	sched_setaffinity(0, sizeof(before), &before);
	CHECK(!told || ms < TURNS * TURN_MS, "%d turns in %llu ms", TURNS, (unsigned long long)ms);
	tap_note("%d turns in %llu ms", TURNS, (unsigned long long)ms);
	for (i = 0; i < 2; i++)
		vcpu_destroy(vcpus[i]);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "port_out", port_out },
	{ "port_in", port_in },
	{ "string_out", string_out },
	{ "string_in", string_in },
	{ "string_moved_count", string_moved_count },
	{ "string_16_and_32_bit", string_old_modes },
	{ "hlt", hlt },
	{ "shutdown", shutdown },
	{ "intr", intr },
	{ "immediate_exit", immediate_exit },
	{ "immediate_exit_completes", immediate_completes },
	{ "cpu_time_limit", cpu_time_limit },
	{ "signal_mask", signal_mask },
	{ "signal_mask_kills_nobody", signal_mask_kills_nobody },
	{ "jump_into_mmio", jump_into_mmio },
	{ "jump_real_mode", jump_real_mode },
	{ "strange_instruction", strange_instruction },
	{ "run_fields", run_fields },
	{ "pause_loop", pause_loop },
};

TAP_MAIN(cases)
