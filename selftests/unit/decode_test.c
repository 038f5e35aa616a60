// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The decoder: lengths and operations against the assembler's, fields by hand, what is undefined or
 * cut short, and random bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/decode_table.h"
#include "selftests/unit/unit.h"

#define FUZZ_ROUNDS	2000000

/* Of hexadecimal digits; the number of bytes. */
static unsigned int hex_parse(const char *hex, u8 *bytes)
{
	unsigned int n = 0, byte;

	for (; n < MOAT_INSN_MAX + 1 && sscanf(hex, " %2x", &byte) == 1; n++) {
		bytes[n] = byte;
		hex += strspn(hex, " ") + 2;
	}
	return n;
}

/* A copy of exactly len bytes, so that the sanitizer sees what reads beyond. */
static int decode_exactly(struct moat_insn *insn, const u8 *bytes, unsigned int len,
			  enum moat_insn_mode mode)
{
	u8 *copy = malloc(len ? len : 1);
	int r;

	memcpy(copy, bytes, len);
	r = moat_insn_decode(insn, copy, len, mode);
	free(copy);
	return r;
}

static int decode_hex(struct moat_insn *insn, enum moat_insn_mode mode, const char *hex)
{
	u8 bytes[MOAT_INSN_MAX + 1];

	return decode_exactly(insn, bytes, hex_parse(hex, bytes), mode);
}

static void row_check(size_t i)
{
	u8 bytes[MOAT_INSN_MAX + 1 + 8];
	unsigned int len = hex_parse(decode_table[i].hex, bytes), cut;
	enum moat_insn_mode mode = decode_table[i].mode;
	struct moat_insn insn;
	bool good;

	memset(bytes + len, 0xcc, 8);
	good = EXPECT(!decode_exactly(&insn, bytes, len, mode)) && EXPECT(insn.length == len) &&
	       EXPECT(insn.op == decode_table[i].op) &&
	       EXPECT(!decode_exactly(&insn, bytes, len + 8, mode)) && EXPECT(insn.length == len);
	for (cut = 0; cut < len; cut++)
		good = EXPECT(decode_exactly(&insn, bytes, cut, mode) == -ENODATA) && good;
	if (!good)
		printf("# %d-bit %s\n", 8 * mode, decode_table[i].text);
}

static void assembler_agrees(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(decode_table); i++)
		row_check(i);
}

static void memory_check(enum moat_insn_mode mode, const char *hex, struct moat_insn want)
{
	struct moat_insn insn;

	if (!EXPECT(!decode_hex(&insn, mode, hex)) || !EXPECT(insn.op == INSN_MOV) ||
	    !EXPECT(insn.dst.kind == OPERAND_REG) || !EXPECT(insn.src.kind == OPERAND_MEM) ||
	    !EXPECT(insn.operand_size == want.operand_size) ||
	    !EXPECT(insn.address_size == want.address_size) || !EXPECT(insn.seg == want.seg) ||
	    !EXPECT(insn.base == want.base) || !EXPECT(insn.index == want.index) ||
	    !EXPECT(insn.shift == want.shift) || !EXPECT(insn.disp == want.disp))
		printf("# %d-bit %s\n", 8 * mode, hex);
}

#define MEMORY(bits, hex, size, width, seg_, base_, index_, shift_, disp_)			\
	memory_check(INSN_##bits, hex, (struct moat_insn){					\
		.operand_size = size, .address_size = width, .seg = INSN_##seg_, .base = base_,	\
		.index = index_, .shift = shift_, .disp = (u64)(disp_) })

