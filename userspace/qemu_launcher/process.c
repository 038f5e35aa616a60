// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * QEMU has its guest's memory and all of its devices, and a guest that takes it over has what it has. That is: the
 * node and the machine's disks and taps, by descriptors; the host's /usr, read-only, as its root, in which nothing is a
 * device; and the machine's user, without capabilities. It has no network and no way to another process: it is the
 * only one of its namespace of processes, so that it can signal nobody, and can start none. QEMU's own filter
 * of system calls comes on top of the one here.
 *
 * /dev/kvm, the only file that it opens to read and write by a name, it finds nowhere: that call is answered from outside, by
 * way of the filter, with the node. The rest is opened before (parts.c). Nothing is answered any more once QEMU is up.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/arguments.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"
#include "userspace/qemu/tool.h"
#include "userspace/qemu_launcher/command.h"
#include "userspace/qemu_launcher/process.h"

#define PROCESS_FAILED	125

static const struct sandbox_call process_asks[] = {
	{ SYS_openat, SANDBOX_ASK, "/dev/kvm", 3, O_ACCMODE, O_RDWR },
	{ 0 },
};

static const struct sandbox_call process_forbidden[] = {
	{ SYS_socket, EPERM, "talking to anybody", 0, 0, 0 },
	{ SYS_connect, EPERM, "the same", 0, 0, 0 },
	{ SYS_bind, EPERM, "the same", 0, 0, 0 },
	{ SYS_listen, EPERM, "the same", 0, 0, 0 },
	{ SYS_fork, EPERM, "processes", 0, 0, 0 },
	{ SYS_vfork, EPERM, "the same", 0, 0, 0 },
	{ SYS_clone, EPERM, "the same; threads can be made", 1, CLONE_THREAD, 0 },
	{ SYS_clone3, ENOSYS, "libc then takes clone(), whose flags can be seen here", 0, 0, 0 },
	{ SYS_pidfd_open, EPERM, "other processes", 0, 0, 0 },
	{ SYS_pidfd_getfd, EPERM, "what they have open", 0, 0, 0 },
	{ SYS_ptrace, EPERM, "their memory", 0, 0, 0 },
	{ SYS_process_vm_readv, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_vm_writev, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_madvise, EPERM, "the same", 0, 0, 0 },
	{ SYS_kcmp, EPERM, "where their descriptors are", 0, 0, 0 },
	{ SYS_open_by_handle_at, EPERM, "files beyond the root", 0, 0, 0 },
	{ SYS_mount, EPERM, "another root", 0, 0, 0 },
	{ SYS_unshare, EPERM, "namespaces, in which it would have rights", 0, 0, 0 },
	{ SYS_setns, EPERM, "the same", 0, 0, 0 },
	{ SYS_io_uring_setup, EPERM, "system calls that no filter sees; QEMU does without", 0, 0, 0 },
	{ SYS_bpf, EPERM, "programs in the kernel", 0, 0, 0 },
	{ SYS_perf_event_open, EPERM, "what other processes do", 0, 0, 0 },
	{ SYS_userfaultfd, EPERM, "holding the kernel up in a page fault", 0, 0, 0 },
	{ SYS_add_key, EPERM, "the user's keys", 0, 0, 0 },
	{ SYS_request_key, EPERM, "the same", 0, 0, 0 },
	{ SYS_keyctl, EPERM, "the same", 0, 0, 0 },
	{ SYS_syslog, EPERM, "the kernel's log", 0, 0, 0 },
	{ 0 },
};

/* The child */

/* What it has: all of it made before. */
struct child {
	const struct options *options;
	const struct parts *parts;
	int output;
	int asks;
	int qmp;
	int line;
};

static void child_give(void *arg, int fd)
{
	(void)arg;
	fcntl(fd, F_SETFD, 0);
}

static int child_files(const struct child *child)
{
	const struct rlimit none = { 0, 0 };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(child->output, STDOUT_FILENO) < 0 ||
	    dup2(child->output, STDERR_FILENO) < 0 || setrlimit(RLIMIT_CORE, &none) ||
	    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC))
		return -errno;
	parts_each(child->parts, child_give, NULL);
	child_give(NULL, child->qmp);
	child_give(NULL, child->line);
	return 0;
}

static int child_confine(const struct child *child, const char **ret_step)
{
	const struct sandbox_tree tree = { .path = child->options->tree, .programs = true };
	int listener = -1, err;
	const struct sandbox sandbox = {
		.uid = child->options->uid, .gid = child->options->gid, .tree = &tree,
		.no_network = true, .forbids = true, .ret_listener = &listener,
		.calls = { process_asks, process_forbidden },
	};

	err = sandbox_enter(&sandbox, ret_step);
	if (err)
		return err;
	*ret_step = "handing over the listener";
	err = tool_hand_over(child->asks, listener);
	close(listener);
	return err;
}

