/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What a machine is made of, open: QEMU gets it by descriptor, and could open none of it. */
#ifndef QEMU_LAUNCHER_PARTS_H
#define QEMU_LAUNCHER_PARTS_H

#include <stdbool.h>
#include <sys/types.h>

#include "userspace/qemu_launcher/options.h"

#define PARTS_SPARE	4	/* for devices that come later */
#define PARTS_DEVICES	(OPTIONS_DEVICES + PARTS_SPARE)

/**
 * struct parts_device - a disk or a network; where @fd is -1 there is none
 * @block: the disk is a block device
 * @leaving: the guest has been asked to let it go
 */
struct parts_device {
	struct options_device what;
	int fd;
	bool block;
	bool leaving;
};

/**
 * struct parts
 * @node: the node, which QEMU takes for /dev/kvm
 * @vars: UEFI's variables; -1: there is no UEFI
 * @device: each by the number of its port
 */
struct parts {
	int node;
	int vars;
	unsigned int cdrom_count;
	int cdrom[OPTIONS_CDROMS];
	struct parts_device device[PARTS_DEVICES];
};

/* Says itself what failed. 0 or a negative errno. */
int parts_open(struct parts *parts, const struct options *options);

/*
 * A disk or tap that came as @fd, which is the part's where this returns 0: locked, and looked at. -EAGAIN: it is in use;
 * -EINVAL: it is no disk, or an image that is not to be had.
 */
int parts_take(struct parts_device *device, const struct options_device *what, int fd);

/* Calls @each for all of them. */
void parts_each(const struct parts *parts, void (*each)(void *arg, int fd), void *arg);

void parts_close(struct parts *parts);

#endif /* QEMU_LAUNCHER_PARTS_H */
