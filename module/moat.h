/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The objects of Moat's core, and who owns what in them.
 *
 * A VM and each of its vCPUs are files. The VM's file and every vCPU's file hold one reference on
 * the VM; the last one frees it, vCPUs included, so that a vCPU never outlives its VM.
 *
 * A letter on a member says what guards it; the order of the locks is in docs/locking.md:
 *   (c) constant after creation
 *   (v) vcpu->lock, which KVM_RUN holds too: one thread works on a vCPU at a time
 *   (m) vm->lock
 *   (s) written under vm->lock, read under vm->srcu
 *   (u) vm->mmu_lock
 *   (a) atomic, any context
 *   (r) the vCPU's thread inside KVM_RUN only
 */
#ifndef MOAT_MOAT_H
#define MOAT_MOAT_H

#include <linux/cpumask.h>
#include <linux/hash.h>
#include <linux/kvm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/nospec.h>
#include <linux/rcuwait.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/types.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include <uapi/moat.h>

#include "ioctl.h"
#include "stage2.h"
#include "x86/decode.h"

#define MOAT_MAX_VCPUS		1024	/* also the bound of vCPU ids, which are APIC ids */
#define MOAT_MAX_SLOTS		32764
#define MOAT_MAX_CPUID_ENTRIES	256
#define MOAT_NR_GSIS		4096
#define MOAT_NR_MTRR_RANGES	8
#define MOAT_X2APIC_API	(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
#define MOAT_MAX_MCE_BANKS	32
/* The control bits of KVM_SET_GUEST_DEBUG, and the quirks of KVM's that can be disabled. */
#define MOAT_GUEST_DEBUG	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP |	\
				 KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP |	\
				 KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP |	\
				 KVM_GUESTDBG_BLOCKIRQ)
#define MOAT_QUIRKS		(KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT |			\
				 KVM_X86_QUIRK_FIX_HYPERCALL_INSN |			\
				 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)
#define MOAT_MSR_REASONS (KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |	\
			 KVM_MSR_EXIT_REASON_FILTER)

struct moat_chips;
struct moat_io_table;
struct moat_lapic;
struct moat_vcpu;

/* General registers, in the order of their encoding in instructions. */
enum moat_reg {
	RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI,
	R8, R9, R10, R11, R12, R13, R14, R15, MOAT_NR_GPRS
};

/* Why the vendor's loop returned to the core: named for what happened. */
enum moat_exit {
	MOAT_EXIT_AGAIN,	/* nothing to serve: look at signals and requests, go on */
	MOAT_EXIT_FAULT,	/* second-level page fault: vcpu->fault */
	MOAT_EXIT_EMULATE,	/* the instruction at RIP needs the emulator (string I/O) */
	MOAT_EXIT_PREFETCH,	/* the instruction at RIP could not be read without sleeping */
	MOAT_EXIT_IO,		/* one port access: vcpu->io */
	MOAT_EXIT_UNDEFINED,	/* the guest's #UD, perhaps a hypercall: moat_undefined() */
	MOAT_EXIT_HLT,		/* halted, nothing deliverable */
	MOAT_EXIT_TASK,		/* a task switch: vcpu->task */
	MOAT_EXIT_SHUTDOWN,	/* triple fault */
	MOAT_EXIT_USER,		/* for userspace: run is filled in */
	MOAT_NR_EXITS
};

/* Bits of vcpu->requests: work for the vCPU's own thread before it enters the guest. */
enum moat_request {
	MOAT_REQ_TLB_FLUSH,	/* forget all translations, second level included */
	MOAT_REQ_EVENT,		/* look again at events, the APIC, and what is intercepted */
	MOAT_REQ_CLOCK,		/* write the guest's pvclock page */
	MOAT_REQ_APIC,		/* INIT or SIPI arrived: moat_lapic_accept_events() */
	MOAT_REQ_TRIPLE_FAULT,
	MOAT_REQ_DEBUG,		/* moat_debug_to_user() */
	MOAT_REQ_RING_FULL,	/* no room for more dirty pages: moat_dirty_ring_exit() */
	MOAT_REQ_YIELD,		/* let other threads run */
	MOAT_REQ_STEAL,		/* write the guest's steal time page */
	MOAT_REQ_TPR_ACCESS,	/* tell userspace of vcpu->tpr_access */
	MOAT_REQ_VAPIC,		/* stays: one exit a run, a page has the task priority */
	MOAT_REQ_KICK,		/* leave the guest and look; no work of its own */
	MOAT_NR_REQS
};

