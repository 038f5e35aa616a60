// SPDX-License-Identifier: GPL-2.0-only
/*
 * Second-level page tables.
 *
 * What it is. AMD's nested paging and Intel's EPT use the same tree: 512 entries to a 4K table,
 * nine address bits a level, pages of 4K, 2M and 1G. They differ in which bit means what, and that
 * is all that struct stage2_format holds. An entry is 0, or a leaf, or the address of a table;
 * rights are taken away in leaves only, tables above allow everything.
 *
 * Who may do what at the same time. The owner has a lock for reading and writing, and RCU:
 *	stage2_map			the lock for reading: any number of vCPUs fault at once
 *	stage2_zap, stage2_wrprotect	the lock for writing
 *	stage2_age			only rcu_read_lock, beside any of the above
 *	stage2_init, stage2_destroy	nobody else is there, no CPU uses the tables
 * The CPUs take part too: their walkers set accessed and dirty bits in any present entry at any
 * moment. So a present entry is changed by a locked operation only, and never by a plain store.
 *
 * Mapping. Under the lock for reading entries go from empty to table or leaf, from leaf to a leaf
 * with more rights, and from a large leaf to a table that maps the same, each by one cmpxchg;
 * nothing goes away. Whoever loses a cmpxchg looks at the entry again: each loss means that
 * another mapper got on, or that a bit was set that stays set, so that it ends. A table that was
 * made for a cmpxchg and lost is kept for the levels below: one call takes at most a table for each
 * level but the root's, which the owner can hold ready.
 *
 * Splitting needs no TLB flush: the small leaves map what the large one mapped, with its rights,
 * and a CPU that still has the large translation faults once more at worst. The small leaves
 * inherit the dirty bit, which may say of a page that it was written when its neighbour was, never
 * the reverse.
 *
 * Removing. A leaf is taken out by xchg, and what it held then is the CPU's last word on whether
 * the page was written: setting a dirty bit is a locked operation of the CPU's own which checks
 * that the entry is still present and writable. For the same reason write protection need not
 * report dirty pages: the bit stays in the leaf until it is removed. A table is taken out when it
 * has become empty. CPUs cache the way to it, hence zap asks for a TLB flush then too; readers may
 * still be in it, hence table_free has to wait for them. An RCU grace period alone does not wait
 * for a CPU that is in the guest.
 *
 * Formats: AMD APM vol. 2, "Nested Paging" (nested walks are user-mode accesses, and those for the
 * guest's own page tables are writes) and "Page-Translation-Table Entry Fields"; Intel SDM vol. 3,
 * "The Extended Page Table Mechanism (EPT)", "Accessed and Dirty Flags for EPT".
 */
#include "stage2.h"

#define S2_ENTRIES	512
#define S2_TABLE_SIZE	4096
#define S2_ADDRESS	GENMASK_ULL(51, 12)
#define S2_LARGE	BIT_ULL(7)	/* in both formats; 0 at level 1 */
#define S2_BUDGET	4096

/*
 * struct stage2_format - which bit means what
 * @table: all of an entry that leads to a table, but the address.
 * @leaf: what each leaf has, the right to read and the memory type among it. It is born accessed,
 *	since a guest's access made it.
 * @write: the right to write.
 * @exec: set where code may be fetched, or 0.
 * @noexec: set where code may not be fetched, or 0.
 * @accessed: set by the CPU.
 */
struct stage2_format {
	u64 table;
	u64 leaf;
	u64 write;
	u64 exec;
	u64 noexec;
	u64 accessed;
};

#define NPT_PRESENT	BIT_ULL(0)
#define NPT_WRITE	BIT_ULL(1)
#define NPT_USER	BIT_ULL(2)
#define NPT_ACCESSED	BIT_ULL(5)
#define NPT_NX		BIT_ULL(63)

/* PWT, PCD and PAT are 0: write-back, entry 0 of the host's PAT; the guest chooses the type. */
const struct stage2_format stage2_npt = {
	.table = NPT_PRESENT | NPT_WRITE | NPT_USER | NPT_ACCESSED,
	.leaf = NPT_PRESENT | NPT_USER | NPT_ACCESSED,
	.write = NPT_WRITE,
	.noexec = NPT_NX,
	.accessed = NPT_ACCESSED,
};

