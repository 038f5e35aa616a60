// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * All of KVM's ioctls for x86, and arguments for them.
 *
 * A row says on which descriptors a command is sensible, what its argument's fields mean, what
 * array follows, and which command reads what it writes. Most arguments are made by the meaning of
 * their fields, or by changing a little in what was read; some are noise. Then the argument's
 * place may be bad: at the end of memory, where nothing may be read or written, in the kernel's
 * half.
 *
 * Commands that the module does not know cost a system call and answer ENOTTY.
 */
#include <signal.h>

#include "fuzz.h"

/* What a field means. */
enum kind {
	K_ZERO,		/* mostly */
	K_ONE,		/* mostly */
	K_NOISE,
	K_NUMBER,	/* any, mostly one at a border */
	K_SMALL,
	K_ARG,		/* small, or a power of two */
	K_FLAGS,	/* a low bit or two */
	K_BIT,		/* one of all */
	K_GPA,
	K_SIZE,
	K_HVA,
	K_SLOT,
	K_GSI,
	K_FD,
	K_MSR,
	K_LEAF,
	K_VECTOR,
	K_CAP,
	K_VCPU_ID,
	K_SEGMENT,
	K_COUNT,	/* of the array that follows */
	K_ROUTE,	/* a whole struct kvm_irq_routing_entry */
	K_FIXED,	/* the row's number */
};

struct field {
	uint16_t offset;
	uint16_t size;
	uint8_t kind;
};

/* Descriptors. */
#define NODE	1
#define VM	2
#define VCPU	4
#define OTHER	8	/* devices */

enum result { NUMBER, FD_VM, FD_VCPU, FD_OTHER, FD_DEVICE };

struct call {
	const char *name;
	unsigned long cmd;
	unsigned long get;		/* reads what this one writes */
	const struct field *fields;	/* of the argument; or, of a plain number, the first kind */
	const struct field *items;	/* of an element of the array behind it */
	uint16_t field_count;
	uint16_t item_count;
	uint16_t item_size;
	uint16_t size;			/* of an argument whose size the number does not have */
	uint8_t where;
	uint8_t weight;
	uint8_t number;			/* kind of an argument that is a plain number */
	uint8_t result;
};

#define F(type, member, kind) \
	{ offsetof(struct type, member), sizeof(((struct type *)0)->member), kind }
#define FIELDS(name, ...) static const struct field name[] = { __VA_ARGS__ }

FIELDS(cpuid2, F(kvm_cpuid2, nent, K_COUNT));
FIELDS(cpuid2_item, F(kvm_cpuid_entry2, function, K_LEAF), F(kvm_cpuid_entry2, index, K_SMALL),
       F(kvm_cpuid_entry2, flags, K_FLAGS), F(kvm_cpuid_entry2, eax, K_NUMBER),
       F(kvm_cpuid_entry2, ebx, K_NUMBER), F(kvm_cpuid_entry2, ecx, K_NUMBER),
       F(kvm_cpuid_entry2, edx, K_NUMBER));
FIELDS(cpuid_item, F(kvm_cpuid_entry, function, K_LEAF), F(kvm_cpuid_entry, eax, K_NUMBER),
       F(kvm_cpuid_entry, edx, K_NUMBER));
FIELDS(msr_list, F(kvm_msr_list, nmsrs, K_COUNT));
FIELDS(msrs, F(kvm_msrs, nmsrs, K_COUNT));
FIELDS(msrs_item, F(kvm_msr_entry, index, K_MSR), F(kvm_msr_entry, data, K_NUMBER));
FIELDS(memory_region, F(kvm_memory_region, slot, K_SLOT), F(kvm_memory_region, flags, K_FLAGS),
       F(kvm_memory_region, guest_phys_addr, K_GPA), F(kvm_memory_region, memory_size, K_SIZE));
FIELDS(user_region, F(kvm_userspace_memory_region, slot, K_SLOT),
       F(kvm_userspace_memory_region, flags, K_FLAGS),
       F(kvm_userspace_memory_region, guest_phys_addr, K_GPA),
       F(kvm_userspace_memory_region, memory_size, K_SIZE),
       F(kvm_userspace_memory_region, userspace_addr, K_HVA));
FIELDS(user_region2, F(kvm_userspace_memory_region2, slot, K_SLOT),
       F(kvm_userspace_memory_region2, flags, K_FLAGS),
       F(kvm_userspace_memory_region2, guest_phys_addr, K_GPA),
       F(kvm_userspace_memory_region2, memory_size, K_SIZE),
       F(kvm_userspace_memory_region2, userspace_addr, K_HVA),
       F(kvm_userspace_memory_region2, guest_memfd_offset, K_SIZE),
       F(kvm_userspace_memory_region2, guest_memfd, K_FD));
FIELDS(dirty_log, F(kvm_dirty_log, slot, K_SLOT), F(kvm_dirty_log, dirty_bitmap, K_HVA));
FIELDS(clear_dirty_log, F(kvm_clear_dirty_log, slot, K_SLOT),
       F(kvm_clear_dirty_log, num_pages, K_SIZE), F(kvm_clear_dirty_log, first_page, K_SIZE),
       F(kvm_clear_dirty_log, dirty_bitmap, K_HVA));
