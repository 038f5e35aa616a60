// SPDX-License-Identifier: GPL-2.0-only
/*
 * Debugging of a guest from outside: KVM_SET_GUEST_DEBUG.
 *
 * While userspace single-steps, the trap flag is on round each run of the guest and is not part of
 * the guest's RFLAGS as anybody sees them. While it has hardware breakpoints, the debug registers
 * hold its addresses; the guest's own are kept aside, and its accesses to them go there.
 */
#include <linux/percpu.h>
#include <asm/debugreg.h>

#include "../hw.h"
#include "emulate.h"
#include "x86.h"

#define DR_HIGH		(~(u64)U32_MAX)		/* reserved in DR6 and DR7 */
#define DR6_BITS	0xe00f			/* that can be written */
#define DR7_BITS	0xffff2bff

void moat_debug_exit(struct moat_vcpu *vcpu, u8 vector, u64 dr6)
{
	vcpu->debug.vector = vector;
	vcpu->debug.dr6 = dr6;
	moat_request(vcpu, MOAT_REQ_DEBUG);
}

int moat_debug_to_user(struct moat_vcpu *vcpu)
{
	struct kvm_sregs *s = moat_sregs(vcpu);
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_DEBUG;
	run->debug.arch = (struct kvm_debug_exit_arch) {
		.exception = vcpu->debug.vector,
		.pc = emu_code_address(s, vcpu->rip, emu_mode(s, vcpu->rflags)),
		.dr6 = vcpu->debug.dr6,
		.dr7 = moat_debug_dr7(vcpu),
	};
	return 0;
}

void moat_debug_step(struct moat_vcpu *vcpu)
{
	if (vcpu->debug.control & KVM_GUESTDBG_SINGLESTEP) {
		moat_debug_exit(vcpu, X86_TRAP_DB, DR6_RESET | DR_STEP);
		return;
	}
	vcpu->dr6 |= DR_STEP;
	moat_inject_exception(vcpu, X86_TRAP_DB, false, 0);
}

/* Where the guest's own register is; NULL for #UD. 4 and 5 are old names of 6 and 7. */
static u64 *dr_find(struct moat_vcpu *vcpu, unsigned int dr)
{
	if (dr < 4)
		return &vcpu->dr[dr];
	if (dr < 6 && (moat_sregs(vcpu)->cr4 & X86_CR4_DE))
		return NULL;
	return dr & 1 ? &vcpu->dr7 : &vcpu->dr6;
}

bool moat_dr_access(struct moat_vcpu *vcpu, unsigned int dr, unsigned int gpr, bool write)
{
	u64 *reg = dr_find(vcpu, dr);

	if (!reg) {
		moat_inject_ud(vcpu);
		return false;
	}
	if (!write) {
		vcpu->gpr[gpr] = *reg;
		return true;
	}
	if (dr >= 4 && (vcpu->gpr[gpr] & DR_HIGH)) {
		moat_inject_gp(vcpu);
		return false;
	}
	*reg = vcpu->gpr[gpr];
	if (dr >= 4)
		*reg = dr & 1 ? (*reg & DR7_BITS) | DR7_RESET : (*reg & DR6_BITS) | DR6_RESET;
	return true;
}

long moat_vcpu_set_guest_debug(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_guest_debug *debug = arg;
	u32 control = debug->control;

	if ((control & ~MOAT_GUEST_DEBUG) || (debug->arch.debugreg[7] & DR_HIGH))
		return -EINVAL;
	if (control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (vcpu->events.exception.pending)
			return -EBUSY;
		moat_inject_exception(vcpu, control & KVM_GUESTDBG_INJECT_DB ? X86_TRAP_DB :
				      X86_TRAP_BP, false, 0);
	}
	vcpu->debug.control = control & KVM_GUESTDBG_ENABLE ? control : 0;
	memcpy(vcpu->debug.dr, debug->arch.debugreg, sizeof(vcpu->debug.dr));
	vcpu->debug.dr7 = debug->arch.debugreg[7];
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}
