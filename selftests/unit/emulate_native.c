// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * All 16 general registers are the instruction's, RSP too; so the state is in static memory, which
 * is addressed by RIP, and what the code ends with is a jump through memory behind it.
 */
#include <sys/mman.h>

#include "selftests/unit/emulate_native.h"

struct native_regs native_state;
u64 native_code;
u64 native_stack;
void native_enter(void);
void native_leave(void);

#define GPRS(move)									\
	move(0, rax) move(8, rcx) move(16, rdx) move(24, rbx) move(32, rsp)		\
	move(40, rbp) move(48, rsi) move(56, rdi) move(64, r8) move(72, r9)		\
	move(80, r10) move(88, r11) move(96, r12) move(104, r13) move(112, r14)		\
	move(120, r15)
#define LOAD(offset, reg) "	mov native_state+" #offset "(%rip), %" #reg "\n"
#define STORE(offset, reg) "	mov %" #reg ", native_state+" #offset "(%rip)\n"

__asm__(".pushsection .text\n"
	".hidden native_state, native_code, native_stack, native_leave\n"
	".globl native_enter, native_leave\n"
	"native_enter:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n"
	"	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, native_stack(%rip)\n"
	"	pushq native_state+128(%rip)\n"
	"	popfq\n"
	GPRS(LOAD)
	"	jmp *native_code(%rip)\n"
	"native_leave:\n"
	GPRS(STORE)
	"	mov native_stack(%rip), %rsp\n"
	"	pushfq\n"
	"	popq native_state+128(%rip)\n"
	"	cld\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n"
	"	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".popsection\n");

void *native_alloc(size_t len, bool executable)
{
	int prot = PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0);
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void native_run(void *page, const u8 *code, unsigned int len, struct native_regs *regs)
{
	static const u8 jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
	u8 *p = page;
	u64 leave = (uintptr_t)native_leave;

	memcpy(p, code, len);
	memcpy(p + len, jump, sizeof(jump));
	memcpy(p + len + sizeof(jump), &leave, sizeof(leave));
	native_code = (uintptr_t)page;
	native_state = *regs;
	native_enter();
	*regs = native_state;
}
