// SPDX-License-Identifier: GPL-2.0-only
/*
 * Model-specific registers: one table of all that there are.
 *
 * A row is one register or a run of them. Most are a value in the vCPU, perhaps with a check of
 * what is written; some have functions; those that only exist so that a guest's kernel does not
 * stumble read as 0 and forget what is written. What is in no row is the vendor's, whose
 * hardware holds it, or is not there: the guest gets #GP, and nobody's log hears of it.
 *
 * Registers that the hardware or the host depends on are checked bit for bit, for the host's
 * writes too.
 */
#include <linux/bitops.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/apicdef.h>
#include <asm/cpufeature.h>
#include <asm/kvm_para.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/msr-index.h>
#include <asm/mtrr.h>

#include "../hw.h"
#include "../irq/irq.h"
#include "x86.h"

#define F(name)		BIT(X86_FEATURE_##name & 31)

#define LEAF_EXTENDED	0x80000000

#define X2APIC_MSRS	0x800
#define X2APIC_MSRS_MASK (~0xffu)
#define BASE_RESET	(APIC_DEFAULT_PHYS_BASE | BIT_ULL(11))
#define BASE_BSP	BIT_ULL(8)

#define MSRS_MAX	255		/* in one ioctl, as KVM */

/* Write-combining, fixed ranges. */
#define MTRR_CAP	(BIT(10) | BIT(8) | MOAT_NR_MTRR_RANGES)
#define MTRR_DEF_RESERVED (~0xcffULL)
#define MTRR_MASK_VALID	BIT_ULL(11)

#define HWCR_TSC_FREQ_SEL	BIT_ULL(24)
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

/* What happens to a write where there is neither a value nor a function for it. */
enum { WRITE_REFUSED, WRITE_ZERO, WRITE_IGNORED };

/**
 * struct msr_row - a run of registers
 * @first: the first index.
 * @last: the last; 0 for a single register.
 * @field: where in struct moat_vcpu its value is, an array for a run; 0 for none.
 * @writes: WRITE_*.
 * @has: whether the guest has it; NULL for always. The host has all.
 * @pv: the same by features of KVM_CPUID_FEATURES, where userspace wants that enforced; 0 for none.
 * @legal: whether a value may be written to @field; NULL for any.
 * @read: in place of @field; 0 or -EINVAL.
 * @write: the same.
 * @listed: whether KVM_GET_MSR_INDEX_LIST names it: what is read there can be written there.
 * @feature: what all vCPUs may have of it at most, and begin with; NULL where it is no feature.
 */
struct msr_row {
	u32 first;
	u32 last;
	u32 field;
	u8 writes;
	u32 pv;
	bool (*has)(struct moat_vcpu *vcpu);
	bool (*legal)(struct moat_vcpu *vcpu, u32 index, u64 value, bool host);
	int (*read)(struct moat_vcpu *vcpu, u32 index, u64 *value);
	int (*write)(struct moat_vcpu *vcpu, u32 index, u64 value, bool host);
	bool (*listed)(void);
	u64 (*feature)(void);
};

static bool listed(void)
{
	return true;
}

/* Time */

static bool has_deadline(struct moat_vcpu *vcpu)
{
	const struct kvm_cpuid_entry2 *leaf = moat_cpuid_find(vcpu, 1, 0);

	return leaf && (leaf->ecx & F(TSC_DEADLINE_TIMER));
}

static int deadline_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = moat_lapic_get_deadline(vcpu);
	return 0;
}

static int deadline_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	moat_lapic_set_deadline(vcpu, value);
	return 0;
}

static int tsc_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = moat_guest_tsc(vcpu);
	return 0;
}

static int tsc_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	moat_tsc_write(vcpu, value, host);
	return 0;
}

static bool has_tsc_adjust(struct moat_vcpu *vcpu)
{
	return moat_cpuid_bits(vcpu, 7, CPUID_EBX) & F(TSC_ADJUST);
}

/* The host restores the number alone: it restores the TSC itself as well. */
static int tsc_adjust_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	u64 change = value - vcpu->msrs.tsc_adjust;

	vcpu->msrs.tsc_adjust = value;
	if (!host)
		moat_tsc_offset_set(vcpu, vcpu->msrs.tsc_offset + change);
	return 0;
}

static bool has_tsc_aux(struct moat_vcpu *vcpu)
{
	return vcpu->has_rdtscp;
}

