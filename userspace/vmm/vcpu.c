// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * vCPU threads: each enters the guest, and does what made it come out.
 *
 * Kicking has no race: whoever stops or pauses says so, sets immediate_exit, then signals. A thread that
 * is in the guest is brought out by the signal; one that is about to enter comes straight back; one that
 * has just done so clears immediate_exit, and then looks at what was said.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/thread.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/bus.h"
#include "userspace/vmm/cpuid.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/pause.h"
#include "userspace/vmm/stop.h"
#include "userspace/vmm/vcpu.h"
#include "userspace/vmm/vm.h"

#define VCPU_KICK		SIGUSR1
#define VCPU_STATUS_FAILED	1

#define MSR_MTRR_DEF_TYPE	0x2ff
#define MTRR_ENABLED		(1 << 11)
#define MTRR_WRITE_BACK		6

static int vcpu_fault(const struct vcpu *vcpu, const char *what)
{
	int err = -errno;

	log_error("CPU %u: %s: %s", vcpu->id, what, strerror(-err));
	return err;
}

static int vcpu_set_cpuid(struct vcpu *vcpu, unsigned int cpus)
{
	struct vm *vm = vcpu->world->vm;

	cpuid_adjust(vm->cpuid, vcpu->id, cpus, vm->tsc_deadline);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, vm->cpuid))
		return vcpu_fault(vcpu, "KVM_SET_CPUID2");
	return 0;
}

/* As firmware leaves it: else kernels take all memory for uncached, or PAT for unusable. */
static int vcpu_set_msrs(struct vcpu *vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[1];
	} msrs = {
		.head.nmsrs = 1,
		.entry[0] = {
			.index = MSR_MTRR_DEF_TYPE,
			.data = MTRR_ENABLED | MTRR_WRITE_BACK,
		},
	};

	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 1)
		return vcpu_fault(vcpu, "KVM_SET_MSRS of MTRRdefType");
	return 0;
}

static int vcpu_map(struct vcpu *vcpu)
{
	void *run = mmap(NULL, vcpu->world->vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vcpu->fd, 0);

	if (run == MAP_FAILED)
		return vcpu_fault(vcpu, "mapping struct kvm_run");
	vcpu->run = run;
	return 0;
}

int vcpu_init(struct vcpu *vcpu, const struct vcpu_world *world, unsigned int id,
	      unsigned int cpus)
{
	int err;

	*vcpu = (struct vcpu){ .world = world, .id = id, .stats = { .fd = -1 } };
	vcpu->fd = ioctl(world->vm->fd, KVM_CREATE_VCPU, id);
	if (vcpu->fd < 0)
		return vcpu_fault(vcpu, "KVM_CREATE_VCPU");
	err = vcpu_map(vcpu);
	if (!err)
		err = vcpu_set_cpuid(vcpu, cpus);
	if (!err)
		err = vcpu_set_msrs(vcpu);
	if (!err)
		stats_open(&vcpu->stats, vcpu->fd);
	if (err)
		vcpu_finish(vcpu);
	return err;
}

/* Exits: each handler does one, and says whether the vCPU goes on. */

static bool vcpu_exit_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	char *data = (char *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(vcpu->world->pio, run->io.port, data, run->io.size);
		else
			bus_read(vcpu->world->pio, run->io.port, data, run->io.size);
	}
	return true;
}

static bool vcpu_exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (run->mmio.is_write)
		bus_write(vcpu->world->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(vcpu->world->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	return true;
}

static bool vcpu_exit_eoi(struct vcpu *vcpu)
{
	ioapic_eoi(vcpu->world->ioapic, vcpu->run->eoi.vector);
	return true;
}

static bool vcpu_end(struct vcpu *vcpu, enum control_end end, int status)
{
	stop_request(vcpu->world->stop, end, status);
	return false;
}

static unsigned long long vcpu_rip(struct vcpu *vcpu)
{
	struct kvm_regs regs;

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) ? 0 : regs.rip;
}

static bool vcpu_exit_shutdown(struct vcpu *vcpu)
{
	/* Not where: AMD-V leaves no trace of that. */
	log_error("CPU %u: the guest crashed by a triple fault; ended", vcpu->id);
	return vcpu_end(vcpu, CONTROL_END_CRASH, VCPU_STATUS_FAILED);
}

static bool vcpu_exit_system(struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		return vcpu_end(vcpu, CONTROL_END_OFF, 0);
	case KVM_SYSTEM_EVENT_RESET:
		log_error("the guest asked for a reset: ended, start it again");
		return vcpu_end(vcpu, CONTROL_END_RESET, 0);
	}
	log_error("CPU %u: the guest crashed by its own account (system event %u); ended",
		  vcpu->id, vcpu->run->system_event.type);
	return vcpu_end(vcpu, CONTROL_END_CRASH, VCPU_STATUS_FAILED);
}

