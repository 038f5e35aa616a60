/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_DISKS	16
#define OPTIONS_SOCKETS	8

struct vhost_type;

struct options_disk {
	const char *path;
	bool read_only;
};

/* A device that another process is, and where it listens. */
struct options_socket {
	const struct vhost_type *type;
	const char *path;
	const struct vhost_isolation_ops *isolation;
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
	int console_in;		/* -1: no console */
	int console_out;
	bool rng;
	unsigned int disk_count;
	struct options_disk disk[OPTIONS_DISKS];
	unsigned int socket_count;
	struct options_socket socket[OPTIONS_SOCKETS];
};

/**
 * options_parse - read a command line
 *
 * Return: 0; 1: help was asked for and printed; -EINVAL: one line said what is wrong.
 */
int options_parse(struct options *options, int argc, char **argv);

#endif /* VMM_OPTIONS_H */
