// SPDX-License-Identifier: GPL-2.0-only
/*
 * General, segment, control and debug registers, and events, as ioctls and as the guest's own
 * writes to control registers see them.
 *
 * A state that userspace sets is checked as a whole before any of it is taken; what the CPU
 * itself checks at entry (segments) is left to it. The guest's writes follow the rules of MOV to
 * CRn in the AMD APM vol. 2, "System-Control Registers", and the Intel SDM vol. 3, "Control
 * Registers".
 */
#include "../hw.h"
#include "../irq/irq.h"
#include "x86.h"

#define CR0_KNOWN	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET |	\
			 X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD |	\
			 X86_CR0_PG)
#define CR0_RESET	(X86_CR0_ET | X86_CR0_NW | X86_CR0_CD)
#define CR3_PAE_TABLE	0xffffffe0
/* Changes of these make translations of the guest's own tables mean something else. */
#define CR0_PAGING	(X86_CR0_PG | X86_CR0_WP)
#define CR4_PAGING	(X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE |		\
			 X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_LA57)

#define FAMILY_6	0x600		/* in RDX after reset, where CPUID does not say */

#define RESET_CS	0xf000
#define RESET_CS_BASE	0xffff0000
#define RESET_RIP	0xfff0

/* Types of segments; bit 4 of the attributes says whether they are code or data. */
#define TYPE_DATA	3		/* writable, accessed */
#define TYPE_CODE	11		/* readable, accessed */
#define TYPE_LDT	2
#define TYPE_TSS	11		/* busy */

/* Reset */

static struct kvm_segment segment_reset(u8 type, bool s)
{
	return (struct kvm_segment) { .limit = 0xffff, .type = type, .present = 1, .s = s };
}

static void sregs_reset(struct kvm_sregs *s)
{
	memset(s, 0, sizeof(*s));
	s->cs = segment_reset(TYPE_CODE, true);
	s->cs.selector = RESET_CS;
	s->cs.base = RESET_CS_BASE;
	s->ds = segment_reset(TYPE_DATA, true);
	s->es = s->ds;
	s->fs = s->ds;
	s->gs = s->ds;
	s->ss = s->ds;
	s->ldt = segment_reset(TYPE_LDT, false);
	s->tr = segment_reset(TYPE_TSS, false);
	s->gdt.limit = 0xffff;
	s->idt.limit = 0xffff;
	s->cr0 = CR0_RESET;
}

void moat_regs_reset(struct moat_vcpu *vcpu, bool init)
{
	if (!init)
		moat_cpuid_derive(vcpu);
	sregs_reset(&vcpu->sregs);
	vcpu->sregs_valid = true;
	vcpu->sregs_dirty = true;
	vcpu->osxsave = false;
	memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
	vcpu->gpr[RDX] = moat_cpuid_find(vcpu, 1, 0) ? moat_cpuid_told(vcpu, 1, CPUID_EAX) :
						       FAMILY_6;
	vcpu->rip = RESET_RIP;
	vcpu->rflags = X86_EFLAGS_FIXED;
	vcpu->irq_shadow = false;
	vcpu->apic_page[APIC_TASKPRI] = 0;
	memset(vcpu->dr, 0, sizeof(vcpu->dr));
	vcpu->dr6 = DR6_RESET;
	vcpu->dr7 = DR7_RESET;
	moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
}

/* Control registers */

static bool cr0_is_legal(u64 cr0)
{
	if (cr0 >> 32)
		return false;
	if ((cr0 & X86_CR0_NW) && !(cr0 & X86_CR0_CD))
		return false;
	return !(cr0 & X86_CR0_PG) || (cr0 & X86_CR0_PE);
}

/* Paging goes on, or off. */
static bool paging_may_change(const struct kvm_sregs *s, bool on)
{
	if (on)
		return !(s->efer & EFER_LME) || ((s->cr4 & X86_CR4_PAE) && !s->cs.l);
	return !(s->cr4 & X86_CR4_PCIDE) && !((s->efer & EFER_LMA) && s->cs.l);
}

