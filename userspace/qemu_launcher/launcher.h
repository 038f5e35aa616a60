/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef QEMU_LAUNCHER_LAUNCHER_H
#define QEMU_LAUNCHER_LAUNCHER_H

#include <stdbool.h>

#include "userspace/lib/loop.h"
#include "userspace/qemu_launcher/line.h"
#include "userspace/qemu_launcher/parts.h"
#include "userspace/qemu_launcher/process.h"
#include "userspace/qemu_launcher/qmp.h"
#include "userspace/vmm/control.h"
#include "userspace/vmm/stop.h"

#define LAUNCHER_ADDERS	4

/**
 * struct launcher - a machine, as its launcher has it
 * @ports: so many devices it can have; each of @parts has its number's
 * @control: once @controlled, its thread has all of @qmp and @parts
 * @supervisor: listens for who has devices to be attached, each an @adder; -1: none
 * @dumping: a dump is being written
 * @balloon_wanted: bytes that the guest was asked to do without
 * @lost: an eventfd: QEMU has hung up
 */
struct launcher {
	const struct options *options;
	struct process process;
	struct parts parts;
	unsigned int ports;
	struct qmp qmp;
	struct line line;
	struct stop stop;
	struct control control;
	struct loop_source supervisor;
	struct loop_source adder[LAUNCHER_ADDERS];
	bool controlled;
	bool dumping;
	uint64_t balloon_wanted;
	int lost;
};

#endif /* QEMU_LAUNCHER_LAUNCHER_H */
