// SPDX-License-Identifier: GPL-2.0-only
/*
 * Extended state: x87, SSE, AVX, AVX-512.
 *
 * Each vCPU has an area in the standard XSAVE format for all features that a guest may have.
 * Between moat_fpu_enter() and moat_fpu_leave() the registers hold the guest's state, whatever
 * the exits in between; kernel_fpu_begin_mask() has put the thread's own state into safety and
 * keeps interrupts from using the registers. Both move all features, under the host's XCR0, so
 * that nothing of the host's is left in a register that the guest can reach, and the guest's
 * XCR0 may change at any time.
 *
 * XSAVEOPT leaves out components that are in their initial state, or unchanged since the XRSTOR
 * from this very address. The latter is sound: the last XRSTOR of the host on this CPU was that
 * of moat_fpu_enter(), for nobody else may use the registers in between, and what the guest
 * executes is tracked apart (Intel SDM vol. 1, "XSAVE-Managed State"; the CPU compares mode and
 * address). The former leaves what was in memory: area_normalize() fills it in where the area is
 * read or edited.
 *
 * The guest's XCR0 is loaded just round the entry. It never has PKRU: CR4.PKE and bit 9 are
 * refused, so the guest can neither read nor write that register, and it is left as it is.
 *
 * CPUs without XSAVE get FXSAVE and FXRSTOR, in the legacy region of the same area.
 */
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/cpuid.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/fpu/xcr.h>

#include "../compat.h"
#include "x86.h"

#define FEATURES_FPSSE	(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)
#define FEATURES_AVX512	XFEATURE_MASK_AVX512
#define FEATURES_KNOWN	(FEATURES_FPSSE | XFEATURE_MASK_YMM | FEATURES_AVX512)
#define FEATURES_MAX	8		/* one above the highest known */

#define AREA_LEGACY	(sizeof(struct fxregs_state) + sizeof(struct xstate_header))
#define AREA_ALIGN	64

#define MXCSR_RESET	0x1f80
#define MXCSR_MASK_DEFAULT 0xffbf	/* where FXSAVE gives 0 */
#define FCW_RESET	0x37f

#define XSAVE_ECX_ALIGN	BIT(1)

/* Where a component is in the standard format. */
struct component {
	u32 offset;
	u32 size;
	bool align;		/* in the compact format */
};

static struct component fpu_components[FEATURES_MAX] __read_mostly;
static struct kmem_cache *fpu_cache;
static u64 fpu_features __read_mostly;
u64 moat_host_xcr0 __read_mostly;
static u32 fpu_mxcsr_mask __read_mostly;
static bool fpu_has_xsave __read_mostly;
static bool fpu_has_xsaveopt __read_mostly;

static_assert(sizeof(((struct kvm_xsave *)0)->region) == 4096);

/* Set-up */

static void components_find(void)
{
	u32 eax, ebx, ecx, edx;
	int i;

	for (i = 2; i < FEATURES_MAX; i++) {
		if (!(fpu_features & BIT_ULL(i)))
			continue;
		cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
		fpu_components[i] = (struct component) {
			.size = eax, .offset = ebx, .align = ecx & XSAVE_ECX_ALIGN,
		};
	}
}

static u32 mxcsr_mask_find(struct fxregs_state *fx)
{
	memset(fx, 0, sizeof(*fx));
	kernel_fpu_begin();
	asm volatile("fxsave64 %0" : "=m" (*fx));
	kernel_fpu_end();
	return fx->mxcsr_mask ? fx->mxcsr_mask : MXCSR_MASK_DEFAULT;
}

int moat_fpu_init(void)
{
	struct fxregs_state *fx;

	fpu_has_xsave = boot_cpu_has(X86_FEATURE_OSXSAVE);
	fpu_has_xsaveopt = fpu_has_xsave && boot_cpu_has(X86_FEATURE_XSAVEOPT);
	moat_host_xcr0 = fpu_has_xsave ? xgetbv(XCR_XFEATURE_ENABLED_MASK) : FEATURES_FPSSE;
	fpu_features = moat_host_xcr0 & FEATURES_KNOWN;
	components_find();
	if (moat_fpu_area_size(fpu_features) > sizeof(struct kvm_xsave))
		return -EOPNOTSUPP;
	fpu_cache = kmem_cache_create("moat_fpu", moat_fpu_area_size(fpu_features), AREA_ALIGN,
				      SLAB_ACCOUNT, NULL);
	if (!fpu_cache)
		return -ENOMEM;
	fx = kmem_cache_alloc(fpu_cache, GFP_KERNEL);
	if (!fx) {
		kmem_cache_destroy(fpu_cache);
		return -ENOMEM;
	}
	fpu_mxcsr_mask = mxcsr_mask_find(fx);
	kmem_cache_free(fpu_cache, fx);
	return 0;
}

