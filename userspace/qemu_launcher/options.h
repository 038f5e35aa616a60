/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef QEMU_LAUNCHER_OPTIONS_H
#define QEMU_LAUNCHER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "moat/control.h"

#define OPTIONS_DEVICES	24
#define OPTIONS_CDROMS	4

enum options_firmware { FIRMWARE_NONE, FIRMWARE_BIOS, FIRMWARE_UEFI };

/**
 * struct options_device - a disk or a network
 * @path: of a disk; of a network it is /proc/self/fd/N, a tap that was handed over
 * @mac: of a network, may be NULL
 * @name: for who controls the machine; empty: one is made up
 */
struct options_device {
	const char *path;
	const char *mac;
	char name[CONTROL_NAME];
	bool network;
	bool qcow2;
	bool read_only;
	bool direct;
};

/* The command line of moat-qemu. Strings are the command line's own; descriptors are -1 where there is none. */
struct options {
	const char *node;
	const char *name;
	const char *tree;
	enum options_firmware firmware;
	uint64_t memory;
	unsigned int cpus;
	bool rng;
	bool balloon;
	int uefi_vars;
	int control;
	int ended;
	int supervisor;
	int devices_cgroup;
	uid_t uid;		/* -1: stays */
	gid_t gid;
	unsigned int device_count;
	struct options_device device[OPTIONS_DEVICES];
	unsigned int cdrom_count;
	const char *cdrom[OPTIONS_CDROMS];
};

/* An address of six bytes, and nothing else: it becomes part of what QEMU is told. */
bool options_mac_legal(const char *mac);

/* Return: 0; 1: help was asked for and printed; -EINVAL: one line said what is wrong. */
int options_parse(struct options *options, int argc, char **argv);

#endif /* QEMU_LAUNCHER_OPTIONS_H */
