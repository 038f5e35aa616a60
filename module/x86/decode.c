// SPDX-License-Identifier: GPL-2.0-only
/*
 * The instruction decoder.
 *
 * A table for each opcode map has a row for each opcode: operation, operands, immediate, and what
 * is special. From a row and the prefixes follows everything else. Rows of operation OTHER serve
 * for the length: the emulator does not execute these, but a CPU without nRIP save leaves it to us
 * to find out where they end.
 *
 * What decides whether a row is emulated is whether software uses the instruction on device memory.
 *
 * Manuals: AMD APM vol. 3, "Instruction Encoding" and "Opcode and Operand Encodings"; Intel SDM
 * vol. 2, "Instruction Format" and "Opcode Map".
 */
#include "decode.h"

/* Where a row finds an operand. */
enum slot {
	AT_NONE,
	AT_RM,			/* memory or register, by ModRM */
	AT_REG,			/* the reg field of ModRM */
	AT_ACC,			/* AL, AX, EAX, RAX */
	AT_LOW,			/* the low bits of the opcode */
	AT_IMM,
	AT_MOFFS,		/* memory at an address in the instruction */
};

/* What follows the operands in the instruction. */
enum imm {
	IMM_NONE,
	IMM_8,
	IMM_16,
	IMM_Z,			/* as the operand, but at most 32 bits */
	IMM_V,			/* as the operand */
	IMM_16_8,		/* ENTER */
	IMM_FAR,		/* offset and selector */
	IMM_GROUP3,		/* the operand's, for the first two of the group only */
};

/*
 * A row: bits 0-7 operation or group, 8-11 destination, 12-15 source, 16-19 immediate, then flags.
 */
#define ROW_(op, dst, src, imm, flags) ((op) | (dst) << 8 | (src) << 12 | (imm) << 16 | (flags))
#define ROW(op, dst, src, flags) ROW_(INSN_##op, AT_##dst, AT_##src, IMM_NONE, flags)
#define ROWI(op, dst, src, imm, flags) ROW_(INSN_##op, AT_##dst, AT_##src, IMM_##imm, flags)
#define OTHER(flags) ROW(OTHER, NONE, NONE, flags)
#define OTHERI(imm, flags) ROWI(OTHER, NONE, NONE, imm, flags)

#define BYTE		0x00100000	/* operands are bytes */
#define MODRM		0x00200000
#define WIDE		0x00400000	/* 64 bits by default in 64-bit mode */
#define NOT64		0x00800000	/* undefined in 64-bit mode */
#define MEMORY		0x01000000	/* undefined with a register for memory */
#define REGISTER	0x02000000	/* ModRM names a register whatever its mod field says */
#define SOURCE8		0x04000000	/* the source is smaller than the destination */
#define SOURCE16	0x08000000
#define SOURCE32	0x10000000
#define PORT		0x20000000	/* at most 32 bits */
#define PLAIN		0x40000000	/* undefined with 66, F2 or F3 */
#define SIZED		0x80000000	/* operands are bytes where bit 0 of the opcode is clear */

/* In a row, instead of an operation: the reg field of ModRM says which. */
enum group {
	INSN_GROUP_1 = INSN_NR_OPS, INSN_GROUP_1A, INSN_GROUP_3, INSN_GROUP_4, INSN_GROUP_5,
	INSN_GROUP_8, INSN_GROUP_9, INSN_GROUP_11,
	INSN_UNKNOWN,		/* not a group: defined on some CPUs, or by what else is there */
};

/* Eight times the same, from 00 to 3D, for the operations of group 1; behind each, OTHER. */
static const u32 alu[8] = {
	[0 ... 1] = ROW(UNDEFINED, RM, REG, MODRM | SIZED),
	[2 ... 3] = ROW(UNDEFINED, REG, RM, MODRM | SIZED),
	[4 ... 5] = ROWI(UNDEFINED, ACC, IMM, Z, SIZED),
	[6 ... 7] = OTHER(NOT64),	/* PUSH, POP of segments, DAA, DAS, AAA, AAS; prefixes */
};

