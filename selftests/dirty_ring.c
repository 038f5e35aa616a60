// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The dirty ring: each vCPU's entries for the pages that it wrote, how they are handed over and
 * taken back, a vCPU that stops when its ring is full, and userspace that scribbles over it.
 */
#include <signal.h>
#include <sys/wait.h>

#include "guest.h"
#include "writer.h"

#define LOGGED		KVM_MEM_LOG_DIRTY_PAGES
#define RING_BYTES	PAGE_SIZE
#define RING_ENTRIES	256
#define RING_SOFT	(RING_ENTRIES - 64)
#define RING_OFFSET	(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE)
#define RACE_NS		6000000000ull
#define RACE_ROUNDS	3000
#define SLOT_BIT	(1u << 31)

struct ring {
	struct kvm_dirty_gfn *entry;
	uint32_t next;			/* to be looked at */
};

static struct vm *vm;
static struct vcpu *vcpu;
static struct ring ring;
static uint64_t *memory;
static struct judge judge;
static unsigned long bits[WRITER_PAGES / 64];

static int ring_enable(struct vm *vm, uint32_t cap, uint64_t bytes)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { bytes } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &enable);
}

static int rings_reset(void)
{
	return ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0);
}

static struct ring ring_map(struct vcpu *vcpu)
{
	struct ring ring = { 0 };

	ring.entry = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
			  RING_OFFSET);
	if (ring.entry == MAP_FAILED)
		tap_bail("mmap of the ring: %s", strerror(errno));
	return ring;
}

static struct kvm_dirty_gfn *ring_entry(struct ring *ring, uint32_t n)
{
	return &ring->entry[n % RING_ENTRIES];
}

static uint32_t flags_get(const struct kvm_dirty_gfn *entry)
{
	return __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE);
}

static void flags_set(struct kvm_dirty_gfn *entry, uint32_t flags)
{
	__atomic_store_n(&entry->flags, flags, __ATOMIC_RELEASE);
}

/* Looks at all that is there, at most; notes the pages in bits[], and gives the entries back. */
static uint32_t harvest(struct ring *ring, uint32_t most)
{
	uint32_t n;

	for (n = 0; n < most && flags_get(ring_entry(ring, ring->next)) == KVM_DIRTY_GFN_F_DIRTY;
	     n++) {
		struct kvm_dirty_gfn *entry = ring_entry(ring, ring->next++);

		if (CHECK(entry->slot == WRITER_SLOT && entry->offset < WRITER_PAGES,
			  "an entry says slot %u, page %llu", entry->slot, entry->offset))
			bit_set(bits, entry->offset);
		flags_set(entry, KVM_DIRTY_GFN_F_RESET);
	}
	return n;
}

static void bits_are(uint64_t first, uint64_t count, uint64_t step, int line)
{
	unsigned long want[WRITER_PAGES / 64] = { 0 };
	uint64_t i;

	for (i = 0; i < count; i++)
		bit_set(want, first + i * step);
	for (i = 0; i < WRITER_PAGES / 64; i++)
		tap_check(bits[i] == want[i], __FILE__, line, "pages of word %d: %#lx, wanted %#lx",
			  (int)i, bits[i], want[i]);
	memset(bits, 0, sizeof(bits));
}

#define BITS_ARE(first, count, step) bits_are(first, count, step, __LINE__)

/* All tables are there before the logging begins: then a page that is written is one entry. */
static void machine_create_with(bool lapic)
{
	vm = vm_create(GUEST_RAM, lapic);
	if (ring_enable(vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, RING_BYTES))
		tap_bail("KVM_CAP_DIRTY_LOG_RING_ACQ_REL: %s", strerror(errno));
	memory = writer_memory(WRITER_PAGES * PAGE_SIZE, 0);
	madvise(memory, WRITER_PAGES * PAGE_SIZE, MADV_NOHUGEPAGE);
	writer_slot(vm, memory, WRITER_PAGES, 0);
	vcpu = writer_create(vm, 0);
	ring = ring_map(vcpu);
	writer_do(vcpu, WRITER_WRITE, 0, WRITER_PAGES, 1);
	CHECK_EQ(rings_reset(), 0);
	CHECK_EQ(flags_get(ring.entry), 0);
	writer_slot(vm, memory, WRITER_PAGES, LOGGED);
	memset(bits, 0, sizeof(bits));
}

static void machine_create(void)
{
	machine_create_with(false);
}