/* Those that the vendor's loop serves. */
#define MOAT_REQS_FAST	(BIT(MOAT_REQ_EVENT) | BIT(MOAT_REQ_TLB_FLUSH) | BIT(MOAT_REQ_VAPIC))

/* Where a vCPU's thread is, as seen by whoever wants its attention. */
enum moat_mode { MOAT_OUTSIDE, MOAT_IN_GUEST };

/* A range of guest-physical memory backed by a range of its owner's virtual memory. */
struct moat_slot {
	u32 id;			/* as userspace named it */
	u32 flags;		/* KVM_MEM_* */
	u64 gfn;		/* first guest frame */
	u64 npages;
	unsigned long hva;
	unsigned long *dirty;	/* a bit a page (a), then as much room again (m); or NULL */
};

/* All slots at one moment, sorted by gfn, never changed once published but for the hint. */
struct moat_slots {
	u32 count;
	u32 last;		/* (a) a hint: which was found last, and is likely wanted next */
	struct moat_slot slot[];
};

/* One message-signalled interrupt, or its equivalent from an IPI, as the APICs understand it. */
struct moat_irq {
	u32 dest;
	u8 vector;
	u8 delivery;		/* APIC_DELIVERY_MODE_* */
	bool logical;		/* destination mode */
	bool level;		/* trigger mode */
	bool assert;
	u8 shorthand;		/* SHORTHAND_* */
	bool x2apic;		/* dest is a 32-bit id: 0xff is vCPU 255, not everybody */
};

/* Which interrupt controllers are in the kernel. */
enum moat_irqchip {
	MOAT_IRQCHIP_NONE,
	MOAT_IRQCHIP_SPLIT,	/* local APICs */
	MOAT_IRQCHIP_KERNEL,	/* local APICs, IOAPIC and PICs */
};

/* Where one GSI leads: to a message, or to at most one pin of each chip, or nowhere. */
struct moat_route {
	u64 address;
	u32 data;
	bool msi;
	u8 pin[KVM_NR_IRQCHIPS];	/* by KVM_IRQCHIP_*, counted from 1; 0 none */
};

/* All routes at one moment, by GSI, never changed once published. */
struct moat_routing {
	u16 gsi[KVM_NR_IRQCHIPS][KVM_IOAPIC_NUM_PINS];	/* of each pin, from 1; 0 none */
	u32 count;					/* one above the highest GSI */
	struct moat_route route[];
};

/*
 * The time that the guests' pvclock pages tell, and what vCPUs' TSCs have in common: x86/clock.c.
 */
struct moat_clock {
	spinlock_t lock;	/* guards all of this but mul and shift */
	bool stable;		/* the host's time is that of a TSC that all CPUs agree on */
	s8 shift;		/* (c) nanoseconds = (TSC cycles << shift) * mul >> 32 */
	u32 mul;		/* (c) */
	u64 tsc;		/* host TSC, */
	u64 raw;		/* host's raw monotonic time, */
	u64 ns;			/* and the guest's, at one and the same moment */
	u64 tsc_offset;		/* of vCPUs that are in step */
	bool tsc_chosen;	/* userspace has set a TSC: not that of the VM's creation any more */
};

struct moat_vm_stats {
	u64 mmu_notifier;
	u64 tlb_flushes;
};

struct moat_vm {
	refcount_t refs;
	struct mutex lock;
	u64 number;				/* (c) from 1, no two VMs ever have the same */
	struct mm_struct *mm;			/* (c) whose memory backs the slots */
	struct mmu_notifier notifier;

