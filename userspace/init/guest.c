// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <net/if.h>
#include <signal.h>
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

#include "moat/run.h"
#include "userspace/init/guest.h"

#define GUEST_HOST_NAME		"moat"
#define GUEST_COMMAND_MAX	(16 << 20)
#define GUEST_CHANNEL_TRIES	1000	/* 10 ms apart */
#define GUEST_MOUNTS_MAX	64
#define GUEST_ROOT		"/.root"

void guest_power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void guest_fail(const char *what, const char *name)
{
	dprintf(STDERR_FILENO, "moat-init: cannot %s %s: %s\n", what, name, strerror(errno));
	tcdrain(STDERR_FILENO);
	guest_power_off();
}

static const struct guest_mount {
	const char *type;
	const char *path;
	mode_t mode;
	unsigned long flags;
	const char *data;
} guest_mounts[] = {
	{ "proc",	"/proc",	0555, MS_NOSUID | MS_NODEV | MS_NOEXEC,	NULL },
	{ "sysfs",	"/sys",		0555, MS_NOSUID | MS_NODEV | MS_NOEXEC,	NULL },
	{ "devtmpfs",	"/dev",		0755, MS_NOSUID,			"mode=755" },
	{ "devpts",	"/dev/pts",	0755, MS_NOSUID | MS_NOEXEC,		"mode=620" },
	{ "tmpfs",	"/dev/shm",	01777, MS_NOSUID | MS_NODEV,		"mode=1777" },
};

/* Where the kernel has mounted /dev by itself, the second mount says that it is busy. */
static void guest_mount(const struct guest_mount *mount_point)
{
	mkdir(mount_point->path, mount_point->mode);
	if (mount(mount_point->type, mount_point->path, mount_point->type, mount_point->flags,
		  mount_point->data) && errno != EBUSY)
		guest_fail("mount", mount_point->path);
}

static void guest_link(const char *target, const char *path)
{
	if (symlink(target, path) && errno != EEXIST)
		guest_fail("make", path);
}

/* Not all kernels have networks; nothing here needs them. */
static void guest_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
}

static void guest_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		return;		/* as a kernel without one; then nobody can be told of anything */
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

void guest_init(void)
{
	umask(0);
	for (size_t i = 0; i < sizeof(guest_mounts) / sizeof(guest_mounts[0]); i++) {
		guest_mount(&guest_mounts[i]);
		if (!strcmp(guest_mounts[i].path, "/dev"))
			guest_console();
	}
	/* Plain, since the working directory or the program may lie below; all is in memory. */
	mkdir("/run", 0755);
	mkdir("/tmp", 01777);
	umask(022);
	guest_link("/proc/self/fd", "/dev/fd");
	guest_link("/proc/self/fd/0", "/dev/stdin");
	guest_link("/proc/self/fd/1", "/dev/stdout");
	guest_link("/proc/self/fd/2", "/dev/stderr");
	if (sethostname(GUEST_HOST_NAME, strlen(GUEST_HOST_NAME)))
		guest_fail("set the host name", GUEST_HOST_NAME);
	guest_loopback_up();
}

static char *guest_read(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0;
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		guest_fail("open", path);
	text = st.st_size < GUEST_COMMAND_MAX ? malloc(st.st_size + 1) : NULL;
	if (!text)
		guest_fail("hold", path);
	while (size < (size_t)st.st_size) {
		n = read(fd, text + size, st.st_size - size);
		if (n <= 0)
			guest_fail("read", path);
		size += n;
	}
	close(fd);
	text[size] = '\0';
	*ret_size = size;
	return text;
}

/* A NULL-terminated list of the strings that begin with one of @tags, with that. */
static char **guest_tagged(char *text, size_t size, const char *tags)
{
	size_t count = 0;
	char **list;

	for (char *at = text; at < text + size; at += strlen(at) + 1)
		count += *at && strchr(tags, *at);
	list = calloc(count + 1, sizeof(*list));
	if (!list)
		guest_fail("hold", RUN_COMMAND_FILE);
	count = 0;
	for (char *at = text; at < text + size; at += strlen(at) + 1)
		if (*at && strchr(tags, *at))
			list[count++] = at;
	return list;
}

/* The same of one tag, without it. */
static char **guest_strings(char *text, size_t size, char tag)
{
	const char tags[] = { tag, 0 };
	char **list = guest_tagged(text, size, tags);

	for (char **string = list; *string; string++)
		(*string)++;
	return list;
}

static const char *guest_string(char *text, size_t size, char tag, const char *otherwise)
{
	for (char *at = text; at < text + size; at += strlen(at) + 1)
		if (*at == tag)
			return at + 1;
	return otherwise;
}

static void guest_load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		guest_fail("open", path);
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		guest_fail("load", path);
	close(fd);
	unlink(path);
}

/* A file system of the host's; the driver finds its device in its own time. */
static void guest_mount_host(const char *tag, const char *path, unsigned long flags)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	int tries = 0;

	while (mount(tag, path, "virtiofs", flags, NULL)) {
		if ((errno != EINVAL && errno != ENOENT) || ++tries == GUEST_CHANNEL_TRIES)
			guest_fail("mount", path);
		nanosleep(&pause, NULL);
	}
}

