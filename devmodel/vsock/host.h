/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Unix sockets: the host's end of connections. */
#ifndef DEVMODEL_VSOCK_HOST_H
#define DEVMODEL_VSOCK_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

/**
 * struct host - where connections come from and go to
 * @listener: programs of the host connect to it
 * @path: of the sockets that the guest can connect to, but for "_PORT"
 * @credit: bytes that any of these sockets is sure to take once host_has_room() (conn.c tells why)
 */
struct host {
	int listener;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	uint32_t credit;
};

/* 0; -ENAMETOOLONG; another negative errno. The listener stays the caller's then. */
int host_init(struct host *host, const char *path, int listener);

/* Connects to what is behind a port, or takes whoever knocks. A descriptor or a negative errno. */
int host_connect(const struct host *host, uint32_t port);
int host_accept(const struct host *host);

/* Is most of a socket's buffer empty? */
bool host_has_room(int fd);

/* Has the program at the other end closed it, in both directions? */
bool host_is_gone(int fd);

#endif /* DEVMODEL_VSOCK_HOST_H */
