// SPDX-License-Identifier: MIT OR GPL-2.0
/* Commands by which machines are looked at: tables for people, --json for programs. */
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"

#define LOG_FOLLOW_MS	500

struct watch_options {
	bool json;
	bool follow;
	uint64_t count;		/* 0: for ever */
	uint64_t seconds;
	const char *name;	/* NULL: none */
};

/* False: what it says is no command line of @command. */
static bool watch_parse(int argc, char **argv, const char *known, struct watch_options *ret)
{
	static const struct option all[] = {
		{ "json", 0, NULL, 'j' }, { "follow", 0, NULL, 'f' }, { "count", 1, NULL, 'n' },
		{ "interval", 1, NULL, 'i' }, { 0 },
	};
	int c;

	*ret = (struct watch_options){ .seconds = 1 };
	while ((c = getopt_long(argc, argv, "f", all, NULL)) >= 0) {
		if (!strchr(known, c))
			return false;
		if (c == 'j')
			ret->json = true;
		else if (c == 'f')
			ret->follow = true;
		else if (parse_uint(optarg, 1, 1000000, c == 'n' ? &ret->count : &ret->seconds))
			return false;
	}
	if (optind < argc)
		ret->name = argv[optind++];
	return optind == argc;
}

void print_json(struct json_object *object)
{
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
}

void size_text(int64_t bytes, char *text, size_t room)
{
	static const char suffix[] = "BKMGT";
	double value = bytes;
	unsigned int i = 0;

	while (value >= 1024 && i < sizeof(suffix) - 2) {
		value /= 1024;
		i++;
	}
	snprintf(text, room, i && value < 10 ? "%.1f%c" : "%.0f%c", value, suffix[i]);
}

void user_text(uid_t uid, char *text, size_t room)
{
	const struct passwd *user = getpwuid(uid);

	if (user)
		snprintf(text, room, "%s", user->pw_name);
	else
		snprintf(text, room, "%u", uid);
}

static void ago_text(int64_t since, char *text, size_t room)
{
	const int64_t seconds = time(NULL) - since;

	if (seconds < 120)
		snprintf(text, room, "%llds", (long long)seconds);
	else if (seconds < 7200)
		snprintf(text, room, "%lldm", (long long)seconds / 60);
	else if (seconds < 172800)
		snprintf(text, room, "%lldh", (long long)seconds / 3600);
	else
		snprintf(text, room, "%lldd", (long long)seconds / 86400);
}

/* list */

static void list_print(struct json_object *machine)
{
	char memory[16], owner[33], ago[32];

	size_text(client_number(machine, "memory"), memory, sizeof(memory));
	user_text(client_number(machine, "owner"), owner, sizeof(owner));
	ago_text(client_number(machine, "since"), ago, sizeof(ago));
	printf("%-20s %-9s %4lld %7s %-10s %6s  %s\n", client_text(machine, "name"),
	       client_text(machine, "state"), (long long)client_number(machine, "cpus"), memory, owner,
	       ago, client_text(machine, "why"));
}

static int list_main(int argc, char **argv)
{
	struct watch_options options;
	struct json_object *reply, *list;
	int status;

	if (!watch_parse(argc, argv, "j", &options) || options.name)
		return command_usage(argv[0]);
	status = client_call("List", NULL, &reply);
	if (status)
		return status;
	list = json_object_object_get(reply, "machines");
	if (options.json) {
		print_json(list);
	} else {
		printf("%-20s %-9s %4s %7s %-10s %6s  %s\n", "NAME", "STATE", "CPUS", "MEMORY", "OWNER",
		       "FOR", "");
		for (size_t i = 0; i < json_object_array_length(list); i++)
			list_print(json_object_array_get_idx(list, i));
	}
	json_object_put(reply);
	return 0;
}

/* info: what is empty is not told. */

static void info_print(const char *key, struct json_object *value, int depth)
{
	const bool object = json_object_is_type(value, json_type_object);
	const bool array = json_object_is_type(value, json_type_array);

	if (!value || (array && !json_object_array_length(value)) ||
	    (json_object_is_type(value, json_type_string) && !json_object_get_string_len(value)))
		return;
	printf("%*s%s:", 2 * depth, "", key);
	if (!object && !array) {
		printf(" %s\n", json_object_get_string(value));
		return;
	}
	putchar('\n');
	if (object) {
		json_object_object_foreach(value, name, of)
			info_print(name, of, depth + 1);
		return;
	}
	for (size_t i = 0; i < json_object_array_length(value); i++)
		info_print("-", json_object_array_get_idx(value, i), depth + 1);
}

static int info_main(int argc, char **argv)
{
	struct watch_options options;
	struct json_object *reply;
	int status;

	if (!watch_parse(argc, argv, "j", &options) || !options.name)
		return command_usage(argv[0]);
	status = client_call("Info", client_name(options.name), &reply);
	if (status)
		return status;
	if (options.json) {
		print_json(reply);
	} else {
		json_object_object_foreach(reply, key, value)
			info_print(key, value, 0);
	}
	json_object_put(reply);
	return 0;
}

/* events */

static bool event_print(struct json_object *event, void *arg)
{
	const struct watch_options *options = arg;
	const char *name = client_text(event, "machine"), *detail = client_text(event, "detail");
	time_t at = client_number(event, "time");
	char when[32];

	if (options->name && strcmp(options->name, name))
		return true;
	strftime(when, sizeof(when), "%F %T", localtime(&at));
	if (options->json)
		puts(json_object_to_json_string_ext(event, JSON_C_TO_STRING_PLAIN));
	else
		printf("%s %s: %s%s%s\n", when, name, client_text(event, "event"), *detail ? ": " : "", detail);
	return fflush(stdout) == 0;
}

