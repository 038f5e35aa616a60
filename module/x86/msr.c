// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model-specific registers: one table of all that there are.
 *
 * A row is one register or a run of them. Most are a value in the vCPU, perhaps with a check of
 * what is written; those that only exist so that a guest's kernel does not stumble read as 0 and
 * forget what is written. What is in no row is the vendor's, whose hardware holds it, or is not
 * there: the guest gets #GP, and nobody's log hears of it. What no row can tell is told by four
 * functions that go by the index.
 *
 * Registers that the hardware or the host depends on are checked bit for bit, for the host's
 * writes too.
 */
#include <asm/cpufeature.h>
#include <asm/kvm_para.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/mtrr.h>

#include "../hw.h"
#include "../irq/irq.h"
#include "x86.h"

#define X2APIC_MSRS_MASK (~0xffu)

#define MSRS_MAX	255		/* in one ioctl, as KVM */

/* Write-combining, fixed ranges. */
#define MTRR_CAP	(BIT(10) | BIT(8) | MOAT_NR_MTRR_RANGES)
#define MTRR_DEF_BITS	0xcffULL
#define MTRR_MASK_VALID	BIT_ULL(11)

#define MC_LAST		(MSR_IA32_MC0_CTL + 4 * MOAT_MAX_MCE_BANKS - 1)
#define MCG_STATUS_BITS	(MCG_STATUS_RIPV | MCG_STATUS_EIPV | MCG_STATUS_MCIP)

#define HWCR_TSC_FREQ_SEL	BIT_ULL(24)
#define HWCR_BITS	(HWCR_TSC_FREQ_SEL | HWCR_MCSTATUS_WRITE)
/* Without effect here: TLBCACHEDIS, FFDIS, IGNNE_EM, MONMWAITUSEREN. */
#define HWCR_IGNORED	(BIT_ULL(6) | BIT_ULL(8) | BIT_ULL(3) | BIT_ULL(10))

#define OSVW_LENGTH	4
/* Errata 400 and 415 are no guest's business. */
#define OSVW_HOST_ONLY	(BIT_ULL(1) | BIT_ULL(2))

#define UCODE_AMD	0x01000065ULL
#define UCODE_INTEL	0x100000000ULL

#define ARCH_CAPABILITIES (ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SSB_NO |		\
			   ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO |	\
			   ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO |	\
			   ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA | ARCH_CAP_PBRSB_NO)

#define ANY	(~0ULL)

/* Flags of a row. */
enum {
	LISTED = 0x01,		/* in KVM_GET_MSR_INDEX_LIST: what is read can be written */
	READ_ONLY = 0x02,
	WRITE_ONLY = 0x04,
	HOST_WRITES = 0x08,	/* the guest may not */
	CHECKED = 0x10,		/* value_is_legal() is to be asked too */
};

/**
 * struct msr_row - a run of registers
 * @first: the first index.
 * @last: the last; 0 for a single register.
 * @flags: LISTED and so on.
 * @field: where in struct moat_vcpu its value is, an array for a run; 0 where it reads as 0, or as
 *	special_read() says.
 * @bits: what may be set in a value that is written; what there is no @field for is forgotten.
 * @pv: features of KVM_CPUID_FEATURES without which the guest does not have it, where userspace
 *	wants that enforced; 0 for none.
 * @feature: what all vCPUs may have of it at most, and begin with; NULL where it is no feature.
 *
 * What is special of a register is in msr_is_there(), value_is_legal(), special_read() and
 * special_write().
 */
struct msr_row {
	u32 first;
	u32 last;
	u8 flags;
	u32 field;
	u64 bits;
	u32 pv;
	u64 (*feature)(void);
};

/* What all vCPUs may have */

static u64 arch_capabilities_feature(void)
{
	u64 host = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrl_safe(MSR_IA32_ARCH_CAPABILITIES, &host);
	return host & ARCH_CAPABILITIES;
}

/* AMD: LFENCE serialises on this host, or not; the guest cannot change it. */
static u64 de_cfg_feature(void)
{
	return boot_cpu_has(X86_FEATURE_LFENCE_RDTSC) ? BIT_ULL(1) : 0;
}

/* No performance counters, so none that can do more. Userspace asks before it looks for them. */
static u64 perf_capabilities_feature(void)
{
	return 0;
}

static u64 ucode_feature(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL ? UCODE_INTEL : UCODE_AMD;
}

