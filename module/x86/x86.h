/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The architecture's part of a vCPU: CPUID, MSRs, FPU, registers, clock.
 */
#ifndef MOAT_X86_H
#define MOAT_X86_H

#include <asm/fpu/xcr.h>
#include <asm/processor-flags.h>
#include <asm/processor.h>
#include <asm/traps.h>
#include <asm/tsc.h>

#include "../moat.h"

#define DR6_RESET	0xffff0ff0ULL
#define DR6_BD		BIT_ULL(13)	/* a register was accessed that DR7.GD guards */
#define DR7_RESET	0x400ULL
#define DR7_GD		BIT_ULL(13)
#define HWCR_MCSTATUS_WRITE	BIT_ULL(18)

/* x86/cpuid.c */
#define LEAF_EXTENDED	0x80000000
/* A feature's bit in its register. */
#define F(name)		BIT(X86_FEATURE_##name & 31)

void moat_cpuid_init(void);
/* The guest executes CPUID: its registers, with the bits that follow its state. */
void moat_cpuid_execute(struct moat_vcpu *vcpu);
const struct kvm_cpuid_entry2 *moat_cpuid_find(struct moat_vcpu *vcpu, u32 function, u32 index);
/* A register of a leaf (sub-leaf 0): what guests may have, what this one was told, and both. */
u32 moat_cpuid_supported(u32 function, enum cpuid_regs_idx reg);
u32 moat_cpuid_told(struct moat_vcpu *vcpu, u32 function, enum cpuid_regs_idx reg);
u32 moat_cpuid_bits(struct moat_vcpu *vcpu, u32 function, enum cpuid_regs_idx reg);
bool moat_cpuid_has_mwait(struct moat_vcpu *vcpu);
/* Bits of EFER and of SPEC_CTRL that any guest may have. */
u64 moat_efer_supported(void);
u64 moat_spec_ctrl_supported(void);
/* Works out what follows from the guest's CPUID: cr4_reserved and its like. */
void moat_cpuid_derive(struct moat_vcpu *vcpu);
moat_ioctl_fn moat_system_get_supported_cpuid, moat_vcpu_set_cpuid2, moat_vcpu_get_cpuid2;

/* x86/msr.c */
/*
 * RDMSR and WRMSR by the guest (host false) or by KVM_GET/SET_MSRS (host true). 0, or an error by
 * which the guest gets #GP, unless userspace serves it, and KVM_SET_MSRS stops: -ENOENT there is no
 * such MSR, -EINVAL no such value (or it is hidden from the guest), -EPERM userspace has filtered
 * it out. Never sleeps.
 */
int moat_msr_read(struct moat_vcpu *vcpu, u32 index, u64 *value, bool host);
int moat_msr_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host);
moat_ioctl_fn moat_system_get_msr_index_list, moat_system_get_msr_feature_list,
	moat_system_get_msrs, moat_vcpu_get_msrs, moat_vcpu_set_msrs;
void moat_msr_reset(struct moat_vcpu *vcpu, bool init);

/* x86/filter.c */
/* access is KVM_MSR_FILTER_READ or _WRITE. Any context. */
bool moat_msr_filter_allows(struct moat_vm *vm, u32 index, u32 access);
void moat_msr_filter_free(struct kvm_msr_filter *filter);
/*
 * A RDMSR or WRMSR that failed with error: true where userspace wants to serve it, run is filled
 * in; else it is #GP.
 */
bool moat_msr_to_user(struct moat_vcpu *vcpu, bool write, u64 value, int error, u64 next_rip);
moat_ioctl_fn moat_vm_set_msr_filter;

/* x86/mce.c: MSR_IA32_MC0_CTL and on: where it is, or NULL; 0 or -EINVAL. */
u64 *moat_mce_find(struct moat_vcpu *vcpu, u32 index);
int moat_mce_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host);
void moat_mce_reset(struct moat_vcpu *vcpu);
moat_ioctl_fn moat_system_get_mce_cap, moat_vcpu_setup_mce, moat_vcpu_set_mce;

/* x86/debug.c */
/* Userspace gets KVM_EXIT_DEBUG before the guest goes on. */
void moat_debug_exit(struct moat_vcpu *vcpu, u8 vector, u64 dr6);
/* Serves MOAT_REQ_DEBUG: 0. */
int moat_debug_to_user(struct moat_vcpu *vcpu);
/* An instruction has ended that was stepped over: userspace's step, or the guest's own. */
void moat_debug_step(struct moat_vcpu *vcpu);
/* MOV to (write) or from the guest's own DRn: false where it raised an exception. */
bool moat_dr_access(struct moat_vcpu *vcpu, unsigned int dr, unsigned int gpr, bool write);
moat_ioctl_fn moat_vcpu_set_guest_debug;

/* DR7, as it is in force. */
static inline u64 moat_debug_dr7(const struct moat_vcpu *vcpu)
{
	return vcpu->debug.control & KVM_GUESTDBG_USE_HW_BP ? vcpu->debug.dr7 : vcpu->dr7;
}

/* The trap flag is on, though not in the guest's RFLAGS. */
static inline u64 moat_debug_tf(const struct moat_vcpu *vcpu)
{
	return vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP ? X86_EFLAGS_TF : 0;
}

