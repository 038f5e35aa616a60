// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-net (virtio 1.2, section 5.1) on the queues of a tap: the device round its rings. Of pair
 * n, ring 2n is to the guest and ring 2n + 1 from it. The control queue, by which a driver says
 * how many pairs it uses, is the front end's, which then enables the rings: a pair without rings is
 * one that the host's kernel does not use either.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "devmodel/device.h"
#include "devmodel/net/net.h"
#include "devmodel/net/queue.h"
#include "devmodel/net/tap.h"
#include "userspace/lib/fd.h"

/* What guest and host may leave undone in frames, which is the tap's work as much as ours. */
#define NET_OFFLOADS \
	(1ULL << VIRTIO_NET_F_CSUM | \
	 1ULL << VIRTIO_NET_F_HOST_TSO4 | 1ULL << VIRTIO_NET_F_HOST_TSO6 | \
	 1ULL << VIRTIO_NET_F_HOST_ECN | 1ULL << VIRTIO_NET_F_GUEST_CSUM | \
	 1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6 | \
	 1ULL << VIRTIO_NET_F_GUEST_ECN)

/**
 * struct net_pair - two rings, and the queue of the tap that they are the other end of
 * @used: by the host's kernel
 * @rx_active, @tx_active: the ring is served
 */
struct net_pair {
	int tap;
	bool used;
	bool rx_active;
	bool tx_active;
	struct net_rx rx;
	struct net_tx tx;
};

struct net {
	struct device dev;
	struct device_ops ops;
	struct dev_memory memory;
	struct virtio_net_config config;
	bool stream;
	uint64_t features;
	struct limit limit[NET_DIRECTIONS];
	unsigned int pairs;
	struct net_pair pair[];
};

static uint64_t net_features(struct device *dev)
{
	return ((struct net *)dev)->features;
}

static void net_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct net *)dev)->config + offset, len);
}

static void pair_stop(struct net_pair *pair)
{
	if (pair->rx_active)
		queue_stop(&pair->rx.queue);
	if (pair->tx_active)
		queue_stop(&pair->tx.queue);
	pair->rx_active = false;
	pair->tx_active = false;
}

static void net_stop(struct device *dev)
{
	struct net *net = (struct net *)dev;

	for (unsigned int i = 0; i < net->pairs; i++)
		pair_stop(&net->pair[i]);
}

/* A pair alone is always used: its tap may be one that cannot be otherwise. */
static int pair_use(const struct net *net, struct net_pair *pair, bool use)
{
	int err;

	if (net->pairs == 1 || pair->used == use)
		return 0;
	err = tap_use(pair->tap, use);
	if (!err)
		pair->used = use;
	return err;
}

static int pair_start(const struct net *net, struct net_pair *pair, const struct dev_vring *rings,
		      uint64_t features)
{
	int err = 0;

	if (rings[0].size) {
		err = rx_start(&pair->rx, &net->memory, &rings[0], features);
		pair->rx_active = !err;
	}
	if (!err && rings[1].size) {
		err = tx_start(&pair->tx, &net->memory, &rings[1], features);
		pair->tx_active = !err;
	}
	return err;
}

/* -EIO is of the tap: other errors of it would be taken for those of rings. */
static int net_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		     const struct dev_vring *rings)
{
	struct net *net = (struct net *)dev;
	int err = 0;

	net->memory = *memory;
	if (!net->stream && tap_set_up(net->pair[0].tap, queue_header(features), features))
		return -EIO;
	for (unsigned int i = 0; i < net->pairs; i++)
		if (pair_use(net, &net->pair[i], rings[2 * i].size || rings[2 * i + 1].size))
			return -EIO;
	for (unsigned int i = 0; i < net->pairs && !err; i++)
		err = pair_start(net, &net->pair[i], &rings[2 * i], features);
	if (err)
		net_stop(dev);
	return err;
}

static void net_destroy(struct device *dev)
{
	struct net *net = (struct net *)dev;

	for (unsigned int i = 0; i < net->pairs; i++)
		fd_close(net->pair[i].tap);
	free(net);
}

static const struct device_ops net_ops = {
	.name = "net",
	.virtio_id = VIRTIO_ID_NET,
	.queue_size_max = VIRTQ_SIZE_MAX,
	.config_size = offsetof(struct virtio_net_config, speed),
	.features = net_features,
	.config_read = net_config_read,
	.start = net_start,
	.stop = net_stop,
	.destroy = net_destroy,
};

static void count_sum(struct net_counts *sum, const struct net_counts *counts)
{
	sum->frames += __atomic_load_n(&counts->frames, __ATOMIC_RELAXED);
	sum->bytes += __atomic_load_n(&counts->bytes, __ATOMIC_RELAXED);
	sum->dropped += __atomic_load_n(&counts->dropped, __ATOMIC_RELAXED);
}

struct net_counts net_counts(const struct device *dev, enum net_direction direction)
{
	const struct net *net = (const struct net *)dev;
	struct net_counts sum = { 0 };

	for (unsigned int i = 0; i < net->pairs; i++)
		count_sum(&sum, direction == NET_RECEIVED ? &net->pair[i].rx.queue.counts :
							    &net->pair[i].tx.queue.counts);
	return sum;
}

static void net_configure(struct net *net, const struct net_options *options)
{
	net->config.max_virtqueue_pairs = options->pairs;
	net->config.mtu = options->mtu;
	memcpy(net->config.mac, options->mac, sizeof(net->config.mac));
	net->stream = options->stream;
	net->features = VIRTQ_FEATURES | 1ULL << VIRTIO_NET_F_MRG_RXBUF;
	if (!options->stream)
		net->features |= NET_OFFLOADS;
	if (options->has_mac)
		net->features |= 1ULL << VIRTIO_NET_F_MAC;
	if (options->mtu)
		net->features |= 1ULL << VIRTIO_NET_F_MTU;
	if (options->pairs > 1)
		net->features |= 1ULL << VIRTIO_NET_F_MQ;
}

static void pair_init(struct net *net, struct net_pair *pair, int tap, const struct net_options *options)
{
	pair->tap = tap;
	pair->used = true;
	rx_init(&pair->rx, tap, options, &net->limit[NET_RECEIVED]);
	tx_init(&pair->tx, tap, options, &net->limit[NET_SENT]);
}

int net_create(const struct net_options *options, struct device **ret)
{
	struct net *net;

	if (!options->pairs || options->pairs > (options->stream ? 1 : NET_PAIRS_MAX))
		return -EINVAL;
	net = calloc(1, sizeof(*net) + options->pairs * sizeof(net->pair[0]));
	if (!net)
		return -ENOMEM;
	net->dev.ops = &net->ops;
	net->ops = net_ops;
	net->ops.queue_count = 2 * options->pairs;
	net->pairs = options->pairs;
	net_configure(net, options);
	for (unsigned int i = 0; i < NET_DIRECTIONS; i++)
		limit_init(&net->limit[i], options->bytes_per_second[i],
			   options->frames_per_second[i]);
	for (unsigned int i = 0; i < net->pairs; i++)
		pair_init(net, &net->pair[i], options->tap[i], options);
	*ret = &net->dev;
	return 0;
}
