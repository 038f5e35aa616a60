/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The directory of a machine that has been started, RUN/machines/NAME: the sockets of its launcher and
 * supervisor, how it ended, its user. It is there from before there are processes until all is cleaned up.
 */
#ifndef MOATD_PLACE_H
#define MOATD_PLACE_H

#include <stdbool.h>
#include <stdint.h>

struct control_ended;
struct keeper_options;

#define PLACE_CONTROL		"control"
#define PLACE_SUPERVISOR	"supervisor"

/* The directory of all of them. */
int place_init(const struct keeper_options *options);

/* -EEXIST: the machine has been started. @ret_uid: a user that no other machine has. -ENOSPC: there is none left. */
int place_create(const struct keeper_options *options, const char *name, uint32_t *ret_uid);

/* Calls @each for all machines that have a place. */
int place_list(const struct keeper_options *options,
	       void (*each)(void *arg, const char *name), void *arg);

/* A socket (SOCK_SEQPACKET) that listens in there. Or a negative errno. */
int place_listen(const struct keeper_options *options, const char *name, const char *socket);

/* A connection to one. */
int place_connect(const struct keeper_options *options, const char *name, const char *socket);

/* The record of its end, to be written to. */
int place_open_ended(const struct keeper_options *options, const char *name);

/* What is in it; all zeroes where there is nothing: then it was killed. */
int place_ended(const struct keeper_options *options, const char *name, struct control_ended *ret);

/* Say that it was asked to end, unless it has said more itself. */
void place_mark_asked(const struct keeper_options *options, const char *name);

/* Fine when it is gone. */
int place_remove(const struct keeper_options *options, const char *name);

#endif /* MOATD_PLACE_H */
