// SPDX-License-Identifier: MIT OR GPL-2.0
/* vmctl network. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/moatd/network_definition.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"

static int define(const char *text)
{
	struct json_object *parameters = json_object_new_object();

	json_object_object_add(parameters, "definition", json_object_new_string(text));
	return client_call("NetworkDefine", parameters, NULL);
}

static int define_struct(const struct network_definition *network)
{
	char *text = network_definition_write(network);
	int status = text ? define(text) : STATUS_REFUSED;

	free(text);
	return status;
}

/* Its definition as it is now. */
static int fetch(const char *name, struct network_definition *ret)
{
	struct definition_error error;
	struct json_object *reply;
	const char *text;
	int status = client_call("NetworkInfo", client_name(name), &reply);

	if (status)
		return status;
	text = client_text(reply, "text");
	if (network_definition_read(ret, text, strlen(text), &error)) {
		log_error("network %s: %s; see vmctl network edit", name, error.text);
		status = STATUS_REFUSED;
	}
	json_object_put(reply);
	return status;
}

static bool take(const char *option, const char *value, char *to, size_t room)
{
	if (strlen(value) < room) {
		strcpy(to, value);
		return true;
	}
	log_error("--%s %s: too long", option, value);
	return false;
}

/* A part of 192.168.0.0/16 that no other network of moatd's has. */
static int address_choose(char *address, size_t room)
{
	struct json_object *reply, *list;
	bool taken[256] = { false };
	unsigned int part;
	int status = client_call("NetworkList", NULL, &reply);

	if (status)
		return status;
	list = json_object_object_get(reply, "networks");
	for (size_t i = 0; i < json_object_array_length(list); i++)
		if (sscanf(client_text(json_object_array_get_idx(list, i), "address"), "192.168.%u.", &part) == 1 &&
		    part < 256)
			taken[part] = true;
	json_object_put(reply);
	for (part = 78; part < 255; part++)
		if (!taken[part]) {
			snprintf(address, room, "192.168.%u.1/24", part);
			return 0;
		}
	log_error("no address left to choose: give one by --address");
	return STATUS_REFUSED;
}