static const u32 one_byte[256] = {
	[0x40 ... 0x47] = ROW(INC, LOW, NONE, 0),		/* in 64-bit mode these are REX */
	[0x48 ... 0x4f] = ROW(DEC, LOW, NONE, 0),
	[0x50 ... 0x5f] = OTHER(WIDE),				/* PUSH, POP */
	[0x60 ... 0x61] = OTHER(NOT64),				/* PUSHA, POPA */
	[0x62] = OTHER(MODRM),					/* BOUND, EVEX */
	[0x63] = ROW(MOVSX, REG, RM, MODRM | SOURCE32),		/* in 64-bit mode only */
	[0x68] = OTHERI(Z, WIDE),				/* PUSH */
	[0x69] = OTHERI(Z, MODRM),				/* IMUL */
	[0x6a] = OTHERI(8, WIDE),
	[0x6b] = OTHERI(8, MODRM),
	[0x6c ... 0x6d] = ROW(INS, NONE, NONE, PORT | SIZED),
	[0x6e ... 0x6f] = ROW(OUTS, NONE, NONE, PORT | SIZED),
	[0x70 ... 0x7f] = OTHERI(8, WIDE),			/* Jcc */
	[0x80 ... 0x81] = ROWI(GROUP_1, RM, IMM, Z, MODRM | SIZED),
	[0x82] = ROWI(GROUP_1, RM, IMM, 8, MODRM | BYTE | NOT64),
	[0x83] = ROWI(GROUP_1, RM, IMM, 8, MODRM),
	[0x84 ... 0x85] = ROW(TEST, RM, REG, MODRM | SIZED),
	[0x86 ... 0x87] = ROW(XCHG, RM, REG, MODRM | SIZED),
	[0x88 ... 0x89] = ROW(MOV, RM, REG, MODRM | SIZED),
	[0x8a ... 0x8b] = ROW(MOV, REG, RM, MODRM | SIZED),
	[0x8c] = OTHER(MODRM),					/* MOV of segments */
	[0x8d] = OTHER(MODRM | MEMORY),				/* LEA */
	[0x8e] = OTHER(MODRM),
	[0x8f] = ROW(GROUP_1A, RM, NONE, MODRM | WIDE),
	[0x90 ... 0x99] = OTHER(0),				/* XCHG, NOP, PAUSE, CBW, CWD */
	[0x9a] = OTHERI(FAR, NOT64),				/* CALL */
	[0x9b ... 0x9f] = OTHER(WIDE),				/* PUSHF, POPF, SAHF, LAHF */
	[0xa0 ... 0xa1] = ROW(MOV, ACC, MOFFS, SIZED),
	[0xa2 ... 0xa3] = ROW(MOV, MOFFS, ACC, SIZED),
	[0xa4 ... 0xa5] = ROW(MOVS, NONE, NONE, SIZED),
	[0xa6 ... 0xa7] = ROW(CMPS, NONE, NONE, SIZED),
	[0xa8 ... 0xa9] = ROWI(TEST, ACC, IMM, Z, SIZED),
	[0xaa ... 0xab] = ROW(STOS, NONE, NONE, SIZED),
	[0xac ... 0xad] = ROW(LODS, NONE, NONE, SIZED),
	[0xae ... 0xaf] = ROW(SCAS, NONE, NONE, SIZED),
	[0xb0 ... 0xb7] = ROWI(MOV, LOW, IMM, 8, BYTE),
	[0xb8 ... 0xbf] = ROWI(MOV, LOW, IMM, V, 0),
	[0xc0 ... 0xc1] = OTHERI(8, MODRM),			/* shifts */
	[0xc2] = OTHERI(16, WIDE),				/* RET */
	[0xc3] = OTHER(WIDE),
	[0xc4 ... 0xc5] = OTHER(MODRM),				/* LES, LDS, VEX */
	[0xc6 ... 0xc7] = ROWI(GROUP_11, RM, IMM, Z, MODRM | SIZED),
	[0xc8] = OTHERI(16_8, WIDE),				/* ENTER */
	[0xc9] = OTHER(WIDE),					/* LEAVE */
	[0xca] = OTHERI(16, 0),					/* RET far */
	[0xcb ... 0xcc] = OTHER(0),				/* RET far, INT3 */
	[0xcd] = OTHERI(8, 0),					/* INT */
	[0xce] = OTHER(NOT64),					/* INTO */
	[0xcf] = OTHER(0),					/* IRET */
	[0xd0 ... 0xd3] = OTHER(MODRM),				/* shifts */
	[0xd4 ... 0xd5] = OTHERI(8, NOT64),			/* AAM, AAD */
	[0xd6] = OTHER(NOT64),					/* SALC */
	[0xd7] = OTHER(0),					/* XLAT */
	[0xd8 ... 0xdf] = OTHER(MODRM),				/* x87 */
	[0xe0 ... 0xe3] = OTHERI(8, WIDE),			/* LOOP, JCXZ */
	[0xe4 ... 0xe5] = ROWI(IN, ACC, IMM, 8, PORT | SIZED),
	[0xe6 ... 0xe7] = ROWI(OUT, ACC, IMM, 8, PORT | SIZED),
	[0xe8 ... 0xe9] = OTHERI(Z, WIDE),			/* CALL, JMP */
	[0xea] = OTHERI(FAR, NOT64),				/* JMP far */
	[0xeb] = OTHERI(8, WIDE),				/* JMP */
	[0xec ... 0xed] = ROW(IN, ACC, NONE, PORT | SIZED),
	[0xee ... 0xef] = ROW(OUT, ACC, NONE, PORT | SIZED),
	[0xf1] = OTHER(0),					/* ICEBP */
	[0xf4 ... 0xf5] = OTHER(0),				/* HLT, CMC */
	[0xf6 ... 0xf7] = ROWI(GROUP_3, RM, NONE, GROUP3, MODRM | SIZED),
	[0xf8 ... 0xfd] = OTHER(0),				/* CLC to STD */
	[0xfe] = ROW(GROUP_4, RM, NONE, MODRM | BYTE),
	[0xff] = ROW(GROUP_5, RM, NONE, MODRM),
};