static int cr0_write(struct moat_vcpu *vcpu, u64 value)
{
	const struct kvm_sregs *old = moat_sregs(vcpu);
	struct kvm_sregs *s;
	u64 changed;

	if (!cr0_is_legal(value))
		return -EINVAL;
	value = (value & CR0_KNOWN) | X86_CR0_ET;
	changed = value ^ old->cr0;
	if ((changed & X86_CR0_PG) && !paging_may_change(old, value & X86_CR0_PG))
		return -EINVAL;
	s = moat_sregs_change(vcpu);
	s->cr0 = value;
	if ((changed & X86_CR0_PG) && (s->efer & EFER_LME))
		s->efer ^= EFER_LMA;
	if (changed & CR0_PAGING)
		moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	return 0;
}

static bool cr3_is_legal(const struct moat_vcpu *vcpu, const struct kvm_sregs *s, u64 cr3)
{
	return !(s->efer & EFER_LMA) || !(cr3 & ~vcpu->gpa_mask);
}

static int cr3_write(struct moat_vcpu *vcpu, u64 value)
{
	struct kvm_sregs *s = moat_sregs(vcpu);

	if (s->cr4 & X86_CR4_PCIDE)
		value &= ~X86_CR3_PCID_NOFLUSH;		/* one flush too many does no harm */
	if (!cr3_is_legal(vcpu, s, value))
		return -EINVAL;
	moat_sregs_change(vcpu)->cr3 = value;
	moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	return 0;
}

static bool cr4_may_change(const struct kvm_sregs *s, u64 cr4)
{
	u64 changed = cr4 ^ s->cr4;

	if ((s->efer & EFER_LMA) && (!(cr4 & X86_CR4_PAE) || (changed & X86_CR4_LA57)))
		return false;
	if (changed & cr4 & X86_CR4_PCIDE)
		return (s->efer & EFER_LMA) && !(s->cr3 & X86_CR3_PCID_MASK);
	return true;
}

static int cr4_write(struct moat_vcpu *vcpu, u64 value)
{
	u64 changed = value ^ moat_sregs(vcpu)->cr4;

	if ((value & vcpu->cr4_reserved) || !cr4_may_change(&vcpu->sregs, value))
		return -EINVAL;
	moat_sregs_change(vcpu)->cr4 = value;
	vcpu->osxsave = value & X86_CR4_OSXSAVE;
	if (changed & CR4_PAGING)
		moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	return 0;
}

u64 moat_cr_read(struct moat_vcpu *vcpu, unsigned int cr)
{
	const struct kvm_sregs *s = moat_sregs(vcpu);

	switch (cr) {
	case 0:
		return s->cr0;
	case 2:
		return s->cr2;
	case 3:
		return s->cr3;
	case 4:
		return s->cr4;
	default:
		return moat_cr8(vcpu);
	}
}

int moat_cr_write(struct moat_vcpu *vcpu, unsigned int cr, u64 value)
{
	switch (cr) {
	case 0:
		return cr0_write(vcpu, value);
	case 2:
		moat_sregs_change(vcpu)->cr2 = value;
		return 0;
	case 3:
		return cr3_write(vcpu, value);
	case 4:
		return cr4_write(vcpu, value);
	case 8:
		if (value > 15)
			return -EINVAL;
		moat_cr8_set(vcpu, value);
		return 0;
	default:
		return -EINVAL;
	}
}

int moat_efer_write(struct moat_vcpu *vcpu, u64 value, bool host)
{
	struct kvm_sregs *s = moat_sregs(vcpu);
	u64 reserved = host ? ~moat_efer_supported() : vcpu->efer_reserved;
	u64 changed;

	if (value & reserved)
		return -EINVAL;
	/* LMA is the CPU's own: LME and paging. */
	value = (value & ~EFER_LMA) | (s->efer & EFER_LMA);
	changed = value ^ s->efer;
	if ((changed & EFER_LME) && (s->cr0 & X86_CR0_PG))
		return -EINVAL;
	moat_sregs_change(vcpu)->efer = value;
	if (changed & EFER_NX)
		moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	return 0;
}

/* Ioctls: general registers */

/* struct kvm_regs has its own order. */
static const u8 regs_order[MOAT_NR_GPRS] = {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8, R9, R10, R11, R12, R13, R14, R15
};

