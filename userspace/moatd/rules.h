/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Who may reach whom: tables of nftables, of families inet and bridge, by the name of the bridge. */
#ifndef MOATD_RULES_H
#define MOATD_RULES_H

#include <stdint.h>

#include "userspace/moatd/network.h"

/* The rules of @spec, in one step, in the place of those that are there; forwards and guards stay. */
int rules_set(const struct network_spec *spec, char *why);

/* Who sets up the host's own rules anew may remove all that there are. */
bool rules_there(const char *name);

/* None is fine. */
int rules_remove(const char *name, char *why);

/* As the functions of network.h, and without their checks. */
int rules_guard(const char *name, const char *tap, const uint8_t *mac, uint32_t address, char *why);
int rules_forward(const char *name, const struct network_forward *forward, char *why);
int rules_forward_remove(const char *name, const struct network_forward *forward, char *why);
int rules_forwards(const char *name, struct network_forward *forwards, unsigned int max, char *why);

/* Calls @each, until it returns an error, with the name of each network that has a table. */
int rules_list(int (*each)(void *context, const char *name), void *context, char *why);

#endif /* MOATD_RULES_H */
