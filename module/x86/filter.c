// SPDX-License-Identifier: GPL-2.0-only
/*
 * MSR filters: which MSRs the guest may read and write, as userspace says; and the exits by which
 * userspace serves those that the guest may not, or that are unknown, or that got an illegal value.
 *
 * A filter is made whole, published under vm->lock and read under vm->srcu. While there is one, the
 * vendor intercepts every MSR.
 */
#include <linux/bitmap.h>
#include <linux/overflow.h>

#include "x86.h"

#define RANGE_FLAGS	(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)

bool moat_msr_filter_allows(struct moat_vm *vm, u32 index, u32 access)
{
	int srcu = srcu_read_lock(&vm->srcu);
	const struct kvm_msr_filter *filter = srcu_dereference(vm->msr_filter, &vm->srcu);
	bool allow = !filter || !(filter->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	u32 i;

	for (i = 0; filter && i < ARRAY_SIZE(filter->ranges); i++) {
		const struct kvm_msr_filter_range *range = &filter->ranges[i];

		if ((range->flags & access) && index - range->base < range->nmsrs) {
			/* A set bit allows. */
			allow = test_bit(index - range->base, (unsigned long *)range->bitmap);
			break;
		}
	}
	srcu_read_unlock(&vm->srcu, srcu);
	return allow;
}

void moat_msr_filter_free(struct kvm_msr_filter *filter)
{
	u32 i;

	for (i = 0; filter && i < ARRAY_SIZE(filter->ranges); i++)
		kfree(filter->ranges[i].bitmap);
	kfree(filter);
}

static int range_copy(struct kvm_msr_filter_range *range, const struct kvm_msr_filter_range *from)
{
	size_t size = BITS_TO_LONGS((size_t)from->nmsrs) * sizeof(long);
	void *bitmap;

	if (!from->flags || (from->flags & ~RANGE_FLAGS) ||
	    size > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	bitmap = memdup_user((void __user *)from->bitmap, size);
	if (IS_ERR(bitmap))
		return PTR_ERR(bitmap);
	*range = *from;
	range->bitmap = bitmap;
	return 0;
}

/* With bitmaps of its own, or none where a range is empty. NULL where nothing is filtered. */
static struct kvm_msr_filter *filter_make(const struct kvm_msr_filter *from)
{
	struct kvm_msr_filter *filter = kzalloc(sizeof(*filter), GFP_KERNEL_ACCOUNT);
	bool empty = true;
	int r = 0;
	u32 i;

	if (!filter)
		return ERR_PTR(-ENOMEM);
	filter->flags = from->flags;
	for (i = 0; i < ARRAY_SIZE(from->ranges) && !r; i++)
		if (from->ranges[i].nmsrs) {
			r = range_copy(&filter->ranges[i], &from->ranges[i]);
			empty = false;
		}
	/* A guest that may have no MSR at all is a mistake. */
	if (!r && empty && (from->flags & KVM_MSR_FILTER_DEFAULT_DENY))
		r = -EINVAL;
	if (!r && !empty)
		return filter;
	moat_msr_filter_free(filter);
	return ERR_PTR(r);
}

long moat_vm_set_msr_filter(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_msr_filter *from = arg;
	struct kvm_msr_filter *filter;
	struct moat_vm *vm = object;

	if (from->flags & ~KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	filter = filter_make(from);
	if (IS_ERR(filter))
		return PTR_ERR(filter);
	filter = rcu_replace_pointer(vm->msr_filter, filter, lockdep_is_held(&vm->lock));
	synchronize_srcu_expedited(&vm->srcu);
	moat_msr_filter_free(filter);
	moat_vm_request(vm, MOAT_REQ_EVENT);	/* the next entry intercepts by the new one */
	return 0;
}

static int msr_complete(struct moat_vcpu *vcpu)
{
	u64 value = READ_ONCE(vcpu->run->msr.data);

	if (vcpu->rip != vcpu->io.rip)
		return 1;
	if (READ_ONCE(vcpu->run->msr.error)) {
		moat_inject_gp(vcpu);
		return 1;
	}
	if (vcpu->io.in) {
		vcpu->gpr[RAX] = (u32)value;
		vcpu->gpr[RDX] = value >> 32;
	}
	moat_insn_skip(vcpu, vcpu->io.next_rip);
	return 1;
}

static u32 exit_reason_of(int error)
{
	if (error == -EPERM)
		return KVM_MSR_EXIT_REASON_FILTER;
	return error == -ENOENT ? KVM_MSR_EXIT_REASON_UNKNOWN : KVM_MSR_EXIT_REASON_INVAL;
}

bool moat_msr_to_user(struct moat_vcpu *vcpu, bool write, u64 value, int error, u64 next_rip)
{
	u32 reason = exit_reason_of(error);
	struct kvm_run *run = vcpu->run;

	if (!(READ_ONCE(vcpu->vm->user_msrs) & reason))
		return false;
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	memset(&run->msr, 0, sizeof(run->msr));
	run->msr.reason = reason;
	run->msr.index = vcpu->gpr[RCX];
	run->msr.data = write ? value : 0;
	vcpu->io.in = !write;
	vcpu->io.rip = vcpu->rip;
	vcpu->io.next_rip = next_rip;
	vcpu->complete = msr_complete;
	return true;
}
