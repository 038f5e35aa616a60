// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUID: what guests may have, what one guest has been told, and what follows from that.
 *
 * What may be had is one list, made when the module is loaded and never changed, so that each
 * KVM_GET_SUPPORTED_CPUID gives the same answer: for each register of features, those that Moat
 * wholly supports, less what the CPU lacks or the host's kernel has switched off, and less all
 * that depends on the CPU that is asked (APIC ids).
 *
 * Userspace may tell a guest something else. Where a feature needs Moat's or the hardware's consent
 * (bits of CR4, EFER, XCR0, MSRs), what counts is what both the guest was told and may be had.
 *
 * A guest's CPUID instruction is answered from its list, found through a hash of leaf and index.
 */
#include <linux/kvm_para.h>
#include <linux/sched/stat.h>
#include <asm/cpufeature.h>
#include <asm/fpu/types.h>
#include <asm/msr-index.h>

#include "x86.h"

#define LEAF_BASIC_MAX	0x1f
#define LEAF_EXTENDED_MAX 0x80000021
#define GPA_BITS_DEFAULT 36	/* of a guest that was not told, as the SDM says */

/* Predictive store forwarding may be disabled. */
#define AMD_PSFD	BIT(28)
#define SPEC_CTRL_PSFD	BIT_ULL(7)

/* The XSAVE components of leaf 0xd, by its sub-leaves from 2 on. */
#define XSAVE_COMPONENTS 63

/* Bits of CR4 and EFER that need no leave. */
#define CR4_ALWAYS	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE |	\
			 X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE |		\
			 X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)
#define EFER_ALWAYS	((u64)EFER_SCE)

#define NO_WORD	(-1)

/**
 * struct cpuid_row - the features in one register
 * @function: the leaf.
 * @index: its sub-leaf.
 * @reg: CPUID_EAX to CPUID_EDX.
 * @word: where the host's kernel notes which of them it uses, or NO_WORD.
 * @allowed: those that a guest may have where the host has them.
 * @always: those that it may have anyway, since they are emulated.
 */
struct cpuid_row {
	u32 function;
	u8 index;
	u8 reg;
	s8 word;
	u32 allowed;
	u32 always;
};

