/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A guest and its host, with a tap between them. */
#ifndef SELFTESTS_VHOST_NET_H
#define SELFTESTS_VHOST_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/vhost/guest.h"

#define NET_HOST	"192.0.2.1"
#define NET_GUEST	"192.0.2.2"
#define NET_MASK		"255.255.255.0"
#define NET_PORT		5000
#define NET_TRIES	100

static inline struct sockaddr_in net_address(const char *text, uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

/* Gives an interface its address, and turns it on. */
static inline int net_set_up(const char *name, const char *address)
{
	const struct sockaddr_in own = net_address(address, 0), mask = net_address(NET_MASK, 0);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = { 0 };
	int err;

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	memcpy(&ifr.ifr_addr, &own, sizeof(own));
	err = ioctl(fd, SIOCSIFADDR, &ifr);
	memcpy(&ifr.ifr_addr, &mask, sizeof(mask));
	err = err || ioctl(fd, SIOCSIFNETMASK, &ifr) || ioctl(fd, SIOCGIFFLAGS, &ifr);
	ifr.ifr_flags |= IFF_UP;
	err = err || ioctl(fd, SIOCSIFFLAGS, &ifr);
	if (err)
		printf("error: %s: %s\n", name, strerror(errno));
	close(fd);
	return err;
}

/* A tap that stays, for one queue or for many, with the host's address. */
static inline int net_tap_make(const char *name, int many)
{
	struct ifreq ifr = {
		.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (many ? IFF_MULTI_QUEUE : 0),
	};
	int fd = open("/dev/net/tun", O_RDWR);

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, 1)) {
		printf("no tap: %s\n", strerror(errno));
		return 1;
	}
	return net_set_up(name, NET_HOST) ? 1 : 0;
}

/* The host's end listens. Return: a descriptor, or -1. */
static inline int net_listen(void)
{
	const struct sockaddr_in address = net_address(NET_HOST, NET_PORT);
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) || listen(fd, 8) ? -1 : fd;
}

/* The guest's network card is there and up. */
static inline void net_guest_begin(void)
{
	guest_wait_for("/sys/class/net/eth0");
	net_set_up("eth0", NET_GUEST);
}

/* Return: a connection to the host's end, once that listens; or -1. */
static inline int net_connect(void)
{
	const struct sockaddr_in address = net_address(NET_HOST, NET_PORT);

	for (int i = 0; i < NET_TRIES; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (!connect(fd, (const struct sockaddr *)&address, sizeof(address)))
			return fd;
		close(fd);
		usleep(100000);
	}
	return -1;
}

#endif
