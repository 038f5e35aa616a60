/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the parts of node_fuzz share.
 *
 * A worker process has one world: a node, some VMs and vCPUs, memory, and other descriptors. A few
 * threads work on it at once, each with a random stream of its own that follows from the seed, so
 * that a seed gives each thread the same sequence again; how the threads meet is the machine's
 * affair. Nothing in the world is locked: a descriptor that another thread closes meanwhile is one
 * more bad argument.
 */
#ifndef MOAT_FUZZ_H
#define MOAT_FUZZ_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

/* What this machine's headers may be too old for. */
#ifndef KVM_SET_USER_MEMORY_REGION2
struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};

#define KVM_SET_USER_MEMORY_REGION2 \
	_IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#endif
#ifndef KVM_SET_MEMORY_ATTRIBUTES
struct kvm_memory_attributes {
	__u64 address;
	__u64 size;
	__u64 attributes;
	__u64 flags;
};

#define KVM_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, struct kvm_memory_attributes)
#endif
#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};

#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif
#ifndef KVM_PRE_FAULT_MEMORY
struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};

#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define PAGE		4096ul
#define MIB(n)		((uint64_t)(n) << 20)

/* ---- Random numbers ---- */

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t x = rng->state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

static inline bool rng_one_in(struct rng *rng, uint64_t n)
{
	return !rng_below(rng, n);
}

#define RNG_PICK(rng, array)	((array)[rng_below(rng, ARRAY_SIZE(array))])

/* A number of any magnitude, mostly one at a border. */
uint64_t rng_number(struct rng *rng);
void rng_fill(struct rng *rng, void *data, size_t size);
/* Changes a few bits or bytes. */
void rng_mutate(struct rng *rng, void *data, size_t size);

/* ---- What all processes of a run share ---- */

/* How a call ended. */
enum outcome {
	DID_OK, DID_EINVAL, DID_EFAULT, DID_ENOTTY, DID_EXIST, DID_2BIG, DID_EBADF, DID_EIO,
	DID_EINTR, DID_OTHER, NR_OUTCOMES
};

#define MAX_CALLS	160
#define MAX_EXITS	48
#define MAX_JOBS	8
#define MAX_THREADS	3

/* What a worker is at, for the watchdog. */
struct progress {
	volatile uint64_t seed;
	volatile uint64_t steps;
	const char *volatile doing[MAX_THREADS];
};

struct shared {
	uint64_t outcomes[MAX_CALLS][NR_OUTCOMES];
	uint64_t exits[MAX_EXITS];	/* of KVM_RUN, by reason; the last for others */
	uint64_t steps;
	uint64_t good_guests;		/* checked, and found to run right */
	uint64_t findings;
	struct progress progress[MAX_JOBS];
};

extern struct shared *shared;

static inline void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* ---- The world ---- */

#define MAX_VMS		4
#define MAX_VCPUS	10
#define MAX_OTHERS	24

/* Guest-physical layout that VMs start with. */
#define RAM_SIZE	MIB(4)		/* slot 0, from 0 */
#define CHAOS_GPA	MIB(4)		/* slot 1: whose memory is changed all the time */
#define CHAOS_SIZE	MIB(6)
#define ROM_GPA		0x10000000ul	/* slot 2, read-only */
#define ROM_SIZE	(16 * PAGE)
#define MMIO_GPA	0xd0000000ul
#define APIC_GPA	0xfee00000ul

/* In RAM. */
#define AT_GDT		0x1000ul
#define AT_IDT64	0x2000ul
#define AT_IDT32	0x3000ul
#define AT_STUBS	0x4000ul	/* trap handlers: 64, 32 and 16 bits, 256 bytes each */
#define AT_TSS		0x5000ul
#define AT_TABLES	0x10000ul	/* page tables: code.c */
#define AT_CODE		0x40000ul	/* CODE_SIZE for each vCPU */
#define CODE_SIZE	0x1000ul
#define AT_STACKS	0x60000ul	/* 4 KiB for each vCPU */
#define AT_DATA		0x100000ul

enum arena { ARENA_RAM, ARENA_CHAOS, ARENA_CONST, ARENA_NONE, ARENA_FILE, ARENA_HOLE, NR_ARENAS };

