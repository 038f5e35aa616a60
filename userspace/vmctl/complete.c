// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What may come next on a command line, for shells that complete words. It is read out of what the commands say of themselves: in
 * a usage, "--option" takes no value and "--option VALUE" one; what is neither is the command's arguments, in their
 * order. A word in capitals is a kind of thing, of which some have names that moatd knows; words with "|" between are to
 * choose from. Of all else, as files, nothing is said: that is for the shell.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/lib/array.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"
#include "userspace/vmctl/run.h"

#define WORD_SIZE	64

/* A command line up to the word that is to be completed, which is the last one. */
struct line {
	const char *usage;
	char **word;
	int count;
};

static void offer(const char *word, const char *begun)
{
	if (!strncmp(word, begun, strlen(begun)))
		puts(word);
}

/* Names */

static void offer_names(const char *method, struct json_object *parameters, const char *list, const char *begun)
{
	struct json_object *reply, *array;

	if (client_call(method, parameters, &reply))
		return;
	array = json_object_object_get(reply, list);
	for (size_t i = 0; i < json_object_array_length(array); i++)
		offer(client_text(json_object_array_get_idx(array, i), "name"), begun);
	json_object_put(reply);
}

static const struct {
	const char *kind;
	const char *method;
	const char *list;
} kinds[] = {
	{ "MACHINE", "List", "machines" }, { "NETWORK", "NetworkList", "networks" },
	{ "DISK", "DiskList", "disks" }, { "SNAPSHOT", "DiskSnapshots", "snapshots" },
};

/* "yes|no|maybe" */
static void offer_choices(const char *choices, const char *begun)
{
	char text[WORD_SIZE], *at = text, *choice;

	snprintf(text, sizeof(text), "%s", choices);
	while ((choice = strsep(&at, "|")))
		offer(choice, begun);
}

/* What may be in the place of @wanted, as the usage has it. A snapshot is of the disk before it. */
static void offer_value(const struct line *line, const char *wanted)
{
	const char *begun = line->word[line->count - 1];
	const size_t len = strspn(wanted, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	if (!len && strchr(wanted, '|'))
		offer_choices(wanted, begun);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (len && strlen(kinds[i].kind) == len && !strncmp(kinds[i].kind, wanted, len))
			offer_names(kinds[i].method, strcmp(kinds[i].kind, "SNAPSHOT") ? NULL :
				    client_name(line->count > 1 ? line->word[line->count - 2] : ""), kinds[i].list, begun);
}

/* Usages */

/* The next word of a usage, without the brackets round it; NULL: there is none. */
static const char *usage_next(const char *at, char *word)
{
	size_t len;

	at += strspn(at, " \n[");
	len = strcspn(at, " \n[]");
	if (!len && !*at)
		return NULL;
	snprintf(word, WORD_SIZE, "%.*s", (int)len, at);
	return at + len + strspn(at + len, "]");
}

static bool word_is_option(const char *word)
{
	return !strncmp(word, "--", 2) && islower((unsigned char)word[2]);
}

/* Does it stand for a value? */
static bool word_is_value(const char *word)
{
	return isupper((unsigned char)*word) || (islower((unsigned char)*word) && strchr(word, '|'));
}

/* The value that an option has; empty: none, or there is no such option. */
static void usage_value(const char *usage, const char *option, char *value)
{
	char word[WORD_SIZE];
	const char *at = usage;

	*value = '\0';
	while ((at = usage_next(at, word)))
		if (!strcmp(word, option)) {
			/* What is behind a bracket, or on the next line, is something else. */
			if (*at == ' ' && at[1] != '[' && at[1] != ' ' && usage_next(at, word) && word_is_value(word))
				strcpy(value, word);
			return;
		}
}

static void offer_options(const struct line *line)
{
	char word[WORD_SIZE];
	const char *at = line->usage;

	while ((at = usage_next(at, word))) {
		word[strcspn(word, ",.;:)")] = '\0';
		if (word_is_option(word))
			offer(word, line->word[line->count - 1]);
	}
}

/* The @index-th argument that is no option's value, of the first way to call it; one that ends in "..." repeats. */
static void usage_argument(const char *usage, int index, char *argument)
{
	char word[WORD_SIZE];
	const char *at = usage;

	*argument = '\0';
	while ((at = usage_next(at, word)) && strcmp(word, "|")) {
		if (word_is_option(word)) {
			char value[WORD_SIZE];

			usage_value(usage, word, value);
			if (*value)
				at = usage_next(at, word);
			continue;
		}
		if (!word_is_value(word))
			continue;
		strcpy(argument, word);
		if (!index-- || strstr(word, "..."))
			return;
		*argument = '\0';
	}
}

/* How many arguments are before the last word; and, where the one before it is an option with a value, that value. */
static int line_arguments(const struct line *line, char *value)
{
	int count = 0;

	*value = '\0';
	for (int i = 0; i < line->count - 1; i++) {
		if (*value) {
			*value = '\0';
			continue;
		}
		if (word_is_option(line->word[i]))
			usage_value(line->usage, line->word[i], value);
		else
			count++;
	}
	return count;
}

static void line_complete(const struct line *line)
{
	char wanted[WORD_SIZE];
	const int arguments = line_arguments(line, wanted);

	if (!*wanted && *line->word[line->count - 1] == '-') {
		offer_options(line);
		return;
	}
	if (!*wanted)
		usage_argument(line->usage, arguments, wanted);
	offer_value(line, wanted);
}

/* Commands */

static void offer_commands(const struct command *commands, const char *begun)
{
	for (; commands->name; commands++)
		offer(commands->name, begun);
}

static const struct command *commands_find(const struct command *commands, const char *name)
{
	for (; commands->name; commands++)
		if (!strcmp(commands->name, name))
			return commands;
	return NULL;
}

static void command_complete(const struct command *command, char **word, int count);

/* Those with a help of their own: a text, or commands of which each has its usage. */
static const struct {
	const char *name;
	const char *help;
	const struct command *commands;
} special[] = {
	{ "run", run_help, NULL }, { "network", NULL, network_commands }, { "disk", NULL, disk_commands },
};

static void special_complete(const char *name, char **word, int count)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(special) && strcmp(special[i].name, name))
		i++;
	if (i == ARRAY_SIZE(special))
		return;
	if (special[i].help)
		line_complete(&(struct line){ special[i].help, word, count });
	else if (count == 1)
		offer_commands(special[i].commands, *word);
	else
		command_complete(commands_find(special[i].commands, *word), word + 1, count - 1);
}

static void command_complete(const struct command *command, char **word, int count)
{
	if (command && command->usage)
		line_complete(&(struct line){ command->usage, word, count });
	else if (command)
		special_complete(command->name, word, count);
}

void complete(const struct command *const *groups, char **word, int count)
{
	const struct command *command = NULL;
	const bool help = count == 2 && !strcmp(*word, "help");

	for (; *groups; groups++) {
		if (count == 1 || help)
			offer_commands(*groups, word[count - 1]);
		else if (!command)
			command = commands_find(*groups, *word);
	}
	command_complete(command, word + 1, count - 1);
}