FIELDS(address, { 0, 8, K_GPA });
FIELDS(number64, { 0, 8, K_NUMBER });
FIELDS(irq_level, F(kvm_irq_level, irq, K_GSI), F(kvm_irq_level, level, K_FLAGS));
FIELDS(irqchip, F(kvm_irqchip, chip_id, K_SMALL), F(kvm_irqchip, chip, K_NOISE));
FIELDS(zone, F(kvm_coalesced_mmio_zone, addr, K_GPA), F(kvm_coalesced_mmio_zone, size, K_SIZE),
       F(kvm_coalesced_mmio_zone, pio, K_FLAGS));
FIELDS(routing, F(kvm_irq_routing, nr, K_COUNT), F(kvm_irq_routing, flags, K_ZERO));
FIELDS(routing_item, { 0, sizeof(struct kvm_irq_routing_entry), K_ROUTE });
FIELDS(reinject, F(kvm_reinject_control, pit_reinject, K_FLAGS));
FIELDS(irqfd, F(kvm_irqfd, fd, K_FD), F(kvm_irqfd, gsi, K_GSI), F(kvm_irqfd, flags, K_FLAGS),
       F(kvm_irqfd, resamplefd, K_FD));
FIELDS(pit_config, F(kvm_pit_config, flags, K_FLAGS));
FIELDS(ioeventfd, F(kvm_ioeventfd, datamatch, K_SMALL), F(kvm_ioeventfd, addr, K_GPA),
       F(kvm_ioeventfd, len, K_BIT), F(kvm_ioeventfd, fd, K_FD), F(kvm_ioeventfd, flags, K_FLAGS));
FIELDS(xen_config, F(kvm_xen_hvm_config, flags, K_BIT), F(kvm_xen_hvm_config, msr, K_MSR),
       F(kvm_xen_hvm_config, blob_addr_64, K_HVA));
FIELDS(clock, F(kvm_clock_data, clock, K_NUMBER), F(kvm_clock_data, flags, K_FLAGS),
       F(kvm_clock_data, realtime, K_NUMBER));
FIELDS(enable_cap, F(kvm_enable_cap, cap, K_CAP), F(kvm_enable_cap, args[0], K_ARG),
       F(kvm_enable_cap, args[1], K_FLAGS));
FIELDS(msi, F(kvm_msi, address_lo, K_GPA), F(kvm_msi, data, K_NUMBER));
FIELDS(create_device, F(kvm_create_device, type, K_SMALL), F(kvm_create_device, flags, K_FLAGS));
FIELDS(device_attr, F(kvm_device_attr, group, K_SMALL), F(kvm_device_attr, attr, K_SMALL),
       F(kvm_device_attr, addr, K_HVA));
FIELDS(enc_region, F(kvm_enc_region, addr, K_HVA), F(kvm_enc_region, size, K_SIZE));
FIELDS(hv_eventfd, F(kvm_hyperv_eventfd, conn_id, K_SMALL), F(kvm_hyperv_eventfd, fd, K_FD),
       F(kvm_hyperv_eventfd, flags, K_FLAGS));
FIELDS(pmu_filter, F(kvm_pmu_event_filter, action, K_FLAGS),
       F(kvm_pmu_event_filter, nevents, K_COUNT));
FIELDS(item64, { 0, 8, K_NUMBER });
FIELDS(item32, { 0, 4, K_NUMBER });
FIELDS(msr_filter, F(kvm_msr_filter, flags, K_FLAGS), F(kvm_msr_filter, ranges[0].flags, K_FLAGS),
       F(kvm_msr_filter, ranges[0].nmsrs, K_SIZE), F(kvm_msr_filter, ranges[0].base, K_MSR),
       F(kvm_msr_filter, ranges[0].bitmap, K_HVA), F(kvm_msr_filter, ranges[1].flags, K_FLAGS),
       F(kvm_msr_filter, ranges[1].nmsrs, K_SMALL), F(kvm_msr_filter, ranges[1].base, K_MSR),
       F(kvm_msr_filter, ranges[1].bitmap, K_HVA), F(kvm_msr_filter, ranges[15].flags, K_FLAGS),
       F(kvm_msr_filter, ranges[15].nmsrs, K_SMALL), F(kvm_msr_filter, ranges[15].base, K_MSR),
       F(kvm_msr_filter, ranges[15].bitmap, K_HVA));
FIELDS(attributes, F(kvm_memory_attributes, address, K_GPA),
       F(kvm_memory_attributes, size, K_SIZE), F(kvm_memory_attributes, attributes, K_BIT));
FIELDS(guest_memfd, F(kvm_create_guest_memfd, size, K_SIZE));
FIELDS(prefault, F(kvm_pre_fault_memory, gpa, K_GPA), F(kvm_pre_fault_memory, size, K_SIZE));
FIELDS(regs, F(kvm_regs, rip, K_GPA), F(kvm_regs, rflags, K_NUMBER), F(kvm_regs, rsp, K_GPA));
FIELDS(sregs, F(kvm_sregs, cs, K_SEGMENT), F(kvm_sregs, ss, K_SEGMENT), F(kvm_sregs, tr, K_SEGMENT),
       F(kvm_sregs, cr0, K_NUMBER), F(kvm_sregs, cr3, K_GPA), F(kvm_sregs, efer, K_BIT),
       F(kvm_sregs, apic_base, K_GPA));
