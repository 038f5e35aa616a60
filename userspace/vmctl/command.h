/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMCTL_COMMAND_H
#define VMCTL_COMMAND_H

/* Exit statuses of what asks moatd; those of vmctl run are in run.h. */
#define STATUS_REFUSED		1	/* moatd, or the host, says no: a line has said why */
#define STATUS_USAGE		2	/* the command line is none */
#define STATUS_NO_MOATD		3	/* it cannot be reached */

/**
 * struct command - a word that vmctl knows
 * @what: of what it does, some words
 * @usage: its arguments; NULL: the command has a help of its own
 * @main: @argv[0] is the word. Return: exit status
 */
struct command {
	const char *name;
	const char *what;
	const char *usage;
	int (*main)(int argc, char **argv);
};

/* Says how it is called, on standard error. Return: STATUS_USAGE. */
int command_usage(const char *name);

/* Tables; a row without a name is the end. */
extern const struct command machine_commands[];
extern const struct command watch_commands[];

#endif /* VMCTL_COMMAND_H */
