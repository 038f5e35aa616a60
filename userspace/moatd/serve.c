// SPDX-License-Identifier: MIT OR GPL-2.0
/* Requests about machines. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/cgroup.h"
#include "userspace/moatd/launch.h"
#include "userspace/moatd/place.h"
#include "userspace/moatd/serve.h"

#define SERVE_PATIENCE_MS	5000

int work_fail(struct keeper_work *work, int err, const char *what)
{
	if (err < 0 && !*work->answer.why)
		snprintf(work->answer.why, KEEPER_WHY, "%s: %s", what, strerror(-err));
	return err;
}

static void list_each(void *arg, const char *name)
{
	struct keeper_work *work = arg;

	snprintf(work->answer.name, sizeof(work->answer.name), "%s", name);
	work_more(work);
	memset(work->answer.name, 0, sizeof(work->answer.name));
}

int serve_list(struct keeper_work *work, const void *carried)
{
	(void)carried;
	return work_fail(work, place_list(work->options, list_each, work), "machines");
}

/* One that has a name, too: by it, files and groups are found. */
static int named_check(const struct definition *definition, struct definition_error *error)
{
	int err = definition_check(definition, error);

	if (!err && !*definition->name) {
		snprintf(error->text, sizeof(error->text), "name: there is none");
		err = -EINVAL;
	}
	return err;
}

/* Of networks, network.h checks what it is given. */
static int start_check(const struct keeper_start *start, struct definition_error *error)
{
	int err = named_check(&start->definition, error);

	for (uint64_t i = 0; !err && i < start->definition.network_count; i++)
		if (!definition_network_is_user(&start->definition.network[i]))
			err = network_check(&start->network[i], error->text);
	return err;
}

static int work_launch(struct keeper_work *work, const struct keeper_start *start,
		       int (*launch)(const struct keeper_options *, const struct keeper_start *, char *))
{
	struct definition_error error;

	if (!start_check(start, &error))
		return launch(work->options, start, work->answer.why);
	snprintf(work->answer.why, KEEPER_WHY, "%.*s", KEEPER_WHY - 1, error.text);
	return -EINVAL;
}

int serve_start(struct keeper_work *work, const void *carried)
{
	return work_launch(work, carried, launch_start);
}

int serve_attach(struct keeper_work *work, const void *carried)
{
	return work_launch(work, carried, launch_attach);
}

/* The name, which has an end; NULL: it is none. */
static const char *carried_name(const void *carried)
{
	const struct keeper_name *name = carried;

	return memchr(name->name, 0, sizeof(name->name)) && definition_name_valid(name->name) ?
	       name->name : NULL;
}

int serve_connect(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);

	return name ? place_connect(work->options, name, PLACE_CONTROL) : -EINVAL;
}

static int work_reap(struct keeper_work *work, const char *name)
{
	int err = cgroup_kill(work->options->cgroup, name);

	if (!err)
		err = place_ended(work->options, name, &work->answer.ended);
	return work_fail(work, err, "its end");
}

/* A launcher that has hung up still has its own to see to. */
int serve_reap(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);

	if (!name)
		return -EINVAL;
	cgroup_wait(work->options->cgroup, name, SERVE_PATIENCE_MS);
	return work_reap(work, name);
}

int serve_kill(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);

	if (!name)
		return -EINVAL;
	place_mark_asked(work->options, name);
	return work_reap(work, name);
}

int serve_clean(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);
	int err = name ? cgroup_kill(work->options->cgroup, name) : -EINVAL;

	if (!err)
		err = cgroup_remove(work->options->cgroup, name);
	if (!err)
		err = place_remove(work->options, name);
	return work_fail(work, err, "cleaning up");
}

int serve_limits(struct keeper_work *work, const void *carried)
{
	const struct definition *definition = carried;
	struct definition_error error;

	if (named_check(definition, &error))
		return -EINVAL;
	return cgroup_limit(work->options->cgroup, definition->name, &definition->limits,
			    work->answer.why);
}

int serve_usage(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);
	int err = name ? cgroup_usage(work->options->cgroup, name, &work->answer.usage) : -EINVAL;

	return work_fail(work, err, "its usage");
}

int serve_log(struct keeper_work *work, const void *carried)
{
	const char *name = carried_name(carried);
	char path[PATH_MAX];
	int fd;

	if (!name)
		return -EINVAL;
	snprintf(path, sizeof(path), "%s/%s.log", work->options->log, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return work_fail(work, fd < 0 ? -errno : fd, "its log");
}

/* The directory that this is in goes with the host's run. */
void booted_path(const struct keeper_options *options, char *path)
{
	snprintf(path, PATH_MAX, "%s/booted", options->run);
}

int serve_booted(struct keeper_work *work, const void *carried)
{
	char path[PATH_MAX];
	int fd;

	(void)carried;
	booted_path(work->options, path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	fd_close(fd);
	return fd < 0 ? -errno : 0;
}

/* The addresses that are told to it belong to others from now on. */
int serve_forget(struct keeper_work *work, const void *carried)
{
	const struct keeper_start *start = carried;
	struct definition_error error;

	if (start_check(start, &error))
		return -EINVAL;
	launch_forget(work->options, start);
	return 0;
}
