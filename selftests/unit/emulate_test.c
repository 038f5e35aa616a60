// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the emulator does beyond arithmetic: segments, exceptions, waiting for userspace, strings,
 * ports, atomic accesses; and random instructions in random states.
 */
#include <stdlib.h>
#include <string.h>

#include "module/x86/walk.h"
#include "selftests/unit/emulate_world.h"
#include "selftests/unit/unit.h"

#define FLAG_TF		0x100
#define FLAG_DF		0x400
#define FLAG_RF		0x10000
#define FLAG_VM		0x20000
#define IOPL_3		0x3000

#define GP		13
#define SS		12
#define PF		14

#define FUZZ_ROUNDS	400000

static struct world w;
static u64 *const gpr = w.state.regs.gpr;

static int run(const char *hex)
{
	u8 bytes[MOAT_INSN_MAX];
	unsigned int n = 0, byte;
	int result;

	for (; n < sizeof(bytes) && sscanf(hex, "%2x", &byte) == 1; hex += 2)
		bytes[n++] = byte;
	result = world_run(&w, bytes, n);
	EXPECT(!w.broken);
	return result;
}

static bool faults(const char *hex, u8 vector)
{
	w.state.exception.vector = 0;
	return EXPECT(run(hex) == EMU_FAULT) && EXPECT(w.state.exception.vector == vector) &&
	       (EXPECT(w.state.exception.has_error) & EXPECT(!w.state.exception.error));
}

static bool page_faults(const char *hex, u64 cr2, u32 error)
{
	w.state.exception.vector = 0;
	return EXPECT(run(hex) == EMU_FAULT) && EXPECT(w.state.exception.vector == PF) &&
	       EXPECT(w.state.exception.cr2 == cr2) && EXPECT(w.state.exception.error == error);
}

static u64 peek(u64 at, unsigned int len)
{
	u64 value = 0;

	memcpy(&value, w.ram + at, len);
	return value;
}

static void poke(u64 at, u64 value, unsigned int len)
{
	memcpy(w.ram + at, &value, len);
}

static void addresses_64(void)
{
	world_init(&w, INSN_64);
	w.sregs.ds.base = 0x5000;		/* does not count */
	w.sregs.ds.limit = 0;
	w.sregs.fs.base = 0x6000;
	poke(0x1234, 0x1122334455667788, 8);
	poke(0x6000, 0xa1b2c3d4, 4);
	w.state.regs.rip = 0x1000;
	EXPECT(run("8b052e020000") == EMU_OK && gpr[AX] == 0x55667788);	/* 0x22e(%rip) */
	EXPECT(w.state.regs.rip == 0x1006);
	w.state.regs.rip = 0xffffffff00001000;
	EXPECT(run("678b052d020000") == EMU_OK && gpr[AX] == 0x55667788);
	EXPECT(w.state.regs.rip == 0xffffffff00001007);
	gpr[BX] = 0xffffffffffffffff;
	EXPECT(run("648b4b01") == EMU_OK && gpr[CX] == 0xa1b2c3d4);	/* %fs:1(%rbx) */
	gpr[BX] = 0x700001234;
	EXPECT(run("678b13") == EMU_OK && gpr[DX] == 0x55667788);
	gpr[BX] = 0x800000000000;
	faults("8b03", GP);
	gpr[BX] = 0x7ffffffffffd;
	faults("8b03", GP);
	gpr[BP] = 0x800000000000;
	faults("8b4500", SS);
	w.sregs.cr4 = 0x1000;
	page_faults("894500", 0x800000000000, WALK_WRITE);
	gpr[BX] = 0xffffffffffffffff;		/* round the end of the address space */
	w.state.cpl = 3;
	page_faults("8b03", 0xffffffffffffffff, WALK_USER);
}

