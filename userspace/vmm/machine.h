/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "userspace/lib/loop.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/bus.h"
#include "userspace/vmm/control.h"
#include "userspace/vmm/devices.h"
#include "userspace/vmm/dump.h"
#include "userspace/vmm/events.h"
#include "userspace/vmm/ioapic.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/pause.h"
#include "userspace/vmm/pci.h"
#include "userspace/vmm/rtc.h"
#include "userspace/vmm/serial.h"
#include "userspace/vmm/stop.h"
#include "userspace/vmm/vcpu.h"
#include "userspace/vmm/vm.h"

struct supervisor;

/**
 * struct machine - a whole virtual machine
 * @boot: what it is started from
 * @loop: waits for what devices have to say
 * @controlled: there is a control socket: @control and @dump are of use
 * @goes_on: after the dump
 * @vcpu: the first vcpu_count are in use
 */
struct machine {
	struct vm vm;
	struct boot_image boot;
	struct memory memory;
	struct bus pio;
	struct bus mmio;
	struct ioapic ioapic;
	struct events events;
	struct rtc rtc;
	struct serial serial;
	struct pci pci;
	struct loop loop;
	struct stop stop;
	struct pause pause;
	bool controlled;
	struct control control;
	struct dump dump;
	bool goes_on;
	struct vcpu_world world;
	struct devices devices;
	unsigned int vcpu_count;
	struct vcpu *vcpu;
};

/**
 * machine_init - build it, ready to run
 * @supervisor: of its devices; must stay
 *
 * On the way the process gives up its rights: see confine.h. So there is one machine in a process.
 * Says itself what failed. Return: 0 or a negative errno.
 */
int machine_init(struct machine *machine, const struct options *options,
		 struct supervisor *supervisor);

/**
 * machine_run - run it until it ends
 * @signals: a signalfd; a signal that comes there ends the machine
 *
 * Return: the exit status of moat-vmm. How it came to its end is in @machine->stop.
 */
int machine_run(struct machine *machine, int signals);

/* All vCPUs stand outside of the guest; or -ETIMEDOUT, and they go on. Fine when they do so already. */
int machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);

void machine_finish(struct machine *machine);

#endif /* VMM_MACHINE_H */
