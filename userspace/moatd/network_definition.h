/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What a network is, as definition.h has it of machines: a file in YAML, and a struct without pointers. */
#ifndef MOATD_NETWORK_DEFINITION_H
#define MOATD_NETWORK_DEFINITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/moatd/definition.h"
#include "userspace/moatd/network.h"

#define NETWORK_FORWARDS	32

/* A port of the host's that is a machine's. @host_address: empty: any; @port: the guest's, 0: the same */
struct network_definition_forward {
	uint64_t protocol;	/* 0: TCP, 1: UDP */
	char host_address[16];
	uint64_t host_port;
	char machine[DEFINITION_NAME];
	uint64_t port;
};

/**
 * struct network_definition
 * @address: of the bridge, as 192.168.77.1/24
 * @dhcp: as 192.168.77.10-192.168.77.200; empty: all that there is
 * @open: all users' machines may be on it, not only root's
 */
struct network_definition {
	char name[NETWORK_NAME_SIZE];
	uint64_t mode;
	char address[20];
	char dhcp[36];
	char bridge[16];
	uint64_t open;
	uint64_t forward_count;
	struct network_definition_forward forward[NETWORK_FORWARDS];
};

/* As their twins in definition.h. */
void network_definition_init(struct network_definition *network);
int network_definition_read(struct network_definition *network, const char *text, size_t len,
			    struct definition_error *error);
int network_definition_check(const struct network_definition *network, struct definition_error *error);
char *network_definition_write(const struct network_definition *network);
struct json_object *network_definition_json(const struct network_definition *network);

/* Of one that has been checked. */
void network_definition_spec(const struct network_definition *network, struct network_spec *ret);

/* An IPv4 address in writing. False: it is none. */
bool network_address(const char *text, uint32_t *ret);

#endif /* MOATD_NETWORK_DEFINITION_H */
