// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The emulator against the CPU: random instructions of all forms that it executes, with random
 * prefixes, addressing, registers and memory, are executed by both; registers, flags and memory
 * must come out alike.
 */
#include <stdlib.h>
#include <string.h>

#include "module/x86/emulate.h"
#include "module/x86/walk.h"
#include "selftests/unit/emulate_native.h"
#include "selftests/unit/unit.h"

#define ARENA		0x10000		/* bytes of memory; operands are round its middle */
#define ROUNDS		4000		/* of each form */

#define FLAGS		0x8d5		/* OF SF ZF AF PF CF */
#define FLAG_DF		0x400
#define FLAGS_FIXED	0x202

enum { AX, CX, DX, BX, SP, BP, SI, DI };

/* What is special about a form. */
#define BYTE		0x001
#define LOCKABLE	0x002
#define MEMORY		0x004		/* no register for it */
#define IMM8		0x008
#define IMMZ		0x010
#define BITS		0x020		/* the register is a bit's number */
#define ACC		0x040		/* compares with RAX: make it equal now and then */
#define PAIR		0x080		/* the same, RDX:RAX */
#define STACK		0x100
#define STRING		0x200
#define PLAIN		0x400		/* no 66, no REP */
#define MOFFS		0x800
#define NO_REX_W	0x1000

struct form {
	const char *name;
	u8 map;
	u8 opcode;
	s8 ext;				/* reg field of ModRM; -1: a register */
	u32 flags;
};

#define ALU(n, name, lock)								\
	{ name, 0, 8 * (n), -1, BYTE | (lock) }, { name, 0, 8 * (n) + 1, -1, lock },	\
	{ name, 0, 8 * (n) + 2, -1, BYTE }, { name, 0, 8 * (n) + 3, -1, 0 },		\
	{ name, 0, 0x80, n, BYTE | IMM8 | (lock) }, { name, 0, 0x81, n, IMMZ | (lock) },	\
	{ name, 0, 0x83, n, IMM8 | (lock) }
#define PAIR_OF(name, opcode, ext, flags)						\
	{ name, 0, opcode, ext, BYTE | (flags) }, { name, 0, (opcode) + 1, ext, flags }
#define STRINGS(name, opcode)								\
	{ name, 0, opcode, 0, STRING | BYTE }, { name, 0, (opcode) + 1, 0, STRING }

static const struct form forms[] = {
	ALU(0, "add", LOCKABLE), ALU(1, "or", LOCKABLE), ALU(2, "adc", LOCKABLE),
	ALU(3, "sbb", LOCKABLE), ALU(4, "and", LOCKABLE), ALU(5, "sub", LOCKABLE),
	ALU(6, "xor", LOCKABLE), ALU(7, "cmp", 0),
	PAIR_OF("test", 0x84, -1, 0), PAIR_OF("xchg", 0x86, -1, LOCKABLE),
	PAIR_OF("mov", 0x88, -1, 0), PAIR_OF("mov", 0x8a, -1, 0),
	PAIR_OF("mov moffs", 0xa0, 0, MOFFS), PAIR_OF("mov moffs", 0xa2, 0, MOFFS),
	{ "mov imm", 0, 0xc6, 0, BYTE | IMM8 }, { "mov imm", 0, 0xc7, 0, IMMZ },
	{ "test imm", 0, 0xf6, 0, BYTE | IMM8 }, { "test imm", 0, 0xf7, 1, IMMZ },
	PAIR_OF("not", 0xf6, 2, LOCKABLE), PAIR_OF("neg", 0xf6, 3, LOCKABLE),
	PAIR_OF("inc", 0xfe, 0, LOCKABLE), PAIR_OF("dec", 0xfe, 1, LOCKABLE),
	{ "push", 0, 0xff, 6, STACK }, { "pop", 0, 0x8f, 0, STACK },
	{ "movsxd", 0, 0x63, -1, 0 },
	{ "cmovcc", 1, 0x40, -1, 0 }, { "setcc", 1, 0x90, 0, BYTE },
	{ "bt", 1, 0xa3, -1, BITS }, { "bts", 1, 0xab, -1, BITS | LOCKABLE },
	{ "btr", 1, 0xb3, -1, BITS | LOCKABLE }, { "btc", 1, 0xbb, -1, BITS | LOCKABLE },
	{ "bt imm", 1, 0xba, 4, IMM8 }, { "bts imm", 1, 0xba, 5, IMM8 | LOCKABLE },
	{ "btr imm", 1, 0xba, 6, IMM8 | LOCKABLE }, { "btc imm", 1, 0xba, 7, IMM8 | LOCKABLE },
	{ "cmpxchg", 1, 0xb0, -1, BYTE | ACC | LOCKABLE }, { "cmpxchg", 1, 0xb1, -1, ACC | LOCKABLE },
	{ "cmpxchg8b", 1, 0xc7, 1, PAIR | MEMORY | LOCKABLE | PLAIN },
	{ "movzx", 1, 0xb6, -1, 0 }, { "movzx", 1, 0xb7, -1, 0 },
	{ "movsx", 1, 0xbe, -1, 0 }, { "movsx", 1, 0xbf, -1, 0 },
	{ "xadd", 1, 0xc0, -1, BYTE | LOCKABLE }, { "xadd", 1, 0xc1, -1, LOCKABLE },
	{ "movnti", 1, 0xc3, -1, MEMORY | PLAIN },
	{ "movbe", 2, 0xf0, -1, MEMORY }, { "movbe", 2, 0xf1, -1, MEMORY },
	STRINGS("movs", 0xa4), STRINGS("cmps", 0xa6), STRINGS("stos", 0xaa),
	STRINGS("lods", 0xac), STRINGS("scas", 0xae),
};

