// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-net: a network card for one machine, by the vhost-user protocol. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devmodel/net/net.h"
#include "devmodel/net/passt.h"
#include "devmodel/net/tap.h"
#include "devmodel/vhost_user/program.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/sandbox.h"

static const char help[] =
"Usage: moat-net { --tap NAME | --tap-fd N[,N...] | --stream PATH | --user } { --socket PATH | --fd N } [OPTION]...\n"
"Serve a tap, or the user's own network, as a virtio network device, to a front end of vhost-user.\n"
"\n"
"  --tap NAME              a tap; one that is not there is made, and gone with this process\n"
"  --tap-fd N[,N...]       its queues, as handed over: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR\n"
"  --stream PATH           who listens there takes and gives frames, each behind its length, as\n"
"                          QEMU's -netdev stream does; /proc/self/fd/N: a connection\n"
"  --user                  start passt, by which the guest's connections are this user's\n"
"  --queues N              pairs of queues; 1 by default, at most 8; of --tap-fd, as many as those;\n"
"                          of --stream and --user, 1\n"
"  --mac ADDRESS           the guest's, as 02:00:00:00:00:01\n"
"  --mtu N                 what the guest is told, 68 to 65535\n"
"  --rx-bytes-per-second N, --rx-frames-per-second N\n"
"                          the most that the guest receives; of bytes, N may end in K, M or G\n"
"  --tx-bytes-per-second N, --tx-frames-per-second N\n"
"                          the most that it sends\n";

static const char notes[] =
"SIGHUP: say what has passed so far. SIGTERM: end.\n";

enum {
	NET_TAP = 1, NET_TAP_FD, NET_QUEUES, NET_MAC, NET_MTU, NET_RX_BYTES, NET_RX_FRAMES,
	NET_TX_BYTES, NET_TX_FRAMES, NET_STREAM, NET_USER
};

static const struct option options[] = {
	{ "tap", required_argument, NULL, NET_TAP },
	{ "tap-fd", required_argument, NULL, NET_TAP_FD },
	{ "stream", required_argument, NULL, NET_STREAM },
	{ "user", no_argument, NULL, NET_USER },
	{ "queues", required_argument, NULL, NET_QUEUES },
	{ "mac", required_argument, NULL, NET_MAC },
	{ "mtu", required_argument, NULL, NET_MTU },
	{ "rx-bytes-per-second", required_argument, NULL, NET_RX_BYTES },
	{ "rx-frames-per-second", required_argument, NULL, NET_RX_FRAMES },
	{ "tx-bytes-per-second", required_argument, NULL, NET_TX_BYTES },
	{ "tx-frames-per-second", required_argument, NULL, NET_TX_FRAMES },
	{ 0 },
};

static const struct sandbox_call net_calls[] = {
	{ SYS_readv, 0, "frames from the tap, or the stream", 0, 0, 0 },
	{ SYS_writev, 0, "frames to the tap, or the stream", 0, 0, 0 },
	{ SYS_ioctl, 0, "how long a frame's header is", 2, ~0ULL, TUNSETVNETHDRSZ },
	{ SYS_ioctl, 0, "what the host may leave undone in frames", 2, ~0ULL, TUNSETOFFLOAD },
	{ SYS_ioctl, 0, "which of the tap's queues are used", 2, ~0ULL, TUNSETQUEUE },
	{ 0 },
};

/* @handed: queues in net.tap, from --tap-fd. */
struct arguments {
	const char *tap;
	const char *stream;
	bool user;
	unsigned int handed;
	struct net_options net;
};

static int take_handed(struct arguments *arguments, const char *value)
{
	arguments->handed = 0;
	do {
		const size_t len = strcspn(value, ",");
		char number[12] = "";
		uint64_t fd;

		if (arguments->handed == NET_PAIRS_MAX || len >= sizeof(number))
			return -EINVAL;
		memcpy(number, value, len);
		if (parse_uint(number, 0, INT32_MAX, &fd))
			return -EINVAL;
		arguments->net.tap[arguments->handed++] = fd;
		value += len;
	} while (*value++);
	return 0;
}

/* Six pairs of hexadecimal digits; of one machine, not of a group. */
static int take_mac(struct net_options *net, const char *value)
{
	uint8_t *mac = net->mac;

	if (strlen(value) != 17 || strspn(value, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5]) != ETH_ALEN || mac[0] & 1)
		return -EINVAL;
	net->has_mac = true;
	return 0;
}

static int take_number(const char *value, uint64_t min, uint64_t max, uint64_t *ret)
{
	return parse_uint(value, min, max, ret) ? -EINVAL : 0;
}

static int take_bytes(const char *value, uint64_t *ret)
{
	return parse_size(value, 1, UINT64_MAX, ret) ? -EINVAL : 0;
}

