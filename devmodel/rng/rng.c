// SPDX-License-Identifier: MIT OR GPL-2.0
/* virtio-rng (virtio 1.2, section 5.4): buffers are filled with what the host's kernel has. */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "devmodel/device.h"
#include "devmodel/rng/rng.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

/* The most that one request gets, so that a guest cannot have the host compute for long. */
#define RNG_REQUEST_MAX	4096

struct rng {
	struct device dev;
	struct worker worker;
	struct dev_memory memory;
	struct virtq vq;
	struct virtq_chain chain;
};

static uint32_t rng_fill(struct virtq_chain *chain)
{
	uint8_t bytes[RNG_REQUEST_MAX];
	uint64_t want = iov_bytes(chain->writable, chain->writable_count);
	ssize_t got = getrandom(bytes, want < sizeof(bytes) ? want : sizeof(bytes), 0);

	return got < 0 ? 0 : chain_write(chain, bytes, got);
}

static void rng_serve(struct rng *rng)
{
	do {
		virtq_kick_disable(&rng->vq);
		while (!worker_ends(&rng->worker) && virtq_pop(&rng->vq, &rng->chain) > 0) {
			virtq_push(&rng->vq, &rng->chain, rng_fill(&rng->chain));
			virtq_notify(&rng->vq);
		}
	} while (!worker_ends(&rng->worker) && virtq_kick_enable(&rng->vq));
}

static void *rng_run(void *arg)
{
	struct rng *rng = arg;
	struct pollfd wait[] = { { 0 }, { .fd = rng->vq.kick, .events = POLLIN } };
	eventfd_t count;

	rng_serve(rng);		/* there may have been kicks before this thread */
	while (worker_wait(&rng->worker, wait, 2)) {
		eventfd_read(rng->vq.kick, &count);
		rng_serve(rng);
	}
	return NULL;
}

static uint64_t rng_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

static int rng_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		     const struct dev_vring *rings)
{
	struct rng *rng = (struct rng *)dev;
	int err;

	rng->memory = *memory;
	err = virtq_init(&rng->vq, &rng->memory, &rings[0], features);
	return err ? err : worker_start(&rng->worker, "rng", rng_run, rng);
}

static void rng_stop(struct device *dev)
{
	worker_stop(&((struct rng *)dev)->worker);
}

static void rng_destroy(struct device *dev)
{
	free(dev);
}

static const struct device_ops rng_ops = {
	.name = "rng",
	.virtio_id = VIRTIO_ID_RNG,
	.queue_count = 1,
	.queue_size_max = 16,
	.features = rng_features,
	.start = rng_start,
	.stop = rng_stop,
	.destroy = rng_destroy,
};

int rng_create(struct device **ret)
{
	struct rng *rng = calloc(1, sizeof(*rng));

	if (!rng)
		return -ENOMEM;
	rng->dev.ops = &rng_ops;
	*ret = &rng->dev;
	return 0;
}
