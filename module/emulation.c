// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the emulator needs of a vCPU: instruction bytes, memory, MMIO and ports.
 *
 * An instruction is fetched and decoded once, then executed on a copy of the registers. An access
 * that userspace must serve ends the pass: KVM_RUN returns, and the next one executes the
 * instruction again from its start. Accesses are made in the same order in each pass, so those
 * that are done are answered from a log, without being made twice: MMIO of userspace and the local
 * APIC's page alike. When a pass comes to its end, the registers are written back and the log is
 * forgotten.
 *
 * Nearly all MMIO is by plain moves, and these need none of it. The CPU has checked the access and
 * told its address, and the instruction is remembered: a write is done as soon as userspace is told
 * of it, a read when the answer has come.
 *
 * A vCPU whose RIP userspace moves in the meantime gives up the instruction: it is somewhere else
 * now.
 */
#include <linux/sched/signal.h>

#include "hw.h"
#include "irq/irq.h"
#include "x86/emulate.h"
#include "x86/walk.h"
#include "x86/x86.h"

#define PORT_VAPIC	0x7e
#define MODRM_VMCALL	0xc1
#define MODRM_VMMCALL	0xd9

/* One pass over guest memory on behalf of an instruction. */
struct access {
	struct moat_vcpu *vcpu;
	struct walk_ctx walk;
	struct emu_state state;
	bool atomic;		/* may not sleep: what is not present is not there */
	bool retry;		/* the page tables changed underfoot: nothing is wrong */
};

int moat_internal_error(struct moat_vcpu *vcpu, u32 suberror)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = suberror;
	run->internal.ndata = 0;
	return 0;
}

/* The kernel's code finds out what it cannot do by an exit; a program of the guest's, by #UD. */
static int emulation_failed(struct moat_vcpu *vcpu, const u8 *bytes, unsigned int count)
{
	struct kvm_run *run = vcpu->run;

	vcpu->emul.active = false;
	if (moat_sregs(vcpu)->ss.dpl == 3) {
		moat_inject_ud(vcpu);
		return 1;
	}
	moat_internal_error(vcpu, KVM_INTERNAL_ERROR_EMULATION);
	run->emulation_failure.ndata = 3;
	run->emulation_failure.flags =
		count ? KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES : 0;
	run->emulation_failure.insn_size = count;
	memset(run->emulation_failure.insn_bytes, 0, sizeof(run->emulation_failure.insn_bytes));
	memcpy(run->emulation_failure.insn_bytes, bytes, count);
	return 0;
}

/* Leaves the instruction at RIP behind, with what comes at the end of each instruction. */
void moat_insn_skip(struct moat_vcpu *vcpu, u64 rip)
{
	vcpu->rip = rip;
	vcpu->rflags &= ~X86_EFLAGS_RF;
	vcpu->irq_shadow = false;
	if (unlikely((vcpu->rflags | moat_debug_tf(vcpu)) & X86_EFLAGS_TF))
		moat_debug_step(vcpu);
}

/* Memory */

static int walk_read_entry(void *ctx, u64 gpa, void *entry, unsigned int len)
{
	struct access *a = ctx;

	return a->atomic ? moat_guest_read_atomic(a->vcpu->vm, gpa, entry, len) :
			   moat_guest_read(a->vcpu->vm, gpa, entry, len);
}

static int walk_update_entry(void *ctx, u64 gpa, u64 old, u64 new, unsigned int len)
{
	struct access *a = ctx;

	/* The CPU has set the accessed bits of what it executes: there is nothing to update. */
	if (a->atomic)
		return -EFAULT;
	return moat_guest_cmpxchg(a->vcpu, gpa, &old, new, len);
}

static void mmio_to_user(struct moat_vcpu *vcpu, u64 gpa, const void *data, unsigned int len,
			 bool write)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = gpa;
	run->mmio.len = len;
	run->mmio.is_write = write;
	if (write)
		memcpy(run->mmio.data, data, len);
}

/*
 * One piece of at most 8 bytes of MMIO: from the log, from the kernel's own devices, or, -EAGAIN,
 * from userspace.
 */
