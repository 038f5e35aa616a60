// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Registers that guest and host share one after the other: vectors, x87, debug registers. Each side
 * must find its own, across exits, with other processes on the same CPU at the same work.
 */
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "guest.h"

#define ROUNDS		300
#define VECTOR_BYTES	512	/* 16 registers of 32 bytes */

static struct vm *vm;
static struct vcpu *vcpu;

#define EACH_YMM(insn, suffix) \
	insn("0", suffix) insn("1", suffix) insn("2", suffix) insn("3", suffix) \
	insn("4", suffix) insn("5", suffix) insn("6", suffix) insn("7", suffix) \
	insn("8", suffix) insn("9", suffix) insn("10", suffix) insn("11", suffix) \
	insn("12", suffix) insn("13", suffix) insn("14", suffix) insn("15", suffix)
#define YMM_LOAD(n, from)	"vmovdqu " n "*32(" from "), %%ymm" n "\n\t"
#define YMM_STORE(n, to)	"vmovdqu %%ymm" n ", " n "*32(" to ")\n\t"

static bool cpu_has_avx(void)
{
	uint32_t out[4];

	cpuid(1, 0, out);
	return (out[2] >> 26 & 7) == 7;	/* XSAVE, OSXSAVE, AVX */
}

static void pattern_make(uint64_t *to, uint64_t seed)
{
	int i;

	for (i = 0; i < VECTOR_BYTES / 8; i++)
		to[i] = (seed + i) * 0x9e3779b97f4a7c15;
}

/* ---- The guest ---- */

static uint64_t guest_in[VECTOR_BYTES / 8], guest_out[VECTOR_BYTES / 8];

static void vectors_payload(uint64_t id)
{
	uint64_t round, port = PORT_SYNC, value;
	int i;

	write_cr4(read_cr4() | 1ul << 18);
	__asm__ volatile("xsetbv" : : "a"(7), "d"(0), "c"(0) : "memory");
	for (round = 1; round <= ROUNDS; round++) {
		pattern_make(guest_in, id + round);
		value = round;
		/* Nothing but an exit to userspace between load and store. */
		__asm__ volatile(
			EACH_YMM(YMM_LOAD, "%0") "outb %%al, %w2\n\t" EACH_YMM(YMM_STORE, "%1")
			:
			: "r"(guest_in), "r"(guest_out), "d"(port), "D"(value)
			: "memory");
		for (i = 0; i < VECTOR_BYTES / 8; i++)
			GUEST_EQ(guest_out[i], guest_in[i]);
	}
	guest_done();
}

/* ---- The host ---- */

/* KVM_RUN with vectors of our own in the registers: they must be there after it. */
static long run_with_vectors(int fd, const uint64_t *in, uint64_t *out)
{
	long r = SYS_ioctl;

	__asm__ volatile(EACH_YMM(YMM_LOAD, "%[in]")
			 "syscall\n\t"
			 EACH_YMM(YMM_STORE, "%[out]")
			 : "+a"(r)
			 : "D"((long)fd), "S"((unsigned long)KVM_RUN), "d"(0l), [in] "r"(in),
			   [out] "r"(out)
			 : "rcx", "r11", "memory");
	return r;
}

static void busy_child(uint64_t seed)
{
	uint64_t in[VECTOR_BYTES / 8], out[VECTOR_BYTES / 8];
	uint64_t round;
	volatile int spin;

	for (round = 0;; round++) {
		pattern_make(in, seed + round);
		spin = 0;
		__asm__ volatile(EACH_YMM(YMM_LOAD, "%0") : : "r"(in) : "memory");
		while (spin < 20000)
			spin++;
		__asm__ volatile(EACH_YMM(YMM_STORE, "%0") : : "r"(out) : "memory");
		if (memcmp(in, out, sizeof(in)))
			_exit(1);
		if (getppid() == 1)
			_exit(2);
	}
}

static pid_t child_start(uint64_t seed)
{
	pid_t pid = fork();

	if (!pid)
		busy_child(seed);
	return pid;
}

static void child_stop(pid_t pid)
{
	int status = 0;

	if (CHECK_EQ(waitpid(pid, &status, WNOHANG), 0)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return;
	}
	CHECK(false, "another process lost its vectors: status %#x", status);
}

