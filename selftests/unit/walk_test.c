// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The page-table walker: each format, each right and each reason to fault, accessed and dirty bits,
 * entries that change meanwhile, tables that are not there.
 */
#include <string.h>

#include "module/x86/walk.h"
#include "selftests/unit/unit.h"

#define MEMORY_SIZE	0x10000

#define CR0_WP		0x10000ull
#define CR0_PG		0x80000000ull
#define CR4_PSE		0x10ull
#define CR4_PAE		0x20ull
#define CR4_LA57	0x1000ull
#define CR4_SMEP	0x100000ull
#define CR4_SMAP	0x200000ull
#define EFER_LONG	0x500ull
#define EFER_NXE	0x800ull
#define FLAGS_AC	0x40000ull

#define P	0x001ull
#define W	0x002ull
#define U	0x004ull
#define A	0x020ull
#define D	0x040ull
#define PS	0x080ull
#define NX	(1ull << 63)
#define PW	(P | W)
#define PWU	(P | W | U)

#define READ	0
#define WRITE	WALK_WRITE
#define USER	WALK_USER
#define FETCH	WALK_FETCH
#define RSVD	WALK_RESERVED

/* Tables: one for each level, the root at 0x1000. */
#define ROOT	0x1000
#define T2	0x2000
#define T3	0x3000
#define T4	0x4000
#define T5	0x5000
#define PAGE	0x12345000ull

static u8 memory[MEMORY_SIZE];
static struct kvm_sregs sregs;
static struct walk_ctx walk;
static struct walk_result result;
static unsigned int updates;
static void (*meanwhile)(void);		/* happens before an update */

static int entry_read(void *ctx, u64 gpa, void *entry, unsigned int len)
{
	if (!EXPECT(ctx == memory) || !EXPECT(gpa % len == 0) || gpa > MEMORY_SIZE - len)
		return -EFAULT;
	memcpy(entry, memory + gpa, len);
	return 0;
}

static int entry_update(void *ctx, u64 gpa, u64 old, u64 new, unsigned int len)
{
	if (!EXPECT(ctx == memory) || !EXPECT(gpa % len == 0) || !EXPECT(gpa <= MEMORY_SIZE - len))
		return -EFAULT;
	updates++;
	if (meanwhile)
		meanwhile();
	if (memcmp(memory + gpa, &old, len))
		return -EAGAIN;
	memcpy(memory + gpa, &new, len);
	return 0;
}

static void set(u64 gpa, u64 entry, unsigned int len)
{
	memcpy(memory + gpa, &entry, len);
}

static u64 get(u64 gpa, unsigned int len)
{
	u64 entry = 0;

	memcpy(&entry, memory + gpa, len);
	return entry;
}

static void begin(u64 cr4, u64 efer)
{
	memset(memory, 0, sizeof(memory));
	meanwhile = NULL;
	updates = 0;
	sregs = (struct kvm_sregs) {
		.cr0 = CR0_PG | CR0_WP | 1, .cr3 = ROOT, .cr4 = cr4, .efer = efer,
	};
	walk = (struct walk_ctx) {
		.sregs = &sregs, .gpa_mask = (1ull << 40) - 1, .read_entry = entry_read,
		.update_entry = entry_update, .ctx = memory,
	};
}

/* 4-level tables for L4, with these rights in the leaf; all above allow everything. */
#define L4	0x7f8040201678ull	/* index 255, 1, 1, 1 */

static void begin_4_levels(u64 cr4, u64 efer, u64 leaf)
{
	begin(CR4_PAE | cr4, EFER_LONG | efer);
	set(ROOT + 255 * 8, T2 | PWU, 8);
	set(T2 + 8, T3 | PWU, 8);
	set(T3 + 8, T4 | PWU, 8);
	set(T4 + 8, leaf, 8);
}

static bool leads_to(u64 linear, u32 access, u64 gpa)
{
	return EXPECT(walk_translate(&walk, linear, access, &result) == 0) &&
	       EXPECT(result.gpa == gpa);
}

static bool faults(u64 linear, u32 access, u32 error)
{
	return EXPECT(walk_translate(&walk, linear, access, &result) == WALK_FAULT) &&
	       EXPECT(result.error == error);
}

static void no_paging(void)
{
	begin(0, 0);
	sregs.cr0 = 1;
	leads_to(0x12345678, WRITE | USER, 0x12345678);
	leads_to(0x1fffff000, READ, 0xfffff000);
	EXPECT(!updates);
	EXPECT(!result.leaf_size);
}