static void segments_32(void)
{
	world_init(&w, INSN_32);
	w.sregs.ds.base = 0x1000;
	w.sregs.ds.limit = 0xff;
	poke(0x10fc, 0x12345678, 4);
	gpr[BX] = 0xfc;
	EXPECT(run("8b03") == EMU_OK && gpr[AX] == 0x12345678);
	gpr[BX] = 0xfd;
	faults("8b03", GP);
	gpr[BX] = 0xfffffffe;
	faults("8b03", GP);
	w.sregs.ds.type = 1;			/* read-only */
	gpr[BX] = 0;
	EXPECT(run("8b03") == EMU_OK);
	faults("8903", GP);
	faults("0103", GP);
	faults("8703", GP);
	w.sregs.ds.type = 7;			/* down to 0x100 */
	faults("8b03", GP);
	gpr[BX] = 0xff;
	faults("8b03", GP);
	gpr[BX] = 0x100;
	EXPECT(run("8b03") == EMU_OK);
	w.sregs.ds.db = 0;
	gpr[BX] = 0xfffd;
	faults("8b03", GP);
	gpr[BX] = 0xfffc;
	EXPECT(run("8b03") == EMU_OK);
	w.sregs.ds.unusable = 1;
	faults("8b03", GP);
	gpr[BX] = 0x100;
	w.sregs.cs.type = 9;			/* execute only */
	faults("2e8b03", GP);
	w.sregs.cs.type = 11;
	EXPECT(run("2e8b03") == EMU_OK);
	faults("2e8903", GP);
	w.sregs.ss.limit = 0xff;
	gpr[BP] = 0xff;
	faults("8b4500", SS);
	w.sregs.es.base = 0xffff1000;		/* linear addresses wrap at 4G */
	gpr[BX] = 0x110fc;
	poke(0x20fc, 0x99, 1);
	EXPECT(run("268a03") == EMU_OK && (gpr[AX] & 0xff) == 0x99);
}

static void real_mode(void)
{
	world_init(&w, INSN_16);
	w.sregs.cr0 = 0;
	w.sregs.ds.base = 0x12340;
	w.sregs.ds.limit = 0xffff;
	w.sregs.ds.type = 1;			/* types do not count */
	gpr[BX] = 0xabcd0010;
	gpr[SI] = 0xfffffff8;			/* 0x10 + 0xfff8 wraps to 8 */
	EXPECT(run("c600aa") == EMU_OK && w.ram[0x12348] == 0xaa);
	gpr[BX] = 0xffff;
	EXPECT(run("8b07") == EMU_FAULT && w.state.exception.vector == GP);
	EXPECT(!w.state.exception.has_error);
	gpr[BX] = 0x10000;
	EXPECT(run("678b03") == EMU_FAULT && w.state.exception.vector == GP);
	w.state.regs.rip = 0xfffe;
	gpr[BX] = 0;
	EXPECT(run("8b07") == EMU_OK && w.state.regs.rip == 0);
	w.sregs.cr0 = 1;
	w.state.regs.rflags |= FLAG_VM;
	w.sregs.cs.db = 1;
	EXPECT(run("8907") == EMU_OK && w.state.regs.rip == 2);	/* 16 bits, and writable */
}

static void stack(void)
{
	world_init(&w, INSN_32);
	gpr[SP] = 0x2000;
	gpr[BX] = 0x1000;
	poke(0x1000, 0x12345678, 4);
	EXPECT(run("ff33") == EMU_OK && gpr[SP] == 0x1ffc && peek(0x1ffc, 4) == 0x12345678);
	EXPECT(run("8f042400") == EMU_OK && gpr[SP] == 0x2000);	/* to (%esp) after the POP */
	EXPECT(peek(0x2000, 4) == 0x12345678);
	gpr[SP] = WORLD_VOID + 4;
	page_faults("ff33", WORLD_VOID, WALK_WRITE);
	EXPECT(gpr[SP] == WORLD_VOID + 4);
	w.sregs.ss.db = 0;
	gpr[SP] = 0x10002;
	EXPECT(run("66ff33") == EMU_OK && gpr[SP] == 0x10000 && peek(0, 2) == 0x5678);
	world_init(&w, INSN_64);
	gpr[SP] = 0x2000;
	gpr[BX] = 0x1000;
	poke(0x1000, 0x1122334455667788, 8);
	EXPECT(run("ff33") == EMU_OK && gpr[SP] == 0x1ff8 && peek(0x1ff8, 8) == peek(0x1000, 8));
}

