/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the process 1 of a test's guest begins and ends with. */
#ifndef SELFTESTS_VHOST_GUEST_H
#define SELFTESTS_VHOST_GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GUEST_MODULES_MAX	16

/* File systems, and the modules in /modules, in their order. */
static inline void guest_begin(void)
{
	char path[32];

	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	for (int i = 0; i < GUEST_MODULES_MAX; i++) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%02d.ko", i);
		fd = open(path, O_RDONLY);
		if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0))
			printf("error: %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

/* Waits until there is a file. */
static inline void guest_wait_for(const char *path)
{
	for (int i = 0; i < 100 && access(path, F_OK); i++)
		usleep(100000);
}

static inline void guest_end(void)
{
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
}

#endif
