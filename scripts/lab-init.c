// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The first process of an emulated host: sets it up, runs one command, hands back what came of it.
 *
 * It starts in an initramfs that holds no more than it and the drivers it needs. The machine that
 * runs the lab is there as a read-only virtiofs; an overlay with a tmpfs on top of it becomes the
 * root, so that all programs are found where they are outside, and writes go nowhere. The run's
 * own folder (named on the kernel's command line: moat_lab=) says what to do:
 *
 *	modules	kernel modules to load, a line each: a path, and after a tab the module's parameters,
 *		if any; the others are strings that end in NUL:
 *	argv	the command; none means a shell on hvc0
 *	env	its environment
 *	cwd	its working directory
 *	shares	directories of the machine outside to be shown as they are, without the overlay
 *
 * An emulator without virtiofs has packed the files that are needed into the initramfs, below /host:
 * they are the root then.
 *
 * Three virtio-serial ports lead out, or as many serial ports: "stdout", "stderr" and "status". The command writes into
 * pipes, not into the ports, since a port cannot be opened twice, as a script does with
 * /dev/stderr. What is said on "status": "up" before the command starts, "exit N" at its end, or
 * "fail WHY" where it could not be started.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct list {
	char *text;
	char **item;
	size_t count;
};

struct pump {
	int from;
	int to;
};

static int status_fd = -1;
static const char *folder;
static bool packed;		/* the files are in the initramfs */

static void say(const char *format, ...)
{
	char line[512];
	va_list ap;
	int len;

	va_start(ap, format);
	len = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	/* Without the port the console has to do: the lab shows that where the host fails. */
	if (write(status_fd < 0 ? STDERR_FILENO : status_fd, line, len) != len)
		perror("lab-init: status");
}

static void halt(void)
{
	kill(-1, SIGKILL);
	if (packed)
		tcdrain(status_fd);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void fail(const char *what, const char *name)
{
	say("fail %s%s: %s", what, name, strerror(errno));
	halt();
}

static char *file_read(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	size_t size = 0, room = 0;
	ssize_t n;

	if (fd < 0)
		return NULL;
	do {
		if (room - size < 4096) {
			room += 65536;
			text = realloc(text, room);
			if (!text)
				fail("memory for ", path);
		}
		n = read(fd, text + size, room - size - 1);
		if (n < 0)
			fail("read ", path);
		size += n;
	} while (n > 0);
	close(fd);
	text[size] = '\0';
	*ret_size = size;
	return text;
}

/* The strings of the run's file @name, each of which ends in @end, with a NULL after the last. */
static struct list list_read(const char *name, char end)
{
	struct list list = { 0 };
	size_t size = 0, i;
	char path[512], *start;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	list.text = file_read(path, &size);
	if (!list.text)
		fail("open ", path);
	list.item = calloc(size + 1, sizeof(*list.item));
	if (!list.item)
		fail("memory for ", path);
	for (i = 0, start = list.text; i < size; i++) {
		if (list.text[i] != end)
			continue;
		list.text[i] = '\0';
		list.item[list.count++] = start;
		start = list.text + i + 1;
	}
	return list;
}

static void module_load(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open ", path);
	if (syscall(SYS_finit_module, fd, params, 0) < 0 && errno != EEXIST)
		fail("load ", path);
	close(fd);
}

/* The initramfs has its modules in the order of their names. */
static void modules_load_own(void)
{
	char path[64];
	int i;

	for (i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "/modules/%02d.ko", i);
		if (access(path, F_OK) < 0)
			break;
		module_load(path, "");
	}
}

/* the run's modules; @line has a path and its parameters */
static void module_load_peer(char *line)
{
	char path[512], *tab = strchr(line, '\t');

	if (tab)
		*tab = '\0';
	snprintf(path, sizeof(path), "/host%s", line);
	module_load(path, tab ? tab + 1 : "");
}

static void dir_make(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		fail("mkdir ", path);
}

static void fs_mount(const char *type, const char *source, const char *where, unsigned long flags,
		     const char *data)
{
	if (mount(source, where, type, flags, data) < 0)
		fail("mount ", where);
}

/* Ports are vport<virtio device>p<port>; @number counts them, four a device. */
static void port_path(char *path, size_t size, const char *format, int number)
{
	snprintf(path, size, format, number / 4, number % 4);
}

/* whether port @number is there and has that name */
static bool port_named(int number, const char *name)
{
	char path[64], *text;
	size_t size;
	bool named;

	port_path(path, sizeof(path), "/sys/class/virtio-ports/vport%dp%d/name", number);
	text = file_read(path, &size);
	if (!text)
		return false;
	text[strcspn(text, "\n")] = '\0';
	named = !strcmp(text, name);
	free(text);
	return named;
}

static int serial_open(const char *name)
{
	const char *path = !strcmp(name, "stdout") ? "/dev/ttyS1" :
			   !strcmp(name, "stderr") ? "/dev/ttyS2" : "/dev/ttyS3";
	int fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	struct termios settings;

	if (fd < 0 || tcgetattr(fd, &settings) < 0)
		fail("open ", path);
	cfmakeraw(&settings);
	cfsetspeed(&settings, B115200);
	settings.c_cflag |= CLOCAL;
	tcsetattr(fd, TCSANOW, &settings);
	return fd;
}

/* A port appears some time after its driver is loaded. */
static int port_open(const char *name)
{
	const struct timespec pause = { .tv_nsec = 5000000 };
	char path[64];
	int i, number, fd;

	if (packed)
		return serial_open(name);
	for (i = 0; i < 2000; i++) {
		for (number = 0; number < 16; number++) {
			if (!port_named(number, name))
				continue;
			port_path(path, sizeof(path), "/dev/vport%dp%d", number);
			fd = open(path, O_WRONLY | O_CLOEXEC);
			if (fd >= 0)
				return fd;
		}
		nanosleep(&pause, NULL);
	}
	errno = ETIMEDOUT;
	fail("port ", name);
	return -1;
}

/* Root is the machine outside under a tmpfs; /host stays the machine as it is, for the shares. */
static void root_mount(void)
{
	dir_make("/root");
	if (packed) {
		fs_mount("/host", "/host", "/root", MS_BIND, NULL);
		return;
	}
	dir_make("/host");
	dir_make("/over");
	fs_mount("virtiofs", "host", "/host", MS_RDONLY | MS_NOATIME, NULL);
	fs_mount("tmpfs", "tmpfs", "/over", 0, "size=75%,mode=755");
	dir_make("/over/upper");
	dir_make("/over/work");
	fs_mount("overlay", "overlay", "/root", MS_NOATIME,
		 "lowerdir=/host,upperdir=/over/upper,workdir=/over/work");
}

static void root_fill(void)
{
	static const char *const dirs[] = {
		"/root/proc", "/root/sys", "/root/dev", "/root/run", "/root/tmp",
		"/root/dev/pts", "/root/dev/shm",
	};
	size_t i;

	/* the last two are on what is moved first */
	for (i = 0; i < ARRAY_SIZE(dirs) - 2; i++)
		dir_make(dirs[i]);
	chmod("/root/tmp", 01777);
	fs_mount(NULL, "/proc", "/root/proc", MS_MOVE, NULL);
	fs_mount(NULL, "/sys", "/root/sys", MS_MOVE, NULL);
	fs_mount(NULL, "/dev", "/root/dev", MS_MOVE, NULL);
	for (; i < ARRAY_SIZE(dirs); i++)
		dir_make(dirs[i]);
	fs_mount("devpts", "devpts", "/root/dev/pts", 0, "mode=620,ptmxmode=666");
	fs_mount("tmpfs", "tmpfs", "/root/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	fs_mount("tmpfs", "tmpfs", "/root/run", MS_NOSUID | MS_NODEV, "mode=755");
	fs_mount("cgroup2", "cgroup2", "/root/sys/fs/cgroup", 0, NULL);
	fs_mount("debugfs", "debugfs", "/root/sys/kernel/debug", 0, NULL);
	fs_mount("tracefs", "tracefs", "/root/sys/kernel/tracing", 0, NULL);
	if (symlink("/proc/self/fd", "/root/dev/fd") < 0 ||
	    symlink("fd/0", "/root/dev/stdin") < 0 || symlink("fd/1", "/root/dev/stdout") < 0 ||
	    symlink("fd/2", "/root/dev/stderr") < 0)
		fail("symlink in ", "/dev");
}

/* makes each folder on the way to @path, in the overlay */
static void path_make(const char *path)
{
	char part[512];
	size_t i;

	snprintf(part, sizeof(part), "%s", path);
	for (i = 1; part[i]; i++) {
		if (part[i] != '/')
			continue;
		part[i] = '\0';
		dir_make(part);
		part[i] = '/';
	}
	dir_make(part);
}

static void shares_mount(const struct list *shares)
{
	char from[512], to[512];
	size_t i;

	for (i = 0; i < shares->count && !packed; i++) {
		snprintf(from, sizeof(from), "/host%s", shares->item[i]);
		snprintf(to, sizeof(to), "/root%s", shares->item[i]);
		path_make(to);
		fs_mount(NULL, from, to, MS_BIND, NULL);
	}
}

/* The running kernel's modules, for modprobe inside. */
static void modules_mount(void)
{
	const char *tree = getenv("MOAT_MODULES");
	char from[512], to[512];

	if (!tree || !strrchr(tree, '/'))
		return;
	snprintf(from, sizeof(from), "/host%s", tree);
	snprintf(to, sizeof(to), "/root/lib/modules%s", strrchr(tree, '/'));
	if (packed && access(from, F_OK) < 0)
		return;
	path_make(to);
	fs_mount(NULL, from, to, MS_BIND, NULL);
}

static void root_enter(void)
{
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		fail("enter ", "/root");
}

static void net_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		fail("network interface ", "lo");
	close(fd);
	if (sethostname("lab", 3) < 0)
		fail("hostname ", "lab");
}

/* A shell has hvc0 as its terminal, of the size of the one outside. */
static void terminal_take(void)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	int fd = open("/dev/hvc0", O_RDWR);

	if (getenv("LINES"))
		size.ws_row = atoi(getenv("LINES"));
	if (getenv("COLUMNS"))
		size.ws_col = atoi(getenv("COLUMNS"));
	unsetenv("LINES");
	unsetenv("COLUMNS");
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
		_exit(125);
	ioctl(fd, TIOCSWINSZ, &size);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void child_exec(const struct list *argv, const char *cwd)
{
	static char *const shell[] = { "/bin/bash", "-i", NULL };
	char *const *command = argv->count ? argv->item : shell;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(cwd) < 0 && chdir("/") < 0)
		_exit(125);
	execvp(command[0], command);
	dprintf(STDERR_FILENO, "lab: %s: %s\n", command[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static void pipe_make(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail("pipe for ", "the command");
}

static pid_t command_start(const struct list *argv, const char *cwd, struct pump pumps[2])
{
	int out[2], err[2];
	pid_t pid;

	pipe_make(out);
	pipe_make(err);
	pid = fork();
	if (pid < 0)
		fail("fork for ", "the command");
	if (pid == 0) {
		setsid();
		if (argv->count) {
			dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
			dup2(out[1], STDOUT_FILENO);
			dup2(err[1], STDERR_FILENO);
		} else {
			terminal_take();
		}
		child_exec(argv, cwd);
	}
	close(out[1]);
	close(err[1]);
	pumps[0].from = out[0];
	pumps[1].from = err[0];
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	return pid;
}

static void all_write(int fd, const char *data, size_t size)
{
	ssize_t n;

	while (size) {
		n = write(fd, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		data += n;
		size -= n;
	}
}

/* Moves what is in the pipe now; a writer that never stops must not hold up the rest. */
static void pump_run(struct pump *pump)
{
	static char buffer[65536];
	int rounds = 32;
	ssize_t n;

	while (pump->from >= 0 && rounds--) {
		n = read(pump->from, buffer, sizeof(buffer));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return;
		if (n == 0) {
			close(pump->from);
			pump->from = -1;
			return;
		}
		all_write(pump->to, buffer, n);
	}
}

static void child_ended(int signal)
{
	(void)signal;
}

/* Pumps until the command has ended; what others left behind have not written by then is lost. */
static int command_wait(pid_t pid, struct pump pumps[2])
{
	struct pollfd fds[2];
	sigset_t block, open_mask;
	int status = 0, i;
	pid_t ended;

	signal(SIGCHLD, child_ended);
	sigemptyset(&block);
	sigaddset(&block, SIGCHLD);
	sigprocmask(SIG_BLOCK, &block, &open_mask);
	do {
		while ((ended = waitpid(-1, &status, WNOHANG)) > 0 && ended != pid)
			;
		if (ended != pid) {
			for (i = 0; i < 2; i++)
				fds[i] = (struct pollfd){ .fd = pumps[i].from, .events = POLLIN };
			ppoll(fds, 2, NULL, &open_mask);
		}
		pump_run(&pumps[0]);
		pump_run(&pumps[1]);
	} while (ended != pid);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void early_mount(void)
{
	int fd;

	fs_mount("proc", "proc", "/proc", 0, NULL);
	fs_mount("sysfs", "sysfs", "/sys", 0, NULL);
	fs_mount("devtmpfs", "dev", "/dev", 0, NULL);
	fd = open("/dev/console", O_RDWR);
	if (fd >= 0) {
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		if (fd > STDERR_FILENO)
			close(fd);
	}
}

/* What the run's folder says is read before the root changes, from the machine as it is. */
static void host_set_up(struct list *argv, struct list *cwd)
{
	struct list env, modules, shares;
	static char host[512];
	size_t i;

	snprintf(host, sizeof(host), "/host%s", folder);
	folder = host;
	*argv = list_read("argv", '\0');
	*cwd = list_read("cwd", '\0');
	env = list_read("env", '\0');
	modules = list_read("modules", '\n');
	shares = list_read("shares", '\0');
	clearenv();
	for (i = 0; i < env.count; i++)
		putenv(env.item[i]);
	root_fill();
	shares_mount(&shares);
	modules_mount();
	for (i = 0; i < modules.count; i++)
		module_load_peer(modules.item[i]);
	root_enter();
	net_up();
}

int main(void)
{
	struct pump pumps[2];
	struct list argv, cwd;
	int status;

	early_mount();
	folder = getenv("moat_lab");
	if (!folder)
		fail("no folder named by ", "moat_lab=");
	packed = access("/host", F_OK) == 0;
	modules_load_own();
	status_fd = port_open("status");
	pumps[0].to = port_open("stdout");
	pumps[1].to = port_open("stderr");
	root_mount();
	host_set_up(&argv, &cwd);
	say("up");
	status = command_wait(command_start(&argv, cwd.item[0], pumps), pumps);
	if (packed) {
		tcdrain(pumps[0].to);
		tcdrain(pumps[1].to);
	}
	say("exit %d", status);
	halt();
	return 0;
}
