// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The world of a worker: its machines, its memory, its descriptors.
 *
 * Whatever a guest may be given as memory, and whatever a call may be given as an address, is in
 * arenas that lie terabytes apart, further than the largest slot reaches: so a guest never gets at
 * the worker's own memory, nor at that of the threads' own machines, behind the arenas; and a worker
 * that dies in mid-air is a finding. kvm_run of each vCPU is an arena too. The worker itself touches
 * only what nobody takes away: its own mapping of the guests' RAM, and kvm_run, whose mappings stay
 * until it ends.
 */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "fuzz.h"

#define ARENA_AT(n)	((uint8_t *)(((uint64_t)(n) + 1) << 43))	/* 8 TiB apart */
#define RUN_AT(n)	((uint8_t *)((1ull << 46) + ((uint64_t)(n) << 30)))
#define MAX_RUNS	100
#define CPUID_ENTRIES	256

static unsigned int runs_mapped;

bool memory_write(void *to, const void *from, size_t size)
{
	struct iovec local = { (void *)from, size }, remote = { to, size };

	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size;
}

/* ---- What random calls are made with ---- */

int world_fd(struct actor *a)
{
	struct world *w = a->world;

	switch (rng_below(&a->rng, 12)) {
	case 0:
		return w->node;
	case 1:
		return RNG_PICK(&a->rng, w->vm);
	case 2:
		return RNG_PICK(&a->rng, w->vcpu);
	case 3:
		return rng_number(&a->rng);
	case 4:
		return rng_below(&a->rng, 64);
	default:
		return RNG_PICK(&a->rng, w->other);
	}
}

/* Mostly one that is there: from a random place on, the first. */
static unsigned int place_pick(struct actor *a, const int *places, unsigned int count)
{
	unsigned int i, n = rng_below(&a->rng, count);

	if (rng_one_in(&a->rng, 16))
		return n;
	for (i = 0; i < count && places[n] < 0; i++)
		n = (n + 1) % count;
	return n;
}

int world_vm(struct actor *a)
{
	return a->world->vm[place_pick(a, a->world->vm, MAX_VMS)];
}

unsigned int world_vcpu(struct actor *a)
{
	return place_pick(a, a->world->vcpu, MAX_VCPUS);
}

uint64_t world_address(struct actor *a)
{
	static const uint8_t likely[] = {
		ARENA_RAM, ARENA_RAM, ARENA_CHAOS, ARENA_CHAOS, ARENA_CONST, ARENA_NONE, ARENA_FILE,
		ARENA_HOLE,
	};
	unsigned int arena = RNG_PICK(&a->rng, likely);
	uint64_t at = (uint64_t)a->world->arena[arena];

	switch (rng_below(&a->rng, 16)) {
	case 0:
		at = (uint64_t)RUN_AT(rng_below(&a->rng, runs_mapped + 1));
		return at + rng_below(&a->rng, 3) * PAGE;
	case 1:
		at = (uint64_t)ARENA_AT(rng_below(&a->rng, NR_ARENAS));
		return at + rng_number(&a->rng) % (1ull << 42);
	case 2:
		return -rng_below(&a->rng, 1ull << 47);
	case 3:
		return at + rng_below(&a->rng, a->world->arena_size[arena] + 64);
	default:
		return at + rng_below(&a->rng, a->world->arena_size[arena] / PAGE) * PAGE;
	}
}

/* ---- What calls returned ---- */

static void replace(int *place, int fd)
{
	int old = __atomic_exchange_n(place, fd, __ATOMIC_RELAXED);

	if (old >= 0)
		close(old);
}

void world_adopt_other(struct actor *a, int fd)
{
	if (fd >= 0)
		replace(&RNG_PICK(&a->rng, a->world->other), fd);
}

void world_adopt_vcpu(struct actor *a, int fd)
{
	struct world *w = a->world;
	unsigned int n = __atomic_fetch_add(&runs_mapped, 1, __ATOMIC_RELAXED);
	unsigned int place = rng_below(&a->rng, MAX_VCPUS);
	void *run;

	if (n >= MAX_RUNS) {
		close(fd);
		return;
	}
	run = mmap(RUN_AT(n), w->run_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (run == MAP_FAILED) {
		close(fd);
		return;
	}
	w->run[place] = run;
	replace(&w->vcpu[place], fd);
}

void world_adopt_vm(struct actor *a, int fd)
{
	if (!rng_one_in(&a->rng, 4))
		vm_furnish(a, fd);
	replace(&a->world->vm[rng_below(&a->rng, MAX_VMS)], fd);
}

/* ---- Machines ---- */

int vm_slot(int vm, uint32_t slot, uint64_t gpa, uint64_t size, const void *host, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	return call_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Before there are vCPUs. */
static void vm_choose(struct actor *a, int vm)
{
	static const struct kvm_enable_cap caps[] = {
		{ .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { 7 } },
		{ .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } },
		{ .cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = { 1 } },
		{ .cap = KVM_CAP_DIRTY_LOG_RING, .args = { 16384 } },
		{ .cap = KVM_CAP_X2APIC_API, .args = { 3 } },
		{ .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 3 } },
	};
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_pit_config pit = { .flags = rng_below(&a->rng, 2) };
	unsigned int i;

	switch (rng_below(&a->rng, 8)) {
	case 0:
		break;
	case 1 ... 3:
		call_ioctl(vm, KVM_ENABLE_CAP, &split);
		break;
	default:
		call_number(vm, KVM_CREATE_IRQCHIP, 0);
		if (!rng_one_in(&a->rng, 3))
			call_ioctl(vm, KVM_CREATE_PIT2, &pit);
	}
	for (i = 0; i < ARRAY_SIZE(caps); i++)
		if (rng_one_in(&a->rng, 3))
			call_ioctl(vm, KVM_ENABLE_CAP, (void *)&caps[i]);
}

