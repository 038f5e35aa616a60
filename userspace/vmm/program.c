// SPDX-License-Identifier: MIT OR GPL-2.0
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
	{ "blk", "moat-blk", add_blk },
	{ "net", "moat-net", add_net },
	{ "fs", "moat-fs", add_fs },
	{ 0 },
};

const struct program *program_of(const struct program *table, const char *type)
{
	for (; table->type; table++)
		if (!strcmp(table->type, type))
			return table;
	return NULL;
}
