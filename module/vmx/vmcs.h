/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual machine control structure: its fields' numbers are the kernel's (asm/vmx.h), as are
 * those of exit reasons; here is how they are read and written. Intel SDM vol. 3, "Virtual Machine
 * Control Structures", appendix "Field Encoding in VMCS".
 *
 * A VMCS can be accessed only where it is current, on this CPU. A field that this CPU does not have
 * would only set flags: nothing reads or writes one without its feature.
 */
#ifndef MOAT_VMX_VMCS_H
#define MOAT_VMX_VMCS_H

#include <linux/types.h>
#include <asm/vmx.h>

struct vmcs {
	u32 revision;
	u32 abort;
	u8 data[4096 - 8];
};

static __always_inline u64 vmcs_read(unsigned long field)
{
	u64 value;

	asm volatile("vmread %1, %0" : "=rm" (value) : "r" (field) : "cc");
	return value;
}

static __always_inline void vmcs_write(unsigned long field, u64 value)
{
	asm volatile("vmwrite %1, %0" : : "r" (field), "rm" (value) : "cc", "memory");
}

/* The instructions that take an address: false where they fail. */
#define VMX_INSN(name, operand)								\
({											\
	bool _ok;									\
											\
	asm volatile(name " %1" : "=@cca" (_ok) : "m" (operand) : "memory");		\
	_ok;										\
})

static inline bool vmxon(u64 pa)
{
	return VMX_INSN("vmxon", pa);
}

static inline void vmxoff(void)
{
	asm volatile("vmxoff" : : : "cc", "memory");
}

static inline bool vmclear(u64 pa)
{
	return VMX_INSN("vmclear", pa);
}

static inline bool vmptrld(u64 pa)
{
	return VMX_INSN("vmptrld", pa);
}

static inline void invept(unsigned long extent, u64 eptp)
{
	const struct { u64 eptp, zero; } operand = { eptp, 0 };

	asm volatile("invept %0, %1" : : "m" (operand), "r" (extent) : "cc", "memory");
}

static inline void invvpid_all(void)
{
	const struct { u64 vpid, linear; } operand = { 0, 0 };

	asm volatile("invvpid %0, %1" : : "m" (operand), "r" (2UL) : "cc", "memory");
}


#define VMX_PENDING_BS		BIT(14)	/* GUEST_PENDING_DBG_EXCEPTIONS: a step has ended */

/* Exit qualifications. */
#define VMX_CR_NUMBER(q)	((q) & 15)
#define VMX_CR_TYPE(q)		((q) >> 4 & 3)
#define VMX_CR_GPR(q)		((q) >> 8 & 15)
#define VMX_CR_TO		0
#define VMX_CR_FROM		1
#define VMX_DR_NUMBER(q)	((q) & 7)
#define VMX_DR_FROM		BIT(4)
#define VMX_DR_GPR(q)		((q) >> 8 & 15)
#define VMX_IO_SIZE(q)		(((q) & 7) + 1)
#define VMX_IO_IN		BIT(3)
#define VMX_IO_STRING		BIT(4)
#define VMX_IO_PORT(q)		((q) >> 16 & 0xffff)
#define VMX_EPT_WRITE		BIT(1)
#define VMX_EPT_FETCH		BIT(2)
#define VMX_EPT_LINEAR		BIT(7)
#define VMX_EPT_FINAL		BIT(8)	/* with the former: in the final address, not in a walk */
#define VMX_EPT_UNBLOCKED_NMI	BIT(12)

#endif
