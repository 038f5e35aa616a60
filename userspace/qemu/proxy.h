/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef QEMU_PROXY_H
#define QEMU_PROXY_H

#include "userspace/qemu/tool.h"

/**
 * struct proxy - between a machine and the storage daemon
 * @machine, @daemon: connections, over which vhost-user is spoken
 * @process: the daemon's, a pidfd
 * @listener: of what it asks for
 */
struct proxy {
	int machine;
	int daemon;
	int process;
	int listener;
	struct tool_files files;
};

/* Until either end goes; then the daemon ends, too. */
void proxy_run(const struct proxy *proxy);

#endif /* QEMU_PROXY_H */