#define FIELD(name)	.field = offsetof(struct moat_vcpu, msrs.name)
#define PV(name)	.pv = BIT(KVM_FEATURE_##name), .flags = LISTED

static const struct msr_row msrs[] = {
	{ MSR_IA32_TSC_DEADLINE, .bits = ANY, .flags = LISTED },
	{ MSR_IA32_SPEC_CTRL, FIELD(spec_ctrl), .bits = ANY, .flags = LISTED | CHECKED },
	{ MSR_IA32_PRED_CMD, .bits = PRED_CMD_IBPB, .flags = WRITE_ONLY },
	{ MSR_IA32_TSC, .bits = ANY, .flags = LISTED },
	{ MSR_IA32_TSC_ADJUST, FIELD(tsc_adjust), .bits = ANY, .flags = LISTED },
	{ MSR_TSC_AUX, FIELD(tsc_aux), .bits = U32_MAX, .flags = LISTED },
	{ MSR_EFER, .bits = ANY },
	{ MSR_KVM_SYSTEM_TIME, FIELD(pv_system_time), .bits = ANY, PV(CLOCKSOURCE) },
	{ MSR_KVM_SYSTEM_TIME_NEW, FIELD(pv_system_time), .bits = ANY, PV(CLOCKSOURCE2) },
	{ MSR_KVM_WALL_CLOCK, .bits = ANY, PV(CLOCKSOURCE) },
	{ MSR_KVM_WALL_CLOCK_NEW, .bits = ANY, PV(CLOCKSOURCE2) },
	{ MSR_KVM_STEAL_TIME, FIELD(steal_time), .bits = ANY, PV(STEAL_TIME) },
	{ MSR_KVM_PV_EOI_EN, FIELD(pv_eoi), .bits = ANY, .pv = BIT(KVM_FEATURE_PV_EOI),
	  .flags = LISTED | CHECKED },
	{ MSR_KVM_POLL_CONTROL, FIELD(poll_control), .bits = KVM_MSR_ENABLED, PV(POLL_CONTROL) },
	{ MSR_MTRRcap, .flags = READ_ONLY },
	{ MSR_MTRRdefType, FIELD(mtrr_def_type), .bits = MTRR_DEF_BITS, .flags = LISTED | CHECKED },
	{ MSR_MTRRfix64K_00000, FIELD(mtrr_fixed[0]), .bits = ANY, .flags = LISTED | CHECKED },
	{ MSR_MTRRfix16K_80000, MSR_MTRRfix16K_A0000, FIELD(mtrr_fixed[1]), .bits = ANY,
	  .flags = LISTED | CHECKED },
	{ MSR_MTRRfix4K_C0000, MSR_MTRRfix4K_F8000, FIELD(mtrr_fixed[3]), .bits = ANY,
	  .flags = LISTED | CHECKED },
	{ MTRRphysBase_MSR(0), MTRRphysMask_MSR(MOAT_NR_MTRR_RANGES - 1), FIELD(mtrr_var[0]),
	  .bits = ANY, .flags = LISTED | CHECKED },
	{ MSR_IA32_MISC_ENABLE, FIELD(misc_enable), .bits = ANY, .flags = LISTED },
	{ MSR_IA32_MCG_CAP, FIELD(mcg_cap), .bits = ANY, .flags = HOST_WRITES | CHECKED },
	{ MSR_IA32_MCG_STATUS, FIELD(mcg_status), .bits = MCG_STATUS_BITS, .flags = LISTED },
	{ MSR_IA32_MCG_CTL, FIELD(mcg_ctl), .bits = ANY, .flags = LISTED | CHECKED },
	{ MSR_IA32_MC0_CTL, MC_LAST, .bits = ANY },
	{ MSR_IA32_ARCH_CAPABILITIES, FIELD(arch_capabilities), .bits = ANY,
	  .flags = LISTED | HOST_WRITES, .feature = arch_capabilities_feature },
	{ MSR_IA32_PERF_CAPABILITIES, .feature = perf_capabilities_feature },
	{ MSR_IA32_UCODE_REV, FIELD(ucode_rev), .bits = ANY, .flags = LISTED,
	  .feature = ucode_feature },
	{ MSR_IA32_UCODE_WRITE, .bits = ANY, .flags = WRITE_ONLY },
	{ MSR_IA32_PLATFORM_ID, .flags = READ_ONLY },
	{ MSR_IA32_EBL_CR_POWERON },
	{ MSR_IA32_POWER_CTL, FIELD(power_ctl), .bits = ANY, .flags = LISTED },
	/* CPUID faulting is not there. */
	{ MSR_PLATFORM_INFO, FIELD(platform_info), .bits = ~MSR_PLATFORM_INFO_CPUID_FAULT,
	  .flags = LISTED | HOST_WRITES },
	{ MSR_IA32_DEBUGCTLMSR },
	{ MSR_IA32_LASTBRANCHFROMIP, MSR_IA32_LASTINTTOIP },
	{ MSR_K7_EVNTSEL0, MSR_K7_PERFCTR3 },
	{ MSR_K7_HWCR, FIELD(hwcr), .bits = HWCR_BITS | HWCR_IGNORED, .flags = LISTED },
	{ MSR_AMD64_SYSCFG, .bits = ANY },
	{ MSR_AMD64_NB_CFG, .bits = ANY },
	{ MSR_AMD64_PATCH_LOADER, .bits = ANY, .flags = WRITE_ONLY },
	{ MSR_K8_INT_PENDING_MSG },
	{ MSR_FAM10H_MMIO_CONF_BASE },
	{ MSR_K8_TSEG_ADDR, MSR_K8_TSEG_MASK },
	{ MSR_AMD64_OSVW_ID_LENGTH, MSR_AMD64_OSVW_STATUS, .flags = READ_ONLY },
	{ MSR_AMD64_DC_CFG, .bits = ANY },
	{ MSR_AMD64_TW_CFG, .bits = ANY },
	{ MSR_AMD64_DE_CFG, .bits = ANY, .flags = CHECKED, .feature = de_cfg_feature },
	{ MSR_AMD64_BU_CFG2, .bits = ANY },
	{ MSR_F15H_EX_CFG, .bits = ANY },
};