	struct srcu_struct srcu;
	struct moat_slots __rcu *slots;		/* (s) */
	u64 layout;				/* (m) to write: how often these have changed */
	struct moat_routing __rcu *routing;	/* (s) */
	struct kvm_msr_filter __rcu *msr_filter;	/* (s) NULL: the guest may have all MSRs */

	rwlock_t mmu_lock;
	struct stage2 stage2;			/* (u) */
	struct moat_slot leaving;		/* (u) in no array any more, but yet in stage2 */
	unsigned long mmu_seq;			/* (u) counts invalidations that ended */
	unsigned long mmu_busy;			/* (u) invalidations under way */
	u64 mmu_busy_start, mmu_busy_end;	/* (u) host addresses they cover */
	spinlock_t flush_lock;			/* one flush at a time */
	cpumask_var_t flush_mask;		/* under flush_lock */

	struct moat_vcpu __rcu *vcpus[MOAT_MAX_VCPUS];	/* by id; (m) to write, set once */
	u32 vcpu_bound;				/* (m) one above the highest id in use */
	u32 vcpu_count;				/* (m) */
	u32 bsp_id;				/* (m) */
	u32 max_vcpu_ids;			/* (m) */
	enum moat_irqchip irqchip;		/* (m) set once, before any vCPU */
	u32 x2apic_api;				/* (a) KVM_X2APIC_API_*, set for good */
	u64 halt_poll_ns;			/* (a) the VM's limit; above U32_MAX: the module's */
	u32 ioapic_pins;			/* (m) GSIs whose EOI a userspace IOAPIC wants */
	unsigned long eoi_vectors[4];		/* (a) a bit each, whose EOI an IOAPIC wants */
	struct moat_chips *chips;		/* (m) IOAPIC and PICs, set with irqchip */
	struct moat_io_table __rcu *io[2];	/* (s) of memory, of ports; NULL empty */
	raw_spinlock_t ring_lock;		/* the kernel's end of the ring */
	struct kvm_coalesced_mmio_ring *ring;	/* (c) shared with userspace: read once */
	struct list_head irqfds;		/* (s) */
	u32 irqfd_count;			/* (m) */
	struct work_struct irqfd_reap;
	u32 dirty_ring_bytes;			/* (m) 0: bitmaps; before any vCPU */

	/* What userspace has switched by KVM_ENABLE_CAP. (m) to write */
	u64 dirty_manual;			/* KVM_DIRTY_LOG_*: GET leaves the bits to CLEAR */
	u64 user_msrs;				/* KVM_MSR_EXIT_REASON_* */
	u64 quirks_off;				/* KVM_X86_QUIRK_* */
	u32 mmu_pages;				/* of shadow tables, of which there are none */
	u64 exception_payload;
	u64 triple_fault_event;
	u64 platform_info_shown;

	struct moat_clock clock;
	u64 wall_clock_msr;			/* (a) */
	struct moat_vm_stats stats;
	struct dentry *debugfs;			/* (c) */
};

/* Events on their way into the guest, as KVM_GET_VCPU_EVENTS knows them. */
struct moat_events {
	struct {
		bool pending;		/* found, delivery not begun */
		bool injected;		/* delivery was cut short by an exit: goes first */
		bool has_error;
		bool has_payload;	/* as userspace gave it: for DR6 or CR2, when it begins */
		u8 vector;
		u32 error;
		u64 payload;
	} exception;
	struct {
		bool injected;		/* taken from the APIC or cut short */
		bool soft;
		u8 vector;
	} interrupt;
	struct {
		u8 pending;		/* at most 2: one being handled, one latched */
		bool injected;
		bool masked;		/* until IRET */
	} nmi;
	int external;			/* vector of KVM_INTERRUPT waiting for a window, or -1 */
	u32 sipi_vector;
};

