/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_BALLOON_BALLOON_H
#define DEVMODEL_BALLOON_BALLOON_H

#include <stdint.h>

struct device;

/**
 * balloon_create - a way for the guest to give memory back
 * @pages: of 4096 bytes, that it is asked to do without from the start
 *
 * What it reports as free, it gives back by itself, and has it again, all zeroes, when it touches it. The
 * memory that the device is started with has to be mapped shared, from a file that can have holes.
 *
 * Return: 0 or a negative errno.
 */
int balloon_create(uint32_t pages, struct device **ret);

/* An eventfd, of the device's, to which it adds when its configuration has changed. */
int balloon_config_event(const struct device *dev);

/* From any thread: ask the guest to do without so many pages; how many it was asked for, and does without. */
void balloon_ask(struct device *dev, uint32_t pages);
void balloon_look(const struct device *dev, uint32_t *ret_asked, uint32_t *ret_actual);

#endif /* DEVMODEL_BALLOON_BALLOON_H */
