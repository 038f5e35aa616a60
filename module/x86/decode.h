/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Decoding of x86 instructions: what the emulator executes, and the length of almost all others.
 */
#ifndef MOAT_DECODE_H
#define MOAT_DECODE_H

#include "../pure.h"

#define MOAT_INSN_MAX	15	/* bytes; what is longer raises #GP */

/* What CS says of code: the size of an address, in bytes, where no prefix says otherwise. */
enum moat_insn_mode {
	INSN_16 = 2,
	INSN_32 = 4,
	INSN_64 = 8,
};

enum moat_insn_op {
	INSN_UNDEFINED,		/* never the result of a decode */
	INSN_OTHER,		/* known by its length only */
	/* These eight in the order of their encoding. */
	INSN_ADD, INSN_OR, INSN_ADC, INSN_SBB, INSN_AND, INSN_SUB, INSN_XOR, INSN_CMP,
	INSN_TEST, INSN_NOT, INSN_NEG, INSN_INC, INSN_DEC,
	INSN_MOV, INSN_MOVZX, INSN_MOVSX, INSN_MOVBE,
	INSN_XCHG, INSN_CMPXCHG, INSN_CMPXCHG8B, INSN_XADD,
	INSN_BT, INSN_BTS, INSN_BTR, INSN_BTC,
	INSN_SETCC, INSN_CMOVCC,
	INSN_PUSH, INSN_POP,
	INSN_MOVS, INSN_CMPS, INSN_STOS, INSN_LODS, INSN_SCAS, INSN_INS, INSN_OUTS,
	INSN_IN, INSN_OUT,
	INSN_MOV_CR, INSN_MOV_DR, /* either way; reg is the control or debug register, rm the other */
	INSN_NR_OPS
};

/* Segments, in the order of their encoding. */
enum moat_insn_seg { INSN_ES, INSN_CS, INSN_SS, INSN_DS, INSN_FS, INSN_GS };

/* Prefixes that were there. */
#define INSN_LOCK	0x01
#define INSN_REPNE	0x02
#define INSN_REP	0x04
#define INSN_OPSIZE	0x08
#define INSN_ADDRSIZE	0x10
#define INSN_SEGMENT	0x20	/* one that counts: in 64-bit mode FS and GS only */

enum moat_operand_kind { OPERAND_NONE, OPERAND_REG, OPERAND_MEM, OPERAND_IMM };

struct moat_operand {
	u8 kind;		/* enum moat_operand_kind */
	u8 reg;			/* number of the general register */
	u8 size;		/* bytes */
};

/* For base and index. */
#define INSN_RIP	16	/* the address of the next instruction */
#define INSN_NO_REG	17

/*
 * struct moat_insn - an instruction, decoded
 * @op: enum moat_insn_op.
 * @length: in bytes, 1 to 15.
 * @mode: enum moat_insn_mode that it was decoded for.
 * @map: 0 for opcodes of one byte, 1 for 0F, 2 for 0F 38, 3 for 0F 3A.
 * @opcode: the last byte of the opcode.
 * @prefixes: INSN_LOCK and so on.
 * @rex: the REX prefix, or 0. With one, byte registers 4 to 7 are SPL to DIL, not AH to BH.
 * @modrm: as it is; 0 without.
 * @reg, @rm: the register fields of ModRM, extended by REX.
 * @operand_size, @address_size: in bytes.
 * @seg: of the memory operand, enum moat_insn_seg; for MOVS and so on of the one at RSI.
 * @base, @index, @shift, @disp: address of the memory operand: base + (index << shift) + disp,
 *	cut to address_size.
 * @dst, @src: operands. Those of string instructions are implied by the operation.
 * @imm: sign-extended as the instruction has it.
 */
struct moat_insn {
	u8 op;
	u8 length;
	u8 mode;
	u8 map;
	u8 opcode;
	u8 prefixes;
	u8 rex;
	u8 modrm;
	u8 reg;
	u8 rm;
	u8 operand_size;
	u8 address_size;
	u8 seg;
	u8 base;
	u8 index;
	u8 shift;
	struct moat_operand dst;
	struct moat_operand src;
	u64 disp;
	u64 imm;
};

/*
 * Decodes the instruction that begins at bytes; of them len are there, and no more than
 * MOAT_INSN_MAX are looked at. 0, or
 *	-EINVAL		the instruction is undefined: #UD
 *	-ENODATA	it is longer than len
 *	-E2BIG		it is longer than MOAT_INSN_MAX: #GP(0)
 *	-EOPNOTSUPP	it may be defined, but is none that is known here (VEX and its like)
 */
int moat_insn_decode(struct moat_insn *insn, const u8 *bytes, unsigned int len,
		     enum moat_insn_mode mode);

#endif