static void two_levels(void)
{
	begin(0, EFER_NXE);
	set(ROOT + 0x48 * 4, T2 | PWU, 4);			/* 0x12000000 */
	set(T2 + 0x345 * 4, PAGE | PWU | 0xe00, 4);
	leads_to(0x12345678, WRITE | USER, PAGE | 0x678);
	EXPECT(result.leaf_size == 4 && result.leaf_gpa == T2 + 0x345 * 4);
	EXPECT(result.leaf == (PAGE | PWU | 0xe00));
	EXPECT(get(ROOT + 0x48 * 4, 8) == (T2 | PWU | A));
	EXPECT(get(T2 + 0x345 * 4, 8) == (PAGE | PWU | 0xe00 | A | D));
	leads_to(0xffffffff12345678, READ, PAGE | 0x678);
	faults(0x12346000, WRITE | USER, WRITE | USER);
	faults(0x10000000, READ, 0);
	/* Without PSE the bit means nothing. */
	set(ROOT + 0x48 * 4, T2 | PWU | PS, 4);
	leads_to(0x12345678, READ, PAGE | 0x678);
	/* There is no NX, so no word of fetches either. */
	faults(0x10000000, FETCH | USER, USER);
	sregs.cr4 = CR4_SMEP;
	faults(0x10000000, FETCH | USER, FETCH | USER);
	sregs.cr4 = 0;
	sregs.cr3 = ROOT | 0xfff;
	leads_to(0x12345678, READ, PAGE | 0x678);
}

static void four_megabytes(void)
{
	begin(CR4_PSE, 0);
	set(ROOT + 0x48 * 4, 0x40400000 | PWU | PS, 4);
	leads_to(0x12345678, READ, 0x40745678);
	EXPECT(get(ROOT + 0x48 * 4, 4) == (0x40400000 | PWU | PS | A));
	leads_to(0x12345678, WRITE, 0x40745678);
	EXPECT(result.leaf_gpa == ROOT + 0x48 * 4 && result.leaf == (0x40400000 | PWU | PS));
	EXPECT(get(ROOT + 0x48 * 4, 4) == (0x40400000 | PWU | PS | A | D));
	/* PSE-36: address bits 32-39 in 13-20. */
	set(ROOT + 0x48 * 4, 0x40400000 | 0xa5 << 13 | 0x1000 | PWU | PS, 4);
	leads_to(0x12345678, READ, 0xa540745678);
	set(ROOT + 0x48 * 4, 0x40400000 | 1 << 21 | PWU | PS, 4);
	faults(0x12345678, READ, P | RSVD);
	walk.gpa_mask = (1ull << 36) - 1;
	set(ROOT + 0x48 * 4, 0x40400000 | 0x10 << 13 | PWU | PS, 4);
	faults(0x12345678, WRITE, P | RSVD | WRITE);
	set(ROOT + 0x48 * 4, 0x40400000 | 0x0f << 13 | PWU | PS, 4);
	leads_to(0x12345678, READ, 0xf40745678);
}

static void pae(void)
{
	begin(CR4_PAE, EFER_NXE);
	sregs.cr3 = ROOT | 0x20 | 0x1f;				/* the root is aligned to 32 bytes */
	set(ROOT + 0x20 + 3 * 8, T2 | P, 8);
	set(T2 + 0x1ff * 8, T3 | PWU, 8);
	set(T3 + 0x1fe * 8, 0x7f12345000 | PWU | NX, 8);
	leads_to(0xffffe678, WRITE | USER, 0x7f12345678);
	EXPECT(get(ROOT + 0x20 + 3 * 8, 8) == (T2 | P));	/* has no accessed bit */
	EXPECT(get(T2 + 0x1ff * 8, 8) == (T3 | PWU | A));
	EXPECT(get(T3 + 0x1fe * 8, 8) == (0x7f12345000 | PWU | NX | A | D));
	faults(0xffffe678, FETCH, P | FETCH);
	faults(0x3fffffff, READ, 0);
	set(T2 + 0x1ff * 8, 0x7f00200000 | PWU | PS, 8);
	leads_to(0xffffe678, FETCH | USER, 0x7f003fe678);
	set(T2 + 0x1ff * 8, 0x7f00202000 | PWU | PS, 8);
	faults(0xffffe678, READ, P | RSVD);
	set(T2 + 0x1ff * 8, T3 | PWU | 1ull << 52, 8);
	faults(0xffffe678, READ, P | RSVD);
	set(T2 + 0x1ff * 8, T3 | PWU | 1ull << 40, 8);
	faults(0xffffe678, READ, P | RSVD);
	set(T2 + 0x1ff * 8, T3 | PWU, 8);
	set(ROOT + 0x20 + 3 * 8, T2 | P | W, 8);
	faults(0xffffe678, READ, P | RSVD);
	set(ROOT + 0x20 + 3 * 8, T2 | P | NX, 8);
	faults(0xffffe678, READ, P | RSVD);
}

