/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A window on the guest's memory (include/uapi/moat.h), as the one who grants has it. */
#ifndef VMM_WINDOW_H
#define VMM_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "include/uapi/moat.h"

#define WINDOW_CHANGES_MAX	MOAT_WINDOW_MAX_CHANGES

/**
 * struct window - a window, and changes that are to be made
 * @control: -1: there is none
 * @map: for the device
 * @count: of @change
 */
struct window {
	int control;
	int map;
	unsigned int count;
	struct moat_window_change change[WINDOW_CHANGES_MAX];
};

/* @vm: the VM's descriptor. Return: 0 or a negative errno, -ENOTTY where the node has no windows. */
int window_open(struct window *window, int vm, uint32_t pages);

/* What was shown is shown no more. Fine where there is none. */
void window_close(struct window *window);

/* Have a change made; one that goes on where the one before ends becomes one with it. */
void window_grant(struct window *window, uint64_t gpa, uint32_t page, uint32_t pages, bool write);
void window_revoke(struct window *window, uint32_t page, uint32_t pages);

/*
 * Make all changes, by one call. Return: 0, or why one could not be made, a negative errno: those before it
 * are. There are none to be made afterwards.
 */
int window_apply(struct window *window);

#endif /* VMM_WINDOW_H */