FIELDS(translation, F(kvm_translation, linear_address, K_GPA));
FIELDS(interrupt, F(kvm_interrupt, irq, K_VECTOR));
FIELDS(signal_mask, F(kvm_signal_mask, len, K_FIXED));
FIELDS(signal_item, { 0, 1, K_NUMBER });
FIELDS(fpu, F(kvm_fpu, fpr, K_NOISE), F(kvm_fpu, fcw, K_NUMBER), F(kvm_fpu, mxcsr, K_SMALL),
       F(kvm_fpu, xmm, K_NOISE));
FIELDS(tpr_access, F(kvm_tpr_access_ctl, enabled, K_FLAGS));
FIELDS(mp_state, F(kvm_mp_state, mp_state, K_SMALL));
FIELDS(guest_debug, F(kvm_guest_debug, control, K_BIT), F(kvm_guest_debug, arch, K_GPA));
FIELDS(mce, F(kvm_x86_mce, status, K_NUMBER), F(kvm_x86_mce, addr, K_GPA),
       F(kvm_x86_mce, bank, K_SMALL), F(kvm_x86_mce, mcg_status, K_FLAGS));
FIELDS(events, F(kvm_vcpu_events, exception.injected, K_FLAGS),
       F(kvm_vcpu_events, exception.nr, K_VECTOR),
       F(kvm_vcpu_events, exception.has_error_code, K_FLAGS),
       F(kvm_vcpu_events, exception.pending, K_FLAGS),
       F(kvm_vcpu_events, interrupt, K_FLAGS), F(kvm_vcpu_events, nmi, K_FLAGS),
       F(kvm_vcpu_events, sipi_vector, K_VECTOR), F(kvm_vcpu_events, flags, K_BIT));
FIELDS(debugregs, F(kvm_debugregs, db[0], K_GPA), F(kvm_debugregs, db[1], K_GPA),
       F(kvm_debugregs, dr7, K_NUMBER));
FIELDS(xcrs, F(kvm_xcrs, nr_xcrs, K_ONE), F(kvm_xcrs, xcrs[0].value, K_SMALL));
FIELDS(one_reg, F(kvm_one_reg, id, K_NUMBER), F(kvm_one_reg, addr, K_HVA));
FIELDS(reg_list, F(kvm_reg_list, n, K_COUNT));
FIELDS(nested, F(kvm_nested_state, flags, K_FLAGS), F(kvm_nested_state, format, K_FLAGS),
       F(kvm_nested_state, size, K_FIXED));
FIELDS(xen_attr, F(kvm_xen_hvm_attr, type, K_SMALL), F(kvm_xen_hvm_attr, u, K_GPA));

#define A(list)		.fields = (list), .field_count = ARRAY_SIZE(list)
#define ITEMS(list, size_) \
	.items = (list), .item_count = ARRAY_SIZE(list), .item_size = (size_)
#define C(cmd_, where_, weight_) \
	.name = #cmd_ + 4, .cmd = cmd_, .where = where_, .weight = weight_
#define CPUIDS	A(cpuid2), ITEMS(cpuid2_item, sizeof(struct kvm_cpuid_entry2))
#define MSRS	A(msrs), ITEMS(msrs_item, sizeof(struct kvm_msr_entry))
#define N(kind)	.number = kind