static int events_main(int argc, char **argv)
{
	struct watch_options options;

	if (!watch_parse(argc, argv, "j", &options))
		return command_usage(argv[0]);
	return client_stream("Events", NULL, event_print, &options);
}

/* log */

/* Return: a status; *@offset is where the next part begins. */
static int log_part(const char *name, int64_t *offset, bool *ret_any)
{
	struct json_object *parameters = client_name(name), *reply;
	const char *text;
	int status;

	json_object_object_add(parameters, "offset", json_object_new_int64(*offset));
	status = client_call("Log", parameters, &reply);
	if (status)
		return status;
	text = client_text(reply, "text");
	fputs(text, stdout);
	*ret_any = *text;
	*offset = client_number(reply, "offset");
	json_object_put(reply);
	return fflush(stdout) ? STATUS_REFUSED : 0;
}

static int log_main(int argc, char **argv)
{
	struct watch_options options;
	int64_t offset = -1;
	bool any = true;
	int status = 0;

	if (!watch_parse(argc, argv, "f", &options) || !options.name)
		return command_usage(argv[0]);
	while (!status && (any || options.follow)) {
		status = log_part(options.name, &offset, &any);
		if (!any && options.follow)
			usleep(LOG_FOLLOW_MS * 1000);
	}
	return status;
}

/* top */

#define TOP_MACHINES	512

/* What was counted when it was looked at last. */
struct top {
	char name[64];
	int64_t at;
	struct json_object *stats;
};

static struct top *top_find(struct top *tops, const char *name)
{
	for (unsigned int i = 0; i < TOP_MACHINES; i++)
		if (!*tops[i].name || !strcmp(tops[i].name, name)) {
			snprintf(tops[i].name, sizeof(tops[i].name), "%s", name);
			return &tops[i];
		}
	return NULL;
}

/* A second. */
static int64_t top_rate(const struct top *top, struct json_object *now, int64_t ms, const char *key)
{
	return top->stats && ms > 0 ?
	       (client_number(now, key) - client_number(top->stats, key)) * 1000 / ms : 0;
}

static void top_print(struct top *top, struct json_object *stats)
{
	const int64_t now = clock_ms(), ms = now - top->at;
	char memory[16], disk[16], net[16];

	size_text(client_number(stats, "memory"), memory, sizeof(memory));
	size_text(top_rate(top, stats, ms, "disk_bytes"), disk, sizeof(disk));
	size_text(top_rate(top, stats, ms, "net_bytes"), net, sizeof(net));
	printf("%-20s %6.1f %7s %9lld %9lld %9lld %9lld %8s %8s\n", top->name,
	       top_rate(top, stats, ms, "cpu_usec") / 10000.0, memory,
	       (long long)top_rate(top, stats, ms, "exits"),
	       (long long)top_rate(top, stats, ms, "exits_user"),
	       (long long)top_rate(top, stats, ms, "halts"),
	       (long long)top_rate(top, stats, ms, "faults"), disk, net);
	json_object_put(top->stats);
	top->stats = json_object_get(stats);
	top->at = now;
}

static int top_turn(const struct watch_options *options, struct top *tops)
{
	struct json_object *reply, *list, *stats;
	int status = client_call("List", NULL, &reply);

	if (status)
		return status;
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	printf("%-20s %6s %7s %9s %9s %9s %9s %8s %8s\n", "NAME", "CPU%", "MEMORY", "EXITS/s", "USER/s",
	       "HALTS/s", "FAULTS/s", "DISK/s", "NET/s");
	list = json_object_object_get(reply, "machines");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *machine = json_object_array_get_idx(list, i);
		const char *name = client_text(machine, "name");
		struct top *top;

		if ((options->name && strcmp(options->name, name)) ||
		    (strcmp(client_text(machine, "state"), "running") &&
		     strcmp(client_text(machine, "state"), "paused")))
			continue;
		top = top_find(tops, name);
		if (!top || client_call("Stats", client_name(name), &stats))
			continue;
		top_print(top, json_object_object_get(stats, "stats"));
		json_object_put(stats);
	}
	json_object_put(reply);
	return fflush(stdout) ? STATUS_REFUSED : 0;
}

static int top_main(int argc, char **argv)
{
	static struct top tops[TOP_MACHINES];
	struct watch_options options;
	int status = 0;

	if (!watch_parse(argc, argv, "ni", &options))
		return command_usage(argv[0]);
	for (uint64_t i = 0; !status && (!options.count || i < options.count); i++) {
		if (i)
			sleep(options.seconds);
		status = top_turn(&options, tops);
	}
	return status;
}

static int stats_main(int argc, char **argv)
{
	struct watch_options options;
	struct json_object *reply;
	int status;

	if (!watch_parse(argc, argv, "j", &options) || !options.name)
		return command_usage(argv[0]);
	status = client_call("Stats", client_name(options.name), &reply);
	if (status)
		return status;
	if (options.json) {
		print_json(json_object_object_get(reply, "stats"));
	} else {
		json_object_object_foreach(json_object_object_get(reply, "stats"), key, value)
			info_print(key, value, 0);
	}
	json_object_put(reply);
	return 0;
}

const struct command watch_commands[] = {
	{ "list", "all machines, and how they are", "[--json]", list_main },
	{ "info", "all of one", "MACHINE [--json]", info_main },
	{ "stats", "what one has used and done", "MACHINE [--json]", stats_main },
	{ "top", "what machines do, again and again", "[MACHINE] [--count N] [--interval SECONDS]", top_main },
	{ "events", "what happens to machines, from now on", "[MACHINE] [--json]", events_main },
	{ "log", "what a launcher and its devices said", "MACHINE [--follow]", log_main },
	{ 0 },
};