/* The result of an instruction must not depend on how many passes it took. */
static void waiting(void)
{
	static const struct {
		const char *hex;
		unsigned int accesses;
	} rows[] = {
		{ "8b03", 1 }, { "488903", 1 }, { "0103", 2 }, { "0303", 1 }, { "f00103", 2 },
		{ "8703", 2 }, { "480fc10b", 2 }, { "0fb10b", 2 }, { "f00fb10b", 2 },
		{ "0fc70b", 2 }, { "480fc70b", 2 }, { "0fab0b", 2 }, { "0fa30b", 1 },
		{ "f71b", 2 }, { "0f9403", 1 }, { "0f4403", 1 }, { "3903", 1 }, { "ff33", 1 },
		{ "8f03", 1 }, { "a4", 2 }, { "48a7", 2 }, { "ab", 1 }, { "ad", 1 }, { "af", 1 },
		{ "f3a4", 2 }, { "f36f", 2 }, { "f36c", 2 }, { "e460", 1 }, { "ef", 1 },
		{ "0f38f103", 1 },
	};
	static struct world at_once;
	int result;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		for (int defer = 0; defer < 2; defer++) {
			at_once = w;
			world_init(&w, INSN_64);
			for (size_t n = 0; n < sizeof(w.device); n++)
				w.device[n] = n * 7 + n / 256;
			gpr[BX] = WORLD_MMIO + 0x100;
			gpr[SI] = WORLD_MMIO + 0x200;
			gpr[DI] = WORLD_MMIO + 0x300;
			gpr[CX] = 3;
			gpr[SP] = 0x2000;
			w.defer = defer;
			result = run(rows[i].hex);
			if (EXPECT(result == EMU_OK || result == EMU_REPEAT) &
			    EXPECT(w.count == rows[i].accesses) &
			    EXPECT(w.passes == (defer ? w.count + 1 : 1)))
				continue;
			printf("# %s: result %d, %u accesses, %u passes\n", rows[i].hex, result,
			       w.count, w.passes);
		}
		if (!EXPECT(!memcmp(&at_once.state.regs, &w.state.regs, sizeof(w.state.regs))) ||
		    !EXPECT(!memcmp(at_once.ram, w.ram, sizeof(w.ram))) ||
		    !EXPECT(!memcmp(at_once.device, w.device, sizeof(w.device))))
			printf("# %s\n", rows[i].hex);
	}
}

static void faults_change_nothing(void)
{
	world_init(&w, INSN_64);
	gpr[SI] = 0x1000;
	gpr[DI] = WORLD_VOID - 2;
	gpr[CX] = 4;
	page_faults("f3a5", WORLD_VOID, WALK_WRITE);
	page_faults("f36d", WORLD_VOID, WALK_WRITE);
	EXPECT(!w.count);			/* not a byte was taken from the port */
	gpr[BX] = WORLD_VOID;
	w.state.cpl = 3;
	page_faults("0103", WORLD_VOID, WALK_WRITE | WALK_USER);
	page_faults("0fb10b", WORLD_VOID, WALK_WRITE | WALK_USER);
	page_faults("3903", WORLD_VOID, WALK_USER);
	page_faults("0fa30b", WORLD_VOID, WALK_USER);
	EXPECT(run("0fa2") == EMU_UNHANDLEABLE && run("0f22c0") == EMU_UNHANDLEABLE);
	gpr[BX] = WORLD_RAM - 1;		/* memory and device at once: the callback fails */
	EXPECT(run("8b03") == EMU_UNHANDLEABLE);
}

