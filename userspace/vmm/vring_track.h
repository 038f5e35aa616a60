/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Which requests of a split virtqueue are in flight, seen from aside; vring_track.c tells how. */
#ifndef VMM_VRING_TRACK_H
#define VMM_VRING_TRACK_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#define VRING_TRACK_SIZE_MAX	256

/**
 * struct vring_track - the account of one queue
 * @avail, @used: its rings; what they hold may change at any moment, and mean nothing
 * @avail_seen, @used_seen: the indices up to which they are in the account
 * @lost: more has happened than the rings still show
 * @times: how often a head was made available and not used yet, once all is told 0 or 1
 */
struct vring_track {
	struct vring_avail *avail;
	const struct vring_used *used;
	uint16_t size;
	uint16_t avail_seen;
	uint16_t used_seen;
	bool lost;
	uint16_t times[VRING_TRACK_SIZE_MAX];
};

/* From a moment at which nothing is in flight, all before @base being done. */
void vring_track_init(struct vring_track *track, struct vring_avail *avail,
		      const struct vring_used *used, uint16_t size, uint16_t base);

/* Bring the account up to date. It is to be done before the driver learns what was used. */
void vring_track_update(struct vring_track *track);

/**
 * vring_track_repeat - once nobody serves the queue: have what is in flight be served again
 * @ret_base: where in the available ring the successor begins
 *
 * Return: 0; -EPROTO where the rings do not tell what is in flight.
 */
int vring_track_repeat(struct vring_track *track, uint16_t *ret_base);

#endif /* VMM_VRING_TRACK_H */
