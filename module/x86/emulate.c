// SPDX-License-Identifier: GPL-2.0-only
/*
 * The emulator.
 *
 * It runs one instruction to its end, or leaves no trace: registers are changed in place, and put
 * back as they were unless the instruction completed. What it does to memory and devices goes
 * through callbacks, in an order that depends on nothing but the instruction and what the callbacks
 * answered; so an instruction that has to wait for userspace is simply executed again.
 *
 * Most operations are arithmetic on one or two operands: these have a function that computes, and
 * flags that say which operands to read before and to write after it. The others do everything
 * themselves.
 *
 * Within this file functions return 0 or a negative error: -EFAULT for an exception, which is in
 * the state then, -EAGAIN for an access that has to wait, -EBUSY for a lost race; all others mean
 * that it cannot be done.
 *
 * Not checked: alignment (#AC), data breakpoints.
 *
 * Manuals: AMD APM vol. 3, "General-Purpose Instruction Reference"; AMD APM vol. 2, "Segmentation".
 */
#include "emulate.h"
#include "walk.h"

#define FLAG_IOPL(f)	(((f) & X86_EFLAGS_IOPL) >> 12)
#define FLAGS_STATUS	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF |	\
			 X86_EFLAGS_SF | X86_EFLAGS_OF)

#define VECTOR_SS	12
#define VECTOR_GP	13
#define VECTOR_PF	14

/* Bits of a segment's type. */
#define TYPE_CODE	8
#define TYPE_DOWN	4	/* data: expands down */
#define TYPE_ALLOWS	2	/* data: writable; code: readable */

enum { GPR_AX, GPR_CX, GPR_DX, GPR_BX, GPR_SP, GPR_BP, GPR_SI, GPR_DI };

/* What is special of an operation. */
#define READ_DST	0x001
#define WRITE_DST	0x002
#define READ_SRC	0x004
#define SWAP		0x008	/* the source becomes what the destination was */
#define BIT_STRING	0x010	/* a bit's number in a register reaches beyond the operand */
#define STRING		0x020	/* run does one round of what REP repeats */
#define UNTIL_ZF	0x040	/* REP looks at ZF */
#define WITH_CARRY	0x080	/* CF is one more operand */
#define ONE		0x100	/* 1 is the other operand, and CF stays */
#define MODIFY		(READ_DST | WRITE_DST)

/* An instruction being executed. */
struct emu {
	struct emu_state *state;
	const struct moat_insn *insn;
	u16 flags;		/* of its operation */
	u64 *gpr;
	unsigned int size;	/* of the operands, in bytes */
	u64 dst, src;		/* values of the operands, zero-extended */
	u64 old_dst;		/* as it was read */
	bool keep;		/* a destination register is not to be written */
	u64 skew;		/* added to the memory operand's address */
	unsigned int items;	/* of a string, done in this round */
	bool again;		/* more rounds to come */
};

/* Values of a size in bytes */

static u64 sign_bit(unsigned int size)
{
	return BIT_ULL(8 * size - 1);
}

/* Registers */

static u64 gpr_read(const struct emu *e, unsigned int reg, unsigned int size)
{
	return emu_gpr_read(e->insn, e->gpr, reg, size);
}

static void gpr_write(struct emu *e, unsigned int reg, unsigned int size, u64 value)
{
	u64 mask = emu_size_mask(size);

	if (size == 1 && !e->insn->rex && reg >= 4)
		e->gpr[reg - 4] = (e->gpr[reg - 4] & ~0xff00ULL) | (value & 0xff) << 8;
	else if (size == 4)
		e->gpr[reg] = value & mask;
	else
		e->gpr[reg] = (e->gpr[reg] & ~mask) | (value & mask);
}

/* Exceptions */

static int exception_raise(struct emu_state *state, u8 vector, u32 error)
{
	state->exception.vector = vector;
	state->exception.has_error = state->sregs->cr0 & X86_CR0_PE;
	state->exception.error = error;
	return -EFAULT;
}

