/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Messages of vhost-user: one from the socket, and a reader for each kind of argument. */
#ifndef DEVMODEL_VHOST_USER_MESSAGE_H
#define DEVMODEL_VHOST_USER_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "include/moat/vhost_user.h"

/**
 * struct message - one message, in memory that no peer can change
 * @payload: header.size bytes of it, as they came; the readers make sense of them
 * @fds: descriptors that came with it and that nobody has taken yet, and -1
 * @fd_count: of those that came
 * @fault: what is wrong with it, where a function here returned -EPROTO
 */
struct message {
	struct vhost_user_header header;
	uint8_t payload[sizeof(struct vhost_user_config)];
	int fds[VHOST_USER_FDS_MAX];
	unsigned int fd_count;
	const char *fault;
};

/**
 * message_receive - wait for the next message
 * Return: 1; 0 where the peer has gone; -EPROTO for what is no message; -ETIMEDOUT where the peer
 * stopped in the middle of one (if the socket has a time-out); another negative errno.
 * In each case message_finish() has to follow.
 */
int message_receive(int socket, struct message *msg);

/* Closes what descriptors nobody has taken. */
void message_finish(struct message *msg);

/* A descriptor of the message, which is the caller's from here on. */
int message_take_fd(struct message *msg, unsigned int index);

/* Marks the message as malformed. Return: -EPROTO. */
int message_bad(struct message *msg, const char *fault);

/**
 * message_reply - answer a message
 * @fd: goes with it, and stays the caller's; -1 for none
 *
 * Return: 0 or a negative errno.
 */
int message_reply(int socket, const struct message *msg, const void *payload, size_t size, int fd);

/* A message of one's own, without an argument; -ETIMEDOUT where the peer does not read them. */
int message_send(int socket, uint32_t request);

/*
 * The readers: the length must be exactly that of the argument, and the descriptors as many as
 * belong to it. What they return is checked for all that can be told from the message alone.
 * Return: 0 or -EPROTO.
 */
int message_read_none(struct message *msg);
int message_read_u64(struct message *msg, uint64_t *ret_value);
int message_read_vring_state(struct message *msg, struct vhost_user_vring_state *ret_state);
int message_read_vring_addr(struct message *msg, struct vhost_user_vring_addr *ret_addr);

/* One descriptor, to be taken, if @ret_has_fd. */
int message_read_vring_fd(struct message *msg, uint32_t *ret_index, bool *ret_has_fd);

/*
 * No region is empty, none wraps, none overlaps another; a descriptor for each. Sorted by address,
 * and the descriptors with them.
 */
int message_read_memory(struct message *msg, struct vhost_user_memory *ret_memory);

/* One descriptor, to be taken. */
int message_read_fd(struct message *msg);

/* offset + size do not pass VHOST_USER_CONFIG_MAX. */
int message_read_config(struct message *msg, struct vhost_user_config *ret_config);

/* With @has_fd one descriptor, to be taken. */
int message_read_inflight(struct message *msg, bool has_fd, struct vhost_user_inflight *ret);

#endif /* DEVMODEL_VHOST_USER_MESSAGE_H */
