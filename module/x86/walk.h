/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The walk through a guest's own page tables, as its CPU does it.
 */
#ifndef MOAT_WALK_H
#define MOAT_WALK_H

#include <linux/kvm.h>
#include <asm/processor-flags.h>

#include "../pure.h"

#define WALK_EFER_LMA	BIT_ULL(10)	/* long mode is active */

/* Accesses, and bits of a page fault's error code. */
#define WALK_PRESENT	BIT_ULL(0)	/* error code only */
#define WALK_WRITE	BIT_ULL(1)
#define WALK_USER	BIT_ULL(2)	/* at CPL 3, and not the CPU's own access to a table */
#define WALK_RESERVED	BIT_ULL(3)	/* error code only */
#define WALK_FETCH	BIT_ULL(4)
/* The CPU's own access to a descriptor table or TSS: EFLAGS.AC does not lift SMAP. Access only. */
#define WALK_IMPLICIT	BIT_ULL(16)

/*
 * struct walk_ctx - how to walk
 * @sregs, @rflags: the guest's registers; of @sregs cr0, cr3, cr4 and efer are used.
 * @gpa_mask: the physical addresses that its CPU has, 2^MAXPHYADDR - 1.
 * @read_entry: reads a page-table entry of len (4 or 8) bytes at gpa. 0, or a negative error.
 * @update_entry: makes an entry new if it is still old. 0; -EAGAIN where it is something else by
 *	now; or another negative error.
 * @ctx: for the two.
 */
struct walk_ctx {
	const struct kvm_sregs *sregs;
	u64 rflags;
	u64 gpa_mask;
	int (*read_entry)(void *ctx, u64 gpa, void *entry, unsigned int len);
	int (*update_entry)(void *ctx, u64 gpa, u64 old, u64 new, unsigned int len);
	void *ctx;
};

/*
 * struct walk_result - where it led
 * @gpa: guest-physical address; valid if translated.
 * @error: error code of the page fault; valid if WALK_FAULT.
 * @leaf_size: bytes of the page's entry in its table, 0 without paging;
 * @leaf_gpa, @leaf: where it is, and what it was, WALK_LEAF_MARKS aside.
 */
struct walk_result {
	u64 gpa;
	u32 error;
	u32 leaf_size;
	u64 leaf_gpa;
	u64 leaf;
};

/* Bits of an entry that the CPU sets by itself. */
#define WALK_LEAF_MARKS	(BIT_ULL(5) | BIT_ULL(6))

#define WALK_FAULT	1

/*
 * Translates linear, which is canonical, for an access: WALK_WRITE, WALK_USER, WALK_FETCH,
 * WALK_IMPLICIT. Sets accessed and dirty bits as the CPU does. 0, or
 *	WALK_FAULT	the guest gets a #PF with ret_result->error
 *	-ELOOP		an entry changed each time it was to be updated: the guest may try again
 *	others		what a callback returned: the page tables themselves are not to be reached
 */
int walk_translate(const struct walk_ctx *walk, u64 linear, u32 access,
		   struct walk_result *ret_result);

#endif
