// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Second-level page tables, one thread: single cases by hand, then random programs against the
 * model of stage2_model.c.
 */
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/stage2_cpu.h"
#include "selftests/unit/stage2_look.h"
#include "selftests/unit/stage2_model.h"
#include "selftests/unit/unit.h"

#define K4	0x1000ULL
#define M2	0x200000ULL
#define G1	0x40000000ULL
#define RW	STAGE2_WRITE
#define RX	STAGE2_EXEC
#define RWX	(STAGE2_WRITE | STAGE2_EXEC)

static struct {
	struct stage2 s2;
	long tables;
	long left;			/* that the allocator still gives; negative: any number */
	struct stage2_leaf removed;	/* the last one */
	int count;			/* of leaves removed */
	void (*meanwhile)(void);	/* happens once, in the middle of a mapping */
} t;

static void *table_alloc(void *ctx, void *cache)
{
	void (*meanwhile)(void) = t.meanwhile;
	void *table;

	(void)ctx;
	(void)cache;
	t.meanwhile = NULL;
	if (meanwhile)
		meanwhile();
	if (!t.left)
		return NULL;
	t.left -= t.left > 0;
	table = aligned_alloc(K4, K4);
	if (!table)
		abort();
	t.tables++;
	return memset(table, 0, K4);
}

static void table_free(void *ctx, void *table)
{
	(void)ctx;
	t.tables--;
	free(table);
}

static void leaf_removed(void *ctx, u64 gpa, int level, u64 value)
{
	(void)ctx;
	t.removed = stage2_leaf_of(&t.s2, gpa, level, value);
	t.count++;
}

static const struct stage2_ops ops = {
	.table_alloc = table_alloc,
	.table_free = table_free,
	.leaf_removed = leaf_removed,
};

static void start(const struct stage2_format *format, int levels)
{
	memset(&t, 0, sizeof(t));
	t.left = -1;
	EXPECT(stage2_init(&t.s2, format, levels, &ops, NULL) == 0);
}

static void finish(void)
{
	stage2_destroy(&t.s2);
	EXPECT(t.tables == 0);
	EXPECT(atomic64_read(&t.s2.tables) == 0);
	EXPECT(atomic64_read(&t.s2.leaves[1]) == 0);
	EXPECT(atomic64_read(&t.s2.leaves[2]) == 0);
	EXPECT(atomic64_read(&t.s2.leaves[3]) == 0);
	stage2_destroy(&t.s2);
	EXPECT(t.tables == 0);
}

static int map(u64 gpa, u64 hpa, int level, unsigned int prot)
{
	return stage2_map(&t.s2, gpa, hpa, level, prot, NULL);
}

static unsigned int flags_at(u64 gpa)
{
	struct stage2_leaf leaf = { 0 };

	return stage2_lookup(&t.s2, gpa, &leaf) ? leaf.flags : ~0u;
}

static int level_at(u64 gpa)
{
	struct stage2_leaf leaf = { 0 };

	return stage2_lookup(&t.s2, gpa, &leaf) ? leaf.level : 0;
}

/* The entry for gpa at a level, found by address arithmetic alone. */
static u64 raw(u64 gpa, int level)
{
	u64 value = (uintptr_t)t.s2.root;
	int l;

	for (l = t.s2.levels; l >= level; l--) {
		u64 *table = (u64 *)(uintptr_t)(value & 0x000ffffffffff000ULL & ~t.s2.encrypt);

		value = table[gpa >> (12 + 9 * (l - 1)) & 511];
	}
	return value;
}

/* Values from AMD APM vol. 2: P 0, R/W 1, U/S 2, A 5, D 6, PS 7, NX 63. */
static void test_npt_bits(void)
{
	start(&stage2_npt, 4);
	EXPECT(map(0x5000, 0x123456000, 1, RWX) == 0);
	EXPECT(raw(0x5000, 1) == (0x123456000 | 0x27));
	EXPECT((raw(0x5000, 2) & 0xfff0000000000fffULL) == 0x27);
	EXPECT((raw(0x5000, 4) & 0xfff0000000000fffULL) == 0x27);
	EXPECT(map(0x6000, 0x123457000, 1, 0) == 0);
	EXPECT(raw(0x6000, 1) == (0x123457000 | 0x25 | 1ULL << 63));
	EXPECT(map(M2, 0xc0000000, 2, RX) == 0);
	EXPECT(raw(M2, 2) == (0xc0000000 | 0xa5));
	EXPECT(map(G1, 0xffffc0000000, 3, RW) == 0);
	EXPECT(raw(G1, 3) == (0xffffc0000000 | 0xa7 | 1ULL << 63));
	finish();
}

