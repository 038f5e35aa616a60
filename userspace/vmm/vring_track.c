// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For a device that dies and has kept no record of its requests in flight.
 *
 * A device may use buffers in another order than they were made available in. So what is between
 * the two indices is not what is in flight: of four requests of which the second is done, the first
 * would be lost, and the second done again. What tells is an account: each head that was made
 * available less each that was used. The rings show the last of both, as many as they have entries,
 * so the account has to be brought up to date before either index goes round once. It is, where
 * that is done each time before the driver is interrupted: the driver has as many heads as the ring
 * has entries, and gets one back for use by what is used only. A driver that looks for itself,
 * without interrupts, and gets round meanwhile, is noticed; the account is then good again once
 * nothing is in flight.
 *
 * To repeat requests, their heads are put into the available ring between the two indices, where
 * the driver, which never reads there, has put as many.
 */
#include <errno.h>
#include <string.h>

#include "userspace/vmm/vring_track.h"

static uint16_t track_load(const uint16_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static uint16_t track_head(const struct vring_track *track, uint16_t at)
{
	return __atomic_load_n(&track->avail->ring[at & (track->size - 1)], __ATOMIC_RELAXED);
}

void vring_track_init(struct vring_track *track, struct vring_avail *avail,
		      const struct vring_used *used, uint16_t size, uint16_t base)
{
	*track = (struct vring_track){
		.avail = avail, .used = used, .size = size, .avail_seen = base, .used_seen = base,
	};
}

/* No head that is none is counted: what is amiss shows in the sum. */
static void track_count(struct vring_track *track, uint32_t head, int times)
{
	if (head < track->size)
		track->times[head] += times;
}

void vring_track_update(struct vring_track *track)
{
	/* In this order: what was used had been made available before. */
	uint16_t used = track_load(&track->used->idx);
	uint16_t avail = track_load(&track->avail->idx);

	if ((uint16_t)(avail - track->avail_seen) > track->size ||
	    (uint16_t)(used - track->used_seen) > track->size)
		track->lost = true;
	if (avail == used) {
		memset(track->times, 0, sizeof(track->times));
		track->lost = false;
		track->avail_seen = avail;
		track->used_seen = used;
	}
	while (track->avail_seen != avail && !track->lost)
		track_count(track, track_head(track, track->avail_seen++), 1);
	while (track->used_seen != used && !track->lost) {
		unsigned int at = track->used_seen++ & (track->size - 1);

		track_count(track, __atomic_load_n(&track->used->ring[at].id, __ATOMIC_RELAXED),
			    -1);
	}
	track->avail_seen = avail;
	track->used_seen = used;
}

/* Are so many in flight as the indices say, each once? */
static bool track_holds(const struct vring_track *track)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < track->size; i++) {
		if (track->times[i] > 1)
			return false;
		sum += track->times[i];
	}
	return !track->lost && sum == (uint16_t)(track->avail_seen - track->used_seen);
}

/*
 * The heads in flight, in the order of their last time in the ring; what has been in flight for so
 * long that it is no longer in there comes first.
 */
static void track_list(const struct vring_track *track, uint16_t *list, unsigned int count)
{
	bool listed[VRING_TRACK_SIZE_MAX] = { false };

	for (unsigned int i = 1; i <= track->size && count; i++) {
		uint16_t head = track_head(track, track->avail_seen - i);

		if (head >= track->size || !track->times[head] || listed[head])
			continue;
		listed[head] = true;
		list[--count] = head;
	}
	for (unsigned int head = track->size; head-- && count; )
		if (track->times[head] && !listed[head])
			list[--count] = head;
}

int vring_track_repeat(struct vring_track *track, uint16_t *ret_base)
{
	uint16_t list[VRING_TRACK_SIZE_MAX];
	unsigned int count;

	vring_track_update(track);
	if (!track_holds(track))
		return -EPROTO;
	count = (uint16_t)(track->avail_seen - track->used_seen);
	track_list(track, list, count);
	for (unsigned int i = 0; i < count; i++)
		__atomic_store_n(&track->avail->ring[(track->used_seen + i) & (track->size - 1)],
				 list[i], __ATOMIC_RELAXED);
	*ret_base = track->used_seen;
	return 0;
}