static const struct cpuid_row cpuid_rows[] = {
	{ 1, 0, CPUID_ECX, CPUID_1_ECX,
	  F(XMM3) | F(PCLMULQDQ) | F(SSSE3) | F(FMA) | F(CX16) | F(PCID) | F(XMM4_1) | F(XMM4_2) |
	  F(MOVBE) | F(POPCNT) | F(AES) | F(XSAVE) | F(AVX) | F(F16C) | F(RDRAND),
	  F(X2APIC) | F(HYPERVISOR) },
	{ 1, 0, CPUID_EDX, CPUID_1_EDX,
	  F(FPU) | F(VME) | F(DE) | F(PSE) | F(TSC) | F(MSR) | F(PAE) | F(MCE) | F(CX8) | F(APIC) |
	  F(SEP) | F(MTRR) | F(PGE) | F(MCA) | F(CMOV) | F(PAT) | F(PSE36) | F(CLFLUSH) | F(MMX) |
	  F(FXSR) | F(XMM) | F(XMM2) | F(SELFSNOOP), 0 },
	{ 7, 0, CPUID_EBX, CPUID_7_0_EBX,
	  F(FSGSBASE) | F(BMI1) | F(HLE) | F(AVX2) | F(FDP_EXCPTN_ONLY) | F(SMEP) | F(BMI2) |
	  F(ERMS) | F(INVPCID) | F(RTM) | F(ZERO_FCS_FDS) | F(AVX512F) | F(AVX512DQ) | F(RDSEED) |
	  F(ADX) | F(SMAP) | F(AVX512IFMA) | F(CLFLUSHOPT) | F(CLWB) | F(AVX512PF) | F(AVX512ER) |
	  F(AVX512CD) | F(SHA_NI) | F(AVX512BW) | F(AVX512VL), F(TSC_ADJUST) },
	{ 7, 0, CPUID_ECX, CPUID_7_ECX,
	  F(AVX512VBMI) | F(UMIP) | F(AVX512_VBMI2) | F(GFNI) | F(VAES) | F(VPCLMULQDQ) |
	  F(AVX512_VNNI) | F(AVX512_BITALG) | F(AVX512_VPOPCNTDQ) | F(LA57) | F(RDPID) |
	  F(CLDEMOTE) | F(MOVDIRI) | F(MOVDIR64B), 0 },
	{ 7, 0, CPUID_EDX, CPUID_7_EDX,
	  F(AVX512_4VNNIW) | F(AVX512_4FMAPS) | F(FSRM) | F(AVX512_VP2INTERSECT) | F(MD_CLEAR) |
	  F(SERIALIZE) | F(TSXLDTRK) | F(AVX512_FP16) | F(SPEC_CTRL) | F(INTEL_STIBP) |
	  F(ARCH_CAPABILITIES) | F(SPEC_CTRL_SSBD), 0 },
	{ 7, 1, CPUID_EAX, CPUID_7_1_EAX, F(AVX_VNNI) | F(AVX512_BF16), 0 },
	{ 0xd, 1, CPUID_EAX, CPUID_D_1_EAX, F(XSAVEOPT) | F(XSAVEC) | F(XGETBV1), 0 },
	{ LEAF_EXTENDED + 1, 0, CPUID_ECX, CPUID_8000_0001_ECX,
	  F(LAHF_LM) | F(CMP_LEGACY) | F(CR8_LEGACY) | F(ABM) | F(SSE4A) | F(MISALIGNSSE) |
	  F(3DNOWPREFETCH) | F(OSVW) | F(XOP) | F(FMA4) | F(TBM) | F(TOPOEXT), 0 },
	{ LEAF_EXTENDED + 1, 0, CPUID_EDX, CPUID_8000_0001_EDX,
	  F(FPU) | F(VME) | F(DE) | F(PSE) | F(TSC) | F(MSR) | F(PAE) | F(MCE) | F(CX8) | F(APIC) |
	  F(SYSCALL) | F(MTRR) | F(PGE) | F(MCA) | F(CMOV) | F(PAT) | F(PSE36) | F(NX) |
	  F(MMXEXT) | F(MMX) | F(FXSR) | F(FXSR_OPT) | F(GBPAGES) | F(RDTSCP) | F(LM) |
	  F(3DNOWEXT) | F(3DNOW), 0 },
	/* The TSC is invariant. */
	{ LEAF_EXTENDED + 7, 0, CPUID_EDX, NO_WORD, BIT(8), 0 },
	{ LEAF_EXTENDED + 8, 0, CPUID_EBX, CPUID_8000_0008_EBX,
	  F(CLZERO) | F(XSAVEERPTR) | F(WBNOINVD) | F(AMD_IBPB) | F(AMD_IBRS) | F(AMD_STIBP) |
	  F(AMD_SSBD) | F(AMD_SSB_NO) | AMD_PSFD, 0 },
	/* No nested data breakpoints, LFENCE serialises, null selectors clear the base. */
	{ LEAF_EXTENDED + 0x21, 0, CPUID_EAX, NO_WORD, BIT(0) | BIT(2) | BIT(6), 0 },
};

static struct kvm_cpuid_entry2 cpuid_supported[128];
static u32 cpuid_supported_count;

/* Looking up */