static const struct call calls[] = {
	{ C(KVM_GET_API_VERSION, NODE, 1), N(K_ZERO) },
	{ C(KVM_CREATE_VM, NODE, 4), N(K_ZERO), .result = FD_VM },
	{ C(KVM_GET_MSR_INDEX_LIST, NODE, 1), A(msr_list), ITEMS(item32, 4) },
	{ C(KVM_GET_MSR_FEATURE_INDEX_LIST, NODE, 1), A(msr_list), ITEMS(item32, 4) },
	{ C(KVM_CHECK_EXTENSION, NODE | VM, 2), N(K_CAP) },
	{ C(KVM_GET_VCPU_MMAP_SIZE, NODE, 1), N(K_ZERO) },
	{ C(KVM_GET_SUPPORTED_CPUID, NODE, 2), CPUIDS },
	{ C(KVM_GET_EMULATED_CPUID, NODE, 1), CPUIDS },
	{ C(KVM_GET_SUPPORTED_HV_CPUID, NODE | VCPU, 1), CPUIDS },
	{ C(KVM_X86_GET_MCE_CAP_SUPPORTED, NODE, 1), A(number64) },
	{ C(KVM_CREATE_VCPU, VM, 8), N(K_VCPU_ID), .result = FD_VCPU },
	{ C(KVM_SET_MEMORY_REGION, VM, 1), A(memory_region) },
	{ C(KVM_SET_USER_MEMORY_REGION, VM, 20), A(user_region) },
	{ C(KVM_SET_USER_MEMORY_REGION2, VM, 4), A(user_region2) },
	{ C(KVM_GET_DIRTY_LOG, VM, 6), A(dirty_log) },
	{ C(KVM_CLEAR_DIRTY_LOG, VM, 6), A(clear_dirty_log) },
	{ C(KVM_RESET_DIRTY_RINGS, VM, 4), N(K_ZERO) },
	{ C(KVM_SET_NR_MMU_PAGES, VM, 2), N(K_NUMBER) },
	{ C(KVM_GET_NR_MMU_PAGES, VM, 1), N(K_ZERO) },
	{ C(KVM_SET_TSS_ADDR, VM, 2), N(K_GPA) },
	{ C(KVM_SET_IDENTITY_MAP_ADDR, VM, 2), A(address) },
	{ C(KVM_SET_MEMORY_ATTRIBUTES, VM, 2), A(attributes) },
	{ C(KVM_CREATE_GUEST_MEMFD, VM, 1), A(guest_memfd), .result = FD_OTHER },
	{ C(KVM_CREATE_IRQCHIP, VM, 2), N(K_ZERO) },
	{ C(KVM_IRQ_LINE, VM, 10), A(irq_level) },
	{ C(KVM_IRQ_LINE_STATUS, VM, 10), A(irq_level) },
	{ C(KVM_GET_IRQCHIP, VM, 4), A(irqchip) },
	{ C(KVM_SET_IRQCHIP, VM, 8), A(irqchip), .get = KVM_GET_IRQCHIP },
	{ C(KVM_CREATE_PIT, VM, 2), N(K_ZERO) },
	{ C(KVM_CREATE_PIT2, VM, 2), A(pit_config) },
	{ C(KVM_GET_PIT, VM, 2) },
	{ C(KVM_SET_PIT, VM, 4), .get = KVM_GET_PIT },
	{ C(KVM_GET_PIT2, VM, 2) },
	{ C(KVM_SET_PIT2, VM, 6), .get = KVM_GET_PIT2 },
	{ C(KVM_REINJECT_CONTROL, VM, 2), A(reinject),
	  .size = sizeof(struct kvm_reinject_control) },
	{ C(KVM_REGISTER_COALESCED_MMIO, VM, 6), A(zone) },
	{ C(KVM_UNREGISTER_COALESCED_MMIO, VM, 4), A(zone) },
	{ C(KVM_SET_GSI_ROUTING, VM, 10), A(routing),
	  ITEMS(routing_item, sizeof(struct kvm_irq_routing_entry)) },
	{ C(KVM_IRQFD, VM, 12), A(irqfd) },
	{ C(KVM_IOEVENTFD, VM, 10), A(ioeventfd) },
	{ C(KVM_SIGNAL_MSI, VM, 8), A(msi) },
	{ C(KVM_SET_BOOT_CPU_ID, VM, 2), N(K_VCPU_ID) },
	{ C(KVM_SET_CLOCK, VM, 4), A(clock), .get = KVM_GET_CLOCK },
	{ C(KVM_GET_CLOCK, VM, 2) },
	{ C(KVM_ENABLE_CAP, VM | VCPU, 10), A(enable_cap) },
	{ C(KVM_CREATE_DEVICE, VM, 2), A(create_device), .result = FD_DEVICE },
	{ C(KVM_SET_DEVICE_ATTR, NODE | VM | VCPU | OTHER, 3), A(device_attr) },
	{ C(KVM_GET_DEVICE_ATTR, NODE | VM | VCPU | OTHER, 3), A(device_attr) },
	{ C(KVM_HAS_DEVICE_ATTR, NODE | VM | VCPU | OTHER, 3), A(device_attr) },
	{ C(KVM_SET_TSC_KHZ, VM | VCPU, 4), N(K_NUMBER) },
	{ C(KVM_GET_TSC_KHZ, VM | VCPU, 1), N(K_ZERO) },
	{ C(KVM_X86_SET_MSR_FILTER, VM, 6), A(msr_filter) },
	{ C(KVM_SET_PMU_EVENT_FILTER, VM, 2), A(pmu_filter), ITEMS(item64, 8) },
	{ C(KVM_GET_STATS_FD, VM | VCPU, 3), N(K_ZERO), .result = FD_OTHER },
	{ C(KVM_MEMORY_ENCRYPT_OP, VM, 1), A(number64) },
	{ C(KVM_MEMORY_ENCRYPT_REG_REGION, VM, 1), A(enc_region) },
	{ C(KVM_MEMORY_ENCRYPT_UNREG_REGION, VM, 1), A(enc_region) },
	{ C(KVM_HYPERV_EVENTFD, VM, 1), A(hv_eventfd) },
	{ C(KVM_XEN_HVM_CONFIG, VM, 1), A(xen_config) },
	{ C(KVM_XEN_HVM_GET_ATTR, VM, 1), A(xen_attr) },
	{ C(KVM_XEN_HVM_SET_ATTR, VM, 1), A(xen_attr) },
	{ C(KVM_XEN_HVM_EVTCHN_SEND, VM, 1), A(number64) },
	{ C(KVM_XEN_VCPU_GET_ATTR, VCPU, 1), A(xen_attr) },
	{ C(KVM_XEN_VCPU_SET_ATTR, VCPU, 1), A(xen_attr) },
	{ C(KVM_RUN, VCPU, 2), N(K_ZERO) },
	{ C(KVM_GET_REGS, VCPU, 2) },
	{ C(KVM_SET_REGS, VCPU, 8), A(regs), .get = KVM_GET_REGS },
	{ C(KVM_GET_SREGS, VCPU, 2) },
	{ C(KVM_SET_SREGS, VCPU, 14), A(sregs), .get = KVM_GET_SREGS },
	{ C(KVM_GET_SREGS2, VCPU, 2) },
	{ C(KVM_SET_SREGS2, VCPU, 8), A(sregs), .get = KVM_GET_SREGS2 },
	{ C(KVM_TRANSLATE, VCPU, 3), A(translation) },
	{ C(KVM_INTERRUPT, VCPU, 6), A(interrupt) },
	{ C(KVM_NMI, VCPU, 3), N(K_ZERO) },
	{ C(KVM_SMI, VCPU, 2), N(K_ZERO) },
	{ C(KVM_GET_MSRS, NODE | VCPU, 6), MSRS },
	{ C(KVM_SET_MSRS, VCPU, 14), MSRS, .get = KVM_GET_MSRS },
	{ C(KVM_SET_CPUID, VCPU, 2), A(cpuid2), ITEMS(cpuid_item, sizeof(struct kvm_cpuid_entry)) },
	{ C(KVM_SET_CPUID2, VCPU, 6), CPUIDS, .get = KVM_GET_CPUID2 },
	{ C(KVM_GET_CPUID2, VCPU, 2), CPUIDS },
	{ C(KVM_SET_SIGNAL_MASK, VCPU, 4), A(signal_mask), ITEMS(signal_item, 1), N(8) },
	{ C(KVM_GET_FPU, VCPU, 2) },
	{ C(KVM_SET_FPU, VCPU, 4), A(fpu), .get = KVM_GET_FPU },
	{ C(KVM_GET_XSAVE, VCPU, 2) },
	{ C(KVM_SET_XSAVE, VCPU, 6), .get = KVM_GET_XSAVE },
	{ C(KVM_GET_XSAVE2, VCPU, 2) },
	{ C(KVM_GET_XCRS, VCPU, 1) },
	{ C(KVM_SET_XCRS, VCPU, 4), A(xcrs), .get = KVM_GET_XCRS },
	{ C(KVM_GET_LAPIC, VCPU, 3) },
	{ C(KVM_SET_LAPIC, VCPU, 8), .get = KVM_GET_LAPIC },
	{ C(KVM_TPR_ACCESS_REPORTING, VCPU, 3), A(tpr_access) },
	{ C(KVM_SET_VAPIC_ADDR, VCPU, 3), A(address) },
	{ C(KVM_GET_MP_STATE, VCPU, 2) },
	{ C(KVM_SET_MP_STATE, VCPU, 5), A(mp_state) },
	{ C(KVM_SET_GUEST_DEBUG, VCPU, 5), A(guest_debug) },
	{ C(KVM_X86_SETUP_MCE, VCPU, 2), A(number64) },
	{ C(KVM_X86_SET_MCE, VCPU, 3), A(mce) },
	{ C(KVM_GET_VCPU_EVENTS, VCPU, 2) },
	{ C(KVM_SET_VCPU_EVENTS, VCPU, 10), A(events), .get = KVM_GET_VCPU_EVENTS },
	{ C(KVM_GET_DEBUGREGS, VCPU, 1) },
	{ C(KVM_SET_DEBUGREGS, VCPU, 5), A(debugregs), .get = KVM_GET_DEBUGREGS },
	{ C(KVM_GET_ONE_REG, VCPU, 1), A(one_reg) },
	{ C(KVM_SET_ONE_REG, VCPU, 1), A(one_reg) },
	{ C(KVM_GET_REG_LIST, VCPU, 1), A(reg_list), ITEMS(item64, 8) },
	{ C(KVM_KVMCLOCK_CTRL, VCPU, 3), N(K_ZERO) },
	{ C(KVM_GET_NESTED_STATE, VCPU, 2), A(nested), N(200) },
	{ C(KVM_SET_NESTED_STATE, VCPU, 3), A(nested), N(200), .get = KVM_GET_NESTED_STATE },
	{ C(KVM_PRE_FAULT_MEMORY, VCPU, 2), A(prefault) },
};

