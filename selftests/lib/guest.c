// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * VMs and vCPUs through raw ioctls, and the loop that takes a payload's reports.
 *
 * What a test cannot do without ends the program (tap_bail): no node, no VM, no vCPU. What it is
 * about is returned. Each wait has a deadline: a timer of the calling thread sends that thread a
 * signal, whose handler sets immediate_exit of the vCPU that it runs, so that no KVM_RUN entered
 * too late is missed.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "guest.h"

#define MSR_EFER	0xc0000080u
#define EFER_LONG	0xd01		/* SCE, LME, LMA, NXE */
#define CR0_PROTECTED	0x31		/* PE, ET, NE */
#define CR0_LONG	0x80010033ul	/* PG, WP, NE, ET, MP, PE */
#define CR4_LONG	0x620		/* PAE, OSFXSR, OSXMMEXCPT */
#define PTE_TABLE	0x7		/* present, writable, user */
#define PTE_LARGE	0x83		/* present, writable, 2 MiB */
#define CPUID_ENTRIES	256

unsigned int vcpu_deadline_ms = 8000;
bool vcpu_astray;

extern char __executable_start[], _end[];

static __thread struct kvm_run *volatile running;
static __thread volatile bool kicked;
static __thread timer_t thread_timer;
static __thread bool thread_has_timer;

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* ---- The node ---- */

const char *node_path(void)
{
	const char *path = getenv("MOAT_DEVICE");

	return path && *path ? path : "/dev/moat";
}

bool node_is_moat(void)
{
	return !strcmp(node_path(), "/dev/moat");
}

int node_open(int flags)
{
	int fd = open(node_path(), flags | O_CLOEXEC);

	if (fd < 0)
		tap_bail("%s: %s", node_path(), strerror(errno));
	return fd;
}

int node_has(int cap)
{
	int fd = node_open(O_RDWR);
	int r = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	close(fd);
	return r < 0 ? 0 : r;
}

/* ---- Deadlines ---- */

static void kick(int sig)
{
	(void)sig;
	kicked = true;
	if (running)
		running->immediate_exit = 1;
}

static void timer_prepare(void)
{
	struct sigaction act = { .sa_handler = kick };
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGRTMIN + 1,
	};

	sigaction(SIGRTMIN + 1, &act, NULL);
	event._sigev_un._tid = syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &thread_timer))
		tap_bail("timer_create: %s", strerror(errno));
	thread_has_timer = true;
}

static void deadline_set(struct kvm_run *run, unsigned int ms)
{
	/* Repeated, for a test whose own signal mask or handler swallows the first. */
	struct itimerspec when = {
		.it_value = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l },
		.it_interval.tv_sec = ms ? 1 : 0,
	};

	if (!thread_has_timer)
		timer_prepare();
	kicked = false;
	running = run;
	timer_settime(thread_timer, 0, &when, NULL);
}

static void deadline_clear(void)
{
	if (running && kicked)
		running->immediate_exit = 0;
	running = NULL;
	deadline_set(NULL, 0);
}

/* ---- VMs ---- */

struct vm *vm_create_bare(void)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		tap_bail("out of memory");
	vm->node = node_open(O_RDWR);
	vm->fd = ioctl(vm->node, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		tap_bail("KVM_CREATE_VM: %s", strerror(errno));
	return vm;
}

