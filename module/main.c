// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module, its node, and what the system descriptor answers.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>

#include "hw.h"
#include "ioctl.h"
#include "irq/irq.h"
#include "x86/x86.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

struct moat_cap {
	u32 cap;
	u32 value;
};

/* What is there without further ado. What depends on the machine is in moat_capability(). */
static const struct moat_cap moat_caps[] = {
	{ KVM_CAP_HLT, 1 },
	{ KVM_CAP_USER_MEMORY, 1 },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1 },
	{ KVM_CAP_MULTI_ADDRESS_SPACE, 1 },
	{ KVM_CAP_SYNC_MMU, 1 },
	{ KVM_CAP_READONLY_MEM, 1 },
	{ KVM_CAP_EXT_CPUID, 1 },
	{ KVM_CAP_MP_STATE, 1 },
	{ KVM_CAP_USER_NMI, 1 },
	{ KVM_CAP_DEBUGREGS, 1 },
	{ KVM_CAP_VCPU_EVENTS, 1 },
	{ KVM_CAP_IMMEDIATE_EXIT, 1 },
	{ KVM_CAP_INTERNAL_ERROR_DATA, 1 },
	{ KVM_CAP_SET_TSS_ADDR, 1 },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, 1 },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_GET_TSC_KHZ, 1 },
	{ KVM_CAP_TSC_DEADLINE_TIMER, 1 },
	{ KVM_CAP_IRQCHIP, 1 },
	{ KVM_CAP_IOEVENTFD, 1 },
	{ KVM_CAP_IOEVENTFD_ANY_LENGTH, 1 },
	{ KVM_CAP_IOEVENTFD_NO_LENGTH, 1 },
	{ KVM_CAP_COALESCED_MMIO, KVM_COALESCED_MMIO_PAGE_OFFSET },
	{ KVM_CAP_COALESCED_PIO, 1 },
	{ KVM_CAP_IRQFD, 1 },
	{ KVM_CAP_IRQFD_RESAMPLE, 1 },
	{ KVM_CAP_PIT2, 1 },
	{ KVM_CAP_PIT_STATE2, 1 },
	{ KVM_CAP_REINJECT_CONTROL, 1 },
	{ KVM_CAP_SPLIT_IRQCHIP, 1 },
	{ KVM_CAP_X2APIC_API, MOAT_X2APIC_API },
	{ KVM_CAP_IRQ_INJECT_STATUS, 1 },
	{ KVM_CAP_IOAPIC_POLARITY_IGNORED, 1 },
	{ KVM_CAP_SIGNAL_MSI, 1 },
	{ KVM_CAP_SET_BOOT_CPU_ID, 1 },
	{ KVM_CAP_IRQ_ROUTING, MOAT_NR_GSIS },
	{ KVM_CAP_ENABLE_CAP_VM, 1 },
	{ KVM_CAP_CHECK_EXTENSION_VM, 1 },
	{ KVM_CAP_NR_MEMSLOTS, MOAT_MAX_SLOTS },
	{ KVM_CAP_MAX_VCPUS, MOAT_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, MOAT_MAX_VCPUS },
};

long moat_capability(struct moat_vm *vm, unsigned long cap)
{
	unsigned int i;

	if (cap == KVM_CAP_NR_VCPUS)
		return min_t(unsigned int, num_online_cpus(), MOAT_MAX_VCPUS);
	if (cap == KVM_CAP_XSAVE || cap == KVM_CAP_XCRS)
		return boot_cpu_has(X86_FEATURE_XSAVE);
	for (i = 0; i < ARRAY_SIZE(moat_caps); i++)
		if (moat_caps[i].cap == cap)
			return moat_caps[i].value;
	return 0;
}

static long system_get_api_version(void *object, void *arg, unsigned long uarg)
{
	return uarg ? -EINVAL : KVM_API_VERSION;
}

static long system_check_extension(void *object, void *arg, unsigned long uarg)
{
	return moat_capability(NULL, uarg);
}

static long system_get_vcpu_mmap_size(void *object, void *arg, unsigned long uarg)
{
	/* struct kvm_run, the data of port I/O, the ring of coalesced writes */
	return uarg ? -EINVAL : 3 * PAGE_SIZE;
}

static long system_create_vm(void *object, void *arg, unsigned long uarg)
{
	return moat_vm_create(uarg);
}

const struct moat_ioctl moat_system_ioctls[] = {
	{ KVM_GET_API_VERSION, MOAT_LOCK_NONE, system_get_api_version },
	{ KVM_CHECK_EXTENSION, MOAT_LOCK_NONE, system_check_extension },
	{ KVM_GET_VCPU_MMAP_SIZE, MOAT_LOCK_NONE, system_get_vcpu_mmap_size },
	{ KVM_CREATE_VM, MOAT_LOCK_NONE, system_create_vm },
	{ KVM_GET_SUPPORTED_CPUID, MOAT_LOCK_NONE, moat_system_get_supported_cpuid },
	{ KVM_GET_MSR_INDEX_LIST, MOAT_LOCK_NONE, moat_system_get_msr_index_list },
	{ }
};

static long moat_node_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	return moat_ioctl(moat_system_ioctls, NULL, NULL, cmd, uarg);
}

static const struct file_operations moat_node_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = moat_node_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice moat_node = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "moat",
	.fops = &moat_node_fops,
	.mode = 0660,
};

static int __init moat_init(void)
{
	int r;

	r = moat_fpu_init();
	if (r)
		return r;
	moat_cpuid_init();
	r = moat_host_init();
	if (r)
		goto exit_fpu;
	moat_debug_init();
	r = misc_register(&moat_node);
	if (r) {
		pr_err("cannot register /dev/moat: error %d\n", r);
		goto exit_debug;
	}
	return 0;

exit_debug:
	moat_debug_exit();
	moat_host_exit();
exit_fpu:
	moat_fpu_exit();
	return r;
}

static void __exit moat_exit(void)
{
	misc_deregister(&moat_node);
	moat_debug_exit();
	moat_host_exit();
	moat_fpu_exit();
	rcu_barrier();	/* tables of the last VM may still wait to be freed by our function */
}

module_init(moat_init);
module_exit(moat_exit);

MODULE_DESCRIPTION("Moat, a hardware-assisted hypervisor");
MODULE_AUTHOR("The Moat authors");
MODULE_LICENSE("GPL v2");
MODULE_VERSION(MOAT_VERSION);
