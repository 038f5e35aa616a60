// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a device sees of a request is exact to the byte: whole pages of it can be granted, the guest's
 * own, since nothing else is in them; what else there is, at either end of a piece, is copied through
 * bounce memory, which is shared with the device for good. Where few pages are in a request, copying them
 * costs less than granting and revoking, and all of it is copied.
 *
 * A request has a run of neighbours of either place, so that segments that follow each other there are one
 * descriptor, wherever they are in the guest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devmodel/virtq.h"
#include "userspace/vmm/gate_request.h"

/* Large copies begin where a device can have I/O done directly. */
#define COPY_ALIGN		16
#define COPY_ALIGN_LARGE	512

/* A piece is at most so many segments: before, in, and behind its whole pages. */
#define PIECE_SEGMENTS		3

/*
 * Each byte is read once and written once, whoever else has hold of either end. What a CPU does by itself is
 * also the fastest way for what is not small.
 */
static void copy(void *to, const void *from, size_t len)
{
	size_t words = len / 8, bytes = len % 8;

	__asm__ volatile("rep movsq" : "+D" (to), "+S" (from), "+c" (words) : : "memory");
	__asm__ volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (bytes) : : "memory");
}

static uint64_t align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

static int request_reserve(struct gate_request *request, unsigned int count)
{
	struct gate_segment *segment;

	if (count <= request->room)
		return 0;
	segment = realloc(request->segment, count * sizeof(*segment));
	if (!segment)
		return -ENOMEM;
	request->segment = segment;
	request->room = count;
	return 0;
}

int gate_request_init(struct gate_request *request, const struct virtq_chain *chain)
{
	unsigned int count = chain->readable_count + chain->writable_count;
	struct gate_segment *segment;
	int err = request_reserve(request, count);

	if (err)
		return err;
	segment = request->segment;
	for (unsigned int i = 0; i < chain->readable_count; i++)
		*segment++ = (struct gate_segment){
			.host = chain->readable[i].iov_base, .len = chain->readable[i].iov_len,
		};
	for (unsigned int i = 0; i < chain->writable_count; i++)
		*segment++ = (struct gate_segment){
			.host = chain->writable[i].iov_base, .len = chain->writable[i].iov_len,
			.writable = true,
		};
	request->count = count;
	request->bytes = chain->bytes;
	request->writable = iov_bytes(chain->writable, chain->writable_count);
	request->head = chain->head;
	request->deaths = 0;
	return 0;
}

/* Whole pages of a segment, and how many bytes are before them. */
static uint64_t segment_pages(const struct gate_segment *segment, uint32_t *ret_before)
{
	uint32_t before = -(uintptr_t)segment->host % GATE_PAGE;

	*ret_before = before;
	return segment->len > before ? (segment->len - before) / GATE_PAGE : 0;
}

static uint64_t request_pages(const struct gate_request *request)
{
	uint64_t pages = 0;
	uint32_t before;

	for (unsigned int i = 0; i < request->count; i++)
		pages += segment_pages(&request->segment[i], &before);
	return pages;
}

/* The part of @whole from @from on, @len bytes, goes in front of @to, if there is any. */
static struct gate_segment *segment_part(struct gate_segment *to, const struct gate_segment *whole,
					 uint32_t from, uint32_t len, bool granted)
{
	if (!len)
		return to;
	*--to = (struct gate_segment){
		.host = whole->host + from, .len = len, .writable = whole->writable,
		.granted = granted,
	};
	return to;
}

/* Whole pages become segments of their own. From the end, so that what is not yet cut is not in the way. */
static int request_cut(struct gate_request *request)
{
	unsigned int room = request->count * PIECE_SEGMENTS;
	struct gate_segment *to;
	int err = request_reserve(request, room);

	if (err)
		return err;
	to = request->segment + room;
	for (unsigned int i = request->count; i--; ) {
		const struct gate_segment whole = request->segment[i];
		uint32_t before, pages = segment_pages(&whole, &before) * GATE_PAGE;

		if (!pages)
			before = 0;
		to = segment_part(to, &whole, before + pages, whole.len - before - pages, false);
		to = segment_part(to, &whole, before, pages, true);
		to = segment_part(to, &whole, 0, before, false);
	}
	request->count = request->segment + room - to;
	memmove(request->segment, to, request->count * sizeof(*to));
	return 0;
}

/* Does @next go on where @last ends, for the device? */
static bool segment_follows(const struct gate_segment *last, const struct gate_segment *next)
{
	return last->writable == next->writable && last->granted == next->granted &&
	       last->at + last->len == next->at;
}

/* Where each is, from the start of either place; and so, what it takes of them. */
static void request_lay_out(struct gate_request *request, uint64_t *ret_granules,
			    uint64_t *ret_pages)
{
	uint64_t bounce = 0, window = 0;

	request->descriptors = 0;
	for (unsigned int i = 0; i < request->count; i++) {
		struct gate_segment *segment = &request->segment[i];
		uint64_t *at = segment->granted ? &window : &bounce;

		if (!segment->granted)
			*at = align_up(*at, segment->len < COPY_ALIGN_LARGE ? COPY_ALIGN :
									      COPY_ALIGN_LARGE);
		segment->at = *at;
		*at += segment->len;
		request->descriptors += !i || !segment_follows(segment - 1, segment);
	}
	*ret_granules = align_up(bounce, GATE_GRANULE) / GATE_GRANULE;
	*ret_pages = window / GATE_PAGE;
}

