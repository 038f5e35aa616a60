// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Each instruction that the decoder knows, in 64, 32 and 16-bit mode, over memory that is not
 * there.
 *
 * The judge is the CPU itself: an instruction runs once over RAM and once over MMIO, which the host
 * serves from bytes of the same contents. Registers, flags and bytes must come out alike. A snippet
 * is assembled twice, as W, the window's address, may be a displacement in it.
 *
 * Memory below 1 MiB has a hole at the place of the VGA's, so that real mode reaches both windows.
 * A snippet finds RBX, RSI and RDI at three places in the window, which is a segment's base in
 * 16-bit mode and a linear address otherwise.
 */
#include "guest.h"

#define RAM_WINDOW	0x90000ul
#define MMIO_WINDOW	0xb0000ul
#define WINDOW_SIZE	0x1000
#define HOLE_START	0xa0000ul
#define HOLE_END	0xf0000ul

/* Below 64 KiB, for real mode. */
#define RUNNER16	0x8000
#define STATE_IN	"0x9000"
#define STATE_OUT	"0x9100"
#define STATE_IN_AT	0x9000
#define STATE_OUT_AT	0x9100
#define SNIPPET16	0xa000

#define FLAGS_STATUS	0x8d5	/* OF SF ZF AF PF CF */
#define FLAGS_LOGIC	0x8c5	/* AF is undefined */
#define FLAGS_BIT	0x041	/* CF; ZF is left alone */

struct state {
	uint64_t rax, rcx, rdx, rbx, rsi, rdi, rbp, rflags, code;
};

/* One row a snippet and mode, put together by the assembler in a section of its own. */
struct insn {
	uint64_t ram_code, mmio_code, size, name;
	uint32_t mode, flags;
};

extern const struct insn __start_insns[], __stop_insns[];

#define STR_(x) #x
#define STR(x) STR_(x)

#define INSN(bits, ram, mmio, mask, text) \
	__asm__(".pushsection .rodata\n" \
		".code" #bits "\n" \
		".set W, " #ram "\n" \
		"1:	" text "\n	ret\n2:\n" \
		".set W, " #mmio "\n" \
		"3:	" text "\n	ret\n" \
		"4:	.asciz \"" text "\"\n" \
		".code64\n" \
		".popsection\n" \
		".pushsection insns, \"a\"\n" \
		".quad 1b, 3b, 2b - 1b, 4b\n" \
		".long " #bits ", " STR(mask) "\n" \
		".popsection\n")

#define I16(mask, text) INSN(16, 0, 0, mask, text)
#define I32(mask, text) INSN(32, 0x90000, 0xb0000, mask, text)
#define I64(mask, text) INSN(64, 0x90000, 0xb0000, mask, text)
#define ALL(mask, text) I16(mask, text); I32(mask, text); I64(mask, text)

/* 16-bit code may address by 32-bit registers, 64-bit code too. */
ALL(FLAGS_STATUS, "movb %al, (%ebx)");
ALL(FLAGS_STATUS, "movb %ah, (%ebx)");
ALL(FLAGS_STATUS, "movb %dh, 3(%ebx)");
ALL(FLAGS_STATUS, "movw %ax, (%ebx)");
ALL(FLAGS_STATUS, "movl %eax, (%ebx)");
ALL(FLAGS_STATUS, "movb (%ebx), %al");
ALL(FLAGS_STATUS, "movb (%ebx), %ch");
ALL(FLAGS_STATUS, "movw (%ebx), %dx");
ALL(FLAGS_STATUS, "movl (%ebx), %edx");
ALL(FLAGS_STATUS, "movb $0x5a, (%ebx)");
ALL(FLAGS_STATUS, "movw $0x1234, (%ebx)");
ALL(FLAGS_STATUS, "movl $0x89abcdef, (%ebx)");
ALL(FLAGS_STATUS, "movl %edx, 1(%ebx)");
I64(FLAGS_STATUS, "movq %rax, (%rbx)");
I64(FLAGS_STATUS, "movq (%rbx), %rax");
I64(FLAGS_STATUS, "movq $-2, (%rbx)");
I64(FLAGS_STATUS, "movb %sil, (%rbx)");
I64(FLAGS_STATUS, "movb (%rbx), %bpl");
I64(FLAGS_STATUS, "movq %rbx, %r12; movl (%r12), %r9d; movq %r9, %rdx");
I64(FLAGS_STATUS, "movq %rbx, %r13; movq $0x20, %r10; movq %rdx, 4(%r13,%r10,2)");
I64(FLAGS_STATUS, "movl %edx, %r8d; movb %r8b, (%rbx)");

