// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "userspace/lib/log.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"
#include "userspace/moatd/store.h"

#define NETWORKS_LOOK_US	(30 * 1000000ULL)

struct network *networks;
static int network_dir = -1;
static sd_event *network_loop;
static sd_event_source *network_timer;

struct network *network_find(const char *name)
{
	for (struct network *network = networks; network; network = network->next)
		if (!strcmp(network->definition.name, name))
			return network;
	return NULL;
}

static struct network *network_add(const struct network_definition *definition)
{
	struct network *network = calloc(1, sizeof(*network)), **at = &networks;

	if (!network)
		return NULL;
	network->definition = *definition;
	while (*at && strcmp((*at)->definition.name, definition->name) < 0)
		at = &(*at)->next;
	network->next = *at;
	*at = network;
	return network;
}

static void network_load(void *arg, const char *name)
{
	struct network_definition definition;
	struct definition_error error = { 0 };
	struct network *network;
	size_t len;
	char *text;
	int err = store_load(network_dir, name, &text, &len);

	(void)arg;
	if (err) {
		snprintf(error.text, sizeof(error.text), "%s", strerror(-err));
	} else {
		err = network_definition_read(&definition, text, len, &error);
		free(text);
	}
	if (!err && strcmp(definition.name, name)) {
		err = -EINVAL;
		snprintf(error.text, sizeof(error.text), "name: is not that of the file");
	}
	if (err) {
		if (!network_name_valid(name))
			return;
		memset(&definition, 0, sizeof(definition));
		snprintf(definition.name, sizeof(definition.name), "%.*s", NETWORK_NAME_MAX, name);
		log_error("network %s: line %u, column %u: %s", name, error.line, error.column, error.text);
	}
	network = network_add(&definition);
	if (!network)
		return;
	network->broken = err;
	snprintf(network->why, sizeof(network->why), "%.199s", error.text);
}

int networks_init(sd_event *event, int dir)
{
	network_loop = event;
	network_dir = dir;
	return store_list(dir, network_load, NULL);
}

/* The address that a machine has on a network; 0: none. */
static uint32_t machine_address(const struct definition *definition, const char *network)
{
	uint32_t address;

	for (uint64_t i = 0; i < definition->network_count; i++)
		if (!strcmp(definition->network[i].network, network) &&
		    network_address(definition->network[i].address, &address))
			return address;
	return 0;
}

/* The host's side of it */

static void network_carry(const struct network *network, struct keeper_network *ret)
{
	const struct network_definition *definition = &network->definition;

	memset(ret, 0, sizeof(*ret));
	network_definition_spec(definition, &ret->spec);
	for (uint64_t i = 0; i < definition->forward_count; i++) {
		const struct network_definition_forward *forward = &definition->forward[i];
		const struct machine *machine = machine_find(forward->machine);
		struct network_forward *to = &ret->forward[ret->forward_count];
		uint32_t address = 0;

		*to = (struct network_forward){
			.protocol = forward->protocol ? IPPROTO_UDP : IPPROTO_TCP,
			.host_port = forward->host_port,
			.guest_port = forward->port ? forward->port : forward->host_port,
		};
		if (machine)
			to->guest_address = machine_address(&machine->definition, definition->name);
		if (*forward->host_address && network_address(forward->host_address, &address))
			to->host_address = address;
		if (to->guest_address)
			ret->forward_count++;
	}
}

void network_ask_start(const struct network *network, keep_answer_t then, void *arg)
{
	struct keeper_network carried;

	network_carry(network, &carried);
	keep_ask(KEEPER_NETWORK_START, &carried, sizeof(carried), then, arg);
}

static void network_started(void *arg, const struct keeper_answer *answer, int fd)
{
	char *name = arg;
	struct network *network = network_find(name);

	(void)fd;
	if (network && !network->broken) {
		if (answer->error && strcmp(network->why, answer->why))
			log_error("network %s: %s", name, answer->why);
		snprintf(network->why, sizeof(network->why), "%s", answer->error ? answer->why : "");
	}
	free(name);
}

static int networks_look(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	(void)arg;
	networks_start();
	return 0;
}

/* Its server may have died, or somebody have removed its rules: to start it again is to mend it. */
void networks_start(void)
{
	for (const struct network *network = networks; network; network = network->next)
		if (!network->broken && !network->going)
			network_ask_start(network, network_started, strdup(network->definition.name));
	network_timer = sd_event_source_disable_unref(network_timer);
	sd_event_add_time_relative(network_loop, &network_timer, CLOCK_MONOTONIC, NETWORKS_LOOK_US, 0,
				   networks_look, NULL);
}

/* Definitions */

int network_define(const struct network_definition *definition)
{
	struct network *network = network_find(definition->name);
	char *text = network_definition_write(definition);
	int err = text ? store_save(network_dir, definition->name, text) : -ENOMEM;

	free(text);
	if (err)
		return err;
	if (!network)
		return network_add(definition) ? 0 : -ENOMEM;
	network->definition = *definition;
	network->broken = false;
	*network->why = '\0';
	return 0;
}

