// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Task switches of 32-bit code: by a far jump and a far call to a TSS, back by IRET, and by a task
 * gate for an exception.
 */
#include "guest.h"

#define GDT		0x9000u
#define TSS_A		0x9200u
#define TSS_B		0x9300u
#define SEL_CS		0x08
#define SEL_DS		0x10
#define SEL_A		0x18
#define SEL_B		0x20
#define LOG		0x9400u		/* where the tasks write what they saw */
#define STACK_B		0x9800u

struct tss32 {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
	uint32_t es, cs, ss, ds, fs, gs, ldt;
	uint16_t trap, iomap;
};

/*
 * Task A jumps to B, which logs its registers, and jumps back; calls B, which comes back by IRET;
 * divides by zero, whose gate leads to B.
 */
__asm__(".pushsection .rodata\n"
	".code32\n"
	".globl task_a, task_b, task_end\n"
	"task_a:\n"
	"	movl $0xaaaa0001, %ebx\n"
	"	ljmp $0x20, $0\n"
	"	cmpl $0xaaaa0001, %ebx\n"
	"	jne task_bad\n"
	"	movl $1, 0x9400\n"
	"	lcall $0x20, $0\n"
	"	movl %cr0, %eax\n"
	"	movl %eax, 0x9410\n"
	"	movl $3, 0x9408\n"
	"	clts\n"
	"	xorl %edx, %edx\n"
	"	xorl %ecx, %ecx\n"
	"	divl %ecx\n"
	"task_bad:\n"
	"	outb %al, $0xec\n"
	"	jmp task_bad\n"
	"task_b:\n"
	"	movl %ebx, 0x9404\n"
	"	movl %esp, 0x9414\n"
	"	ljmp $0x18, $0\n"
	"task_b_called:\n"
	"	pushfl\n"
	"	popl 0x940c\n"
	"	iret\n"
	"task_b_gate:\n"
	"	outb %al, $0xe0\n"
	"	jmp task_b_gate\n"
	"task_end:\n"
	".code64\n"
	".popsection\n");

extern const char task_a[], task_end[];

static struct vm *vm;
static struct vcpu *vcpu;

static uint64_t descriptor_tss(uint32_t base, uint8_t type)
{
	return 0x0000800000000000 | (uint64_t)type << 40 | (uint64_t)(base & 0xffffff) << 16 | 0x67;
}

static uint32_t logged(uint32_t offset)
{
	return *(uint32_t *)(vm->ram + LOG + offset);
}

static void tables(void)
{
	const uint64_t gdt[] = {
		0, 0x00cf9b000000ffff, 0x00cf93000000ffff,
		descriptor_tss(TSS_A, 11), descriptor_tss(TSS_B, 9),
	};
	const struct tss32 b = {
		.eip = GUEST_LOW, .eflags = 2, .ebx = 0xbbbb0002, .esp = STACK_B,
		.es = SEL_DS, .cs = SEL_CS, .ss = SEL_DS, .ds = SEL_DS, .fs = SEL_DS, .gs = SEL_DS,
		.iomap = 0x68,
	};
	/* #DE through a task gate to B. */
	const uint64_t gate = 0x0000850000000000 | (uint64_t)SEL_B << 16;

	vm_copy(vm, GDT, gdt, sizeof(gdt));
	vm_copy(vm, TSS_B, &b, sizeof(b));
	memset(vm->ram + TSS_A, 0, sizeof(b));
	vm_copy(vm, GUEST_IDT32, &gate, sizeof(gate));
	vm_copy(vm, GUEST_LOW, task_a, task_end - task_a);
}

extern const char task_b[];

static uint32_t low(const char *label)
{
	return GUEST_LOW + (label - task_a);
}

static void registers(void)
{
	struct kvm_sregs sregs;

	vcpu_set_protected(vcpu, low(task_a));
	sregs = vcpu_sregs(vcpu);
	sregs.gdt.base = GDT;
	sregs.gdt.limit = 0x27;
	sregs.cs.selector = SEL_CS;
	sregs.ds.selector = sregs.es.selector = sregs.ss.selector = SEL_DS;
	sregs.fs.selector = sregs.gs.selector = SEL_DS;
	sregs.tr.base = TSS_A;
	sregs.tr.limit = 0x67;
	sregs.tr.selector = SEL_A;
	sregs.tr.type = 11;
	CHECK_CALL(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs));
}

static void tasks(void)
{
	struct tss32 *b;

	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	tables();
	registers();
	b = (struct tss32 *)(vm->ram + TSS_B);
	b->eip = low(task_b);
	/* B's second turn goes on behind its LJMP, its third behind the IRET. */
	vcpu_finish(vcpu);
	CHECK_EQ(logged(4), 0xbbbb0002);
	CHECK_EQ(logged(0x14), STACK_B);
	CHECK_EQ(logged(0), 1);
	CHECK_EQ(logged(0xc) & 0x4000, 0x4000);		/* NT in the called task */
	CHECK_EQ(logged(0x10) & 8, 8);			/* CR0.TS after a switch */
	CHECK_EQ(logged(8), 3);
	CHECK_EQ(((struct tss32 *)(vm->ram + TSS_A))->ebx, 0xaaaa0001);
	CHECK_EQ(b->link, SEL_A);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "tasks", tasks },
};

TAP_MAIN(cases)