/* Addressing. */
I64(FLAGS_STATUS, "movl (%rbx,%rcx,4), %eax");
I64(FLAGS_STATUS, "movl %eax, -0x20(%rbx,%rcx,8)");
I64(FLAGS_STATUS, "movw %ax, 0x123(%rbx)");
I64(FLAGS_STATUS, "movl W+0x140, %eax");
I64(FLAGS_STATUS, "movl %eax, W+0x140(,%rcx,2)");
I64(FLAGS_STATUS, "movl W+0x150(%rip), %edx");
I64(FLAGS_STATUS, "movl $0x13572468, W+0x150(%rip)");
I64(FLAGS_STATUS, "movb $0x24, W+0x150(%rip)");
I64(FLAGS_STATUS, "movabsb W+0x160, %al");
I64(FLAGS_STATUS, "movabsl %eax, W+0x160");
I64(FLAGS_STATUS, "movabsq W+0x160, %rax");
I64(FLAGS_STATUS, "xchgq %rbp, %rbx; movl %edx, (%rbp); xchgq %rbp, %rbx");
I64(FLAGS_STATUS, "movq %rsp, %r9; movq %rbx, %rsp; movl (%rsp), %eax; movl %eax, 8(%rsp); movq %r9, %rsp");
I32(FLAGS_STATUS, "movl (%ebx,%ecx,4), %eax");
I32(FLAGS_STATUS, "movl %eax, 0x1f0(%ebx,%ecx)");
I32(FLAGS_STATUS, "movw %ax, -0x7f(%ebx)");
I32(FLAGS_STATUS, "movl W+0x140, %edx");
I32(FLAGS_STATUS, "movl %edx, W+0x140(,%ecx,2)");
I32(FLAGS_STATUS, "movb W+0x160, %al");
I32(FLAGS_STATUS, "movl %eax, W+0x160");
I32(FLAGS_STATUS, "movl %fs:(%ebx), %eax");
I32(FLAGS_STATUS, "movl $0x24681357, %gs:W+0x10(%ecx)");
I16(FLAGS_STATUS, "movb (%bx), %al");
I16(FLAGS_STATUS, "movw %ax, (%bx,%si)");
I16(FLAGS_STATUS, "movw (%bx,%di), %dx");
I16(FLAGS_STATUS, "movl %edx, 2(%di)");
I16(FLAGS_STATUS, "movb $0x42, -1(%si)");
I16(FLAGS_STATUS, "movw $0x4243, 0x123(%bx)");
I16(FLAGS_STATUS, "movw 0x140, %dx");
I16(FLAGS_STATUS, "movb 0x160, %al");
I16(FLAGS_STATUS, "movw %ax, 0x160");
I16(FLAGS_STATUS, "xchgw %bp, %bx; movw %ds:(%bp), %ax; xchgw %bp, %bx");
I16(FLAGS_STATUS, "movw %es:(%bx), %ax");
I16(FLAGS_STATUS, "movw $0xfff0, %si; movw %dx, 0x120(%bx,%si)");

ALL(FLAGS_STATUS, "movzbw (%ebx), %ax");
ALL(FLAGS_STATUS, "movzbl (%ebx), %eax");
ALL(FLAGS_STATUS, "movzwl (%ebx), %edx");
ALL(FLAGS_STATUS, "movsbw (%ebx), %ax");
ALL(FLAGS_STATUS, "movsbl (%ebx), %eax");
ALL(FLAGS_STATUS, "movswl (%ebx), %edx");
I64(FLAGS_STATUS, "movzbq (%rbx), %rax");
I64(FLAGS_STATUS, "movzwq (%rbx), %rax");
I64(FLAGS_STATUS, "movsbq (%rbx), %rax");
I64(FLAGS_STATUS, "movswq (%rbx), %rax");
I64(FLAGS_STATUS, "movslq (%rbx), %rax");