static void machine_destroy(void)
{
	munmap(ring.entry, RING_BYTES);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* ---- Arguments ---- */

static void arguments(void)
{
	static const uint32_t caps[] = { KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL };
	uint64_t most;
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		most = node_has(caps[i]);
		CHECK_EQ(most, 65536 * sizeof(struct kvm_dirty_gfn));
		vm = vm_create_bare();
		CHECK_ERRNO(rings_reset(), EINVAL);
		CHECK_ERRNO(ring_enable(vm, caps[i], 0), EINVAL);
		CHECK_ERRNO(ring_enable(vm, caps[i], PAGE_SIZE / 2), EINVAL);
		CHECK_ERRNO(ring_enable(vm, caps[i], PAGE_SIZE + 1), EINVAL);
		CHECK_ERRNO(ring_enable(vm, caps[i], 3 * PAGE_SIZE), EINVAL);
		CHECK_ERRNO(ring_enable(vm, caps[i], most * 2), E2BIG);
		CHECK_CALL(ring_enable(vm, caps[i], most));
		CHECK_ERRNO(ring_enable(vm, caps[i], most), EINVAL);
		CHECK_CALL(rings_reset());
		vm_destroy(vm);
	}
	vm = vm_create_bare();
	fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	CHECK_ERRNO(ring_enable(vm, KVM_CAP_DIRTY_LOG_RING, PAGE_SIZE), EINVAL);
	close(fd);
	vm_destroy(vm);
}

static void no_bitmap(void)
{
	struct kvm_clear_dirty_log clear = {
		.slot = WRITER_SLOT, .num_pages = 64, .dirty_bitmap = bits,
	};
	struct kvm_dirty_log get = { .slot = WRITER_SLOT, .dirty_bitmap = bits };

	machine_create();
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &get), ENXIO);
	CHECK_ERRNO(ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear), ENXIO);
	get.slot = 5;
	CHECK_ERRNO(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &get), ENXIO);
	machine_destroy();
}

static bool ring_maps(int prot, int flags, size_t pages, size_t offset)
{
	void *p = mmap(NULL, pages * PAGE_SIZE, prot, flags, vcpu->fd, offset);

	if (p == MAP_FAILED) {
		CHECK_EQ(errno, EINVAL);
		return false;
	}
	munmap(p, pages * PAGE_SIZE);
	return true;
}

/* A page of the vCPU's mapping behind the ring is not there. */
static void touch_behind(void)
{
	volatile uint8_t *p =
		mmap(NULL, 2 * PAGE_SIZE, PROT_READ, MAP_SHARED, vcpu->fd, RING_OFFSET);
	int status;
	pid_t pid = fork();

	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		_exit(p == MAP_FAILED ? 1 : p[0] + p[PAGE_SIZE] * 0);
	}
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %#x", status);
	munmap((void *)p, 2 * PAGE_SIZE);
}

static void mappings(void)
{
	machine_create();
	CHECK(ring_maps(PROT_READ, MAP_SHARED, 1, RING_OFFSET), "shared, to read");
	CHECK(ring_maps(PROT_READ | PROT_WRITE, MAP_SHARED, 1, RING_OFFSET), "shared, to write");
	CHECK(!ring_maps(PROT_READ, MAP_PRIVATE, 1, RING_OFFSET), "private, to read");
	CHECK(!ring_maps(PROT_READ | PROT_WRITE, MAP_PRIVATE, 1, RING_OFFSET), "private, to write");
	CHECK(!ring_maps(PROT_READ | PROT_EXEC, MAP_SHARED, 1, RING_OFFSET), "executable");
	CHECK(!ring_maps(PROT_READ | PROT_EXEC, MAP_PRIVATE, 1, RING_OFFSET), "private, code");
	CHECK(!ring_maps(PROT_READ, MAP_PRIVATE, 2, RING_OFFSET), "private, beyond the ring");
	CHECK(!ring_maps(PROT_READ, MAP_PRIVATE, KVM_DIRTY_LOG_PAGE_OFFSET + 1, 0),
	      "private, from kvm_run to the ring");
	touch_behind();
	machine_destroy();
}

/* ---- Entries ---- */

