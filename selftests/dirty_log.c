// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * KVM_MEM_LOG_DIRTY_PAGES: the bitmap of pages that were written, how it is taken and cleared, and
 * that it never misses a write.
 */
#include <dirent.h>
#include <sys/wait.h>

#include "guest.h"
#include "writer.h"

#define PAGES		200		/* no multiple of 64 */
#define WORDS		((PAGES + 63) / 64)
#define LOGGED		KVM_MEM_LOG_DIRTY_PAGES
#define MANUAL		KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
#define INITIALLY_SET	KVM_DIRTY_LOG_INITIALLY_SET
#define RACE_NS		5000000000ull
#define RACE_ROUNDS	4000
#define CLOCK_PAGE	7

static struct vm *vm;
static struct vcpu *vcpu;
static uint64_t *memory;
static struct judge judge;

/* ---- The ioctls ---- */

static int log_get(uint32_t slot, void *bits)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };

	return ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

static int log_clear(uint32_t slot, uint64_t first, uint32_t count, void *bits)
{
	struct kvm_clear_dirty_log log = {
		.slot = slot, .first_page = first, .num_pages = count, .dirty_bitmap = bits,
	};

	return ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log);
}

static int manual(struct vm *vm, uint64_t options)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { options },
	};

	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap);
}

/* The log, to the letter: count pages, the first and each step further; no bit beyond the slot. */
static void log_is(uint64_t first, uint64_t count, uint64_t step, int line)
{
	unsigned long got[WORDS], want[WORDS] = { 0 };
	uint64_t i;

	memset(got, 0xa5, sizeof(got));
	CHECK_CALL(log_get(WRITER_SLOT, got));
	for (i = 0; i < count; i++)
		bit_set(want, first + i * step);
	for (i = 0; i < WORDS; i++)
		tap_check(got[i] == want[i], __FILE__, line,
			  "word %d of the log: %#lx, wanted %#lx", (int)i, got[i], want[i]);
}

#define LOG_IS(first, count, step) log_is(first, count, step, __LINE__)

static void machine_create(uint64_t options, size_t pages, uint32_t flags)
{
	vm = vm_create(GUEST_RAM, false);
	if (options)
		CHECK_CALL(manual(vm, options));
	memory = writer_memory(pages * PAGE_SIZE, 0);
	writer_slot(vm, memory, pages, flags);
	vcpu = writer_create(vm, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* ---- Arguments ---- */

static void capabilities(void)
{
	struct kvm_enable_cap flags = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .flags = 1 };

	vm = vm_create_bare();
	CHECK_EQ(node_has(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), MANUAL | INITIALLY_SET);
	CHECK_ERRNO(manual(vm, INITIALLY_SET), EINVAL);
	CHECK_ERRNO(manual(vm, 4), EINVAL);
	CHECK_ERRNO(manual(vm, MANUAL | 4), EINVAL);
	CHECK_ERRNO(manual(vm, 1ull << 32 | MANUAL), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_ENABLE_CAP, &flags), EINVAL);
	CHECK_CALL(manual(vm, MANUAL));
	CHECK_CALL(manual(vm, MANUAL | INITIALLY_SET));
	CHECK_CALL(manual(vm, 0));
	vm_destroy(vm);
}

static void arguments(void)
{
	unsigned long bits[WORDS] = { 0 };

	machine_create(0, PAGES, LOGGED);
	CHECK_ERRNO(log_get(WRITER_SLOT, (void *)8), EFAULT);
	CHECK_ERRNO(log_get(0, bits), ENOENT);
	CHECK_ERRNO(log_get(5, bits), ENOENT);
	CHECK_ERRNO(log_get(0xffff, bits), EINVAL);
	CHECK_ERRNO(log_get(77 << 16, bits), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_DIRTY_LOG, NULL), EFAULT);

	CHECK_ERRNO(log_clear(0, 0, 64, bits), ENOENT);
	CHECK_ERRNO(log_clear(5, 0, 64, bits), ENOENT);
	CHECK_ERRNO(log_clear(0xffff, 0, 64, bits), EINVAL);
	CHECK_ERRNO(log_clear(77 << 16, 0, 64, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 1, 63, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 63, 1, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 0, 1, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 0, PAGES - 1, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 0, PAGES + 1, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 0, ~0u, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 192, 64, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 256, 0, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 1ull << 63, 64, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, -64ull, 64, bits), EINVAL);
	CHECK_ERRNO(log_clear(WRITER_SLOT, 0, 64, (void *)8), EFAULT);
	CHECK_CALL(log_clear(WRITER_SLOT, 0, 64, bits));
	CHECK_CALL(log_clear(WRITER_SLOT, 192, 0, bits));
	CHECK_CALL(log_clear(WRITER_SLOT, 192, PAGES - 192, bits));
	CHECK_CALL(log_clear(WRITER_SLOT, 0, PAGES, bits));
	machine_destroy();
}