#define ALU_STORE(mask, op) \
	ALL(mask, op "b %dl, (%ebx)"); \
	ALL(mask, op "b %dh, (%ebx)"); \
	ALL(mask, op "w %dx, (%ebx)"); \
	ALL(mask, op "l %edx, (%ebx)"); \
	I64(mask, op "q %rdx, (%rbx)"); \
	ALL(mask, op "b $0x85, (%ebx)"); \
	ALL(mask, op "w $0x1234, (%ebx)"); \
	ALL(mask, op "l $0x12345678, (%ebx)"); \
	I64(mask, op "q $-0x12345678, (%rbx)")
#define ALU_LOAD(mask, op) \
	ALL(mask, op "b (%ebx), %dl"); \
	ALL(mask, op "w (%ebx), %dx"); \
	ALL(mask, op "l (%ebx), %edx"); \
	I64(mask, op "q (%rbx), %rdx"); \
	ALL(mask, op "w $-3, (%ebx)"); \
	ALL(mask, op "l $-3, (%ebx)"); \
	I64(mask, op "q $-3, (%rbx)")
#define ALU_LOCK(mask, op) \
	ALL(mask, "lock; " op "b %dl, (%ebx)"); \
	ALL(mask, "lock; " op "l %edx, (%ebx)"); \
	ALL(mask, "lock; " op "l $-3, (%ebx)"); \
	I64(mask, "lock; " op "q %rdx, (%rbx)")

ALU_STORE(FLAGS_LOGIC, "and");
ALU_LOAD(FLAGS_LOGIC, "and");
ALU_LOCK(FLAGS_LOGIC, "and");
ALU_STORE(FLAGS_LOGIC, "or");
ALU_LOAD(FLAGS_LOGIC, "or");
ALU_LOCK(FLAGS_LOGIC, "or");
ALU_STORE(FLAGS_LOGIC, "xor");
ALU_LOAD(FLAGS_LOGIC, "xor");
ALU_LOCK(FLAGS_LOGIC, "xor");
ALU_STORE(FLAGS_STATUS, "add");
ALU_LOAD(FLAGS_STATUS, "add");
ALU_LOCK(FLAGS_STATUS, "add");
ALU_STORE(FLAGS_STATUS, "sub");
ALU_LOAD(FLAGS_STATUS, "sub");
ALU_LOCK(FLAGS_STATUS, "sub");
ALU_STORE(FLAGS_STATUS, "cmp");
ALU_LOAD(FLAGS_STATUS, "cmp");
ALU_STORE(FLAGS_LOGIC, "test");

ALL(FLAGS_STATUS, "xchgb %dl, (%ebx)");
ALL(FLAGS_STATUS, "xchgb %dh, (%ebx)");
ALL(FLAGS_STATUS, "xchgw %dx, (%ebx)");
ALL(FLAGS_STATUS, "xchgl %edx, (%ebx)");
I64(FLAGS_STATUS, "xchgq %rdx, (%rbx)");

/* Not equal, then equal. */
ALL(FLAGS_STATUS, "cmpxchgb %dl, (%ebx)");
ALL(FLAGS_STATUS, "cmpxchgw %dx, (%ebx)");
ALL(FLAGS_STATUS, "cmpxchgl %edx, (%ebx)");
I64(FLAGS_STATUS, "cmpxchgq %rdx, (%rbx)");
ALL(FLAGS_STATUS, "movb (%ebx), %al; cmpxchgb %dl, (%ebx)");
ALL(FLAGS_STATUS, "movw (%ebx), %ax; cmpxchgw %dx, (%ebx)");
ALL(FLAGS_STATUS, "movl (%ebx), %eax; cmpxchgl %edx, (%ebx)");
ALL(FLAGS_STATUS, "movl (%ebx), %eax; lock; cmpxchgl %edx, (%ebx)");
I64(FLAGS_STATUS, "movq (%rbx), %rax; cmpxchgq %rdx, (%rbx)");

/* The bit string reaches beyond the operand both ways when its offset is in a register. */
#define BITS(op) \
	ALL(FLAGS_BIT, op "w $5, (%ebx)"); \
	ALL(FLAGS_BIT, op "l $30, (%ebx)"); \
	ALL(FLAGS_BIT, op "l $0x45, (%ebx)"); \
	ALL(FLAGS_BIT, "movl $7, %eax; " op "w %ax, (%ebx)"); \
	ALL(FLAGS_BIT, "movl $6, %eax; " op "l %eax, (%ebx)"); \
	ALL(FLAGS_BIT, "movl $77, %eax; " op "l %eax, (%ebx)"); \
	ALL(FLAGS_BIT, "movl $-35, %eax; " op "l %eax, (%ebx)"); \
	ALL(FLAGS_BIT, "movw $-35, %ax; " op "w %ax, (%ebx)"); \
	I64(FLAGS_BIT, op "q $61, (%rbx)"); \
	I64(FLAGS_BIT, "movq $200, %rax; " op "q %rax, (%rbx)"); \
	I64(FLAGS_BIT, "movq $-100, %rax; " op "q %rax, (%rbx)")