static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;
	struct net_options *net = &arguments->net;
	uint64_t number = 0;
	int err = 0;

	switch (option) {
	case NET_TAP:
		arguments->tap = value;
		break;
	case NET_TAP_FD:
		return take_handed(arguments, value);
	case NET_STREAM:
		arguments->stream = value;
		break;
	case NET_USER:
		arguments->user = true;
		break;
	case NET_QUEUES:
		err = take_number(value, 1, NET_PAIRS_MAX, &number);
		net->pairs = number;
		break;
	case NET_MAC:
		return take_mac(net, value);
	case NET_MTU:
		err = take_number(value, NET_MTU_MIN, NET_MTU_MAX, &number);
		net->mtu = number;
		break;
	case NET_RX_BYTES:
		return take_bytes(value, &net->bytes_per_second[NET_RECEIVED]);
	case NET_RX_FRAMES:
		return take_number(value, 1, UINT64_MAX, &net->frames_per_second[NET_RECEIVED]);
	case NET_TX_BYTES:
		return take_bytes(value, &net->bytes_per_second[NET_SENT]);
	case NET_TX_FRAMES:
		return take_number(value, 1, UINT64_MAX, &net->frames_per_second[NET_SENT]);
	}
	return err;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (!!arguments->tap + !!arguments->handed + !!arguments->stream + arguments->user != 1) {
		log_error("it takes one of --tap, --tap-fd, --stream and --user: see --help");
		return -EINVAL;
	}
	if ((arguments->stream || arguments->user) && arguments->net.pairs > 1) {
		log_error("a stream has one pair of queues");
		return -EINVAL;
	}
	if (arguments->handed && arguments->net.pairs && arguments->net.pairs != arguments->handed) {
		log_error("--queues is not the number of descriptors in --tap-fd");
		return -EINVAL;
	}
	return 0;
}

static const char *open_hint(int err)
{
	switch (err) {
	case -EBUSY:
		return "; another process has it";
	case -EPERM:
		return "; it is not this user's";
	case -EINVAL:
		return "; it is no tap, or one of a single queue";
	}
	return "";
}

static int open_tap(struct arguments *arguments)
{
	struct net_options *net = &arguments->net;

	if (!net->pairs)
		net->pairs = 1;
	for (unsigned int i = 0; i < net->pairs; i++) {
		net->tap[i] = tap_open(arguments->tap, net->pairs > 1);
		if (net->tap[i] >= 0)
			continue;
		log_error("cannot open tap %s: %s%s", arguments->tap, strerror(-net->tap[i]),
			  open_hint(net->tap[i]));
		return net->tap[i];
	}
	return 0;
}

static int adopt_taps(struct arguments *arguments)
{
	struct net_options *net = &arguments->net;

	net->pairs = arguments->handed;
	for (unsigned int i = 0; i < net->pairs; i++) {
		int err = tap_adopt(net->tap[i]);

		if (!err)
			continue;
		log_error("descriptor %d is no tap with IFF_NO_PI and IFF_VNET_HDR: %s",
			  net->tap[i], strerror(-err));
		return err;
	}
	return 0;
}

/*
 * Who started this process may start another one, which gets another stream. It ends in order: no request of the
 * guest's is to blame.
 */
static void stream_gone(void)
{
	log_error("the other end of the stream is gone");
	_exit(0);
}

static int open_stream(struct arguments *arguments)
{
	struct net_options *net = &arguments->net;
	const char *path = arguments->stream;
	int fd;

	if (arguments->user)
		fd = passt_start();
	else
		fd = fd_number(path) < 0 ? fd_connect(path) : fd_open(path, O_RDWR);
	if (fd < 0) {
		log_error("cannot %s %s: %s", path ? "connect to" : "start", path ? path : "passt", strerror(-fd));
		return fd;
	}
	fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
	net->tap[0] = fd;
	net->pairs = 1;
	net->stream = true;
	net->gone = stream_gone;
	return 0;
}

static int open_network(struct arguments *arguments)
{
	if (arguments->tap)
		return open_tap(arguments);
	return arguments->handed ? adopt_taps(arguments) : open_stream(arguments);
}

static int open_device(void *from, struct device **ret)
{
	struct arguments *arguments = from;
	int err = open_network(arguments);

	if (err)
		return err;
	err = net_create(&arguments->net, ret);
	if (err)
		log_error("cannot make a network device: %s", strerror(-err));
	return err;
}

static int say_counts(struct device *dev)
{
	static const char *const names[NET_DIRECTIONS] = { "received", "sent" };

	for (unsigned int i = 0; i < NET_DIRECTIONS; i++) {
		const struct net_counts counts = net_counts(dev, i);

		log_error("the guest has %s %llu frames of %llu bytes; %llu were dropped", names[i],
			  (unsigned long long)counts.frames, (unsigned long long)counts.bytes,
			  (unsigned long long)counts.dropped);
	}
	return 0;
}

static const struct program program = {
	.name = "moat-net", .help = help, .notes = notes, .options = options,
	.take = take_option, .check = check_options, .open = open_device,
	.refresh = say_counts, .calls = net_calls,
};

int main(int argc, char **argv)
{
	struct arguments arguments = { 0 };

	return program_main(&program, &arguments, argc, argv);
}
