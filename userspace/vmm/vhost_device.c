// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A virtio device whose queues a vhost-user back end serves. What is here is the life of the back
 * end: it is set up when the driver is ready, its configuration is copied, and when it dies its
 * successor is set up in the same way. What of the machine it gets to see, and how the requests in
 * flight come to the successor, is the isolation's part (vhost_isolation.h).
 *
 * A back end may do what it likes. It gets a bounded time for each step; one that fails is dropped,
 * and tried again later and later, while the guest's requests stay in their rings.
 *
 * Each device has a loop, and so a thread, to itself: who waits for a slow back end is its own
 * driver. The transport calls with its lock held, which is outside ours.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "userspace/lib/array.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/vhost_device.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/vhost_user.h"
#include "userspace/vmm/vring_track.h"

#define VHOST_QUEUES_MAX	64
#define VHOST_STEP_MS		5000
#define VHOST_RETRY_MIN_MS	20
#define VHOST_RETRY_MAX_MS	2000

/* Of a network device: what needs no control queue; and what is told by the configuration. */
#define VHOST_NET_FEATURES	0x1fffbULL
#define VHOST_NET_CONFIG	(1ULL << VIRTIO_NET_F_MTU | 1ULL << VIRTIO_NET_F_MAC | \
				 1ULL << VIRTIO_NET_F_STATUS)
#define VHOST_CONSOLE_CONFIG	(1ULL << VIRTIO_CONSOLE_F_SIZE)

/**
 * struct vhost_type - a kind of device
 * @queues: that the driver sees; 0: as many as the back end says, and @served of these at least
 * @served: the first so many are the back end's; the rest, too, where it has all of them. Else
 *	nothing ever comes of these
 * @needs_config: is of no use without
 * @features: of the device's own, those that can work here
 * @config_features: of these, those that cannot without a configuration
 * @failure: how a request is failed
 */
struct vhost_type {
	const char *name;
	uint16_t virtio_id;
	uint16_t queues;
	uint16_t served;
	uint16_t config_size;
	bool needs_config;
	uint64_t features;
	uint64_t config_features;
	enum vhost_failure failure;
};

static const struct vhost_type vhost_types[] = {
	{ "blk",	VIRTIO_ID_BLOCK,	0, 1,	60,	true,	~0ULL,	0,
	  VHOST_FAIL_BLK },
	{ "net",	VIRTIO_ID_NET,		2, 2,	12,	false,	VHOST_NET_FEATURES,
	  VHOST_NET_CONFIG, VHOST_FAIL_EMPTY },
	{ "rng",	VIRTIO_ID_RNG,		1, 1,	0,	false,	~0ULL,	0,
	  VHOST_FAIL_EMPTY },
	{ "console",	VIRTIO_ID_CONSOLE,	2, 2,	12,	false,	VHOST_CONSOLE_CONFIG,
	  VHOST_CONSOLE_CONFIG, VHOST_FAIL_EMPTY },
	{ "fs",		VIRTIO_ID_FS,		0, 2,	40,	true,	~0ULL,	0,
	  VHOST_FAIL_FS },
	{ "vsock",	VIRTIO_ID_VSOCK,	3, 2,	8,	true,	~0ULL,	0,
	  VHOST_FAIL_EMPTY },
};

/**
 * struct vhost_device - the device
 * @user: the connection
 * @origin: where it comes from
 * @isolation: the queues
 * @socket, @requests: wait for the connection's two descriptors, while they are there
 * @timer: the time to try again
 * @retry_ms: how long to wait until then
 * @since: when the back end was found good, on clock_ms(); INT64_MAX: none was
 * @features: offered to the driver; never changes
 * @config_event: tells the transport that @config has changed
 * @lock: guards all of it but the configuration, and is outside of
 * @config_lock: which guards that, and is held for no more than a copy
 */
struct vhost_device {
	struct device dev;
	struct device_ops ops;
	const struct vhost_type *type;
	struct vhost_origin *origin;
	struct vhost_user user;
	struct vhost_isolation *isolation;
	struct loop loop;
	struct loop_source socket;
	struct loop_source requests;
	struct loop_source timer;
	unsigned int retry_ms;
	int64_t since;
	uint64_t features;
	int config_event;
	pthread_mutex_t lock;
	pthread_mutex_t config_lock;
	uint8_t config[VHOST_USER_CONFIG_MAX];
};

const struct vhost_type *vhost_type_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(vhost_types); i++)
		if (!strcmp(vhost_types[i].name, name))
			return &vhost_types[i];
	return NULL;
}

/* Connection */

static bool vhost_is_up(const struct vhost_device *device)
{
	return device->user.socket >= 0;
}

