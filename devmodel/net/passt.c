// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/net/passt.h"

#define PASST_FD	3

/* Without --no-map-gw, what listens on the host's loopback would be the guest's to reach, at its router's address. */
static char *const passt_arguments[] = {
	"passt", "--foreground", "--quiet", "--fd", "3", "--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none",
	NULL
};

static int passt_spawn(int fd)
{
	posix_spawn_file_actions_t files;
	int err;
	pid_t pid;

	posix_spawn_file_actions_init(&files);
	err = posix_spawn_file_actions_adddup2(&files, fd, PASST_FD);
	if (!err)
		err = posix_spawn_file_actions_addclosefrom_np(&files, PASST_FD + 1);
	if (!err)
		err = posix_spawnp(&pid, passt_arguments[0], &files, NULL, passt_arguments, environ);
	posix_spawn_file_actions_destroy(&files);
	return -err;
}

int passt_start(void)
{
	int ends[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	err = passt_spawn(ends[1]);
	close(ends[1]);
	if (!err)
		return ends[0];
	close(ends[0]);
	return err;
}