static_assert(ARRAY_SIZE(calls) <= MAX_CALLS, "more calls than counters");

unsigned int calls_count(void)
{
	return ARRAY_SIZE(calls);
}

const char *call_name(unsigned int number)
{
	return calls[number].name;
}

/* ---- Counting ---- */

static enum outcome outcome_of(long r)
{
	if (r >= 0)
		return DID_OK;
	switch (errno) {
	case EINVAL:
		return DID_EINVAL;
	case EFAULT:
		return DID_EFAULT;
	case ENOTTY:
		return DID_ENOTTY;
	case EEXIST:
	case ENOENT:
	case ENXIO:
		return DID_EXIST;
	case E2BIG:
		return DID_2BIG;
	case EBADF:
		return DID_EBADF;
	case EIO:
		return DID_EIO;
	case EINTR:
	case EAGAIN:
		return DID_EINTR;
	default:
		return DID_OTHER;
	}
}

static long call_count(unsigned long cmd, long r)
{
	int error = errno;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].cmd == cmd) {
			count(&shared->outcomes[i][outcome_of(r)]);
			break;
		}
	errno = error;
	return r;
}

int call_number(int fd, unsigned long cmd, unsigned long arg)
{
	return call_count(cmd, ioctl(fd, cmd, arg));
}

