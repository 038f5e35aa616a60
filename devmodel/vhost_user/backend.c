// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The messages of a front end, as calls to a device.
 *
 * A ring is ready when it has a size, addresses and a kick descriptor and is enabled. The device
 * runs while any ring is ready, and knows of those that are. Whatever changes a ring, or memory,
 * stops the device first, which finishes the requests in flight; after the message it is started
 * again with what is ready then. So a device never sees anything change under it, and nothing here
 * needs a lock. Only the descriptors to interrupt by are exchanged in place, by dup3(), under the
 * same number: that happens often, and costs nothing.
 *
 * Each message has a row in a table; its handler reads it by the typed reader (message.c), checks
 * it whole, and only then does anything. A handler returns 0, or 1 where it has replied, or an
 * errno. -EPROTO is a broken rule, and always the end of the front end; of what only failed it is
 * told, if it asked to be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/vhost_user/backend.h"
#include "devmodel/vhost_user/inflight.h"
#include "devmodel/vhost_user/message.h"
#include "devmodel/vhost_user/regions.h"
#include "devmodel/virtq.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"

#define BACKEND_FAULT_MAX	160

#define BACKEND_PROTOCOL_FEATURES \
	(1ULL << VHOST_USER_PROTOCOL_F_MQ | 1ULL << VHOST_USER_PROTOCOL_F_REPLY_ACK | \
	 1ULL << VHOST_USER_PROTOCOL_F_BACKEND_REQ | 1ULL << VHOST_USER_PROTOCOL_F_CONFIG | \
	 1ULL << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD | \
	 1ULL << VHOST_USER_PROTOCOL_F_RESET_DEVICE)

/**
 * struct backend_ring - a ring, as far as the front end has told
 * @next_avail, @next_used: where the ring goes on while it is not running, as in struct dev_vring
 * @has_addr: @addr is set
 * @kick: -1 until it comes
 * @call: always open, if only to something of our own
 * @err: the same
 * @running: the device has it
 */
struct backend_ring {
	uint16_t size;
	uint16_t next_avail;
	uint16_t next_used;
	bool has_addr;
	bool enabled;
	bool running;
	struct vhost_user_vring_addr addr;
	int kick;
	int call;
	int err;
};

/**
 * struct backend - a device and its front end
 * @socket: to the front end, or -1
 * @requests: where the front end listens to requests of ours, or -1
 * @features: acknowledged by the front end, as are @protocol_features
 * @running: the device is started
 * @described: the rings, as the device is told of them
 */
struct backend {
	struct device *dev;
	int socket;
	int requests;
	uint64_t features;
	uint64_t protocol_features;
	bool running;
	struct regions regions;
	struct inflight inflight;
	char fault[BACKEND_FAULT_MAX];
	unsigned int ring_count;
	struct dev_vring *described;
	struct backend_ring ring[];
};

static uint64_t backend_features(const struct backend *backend)
{
	return backend->dev->ops->features(backend->dev) | 1ULL << VIRTIO_F_VERSION_1 |
	       1ULL << VHOST_USER_F_PROTOCOL_FEATURES;
}

static bool backend_is_packed(const struct backend *backend)
{
	return backend->features >> VIRTIO_F_RING_PACKED & 1;
}

/* The device */

/* A front end that cannot tell which rings are enabled has all of them so. */
static bool ring_ready(const struct backend *backend, const struct backend_ring *ring)
{
	return ring->size && ring->has_addr && ring->kick >= 0 &&
	       (ring->enabled || !(backend->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1));
}

static int ring_describe(struct backend *backend, unsigned int index, struct dev_vring *ret)
{
	struct backend_ring *ring = &backend->ring[index];

	*ret = (struct dev_vring){
		.size = ring->size, .next_avail = ring->next_avail, .next_used = ring->next_used,
		.kick = ring->kick, .call = ring->call, .err = ring->err,
		.inflight = inflight_queue(&backend->inflight, index),
		.resume = &ring->next_used,
	};
	if (ret->inflight && ring->size > backend->inflight.queue_size)
		return -EFAULT;
	if (regions_gpa(&backend->regions, ring->addr.desc, &ret->desc) ||
	    regions_gpa(&backend->regions, ring->addr.avail, &ret->avail) ||
	    regions_gpa(&backend->regions, ring->addr.used, &ret->used))
		return -EFAULT;
	return 0;
}

