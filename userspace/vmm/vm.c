// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The node and the VM on it.
 *
 * Interrupt controllers are "split": the local APICs are the kernel's, since every interrupt and
 * timer passes them; the IOAPIC, which a modern guest uses for its serial port and little else, is
 * ours (ioapic.c), so that ring 0 need not hold one for us.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/cpuid.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/vm.h"

#define VM_CPUID_FIRST	64
#define VM_CPUID_MAX	4096


static const struct {
	int cap;
	const char *name;
} vm_needs[] = {
	{ KVM_CAP_USER_MEMORY,		"KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_EXT_CPUID,		"KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_SPLIT_IRQCHIP,	"KVM_CAP_SPLIT_IRQCHIP" },
	{ KVM_CAP_IRQ_ROUTING,		"KVM_CAP_IRQ_ROUTING" },
	{ KVM_CAP_SIGNAL_MSI,		"KVM_CAP_SIGNAL_MSI" },
	{ KVM_CAP_IMMEDIATE_EXIT,	"KVM_CAP_IMMEDIATE_EXIT" },
};

static int vm_check(struct vm *vm, const char *node, int cap)
{
	int value = ioctl(vm->node, KVM_CHECK_EXTENSION, cap);

	if (value < 0)
		log_error("%s: KVM_CHECK_EXTENSION: %s", node, strerror(errno));
	return value < 0 ? 0 : value;
}

static int vm_check_node(struct vm *vm, const char *node)
{
	int version = ioctl(vm->node, KVM_GET_API_VERSION, 0);
	int cpus, size;

	if (version != KVM_API_VERSION) {
		log_error("%s does not speak KVM's ABI; name another node by --device", node);
		return -ENOTTY;
	}
	for (size_t i = 0; i < ARRAY_SIZE(vm_needs); i++)
		if (!vm_check(vm, node, vm_needs[i].cap)) {
			log_error("%s lacks %s; name another node by --device", node,
				  vm_needs[i].name);
			return -ENOTSUP;
		}
	size = ioctl(vm->node, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run)) {
		log_error("%s: KVM_GET_VCPU_MMAP_SIZE: %s", node,
			  size < 0 ? strerror(errno) : "too small");
		return -EINVAL;
	}
	vm->run_size = size;
	cpus = vm_check(vm, node, KVM_CAP_MAX_VCPUS);
	vm->cpus_max = cpus ? cpus : 4;		/* as the ABI says for an old node */
	vm->tsc_deadline = vm_check(vm, node, KVM_CAP_TSC_DEADLINE_TIMER);
	return 0;
}

/* The node says E2BIG until the table has room for all that it knows. */
static int vm_get_cpuid(struct vm *vm, const char *node)
{
	for (unsigned int room = VM_CPUID_FIRST; room <= VM_CPUID_MAX; room *= 2) {
		struct kvm_cpuid2 *cpuid;

		cpuid = calloc(1, sizeof(*cpuid) +
			       (room + CPUID_EXTRA) * sizeof(cpuid->entries[0]));
		if (!cpuid)
			return -ENOMEM;
		cpuid->nent = room;
		if (!ioctl(vm->node, KVM_GET_SUPPORTED_CPUID, cpuid)) {
			cpuid_complete(cpuid);
			vm->cpuid = cpuid;
			return 0;
		}
		free(cpuid);
		if (errno != E2BIG)
			break;
	}
	log_error("%s: KVM_GET_SUPPORTED_CPUID: %s", node, strerror(errno));
	return -EIO;
}

static int vm_create(struct vm *vm, const char *node)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { LAYOUT_PINS } };

	vm->fd = ioctl(vm->node, KVM_CREATE_VM, 0);
	if (vm->fd < 0) {
		log_error("%s: KVM_CREATE_VM: %s", node, strerror(errno));
		return -EIO;
	}
	if (vm_check(vm, node, KVM_CAP_SET_TSS_ADDR) &&
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, LAYOUT_TSS)) {
		log_error("%s: KVM_SET_TSS_ADDR: %s", node, strerror(errno));
		return -EIO;
	}
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &split)) {
		log_error("%s: KVM_CAP_SPLIT_IRQCHIP: %s", node, strerror(errno));
		return -EIO;
	}
	return 0;
}

