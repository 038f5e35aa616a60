/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A request on its way through the gate: where the guest has its pieces, and where the device finds
 * them. What is here knows neither rings nor windows; gate_request.c tells how pieces are cut.
 */
#ifndef VMM_GATE_REQUEST_H
#define VMM_GATE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/vmm/runs.h"

#define GATE_PAGE		4096
#define GATE_GRANULE		512	/* what bounce memory is lent in */

struct virtq_chain;
struct vring_desc;

/**
 * struct gate_area - where a device finds what is in a queue's requests
 * @bounce: granules of the memory at @host, which the device calls @bounce_at: for copies. It grows to
 *	@granules_max once a request can only be copied
 * @pages: of the window, from its page @window_page on, which the device calls @window_at: for the
 *	guest's own pages
 */
struct gate_area {
	struct runs bounce;
	struct runs pages;
	unsigned int granules_max;
	uint8_t *host;
	uint64_t bounce_at;
	uint64_t window_at;
	uint32_t window_page;
};

enum gate_state { GATE_FREE, GATE_WAITING, GATE_INFLIGHT };

/**
 * struct gate_segment - a part of a request, whole in one place
 * @host: where the guest has it
 * @at: where the device has it: an address in the window if @granted, else in bounce memory
 */
struct gate_segment {
	uint8_t *host;
	uint64_t at;
	uint32_t len;
	bool writable;
	bool granted;
};

/**
 * struct gate_request - a request
 * @state: waiting for room, or for a device; or handed to the device
 * @lost: the last device had it when it went
 * @head: what the guest knows it by
 * @deaths: how many devices crashed that had it
 * @granule, @granules, @page, @pages: what it has of the area; the number is 0 where it has none
 * @descriptors: that tell the device of it
 * @order: requests of a queue were made in this one
 * @bytes: in all, of which the device may write @writable
 * @segment: @count of them, @room for more; those to be read come first
 */
struct gate_request {
	enum gate_state state;
	bool lost;
	uint16_t head;
	uint16_t deaths;
	uint16_t granule;
	uint16_t granules;
	uint16_t page;
	uint16_t pages;
	unsigned int descriptors;
	uint64_t order;
	uint64_t bytes;
	uint64_t writable;
	unsigned int count;
	unsigned int room;
	struct gate_segment *segment;
};

/* Is there something in it for the device to read? */
static inline bool gate_request_speaks(const struct gate_request *request)
{
	return request->bytes > request->writable;
}

/* Take over the chain's pieces. Return: 0 or -ENOMEM. */
int gate_request_init(struct gate_request *request, const struct virtq_chain *chain);

/**
 * gate_request_place - find room for it
 * @grant: from how many whole pages on they are granted, not copied; ~0: none ever is
 *
 * Return: 0; -EAGAIN while there is no room; -E2BIG: there never is enough; -ENOMEM.
 */
int gate_request_place(struct gate_request *request, struct gate_area *area, unsigned int grant);
void gate_request_leave(struct gate_request *request, struct gate_area *area);

/* Its descriptors for the device: room for as many as it has. */
void gate_request_describe(const struct gate_request *request, struct vring_desc *desc);

/* Copy what the device is to read, where it is not granted. */
void gate_request_copy_in(const struct gate_request *request, const struct gate_area *area);

/**
 * gate_request_copy_out - copy what the device has written, where it was not granted
 * @written: bytes at the front of the writable part
 * @last: and the last one of it
 */
void gate_request_copy_out(const struct gate_request *request, const struct gate_area *area,
			   uint32_t written, bool last);

/*
 * The request as the guest has it, for when there is no device: from the front of what is to be read, or
 * to the front of what is to be written, and how much there was; or the very last byte of the latter.
 */
size_t gate_request_read(const struct gate_request *request, void *buf, size_t len);
size_t gate_request_write(const struct gate_request *request, const void *buf, size_t len);
void gate_request_write_last(const struct gate_request *request, uint8_t byte);

#endif /* VMM_GATE_REQUEST_H */