/* The index in the device area of a split ring. */
static uint16_t ring_used_index(const struct backend *backend, const struct backend_ring *ring)
{
	uint64_t gpa;
	struct vring_used *used = NULL;

	if (!regions_gpa(&backend->regions, ring->addr.used, &gpa))
		used = regions_at(&backend->regions, gpa, sizeof(*used));
	return used ? __atomic_load_n(&used->idx, __ATOMIC_RELAXED) : ring->next_avail;
}

/* All requests that were taken have been given back: the ring goes on where that has ended. */
static void ring_stopped(const struct backend *backend, struct backend_ring *ring)
{
	ring->next_avail = backend_is_packed(backend) ? ring->next_used :
							ring_used_index(backend, ring);
	ring->running = false;
}

static void backend_stop(struct backend *backend)
{
	if (!backend->running)
		return;
	backend->dev->ops->stop(backend->dev);
	backend->running = false;
	for (unsigned int i = 0; i < backend->ring_count; i++)
		if (backend->ring[i].running)
			ring_stopped(backend, &backend->ring[i]);
}

static int backend_start(struct backend *backend)
{
	struct dev_vring *rings = backend->described;
	bool any = false;
	int err;

	for (unsigned int i = 0; i < backend->ring_count; i++) {
		rings[i] = (struct dev_vring){ .kick = -1, .call = -1, .err = -1 };
		if (!ring_ready(backend, &backend->ring[i]))
			continue;
		if (ring_describe(backend, i, &rings[i]))
			return -EFAULT;
		any = true;
	}
	if (!any)
		return 0;
	err = backend->dev->ops->start(backend->dev, &backend->regions.memory, backend->features,
				       rings);
	if (err)
		return err;
	for (unsigned int i = 0; i < backend->ring_count; i++)
		backend->ring[i].running = rings[i].size;
	backend->running = true;
	return 0;
}

/* After each message. */
static int backend_update(struct backend *backend, struct message *msg)
{
	int err = backend->running ? 0 : backend_start(backend);

	if (err == -EFAULT || err == -EINVAL)
		return message_bad(msg, "with it a ring is ready that cannot be, or not where it is");
	return err;
}

/* Rings */

/* NULL where the front end named one that is not there; the message is then marked. */
static struct backend_ring *ring_of(struct backend *backend, struct message *msg, uint32_t index)
{
	if (index < backend->ring_count)
		return &backend->ring[index];
	message_bad(msg, "there is no such ring");
	return NULL;
}

/* Puts @fd, or where that is -1 something that nobody looks at, in the place of @place. */
static int descriptor_exchange(int place, int fd)
{
	int err = 0;

	if (fd < 0)
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0 || dup3(fd, place, O_CLOEXEC) < 0)
		err = -errno;
	fd_close(fd);
	return err;
}

/* The device must wait neither for what it reads nor for what it writes. */
static int descriptor_unblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static void ring_close_kick(struct backend_ring *ring)
{
	fd_close(ring->kick);
	ring->kick = -1;
}

/* The device does not run. */
static void ring_reset(struct backend_ring *ring)
{
	ring_close_kick(ring);
	descriptor_exchange(ring->call, -1);
	descriptor_exchange(ring->err, -1);
	*ring = (struct backend_ring){ .kick = -1, .call = ring->call, .err = ring->err };
}

static void backend_reset(struct backend *backend)
{
	backend_stop(backend);
	backend->features = 0;
	for (unsigned int i = 0; i < backend->ring_count; i++)
		ring_reset(&backend->ring[i]);
}

/* Handlers */

