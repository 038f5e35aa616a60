// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory and the host's memory management: second-level faults, and what the host takes away.
 *
 * A page is mapped into the guest without a reference on it. What keeps that right is the host's
 * own notifications: whenever it changes a mapping of the owner's memory, it first calls
 * mmu_invalidate_start(), which removes ours and waits until no CPU can use it. A fault looks up
 * the host's page without a lock, so it may come too late; hence it notes mmu_seq before the
 * look-up, and maps only if, under mmu_lock, no invalidation has ended since and none is under way
 * over that address. That is tried first with the guest's FPU still loaded and preemption off,
 * which does where the host has the page; else again, from the core's loop, where it may sleep.
 *
 * Page-table pages are freed by RCU. vm_zap() holds rcu_read_lock() until every vCPU's request to
 * flush is set, so that a grace period begun by a freed table cannot end before; a CPU that is in
 * the guest has preemption off, so the grace period waits for it to leave, and on its way back it
 * flushes.
 */
#include <linux/mem_encrypt.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/smp.h>
#include <linux/io.h>

#include "compat.h"
#include "hw.h"
#include "trace.h"

#define WRPROTECT_PIECE	(4096ULL << PAGE_SHIFT)	/* in one hold of the lock */

/*
 * arg is where a page for a new table is, made before the lock was taken, where nothing may sleep.
 */