#define EPT_READ	BIT_ULL(0)
#define EPT_WRITE	BIT_ULL(1)
#define EPT_EXEC	BIT_ULL(2)
#define EPT_TYPE_WB	(6ULL << 3)
#define EPT_IGNORE_PAT	BIT_ULL(6)
#define EPT_ACCESSED	BIT_ULL(8)

const struct stage2_format stage2_ept = {
	.table = EPT_READ | EPT_WRITE | EPT_EXEC | EPT_ACCESSED,
	.leaf = EPT_READ | EPT_TYPE_WB | EPT_IGNORE_PAT | EPT_ACCESSED,
	.write = EPT_WRITE,
	.exec = EPT_EXEC,
	.accessed = EPT_ACCESSED,
};

/* Entries. */

static u64 s2_address(const struct stage2 *s2, u64 value)
{
	return value & S2_ADDRESS & ~s2->encrypt;
}

static u64 *s2_entry(u64 *table, u64 gpa, int level)
{
	return &table[(gpa >> (12 + 9 * (level - 1))) % S2_ENTRIES];
}

/* Of an entry that is not empty. */
static bool s2_is_leaf(u64 value, int level)
{
	return level == 1 || (value & S2_LARGE);
}

static u64 s2_grant(const struct stage2_format *format, u64 value, unsigned int prot)
{
	if (prot & STAGE2_WRITE)
		value |= format->write;
	if (prot & STAGE2_EXEC)
		value = (value | format->exec) & ~format->noexec;
	return value;
}

/* A leaf without rights. */
static u64 s2_leaf_value(const struct stage2 *s2, u64 hpa, int level)
{
	u64 value = hpa | s2->encrypt | s2->format->leaf | s2->format->noexec;

	return level > 1 ? value | S2_LARGE : value;
}

/* Walking: the tables on the way to where gpa ends, which is a leaf or an empty entry. */

struct s2_path {
	u64 *table[STAGE2_MAX_LEVELS + 1];	/* by level, from the root's to @level */
	int level;
};

static u64 s2_walk(const struct stage2 *s2, u64 gpa, struct s2_path *path)
{
	int level = s2->levels;
	u64 *table = s2->root;
	u64 value;

	for (;;) {
		path->table[level] = table;
		value = READ_ONCE(*s2_entry(table, gpa, level));
		if (!value || s2_is_leaf(value, level))
			break;
		table = __va(s2_address(s2, value));
		level--;
	}
	path->level = level;
	return value;
}

static u64 *s2_path_entry(const struct s2_path *path, u64 gpa, int level)
{
	return s2_entry(path->table[level], gpa, level);
}

/* The first address behind what the entry for gpa covers. */
static u64 s2_next(u64 gpa, int level)
{
	return (gpa | (stage2_level_size(level) - 1)) + 1;
}

/* Ends a range with a whole page, within reach; false where nothing is left. */
static bool s2_clip(const struct stage2 *s2, u64 start, u64 *end)
{
	u64 limit = stage2_limit(s2);

	if (!s2->root || start >= *end || start >= limit)
		return false;
	*end = *end < limit ? s2_next(*end - 1, 1) : limit;
	return true;
}

/* Mapping. */

struct s2_mapping {
	struct stage2 *s2;
	u64 gpa;
	u64 hpa;
	int level;
	unsigned int prot;
	void *cache;
	u64 *spare;	/* a zeroed table that nobody else has seen */
};

static u64 *s2_spare(struct s2_mapping *m)
{
	if (!m->spare)
		m->spare = m->s2->ops->table_alloc(m->s2->ctx, m->cache);
	return m->spare;
}

/* Puts the spare table where old is; false where something else came to be there. */
static bool s2_publish_spare(struct s2_mapping *m, u64 *entry, u64 old)
{
	struct stage2 *s2 = m->s2;

	if (!try_cmpxchg(entry, &old, __pa(m->spare) | s2->encrypt | s2->format->table))
		return false;
	m->spare = NULL;
	atomic64_add(1, &s2->tables);
	return true;
}

/* Puts in the place of a leaf a table with leaves that together are the same. */
static int s2_split(struct s2_mapping *m, u64 *entry, u64 old, int level)
{
	u64 leaf = level == 2 ? old & ~S2_LARGE : old;
	u64 *table = s2_spare(m);
	int i;

	if (!table)
		return -ENOMEM;
	for (i = 0; i < S2_ENTRIES; i++)
		table[i] = leaf + i * stage2_level_size(level - 1);
	if (s2_publish_spare(m, entry, old)) {
		atomic64_add(-1, &m->s2->leaves[level]);
		atomic64_add(S2_ENTRIES, &m->s2->leaves[level - 1]);
	} else {
		memset(table, 0, S2_TABLE_SIZE);
	}
	return 0;
}

