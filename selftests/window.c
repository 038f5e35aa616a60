// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Windows (include/uapi/moat.h): what a mapping shows, what it does not, and what becomes of both when
 * anything goes away. Moat's own: KVM has none.
 */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <uapi/moat.h>

#include "guest.h"

#define SHOWN		GUEST_FREE	/* guest memory that the tests grant */
#define SLOT2		0x40000000ul
#define NOBODY		65534

struct window {
	int control, map;
	uint32_t pages;
	uint8_t *at;
};

static struct vm *vm;

/* A touch that may fail */

static sigjmp_buf touch_failed;
static __thread volatile bool touching;

static void touch_handler(int signal)
{
	if (!touching)
		_exit(99);
	siglongjmp(touch_failed, signal);
}

/* 0, or the signal. */
static int touch(volatile uint8_t *at, bool write)
{
	int r = sigsetjmp(touch_failed, 1);

	if (!r) {
		touching = true;
		if (write)
			*at = 0x5a;
		else
			(void)*at;
	}
	touching = false;
	return r;
}

static void touch_begin(void)
{
	struct sigaction action = { .sa_handler = touch_handler };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

/* Windows */

static int create(uint32_t pages, struct window *w)
{
	struct moat_window_create args = { .pages = pages };
	int r = ioctl(vm->fd, MOAT_CREATE_WINDOW, &args);

	*w = (struct window) { .control = args.control, .map = args.map, .pages = pages };
	return r;
}

static bool window_open(struct window *w, uint32_t pages)
{
	if (!CHECK_CALL(create(pages, w)))
		return false;
	w->at = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->map, 0);
	return CHECK(w->at != MAP_FAILED, "mmap: %s", strerror(errno));
}

static void window_close(struct window *w)
{
	munmap(w->at, w->pages * PAGE_SIZE);
	close(w->control);
	close(w->map);
}

static int change_all(int control, const struct moat_window_change *changes, uint32_t count)
{
	struct moat_window_batch batch = { .changes = (uintptr_t)changes, .count = count };

	return ioctl(control, MOAT_WINDOW_CHANGE, &batch);
}

static int change(int control, uint32_t op, uint32_t page, uint32_t pages, uint64_t gpa)
{
	struct moat_window_change one = { .op = op, .page = page, .pages = pages, .gpa = gpa };

	return change_all(control, &one, 1);
}

static int grant_read(struct window *w, uint32_t page, uint32_t pages, uint64_t gpa)
{
	return change(w->control, MOAT_WINDOW_GRANT_READ, page, pages, gpa);
}

static int grant_write(struct window *w, uint32_t page, uint32_t pages, uint64_t gpa)
{
	return change(w->control, MOAT_WINDOW_GRANT_WRITE, page, pages, gpa);
}

static int take_back(struct window *w, uint32_t page, uint32_t pages)
{
	return change(w->control, MOAT_WINDOW_REVOKE, page, pages, 0);
}

/* Each page of the guest's says which it is. */
static uint64_t *guest_word(uint64_t gpa)
{
	return (uint64_t *)(vm->ram + gpa);
}

static uint64_t *window_word(struct window *w, uint32_t page)
{
	return (uint64_t *)(w->at + page * PAGE_SIZE);
}

static void machine_create(void)
{
	uint64_t gpa;

	vm = vm_create(GUEST_RAM, IRQCHIP_NONE);
	for (gpa = SHOWN; gpa < GUEST_RAM; gpa += PAGE_SIZE)
		*guest_word(gpa) = gpa;
	touch_begin();
}

static void machine_destroy(void)
{
	vm_destroy(vm);
	vm = NULL;
}

/* Whether a page of the window shows this one of the guest's. */
static void check_shows(struct window *w, uint32_t page, uint64_t gpa)
{
	if (CHECK_EQ(touch(w->at + page * PAGE_SIZE, false), 0))
		CHECK_EQ(*window_word(w, page), gpa);
}