/* The CPU's register is loaded for a whole run of the guest: this one ends. */
static int tsc_aux_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if (value >> 32)
		return -EINVAL;
	vcpu->msrs.tsc_aux = value;
	moat_request(vcpu, MOAT_REQ_KICK);
	return 0;
}

static bool tsc_aux_listed(void)
{
	return (moat_cpuid_supported(LEAF_EXTENDED + 1, CPUID_EDX) & F(RDTSCP)) ||
	       (moat_cpuid_supported(7, CPUID_ECX) & F(RDPID));
}

static int system_time_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	moat_clock_set_system_time(vcpu, value);
	return 0;
}

static int wall_clock_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = READ_ONCE(vcpu->vm->wall_clock_msr);
	return 0;
}

static int wall_clock_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	moat_clock_set_wall_clock(vcpu, value);
	return 0;
}

/* A flag; that of PV EOI comes with the address of memory that the guest can write. */
static bool pv_flag_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	u64 gpa = value & ~(u64)KVM_MSR_ENABLED;

	if (index != MSR_KVM_PV_EOI_EN)
		return !gpa;
	return IS_ALIGNED(gpa, 4) && (gpa == value || moat_guest_has(vcpu->vm, gpa, true));
}

/* Speculation */

static bool has_spec_ctrl(struct moat_vcpu *vcpu)
{
	return vcpu->has_spec_ctrl;
}

static bool spec_ctrl_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return !(value & ~(host ? moat_spec_ctrl_supported() : vcpu->spec_ctrl_allowed));
}

static bool spec_ctrl_listed(void)
{
	return moat_spec_ctrl_supported();
}

static bool has_pred_cmd(struct moat_vcpu *vcpu)
{
	return vcpu->has_ibpb;
}

static int write_only_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	return -EINVAL;
}

static int pred_cmd_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if (value & ~PRED_CMD_IBPB)
		return -EINVAL;
	if (value && boot_cpu_has(X86_FEATURE_IBPB))
		native_wrmsrl(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
	return 0;
}

static bool has_arch_capabilities(struct moat_vcpu *vcpu)
{
	return moat_cpuid_bits(vcpu, 7, CPUID_EDX) & F(ARCH_CAPABILITIES);
}

static u64 arch_capabilities_feature(void)
{
	u64 host = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrl_safe(MSR_IA32_ARCH_CAPABILITIES, &host);
	return host & ARCH_CAPABILITIES;
}

/* For the host to say, what it likes. */
static bool host_only(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return host;
}

/* AMD: LFENCE serialises on this host, or not; the guest cannot change it. */
static u64 de_cfg_feature(void)
{
	return boot_cpu_has(X86_FEATURE_LFENCE_RDTSC) ? BIT_ULL(1) : 0;
}

static int de_cfg_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = de_cfg_feature();
	return 0;
}

static int de_cfg_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return value == de_cfg_feature() ? 0 : -EINVAL;
}

/* No performance counters, so none that can do more. Userspace asks before it looks for them. */
static bool has_perf_capabilities(struct moat_vcpu *vcpu)
{
	return false;
}

static u64 perf_capabilities_feature(void)
{
	return 0;
}

/* Memory types */

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

static bool mtrr_fixed_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return memory_types_legal(value, false);
}

static bool mtrr_def_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return !(value & MTRR_DEF_RESERVED) && memory_types_legal(value & 0xff, false);
}

/* Bases are even, masks odd. */
static bool mtrr_var_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	u64 address = vcpu->gpa_mask & PAGE_MASK;

	if (index & 1)
		return !(value & ~(address | MTRR_MASK_VALID));
	return !(value & ~(address | 0xff)) && memory_types_legal(value & 0xff, false);
}

static int mtrr_cap_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = MTRR_CAP;
	return 0;
}

/* Modes */

static int efer_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	*value = moat_sregs(vcpu)->efer;
	return 0;
}

static int efer_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return moat_efer_write(vcpu, value, host);
}

static int hwcr_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	value &= ~HWCR_IGNORED;
	if (value & ~(HWCR_TSC_FREQ_SEL | HWCR_MCSTATUS_WRITE))
		return -EINVAL;
	vcpu->msrs.hwcr = value;
	return 0;
}

static u64 ucode_feature(void)
{
	return boot_cpu_data.x86_vendor == X86_VENDOR_INTEL ? UCODE_INTEL : UCODE_AMD;
}

