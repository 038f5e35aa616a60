// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a thread does next: a call, a run of a guest, or trouble: memory, descriptors, processes,
 * signals, whatever the world is made of, while the other threads are in the kernel.
 *
 * Some steps have a verdict: another process must get EIO, memory that was given back must be
 * written by nobody, a good guest must run right amid all this.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "fuzz.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PRIVATE_AT(n)	((uint8_t *)((57ull << 40) + ((uint64_t)(n) << 36)))
#define PRIVATE_SIZE	MIB(2)
#define CANARY_SIZE	(64 * PAGE)

void finding(struct actor *a, const char *format, ...)
{
	va_list args;

	count(&shared->findings);
	printf("# FINDING seed %llu: ", (unsigned long long)a->world->seed);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

/* ---- The end of a run ---- */

static __thread struct kvm_run *volatile running;
static __thread timer_t limit;

static void limit_passed(int sig)
{
	struct kvm_run *run = running;

	(void)sig;
	if (run)
		run->immediate_exit = 1;
}

void run_limit_create(void)
{
	struct sigaction act = { .sa_handler = limit_passed };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 1 };

	sigaction(SIGRTMIN + 1, &act, NULL);
	sigaction(SIGUSR1, &act, NULL);
	event._sigev_un._tid = syscall(SYS_gettid);
	timer_create(CLOCK_MONOTONIC, &event, &limit);
}

/* Repeated: noise in kvm_run may have taken the first one back. */
void run_limit_set(struct kvm_run *run, unsigned int us)
{
	struct itimerspec when = {
		.it_value.tv_nsec = us * 1000l, .it_interval.tv_nsec = 5000000,
	};

	running = run;
	timer_settime(limit, 0, &when, NULL);
}

void run_limit_clear(void)
{
	struct itimerspec when = { 0 };

	timer_settime(limit, 0, &when, NULL);
	running = NULL;
}

/* ---- Running ---- */

static void exit_serve(struct actor *a, struct kvm_run *run)
{
	uint64_t offset;

	count(&shared->exits[run->exit_reason < MAX_EXITS - 1 ? run->exit_reason : MAX_EXITS - 1]);
	if (rng_one_in(&a->rng, 16))
		return;
	if (run->exit_reason == KVM_EXIT_MMIO) {
		rng_fill(&a->rng, run->mmio.data, sizeof(run->mmio.data));
	} else if (run->exit_reason == KVM_EXIT_IO) {
		offset = __atomic_load_n(&run->io.data_offset, __ATOMIC_RELAXED);
		if (offset <= a->world->run_size - 8)
			rng_fill(&a->rng, (uint8_t *)run + offset, 8);
	}
}

/* Where nobody writes noise into kvm_run, nor runs it meanwhile, it must make sense. */
static void exit_check(struct actor *a, const struct kvm_run *seen, unsigned int number)
{
	const struct kvm_run copy = *seen, *run = &copy;
	uint64_t size = (uint64_t)run->io.count * run->io.size;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (a->world->scribbles || !run_was_last(number))
		return;
	if (run->exit_reason == KVM_EXIT_IO &&
	    (run->io.size > 4 || size > PAGE || run->io.data_offset > a->world->run_size - size))
		finding(a, "KVM_EXIT_IO of %u items of %u bytes at %#llx", run->io.count,
			run->io.size, (unsigned long long)run->io.data_offset);
	if (run->exit_reason == KVM_EXIT_MMIO && (!run->mmio.len || run->mmio.len > 8))
		finding(a, "KVM_EXIT_MMIO of %u bytes", run->mmio.len);
}

static bool exit_is_end(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_SHUTDOWN || run->exit_reason == KVM_EXIT_FAIL_ENTRY ||
	       run->exit_reason == KVM_EXIT_INTERNAL_ERROR;
}

static void vcpu_go(struct actor *a, int fd, struct kvm_run *run, unsigned int n, unsigned int us)
{
	unsigned int i, number;
	bool alone;
	int r = 0;

	for (i = 0; i < n && r >= 0 && !(i && exit_is_end(run)); i++) {
		alone = run_begin(&number);
		run_limit_set(run, us);
		r = call_number(fd, KVM_RUN, 0);
		run_limit_clear();
		if (r < 0 && errno == EINTR)
			run->immediate_exit = 0;
		if (r >= 0 && alone)
			exit_check(a, run, number);
		if (r >= 0)
			exit_serve(a, run);
		run_end();
	}
}