static_assert(offsetof(struct kvm_regs, rip) == MOAT_NR_GPRS * sizeof(u64));

long moat_vcpu_get_regs(void *object, void *arg, unsigned long uarg)
{
	const struct moat_vcpu *vcpu = object;
	struct kvm_regs *regs = arg;
	__u64 *gprs = arg;
	int i;

	for (i = 0; i < MOAT_NR_GPRS; i++)
		gprs[i] = vcpu->gpr[regs_order[i]];
	regs->rip = vcpu->rip;
	regs->rflags = vcpu->rflags;
	return 0;
}

/* An exception that was found but not delivered belonged to the state that is replaced. */
long moat_vcpu_set_regs(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_regs *regs = arg;
	const __u64 *gprs = arg;
	int i;

	for (i = 0; i < MOAT_NR_GPRS; i++)
		vcpu->gpr[regs_order[i]] = gprs[i];
	vcpu->rip = regs->rip;
	vcpu->rflags = regs->rflags | X86_EFLAGS_FIXED;
	vcpu->events.exception.pending = false;
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}

/* Ioctls: segments and control registers */

/* The vector on its way, which an older userspace carries over in the bitmap. */
static int interrupt_on_its_way(const struct moat_vcpu *vcpu)
{
	if (vcpu->events.interrupt.injected && !vcpu->events.interrupt.soft)
		return vcpu->events.interrupt.vector;
	return vcpu->lapic ? -1 : vcpu->events.external;
}

static void interrupt_put_back(struct moat_vcpu *vcpu, const __u64 *bitmap)
{
	unsigned int vector = find_first_bit((const unsigned long *)bitmap, 256);

	if (vector == 256)
		return;
	if (!vcpu->lapic) {
		vcpu->events.external = vector;
		return;
	}
	/* The APIC has it in service already. */
	vcpu->events.interrupt.injected = true;
	vcpu->events.interrupt.soft = false;
	vcpu->events.interrupt.vector = vector;
}

/* What the two forms begin with alike. */
#define SREGS_COMMON	offsetof(struct kvm_sregs, interrupt_bitmap)

static_assert(SREGS_COMMON == offsetof(struct kvm_sregs2, flags));

static void sregs_get(struct moat_vcpu *vcpu, struct kvm_sregs *s)
{
	*s = *moat_sregs(vcpu);
	s->cr8 = moat_cr8(vcpu);
	s->apic_base = vcpu->msrs.apic_base;
	memset(s->interrupt_bitmap, 0, sizeof(s->interrupt_bitmap));
}

long moat_vcpu_get_sregs(void *object, void *arg, unsigned long uarg)
{
	struct kvm_sregs *s = arg;
	int vector = interrupt_on_its_way(object);

	sregs_get(object, s);
	if (vector >= 0)
		s->interrupt_bitmap[vector / 64] = BIT_ULL(vector % 64);
	return 0;
}

static bool sregs_are_pae(const struct kvm_sregs *s)
{
	return (s->cr0 & X86_CR0_PG) && (s->cr4 & X86_CR4_PAE) && !(s->efer & EFER_LMA);
}

/* The four entries that PAE paging starts from are what memory holds: nested paging rereads them. */
long moat_vcpu_get_sregs2(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct kvm_sregs2 *out = arg;
	struct kvm_sregs s;

	sregs_get(vcpu, &s);
	memcpy(out, &s, SREGS_COMMON);
	if (sregs_are_pae(&s) && !moat_guest_read(vcpu->vm, s.cr3 & CR3_PAE_TABLE, out->pdptrs,
						  sizeof(out->pdptrs)))
		out->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	return 0;
}

static bool sregs_are_legal(const struct moat_vcpu *vcpu, const struct kvm_sregs *s)
{
	bool long_mode = (s->efer & EFER_LME) && (s->cr0 & X86_CR0_PG);

	if (!cr0_is_legal(s->cr0) || (s->cr4 & vcpu->cr4_reserved) || s->cr8 > 15 ||
	    (s->efer & ~moat_efer_supported()))
		return false;
	if (!long_mode)
		return !(s->efer & EFER_LMA) && !s->cs.l;
	return (s->cr4 & X86_CR4_PAE) && (s->efer & EFER_LMA) && cr3_is_legal(vcpu, s, s->cr3);
}