static bool entry_matches(const struct kvm_cpuid_entry2 *e, u32 function, u32 index)
{
	return e->function == function &&
	       (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
}

static const struct kvm_cpuid_entry2 *list_find(const struct kvm_cpuid_entry2 *list, u32 count,
						u32 function, u32 index)
{
	u32 i;

	for (i = 0; i < count; i++)
		if (entry_matches(&list[i], function, index))
			return &list[i];
	return NULL;
}

/* Inline here, where it is on the way of an exit. */
static inline const struct kvm_cpuid_entry2 *cpuid_find(struct moat_vcpu *vcpu, u32 function,
							 u32 index)
{
	u32 hash = (function ^ function >> 28 ^ index) % sizeof(vcpu->cpuid_hint);
	u8 *hint = &vcpu->cpuid_hint[hash];
	const struct kvm_cpuid_entry2 *e = &vcpu->cpuid[*hint];

	if (likely(*hint < vcpu->cpuid_count && entry_matches(e, function, index)))
		return e;
	e = list_find(vcpu->cpuid, vcpu->cpuid_count, function, index);
	if (e)
		*hint = e - vcpu->cpuid;
	return e;
}

const struct kvm_cpuid_entry2 *moat_cpuid_find(struct moat_vcpu *vcpu, u32 function, u32 index)
{
	return cpuid_find(vcpu, function, index);
}

static_assert(offsetof(struct kvm_cpuid_entry2, edx) ==
	      offsetof(struct kvm_cpuid_entry2, eax) + CPUID_EDX * sizeof(u32));

static u32 entry_reg(const struct kvm_cpuid_entry2 *e, enum cpuid_regs_idx reg)
{
	return (&e->eax)[reg];
}

u32 moat_cpuid_supported(u32 function, enum cpuid_regs_idx reg)
{
	const struct kvm_cpuid_entry2 *e;

	e = list_find(cpuid_supported, cpuid_supported_count, function, 0);
	return e ? entry_reg(e, reg) : 0;
}

u32 moat_cpuid_told(struct moat_vcpu *vcpu, u32 function, enum cpuid_regs_idx reg)
{
	const struct kvm_cpuid_entry2 *e = moat_cpuid_find(vcpu, function, 0);

	return e ? entry_reg(e, reg) : 0;
}

u32 moat_cpuid_bits(struct moat_vcpu *vcpu, u32 function, enum cpuid_regs_idx reg)
{
	u32 told = moat_cpuid_told(vcpu, function, reg);

	return told ? told & moat_cpuid_supported(function, reg) : 0;
}

/* What may be had */

static void entry_add(u32 function, u32 index, bool indexed, const u32 regs[4])
{
	if (WARN_ON_ONCE(cpuid_supported_count == ARRAY_SIZE(cpuid_supported)))
		return;
	cpuid_supported[cpuid_supported_count++] = (struct kvm_cpuid_entry2) {
		.function = function, .index = index,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = regs[CPUID_EAX], .ebx = regs[CPUID_EBX],
		.ecx = regs[CPUID_ECX], .edx = regs[CPUID_EDX],
	};
}

static void host_query(u32 function, u32 index, u32 regs[4])
{
	cpuid_count(function, index, &regs[CPUID_EAX], &regs[CPUID_EBX], &regs[CPUID_ECX],
		    &regs[CPUID_EDX]);
}

/* The features of one sub-leaf, all else 0. */
static void features_query(u32 function, u32 index, u32 regs[4])
{
	u32 raw[4], mask;
	unsigned int i;

	host_query(function, index, raw);
	memset(regs, 0, 4 * sizeof(*regs));
	for (i = 0; i < ARRAY_SIZE(cpuid_rows); i++) {
		const struct cpuid_row *row = &cpuid_rows[i];

		if (row->function != function || row->index != index)
			continue;
		mask = row->allowed;
		if (row->word != NO_WORD)
			mask &= boot_cpu_data.x86_capability[row->word];
		regs[row->reg] = (raw[row->reg] & mask) | row->always;
	}
}

/* Sub-leaves up to the first that says no cache. */
static void caches_add(u32 function)
{
	u32 regs[4], index = 0;

	do {
		host_query(function, index, regs);
		entry_add(function, index++, true, regs);
	} while ((regs[CPUID_EAX] & 0x1f) && index < 8);
}

static void xsave_add(u32 function)
{
	u64 features = moat_fpu_features();
	u32 regs[4];
	int i;

	features_query(function, 0, regs);
	if (!(moat_cpuid_supported(1, CPUID_ECX) & F(XSAVE))) {
		entry_add(function, 0, true, regs);
		return;
	}
	regs[CPUID_EAX] = features;
	regs[CPUID_EBX] = moat_fpu_area_size(features);
	regs[CPUID_ECX] = regs[CPUID_EBX];
	regs[CPUID_EDX] = features >> 32;
	entry_add(function, 0, true, regs);
	features_query(function, 1, regs);
	if (regs[CPUID_EAX] & F(XSAVEC))
		regs[CPUID_EBX] = moat_fpu_compact_size(features);
	entry_add(function, 1, true, regs);
	for (i = 2; i < XSAVE_COMPONENTS; i++) {
		if (!(features & BIT_ULL(i)))
			continue;
		host_query(function, i, regs);
		regs[CPUID_EDX] = 0;
		entry_add(function, i, true, regs);
	}
}

/* Guest-physical addresses are as wide as the host's, and as nested paging can map. */
static u32 address_sizes(void)
{
	bool la57 = moat_cpuid_supported(7, CPUID_ECX) & F(LA57);
	u32 gpa_bits = cpuid_eax(LEAF_EXTENDED + 8) & 0xff;

	if (!cpu_feature_enabled(X86_FEATURE_LA57))
		gpa_bits = min_t(u32, gpa_bits, 48);
	return min_t(u32, gpa_bits, STAGE2_GPA_BITS) | (la57 ? 57 : 48) << 8;
}

static void leaf_add(u32 function, u32 max)
{
	u32 raw[4], regs[4];

	host_query(function, 0, raw);
	features_query(function, 0, regs);
	switch (function) {
	case 0:
	case LEAF_EXTENDED:
		memcpy(regs, raw, sizeof(regs));
		regs[CPUID_EAX] = max;
		break;
	case 1:
		/* The signature; the size of CLFLUSH. */
		regs[CPUID_EAX] = raw[CPUID_EAX];
		regs[CPUID_EBX] = raw[CPUID_EBX] & 0xff00;
		break;
	case LEAF_EXTENDED + 1:
		regs[CPUID_EAX] = raw[CPUID_EAX];
		break;
	case 6:
		regs[CPUID_EAX] = BIT(2);	/* the APIC timer never stops */
		break;
	case 7:
		regs[CPUID_EAX] = min_t(u32, raw[CPUID_EAX], 1);
		break;
	case LEAF_EXTENDED + 8:
		regs[CPUID_EAX] = address_sizes();
		break;
	case 2:		/* as the CPU gives them: caches, TLBs, the CPU's name */
	case LEAF_EXTENDED + 2 ... LEAF_EXTENDED + 6:
	case LEAF_EXTENDED + 0x19 ... LEAF_EXTENDED + 0x1a:
		memcpy(regs, raw, sizeof(regs));
		break;
	}
	/* No topology: whoever knows it tells the guest. */
	entry_add(function, 0, function == 7 || function == 0xb || function == 0x1f, regs);
	if (function == 7 && regs[CPUID_EAX]) {
		features_query(function, 1, regs);
		entry_add(function, 1, true, regs);
	}
}

static void range_add(u32 first, u32 limit)
{
	u32 max = min(cpuid_eax(first), limit);
	u32 function;

	for (function = first; function <= max; function++) {
		if (function == 4 || function == LEAF_EXTENDED + 0x1d)
			caches_add(function);
		else if (function == 0xd)
			xsave_add(function);
		else
			leaf_add(function, max);
	}
}

static void paravirt_add(void)
{
	u32 regs[4] = { KVM_CPUID_FEATURES };

	memcpy(&regs[CPUID_EBX], "KVMKVMKVM\0\0", 12);
	entry_add(KVM_CPUID_SIGNATURE, 0, false, regs);
	memset(regs, 0, sizeof(regs));
	regs[CPUID_EAX] = BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_NOP_IO_DELAY) |
			  BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) |
			  BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_UNHALT) |
			  BIT(KVM_FEATURE_PV_TLB_FLUSH) | BIT(KVM_FEATURE_PV_SEND_IPI) |
			  BIT(KVM_FEATURE_POLL_CONTROL) | BIT(KVM_FEATURE_PV_SCHED_YIELD);
	if (sched_info_on())
		regs[CPUID_EAX] |= BIT(KVM_FEATURE_STEAL_TIME);
	entry_add(KVM_CPUID_FEATURES, 0, false, regs);
}