static void vhost_try_later(struct vhost_device *device)
{
	struct itimerspec when = {
		.it_value = {
			.tv_sec = device->retry_ms / 1000,
			.tv_nsec = device->retry_ms % 1000 * 1000000,
		},
	};

	if (device->origin->last) {
		log_error("%s: there will be no other back end", device->origin->name);
		return;
	}
	timerfd_settime(device->timer.fd, 0, &when, NULL);
	device->retry_ms *= 2;
	if (device->retry_ms > VHOST_RETRY_MAX_MS)
		device->retry_ms = VHOST_RETRY_MAX_MS;
}

/*
 * The connection is of no use any more, which has been said. Who was there for a while, or of use, is
 * looked for at once; who comes only to go is not, and does not fill the log.
 */
static void vhost_lose(struct vhost_device *device)
{
	struct vhost_isolation *isolation = device->isolation;
	bool good = isolation->ops->progressed(isolation);

	isolation->ops->lost(isolation);
	if (good || clock_ms() - device->since > VHOST_RETRY_MAX_MS)
		device->retry_ms = VHOST_RETRY_MIN_MS;
	device->since = INT64_MAX;
	vhost_user_disconnect(&device->user);
	vhost_try_later(device);
}

/* The back end does what it must not. */
static void vhost_lose_blamed(void *owner)
{
	struct vhost_device *device = owner;

	vhost_lose(device);
	device->isolation->ops->blame(device->isolation);
}

/* What a driver can have, with the back end that is there. */
static uint64_t vhost_offers(const struct vhost_device *device,
			     const struct vhost_isolation_ops *isolation)
{
	const uint64_t offered = device->user.features;
	uint64_t own = device->type->features & VHOST_OWN_FEATURES;

	if (!device->ops.config_size)
		own &= ~device->type->config_features;
	return isolation->ring_features(offered) | (offered & own);
}

/* Copy the configuration. Does it differ from the copy before? */
static int vhost_read_config(struct vhost_device *device, bool *ret_changed)
{
	uint8_t config[VHOST_USER_CONFIG_MAX];
	uint32_t size = device->ops.config_size;
	int err;

	*ret_changed = false;
	if (!size)
		return 0;
	err = vhost_user_get_config(&device->user, config, size);
	if (err)
		return err;
	pthread_mutex_lock(&device->config_lock);
	*ret_changed = memcmp(device->config, config, size);
	memcpy(device->config, config, size);
	pthread_mutex_unlock(&device->config_lock);
	return 0;
}

/* A successor has to have what the driver was promised. */
static int vhost_compare(const struct vhost_device *device)
{
	const struct vhost_isolation *isolation = device->isolation;
	const char *lacks = isolation->ops->lacks(isolation, &device->user);

	if (device->features & ~vhost_offers(device, isolation->ops))
		lacks = "features";
	else if (device->ops.config_size &&
		 !vhost_user_has(&device->user, VHOST_USER_PROTOCOL_F_CONFIG))
		lacks = "a configuration";
	else if ((!device->type->queues || isolation->count > device->type->served) &&
		 device->user.queues < isolation->count)
		lacks = "queues";
	if (!lacks)
		return 0;
	log_error("%s: the back end lacks %s that the one before had", device->origin->name, lacks);
	return -ENOTSUP;
}

static int vhost_watch(struct vhost_device *device)
{
	int err;

	device->socket.fd = device->user.socket;
	device->requests.fd = device->user.requests;
	err = loop_add(&device->loop, &device->socket);
	if (!err && device->requests.fd >= 0)
		err = loop_add(&device->loop, &device->requests);
	return err;
}

/* A successor is there. */
static int vhost_return(struct vhost_device *device)
{
	struct vhost_isolation *isolation = device->isolation;
	unsigned int outstanding = isolation->ops->outstanding(isolation);
	bool changed;
	int err = vhost_user_negotiate(&device->user);

	if (!err)
		err = vhost_compare(device);
	if (!err)
		err = vhost_read_config(device, &changed);
	if (!err && isolation->running)
		err = isolation->ops->serve(isolation, &device->user);
	if (!err)
		err = vhost_watch(device);
	if (err)
		return err;
	log_error("%s: a back end is there again, and has %u requests to serve", device->origin->name,
		  outstanding);
	device->since = clock_ms();
	if (device->origin->returned)
		device->origin->returned(device->origin);
	if (changed)
		eventfd_write(device->config_event, 1);
	return 0;
}

