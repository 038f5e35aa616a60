// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interval timer of a PC, an 8254: three counters, of which the first makes ticks at GSI 0 and
 * the third is the speaker's, with its gate and output in port 0x61. Intel 8254 datasheet.
 *
 * A counter is the time at which its count was loaded: what it shows now is worked out when
 * somebody looks. BCD counts are taken as binary. Ticks are those of an hrtimer, whose callback
 * takes the lock; so whoever holds the lock starts it without waiting for a callback that is under
 * way, and that one finds the timer queued again, or stopped, and leaves it alone.
 *
 * A tick that finds the one before still being handled is not made but counted, and made up for
 * when the guest has ended that one (unless KVM_REINJECT_CONTROL says that ticks may get lost).
 * Those that the guest masks are nobody's loss.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/math64.h>

#include "../compat.h"
#include "irq.h"

#define PIT_HZ		1193182
#define PERIOD_MIN_NS	200000		/* a guest must not keep the host busy */
#define COUNT_MAX	0x10000

#define PORT_CONTROL	3		/* the last of the four */
#define PORT_SPEAKER	0x61
#define SPEAKER		2		/* its counter */
#define MODE_NONE	0xff		/* none was set yet */

/* How a counter is read and written: one half, or both in turn. */
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH, ACCESS_BOTH_HIGH };

struct moat_pit {
	struct moat_vm *vm;		/* (c) */
	raw_spinlock_t lock;		/* guards all below; taken in hard interrupts */
	struct kvm_pit_state2 state;
	struct hrtimer timer;
	bool running;			/* when the timer expires, it is a tick */
	bool reinject;
	u32 pending;			/* ticks to be made up for */
};

static bool pit_is_periodic(const struct kvm_pit_channel_state *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Of the first counter, in ns. */
static u64 pit_period(const struct moat_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[0];
	u64 period = mul_u64_u32_div(c->count, NSEC_PER_SEC, PIT_HZ);

	return pit_is_periodic(c) ? max_t(u64, period, PERIOD_MIN_NS) : period;
}

/* Makes one of the ticks that are due. */
static void pit_tick(struct moat_pit *pit)
{
	int r = moat_gsi_set(pit->vm, GSI_TIMER, MOAT_LINE_PIT, true, pit->reinject);

	moat_gsi_set(pit->vm, GSI_TIMER, MOAT_LINE_PIT, false, false);
	if (!pit->reinject || r < 0)
		pit->pending = 0;
	else if (r)
		pit->pending--;
}

static enum hrtimer_restart pit_expired(struct hrtimer *timer)
{
	struct moat_pit *pit = container_of(timer, struct moat_pit, timer);
	bool again = false;
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	if (pit->running && !hrtimer_is_queued(timer)) {
		again = pit_is_periodic(&pit->state.channels[0]);
		pit->pending += again ? hrtimer_forward_now(timer, pit_period(pit)) : 1;
		pit->running = again;
		pit_tick(pit);
	}
	raw_spin_unlock_irqrestore(&pit->lock, flags);
	return again ? HRTIMER_RESTART : HRTIMER_NORESTART;
}

void moat_pit_acked(struct moat_pit *pit)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	if (pit->pending)
		pit_tick(pit);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
}

/*
 * The first counter's state is another. A single tick whose time is over was perhaps never made, if
 * the state comes from another host: it comes, a whole count later.
 */
static void pit_start(struct moat_pit *pit)
{
	const struct kvm_pit_channel_state *c = &pit->state.channels[0];
	u64 period = pit_period(pit), now = ktime_get_ns(), end = c->count_load_time + period;

	pit->pending = 0;
	pit->running = c->mode <= 4 && !(pit->state.flags & KVM_PIT_FLAGS_HPET_LEGACY);
	if (end <= now)
		end = now + period - (pit_is_periodic(c) ? (now - end) % period : 0);
	if (pit->running)
		hrtimer_start(&pit->timer, end, HRTIMER_MODE_ABS_HARD);
	else
		hrtimer_try_to_cancel(&pit->timer);
}

/* Counters */

