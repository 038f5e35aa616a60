/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The process that starts the processes of devices: supervisor.c. The machine has a link to it for each
 * device, and no right of its own to start anything, or to open it.
 */
#ifndef VMM_SUPERVISOR_H
#define VMM_SUPERVISOR_H

#include <stdint.h>
#include <sys/types.h>

#include "userspace/lib/loop.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/vhost_device.h"

struct program;

/* What a link carries: each message has its exact length. The supervisor does not trust the machine. */

#define SUPERVISOR_START	1

/**
 * struct supervisor_request - end the device's process, if there is one, and start another
 * @what: SUPERVISOR_START
 * @serial: not 0; the answer has it too
 */
struct supervisor_request {
	uint32_t what;
	uint32_t serial;
};

enum supervisor_former { FORMER_NONE, FORMER_ENDED, FORMER_KILLED };

/**
 * struct supervisor_answer - it was started, and the connection to it comes with this; or not
 * @serial: of the request
 * @error: 0, or a negative errno, and then there is no connection
 * @former: what became of the process before: there was none; it ended; the supervisor killed it
 * @status: how it ended, as waitpid() has it
 */
struct supervisor_answer {
	uint32_t serial;
	int32_t error;
	uint32_t former;
	int32_t status;
};

/**
 * struct supervisor_link - a device's; one thread at a time uses it
 * @origin: for the device
 * @device: of the options; NULL: it is of a device that was attached
 * @socket: to the supervisor; -1: the back end does not come from there
 * @what: in messages, what the supervisor does for it
 * @said: the last error, which is not said again
 */
struct supervisor_link {
	struct vhost_origin origin;
	const struct options_device *device;
	int socket;
	char what[48];
	int said;
	uint32_t serial;
};

/**
 * struct supervisor - as the machine sees it
 * @source: a pidfd, -1 where there is no process
 * @life: while this pipe is open, the process goes on
 * @link: one for each device of the options; of use for those that are not threads of the launcher's
 */
struct supervisor {
	struct loop_source source;
	pid_t pid;
	int life;
	unsigned int count;
	struct supervisor_link link[OPTIONS_DEVICES];
};

/**
 * supervisor_start - make the process, with all the rights that the caller has now
 * @programs: a table, as in program.h
 *
 * Call it with one thread, and before anything is open that devices are not to have. Where no device
 * takes it, nor one that may come, there is no process. Says itself what failed. Return: 0 or a negative errno.
 */
int supervisor_start(struct supervisor *supervisor, const struct options *options,
		     const struct program *programs);

/* A link that was handed over, of which one end is @socket. And an end to a link; NULL is fine. */
void supervisor_link_adopt(struct supervisor_link *link, const char *type, const char *name,
			   int socket);
void supervisor_link_close(struct supervisor_link *link);

/* Have @loop say when the process dies, which the machine survives. 0 or a negative errno. */
int supervisor_watch(struct supervisor *supervisor, struct loop *loop);

/* The process ends, and those of all devices with it. Fine after a start that failed. */
void supervisor_finish(struct supervisor *supervisor);

#endif /* VMM_SUPERVISOR_H */
