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
#include "userspace/moatd/disk.h"
#include "userspace/moatd/network_definition.h"

#define KEEPER_WHY	200

/**
 * enum keeper_what - a request, and what it carries
 * @KEEPER_LIST: nothing; an answer for each machine that has been started and not been cleaned up, with
 *	its @name, then one without
 * @KEEPER_START: struct keeper_start. The answer comes with a connection to the launcher's control socket
 * @KEEPER_CONNECT: a name; the same for a machine that runs. -ECONNREFUSED, -ENOENT: it does not
 * @KEEPER_REAP: a name; what is left of its processes is ended. The answer has how it @ended
 * @KEEPER_KILL: the same, where it was asked for, as it will be told
 * @KEEPER_CLEAN: a name; all goes that was made for it. Fine when it is gone
 * @KEEPER_LIMITS: struct definition, of which @limits are put in force
 * @KEEPER_USAGE: a name; the answer has its @usage
 * @KEEPER_ATTACH: the same, with one disk or one network, which the machine of that name gets
 * @KEEPER_FORGET: the same; networks forget the addresses of that machine
 * @KEEPER_LOG: a name; the answer comes with a descriptor of its log, for reading
 * @KEEPER_NETWORK_START: struct keeper_network, which is there then, with those forwards and no others
 * @KEEPER_NETWORK_STOP: a name; nothing of the network is left. Fine when it is gone
 * @KEEPER_DISK_LIST: nothing; an answer for each disk, with it, then one without a name
 * @KEEPER_DISK_CREATE, @KEEPER_DISK_RESIZE, @KEEPER_DISK_DELETE, @KEEPER_DISK_SNAPSHOT,
 * @KEEPER_DISK_SNAPSHOT_DELETE, @KEEPER_DISK_REVERT: struct keeper_disk; of a disk of @uid's, root has all. To create
 *	one, answers before the last tell how far it has come
 * @KEEPER_DISK_SNAPSHOTS: the same; an answer for each snapshot, then one without a name
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
	KEEPER_ATTACH,
	KEEPER_FORGET,
	KEEPER_LOG,
	KEEPER_BOOTED,
	KEEPER_NETWORK_START,
	KEEPER_NETWORK_STOP,
	KEEPER_DISK_LIST,
	KEEPER_DISK_CREATE,
	KEEPER_DISK_RESIZE,
	KEEPER_DISK_DELETE,
	KEEPER_DISK_SNAPSHOT,
	KEEPER_DISK_SNAPSHOT_DELETE,
	KEEPER_DISK_REVERT,
	KEEPER_DISK_SNAPSHOTS,
};

/* Before what a request carries. */
struct keeper_head {
	uint32_t what;
	uint32_t serial;	/* comes back in answers */
};

struct keeper_name {
	char name[DEFINITION_NAME];
};

/* @network: those that it is on, in the definition's order */
struct keeper_start {
	struct definition definition;
	struct network_spec network[DEFINITION_NETWORKS];
};

struct keeper_network {
	struct network_spec spec;
	uint32_t forward_count;
	struct network_forward forward[NETWORK_FORWARDS];
};

/**
 * struct keeper_disk - what is to be done with a disk
 * @uid: who wants it
 * @size: bytes, as disk.h has it
 * @format, @from_format: enum disk_format
 * @shrink: it may become smaller
 * @from: an image that @uid may read; empty: none
 * @snapshot: its name, where it is about one
 */
struct keeper_disk {
	char name[DEFINITION_NAME];
	uint32_t uid;
	uint64_t size;
	uint32_t format;
	uint32_t from_format;
	uint32_t shrink;
	char from[DEFINITION_PATH];
	char snapshot[DEFINITION_NAME];
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
 * @error: 0 or a negative errno; -EOWNERDEAD: who served it was killed, and may have done it, or a part of it
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
		struct disk_info disk;
		struct disk_snapshot snapshot;
		uint32_t hundredths;	/* of a per cent */
	};
};

/**
 * struct keeper_options - what moatd was told, as far as both halves are concerned
 * @uid, @gid: of the other half
 * @uid_first, @uid_count: users that machines run as
 * @cgroup: where machines have theirs; a directory of cgroup v2
 * @first: nothing has been started since the host was
 * @health: seconds in which a launcher has to answer
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
	uint64_t health;
};

/*
 * The lock of this moatd, and all that it forks: only one at a time. It is waited for, for some seconds. A descriptor or
 * a negative errno, -EBUSY: another one has it.
 */
int keeper_lock(const struct keeper_options *options);

/**
 * keeper_run - be the keeper
 * @listener: where clients of moatd connect to
 * @lock: from keeper_lock()
 *
 * Makes the other half anew where it ends. Return: the exit status, once it was told to end.
 */
int keeper_run(struct keeper_options *options, int listener, int lock);

#endif /* MOATD_KEEPER_H */