BITS("bt");
BITS("bts");
BITS("btr");
BITS("btc");
ALL(FLAGS_BIT, "lock; btsl $3, (%ebx)");
ALL(FLAGS_BIT, "movl $77, %eax; lock; btrl %eax, (%ebx)");

/* Strings: both windows for source and target. */
#define STRINGS(op) \
	ALL(FLAGS_STATUS, op "b"); \
	ALL(FLAGS_STATUS, op "w"); \
	ALL(FLAGS_STATUS, op "l"); \
	I64(FLAGS_STATUS, op "q"); \
	ALL(FLAGS_STATUS, "rep; " op "b"); \
	ALL(FLAGS_STATUS, "rep; " op "w"); \
	ALL(FLAGS_STATUS, "rep; " op "l"); \
	I64(FLAGS_STATUS, "rep; " op "q"); \
	ALL(FLAGS_STATUS, "std; " op "w; cld"); \
	ALL(FLAGS_STATUS, "std; rep; " op "l; cld"); \
	ALL(FLAGS_STATUS, "xorl %ecx, %ecx; rep; " op "b")

STRINGS("movs");
STRINGS("stos");
STRINGS("lods");
I64(FLAGS_STATUS, "movl $40, %ecx; rep; movsb");
I64(FLAGS_STATUS, "rep; addr32 stosl");
I32(FLAGS_STATUS, "movl $70, %ecx; rep; stosl");
I16(FLAGS_STATUS, "movw %fs:(%bx), %ax; movsb %ss:(%si), %es:(%di)");

__asm__(".pushsection .text\n"
	".macro run_insn state_in, state_out, a, c, d, b, s, i, p\n"
	"	mov \\state_in + 0, \\a\n"
	"	mov \\state_in + 8, \\c\n"
	"	mov \\state_in + 16, \\d\n"
	"	mov \\state_in + 24, \\b\n"
	"	mov \\state_in + 32, \\s\n"
	"	mov \\state_in + 40, \\i\n"
	"	mov \\state_in + 48, \\p\n"
	".endm\n"
	".macro save_insn state_out, a, c, d, b, s, i, p\n"
	"	mov \\a, \\state_out + 0\n"
	"	mov \\c, \\state_out + 8\n"
	"	mov \\d, \\state_out + 16\n"
	"	mov \\b, \\state_out + 24\n"
	"	mov \\s, \\state_out + 32\n"
	"	mov \\i, \\state_out + 40\n"
	"	mov \\p, \\state_out + 48\n"
	".endm\n"
	".globl run64_start, run32_start, run16_start, run16_end\n"
	"run64_start:\n"
	"	run_insn " STATE_IN ", " STATE_OUT ", %rax, %rcx, %rdx, %rbx, %rsi, %rdi, %rbp\n"
	"	pushq " STATE_IN " + 56\n"
	"	popfq\n"
	"	call *" STATE_IN " + 64\n"
	"	pushfq\n"
	"	popq " STATE_OUT " + 56\n"
	"	save_insn " STATE_OUT ", %rax, %rcx, %rdx, %rbx, %rsi, %rdi, %rbp\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	".code32\n"
	"run32_start:\n"
	"	run_insn " STATE_IN ", " STATE_OUT ", %eax, %ecx, %edx, %ebx, %esi, %edi, %ebp\n"
	"	pushl " STATE_IN " + 56\n"
	"	popfl\n"
	"	call *" STATE_IN " + 64\n"
	"	pushfl\n"
	"	popl " STATE_OUT " + 56\n"
	"	save_insn " STATE_OUT ", %eax, %ecx, %edx, %ebx, %esi, %edi, %ebp\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	".code16\n"
	"run16_start:\n"
	"	run_insn %ss:" STATE_IN ", %ss:" STATE_OUT ", %eax, %ecx, %edx, %ebx, %esi, %edi, %ebp\n"
	"	pushl %ss:" STATE_IN " + 56\n"
	"	popfl\n"
	"	callw *%ss:" STATE_IN " + 64\n"
	"	pushfl\n"
	"	popl %ss:" STATE_OUT " + 56\n"
	"	save_insn %ss:" STATE_OUT ", %eax, %ecx, %edx, %ebx, %esi, %edi, %ebp\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"run16_end:\n"
	".code64\n"
	".popsection\n");