int vm_slot(struct vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, void *host, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

void vm_copy(struct vm *vm, uint64_t gpa, const void *from, size_t size)
{
	if (gpa > vm->ram_size || size > vm->ram_size - gpa)
		tap_bail("%zu bytes at %#llx are outside of the guest's memory", size,
			 (unsigned long long)gpa);
	memcpy(vm->ram + gpa, from, size);
}

static uint64_t *vm_table(struct vm *vm, unsigned int n)
{
	return (uint64_t *)(vm->ram + GUEST_TABLES + n * PAGE_SIZE);
}

/* One PML4, one PDPT, four page directories; page tables come after those, from table 8. */
static void vm_page_tables(struct vm *vm)
{
	unsigned int i;

	vm_table(vm, 0)[0] = (GUEST_TABLES + PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < 4; i++)
		vm_table(vm, 1)[i] = (GUEST_TABLES + (2 + i) * PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < 4 * 512; i++)
		vm_table(vm, 2)[i] = ((uint64_t)i << 21) | PTE_LARGE;
}

/* The page table of a 2 MiB region, made on first use; its number is kept in the entry. */
static uint64_t *vm_split_region(struct vm *vm, uint64_t va)
{
	uint64_t *dir = &vm_table(vm, 2)[va >> 21];
	unsigned int n, i;

	if (!(*dir & 0x80))
		return (uint64_t *)(vm->ram + (*dir & ~0xffful));
	for (n = 8; vm_table(vm, n)[0]; n++)
		;
	for (i = 0; i < 512; i++)
		vm_table(vm, n)[i] = ((va & ~(MIB(2) - 1)) + i * PAGE_SIZE) | 3;
	*dir = (GUEST_TABLES + n * PAGE_SIZE) | PTE_TABLE;
	return vm_table(vm, n);
}

void vm_map_page(struct vm *vm, uint64_t va, uint64_t pa, uint64_t flags)
{
	vm_split_region(vm, va)[(va >> 12) & 511] = pa | flags;
}

static void vm_descriptors(struct vm *vm)
{
	static const uint64_t gdt[] = {
		0,
		0x00af9b000000ffff,	/* 64-bit code */
		0x00cf93000000ffff,	/* data */
		0x00cf9b000000ffff,	/* 32-bit code */
		0x00008b0000000067 | GUEST_TSS << 16, 0,	/* TSS */
		0x00009b000000ffff,	/* 16-bit code */
		0x000093000000ffff,	/* 16-bit data */
	};
	uint64_t *idt = (uint64_t *)(vm->ram + GUEST_IDT);
	uint64_t stub;
	unsigned int i;

	memcpy(vm->ram + GUEST_GDT, gdt, sizeof(gdt));
	for (i = 0; i < 256; i++) {
		stub = (uintptr_t)guest_stubs + 16 * i;
		idt[2 * i] = (stub & 0xffff) | GUEST_CS64 << 16 | 0x8eull << 40 |
			     (stub >> 16 & 0xffff) << 48;
		idt[2 * i + 1] = stub >> 32;
	}
}

static void vm_load(struct vm *vm)
{
	uintptr_t start = (uintptr_t)__executable_start, end = (uintptr_t)_end;

	if (start < MIB(4) || end > GUEST_FREE)
		tap_bail("the program is linked at %#lx-%#lx, not between 4 and 8 MiB", start, end);
	vm_descriptors(vm);
	vm_page_tables(vm);
	vm_copy(vm, start, (void *)start, end - start);
}

static void vm_cpuid_read(struct vm *vm)
{
	size_t size = sizeof(*vm->cpuid) + CPUID_ENTRIES * sizeof(vm->cpuid->entries[0]);
	struct kvm_cpuid_entry2 *leaf;

	vm->cpuid = calloc(1, size);
	if (!vm->cpuid)
		tap_bail("out of memory");
	vm->cpuid->nent = CPUID_ENTRIES;
	if (ioctl(vm->node, KVM_GET_SUPPORTED_CPUID, vm->cpuid))
		tap_bail("KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	leaf = vm_cpuid(vm, 1, 0);
	if (vm->irqchip && leaf && ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
		leaf->ecx |= 1u << 24;
}

struct vm *vm_create(uint64_t ram_size, enum irqchip irqchip)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct vm *vm = vm_create_bare();

	vm->irqchip = irqchip;
	vm->ram_size = ram_size;
	vm->ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->ram == MAP_FAILED)
		tap_bail("mmap: %s", strerror(errno));
	if (irqchip == IRQCHIP_SPLIT && ioctl(vm->fd, KVM_ENABLE_CAP, &split))
		tap_bail("KVM_CAP_SPLIT_IRQCHIP: %s", strerror(errno));
	if (irqchip == IRQCHIP_KERNEL && ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0))
		tap_bail("KVM_CREATE_IRQCHIP: %s", strerror(errno));
	if (vm_slot(vm, 0, 0, ram_size, vm->ram, 0))
		tap_bail("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
	vm_load(vm);
	vm_cpuid_read(vm);
	return vm;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	close(vm->fd);
	close(vm->node);
	if (vm->ram)
		munmap(vm->ram, vm->ram_size);
	free(vm->cpuid);
	free(vm);
}

struct kvm_cpuid_entry2 *vm_cpuid(struct vm *vm, uint32_t leaf, uint32_t index)
{
	struct kvm_cpuid_entry2 *e;
	uint32_t i;

	for (i = 0; i < vm->cpuid->nent; i++) {
		e = &vm->cpuid->entries[i];
		if (e->function == leaf &&
		    (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	}
	return NULL;
}

/* ---- vCPUs ---- */

/* Leaves that hold the APIC id. */
static void vcpu_set_cpuid(struct vcpu *vcpu)
{
	struct kvm_cpuid_entry2 *e;
	uint32_t i;

	for (i = 0; i < vcpu->vm->cpuid->nent; i++) {
		e = &vcpu->vm->cpuid->entries[i];
		if (e->function == 1)
			e->ebx = (e->ebx & 0xffffff) | vcpu->id << 24;
		if (e->function == 0xb || e->function == 0x1f)
			e->edx = vcpu->id;
	}
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, vcpu->vm->cpuid))
		tap_bail("KVM_SET_CPUID2: %s", strerror(errno));
}

struct vcpu *vcpu_create(struct vm *vm, uint32_t id)
{
	struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
	int size = ioctl(vm->node, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (!vcpu || size < (int)sizeof(*vcpu->run))
		tap_bail("KVM_GET_VCPU_MMAP_SIZE: %d", size);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->run_size = size;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (vcpu->fd < 0)
		tap_bail("KVM_CREATE_VCPU %u: %s", id, strerror(errno));
	vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		tap_bail("mmap of kvm_run: %s", strerror(errno));
	if (vm->cpuid)
		vcpu_set_cpuid(vcpu);
	return vcpu;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	munmap(vcpu->run, vcpu->run_size);
	close(vcpu->fd);
	free(vcpu);
}

struct kvm_regs vcpu_regs(struct vcpu *vcpu)
{
	struct kvm_regs regs = { 0 };

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs))
		tap_bail("KVM_GET_REGS: %s", strerror(errno));
	return regs;
}

