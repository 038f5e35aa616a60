/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The CPU's side of the second-level tables for tests: walks them as the manuals say that the
 * hardware does, sets accessed and dirty bits, and objects to reserved bits. It shares no constant
 * and no code with module/stage2.c, so that a wrong bit there is seen here.
 */
#ifndef MOAT_STAGE2_CPU_H
#define MOAT_STAGE2_CPU_H

#include "module/stage2.h"

enum cpu_access { CPU_READ, CPU_WRITE, CPU_FETCH };
enum cpu_result {
	CPU_OK,
	CPU_NOT_PRESENT,
	CPU_NOT_ALLOWED,
	CPU_MALFORMED,	/* NPT: reserved bit; EPT: misconfiguration */
};

struct cpu {
	u64 root;	/* nCR3, or the address part of the EPTP */
	u64 encrypt;
	int levels;
	bool ept;
};

/* CPU_OK and the address, or why not; without @note the tables are left as they are. */
enum cpu_result cpu_access(const struct cpu *cpu, u64 gpa, enum cpu_access access, bool note,
			   u64 *ret_hpa);

#endif
