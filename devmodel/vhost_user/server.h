/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The program round a vhost-user device: where front ends come from, and signals. */
#ifndef DEVMODEL_VHOST_USER_SERVER_H
#define DEVMODEL_VHOST_USER_SERVER_H

#include <stdbool.h>

#include "devmodel/device.h"
#include "userspace/lib/sandbox.h"

/**
 * struct server_options - what the command line of any device has
 * @socket: path of a socket to listen at; NULL: there is @fd
 * @fd: a socket that was handed over, listening or connected; -1: there is @socket
 * @once: end with the first front end
 * @sandbox: what the device is left with; of system calls, those that it makes beside the server's
 */
struct server_options {
	const char *socket;
	int fd;
	bool once;
	struct sandbox sandbox;
};

/**
 * server_run - serve a device, in a sandbox, until told to end
 * @dev: is destroyed in the end
 * @refresh: called on SIGHUP; returns 1 where the device's configuration has changed by it, which
 *	the front end is then told. May be NULL
 *
 * What it has to say goes to standard error. Return: the process' exit status.
 */
int server_run(const struct server_options *options, struct device *dev,
	       int (*refresh)(struct device *dev));

#endif /* DEVMODEL_VHOST_USER_SERVER_H */
