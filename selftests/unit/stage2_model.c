// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The model is an array: for each 4K page of a window of two gigabytes the level of the leaf that
 * maps it, what the leaf allows, and what the CPU noted. The window lies across the border of two
 * entries of the root. All that the tables can be asked has an answer in the array: which tables
 * exist, too.
 *
 * A program is a string of bytes, so that a random generator and a fuzzer can both write one. Each
 * operation is done on the tables and on the array, and results are compared; every so often, and
 * at the end, all of the two are compared, and a CPU's view of the tables with them.
 */
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/stage2_cpu.h"
#include "selftests/unit/stage2_look.h"
#include "selftests/unit/stage2_model.h"

#define PAGE		4096ULL
#define GIGABYTE_PAGES	(1u << 18)
#define PAGES		(2 * GIGABYTE_PAGES)
#define OPS_PER_CHECK	256

struct page {
	u8 level;	/* 0: not mapped */
	u8 flags;
	u8 variant;	/* which of two places in host memory */
};

static struct page pages[PAGES];

static struct model {
	struct stage2 s2;
	struct cpu cpu;
	u64 base;
	long tables;		/* given out by the allocator */
	long left;		/* that the allocator still gives, negative: any number */
	u64 zap_start, zap_end;
	unsigned long removed;
	const char *failure;
	int line;
	const u8 *program;
	size_t size;
} model;

static void require(bool holds, const char *what, int line)
{
	if (holds || model.failure)
		return;
	model.failure = what;
	model.line = line;
}

#define REQUIRE(what) require(what, #what, __LINE__)

static u8 next_byte(void)
{
	if (!model.size)
		return 0;
	model.size--;
	return *model.program++;
}

/* Pages, by number in the window. */

static u32 level_pages(int level)
{
	return 1u << (9 * (level - 1));
}

static u32 first_of(u32 page, int level)
{
	return page & ~(level_pages(level) - 1);
}

static u64 page_gpa(u32 page)
{
	return model.base + page * PAGE;
}

static u64 page_hpa(u32 page, int variant)
{
	return (variant + 1ULL) << 40 | page * PAGE;
}

/* Few gigabytes, few large pages, and the borders often: so that operations meet. */
static u32 next_page(void)
{
	static const u16 favourites[] = { 0, 1, 255, 511 };
	u8 where = next_byte();
	u32 large = favourites[where >> 1 & 3], small = favourites[where >> 3 & 3];

	if (where & 0x20)
		large = next_byte() * 2;
	if (where & 0xc0)
		small = next_byte() * 2 + (where >> 7);
	return (where & 1) * GIGABYTE_PAGES + large * 512 + small;
}

/* A range that begins at next_page(), and is short mostly. */
static void next_range(u32 *ret_first, u32 *ret_end)
{
	u8 length = next_byte();
	u32 count = 1 + (length & 15), first = next_page();

	if (length >= 0xc0)
		count *= 512;
	else if (length >= 0x80)
		count *= 37;
	if (length == 0xff)
		count = PAGES;
	*ret_first = first;
	*ret_end = count < PAGES - first ? first + count : PAGES;
}

/* The owner's functions. */

static void *table_alloc(void *ctx, void *cache)
{
	void *table;

	REQUIRE(ctx == &model);
	REQUIRE(!cache || cache == pages);
	if (!model.left)
		return NULL;
	model.left -= model.left > 0;
	table = aligned_alloc(PAGE, PAGE);
	if (!table)
		abort();
	model.tables++;
	return memset(table, 0, PAGE);
}

static void table_free(void *ctx, void *table)
{
	REQUIRE(ctx == &model);
	model.tables--;
	free(table);
}

static void clear_pages(u32 first, u32 count)
{
	memset(&pages[first], 0, count * sizeof(pages[0]));
}

static void leaf_removed(void *ctx, u64 gpa, int level, u64 value)
{
	struct stage2_leaf leaf = stage2_leaf_of(&model.s2, gpa, level, value);
	u32 page = (leaf.gpa - model.base) / PAGE;

	REQUIRE(ctx == &model);
	REQUIRE(leaf.gpa >= model.base && page < PAGES);
	if (model.failure)
		return;
	REQUIRE(pages[page].level == leaf.level);
	REQUIRE(pages[page].flags == leaf.flags);
	REQUIRE(page_hpa(page, pages[page].variant) == leaf.hpa);
	REQUIRE(leaf.gpa < model.zap_end);
	REQUIRE(leaf.gpa + stage2_level_size(leaf.level) > model.zap_start);
	if (model.failure)
		return;
	clear_pages(page, level_pages(leaf.level));
	model.removed++;
}

static const struct stage2_ops ops = {
	.table_alloc = table_alloc,
	.table_free = table_free,
	.leaf_removed = leaf_removed,
};

/* Comparing. */

