// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What CPUID tells a guest. Features are the node's; the topology is the machine's, in every leaf
 * that either vendor has for it, since kernels complain where two of them disagree.
 */
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/lib/array.h"
#include "userspace/vmm/cpuid.h"

#define CPUID_1_ECX_TSC_DEADLINE	(1u << 24)
#define CPUID_1_ECX_HYPERVISOR		(1u << 31)
#define CPUID_1_EDX_HTT			(1u << 28)
#define CPUID_AMD_CMP_LEGACY		(1u << 1)
#define CPUID_CACHE_TYPE		0x1f
#define CPUID_LEVEL_THREAD		1
#define CPUID_LEVEL_CORE		2

struct cpuid_machine {
	unsigned int id;
	unsigned int cpus;
	unsigned int id_bits;	/* that an APIC id takes */
	bool tsc_deadline;
};

static uint32_t cpuid_field(uint32_t value, unsigned int low, unsigned int width, uint32_t field)
{
	uint32_t mask = (width < 32 ? (1u << width) - 1 : UINT32_MAX);

	if (field > mask)
		field = mask;
	return (value & ~(mask << low)) | field << low;
}

static void cpuid_features(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	entry->ebx = cpuid_field(entry->ebx, 24, 8, machine->id);
	entry->ebx = cpuid_field(entry->ebx, 16, 8, machine->cpus);
	entry->ecx |= CPUID_1_ECX_HYPERVISOR;
	entry->ecx &= ~CPUID_1_ECX_TSC_DEADLINE;
	if (machine->tsc_deadline)
		entry->ecx |= CPUID_1_ECX_TSC_DEADLINE;
	entry->edx &= ~CPUID_1_EDX_HTT;
	if (machine->cpus > 1)
		entry->edx |= CPUID_1_EDX_HTT;
}

/* Intel leaf 4 and AMD leaf 0x8000001d: the last level is everybody's, the others a core's own. */
static void cpuid_cache_sharing(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	unsigned int level = entry->eax >> 5 & 7;

	if (entry->eax & CPUID_CACHE_TYPE)
		entry->eax = cpuid_field(entry->eax, 14, 12, level >= 3 ? machine->cpus - 1 : 0);
}

static void cpuid_cache(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	cpuid_cache_sharing(entry, machine);
	if (entry->eax & CPUID_CACHE_TYPE)
		entry->eax = cpuid_field(entry->eax, 26, 6, machine->cpus - 1);
}

/* Leaves 0xb and 0x1f: threads of a core, then cores of the package, then no more. */
static void cpuid_topology(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	entry->eax = 0;
	entry->ebx = 0;
	entry->ecx = entry->index & 0xff;
	entry->edx = machine->id;
	if (entry->index == 0) {
		entry->ebx = 1;
		entry->ecx |= CPUID_LEVEL_THREAD << 8;
	} else if (entry->index == 1) {
		entry->eax = machine->id_bits;
		entry->ebx = machine->cpus;
		entry->ecx |= CPUID_LEVEL_CORE << 8;
	}
}

static void cpuid_amd_features(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	entry->ecx &= ~CPUID_AMD_CMP_LEGACY;
	if (machine->cpus > 1)
		entry->ecx |= CPUID_AMD_CMP_LEGACY;
}

static void cpuid_amd_size(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	entry->ecx = cpuid_field(entry->ecx, 0, 8, machine->cpus - 1);
	entry->ecx = cpuid_field(entry->ecx, 12, 4, machine->id_bits);
}

static void cpuid_amd_topology(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine)
{
	entry->eax = machine->id;
	entry->ebx = machine->id & 0xff;	/* the core's id; a thread a core */
	entry->ecx = 0;				/* node 0 of one */
	entry->edx = 0;
}

static const struct {
	uint32_t leaf;
	void (*adjust)(struct kvm_cpuid_entry2 *entry, const struct cpuid_machine *machine);
} cpuid_leaves[] = {
	{ 0x00000001, cpuid_features },
	{ 0x00000004, cpuid_cache },
	{ 0x0000000b, cpuid_topology },
	{ 0x0000001f, cpuid_topology },
	{ 0x80000001, cpuid_amd_features },
	{ 0x80000008, cpuid_amd_size },
	{ 0x8000001d, cpuid_cache_sharing },
	{ 0x8000001e, cpuid_amd_topology },
};

static struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t leaf, uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == leaf && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

void cpuid_complete(struct kvm_cpuid2 *cpuid)
{
	static const uint32_t leaves[CPUID_EXTRA] = { 0x0000000b, 0x0000001f };

	for (size_t i = 0; i < CPUID_EXTRA; i++)
		if (cpuid_find(cpuid, leaves[i], 0) && !cpuid_find(cpuid, leaves[i], 1))
			cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
				.function = leaves[i],
				.index = 1,
				.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			};
}

void cpuid_adjust(struct kvm_cpuid2 *cpuid, unsigned int id, unsigned int cpus, bool tsc_deadline)
{
	struct cpuid_machine machine = {
		.id = id,
		.cpus = cpus,
		.id_bits = cpus > 1 ? 32 - __builtin_clz(cpus - 1) : 0,
		.tsc_deadline = tsc_deadline,
	};

	for (uint32_t i = 0; i < cpuid->nent; i++)
		for (size_t j = 0; j < ARRAY_SIZE(cpuid_leaves); j++)
			if (cpuid->entries[i].function == cpuid_leaves[j].leaf)
				cpuid_leaves[j].adjust(&cpuid->entries[i], &machine);
}