extern const char run64_start[], run32_start[], run16_start[], run16_end[];

static struct vm *vm;
static struct vcpu *vcpu;
static uint8_t mmio[WINDOW_SIZE], reference[WINDOW_SIZE], pattern[WINDOW_SIZE];

static void machine_create(void)
{
	size_t i;

	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	if (vm_slot(vm, 0, 0, 0, NULL, 0) || vm_slot(vm, 0, 0, HOLE_START, vm->ram, 0) ||
	    vm_slot(vm, 1, HOLE_END, GUEST_RAM - HOLE_END, vm->ram + HOLE_END, 0))
		tap_bail("memory with a hole: %s", strerror(errno));
	memcpy(vm->ram + RUNNER16, run16_start, run16_end - run16_start);
	for (i = 0; i < WINDOW_SIZE; i++)
		pattern[i] = 0x81 + i * 7 + i / 256;
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static struct state *state_in(void)
{
	return (struct state *)(vm->ram + STATE_IN_AT);
}

static struct state *state_out(void)
{
	return (struct state *)(vm->ram + STATE_OUT_AT);
}

/* Source in MMIO, target in MMIO; all other operands are with the target. */
static uint64_t state_prepare(const struct insn *insn, bool source, bool target)
{
	uint64_t source_at = source ? MMIO_WINDOW : RAM_WINDOW;
	uint64_t target_at = target ? MMIO_WINDOW : RAM_WINDOW;
	uint64_t code = target ? insn->mmio_code : insn->ram_code;

	if (insn->mode == 16) {
		memcpy(vm->ram + SNIPPET16, (void *)code, insn->size);
		code = SNIPPET16;
		source_at = 0;
		target_at = 0;
	}
	*state_in() = (struct state) {
		.rax = 0x8877665544332211, .rcx = 5, .rdx = 0x11223344d5e6f788,
		.rbx = target_at + 0x100, .rsi = source_at + 0x220, .rdi = target_at + 0x340,
		.rbp = 0x5566, .rflags = 0x2, .code = code,
	};
	memset(state_out(), 0xee, sizeof(struct state));
	return target_at;
}

static void segments_prepare(bool source, bool target)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs.ds.base = source ? MMIO_WINDOW : RAM_WINDOW;
	sregs.es.base = target ? MMIO_WINDOW : RAM_WINDOW;
	sregs.ds.selector = sregs.ds.base >> 4;
	sregs.es.selector = sregs.es.base >> 4;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs))
		tap_bail("KVM_SET_SREGS: %s", strerror(errno));
}

/* Serves the hole from mmio[]; false where an access is outside of the window. */
static bool mmio_serve(const char *name)
{
	struct kvm_run *run = vcpu->run;
	uint64_t offset = run->mmio.phys_addr - MMIO_WINDOW;

	if (!CHECK(run->mmio.len <= 8 && offset <= WINDOW_SIZE - run->mmio.len,
		   "%s: %u bytes of MMIO at %#llx", name, run->mmio.len, run->mmio.phys_addr))
		return false;
	if (run->mmio.is_write)
		memcpy(mmio + offset, run->mmio.data, run->mmio.len);
	else
		memcpy(run->mmio.data, mmio + offset, run->mmio.len);
	return true;
}

static bool insn_run(const struct insn *insn, bool source, bool target)
{
	const char *name = (const char *)insn->name;
	struct report report;

	memcpy(mmio, pattern, sizeof(mmio));
	memcpy(vm->ram + RAM_WINDOW, pattern, sizeof(pattern));
	state_prepare(insn, source, target);
	if (insn->mode == 64)
		vcpu_set_long(vcpu, (void *)run64_start, 0);
	else if (insn->mode == 32)
		vcpu_set_protected(vcpu, (uintptr_t)run32_start);
	else
		vcpu_set_real(vcpu, RUNNER16);
	if (insn->mode == 16)
		segments_prepare(source, target);
	for (;;) {
		report = vcpu_wait(vcpu);
		if (report.kind == REPORT_DONE)
			return true;
		if (report.kind != REPORT_EXIT || vcpu->run->exit_reason != KVM_EXIT_MMIO) {
			tap_note("%u-bit %s:", insn->mode, name);
			vcpu_explain(vcpu, &report, "MMIO or the end");
			return false;
		}
		if (!mmio_serve(name))
			return false;
	}
}

