// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/lock.h"

/* "Moat"; no file is as long. */
#define LOCK_AT		0x4d6f617400000000LL

#define LOCK_TRIES	500
#define LOCK_PAUSE_NS	(20 * 1000000L)

int lock_take(int fd, bool read_only)
{
	struct flock lock = {
		.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
		.l_start = LOCK_AT, .l_len = 1,
	};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int lock_wait(int fd, bool read_only)
{
	const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };
	int err = lock_take(fd, read_only);

	for (int i = 0; i < LOCK_TRIES && err == -EAGAIN; i++) {
		nanosleep(&pause, NULL);
		err = lock_take(fd, read_only);
	}
	return err;
}

bool lock_is_taken(int fd)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_AT, .l_len = 1,
	};

	return fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}
