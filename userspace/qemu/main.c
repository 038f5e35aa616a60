// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-qcow2: a qcow2 image as a disk for one machine, which QEMU's storage daemon serves.
 *
 * Two processes: this one becomes the daemon; the other one, made before, stays between that and the
 * machine. So whoever started this process and waits for its end knows then that nothing of the daemon
 * writes any more. The daemon knows only how to listen, and would do so for ever: it gets a socket to which
 * the one connection there will ever be was made already, by a name that is gone since; and the other
 * process ends it when the machine has gone.
 *
 * QEMU keeps in memory where in the image it has put what the guest wrote, until the guest flushes. A
 * daemon that is killed would take along what the guest knows to be written. So there is no such time
 * (writethrough): the guest is told that a write is complete when data and tables are on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/qcow2.h"
#include "userspace/lib/sandbox.h"
#include "userspace/qemu/proxy.h"
#include "userspace/qemu/tool.h"

static const char help[] =
"Usage: moat-qcow2 --disk PATH --fd N [--read-only] [--uid N --gid N]\n"
"Serve a qcow2 image as a virtio disk, by qemu-storage-daemon, to a front end of vhost-user.\n"
"\n"
"  --disk PATH        the image; /proc/self/fd/N: as handed over. It must name no other file\n"
"  --fd N             a connection to the front end; when it ends, so does this\n"
"  --read-only        nothing can be written\n"
"  --uid N, --gid N   run as that user and group\n";

enum { OPTION_DISK = 1, OPTION_FD, OPTION_READ_ONLY, OPTION_UID, OPTION_GID, OPTION_HELP };

static const struct option options_known[] = {
	{ "disk", required_argument, NULL, OPTION_DISK },
	{ "fd", required_argument, NULL, OPTION_FD },
	{ "read-only", no_argument, NULL, OPTION_READ_ONLY },
	{ "uid", required_argument, NULL, OPTION_UID },
	{ "gid", required_argument, NULL, OPTION_GID },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ 0 },
};

struct options {
	const char *path;
	uint64_t connection;
	uint64_t uid;
	uint64_t gid;
	bool read_only;
};

static const struct sandbox_call proxy_calls[] = {
	{ SYS_poll, 0, "waiting", 0, 0, 0 },
	{ SYS_recvmsg, 0, "messages", 0, 0, 0 },
	{ SYS_recvfrom, 0, "the same", 0, 0, 0 },
	{ SYS_sendmsg, 0, "the same", 0, 0, 0 },
	{ SYS_close, 0, "descriptors that came with them", 0, 0, 0 },
	{ SYS_ioctl, 0, "what the daemon asks for", 2, ~0ULL, SECCOMP_IOCTL_NOTIF_RECV },
	{ SYS_ioctl, 0, "giving it that", 2, ~0ULL, SECCOMP_IOCTL_NOTIF_ADDFD },
	{ SYS_ioctl, 0, "or not", 2, ~0ULL, SECCOMP_IOCTL_NOTIF_SEND },
	{ SYS_pidfd_send_signal, 0, "ending it", 0, 0, 0 },
	{ SYS_write, 0, "what there is to say", 0, 0, 0 },
	{ 0 },
};

/**
 * struct parts - what the two processes have
 * @listening: the daemon's, with one connection waiting, which is
 * @connected: of the proxy
 * @ends: between the two, for the listener of system calls
 */
struct parts {
	int disk;
	bool block;
	int machine;
	int listening;
	int connected;
	int process;
	int ends[2];
};

/* Options */

static int take_option(struct options *options, int option, const char *value)
{
	switch (option) {
	case OPTION_DISK:
		options->path = value;
		return 0;
	case OPTION_FD:
		return parse_uint(value, 0, INT32_MAX, &options->connection);
	case OPTION_READ_ONLY:
		options->read_only = true;
		return 0;
	case OPTION_UID:
		return parse_uint(value, 0, UINT32_MAX - 1, &options->uid);
	case OPTION_GID:
		return parse_uint(value, 0, UINT32_MAX - 1, &options->gid);
	case OPTION_HELP:
		fputs(help, stdout);
		exit(0);
	}
	return -EINVAL;
}

static int options_read(struct options *options, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", options_known, NULL)) != -1)
		if (take_option(options, c, optarg))
			return -EINVAL;
	if (optind == argc && options->path && options->connection != UINT64_MAX &&
	    (options->uid == UINT64_MAX) == (options->gid == UINT64_MAX))
		return 0;
	log_error("it takes --disk and --fd: see --help");
	return -EINVAL;
}

/* Parts */

static int open_disk(const struct options *options, struct parts *parts)
{
	struct qcow2 qcow2;
	struct stat st;
	const char *why;
	int err;

	parts->disk = fd_open(options->path, options->read_only ? O_RDONLY : O_RDWR);
	if (parts->disk < 0 || fstat(parts->disk, &st)) {
		err = parts->disk < 0 ? parts->disk : -errno;
		log_error("cannot open %s: %s", options->path, strerror(-err));
		return err;
	}
	parts->block = S_ISBLK(st.st_mode);
	err = lock_wait(parts->disk, options->read_only);
	if (err) {
		log_error("%s is in use by another process", options->path);
		return err;
	}
	err = qcow2_read(parts->disk, &qcow2, &why);
	if (err)
		log_error("%s: %s", options->path, why);
	return err;
}

