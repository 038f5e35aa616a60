// SPDX-License-Identifier: GPL-2.0-only
/*
 * VT-x: what is set up once, for each CPU, and for each vCPU. Intel SDM vol. 3, "Introduction to
 * Virtual Machine Extensions" and the appendix "VMX Capability Reporting Facility".
 */
#include <linux/cpufeature.h>
#include <linux/gfp.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/io.h>
#include <asm/debugreg.h>

#include "vmx.h"

#define VPID_MAX	0xffff
#define BASIC_TRUE_CTLS	BIT_ULL(55)

DEFINE_PER_CPU(struct vmx_cpu, vmx_cpus);
struct vmx_features vmx_features __read_mostly;
u64 vmx_msr_bitmap_pa, vmx_msr_bitmap_x2apic_pa, vmx_msr_bitmap_all_pa;

#define BITMAPS_ORDER	2
static struct page *vmx_bitmaps;

static bool use_vpid = true;
module_param_named(vpid, use_vpid, bool, 0444);
MODULE_PARM_DESC(vpid, "VT-x: keep translations over exits where the CPU can tell whose they are");

static bool use_tpr_shadow = true;
module_param_named(tpr_shadow, use_tpr_shadow, bool, 0444);
MODULE_PARM_DESC(tpr_shadow, "VT-x: let the guest access its task priority without exits");

unsigned int vmx_ple_window;
module_param_named(ple_window, vmx_ple_window, uint, 0444);
MODULE_PARM_DESC(ple_window, "VT-x: a guest that spins by PAUSE for so many TSC cycles makes room for others, as 4096 (0: never)");

static unsigned int run_us;
module_param_named(run_us, run_us, uint, 0444);
MODULE_PARM_DESC(run_us, "VT-x: end each run of a guest after so many microseconds (0, never): for emulated CPUs that let no host interrupt end it while the guest has its own off");

/* MSRs that entry and exit switch, or that are switched for the whole run. */
static const u32 vmx_direct_msrs[] = { MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE };

/* A bit an MSR: reads of low and of high indices, then writes; 1 KiB each. */
static void msr_bitmap_allow(u8 *map, u32 index)
{
	u32 bit = index & 0x1fff, base = index < 0x2000 ? 0 : 0x400;

	map[base + bit / 8] &= ~(1 << (bit % 8));
	map[base + 0x800 + bit / 8] &= ~(1 << (bit % 8));
}

/* The second is for vCPUs in x2APIC mode, the third for VMs whose MSRs userspace filters. */
static int vmx_bitmaps_alloc(void)
{
	unsigned int i;
	u8 *map;

	vmx_bitmaps = alloc_pages(GFP_KERNEL, BITMAPS_ORDER);
	if (!vmx_bitmaps)
		return -ENOMEM;
	map = page_address(vmx_bitmaps);
	memset(map, 0xff, 3 * PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(vmx_direct_msrs); i++)
		msr_bitmap_allow(map, vmx_direct_msrs[i]);
	memcpy(map + PAGE_SIZE, map, PAGE_SIZE);
	msr_bitmap_allow(map + PAGE_SIZE, APIC_BASE_MSR + (APIC_TASKPRI >> 4));
	vmx_msr_bitmap_pa = __pa(map);
	vmx_msr_bitmap_x2apic_pa = vmx_msr_bitmap_pa + PAGE_SIZE;
	vmx_msr_bitmap_all_pa = vmx_msr_bitmap_pa + 2 * PAGE_SIZE;
	return 0;
}

static struct vmcs *vmcs_alloc(gfp_t gfp)
{
	struct vmcs *vmcs = (struct vmcs *)get_zeroed_page(gfp);

	if (vmcs)
		vmcs->revision = vmx_features.revision;
	return vmcs;
}

static void vmx_cpus_free(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct vmx_cpu *vc = per_cpu_ptr(&vmx_cpus, cpu);

		free_page((unsigned long)vc->vmxon);
		memset(vc, 0, sizeof(*vc));
	}
}

static int vmx_cpus_alloc(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct vmx_cpu *vc = per_cpu_ptr(&vmx_cpus, cpu);

		vc->vmxon = vmcs_alloc(GFP_KERNEL);
		if (!vc->vmxon) {
			vmx_cpus_free();
			return -ENOMEM;
		}
	}
	return 0;
}

/* What the CPU offers */

/*
 * Of a word of controls: those that must be on, those that Moat needs, and those that it makes use
 * of. A capability MSR has the bits that must be 1 in its low half, those that may be in its high.
 */