static int mmio_piece(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write)
{
	struct moat_emulation *emul = &vcpu->emul;
	struct moat_fragment *fragment;

	if (emul->cursor < emul->count) {
		fragment = &emul->log[emul->cursor++];
		if (!write)
			memcpy(data, fragment->data, len);
		return 0;
	}
	if (emul->count == MOAT_MAX_FRAGMENTS)
		return -E2BIG;
	fragment = &emul->log[emul->count++];
	*fragment = (struct moat_fragment) { .gpa = gpa, .len = len, .write = write };
	if (write)
		memcpy(fragment->data, data, len);
	if (!moat_iobus_mmio(vcpu, gpa, fragment->data, len, write)) {
		mmio_to_user(vcpu, gpa, data, len, write);
		return -EAGAIN;
	}
	if (!write)
		memcpy(data, fragment->data, len);
	emul->cursor++;
	return 0;
}

static int mmio_access(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write)
{
	int r = 0;

	while (len && !r) {
		unsigned int n = min_t(unsigned int, len, 8);

		r = mmio_piece(vcpu, gpa, data, n, write);
		gpa += n;
		data += n;
		len -= n;
	}
	return r;
}

/* Within one page. Memory where there is some, else MMIO, or what was MMIO when it was made. */
static int page_access(struct moat_vcpu *vcpu, u64 gpa, void *data, unsigned int len, bool write)
{
	const struct moat_emulation *emul = &vcpu->emul;

	if ((emul->cursor < emul->count && emul->log[emul->cursor].gpa == gpa) ||
	    moat_lapic_covers(vcpu, gpa) || !moat_guest_has(vcpu->vm, gpa, write))
		return mmio_access(vcpu, gpa, data, len, write);
	if (write)
		return moat_guest_write(vcpu, gpa, data, len);
	return moat_guest_read(vcpu->vm, gpa, data, len);
}

static int translate_by_walk(struct access *a, u64 linear, u32 access,
			     struct walk_result *ret_result)
{
	int r = walk_translate(&a->walk, linear, access, ret_result);

	if (r == WALK_FAULT)
		return emu_page_fault(&a->state, linear, ret_result->error);
	if (r) {
		a->retry = r == -ELOOP;
		return -EIO;
	}
	return 0;
}

/* Each page once for an instruction, however often it is executed again. */
static int translate(struct access *a, u64 linear, u32 access, u64 *ret_gpa)
{
	struct moat_emulation *emul = &a->vcpu->emul;
	u64 page = linear & PAGE_MASK;
	struct walk_result result;
	unsigned int i;
	int r;

	for (i = 0; i < emul->page_count; i++)
		if (emul->page[i].linear == page && !(access & ~emul->page[i].access)) {
			*ret_gpa = emul->page[i].gpa | offset_in_page(linear);
			return 0;
		}
	r = translate_by_walk(a, linear, access, &result);
	if (r)
		return r;
	*ret_gpa = result.gpa;
	if (emul->page_count < ARRAY_SIZE(emul->page))
		emul->page[emul->page_count++] = (struct moat_translation) {
			.linear = page, .gpa = *ret_gpa & PAGE_MASK, .access = access,
		};
	return 0;
}

/* Cuts an access at page borders. All pages are translated before any of them is touched. */
static int emu_access(void *ctx, u64 linear, void *data, unsigned int len, u32 access, bool write)
{
	struct access *a = ctx;
	unsigned int first = min_t(unsigned int, len, PAGE_SIZE - offset_in_page(linear));
	u64 gpa[2];
	int r = translate(a, linear, access, &gpa[0]);

	if (!r && first < len)
		r = translate(a, linear + first, access, &gpa[1]);
	if (!r)
		r = page_access(a->vcpu, gpa[0], data, first, write);
	if (!r && first < len)
		r = page_access(a->vcpu, gpa[1], data + first, len - first, write);
	return r == -EFAULT && !a->state.exception.vector ? -EIO : r;
}

static int emu_probe(void *ctx, u64 linear, unsigned int len, u32 access)
{
	struct access *a = ctx;
	u64 last = linear + len - 1, gpa;
	int r = translate(a, linear, access, &gpa);
	bool memory;

	if (r)
		return r;
	memory = moat_guest_has(a->vcpu->vm, gpa, access & WALK_WRITE);
	if ((last ^ linear) & PAGE_MASK) {
		r = translate(a, last & PAGE_MASK, access, &gpa);
		if (r)
			return r;
		memory = memory && moat_guest_has(a->vcpu->vm, gpa, access & WALK_WRITE);
	}
	return memory ? 0 : -ENXIO;
}

