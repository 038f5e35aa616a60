/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The privileged half of moatd, and what the other half asks of it: a socket of SOCK_SEQPACKET, a message a
 * packet, of exactly the length that its kind has. Each request is served by a process of its own, so
 * answers come in any order, and what hangs holds up nobody.
 */
#ifndef MOATD_KEEPER_H
#define MOATD_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "include/moat/control.h"
#include "userspace/moatd/definition.h"

#define KEEPER_WHY	200

/**
 * enum keeper_what - a request, and what it carries
 * @KEEPER_LIST: nothing; an answer for each machine that has been started and not been cleaned up, with
 *	its @name, then one without
 * @KEEPER_START: struct definition. The answer comes with a connection to the launcher's control socket
 * @KEEPER_CONNECT: a name; the same for a machine that runs. -ECONNREFUSED, -ENOENT: it does not
 * @KEEPER_REAP: a name; what is left of its processes is ended. The answer has how it @ended
 * @KEEPER_KILL: the same, where it was asked for, as it will be told
 * @KEEPER_CLEAN: a name; all goes that was made for it. Fine when it is gone
 * @KEEPER_LIMITS: struct definition, of which @limits are put in force
 * @KEEPER_USAGE: a name; the answer has its @usage
 * @KEEPER_ATTACH_DISK, @KEEPER_ATTACH_NETWORK: struct definition of one disk or network, which the machine
 *	of that name gets; @error also as CONTROL_ATTACH has it
 * @KEEPER_LOG: a name; the answer comes with a descriptor of its log, for reading
 * @KEEPER_BOOTED: nothing; what is to start by itself has been started, since the host did
 */
enum keeper_what {
	KEEPER_LIST = 1,
	KEEPER_START,
	KEEPER_CONNECT,
	KEEPER_REAP,
	KEEPER_KILL,
	KEEPER_CLEAN,
	KEEPER_LIMITS,
	KEEPER_USAGE,
	KEEPER_ATTACH_DISK,
	KEEPER_ATTACH_NETWORK,
	KEEPER_LOG,
	KEEPER_BOOTED,
};

/* Before what a request carries. */
struct keeper_head {
	uint32_t what;
	uint32_t serial;	/* comes back in answers */
};

struct keeper_name {
	char name[DEFINITION_NAME];
};

/* Of a machine's cgroup: microseconds, bytes. */
struct keeper_usage {
	uint64_t cpu_usec;
	uint64_t memory;
	uint64_t memory_peak;
	uint64_t read_bytes;
	uint64_t write_bytes;
	uint64_t pids;
};

/**
 * struct keeper_answer
 * @error: 0 or a negative errno
 * @more: 1: there will be another answer to the same request
 * @why: where there is an error, what a person is told
 */
struct keeper_answer {
	uint32_t what;
	uint32_t serial;
	int32_t error;
	uint32_t more;
	char why[KEEPER_WHY];
	union {
		char name[DEFINITION_NAME];
		struct control_ended ended;
		struct keeper_usage usage;
	};
};

/**
 * struct keeper_options - what moatd was told, as far as both halves are concerned
 * @uid, @gid: of the other half
 * @uid_first, @uid_count: users that machines run as
 * @cgroup: where machines have theirs; a directory of cgroup v2
 * @first: nothing has been started since the host was
 */
struct keeper_options {
	const char *state;
	const char *run;
	const char *log;
	const char *node;
	char cgroup[128];
	uint32_t uid;
	uint32_t gid;
	uint32_t uid_first;
	uint32_t uid_count;
	bool first;
};

/**
 * keeper_run - be the keeper
 * @listener: where clients of moatd connect to
 *
 * Makes the other half anew where it ends. Return: the exit status, once it was told to end.
 */
int keeper_run(struct keeper_options *options, int listener);

#endif /* MOATD_KEEPER_H */