static void check_nothing(struct window *w, uint32_t page)
{
	CHECK_EQ(touch(w->at + page * PAGE_SIZE, false), SIGBUS);
	CHECK_EQ(touch(w->at + page * PAGE_SIZE, true), SIGBUS);
}

/* kB of memory that is pinned for us. */
static unsigned long pinned_kb(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long kb = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "VmPin: %lu", &kb);
	if (file)
		fclose(file);
	return kb;
}

/* Cases */

static void version(void)
{
	machine_create();
	CHECK_EQ(ioctl(vm->node, MOAT_GET_VERSION, 0), MOAT_VERSION_NOW);
	CHECK_ERRNO(ioctl(vm->node, MOAT_GET_VERSION, 1), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, MOAT_GET_VERSION, 0), ENOTTY);
	machine_destroy();
}

static void bad_create(void)
{
	static const struct moat_window_create bad[] = {
		{ .pages = 0 }, { .pages = MOAT_WINDOW_MAX_PAGES + 1 }, { .pages = 1, .flags = 1 },
		{ .pages = 1, .reserved = { 1 } }, { .pages = 1, .reserved = { 0, 1 } },
	};
	size_t i;

	machine_create();
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct moat_window_create args = bad[i];

		CHECK_ERRNO(ioctl(vm->fd, MOAT_CREATE_WINDOW, &args), EINVAL);
	}
	CHECK_ERRNO(ioctl(vm->fd, MOAT_CREATE_WINDOW, 8), EFAULT);
	machine_destroy();
}

/* There is room for none of the two descriptors, then for one. */
static void no_descriptors(void)
{
	struct rlimit before, limit;
	struct window w;
	int next;

	machine_create();
	next = dup(0);
	close(next);
	getrlimit(RLIMIT_NOFILE, &before);
	limit = before;
	for (limit.rlim_cur = next; limit.rlim_cur <= (rlim_t)next + 1; limit.rlim_cur++) {
		setrlimit(RLIMIT_NOFILE, &limit);
		CHECK_ERRNO(create(1, &w), EMFILE);
	}
	setrlimit(RLIMIT_NOFILE, &before);
	if (window_open(&w, 1)) {
		CHECK_EQ(w.control, next);
		window_close(&w);
	}
	machine_destroy();
}

static void bad_changes(void)
{
	static const struct moat_window_change bad[] = {
		{ .op = 3, .pages = 1, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_GRANT_READ, .pages = 1, .gpa = SHOWN, .reserved = 1 },
		{ .op = MOAT_WINDOW_GRANT_READ, .pages = 1, .gpa = SHOWN + 8 },
		{ .op = MOAT_WINDOW_GRANT_READ, .pages = 0, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 8, .pages = 1, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 7, .pages = 2, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 7, .pages = ~0u, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_REVOKE, .page = 0, .pages = 9 },
		{ .op = MOAT_WINDOW_REVOKE, .page = 0, .pages = 1, .gpa = SHOWN },
	};
	struct moat_window_batch batch = { .changes = 8, .count = 1 };
	unsigned long before;
	struct window w;
	size_t i;

	machine_create();
	if (!window_open(&w, 8))
		return;
	before = pinned_kb();
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		if (!CHECK_ERRNO(change_all(w.control, &bad[i], 1), EINVAL))
			tap_note("change %zu", i);
	CHECK_ERRNO(change_all(w.control, bad, 0), EINVAL);
	CHECK_ERRNO(change_all(w.control, bad, MOAT_WINDOW_MAX_CHANGES + 1), EINVAL);
	CHECK_ERRNO(ioctl(w.control, MOAT_WINDOW_CHANGE, &batch), EFAULT);
	batch.reserved = 1;
	CHECK_ERRNO(ioctl(w.control, MOAT_WINDOW_CHANGE, &batch), EINVAL);
	CHECK_ERRNO(ioctl(w.control, KVM_CHECK_EXTENSION, 0), ENOTTY);
	CHECK_ERRNO(ioctl(w.map, MOAT_WINDOW_CHANGE, &batch), ENOTTY);
	/* No memory; the last page and one more; far beyond all. */
	CHECK_ERRNO(grant_read(&w, 0, 1, GUEST_MMIO), EFAULT);
	CHECK_ERRNO(grant_read(&w, 0, 2, GUEST_RAM - PAGE_SIZE), EFAULT);
	CHECK_ERRNO(grant_read(&w, 0, 1, ~0xffful), EFAULT);
	check_nothing(&w, 0);
	CHECK_CALL(grant_read(&w, 3, 2, SHOWN));
	CHECK_ERRNO(grant_read(&w, 2, 2, SHOWN), EEXIST);
	CHECK_ERRNO(grant_write(&w, 4, 4, SHOWN), EEXIST);
	check_nothing(&w, 2);
	check_nothing(&w, 5);
	check_shows(&w, 4, SHOWN + PAGE_SIZE);
	CHECK_EQ(pinned_kb(), before + 8);
	window_close(&w);
	CHECK_EQ(pinned_kb(), before);
	machine_destroy();
}