static int reply_u64(struct backend *backend, struct message *msg, uint64_t value)
{
	int err = message_reply(backend->socket, msg, &value, sizeof(value), -1);

	return err ? err : 1;
}

static int get_features(struct backend *backend, struct message *msg)
{
	return message_read_none(msg) ? -EPROTO :
	       reply_u64(backend, msg, backend_features(backend));
}

static int set_features(struct backend *backend, struct message *msg)
{
	uint64_t features;

	if (message_read_u64(msg, &features))
		return -EPROTO;
	if (features & ~backend_features(backend))
		return message_bad(msg, "features that were not offered");
	if (features == backend->features)
		return 0;
	backend_stop(backend);
	backend->features = features;
	return 0;
}

static int get_protocol_features(struct backend *backend, struct message *msg)
{
	return message_read_none(msg) ? -EPROTO :
	       reply_u64(backend, msg, BACKEND_PROTOCOL_FEATURES);
}

static int set_protocol_features(struct backend *backend, struct message *msg)
{
	uint64_t features;

	if (message_read_u64(msg, &features))
		return -EPROTO;
	if (features & ~BACKEND_PROTOCOL_FEATURES)
		return message_bad(msg, "features that were not offered");
	backend->protocol_features = features;
	return 0;
}

static int get_queue_num(struct backend *backend, struct message *msg)
{
	return message_read_none(msg) ? -EPROTO : reply_u64(backend, msg, backend->ring_count);
}

static int set_owner(struct backend *backend, struct message *msg)
{
	(void)backend;
	return message_read_none(msg);
}

static int reset_device(struct backend *backend, struct message *msg)
{
	if (message_read_none(msg))
		return -EPROTO;
	backend_reset(backend);
	for (unsigned int i = 0; i < backend->ring_count; i++)
		inflight_forget(&backend->inflight, i);
	return 0;
}

static int set_mem_table(struct backend *backend, struct message *msg)
{
	struct vhost_user_memory memory;
	struct regions regions;
	int err;

	if (message_read_memory(msg, &memory))
		return -EPROTO;
	err = regions_map(&memory, msg->fds, &regions);
	if (err)
		return err;
	backend_stop(backend);
	regions_unmap(&backend->regions);
	backend->regions = regions;
	return 0;
}

/* The ring that a message is about; NULL: it breaks a rule, and is marked. */
static struct backend_ring *read_vring_state(struct backend *backend, struct message *msg,
					     struct vhost_user_vring_state *ret_state)
{
	if (message_read_vring_state(msg, ret_state))
		return NULL;
	return ring_of(backend, msg, ret_state->index);
}

/* No message tells of queue_size_max, so front ends take it for as large as can be. */
static bool ring_size_valid(const struct backend *backend, uint32_t size)
{
	return size && size <= VIRTQ_SIZE_MAX &&
	       (backend_is_packed(backend) || !(size & (size - 1)));
}

static int set_vring_num(struct backend *backend, struct message *msg)
{
	struct vhost_user_vring_state state;
	struct backend_ring *ring = read_vring_state(backend, msg, &state);

	if (!ring)
		return -EPROTO;
	if (!ring_size_valid(backend, state.num))
		return message_bad(msg, "a size that the ring cannot have");
	backend_stop(backend);
	ring->size = state.num;
	return 0;
}

static int set_vring_addr(struct backend *backend, struct message *msg)
{
	struct vhost_user_vring_addr addr;
	struct backend_ring *ring;

	if (message_read_vring_addr(msg, &addr))
		return -EPROTO;
	ring = ring_of(backend, msg, addr.index);
	if (!ring)
		return -EPROTO;
	backend_stop(backend);
	ring->addr = addr;
	ring->has_addr = true;
	return 0;
}

static int set_vring_base(struct backend *backend, struct message *msg)
{
	struct vhost_user_vring_state state;
	struct backend_ring *ring = read_vring_state(backend, msg, &state);

	if (!ring)
		return -EPROTO;
	if (!backend_is_packed(backend) && state.num > UINT16_MAX)
		return message_bad(msg, "an index that no split ring has");
	backend_stop(backend);
	ring->next_avail = state.num;
	ring->next_used = state.num >> 16;
	return 0;
}