/* Registers whose hardware copy is read and written only on demand. */
struct moat_msrs {
	u64 apic_base;
	u64 tsc_offset;		/* guest TSC - host TSC */
	u64 tsc_aux;
	u64 tsc_adjust;
	u64 spec_ctrl;
	u64 misc_enable;
	u64 hwcr;
	u64 mcg_cap;
	u64 mcg_ctl;
	u64 mcg_status;
	u64 arch_capabilities;
	u64 ucode_rev;
	u64 platform_info;
	u64 power_ctl;
	u64 mtrr_def_type;
	u64 mtrr_fixed[11];
	u64 mtrr_var[2 * MOAT_NR_MTRR_RANGES];
	u64 pv_system_time;	/* MSR_KVM_SYSTEM_TIME_NEW as written */
	u64 steal_time;		/* these too */
	u64 pv_eoi;
	u64 poll_control;
};

/* A piece of one instruction's memory or port traffic that userspace serves. */
struct moat_fragment {
	u64 gpa;
	u8 len;
	bool write;
	u8 data[8];
};

#define MOAT_MAX_FRAGMENTS 16

/* A task switch that the CPU leaves to us. */
struct moat_task_switch {
	u16 selector;		/* of the new task's TSS */
	enum { MOAT_TASK_CALL, MOAT_TASK_IRET, MOAT_TASK_JMP, MOAT_TASK_GATE } by;
	u64 next_rip;		/* where the old task goes on */
	bool has_error;		/* of the exception that came by the gate */
	u32 error;
};

struct moat_translation {
	u64 linear, gpa;	/* of the page */
	u32 access;		/* WALK_*: for which it was allowed */
};

/*
 * The emulation of one instruction, which may need several trips to userspace. Nothing of the
 * guest's state changes until the whole instruction has been done; each trip starts it again, and
 * the accesses that are done answer from the log.
 */
struct moat_emulation {
	bool active;			/* run again from the log at the next KVM_RUN */
	struct moat_insn insn;
	u64 rip;			/* where the instruction is */
	u8 count;			/* fragments in the log */
	u8 cursor;			/* next one to answer from, in this pass */
	struct moat_fragment log[MOAT_MAX_FRAGMENTS];
	u32 pio_count;			/* items of string I/O in pio_data, for userspace */
	u8 page_count;
	struct moat_translation page[4];	/* what has been translated for it */
};

/* Where code runs: by this an instruction is remembered. */
struct moat_code {
	u64 cr3;		/* the guest's, or MOAT_NO_PAGING */
	u64 linear;		/* RIP's address */
	u8 mode;		/* enum moat_insn_mode, or MOAT_CODE_OF_USER */
};

#define MOAT_NO_PAGING	(~0ULL)
#define MOAT_CODE_OF_USER	1

/*
 * An instruction that was fetched and decoded before. It holds as long as it would be found there
 * again: the page's entry in the guest's tables is the same, the slots are, and so are the bytes at
 * the host's address. What leads to that entry is not looked at: the kernel that takes a page table
 * out of use clears it first, or deceives itself. User mode, which does not know what becomes of its
 * tables, is not remembered.
 */
struct moat_insn_place {
	struct moat_code code;	/* mode 0: none */
	u64 layout;		/* vm->layout */
	/* Where in the owner's memory are the two words that hold it, and that of the entry; */
	unsigned long window, leaf;
	u64 word[3], mask[3];	/* what they are, and which of their bits matter */
	struct moat_insn insn;
};

#define MOAT_INSN_PLACES_SHIFT 5

/* A vCPU's dirty pages, for userspace. The numbers only grow; modulo the size they are indices. */
struct moat_dirty_ring {
	struct kvm_dirty_gfn *entry;	/* (c) shared with userspace: read once; NULL: no ring */
	u32 size;			/* (c) a power of two */
	u32 head;			/* (v) of the next entry */
	u32 tail;			/* (m) of the first that is not taken back */
};

struct moat_vcpu_stats {
	u64 exits;
	u64 slow_exits;
	u64 user_exits;
	u64 faults;
	u64 emulations;
	u64 injections;
	u64 halts;
	u64 polls;		/* halts that ended while polling */
	u64 wakeups;
	u64 kicks;
};

struct moat_vcpu {
	struct moat_vm *vm;		/* (c) */
	u32 id;				/* (c) */
	struct mutex lock;
	struct kvm_run *run;		/* (c) shared with userspace: read once */
	void *pio_data;			/* (c) data of port I/O, mapped behind run */