static void bad_mappings(void)
{
	const int rw = PROT_READ | PROT_WRITE;
	void *maps[17];
	struct window w;
	uint8_t byte;
	int i;

	machine_create();
	if (!window_open(&w, 4))
		return;
	CHECK(mmap(NULL, PAGE_SIZE, rw, MAP_PRIVATE, w.map, 0) == MAP_FAILED, "a private mapping");
	CHECK(mmap(NULL, PAGE_SIZE, rw | PROT_EXEC, MAP_SHARED, w.map, 0) == MAP_FAILED,
	      "a mapping for code");
	CHECK(mmap(NULL, 5 * PAGE_SIZE, rw, MAP_SHARED, w.map, 0) == MAP_FAILED, "a mapping too long");
	CHECK(lseek(w.map, 0, SEEK_END) == 4 * PAGE_SIZE, "its length is told");
	CHECK(mmap(NULL, PAGE_SIZE, rw, MAP_SHARED, w.map, 4 * PAGE_SIZE) == MAP_FAILED,
	      "a mapping behind the end");
	CHECK(mmap(NULL, PAGE_SIZE, rw, MAP_SHARED, w.control, 0) == MAP_FAILED,
	      "a mapping of the control descriptor");
	CHECK_ERRNO(mprotect(w.at, 4 * PAGE_SIZE, PROT_READ | PROT_EXEC), EACCES);
	CHECK_ERRNO(munmap(w.at, PAGE_SIZE), EINVAL);
	CHECK_ERRNO(mprotect(w.at + PAGE_SIZE, PAGE_SIZE, PROT_READ), EINVAL);
	CHECK(mremap(w.at, 4 * PAGE_SIZE, 8 * PAGE_SIZE, MREMAP_MAYMOVE) == MAP_FAILED, "growing it");
	CHECK(mremap(w.at, 4 * PAGE_SIZE, 4 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     w.at + 64 * PAGE_SIZE) == MAP_FAILED, "moving it");
	CHECK_ERRNO(madvise(w.at, 4 * PAGE_SIZE, MADV_DOFORK), EINVAL);
	CHECK(read(w.map, &byte, 1) < 0 && write(w.map, &byte, 1) < 0, "it can be read or written");
	for (i = 0; i < 17; i++)
		maps[i] = mmap(NULL, PAGE_SIZE, rw, MAP_SHARED, w.map, 0);
	CHECK(maps[14] != MAP_FAILED, "16 mappings");
	CHECK(maps[15] == MAP_FAILED && maps[16] == MAP_FAILED, "17 mappings");
	for (i = 0; i < 15; i++)
		munmap(maps[i], PAGE_SIZE);
	window_close(&w);
	machine_destroy();
}