static void value_check(const struct insn *insn, const char *what, uint64_t got, uint64_t want)
{
	CHECK(got == want, "%u-bit %s: %s is %#llx, over RAM %#llx", insn->mode,
	      (const char *)insn->name, what, (unsigned long long)got, (unsigned long long)want);
}

/* Addresses are compared by their place in the window. */
static void state_check(const struct insn *insn, struct state want)
{
	struct state got = *state_out();
	uint64_t regs = insn->mode == 64 ? ~0ull : 0xffffffff;

	value_check(insn, "rax", got.rax & regs, want.rax & regs);
	value_check(insn, "rcx", got.rcx & regs, want.rcx & regs);
	value_check(insn, "rdx", got.rdx & regs, want.rdx & regs);
	value_check(insn, "rbx", got.rbx & 0xffff, want.rbx & 0xffff);
	value_check(insn, "rsi", got.rsi & 0xffff, want.rsi & 0xffff);
	value_check(insn, "rdi", got.rdi & 0xffff, want.rdi & 0xffff);
	value_check(insn, "rbp", got.rbp & regs, want.rbp & regs);
	value_check(insn, "rflags", got.rflags & (insn->flags | 0x400),
		    want.rflags & (insn->flags | 0x400));
}

static void bytes_check(const struct insn *insn, const char *where, const uint8_t *got,
			const uint8_t *want)
{
	size_t i;

	if (!memcmp(got, want, WINDOW_SIZE))
		return;
	for (i = 0; i < WINDOW_SIZE; i++)
		if (!CHECK(got[i] == want[i], "%u-bit %s: byte %#zx of %s is %#x, wanted %#x",
			   insn->mode, (const char *)insn->name, i, where, got[i], want[i]))
			return;
}

static bool is_string(const struct insn *insn)
{
	const char *name = (const char *)insn->name;

	return strstr(name, "movs") && !strchr(name, '(');
}

/* Over MMIO twice: what has been decoded once may take another way. */
static void insn_test(const struct insn *insn)
{
	struct state want;
	uint8_t *ram = vm->ram + RAM_WINDOW;
	int i;

	if (!insn_run(insn, false, false))
		return;
	want = *state_out();
	memcpy(reference, ram, sizeof(reference));
	for (i = 0; i < 2 && insn_run(insn, true, true); i++) {
		state_check(insn, want);
		bytes_check(insn, "MMIO", mmio, reference);
		bytes_check(insn, "RAM", ram, pattern);
	}
	if (!is_string(insn))
		return;
	if (insn_run(insn, false, true)) {
		state_check(insn, want);
		bytes_check(insn, "MMIO", mmio, reference);
		bytes_check(insn, "RAM", ram, pattern);
	}
	if (insn_run(insn, true, false)) {
		state_check(insn, want);
		bytes_check(insn, "RAM", ram, reference);
		bytes_check(insn, "MMIO", mmio, pattern);
	}
}

static void mode_test(uint32_t mode)
{
	const struct insn *insn;
	unsigned int n = 0;

	machine_create();
	for (insn = __start_insns; insn < __stop_insns; insn++) {
		if (insn->mode != mode)
			continue;
		insn_test(insn);
		n++;
	}
	tap_note("%u instructions", n);
	CHECK(n > 100, "only %u instructions", n);
	machine_destroy();
}

static void mode64(void)
{
	mode_test(64);
}

static void mode32(void)
{
	mode_test(32);
}

static void mode16(void)
{
	mode_test(16);
}

/* A device sees one access of the instruction's size, where it asked for it. */
static void width_payload(uint64_t at)
{
	__asm__ volatile("movb (%0), %%al; movw (%0), %%ax; movl (%0), %%eax; movq (%0), %%rax\n\t"
			 "movb %%al, (%0); movw %%ax, (%0); movl %%eax, (%0); movq %%rax, (%0)\n\t"
			 "movzbl (%0), %%eax; movswl (%0), %%eax"
			 : : "r"(at) : "rax", "memory");
	guest_done();
}

