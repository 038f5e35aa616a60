// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A device that is to go is asked for by ACPI (events.h). When the guest has let go of it, its vCPU takes it
 * out of its slot, so that it is not found again; the rest of the way, which may have to wait for its process,
 * is the controlling thread's. What nobody has asked for stays, whatever the guest lets go.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devmodel/balloon/balloon.h"
#include "devmodel/console/console.h"
#include "devmodel/device.h"
#include "devmodel/rng/rng.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/devices.h"
#include "userspace/vmm/events.h"
#include "userspace/vmm/vhost_device.h"
#include "userspace/vmm/vhost_isolation.h"
#include "userspace/vmm/virtio_pci.h"
#include "userspace/vmm/vm.h"

#define DEVICES_BALLOON_PAGE	4096

static void devices_announce(const struct devices *devices)
{
	eventfd_write(devices->news.fd, 1);
}

static struct devices_one *devices_find(struct devices *devices, const char *name)
{
	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		if (devices->one[i].state && !strcmp(devices->one[i].name, name))
			return &devices->one[i];
	return NULL;
}

static struct devices_one *devices_free(struct devices *devices)
{
	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		if (!devices->one[i].state)
			return &devices->one[i];
	return NULL;
}

static void devices_set_state(struct devices *devices, struct devices_one *one,
			      enum devices_state state)
{
	pthread_mutex_lock(&devices->lock);
	one->state = state;
	pthread_mutex_unlock(&devices->lock);
}

/* The device is @one's from here on, on failure too. @event: of its configuration's changes, or -1. */
static int devices_put(struct devices *devices, struct devices_one *one, struct device *dev,
		       int event)
{
	const struct devices_board *board = &devices->board;
	const char *name = dev->ops->name;
	int err = virtio_pci_create(dev, board->vm, board->memory, board->pci, board->loop,
				    &one->virtio);

	one->dev = dev;
	if (err)
		log_error("cannot put a virtio %s device into the machine: %s", name,
			  strerror(-err));
	else
		devices_set_state(devices, one, DEVICES_HERE);
	if (!err && event >= 0) {
		err = virtio_pci_watch_config(one->virtio, board->loop, event);
		if (err)
			log_error("cannot wait for a virtio %s device: %s", name, strerror(-err));
	}
	return err;
}

static void device_returned(struct vhost_origin *origin)
{
	struct devices_one *one = origin->owner;

	__atomic_add_fetch(&one->restarts, 1, __ATOMIC_SEQ_CST);
	devices_announce(one->devices);
}

static int devices_put_process(struct devices *devices, struct devices_one *one, const char *type,
			       const struct vhost_isolation_ops *ops)
{
	const struct vhost_isolation isolation = {
		.ops = ops, .memory = devices->board.memory, .vm = devices->board.vm->fd,
	};
	struct vhost_origin *origin = &one->link->origin;
	struct device *dev;
	int err;

	origin->owner = one;
	origin->returned = device_returned;
	err = vhost_device_create(vhost_type_find(type), origin, &isolation, &dev);
	return err ? err : devices_put(devices, one, dev, vhost_device_config_event(dev));
}

static void device_add_stats(const struct devices_one *one, struct control_stats *stats)
{
	uint64_t requests, bytes;

	if (!one->link)
		return;
	stats->restarts += __atomic_load_n(&one->restarts, __ATOMIC_SEQ_CST);
	vhost_device_count(one->dev, &requests, &bytes);
	if (one->dev->ops->virtio_id == VIRTIO_ID_BLOCK) {
		stats->disk_requests += requests;
		stats->disk_bytes += bytes;
	} else if (one->dev->ops->virtio_id == VIRTIO_ID_NET) {
		stats->net_requests += requests;
		stats->net_bytes += bytes;
	}
}

/* At the start */

static int devices_add_process(struct devices *devices, struct supervisor_link *link,
			       unsigned int index)
{
	struct devices_one *one = devices_free(devices);
	const struct options_device *device = link->device;
	char name[CONTROL_NAME];

	snprintf(name, sizeof(name), "device%u", index);
	if (device->name)
		snprintf(name, sizeof(name), "%s", device->name);
	if (devices_find(devices, name)) {
		log_error("%s: there are two devices of that name", name);
		return -EEXIST;
	}
	memcpy(one->name, name, sizeof(one->name));
	one->link = link;
	return devices_put_process(devices, one, device->type, device->isolation);
}

static int devices_add_rng(struct devices *devices)
{
	struct device *dev;
	int err = rng_create(&dev);

	if (err) {
		log_error("cannot make an entropy source: %s", strerror(-err));
		return err;
	}
	return devices_put(devices, devices_free(devices), dev, -1);
}

static int devices_add_balloon(struct devices *devices, uint64_t size)
{
	struct device *dev;
	int err = balloon_create(size / DEVICES_BALLOON_PAGE, &dev);

	if (err) {
		log_error("cannot make a balloon: %s", strerror(-err));
		return err;
	}
	err = devices_put(devices, devices_free(devices), dev, balloon_config_event(dev));
	if (!err)
		devices->balloon = dev;
	return err;
}

/* On copies, since the device closes what it gets, and others may use the same descriptors. */
static int devices_add_console(struct devices *devices, int in, int out)
{
	int own_in = fcntl(in, F_DUPFD_CLOEXEC, 0);
	int own_out = fcntl(out, F_DUPFD_CLOEXEC, 0);
	struct device *dev;
	int err = -errno;

	if (own_in >= 0 && own_out >= 0)
		err = console_create(own_in, own_out, &dev);
	if (err) {
		log_error("cannot make a console on descriptors %d and %d: %s", in, out,
			  strerror(-err));
		fd_close(own_in);
		fd_close(own_out);
		return err;
	}
	return devices_put(devices, devices_free(devices), dev, -1);
}