static bool s2_leads_to(const struct s2_mapping *m, u64 value, int level)
{
	return s2_address(m->s2, value) + (m->gpa & (stage2_level_size(level) - 1)) == m->hpa;
}

#define S2_COVERED 1

/*
 * Makes or splits what is in the way down towards the mapping. 0: look again; S2_COVERED: a leaf
 * here does already what is wanted; or an error.
 */
static int s2_make_way(struct s2_mapping *m, u64 *entry, u64 value, int level)
{
	if (!value) {
		if (!s2_spare(m))
			return -ENOMEM;
		s2_publish_spare(m, entry, 0);
		return 0;
	}
	if (!s2_leads_to(m, value, level))
		return -EAGAIN;
	if (s2_grant(m->s2->format, value, m->prot) == value)
		return S2_COVERED;
	return s2_split(m, entry, value, level);
}

static int s2_set_leaf(struct s2_mapping *m, u64 *entry)
{
	struct stage2 *s2 = m->s2;
	u64 old = READ_ONCE(*entry);
	u64 new;

	do {
		if (old && !s2_is_leaf(old, m->level))
			return -EEXIST;
		if (old && !s2_leads_to(m, old, m->level))
			return -EAGAIN;
		new = old ?: s2_leaf_value(s2, m->hpa, m->level);
		new = s2_grant(s2->format, new, m->prot);
		if (new == old)
			return 0;
	} while (!try_cmpxchg(entry, &old, new));
	if (!old)
		atomic64_add(1, &s2->leaves[m->level]);
	return 0;
}

static int s2_map(struct s2_mapping *m)
{
	const u64 address = S2_ADDRESS & ~m->s2->encrypt, gpa = m->gpa;
	u64 *table = m->s2->root, *entry, value;
	int level = m->s2->levels, err;

	while (level > m->level) {
		entry = s2_entry(table, gpa, level);
		value = READ_ONCE(*entry);
		if (value && !s2_is_leaf(value, level)) {
			table = __va(value & address);
			level--;
			continue;
		}
		err = s2_make_way(m, entry, value, level);
		if (err)
			return err == S2_COVERED ? 0 : err;
	}
	return s2_set_leaf(m, s2_entry(table, m->gpa, level));
}

static bool s2_mapping_ok(const struct s2_mapping *m)
{
	if (m->level < 1 || m->level > STAGE2_MAX_LEAF)
		return false;
	if (m->prot & ~(STAGE2_WRITE | STAGE2_EXEC))
		return false;
	if ((m->gpa | m->hpa) & (stage2_level_size(m->level) - 1))
		return false;
	return m->gpa < stage2_limit(m->s2) && s2_address(m->s2, m->hpa) == m->hpa;
}

int stage2_map(struct stage2 *s2, u64 gpa, u64 hpa, int level, unsigned int prot, void *cache)
{
	struct s2_mapping m = {
		.s2 = s2, .gpa = gpa, .hpa = hpa, .level = level, .prot = prot, .cache = cache,
	};
	int err;

	if (!s2_mapping_ok(&m))
		return -EINVAL;
	err = s2_map(&m);
	if (m.spare)
		s2->ops->table_free(s2->ctx, m.spare);
	return err;
}

/* Removing. */

static void s2_remove_leaf(struct stage2 *s2, u64 *entry, u64 gpa, int level)
{
	u64 old = xchg(entry, 0);

	atomic64_add(-1, &s2->leaves[level]);
	if (s2->ops->leaf_removed)
		s2->ops->leaf_removed(s2->ctx, gpa, level, old);
}

static bool s2_table_is_empty(const u64 *table)
{
	int i;

	for (i = 0; i < S2_ENTRIES; i++)
		if (READ_ONCE(table[i]))
			return false;
	return true;
}

