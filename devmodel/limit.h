/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* How much of a device may be used in a second, by all of its queues together. */
#ifndef DEVMODEL_LIMIT_H
#define DEVMODEL_LIMIT_H

#include <pthread.h>
#include <stdint.h>

/**
 * struct limit_rate - one limit
 * @per_second: 0: there is none
 * @paid_at: when, on the monotonic clock in nanoseconds, what was taken so far is paid for
 */
struct limit_rate {
	uint64_t per_second;
	uint64_t paid_at;
};

struct limit {
	pthread_mutex_t lock;
	struct limit_rate bytes;
	struct limit_rate ops;
};

void limit_init(struct limit *limit, uint64_t bytes_per_second, uint64_t ops_per_second);

/* Milliseconds until the next request may begin; 0: now. */
int limit_wait(struct limit *limit);

/* One request of @bytes begins. */
void limit_take(struct limit *limit, uint64_t bytes);

#endif /* DEVMODEL_LIMIT_H */
