/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include <stdbool.h>

struct kvm_cpuid2;

/* Entries that cpuid_complete() may add to a table: it must have room for them. */
#define CPUID_EXTRA	2

/**
 * cpuid_complete - add what a node leaves to its user: the levels of the topology above a thread
 * @cpuid: as KVM_GET_SUPPORTED_CPUID gave it
 */
void cpuid_complete(struct kvm_cpuid2 *cpuid);

/**
 * cpuid_adjust - make what a node supports into what one of a machine's CPUs says
 * @cpuid: complete; changed in place; may be adjusted again for another CPU
 * @id: APIC id, 0 to @cpus - 1
 * @cpus: CPUs of the machine: one package of as many cores, a thread each
 * @tsc_deadline: the node's APIC timer has that mode
 */
void cpuid_adjust(struct kvm_cpuid2 *cpuid, unsigned int id, unsigned int cpus, bool tsc_deadline);

#endif /* VMM_CPUID_H */
