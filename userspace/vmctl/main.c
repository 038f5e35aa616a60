// SPDX-License-Identifier: MIT OR GPL-2.0
/* vmctl: the command for people. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "moat/version.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/run.h"

static int help_main(int argc, char **argv);
static int version_main(int argc, char **argv);

static const struct command {
	const char *name;
	const char *what;
	int (*main)(int argc, char **argv);
} commands[] = {
	{ "run",	"start a machine, or a program in one, and stay until it ends", run_main },
	{ "help",	"this text; vmctl help COMMAND tells of one", help_main },
	{ "version",	"the version of vmctl", version_main },
};

static const struct command *command_find(const char *name)
{
	/* As other programs have it. */
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version"))
		name = "version";
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	log_error("%s: no such command; see vmctl help", name);
	return NULL;
}

static int help_main(int argc, char **argv)
{
	char *help[] = { argv[argc - 1], (char *)"--help", NULL };
	const struct command *of = argc > 1 ? command_find(argv[1]) : NULL;

	if (argc > 1 && !of)
		return STATUS_FAILED;
	if (of && of->main == run_main)
		return of->main(2, help);
	printf("Usage: vmctl COMMAND [ARG]...\nRun virtual machines on Moat.\n\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		printf("  %-10s %s\n", commands[i].name, commands[i].what);
	return 0;
}

static int version_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("vmctl " MOAT_VERSION);
	return 0;
}

/* Else what is opened next would be taken for one of the three. */
static int main_open_missing(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -1;
	return close(fd);
}

int main(int argc, char **argv)
{
	const struct command *command;

	if (main_open_missing())
		return STATUS_FAILED;
	log_name("vmctl", NULL);
	if (argc < 2) {
		log_error("no command; see vmctl help");
		return STATUS_FAILED;
	}
	command = command_find(argv[1]);
	return command ? command->main(argc - 1, argv + 1) : STATUS_FAILED;
}