void moat_cpuid_init(void)
{
	cpuid_supported_count = 0;
	range_add(0, LEAF_BASIC_MAX);
	paravirt_add();
	range_add(LEAF_EXTENDED, LEAF_EXTENDED_MAX);
}

long moat_system_get_supported_cpuid(void *object, void *arg, unsigned long uarg)
{
	struct kvm_cpuid2 *head = arg;

	if (head->nent < cpuid_supported_count)
		return -E2BIG;
	head->nent = cpuid_supported_count;
	if (copy_to_user((void __user *)(uarg + sizeof(*head)), cpuid_supported,
			 cpuid_supported_count * sizeof(*cpuid_supported)))
		return -EFAULT;
	return 0;
}

/* What follows from what the guest was told */

static const struct cpuid_cr4 {
	u32 function;
	u8 reg;
	u32 bit;
	u64 cr4;
} cpuid_cr4[] = {
	{ 1, CPUID_ECX, F(PCID), X86_CR4_PCIDE },
	{ 1, CPUID_ECX, F(XSAVE), X86_CR4_OSXSAVE },
	{ 7, CPUID_EBX, F(FSGSBASE), X86_CR4_FSGSBASE },
	{ 7, CPUID_EBX, F(SMEP), X86_CR4_SMEP },
	{ 7, CPUID_EBX, F(SMAP), X86_CR4_SMAP },
	{ 7, CPUID_ECX, F(UMIP), X86_CR4_UMIP },
	{ 7, CPUID_ECX, F(LA57), X86_CR4_LA57 },
};

