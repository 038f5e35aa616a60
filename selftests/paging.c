// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Guest memory over whatever the host has underneath, and while the host changes it.
 *
 * The guest is a server: the host leaves an order in its memory (fill, compare), the guest carries
 * it out on the slot and says how many pages were wrong. So both sides write and judge the same
 * memory in turn.
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "guest.h"

#define SLOT_GPA	0x40000000ul
#define SLOT_SIZE	MIB(4)
#define PAGES		(SLOT_SIZE / PAGE_SIZE)

enum order_kind { ORDER_FILL, ORDER_COMPARE, ORDER_ZERO, ORDER_CALL };

static volatile struct {
	uint64_t kind, page, count, seed;
} order;

static struct vm *vm;
static struct vcpu *vcpu;

/* A place in each page that differs from page to page. */
static volatile uint64_t *page_word(volatile void *base, uint64_t page)
{
	return (volatile uint64_t *)base + page * 512 + page % 512;
}

static uint64_t order_serve(volatile void *base)
{
	uint64_t page, wrong = 0;

	for (page = order.page; page < order.page + order.count; page++) {
		if (order.kind == ORDER_FILL)
			*page_word(base, page) = order.seed + page;
		else if (order.kind == ORDER_COMPARE)
			wrong += *page_word(base, page) != order.seed + page;
		else if (order.kind == ORDER_CALL)
			((void (*)(void))((uintptr_t)base + page * PAGE_SIZE))();
		else
			wrong += *page_word(base, page) != 0;
	}
	return wrong;
}

static void server_payload(void)
{
	for (;;)
		guest_sync(order_serve((void *)SLOT_GPA));
}

static struct report guest_order(enum order_kind kind, uint64_t page, uint64_t count, uint64_t seed)
{
	__typeof__(order) *at = GUEST_VAR(vm, order);

	at->kind = kind;
	at->page = page;
	at->count = count;
	at->seed = seed;
	return vcpu_wait(vcpu);
}

static bool order_check(enum order_kind kind, uint64_t page, uint64_t count, uint64_t seed,
			const char *when)
{
	struct report report = guest_order(kind, page, count, seed);

	if (report.kind != REPORT_SYNC) {
		tap_note("%s:", when);
		vcpu_explain(vcpu, &report, "the order's result");
		return false;
	}
	return CHECK(!report.value, "%s: %llu pages of %llu from %llu are wrong", when,
		     (unsigned long long)report.value, (unsigned long long)count,
		     (unsigned long long)page);
}

static void guest_fill(uint64_t seed, const char *when)
{
	order_check(ORDER_FILL, 0, PAGES, seed, when);
}

static void guest_compare(uint64_t seed, const char *when)
{
	order_check(ORDER_COMPARE, 0, PAGES, seed, when);
}

static void host_fill(void *host, uint64_t seed)
{
	uint64_t page;

	for (page = 0; page < PAGES; page++)
		*page_word(host, page) = seed + page;
}

static void host_compare(void *host, uint64_t seed, const char *when)
{
	uint64_t page, wrong = 0;

	for (page = 0; page < PAGES; page++)
		wrong += *page_word(host, page) != seed + page;
	CHECK(!wrong, "%s: the host sees %llu wrong pages", when, (unsigned long long)wrong);
}

static void machine_create(void *host)
{
	vm = vm_create(GUEST_RAM, false);
	vcpu = vcpu_create(vm, 0);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	vcpu_set_long(vcpu, server_payload, 0);
}

