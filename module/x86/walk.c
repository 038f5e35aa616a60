// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk through a guest's page tables.
 *
 * The formats are one tree of different measures: 32-bit tables have 10 index bits a level and
 * entries of 4 bytes, all others 9 and 8; PAE's root has 4 entries, which are nothing but pointers.
 * Rights add up on the way down and are judged at the leaf, after which accessed and dirty bits are
 * set; those of tables are set in passing. An entry that changed in the meantime makes the walk
 * start again.
 *
 * 1G pages exist wherever long mode does: CPUID may hide them from the guest, not take them away.
 * Protection keys do not: CR4.PKE and CR4.PKS are reserved.
 *
 * Manuals: AMD APM vol. 2, "Page Translation and Protection"; Intel SDM vol. 3, "Paging".
 */
#include "walk.h"

#define EFER_NO_EXEC	BIT_ULL(11)

#define PTE_PRESENT	BIT_ULL(0)
#define PTE_WRITE	BIT_ULL(1)
#define PTE_USER	BIT_ULL(2)
#define PTE_ACCESSED	BIT_ULL(5)
#define PTE_DIRTY	BIT_ULL(6)
#define PTE_LARGE	BIT_ULL(7)
#define PTE_NX		BIT_ULL(63)
#define PTE_ADDRESS	GENMASK_ULL(51, 12)

/* PAE's root entries: what they have must be zero that others may have set. */
#define PDPTE_RESERVED	(GENMASK_ULL(2, 1) | GENMASK_ULL(8, 5) | GENMASK_ULL(63, 52))
#define PAE_RESERVED	GENMASK_ULL(62, 52)
/* A 4M page's entry has address bits 32-39 in 13-20. */
#define PSE_HIGH(pde)	((((pde) >> 13) & 0xff) << 32)
#define PSE_RESERVED	BIT_ULL(21)

#define MAX_TRIES	16

/* A walk under way. */
struct path {
	const struct walk_ctx *walk;
	u64 linear;
	u32 access;
	bool long_mode;
	u8 level;		/* 1 for tables of 4K pages */
	u8 entry_size;
	u64 table;		/* address of the table at this level */
	u64 entry_gpa;
	u64 entry;
	u64 rights;		/* PTE_WRITE, PTE_USER in all so far */
	u64 nx;			/* PTE_NX in any so far */
};

static unsigned int level_shift(const struct path *path)
{
	return 12 + (path->level - 1) * (path->entry_size == 4 ? 10 : 9);
}

static void path_begin(struct path *path)
{
	const struct walk_ctx *walk = path->walk;

	path->long_mode = walk->sregs->efer & WALK_EFER_LMA;
	path->entry_size = walk->sregs->cr4 & X86_CR4_PAE ? 8 : 4;
	if (path->long_mode) {
		path->level = walk->sregs->cr4 & X86_CR4_LA57 ? 5 : 4;
		path->table = walk->sregs->cr3 & PTE_ADDRESS;
	} else if (walk->sregs->cr4 & X86_CR4_PAE) {
		path->level = 3;
		path->table = walk->sregs->cr3 & GENMASK_ULL(31, 5);
	} else {
		path->level = 2;
		path->table = walk->sregs->cr3 & GENMASK_ULL(31, 12);
	}
	path->rights = PTE_WRITE | PTE_USER;
	path->nx = 0;
}

static bool is_pae_root(const struct path *path)
{
	return path->level == 3 && !path->long_mode;
}

static bool is_leaf(const struct path *path)
{
	if (path->level == 1)
		return true;
	if (!(path->entry & PTE_LARGE))
		return false;
	if (path->entry_size == 4)
		return path->walk->sregs->cr4 & X86_CR4_PSE;
	return path->level == 2 || (path->level == 3 && path->long_mode);
}

static int path_fault(const struct path *path, u64 flags, struct walk_result *ret_result)
{
	const struct walk_ctx *walk = path->walk;
	u32 error = flags | (path->access & (WALK_WRITE | WALK_USER));
	bool tells_fetch = (walk->sregs->cr4 & X86_CR4_SMEP) ||
			   (walk->sregs->cr4 & X86_CR4_PAE && walk->sregs->efer & EFER_NO_EXEC);

	if (path->access & WALK_FETCH && tells_fetch)
		error |= WALK_FETCH;
	ret_result->error = error;
	return WALK_FAULT;
}