/* What userspace asks for by kvm_run. Noise that is left there would make most runs end at once. */
static void run_wishes(struct actor *a, struct kvm_run *run)
{
	if (rng_one_in(&a->rng, 6))
		run->request_interrupt_window = rng_below(&a->rng, 2);
	run->cr8 = rng_one_in(&a->rng, 8) ? rng_below(&a->rng, 17) : 0;
	run->kvm_valid_regs = rng_one_in(&a->rng, 12) ? rng_below(&a->rng, 16) : 0;
	run->kvm_dirty_regs = rng_one_in(&a->rng, 12) ? rng_below(&a->rng, 16) : 0;
}

static void step_run(struct actor *a)
{
	unsigned int n = world_vcpu(a);
	struct kvm_run *run = a->world->run[n];
	int fd = a->world->vcpu[n];

	if (!run)
		return;
	if (rng_one_in(&a->rng, 3))
		vcpu_prepare(a, fd, n);
	run_wishes(a, run);
	vcpu_go(a, fd, run, 1 + rng_below(&a->rng, 20), 500 + rng_below(&a->rng, 6000));
	if (exit_is_end(run))
		vcpu_prepare(a, fd, n);
}

/* Noise for kvm_run and all that is mapped behind it, also while another thread runs it. */
static void step_scribble(struct actor *a)
{
	struct kvm_run *run = a->world->run[world_vcpu(a)];
	unsigned int n = 1 + rng_below(&a->rng, 200);

	if (!run || !a->world->scribbles)
		return;
	while (n--)
		rng_mutate(&a->rng, run, rng_one_in(&a->rng, 2) ? 0x200 : a->world->run_size);
	run->immediate_exit = 0;
}

/* ---- Slots and interrupts that make sense ---- */

static void step_slots(struct actor *a)
{
	struct world *w = a->world;
	int vm = world_vm(a);
	uint32_t id = 3 + rng_below(&a->rng, 3);
	uint64_t gpa = MIB(16) + rng_below(&a->rng, 6) * MIB(1);
	uint32_t flags = rng_below(&a->rng, 4) & rng_below(&a->rng, 4);

	switch (rng_below(&a->rng, 6)) {
	case 0:
		vm_slot(vm, id, 0, 0, NULL, 0);
		break;
	case 1:
		vm_slot(vm, 1, 0, 0, NULL, 0);
		vm_slot(vm, 1, CHAOS_GPA, CHAOS_SIZE, w->arena[ARENA_CHAOS], flags & 1);
		break;
	case 2:		/* where MMIO was */
		vm_slot(vm, id, MMIO_GPA, PAGE << rng_below(&a->rng, 4), w->arena[ARENA_CHAOS],
			flags);
		break;
	case 3:		/* code that is kvm_run, and kvm_run that is a page table */
		vm_slot(vm, id, gpa, 2 * PAGE, (void *)(world_address(a) & ~(PAGE - 1)), flags);
		break;
	default:
		vm_slot(vm, id, gpa, MIB(1), w->arena[ARENA_CHAOS] + rng_below(&a->rng, 5) * MIB(1),
			flags);
	}
}

/* Pages that were written: by bitmap, for the slot whose memory changes, and by ring. */
static void step_dirty(struct actor *a)
{
	struct kvm_dirty_log get = { .slot = 1, .dirty_bitmap = a->buffer };
	struct kvm_clear_dirty_log clear = {
		.slot = 1, .first_page = rng_below(&a->rng, 24) * 64, .dirty_bitmap = a->buffer,
	};
	int vm = world_vm(a);

	clear.num_pages = rng_one_in(&a->rng, 3) ? CHAOS_SIZE / PAGE - clear.first_page :
						    64 * rng_below(&a->rng, 8);
	vm_slot(vm, 1, CHAOS_GPA, CHAOS_SIZE, a->world->arena[ARENA_CHAOS],
		rng_one_in(&a->rng, 4) ? 0 : KVM_MEM_LOG_DIRTY_PAGES);
	call_ioctl(vm, KVM_GET_DIRTY_LOG, &get);
	call_ioctl(vm, KVM_CLEAR_DIRTY_LOG, &clear);
	call_number(vm, KVM_RESET_DIRTY_RINGS, 0);
}