static void addressing(void)
{
	const u8 no = INSN_NO_REG;

	MEMORY(64, "8b03", 4, 8, DS, 3, no, 0, 0);
	MEMORY(64, "488b4510", 8, 8, SS, 5, no, 0, 0x10);	/* 0x10(%rbp) */
	MEMORY(64, "668b4410f0", 2, 8, DS, 0, 2, 0, -0x10);	/* -0x10(%rax,%rdx) */
	MEMORY(64, "8a84cc00000080", 1, 8, SS, 4, 1, 3, -0x80000000ll);
	MEMORY(64, "438b04a4", 4, 8, DS, 12, 12, 2, 0);		/* (%r12,%r12,4): an index */
	MEMORY(64, "418b0424", 4, 8, DS, 12, no, 0, 0);
	MEMORY(64, "418b4500", 4, 8, DS, 13, no, 0, 0);
	MEMORY(64, "8b0500010000", 4, 8, DS, INSN_RIP, no, 0, 0x100);
	MEMORY(64, "8b0425f0ffffff", 4, 8, DS, no, no, 0, -16);
	MEMORY(64, "8b04cd10000000", 4, 8, DS, no, 1, 3, 16);
	MEMORY(64, "65678b03", 4, 4, GS, 3, no, 0, 0);
	MEMORY(64, "642e8b03", 4, 8, FS, 3, no, 0, 0);		/* CS after FS does not count */
	MEMORY(64, "368b03", 4, 8, DS, 3, no, 0, 0);
	MEMORY(64, "66488b03", 8, 8, DS, 3, no, 0, 0);		/* REX.W beats 66 */
	MEMORY(64, "48668b03", 2, 8, DS, 3, no, 0, 0);		/* REX not last: void */
	MEMORY(64, "a0f0debc9a78563412", 1, 8, DS, no, no, 0, 0x123456789abcdef0);
	MEMORY(64, "67a178563492", 4, 4, DS, no, no, 0, 0xffffffff92345678);
	MEMORY(32, "8b4510", 4, 4, SS, 5, no, 0, 0x10);
	MEMORY(32, "8b0500010000", 4, 4, DS, no, no, 0, 0x100);
	MEMORY(32, "2e8b04f3", 4, 4, CS, 3, 6, 3, 0);
	MEMORY(32, "67668b42f0", 2, 2, SS, 5, 6, 0, -0x10);	/* -0x10(%bp,%si) */
	MEMORY(32, "a1b000e0fe", 4, 4, DS, no, no, 0, 0xfffffffffee000b0);
	MEMORY(16, "8b00", 2, 2, DS, 3, 6, 0, 0);
	MEMORY(16, "8b01", 2, 2, DS, 3, 7, 0, 0);
	MEMORY(16, "8b02", 2, 2, SS, 5, 6, 0, 0);
	MEMORY(16, "8b03", 2, 2, SS, 5, 7, 0, 0);
	MEMORY(16, "8b04", 2, 2, DS, 6, no, 0, 0);
	MEMORY(16, "8b05", 2, 2, DS, 7, no, 0, 0);
	MEMORY(16, "8b063412", 2, 2, DS, no, no, 0, 0x1234);
	MEMORY(16, "8b07", 2, 2, DS, 3, no, 0, 0);
	MEMORY(16, "268b46fe", 2, 2, ES, 5, no, 0, -2);
	MEMORY(16, "668b863412", 4, 2, SS, 5, no, 0, 0x1234);
	MEMORY(16, "67668b0491", 4, 4, DS, 1, 2, 2, 0);
}

