/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VHOST_DEVICE_H
#define VMM_VHOST_DEVICE_H

struct device;
struct vhost_isolation;

/* What --device-socket can name. */
struct vhost_type;

/* The type of a name, as "blk"; NULL: there is none such. */
const struct vhost_type *vhost_type_find(const char *name);

/**
 * vhost_device_create - a virtio device whose queues another process serves
 * @path: where that process, the back end, listens; or /proc/self/fd/N, a connection to it, after
 *	the end of which there is no other. The string must stay
 * @isolation: @ops, @memory and @vm of it, which must stay: what the back end gets to see
 *
 * The back end must be there by now. Later it may go, and another come.
 *
 * Return: 0 or a negative errno, which has been said.
 */
int vhost_device_create(const struct vhost_type *type, const char *path,
			const struct vhost_isolation *isolation, struct device **ret);

/* An eventfd for virtio_pci_watch_config(), of the device's. */
int vhost_device_config_event(const struct device *dev);

#endif /* VMM_VHOST_DEVICE_H */
