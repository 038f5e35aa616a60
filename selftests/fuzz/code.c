// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Guests that mean harm: random code, and tables to run it with.
 *
 * Code is a sequence of pieces: an instruction from a table with random prefixes and operands, a
 * few instructions that set registers to numbers which matter and then use them (MSRs, ports,
 * control registers, the APIC), jumps, or noise. It ends with a jump to its start. Trap handlers
 * step over a few bytes and return, so that a guest gets on whatever it does; whether the tables
 * that lead to them are any good is random too.
 *
 * What the emulated CPU of the lab does not survive is left out; each such thing has its reason
 * beside it.
 */
#include "fuzz.h"

#define CR0_PG		0x80000000u
#define CR4_PAE		0x20u

/* ---- Tables ---- */

#define TABLE_PML4	AT_TABLES
#define TABLE_PDPT	(AT_TABLES + 0x1000)
#define TABLE_PD	(AT_TABLES + 0x2000)	/* four: 4 GiB of 2 MiB pages */
#define TABLE_PD32	(AT_TABLES + 0x6000)	/* 4 MiB pages */
#define TABLE_PDPT32	(AT_TABLES + 0x7000)	/* PAE's, leads to the same four */
#define TABLE_PT	(AT_TABLES + 0x8000)	/* the first 2 MiB in 4 KiB pages */
#define TABLES_END	(AT_TABLES + 0x9000)

#define PTE_TABLE	0x007
#define PTE_LARGE	0x087

/*
 * A guest that runs through page tables: with an instruction across the end of a page, QEMU's TCG
 * (11.1) waits for itself for ever if the second page's translation has an accessed bit to set in
 * the first, or in a table where such an instruction was translated before. So the last entries of
 * a table are no entries, but so many HLTs.
 */
#define TABLE_STOPS	16
#define OPCODE_HLT	0xf4

static void put(uint8_t *ram, uint64_t at, uint64_t value)
{
	memcpy(ram + at, &value, 8);
}

static void pages_identical(uint8_t *ram)
{
	unsigned int i;
	uint32_t entry;
	uint64_t end;

	memset(ram + AT_TABLES, 0, TABLES_END - AT_TABLES);
	put(ram, TABLE_PML4, TABLE_PDPT | PTE_TABLE);
	put(ram, TABLE_PML4 + 8 * 509, TABLE_PML4 | PTE_TABLE);		/* itself */
	for (i = 0; i < 4; i++) {
		put(ram, TABLE_PDPT + 8 * i, (TABLE_PD + i * PAGE) | PTE_TABLE);
		put(ram, TABLE_PDPT32 + 8 * i, (TABLE_PD + i * PAGE) | 1);
	}
	for (i = 0; i < 4 * 512; i++)
		put(ram, TABLE_PD + 8 * i, ((uint64_t)i << 21) | PTE_LARGE);
	for (i = 0; i < 512; i++)
		put(ram, TABLE_PT + 8 * i, i * PAGE | PTE_TABLE);
	put(ram, TABLE_PD, TABLE_PT | PTE_TABLE);
	for (i = 0; i < 1024; i++) {
		entry = i << 22 | PTE_LARGE;
		memcpy(ram + TABLE_PD32 + 4 * i, &entry, 4);
	}
	for (end = AT_TABLES + PAGE; end <= TABLES_END; end += PAGE)
		memset(ram + end - TABLE_STOPS, OPCODE_HLT, TABLE_STOPS);
}

/* An entry such as no sane guest has: to MMIO, read-only memory, itself, reserved bits. */
static uint64_t entry_strange(struct rng *rng)
{
	static const uint64_t to[] = {
		MMIO_GPA, ROM_GPA, APIC_GPA, TABLE_PML4, TABLE_PD, AT_CODE, CHAOS_GPA,
		RAM_SIZE - PAGE, 1ull << 40, 1ull << 51,
	};
	uint64_t entry = RNG_PICK(rng, to) | (rng_next(rng) & 0xff);

	if (rng_one_in(rng, 3))
		entry |= 1ull << (40 + rng_below(rng, 24));
	return rng_one_in(rng, 8) ? rng_next(rng) : entry | rng_below(rng, 2) * 7;
}

static uint64_t entry_place(struct rng *rng)
{
	uint64_t pages = (TABLES_END - AT_TABLES) / PAGE;

	return AT_TABLES + rng_below(rng, pages) * PAGE +
	       rng_below(rng, (PAGE - TABLE_STOPS) / 8) * 8;
}

static void pages_spoil(struct rng *rng, uint8_t *ram)
{
	uint64_t n = 1 + rng_below(rng, 12);

	while (n--)
		put(ram, entry_place(rng), entry_strange(rng));
}

