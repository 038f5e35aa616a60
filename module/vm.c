// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VM: its file, its life, its ioctls.
 */
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/sched/mm.h>

#include "hw.h"
#include "irq/irq.h"
#include "x86/x86.h"

#define KVM_MIN_MMU_PAGES 64

static const struct file_operations vm_fops;
static atomic64_t vm_numbers;

static struct moat_vm *vm_alloc(void)
{
	struct moat_vm *vm = kvzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);

	if (!vm)
		return NULL;
	refcount_set(&vm->refs, 1);
	vm->number = atomic64_inc_return(&vm_numbers);
	mutex_init(&vm->lock);
	rwlock_init(&vm->mmu_lock);
	vm->halt_poll_ns = -1;
	vm->platform_info_shown = true;
	moat_clock_create(vm);
	moat_irqfd_init(vm);
	return vm;
}

/* Slots, page tables and everything that hangs on the owner's memory. */
static int vm_init(struct moat_vm *vm)
{
	struct moat_slots *slots;
	int r = init_srcu_struct(&vm->srcu);

	if (r)
		return r;
	slots = kvzalloc(sizeof(*slots), GFP_KERNEL_ACCOUNT);
	RCU_INIT_POINTER(vm->slots, slots);
	r = slots ? moat_ioeventfd_init(vm) : -ENOMEM;
	if (!r)
		r = moat_mmu_create(vm);
	if (!r)
		return 0;
	moat_ioeventfd_destroy(vm);	/* where it is there */
	kvfree(slots);
	cleanup_srcu_struct(&vm->srcu);
	return r;
}

static void vm_destroy(struct moat_vm *vm)
{
	u32 id;

	debugfs_remove(vm->debugfs);
	moat_irqfd_destroy(vm);
	moat_irqchip_destroy(vm);
	/* Before the vCPUs: until it is done the host's notifications come, and make requests. */
	moat_mmu_destroy(vm);
	for (id = 0; id < vm->vcpu_bound; id++)
		if (moat_vm_vcpu(vm, id))
			moat_vcpu_destroy(moat_vm_vcpu(vm, id));
	moat_ioeventfd_destroy(vm);
	moat_slots_free(rcu_dereference_protected(vm->slots, true));
	moat_msr_filter_free(rcu_dereference_protected(vm->msr_filter, true));
	cleanup_srcu_struct(&vm->srcu);
	kvfree(vm);
}

void moat_vm_get(struct moat_vm *vm)
{
	refcount_inc(&vm->refs);
}

void moat_vm_put(struct moat_vm *vm)
{
	if (refcount_dec_and_test(&vm->refs))
		vm_destroy(vm);
}

int moat_file_prepare(const char *name, const struct file_operations *fops, void *object, int flags,
		      struct file **ret_file)
{
	int fd = get_unused_fd_flags(flags | O_CLOEXEC);

	if (fd < 0)
		return fd;
	*ret_file = anon_inode_getfile(name, fops, object, flags);
	if (!IS_ERR(*ret_file))
		return fd;
	put_unused_fd(fd);
	return PTR_ERR(*ret_file);
}

long moat_system_create_vm(void *object, void *arg, unsigned long type)
{
	struct moat_vm *vm;
	int r;

	if (type)
		return -EINVAL;
	vm = vm_alloc();
	if (!vm)
		return -ENOMEM;
	r = vm_init(vm);
	if (r) {
		kvfree(vm);
		return r;
	}
	moat_stats_vm_add(vm);
	r = anon_inode_getfd("moat-vm", &vm_fops, vm, O_RDWR | O_CLOEXEC);
	if (r < 0)
		moat_vm_put(vm);
	return r;
}

/*
 * VT-x without unrestricted guest needs a task state segment and an identity map hidden in guest
 * memory; Moat refuses such CPUs, so the addresses are checked and have no use.
 */
static long vm_set_tss_addr(void *object, void *arg, unsigned long uarg)
{
	return uarg > U32_MAX - 3 * PAGE_SIZE ? -EINVAL : 0;
}

static long vm_set_identity_map_addr(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;

	return vm->vcpu_count ? -EINVAL : 0;
}

static long vm_set_boot_cpu_id(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;

	if (vm->vcpu_count)
		return -EBUSY;
	if (uarg >= (vm->max_vcpu_ids ?: MOAT_MAX_VCPUS))
		return -EINVAL;
	vm->bsp_id = uarg;
	return 0;
}

