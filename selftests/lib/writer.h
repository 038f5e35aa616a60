/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Guests that write where they are told, or at random, and a judge of what a dirty log says of it.
 *
 * All work in one slot of their own, WRITER_SLOT, which a test adds at WRITER_GPA.
 *
 * The judge keeps a copy of what the pages hold. After each harvest of the log it is told which
 * pages were in it, and takes those into its copy. A page that was not, and yet differs, must have
 * been written after the harvest; so the next one has to have it. Thus each write that is missed
 * is found out, be it one that a later write to the same page would hide. The kernel's own writes
 * come first and are logged after that: they must be in the first harvest that begins when the
 * writer has gone on.
 */
#ifndef MOAT_WRITER_H
#define MOAT_WRITER_H

#include "guest.h"

#define WRITER_SLOT	1
#define WRITER_GPA	0x40000000ul
#define WRITER_VCPUS	4
/* Pages of a test that go into the judge. */
#define WRITER_PAGES	1024

enum writer_op {
	WRITER_READ,
	WRITER_WRITE,
	WRITER_COPY,		/* MOVSQ from MMIO: the emulator writes */
	WRITER_CLOCK,		/* the kernel writes its clock there */
};

/* Memory for a slot, aligned to 2 MiB; flags for mmap, MAP_HUGETLB among them. NULL for none. */
void *writer_memory(size_t size, int flags);
void writer_slot(struct vm *vm, void *memory, size_t pages, uint32_t flags);

/* A vCPU that takes orders. */
struct vcpu *writer_create(struct vm *vm, uint32_t id);
/* Does op to count pages, the first and each step further. False, and the case fails, else. */
bool writer_do(struct vcpu *vcpu, enum writer_op op, uint64_t first, uint64_t count,
	       uint64_t step);
/* The same in two parts: what ends the run is returned, MMIO is served. */
void writer_order(struct vcpu *vcpu, enum writer_op op, uint64_t first, uint64_t count,
		  uint64_t step);
struct report writer_run(struct vcpu *vcpu);

/* What the log is compared with. */
struct judge {
	volatile uint64_t *memory;	/* WRITER_PAGES pages */
	uint64_t copy[WRITER_PAGES][WRITER_VCPUS];
	bool due[WRITER_PAGES];
	uint64_t due_emulated[WRITER_PAGES];	/* what was found there, or 0 */
	uint64_t done_emulated;			/* what was all done before the harvest */
	uint64_t rounds, logged;
};

/* vCPUs that write at random, then a thread for each; full is called where its ring is full. */
extern struct vcpu *writers[WRITER_VCPUS];
void writers_create(struct vm *vm, struct judge *judge, void *memory);
void writers_start(void (*full)(void));
/* They end soon, have ended. */
void writers_quit(void);
void writers_join(void);

void judge_before_harvest(struct judge *judge);
/* After it: the bitmap of what was in it. False where a write was missed. */
bool judge_round(struct judge *judge, const unsigned long *bits);

static inline bool bit_get(const unsigned long *bits, uint64_t n)
{
	return bits[n / 64] >> n % 64 & 1;
}

static inline void bit_set(unsigned long *bits, uint64_t n)
{
	bits[n / 64] |= 1ul << n % 64;
}

#endif
