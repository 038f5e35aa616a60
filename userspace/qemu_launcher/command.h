/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* QEMU's command line. Where it looks for files, the root is /usr, or another tree that has it. */
#ifndef QEMU_LAUNCHER_COMMAND_H
#define QEMU_LAUNCHER_COMMAND_H

#include "userspace/qemu_launcher/parts.h"

struct arguments;

#define COMMAND_QEMU		"/bin/qemu-system-x86_64"
#define COMMAND_UEFI_CODE	"/share/OVMF/OVMF_CODE_4M.fd"
#define COMMAND_UEFI_VARS	"/share/OVMF/OVMF_VARS_4M.fd"

/* @qmp, @line: sockets, QEMU's ends. */
void command_build(struct arguments *arguments, const struct options *options,
		   const struct parts *parts, int qmp, int line);

/*
 * What a device of number @i is called: "disk0" as a block node, "file0" what that is made of, "net0" the tap,
 * "dev0" the device, "port0" its port. Of these, as JSON, what QMP and the command line both take; to be
 * freed, NULL: no memory. They find the disk in the set of descriptors of number @i.
 */
char *command_file(unsigned int i, const struct parts_device *device);
char *command_disk(unsigned int i, const struct parts_device *device);
char *command_device(unsigned int i, const struct parts_device *device);

#endif /* QEMU_LAUNCHER_COMMAND_H */