struct forget {
	char name[NETWORK_NAME_SIZE];
	keep_answer_t then;
	void *arg;
};

static void network_remove(struct network *network)
{
	struct network **at = &networks;

	store_remove(network_dir, network->definition.name);
	while (*at != network)
		at = &(*at)->next;
	*at = network->next;
	free(network);
}

static void network_stopped(void *arg, const struct keeper_answer *answer, int fd)
{
	struct forget *forget = arg;
	struct network *network = network_find(forget->name);

	if (network && answer->error)
		network->going = false;
	else if (network)
		network_remove(network);
	forget->then(forget->arg, answer, fd);
	free(forget);
}

/* The definition goes last: by it, what is left on the host is found. */
void network_forget(struct network *network, keep_answer_t then, void *arg)
{
	const struct keeper_answer failed = { .error = -ENOMEM, .why = "out of memory" };
	struct forget *forget = malloc(sizeof(*forget));

	if (!forget) {
		then(arg, &failed, -1);
		return;
	}
	*forget = (struct forget){ .then = then, .arg = arg };
	memcpy(forget->name, network->definition.name, sizeof(forget->name));
	network->going = true;
	keep_ask_name(KEEPER_NETWORK_STOP, forget->name, network_stopped, forget);
}

/* Machines on them */

static bool address_taken(const char *network, uint32_t address)
{
	for (const struct machine *machine = machines; machine; machine = machine->next)
		if (machine_address(&machine->definition, network) == address ||
		    (machine->changing && machine_address(machine->changing, network) == address))
			return true;
	return false;
}

static bool entries_clash(const struct definition_network *one, const struct definition_network *other)
{
	uint32_t address, other_address;

	if (*one->mac && !strcasecmp(one->mac, other->mac))
		return true;
	return !strcmp(one->network, other->network) && network_address(one->address, &address) &&
	       network_address(other->address, &other_address) && address == other_address;
}

/* @from: of @definition's entries, those before are not looked at. */
static bool entry_clashes(const struct definition_network *entry, const struct definition *definition,
			  uint64_t from)
{
	for (uint64_t i = from; i < definition->network_count; i++)
		if (entries_clash(entry, &definition->network[i]))
			return true;
	return false;
}

int networks_check(const struct definition *definition, char *why, size_t room)
{
	for (uint64_t i = 0; i < definition->network_count; i++) {
		const struct definition_network *entry = &definition->network[i];
		bool clashes = entry_clashes(entry, definition, i + 1);

		for (const struct machine *at = machines; at && !clashes; at = at->next)
			if (strcmp(at->definition.name, definition->name))
				clashes = entry_clashes(entry, &at->definition, 0) ||
					  (at->changing && entry_clashes(entry, at->changing, 0));
		if (!clashes)
			continue;
		snprintf(why, room, "network %s: %s, %s: another one has that address", entry->network,
			 entry->mac, entry->address);
		return -EINVAL;
	}
	return 0;
}

static int address_choose(struct definition_network *entry, const struct network_spec *spec)
{
	for (uint32_t address = spec->dhcp_first; address <= spec->dhcp_last; address++) {
		if (!network_has(spec, address) || address_taken(spec->name, address))
			continue;
		snprintf(entry->address, sizeof(entry->address), "%.15s", network_text(address).text);
		return 0;
	}
	return -ENOSPC;
}

int networks_of(struct definition *definition, struct keeper_start *ret, bool *ret_changed, char *why)
{
	*ret_changed = false;
	memset(ret, 0, sizeof(*ret));
	for (uint64_t i = 0; i < definition->network_count; i++) {
		struct definition_network *entry = &definition->network[i];
		const struct network *network = network_find(entry->network);

		if (definition_network_is_user(entry))
			continue;
		if (!network || network->broken || network->going ||
		    (definition->owner && !network->definition.open)) {
			snprintf(why, KEEPER_WHY, "network %s: %s", entry->network,
				 !network ? "there is no such network" : network->going ?
				 "it is being deleted" : network->broken ?
				 "its definition cannot be read" : "it is not open to all users");
			return -EINVAL;
		}
		network_definition_spec(&network->definition, &ret->network[i]);
		if (*entry->address || network->definition.mode == NETWORK_BRIDGE)
			continue;
		if (address_choose(entry, &ret->network[i])) {
			snprintf(why, KEEPER_WHY, "network %s: all addresses are taken", entry->network);
			return -EINVAL;
		}
		*ret_changed = true;
	}
	ret->definition = *definition;
	return 0;
}

void networks_refresh(const struct definition *definition)
{
	for (uint64_t i = 0; i < definition->network_count; i++) {
		const struct network *network = network_find(definition->network[i].network);

		if (network && !network->broken && !network->going && network->definition.forward_count)
			network_ask_start(network, network_started, strdup(network->definition.name));
	}
}