static u64 channel_passed(const struct kvm_pit_channel_state *c)
{
	return mul_u64_u32_div(ktime_get_ns() - c->count_load_time, PIT_HZ, NSEC_PER_SEC);
}

static u16 channel_count(const struct kvm_pit_channel_state *c)
{
	u64 passed = channel_passed(c);

	if (c->mode == 3)
		return c->count - 2 * passed % c->count;
	return c->count - (c->mode == 2 ? passed % c->count : passed);
}

static bool channel_out(const struct kvm_pit_channel_state *c)
{
	u64 passed = channel_passed(c), phase = passed % c->count;

	if (c->mode < 2)
		return passed >= c->count;
	if (c->mode == 3)
		return phase < (c->count + 1) / 2;
	/* High, but for one clock. */
	return c->mode == 2 ? phase != c->count - 1 : passed != c->count;
}

static void channel_load(struct moat_pit *pit, unsigned int n, u16 count)
{
	pit->state.channels[n].count = count ?: COUNT_MAX;
	pit->state.channels[n].count_load_time = ktime_get_ns();
	if (!n)
		pit_start(pit);
}

/* Whether it is the high half's turn, which then passes on where both are wanted. */
static bool half_next(u8 *access)
{
	bool high = *access == ACCESS_HIGH || *access == ACCESS_BOTH_HIGH;

	if (*access >= ACCESS_BOTH)
		*access = *access == ACCESS_BOTH ? ACCESS_BOTH_HIGH : ACCESS_BOTH;
	return high;
}

static void channel_write(struct moat_pit *pit, unsigned int n, u8 value)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[n];
	u8 access = c->write_state, low = access == ACCESS_BOTH_HIGH ? c->write_latch : 0;

	if (half_next(&c->write_state))
		channel_load(pit, n, value << 8 | low);
	else if (access != ACCESS_BOTH)
		channel_load(pit, n, value);
	else
		c->write_latch = value;
}

static u8 channel_read(struct kvm_pit_channel_state *c)
{
	u16 count = c->count_latched ? c->latched_count : channel_count(c);
	bool first = c->count_latched == ACCESS_BOTH, high;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	high = half_next(c->count_latched ? &c->count_latched : &c->read_state);
	if (c->count_latched)	/* the other half, or the count as it is again */
		c->count_latched = first ? ACCESS_HIGH : 0;
	return high ? count >> 8 : count;
}

static void channel_latch(struct kvm_pit_channel_state *c, bool count, bool status)
{
	if (count && !c->count_latched) {
		c->latched_count = channel_count(c);
		c->count_latched = c->rw_mode;
	}
	if (status && !c->status_latched) {
		c->status = channel_out(c) << 7 | c->rw_mode << 4 | c->mode << 1 | c->bcd;
		c->status_latched = 1;
	}
}

/* Bits 7 and 6 the counter, 5 and 4 how to access it, 3 to 1 the mode; or, 11, read-back. */
static void control_write(struct moat_pit *pit, u8 value)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[value >> 6];
	u8 access = value >> 4 & 3, mode = value >> 1 & 7;
	unsigned int n;

	if (value >> 6 == 3) {
		for (n = 0; n < 3; n++)
			if (value & 2 << n)
				channel_latch(&pit->state.channels[n], !(value & BIT(5)),
					      !(value & BIT(4)));
	} else if (access == ACCESS_LATCH) {
		channel_latch(c, true, false);
	} else {
		c->rw_mode = access;
		c->read_state = access;
		c->write_state = access;
		c->mode = mode > 5 ? mode - 4 : mode;
		c->bcd = value & 1;
		if (c == pit->state.channels)	/* stands still until a count comes */
			pit->running = false;
	}
}

/* Bits: 0 the gate, 1 the speaker's data, 4 memory refresh, which toggles each 15 us, 5 output. */
static void speaker_access(struct moat_pit *pit, u8 *value, bool in)
{
	struct kvm_pit_channel_state *c = &pit->state.channels[SPEAKER];

	if (in) {
		*value = c->gate | (ktime_get_ns() >> 14 & 1) << 4 | channel_out(c) << 5;
		if (pit->state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON)
			*value |= BIT(1);
		return;
	}
	if (*value & ~c->gate & 1 && c->mode != 0 && c->mode != 4)
		c->count_load_time = ktime_get_ns();
	c->gate = *value & 1;
	pit->state.flags &= ~KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	if (*value & BIT(1))
		pit->state.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
}

