/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A vhost-user back end that keeps to the protocol but for one message, in a thread of its own. */
#ifndef VHOST_MOCK_H
#define VHOST_MOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define MOCK_REQUESTS	40
#define MOCK_QUEUES	4
#define MOCK_FEATURES	(1ULL << 32 | 1ULL << 30 | 1ULL << 29 | 1ULL << 28 | 0x246)
#define MOCK_PROTOCOL	(1ULL << 0 | 1ULL << 3 | 1ULL << 5 | 1ULL << 9 | 1ULL << 12 | 1ULL << 15)
#define MOCK_INFLIGHT	4096

enum mock_fault {
	MOCK_GOOD,
	MOCK_SILENT,		/* no answer */
	MOCK_DRIP,		/* an answer byte by byte, for ever too late */
	MOCK_DEAD,		/* the end in place of an answer */
	MOCK_DEAD_HEADER,	/* within its header */
	MOCK_DEAD_PAYLOAD,	/* behind its header */
	MOCK_SHORT,		/* an answer of fewer bytes */
	MOCK_LONG,		/* of more */
	MOCK_EMPTY,
	MOCK_HUGE,		/* it says that it has 4 GiB */
	MOCK_OTHER,		/* an answer to something else */
	MOCK_NO_REPLY,		/* not flagged as one */
	MOCK_BAD_VERSION,
	MOCK_FD,		/* a descriptor more than there are to be */
	MOCK_FDS,		/* more than any message has */
	MOCK_NO_FD,		/* one less, where there is to be one */
	MOCK_REFUSE,		/* acknowledged as failed */
	MOCK_NOISE,		/* what answers no request */
	MOCK_FAULTS
};

/**
 * struct mock - the back end
 * @fault: what it does wrong, at the request @at
 * @faulty: it had the occasion to
 * @seen: how often each request came
 * @wrong: messages of the front end's that had another length, or other descriptors
 * @requests: where it may send its own
 * @memory, @inflight: the descriptors that it got, and
 * @kick, @call, @base: what it got for its queues
 * @enabled: how many of these are
 */
struct mock {
	int fd;
	enum mock_fault fault;
	unsigned int at;
	uint64_t features;
	uint64_t protocol;
	uint64_t queues;
	uint64_t inflight_size;
	uint8_t config[256];
	bool faulty;
	bool ack;
	unsigned int seen[MOCK_REQUESTS];
	unsigned int wrong;
	int requests;
	int memory;
	int inflight;
	int kick[MOCK_QUEUES];
	int call[MOCK_QUEUES];
	uint32_t base[MOCK_QUEUES];
	unsigned int enabled;
	pthread_t thread;
};

void mock_init(struct mock *mock, int fd);

/* Serve until the front end goes or the fault says so. */
void mock_serve(struct mock *mock);
void mock_start(struct mock *mock);

/* Waits for the end of what mock_start() started. */
void mock_join(struct mock *mock);

/* Closes all that it has. */
void mock_finish(struct mock *mock);

/* How many descriptors this process has open. */
unsigned int mock_descriptors(void);

#endif /* VHOST_MOCK_H */
