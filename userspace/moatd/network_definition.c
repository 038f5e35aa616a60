// SPDX-License-Identifier: MIT OR GPL-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "userspace/lib/parse.h"
#include "userspace/moatd/network_definition.h"
#include "userspace/moatd/schema.h"
#include "userspace/moatd/schema_rows.h"
#include "userspace/moatd/why.h"

static const char *const modes[] = { "nat", "isolated", "bridge", NULL };
static const char *const protocols[] = { "tcp", "udp", NULL };

bool network_address(const char *text, uint32_t *ret)
{
	struct in_addr address;

	if (inet_pton(AF_INET, text, &address) != 1)
		return false;
	*ret = ntohl(address.s_addr);
	return true;
}

/* "192.168.77.1/24" */
static bool subnet_read(const char *text, uint32_t *ret_address, uint32_t *ret_prefix)
{
	const char *slash = strchr(text, '/');
	char address[16];
	uint64_t prefix;

	if (!slash || (size_t)(slash - text) >= sizeof(address) ||
	    parse_uint(slash + 1, 1, 32, &prefix))
		return false;
	memcpy(address, text, slash - text);
	address[slash - text] = '\0';
	*ret_prefix = prefix;
	return network_address(address, ret_address);
}

/* "192.168.77.10-192.168.77.200" */
static bool range_read(const char *text, uint32_t *ret_first, uint32_t *ret_last)
{
	const char *dash = strchr(text, '-');
	char first[16];

	if (!dash || (size_t)(dash - text) >= sizeof(first))
		return false;
	memcpy(first, text, dash - text);
	first[dash - text] = '\0';
	return network_address(first, ret_first) && network_address(dash + 1, ret_last);
}

static const char *name_wrong(const char *text)
{
	return network_name_valid(text) && strcmp(text, DEFINITION_USER_NETWORK) ? NULL :
	       "not \"user\"; at most 10 letters, digits and '-', a letter first";
}

static const char *machine_wrong(const char *text)
{
	return definition_name_valid(text) ? NULL : "the name of a machine";
}

static const char *subnet_wrong(const char *text)
{
	uint32_t address, prefix;

	return subnet_read(text, &address, &prefix) ? NULL : "an address with a prefix, as 192.168.77.1/24";
}

static const char *range_wrong(const char *text)
{
	uint32_t first, last;

	return range_read(text, &first, &last) ? NULL : "a range, as 192.168.77.10-192.168.77.200";
}

static const char *host_wrong(const char *text)
{
	uint32_t address;

	return network_address(text, &address) ? NULL : "an address of the host's";
}

static const struct schema forward_rows[] = {
	CHOICE("protocol", struct network_definition_forward, protocol, protocols),
	TEXT("host-address", struct network_definition_forward, host_address, host_wrong),
	NUMBER("host-port", struct network_definition_forward, host_port, 1, 65535, 0),
	TEXT("machine", struct network_definition_forward, machine, machine_wrong),
	NUMBER("port", struct network_definition_forward, port, 1, 65535, 0),
	{ 0 },
};

static const struct schema rows[] = {
	TEXT("name", struct network_definition, name, name_wrong),
	CHOICE("mode", struct network_definition, mode, modes),
	TEXT("address", struct network_definition, address, subnet_wrong),
	TEXT("dhcp", struct network_definition, dhcp, range_wrong),
	TEXT("bridge", struct network_definition, bridge, NULL),
	FLAG("open", struct network_definition, open, 0),
	LIST("forwards", struct network_definition, forward, forward_count, NETWORK_FORWARDS,
	     forward_rows),
	{ 0 },
};

void network_definition_spec(const struct network_definition *network, struct network_spec *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->name, sizeof(ret->name), "%s", network->name);
	ret->mode = network->mode;
	if (ret->mode == NETWORK_BRIDGE) {
		snprintf(ret->bridge, sizeof(ret->bridge), "%s", network->bridge);
		return;
	}
	subnet_read(network->address, &ret->address, &ret->prefix);
	if (range_read(network->dhcp, &ret->dhcp_first, &ret->dhcp_last))
		return;
	ret->dhcp_first = (ret->address & network_mask(ret->prefix)) + 2;
	ret->dhcp_last = (ret->address | ~network_mask(ret->prefix)) - 1;
	if (ret->dhcp_first <= ret->address && ret->address <= ret->dhcp_last)
		ret->dhcp_first = ret->address + 1;
}

int network_definition_check(const struct network_definition *network, struct definition_error *error)
{
	struct network_spec spec;
	char why[WHY_SIZE];
	int err;

	memset(error, 0, sizeof(*error));
	err = schema_check(rows, network, error);
	if (err)
		return err;
	for (uint64_t i = 0; i < network->forward_count; i++)
		if (!network->forward[i].host_port || !*network->forward[i].machine) {
			snprintf(error->text, sizeof(error->text),
				 "forwards: each needs a host-port and a machine");
			return -EINVAL;
		}
	network_definition_spec(network, &spec);
	err = network_check(&spec, why);
	if (err)
		snprintf(error->text, sizeof(error->text), "%s", why);
	return err;
}

void network_definition_init(struct network_definition *network)
{
	memset(network, 0, sizeof(*network));
	schema_init(rows, network);
}

int network_definition_read(struct network_definition *network, const char *text, size_t len,
			    struct definition_error *error)
{
	int err;

	memset(network, 0, sizeof(*network));
	memset(error, 0, sizeof(*error));
	if (len > DEFINITION_TEXT_MAX) {
		snprintf(error->text, sizeof(error->text), "a definition has at most 64K");
		return -EINVAL;
	}
	err = schema_read(rows, network, text, len, error);
	return err ? err : network_definition_check(network, error);
}

char *network_definition_write(const struct network_definition *network)
{
	return schema_write(rows, network);
}

struct json_object *network_definition_json(const struct network_definition *network)
{
	return schema_json(rows, network);
}
