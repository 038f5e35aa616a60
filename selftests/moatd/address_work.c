// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Who reaches whom, under which address.
 *
 *	address_work serve NAME PORT		tells who asks, by TCP or UDP: NAME, and its address
 *	address_work ask tcp|udp ADDRESS PORT	prints the answer; within two seconds, or not
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS	2000

static struct sockaddr_in address_take(const char *address, const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };

	inet_pton(AF_INET, address, &to.sin_addr);
	return to;
}

static int listen_on(int type, const char *port)
{
	const struct sockaddr_in any = address_take("0.0.0.0", port);
	int fd = socket(AF_INET, type, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, (const struct sockaddr *)&any, sizeof(any)) && (type == SOCK_DGRAM || !listen(fd, 8)))
		return fd;
	perror("listen");
	exit(1);
}

static void answer(int fd, const char *name, const struct sockaddr_in *to, int connected)
{
	char text[100];
	const int len = snprintf(text, sizeof(text), "%s %s\n", name, inet_ntoa(to->sin_addr));

	if (sendto(fd, text, len, MSG_NOSIGNAL, connected ? NULL : (const struct sockaddr *)to,
		   connected ? 0 : sizeof(*to)) != len)
		perror("send");
}

static int serve(const char *name, const char *port)
{
	struct pollfd in[] = {
		{ .fd = listen_on(SOCK_STREAM, port), .events = POLLIN },
		{ .fd = listen_on(SOCK_DGRAM, port), .events = POLLIN },
	};

	while (poll(in, 2, -1) > 0) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		char byte;

		if (in[0].revents) {
			int fd = accept(in[0].fd, (struct sockaddr *)&from, &len);

			answer(fd, name, &from, 1);
			close(fd);
		} else if (recvfrom(in[1].fd, &byte, 1, 0, (struct sockaddr *)&from, &len) >= 0) {
			answer(in[1].fd, name, &from, 0);
		}
	}
	return 1;
}

static int ask(int type, const char *address, const char *port)
{
	const struct timeval patience = { .tv_usec = PATIENCE_MS % 1000 * 1000, .tv_sec = PATIENCE_MS / 1000 };
	const struct sockaddr_in to = address_take(address, port);
	int fd = socket(AF_INET, type, 0);
	char text[100];
	ssize_t len;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) || (type == SOCK_DGRAM && send(fd, "", 1, 0) != 1))
		return 1;
	len = recv(fd, text, sizeof(text), 0);
	return len <= 0 || write(STDOUT_FILENO, text, len) != len;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(argv[2], argv[3]);
	if (argc == 5 && !strcmp(argv[1], "ask"))
		return ask(strcmp(argv[2], "udp") ? SOCK_STREAM : SOCK_DGRAM, argv[3], argv[4]);
	return 2;
}