void moat_fpu_exit(void)
{
	kmem_cache_destroy(fpu_cache);
}

u64 moat_fpu_features(void)
{
	return fpu_has_xsave ? fpu_features : 0;
}

u32 moat_fpu_area_size(u64 xcr0)
{
	u32 size = AREA_LEGACY;
	int i;

	for (i = 2; i < FEATURES_MAX; i++)
		if (xcr0 & BIT_ULL(i))
			size = max(size, fpu_components[i].offset + fpu_components[i].size);
	return size;
}

u32 moat_fpu_compact_size(u64 xcr0)
{
	u32 size = AREA_LEGACY;
	int i;

	for (i = 2; i < FEATURES_MAX; i++) {
		if (!(xcr0 & BIT_ULL(i)))
			continue;
		if (fpu_components[i].align)
			size = ALIGN(size, AREA_ALIGN);
		size += fpu_components[i].size;
	}
	return size;
}

/* Life */

static void area_init(struct xregs_state *area)
{
	memset(area, 0, moat_fpu_area_size(fpu_features));
	area->i387.cwd = FCW_RESET;
	area->i387.mxcsr = MXCSR_RESET;
}

int moat_fpu_create(struct moat_vcpu *vcpu)
{
	vcpu->fpu = kmem_cache_alloc(fpu_cache, GFP_KERNEL_ACCOUNT);
	if (!vcpu->fpu)
		return -ENOMEM;
	area_init(vcpu->fpu);
	return 0;
}

void moat_fpu_destroy(struct moat_vcpu *vcpu)
{
	if (vcpu->fpu)
		kmem_cache_free(fpu_cache, vcpu->fpu);
}

/* INIT leaves all of it as it was. */
void moat_fpu_reset(struct moat_vcpu *vcpu, bool init)
{
	if (init)
		return;
	area_init(vcpu->fpu);
	vcpu->xcr0 = XFEATURE_MASK_FP;
}

/* Switching */

/*
 * AMD's older CPUs leave the x87 pointers alone where no exception is pending
 * (X86_BUG_FXSAVE_LEAK), which would show one guest where another's x87 code is: overwrite them.
 */
static void x87_pointers_clear(struct xregs_state *area)
{
	if (!boot_cpu_has_bug(X86_BUG_FXSAVE_LEAK))
		return;
	asm volatile("fnclex; emms; fildl %0" : : "m" (area->header.xcomp_bv));
}

static void area_load(struct xregs_state *area)
{
	u32 low = fpu_features, high = fpu_features >> 32;

	x87_pointers_clear(area);
	if (fpu_has_xsave)
		asm volatile("xrstor64 %0" : : "m" (*area), "a" (low), "d" (high) : "memory");
	else
		asm volatile("fxrstor64 %0" : : "m" (*area) : "memory");
}

static void area_save(struct xregs_state *area)
{
	u32 low = fpu_features, high = fpu_features >> 32;

	if (fpu_has_xsaveopt)
		asm volatile("xsaveopt64 %0" : "+m" (*area) : "a" (low), "d" (high) : "memory");
	else if (fpu_has_xsave)
		asm volatile("xsave64 %0" : "+m" (*area) : "a" (low), "d" (high) : "memory");
	else
		asm volatile("fxsave64 %0" : "+m" (*area) : : "memory");
}

void moat_fpu_enter(struct moat_vcpu *vcpu)
{
	kernel_fpu_begin_mask(0);
	area_load(vcpu->fpu);
}

void moat_fpu_leave(struct moat_vcpu *vcpu)
{
	area_save(vcpu->fpu);
	kernel_fpu_end();
}

/* x87 always; AVX needs SSE, AVX-512 needs AVX and comes whole. */
static bool xcr0_is_legal(struct moat_vcpu *vcpu, u64 xcr0)
{
	u64 avx512 = xcr0 & FEATURES_AVX512;

	if (!(xcr0 & XFEATURE_MASK_FP) || (xcr0 & ~(vcpu->xcr0_allowed | XFEATURE_MASK_FP)))
		return false;
	if ((xcr0 & XFEATURE_MASK_YMM) && !(xcr0 & XFEATURE_MASK_SSE))
		return false;
	return !avx512 || (avx512 == FEATURES_AVX512 && (xcr0 & XFEATURE_MASK_YMM));
}

int moat_xcr_write(struct moat_vcpu *vcpu, u32 index, u64 value)
{
	if (index != XCR_XFEATURE_ENABLED_MASK || !xcr0_is_legal(vcpu, value))
		return -EINVAL;
	vcpu->xcr0 = value;
	return 0;
}

