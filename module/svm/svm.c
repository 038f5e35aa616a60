// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMD-V: what is set up once, for each CPU, and for each vCPU. AMD APM vol. 2, "Secure Virtual
 * Machine".
 */
#include <linux/cpufeature.h>
#include <linux/gfp.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/io.h>
#include <asm/msr.h>

#include "../inner.h"
#include "svm.h"

/* 12 KiB of I/O map and 8 KiB of MSR map. */
#define MAPS_ORDER	3
#define MSRPM_OFFSET	(3 * PAGE_SIZE)

#define CPUID_SVM	0x8000000a
#define SVM_EDX_NPT		BIT(0)
#define SVM_EDX_NRIP		BIT(3)
#define SVM_EDX_FLUSH_BY_ASID	BIT(6)

#define VM_CR_SVMDIS		BIT_ULL(4)

DEFINE_PER_CPU(struct svm_cpu, svm_cpus);
struct svm_features svm_features __read_mostly;
u64 svm_iopm_pa, svm_msrpm_pa, svm_msrpm_all_pa;

static struct page *svm_maps;

static bool use_nrip = true;
module_param_named(nrip, use_nrip, bool, 0444);
MODULE_PARM_DESC(nrip, "AMD-V: use the next instruction's address from the CPU where it gives it");

/* MSRs that VMLOAD and VMSAVE switch, or that the VMCB holds: the guest has them to itself. */
static const u32 svm_direct_msrs[] = {
	MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE,
	MSR_FS_BASE, MSR_GS_BASE, MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP,
};

/* Two bits an MSR, read and write; a 2 KiB piece for each of three ranges of indices. */
static void msrpm_allow(u8 *map, u32 index)
{
	u32 bit = (index & 0x1fff) * 2;
	u32 base = index < 0x2000 ? 0 : index < 0xc0010000 ? 0x800 : 0x1000;

	map[base + bit / 8] &= ~(3 << (bit % 8));
}

/* All ports are intercepted, and, where userspace filters the guest's MSRs, all of these by the same map. */
static int svm_maps_alloc(void)
{
	unsigned int i;
	u8 *map;

	svm_maps = alloc_pages(GFP_KERNEL, MAPS_ORDER);
	if (!svm_maps)
		return -ENOMEM;
	map = page_address(svm_maps);
	memset(map, 0xff, PAGE_SIZE << MAPS_ORDER);
	for (i = 0; i < ARRAY_SIZE(svm_direct_msrs); i++)
		msrpm_allow(map + MSRPM_OFFSET, svm_direct_msrs[i]);
	svm_iopm_pa = __pa(map);
	svm_msrpm_pa = __pa(map + MSRPM_OFFSET);
	svm_msrpm_all_pa = svm_iopm_pa;
	return 0;
}

static void svm_maps_free(void)
{
	__free_pages(svm_maps, MAPS_ORDER);
}

static void svm_cpus_free(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct svm_cpu *sc = per_cpu_ptr(&svm_cpus, cpu);

		free_page((unsigned long)sc->hsave);
		if (sc->host_pa)
			free_page((unsigned long)__va(sc->host_pa));
		memset(sc, 0, sizeof(*sc));
	}
}

static int svm_cpus_alloc(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct svm_cpu *sc = per_cpu_ptr(&svm_cpus, cpu);
		void *host = (void *)get_zeroed_page(GFP_KERNEL);

		sc->hsave = (void *)get_zeroed_page(GFP_KERNEL);
		if (host)
			sc->host_pa = __pa(host);
		if (!sc->hsave || !host) {
			svm_cpus_free();
			return -ENOMEM;
		}
	}
	return 0;
}

static int svm_check(void)
{
	u32 edx = 0;
	u64 vm_cr;

	if (!boot_cpu_has(X86_FEATURE_SVM) || boot_cpu_data.extended_cpuid_level < CPUID_SVM)
		return -ENODEV;
	edx = cpuid_edx(CPUID_SVM);
	if (!rdmsrl_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS)) {
		pr_err("AMD-V is switched off by the firmware: switch on SVM in its set-up\n");
		return -EPERM;
	}
	if (!(edx & SVM_EDX_NPT)) {
		pr_err("this CPU's AMD-V has no nested paging, which Moat needs\n");
		return -ENODEV;
	}
	svm_features.asid_max = cpuid_ebx(CPUID_SVM) - 1;
	svm_features.nrip = use_nrip && (edx & SVM_EDX_NRIP);
	svm_features.flush_by_asid = edx & SVM_EDX_FLUSH_BY_ASID;
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		rdmsrl_safe(MSR_IA32_XSS, &svm_features.host_xss);
	return 0;
}

static int svm_setup(void)
{
	int r = svm_check();

	if (r)
		return r;
	r = svm_maps_alloc();
	if (r)
		return r;
	r = svm_cpus_alloc();
	if (r)
		svm_maps_free();
	return r;
}

static void svm_teardown(void)
{
	svm_cpus_free();
	svm_maps_free();
}

static int svm_cpu_enable(void)
{
	struct svm_cpu *sc = this_cpu_ptr(&svm_cpus);
	u64 efer;

	rdmsrl(MSR_EFER, efer);
	if (!this_cpu_read(moat_cpus.owned) && (efer & EFER_SVME))
		return -EBUSY;
	inner_cpu_enable();
	wrmsrl(MSR_EFER, efer | EFER_SVME);
	wrmsrl(MSR_VM_HSAVE_PA, __pa(sc->hsave));
	/* Whatever was tagged before, in this CPU's TLB, is of no generation of ours. */
	sc->asid_generation++;
	sc->asid_next = svm_features.asid_max + 1;
	return 0;
}

static void svm_cpu_disable(void)
{
	u64 efer;

	if (!this_cpu_read(moat_cpus.owned))
		return;
	this_cpu_write(moat_cpus.owned, false);
	wrmsrl(MSR_VM_HSAVE_PA, 0);
	rdmsrl(MSR_EFER, efer);
	wrmsrl(MSR_EFER, efer & ~EFER_SVME);
}

static int svm_vcpu_create(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = kzalloc(sizeof(*svm), GFP_KERNEL_ACCOUNT);

	if (!svm)
		return -ENOMEM;
	svm->vmcb = (struct vmcb *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!svm->vmcb) {
		kfree(svm);
		return -ENOMEM;
	}
	svm->vmcb_pa = __pa(svm->vmcb);
	vcpu->hw = svm;
	return 0;
}

static void svm_vcpu_destroy(struct moat_vcpu *vcpu)
{
	struct svm_vcpu *svm = svm_of(vcpu);

	if (!svm)
		return;
	free_page((unsigned long)svm->vmcb);
	kfree(svm);
}

const struct moat_hw_ops svm_hw_ops = {
	.name = "AMD-V",
	.stage2 = &stage2_npt,
	.setup = svm_setup,
	.teardown = svm_teardown,
	.cpu_enable = svm_cpu_enable,
	.cpu_disable = svm_cpu_disable,
	.vcpu_create = svm_vcpu_create,
	.vcpu_destroy = svm_vcpu_destroy,
	.vcpu_reset = svm_vcpu_reset,
	.sregs_load = svm_sregs_load,
	.code_find = svm_code_find,
	.msr_read = svm_msr_read,
	.msr_write = svm_msr_write,
	.msr_list = svm_msr_list,
	.run = svm_run,
};