static int controls_choose(u32 msr, u32 needed, u32 useful, const char *what, u32 *ret)
{
	u64 cap = 0;
	u32 missing;

	rdmsrl_safe(msr, &cap);
	missing = needed & ~(u32)(cap >> 32);
	if (missing) {
		pr_err("this CPU's VT-x lacks %s controls that Moat needs: %#x\n", what, missing);
		return -EOPNOTSUPP;
	}
	*ret = ((needed | useful) & (u32)(cap >> 32)) | (u32)cap;
	return 0;
}

#define PIN_NEEDED	(PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS)
#define PRIMARY_NEEDED	(CPU_BASED_HLT_EXITING | CPU_BASED_MWAIT_EXITING |		\
			 CPU_BASED_RDPMC_EXITING | CPU_BASED_USE_TSC_OFFSETTING |	\
			 CPU_BASED_MOV_DR_EXITING | CPU_BASED_UNCOND_IO_EXITING |	\
			 CPU_BASED_USE_MSR_BITMAPS | CPU_BASED_MONITOR_EXITING |	\
			 CPU_BASED_ACTIVATE_SECONDARY_CONTROLS)
#define SECONDARY_NEEDED (SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST)
#define SECONDARY_USEFUL (SECONDARY_EXEC_WBINVD_EXITING | SECONDARY_EXEC_ENABLE_RDTSCP |	\
			 SECONDARY_EXEC_ENABLE_INVPCID | SECONDARY_EXEC_ENCLS_EXITING)
#define EXIT_NEEDED	(VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_SAVE_DEBUG_CONTROLS |	\
			 VM_EXIT_LOAD_IA32_PAT | VM_EXIT_SAVE_IA32_EFER | VM_EXIT_LOAD_IA32_EFER)
#define ENTRY_NEEDED	(VM_ENTRY_LOAD_DEBUG_CONTROLS | VM_ENTRY_LOAD_IA32_PAT |		\
			 VM_ENTRY_LOAD_IA32_EFER)

static int vmx_controls_choose(void)
{
	struct vmx_features *f = &vmx_features;
	u32 useful = SECONDARY_USEFUL | (use_vpid ? SECONDARY_EXEC_ENABLE_VPID : 0) |
		     (use_tpr_shadow ? SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE : 0) |
		     (vmx_ple_window ? SECONDARY_EXEC_PAUSE_LOOP_EXITING : 0);
	u64 basic;
	int r;

	rdmsrl(MSR_IA32_VMX_BASIC, basic);
	f->revision = vmx_basic_vmcs_revision_id(basic);
	/* By these, accesses to CR3 need not exit. */
	if (!(basic & BASIC_TRUE_CTLS)) {
		pr_err("this CPU's VT-x is too old for Moat (no TRUE capability MSRs)\n");
		return -EOPNOTSUPP;
	}
	r = controls_choose(MSR_IA32_VMX_TRUE_PINBASED_CTLS, PIN_NEEDED, 0, "pin-based", &f->pin);
	if (!r)
		r = controls_choose(MSR_IA32_VMX_TRUE_PROCBASED_CTLS, PRIMARY_NEEDED,
				    use_tpr_shadow ? CPU_BASED_TPR_SHADOW : 0, "processor-based",
				    &f->primary);
	if (!r)
		r = controls_choose(MSR_IA32_VMX_PROCBASED_CTLS2, SECONDARY_NEEDED, useful,
				    "secondary (EPT, unrestricted guest)", &f->secondary);
	if (!r)
		r = controls_choose(MSR_IA32_VMX_TRUE_EXIT_CTLS, EXIT_NEEDED, 0, "exit", &f->exit);
	if (!r)
		r = controls_choose(MSR_IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_NEEDED, 0, "entry", &f->entry);
	if (!(f->primary & CPU_BASED_TPR_SHADOW))
		f->primary |= CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING;
	else
		f->x2apic = f->secondary & SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE;
	f->secondary &= ~SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE;
	return r;
}

