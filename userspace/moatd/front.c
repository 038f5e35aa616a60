// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The unprivileged half. It talks to everybody, so it can do nothing: a user of its own, no network, the directory
 * of definitions as its root; all else it asks the keeper for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"
#include "userspace/moatd/api.h"
#include "userspace/moatd/front.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"
#include "userspace/moatd/varlink.h"

static const struct sandbox_call front_calls[] = {
	{ SYS_epoll_create1, 0, "the loop", 0, 0, 0 },
	{ SYS_epoll_ctl, 0, "the same", 0, 0, 0 },
	{ SYS_epoll_wait, 0, "the same", 0, 0, 0 },
	{ SYS_epoll_pwait2, ENOSYS, "the same; libsystemd then takes epoll_wait()", 0, 0, 0 },
	{ SYS_timerfd_create, 0, "how long a guest may take, and when to try again", 0, 0, 0 },
	{ SYS_timerfd_settime, 0, "the same", 0, 0, 0 },
	{ SYS_accept4, 0, "clients", 0, 0, 0 },
	{ SYS_getsockopt, 0, "who they are", 0, 0, 0 },
	{ SYS_recvfrom, 0, "what they and launchers say", 0, 0, 0 },
	{ SYS_recvmsg, 0, "what the keeper answers", 0, 0, 0 },
	{ SYS_sendto, 0, "answers", 0, 0, 0 },
	{ SYS_sendmsg, 0, "requests to launchers", 0, 0, 0 },
	{ SYS_writev, 0, "requests to the keeper", 0, 0, 0 },
	{ SYS_openat, 0, "definitions, the only files that there are", 0, 0, 0 },
	{ SYS_getdents64, 0, "which there are", 0, 0, 0 },
	{ SYS_newfstatat, 0, "how long they are, and logs", 0, 0, 0 },
	{ SYS_fstat, 0, "the same", 0, 0, 0 },
	{ SYS_pread64, 0, "reading them", 0, 0, 0 },
	{ SYS_read, 0, "timers", 0, 0, 0 },
	{ SYS_write, 0, "definitions, and what there is to say", 0, 0, 0 },
	{ SYS_fsync, 0, "that they are on the disk", 0, 0, 0 },
	{ SYS_renameat, 0, "a new one takes the place of the old one", 0, 0, 0 },
	{ SYS_renameat2, 0, "the same", 0, 0, 0 },
	{ SYS_unlinkat, 0, "a machine that is forgotten", 0, 0, 0 },
	{ SYS_lseek, 0, "libc, reading a directory", 0, 0, 0 },
	{ SYS_fcntl, 0, "what is handed over waits", 0, 0, 0 },
	{ SYS_close, 0, "what is not needed any more", 0, 0, 0 },
	{ SYS_getrandom, 0, "UUIDs, MAC addresses, hashes", 0, 0, 0 },
	{ SYS_getpid, 0, "libsystemd, whether it was forked", 0, 0, 0 },
	{ SYS_gettid, 0, "the same", 0, 0, 0 },
	{ 0 },
};

static int front_listener;
static sd_event *front_event;

static int front_confine(const struct keeper_options *options)
{
	char path[256];
	const struct sandbox_tree tree = { .path = path, .writable = true };
	const struct sandbox sandbox = {
		.uid = options->uid, .gid = options->gid, .tree = &tree, .no_network = true,
		.calls = { front_calls, sandbox_libc },
	};
	const char *step;
	int err;

	snprintf(path, sizeof(path), "%s/definitions", options->state);
	tzset();
	err = sandbox_enter(&sandbox, &step);
	if (err)
		log_error("no sandbox: %s: %s", step, strerror(-err));
	return err;
}

/* Nobody is heard before all is known. */
static void front_ready(void)
{
	int err;

	networks_start();
	err = varlink_serve(&api, front_event, front_listener);
	if (err < 0) {
		log_error("cannot listen: %s", strerror(-err));
		sd_event_exit(front_event, 1);
	}
}

/* Each client has one, and each machine that runs. */
static void front_raise_files(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int front_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int front_serve(const struct keeper_options *options, int link)
{
	int networks = front_directory("/networks"), machines = front_directory("/machines"), err;

	if (networks < 0 || machines < 0)
		return networks < 0 ? networks : machines;
	err = sd_event_new(&front_event);
	if (err >= 0)
		err = keep_init(front_event, link);
	if (err >= 0)
		err = networks_init(front_event, networks);
	if (err >= 0)
		err = machines_init(front_event, machines, options->first, options->health, front_ready);
	return err < 0 ? err : sd_event_loop(front_event);
}

int front_run(const struct keeper_options *options, int listener, int link, int lock)
{
	const int keep[] = { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, listener, link, lock };
	int err;

	prctl(PR_SET_NAME, "moatd-front");
	fd_close_but(0, keep, sizeof(keep) / sizeof(keep[0]));
	front_listener = listener;
	front_raise_files();
	err = front_confine(options);
	if (err)
		return 1;
	err = front_serve(options, link);
	if (err < 0)
		log_error("the unprivileged half: %s", strerror(-err));
	return err ? 1 : 0;
}