	/* Registers: in gpr[], rip, rflags whenever the guest is not running. (v) */
	u64 gpr[MOAT_NR_GPRS];
	u64 rip;
	u64 rflags;
	bool irq_shadow;		/* after STI or MOV SS */
	u8 *apic_page;			/* registers of the APIC; without one, its task priority */
	bool sregs_valid;		/* sregs is as the hardware's copy */
	bool sregs_dirty;		/* the hardware's copy is to be written before entry */
	struct kvm_sregs sregs;		/* only with moat_sregs(), apic_base and cr8 not used */
	u64 dr[4], dr6, dr7;
	struct moat_msrs msrs;
	u64 mce[4 * MOAT_MAX_MCE_BANKS];	/* by MSR index, from MC0_CTL on (v) */
	u64 xcr0;
	void *fpu;			/* XSAVE area, standard format, of moat_fpu_size bytes */

	struct moat_events events;	/* (v) */
	atomic_t nmi_queued;		/* (a) NMIs sent, not yet in events.nmi */
	unsigned long requests;		/* (a) MOAT_REQ_* */
	int mode;			/* (a) enum moat_mode */
	int cpu;			/* (r) last CPU it ran on, -1 before */
	u32 mp_state;			/* KVM_MP_STATE_* (v) */
	struct rcuwait wait;
	u32 poll_ns;			/* (r) how long to poll before sleeping */

	struct moat_lapic *lapic;	/* (c) NULL without an in-kernel APIC */
	u8 eoi_vector;			/* (r) with eoi_pending */
	bool eoi_pending;		/* (r) */

	struct kvm_cpuid_entry2 *cpuid;	/* (v) */
	u32 cpuid_count;
	u8 cpuid_hint[16];		/* where the entry was that was last found, by a hash */
	/* What the guest's CPUID allows, worked out when it is set. (v) */
	u64 xcr0_allowed;
	u64 cr4_reserved;
	u64 efer_reserved;
	u64 gpa_mask;			/* addresses below the guest's MAXPHYADDR */
	bool has_rdtscp;
	bool has_ibpb;
	u64 spec_ctrl_allowed;

	bool osxsave;			/* CR4.OSXSAVE, for CPUID */

	/* pvclock: where the page is in userspace's memory; 0 when off. (v) */
	u64 pv_time_gpa;
	bool pv_time_on;
	bool pv_wall_clock_due;		/* the wall clock's page is to be written */
	bool pv_stopped;		/* the page is to say once that the guest was stopped */

	/* The other paravirtual features: x86/paravirt.c. */
	bool pv_enforced;		/* (v) only those that the guest's CPUID names */
	bool pv_unhalted;		/* (a) kicked: the next HLT ends at once */
	u64 pv_eoi_offer;		/* (r) msrs.pv_eoi as of an offer to the guest, or 0 */
	bool steal_marked;		/* (v) the page says, or may say, that it was preempted */
	u64 steal_run_delay;		/* (v) of its thread, as told */
	u64 vapic_gpa;			/* (v) with MOAT_REQ_VAPIC */
	u32 vapic_shown;		/* (v) what the page was last seen to show */
	bool tpr_reporting;		/* (v) */
	typeof_member(struct kvm_run, tpr_access) tpr_access;	/* (v) with MOAT_REQ_TPR_ACCESS */

	struct {
		u64 gpa;
		bool write, fetch;
		bool delivery;	/* while an event was delivered */
		bool final;	/* not in the walk of the guest's own page tables */
	} fault;			/* (r) for MOAT_EXIT_FAULT */
	struct {
		u16 port;
		u8 size;
		bool in;
		u64 rip, next_rip;
	} io;				/* (r) for MOAT_EXIT_IO */
	struct moat_task_switch task;	/* (r) for MOAT_EXIT_TASK */

	/* KVM_SET_GUEST_DEBUG, and what the exit that is requested tells. (v) */
	struct {
		u32 control;	/* KVM_GUESTDBG_* */
		u64 dr[4], dr7;	/* with KVM_GUESTDBG_USE_HW_BP, in place of the guest's */
		u8 vector;
		u64 dr6;
	} debug;