static int emu_cmpxchg(void *ctx, u64 linear, const void *old, const void *new, unsigned int len,
		       u32 access)
{
	struct access *a = ctx;
	u64 before = 0, after = 0, gpa;
	int r;

	if (len > sizeof(u64) || !IS_ALIGNED(linear, len))
		return -ENXIO;
	r = translate(a, linear, access | WALK_WRITE, &gpa);
	if (r)
		return r;
	if (!moat_guest_has(a->vcpu->vm, gpa, true))
		return -ENXIO;
	memcpy(&before, old, len);
	memcpy(&after, new, len);
	r = moat_guest_cmpxchg(a->vcpu, gpa, &before, after, len);
	if (r == -EAGAIN)
		return -EBUSY;
	return r ? -EIO : 0;
}

/* Ports */

/* Sets up a port exit whose data is in pio_data, page KVM_PIO_PAGE_OFFSET of the vCPU's mapping. */
static void pio_to_user(struct moat_vcpu *vcpu, u16 port, u8 size, bool in, u32 count)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
	run->io.size = size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = KVM_PIO_PAGE_OFFSET * PAGE_SIZE;
}

/* False where the kernel does not serve the port. Userspace may change pio_data at any time. */
static bool pio_in_kernel(struct moat_vcpu *vcpu, u16 port, u8 size, bool in, u32 count)
{
	void *data = vcpu->pio_data;
	u32 i, value = 0;

	for (i = 0; i < count; i++, data += size) {
		memcpy(&value, data, size);
		if (!moat_iobus_port(vcpu->vm, port, &value, size, in) && !i)
			return false;
		if (in)
			memcpy(data, &value, size);
	}
	return true;
}

static int emu_pio(void *ctx, u16 port, unsigned int size, void *data, unsigned int count, bool in)
{
	struct moat_vcpu *vcpu = ((struct access *)ctx)->vcpu;
	struct moat_emulation *emul = &vcpu->emul;

	/* Served: the data are where the emulator looks for them. Userspace may have changed RCX. */
	if (emul->pio_count)
		return min(emul->pio_count, count);
	if (pio_in_kernel(vcpu, port, size, in, count))
		return count;
	emul->pio_count = count;
	pio_to_user(vcpu, port, size, in, count);
	return -EAGAIN;
}

static const struct emu_ops emulation_ops = {
	.access = emu_access,
	.probe = emu_probe,
	.cmpxchg = emu_cmpxchg,
	.pio = emu_pio,
};

static void io_finish(struct moat_vcpu *vcpu, u32 value)
{
	u64 mask = emu_size_mask(vcpu->io.size);

	if (vcpu->io.in && vcpu->io.size == 4)
		vcpu->gpr[RAX] = value;
	else if (vcpu->io.in)
		vcpu->gpr[RAX] = (vcpu->gpr[RAX] & ~mask) | (value & mask);
	moat_insn_skip(vcpu, vcpu->io.next_rip);
}

static int io_complete(struct moat_vcpu *vcpu)
{
	/*
	 * Userspace may have moved RIP meanwhile; then this access is no longer where the guest
	 * is.
	 */
	if (vcpu->rip == vcpu->io.rip)
		io_finish(vcpu, READ_ONCE(*(u32 *)vcpu->pio_data));
	return 1;
}

bool moat_io_in_kernel(struct moat_vcpu *vcpu)
{
	u32 value = vcpu->gpr[RAX] & emu_size_mask(vcpu->io.size);

	if (!moat_iobus_port(vcpu->vm, vcpu->io.port, &value, vcpu->io.size, vcpu->io.in))
		return false;
	io_finish(vcpu, value);
	return true;
}

