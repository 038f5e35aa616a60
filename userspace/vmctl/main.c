// SPDX-License-Identifier: MIT OR GPL-2.0
/* vmctl: the command for people. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "moat/version.h"
#include "userspace/lib/array.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/command.h"
#include "userspace/vmctl/run.h"


static int complete_main(int argc, char **argv);
static int help_main(int argc, char **argv);
static int version_main(int argc, char **argv);

static const struct command general_commands[] = {
	{ "run", "start a machine, or a program in one, and stay until it ends", NULL, run_main },
	{ "help", "this text; vmctl help COMMAND tells of one", "[COMMAND]", help_main },
	{ "complete", "what may be the last WORD of such a command line, for shells", "WORD...", complete_main },
	{ "version", "the version of vmctl", "", version_main },
	{ 0 },
};

static const struct {
	const char *title;
	const struct command *commands;
} groups[] = {
	{ "Programs", general_commands },
	{ "Machines of moatd's", machine_commands },
	{ "Looking at them", watch_commands },
	{ "What they are made of", host_commands },
};

static const struct command *command_find(const char *name)
{
	/* As other programs have it. */
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version"))
		name = "version";
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		for (const struct command *command = groups[i].commands; command->name; command++)
			if (!strcmp(command->name, name))
				return command;
	log_error("%s: no such command; see vmctl help", name);
	return NULL;
}

const struct command host_commands[] = {
	{ "network", "networks: list, info, create, edit, delete, forward; vmctl network tells more", NULL, network_main },
	{ "disk", "disks: list, create, resize, snapshots, delete; vmctl disk tells more", NULL, disk_main },
	{ 0 },
};

static void commands_print(const struct command *commands)
{
	for (; commands->name; commands++)
		printf("  %-12s %s\n", commands->name, commands->what);
}

int command_run(const char *name, const struct command *commands, int argc, char **argv)
{
	const struct command *command = commands;

	if (argc < 2 || !strcmp(argv[1], "--help")) {
		printf("Usage: vmctl %s COMMAND [ARG]...\n\n", name);
		for (; command->name; command++)
			printf("  %s %s\n        %s\n", command->name, command->usage, command->what);
		return argc < 2 ? STATUS_USAGE : 0;
	}
	while (command->name && strcmp(command->name, argv[1]))
		command++;
	if (command->name) {
		const int status = command->main(argc - 1, argv + 1);

		if (status == STATUS_USAGE)
			fprintf(stderr, "Usage: vmctl %s %s %s\n", name, command->name, command->usage);
		return status;
	}
	log_error("%s %s: no such command; see vmctl %s", name, argv[1], name);
	return STATUS_USAGE;
}

int command_usage(const char *name)
{
	const struct command *command = command_find(name);

	fprintf(stderr, "Usage: vmctl %s %s\n", name, command ? command->usage : "");
	return STATUS_USAGE;
}

static int help_main(int argc, char **argv)
{
	char *help[] = { argv[argc - 1], (char *)"--help", NULL };
	const struct command *of = argc > 1 ? command_find(argv[1]) : NULL;

	if (argc > 1 && !of)
		return STATUS_FAILED;
	if (of && !of->usage)
		return of->main(2, help);
	if (of) {
		printf("Usage: vmctl %s %s\n", of->name, of->usage);
		return 0;
	}
	printf("Usage: vmctl COMMAND [ARG]...\nRun virtual machines on Moat.\n");
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		printf("\n%s\n", groups[i].title);
		commands_print(groups[i].commands);
	}
	printf("\nWhat asks moatd exits with 0 when it is done, %d where it was refused, %d for a command line that\n"
	       "is none, %d where moatd cannot be reached. MOAT_SOCKET is where it listens, if not at /run/moat/control.\n",
	       STATUS_REFUSED, STATUS_USAGE, STATUS_NO_MOATD);
	return 0;
}

/* Behind "--" it is a command of the guest's. */
static int complete_main(int argc, char **argv)
{
	const struct command *tables[ARRAY_SIZE(groups) + 1] = { NULL };

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		tables[i] = groups[i].commands;
	for (int i = 1; i < argc - 1; i++)
		if (!strcmp(argv[i], "--"))
			return 0;
	if (argc > 1)
		complete(tables, argv + 1, argc - 1);
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