static void read_grants(void)
{
	struct window w;

	machine_create();
	if (!window_open(&w, 16))
		return;
	CHECK_EQ(grant_read(&w, 5, 3, SHOWN + 7 * PAGE_SIZE), 1);
	check_nothing(&w, 4);
	check_shows(&w, 5, SHOWN + 7 * PAGE_SIZE);
	check_shows(&w, 7, SHOWN + 9 * PAGE_SIZE);
	check_nothing(&w, 8);
	CHECK_EQ(touch(w.at + 6 * PAGE_SIZE, true), SIGBUS);
	CHECK_EQ(*guest_word(SHOWN + 8 * PAGE_SIZE), SHOWN + 8 * PAGE_SIZE);
	/* What the guest writes is seen at once. */
	*guest_word(SHOWN + 8 * PAGE_SIZE) = 42;
	CHECK_EQ(*window_word(&w, 6), 42);
	/* The same page may be shown twice. */
	CHECK_EQ(grant_read(&w, 0, 1, SHOWN + 9 * PAGE_SIZE), 1);
	check_shows(&w, 0, SHOWN + 9 * PAGE_SIZE);
	CHECK_EQ(take_back(&w, 7, 1), 1);
	check_nothing(&w, 7);
	check_shows(&w, 0, SHOWN + 9 * PAGE_SIZE);
	window_close(&w);
	machine_destroy();
}

static void write_grants(void)
{
	struct window w;

	machine_create();
	if (!window_open(&w, 16))
		return;
	CHECK_EQ(grant_write(&w, 1, 2, SHOWN), 1);
	check_shows(&w, 2, SHOWN + PAGE_SIZE);
	*window_word(&w, 2) = 7;
	CHECK_EQ(*guest_word(SHOWN + PAGE_SIZE), 7);
	/* What was never touched is the guest's own page all the same. */
	CHECK_EQ(grant_write(&w, 8, 1, SHOWN + 16 * PAGE_SIZE), 1);
	*window_word(&w, 8) = 8;
	CHECK_EQ(*guest_word(SHOWN + 16 * PAGE_SIZE), 8);
	CHECK_EQ(take_back(&w, 0, 16), 1);
	check_nothing(&w, 1);
	check_nothing(&w, 2);
	check_nothing(&w, 8);
	CHECK_EQ(grant_read(&w, 2, 1, SHOWN), 1);
	CHECK_EQ(touch(w.at + 2 * PAGE_SIZE, true), SIGBUS);
	check_shows(&w, 2, SHOWN);
	window_close(&w);
	machine_destroy();
}

static void read_only_slot(void)
{
	void *host = mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	*(uint64_t *)host = 99;
	CHECK_CALL(vm_slot(vm, 1, SLOT2, 4 * PAGE_SIZE, host, KVM_MEM_READONLY));
	CHECK_ERRNO(grant_write(&w, 0, 1, SLOT2), EFAULT);
	CHECK_EQ(grant_read(&w, 0, 1, SLOT2), 1);
	check_shows(&w, 0, 99);
	window_close(&w);
	machine_destroy();
	munmap(host, 4 * PAGE_SIZE);
}

