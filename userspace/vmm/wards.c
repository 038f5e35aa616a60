// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The supervisor's process: it has wards, the devices of one machine that are processes of their own.
 *
 * It keeps the rights that the launcher was started with, since that is what starting such a process
 * takes: to open the disk, to become another user, to make namespaces. So it does nothing else. The
 * machine, which is not trusted, can have a ward's process ended and started anew, and has no word in
 * what is started: command lines are the launcher's own, from before. So is the socket that listens for who
 * adds wards later (include/moat/control.h): the machine has neither it, nor a way to connect to it. What
 * a new ward serves comes with the message.
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

#include "moat/control.h"
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

/* So many may add wards at a time. */
#define WARDS_ADDERS		4

/**
 * struct ward - a device that is looked after
 * @program: that serves it; NULL: who listens at the device's path does
 * @socket: the link; -1: it has ended, or there never was one
 * @handed: a descriptor for the program; -1: none
 * @pid: its process; 0: none
 * @pidfd: the same, to be waited for; -1
 * @serial: of a request that waits for the end of the process; 0: none does
 * @former, @status: what is to be told of the process before
 * @own, @added: what a ward that came later is: @device, and its words
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
	struct options_device own;
	struct supervisor_add added;
};

/**
 * struct wards
 * @life: a pipe of the launcher's, which ends with it; -1: it has
 * @listener: of @adder, who add wards; -1: there is none. Each is a connection, or -1
 */
struct wards {
	const struct options *options;
	const struct program *programs;
	int life;
	int listener;
	int adder[WARDS_ADDERS];
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
	fd_close(ward->handed);
	ward->socket = -1;
	ward->handed = -1;
	ward->serial = 0;
	ward_kill(ward);
}

/* Starting */

static void ward_arguments(const struct wards *wards, const struct ward *ward,
			   struct arguments *arguments)
{
	const uid_t uid = ward->device->owned ? ward->device->uid : wards->options->uid;

	arguments_add(arguments, "%s", ward->program->name);
	ward->program->add(arguments, ward->device, ward->handed < 0 ? -1 : WARD_HANDED);
	arguments_add(arguments, "--fd");
	arguments_add(arguments, "%d", WARD_CONNECTION);
	if (uid == (uid_t)-1)
		return;
	arguments_add(arguments, "--uid");
	arguments_add(arguments, "%u", uid);
	arguments_add(arguments, "--gid");
	arguments_add(arguments, "%u", ward->device->owned ? ward->device->gid : wards->options->gid);
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
	fd_send(ward->socket, answer, sizeof(*answer), fd);
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

/* More of them */

static bool ward_is_free(const struct ward *ward)
{
	return ward->socket < 0 && !ward->pid;
}

/* The device that a message describes; its strings are the message's. */
static struct options_device add_device(const struct supervisor_add *add)
{
	return (struct options_device){
		.type = add->type, .path = "(handed over)", .tag = add->tag,
		.mac = *add->mac ? add->mac : NULL,
		.format = add->flags & SUPERVISOR_ADD_QCOW2 ? "qcow2" : NULL,
		.read_only = add->flags & SUPERVISOR_ADD_READ_ONLY,
		.direct = add->flags & SUPERVISOR_ADD_DIRECT,
		.writable = add->flags & SUPERVISOR_ADD_WRITABLE,
	};
}

static bool add_is_legal(const struct wards *wards, const struct supervisor_add *add)
{
	const struct options_device device = add_device(add);

	return memchr(add->type, '\0', sizeof(add->type)) &&
	       memchr(add->mac, '\0', sizeof(add->mac)) &&
	       memchr(add->tag, '\0', sizeof(add->tag)) && program_of(wards->programs, &device) &&
	       !(add->flags & ~(SUPERVISOR_ADD_READ_ONLY | SUPERVISOR_ADD_DIRECT |
				SUPERVISOR_ADD_WRITABLE | SUPERVISOR_ADD_QCOW2));
}

/* What it serves is @handed, which is the ward's from here on. */
static void ward_adopt(struct wards *wards, struct ward *ward, const struct supervisor_add *add,
		       int handed, int link)
{
	*ward = (struct ward){
		.device = &ward->own, .socket = link, .handed = handed, .pidfd = -1, .added = *add,
	};
	ward->own = add_device(&ward->added);
	ward->program = program_of(wards->programs, &ward->own);
}

/* Return: the machine's end of the link, or a negative errno. */
static int wards_add(struct wards *wards, const struct supervisor_add *add, int handed)
{
	struct ward *ward = wards->ward;
	int ends[2], kept, err;

	while (ward < wards->ward + OPTIONS_DEVICES && !ward_is_free(ward))
		ward++;
	if (ward == wards->ward + OPTIONS_DEVICES)
		return -ENOSPC;
	kept = fcntl(handed, F_DUPFD_CLOEXEC, WARD_FREE);
	if (kept < 0)
		return -errno;
	if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
		ward_adopt(wards, ward, add, kept, ends[0]);
		return ends[1];
	}
	err = -errno;
	close(kept);
	return err;
}

static void adder_drop(int *adder)
{
	fd_close(*adder);
	*adder = -1;
}

