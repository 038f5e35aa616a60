/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Second-level page tables: guest-physical to host-physical addresses, in AMD's nested-paging
 * format and in Intel's EPT format. The theory, and who may call what at the same time, is in
 * stage2.c.
 */
#ifndef MOAT_STAGE2_H
#define MOAT_STAGE2_H

#include "pure_atomic.h"

#define STAGE2_MAX_LEVELS	5
#define STAGE2_MAX_LEAF		3	/* leaves are at level 1 (4K), 2 (2M) and 3 (1G) */
#define STAGE2_MAX_TABLES	(STAGE2_MAX_LEVELS - 1)	/* that one stage2_map() may take */
#define STAGE2_GPA_BITS		52	/* neither vendor has wider physical addresses */

/* What a leaf allows. Reading always is. */
#define STAGE2_WRITE		0x1u
#define STAGE2_EXEC		0x2u

struct stage2_format;
extern const struct stage2_format stage2_npt;	/* host EFER.NXE on */
extern const struct stage2_format stage2_ept;	/* EPTP with accessed and dirty flags on */

/**
 * struct stage2_ops - what the owner of the tables does for them; none of these may sleep
 * @table_alloc: a zeroed 4K page, or NULL. @cache is what stage2_map() was given, NULL from
 *	stage2_init().
 * @table_free: takes back a page, which is no longer zero. It must not be used for anything else
 *	before an RCU grace period has passed and the TLB flush that the caller was told to do is
 *	done: until then lockless readers and the CPUs' own walkers may still be in it.
 * @leaf_removed: a leaf, of which gpa is a part, was taken out by stage2_zap() or stage2_destroy():
 *	what the CPU noted in its value is final. NULL where nobody wants to know.
 */
struct stage2_ops {
	void *(*table_alloc)(void *ctx, void *cache);
	void (*table_free)(void *ctx, void *table);
	void (*leaf_removed)(void *ctx, u64 gpa, int level, u64 value);
};

/**
 * struct stage2 - one guest-physical address space
 * @root: the top table.
 * @format: &stage2_npt or &stage2_ept.
 * @levels: 4 or 5.
 * @budget: entries that a resumable stage2_zap() visits before it returns.
 * @encrypt: address bit that marks encrypted memory (SME), 0 without. Set before the first mapping.
 * @ops: the owner's functions.
 * @ctx: their first argument.
 * @leaves: how many leaves there are, by level; leaves[0] is not used.
 * @tables: how many tables there are, the root included.
 */
struct stage2 {
	u64 *root;
	const struct stage2_format *format;
	int levels;
	unsigned int budget;
	u64 encrypt;
	const struct stage2_ops *ops;
	void *ctx;
	atomic64_t leaves[STAGE2_MAX_LEAF + 1];
	atomic64_t tables;
};

static inline u64 stage2_level_size(int level)
{
	return 1ULL << (12 + 9 * (level - 1));
}

/* 0, -EINVAL (levels), -ENOMEM. A struct that is all zeros may be destroyed too. */
int stage2_init(struct stage2 *s2, const struct stage2_format *format, int levels,
		const struct stage2_ops *ops, void *ctx);
void stage2_destroy(struct stage2 *s2);

/* For the control block: nCR3, or the address part of the EPT pointer. */
u64 stage2_root_address(const struct stage2 *s2);

/* First guest-physical address that cannot be mapped. */
u64 stage2_limit(const struct stage2 *s2);

/*
 * Makes gpa lead to hpa, both aligned to the level's size, with at least the rights in prot:
 *	0	it does now, or did already, be it by a larger leaf; no right is taken away
 *	-EINVAL	level, prot, alignment, or an address out of reach
 *	-ENOMEM	table_alloc returned NULL; nothing was lost, and calling again is right
 *	-EEXIST	smaller mappings are, or were, in that range: map a smaller level or zap first
 *	-EAGAIN	something else is mapped there: a zap was missed, or the fault is out of date
 * A larger leaf that leads to hpa but lacks rights is split, so that only this range gets them.
 */
int stage2_map(struct stage2 *s2, u64 gpa, u64 hpa, int level, unsigned int prot, void *cache);

/*
 * Removes what maps any of start..end, large leaves whole, and tables that become empty. True
 * where TLBs must be flushed. With next, it may return early: *next is where to go on, end when
 * all is done.
 */
bool stage2_zap(struct stage2 *s2, u64 start, u64 end, u64 *next);

/* Takes the right to write from all leaves that map any of start..end. True: flush TLBs. */
bool stage2_wrprotect(struct stage2 *s2, u64 start, u64 end);

/* The same for the 4K pages at gpa + 4096 * n, for each bit n in mask. */
bool stage2_wrprotect_mask(struct stage2 *s2, u64 gpa, u64 mask);

/* Was any of start..end accessed since it was mapped or last cleared; with clear, forgets it. */
bool stage2_age(struct stage2 *s2, u64 start, u64 end, bool clear);

#endif
