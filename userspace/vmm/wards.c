// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The supervisor's process: it has wards, the devices of one machine that are processes of their own.
 *
 * It keeps the rights that the launcher was started with, since that is what starting such a process
 * takes: to open the disk, to become another user, to make namespaces. So it does nothing else. The
 * machine, which is not trusted, can have a ward's process ended and started anew, and has no word in
 * what is started: command lines are the launcher's own, from before.
 *
 * Nothing here waits for anybody. A process that is to end may take its time, when a disk is slow; its
 * successor is started when it has been reaped, and other wards do not notice.
 *
 * A device's process needs no watching for the case that this one dies: it ends when its connection to
 * the machine does.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userspace/lib/arguments.h"
#include "userspace/lib/beside.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/program.h"
#include "userspace/vmm/supervisor.h"
#include "userspace/vmm/wards.h"

/* What descriptors are called in a device's process; here these numbers are nobody's. */
#define WARD_CONNECTION		3
#define WARD_HANDED		4
#define WARD_FREE		5

/*
 * What a filter that all programs of devices inherit can take away, none of which any of them does:
 * their own lists, entered once they have opened what they serve, allow what they do and nothing else.
 */
static const struct sandbox_call wards_forbidden[] = {
	{ SYS_ptrace, EPERM, "another process's memory", 0, 0, 0 },
	{ SYS_process_vm_readv, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_vm_writev, EPERM, "the same", 0, 0, 0 },
	{ SYS_process_madvise, EPERM, "the same", 0, 0, 0 },
	{ SYS_pidfd_getfd, EPERM, "another process's descriptors", 0, 0, 0 },
	{ SYS_kcmp, EPERM, "where they are", 0, 0, 0 },
	{ SYS_setns, EPERM, "another process's namespaces", 0, 0, 0 },
	{ SYS_open_by_handle_at, EPERM, "files beyond the root", 0, 0, 0 },
	{ SYS_init_module, EPERM, "the kernel itself", 0, 0, 0 },
	{ SYS_finit_module, EPERM, "the same", 0, 0, 0 },
	{ SYS_delete_module, EPERM, "the same", 0, 0, 0 },
	{ SYS_kexec_load, EPERM, "the same", 0, 0, 0 },
	{ SYS_kexec_file_load, EPERM, "the same", 0, 0, 0 },
	{ SYS_bpf, EPERM, "programs in the kernel", 0, 0, 0 },
	{ SYS_perf_event_open, EPERM, "what other processes do", 0, 0, 0 },
	{ SYS_userfaultfd, EPERM, "holding the kernel up in a page fault", 0, 0, 0 },
	{ SYS_add_key, EPERM, "the user's keys", 0, 0, 0 },
	{ SYS_request_key, EPERM, "the same", 0, 0, 0 },
	{ SYS_keyctl, EPERM, "the same", 0, 0, 0 },
	{ SYS_iopl, EPERM, "ports of the host's", 0, 0, 0 },
	{ SYS_ioperm, EPERM, "the same", 0, 0, 0 },
	{ SYS_reboot, EPERM, "the host", 0, 0, 0 },
	{ SYS_swapon, EPERM, "the same", 0, 0, 0 },
	{ SYS_swapoff, EPERM, "the same", 0, 0, 0 },
	{ SYS_acct, EPERM, "the same", 0, 0, 0 },
	{ SYS_clock_settime, EPERM, "the host's time", 0, 0, 0 },
	{ SYS_settimeofday, EPERM, "the same", 0, 0, 0 },
	{ SYS_syslog, EPERM, "the kernel's log", 0, 0, 0 },
	{ SYS_mknodat, EPERM, "device nodes", 0, 0, 0 },
	{ SYS_mknod, EPERM, "the same", 0, 0, 0 },
	{ 0 },
};

/**
 * struct ward - a device that is looked after
 * @program: that serves it; NULL: who listens at the device's path does
 * @socket: the link; -1: it has ended, or there never was one
 * @handed: a descriptor for the program; -1: none
 * @pid: its process; 0: none
 * @pidfd: the same, to be waited for; -1
 * @serial: of a request that waits for the end of the process; 0: none does
 * @former, @status: what is to be told of the process before
 */
struct ward {
	const struct options_device *device;
	const struct program *program;
	int socket;
	int handed;
	pid_t pid;
	int pidfd;
	uint32_t serial;
	enum supervisor_former former;
	int status;
};

