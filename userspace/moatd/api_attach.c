// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Disks and networks that come and go. A machine's definition has them and, where it runs, the guest: it is first
 * attached and then written down, and first detached and then struck out, so that what is written is there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/moatd/api.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"

/**
 * struct change - one that is under way
 * @definition: what the machine's becomes
 * @mac: what the reply has, of a network that was attached
 */
struct change {
	struct call *call;
	struct definition definition;
	char mac[18];
};

static struct change *change_create(struct call *call, struct machine *machine)
{
	struct change *change = machine->changing ? NULL : calloc(1, sizeof(*change));

	if (!change) {
		reply_failed(call, machine->changing ? "another change of it is under way" :
			     strerror(ENOMEM));
		return NULL;
	}
	change->call = call;
	change->definition = machine->definition;
	machine->changing = true;
	return change;
}

/* Return: the machine, if it is still there. */
static struct machine *change_end(const struct change *change)
{
	struct machine *machine = machine_find(change->definition.name);

	if (machine)
		machine->changing = false;
	return machine;
}

static void change_fail(struct change *change, const char *why)
{
	change_end(change);
	reply_failed(change->call, why);
	free(change);
}

/* It is so: written down. The machine may be gone by now. */
static void change_done(struct change *change)
{
	struct machine *machine = change_end(change);
	int err = machine ? machine_change(machine, &change->definition) : -ENOENT;

	if (err) {
		change_fail(change, strerror(-err));
		return;
	}
	networks_refresh(&change->definition);
	if (*change->mac)
		reply_text(change->call, "mac", change->mac);
	else
		call_reply(change->call, NULL);
	free(change);
}

static bool change_legal(struct change *change)
{
	struct definition_error error;

	if (!definition_check(&change->definition, &error))
		return true;
	change_end(change);
	reply_definition_error(change->call, &error);
	free(change);
	return false;
}

static void attached(void *arg, const struct keeper_answer *answer, int fd)
{
	struct change *change = arg;

	(void)fd;
	if (answer->error)
		change_fail(change, answer->why);
	else
		change_done(change);
}

/* @start: that one part, for a machine that runs. */
static void attach(struct change *change, const struct machine *machine, struct keeper_start *start)
{
	if (machine_runs(machine))
		keep_ask(KEEPER_ATTACH, start, sizeof(*start), attached, change);
	else
		change_done(change);
}

/* The machine as it is, but for what it is made of. */
static void part_init(struct keeper_start *start, const struct definition *definition)
{
	memset(start, 0, sizeof(*start));
	start->definition = *definition;
	start->definition.disk_count = 0;
	start->definition.network_count = 0;
	start->definition.filesystem_count = 0;
}

static struct machine *call_machine(const struct call *call)
{
	return machine_find(call_text(call, "name"));
}

static int disk_find(const struct definition *definition, const char *path)
{
	for (uint64_t i = 0; i < definition->disk_count; i++)
		if (!strcmp(definition->disk[i].path, path))
			return i;
	return -1;
}

void api_attach_disk(struct call *call)
{
	static struct keeper_start start;
	const char *path = call_text(call, "disk"), *format = call_text(call, "format");
	struct machine *machine = call_machine(call);
	struct change *change = change_create(call, machine);
	struct definition_disk *disk;

	if (!change)
		return;
	if (change->definition.disk_count == DEFINITION_DISKS || disk_find(&change->definition, path) >= 0 ||
	    strlen(path) >= sizeof(disk->path)) {
		change_fail(change, "it has that disk, or too many");
		return;
	}
	disk = &change->definition.disk[change->definition.disk_count++];
	memset(disk, 0, sizeof(*disk));
	strcpy(disk->path, path);
	disk->format = format && !strcmp(format, "qcow2") ? FORMAT_QCOW2 : FORMAT_RAW;
	disk->read_only = call_flag(call, "read_only");
	if (!change_legal(change))
		return;
	part_init(&start, &change->definition);
	start.definition.disk[start.definition.disk_count++] = *disk;
	attach(change, machine, &start);
}

void api_attach_network(struct call *call)
{
	static struct keeper_start start;
	const char *name = call_text(call, "network"), *mac = call_text(call, "mac");
	struct machine *machine = call_machine(call);
	struct change *change = change_create(call, machine);
	struct definition_network *network;
	char why[KEEPER_WHY];
	bool changed;

	if (!change)
		return;
	network = &change->definition.network[change->definition.network_count];
	if (!strcmp(name, DEFINITION_USER_NETWORK)) {
		change_fail(change, "the network of a user can be there from the start only");
		return;
	}
	if (change->definition.network_count == DEFINITION_NETWORKS ||
	    strlen(name) >= sizeof(network->network) || (mac && strlen(mac) >= sizeof(network->mac))) {
		change_fail(change, "too many networks, or a name too long");
		return;
	}
	memset(network, 0, sizeof(*network));
	strcpy(network->network, name);
	if (mac)
		strcpy(network->mac, mac);
	change->definition.network_count++;
	if (!change_legal(change))
		return;
	if (definition_complete(&change->definition) ||
	    networks_of(&change->definition, &start, &changed, why)) {
		change_fail(change, why);
		return;
	}
	strcpy(change->mac, network->mac);
	start.network[0] = start.network[change->definition.network_count - 1];
	start.definition.disk_count = 0;
	start.definition.filesystem_count = 0;
	start.definition.network[0] = *network;
	start.definition.network_count = 1;
	attach(change, machine, &start);
}

static void detached(void *arg, int error)
{
	struct change *change = arg;

	if (error == -EBUSY)
		change_fail(change, "the guest does not let it go");
	else if (error == -ECONNRESET)
		change_fail(change, "the machine has ended");
	else if (error)
		change_fail(change, strerror(-error));
	else
		change_done(change);
}

static void detach(struct change *change, struct machine *machine, const char *device)
{
	if (!machine_runs(machine))
		change_done(change);
	else if (machine_detach(machine, device, detached, change))
		change_fail(change, "its launcher does not listen");
}

void api_detach_disk(struct call *call)
{
	struct machine *machine = call_machine(call);
	struct change *change = change_create(call, machine);
	struct definition *definition;
	char device[CONTROL_NAME];
	int i;

	if (!change)
		return;
	definition = &change->definition;
	i = disk_find(definition, call_text(call, "disk"));
	if (i < 0) {
		change_fail(change, "it has no such disk");
		return;
	}
	definition_disk_device(&definition->disk[i], device);
	definition->disk_count--;
	memmove(&definition->disk[i], &definition->disk[i + 1],
		(definition->disk_count - i) * sizeof(definition->disk[0]));
	detach(change, machine, device);
}

void api_detach_network(struct call *call)
{
	struct machine *machine = call_machine(call);
	struct change *change = change_create(call, machine);
	const char *mac = call_text(call, "mac");
	struct definition *definition;
	uint64_t i = 0;

	if (!change)
		return;
	definition = &change->definition;
	while (i < definition->network_count && strcmp(definition->network[i].mac, mac))
		i++;
	if (i == definition->network_count) {
		change_fail(change, "it has no such network device");
		return;
	}
	definition->network_count--;
	memmove(&definition->network[i], &definition->network[i + 1],
		(definition->network_count - i) * sizeof(definition->network[0]));
	detach(change, machine, mac);
}