/* ---- What is in the log ---- */

static void basics(void)
{
	machine_create(0, PAGES, LOGGED);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 3, 20, 7);
	LOG_IS(3, 20, 7);
	LOG_IS(0, 0, 0);
	/* The same again; once for many writes; reading is nothing. */
	writer_do(vcpu, WRITER_READ, 0, PAGES, 1);
	writer_do(vcpu, WRITER_WRITE, 3, 20, 7);
	writer_do(vcpu, WRITER_WRITE, 3, 20, 7);
	LOG_IS(3, 20, 7);
	writer_do(vcpu, WRITER_READ, 0, PAGES, 1);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 0, PAGES, 1);
	LOG_IS(0, PAGES, 1);
	CHECK_EQ(memory[3 * 512], 4);
	/* What the host itself writes is its own affair. */
	memory[5 * 512] = 1;
	LOG_IS(0, 0, 0);
	machine_destroy();
}

static void on_and_off(void)
{
	unsigned long bits[WORDS];

	machine_create(0, PAGES, 0);
	writer_do(vcpu, WRITER_WRITE, 0, PAGES, 1);
	CHECK_ERRNO(log_get(WRITER_SLOT, bits), ENOENT);
	writer_slot(vm, memory, PAGES, LOGGED);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 1, 9, 1);
	writer_slot(vm, memory, PAGES, LOGGED);
	LOG_IS(1, 9, 1);
	writer_do(vcpu, WRITER_WRITE, 1, 9, 1);
	/* What was not taken before the end is gone. */
	writer_slot(vm, memory, PAGES, 0);
	CHECK_ERRNO(log_get(WRITER_SLOT, bits), ENOENT);
	writer_do(vcpu, WRITER_WRITE, 0, PAGES, 1);
	writer_slot(vm, memory, PAGES, LOGGED);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 199, 1, 1);
	LOG_IS(199, 1, 1);
	/* A slot that is made anew is logged from its start. */
	CHECK_CALL(vm_slot(vm, WRITER_SLOT, 0, 0, NULL, 0));
	CHECK_ERRNO(log_get(WRITER_SLOT, bits), ENOENT);
	writer_slot(vm, memory, PAGES, LOGGED);
	writer_do(vcpu, WRITER_WRITE, 100, 100, 1);
	LOG_IS(100, 100, 1);
	machine_destroy();
}

/* A slot that moves takes its log along, and is logged in its new place. */
static void moved(void)
{
	machine_create(0, PAGES, LOGGED);
	writer_do(vcpu, WRITER_WRITE, 10, 5, 1);
	CHECK_CALL(vm_slot(vm, WRITER_SLOT, WRITER_GPA - 50 * PAGE_SIZE, PAGES * PAGE_SIZE, memory,
			   LOGGED));
	writer_do(vcpu, WRITER_WRITE, -35ull, 5, 1);
	LOG_IS(10, 10, 1);
	writer_do(vcpu, WRITER_WRITE, 149, 1, 1);
	LOG_IS(199, 1, 1);
	/* Two changes at once. */
	writer_slot(vm, memory, PAGES, 0);
	writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
	CHECK_CALL(vm_slot(vm, WRITER_SLOT, WRITER_GPA - 50 * PAGE_SIZE, PAGES * PAGE_SIZE, memory,
			   LOGGED));
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 0, 10, 1);
	LOG_IS(50, 10, 1);
	machine_destroy();
}

