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
#include "irq/irq.h"
#include "moat/version.h"
#include "x86/x86.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/*
 * What is there without further ado: of these there is nothing to say but that. What depends on the
 * machine is in moat_check_extension().
 */
static const u32 moat_caps_plain[] = {
	KVM_CAP_HLT, KVM_CAP_USER_MEMORY, KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
	KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, KVM_CAP_MULTI_ADDRESS_SPACE, KVM_CAP_SYNC_MMU,
	KVM_CAP_READONLY_MEM, KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT,
	KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER, KVM_CAP_MSR_PLATFORM_INFO,
	KVM_CAP_GET_MSR_FEATURES, KVM_CAP_SET_GUEST_DEBUG, KVM_CAP_X86_ROBUST_SINGLESTEP,
	KVM_CAP_SREGS2, KVM_CAP_MMU_SHADOW_CACHE_CONTROL, KVM_CAP_BINARY_STATS_FD,
	KVM_CAP_VCPU_ATTRIBUTES, KVM_CAP_SYS_ATTRIBUTES, KVM_CAP_EXT_CPUID, KVM_CAP_XSAVE,
	KVM_CAP_XCRS, KVM_CAP_MP_STATE, KVM_CAP_USER_NMI, KVM_CAP_DEBUGREGS, KVM_CAP_VCPU_EVENTS,
	KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_INTERNAL_ERROR_DATA, KVM_CAP_SET_TSS_ADDR,
	KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_CAP_GET_TSC_KHZ, KVM_CAP_TSC_DEADLINE_TIMER,
	KVM_CAP_IRQCHIP, KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_ANY_LENGTH,
	KVM_CAP_IOEVENTFD_NO_LENGTH, KVM_CAP_COALESCED_PIO, KVM_CAP_IRQFD,
	KVM_CAP_IRQFD_RESAMPLE, KVM_CAP_PIT2, KVM_CAP_PIT_STATE2, KVM_CAP_REINJECT_CONTROL,
	KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_IRQ_INJECT_STATUS, KVM_CAP_IOAPIC_POLARITY_IGNORED,
	KVM_CAP_SIGNAL_MSI, KVM_CAP_SET_BOOT_CPU_ID, KVM_CAP_ENABLE_CAP, KVM_CAP_ENABLE_CAP_VM,
	KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_HALT_POLL, KVM_CAP_KVMCLOCK_CTRL,
	KVM_CAP_VAPIC, KVM_CAP_CHECK_EXTENSION_VM,
};

static const struct {
	u32 cap;
	u32 value;
} moat_caps[] = {
	{ KVM_CAP_DISABLE_QUIRKS2, MOAT_QUIRKS },
	{ KVM_CAP_SET_GUEST_DEBUG2, MOAT_GUEST_DEBUG },
	{ KVM_CAP_SYNC_REGS, KVM_SYNC_X86_VALID_FIELDS },
	{ KVM_CAP_XSAVE2, sizeof(struct kvm_xsave) },
	{ KVM_CAP_MCE, MOAT_MAX_MCE_BANKS },
	{ KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, MOAT_DIRTY_MANUAL },
	{ KVM_CAP_DIRTY_LOG_RING, MOAT_DIRTY_RING_BYTES },
	{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, MOAT_DIRTY_RING_BYTES },
	{ KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC },
	{ KVM_CAP_COALESCED_MMIO, KVM_COALESCED_MMIO_PAGE_OFFSET },
	{ KVM_CAP_X2APIC_API, MOAT_X2APIC_API },
	{ KVM_CAP_IRQ_ROUTING, MOAT_NR_GSIS },
	{ KVM_CAP_NR_MEMSLOTS, MOAT_MAX_SLOTS },
	{ KVM_CAP_MAX_VCPUS, MOAT_MAX_VCPUS },
	{ KVM_CAP_MAX_VCPU_ID, MOAT_MAX_VCPUS },
};

long moat_check_extension(void *object, void *arg, unsigned long cap)
{
	unsigned int i;

	if (cap == KVM_CAP_NR_VCPUS)
		return min_t(unsigned int, num_online_cpus(), MOAT_MAX_VCPUS);
	if ((cap == KVM_CAP_XSAVE || cap == KVM_CAP_XSAVE2 || cap == KVM_CAP_XCRS) &&
	    !boot_cpu_has(X86_FEATURE_XSAVE))
		return 0;
	for (i = 0; i < ARRAY_SIZE(moat_caps_plain); i++)
		if (moat_caps_plain[i] == cap)
			return 1;
	for (i = 0; i < ARRAY_SIZE(moat_caps); i++)
		if (moat_caps[i].cap == cap)
			return moat_caps[i].value;
	return 0;
}