/* A listening socket has to have a name: it has one for this long, where nobody else comes in. */
static int listen_once(struct parts *parts)
{
	char directory[] = "/tmp/moat-XXXXXX", path[sizeof(directory) + 2];
	int err;

	if (!mkdtemp(directory))
		return -errno;
	snprintf(path, sizeof(path), "%s/s", directory);
	parts->listening = fd_listen(path, 1);
	parts->connected = parts->listening < 0 ? parts->listening : fd_connect(path);
	err = parts->connected < 0 ? parts->connected : 0;
	unlink(path);
	rmdir(directory);
	if (!err && fcntl(parts->connected, F_SETFL, O_RDWR))
		err = -errno;
	return err;
}

static int make_parts(const struct options *options, struct parts *parts)
{
	int err = open_disk(options, parts);

	if (err)
		return err;
	parts->machine = options->connection;
	parts->process = pidfd_open(getpid(), 0);
	err = listen_once(parts);
	if (!err && (parts->process < 0 ||
		     socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, parts->ends)))
		err = -errno;
	if (err)
		log_error("%s: no connection to a storage daemon: %s", options->path, strerror(-err));
	return err;
}

/* The proxy */

static _Noreturn void be_proxy(const struct options *options, const struct parts *parts)
{
	const struct sandbox sandbox = {
		.uid = options->uid, .gid = options->gid, .calls = { proxy_calls, sandbox_libc },
	};
	struct proxy proxy = {
		.machine = parts->machine, .daemon = parts->connected, .process = parts->process,
		/* Whether it can be written is the descriptor's to say. QEMU tries out locks on what is no disk. */
		.files = { .read = parts->disk, .write = parts->disk },
	};
	const char *step = "the listener";
	int err;

	close(parts->listening);
	close(parts->ends[1]);
	proxy.listener = tool_take_over(parts->ends[0]);
	close(parts->ends[0]);
	err = proxy.listener < 0 ? proxy.listener : sandbox_enter(&sandbox, &step);
	if (err >= 0)
		proxy_run(&proxy);
	else if (err != -EPROTO)
		log_error("no sandbox: %s: %s", step, strerror(-err));
	pidfd_send_signal(parts->process, SIGKILL, NULL, 0);
	_exit(err < 0);
}

/* The daemon */

static void daemon_execute(const struct options *options, const struct parts *parts)
{
	static char *const environment[] = { "LC_ALL=C", NULL };
	const char *const read_only = options->read_only ? "true" : "false";
	char file[160], disk[160], export[160];

	/* Past the page cache is how something that is only read is asked for (tool.h); it is not done. */
	snprintf(file, sizeof(file), "{\"driver\":\"%s\",\"node-name\":\"file\",\"filename\":\"disk\","
		 "\"discard\":\"unmap\",\"read-only\":%s,\"cache\":{\"direct\":%s}}",
		 parts->block ? "host_device" : "file", read_only, read_only);
	snprintf(disk, sizeof(disk), "{\"driver\":\"qcow2\",\"node-name\":\"disk\",\"file\":\"file\","
		 "\"backing\":null,\"discard\":\"unmap\",\"read-only\":%s}", read_only);
	snprintf(export, sizeof(export), "vhost-user-blk,id=export,node-name=disk,writable=%s,"
		 "writethrough=on,addr.type=fd,addr.str=%d", options->read_only ? "off" : "on",
		 parts->listening);
	execve(TOOL_STORAGE, (char *[]){ "qemu-storage-daemon", "--blockdev", file, "--blockdev", disk,
					 "--export", export, NULL }, environment);
}

static void be_daemon(const struct options *options, const struct parts *parts)
{
	const char *step;
	int listener, err = tool_confine(options->uid, options->gid, &listener, &step);

	if (err) {
		log_error("no sandbox: %s: %s", step, strerror(-err));
		return;
	}
	err = tool_hand_over(parts->ends[1], listener);
	close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
	if (err || fcntl(parts->listening, F_SETFD, 0)) {
		log_error("the listener: %s", strerror(err ? -err : errno));
		return;
	}
	daemon_execute(options, parts);
	log_error("%s: %s", TOOL_STORAGE, strerror(errno));
}

int main(int argc, char **argv)
{
	struct options options = { .connection = UINT64_MAX, .uid = UINT64_MAX, .gid = UINT64_MAX };
	struct parts parts;
	pid_t child;

	log_name("moat-qcow2", NULL);
	if (options_read(&options, argc, argv))
		return 2;
	if (tool_find(TOOL_STORAGE)) {
		log_error("/usr%s is not there: install it (Debian: qemu-system-common)", TOOL_STORAGE);
		return 1;
	}
	if (make_parts(&options, &parts))
		return 1;
	child = fork();
	if (!child)
		be_proxy(&options, &parts);
	close(parts.machine);
	close(parts.connected);
	close(parts.ends[0]);
	if (child < 0)
		log_error("no process: %s", strerror(errno));
	else
		be_daemon(&options, &parts);
	return 1;
}
