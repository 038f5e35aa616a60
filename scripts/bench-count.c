// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A plugin for the lab's emulator: what a stretch of a host's life costs, in instructions.
 *
 * Counted from without, neither hypervisor knows, and both are counted alike: nothing is traced in
 * the host, and no clock is read. Each instruction that the emulated CPUs execute adds one to a
 * counter, of user or of kernel addresses. VMRUN, and the instruction behind it, tell the guest's
 * part from the host's; the control block, whose address is in RAX, then says why the guest was
 * left. What the emulator does at VMRUN and #VMEXIT itself is no instruction. A repeated string
 * instruction counts once each time round, as it does for the TSC under --icount; how many of all are such
 * rounds is told too, as a CPU of silicon counts none of them.
 *
 * A stretch begins and ends with two no-operations that nobody else uses: selftests/bench_boot.c and
 * bench_disk.c execute them. There can be several, one after the other, numbered from 0.
 *
 * The interface is version 7 of QEMU's (11.1); it is declared here, as Debian ships no header. An
 * emulator of another version refuses to load this.
 *
 * usage: -plugin FILE,out=FILE
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* QEMU's interface, as far as it is used here, and GLib's two arrays. */

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
struct counter { struct qemu_plugin_scoreboard *board; size_t offset; };
struct array { void *data; unsigned int len; };
struct register_descriptor { void *handle; const char *name, *feature; bool writable; };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*fn)(struct qemu_plugin_tb *tb, void *data),
					   void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*fn)(void *data), void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*fn)(unsigned int cpu, void *data), int flags,
					    void *data);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn, int op,
							 struct counter counter, uint64_t imm);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t len);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
uint64_t qemu_plugin_u64_get(struct counter counter, unsigned int cpu);
uint64_t qemu_plugin_u64_sum(struct counter counter);
struct array *qemu_plugin_get_registers(void);
bool qemu_plugin_read_register(void *handle, struct array *to);
int qemu_plugin_read_memory_hwaddr(uint64_t address, struct array *to, size_t len);
struct array *g_byte_array_new(void);
struct array *g_byte_array_set_size(struct array *array, unsigned int len);

#define CB_READS_REGISTERS	1
#define OP_ADD			0

EXPORT int qemu_plugin_version = 7;

#define MAX_CPUS	64
#define MAX_SITES	8	/* of VMRUN */
#define MAX_STRETCHES	32
#define MAX_CODES	0x402
#define CODE_OTHER	0x401
#define VMCB_EXIT_CODE	0x70

static const uint8_t vmrun[] = { 0x0f, 0x01, 0xd8 };
/* nopl 0x54414f4d(%rax,%rax), and ...4e */
static const uint8_t mark_begin[] = { 0x0f, 0x1f, 0x84, 0x00, 0x4d, 0x4f, 0x41, 0x54 };
static const uint8_t mark_end[] = { 0x0f, 0x1f, 0x84, 0x00, 0x4e, 0x4f, 0x41, 0x54 };

enum { USER, KERNEL, STRING, KINDS };	/* STRING: of the others, rounds of repeated string instructions */

/* As of a moment. */
struct counts {
	uint64_t n[KINDS];
};

static struct counter counters[KINDS];
static const uint8_t *sites[MAX_SITES];	/* behind each VMRUN, in the emulator's memory */
/* What a stretch cost. */
struct stretch {
	struct counts guest, total;
	uint64_t exits[MAX_CODES];
};

static struct counts entered[MAX_CPUS], before;
static bool in_guest[MAX_CPUS], counting;
static struct stretch stretches[MAX_STRETCHES], *current = stretches;
static const char *out_path = "counts";

static struct counts counts_of(unsigned int cpu)
{
	struct counts now;
	int i;

	for (i = 0; i < KINDS; i++)
		now.n[i] = qemu_plugin_u64_get(counters[i], cpu);
	return now;
}

static struct counts counts_of_all(void)
{
	struct counts now;
	int i;

	for (i = 0; i < KINDS; i++)
		now.n[i] = qemu_plugin_u64_sum(counters[i]);
	return now;
}

static void counts_add(struct counts *to, struct counts later, struct counts earlier)
{
	int i;

	for (i = 0; i < KINDS; i++)
		to->n[i] += later.n[i] - earlier.n[i];
}

static uint64_t rax_read(void)
{
	static void *handle;
	static struct array *bytes;
	const struct array *all;
	const struct register_descriptor *reg;
	uint64_t value;
	unsigned int i;

	if (!handle) {
		bytes = g_byte_array_new();
		all = qemu_plugin_get_registers();
		for (i = 0, reg = all->data; i < all->len; i++, reg++)
			if (!strcmp(reg->name, "rax"))
				handle = reg->handle;
	}
	g_byte_array_set_size(bytes, 0);
	if (!handle || !qemu_plugin_read_register(handle, bytes) || bytes->len != sizeof(value))
		return 0;
	memcpy(&value, bytes->data, sizeof(value));
	return value;
}