	/* How a userspace exit is completed at the next KVM_RUN. (v) */
	int (*complete)(struct moat_vcpu *vcpu);
	struct moat_emulation emul;
	struct moat_insn_place insn_places[1 << MOAT_INSN_PLACES_SHIFT];	/* (v) */
	struct moat_dirty_ring ring;

	sigset_t sigset;		/* (v) */
	bool sigset_active;
	struct moat_vcpu_stats stats;
	void *hw;			/* (c) the vendor's part: struct svm_vcpu */
};

static inline enum moat_irqchip moat_irqchip(const struct moat_vm *vm)
{
	/* Pairs with whoever makes them, after all else of them. */
	return smp_load_acquire(&vm->irqchip);
}

/* vm.c */
moat_ioctl_fn moat_system_create_vm;
/* A descriptor for a new file of object, for fd_install(), which is when anybody can use it. */
int moat_file_prepare(const char *name, const struct file_operations *fops, void *object, int flags,
		      struct file **ret_file);
void moat_vm_get(struct moat_vm *vm);
void moat_vm_put(struct moat_vm *vm);
/* The same request to all its vCPUs, running or not. */
void moat_vm_request(struct moat_vm *vm, enum moat_request req);

/* Each vCPU that exists, in the order of ids. A vCPU once seen stays for the life of the VM. */
static inline struct moat_vcpu *moat_vm_vcpu(struct moat_vm *vm, u32 id)
{
	if (id >= MOAT_MAX_VCPUS)
		return NULL;
	return rcu_dereference_raw(vm->vcpus[array_index_nospec(id, MOAT_MAX_VCPUS)]);
}

#define moat_for_each_vcpu(vm, vcpu, id)						\
	for ((id) = 0; (id) < READ_ONCE((vm)->vcpu_bound); (id)++)			\
		for ((vcpu) = moat_vm_vcpu(vm, id); (vcpu); (vcpu) = NULL)

/* vcpu.c */
moat_ioctl_fn moat_vm_create_vcpu;
void moat_vcpu_destroy(struct moat_vcpu *vcpu);
/* Power-on (init false) or INIT state; the vCPU's own thread or before it first runs. */
void moat_vcpu_reset(struct moat_vcpu *vcpu, bool init);
/* Wakes a halted vCPU, does not disturb one that runs. Any context. */
void moat_vcpu_wake(struct moat_vcpu *vcpu);
/* Get the vCPU out of the guest, or out of HLT, so that it sees its requests. Any context. */
void moat_vcpu_kick(struct moat_vcpu *vcpu);

static inline void moat_request(struct moat_vcpu *vcpu, enum moat_request req)
{
	/* Whatever the request is about must be visible before the bit. */
	smp_wmb();
	set_bit(req, &vcpu->requests);
}

static inline bool moat_request_take(struct moat_vcpu *vcpu, enum moat_request req)
{
	if (!test_bit(req, &vcpu->requests))
		return false;
	clear_bit(req, &vcpu->requests);
	smp_mb__after_atomic();
	return true;
}

/*
 * Whether there is an interrupt for this vCPU, its interrupt flag apart: from its APIC, from the
 * PICs, or, by KVM_INTERRUPT, from a PIC in userspace.
 */
bool moat_interrupt_pending(struct moat_vcpu *vcpu);
/* Takes it: its vector, or -1 where it has gone meanwhile. */
int moat_interrupt_accept(struct moat_vcpu *vcpu);
/* Whether userspace wants to know when the guest can take an interrupt of its PIC. */
bool moat_window_requested(struct moat_vcpu *vcpu);
/* Whether there is one, on its way or waiting, and the interrupt flag is on: HLT ends at once. */
bool moat_interrupt_due(struct moat_vcpu *vcpu);
/* Takes in the NMIs that others sent. */
void moat_nmi_collect(struct moat_vcpu *vcpu);

