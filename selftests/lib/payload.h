/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What guest code of the tests is written with: reports to the host, ports, MSRs, and traps.
 *
 * A report is an OUT to one of three ports, with its values in registers. guest_done() never
 * returns. GUEST_EQ and GUEST_CHECK tell the host of a failure and go on. Traps without a handler
 * are reported with vector, error code and RIP, and end the payload; GUEST_TRY() runs one
 * instruction and gives the vector of the fault that it caused, TRAP_NONE where there was none.
 */
#ifndef MOAT_PAYLOAD_H
#define MOAT_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>

#define PORT_DONE	0xe0
#define PORT_SYNC	0xe4
#define PORT_FAIL	0xe8
#define PORT_TRAP	0xec

#define TRAP_NONE	0xffff
#define TRAP_DE		0
#define TRAP_DB		1
#define TRAP_NMI	2
#define TRAP_BP		3
#define TRAP_UD		6
#define TRAP_NM		7
#define TRAP_DF		8
#define TRAP_GP		13
#define TRAP_PF		14

struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct guest_catch {
	uint64_t resume;	/* where a trap of the instruction under GUEST_TRY goes on */
	uint64_t vector;
	uint64_t error;
	uint64_t rip;
	uint64_t cr2;
};

typedef void guest_handler(struct trap_frame *frame);

extern struct guest_catch guest_caught;
extern guest_handler *guest_handlers[256];
extern const char guest_stubs[];	/* 256 entries of 16 bytes */

void guest_trap(struct trap_frame *frame);
void guest_done(void) __attribute__((noreturn));
void guest_sync2(uint64_t value, uint64_t value2);
void guest_fail(const char *what, uint64_t line, uint64_t got, uint64_t want);

static inline void guest_sync(uint64_t value)
{
	guest_sync2(value, 0);
}

#define GUEST_CHECK(holds) \
	do { \
		if (!(holds)) \
			guest_fail(#holds, __LINE__, 0, 1); \
	} while (0)
#define GUEST_EQ(got, want) \
	do { \
		uint64_t g_ = (uint64_t)(got), w_ = (uint64_t)(want); \
		if (g_ != w_) \
			guest_fail(#got, __LINE__, g_, w_); \
	} while (0)

/* The instruction may name operands, as asm does; r11 and memory are clobbered. */
#define GUEST_TRY(insn, ...) \
	({ \
		guest_caught.vector = TRAP_NONE; \
		__asm__ volatile("leaq 771f(%%rip), %%r11\n\t" \
				 "movq %%r11, guest_caught\n\t" \
				 insn "\n" \
				 "771:\n\t" \
				 "movq $0, guest_caught" \
				 __VA_ARGS__); \
		*(volatile uint64_t *)&guest_caught.vector; \
	})

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return low | (uint64_t)high << 32;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

/* TRAP_NONE, or the vector of the fault. */
static inline uint64_t wrmsr_try(uint32_t msr, uint64_t value)
{
	return GUEST_TRY("wrmsr", : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "r11", "memory");
}

static inline uint64_t rdmsr_try(uint32_t msr, uint64_t *value)
{
	uint32_t low = 0, high = 0;
	uint64_t vector;

	vector = GUEST_TRY("rdmsr", : "+a"(low), "+d"(high) : "c"(msr) : "r11", "memory");
	*value = low | (uint64_t)high << 32;
	return vector;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (uint64_t)high << 32;
}

static inline void cpuid(uint32_t leaf, uint32_t index, uint32_t out[4])
{
	__asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(leaf), "c"(index) : "memory");
}

static inline uint64_t read_cr2(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr2, %0" : "=r"(value) : : "memory");
	return value;
}

static inline uint64_t read_cr4(void)
{
	uint64_t value;

	__asm__ volatile("movq %%cr4, %0" : "=r"(value) : : "memory");
	return value;
}

static inline void write_cr4(uint64_t value)
{
	__asm__ volatile("movq %0, %%cr4" : : "r"(value) : "memory");
}

static inline void cpu_pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

#endif