static void basics(void)
{
	uint32_t i;

	machine_create();
	writer_do(vcpu, WRITER_READ, 0, WRITER_PAGES, 1);
	CHECK_EQ(flags_get(ring.entry), 0);
	writer_do(vcpu, WRITER_WRITE, 1000, 100, -3ull);
	for (i = 0; i < 100; i++) {
		CHECK_EQ(flags_get(&ring.entry[i]), KVM_DIRTY_GFN_F_DIRTY);
		CHECK_EQ(ring.entry[i].slot, WRITER_SLOT);
		CHECK_EQ(ring.entry[i].offset, 1000 - 3 * i);
	}
	CHECK_EQ(flags_get(&ring.entry[100]), 0);
	/* Written again, before and after they are looked at, until they are taken back. */
	writer_do(vcpu, WRITER_WRITE, 1000, 100, -3ull);
	CHECK_EQ(harvest(&ring, 1000), 100);
	writer_do(vcpu, WRITER_WRITE, 1000, 100, -3ull);
	CHECK_EQ(flags_get(&ring.entry[100]), 0);
	CHECK_EQ(rings_reset(), 100);
	for (i = 0; i < 100; i++)
		CHECK_EQ(flags_get(&ring.entry[i]), 0);
	BITS_ARE(703, 100, 3);
	writer_do(vcpu, WRITER_WRITE, 703, 50, 3);
	CHECK_EQ(harvest(&ring, 1000), 50);
	BITS_ARE(703, 50, 3);
	CHECK_EQ(rings_reset(), 50);
	CHECK_EQ(rings_reset(), 0);
	machine_destroy();
}

/* Entries are taken back in their order, up to the first that userspace still has. */
static void partial_reset(void)
{
	uint32_t i;

	machine_create();
	writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
	for (i = 10; i < 30; i++)
		flags_set(&ring.entry[i], KVM_DIRTY_GFN_F_RESET);
	CHECK_EQ(rings_reset(), 0);
	writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
	CHECK_EQ(flags_get(&ring.entry[100]), 0);
	CHECK_EQ(harvest(&ring, 10), 10);
	CHECK_EQ(rings_reset(), 30);
	BITS_ARE(0, 10, 1);
	ring.next = 100;
	writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
	CHECK_EQ(harvest(&ring, 1000), 30);
	BITS_ARE(0, 30, 1);
	ring.next = 30;
	CHECK_EQ(harvest(&ring, 1000), 70);
	BITS_ARE(30, 70, 1);
	CHECK_EQ(rings_reset(), 100);
	machine_destroy();
}

static bool run_is_full(void)
{
	struct report report = writer_run(vcpu);

	if (report.kind == REPORT_EXIT && vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL)
		return true;
	vcpu_explain(vcpu, &report, "a full ring");
	return false;
}

/*
 * Round and round: the vCPU stops at the limit, until there is room again. The last page of each
 * round has its entry, but not yet its write: so it is the first of the next as well.
 */
static void full(void)
{
	uint64_t page = 0;
	struct report report;

	machine_create();
	writer_order(vcpu, WRITER_WRITE, 0, WRITER_PAGES, 1);
	while (page + RING_SOFT < WRITER_PAGES && run_is_full() && !tap_failed()) {
		CHECK_EQ(flags_get(ring_entry(&ring, ring.next + RING_SOFT - 1)), 1);
		CHECK_EQ(flags_get(ring_entry(&ring, ring.next + RING_SOFT)), 0);
		run_is_full();
		CHECK_EQ(rings_reset(), 0);
		run_is_full();
		CHECK_EQ(harvest(&ring, 1000), RING_SOFT);
		run_is_full();
		CHECK_EQ(rings_reset(), RING_SOFT);
		BITS_ARE(page, RING_SOFT, 1);
		page += RING_SOFT - 1;
	}
	report = writer_run(vcpu);
	CHECK_EQ(report.kind, REPORT_SYNC);
	CHECK_EQ(harvest(&ring, 1000), WRITER_PAGES - page);
	BITS_ARE(page, WRITER_PAGES - page, 1);
	/* One entry of room is enough to go on by one page. */
	writer_order(vcpu, WRITER_WRITE, 0, WRITER_PAGES / 2, 2);
	CHECK_EQ(rings_reset(), WRITER_PAGES - page);
	run_is_full();
	CHECK_EQ(harvest(&ring, 1), 1);
	CHECK_EQ(rings_reset(), 1);
	run_is_full();
	CHECK_EQ(harvest(&ring, 1000), RING_SOFT);
	BITS_ARE(0, RING_SOFT + 1, 2);
	CHECK_EQ(rings_reset(), RING_SOFT);
	report = writer_run(vcpu);
	CHECK_EQ(report.kind, REPORT_EXIT);
	machine_destroy();
}