static int request_take(struct gate_request *request, struct gate_area *area, uint64_t granules,
			uint64_t pages)
{
	int granule = 0, page = 0;

	if (granules > area->bounce.size || pages > area->pages.size)
		return -E2BIG;
	if (granules)
		granule = runs_take(&area->bounce, granules);
	if (granule < 0)
		return -EAGAIN;
	if (pages)
		page = runs_take(&area->pages, pages);
	if (page < 0) {
		runs_give(&area->bounce, granule, granules);
		return -EAGAIN;
	}
	request->granule = granule;
	request->granules = granules;
	request->page = page;
	request->pages = pages;
	return 0;
}

static int request_settle(struct gate_request *request, struct gate_area *area)
{
	uint64_t granules, pages, bounce, window;
	int err;

	request_lay_out(request, &granules, &pages);
	err = request_take(request, area, granules, pages);
	if (err)
		return err;
	bounce = area->bounce_at + (uint64_t)request->granule * GATE_GRANULE;
	window = area->window_at + (uint64_t)request->page * GATE_PAGE;
	for (unsigned int i = 0; i < request->count; i++)
		request->segment[i].at += request->segment[i].granted ? window : bounce;
	return 0;
}

static int request_settle_granted(struct gate_request *request, struct gate_area *area)
{
	int err = request_cut(request);

	return err ? err : request_settle(request, area);
}

static int request_settle_copied(struct gate_request *request, struct gate_area *area)
{
	for (unsigned int i = 0; i < request->count; i++)
		request->segment[i].granted = false;
	return request_settle(request, area);
}

/* What is too much for bounce memory has to be granted. */
int gate_request_place(struct gate_request *request, struct gate_area *area, unsigned int grant)
{
	bool many = request->bytes / GATE_PAGE >= grant && request_pages(request) >= grant;
	int err;

	if (grant == ~0u)
		area->bounce.size = area->granules_max;
	err = many ? request_settle_granted(request, area) : request_settle_copied(request, area);
	if (err != -E2BIG || many || grant == ~0u || !request_pages(request))
		return err;
	return request_settle_granted(request, area);
}

void gate_request_leave(struct gate_request *request, struct gate_area *area)
{
	runs_give(&area->bounce, request->granule, request->granules);
	runs_give(&area->pages, request->page, request->pages);
}

void gate_request_describe(const struct gate_request *request, struct vring_desc *desc)
{
	for (unsigned int i = 0; i < request->count; i++) {
		const struct gate_segment *segment = &request->segment[i];

		if (i && segment_follows(segment - 1, segment))
			desc[-1].len += segment->len;
		else
			*desc++ = (struct vring_desc){
				.addr = segment->at, .len = segment->len,
				.flags = segment->writable ? VRING_DESC_F_WRITE : 0,
			};
	}
}

/* Where this process has what is copied. */
static uint8_t *segment_bounce(const struct gate_segment *segment, const struct gate_area *area)
{
	return area->host + (segment->at - area->bounce_at);
}

void gate_request_copy_in(const struct gate_request *request, const struct gate_area *area)
{
	for (unsigned int i = 0; i < request->count; i++) {
		const struct gate_segment *segment = &request->segment[i];

		if (!segment->granted && !segment->writable)
			copy(segment_bounce(segment, area), segment->host, segment->len);
	}
}

void gate_request_copy_out(const struct gate_request *request, const struct gate_area *area,
			   uint32_t written, bool last)
{
	const struct gate_segment *segment = request->segment;

	for (unsigned int i = 0; i < request->count && written; i++, segment++) {
		uint32_t some = written < segment->len ? written : segment->len;

		if (!segment->writable)
			continue;
		if (!segment->granted)
			copy(segment->host, segment_bounce(segment, area), some);
		written -= some;
	}
	segment = &request->segment[request->count - 1];
	if (last && segment->writable && !segment->granted)
		segment->host[segment->len - 1] = segment_bounce(segment, area)[segment->len - 1];
}

/* What of a segment is asked for, when @done of @len are there. */
static size_t segment_some(const struct gate_segment *segment, size_t done, size_t len)
{
	return segment->len < len - done ? segment->len : len - done;
}

size_t gate_request_read(const struct gate_request *request, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < request->count && !request->segment[i].writable; i++) {
		size_t some = segment_some(&request->segment[i], done, len);

		memcpy((char *)buf + done, request->segment[i].host, some);
		done += some;
	}
	return done;
}

size_t gate_request_write(const struct gate_request *request, const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < request->count; i++) {
		size_t some = segment_some(&request->segment[i], done, len);

		if (!request->segment[i].writable)
			continue;
		memcpy(request->segment[i].host, (const char *)buf + done, some);
		done += some;
	}
	return done;
}

void gate_request_write_last(const struct gate_request *request, uint8_t byte)
{
	const struct gate_segment *last = &request->segment[request->count - 1];

	if (last->writable)
		last->host[last->len - 1] = byte;
}