/* The guest's writes load no microcode. */
static int ucode_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	if (host)
		vcpu->msrs.ucode_rev = value;
	return 0;
}

static bool has_platform_info(struct moat_vcpu *vcpu)
{
	return !READ_ONCE(vcpu->vm->platform_info_hidden);
}

/* CPUID faulting is not there. */
static bool platform_info_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return host && !(value & MSR_PLATFORM_INFO_CPUID_FAULT);
}

/* Machine checks */

/* KVM_X86_SETUP_MCE says it once. */
static bool mcg_cap_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return host && value == vcpu->msrs.mcg_cap;
}

static bool mcg_status_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return !(value & ~(MCG_STATUS_RIPV | MCG_STATUS_EIPV | MCG_STATUS_MCIP));
}

static bool has_mcg_ctl(struct moat_vcpu *vcpu)
{
	return vcpu->msrs.mcg_cap & MCG_CTL_P;
}

static bool mcg_ctl_legal(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	return !value || value == U64_MAX;
}

static bool has_osvw(struct moat_vcpu *vcpu)
{
	return moat_cpuid_bits(vcpu, LEAF_EXTENDED + 1, CPUID_ECX) & F(OSVW);
}

static int osvw_read(struct moat_vcpu *vcpu, u32 index, u64 *value)
{
	u64 host = 0;

	if (index == MSR_AMD64_OSVW_ID_LENGTH) {
		*value = OSVW_LENGTH;
		return 0;
	}
	if (boot_cpu_has(X86_FEATURE_OSVW))
		rdmsrl_safe(MSR_AMD64_OSVW_STATUS, &host);
	*value = host & GENMASK_ULL(OSVW_LENGTH - 1, 0) & ~OSVW_HOST_ONLY;
	return 0;
}

#define FIELD(name)	.field = offsetof(struct moat_vcpu, msrs.name)
#define PV(name)	BIT(KVM_FEATURE_##name)

