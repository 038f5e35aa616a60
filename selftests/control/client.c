// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Who controls a machine, for tests in shell.
 *
 *	client run DIR COMMAND ARGS...	sockets DIR/control and DIR/supervisor, and a file DIR/ended, are made
 *		and become the descriptors 10, 11 and 12 of the command, in whose arguments they can be named
 *	client DIR VERB [ARGUMENT...]	one request; prints what the answer says, and its error's name.
 *		The status is 0 where there is none. The verbs are in client_verbs
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "moat/control.h"

#define STATUS_USAGE	2
#define STATUS_DROPPED	3	/* the connection was closed */
#define ANSWER_MS	60000
#define RUN_FD		10

static const char *directory;

static void fail(const char *what)
{
	fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
	return address;
}

static int seqpacket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	return fd;
}

static int connect_to(const char *name)
{
	struct sockaddr_un address = address_of(name);
	int fd = seqpacket();

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		fail(address.sun_path);
	return fd;
}

/* Running */

static int listen_at(const char *name)
{
	struct sockaddr_un address = address_of(name);
	int fd = seqpacket();

	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16))
		fail(address.sun_path);
	return fd;
}

static int run(char **argv)
{
	char ended[128];
	int fd[3];

	snprintf(ended, sizeof(ended), "%s/ended", directory);
	fd[0] = listen_at("control");
	fd[1] = listen_at("supervisor");
	fd[2] = open(ended, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (int i = 0; i < 3; i++)
		if (dup2(fd[i], RUN_FD + i) < 0)
			fail("dup2");
	execvp(argv[0], argv);
	fail(argv[0]);
	return 1;
}

/* Messages */

static void send_with(int socket, const void *message, size_t len, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { .iov_base = (void *)message, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	if (sendmsg(socket, &msg, MSG_NOSIGNAL) != (ssize_t)len)
		fail("sendmsg");
}

/* The length, 0 at the end; and the descriptor that came along, or -1. */
static size_t receive(int socket, void *message, size_t len, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = message, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct pollfd wait = { .fd = socket, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t n;

	if (poll(&wait, 1, ANSWER_MS) != 1) {
		errno = ETIMEDOUT;
		fail("no answer");
	}
	n = recvmsg(socket, &msg, 0);
	c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	*ret_fd = -1;
	if (c)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	return n < 0 ? 0 : n;
}

static struct control_answer answer_of(int socket)
{
	struct control_answer answer;
	int fd;

	if (receive(socket, &answer, sizeof(answer), &fd) != sizeof(answer)) {
		puts("dropped");
		exit(STATUS_DROPPED);
	}
	return answer;
}

static int said(int error)
{
	puts(error ? strerrorname_np(-error) : "done");
	return error ? 1 : 0;
}

/* Ask for it, and see the answer to it, past events. */
static struct control_answer ask(int socket, struct control_request request, int fd)
{
	struct control_answer answer;

	request.serial = 7;
	send_with(socket, &request, sizeof(request), fd);
	do
		answer = answer_of(socket);
	while (answer.what >= CONTROL_DETACHED);
	if (answer.what != request.what || answer.serial != request.serial) {
		puts("another answer");
		exit(1);
	}
	return answer;
}

/* Verbs */

static int verb_plain(int socket, uint32_t what, char **argv)
{
	struct control_request request = { .what = what };

	if (what == CONTROL_BALLOON)
		request.value = strtoull(argv[0], NULL, 0);
	if (what == CONTROL_DETACH)
		snprintf(request.name, sizeof(request.name), "%s", argv[0]);
	return said(ask(socket, request, -1).error);
}

static int verb_info(int socket, uint32_t what, char **argv)
{
	const struct control_answer answer =
		ask(socket, (struct control_request){ .what = what }, -1);
	const struct control_info *info = &answer.info;

	(void)argv;
	printf("pid %u paused %u cpus %u devices %u memory %" PRIu64 " balloon %" PRIu64
	       " wanted %" PRIu64 " has %u\n", info->pid, info->paused, info->cpus, info->devices,
	       info->memory, info->balloon, info->balloon_wanted, info->has_balloon);
	return said(answer.error);
}

static int verb_stats(int socket, uint32_t what, char **argv)
{
	const struct control_answer answer =
		ask(socket, (struct control_request){ .what = what }, -1);
	const struct control_stats *stats = &answer.stats;

	(void)argv;
	printf("exits %" PRIu64 " user %" PRIu64 " halts %" PRIu64 " interrupts %" PRIu64
	       " faults %" PRIu64 " disk %" PRIu64 " %" PRIu64 " net %" PRIu64 " %" PRIu64
	       " restarts %" PRIu64 "\n", stats->exits, stats->exits_user, stats->halts,
	       stats->interrupts, stats->faults, stats->disk_requests, stats->disk_bytes,
	       stats->net_requests, stats->net_bytes, stats->restarts);
	return said(answer.error);
}

/* dump FILE */
static int verb_dump(int socket, uint32_t what, char **argv)
{
	int fd = open(argv[0], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		fail(argv[0]);
	return said(ask(socket, (struct control_request){ .what = what }, fd).error);
}

/* Of a console, what comes is printed, and what is typed is sent, until that ends for a while. */
static int verb_console(int socket, uint32_t what, char **argv)
{
	const int linger = atoi(argv[0]);
	struct pollfd wait[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	char piece[4096];
	int ends[2], error;
	ssize_t n;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		fail("socketpair");
	error = ask(socket, (struct control_request){ .what = what }, ends[1]).error;
	if (error)
		return said(error);
	close(ends[1]);
	wait[1].fd = ends[0];
	while (poll(wait, 2, linger) > 0) {
		if (wait[1].revents) {
			n = read(ends[0], piece, sizeof(piece));
			if (n <= 0)
				break;
			fwrite(piece, 1, n, stdout);
			fflush(stdout);
		}
		if (wait[0].revents) {
			n = read(0, piece, sizeof(piece));
			if (n <= 0)
				wait[0].fd = -1;
			else if (write(ends[0], piece, n) != n)
				break;
		}
	}
	return 0;
}

/* guest TEXT MARK SECONDS: have it typed, and print what the port says until the mark is there. */
static int verb_guest(int socket, uint32_t what, char **argv)
{
	static char said_so_far[1 << 20];
	struct pollfd wait = { .events = POLLIN };
	size_t count = 0;
	int ends[2];
	ssize_t n;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		fail("socketpair");
	if (ask(socket, (struct control_request){ .what = what }, ends[1]).error)
		return 1;
	close(ends[1]);
	wait.fd = ends[0];
	if (*argv[0] && dprintf(ends[0], "%s\n", argv[0]) < 0)
		fail("typing");
	while (poll(&wait, 1, atoi(argv[2]) * 1000) == 1 && count < sizeof(said_so_far) - 1) {
		n = read(ends[0], said_so_far + count, sizeof(said_so_far) - 1 - count);
		if (n <= 0)
			break;
		fwrite(said_so_far + count, 1, n, stdout);
		count += n;
		said_so_far[count] = '\0';
		if (strstr(said_so_far, argv[1]))
			return 0;
	}
	return 1;
}

static int open_tap(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		fail(name);
	return fd;
}

/* attach TYPE NAME FILE FLAGS ISOLATION [MAC-OR-TAG] */
static int verb_attach(int socket, uint32_t what, char **argv)
{
	struct control_request request = { .what = what, .isolation = atoi(argv[4]) };
	struct supervisor_add add = { .flags = atoi(argv[3]) };
	struct supervisor_added added;
	int supervisor = connect_to("supervisor"), fd, link;

	if (!strcmp(argv[0], "net"))
		fd = open_tap(argv[2]);
	else
		fd = open(argv[2], O_CLOEXEC | (add.flags & SUPERVISOR_ADD_READ_ONLY ||
						!strcmp(argv[0], "fs") ? O_RDONLY : O_RDWR));
	if (fd < 0)
		fail(argv[2]);
	snprintf(add.type, sizeof(add.type), "%s", argv[0]);
	snprintf(request.type, sizeof(request.type), "%s", argv[0]);
	snprintf(request.name, sizeof(request.name), "%s", argv[1]);
	if (argv[5])
		snprintf(strcmp(argv[0], "fs") ? add.mac : add.tag, sizeof(add.mac), "%s", argv[5]);
	send_with(supervisor, &add, sizeof(add), fd);
	if (receive(supervisor, &added, sizeof(added), &link) != sizeof(added)) {
		puts("dropped by the supervisor");
		return STATUS_DROPPED;
	}
	if (added.error) {
		printf("supervisor: %s\n", strerrorname_np(-added.error));
		return 1;
	}
	return said(ask(socket, request, link).error);
}

/* event SECONDS: wait for one, and print it. */
static int verb_event(int socket, uint32_t what, char **argv)
{
	struct pollfd wait = { .fd = socket, .events = POLLIN };
	struct control_answer event;

	(void)what;
	if (poll(&wait, 1, atoi(argv[0]) * 1000) != 1) {
		puts("none");
		return 1;
	}
	event = answer_of(socket);
	printf("%s %s\n", event.what == CONTROL_DETACHED ? "detached" :
	       event.what == CONTROL_RESTARTED ? "restarted" : "?", event.name);
	return 0;
}

/* detached NAME SECONDS: ask for it, and see it go. */
static int verb_detached(int socket, uint32_t what, char **argv)
{
	char *seconds[] = { argv[1] };
	int status = verb_plain(socket, what, argv);

	return status ? status : verb_event(socket, what, seconds);
}

/* raw LENGTH WHAT DESCRIPTORS: a message that need be none, and what comes of it. */
static int verb_raw(int socket, uint32_t what, char **argv)
{
	char message[1024] = { 0 };

	what = atoi(argv[1]);
	memcpy(message, &what, sizeof(what));
	send_with(socket, message, atoi(argv[0]), atoi(argv[2]) ? 0 : -1);
	return said(answer_of(socket).error);
}

/* flood SECONDS: requests, and no answer is ever taken; until it is dropped. */
static int verb_flood(int socket, uint32_t what, char **argv)
{
	const struct control_request request = { .what = CONTROL_INFO };
	struct pollfd wait = { .fd = socket, .events = POLLOUT };

	(void)what;
	while (poll(&wait, 1, atoi(argv[0]) * 1000) == 1 && !(wait.revents & POLLHUP))
		if (send(socket, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
		    errno != EAGAIN)
			break;
	puts(wait.revents & POLLHUP || errno == EPIPE ? "dropped" : "stuck");
	return 0;
}

static const struct {
	const char *name;
	int arguments;
	uint32_t what;
	int (*act)(int socket, uint32_t what, char **argv);
} client_verbs[] = {
	{ "info",	0, CONTROL_INFO,	verb_info },
	{ "stats",	0, CONTROL_STATS,	verb_stats },
	{ "button",	0, CONTROL_BUTTON,	verb_plain },
	{ "pause",	0, CONTROL_PAUSE,	verb_plain },
	{ "resume",	0, CONTROL_RESUME,	verb_plain },
	{ "stop",	0, CONTROL_STOP,	verb_plain },
	{ "balloon",	1, CONTROL_BALLOON,	verb_plain },
	{ "detach",	1, CONTROL_DETACH,	verb_plain },
	{ "dump",	1, CONTROL_DUMP,	verb_dump },
	{ "console",	1, CONTROL_CONSOLE,	verb_console },
	{ "guest",	3, CONTROL_CONSOLE,	verb_guest },
	{ "attach",	5, CONTROL_ATTACH,	verb_attach },
	{ "detached",	2, CONTROL_DETACH,	verb_detached },
	{ "event",	1, 0,			verb_event },
	{ "raw",	3, 0,			verb_raw },
	{ "flood",	1, 0,			verb_flood },
};

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "run")) {
		directory = argv[2];
		return run(argv + 3);
	}
	for (size_t i = 0; argc > 2 && i < sizeof(client_verbs) / sizeof(client_verbs[0]); i++)
		if (!strcmp(argv[2], client_verbs[i].name) &&
		    argc - 3 >= client_verbs[i].arguments) {
			directory = argv[1];
			return client_verbs[i].act(connect_to("control"), client_verbs[i].what,
						   argv + 3);
		}
	fprintf(stderr, "client: DIR VERB [ARGUMENT...]\n");
	return STATUS_USAGE;
}