/* All or nothing it is not: what comes before the first that fails is done, and counted. */
static void batches(void)
{
	struct moat_window_change changes[] = {
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 0, .pages = 2, .gpa = SHOWN },
		{ .op = MOAT_WINDOW_GRANT_WRITE, .page = 2, .pages = 1, .gpa = SHOWN + 8 * PAGE_SIZE },
		{ .op = MOAT_WINDOW_REVOKE, .page = 1, .pages = 1 },
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 1, .pages = 1, .gpa = SHOWN + 9 * PAGE_SIZE },
		{ .op = MOAT_WINDOW_GRANT_READ, .page = 3, .pages = 1, .gpa = GUEST_MMIO },
		{ .op = MOAT_WINDOW_REVOKE, .page = 0, .pages = 3 },
	};
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	CHECK_EQ(change_all(w.control, changes, ARRAY_SIZE(changes)), 4);
	check_shows(&w, 0, SHOWN);
	check_shows(&w, 1, SHOWN + 9 * PAGE_SIZE);
	check_shows(&w, 2, SHOWN + 8 * PAGE_SIZE);
	check_nothing(&w, 3);
	CHECK_ERRNO(change_all(w.control, changes + 4, 2), EFAULT);
	CHECK_EQ(change_all(w.control, changes + 5, 1), 1);
	check_nothing(&w, 0);
	check_nothing(&w, 2);
	window_close(&w);
	machine_destroy();
}

/* A long grant that fails in its middle leaves nothing. */
static void half_a_grant(void)
{
	unsigned long before;
	struct window w;

	machine_create();
	if (!window_open(&w, 64))
		return;
	before = pinned_kb();
	munmap(vm->ram + SHOWN + 40 * PAGE_SIZE, PAGE_SIZE);
	CHECK_ERRNO(grant_write(&w, 0, 64, SHOWN), EFAULT);
	check_nothing(&w, 0);
	check_nothing(&w, 39);
	CHECK_EQ(pinned_kb(), before);
	CHECK_EQ(grant_write(&w, 0, 40, SHOWN), 1);
	check_shows(&w, 39, SHOWN + 39 * PAGE_SIZE);
	window_close(&w);
	CHECK_EQ(pinned_kb(), before);
	machine_destroy();
}

static void present_at_once(void)
{
	struct rusage before, after;
	struct window w;
	uint64_t sum = 0;
	uint32_t page;

	machine_create();
	if (!window_open(&w, 512))
		return;
	/* The tables of the mapping come with the first page. */
	CHECK_EQ(grant_read(&w, 0, 256, SHOWN), 1);
	getrusage(RUSAGE_THREAD, &before);
	for (page = 0; page < 256; page++)
		sum += *window_word(&w, page);
	getrusage(RUSAGE_THREAD, &after);
	CHECK(after.ru_minflt - before.ru_minflt < 16, "%ld faults on 256 pages",
	      after.ru_minflt - before.ru_minflt);
	CHECK_EQ(sum, 256 * SHOWN + 255ul * 128 * PAGE_SIZE);
	window_close(&w);
	machine_destroy();
}

/* The kernel reads and writes by a window as its process may, and keeps hold of nothing. */
static void system_calls(void)
{
	struct iovec iov;
	struct window w;
	int pipes[2];
	uint64_t word = 77;

	machine_create();
	if (!window_open(&w, 4) || !CHECK_CALL(pipe(pipes)))
		return;
	CHECK_EQ(grant_read(&w, 0, 1, SHOWN), 1);
	CHECK_EQ(grant_write(&w, 1, 1, SHOWN + PAGE_SIZE), 1);
	CHECK_EQ(write(pipes[1], window_word(&w, 0), 8), 8);
	CHECK_ERRNO(read(pipes[0], window_word(&w, 0), 8), EFAULT);
	CHECK_EQ(write(pipes[1], &word, 8), 8);
	CHECK_EQ(read(pipes[0], window_word(&w, 1), 8), 8);
	CHECK_ERRNO(write(pipes[1], window_word(&w, 2), 8), EFAULT);
	iov = (struct iovec) { window_word(&w, 1), PAGE_SIZE };
	CHECK_ERRNO(vmsplice(pipes[1], &iov, 1, 0), EFAULT);
	close(pipes[0]);
	close(pipes[1]);
	window_close(&w);
	machine_destroy();
}

/* wait() of a child that runs this; its status. */
static int in_child(void (*run)(struct window *w), struct window *w)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		run(w);
		_exit(0);
	}
	CHECK_CALL(pid);
	waitpid(pid, &status, 0);
	return status;
}

