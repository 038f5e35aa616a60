// SPDX-License-Identifier: MIT OR GPL-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/route.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/bridge.h"
#include "userspace/moatd/network.h"
#include "userspace/moatd/why.h"

/* A default route in two halves is one, too. */
#define ROUTE_PREFIX_MIN	2

/* libnl has errors of its own. */
static int nl_errno(int err)
{
	switch (-err) {
	case NLE_SUCCESS:	return 0;
	case NLE_EXIST:		return -EEXIST;
	case NLE_NODEV:
	case NLE_OBJ_NOTFOUND:	return -ENODEV;
	case NLE_NOMEM:		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:	return -EPERM;
	case NLE_BUSY:		return -EBUSY;
	}
	return -EIO;
}

static int nl_fail(char *why, int err, const char *what, const char *name)
{
	return why_say(why, nl_errno(err), "cannot %s %s: %s", what, name, nl_geterror(err));
}

static int route_open(struct nl_sock **ret, char *why)
{
	int err;

	*ret = nl_socket_alloc();
	if (!*ret)
		return why_say(why, -ENOMEM, "no memory for a netlink socket");
	err = nl_connect(*ret, NETLINK_ROUTE);
	if (!err)
		return 0;
	nl_socket_free(*ret);
	return nl_fail(why, err, "open", "a netlink socket");
}

static uint32_t address_of(struct nl_addr *addr)
{
	uint32_t raw;

	memcpy(&raw, nl_addr_get_binary_addr(addr), sizeof(raw));
	return ntohl(raw);
}

/* Does it overlap @dst, if that is one, which interface number @index has? */
static int conflict_check(uint32_t address, uint32_t prefix, struct nl_addr *dst, int index, char *why)
{
	char name[IFNAMSIZ] = "nowhere";
	uint32_t other, other_prefix;

	if (!dst || nl_addr_get_len(dst) != sizeof(other))
		return 0;
	other = address_of(dst);
	other_prefix = nl_addr_get_prefixlen(dst);
	if (!network_overlap(address, prefix, other, other_prefix))
		return 0;
	if_indextoname(index, name);
	return why_say(why, -EADDRINUSE, "%s/%u overlaps what the host has already: %s/%u, %s",
		       network_text(address & network_mask(prefix)).text, prefix, network_text(other).text,
		       other_prefix, name);
}

static int conflict_addresses(struct nl_sock *sock, int own, uint32_t address, uint32_t prefix, char *why)
{
	struct nl_cache *cache;
	struct nl_object *at;
	int err = rtnl_addr_alloc_cache(sock, &cache);

	if (err)
		return nl_fail(why, err, "read", "the host's addresses");
	for (at = nl_cache_get_first(cache); at && !err; at = nl_cache_get_next(at)) {
		struct rtnl_addr *addr = (struct rtnl_addr *)at;

		if (rtnl_addr_get_family(addr) == AF_INET && rtnl_addr_get_ifindex(addr) != own)
			err = conflict_check(address, prefix, rtnl_addr_get_local(addr),
					     rtnl_addr_get_ifindex(addr), why);
	}
	nl_cache_free(cache);
	return err;
}

static int conflict_route(struct rtnl_route *route, int own, uint32_t address, uint32_t prefix, char *why)
{
	struct nl_addr *dst = rtnl_route_get_dst(route);
	struct rtnl_nexthop *hop = rtnl_route_nexthop_n(route, 0);
	const int index = hop ? rtnl_route_nh_get_ifindex(hop) : 0;

	if (!dst || rtnl_route_get_type(route) != RTN_UNICAST || (own && index == own) ||
	    nl_addr_get_prefixlen(dst) < ROUTE_PREFIX_MIN)
		return 0;
	return conflict_check(address, prefix, dst, index, why);
}

static int conflict_routes(struct nl_sock *sock, int own, uint32_t address, uint32_t prefix, char *why)
{
	struct nl_cache *cache;
	struct nl_object *at;
	int err = rtnl_route_alloc_cache(sock, AF_INET, 0, &cache);

	if (err)
		return nl_fail(why, err, "read", "the host's routes");
	for (at = nl_cache_get_first(cache); at && !err; at = nl_cache_get_next(at))
		err = conflict_route((struct rtnl_route *)at, own, address, prefix, why);
	nl_cache_free(cache);
	return err;
}

int bridge_conflict(const char *bridge, uint32_t address, uint32_t prefix, char *why)
{
	const int own = if_nametoindex(bridge);
	struct nl_sock *sock;
	int err = route_open(&sock, why);

	if (err)
		return err;
	err = conflict_addresses(sock, own, address, prefix, why);
	if (!err)
		err = conflict_routes(sock, own, address, prefix, why);
	nl_socket_free(sock);
	return err;
}

/* Ports come and go, and the bridge's own MAC does not change with them: guests remember it. */
static int bridge_add(struct nl_sock *sock, const char *bridge, uint32_t address)
{
	struct rtnl_link *link = rtnl_link_bridge_alloc();
	const uint8_t mac[6] = { 0x02, 0x6d, address >> 24, address >> 16, address >> 8, address };
	struct nl_addr *own = nl_addr_build(AF_LLC, mac, sizeof(mac));
	int err = -NLE_NOMEM;

	if (link && own) {
		rtnl_link_set_name(link, bridge);
		rtnl_link_set_addr(link, own);
		err = rtnl_link_add(sock, link, NLM_F_CREATE | NLM_F_EXCL);
	}
	nl_addr_put(own);
	rtnl_link_put(link);
	return err;
}