void moat_vm_request(struct moat_vm *vm, enum moat_request req)
{
	struct moat_vcpu *vcpu;
	u32 id;

	moat_for_each_vcpu(vm, vcpu, id) {
		moat_request(vcpu, req);
		moat_vcpu_kick(vcpu);
	}
}

/* Guests have no shadow page tables whose number could be limited; any limit is kept. */
static long vm_set_nr_mmu_pages(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;

	if (uarg < KVM_MIN_MMU_PAGES || uarg > U32_MAX)
		return -EINVAL;
	vm->mmu_pages = uarg;
	return 0;
}

static long vm_get_nr_mmu_pages(void *object, void *arg, unsigned long uarg)
{
	return ((struct moat_vm *)object)->mmu_pages;
}

static long vm_enable_split_irqchip(struct moat_vm *vm, const struct kvm_enable_cap *cap)
{
	if (cap->args[0] > MOAT_NR_GSIS)
		return -EINVAL;
	if (vm->irqchip || vm->vcpu_count)
		return -EEXIST;
	vm->ioapic_pins = cap->args[0];
	/* Pairs with moat_irqchip(). */
	smp_store_release(&vm->irqchip, MOAT_IRQCHIP_SPLIT);
	return 0;
}

static long vm_enable_x2apic_api(struct moat_vm *vm, const struct kvm_enable_cap *cap)
{
	WRITE_ONCE(vm->x2apic_api, vm->x2apic_api | cap->args[0]);
	return 0;
}

/* Once, before any vCPU. */
static long vm_enable_max_vcpu_id(struct moat_vm *vm, const struct kvm_enable_cap *cap)
{
	if (!cap->args[0] || cap->args[0] > MOAT_MAX_VCPUS || vm->vcpu_count ||
	    vm->max_vcpu_ids || vm->bsp_id > cap->args[0])
		return -EINVAL;
	vm->max_vcpu_ids = cap->args[0];
	return 0;
}

/*
 * What may be set in the first argument, and where it goes, which is a u64 of struct moat_vm; or
 * what else becomes of it.
 */
static const struct vm_cap {
	u32 cap;
	u64 bits;
	u32 field;
	long (*enable)(struct moat_vm *vm, const struct kvm_enable_cap *cap);
} vm_caps[] = {
#define FIELD(name) offsetof(struct moat_vm, name)
	{ KVM_CAP_SPLIT_IRQCHIP, U64_MAX, 0, vm_enable_split_irqchip },
	{ KVM_CAP_X2APIC_API, MOAT_X2APIC_API, 0, vm_enable_x2apic_api },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, U64_MAX, 0, moat_dirty_enable_manual },
	{ KVM_CAP_DIRTY_LOG_RING, U64_MAX, 0, moat_dirty_enable_ring },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, U64_MAX, 0, moat_dirty_enable_ring },
	{ KVM_CAP_EXCEPTION_PAYLOAD, U64_MAX, FIELD(exception_payload) },
	{ KVM_CAP_X86_TRIPLE_FAULT_EVENT, U64_MAX, FIELD(triple_fault_event) },
	{ KVM_CAP_X86_USER_SPACE_MSR, MOAT_MSR_REASONS, FIELD(user_msrs) },
	{ KVM_CAP_MSR_PLATFORM_INFO, U64_MAX, FIELD(platform_info_shown) },
	{ KVM_CAP_DISABLE_QUIRKS2, MOAT_QUIRKS, FIELD(quirks_off) },
	{ KVM_CAP_MAX_VCPU_ID, U64_MAX, 0, vm_enable_max_vcpu_id },
	{ KVM_CAP_HALT_POLL, U32_MAX, FIELD(halt_poll_ns) },
};

static long vm_enable_cap(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_enable_cap *cap = arg;
	const struct vm_cap *row;

	for (row = vm_caps; row < vm_caps + ARRAY_SIZE(vm_caps); row++)
		if (row->cap == cap->cap)
			break;
	if (row == vm_caps + ARRAY_SIZE(vm_caps) || cap->flags || (cap->args[0] & ~row->bits))
		return -EINVAL;
	if (row->enable)
		return row->enable(object, cap);
	WRITE_ONCE(*(u64 *)(object + row->field), cap->args[0]);
	moat_vm_request(object, MOAT_REQ_EVENT);	/* what is intercepted may depend on it */
	return 0;
}

