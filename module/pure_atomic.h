/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's atomic accesses and address conversions under their own names, for pure code that
 * works on memory which others change. In userspace an address is its own physical address.
 */
#ifndef MOAT_PURE_ATOMIC_H
#define MOAT_PURE_ATOMIC_H

#include "pure.h"

#ifdef __KERNEL__
#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/mm.h>
#else

#ifndef READ_ONCE
#define READ_ONCE(x)	__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#endif
#ifndef WRITE_ONCE
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#endif

#define xchg(p, v)	__atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)
/* On failure *old is what was found instead. */
#define try_cmpxchg(p, old, new) \
	__atomic_compare_exchange_n(p, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

typedef struct {
	s64 counter;
} atomic64_t;

static inline s64 atomic64_read(const atomic64_t *v)
{
	return READ_ONCE(v->counter);
}

static inline void atomic64_set(atomic64_t *v, s64 value)
{
	WRITE_ONCE(v->counter, value);
}

static inline void atomic64_add(s64 value, atomic64_t *v)
{
	__atomic_fetch_add(&v->counter, value, __ATOMIC_RELAXED);
}

static inline void *__va(u64 physical)
{
	return (void *)(uintptr_t)physical;
}

static inline u64 __pa(const void *virtual)
{
	return (uintptr_t)virtual;
}
#endif

#endif
