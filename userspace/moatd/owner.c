// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/moatd/owner.h"

gid_t owner_group(uid_t owner)
{
	const struct passwd *user = getpwuid(owner);

	return user ? user->pw_gid : (gid_t)owner;
}

/* Who is not known to the host has no group. */
static int owner_become(uid_t owner)
{
	const struct passwd *user = getpwuid(owner);
	const gid_t gid = owner_group(owner);

	if (user ? initgroups(user->pw_name, gid) : setgroups(0, NULL))
		return -errno;
	setfsgid(gid);
	setfsuid(owner);
	return setfsuid(-1) == (int)owner && setfsgid(-1) == (int)gid ? 0 : -EPERM;
}

/* The process's own rights come back whatever happened in between. */
static void owner_return(void)
{
	setfsuid(0);
	setfsgid(0);
	setgroups(0, NULL);
}

int owner_open(uid_t owner, const char *path, int flags)
{
	struct stat st;
	int err, fd;

	err = owner_become(owner);
	/* A FIFO is not waited for. */
	fd = err ? -1 : open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && !err)
		err = -errno;
	owner_return();
	if (err)
		return err;
	if (!fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode)) &&
	    !fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK))
		return fd;
	close(fd);
	return -EINVAL;
}
