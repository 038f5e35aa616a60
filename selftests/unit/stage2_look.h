/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What is in second-level tables, for tests. As the CPU's side (stage2_cpu.h), it shares no constant
 * and no code with module/stage2.c.
 */
#ifndef MOAT_STAGE2_LOOK_H
#define MOAT_STAGE2_LOOK_H

#include "module/stage2.h"

/* What the CPU has noted in a leaf, beside what it allows: STAGE2_WRITE, STAGE2_EXEC. */
#define STAGE2_ACCESSED		0x4u
#define STAGE2_DIRTY		0x8u

/*
 * struct stage2_leaf - a mapping, decoded
 * @gpa: first guest-physical address that it maps.
 * @hpa: the host-physical address that @gpa is mapped to.
 * @level: 1, 2 or 3; where nothing is mapped, the level of the empty entry.
 * @flags: STAGE2_WRITE, STAGE2_EXEC, STAGE2_ACCESSED, STAGE2_DIRTY.
 */
struct stage2_leaf {
	u64 gpa;
	u64 hpa;
	int level;
	unsigned int flags;
};

/* A leaf by its value, as leaf_removed of struct stage2_ops gets it. */
struct stage2_leaf stage2_leaf_of(const struct stage2 *s2, u64 gpa, int level, u64 value);

/* True where gpa is mapped. The leaf is that at one moment. */
bool stage2_lookup(const struct stage2 *s2, u64 gpa, struct stage2_leaf *ret_leaf);

#endif