static u8 *arena, *code_page;
static u8 pattern[ARENA];

/* An instruction being put together, and the registers that it needs. */
struct sample {
	const struct form *form;
	u8 code[32];
	unsigned int len;
	unsigned int size;		/* of the operand */
	u8 rex;
	struct native_regs regs;
};

static u64 random64(void)
{
	u64 value = (u64)random() << 42 ^ (u64)random() << 21 ^ random();

	/* Often something at the edge. */
	switch (random() % 4) {
	case 0:
		return (u64)((s64)(value << 56) >> 56);
	case 1:
		return 1ull << (value & 63);
	default:
		return value;
	}
}

static bool chance(unsigned int one_in)
{
	return random() % one_in == 0;
}

static void put(struct sample *s, u64 value, unsigned int bytes)
{
	memcpy(s->code + s->len, &value, bytes);
	s->len += bytes;
}

static void put_prefixes(struct sample *s, bool lock)
{
	u32 flags = s->form->flags;

	if (!(flags & PLAIN) && chance(4))
		put(s, 0x66, 1);
	s->size = s->len ? 2 : 4;
	if (lock)
		put(s, 0xf0, 1);
	if (flags & STRING && !chance(3))
		put(s, chance(2) ? 0xf2 : 0xf3, 1);
	if (flags & (MOFFS | STRING) ? chance(2) : !chance(3))
		s->rex = 0x40 | (random() & 15);
	/* Registers are named below. */
	s->rex &= flags & (MOFFS | STRING | STACK) ? ~7 : ~2;
	if (s->rex)
		put(s, s->rex, 1);
	if (flags & BYTE)
		s->size = 1;
	else if (s->rex & 8 || (flags & STACK && s->size == 4))
		s->size = 8;
}

static void put_opcode(struct sample *s)
{
	u8 opcode = s->form->opcode;

	if (s->form->map)
		put(s, 0x0f, 1);
	if (s->form->map == 2)
		put(s, 0x38, 1);
	if (s->form->map == 1 && (opcode == 0x40 || opcode == 0x90))
		opcode |= random() & 15;
	put(s, opcode, 1);
}

static unsigned int imm_size(const struct sample *s)
{
	if (s->form->flags & IMM8)
		return 1;
	if (s->form->flags & IMMZ)
		return s->size == 8 ? 4 : s->size;
	return 0;
}

/* Memory somewhere in the middle of the arena, not always aligned. */
static u64 target_choose(const struct sample *s)
{
	u64 target = (uintptr_t)arena + ARENA / 2 + random() % 256;

	return s->form->flags & PAIR ? target & ~15 : target;
}

