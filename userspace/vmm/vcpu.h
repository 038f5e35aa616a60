/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct boot_entry;
struct bus;
struct ioapic;
struct kvm_run;
struct stop;
struct vm;

/* What a vCPU reaches when it leaves the guest. */
struct vcpu_world {
	struct vm *vm;
	struct bus *pio;
	struct bus *mmio;
	struct ioapic *ioapic;
	struct stop *stop;
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
	pthread_t thread;
	bool started;
};

/* Make vCPU @id of @cpus. Says itself what failed. */
int vcpu_init(struct vcpu *vcpu, const struct vcpu_world *world, unsigned int id,
	      unsigned int cpus);

/*
 * Run it in a thread of its own: from @entry on; NULL: once another vCPU starts it up. Its thread
 * ends soon after the machine's stop was requested and vcpu_kick() was called.
 */
int vcpu_start(struct vcpu *vcpu, const struct boot_entry *entry);

/* Get it out of the guest, and keep it out. Only after the stop was requested. */
void vcpu_kick(struct vcpu *vcpu);

/* Waits for the thread, which must have been kicked. */
void vcpu_finish(struct vcpu *vcpu);

/* Prepare the process for vcpu_kick(), which uses a signal. Before the first vcpu_start(). */
void vcpu_init_kick(void);

#endif /* VMM_VCPU_H */
