/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The server of addresses and names of a network, and its folder. Errors as in network.h. */
#ifndef MOATD_DNSMASQ_H
#define MOATD_DNSMASQ_H

#include <stdbool.h>

#include "userspace/moatd/network.h"

/* Has it run as @spec says. Return: 1 where it had to be started for that. */
int dnsmasq_start(const struct network_spec *spec, char *why);

/* A pidfd of the one that runs as @spec says; or -ESRCH. */
int dnsmasq_find(const struct network_spec *spec);

/* All that are of this network, and the folder. None is fine. */
int dnsmasq_remove(const char *name, char *why);

/* As the functions of network.h, and without their checks. @name NULL: no longer. */
int dnsmasq_host(const struct network_spec *spec, const uint8_t *mac, const char *name, uint32_t address, char *why);
int dnsmasq_lease(const struct network_spec *spec, const uint8_t *mac, uint32_t *ret_address, char *why);

#endif /* MOATD_DNSMASQ_H */