/* x86/fpu.c */
int moat_fpu_init(void);
void moat_fpu_exit(void);
int moat_fpu_create(struct moat_vcpu *vcpu);
void moat_fpu_destroy(struct moat_vcpu *vcpu);
void moat_fpu_reset(struct moat_vcpu *vcpu, bool init);
/* Extended features that a guest may have: the host's XCR0 less what Moat does not switch. */
u64 moat_fpu_features(void);
/* Size of an area with these features, in the standard and in the compact format. */
u32 moat_fpu_area_size(u64 xcr0);
u32 moat_fpu_compact_size(u64 xcr0);
/* Guest FPU in, host FPU out, preemption off; and back. Twins. */
void moat_fpu_enter(struct moat_vcpu *vcpu);
void moat_fpu_leave(struct moat_vcpu *vcpu);
/* XCR0 itself, right round the entry, interrupts off. Twins. */
extern u64 moat_host_xcr0;
static inline void moat_xcr0_enter(const struct moat_vcpu *vcpu)
{
	if (vcpu->osxsave && vcpu->xcr0 != moat_host_xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, vcpu->xcr0);
}

static inline void moat_xcr0_leave(const struct moat_vcpu *vcpu)
{
	if (vcpu->osxsave && vcpu->xcr0 != moat_host_xcr0)
		xsetbv(XCR_XFEATURE_ENABLED_MASK, moat_host_xcr0);
}

/* XSETBV by the guest: 0, or -EINVAL for #GP. */
int moat_xcr_write(struct moat_vcpu *vcpu, u32 index, u64 value);
moat_ioctl_fn moat_vcpu_get_fpu, moat_vcpu_set_fpu, moat_vcpu_get_xsave, moat_vcpu_set_xsave,
	moat_vcpu_get_xcrs, moat_vcpu_set_xcrs;

/* INT3 and INTO: their instruction is executed again. */
static inline bool moat_exception_is_soft(u8 vector)
{
	return vector == X86_TRAP_BP || vector == X86_TRAP_OF;
}

/* x86/regs.c */
void moat_regs_reset(struct moat_vcpu *vcpu, bool init);
/* MOV of CRn by the guest (0, 2, 3, 4, 8), to it after the checks of the manuals: 0 or -EINVAL. */
u64 moat_cr_read(struct moat_vcpu *vcpu, unsigned int cr);
int moat_cr_write(struct moat_vcpu *vcpu, unsigned int cr, u64 value);
int moat_efer_write(struct moat_vcpu *vcpu, u64 value, bool host);
moat_ioctl_fn moat_vcpu_get_regs, moat_vcpu_set_regs, moat_vcpu_get_sregs, moat_vcpu_set_sregs,
	moat_vcpu_get_debugregs, moat_vcpu_set_debugregs, moat_vcpu_get_events,
	moat_vcpu_get_sregs2, moat_vcpu_set_sregs2, moat_vcpu_set_events,
	moat_vcpu_get_mp_state, moat_vcpu_set_mp_state;

/* x86/task.c: serves MOAT_EXIT_TASK: 1 go on, 0 exit to userspace, negative error. */
int moat_task_switch(struct moat_vcpu *vcpu);

/* x86/clock.c */
void moat_clock_create(struct moat_vm *vm);
/* Writes what a version goes with, which is odd meanwhile. */
void moat_versioned_write(struct moat_vcpu *vcpu, u64 version_gpa, u64 gpa, const void *data,
			  size_t len);
u64 moat_guest_tsc(struct moat_vcpu *vcpu);
/*
 * Sets the guest's TSC as of now. The guest gets exactly what it writes, and TSC_ADJUST follows;
 * vCPUs of one VM that the host sets to nearly the same value agree exactly.
 */
void moat_tsc_write(struct moat_vcpu *vcpu, u64 value, bool host);
/* Another offset to the host's TSC, as of the next entry. */
void moat_tsc_offset_set(struct moat_vcpu *vcpu, u64 offset);
/* In step with the VM's other vCPUs, as after power-on. */
void moat_tsc_reset(struct moat_vcpu *vcpu);
/*
 * MSR_KVM_SYSTEM_TIME(_NEW) and MSR_KVM_WALL_CLOCK(_NEW) as the guest writes them; the pages are
 * written later, where it may sleep, by MOAT_REQ_CLOCK.
 */
void moat_clock_set_system_time(struct moat_vcpu *vcpu, u64 value);
void moat_clock_set_wall_clock(struct moat_vcpu *vcpu, u64 value);
/* Serves MOAT_REQ_CLOCK. */
void moat_clock_update(struct moat_vcpu *vcpu);
/* The vCPU comes to another CPU, whose TSC may differ. */
static inline void moat_clock_moved(struct moat_vcpu *vcpu)
{
	if (vcpu->pv_time_on && (!READ_ONCE(vcpu->vm->clock.stable) || check_tsc_unstable()))
		moat_request(vcpu, MOAT_REQ_CLOCK);
}

/* x86/paravirt.c */
/* Whether a guest whose CPUID is enforced was told of all these features (BIT(KVM_FEATURE_*)). */
bool moat_pv_allows(struct moat_vcpu *vcpu, u32 features);
/* VMMCALL or VMCALL, by KVM's convention. */
void moat_hypercall(struct moat_vcpu *vcpu, u8 cpl, bool long_mode);
int moat_steal_time_write(struct moat_vcpu *vcpu, u64 value);
/* The vCPU's thread is about to be preempted, between two instructions of the guest. */
void moat_steal_away(struct moat_vcpu *vcpu);
/* Serves MOAT_REQ_STEAL, which is also due when the thread has waited. */
void moat_steal_update(struct moat_vcpu *vcpu);

moat_ioctl_fn moat_vm_get_clock, moat_vm_set_clock, moat_vcpu_set_tsc_khz,
	moat_vcpu_has_device_attr, moat_vcpu_get_device_attr, moat_vcpu_set_device_attr,
	moat_vcpu_kvmclock_ctrl, moat_vcpu_get_tsc_khz;

#endif
