/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What all device programs have in common: the command line, and serving what it describes. */
#ifndef DEVMODEL_VHOST_USER_PROGRAM_H
#define DEVMODEL_VHOST_USER_PROGRAM_H

#include <getopt.h>

struct device;
struct sandbox;
struct sandbox_call;

/**
 * struct program - a program that serves one device
 * @name: as "moat-blk"
 * @help: how it is called, and the options of its own; those of all programs follow
 * @notes: what else there is to say, behind them. May be NULL
 * @options: of its own, at most 24, with values from 1 to 255, and an empty one at the end; or NULL
 * @take: notes such an option; -EINVAL for a value that is none. Not called where there are none
 * @check: do the options make sense together? Says so where not, and returns -EINVAL. May be NULL
 * @open: makes the device, with all the rights that the caller has. Says what failed, and returns
 *	a negative errno
 * @refresh: as server_run() wants it
 * @calls: the system calls that the device makes beside those of the server. May be NULL
 * @confine: sets what else of the sandbox depends on the options. May be NULL
 */
struct program {
	const char *name;
	const char *help;
	const char *notes;
	const struct option *options;
	int (*take)(void *arguments, int option, const char *value);
	int (*check)(const void *arguments);
	int (*open)(void *arguments, struct device **ret);
	int (*refresh)(struct device *dev);
	const struct sandbox_call *calls;
	void (*confine)(void *arguments, struct sandbox *sandbox);
};

/**
 * program_main - main() of such a program
 * @arguments: what its functions keep the options in
 *
 * Return: the exit status: 2 for a command line that is none, 1 where it cannot serve.
 */
int program_main(const struct program *program, void *arguments, int argc, char **argv);

#endif /* DEVMODEL_VHOST_USER_PROGRAM_H */
