// SPDX-License-Identifier: GPL-2.0-only
/*
 * Task switches by 32-bit task-state segments, for CPUs that make an exit of each (VT-x). Those by
 * 16-bit ones, which only software for the 80286 has, are left to userspace as an internal error.
 *
 * What the CPU has found in order before the exit (the new descriptor's limit in the table, its type,
 * privileges) is looked at again only as far as the switch itself depends on it: memory may have
 * changed since. What is wrong with the new task's segments is raised in that task, after the switch.
 *
 * Manual: Intel SDM vol. 3, "Task Management"; vol. 3, "Task Switches" in VMX non-root operation.
 */
#include "../hw.h"
#include "x86.h"

#define TSS_LIMIT	0x67u
#define TYPE_TSS32	9u		/* available */
#define TYPE_BUSY	2u
#define BUSY_BIT	BIT_ULL(41)	/* in a descriptor */
#define SELECTOR_LDT	4u

struct tss32 {
	u32 link, stacks[6], cr3;
	/* What a switch saves of the old task: */
	u32 eip, eflags;
	u32 gpr[8];
	u32 selector[6];	/* ES, CS, SS, DS, FS, GS */
	/* and what it does not: */
	u32 ldt;
	u16 trap, iomap;
};

static_assert(sizeof(struct tss32) == TSS_LIMIT + 1);

struct task {
	struct moat_vcpu *vcpu;
	struct kvm_sregs *s;
	struct tss32 tss;	/* the new one's, */
	struct kvm_segment tr;	/* and where that is */
};

static int task_fault(struct task *t, u8 vector, u16 selector)
{
	moat_inject_exception(t->vcpu, vector, true, selector & ~3u);
	return 1;
}

static int tss_access(struct task *t, u64 linear, void *data, unsigned int len, bool write)
{
	return moat_system_access(t->vcpu, (u32)linear, data, len, write);
}

/* The descriptor of selector: 0; 1 the guest gets an exception; negative error. */
static int descriptor_read(struct task *t, u16 selector, u8 vector, u64 *ret, u64 *ret_linear)
{
	u32 offset = selector & ~7u, limit = t->s->gdt.limit;
	u64 table = t->s->gdt.base;

	if (selector & SELECTOR_LDT) {
		limit = t->s->ldt.unusable ? 0 : t->s->ldt.limit;
		table = t->s->ldt.base;
	}
	if (offset + 7 > limit)
		return task_fault(t, vector, selector);
	*ret_linear = table + offset;
	return tss_access(t, *ret_linear, ret, sizeof(*ret), false);
}

static void descriptor_decode(u64 d, u16 selector, struct kvm_segment *s)
{
	u32 limit = (d & 0xffff) | (d >> 32 & 0xf0000);

	*s = (struct kvm_segment) {
		.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
		.limit = d >> 55 & 1 ? limit << 12 | 0xfff : limit,
		.selector = selector, .type = d >> 40 & 15, .s = d >> 44 & 1, .dpl = d >> 45 & 3,
		.present = d >> 47 & 1, .avl = d >> 52 & 1, .l = d >> 53 & 1, .db = d >> 54 & 1,
		.g = d >> 55 & 1,
	};
}

/* A segment of virtual-8086 mode. */
static void segment_v86(u16 selector, struct kvm_segment *s)
{
	*s = (struct kvm_segment) {
		.base = selector << 4, .limit = 0xffff, .selector = selector, .type = 3, .s = 1,
		.dpl = 3, .present = 1,
	};
}

/* Whether the new task, of privilege cpl, may have such a descriptor in CS (1), SS (2), or another. */
static bool segment_allowed(const struct kvm_segment *s, unsigned int n, u8 cpl)
{
	bool code = s->type & 8, conforming = s->type & 4, writable = s->type & 2;

	if (!s->s)
		return false;
	if (n == 1)
		return code && (conforming ? s->dpl <= cpl : s->dpl == cpl);
	if (n == 2)
		return !code && writable && s->dpl == cpl && (s->selector & 3) == cpl;
	if (code && !writable)
		return false;		/* not readable, as the bit means there */
	return (code && conforming) || s->dpl >= max_t(u8, cpl, s->selector & 3);
}

static int segment_load(struct task *t, unsigned int n, struct kvm_segment *to, u8 cpl)
{
	u16 selector = t->tss.selector[n];
	struct kvm_segment new;
	u64 d, linear;
	int r;

	*to = (struct kvm_segment) { .selector = selector, .unusable = 1, .dpl = n == 2 ? cpl : 0 };
	if (!(selector & ~3u))
		return n == 1 || n == 2 ? task_fault(t, X86_TRAP_TS, selector) : 0;
	r = descriptor_read(t, selector, X86_TRAP_TS, &d, &linear);
	if (r)
		return r;
	descriptor_decode(d, selector, &new);
	if (!segment_allowed(&new, n, cpl))
		return task_fault(t, X86_TRAP_TS, selector);
	if (!new.present)
		return task_fault(t, n == 2 ? X86_TRAP_SS : X86_TRAP_NP, selector);
	new.type |= 1;
	*to = new;
	return 0;
}

static int ldt_load(struct task *t)
{
	u16 selector = t->tss.ldt;
	struct kvm_segment new;
	u64 d, linear;
	int r;

	t->s->ldt = (struct kvm_segment) { .selector = selector, .unusable = 1 };
	if (!(selector & ~3u))
		return 0;
	if (selector & SELECTOR_LDT)
		return task_fault(t, X86_TRAP_TS, selector);
	r = descriptor_read(t, selector, X86_TRAP_TS, &d, &linear);
	if (r)
		return r;
	descriptor_decode(d, selector, &new);
	if (new.s || new.type != 2 || !new.present)
		return task_fault(t, X86_TRAP_TS, selector);
	t->s->ldt = new;
	return 0;
}

