/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A multiboot kernel: prints what it is told on the serial port, a line each, and ends its machine with
 * 42 by port 0xf4; or with 1 where it was not started as multiboot says. With ADDRESSES=1 its header
 * says where it goes, and it can be taken out of its ELF file.
 */
	.equ	PORT_COM1, 0x3f8
	.equ	PORT_EXIT, 0xf4
	.equ	STATUS, 42
	.equ	FLAGS, 3 | ADDRESSES << 16
	.equ	INFO_KIB_UPPER, 8
	.equ	INFO_CMDLINE, 16
	.equ	INFO_MODULE_COUNT, 20
	.equ	INFO_MODULES, 24

	.code32
	.text
	.globl	_start
image:
	.ascii	"a flat kernel may begin with anything"
	.balign	4
header:
	.long	0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
	.if	ADDRESSES
	.long	header, image, image_end, bss_end, _start
	.endif

_start:
	mov	$stack_end, %esp
	mov	$1, %edi
	cmp	$0x2badb002, %eax
	jne	end
	mov	%cr0, %eax
	test	$0x80000000, %eax
	jnz	end
	mov	$STATUS, %edi

	mov	$cmdline_is, %esi
	call	print
	mov	INFO_CMDLINE(%ebx), %esi
	call	print
	mov	$kib_are, %esi
	call	print
	mov	INFO_KIB_UPPER(%ebx), %eax
	call	print_number
	cmpl	$1, INFO_MODULE_COUNT(%ebx)
	jne	1f
	mov	$module_is, %esi
	call	print
	mov	INFO_MODULES(%ebx), %eax
	mov	(%eax), %esi
	mov	4(%eax), %ecx
	call	print_until
1:	mov	$newline, %esi
	call	print
end:
	mov	%edi, %eax
	out	%al, $PORT_EXIT
	hlt
	jmp	end

/* What is at ESI, which ends with a zero, or at ECX. */
print:
	mov	$-1, %ecx
print_until:
	cmp	%ecx, %esi
	jae	1f
	lodsb
	test	%al, %al
	jz	1f
	call	print_byte
	jmp	print_until
1:	ret

print_byte:
	push	%eax
	mov	$PORT_COM1 + 5, %dx
2:	in	%dx, %al
	test	$0x20, %al
	jz	2b
	pop	%eax
	mov	$PORT_COM1, %dx
	out	%al, %dx
	ret

/* EAX in decimal, by way of the stack. */
print_number:
	mov	$10, %ecx
	xor	%edx, %edx
	div	%ecx
	push	%edx
	test	%eax, %eax
	jz	3f
	call	print_number
3:	pop	%eax
	add	$'0', %al
	call	print_byte
	ret

cmdline_is:	.asciz	"cmdline: "
kib_are:	.asciz	"\nKiB: "
module_is:	.asciz	"\nmodule: "
newline:	.asciz	"\n"
image_end:

	.bss
	.balign	16
	.skip	4096
stack_end:
bss_end:
	.section .note.GNU-stack, "", @progbits