static void widths(void)
{
	static const struct {
		uint8_t len, write;
	} want[] = {
		{ 1, 0 }, { 2, 0 }, { 4, 0 }, { 8, 0 }, { 1, 1 }, { 2, 1 }, { 4, 1 }, { 8, 1 },
		{ 1, 0 }, { 2, 0 },
	};
	size_t i;

	machine_create();
	vcpu_set_long(vcpu, width_payload, MMIO_WINDOW + 0x18);
	for (i = 0; i < ARRAY_SIZE(want) && vcpu_exit(vcpu, KVM_EXIT_MMIO); i++) {
		CHECK_EQ(vcpu->run->mmio.phys_addr, MMIO_WINDOW + 0x18);
		CHECK_EQ(vcpu->run->mmio.len, want[i].len);
		CHECK_EQ(vcpu->run->mmio.is_write, want[i].write);
		memset(vcpu->run->mmio.data, 0x40 + i, 8);
	}
	vcpu_finish(vcpu);
	machine_destroy();
}

static void crossing_payload(void)
{
	volatile uint32_t *edge = (uint32_t *)(HOLE_START - 2);
	volatile uint64_t *middle = (uint64_t *)(MMIO_WINDOW + 0xffc);

	*edge = 0x44332211;
	guest_sync(*edge);
	*middle = 0x8877665544332211;
	guest_sync(*middle);
	*(volatile uint64_t *)(HOLE_END - 4) = 0x1817161514131211;
	guest_sync(*(volatile uint64_t *)(HOLE_END - 4));
	guest_done();
}

/* Serves the whole hole, up to the next report. */
static struct report hole_serve(uint8_t *hole)
{
	struct kvm_run *run = vcpu->run;
	struct report report;
	uint64_t at;

	for (;;) {
		report = vcpu_wait(vcpu);
		if (report.kind != REPORT_EXIT || run->exit_reason != KVM_EXIT_MMIO)
			return report;
		at = run->mmio.phys_addr - HOLE_START;
		if (!CHECK(run->mmio.len <= 8 && at <= HOLE_END - HOLE_START - run->mmio.len,
			   "%u bytes of MMIO at %#llx", run->mmio.len, run->mmio.phys_addr))
			return report;
		if (run->mmio.is_write)
			memcpy(hole + at, run->mmio.data, run->mmio.len);
		else
			memcpy(run->mmio.data, hole + at, run->mmio.len);
	}
}

static void crossing(void)
{
	static uint8_t hole[HOLE_END - HOLE_START];
	struct report report;

	machine_create();
	vcpu_set_long(vcpu, crossing_payload, 0);
	report = hole_serve(hole);
	CHECK(report.kind == REPORT_SYNC && report.value == 0x44332211,
	      "RAM, then MMIO: report %d, %#llx", report.kind, (unsigned long long)report.value);
	CHECK_EQ(*(uint16_t *)(vm->ram + HOLE_START - 2), 0x2211);
	CHECK_EQ(*(uint16_t *)hole, 0x4433);
	report = hole_serve(hole);
	CHECK(report.kind == REPORT_SYNC && report.value == 0x8877665544332211,
	      "MMIO, then MMIO: report %d, %#llx", report.kind, (unsigned long long)report.value);
	report = hole_serve(hole);
	CHECK(report.kind == REPORT_SYNC && report.value == 0x1817161514131211,
	      "MMIO, then RAM: report %d, %#llx", report.kind, (unsigned long long)report.value);
	CHECK_EQ(*(uint32_t *)(hole + sizeof(hole) - 4), 0x14131211);
	CHECK_EQ(*(uint32_t *)(vm->ram + HOLE_END), 0x18171615);
	vcpu_finish(vcpu);
	machine_destroy();
}

