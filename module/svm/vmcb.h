/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual machine control block, as AMD APM vol. 2, appendix "Layout of VMCB", gives it.
 */
#ifndef MOAT_SVM_VMCB_H
#define MOAT_SVM_VMCB_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/types.h>

/* intercept_cr */
#define SVM_CR_READ(cr)		BIT(cr)
#define SVM_CR_WRITE(cr)	BIT(16 + (cr))

/* intercept_misc1 */
#define SVM_INTR		BIT(0)
#define SVM_NMI			BIT(1)
#define SVM_SMI			BIT(2)
#define SVM_INIT		BIT(3)
#define SVM_VINTR		BIT(4)
#define SVM_CR0_SEL_WRITE	BIT(5)	/* of bits other than TS and MP */
#define SVM_RDPMC		BIT(15)
#define SVM_CPUID		BIT(18)
#define SVM_RSM			BIT(19)
#define SVM_IRET		BIT(20)
#define SVM_INVD		BIT(22)
#define SVM_HLT			BIT(24)
#define SVM_INVLPGA		BIT(26)
#define SVM_IOIO		BIT(27)
#define SVM_MSR			BIT(28)
#define SVM_FERR_FREEZE		BIT(30)
#define SVM_SHUTDOWN		BIT(31)

/* intercept_misc2 */
#define SVM_VMRUN		BIT(0)
#define SVM_VMMCALL		BIT(1)
#define SVM_VMLOAD		BIT(2)
#define SVM_VMSAVE		BIT(3)
#define SVM_STGI		BIT(4)
#define SVM_CLGI		BIT(5)
#define SVM_SKINIT		BIT(6)
#define SVM_WBINVD		BIT(9)
#define SVM_MONITOR		BIT(10)
#define SVM_MWAIT		BIT(11)
#define SVM_MWAIT_ARMED		BIT(12)
#define SVM_XSETBV		BIT(13)
#define SVM_RDPRU		BIT(14)

/* tlb_control */
#define SVM_TLB_KEEP		0
#define SVM_TLB_FLUSH_ALL	1
#define SVM_TLB_FLUSH_ASID	3

/* vintr */
#define SVM_V_TPR		0xffULL
#define SVM_V_IRQ		BIT_ULL(8)
#define SVM_V_INTR_PRIO		(0xfULL << 16)
#define SVM_V_IGN_TPR		BIT_ULL(20)
#define SVM_V_INTR_MASKING	BIT_ULL(24)
#define SVM_V_INTR_VECTOR	(0xffULL << 32)

/* event_inject and exit_int_info */
#define SVM_EVENT_INTR		(0U << 8)
#define SVM_EVENT_NMI		(2U << 8)
#define SVM_EVENT_EXCEPTION	(3U << 8)
#define SVM_EVENT_SOFT		(4U << 8)
#define SVM_EVENT_TYPE		(7U << 8)
#define SVM_EVENT_HAS_ERROR	BIT(11)
#define SVM_EVENT_VALID		BIT(31)

/* exit_code, appendix "SVM Intercept Exit Codes" */
#define SVM_EXIT_READ_CR0	0x000
#define SVM_EXIT_WRITE_CR0	0x010
#define SVM_EXIT_WRITE_CR4	0x014
#define SVM_EXIT_WRITE_CR8	0x018
#define SVM_EXIT_READ_DR0	0x020
#define SVM_EXIT_WRITE_DR0	0x030
#define SVM_EXIT_WRITE_DR7	0x037
#define SVM_EXIT_EXCEPTION_DB	0x041
#define SVM_EXIT_EXCEPTION_BP	0x043
#define SVM_EXIT_EXCEPTION_UD	0x046
#define SVM_EXIT_EXCEPTION_AC	0x051
#define SVM_EXIT_EXCEPTION_MC	0x052
#define SVM_EXIT_INTR		0x060
#define SVM_EXIT_NMI		0x061
#define SVM_EXIT_SMI		0x062
#define SVM_EXIT_INIT		0x063
#define SVM_EXIT_VINTR		0x064
#define SVM_EXIT_CR0_SEL_WRITE	0x065
#define SVM_EXIT_RDPMC		0x06f
#define SVM_EXIT_CPUID		0x072
#define SVM_EXIT_RSM		0x073
#define SVM_EXIT_IRET		0x074
#define SVM_EXIT_INVD		0x076
#define SVM_EXIT_HLT		0x078
#define SVM_EXIT_INVLPGA	0x07a
#define SVM_EXIT_IOIO		0x07b
#define SVM_EXIT_MSR		0x07c
#define SVM_EXIT_FERR_FREEZE	0x07e
#define SVM_EXIT_SHUTDOWN	0x07f
#define SVM_EXIT_VMRUN		0x080
#define SVM_EXIT_VMMCALL	0x081
#define SVM_EXIT_VMLOAD		0x082
#define SVM_EXIT_VMSAVE		0x083
#define SVM_EXIT_STGI		0x084
#define SVM_EXIT_CLGI		0x085
#define SVM_EXIT_SKINIT		0x086
#define SVM_EXIT_WBINVD		0x089
#define SVM_EXIT_MONITOR	0x08a
#define SVM_EXIT_MWAIT		0x08b
#define SVM_EXIT_MWAIT_ARMED	0x08c
#define SVM_EXIT_XSETBV		0x08d
#define SVM_EXIT_RDPRU		0x08e
#define SVM_EXIT_TABLE		0x08f	/* the size of a table by exit code */
#define SVM_EXIT_NPF		0x400
#define SVM_EXIT_INVALID	(~0ULL)

