// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A network is made from the inside out, and removed in reverse: the rules are there before the bridge is up, and
 * until it is gone. Each step is fine with what it is to do having been done, and each but the last leaves
 * something by which network_list() finds the rest.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/bridge.h"
#include "userspace/moatd/dnsmasq.h"
#include "userspace/moatd/network.h"
#include "userspace/moatd/rules.h"
#include "userspace/moatd/why.h"

static struct network_text bridge_of(const struct network_spec *spec)
{
	struct network_text ret = network_interface(spec->name);

	if (spec->mode == NETWORK_BRIDGE)
		snprintf(ret.text, sizeof(ret.text), "%.*s", IFNAMSIZ - 1, spec->bridge);
	return ret;
}

/* One that has this value already is left alone: to write it has effects of its own. */
static int sysctl_set(const char *path, char value, char *why)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), err = fd < 0 ? -errno : 0;
	char now;

	if (!err && (pread(fd, &now, 1, 0) != 1 || now != value))
		err = fd_write_full(fd, &value, 1);
	fd_close(fd);
	return err ? why_say(why, err, "cannot set %s: %s", path, strerror(-err)) : 0;
}

/* The host routes, and 127.0.0.1 is an address to forward from. */
static int nat_set(const struct network_spec *spec, const char *bridge, char *why)
{
	const bool nat = spec->mode == NETWORK_NAT;
	char path[80];
	int err = nat ? sysctl_set("/proc/sys/net/ipv4/ip_forward", '1', why) : 0;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/route_localnet", bridge);
	return err ? err : sysctl_set(path, nat ? '1' : '0', why);
}

static int network_make(const struct network_spec *spec, const char *bridge, char *why)
{
	int err = rules_set(spec, why);

	if (!err)
		err = nat_set(spec, bridge, why);
	if (!err)
		err = bridge_set_up(bridge, spec->address, spec->prefix, why);
	if (!err)
		err = dnsmasq_start(spec, why);
	return err < 0 ? err : 0;
}

int network_start(const struct network_spec *spec, char *why)
{
	const struct network_text bridge = bridge_of(spec);
	char ignored[WHY_SIZE];
	int err = network_check(spec, why), made;

	if (err)
		return err;
	if (spec->mode == NETWORK_BRIDGE)
		return bridge_find(bridge.text, why);
	err = bridge_conflict(bridge.text, spec->address, spec->prefix, why);
	if (err)
		return err;
	made = bridge_create(bridge.text, spec->address, why);
	if (made < 0)
		return made;
	err = network_make(spec, bridge.text, why);
	if (err && made)
		network_stop(spec->name, ignored);
	return err;
}

static int name_check(const char *name, char *why)
{
	return network_name_valid(name) ? 0 : why_say(why, -EINVAL, "this is no name of a network");
}

int network_stop(const char *name, char *why)
{
	const struct network_text bridge = network_interface(name);
	char later[WHY_SIZE], *to = why;
	int err = name_check(name, why), next;

	if (err)
		return err;
	err = dnsmasq_remove(name, to);
	to = err ? later : why;
	next = bridge_remove(bridge.text, to);
	err = err ? err : next;
	/* Never without its rules. */
	if (next)
		return err;
	next = rules_remove(name, err ? later : why);
	return err ? err : next;
}

int network_watch(const struct network_spec *spec, int *ret_pidfd, char *why)
{
	int err = network_check(spec, why), fd;

	*ret_pidfd = -1;
	if (err || spec->mode == NETWORK_BRIDGE)
		return err ? err : bridge_find(spec->bridge, why);
	fd = dnsmasq_find(spec);
	if (fd >= 0 && rules_there(spec->name) && !bridge_find(bridge_of(spec).text, why)) {
		*ret_pidfd = fd;
		return 0;
	}
	fd_close(fd);
	err = network_start(spec, why);
	if (err)
		return err;
	*ret_pidfd = dnsmasq_find(spec);
	return *ret_pidfd < 0 ? why_say(why, *ret_pidfd, "network %s: dnsmasq ended at once", spec->name) : 1;
}