static void vhost_timer_ready(struct loop_source *source)
{
	struct vhost_device *device = (struct vhost_device *)((char *)source -
				       offsetof(struct vhost_device, timer));
	uint64_t times;
	int fd;

	if (read(source->fd, &times, sizeof(times)) != sizeof(times))
		return;
	pthread_mutex_lock(&device->lock);
	device->origin->crashed = false;
	fd = device->origin->connect(device->origin);
	if (device->origin->crashed)
		device->isolation->ops->blame(device->isolation);
	if (fd < 0) {
		vhost_try_later(device);
	} else {
		vhost_user_connect(&device->user, fd);
		vhost_user_begin(&device->user, VHOST_STEP_MS);
		if (vhost_return(device))
			vhost_lose(device);
	}
	pthread_mutex_unlock(&device->lock);
}

static void vhost_socket_ready(struct loop_source *source)
{
	struct vhost_device *device = (struct vhost_device *)((char *)source -
				       offsetof(struct vhost_device, socket));
	int result = 0;

	pthread_mutex_lock(&device->lock);
	if (vhost_is_up(device))
		result = vhost_user_check(&device->user);
	if (result == -EPROTO)
		vhost_lose_blamed(device);
	else if (result)
		vhost_lose(device);
	pthread_mutex_unlock(&device->lock);
}

static void vhost_requests_ready(struct loop_source *source)
{
	struct vhost_device *device = (struct vhost_device *)((char *)source -
				       offsetof(struct vhost_device, requests));
	bool changed = false;
	int result = 0;

	pthread_mutex_lock(&device->lock);
	if (vhost_is_up(device)) {
		vhost_user_begin(&device->user, VHOST_STEP_MS);
		result = vhost_user_take_request(&device->user);
		if (result > 0)
			result = vhost_read_config(device, &changed);
		if (result < 0)
			vhost_lose(device);
	}
	if (changed)
		eventfd_write(device->config_event, 1);
	pthread_mutex_unlock(&device->lock);
}

/* The device, for its transport */

static uint64_t vhost_features(struct device *dev)
{
	return ((struct vhost_device *)dev)->features;
}

static void vhost_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	struct vhost_device *device = (struct vhost_device *)dev;

	pthread_mutex_lock(&device->config_lock);
	memcpy(buf, device->config + offset, len);
	pthread_mutex_unlock(&device->config_lock);
}

/* Written to a back end that is away, it is lost; what reads back is what the back end has. */
static void vhost_config_write(struct device *dev, uint32_t offset, const void *buf, uint32_t len)
{
	struct vhost_device *device = (struct vhost_device *)dev;
	bool changed;
	int err;

	pthread_mutex_lock(&device->lock);
	if (vhost_is_up(device)) {
		vhost_user_begin(&device->user, VHOST_STEP_MS);
		err = vhost_user_set_config(&device->user, offset, buf, len);
		if (!err)
			err = vhost_read_config(device, &changed);
		if (err && err != -EREMOTEIO)
			vhost_lose(device);
	}
	pthread_mutex_unlock(&device->lock);
}

static int vhost_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		       const struct dev_vring *rings)
{
	struct vhost_device *device = (struct vhost_device *)dev;
	struct vhost_isolation *isolation = device->isolation;

	(void)memory;	/* the isolation has it */
	pthread_mutex_lock(&device->lock);
	isolation->ops->start(isolation, features, rings);
	vhost_user_begin(&device->user, VHOST_STEP_MS);
	if (vhost_is_up(device) && isolation->ops->serve(isolation, &device->user))
		vhost_lose(device);
	pthread_mutex_unlock(&device->lock);
	return 0;
}

static void vhost_stop(struct device *dev)
{
	struct vhost_device *device = (struct vhost_device *)dev;

	pthread_mutex_lock(&device->lock);
	vhost_user_begin(&device->user, VHOST_STEP_MS);
	if (device->isolation->ops->stop(device->isolation, &device->user))
		vhost_lose(device);
	pthread_mutex_unlock(&device->lock);
}