/* exit_info_1 of an IOIO exit */
#define SVM_IO_IN		BIT(0)
#define SVM_IO_STRING		BIT(2)
#define SVM_IO_SIZE(info)	(((info) >> 4) & 7)

/* exit_info_1 of a nested page fault */
#define SVM_NPF_WRITE		BIT(1)
#define SVM_NPF_FETCH		BIT(4)
#define SVM_NPF_FINAL		BIT_ULL(32)	/* in the final address, not in a page-table walk */

#define SVM_SEGMENT_L		BIT(9)
#define SVM_SEGMENT_DB		BIT(10)

struct svm_segment {
	u16 selector;
	u16 attrib;		/* type 3:0, S, DPL 6:5, P, AVL, L, D/B, G */
	u32 limit;
	u64 base;
};

struct vmcb {
	u32 intercept_cr;
	u32 intercept_dr;
	u32 intercept_exceptions;
	u32 intercept_misc1;
	u32 intercept_misc2;
	u32 intercept_misc3;
	u8 reserved_018[0x28];
	u64 iopm_base;
	u64 msrpm_base;
	u64 tsc_offset;
	u32 asid;
	u32 tlb_control;
	u64 vintr;
	u64 interrupt_shadow;
	u64 exit_code;
	u64 exit_info_1;
	u64 exit_info_2;
	u64 exit_int_info;
	u64 nested_control;
	u8 reserved_098[0x10];
	u64 event_inject;
	u64 nested_cr3;
	u64 virt_ext;
	u64 clean;
	u64 next_rip;
	u8 insn_len;
	u8 insn_bytes[15];
	u8 reserved_0e0[0x320];

	struct svm_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 reserved_4a0[0x2b];
	u8 cpl;
	u32 reserved_4cc;
	u64 efer;
	u8 reserved_4d8[0x70];
	u64 cr4;
	u64 cr3;
	u64 cr0;
	u64 dr7;
	u64 dr6;
	u64 rflags;
	u64 rip;
	u8 reserved_580[0x58];
	u64 rsp;
	u8 reserved_5e0[0x18];
	u64 rax;
	u64 star;
	u64 lstar;
	u64 cstar;
	u64 sfmask;
	u64 kernel_gs_base;
	u64 sysenter_cs;
	u64 sysenter_esp;
	u64 sysenter_eip;
	u64 cr2;
	u8 reserved_648[0x20];
	u64 g_pat;
	u64 debugctl;
	u8 reserved_678[0x988];
};

static_assert(offsetof(struct vmcb, iopm_base) == 0x040);
static_assert(offsetof(struct vmcb, event_inject) == 0x0a8);
static_assert(offsetof(struct vmcb, next_rip) == 0x0c8);
static_assert(offsetof(struct vmcb, es) == 0x400);
static_assert(offsetof(struct vmcb, cpl) == 0x4cb);
static_assert(offsetof(struct vmcb, cr4) == 0x548);
static_assert(offsetof(struct vmcb, rsp) == 0x5d8);
static_assert(offsetof(struct vmcb, rax) == 0x5f8);
static_assert(offsetof(struct vmcb, cr2) == 0x640);
static_assert(offsetof(struct vmcb, g_pat) == 0x668);
static_assert(sizeof(struct vmcb) == 0x1000);

#endif