/*
 * A directory is made, if it is not there. Where that cannot be, it is in a file system of the host's of which
 * the root shows an empty directory: in the place of that comes one in memory, with room for it.
 */
static void guest_make_directory(char *path)
{
	char *name = strrchr(path, '/');

	if (!mkdir(path, 0755) || errno == EEXIST)
		return;
	*name = '\0';
	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"))
		guest_fail("mount", path);
	*name = '/';
	if (mkdir(path, 0755))
		guest_fail("make", path);
}

/* A directory below the new root, with all above it. */
static const char *guest_below_root(const char *path)
{
	static char below[PATH_MAX];
	int len = snprintf(below, sizeof(below), GUEST_ROOT "%s", path);

	if (len < 0 || (size_t)len >= sizeof(below)) {
		errno = ENAMETOOLONG;
		guest_fail("mount", path);
	}
	for (char *at = below + strlen(GUEST_ROOT "/"); (at = strchr(at, '/')); at++) {
		*at = '\0';
		guest_make_directory(below);
		*at = '/';
	}
	guest_make_directory(below);
	return below;
}

static void guest_mount_empty(const char *path, const char *data)
{
	if (mount("tmpfs", guest_below_root(path), "tmpfs", MS_NOSUID | MS_NODEV, data))
		guest_fail("mount", path);
}

/* "fTAG DIRECTORY" or "yDIRECTORY", in the order in which they were asked for. */
static void guest_mount_wanted(char *wanted)
{
	char *path = strchr(wanted, ' ');

	if (*wanted == 'y') {
		guest_mount_empty(wanted + 1, "mode=755");
	} else if (path) {
		*path++ = '\0';
		guest_mount_host(wanted + 1, guest_below_root(path), MS_NOSUID | MS_NODEV);
	}
}

/*
 * The host's files become the root, those of the kernel's own file systems are this guest's, and what every
 * program may write to is empty.
 */
static void guest_enter_root(const struct command *command)
{
	static const char * const kernel[] = { "/dev", "/proc", "/sys" };

	mkdir(GUEST_ROOT, 0755);
	guest_mount_host(command->root, GUEST_ROOT, MS_RDONLY);
	guest_mount_empty("/tmp", "mode=1777");
	guest_mount_empty("/var/tmp", "mode=1777");
	guest_mount_empty("/run", "mode=755");
	for (char **wanted = command->mounts; *wanted; wanted++)
		guest_mount_wanted(*wanted);
	for (size_t i = 0; i < sizeof(kernel) / sizeof(kernel[0]); i++)
		if (mount(kernel[i], guest_below_root(kernel[i]), NULL, MS_MOVE, NULL))
			guest_fail("move", kernel[i]);
	if (chdir(GUEST_ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		guest_fail("enter", command->root);
}

void guest_load(struct command *command)
{
	size_t size;
	char *text = guest_read(RUN_COMMAND_FILE, &size);

	*command = (struct command){
		.program = guest_string(text, size, 'p', ""),
		.directory = guest_string(text, size, 'c', "/"),
		.argv = guest_strings(text, size, 'a'),
		.envp = guest_strings(text, size, 'e'),
		.modules = guest_strings(text, size, 'm'),
		.root = guest_string(text, size, 'r', NULL),
		.mounts = guest_tagged(text, size, "fy"),
	};
	if (sscanf(guest_string(text, size, 'w', ""), "%hu %hu", &command->rows,
		   &command->columns) != 2)
		command->columns = 0;	/* a terminal of no known size */
	for (const char *at = guest_string(text, size, 't', ""); *at >= '0' && *at <= '2'; at++)
		command->terminals |= 1 << (*at - '0');
	for (char **module = command->modules; *module; module++)
		guest_load_module(*module);
	unlink(RUN_COMMAND_FILE);
	rmdir(RUN_FOLDER);
	unlink("/init");
	if (command->root)
		guest_enter_root(command);
}

static int guest_set_raw(int fd)
{
	struct termios mode;

	if (tcgetattr(fd, &mode))
		return -1;
	cfmakeraw(&mode);
	mode.c_cflag |= CLOCAL | CREAD;
	return tcsetattr(fd, TCSANOW, &mode);
}

/* The driver finds its device in its own time. */
int guest_open_channel(void)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	int fd = -1;

	for (int i = 0; fd < 0 && i < GUEST_CHANNEL_TRIES; i++) {
		fd = open(RUN_CHANNEL, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			nanosleep(&pause, NULL);
	}
	if (fd < 0 || guest_set_raw(fd))
		guest_fail("open", RUN_CHANNEL);
	return fd;
}

/* Those on a disk, the last mounted first; of the others nothing is left anyway. */
static void guest_unmount(void)
{
	char *paths[GUEST_MOUNTS_MAX];
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	unsigned int count = 0;
	struct mntent *entry;

	while (mounts && count < GUEST_MOUNTS_MAX && (entry = getmntent(mounts)))
		if (entry->mnt_fsname[0] == '/')
			paths[count++] = strdup(entry->mnt_dir);
	if (mounts)
		endmntent(mounts);
	while (count--)
		if (paths[count] && umount(paths[count]))
			mount(NULL, paths[count], NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

void guest_settle(void)
{
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (chdir("/"))
		dprintf(STDERR_FILENO, "moat-init: cannot leave the working directory\n");
	guest_unmount();
	sync();
}
