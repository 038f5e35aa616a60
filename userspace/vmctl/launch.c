// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The launcher is in a session of its own, so that what is typed at the terminal signals vmctl
 * only; and it ends when vmctl ends in whatever way.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/beside.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/launch.h"
#include "userspace/vmctl/program.h"

#define LAUNCH_PROGRAM		"moat-vmm"
#define LAUNCH_FAILED		125
#define LAUNCH_PATIENCE_MS	5000
#define LAUNCH_POLL_MS		10

int launch_find(const char *name, char *ret)
{
	if (!beside_program(name, ret))
		return 0;
	if (!program_find(name, ret))
		return 0;
	log_error("cannot find %s beside vmctl, where make install puts it, or in PATH", name);
	return -ENOENT;
}

void launch_init(struct launch *launch)
{
	*launch = (struct launch){ .status = -1 };
	launch_add(launch, LAUNCH_PROGRAM);
}

void launch_add(struct launch *launch, const char *format, ...)
{
	va_list args;
	char *text;
	int len;

	va_start(args, format);
	len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0) {
		launch->incomplete = true;
	} else if (launch->arguments == LAUNCH_ARGUMENTS) {
		launch->incomplete = true;
		free(text);
	} else {
		launch->argument[launch->arguments++] = text;
	}
}

void launch_keep(struct launch *launch, int fd)
{
	if (launch->descriptors < LAUNCH_DESCRIPTORS) {
		launch->descriptor[launch->descriptors++] = fd;
	} else {
		launch->incomplete = true;
		close(fd);
	}
}

static void launch_child(struct launch *launch, const char *path, pid_t parent)
{
	sigset_t none;

	setsid();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(LAUNCH_FAILED);
	for (unsigned int i = 0; i < launch->descriptors; i++)
		fcntl(launch->descriptor[i], F_SETFD, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(path, launch->argument);
	log_error("cannot execute %s: %s", path, strerror(errno));
	_exit(LAUNCH_FAILED);
}

/* What was made for the child. */
static void launch_drop(struct launch *launch)
{
	for (unsigned int i = 0; i < launch->descriptors; i++)
		close(launch->descriptor[i]);
	while (launch->arguments)
		free(launch->argument[--launch->arguments]);
}

int launch_start(struct launch *launch)
{
	pid_t parent = getpid();
	char path[PATH_MAX];
	int err = launch_find(LAUNCH_PROGRAM, path);

	if (!err && launch->incomplete) {
		log_error("too many devices for one machine, or too little memory");
		err = -E2BIG;
	}
	if (err)
		goto drop;
	launch->argument[launch->arguments] = NULL;
	launch->pid = fork();
	if (!launch->pid)
		launch_child(launch, path, parent);
	if (launch->pid < 0) {
		err = -errno;
		launch->pid = 0;
		log_error("cannot start %s: %s", path, strerror(-err));
	}
drop:
	launch_drop(launch);
	return err;
}

bool launch_ended(struct launch *launch)
{
	int status;

	if (!launch->pid)
		return true;
	if (waitpid(launch->pid, &status, WNOHANG) != launch->pid)
		return false;
	launch->pid = 0;
	launch->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return true;
}

void launch_finish(struct launch *launch)
{
	const struct timespec pause = { .tv_nsec = LAUNCH_POLL_MS * 1000000 };

	for (int waited = 0; !launch_ended(launch); waited += LAUNCH_POLL_MS) {
		if (!waited)
			kill(launch->pid, SIGTERM);
		else if (waited == LAUNCH_PATIENCE_MS)
			kill(launch->pid, SIGKILL);
		nanosleep(&pause, NULL);
	}
}