static void descriptors_write(struct rng *rng, uint8_t *ram)
{
	static const uint64_t gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff,
		0x00008b0000000067 | AT_TSS << 16, 0, 0x00009b000000ffff, 0x000093000000ffff,
		0x00affb000000ffff, 0x00cff3000000ffff,			/* ring 3 */
		0x0000890000000067 | (AT_TSS + 0x400) << 16, 0,		/* another task */
		0x0000850000200000, 0x00008c0000080000 | AT_STUBS,	/* task gate, call gate */
	};
	uint64_t handler;
	unsigned int i;

	memcpy(ram + AT_GDT, gdt, sizeof(gdt));
	for (i = 0; i < 256; i++) {
		handler = AT_STUBS + (i == 8 || (i >= 10 && i <= 14) || i == 17 ? 0x40 : 0);
		put(ram, AT_IDT64 + 16 * i, handler | 0x08ul << 16 | 0x8eull << 40);
		put(ram, AT_IDT64 + 16 * i + 8, 0);
		handler += 0x100;
		put(ram, AT_IDT32 + 8 * i, handler | 0x18ul << 16 | 0x8eull << 40);
		memcpy(ram + 4 * i, &(uint32_t){ AT_STUBS + 0x200 }, 4);	/* real mode's */
	}
	for (i = rng_below(rng, 4); i; i--)
		ram[AT_GDT + rng_below(rng, sizeof(gdt))] ^= 1u << rng_below(rng, 8);
}

/* Handlers: a step of a few bytes, an end of interrupt, and back. */
static void stubs_write(uint8_t *ram)
{
	static const uint8_t stub64[] = {
		0x48, 0x83, 0x04, 0x24, 0x02,			/* add qword [rsp], 2 */
		0x50, 0x31, 0xc0,				/* push rax; xor eax, eax */
		0x67, 0xa3, 0xb0, 0x00, 0xe0, 0xfe,		/* mov [0xfee000b0], eax */
		0x58, 0x48, 0xcf,				/* pop rax; iretq */
	};
	static const uint8_t error64[] = {
		0x48, 0x83, 0xc4, 0x08, 0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf,
	};
	static const uint8_t stub32[] = { 0x83, 0x04, 0x24, 0x02, 0xcf };
	static const uint8_t error32[] = { 0x83, 0xc4, 0x04, 0x83, 0x04, 0x24, 0x02, 0xcf };
	static const uint8_t stub16[] = { 0x55, 0x89, 0xe5, 0x83, 0x46, 0x02, 0x02, 0x5d, 0xcf };

	memcpy(ram + AT_STUBS, stub64, sizeof(stub64));
	memcpy(ram + AT_STUBS + 0x40, error64, sizeof(error64));
	memcpy(ram + AT_STUBS + 0x100, stub32, sizeof(stub32));
	memcpy(ram + AT_STUBS + 0x140, error32, sizeof(error32));
	memcpy(ram + AT_STUBS + 0x200, stub16, sizeof(stub16));
}

/*
 * Long mode enabled, but neither paging nor PAE on: at #VMEXIT QEMU's TCG (11.1) then restores the
 * host's CR0 while CR4 is still the guest's, finds that impossible, and leaves the host with the
 * guest's CR0.
 */
uint64_t efer_tame(uint64_t efer)
{
	return efer & ~EFER_LME;
}

void code_tables(struct rng *rng, uint8_t *ram)
{
	descriptors_write(rng, ram);
	stubs_write(ram);
	pages_identical(ram);
	if (rng_one_in(rng, 2))
		pages_spoil(rng, ram);
	rng_fill(rng, ram + AT_DATA, 2 * PAGE);
}

/* ---- Numbers ---- */

uint64_t guest_number(struct rng *rng)
{
	static const uint64_t places[] = {
		MMIO_GPA, MMIO_GPA, MMIO_GPA + 0xffc, APIC_GPA, APIC_GPA + 0x300, APIC_GPA + 0xb0,
		ROM_GPA, ROM_GPA + 0xff8, AT_DATA, AT_DATA + 0xffd, AT_CODE, AT_TABLES, AT_GDT,
		CHAOS_GPA, CHAOS_GPA + 0x1ffffe, CHAOS_GPA + CHAOS_SIZE - 3, RAM_SIZE - 2,
		0xfec00000, 0xfed00000, 1ull << 32, 0xffffff8000000000,
	};

	if (rng_one_in(rng, 4))
		return rng_number(rng);
	return RNG_PICK(rng, places) + (rng_one_in(rng, 2) ? rng_below(rng, 64) : 0);
}

