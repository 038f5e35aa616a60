/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A small guest, seen from the host: raw ioctls of the KVM ABI on the node under test.
 *
 * A guest runs a copy of the test program itself. The programs are static and linked at a fixed
 * address, and guest_load() copies their whole image to guest-physical memory at that very address,
 * which the guest's page tables map one to one. So any function of a test file is a payload (they
 * are built without SSE and red zone), string literals and globals are there too, and a pointer
 * that the guest reports means the same to the host. GUEST_VAR() is the guest's copy of a global.
 *
 * Guest-physical memory, all of it slot 0 unless a test does without:
 *
 *	0x0000		GDT, TSS, IDT (below 0x8000)
 *	0x10000		blobs of 16-bit code, real-mode stack below
 *	0x100000	page tables, the first 4 GiB in 2 MiB pages
 *	0x200000	stacks, 16 KiB a vCPU
 *	0x400000	the program's image
 *	0x800000	free for the test, up to the end of memory
 *	0xd0000000	nothing: MMIO
 */
#ifndef MOAT_GUEST_H
#define MOAT_GUEST_H

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "payload.h"
#include "tap.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define PAGE_SIZE	4096ul
#define MIB(n)		((uint64_t)(n) << 20)

#define GUEST_GDT	0x0000ul
#define GUEST_TSS	0x1000ul
#define GUEST_IDT	0x2000ul
#define GUEST_IDT32	0x4000ul
#define GUEST_LOW	0x10000ul
#define GUEST_TABLES	0x100000ul
#define GUEST_STACKS	0x200000ul
#define GUEST_FREE	0x800000ul
#define GUEST_RAM	MIB(16)
#define GUEST_MMIO	0xd0000000ul

#define GUEST_CS64	0x08
#define GUEST_DS	0x10
#define GUEST_CS32	0x18
#define GUEST_TR	0x20
#define GUEST_CS16	0x30
#define GUEST_DS16	0x38

/* Interrupt controllers in the kernel: none, local APICs (KVM_CAP_SPLIT_IRQCHIP), all. */
enum irqchip { IRQCHIP_NONE, IRQCHIP_SPLIT, IRQCHIP_KERNEL };

struct vm {
	int node;		/* the system's descriptor */
	int fd;
	uint8_t *ram;		/* backs slot 0 */
	uint64_t ram_size;
	enum irqchip irqchip;
	struct kvm_cpuid2 *cpuid;
};

struct vcpu {
	struct vm *vm;
	int fd;
	uint32_t id;
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;	/* of vcpu_spawn() */
	bool finished;
};

/* What ended a vcpu_wait(). */
enum report_kind {
	REPORT_DONE,		/* the payload's end */
	REPORT_SYNC,		/* guest_sync(value) */
	REPORT_EXIT,		/* an exit that is no report: vcpu->run->exit_reason */
	REPORT_ERROR,		/* KVM_RUN failed: error */
	REPORT_TIMEOUT,		/* the guest ran for vcpu_deadline_ms without a word */
};

/* How long one vcpu_wait() may take; 8 s unless a test wants less. */
extern unsigned int vcpu_deadline_ms;
/* A guest gone astray by intent reports what it likes: its failures are not the case's. */
extern bool vcpu_astray;

struct report {
	enum report_kind kind;
	uint64_t value;		/* of guest_sync() */
	uint64_t value2;
	int error;		/* errno */
};

/*
 * The node under test: MOAT_DEVICE, else /dev/moat. Both end the program where it cannot be opened.
 */
const char *node_path(void);
int node_open(int flags);
/* False for a peer, as /dev/kvm. */
bool node_is_moat(void);
/* CHECK_EXTENSION on the system's descriptor. */
int node_has(int cap);

/* A VM with memory and image. Ends the program on failure. */
struct vm *vm_create(uint64_t ram_size, enum irqchip irqchip);
/* Nothing but a descriptor. */
struct vm *vm_create_bare(void);
void vm_destroy(struct vm *vm);
/* KVM_SET_USER_MEMORY_REGION: 0 or -1 and errno. */
int vm_slot(struct vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, void *host, uint32_t flags);
/* Copies a piece of code or data into slot 0. */
void vm_copy(struct vm *vm, uint64_t gpa, const void *from, size_t size);
/* Maps a 4 KiB page of the guest's own page tables, in a 2 MiB region otherwise left one to one. */
void vm_map_page(struct vm *vm, uint64_t va, uint64_t pa, uint64_t flags);
/* The guest's copy of a global of this program. */
#define GUEST_VAR(vm, global) ((__typeof__(global) *)((vm)->ram + (uintptr_t)&(global)))

struct vcpu *vcpu_create(struct vm *vm, uint32_t id);
void vcpu_destroy(struct vcpu *vcpu);
/* Ready to run entry(arg) in long mode, at a fresh stack, interrupts off. */
void vcpu_set_long(struct vcpu *vcpu, void *entry, uint64_t arg);
/* Ready to run 32-bit code, flat segments, no paging. */
void vcpu_set_protected(struct vcpu *vcpu, uint32_t eip);
/* Ready to run 16-bit code with all segments at 0. */
void vcpu_set_real(struct vcpu *vcpu, uint16_t ip);
/* KVM_RUN: 0 or -errno. EINTR may come of work that the host's kernel has for the thread. */
int vcpu_run(struct vcpu *vcpu);
/* The same, until it is not EINTR. */
int vcpu_run_on(struct vcpu *vcpu);
/* Runs until the payload reports or something else happens; its failed checks are the case's. */
struct report vcpu_wait(struct vcpu *vcpu);
/* Runs to guest_done(); all else fails the running case. Notes what happened. */
bool vcpu_finish(struct vcpu *vcpu);
/* Runs to the next guest_sync(), which must be this one. */
bool vcpu_sync(struct vcpu *vcpu, uint64_t value);
/* Runs to an exit of this reason. */
bool vcpu_exit(struct vcpu *vcpu, uint32_t reason);
/* vcpu_finish() in a thread of its own, and its result. */
void vcpu_spawn(struct vcpu *vcpu);
bool vcpu_join(struct vcpu *vcpu);
/* Fails the running case, with all that is known of the vCPU. */
void vcpu_explain(struct vcpu *vcpu, const struct report *report, const char *wanted);

struct kvm_regs vcpu_regs(struct vcpu *vcpu);
struct kvm_sregs vcpu_sregs(struct vcpu *vcpu);
uint64_t vcpu_msr_get(struct vcpu *vcpu, uint32_t msr);
/* True where it was taken. */
bool vcpu_msr_set(struct vcpu *vcpu, uint32_t msr, uint64_t value);

/* One leaf of what vCPUs of this VM are given. */
struct kvm_cpuid_entry2 *vm_cpuid(struct vm *vm, uint32_t leaf, uint32_t index);
uint64_t clock_ns(void);
/* A counter behind a descriptor of KVM_GET_STATS_FD. */
uint64_t stat_read(int fd, const char *name);

#endif
