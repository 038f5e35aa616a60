/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How a running machine is controlled: what is said between moat-vmm and who has a connection to its
 * control socket (--control), which is moatd as a rule.
 *
 * A socket of SOCK_SEQPACKET, a message a packet, each of exactly its struct's length; numbers are the
 * host's. To each request there is one answer, in the order of requests; events come between them. Where
 * a message is none, the connection is closed, and the machine goes on: so it does when the last
 * connection ends, and whoever connects next finds it as it is.
 */
#ifndef MOAT_CONTROL_H
#define MOAT_CONTROL_H

#include <assert.h>
#include <stdint.h>

#define CONTROL_NAME	64
#define CONTROL_TYPE	16
#define CONTROL_TEXT	128

/**
 * enum control_what - what a request asks for
 * @CONTROL_INFO: what the machine is, and does: struct control_info
 * @CONTROL_STATS: what it has done: struct control_stats
 * @CONTROL_BUTTON: the ACPI power button is pressed; what comes of it is the guest's to say
 * @CONTROL_PAUSE: no vCPU runs from the answer on. Fine when it is so already. -ETIMEDOUT: one waits for a
 *	device's process, and all go on
 * @CONTROL_RESUME: they go on. The same. -EBUSY: a dump is being written
 * @CONTROL_STOP: end the machine at once; the connection ends when the process does
 * @CONTROL_BALLOON: the guest is asked to do without @value bytes. -ENODEV: it has no balloon; -EINVAL: that
 *	is all that it has, or more
 * @CONTROL_CONSOLE: the stream socket that comes with the request becomes a terminal of the serial
 *	port: first what the port said last (up to 64 KiB), then what it says, and what comes from it
 *	is typed. Who does not read is dropped. -ENODEV: the port is not served (--serial served);
 *	-EMFILE: there are too many
 * @CONTROL_ATTACH: a device appears: of @type, called @name, served by the link to the supervisor that
 *	comes with the request (SUPERVISOR_ADD). -EEXIST: there is one of that name; -ENOSPC: no room;
 *	-EINVAL: no such type
 * @CONTROL_DETACH: the guest is asked to let the device @name go; CONTROL_DETACHED tells that it has.
 *	-ENOENT: there is none. A guest without a driver for that never lets it go, and can be asked again. Those
 *	that were there from the start have the names of their options (name=NAME), or device0 and so on
 * @CONTROL_DUMP: the guest's memory and vCPUs are written to the file that comes with the request, as an
 *	ELF core; the machine stands still meanwhile, but for what devices still write into its memory, and
 *	goes on if it did before. -EBUSY: one is being written; -ESPIPE: it is no file
 */
enum control_what {
	CONTROL_INFO = 1,
	CONTROL_STATS,
	CONTROL_BUTTON,
	CONTROL_PAUSE,
	CONTROL_RESUME,
	CONTROL_STOP,
	CONTROL_BALLOON,
	CONTROL_CONSOLE,
	CONTROL_ATTACH,
	CONTROL_DETACH,
	CONTROL_DUMP,

	/* Events, of which each connection gets all. */
	CONTROL_DETACHED = 64,	/* device @name is gone */
	CONTROL_RESTARTED,	/* the process of device @name had ended, and another serves it */
};

/* Isolation of a device that is attached. */
enum control_isolation { CONTROL_GRANT, CONTROL_SHARED };

/**
 * struct control_request
 * @what: enum control_what
 * @serial: comes back in the answer
 * @value: as @what has it, else 0
 * @isolation: of a device to be attached, else 0
 * @reserved: 0
 * @type, @name: of a device, else all zeroes; end with a zero
 */
struct control_request {
	uint32_t what;
	uint32_t serial;
	uint64_t value;
	uint32_t isolation;
	uint32_t reserved;
	char type[CONTROL_TYPE];
	char name[CONTROL_NAME];
};
static_assert(sizeof(struct control_request) == 104, "part of the protocol");