static const u32 two_byte[256] = {
	[0x00 ... 0x03] = OTHER(MODRM),				/* LLDT, LGDT, VMRUN, LAR ... */
	[0x05 ... 0x09] = OTHER(0),				/* SYSCALL, CLTS, INVD ... */
	[0x0d] = OTHER(MODRM),					/* PREFETCH */
	[0x0e] = OTHER(0),					/* FEMMS */
	[0x0f] = OTHERI(8, MODRM),				/* 3DNow! */
	[0x10 ... 0x1f] = OTHER(MODRM),				/* SSE, hints, NOP */
	[0x20] = ROW(MOV_CR, NONE, NONE, MODRM | REGISTER),
	[0x21] = ROW(MOV_DR, NONE, NONE, MODRM | REGISTER),
	[0x22] = ROW(MOV_CR, NONE, NONE, MODRM | REGISTER),
	[0x23] = ROW(MOV_DR, NONE, NONE, MODRM | REGISTER),
	[0x28 ... 0x2f] = OTHER(MODRM),				/* SSE */
	[0x30 ... 0x35] = OTHER(0),				/* WRMSR, RDTSC, RDMSR, RDPMC ... */
	[0x37] = OTHER(0),					/* GETSEC */
	[0x40 ... 0x4f] = ROW(CMOVCC, REG, RM, MODRM),
	[0x50 ... 0x6f] = OTHER(MODRM),				/* SSE */
	[0x70 ... 0x73] = OTHERI(8, MODRM),
	[0x74 ... 0x76] = OTHER(MODRM),
	[0x77] = OTHER(0),					/* EMMS */
	[0x78 ... 0x7b] = ROW(UNKNOWN, NONE, NONE, 0),
	[0x7c ... 0x7f] = OTHER(MODRM),				/* SSE */
	[0x80 ... 0x8f] = OTHERI(Z, WIDE),			/* Jcc */
	[0x90 ... 0x9f] = ROW(SETCC, RM, NONE, MODRM | BYTE),
	[0xa0 ... 0xa2] = OTHER(0),				/* PUSH, POP, CPUID */
	[0xa3] = ROW(BT, RM, REG, MODRM),
	[0xa4] = OTHERI(8, MODRM),				/* SHLD */
	[0xa5] = OTHER(MODRM),
	[0xa6 ... 0xa7] = ROW(UNKNOWN, NONE, NONE, 0),
	[0xa8 ... 0xaa] = OTHER(0),				/* PUSH, POP, RSM */
	[0xab] = ROW(BTS, RM, REG, MODRM),
	[0xac] = OTHERI(8, MODRM),				/* SHRD */
	[0xad ... 0xaf] = OTHER(MODRM),				/* SHRD, FXSAVE, IMUL ... */
	[0xb0 ... 0xb1] = ROW(CMPXCHG, RM, REG, MODRM | SIZED),
	[0xb2] = OTHER(MODRM | MEMORY),				/* LSS */
	[0xb3] = ROW(BTR, RM, REG, MODRM),
	[0xb4 ... 0xb5] = OTHER(MODRM | MEMORY),		/* LFS, LGS */
	[0xb6] = ROW(MOVZX, REG, RM, MODRM | SOURCE8),
	[0xb7] = ROW(MOVZX, REG, RM, MODRM | SOURCE16),
	[0xb8] = OTHER(MODRM),					/* POPCNT */
	[0xba] = ROWI(GROUP_8, RM, IMM, 8, MODRM),
	[0xbb] = ROW(BTC, RM, REG, MODRM),
	[0xbc ... 0xbd] = OTHER(MODRM),				/* BSF, BSR, TZCNT, LZCNT */
	[0xbe] = ROW(MOVSX, REG, RM, MODRM | SOURCE8),
	[0xbf] = ROW(MOVSX, REG, RM, MODRM | SOURCE16),
	[0xc0 ... 0xc1] = ROW(XADD, RM, REG, MODRM | SIZED),
	[0xc2] = OTHERI(8, MODRM),				/* SSE */
	[0xc3] = ROW(MOV, RM, REG, MODRM | MEMORY | PLAIN),	/* MOVNTI */
	[0xc4 ... 0xc6] = OTHERI(8, MODRM),
	[0xc7] = ROW(GROUP_9, RM, NONE, MODRM),
	[0xc8 ... 0xcf] = OTHER(0),				/* BSWAP */
	[0xd0 ... 0xfe] = OTHER(MODRM),				/* SSE */
};

