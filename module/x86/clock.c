// SPDX-License-Identifier: GPL-2.0-only
/*
 * Time: the guest's TSC, and KVM's paravirtual clock.
 *
 * The guest's TSC is the host's plus an offset, at the host's rate. All vCPUs of a VM start with
 * one offset, by which the TSC was 0 when the VM was made. Userspace that restores a TSC does so
 * vCPU by vCPU, each a little later: a value within a second of where the VM's TSC is by now, or
 * 0, means that TSC. What the guest itself writes is taken to the letter.
 *
 * The paravirtual clock is a page that says: at TSC value t it was ns, and a cycle is so long.
 * The guest does the rest. Where all CPUs of the host share one TSC and the host keeps its time
 * by it, one pair (t, ns) serves all vCPUs for ever: two vCPUs can never see time go backwards
 * between them, and the page says so (PVCLOCK_TSC_STABLE_BIT), provided that their TSCs agree
 * too, for Linux reads the first vCPU's page on all of them. Where the host's TSC cannot be
 * trusted, a new pair is taken from the host's raw monotonic clock whenever a vCPU comes to
 * another CPU, and the guest takes care of order.
 *
 * A clock that was stable may cease to be; it goes on from where it was. It does not become stable
 * again unless userspace sets it.
 */
#include <linux/clocksource_ids.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/timekeeping.h>
#include <asm/kvm_para.h>
#include <asm/pvclock-abi.h>
#include <asm/tsc.h>

#include "../compat.h"
#include "../irq/irq.h"
#include "x86.h"

#define TSC_TOLERANCE_PPM 250

#define CLOCK_FLAGS	(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

/* The host's clocks at one moment. */
struct sample {
	u64 tsc;
	u64 raw;
	u64 real;
	bool stable;		/* and they tell the time by a TSC that can be trusted */
};

/* The host keeps its time by the TSC if the counter it used is what the TSC was just then. */
static void sample_take(struct sample *sample)
{
	struct system_time_snapshot snapshot;
	unsigned long flags;
	u64 before, after;

	local_irq_save(flags);
	before = rdtsc_ordered();
	ktime_get_snapshot(&snapshot);
	after = rdtsc_ordered();
	local_irq_restore(flags);
	sample->stable = !check_tsc_unstable() && snapshot.cycles - before <= after - before;
	sample->tsc = sample->stable ? snapshot.cycles : before;
	sample->raw = ktime_to_ns(snapshot.raw);
	sample->real = ktime_to_ns(snapshot.real);
}

/*
 * Nanoseconds are (cycles << shift) * mul / 2^32. The shift brings the rate between 1 and 2 GHz,
 * so that mul uses all of its 32 bits.
 */
static void scale_set(struct moat_clock *clock)
{
	u64 rate = max_t(u64, tsc_khz, 1) * 1000;

	for (clock->shift = 0; rate > 2 * NSEC_PER_SEC; clock->shift--)
		rate >>= 1;
	for (; rate <= NSEC_PER_SEC; clock->shift++)
		rate <<= 1;
	clock->mul = div64_u64((u64)NSEC_PER_SEC << 32, rate);
}

static u64 cycles_to_ns(const struct moat_clock *clock, u64 cycles)
{
	if (clock->shift < 0)
		cycles >>= -clock->shift;
	else
		cycles <<= clock->shift;
	return mul_u64_u32_shr(cycles, clock->mul, 32);
}

static void clock_set(struct moat_clock *clock, const struct sample *sample, u64 ns)
{
	clock->stable = sample->stable;
	clock->tsc = sample->tsc;
	clock->raw = sample->raw;
	clock->ns = ns;
}

void moat_clock_create(struct moat_vm *vm)
{
	struct sample sample;

	spin_lock_init(&vm->clock.lock);
	sample_take(&sample);
	scale_set(&vm->clock);
	clock_set(&vm->clock, &sample, 0);
	vm->clock.tsc_offset = -sample.tsc;
}

/* All vCPUs write their pages again, and take over a new TSC offset. */
static void clock_request(struct moat_vm *vm)
{
	moat_vm_request(vm, MOAT_REQ_CLOCK);
}

/* The guest's time when the sample was taken. */
static u64 clock_read(struct moat_vm *vm, const struct sample *sample)
{
	struct moat_clock *clock = &vm->clock;
	u64 cycles, ns;
	bool lost;

	spin_lock(&clock->lock);
	if (clock->stable) {
		/* Another CPU's TSC may be a few cycles behind. */
		cycles = max_t(s64, sample->tsc - clock->tsc, 0);
		ns = clock->ns + cycles_to_ns(clock, cycles);
	} else {
		ns = clock->ns + (sample->raw - clock->raw);
	}
	lost = clock->stable && !sample->stable;
	if (lost)
		clock_set(clock, sample, ns);
	spin_unlock(&clock->lock);
	if (lost)
		clock_request(vm);
	return ns;
}