static void operands(void)
{
	struct moat_insn insn;

	EXPECT(!decode_hex(&insn, INSN_64, "6641c70778f6"));	/* movw $-0x988, (%r15) */
	EXPECT(insn.op == INSN_MOV && insn.dst.kind == OPERAND_MEM && insn.base == 15);
	EXPECT(insn.src.kind == OPERAND_IMM && insn.imm == (u64)-0x988 && insn.src.size == 2);
	EXPECT(!decode_hex(&insn, INSN_64, "48c70078563482"));	/* sign-extended to 64 bits */
	EXPECT(insn.imm == 0xffffffff82345678 && insn.dst.size == 8);
	EXPECT(!decode_hex(&insn, INSN_64, "49b8f0debc9a78563412"));
	EXPECT(insn.imm == 0x123456789abcdef0 && insn.dst.reg == 8);
	EXPECT(!decode_hex(&insn, INSN_64, "4c0fb74304"));	/* movzwq 4(%rbx), %r8 */
	EXPECT(insn.op == INSN_MOVZX && insn.dst.reg == 8 && insn.dst.size == 8);
	EXPECT(insn.src.size == 2 && insn.base == 3);
	EXPECT(!decode_hex(&insn, INSN_64, "440f20c1"));	/* mov %cr8, %rcx */
	EXPECT(insn.op == INSN_MOV_CR && insn.reg == 8 && insn.rm == 1 && insn.opcode == 0x20);
	EXPECT(!decode_hex(&insn, INSN_64, "410f22e7"));	/* mov %r15, %cr4 */
	EXPECT(insn.op == INSN_MOV_CR && insn.reg == 4 && insn.rm == 15 && insn.opcode == 0x22);
	EXPECT(!decode_hex(&insn, INSN_32, "0f2204"));		/* mod is ignored: no SIB */
	EXPECT(insn.length == 3 && insn.rm == 4);
	EXPECT(!decode_hex(&insn, INSN_32, "f00f20c0"));	/* AMD's way to CR8 */
	EXPECT(insn.op == INSN_MOV_CR && insn.prefixes == INSN_LOCK);
	EXPECT(!decode_hex(&insn, INSN_64, "f2f36ca4") && insn.prefixes == INSN_REP);
	EXPECT(!decode_hex(&insn, INSN_64, "f3f248a7") && insn.prefixes == INSN_REPNE);
	EXPECT(insn.op == INSN_CMPS && insn.operand_size == 8);
	EXPECT(!decode_hex(&insn, INSN_64, "f3486f") && insn.operand_size == 4);
	EXPECT(!decode_hex(&insn, INSN_64, "e5f0") && insn.dst.size == 4 && (u8)insn.imm == 0xf0);
	EXPECT(!decode_hex(&insn, INSN_64, "ff30") && insn.op == INSN_PUSH && insn.dst.size == 8);
	EXPECT(!decode_hex(&insn, INSN_64, "668f00") && insn.op == INSN_POP && insn.dst.size == 2);
}

static void errors(void)
{
	static const struct {
		u8 mode;
		int error;
		const char *hex;
	} rows[] = {
		{ INSN_64, -EINVAL, "0f0b" },			/* UD2 */
		{ INSN_64, -EINVAL, "0fffc0" },			/* UD0 */
		{ INSN_64, -EINVAL, "0fb9c0" },			/* UD1 */
		{ INSN_64, -EINVAL, "06" },
		{ INSN_64, -EINVAL, "60" },
		{ INSN_64, -EINVAL, "9a000000000000" },
		{ INSN_64, -EINVAL, "821000" },
		{ INSN_64, -EINVAL, "ce" },
		{ INSN_64, -EINVAL, "0f04" },
		{ INSN_64, -EINVAL, "fe38" },
		{ INSN_64, -EINVAL, "fff8" },
		{ INSN_64, -EINVAL, "0fba0001" },
		{ INSN_64, -EINVAL, "0fc7c8" },			/* CMPXCHG8B of a register */
		{ INSN_64, -EINVAL, "0fc3c8" },			/* MOVNTI to a register */
		{ INSN_64, -EINVAL, "660fc308" },
		{ INSN_64, -EINVAL, "0f38f0c8" },		/* MOVBE from a register */
		{ INSN_64, -EINVAL, "8dc0" },			/* LEA of a register */
		{ INSN_64, -EINVAL, "f08903" },			/* LOCK MOV */
		{ INSN_64, -EINVAL, "f001c3" },			/* LOCK with a register */
		{ INSN_64, -EINVAL, "f00303" },			/* LOCK with memory as source */
		{ INSN_64, -EINVAL, "f03903" },			/* LOCK CMP */
		{ INSN_64, -EINVAL, "f00fa303" },		/* LOCK BT */
		{ INSN_64, -EINVAL, "f0a4" },
		{ INSN_64, -EINVAL, "f00fa2" },
		{ INSN_64, -EOPNOTSUPP, "c5f877" },		/* VZEROUPPER */
		{ INSN_64, -EOPNOTSUPP, "c4e279180000" },
		{ INSN_64, -EOPNOTSUPP, "62f17c48100000" },
		{ INSN_64, -EOPNOTSUPP, "8fe878a200" },		/* XOP */
		{ INSN_32, -EOPNOTSUPP, "c5f877" },
		{ INSN_64, -ENODATA, "" },
		{ INSN_64, -ENODATA, "66" },
		{ INSN_64, -ENODATA, "6666666666666666666666666666" },
		{ INSN_64, -E2BIG, "666666666666666666666666666666" },
		{ INSN_64, -E2BIG, "66666666666666666666666666666690" },
		{ INSN_64, -E2BIG, "67676767676767676767c70001000000" },
		{ INSN_64, 0, "666666666666666666666666666690" },
		{ INSN_32, 0, "06" },
		{ INSN_32, 0, "821000" },
		{ INSN_16, 0, "c500" },				/* LDS */
		{ INSN_32, 0, "6200" },				/* BOUND */
	};
	struct moat_insn insn;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++)
		if (!EXPECT(decode_hex(&insn, rows[i].mode, rows[i].hex) == rows[i].error))
			printf("# %d-bit %s\n", 8 * rows[i].mode, rows[i].hex);
}