static const u32 movbe[2] = {
	ROW(MOVBE, REG, RM, MODRM | MEMORY),
	ROW(MOVBE, RM, REG, MODRM | MEMORY),
};

static const u8 groups[INSN_UNKNOWN - INSN_GROUP_1][8] = {
	[INSN_GROUP_1 - INSN_GROUP_1] = { INSN_ADD, INSN_OR, INSN_ADC, INSN_SBB,
					  INSN_AND, INSN_SUB, INSN_XOR, INSN_CMP },
	/* What is not POP is XOP on some CPUs. */
	[INSN_GROUP_1A - INSN_GROUP_1] = { INSN_POP, [1 ... 7] = INSN_UNKNOWN },
	[INSN_GROUP_3 - INSN_GROUP_1] = { INSN_TEST, INSN_TEST, INSN_NOT, INSN_NEG,
					  [4 ... 7] = INSN_OTHER },		/* MUL, DIV */
	[INSN_GROUP_4 - INSN_GROUP_1] = { INSN_INC, INSN_DEC },
	[INSN_GROUP_5 - INSN_GROUP_1] = { INSN_INC, INSN_DEC,
					  [2 ... 5] = INSN_OTHER, INSN_PUSH },	/* CALL, JMP */
	[INSN_GROUP_8 - INSN_GROUP_1] = { [4] = INSN_BT, INSN_BTS, INSN_BTR, INSN_BTC },
	[INSN_GROUP_9 - INSN_GROUP_1] = { [1] = INSN_CMPXCHG8B, [3 ... 7] = INSN_OTHER },
	[INSN_GROUP_11 - INSN_GROUP_1] = { INSN_MOV, [7] = INSN_OTHER },	/* XABORT, XBEGIN */
};

#define BIT_OF(op)	BIT_ULL(INSN_##op)

static const u64 lockable = BIT_OF(ADD) | BIT_OF(OR) | BIT_OF(ADC) | BIT_OF(SBB) | BIT_OF(AND) |
			    BIT_OF(SUB) | BIT_OF(XOR) | BIT_OF(NOT) | BIT_OF(NEG) | BIT_OF(INC) |
			    BIT_OF(DEC) | BIT_OF(XCHG) | BIT_OF(XADD) | BIT_OF(CMPXCHG) |
			    BIT_OF(CMPXCHG8B) | BIT_OF(BTS) | BIT_OF(BTR) | BIT_OF(BTC);