/* Reading and editing the area */

/* Gives components that are in their initial state that state in memory too. */
static void area_normalize(struct xregs_state *area)
{
	u64 absent;
	int i;

	if (!fpu_has_xsave)
		return;
	absent = fpu_features & ~area->header.xfeatures;
	if (absent & XFEATURE_MASK_FP) {
		memset(&area->i387, 0, offsetof(struct fxregs_state, mxcsr));
		memset(area->i387.st_space, 0, sizeof(area->i387.st_space));
		area->i387.cwd = FCW_RESET;
	}
	if (absent & XFEATURE_MASK_SSE)
		memset(area->i387.xmm_space, 0, sizeof(area->i387.xmm_space));
	for (i = 2; i < FEATURES_MAX; i++)
		if (absent & BIT_ULL(i))
			memset((void *)area + fpu_components[i].offset, 0, fpu_components[i].size);
}

long moat_vcpu_get_fpu(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct xregs_state *area = vcpu->fpu;
	const struct fxregs_state *fx = &area->i387;
	struct kvm_fpu *fpu = arg;

	area_normalize(area);
	memset(fpu, 0, sizeof(*fpu));
	memcpy(fpu->fpr, fx->st_space, sizeof(fpu->fpr));
	fpu->fcw = fx->cwd;
	fpu->fsw = fx->swd;
	fpu->ftwx = fx->twd;
	fpu->last_opcode = fx->fop;
	fpu->last_ip = fx->rip;
	fpu->last_dp = fx->rdp;
	memcpy(fpu->xmm, fx->xmm_space, sizeof(fpu->xmm));
	fpu->mxcsr = fx->mxcsr;
	return 0;
}

long moat_vcpu_set_fpu(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct xregs_state *area = vcpu->fpu;
	struct fxregs_state *fx = &area->i387;
	const struct kvm_fpu *fpu = arg;

	if (fpu->mxcsr & ~fpu_mxcsr_mask)
		return -EINVAL;
	memcpy(fx->st_space, fpu->fpr, sizeof(fpu->fpr));
	fx->cwd = fpu->fcw;
	fx->swd = fpu->fsw;
	fx->twd = fpu->ftwx;
	fx->fop = fpu->last_opcode;
	fx->rip = fpu->last_ip;
	fx->rdp = fpu->last_dp;
	memcpy(fx->xmm_space, fpu->xmm, sizeof(fpu->xmm));
	fx->mxcsr = fpu->mxcsr;
	area->header.xfeatures |= FEATURES_FPSSE;
	return 0;
}

long moat_vcpu_get_xsave(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct xregs_state *area = vcpu->fpu;
	struct xregs_state *to = arg;

	area_normalize(area);
	memset(arg, 0, sizeof(struct kvm_xsave));
	memcpy(arg, area, moat_fpu_area_size(fpu_features));
	memset(to->i387.padding1, 0, sizeof(to->i387.padding1));
	if (!fpu_has_xsave)
		to->header.xfeatures = FEATURES_FPSSE;
	return 0;
}

static bool header_is_legal(const struct xstate_header *header)
{
	return !(header->xfeatures & ~fpu_features) && !header->xcomp_bv &&
	       !memchr_inv(header->reserved, 0, sizeof(header->reserved));
}

long moat_vcpu_set_xsave(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct xregs_state *from = arg;

	if (!header_is_legal(&from->header) || (from->i387.mxcsr & ~fpu_mxcsr_mask))
		return -EINVAL;
	memcpy(vcpu->fpu, from, moat_fpu_area_size(fpu_features));
	return 0;
}

long moat_vcpu_get_xcrs(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct kvm_xcrs *xcrs = arg;

	if (!fpu_has_xsave)
		return -EINVAL;
	memset(xcrs, 0, sizeof(*xcrs));
	xcrs->nr_xcrs = 1;
	xcrs->xcrs[0].xcr = XCR_XFEATURE_ENABLED_MASK;
	xcrs->xcrs[0].value = vcpu->xcr0;
	return 0;
}

long moat_vcpu_set_xcrs(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_xcrs *xcrs = arg;
	u32 i;

	if (!fpu_has_xsave || xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags)
		return -EINVAL;
	for (i = 0; i < xcrs->nr_xcrs; i++)
		if (xcrs->xcrs[i].xcr == XCR_XFEATURE_ENABLED_MASK)
			return moat_xcr_write(object, xcrs->xcrs[i].xcr, xcrs->xcrs[i].value);
	return 0;
}