const struct moat_ioctl moat_vm_ioctls[] = {
	{ KVM_IRQ_LINE, MOAT_LOCK_NONE, moat_vm_irq_line },
	{ KVM_IRQ_LINE_STATUS, MOAT_LOCK_NONE, moat_vm_irq_line_status },
	{ KVM_SIGNAL_MSI, MOAT_LOCK_NONE, moat_vm_signal_msi },
	{ KVM_CHECK_EXTENSION, MOAT_LOCK_NONE, moat_check_extension },
	{ KVM_CREATE_VCPU, MOAT_LOCK_VM, moat_vm_create_vcpu },
	{ KVM_SET_USER_MEMORY_REGION, MOAT_LOCK_VM, moat_vm_set_memory_region },
	{ KVM_GET_DIRTY_LOG, MOAT_LOCK_VM, moat_vm_get_dirty_log },
	{ KVM_CLEAR_DIRTY_LOG, MOAT_LOCK_VM, moat_vm_clear_dirty_log },
	{ KVM_RESET_DIRTY_RINGS, MOAT_LOCK_VM, moat_vm_reset_dirty_rings },
	{ KVM_SET_TSS_ADDR, MOAT_LOCK_NONE, vm_set_tss_addr },
	{ KVM_SET_IDENTITY_MAP_ADDR, MOAT_LOCK_VM, vm_set_identity_map_addr },
	{ KVM_SET_BOOT_CPU_ID, MOAT_LOCK_VM, vm_set_boot_cpu_id },
	{ KVM_ENABLE_CAP, MOAT_LOCK_VM, vm_enable_cap },
	{ KVM_IOEVENTFD, MOAT_LOCK_VM, moat_vm_ioeventfd },
	{ KVM_REGISTER_COALESCED_MMIO, MOAT_LOCK_VM, moat_vm_register_coalesced },
	{ KVM_UNREGISTER_COALESCED_MMIO, MOAT_LOCK_VM, moat_vm_unregister_coalesced },
	{ KVM_IRQFD, MOAT_LOCK_VM, moat_vm_irqfd },
	{ KVM_CREATE_IRQCHIP, MOAT_LOCK_VM, moat_vm_create_irqchip },
	{ KVM_GET_IRQCHIP, MOAT_LOCK_VM, moat_vm_get_irqchip },
	{ KVM_SET_IRQCHIP, MOAT_LOCK_VM, moat_vm_set_irqchip },
	{ KVM_CREATE_PIT2, MOAT_LOCK_VM, moat_vm_create_pit2 },
	{ KVM_GET_PIT2, MOAT_LOCK_VM, moat_vm_get_pit2 },
	{ KVM_SET_PIT2, MOAT_LOCK_VM, moat_vm_set_pit2 },
	{ KVM_REINJECT_CONTROL, MOAT_LOCK_VM, moat_vm_reinject_control },
	{ KVM_SET_GSI_ROUTING, MOAT_LOCK_VM, moat_vm_set_gsi_routing },
	{ KVM_GET_CLOCK, MOAT_LOCK_VM, moat_vm_get_clock },
	{ KVM_SET_CLOCK, MOAT_LOCK_VM, moat_vm_set_clock },
	{ KVM_X86_SET_MSR_FILTER, MOAT_LOCK_VM, moat_vm_set_msr_filter },
	{ KVM_SET_NR_MMU_PAGES, MOAT_LOCK_VM, vm_set_nr_mmu_pages },
	{ KVM_GET_NR_MMU_PAGES, MOAT_LOCK_VM, vm_get_nr_mmu_pages },
	{ KVM_GET_STATS_FD, MOAT_LOCK_NONE, moat_vm_get_stats_fd },
	{ MOAT_CREATE_WINDOW, MOAT_LOCK_NONE, moat_vm_create_window },
	{ }
};

static long vm_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct moat_vm *vm = file->private_data;

	/* Slots are addresses in the owner's memory: nobody else can mean anything by them. */
	if (vm->mm != current->mm)
		return -EIO;
	return moat_ioctl(moat_vm_ioctls, vm, &vm->lock, cmd, uarg);
}

static int vm_release(struct inode *inode, struct file *file)
{
	moat_vm_put(file->private_data);
	return 0;
}

static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = vm_release,
	.llseek = noop_llseek,
};
