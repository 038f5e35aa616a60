// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest-physical layout: which frames are backed by which of the owner's memory.
 *
 * The slots are one sorted array that is never changed: a new one replaces it, and the old one
 * goes when all readers of before (vm->srcu) are done. Whoever maps a page into the guest finds
 * the slot and maps inside one read section, so after the grace period nobody maps by the old
 * layout any more, and what is mapped by it can be taken away for good.
 */
#include <linux/overflow.h>

#include "hw.h"

#define SLOT_MAX_PAGES	((1UL << 31) - 1)	/* as KVM_MEM_MAX_NR_PAGES */

/* How many begin at or below gfn: the last of them is the only one that can hold it. */
static u32 slots_up_to(const struct moat_slots *slots, u64 gfn)
{
	u32 low = 0, high = slots->count;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (slots->slot[mid].gfn <= gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool slot_holds(const struct moat_slot *slot, u64 gfn)
{
	return gfn - slot->gfn < slot->npages;
}

const struct moat_slot *moat_slot_find(struct moat_slots *slots, u64 gfn)
{
	u32 last = READ_ONCE(slots->last);

	if (last < slots->count && slot_holds(&slots->slot[last], gfn))
		return &slots->slot[last];
	last = slots_up_to(slots, gfn) - 1;
	if (last == U32_MAX || !slot_holds(&slots->slot[last], gfn))
		return NULL;
	WRITE_ONCE(slots->last, last);
	return &slots->slot[last];
}

const struct moat_slot *moat_slot_by_id(const struct moat_slots *slots, u32 id)
{
	u32 i;

	for (i = 0; i < slots->count; i++)
		if (slots->slot[i].id == id)
			return &slots->slot[i];
	return NULL;
}

/* Only the last one that begins before its end can; or the one before that, where it replaces that. */
static bool slot_overlaps(const struct moat_slots *slots, const struct moat_slot *new)
{
	u32 i = slots_up_to(slots, new->gfn + new->npages - 1);

	if (i && slots->slot[i - 1].id == new->id)
		i--;
	return i && new->gfn < slots->slot[i - 1].gfn + slots->slot[i - 1].npages;
}

/* A copy without one slot and with another, where there are such. */
static struct moat_slots *slots_copy(const struct moat_slots *old, const struct moat_slot *without,
				     const struct moat_slot *new)
{
	struct moat_slots *copy;
	struct moat_slot *at;

	copy = kvmalloc(struct_size(copy, slot, old->count + 1), GFP_KERNEL_ACCOUNT);
	if (!copy)
		return NULL;
	memcpy(copy, old, struct_size(old, slot, old->count));
	copy->last = 0;
	if (without) {
		at = &copy->slot[without - old->slot];
		copy->count--;
		memmove(at, at + 1, (void *)&copy->slot[copy->count] - (void *)at);
	}
	if (new) {
		at = &copy->slot[slots_up_to(copy, new->gfn)];
		memmove(at + 1, at, (void *)&copy->slot[copy->count] - (void *)at);
		copy->count++;
		*at = *new;
	}
	return copy;
}

/* What leaves is the host's to take away until it is no longer mapped: see slot_parts(). */
static void slot_leaves(struct moat_vm *vm, struct moat_slot slot)
{
	write_lock(&vm->mmu_lock);
	vm->leaving = slot;
	write_unlock(&vm->mmu_lock);
}

/* Replaces slot old by new; either may be NULL. */
static int slot_replace(struct moat_vm *vm, const struct moat_slot *old,
			const struct moat_slot *new)
{
	bool stays = old && new && old->gfn == new->gfn;
	struct moat_slots *before, *after;

	before = rcu_dereference_protected(vm->slots, lockdep_is_held(&vm->lock));
	after = slots_copy(before, old, new);
	if (!after)
		return -ENOMEM;
	if (old && !stays)
		slot_leaves(vm, *old);
	rcu_assign_pointer(vm->slots, after);
	/* Whoever sees the count sees the slots. */
	smp_store_release(&vm->layout, vm->layout + 1);
	synchronize_srcu_expedited(&vm->srcu);
	if (stays && moat_slot_is_logged(new))
		moat_dirty_begin(vm, new);
	else if (old)	/* large pages come back, where logging has ended */
		moat_mmu_zap(vm, old->gfn, old->npages);
	if (old && !stays)
		slot_leaves(vm, (struct moat_slot) { 0 });
	if (old && !(new && new->dirty == old->dirty))
		kvfree(old->dirty);
	kvfree(before);
	return 0;
}

static bool region_is_legal(struct moat_vm *vm, const struct kvm_userspace_memory_region *region)
{
	u64 end;

	/* The upper half of a slot's number is an address space, of which there is only number 0. */
	return !(region->flags & ~(KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES)) &&
	       region->slot < MOAT_MAX_SLOTS && PAGE_ALIGNED(region->memory_size) &&
	       PAGE_ALIGNED(region->guest_phys_addr) && PAGE_ALIGNED(region->userspace_addr) &&
	       access_ok((void __user *)(unsigned long)region->userspace_addr,
			 region->memory_size) &&
	       region->memory_size >> PAGE_SHIFT <= SLOT_MAX_PAGES &&
	       !check_add_overflow(region->guest_phys_addr, region->memory_size, &end) &&
	       end <= stage2_limit(&vm->stage2);
}

/*
 * A slot that exists can move in the guest, and be logged or not; its size, its backing and being
 * read-only are for life.
 */
static bool slot_may_become(const struct moat_slot *old, const struct moat_slot *new)
{
	return old->npages == new->npages && old->hva == new->hva &&
	       !((old->flags ^ new->flags) & KVM_MEM_READONLY);
}

long moat_vm_set_memory_region(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_userspace_memory_region *region = arg;
	struct moat_vm *vm = object;
	struct moat_slots *slots = rcu_dereference_protected(vm->slots, lockdep_is_held(&vm->lock));
	const struct moat_slot *old;
	struct moat_slot new;
	int r;

	if (!region_is_legal(vm, region))
		return -EINVAL;
	old = moat_slot_by_id(slots, region->slot);
	if (!region->memory_size)
		return old ? slot_replace(vm, old, NULL) : -EINVAL;
	new = (struct moat_slot) {
		.id = region->slot,
		.flags = region->flags,
		.gfn = region->guest_phys_addr >> PAGE_SHIFT,
		.npages = region->memory_size >> PAGE_SHIFT,
		.hva = region->userspace_addr,
	};
	if (old && !slot_may_become(old, &new))
		return -EINVAL;
	if (old && old->gfn == new.gfn && old->flags == new.flags)
		return 0;
	if (slot_overlaps(slots, &new))
		return -EEXIST;
	r = moat_dirty_prepare(vm, old, &new);
	if (r)
		return r;
	r = slot_replace(vm, old, &new);
	if (r && !(old && old->dirty == new.dirty))
		kvfree(new.dirty);
	return r;
}

void moat_slots_free(struct moat_slots *slots)
{
	u32 i;

	for (i = 0; i < slots->count; i++)
		kvfree(slots->slot[i].dirty);
	kvfree(slots);
}

/* The slot that holds gpa, where the guest may read it, or write it. Inside vm->srcu. */
static const struct moat_slot *guest_slot(struct moat_vm *vm, u64 gpa, bool write)
{
	struct moat_slots *slots = srcu_dereference(vm->slots, &vm->srcu);
	const struct moat_slot *slot = moat_slot_find(slots, gpa >> PAGE_SHIFT);

	return slot && write && (slot->flags & KVM_MEM_READONLY) ? NULL : slot;
}

unsigned long moat_guest_hva(struct moat_vm *vm, u64 gpa)
{
	int idx = srcu_read_lock(&vm->srcu);
	const struct moat_slot *slot = guest_slot(vm, gpa, false);
	unsigned long hva = slot ? moat_slot_hva(slot, gpa) : 0;

	srcu_read_unlock(&vm->srcu, idx);
	return hva;
}

bool moat_guest_has(struct moat_vm *vm, u64 gpa, bool write)
{
	int idx = srcu_read_lock(&vm->srcu);
	bool has = guest_slot(vm, gpa, write);

	srcu_read_unlock(&vm->srcu, idx);
	return has;
}

/* Reads, or, for a vCPU, writes. A page that could be written only in part is logged too. */
static int guest_copy(struct moat_vm *vm, struct moat_vcpu *writer, u64 gpa, void *data, size_t len)
{
	int idx = srcu_read_lock(&vm->srcu);
	int r = 0;

	while (len && !r) {
		const struct moat_slot *slot = guest_slot(vm, gpa, writer);
		size_t n = min_t(size_t, len, PAGE_SIZE - offset_in_page(gpa));
		void __user *user = slot ? (void __user *)moat_slot_hva(slot, gpa) : NULL;

		if (!slot || (writer ? copy_to_user(user, data, n) : copy_from_user(data, user, n)))
			r = -EFAULT;
		if (slot && writer)
			moat_dirty_mark(writer, slot, gpa >> PAGE_SHIFT);
		gpa += n;
		data += n;
		len -= n;
	}
	srcu_read_unlock(&vm->srcu, idx);
	return r;
}

int moat_guest_read(struct moat_vm *vm, u64 gpa, void *data, size_t len)
{
	return guest_copy(vm, NULL, gpa, data, len);
}

int moat_guest_read_atomic(struct moat_vm *vm, u64 gpa, void *data, size_t len)
{
	int r;

	pagefault_disable();
	r = moat_guest_read(vm, gpa, data, len);
	pagefault_enable();
	return r;
}

int moat_guest_write(struct moat_vcpu *vcpu, u64 gpa, const void *data, size_t len)
{
	return guest_copy(vcpu->vm, vcpu, gpa, (void *)data, len);
}

static int cmpxchg_sized(unsigned long hva, u64 *old, u64 new, unsigned int len)
{
	switch (len) {
	case 1:
		return __try_cmpxchg_user((u8 __user *)hva, (u8 *)old, (u8)new, u8_fault);
	case 2:
		return __try_cmpxchg_user((u16 __user *)hva, (u16 *)old, (u16)new, u16_fault);
	case 4:
		return __try_cmpxchg_user((u32 __user *)hva, (u32 *)old, (u32)new, u32_fault);
	case 8:
		return __try_cmpxchg_user((u64 __user *)hva, old, new, u64_fault);
	}
	return -EINVAL;
}

/*
 * 0 exchanged; -EAGAIN not, *old is what was there, or there is no room to log it; -EFAULT. Aligned
 * to its length.
 */
int moat_guest_cmpxchg(struct moat_vcpu *vcpu, u64 gpa, u64 *old, u64 new, unsigned int len)
{
	struct moat_vm *vm = vcpu->vm;
	int idx = srcu_read_lock(&vm->srcu);
	const struct moat_slot *slot = guest_slot(vm, gpa, true);
	int r = -EFAULT;

	if (moat_dirty_ring_is_short(vcpu, MOAT_RING_FOR_DATA)) {
		r = -EAGAIN;
	} else if (slot && IS_ALIGNED(gpa, len) &&
	    access_ok((void __user *)moat_slot_hva(slot, gpa), len)) {
		r = cmpxchg_sized(moat_slot_hva(slot, gpa), old, new, len);
		if (!r)
			moat_dirty_mark(vcpu, slot, gpa >> PAGE_SHIFT);
		if (r > 0)
			r = -EAGAIN;
	}
	srcu_read_unlock(&vm->srcu, idx);
	return r;
}