/* Values from Intel SDM vol. 3: R 0, W 1, X 2, type 5:3, ignore PAT 6, large 7, A 8, D 9. */
static void test_ept_bits(void)
{
	start(&stage2_ept, 4);
	EXPECT(map(0x5000, 0x123456000, 1, RWX) == 0);
	EXPECT(raw(0x5000, 1) == (0x123456000 | 0x177));
	EXPECT((raw(0x5000, 2) & 0xfff0000000000fffULL) == 0x107);
	EXPECT((raw(0x5000, 4) & 0xfff0000000000fffULL) == 0x107);
	EXPECT(map(0x6000, 0x123457000, 1, 0) == 0);
	EXPECT(raw(0x6000, 1) == (0x123457000 | 0x171));
	EXPECT(map(M2, 0xc0000000, 2, RX) == 0);
	EXPECT(raw(M2, 2) == (0xc0000000 | 0x1f5));
	EXPECT(map(G1, 0xffffc0000000, 3, RW) == 0);
	EXPECT(raw(G1, 3) == (0xffffc0000000 | 0x1f3));
	finish();
}

static void test_bounds(void)
{
	struct stage2 bad = { 0 };
	struct stage2_leaf leaf;

	EXPECT(stage2_init(&bad, &stage2_npt, 3, &ops, NULL) == -EINVAL);
	EXPECT(stage2_init(&bad, &stage2_npt, 6, &ops, NULL) == -EINVAL);
	start(&stage2_npt, 4);
	EXPECT(stage2_limit(&t.s2) == 1ULL << 48);
	EXPECT(map(1ULL << 48, 0, 1, RW) == -EINVAL);
	EXPECT(map(~0ULL << 12, 0, 1, RW) == -EINVAL);
	EXPECT(map((1ULL << 48) - K4, (1ULL << 52) - K4, 1, RW) == 0);
	EXPECT(map(0, 1ULL << 52, 1, RW) == -EINVAL);
	EXPECT(map(0x800, 0, 1, RW) == -EINVAL);
	EXPECT(map(0, 0x800, 1, RW) == -EINVAL);
	EXPECT(map(K4, M2, 2, RW) == -EINVAL);
	EXPECT(map(M2, K4, 2, RW) == -EINVAL);
	EXPECT(map(M2, G1, 3, RW) == -EINVAL);
	EXPECT(map(G1, M2, 3, RW) == -EINVAL);
	EXPECT(map(0, 0, 0, RW) == -EINVAL);
	EXPECT(map(0, 0, 4, RW) == -EINVAL);
	EXPECT(map(0, 0, 1, STAGE2_DIRTY) == -EINVAL);
	EXPECT(!stage2_lookup(&t.s2, 1ULL << 48, &leaf));
	EXPECT(!stage2_lookup(&t.s2, ~0ULL, &leaf));
	EXPECT(stage2_lookup(&t.s2, (1ULL << 48) - 1, &leaf));
	finish();
	start(&stage2_ept, 5);
	EXPECT(stage2_limit(&t.s2) == 1ULL << 52);
	EXPECT(map(1ULL << 52, 0, 1, RW) == -EINVAL);
	EXPECT(map((1ULL << 52) - K4, 0, 1, RW) == 0);
	finish();
}