static void read_only(void)
{
	machine_create(0, PAGES, LOGGED | KVM_MEM_READONLY);
	writer_do(vcpu, WRITER_READ, 0, PAGES, 1);
	/* Writes are MMIO, which writer_do() takes and forgets. */
	writer_do(vcpu, WRITER_WRITE, 0, 5, 1);
	LOG_IS(0, 0, 0);
	CHECK_EQ(memory[0], 0);
	CHECK_ERRNO(vm_slot(vm, WRITER_SLOT, WRITER_GPA, PAGES * PAGE_SIZE, memory, LOGGED),
		    EINVAL);
	CHECK_ERRNO(vm_slot(vm, WRITER_SLOT, WRITER_GPA, PAGES * PAGE_SIZE, memory, 0), EINVAL);
	writer_slot(vm, memory, PAGES, KVM_MEM_READONLY);
	writer_do(vcpu, WRITER_WRITE, 0, 5, 1);
	CHECK_EQ(memory[0], 0);
	writer_slot(vm, memory, PAGES, LOGGED | KVM_MEM_READONLY);
	LOG_IS(0, 0, 0);
	machine_destroy();
}

/* A slot that ends amid a large page of the host, and one page beyond it. */
static void two_slots(void)
{
	unsigned long bits[WORDS];

	machine_create(0, PAGES, LOGGED);
	CHECK_CALL(vm_slot(vm, 2, WRITER_GPA + PAGES * PAGE_SIZE, PAGE_SIZE,
			   memory + PAGES * 512, LOGGED));
	writer_do(vcpu, WRITER_WRITE, PAGES - 1, 2, 1);
	LOG_IS(PAGES - 1, 1, 1);
	CHECK_CALL(log_get(2, bits));
	CHECK_EQ(bits[0], 1);
	writer_do(vcpu, WRITER_WRITE, PAGES, 1, 1);
	LOG_IS(0, 0, 0);
	CHECK_CALL(log_get(2, bits));
	CHECK_EQ(bits[0], 1);
	machine_destroy();
}

/* GET that cannot give the bits away leaves them in the log. KVM loses them. */
static void fault_loses_nothing(void)
{
	if (!node_is_moat())
		SKIP("KVM says that the log may then be corrupt");
	machine_create(0, PAGES, LOGGED);
	writer_do(vcpu, WRITER_WRITE, 3, 20, 7);
	CHECK_ERRNO(log_get(WRITER_SLOT, (void *)8), EFAULT);
	writer_do(vcpu, WRITER_WRITE, 10, 1, 1);
	LOG_IS(3, 20, 7);
	LOG_IS(0, 0, 0);
	machine_destroy();
}

/* ---- Manual protection ---- */

static void clear_pages(uint64_t first, uint64_t count, uint64_t from, uint64_t pages)
{
	unsigned long bits[WORDS] = { 0 };
	uint64_t i;

	for (i = 0; i < count; i++)
		bit_set(bits, first - from + i);
	CHECK_CALL(log_clear(WRITER_SLOT, from, pages, bits));
}

static void manual_protect(void)
{
	machine_create(MANUAL, PAGES, LOGGED);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 60, 100, 1);
	LOG_IS(60, 100, 1);
	LOG_IS(60, 100, 1);
	/* In part; bits of pages that were not written mean nothing. */
	clear_pages(64, 64, 64, 64);
	clear_pages(0, 62, 0, 64);
	clear_pages(128, PAGES - 128, 128, PAGES - 128);
	writer_do(vcpu, WRITER_WRITE, 62, 1, 1);
	LOG_IS(62, 2, 1);
	CHECK_EQ(memory[62 * 512], 2);
	clear_pages(0, PAGES, 0, PAGES);
	LOG_IS(128, 0, 1);
	writer_do(vcpu, WRITER_WRITE, 0, PAGES, 1);
	LOG_IS(0, PAGES, 1);
	/* Off again: GET clears. */
	CHECK_CALL(manual(vm, 0));
	LOG_IS(0, PAGES, 1);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 5, 1, 1);
	clear_pages(5, 1, 0, 64);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 5, 1, 1);
	LOG_IS(5, 1, 1);
	machine_destroy();
}