int call_ioctl(int fd, unsigned long cmd, void *arg)
{
	return call_number(fd, cmd, (unsigned long)arg);
}

/* ---- KVM_RUN ---- */

/* Threads of this process that run a vCPU or look at what came of it, and how many ever did. */
static unsigned int runners, runs;

bool run_begin(unsigned int *ret_run)
{
	bool alone = __atomic_add_fetch(&runners, 1, __ATOMIC_SEQ_CST) == 1;

	*ret_run = __atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST);
	return alone;
}

bool run_was_last(unsigned int run)
{
	return run == __atomic_load_n(&runs, __ATOMIC_SEQ_CST);
}

void run_end(void)
{
	__atomic_sub_fetch(&runners, 1, __ATOMIC_SEQ_CST);
}

/* ---- Values ---- */

/* Capabilities with something behind them that ENABLE_CAP switches on. */
static const uint16_t enable_caps[] = {
	KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_CAP_DISABLE_QUIRKS,
	KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_EXCEPTION_PAYLOAD,
	KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_CAP_DIRTY_LOG_RING, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
	KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_MAX_VCPU_ID, KVM_CAP_X86_DISABLE_EXITS,
	KVM_CAP_HALT_POLL, KVM_CAP_MSR_PLATFORM_INFO, KVM_CAP_EXIT_HYPERCALL,
	KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_X86_BUS_LOCK_EXIT, KVM_CAP_X86_NOTIFY_VMEXIT,
	KVM_CAP_HYPERV_SYNIC, KVM_CAP_PMU_CAPABILITY, KVM_CAP_VM_DISABLE_NX_HUGE_PAGES,
};

static uint64_t value_gpa(struct rng *rng)
{
	static const uint64_t bases[] = {
		0, AT_CODE, AT_TABLES, AT_DATA, CHAOS_GPA, ROM_GPA, MMIO_GPA, APIC_GPA,
		0xfec00000, 0xffff0000, 0x100000000, 1ull << 47, 1ull << 48, 1ull << 52, -4096ull,
	};
	uint64_t gpa = RNG_PICK(rng, bases) + rng_below(rng, 64) * PAGE;

	if (rng_one_in(rng, 4))
		gpa += rng_number(rng);
	return rng_one_in(rng, 2) ? gpa & ~(PAGE - 1) : gpa;
}

static uint64_t value_size(struct rng *rng)
{
	switch (rng_below(rng, 8)) {
	case 0:
		return 0;
	case 1:
		return rng_number(rng);
	case 2:
		return rng_number(rng) & ~(PAGE - 1);
	case 3:
		return rng_below(rng, 64);
	default:
		return PAGE << rng_below(rng, 11);
	}
}

static uint64_t value_leaf(struct rng *rng)
{
	static const uint32_t bases[] = { 0, 0, 0x40000000, 0x80000000, 0x80000000 };

	return rng_one_in(rng, 8) ? rng_number(rng) : RNG_PICK(rng, bases) + rng_below(rng, 0x24);
}

/* Flags, capabilities, slots: mostly a few that there are. */
static uint64_t value_few(struct rng *rng, unsigned int few)
{
	return rng_one_in(rng, 12) ? rng_number(rng) : rng_below(rng, few);
}

static uint64_t value_cap(struct rng *rng)
{
	return rng_one_in(rng, 2) ? RNG_PICK(rng, enable_caps) : value_few(rng, 250);
}

static uint64_t value_of(struct actor *a, enum kind kind, const struct call *call)
{
	struct rng *rng = &a->rng;

	switch (kind) {
	case K_ZERO:
		return rng_one_in(rng, 12) ? rng_number(rng) : 0;
	case K_ONE:
		return rng_one_in(rng, 8) ? rng_number(rng) : 1;
	case K_SMALL:
		return value_few(rng, 9);
	case K_ARG:
		return rng_one_in(rng, 2) ? value_few(rng, 32) : 1ull << rng_below(rng, 20);
	case K_FLAGS:
		return value_few(rng, 4);
	case K_BIT:
		return rng_one_in(rng, 8) ? rng_number(rng) : 1ull << rng_below(rng, 24);
	case K_GPA:
		return value_gpa(rng);
	case K_SIZE:
		return value_size(rng);
	case K_HVA:
		return world_address(a);
	case K_SLOT:
		return value_few(rng, 6);
	case K_GSI:
		return value_few(rng, 30);
	case K_FD:
		return world_fd(a);
	case K_MSR:
		return msr_number(a);
	case K_LEAF:
		return value_leaf(rng);
	case K_VECTOR:
		return value_few(rng, 256);
	case K_CAP:
		return value_cap(rng);
	case K_VCPU_ID:
		return value_few(rng, 6);
	case K_COUNT:
		return rng_one_in(rng, 12) ? rng_number(rng) : rng_below(rng, 12);
	case K_FIXED:
		return rng_one_in(rng, 8) ? rng_number(rng) : call->number;
	default:
		return rng_number(rng);
	}
}

