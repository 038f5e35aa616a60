// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * dnsmasq runs by itself, as a user of its own, and outlives who started it. Everything about it is in its
 * arguments, so one is found by these: one with exactly those that it is to have is as it is to be, one
 * whose first says that it is of this network (its pid file) goes when the network does. That holds at each moment, since
 * a child that is not dnsmasq yet ends with its parent. What is in the pid file, which dnsmasq may
 * write, is only where to look first: dnsmasq has children for a while, which look like it.
 *
 * Guests speak to it. So it answers nothing but DHCP and names, there is no name that a guest gave itself, and no
 * client identifier by which one could take another's address. The machines of an isolated network learn no names from
 * outside, and could tell nobody by asking.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/parse.h"
#include "userspace/moatd/dnsmasq.h"
#include "userspace/moatd/why.h"

#define DNSMASQ_PROGRAM	"/usr/sbin/dnsmasq"
#define DNSMASQ_USER	"dnsmasq"
#define DNSMASQ_OTHER	"nobody"

/* Milliseconds to end in, before it is killed. */
#define DNSMASQ_PATIENCE	2000

#define ROUNDS_MAX	5
#define ARGUMENTS_MAX	40
#define LEASE_LINE	1024
#define LEASES_MAX	200000

/* @text: all, one after the other, as /proc/PID/cmdline has them. */
struct arguments {
	char text[3000];
	size_t used;
	unsigned int count;
	char *argv[ARGUMENTS_MAX + 1];
};

static void __attribute__((format(printf, 2, 3))) arguments_add(struct arguments *arguments, const char *format, ...)
{
	char *at = arguments->text + arguments->used;
	va_list args;

	va_start(args, format);
	arguments->used += vsnprintf(at, sizeof(arguments->text) - arguments->used, format, args) + 1;
	va_end(args);
	arguments->argv[arguments->count++] = at;
}

/* The program, and what tells the network. */
static void arguments_begin(struct arguments *arguments, const char *name)
{
	*arguments = (struct arguments){ 0 };
	arguments_add(arguments, DNSMASQ_PROGRAM);
	arguments_add(arguments, "--pid-file=" NETWORK_FOLDER "/%s/dnsmasq.pid", name);
}

static const struct passwd *dnsmasq_user(void)
{
	const struct passwd *user = getpwnam(DNSMASQ_USER);

	return user ? user : getpwnam(DNSMASQ_OTHER);
}

static const char *const arguments_fixed[] = {
	"--conf-file=/dev/null", "--bind-interfaces", "--except-interface=lo", "--no-hosts", "--domain-needed",
	"--bogus-priv", "--dhcp-authoritative", "--no-ping", "--dhcp-ignore-names", "--dhcp-ignore-clid", NULL
};

static void arguments_set(struct arguments *arguments, const struct network_spec *spec)
{
	const struct passwd *user = dnsmasq_user();

	arguments_begin(arguments, spec->name);
	for (const char *const *fixed = arguments_fixed; *fixed; fixed++)
		arguments_add(arguments, "%s", *fixed);
	arguments_add(arguments, "--user=%s", user ? user->pw_name : DNSMASQ_OTHER);
	arguments_add(arguments, "--interface=" NETWORK_INTERFACE "%s", spec->name);
	arguments_add(arguments, "--domain=%s.internal", spec->name);
	arguments_add(arguments, "--local=/%s.internal/", spec->name);
	arguments_add(arguments, "--dhcp-range=%s,%s,%s,1h", network_text(spec->dhcp_first).text,
		      network_text(spec->dhcp_last).text, network_text(network_mask(spec->prefix)).text);
	arguments_add(arguments, "--dhcp-lease-max=%u", 1U << (32 - spec->prefix));
	arguments_add(arguments, "--dhcp-leasefile=" NETWORK_FOLDER "/%s/leases", spec->name);
	arguments_add(arguments, "--dhcp-hostsfile=" NETWORK_FOLDER "/%s/hosts", spec->name);
	if (spec->mode == NETWORK_ISOLATED) {
		arguments_add(arguments, "--no-resolv");
		arguments_add(arguments, "--dhcp-option=option:router");
	}
}

/* Processes */

/* Reads a file of /proc/PID, @proc, and ends it with a NUL. Return: bytes, or -1. */
static ssize_t proc_read(int proc, const char *name, char *buf, size_t size)
{
	int fd = openat(proc, name, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, buf, size - 1);

	fd_close(fd);
	buf[len < 0 ? 0 : len] = '\0';
	return len;
}