static void initially_set(void)
{
	machine_create(MANUAL | INITIALLY_SET, PAGES, 0);
	writer_do(vcpu, WRITER_WRITE, 0, PAGES / 2, 1);
	writer_slot(vm, memory, PAGES, LOGGED);
	LOG_IS(0, PAGES, 1);
	clear_pages(0, PAGES, 0, PAGES);
	LOG_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 40, 30, 2);
	LOG_IS(40, 30, 2);
	clear_pages(0, 64, 0, 64);
	LOG_IS(64, 18, 2);
	writer_do(vcpu, WRITER_WRITE, 40, 12, 2);
	LOG_IS(40, 30, 2);
	/* Each time that it begins. */
	writer_slot(vm, memory, PAGES, 0);
	writer_slot(vm, memory, PAGES, LOGGED);
	LOG_IS(0, PAGES, 1);
	machine_destroy();
}

/* ---- Large pages ---- */

/* A counter of the VM in debugfs; the only VM of this process. */
static uint64_t counter(const char *name)
{
	char path[100], prefix[20];
	uint64_t value = ~0ull;
	struct dirent *entry;
	DIR *dir = opendir("/sys/kernel/debug/moat");
	FILE *file;

	snprintf(prefix, sizeof(prefix), "%d-", getpid());
	while (dir && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)))
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/debug/moat/%.30s/%s", entry->d_name,
			 name);
		file = fopen(path, "r");
		if (file && fscanf(file, "%lu", &value) != 1)
			value = ~0ull;
		if (file)
			fclose(file);
	}
	if (dir)
		closedir(dir);
	return value;
}

#define LARGE_PAGES	1024		/* two of 2 MiB */

static void large_is(uint64_t first, uint64_t count, uint64_t step, int line)
{
	static unsigned long got[LARGE_PAGES / 64], want[LARGE_PAGES / 64];
	uint64_t i;

	CHECK_CALL(log_get(WRITER_SLOT, got));
	memset(want, 0, sizeof(want));
	for (i = 0; i < count; i++)
		bit_set(want, first + i * step);
	for (i = 0; i < LARGE_PAGES / 64; i++)
		tap_check(got[i] == want[i], __FILE__, line,
			  "word %d of the log: %#lx, wanted %#lx", (int)i, got[i], want[i]);
}

#define LARGE_IS(first, count, step) large_is(first, count, step, __LINE__)

/*
 * Split by the first write, joined after the end. The counts are those of the whole VM, whose other
 * memory is in small pages, or does not change.
 */
static void large_log(void)
{
	uint64_t large, small;

	writer_do(vcpu, WRITER_WRITE, 0, LARGE_PAGES, 1);
	large = counter("pages_2m");
	small = counter("pages_4k");
	if (node_is_moat() && !large)
		SKIP("the host gave no large page");
	writer_slot(vm, memory, LARGE_PAGES, LOGGED);
	LARGE_IS(0, 0, 0);
	writer_do(vcpu, WRITER_READ, 0, LARGE_PAGES, 1);
	LARGE_IS(0, 0, 0);
	if (node_is_moat()) {
		CHECK_EQ(counter("pages_2m"), large);
		CHECK_EQ(counter("pages_4k"), small);
	}
	writer_do(vcpu, WRITER_WRITE, 517, 3, 1);
	LARGE_IS(517, 3, 1);
	if (node_is_moat()) {
		CHECK_EQ(counter("pages_2m"), large - 1);
		CHECK_EQ(counter("pages_4k"), small + 512);
	}
	writer_do(vcpu, WRITER_WRITE, 0, 40, 16);
	LARGE_IS(0, 40, 16);
	writer_do(vcpu, WRITER_WRITE, 512, 1, 1);
	writer_do(vcpu, WRITER_READ, 0, LARGE_PAGES, 1);
	LARGE_IS(512, 1, 1);
	writer_slot(vm, memory, LARGE_PAGES, 0);
	writer_do(vcpu, WRITER_READ, 0, LARGE_PAGES, 1);
	if (node_is_moat()) {
		CHECK_EQ(counter("pages_2m"), large);
		CHECK_EQ(counter("pages_4k"), small);
	}
	writer_do(vcpu, WRITER_WRITE, 0, LARGE_PAGES, 1);
	if (node_is_moat())
		CHECK_EQ(counter("pages_2m"), large);
	CHECK_EQ(memory[517 * 512], 3);
}