int moat_io_exit(struct moat_vcpu *vcpu)
{
	vcpu->io.rip = vcpu->rip;
	if (!vcpu->io.in)
		memcpy(vcpu->pio_data, &vcpu->gpr[RAX], vcpu->io.size);
	pio_to_user(vcpu, vcpu->io.port, vcpu->io.size, vcpu->io.in, 1);
	/* Userspace that patches the guest for KVM_SET_VAPIC_ADDR wants the end of the instruction. */
	if (vcpu->io.port == PORT_VAPIC && !vcpu->io.in)
		moat_insn_skip(vcpu, vcpu->io.next_rip);
	else
		vcpu->complete = io_complete;
	return 0;
}

/* Instructions */

static void access_init(struct access *a, struct moat_vcpu *vcpu, bool atomic)
{
	const struct kvm_sregs *s = moat_sregs(vcpu);

	a->vcpu = vcpu;
	a->atomic = atomic;
	a->retry = false;
	a->walk = (struct walk_ctx) {
		.sregs = s, .rflags = vcpu->rflags, .gpa_mask = vcpu->gpa_mask,
		.read_entry = walk_read_entry, .update_entry = walk_update_entry, .ctx = a,
	};
	a->state.sregs = s;
	a->state.cpl = s->ss.dpl;
	a->state.ops = &emulation_ops;
	a->state.ctx = a;
	a->state.pio_data = vcpu->pio_data;
	a->state.pio_size = PAGE_SIZE;
	a->state.exception.vector = 0;
	a->state.trap = false;
}

struct fetch {
	u8 bytes[MOAT_INSN_MAX];
	unsigned int count;
	u64 layout;			/* vm->layout before any of them was read */
	struct walk_result first;	/* of the first byte */
	struct moat_insn insn;
	struct access access;
};

/* As many bytes as the page at linear + fetch->count has. */
static int fetch_page(struct fetch *fetch, u64 linear)
{
	struct access *a = &fetch->access;
	u32 access = WALK_FETCH | (a->state.cpl == 3 ? WALK_USER : 0);
	u64 at = linear + fetch->count;
	unsigned int len = min_t(unsigned int, MOAT_INSN_MAX - fetch->count,
				 PAGE_SIZE - offset_in_page(at));
	struct walk_result result;
	int r = translate_by_walk(a, at, access, &result);

	if (r)
		return r;
	if (!fetch->count)
		fetch->first = result;
	r = walk_read_entry(a, result.gpa, fetch->bytes + fetch->count, len);
	if (!r)
		fetch->count += len;
	return r ? -EIO : 0;
}

/*
 * Reads and decodes the instruction at RIP: 0; -EFAULT, a #PF is noted; or as moat_insn_decode().
 */
static int fetch_insn(struct fetch *fetch, struct moat_vcpu *vcpu, bool atomic)
{
	enum moat_insn_mode mode;
	u64 linear;
	int r;

	access_init(&fetch->access, vcpu, atomic);
	mode = emu_mode(fetch->access.state.sregs, vcpu->rflags);
	linear = emu_code_address(fetch->access.state.sregs, vcpu->rip, mode);
	fetch->count = 0;
	/* Before any of its bytes; pairs with slot_replace(). */
	fetch->layout = smp_load_acquire(&vcpu->vm->layout);
	do {
		r = fetch_page(fetch, linear);
		if (r)
			return r;
		r = moat_insn_decode(&fetch->insn, fetch->bytes, fetch->count, mode);
	} while (r == -ENODATA && fetch->count < MOAT_INSN_MAX);
	return r;
}

static int inject_noted(struct access *a)
{
	struct moat_vcpu *vcpu = a->vcpu;

	if (a->state.exception.vector == X86_TRAP_PF)
		moat_sregs_change(vcpu)->cr2 = a->state.exception.cr2;
	moat_inject_exception(vcpu, a->state.exception.vector, a->state.exception.has_error,
			      a->state.exception.error);
	return 1;
}

int moat_system_access(struct moat_vcpu *vcpu, u64 linear, void *data, unsigned int len, bool write)
{
	struct access a;
	int r;

	access_init(&a, vcpu, false);
	vcpu->emul.page_count = 0;
	r = emu_access(&a, linear, data, len, WALK_IMPLICIT | (write ? WALK_WRITE : 0), write);
	if (a.retry)
		return -EAGAIN;
	return r == -EFAULT ? inject_noted(&a) : r;
}