/* The VMX preemption timer counts the TSC, divided by a power of two; an exit only stops it. */
static void vmx_timer_choose(void)
{
	struct vmx_features *f = &vmx_features;
	u64 misc, pin, exit;

	rdmsrl(MSR_IA32_VMX_MISC, misc);
	rdmsrl(MSR_IA32_VMX_TRUE_PINBASED_CTLS, pin);
	rdmsrl(MSR_IA32_VMX_TRUE_EXIT_CTLS, exit);
	if (!run_us || !(pin >> 32 & PIN_BASED_VMX_PREEMPTION_TIMER) ||
	    !(exit >> 32 & VM_EXIT_SAVE_VMX_PREEMPTION_TIMER))
		return;
	f->pin |= PIN_BASED_VMX_PREEMPTION_TIMER;
	f->exit |= VM_EXIT_SAVE_VMX_PREEMPTION_TIMER;
	f->timer = max_t(u64, mul_u64_u32_div(run_us, tsc_khz, 1000) >>
			      (misc & 31), 1);
}

/* EPT's format and reach: write-back tables of as many levels as the host's own. */
static int vmx_ept_choose(void)
{
	struct vmx_features *f = &vmx_features;
	bool five = cpu_feature_enabled(X86_FEATURE_LA57);
	u64 cap, need = VMX_EPTP_WB_BIT | VMX_EPT_INVEPT_BIT | VMX_EPT_2MB_PAGE_BIT |
			(five ? VMX_EPT_PAGE_WALK_5_BIT : VMX_EPT_PAGE_WALK_4_BIT) |
			(boot_cpu_has(X86_FEATURE_GBPAGES) ? VMX_EPT_1GB_PAGE_BIT : 0);

	rdmsrl(MSR_IA32_VMX_EPT_VPID_CAP, cap);
	if ((cap & need) != need || !(cap & (VMX_EPT_EXTENT_CONTEXT_BIT | VMX_EPT_EXTENT_GLOBAL_BIT))) {
		pr_err("this CPU's EPT lacks what Moat needs (capabilities %#llx)\n", cap);
		return -EOPNOTSUPP;
	}
	f->eptp_flags = VMX_EPTP_MT_WB | (five ? VMX_EPTP_PWL_5 : VMX_EPTP_PWL_4) |
			(cap & VMX_EPT_AD_BIT ? VMX_EPTP_AD_ENABLE_BIT : 0);
	f->invept_extent = cap & VMX_EPT_EXTENT_CONTEXT_BIT ? VMX_EPT_EXTENT_CONTEXT :
							      VMX_EPT_EXTENT_GLOBAL;
	f->vpid = (f->secondary & SECONDARY_EXEC_ENABLE_VPID) && (cap & VMX_VPID_INVVPID_BIT << 32) &&
		  (cap & VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT << 32);
	if (!f->vpid)
		f->secondary &= ~SECONDARY_EXEC_ENABLE_VPID;
	return 0;
}

static bool vmx_is_switched_on(void)
{
	const u64 on = FEAT_CTL_LOCKED | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
	u64 control = 0;

	return !rdmsrl_safe(MSR_IA32_FEAT_CTL, &control) && (control & on) == on;
}

static int vmx_check(void)
{
	int r;

	/* The kernel takes the flag away where the firmware has switched it off. */
	if (boot_cpu_data.x86_vendor != X86_VENDOR_INTEL && !boot_cpu_has(X86_FEATURE_VMX))
		return -ENODEV;
	if (!(cpuid_ecx(1) & BIT(X86_FEATURE_VMX & 31)))
		return -ENODEV;
	if (!vmx_is_switched_on()) {
		pr_err("VT-x is switched off by the firmware: switch it on in its set-up\n");
		return -EPERM;
	}
	r = vmx_controls_choose();
	if (!r)
		r = vmx_ept_choose();
	if (r)
		return r;
	vmx_timer_choose();
	if (!(vmx_features.secondary & SECONDARY_EXEC_PAUSE_LOOP_EXITING))
		vmx_ple_window = 0;	/* as can be read then */
	rdmsrl(MSR_EFER, vmx_features.host_efer);
	rdmsrl(MSR_IA32_CR_PAT, vmx_features.host_pat);
	vmx_features.l1d_flush = boot_cpu_has_bug(X86_BUG_L1TF) && boot_cpu_has(X86_FEATURE_FLUSH_L1D);
	return 0;
}

static int vmx_setup(void)
{
	int r = vmx_check();

	if (r)
		return r;
	r = vmx_bitmaps_alloc();
	if (r)
		return r;
	r = vmx_cpus_alloc();
	if (r)
		__free_pages(vmx_bitmaps, BITMAPS_ORDER);
	return r;
}

static void vmx_teardown(void)
{
	vmx_cpus_free();
	__free_pages(vmx_bitmaps, BITMAPS_ORDER);
}

