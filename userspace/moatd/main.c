// SPDX-License-Identifier: MIT OR GPL-2.0
/* moatd: the control domain. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/moatd/cgroup.h"
#include "userspace/moatd/keeper.h"

#define MAIN_BACKLOG	128
#define MAIN_UID_FIRST	1000000000	/* far from those of people, and of containers */
#define MAIN_UID_COUNT	10000
#define MAIN_HEALTH	60

static const char main_help[] =
"Usage: moatd [OPTION]...\n"
"Look after the machines of this host: vmctl and others talk to it.\n"
"\n"
"  --state DIR    what lasts: definitions, disks; /var/lib/moat by default\n"
"  --run DIR      what goes with the host's run, and the socket, DIR/control; /run/moat by default\n"
"  --log DIR      what launchers and devices say; /var/log/moat by default\n"
"  --device NODE  /dev/moat by default\n"
"  --user NAME    whom the half that talks to others runs as; moatd by default\n"
"  --group NAME   who may connect, beside root; moat by default\n"
"  --uids FIRST,COUNT\n"
"                 users that machines run as, each as its own; 1000000000,10000 by default\n"
"  --health SECONDS\n"
"                 a launcher that does not answer for that long is ended; 60 by default\n"
"  --help         this text\n"
"\n"
"It runs in the foreground. Machines go on when it ends, or is killed, and are found again.\n";

struct main_options {
	struct keeper_options keeper;
	const char *user;
	const char *group;
};

static int main_uids(struct keeper_options *keeper, char *value)
{
	char *comma = strchr(value, ',');
	uint64_t first, count;

	if (comma)
		*comma++ = '\0';
	if (!comma || parse_uint(value, 1, UINT32_MAX / 2, &first) ||
	    parse_uint(comma, 1, 1000000, &count)) {
		log_error("--uids: give FIRST,COUNT, as 1000000000,10000");
		return -EINVAL;
	}
	keeper->uid_first = first;
	keeper->uid_count = count;
	return 0;
}

static int main_health(struct keeper_options *keeper, const char *value)
{
	if (!parse_uint(value, 1, 3600, &keeper->health))
		return 0;
	log_error("--health: give seconds, from 1 to 3600");
	return -EINVAL;
}

/* 1: help was asked for. */
static int main_parse(struct main_options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "state", 1, NULL, 's' }, { "run", 1, NULL, 'r' }, { "log", 1, NULL, 'l' },
		{ "device", 1, NULL, 'd' }, { "user", 1, NULL, 'u' }, { "group", 1, NULL, 'g' },
		{ "uids", 1, NULL, 'i' }, { "health", 1, NULL, 't' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		switch (c) {
		case 's': options->keeper.state = optarg; break;
		case 'r': options->keeper.run = optarg; break;
		case 'l': options->keeper.log = optarg; break;
		case 'd': options->keeper.node = optarg; break;
		case 'u': options->user = optarg; break;
		case 'g': options->group = optarg; break;
		case 'i':
			if (main_uids(&options->keeper, optarg))
				return -EINVAL;
			break;
		case 't':
			if (main_health(&options->keeper, optarg))
				return -EINVAL;
			break;
		case 'h':
			fputs(main_help, stdout);
			return 1;
		default:
			return -EINVAL;
		}
	}
	if (optind == argc)
		return 0;
	log_error("%s: moatd takes options only; see moatd --help", argv[optind]);
	return -EINVAL;
}

static int main_user(struct main_options *options)
{
	const struct passwd *user = getpwnam(options->user);

	if (!user || !user->pw_uid) {
		log_error("--user %s: %s", options->user, user ? "not root" :
			  "there is no such user; the package makes one called moatd");
		return -EINVAL;
	}
	options->keeper.uid = user->pw_uid;
	options->keeper.gid = user->pw_gid;
	return 0;
}

/* A directory that is there from now on, and whose it is. */
static int main_directory(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	int err = 0;

	if (mkdir(path, mode) && errno != EEXIST)
		err = -errno;
	if (!err && (chmod(path, mode) || chown(path, uid, gid)))
		err = -errno;
	if (err)
		log_error("%s: %s", path, strerror(-err));
	return err;
}

static int main_below(const struct keeper_options *keeper, const char *name, mode_t mode, uid_t uid,
		      gid_t gid)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", keeper->state, name);
	return main_directory(path, mode, uid, gid);
}