/* What becomes of an instruction that could not be fetched or decoded: as moat_emulate(). */
static int fetch_failed(struct fetch *fetch, int error)
{
	struct access *a = &fetch->access;

	if (a->retry)
		return 1;
	switch (error) {
	case -EFAULT:
		return inject_noted(a);
	case -EINVAL:
		moat_inject_ud(a->vcpu);
		return 1;
	case -E2BIG:
		moat_inject_gp(a->vcpu);
		return 1;
	default:
		return emulation_failed(a->vcpu, fetch->bytes, fetch->count);
	}
}

static struct moat_insn_place *insn_place(struct moat_vcpu *vcpu, u64 linear)
{
	return &vcpu->insn_places[hash_64(linear, MOAT_INSN_PLACES_SHIFT)];
}

/*
 * Whether the words that hold it, and its page's entry, are what they were. (That their addresses
 * may be the owner's was checked when the slots were set.)
 */
static bool insn_is_there(const struct moat_insn_place *place)
{
	const u64 __user *window = (const u64 __user *)place->window;
	u64 low, high, leaf, changed = 1;

	pagefault_disable();
	if (user_access_begin(window, 2 * sizeof(*window))) {
		unsafe_get_user(low, window, end);
		unsafe_get_user(high, window + 1, end);
		unsafe_get_user(leaf, (const u64 __user *)place->leaf, end);
		changed = ((low ^ place->word[0]) & place->mask[0]) |
			  ((high ^ place->word[1]) & place->mask[1]) |
			  ((leaf ^ place->word[2]) & place->mask[2]);
end:
		user_access_end();
	}
	pagefault_enable();
	return !changed;
}

/* The instruction that was found there before, if it would be found there again; or NULL. */
static const struct moat_insn *insn_recall(struct moat_vcpu *vcpu, const struct moat_code *code)
{
	const struct moat_insn_place *place = insn_place(vcpu, code->linear);

	if (place->code.linear != code->linear || place->code.cr3 != code->cr3 ||
	    place->code.mode != code->mode || place->layout != READ_ONCE(vcpu->vm->layout) ||
	    !insn_is_there(place))
		return NULL;
	return &place->insn;
}

/* The page's entry: in an aligned word, of which it may be a half. Without paging, any word. */
static bool leaf_remember(struct moat_vcpu *vcpu, struct moat_insn_place *place,
			  const struct walk_result *first)
{
	unsigned int shift = (first->leaf_gpa & 7) * 8;

	place->leaf = place->window;
	place->mask[2] = 0;
	if (!first->leaf_size)
		return true;
	place->leaf = moat_guest_hva(vcpu->vm, first->leaf_gpa & ~7ULL);
	place->word[2] = first->leaf << shift;
	place->mask[2] = (first->leaf_size == 8 ? ~WALK_LEAF_MARKS : (u32)~WALK_LEAF_MARKS) << shift;
	return place->leaf;
}

/* What cannot be found again, as it goes over the end of a page, is there until the next. */
static const struct moat_insn *insn_remember(struct moat_vcpu *vcpu, const struct moat_code *code,
					     const struct fetch *fetch)
{
	const struct moat_insn *insn = &fetch->insn;
	struct moat_insn_place *place = insn_place(vcpu, code->linear);
	unsigned long hva = moat_guest_hva(vcpu->vm, fetch->first.gpa);
	unsigned long last = (hva & PAGE_MASK) + PAGE_SIZE - 2 * sizeof(place->word[0]);

	place->insn = *insn;
	place->code = *code;
	place->layout = fetch->layout;
	place->window = min(hva, last);
	if (!hva || offset_in_page(hva) + insn->length > PAGE_SIZE || insn->mode != code->mode ||
	    !leaf_remember(vcpu, place, &fetch->first)) {
		place->code.mode = 0;
		return &place->insn;
	}
	memset(place->mask, 0, 2 * sizeof(place->mask[0]));
	memset((u8 *)place->mask + (hva - place->window), 0xff, insn->length);
	memcpy((u8 *)place->word + (hva - place->window), fetch->bytes, insn->length);
	return &place->insn;
}

static noinline const struct moat_insn *insn_read(struct moat_vcpu *vcpu,
						  const struct moat_code *code)
{
	struct fetch fetch;

	return fetch_insn(&fetch, vcpu, true) ? NULL : insn_remember(vcpu, code, &fetch);
}