/* Frees the empty ones of the tables that a zap of gpa, which goes on at next, leaves behind. */
static bool s2_prune(struct stage2 *s2, const struct s2_path *path, u64 gpa, u64 next, u64 end)
{
	bool freed = false;
	int level;

	for (level = path->level; level < s2->levels; level++) {
		bool stays = next % stage2_level_size(level + 1) && next < end;

		if (stays || !s2_table_is_empty(path->table[level]))
			break;
		xchg(s2_path_entry(path, gpa, level + 1), 0);
		s2->ops->table_free(s2->ctx, path->table[level]);
		atomic64_add(-1, &s2->tables);
		freed = true;
	}
	return freed;
}

bool stage2_zap(struct stage2 *s2, u64 start, u64 end, u64 *next)
{
	unsigned int visits = 0;
	struct s2_path path;
	bool flush = false;
	u64 gpa, after;

	if (next)
		*next = end;
	if (!s2_clip(s2, start, &end))
		return false;
	for (gpa = start; gpa < end; gpa = after) {
		if (next && visits && visits >= s2->budget) {
			*next = gpa;
			break;
		}
		visits++;
		if (s2_walk(s2, gpa, &path)) {
			s2_remove_leaf(s2, s2_path_entry(&path, gpa, path.level), gpa, path.level);
			flush = true;
		}
		after = s2_next(gpa, path.level);
		flush |= s2_prune(s2, &path, gpa, after, end);
	}
	return flush;
}

/* Taking bits away. */

/* False where none of the bits is set, be it because the entry has gone meanwhile. */
static bool s2_clear_bits(u64 *entry, u64 bits)
{
	u64 old = READ_ONCE(*entry);

	do {
		if (!(old & bits))
			return false;
	} while (!try_cmpxchg(entry, &old, old & ~bits));
	return true;
}

/*
 * Whether a leaf in the range has one of the bits; with clear, none has it any more. Nothing keeps
 * mappers away while accessed bits are cleared: a large leaf that is split just now may be a table
 * by then; in a table the bit means nothing to us, and the CPU sets it again.
 */
static bool s2_range_bits(struct stage2 *s2, u64 start, u64 end, u64 bits, bool clear)
{
	struct s2_path path;
	bool found = false;
	u64 gpa;

	if (!s2_clip(s2, start, &end))
		return false;
	for (gpa = start; gpa < end; gpa = s2_next(gpa, path.level)) {
		if (!(s2_walk(s2, gpa, &path) & bits))
			continue;
		if (!clear)
			return true;
		found |= s2_clear_bits(s2_path_entry(&path, gpa, path.level), bits);
	}
	return found;
}

bool stage2_wrprotect(struct stage2 *s2, u64 start, u64 end)
{
	return s2_range_bits(s2, start, end, s2->format->write, true);
}

bool stage2_wrprotect_mask(struct stage2 *s2, u64 gpa, u64 mask)
{
	bool flush = false;
	u64 page;

	if (gpa >= stage2_limit(s2))	/* further pages could come round to 0 */
		return false;
	for (; mask; mask &= mask - 1) {
		page = gpa + __builtin_ctzll(mask) * stage2_level_size(1);
		flush |= stage2_wrprotect(s2, page, page + stage2_level_size(1));
	}
	return flush;
}

bool stage2_age(struct stage2 *s2, u64 start, u64 end, bool clear)
{
	return s2_range_bits(s2, start, end, s2->format->accessed, clear);
}

/* The whole. */

u64 stage2_limit(const struct stage2 *s2)
{
	int bits = 12 + 9 * s2->levels;

	return 1ULL << (bits < STAGE2_GPA_BITS ? bits : STAGE2_GPA_BITS);
}

u64 stage2_root_address(const struct stage2 *s2)
{
	return __pa(s2->root) | s2->encrypt;
}

int stage2_init(struct stage2 *s2, const struct stage2_format *format, int levels,
		const struct stage2_ops *ops, void *ctx)
{
	if (levels != 4 && levels != 5)
		return -EINVAL;
	*s2 = (struct stage2){
		.format = format, .levels = levels, .budget = S2_BUDGET, .ops = ops, .ctx = ctx,
	};
	s2->root = ops->table_alloc(ctx, NULL);
	if (!s2->root)
		return -ENOMEM;
	atomic64_set(&s2->tables, 1);
	return 0;
}

void stage2_destroy(struct stage2 *s2)
{
	if (!s2->root)
		return;
	stage2_zap(s2, 0, stage2_limit(s2), NULL);
	s2->ops->table_free(s2->ctx, s2->root);
	atomic64_set(&s2->tables, 0);
	s2->root = NULL;
}
