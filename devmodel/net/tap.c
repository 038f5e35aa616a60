// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devmodel/net/tap.h"
#include "userspace/lib/array.h"

#define TAP_NODE	"/dev/net/tun"
#define TAP_KIND	(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

/* What the host may leave undone in frames for the guest. */
static const struct {
	unsigned int feature;
	unsigned int offload;
} tap_offloads[] = {
	{ VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
	{ VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 },
	{ VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
};

/* One queue is as good on a tap that may have several. */
static int tap_name(int fd, const char *name, bool several)
{
	struct ifreq ifr = { .ifr_flags = TAP_KIND | (several ? IFF_MULTI_QUEUE : 0) };

	strcpy(ifr.ifr_name, name);
	if (!ioctl(fd, TUNSETIFF, &ifr))
		return 0;
	return errno == EINVAL && !several ? tap_name(fd, name, true) : -errno;
}

int tap_open(const char *name, bool several)
{
	int err, fd;

	if (!*name || strlen(name) >= IFNAMSIZ)
		return -ENODEV;
	fd = open(TAP_NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = tap_name(fd, name, several);
	if (!err)
		return fd;
	close(fd);
	return err;
}

int tap_adopt(int fd)
{
	struct ifreq ifr;
	int flags;

	if (ioctl(fd, TUNGETIFF, &ifr))
		return errno == EBADF ? -EBADF : -EINVAL;
	if ((ifr.ifr_flags & TAP_KIND) != TAP_KIND)
		return -EINVAL;
	flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* Whoever cannot make checksums cannot make segments either. */
static unsigned int tap_offload(uint64_t features)
{
	unsigned int offload = TUN_F_CSUM;

	if (!(features >> VIRTIO_NET_F_GUEST_CSUM & 1))
		return 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(tap_offloads); i++)
		if (features >> tap_offloads[i].feature & 1)
			offload |= tap_offloads[i].offload;
	return offload;
}

int tap_set_up(int fd, uint32_t header, uint64_t features)
{
	int size = header;

	if (ioctl(fd, TUNSETVNETHDRSZ, &size) || ioctl(fd, TUNSETOFFLOAD, tap_offload(features)))
		return -errno;
	return 0;
}

int tap_use(int fd, bool use)
{
	struct ifreq ifr = { .ifr_flags = use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

	return ioctl(fd, TUNSETQUEUE, &ifr) ? -errno : 0;
}