/* Ranges that no address space has: nothing happens, or what is left of them is done. */
static void test_ranges(void)
{
	u64 next = 0;

	start(&stage2_npt, 4);
	EXPECT(map(3 * K4, 0x9000, 1, RW) == 0);
	EXPECT(!stage2_zap(&t.s2, 4 * K4, 3 * K4, &next));
	EXPECT(next == 3 * K4);
	EXPECT(!stage2_zap(&t.s2, 3 * K4, 3 * K4, NULL));
	EXPECT(!stage2_zap(&t.s2, 1ULL << 48, ~0ULL, &next));
	EXPECT(next == ~0ULL);
	EXPECT(!stage2_wrprotect(&t.s2, ~0ULL, 0));
	EXPECT(!stage2_wrprotect_mask(&t.s2, ~0ULL << 12, ~0ULL << 1));
	EXPECT(stage2_age(&t.s2, 0, ~0ULL, false));
	EXPECT(!stage2_age(&t.s2, 0, 3 * K4, false));
	EXPECT(stage2_age(&t.s2, 0, 3 * K4 + 1, false));
	EXPECT(stage2_age(&t.s2, 4 * K4 - 1, 4 * K4, false));
	EXPECT(!stage2_age(&t.s2, 4 * K4, 5 * K4, false));
	EXPECT(stage2_zap(&t.s2, 4 * K4 - 1, ~0ULL, &next));
	EXPECT(next == ~0ULL);
	EXPECT(level_at(3 * K4) == 0);
	finish();
	EXPECT(!stage2_zap(&t.s2, 0, ~0ULL, NULL));
}

static void test_map_again(void)
{
	start(&stage2_npt, 4);
	EXPECT(map(K4, 0x9000, 1, 0) == 0);
	EXPECT(map(K4, 0x9000, 1, 0) == 0);
	EXPECT(flags_at(K4) == STAGE2_ACCESSED);
	EXPECT(map(K4, 0x9000, 1, RW) == 0);
	EXPECT(flags_at(K4) == (STAGE2_ACCESSED | RW));
	EXPECT(map(K4, 0x9000, 1, RX) == 0);
	EXPECT(flags_at(K4) == (STAGE2_ACCESSED | RWX));
	EXPECT(map(K4, 0xa000, 1, RW) == -EAGAIN);
	EXPECT(map(0, 0, 2, RW) == -EEXIST);
	EXPECT(map(0, 0, 3, RW) == -EEXIST);
	EXPECT(map(M2, 0, 2, RW) == 0);
	EXPECT(map(M2, M2, 2, RWX) == -EAGAIN);
	EXPECT(map(M2 + K4, K4, 1, RW) == 0);
	EXPECT(map(M2 + K4, 5 * K4, 1, RW) == -EAGAIN);
	EXPECT(level_at(M2 + K4) == 2);
	EXPECT(atomic64_read(&t.s2.leaves[1]) == 1);
	EXPECT(atomic64_read(&t.s2.leaves[2]) == 1);
	EXPECT(t.tables == 4);
	finish();
}

/* A large leaf without a right that one of its pages shall have. */
static void test_split(void)
{
	struct stage2_leaf leaf;

	start(&stage2_ept, 4);
	EXPECT(map(0, 4 * G1, 3, RX) == 0);
	EXPECT(map(5 * M2 + 7 * K4, 4 * G1 + 5 * M2 + 7 * K4, 1, RW) == 0);
	EXPECT(t.tables == 4);
	EXPECT(atomic64_read(&t.s2.leaves[3]) == 0);
	EXPECT(atomic64_read(&t.s2.leaves[2]) == 511);
	EXPECT(atomic64_read(&t.s2.leaves[1]) == 512);
	EXPECT(flags_at(5 * M2 + 7 * K4) == (STAGE2_ACCESSED | RWX));
	EXPECT(flags_at(5 * M2 + 6 * K4) == (STAGE2_ACCESSED | RX));
	EXPECT(flags_at(6 * M2) == (STAGE2_ACCESSED | RX));
	EXPECT(stage2_lookup(&t.s2, G1 - 1, &leaf));
	EXPECT(leaf.level == 2 && leaf.gpa == G1 - M2 && leaf.hpa == 5 * G1 - M2);
	EXPECT(stage2_lookup(&t.s2, 6 * M2 - 1, &leaf));
	EXPECT(leaf.level == 1 && leaf.hpa == 4 * G1 + 6 * M2 - K4);
	EXPECT(raw(5 * M2, 1) == (4 * G1 + 5 * M2) + 0x175);
	EXPECT(raw(6 * M2, 2) == (4 * G1 + 6 * M2) + 0x1f5);
	finish();
}