/* A vCPU that was told nothing may have everything. */
static u64 cr4_allowed(struct moat_vcpu *vcpu)
{
	u64 allowed = CR4_ALWAYS;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cpuid_cr4); i++) {
		const struct cpuid_cr4 *row = &cpuid_cr4[i];
		u32 bits = vcpu->cpuid_count ? moat_cpuid_bits(vcpu, row->function, row->reg) :
					       moat_cpuid_supported(row->function, row->reg);

		if (bits & row->bit)
			allowed |= row->cr4;
	}
	return allowed;
}

static u64 efer_from_bits(u32 edx)
{
	return EFER_ALWAYS | (edx & F(LM) ? EFER_LME | EFER_LMA : 0) |
	       (edx & F(NX) ? EFER_NX : 0) | (edx & F(FXSR_OPT) ? EFER_FFXSR : 0);
}

u64 moat_efer_supported(void)
{
	return efer_from_bits(moat_cpuid_supported(LEAF_EXTENDED + 1, CPUID_EDX));
}

/* Bits of SPEC_CTRL, by Intel's and by AMD's leaves. */
static u64 spec_ctrl_from_bits(u32 intel, u32 amd)
{
	u64 bits = 0;

	if ((intel & F(SPEC_CTRL)) || (amd & F(AMD_IBRS)))
		bits |= SPEC_CTRL_IBRS;
	if ((intel & F(INTEL_STIBP)) || (amd & F(AMD_STIBP)))
		bits |= SPEC_CTRL_STIBP;
	if ((intel & F(SPEC_CTRL_SSBD)) || (amd & F(AMD_SSBD)))
		bits |= SPEC_CTRL_SSBD;
	if (amd & AMD_PSFD)
		bits |= SPEC_CTRL_PSFD;
	return bits;
}

u64 moat_spec_ctrl_supported(void)
{
	return spec_ctrl_from_bits(moat_cpuid_supported(7, CPUID_EDX),
				   moat_cpuid_supported(LEAF_EXTENDED + 8, CPUID_EBX));
}

static u64 gpa_mask(struct moat_vcpu *vcpu)
{
	u32 bits = 0;

	if (moat_cpuid_told(vcpu, LEAF_EXTENDED, CPUID_EAX) >= LEAF_EXTENDED + 8)
		bits = moat_cpuid_told(vcpu, LEAF_EXTENDED + 8, CPUID_EAX) & 0xff;
	return GENMASK_ULL(min_t(u32, bits ?: GPA_BITS_DEFAULT, STAGE2_GPA_BITS) - 1, 0);
}