/* The record of requests in flight is void once the front end has been told. */
static int get_vring_base(struct backend *backend, struct message *msg)
{
	struct vhost_user_vring_state state;
	struct backend_ring *ring = read_vring_state(backend, msg, &state);
	bool ran = ring && ring->running;
	int err;

	if (!ring)
		return -EPROTO;
	backend_stop(backend);
	ring_close_kick(ring);
	state.num = ring->next_avail;
	if (backend_is_packed(backend))
		state.num |= (uint32_t)ring->next_used << 16;
	err = message_reply(backend->socket, msg, &state, sizeof(state), -1);
	if (!err && ran)
		inflight_forget(&backend->inflight, state.index);
	return err ? err : 1;
}

static int set_vring_enable(struct backend *backend, struct message *msg)
{
	struct vhost_user_vring_state state;
	struct backend_ring *ring = read_vring_state(backend, msg, &state);

	if (!ring)
		return -EPROTO;
	if (state.num > 1)
		return message_bad(msg, "neither enabled nor disabled");
	if (ring->enabled == state.num)
		return 0;
	backend_stop(backend);
	ring->enabled = state.num;
	return 0;
}

/* The ring that a descriptor is for, which is -1 where none came. NULL: *@ret_fd is the errno. */
static struct backend_ring *take_vring_fd(struct backend *backend, struct message *msg, int *ret_fd)
{
	struct backend_ring *ring;
	uint32_t index;
	bool has_fd;

	*ret_fd = message_read_vring_fd(msg, &index, &has_fd);
	if (*ret_fd)
		return NULL;
	ring = ring_of(backend, msg, index);
	*ret_fd = !ring ? -EPROTO : has_fd ? descriptor_unblock(msg->fds[0]) : 0;
	if (*ret_fd)
		return NULL;
	*ret_fd = has_fd ? message_take_fd(msg, 0) : -1;
	return ring;
}

static int set_vring_kick(struct backend *backend, struct message *msg)
{
	int fd;
	struct backend_ring *ring = take_vring_fd(backend, msg, &fd);

	if (!ring)
		return fd;
	if (fd < 0)
		return message_bad(msg, "rings without kicks are not served");
	backend_stop(backend);
	fd_close(ring->kick);
	ring->kick = fd;
	return 0;
}

/*
 * A process before this one may have been killed after it gave a request back and before it said so.
 * Hence a new descriptor begins with an interrupt: one too many does no harm.
 */
static int set_vring_call(struct backend *backend, struct message *msg)
{
	int err, fd;
	struct backend_ring *ring = take_vring_fd(backend, msg, &fd);

	if (!ring)
		return fd;
	err = descriptor_exchange(ring->call, fd);
	if (!err)
		eventfd_write(ring->call, 1);
	return err;
}

static int set_vring_err(struct backend *backend, struct message *msg)
{
	int fd;
	struct backend_ring *ring = take_vring_fd(backend, msg, &fd);

	return ring ? descriptor_exchange(ring->err, fd) : fd;
}

static int set_backend_req_fd(struct backend *backend, struct message *msg)
{
	if (message_read_fd(msg))
		return -EPROTO;
	fd_close(backend->requests);
	backend->requests = message_take_fd(msg, 0);
	return 0;
}

/* What is past the end of the device's configuration reads as zeroes. */
static int get_config(struct backend *backend, struct message *msg)
{
	const struct device_ops *ops = backend->dev->ops;
	struct vhost_user_config config;
	uint32_t size;
	int err;

	if (message_read_config(msg, &config))
		return -EPROTO;
	memset(config.region, 0, sizeof(config.region));
	size = config.offset < ops->config_size ? ops->config_size - config.offset : 0;
	if (size > config.size)
		size = config.size;
	if (size)
		ops->config_read(backend->dev, config.offset, config.region, size);
	err = message_reply(backend->socket, msg, &config, VHOST_USER_CONFIG_HEAD + config.size,
			    -1);
	return err ? err : 1;
}