static void cpu_pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* One step of one guest: to its next sync. */
static bool vectors_step(struct vcpu *v, uint64_t round)
{
	static uint64_t in[VECTOR_BYTES / 8], out[VECTOR_BYTES / 8];
	struct kvm_run *run = v->run;
	long r;

	pattern_make(in, round * 77);
	do {
		memset(out, 0, sizeof(out));
		r = run_with_vectors(v->fd, in, out);
		if (!CHECK(!memcmp(in, out, sizeof(in)), "round %llu: the host's vectors are lost",
			   (unsigned long long)round))
			return false;
	} while (r == -EINTR);
	return CHECK(!r && run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_SYNC &&
			     vcpu_regs(v).rdi == round,
		     "round %llu: KVM_RUN %ld, exit %u, port %#x, rdi %#llx, rsi %#llx",
		     (unsigned long long)round, r, run->exit_reason, run->io.port, vcpu_regs(v).rdi,
		     vcpu_regs(v).rsi);
}

static void vectors(void)
{
	struct vm *vms[2];
	struct vcpu *vcpus[2];
	uint64_t round;
	pid_t child;
	int i;

	if (!cpu_has_avx())
		SKIP("the CPU has no AVX");
	cpu_pin();
	child = child_start(0x1000);
	for (i = 0; i < 2; i++) {
		vms[i] = vm_create(GUEST_RAM, false);
		vcpus[i] = vcpu_create(vms[i], 0);
		vcpu_set_long(vcpus[i], vectors_payload, i * 100000);
	}
	for (round = 1; round <= ROUNDS && !tap_failed(); round++)
		for (i = 0; i < 2; i++)
			vectors_step(vcpus[i], round);
	for (i = 0; i < 2; i++) {
		vcpu_finish(vcpus[i]);
		vcpu_destroy(vcpus[i]);
		vm_destroy(vms[i]);
	}
	child_stop(child);
}

/* ---- Debug registers ---- */

static volatile uint64_t watched, hits, hit_dr6;

static void db_handler(struct trap_frame *frame)
{
	(void)frame;
	__asm__ volatile("movq %%dr6, %%rax; movq %%rax, hit_dr6; movq %0, %%dr6"
			 : : "r"(0xffff0ff0ul) : "rax", "memory");
	hits++;
}

static void debug_payload(void)
{
	uint64_t value, i;

	guest_handlers[TRAP_DB] = db_handler;
	__asm__ volatile("movq %0, %%dr0" : : "r"(&watched));
	__asm__ volatile("movq %0, %%dr7" : : "r"(0x000d0402ul));	/* G0: writes of 8 bytes */
	for (i = 1; i <= 50; i++) {
		watched = i;
		GUEST_EQ(hits, i);
		GUEST_EQ(hit_dr6 & 0xf, 1);
		guest_sync(i);
		__asm__ volatile("movq %%dr0, %0" : "=r"(value));
		GUEST_EQ(value, (uintptr_t)&watched);
		__asm__ volatile("movq %%dr7, %0" : "=r"(value));
		GUEST_EQ(value, 0x000d0402);
	}
	__asm__ volatile("movq %0, %%dr7" : : "r"(0x400ul));
	watched = 0;
	GUEST_EQ(hits, 50);
	/* DR4 is DR6 without CR4.DE; an upper bit of DR7 is none. */
	GUEST_EQ(GUEST_TRY("movq %0, %%dr7", : : "r"(1ul << 40) : "r11", "memory"), TRAP_GP);
	guest_done();
}

static void debug_registers(void)
{
	struct kvm_debugregs regs;
	uint64_t i;

	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, debug_payload, 0);
	for (i = 1; i <= 50 && !tap_failed(); i++)
		vcpu_sync(vcpu, i);
	CHECK_CALL(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &regs));
	CHECK_EQ(regs.db[0], (uintptr_t)&watched);
	CHECK_EQ(regs.dr7, 0x000d0402);
	vcpu_finish(vcpu);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static volatile uint64_t host_watched;

static int breakpoint_open(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT, .size = sizeof(attr), .bp_type = HW_BREAKPOINT_W,
		.bp_addr = (uintptr_t)&host_watched, .bp_len = HW_BREAKPOINT_LEN_8,
		.exclude_kernel = 1, .exclude_hv = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/*
 * The host's breakpoint counts the host's writes, no guest's, while the guest uses DR0 for itself.
 */
static void host_breakpoint(void)
{
	int fd = breakpoint_open();
	uint64_t i, count = 0;

	if (fd < 0)
		SKIP("no hardware breakpoint: %s", strerror(errno));
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	vcpu_set_long(vcpu, debug_payload, 0);
	for (i = 1; i <= 50 && !tap_failed(); i++) {
		vcpu_sync(vcpu, i);
		host_watched = i;
	}
	vcpu_finish(vcpu);
	CHECK_EQ(read(fd, &count, sizeof(count)), sizeof(count));
	CHECK_EQ(count, 50);
	close(fd);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "vectors", vectors },
	{ "debug_registers", debug_registers },
	{ "host_breakpoint", host_breakpoint },
};

TAP_MAIN(cases)