/* CS says the privilege of all the others. */
static int segments_load(struct task *t)
{
	struct kvm_sregs *s = t->s;
	struct kvm_segment *const to[] = { &s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs };
	static const u8 order[] = { 1, 2, 0, 3, 4, 5 };
	unsigned int i;
	int r = ldt_load(t);

	for (i = 0; i < ARRAY_SIZE(order) && !r; i++) {
		unsigned int n = order[i];

		if (t->tss.eflags & X86_EFLAGS_VM)
			segment_v86(t->tss.selector[n], to[n]);
		else
			r = segment_load(t, n, to[n], t->tss.selector[1] & 3);
	}
	return r;
}

/* The old task, with its registers, into its TSS. */
static int task_save(struct task *t, u64 rip, u64 rflags)
{
	const struct kvm_sregs *s = t->s;
	struct tss32 old = {
		.eip = rip, .eflags = rflags,
		.selector = { s->es.selector, s->cs.selector, s->ss.selector, s->ds.selector,
			      s->fs.selector, s->gs.selector },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(old.gpr); i++)
		old.gpr[i] = t->vcpu->gpr[i];
	return tss_access(t, s->tr.base + offsetof(struct tss32, eip), &old.eip,
			  offsetof(struct tss32, ldt) - offsetof(struct tss32, eip), true);
}

/* The busy bit of a TSS's descriptor. */
static int busy_set(struct task *t, u16 selector, bool busy)
{
	u64 d, linear;
	int r = descriptor_read(t, selector, X86_TRAP_TS, &d, &linear);

	if (r)
		return r;
	d = busy ? d | BUSY_BIT : d & ~BUSY_BIT;
	return tss_access(t, linear, &d, sizeof(d), true);
}

static void task_load(struct task *t)
{
	struct moat_vcpu *vcpu = t->vcpu;
	unsigned int i;

	t->s->tr = t->tr;
	t->s->tr.type |= TYPE_BUSY;
	t->s->cr0 |= X86_CR0_TS;
	if (t->s->cr0 & X86_CR0_PG)
		t->s->cr3 = t->tss.cr3;
	vcpu->rip = t->tss.eip;
	vcpu->rflags = (t->tss.eflags & ~0xffc08028u) | X86_EFLAGS_FIXED;
	for (i = 0; i < ARRAY_SIZE(t->tss.gpr); i++)
		vcpu->gpr[i] = t->tss.gpr[i];
	vcpu->dr7 &= ~0x155ull;		/* local breakpoints are the old task's */
	vcpu->irq_shadow = false;
	moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	moat_request(vcpu, MOAT_REQ_EVENT);
}

static int error_push(struct task *t, u32 error)
{
	struct moat_vcpu *vcpu = t->vcpu;
	u32 esp = vcpu->gpr[RSP] - (t->s->cs.db ? 4 : 2);

	if (!t->s->ss.db)
		esp = (vcpu->gpr[RSP] & ~0xffffull) | (esp & 0xffff);
	vcpu->gpr[RSP] = esp;
	return tss_access(t, t->s->ss.base + (t->s->ss.db ? esp : esp & 0xffff), &error,
			  t->s->cs.db ? 4 : 2, true);
}

/* Everything up to the new task's first look at itself: until then the old one can be gone on with. */
static int task_begin(struct task *t)
{
	const struct moat_task_switch *to = &t->vcpu->task;
	u64 d, linear, rflags = t->vcpu->rflags;
	u32 link = t->s->tr.selector;
	u16 old = link;
	int r;

	r = descriptor_read(t, to->selector, X86_TRAP_GP, &d, &linear);
	if (r)
		return r;
	descriptor_decode(d, to->selector, &t->tr);
	if (!t->tr.present)
		return task_fault(t, X86_TRAP_NP, to->selector);
	if (t->tr.s || (t->tr.type & ~TYPE_BUSY) != TYPE_TSS32)
		return -EOPNOTSUPP;
	r = tss_access(t, t->tr.base, &t->tss, sizeof(t->tss), false);
	if (to->by == MOAT_TASK_IRET)
		rflags &= ~(u64)X86_EFLAGS_NT;
	if (!r)
		r = task_save(t, to->next_rip, rflags);
	if (!r && (to->by == MOAT_TASK_IRET || to->by == MOAT_TASK_JMP))
		r = busy_set(t, old, false);
	if (!r && (to->by == MOAT_TASK_CALL || to->by == MOAT_TASK_GATE)) {
		t->tss.eflags |= X86_EFLAGS_NT;
		r = tss_access(t, t->tr.base, &link, sizeof(link), true);
	}
	if (!r && to->by != MOAT_TASK_IRET)
		r = busy_set(t, to->selector, true);
	return r;
}

int moat_task_switch(struct moat_vcpu *vcpu)
{
	struct task t = { .vcpu = vcpu, .s = moat_sregs_change(vcpu) };
	int r = task_begin(&t);

	if (!r) {
		task_load(&t);
		r = segments_load(&t);
	}
	if (!r && vcpu->task.has_error)
		r = error_push(&t, vcpu->task.error);
	if (!r && (t.tss.trap & 1)) {
		vcpu->dr6 |= DR_SWITCH;
		moat_inject_exception(vcpu, X86_TRAP_DB, false, 0);
	}
	if (r == -EAGAIN)
		return 1;
	return r < 0 ? moat_internal_error(vcpu, KVM_INTERNAL_ERROR_EMULATION) : 1;
}
