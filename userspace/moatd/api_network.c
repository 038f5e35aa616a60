// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/moatd/api.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"

static bool network_visible(const struct network *network, const struct call *call)
{
	return !call_uid(call) || network->definition.open;
}

void api_network_list(struct call *call)
{
	struct json_object *reply = json_object_new_object(), *array = json_object_new_array();

	for (const struct network *network = networks; network; network = network->next) {
		struct json_object *object;

		if (!network_visible(network, call))
			continue;
		object = network_definition_json(&network->definition);
		add_text(object, "why", network->why);
		json_object_array_add(array, object);
	}
	json_object_object_add(reply, "networks", array);
	call_reply(call, reply);
}

/* NULL: the call has been ended. */
static struct network *call_network(struct call *call)
{
	struct network *network = network_find(call_text(call, "name"));

	if (network && network_visible(network, call))
		return network;
	reply_error(call, "NoSuchNetwork", "name", call_text(call, "name"));
	return NULL;
}

static bool machine_is_on(const struct machine *machine, const char *network)
{
	for (uint64_t i = 0; i < machine->definition.network_count; i++)
		if (!strcmp(machine->definition.network[i].network, network))
			return true;
	return false;
}

void api_network_info(struct call *call)
{
	const struct network *network = call_network(call);
	struct json_object *reply, *array;
	char *text;

	if (!network)
		return;
	reply = json_object_new_object();
	array = json_object_new_array();
	text = network_definition_write(&network->definition);
	json_object_object_add(reply, "definition", network_definition_json(&network->definition));
	add_text(reply, "text", text);
	add_text(reply, "why", network->why);
	for (const struct machine *machine = machines; machine; machine = machine->next)
		if (machine_is_of(machine, call_uid(call)) &&
		    machine_is_on(machine, network->definition.name))
			json_object_array_add(array, json_object_new_string(machine->definition.name));
	json_object_object_add(reply, "machines", array);
	free(text);
	call_reply(call, reply);
}

/* The definition stays, whatever came of it: what is wrong can be seen, and mended. */
static void network_defined(void *arg, const struct keeper_answer *answer, int fd)
{
	struct call *call = arg;

	(void)fd;
	if (answer->error)
		reply_failed(call, answer->why);
	else
		call_reply(call, NULL);
}

void api_network_define(struct call *call)
{
	const char *text = call_text(call, "definition");
	struct network_definition definition;
	const struct network *network;
	struct definition_error error;
	int err;

	if (network_definition_read(&definition, text, strlen(text), &error)) {
		reply_definition_error(call, &error);
		return;
	}
	network = network_find(definition.name);
	if (network && network->going) {
		reply_failed(call, "it is being deleted");
		return;
	}
	err = network_define(&definition);
	if (err)
		reply_failed(call, strerror(-err));
	else
		network_ask_start(network_find(definition.name), network_defined, call);
}

void api_network_delete(struct call *call)
{
	struct network *network = call_network(call);

	if (!network)
		return;
	if (network->going) {
		reply_failed(call, "it is being deleted");
		return;
	}
	for (const struct machine *machine = machines; machine; machine = machine->next)
		if (machine_is_on(machine, network->definition.name)) {
			reply_error(call, "Failed", "message", "a machine's definition names it; see network info");
			return;
		}
	network_forget(network, network_defined, call);
}