static void transparent_huge_pages(void)
{
	machine_create(0, LARGE_PAGES, 0);
	madvise(vm->ram, vm->ram_size, MADV_NOHUGEPAGE);
	madvise(memory, LARGE_PAGES * PAGE_SIZE, MADV_HUGEPAGE);
	memset(memory, 0, LARGE_PAGES * PAGE_SIZE);
	large_log();
	machine_destroy();
}

/* The same when all bits are set at first, and large pages stay writable until one is cleared. */
static void large_initially_set(void)
{
	unsigned long bits[LARGE_PAGES / 64];

	machine_create(MANUAL | INITIALLY_SET, LARGE_PAGES, 0);
	madvise(memory, LARGE_PAGES * PAGE_SIZE, MADV_HUGEPAGE);
	memset(memory, 0, LARGE_PAGES * PAGE_SIZE);
	writer_do(vcpu, WRITER_WRITE, 0, LARGE_PAGES, 1);
	writer_slot(vm, memory, LARGE_PAGES, LOGGED);
	LARGE_IS(0, LARGE_PAGES, 1);
	/* One page of the first, then all. */
	memset(bits, 0, sizeof(bits));
	bit_set(bits, 5);
	CHECK_CALL(log_clear(WRITER_SLOT, 0, LARGE_PAGES, bits));
	CHECK_CALL(log_get(WRITER_SLOT, bits));
	CHECK_EQ(bits[0], ~(1ul << 5));
	writer_do(vcpu, WRITER_WRITE, 0, LARGE_PAGES, 1);
	LARGE_IS(0, LARGE_PAGES, 1);
	memset(bits, 0xff, sizeof(bits));
	CHECK_CALL(log_clear(WRITER_SLOT, 0, LARGE_PAGES, bits));
	LARGE_IS(0, 0, 0);
	writer_do(vcpu, WRITER_WRITE, 1, 100, 10);
	LARGE_IS(1, 100, 10);
	machine_destroy();
}

static int pages_reserve(unsigned int kb, int count)
{
	char path[100];
	int got = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%ukB/nr_hugepages", kb);
	file = fopen(path, "r+");
	if (!file)
		return 0;
	fprintf(file, "%d\n", count);
	rewind(file);
	if (fscanf(file, "%d", &got) != 1)
		got = 0;
	fclose(file);
	return got;
}

static void hugetlb(void)
{
	if (pages_reserve(2048, 2) < 2)
		SKIP("no huge pages to be had");
	vm = vm_create(GUEST_RAM, false);
	madvise(vm->ram, vm->ram_size, MADV_NOHUGEPAGE);
	memory = writer_memory(LARGE_PAGES * PAGE_SIZE, MAP_HUGETLB);
	if (CHECK(memory, "mmap of huge pages")) {
		writer_slot(vm, memory, LARGE_PAGES, 0);
		vcpu = writer_create(vm, 0);
		large_log();
		munmap(memory, LARGE_PAGES * PAGE_SIZE);
	}
	machine_destroy();
	pages_reserve(2048, 0);
}

