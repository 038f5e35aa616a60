// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The peer is not trusted. A message is read whole into memory of this process, its length being
 * checked against the room before it is used, and is looked at only then. Whatever descriptors
 * came with it belong to the message until somebody takes one, and are closed with it.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "devmodel/vhost_user/message.h"
#include "userspace/lib/fd.h"

int message_bad(struct message *msg, const char *fault)
{
	msg->fault = fault;
	return -EPROTO;
}

void message_finish(struct message *msg)
{
	for (unsigned int i = 0; i < VHOST_USER_FDS_MAX; i++) {
		fd_close(msg->fds[i]);
		msg->fds[i] = -1;
	}
}

int message_take_fd(struct message *msg, unsigned int index)
{
	int fd = msg->fds[index];

	msg->fds[index] = -1;
	return fd;
}

/* Takes over all descriptors of a control message; those that are too many are closed at once. */
static void message_add_fds(struct message *msg, const struct cmsghdr *control)
{
	size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
		if (msg->fd_count < VHOST_USER_FDS_MAX) {
			msg->fds[msg->fd_count++] = fd;
			continue;
		}
		fd_close(fd);
		message_bad(msg, "more descriptors than any message has");
	}
}

/* What fits into no buffer of ours is closed by the kernel, and was too much. */
static void message_collect(struct message *msg, struct msghdr *from)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(from); c; c = CMSG_NXTHDR(from, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			message_add_fds(msg, c);
	if (from->msg_flags & MSG_CTRUNC)
		message_bad(msg, "more descriptors than any message has");
}