struct wards {
	const struct options *options;
	unsigned int count;
	struct ward ward[OPTIONS_DEVICES];
};

/* Ends it, if there is one; it is to be reaped then. */
static void ward_kill(struct ward *ward)
{
	if (!ward->pid)
		return;
	kill(ward->pid, SIGKILL);
	ward->former = FORMER_KILLED;
}

static void ward_drop(struct ward *ward)
{
	fd_close(ward->socket);
	ward->socket = -1;
	ward->serial = 0;
	ward_kill(ward);
}

/* Starting */

static void ward_arguments(const struct wards *wards, const struct ward *ward,
			   struct arguments *arguments)
{
	arguments_add(arguments, "%s", ward->program->name);
	ward->program->add(arguments, ward->device, ward->handed < 0 ? -1 : WARD_HANDED);
	arguments_add(arguments, "--fd");
	arguments_add(arguments, "%d", WARD_CONNECTION);
	if (wards->options->uid == (uid_t)-1)
		return;
	arguments_add(arguments, "--uid");
	arguments_add(arguments, "%u", wards->options->uid);
	arguments_add(arguments, "--gid");
	arguments_add(arguments, "%u", wards->options->gid);
}

/* Its descriptors: these two, and what it has to say goes where ours does. */
static int ward_files(const struct ward *ward, int connection, posix_spawn_file_actions_t *files)
{
	int err = posix_spawn_file_actions_adddup2(files, connection, WARD_CONNECTION);

	if (!err && ward->handed >= 0)
		err = posix_spawn_file_actions_adddup2(files, ward->handed, WARD_HANDED);
	if (!err)
		err = posix_spawn_file_actions_addclosefrom_np(files, ward->handed < 0 ?
							       WARD_HANDED : WARD_FREE);
	return -err;
}

