// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two 8259A interrupt controllers, as in a PC: the second's output is the first's pin 2. Intel
 * 8259A datasheet; the edge/level registers at 0x4d0 are those of the PIIX.
 *
 * What they ask for goes to every vCPU whose local APIC lets the PIC through (LVT0 in ExtINT mode,
 * or APIC off); the first to acknowledge gets the vector, and one that comes when there is nothing
 * left gets the spurious one, pin 7's.
 */
#include "irq.h"

#define CASCADE		2	/* pin of the first chip */
#define SPURIOUS	7
#define NOTHING		8	/* a priority below all */

#define PORT_SECOND	0x80	/* bit of the second chip's ports */

#define ICW1		BIT(4)
#define ICW1_ICW4	BIT(0)
#define ICW4_AUTO_EOI	BIT(1)
#define ICW4_NESTED	BIT(4)
#define OCW3		BIT(3)

/* Which of these pins comes first: how far it is from the one of highest priority. */
static unsigned int pic_first(const struct kvm_pic_state *chip, u8 pins)
{
	u8 turned = ror8(pins, chip->priority_add);

	return turned ? __ffs(turned) : NOTHING;
}

static u8 pic_pin(const struct kvm_pic_state *chip, unsigned int priority)
{
	return (priority + chip->priority_add) & 7;
}

/* The pin whose request gets through, or -1. */
static int pic_request(const struct moat_chips *chips, bool second)
{
	const struct kvm_pic_state *chip = &chips->pic[second];
	unsigned int priority = pic_first(chip, chip->irr & ~chip->imr);
	u8 holding_back = chip->isr;

	if (chip->special_fully_nested_mode && !second)
		holding_back &= ~BIT(CASCADE);
	if (chip->special_mask)
		holding_back &= ~chip->imr;
	return priority < pic_first(chip, holding_back) ? pic_pin(chip, priority) : -1;
}

/* After any change: the cascade, and the line to the CPUs. */
static void pic_update(struct moat_chips *chips)
{
	bool was_up = chips->pic_output;
	struct moat_vcpu *vcpu;
	u32 id;

	lockdep_assert_held(&chips->lock);
	chips->pic[0].irr &= ~BIT(CASCADE);
	if (pic_request(chips, true) >= 0)
		chips->pic[0].irr |= BIT(CASCADE);
	WRITE_ONCE(chips->pic_output, pic_request(chips, false) >= 0);
	if (was_up || !chips->pic_output)
		return;
	moat_for_each_vcpu(chips->vm, vcpu, id)
		if (moat_lapic_accepts_pic(vcpu)) {
			moat_request(vcpu, MOAT_REQ_EVENT);
			moat_vcpu_kick(vcpu);
		}
}

int moat_pic_line(struct moat_chips *chips, u8 pin, bool level)
{
	struct kvm_pic_state *chip = &chips->pic[pin / 8];
	u8 bit = BIT(pin % 8);
	bool asks = level && ((chip->elcr & bit) || !(chip->last_irr & bit));
	bool asked = chip->irr & bit;

	if (asks)
		chip->irr |= bit;
	else if (!level)
		chip->irr &= ~(bit & chip->elcr);
	chip->last_irr = level ? chip->last_irr | bit : chip->last_irr & ~bit;
	pic_update(chips);
	if (chip->imr & bit)
		return -1;
	return !(asks && asked);
}

static void pic_end(struct moat_chips *chips, bool second, u8 pin)
{
	chips->pic[second].isr &= ~BIT(pin);
	chips->pic_acked |= BIT(pin + 8 * second);
}

/* A CPU's acknowledgement reaches this chip: the pin that it is for, or -1. */
static int pic_take(struct moat_chips *chips, bool second)
{
	struct kvm_pic_state *chip = &chips->pic[second];
	int pin = pic_request(chips, second);

	if (pin < 0)
		return -1;
	chip->isr |= BIT(pin);
	chip->irr &= ~BIT(pin) | chip->elcr;
	if (!chip->auto_eoi)
		return pin;
	if (chip->rotate_on_auto_eoi)
		chip->priority_add = (pin + 1) & 7;
	pic_end(chips, second, pin);
	return pin;
}

u8 moat_pic_accept(struct moat_chips *chips)
{
	unsigned long flags = moat_chips_lock(chips);
	int pin = pic_take(chips, false);
	bool second = pin == CASCADE;

	if (second)
		pin = pic_take(chips, true);
	pic_update(chips);
	moat_chips_unlock(chips, flags);
	return chips->pic[second].irq_base + (pin < 0 ? SPURIOUS : pin);
}

