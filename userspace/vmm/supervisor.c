// SPDX-License-Identifier: MIT OR GPL-2.0
/* The machine's side of the supervisor; wards.c is the other. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/program.h"
#include "userspace/vmm/supervisor.h"
#include "userspace/vmm/wards.h"

#define SUPERVISOR_ANSWER_MS	5000
#define SUPERVISOR_END_MS	5000

/* Links */

/* An error that repeats itself is said once. */
static int link_fail(struct supervisor_link *link, int err)
{
	if (link->said != err)
		log_error("%s: cannot %s: %s", link->origin.name, link->what, strerror(-err));
	link->said = err;
	return err;
}

/* What is killed by another is not to blame; what was to end, as it did what it must not, was blamed then. */
static void link_tell_former(struct supervisor_link *link, const struct supervisor_answer *answer)
{
	const int status = answer->status;

	link->origin.crashed = answer->former == FORMER_ENDED && status &&
			       !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	if (answer->former == FORMER_KILLED)
		log_error("%s: its process was ended, as it is of no use any more",
			  link->origin.name);
	else if (answer->former == FORMER_ENDED && WIFSIGNALED(status))
		log_error("%s: its process was killed by signal %d", link->origin.name,
			  WTERMSIG(status));
	else if (answer->former == FORMER_ENDED)
		log_error("%s: its process ended with status %d", link->origin.name,
			  WEXITSTATUS(status));
}

/* One answer, of whatever request; its descriptor, or -1. -EPROTO: it is none. */
static int link_read(const struct supervisor_link *link, struct supervisor_answer *answer,
		     int *ret_fd)
{
	ssize_t n = fd_receive(link->socket, answer, sizeof(*answer), ret_fd);

	if (n <= 0)
		return n ? n : -ECONNRESET;
	if (n == sizeof(*answer) && answer->error <= 0 && (*ret_fd < 0) == (answer->error < 0))
		return 0;
	fd_close(*ret_fd);
	return -EPROTO;
}

/* The answer to the last request; those to others, which came too late, are void. */
static int link_wait(const struct supervisor_link *link, struct supervisor_answer *answer,
		     int *ret_fd)
{
	const int64_t deadline = clock_ms() + SUPERVISOR_ANSWER_MS;
	struct pollfd wait = { .fd = link->socket, .events = POLLIN };

	for (;;) {
		const int64_t left = deadline - clock_ms();
		int err;

		if (left <= 0 || !poll(&wait, 1, left))
			return -ETIMEDOUT;
		err = link_read(link, answer, ret_fd);
		if (err && err != -EAGAIN && err != -EINTR)
			return err;
		if (!err && answer->serial == link->serial)
			return 0;
		if (!err)
			fd_close(*ret_fd);
	}
}

