// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The guest's own few functions: they run only in the guest's copy of the program.
 *
 * Every vector has a stub of 16 bytes that leaves the same frame, with an error code or a zero in
 * its place, and goes on in guest_trap(). The CPU aligns the stack on delivery in long mode, so the
 * call from trap_common finds it as the ABI wants.
 */
#include "payload.h"

struct guest_catch guest_caught;
guest_handler *guest_handlers[256];

__asm__(".pushsection .text\n"
	".balign 16\n"
	".globl guest_stubs\n"
	"guest_stubs:\n"
	".set vector, 0\n"
	".rept 256\n"
	".balign 16\n"
	/* #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX push an error code of their own. */
	".if vector < 32\n"
	".set has_error, (0x60227d00 >> vector) & 1\n"
	".else\n"
	".set has_error, 0\n"
	".endif\n"
	".if !has_error\n"
	"	pushq $0\n"
	".endif\n"
	"	pushq $vector\n"
	"	jmp trap_common\n"
	".set vector, vector + 1\n"
	".endr\n"
	".balign 16\n"
	"trap_common:\n"
	"	pushq %rax; pushq %rcx; pushq %rdx; pushq %rbx; pushq %rbp; pushq %rsi; pushq %rdi\n"
	"	pushq %r8; pushq %r9; pushq %r10; pushq %r11; pushq %r12; pushq %r13; pushq %r14\n"
	"	pushq %r15\n"
	"	cld\n"
	"	movq %rsp, %rdi\n"
	"	call guest_trap\n"
	"	popq %r15\n"
	"	popq %r14; popq %r13; popq %r12; popq %r11; popq %r10; popq %r9; popq %r8\n"
	"	popq %rdi; popq %rsi; popq %rbp; popq %rbx; popq %rdx; popq %rcx; popq %rax\n"
	"	addq $16, %rsp\n"
	"	iretq\n"
	".popsection\n");

static void report(uint16_t port, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	__asm__ volatile("outb %%al, %w4"
			 : : "D"(a), "S"(b), "b"(c), "c"(d), "d"(port) : "memory");
}

void guest_done(void)
{
	for (;;)
		report(PORT_DONE, 0, 0, 0, 0);
}

void guest_sync2(uint64_t value, uint64_t value2)
{
	report(PORT_SYNC, value, value2, 0, 0);
}

void guest_fail(const char *what, uint64_t line, uint64_t got, uint64_t want)
{
	report(PORT_FAIL, (uint64_t)what, line, got, want);
}

void guest_trap(struct trap_frame *frame)
{
	if (guest_caught.resume && frame->vector < 32 && frame->vector != TRAP_NMI) {
		guest_caught.vector = frame->vector;
		guest_caught.error = frame->error;
		guest_caught.rip = frame->rip;
		guest_caught.cr2 = read_cr2();
		frame->rip = guest_caught.resume;
		frame->rflags &= ~0x100ul;	/* no single step beyond the one asked for */
		guest_caught.resume = 0;
		return;
	}
	if (frame->vector < 256 && guest_handlers[frame->vector]) {
		guest_handlers[frame->vector](frame);
		return;
	}
	for (;;)
		report(PORT_TRAP, frame->vector, frame->error, frame->rip, read_cr2());
}
