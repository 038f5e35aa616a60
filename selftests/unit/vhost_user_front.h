/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A front end for tests of vhost-user back ends: what it sends is well-formed or not, as the test
 * likes. Front and back end are one thread: what was sent is served when the test says so.
 */
#ifndef MOAT_VHOST_USER_FRONT_H
#define MOAT_VHOST_USER_FRONT_H

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "devmodel/vhost_user/backend.h"
#include "include/moat/vhost_user.h"

#define FRONT_FDS_MAX	253	/* that the kernel lets pass at once */

static int front = -1;
static struct backend *backend;

static inline unsigned int front_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static inline void front_attach(void)
{
	const struct timeval limit = { .tv_usec = 200000 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		abort();
	front = pair[0];
	setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(front, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	backend_attach(backend, pair[1]);
}

static inline void front_detach(void)
{
	backend_detach(backend);
	close(front);
}

/* @len bytes with descriptors, as they are. */
static inline void front_send_raw(const void *bytes, size_t len, const int *fds, unsigned int count)
{
	static union {
		char room[CMSG_SPACE(FRONT_FDS_MAX * sizeof(int))];
		struct cmsghdr head;
	} control;
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		control.head = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(count * sizeof(int)),
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
	}
	if (sendmsg(front, &msg, MSG_NOSIGNAL) != (ssize_t)len)
		abort();
}

/* A message whose header says @size, with as many bytes from @payload on. */
static inline void front_send(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
			      const int *fds, unsigned int count)
{
	static uint8_t bytes[4096];
	const struct vhost_user_header header = {
		.request = request, .flags = VHOST_USER_VERSION | flags, .size = size,
	};

	memcpy(bytes, &header, sizeof(header));
	if (size)
		memcpy(bytes + sizeof(header), payload, size);
	front_send_raw(bytes, sizeof(header) + size, fds, count);
}

/* Sends, has it served, and returns what backend_serve() does. */
static inline int front_do(uint32_t request, const void *payload, uint32_t size, int fd)
{
	front_send(request, 0, payload, size, &fd, fd >= 0);
	return backend_serve(backend);
}

static inline int front_do_u64(uint32_t request, uint64_t value)
{
	return front_do(request, &value, sizeof(value), -1);
}

static inline int front_do_state(uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_user_vring_state state = { index, num };

	return front_do(request, &state, sizeof(state), -1);
}

static inline int front_do_fd(uint32_t request, uint32_t index, int fd)
{
	const uint64_t value = index | (fd < 0 ? VHOST_USER_VRING_NOFD : 0);

	return front_do(request, &value, sizeof(value), fd);
}

/* A reply: whether it is one to @request, of @size bytes. @ret_fd may be NULL. */
static inline bool front_reply(uint32_t request, void *ret, uint32_t size, int *ret_fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control;
	struct vhost_user_header header;
	struct iovec iov[] = { { &header, sizeof(header) }, { ret, size } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (ret_fd) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	if (recvmsg(front, &msg, 0) != (ssize_t)(sizeof(header) + size) ||
	    header.request != request || header.size != size ||
	    header.flags != (VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY))
		return false;
	if (ret_fd)
		memcpy(ret_fd, CMSG_DATA(&control.head), sizeof(*ret_fd));
	return true;
}

#endif