static void vhost_destroy(struct device *dev)
{
	struct vhost_device *device = (struct vhost_device *)dev;

	loop_finish(&device->loop);
	vhost_user_disconnect(&device->user);
	if (device->isolation)
		device->isolation->ops->destroy(device->isolation);
	fd_close(device->timer.fd);
	fd_close(device->config_event);
	pthread_mutex_destroy(&device->config_lock);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

int vhost_device_config_event(const struct device *dev)
{
	return ((const struct vhost_device *)dev)->config_event;
}

void vhost_device_count(const struct device *dev, uint64_t *ret_requests, uint64_t *ret_bytes)
{
	const struct vhost_isolation *isolation = ((const struct vhost_device *)dev)->isolation;

	*ret_requests = __atomic_load_n(&isolation->requests, __ATOMIC_RELAXED);
	*ret_bytes = __atomic_load_n(&isolation->bytes, __ATOMIC_RELAXED);
}

/* Building it */

static int vhost_init(struct vhost_device *device)
{
	int err;

	device->config_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	device->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (device->config_event < 0 || device->timer.fd < 0)
		return -errno;
	err = loop_add(&device->loop, &device->timer);
	if (!err)
		err = vhost_watch(device);
	return err ? err : loop_start(&device->loop, device->ops.name);
}

static struct vhost_device *vhost_alloc(const struct vhost_type *type, struct vhost_origin *origin)
{
	struct vhost_device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	if (loop_init(&device->loop)) {
		free(device);
		return NULL;
	}
	device->dev.ops = &device->ops;
	device->type = type;
	device->origin = origin;
	device->user = (struct vhost_user){ .name = origin->name, .socket = -1, .requests = -1 };
	device->socket.ready = vhost_socket_ready;
	device->requests.ready = vhost_requests_ready;
	device->timer = (struct loop_source){ .fd = -1, .ready = vhost_timer_ready };
	device->config_event = -1;
	device->retry_ms = VHOST_RETRY_MIN_MS;
	pthread_mutex_init(&device->lock, NULL);
	pthread_mutex_init(&device->config_lock, NULL);
	return device;
}

/* How many queues the driver is to see. 0, which has been said: the back end will not do. */
static unsigned int vhost_queues(const struct vhost_type *type, const struct vhost_user *user)
{
	if (type->needs_config && !vhost_user_has(user, VHOST_USER_PROTOCOL_F_CONFIG)) {
		log_error("%s: the back end has no configuration to tell", user->name);
		return 0;
	}
	if (type->queues)
		return type->queues;
	if (user->queues >= type->served)
		return user->queues < VHOST_QUEUES_MAX ? user->queues : VHOST_QUEUES_MAX;
	log_error("%s: the back end has %llu queues, which are too few", user->name,
		  (unsigned long long)user->queues);
	return 0;
}

/* How many of these are the back end's. */
static unsigned int vhost_served(const struct vhost_type *type, const struct vhost_user *user,
				 unsigned int queues)
{
	return user->queues < queues ? type->served : queues;
}

/* The device is what its first back end is. */
static int vhost_adopt(struct vhost_device *device, const struct vhost_isolation *wanted)
{
	const struct vhost_type *type = device->type;
	unsigned int queues = vhost_queues(type, &device->user);
	struct vhost_isolation setup = *wanted;

	if (!queues)
		return -ENOTSUP;
	device->ops = (struct device_ops){
		.name = type->name, .virtio_id = type->virtio_id, .queue_count = queues,
		.queue_size_max = VRING_TRACK_SIZE_MAX, .features = vhost_features,
		.config_read = vhost_config_read, .config_write = vhost_config_write,
		.start = vhost_start, .stop = vhost_stop, .destroy = vhost_destroy,
	};
	if (vhost_user_has(&device->user, VHOST_USER_PROTOCOL_F_CONFIG))
		device->ops.config_size = type->config_size;
	device->features = vhost_offers(device, wanted->ops);
	setup.name = device->origin->name;
	setup.loop = &device->loop;
	setup.lock = &device->lock;
	setup.lose = vhost_lose_blamed;
	setup.owner = device;
	setup.count = vhost_served(type, &device->user, queues);
	setup.failure = type->failure;
	return wanted->ops->create(&setup, &device->user, &device->isolation);
}

static int vhost_first(struct vhost_device *device, const struct vhost_isolation *wanted)
{
	int err, fd = device->origin->connect(device->origin);
	bool changed;

	if (fd < 0)
		return fd;
	vhost_user_connect(&device->user, fd);
	vhost_user_begin(&device->user, VHOST_STEP_MS);
	err = vhost_user_negotiate(&device->user);
	if (!err)
		err = vhost_adopt(device, wanted);
	if (!err)
		err = vhost_read_config(device, &changed);
	if (err)
		return err;
	device->since = clock_ms();
	err = vhost_init(device);
	if (err)
		log_error("%s: %s", device->origin->name, strerror(-err));
	return err;
}

int vhost_device_create(const struct vhost_type *type, struct vhost_origin *origin,
			const struct vhost_isolation *isolation, struct device **ret)
{
	struct vhost_device *device = vhost_alloc(type, origin);
	int err = -ENOMEM;

	if (!device) {
		log_error("%s: %s", origin->name, strerror(ENOMEM));
		return err;
	}
	err = vhost_first(device, isolation);
	if (err)
		vhost_destroy(&device->dev);
	else
		*ret = &device->dev;
	return err;
}
