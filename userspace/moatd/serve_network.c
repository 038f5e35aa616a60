// SPDX-License-Identifier: MIT OR GPL-2.0
/* Requests about networks. One at a time: children of the keeper have a lock for that. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "userspace/moatd/network.h"
#include "userspace/moatd/network_lock.h"
#include "userspace/moatd/serve.h"

int network_lock(const struct keeper_options *options)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/networks", options->run);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (!flock(fd, LOCK_EX))
		return fd;
	close(fd);
	return -EINTR;
}

static bool forward_wanted(const struct keeper_network *network, const struct network_forward *forward)
{
	for (uint32_t i = 0; i < network->forward_count; i++)
		if (!memcmp(&network->forward[i], forward, sizeof(*forward)))
			return true;
	return false;
}

/* Those that are not wanted go first, since the others may want their ports. */
static int forwards_set(const struct keeper_network *network, char *why)
{
	struct network_forward there[NETWORK_FORWARDS];
	int count = network_forwards(network->spec.name, there, NETWORK_FORWARDS, why), err = 0;

	if (count > NETWORK_FORWARDS)
		count = NETWORK_FORWARDS;
	for (int i = 0; i < count && !err; i++)
		if (!forward_wanted(network, &there[i]))
			err = network_forward_remove(&network->spec, &there[i], why);
	for (uint32_t i = 0; i < network->forward_count && !err; i++)
		err = network_forward(&network->spec, &network->forward[i], why);
	return err;
}

int serve_network_start(struct keeper_work *work, const void *carried)
{
	const struct keeper_network *network = carried;
	char *why = work->answer.why;
	int err, lock;

	if (network->forward_count > NETWORK_FORWARDS || network_check(&network->spec, why))
		return -EINVAL;
	lock = network_lock(work->options);
	if (lock < 0)
		return work_fail(work, lock, "networks");
	err = network_start(&network->spec, why);
	if (!err && network->spec.mode == NETWORK_NAT)
		err = forwards_set(network, why);
	close(lock);
	return err;
}

int serve_network_stop(struct keeper_work *work, const void *carried)
{
	const struct keeper_name *name = carried;
	int err, lock;

	if (!memchr(name->name, 0, sizeof(name->name)) || !network_name_valid(name->name))
		return -EINVAL;
	lock = network_lock(work->options);
	if (lock < 0)
		return work_fail(work, lock, "networks");
	err = network_stop(name->name, work->answer.why);
	close(lock);
	return err;
}