struct kvm_sregs vcpu_sregs(struct vcpu *vcpu)
{
	struct kvm_sregs sregs = { 0 };

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		tap_bail("KVM_GET_SREGS: %s", strerror(errno));
	return sregs;
}

static void vcpu_set(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t rip, uint64_t rsp,
		     uint64_t arg)
{
	struct kvm_regs regs = { .rip = rip, .rsp = rsp, .rdi = arg, .rflags = 2 };

	if (ioctl(vcpu->fd, KVM_SET_SREGS, sregs))
		tap_bail("KVM_SET_SREGS: %s", strerror(errno));
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		tap_bail("KVM_SET_REGS: %s", strerror(errno));
}

static struct kvm_segment segment_code(uint16_t selector, uint8_t db, uint8_t l, uint8_t g)
{
	struct kvm_segment s = {
		.selector = selector, .limit = g ? 0xffffffff : 0xffff, .type = 0xb, .present = 1,
		.s = 1, .db = db, .l = l, .g = g,
	};

	return s;
}

static struct kvm_segment segment_data(uint16_t selector, uint8_t g)
{
	struct kvm_segment s = {
		.selector = selector, .limit = g ? 0xffffffff : 0xffff, .type = 3, .present = 1,
		.s = 1, .db = g, .g = g,
	};

	return s;
}

static void sregs_segments(struct kvm_sregs *sregs, struct kvm_segment code,
			   struct kvm_segment data)
{
	sregs->cs = code;
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
}

static void sregs_tables(struct kvm_sregs *sregs, uint64_t idt, uint16_t idt_limit)
{
	struct kvm_segment tss = {
		.base = GUEST_TSS, .limit = 0x67, .selector = GUEST_TR, .type = 0xb, .present = 1,
	};

	sregs->tr = tss;
	sregs->ldt = (struct kvm_segment){ .unusable = 1 };
	sregs->gdt.base = GUEST_GDT;
	sregs->gdt.limit = 0x3f;
	sregs->idt.base = idt;
	sregs->idt.limit = idt_limit;
}

static uint64_t vcpu_stack(const struct vcpu *vcpu)
{
	return GUEST_STACKS + (vcpu->id % 100 + 1) * 0x4000;
}