/* What the emulator relies on. */
static bool insn_is_sound(const struct moat_insn *insn, unsigned int len)
{
	return insn->length >= 1 && insn->length <= len && insn->length <= MOAT_INSN_MAX &&
	       insn->op > INSN_UNDEFINED && insn->op < INSN_NR_OPS && insn->base <= INSN_NO_REG &&
	       (insn->index < 16 || insn->index == INSN_NO_REG) && insn->shift <= 3 &&
	       insn->seg <= INSN_GS && insn->dst.reg < 16 && insn->src.reg < 16 &&
	       insn->reg < 16 && insn->rm < 16 && insn->dst.size <= 8 && insn->src.size <= 8;
}

static bool insn_same(const struct moat_insn *a, const struct moat_insn *b)
{
	return !memcmp(a, b, offsetof(struct moat_insn, src) + sizeof(a->src)) &&
	       a->disp == b->disp && a->imm == b->imm;
}

/* Whatever was decoded must not depend on what follows it. */
static void random_bytes(void)
{
	static const enum moat_insn_mode modes[] = { INSN_16, INSN_32, INSN_64 };
	unsigned int i, n, decoded = 0;
	u8 bytes[MOAT_INSN_MAX + 1];
	struct moat_insn insn, again;
	enum moat_insn_mode mode;
	int r;

	srandom(1);
	for (i = 0; i < FUZZ_ROUNDS; i++) {
		for (n = 0; n < sizeof(bytes); n++)
			bytes[n] = random() >> 7;
		if (i & 1)
			bytes[i >> 1 & 3] = 0x0f;
		mode = modes[i % 3];
		r = moat_insn_decode(&insn, bytes, sizeof(bytes), mode);
		if (!EXPECT(!r || r == -EINVAL || r == -EOPNOTSUPP || r == -E2BIG))
			return;
		if (r)
			continue;
		decoded++;
		if (!EXPECT(insn_is_sound(&insn, sizeof(bytes))) ||
		    !EXPECT(!decode_exactly(&again, bytes, insn.length, mode)) ||
		    !EXPECT(insn_same(&insn, &again)) ||
		    !EXPECT(decode_exactly(&again, bytes, insn.length - 1, mode) == -ENODATA))
			return;
	}
	EXPECT(decoded > FUZZ_ROUNDS / 2);
}

static const struct unit_test tests[] = {
	{ "lengths and operations are the assembler's", assembler_agrees },
	{ "memory operands", addressing },
	{ "other operands", operands },
	{ "undefined, unknown, cut short, too long", errors },
	{ "two million random byte strings", random_bytes },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