static void segment_fill(struct rng *rng, struct kvm_segment *s)
{
	*s = (struct kvm_segment){
		.base = rng_one_in(rng, 2) ? 0 : guest_number(rng),
		.limit = rng_one_in(rng, 2) ? 0xffffffff : rng_number(rng),
		.selector = rng_below(rng, 9) * 8 + value_few(rng, 4),
		.type = rng_below(rng, 16), .present = !rng_one_in(rng, 4),
		.dpl = value_few(rng, 4), .db = rng_below(rng, 2), .s = rng_below(rng, 2),
		.l = rng_below(rng, 2), .g = rng_below(rng, 2), .unusable = rng_one_in(rng, 8),
	};
}

static void route_fill(struct rng *rng, struct kvm_irq_routing_entry *route)
{
	memset(route, 0, sizeof(*route));
	route->gsi = value_few(rng, 40);
	route->type = rng_one_in(rng, 8) ? rng_number(rng) : 1 + rng_below(rng, 2);
	route->flags = value_few(rng, 2) & value_few(rng, 2);
	if (route->type == KVM_IRQ_ROUTING_IRQCHIP) {
		route->u.irqchip.irqchip = value_few(rng, 3);
		route->u.irqchip.pin = value_few(rng, 24);
		return;
	}
	route->u.msi.address_lo = 0xfee00000 | value_few(rng, 6) << 12 | value_few(rng, 16);
	route->u.msi.address_hi = rng_one_in(rng, 8) ? rng_number(rng) : 0;
	route->u.msi.data = value_few(rng, 256) | rng_below(rng, 8) << 8 | value_few(rng, 4) << 14;
}

/* A field longer than a number is an array of numbers. */
static void field_fill(struct actor *a, const struct call *call, const struct field *field,
		       uint8_t *data)
{
	unsigned int done, n;
	uint64_t value;

	if (field->kind == K_SEGMENT) {
		segment_fill(&a->rng, (struct kvm_segment *)data);
	} else if (field->kind == K_ROUTE) {
		route_fill(&a->rng, (struct kvm_irq_routing_entry *)data);
	} else if (field->kind == K_NOISE) {
		rng_fill(&a->rng, data, field->size);
	} else {
		for (done = 0; done < field->size; done += n) {
			n = field->size - done < 8 ? field->size - done : 8;
			value = value_of(a, field->kind, call);
			memcpy(data + done, &value, n);
		}
	}
}

/* ---- Arguments ---- */

static size_t arg_size(const struct call *call)
{
	return call->size ? call->size : _IOC_SIZE(call->cmd);
}

/* What the array's count says, as far as there is room for it. */
static size_t item_count(const struct call *call, const uint8_t *arg, size_t size)
{
	size_t room = (BUFFER_SIZE - size) / call->item_size;
	uint32_t n = 0;

	memcpy(&n, arg + call->fields[0].offset, sizeof(n));
	return n < room ? n : room;
}

static void items_fill(struct actor *a, const struct call *call, uint8_t *items, size_t n)
{
	size_t i;
	unsigned int k;

	memset(items, 0, n * call->item_size);
	for (i = 0; i < n && i < 64; i++, items += call->item_size)
		for (k = 0; k < call->item_count; k++)
			field_fill(a, call, &call->items[k], items + call->items[k].offset);
}

static void arg_by_meaning(struct actor *a, const struct call *call, uint8_t *arg, size_t size)
{
	unsigned int i;

	memset(arg, 0, size);
	for (i = 0; i < call->field_count; i++)
		field_fill(a, call, &call->fields[i], arg + call->fields[i].offset);
	if (call->items)
		items_fill(a, call, arg + size, item_count(call, arg, size));
	if (rng_one_in(&a->rng, 10))
		rng_mutate(&a->rng, arg, size);
}

/* Changed a little: that of the object itself, or, of CPUID, all that is supported. */
static bool arg_by_reading(struct actor *a, const struct call *call, int fd, uint8_t *arg,
			   size_t size)
{
	size_t items = 0, n;

	arg_by_meaning(a, call, arg, size);
	if (call->cmd == KVM_SET_CPUID2 && rng_one_in(&a->rng, 2)) {
		n = sizeof(*a->world->cpuid) +
		    a->world->cpuid->nent * sizeof(a->world->cpuid->entries[0]);
		memcpy(arg, a->world->cpuid, n);
	} else if (call_ioctl(fd, call->get, arg) < 0) {
		return false;
	}
	if (call->items)
		items = item_count(call, arg, size) * call->item_size;
	if (items && !rng_one_in(&a->rng, 3))
		rng_mutate(&a->rng, arg + size, items);
	else if (!rng_one_in(&a->rng, 4))
		rng_mutate(&a->rng, arg, size);
	return true;
}

