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
"Usage: moat-console { --console PATH[,PATH] | --port NAME,PATH[,PATH] }...\n"
"                    { --socket PATH | --fd N } [OPTION]...\n"
"Serve terminals, or ends of sockets and pipes, as ports of a virtio console to a front end of\n"
"vhost-user.\n"
"\n"
"  --console PATH[,PATH]   a terminal of the guest's: what it reads comes from the first, what it\n"
"                          writes goes to the last; /proc/self/fd/N: as handed over\n"
"  --port NAME,PATH[,PATH] a port that programs of the guest find by its name; 8 in all\n";

enum { CONSOLE_CONSOLE = 1, CONSOLE_PORT };

static const struct option options[] = {
	{ "console", required_argument, NULL, CONSOLE_CONSOLE },
	{ "port", required_argument, NULL, CONSOLE_PORT },
	{ 0 },
};

static const struct sandbox_call console_calls[] = {
	{ SYS_readv, 0, "input", 0, 0, 0 },
	{ SYS_writev, 0, "output", 0, 0, 0 },
	{ 0 },
};

struct arguments {
	unsigned int ports;
	struct argument {
		const char *name;
		const char *in;
		const char *out;
	} port[CONSOLE_PORTS_MAX];
};

/* What is before a comma; behind that @value goes on, or is NULL where there is none. */
static const char *take_word(char **value)
{
	const char *word = *value;
	char *comma = strchr(word, ',');

	if (comma)
		*comma++ = '\0';
	*value = comma;
	return word;
}

/* @value is the program's own, and is cut to pieces. */
static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;
	struct argument *port = &arguments->port[arguments->ports];
	char *rest = (char *)value;

	if (arguments->ports == CONSOLE_PORTS_MAX)
		return -EINVAL;
	if (option == CONSOLE_PORT) {
		port->name = take_word(&rest);
		if (!rest || !*port->name || strlen(port->name) > CONSOLE_NAME_MAX)
			return -EINVAL;
	}
	port->in = take_word(&rest);
	port->out = rest;
	arguments->ports++;
	return 0;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (arguments->ports)
		return 0;
	log_error("it takes --console or --port: see --help");
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

static int open_port(const struct argument *port, struct console_end *ret)
{
	int in = open_end(port->in, port->out ? O_RDONLY : O_RDWR);
	int out = in >= 0 && port->out ? open_end(port->out, O_WRONLY) : in;

	*ret = (struct console_end){ .name = port->name, .in = in, .out = out };
	return out < 0 ? out : 0;
}

static int open_device(void *from, struct device **ret)
{
	const struct arguments *arguments = from;
	struct console_end ends[CONSOLE_PORTS_MAX];
	int err;

	for (unsigned int i = 0; i < arguments->ports; i++) {
		err = open_port(&arguments->port[i], &ends[i]);
		if (err)
			return err;
	}
	err = console_create_ports(ends, arguments->ports, ret);
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