/* Events; queued, delivered at the next entry in the order that the manuals give. */
void moat_inject_exception(struct moat_vcpu *vcpu, u8 vector, bool has_error, u32 error);
void moat_inject_gp(struct moat_vcpu *vcpu);
void moat_inject_ud(struct moat_vcpu *vcpu);
void moat_inject_nmi(struct moat_vcpu *vcpu);
/* The exception that is pending goes in: what it writes to DR6 or CR2 is written. */
void moat_exception_begin(struct moat_vcpu *vcpu);

/* window.c */
moat_ioctl_fn moat_vm_create_window;
/*
 * The page that a window mapped at hva shows, with a reference: -EFAULT where there is no window, or
 * nothing in it that may be accessed so.
 */
int moat_window_get_page(struct mm_struct *mm, unsigned long hva, bool write, struct page **page);

/* memslot.c */
moat_ioctl_fn moat_vm_set_memory_region;
void moat_slots_free(struct moat_slots *slots);
const struct moat_slot *moat_slot_find(struct moat_slots *slots, u64 gfn);
const struct moat_slot *moat_slot_by_id(const struct moat_slots *slots, u32 id);
static inline unsigned long moat_slot_hva(const struct moat_slot *slot, u64 gpa)
{
	return slot->hva + (gpa - (slot->gfn << PAGE_SHIFT));
}

/* The owner's address of the memory at gpa, 0 for none. */
unsigned long moat_guest_hva(struct moat_vm *vm, u64 gpa);
/* Whether there is memory at gpa that the guest may read, or write; else it is MMIO. */
bool moat_guest_has(struct moat_vm *vm, u64 gpa, bool write);
/*
 * Guest memory by physical address, from the thread that runs the vCPU or serves the VM's ioctl,
 * in the address space of the owner. -EFAULT where no memory is (or, for writes, where it is
 * read-only). Writes are the vCPU's, and logged.
 */
int moat_guest_read(struct moat_vm *vm, u64 gpa, void *data, size_t len);
int moat_guest_write(struct moat_vcpu *vcpu, u64 gpa, const void *data, size_t len);
/* The same without sleeping: -EFAULT also where a page is not present just now. */
int moat_guest_read_atomic(struct moat_vm *vm, u64 gpa, void *data, size_t len);
int moat_guest_cmpxchg(struct moat_vcpu *vcpu, u64 gpa, u64 *old, u64 new, unsigned int len);

/* fault.c */
int moat_mmu_create(struct moat_vm *vm);
void moat_mmu_destroy(struct moat_vm *vm);
/*
 * Maps what vcpu->fault wants: 0; -ENOENT no memory there (or a write to read-only memory): it is
 * MMIO; else an error. First to be tried with atomic, interrupts off, without sleeping or waiting for
 * anybody: -EAGAIN where that will not do.
 */
int moat_mmu_fault(struct moat_vcpu *vcpu, bool atomic);
/* Takes away whatever is mapped at gfn..gfn+npages and waits until no vCPU can use it. */
void moat_mmu_zap(struct moat_vm *vm, u64 gfn, u64 npages);
/* The same with the right to write. */
void moat_mmu_wrprotect(struct moat_vm *vm, u64 gfn, u64 npages);
/* Waits until no vCPU can use what was changed before in the tables. */
void moat_mmu_flush(struct moat_vm *vm);

/* dirty.c */
#define MOAT_DIRTY_MANUAL	(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)
#define MOAT_DIRTY_RING_BYTES	(65536 * sizeof(struct kvm_dirty_gfn))	/* at most */
/* Entries at the ring's end that are kept for what is under way; of these, for writes to data. */
#define MOAT_RING_RESERVED	64
#define MOAT_RING_FOR_DATA	16

static inline bool moat_slot_is_logged(const struct moat_slot *slot)
{
	return slot->flags & KVM_MEM_LOG_DIRTY_PAGES;
}