static u32 msr_last(const struct msr_row *msr)
{
	return msr->last ?: msr->first;
}

static const struct msr_row *msr_find(u32 index)
{
	const struct msr_row *msr;

	for (msr = msrs; msr < msrs + ARRAY_SIZE(msrs); msr++)
		if (index >= msr->first && index <= msr_last(msr))
			return msr;
	return NULL;
}

/* Whether the guest has it. The host has all. */
static bool msr_is_there(struct moat_vcpu *vcpu, const struct msr_row *msr)
{
	switch (msr->first) {
	case MSR_IA32_TSC_DEADLINE:
		return moat_cpuid_told(vcpu, 1, CPUID_ECX) & F(TSC_DEADLINE_TIMER);
	case MSR_IA32_SPEC_CTRL:
		return vcpu->spec_ctrl_allowed;
	case MSR_IA32_PRED_CMD:
		return vcpu->has_ibpb;
	case MSR_IA32_TSC_ADJUST:
		return moat_cpuid_bits(vcpu, 7, CPUID_EBX) & F(TSC_ADJUST);
	case MSR_TSC_AUX:
		return vcpu->has_rdtscp;
	case MSR_IA32_MCG_CTL:
		return vcpu->msrs.mcg_cap & MCG_CTL_P;
	case MSR_IA32_ARCH_CAPABILITIES:
		return moat_cpuid_bits(vcpu, 7, CPUID_EDX) & F(ARCH_CAPABILITIES);
	case MSR_IA32_PERF_CAPABILITIES:
		return false;
	case MSR_PLATFORM_INFO:
		return READ_ONCE(vcpu->vm->platform_info_shown);
	case MSR_AMD64_OSVW_ID_LENGTH:
		return moat_cpuid_bits(vcpu, LEAF_EXTENDED + 1, CPUID_ECX) & F(OSVW);
	}
	return moat_pv_allows(vcpu, msr->pv);
}

static u64 *msr_field(struct moat_vcpu *vcpu, const struct msr_row *msr, u32 index)
{
	u32 count = msr_last(msr) - msr->first + 1;

	return (u64 *)((void *)vcpu + msr->field) + array_index_nospec(index - msr->first, count);
}

static bool is_canonical(u64 address)
{
	return __is_canonical_address(address, cpu_feature_enabled(X86_FEATURE_LA57) ? 57 : 48);
}