static void strings(void)
{
	world_init(&w, INSN_64);
	memcpy(w.ram + 0x1000, "moat", 4);
	gpr[SI] = 0x1000;
	gpr[DI] = 0x2000;
	gpr[CX] = 4;
	w.state.regs.rip = 0x500;
	for (int i = 0; i < 3; i++)
		EXPECT(run("f3a4") == EMU_REPEAT && w.state.regs.rip == 0x500);
	EXPECT(run("f3a4") == EMU_OK && w.state.regs.rip == 0x502 && !gpr[CX]);
	EXPECT(gpr[SI] == 0x1004 && gpr[DI] == 0x2004 && !memcmp(w.ram + 0x2000, "moat", 4));
	EXPECT(run("f3a4") == EMU_OK && gpr[SI] == 0x1004);	/* count 0 */
	gpr[AX] = 'x';
	gpr[CX] = 1ull << 32 | 2;
	gpr[DI] = 1ull << 32 | 0x2000;
	w.state.regs.rflags |= FLAG_DF;
	EXPECT(run("67f3aa") == EMU_REPEAT && gpr[CX] == 1 && gpr[DI] == 0x1fff);
	EXPECT(run("67f3aa") == EMU_OK && w.ram[0x2000] == 'x' && w.ram[0x1fff] == 'x');
	w.state.regs.rflags &= ~(u64)FLAG_DF;
	gpr[SI] = 0x1000;
	gpr[DI] = 0x2001;
	gpr[CX] = 9;
	w.ram[0x1000] = w.ram[0x2001] = 'y';
	w.ram[0x1001] = 'z';
	EXPECT(run("f3a6") == EMU_REPEAT && run("f3a6") == EMU_OK && gpr[CX] == 7);
	gpr[AX] = 't';
	gpr[DI] = 0x2001;
	EXPECT(run("f2ae") == EMU_REPEAT && run("f2ae") == EMU_REPEAT && run("f2ae") == EMU_OK);
	EXPECT(gpr[DI] == 0x2004 && gpr[CX] == 4);

	world_init(&w, INSN_16);
	w.sregs.es.base = 0x3000;
	w.sregs.fs.base = 0x4000;
	w.ram[0x4000 + 0xffff] = 'a';
	gpr[SI] = 0xdead0000ffff;
	gpr[DI] = 0xdead00000005;
	gpr[CX] = 0xdead00010001;
	EXPECT(run("f364a4") == EMU_OK && w.ram[0x3005] == 'a');
	EXPECT(gpr[SI] == 0xdead00000000 && gpr[DI] == 0xdead00000006);
	EXPECT(gpr[CX] == 0xdead00010000);
}

static void trap_and_resume_flag(void)
{
	world_init(&w, INSN_64);
	w.state.regs.rflags |= FLAG_TF | FLAG_RF;
	gpr[CX] = 2;
	EXPECT(run("f3ac") == EMU_REPEAT && w.state.trap);
	EXPECT(run("f3ac") == EMU_OK && w.state.trap && w.state.regs.rflags == (FLAG_TF | 2));
	w.state.regs.rflags = 2;
	EXPECT(run("ac") == EMU_OK && !w.state.trap);
	w.state.regs.rflags |= FLAG_TF;
	gpr[BX] = WORLD_VOID;
	EXPECT(run("8b03") == EMU_FAULT && !w.state.trap);
}

static void atomics(void)
{
	world_init(&w, INSN_64);
	gpr[BX] = 0x1000;
	gpr[AX] = 5;
	EXPECT(run("0103") == EMU_OK && !w.exchanges);
	EXPECT(run("f00103") == EMU_OK && w.exchanges == 1 && peek(0x1000, 4) == 10);
	EXPECT(run("8703") == EMU_OK && w.exchanges == 2 && gpr[AX] == 10);
	EXPECT(peek(0x1000, 4) == 5);
	w.race = true;
	w.state.regs.rflags |= FLAG_TF;
	w.state.regs.rip = 0x100;
	EXPECT(run("f00103") == EMU_REPEAT && peek(0x1000, 4) == 5 && gpr[AX] == 10);
	EXPECT(w.state.regs.rip == 0x100 && !w.state.trap);
	gpr[BX] = WORLD_MMIO;
	EXPECT(run("f00103") == EMU_OK && w.device[0] == 10);
	gpr[BX] = 0x1008;
	faults("480fc70b", GP);			/* CMPXCHG16B wants alignment */
	w.race = false;
	EXPECT(run("0fc70b") == EMU_OK);
}