int vm_init(struct vm *vm, const char *node)
{
	int err;

	*vm = (struct vm){ .node = -1, .fd = -1 };
	pthread_mutex_init(&vm->lock, NULL);
	vm->routing = calloc(1, sizeof(*vm->routing) +
			     VM_GSIS * sizeof(vm->routing->entries[0]));
	if (!vm->routing)
		return -ENOMEM;
	vm->node = fd_open(node, O_RDWR);
	if (vm->node < 0) {
		err = vm->node;
		log_error("cannot open %s: %s; load moat.ko, or name another node by --device",
			  node, strerror(-err));
	} else {
		err = vm_check_node(vm, node);
	}
	if (!err)
		err = vm_get_cpuid(vm, node);
	if (!err)
		err = vm_create(vm, node);
	if (err)
		vm_finish(vm);
	return err;
}

int vm_set_memory(struct vm *vm, const struct memory *memory)
{
	for (unsigned int i = 0; i < memory->map.count; i++) {
		const struct dev_region *region = &memory->map.region[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = region->gpa,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->hva,
		};

		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot)) {
			int err = -errno;

			log_error("KVM_SET_USER_MEMORY_REGION at %#llx: %s",
				  (unsigned long long)region->gpa, strerror(-err));
			return err;
		}
	}
	return 0;
}

void vm_finish(struct vm *vm)
{
	free(vm->cpuid);
	free(vm->routing);
	vm->cpuid = NULL;
	vm->routing = NULL;
	fd_close(vm->fd);
	fd_close(vm->node);
	vm->fd = -1;
	vm->node = -1;
}

void vm_signal_msi(struct vm *vm, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = address,
		.address_hi = address >> 32,
		.data = data,
	};

	ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

int vm_alloc_gsi(struct vm *vm)
{
	int gsi = -ENOSPC;

	pthread_mutex_lock(&vm->lock);
	for (unsigned int i = LAYOUT_PINS; i < VM_GSIS && gsi < 0; i++)
		if (!vm->gsi_used[i])
			gsi = i;
	if (gsi >= 0)
		vm->gsi_used[gsi] = true;
	pthread_mutex_unlock(&vm->lock);
	return gsi;
}

void vm_free_gsi(struct vm *vm, int gsi)
{
	if (gsi < 0)
		return;
	vm_set_route(vm, gsi, 0, 0);
	pthread_mutex_lock(&vm->lock);
	vm->gsi_used[gsi] = false;
	pthread_mutex_unlock(&vm->lock);
}

/* The line's entry, else the first free one. */
static struct kvm_irq_routing_entry *vm_find_route(struct vm *vm, unsigned int gsi)
{
	struct kvm_irq_routing_entry *entry = vm->routing->entries;

	while (entry < vm->routing->entries + vm->routing->nr && entry->gsi != gsi)
		entry++;
	return entry;
}

void vm_set_route(struct vm *vm, unsigned int gsi, uint64_t address, uint32_t data)
{
	struct kvm_irq_routing_entry *entry, *end;

	pthread_mutex_lock(&vm->lock);
	entry = vm_find_route(vm, gsi);
	end = vm->routing->entries + vm->routing->nr;
	if (address) {
		*entry = (struct kvm_irq_routing_entry){
			.gsi = gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi.address_lo = address,
			.u.msi.address_hi = address >> 32,
			.u.msi.data = data,
		};
		vm->routing->nr += entry == end;
	} else if (entry < end) {
		*entry = end[-1];
		vm->routing->nr--;
	}
	if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, vm->routing))
		log_error("KVM_SET_GSI_ROUTING: %s", strerror(errno));
	pthread_mutex_unlock(&vm->lock);
}

int vm_set_irqfd(struct vm *vm, int fd, unsigned int gsi, bool attach)
{
	struct kvm_irqfd irqfd = {
		.fd = fd, .gsi = gsi, .flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return ioctl(vm->fd, KVM_IRQFD, &irqfd) ? -errno : 0;
}

int vm_set_ioeventfd(struct vm *vm, uint64_t address, int fd, bool attach)
{
	struct kvm_ioeventfd ioeventfd = {
		.addr = address, .len = 2, .fd = fd,
		.flags = attach ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	return ioctl(vm->fd, KVM_IOEVENTFD, &ioeventfd) ? -errno : 0;
}
