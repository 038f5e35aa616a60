// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/sandbox.h"
#include "userspace/qemu/tool.h"

#define TOOL_ROOT	"/usr"
#define TOOL_NOBODY	65534
#define TOOL_MEMORY	(2ULL << 30)
#define TOOL_FILES	64
#define TOOL_OUTPUT	512

static const struct sandbox_call tool_asks[] = {
	{ SYS_openat, SANDBOX_ASK, "the image, for writing", 3, O_ACCMODE, O_RDWR },
	{ SYS_openat, SANDBOX_ASK, "the image, for reading", 3, O_ACCMODE | O_DIRECT, O_DIRECT },
	{ 0 },
};

/* The rest is for a user without rights, and a root that can only be read. */
static const struct sandbox_call tool_forbidden[] = {
	{ SYS_socket, EPERM, "talking to anybody", 0, 0, 0 },
	{ SYS_connect, EPERM, "the same", 0, 0, 0 },
	{ SYS_bind, EPERM, "the same", 0, 0, 0 },
	{ SYS_fork, EPERM, "processes", 0, 0, 0 },
	{ SYS_vfork, EPERM, "the same", 0, 0, 0 },
	{ SYS_clone, EPERM, "the same; threads can be made", 1, CLONE_THREAD, 0 },
	{ SYS_clone3, ENOSYS, "libc then takes clone(), whose flags can be seen here", 0, 0, 0 },
	{ SYS_kill, EPERM, "other processes of the user's", 0, 0, 0 },
	{ SYS_tkill, EPERM, "the same", 0, 0, 0 },
	{ SYS_tgkill, EPERM, "the same", 0, 0, 0 },
	{ SYS_rt_sigqueueinfo, EPERM, "the same", 0, 0, 0 },
	{ SYS_rt_tgsigqueueinfo, EPERM, "the same", 0, 0, 0 },
	{ SYS_pidfd_send_signal, EPERM, "the same", 0, 0, 0 },
	{ SYS_pidfd_getfd, EPERM, "what they have open", 0, 0, 0 },
	{ SYS_ptrace, EPERM, "their memory", 0, 0, 0 },
	{ SYS_process_vm_readv, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_vm_writev, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_madvise, EPERM, "the same", 0, 0, 0 },
	{ SYS_open_by_handle_at, EPERM, "files beyond the root", 0, 0, 0 },
	{ SYS_unshare, EPERM, "namespaces, in which it would have rights", 0, 0, 0 },
	{ SYS_setns, EPERM, "the same", 0, 0, 0 },
	{ SYS_io_uring_setup, EPERM, "system calls that no filter sees; QEMU does without", 0, 0, 0 },
	{ SYS_bpf, EPERM, "programs in the kernel", 0, 0, 0 },
	{ SYS_perf_event_open, EPERM, "what other processes do", 0, 0, 0 },
	{ SYS_userfaultfd, EPERM, "holding the kernel up in a page fault", 0, 0, 0 },
	{ SYS_add_key, EPERM, "the user's keys", 0, 0, 0 },
	{ SYS_request_key, EPERM, "the same", 0, 0, 0 },
	{ SYS_keyctl, EPERM, "the same", 0, 0, 0 },
	{ 0 },
};

int tool_find(const char *program)
{
	char path[64];

	snprintf(path, sizeof(path), TOOL_ROOT "%s", program);
	return access(path, X_OK) ? -errno : 0;
}

int tool_confine(uid_t uid, gid_t gid, int *ret_listener, const char **ret_step)
{
	const struct sandbox_tree tree = { .path = TOOL_ROOT, .programs = true };
	const struct sandbox sandbox = {
		.uid = uid, .gid = gid, .tree = &tree, .no_network = true, .forbids = true,
		.ret_listener = ret_listener, .calls = { tool_asks, tool_forbidden },
	};

	return sandbox_enter(&sandbox, ret_step);
}

int tool_answer(int listener, const struct tool_files *files)
{
	struct seccomp_notif asked = { 0 };
	struct seccomp_notif_addfd give = {
		.flags = SECCOMP_ADDFD_FLAG_SEND, .newfd_flags = O_CLOEXEC,
	};
	struct seccomp_notif_resp refuse = { .error = -EACCES };

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return errno == ENOENT || errno == EINTR ? 0 : -errno;
	give.id = asked.id;
	refuse.id = asked.id;
	give.srcfd = (asked.data.args[2] & O_ACCMODE) == O_RDWR ? files->write : files->read;
	/* Who asked may be gone. */
	if ((int)give.srcfd < 0 || ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &give) < 0)
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &refuse);
	return 0;
}

/* The program's side */

static int tool_limit(void)
{
	const struct {
		int what;
		rlim_t most;
	} limits[] = {
		{ RLIMIT_AS, TOOL_MEMORY }, { RLIMIT_NOFILE, TOOL_FILES }, { RLIMIT_CORE, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct rlimit limit = { limits[i].most, limits[i].most };

		if (setrlimit(limits[i].what, &limit))
			return -errno;
	}
	return 0;
}

static int tool_descriptors(int output)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    dup2(output, STDERR_FILENO) < 0)
		return -errno;
	return close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) ? -errno : 0;
}