/* Each byte is uncacheable, write-combining, -through, -protected or -back; in PAT also "UC-". */
static bool memory_types_legal(u64 value, bool pat)
{
	const u8 types = BIT(0) | BIT(1) | BIT(4) | BIT(5) | BIT(6);
	const u8 allowed = pat ? types | BIT(7) : types;
	int shift;

	for (shift = 0; shift < 64; shift += 8) {
		u8 type = value >> shift;

		if (type > 7 || !(allowed & BIT(type)))
			return false;
	}
	return true;
}

/* Bases are even, masks odd. */
static bool mtrr_var_legal(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	u64 address = vcpu->gpa_mask & PAGE_MASK;

	if (index & 1)
		return !(value & ~(address | MTRR_MASK_VALID));
	return !(value & ~(address | 0xff)) && memory_types_legal(value & 0xff, false);
}

/* A flag, and the address of memory that the guest can write. */
static bool pv_eoi_legal(struct moat_vcpu *vcpu, u64 value)
{
	u64 gpa = value & ~(u64)KVM_MSR_ENABLED;

	return IS_ALIGNED(gpa, 4) && (gpa == value || moat_guest_has(vcpu->vm, gpa, true));
}

/* Whether a value may be written that has no other bits than the row allows. */
static bool value_is_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	switch (index) {
	case MSR_IA32_SPEC_CTRL:
		return !(value & ~(host ? moat_spec_ctrl_supported() : vcpu->spec_ctrl_allowed));
	case MSR_KVM_PV_EOI_EN:
		return pv_eoi_legal(vcpu, value);
	case MSR_MTRRdefType:
		return memory_types_legal(value & 0xff, false);
	case MSR_MTRRfix64K_00000:
	case MSR_MTRRfix16K_80000 ... MSR_MTRRfix16K_A0000:
	case MSR_MTRRfix4K_C0000 ... MSR_MTRRfix4K_F8000:
		return memory_types_legal(value, false);
	case MTRRphysBase_MSR(0) ... MTRRphysMask_MSR(MOAT_NR_MTRR_RANGES - 1):
		return mtrr_var_legal(vcpu, index, value);
	case MSR_IA32_MCG_CAP:		/* KVM_X86_SETUP_MCE says it once. */
		return value == vcpu->msrs.mcg_cap;
	case MSR_IA32_MCG_CTL:
		return !value || value == U64_MAX;
	case MSR_AMD64_DE_CFG:
		return value == de_cfg_feature();
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_IA32_SYSENTER_ESP:
	case MSR_IA32_SYSENTER_EIP:
		return is_canonical(value);
	case MSR_IA32_CR_PAT:
		return memory_types_legal(value, true);
	}
	return true;
}

static u64 osvw_status(void)
{
	u64 host = 0;

	if (boot_cpu_has(X86_FEATURE_OSVW))
		rdmsrl_safe(MSR_AMD64_OSVW_STATUS, &host);
	return host & GENMASK_ULL(OSVW_LENGTH - 1, 0) & ~OSVW_HOST_ONLY;
}

/* Of what is in no field. */
static u64 special_read(struct moat_vcpu *vcpu, u32 index)
{
	switch (index) {
	case MSR_IA32_MC0_CTL ... MC_LAST:
		return *moat_mce_find(vcpu, index);
	case MSR_IA32_TSC_DEADLINE:
		return moat_lapic_get_deadline(vcpu);
	case MSR_IA32_TSC:
		return moat_guest_tsc(vcpu);
	case MSR_EFER:
		return moat_sregs(vcpu)->efer;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		return READ_ONCE(vcpu->vm->wall_clock_msr);
	case MSR_MTRRcap:
		return MTRR_CAP;
	case MSR_AMD64_DE_CFG:
		return de_cfg_feature();
	case MSR_AMD64_OSVW_ID_LENGTH:
		return OSVW_LENGTH;
	case MSR_AMD64_OSVW_STATUS:
		return osvw_status();
	}
	return 0;
}

/* Not inlined: what comes before it in moat_msr_read() needs no frame then. */
static noinline int table_read(struct moat_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	const struct msr_row *msr = msr_find(index);

	if (!msr)
		return moat_hw->msr_read(vcpu, index, value);
	if (msr->flags & WRITE_ONLY || !(host || msr_is_there(vcpu, msr)))
		return -EINVAL;
	if (msr->first == MSR_IA32_MC0_CTL && !moat_mce_find(vcpu, index))
		return -EINVAL;
	*value = msr->field ? *msr_field(vcpu, msr, index) : special_read(vcpu, index);
	return 0;
}