void moat_pit_port(struct moat_vm *vm, u16 port, u8 *value, bool in)
{
	struct moat_pit *pit = vm->chips->pit;
	unsigned int n = port & 3;
	unsigned long flags;

	raw_spin_lock_irqsave(&pit->lock, flags);
	if (port == PORT_SPEAKER)
		speaker_access(pit, value, in);
	else if (n == PORT_CONTROL && !in)
		control_write(pit, *value);
	else if (n != PORT_CONTROL && in)
		*value = channel_read(&pit->state.channels[n]);
	else if (n != PORT_CONTROL)
		channel_write(pit, n, *value);
	raw_spin_unlock_irqrestore(&pit->lock, flags);
}

/* Life */

long moat_vm_create_pit2(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_pit_config *config = arg;
	struct moat_vm *vm = object;
	struct moat_pit *pit;
	unsigned int n;

	if (!vm->chips)
		return -ENOENT;
	if (vm->chips->pit)
		return -EEXIST;
	if (config->flags & ~KVM_PIT_SPEAKER_DUMMY)
		return -EINVAL;
	pit = kzalloc(sizeof(*pit), GFP_KERNEL_ACCOUNT);
	if (!pit)
		return -ENOMEM;
	pit->vm = vm;
	pit->reinject = true;
	raw_spin_lock_init(&pit->lock);
	moat_hrtimer_setup(&pit->timer, pit_expired, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	for (n = 0; n < 3; n++) {
		pit->state.channels[n].mode = MODE_NONE;
		pit->state.channels[n].gate = n != SPEAKER;
		channel_load(pit, n, 0);
	}
	vm->chips->speaker = config->flags & KVM_PIT_SPEAKER_DUMMY;
	/* Whoever sees it sees all of it. */
	smp_store_release(&vm->chips->pit, pit);
	return 0;
}

void moat_pit_destroy(struct moat_pit *pit)
{
	if (pit)
		hrtimer_cancel(&pit->timer);
	kfree(pit);
}

static struct moat_pit *pit_of(struct moat_vm *vm)
{
	return vm->chips ? vm->chips->pit : NULL;
}

long moat_vm_get_pit2(void *object, void *arg, unsigned long uarg)
{
	struct moat_pit *pit = pit_of(object);

	if (!pit)
		return -ENXIO;
	raw_spin_lock_irq(&pit->lock);
	*(struct kvm_pit_state2 *)arg = pit->state;
	raw_spin_unlock_irq(&pit->lock);
	return 0;
}

long moat_vm_set_pit2(void *object, void *arg, unsigned long uarg)
{
	struct moat_pit *pit = pit_of(object);
	struct kvm_pit_state2 *state = arg;
	struct kvm_pit_channel_state *c;
	u64 now = ktime_get_ns();

	if (!pit)
		return -ENXIO;
	for (c = state->channels; c < state->channels + 3; c++) {
		if (c->count > COUNT_MAX)
			return -EINVAL;
		c->count = c->count ?: COUNT_MAX;
		c->gate &= 1;
		/* It was loaded at any time but the future. */
		c->count_load_time = min_t(u64, c->count_load_time, now);
	}
	memset(state->reserved, 0, sizeof(state->reserved));
	raw_spin_lock_irq(&pit->lock);
	pit->state = *state;
	pit_start(pit);
	raw_spin_unlock_irq(&pit->lock);
	return 0;
}

long moat_vm_reinject_control(void *object, void *arg, unsigned long uarg)
{
	struct moat_pit *pit = pit_of(object);
	struct kvm_reinject_control control;

	if (copy_from_user(&control, (void __user *)uarg, sizeof(control)))
		return -EFAULT;
	if (!pit)
		return -ENXIO;
	raw_spin_lock_irq(&pit->lock);
	pit->reinject = control.pit_reinject;
	raw_spin_unlock_irq(&pit->lock);
	return 0;
}