static void *mmu_table_alloc(void *ctx, void *arg)
{
	void **spare = arg, *table;

	if (!spare)		/* the root, when the VM is made */
		return (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	table = *spare;
	*spare = NULL;
	return table;
}

static void table_free_rcu(struct rcu_head *head)
{
	__free_page(container_of(head, struct page, rcu_head));
}

static void mmu_table_free(void *ctx, void *table)
{
	call_rcu(&virt_to_page(table)->rcu_head, table_free_rcu);
}

/*
 * leaf_removed is not needed: a page is marked dirty before it is mapped writable, and the host
 * takes the mapping away before it takes the mark away.
 */
static const struct stage2_ops mmu_stage2_ops = {
	.table_alloc = mmu_table_alloc,
	.table_free = mmu_table_free,
};

/* Taking away */

static void flush_ack(void *unused)
{
}

/* Asks every vCPU to flush before it enters again, and gets those out that are in the guest. */
static void vm_flush_request(struct moat_vm *vm, cpumask_t *mask)
{
	struct moat_vcpu *vcpu;
	u32 id;
	int cpu;

	cpumask_clear(mask);
	moat_for_each_vcpu(vm, vcpu, id) {
		moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
		/* Pairs with the vendor's setting of the mode before it reads the requests. */
		smp_mb();
		cpu = READ_ONCE(vcpu->cpu);
		if (READ_ONCE(vcpu->mode) == MOAT_IN_GUEST && cpu >= 0)
			cpumask_set_cpu(cpu, mask);
	}
}

void moat_mmu_flush(struct moat_vm *vm)
{
	spin_lock(&vm->flush_lock);
	vm->stats.tlb_flushes++;
	vm_flush_request(vm, vm->flush_mask);
	smp_call_function_many(vm->flush_mask, flush_ack, NULL, true);
	spin_unlock(&vm->flush_lock);
}

/*
 * A piece of the range, as much as one hold of the lock may take. Returns where to go on. The lock
 * is held for the flush too: whoever has it next may find nothing left to take away, and takes that
 * to mean that no CPU can reach the pages any more.
 */
static u64 vm_zap_piece(struct moat_vm *vm, u64 start, u64 end)
{
	u64 next = end;

	rcu_read_lock();
	write_lock(&vm->mmu_lock);
	if (stage2_zap(&vm->stage2, start, end, &next))
		moat_mmu_flush(vm);
	write_unlock(&vm->mmu_lock);
	rcu_read_unlock();
	return next;
}

static bool vm_zap(struct moat_vm *vm, u64 start, u64 end, bool may_block)
{
	while (start < end) {
		start = vm_zap_piece(vm, start, end);
		if (may_block)
			cond_resched();
	}
	return true;
}

void moat_mmu_zap(struct moat_vm *vm, u64 gfn, u64 npages)
{
	vm_zap(vm, gfn << PAGE_SHIFT, (gfn + npages) << PAGE_SHIFT, true);
}

void moat_mmu_wrprotect(struct moat_vm *vm, u64 gfn, u64 npages)
{
	u64 at = gfn << PAGE_SHIFT, end = (gfn + npages) << PAGE_SHIFT;

	for (; at < end; at += WRPROTECT_PIECE) {
		write_lock(&vm->mmu_lock);
		stage2_wrprotect(&vm->stage2, at, min(at + WRPROTECT_PIECE, end));
		write_unlock(&vm->mmu_lock);
		cond_resched();
	}
	moat_mmu_flush(vm);
}

/* The host's notifications */

/*
 * What becomes of the part of a slot that a range of host addresses backs, as guest-physical
 * addresses: fn, with the flag that it was given. What the fns answer is or'ed.
 */
typedef bool part_fn(struct moat_vm *vm, u64 start, u64 end, bool flag);

static bool slot_part(struct moat_vm *vm, const struct moat_slot *slot, unsigned long start,
		      unsigned long end, part_fn *fn, bool flag)
{
	unsigned long first = max(start, slot->hva);
	unsigned long last = min(end, slot->hva + (slot->npages << PAGE_SHIFT));
	u64 gpa = slot->gfn << PAGE_SHIFT;

	return first < last && fn(vm, gpa + (first - slot->hva), gpa + (last - slot->hva), flag);
}

/*
 * The same for all slots. One that is being taken out of the array is in vm->leaving from before
 * that until it is unmapped: so it is found here or there, if one looks first here and then there.
 */
static bool slot_parts(struct moat_vm *vm, unsigned long start, unsigned long end, part_fn *fn,
		       bool flag)
{
	int idx = srcu_read_lock(&vm->srcu);
	const struct moat_slots *slots = srcu_dereference(vm->slots, &vm->srcu);
	struct moat_slot leaving;
	bool any = false;
	u32 i;

	for (i = 0; i < slots->count; i++)
		any |= slot_part(vm, &slots->slot[i], start, end, fn, flag);
	read_lock(&vm->mmu_lock);
	leaving = vm->leaving;
	read_unlock(&vm->mmu_lock);
	any |= slot_part(vm, &leaving, start, end, fn, flag);
	srcu_read_unlock(&vm->srcu, idx);
	return any;
}

static struct moat_vm *vm_of(struct mmu_notifier *notifier)
{
	return container_of(notifier, struct moat_vm, notifier);
}

static int mmu_invalidate_start(struct mmu_notifier *notifier,
				const struct mmu_notifier_range *range)
{
	struct moat_vm *vm = vm_of(notifier);

	write_lock(&vm->mmu_lock);
	vm->stats.mmu_notifier++;
	if (!vm->mmu_busy++) {
		vm->mmu_busy_start = range->start;
		vm->mmu_busy_end = range->end;
	} else {
		vm->mmu_busy_start = min_t(u64, vm->mmu_busy_start, range->start);
		vm->mmu_busy_end = max_t(u64, vm->mmu_busy_end, range->end);
	}
	write_unlock(&vm->mmu_lock);
	slot_parts(vm, range->start, range->end, vm_zap, mmu_notifier_range_blockable(range));
	return 0;
}

static void mmu_invalidate_end(struct mmu_notifier *notifier,
			       const struct mmu_notifier_range *range)
{
	struct moat_vm *vm = vm_of(notifier);

	write_lock(&vm->mmu_lock);
	vm->mmu_seq++;
	vm->mmu_busy--;
	write_unlock(&vm->mmu_lock);
}

static bool vm_age(struct moat_vm *vm, u64 start, u64 end, bool clear)
{
	bool young;

	rcu_read_lock();
	young = stage2_age(&vm->stage2, start, end, clear);
	rcu_read_unlock();
	return young;
}

static moat_young_t mmu_clear_flush_young(struct mmu_notifier *notifier, struct mm_struct *mm,
					  unsigned long start, unsigned long end)
{
	bool young = slot_parts(vm_of(notifier), start, end, vm_age, true);

	if (young)
		moat_mmu_flush(vm_of(notifier));
	return young;
}

static moat_young_t mmu_clear_young(struct mmu_notifier *notifier, struct mm_struct *mm,
				    unsigned long start, unsigned long end)
{
	return slot_parts(vm_of(notifier), start, end, vm_age, true);
}

static moat_young_t mmu_test_young(struct mmu_notifier *notifier, struct mm_struct *mm,
				   unsigned long address)
{
	return slot_parts(vm_of(notifier), address, address + PAGE_SIZE, vm_age, false);
}

/* The owner's address space ends: nothing of it may stay reachable. */
static void mmu_release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct moat_vm *vm = vm_of(notifier);

	vm_zap(vm, 0, stage2_limit(&vm->stage2), true);
}

static const struct mmu_notifier_ops mmu_notifier_ops = {
	.invalidate_range_start = mmu_invalidate_start,
	.invalidate_range_end = mmu_invalidate_end,
	.clear_flush_young = mmu_clear_flush_young,
	.clear_young = mmu_clear_young,
	.test_young = mmu_test_young,
	.release = mmu_release,
};

