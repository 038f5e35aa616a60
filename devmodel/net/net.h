/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_NET_NET_H
#define DEVMODEL_NET_NET_H

#include <linux/if_ether.h>
#include <stdbool.h>
#include <stdint.h>

#define NET_PAIRS_MAX	8

/* The least and the most that --mtu can be, as the standard has it. */
#define NET_MTU_MIN	68
#define NET_MTU_MAX	65535

struct device;

/* Received is what goes to the guest, sent is what comes from it. */
enum net_direction { NET_RECEIVED, NET_SENT, NET_DIRECTIONS };

/**
 * struct net_options - what a network device is made of
 * @tap: a queue of a tap for each pair of rings, non-blocking; or the one end of a stream
 * @stream: the latter: one pair, and the guest and the host leave nothing undone in frames
 * @gone: called by a thread of the device where a stream has ended, and may not return. May be NULL
 * @pairs: 1 to NET_PAIRS_MAX
 * @has_mac: the guest is told @mac
 * @mtu: the guest is told this; 0: it is not
 * @bytes_per_second, @frames_per_second: the most that all pairs may pass in that direction; 0: any
 */
struct net_options {
	int tap[NET_PAIRS_MAX];
	unsigned int pairs;
	bool stream;
	void (*gone)(void);
	bool has_mac;
	uint8_t mac[ETH_ALEN];
	uint16_t mtu;
	uint64_t bytes_per_second[NET_DIRECTIONS];
	uint64_t frames_per_second[NET_DIRECTIONS];
};

/* @dropped: frames that were no frames, that the other side refused, or had no room for ever. */
struct net_counts {
	uint64_t frames;
	uint64_t bytes;
	uint64_t dropped;
};

/**
 * net_create - a network device on the queues of a tap
 * @options: its descriptors are the device's from here on, but not on failure
 *
 * Return: 0 or a negative errno.
 */
int net_create(const struct net_options *options, struct device **ret);

/* What has passed since the device was made. */
struct net_counts net_counts(const struct device *dev, enum net_direction direction);

#endif /* DEVMODEL_NET_NET_H */