static void child_touches(struct window *w)
{
	_exit(touch(w->at, false) == SIGSEGV ? 1 : 2);
}

/* It has the descriptor, and may map it as who was given it. */
static void child_maps(struct window *w)
{
	w->at = mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->map, 0);
	if (w->at == MAP_FAILED || touch(w->at, false) || *window_word(w, 0) != SHOWN ||
	    touch(w->at + PAGE_SIZE, false) != SIGBUS)
		_exit(2);
	*window_word(w, 0) = 1234;
	_exit(1);
}

static void children(void)
{
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	CHECK_EQ(grant_write(&w, 0, 1, SHOWN), 1);
	CHECK_EQ(WEXITSTATUS(in_child(child_touches, &w)), 1);
	CHECK_EQ(WEXITSTATUS(in_child(child_maps, &w)), 1);
	CHECK_EQ(*guest_word(SHOWN), 1234);
	window_close(&w);
	machine_destroy();
}

/* Another process with the control descriptor, and a limit of 8 pages in all. */
static void child_grants(struct window *w)
{
	const struct rlimit limit = { 8 * PAGE_SIZE, 8 * PAGE_SIZE };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(NOBODY, NOBODY, NOBODY))
		_exit(2);
	if (grant_read(w, 0, 9, SHOWN) != -1 || errno != ENOMEM)
		_exit(3);
	if (grant_read(w, 0, 6, SHOWN) != 1)
		_exit(4);
	if (grant_write(w, 8, 3, SHOWN) != -1 || errno != ENOMEM)
		_exit(5);
	if (grant_write(w, 8, 2, SHOWN) != 1 || take_back(w, 1, 1) != 1 || grant_read(w, 15, 1, SHOWN) != 1)
		_exit(6);
	_exit(1);
}

static void other_holder(void)
{
	struct window w;

	machine_create();
	if (!window_open(&w, 16))
		return;
	CHECK_EQ(WEXITSTATUS(in_child(child_grants, &w)), 1);
	check_shows(&w, 0, SHOWN);
	check_nothing(&w, 1);
	check_shows(&w, 9, SHOWN + PAGE_SIZE);
	check_shows(&w, 15, SHOWN);
	window_close(&w);
	machine_destroy();
}

static void control_closed(void)
{
	unsigned long before;
	struct window w;

	machine_create();
	before = pinned_kb();
	if (!window_open(&w, 16))
		return;
	CHECK_EQ(grant_write(&w, 0, 16, SHOWN), 1);
	CHECK_EQ(pinned_kb(), before + 64);
	check_shows(&w, 15, SHOWN + 15 * PAGE_SIZE);
	close(w.control);
	CHECK_EQ(pinned_kb(), before);
	check_nothing(&w, 0);
	check_nothing(&w, 15);
	w.control = -1;
	window_close(&w);
	machine_destroy();
}

/* What is shown stays until it is revoked, whatever becomes of slots and of the VM. */
static void slots_and_vm_go(void)
{
	const size_t size = 4 * PAGE_SIZE;
	uint64_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	*host = 5;
	CHECK_CALL(vm_slot(vm, 1, SLOT2, size, host, 0));
	CHECK_EQ(grant_write(&w, 0, 1, SLOT2), 1);
	CHECK_EQ(grant_write(&w, 1, 1, SHOWN), 1);
	CHECK_CALL(vm_slot(vm, 1, SLOT2 + MIB(2), size, host, 0));
	CHECK_ERRNO(grant_read(&w, 2, 1, SLOT2), EFAULT);
	check_shows(&w, 0, 5);
	CHECK_CALL(vm_slot(vm, 1, SLOT2 + MIB(2), 0, NULL, 0));
	munmap(host, size);
	check_shows(&w, 0, 5);
	machine_destroy();
	check_shows(&w, 1, SHOWN);
	CHECK_ERRNO(grant_read(&w, 2, 1, SHOWN), EFAULT);
	CHECK_EQ(take_back(&w, 0, 4), 1);
	check_nothing(&w, 0);
	check_nothing(&w, 1);
	window_close(&w);
}

