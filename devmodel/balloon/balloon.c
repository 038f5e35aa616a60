// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-balloon (virtio 1.2, section 5.5): pages that the driver gives up become holes in the file that
 * guest memory is, so that the host has them back at once. There are two ways: the balloon, into
 * which the driver puts pages as long as it holds fewer than the device asks for, by their numbers; and reports
 * of pages that are free just now, as pieces of chains, which it may use again as soon as the
 * report is given back.
 *
 * Whatever a driver names, what it loses is its own memory's content. This device has to have all of that
 * memory, so it is no process of its own.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devmodel/balloon/balloon.h"
#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

#define BALLOON_PAGE	4096ULL
#define BALLOON_NUMBERS	256	/* read at a time */

/* Neither statistics nor hints: so the reports' queue is the third. */
enum { BALLOON_INFLATE, BALLOON_DEFLATE, BALLOON_REPORT, BALLOON_QUEUES };

struct balloon {
	struct device dev;
	struct worker worker;
	struct dev_memory memory;
	struct virtio_balloon_config config;
	int config_event;
	struct virtq vq[BALLOON_QUEUES];
	bool active[BALLOON_QUEUES];
	struct virtq_chain chain;
};

/* What is in there is zeroes from now on, and takes no memory. */
static void memory_drop(void *at, size_t len)
{
	if (len)
		madvise(at, len, MADV_REMOVE);
}

/* A run of pages, whole in one region; else nothing. */
static void run_drop(const struct dev_memory *memory, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < memory->count; i++) {
		const struct dev_region *region = &memory->region[i];
		const uint64_t offset = gpa - region->gpa;

		if (gpa >= region->gpa && offset < region->size && len <= region->size - offset)
			memory_drop((char *)region->hva + offset, len);
	}
}

/* Numbers of pages, neighbours at once. */
static void balloon_inflate(struct balloon *balloon, struct virtq_chain *chain)
{
	uint32_t number[BALLOON_NUMBERS];
	uint64_t begin = 0, end = 0;
	size_t count;

	while ((count = chain_read(chain, number, sizeof(number)) / sizeof(number[0])))
		for (size_t i = 0; i < count; i++) {
			if (number[i] != end) {
				run_drop(&balloon->memory, begin * BALLOON_PAGE,
					 (end - begin) * BALLOON_PAGE);
				begin = number[i];
			}
			end = (uint64_t)number[i] + 1;
		}
	run_drop(&balloon->memory, begin * BALLOON_PAGE, (end - begin) * BALLOON_PAGE);
}

/* The whole pages of each piece. */
static void balloon_report(const struct virtq_chain *chain)
{
	for (unsigned int i = 0; i < chain->writable_count; i++) {
		const struct iovec *iov = &chain->writable[i];
		const size_t before = -(uintptr_t)iov->iov_base % BALLOON_PAGE;

		if (iov->iov_len > before)
			memory_drop((char *)iov->iov_base + before,
				    (iov->iov_len - before) / BALLOON_PAGE * BALLOON_PAGE);
	}
}

/* Deflated pages are there again by being touched. */
static void balloon_take(struct balloon *balloon, unsigned int queue)
{
	if (queue == BALLOON_INFLATE)
		balloon_inflate(balloon, &balloon->chain);
	else if (queue == BALLOON_REPORT)
		balloon_report(&balloon->chain);
	virtq_push(&balloon->vq[queue], &balloon->chain, 0);
}

static void balloon_serve(struct balloon *balloon, unsigned int queue)
{
	struct virtq *vq = &balloon->vq[queue];

	do {
		virtq_kick_disable(vq);
		while (!worker_ends(&balloon->worker) && virtq_pop(vq, &balloon->chain) > 0) {
			balloon_take(balloon, queue);
			virtq_notify(vq);
		}
	} while (!worker_ends(&balloon->worker) && virtq_kick_enable(vq));
}

static void *balloon_run(void *arg)
{
	struct pollfd wait[1 + BALLOON_QUEUES];
	struct balloon *balloon = arg;
	eventfd_t count;

	for (unsigned int i = 0; i < BALLOON_QUEUES; i++) {
		wait[1 + i] = (struct pollfd){
			.fd = balloon->active[i] ? balloon->vq[i].kick : -1, .events = POLLIN,
		};
		if (balloon->active[i])
			balloon_serve(balloon, i);	/* there may have been kicks before */
	}
	while (worker_wait(&balloon->worker, wait, 1 + BALLOON_QUEUES))
		for (unsigned int i = 0; i < BALLOON_QUEUES; i++)
			if (wait[1 + i].revents) {
				eventfd_read(balloon->vq[i].kick, &count);
				balloon_serve(balloon, i);
			}
	return NULL;
}

static uint64_t balloon_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES | 1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
	       1ULL << VIRTIO_BALLOON_F_REPORTING;
}

static void balloon_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct balloon *)dev)->config + offset, len);
}

/* Only how many there are in it is the driver's to say; and nothing is made of that. */
static void balloon_config_write(struct device *dev, uint32_t offset, const void *buf, uint32_t len)
{
	struct balloon *balloon = (struct balloon *)dev;

	if (offset == offsetof(struct virtio_balloon_config, actual) &&
	    len == sizeof(balloon->config.actual))
		__atomic_store_n(&balloon->config.actual, *(const uint32_t *)buf, __ATOMIC_RELAXED);
}

static int balloon_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
			 const struct dev_vring *rings)
{
	struct balloon *balloon = (struct balloon *)dev;

	balloon->memory = *memory;
	for (unsigned int i = 0; i < BALLOON_QUEUES; i++) {
		int err = 0;

		balloon->active[i] = rings[i].size;
		if (rings[i].size)
			err = virtq_init(&balloon->vq[i], &balloon->memory, &rings[i], features);
		if (err)
			return err;
	}
	return worker_start(&balloon->worker, "balloon", balloon_run, balloon);
}

static void balloon_stop(struct device *dev)
{
	worker_stop(&((struct balloon *)dev)->worker);
}

static void balloon_destroy(struct device *dev)
{
	close(((struct balloon *)dev)->config_event);
	free(dev);
}

static const struct device_ops balloon_ops = {
	.name = "balloon",
	.virtio_id = VIRTIO_ID_BALLOON,
	.queue_count = BALLOON_QUEUES,
	.queue_size_max = 128,
	.config_size = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id),
	.features = balloon_features,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.start = balloon_start,
	.stop = balloon_stop,
	.destroy = balloon_destroy,
};

int balloon_config_event(const struct device *dev)
{
	return ((const struct balloon *)dev)->config_event;
}

void balloon_ask(struct device *dev, uint32_t pages)
{
	struct balloon *balloon = (struct balloon *)dev;

	__atomic_store_n(&balloon->config.num_pages, pages, __ATOMIC_RELAXED);
	eventfd_write(balloon->config_event, 1);
}

void balloon_look(const struct device *dev, uint32_t *ret_asked, uint32_t *ret_actual)
{
	const struct balloon *balloon = (const struct balloon *)dev;

	*ret_asked = __atomic_load_n(&balloon->config.num_pages, __ATOMIC_RELAXED);
	*ret_actual = __atomic_load_n(&balloon->config.actual, __ATOMIC_RELAXED);
}

int balloon_create(uint32_t pages, struct device **ret)
{
	struct balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon)
		return -ENOMEM;
	balloon->config_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (balloon->config_event < 0) {
		free(balloon);
		return -errno;
	}
	balloon->dev.ops = &balloon_ops;
	balloon->config.num_pages = pages;
	*ret = &balloon->dev;
	return 0;
}