void moat_cpuid_derive(struct moat_vcpu *vcpu)
{
	u32 edx = moat_cpuid_bits(vcpu, LEAF_EXTENDED + 1, CPUID_EDX);

	vcpu->xcr0_allowed = moat_fpu_features() &
			     (moat_cpuid_told(vcpu, 0xd, CPUID_EAX) |
			      (u64)moat_cpuid_told(vcpu, 0xd, CPUID_EDX) << 32);
	vcpu->cr4_reserved = ~cr4_allowed(vcpu);
	vcpu->efer_reserved = ~efer_from_bits(edx);
	vcpu->gpa_mask = gpa_mask(vcpu);
	vcpu->has_rdtscp = (edx & F(RDTSCP)) || (moat_cpuid_bits(vcpu, 7, CPUID_ECX) & F(RDPID));
	vcpu->spec_ctrl_allowed =
		spec_ctrl_from_bits(moat_cpuid_bits(vcpu, 7, CPUID_EDX),
				    moat_cpuid_bits(vcpu, LEAF_EXTENDED + 8, CPUID_EBX));
	vcpu->has_ibpb = (moat_cpuid_bits(vcpu, 7, CPUID_EDX) & F(SPEC_CTRL)) ||
			 (moat_cpuid_bits(vcpu, LEAF_EXTENDED + 8, CPUID_EBX) & F(AMD_IBPB));
}

/* 48 or 57 bits of linear addresses, or nothing said. */
static bool cpuid_is_legal(const struct kvm_cpuid_entry2 *list, u32 count)
{
	const struct kvm_cpuid_entry2 *e = list_find(list, count, LEAF_EXTENDED + 8, 0);
	u32 bits = e ? e->eax >> 8 & 0xff : 0;

	return !bits || bits == 48 || bits == 57;
}

/* As the list has it, or, where the quirk is off, by a bit of MISC_ENABLE that the guest may change. */
static u32 live_mwait(struct moat_vcpu *vcpu, u32 ecx)
{
	if (likely(!(READ_ONCE(vcpu->vm->quirks_off) & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT)))
		return ecx & F(MWAIT);
	return vcpu->msrs.misc_enable & MSR_IA32_MISC_ENABLE_MWAIT ? F(MWAIT) : 0;
}

bool moat_cpuid_has_mwait(struct moat_vcpu *vcpu)
{
	return live_mwait(vcpu, moat_cpuid_told(vcpu, 1, CPUID_ECX));
}

/* What follows the vCPU's state. */
static inline u32 live_1_ecx(struct moat_vcpu *vcpu, u32 ecx)
{
	return (ecx & ~(F(OSXSAVE) | F(MWAIT))) | live_mwait(vcpu, ecx) |
	       (vcpu->osxsave ? F(OSXSAVE) : 0);
}

static inline u32 live_1_edx(struct moat_vcpu *vcpu, u32 edx)
{
	return (edx & ~F(APIC)) | (vcpu->msrs.apic_base & MSR_IA32_APICBASE_ENABLE ? F(APIC) : 0);
}

static void live_bits(struct moat_vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
	if (e->function == 1) {
		e->ecx = live_1_ecx(vcpu, e->ecx);
		e->edx = live_1_edx(vcpu, e->edx);
	} else if (e->function == 0xd && e->index == 0) {
		e->ebx = moat_fpu_area_size(vcpu->xcr0);
	} else if (e->function == 0xd && e->index == 1 && e->ebx) {
		e->ebx = moat_fpu_compact_size(vcpu->xcr0);
	}
}

static void list_live_bits(struct moat_vcpu *vcpu, struct kvm_cpuid_entry2 *list, u32 count)
{
	struct kvm_cpuid_entry2 *e;

	for (e = list; e < list + count; e++)
		live_bits(vcpu, e);
}

/* What has run may be told the same again, nothing else: much has been derived from it by then. */
static bool cpuid_is_late(struct moat_vcpu *vcpu, struct kvm_cpuid_entry2 *list, u32 count)
{
	if (vcpu->cpu < 0)
		return false;
	list_live_bits(vcpu, list, count);
	list_live_bits(vcpu, vcpu->cpuid, vcpu->cpuid_count);
	return count != vcpu->cpuid_count || memcmp(list, vcpu->cpuid, count * sizeof(*list));
}