/* A register for an address, that nothing else needs: neither RAX, RDX, RSP nor the operand. */
static u8 base_choose(const struct sample *s, u8 reg)
{
	static const u8 low[] = { BX, BP, SI, DI };
	u8 base;

	do {
		base = low[random() % 4] | (s->rex & 1) << 3;
	} while (base == reg);
	return base;
}

static void put_memory(struct sample *s, u8 reg, u64 target)
{
	u8 field = (reg & 7) << 3, base = base_choose(s, reg);
	u64 *gpr = s->regs.gpr, disp = (s64)(s8)random();

	switch (random() % 5) {
	case 0:
		put(s, 0x40 | field | (base & 7), 1);
		put(s, disp, 1);
		gpr[base] = target - disp;
		return;
	case 1:
		disp = random() & 0xffffff;
		put(s, 0x80 | field | (base & 7), 1);
		put(s, disp, 4);
		gpr[base] = target - disp;
		return;
	case 2:				/* base + (RCX << n) + disp8 */
		put(s, 0x44 | field, 1);
		put(s, (random() & 3) << 6 | CX << 3 | (base & 7), 1);
		put(s, disp, 1);
		gpr[base] = target - disp - (gpr[CX] << (s->code[s->len - 2] >> 6));
		return;
	case 3:				/* absolute */
		put(s, 0x04 | field, 1);
		put(s, 0x25, 1);
		put(s, target, 4);
		return;
	default:			/* relative to the next instruction */
		put(s, 0x05 | field, 1);
		put(s, target - ((uintptr_t)code_page + s->len + 4 + imm_size(s)), 4);
		return;
	}
}

static void put_operands(struct sample *s, bool memory, u64 target)
{
	u8 reg = s->form->ext < 0 ? random() & 7 : s->form->ext;
	u8 number = reg | (s->form->ext < 0 ? (s->rex & 4) << 1 : 0);

	/* As a bit's number it must not lead out of the arena, nor be what the index is. */
	if (s->form->flags & BITS) {
		if (number == CX && memory)
			number = reg = AX;
		s->rex &= number < 8 ? ~4 : ~0;
		s->regs.gpr[number] = random() % 0x8000 - 0x4000;
	}
	if (memory)
		put_memory(s, number, target);
	else
		put(s, 0xc0 | reg << 3 | (random() & 7), 1);
}

static void string_registers(struct sample *s)
{
	s->regs.gpr[SI] = target_choose(s);
	s->regs.gpr[DI] = target_choose(s) + 512;
	s->regs.gpr[CX] = random() % 6;
	/* Something to compare that is the same for a while. */
	if (chance(2)) {
		memset(arena + ARENA / 2 - 256, chance(2) ? 0 : random(), 1024);
		s->regs.gpr[AX] = chance(2) ? 0 : random64();
		arena[ARENA / 2 + random() % 512] = 1;
	}
}

static void sample_make(struct sample *s, const struct form *form)
{
	u32 flags = form->flags;
	bool memory = flags & MEMORY || !chance(4);
	u64 target;
	size_t i;

	*s = (struct sample) { .form = form };
	for (i = 0; i < 16; i++)
		s->regs.gpr[i] = random64();
	s->regs.rflags = FLAGS_FIXED | (random() & FLAGS);
	put_prefixes(s, memory && flags & LOCKABLE && chance(3));
	put_opcode(s);
	target = target_choose(s);
	if (flags & STRING) {
		s->regs.rflags |= random() & FLAG_DF;
		string_registers(s);
	} else if (flags & MOFFS) {
		put(s, target, 8);
	} else {
		put_operands(s, memory, target);
		put(s, random64(), imm_size(s));
	}
	if (flags & STACK)
		s->regs.gpr[SP] = target_choose(s) + 256;
	if (flags & (ACC | PAIR) && memory && chance(2)) {
		memcpy(&s->regs.gpr[AX], (void *)target, 8);
		memcpy(&s->regs.gpr[DX], (u8 *)target + (flags & PAIR && s->size != 8 ? 4 : 8), 8);
	}
}

/* The emulator's world: the arena, by its own addresses. */

static bool arena_has(u64 linear, unsigned int len, u32 access)
{
	return EXPECT(access & WALK_USER) && EXPECT(linear >= (uintptr_t)arena) &&
	       EXPECT(linear + len <= (uintptr_t)arena + ARENA);
}