/* A write that does more than to change a field, or something else. */
static int special_write(struct moat_vcpu *vcpu, const struct msr_row *msr, u32 index, u64 value,
			 bool host)
{
	switch (msr->first) {
	case MSR_IA32_TSC_DEADLINE:
		moat_lapic_set_deadline(vcpu, value);
		return 0;
	case MSR_IA32_TSC:
		moat_tsc_write(vcpu, value, host);
		return 0;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		moat_clock_set_system_time(vcpu, value);
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		moat_clock_set_wall_clock(vcpu, value);
		return 0;
	case MSR_EFER:
		return moat_efer_write(vcpu, value, host);
	case MSR_KVM_STEAL_TIME:
		return moat_steal_time_write(vcpu, value);
	case MSR_IA32_MC0_CTL:
		return moat_mce_write(vcpu, index, value, host);
	case MSR_IA32_PRED_CMD:
		if (value && boot_cpu_has(X86_FEATURE_IBPB))
			native_wrmsrl(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
		return 0;
	case MSR_IA32_UCODE_REV:	/* the guest's writes load no microcode */
		value = host ? value : vcpu->msrs.ucode_rev;
		break;
	case MSR_K7_HWCR:
		value &= ~HWCR_IGNORED;
		break;
	case MSR_TSC_AUX:	/* loaded for a whole run of the guest: this one ends */
		moat_request(vcpu, MOAT_REQ_KICK);
		break;
	case MSR_IA32_TSC_ADJUST:	/* the host restores the TSC itself as well */
		if (!host)
			moat_tsc_offset_set(vcpu, vcpu->msrs.tsc_offset + value -
						  vcpu->msrs.tsc_adjust);
		break;
	}
	if (msr->field)
		*msr_field(vcpu, msr, index) = value;
	return 0;
}

static noinline int table_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	const struct msr_row *msr = msr_find(index);

	if (msr && ((value & ~msr->bits) || msr->flags & READ_ONLY ||
		    !(host || (!(msr->flags & HOST_WRITES) && msr_is_there(vcpu, msr)))))
		return -EINVAL;
	if ((!msr || msr->flags & CHECKED) && !value_is_legal(vcpu, index, value, host))
		return -EINVAL;
	return msr ? special_write(vcpu, msr, index, value, host) :
		     moat_hw->msr_write(vcpu, index, value);
}

static bool msr_is_filtered(struct moat_vcpu *vcpu, u32 index, bool host, u32 access)
{
	return !host && unlikely(rcu_access_pointer(vcpu->vm->msr_filter)) &&
	       !moat_msr_filter_allows(vcpu->vm, index, access);
}

/* The local APIC first: it is what guests use all the time. No filter touches its registers. */

int moat_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	if ((index & X2APIC_MSRS_MASK) == APIC_BASE_MSR)
		return moat_lapic_msr_read(vcpu, index, value);
	if (msr_is_filtered(vcpu, index, host, KVM_MSR_FILTER_READ))
		return -EPERM;
	if (index == MSR_IA32_APICBASE) {
		*value = vcpu->msrs.apic_base;
		return 0;
	}
	return table_read(vcpu, index, value, host);
}

int moat_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if ((index & X2APIC_MSRS_MASK) == APIC_BASE_MSR)
		return moat_lapic_msr_write(vcpu, index, value);
	if (msr_is_filtered(vcpu, index, host, KVM_MSR_FILTER_WRITE))
		return -EPERM;
	if (index == MSR_IA32_APICBASE)
		return moat_lapic_set_base(vcpu, value, host);
	return table_write(vcpu, index, value, host);
}

/* INIT leaves all but the paravirtual pages as it was. */
void moat_msr_reset(struct moat_vcpu *vcpu, bool init)
{
	vcpu->pv_time_on = false;
	vcpu->pv_wall_clock_due = false;
	vcpu->msrs.pv_system_time = 0;
	vcpu->msrs.steal_time = 0;
	vcpu->msrs.pv_eoi = 0;
	if (init)
		return;
	vcpu->msrs = (struct moat_msrs) {
		.apic_base = APIC_DEFAULT_PHYS_BASE | MSR_IA32_APICBASE_ENABLE |
			     (vcpu->id == vcpu->vm->bsp_id ? MSR_IA32_APICBASE_BSP : 0),
		.misc_enable = MSR_IA32_MISC_ENABLE_FAST_STRING,
		.hwcr = HWCR_TSC_FREQ_SEL,
		.arch_capabilities = arch_capabilities_feature(),
		.ucode_rev = ucode_feature(),
		.poll_control = KVM_MSR_ENABLED,
	};
	moat_tsc_reset(vcpu);
}

