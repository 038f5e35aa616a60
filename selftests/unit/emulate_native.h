/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Execution of one instruction by the CPU that the test runs on.
 */
#ifndef MOAT_EMULATE_NATIVE_H
#define MOAT_EMULATE_NATIVE_H

#include "module/pure.h"

struct native_regs {
	u64 gpr[16];
	u64 rflags;
};

/* Memory at addresses below 2 GiB: len bytes, executable if asked for; NULL if there is none. */
void *native_alloc(size_t len, bool executable);

/*
 * Executes len bytes of code, which must not touch memory that is not there. They are put into
 * page, which is executable and starts at an address that the code may rely on.
 */
void native_run(void *page, const u8 *code, unsigned int len, struct native_regs *regs);

#endif