static bool any_mapped(u32 first, u32 count, int max_level)
{
	u32 i;

	for (i = first; i < first + count; i++)
		if (pages[i].level && pages[i].level <= max_level)
			return true;
	return false;
}

/* Each gigabyte of the window has a table of each level of its own, under the root. */
static long expected_tables(void)
{
	long tables = 1;
	u32 i;

	for (i = 0; i < PAGES; i += GIGABYTE_PAGES) {
		if (any_mapped(i, GIGABYTE_PAGES, 3))
			tables += model.s2.levels - 3;
		tables += any_mapped(i, GIGABYTE_PAGES, 2);
	}
	for (i = 0; i < PAGES; i += 512)
		tables += any_mapped(i, 512, 1);
	return tables;
}

static void check_cpu(u32 page)
{
	const struct page *p = &pages[page];
	enum cpu_result mapped = p->level ? CPU_OK : CPU_NOT_PRESENT, result;
	u64 hpa = 0;

	result = cpu_access(&model.cpu, page_gpa(page) + 0x123, CPU_READ, false, &hpa);
	REQUIRE(result == mapped);
	REQUIRE(result != CPU_OK || hpa == page_hpa(page, p->variant) + 0x123);
	result = cpu_access(&model.cpu, page_gpa(page), CPU_WRITE, false, &hpa);
	REQUIRE(result == (p->level && !(p->flags & STAGE2_WRITE) ? CPU_NOT_ALLOWED : mapped));
	result = cpu_access(&model.cpu, page_gpa(page), CPU_FETCH, false, &hpa);
	REQUIRE(result == (p->level && !(p->flags & STAGE2_EXEC) ? CPU_NOT_ALLOWED : mapped));
}

/* Compares one page; returns the first one that this says nothing of. */
static u32 check_page(u32 page)
{
	const struct page *p = &pages[page];
	struct stage2_leaf leaf = { .level = 1 };
	u32 first;
	u64 end;		/* an empty entry may reach far behind the window */

	if (!stage2_lookup(&model.s2, page_gpa(page) + 0xfff, &leaf)) {
		end = (leaf.gpa + stage2_level_size(leaf.level) - model.base) / PAGE;
		end = end < PAGES ? end : PAGES;
		REQUIRE(!any_mapped(page, end - page, 3));
		return end;
	}
	REQUIRE(leaf.level == p->level);
	REQUIRE(leaf.flags == p->flags);
	if (model.failure)
		return PAGES;
	first = first_of(page, leaf.level);
	REQUIRE(leaf.gpa == page_gpa(first));
	REQUIRE(leaf.hpa == page_hpa(first, p->variant));
	return first + level_pages(leaf.level);
}

static void check_all(void)
{
	long leaves[4] = { 0 };
	u32 page, next;

	for (page = 0; page < PAGES && !model.failure; page = next) {
		next = check_page(page);
		check_cpu(page);
		leaves[pages[page].level]++;
	}
	if (model.failure)
		return;
	REQUIRE(atomic64_read(&model.s2.leaves[1]) == leaves[1]);
	REQUIRE(atomic64_read(&model.s2.leaves[2]) == leaves[2]);
	REQUIRE(atomic64_read(&model.s2.leaves[3]) == leaves[3]);
	REQUIRE(atomic64_read(&model.s2.tables) == expected_tables());
	REQUIRE(model.tables == expected_tables());
}

/* Operations on the model. */

static void model_fill(u32 first, int level, struct page page)
{
	u32 i;

	for (i = first; i < first + level_pages(level); i++)
		pages[i] = page;
}

static int model_map(u32 first, int level, u8 prot, u8 variant)
{
	struct page page = pages[first];

	if (page.level < level) {
		if (any_mapped(first, level_pages(level), 3))
			return -EEXIST;
		page = (struct page){ level, prot | STAGE2_ACCESSED, variant };
		model_fill(first, level, page);
		return 0;
	}
	if (page.variant != variant)
		return -EAGAIN;
	if (page.level > level && (page.flags & prot) == prot)
		return 0;
	for (; page.level > level; page.level--) {
		struct page smaller = page;

		smaller.level--;
		model_fill(first_of(first, page.level), page.level, smaller);
	}
	page.flags |= prot;
	model_fill(first, level, page);
	return 0;
}

static bool model_clear(u32 first, u32 end, u8 flag, bool clear)
{
	bool found = false;
	struct page page;
	u32 i;

	for (i = first; i < end; i++) {
		page = pages[i];
		if (!page.level || !(page.flags & flag))
			continue;
		found = true;
		page.flags &= ~flag;
		if (clear)
			model_fill(first_of(i, page.level), page.level, page);
	}
	return found;
}

/* Operations on both. */

static int next_level(void)
{
	u8 byte = next_byte();

	return byte < 2 ? 3 : byte < 48 ? 2 : 1;
}