static int link_ask(struct supervisor_link *link)
{
	struct supervisor_request request = { .what = SUPERVISOR_START };
	struct supervisor_answer answer;
	int err, fd;

	link->serial += 1 + (link->serial == UINT32_MAX);
	request.serial = link->serial;
	if (send(link->socket, &request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	err = link_wait(link, &answer, &fd);
	if (err)
		return err;
	link_tell_former(link, &answer);
	return answer.error ? answer.error : fd;
}

static int link_connect(struct vhost_origin *origin)
{
	struct supervisor_link *link = (struct supervisor_link *)origin;
	int fd = link_ask(link);

	if (fd == -EPIPE || fd == -ECONNRESET) {
		log_error("%s: the supervisor is gone, so its process is not started again",
			  origin->name);
		origin->last = true;
		return fd;
	}
	if (fd < 0)
		return link_fail(link, fd);
	link->said = 0;
	return fd;
}

static int link_hand_over(struct vhost_origin *origin)
{
	struct supervisor_link *link = (struct supervisor_link *)origin;
	int fd = fd_open(link->device->path, O_RDWR);

	return fd < 0 ? link_fail(link, fd) : fd;
}

static void link_init(struct supervisor_link *link, const struct options_device *device,
		      const struct program *programs)
{
	*link = (struct supervisor_link){ .device = device, .socket = -1 };
	link->origin.connect = link_connect;
	snprintf(link->origin.name, sizeof(link->origin.name), "%s %s", device->type, device->path);
	if (!device->listens) {
		snprintf(link->what, sizeof(link->what), "start %s",
			 program_of(programs, device)->name);
		return;
	}
	snprintf(link->what, sizeof(link->what), "connect to a back end");
	link->origin.last = fd_number(device->path) >= 0;
	if (link->origin.last)
		link->origin.connect = link_hand_over;
}

void supervisor_link_adopt(struct supervisor_link *link, const char *type, const char *name,
			   int socket)
{
	*link = (struct supervisor_link){ .socket = socket, .what = "start its process" };
	link->origin.connect = link_connect;
	snprintf(link->origin.name, sizeof(link->origin.name), "%s %s", type, name);
}

void supervisor_link_close(struct supervisor_link *link)
{
	if (!link)
		return;
	fd_close(link->socket);
	link->socket = -1;
}

/* The process */

/* A socketpair for each device that needs one. Return: how many; or a negative errno. */
static int supervisor_connect(struct supervisor *supervisor, int *far)
{
	int ends[2], count = 0;

	for (unsigned int i = 0; i < supervisor->count; i++) {
		struct supervisor_link *link = &supervisor->link[i];

		far[i] = -1;
		if (!link->device->isolation || link->origin.last)
			continue;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
			return -errno;
		link->socket = ends[0];
		far[i] = ends[1];
		count++;
	}
	return count;
}

/* What the supervisor's process has, or the device's, this one is not to have. */
static void supervisor_give_up(const struct supervisor *supervisor, const struct options *options,
			       const int *far)
{
	fd_close(options->supervisor);
	fd_close(options->devices_cgroup);
	for (unsigned int i = 0; i < supervisor->count; i++) {
		fd_close(far[i]);
		if (far[i] >= 0 && !supervisor->link[i].device->listens)
			fd_close(fd_number(supervisor->link[i].device->path));
	}
}

static int supervisor_fork(struct supervisor *supervisor, const struct options *options,
			   const struct program *programs, const int *far)
{
	int life[2];

	if (pipe2(life, O_CLOEXEC))
		return -errno;
	supervisor->life = life[1];
	supervisor->pid = fork();
	if (!supervisor->pid)
		wards_run(options, programs, far, life[0]);
	close(life[0]);
	if (supervisor->pid < 0)
		return -errno;
	supervisor->source.fd = pidfd_open(supervisor->pid, 0);
	return supervisor->source.fd < 0 ? -errno : 0;
}

int supervisor_start(struct supervisor *supervisor, const struct options *options,
		     const struct program *programs)
{
	int far[OPTIONS_DEVICES], count, err = 0;

	*supervisor = (struct supervisor){
		.source = { .fd = -1 }, .life = -1, .count = options->device_count,
	};
	for (unsigned int i = 0; i < supervisor->count; i++)
		link_init(&supervisor->link[i], &options->device[i], programs);
	count = supervisor_connect(supervisor, far);
	if (count > 0 || (!count && options->supervisor >= 0))
		err = supervisor_fork(supervisor, options, programs, far);
	else
		err = count;
	if (err)
		log_error("cannot start the supervisor of devices: %s", strerror(-err));
	else
		supervisor_give_up(supervisor, options, far);
	return err;
}

static void supervisor_died(struct loop_source *source)
{
	struct supervisor *supervisor = (struct supervisor *)source;
	int status = 0;

	waitpid(supervisor->pid, &status, 0);
	log_error("the supervisor of devices has ended (%s %d): what ends from now on stays so",
		  WIFSIGNALED(status) ? "signal" : "status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	fd_close(source->fd);
	source->fd = -1;
}

int supervisor_watch(struct supervisor *supervisor, struct loop *loop)
{
	supervisor->source.ready = supervisor_died;
	return supervisor->source.fd < 0 ? 0 : loop_add(loop, &supervisor->source);
}

/* Not for ever: a process whose disk hangs may not end. */
void supervisor_finish(struct supervisor *supervisor)
{
	struct pollfd wait = { .fd = supervisor->source.fd, .events = POLLIN };

	for (unsigned int i = 0; i < supervisor->count; i++)
		supervisor_link_close(&supervisor->link[i]);
	fd_close(supervisor->life);
	supervisor->life = -1;
	supervisor->count = 0;
	if (wait.fd < 0)
		return;
	if (poll(&wait, 1, SUPERVISOR_END_MS) > 0)
		waitpid(supervisor->pid, NULL, 0);
	fd_close(wait.fd);
	supervisor->source.fd = -1;
}
