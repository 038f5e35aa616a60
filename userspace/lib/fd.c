// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/parse.h"

static int fd_take(int fd, int flags)
{
	int have = fcntl(fd, F_GETFL);
	int copy;

	if (have < 0)
		return -errno;
	have &= O_ACCMODE;
	if (have != O_RDWR && have != (flags & O_ACCMODE))
		return -EACCES;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return copy < 0 ? -errno : copy;
}

int fd_open(const char *path, int flags)
{
	static const char handed[] = "/proc/self/fd/";
	uint64_t number;
	int fd;

	if (!strncmp(path, handed, strlen(handed)) &&
	    !parse_uint(path + strlen(handed), 0, INT32_MAX, &number))
		return fd_take(number, flags);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int fd_listen(const char *path, int backlog)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat st;
	int err, fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, backlog))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

bool fd_take_event(int fd)
{
	uint64_t count;
	struct iovec iov = { .iov_base = &count, .iov_len = sizeof(count) };

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == sizeof(count);
}

/* There is no write that never waits: this one would if it was made blocking, and filled, between the two. */
void fd_signal_event(int fd)
{
	int on = 1;

	if (!ioctl(fd, FIONBIO, &on))
		eventfd_write(fd, 1);
}

int fd_memory(const char *name, uint64_t size)
{
	int err, fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, size) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

void fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

int fd_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	char *at = buf;

	while (len) {
		ssize_t n = pread(fd, at, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		at += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int fd_write_full(int fd, const void *buf, size_t len)
{
	const char *at = buf;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd room = { .fd = fd, .events = POLLOUT };

			poll(&room, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= n;
	}
	return 0;
}

int fd_size(int fd, uint64_t *ret_size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret_size = st.st_size;
	return 0;
}