/* The guest's TSC */

u64 moat_guest_tsc(struct moat_vcpu *vcpu)
{
	return rdtsc() + READ_ONCE(vcpu->msrs.tsc_offset);
}

static bool tsc_is_in_step(struct moat_vcpu *vcpu)
{
	struct moat_vcpu *other;
	u32 id;

	moat_for_each_vcpu(vcpu->vm, other, id)
		if (READ_ONCE(other->msrs.tsc_offset) != vcpu->msrs.tsc_offset)
			return false;
	return true;
}

/* What waits for a moment by the TSC follows. The hardware takes it over after the request. */
void moat_tsc_offset_set(struct moat_vcpu *vcpu, u64 offset)
{
	u64 deadline = moat_lapic_get_deadline(vcpu);

	if (offset == vcpu->msrs.tsc_offset)
		return;
	WRITE_ONCE(vcpu->msrs.tsc_offset, offset);
	if (deadline)
		moat_lapic_set_deadline(vcpu, deadline);
	clock_request(vcpu->vm);
}

void moat_tsc_reset(struct moat_vcpu *vcpu)
{
	struct moat_clock *clock = &vcpu->vm->clock;

	spin_lock(&clock->lock);
	WRITE_ONCE(vcpu->msrs.tsc_offset, clock->tsc_offset);
	spin_unlock(&clock->lock);
	if (!tsc_is_in_step(vcpu))
		clock_request(vcpu->vm);
}

/* The offset that userspace means by this value. */
static u64 tsc_offset_for(struct moat_clock *clock, u64 value)
{
	u64 second = (u64)tsc_khz * 1000;
	u64 now = rdtsc(), expected, offset;
	bool joins;

	spin_lock(&clock->lock);
	expected = now + clock->tsc_offset;
	joins = clock->tsc_chosen && value - expected + second < 2 * second;
	if (value && !joins) {
		clock->tsc_offset = value - now;
		clock->tsc_chosen = true;
	}
	offset = clock->tsc_offset;
	spin_unlock(&clock->lock);
	return offset;
}

void moat_tsc_write(struct moat_vcpu *vcpu, u64 value, bool host)
{
	u64 offset;

	if (host) {
		offset = tsc_offset_for(&vcpu->vm->clock, value);
	} else {
		offset = value - rdtsc();
		vcpu->msrs.tsc_adjust += offset - vcpu->msrs.tsc_offset;
	}
	moat_tsc_offset_set(vcpu, offset);
}

/* Pages in guest memory */

/* What the guest's address leads to is the guest's own affair. */
void moat_versioned_write(struct moat_vcpu *vcpu, u64 version_gpa, u64 gpa, const void *data,
			  size_t len)
{
	u32 version;

	if (moat_guest_read(vcpu->vm, version_gpa, &version, sizeof(version)))
		return;
	version += 1 + (version & 1);
	moat_guest_write(vcpu, version_gpa, &version, sizeof(version));
	smp_wmb();	/* odd before any of the rest */
	moat_guest_write(vcpu, gpa, data, len);
	smp_wmb();	/* all of the rest before even */
	version++;
	moat_guest_write(vcpu, version_gpa, &version, sizeof(version));
}

/* Of the clock's pages the version comes first. */
static void page_write(struct moat_vcpu *vcpu, u64 gpa, const void *page, size_t len)
{
	moat_versioned_write(vcpu, gpa, gpa + sizeof(u32), page + sizeof(u32), len - sizeof(u32));
}

static void time_page_write(struct moat_vcpu *vcpu, const struct sample *sample, u64 ns)
{
	struct moat_clock *clock = &vcpu->vm->clock;
	struct pvclock_vcpu_time_info page = {};
	u64 gpa = vcpu->pv_time_gpa;

	/* That it was stopped stands there until the guest takes it away. */
	moat_guest_read(vcpu->vm, gpa + offsetof(typeof(page), flags), &page.flags, 1);
	page.flags &= PVCLOCK_GUEST_STOPPED;
	if (vcpu->pv_stopped)
		page.flags |= PVCLOCK_GUEST_STOPPED;
	vcpu->pv_stopped = false;
	spin_lock(&clock->lock);
	page.tsc_to_system_mul = clock->mul;
	page.tsc_shift = clock->shift;
	page.tsc_timestamp = clock->stable ? clock->tsc : sample->tsc;
	page.system_time = clock->stable ? clock->ns : ns;
	if (clock->stable && tsc_is_in_step(vcpu))
		page.flags |= PVCLOCK_TSC_STABLE_BIT;
	spin_unlock(&clock->lock);
	page.tsc_timestamp += vcpu->msrs.tsc_offset;
	page_write(vcpu, gpa, &page, sizeof(page));
}