static void four_levels(void)
{
	begin_4_levels(0, EFER_NXE, 0xff12345000 | PWU | 0x7ffull << 52);
	leads_to(L4, WRITE | USER, 0xff12345678);
	EXPECT(get(ROOT + 255 * 8, 8) == (T2 | PWU | A));
	EXPECT(get(T2 + 8, 8) == (T3 | PWU | A) && get(T3 + 8, 8) == (T4 | PWU | A));
	EXPECT(get(T4 + 8, 8) == (0xff12345000 | PWU | A | D | 0x7ffull << 52));
	EXPECT(updates == 4);
	leads_to(L4, WRITE | USER, 0xff12345678);
	EXPECT(updates == 4);
	set(T3 + 8, 0xff40200000 | PWU | PS | 0x1000, 8);
	leads_to(L4, READ, 0xff40201678);
	set(T2 + 8, 0xff80000000 | PWU | PS | 0x1000, 8);
	leads_to(L4, READ, 0xff80201678);
	set(ROOT + 511 * 8, T2 | PWU, 8);
	leads_to(0xffffff8040201678, READ, 0xff80201678);
}

static void five_levels(void)
{
	begin(CR4_PAE | CR4_LA57, EFER_LONG);
	set(ROOT + 0x12 * 8, T2 | PWU, 8);
	set(T2 + 255 * 8, T3 | PWU, 8);
	set(T3 + 8, T4 | PWU, 8);
	set(T4 + 8, T5 | PWU, 8);
	set(T5 + 8, PAGE | PWU, 8);
	leads_to(0x12ull << 48 | L4, READ, PAGE | 0x678);
	EXPECT(updates == 5);
	set(ROOT + 0x12 * 8, T2 | PWU | PS, 8);
	faults(0x12ull << 48 | L4, READ, P | RSVD);
	set(ROOT + 0x12 * 8, T2 | PWU, 8);
	set(T2 + 255 * 8, T3 | PWU | PS, 8);
	faults(0x12ull << 48 | L4, READ, P | RSVD);
}

static void not_present(void)
{
	static const u64 entries[] = { ROOT + 255 * 8, T2 + 8, T3 + 8, T4 + 8 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		begin_4_levels(0, EFER_NXE, PAGE | PWU);
		set(entries[i], ~P, 8);
		faults(L4, READ, 0);
		faults(L4, WRITE, WRITE);
		faults(L4, USER | FETCH, USER | FETCH);
		EXPECT(get(entries[i], 8) == ~P);
	}
}

static void reserved_bits(void)
{
	begin_4_levels(0, 0, PAGE | PWU | NX);
	faults(L4, READ, P | RSVD);				/* without EFER.NXE */
	sregs.efer |= EFER_NXE;
	leads_to(L4, READ, PAGE | 0x678);
	set(T4 + 8, PAGE | PWU | 1ull << 40, 8);
	faults(L4, USER | WRITE, P | RSVD | USER | WRITE);
	walk.gpa_mask = (1ull << 41) - 1;
	leads_to(L4, READ, 1ull << 40 | PAGE | 0x678);
	set(T3 + 8, 0x40204000 | PWU | PS, 8);
	faults(L4, FETCH, P | RSVD | FETCH);
	set(T2 + 8, 0x40000000 | PWU | PS | 1 << 29, 8);
	faults(L4, READ, P | RSVD);
	set(ROOT + 255 * 8, T2 | PWU | PS, 8);
	faults(L4, READ, P | RSVD);
}

static void write_rights(void)
{
	static const u64 entries[] = { ROOT + 255 * 8, T2 + 8, T3 + 8, T4 + 8 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		begin_4_levels(0, 0, PAGE | PWU);
		set(entries[i], get(entries[i], 8) & ~W, 8);
		leads_to(L4, READ | USER, PAGE | 0x678);
		faults(L4, WRITE, P | WRITE);
		faults(L4, WRITE | USER, P | WRITE | USER);
		EXPECT(!(get(T4 + 8, 8) & D));
		sregs.cr0 &= ~CR0_WP;
		faults(L4, WRITE | USER, P | WRITE | USER);
		leads_to(L4, WRITE, PAGE | 0x678);
	}
}

