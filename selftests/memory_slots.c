// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * KVM_SET_USER_MEMORY_REGION: which slots are taken, and what the guest then finds there.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "guest.h"

#define SLOT_GPA	0xc0000000ul	/* below GUEST_MMIO: nothing, until a test adds a slot */
#define SLOT_SIZE	MIB(2)

static void *host_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		tap_bail("mmap: %s", strerror(errno));
	return p;
}

/*
 * Reads and writes the address that it is given, for ever; the host answers by memory or by MMIO.
 */
static void touch_payload(volatile uint64_t *p)
{
	for (;;) {
		guest_sync(*p);
		*p = 0x1122334455667788;
		guest_sync(*p);
	}
}

static void poke_payload(volatile uint32_t *p)
{
	*p = 0xcafe;
	guest_sync(*p);
	guest_done();
}

static void arguments(void)
{
	struct vm *vm = vm_create_bare();
	uint8_t *host = host_pages(4 * SLOT_SIZE);

	CHECK_ERRNO(vm_slot(vm, 0, 1, PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE + 1, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, 1, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, host + 1, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, host + 512, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, host, 1u << 16), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, host, ~0u), EINVAL);
	/* Wrapping, in guest and in host addresses. */
	CHECK_ERRNO(vm_slot(vm, 0, -PAGE_SIZE, 2 * PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, -PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, PAGE_SIZE, -PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, (void *)-PAGE_SIZE, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 0, 0, PAGE_SIZE, (void *)(1ul << 63), 0), EINVAL);
	/* Slot numbers; the upper half names an address space. */
	CHECK_ERRNO(vm_slot(vm, 0xffff, 0, PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 77 << 16, 0, PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, node_has(KVM_CAP_NR_MEMSLOTS) + 4, 0, PAGE_SIZE, host, 0), EINVAL);
	/* Nothing is there to delete. */
	CHECK_ERRNO(vm_slot(vm, 3, 0, 0, host, 0), EINVAL);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, 8), EFAULT);
	CHECK_ERRNO(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, NULL), EFAULT);
	munmap(host, 4 * SLOT_SIZE);
	vm_destroy(vm);
}

static void overlaps(void)
{
	struct vm *vm = vm_create_bare();
	uint8_t *host = host_pages(8 * PAGE_SIZE);

	CHECK_CALL(vm_slot(vm, 0, MIB(1), 4 * PAGE_SIZE, host, 0));
	CHECK_ERRNO(vm_slot(vm, 1, MIB(1), 4 * PAGE_SIZE, host, 0), EEXIST);
	CHECK_ERRNO(vm_slot(vm, 1, MIB(1) + 3 * PAGE_SIZE, PAGE_SIZE, host, 0), EEXIST);
	CHECK_ERRNO(vm_slot(vm, 1, MIB(1) - PAGE_SIZE, 2 * PAGE_SIZE, host, 0), EEXIST);
	CHECK_ERRNO(vm_slot(vm, 1, MIB(1) - PAGE_SIZE, 8 * PAGE_SIZE, host, 0), EEXIST);
	/* Neighbours are none, and host memory may be there twice. */
	CHECK_CALL(vm_slot(vm, 1, MIB(1) - PAGE_SIZE, PAGE_SIZE, host, 0));
	CHECK_CALL(vm_slot(vm, 2, MIB(1) + 4 * PAGE_SIZE, 4 * PAGE_SIZE, host, 0));
	/* A move onto another, a move that overlaps only itself, the same again. */
	CHECK_ERRNO(vm_slot(vm, 0, MIB(1) + 4 * PAGE_SIZE, 4 * PAGE_SIZE, host, 0), EEXIST);
	CHECK_CALL(vm_slot(vm, 2, MIB(1) + 5 * PAGE_SIZE, 4 * PAGE_SIZE, host, 0));
	CHECK_CALL(vm_slot(vm, 2, MIB(1) + 5 * PAGE_SIZE, 4 * PAGE_SIZE, host, 0));
	/* An existing slot keeps its size, its host memory and its read-only flag. */
	CHECK_ERRNO(vm_slot(vm, 2, MIB(1) + 5 * PAGE_SIZE, 3 * PAGE_SIZE, host, 0), EINVAL);
	CHECK_ERRNO(vm_slot(vm, 2, MIB(1) + 5 * PAGE_SIZE, 4 * PAGE_SIZE, host + PAGE_SIZE, 0),
		    EINVAL);
	CHECK_ERRNO(vm_slot(vm, 2, MIB(1) + 5 * PAGE_SIZE, 4 * PAGE_SIZE, host, KVM_MEM_READONLY),
		    EINVAL);
	/* After its deletion all of it is free. */
	CHECK_CALL(vm_slot(vm, 0, 0, 0, NULL, 0));
	CHECK_ERRNO(vm_slot(vm, 0, 0, 0, NULL, 0), EINVAL);
	CHECK_CALL(vm_slot(vm, 7, MIB(1), 4 * PAGE_SIZE, host, 0));
	munmap(host, 8 * PAGE_SIZE);
	vm_destroy(vm);
}

