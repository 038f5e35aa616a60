/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The entry into the guest: the only assembly of the VT-x back end.
 *
 * The exit comes to the instruction behind VMLAUNCH or VMRESUME, as does an entry that fails: then
 * CF or ZF is set, else the flags are clear, and the registers still hold what was to be the guest's.
 * The host's FS, GS, TR and system-call entry are the VMCS's to restore.
 */
#include <linux/linkage.h>
#include <linux/cfi_types.h>
#include <asm/asm.h>
#include "compat.h"

/* Order of the members of gpr[]: enum moat_reg. RSP travels in the VMCS. */
#define RAX_OFF	(0 * 8)
#define RCX_OFF	(1 * 8)
#define RDX_OFF	(2 * 8)
#define RBX_OFF	(3 * 8)
#define RBP_OFF	(5 * 8)
#define RSI_OFF	(6 * 8)
#define RDI_OFF	(7 * 8)
#define R_OFF(n) ((n) * 8)

#define HOST_RSP	0x6c14
#define HOST_RIP	0x6c16

	.section .noinstr.text, "ax"

SYM_TYPED_FUNC_START(vmx_enter)
	push %rbp
	mov %rsp, %rbp
	push %r15
	push %r14
	push %r13
	push %r12
	push %rbx
	push %rdi
	push $0

	/* In one run, the stack is the same each time. */
	bt $0, %esi
	jc .Lvmx_ready
	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	mov $HOST_RIP, %eax
	lea .Lvmx_exit(%rip), %rdx
	vmwrite %rdx, %rax
.Lvmx_ready:
	bt $0, %esi

	mov RAX_OFF(%rdi), %rax
	mov RCX_OFF(%rdi), %rcx
	mov RDX_OFF(%rdi), %rdx
	mov RBX_OFF(%rdi), %rbx
	mov RBP_OFF(%rdi), %rbp
	mov RSI_OFF(%rdi), %rsi
	mov R_OFF(8)(%rdi), %r8
	mov R_OFF(9)(%rdi), %r9
	mov R_OFF(10)(%rdi), %r10
	mov R_OFF(11)(%rdi), %r11
	mov R_OFF(12)(%rdi), %r12
	mov R_OFF(13)(%rdi), %r13
	mov R_OFF(14)(%rdi), %r14
	mov R_OFF(15)(%rdi), %r15
	mov RDI_OFF(%rdi), %rdi
	MOAT_CLEAR_CPU_BUFFERS		/* leaves CF as it is */
	jnc .Lvmx_launch
	vmresume
	jmp .Lvmx_exit
.Lvmx_launch:
	vmlaunch
.Lvmx_exit:
	setbe (%rsp)
	push %rax
	mov 16(%rsp), %rax
	mov %rcx, RCX_OFF(%rax)
	mov %rdx, RDX_OFF(%rax)
	mov %rbx, RBX_OFF(%rax)
	mov %rbp, RBP_OFF(%rax)
	mov %rsi, RSI_OFF(%rax)
	mov %rdi, RDI_OFF(%rax)
	mov %r8, R_OFF(8)(%rax)
	mov %r9, R_OFF(9)(%rax)
	mov %r10, R_OFF(10)(%rax)
	mov %r11, R_OFF(11)(%rax)
	mov %r12, R_OFF(12)(%rax)
	mov %r13, R_OFF(13)(%rax)
	mov %r14, R_OFF(14)(%rax)
	mov %r15, R_OFF(15)(%rax)
	pop RAX_OFF(%rax)

	/* The guest's values must not be what the host speculates with. */
	xor %ecx, %ecx
	xor %edx, %edx
	xor %esi, %esi
	xor %edi, %edi
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
	MOAT_FILL_RETURN_BUFFER %rax
	MOAT_UNTRAIN_RET

	pop %rax
	pop %rbx			/* gpr */
	pop %rbx
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	pop %rbp
	RET
SYM_FUNC_END(vmx_enter)
