/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The unprivileged half's side of the keeper: requests, and who waits for their answers. */
#ifndef MOATD_KEEP_H
#define MOATD_KEEP_H

#include <stddef.h>
#include <systemd/sd-event.h>

#include "userspace/moatd/keeper.h"

/* Called once for each answer. The descriptor, or -1, is the callee's to close. */
typedef void (*keep_answer_t)(void *arg, const struct keeper_answer *answer, int fd);

/* Where the keeper hangs up, the loop ends. 0 or a negative errno. */
int keep_init(sd_event *event, int link);

/**
 * keep_ask - have the keeper do something
 * @carried: @len bytes, as @what has it
 * @then: called when it is done; at once, with an error, where it cannot be asked. May be NULL
 */
void keep_ask(enum keeper_what what, const void *carried, size_t len, keep_answer_t then, void *arg);

/* The same for what carries a machine's name. */
void keep_ask_name(enum keeper_what what, const char *name, keep_answer_t then, void *arg);

#endif /* MOATD_KEEP_H */