/* Where instructions lie that are written anew: at the end of a page, over it, anywhere. */
static uint8_t places[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static const unsigned int offsets[] = { PAGE_SIZE - 3, PAGE_SIZE - 1, PAGE_SIZE - 17, 0x40 };
#define AGAIN 3

static void place_run(uint8_t *at, uint8_t opcode, uint8_t modrm, uint64_t value)
{
	uint64_t edx;
	int i;

	at[0] = opcode;
	at[1] = modrm;
	at[2] = 0xc3;
	for (i = 0; i < AGAIN; i++) {
		edx = value;
		__asm__ volatile("call *%1" : "+d"(edx)
				 : "r"(at), "b"(MMIO_WINDOW), "c"(value + 1) : "memory", "cc");
		guest_sync(edx);
	}
}

static void places_payload(uint64_t offset)
{
	uint8_t *at = places + offset;

	place_run(at, 0x89, 0x13, 0x100);	/* movl %edx, (%rbx) */
	place_run(at, 0x89, 0x0b, 0x200);	/* movl %ecx, (%rbx) */
	place_run(at, 0x8b, 0x13, 0x300);	/* movl (%rbx), %edx */
	place_run(at, 0x8a, 0x33, 0x400);	/* movb (%rbx), %dh */
	place_run(at, 0x86, 0x13, 0x500);	/* xchgb %dl, (%rbx) */
	guest_done();
}

static bool mmio_is(uint64_t value, unsigned int len, bool write)
{
	struct kvm_run *run = vcpu->run;
	uint64_t data = 0;

	if (!vcpu_exit(vcpu, KVM_EXIT_MMIO))
		return false;
	memcpy(&data, run->mmio.data, run->mmio.len);
	if (!write)
		memcpy(run->mmio.data, &value, len);
	return CHECK(run->mmio.is_write == write && run->mmio.len == len &&
		     (!write || data == value), "MMIO %s, %u bytes, %#llx; wanted %s, %u bytes, %#llx",
		     run->mmio.is_write ? "write" : "read", run->mmio.len, (unsigned long long)data,
		     write ? "write" : "read", len, (unsigned long long)value);
}

static void places_check(void)
{
	int i;

	for (i = 0; i < AGAIN && mmio_is(0x100, 4, true) && vcpu_sync(vcpu, 0x100); i++)
		;
	for (; i < 2 * AGAIN && mmio_is(0x201, 4, true) && vcpu_sync(vcpu, 0x200); i++)
		;
	for (; i < 3 * AGAIN && mmio_is(0xabcd0000 + i, 4, false) &&
	       vcpu_sync(vcpu, 0xabcd0000 + i); i++)
		;
	for (; i < 4 * AGAIN && mmio_is(i, 1, false) && vcpu_sync(vcpu, i << 8); i++)
		;
	for (; i < 5 * AGAIN && mmio_is(i, 1, false) && mmio_is(0, 1, true) &&
	       vcpu_sync(vcpu, 0x500 + i); i++)
		;
	if (i == 5 * AGAIN)
		vcpu_finish(vcpu);
}

/* An instruction that has been seen is not the one that is there now. */
static void rewritten(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		machine_create();
		vcpu_set_long(vcpu, places_payload, offsets[i]);
		places_check();
		if (tap_failed())
			tap_note("at %#x of a page", offsets[i]);
		machine_destroy();
	}
}

static volatile uint64_t stepped[2];

static void step_handler(struct trap_frame *frame)
{
	stepped[0]++;
	stepped[1] = frame->rip;
	frame->rflags &= ~0x100ul;
}

#define STEP_OVER(insn) \
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq\n\t" \
			 insn "\n" \
			 "1:	leaq 1b(%%rip), %%rax\n\t" \
			 "subq %1, %%rax" \
			 : "=&a"(behind) : "m"(stepped[1]), "b"(MMIO_WINDOW) : "memory", "cc")

/* The trap flag: one trap behind each access, however it was made. */
static void step_payload(void)
{
	uint64_t behind;
	int i;

	guest_handlers[TRAP_DB] = step_handler;
	for (i = 0; i < AGAIN; i++) {
		stepped[0] = 0;
		STEP_OVER("movl %%ebx, (%%rbx)");
		GUEST_EQ(behind, 0);
		STEP_OVER("movl (%%rbx), %%eax");
		GUEST_EQ(behind, 0);
		GUEST_EQ(stepped[0], 2);
	}
	guest_done();
}

static void stepping(void)
{
	int i;

	if (!node_is_moat())
		SKIP("KVM's trap behind a write comes an instruction late");
	machine_create();
	vcpu_set_long(vcpu, step_payload, 0);
	for (i = 0; i < AGAIN && mmio_is(MMIO_WINDOW, 4, true) && mmio_is(0, 4, false); i++)
		;
	vcpu_finish(vcpu);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "64_bit", mode64 },
	{ "32_bit", mode32 },
	{ "16_bit", mode16 },
	{ "access_widths", widths },
	{ "page_crossing", crossing },
	{ "instructions_written_anew", rewritten },
	{ "single_steps", stepping },
};

TAP_MAIN(cases)
