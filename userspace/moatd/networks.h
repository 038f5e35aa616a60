/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The networks that there are, as the unprivileged half knows them. */
#ifndef MOATD_NETWORKS_H
#define MOATD_NETWORKS_H

#include "userspace/moatd/keep.h"
#include "userspace/moatd/network_definition.h"

/*
 * @broken: its definition cannot be read, @why; else @why is what is wrong with it now, or empty
 * @going: it is being deleted, so nobody uses it
 */
struct network {
	struct network *next;
	struct network_definition definition;
	bool broken;
	bool going;
	char why[200];
};

extern struct network *networks;

/* All that have a definition in @dir. 0 or a negative errno. */
int networks_init(sd_event *event, int dir);

/* Have all of them be there; and again, from time to time. */
void networks_start(void);

struct network *network_find(const char *name);

/* Make one, or have it be otherwise. Its definition is on the disk then. 0 or a negative errno. */
int network_define(const struct network_definition *definition);

/* What of it is on the host; @then as keep_ask() has it. */
void network_ask_start(const struct network *network, keep_answer_t then, void *arg);

/* Have the host's side of it go, then forget it, unless that failed; @then as keep_ask() has it. */
void network_forget(struct network *network, keep_answer_t then, void *arg);

/*
 * What the keeper has to know of the networks of a machine: addresses are chosen where there are none, and
 * *@ret_changed. Return: 0; -EINVAL, and @why, of KEEPER_WHY bytes: it cannot be on one of them
 */
int networks_of(struct definition *definition, struct keeper_start *ret, bool *ret_changed, char *why);

/*
 * Does it claim an address (MAC, or of a network) that another machine has, or one twice? -EINVAL, and @why, of @room
 * bytes. Taps are named by MAC, and are held to what a definition says: so that is one machine's.
 */
int networks_check(const struct definition *definition, char *why, size_t room);

/* A machine's addresses have changed, or it is gone: forwards to it are put in force again. */
void networks_refresh(const struct definition *definition);

#endif /* MOATD_NETWORKS_H */
