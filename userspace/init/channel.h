/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Frames of include/moat/run.h over a descriptor, for both ends. */
#ifndef INIT_CHANNEL_H
#define INIT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "moat/run.h"

#define CHANNEL_FRAME_MAX	(sizeof(struct run_frame) + RUN_PAYLOAD_MAX)

/* Room beyond that for a frame of data, so that a small one always finds some. */
#define CHANNEL_OUT_SIZE	(8 * CHANNEL_FRAME_MAX)
#define CHANNEL_OUT_RESERVE	CHANNEL_FRAME_MAX

/**
 * struct channel - one end
 * @fd: the stream's descriptor, non-blocking, not closed by the channel
 * @in: received, not yet read: from @in_first up to @in_end
 * @out: to be sent, likewise
 */
struct channel {
	int fd;
	size_t in_first, in_end;
	size_t out_first, out_end;
	uint8_t in[2 * CHANNEL_FRAME_MAX];
	uint8_t out[CHANNEL_OUT_SIZE];
};

/* A frame as it came in. @payload stays until the next channel_receive(). */
struct channel_frame {
	uint8_t type;
	uint32_t len;
	const uint8_t *payload;
};

void channel_init(struct channel *channel, int fd);

/* Take what there is. 0 (it may be nothing), -ENODATA at the end of the stream, another errno. */
int channel_receive(struct channel *channel);

/* The next frame. 1; 0 when none is whole; -EPROTO for what is no frame. */
int channel_next(struct channel *channel, struct channel_frame *ret);

/* The payload of a frame that must have exactly @len bytes. 0 or -EPROTO. */
int channel_payload(const struct channel_frame *frame, void *buf, size_t len);

/* The number in a frame that is one, at most @max. 0 or -EPROTO. */
int channel_number(const struct channel_frame *frame, uint32_t max, uint32_t *ret);

/* May a full frame of data be sent now? */
bool channel_has_room(const struct channel *channel);

/* Queue a frame and send what can be. 0, -ENOBUFS without room, another errno. */
int channel_send(struct channel *channel, enum run_type type, const void *payload, size_t len);
int channel_send_number(struct channel *channel, enum run_type type, uint32_t value);

/* Send what is queued, as far as that goes. 0 or a negative errno. */
int channel_flush(struct channel *channel);

static inline bool channel_pending(const struct channel *channel)
{
	return channel->out_first != channel->out_end;
}

#endif /* INIT_CHANNEL_H */