/* Ports */

/* ICW1: begins anew. */
static void pic_init(struct moat_chips *chips, bool second, u8 value)
{
	struct kvm_pic_state *chip = &chips->pic[second];

	chips->pic_acked |= (chip->isr | (chip->irr & ~chip->elcr)) << 8 * second;
	*chip = (struct kvm_pic_state) {
		.irr = chip->irr & chip->elcr,
		.irq_base = chip->irq_base,
		.init_state = 1,
		.init4 = value & ICW1_ICW4,
		.elcr = chip->elcr,
		.elcr_mask = chip->elcr_mask,
	};
}

/* ICW2 to ICW4 in their order, then the mask (OCW1). */
static void pic_write_data(struct kvm_pic_state *chip, u8 value)
{
	switch (chip->init_state) {
	case 0:
		chip->imr = value;
		break;
	case 1:
		chip->irq_base = value & ~7;
		chip->init_state = 2;
		break;
	case 2:		/* which pin the cascade is at: wired */
		chip->init_state = chip->init4 ? 3 : 0;
		break;
	default:
		chip->special_fully_nested_mode = !!(value & ICW4_NESTED);
		chip->auto_eoi = !!(value & ICW4_AUTO_EOI);
		chip->init_state = 0;
	}
}

/* OCW2. Bits: 7 rotate priorities, 6 the pin is named in bits 2 to 0, 5 end of interrupt. */
static void pic_write_end(struct moat_chips *chips, bool second, u8 value)
{
	struct kvm_pic_state *chip = &chips->pic[second];
	bool rotate = value & BIT(7), named = value & BIT(6), end = value & BIT(5);
	unsigned int priority = pic_first(chip, chip->isr);
	u8 pin = named ? value & 7 : pic_pin(chip, priority);

	if (!named && !end)
		chip->rotate_on_auto_eoi = rotate;
	else if (!named && priority == NOTHING)
		return;
	else if (rotate)
		chip->priority_add = (pin + 1) & 7;
	if (end)
		pic_end(chips, second, pin);
}

static void pic_write_command(struct moat_chips *chips, bool second, u8 value)
{
	struct kvm_pic_state *chip = &chips->pic[second];

	if (value & ICW1)
		return pic_init(chips, second, value);
	if (!(value & OCW3))
		return pic_write_end(chips, second, value);
	if (value & BIT(2))
		chip->poll = 1;
	if (value & BIT(1))
		chip->read_reg_select = value & 1;
	if (value & BIT(6))
		chip->special_mask = value >> 5 & 1;
}

static u8 pic_read(struct moat_chips *chips, bool second, bool data)
{
	struct kvm_pic_state *chip = &chips->pic[second];
	int pin;

	if (chip->poll) {	/* stands for a CPU's acknowledgement, and for the end at once */
		chip->poll = 0;
		pin = pic_take(chips, second);
		if (pin >= 0)
			pic_end(chips, second, pin);
		return pin < 0 ? SPURIOUS : BIT(7) | pin;
	}
	if (data)
		return chip->imr;
	return chip->read_reg_select ? chip->isr : chip->irr;
}

void moat_pic_port(struct moat_vm *vm, u16 port, u8 *value, bool in)
{
	unsigned long flags = moat_chips_lock(vm->chips);
	bool second = port & PORT_SECOND;

	if (in)
		*value = pic_read(vm->chips, second, port & 1);
	else if (port & 1)
		pic_write_data(&vm->chips->pic[second], *value);
	else
		pic_write_command(vm->chips, second, *value);
	pic_update(vm->chips);
	moat_chips_unlock(vm->chips, flags);
}

void moat_elcr_port(struct moat_vm *vm, u16 port, u8 *value, bool in)
{
	struct kvm_pic_state *chip = &vm->chips->pic[port & 1];

	if (in)
		*value = READ_ONCE(chip->elcr);
	else
		WRITE_ONCE(chip->elcr, *value & chip->elcr_mask);
}

void moat_pic_set_state(struct moat_chips *chips, bool second, const struct kvm_pic_state *state)
{
	chips->pic[second] = *state;
	chips->pic[second].priority_add &= 7;
	pic_update(chips);
}

void moat_pic_reset(struct moat_chips *chips)
{
	/* Timer, keyboard and cascade; clock and coprocessor: always edges. */
	chips->pic[0].elcr_mask = 0xf8;
	chips->pic[1].elcr_mask = 0xde;
}
