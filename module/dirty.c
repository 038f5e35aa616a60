// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty logging: which pages of a slot were written since userspace last asked.
 *
 * The bitmap. A slot with KVM_MEM_LOG_DIRTY_PAGES has one, and one rule: where second-level tables
 * let the guest write to a page of it, the page's bit is set. A fault keeps the rule: in one hold
 * of mmu_lock for reading it sets the bit of a single page, and then grants the write to it. So
 * does whoever takes bits out: in one hold of mmu_lock for writing it takes the write from the
 * same pages. Hence each bit that is taken stands for all writes until then, and the next write
 * makes a fault first. A CPU may go on for a while by an old translation; therefore translations
 * are flushed before userspace sees the bits, and it reads the page after that. The flush is due
 * even where nothing was writable any more: the host may just have removed the page, and not have
 * flushed yet. With manual protection GET looks on without a lock, and CLEAR takes: for GET's sake
 * the bit comes before the grant, which another vCPU may use at once.
 *
 * What the kernel writes on behalf of the guest goes by the host's address and takes no right. It
 * is written first and logged after that: the other way round, a bit could be taken before its
 * write is there to be seen.
 *
 * Logging begins with the new slot being published, after which each fault keeps the rule; then
 * all that was mapped before loses the right to write, unless the bitmap begins full. Both is done
 * when the ioctl returns. Reads may still map large pages; the first write splits one. When
 * logging ends, all mappings go, and come back as large as the host's.
 *
 * The rings. Instead of bitmaps, each vCPU may have a ring of entries that it shares with
 * userspace. The vCPU's thread puts in, at the head, what it dirties, where a bit would be set;
 * userspace reads the entries, marks them with KVM_DIRTY_GFN_F_RESET, and has them taken back, at
 * the tail, by KVM_RESET_DIRTY_RINGS. That takes the right to write, and flushes once at its end;
 * userspace reads the pages after it. The rule is that of the bitmap: a page that can be written
 * has an entry that is not taken back. The flag is what hands an entry over, each way by release
 * and acquire. Head and tail are the kernel's own; of an entry it believes nothing but its flag,
 * and that only between them. So userspace that lies misses writes, and nothing else comes of it.
 *
 * A ring never overflows. With no more than MOAT_RING_RESERVED entries left, the vCPU does not
 * enter the guest any more, nor does it serve another request; what is under way is a fault, which
 * takes one entry a try, a clock page or one instruction. That writes to at most two pages in a
 * pass, in some passes, and sets bits in the guest's page tables. As other vCPUs could make the
 * walk do that over and over, tables are not written to the last entries: the instruction is tried
 * again later.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "moat.h"

#define LOG_PIECE	64	/* words of the bitmap in one hold of mmu_lock */

int moat_dirty_prepare(struct moat_vm *vm, const struct moat_slot *old, struct moat_slot *new)
{
	if (!moat_slot_is_logged(new) || vm->dirty_ring_bytes)
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
	if (!slot->dirty || !(vm->dirty_manual & KVM_DIRTY_LOG_INITIALLY_SET))
		moat_mmu_wrprotect(vm, slot->gfn, slot->npages);
}