int emu_page_fault(struct emu_state *state, u64 linear, u32 error)
{
	state->exception.cr2 = linear;
	return exception_raise(state, VECTOR_PF, error);
}

/* Segments: from an offset to a linear address */

const struct kvm_segment *emu_segment(const struct kvm_sregs *sregs, u8 seg)
{
	const struct kvm_segment *const segments[] = {
		[INSN_ES] = &sregs->es, [INSN_CS] = &sregs->cs, [INSN_SS] = &sregs->ss,
		[INSN_DS] = &sregs->ds, [INSN_FS] = &sregs->fs, [INSN_GS] = &sregs->gs,
	};

	return segments[seg];
}

static bool segment_allows(const struct kvm_segment *s, u64 first, u64 last, bool write)
{
	bool code = s->type & TYPE_CODE;

	if (s->unusable || !s->present || (write && code))
		return false;
	if ((write || code) && !(s->type & TYPE_ALLOWS))
		return false;
	if (!code && s->type & TYPE_DOWN)
		return first > s->limit && last <= (s->db ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

static bool is_canonical(const struct emu_state *state, u64 linear)
{
	return (u64)sign_extend64(linear, state->sregs->cr4 & X86_CR4_LA57 ? 56 : 47) == linear;
}

static int address_linear(const struct emu *e, u8 seg, u64 offset, unsigned int len, u32 access,
			  u64 *ret_linear)
{
	struct emu_state *state = e->state;
	const struct kvm_segment *s = emu_segment(state->sregs, seg);
	u64 last = offset + len - 1;
	bool allowed;

	if (e->insn->mode == INSN_64) {
		*ret_linear = offset + (seg >= INSN_FS ? s->base : 0);
		allowed = is_canonical(state, *ret_linear) &&
			  is_canonical(state, *ret_linear + len - 1);
	} else {
		*ret_linear = (u32)(offset + s->base);
		if (state->sregs->cr0 & X86_CR0_PE && !(state->regs.rflags & X86_EFLAGS_VM))
			allowed = segment_allows(s, offset, last, access & WALK_WRITE);
		else
			allowed = last <= s->limit;
	}
	if (allowed)
		return 0;
	return exception_raise(state, seg == INSN_SS ? VECTOR_SS : VECTOR_GP, 0);
}

/* Memory */

static u32 data_access(const struct emu *e, bool write)
{
	return (e->state->cpl == 3 ? WALK_USER : 0) | (write ? WALK_WRITE : 0);
}

static int memory_read(const struct emu *e, u8 seg, u64 offset, void *data, unsigned int len,
		       bool write_follows)
{
	u32 access = data_access(e, write_follows);
	u64 linear;
	int r;

	r = address_linear(e, seg, offset, len, access, &linear);
	return r ?: e->state->ops->access(e->state->ctx, linear, data, len, access, false);
}

static int memory_write(const struct emu *e, u8 seg, u64 offset, void *data, unsigned int len)
{
	u32 access = data_access(e, true);
	u64 linear;
	int r;

	r = address_linear(e, seg, offset, len, access, &linear);
	return r ?: e->state->ops->access(e->state->ctx, linear, data, len, access, true);
}

/* Writes what has been read before, as one with the read where the instruction is atomic. */
static int memory_update(const struct emu *e, u64 offset, const void *old, void *new,
			 unsigned int len)
{
	/* By another name: its own is a macro in the kernel. */
	typeof(e->state->ops->cmpxchg) exchange = e->state->ops->cmpxchg;
	const struct moat_insn *insn = e->insn;
	u32 access = data_access(e, true);
	u64 linear;
	int r;

	if (!(insn->prefixes & INSN_LOCK) && insn->op != INSN_XCHG)
		return memory_write(e, insn->seg, offset, new, len);
	r = address_linear(e, insn->seg, offset, len, access, &linear);
	if (r)
		return r;
	r = exchange(e->state->ctx, linear, old, new, len, access);
	if (r != -ENXIO)
		return r;
	return e->state->ops->access(e->state->ctx, linear, new, len, access, true);
}

/* The offset of the memory operand in its segment. */
static u64 operand_offset(const struct emu *e)
{
	return (emu_operand_offset(e->insn, e->gpr, e->state->regs.rip) + e->skew) &
	       emu_size_mask(e->insn->address_size);
}

static int operand_read(const struct emu *e, const struct moat_operand *operand, bool write_follows,
			u64 *ret_value)
{
	u64 value = 0;
	int r = 0;

	if (operand->kind == OPERAND_MEM)
		r = memory_read(e, e->insn->seg, operand_offset(e), &value, operand->size,
				write_follows);
	else if (operand->kind == OPERAND_IMM)
		value = e->insn->imm & emu_size_mask(operand->size);
	else
		value = gpr_read(e, operand->reg, operand->size);
	if (!r)
		*ret_value = value;
	return r;
}

static int operand_write(struct emu *e, const struct moat_operand *operand, bool was_read)
{
	if (operand->kind == OPERAND_REG) {
		gpr_write(e, operand->reg, operand->size, e->dst);
		return 0;
	}
	if (was_read)
		return memory_update(e, operand_offset(e), &e->old_dst, &e->dst, operand->size);
	return memory_write(e, e->insn->seg, operand_offset(e), &e->dst, operand->size);
}

/* Plain moves */

bool emu_move_is_at(const struct moat_insn *insn, const u64 *gpr, u64 rip, u64 base, u64 address)
{
	if ((insn->op != INSN_MOV && insn->op != INSN_MOVZX) ||
	    (insn->dst.kind != OPERAND_MEM && insn->src.kind != OPERAND_MEM))
		return false;
	return !((emu_operand_offset(insn, gpr, rip) + base - address) & 4095) &&
	       (address & 4095) + insn->src.size <= 4096;
}

u64 emu_move_value(const struct moat_insn *insn, const u64 *gpr)
{
	if (insn->src.kind == OPERAND_IMM)
		return insn->imm & emu_size_mask(insn->src.size);
	return emu_gpr_read(insn, gpr, insn->src.reg, insn->src.size);
}

void emu_move_load(const struct moat_insn *insn, u64 *gpr, u64 value)
{
	struct emu e = { .insn = insn, .gpr = gpr };

	gpr_write(&e, insn->dst.reg, insn->dst.size, value);
}

/* Flags */

static void flags_set(struct emu *e, u64 changed, u64 flags)
{
	u64 *rflags = &e->state->regs.rflags;

	*rflags = (*rflags & ~changed) | (flags & changed);
}

static bool flag_get(const struct emu *e, u64 flag)
{
	return e->state->regs.rflags & flag;
}

static u64 flags_of_result(const struct emu *e, u64 result)
{
	u64 flags = 0;
	u8 parity = result;

	parity ^= parity >> 4;
	parity ^= parity >> 2;
	parity ^= parity >> 1;
	if (!(parity & 1))
		flags |= X86_EFLAGS_PF;
	if (!(result & emu_size_mask(e->size)))
		flags |= X86_EFLAGS_ZF;
	if (result & sign_bit(e->size))
		flags |= X86_EFLAGS_SF;
	return flags;
}

/* Sums and differences leave the carry out of each bit in carries. */
static void flags_of_carries(struct emu *e, u64 result, u64 carries, u64 overflows)
{
	u64 flags = flags_of_result(e, result);

	if (carries & sign_bit(e->size))
		flags |= X86_EFLAGS_CF;
	if (carries & 8)
		flags |= X86_EFLAGS_AF;
	if (overflows & sign_bit(e->size))
		flags |= X86_EFLAGS_OF;
	flags_set(e, e->flags & ONE ? FLAGS_STATUS & ~X86_EFLAGS_CF : FLAGS_STATUS, flags);
}

static bool carry_in(const struct emu *e)
{
	return e->flags & ONE || (e->flags & WITH_CARRY && flag_get(e, X86_EFLAGS_CF));
}

static u64 alu_sub(struct emu *e, u64 a, u64 b)
{
	u64 difference = a - b - carry_in(e);
	u64 borrows = (~a & b) | ((~a | b) & difference);

	flags_of_carries(e, difference, borrows, (a ^ b) & (a ^ difference));
	return difference;
}

static bool condition_holds(const struct emu *e)
{
	static const u64 any_of[8] = {
		X86_EFLAGS_OF, X86_EFLAGS_CF, X86_EFLAGS_ZF, X86_EFLAGS_CF | X86_EFLAGS_ZF,
		X86_EFLAGS_SF, X86_EFLAGS_PF, 0, X86_EFLAGS_ZF,
	};
	unsigned int condition = e->insn->opcode & 15;
	bool less = condition >= 12 && flag_get(e, X86_EFLAGS_SF) != flag_get(e, X86_EFLAGS_OF);

	return (less || flag_get(e, any_of[condition >> 1])) != (condition & 1);
}

/* What computes */

static void compute_add(struct emu *e)
{
	u64 a = e->dst, b = e->src, sum = a + b + carry_in(e);

	flags_of_carries(e, sum, (a & b) | ((a | b) & ~sum), (a ^ sum) & (b ^ sum));
	e->dst = sum;
}

static void compute_sub(struct emu *e)
{
	e->dst = alu_sub(e, e->dst, e->src);
}

static void compute_logic(struct emu *e)
{
	if (e->insn->op == INSN_OR)
		e->dst |= e->src;
	else if (e->insn->op == INSN_XOR)
		e->dst ^= e->src;
	else
		e->dst &= e->src;
	flags_set(e, FLAGS_STATUS, flags_of_result(e, e->dst));
}

static void compute_not(struct emu *e)
{
	e->dst = ~e->dst;
}

static void compute_neg(struct emu *e)
{
	e->dst = alu_sub(e, 0, e->dst);
}

static void compute_mov(struct emu *e)
{
	e->dst = e->src;
}

static void compute_movsx(struct emu *e)
{
	e->dst = sign_extend64(e->src, 8 * e->insn->src.size - 1);
}

static void compute_movbe(struct emu *e)
{
	e->dst = __builtin_bswap64(e->src) >> (64 - 8 * e->size);
}

static void compute_cmpxchg(struct emu *e)
{
	alu_sub(e, gpr_read(e, GPR_AX, e->size), e->dst);
	if (flag_get(e, X86_EFLAGS_ZF)) {
		e->dst = e->src;
	} else {
		/* Memory is written in any case, with what it was; a register is not. */
		gpr_write(e, GPR_AX, e->size, e->dst);
		e->keep = true;
	}
}

static void compute_setcc(struct emu *e)
{
	e->dst = condition_holds(e);
}

static void compute_cmovcc(struct emu *e)
{
	if (condition_holds(e))
		e->dst = e->src;
}

static void compute_bit(struct emu *e)
{
	u64 bit = BIT_ULL(e->src & (8 * e->size - 1));

	flags_set(e, X86_EFLAGS_CF, e->dst & bit ? X86_EFLAGS_CF : 0);
	if (e->insn->op == INSN_BTS)
		e->dst |= bit;
	else if (e->insn->op == INSN_BTR)
		e->dst &= ~bit;
	else if (e->insn->op == INSN_BTC)
		e->dst ^= bit;
}

/* What does everything itself */

static int run_cmpxchg8b(struct emu *e)
{
	unsigned int size = e->size == 8 ? 8 : 4;
	u64 offset = operand_offset(e), old[2] = {}, new[2], low, high, linear;
	bool equal;
	int r;

	r = address_linear(e, e->insn->seg, offset, 2 * size, WALK_WRITE, &linear);
	if (!r && size == 8 && linear & 15)
		return exception_raise(e->state, VECTOR_GP, 0);
	if (!r)
		r = memory_read(e, e->insn->seg, offset, old, 2 * size, true);
	if (r)
		return r;
	low = size == 8 ? old[0] : (u32)old[0];
	high = size == 8 ? old[1] : old[0] >> 32;
	equal = low == gpr_read(e, GPR_AX, size) && high == gpr_read(e, GPR_DX, size);
	new[0] = old[0];
	new[1] = old[1];
	if (equal) {
		new[0] = size == 8 ? e->gpr[GPR_BX] : (u32)e->gpr[GPR_BX] | e->gpr[GPR_CX] << 32;
		new[1] = e->gpr[GPR_CX];
	} else {
		gpr_write(e, GPR_AX, size, low);
		gpr_write(e, GPR_DX, size, high);
	}
	flags_set(e, X86_EFLAGS_ZF, equal ? X86_EFLAGS_ZF : 0);
	return memory_update(e, offset, old, new, 2 * size);
}

static unsigned int stack_size(const struct emu *e)
{
	if (e->insn->mode == INSN_64)
		return 8;
	return e->state->sregs->ss.db ? 4 : 2;
}

static int run_push(struct emu *e)
{
	unsigned int width = stack_size(e);
	u64 sp = (e->gpr[GPR_SP] - e->size) & emu_size_mask(width);
	u64 value;
	int r;

	r = operand_read(e, &e->insn->dst, false, &value);
	if (!r)
		r = memory_write(e, INSN_SS, sp, &value, e->size);
	if (!r)
		gpr_write(e, GPR_SP, width, sp);
	return r;
}

/* An address relative to RSP is that after the POP. */
static int run_pop(struct emu *e)
{
	unsigned int width = stack_size(e);
	u64 sp = e->gpr[GPR_SP] & emu_size_mask(width);
	int r;

	r = memory_read(e, INSN_SS, sp, &e->dst, e->size, false);
	if (r)
		return r;
	gpr_write(e, GPR_SP, width, sp + e->size);
	return operand_write(e, &e->insn->dst, false);
}

/* Ports */

/* The CPU's own read of the TSS. */
static int tss_read(const struct emu *e, u32 offset, u16 *ret_value)
{
	const struct kvm_segment *tr = &e->state->sregs->tr;
	u64 linear = tr->base + offset;

	if (!(e->state->sregs->efer & WALK_EFER_LMA))
		linear = (u32)linear;
	if (tr->unusable || !tr->present || !(tr->type & 8) || offset + 1 > tr->limit)
		return exception_raise(e->state, VECTOR_GP, 0);
	return e->state->ops->access(e->state->ctx, linear, ret_value, 2, WALK_IMPLICIT, false);
}

/* By privilege, or by the permission map in the TSS. */
static int port_check(const struct emu *e, u16 port)
{
	const struct emu_state *state = e->state;
	u16 map, bits;
	int r;

	if (!(state->sregs->cr0 & X86_CR0_PE))
		return 0;
	if (!(state->regs.rflags & X86_EFLAGS_VM) && state->cpl <= FLAG_IOPL(state->regs.rflags))
		return 0;
	r = tss_read(e, 0x66, &map);
	if (!r)
		r = tss_read(e, map + port / 8, &bits);
	if (r)
		return r;
	if ((bits >> (port & 7)) & ((1 << e->size) - 1))
		return exception_raise(e->state, VECTOR_GP, 0);
	return 0;
}

static int run_io(struct emu *e)
{
	struct emu_state *state = e->state;
	bool in = e->insn->op == INSN_IN;
	u16 port = e->insn->src.kind == OPERAND_IMM ? (u8)e->insn->imm : e->gpr[GPR_DX];
	u32 value = 0;
	int r;

	if (!in)
		memcpy(state->pio_data, &e->gpr[GPR_AX], e->size);
	r = port_check(e, port) ?:
	    state->ops->pio(state->ctx, port, e->size, state->pio_data, 1, in);
	if (r < 0)
		return r;
	if (in) {
		memcpy(&value, state->pio_data, e->size);
		gpr_write(e, GPR_AX, e->size, value);
	}
	return 0;
}

/* Strings */

static bool is_repeated(const struct emu *e)
{
	return e->insn->prefixes & (INSN_REP | INSN_REPNE);
}

static u64 string_offset(const struct emu *e, unsigned int reg)
{
	return e->gpr[reg] & emu_size_mask(e->insn->address_size);
}

static void string_advance(struct emu *e, unsigned int reg, unsigned int items)
{
	u64 bytes = items * e->size;

	gpr_write(e, reg, e->insn->address_size,
		  e->gpr[reg] + (flag_get(e, X86_EFLAGS_DF) ? -bytes : bytes));
}

/*
 * All but those of ports. The source is at RSI where it is read, else it is rAX; the destination is
 * at RDI where it is written or compared, else it is rAX.
 */
static int round_string(struct emu *e)
{
	bool at_si = e->flags & READ_SRC, at_di = e->flags & MODIFY;
	int r = 0;

	if (at_si)
		r = memory_read(e, e->insn->seg, string_offset(e, GPR_SI), &e->src, e->size, false);
	else
		e->src = gpr_read(e, GPR_AX, e->size);
	if (!r && e->flags & READ_DST)
		r = memory_read(e, INSN_ES, string_offset(e, GPR_DI), &e->dst, e->size, false);
	if (!r && e->flags & WRITE_DST)
		r = memory_write(e, INSN_ES, string_offset(e, GPR_DI), &e->src, e->size);
	if (r)
		return r;
	if (e->flags & READ_DST)
		alu_sub(e, e->src, e->dst);
	if (at_si)
		string_advance(e, GPR_SI, 1);
	if (at_di)
		string_advance(e, GPR_DI, 1);
	else
		gpr_write(e, GPR_AX, e->size, e->src);
	return 0;
}

/*
 * How many items of string I/O make one access: several only within one page of plain memory,
 * upward and without a wrap. The memory is checked here, before a device is touched.
 */
static int batch_plan(struct emu *e, u8 seg, u64 offset, bool write)
{
	struct emu_state *state = e->state;
	const struct emu_ops *ops = state->ops;
	u64 items = is_repeated(e) ? string_offset(e, GPR_CX) : 1;
	u64 room = emu_size_mask(e->insn->address_size) - offset;
	u32 access = data_access(e, write);
	u64 linear;
	int r;

	r = address_linear(e, seg, offset, e->size, access, &linear);
	if (r)
		return r;
	room = min(room, 4096 - (linear & 4095));
	if (room > state->pio_size)
		room = state->pio_size;
	items = min(items, room / e->size);
	if (items > 1 && !flag_get(e, X86_EFLAGS_DF) &&
	    !address_linear(e, seg, offset, items * e->size, access, &linear) &&
	    !ops->probe(state->ctx, linear, items * e->size, access)) {
		e->items = items;
		return 0;
	}
	r = ops->probe(state->ctx, linear, e->size, access);
	return r == -ENXIO ? 0 : r;
}

/* INS and OUTS. */
static int round_io(struct emu *e)
{
	struct emu_state *state = e->state;
	bool in = e->insn->op == INSN_INS;
	unsigned int reg = in ? GPR_DI : GPR_SI;
	u8 seg = in ? INSN_ES : e->insn->seg;
	u64 offset = string_offset(e, reg);
	u16 port = e->gpr[GPR_DX];
	int r;

	r = port_check(e, port);
	if (!r)
		r = batch_plan(e, seg, offset, in);
	if (!r && !in)
		r = memory_read(e, seg, offset, state->pio_data, e->items * e->size, false);
	if (!r)
		r = state->ops->pio(state->ctx, port, e->size, state->pio_data, e->items, in);
	if (r < 0)
		return r;
	e->items = r;
	r = in ? memory_write(e, seg, offset, state->pio_data, e->items * e->size) : 0;
	if (!r)
		string_advance(e, reg, e->items);
	return r;
}

/* The operations */

struct operation {
	void (*compute)(struct emu *e);
	int (*run)(struct emu *e);
	u16 flags;
};

#define COMPUTE(name, flags)	{ compute_##name, NULL, flags }
#define RUN(name)		{ NULL, run_##name, 0 }
#define ROUND(name, flags)	{ NULL, round_##name, STRING | (flags) }

static const struct operation operations[INSN_NR_OPS] = {
	[INSN_ADD] = COMPUTE(add, MODIFY | READ_SRC),
	[INSN_OR] = COMPUTE(logic, MODIFY | READ_SRC),
	[INSN_ADC] = COMPUTE(add, MODIFY | READ_SRC | WITH_CARRY),
	[INSN_SBB] = COMPUTE(sub, MODIFY | READ_SRC | WITH_CARRY),
	[INSN_AND] = COMPUTE(logic, MODIFY | READ_SRC),
	[INSN_SUB] = COMPUTE(sub, MODIFY | READ_SRC),
	[INSN_XOR] = COMPUTE(logic, MODIFY | READ_SRC),
	[INSN_CMP] = COMPUTE(sub, READ_DST | READ_SRC),
	[INSN_TEST] = COMPUTE(logic, READ_DST | READ_SRC),
	[INSN_NOT] = COMPUTE(not, MODIFY),
	[INSN_NEG] = COMPUTE(neg, MODIFY),
	[INSN_INC] = COMPUTE(add, MODIFY | ONE),
	[INSN_DEC] = COMPUTE(sub, MODIFY | ONE),
	[INSN_MOV ... INSN_MOVZX] = COMPUTE(mov, READ_SRC | WRITE_DST),
	[INSN_MOVSX] = COMPUTE(movsx, READ_SRC | WRITE_DST),
	[INSN_MOVBE] = COMPUTE(movbe, READ_SRC | WRITE_DST),
	[INSN_XCHG] = COMPUTE(mov, MODIFY | READ_SRC | SWAP),
	[INSN_CMPXCHG] = COMPUTE(cmpxchg, MODIFY | READ_SRC),
	[INSN_CMPXCHG8B] = RUN(cmpxchg8b),
	[INSN_XADD] = COMPUTE(add, MODIFY | READ_SRC | SWAP),
	[INSN_BT] = COMPUTE(bit, READ_DST | READ_SRC | BIT_STRING),
	[INSN_BTS ... INSN_BTC] = COMPUTE(bit, MODIFY | READ_SRC | BIT_STRING),
	[INSN_SETCC] = COMPUTE(setcc, WRITE_DST),
	[INSN_CMOVCC] = COMPUTE(cmovcc, MODIFY | READ_SRC),
	[INSN_PUSH] = RUN(push),
	[INSN_POP] = RUN(pop),
	[INSN_MOVS] = ROUND(string, READ_SRC | WRITE_DST),
	[INSN_CMPS] = ROUND(string, READ_SRC | READ_DST | UNTIL_ZF),
	[INSN_STOS] = ROUND(string, WRITE_DST),
	[INSN_LODS] = ROUND(string, READ_SRC),
	[INSN_SCAS] = ROUND(string, READ_DST | UNTIL_ZF),
	[INSN_INS ... INSN_OUTS] = ROUND(io, 0),
	[INSN_IN ... INSN_OUT] = RUN(io),
};

static int compute_run(struct emu *e, const struct operation *op)
{
	const struct moat_insn *insn = e->insn;
	bool modify = (e->flags & MODIFY) == MODIFY;
	int r = 0;

	if (e->flags & READ_SRC)
		r = operand_read(e, &insn->src, false, &e->src);
	if (!r && e->flags & BIT_STRING && insn->src.kind == OPERAND_REG &&
	    insn->dst.kind == OPERAND_MEM)
		e->skew = (sign_extend64(e->src, 8 * e->size - 1) >> 3) & -(u64)e->size;
	if (!r && e->flags & READ_DST)
		r = operand_read(e, &insn->dst, modify, &e->dst);
	if (r)
		return r;
	e->old_dst = e->dst;
	op->compute(e);
	/* Memory first: its address may depend on the source. */
	if (e->flags & WRITE_DST && insn->dst.kind == OPERAND_MEM)
		r = operand_write(e, &insn->dst, modify);
	if (e->flags & SWAP)
		gpr_write(e, insn->src.reg, insn->src.size, e->old_dst);
	/* A register last: where both are one register, the destination wins. */
	if (e->flags & WRITE_DST && insn->dst.kind == OPERAND_REG && !e->keep)
		operand_write(e, &insn->dst, modify);
	return r;
}

static int string_run(struct emu *e, const struct operation *op)
{
	bool wants_zf = e->insn->prefixes & INSN_REP;
	u64 count;
	int r;

	e->items = 1;
	if (!is_repeated(e))
		return op->run(e);
	if (!string_offset(e, GPR_CX))
		return 0;
	r = op->run(e);
	if (r)
		return r;
	count = string_offset(e, GPR_CX) - e->items;
	gpr_write(e, GPR_CX, e->insn->address_size, count);
	e->again = count && !(e->flags & UNTIL_ZF && flag_get(e, X86_EFLAGS_ZF) != wants_zf);
	return 0;
}

static enum emu_result result_of(int r)
{
	switch (r) {
	case 0:
		return EMU_OK;
	case -EBUSY:
		return EMU_REPEAT;
	case -EFAULT:
		return EMU_FAULT;
	case -EAGAIN:
		return EMU_EXIT;
	default:
		return EMU_UNHANDLEABLE;
	}
}

enum emu_result emu_execute(struct emu_state *state, const struct moat_insn *insn)
{
	const struct operation *op = &operations[insn->op];
	struct emu_regs before = state->regs;
	struct emu e = {
		.state = state, .insn = insn, .flags = op->flags, .gpr = state->regs.gpr,
		.size = insn->operand_size,
	};
	int r;

	state->trap = false;
	if (op->compute)
		r = compute_run(&e, op);
	else if (op->flags & STRING)
		r = string_run(&e, op);
	else if (op->run)
		r = op->run(&e);
	else
		r = -EOPNOTSUPP;
	if (r) {
		state->regs = before;
		return result_of(r);
	}
	state->trap = before.rflags & X86_EFLAGS_TF;
	if (e.again)
		return EMU_REPEAT;
	state->regs.rip += insn->length;
	if (insn->mode != INSN_64)
		state->regs.rip &= emu_size_mask(insn->mode);
	state->regs.rflags &= ~X86_EFLAGS_RF;
	return EMU_OK;
}

enum moat_insn_mode emu_mode(const struct kvm_sregs *sregs, u64 rflags)
{
	if (rflags & X86_EFLAGS_VM)
		return INSN_16;
	if (sregs->efer & WALK_EFER_LMA && sregs->cs.l)
		return INSN_64;
	return sregs->cs.db ? INSN_32 : INSN_16;
}

u64 emu_code_address(const struct kvm_sregs *sregs, u64 rip, enum moat_insn_mode mode)
{
	return mode == INSN_64 ? rip : (u32)(sregs->cs.base + rip);
}