/* At the reset vector: this is how an older userspace resets a processor that had halted. */
static bool sregs_are_reset(const struct moat_vcpu *vcpu, const struct kvm_sregs *s)
{
	return vcpu->id == vcpu->vm->bsp_id && vcpu->rip == RESET_RIP &&
	       s->cs.selector == RESET_CS && !(s->cr0 & X86_CR0_PE);
}

static int sregs_set(struct moat_vcpu *vcpu, const struct kvm_sregs *s)
{
	if (!sregs_are_legal(vcpu, s) || moat_lapic_set_base(vcpu, s->apic_base, true))
		return -EINVAL;
	vcpu->sregs = *s;
	vcpu->sregs_valid = true;
	vcpu->sregs_dirty = true;
	vcpu->osxsave = s->cr4 & X86_CR4_OSXSAVE;
	moat_cr8_set(vcpu, s->cr8);
	if (sregs_are_reset(vcpu, s))
		vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	moat_request(vcpu, MOAT_REQ_TLB_FLUSH);
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}

long moat_vcpu_set_sregs(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_sregs *s = arg;
	int r = sregs_set(object, s);

	if (!r)
		interrupt_put_back(object, s->interrupt_bitmap);
	return r;
}

long moat_vcpu_set_sregs2(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_sregs2 *in = arg;
	struct kvm_sregs s = {};

	memcpy(&s, in, SREGS_COMMON);
	if ((in->flags & ~KVM_SREGS2_FLAGS_PDPTRS_VALID) || (in->flags && !sregs_are_pae(&s)))
		return -EINVAL;
	return sregs_set(object, &s);
}

/* Ioctls: debug registers */

long moat_vcpu_get_debugregs(void *object, void *arg, unsigned long uarg)
{
	const struct moat_vcpu *vcpu = object;
	struct kvm_debugregs *regs = arg;

	memcpy(regs->db, vcpu->dr, sizeof(regs->db));
	regs->dr6 = vcpu->dr6;
	regs->dr7 = vcpu->dr7;
	return 0;
}

long moat_vcpu_set_debugregs(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct kvm_debugregs *regs = arg;

	if (regs->flags || regs->dr6 >> 32 || regs->dr7 >> 32)
		return -EINVAL;
	memcpy(vcpu->dr, regs->db, sizeof(vcpu->dr));
	vcpu->dr6 = regs->dr6;
	vcpu->dr7 = regs->dr7;
	return 0;
}

/* Ioctls: events */

#define EVENTS_FLAGS	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |	\
			 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |			\
			 KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

static void exception_get(struct moat_vcpu *vcpu, struct kvm_vcpu_events *out)
{
	const struct moat_events *ev = &vcpu->events;

	out->exception.nr = ev->exception.vector;
	out->exception.has_error_code = ev->exception.has_error;
	out->exception.error_code = ev->exception.error;
	if (moat_exception_is_soft(ev->exception.vector))
		return;
	/* "Pending" means something only to users of exception payloads. */
	out->exception.pending = ev->exception.pending;
	out->exception.injected = ev->exception.injected ||
				  (ev->exception.pending && !vcpu->vm->exception_payload);
	if (!vcpu->vm->exception_payload)
		return;
	out->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	out->exception_has_payload = ev->exception.has_payload;
	out->exception_payload = ev->exception.payload;
}

long moat_vcpu_get_events(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	const struct moat_events *ev = &vcpu->events;
	struct kvm_vcpu_events *out = arg;

	moat_nmi_collect(vcpu);
	memset(out, 0, sizeof(*out));
	out->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	exception_get(vcpu, out);
	out->interrupt.injected = ev->interrupt.injected && !ev->interrupt.soft;
	out->interrupt.nr = ev->interrupt.vector;
	if (vcpu->irq_shadow)
		out->interrupt.shadow = KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS;
	out->nmi.injected = ev->nmi.injected;
	out->nmi.pending = ev->nmi.pending;
	out->nmi.masked = ev->nmi.masked;
	if (vcpu->vm->triple_fault_event) {
		out->triple_fault.pending = test_bit(MOAT_REQ_TRIPLE_FAULT, &vcpu->requests);
		out->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	}
	return 0;
}

