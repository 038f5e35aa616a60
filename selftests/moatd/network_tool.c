// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The functions of userspace/moatd/network.h as commands. A SPEC is MODE,NAME,ADDRESS,PREFIX,FIRST,LAST; or
 * bridge,NAME,BRIDGE.
 *
 *	network_tool start|watch SPEC
 *	network_tool stop|forwards NAME
 *	network_tool list
 *	network_tool tap SPEC TAP QUEUES COMMAND ARGS...	COMMAND has the queues from descriptor 3 on
 *	network_tool guard SPEC TAP MAC ADDRESS
 *	network_tool host SPEC MAC NAME ADDRESS
 *	network_tool unhost|lease SPEC MAC
 *	network_tool forward|unforward SPEC tcp|udp HOST PORT GUEST PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/moatd/network.h"
#include "userspace/moatd/why.h"

static char why[WHY_SIZE] = "nothing was said";

static uint32_t take_address(const char *text)
{
	struct in_addr addr;

	if (inet_pton(AF_INET, text, &addr) == 1)
		return ntohl(addr.s_addr);
	fprintf(stderr, "%s is no address\n", text);
	exit(2);
}

static const uint8_t *take_mac(const char *text)
{
	static uint8_t mac[6];

	sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]);
	return mac;
}

static const struct network_spec *take_spec(char *text)
{
	static struct network_spec spec;
	static const char *const modes[] = { "nat", "isolated", "bridge" };
	char *part[6] = { NULL };

	for (unsigned int i = 0; i < ARRAY_SIZE(part); i++)
		part[i] = strsep(&text, ",");
	while (spec.mode < NETWORK_BRIDGE && strcmp(part[0], modes[spec.mode]))
		spec.mode++;
	snprintf(spec.name, sizeof(spec.name), "%s", part[1]);
	if (spec.mode == NETWORK_BRIDGE) {
		snprintf(spec.bridge, sizeof(spec.bridge), "%s", part[2]);
		return &spec;
	}
	spec.address = take_address(part[2]);
	spec.prefix = atoi(part[3]);
	spec.dhcp_first = take_address(part[4]);
	spec.dhcp_last = take_address(part[5]);
	return &spec;
}

static int do_start(char **args)
{
	return network_start(take_spec(args[0]), why);
}

static int do_watch(char **args)
{
	int fd, err = network_watch(take_spec(args[0]), &fd, why);

	if (err >= 0)
		puts(err ? "started" : "ran");
	return err;
}

static int do_stop(char **args)
{
	return network_stop(args[0], why);
}

static int do_list(char **args)
{
	char names[16][NETWORK_NAME_SIZE];
	int count = network_list(names, ARRAY_SIZE(names), why);

	(void)args;
	for (int i = 0; i < count; i++)
		puts(names[i]);
	return count;
}

/* Descriptors that were opened one after the other; moved to 3 and on. */
static int do_tap(char **args)
{
	const unsigned int queues = atoi(args[2]);
	int fds[NETWORK_QUEUES_MAX], err = network_tap(take_spec(args[0]), args[1], -1, queues, fds, why);

	if (err)
		return err;
	for (unsigned int i = 0; i < queues; i++) {
		if (fds[i] != 3 + (int)i)
			dup2(fds[i], 3 + i);
		fcntl(3 + i, F_SETFD, 0);
	}
	execvp(args[3], args + 3);
	return why_say(why, -errno, "cannot run %s", args[3]);
}

static int do_guard(char **args)
{
	return network_guard(take_spec(args[0]), args[1], take_mac(args[2]), take_address(args[3]), why);
}

static int do_host(char **args)
{
	return network_host(take_spec(args[0]), take_mac(args[1]), args[2], take_address(args[3]), why);
}

static int do_unhost(char **args)
{
	return network_host_remove(take_spec(args[0]), take_mac(args[1]), why);
}

static int do_lease(char **args)
{
	uint32_t address;
	int err = network_lease(take_spec(args[0]), take_mac(args[1]), &address, why);

	if (!err)
		puts(network_text(address).text);
	return err;
}

static struct network_forward take_forward(char **args)
{
	return (struct network_forward){
		.protocol = strcmp(args[1], "udp") ? IPPROTO_TCP : IPPROTO_UDP,
		.host_address = take_address(args[2]), .host_port = atoi(args[3]),
		.guest_address = take_address(args[4]), .guest_port = atoi(args[5]),
	};
}

static int do_forward(char **args)
{
	const struct network_forward forward = take_forward(args);

	return network_forward(take_spec(args[0]), &forward, why);
}

static int do_unforward(char **args)
{
	const struct network_forward forward = take_forward(args);

	return network_forward_remove(take_spec(args[0]), &forward, why);
}

static int do_forwards(char **args)
{
	struct network_forward forwards[16];
	int count = network_forwards(args[0], forwards, ARRAY_SIZE(forwards), why);

	for (int i = 0; i < count && i < (int)ARRAY_SIZE(forwards); i++)
		printf("%s %s %u %s %u\n", forwards[i].protocol == IPPROTO_UDP ? "udp" : "tcp",
		       network_text(forwards[i].host_address).text, forwards[i].host_port,
		       network_text(forwards[i].guest_address).text, forwards[i].guest_port);
	return count;
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **args);
} commands[] = {
	{ "start", 1, do_start }, { "watch", 1, do_watch }, { "stop", 1, do_stop }, { "list", 0, do_list },
	{ "tap", 4, do_tap }, { "guard", 4, do_guard }, { "host", 4, do_host }, { "unhost", 2, do_unhost },
	{ "lease", 2, do_lease }, { "forward", 6, do_forward }, { "unforward", 6, do_unforward },
	{ "forwards", 1, do_forwards },
};

int main(int argc, char **argv)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		int err;

		if (argc < 2 || strcmp(argv[1], commands[i].name) || argc - 2 < commands[i].args)
			continue;
		err = commands[i].run(argv + 2);
		if (err < 0)
			fprintf(stderr, "%s: %s\n", strerrorname_np(-err), why);
		return err < 0;
	}
	fprintf(stderr, "network_tool: no such command\n");
	return 2;
}