static void vm_add_vcpu(struct actor *a, int vm, unsigned int id)
{
	int fd = call_number(vm, KVM_CREATE_VCPU, id);

	if (fd < 0)
		return;
	if (!rng_one_in(&a->rng, 6))
		call_ioctl(fd, KVM_SET_CPUID2, a->world->cpuid);
	vcpu_prepare(a, fd, rng_below(&a->rng, MAX_VCPUS));
	world_adopt_vcpu(a, fd);
}

void vm_furnish(struct actor *a, int vm)
{
	struct world *w = a->world;
	uint32_t log = rng_one_in(&a->rng, 3) ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	unsigned int i, n = 1 + rng_below(&a->rng, 3);

	vm_choose(a, vm);
	vm_slot(vm, 0, 0, RAM_SIZE, w->arena[ARENA_RAM], 0);
	if (vm_slot(vm, 1, CHAOS_GPA, CHAOS_SIZE, w->arena[ARENA_CHAOS], log))
		vm_slot(vm, 1, CHAOS_GPA, CHAOS_SIZE, w->arena[ARENA_CHAOS], 0);
	vm_slot(vm, 2, ROM_GPA, ROM_SIZE, w->arena[ARENA_CONST], KVM_MEM_READONLY);
	for (i = 0; i < n; i++)
		vm_add_vcpu(a, vm, rng_one_in(&a->rng, 6) ? rng_below(&a->rng, 300) : i);
}

/* ---- Beginning ---- */

static void *arena_map(struct world *w, enum arena n, size_t size, int prot, int flags, int fd)
{
	void *at = mmap(ARENA_AT(n), size, prot, flags | MAP_FIXED, fd, 0);

	w->arena[n] = ARENA_AT(n);
	w->arena_size[n] = size;
	return at == MAP_FAILED ? NULL : at;
}

static bool arenas_create(struct world *w)
{
	int anon = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	bool ok;

	w->ram_fd = memfd_create("ram", MFD_CLOEXEC);
	if (w->ram_fd < 0 || ftruncate(w->ram_fd, RAM_SIZE))
		return false;
	w->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->ram_fd, 0);
	ok = w->ram != MAP_FAILED &&
	     arena_map(w, ARENA_RAM, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->ram_fd) &&
	     arena_map(w, ARENA_CHAOS, CHAOS_SIZE, PROT_READ | PROT_WRITE, anon, -1) &&
	     arena_map(w, ARENA_CONST, ROM_SIZE, PROT_READ, MAP_SHARED, w->ram_fd) &&
	     arena_map(w, ARENA_NONE, 16 * PAGE, PROT_NONE, anon, -1) &&
	     arena_map(w, ARENA_FILE, 16 * PAGE, PROT_READ, MAP_PRIVATE, exe);
	w->arena[ARENA_HOLE] = ARENA_AT(ARENA_HOLE);
	w->arena_size[ARENA_HOLE] = MIB(1);
	if (exe >= 0)
		close(exe);
	return ok;
}

static bool world_ask(struct world *w)
{
	size_t size = sizeof(*w->cpuid) + CPUID_ENTRIES * sizeof(w->cpuid->entries[0]);
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 1024 * sizeof(uint32_t));

	w->cpuid = calloc(1, size);
	if (!w->cpuid || !list)
		return false;
	w->cpuid->nent = CPUID_ENTRIES;
	if (call_ioctl(w->node, KVM_GET_SUPPORTED_CPUID, w->cpuid))
		return false;
	list->nmsrs = 1024;
	if (!call_ioctl(w->node, KVM_GET_MSR_INDEX_LIST, list)) {
		w->msr_count = list->nmsrs;
		w->msrs = list->indices;
	}
	return true;
}

bool world_create(struct world *w, const char *node)
{
	unsigned int i;
	int size;

	runs_mapped = 0;
	memset(w->vm, -1, sizeof(w->vm));
	memset(w->vcpu, -1, sizeof(w->vcpu));
	w->node = open(node, (w->seed % 8 ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (w->node < 0)
		return false;
	size = call_number(w->node, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run) || !world_ask(w) || !arenas_create(w))
		return false;
	w->run_size = size;
	for (i = 0; i < MAX_OTHERS; i++)
		w->other[i] = i % 8 == 7 ? memfd_create("other", MFD_CLOEXEC) :
					   eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return true;
}