static void ports(void)
{
	world_init(&w, INSN_64);
	gpr[AX] = 0x1122334455667788;
	gpr[DX] = 0xffff1234;
	w.port_bytes[0] = 0xef;
	w.port_bytes[1] = 0xbe;
	w.port_bytes[3] = 0x80;
	EXPECT(run("e4f0") == EMU_OK && gpr[AX] == 0x11223344556677ef && w.port == 0xf0);
	EXPECT(run("66ed") == EMU_OK && gpr[AX] == 0x112233445566beef && w.port == 0x1234);
	EXPECT(run("ed") == EMU_OK && gpr[AX] == 0x8000beef && w.port_size == 4);
	EXPECT(run("e680") == EMU_OK && w.port == 0x80 && w.port_size == 1);
	EXPECT(w.port_bytes[0] == 0xef && w.port_items == 1);
}

static void string_ports(void)
{
	size_t i;

	world_init(&w, INSN_64);
	for (i = 0; i < 0x3000; i++)
		w.ram[0x1000 + i] = i * 3 + i / 256;
	gpr[DX] = 0x510;
	gpr[SI] = 0x1f01;
	gpr[CX] = 0x2000;
	/* To the end of the page, one across it, a page at a time. */
	EXPECT(run("f36f") == EMU_REPEAT && w.port_items == 63 && gpr[SI] == 0x1ffd);
	EXPECT(!memcmp(w.port_bytes, w.ram + 0x1f01, 63 * 4) && gpr[CX] == 0x2000 - 63);
	EXPECT(run("f36f") == EMU_REPEAT && w.port_items == 1 && gpr[SI] == 0x2001);
	EXPECT(!memcmp(w.port_bytes, w.ram + 0x1ffd, 4));
	gpr[SI] = 0x2000;
	EXPECT(run("f36e") == EMU_REPEAT && w.port_items == 4096 && gpr[SI] == 0x3000);
	w.state.pio_size = 16;
	EXPECT(run("f36f") == EMU_REPEAT && w.port_items == 4);
	w.state.pio_size = sizeof(w.pio_data);
	gpr[CX] = 3;
	gpr[DI] = 0x5000;
	w.state.regs.rflags |= FLAG_DF;
	EXPECT(run("f36d") == EMU_REPEAT && w.port_items == 1 && gpr[DI] == 0x4ffc);
	w.state.regs.rflags &= ~(u64)FLAG_DF;
	memcpy(w.port_bytes, "input", 5);
	gpr[CX] = 5;
	gpr[DI] = 0x4ffb;
	EXPECT(run("f36c") == EMU_OK && w.port_items == 5 && !gpr[CX] && gpr[DI] == 0x5000);
	EXPECT(!memcmp(w.ram + 0x4ffb, "input", 5));
	gpr[CX] = 5;
	gpr[DI] = WORLD_MMIO;			/* not memory: one by one */
	EXPECT(run("f36c") == EMU_REPEAT && w.port_items == 1 && w.device[0] == 'i');
	EXPECT(run("6c") == EMU_OK && w.device[1] == 'i' && gpr[CX] == 4);
	world_init(&w, INSN_16);		/* offsets wrap, a batch does not */
	w.sregs.es.base = 0x800;
	w.sregs.es.limit = 0xffff;
	gpr[DI] = 0xfff0;
	gpr[CX] = 0x40;
	EXPECT(run("f36c") == EMU_REPEAT && w.port_items >= 15 && w.port_items <= 16);
	w.sregs.es.limit = 0x17;		/* nor beyond the limit */
	gpr[DI] = 0x10;
	EXPECT(run("f36c") == EMU_REPEAT && w.port_items == 1);
	gpr[DI] = 0x18;
	faults("f36c", GP);
}