/* What is no request ends the connection. */
static void wards_serve(struct wards *wards, int *adder)
{
	struct supervisor_added added = { 0 };
	struct supervisor_add add;
	int handed, link;
	ssize_t n = fd_receive(*adder, &add, sizeof(add), &handed);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n != sizeof(add) || handed < 0 || !add_is_legal(wards, &add)) {
		adder_drop(adder);
		fd_close(handed);
		return;
	}
	link = wards_add(wards, &add, handed);
	added.error = link < 0 ? link : 0;
	if (fd_send(*adder, &added, sizeof(added), link))
		adder_drop(adder);
	fd_close(link);
	fd_close(handed);
}

static void wards_accept(struct wards *wards)
{
	int fd = accept4(wards->listener, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned int i = 0; i < WARDS_ADDERS && fd >= 0; i++)
		if (wards->adder[i] < 0) {
			wards->adder[i] = fd;
			return;
		}
	fd_close(fd);
}

/* The launcher has ended, and so do those who added to it. */
static void wards_close(struct wards *wards)
{
	fd_close(wards->life);
	fd_close(wards->listener);
	wards->life = -1;
	wards->listener = -1;
	for (unsigned int i = 0; i < WARDS_ADDERS; i++)
		adder_drop(&wards->adder[i]);
}

/* All of them */

enum { WAIT_LIFE, WAIT_LISTENER, WAIT_ADDERS, WAIT_WARDS = WAIT_ADDERS + WARDS_ADDERS,
	WAIT_COUNT = WAIT_WARDS + 2 * OPTIONS_DEVICES };

/* False: there is nobody left to be looked after. */
static bool wards_plan(const struct wards *wards, struct pollfd wait[WAIT_COUNT])
{
	bool any = wards->life >= 0;

	wait[WAIT_LIFE].fd = wards->life;
	wait[WAIT_LISTENER].fd = wards->listener;
	for (unsigned int i = 0; i < WARDS_ADDERS; i++)
		wait[WAIT_ADDERS + i].fd = wards->adder[i];
	for (unsigned int i = 0; i < OPTIONS_DEVICES; i++) {
		const struct ward *ward = &wards->ward[i];

		wait[WAIT_WARDS + 2 * i].fd = ward->socket;
		wait[WAIT_WARDS + 2 * i + 1].fd = ward->pidfd;
		any |= !ward_is_free(ward);
	}
	for (unsigned int i = 0; i < WAIT_COUNT; i++)
		wait[i].events = POLLIN;
	return any;
}

static bool wards_turn(struct wards *wards)
{
	struct pollfd wait[WAIT_COUNT];

	if (!wards_plan(wards, wait))
		return false;
	if (poll(wait, WAIT_COUNT, -1) < 0)
		return true;
	for (unsigned int i = 0; i < OPTIONS_DEVICES; i++) {
		if (wait[WAIT_WARDS + 2 * i + 1].revents)
			ward_reap(wards, &wards->ward[i]);
		if (wait[WAIT_WARDS + 2 * i].revents)
			ward_request(wards, &wards->ward[i]);
	}
	for (unsigned int i = 0; i < WARDS_ADDERS; i++)
		if (wait[WAIT_ADDERS + i].revents)
			wards_serve(wards, &wards->adder[i]);
	if (wait[WAIT_LISTENER].revents)
		wards_accept(wards);
	if (wait[WAIT_LIFE].revents)
		wards_close(wards);
	return true;
}

static void ward_init(struct ward *ward, const struct options_device *device,
		      const struct program *programs, int socket)
{
	ward->device = device;
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
	int keep[2 * OPTIONS_DEVICES + 2], null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return -errno;
	for (unsigned int i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (dup2(null, idle[i]) < 0)
			return -errno;
	for (unsigned int i = 0; i < OPTIONS_DEVICES; i++) {
		keep[2 * i] = wards->ward[i].socket;
		keep[2 * i + 1] = wards->ward[i].handed;
	}
	keep[2 * OPTIONS_DEVICES] = wards->life;
	keep[2 * OPTIONS_DEVICES + 1] = wards->listener;
	fd_close_but(WARD_FREE, keep, 2 * OPTIONS_DEVICES + 2);
	return 0;
}

/* Itself, and so all that it starts. Where that cannot be, devices are counted with the launcher. */
static void wards_move(int cgroup)
{
	if (cgroup >= 0 && write(cgroup, "0", 1) != 1)
		log_error("devices stay in the launcher's cgroup: %s", strerror(errno));
}

_Noreturn void wards_run(const struct options *options, const struct program *programs,
			 const int *socket, int life)
{
	struct wards wards = {
		.options = options, .programs = programs, .adder = { -1, -1, -1, -1 },
		.life = fcntl(life, F_DUPFD_CLOEXEC, WARD_FREE), .listener = -1,
	};
	int err;

	/* What is typed at the machine's terminal signals the machine. */
	setsid();
	prctl(PR_SET_NAME, "moat-supervisor");
	wards_move(options->devices_cgroup);
	if (options->supervisor >= 0)
		wards.listener = fcntl(options->supervisor, F_DUPFD_CLOEXEC, WARD_FREE);
	for (unsigned int i = 0; i < OPTIONS_DEVICES; i++)
		wards.ward[i] = (struct ward){ .socket = -1, .handed = -1, .pidfd = -1 };
	for (unsigned int i = 0; i < options->device_count; i++)
		ward_init(&wards.ward[i], &options->device[i], programs, socket[i]);
	err = wards_close_others(&wards);
	if (!err && wards.listener >= 0)
		err = fcntl(wards.listener, F_SETFL, O_RDWR | O_NONBLOCK) ? -errno : 0;
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
