// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Second-level page tables, many threads at once, as the contract in stage2.c allows: faulting
 * vCPUs map under a lock for reading; an MMU notifier zaps and write-protects under it for
 * writing; a reader looks up and ages with no lock; a CPU walks, reads and writes. Freed tables
 * are kept until the threads have ended, as RCU would keep them for readers.
 *
 * At the end tables, counts and contents must agree, and each page that the CPU wrote to must have
 * been reported as dirty since.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "selftests/unit/stage2_cpu.h"
#include "selftests/unit/stage2_look.h"
#include "selftests/unit/unit.h"

#define PAGE		4096ULL
#define REGIONS		4		/* of 2M */
#define PAGES		(REGIONS * 512)
#define ROUNDS		1500		/* of the notifier; the others last as long */
#define OFFSET		BIT_ULL(40)	/* host address of guest address 0 */

static struct {
	struct stage2 s2;
	struct cpu cpu;
	pthread_rwlock_t lock;
	long allocated;
	long freed;
	struct garbage *garbage;	/* freed tables */
	int stop;
	int wrong;		/* what threads saw that must not be */
	int mapped;		/* successes of mappers, to see that something went on */
	u8 written[PAGES];	/* by the CPU, since the page's leaf was last removed or newer */
} r;

static void wrong_if(bool wrong)
{
	if (wrong)
		__atomic_fetch_add(&r.wrong, 1, __ATOMIC_RELAXED);
}

static u32 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 24;
}

static void *table_alloc(void *ctx, void *cache)
{
	void *table = aligned_alloc(PAGE, PAGE);

	(void)ctx;
	if (!table)
		abort();
	if (cache)
		wrong_if(--*(int *)cache < 0);
	__atomic_fetch_add(&r.allocated, 1, __ATOMIC_RELAXED);
	return memset(table, 0, PAGE);
}

/* The words of the tables stay as they are: a reader that is still inside must find sense. */
struct garbage {
	struct garbage *next;
	void *table;
};