static int set_config(struct backend *backend, struct message *msg)
{
	const struct device_ops *ops = backend->dev->ops;
	struct vhost_user_config config;

	if (message_read_config(msg, &config))
		return -EPROTO;
	if (!ops->config_write)
		return -EOPNOTSUPP;
	if (config.offset + config.size > ops->config_size)
		return message_bad(msg, "past the end of the device's configuration");
	ops->config_write(backend->dev, config.offset, config.region, config.size);
	return 0;
}

static int inflight_check_area(const struct backend *backend, struct message *msg,
			       const struct vhost_user_inflight *area)
{
	if (area->num_queues > backend->ring_count || area->queue_size > VIRTQ_SIZE_MAX)
		return message_bad(msg, "more queues, or larger ones, than there are");
	return 0;
}

static int get_inflight_fd(struct backend *backend, struct message *msg)
{
	struct vhost_user_inflight area;
	int err, fd;

	if (message_read_inflight(msg, false, &area) || inflight_check_area(backend, msg, &area))
		return -EPROTO;
	fd = inflight_create(&area);
	if (fd < 0)
		return fd;
	err = message_reply(backend->socket, msg, &area, sizeof(area), fd);
	fd_close(fd);
	return err ? err : 1;
}

static int set_inflight_fd(struct backend *backend, struct message *msg)
{
	struct vhost_user_inflight area;
	struct inflight inflight;
	int err;

	if (message_read_inflight(msg, true, &area) || inflight_check_area(backend, msg, &area))
		return -EPROTO;
	err = inflight_map(&area, msg->fds[0], &inflight);
	if (err)
		return err;
	backend_stop(backend);
	inflight_unmap(&backend->inflight);
	backend->inflight = inflight;
	return 0;
}