static uint64_t dirty_word(void)
{
	uint64_t bits[GUEST_RAM / PAGE_SIZE / 64];
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bits };

	memset(bits, 0, sizeof(bits));
	CHECK_CALL(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log));
	return bits[SHOWN / PAGE_SIZE / 64];
}

static void dirty_log(void)
{
	struct window w;

	machine_create();
	if (!window_open(&w, 8))
		return;
	CHECK_EQ(grant_write(&w, 7, 1, SHOWN + 5 * PAGE_SIZE), 1);
	CHECK_CALL(vm_slot(vm, 0, 0, GUEST_RAM, vm->ram, KVM_MEM_LOG_DIRTY_PAGES));
	dirty_word();
	CHECK_EQ(grant_read(&w, 0, 2, SHOWN), 1);
	CHECK_EQ(dirty_word(), 0);
	CHECK_EQ(grant_write(&w, 2, 2, SHOWN + PAGE_SIZE), 1);
	CHECK_EQ(dirty_word(), 6);
	CHECK_EQ(dirty_word(), 0);
	/* Written since then, or not: nobody knows. That it was granted before does not matter. */
	CHECK_EQ(take_back(&w, 0, 8), 1);
	CHECK_EQ(dirty_word(), 6 | 1 << 5);
	window_close(&w);
	machine_destroy();
}

/* A ring is a vCPU's, and none of these writes. */
static void dirty_ring(void)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DIRTY_LOG_RING, .args = { 4096 } };
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	CHECK_CALL(ioctl(vm->fd, KVM_ENABLE_CAP, &cap));
	CHECK_ERRNO(grant_write(&w, 0, 1, SHOWN), EOPNOTSUPP);
	CHECK_EQ(grant_read(&w, 0, 1, SHOWN), 1);
	check_shows(&w, 0, SHOWN);
	window_close(&w);
	machine_destroy();
}

/* Another VM, whose memory a window is */

static void borrower_payload(uint64_t address)
{
	volatile uint64_t *word = (volatile uint64_t *)address;

	guest_sync2(1, word[0]);
	word[1] = 0xabc;
	guest_sync(2);
	guest_sync2(3, word[0]);
	guest_done();
}

static void driver_domain(void)
{
	struct report report;
	struct vcpu *vcpu;
	struct vm *other;
	struct window w;

	machine_create();
	if (!window_open(&w, 4))
		return;
	other = vm_create(GUEST_RAM, IRQCHIP_NONE);
	CHECK_CALL(vm_slot(other, 1, SLOT2, 4 * PAGE_SIZE, w.at, 0));
	vcpu = vcpu_create(other, 0);
	vcpu_set_long(vcpu, borrower_payload, SLOT2 + PAGE_SIZE);
	CHECK_EQ(grant_write(&w, 1, 1, SHOWN), 1);
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_SYNC && report.value2 == SHOWN, "report %d, %#lx", report.kind,
	      (unsigned long)report.value2);
	vcpu_sync(vcpu, 2);
	CHECK_EQ(guest_word(SHOWN)[1], 0xabc);
	/* It has it mapped; and is to have it no more. */
	CHECK_EQ(take_back(&w, 1, 1), 1);
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_ERROR && report.error == EFAULT, "report %d, error %d",
	      report.kind, report.error);
	CHECK_EQ(grant_read(&w, 1, 1, SHOWN + PAGE_SIZE), 1);
	report = vcpu_wait(vcpu);
	CHECK(report.kind == REPORT_SYNC && report.value2 == SHOWN + PAGE_SIZE, "report %d, %#lx",
	      report.kind, (unsigned long)report.value2);
	vcpu_finish(vcpu);
	vcpu_destroy(vcpu);
	vm_destroy(other);
	window_close(&w);
	machine_destroy();
}

