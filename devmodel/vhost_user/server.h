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

#define SERVER_OPTIONS	{ .fd = -1, .uid = -1, .gid = -1 }

/* For getopt_long(); server_option() takes them. */
enum { SERVER_SOCKET = 0x100, SERVER_FD, SERVER_ONCE, SERVER_UID, SERVER_GID };

#define SERVER_LONG_OPTIONS \
	{ "socket", required_argument, NULL, SERVER_SOCKET }, \
	{ "fd", required_argument, NULL, SERVER_FD }, \
	{ "once", no_argument, NULL, SERVER_ONCE }, \
	{ "uid", required_argument, NULL, SERVER_UID }, \
	{ "gid", required_argument, NULL, SERVER_GID }

#define SERVER_HELP \
"  --socket PATH           listen there for front ends, one at a time\n" \
"  --fd N                  the same on a socket that was handed over, listening or connected\n" \
"  --once                  end when the first front end does\n" \
"  --uid N, --gid N        serve as that user and group; by default the caller's\n"

/* Return: 0; -EINVAL for a value that is none, or an option that is none of these. */
int server_option(struct server_options *options, int option, const char *value);

/* Do the options make sense together? Says so where not. 0 or -EINVAL. */
int server_check(const struct server_options *options);

/**
 * server_run - serve a device, in a sandbox, until told to end
 * @refresh: called on SIGHUP; returns 1 where the device's configuration has changed by it, which
 *	the front end is then told. May be NULL
 * @calls: what system calls the device makes beside those of the server
 *
 * What it has to say goes to standard error. Return: the process' exit status.
 */
int server_run(const struct server_options *options, struct device *dev,
	       int (*refresh)(struct device *dev), const struct sandbox_call *calls);

#endif /* DEVMODEL_VHOST_USER_SERVER_H */