int devices_add_all(struct devices *devices, const struct options *options,
		    struct supervisor *supervisor)
{
	int err = 0;

	for (unsigned int i = 0; i < options->device_count && !err; i++)
		err = devices_add_process(devices, &supervisor->link[i], i);
	if (!err && options->console_in >= 0)
		err = devices_add_console(devices, options->console_in, options->console_out);
	if (!err && options->rng)
		err = devices_add_rng(devices);
	if (!err && options->balloon)
		err = devices_add_balloon(devices, options->balloon_size);
	return err;
}

/* Coming and going */

int devices_attach(struct devices *devices, const char *type, const char *name,
		   enum control_isolation isolation, int link)
{
	struct devices_one *one = devices_free(devices);
	int err;

	if (!vhost_type_find(type))
		return -EINVAL;
	if (devices_find(devices, name))
		return -EEXIST;
	if (!one)
		return -ENOSPC;
	*one = (struct devices_one){ .devices = devices, .link = &one->own };
	snprintf(one->name, sizeof(one->name), "%s", name);
	supervisor_link_adopt(&one->own, type, name, link);
	err = devices_put_process(devices, one, type,
				  isolation == CONTROL_SHARED ? &vhost_share : &vhost_gate);
	if (!err)
		events_raise(devices->board.events, EVENTS_SLOT_UP,
			     1u << virtio_pci_slot(one->virtio));
	else if (one->state && !virtio_pci_remove(one->virtio, devices->board.pci,
						  devices->board.loop))
		devices_set_state(devices, one, DEVICES_NONE);
	return err;
}

int devices_detach(struct devices *devices, const char *name)
{
	struct devices_one *one = devices_find(devices, name);

	if (!one)
		return -ENOENT;
	pthread_mutex_lock(&devices->lock);
	if (one->state == DEVICES_HERE)
		one->state = DEVICES_ASKED;
	pthread_mutex_unlock(&devices->lock);
	events_raise(devices->board.events, EVENTS_SLOT_DOWN, 1u << virtio_pci_slot(one->virtio));
	return 0;
}

static void devices_let_go(void *owner, uint32_t slots)
{
	struct devices *devices = owner;

	pthread_mutex_lock(&devices->lock);
	for (unsigned int i = 0; i < DEVICES_MAX; i++) {
		struct devices_one *one = &devices->one[i];

		if (one->state != DEVICES_ASKED || !(slots >> virtio_pci_slot(one->virtio) & 1))
			continue;
		virtio_pci_hide(one->virtio, devices->board.pci);
		one->state = DEVICES_LEFT;
		devices_announce(devices);
	}
	pthread_mutex_unlock(&devices->lock);
}

/* Its process ends with the connection, or with the link. */
static void devices_destroy(struct devices *devices, struct devices_one *one)
{
	struct control_stats gone = devices->gone;
	int err;

	device_add_stats(one, &gone);
	err = virtio_pci_remove(one->virtio, devices->board.pci, devices->board.loop);
	if (err) {
		log_error("%s: cannot be removed: %s", one->name, strerror(-err));
		*one->name = '\0';
		return;
	}
	devices->gone = gone;
	supervisor_link_close(one->link);
	devices_set_state(devices, one, DEVICES_NONE);
}

bool devices_take_news(struct devices *devices, enum control_what *ret_what,
		       char ret_name[CONTROL_NAME])
{
	for (unsigned int i = 0; i < DEVICES_MAX; i++) {
		struct devices_one *one = &devices->one[i];
		const unsigned int restarts = __atomic_load_n(&one->restarts, __ATOMIC_SEQ_CST);

		memcpy(ret_name, one->name, CONTROL_NAME);
		if (one->state && one->told != restarts) {
			*ret_what = CONTROL_RESTARTED;
			one->told = restarts;
			return true;
		}
		if (one->state == DEVICES_LEFT && *one->name) {
			*ret_what = CONTROL_DETACHED;
			devices_destroy(devices, one);
			return true;
		}
	}
	return false;
}

unsigned int devices_count(const struct devices *devices)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		count += devices->one[i].state != DEVICES_NONE;
	return count;
}

void devices_add_stats(const struct devices *devices, struct control_stats *stats)
{
	stats->disk_requests += devices->gone.disk_requests;
	stats->disk_bytes += devices->gone.disk_bytes;
	stats->net_requests += devices->gone.net_requests;
	stats->net_bytes += devices->gone.net_bytes;
	stats->restarts += devices->gone.restarts;
	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		if (devices->one[i].state)
			device_add_stats(&devices->one[i], stats);
}

int devices_init(struct devices *devices, const struct devices_board *board)
{
	*devices = (struct devices){ .board = *board };
	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		devices->one[i].devices = devices;
	pthread_mutex_init(&devices->lock, NULL);
	devices->news.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	events_on_eject(board->events, devices_let_go, devices);
	return devices->news.fd < 0 ? -errno : 0;
}

void devices_finish(struct devices *devices)
{
	for (unsigned int i = 0; i < DEVICES_MAX; i++) {
		struct devices_one *one = &devices->one[i];

		if (one->state == DEVICES_NONE)
			continue;
		virtio_pci_destroy(one->virtio);
		supervisor_link_close(one->link);
	}
	fd_close(devices->news.fd);
}