long moat_vcpu_set_cpuid2(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_cpuid2 *head = arg;
	struct kvm_cpuid_entry2 *list = NULL;

	if (head->nent > MOAT_MAX_CPUID_ENTRIES)
		return -E2BIG;
	if (head->nent) {
		list = vmemdup_user((void __user *)(uarg + sizeof(*head)),
				    head->nent * sizeof(*list));
		if (IS_ERR(list))
			return PTR_ERR(list);
	}
	if (!cpuid_is_legal(list, head->nent) || cpuid_is_late(vcpu, list, head->nent)) {
		kvfree(list);
		return -EINVAL;
	}
	kvfree(vcpu->cpuid);
	vcpu->cpuid = list;
	vcpu->cpuid_count = head->nent;
	moat_cpuid_derive(vcpu);
	return 0;
}

long moat_vcpu_get_cpuid2(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct kvm_cpuid2 *head = arg;
	u32 room = head->nent;

	head->nent = vcpu->cpuid_count;
	if (room < vcpu->cpuid_count)
		return -E2BIG;
	list_live_bits(vcpu, vcpu->cpuid, vcpu->cpuid_count);
	if (copy_to_user((void __user *)(uarg + sizeof(*head)), vcpu->cpuid,
			 vcpu->cpuid_count * sizeof(*vcpu->cpuid)))
		return -EFAULT;
	return 0;
}

/* The instruction */

static bool guest_is_amd(struct moat_vcpu *vcpu)
{
	u32 ebx = moat_cpuid_told(vcpu, 0, CPUID_EBX);

	/* "AuthenticAMD", "HygonGenuine" */
	return ebx == 0x68747541 || ebx == 0x6f677948;
}

/* A leaf above its range's last: AMD's CPUs answer 0, Intel's as for the last basic one. */
static const struct kvm_cpuid_entry2 *out_of_range(struct moat_vcpu *vcpu, u32 function, u32 index)
{
	u32 first = 0;

	if (function >= KVM_CPUID_SIGNATURE && function < KVM_CPUID_SIGNATURE + 0x10000)
		first = function & ~0xffu;
	else if (function >= LEAF_EXTENDED)
		first = LEAF_EXTENDED;
	if (guest_is_amd(vcpu) || function <= moat_cpuid_told(vcpu, first, CPUID_EAX))
		return NULL;
	return moat_cpuid_find(vcpu, moat_cpuid_told(vcpu, 0, CPUID_EAX), index);
}

static void registers_set(struct moat_vcpu *vcpu, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	vcpu->gpr[RAX] = eax;
	vcpu->gpr[RBX] = ebx;
	vcpu->gpr[RCX] = ecx;
	vcpu->gpr[RDX] = edx;
}

/* A leaf that is not in the list. */
static noinline void absent_execute(struct moat_vcpu *vcpu, u32 function, u32 index)
{
	const struct kvm_cpuid_entry2 none = { 0 };
	const struct kvm_cpuid_entry2 *e = out_of_range(vcpu, function, index) ?: &none;

	registers_set(vcpu, e->eax, e->ebx, e->ecx, e->edx);
	/* Topology: ECX echoes the index and EDX is the x2APIC id, for absent sub-leaves too. */
	e = function == 0xb || function == 0x1f ? moat_cpuid_find(vcpu, function, 1) : NULL;
	if (e) {
		vcpu->gpr[RCX] = index & 0xff;
		vcpu->gpr[RDX] = e->edx;
	}
}

static noinline void live_execute(struct moat_vcpu *vcpu, const struct kvm_cpuid_entry2 *e)
{
	struct kvm_cpuid_entry2 live = *e;

	live_bits(vcpu, &live);
	registers_set(vcpu, live.eax, live.ebx, live.ecx, live.edx);
}

void moat_cpuid_execute(struct moat_vcpu *vcpu)
{
	u32 function = vcpu->gpr[RAX], index = vcpu->gpr[RCX];
	const struct kvm_cpuid_entry2 *e = cpuid_find(vcpu, function, index);

	if (unlikely(!e))
		absent_execute(vcpu, function, index);
	else if (function == 1)
		registers_set(vcpu, e->eax, e->ebx, live_1_ecx(vcpu, e->ecx),
			      live_1_edx(vcpu, e->edx));
	else if (function == 0xd)
		live_execute(vcpu, e);
	else
		registers_set(vcpu, e->eax, e->ebx, e->ecx, e->edx);
}