void vcpu_set_long(struct vcpu *vcpu, void *entry, uint64_t arg)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs_segments(&sregs, segment_code(GUEST_CS64, 0, 1, 1), segment_data(GUEST_DS, 1));
	sregs_tables(&sregs, GUEST_IDT, 0xfff);
	sregs.cr0 = CR0_LONG;
	sregs.cr3 = GUEST_TABLES;
	sregs.cr4 = CR4_LONG;
	sregs.efer = EFER_LONG;
	/* As after a call: the ABI's alignment at a function's first instruction. */
	vcpu_set(vcpu, &sregs, (uintptr_t)entry, vcpu_stack(vcpu) - 8, arg);
}

void vcpu_set_protected(struct vcpu *vcpu, uint32_t eip)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs_segments(&sregs, segment_code(GUEST_CS32, 1, 0, 1), segment_data(GUEST_DS, 1));
	sregs_tables(&sregs, GUEST_IDT32, 0x7ff);
	sregs.cr0 = CR0_PROTECTED;
	sregs.cr4 = 0;
	sregs.efer = 0;
	vcpu_set(vcpu, &sregs, eip, vcpu_stack(vcpu), 0);
}

void vcpu_set_real(struct vcpu *vcpu, uint16_t ip)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs_segments(&sregs, segment_code(0, 0, 0, 0), segment_data(0, 0));
	sregs.cr0 = 0x10;
	sregs.cr4 = 0;
	sregs.efer = 0;
	sregs.idt.base = 0;
	sregs.idt.limit = 0x3ff;
	vcpu_set(vcpu, &sregs, ip, 0x7000, 0);
}

uint64_t vcpu_msr_get(struct vcpu *vcpu, uint32_t msr)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = { .head.nmsrs = 1, .entry.index = msr };

	if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) != 1)
		tap_check(false, __FILE__, __LINE__, "KVM_GET_MSRS of %#x", msr);
	return one.entry.data;
}

bool vcpu_msr_set(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = { .head.nmsrs = 1, .entry = { .index = msr, .data = value } };

	return ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1;
}

/* ---- Running ---- */

int vcpu_run(struct vcpu *vcpu)
{
	return ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

int vcpu_run_on(struct vcpu *vcpu)
{
	int r;

	do {
		r = vcpu_run(vcpu);
	} while (r == -EINTR);
	return r;
}

static bool exit_is_port(const struct kvm_run *run, uint16_t port)
{
	return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT &&
	       run->io.port == port;
}

static void report_trap(const struct kvm_regs *regs)
{
	tap_check(false, "guest", 0, "trap %llu, error code %#llx, rip %#llx, cr2 %#llx",
		  regs->rdi, regs->rsi, regs->rbx, regs->rcx);
}

static void report_fail(const struct kvm_regs *regs)
{
	const char *what = (const char *)(uintptr_t)regs->rdi;

	/* A pointer into this very program, unless the guest went astray. */
	if (what < __executable_start || what >= _end)
		what = "(no text)";
	tap_check(false, "guest", (int)regs->rsi, "%s: got %#llx, wanted %#llx", what, regs->rbx,
		  regs->rcx);
}

/* True where the exit was a report that ends the wait. */
static bool vcpu_take(struct vcpu *vcpu, struct report *report)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs;

	report->kind = REPORT_EXIT;
	if (vcpu_astray)
		return true;
	if (exit_is_port(run, PORT_DONE)) {
		report->kind = REPORT_DONE;
		return true;
	}
	if (exit_is_port(run, PORT_SYNC)) {
		regs = vcpu_regs(vcpu);
		report->kind = REPORT_SYNC;
		report->value = regs.rdi;
		report->value2 = regs.rsi;
		return true;
	}
	if (exit_is_port(run, PORT_FAIL)) {
		regs = vcpu_regs(vcpu);
		report_fail(&regs);
		return false;
	}
	if (exit_is_port(run, PORT_TRAP)) {
		regs = vcpu_regs(vcpu);
		report_trap(&regs);
	}
	return true;
}

struct report vcpu_wait(struct vcpu *vcpu)
{
	struct report report = { 0 };
	int r;

	deadline_set(vcpu->run, vcpu_deadline_ms);
	do {
		r = vcpu_run(vcpu);
		if (r == -EINTR && kicked) {
			report.kind = REPORT_TIMEOUT;
			break;
		}
		if (r && r != -EINTR && r != -EAGAIN) {
			report.kind = REPORT_ERROR;
			report.error = -r;
			break;
		}
	} while (r || !vcpu_take(vcpu, &report));
	deadline_clear();
	return report;
}

