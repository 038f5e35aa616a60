/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What of the machine a back end gets to see, and how a driver's queues come to it: vhost_gate.c for
 * isolation=grant, vhost_share.c for isolation=shared. vhost_device.c has one of them.
 */
#ifndef VMM_VHOST_ISOLATION_H
#define VMM_VHOST_ISOLATION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Feature bits that are of the device, not of the ring. */
#define VHOST_OWN_FEATURES	(0xffffffULL | 0x3fffULL << 50)

struct dev_vring;
struct loop;
struct memory;
struct vhost_isolation;
struct vhost_isolation_ops;
struct vhost_user;

/* How a request is failed, by who serves the queue no more: what the driver is to find in it. */
enum vhost_failure {
	VHOST_FAIL_EMPTY,	/* nothing, of no bytes */
	VHOST_FAIL_BLK,		/* a disk's status, in the last byte */
	VHOST_FAIL_FS,		/* a file system's error, for the request's number */
};

/**
 * struct vhost_isolation - the queues of a device, and who serves them
 * @name: what messages call it
 * @memory: the guest's
 * @vm: the VM's descriptor, for windows; -1: there are none
 * @loop: where eventfds can be waited for; it runs from after create() to before destroy()
 * @lock: the device's, which guards all of this and is held by callers, but for create and destroy
 * @lose: for the loop's handlers, with the lock held: the back end has done what it must not, which
 *	has been said. It calls @ops->lost and @ops->blame
 * @owner: of that call
 * @count: of queues
 * @failure: how to fail a request
 * @running: between start and stop
 * @features: chosen by the driver
 * @requests, @bytes: that were done, as far as they are seen here; others may look at any time
 */
struct vhost_isolation {
	const struct vhost_isolation_ops *ops;
	const char *name;
	const struct memory *memory;
	int vm;
	struct loop *loop;
	pthread_mutex_t *lock;
	void (*lose)(void *owner);
	void *owner;
	unsigned int count;
	enum vhost_failure failure;
	bool running;
	uint64_t features;
	uint64_t requests;
	uint64_t bytes;
};

/**
 * struct vhost_isolation_ops - one kind of it
 * @name: as an option has it
 * @ring_features: of the ring's, those that a driver may choose, with a back end that offers some
 * @create: @setup has all members up to @failure. 0 or a negative errno
 * @destroy: after the loop's end
 * @lacks: what this back end lacks to be the successor of the first one, in words; or NULL
 * @start: the driver is ready: these are its rings. Whether a back end is there is another matter
 * @serve: have a back end serve the driver's rings, as the first since the start or as a successor.
 *	0, or a negative errno, which has been said: then lost() follows
 * @progressed: has the back end that serves them done any request yet?
 * @lost: it is gone, or was dropped
 * @blame: and that by its own doing
 * @stop: undo the start. With a @user whose connection is down, or is lost, the rest is done all the
 *	same
 * @outstanding: how many requests the driver has out, as far as that is known
 */
struct vhost_isolation_ops {
	const char *name;
	uint64_t (*ring_features)(uint64_t offered);
	int (*create)(const struct vhost_isolation *setup, const struct vhost_user *user,
		      struct vhost_isolation **ret);
	void (*destroy)(struct vhost_isolation *isolation);
	const char *(*lacks)(const struct vhost_isolation *isolation,
			     const struct vhost_user *user);
	void (*start)(struct vhost_isolation *isolation, uint64_t features,
		      const struct dev_vring *rings);
	int (*serve)(struct vhost_isolation *isolation, struct vhost_user *user);
	bool (*progressed)(const struct vhost_isolation *isolation);
	void (*lost)(struct vhost_isolation *isolation);
	void (*blame)(struct vhost_isolation *isolation);
	int (*stop)(struct vhost_isolation *isolation, struct vhost_user *user);
	unsigned int (*outstanding)(const struct vhost_isolation *isolation);
};

extern const struct vhost_isolation_ops vhost_gate;
extern const struct vhost_isolation_ops vhost_share;

#endif /* VMM_VHOST_ISOLATION_H */