static ssize_t message_receive_some(int socket, struct message *msg, void *buf, size_t len)
{
	union {
		char room[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr to = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	ssize_t n;

	do {
		n = recvmsg(socket, &to, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		message_collect(msg, &to);
	return n;
}

/* All of @len bytes. 0 where the stream ends before the first. */
static int message_receive_all(int socket, struct message *msg, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = message_receive_some(socket, msg, (char *)buf + done, len - done);

		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!n)
			return done ? message_bad(msg, "it ends in the middle") : 0;
		done += n;
	}
	return 1;
}

static int message_check_header(struct message *msg)
{
	const uint32_t flags = msg->header.flags;

	if ((flags & ~VHOST_USER_FLAG_NEED_REPLY) != VHOST_USER_VERSION)
		return message_bad(msg, "flags that no request has");
	if (msg->header.size > sizeof(msg->payload))
		return message_bad(msg, "longer than any message");
	return 0;
}

int message_receive(int socket, struct message *msg)
{
	int got;

	*msg = (struct message){ .fds = { [0 ... VHOST_USER_FDS_MAX - 1] = -1 } };
	got = message_receive_all(socket, msg, &msg->header, sizeof(msg->header));
	if (got <= 0)
		return got;
	if (message_check_header(msg))
		return -EPROTO;
	got = message_receive_all(socket, msg, msg->payload, msg->header.size);
	if (!got)
		return message_bad(msg, "it ends in the middle");
	return got > 0 && msg->fault ? -EPROTO : got;
}

static int message_send_all(int socket, const struct vhost_user_header *header, const void *payload,
			    int fd, int flags)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control = { .head = {
		.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
	} };
	struct iovec iov[] = {
		{ .iov_base = (void *)header, .iov_len = sizeof(*header) },
		{ .iov_base = (void *)payload, .iov_len = header->size },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	do {
		n = sendmsg(socket, &msg, MSG_NOSIGNAL | flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return (size_t)n == sizeof(*header) + header->size ? 0 : -ETIMEDOUT;
}

int message_reply(int socket, const struct message *msg, const void *payload, size_t size, int fd)
{
	const struct vhost_user_header header = {
		.request = msg->header.request,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY,
		.size = size,
	};

	return message_send_all(socket, &header, payload, fd, 0);
}

int message_send(int socket, uint32_t request)
{
	const struct vhost_user_header header = {
		.request = request, .flags = VHOST_USER_VERSION,
	};

	return message_send_all(socket, &header, NULL, -1, MSG_DONTWAIT);
}

static int message_read(struct message *msg, void *ret, size_t size, unsigned int fds)
{
	if (msg->header.size != size)
		return message_bad(msg, "its length is wrong");
	if (msg->fd_count != fds)
		return message_bad(msg, "its number of descriptors is wrong");
	if (size)
		memcpy(ret, msg->payload, size);
	return 0;
}

int message_read_none(struct message *msg)
{
	return message_read(msg, NULL, 0, 0);
}

int message_read_u64(struct message *msg, uint64_t *ret_value)
{
	return message_read(msg, ret_value, sizeof(*ret_value), 0);
}

int message_read_vring_state(struct message *msg, struct vhost_user_vring_state *ret_state)
{
	return message_read(msg, ret_state, sizeof(*ret_state), 0);
}

int message_read_vring_addr(struct message *msg, struct vhost_user_vring_addr *ret_addr)
{
	struct vhost_user_vring_addr addr;

	if (message_read(msg, &addr, sizeof(addr), 0))
		return -EPROTO;
	if (addr.flags)
		return message_bad(msg, "a log is asked for, and none was offered");
	*ret_addr = addr;
	return 0;
}

int message_read_vring_fd(struct message *msg, uint32_t *ret_index, bool *ret_has_fd)
{
	uint64_t value;

	if (msg->header.size != sizeof(value))
		return message_bad(msg, "its length is wrong");
	memcpy(&value, msg->payload, sizeof(value));
	if (value & ~(VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NOFD))
		return message_bad(msg, "unknown bits beside the index");
	if (msg->fd_count != !(value & VHOST_USER_VRING_NOFD))
		return message_bad(msg, "its number of descriptors is wrong");
	*ret_index = value & VHOST_USER_VRING_INDEX_MASK;
	*ret_has_fd = msg->fd_count;
	return 0;
}

int message_read_fd(struct message *msg)
{
	return message_read(msg, NULL, 0, 1);
}

static bool spans_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/* Ends are at most UINT64_MAX, so that nothing computed from a region wraps later. */
static bool region_wraps(const struct vhost_user_region *region)
{
	uint64_t end;

	return !region->memory_size ||
	       __builtin_add_overflow(region->guest_phys_addr, region->memory_size, &end) ||
	       __builtin_add_overflow(region->userspace_addr, region->memory_size, &end) ||
	       __builtin_add_overflow(region->mmap_offset, region->memory_size, &end) ||
	       end > INT64_MAX;
}

static bool regions_overlap(const struct vhost_user_region *a, const struct vhost_user_region *b)
{
	return spans_overlap(a->guest_phys_addr, a->memory_size, b->guest_phys_addr,
			     b->memory_size) ||
	       spans_overlap(a->userspace_addr, a->memory_size, b->userspace_addr,
			     b->memory_size);
}

static int memory_check(struct message *msg, const struct vhost_user_memory *memory)
{
	for (unsigned int i = 0; i < memory->nregions; i++)
		if (region_wraps(&memory->regions[i]))
			return message_bad(msg, "a region is empty or wraps");
	for (unsigned int i = 0; i < memory->nregions; i++)
		for (unsigned int j = 0; j < i; j++)
			if (regions_overlap(&memory->regions[i], &memory->regions[j]))
				return message_bad(msg, "regions overlap");
	return 0;
}

/* By insertion: there are eight at most. */
static void memory_sort(struct message *msg, struct vhost_user_memory *memory)
{
	struct vhost_user_region *region = memory->regions;

	for (unsigned int i = 1; i < memory->nregions; i++) {
		for (unsigned int j = i; j && region[j].guest_phys_addr <
					      region[j - 1].guest_phys_addr; j--) {
			const struct vhost_user_region other = region[j];
			const int fd = msg->fds[j];

			region[j] = region[j - 1];
			region[j - 1] = other;
			msg->fds[j] = msg->fds[j - 1];
			msg->fds[j - 1] = fd;
		}
	}
}

int message_read_memory(struct message *msg, struct vhost_user_memory *ret_memory)
{
	struct vhost_user_memory memory = { 0 };
	uint32_t count;

	if (msg->header.size < offsetof(struct vhost_user_memory, regions))
		return message_bad(msg, "its length is wrong");
	memcpy(&count, msg->payload, sizeof(count));
	if (!count || count > VHOST_USER_REGIONS_MAX)
		return message_bad(msg, "its number of regions is none that there can be");
	if (message_read(msg, &memory, offsetof(struct vhost_user_memory, regions[count]), count) ||
	    memory_check(msg, &memory))
		return -EPROTO;
	memory_sort(msg, &memory);
	*ret_memory = memory;
	return 0;
}

int message_read_config(struct message *msg, struct vhost_user_config *ret_config)
{
	struct vhost_user_config config = { 0 };

	if (msg->header.size < VHOST_USER_CONFIG_HEAD)
		return message_bad(msg, "its length is wrong");
	memcpy(&config, msg->payload, VHOST_USER_CONFIG_HEAD);
	if (config.size > VHOST_USER_CONFIG_MAX ||
	    config.offset > VHOST_USER_CONFIG_MAX - config.size)
		return message_bad(msg, "past the end of any configuration");
	if (message_read(msg, &config, VHOST_USER_CONFIG_HEAD + config.size, 0))
		return -EPROTO;
	*ret_config = config;
	return 0;
}

int message_read_inflight(struct message *msg, bool has_fd, struct vhost_user_inflight *ret)
{
	struct vhost_user_inflight inflight;

	if (message_read(msg, &inflight, sizeof(inflight), has_fd))
		return -EPROTO;
	if (!inflight.num_queues || !inflight.queue_size)
		return message_bad(msg, "no queues, or queues of no entries");
	*ret = inflight;
	return 0;
}