static uint64_t exit_code_read(void)
{
	static struct array *bytes;
	uint64_t code;

	if (!bytes)
		bytes = g_byte_array_new();
	if (qemu_plugin_read_memory_hwaddr(rax_read() + VMCB_EXIT_CODE, bytes, sizeof(code)) ||
	    bytes->len != sizeof(code))
		return CODE_OTHER;
	memcpy(&code, bytes->data, sizeof(code));
	return code < CODE_OTHER ? code : CODE_OTHER;
}

/* Each of these is called before its instruction is executed, and after that was counted. */

static void on_vmrun(unsigned int cpu, void *data)
{
	(void)data;
	if (cpu >= MAX_CPUS)
		return;
	entered[cpu] = counts_of(cpu);
	in_guest[cpu] = true;
}

static void on_vmexit(unsigned int cpu, void *data)
{
	(void)data;
	if (cpu >= MAX_CPUS || !in_guest[cpu])
		return;
	in_guest[cpu] = false;
	if (!counting)
		return;
	counts_add(&current->guest, counts_of(cpu), entered[cpu]);
	current->exits[exit_code_read()]++;
}

static void on_begin(unsigned int cpu, void *data)
{
	(void)data;
	if (current == stretches + MAX_STRETCHES)
		return;
	memset(current, 0, sizeof(*current));
	before = counts_of_all();
	entered[cpu % MAX_CPUS] = counts_of(cpu);	/* where a guest says so */
	counting = true;
}

static void on_end(unsigned int cpu, void *data)
{
	(void)data;
	if (!counting)
		return;
	counts_add(&current->total, counts_of_all(), before);
	if (cpu < MAX_CPUS && in_guest[cpu])
		counts_add(&current->guest, counts_of(cpu), entered[cpu]);
	counting = false;
	current++;
}

static void site_add(const uint8_t *behind)
{
	int i;

	for (i = 0; i < MAX_SITES && sites[i] && sites[i] != behind; i++)
		;
	if (i < MAX_SITES)
		sites[i] = behind;
}

static bool site_is(const uint8_t *at)
{
	int i;

	for (i = 0; i < MAX_SITES && sites[i]; i++)
		if (sites[i] == at)
			return true;
	return false;
}

static bool insn_repeats(const uint8_t *bytes)
{
	bool repeats = false;
	uint8_t op;

	for (; *bytes == 0xf2 || *bytes == 0xf3 || *bytes == 0x66 || *bytes >> 4 == 4; bytes++)
		repeats |= *bytes >> 4 == 0xf;
	op = *bytes & ~1;
	return repeats && (op == 0xa4 || op == 0xa6 || op == 0xaa || op == 0xac || op == 0xae);
}

static void insn_translate(struct qemu_plugin_insn *insn)
{
	const uint8_t *at = qemu_plugin_insn_haddr(insn);
	bool kernel = qemu_plugin_insn_vaddr(insn) >> 63;
	uint8_t bytes[16] = { 0 };

	qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, OP_ADD,
							    counters[kernel ? KERNEL : USER], 1);
	if (insn_repeats(bytes))
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, OP_ADD,
								    counters[STRING], 1);
	if (kernel && !memcmp(bytes, vmrun, sizeof(vmrun))) {
		site_add(at + sizeof(vmrun));
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_vmrun, 0, NULL);
	} else if (site_is(at)) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_vmexit, CB_READS_REGISTERS, NULL);
	} else if (!memcmp(bytes, mark_begin, sizeof(mark_begin))) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, 0, NULL);
	} else if (!memcmp(bytes, mark_end, sizeof(mark_end))) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, 0, NULL);
	}
}

static void on_translate(struct qemu_plugin_tb *tb, void *data)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);

	(void)data;
	for (i = 0; i < n; i++)
		insn_translate(qemu_plugin_tb_get_insn(tb, i));
}

static void stretch_print(FILE *out, const struct stretch *s)
{
	unsigned int i, number = s - stretches;

	fprintf(out, "%u guest %" PRIu64 "\n", number, s->guest.n[USER] + s->guest.n[KERNEL]);
	fprintf(out, "%u host_user %" PRIu64 "\n", number, s->total.n[USER] - s->guest.n[USER]);
	fprintf(out, "%u host_kernel %" PRIu64 "\n", number,
		s->total.n[KERNEL] - s->guest.n[KERNEL]);
	fprintf(out, "%u host_string %" PRIu64 "\n", number,
		s->total.n[STRING] - s->guest.n[STRING]);
	for (i = 0; i < MAX_CODES; i++)
		if (s->exits[i])
			fprintf(out, "%u exit_%#x %" PRIu64 "\n", number, i, s->exits[i]);
}

/* Lines "STRETCH NAME FIGURE", an exit's name being its code; none of a stretch without an end. */
static void on_exit_of_qemu(void *data)
{
	FILE *out = current == stretches ? NULL : fopen(out_path, "w");
	const struct stretch *s;

	(void)data;
	if (!out)
		return;
	for (s = stretches; s < current; s++)
		stretch_print(out, s);
	fclose(out);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	struct qemu_plugin_scoreboard *board = qemu_plugin_scoreboard_new(KINDS * sizeof(uint64_t));
	int i;

	(void)info;
	for (i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out_path = strdup(argv[i] + 4);
	for (i = 0; i < KINDS; i++)
		counters[i] = (struct counter) { board, i * sizeof(uint64_t) };
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate, NULL);
	qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
	return 0;
}
