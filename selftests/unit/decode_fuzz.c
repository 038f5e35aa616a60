// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: a mode, registers, and the bytes of an instruction, which is executed.
 */
#include <stdlib.h>
#include <string.h>

#include "selftests/unit/emulate_world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const enum moat_insn_mode modes[] = { INSN_16, INSN_32, INSN_64 };
	static struct world w;
	struct {
		u8 mode, cpl, cr0, type;
		u32 rflags;
		u32 gpr[16];
	} in;
	size_t i;

	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));
	world_init(&w, modes[in.mode % 3]);
	w.defer = in.mode & 0x80;
	w.state.cpl = in.cpl & 3;
	w.sregs.cr0 = in.cr0 & 1;
	w.sregs.ds.type = in.type & 15;
	w.sregs.ds.limit = in.type & 0x10 ? 0xffff : 0xffffffff;
	w.state.regs.rflags = in.rflags;
	for (i = 0; i < 16; i++)
		w.state.regs.gpr[i] = in.gpr[i] & 1 ? (u64)(s32)in.gpr[i] : in.gpr[i] >> 14;
	world_run(&w, data + sizeof(in), size - sizeof(in));
	if (w.broken)
		abort();
	return 0;
}
