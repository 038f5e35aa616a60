// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a device sees of a request is exact to the byte: whole pages of it can be granted, the guest's
 * own, since nothing else is in them; what else there is, at either end of a piece, is copied through
 * bounce memory, which is shared with the device for good. Where few pages are in a request, copying them
 * costs less than granting and revoking, and all of it is copied.
 *
 * A request has a run of neighbours of either place, so that pieces that follow each other there are one
 * to the device, wherever they are in the guest. How a piece is cut follows from its address alone: the
 * segments are kept nowhere, but found anew each time by the same walk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devmodel/virtq.h"
#include "userspace/vmm/gate_request.h"

/* Large copies begin where a device can have I/O done directly. */
#define COPY_ALIGN		16
#define COPY_ALIGN_LARGE	512

static uint64_t align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

int gate_request_init(struct gate_request *request, const struct virtq_chain *chain)
{
	unsigned int count = chain->readable_count + chain->writable_count;

	if (count > request->room) {
		struct iovec *piece = realloc(request->piece, count * sizeof(*piece));

		if (!piece)
			return -ENOMEM;
		request->piece = piece;
		request->room = count;
	}
	memcpy(request->piece, chain->readable, chain->readable_count * sizeof(*request->piece));
	memcpy(request->piece + chain->readable_count, chain->writable,
	       chain->writable_count * sizeof(*request->piece));
	request->readable_count = chain->readable_count;
	request->writable_count = chain->writable_count;
	request->writable = iov_bytes(chain->writable, chain->writable_count);
	request->head = chain->head;
	request->deaths = 0;
	return 0;
}

void gate_walk_begin(struct gate_walk *walk, const struct gate_request *request)
{
	*walk = (struct gate_walk){ .request = request };
}

/* The length of the segment that begins at @host, of @left bytes at most: up to a page's border. */
static size_t segment_cut(uintptr_t host, size_t left, bool *ret_granted)
{
	size_t border = -host % GATE_PAGE;

	*ret_granted = !border && left >= GATE_PAGE;
	if (*ret_granted)
		return left - left % GATE_PAGE;
	return border && left >= border + GATE_PAGE ? border : left;
}

bool gate_walk_next(struct gate_walk *walk, struct gate_segment *ret)
{
	const struct gate_request *request = walk->request;
	const struct iovec *piece = &request->piece[walk->piece];
	uint64_t *at;

	if (walk->piece == request->readable_count + request->writable_count)
		return false;
	*ret = (struct gate_segment){
		.host = (uint8_t *)piece->iov_base + walk->done,
		.len = piece->iov_len - walk->done,
		.writable = walk->piece >= request->readable_count,
	};
	if (request->granted)
		ret->len = segment_cut((uintptr_t)ret->host, ret->len, &ret->granted);
	at = ret->granted ? &walk->window : &walk->bounce;
	if (!ret->granted)
		*at = align_up(*at, ret->len < COPY_ALIGN_LARGE ? COPY_ALIGN : COPY_ALIGN_LARGE);
	ret->at = *at;
	*at += ret->len;
	walk->done += ret->len;
	if (walk->done == piece->iov_len) {
		walk->piece++;
		walk->done = 0;
	}
	return true;
}

/* What it takes of either place. */
static void request_measure(struct gate_request *request, bool granted, uint64_t *ret_granules,
			    uint64_t *ret_pages)
{
	struct gate_segment segment;
	struct gate_walk walk;

	request->granted = granted;
	gate_walk_begin(&walk, request);
	while (gate_walk_next(&walk, &segment))
		;
	*ret_granules = align_up(walk.bounce, GATE_GRANULE) / GATE_GRANULE;
	*ret_pages = walk.window / GATE_PAGE;
}

static int place_try(struct gate_request *request, struct gate_area *area, uint64_t granules,
		     uint64_t pages)
{
	int granule = 0, page = 0;

	if (granules > area->bounce.size || pages > area->pages.size)
		return -E2BIG;
	if (granules)
		granule = runs_take(&area->bounce, granules);
	if (granule >= 0 && pages)
		page = runs_take(&area->pages, pages);
	if (page < 0)
		runs_give(&area->bounce, granule, granules);
	if (granule < 0 || page < 0)
		return -EAGAIN;
	request->granule = granule;
	request->granules = granules;
	request->page = page;
	request->pages = pages;
	return 0;
}

/* What is too much for the one is for the other. */
int gate_request_place(struct gate_request *request, struct gate_area *area, unsigned int grant)
{
	uint64_t granules, pages;
	int err = -E2BIG;

	request_measure(request, grant != ~0u, &granules, &pages);
	if (pages && pages >= grant)
		return place_try(request, area, granules, pages);
	request_measure(request, false, &granules, &pages);
	err = place_try(request, area, granules, pages);
	if (!err || grant == ~0u)
		return err;
	request_measure(request, true, &granules, &pages);
	return pages ? place_try(request, area, granules, pages) : err;
}

void gate_request_leave(struct gate_request *request, struct gate_area *area)
{
	runs_give(&area->bounce, request->granule, request->granules);
	runs_give(&area->pages, request->page, request->pages);
}

unsigned int gate_request_describe(const struct gate_request *request, const struct gate_area *area,
				   struct vring_desc *desc, unsigned int max)
{
	const uint64_t window = area->window_at + (uint64_t)request->page * GATE_PAGE;
	const uint64_t bounce = area->bounce_at + (uint64_t)request->granule * GATE_GRANULE;
	struct vring_desc last = { 0 };
	struct gate_segment segment;
	unsigned int count = 0;
	struct gate_walk walk;

	gate_walk_begin(&walk, request);
	while (gate_walk_next(&walk, &segment)) {
		uint64_t at = segment.at + (segment.granted ? window : bounce);
		uint16_t flags = segment.writable ? VRING_DESC_F_WRITE : 0;

		if (count && last.flags == flags && last.addr + last.len == at)
			last.len += segment.len;
		else
			last = (struct vring_desc){ .addr = at, .len = segment.len, .flags = flags };
		count += last.addr == at;
		if (count <= max)
			desc[count - 1] = last;
	}
	return count;
}

void gate_request_copy_in(const struct gate_request *request, const struct gate_area *area)
{
	uint8_t *bounce = area->host + (size_t)request->granule * GATE_GRANULE;
	struct gate_segment segment;
	struct gate_walk walk;

	gate_walk_begin(&walk, request);
	while (gate_walk_next(&walk, &segment) && !segment.writable)
		if (!segment.granted)
			memcpy(bounce + segment.at, segment.host, segment.len);
}

void gate_request_copy_out(const struct gate_request *request, const struct gate_area *area,
			   uint32_t written, bool last)
{
	const uint8_t *bounce = area->host + (size_t)request->granule * GATE_GRANULE;
	struct gate_segment segment;
	uint64_t left = request->writable;
	struct gate_walk walk;

	gate_walk_begin(&walk, request);
	while ((written || last) && gate_walk_next(&walk, &segment)) {
		uint32_t some = written < segment.len ? written : segment.len;

		if (!segment.writable)
			continue;
		left -= segment.len;
		written -= some;
		if (!segment.granted)
			memcpy(segment.host, bounce + segment.at, some);
		if (last && !left && some < segment.len && !segment.granted)
			segment.host[segment.len - 1] = bounce[segment.at + segment.len - 1];
	}
}