static bool events_are_legal(const struct moat_vm *vm, const struct kvm_vcpu_events *in)
{
	bool pending = in->flags & KVM_VCPUEVENT_VALID_PAYLOAD && in->exception.pending;

	if (in->flags & ~EVENTS_FLAGS)
		return false;
	if (((in->flags & KVM_VCPUEVENT_VALID_PAYLOAD) && !vm->exception_payload) ||
	    ((in->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && !vm->triple_fault_event))
		return false;
	if (pending && in->exception.injected)
		return false;
	if ((in->exception.injected || pending) &&
	    (in->exception.nr > 31 || in->exception.nr == X86_TRAP_NMI))
		return false;
	/* There is no system management mode. */
	return !(in->flags & KVM_VCPUEVENT_VALID_SMM) ||
	       !(in->smi.smm || in->smi.pending || in->smi.smm_inside_nmi || in->smi.latched_init);
}

static void events_put(struct moat_vcpu *vcpu, const struct kvm_vcpu_events *in)
{
	struct moat_events *ev = &vcpu->events;

	ev->exception.pending = false;
	ev->exception.has_payload = false;
	if (in->flags & KVM_VCPUEVENT_VALID_PAYLOAD) {
		ev->exception.pending = in->exception.pending;
		ev->exception.has_payload = in->exception_has_payload;
		ev->exception.payload = in->exception_payload;
	}
	ev->exception.injected = in->exception.injected;
	ev->exception.vector = in->exception.nr;
	ev->exception.has_error = in->exception.has_error_code;
	ev->exception.error = in->exception.error_code;
	ev->interrupt.injected = in->interrupt.injected;
	ev->interrupt.soft = in->interrupt.soft;
	ev->interrupt.vector = in->interrupt.nr;
	if (in->flags & KVM_VCPUEVENT_VALID_SHADOW)
		vcpu->irq_shadow = in->interrupt.shadow;
	ev->nmi.injected = in->nmi.injected;
	ev->nmi.masked = in->nmi.masked;
	if (in->flags & KVM_VCPUEVENT_VALID_NMI_PENDING) {
		atomic_set(&vcpu->nmi_queued, 0);
		ev->nmi.pending = min_t(u8, in->nmi.pending, 2);
	}
	if (in->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		ev->sipi_vector = in->sipi_vector;
	if (in->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		assign_bit(MOAT_REQ_TRIPLE_FAULT, &vcpu->requests, in->triple_fault.pending);
}

long moat_vcpu_set_events(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;

	if (!events_are_legal(vcpu->vm, arg))
		return -EINVAL;
	moat_sregs(vcpu);	/* what is injected may be refused: see svm_refused() */
	events_put(vcpu, arg);
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}

/* Ioctls: multiprocessing state */

long moat_vcpu_get_mp_state(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct kvm_mp_state *state = arg;

	moat_lapic_accept_events(vcpu);
	state->mp_state = vcpu->mp_state;
	/* What it was kicked for is in no other state that is saved. */
	if (state->mp_state == KVM_MP_STATE_HALTED && READ_ONCE(vcpu->pv_unhalted))
		state->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

/* There are the first five; all but one are states of an APIC. */
long moat_vcpu_set_mp_state(void *object, void *arg, unsigned long uarg)
{
	u32 state = ((const struct kvm_mp_state *)arg)->mp_state;
	struct moat_vcpu *vcpu = object;

	if (state != KVM_MP_STATE_RUNNABLE &&
	    (state > KVM_MP_STATE_SIPI_RECEIVED || !vcpu->lapic))
		return -EINVAL;
	vcpu->mp_state = state;
	if (state == KVM_MP_STATE_SIPI_RECEIVED) {	/* the message is sent again */
		vcpu->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		moat_lapic_send(vcpu, APIC_DEST_SELF | APIC_DM_STARTUP |
				(u8)vcpu->events.sipi_vector, 0, false);
	}
	moat_request(vcpu, MOAT_REQ_EVENT);
	return 0;
}