int moat_mmu_create(struct moat_vm *vm)
{
	/* Nested paging walks with as many levels as the host's own tables have. */
	int levels = cpu_feature_enabled(X86_FEATURE_LA57) ? 5 : 4;
	int r;

	spin_lock_init(&vm->flush_lock);
	if (!zalloc_cpumask_var(&vm->flush_mask, GFP_KERNEL_ACCOUNT))
		return -ENOMEM;
	r = stage2_init(&vm->stage2, moat_hw->stage2, levels, &mmu_stage2_ops, vm);
	if (r)
		goto free_mask;
	vm->stage2.encrypt = sme_get_me_mask();
	vm->notifier.ops = &mmu_notifier_ops;
	r = mmu_notifier_register(&vm->notifier, current->mm);
	if (r)
		goto destroy_stage2;
	mmgrab(current->mm);
	vm->mm = current->mm;
	return 0;

destroy_stage2:
	stage2_destroy(&vm->stage2);
free_mask:
	free_cpumask_var(vm->flush_mask);
	return r;
}

void moat_mmu_destroy(struct moat_vm *vm)
{
	mmu_notifier_unregister(&vm->notifier, vm->mm);
	stage2_destroy(&vm->stage2);
	free_cpumask_var(vm->flush_mask);
	mmdrop(vm->mm);
}

/* Faults */

struct fault {
	struct moat_vcpu *vcpu;
	const struct moat_slot *slot;
	u64 gpa;
	unsigned long hva;
	struct page *page;
	unsigned long seq;
	int level;
	bool write;		/* the guest's access */
	bool writable;		/* what the host's page allows */
	bool atomic;		/* interrupts are off: neither sleeps nor waits */
};

/*
 * The host's page for hva, and a reference on it. A page that is read first is mostly written soon:
 * it is mapped writable if that costs nothing.
 */
static int fault_get_page(struct fault *f)
{
	int r;

	f->writable = f->atomic || f->write;
	if (f->atomic)
		return get_user_pages_fast_only(f->hva, 1, FOLL_WRITE, &f->page) == 1 ? 0 : -EAGAIN;
	r = get_user_pages_unlocked(f->hva, 1, &f->page, f->write ? FOLL_WRITE : 0);
	if (r == 1)
		return 0;
	if (r == -EFAULT)	/* GUP takes nothing from a window */
		return moat_window_get_page(f->vcpu->vm->mm, f->hva, f->write, &f->page);
	return r < 0 ? r : -EFAULT;
}

/*
 * Marks the page as written, which it will be. False where that takes the page's lock: it may
 * sleep. Anonymous memory needs none.
 */
static bool fault_mark(const struct fault *f)
{
	if (!f->writable || PageDirty(f->page))
		return true;
	if (PageAnon(f->page))
		set_page_dirty(f->page);
	else if (!f->atomic)
		set_page_dirty_lock(f->page);
	return PageAnon(f->page) || !f->atomic;
}

/*
 * The level of the host's own mapping of hva. Interrupts are off, so that page tables do not go
 * away; whether the answer still holds is checked with the rest, by mmu_seq.
 */
static int host_level(struct mm_struct *mm, unsigned long hva)
{
	pgd_t pgd;
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	lockdep_assert_irqs_disabled();
	pgd = READ_ONCE(*pgd_offset(mm, hva));
	if (pgd_none(pgd))
		return 1;
	p4d = READ_ONCE(*p4d_offset(&pgd, hva));
	if (!p4d_present(p4d))
		return 1;
	pud = READ_ONCE(*pud_offset(&p4d, hva));
	if (!pud_present(pud))
		return 1;
	if (pud_leaf(pud))
		return 3;
	pmd = READ_ONCE(*pmd_offset(&pud, hva));
	return pmd_present(pmd) && pmd_leaf(pmd) ? 2 : 1;
}

/* Whether the large page round gpa lies in the slot, and the host's is aligned as the guest's. */
static bool slot_fits(const struct fault *f, int level)
{
	u64 size = stage2_level_size(level), in_page = f->gpa & (size - 1);
	u64 in_slot = f->hva - f->slot->hva;

	return !((f->hva ^ f->gpa) & (size - 1)) && in_slot >= in_page &&
	       in_slot - in_page + size <= f->slot->npages << PAGE_SHIFT;
}

/*
 * A guest that makes the translation of its code change in size can stop such a CPU for good (iTLB
 * multihit): large mappings hold no code, and the first fetch from one splits it.
 */
static bool code_is_small(void)
{
	return boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off();
}

/* What is logged is logged page by page; until it is written, a large mapping will do. */
static int fault_level(struct moat_vm *vm, const struct fault *f)
{
	unsigned long flags;
	int level;

	if (!PageCompound(f->page) || (f->writable && moat_slot_is_logged(f->slot)) ||
	    (f->vcpu->fault.fetch && code_is_small()))
		return 1;
	local_irq_save(flags);
	level = host_level(vm->mm, f->hva);
	local_irq_restore(flags);
	while (level > 1 && !slot_fits(f, level))
		level--;
	return level;
}