/* Gives the new slot what its log takes: that of the old one, where there is one. 0 or -ENOMEM. */
int moat_dirty_prepare(struct moat_vm *vm, const struct moat_slot *old, struct moat_slot *new);
/* The slot, which is there already, is logged from now on. */
void moat_dirty_begin(struct moat_vm *vm, const struct moat_slot *slot);
/* Logs a page, where its slot is logged: see dirty.c for when. */
void moat_dirty_mark(struct moat_vcpu *vcpu, const struct moat_slot *slot, u64 gfn);
long moat_dirty_enable_manual(struct moat_vm *vm, const struct kvm_enable_cap *cap);
moat_ioctl_fn moat_vm_get_dirty_log, moat_vm_clear_dirty_log;
long moat_dirty_enable_ring(struct moat_vm *vm, const struct kvm_enable_cap *cap);
int moat_dirty_ring_create(struct moat_vcpu *vcpu);
/* True where no more than so many entries are left, and there is a ring. */
bool moat_dirty_ring_is_short(struct moat_vcpu *vcpu, u32 left);
/* Serves MOAT_REQ_RING_FULL: true where userspace must take entries before the guest goes on. */
bool moat_dirty_ring_exit(struct moat_vcpu *vcpu);
/* The ring's page at this page offset of the vCPU's mapping, NULL for none. */
struct page *moat_dirty_ring_page(struct moat_vcpu *vcpu, unsigned long pgoff);
moat_ioctl_fn moat_vm_reset_dirty_rings;

/* emulation.c */
/* These three: 1 go on, 0 exit to userspace (run is filled in), negative error. */
int moat_emulate(struct moat_vcpu *vcpu);
int moat_io_exit(struct moat_vcpu *vcpu);
/* Without sleeping: makes the access of vcpu->io, if the kernel serves the port, and goes on. */
bool moat_io_in_kernel(struct moat_vcpu *vcpu);
/* Brings in the bytes at RIP, for which the two below had to sleep. */
int moat_insn_prefetch(struct moat_vcpu *vcpu);
/*
 * Without sleeping: the instruction at RIP, which is there until the next is asked for; NULL where
 * its bytes are not present just now. Of a MOV of a control or debug register, its length, which
 * one, and the general register; -ENOENT where it is another instruction, 0 for NULL.
 */
const struct moat_insn *moat_insn_find(struct moat_vcpu *vcpu);
int moat_insn_mov_operands(struct moat_vcpu *vcpu, unsigned int *ret_reg, unsigned int *ret_gpr);

/* Where the next instruction begins. */
static inline u64 moat_insn_next(const struct moat_vcpu *vcpu, const struct moat_insn *insn)
{
	u64 rip = vcpu->rip + insn->length;

	return insn->mode == INSN_64 ? rip : (u32)rip;
}

/* Whether the instruction at RIP is likely one that is remembered: very cheap. 64-bit code. */
static inline bool moat_insn_is_known(const struct moat_vcpu *vcpu)
{
	u32 place = hash_64(vcpu->rip, MOAT_INSN_PLACES_SHIFT);

	return vcpu->insn_places[place].code.linear == vcpu->rip;
}

/*
 * Without sleeping: the access of vcpu->fault, where that is MMIO, by a plain move that is
 * remembered. It is made here, or left to userspace; MOAT_EXIT_FAULT where it is anything else. As
 * the vendors' exits: MOAT_NR_EXITS to go on.
 */
enum moat_exit moat_mmio_move(struct moat_vcpu *vcpu);
/*
 * Memory of the guest's, in at most two pages, as its CPU accesses a descriptor table or TSS: 0; 1 the
 * guest gets an exception; -EAGAIN it is to try again; or another negative error.
 */
int moat_system_access(struct moat_vcpu *vcpu, u64 linear, void *data, unsigned int len, bool write);
/* Goes on behind the instruction at RIP, with what comes at the end of each. */
void moat_insn_skip(struct moat_vcpu *vcpu, u64 rip);
/* #UD by the instruction at RIP: 1, or a negative error. */
int moat_undefined(struct moat_vcpu *vcpu);
int moat_internal_error(struct moat_vcpu *vcpu, u32 suberror);

/* stats.c */
void moat_stats_init(void);
void moat_stats_exit(void);
void moat_stats_vm_add(struct moat_vm *vm);
void moat_stats_vcpu_add(struct moat_vcpu *vcpu);
moat_ioctl_fn moat_vm_get_stats_fd, moat_vcpu_get_stats_fd;

#endif
