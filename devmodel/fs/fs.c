// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-fs (virtio 1.2, section 5.11), without a window for DAX. A queue of high priority, and those
 * for all other requests; each has a thread, in which a request is served from its beginning to its end.
 */
#include <errno.h>
#include <linux/virtio_fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "devmodel/fs/files.h"
#include "devmodel/fs/fs.h"
#include "devmodel/fs/tree.h"
#include "devmodel/worker.h"

struct fs_queue {
	struct files *files;
	struct worker worker;
	struct virtq vq;
	struct virtq_chain chain;
	struct request request;
};

/* @active: queues that serve their rings; the driver may do without some. */
struct fs {
	struct device dev;
	struct device_ops ops;
	struct dev_memory memory;
	struct virtio_fs_config config;
	struct files files;
	const char *root;
	bool active[FS_QUEUES_MAX + 1];
	struct fs_queue queue[];
};

static void queue_serve(struct fs_queue *queue)
{
	do {
		virtq_kick_disable(&queue->vq);
		while (!worker_ends(&queue->worker) && virtq_pop(&queue->vq, &queue->chain) > 0) {
			virtq_push(&queue->vq, &queue->chain,
				   files_serve(queue->files, &queue->request, &queue->chain));
			virtq_notify(&queue->vq);
		}
	} while (!worker_ends(&queue->worker) && virtq_kick_enable(&queue->vq));
}

static void *queue_run(void *arg)
{
	struct fs_queue *queue = arg;
	struct pollfd wait[] = { { 0 }, { .fd = queue->vq.kick, .events = POLLIN } };
	eventfd_t count;

	queue_serve(queue);		/* there may have been kicks before this thread */
	while (worker_wait(&queue->worker, wait, 2)) {
		eventfd_read(queue->vq.kick, &count);
		queue_serve(queue);
	}
	return NULL;
}

static int queue_start(struct fs_queue *queue, const struct dev_memory *memory,
		       const struct dev_vring *ring, uint64_t features)
{
	int err = virtq_init(&queue->vq, memory, ring, features);

	return err ? err : worker_start(&queue->worker, "fs", queue_run, queue);
}

static uint64_t fs_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

static void fs_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct fs *)dev)->config + offset, len);
}

/* The root is another one before the sandbox: so it is not opened sooner. */
static int fs_open_root(struct fs *fs)
{
	int fd;

	if (fs->files.root.fd >= 0)
		return 0;
	umask(0);	/* the modes of new files are the guest's to choose */
	fd = tree_root(fs->root);
	if (fd < 0)
		return fd;
	fs->files.root.fd = fd;
	return 0;
}

static void fs_stop(struct device *dev)
{
	struct fs *fs = (struct fs *)dev;

	for (unsigned int i = 0; i < fs->ops.queue_count; i++)
		if (fs->active[i])
			worker_stop(&fs->queue[i].worker);
	memset(fs->active, 0, sizeof(fs->active));
}

static int fs_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		    const struct dev_vring *rings)
{
	struct fs *fs = (struct fs *)dev;
	int err = fs_open_root(fs);

	fs->memory = *memory;
	for (unsigned int i = 0; i < fs->ops.queue_count && !err; i++) {
		if (!rings[i].size)
			continue;
		err = queue_start(&fs->queue[i], &fs->memory, &rings[i], features);
		fs->active[i] = !err;
	}
	if (err)
		fs_stop(dev);
	return err;
}

static void fs_destroy(struct device *dev)
{
	struct fs *fs = (struct fs *)dev;

	table_finish(&fs->files.handles);
	table_finish(&fs->files.nodes);
	if (fs->files.root.fd >= 0)
		close(fs->files.root.fd);
	free(fs);
}

static const struct device_ops fs_ops = {
	.name = "fs",
	.virtio_id = VIRTIO_ID_FS,
	.queue_size_max = VIRTQ_SIZE_MAX,
	.config_size = sizeof(struct virtio_fs_config),
	.features = fs_features,
	.config_read = fs_config_read,
	.start = fs_start,
	.stop = fs_stop,
	.destroy = fs_destroy,
};

static bool options_valid(const struct fs_options *options)
{
	const size_t tag = strlen(options->tag);

	return tag && tag <= FS_TAG_MAX && options->queues && options->queues <= FS_QUEUES_MAX &&
	       options->nodes && options->nodes <= TABLE_LIMIT_MAX &&
	       options->handles && options->handles <= TABLE_LIMIT_MAX;
}

static int files_init(struct files *files, const struct fs_options *options)
{
	int err = table_init(&files->nodes, options->nodes);

	if (err)
		return err;
	err = table_init(&files->handles, options->handles);
	if (err) {
		table_finish(&files->nodes);
		return err;
	}
	files->self = options->self;
	files->empty = options->empty;
	files->writable = options->writable;
	files->root = (struct entry){ .id = FUSE_ROOT_ID, .count = 1, .fd = -1 };
	return 0;
}

int fs_create(const struct fs_options *options, struct device **ret)
{
	const unsigned int queues = options->queues + 1;
	struct fs *fs;
	int err;

	if (!options_valid(options))
		return -EINVAL;
	fs = calloc(1, sizeof(*fs) + queues * sizeof(fs->queue[0]));
	if (!fs)
		return -ENOMEM;
	err = files_init(&fs->files, options);
	if (err) {
		free(fs);
		return err;
	}
	fs->dev.ops = &fs->ops;
	fs->ops = fs_ops;
	fs->ops.queue_count = queues;
	fs->root = options->root;
	memcpy(fs->config.tag, options->tag, strlen(options->tag));
	fs->config.num_request_queues = options->queues;
	for (unsigned int i = 0; i < queues; i++)
		fs->queue[i].files = &fs->files;
	*ret = &fs->dev;
	return 0;
}
