// SPDX-License-Identifier: GPL-2.0-only
/*
 * Machine checks of the guest: the banks that userspace gives a vCPU, and the errors that it
 * reports in them. Intel SDM vol. 3, "Machine-Check Architecture".
 *
 * Nothing of the host's own banks shows here. What userspace injects is either corrected, and the
 * guest finds it when it next looks, or not, and the guest gets #MC, or, where it cannot take one,
 * a shutdown.
 */
#include <asm/mce.h>
#include <asm/msr-index.h>

#include "../hw.h"
#include "x86.h"

#define MCE_CAP_SUPPORTED	(MCG_CTL_P | MCG_SER_P)
#define MCG_CAP_BANKS		0xffULL
/* Besides the above, how many extended registers there are: for userspace to say. */
#define MCG_CAP_EXT		MCG_EXT_CNT_MASK

/* The registers of a bank, in the order of their indices. */
enum { BANK_CTL, BANK_STATUS, BANK_ADDR, BANK_MISC, BANK_REGS };

u64 *moat_mce_find(struct moat_vcpu *vcpu, u32 index)
{
	u32 n = index - MSR_IA32_MC0_CTL;
	u32 count = (vcpu->msrs.mcg_cap & MCG_CAP_BANKS) * BANK_REGS;

	return n < count ? &vcpu->mce[array_index_nospec(n, count)] : NULL;
}

/*
 * Control is all or nothing, as guests use it; some leave out bit 0 or bit 10 (errata). The guest
 * may only clear a status, unless HWCR says that it may write it.
 */
int moat_mce_write(struct moat_vcpu *vcpu, u32 index, u64 value, bool host)
{
	u32 kind = (index - MSR_IA32_MC0_CTL) % BANK_REGS;
	u64 *reg = moat_mce_find(vcpu, index);

	if (!reg || (kind == BANK_CTL && value && (value | BIT_ULL(10) | BIT_ULL(0)) != U64_MAX) ||
	    (kind == BANK_STATUS && value && !host && !(vcpu->msrs.hwcr & HWCR_MCSTATUS_WRITE)))
		return -EINVAL;
	*reg = value;
	return 0;
}

/* After power-on all banks report. */
void moat_mce_reset(struct moat_vcpu *vcpu)
{
	u32 i;

	memset(vcpu->mce, 0, sizeof(vcpu->mce));
	vcpu->msrs.mcg_ctl = vcpu->msrs.mcg_cap & MCG_CTL_P ? U64_MAX : 0;
	for (i = 0; i < (vcpu->msrs.mcg_cap & MCG_CAP_BANKS); i++)
		vcpu->mce[i * BANK_REGS + BANK_CTL] = U64_MAX;
}

long moat_system_get_mce_cap(void *object, void *arg, unsigned long uarg)
{
	*(u64 *)arg = MCE_CAP_SUPPORTED;
	return 0;
}

long moat_vcpu_setup_mce(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	u64 cap = *(const u64 *)arg, banks = cap & MCG_CAP_BANKS;

	if (!banks || banks > MOAT_MAX_MCE_BANKS ||
	    (cap & ~(MCE_CAP_SUPPORTED | MCG_CAP_BANKS | MCG_CAP_EXT)))
		return -EINVAL;
	vcpu->msrs.mcg_cap = cap;
	moat_mce_reset(vcpu);
	return 0;
}

static void bank_record(u64 *bank, const struct kvm_x86_mce *mce)
{
	bank[BANK_STATUS] = mce->status | (bank[BANK_STATUS] & MCI_STATUS_VAL ? MCI_STATUS_OVER : 0);
	bank[BANK_ADDR] = mce->addr;
	bank[BANK_MISC] = mce->misc;
}

static void uncorrected_report(struct moat_vcpu *vcpu, u64 *bank, const struct kvm_x86_mce *mce)
{
	if ((vcpu->msrs.mcg_status & MCG_STATUS_MCIP) || !(moat_sregs(vcpu)->cr4 & X86_CR4_MCE)) {
		moat_request(vcpu, MOAT_REQ_TRIPLE_FAULT);
		return;
	}
	bank_record(bank, mce);
	vcpu->msrs.mcg_status = mce->mcg_status;
	moat_inject_exception(vcpu, X86_TRAP_MC, false, 0);
}

/* An error that is not corrected stays in its bank; a corrected one gives way. */
long moat_vcpu_set_mce(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_x86_mce *mce = arg;
	u32 banks = vcpu->msrs.mcg_cap & MCG_CAP_BANKS;
	bool uncorrected = mce->status & MCI_STATUS_UC;
	u64 *bank;

	if (mce->bank >= banks || !(mce->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = &vcpu->mce[array_index_nospec(mce->bank, banks) * BANK_REGS];
	if (uncorrected && (((vcpu->msrs.mcg_cap & MCG_CTL_P) && vcpu->msrs.mcg_ctl != U64_MAX) ||
			    bank[BANK_CTL] != U64_MAX))
		return 0;	/* the guest has switched it off */
	if (uncorrected)
		uncorrected_report(vcpu, bank, mce);
	else if ((bank[BANK_STATUS] & (MCI_STATUS_VAL | MCI_STATUS_UC)) !=
		 (MCI_STATUS_VAL | MCI_STATUS_UC))
		bank_record(bank, mce);
	else
		bank[BANK_STATUS] |= MCI_STATUS_OVER;
	return 0;
}