static void test_zap(void)
{
	start(&stage2_npt, 4);
	EXPECT(map(0, 0, 2, RW) == 0);
	EXPECT(map(M2, 8 * M2, 1, RW) == 0);
	EXPECT(map(M2 + K4, 8 * M2 + K4, 1, RW) == 0);
	EXPECT(t.tables == 4);
	EXPECT(!stage2_zap(&t.s2, M2 + 2 * K4, G1, NULL));
	EXPECT(t.count == 0);
	/* The last page of a large leaf takes all of it. */
	EXPECT(stage2_zap(&t.s2, M2 - K4, M2 + K4, NULL));
	EXPECT(t.count == 2 && level_at(0) == 0 && level_at(M2) == 0 && level_at(M2 + K4) == 1);
	EXPECT(t.tables == 4);
	EXPECT(stage2_zap(&t.s2, M2 + K4, M2 + 2 * K4, NULL));
	EXPECT(t.removed.gpa == M2 + K4 && t.removed.hpa == 8 * M2 + K4 && t.removed.level == 1);
	EXPECT(t.removed.flags == (STAGE2_ACCESSED | RW));
	EXPECT(t.tables == 1);
	/* Small mappings gone, a large one fits. */
	EXPECT(map(0, 0, 3, RW) == 0);
	finish();
	EXPECT(t.count == 4);
}

static void test_zap_resumed(void)
{
	u64 next = 0, before;
	int i, calls = 0;

	start(&stage2_npt, 5);
	for (i = 0; i < 1500; i++)
		EXPECT(map(i * K4, i * K4, 1, RW) == 0);
	EXPECT(t.tables == 7);
	t.s2.budget = 100;
	do {
		before = t.count;
		EXPECT(stage2_zap(&t.s2, next, 1500 * K4, &next));
		EXPECT(t.count - before <= 100);
		EXPECT(next == 100ULL * K4 * ++calls);
	} while (next < 1500 * K4);
	EXPECT(calls == 15 && t.count == 1500 && t.tables == 1);
	/* No budget at all must not mean no progress. */
	EXPECT(map(0, 0, 1, RW) == 0);
	t.s2.budget = 0;
	EXPECT(stage2_zap(&t.s2, 0, K4 * 2, &next) && next == K4 && t.count == 1501);
	finish();
}

static void test_wrprotect_mask(void)
{
	u64 base = M2 - 10 * K4;
	int i;

	start(&stage2_ept, 4);
	for (i = 0; i < 64; i++)
		EXPECT(map(base + i * K4, i * K4, 1, RW) == 0);
	EXPECT(stage2_wrprotect_mask(&t.s2, base, 0x8000000000000c01ULL));
	for (i = 0; i < 64; i++) {
		bool hit = i == 0 || i == 10 || i == 11 || i == 63;

		EXPECT(flags_at(base + i * K4) == (STAGE2_ACCESSED | (hit ? 0 : RW)));
	}
	EXPECT(!stage2_wrprotect_mask(&t.s2, base, 0x8000000000000c01ULL));
	EXPECT(!stage2_wrprotect_mask(&t.s2, base, 0));
	EXPECT(!stage2_wrprotect_mask(&t.s2, 5 * G1, ~0ULL));
	EXPECT(map(G1, G1, 2, RW) == 0);
	EXPECT(stage2_wrprotect_mask(&t.s2, G1, 4));
	EXPECT(level_at(G1) == 2 && flags_at(G1) == STAGE2_ACCESSED);
	finish();
}

static void test_age(void)
{
	start(&stage2_npt, 4);
	EXPECT(map(0, 0, 1, RW) == 0);
	EXPECT(map(M2, M2, 2, RW) == 0);
	EXPECT(stage2_age(&t.s2, 0, G1, false));
	EXPECT(stage2_age(&t.s2, 0, K4, true));
	EXPECT(!stage2_age(&t.s2, 0, M2, true));
	EXPECT(stage2_age(&t.s2, M2 + K4, M2 + 2 * K4, true));
	EXPECT(!stage2_age(&t.s2, 0, G1, false));
	EXPECT(flags_at(0) == RW && flags_at(M2) == RW);
	finish();
}