const struct moat_insn *moat_insn_find(struct moat_vcpu *vcpu)
{
	struct moat_code code;

	moat_hw->code_find(vcpu, &code);
	return insn_recall(vcpu, &code) ?: insn_read(vcpu, &code);
}

int moat_insn_mov_operands(struct moat_vcpu *vcpu, unsigned int *ret_reg, unsigned int *ret_gpr)
{
	const struct moat_insn *insn = moat_insn_find(vcpu);

	if (!insn)
		return 0;
	if (insn->op != INSN_MOV_CR && insn->op != INSN_MOV_DR)
		return -ENOENT;
	/* With LOCK, CR0 is CR8: AMD's way to it outside 64-bit mode. */
	*ret_reg = insn->prefixes & INSN_LOCK ? insn->reg | 8 : insn->reg;
	*ret_gpr = insn->rm;
	return insn->length;
}

int moat_insn_prefetch(struct moat_vcpu *vcpu)
{
	struct fetch fetch;
	int r = fetch_insn(&fetch, vcpu, false);

	return r ? fetch_failed(&fetch, r) : 1;
}

/*
 * A hypercall by the other vendor's instruction, VMCALL for VMMCALL: its last byte is changed, and
 * the guest executes the right one.
 */
static int hypercall_fix(struct access *a, const struct moat_insn *insn)
{
	u64 linear = emu_code_address(a->state.sregs, a->vcpu->rip, insn->mode);
	u8 modrm = insn->modrm ^ (MODRM_VMCALL ^ MODRM_VMMCALL);
	struct walk_result last;
	int r = translate_by_walk(a, linear + insn->length - 1,
				  WALK_WRITE | (a->state.cpl == 3 ? WALK_USER : 0), &last);

	if (r == -EFAULT)
		return inject_noted(a);
	if (!r && !moat_guest_write(a->vcpu, last.gpa, &modrm, 1))
		return 1;
	moat_inject_ud(a->vcpu);
	return 1;
}

int moat_undefined(struct moat_vcpu *vcpu)
{
	struct fetch fetch;
	const struct moat_insn *insn = &fetch.insn;

	if (!fetch_insn(&fetch, vcpu, false) && insn->map == 1 && insn->opcode == 1 &&
	    (insn->modrm == MODRM_VMCALL || insn->modrm == MODRM_VMMCALL))
		return hypercall_fix(&fetch.access, insn);
	moat_inject_ud(vcpu);
	return 1;
}

/* Emulation */

static void emulation_reset(struct moat_emulation *emul)
{
	emul->active = false;
	emul->count = 0;
	emul->page_count = 0;
	emul->pio_count = 0;
}

static int emulation_continue(struct moat_vcpu *vcpu);

static int emulation_complete(struct moat_vcpu *vcpu)
{
	struct moat_emulation *emul = &vcpu->emul;
	struct moat_fragment *last;

	if (emul->count && !emul->pio_count) {
		last = &emul->log[emul->count - 1];
		if (!last->write)
			memcpy(last->data, vcpu->run->mmio.data, last->len);
	}
	if (!emul->active || vcpu->rip != emul->rip) {
		emulation_reset(emul);
		return 1;
	}
	return emulation_continue(vcpu);
}

/* One pass over the instruction. */
static enum emu_result emulation_pass(struct moat_vcpu *vcpu, struct access *a)
{
	struct moat_emulation *emul = &vcpu->emul;
	enum emu_result result;

	access_init(a, vcpu, false);
	memcpy(a->state.regs.gpr, vcpu->gpr, sizeof(vcpu->gpr));
	a->state.regs.rip = vcpu->rip;
	a->state.regs.rflags = vcpu->rflags;
	emul->cursor = 0;
	result = emu_execute(&a->state, &emul->insn);
	if (result != EMU_OK && result != EMU_REPEAT)
		return result;
	emulation_reset(emul);
	memcpy(vcpu->gpr, a->state.regs.gpr, sizeof(vcpu->gpr));
	vcpu->rip = a->state.regs.rip;
	vcpu->rflags = a->state.regs.rflags;
	vcpu->irq_shadow = false;
	if (a->state.trap || moat_debug_tf(vcpu))
		moat_debug_step(vcpu);
	return result;
}