static const struct msr_row msrs[] = {
	{ MSR_IA32_TSC_DEADLINE, .has = has_deadline, .read = deadline_read,
	  .write = deadline_write, .listed = listed },
	{ MSR_IA32_SPEC_CTRL, FIELD(spec_ctrl), .has = has_spec_ctrl, .legal = spec_ctrl_legal,
	  .listed = spec_ctrl_listed },
	{ MSR_IA32_PRED_CMD, .has = has_pred_cmd, .read = write_only_read,
	  .write = pred_cmd_write },
	{ MSR_IA32_TSC, .read = tsc_read, .write = tsc_write, .listed = listed },
	{ MSR_IA32_TSC_ADJUST, FIELD(tsc_adjust), .has = has_tsc_adjust, .write = tsc_adjust_write,
	  .listed = listed },
	{ MSR_TSC_AUX, FIELD(tsc_aux), .has = has_tsc_aux, .write = tsc_aux_write,
	  .listed = tsc_aux_listed },
	{ MSR_EFER, .read = efer_read, .write = efer_write },
	{ MSR_KVM_SYSTEM_TIME, FIELD(pv_system_time), .write = system_time_write,
	  .pv = PV(CLOCKSOURCE), .listed = listed },
	{ MSR_KVM_SYSTEM_TIME_NEW, FIELD(pv_system_time), .write = system_time_write,
	  .pv = PV(CLOCKSOURCE2), .listed = listed },
	{ MSR_KVM_WALL_CLOCK, .read = wall_clock_read, .write = wall_clock_write,
	  .pv = PV(CLOCKSOURCE), .listed = listed },
	{ MSR_KVM_WALL_CLOCK_NEW, .read = wall_clock_read, .write = wall_clock_write,
	  .pv = PV(CLOCKSOURCE2), .listed = listed },
	{ MSR_KVM_STEAL_TIME, FIELD(steal_time), .write = moat_steal_time_write,
	  .pv = PV(STEAL_TIME), .listed = listed },
	{ MSR_KVM_PV_EOI_EN, FIELD(pv_eoi), .legal = pv_flag_legal, .pv = PV(PV_EOI),
	  .listed = listed },
	{ MSR_KVM_POLL_CONTROL, FIELD(poll_control), .legal = pv_flag_legal,
	  .pv = PV(POLL_CONTROL), .listed = listed },
	{ MSR_MTRRcap, .read = mtrr_cap_read },
	{ MSR_MTRRdefType, FIELD(mtrr_def_type), .legal = mtrr_def_legal, .listed = listed },
	{ MSR_MTRRfix64K_00000, FIELD(mtrr_fixed[0]), .legal = mtrr_fixed_legal, .listed = listed },
	{ MSR_MTRRfix16K_80000, MSR_MTRRfix16K_A0000, FIELD(mtrr_fixed[1]),
	  .legal = mtrr_fixed_legal, .listed = listed },
	{ MSR_MTRRfix4K_C0000, MSR_MTRRfix4K_F8000, FIELD(mtrr_fixed[3]),
	  .legal = mtrr_fixed_legal, .listed = listed },
	{ MTRRphysBase_MSR(0), MTRRphysMask_MSR(MOAT_NR_MTRR_RANGES - 1), FIELD(mtrr_var[0]),
	  .legal = mtrr_var_legal, .listed = listed },
	{ MSR_IA32_MISC_ENABLE, FIELD(misc_enable), .listed = listed },
	{ MSR_IA32_MCG_CAP, FIELD(mcg_cap), .legal = mcg_cap_legal },
	{ MSR_IA32_MCG_STATUS, FIELD(mcg_status), .legal = mcg_status_legal, .listed = listed },
	{ MSR_IA32_MCG_CTL, FIELD(mcg_ctl), .has = has_mcg_ctl, .legal = mcg_ctl_legal,
	  .listed = listed },
	{ MSR_IA32_MC0_CTL, MSR_IA32_MC0_CTL + 4 * MOAT_MAX_MCE_BANKS - 1,
	  .read = moat_mce_read, .write = moat_mce_write },
	{ MSR_IA32_ARCH_CAPABILITIES, FIELD(arch_capabilities), .has = has_arch_capabilities,
	  .legal = host_only, .listed = listed, .feature = arch_capabilities_feature },
	{ MSR_IA32_PERF_CAPABILITIES, .writes = WRITE_ZERO, .has = has_perf_capabilities,
	  .feature = perf_capabilities_feature },
	{ MSR_IA32_UCODE_REV, FIELD(ucode_rev), .write = ucode_write, .listed = listed,
	  .feature = ucode_feature },
	{ MSR_IA32_UCODE_WRITE, .writes = WRITE_IGNORED, .read = write_only_read },
	{ MSR_IA32_PLATFORM_ID },
	{ MSR_IA32_EBL_CR_POWERON, .writes = WRITE_ZERO },
	{ MSR_IA32_POWER_CTL, FIELD(power_ctl), .listed = listed },
	{ MSR_PLATFORM_INFO, FIELD(platform_info), .has = has_platform_info,
	  .legal = platform_info_legal, .listed = listed },
	{ MSR_IA32_DEBUGCTLMSR, .writes = WRITE_ZERO },
	{ MSR_IA32_LASTBRANCHFROMIP, MSR_IA32_LASTINTTOIP, .writes = WRITE_ZERO },
	{ MSR_K7_EVNTSEL0, MSR_K7_PERFCTR3, .writes = WRITE_ZERO },
	{ MSR_K7_HWCR, FIELD(hwcr), .write = hwcr_write, .listed = listed },
	{ MSR_AMD64_SYSCFG, .writes = WRITE_IGNORED },
	{ MSR_AMD64_NB_CFG, .writes = WRITE_IGNORED },
	{ MSR_AMD64_PATCH_LOADER, .writes = WRITE_IGNORED, .read = write_only_read },
	{ MSR_K8_INT_PENDING_MSG, .writes = WRITE_ZERO },
	{ MSR_FAM10H_MMIO_CONF_BASE, .writes = WRITE_ZERO },
	{ MSR_K8_TSEG_ADDR, MSR_K8_TSEG_MASK, .writes = WRITE_ZERO },
	{ MSR_AMD64_OSVW_ID_LENGTH, MSR_AMD64_OSVW_STATUS, .has = has_osvw, .read = osvw_read },
	{ MSR_AMD64_DC_CFG, .writes = WRITE_IGNORED },
	{ MSR_AMD64_TW_CFG, .writes = WRITE_IGNORED },
	{ MSR_AMD64_DE_CFG, .read = de_cfg_read, .write = de_cfg_write, .feature = de_cfg_feature },
	{ MSR_AMD64_BU_CFG2, .writes = WRITE_IGNORED },
	{ MSR_F15H_EX_CFG, .writes = WRITE_IGNORED },
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

static bool msr_is_hidden(const struct msr_row *msr, struct moat_vcpu *vcpu, bool host)
{
	return !host && ((msr->has && !msr->has(vcpu)) || !moat_pv_allows(vcpu, msr->pv));
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

static int vendor_write(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	switch (index) {
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_IA32_SYSENTER_ESP:
	case MSR_IA32_SYSENTER_EIP:
		if (!is_canonical(value))
			return -EINVAL;
		break;
	case MSR_IA32_CR_PAT:
		if (!memory_types_legal(value, true))
			return -EINVAL;
		break;
	}
	return moat_hw->msr_write(vcpu, index, value);
}

/* Not inlined: what comes before it in moat_msr_read() needs no frame then. */
static noinline int table_read(struct moat_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	const struct msr_row *msr = msr_find(index);

	if (!msr)
		return moat_hw->msr_read(vcpu, index, value);
	if (msr_is_hidden(msr, vcpu, host))
		return -EINVAL;
	if (msr->read)
		return msr->read(vcpu, index, value);
	*value = msr->field ? *msr_field(vcpu, msr, index) : 0;
	return 0;
}

static noinline int table_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	const struct msr_row *msr = msr_find(index);

	if (!msr)
		return vendor_write(vcpu, index, value);
	if (msr_is_hidden(msr, vcpu, host))
		return -EINVAL;
	if (msr->write)
		return msr->write(vcpu, index, value, host);
	if (!msr->field)
		return msr->writes == WRITE_IGNORED || (msr->writes == WRITE_ZERO && !value) ?
		       0 : -EINVAL;
	if (msr->legal && !msr->legal(vcpu, index, value, host))
		return -EINVAL;
	*msr_field(vcpu, msr, index) = value;
	return 0;
}

static bool msr_is_filtered(struct moat_vcpu *vcpu, u32 index, bool host, u32 access)
{
	return !host && unlikely(rcu_access_pointer(vcpu->vm->msr_filter)) &&
	       !moat_msr_filter_allows(vcpu->vm, index, access);
}

/* The local APIC first: it is what guests use all the time. No filter touches its registers. */

int moat_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value, bool host)
{
	if ((index & X2APIC_MSRS_MASK) == X2APIC_MSRS)
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
	if ((index & X2APIC_MSRS_MASK) == X2APIC_MSRS)
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
		.apic_base = BASE_RESET | (vcpu->id == vcpu->vm->bsp_id ? BASE_BSP : 0),
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

static int list_put_all(u32 __user *list, u32 room, u32 *count)
{
	const u32 *vendor;
	unsigned int i;
	u32 index;
	int r = list_put(list, room, count, MSR_IA32_APICBASE);

	for (i = 0; i < ARRAY_SIZE(msrs) && !r; i++) {
		if (!msrs[i].listed || !msrs[i].listed())
			continue;
		for (index = msrs[i].first; index <= msr_last(&msrs[i]) && !r; index++)
			r = list_put(list, room, count, index);
	}
	for (vendor = moat_hw->msr_list; *vendor && !r; vendor++)
		r = list_put(list, room, count, *vendor);
	return r;
}

static int list_put_features(u32 __user *list, u32 room, u32 *count)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < ARRAY_SIZE(msrs) && !r; i++)
		if (msrs[i].feature)
			r = list_put(list, room, count, msrs[i].first);
	return r;
}

static long list_get(struct kvm_msr_list *head, unsigned long uarg,
		     int (*put)(u32 __user *list, u32 room, u32 *count))
{
	u32 room = head->nmsrs, count = 0;
	int r = put((u32 __user *)(uarg + sizeof(*head)), room, &count);

	if (r)
		return r;
	head->nmsrs = count;
	return room < count ? -E2BIG : 0;
}

long moat_system_get_msr_index_list(void *object, void *arg, unsigned long uarg)
{
	return list_get(arg, uarg, list_put_all);
}

long moat_system_get_msr_feature_list(void *object, void *arg, unsigned long uarg)
{
	return list_get(arg, uarg, list_put_features);
}

static struct kvm_msr_entry *entries_get(const struct kvm_msrs *head, unsigned long uarg)
{
	if (head->nmsrs > MSRS_MAX)
		return ERR_PTR(-E2BIG);
	return memdup_user((void __user *)(uarg + sizeof(*head)),
			   head->nmsrs * sizeof(struct kvm_msr_entry));
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
	entries = entries_get(head, uarg);
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
