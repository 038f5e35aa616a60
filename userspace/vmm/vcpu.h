/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "userspace/vmm/stats.h"

struct boot_entry;
struct bus;
struct ioapic;
struct kvm_run;
struct pause;
struct stop;
struct vm;

/* What a vCPU reaches when it leaves the guest. */
struct vcpu_world {
	struct vm *vm;
	struct bus *pio;
	struct bus *mmio;
	struct ioapic *ioapic;
	struct stop *stop;
	struct pause *pause;
};

/**
 * struct vcpu - a virtual CPU and its thread
 * @started: the thread is there
 */
struct vcpu {
	const struct vcpu_world *world;
	unsigned int id;
	int fd;
	struct kvm_run *run;
	struct stats stats;
	pthread_t thread;
	bool started;
};

/* Make vCPU @id of @cpus. Says itself what failed. */
int vcpu_init(struct vcpu *vcpu, const struct vcpu_world *world, unsigned int id,
	      unsigned int cpus);

/*
 * Run it in a thread of its own: from @entry on; NULL: once another vCPU starts it up. Its thread
 * ends soon after the machine's stop was requested and vcpu_kick() was called. In a pause the vCPU stands
 * with what it was doing done, so that other threads can ask for its registers.
 */
int vcpu_start(struct vcpu *vcpu, const struct boot_entry *entry);

/* Get it out of the guest, for what was said before: that the machine stops, or pauses. */
void vcpu_kick(struct vcpu *vcpu);

/* Waits for the thread, which must have been kicked. */
void vcpu_finish(struct vcpu *vcpu);

/* Prepare the process for vcpu_kick(), which uses a signal. Before the first vcpu_start(). */
void vcpu_init_kick(void);

#endif /* VMM_VCPU_H */