static void on_and_off(void)
{
	machine_create();
	writer_do(vcpu, WRITER_WRITE, 0, 20, 1);
	writer_slot(vm, memory, WRITER_PAGES, 0);
	writer_do(vcpu, WRITER_WRITE, 0, WRITER_PAGES, 1);
	CHECK_EQ(harvest(&ring, 1000), 20);
	BITS_ARE(0, 20, 1);
	CHECK_EQ(rings_reset(), 20);
	writer_slot(vm, memory, WRITER_PAGES, LOGGED);
	writer_do(vcpu, WRITER_WRITE, 5, 20, 2);
	CHECK_EQ(harvest(&ring, 1000), 20);
	BITS_ARE(5, 20, 2);
	/* Entries of a slot that is gone mean nothing. */
	CHECK_CALL(vm_slot(vm, WRITER_SLOT, 0, 0, NULL, 0));
	CHECK_EQ(rings_reset(), 20);
	machine_destroy();
}

/* ---- Writes of the kernel's ---- */

/* Nothing makes room in a ring between calls that write to the guest without running it. */
static void vapic_overflows_nothing(void)
{
	struct kvm_vapic_addr addr = { .vapic_addr = WRITER_GPA };
	unsigned int i;

	machine_create_with(true);
	for (i = 0; i < RING_ENTRIES + 10; i++)
		CHECK_CALL(ioctl(vcpu->fd, KVM_SET_VAPIC_ADDR, &addr));
	CHECK(harvest(&ring, 1000) < RING_ENTRIES, "the ring is full");
	machine_destroy();
}

/* How many entries the kernel makes of a write is its own affair. */
static void kernel_writes(void)
{
	machine_create();
	writer_do(vcpu, WRITER_COPY, 11, 5, 3);
	CHECK(harvest(&ring, 1000) >= 5, "too few entries");
	BITS_ARE(11, 5, 3);
	CHECK_CALL(rings_reset());
	writer_do(vcpu, WRITER_CLOCK, 9, 1, 1);
	harvest(&ring, 1000);
	BITS_ARE(9, 1, 1);
	machine_destroy();
}

/*
 * Obeys to the end, with the entries given back whenever the ring is full. Returns how many there
 * were.
 */
static uint32_t drain(void)
{
	struct report report;
	uint32_t n, pushed = 0;

	do {
		report = writer_run(vcpu);
		n = harvest(&ring, 1000);
		CHECK(n <= RING_SOFT + 8, "%u entries in a ring", n);
		CHECK_EQ(rings_reset(), n);
		pushed += n;
	} while (report.kind == REPORT_EXIT && !tap_failed() &&
		 vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL);
	if (report.kind != REPORT_SYNC || report.value != 1)
		vcpu_explain(vcpu, &report, "the order's end");
	return pushed;
}

/* An emulated instruction under way when the ring gets full is done, and only once. */
static void full_by_kernel_writes(void)
{
	uint64_t first, i;

	machine_create();
	writer_order(vcpu, WRITER_COPY, 0, WRITER_PAGES, 1);
	CHECK(drain() >= WRITER_PAGES, "too few entries");
	BITS_ARE(0, WRITER_PAGES, 1);
	for (i = 0, first = memory[0]; i < WRITER_PAGES; i++)
		CHECK_EQ(memory[i * 512] - first, i);
	machine_destroy();
}

/* The same where the emulator writes to the guest's page tables too; one is page 600. */
static void full_by_page_tables(void)
{
	uint64_t *directory, i;

	machine_create();
	for (i = 0; i < 512; i++)
		memory[600 * 512 + i] = (WRITER_GPA + i * PAGE_SIZE) | 3;
	directory = (uint64_t *)(vm->ram + GUEST_TABLES + 2 * PAGE_SIZE);
	directory[(WRITER_GPA - MIB(256)) >> 21] = (WRITER_GPA + 600 * PAGE_SIZE) | 7;
	writer_order(vcpu, WRITER_COPY, -(MIB(256) / PAGE_SIZE), 512, 1);
	CHECK(drain() >= 512 * 2, "too few entries");
	for (i = 0; i < 512; i++)
		CHECK_EQ(memory[600 * 512 + i] & 0x60, 0x60);
	CHECK(bit_get(bits, 600), "the page table is not in the log");
	bits[600 / 64] &= ~(1ul << 600 % 64);
	BITS_ARE(0, 512, 1);
	machine_destroy();
}