static int create(int argc, char **argv)
{
	static const struct option known[] = {
		{ "address", 1, NULL, 'a' }, { "dhcp", 1, NULL, 'd' }, { "isolated", 0, NULL, 'i' },
		{ "bridge", 1, NULL, 'b' }, { "open", 0, NULL, 'o' }, { 0 },
	};
	struct network_definition network;
	bool good = true;
	int c;

	network_definition_init(&network);
	while (good && (c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		if (c == 'a')
			good = take("address", optarg, network.address, sizeof(network.address));
		else if (c == 'd')
			good = take("dhcp", optarg, network.dhcp, sizeof(network.dhcp));
		else if (c == 'b')
			good = take("bridge", optarg, network.bridge, sizeof(network.bridge));
		else if (c == 'i')
			network.mode = NETWORK_ISOLATED;
		else if (c == 'o')
			network.open = true;
		else
			good = false;
	}
	if (!good || optind + 1 != argc || !take("name", argv[optind], network.name, sizeof(network.name)))
		return STATUS_USAGE;
	if (*network.bridge)
		network.mode = NETWORK_BRIDGE;
	else if (!*network.address && address_choose(network.address, sizeof(network.address)))
		return STATUS_REFUSED;
	return define_struct(&network);
}

static int set(const char *name, const char *text)
{
	(void)name;
	return define(text);
}

static int edit(int argc, char **argv)
{
	struct json_object *reply;
	char *text;
	int status;

	if (argc == 3 && !strcmp(argv[1], "--file")) {
		text = file_text(argv[2]);
		status = text ? define(text) : STATUS_REFUSED;
		free(text);
		return status;
	}
	if (argc != 2 || *argv[1] == '-')
		return STATUS_USAGE;
	status = client_call("NetworkInfo", client_name(argv[1]), &reply);
	if (status)
		return status;
	status = edit_text(client_text(reply, "text"), "network edit --file", set, argv[1]);
	json_object_put(reply);
	return status;
}

static int list(int argc, char **argv)
{
	static const char *const row = "%-10s %-8s %-18s %-5s %3s  %s\n";
	struct json_object *reply, *array;
	char forwards[24];
	int status;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json")))
		return STATUS_USAGE;
	status = client_call("NetworkList", NULL, &reply);
	if (status)
		return status;
	array = json_object_object_get(reply, "networks");
	if (argc == 2)
		print_json(array);
	else
		printf(row, "NAME", "MODE", "ADDRESS", "OPEN", "FWD", "");
	for (size_t i = 0; argc == 1 && i < json_object_array_length(array); i++) {
		struct json_object *network = json_object_array_get_idx(array, i);
		const bool open = json_object_get_boolean(json_object_object_get(network, "open"));

		snprintf(forwards, sizeof(forwards), "%zu",
			 json_object_array_length(json_object_object_get(network, "forwards")));
		printf(row, client_text(network, "name"), client_text(network, "mode"),
		       *client_text(network, "address") ? client_text(network, "address") :
		       client_text(network, "bridge"), open ? "yes" : "no", forwards,
		       client_text(network, "why"));
	}
	json_object_put(reply);
	return 0;
}

static int info(int argc, char **argv)
{
	struct json_object *reply, *machines;
	int status;

	if (argc < 2 || argc > 3 || *argv[1] == '-' || (argc == 3 && strcmp(argv[2], "--json")))
		return STATUS_USAGE;
	status = client_call("NetworkInfo", client_name(argv[1]), &reply);
	if (status)
		return status;
	machines = json_object_object_get(reply, "machines");
	if (argc == 3) {
		print_json(reply);
	} else {
		fputs(client_text(reply, "text"), stdout);
		for (size_t i = 0; i < json_object_array_length(machines); i++)
			printf("%s%s", i ? " " : "machines: ",
			       json_object_get_string(json_object_array_get_idx(machines, i)));
		printf("%s%s\n", json_object_array_length(machines) ? "\n" : "", client_text(reply, "why"));
	}
	json_object_put(reply);
	return 0;
}

static int delete(int argc, char **argv)
{
	int status = 0;

	if (argc < 2 || *argv[1] == '-')
		return STATUS_USAGE;
	for (int i = 1; i < argc && !status; i++)
		status = client_call("NetworkDelete", client_name(argv[i]), NULL);
	return status;
}

/* "[tcp:|udp:][ADDRESS:]PORT" */
static bool forward_read(char *text, struct network_definition_forward *ret)
{
	char *colon = strrchr(text, ':');

	if (!strncmp(text, "udp:", 4) || !strncmp(text, "tcp:", 4)) {
		ret->protocol = *text == 'u';
		text += 4;
	}
	if (colon && colon > text) {
		*colon = '\0';
		if (!take("host", text, ret->host_address, sizeof(ret->host_address)))
			return false;
		text = colon + 1;
	}
	return !parse_uint(text, 1, 65535, &ret->host_port);
}

static bool forward_same(const struct network_definition_forward *one,
			 const struct network_definition_forward *other)
{
	return one->protocol == other->protocol && one->host_port == other->host_port &&
	       !strcmp(one->host_address, other->host_address);
}

/* Takes an earlier one of the same port out. */
static bool forward_remove(struct network_definition *network,
			   const struct network_definition_forward *forward)
{
	uint64_t kept = 0, count = network->forward_count;

	for (uint64_t i = 0; i < count; i++)
		if (!forward_same(&network->forward[i], forward))
			network->forward[kept++] = network->forward[i];
	network->forward_count = kept;
	return kept < count;
}

static int forward(int argc, char **argv)
{
	struct network_definition_forward new = { 0 };
	struct network_definition network;
	const bool removes = argc == 4 && !strcmp(argv[3], "--delete");
	char *port;
	int status;

	if (argc != 4 || *argv[1] == '-' || !forward_read(argv[2], &new))
		return STATUS_USAGE;
	if (!removes) {
		port = strchr(argv[3], ':');
		if (port)
			*port++ = '\0';
		if ((port && parse_uint(port, 1, 65535, &new.port)) ||
		    !take("machine", argv[3], new.machine, sizeof(new.machine)))
			return STATUS_USAGE;
	}
	status = fetch(argv[1], &network);
	if (status)
		return status;
	if (!forward_remove(&network, &new) && removes) {
		log_error("network %s: that port is not forwarded", argv[1]);
		return STATUS_REFUSED;
	}
	if (!removes && network.forward_count == NETWORK_FORWARDS) {
		log_error("network %s: %d forwards are the most", argv[1], NETWORK_FORWARDS);
		return STATUS_REFUSED;
	}
	if (!removes)
		network.forward[network.forward_count++] = new;
	return define_struct(&network);
}

const struct command network_commands[] = {
	{ "list", "networks, and what is wrong with them", "[--json]", list },
	{ "info", "one network, and who is on it", "NETWORK [--json]", info },
	{ "create", "make one; without more it has NAT, and an address that is free",
	  "NAME [--address A.B.C.D/PREFIX] [--dhcp FIRST-LAST] [--isolated] [--open] | NAME --bridge BRIDGE",
	  create },
	{ "edit", "change one in an editor", "NETWORK | --file DEFINITION.yaml", edit },
	{ "delete", "remove them; no machine may have them", "NETWORK...", delete },
	{ "forward", "have a port of the host's be a machine's, or not any more",
	  "NETWORK [tcp:|udp:][ADDRESS:]PORT MACHINE[:PORT] | NETWORK [tcp:|udp:][ADDRESS:]PORT --delete",
	  forward },
	{ 0 },
};

int network_main(int argc, char **argv)
{
	return command_run("network", network_commands, argc, argv);
}