static void machine_destroy(void)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* At an address that huge pages can be at. */
static void *host_map(int flags, int fd)
{
	uint8_t *p = mmap(NULL, SLOT_SIZE + MIB(2), PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return p;
	p = (uint8_t *)(((uintptr_t)p + MIB(2) - 1) & ~(MIB(2) - 1));
	return mmap(p, SLOT_SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
}

static void *host_anonymous(int advice)
{
	void *p = host_map(MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (p == MAP_FAILED)
		tap_bail("mmap: %s", strerror(errno));
	madvise(p, SLOT_SIZE, advice);
	return p;
}

/* Guest and host write in turn; what is dropped comes back as it must. */
static void backing_test(void *host, bool drops_to_zero)
{
	machine_create(host);
	order_check(ORDER_ZERO, 0, PAGES, 0, "fresh");
	guest_fill(0x1000, "guest's fill");
	host_compare(host, 0x1000, "guest's fill");
	host_fill(host, 0x2000);
	guest_compare(0x2000, "host's fill");
	guest_fill(0x3000, "second fill");
	madvise(host, SLOT_SIZE, MADV_DONTNEED);
	if (drops_to_zero)
		order_check(ORDER_ZERO, 0, PAGES, 0, "after MADV_DONTNEED");
	else
		guest_compare(0x3000, "after MADV_DONTNEED");
	guest_fill(0x4000, "fill after MADV_DONTNEED");
	host_compare(host, 0x4000, "fill after MADV_DONTNEED");
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void small_pages(void)
{
	backing_test(host_anonymous(MADV_NOHUGEPAGE), true);
}

static void transparent_huge(void)
{
	backing_test(host_anonymous(MADV_HUGEPAGE), true);
}

/* Whether large mappings must hold no code: where a change of their size can stop the CPU. */
static bool code_must_be_small(void)
{
	FILE *file = fopen("/sys/devices/system/cpu/vulnerabilities/itlb_multihit", "re");
	char line[128] = "Not affected";

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = 0;
		fclose(file);
	}
	return strncmp(line, "Not affected", 12);
}

static void code_in_huge_pages(void)
{
	uint8_t *host = host_anonymous(MADV_HUGEPAGE);
	uint64_t large, small;
	int stats;

	machine_create(host);
	stats = ioctl(vm->fd, KVM_GET_STATS_FD, NULL);
	guest_fill(0x5000, "fill");
	host[5 * PAGE_SIZE] = 0xc3;	/* RET */
	large = stat_read(stats, "pages_2m");
	small = stat_read(stats, "pages_4k");
	if (!CHECK(large >= SLOT_SIZE / MIB(2), "%llu large mappings", (unsigned long long)large))
		return;
	order_check(ORDER_CALL, 5, 1, 0, "a call into it");
	CHECK_EQ(stat_read(stats, "pages_2m"), large - code_must_be_small());
	CHECK(stat_read(stats, "pages_4k") - small < 16 + 512u * code_must_be_small(),
	      "%llu small mappings more", (unsigned long long)(stat_read(stats, "pages_4k") - small));
	order_check(ORDER_CALL, 5, 1, 0, "another call");
	close(stats);
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void memfd(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	void *host;

	if (fd < 0 || ftruncate(fd, SLOT_SIZE))
		SKIP("memfd_create: %s", strerror(errno));
	host = host_map(MAP_SHARED, fd);
	if (!CHECK(host != MAP_FAILED, "mmap of a memfd: %s", strerror(errno)))
		return;
	backing_test(host, false);
	close(fd);
}

static bool hugetlb_reserve(unsigned int pages)
{
	char text[16];
	int fd = open("/proc/sys/vm/nr_hugepages", O_WRONLY | O_CLOEXEC);
	int n = snprintf(text, sizeof(text), "%u\n", pages);
	bool done = fd >= 0 && write(fd, text, n) == n;

	if (fd >= 0)
		close(fd);
	return done;
}

static void hugetlb(void)
{
	void *host;

	hugetlb_reserve(SLOT_SIZE / MIB(2));
	host = host_map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	if (host == MAP_FAILED)
		SKIP("no huge pages: %s", strerror(errno));
	backing_test(host, true);
	hugetlb_reserve(0);
}

static void file_private(void)
{
	char name[] = "/tmp/pagingXXXXXX";
	int fd = mkstemp(name);
	void *host;

	if (fd < 0 || unlink(name) || ftruncate(fd, SLOT_SIZE))
		SKIP("no file in /tmp: %s", strerror(errno));
	host = host_map(MAP_PRIVATE, fd);
	if (!CHECK(host != MAP_FAILED, "mmap of a file: %s", strerror(errno)))
		return;
	/* Private pages are the guest's, the file stays as it is. */
	backing_test(host, true);
	close(fd);
}

/* Pages that the host has only read are the zero page, until somebody writes. */
static void zero_page(void)
{
	void *host = host_anonymous(MADV_NOHUGEPAGE);
	uint64_t page, sum = 0;

	for (page = 0; page < PAGES; page++)
		sum += *page_word(host, page);
	CHECK_EQ(sum, 0);
	machine_create(host);
	order_check(ORDER_ZERO, 0, PAGES, 0, "zero pages");
	order_check(ORDER_FILL, 7, 1, 0x77, "write of one");
	order_check(ORDER_ZERO, 8, PAGES - 8, 0, "all others");
	CHECK_EQ(*page_word(host, 7), 0x77 + 7);
	/* Read by the guest first, written by the host then. */
	*page_word(host, 9) = 0x99 + 9;
	order_check(ORDER_COMPARE, 9, 1, 0x99, "written by the host");
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void fault_check(enum order_kind kind, uint64_t page, const char *when)
{
	struct report report = guest_order(kind, page, 1, 0x5000);

	if (report.kind != REPORT_ERROR || report.error != EFAULT) {
		tap_note("%s:", when);
		vcpu_explain(vcpu, &report, "EFAULT from KVM_RUN");
	}
}

/* The order that failed is still under way, and ends once it can. */
static void fault_resume(const char *when)
{
	struct report report = vcpu_wait(vcpu);

	if (report.kind != REPORT_SYNC) {
		tap_note("%s:", when);
		vcpu_explain(vcpu, &report, "the order's result");
	}
}

static void protection(int advice)
{
	uint8_t *host = host_anonymous(advice);

	machine_create(host);
	guest_fill(0x5000, "fill");
	mprotect(host, SLOT_SIZE, PROT_READ);
	guest_compare(0x5000, "PROT_READ");
	fault_check(ORDER_FILL, 3, "write, PROT_READ");
	mprotect(host, SLOT_SIZE, PROT_NONE);
	mprotect(host, SLOT_SIZE, PROT_READ | PROT_WRITE);
	fault_resume("writable again");
	mprotect(host + 0x10 * PAGE_SIZE, PAGE_SIZE, PROT_NONE);
	order_check(ORDER_COMPARE, 0, 0x10, 0x5000, "below PROT_NONE");
	order_check(ORDER_COMPARE, 0x11, 0x20, 0x5000, "above PROT_NONE");
	fault_check(ORDER_COMPARE, 0x10, "read, PROT_NONE");
	mprotect(host + 0x10 * PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE);
	fault_resume("readable again");
	guest_compare(0x5000, "at the end");
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void protection_small(void)
{
	protection(MADV_NOHUGEPAGE);
}

static void protection_huge(void)
{
	protection(MADV_HUGEPAGE);
}

/* The child's copy stays what it was at the fork, whatever the guest does. */
static int fork_child(void *host, int from, int to)
{
	uint64_t page, wrong = 0;
	char c;

	if (read(from, &c, 1) != 1)
		return 1;
	for (page = 0; page < PAGES; page++)
		wrong += *page_word(host, page) != 0x6000 + page;
	host_fill(host, 0x6666);
	if (write(to, "x", 1) != 1)
		return 1;
	return wrong ? 2 : 0;
}

static void fork_cow(int advice)
{
	void *host = host_anonymous(advice);
	int there[2], back[2], status = 0;
	pid_t child;
	char c;

	if (pipe(there) || pipe(back))
		tap_bail("pipe: %s", strerror(errno));
	machine_create(host);
	guest_fill(0x6000, "before the fork");
	child = fork();
	if (!child)
		_exit(fork_child(host, there[0], back[1]));
	guest_compare(0x6000, "after the fork");
	guest_fill(0x7000, "written after the fork");
	host_compare(host, 0x7000, "written after the fork");
	CHECK(write(there[1], "x", 1) == 1 && read(back[0], &c, 1) == 1, "the child is gone");
	waitpid(child, &status, 0);
	CHECK(status == 0, "the child saw the guest's writes: status %#x", status);
	guest_compare(0x7000, "after the child's writes");
	machine_destroy();
	munmap(host, SLOT_SIZE);
	close(there[0]);
	close(there[1]);
	close(back[0]);
	close(back[1]);
}

static void fork_small(void)
{
	fork_cow(MADV_NOHUGEPAGE);
}

static void fork_huge(void)
{
	fork_cow(MADV_HUGEPAGE);
}

static void remap(void)
{
	void *host = host_anonymous(MADV_HUGEPAGE);

	machine_create(host);
	guest_fill(0x8000, "fill");
	munmap(host, SLOT_SIZE);
	fault_check(ORDER_COMPARE, 5, "unmapped");
	if (mmap(host, SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != host)
		tap_bail("mmap: %s", strerror(errno));
	host_fill(host, 0x9000);
	fault_resume("mapped again");
	guest_compare(0x9000, "the new mapping");
	/* In place, without a moment of nothing. */
	if (mmap(host, SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != host)
		tap_bail("mmap: %s", strerror(errno));
	order_check(ORDER_ZERO, 0, PAGES, 0, "replaced in place");
	machine_destroy();
	munmap(host, SLOT_SIZE);
}

static void punch_hole(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	void *host;

	if (fd < 0 || ftruncate(fd, SLOT_SIZE))
		SKIP("memfd_create: %s", strerror(errno));
	host = host_map(MAP_SHARED, fd);
	machine_create(host);
	guest_fill(0xa000, "fill");
	CHECK_CALL(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SLOT_SIZE / 2));
	order_check(ORDER_ZERO, 0, PAGES / 2, 0, "in the hole");
	order_check(ORDER_COMPARE, PAGES / 2, PAGES / 2, 0xa000, "beside the hole");
	/* Truncated, the file has no page to give. */
	CHECK_CALL(ftruncate(fd, SLOT_SIZE / 2));
	fault_check(ORDER_COMPARE, PAGES - 1, "truncated");
	CHECK_CALL(ftruncate(fd, SLOT_SIZE));
	fault_resume("of full size again");
	machine_destroy();
	munmap(host, SLOT_SIZE);
	close(fd);
}

static size_t pages_resident(void *host)
{
	static unsigned char map[PAGES];
	size_t i, n = 0;

	if (mincore(host, SLOT_SIZE, map))
		return PAGES;
	for (i = 0; i < PAGES; i++)
		n += map[i] & 1;
	return n;
}

/* Swap to compressed memory where the host has the driver; true where there is some. */
static bool swap_prepare(void)
{
	static const char script[] =
		"PATH=$PATH:/sbin:/usr/sbin; modules=${MOAT_MODULES:-/lib/modules/$(uname -r)}\n"
		"exec >/dev/null 2>&1\n"
		"grep -q / /proc/swaps && exit 0\n"
		"modprobe -d ${modules%/lib/modules/*}/ -S ${modules##*/} zram || exit 1\n"
		"test -b /dev/zram0 || cat /sys/class/zram-control/hot_add || exit 1\n"
		"echo 64M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0\n";

	return system(script) == 0;
}

static void page_out(void)
{
	void *host = host_anonymous(MADV_NOHUGEPAGE);
	bool swap = swap_prepare();
	size_t left, tries = 0;

	machine_create(host);
	guest_fill(0xb000, "fill");
	madvise(host, SLOT_SIZE, MADV_COLD);
	guest_compare(0xb000, "after MADV_COLD");
	/* The first time finds the pages just used, and keeps them. */
	do {
		madvise(host, SLOT_SIZE, MADV_PAGEOUT);
		left = pages_resident(host);
	} while (swap && left > PAGES / 2 && ++tries < 20);
	guest_compare(0xb000, "after MADV_PAGEOUT");
	guest_fill(0xb100, "fill after MADV_PAGEOUT");
	host_compare(host, 0xb100, "fill after MADV_PAGEOUT");
	machine_destroy();
	munmap(host, SLOT_SIZE);
	tap_note("%zu of %lu pages were resident", left, PAGES);
	if (left == PAGES)
		SKIP("nothing was paged out: %s",
		     swap ? "the host keeps it all" : "there is no swap");
}

static bool ksm_set(const char *file, const char *value)
{
	char path[80];
	int fd;
	bool done;

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	done = fd >= 0 && write(fd, value, strlen(value)) > 0;
	if (fd >= 0)
		close(fd);
	return done;
}

static unsigned long ksm_sharing(void)
{
	FILE *f = fopen("/sys/kernel/mm/ksm/pages_sharing", "re");
	unsigned long n = 0;

	if (f && fscanf(f, "%lu", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n;
}

/* Pages all alike are merged under the guest; its write must not reach the others. */
static void ksm(void)
{
	void *host = host_anonymous(MADV_NOHUGEPAGE);
	unsigned long merged = 0;
	int tries;

	if (madvise(host, SLOT_SIZE, MADV_MERGEABLE) || !ksm_set("pages_to_scan", "5000") ||
	    !ksm_set("sleep_millisecs", "10") || !ksm_set("run", "1"))
		SKIP("no KSM: %s", strerror(errno));
	memset(host, 0x3c, SLOT_SIZE);
	machine_create(host);
	order_check(ORDER_FILL, 0, 1, 0x3c3c3c3c3c3c3c3c, "one page");
	for (tries = 0; tries < 60 && merged < PAGES / 2; tries++) {
		usleep(50000);
		merged = ksm_sharing();
	}
	order_check(ORDER_FILL, 3, 1, 0x1234, "write to a merged page");
	order_check(ORDER_COMPARE, 3, 1, 0x1234, "the page written");
	CHECK_EQ(*page_word(host, 4), 0x3c3c3c3c3c3c3c3c);
	CHECK_EQ(*page_word(host, PAGES - 1), 0x3c3c3c3c3c3c3c3c);
	guest_fill(0xc000, "fill of merged pages");
	host_compare(host, 0xc000, "fill of merged pages");
	ksm_set("run", "0");
	machine_destroy();
	munmap(host, SLOT_SIZE);
	if (!merged)
		SKIP("KSM merged nothing in 3 s");
}

static const struct tap_case cases[] = {
	{ "small_pages", small_pages },
	{ "transparent_huge_pages", transparent_huge },
	{ "code_in_huge_pages", code_in_huge_pages },
	{ "hugetlb", hugetlb },
	{ "memfd", memfd },
	{ "private_file", file_private },
	{ "zero_page", zero_page },
	{ "protection_small", protection_small },
	{ "protection_huge", protection_huge },
	{ "fork_small", fork_small },
	{ "fork_huge", fork_huge },
	{ "remap", remap },
	{ "punch_hole", punch_hole },
	{ "page_out", page_out },
	{ "ksm", ksm },
};

TAP_MAIN(cases)