/* Ioctls */

/* Copies index to userspace's list where there is room, counts it anyway. */
static int list_put(u32 __user *list, u32 room, u32 *count, u32 index)
{
	u32 n = (*count)++;

	return n < room && put_user(index, list + n) ? -EFAULT : 0;
}

static bool msr_is_listed(const struct msr_row *msr)
{
	if (msr->first == MSR_IA32_SPEC_CTRL)
		return moat_spec_ctrl_supported();
	if (msr->first == MSR_TSC_AUX)
		return (moat_cpuid_supported(LEAF_EXTENDED + 1, CPUID_EDX) & F(RDTSCP)) ||
		       (moat_cpuid_supported(7, CPUID_ECX) & F(RDPID));
	return msr->flags & LISTED;
}

/* What guests may have; or what of it is a feature. */
static int list_put_all(u32 __user *list, u32 room, u32 *count, bool features)
{
	int r = features ? 0 : list_put(list, room, count, MSR_IA32_APICBASE);
	const struct msr_row *msr;
	const u32 *vendor;
	u32 index;

	for (msr = msrs; msr < msrs + ARRAY_SIZE(msrs); msr++)
		for (index = msr->first; index <= msr_last(msr) && !r; index++)
			if (features ? msr->feature != NULL : msr_is_listed(msr))
				r = list_put(list, room, count, index);
	for (vendor = moat_hw->msr_list; *vendor && !features && !r; vendor++)
		r = list_put(list, room, count, *vendor);
	return r;
}

static long list_get(struct kvm_msr_list *head, unsigned long uarg, bool features)
{
	u32 room = head->nmsrs, count = 0;
	int r = list_put_all((u32 __user *)(uarg + sizeof(*head)), room, &count, features);

	if (r)
		return r;
	head->nmsrs = count;
	return room < count ? -E2BIG : 0;
}

long moat_system_get_msr_index_list(void *object, void *arg, unsigned long uarg)
{
	return list_get(arg, uarg, false);
}

long moat_system_get_msr_feature_list(void *object, void *arg, unsigned long uarg)
{
	return list_get(arg, uarg, true);
}

typedef int entry_fn(struct moat_vcpu *vcpu, struct kvm_msr_entry *entry);

static int entry_get(struct moat_vcpu *vcpu, struct kvm_msr_entry *entry)
{
	u64 value;
	int r = moat_msr_read(vcpu, entry->index, &value, true);

	if (!r)
		entry->data = value;
	return r;
}

static int entry_set(struct moat_vcpu *vcpu, struct kvm_msr_entry *entry)
{
	return moat_msr_write(vcpu, entry->index, entry->data, true);
}

static int entry_get_feature(struct moat_vcpu *none, struct kvm_msr_entry *entry)
{
	const struct msr_row *msr = msr_find(entry->index);

	if (!msr || !msr->feature)
		return -ENOENT;
	entry->data = msr->feature();
	return 0;
}

/* One after the other, up to the first that fails. How many were done. */
static long entries_do(struct moat_vcpu *vcpu, const struct kvm_msrs *head, unsigned long uarg,
		       entry_fn *fn, bool back)
{
	struct kvm_msr_entry *entries;
	long n, r;

	if (!head->nmsrs)
		return 0;
	if (head->nmsrs > MSRS_MAX)
		return -E2BIG;
	entries = memdup_user((void __user *)(uarg + sizeof(*head)),
			      head->nmsrs * sizeof(*entries));
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (n = 0; n < head->nmsrs; n++)
		if (fn(vcpu, &entries[n]))
			break;
	r = back && copy_to_user((void __user *)(uarg + sizeof(*head)), entries,
				 n * sizeof(*entries)) ? -EFAULT : n;
	kfree(entries);
	return r;
}

long moat_vcpu_get_msrs(void *object, void *arg, unsigned long uarg)
{
	return entries_do(object, arg, uarg, entry_get, true);
}

long moat_vcpu_set_msrs(void *object, void *arg, unsigned long uarg)
{
	return entries_do(object, arg, uarg, entry_set, false);
}

long moat_system_get_msrs(void *object, void *arg, unsigned long uarg)
{
	return entries_do(NULL, arg, uarg, entry_get_feature, true);
}
