// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The machine: which parts it has, and in which order they come up; they go down in the reverse.
 * First all is opened that there is a path for. Then the process gives up its rights (confine.c), and
 * only then looks at what others have made: the kernel image, what devices say.
 *
 * Threads: one a vCPU, one for the serial port, one for those interrupts of virtio devices that the
 * kernel does not send by itself, one a device, one for who controls the machine, and the main one, which
 * waits for the end. Nothing but the vCPUs reaches the buses, so what is on them can go once the vCPUs are
 * gone; a device that goes before takes more care (devices.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/acpi.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/confine.h"
#include "userspace/vmm/machine.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/power.h"
#include "userspace/vmm/supervisor.h"
#include "userspace/vmm/verbs.h"

#define MACHINE_SIGNALLED	128

static int machine_start_loop(struct machine *machine, struct supervisor *supervisor)
{
	int err = supervisor_watch(supervisor, &machine->loop);

	if (!err)
		err = loop_start(&machine->loop, "interrupts");
	if (err)
		log_error("cannot start a thread: %s", strerror(-err));
	return err;
}

static int machine_add_devices(struct machine *machine, const struct options *options,
			       struct supervisor *supervisor)
{
	const struct devices_board board = {
		.vm = &machine->vm, .memory = &machine->memory, .pci = &machine->pci,
		.loop = &machine->loop, .events = &machine->events,
	};
	int err = devices_init(&machine->devices, &board);

	if (!err)
		err = devices_add_all(&machine->devices, options, supervisor);
	return err ? err : machine_start_loop(machine, supervisor);
}

static int machine_add_cpus(struct machine *machine, unsigned int cpus)
{
	if (cpus > machine->vm.cpus_max) {
		log_error("--cpus %u: the node has at most %u", cpus, machine->vm.cpus_max);
		return -EINVAL;
	}
	machine->world = (struct vcpu_world){
		.vm = &machine->vm, .pio = &machine->pio, .mmio = &machine->mmio,
		.ioapic = &machine->ioapic, .stop = &machine->stop, .pause = &machine->pause,
	};
	machine->vcpu = calloc(cpus, sizeof(*machine->vcpu));
	if (!machine->vcpu) {
		log_error("--cpus %u: %s", cpus, strerror(ENOMEM));
		return -ENOMEM;
	}
	for (; machine->vcpu_count < cpus; machine->vcpu_count++) {
		int err = vcpu_init(&machine->vcpu[machine->vcpu_count], &machine->world,
				    machine->vcpu_count, cpus);

		if (err)
			return err;
	}
	return 0;
}

static void machine_remove_cpus(struct machine *machine)
{
	pause_want(&machine->pause, false);
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		vcpu_kick(&machine->vcpu[i]);
	while (machine->vcpu_count)
		vcpu_finish(&machine->vcpu[--machine->vcpu_count]);
	free(machine->vcpu);
	machine->vcpu = NULL;
}

/* Others start up when the first one says so. */
static int machine_start_cpus(struct machine *machine, const struct boot_entry *entry)
{
	vcpu_init_kick();
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		int err = vcpu_start(&machine->vcpu[i], i ? NULL : entry);

		if (err)
			return err;
	}
	return 0;
}

int machine_pause(struct machine *machine)
{
	int err;

	pause_want(&machine->pause, true);
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		vcpu_kick(&machine->vcpu[i]);
	err = pause_wait(&machine->pause, machine->vcpu_count);
	if (err)
		machine_resume(machine);
	return err;
}

void machine_resume(struct machine *machine)
{
	pause_want(&machine->pause, false);
}

static int machine_boot(struct machine *machine)
{
	struct boot_entry entry;
	int err;

	machine->boot.acpi_rsdp = acpi_build(&machine->memory, machine->vcpu_count);
	err = boot_load(&machine->memory, &machine->boot, &entry);
	boot_close(&machine->boot);
	return err ? err : machine_start_cpus(machine, &entry);
}

static int machine_start_control(struct machine *machine, int listener)
{
	int err = control_init(&machine->control, listener, verbs, machine);

	if (!err)
		err = dump_init(&machine->dump);
	machine->devices.news.ready = verbs_tell_news;
	machine->dump.done.ready = verbs_dump_done;
	if (!err)
		err = loop_add(&machine->control.loop, &machine->devices.news);
	if (!err)
		err = loop_add(&machine->control.loop, &machine->dump.done);
	if (!err)
		err = control_listen(&machine->control);
	machine->controlled = !err;
	if (err)
		log_error("cannot serve the control socket: %s", strerror(-err));
	return err;
}