/* A page of 1 GiB takes a host with that much memory in one piece: lab --mem 5G. */
static void hugetlb_1g(void)
{
	enum { N = 1 << 18 };
	static unsigned long bits[N / 64];

	if (pages_reserve(1048576, 1) < 1)
		SKIP("no page of 1 GiB to be had");
	vm = vm_create(GUEST_RAM, false);
	memory = writer_memory(MIB(1024), MAP_HUGETLB | 30 << 26 /* MAP_HUGE_1GB */);
	if (!CHECK(memory, "mmap of a page of 1 GiB"))
		return;
	writer_slot(vm, memory, N, 0);
	vcpu = writer_create(vm, 0);
	writer_do(vcpu, WRITER_WRITE, 0, 2, N - 1);
	if (node_is_moat())
		CHECK_EQ(counter("pages_1g"), 1);
	writer_slot(vm, memory, N, LOGGED);
	writer_do(vcpu, WRITER_READ, 0, 1000, 97);
	if (node_is_moat())
		CHECK_EQ(counter("pages_1g"), 1);
	writer_do(vcpu, WRITER_WRITE, 777, 2, 512 * 100);
	if (node_is_moat())
		CHECK_EQ(counter("pages_1g"), 0);
	CHECK_CALL(log_get(WRITER_SLOT, bits));
	CHECK(bit_get(bits, 777) && bit_get(bits, 777 + 51200), "the two pages are not logged");
	bits[777 / 64] = bits[(777 + 51200) / 64] = 0;
	CHECK(!memcmp(bits, bits + 1, sizeof(bits) - 8) && !bits[0], "more than two are logged");
	writer_slot(vm, memory, N, 0);
	writer_do(vcpu, WRITER_READ, 0, 1000, 97);
	if (node_is_moat())
		CHECK_EQ(counter("pages_1g"), 1);
	machine_destroy();
	munmap(memory, MIB(1024));
	pages_reserve(1048576, 0);
}

/* ---- Writes of the kernel's ---- */

static void emulated(void)
{
	machine_create(0, PAGES, LOGGED);
	writer_do(vcpu, WRITER_COPY, 11, 5, 3);
	LOG_IS(11, 5, 3);
	CHECK(memory[11 * 512], "nothing was copied");
	writer_do(vcpu, WRITER_COPY, 11, 5, 3);
	LOG_IS(11, 5, 3);
	LOG_IS(0, 0, 0);
	machine_destroy();
}

/* The emulator sets accessed and dirty bits in page tables: here in one at page 50 of the slot. */
static void page_table_update(void)
{
	uint64_t table = WRITER_GPA + 50 * PAGE_SIZE, i;
	uint64_t *dir;

	machine_create(0, PAGES, LOGGED);
	for (i = 0; i < 512; i++)
		memory[50 * 512 + i] = (WRITER_GPA + i * PAGE_SIZE) | 3;
	/* The address one GiB below the slot's, through that table. */
	dir = (uint64_t *)(vm->ram + GUEST_TABLES + 2 * PAGE_SIZE);
	dir[0x30000000 >> 21] = table | 7;
	writer_do(vcpu, WRITER_COPY, -65536ull + 20, 1, 1);
	CHECK_EQ(memory[50 * 512 + 20] & 0x60, 0x60);
	LOG_IS(20, 2, 30);
	LOG_IS(0, 0, 0);
	machine_destroy();
}

static void clock_page(void)
{
	machine_create(0, PAGES, LOGGED);
	writer_do(vcpu, WRITER_CLOCK, CLOCK_PAGE, 1, 1);
	LOG_IS(CLOCK_PAGE, 1, 1);
	CHECK(memory[CLOCK_PAGE * 512 + 3], "there is no clock");
	machine_destroy();
}

/* ---- Many writers ---- */

static unsigned long race_bits[WRITER_PAGES / 64];

static void race_create(uint64_t options)
{
	vm = vm_create(GUEST_RAM, false);
	if (options)
		CHECK_CALL(manual(vm, options));
	memory = writer_memory(WRITER_PAGES * PAGE_SIZE, 0);
	madvise(memory, WRITER_PAGES * PAGE_SIZE, MADV_HUGEPAGE);
	writer_slot(vm, memory, WRITER_PAGES, LOGGED);
	writers_create(vm, &judge, memory);
	writers_start(NULL);
}

