/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VHOST_DEVICE_H
#define VMM_VHOST_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct vhost_isolation;

/* What --device-socket can name. */
struct vhost_type;

/* The type of a name, as "blk"; NULL: there is none such. */
const struct vhost_type *vhost_type_find(const char *name);

/**
 * struct vhost_origin - where a device's back ends come from, one after the other
 * @name: what messages call the device
 * @last: there will be no other than the one that there is, if any
 * @crashed: set by connect(): the one before ended by its own doing
 * @connect: get a connection to the next one. Return: it, or a negative errno, which has been said;
 *	again and again the same need not be
 * @returned: another one serves the device, or NULL; on the device's own thread
 * @owner: of that call
 */
struct vhost_origin {
	char name[64];
	bool last;
	bool crashed;
	int (*connect)(struct vhost_origin *origin);
	void (*returned)(struct vhost_origin *origin);
	void *owner;
};

/**
 * vhost_device_create - a virtio device whose queues another process serves
 * @origin: of that process, the back end; called by one thread at a time. Must stay
 * @isolation: @ops, @memory and @vm of it, which must stay: what the back end gets to see
 *
 * The back end must be there by now. Later it may go, and another come.
 *
 * Return: 0 or a negative errno, which has been said.
 */
int vhost_device_create(const struct vhost_type *type, struct vhost_origin *origin,
			const struct vhost_isolation *isolation, struct device **ret);

/* Requests that went through the gate, and their bytes, since the device is there. */
void vhost_device_count(const struct device *dev, uint64_t *ret_requests, uint64_t *ret_bytes);

/* An eventfd for virtio_pci_watch_config(), of the device's. */
int vhost_device_config_event(const struct device *dev);

#endif /* VMM_VHOST_DEVICE_H */