static bool fault_is_stale(struct moat_vm *vm, const struct fault *f)
{
	lockdep_assert_held_read(&vm->mmu_lock);
	if (vm->mmu_busy && f->hva >= vm->mmu_busy_start && f->hva < vm->mmu_busy_end)
		return true;
	return vm->mmu_seq != f->seq;
}

/*
 * 0 mapped or to be tried again by the guest; -ENOMEM more tables; -EEXIST smaller; -EAGAIN in the
 * way.
 */
static int fault_map(struct moat_vm *vm, const struct fault *f, void **spare)
{
	u64 mask = stage2_level_size(f->level) - 1;
	unsigned int prot = (f->level == 1 || !code_is_small() ? STAGE2_EXEC : 0) |
			    (f->writable ? STAGE2_WRITE : 0);
	u64 hpa = page_to_phys(f->page);
	int r = 0;

	/*
	 * Whoever has it for writing, or takes memory away just now, may be waiting for this CPU, whose
	 * interrupts are off in atomic: neither is waited for, nor is the guest to try again at once.
	 */
	if (!f->atomic)
		read_lock(&vm->mmu_lock);
	else if (!read_trylock(&vm->mmu_lock))
		return -EAGAIN;
	if (fault_is_stale(vm, f)) {
		r = f->atomic ? -EAGAIN : 0;
	} else {
		if (f->writable && moat_slot_is_logged(f->slot))
			moat_dirty_mark(f->vcpu, f->slot, f->gpa >> PAGE_SHIFT);
		r = stage2_map(&vm->stage2, f->gpa & ~mask, hpa & ~mask, f->level, prot, spare);
	}
	read_unlock(&vm->mmu_lock);
	return r;
}

/* Whether to map again, with a page for one more table, or a level lower. */
static bool fault_goes_on(struct fault *f, int r, void **spare)
{
	if (r == -EEXIST)
		return --f->level > 0;
	if (r == -ENOMEM)
		*spare = (void *)get_zeroed_page(f->atomic ? GFP_NOWAIT | __GFP_NOWARN | __GFP_ACCOUNT :
							     GFP_KERNEL_ACCOUNT);
	return r == -ENOMEM && *spare;
}

static int fault_map_page(struct moat_vm *vm, struct fault *f)
{
	void *spare = NULL;
	int r;

	do {
		r = fault_map(vm, f, &spare);
	} while (fault_goes_on(f, r, &spare));
	if (r == -EAGAIN && !f->atomic) {
		vm_zap(vm, f->gpa & PAGE_MASK, (f->gpa & PAGE_MASK) + PAGE_SIZE, true);
		r = 0;		/* the guest tries again */
	}
	free_page((unsigned long)spare);
	return r;
}

static int fault_in_slot(struct moat_vcpu *vcpu, const struct moat_slot *slot, bool atomic)
{
	u64 gpa = vcpu->fault.gpa & PAGE_MASK;
	struct moat_vm *vm = vcpu->vm;
	struct fault f = {
		.vcpu = vcpu, .slot = slot, .gpa = gpa, .hva = moat_slot_hva(slot, gpa),
		.seq = READ_ONCE(vm->mmu_seq), .write = vcpu->fault.write, .atomic = atomic,
	};
	int r;

	/* mmu_seq before the host's page tables; pairs with mmu_lock in the notifier. */
	smp_rmb();
	r = fault_get_page(&f);
	if (r)
		return r;
	if ((slot->flags & KVM_MEM_READONLY) || (!f.write && moat_slot_is_logged(slot)))
		f.writable = false;
	f.level = fault_level(vm, &f);
	r = fault_mark(&f) ? fault_map_page(vm, &f) : -EAGAIN;
	put_page(f.page);
	return r;
}

int moat_mmu_fault(struct moat_vcpu *vcpu, bool atomic)
{
	struct moat_vm *vm = vcpu->vm;
	const struct moat_slot *slot;
	int idx = srcu_read_lock(&vm->srcu);
	int r = -ENOENT;

	if (atomic) {
		vcpu->stats.faults++;
		trace_moat_fault(vcpu->id, vcpu->fault.gpa, vcpu->fault.write, vcpu->fault.fetch);
	}
	slot = moat_slot_find(srcu_dereference(vm->slots, &vm->srcu),
			      vcpu->fault.gpa >> PAGE_SHIFT);
	if (slot && !(vcpu->fault.write && (slot->flags & KVM_MEM_READONLY)))
		r = fault_in_slot(vcpu, slot, atomic);
	srcu_read_unlock(&vm->srcu, idx);
	return r;
}
