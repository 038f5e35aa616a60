/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_cpuid2;
struct kvm_irq_routing;
struct memory;

/* Lines: one for each queue of a virtio device, and those beyond go through the launcher. */
#define VM_GSIS		512

/**
 * struct vm - a virtual machine of the node, and what the node can do
 * @cpuid: what the node supports, complete in the sense of cpuid_complete()
 * @run_size: bytes of a vCPU's shared page
 * @cpus_max: most vCPUs of one VM
 * @tsc_deadline: the local APIC's timer has the TSC-deadline mode
 * @lock: guards the two below; innermost
 * @routing: which message each line (GSI) sends, as the kernel has it
 * @gsi_used: lines that are somebody's
 */
struct vm {
	int node;
	int fd;
	struct kvm_cpuid2 *cpuid;
	size_t run_size;
	unsigned int cpus_max;
	bool tsc_deadline;
	pthread_mutex_t lock;
	struct kvm_irq_routing *routing;
	bool gsi_used[VM_GSIS];
};

/* These say themselves what failed. Return: 0 or a negative errno. */
int vm_init(struct vm *vm, const char *node);
int vm_set_memory(struct vm *vm, const struct memory *memory);
void vm_finish(struct vm *vm);

/*
 * An interrupt into the guest is always a message as a PCI device would send it: sent from here at
 * once, or by the kernel when a line is raised. What names no APIC is lost, as on hardware.
 */
void vm_signal_msi(struct vm *vm, uint64_t address, uint32_t data);

/* A line for vm_set_route(), behind the IOAPIC's pins, whose numbers are theirs. Or -ENOSPC. */
int vm_alloc_gsi(struct vm *vm);

/* It sends nothing any more, and is nobody's. A negative one is fine. */
void vm_free_gsi(struct vm *vm, int gsi);

/**
 * vm_set_route - tell the kernel which message a line sends; it also reports EOIs by that
 * @address: of the message; 0: none from now on
 */
void vm_set_route(struct vm *vm, unsigned int gsi, uint64_t address, uint32_t data);

/* From now on (or no more) the kernel takes what is written to the eventfd, and raises the line. */
int vm_set_irqfd(struct vm *vm, int fd, unsigned int gsi, bool attach);

/* From now on (or no more) a guest's write of 16 bits at an address is one to the eventfd. */
int vm_set_ioeventfd(struct vm *vm, uint64_t address, int fd, bool attach);

#endif /* VMM_VM_H */