/* CPL above IOPL: the permission map in the TSS decides. A guest's user must not reach other ports. */
static void port_permissions(void)
{
	world_init(&w, INSN_64);
	w.state.cpl = 3;
	gpr[DX] = 0x3f9;
	faults("ec", GP);			/* no TSS */
	w.sregs.tr = (struct kvm_segment) {
		.base = 0x1000, .limit = 0x68 + 0x80, .type = 11, .present = 1,
	};
	poke(0x1066, 0x68, 2);
	memset(w.ram + 0x1068, 0xff, 0x81);
	faults("ec", GP);
	w.ram[0x1068 + 0x7f] = 0xfd;
	EXPECT(run("ec") == EMU_OK && w.port == 0x3f9);
	faults("66ed", GP);			/* reaches into 0x3fa */
	w.ram[0x1068 + 0x7f] = 0xf9;
	EXPECT(run("66ed") == EMU_OK);
	gpr[DX] = 0x3ff;
	w.ram[0x1068 + 0x7f] = 0x7f;
	EXPECT(run("ec") == EMU_OK);
	faults("66ed", GP);			/* the map's last byte is all ones */
	gpr[DX] = 0x400;
	w.ram[0x1068 + 0x80] = 0;
	faults("ec", GP);			/* its second byte would be beyond the limit */
	w.sregs.tr.limit++;
	EXPECT(run("ec") == EMU_OK);
	w.sregs.tr.limit--;
	gpr[DX] = 0xffff;
	faults("6e", GP);
	faults("6c", GP);
	w.state.regs.rflags |= IOPL_3;
	EXPECT(run("ec") == EMU_OK && w.port == 0xffff);
	w.sregs.efer = 0;
	w.state.regs.rflags |= FLAG_VM;		/* there IOPL does not matter */
	gpr[DX] = 0x400;
	faults("ec", GP);
	w.sregs.tr.type = 3;			/* a 16-bit TSS has no map */
	gpr[DX] = 0x3ff;
	faults("ec", GP);
	w.sregs.cr0 = 0;
	w.state.regs.rflags &= ~(u64)FLAG_VM;
	w.state.cpl = 0;
	EXPECT(run("ec") == EMU_OK);
}

static void random_instructions(void)
{
	static const enum moat_insn_mode modes[] = { INSN_16, INSN_32, INSN_64 };
	unsigned int i, n, done = 0;
	u8 bytes[MOAT_INSN_MAX];
	int result;

	srandom(4);
	for (i = 0; i < FUZZ_ROUNDS; i++) {
		if (i % 64 == 0)
			world_init(&w, modes[i / 64 % 3]);
		for (n = 0; n < sizeof(bytes); n++)
			bytes[n] = random() >> 7;
		for (n = 0; n < 16; n++)
			gpr[n] = random() % (WORLD_VOID + 0x1000);
		w.state.regs.rflags = (random() & 0xcd5) | 2;
		w.defer = i & 1;
		result = world_run(&w, bytes, sizeof(bytes));
		done += result == EMU_OK || result == EMU_REPEAT;
		if (!EXPECT(!w.broken))
			return;
	}
	EXPECT(done > FUZZ_ROUNDS / 10);
}

/* A random plain move: prefixes, opcode, and whatever comes behind. */
static void move_make(u8 bytes[MOAT_INSN_MAX], enum moat_insn_mode mode)
{
	static const u8 opcodes[] = { 0x88, 0x89, 0x8a, 0x8b, 0xc6, 0xc7, 0xa0, 0xa1, 0xa2, 0xa3 };
	static const u8 prefixes[] = { 0x66, 0x67, 0x64 };
	unsigned int n = 0, i;

	for (i = 0; i < MOAT_INSN_MAX; i++)
		bytes[i] = random() >> 7;
	if (random() & 1)
		bytes[n++] = prefixes[random() % ARRAY_SIZE(prefixes)];
	if (mode == INSN_64 && random() & 1)
		bytes[n++] = 0x40 | (random() & 15);
	if (random() & 1) {
		bytes[n++] = 0x0f;
		bytes[n++] = 0xb6 | (random() & 1);
	} else {
		bytes[n] = opcodes[random() % ARRAY_SIZE(opcodes)];
		if ((bytes[n++] & 0xfe) == 0xc6)
			bytes[n] &= 0xc7;	/* all others of that group are no moves */
	}
}