/* The bytes not yet decoded. */
struct bytes {
	const u8 *next;
	const u8 *end;
};

static int byte_take(struct bytes *bytes, u8 *ret_byte)
{
	if (bytes->next == bytes->end)
		return -ENODATA;
	*ret_byte = *bytes->next++;
	return 0;
}

/* Of 1 to 8 bytes, sign-extended. */
static int number_take(struct bytes *bytes, unsigned int size, u64 *ret_number)
{
	u64 number = 0;

	if (bytes->end - bytes->next < size)
		return -ENODATA;
	memcpy(&number, bytes->next, size);
	bytes->next += size;
	*ret_number = sign_extend64(number, 8 * size - 1);
	return 0;
}

/* Prefixes */

static void segment_prefix(struct moat_insn *insn, u8 seg)
{
	if (insn->mode == INSN_64 && seg < INSN_FS)
		return;
	insn->prefixes |= INSN_SEGMENT;
	insn->seg = seg;
}

static bool prefix_decode(struct moat_insn *insn, u8 byte)
{
	switch (byte) {
	case 0x26: case 0x2e: case 0x36: case 0x3e:
		segment_prefix(insn, (byte >> 3) & 3);
		return true;
	case 0x64: case 0x65:
		segment_prefix(insn, INSN_FS + (byte & 1));
		return true;
	case 0x66:
		insn->prefixes |= INSN_OPSIZE;
		return true;
	case 0x67:
		insn->prefixes |= INSN_ADDRSIZE;
		return true;
	case 0xf0:
		insn->prefixes |= INSN_LOCK;
		return true;
	/* Of these two the last one counts. */
	case 0xf2:
		insn->prefixes = (insn->prefixes & ~INSN_REP) | INSN_REPNE;
		return true;
	case 0xf3:
		insn->prefixes = (insn->prefixes & ~INSN_REPNE) | INSN_REP;
		return true;
	default:
		return false;
	}
}

/* All prefixes, and the first byte of the opcode. A REX that is not the last prefix is void. */
static int prefixes_decode(struct moat_insn *insn, struct bytes *bytes)
{
	u8 byte;

	for (;;) {
		if (byte_take(bytes, &byte))
			return -ENODATA;
		if (insn->mode == INSN_64 && (byte & 0xf0) == 0x40) {
			insn->rex = byte;
		} else if (prefix_decode(insn, byte)) {
			insn->rex = 0;
		} else {
			insn->opcode = byte;
			return 0;
		}
	}
}

/* Opcode */

static int opcode_decode(struct moat_insn *insn, struct bytes *bytes)
{
	int r;

	if (insn->opcode != 0x0f)
		return 0;
	insn->map = 1;
	r = byte_take(bytes, &insn->opcode);
	if (r || (insn->opcode != 0x38 && insn->opcode != 0x3a))
		return r;
	insn->map = insn->opcode == 0x38 ? 2 : 3;
	return byte_take(bytes, &insn->opcode);
}

static u32 row_find(const struct moat_insn *insn)
{
	u8 opcode = insn->opcode;

	switch (insn->map) {
	case 3:
		return OTHERI(8, MODRM);
	case 2:
		/* Regular, but for MOVBE, whose place is CRC32's with F2. */
		if ((opcode & 0xfe) == 0xf0 && !(insn->prefixes & (INSN_REP | INSN_REPNE)))
			return movbe[opcode & 1];
		return OTHER(MODRM);
	case 1:
		return two_byte[opcode];
	}
	if (opcode < 0x40)
		return alu[opcode & 7] + ((opcode & 7) < 6 ? INSN_ADD + (opcode >> 3) : 0);
	if (opcode == 0x63 && insn->mode != INSN_64)
		return OTHER(MODRM);				/* ARPL */
	return one_byte[opcode];
}

static void sizes_decode(struct moat_insn *insn, u32 row)
{
	bool other = insn->prefixes & INSN_ADDRSIZE;

	if (insn->mode == INSN_64)
		insn->address_size = other ? 4 : 8;
	else
		insn->address_size = other ? 6 - insn->mode : insn->mode;

	other = insn->prefixes & INSN_OPSIZE;
	if (row & BYTE || (row & SIZED && !(insn->opcode & 1)))
		insn->operand_size = 1;
	else if (insn->mode != INSN_64)
		insn->operand_size = other ? 6 - insn->mode : insn->mode;
	else if ((insn->rex & 8) && !(row & PORT))
		insn->operand_size = 8;
	else if (other && !(insn->rex & 8))
		insn->operand_size = 2;
	else
		insn->operand_size = row & WIDE ? 8 : 4;
}

