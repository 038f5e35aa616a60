// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/vsock/host.h"

#define HOST_CREDIT_MAX		65536

/* What is asked for; the host's limit may be less. Six times that credit, as the kernel counts. */
#define HOST_BUFFER		212992
#define HOST_BUFFER_CREDITS	6

static int host_buffer(int fd)
{
	const int size = HOST_BUFFER;

	return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) ? -errno : 0;
}

/* Of a socket like those to come. */
static int host_measure(uint32_t *ret_credit)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), size = 0, err;
	socklen_t len = sizeof(size);

	if (fd < 0)
		return -errno;
	err = host_buffer(fd);
	if (!err && getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &len))
		err = -errno;
	close(fd);
	size /= HOST_BUFFER_CREDITS;
	*ret_credit = size < HOST_CREDIT_MAX ? size : HOST_CREDIT_MAX;
	return err;
}

static int host_path(const struct host *host, uint32_t port, struct sockaddr_un *ret)
{
	int len;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	len = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s_%u", host->path, port);
	return (size_t)len < sizeof(ret->sun_path) ? 0 : -ENAMETOOLONG;
}

int host_init(struct host *host, const char *path, int listener)
{
	struct sockaddr_un longest;
	int err, flags;

	if (strlen(path) >= sizeof(host->path))
		return -ENAMETOOLONG;
	strcpy(host->path, path);
	host->listener = listener;
	err = host_path(host, UINT32_MAX, &longest);
	if (!err)
		err = host_measure(&host->credit);
	if (err)
		return err;
	flags = fcntl(listener, F_GETFL);
	return flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* Without waiting: to a socket with many who wait already, there is no connection. */
int host_connect(const struct host *host, uint32_t port)
{
	struct sockaddr_un address;
	int err = host_path(host, port, &address), fd;

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	err = host_buffer(fd);
	if (!err && connect(fd, (struct sockaddr *)&address, sizeof(address)))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

int host_accept(const struct host *host)
{
	int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), err;

	if (fd < 0)
		return -errno;
	err = host_buffer(fd);
	if (!err)
		return fd;
	close(fd);
	return err;
}

bool host_has_room(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };

	return poll(&wait, 1, 0) == 1 && wait.revents & POLLOUT;
}

bool host_is_gone(int fd)
{
	struct pollfd wait = { .fd = fd };

	return poll(&wait, 1, 0) == 1 && wait.revents & (POLLHUP | POLLERR);
}
