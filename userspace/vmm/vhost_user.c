// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * vhost-user, as the front end.
 *
 * The back end is not trusted. An answer has the request's number, the length that this request's
 * answer has, and the descriptors that it has; what is read from it is checked where it is read. A
 * back end that answers otherwise, or too late, is one that the connection is dropped to: there is
 * no way to know where in the stream one is.
 *
 * Nothing waits longer than the caller's deadline, for reading or writing, whatever the pieces.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/vhost_user.h"

/* Of one message; what is more is closed by the kernel. */
#define DESCRIPTORS_MAX		VHOST_USER_FDS_MAX

#define PROTOCOL_FEATURES	(1ULL << VHOST_USER_PROTOCOL_F_MQ | \
				 1ULL << VHOST_USER_PROTOCOL_F_REPLY_ACK | \
				 1ULL << VHOST_USER_PROTOCOL_F_BACKEND_REQ | \
				 1ULL << VHOST_USER_PROTOCOL_F_CONFIG | \
				 1ULL << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)

static const char *const request_names[] = {
	[VHOST_USER_GET_FEATURES] = "GET_FEATURES",
	[VHOST_USER_SET_FEATURES] = "SET_FEATURES",
	[VHOST_USER_SET_OWNER] = "SET_OWNER",
	[VHOST_USER_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[VHOST_USER_SET_VRING_NUM] = "SET_VRING_NUM",
	[VHOST_USER_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[VHOST_USER_SET_VRING_BASE] = "SET_VRING_BASE",
	[VHOST_USER_GET_VRING_BASE] = "GET_VRING_BASE",
	[VHOST_USER_SET_VRING_KICK] = "SET_VRING_KICK",
	[VHOST_USER_SET_VRING_CALL] = "SET_VRING_CALL",
	[VHOST_USER_SET_VRING_ERR] = "SET_VRING_ERR",
	[VHOST_USER_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[VHOST_USER_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[VHOST_USER_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
	[VHOST_USER_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[VHOST_USER_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
	[VHOST_USER_GET_CONFIG] = "GET_CONFIG",
	[VHOST_USER_SET_CONFIG] = "SET_CONFIG",
	[VHOST_USER_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
	[VHOST_USER_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
};

/* The specification ends it before the padding; most programs send that too. */
#define INFLIGHT_UNPADDED	offsetof(struct vhost_user_inflight, padding)

/* Descriptors that go with a message. */
struct descriptors {
	unsigned int count;
	int fd[DESCRIPTORS_MAX];
};

/**
 * struct reply - what the answer to a request is to be
 * @data: where its payload goes
 * @size: how long that is
 * @also: another length that is right, or 0
 * @fds: how many descriptors come with it
 */
struct reply {
	void *data;
	uint32_t size;
	uint32_t also;
	unsigned int fds;
};

static int user_fail(const struct vhost_user *user, uint32_t request, int err,
		     const char *what)
{
	log_error("%s: %s: %s", user->name, request_names[request], what);
	return err;
}

void vhost_user_begin(struct vhost_user *user, unsigned int ms)
{
	user->deadline = clock_ms() + ms;
}

/* Streams */

static int stream_wait(int fd, short events, int64_t deadline)
{
	struct pollfd wait = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = deadline - clock_ms();
		int n = poll(&wait, 1, left > 0 ? left : 0);

		if (n > 0)
			return 0;
		if (!n)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static void descriptors_close(struct descriptors *fds)
{
	while (fds->count)
		fd_close(fds->fd[--fds->count]);
}

/* Room for @max of them, and for no more. */
union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

/* All that came are kept, to be closed, up to as many as there can be. */
static void descriptors_take(struct descriptors *fds, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (fds->count < DESCRIPTORS_MAX)
				fds->fd[fds->count++] = fd;
			else
				fd_close(fd);
		}
	}
}

/* Some bytes. -EMSGSIZE: more descriptors came than any message has. */
static ssize_t stream_read_some(int fd, void *buf, size_t len, struct descriptors *fds)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	union control control;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -errno;
	descriptors_take(fds, &msg);
	if (!n)
		return -ECONNRESET;
	return msg.msg_flags & MSG_CTRUNC ? -EMSGSIZE : n;
}

static int stream_read(int fd, void *buf, size_t len, struct descriptors *fds, int64_t deadline)
{
	char *at = buf;

	while (len) {
		ssize_t n;
		int err = stream_wait(fd, POLLIN, deadline);

		if (err)
			return err;
		n = stream_read_some(fd, at, len, fds);
		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n < 0)
			return n;
		at += n;
		len -= n;
	}
	return 0;
}

static ssize_t stream_write_some(int fd, const void *buf, size_t len,
				 const struct descriptors *fds)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { 0 };
	ssize_t n;

	if (fds->count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(fds->count * sizeof(int));
		control.align = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(fds->count * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.align), fds->fd, fds->count * sizeof(int));
	}
	n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

/* Descriptors go with the first byte. */
static int stream_write(int fd, const void *buf, size_t len, const struct descriptors *fds,
			int64_t deadline)
{
	static const struct descriptors none;
	const char *at = buf;

	while (len) {
		ssize_t n = stream_write_some(fd, at, len, fds);

		if (n == -EAGAIN) {
			int err = stream_wait(fd, POLLOUT, deadline);

			if (err)
				return err;
		} else if (n < 0 && n != -EINTR) {
			return n;
		} else if (n > 0) {
			fds = &none;
			at += n;
			len -= n;
		}
	}
	return 0;
}

/* Messages */

static int user_send(struct vhost_user *user, uint32_t request, uint32_t flags,
		     const void *payload, uint32_t size, const struct descriptors *fds)
{
	struct {
		struct vhost_user_header header;
		char payload[sizeof(struct vhost_user_config)];
	} message = {
		.header = { .request = request, .flags = VHOST_USER_VERSION | flags, .size = size },
	};
	int err;

	_Static_assert(sizeof(struct vhost_user_config) >= sizeof(struct vhost_user_memory),
		       "the longest");
	if (size)
		memcpy(message.payload, payload, size);
	err = stream_write(user->socket, &message, sizeof(message.header) + size, fds,
			   user->deadline);
	return err ? user_fail(user, request, err, err == -ETIMEDOUT ?
			       "the back end does not take it" : strerror(-err)) : 0;
}

/* The answer to @request, with nothing in it looked at but what frames it. */
static int user_read_reply(struct vhost_user *user, uint32_t request,
			   const struct reply *reply, struct descriptors *fds)
{
	struct vhost_user_header header;
	int err = stream_read(user->socket, &header, sizeof(header), fds, user->deadline);

	if (err)
		return err;
	if (header.request != request ||
	    (header.flags & ~VHOST_USER_FLAG_NEED_REPLY) !=
		    (VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY) ||
	    (header.size != reply->size && (!reply->also || header.size != reply->also)))
		return -EPROTO;
	err = stream_read(user->socket, reply->data, header.size, fds, user->deadline);
	if (err)
		return err;
	return fds->count == reply->fds ? 0 : -EMSGSIZE;
}

static const char *user_reason(int err)
{
	switch (err) {
	case -EPROTO:
		return "the back end answers what is no answer to it";
	case -EMSGSIZE:
		return "the back end answers with descriptors that do not belong to it";
	case -ETIMEDOUT:
		return "the back end does not answer in time";
	case -ECONNRESET:
		return "the back end has gone";
	}
	return strerror(-err);
}

static int user_receive(struct vhost_user *user, uint32_t request, const struct reply *reply)
{
	struct descriptors fds = { 0 };
	int err = user_read_reply(user, request, reply, &fds);

	descriptors_close(&fds);
	return err ? user_fail(user, request, err, user_reason(err)) : 0;
}

static const struct descriptors no_descriptors;

/* A request that has an answer. */
static int user_ask(struct vhost_user *user, uint32_t request, const void *payload,
		    uint32_t size, const struct reply *reply)
{
	int err = user_send(user, request, 0, payload, size, &no_descriptors);

	return err ? err : user_receive(user, request, reply);
}

/* One that has none, but for the acknowledgement where that was negotiated: 0 for success. */
static int user_tell_with(struct vhost_user *user, uint32_t request, const void *payload,
			  uint32_t size, const struct descriptors *fds)
{
	bool ack = vhost_user_has(user, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	uint64_t status;
	const struct reply reply = { .data = &status, .size = sizeof(status) };
	int err = user_send(user, request, ack ? VHOST_USER_FLAG_NEED_REPLY : 0, payload, size,
			    fds);

	if (err || !ack)
		return err;
	err = user_receive(user, request, &reply);
	if (err || !status)
		return err;
	if (request == VHOST_USER_SET_CONFIG)
		return -EREMOTEIO;	/* what the guest writes must not fill the log */
	return user_fail(user, request, -EREMOTEIO, "the back end refuses");
}

static int user_tell(struct vhost_user *user, uint32_t request, const void *payload,
		     uint32_t size)
{
	return user_tell_with(user, request, payload, size, &no_descriptors);
}

static int user_tell_number(struct vhost_user *user, uint32_t request, uint64_t number)
{
	return user_tell(user, request, &number, sizeof(number));
}

static int user_tell_state(struct vhost_user *user, uint32_t request, unsigned int index,
			   uint32_t value)
{
	const struct vhost_user_vring_state state = { .index = index, .num = value };

	return user_tell(user, request, &state, sizeof(state));
}

static int user_tell_fd(struct vhost_user *user, uint32_t request, const void *payload,
			uint32_t size, int fd)
{
	const struct descriptors fds = { .count = 1, .fd = { fd } };

	return user_tell_with(user, request, payload, size, &fds);
}

static int user_ask_number(struct vhost_user *user, uint32_t request, uint64_t *ret)
{
	uint64_t number;
	const struct reply reply = { .data = &number, .size = sizeof(number) };
	int err = user_ask(user, request, NULL, 0, &reply);

	if (!err)
		*ret = number;
	return err;
}

/* Connection */

void vhost_user_connect(struct vhost_user *user, int fd)
{
	*user = (struct vhost_user){ .name = user->name, .socket = fd, .requests = -1 };
}

void vhost_user_disconnect(struct vhost_user *user)
{
	fd_close(user->socket);
	fd_close(user->requests);
	user->socket = -1;
	user->requests = -1;
}

bool vhost_user_has(const struct vhost_user *user, unsigned int protocol_feature)
{
	return user->protocol >> protocol_feature & 1;
}

static int user_set_requests(struct vhost_user *user)
{
	int err, ends[2];

	if (!vhost_user_has(user, VHOST_USER_PROTOCOL_F_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return user_fail(user, VHOST_USER_SET_BACKEND_REQ_FD, -errno, strerror(errno));
	err = user_tell_fd(user, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, ends[1]);
	fd_close(ends[1]);
	user->requests = ends[0];
	return err;
}

int vhost_user_negotiate(struct vhost_user *user)
{
	const uint64_t needed = 1ULL << VHOST_USER_F_PROTOCOL_FEATURES | 1ULL << VIRTIO_F_VERSION_1;
	uint64_t offered;
	int err = user_ask_number(user, VHOST_USER_GET_FEATURES, &user->features);

	if (err)
		return err;
	if (needed & ~user->features)
		return user_fail(user, VHOST_USER_GET_FEATURES, -ENOTSUP,
				 "the back end lacks virtio 1 or protocol features");
	err = user_ask_number(user, VHOST_USER_GET_PROTOCOL_FEATURES, &offered);
	if (!err)
		err = user_tell_number(user, VHOST_USER_SET_PROTOCOL_FEATURES,
				       offered & PROTOCOL_FEATURES);
	if (err)
		return err;
	user->protocol = offered & PROTOCOL_FEATURES;
	user->queues = 1;
	err = user_tell(user, VHOST_USER_SET_OWNER, NULL, 0);
	if (!err && vhost_user_has(user, VHOST_USER_PROTOCOL_F_MQ))
		err = user_ask_number(user, VHOST_USER_GET_QUEUE_NUM, &user->queues);
	return err ? err : user_set_requests(user);
}

/* Set-up */

int vhost_user_set_features(struct vhost_user *user, uint64_t features)
{
	return user_tell_number(user, VHOST_USER_SET_FEATURES,
				features | 1ULL << VHOST_USER_F_PROTOCOL_FEATURES);
}

int vhost_user_set_memory(struct vhost_user *user, const struct vhost_user_map *map,
			  unsigned int count)
{
	struct vhost_user_memory table = { .nregions = count };
	struct descriptors fds = { .count = count };

	for (unsigned int i = 0; i < count; i++) {
		table.regions[i] = (struct vhost_user_region){
			map[i].gpa, map[i].size, map[i].user, map[i].offset,
		};
		fds.fd[i] = map[i].fd;
	}
	return user_tell_with(user, VHOST_USER_SET_MEM_TABLE, &table,
			      offsetof(struct vhost_user_memory, regions[count]), &fds);
}

/* The descriptor is always there: one bit would say that it is not. */
static int user_set_event(struct vhost_user *user, uint32_t request, uint64_t index, int fd)
{
	return user_tell_fd(user, request, &index, sizeof(index), fd);
}

int vhost_user_set_vring(struct vhost_user *user, unsigned int index,
			 const struct vhost_user_vring *vring)
{
	const struct vhost_user_vring_addr address = {
		.index = index,
		.desc = vring->desc,
		.used = vring->used,
		.avail = vring->avail,
	};
	int err = user_tell_state(user, VHOST_USER_SET_VRING_NUM, index, vring->size);

	if (!err)
		err = user_tell_state(user, VHOST_USER_SET_VRING_BASE, index, vring->base);
	if (!err)
		err = user_tell(user, VHOST_USER_SET_VRING_ADDR, &address, sizeof(address));
	if (!err)
		err = user_set_event(user, VHOST_USER_SET_VRING_ERR, index, vring->err);
	if (!err)
		err = user_set_event(user, VHOST_USER_SET_VRING_CALL, index, vring->call);
	return err ? err : user_set_event(user, VHOST_USER_SET_VRING_KICK, index, vring->kick);
}

int vhost_user_enable_vring(struct vhost_user *user, unsigned int index, bool enable)
{
	return user_tell_state(user, VHOST_USER_SET_VRING_ENABLE, index, enable);
}

int vhost_user_stop_vring(struct vhost_user *user, unsigned int index, uint16_t *ret_base)
{
	struct vhost_user_vring_state state = { .index = index }, answer;
	const struct reply reply = { .data = &answer, .size = sizeof(answer) };
	int err = user_ask(user, VHOST_USER_GET_VRING_BASE, &state, sizeof(state), &reply);

	if (err)
		return err;
	if (answer.index != index || answer.num > UINT16_MAX)
		return user_fail(user, VHOST_USER_GET_VRING_BASE, -EPROTO, user_reason(-EPROTO));
	*ret_base = answer.num;
	return 0;
}

int vhost_user_get_config(struct vhost_user *user, void *config, uint32_t len)
{
	struct vhost_user_config request = { .size = len }, answer;
	const struct reply reply = { .data = &answer, .size = VHOST_USER_CONFIG_HEAD + len };
	int err = user_ask(user, VHOST_USER_GET_CONFIG, &request, VHOST_USER_CONFIG_HEAD + len,
			   &reply);

	if (err)
		return err;
	if (answer.offset || answer.size != len)
		return user_fail(user, VHOST_USER_GET_CONFIG, -EPROTO, user_reason(-EPROTO));
	memcpy(config, answer.region, len);
	return 0;
}

int vhost_user_set_config(struct vhost_user *user, uint32_t offset, const void *data, uint32_t len)
{
	struct vhost_user_config request = { .offset = offset, .size = len };

	memcpy(request.region, data, len);
	return user_tell(user, VHOST_USER_SET_CONFIG, &request, VHOST_USER_CONFIG_HEAD + len);
}

int vhost_user_get_inflight(struct vhost_user *user, uint16_t queues, uint16_t queue_size,
			    uint64_t *ret_size)
{
	const struct vhost_user_inflight request = {
		.num_queues = queues, .queue_size = queue_size,
	};
	struct vhost_user_inflight answer;
	const struct reply reply = {
		.data = &answer, .size = sizeof(answer), .also = INFLIGHT_UNPADDED, .fds = 1,
	};
	int err = user_ask(user, VHOST_USER_GET_INFLIGHT_FD, &request, sizeof(request), &reply);

	if (!err)
		*ret_size = answer.mmap_size;
	return err;
}

int vhost_user_set_inflight(struct vhost_user *user, int fd, uint64_t size, uint16_t queues,
			    uint16_t queue_size)
{
	const struct vhost_user_inflight inflight = {
		.mmap_size = size, .num_queues = queues, .queue_size = queue_size,
	};

	return user_tell_fd(user, VHOST_USER_SET_INFLIGHT_FD, &inflight, sizeof(inflight), fd);
}

int vhost_user_sync(struct vhost_user *user)
{
	uint64_t features;

	if (vhost_user_has(user, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return 0;
	return user_ask_number(user, VHOST_USER_GET_FEATURES, &features);
}

/* What the back end says by itself */

int vhost_user_check(struct vhost_user *user)
{
	char byte;
	ssize_t n = recv(user->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0) {
		log_error("%s: the back end answers though nothing was asked", user->name);
		return -EPROTO;
	}
	log_error("%s: the back end has gone", user->name);
	return -ECONNRESET;
}

static int user_request(struct vhost_user *user, struct descriptors *fds)
{
	struct {
		struct vhost_user_header header;
		uint64_t status;
	} __attribute__((packed)) answer;
	struct vhost_user_header header;
	int err = stream_read(user->requests, &header, sizeof(header), fds, user->deadline);

	if (err)
		return err;
	if (header.request != VHOST_USER_BACKEND_CONFIG_CHANGE_MSG || header.size || fds->count ||
	    (header.flags & ~VHOST_USER_FLAG_NEED_REPLY) != VHOST_USER_VERSION)
		return -EPROTO;
	if (!(header.flags & VHOST_USER_FLAG_NEED_REPLY))
		return 1;
	answer.header = (struct vhost_user_header){
		header.request, VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY, sizeof(answer.status),
	};
	answer.status = 0;
	err = stream_write(user->requests, &answer, sizeof(answer), &no_descriptors,
			   user->deadline);
	return err ? err : 1;
}

int vhost_user_take_request(struct vhost_user *user)
{
	struct descriptors fds = { 0 };
	struct pollfd wait = { .fd = user->requests, .events = POLLIN };
	int result;

	if (poll(&wait, 1, 0) <= 0)
		return 0;
	result = user_request(user, &fds);
	descriptors_close(&fds);
	if (result == -EPROTO)
		log_error("%s: the back end makes a request that is none", user->name);
	else if (result < 0)
		log_error("%s: a request of the back end's: %s", user->name, user_reason(result));
	return result;
}
