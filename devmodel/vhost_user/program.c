// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devmodel/vhost_user/program.h"
#include "devmodel/vhost_user/server.h"
#include "userspace/lib/array.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"

#define PROGRAM_OPTIONS_MAX	32

/* Beside the values that a program's own options have. */
enum { PROGRAM_SOCKET = 0x100, PROGRAM_FD, PROGRAM_ONCE, PROGRAM_UID, PROGRAM_GID, PROGRAM_HELP };

static const struct option program_options[] = {
	{ "socket", required_argument, NULL, PROGRAM_SOCKET },
	{ "fd", required_argument, NULL, PROGRAM_FD },
	{ "once", no_argument, NULL, PROGRAM_ONCE },
	{ "uid", required_argument, NULL, PROGRAM_UID },
	{ "gid", required_argument, NULL, PROGRAM_GID },
	{ "help", no_argument, NULL, PROGRAM_HELP },
};

static const char program_help[] =
"  --socket PATH           listen there for front ends, one at a time\n"
"  --fd N                  the same on a socket that was handed over, listening or connected\n"
"  --once                  end when the first front end does\n"
"  --uid N, --gid N        serve as that user and group; by default the caller's\n"
"  --help                  this text\n";

static int take_number(const char *value, uint64_t max, uint64_t *ret_number)
{
	return parse_uint(value, 0, max, ret_number) ? -EINVAL : 0;
}

/* 0; -EINVAL for a value that is none. */
static int take_option(struct server_options *options, int option, const char *value)
{
	uint64_t number = 0;
	int err = 0;

	switch (option) {
	case PROGRAM_SOCKET:
		options->socket = value;
		break;
	case PROGRAM_FD:
		err = take_number(value, INT32_MAX, &number);
		options->fd = number;
		break;
	case PROGRAM_ONCE:
		options->once = true;
		break;
	case PROGRAM_UID:
		err = take_number(value, UINT32_MAX - 1, &number);
		options->sandbox.uid = number;
		break;
	case PROGRAM_GID:
		err = take_number(value, UINT32_MAX - 1, &number);
		options->sandbox.gid = number;
		break;
	}
	return err;
}

static int check_options(const struct server_options *options)
{
	if (!options->socket == (options->fd < 0)) {
		log_error("it takes one of --socket and --fd: see --help");
		return -EINVAL;
	}
	if ((options->sandbox.uid == (uid_t)-1) != (options->sandbox.gid == (gid_t)-1)) {
		log_error("--uid and --gid go together");
		return -EINVAL;
	}
	return 0;
}

/* The program's options, and those of all programs. */
static void join_options(const struct program *program, struct option *ret_options)
{
	for (const struct option *own = program->options; own && own->name; own++)
		*ret_options++ = *own;
	memcpy(ret_options, program_options, sizeof(program_options));
	ret_options[ARRAY_SIZE(program_options)] = (struct option){ 0 };
}

static void say_help(const struct program *program)
{
	fputs(program->help, stdout);
	fputs(program_help, stdout);
	if (program->notes)
		printf("\n%s", program->notes);
}

/* 0; 1 where the help was all; -EINVAL. */
static int take_options(const struct program *program, void *arguments,
			struct server_options *server, int argc, char **argv)
{
	struct option options[PROGRAM_OPTIONS_MAX];
	int index, option, err;

	join_options(program, options);
	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (option == PROGRAM_HELP) {
			say_help(program);
			return 1;
		}
		if (option == '?')
			return -EINVAL;
		err = option < PROGRAM_SOCKET ? program->take(arguments, option, optarg) :
						take_option(server, option, optarg);
		if (err) {
			log_error("--%s cannot be %s", options[index].name, optarg);
			return -EINVAL;
		}
	}
	if (optind != argc) {
		log_error("it takes nothing but options: see --help");
		return -EINVAL;
	}
	err = program->check ? program->check(arguments) : 0;
	return err ? err : check_options(server);
}

int program_main(const struct program *program, void *arguments, int argc, char **argv)
{
	struct server_options server = { .fd = -1, .sandbox = { .uid = -1, .gid = -1 } };
	struct device *dev;
	int err;

	log_name(program->name, NULL);
	err = take_options(program, arguments, &server, argc, argv);
	if (err)
		return err > 0 ? 0 : 2;
	if (program->open(arguments, &dev))
		return 1;
	if (program->calls)
		sandbox_allow(&server.sandbox, program->calls);
	if (program->confine)
		program->confine(arguments, &server.sandbox);
	return server_run(&server, dev, program->refresh);
}
