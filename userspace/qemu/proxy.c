// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What machine and storage daemon say to each other, passed on message by message, with the descriptors
 * that belong to it. Requests of the guest's do not come by here: they are in memory and eventfds that these
 * messages hand over.
 *
 * The daemon is told to have each write complete on the disk before it says so (main.c has the reason),
 * and to the guest's driver that is nothing to choose: the feature by which it could is left out.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#include "include/moat/vhost_user.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/qemu/proxy.h"

union proxy_control {
	struct cmsghdr head;
	char space[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
};

struct proxy_message {
	struct vhost_user_header header;
	union {
		uint64_t number;
		struct vhost_user_memory memory;
		struct vhost_user_config config;
	} payload;
	union proxy_control control;
	size_t control_length;
};

/* The header brings the descriptors. -EPROTO: there was no message. */
static int proxy_read_header(int fd, struct proxy_message *message)
{
	struct iovec iov = { .iov_base = &message->header, .iov_len = sizeof(message->header) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &message->control, .msg_controllen = sizeof(message->control),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC);

	if (n <= 0)
		return n ? -errno : -ECONNRESET;
	message->control_length = msg.msg_controllen;
	if (n != sizeof(message->header) || msg.msg_flags & MSG_CTRUNC ||
	    message->header.size > sizeof(message->payload))
		return -EPROTO;
	return 0;
}

static int proxy_read(int fd, struct proxy_message *message)
{
	int err = proxy_read_header(fd, message);
	ssize_t n;

	if (err || !message->header.size)
		return err;
	n = recv(fd, &message->payload, message->header.size, MSG_WAITALL);
	return n == message->header.size ? 0 : n < 0 ? -errno : -ECONNRESET;
}

static int proxy_write(int fd, struct proxy_message *message)
{
	struct iovec iov[] = {
		{ .iov_base = &message->header, .iov_len = sizeof(message->header) },
		{ .iov_base = &message->payload, .iov_len = message->header.size },
	};
	struct msghdr msg = {
		.msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov),
		.msg_control = message->control_length ? &message->control : NULL,
		.msg_controllen = message->control_length,
	};
	ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

	return n == (ssize_t)(iov[0].iov_len + iov[1].iov_len) ? 0 : -ECONNRESET;
}

static void proxy_close_descriptors(struct proxy_message *message)
{
	struct msghdr msg = {
		.msg_control = &message->control, .msg_controllen = message->control_length,
	};

	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < count && c->cmsg_type == SCM_RIGHTS; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			fd_close(fd);
		}
	}
}

static int proxy_pass(int from, int to, uint64_t features)
{
	struct proxy_message message = { 0 };
	int err = proxy_read(from, &message);

	if (!err && message.header.request == VHOST_USER_GET_FEATURES &&
	    message.header.size == sizeof(message.payload.number))
		message.payload.number &= features;
	if (!err)
		err = proxy_write(to, &message);
	proxy_close_descriptors(&message);
	return err;
}

/* A negative errno where it is over. */
static int proxy_turn(const struct proxy *proxy, const struct pollfd *wait)
{
	int err = 0;

	if (wait[0].revents & POLLIN)
		err = tool_answer(proxy->listener, &proxy->files);
	if (!err && wait[1].revents)
		err = proxy_pass(proxy->machine, proxy->daemon, ~0ULL);
	if (!err && wait[2].revents)
		err = proxy_pass(proxy->daemon, proxy->machine, ~(1ULL << VIRTIO_BLK_F_CONFIG_WCE));
	if (err == -EPROTO)
		log_error("what was said over vhost-user was no message");
	return wait[0].revents & ~POLLIN ? -ESRCH : err;
}

void proxy_run(const struct proxy *proxy)
{
	struct pollfd wait[] = {
		{ .fd = proxy->listener, .events = POLLIN },
		{ .fd = proxy->machine, .events = POLLIN },
		{ .fd = proxy->daemon, .events = POLLIN },
	};

	do {
		if (poll(wait, ARRAY_SIZE(wait), -1) < 0 && errno != EINTR)
			break;
	} while (!proxy_turn(proxy, wait));
	pidfd_send_signal(proxy->process, SIGKILL, NULL, 0);
}
