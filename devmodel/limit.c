// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A request may begin when all before it are paid for, and is paid for afterwards: so none is too
 * large for a limit, and on average the limit is kept. Time in which nothing was taken is worth
 * something for LIMIT_BURST_NS, and then lost.
 */
#include <time.h>

#include "devmodel/limit.h"

#define NS_PER_MS	1000000ULL
#define NS_PER_SECOND	1000000000ULL
#define LIMIT_BURST_NS	(100 * NS_PER_MS)
#define LIMIT_WAIT_MS	1000

static uint64_t limit_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static void rate_take(struct limit_rate *rate, uint64_t now, uint64_t amount)
{
	if (!rate->per_second)
		return;
	if (rate->paid_at + LIMIT_BURST_NS < now)
		rate->paid_at = now - LIMIT_BURST_NS;
	rate->paid_at += amount * NS_PER_SECOND / rate->per_second;
}

static uint64_t rate_wait(const struct limit_rate *rate, uint64_t now)
{
	return rate->paid_at > now ? rate->paid_at - now : 0;
}

void limit_init(struct limit *limit, uint64_t bytes_per_second, uint64_t ops_per_second)
{
	*limit = (struct limit){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.bytes.per_second = bytes_per_second,
		.ops.per_second = ops_per_second,
	};
}

int limit_wait(struct limit *limit)
{
	uint64_t now, bytes, ops, ms;

	if (!limit->bytes.per_second && !limit->ops.per_second)
		return 0;
	now = limit_now();
	pthread_mutex_lock(&limit->lock);
	bytes = rate_wait(&limit->bytes, now);
	ops = rate_wait(&limit->ops, now);
	pthread_mutex_unlock(&limit->lock);
	ms = ((bytes > ops ? bytes : ops) + NS_PER_MS - 1) / NS_PER_MS;
	return ms < LIMIT_WAIT_MS ? ms : LIMIT_WAIT_MS;
}

/* @bytes fit in 32 bits, as those of a chain do: the product cannot overflow. */
void limit_take(struct limit *limit, uint64_t bytes)
{
	uint64_t now;

	if (!limit->bytes.per_second && !limit->ops.per_second)
		return;
	now = limit_now();
	pthread_mutex_lock(&limit->lock);
	rate_take(&limit->bytes, now, bytes);
	rate_take(&limit->ops, now, 1);
	pthread_mutex_unlock(&limit->lock);
}
