// SPDX-License-Identifier: MIT OR GPL-2.0
#include <stdbool.h>
#include <string.h>

#include "userspace/lib/arguments.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/program.h"

static void add_blk(struct arguments *arguments, const struct options_device *device, int handed)
{
	arguments_add(arguments, "--disk");
	if (handed < 0)
		arguments_add(arguments, "%s", device->path);
	else
		arguments_add(arguments, "/proc/self/fd/%d", handed);
	if (device->read_only)
		arguments_add(arguments, "--read-only");
	if (device->direct)
		arguments_add(arguments, "--direct");
}

static void add_net(struct arguments *arguments, const struct options_device *device, int handed)
{
	const bool user = !strcmp(device->path, "user");

	arguments_add(arguments, user ? "--user" : handed < 0 ? "--tap" : "--tap-fd");
	if (handed >= 0)
		arguments_add(arguments, "%d", handed);
	else if (!user)
		arguments_add(arguments, "%s", device->path);
	if (device->mac) {
		arguments_add(arguments, "--mac");
		arguments_add(arguments, "%s", device->mac);
	}
}

static void add_fs(struct arguments *arguments, const struct options_device *device, int handed)
{
	arguments_add(arguments, "--directory");
	if (handed < 0)
		arguments_add(arguments, "%s", device->path);
	else
		arguments_add(arguments, "/proc/self/fd/%d", handed);
	arguments_add(arguments, "--tag");
	arguments_add(arguments, "%s", device->tag);
	if (device->writable)
		arguments_add(arguments, "--read-write");
}

const struct program programs[] = {
	{ "blk", "moat-blk", add_blk, NULL },
	{ "blk", "moat-qcow2", add_blk, "qcow2" },
	{ "net", "moat-net", add_net, NULL },
	{ "fs", "moat-fs", add_fs, NULL },
	{ 0 },
};

static bool program_serves(const struct program *program, const struct options_device *device)
{
	if (strcmp(program->type, device->type) || !program->format != !device->format)
		return false;
	return !program->format || !strcmp(program->format, device->format);
}

const struct program *program_of(const struct program *table, const struct options_device *device)
{
	for (; table->type; table++)
		if (program_serves(table, device))
			return table;
	return NULL;
}