/* ---- Userspace that lies ---- */

static void ring_fill(uint32_t slot, uint64_t offset, uint32_t flags)
{
	uint32_t i;

	for (i = 0; i < RING_ENTRIES; i++) {
		ring.entry[i].slot = slot;
		ring.entry[i].offset = offset;
		flags_set(&ring.entry[i], flags);
	}
}

/* Empties the ring, whatever it says, and finds out where the vCPU is in it. */
static void ring_find(void)
{
	int n, total = 0;

	do {
		ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
		n = rings_reset();
		total += n > 0 ? n : 0;
	} while (n > 0 && total <= 10 * RING_ENTRIES);
	CHECK_EQ(n, 0);
	CHECK(total <= RING_ENTRIES, "%d entries were taken back", total);
	ring_fill(0, 0, 0);
	writer_slot(vm, memory, WRITER_PAGES, 0);
	writer_slot(vm, memory, WRITER_PAGES, LOGGED);
	memset(bits, 0, sizeof(bits));
	writer_do(vcpu, WRITER_WRITE, 99, 1, 1);
	for (ring.next = 0; ring.next < RING_ENTRIES; ring.next++)
		if (flags_get(&ring.entry[ring.next]))
			break;
}

static void still_good(void)
{
	ring_find();
	CHECK_EQ(harvest(&ring, 1000), 1);
	CHECK_EQ(rings_reset(), 1);
	BITS_ARE(99, 1, 1);
	writer_do(vcpu, WRITER_WRITE, 7, 50, 5);
	CHECK_EQ(harvest(&ring, 1000), 50);
	CHECK_EQ(rings_reset(), 50);
	BITS_ARE(7, 50, 5);
}

/* More entries are given back than there ever were: those that were are taken, and no others. */
static void indices(void)
{
	if (!node_is_moat())
		SKIP("KVM takes back what it never gave, and the ring is full for ever");
	machine_create();
	ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
	CHECK_EQ(rings_reset(), 0);
	writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
	ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
	CHECK_EQ(rings_reset(), 100);
	still_good();
	machine_destroy();
}

static void entries(void)
{
	static const struct { uint32_t slot; uint64_t offset; } lies[] = {
		{ ~0u, 0 }, { ~0u, ~0ull }, { 5, 0 }, { 0, 0 }, { 0, 5 }, { WRITER_SLOT, ~0ull },
		{ WRITER_SLOT, WRITER_PAGES }, { WRITER_SLOT, 1ull << 52 }, { 1 << 16, 0 },
		{ WRITER_SLOT, 1ull << 63 }, { 0x7fff, 1 }, { SLOT_BIT | WRITER_SLOT, 1 },
		{ WRITER_SLOT, -(WRITER_GPA >> 12) }, { WRITER_SLOT, 3 },
	};
	unsigned int i;

	if (!node_is_moat())
		SKIP("its ring does not find back");
	machine_create();
	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		writer_slot(vm, memory, WRITER_PAGES, 0);
		writer_slot(vm, memory, WRITER_PAGES, LOGGED);
		writer_do(vcpu, WRITER_WRITE, 0, 100, 1);
		ring_fill(lies[i].slot, lies[i].offset, ~0u);
		CHECK_EQ(rings_reset(), 100);
	}
	still_good();
	machine_destroy();
}

static volatile bool scribbling;

static void *scribble(void *arg)
{
	uint64_t random = 1;

	(void)arg;
	while (scribbling) {
		random = random * 6364136223846793005 + 1442695040888963407;
		((volatile uint64_t *)ring.entry)[(random >> 33) % (RING_ENTRIES * 2)] =
			random >> 20 & 1 ? random : (random & 3) | 1ull << 32;
	}
	return NULL;
}