/* Is it the program, not another one with its arguments, and of root or the user that it becomes? */
static bool proc_is_dnsmasq(int proc)
{
	const struct passwd *user = dnsmasq_user();
	char program[PATH_MAX], text[2048], *at;
	ssize_t len = readlinkat(proc, "exe", program, sizeof(program) - 1);
	unsigned int real;

	program[len < 0 ? 0 : len] = '\0';
	at = strrchr(program, '/');
	if (!at || (strcmp(at, "/dnsmasq") && strcmp(at, "/dnsmasq (deleted)")) ||
	    proc_read(proc, "status", text, sizeof(text)) < 0)
		return false;
	at = strstr(text, "\nUid:");
	return at && sscanf(at, " Uid: %u", &real) == 1 && (!real || (user && real == user->pw_uid));
}

/* Does it have these arguments: all that it has, or the first ones? */
static bool proc_has(int proc, const struct arguments *arguments, bool all)
{
	char text[sizeof(arguments->text) + 1];
	const ssize_t len = proc_read(proc, "cmdline", text, sizeof(text));

	return len >= (ssize_t)arguments->used && !memcmp(text, arguments->text, arguments->used) &&
	       (!all || len == (ssize_t)arguments->used);
}

/* A pidfd of a process, if it is a dnsmasq with these arguments; or -ESRCH. It is the same that was looked at. */
static int process_open(const char *pid, const struct arguments *arguments, bool all)
{
	char path[32];
	uint64_t number;
	int fd, proc;
	bool is;

	if (parse_uint(pid, 1, INT32_MAX, &number))
		return -ESRCH;
	fd = pidfd_open(number, 0);
	if (fd < 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%s", pid);
	proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	is = proc >= 0 && proc_has(proc, arguments, all) && proc_is_dnsmasq(proc);
	fd_close(proc);
	if (is && !pidfd_send_signal(fd, 0, NULL, 0))
		return fd;
	close(fd);
	return -ESRCH;
}

static void process_end(int pidfd)
{
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };

	pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	if (poll(&ended, 1, DNSMASQ_PATIENCE) == 1)
		return;
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	poll(&ended, 1, DNSMASQ_PATIENCE);
}

/* Ends all of a network. Return: how many. */
static int processes_end(const char *name)
{
	struct arguments arguments;
	struct dirent *entry;
	DIR *all = opendir("/proc");
	int fd, count = 0;

	arguments_begin(&arguments, name);
	while (all && (entry = readdir(all))) {
		fd = process_open(entry->d_name, &arguments, false);
		if (fd < 0)
			continue;
		process_end(fd);
		close(fd);
		count++;
	}
	if (all)
		closedir(all);
	return count;
}

static int dnsmasq_open(const struct arguments *arguments)
{
	const char *path = arguments->argv[1] + strlen("--pid-file=");
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char pid[16];
	ssize_t len;

	if (fd < 0)
		return -ESRCH;
	len = read(fd, pid, sizeof(pid) - 1);
	close(fd);
	pid[len < 0 ? 0 : len] = '\0';
	pid[strcspn(pid, "\n")] = '\0';
	return process_open(pid, arguments, true);
}

int dnsmasq_find(const struct network_spec *spec)
{
	struct arguments arguments;

	arguments_set(&arguments, spec);
	return dnsmasq_open(&arguments);
}

/* In the child: never returns. Whoever dies with its parent does so only until it is dnsmasq's own. */
static void dnsmasq_exec(const struct arguments *arguments, pid_t parent, int null, int errors)
{
	static char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	sigset_t none;

	sigemptyset(&none);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(errors, STDERR_FILENO) < 0)
		_exit(127);
	fd_close_but(STDERR_FILENO + 1, NULL, 0);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	execve(DNSMASQ_PROGRAM, arguments->argv, environment);
	dprintf(STDERR_FILENO, "cannot run " DNSMASQ_PROGRAM ": %s", strerror(errno));
	_exit(127);
}

/* It goes to the background once it serves, or says why it does not. @errors: what it says. */
static int dnsmasq_wait(pid_t pid, int errors, char *why)
{
	char text[WHY_SIZE];
	ssize_t len;
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return why_say(why, -errno, "dnsmasq: %s", strerror(errno));
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 1;
	len = read(errors, text, sizeof(text) - 1);
	text[len < 0 ? 0 : len] = '\0';
	return why_say(why, -EIO, "dnsmasq did not start: %s", text + strspn(text, "\n"));
}

static int dnsmasq_spawn(const struct arguments *arguments, char *why)
{
	const pid_t parent = getpid();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), errors[2], err;
	pid_t pid;

	if (null < 0 || pipe2(errors, O_CLOEXEC | O_NONBLOCK)) {
		err = why_say(why, -errno, "cannot start dnsmasq: %s", strerror(errno));
		fd_close(null);
		return err;
	}
	pid = fork();
	if (!pid)
		dnsmasq_exec(arguments, parent, null, errors[1]);
	err = pid < 0 ? why_say(why, -errno, "cannot start dnsmasq: %s", strerror(errno)) :
			dnsmasq_wait(pid, errors[0], why);
	close(errors[0]);
	close(errors[1]);
	close(null);
	return err;
}