/* Listing */

struct names {
	char (*name)[NETWORK_NAME_SIZE];
	unsigned int count;
	unsigned int max;
};

static int names_add(void *context, const char *name)
{
	struct names *names = context;

	for (unsigned int i = 0; i < names->count; i++)
		if (!strcmp(names->name[i], name))
			return 0;
	if (names->count < names->max)
		strcpy(names->name[names->count++], name);
	return 0;
}

/* Of each entry of @path that begins with @prefix, what comes after it. */
static void names_add_entries(struct names *names, const char *path, const char *prefix)
{
	DIR *folder = opendir(path);
	struct dirent *entry;

	while (folder && (entry = readdir(folder)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)) &&
		    network_name_valid(entry->d_name + strlen(prefix)))
			names_add(names, entry->d_name + strlen(prefix));
	if (folder)
		closedir(folder);
}

int network_list(char names[][NETWORK_NAME_SIZE], unsigned int max, char *why)
{
	struct names found = { .name = names, .max = max };
	int err;

	names_add_entries(&found, NETWORK_FOLDER, "");
	names_add_entries(&found, "/sys/class/net", NETWORK_INTERFACE);
	err = rules_list(names_add, &found, why);
	return err ? err : (int)found.count;
}

/* Taps */

/* One more queue of the tap @name. */
static int tap_queue(const char *name, uint32_t uid, bool several)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (several ? IFF_MULTI_QUEUE : 0) };
	int err, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	strcpy(ifr.ifr_name, name);
	if (!ioctl(fd, TUNSETIFF, &ifr) && (uid == ~0U || !ioctl(fd, TUNSETOWNER, (unsigned long)uid)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int tap_make(const char *name, uint32_t uid, unsigned int queues, int *fds, char *why)
{
	for (unsigned int i = 0; i < queues; i++) {
		fds[i] = tap_queue(name, uid, queues > 1);
		if (fds[i] < 0)
			return why_say(why, fds[i], "cannot make tap %s: %s", name, strerror(-fds[i]));
	}
	return 0;
}

int network_tap(const struct network_spec *spec, const char *name, uint32_t uid, unsigned int queues, int *ret_fds,
		char *why)
{
	int fds[NETWORK_QUEUES_MAX] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	int err = network_check(spec, why);

	if (err)
		return err;
	if (!network_tap_name_valid(name) || !queues || queues > NETWORK_QUEUES_MAX)
		return why_say(why, -EINVAL, "there is no tap of that name, or with %u queues", queues);
	err = bridge_find(bridge_of(spec).text, why);
	if (err)
		return err;
	/* One that stays would, and would be whose it is. */
	if (if_nametoindex(name))
		return why_say(why, -EEXIST, "there is an interface %s already", name);
	err = tap_make(name, uid, queues, fds, why);
	if (!err)
		err = bridge_attach(bridge_of(spec).text, name, why);
	if (!err)
		memcpy(ret_fds, fds, queues * sizeof(fds[0]));
	for (unsigned int i = 0; err && i < queues; i++)
		fd_close(fds[i]);
	return err;
}

int network_guard(const struct network_spec *spec, const char *tap, const uint8_t *mac, uint32_t address, char *why)
{
	int err = network_check(spec, why);

	if (err)
		return err;
	if (!network_tap_name_valid(tap) || !network_mac_valid(mac))
		return why_say(why, -EINVAL, "no name of a tap, or no MAC of a machine");
	if (address && spec->mode != NETWORK_BRIDGE && !network_has(spec, address))
		return why_say(why, -EINVAL, "%s is no address of a machine on network %s",
			       network_text(address).text, spec->name);
	return rules_guard(spec->name, tap, mac, address, why);
}

/* Machines */

static int mac_check(const struct network_spec *spec, const uint8_t *mac, char *why)
{
	int err = network_check(spec, why);

	if (err)
		return err;
	if (spec->mode == NETWORK_BRIDGE)
		return why_say(why, -EINVAL, "network %s is a bridge of the host's: so are its addresses", spec->name);
	return network_mac_valid(mac) ? 0 : why_say(why, -EINVAL, "no MAC of a machine");
}

int network_host(const struct network_spec *spec, const uint8_t *mac, const char *name, uint32_t address, char *why)
{
	int err = mac_check(spec, mac, why);

	if (err)
		return err;
	if (!network_host_name_valid(name))
		return why_say(why, -EINVAL, "a name is letters, digits and '-', a letter first");
	if (!network_has(spec, address))
		return why_say(why, -EINVAL, "%s is no address of a machine on network %s",
			       network_text(address).text, spec->name);
	return dnsmasq_host(spec, mac, name, address, why);
}

int network_host_remove(const struct network_spec *spec, const uint8_t *mac, char *why)
{
	int err = mac_check(spec, mac, why);

	return err ? err : dnsmasq_host(spec, mac, NULL, 0, why);
}

int network_lease(const struct network_spec *spec, const uint8_t *mac, uint32_t *ret_address, char *why)
{
	int err = mac_check(spec, mac, why);

	return err ? err : dnsmasq_lease(spec, mac, ret_address, why);
}

/* Forwards */

#define FORWARDS_MAX	1024
#define NETWORKS_MAX	256

static bool forward_same(const struct network_forward *one, const struct network_forward *other)
{
	return network_forward_clash(one, other) && one->host_address == other->host_address &&
	       one->guest_address == other->guest_address && one->guest_port == other->guest_port;
}

/* Return: 1 where network @name has just that forward; -EADDRINUSE where it has another one of the same port. */
static int forward_find(const char *name, const struct network_forward *forward, char *why)
{
	static struct network_forward have[FORWARDS_MAX];
	int count = rules_forwards(name, have, FORWARDS_MAX, why);

	if (count > FORWARDS_MAX)
		return why_say(why, -ENOSPC, "network %s has more than %d forwards", name, FORWARDS_MAX);
	for (int i = 0; i < count; i++) {
		if (forward_same(&have[i], forward))
			return 1;
		if (network_forward_clash(&have[i], forward))
			return why_say(why, -EADDRINUSE, "network %s forwards port %u to %s, port %u, already", name,
				       have[i].host_port, network_text(have[i].guest_address).text,
				       have[i].guest_port);
	}
	return count < 0 ? count : 0;
}

/* The rules of all networks see a connection, so each port is one network's. One without tables has none. */
static int forward_check_others(const char *name, const struct network_forward *forward, char *why)
{
	static char names[NETWORKS_MAX][NETWORK_NAME_SIZE];
	int count = network_list(names, NETWORKS_MAX, why);

	if (count < 0)
		return count;
	for (int i = 0; i < count; i++) {
		const int err = strcmp(names[i], name) ? forward_find(names[i], forward, why) : 0;

		if (err == 1)
			return why_say(why, -EADDRINUSE, "network %s has that forward", names[i]);
		if (err == -EADDRINUSE)
			return err;
	}
	return 0;
}

int network_forward(const struct network_spec *spec, const struct network_forward *forward, char *why)
{
	int err = network_check(spec, why);

	if (!err)
		err = network_forward_check(spec, forward, why);
	if (!err)
		err = forward_check_others(spec->name, forward, why);
	if (!err)
		err = forward_find(spec->name, forward, why);
	if (err)
		return err < 0 ? err : 0;
	return rules_forward(spec->name, forward, why);
}

int network_forward_remove(const struct network_spec *spec, const struct network_forward *forward, char *why)
{
	int err = network_check(spec, why);

	if (!err)
		err = network_forward_check(spec, forward, why);
	if (!err)
		err = forward_find(spec->name, forward, why);
	if (err < 0)
		return err;
	return err ? rules_forward_remove(spec->name, forward, why) :
		     why_say(why, -ENOENT, "network %s has no such forward", spec->name);
}

int network_forwards(const char *name, struct network_forward *forwards, unsigned int max, char *why)
{
	int err = name_check(name, why);

	return err ? err : rules_forwards(name, forwards, max, why);
}
