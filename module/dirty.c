// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty logging: which pages of a slot were written since userspace last asked.
 *
 * The bitmap. A slot with KVM_MEM_LOG_DIRTY_PAGES has one, and one rule: where second-level tables
 * let the guest write to a page of it, the page's bit is set. A fault keeps the rule: in one hold
 * of mmu_lock for reading it sets the bit of a single page, and then grants the write to it. So does
 * whoever takes bits out: in one hold of mmu_lock for writing it takes the write from the same
 * pages. Hence each bit that is taken stands for all writes until then, and the next write makes a
 * fault first. A CPU may go on for a while by an old translation; therefore translations are
 * flushed before userspace sees the bits, and it reads the page after that. The flush is due even
 * where nothing was writable any more: the host may just have removed the page, and not have
 * flushed yet.
 *
 * What the kernel writes on behalf of the guest goes by the host's address and takes no right. It is
 * written first and logged after that: the other way round, a bit could be taken before its write
 * is there to be seen.
 *
 * Logging begins with the new slot being published, after which each fault keeps the rule; then all
 * that was mapped before loses the right to write, unless the bitmap begins full. Both is done when
 * the ioctl returns. Reads may still map large pages; the first write splits one. When logging
 * ends, all mappings go, and come back as large as the host's.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "moat.h"

#define LOG_PIECE	64	/* words of the bitmap in one hold of mmu_lock */

void moat_dirty_mark(struct moat_vcpu *vcpu, const struct moat_slot *slot, u64 gfn)
{
	if (moat_slot_is_logged(slot))
		set_bit(gfn - slot->gfn, slot->dirty);
}

int moat_dirty_prepare(struct moat_vm *vm, const struct moat_slot *old, struct moat_slot *new)
{
	if (!moat_slot_is_logged(new))
		return 0;
	if (old && old->dirty) {
		new->dirty = old->dirty;
		return 0;
	}
	new->dirty = kvcalloc(2 * BITS_TO_LONGS(new->npages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!new->dirty)
		return -ENOMEM;
	if (vm->dirty_manual & KVM_DIRTY_LOG_INITIALLY_SET)
		bitmap_set(new->dirty, 0, new->npages);
	return 0;
}

void moat_dirty_begin(struct moat_vm *vm, const struct moat_slot *slot)
{
	if (!(vm->dirty_manual & KVM_DIRTY_LOG_INITIALLY_SET))
		moat_mmu_wrprotect(vm, slot->gfn, slot->npages);
}

int moat_dirty_enable_manual(struct moat_vm *vm, u64 options)
{
	if (options & ~MOAT_DIRTY_MANUAL || options == KVM_DIRTY_LOG_INITIALLY_SET)
		return -EINVAL;
	vm->dirty_manual = options;
	return 0;
}

/* The room behind a slot's bitmap: what is asked for, then what was found. */
static unsigned long *log_buffer(const struct moat_slot *slot)
{
	return slot->dirty + BITS_TO_LONGS(slot->npages);
}

/* Takes those pages of one word that are asked for. True where there were any. */
static bool log_take_word(struct moat_vm *vm, const struct moat_slot *slot, size_t i)
{
	atomic_long_t *word = (atomic_long_t *)&slot->dirty[i];
	unsigned long *mask = &log_buffer(slot)[i];

	*mask &= atomic_long_read(word);
	if (!*mask)
		return false;
	*mask &= atomic_long_fetch_andnot(*mask, word);
	stage2_wrprotect_mask(&vm->stage2, (slot->gfn + i * BITS_PER_LONG) << PAGE_SHIFT, *mask);
	return true;
}

static void log_take(struct moat_vm *vm, const struct moat_slot *slot, size_t i, size_t words)
{
	size_t end = i + words, stop;
	bool any = false;

	lockdep_assert_held(&vm->lock);
	while (i < end) {
		stop = min(i + LOG_PIECE, end);
		write_lock(&vm->mmu_lock);
		for (; i < stop; i++)
			any |= log_take_word(vm, slot, i);
		write_unlock(&vm->mmu_lock);
		cond_resched();
	}
	if (any)
		moat_mmu_flush(vm);
}

/* What userspace could not be told stays in the log. */
static void log_put_back(const struct moat_slot *slot, size_t words)
{
	size_t i;

	for (i = 0; i < words; i++)
		atomic_long_or(log_buffer(slot)[i], (atomic_long_t *)&slot->dirty[i]);
}

/* The slot of this number, if it has a log. */
static const struct moat_slot *log_find(struct moat_vm *vm, u32 id)
{
	const struct moat_slot *slot;

	if (id >= MOAT_MAX_SLOTS)
		return ERR_PTR(-EINVAL);
	slot = moat_slot_by_id(rcu_dereference_protected(vm->slots, lockdep_is_held(&vm->lock)),
			       id);
	return slot && slot->dirty ? slot : ERR_PTR(-ENOENT);
}

long moat_vm_get_dirty_log(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	const struct kvm_dirty_log *log = arg;
	const struct moat_slot *slot = log_find(vm, log->slot);
	size_t words;

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	words = BITS_TO_LONGS(slot->npages);
	if (vm->dirty_manual)
		return copy_to_user(log->dirty_bitmap, slot->dirty, words * sizeof(long)) ?
			       -EFAULT : 0;
	memset(log_buffer(slot), 0xff, words * sizeof(long));
	log_take(vm, slot, 0, words);
	if (copy_to_user(log->dirty_bitmap, log_buffer(slot), words * sizeof(long))) {
		log_put_back(slot, words);
		return -EFAULT;
	}
	return 0;
}

/* Whole words, or up to the slot's end. */
static bool clear_range_ok(const struct kvm_clear_dirty_log *log, const struct moat_slot *slot)
{
	u64 room = slot->npages - log->first_page;

	return log->first_page <= slot->npages && log->num_pages <= room &&
	       (log->num_pages == room || !(log->num_pages % BITS_PER_LONG));
}

long moat_vm_clear_dirty_log(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	const struct kvm_clear_dirty_log *log = arg;
	size_t first = log->first_page / BITS_PER_LONG, words = BITS_TO_LONGS(log->num_pages);
	const struct moat_slot *slot;

	if (log->first_page % BITS_PER_LONG)
		return -EINVAL;
	slot = log_find(vm, log->slot);
	if (IS_ERR(slot))
		return PTR_ERR(slot);
	if (!clear_range_ok(log, slot))
		return -EINVAL;
	if (copy_from_user(log_buffer(slot) + first, log->dirty_bitmap, words * sizeof(long)))
		return -EFAULT;
	log_take(vm, slot, first, words);
	return 0;
}
