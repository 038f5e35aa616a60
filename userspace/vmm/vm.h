/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_cpuid2;
struct kvm_irq_routing;
struct memory;

/**
 * struct vm - a virtual machine of the node, and what the node can do
 * @cpuid: what the node supports, complete in the sense of cpuid_complete()
 * @run_size: bytes of a vCPU's shared page
 * @cpus_max: most vCPUs of one VM
 * @tsc_deadline: the local APIC's timer has the TSC-deadline mode
 */
struct vm {
	int node;
	int fd;
	struct kvm_cpuid2 *cpuid;
	size_t run_size;
	unsigned int cpus_max;
	bool tsc_deadline;
};

/* These say themselves what failed. Return: 0 or a negative errno. */
int vm_init(struct vm *vm, const char *node);
int vm_set_memory(struct vm *vm, const struct memory *memory);
void vm_finish(struct vm *vm);

/*
 * The one way for an interrupt into the guest: a message as a PCI device would send it.
 * What names no APIC is lost, as on hardware.
 */
void vm_signal_msi(struct vm *vm, uint64_t address, uint32_t data);

/* Tell the kernel which messages the IOAPIC's pins send, so that it reports their EOI. */
void vm_set_routing(struct vm *vm, const struct kvm_irq_routing *routing);

#endif /* VMM_VM_H */
