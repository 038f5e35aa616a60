// SPDX-License-Identifier: MIT OR GPL-2.0
/* vmctl disk. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"

static void add(struct json_object *parameters, const char *key, const char *text)
{
	json_object_object_add(parameters, key, json_object_new_string(text));
}

static bool add_size(struct json_object *parameters, const char *text)
{
	uint64_t size;

	if (parse_size(text, 1, INT64_MAX, &size)) {
		log_error("%s: give a size, as 10G", text);
		return false;
	}
	json_object_object_add(parameters, "size", json_object_new_int64(size));
	return true;
}

static bool progress(struct json_object *reply, void *arg)
{
	(void)arg;
	if (isatty(STDERR_FILENO) && json_object_object_get(reply, "hundredths"))
		fprintf(stderr, "\r%5.1f%%", client_number(reply, "hundredths") / 100.0);
	return true;
}

/* moatd opens the image, elsewhere, with this user's rights. */
static bool add_from(struct json_object *parameters, const char *path)
{
	char whole[PATH_MAX];

	if (!realpath(path, whole)) {
		log_error("%s: %s", path, strerror(errno));
		return false;
	}
	add(parameters, "from", whole);
	return true;
}

static int create(int argc, char **argv)
{
	static const struct option known[] = {
		{ "size", 1, NULL, 's' }, { "format", 1, NULL, 'f' }, { "from", 1, NULL, 'i' },
		{ "from-format", 1, NULL, 'o' }, { 0 },
	};
	struct json_object *parameters = json_object_new_object();
	bool good = true, any = false;
	int c, status;

	while (good && (c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		any |= c == 's' || c == 'i';
		if (c == 's')
			good = add_size(parameters, optarg);
		else if (c == 'i')
			good = add_from(parameters, optarg);
		else if (c == 'f' || c == 'o')
			add(parameters, c == 'f' ? "format" : "from_format", optarg);
		else
			good = false;
	}
	if (!good || !any || optind + 1 != argc) {
		json_object_put(parameters);
		return STATUS_USAGE;
	}
	add(parameters, "name", argv[optind]);
	status = client_stream("DiskCreate", parameters, progress, NULL);
	if (isatty(STDERR_FILENO))
		fputs("\r       \r", stderr);
	return status;
}

static int list(int argc, char **argv)
{
	struct json_object *reply, *array;
	char size[16], allocated[16], owner[33];
	int status;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json")))
		return STATUS_USAGE;
	status = client_call("DiskList", NULL, &reply);
	if (status)
		return status;
	array = json_object_object_get(reply, "disks");
	if (argc == 2)
		print_json(array);
	else
		printf("%-24s %-6s %8s %8s %-10s %-4s %s\n", "NAME", "FORMAT", "SIZE", "ON DISK", "OWNER",
		       "USED", "SNAPSHOTS");
	for (size_t i = 0; argc == 1 && i < json_object_array_length(array); i++) {
		struct json_object *disk = json_object_array_get_idx(array, i);

		size_text(client_number(disk, "size"), size, sizeof(size));
		size_text(client_number(disk, "allocated"), allocated, sizeof(allocated));
		user_text(client_number(disk, "owner"), owner, sizeof(owner));
		printf("%-24s %-6s %8s %8s %-10s %-4s %lld\n", client_text(disk, "name"),
		       client_text(disk, "format"), size, allocated, owner,
		       json_object_get_boolean(json_object_object_get(disk, "in_use")) ? "yes" : "no",
		       (long long)client_number(disk, "snapshots"));
	}
	json_object_put(reply);
	return 0;
}

static int resize(int argc, char **argv)
{
	struct json_object *parameters;

	if (argc < 3 || argc > 4 || *argv[1] == '-' || (argc == 4 && strcmp(argv[3], "--shrink")))
		return STATUS_USAGE;
	parameters = client_name(argv[1]);
	if (!add_size(parameters, argv[2])) {
		json_object_put(parameters);
		return STATUS_USAGE;
	}
	json_object_object_add(parameters, "shrink", json_object_new_boolean(argc == 4));
	return client_call("DiskResize", parameters, NULL);
}

static int delete(int argc, char **argv)
{
	int status = 0;

	if (argc < 2 || *argv[1] == '-')
		return STATUS_USAGE;
	for (int i = 1; i < argc && !status; i++)
		status = client_call("DiskDelete", client_name(argv[i]), NULL);
	return status;
}

static int snapshot_verb(int argc, char **argv)
{
	static const char *const methods[][2] = {
		{ "snapshot", "DiskSnapshot" }, { "revert", "DiskRevert" },
		{ "snapshot-delete", "DiskSnapshotDelete" },
	};
	struct json_object *parameters;
	unsigned int i = 0;

	if (argc != 3 || *argv[1] == '-')
		return STATUS_USAGE;
	while (strcmp(methods[i][0], argv[0]))
		i++;
	parameters = client_name(argv[1]);
	add(parameters, "snapshot", argv[2]);
	return client_call(methods[i][1], parameters, NULL);
}

static int snapshots(int argc, char **argv)
{
	struct json_object *reply, *array;
	char size[16], when[32];
	int status;

	if (argc < 2 || argc > 3 || *argv[1] == '-' || (argc == 3 && strcmp(argv[2], "--json")))
		return STATUS_USAGE;
	status = client_call("DiskSnapshots", client_name(argv[1]), &reply);
	if (status)
		return status;
	array = json_object_object_get(reply, "snapshots");
	if (argc == 3)
		print_json(array);
	for (size_t i = 0; argc == 2 && i < json_object_array_length(array); i++) {
		struct json_object *snapshot = json_object_array_get_idx(array, i);
		time_t at = client_number(snapshot, "time");

		size_text(client_number(snapshot, "size"), size, sizeof(size));
		strftime(when, sizeof(when), "%F %T", localtime(&at));
		printf("%-24s %8s  %s\n", client_text(snapshot, "name"), size, when);
	}
	json_object_put(reply);
	return 0;
}

const struct command disk_commands[] = {
	{ "list", "disks", "[--json]", list },
	{ "create", "make one: empty, or from an image, as of a distribution for clouds",
	  "NAME [--size SIZE] [--format raw|qcow2] [--from FILE [--from-format raw|qcow2]]", create },
	{ "resize", "have it be larger, or, with --shrink, smaller", "DISK SIZE [--shrink]", resize },
	{ "snapshot", "keep what is on it now", "DISK SNAPSHOT", snapshot_verb },
	{ "snapshots", "what was kept", "DISK [--json]", snapshots },
	{ "revert", "have it be what it was", "DISK SNAPSHOT", snapshot_verb },
	{ "snapshot-delete", "forget what was kept", "DISK SNAPSHOT", snapshot_verb },
	{ "delete", "remove them, with their snapshots", "DISK...", delete },
	{ 0 },
};

int disk_main(int argc, char **argv)
{
	return command_run("disk", disk_commands, argc, argv);
}
