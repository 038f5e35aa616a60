/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Execution of one decoded instruction on a copy of a vCPU's registers.
 */
#ifndef MOAT_EMULATE_H
#define MOAT_EMULATE_H

#include <linux/kvm.h>

#include "decode.h"

enum emu_result {
	EMU_OK,			/* done; RIP is behind it */
	EMU_REPEAT,		/* one round of a string instruction done, or an atomic one lost a
				 * race; RIP still at it
				 */
	EMU_FAULT,		/* an exception, in emu_state.exception */
	EMU_EXIT,		/* a callback wants to be asked again, by executing it again */
	EMU_UNHANDLEABLE,	/* not an instruction for here, or a callback failed */
};

/*
 * struct emu_ops - what the world round the CPU does
 *
 * Each returns 0, or
 *	-EAGAIN		the access is not done yet: the result is EMU_EXIT. When the instruction is
 *			executed again, the same accesses come in the same order.
 *	-EFAULT		a page fault, which emu_page_fault() has noted: the result is EMU_FAULT
 *	others		the result is EMU_UNHANDLEABLE, but for those given below
 *
 * Addresses are linear; what crosses a page is for the callback to cut. access is WALK_WRITE,
 * WALK_USER, WALK_IMPLICIT: what the page tables must allow, which for a read that a write
 * follows includes WALK_WRITE. len is 1, 2, 4, 8 or 16, for string I/O up to a page.
 *
 * @access: reads, or writes.
 * @probe: checks an access without making it. -ENXIO where it is allowed, but not all plain memory.
 * @cmpxchg: writes new if old is there still, at once. -EBUSY where it is not, -ENXIO where this
 *	is not plain memory or cannot be done at once: then a write follows.
 * @pio: items of size bytes from (in) or to a port, once all checks are done: how many were moved,
 *	1 to count. data is emu_state.pio_data.
 */
struct emu_ops {
	int (*access)(void *ctx, u64 linear, void *data, unsigned int len, u32 access, bool write);
	int (*probe)(void *ctx, u64 linear, unsigned int len, u32 access);
	int (*cmpxchg)(void *ctx, u64 linear, const void *old, const void *new, unsigned int len,
		       u32 access);
	int (*pio)(void *ctx, u16 port, unsigned int size, void *data, unsigned int count, bool in);
};

struct emu_regs {
	u64 gpr[16];		/* in the order of their encoding */
	u64 rip;
	u64 rflags;
};

/*
 * struct emu_state - a CPU, as far as an instruction sees it
 * @regs: in and out; as before unless EMU_OK or EMU_REPEAT.
 * @sregs: segments, cr0, cr4 and efer are used.
 * @cpl: current privilege level.
 * @ops, @ctx: callbacks and what they get.
 * @pio_data, @pio_size: room for a batch of string I/O, at least 4 bytes, at most a page is used.
 * @exception: out, with EMU_FAULT; cr2 with #PF only.
 * @trap: out, with EMU_OK and EMU_REPEAT: TF was set, a single-step #DB is due.
 */
struct emu_state {
	struct emu_regs regs;
	const struct kvm_sregs *sregs;
	u8 cpl;
	const struct emu_ops *ops;
	void *ctx;
	void *pio_data;
	u32 pio_size;
	struct {
		u8 vector;
		bool has_error;
		u32 error;
		u64 cr2;
	} exception;
	bool trap;
};

/* The mode in which code runs: from CS, EFER and EFLAGS.VM. */
enum moat_insn_mode emu_mode(const struct kvm_sregs *sregs, u64 rflags);

/* The linear address of the instruction at rip. */
u64 emu_code_address(const struct kvm_sregs *sregs, u64 rip, enum moat_insn_mode mode);

static inline u64 emu_size_mask(unsigned int size)
{
	return ~0ULL >> (64 - 8 * size);
}

/* A general register, as insn names it. */
static inline u64 emu_gpr_read(const struct moat_insn *insn, const u64 *gpr, unsigned int reg,
			       unsigned int size)
{
	if (size == 1 && !insn->rex && reg >= 4)
		return (gpr[reg - 4] >> 8) & 0xff;
	return gpr[reg] & emu_size_mask(size);
}

/* The offset of insn's memory operand in its segment, for insn at rip. */
static inline u64 emu_operand_offset(const struct moat_insn *insn, const u64 *gpr, u64 rip)
{
	u64 offset = insn->disp;

	if (insn->base == INSN_RIP)
		offset += rip + insn->length;
	else if (insn->base != INSN_NO_REG)
		offset += gpr[insn->base];
	if (insn->index != INSN_NO_REG)
		offset += gpr[insn->index] << insn->shift;
	return offset & emu_size_mask(insn->address_size);
}

/*
 * Executes insn, which is at regs.rip, or one round of it where it is a string instruction with
 * REP. An interrupt may be taken after each.
 */
enum emu_result emu_execute(struct emu_state *state, const struct moat_insn *insn);

const struct kvm_segment *emu_segment(const struct kvm_sregs *sregs, u8 seg);

/*
 * Plain moves, MOV and MOVZX with memory on one side, for whoever makes the access himself: whether
 * insn, at rip, is one, and all of its memory operand is at this address of a page (base is that of
 * its segment); what it writes to memory; and what it does with what it reads there.
 */
bool emu_move_is_at(const struct moat_insn *insn, const u64 *gpr, u64 rip, u64 base, u64 address);
u64 emu_move_value(const struct moat_insn *insn, const u64 *gpr);
void emu_move_load(const struct moat_insn *insn, u64 *gpr, u64 value);

/* For callbacks: notes a #PF, and returns -EFAULT. */
int emu_page_fault(struct emu_state *state, u64 linear, u32 error);

#endif