/* The moment when the guest's clock was 0. */
static void wall_clock_write(struct moat_vcpu *vcpu, const struct sample *sample, u64 ns)
{
	struct pvclock_wall_clock page = {};
	u32 rest;

	page.sec = div_u64_rem(sample->real - ns, NSEC_PER_SEC, &rest);
	page.nsec = rest;
	page_write(vcpu, READ_ONCE(vcpu->vm->wall_clock_msr), &page, sizeof(page));
}

void moat_clock_update(struct moat_vcpu *vcpu)
{
	struct sample sample;
	u64 ns;

	if (!vcpu->pv_time_on && !vcpu->pv_wall_clock_due)
		return;
	sample_take(&sample);
	ns = clock_read(vcpu->vm, &sample);
	if (vcpu->pv_time_on)
		time_page_write(vcpu, &sample, ns);
	if (vcpu->pv_wall_clock_due)
		wall_clock_write(vcpu, &sample, ns);
	vcpu->pv_wall_clock_due = false;
}

void moat_clock_set_system_time(struct moat_vcpu *vcpu, u64 value)
{
	vcpu->msrs.pv_system_time = value;
	vcpu->pv_time_gpa = value & ~(u64)KVM_MSR_ENABLED;
	vcpu->pv_time_on = value & KVM_MSR_ENABLED;
	moat_request(vcpu, MOAT_REQ_CLOCK);
}

void moat_clock_set_wall_clock(struct moat_vcpu *vcpu, u64 value)
{
	WRITE_ONCE(vcpu->vm->wall_clock_msr, value);
	vcpu->pv_wall_clock_due = value;
	moat_request(vcpu, MOAT_REQ_CLOCK);
}

/* Ioctls */

long moat_vm_get_clock(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	struct kvm_clock_data *data = arg;
	struct sample sample;

	memset(data, 0, sizeof(*data));
	sample_take(&sample);
	data->clock = clock_read(vm, &sample);
	if (sample.stable && READ_ONCE(vm->clock.stable)) {
		data->flags = CLOCK_FLAGS;
		data->realtime = sample.real;
		data->host_tsc = sample.tsc;
	}
	return 0;
}

/* With the real time at which the clock was read, it goes on as if it had never stood still. */
long moat_vm_set_clock(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	const struct kvm_clock_data *data = arg;
	struct sample sample;
	u64 ns = data->clock;

	if (data->flags & ~CLOCK_FLAGS)
		return -EINVAL;
	sample_take(&sample);
	if ((data->flags & KVM_CLOCK_REALTIME) && sample.real > data->realtime)
		ns += sample.real - data->realtime;
	spin_lock(&vm->clock.lock);
	clock_set(&vm->clock, &sample, ns);
	spin_unlock(&vm->clock.lock);
	clock_request(vm);
	return 0;
}

/* The guest's watchdogs are to hear that the guest stood still by its host's will. */
long moat_vcpu_kvmclock_ctrl(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;

	if (!vcpu->pv_time_on)
		return -EINVAL;
	vcpu->pv_stopped = true;
	moat_request(vcpu, MOAT_REQ_CLOCK);
	return 0;
}

long moat_vcpu_get_tsc_khz(void *object, void *arg, unsigned long uarg)
{
	return tsc_khz;
}

/* Guests run at the host's rate; what is as good as that is taken for it. 0 asks for just that. */
long moat_vcpu_set_tsc_khz(void *object, void *arg, unsigned long uarg)
{
	unsigned long tolerance = (u64)tsc_khz * TSC_TOLERANCE_PPM / 1000000;

	return uarg && (uarg < tsc_khz - tolerance || uarg > tsc_khz + tolerance) ? -EINVAL : 0;
}

/* The one attribute that a vCPU has: by how much its TSC is ahead of the host's. */
long moat_vcpu_has_device_attr(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_device_attr *attr = arg;

	return attr->flags || attr->group != KVM_VCPU_TSC_CTRL || attr->attr != KVM_VCPU_TSC_OFFSET ?
	       -ENXIO : 0;
}

long moat_vcpu_get_device_attr(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_device_attr *attr = arg;
	struct moat_vcpu *vcpu = object;

	return moat_vcpu_has_device_attr(object, arg, 0) ?:
	       put_user(vcpu->msrs.tsc_offset, (u64 __user *)attr->addr);
}

/* Those that are made later begin with it. */
long moat_vcpu_set_device_attr(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_device_attr *attr = arg;
	struct moat_vcpu *vcpu = object;
	struct moat_clock *clock = &vcpu->vm->clock;
	u64 offset;

	if (moat_vcpu_has_device_attr(object, arg, 0))
		return -ENXIO;
	if (get_user(offset, (u64 __user *)attr->addr))
		return -EFAULT;
	spin_lock(&clock->lock);
	clock->tsc_offset = offset;
	clock->tsc_chosen = true;
	spin_unlock(&clock->lock);
	moat_tsc_offset_set(vcpu, offset);
	return 0;
}
