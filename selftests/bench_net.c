// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Both ends of a network: process 1 of a guest, which switches the machine off at its end, and `serve` in
 * the host (`tap NAME [many]` makes the tap, for one queue or many). Each stretch is between the two marks that
 * scripts/bench-count.c counts from and to; what comes before it, of the same kind, has all warm.
 * scripts/bench-devices has the names of the stretches, in the same order.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>

#include "selftests/vhost/guest.h"
#include "selftests/vhost/net.h"

#define PIECE	65536

/* The guest says what is to come: so many bytes one way or the other, or bytes to be sent back. */
struct order {
	uint32_t what;
	uint32_t count;
};

enum { GUEST_SENDS, HOST_SENDS, BACK_AND_FORTH, KINDS };

static const struct order stretches[KINDS] = {
	{ GUEST_SENDS, 16 << 20 }, { HOST_SENDS, 16 << 20 }, { BACK_AND_FORTH, 1000 },
};

static char piece[PIECE];

static bool give(int fd, uint32_t bytes)
{
	while (bytes) {
		ssize_t n = send(fd, piece, bytes < PIECE ? bytes : PIECE, 0);

		if (n <= 0)
			return false;
		bytes -= n;
	}
	return true;
}

static bool take(int fd, uint32_t bytes)
{
	while (bytes) {
		ssize_t n = recv(fd, piece, bytes < PIECE ? bytes : PIECE, 0);

		if (n <= 0)
			return false;
		bytes -= n;
	}
	return true;
}

/* @first: the one who begins. */
static bool play(int fd, const struct order *order, bool guest)
{
	bool good = true;

	if (order->what != BACK_AND_FORTH)
		return (order->what == GUEST_SENDS) == guest ? give(fd, order->count) :
							       take(fd, order->count);
	for (uint32_t i = 0; i < order->count && good; i++)
		good = guest ? give(fd, 1) && take(fd, 1) : take(fd, 1) && give(fd, 1);
	return good;
}

static int serve(void)
{
	int on = 1, fd = accept(net_listen(), NULL, NULL);
	struct order order;
	char end = 0;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while (recv(fd, &order, sizeof(order), MSG_WAITALL) == sizeof(order))
		if (!play(fd, &order, false) || send(fd, &end, 1, 0) != 1)
			return 1;
	return 0;
}

/* The other end says that it has all, too. */
static bool run(int fd, const struct order *order)
{
	return send(fd, order, sizeof(*order), 0) == sizeof(*order) && play(fd, order, true) &&
	       take(fd, 1);
}

static void measure(int fd)
{
	for (unsigned int i = 0; i < KINDS; i++) {
		const struct order warm = { stretches[i].what, stretches[i].count / 8 };

		if (!run(fd, &warm))
			return;
		__asm__ volatile("nopl 0x54414f4d(%rax,%rax)");
		if (!run(fd, &stretches[i]))
			return;
		__asm__ volatile("nopl 0x54414f4e(%rax,%rax)");
		printf("stretch %u done\n", i);
	}
}

int main(int argc, char **argv)
{
	int on = 1, fd;

	if (argc > 1 && !strcmp(argv[1], "serve"))
		return serve();
	if (argc > 2 && !strcmp(argv[1], "tap"))
		return net_tap_make(argv[2], argc > 3);
	guest_begin();
	net_guest_begin();
	fd = net_connect();
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	measure(fd);
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 0;
}