/* Taken apart, a move does what the emulator does with it. */
static bool move_agrees(const struct moat_insn *insn, const u64 before[16], u64 rip)
{
	bool flat = insn->mode == INSN_64 && insn->seg < INSN_FS;
	u64 base = flat ? 0 : emu_segment(&w.sregs, insn->seg)->base;
	const struct world_access *a = &w.log[0];
	u64 after[16];

	memcpy(after, before, sizeof(after));
	if (!EXPECT(emu_move_is_at(insn, before, rip, base, a->linear)) ||
	    !EXPECT(!emu_move_is_at(insn, before, rip, base, a->linear ^ 1)) ||
	    !EXPECT(insn->src.size == a->len))
		return false;
	if (a->write)
		return EXPECT(emu_move_value(insn, before) == a->value) &&
		       EXPECT(!memcmp(before, gpr, sizeof(after)));
	emu_move_load(insn, after, a->value);
	return EXPECT(!memcmp(after, gpr, sizeof(after)));
}

static void plain_moves(void)
{
	static const enum moat_insn_mode modes[] = { INSN_16, INSN_32, INSN_64 };
	u64 before[16], rip;
	u8 bytes[MOAT_INSN_MAX];
	struct moat_insn insn;
	unsigned int i, n, done = 0;

	srandom(5);
	for (i = 0; i < FUZZ_ROUNDS / 8; i++) {
		world_init(&w, modes[i % 3]);
		w.sregs.ds.base = w.sregs.fs.base = random() % 0x8000;
		memset(w.device, random(), sizeof(w.device));
		for (n = 0; n < sizeof(w.device); n += 2)
			w.device[n] += n;
		move_make(bytes, modes[i % 3]);
		rip = w.state.regs.rip = random() % 0x8000;
		for (n = 0; n < 16; n++)
			before[n] = gpr[n] = WORLD_MMIO + random() % 0x8000;
		if (moat_insn_decode(&insn, bytes, sizeof(bytes), modes[i % 3]) ||
		    world_run(&w, bytes, sizeof(bytes)) != EMU_OK || w.count != 1 ||
		    (w.log[0].linear & 4095) + w.log[0].len > 4096)
			continue;
		done++;
		if (!move_agrees(&insn, before, rip))
			return;
	}
	EXPECT(done > FUZZ_ROUNDS / 80);
}

/* What looks like one and is none, or not all in one page. */
static void no_plain_moves(void)
{
	static const char *const others[] = {
		"\x8b\xc3", "\x87\x03", "\x01\x03", "\x0f\xbe\x03", "\x8f\x03",
		"\x0f\x38\xf0\x03", "\xa4", "\xff\x33",
	};
	struct moat_insn insn;
	unsigned int i;

	world_init(&w, INSN_64);
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		EXPECT(!moat_insn_decode(&insn, (const u8 *)others[i], 8, INSN_64));
		EXPECT(!emu_move_is_at(&insn, gpr, 0, 0, gpr[BX]));
	}
	EXPECT(!moat_insn_decode(&insn, (const u8 *)"\x8b\x03", 2, INSN_64));
	gpr[BX] = 0x1ffc;
	EXPECT(emu_move_is_at(&insn, gpr, 0, 0, 0xabcffc));
	EXPECT(!emu_move_is_at(&insn, gpr, 0, 0, 0xabc000));
	gpr[BX] = 0x1ffd;
	EXPECT(!emu_move_is_at(&insn, gpr, 0, 0, 0xabcffd));
	EXPECT(!emu_move_is_at(&insn, gpr, 0, 0, 0xabc000));
}

static const struct unit_test tests[] = {
	{ "64-bit addresses", addresses_64 },
	{ "32-bit segments", segments_32 },
	{ "real mode and virtual 8086", real_mode },
	{ "PUSH and POP", stack },
	{ "instructions that wait for userspace", waiting },
	{ "faults change nothing", faults_change_nothing },
	{ "strings", strings },
	{ "TF and RF", trap_and_resume_flag },
	{ "atomic accesses", atomics },
	{ "ports", ports },
	{ "string I/O", string_ports },
	{ "a user's ports are those of the TSS", port_permissions },
	{ "random instructions", random_instructions },
	{ "plain moves, taken apart", plain_moves },
	{ "what is no plain move", no_plain_moves },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