/* VMX operation */

/* Not the kernel's function, which keeps a copy of CR4: it must not come to know of VMXE. */
static void cr4_write(unsigned long cr4)
{
	asm volatile("mov %0, %%cr4" : : "r" (cr4) : "memory");
}

bool vmx_operation_enter(struct vmx_vcpu *vmx)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);

	vc->cr4 = native_read_cr4();
	if (unlikely(vc->cr4 & X86_CR4_VMXE))
		return false;
	cr4_write(vc->cr4 | X86_CR4_VMXE);
	if (unlikely(!vmxon(__pa(vc->vmxon)))) {
		cr4_write(vc->cr4);
		return false;
	}
	if (unlikely(!vmx->ready))
		vmclear(vmx->vmcs_pa);
	vmptrld(vmx->vmcs_pa);
	vmx->current_here = true;
	return true;
}

void vmx_operation_leave(struct vmx_vcpu *vmx)
{
	vmx->current_here = false;
	vmx->launched = false;
	vmclear(vmx->vmcs_pa);
	vmxoff();
	cr4_write(this_cpu_read(vmx_cpus.cr4));
}

/* By a descriptor of 16 bytes in the GDT. */
static u64 host_tr_base(const struct desc_ptr *gdt)
{
	const struct ldttss_desc *tss = (void *)gdt->address + GDT_ENTRY_TSS * 8;

	return tss->base0 | tss->base1 << 16 | (u32)tss->base2 << 24 | (u64)tss->base3 << 32;
}

static int vmx_cpu_enable(void)
{
	struct vmx_cpu *vc = this_cpu_ptr(&vmx_cpus);
	struct desc_ptr gdt;

	if (!this_cpu_read(moat_cpus.owned) && (native_read_cr4() & X86_CR4_VMXE))
		return -EBUSY;
	if (!vmx_is_switched_on())
		return -EPERM;
	native_store_gdt(&gdt);
	vc->tr_base = host_tr_base(&gdt);
	rdmsrl(MSR_GS_BASE, vc->gs_base);
	rdmsrl(MSR_IA32_SYSENTER_CS, vc->sysenter_cs);
	rdmsrl(MSR_IA32_SYSENTER_ESP, vc->sysenter_esp);
	rdmsrl(MSR_IA32_SYSENTER_EIP, vc->sysenter_eip);
	rdmsrl(MSR_STAR, vc->star);
	rdmsrl(MSR_LSTAR, vc->lstar);
	rdmsrl(MSR_SYSCALL_MASK, vc->syscall_mask);
	inner_cpu_enable();
	/* Whatever was tagged before, in this CPU's TLB, is of no generation of ours. */
	vc->vpid_generation++;
	vc->vpid_next = VPID_MAX + 1;
	return 0;
}

static void vmx_cpu_disable(void)
{
	this_cpu_write(moat_cpus.owned, false);
}

/* vCPUs */

static void vmx_vcpu_free(struct vmx_vcpu *vmx)
{
	free_page((unsigned long)vmx->vmcs);
	kfree(vmx);
}

static int vmx_vcpu_create(struct moat_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = kzalloc(sizeof(*vmx), GFP_KERNEL_ACCOUNT);

	if (!vmx)
		return -ENOMEM;
	vmx->vmcs = vmcs_alloc(GFP_KERNEL_ACCOUNT);
	if (!vmx->vmcs) {
		vmx_vcpu_free(vmx);
		return -ENOMEM;
	}
	vmx->vmcs_pa = __pa(vmx->vmcs);
	vcpu->hw = vmx;
	return 0;
}

static void vmx_vcpu_destroy(struct moat_vcpu *vcpu)
{
	if (vmx_of(vcpu))
		vmx_vcpu_free(vmx_of(vcpu));
}

const struct moat_hw_ops vmx_hw_ops = {
	.name = "VT-x",
	.stage2 = &stage2_ept,
	.setup = vmx_setup,
	.teardown = vmx_teardown,
	.cpu_enable = vmx_cpu_enable,
	.cpu_disable = vmx_cpu_disable,
	.vcpu_create = vmx_vcpu_create,
	.vcpu_destroy = vmx_vcpu_destroy,
	.vcpu_reset = vmx_vcpu_reset,
	.sregs_load = vmx_sregs_load,
	.code_find = vmx_code_find,
	.msr_read = vmx_msr_read,
	.msr_write = vmx_msr_write,
	.msr_list = vmx_msr_list,
	.run = vmx_run,
};