/* ModRM */

static void default_segment(struct moat_insn *insn, u8 base)
{
	if (!(insn->prefixes & INSN_SEGMENT) && (base == 4 || base == 5))
		insn->seg = INSN_SS;
}

static int memory_decode_16(struct moat_insn *insn, struct bytes *bytes)
{
	/* BX, BP, SI, DI by their numbers. */
	static const u8 bases[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };
	static const u8 indexes[8] = { 6, 7, 6, 7, [4 ... 7] = INSN_NO_REG };
	u8 mod = insn->modrm >> 6, rm = insn->modrm & 7;

	if (!mod && rm == 6)
		return number_take(bytes, 2, &insn->disp);
	insn->base = bases[rm];
	insn->index = indexes[rm];
	default_segment(insn, insn->base);
	return mod ? number_take(bytes, mod, &insn->disp) : 0;
}

static int sib_decode(struct moat_insn *insn, struct bytes *bytes, u8 *ret_base)
{
	u8 sib, index;

	if (byte_take(bytes, &sib))
		return -ENODATA;
	index = ((sib >> 3) & 7) | (insn->rex & 2) << 2;
	if (index != 4)
		insn->index = index;
	insn->shift = sib >> 6;
	*ret_base = sib & 7;
	return 0;
}

static int memory_decode_32(struct moat_insn *insn, struct bytes *bytes)
{
	u8 mod = insn->modrm >> 6, base = insn->modrm & 7;
	bool sib = base == 4;

	if (sib && sib_decode(insn, bytes, &base))
		return -ENODATA;
	if (mod || base != 5) {
		insn->base = base | (insn->rex & 1) << 3;
		default_segment(insn, insn->base);
	} else if (!sib && insn->mode == INSN_64) {
		insn->base = INSN_RIP;
	}
	if (mod == 1)
		return number_take(bytes, 1, &insn->disp);
	if (mod == 2 || (!mod && base == 5))
		return number_take(bytes, 4, &insn->disp);
	return 0;
}

static bool has_memory(const struct moat_insn *insn, u32 row)
{
	return (row & MODRM) && insn->modrm < 0xc0 && !(row & REGISTER);
}

static int modrm_decode(struct moat_insn *insn, struct bytes *bytes, u32 row)
{
	if (!(row & MODRM))
		return 0;
	if (byte_take(bytes, &insn->modrm))
		return -ENODATA;
	insn->reg = ((insn->modrm >> 3) & 7) | (insn->rex & 4) << 1;
	insn->rm = (insn->modrm & 7) | (insn->rex & 1) << 3;
	if (!has_memory(insn, row))
		return row & MEMORY ? -EINVAL : 0;
	return insn->address_size == 2 ? memory_decode_16(insn, bytes) :
					 memory_decode_32(insn, bytes);
}

/* C4, C5 and 62 are prefixes in 64-bit mode, and in others where ModRM would be for a register. */
static bool is_vex(const struct moat_insn *insn, const struct bytes *bytes)
{
	u8 opcode = insn->opcode;

	if (insn->map || (opcode != 0xc4 && opcode != 0xc5 && opcode != 0x62))
		return false;
	return insn->mode == INSN_64 || (bytes->next < bytes->end && *bytes->next >= 0xc0);
}

/* Operation, immediate, operands */

static unsigned int imm_size(const struct moat_insn *insn, u32 row)
{
	unsigned int z = insn->operand_size == 8 ? 4 : insn->operand_size;

	switch ((row >> 16) & 15) {
	case IMM_8:
		return 1;
	case IMM_16:
		return 2;
	case IMM_Z:
		return z;
	case IMM_V:
		return insn->operand_size;
	case IMM_16_8:
		return 3;
	case IMM_FAR:
		return z + 2;
	case IMM_GROUP3:
		return insn->op == INSN_TEST ? z : 0;
	default:
		return 0;
	}
}