/* What the machine has whatever the options; none of it fails but the serial port. */
static int machine_add_board(struct machine *machine, const struct options *options)
{
	int err;

	ioapic_init(&machine->ioapic, &machine->vm, &machine->mmio);
	events_init(&machine->events, &machine->ioapic, &machine->pio);
	rtc_init(&machine->rtc, &machine->pio);
	power_init(&machine->pio, &machine->stop);
	pci_init(&machine->pci, &machine->pio, &machine->mmio);
	if (options->serial_served)
		err = serial_init_served(&machine->serial, &machine->ioapic, &machine->pio);
	else
		err = serial_init(&machine->serial, &machine->ioapic, &machine->pio,
				  options->serial_in, options->serial_out);
	if (err) {
		log_error("cannot make the serial port: %s", strerror(-err));
		pci_finish(&machine->pci);
		rtc_finish(&machine->rtc);
		ioapic_finish(&machine->ioapic);
	}
	return err;
}

static void machine_remove_board(struct machine *machine)
{
	serial_finish(&machine->serial);
	pci_finish(&machine->pci);
	rtc_finish(&machine->rtc);
	ioapic_finish(&machine->ioapic);
}

static int machine_init_events(struct machine *machine)
{
	int err = stop_init(&machine->stop);

	pause_init(&machine->pause, &machine->stop);
	if (!err) {
		err = loop_init(&machine->loop);
		if (err)
			stop_finish(&machine->stop);
	}
	if (err)
		log_error("cannot make an event descriptor: %s", strerror(-err));
	return err;
}

static void machine_finish_events(struct machine *machine)
{
	loop_finish(&machine->loop);
	stop_finish(&machine->stop);
}

/* What was handed over has a copy by now, and that is closed when it is not needed any more. */
static void machine_close_handed(const char *path)
{
	int fd = path ? fd_number(path) : -1;

	if (fd > STDERR_FILENO)
		fd_close(fd);
}

/* What is to be booted; devices are the supervisor's to open, which has what was handed over for them. */
static int machine_open_files(struct machine *machine, const struct options *options)
{
	int err;

	machine->boot = (struct boot_image){
		.kernel = { .path = options->kernel }, .initrd = { .path = options->initrd },
		.cmdline = options->append,
	};
	err = boot_open(&machine->boot);
	if (err) {
		boot_close(&machine->boot);
		return err;
	}
	machine_close_handed(options->kernel);
	machine_close_handed(options->initrd);
	return 0;
}

/* From the sandbox on. */
static int machine_build(struct machine *machine, const struct options *options,
			 struct supervisor *supervisor)
{
	int err = memory_init(&machine->memory, options->memory);

	if (err)
		return err;
	err = vm_set_memory(&machine->vm, &machine->memory);
	if (err)
		goto finish_memory;
	err = machine_init_events(machine);
	if (err)
		goto finish_memory;
	err = machine_add_board(machine, options);
	if (err)
		goto finish_events;
	err = machine_add_devices(machine, options, supervisor);
	if (err)
		goto remove_devices;
	err = machine_add_cpus(machine, options->cpus);
	if (err)
		goto remove_cpus;
	err = machine_boot(machine);
	if (!err && options->control >= 0)
		err = machine_start_control(machine, options->control);
	if (err)
		goto stop_cpus;
	return 0;

stop_cpus:
	stop_request(&machine->stop, CONTROL_END_FAILED, 1);
remove_cpus:
	machine_remove_cpus(machine);
remove_devices:
	machine_finish_events(machine);
	devices_finish(&machine->devices);
	machine_remove_board(machine);
	goto finish_memory;
finish_events:
	machine_finish_events(machine);
finish_memory:
	memory_finish(&machine->memory);
	return err;
}

int machine_init(struct machine *machine, const struct options *options,
		 struct supervisor *supervisor)
{
	int err;

	memset(machine, 0, sizeof(*machine));
	err = vm_init(&machine->vm, options->node);
	if (err)
		return err;
	err = machine_open_files(machine, options);
	if (err)
		goto finish_vm;
	err = confine(options->uid, options->gid);
	if (!err)
		err = machine_build(machine, options, supervisor);
	if (!err)
		return 0;
	boot_close(&machine->boot);
finish_vm:
	vm_finish(&machine->vm);
	return err;
}

int machine_run(struct machine *machine, int signals)
{
	struct pollfd wait[] = {
		{ .fd = machine->stop.event, .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
	};
	struct signalfd_siginfo info;

	while (stop_status(&machine->stop) < 0) {
		if (poll(wait, 2, -1) <= 0 || !wait[1].revents)
			continue;
		if (read(signals, &info, sizeof(info)) == sizeof(info))
			stop_request(&machine->stop, CONTROL_END_ASKED,
				     MACHINE_SIGNALLED + info.ssi_signo);
	}
	return stop_status(&machine->stop);
}

void machine_finish(struct machine *machine)
{
	if (machine->controlled) {
		control_finish(&machine->control);
		dump_finish(&machine->dump);
	}
	machine_remove_cpus(machine);
	loop_finish(&machine->loop);
	devices_finish(&machine->devices);
	machine_remove_board(machine);
	stop_finish(&machine->stop);
	memory_finish(&machine->memory);
	vm_finish(&machine->vm);
}