uint32_t msr_number(struct actor *a)
{
	static const uint32_t more[] = {
		0x10, 0x1b, 0x3a, 0x48, 0x49, 0x8b, 0x9b, 0xce, 0xfe, 0x10a, 0x122, 0x140, 0x174,
		0x175, 0x176, 0x179, 0x17a, 0x17b, 0x186, 0x198, 0x1a0, 0x1d9, 0x200, 0x20f, 0x250,
		0x277, 0x2ff, 0x345, 0x38f, 0x3f1, 0x400, 0x401, 0x405, 0x480, 0x4e0, 0x6e0, 0x802,
		0x808, 0x80b, 0x80f, 0x828, 0x830, 0x832, 0x838, 0x83e, 0x83f, 0x8ff, 0xda0,
		0x40000000, 0x40000001, 0x40000020, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03,
		0x4b564d04, 0x4b564d05, 0x4b564d06, 0x4b564d07, 0x4b564d08, 0xc0000080, 0xc0000081,
		0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
		0xc0000104, 0xc0010000, 0xc0010004, 0xc0010010, 0xc0010015, 0xc0010020, 0xc0010055,
		0xc0010058, 0xc0010112, 0xc0010114, 0xc0010117, 0xc001011f, 0xc0010130, 0xc0010140,
		0xc0010200, 0xc0011022, 0xc0011029, 0xc001102a,
	};
	struct world *w = a->world;

	if (rng_one_in(&a->rng, 16))
		return rng_number(&a->rng);
	if (w->msr_count && rng_one_in(&a->rng, 2))
		return w->msrs[rng_below(&a->rng, w->msr_count)];
	return RNG_PICK(&a->rng, more);
}

/* ---- Code ---- */

struct code {
	struct rng *rng;
	uint8_t *start, *next, *end;
	unsigned int bits;	/* 16, 32, 64 */
};

static void emit(struct code *c, const void *bytes, size_t n)
{
	if (c->next + n <= c->end) {
		memcpy(c->next, bytes, n);
		c->next += n;
	}
}

