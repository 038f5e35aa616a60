/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A PC's interrupt controllers, for guest code of the tests: local APIC (at its page, or by MSRs),
 * I/O APIC and the two PICs. A handler that counts, and waits for counts.
 */
#ifndef MOAT_PC_H
#define MOAT_PC_H

#include "payload.h"

#define XAPIC		0xfee00000ul
#define IOAPIC		0xfec00000ul
#define MSR_APIC_BASE	0x1b
#define BASE_X2APIC	0x400
#define BASE_ENABLE	0x800

#define APIC_ID		0x20
#define APIC_TPR	0x80
#define APIC_EOI	0xb0
#define APIC_LDR	0xd0
#define APIC_SVR	0xf0
#define APIC_ISR	0x100
#define APIC_IRR	0x200
#define APIC_LVT0	0x350
#define LVT_MASKED	0x10000
#define LVT_EXTINT	0x700

#define IOAPIC_ID	0
#define IOAPIC_VERSION	1
#define IOAPIC_ENTRY	0x10
#define ENTRY_LOGICAL	0x800ull
#define ENTRY_REMOTE	0x4000ull
#define ENTRY_LEVEL	0x8000ull
#define ENTRY_MASKED	0x10000ull
#define ENTRY_DEST(id)	((uint64_t)(id) << 56)

#define PIC1		0x20
#define PIC2		0xa0
#define ELCR		0x4d0
#define PIC_EOI		0x20
#define PIC_BASE	0x30	/* vectors of the 16 lines, from here */

static volatile bool pc_x2apic;
static volatile uint64_t pc_taken[256];		/* how often each vector came */

static inline void apic_write(uint32_t reg, uint32_t value)
{
	if (pc_x2apic)
		wrmsr(0x800 + reg / 16, value);
	else
		*(volatile uint32_t *)(XAPIC + reg) = value;
}

static inline uint32_t apic_read(uint32_t reg)
{
	return pc_x2apic ? rdmsr(0x800 + reg / 16) : *(volatile uint32_t *)(XAPIC + reg);
}

/* Lets the PICs through no more; leaves all vectors to the APIC. */
static inline void apic_enable(bool x2)
{
	if (x2)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_X2APIC | BASE_ENABLE);
	pc_x2apic = x2;
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_LVT0, LVT_MASKED);
}

static inline bool apic_vector(uint32_t reg, unsigned int vector)
{
	return apic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

static inline uint32_t ioapic_read(uint32_t reg)
{
	*(volatile uint32_t *)IOAPIC = reg;
	return *(volatile uint32_t *)(IOAPIC + 0x10);
}

static inline void ioapic_write(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)IOAPIC = reg;
	*(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static inline uint64_t ioapic_entry(unsigned int pin)
{
	uint64_t low = ioapic_read(IOAPIC_ENTRY + 2 * pin);

	return low | (uint64_t)ioapic_read(IOAPIC_ENTRY + 2 * pin + 1) << 32;
}

static inline void ioapic_set(unsigned int pin, uint64_t entry)
{
	ioapic_write(IOAPIC_ENTRY + 2 * pin + 1, entry >> 32);
	ioapic_write(IOAPIC_ENTRY + 2 * pin, entry);
}

/* Both chips from their beginning; all lines but those in mask let through. */
static inline void pic_setup(uint16_t mask, uint8_t icw4)
{
	outb(PIC1, 0x11);
	outb(PIC1 + 1, PIC_BASE);
	outb(PIC1 + 1, 4);
	outb(PIC1 + 1, icw4 | 1);
	outb(PIC2, 0x11);
	outb(PIC2 + 1, PIC_BASE + 8);
	outb(PIC2 + 1, 2);
	outb(PIC2 + 1, icw4 | 1);
	outb(PIC1 + 1, mask);
	outb(PIC2 + 1, mask >> 8);
}

static inline uint8_t pic_irr(uint16_t port)
{
	outb(port, 0xa);
	return inb(port);
}

static inline uint8_t pic_isr(uint16_t port)
{
	outb(port, 0xb);
	return inb(port);
}

static inline void irq_on(void)
{
	__asm__ volatile("sti; nop" : : : "memory");
}

static inline void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

static inline void taken_wait(unsigned int vector, uint64_t count)
{
	while (pc_taken[vector] < count)
		cpu_pause();
}

/* The same, in HLT; interrupts off before and after. */
static inline void taken_halt(unsigned int vector, uint64_t count)
{
	while (pc_taken[vector] < count)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void __attribute__((unused)) apic_handler(struct trap_frame *frame)
{
	__atomic_add_fetch(&pc_taken[frame->vector], 1, __ATOMIC_SEQ_CST);
	apic_write(APIC_EOI, 0);
}

static void __attribute__((unused)) pic_handler(struct trap_frame *frame)
{
	pc_taken[frame->vector]++;
	if (frame->vector >= PIC_BASE + 8)
		outb(PIC2, PIC_EOI);
	outb(PIC1, PIC_EOI);
}

#endif