/* A page that was written is told of when its leaf goes, whatever happened in between. */
static void test_dirty(bool ept)
{
	struct cpu cpu;
	u64 hpa;

	start(ept ? &stage2_ept : &stage2_npt, 4);
	cpu = (struct cpu){ stage2_root_address(&t.s2), 0, 4, ept };
	EXPECT(map(0, 0, 2, RW) == 0);
	EXPECT(cpu_access(&cpu, 3 * K4, CPU_READ, true, &hpa) == CPU_OK);
	EXPECT(!(flags_at(0) & STAGE2_DIRTY));
	EXPECT(cpu_access(&cpu, 3 * K4, CPU_WRITE, true, &hpa) == CPU_OK);
	EXPECT(flags_at(0) & STAGE2_DIRTY);
	EXPECT(stage2_wrprotect(&t.s2, 0, K4));
	EXPECT(cpu_access(&cpu, 3 * K4, CPU_WRITE, true, &hpa) == CPU_NOT_ALLOWED);
	EXPECT(map(5 * K4, 5 * K4, 1, RW) == 0);
	EXPECT(stage2_zap(&t.s2, 3 * K4, 4 * K4, NULL));
	EXPECT(t.count == 1 && t.removed.gpa == 3 * K4);
	EXPECT(t.removed.flags == (STAGE2_ACCESSED | STAGE2_DIRTY));
	finish();
}

static void test_dirty_npt(void)
{
	test_dirty(false);
}

static void test_dirty_ept(void)
{
	test_dirty(true);
}

/* The allocator fails at each point: nothing is lost, and the next attempt goes on from there. */
static void test_exhaustion(void)
{
	long allowed;

	start(&stage2_npt, 5);
	for (allowed = 0; allowed < 4; allowed++) {
		t.left = allowed;
		EXPECT(map(0, 0, 1, RW) == -ENOMEM);
		EXPECT(level_at(0) == 0 && t.tables == 1 + allowed);
		t.left = -1;
		EXPECT(stage2_zap(&t.s2, 0, K4, NULL) == !!allowed);
		EXPECT(t.tables == 1 && t.count == 0);
	}
	t.left = 4;
	EXPECT(map(0, 0, 1, RW) == 0 && t.left == 0);
	t.left = -1;
	EXPECT(map(G1, G1, 3, 0) == 0);
	for (allowed = 0; allowed < 2; allowed++) {
		t.left = 0;
		EXPECT(map(G1, G1, 1, RW) == -ENOMEM);
		EXPECT(level_at(G1) == 3 - allowed && !(flags_at(G1) & STAGE2_WRITE));
		t.left = 1;
		EXPECT(map(G1, G1, 1, RW) == (allowed ? 0 : -ENOMEM));
	}
	EXPECT(level_at(G1) == 1);
	finish();
	memset(&t, 0, sizeof(t));
	EXPECT(stage2_init(&t.s2, &stage2_npt, 4, &ops, NULL) == -ENOMEM);
	stage2_destroy(&t.s2);
}

/* What other CPUs do between the look at an entry and its change; the allocator is called there. */

static void map_neighbour(void)
{
	EXPECT(map(2 * M2, 2 * M2, 2, RW) == 0);
}

static void map_sibling(void)
{
	EXPECT(map(K4, K4, 1, RW) == 0);
}

static void read_page(void)
{
	struct cpu cpu = { stage2_root_address(&t.s2), 0, 4, false };
	u64 hpa;

	EXPECT(cpu_access(&cpu, 9 * K4, CPU_READ, true, &hpa) == CPU_OK);
}

static void test_lost_link(void)
{
	start(&stage2_npt, 4);
	t.meanwhile = map_neighbour;
	EXPECT(map(0, 0, 1, RW) == 0);
	/* The table that lost at the top serves at the bottom. */
	EXPECT(t.tables == 4 && level_at(0) == 1 && level_at(2 * M2) == 2);
	EXPECT(level_at(K4) == 0);
	finish();
	start(&stage2_npt, 4);
	t.meanwhile = map_sibling;
	EXPECT(map(0, 0, 1, RW) == 0);
	EXPECT(t.tables == 4 && atomic64_read(&t.s2.tables) == 4);
	EXPECT(level_at(0) == 1 && level_at(K4) == 1 && level_at(2 * K4) == 0);
	finish();
	start(&stage2_npt, 4);
	t.meanwhile = map_sibling;
	EXPECT(map(0, 0, 2, RW) == -EEXIST);
	EXPECT(t.tables == 4 && level_at(K4) == 1);
	finish();
}

