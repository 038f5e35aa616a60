/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What a transport (virtio-pci in the launcher) and a virtio device know of each other.
 *
 * The shape is vhost-user's, on purpose: a memory table, ring addresses, and eventfds in both
 * directions are all that passes, so that a device can move into a process of its own and nothing
 * here changes but who carries it. A device does its work in a thread of its own, woken by the
 * kick eventfds. It never calls back into its transport.
 *
 * Calls of one device come from one transport, one at a time, in this order:
 *
 *	create  { features  config_read  config_write }*  { start  stop }*  leave  destroy
 *
 * config_read and config_write may also come between start and stop, while the device's thread
 * runs; the device does whatever locking that needs.
 */
#ifndef DEVMODEL_DEVICE_H
#define DEVMODEL_DEVICE_H

#include <stdint.h>

#define DEV_MAX_REGIONS	8

/**
 * struct dev_region - a piece of guest memory that the device may reach
 * @gpa: guest-physical address of its first byte
 * @size: bytes; gpa + size does not wrap
 * @hva: where the first byte is mapped, readable and writable, in this process
 */
struct dev_region {
	uint64_t gpa;
	uint64_t size;
	void *hva;
};

/**
 * struct dev_memory - all of the guest memory that a device may reach
 * @count: regions in use, sorted by gpa, none overlapping
 */
struct dev_memory {
	unsigned int count;
	struct dev_region region[DEV_MAX_REGIONS];
};

/* Where a driver and its device begin in a packed ring: index 0, and a wrap counter that is set. */
#define DEV_PACKED_START	0x8000

/**
 * struct dev_vring - one virtqueue, as the driver set it up; packed with VIRTIO_F_RING_PACKED
 * @size: entries, from 1 to VIRTQ_SIZE_MAX, of a split ring a power of two; 0: not enabled, and
 *	nothing else in here means anything
 * @next_avail: index into the driver area that the device takes first. Of a packed ring, index into
 *	the descriptor ring, with the driver's wrap counter in bit 15
 * @next_used: of a packed ring only, where the device gives back first, in the same form
 * @desc: guest-physical address of the descriptor table, or ring
 * @avail: ... of the driver area; of a packed ring: of its event suppression
 * @used: ... of the device area; the same
 * @kick: eventfd, non-blocking: the driver has made buffers available. The device polls and reads
 *	it
 * @call: eventfd: the device adds one to interrupt the guest. Whether the guest wants to be
 *	interrupted (flags, event index) is the device's to find out first
 * @err: eventfd: the device adds one when the ring is broken beyond use (a loop, an index past the
 *	ring, a buffer outside memory). The transport then sets DEVICE_NEEDS_RESET, and the device
 *	leaves that ring alone until it is stopped
 * @inflight: where the queue code keeps record of the requests in flight, shared with whoever hands
 *	it to the next process that serves this queue; NULL: nowhere. It has room for @size entries
 * @resume: of a packed ring, where the queue code keeps up to date what @next_used has become, for
 *	who stops the device and goes on later; NULL: nowhere. Not written any more after stop()
 *
 * The transport has checked that each area is aligned as the standard says and lies, for this size,
 * whole in one region. What is in there is the guest's, and may change at any moment.
 * The descriptors belong to the transport and stay open until stop() has returned.
 */
struct dev_vring {
	uint16_t size;
	uint16_t next_avail;
	uint16_t next_used;
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	int kick;
	int call;
	int err;
	void *inflight;
	uint16_t *resume;
};

struct device_ops;

/* The first member of each device's own struct. */
struct device {
	const struct device_ops *ops;
};

/**
 * struct device_ops - a virtio device
 * @name: for messages and thread names, as "blk"
 * @virtio_id: the device ID of the standard, as 2 for a block device
 * @queue_count: queues that the device has, at least 1
 * @queue_size_max: the most entries in a queue that a transport is to offer, where it can
 * @config_size: bytes of device-specific configuration, may be 0
 * @features: feature bits offered: the device's own, and of the ring's those that its queue code
 *	handles. VIRTIO_F_VERSION_1 is the transport's to add. Never changes
 * @config_read: copy @len bytes at @offset of the configuration; within config_size
 * @config_write: the same for a write by the driver; NULL where nothing can be written
 * @start: the driver is ready (DRIVER_OK). @features: what was negotiated; @rings: queue_count of
 *	them. All arguments but the guest memory itself are only valid during the call.
 *	0 or a negative errno, and then the device is as before
 * @stop: undo start(). On return nothing of the device touches guest memory or an eventfd any more;
 *	each request that was taken has been given back, or counts as not taken: the index in the
 *	device area, or @resume of the ring, tells which one comes next. Only called after a start()
 *	that returned 0
 * @leave: whoever has the driver is gone: what is kept for it from one start() to the next is void.
 *	Only when stopped. May be NULL
 * @destroy: free all, with the descriptors that the constructor took. Only when stopped
 */
struct device_ops {
	const char *name;
	uint16_t virtio_id;
	uint16_t queue_count;
	uint16_t queue_size_max;
	uint32_t config_size;
	uint64_t (*features)(struct device *dev);
	void (*config_read)(struct device *dev, uint32_t offset, void *buf, uint32_t len);
	void (*config_write)(struct device *dev, uint32_t offset, const void *buf, uint32_t len);
	int (*start)(struct device *dev, const struct dev_memory *memory, uint64_t features,
		     const struct dev_vring *rings);
	void (*stop)(struct device *dev);
	void (*leave)(struct device *dev);
	void (*destroy)(struct device *dev);
};

#endif /* DEVMODEL_DEVICE_H */