/* The kernel's switch for IPv6, if it has any. */
static void interface_no_ipv6(const char *interface)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", interface);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		fd_write_full(fd, "1", 1);
	fd_close(fd);
}

int bridge_create(const char *bridge, uint32_t address, char *why)
{
	struct nl_sock *sock;
	int err = route_open(&sock, why);

	if (err)
		return err;
	err = bridge_add(sock, bridge, address);
	nl_socket_free(sock);
	if (err == -NLE_EXIST)
		return bridge_find(bridge, why);
	return err ? nl_fail(why, err, "make bridge", bridge) : 1;
}

/* All IPv4 addresses but the one. */
static int address_clear(struct nl_sock *sock, int index, uint32_t address, uint32_t prefix)
{
	struct nl_cache *cache;
	struct nl_object *at;
	int err = rtnl_addr_alloc_cache(sock, &cache);

	if (err)
		return err;
	for (at = nl_cache_get_first(cache); at; at = nl_cache_get_next(at)) {
		struct rtnl_addr *addr = (struct rtnl_addr *)at;
		struct nl_addr *local = rtnl_addr_get_local(addr);

		if (rtnl_addr_get_family(addr) == AF_INET && rtnl_addr_get_ifindex(addr) == index &&
		    (!local || address_of(local) != address || nl_addr_get_prefixlen(local) != prefix))
			rtnl_addr_delete(sock, addr, 0);
	}
	nl_cache_free(cache);
	return 0;
}

static int address_set(struct nl_sock *sock, int index, uint32_t address, uint32_t prefix)
{
	const uint32_t raw = htonl(address), last = htonl(address | ~network_mask(prefix));
	struct rtnl_addr *addr = rtnl_addr_alloc();
	struct nl_addr *local = nl_addr_build(AF_INET, &raw, sizeof(raw));
	struct nl_addr *all = nl_addr_build(AF_INET, &last, sizeof(last));
	int err = -NLE_NOMEM;

	if (addr && local && all) {
		nl_addr_set_prefixlen(local, prefix);
		rtnl_addr_set_ifindex(addr, index);
		rtnl_addr_set_local(addr, local);
		rtnl_addr_set_broadcast(addr, all);
		err = rtnl_addr_add(sock, addr, NLM_F_REPLACE);
	}
	nl_addr_put(all);
	nl_addr_put(local);
	rtnl_addr_put(addr);
	return err;
}

/* Turns on interface @index, as a port of @master unless that is 0. */
static int link_turn_on(struct nl_sock *sock, int index, int master)
{
	struct rtnl_link *link = rtnl_link_alloc(), *change = rtnl_link_alloc();
	int err = -NLE_NOMEM;

	if (link && change) {
		rtnl_link_set_ifindex(link, index);
		if (master)
			rtnl_link_set_master(change, master);
		rtnl_link_set_flags(change, IFF_UP);
		err = rtnl_link_change(sock, link, change, 0);
	}
	rtnl_link_put(change);
	rtnl_link_put(link);
	return err;
}

int bridge_set_up(const char *bridge, uint32_t address, uint32_t prefix, char *why)
{
	const int index = if_nametoindex(bridge);
	struct nl_sock *sock;
	int err = route_open(&sock, why);

	if (err)
		return err;
	interface_no_ipv6(bridge);
	err = address_clear(sock, index, address, prefix);
	if (!err)
		err = address_set(sock, index, address, prefix);
	if (!err)
		err = link_turn_on(sock, index, 0);
	nl_socket_free(sock);
	return err ? nl_fail(why, err, "set up bridge", bridge) : 0;
}

int bridge_find(const char *bridge, char *why)
{
	struct rtnl_link *link;
	struct nl_sock *sock;
	bool is;
	int err = route_open(&sock, why);

	if (err)
		return err;
	err = rtnl_link_get_kernel(sock, 0, bridge, &link);
	nl_socket_free(sock);
	if (err)
		return nl_fail(why, err, "find bridge", bridge);
	is = rtnl_link_is_bridge(link);
	rtnl_link_put(link);
	return is ? 0 : why_say(why, -EINVAL, "interface %s is no bridge", bridge);
}

int bridge_remove(const char *bridge, char *why)
{
	struct rtnl_link *link;
	struct nl_sock *sock;
	int err = bridge_find(bridge, why);

	if (err)
		return err == -ENODEV ? 0 : err;
	err = route_open(&sock, why);
	if (err)
		return err;
	err = -NLE_NOMEM;
	link = rtnl_link_alloc();
	if (link) {
		rtnl_link_set_name(link, bridge);
		err = rtnl_link_delete(sock, link);
	}
	rtnl_link_put(link);
	nl_socket_free(sock);
	return err ? nl_fail(why, err, "remove bridge", bridge) : 0;
}

int bridge_attach(const char *bridge, const char *interface, char *why)
{
	const int index = if_nametoindex(interface), master = if_nametoindex(bridge);
	struct nl_sock *sock;
	int err;

	if (!index || !master)
		return why_say(why, -ENODEV, "there is no interface %s", index ? bridge : interface);
	err = route_open(&sock, why);
	if (err)
		return err;
	interface_no_ipv6(interface);
	err = link_turn_on(sock, index, master);
	nl_socket_free(sock);
	return err ? nl_fail(why, err, "add to a bridge:", interface) : 0;
}
