/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/types.h>

#define OPTIONS_DEVICES	24

struct vhost_isolation_ops;

/**
 * struct options_device - a device that is a process
 * @type: as vhost_type_find() knows it
 * @path: of a disk, or a directory; the name of a tap, or "user"; or where a back end listens. /proc/self/fd/N: a descriptor
 * @listens: the last
 * @mac: of a network device; NULL: any
 * @format: of a disk; NULL: raw
 * @name: for who controls the machine; NULL: one is made up
 * @tag: what the guest mounts a directory by
 * @owned: its process runs as @uid and @gid, and not as the launcher does
 * @isolation: what of the guest's memory it gets to see
 */
struct options_device {
	const char *type;
	const char *path;
	const char *mac;
	const char *format;
	const char *name;
	const char *tag;
	const struct vhost_isolation_ops *isolation;
	bool owned;
	uid_t uid;
	gid_t gid;
	bool listens;
	bool read_only;
	bool writable;
	bool direct;
};

/* The command line of moat-vmm. Strings are the command line's own. */
struct options {
	const char *node;
	const char *name;
	const char *kernel;
	const char *initrd;
	const char *append;
	uint64_t memory;
	unsigned int cpus;
	int serial_in;		/* -1: none */
	int serial_out;
	bool serial_served;
	int console_in;		/* -1: no console */
	int console_out;
	bool rng;
	bool balloon;
	uint64_t balloon_size;	/* that the guest is asked to do without, bytes */
	int control;		/* a socket that listens for who controls the machine; -1: none */
	int ended;		/* a file that is told how the machine ended; -1: none */
	int supervisor;		/* a socket that listens for who adds devices; -1: none */
	int devices_cgroup;	/* of devices' processes, its cgroup.procs; -1: the launcher's */
	uid_t uid;		/* -1: stays */
	gid_t gid;
	unsigned int device_count;
	struct options_device device[OPTIONS_DEVICES];
};

/**
 * options_parse - read a command line
 *
 * Return: 0; 1: help was asked for and printed; -EINVAL: one line said what is wrong.
 */
int options_parse(struct options *options, int argc, char **argv);

#endif /* VMM_OPTIONS_H */