struct world {
	uint64_t seed;
	struct progress *progress;
	int node;
	int vm[MAX_VMS];
	int vcpu[MAX_VCPUS];
	struct kvm_run *run[MAX_VCPUS];	/* once mapped, mapped for the worker's life */
	size_t run_size;
	int other[MAX_OTHERS];		/* eventfds, memory, statistics, devices, a pipe */
	uint8_t *arena[NR_ARENAS];
	size_t arena_size[NR_ARENAS];
	uint8_t *ram;			/* ARENA_RAM again, where nobody changes the mapping */
	int ram_fd;
	struct kvm_cpuid2 *cpuid;	/* what is supported */
	uint32_t *msrs;
	uint32_t msr_count;
	bool scribbles;			/* this seed writes noise into kvm_run */
};

/* A thread of the worker. */
struct actor {
	struct world *world;
	struct rng rng;
	unsigned int number;
	uint8_t *buffer;		/* BUFFER_SIZE bytes for arguments, then no memory */
	uint8_t *canary;
	uint64_t canary_value;
};

#define BUFFER_SIZE	(8 * PAGE)

/* Says what was found, with the seed, and counts it. */
void finding(struct actor *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* world.c */
bool world_create(struct world *w, const char *node);
/* A descriptor of the world, or some number that may be one. */
int world_fd(struct actor *a);
int world_vm(struct actor *a);
unsigned int world_vcpu(struct actor *a);
/* Descriptors that a call returned find their place, or are closed. */
void world_adopt_vm(struct actor *a, int fd);
void world_adopt_vcpu(struct actor *a, int fd);
void world_adopt_other(struct actor *a, int fd);
/* An address in one of the arenas, mostly at a page; or somewhere else. */
uint64_t world_address(struct actor *a);
/* Slots, vCPUs and all that a guest needs; kind of interrupt controllers is random. */
void vm_furnish(struct actor *a, int vm);
int vm_slot(int vm, uint32_t slot, uint64_t gpa, uint64_t size, const void *host, uint32_t flags);
/* Writes to memory that may not be there. */
bool memory_write(void *to, const void *from, size_t size);

/* calls.c */
struct call;
unsigned int calls_count(void);
const char *call_name(unsigned int number);
/* One random ioctl with random arguments on a random object. */
void call_random(struct actor *a);
/* ioctl(), counted. */
int call_ioctl(int fd, unsigned long cmd, void *arg);
int call_number(int fd, unsigned long cmd, unsigned long arg);
/*
 * Round KVM_RUN and the look at what came of it. Two threads that run the same vCPU see each other's
 * exits, or halves of them: the first tells whether nobody else does just now, the second whether
 * nobody has begun since.
 */
bool run_begin(unsigned int *ret_run);
bool run_was_last(unsigned int run);
void run_end(void);

/* code.c */
/* Descriptor tables, page tables, trap handlers. */
void code_tables(struct rng *rng, uint8_t *ram);
/* Random code for vCPU n, and the registers to start it in a random mode. */
void code_write(struct rng *rng, uint8_t *ram, unsigned int n, unsigned int bits);
void vcpu_prepare(struct actor *a, int fd, unsigned int n);
#define MSR_EFER	0xc0000080u
#define EFER_LME	0x100ull

/* See code.c for this, and, for what the emulated CPU does not survive: */
uint64_t efer_tame(uint64_t efer);
/*
 * A task register that is not there, or whose segment is marked busy as that of a running task is,
 * makes QEMU's TCG (11.1) abort when the guest changes its privilege level: "invalid tss". Both
 * structs of segment registers begin in the same way.
 */
void sregs_tame(struct kvm_sregs *s);
void dr7_tame(void *dr7);
/* A number such as guest code computes addresses with. */
uint64_t guest_number(struct rng *rng);
uint32_t msr_number(struct actor *a);

/* steps.c */
void step_random(struct actor *a);
/* How long one KVM_RUN may take: a timer ends it. For each thread that runs vCPUs. */
void run_limit_create(void);
void run_limit_set(struct kvm_run *run, unsigned int us);
void run_limit_clear(void);

#endif