static int emulation_continue(struct moat_vcpu *vcpu)
{
	struct moat_emulation *emul = &vcpu->emul;
	enum emu_result result;
	struct access a;

	/* Rounds of a string instruction, as long as nothing else wants to be looked at. */
	do {
		result = emulation_pass(vcpu, &a);
	} while (result == EMU_REPEAT && !a.state.trap && !READ_ONCE(vcpu->requests) &&
		 !signal_pending(current) && !need_resched());
	switch (result) {
	case EMU_OK:
	case EMU_REPEAT:
		return 1;
	case EMU_EXIT:
		emul->active = true;
		emul->rip = vcpu->rip;
		vcpu->complete = emulation_complete;
		return 0;
	case EMU_FAULT:
		emulation_reset(emul);
		return inject_noted(&a);
	default:
		emulation_reset(emul);
		return a.retry ? 1 : emulation_failed(vcpu, NULL, 0);
	}
}

int moat_emulate(struct moat_vcpu *vcpu)
{
	struct moat_emulation *emul = &vcpu->emul;
	const struct moat_insn *known;
	struct moat_code code;
	struct fetch fetch;
	int r;

	vcpu->stats.emulations++;
	emulation_reset(emul);
	moat_hw->code_find(vcpu, &code);
	known = insn_recall(vcpu, &code);
	if (!known) {
		r = fetch_insn(&fetch, vcpu, false);
		if (r)
			return fetch_failed(&fetch, r);
		known = insn_remember(vcpu, &code, &fetch);
	}
	emul->insn = *known;
	return emulation_continue(vcpu);
}

/* Plain moves */

static bool move_is_at_fault(struct moat_vcpu *vcpu, const struct moat_insn *insn)
{
	u64 base = 0;

	if (!vcpu->fault.final || vcpu->fault.fetch || vcpu->fault.delivery ||
	    vcpu->fault.write != (insn->dst.kind == OPERAND_MEM))
		return false;
	if (insn->mode != INSN_64 || insn->seg >= INSN_FS)
		base = emu_segment(moat_sregs(vcpu), insn->seg)->base;
	return emu_move_is_at(insn, vcpu->gpr, vcpu->rip, base, vcpu->fault.gpa);
}

static int move_complete(struct moat_vcpu *vcpu)
{
	const struct moat_insn *insn = &vcpu->emul.insn;
	u64 data = 0;

	if (vcpu->rip != vcpu->emul.rip)
		return 1;
	memcpy(&data, vcpu->run->mmio.data, insn->src.size);
	emu_move_load(insn, vcpu->gpr, data);
	moat_insn_skip(vcpu, moat_insn_next(vcpu, insn));
	return 1;
}

enum moat_exit moat_mmio_move(struct moat_vcpu *vcpu)
{
	bool write = vcpu->fault.write, in_kernel;
	u64 gpa = vcpu->fault.gpa, data;
	const struct moat_insn *insn;
	struct moat_code code;

	moat_hw->code_find(vcpu, &code);
	insn = insn_recall(vcpu, &code);
	if (!insn || !move_is_at_fault(vcpu, insn) ||
	    (!moat_lapic_covers(vcpu, gpa) && moat_guest_has(vcpu->vm, gpa, write)))
		return MOAT_EXIT_FAULT;
	data = write ? emu_move_value(insn, vcpu->gpr) : 0;
	in_kernel = moat_iobus_mmio(vcpu, gpa, &data, insn->src.size, write);
	if (!in_kernel)
		mmio_to_user(vcpu, gpa, &data, insn->src.size, write);
	if (!in_kernel && !write) {
		vcpu->emul.insn = *insn;
		vcpu->emul.rip = vcpu->rip;
		vcpu->complete = move_complete;
		return MOAT_EXIT_USER;
	}
	if (!write)
		emu_move_load(insn, vcpu->gpr, data);
	moat_insn_skip(vcpu, moat_insn_next(vcpu, insn));
	if (!in_kernel)
		return MOAT_EXIT_USER;
	return unlikely(vcpu->eoi_pending) ? MOAT_EXIT_AGAIN : MOAT_NR_EXITS;
}