static void table_free(void *ctx, void *table)
{
	struct garbage *g = malloc(sizeof(*g));

	(void)ctx;
	if (!g)
		abort();
	g->table = table;
	g->next = __atomic_load_n(&r.garbage, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&r.garbage, &g->next, g, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	__atomic_fetch_add(&r.freed, 1, __ATOMIC_RELAXED);
}

static void leaf_removed(void *ctx, u64 gpa, int level, u64 value)
{
	struct stage2_leaf leaf = stage2_leaf_of(&r.s2, gpa, level, value);
	u64 i, first = leaf.gpa / PAGE;

	(void)ctx;
	wrong_if(leaf.hpa != leaf.gpa + OFFSET);
	if (!(leaf.flags & STAGE2_DIRTY))
		return;
	for (i = first; i < first + stage2_level_size(level) / PAGE; i++)
		__atomic_store_n(&r.written[i], 0, __ATOMIC_SEQ_CST);
}

static const struct stage2_ops ops = {
	.table_alloc = table_alloc,
	.table_free = table_free,
	.leaf_removed = leaf_removed,
};

static void *mapper(void *arg)
{
	u64 state = (uintptr_t)arg;
	int err, tables;

	while (!__atomic_load_n(&r.stop, __ATOMIC_RELAXED)) {
		u32 random = next_random(&state);
		int level = random % 8 == 0 ? 2 : 1;
		u64 gpa = (random >> 3) % PAGES * PAGE & ~(stage2_level_size(level) - 1);

		pthread_rwlock_rdlock(&r.lock);
		tables = r.s2.levels - 1;
		err = stage2_map(&r.s2, gpa, gpa + OFFSET, level, random >> 20 & 3, &tables);
		pthread_rwlock_unlock(&r.lock);
		wrong_if(err && !(err == -EEXIST && level == 2));
		if (!err)
			__atomic_fetch_add(&r.mapped, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *notifier(void *arg)
{
	u64 state = (uintptr_t)arg;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		u32 random = next_random(&state);
		u64 start = (random >> 4) % PAGES * PAGE;
		u64 end = start + PAGE * (1 + random % 40);
		u64 next = start;

		if (random % 4 == 0) {		/* all, so that all tables are made anew */
			start = 0;
			end = PAGES * PAGE;
		}

		pthread_rwlock_wrlock(&r.lock);
		if (random >> 20 & 1)
			stage2_wrprotect(&r.s2, start, end);
		else
			stage2_zap(&r.s2, start, end, random >> 21 & 1 ? &next : NULL);
		pthread_rwlock_unlock(&r.lock);
		usleep(50);
	}
	return NULL;
}

static void *reader(void *arg)
{
	u64 state = (uintptr_t)arg;
	struct stage2_leaf leaf;

	while (!__atomic_load_n(&r.stop, __ATOMIC_RELAXED)) {
		u64 gpa = next_random(&state) % PAGES * PAGE;

		if (stage2_lookup(&r.s2, gpa, &leaf))
			wrong_if(leaf.hpa != leaf.gpa + OFFSET || leaf.gpa > gpa);
		stage2_age(&r.s2, gpa, gpa + 64 * PAGE, gpa & PAGE);
	}
	return NULL;
}

/*
 * A real CPU's write ends when the TLB is flushed, before the next mapping; here the mark and the
 * write are put inside the lock for reading, so that no removal comes between them.
 */
static void *processor(void *arg)
{
	u64 state = (uintptr_t)arg, hpa;

	while (!__atomic_load_n(&r.stop, __ATOMIC_RELAXED)) {
		u32 page = next_random(&state) % PAGES;
		enum cpu_access access = page % 2 ? CPU_WRITE : CPU_READ;
		enum cpu_result result;

		pthread_rwlock_rdlock(&r.lock);
		result = cpu_access(&r.cpu, page * PAGE, access, true, &hpa);
		if (result == CPU_OK && access == CPU_WRITE)
			__atomic_store_n(&r.written[page], 1, __ATOMIC_SEQ_CST);
		pthread_rwlock_unlock(&r.lock);
		wrong_if(result == CPU_MALFORMED);
		wrong_if(result == CPU_OK && hpa != page * PAGE + OFFSET);
	}
	return NULL;
}

static void run_threads(void)
{
	static void *(*const others[])(void *) = { mapper, mapper, mapper, reader, processor };
	pthread_t first, threads[ARRAY_SIZE(others)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(others); i++)
		if (pthread_create(&threads[i], NULL, others[i], (void *)(i + 1)))
			abort();
	if (pthread_create(&first, NULL, notifier, (void *)77))
		abort();
	pthread_join(first, NULL);
	__atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < ARRAY_SIZE(others); i++)
		pthread_join(threads[i], NULL);
}

/* Counts what is there against the counts that were kept. */
static void check_counts(void)
{
	long leaves[4] = { 0 }, tables = 1;
	bool any = false;
	u64 i;

	for (i = 0; i < REGIONS; i++) {
		struct stage2_leaf leaf;
		long small = leaves[1];
		u64 gpa = i * stage2_level_size(2), end = gpa + stage2_level_size(2);

		for (; gpa < end; gpa += stage2_level_size(leaf.level))
			if (stage2_lookup(&r.s2, gpa, &leaf))
				leaves[leaf.level]++;
		tables += leaves[1] != small;
		any |= leaves[1] || leaves[2];
	}
	if (any)
		tables += r.s2.levels - 2;
	EXPECT(atomic64_read(&r.s2.leaves[1]) == leaves[1]);
	EXPECT(atomic64_read(&r.s2.leaves[2]) == leaves[2]);
	EXPECT(atomic64_read(&r.s2.tables) == tables);
}

/* A zap that was not resumed may have left a table empty: a whole one takes it. */
static void zap_empty_tables(void)
{
	struct stage2_leaf leaf;
	u64 gpa;

	for (gpa = 0; gpa < PAGES * PAGE; gpa += stage2_level_size(2)) {
		u64 p = gpa;

		while (p < gpa + stage2_level_size(2) && !stage2_lookup(&r.s2, p, &leaf))
			p += PAGE;
		if (p == gpa + stage2_level_size(2))
			stage2_zap(&r.s2, gpa, p, NULL);
	}
}

static void collect_garbage(void)
{
	struct garbage *g, *next;

	for (g = r.garbage; g; g = next) {
		next = g->next;
		free(g->table);
		free(g);
	}
}

static void race(bool ept, int levels)
{
	u32 i, written = 0;

	pthread_rwlockattr_t writers_first;

	memset(&r, 0, sizeof(r));
	pthread_rwlockattr_init(&writers_first);
	pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&r.lock, &writers_first);
	EXPECT(!stage2_init(&r.s2, ept ? &stage2_ept : &stage2_npt, levels, &ops, NULL));
	r.s2.budget = 20;
	r.cpu = (struct cpu){ stage2_root_address(&r.s2), 0, levels, ept };
	run_threads();
	EXPECT(!r.wrong);
	EXPECT(r.mapped);
	EXPECT(r.freed);
	zap_empty_tables();
	check_counts();
	stage2_destroy(&r.s2);
	for (i = 0; i < PAGES; i++)
		written += r.written[i];
	EXPECT(!written);
	EXPECT(r.allocated == r.freed);
	collect_garbage();
	pthread_rwlock_destroy(&r.lock);
}

static void race_npt4(void)
{
	race(false, 4);
}

static void race_ept5(void)
{
	race(true, 5);
}

static const struct unit_test tests[] = {
	{ "NPT, 4 levels: all at once", race_npt4 },
	{ "EPT, 5 levels: all at once", race_ept5 },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
