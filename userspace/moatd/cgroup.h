/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Control groups (v2): a machine is a subtree, BASE/NAME, with its launcher in launcher/ and the processes of its
 * devices in devices/. What is in there is the machine: whoever wants to know whether something of it
 * is left, or wants to end it, asks there.
 */
#ifndef MOATD_CGROUP_H
#define MOATD_CGROUP_H

#include <stddef.h>

struct definition_limits;
struct keeper_usage;

/* Where machines' groups are to be, on this host: @ret of @room bytes. Makes it. 0 or a negative errno. */
int cgroup_find(char *ret, size_t room);

/* -EEXIST: it is there. Without rest where it fails. */
int cgroup_create(const char *base, const char *name);

/* @why: of KEEPER_WHY bytes, says which limit it was. Numbers of 0 are as if never set. */
int cgroup_limit(const char *base, const char *name, const struct definition_limits *limits,
		 char *why);

/* A descriptor of cgroup.procs of @part, "launcher" or "devices", to be written to. */
int cgroup_open(const char *base, const char *name, const char *part);

/* Until nothing is in there any more, or that time is over. */
void cgroup_wait(const char *base, const char *name, int ms);

/* End all that is in there, and wait until nothing is. Fine when there is no such group. */
int cgroup_kill(const char *base, const char *name);

/* Once it is empty. Fine when there is none. */
int cgroup_remove(const char *base, const char *name);

int cgroup_usage(const char *base, const char *name, struct keeper_usage *ret);

#endif /* MOATD_CGROUP_H */