/* A route for each of the first GSIs: to the IOAPIC where there is one, or a message. */
static void routes_set(struct actor *a, int vm)
{
	struct kvm_irq_routing *routing = (void *)a->buffer;
	bool chips = rng_one_in(&a->rng, 2);
	unsigned int i;

	memset(routing, 0, sizeof(*routing) + 24 * sizeof(routing->entries[0]));
	routing->nr = 1 + rng_below(&a->rng, 24);
	for (i = 0; i < routing->nr; i++) {
		struct kvm_irq_routing_entry *e = &routing->entries[i];

		e->gsi = i;
		e->type = chips ? KVM_IRQ_ROUTING_IRQCHIP : KVM_IRQ_ROUTING_MSI;
		if (chips) {
			e->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
			e->u.irqchip.pin = i;
		} else {
			e->u.msi.address_lo = APIC_GPA | rng_below(&a->rng, 4) << 12;
			e->u.msi.data = (0x30 + i) | rng_below(&a->rng, 4) << 14;
		}
	}
	call_ioctl(vm, KVM_SET_GSI_ROUTING, routing);
}

static void step_interrupts(struct actor *a)
{
	struct kvm_msi msi = {
		.address_lo = APIC_GPA | rng_below(&a->rng, 5) << 12 | rng_below(&a->rng, 4) << 2,
		.data = (0x20 + rng_below(&a->rng, 0xe0)) | rng_below(&a->rng, 8) << 8,
	};
	struct kvm_irq_level line = { .irq = rng_below(&a->rng, 24) };
	int vm = world_vm(a);

	if (rng_one_in(&a->rng, 3))
		routes_set(a, vm);
	call_ioctl(vm, KVM_SIGNAL_MSI, &msi);
	line.level = 1;
	call_ioctl(vm, KVM_IRQ_LINE, &line);
	line.level = rng_below(&a->rng, 2);
	call_ioctl(vm, KVM_IRQ_LINE_STATUS, &line);
}

/* An eventfd that the VM listens to or tells of writes, and that is gone the next moment. */
static void step_events(struct actor *a)
{
	struct world *w = a->world;
	int vm = world_vm(a), fd = RNG_PICK(&a->rng, w->other);
	struct kvm_irqfd irqfd = {
		.fd = fd, .gsi = rng_below(&a->rng, 24), .flags = rng_below(&a->rng, 4),
		.resamplefd = RNG_PICK(&a->rng, w->other),
	};
	struct kvm_ioeventfd ioeventfd = {
		.addr = MMIO_GPA + rng_below(&a->rng, 16) * 4, .len = 1u << rng_below(&a->rng, 4),
		.fd = fd, .flags = rng_below(&a->rng, 8), .datamatch = rng_below(&a->rng, 4),
	};
	uint64_t one = 1;

	call_ioctl(vm, KVM_IRQFD, &irqfd);
	call_ioctl(vm, KVM_IOEVENTFD, &ioeventfd);
	if (write(fd, &one, sizeof(one)) < 0)
		return;
	if (rng_one_in(&a->rng, 2) && read(irqfd.resamplefd, &one, sizeof(one)) < 0)
		return;
}

/* Statistics, dirty bitmaps, device memory: what descriptors can do beside ioctl. */
static void step_files(struct actor *a)
{
	int fd = world_fd(a);
	off_t at = rng_one_in(&a->rng, 2) ? (off_t)rng_below(&a->rng, 4096) :
					    (off_t)rng_number(&a->rng);
	size_t size = rng_below(&a->rng, BUFFER_SIZE);

	if (fd <= STDERR_FILENO)
		return;
	if (pread(fd, rng_one_in(&a->rng, 3) ? (void *)world_address(a) : a->buffer, size, at) < 0)
		lseek(fd, at, rng_below(&a->rng, 3));
}

/* ---- Memory ---- */

static void memory_advise(struct actor *a, uint8_t *at, size_t size)
{
	static const uint8_t advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_MERGEABLE, MADV_UNMERGEABLE,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK,
	};

	madvise(at, size, RNG_PICK(&a->rng, advice));
}

static void memory_protect(struct actor *a, uint8_t *at, size_t size)
{
	static const uint8_t prots[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
	};

	mprotect(at, size, RNG_PICK(&a->rng, prots));
	if (!rng_one_in(&a->rng, 4))
		mprotect(at, size, PROT_READ | PROT_WRITE);
}