static bool vcpu_exit_fail_entry(struct vcpu *vcpu)
{
	log_error("CPU %u: the processor refused to enter the guest: reason %#llx, at %#llx; ended",
		  vcpu->id,
		  (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason,
		  vcpu_rip(vcpu));
	return vcpu_end(vcpu, CONTROL_END_FAILED, VCPU_STATUS_FAILED);
}

/* The bytes of the instruction that could not be emulated, where the node gives them. */
static const char *vcpu_instruction(const struct vcpu *vcpu, char *text, size_t size)
{
	const struct kvm_run *run = vcpu->run;
	unsigned int count = run->emulation_failure.insn_size;
	size_t at = 0;

	text[0] = '\0';
	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION || run->internal.ndata < 3 ||
	    !(run->emulation_failure.flags &
	      KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		return text;
	if (count > sizeof(run->emulation_failure.insn_bytes))
		count = sizeof(run->emulation_failure.insn_bytes);
	at = snprintf(text, size, ", instruction");
	for (unsigned int i = 0; i < count; i++)
		at += snprintf(text + at, size - at, " %02x", run->emulation_failure.insn_bytes[i]);
	return text;
}

static bool vcpu_exit_internal_error(struct vcpu *vcpu)
{
	static const char *const what[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction that cannot be emulated",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "two exceptions at once",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "a fault while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit that is not known",
	};
	uint32_t suberror = vcpu->run->internal.suberror;
	char instruction[80];

	log_error("CPU %u: internal error %u (%s) at %#llx%s; ended", vcpu->id, suberror,
		  suberror < ARRAY_SIZE(what) && what[suberror] ? what[suberror] :
		  "unknown", vcpu_rip(vcpu),
		  vcpu_instruction(vcpu, instruction, sizeof(instruction)));
	return vcpu_end(vcpu, CONTROL_END_FAILED, VCPU_STATUS_FAILED);
}

static bool vcpu_exit_unknown(struct vcpu *vcpu)
{
	log_error("CPU %u: exit reason %u, which moat-vmm does not know, at %#llx; ended",
		  vcpu->id, vcpu->run->exit_reason, vcpu_rip(vcpu));
	return vcpu_end(vcpu, CONTROL_END_FAILED, VCPU_STATUS_FAILED);
}

/* Out for a signal: a kick, or one that is nobody's. */
static bool vcpu_exit_none(struct vcpu *vcpu)
{
	(void)vcpu;
	return true;
}

static bool (*const vcpu_exits[])(struct vcpu *vcpu) = {
	[KVM_EXIT_IO]			= vcpu_exit_io,
	[KVM_EXIT_MMIO]			= vcpu_exit_mmio,
	[KVM_EXIT_IOAPIC_EOI]		= vcpu_exit_eoi,
	[KVM_EXIT_SHUTDOWN]		= vcpu_exit_shutdown,
	[KVM_EXIT_SYSTEM_EVENT]		= vcpu_exit_system,
	[KVM_EXIT_FAIL_ENTRY]		= vcpu_exit_fail_entry,
	[KVM_EXIT_INTERNAL_ERROR]	= vcpu_exit_internal_error,
	[KVM_EXIT_INTR]			= vcpu_exit_none,
};

static bool vcpu_exit(struct vcpu *vcpu)
{
	uint32_t reason = vcpu->run->exit_reason;

	if (reason < ARRAY_SIZE(vcpu_exits) && vcpu_exits[reason])
		return vcpu_exits[reason](vcpu);
	return vcpu_exit_unknown(vcpu);
}

/* Into the guest and out of it. 1: it goes on; 0: it does not; -EINTR: it was kicked. */
static int vcpu_run(struct vcpu *vcpu)
{
	if (!ioctl(vcpu->fd, KVM_RUN, 0))
		return vcpu_exit(vcpu);
	if (errno == EINTR || errno == EAGAIN)
		return -EINTR;
	vcpu_fault(vcpu, "KVM_RUN");
	return vcpu_end(vcpu, CONTROL_END_FAILED, VCPU_STATUS_FAILED);
}

static void vcpu_set_exit(struct vcpu *vcpu, bool immediate)
{
	__atomic_store_n(&vcpu->run->immediate_exit, immediate, __ATOMIC_SEQ_CST);
}

/* With the instruction done that it was brought out in, so that its registers are those of a moment. */
static bool vcpu_stand(struct vcpu *vcpu)
{
	int goes_on;

	vcpu_set_exit(vcpu, true);
	do
		goes_on = vcpu_run(vcpu);
	while (goes_on > 0);
	if (!goes_on)
		return false;
	pause_stand(vcpu->world->pause);
	ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);	/* fails where the guest has no such clock */
	return true;
}

static void *vcpu_loop(void *arg)
{
	struct vcpu *vcpu = arg;
	bool goes_on = true;

	while (goes_on) {
		if (vcpu->run->immediate_exit)
			vcpu_set_exit(vcpu, false);
		if (stop_status(vcpu->world->stop) >= 0)
			break;
		if (pause_is_wanted(vcpu->world->pause))
			goes_on = vcpu_stand(vcpu);
		else
			goes_on = vcpu_run(vcpu);
	}
	return NULL;
}

int vcpu_start(struct vcpu *vcpu, const struct boot_entry *entry)
{
	char name[16];
	int err;

	if (entry) {
		err = boot_set_vcpu(vcpu->fd, entry);
		if (err) {
			log_error("CPU %u: cannot set its registers: %s", vcpu->id,
				  strerror(-err));
			return err;
		}
	}
	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	err = thread_start(&vcpu->thread, name, vcpu_loop, vcpu);
	vcpu->started = !err;
	if (err)
		log_error("CPU %u: cannot start a thread: %s", vcpu->id, strerror(-err));
	return err;
}

void vcpu_kick(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	vcpu_set_exit(vcpu, true);
	pthread_kill(vcpu->thread, VCPU_KICK);
}

void vcpu_finish(struct vcpu *vcpu)
{
	if (vcpu->started)
		pthread_join(vcpu->thread, NULL);
	if (vcpu->run)
		munmap(vcpu->run, vcpu->world->vm->run_size);
	stats_close(&vcpu->stats);
	fd_close(vcpu->fd);
	vcpu->started = false;
	vcpu->run = NULL;
	vcpu->fd = -1;
}

static void vcpu_kicked(int signal)
{
	(void)signal;
}

void vcpu_init_kick(void)
{
	struct sigaction action = { .sa_handler = vcpu_kicked };

	sigaction(VCPU_KICK, &action, NULL);
}