static const struct backend_request {
	const char *name;
	int (*handle)(struct backend *backend, struct message *msg);
} backend_requests[] = {
	[VHOST_USER_GET_FEATURES] = { "GET_FEATURES", get_features },
	[VHOST_USER_SET_FEATURES] = { "SET_FEATURES", set_features },
	[VHOST_USER_SET_OWNER] = { "SET_OWNER", set_owner },
	[VHOST_USER_RESET_OWNER] = { "RESET_OWNER", reset_device },
	[VHOST_USER_SET_MEM_TABLE] = { "SET_MEM_TABLE", set_mem_table },
	[VHOST_USER_SET_VRING_NUM] = { "SET_VRING_NUM", set_vring_num },
	[VHOST_USER_SET_VRING_ADDR] = { "SET_VRING_ADDR", set_vring_addr },
	[VHOST_USER_SET_VRING_BASE] = { "SET_VRING_BASE", set_vring_base },
	[VHOST_USER_GET_VRING_BASE] = { "GET_VRING_BASE", get_vring_base },
	[VHOST_USER_SET_VRING_KICK] = { "SET_VRING_KICK", set_vring_kick },
	[VHOST_USER_SET_VRING_CALL] = { "SET_VRING_CALL", set_vring_call },
	[VHOST_USER_SET_VRING_ERR] = { "SET_VRING_ERR", set_vring_err },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", get_protocol_features },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", set_protocol_features },
	[VHOST_USER_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", get_queue_num },
	[VHOST_USER_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", set_vring_enable },
	[VHOST_USER_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", set_backend_req_fd },
	[VHOST_USER_GET_CONFIG] = { "GET_CONFIG", get_config },
	[VHOST_USER_SET_CONFIG] = { "SET_CONFIG", set_config },
	[VHOST_USER_GET_INFLIGHT_FD] = { "GET_INFLIGHT_FD", get_inflight_fd },
	[VHOST_USER_SET_INFLIGHT_FD] = { "SET_INFLIGHT_FD", set_inflight_fd },
	[VHOST_USER_RESET_DEVICE] = { "RESET_DEVICE", reset_device },
};

static const struct backend_request *request_of(const struct message *msg)
{
	static const struct backend_request unknown = { "unknown", NULL };

	if (msg->header.request >= ARRAY_SIZE(backend_requests) ||
	    !backend_requests[msg->header.request].handle)
		return &unknown;
	return &backend_requests[msg->header.request];
}

static int backend_fail(struct backend *backend, const struct message *msg, int err)
{
	snprintf(backend->fault, sizeof(backend->fault), "message %u (%s), %u bytes, %u fds: %s",
		 msg->header.request, request_of(msg)->name, msg->header.size, msg->fd_count,
		 err == -EPROTO && msg->fault ? msg->fault : strerror(-err));
	return err;
}

/* Does the front end wait for an answer to what has none of its own? */
static bool backend_must_ack(const struct backend *backend, const struct message *msg)
{
	return msg->header.flags & VHOST_USER_FLAG_NEED_REPLY &&
	       backend->protocol_features >> VHOST_USER_PROTOCOL_F_REPLY_ACK & 1;
}

static int backend_handle(struct backend *backend, struct message *msg)
{
	const struct backend_request *request = request_of(msg);
	int err = request->handle ? request->handle(backend, msg) :
				    message_bad(msg, "no such message is served");

	if (err < 0 && (err == -EPROTO || !backend_must_ack(backend, msg)))
		return err;
	if (err <= 0 && backend_must_ack(backend, msg))
		err = reply_u64(backend, msg, -err);
	return err < 0 ? err : backend_update(backend, msg);
}

int backend_serve(struct backend *backend)
{
	struct message msg;
	int got = message_receive(backend->socket, &msg);
	int err = got > 0 ? backend_handle(backend, &msg) : got;

	if (err)
		backend_fail(backend, &msg, err);
	message_finish(&msg);
	return err ? err : got > 0;
}

const char *backend_fault(const struct backend *backend)
{
	return backend->fault;
}

void backend_attach(struct backend *backend, int socket)
{
	backend->socket = socket;
}

void backend_detach(struct backend *backend)
{
	backend_reset(backend);
	if (backend->dev->ops->leave)
		backend->dev->ops->leave(backend->dev);
	regions_unmap(&backend->regions);
	inflight_unmap(&backend->inflight);
	backend->protocol_features = 0;
	fd_close(backend->requests);
	fd_close(backend->socket);
	backend->requests = -1;
	backend->socket = -1;
}

int backend_config_changed(struct backend *backend)
{
	if (backend->requests < 0)
		return 0;
	return message_send(backend->requests, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
}

static int ring_init(struct backend_ring *ring)
{
	ring->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ring->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return ring->call < 0 || ring->err < 0 ? -errno : 0;
}

int backend_create(struct device *dev, struct backend **ret)
{
	const unsigned int count = dev->ops->queue_count;
	struct backend *backend = calloc(1, sizeof(*backend) + count * sizeof(backend->ring[0]));
	int err;

	if (!backend)
		return -ENOMEM;
	backend->described = calloc(count, sizeof(backend->described[0]));
	err = backend->described ? 0 : -ENOMEM;
	backend->dev = dev;
	backend->socket = -1;
	backend->requests = -1;
	backend->ring_count = count;
	for (unsigned int i = 0; i < count; i++)
		backend->ring[i] = (struct backend_ring){ .kick = -1, .call = -1, .err = -1 };
	for (unsigned int i = 0; i < count && !err; i++)
		err = ring_init(&backend->ring[i]);
	if (err)
		backend_destroy(backend);
	else
		*ret = backend;
	return err;
}

void backend_destroy(struct backend *backend)
{
	if (!backend)
		return;
	backend_detach(backend);
	for (unsigned int i = 0; i < backend->ring_count; i++) {
		fd_close(backend->ring[i].call);
		fd_close(backend->ring[i].err);
	}
	free(backend->described);
	free(backend);
}