/* Away, and something else in its place: fresh memory, or that of the RAM. */
static void memory_replace(struct actor *a, uint8_t *at, size_t size)
{
	uint8_t *aside = PRIVATE_AT(a->number + 8);

	if (rng_one_in(&a->rng, 2)) {
		if (mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, aside) != MAP_FAILED)
			mremap(aside, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at);
	} else {
		munmap(at, size);
	}
	if (rng_one_in(&a->rng, 3))
		mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->world->ram_fd, 0);
	else if (!rng_one_in(&a->rng, 3))
		mmap(at, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void memory_fork(struct actor *a, uint8_t *at)
{
	pid_t pid = fork();

	if (!pid) {
		memory_write(at, "child", 5);
		_exit(0);
	}
	memory_write(at, "parent", 6);
	if (pid > 0 && rng_one_in(&a->rng, 2))
		waitpid(pid, NULL, 0);
}

static void step_memory(struct actor *a)
{
	struct world *w = a->world;
	bool ram = rng_one_in(&a->rng, 6);
	uint8_t *arena = w->arena[ram ? ARENA_RAM : ARENA_CHAOS];
	size_t pages = ram ? RAM_SIZE / PAGE : CHAOS_SIZE / PAGE, first, n;

	n = rng_one_in(&a->rng, 3) ? pages : 1 + rng_below(&a->rng, 64);
	first = rng_below(&a->rng, pages - n + 1);
	arena += first * PAGE;
	switch (rng_below(&a->rng, 8)) {
	case 0 ... 2:
		memory_advise(a, arena, n * PAGE);
		break;
	case 3:
		memory_protect(a, arena, n * PAGE);
		break;
	case 4:
		memory_replace(a, ram ? w->arena[ARENA_CHAOS] : arena, ram ? CHAOS_SIZE : n * PAGE);
		break;
	case 5:
		memory_fork(a, arena);
		break;
	case 6:
		if (mlock(arena, n * PAGE) || rng_one_in(&a->rng, 4))
			munlock(arena, n * PAGE);
		break;
	default:
		memory_write(arena, a->buffer, n * PAGE < BUFFER_SIZE ? n * PAGE : BUFFER_SIZE);
	}
	if (ram)	/* code and tables are there again for the next */
		mmap(w->arena[ARENA_RAM], RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     w->ram_fd, 0);
}

/* Memory that guests had: nobody else may write to it once it is ours. */
static void step_canary(struct actor *a)
{
	uint64_t *word;
	size_t i;

	if (a->canary) {
		word = (uint64_t *)a->canary;
		for (i = 0; i < CANARY_SIZE / 8; i++)
			if (word[i] != a->canary_value) {
				finding(a, "the worker's own memory was written: %#llx, not %#llx",
					(unsigned long long)word[i],
					(unsigned long long)a->canary_value);
				break;
			}
		munmap(a->canary, CANARY_SIZE);
	}
	a->canary_value = rng_next(&a->rng);
	a->canary = mmap(NULL, CANARY_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (a->canary == MAP_FAILED) {
		a->canary = NULL;
		return;
	}
	for (i = 0; i < CANARY_SIZE / 8; i++)
		((uint64_t *)a->canary)[i] = a->canary_value;
}

/* Mappings of vCPUs at odd places. Touched by a copy that fails where a load would be a signal. */
static void step_map(struct actor *a)
{
	static const uint16_t offsets[] = { 0, 0, 1, 2, 3, 64, 65, 1000, 65535 };
	uint64_t offset = RNG_PICK(&a->rng, offsets) * PAGE;
	size_t size = (1 + rng_below(&a->rng, 80)) * PAGE, at;
	int flags = rng_one_in(&a->rng, 4) ? MAP_PRIVATE : MAP_SHARED;
	unsigned int i, n = rng_below(&a->rng, 8);
	uint8_t *map;

	map = mmap(NULL, size, PROT_READ | (rng_one_in(&a->rng, 4) ? PROT_EXEC : PROT_WRITE), flags,
		   rng_one_in(&a->rng, 6) ? world_fd(a) : a->world->vcpu[world_vcpu(a)], offset);
	if (map == MAP_FAILED)
		return;
	for (i = 0; i < n; i++) {
		rng_fill(&a->rng, a->buffer, 64);
		at = rng_below(&a->rng, size - 64);
		/* What tells KVM_RUN to return is left alone, that of others' runs too. */
		if (offset + at >= 256)
			memory_write(map + at, a->buffer, 64);
	}
	if (rng_one_in(&a->rng, 2))
		madvise(map, size, rng_one_in(&a->rng, 2) ? MADV_DONTNEED : MADV_PAGEOUT);
	munmap(map, size);
}

/* ---- Descriptors and processes ---- */

static void step_close(struct actor *a)
{
	struct world *w = a->world;
	int *places[] = {
		&RNG_PICK(&a->rng, w->vm), &RNG_PICK(&a->rng, w->vcpu),
		&RNG_PICK(&a->rng, w->other),
	};
	int *place = RNG_PICK(&a->rng, places);
	int fd = *place, copy;

	if (fd < 0)
		return;
	if (rng_one_in(&a->rng, 2)) {
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		*place = copy;
	} else {
		*place = -1;
	}
	close(fd);
}

static void step_vm(struct actor *a)
{
	int fd = call_number(a->world->node, KVM_CREATE_VM, 0);

	if (fd >= 0)
		world_adopt_vm(a, fd);
}

/* Another address space than the owner's: nothing but EIO, though the descriptors are good. */
static void child_try(struct actor *a, int vm, int vcpu)
{
	struct kvm_regs regs;

	if (vm >= 0 && (ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_HLT) >= 0 || errno == EFAULT))
		finding(a, "another process could use a VM");
	if (vcpu >= 0 && (ioctl(vcpu, KVM_GET_REGS, &regs) >= 0 || errno == EFAULT))
		finding(a, "another process could use a vCPU");
	if (vcpu >= 0 && (ioctl(vcpu, KVM_RUN, 0) >= 0 || errno == EINTR))
		finding(a, "another process could run a vCPU");
}

/* It may outlive its parent, and with it the memory that backs the VM. */
static void step_child(struct actor *a)
{
	int vm = world_vm(a), vcpu = a->world->vcpu[world_vcpu(a)];
	bool lingers = rng_one_in(&a->rng, 4);
	uint8_t *map;
	pid_t pid = fork();

	if (pid) {
		if (pid > 0 && !lingers)
			waitpid(pid, NULL, 0);
		return;
	}
	child_try(a, vm, vcpu);
	if (lingers)
		usleep(rng_below(&a->rng, 300000));
	map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (map != MAP_FAILED) {
		memory_write(map + 1024, a->buffer, 64);
		call_number(vcpu, KVM_RUN, 0);
	}
	close(vm);
	close(vcpu);
	_exit(0);
}

static void step_signal(struct actor *a)
{
	struct kvm_run *run = a->world->run[world_vcpu(a)];

	if (run && rng_one_in(&a->rng, 2))
		run->immediate_exit = rng_below(&a->rng, 2);
	kill(getpid(), SIGUSR1);
}

static void step_affinity(struct actor *a)
{
	unsigned int cpu, n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	for (cpu = 0; cpu < n; cpu++)
		if (rng_one_in(&a->rng, 2))
			CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* ---- Machines of the thread's own ---- */

struct machine {
	int vm, vcpu;
	struct kvm_run *run;
	uint8_t *ram;
};

/* To a number that world_fd() does not guess: another thread's calls are not for this machine. */
static int descriptor_hide(int fd)
{
	int hidden = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 140);

	if (fd >= 0)
		close(fd);
	return hidden;
}

static bool machine_create(struct actor *a, struct machine *m)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	m->vcpu = -1;
	m->run = MAP_FAILED;
	m->ram = mmap(PRIVATE_AT(a->number), PRIVATE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	m->vm = descriptor_hide(call_number(a->world->node, KVM_CREATE_VM, 0));
	if (m->ram == MAP_FAILED || m->vm < 0)
		return false;
	if (rng_one_in(&a->rng, 2))
		call_ioctl(m->vm, KVM_ENABLE_CAP, &split);
	if (vm_slot(m->vm, 0, 0, PRIVATE_SIZE, m->ram, 0))
		return false;
	m->vcpu = descriptor_hide(call_number(m->vm, KVM_CREATE_VCPU, 0));
	if (m->vcpu < 0)
		return false;
	m->run = mmap(NULL, a->world->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	return m->run != MAP_FAILED;
}

/* What there is of it goes in any order. */
static void machine_destroy(struct actor *a, struct machine *m)
{
	unsigned int gone = 0, what;

	while (gone != 15) {
		what = 1u << rng_below(&a->rng, 4);
		if (gone & what)
			continue;
		gone |= what;
		if (what == 1 && m->vm >= 0)
			close(m->vm);
		else if (what == 2 && m->vcpu >= 0)
			close(m->vcpu);
		else if (what == 4 && m->run != MAP_FAILED)
			munmap(m->run, a->world->run_size);
		else if (what == 8)
			munmap(m->ram, PRIVATE_SIZE);
	}
}

static void step_lifecycle(struct actor *a)
{
	struct machine m;

	if (machine_create(a, &m)) {
		code_tables(&a->rng, m.ram);
		vcpu_prepare(a, m.vcpu, 0);
		memcpy(m.ram + AT_CODE, a->world->ram + AT_CODE, CODE_SIZE);
		vcpu_go(a, m.vcpu, m.run, 1 + rng_below(&a->rng, 6), 2000);
	}
	machine_destroy(a, &m);
}

/* A guest that adds up 1 to 1000, writes it to memory and to a port. */
static const uint8_t good_code[] = {
	0x31, 0xc0, 0xb9, 0xe8, 0x03,		/* xor ax, ax; mov cx, 1000 */
	0x01, 0xc8, 0xe2, 0xfc,			/* 1: add ax, cx; loop 1b */
	0xa3, 0x00, 0x20, 0xe7, 0x42,		/* mov [0x2000], ax; out 0x42, ax */
};

#define GOOD_SUM	(1000 * 1001 / 2 & 0xffff)

/* Where there is no memory for it, nothing is said of the node. */
static bool good_call(struct actor *a, struct machine *m, unsigned long cmd, void *arg)
{
	if (!call_ioctl(m->vcpu, cmd, arg))
		return true;
	if (errno != ENOMEM)
		finding(a, "a good guest: call %#lx, errno %d", cmd, errno);
	return false;
}

static bool good_start(struct actor *a, struct machine *m)
{
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	struct kvm_sregs sregs;

	memcpy(m->ram + 0x1000, good_code, sizeof(good_code));
	if (!good_call(a, m, KVM_GET_SREGS, &sregs))
		return false;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	return good_call(a, m, KVM_SET_SREGS, &sregs) && good_call(a, m, KVM_SET_REGS, &regs);
}

static void step_good(struct actor *a)
{
	struct machine m;
	uint16_t sum = 0;
	int r, tries = 0;

	if (!machine_create(a, &m) || !good_start(a, &m)) {
		machine_destroy(a, &m);
		return;
	}
	do {
		r = call_number(m.vcpu, KVM_RUN, 0);
	} while (r < 0 && errno == EINTR && ++tries < 1000);
	if (r || m.run->exit_reason != KVM_EXIT_IO || m.run->io.port != 0x42)
		finding(a, "a good guest: KVM_RUN %d, errno %d, exit %u", r, errno,
			m.run->exit_reason);
	else
		memcpy(&sum, (uint8_t *)m.run + m.run->io.data_offset, 2);
	if (!r && (sum != GOOD_SUM || memcmp(m.ram + 0x2000, &sum, 2)))
		finding(a, "a good guest got %#x, not %#x", sum, GOOD_SUM);
	else if (!r)
		count(&shared->good_guests);
	machine_destroy(a, &m);
}

/* ---- Which ---- */

static const struct step {
	const char *name;
	void (*run)(struct actor *a);
	unsigned int weight;
} steps[] = {
	{ "a call", call_random, 60 },
	{ "a run", step_run, 34 },
	{ "noise in kvm_run", step_scribble, 6 },
	{ "slots", step_slots, 6 },
	{ "dirty pages", step_dirty, 3 },
	{ "interrupts", step_interrupts, 6 },
	{ "eventfds", step_events, 5 },
	{ "files", step_files, 2 },
	{ "memory", step_memory, 10 },
	{ "a canary", step_canary, 2 },
	{ "a mapping", step_map, 3 },
	{ "a close", step_close, 2 },
	{ "a VM", step_vm, 1 },
	{ "a child", step_child, 2 },
	{ "a signal", step_signal, 3 },
	{ "affinity", step_affinity, 2 },
	{ "a VM's life", step_lifecycle, 4 },
	{ "a good guest", step_good, 1 },
};

void step_random(struct actor *a)
{
	unsigned int i, total = 0, n;

	for (i = 0; i < ARRAY_SIZE(steps); i++)
		total += steps[i].weight;
	n = rng_below(&a->rng, total);
	for (i = 0; n >= steps[i].weight; i++)
		n -= steps[i].weight;
	a->world->progress->doing[a->number] = steps[i].name;
	steps[i].run(a);
	count(&shared->steps);
	a->world->progress->steps++;
}