static int operand_decode(struct moat_insn *insn, struct bytes *bytes, u32 row, u8 slot,
			  struct moat_operand *operand)
{
	operand->kind = OPERAND_REG;
	operand->size = insn->operand_size;
	switch (slot) {
	case AT_RM:
		if (has_memory(insn, row))
			operand->kind = OPERAND_MEM;
		operand->reg = insn->rm;
		return 0;
	case AT_REG:
		operand->reg = insn->reg;
		return 0;
	case AT_LOW:
		operand->reg = (insn->opcode & 7) | (insn->rex & 1) << 3;
		return 0;
	case AT_ACC:
		return 0;
	case AT_IMM:
		operand->kind = OPERAND_IMM;
		return 0;
	case AT_MOFFS:
		operand->kind = OPERAND_MEM;
		return number_take(bytes, insn->address_size, &insn->disp);
	default:
		operand->kind = OPERAND_NONE;
		return 0;
	}
}

static int operands_decode(struct moat_insn *insn, struct bytes *bytes, u32 row)
{
	int r;

	/* The only WIDE one of its group that is emulated. */
	if (insn->op == INSN_PUSH && insn->mode == INSN_64 && insn->operand_size == 4)
		insn->operand_size = 8;
	r = operand_decode(insn, bytes, row, (row >> 8) & 15, &insn->dst);
	if (!r)
		r = operand_decode(insn, bytes, row, (row >> 12) & 15, &insn->src);
	if (row & SOURCE8)
		insn->src.size = 1;
	else if (row & SOURCE16)
		insn->src.size = 2;
	else if (row & SOURCE32)
		insn->src.size = insn->operand_size == 2 ? 2 : 4;
	if ((row & 0xff) == INSN_GROUP_3 && insn->op == INSN_TEST)
		insn->src.kind = OPERAND_IMM;
	return r;
}

static int insn_check(const struct moat_insn *insn, u32 row)
{
	if (insn->op == INSN_UNDEFINED || (insn->mode == INSN_64 && (row & NOT64)))
		return -EINVAL;
	if (insn->op == INSN_UNKNOWN)
		return -EOPNOTSUPP;
	if (insn->op == INSN_CMPXCHG8B && insn->dst.kind != OPERAND_MEM)
		return -EINVAL;
	if (row & PLAIN && insn->prefixes & (INSN_OPSIZE | INSN_REP | INSN_REPNE))
		return -EINVAL;
	/* LOCK on a move of CR0 is AMD's way to CR8. */
	if (insn->prefixes & INSN_LOCK && insn->op != INSN_MOV_CR &&
	    (!(lockable & BIT_ULL(insn->op)) || insn->dst.kind != OPERAND_MEM))
		return -EINVAL;
	return 0;
}

static int insn_parse(struct moat_insn *insn, struct bytes *bytes)
{
	unsigned int size;
	u32 row;
	int r;

	r = prefixes_decode(insn, bytes);
	if (!r)
		r = opcode_decode(insn, bytes);
	if (r)
		return r;
	if (is_vex(insn, bytes))
		return -EOPNOTSUPP;
	row = row_find(insn);
	sizes_decode(insn, row);
	r = modrm_decode(insn, bytes, row);
	if (r)
		return r;
	insn->op = row & 0xff;
	if (insn->op >= INSN_GROUP_1 && insn->op < INSN_UNKNOWN)
		insn->op = groups[insn->op - INSN_GROUP_1][(insn->modrm >> 3) & 7];
	r = operands_decode(insn, bytes, row);
	size = imm_size(insn, row);
	if (!r && size)
		r = number_take(bytes, size, &insn->imm);
	return r ?: insn_check(insn, row);
}

int moat_insn_decode(struct moat_insn *insn, const u8 *bytes, unsigned int len,
		     enum moat_insn_mode mode)
{
	struct bytes rest = {
		.next = bytes,
		.end = bytes + (len < MOAT_INSN_MAX ? len : MOAT_INSN_MAX),
	};
	int r;

	*insn = (struct moat_insn) {
		.mode = mode, .seg = INSN_DS, .base = INSN_NO_REG, .index = INSN_NO_REG,
	};
	r = insn_parse(insn, &rest);
	insn->length = rest.next - bytes;
	if (r == -ENODATA && len >= MOAT_INSN_MAX)
		return -E2BIG;
	return r;
}
