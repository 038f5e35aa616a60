// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-console: a console for one machine, by the vhost-user protocol. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "devmodel/console/console.h"
#include "devmodel/vhost_user/program.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"

static const char help[] =
"Usage: moat-console --console PATH[,PATH] { --socket PATH | --fd N } [OPTION]...\n"
"Serve a terminal, or two ends of pipes, as a virtio console to a front end of vhost-user.\n"
"\n"
"  --console PATH[,PATH]   what the guest reads comes from the first, what it writes goes to the\n"
"                          last; /proc/self/fd/N: as handed over\n";

enum { CONSOLE_CONSOLE = 1 };

static const struct option options[] = {
	{ "console", required_argument, NULL, CONSOLE_CONSOLE },
	{ 0 },
};

static const struct sandbox_call console_calls[] = {
	{ SYS_readv, 0, "input", 0, 0, 0 },
	{ SYS_writev, 0, "output", 0, 0, 0 },
	{ 0 },
};

/* @out: NULL: the same as @in. */
struct arguments {
	const char *in;
	const char *out;
};

static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;
	char *comma = strchr(value, ',');

	(void)option;
	arguments->in = value;
	arguments->out = NULL;
	if (comma) {
		*comma = '\0';
		arguments->out = comma + 1;
	}
	return 0;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (arguments->in)
		return 0;
	log_error("it takes --console: see --help");
	return -EINVAL;
}

/* Return: a descriptor, or a negative errno, which has been said. */
static int open_end(const char *path, int flags)
{
	int fd = fd_open(path, flags | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		log_error("cannot open %s: %s", path, strerror(-fd));
	return fd;
}

static int open_device(void *from, struct device **ret)
{
	const struct arguments *arguments = from;
	int in = open_end(arguments->in, arguments->out ? O_RDONLY : O_RDWR);
	int out = in >= 0 && arguments->out ? open_end(arguments->out, O_WRONLY) : in;
	int err;

	if (out < 0)
		return out;
	err = console_create(in, out, ret);
	if (err)
		log_error("cannot make a console: %s", strerror(-err));
	return err;
}

static const struct program program = {
	.name = "moat-console", .help = help, .options = options, .take = take_option,
	.check = check_options, .open = open_device, .calls = console_calls,
};

int main(int argc, char **argv)
{
	struct arguments arguments = { 0 };

	return program_main(&program, &arguments, argc, argv);
}