static _Noreturn void child_run(const struct child *child)
{
	static char *const environment[] = { "LC_ALL=C", NULL };
	struct arguments arguments = { 0 };
	const char *step = "its descriptors";
	sigset_t none;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	command_build(&arguments, child->options, child->parts, child->qmp, child->line);
	err = arguments.err ? arguments.err : child_files(child);
	if (!err)
		err = child_confine(child, &step);
	if (!err) {
		step = COMMAND_QEMU;
		execve(step, arguments.value, environment);
		err = -errno;
	}
	dprintf(STDERR_FILENO, "%s: %s\n", step, strerror(-err));
	_exit(PROCESS_FAILED);
}

/* As fork(), which cannot ask for a namespace. */
static pid_t process_fork(void)
{
	return syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
}

/* This side */

static int process_connect(struct process *process, struct child *child)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	process->qmp = ends[0];
	child->qmp = ends[1];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	process->line = ends[0];
	child->line = ends[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	process->listener = ends[0];
	child->asks = ends[1];
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	process->output = ends[0];
	child->output = ends[1];
	return 0;
}

/* In place of the socket that it comes by. */
static int process_take_listener(struct process *process)
{
	int listener = tool_take_over(process->listener);

	close(process->listener);
	process->listener = listener;
	return listener < 0 ? listener : 0;
}

static int process_adopt(struct process *process)
{
	int err;

	process->pidfd = pidfd_open(process->pid, 0);
	err = process->pidfd < 0 ? -errno : process_take_listener(process);
	if (err) {
		kill(process->pid, SIGKILL);
		while (process_hear(process))
			;
		waitpid(process->pid, NULL, 0);
		process->pid = 0;
	}
	return err;
}

static int process_find(const char *tree)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s" COMMAND_QEMU, tree);
	if (!access(path, X_OK))
		return 0;
	log_error("%s: %s: install it (Debian: qemu-system-x86)", path, strerror(errno));
	return -ENOENT;
}

int process_start(struct process *process, const struct options *options, const struct parts *parts)
{
	struct child child = {
		.options = options, .parts = parts, .output = -1, .asks = -1, .qmp = -1, .line = -1,
	};
	int err;

	*process = (struct process){ .pidfd = -1, .output = -1, .listener = -1, .qmp = -1, .line = -1 };
	err = process_find(options->tree);
	if (err)
		return err;
	err = process_connect(process, &child);
	if (!err) {
		process->pid = process_fork();
		if (!process->pid)
			child_run(&child);
		err = process->pid < 0 ? -errno : 0;
	}
	fd_close(child.output);
	fd_close(child.asks);
	fd_close(child.qmp);
	fd_close(child.line);
	if (err)
		log_error("no process for QEMU: %s%s", strerror(-err),
			  err == -EPERM ? "; it takes root's rights to make its namespaces" : "");
	return err ? err : process_adopt(process);
}

bool process_answer(struct process *process, int node)
{
	const struct tool_files files = { .read = -1, .write = node };

	return process->listener >= 0 && !tool_answer(process->listener, &files);
}

void process_close_listener(struct process *process)
{
	fd_close(process->listener);
	process->listener = -1;
}

static void process_say(struct process *process, char byte)
{
	if (byte != '\n') {
		if (process->length < PROCESS_LINE - 1)
			process->said[process->length++] = byte >= ' ' && byte < 127 ? byte : ' ';
		return;
	}
	process->said[process->length] = '\0';
	if (process->length)
		log_error("QEMU: %s", process->said);
	process->length = 0;
}

bool process_hear(struct process *process)
{
	char buf[PROCESS_LINE];
	ssize_t n = read(process->output, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++)
		process_say(process, buf[i]);
	return n > 0 || (n < 0 && errno == EINTR);
}

/* What it said last comes first. */
static void process_tell(struct process *process, int status)
{
	struct pollfd more = { .fd = process->output, .events = POLLIN };

	while (poll(&more, 1, 0) > 0 && process_hear(process))
		;
	if (WIFSIGNALED(status))
		log_error("QEMU was killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_error("QEMU ended with status %d%s%.*s", WEXITSTATUS(status), *process->said ? ": " : "",
			  PROCESS_LINE - 1, process->said);
}

void process_end(struct process *process, int ms)
{
	struct pollfd wait = { .fd = process->pidfd, .events = POLLIN };
	int status = 0;

	if (!process->pid)
		return;
	if (poll(&wait, 1, ms) <= 0)
		pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0);
	if (waitpid(process->pid, &status, 0) == process->pid)
		process_tell(process, status);
	process->pid = 0;
}
