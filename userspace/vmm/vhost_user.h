/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The front end's side of the vhost-user protocol. It carries what its caller gives it: where guest
 * memory and rings are, and whose, is not its business.
 */
#ifndef VMM_VHOST_USER_H
#define VMM_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/moat/vhost_user.h"

/**
 * struct vhost_user - a connection to a back end
 * @name: what messages call it
 * @socket: -1: there is no connection
 * @requests: where the back end sends requests of its own, or -1
 * @features: what it offers; nothing else is
 * @protocol: protocol features in use
 * @queues: how many it has; 1 where it cannot say
 * @deadline: on CLOCK_MONOTONIC, in ms; by vhost_user_begin()
 *
 * Calls that return an error have said why, and leave the connection of no use: what is left to do
 * is vhost_user_disconnect(). The exception is -EREMOTEIO: the back end refused, in due form.
 */
struct vhost_user {
	const char *name;
	int socket;
	int requests;
	uint64_t features;
	uint64_t protocol;
	uint64_t queues;
	int64_t deadline;
};

/**
 * struct vhost_user_map - a piece of memory that the back end is to map
 * @gpa: what descriptors call its first byte
 * @user: what struct vhost_user_vring calls it
 * @offset: where it is in @fd
 */
struct vhost_user_map {
	uint64_t gpa;
	uint64_t size;
	uint64_t user;
	uint64_t offset;
	int fd;
};

/**
 * struct vhost_user_vring - a split virtqueue
 * @base: index into the available ring of what is to be taken first
 * @desc, @avail, @used: in terms of a piece's @user
 */
struct vhost_user_vring {
	uint16_t size;
	uint16_t base;
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	int kick;
	int call;
	int err;
};

/* From now on it is @fd that it speaks to, which it takes over; nothing is said yet. */
void vhost_user_connect(struct vhost_user *user, int fd);

/* Fine where there is no connection. */
void vhost_user_disconnect(struct vhost_user *user);

/* All calls that follow, together, are to be done in @ms, however slow the back end is. */
void vhost_user_begin(struct vhost_user *user, unsigned int ms);

/* The first call: owner, features, protocol features, channel for requests, number of queues. */
int vhost_user_negotiate(struct vhost_user *user);

bool vhost_user_has(const struct vhost_user *user, unsigned int protocol_feature);

/* @features: of those offered; the protocol's own is added. */
int vhost_user_set_features(struct vhost_user *user, uint64_t features);

/* At most VHOST_USER_REGIONS_MAX. */
int vhost_user_set_memory(struct vhost_user *user, const struct vhost_user_map *map,
			  unsigned int count);

/* Set a ring up; it is served once it is enabled. */
int vhost_user_set_vring(struct vhost_user *user, unsigned int index,
			 const struct vhost_user_vring *vring);
int vhost_user_enable_vring(struct vhost_user *user, unsigned int index, bool enable);

/* Stop a ring: nothing of it is in flight then. */
int vhost_user_stop_vring(struct vhost_user *user, unsigned int index, uint16_t *ret_base);

/* Only with VHOST_USER_PROTOCOL_F_CONFIG. All of it is read; @len at most VHOST_USER_CONFIG_MAX. */
int vhost_user_get_config(struct vhost_user *user, void *config, uint32_t len);
int vhost_user_set_config(struct vhost_user *user, uint32_t offset, const void *data, uint32_t len);

/**
 * vhost_user_get_inflight - how large a region the back end keeps its requests in flight in
 *
 * What it sends along as such a region is not used. One of the caller's, all zeroes, is as good.
 */
int vhost_user_get_inflight(struct vhost_user *user, uint16_t queues, uint16_t queue_size,
			    uint64_t *ret_size);
int vhost_user_set_inflight(struct vhost_user *user, int fd, uint64_t size, uint16_t queues,
			    uint16_t queue_size);

/* Has all that was sent been done? What has no answer of its own may be on its way until then. */
int vhost_user_sync(struct vhost_user *user);

/* Something came on the socket though nothing was asked. 0: it did not. */
int vhost_user_check(struct vhost_user *user);

/**
 * vhost_user_take_request - take a request of the back end's, and answer it
 * Return: 1: its configuration has changed; 0: there is none; a negative errno.
 */
int vhost_user_take_request(struct vhost_user *user);

#endif /* VMM_VHOST_USER_H */
