/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Networks of machines: a bridge of the host's with its address, rules for who may reach whom, and a server of
 * addresses and names on it. All of it is the kernel's and a dnsmasq's, so it goes on without the process that
 * made it; what is there is found by its name, moat-NAME, and what is half there, by starting it again, or
 * stopping it.
 *
 * All functions return a negative errno for what went wrong and then say it in @why, WHY_SIZE bytes. They need
 * root, a umask of 022, no other thread, and nobody else to change the same networks meanwhile. Addresses are IPv4, in the
 * host's byte order. A @mac is 6 bytes, of one machine.
 */
#ifndef MOATD_NETWORK_H
#define MOATD_NETWORK_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NETWORK_NAME_MAX	10
#define NETWORK_NAME_SIZE	12
#define NETWORK_HOST_MAX	63
#define NETWORK_QUEUES_MAX	8

/**
 * enum network_mode - where a network leads
 * @NETWORK_NAT: to wherever the host does, under the host's address; not to other such networks
 * @NETWORK_ISOLATED: nowhere
 * @NETWORK_BRIDGE: it is a bridge that the host has, to which machines are added; nothing is made
 */
enum network_mode { NETWORK_NAT, NETWORK_ISOLATED, NETWORK_BRIDGE, NETWORK_MODES };

/**
 * struct network_spec - a network, as it is to be
 * @name: 1 to NETWORK_NAME_MAX letters, digits and '-', a letter first
 * @mode: enum network_mode
 * @address, @prefix: the bridge's own, as 192.168.77.1 and 24; prefix 16 to 30
 * @dhcp_first, @dhcp_last: machines get addresses from here, unless network_host() says which
 * @bridge: NETWORK_BRIDGE: the bridge; then the numbers before are 0. Else empty
 */
struct network_spec {
	char name[NETWORK_NAME_SIZE];
	uint32_t mode;
	uint32_t address;
	uint32_t prefix;
	uint32_t dhcp_first;
	uint32_t dhcp_last;
	char bridge[IFNAMSIZ];
};

/**
 * struct network_forward - a port of the host's that is a machine's
 * @protocol: IPPROTO_TCP or IPPROTO_UDP
 * @host_address: one of the host's addresses; 0: any of them, 127.0.0.1 among them
 */
struct network_forward {
	uint32_t protocol;
	uint32_t host_address;
	uint32_t host_port;
	uint32_t guest_address;
	uint32_t guest_port;
};

/* Is it one? Pure: what the host has is for network_start() to see. */
int network_check(const struct network_spec *spec, char *why);

/*
 * Makes the network, or what is missing of it, or of what it has become another, with its forwards kept. One that
 * an address or route of the host's is in the way of is refused (-EADDRINUSE). Where it fails, what was there before is.
 */
int network_start(const struct network_spec *spec, char *why);

/* Removes all of it, whatever is there; goes on where something fails. */
int network_stop(const char *name, char *why);

/*
 * Is all of it there? Else it is started again: dnsmasq may have died, and who sets up the host's rules anew may have
 * removed ours. @ret_pidfd: dnsmasq's process, readable when it has ended; -1 for NETWORK_BRIDGE, and where it fails.
 * Return: 1 where something was missing; then forwards and guards may be, too, and are the caller's to give again.
 */
int network_watch(const struct network_spec *spec, int *ret_pidfd, char *why);

/* Names of all of which there is anything, at most @max. Return: how many. */
int network_list(char names[][NETWORK_NAME_SIZE], unsigned int max, char *why);

/**
 * network_tap - a tap on the network, up, for moat-net (--tap-fd)
 * @name: one that no interface has; not moat-...
 * @uid: a user who may open it, too; -1: none
 * @queues: 1 to NETWORK_QUEUES_MAX
 * @ret_fds: @queues descriptors. With the last of them the tap goes
 */
int network_tap(const struct network_spec *spec, const char *name, uint32_t uid, unsigned int queues, int *ret_fds,
		char *why);

/*
 * From now on a tap by this name passes on nothing from a MAC but @mac, nor, unless it is 0, from any
 * IPv4 address but @address; no answers of a DHCP server, and no router's announcements. The word holds until the next one, or
 * network_stop().
 */
int network_guard(const struct network_spec *spec, const char *tap, const uint8_t *mac, uint32_t address, char *why);

/*
 * From now on the machine with @mac gets @address by DHCP, and is known as @name on the network once it has it.
 * Names and addresses are the caller's to keep apart.
 */
int network_host(const struct network_spec *spec, const uint8_t *mac, const char *name, uint32_t address, char *why);
int network_host_remove(const struct network_spec *spec, const uint8_t *mac, char *why);

/* The address that the machine with @mac has by DHCP. -ENOENT: none. */
int network_lease(const struct network_spec *spec, const uint8_t *mac, uint32_t *ret_address, char *why);

/*
 * NETWORK_NAT: connections to the host's port, from outside, the host itself and the network, are the
 * machine's. -EADDRINUSE: a network has that port forwarded otherwise. Without a forward, connections that are there stay.
 */
int network_forward(const struct network_spec *spec, const struct network_forward *forward, char *why);
int network_forward_remove(const struct network_spec *spec, const struct network_forward *forward, char *why);

/* Return: how many there are; of which @max are told. */
int network_forwards(const char *name, struct network_forward *forwards, unsigned int max, char *why);

/* What follows is for the files that networks are made of, and for tests. */

#define NETWORK_INTERFACE	"moat-"
#define NETWORK_FOLDER		"/var/lib/moat/networks"

struct network_text {
	char text[20];
};

static inline uint32_t network_mask(uint32_t prefix)
{
	return prefix ? ~0U << (32 - prefix) : 0;
}

/* An address in writing: network_text(address).text */
static inline struct network_text network_text(uint32_t address)
{
	struct network_text ret;

	snprintf(ret.text, sizeof(ret.text), "%u.%u.%u.%u", address >> 24, address >> 16 & 255,
		 address >> 8 & 255, address & 255);
	return ret;
}

/* The bridge of a network that has one of its own, and the tables of its rules. */
static inline struct network_text network_interface(const char *name)
{
	struct network_text ret;

	snprintf(ret.text, sizeof(ret.text), NETWORK_INTERFACE "%.*s", NETWORK_NAME_MAX, name);
	return ret;
}

static inline struct network_text network_mac_text(const uint8_t *mac)
{
	struct network_text ret;

	snprintf(ret.text, sizeof(ret.text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	return ret;
}

/* The readers of names and messages. */
bool network_name_valid(const char *name);
bool network_host_name_valid(const char *name);
bool network_tap_name_valid(const char *name);
bool network_mac_valid(const uint8_t *mac);

/* Could a machine on the network have @address? */
bool network_has(const struct network_spec *spec, uint32_t address);
bool network_overlap(uint32_t address, uint32_t prefix, uint32_t other, uint32_t other_prefix);
int network_forward_check(const struct network_spec *spec, const struct network_forward *forward, char *why);

/* Do they want the same port of the host's? */
bool network_forward_clash(const struct network_forward *one, const struct network_forward *other);

/*
 * Is @line of dnsmasq's leases, which guests have a word in, one of @mac that holds at @now? Then @ret_address is one that a
 * machine on the network could have.
 */
bool network_lease_read(const char *line, const struct network_spec *spec, const uint8_t *mac, int64_t now,
			uint32_t *ret_address);

#endif /* MOATD_NETWORK_H */
