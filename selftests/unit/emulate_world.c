// SPDX-License-Identifier: MIT OR GPL-2.0
#include <string.h>

#include "module/x86/walk.h"
#include "selftests/unit/emulate_world.h"

/* A place for an access in the log; false where it is new and has to wait for the next pass. */
static bool log_take(struct world *w, struct world_access *want)
{
	struct world_access *found = &w->log[w->cursor];

	if (w->cursor == WORLD_MAX_LOG) {
		w->broken = true;
		return false;
	}
	if (w->cursor++ < w->count) {
		if (found->linear != want->linear || found->len != want->len ||
		    found->write != want->write || (want->write && found->value != want->value))
			w->broken = true;
		want->value = found->value;
		return true;
	}
	w->count++;
	*found = *want;
	return !w->defer;
}

static u64 first_bytes(const void *data, unsigned int len)
{
	u64 value = 0;

	memcpy(&value, data, len < 8 ? len : 8);
	return value;
}

static bool is_ram(u64 linear, unsigned int len)
{
	return linear < WORLD_RAM && len <= WORLD_RAM - linear;
}

static bool is_device(u64 linear, unsigned int len)
{
	return linear >= WORLD_MMIO && linear < WORLD_VOID && len <= WORLD_VOID - linear;
}

/* Nothing there, or not all of it; the address that faults is the first that is not. */
static int world_fault(struct world *w, u64 linear, unsigned int len, u32 access)
{
	if (linear < WORLD_VOID && linear + len <= WORLD_VOID)
		return -EIO;			/* memory and device at once */
	if (linear < WORLD_VOID)
		linear = WORLD_VOID;
	return emu_page_fault(&w->state, linear, access & (WALK_WRITE | WALK_USER));
}

static int device_access(struct world *w, u64 linear, void *data, unsigned int len, bool write,
			 u32 access)
{
	struct world_access a = {
		.linear = linear, .len = len, .write = write, .access = access,
		.value = write ? first_bytes(data, len) : 0,
	};
	bool is_new = w->cursor >= w->count;
	u8 *place = w->device + (linear - WORLD_MMIO);
	bool done = log_take(w, &a);

	if (w->broken)
		return -EIO;
	if (is_new && write)
		memcpy(place, data, len);
	if (is_new)
		w->log[w->cursor - 1].value = first_bytes(place, len);
	if (!write)
		memcpy(data, &w->log[w->cursor - 1].value, len < 8 ? len : 8);
	return done ? 0 : -EAGAIN;
}

static int world_access(void *ctx, u64 linear, void *data, unsigned int len, u32 access,
			bool write)
{
	struct world *w = ctx;

	if (write && !(access & WALK_WRITE))
		w->broken = true;
	if (is_device(linear, len))
		return device_access(w, linear, data, len, write, access);
	if (!is_ram(linear, len))
		return world_fault(w, linear, len, access);
	if (write)
		memcpy(w->ram + linear, data, len);
	else
		memcpy(data, w->ram + linear, len);
	return 0;
}

static int world_probe(void *ctx, u64 linear, unsigned int len, u32 access)
{
	if (is_ram(linear, len))
		return 0;
	if (is_device(linear, len))
		return -ENXIO;
	return world_fault(ctx, linear, len, access);
}

static int world_cmpxchg(void *ctx, u64 linear, const void *old, const void *new, unsigned int len,
			 u32 access)
{
	struct world *w = ctx;

	if (!is_ram(linear, len))
		return -ENXIO;
	w->exchanges++;
	if (w->race)
		return -EBUSY;
	if (memcmp(w->ram + linear, old, len))
		w->broken = true;
	return world_access(w, linear, (void *)new, len, access, true);
}

static int port_access(struct world *w, u16 port, unsigned int size, const void *data,
		       unsigned int items, bool write)
{
	struct world_access a = { .linear = port, .len = size * items, .write = write };

	if (data != w->pio_data || size * items > sizeof(w->pio_data))
		w->broken = true;
	w->port = port;
	w->port_size = size;
	w->port_items = items;
	return log_take(w, &a) ? (int)items : -EAGAIN;
}

static int world_pio(void *ctx, u16 port, unsigned int size, void *data, unsigned int items,
		     bool in)
{
	struct world *w = ctx;
	int r;

	if (!in)
		memcpy(w->port_bytes, data, size * items);
	r = port_access(w, port, size, data, items, !in);
	if (in && r > 0)
		memcpy(data, w->port_bytes, size * items);
	return r;
}

static const struct emu_ops world_ops = {
	.access = world_access, .probe = world_probe, .cmpxchg = world_cmpxchg, .pio = world_pio,
};

void world_init(struct world *w, enum moat_insn_mode mode)
{
	const struct kvm_segment data = {
		.limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .g = 1, .db = mode != INSN_16,
	};

	memset(w, 0, sizeof(*w));
	w->sregs = (struct kvm_sregs) {
		.cs = data, .ds = data, .es = data, .fs = data, .gs = data, .ss = data,
		.cr0 = 1, .efer = mode == INSN_64 ? 0x500 : 0,
	};
	w->sregs.cs.type = 11;
	w->sregs.cs.l = mode == INSN_64;
	w->sregs.cs.db = mode == INSN_32;
	w->state = (struct emu_state) {
		.regs.rflags = 2, .sregs = &w->sregs, .ops = &world_ops, .ctx = w,
		.pio_data = w->pio_data, .pio_size = sizeof(w->pio_data),
	};
}

int world_run(struct world *w, const u8 *bytes, unsigned int len)
{
	struct emu_regs before = w->state.regs;
	enum emu_result result;
	struct moat_insn insn;

	w->count = 0;
	w->passes = 0;
	if (moat_insn_decode(&insn, bytes, len, emu_mode(&w->sregs, before.rflags)))
		return -1;
	do {
		w->cursor = 0;
		w->passes++;
		result = emu_execute(&w->state, &insn);
		if (result != EMU_OK && result != EMU_REPEAT &&
		    memcmp(&before, &w->state.regs, sizeof(before)))
			w->broken = true;
	} while (result == EMU_EXIT && w->passes <= WORLD_MAX_LOG && !w->broken);
	if (result == EMU_EXIT)
		w->broken = true;
	return result;
}