/**
 * struct control_info
 * @pid: the launcher's
 * @paused: 1: no vCPU runs
 * @cpus: vCPUs
 * @devices: that the guest has, processes or not
 * @memory: bytes
 * @balloon: bytes that the guest does without now; @balloon_wanted: what it was asked for
 * @has_balloon: 1: there is one
 */
struct control_info {
	uint32_t pid;
	uint32_t paused;
	uint32_t cpus;
	uint32_t devices;
	uint64_t memory;
	uint64_t balloon;
	uint64_t balloon_wanted;
	uint32_t has_balloon;
	uint32_t reserved;
};

/**
 * struct control_stats - since the machine was started
 * @exits: of all vCPUs to the kernel (KVM_GET_STATS_FD, "exits")
 * @exits_user: of these, to the launcher
 * @halts: of these, HLT
 * @interrupts: injected
 * @faults: second-level page faults
 * @disk_requests, @disk_bytes: that went through the gate, of all disks
 * @net_requests, @net_bytes: of all networks
 * @restarts: of device processes
 *
 * On KVM's node, @exits_user is 0. Of devices with isolation=shared nothing is counted.
 */
struct control_stats {
	uint64_t exits;
	uint64_t exits_user;
	uint64_t halts;
	uint64_t interrupts;
	uint64_t faults;
	uint64_t disk_requests;
	uint64_t disk_bytes;
	uint64_t net_requests;
	uint64_t net_bytes;
	uint64_t restarts;
};

/**
 * struct control_answer - to a request; or an event
 * @what: of the request; or the event's
 * @serial: of the request; an event's is 0
 * @error: 0 or a negative errno
 * @reserved: 0
 * @name: of an event's device
 */
struct control_answer {
	uint32_t what;
	uint32_t serial;
	int32_t error;
	uint32_t reserved;
	union {
		struct control_info info;
		struct control_stats stats;
		char name[CONTROL_NAME];
		uint8_t space[128];
	};
};
static_assert(sizeof(struct control_answer) == 144, "part of the protocol");

/* How a machine ended: what is in the file of --ended then. Nothing in it: the launcher was killed. */
enum control_end {
	CONTROL_END_OFF = 1,	/* the guest powered off */
	CONTROL_END_RESET,	/* it asked for a reset */
	CONTROL_END_CRASH,	/* it crashed: a triple fault, or worse */
	CONTROL_END_STATUS,	/* it wrote @status to the exit port */
	CONTROL_END_ASKED,	/* CONTROL_STOP, or a signal */
	CONTROL_END_FAILED,	/* the launcher could not go on, or not begin */
};

/**
 * struct control_ended
 * @end: enum control_end
 * @status: the launcher's exit status; 0 after CONTROL_STOP
 * @text: what there is to say, as on its standard error; ends with a zero
 */
struct control_ended {
	uint32_t end;
	int32_t status;
	char text[CONTROL_TEXT];
};
static_assert(sizeof(struct control_ended) == 136, "part of the protocol");

/*
 * The supervisor's own socket (--supervisor), also of SOCK_SEQPACKET: it is told of devices to be attached. Only
 * who has the rights to open what they are made of is to have a connection to it.
 */

/**
 * struct supervisor_add - look after one more device
 * @type: "blk", "net" or "fs"
 * @mac: of a network, may be empty; @tag: of a directory
 * @flags: SUPERVISOR_ADD_
 *
 * With it comes the descriptor of the disk, the tap or the directory. The answer is a struct
 * supervisor_added, and with it, where there was no error, the link for CONTROL_ATTACH.
 * -ENOSPC: too many devices.
 */
struct supervisor_add {
	char type[CONTROL_TYPE];
	char mac[24];
	char tag[36];
	uint32_t flags;
};
static_assert(sizeof(struct supervisor_add) == 80, "part of the protocol");

#define SUPERVISOR_ADD_READ_ONLY	(1u << 0)
#define SUPERVISOR_ADD_DIRECT		(1u << 1)
#define SUPERVISOR_ADD_WRITABLE		(1u << 2)
#define SUPERVISOR_ADD_QCOW2		(1u << 3)

struct supervisor_added {
	int32_t error;
};

#endif /* MOAT_CONTROL_H */
