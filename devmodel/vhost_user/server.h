/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The program round a vhost-user device: where front ends come from, and signals. */
#ifndef DEVMODEL_VHOST_USER_SERVER_H
#define DEVMODEL_VHOST_USER_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "devmodel/device.h"

struct sandbox_call;

/**
 * struct server_options - what the command line of any device has
 * @socket: path of a socket to listen at; NULL: there is @fd
 * @fd: a socket that was handed over, listening or connected; -1: there is @socket
 * @once: end with the first front end
 * @uid: to serve as, with @gid; both -1: those of the caller
 */
struct server_options {
	const char *socket;
	int fd;
	bool once;
	uid_t uid;
	gid_t gid;
};

/**
 * server_run - serve a device, in a sandbox, until told to end
 * @dev: is destroyed in the end
 * @refresh: called on SIGHUP; returns 1 where the device's configuration has changed by it, which
 *	the front end is then told. May be NULL
 * @calls: what system calls the device makes beside those of the server
 *
 * What it has to say goes to standard error. Return: the process' exit status.
 */
int server_run(const struct server_options *options, struct device *dev,
	       int (*refresh)(struct device *dev), const struct sandbox_call *calls);

#endif /* DEVMODEL_VHOST_USER_SERVER_H */
