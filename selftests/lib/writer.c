// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * See writer.h. The last of the random writers writes through the emulator, the others directly.
 * The first stays within a few pages: it goes on for long by the translations that it has.
 */
#include "writer.h"

#define MSR_SYSTEM_TIME	0x4b564d01

struct vcpu *writers[WRITER_VCPUS];

static volatile struct {
	uint64_t op, first, count, step;
} order;
static volatile uint64_t quit;

static pthread_t threads[WRITER_VCPUS];
static void (*ring_full)(void);
/* The last value given to a MOVSQ, and the last one that was written, since the next was asked. */
static volatile uint64_t mmio_value, mmio_done;

/* ---- In the guest ---- */

static void copy_from_mmio(volatile uint64_t *to)
{
	uint64_t from = GUEST_MMIO;

	__asm__ volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
}

static void obey(volatile uint64_t *page)
{
	switch (order.op) {
	case WRITER_READ:
		(void)*page;
		break;
	case WRITER_WRITE:
		*page += 1;
		break;
	case WRITER_COPY:
		copy_from_mmio(page);
		break;
	case WRITER_CLOCK:
		wrmsr(MSR_SYSTEM_TIME, (uint64_t)page | 1);
		break;
	}
}

static void writer_payload(void)
{
	uint64_t i;

	for (;;) {
		guest_sync(1);
		for (i = 0; i < order.count; i++)
			obey((void *)(WRITER_GPA + (order.first + i * order.step) * PAGE_SIZE));
	}
}

static void random_payload(uint64_t id)
{
	uint64_t pages = id ? WRITER_PAGES : 8, random = id + 1, count = 0;
	volatile uint64_t *word;

	while (!quit) {
		random = random * 6364136223846793005 + 1442695040888963407;
		word = (uint64_t *)WRITER_GPA + (random >> 33) % pages * 512 + id;
		if (id == WRITER_VCPUS - 1)
			copy_from_mmio(word);
		else
			*word = ++count;
	}
	guest_done();
}

/* ---- One that takes orders ---- */

void *writer_memory(size_t size, int flags)
{
	size_t align = MIB(2);
	uint8_t *p;

	if (flags & MAP_HUGETLB) {
		p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
		return p == MAP_FAILED ? NULL : p;
	}
	p = mmap(NULL, size + align, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		tap_bail("mmap: %s", strerror(errno));
	return (void *)(((uintptr_t)p + align - 1) & -align);
}

void writer_slot(struct vm *vm, void *memory, size_t pages, uint32_t flags)
{
	CHECK_CALL(vm_slot(vm, WRITER_SLOT, WRITER_GPA, pages * PAGE_SIZE, memory, flags));
}

struct vcpu *writer_create(struct vm *vm, uint32_t id)
{
	struct vcpu *vcpu = vcpu_create(vm, id);

	vcpu_set_long(vcpu, writer_payload, 0);
	vcpu_sync(vcpu, 1);
	return vcpu;
}

void writer_order(struct vcpu *vcpu, enum writer_op op, uint64_t first, uint64_t count,
		  uint64_t step)
{
	__typeof__(order) *to = GUEST_VAR(vcpu->vm, order);

	to->op = op;
	to->first = first;
	to->count = count;
	to->step = step;
}

struct report writer_run(struct vcpu *vcpu)
{
	struct report report;
	uint64_t value;

	for (;;) {
		report = vcpu_wait(vcpu);
		if (report.kind != REPORT_EXIT || vcpu->run->exit_reason != KVM_EXIT_MMIO)
			return report;
		mmio_done = mmio_value++;
		value = mmio_value;
		memcpy(vcpu->run->mmio.data, &value, sizeof(value));
	}
}

bool writer_do(struct vcpu *vcpu, enum writer_op op, uint64_t first, uint64_t count, uint64_t step)
{
	struct report report;

	writer_order(vcpu, op, first, count, step);
	report = writer_run(vcpu);
	if (report.kind == REPORT_SYNC && report.value == 1)
		return true;
	vcpu_explain(vcpu, &report, "the order's end");
	return false;
}

/* ---- Many at random, and the judge ---- */

static void *writer_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct report report;

	for (;;) {
		report = writer_run(vcpu);
		if (report.kind == REPORT_TIMEOUT)
			continue;
		if (report.kind != REPORT_EXIT ||
		    vcpu->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL || !ring_full)
			break;
		ring_full();
	}
	if (report.kind != REPORT_DONE)
		vcpu_explain(vcpu, &report, "the payload's end");
	return NULL;
}

void writers_create(struct vm *vm, struct judge *judge, void *memory)
{
	uint32_t i;

	memset(judge, 0, sizeof(*judge));
	memset(memory, 0, WRITER_PAGES * PAGE_SIZE);
	judge->memory = memory;
	for (i = 0; i < WRITER_VCPUS; i++) {
		writers[i] = vcpu_create(vm, i);
		vcpu_set_long(writers[i], random_payload, i);
	}
}

void writers_start(void (*full)(void))
{
	uint32_t i;

	ring_full = full;
	for (i = 0; i < WRITER_VCPUS; i++)
		if (pthread_create(&threads[i], NULL, writer_thread, writers[i]))
			tap_bail("pthread_create failed");
}

void writers_quit(void)
{
	*GUEST_VAR(writers[0]->vm, quit) = 1;
}

void writers_join(void)
{
	uint32_t i;

	for (i = 0; i < WRITER_VCPUS; i++)
		pthread_join(threads[i], NULL);
}

void judge_before_harvest(struct judge *judge)
{
	judge->done_emulated = mmio_done;
}

/* Whether a page that is not in the log was to be in it. */
static bool judge_missed(const struct judge *judge, uint64_t page)
{
	uint64_t emulated = judge->due_emulated[page];

	return judge->due[page] || (emulated && emulated <= judge->done_emulated);
}

/* What a page holds is known, or, where it is not in the log, has to be in the next. */
static void judge_page(struct judge *judge, uint64_t page, bool in_log)
{
	volatile uint64_t *memory = judge->memory + page * 512;
	uint64_t *copy = judge->copy[page], i;

	judge->due[page] = false;
	judge->due_emulated[page] = 0;
	if (in_log) {
		for (i = 0; i < WRITER_VCPUS; i++)
			copy[i] = memory[i];
		return;
	}
	for (i = 0; i < WRITER_VCPUS - 1; i++)
		judge->due[page] |= memory[i] != copy[i];
	if (memory[i] != copy[i])
		judge->due_emulated[page] = memory[i];
}

bool judge_round(struct judge *judge, const unsigned long *bits)
{
	uint64_t page;
	bool good = true, in_log;

	for (page = 0; page < WRITER_PAGES; page++) {
		in_log = bit_get(bits, page);
		if (!in_log && judge_missed(judge, page)) {
			CHECK(false, "round %llu: page %llu was written and is not in the log",
			      (unsigned long long)judge->rounds, (unsigned long long)page);
			good = false;
		}
		judge_page(judge, page, in_log);
		judge->logged += in_log;
	}
	judge->rounds++;
	return good;
}