static int arena_access(void *ctx, u64 linear, void *data, unsigned int len, u32 access,
			bool write)
{
	(void)ctx;
	if (!arena_has(linear, len, access) || (write && !EXPECT(access & WALK_WRITE)))
		return -EIO;
	if (write)
		memcpy((void *)linear, data, len);
	else
		memcpy(data, (void *)linear, len);
	return 0;
}

static unsigned int exchanges;

static int arena_cmpxchg(void *ctx, u64 linear, const void *old, const void *new, unsigned int len,
			 u32 access)
{
	exchanges++;
	if (!arena_has(linear, len, access) || !EXPECT(!memcmp((void *)linear, old, len)))
		return -EIO;
	return arena_access(ctx, linear, (void *)new, len, access, true);
}

static const struct emu_ops arena_ops = {
	.access = arena_access, .cmpxchg = arena_cmpxchg,
};

static bool sample_emulate(const struct sample *s, struct native_regs *regs)
{
	static const struct kvm_sregs sregs = {
		.cr0 = 0x80000001, .cr4 = 0x20, .efer = 0xd00, .cs.l = 1,
	};
	struct emu_state state = {
		.regs.rip = (uintptr_t)code_page, .regs.rflags = regs->rflags,
		.sregs = &sregs, .cpl = 3, .ops = &arena_ops,
	};
	enum emu_result result;
	struct moat_insn insn;

	memcpy(state.regs.gpr, regs->gpr, sizeof(regs->gpr));
	if (!EXPECT(!moat_insn_decode(&insn, s->code, s->len, INSN_64)) ||
	    !EXPECT(insn.length == s->len))
		return false;
	do {
		result = emu_execute(&state, &insn);
	} while (result == EMU_REPEAT);
	memcpy(regs->gpr, state.regs.gpr, sizeof(regs->gpr));
	regs->rflags = state.regs.rflags;
	return EXPECT(result == EMU_OK) &&
	       EXPECT(state.regs.rip == (uintptr_t)code_page + s->len);
}

static void sample_print(const struct sample *s, const struct native_regs *want,
			 const struct native_regs *got)
{
	unsigned int i;

	printf("# %s:", s->form->name);
	for (i = 0; i < s->len; i++)
		printf(" %02x", s->code[i]);
	printf("\n");
	for (i = 0; i < 16; i++)
		if (want->gpr[i] != got->gpr[i])
			printf("# register %u: was %#llx, CPU %#llx, emulator %#llx\n", i,
			       s->regs.gpr[i], want->gpr[i], got->gpr[i]);
	if (want->rflags != got->rflags)
		printf("# flags: were %#llx, CPU %#llx, emulator %#llx\n", s->regs.rflags,
		       want->rflags, got->rflags);
}

static bool sample_agrees(const struct form *form)
{
	static u8 before[ARENA], after[ARENA];
	struct native_regs cpu, emulated;
	struct sample s;
	bool good;

	memcpy(arena, pattern, ARENA);
	sample_make(&s, form);
	memcpy(before, arena, ARENA);
	cpu = s.regs;
	emulated = s.regs;
	native_run(code_page, s.code, s.len, &cpu);
	memcpy(after, arena, ARENA);
	memcpy(arena, before, ARENA);
	good = sample_emulate(&s, &emulated) && EXPECT(!memcmp(&cpu, &emulated, sizeof(cpu))) &&
	       EXPECT(!memcmp(after, arena, ARENA));
	if (!good)
		sample_print(&s, &cpu, &emulated);
	return good;
}

static void cpu_agrees(void)
{
	size_t i, n;

	srandom(2);
	arena = native_alloc(ARENA, false);
	code_page = native_alloc(4096, true);
	if (!EXPECT(arena) || !EXPECT(code_page))
		return;
	for (i = 0; i < ARENA; i++)
		pattern[i] = random() >> 7;
	for (i = 0; i < ARRAY_SIZE(forms); i++)
		for (n = 0; n < ROUNDS; n++)
			if (!sample_agrees(&forms[i]))
				break;
	EXPECT(exchanges > ROUNDS);
}

static const struct unit_test tests[] = {
	{ "the CPU agrees", cpu_agrees },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