long moat_dirty_enable_manual(struct moat_vm *vm, const struct kvm_enable_cap *cap)
{
	u64 options = cap->args[0];

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

	if (vm->dirty_ring_bytes)
		return ERR_PTR(-ENXIO);
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

/* Whole words, the last of them up to the slot's end. */
static bool clear_range_ok(const struct kvm_clear_dirty_log *log, const struct moat_slot *slot)
{
	u64 room = slot->npages - log->first_page;

	return !(log->first_page % BITS_PER_LONG) && log->first_page <= slot->npages &&
	       log->num_pages <= room &&
	       (log->num_pages == room || !(log->num_pages % BITS_PER_LONG));
}

long moat_vm_clear_dirty_log(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	const struct kvm_clear_dirty_log *log = arg;
	size_t first = log->first_page / BITS_PER_LONG, words = BITS_TO_LONGS(log->num_pages);
	const struct moat_slot *slot = log_find(vm, log->slot);

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	if (!clear_range_ok(log, slot))
		return -EINVAL;
	if (copy_from_user(log_buffer(slot) + first, log->dirty_bitmap, words * sizeof(long)))
		return -EFAULT;
	log_take(vm, slot, first, words);
	return 0;
}

/* Rings */

long moat_dirty_enable_ring(struct moat_vm *vm, const struct kvm_enable_cap *cap)
{
	u64 bytes = cap->args[0];

	if (!is_power_of_2(bytes) || bytes < PAGE_SIZE || vm->dirty_ring_bytes || vm->vcpu_count)
		return -EINVAL;
	if (bytes > MOAT_DIRTY_RING_BYTES)
		return -E2BIG;
	vm->dirty_ring_bytes = bytes;
	return 0;
}

int moat_dirty_ring_create(struct moat_vcpu *vcpu)
{
	u32 bytes = vcpu->vm->dirty_ring_bytes;

	if (!bytes)
		return 0;
	vcpu->ring.size = bytes / sizeof(*vcpu->ring.entry);
	vcpu->ring.entry = __vmalloc(bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	return vcpu->ring.entry ? 0 : -ENOMEM;
}

struct page *moat_dirty_ring_page(struct moat_vcpu *vcpu, unsigned long pgoff)
{
	unsigned long page = pgoff - KVM_DIRTY_LOG_PAGE_OFFSET;

	if (page >= vcpu->vm->dirty_ring_bytes >> PAGE_SHIFT)
		return NULL;
	return vmalloc_to_page((void *)vcpu->ring.entry + (page << PAGE_SHIFT));
}

bool moat_dirty_ring_is_short(struct moat_vcpu *vcpu, u32 left)
{
	const struct moat_dirty_ring *ring = &vcpu->ring;

	/* Taken back is taken out: pairs with ring_take(). */
	return ring->entry && ring->head - smp_load_acquire(&ring->tail) >= ring->size - left;
}

bool moat_dirty_ring_exit(struct moat_vcpu *vcpu)
{
	if (!moat_request_take(vcpu, MOAT_REQ_RING_FULL) ||
	    !moat_dirty_ring_is_short(vcpu, MOAT_RING_RESERVED))
		return false;
	moat_request(vcpu, MOAT_REQ_RING_FULL);
	vcpu->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
	return true;
}

static void ring_push(struct moat_vcpu *vcpu, u32 slot, u64 offset)
{
	struct moat_dirty_ring *ring = &vcpu->ring;
	struct kvm_dirty_gfn *entry = &ring->entry[ring->head & (ring->size - 1)];

	lockdep_assert_held(&vcpu->lock);
	if (WARN_ON_ONCE(moat_dirty_ring_is_short(vcpu, 0)))
		return;
	WRITE_ONCE(entry->slot, slot);
	WRITE_ONCE(entry->offset, offset);
	/* For userspace, that it finds the rest; for ring_take(), that it finds the flag too. */
	smp_store_release(&entry->flags, KVM_DIRTY_GFN_F_DIRTY);
	smp_store_release(&ring->head, ring->head + 1);
	if (moat_dirty_ring_is_short(vcpu, MOAT_RING_RESERVED))
		moat_request(vcpu, MOAT_REQ_RING_FULL);
}

void moat_dirty_mark(struct moat_vcpu *vcpu, const struct moat_slot *slot, u64 gfn)
{
	if (!moat_slot_is_logged(slot))
		return;
	if (vcpu->ring.entry)
		ring_push(vcpu, slot->id, gfn - slot->gfn);
	else
		set_bit(gfn - slot->gfn, slot->dirty);
}

/* Takes back the entry at the tail. False where userspace still has it. */
static bool ring_take(struct moat_vm *vm, struct moat_dirty_ring *ring)
{
	struct kvm_dirty_gfn *entry = &ring->entry[ring->tail & (ring->size - 1)];
	const struct moat_slot *slot;
	u64 offset;

	if (!(smp_load_acquire(&entry->flags) & KVM_DIRTY_GFN_F_RESET))
		return false;
	slot = moat_slot_by_id(rcu_dereference_protected(vm->slots, lockdep_is_held(&vm->lock)),
			       READ_ONCE(entry->slot));
	offset = READ_ONCE(entry->offset);
	if (slot && moat_slot_is_logged(slot) && offset < slot->npages) {
		write_lock(&vm->mmu_lock);
		stage2_wrprotect_mask(&vm->stage2, (slot->gfn + offset) << PAGE_SHIFT, 1);
		write_unlock(&vm->mmu_lock);
	}
	WRITE_ONCE(entry->flags, 0);
	smp_store_release(&ring->tail, ring->tail + 1);
	return true;
}

long moat_vm_reset_dirty_rings(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	struct moat_vcpu *vcpu;
	u32 id, head, count = 0;

	if (!vm->dirty_ring_bytes)
		return -EINVAL;
	moat_for_each_vcpu(vm, vcpu, id) {
		/* What is pushed from now on is for the next time, so that there is an end. */
		head = smp_load_acquire(&vcpu->ring.head);
		for (; vcpu->ring.tail != head && ring_take(vm, &vcpu->ring); count++)
			cond_resched();
	}
	if (count)
		moat_mmu_flush(vm);
	return count;
}