static void exit_describe(const struct kvm_run *run, char *text, size_t size)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		snprintf(text, size, "IO %s port %#x, %u bytes, %u times",
			 run->io.direction ? "out" : "in", run->io.port, run->io.size,
			 run->io.count);
		return;
	case KVM_EXIT_MMIO:
		snprintf(text, size, "MMIO %s at %#llx, %u bytes",
			 run->mmio.is_write ? "write" : "read", run->mmio.phys_addr, run->mmio.len);
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(text, size, "INTERNAL_ERROR %u, %#llx", run->internal.suberror,
			 run->internal.ndata ? run->internal.data[0] : 0);
		return;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(text, size, "FAIL_ENTRY %#llx",
			 run->fail_entry.hardware_entry_failure_reason);
		return;
	}
	snprintf(text, size, "%u", run->exit_reason);
}

void vcpu_explain(struct vcpu *vcpu, const struct report *report, const char *wanted)
{
	static const char *const kinds[] = {
		[REPORT_DONE] = "the payload's end", [REPORT_SYNC] = "sync",
		[REPORT_EXIT] = "exit", [REPORT_ERROR] = "error", [REPORT_TIMEOUT] = "timeout",
	};
	struct kvm_regs regs = vcpu_regs(vcpu);
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	char text[100] = "";

	if (report->kind == REPORT_EXIT)
		exit_describe(vcpu->run, text, sizeof(text));
	else if (report->kind == REPORT_ERROR)
		snprintf(text, sizeof(text), "%s", strerror(report->error));
	else if (report->kind == REPORT_SYNC)
		snprintf(text, sizeof(text), "%#llx", (unsigned long long)report->value);
	tap_check(false, "vcpu", vcpu->id,
		  "wanted %s, got %s %s; rip %#llx rsp %#llx rflags %#llx cr0 %#llx cr2 %#llx",
		  wanted, kinds[report->kind], text, regs.rip, regs.rsp, regs.rflags, sregs.cr0,
		  sregs.cr2);
}

bool vcpu_finish(struct vcpu *vcpu)
{
	struct report report = vcpu_wait(vcpu);

	if (report.kind == REPORT_DONE)
		return true;
	vcpu_explain(vcpu, &report, "the payload's end");
	return false;
}

bool vcpu_sync(struct vcpu *vcpu, uint64_t value)
{
	struct report report = vcpu_wait(vcpu);
	char wanted[40];

	if (report.kind == REPORT_SYNC && report.value == value)
		return true;
	snprintf(wanted, sizeof(wanted), "sync %#llx", (unsigned long long)value);
	vcpu_explain(vcpu, &report, wanted);
	return false;
}

bool vcpu_exit(struct vcpu *vcpu, uint32_t reason)
{
	struct report report = vcpu_wait(vcpu);
	char wanted[40];

	if (report.kind == REPORT_EXIT && vcpu->run->exit_reason == reason)
		return true;
	snprintf(wanted, sizeof(wanted), "exit %u", reason);
	vcpu_explain(vcpu, &report, wanted);
	return false;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;

	vcpu->finished = vcpu_finish(vcpu);
	timer_delete(thread_timer);
	return NULL;
}

void vcpu_spawn(struct vcpu *vcpu)
{
	if (pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu))
		tap_bail("pthread_create failed");
}

bool vcpu_join(struct vcpu *vcpu)
{
	pthread_join(vcpu->thread, NULL);
	return vcpu->finished;
}

uint64_t stat_read(int fd, const char *name)
{
	struct kvm_stats_header head;
	char desc[256], id[256];
	struct kvm_stats_desc *d = (void *)desc;
	uint64_t value = ~0ull;
	uint32_t i;

	CHECK_EQ(pread(fd, &head, sizeof(head), 0), sizeof(head));
	if (!CHECK(head.name_size && head.name_size <= 128, "names of %u", head.name_size))
		return value;
	CHECK_EQ(pread(fd, id, head.name_size, head.id_offset), head.name_size);
	CHECK(!strncmp(id, "kvm", 3), "id %.20s", id);
	for (i = 0; i < head.num_desc; i++) {
		size_t size = sizeof(*d) + head.name_size;

		CHECK_EQ(pread(fd, desc, size, head.desc_offset + i * size), size);
		if (!strcmp(desc + sizeof(*d), name))
			CHECK_EQ(pread(fd, &value, 8, head.data_offset + d->offset), 8);
	}
	return value;
}