static void user_rights(void)
{
	static const u64 entries[] = { ROOT + 255 * 8, T2 + 8, T3 + 8, T4 + 8 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		begin_4_levels(CR4_SMEP | CR4_SMAP, 0, PAGE | PWU);
		set(entries[i], get(entries[i], 8) & ~U, 8);
		faults(L4, USER, P | USER);
		faults(L4, USER | FETCH, P | USER | FETCH);
		EXPECT(!(get(T4 + 8, 8) & A));
		leads_to(L4, WRITE, PAGE | 0x678);
		leads_to(L4, FETCH, PAGE | 0x678);
		leads_to(L4, READ | WALK_IMPLICIT, PAGE | 0x678);
	}
}

static void supervisor_in_user_page(void)
{
	begin_4_levels(0, 0, PAGE | PWU);
	leads_to(L4, WRITE, PAGE | 0x678);
	leads_to(L4, FETCH, PAGE | 0x678);
	sregs.cr4 |= CR4_SMEP;
	faults(L4, FETCH, P | FETCH);
	leads_to(L4, FETCH | USER, PAGE | 0x678);
	leads_to(L4, READ, PAGE | 0x678);
	sregs.cr4 |= CR4_SMAP;
	faults(L4, READ, P);
	faults(L4, WRITE, P | WRITE);
	leads_to(L4, WRITE | USER, PAGE | 0x678);
	walk.rflags = FLAGS_AC;
	leads_to(L4, WRITE, PAGE | 0x678);
	faults(L4, READ | WALK_IMPLICIT, P);
}

static void no_execute(void)
{
	static const u64 entries[] = { ROOT + 255 * 8, T2 + 8, T3 + 8, T4 + 8 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		begin_4_levels(0, EFER_NXE, PAGE | PWU);
		leads_to(L4, FETCH | USER, PAGE | 0x678);
		set(entries[i], get(entries[i], 8) | NX, 8);
		faults(L4, FETCH | USER, P | FETCH | USER);
		faults(L4, FETCH, P | FETCH);
		leads_to(L4, WRITE | USER, PAGE | 0x678);
	}
}

static void no_protection_keys(void)
{
	begin_4_levels(0, EFER_NXE, PAGE | PWU | 5ull << 59);
	leads_to(L4, WRITE | USER, PAGE | 0x678);
}

/* Another CPU moves the page, once, just before our update: the walk must see the new place. */
static void page_moves(void)
{
	meanwhile = NULL;
	set(T4 + 8, 0x777000 | PWU, 8);
}

static void page_vanishes(void)
{
	meanwhile = NULL;
	set(T4 + 8, 0, 8);
}

static void page_flickers(void)
{
	set(ROOT + 255 * 8, get(ROOT + 255 * 8, 8) ^ 0x200, 8);
}

static void changes_meanwhile(void)
{
	begin_4_levels(0, 0, PAGE | PWU);
	meanwhile = page_moves;
	leads_to(L4, WRITE, 0x777678);
	EXPECT(get(T4 + 8, 8) == (0x777000 | PWU | A | D));
	begin_4_levels(0, 0, PAGE | PWU);
	leads_to(L4, READ, PAGE | 0x678);
	meanwhile = page_vanishes;
	faults(L4, WRITE, WRITE);
	begin_4_levels(0, 0, PAGE | PWU);
	meanwhile = page_flickers;
	EXPECT(walk_translate(&walk, L4, READ, &result) == -ELOOP);
}

static void tables_not_there(void)
{
	begin_4_levels(0, 0, PAGE | PWU);
	set(T3 + 8, 0x100000 | PWU, 8);
	EXPECT(walk_translate(&walk, L4, READ, &result) == -EFAULT);
	sregs.cr3 = 0xffffffffff000;
	EXPECT(walk_translate(&walk, L4, READ, &result) == -EFAULT);
}

static const struct unit_test tests[] = {
	{ "no paging", no_paging },
	{ "32-bit, two levels", two_levels },
	{ "32-bit, 4M pages and PSE-36", four_megabytes },
	{ "PAE", pae },
	{ "four levels, 4K, 2M and 1G", four_levels },
	{ "five levels", five_levels },
	{ "not present", not_present },
	{ "reserved bits", reserved_bits },
	{ "the right to write", write_rights },
	{ "the user's rights", user_rights },
	{ "SMEP and SMAP", supervisor_in_user_page },
	{ "no-execute", no_execute },
	{ "protection keys are not there", no_protection_keys },
	{ "entries that change meanwhile", changes_meanwhile },
	{ "tables that are not there", tables_not_there },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