/* Its folder */

/* @path: as "/var/lib/moat/networks/NAME/hosts"; so are those above it. */
static int folder_make(const char *path, char *why)
{
	char part[PATH_MAX];

	for (const char *at = strchr(path + 1, '/'); ; at = strchr(at + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", at ? (int)(at - path) : PATH_MAX - 1, path);
		if (mkdir(part, 0755) && errno != EEXIST)
			return why_say(why, -errno, "cannot make %s: %s", part, strerror(errno));
		if (!at)
			return 0;
	}
}

/* With all that is in it, which is files. */
static int folder_remove(const char *path, char *why)
{
	DIR *folder = opendir(path);
	struct dirent *entry;

	while (folder && (entry = readdir(folder)))
		unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder)
		closedir(folder);
	if (!rmdir(path) || errno == ENOENT)
		return 0;
	return why_say(why, -errno, "cannot remove %s: %s", path, strerror(errno));
}

int dnsmasq_start(const struct network_spec *spec, char *why)
{
	struct arguments arguments;
	char path[PATH_MAX];
	int err, fd;

	arguments_set(&arguments, spec);
	fd = dnsmasq_open(&arguments);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	processes_end(spec->name);
	snprintf(path, sizeof(path), NETWORK_FOLDER "/%s/hosts", spec->name);
	err = folder_make(path, why);
	return err ? err : dnsmasq_spawn(&arguments, why);
}

int dnsmasq_remove(const char *name, char *why)
{
	char path[PATH_MAX];
	int err, rounds = 0;

	/* One may have been about to become two. */
	while (processes_end(name))
		if (++rounds == ROUNDS_MAX)
			return why_say(why, -EBUSY, "network %s: dnsmasq does not end", name);
	snprintf(path, sizeof(path), NETWORK_FOLDER "/%s/hosts", name);
	err = folder_remove(path, why);
	snprintf(path, sizeof(path), NETWORK_FOLDER "/%s", name);
	return err ? err : folder_remove(path, why);
}

/* Both whole or not at all: dnsmasq reads all files of the folder but hidden ones. */
static int host_write(const char *folder, const char *file, const char *text)
{
	char path[PATH_MAX], draft[PATH_MAX];
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	snprintf(draft, sizeof(draft), "%s/.%s", folder, file);
	if (!*text)
		return unlink(path) && errno != ENOENT ? -errno : 0;
	fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	err = fd_write_full(fd, text, strlen(text));
	close(fd);
	return err || !rename(draft, path) ? err : -errno;
}

int dnsmasq_host(const struct network_spec *spec, const uint8_t *mac, const char *name, uint32_t address, char *why)
{
	char folder[96], text[128] = "";
	int err, fd;

	snprintf(folder, sizeof(folder), NETWORK_FOLDER "/%s/hosts", spec->name);
	if (name)
		snprintf(text, sizeof(text), "%s,%s,%s\n", network_mac_text(mac).text, name,
			 network_text(address).text);
	err = host_write(folder, network_mac_text(mac).text, text);
	if (err)
		return why_say(why, err, "cannot change %s: %s", folder, strerror(-err));
	fd = dnsmasq_find(spec);
	if (fd >= 0)
		pidfd_send_signal(fd, SIGHUP, NULL, 0);
	fd_close(fd);
	return 0;
}

/* No more of it than there can be. What goes on from a line that is too long is no line. */
static bool leases_read(FILE *leases, const struct network_spec *spec, const uint8_t *mac, uint32_t *ret_address)
{
	const int64_t now = time(NULL);
	char line[LEASE_LINE];
	bool whole = true;

	for (unsigned int i = 0; i < LEASES_MAX && fgets(line, sizeof(line), leases); i++) {
		if (whole && network_lease_read(line, spec, mac, now, ret_address))
			return true;
		whole = strchr(line, '\n');
	}
	return false;
}

int dnsmasq_lease(const struct network_spec *spec, const uint8_t *mac, uint32_t *ret_address, char *why)
{
	char path[PATH_MAX];
	FILE *leases;
	bool found;
	int fd;

	snprintf(path, sizeof(path), NETWORK_FOLDER "/%s/leases", spec->name);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	leases = fd < 0 ? NULL : fdopen(fd, "r");
	if (!leases) {
		fd_close(fd);
		return why_say(why, -ENOENT, "network %s has no leases", spec->name);
	}
	found = leases_read(leases, spec, mac, ret_address);
	fclose(leases);
	return found ? 0 : why_say(why, -ENOENT, "network %s: %s has no address", spec->name,
				   network_mac_text(mac).text);
}