int tool_hand_over(int socket, int fd)
{
	return fd_send(socket, "", 1, fd);
}

int tool_take_over(int socket)
{
	struct pollfd wait = { .fd = socket, .events = POLLIN };
	char byte;
	int fd;

	while (poll(&wait, 1, -1) < 0)
		if (errno != EINTR)
			return -errno;
	return fd_receive(socket, &byte, 1, &fd) == 1 && fd >= 0 ? fd : -EPROTO;
}

static _Noreturn void tool_child(const struct tool *tool, int output, int socket)
{
	static char *const environment[] = { "LC_ALL=C", NULL };
	/* Nobody to be is left where an ordinary user starts it. */
	const uid_t user = geteuid() ? (uid_t)-1 : TOOL_NOBODY;
	const char *step = "its descriptors";
	int listener = -1, err;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	err = tool_descriptors(output);
	if (!err)
		err = tool_confine(user, user, &listener, &step);
	if (!err) {
		step = "handing over the listener";
		err = tool_hand_over(socket, listener);
	}
	if (!err) {
		step = "setting limits";
		err = tool_limit();
	}
	if (!err) {
		step = tool->argument[0];
		execve(step, (char **)tool->argument, environment);
		err = -errno;
	}
	dprintf(STDERR_FILENO, "%s: %s", step, strerror(-err));
	_exit(127);
}

/* The other side */

/**
 * struct tool_process - a program that runs
 * @output: what it says; @said is the last line of that
 * @asks: where the listener comes from, and then that; -1: nothing more comes
 */
struct tool_process {
	pid_t pid;
	int output;
	int asks;
	bool listening;
	size_t length;
	char said[TOOL_OUTPUT];
};

static void tool_say(struct tool_process *process, const struct tool *tool, char byte)
{
	unsigned int whole, part;

	if (byte != '\n' && byte != '\r') {
		if (process->length < sizeof(process->said) - 1)
			process->said[process->length++] = byte;
		process->said[process->length] = '\0';
		return;
	}
	process->length = 0;
	if (tool->progress && sscanf(process->said, " (%u.%u/100%%)", &whole, &part) == 2)
		tool->progress(tool->context, whole * 100 + part);
}

static bool tool_read(struct tool_process *process, const struct tool *tool)
{
	char buf[TOOL_OUTPUT];
	ssize_t n = read(process->output, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++)
		tool_say(process, tool, buf[i]);
	return n > 0 || (n < 0 && errno == EINTR);
}

static void tool_asked(struct tool_process *process, const struct tool *tool)
{
	int next;

	if (process->listening && !tool_answer(process->asks, &tool->files))
		return;
	next = process->listening ? -1 : tool_take_over(process->asks);
	close(process->asks);
	process->asks = next;
	process->listening = true;
}

/* Until it closes its output, which it does at its end. */
static void tool_serve(struct tool_process *process, const struct tool *tool)
{
	for (;;) {
		struct pollfd wait[] = {
			{ .fd = process->output, .events = POLLIN },
			{ .fd = process->asks, .events = POLLIN },
		};

		if (poll(wait, ARRAY_SIZE(wait), -1) < 0)
			continue;
		if (wait[1].revents & POLLIN)
			tool_asked(process, tool);
		else if (wait[1].revents) {
			close(process->asks);
			process->asks = -1;
		}
		if (wait[0].revents && !tool_read(process, tool))
			return;
	}
}

static int tool_start(struct tool_process *process, const struct tool *tool)
{
	int pipe[2], ends[2], err;

	if (pipe2(pipe, O_CLOEXEC))
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
		close(pipe[0]);
		close(pipe[1]);
		return -errno;
	}
	process->pid = fork();
	if (!process->pid)
		tool_child(tool, pipe[1], ends[1]);
	err = process->pid < 0 ? -errno : 0;
	close(pipe[1]);
	close(ends[1]);
	process->output = pipe[0];
	process->asks = ends[0];
	if (err) {
		close(pipe[0]);
		close(ends[0]);
	}
	return err;
}

int tool_run(const struct tool *tool, char *why)
{
	struct tool_process process = { 0 };
	int status = -1, err = tool_start(&process, tool);

	if (err) {
		snprintf(why, TOOL_WHY, "%s cannot be started: %s", tool->argument[0], strerror(-err));
		return err;
	}
	tool_serve(&process, tool);
	fd_close(process.asks);
	close(process.output);
	if (waitpid(process.pid, &status, 0) == process.pid && WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFSIGNALED(status))
		snprintf(why, TOOL_WHY, "%s was killed by signal %d", tool->argument[0], WTERMSIG(status));
	else
		snprintf(why, TOOL_WHY, "%.*s", TOOL_WHY - 1, process.said);
	return -EIO;
}