/* Pages come and go while others touch them. A page that is never granted must never be seen. */
#define RACERS		2
#define RACE_MS		300
#define RACE_PAGES	32
#define RACE_SHOWN	8	/* at a time */

static struct window race_window;
static volatile bool race_over;
static volatile uint64_t race_wrong, race_seen;
static __thread sigjmp_buf racer_failed;

static void race_handler(int signal)
{
	(void)signal;
	siglongjmp(racer_failed, 1);
}

static void *racer(void *arg)
{
	volatile uint32_t page = 0;

	(void)arg;
	while (!race_over) {
		page = (page * 5 + 1) % RACE_PAGES;
		if (!sigsetjmp(racer_failed, 1)) {
			uint64_t gpa = *(volatile uint64_t *)window_word(&race_window, page);

			/* Those with an odd number are secret. */
			if (gpa / PAGE_SIZE % 2 || gpa < SHOWN || gpa >= GUEST_RAM)
				__atomic_fetch_add(&race_wrong, 1, __ATOMIC_RELAXED);
			__atomic_fetch_add(&race_seen, 1, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static uint64_t race_gpa(uint64_t round)
{
	return SHOWN + round % 256 * 2 * PAGE_SIZE;
}

static void race(void)
{
	struct sigaction action = { .sa_handler = race_handler, .sa_flags = SA_NODEFER };
	uint64_t end, rounds = 0;
	pthread_t threads[RACERS];
	struct window *w = &race_window;
	int i;

	machine_create();
	if (!window_open(w, RACE_PAGES))
		return;
	race_over = false;
	sigaction(SIGBUS, &action, NULL);
	for (i = 0; i < RACERS; i++)
		pthread_create(&threads[i], NULL, racer, NULL);
	end = clock_ns() + RACE_MS * 1000000ull;
	while (clock_ns() < end && !tap_failed()) {
		uint64_t old = rounds - RACE_SHOWN;

		CHECK_EQ(grant_read(w, rounds % RACE_PAGES, 1, race_gpa(rounds)), 1);
		if (rounds % 3 == 0)
			sched_yield();
		if (rounds++ < RACE_SHOWN)
			continue;
		CHECK_EQ(take_back(w, old % RACE_PAGES, 1), 1);
		/* Whoever sees it now sees what nobody may. */
		*guest_word(race_gpa(old)) = PAGE_SIZE;
		*guest_word(race_gpa(old)) = race_gpa(old);
	}
	race_over = true;
	for (i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(race_wrong, 0);
	CHECK(race_seen, "nobody saw anything in %llu rounds", (unsigned long long)rounds);
	window_close(w);
	machine_destroy();
}

static const struct tap_case cases[] = {
	{ "version", version },
	{ "bad_create", bad_create },
	{ "no_descriptors", no_descriptors },
	{ "bad_changes", bad_changes },
	{ "bad_mappings", bad_mappings },
	{ "read_grants", read_grants },
	{ "write_grants", write_grants },
	{ "read_only_slot", read_only_slot },
	{ "batches", batches },
	{ "half_a_grant", half_a_grant },
	{ "present_at_once", present_at_once },
	{ "system_calls", system_calls },
	{ "children", children },
	{ "other_holder", other_holder },
	{ "control_closed", control_closed },
	{ "slots_and_vm_go", slots_and_vm_go },
	{ "dirty_log", dirty_log },
	{ "dirty_ring", dirty_ring },
	{ "driver_domain", driver_domain },
	{ "race", race },
};

int main(int argc, char **argv)
{
	if (!node_is_moat()) {
		printf("1..0 # SKIP windows are Moat's own\n");
		return 4;
	}
	return tap_main(argc, argv, cases, ARRAY_SIZE(cases));
}