static void do_map(void)
{
	int level = next_level(), result;
	u32 page = first_of(next_page(), level);
	u8 how = next_byte(), prot = how & 3, variant = how >> 2 == 7;
	u64 gpa = page_gpa(page), hpa = page_hpa(page, variant);

	if (how >> 5 == 5)
		model.left = how >> 2 & 3;
	result = stage2_map(&model.s2, gpa, hpa, level, prot, pages);
	if (result == -ENOMEM) {
		REQUIRE(!model.left);
		model.left = -1;
		result = stage2_map(&model.s2, gpa, hpa, level, prot, pages);
	}
	model.left = -1;
	REQUIRE(result == model_map(page, level, prot, variant));
}

static void do_zap(void)
{
	bool resumable = next_byte() & 1, flush = false;
	u32 first, end;
	u64 next, before;

	next_range(&first, &end);
	model.zap_start = page_gpa(first);
	model.zap_end = page_gpa(end);
	model.removed = 0;
	model.s2.budget = next_byte();
	if (!resumable)
		flush = stage2_zap(&model.s2, model.zap_start, model.zap_end, NULL);
	for (next = model.zap_start; resumable && next < model.zap_end && !model.failure;) {
		before = next;
		flush |= stage2_zap(&model.s2, next, model.zap_end, &next);
		REQUIRE(next > before);
	}
	REQUIRE(flush == !!model.removed);
	REQUIRE(!any_mapped(first, end - first, 3));
}

static void do_wrprotect(void)
{
	u32 first, end;
	bool flush;

	next_range(&first, &end);
	flush = stage2_wrprotect(&model.s2, page_gpa(first), page_gpa(end));
	REQUIRE(flush == model_clear(first, end, STAGE2_WRITE, true));
}

static void do_wrprotect_mask(void)
{
	u32 first = next_page(), i;
	bool flush, expected = false;
	u64 mask = 0;

	for (i = 0; i < 8; i++)
		mask = mask << 8 | next_byte();
	if (first > PAGES - 64)
		first = PAGES - 64;
	flush = stage2_wrprotect_mask(&model.s2, page_gpa(first), mask);
	for (i = 0; i < 64; i++)
		if (mask >> i & 1)
			expected |= model_clear(first + i, first + i + 1, STAGE2_WRITE, true);
	REQUIRE(flush == expected);
}

static void do_age(void)
{
	bool clear = next_byte() & 1, accessed;
	u32 first, end;

	next_range(&first, &end);
	accessed = stage2_age(&model.s2, page_gpa(first), page_gpa(end), clear);
	REQUIRE(accessed == model_clear(first, end, STAGE2_ACCESSED, clear));
}

static void do_access(void)
{
	enum cpu_access access = next_byte() % 3;
	u32 page = next_page();
	struct page p = pages[page];
	u64 hpa;

	if (cpu_access(&model.cpu, page_gpa(page), access, true, &hpa) != CPU_OK)
		return;
	REQUIRE(p.level);
	if (model.failure)
		return;
	p.flags |= STAGE2_ACCESSED | (access == CPU_WRITE ? STAGE2_DIRTY : 0);
	model_fill(first_of(page, p.level), p.level, p);
}

static void do_check(void)
{
	u32 page = next_page();

	check_page(page);
	check_cpu(page);
}

static void (*const operations[])(void) = {
	do_map, do_map, do_map, do_map, do_map, do_map, do_access, do_access, do_access,
	do_zap, do_wrprotect, do_wrprotect_mask, do_age, do_check,
};

static void model_start(const u8 *program, size_t size, bool ept, int levels)
{
	memset(pages, 0, sizeof(pages));
	model = (struct model){
		.base = (1ULL << (levels == 5 ? 48 : 39)) - GIGABYTE_PAGES * PAGE,
		.left = -1,
		.program = program,
		.size = size,
	};
	REQUIRE(!stage2_init(&model.s2, ept ? &stage2_ept : &stage2_npt, levels, &ops, &model));
	model.cpu = (struct cpu){ stage2_root_address(&model.s2), 0, levels, ept };
}

const char *stage2_model_run(const u8 *program, size_t size, bool ept, int levels, int *ret_line)
{
	unsigned int count = 0;

	model_start(program, size, ept, levels);
	while (model.size && !model.failure) {
		operations[next_byte() % ARRAY_SIZE(operations)]();
		if (++count % OPS_PER_CHECK == 0 && !model.failure)
			check_all();
	}
	if (!model.failure)
		check_all();
	model.zap_start = 0;
	model.zap_end = ~0ULL;
	stage2_destroy(&model.s2);
	REQUIRE(!any_mapped(0, PAGES, 3));
	REQUIRE(!model.tables);
	*ret_line = model.line;
	return model.failure;
}