/* At all times, while the vCPU writes and entries are taken back. */
static void scribbled(void)
{
	uint64_t end = clock_ns() + 3000000000ull;
	int n, rounds = 0, fulls = 0;
	struct report report = { 0 };
	pthread_t thread;

	if (!node_is_moat())
		SKIP("its ring does not find back");
	machine_create();
	scribbling = true;
	pthread_create(&thread, NULL, scribble, NULL);
	while (clock_ns() < end && !tap_failed()) {
		writer_order(vcpu, WRITER_WRITE, 0, WRITER_PAGES, 1);
		do {
			report = writer_run(vcpu);
			n = rings_reset();
			CHECK(n >= 0 && n <= RING_ENTRIES, "%d entries were taken back", n);
			if (!n)
				ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
			fulls += report.kind == REPORT_EXIT;
		} while (report.kind == REPORT_EXIT && clock_ns() < end);
		rounds++;
	}
	scribbling = false;
	pthread_join(thread, NULL);
	tap_note("%d rounds, %d times full", rounds, fulls);
	ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
	CHECK_CALL(rings_reset());
	if (report.kind == REPORT_EXIT)
		while (writer_run(vcpu).kind == REPORT_EXIT) {
			ring_fill(WRITER_SLOT, 0, KVM_DIRTY_GFN_F_RESET);
			CHECK_CALL(rings_reset());
		}
	still_good();
	machine_destroy();
}

/* ---- Many writers ---- */

static volatile uint64_t times_full;

static void wait_for_room(void)
{
	__atomic_fetch_add(&times_full, 1, __ATOMIC_RELAXED);
	usleep(500);
}

static bool race_round(struct ring *rings)
{
	uint32_t i, n = 0;
	int r;

	judge_before_harvest(&judge);
	memset(bits, 0, sizeof(bits));
	for (i = 0; i < WRITER_VCPUS; i++)
		n += harvest(&rings[i], RING_ENTRIES);
	r = rings_reset();
	CHECK_EQ(r, n);
	return judge_round(&judge, bits) && r == (int)n;
}

static void race_run(void (*disturb)(void))
{
	struct ring rings[WRITER_VCPUS];
	uint64_t end = clock_ns() + RACE_NS;
	uint32_t i;

	vm = vm_create(GUEST_RAM, false);
	CHECK_CALL(ring_enable(vm, KVM_CAP_DIRTY_LOG_RING, RING_BYTES));
	memory = writer_memory(WRITER_PAGES * PAGE_SIZE, 0);
	writer_slot(vm, memory, WRITER_PAGES, LOGGED);
	times_full = 0;
	writers_create(vm, &judge, memory);
	for (i = 0; i < WRITER_VCPUS; i++)
		rings[i] = ring_map(writers[i]);
	writers_start(wait_for_room);
	while (clock_ns() < end && judge.rounds < RACE_ROUNDS && race_round(rings))
		if (disturb)
			disturb();
	writers_quit();
	for (i = 0; i < 20; i++) {	/* there may be some that wait for room */
		race_round(rings);
		usleep(5000);
	}
	writers_join();
	race_round(rings);
	race_round(rings);
	for (i = 0; i < WRITER_VCPUS; i++) {
		munmap(rings[i].entry, RING_BYTES);
		vcpu_destroy(writers[i]);
	}
	vm_destroy(vm);
	tap_note("%llu rounds, %llu pages, %llu times full", (unsigned long long)judge.rounds,
		 (unsigned long long)judge.logged, (unsigned long long)times_full);
	CHECK(judge.rounds > 10 && judge.logged > 100, "too few of them");
}

static void race(void)
{
	race_run(NULL);
}

/* Time for a ring to get full, and a host that copies pages. */
static void dawdle(void)
{
	static unsigned int n;
	uint64_t before = times_full;
	unsigned int ms;
	pid_t pid;

	usleep(10000);
	if (++n % 8)
		return;
	for (ms = 0; ms < 500 && times_full == before; ms += 10)
		usleep(10000);
	pid = fork();
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static void race_when_full(void)
{
	race_run(dawdle);
	CHECK(times_full, "no ring was ever full");
}

static const struct tap_case cases[] = {
	{ "arguments", arguments },
	{ "no_bitmap", no_bitmap },
	{ "mappings", mappings },
	{ "basics", basics },
	{ "partial_reset", partial_reset },
	{ "full", full },
	{ "on_and_off", on_and_off },
	{ "kernel_writes", kernel_writes },
	{ "vapic_overflows_nothing", vapic_overflows_nothing },
	{ "full_by_kernel_writes", full_by_kernel_writes },
	{ "full_by_page_tables", full_by_page_tables },
	{ "hostile_indices", indices },
	{ "hostile_entries", entries },
	{ "hostile_scribbling", scribbled },
	{ "race", race },
	{ "race_when_full", race_when_full },
};

TAP_MAIN(cases)
