/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The virtio devices of a machine: those that it begins with, and those that come and go. */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "moat/control.h"
#include "userspace/lib/loop.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/supervisor.h"

struct device;
struct events;
struct memory;
struct pci;
struct virtio_pci;
struct vm;

/* Those that can be processes, an entropy source, a console, a balloon. */
#define DEVICES_MAX	(OPTIONS_DEVICES + 3)

/* What of the machine devices are put into, which must stay. */
struct devices_board {
	struct vm *vm;
	const struct memory *memory;
	struct pci *pci;
	struct loop *loop;
	struct events *events;
};

enum devices_state {
	DEVICES_NONE,
	DEVICES_HERE,
	DEVICES_ASKED,		/* the guest is to let it go */
	DEVICES_LEFT,		/* it has, and finds it no more */
};

/**
 * struct devices_one - a device
 * @name: as control requests have it; "" for those that are threads of the launcher's
 * @link: where its processes come from; NULL: it has none
 * @own: that link, where it is not one of the supervisor's
 * @restarts: of its process; @told: of these
 */
struct devices_one {
	struct devices *devices;
	enum devices_state state;
	char name[CONTROL_NAME];
	struct virtio_pci *virtio;
	struct device *dev;
	struct supervisor_link *link;
	struct supervisor_link own;
	unsigned int restarts;
	unsigned int told;
};

/**
 * struct devices
 * @news: an eventfd, for a loop of who calls devices_take_news(), who sets @ready: there are some
 * @balloon: NULL: there is none
 * @lock: guards states, which vCPUs change too
 * @gone: what those did that are gone
 */
struct devices {
	struct devices_board board;
	struct loop_source news;
	struct device *balloon;
	pthread_mutex_t lock;
	struct control_stats gone;
	struct devices_one one[DEVICES_MAX];
};

/* These say themselves what failed. Return: 0 or a negative errno. */
int devices_init(struct devices *devices, const struct devices_board *board);
int devices_add_all(struct devices *devices, const struct options *options,
		    struct supervisor *supervisor);

/* When neither the board's loop nor any vCPU runs any more. */
void devices_finish(struct devices *devices);

/* While the machine runs, all by one thread: */

/**
 * devices_attach - a device comes
 * @link: a link to the supervisor; becomes the device's, if there is no error
 *
 * Return: 0; -EEXIST, -ENOSPC, -EINVAL: there is no such type; or another negative errno.
 */
int devices_attach(struct devices *devices, const char *type, const char *name,
		   enum control_isolation isolation, int link);

/* Ask the guest to let it go. 0, or -ENOENT. */
int devices_detach(struct devices *devices, const char *name);

/* Is there something to tell of a device? What has left is destroyed here. */
bool devices_take_news(struct devices *devices, enum control_what *ret_what,
		       char ret_name[CONTROL_NAME]);

unsigned int devices_count(const struct devices *devices);

/* Add what devices did: @disk_ and @net_ members, and @restarts. */
void devices_add_stats(const struct devices *devices, struct control_stats *stats);

#endif /* VMM_DEVICES_H */
