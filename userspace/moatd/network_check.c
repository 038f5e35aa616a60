// SPDX-License-Identifier: MIT OR GPL-2.0
/* What can be said of a network without looking at the host; and what dnsmasq says of it. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "userspace/lib/array.h"
#include "userspace/moatd/network.h"
#include "userspace/moatd/why.h"

#define LETTERS		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS		"0123456789"

/* Of 1 to @max characters of @set, the first a letter. */
static bool name_valid(const char *name, size_t max, const char *set)
{
	const size_t len = strnlen(name, max + 1);

	return len && len <= max && strspn(name, set) == len && strchr(LETTERS, *name);
}

bool network_name_valid(const char *name)
{
	return name_valid(name, NETWORK_NAME_MAX, LETTERS DIGITS "-");
}

/* dnsmasq has words that are no names where it looks for one. */
bool network_host_name_valid(const char *name)
{
	static const char *const words[] = { "ignore", "infinite", "deprecated" };

	if (!name_valid(name, NETWORK_HOST_MAX, LETTERS DIGITS "-") || name[strlen(name) - 1] == '-')
		return false;
	for (unsigned int i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(name, words[i]))
			return false;
	return true;
}

bool network_tap_name_valid(const char *name)
{
	return name_valid(name, IFNAMSIZ - 1, LETTERS DIGITS "-_.") &&
	       strncmp(name, NETWORK_INTERFACE, strlen(NETWORK_INTERFACE));
}

bool network_mac_valid(const uint8_t *mac)
{
	return !(mac[0] & 1) && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

bool network_overlap(uint32_t address, uint32_t prefix, uint32_t other, uint32_t other_prefix)
{
	return !((address ^ other) & network_mask(prefix < other_prefix ? prefix : other_prefix));
}

/* The first and the last address of a network are nobody's. */
static bool subnet_has(const struct network_spec *spec, uint32_t address)
{
	const uint32_t mask = network_mask(spec->prefix), host = address & ~mask;

	return !((address ^ spec->address) & mask) && host && host != ~mask;
}

bool network_has(const struct network_spec *spec, uint32_t address)
{
	return subnet_has(spec, address) && address != spec->address;
}

/* This network, loopback, multicast and what is beyond. */
static bool address_special(uint32_t address)
{
	return !(address >> 24) || address >> 24 == 127 || address >> 24 >= 224;
}

static int check_bridge(const struct network_spec *spec, char *why)
{
	if (!*spec->bridge || strnlen(spec->bridge, IFNAMSIZ) == IFNAMSIZ || strchr(spec->bridge, '/'))
		return why_say(why, -EINVAL, "network %s is to be a bridge, and does not say which", spec->name);
	if (spec->address || spec->prefix || spec->dhcp_first || spec->dhcp_last)
		return why_say(why, -EINVAL, "network %s is a bridge of the host's: its addresses are, too",
			       spec->name);
	return 0;
}

static int check_range(const struct network_spec *spec, char *why)
{
	if (!subnet_has(spec, spec->dhcp_first) || !subnet_has(spec, spec->dhcp_last) ||
	    spec->dhcp_first > spec->dhcp_last)
		return why_say(why, -EINVAL, "network %s: addresses from %s to %s are no range in %s/%u", spec->name,
			       network_text(spec->dhcp_first).text, network_text(spec->dhcp_last).text,
			       network_text(spec->address).text, spec->prefix);
	if (spec->dhcp_first <= spec->address && spec->address <= spec->dhcp_last)
		return why_say(why, -EINVAL, "network %s: its own address %s is among those for machines",
			       spec->name, network_text(spec->address).text);
	return 0;
}

int network_check(const struct network_spec *spec, char *why)
{
	if (!network_name_valid(spec->name))
		return why_say(why, -EINVAL, "a network's name is 1 to %d letters, digits and '-', a letter first",
			       NETWORK_NAME_MAX);
	if (spec->mode >= NETWORK_MODES)
		return why_say(why, -EINVAL, "network %s: there is no mode %u", spec->name, spec->mode);
	if (spec->mode == NETWORK_BRIDGE)
		return check_bridge(spec, why);
	if (*spec->bridge)
		return why_say(why, -EINVAL, "network %s has a bridge of its own, not the host's", spec->name);
	if (spec->prefix < 16 || spec->prefix > 30)
		return why_say(why, -EINVAL, "network %s: /%u is not between /16 and /30", spec->name,
			       spec->prefix);
	if (address_special(spec->address) || !subnet_has(spec, spec->address))
		return why_say(why, -EINVAL, "network %s: %s/%u is no address that a host can have", spec->name,
			       network_text(spec->address).text, spec->prefix);
	return check_range(spec, why);
}

int network_forward_check(const struct network_spec *spec, const struct network_forward *forward, char *why)
{
	if (spec->mode != NETWORK_NAT)
		return why_say(why, -EINVAL, "network %s has no forwards: it is not of NAT", spec->name);
	if (forward->protocol != IPPROTO_TCP && forward->protocol != IPPROTO_UDP)
		return why_say(why, -EINVAL, "forwards are of TCP and UDP");
	if (forward->host_port - 1U >= 65535 || forward->guest_port - 1U >= 65535)
		return why_say(why, -EINVAL, "a port is 1 to 65535");
	if (forward->host_address >> 24 >= 224 || (forward->host_address && !(forward->host_address >> 24)))
		return why_say(why, -EINVAL, "%s is no address of a host", network_text(forward->host_address).text);
	if (!network_has(spec, forward->guest_address))
		return why_say(why, -EINVAL, "%s is no address of a machine on network %s",
			       network_text(forward->guest_address).text, spec->name);
	return 0;
}

bool network_forward_clash(const struct network_forward *one, const struct network_forward *other)
{
	return one->protocol == other->protocol && one->host_port == other->host_port &&
	       (!one->host_address || !other->host_address || one->host_address == other->host_address);
}

/* A line is: end, MAC, address, name, client. Half of one, as seen while it is written, has no end. */
bool network_lease_read(const char *line, const struct network_spec *spec, const uint8_t *mac, int64_t now,
			uint32_t *ret_address)
{
	unsigned int a, b, c, d;
	char owner[18], after;
	int64_t end;

	if (!strchr(line, '\n') ||
	    sscanf(line, "%19" SCNd64 " %17s %3u.%3u.%3u.%3u%c", &end, owner, &a, &b, &c, &d, &after) != 7)
		return false;
	if (after != ' ' || (end && end <= now) || strcasecmp(owner, network_mac_text(mac).text))
		return false;
	if (a > 255 || b > 255 || c > 255 || d > 255 || !network_has(spec, a << 24 | b << 16 | c << 8 | d))
		return false;
	*ret_address = a << 24 | b << 16 | c << 8 | d;
	return true;
}