static void race_destroy(void)
{
	uint32_t i;

	for (i = 0; i < WRITER_VCPUS; i++)
		vcpu_destroy(writers[i]);
	vm_destroy(vm);
	CHECK(judge.rounds > 10, "only %llu rounds", (unsigned long long)judge.rounds);
	CHECK(judge.logged > 100, "only %llu pages in the logs", (unsigned long long)judge.logged);
	tap_note("%llu rounds, %llu pages", (unsigned long long)judge.rounds,
		 (unsigned long long)judge.logged);
}

static bool round_get(void)
{
	judge_before_harvest(&judge);
	CHECK_CALL(log_get(WRITER_SLOT, race_bits));
	return judge_round(&judge, race_bits);
}

/* Only what GET said is cleared, in two halves. */
static bool round_clear(void)
{
	judge_before_harvest(&judge);
	CHECK_CALL(log_get(WRITER_SLOT, race_bits));
	CHECK_CALL(log_clear(WRITER_SLOT, 0, WRITER_PAGES / 2, race_bits));
	CHECK_CALL(log_clear(WRITER_SLOT, WRITER_PAGES / 2, WRITER_PAGES / 2,
			     race_bits + WRITER_PAGES / 128));
	return judge_round(&judge, race_bits);
}

static void race_run(bool (*round)(void), void (*disturb)(void))
{
	uint64_t end = clock_ns() + RACE_NS;

	while (clock_ns() < end && judge.rounds < RACE_ROUNDS && round())
		if (disturb)
			disturb();
	writers_quit();
	writers_join();
	round();
	round();
}

static void race(void)
{
	race_create(0);
	race_run(round_get, NULL);
	race_destroy();
}

static void race_manual(void)
{
	race_create(MANUAL);
	race_run(round_clear, NULL);
	race_destroy();
}

static void race_initially_set(void)
{
	race_create(MANUAL | INITIALLY_SET);
	race_run(round_clear, NULL);
	race_destroy();
}

/* The host takes pages away at the same time: copies on write, collapses, splits. */
static void memory_disturb(void)
{
	static unsigned int n;
	uint8_t *some = (uint8_t *)memory + n % 16 * 64 * PAGE_SIZE;
	pid_t pid;

	if (++n % 16 == 0) {
		pid = fork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	if (n % 16 == 8)
		madvise(memory, WRITER_PAGES * PAGE_SIZE, 25 /* MADV_COLLAPSE */);
	mprotect(some, 64 * PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	mprotect(some, 64 * PAGE_SIZE, PROT_READ | PROT_WRITE);
}

static void race_host(void)
{
	race_create(0);
	race_run(round_get, memory_disturb);
	race_destroy();
}

/* Logging goes off and on again. What is written in between is copied as a migration would. */
static bool round_toggle(void)
{
	uint64_t page;

	if (judge.rounds % 8 == 7) {
		judge_before_harvest(&judge);
		writer_slot(vm, memory, WRITER_PAGES, 0);
		writer_slot(vm, memory, WRITER_PAGES, LOGGED);
		for (page = 0; page < WRITER_PAGES; page++)
			bit_set(race_bits, page);
		return judge_round(&judge, race_bits);
	}
	return round_get();
}

static void race_toggle(void)
{
	race_create(0);
	race_run(round_toggle, NULL);
	race_destroy();
}

static const struct tap_case cases[] = {
	{ "capabilities", capabilities },
	{ "arguments", arguments },
	{ "basics", basics },
	{ "on_and_off", on_and_off },
	{ "moved_slot", moved },
	{ "read_only_slot", read_only },
	{ "two_slots", two_slots },
	{ "fault_loses_nothing", fault_loses_nothing },
	{ "manual_protect", manual_protect },
	{ "initially_set", initially_set },
	{ "transparent_huge_pages", transparent_huge_pages },
	{ "large_initially_set", large_initially_set },
	{ "hugetlb", hugetlb },
	{ "hugetlb_1g", hugetlb_1g },
	{ "emulated_writes", emulated },
	{ "page_table_update", page_table_update },
	{ "clock_page", clock_page },
	{ "race", race },
	{ "race_manual", race_manual },
	{ "race_initially_set", race_initially_set },
	{ "race_with_the_host", race_host },
	{ "race_on_and_off", race_toggle },
};

TAP_MAIN(cases)
