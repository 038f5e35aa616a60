/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Interfaces of the host's, by rtnetlink. Errors as in network.h. */
#ifndef MOATD_BRIDGE_H
#define MOATD_BRIDGE_H

#include <stdint.h>

/* -EADDRINUSE where an address or a route of the host's, but of @bridge itself, overlaps. */
int bridge_conflict(const char *bridge, uint32_t address, uint32_t prefix, char *why);

/* A bridge that is down, without an address, and stays deaf to IPv6. Return: 1; 0 where there is one. */
int bridge_create(const char *bridge, uint32_t address, char *why);

/* Its only IPv4 address, and up. */
int bridge_set_up(const char *bridge, uint32_t address, uint32_t prefix, char *why);

/* -ENODEV, -EINVAL: there is none, or something else by that name. */
int bridge_find(const char *bridge, char *why);

/* None is fine. */
int bridge_remove(const char *bridge, char *why);

/* Makes an interface a port of the bridge, and turns it on. */
int bridge_attach(const char *bridge, const char *interface, char *why);

#endif /* MOATD_BRIDGE_H */
