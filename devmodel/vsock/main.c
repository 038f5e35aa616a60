// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-vsock: stream sockets between one machine and the host, by the vhost-user protocol. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "devmodel/vhost_user/program.h"
#include "devmodel/vsock/vsock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/sandbox.h"

static const char help[] =
"Usage: moat-vsock --cid N --listen PATH { --socket PATH | --fd N } [OPTION]...\n"
"Serve Unix sockets of the host as a virtio socket device, to a front end of vhost-user.\n"
"\n"
"  --cid N                 the guest's context ID, from 3 on\n"
"  --listen PATH           who connects there, says the line \"CONNECT PORT\", and reads \"OK ...\",\n"
"                          is connected to the guest; what the guest connects to on port P of\n"
"                          the host (CID 2) is the socket PATH_P\n";

static const char notes[] =
"The directory of PATH becomes the root of this process: best it has one of its own.\n";

enum { VSOCK_CID = 1, VSOCK_LISTEN };

static const struct option options[] = {
	{ "cid", required_argument, NULL, VSOCK_CID },
	{ "listen", required_argument, NULL, VSOCK_LISTEN },
	{ 0 },
};

static const struct sandbox_call vsock_calls[] = {
	{ SYS_socket, 0, "to programs of the host: Unix sockets,", 1, ~0ULL, AF_UNIX },
	{ SANDBOX_AND, 0, "of streams", 2, ~0ULL, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK },
	{ SYS_connect, 0, "the guest, to what is in the root", 0, 0, 0 },
	{ SYS_readv, 0, "data for the guest", 0, 0, 0 },
	{ SYS_writev, 0, "data from the guest", 0, 0, 0 },
	{ SYS_shutdown, 0, "one direction has ended", 0, 0, 0 },
	{ SYS_epoll_ctl, 0, "one more socket to wait for", 0, 0, 0 },
	{ SYS_epoll_wait, 0, "what has happened at sockets", 0, 0, 0 },
	{ 0 },
};

/* @tree: the directory of @listen. */
struct arguments {
	uint64_t cid;
	const char *listen;
	char directory[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct sandbox_tree tree;
};

static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;

	if (option == VSOCK_CID)
		return parse_uint(value, VSOCK_CID_MIN, VSOCK_CID_MAX, &arguments->cid) ? -EINVAL :
											   0;
	arguments->listen = value;
	return 0;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (arguments->cid && arguments->listen)
		return 0;
	log_error("it takes --cid and --listen: see --help");
	return -EINVAL;
}

static int open_device(void *from, struct device **ret)
{
	struct arguments *arguments = from;
	const char *slash = strrchr(arguments->listen, '/');
	char seen[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int listener = fd_listen(arguments->listen, SOMAXCONN);
	int err = listener;

	if (listener >= 0) {
		snprintf(seen, sizeof(seen), "/%s", slash ? slash + 1 : arguments->listen);
		err = vsock_create(arguments->cid, seen, listener, ret);
	}
	if (err)
		log_error("cannot listen at %s: %s", arguments->listen, strerror(-err));
	return err;
}

/* Without a network there are no Unix sockets either but those that have a path. */
static void confine(void *from, struct sandbox *sandbox)
{
	struct arguments *arguments = from;

	arguments->tree.path = dirname(strcpy(arguments->directory, arguments->listen));
	sandbox->tree = &arguments->tree;
	sandbox->no_network = true;
}

static const struct program program = {
	.name = "moat-vsock", .help = help, .notes = notes, .options = options,
	.take = take_option, .check = check_options, .open = open_device,
	.calls = vsock_calls, .confine = confine,
};

int main(int argc, char **argv)
{
	struct arguments arguments = { 0 };

	return program_main(&program, &arguments, argc, argv);
}
