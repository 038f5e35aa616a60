/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the node counts of a vCPU, by KVM_GET_STATS_FD. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <stdint.h>

enum { STATS_EXITS, STATS_EXITS_USER, STATS_HALTS, STATS_INTERRUPTS, STATS_FAULTS, STATS_COUNT };

/**
 * struct stats - where the counters are
 * @fd: -1: there are none
 * @offset: in it; 0: the node does not count that
 */
struct stats {
	int fd;
	uint64_t offset[STATS_COUNT];
};

/* Before the vCPU runs, as the node lets nobody at it then. Without counters it is fine, too. */
void stats_open(struct stats *stats, int vcpu);
void stats_close(struct stats *stats);

/* What a counter is now; 0 for one that there is not. */
uint64_t stats_read(const struct stats *stats, unsigned int which);

#endif /* VMM_STATS_H */
