// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Disks and networks that come and go. A machine's definition has them and, where it runs, the guest: what comes is first
 * written down and then attached, what goes is first detached and then struck out. So whatever the guest has is
 * written, wherever this is cut off, and what is written and is not there, can be detached.
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
 * @machine: its serial
 * @definition: what the machine's becomes
 * @before: what it was
 * @device: that comes
 * @why: it is not to be, after all
 * @mac: what the reply has, of a network that was attached
 */
struct change {
	struct call *call;
	uint64_t machine;
	struct definition definition;
	struct definition before;
	char device[CONTROL_NAME];
	char mac[18];
	char why[KEEPER_WHY];
};

/* NULL: the call has been ended. */
static struct change *change_create(struct call *call, struct machine *machine)
{
	struct change *change = machine->changing ? NULL : calloc(1, sizeof(*change));

	if (!change) {
		reply_failed(call, machine->changing ? "another change of it is under way" :
			     strerror(ENOMEM));
		return NULL;
	}
	change->call = call;
	change->machine = machine->serial;
	change->definition = machine->definition;
	change->before = machine->definition;
	machine->changing = &change->definition;
	return change;
}

/* Return: the machine, if it is still there. */
static struct machine *change_end(const struct change *change)
{
	struct machine *machine = machine_find_serial(change->machine);

	if (machine)
		machine->changing = NULL;
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

/* It is as it was before. */
static void change_undo(struct change *change)
{
	struct machine *machine = machine_find_serial(change->machine);

	if (machine)
		machine_change(machine, &change->before);
	change_fail(change, change->why);
}

/* Where the guest does not let it go, it has it. */
static void undone(void *arg, int error)
{
	struct change *change = arg;

	if (error == -EBUSY)
		change_fail(change, change->why);
	else
		change_undo(change);
}

/* Whoever was at it may have been cut off before it was there, or after that. */
static void attached(void *arg, const struct keeper_answer *answer, int fd)
{
	struct change *change = arg;
	struct machine *machine = machine_find_serial(change->machine);

	(void)fd;
	snprintf(change->why, sizeof(change->why), "%s", answer->why);
	if (!answer->error)
		change_done(change);
	else if (answer->error != -EOWNERDEAD)
		change_undo(change);
	else if (!machine || !machine_runs(machine) ||
		 machine_detach(machine, change->device, undone, change))
		change_fail(change, change->why);
}

/* @start: that one part, for a machine that runs. */
static void attach(struct change *change, struct machine *machine, struct keeper_start *start)
{
	int err = machine_runs(machine) ? machine_change(machine, &change->definition) : 0;

	if (err)
		change_fail(change, strerror(-err));
	else if (machine_runs(machine))
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

/* Is there one already whose device would have the same name? */
static bool disk_clashes(const struct definition *definition, const char *path)
{
	struct definition_disk disk = { 0 };
	char wanted[CONTROL_NAME], device[CONTROL_NAME];

	snprintf(disk.path, sizeof(disk.path), "%s", path);
	definition_disk_device(&disk, wanted);
	for (uint64_t i = 0; i < definition->disk_count; i++) {
		definition_disk_device(&definition->disk[i], device);
		if (!strcmp(device, wanted))
			return true;
	}
	return false;
}

static bool network_clashes(const struct definition *definition, const char *mac)
{
	for (uint64_t i = 0; i < definition->network_count; i++)
		if (!strcmp(definition->network[i].mac, mac))
			return true;
	return false;
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
	if (change->definition.disk_count == DEFINITION_DISKS || disk_clashes(&change->definition, path) ||
	    strlen(path) >= sizeof(disk->path)) {
		change_fail(change, "it has that disk, or one of that name, or too many");
		return;
	}
	disk = &change->definition.disk[change->definition.disk_count++];
	memset(disk, 0, sizeof(*disk));
	strcpy(disk->path, path);
	disk->format = format && !strcmp(format, "qcow2") ? FORMAT_QCOW2 : FORMAT_RAW;
	disk->read_only = call_flag(call, "read_only");
	if (!change_legal(change))
		return;
	definition_disk_device(disk, change->device);
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
	char why[KEEPER_WHY] = "no address can be made";
	bool changed;

	if (!change)
		return;
	network = &change->definition.network[change->definition.network_count];
	if (!strcmp(name, DEFINITION_USER_NETWORK)) {
		change_fail(change, "the network of a user can be there from the start only");
		return;
	}
	if (change->definition.network_count == DEFINITION_NETWORKS ||
	    strlen(name) >= sizeof(network->network) || (mac && strlen(mac) >= sizeof(network->mac)) ||
	    (mac && network_clashes(&change->definition, mac))) {
		change_fail(change, "too many networks, a name too long, or an address that it has");
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
	    networks_check(&change->definition, why, sizeof(why)) ||
	    networks_of(&change->definition, &start, &changed, why)) {
		change_fail(change, why);
		return;
	}
	strcpy(change->mac, network->mac);
	strcpy(change->device, network->mac);
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
	else if (error && error != -ENOENT)
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
	const char *mac = call_text(call, "mac");
	struct change *change = change_create(call, machine);
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
