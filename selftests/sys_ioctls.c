// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The node's own ioctls: what a client asks before it has a VM.
 */
#include <fcntl.h>

#include "guest.h"

/* Numbers that no one has assigned. */
#define IOCTL_UNKNOWN		_IO(KVMIO, 0xdf)
#define IOCTL_UNKNOWN_RW	_IOWR(KVMIO, 0xdf, uint64_t)
#define IOCTL_FOREIGN		_IO('q', 0x00)
#define CAP_UNKNOWN		0x7ffffff0
#define MAX_ENTRIES		512

static const struct {
	int cap;
	const char *name;
	int least;
} caps[] = {
	{ KVM_CAP_USER_MEMORY, "USER_MEMORY", 1 },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS", 1 },
	{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, "JOIN_MEMORY_REGIONS_WORKS", 1 },
	{ KVM_CAP_READONLY_MEM, "READONLY_MEM", 1 },
	{ KVM_CAP_SYNC_MMU, "SYNC_MMU", 1 },
	{ KVM_CAP_NR_MEMSLOTS, "NR_MEMSLOTS", 32 },
	{ KVM_CAP_NR_VCPUS, "NR_VCPUS", 1 },
	{ KVM_CAP_MAX_VCPUS, "MAX_VCPUS", 4 },
	{ KVM_CAP_EXT_CPUID, "EXT_CPUID", 1 },
	{ KVM_CAP_MP_STATE, "MP_STATE", 1 },
	{ KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS", 1 },
	{ KVM_CAP_DEBUGREGS, "DEBUGREGS", 1 },
	{ KVM_CAP_XSAVE, "XSAVE", 1 },
	{ KVM_CAP_XCRS, "XCRS", 1 },
	{ KVM_CAP_USER_NMI, "USER_NMI", 1 },
	{ KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", 1 },
	{ KVM_CAP_CHECK_EXTENSION_VM, "CHECK_EXTENSION_VM", 1 },
	{ KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", 1 },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER", 1 },
};

static struct kvm_cpuid2 *cpuid_get(int fd, uint32_t nent)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + MAX_ENTRIES *
					  sizeof(struct kvm_cpuid_entry2));

	cpuid->nent = nent;
	if (ioctl(fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		cpuid->padding = errno;
	return cpuid;
}

static void version(void)
{
	int fd = node_open(O_RDWR);

	CHECK_EQ(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	CHECK_ERRNO(ioctl(fd, KVM_GET_API_VERSION, 1), EINVAL);
	close(fd);
}

static void extensions(void)
{
	struct vm *vm = vm_create_bare();
	int system, own;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		system = ioctl(vm->node, KVM_CHECK_EXTENSION, caps[i].cap);
		own = ioctl(vm->fd, KVM_CHECK_EXTENSION, caps[i].cap);
		CHECK(system >= caps[i].least, "KVM_CAP_%s: %d on the node", caps[i].name, system);
		CHECK(own >= caps[i].least, "KVM_CAP_%s: %d on the VM", caps[i].name, own);
	}
	CHECK_EQ(ioctl(vm->node, KVM_CHECK_EXTENSION, CAP_UNKNOWN), 0);
	CHECK_EQ(ioctl(vm->fd, KVM_CHECK_EXTENSION, CAP_UNKNOWN), 0);
	CHECK_EQ(ioctl(vm->node, KVM_CHECK_EXTENSION, -1l), 0);
	vm_destroy(vm);
}

static void mmap_size(void)
{
	int fd = node_open(O_RDWR);
	int size = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	CHECK(size >= (int)sizeof(struct kvm_run) && size % PAGE_SIZE == 0,
	      "KVM_GET_VCPU_MMAP_SIZE: %d", size);
	CHECK_ERRNO(ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 1), EINVAL);
	close(fd);
}

static void read_only_open(void)
{
	struct kvm_cpuid2 *cpuid;
	int fd = node_open(O_RDONLY);
	int vm, vcpu;

	CHECK_EQ(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	cpuid = cpuid_get(fd, MAX_ENTRIES);
	CHECK(!cpuid->padding, "KVM_GET_SUPPORTED_CPUID: errno %u", cpuid->padding);
	free(cpuid);
	vm = ioctl(fd, KVM_CREATE_VM, 0);
	CHECK(vm >= 0, "KVM_CREATE_VM: errno %d", errno);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(vcpu >= 0, "KVM_CREATE_VCPU: errno %d", errno);
	close(vcpu);
	close(vm);
	close(fd);
}

static void unknown_ioctl(int fd, const char *whose)
{
	static const unsigned long numbers[] = {
		IOCTL_UNKNOWN, IOCTL_UNKNOWN_RW, IOCTL_FOREIGN, 0, ~0u,
	};
	uint64_t arg = 0;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		r = ioctl(fd, numbers[i], &arg);
		CHECK(r == -1 && (errno == ENOTTY || errno == EINVAL),
		      "ioctl %#lx on the %s: %d, errno %d", numbers[i], whose, r, errno);
	}
}

static void unknown(void)
{
	struct vm *vm = vm_create_bare();
	struct vcpu *vcpu = vcpu_create(vm, 0);
	int r;

	unknown_ioctl(vm->node, "node");
	unknown_ioctl(vm->fd, "VM");
	unknown_ioctl(vcpu->fd, "vCPU");
	/* Each on an object that it is not for. */
	r = ioctl(vm->node, KVM_RUN, 0);
	CHECK(r == -1 && (errno == ENOTTY || errno == EINVAL), "KVM_RUN of the node: %d", r);
	r = ioctl(vm->fd, KVM_RUN, 0);
	CHECK(r == -1 && (errno == ENOTTY || errno == EINVAL), "KVM_RUN of the VM: %d", r);
	r = ioctl(vcpu->fd, KVM_CREATE_VM, 0);
	CHECK(r == -1 && (errno == ENOTTY || errno == EINVAL), "KVM_CREATE_VM of a vCPU: %d", r);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void vm_types(void)
{
	static const unsigned long types[] = { 0xdead, 0x80, ~0ul };
	int fd = node_open(O_RDWR);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		CHECK_ERRNO(ioctl(fd, KVM_CREATE_VM, types[i]), EINVAL);
	close(fd);
}

static void vm_descriptor(void)
{
	struct vm *vm = vm_create_bare();
	struct vcpu *vcpu = vcpu_create(vm, 0);

	CHECK_EQ(fcntl(vm->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(fcntl(vcpu->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	/* The vCPU keeps its VM; kvm_run's mapping keeps the vCPU. */
	close(vm->fd);
	CHECK_EQ(ioctl(vcpu->fd, KVM_GET_REGS, &(struct kvm_regs){ 0 }), 0);
	close(vcpu->fd);
	vcpu->run->immediate_exit = 1;
	CHECK_EQ(vcpu->run->immediate_exit, 1);
	munmap(vcpu->run, vcpu->run_size);
	free(vcpu);
	vm->fd = -1;
	vm_destroy(vm);
}

static void supported_cpuid(void)
{
	int fd = node_open(O_RDWR);
	struct kvm_cpuid2 *all = cpuid_get(fd, MAX_ENTRIES), *again, *small;
	uint32_t n = all->nent;

	if (!CHECK(!all->padding && n > 4 && n <= MAX_ENTRIES, "errno %u, %u entries", all->padding,
		   n))
		return;
	again = cpuid_get(fd, MAX_ENTRIES);
	CHECK(again->nent == n &&
		      !memcmp(again->entries, all->entries, n * sizeof(all->entries[0])),
	      "a second KVM_GET_SUPPORTED_CPUID differs: %u and %u entries", n, again->nent);
	free(again);
	small = cpuid_get(fd, 0);
	CHECK_EQ(small->padding, E2BIG);
	free(small);
	small = cpuid_get(fd, 1);
	CHECK_EQ(small->padding, E2BIG);
	free(small);
	small = cpuid_get(fd, n - 1);
	CHECK_EQ(small->padding, E2BIG);
	free(small);
	/* Exactly enough. */
	small = cpuid_get(fd, n);
	CHECK(!small->padding && small->nent == n, "nent %u: errno %u, %u entries", n,
	      small->padding, small->nent);
	free(small);
	CHECK_ERRNO(ioctl(fd, KVM_GET_SUPPORTED_CPUID, 8), EFAULT);
	free(all);
	close(fd);
}

/* Doubling from 1, as QEMU and libvirt do, ends. */
static void supported_cpuid_doubling(void)
{
	int fd = node_open(O_RDWR);
	struct kvm_cpuid2 *cpuid;
	uint32_t nent = 1, error;

	do {
		cpuid = cpuid_get(fd, nent);
		error = cpuid->padding;
		nent *= 2;
		free(cpuid);
	} while (error == E2BIG && nent <= MAX_ENTRIES);
	CHECK_EQ(error, 0);
	close(fd);
}

static void supported_cpuid_leaves(void)
{
	static const char kvm[] = "KVMKVMKVM\0\0";
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct kvm_cpuid_entry2 *e = vm_cpuid(vm, 0, 0);

	CHECK(e && e->eax >= 1, "leaf 0 names %u leaves", e ? e->eax : 0);
	e = vm_cpuid(vm, 1, 0);
	CHECK(e && e->edx & 1u << 0 && e->edx & 1u << 5 && e->edx & 1u << 6,
	      "leaf 1 has no FPU, MSR or PAE");
	CHECK(e && e->ecx & 1u << 21, "leaf 1 has no x2APIC");
	e = vm_cpuid(vm, 0x80000001, 0);
	CHECK(e && e->edx & 1u << 29, "leaf 0x80000001 has no long mode");
	e = vm_cpuid(vm, 0x80000008, 0);
	CHECK(e && (e->eax & 0xff) >= 36, "physical addresses of %u bits", e ? e->eax & 0xff : 0);
	e = vm_cpuid(vm, 0x40000000, 0);
	CHECK(e && !memcmp(&e->ebx, kvm, 4) && !memcmp(&e->ecx, kvm + 4, 4) &&
	      !memcmp(&e->edx, kvm + 8, 4), "leaf 0x40000000 is not KVM's");
	e = vm_cpuid(vm, 0x40000001, 0);
	CHECK(e && e->eax & 1u << 3, "leaf 0x40000001 has no CLOCKSOURCE2");
	vm_destroy(vm);
}

static void msr_index_list(void)
{
	static const uint32_t wanted[] = {
		0x174, 0x175, 0x176, 0x10, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
		0xc0000102, 0x4b564d00, 0x4b564d01,
	};
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_ENTRIES * sizeof(uint32_t));
	int fd = node_open(O_RDWR);
	uint32_t n, i, j;

	CHECK_ERRNO(ioctl(fd, KVM_GET_MSR_INDEX_LIST, list), E2BIG);
	n = list->nmsrs;
	if (!CHECK(n > 0 && n <= MAX_ENTRIES, "nmsrs after E2BIG: %u", n))
		return;
	list->nmsrs = n - 1;
	CHECK_ERRNO(ioctl(fd, KVM_GET_MSR_INDEX_LIST, list), E2BIG);
	CHECK_EQ(list->nmsrs, n);
	CHECK_CALL(ioctl(fd, KVM_GET_MSR_INDEX_LIST, list));
	CHECK_EQ(list->nmsrs, n);
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		for (j = 0; j < n && list->indices[j] != wanted[i]; j++)
			;
		CHECK(j < n, "MSR %#x is not in the list", wanted[i]);
	}
	for (i = 0; i < n; i++)
		for (j = 0; j < i; j++)
			CHECK(list->indices[i] != list->indices[j], "MSR %#x is there twice",
			      list->indices[i]);
	CHECK_ERRNO(ioctl(fd, KVM_GET_MSR_INDEX_LIST, 8), EFAULT);
	free(list);
	close(fd);
}

static const struct tap_case cases[] = {
	{ "version", version },
	{ "extensions", extensions },
	{ "mmap_size", mmap_size },
	{ "read_only_open", read_only_open },
	{ "unknown_ioctls", unknown },
	{ "vm_types", vm_types },
	{ "descriptors", vm_descriptor },
	{ "supported_cpuid", supported_cpuid },
	{ "supported_cpuid_doubling", supported_cpuid_doubling },
	{ "supported_cpuid_leaves", supported_cpuid_leaves },
	{ "msr_index_list", msr_index_list },
};

TAP_MAIN(cases)