static u64 reserved_bits(const struct path *path)
{
	u64 too_high = ~path->walk->gpa_mask, reserved = PTE_ADDRESS & too_high;

	if (path->entry_size == 4) {
		if (path->level == 1 || !is_leaf(path))
			return 0;
		return PSE_RESERVED | (PSE_HIGH(path->entry) & too_high ? ~0ULL : 0);
	}
	if (is_pae_root(path))
		return reserved | PDPTE_RESERVED;
	if (!(path->walk->sregs->efer & EFER_NO_EXEC))
		reserved |= PTE_NX;
	if (!path->long_mode)
		reserved |= PAE_RESERVED;
	if (path->level > 3)
		reserved |= PTE_LARGE;
	else if (path->level > 1 && is_leaf(path))
		reserved |= GENMASK_ULL(level_shift(path) - 1, 13);
	return reserved;
}

/* Sets bits in the entry in memory, unless it has them. */
static int entry_mark(struct path *path, u64 bits)
{
	const struct walk_ctx *walk = path->walk;
	u64 new = path->entry | bits;

	if (new == path->entry)
		return 0;
	return walk->update_entry(walk->ctx, path->entry_gpa, path->entry, new, path->entry_size);
}

/* Reads the entry of the current level, and adds up what it allows. */
static int entry_read(struct path *path, struct walk_result *ret_result)
{
	const struct walk_ctx *walk = path->walk;
	u64 index = path->linear >> level_shift(path);
	int r;

	index &= path->entry_size == 4 ? 1023 : 511;
	path->entry_gpa = path->table + index * path->entry_size;
	path->entry = 0;
	r = walk->read_entry(walk->ctx, path->entry_gpa, &path->entry, path->entry_size);
	if (r)
		return r;
	if (!(path->entry & PTE_PRESENT))
		return path_fault(path, 0, ret_result);
	if (path->entry & reserved_bits(path))
		return path_fault(path, WALK_PRESENT | WALK_RESERVED, ret_result);
	if (!is_pae_root(path)) {
		path->rights &= path->entry;
		path->nx |= path->entry & PTE_NX;
	}
	return 0;
}

static bool rights_allow(const struct path *path)
{
	const struct walk_ctx *walk = path->walk;
	bool user = path->access & WALK_USER;

	if (path->access & WALK_FETCH && path->nx)
		return false;
	if (path->access & WALK_WRITE && !(path->rights & PTE_WRITE) &&
	    (user || walk->sregs->cr0 & X86_CR0_WP))
		return false;
	if (user || !(path->rights & PTE_USER))
		return !user || path->rights & PTE_USER;
	/* The supervisor in a user page. */
	if (path->access & WALK_FETCH)
		return !(walk->sregs->cr4 & X86_CR4_SMEP);
	return !(walk->sregs->cr4 & X86_CR4_SMAP) ||
	       (walk->rflags & X86_EFLAGS_AC && !(path->access & WALK_IMPLICIT));
}

static int leaf_finish(struct path *path, struct walk_result *ret_result)
{
	u64 offset = BIT_ULL(level_shift(path)) - 1;
	u64 address = path->entry & PTE_ADDRESS;
	int r;

	if (!rights_allow(path))
		return path_fault(path, WALK_PRESENT, ret_result);
	r = entry_mark(path, PTE_ACCESSED | (path->access & WALK_WRITE ? PTE_DIRTY : 0));
	if (r)
		return r;
	if (path->entry_size == 4 && path->level == 2)
		address |= PSE_HIGH(path->entry);
	ret_result->gpa = (address & ~offset) | (path->linear & offset);
	ret_result->leaf_size = path->entry_size;
	ret_result->leaf_gpa = path->entry_gpa;
	ret_result->leaf = path->entry & ~WALK_LEAF_MARKS;
	return 0;
}

static int path_walk(struct path *path, struct walk_result *ret_result)
{
	int r;

	for (path_begin(path);; path->level--) {
		r = entry_read(path, ret_result);
		if (r)
			return r;
		if (is_leaf(path))
			return leaf_finish(path, ret_result);
		r = is_pae_root(path) ? 0 : entry_mark(path, PTE_ACCESSED);
		if (r)
			return r;
		path->table = path->entry & PTE_ADDRESS;
	}
}

int walk_translate(const struct walk_ctx *walk, u64 linear, u32 access,
		   struct walk_result *ret_result)
{
	struct path path = { .walk = walk, .linear = linear, .access = access };
	unsigned int tries;
	int r;

	if (!(walk->sregs->efer & WALK_EFER_LMA))
		path.linear = (u32)linear;
	if (!(walk->sregs->cr0 & X86_CR0_PG)) {
		ret_result->gpa = path.linear;
		ret_result->leaf_size = 0;
		return 0;
	}
	for (tries = 0; tries < MAX_TRIES; tries++) {
		r = path_walk(&path, ret_result);
		if (r != -EAGAIN)
			return r;
	}
	return -ELOOP;
}