static void test_lost_split(void)
{
	start(&stage2_npt, 4);
	EXPECT(map(0, 0, 2, 0) == 0);
	t.meanwhile = map_sibling;
	EXPECT(map(0, 0, 1, RW) == 0);
	EXPECT(t.tables == 4 && atomic64_read(&t.s2.tables) == 4);
	EXPECT(atomic64_read(&t.s2.leaves[1]) == 512 && atomic64_read(&t.s2.leaves[2]) == 0);
	EXPECT(flags_at(0) == flags_at(K4) && flags_at(0) == (STAGE2_ACCESSED | RW));
	EXPECT(flags_at(2 * K4) == STAGE2_ACCESSED);
	finish();
	/* The CPU's note must not be lost by a split that began before it. */
	start(&stage2_npt, 4);
	EXPECT(map(0, 0, 2, 0) == 0);
	EXPECT(stage2_age(&t.s2, 0, K4, true) && flags_at(9 * K4) == 0);
	t.meanwhile = read_page;
	EXPECT(map(0, 0, 1, RW) == 0);
	EXPECT(level_at(9 * K4) == 1 && flags_at(9 * K4) == STAGE2_ACCESSED);
	EXPECT(t.tables == 4);
	finish();
}

/* With SME, each entry and the root have the C-bit, and addresses given back have not. */
static void test_encrypt(void)
{
	struct stage2_leaf leaf;
	struct cpu cpu;
	u64 bit = 1ULL << 51, hpa = 0;

	start(&stage2_npt, 4);
	t.s2.encrypt = bit;
	cpu = (struct cpu){ stage2_root_address(&t.s2), bit, 4, false };
	EXPECT(cpu.root == (bit | (uintptr_t)t.s2.root));
	EXPECT(map(0, bit, 1, RW) == -EINVAL);
	EXPECT(map(M2, 6 * M2, 2, 0) == 0);
	EXPECT(map(M2 + K4, 6 * M2 + K4, 1, RW) == 0);
	EXPECT(cpu_access(&cpu, M2 + K4 + 5, CPU_WRITE, false, &hpa) == CPU_OK);
	EXPECT(hpa == 6 * M2 + K4 + 5);
	EXPECT(stage2_lookup(&t.s2, M2, &leaf) && leaf.hpa == 6 * M2);
	finish();
}

/* Random programs. Not the C library's generator: the same numbers everywhere. */
static void fill_random(u8 *bytes, size_t size, u64 seed)
{
	u64 state = seed * 0x9e3779b97f4a7c15ULL + 1;
	size_t i;

	for (i = 0; i < size; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		bytes[i] = state >> 32;
	}
}

static void test_model(bool ept, int levels)
{
	static u8 program[20000];
	const char *failure;
	u64 seed;
	int line;

	for (seed = 1; seed <= 5; seed++) {
		fill_random(program, sizeof(program), seed + 100 * ept + 1000 * levels);
		failure = stage2_model_run(program, sizeof(program), ept, levels, &line);
		if (failure)
			printf("# seed %d, stage2_model.c:%d: %s\n", (int)seed, line, failure);
		EXPECT(!failure);
	}
}

static void test_model_npt4(void)
{
	test_model(false, 4);
}

static void test_model_npt5(void)
{
	test_model(false, 5);
}

static void test_model_ept4(void)
{
	test_model(true, 4);
}

static void test_model_ept5(void)
{
	test_model(true, 5);
}

static const struct unit_test tests[] = {
	{ "NPT entries are as AMD's manual has them", test_npt_bits },
	{ "EPT entries are as Intel's manual has them", test_ept_bits },
	{ "levels, alignment and reach are checked", test_bounds },
	{ "ranges are narrowed to what exists", test_ranges },
	{ "mapping what is mapped adds rights or refuses", test_map_again },
	{ "a large leaf is split for the right of one page", test_split },
	{ "zap removes leaves and empty tables", test_zap },
	{ "a long zap returns in between", test_zap_resumed },
	{ "write protection by mask", test_wrprotect_mask },
	{ "ageing", test_age },
	{ "NPT: no written page is forgotten", test_dirty_npt },
	{ "EPT: no written page is forgotten", test_dirty_ept },
	{ "no memory for a table, at each point", test_exhaustion },
	{ "another mapper is first with a table", test_lost_link },
	{ "another mapper, or the CPU, is first with a split", test_lost_split },
	{ "encrypted memory", test_encrypt },
	{ "model: NPT, 4 levels", test_model_npt4 },
	{ "model: NPT, 5 levels", test_model_npt5 },
	{ "model: EPT, 4 levels", test_model_ept4 },
	{ "model: EPT, 5 levels", test_model_ept5 },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
