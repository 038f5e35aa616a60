/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Taps: network devices of the host's whose other end is a descriptor, one a queue. */
#ifndef DEVMODEL_NET_TAP_H
#define DEVMODEL_NET_TAP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * tap_open - open a queue of a tap
 * @name: of a tap that there is; with the right to, one is made, and goes with its last descriptor
 * @several: there are to be several queues
 *
 * Return: a descriptor, non-blocking; -EINVAL where there is one of another kind, -EBUSY where
 * another process has it; another negative errno.
 */
int tap_open(const char *name, bool several);

/* Makes a queue that was handed over non-blocking. -EINVAL where it is none, or of another kind. */
int tap_adopt(int fd);

/**
 * tap_set_up - how frames come and go
 * @header: bytes of virtio's header in front of each
 * @features: of virtio, as negotiated: what the guest can make of frames
 *
 * Return: 0 or a negative errno. It concerns all queues of the tap.
 */
int tap_set_up(int fd, uint32_t header, uint64_t features);

/* Have the host use a queue, or not: one that is not used gets no frames. */
int tap_use(int fd, bool use);

#endif /* DEVMODEL_NET_TAP_H */