static void arg_make(struct actor *a, const struct call *call, int fd, uint8_t *arg)
{
	size_t size = arg_size(call);
	uint64_t how = rng_below(&a->rng, 20);

	if (call->get && how < 12 && arg_by_reading(a, call, fd, arg, size))
		return;
	if (how == 19)
		rng_fill(&a->rng, arg, size + rng_below(&a->rng, 256));
	else
		arg_by_meaning(a, call, arg, size);
}

/*
 * Where the argument is: mostly where it was made. Else at the end of memory, whole or cut off; or
 * at an address that is nobody's, read-only, or not to be touched at all.
 */
static void *arg_place(struct actor *a, const struct call *call)
{
	size_t size = arg_size(call), cut = rng_below(&a->rng, size + 8) + 1;
	uint8_t *end = a->buffer + BUFFER_SIZE;

	switch (rng_below(&a->rng, 24)) {
	case 0:
		return memmove(end - size, a->buffer, size);
	case 1:
		return memmove(end - cut, a->buffer, cut);
	case 2:
		return (void *)world_address(a);
	case 3:
		return (void *)rng_number(&a->rng);
	default:
		return a->buffer;
	}
}

/* ---- One call ---- */

static int call_object(struct actor *a, const struct call *call)
{
	unsigned int where;

	if (rng_one_in(&a->rng, 40))
		return world_fd(a);
	do {
		where = 1u << rng_below(&a->rng, 4);
	} while (!(where & call->where));
	switch (where) {
	case NODE:
		return a->world->node;
	case VM:
		return world_vm(a);
	case VCPU:
		return a->world->vcpu[world_vcpu(a)];
	default:
		return world_fd(a);
	}
}

static const struct call *call_pick(struct rng *rng)
{
	static unsigned int total;
	unsigned int i, sum = 0, n;

	if (!total) {
		for (i = 0; i < ARRAY_SIZE(calls); i++)
			sum += calls[i].weight;
		total = sum;
	}
	n = rng_below(rng, total);
	for (i = 0; n >= calls[i].weight; i++)
		n -= calls[i].weight;
	return &calls[i];
}

static void result_adopt(struct actor *a, const struct call *call, int r, const void *arg)
{
	if (call->result == FD_VM)
		world_adopt_vm(a, r);
	else if (call->result == FD_VCPU)
		world_adopt_vcpu(a, r);
	else if (call->result == FD_OTHER)
		world_adopt_other(a, r);
	else if (call->result == FD_DEVICE && arg == a->buffer)
		world_adopt_other(a, ((const struct kvm_create_device *)arg)->fd);
}

/* A mask that lets the signal through that ends a run: nothing else but SIGKILL would. */
static void signal_mask_tame(uint8_t *arg)
{
	unsigned int bit = SIGRTMIN + 1 - 1;

	arg[sizeof(struct kvm_signal_mask) + bit / 8] &= ~(1u << bit % 8);
}

static void msrs_tame(struct kvm_msrs *msrs)
{
	size_t i, n = (BUFFER_SIZE - sizeof(*msrs)) / sizeof(msrs->entries[0]);

	for (i = 0; i < n && i < msrs->nmsrs; i++)
		if (msrs->entries[i].index == MSR_EFER)
			msrs->entries[i].data = efer_tame(msrs->entries[i].data);
}

/* What would end the worker, or the emulator, rather than tell anything of the node. */
static void arg_tame(const struct call *call, uint8_t *arg)
{
	switch (call->cmd) {
	case KVM_SET_SIGNAL_MASK:
		signal_mask_tame(arg);
		break;
	case KVM_SET_MSRS:
		msrs_tame((struct kvm_msrs *)arg);
		break;
	case KVM_SET_DEBUGREGS:
		dr7_tame(&((struct kvm_debugregs *)arg)->dr7);
		break;
	case KVM_SET_GUEST_DEBUG:
		dr7_tame(&((struct kvm_guest_debug *)arg)->arch.debugreg[7]);
		break;
	case KVM_SET_SREGS:
	case KVM_SET_SREGS2:
		sregs_tame((struct kvm_sregs *)arg);
		break;
	}
}

void call_random(struct actor *a)
{
	const struct call *call = call_pick(&a->rng);
	int fd = call_object(a, call), r;
	unsigned long arg;
	unsigned int run;

	a->world->progress->doing[a->number] = call->name;
	if (arg_size(call)) {
		arg_make(a, call, fd, a->buffer);
		arg_tame(call, a->buffer);
		arg = (unsigned long)arg_place(a, call);
	} else {
		arg = value_of(a, call->number, call);
	}
	if (call->cmd == KVM_RUN)
		run_begin(&run);
	run_limit_set(NULL, 3000);
	r = call_number(fd, call->cmd, arg);
	run_limit_clear();
	if (call->cmd == KVM_RUN)
		run_end();
	if (r >= 0)
		result_adopt(a, call, r, (void *)arg);
}