static int ward_signals(posix_spawnattr_t *attr)
{
	sigset_t none, usual;

	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	return -(posix_spawnattr_setsigmask(attr, &none) ||
		 posix_spawnattr_setsigdefault(attr, &usual) ||
		 posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
}

static int ward_spawn(struct ward *ward, char **argv, int connection)
{
	posix_spawn_file_actions_t files;
	char beside[PATH_MAX];
	const char *path = ward->program->name;
	posix_spawnattr_t attr;
	int err;

	if (!strchr(path, '/') && !beside_path(path, beside) && !access(beside, X_OK))
		path = beside;
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	err = ward_files(ward, connection, &files);
	if (!err)
		err = ward_signals(&attr);
	if (!err)
		err = -posix_spawnp(&ward->pid, path, &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return err;
}

static int ward_watch(struct ward *ward)
{
	int err;

	ward->pidfd = pidfd_open(ward->pid, 0);
	if (ward->pidfd >= 0)
		return 0;
	err = -errno;
	kill(ward->pid, SIGKILL);
	waitpid(ward->pid, NULL, 0);
	ward->pid = 0;
	return err;
}

static int ward_spawn_on(struct wards *wards, struct ward *ward, int connection)
{
	struct arguments arguments = { 0 };
	int err;

	ward_arguments(wards, ward, &arguments);
	err = arguments.err;
	if (!err)
		err = ward_spawn(ward, arguments.value, connection);
	arguments_finish(&arguments);
	if (err) {
		ward->pid = 0;
		return err;
	}
	return ward_watch(ward);
}

/* Return: the machine's end of the connection, or a negative errno. */
static int ward_connect(struct wards *wards, struct ward *ward)
{
	int err, ends[2];

	if (!ward->program)
		return fd_connect(ward->device->path);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	err = ward_spawn_on(wards, ward, ends[1]);
	close(ends[1]);
	if (!err)
		return ends[0];
	close(ends[0]);
	return err;
}

/* A machine that takes no answer loses the connection, and so the process its reason to be. */
static void ward_answer(struct ward *ward, const struct supervisor_answer *answer, int fd)
{
	struct iovec iov = { .iov_base = (void *)answer, .iov_len = sizeof(*answer) };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {
		.head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS },
	};
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	sendmsg(ward->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void ward_start(struct wards *wards, struct ward *ward)
{
	int fd = ward_connect(wards, ward);
	const struct supervisor_answer answer = {
		.serial = ward->serial, .error = fd < 0 ? fd : 0,
		.former = ward->former, .status = ward->status,
	};

	ward_answer(ward, &answer, fd);
	fd_close(fd);
	ward->serial = 0;
	ward->former = FORMER_NONE;
	ward->status = 0;
}

/* The process has ended, by itself or not. */
static void ward_reap(struct wards *wards, struct ward *ward)
{
	if (waitpid(ward->pid, &ward->status, 0) != ward->pid)
		return;
	if (!WIFSIGNALED(ward->status) || WTERMSIG(ward->status) != SIGKILL ||
	    ward->former != FORMER_KILLED)
		ward->former = FORMER_ENDED;
	close(ward->pidfd);
	ward->pidfd = -1;
	ward->pid = 0;
	if (ward->serial)
		ward_start(wards, ward);
}

/* Descriptors that come along are closed by the kernel, as there is no room for them. */
static void ward_request(struct wards *wards, struct ward *ward)
{
	struct supervisor_request request;
	ssize_t n = recv(ward->socket, &request, sizeof(request), MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(request) || request.what != SUPERVISOR_START || !request.serial) {
		if (n > 0)
			log_error("%s %s: the machine asks the supervisor for what it does not do: "
				  "no more is done for it", ward->device->type, ward->device->path);
		ward_drop(ward);
		return;
	}
	ward->serial = request.serial;
	if (ward->pid)
		ward_kill(ward);
	else
		ward_start(wards, ward);
}

/* All of them */

/* False: there is nobody left to be looked after. */
static bool wards_turn(struct wards *wards)
{
	struct pollfd wait[2 * OPTIONS_DEVICES];
	bool any = false;

	for (unsigned int i = 0; i < wards->count; i++) {
		struct ward *ward = &wards->ward[i];

		wait[2 * i] = (struct pollfd){ .fd = ward->socket, .events = POLLIN };
		wait[2 * i + 1] = (struct pollfd){ .fd = ward->pidfd, .events = POLLIN };
		any |= ward->socket >= 0 || ward->pid;
	}
	if (!any)
		return false;
	if (poll(wait, 2 * wards->count, -1) < 0)
		return true;
	for (unsigned int i = 0; i < wards->count; i++) {
		if (wait[2 * i + 1].revents)
			ward_reap(wards, &wards->ward[i]);
		if (wait[2 * i].revents)
			ward_request(wards, &wards->ward[i]);
	}
	return true;
}

static void ward_init(struct ward *ward, const struct options_device *device,
		      const struct program *programs, int socket)
{
	*ward = (struct ward){ .device = device, .socket = -1, .handed = -1, .pidfd = -1 };
	if (socket < 0)
		return;
	ward->socket = fcntl(socket, F_DUPFD_CLOEXEC, WARD_FREE);
	if (device->listens)
		return;
	ward->program = program_of(programs, device);
	if (fd_number(device->path) >= 0)
		ward->handed = fcntl(fd_number(device->path), F_DUPFD_CLOEXEC, WARD_FREE);
}

/* What is left of the launcher's: standard error, the links, and what devices are to have. */
static int wards_close_others(const struct wards *wards)
{
	static const int idle[] = { STDIN_FILENO, STDOUT_FILENO, WARD_CONNECTION, WARD_HANDED };
	int keep[2 * OPTIONS_DEVICES], null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return -errno;
	for (unsigned int i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (dup2(null, idle[i]) < 0)
			return -errno;
	for (unsigned int i = 0; i < wards->count; i++) {
		keep[2 * i] = wards->ward[i].socket;
		keep[2 * i + 1] = wards->ward[i].handed;
	}
	fd_close_but(WARD_FREE, keep, 2 * wards->count);
	return 0;
}

_Noreturn void wards_run(const struct options *options, const struct program *programs,
			 const int *socket)
{
	struct wards wards = { .options = options, .count = options->device_count };
	int err;

	/* What is typed at the machine's terminal signals the machine. */
	setsid();
	prctl(PR_SET_NAME, "moat-supervisor");
	for (unsigned int i = 0; i < wards.count; i++)
		ward_init(&wards.ward[i], &options->device[i], programs, socket[i]);
	err = wards_close_others(&wards);
	if (!err)
		err = sandbox_forbid(wards_forbidden);
	if (err) {
		log_error("the supervisor of devices: %s", strerror(-err));
		_exit(1);
	}
	while (wards_turn(&wards))
		;
	_exit(0);
}
