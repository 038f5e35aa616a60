/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The seed of a cloud image: a small read-only disk by which cloud-init learns what it is to be ("NoCloud"). */
#ifndef MOATD_SEED_H
#define MOATD_SEED_H

#include <stddef.h>

#include "userspace/moatd/disk.h"

/**
 * struct seed_network - the first network device of a machine, or that with an address
 * @mac: which one; NULL: the one there is
 * @address: as 192.0.2.5/24; NULL: by DHCP
 * @gateway, @nameserver: with an address; NULL: none
 */
struct seed_network {
	const char *mac;
	const char *address;
	const char *gateway;
	const char *nameserver;
};

/**
 * struct seed_spec - what a guest is to be; strings are UTF-8, and may hold anything
 * @instance: cloud-init does its work once for each; NULL: the host's name
 * @user: who may become root without a password
 * @keys: SSH keys that let the user in, @key_count of them
 * @password_hash: as crypt(3) makes it; NULL: there is no password
 * @network: NULL: as the image has it
 */
struct seed_spec {
	const char *instance;
	const char *hostname;
	const char *user;
	const char *const *keys;
	size_t key_count;
	const char *password_hash;
	const struct seed_network *network;
};

/* An ISO 9660 image, labelled CIDATA, in memory that nobody can change any more. 0 or a negative errno. */
int seed_create(const struct seed_spec *spec, int *ret_fd, char *why);

#endif /* MOATD_SEED_H */