static void many(void)
{
	int n = node_has(KVM_CAP_NR_MEMSLOTS), i;
	struct vm *vm = vm_create_bare();
	uint8_t *host = host_pages(PAGE_SIZE);

	if (n > 509)
		n = 509;
	for (i = 0; i < n; i++)
		if (!CHECK_CALL(vm_slot(vm, i, (uint64_t)i * 2 * PAGE_SIZE, PAGE_SIZE, host, 0)))
			break;
	CHECK_ERRNO(vm_slot(vm, n, (n - 1) * 2 * PAGE_SIZE, PAGE_SIZE, host, 0), EEXIST);
	for (i = 0; i < n; i += 2)
		CHECK_CALL(vm_slot(vm, i, 0, 0, NULL, 0));
	munmap(host, PAGE_SIZE);
	vm_destroy(vm);
}

/* The guest reads through MMIO, then through a slot, a moved slot, and MMIO again. */
static void add_move_delete(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	uint64_t *host = host_pages(SLOT_SIZE);

	host[0] = 0xaaaa;
	vcpu_set_long(vcpu, touch_payload, SLOT_GPA);
	if (!vcpu_exit(vcpu, KVM_EXIT_MMIO))
		return;
	CHECK_EQ(vcpu->run->mmio.phys_addr, SLOT_GPA);
	CHECK_EQ(vcpu->run->mmio.len, 8);
	CHECK_EQ(vcpu->run->mmio.is_write, 0);
	memset(vcpu->run->mmio.data, 0x5a, 8);
	vcpu_sync(vcpu, 0x5a5a5a5a5a5a5a5a);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	vcpu_sync(vcpu, 0x1122334455667788);
	CHECK_EQ(host[0], 0x1122334455667788);
	host[0] = 0xbbbb;
	vcpu_sync(vcpu, 0xbbbb);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA + SLOT_SIZE, SLOT_SIZE, host, 0));
	host[0] = 0;
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	CHECK_EQ(vcpu->run->mmio.is_write, 1);
	CHECK_EQ(host[0], 0);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	host[0] = 0xcccc;
	vcpu_sync(vcpu, 0xcccc);
	vcpu_sync(vcpu, 0xcccc);
	CHECK_CALL(vm_slot(vm, 1, 0, 0, NULL, 0));
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	CHECK_EQ(vcpu->run->mmio.is_write, 1);
	munmap(host, SLOT_SIZE);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void read_only(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	uint64_t *host = host_pages(SLOT_SIZE);

	host[0] = 0xdddd;
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, KVM_MEM_READONLY));
	vcpu_set_long(vcpu, touch_payload, SLOT_GPA);
	vcpu_sync(vcpu, 0xdddd);
	if (vcpu_exit(vcpu, KVM_EXIT_MMIO)) {
		CHECK_EQ(vcpu->run->mmio.phys_addr, SLOT_GPA);
		CHECK_EQ(vcpu->run->mmio.is_write, 1);
		CHECK_EQ(vcpu->run->mmio.len, 8);
		CHECK_EQ(*(uint64_t *)vcpu->run->mmio.data, 0x1122334455667788);
	}
	CHECK_EQ(host[0], 0xdddd);
	vcpu_sync(vcpu, 0xdddd);
	munmap(host, SLOT_SIZE);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* A slot may be made read-only from its start over host memory that itself cannot be written. */
static void read_only_host(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	uint64_t *host = host_pages(SLOT_SIZE);

	host[0] = 0xeeee;
	mprotect(host, SLOT_SIZE, PROT_READ);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, KVM_MEM_READONLY));
	vcpu_set_long(vcpu, touch_payload, SLOT_GPA);
	vcpu_sync(vcpu, 0xeeee);
	vcpu_exit(vcpu, KVM_EXIT_MMIO);
	vcpu_sync(vcpu, 0xeeee);
	munmap(host, SLOT_SIZE);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void check_efault(struct vcpu *vcpu, const char *when)
{
	struct report report = vcpu_wait(vcpu);

	if (report.kind != REPORT_ERROR || report.error != EFAULT) {
		tap_note("%s:", when);
		vcpu_explain(vcpu, &report, "EFAULT from KVM_RUN");
	}
}