#define EMIT(c, ...) \
	emit(c, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void emit_number(struct code *c, uint64_t value, size_t n)
{
	emit(c, &value, n);
}

/* A general register, RSP rarely: what follows needs a stack. */
static unsigned int reg_pick(struct code *c)
{
	unsigned int reg = rng_below(c->rng, 8);

	return reg == 4 && !rng_one_in(c->rng, 16) ? 3 : reg;
}

static void emit_load(struct code *c, unsigned int reg, uint64_t value)
{
	if (c->bits == 64) {
		EMIT(c, 0x48, 0xb8 + reg);
		emit_number(c, value, 8);
	} else {
		if (c->bits == 16)
			EMIT(c, 0x66);
		EMIT(c, 0xb8 + reg);
		emit_number(c, value, 4);
	}
}

/* What comes behind the opcode. */
enum tail {
	T_NONE, T_IMM8, T_IMM16, T_IMMZ, T_FAR, T_JUMP8,
	T_MEM, T_MEM_IMM8, T_MEM_IMMZ,		/* ModRM with memory */
	T_ANY, T_ANY_IMM8,			/* ModRM of any kind */
	T_REG,					/* ModRM with a register */
	T_STATE,				/* a register, or memory of the FPU's state */
	T_ENTER,
};

struct piece {
	uint8_t length;
	uint8_t bytes[3];
	uint8_t tail;
};

#define P1(a, tail)		{ 1, { a }, tail }
#define P2(a, b, tail)		{ 2, { a, b }, tail }
#define P3(a, b, c, tail)	{ 3, { a, b, c }, tail }

/* What the emulator executes: memory forms. */
static const struct piece memory_pieces[] = {
	P1(0x00, T_MEM), P1(0x01, T_MEM), P1(0x02, T_MEM), P1(0x03, T_MEM), P1(0x09, T_MEM),
	P1(0x11, T_MEM), P1(0x13, T_MEM), P1(0x19, T_MEM), P1(0x21, T_MEM), P1(0x23, T_MEM),
	P1(0x29, T_MEM), P1(0x31, T_MEM), P1(0x38, T_MEM), P1(0x39, T_MEM), P1(0x3b, T_MEM),
	P1(0x63, T_MEM), P1(0x80, T_MEM_IMM8), P1(0x81, T_MEM_IMMZ), P1(0x83, T_MEM_IMM8),
	P1(0x84, T_MEM), P1(0x85, T_MEM), P1(0x86, T_MEM), P1(0x87, T_MEM), P1(0x88, T_MEM),
	P1(0x89, T_MEM), P1(0x8a, T_MEM), P1(0x8b, T_MEM), P1(0x8b, T_MEM), P1(0x89, T_MEM),
	P1(0x8f, T_MEM), P1(0xa4, T_NONE), P1(0xa5, T_NONE), P1(0xa6, T_NONE), P1(0xa7, T_NONE),
	P1(0xaa, T_NONE), P1(0xab, T_NONE), P1(0xac, T_NONE), P1(0xad, T_NONE), P1(0xae, T_NONE),
	P1(0xaf, T_NONE), P1(0xc6, T_MEM_IMM8), P1(0xc7, T_MEM_IMMZ), P1(0xf6, T_MEM_IMM8),
	P1(0xf7, T_MEM_IMMZ), P1(0xfe, T_MEM), P1(0xff, T_MEM), P2(0x0f, 0x40, T_MEM),
	P2(0x0f, 0x95, T_MEM), P2(0x0f, 0xa3, T_MEM), P2(0x0f, 0xab, T_MEM), P2(0x0f, 0xb0, T_MEM),
	P2(0x0f, 0xb1, T_MEM), P2(0x0f, 0xb3, T_MEM), P2(0x0f, 0xb6, T_MEM), P2(0x0f, 0xb7, T_MEM),
	P2(0x0f, 0xba, T_MEM_IMM8), P2(0x0f, 0xbb, T_MEM), P2(0x0f, 0xbe, T_MEM),
	P2(0x0f, 0xbf, T_MEM), P2(0x0f, 0xc0, T_MEM), P2(0x0f, 0xc1, T_MEM), P2(0x0f, 0xc3, T_MEM),
	P2(0x0f, 0xc7, T_STATE), P3(0x0f, 0x38, 0xf0, T_MEM), P3(0x0f, 0x38, 0xf1, T_MEM),
	P1(0xa1, T_IMMZ), P1(0xa3, T_IMMZ), P1(0xd8, T_MEM), P1(0xdd, T_STATE), P1(0xd1, T_MEM),
	P2(0x0f, 0xa4, T_MEM_IMM8), P2(0x0f, 0x10, T_MEM), P2(0x0f, 0x11, T_MEM),
	P2(0x0f, 0x6f, T_MEM), P2(0x0f, 0xe7, T_MEM), P2(0x0f, 0xae, T_STATE), P1(0xc5, T_MEM),
	P1(0xc4, T_MEM), P1(0x62, T_MEM), P1(0xd9, T_STATE),
};

/* What belongs to the system. */
static const struct piece system_pieces[] = {
	P2(0x0f, 0x00, T_ANY), P2(0x0f, 0x01, T_ANY), P2(0x0f, 0x01, T_ANY), P2(0x0f, 0x02, T_ANY),
	P2(0x0f, 0x03, T_ANY), P2(0x0f, 0x05, T_NONE), P2(0x0f, 0x06, T_NONE),
	P2(0x0f, 0x07, T_NONE), P2(0x0f, 0x08, T_NONE), P2(0x0f, 0x09, T_NONE),
	P2(0x0f, 0x0b, T_NONE), P2(0x0f, 0x18, T_ANY), P2(0x0f, 0x20, T_REG), P2(0x0f, 0x21, T_REG),
	P2(0x0f, 0x22, T_REG), P2(0x0f, 0x31, T_NONE), P2(0x0f, 0x33, T_NONE),
	P2(0x0f, 0x34, T_NONE), P2(0x0f, 0x35, T_NONE), P2(0x0f, 0xa2, T_NONE),
	P2(0x0f, 0xaa, T_NONE), P2(0x0f, 0xae, T_STATE), P2(0x0f, 0xc7, T_STATE), P1(0x06, T_NONE),
	P1(0x07, T_NONE), P1(0x1e, T_NONE), P1(0x1f, T_NONE), P1(0x60, T_NONE), P1(0x61, T_NONE),
	P1(0x62, T_ANY), P1(0x6c, T_NONE), P1(0x6d, T_NONE), P1(0x6e, T_NONE), P1(0x6f, T_NONE),
	P1(0x8c, T_ANY), P1(0x8e, T_ANY), P1(0x9a, T_FAR), P1(0x9c, T_NONE), P1(0x9d, T_NONE),
	P1(0xc8, T_ENTER), P1(0xc9, T_NONE), P1(0xcb, T_NONE), P1(0xcc, T_NONE), P1(0xcd, T_IMM8),
	P1(0xce, T_NONE), P1(0xcf, T_NONE), P1(0xe4, T_IMM8), P1(0xe5, T_IMM8), P1(0xe6, T_IMM8),
	P1(0xe7, T_IMM8), P1(0xea, T_FAR), P1(0xec, T_NONE), P1(0xed, T_NONE), P1(0xee, T_NONE),
	P1(0xef, T_NONE), P1(0xf1, T_NONE), P1(0xf4, T_NONE), P1(0xfa, T_NONE), P1(0xfb, T_NONE),
	P1(0xfc, T_NONE), P1(0xfd, T_NONE), P1(0xff, T_ANY), P2(0xf3, 0x90, T_NONE),
	P3(0x0f, 0x01, 0xd0, T_NONE), P3(0x0f, 0x01, 0xd1, T_NONE), P3(0x0f, 0x01, 0xd8, T_NONE),
	P3(0x0f, 0x01, 0xd9, T_NONE), P3(0x0f, 0x01, 0xda, T_NONE), P3(0x0f, 0x01, 0xdb, T_NONE),
	P3(0x0f, 0x01, 0xdc, T_NONE), P3(0x0f, 0x01, 0xdd, T_NONE), P3(0x0f, 0x01, 0xde, T_NONE),
	P3(0x0f, 0x01, 0xdf, T_NONE), P3(0x0f, 0x01, 0xc1, T_NONE), P3(0x0f, 0x01, 0xc8, T_NONE),
	P3(0x0f, 0x01, 0xc9, T_NONE), P3(0x0f, 0x01, 0xf8, T_NONE), P3(0x0f, 0x01, 0xf9, T_NONE),
	P3(0x0f, 0x01, 0xfc, T_NONE), P3(0x0f, 0x01, 0xee, T_NONE), P3(0x0f, 0x01, 0xca, T_NONE),
	P3(0x0f, 0x38, 0x82, T_ANY), P2(0x0f, 0x77, T_NONE), P2(0xdb, 0xe3, T_NONE),
};

static void emit_modrm(struct code *c, bool memory, bool reg)
{
	static const uint8_t mods[] = { 0x00, 0x00, 0x40, 0x80, 0xc0 };
	uint8_t mod = reg ? 0xc0 : memory ? mods[rng_below(c->rng, 4)] : RNG_PICK(c->rng, mods);
	uint8_t modrm = mod | rng_below(c->rng, 64);

	EMIT(c, modrm);
	if (mod != 0xc0 && (modrm & 7) == 4 && c->bits != 16)
		EMIT(c, rng_next(c->rng));
	if (mod == 0x40)
		EMIT(c, rng_next(c->rng));
	else if (mod == 0x80)
		emit_number(c, rng_one_in(c->rng, 2) ? rng_below(c->rng, 64) : rng_number(c->rng),
			    c->bits == 16 ? 2 : 4);
}

/* With memory at [rbx]: see emit_piece(). */
static void emit_modrm_state(struct code *c)
{
	uint8_t mod = rng_one_in(c->rng, 4) ? 0xc0 : 0x00;

	EMIT(c, mod | rng_below(c->rng, 8) << 3 | (mod ? rng_below(c->rng, 8) : 3));
}

static void emit_tail(struct code *c, uint8_t tail)
{
	size_t z = c->bits == 16 ? 2 : 4;

	if (tail >= T_MEM && tail <= T_MEM_IMMZ)
		emit_modrm(c, true, false);
	else if (tail == T_ANY || tail == T_ANY_IMM8)
		emit_modrm(c, false, false);
	else if (tail == T_REG)
		emit_modrm(c, false, true);
	else if (tail == T_STATE)
		emit_modrm_state(c);
	if (tail == T_IMM8 || tail == T_MEM_IMM8 || tail == T_ANY_IMM8 || tail == T_JUMP8)
		EMIT(c, rng_next(c->rng));
	else if (tail == T_IMM16)
		emit_number(c, rng_next(c->rng), 2);
	else if (tail == T_IMMZ || tail == T_MEM_IMMZ)
		emit_number(c, guest_number(c->rng), z);
	else if (tail == T_ENTER)
		emit_number(c, rng_below(c->rng, 64) | rng_below(c->rng, 40) << 16, 3);
	else if (tail == T_FAR)
		emit_number(c, AT_CODE | (uint64_t)(rng_below(c->rng, 14) * 8) << 8 * z, z + 2);
}

static void emit_prefixes(struct code *c)
{
	static const uint8_t prefixes[] = {
		0x66, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0xf3, 0x2e, 0x36, 0x26, 0x64, 0x65,
	};

	while (rng_one_in(c->rng, 4))
		EMIT(c, RNG_PICK(c->rng, prefixes));
	if (c->bits == 64 && rng_one_in(c->rng, 3))
		EMIT(c, 0x40 | rng_below(c->rng, 16));
}

/*
 * The FPU's state across the end of the address space, where addresses begin again at 0, fails an
 * assertion of QEMU's TCG (11.1, access_ptr()): it is anywhere but in the last page.
 */
static void emit_piece(struct code *c, const struct piece *piece)
{
	uint64_t state = guest_number(c->rng);

	if (piece->tail == T_STATE)
		emit_load(c, 3, state < -PAGE ? state : AT_DATA);
	emit_prefixes(c);
	emit(c, piece->bytes, piece->length);
	emit_tail(c, piece->tail);
}

/* Memory behind registers that point to something. */
static void piece_memory(struct code *c)
{
	unsigned int i;

	for (i = rng_below(c->rng, 3); i; i--)
		emit_load(c, reg_pick(c), guest_number(c->rng));
	if (rng_one_in(c->rng, 3))
		emit_load(c, 1, rng_below(c->rng, 40));		/* for REP */
	emit_piece(c, &RNG_PICK(c->rng, memory_pieces));
}

static void piece_system(struct code *c)
{
	if (rng_one_in(c->rng, 2))
		emit_load(c, reg_pick(c), guest_number(c->rng));
	emit_piece(c, &RNG_PICK(c->rng, system_pieces));
}

/*
 * The only RDMSR and WRMSR, for QEMU's TCG (11.1) takes all of RCX for the index when it looks
 * whether they are intercepted: with more than 32 bits there, the guest gets the host's own MSRs.
 */
static void piece_msr(struct code *c)
{
	static const uint32_t indices[] = {
		0x10, 0x1b, 0x3b, 0x174, 0x1a0, 0x1d9, 0x277, 0x2ff, 0x6e0, 0x808, 0x80b, 0x80f,
		0x830, 0x832, 0x838, 0x83e, 0x83f, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03,
		0x4b564d04, 0xc0000080, 0xc0000081, 0xc0000084, 0xc0000100, 0xc0000102,
		0xc0000103, 0xc0010015, 0xc0011029,
	};
	uint32_t index = rng_one_in(c->rng, 6) ? rng_number(c->rng) : RNG_PICK(c->rng, indices);
	uint64_t low = guest_number(c->rng);

	emit_load(c, 1, index);
	emit_load(c, 0, index == MSR_EFER && c->bits != 64 ? efer_tame(low) : low);
	emit_load(c, 2, rng_one_in(c->rng, 2) ? 0 : rng_number(c->rng));
	EMIT(c, 0x0f, rng_one_in(c->rng, 3) ? 0x32 : 0x30);
}

static void piece_cpuid(struct code *c)
{
	static const uint32_t leaves[] = { 0, 1, 7, 0xb, 0xd, 0x1f, 0x40000000, 0x80000000 };

	emit_load(c, 0, RNG_PICK(c->rng, leaves) + rng_below(c->rng, 9));
	emit_load(c, 1, rng_below(c->rng, 4));
	EMIT(c, 0x0f, 0xa2);
}

/* Bits on and off in a control register: read, change, write. */
static void piece_control(struct code *c)
{
	static const uint8_t registers[] = { 0, 0, 3, 4, 4, 2 };
	static const uint8_t bits[] = {
		0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 13, 16, 18, 20, 21, 29, 30, 31,
	};
	uint8_t modrm = 0xc0 | RNG_PICK(c->rng, registers) << 3;

	EMIT(c, 0x0f, 0x20, modrm);
	if (c->bits == 16)
		EMIT(c, 0x66);
	EMIT(c, 0x0f, 0xba, 0xf0 | rng_below(c->rng, 2) << 3, RNG_PICK(c->rng, bits));
	EMIT(c, 0x0f, 0x22, modrm);
}

/*
 * No breakpoint is ever on: QEMU's TCG (11.1) takes its lock twice where one is hit by the delivery of
 * an interrupt or exception, and aborts, or looks for a debugger that is not there. So no guest
 * writes DR7, which is DR5 too.
 */
void dr7_tame(void *dr7)
{
	*(uint8_t *)dr7 = 0;
}

static void piece_debug(struct code *c)
{
	static const uint8_t writable[] = { 0, 1, 2, 3, 4, 6 };
	bool write = rng_one_in(c->rng, 2);
	unsigned int dr = write ? RNG_PICK(c->rng, writable) : rng_below(c->rng, 8);

	emit_load(c, 0, guest_number(c->rng));
	EMIT(c, 0x0f, write ? 0x23 : 0x21, 0xc0 | dr << 3);
}

/* Messages to other vCPUs, timers, the end of an interrupt. */
static void piece_apic(struct code *c)
{
	static const uint16_t registers[] = {
		0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x300, 0x310, 0x320, 0x350,
		0x370, 0x380, 0x3e0, 0x3f0, 0x400,
	};
	static const uint32_t values[] = {
		0, 0x1ff, 0x30, 0x500, 0x4500, 0xc4500, 0x600 | AT_CODE >> 12,
		0xc0600 | AT_CODE >> 12, 0x400, 0xc0400, 0x40030, 0x80031, 0xc0032, 0xc08e5,
		0x200f0, 0x400f1, 0x1000000, 0xff000000, 0xffffffff, 1000, 0x10000,
	};
	uint16_t reg = RNG_PICK(c->rng, registers);
	uint32_t value = rng_one_in(c->rng, 6) ? rng_number(c->rng) : RNG_PICK(c->rng, values);

	if (rng_one_in(c->rng, 3)) {
		emit_load(c, 1, 0x800 + reg / 16);
		emit_load(c, 2, rng_below(c->rng, 4));
		emit_load(c, 0, value);
		EMIT(c, 0x0f, 0x30);
		return;
	}
	emit_load(c, 3, APIC_GPA + reg);
	if (c->bits == 16)
		EMIT(c, 0x66, 0x67);
	if (rng_one_in(c->rng, 4)) {
		EMIT(c, 0x8b, 0x03);			/* mov eax, [ebx] */
		return;
	}
	EMIT(c, 0xc7, 0x03);				/* mov dword [ebx], value */
	emit_number(c, value, 4);
}

static void piece_port(struct code *c)
{
	static const uint16_t ports[] = {
		0x20, 0x21, 0xa0, 0x40, 0x43, 0x60, 0x61, 0x70, 0x80, 0x3f8, 0x510, 0xcf8, 0xfff,
		0xffff,
	};

	emit_load(c, 2, RNG_PICK(c->rng, ports));
	emit_load(c, 1, rng_one_in(c->rng, 4) ? rng_number(c->rng) : rng_below(c->rng, 2000));
	if (rng_one_in(c->rng, 2))
		emit_load(c, rng_one_in(c->rng, 2) ? 6 : 7, guest_number(c->rng));
	if (rng_one_in(c->rng, 2))
		EMIT(c, 0xf3, 0x6c + rng_below(c->rng, 4));
	else
		EMIT(c, 0xec + rng_below(c->rng, 4));
}

/* Stores to code and to page tables, which take effect somewhere in what follows. */
static void piece_store(struct code *c)
{
	bool code = rng_one_in(c->rng, 2);

	emit_load(c, 3, code ? AT_CODE + rng_below(c->rng, 8 * CODE_SIZE) : entry_place(c->rng));
	emit_load(c, 0, code ? rng_next(c->rng) : entry_strange(c->rng));
	if (c->bits == 64)
		EMIT(c, 0x48);
	else if (c->bits == 16)
		EMIT(c, 0x66, 0x67);
	EMIT(c, 0x89, 0x03);
}

static void piece_jump(struct code *c)
{
	int8_t by = rng_below(c->rng, 60) - 20;

	EMIT(c, rng_one_in(c->rng, 3) ? 0xe2 : 0x70 + rng_below(c->rng, 16), by);
}

static void piece_noise(struct code *c)
{
	uint64_t noise = rng_next(c->rng);

	emit(c, &noise, 1 + rng_below(c->rng, 8));
}

static void (*const pieces[])(struct code *c) = {
	piece_memory, piece_memory, piece_memory, piece_memory, piece_system, piece_system,
	piece_system, piece_msr, piece_cpuid, piece_control, piece_debug, piece_apic, piece_apic,
	piece_port, piece_store, piece_jump, piece_noise,
};

static bool is_prefix_of_cr8(uint8_t byte)
{
	return byte == 0xf0 || (byte & 0xf4) == 0x44;
}

/* FNSTENV, FNSAVE, FSTP m80 and FBSTP. */
static bool stores_x87(uint8_t opcode, uint8_t modrm)
{
	uint8_t reg = modrm >> 3 & 7;

	return modrm < 0xc0 && (opcode == 0xdb ? reg == 7 : (opcode & ~0x06) == 0xd9 && reg == 6);
}

/*
 * MOV to CR8, which REX.R or LOCK makes of a MOV to CR0, while a virtual interrupt waits: QEMU's
 * TCG (11.1) sets the interrupt again without its lock, and aborts. Becomes a MOV from it.
 *
 * What the x87 stores at the end of a page, with fewer bytes left there than it stores at once: TCG
 * writes on in the page that comes next in the machine's memory, not in the guest's (access_ptr()).
 * That page is anybody's. Becomes another x87 instruction, without memory.
 */
static void code_tame(struct code *c)
{
	uint8_t *at;
	int i;

	for (at = c->start; at + 1 < c->next; at++)
		if (stores_x87(at[0], at[1]))
			at[1] |= 0xc0;
	for (at = c->start + 4; at + 1 < c->next; at++)
		for (i = 1; i <= 4 && at[0] == 0x0f && at[1] == 0x22; i++)
			if (is_prefix_of_cr8(at[-i]))
				at[1] = 0x20;
}

void code_write(struct rng *rng, uint8_t *ram, unsigned int n, unsigned int bits)
{
	struct code c = { .rng = rng, .bits = bits };
	unsigned int i, count = 4 + rng_below(rng, 40);

	c.start = ram + AT_CODE + n % 16 * CODE_SIZE;
	c.next = c.start;
	c.end = c.start + CODE_SIZE - 8;
	for (i = 0; i < count; i++)
		RNG_PICK(rng, pieces)(&c);
	c.end += 8;
	EMIT(&c, 0xe9);
	emit_number(&c, c.start - (c.next + (bits == 16 ? 2 : 4)), bits == 16 ? 2 : 4);
	code_tame(&c);
}

/* ---- Where code starts ---- */

static struct kvm_segment segment(uint16_t selector, uint64_t base, uint8_t type, unsigned int bits)
{
	return (struct kvm_segment){
		.selector = selector, .base = base, .limit = bits == 16 ? 0xffff : 0xffffffff,
		.type = type, .present = 1, .s = 1, .db = bits == 32 || (bits == 64 && type == 3),
		.l = bits == 64 && type == 11, .g = bits != 16,
	};
}

static void sregs_segments(struct kvm_sregs *s, unsigned int bits, uint64_t code)
{
	static const uint16_t code_selector[] = { 0, 0, 0x18, 0, 0x08 };
	uint16_t cs = bits == 16 ? code >> 4 : code_selector[bits / 16];

	s->cs = segment(cs, bits == 16 ? code : 0, 11, bits);
	s->ds = segment(bits == 16 ? 0 : 0x10, 0, 3, bits);
	s->es = s->ds;
	s->fs = s->ds;
	s->gs = s->ds;
	s->ss = s->ds;
	s->tr = (struct kvm_segment){
		.base = AT_TSS, .limit = 0x67, .selector = 0x20, .type = 11, .present = 1,
	};
	s->gdt.base = AT_GDT;
	s->gdt.limit = 0x7f;
	s->idt.base = bits == 64 ? AT_IDT64 : bits == 32 ? AT_IDT32 : 0;
	s->idt.limit = bits == 64 ? 0xfff : bits == 32 ? 0x7ff : 0x3ff;
}

static void sregs_control(struct rng *rng, struct kvm_sregs *s, unsigned int bits)
{
	bool pae = rng_one_in(rng, 2);

	s->cr0 = bits == 16 ? 0x10 : 0x31;
	s->cr4 = 0x600;
	s->efer = 0;
	if (bits == 64) {
		s->cr0 = 0x80010033;
		s->cr3 = TABLE_PML4;
		s->cr4 = 0x620;
		s->efer = 0xd01;
	} else if (bits == 32 && rng_one_in(rng, 2)) {
		s->cr0 |= 0x80010000;
		s->cr3 = pae ? TABLE_PDPT32 : TABLE_PD32;
		s->cr4 |= pae ? 0x20 : 0x10;
	}
}

void sregs_tame(struct kvm_sregs *s)
{
	if (!(s->cr0 & CR0_PG) && !(s->cr4 & CR4_PAE))
		s->efer = efer_tame(s->efer);
	s->tr.type = 9;
	s->tr.present = 1;
	s->tr.unusable = 0;
}

void vcpu_prepare(struct actor *a, int fd, unsigned int n)
{
	static const uint8_t all_bits[] = { 16, 32, 64, 64, 64 };
	unsigned int bits = RNG_PICK(&a->rng, all_bits), i;
	uint64_t code = AT_CODE + n % 16 * CODE_SIZE;
	struct kvm_regs regs = { .rflags = 2 };
	uint64_t *gpr = (uint64_t *)&regs;
	struct kvm_sregs s;

	if (rng_one_in(&a->rng, 4))
		code_tables(&a->rng, a->world->ram);
	code_write(&a->rng, a->world->ram, n, bits);
	if (call_ioctl(fd, KVM_GET_SREGS, &s))
		return;
	sregs_segments(&s, bits, code);
	sregs_control(&a->rng, &s, bits);
	if (rng_one_in(&a->rng, 6))
		s.idt.limit = 0;
	if (rng_one_in(&a->rng, 12))
		rng_mutate(&a->rng, &s, sizeof(s));
	sregs_tame(&s);
	for (i = 0; i < 16; i++)
		gpr[i] = guest_number(&a->rng);
	regs.rsp = bits == 16 ? 0xf000 : AT_STACKS + (n % 16 + 1) * PAGE;
	regs.rip = bits == 16 ? 0 : code;
	regs.rflags |= rng_one_in(&a->rng, 2) ? 0x200 : 0;
	if (rng_one_in(&a->rng, 16))
		regs.rflags |= rng_next(&a->rng) & 0x3f7fd5;
	call_ioctl(fd, KVM_SET_SREGS, &s);
	call_ioctl(fd, KVM_SET_REGS, &regs);
	call_ioctl(fd, KVM_SET_MP_STATE, &(struct kvm_mp_state){ KVM_MP_STATE_RUNNABLE });
}
