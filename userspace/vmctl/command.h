/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMCTL_COMMAND_H
#define VMCTL_COMMAND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

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
extern const struct command host_commands[];

/* vmctl network, vmctl disk. */
extern const struct command network_commands[];
extern const struct command disk_commands[];
int network_main(int argc, char **argv);
int disk_main(int argc, char **argv);

/* Print what may be in the place of the last of @count words, of which the first is one of @groups, NULL at the end. */
void complete(const struct command *const *groups, char **word, int count);

/* Run the word of @commands that argv[1] is; "vmctl @name WORD". Return: exit status. */
int command_run(const char *name, const struct command *commands, int argc, char **argv);

/* Print an object for programs. */
struct json_object;
void print_json(struct json_object *object);

/* For people: "1.5G"; a user's name; a text file's content, to be freed, or NULL after a line. */
void size_text(int64_t bytes, char *text, size_t room);
void user_text(uid_t uid, char *text, size_t room);
char *file_text(const char *path);

/*
 * Have a person edit a text in an editor until it is right, or they have had enough: @set gets it, and returns a
 * status. @again: the command by which a file with what they wrote is set.
 */
int edit_text(const char *text, const char *again, int (*set)(const char *name, const char *text),
	      const char *name);

#endif /* VMCTL_COMMAND_H */
