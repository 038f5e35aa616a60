/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A request on its way through the gate: where the guest has its pieces, and where the device finds
 * them. What is here knows neither rings nor windows; gate_request.c tells how pieces are cut.
 */
#ifndef VMM_GATE_REQUEST_H
#define VMM_GATE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "userspace/vmm/runs.h"

#define GATE_PAGE		4096
#define GATE_GRANULE		512	/* what bounce memory is lent in */

struct virtq_chain;
struct vring_desc;

/**
 * struct gate_area - where a device finds what is in a queue's requests
 * @bounce: granules of the memory at @host, which the device calls @bounce_at: for copies
 * @pages: of the window, from its page @window_page on, which the device calls @window_at: for the
 *	guest's own pages
 */
struct gate_area {
	struct runs bounce;
	struct runs pages;
	uint8_t *host;
	uint64_t bounce_at;
	uint64_t window_at;
	uint32_t window_page;
};

enum gate_state { GATE_FREE, GATE_WAITING, GATE_INFLIGHT };

/**
 * struct gate_request - a request
 * @state: waiting for room, or for a device; or handed to the device
 * @granted: whole pages are the guest's own; else all is copied
 * @lost: the last device had it when it went
 * @head: what the guest knows it by
 * @deaths: how many devices crashed that had it
 * @order: requests of a queue were made in this one
 * @writable: bytes that the device may write
 * @piece: @readable_count of them to be read, then @writable_count to be written
 * @granule, @granules, @page, @pages: what it has of the area; the number is 0 where it has none
 */
struct gate_request {
	enum gate_state state;
	bool granted;
	bool lost;
	uint16_t head;
	uint16_t granule;
	uint16_t granules;
	uint16_t page;
	uint16_t pages;
	uint16_t deaths;
	uint64_t order;
	uint64_t writable;
	unsigned int readable_count;
	unsigned int writable_count;
	unsigned int room;
	struct iovec *piece;
};

/**
 * struct gate_segment - a part of a piece, whole in one place
 * @host: where the guest has it
 * @at: where the device has it, as an offset in the window's part if @granted, else in bounce memory
 */
struct gate_segment {
	uint8_t *host;
	uint32_t len;
	bool writable;
	bool granted;
	uint64_t at;
};

/* Where a walk over the segments is. */
struct gate_walk {
	const struct gate_request *request;
	unsigned int piece;
	size_t done;
	uint64_t bounce;
	uint64_t window;
};

/* Take over the chain's pieces. Return: 0 or -ENOMEM. */
int gate_request_init(struct gate_request *request, const struct virtq_chain *chain);

/**
 * gate_request_place - find room for it
 * @grant: from how many whole pages on they are granted, not copied; ~0: none ever is
 *
 * Return: 0; -EAGAIN while there is no room; -E2BIG: there never is enough.
 */
int gate_request_place(struct gate_request *request, struct gate_area *area, unsigned int grant);
void gate_request_leave(struct gate_request *request, struct gate_area *area);

/* Its segments, one after the other: readable ones first. */
void gate_walk_begin(struct gate_walk *walk, const struct gate_request *request);
bool gate_walk_next(struct gate_walk *walk, struct gate_segment *ret);

/* Its descriptors for the device. Return: how many, or would be; more than @max are not written. */
unsigned int gate_request_describe(const struct gate_request *request, const struct gate_area *area,
				   struct vring_desc *desc, unsigned int max);

/* Copy what the device is to read, where it is not granted. */
void gate_request_copy_in(const struct gate_request *request, const struct gate_area *area);

/**
 * gate_request_copy_out - copy what the device has written, where it was not granted
 * @written: bytes at the front of the writable part
 * @last: and the last one of it
 */
void gate_request_copy_out(const struct gate_request *request, const struct gate_area *area,
			   uint32_t written, bool last);

#endif /* VMM_GATE_REQUEST_H */