static int main_default(const struct keeper_options *keeper, const char *path)
{
	static const char text[] = "name: default\naddress: 192.168.77.1/24\nopen: yes\n";
	int err = 0, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || fchown(fd, keeper->uid, keeper->gid) || fd_write_full(fd, text, strlen(text)) ||
	    fsync(fd))
		err = -errno;
	fd_close(fd);
	return err;
}

/*
 * The first time there is a network that is of use at once. Who does not want it, deletes it. The directory says
 * that this was done, so it gets its name last.
 */
static int main_networks(const struct keeper_options *keeper)
{
	char path[4096], begun[4096], file[4096 + 16];
	int err;

	snprintf(path, sizeof(path), "%s/definitions/networks", keeper->state);
	if (!access(path, F_OK))
		return main_directory(path, 0700, keeper->uid, keeper->gid);
	snprintf(begun, sizeof(begun), "%s/networks.new", keeper->state);
	err = main_directory(begun, 0700, 0, 0);
	if (err)
		return err;
	snprintf(file, sizeof(file), "%s/default.yaml", begun);
	err = main_default(keeper, file);
	if (!err && (chown(begun, keeper->uid, keeper->gid) || rename(begun, path)))
		err = -errno;
	if (err)
		log_error("%s: %s", path, strerror(-err));
	return err;
}

static int main_directories(const struct keeper_options *keeper)
{
	int err = main_directory(keeper->state, 0755, 0, 0);

	if (!err)
		err = main_below(keeper, "definitions", 0700, keeper->uid, keeper->gid);
	if (!err)
		err = main_below(keeper, "definitions/machines", 0700, keeper->uid, keeper->gid);
	if (!err)
		err = main_networks(keeper);
	if (!err)
		err = main_below(keeper, "disks", 0711, 0, 0);
	if (!err)
		err = main_directory(keeper->log, 0750, 0, 0);
	return err;
}

/* What is done after this, only one does, and not over another one's head. */
static int main_lock(const struct keeper_options *keeper)
{
	int lock = main_directory(keeper->run, 0755, 0, 0);

	if (lock)
		return lock;
	lock = keeper_lock(keeper);
	if (lock < 0)
		log_error("%s: %s", keeper->run, lock == -EBUSY ? "another moatd is at work there" :
			  strerror(-lock));
	return lock;
}

/* Not before it has its mode can anybody connect to it. */
static int main_bind(const char *run, gid_t group)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const mode_t mask = umask(0777);
	int fd = -1, err = -ENAMETOOLONG;

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", run) <
	    (int)sizeof(address.sun_path)) {
		unlink(address.sun_path);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		err = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
		      listen(fd, MAIN_BACKLOG) || chown(address.sun_path, 0, group) ||
		      chmod(address.sun_path, 0660) ? -errno : 0;
	}
	umask(mask);
	if (!err)
		return fd;
	log_error("%s/control: %s", run, strerror(-err));
	fd_close(fd);
	return err;
}

/* From the service manager, or one of our own. */
static int main_listen(const struct main_options *options)
{
	const struct group *group;
	int n = sd_listen_fds(1);

	if (n > 1)
		log_error("%d sockets were handed over; one was expected", n);
	if (n)
		return n == 1 ? SD_LISTEN_FDS_START : -EINVAL;
	group = getgrnam(options->group);
	if (!group) {
		log_error("--group %s: there is no such group", options->group);
		return -EINVAL;
	}
	return main_bind(options->keeper.run, group->gr_gid);
}

int main(int argc, char **argv)
{
	struct main_options options = {
		.keeper = {
			.state = "/var/lib/moat", .run = "/run/moat", .log = "/var/log/moat",
			.node = "/dev/moat", .uid_first = MAIN_UID_FIRST, .uid_count = MAIN_UID_COUNT,
			.health = MAIN_HEALTH,
		},
		.user = "moatd", .group = "moat",
	};
	int err, listener, lock;

	log_name("moatd", NULL);
	err = main_parse(&options, argc, argv);
	if (err)
		return err < 0 ? 2 : 0;
	if (geteuid()) {
		log_error("it takes root's rights to look after machines");
		return 1;
	}
	umask(022);
	if (main_user(&options))
		return 1;
	lock = main_lock(&options.keeper);
	if (lock < 0 || main_directories(&options.keeper))
		return 1;
	err = cgroup_find(options.keeper.cgroup, sizeof(options.keeper.cgroup));
	if (err) {
		log_error("control groups: %s; cgroup v2 has to be mounted at /sys/fs/cgroup",
			  strerror(-err));
		return 1;
	}
	listener = main_listen(&options);
	if (listener < 0)
		return 1;
	sd_notify(1, "READY=1");
	return keeper_run(&options.keeper, listener, lock);
}
