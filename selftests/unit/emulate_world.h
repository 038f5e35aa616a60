/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A machine for the emulator: some memory, a device, ports, and nothing else. Linear addresses are
 * physical.
 */
#ifndef MOAT_EMULATE_WORLD_H
#define MOAT_EMULATE_WORLD_H

#include "module/x86/emulate.h"

#define WORLD_RAM	0x20000		/* memory from 0 up to here, */
#define WORLD_MMIO	0x20000		/* then a device, */
#define WORLD_VOID	0x30000		/* then nothing: page faults */
#define WORLD_MAX_LOG	64

enum { AX, CX, DX, BX, SP, BP, SI, DI };

struct world_access {
	u64 linear;
	u64 value;			/* the first 8 bytes */
	u32 len;
	u32 access;
	bool write;
};

struct world {
	u8 ram[WORLD_RAM];
	u8 device[WORLD_VOID - WORLD_MMIO];
	u8 port_bytes[4096];		/* what IN reads, what OUT wrote */
	u8 pio_data[4096];
	struct kvm_sregs sregs;
	struct emu_state state;
	/* Accesses to the device and the ports, one after the other. */
	struct world_access log[WORLD_MAX_LOG];
	unsigned int count;
	unsigned int cursor;		/* in this pass */
	bool defer;			/* each needs a pass of its own */
	bool broken;			/* the emulator did what it must not */
	bool race;			/* the next atomic access fails */
	unsigned int exchanges;
	unsigned int passes;
	u16 port;
	u32 port_size;
	u32 port_items;
};

/* Flat segments, CPL 0, everything else 0. */
void world_init(struct world *world, enum moat_insn_mode mode);

/*
 * Decodes and executes one instruction, one round of it, with as many passes as its accesses need.
 * A pass that does not complete must change nothing, and each must repeat the accesses before it.
 * -1 where the bytes don't decode.
 */
int world_run(struct world *world, const u8 *bytes, unsigned int len);

#endif