/* The slot is taken; the guest's touch is what fails, and can be tried again. */
static void unmapped(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	uint64_t *host = host_pages(SLOT_SIZE);

	munmap(host, SLOT_SIZE);
	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, SLOT_SIZE, host, 0));
	vcpu_set_long(vcpu, poke_payload, SLOT_GPA);
	check_efault(vcpu, "unmapped");
	check_efault(vcpu, "still unmapped");
	if (mmap(host, SLOT_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	    host)
		tap_bail("mmap: %s", strerror(errno));
	check_efault(vcpu, "PROT_NONE");
	mprotect(host, SLOT_SIZE, PROT_READ);
	check_efault(vcpu, "written, PROT_READ");
	mprotect(host, SLOT_SIZE, PROT_READ | PROT_WRITE);
	vcpu_sync(vcpu, 0xcafe);
	CHECK_EQ(*(uint32_t *)host, 0xcafe);
	munmap(host, SLOT_SIZE);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* The last gigabyte that the CPU can address, one page there; and one beyond. */
static void high(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct kvm_cpuid_entry2 *e = vm_cpuid(vm, 0x80000008, 0);
	struct vcpu *vcpu = vcpu_create(vm, 0);
	uint64_t *host = host_pages(PAGE_SIZE);
	uint64_t top = 1ull << (e ? e->eax & 0xff : 36);
	uint64_t gpa = top - PAGE_SIZE;

	host[0] = 0xf00d;
	CHECK_CALL(vm_slot(vm, 1, gpa, PAGE_SIZE, host, 0));
	vm_map_page(vm, SLOT_GPA, gpa, 3);
	vcpu_set_long(vcpu, touch_payload, SLOT_GPA);
	vcpu_sync(vcpu, 0xf00d);
	vcpu_sync(vcpu, 0x1122334455667788);
	CHECK_EQ(host[0], 0x1122334455667788);
	munmap(host, PAGE_SIZE);
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* A page that nobody gives: whoever touches it waits until it is filled. */
static int page_withhold(void *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)page, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		tap_bail("userfaultfd: %s", strerror(errno));
	return fd;
}

static void page_give(int fd, void *page)
{
	struct uffdio_zeropage zero = {
		.range = { .start = (unsigned long)page, .len = PAGE_SIZE },
	};

	CHECK_CALL(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	close(fd);
}

static volatile uint64_t turns;

static void write_payload(volatile uint64_t *p)
{
	for (;;) {
		++*p;
		turns++;
	}
}

static void *run_once(void *arg)
{
	ioctl(((struct vcpu *)arg)->fd, KVM_RUN, 0);
	return NULL;
}

static void *slot_delete(void *arg)
{
	CHECK_CALL(vm_slot(arg, 1, SLOT_GPA, 0, NULL, 0));
	return NULL;
}

/*
 * A slot that is being deleted, for as long as another vCPU's fault takes, is yet mapped. Memory that
 * the owner gives back meanwhile must not stay with the guest, or it writes to what is others'.
 */
static void freed_while_deleted(void)
{
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *writer = vcpu_create(vm, 0), *waiter = vcpu_create(vm, 1);
	uint8_t *host = host_pages(2 * PAGE_SIZE);
	int fd = page_withhold(host + PAGE_SIZE);
	pthread_t threads[3];
	uint64_t before;
	int i;

	CHECK_CALL(vm_slot(vm, 1, SLOT_GPA, 2 * PAGE_SIZE, host, 0));
	vcpu_set_long(writer, write_payload, SLOT_GPA);
	vcpu_set_long(waiter, touch_payload, SLOT_GPA + PAGE_SIZE);
	pthread_create(&threads[0], NULL, run_once, writer);
	pthread_create(&threads[1], NULL, run_once, waiter);
	CHECK_EQ(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 10000), 1);
	for (i = 0; i < 1000 && !*GUEST_VAR(vm, turns); i++)
		usleep(10000);
	pthread_create(&threads[2], NULL, slot_delete, vm);
	usleep(200000);
	madvise(host, PAGE_SIZE, MADV_DONTNEED);
	before = *GUEST_VAR(vm, turns);
	CHECK(before, "the guest never wrote");
	usleep(100000);
	CHECK_EQ(*GUEST_VAR(vm, turns), before);
	page_give(fd, host + PAGE_SIZE);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(*(uint64_t *)host, 0);
	vcpu_destroy(waiter);
	vcpu_destroy(writer);
	vm_destroy(vm);
}

static const struct tap_case cases[] = {
	{ "arguments", arguments },
	{ "overlaps", overlaps },
	{ "many", many },
	{ "add_move_delete", add_move_delete },
	{ "read_only", read_only },
	{ "read_only_host", read_only_host },
	{ "unmapped_host_memory", unmapped },
	{ "highest_address", high },
	{ "freed_while_deleted", freed_while_deleted },
};

TAP_MAIN(cases)