static long system_get_version(void *object, void *arg, unsigned long uarg)
{
	return uarg ? -EINVAL : MOAT_VERSION_NOW;
}

static long system_get_api_version(void *object, void *arg, unsigned long uarg)
{
	return uarg ? -EINVAL : KVM_API_VERSION;
}

static long system_get_vcpu_mmap_size(void *object, void *arg, unsigned long uarg)
{
	/* struct kvm_run, the data of port I/O, the ring of coalesced writes */
	return uarg ? -EINVAL : 3 * PAGE_SIZE;
}

/* The one attribute of the system: the XSAVE features that guests may have. */
static long system_has_device_attr(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_device_attr *attr = arg;

	return attr->flags || attr->group || attr->attr != KVM_X86_XCOMP_GUEST_SUPP ? -ENXIO : 0;
}

static long system_get_device_attr(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_device_attr *attr = arg;

	return system_has_device_attr(object, arg, 0) ?:
	       put_user(moat_fpu_features(), (u64 __user *)attr->addr);
}

const struct moat_ioctl moat_system_ioctls[] = {
	{ KVM_GET_API_VERSION, MOAT_LOCK_NONE, system_get_api_version },
	{ MOAT_GET_VERSION, MOAT_LOCK_NONE, system_get_version },
	{ KVM_CHECK_EXTENSION, MOAT_LOCK_NONE, moat_check_extension },
	{ KVM_GET_VCPU_MMAP_SIZE, MOAT_LOCK_NONE, system_get_vcpu_mmap_size },
	{ KVM_CREATE_VM, MOAT_LOCK_NONE, moat_system_create_vm },
	{ KVM_GET_SUPPORTED_CPUID, MOAT_LOCK_NONE, moat_system_get_supported_cpuid },
	{ KVM_GET_MSR_INDEX_LIST, MOAT_LOCK_NONE, moat_system_get_msr_index_list },
	{ KVM_GET_MSR_FEATURE_INDEX_LIST, MOAT_LOCK_NONE, moat_system_get_msr_feature_list },
	{ KVM_GET_MSRS, MOAT_LOCK_NONE, moat_system_get_msrs },
	{ KVM_X86_GET_MCE_CAP_SUPPORTED, MOAT_LOCK_NONE, moat_system_get_mce_cap },
	{ KVM_HAS_DEVICE_ATTR, MOAT_LOCK_NONE, system_has_device_attr },
	{ KVM_GET_DEVICE_ATTR, MOAT_LOCK_NONE, system_get_device_attr },
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

static struct miscdevice nodes[] = {
	{ .minor = MISC_DYNAMIC_MINOR, .name = "moat", .fops = &moat_node_fops, .mode = 0660 },
	/* The same under KVM's own name and number, for software that knows no other. */
	{ .minor = KVM_MINOR, .name = "kvm", .fops = &moat_node_fops, .mode = 0660 },
};

static bool use_kvm_node;
module_param_named(kvm_node, use_kvm_node, bool, 0444);
MODULE_PARM_DESC(kvm_node, "Register /dev/kvm too, as KVM would");

static void nodes_deregister(unsigned int count)
{
	while (count--)
		misc_deregister(&nodes[count]);
}

static int nodes_register(void)
{
	unsigned int i;
	int r;

	for (i = 0; i < 1 + use_kvm_node; i++) {
		r = misc_register(&nodes[i]);
		if (r) {
			pr_err("cannot register /dev/%s: error %d%s\n", nodes[i].name, r,
			       i ? ": unload what holds it, or leave out kvm_node=1" : "");
			nodes_deregister(i);
			return r;
		}
	}
	return 0;
}

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
	moat_stats_init();
	r = nodes_register();
	if (r)
		goto exit_stats;
	return 0;

exit_stats:
	moat_stats_exit();
	moat_host_exit();
exit_fpu:
	moat_fpu_exit();
	return r;
}

static void __exit moat_exit(void)
{
	nodes_deregister(1 + use_kvm_node);
	moat_stats_exit();
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
