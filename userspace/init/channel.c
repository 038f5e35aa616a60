// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "userspace/init/channel.h"

void channel_init(struct channel *channel, int fd)
{
	channel->fd = fd;
	channel->in_first = 0;
	channel->in_end = 0;
	channel->out_first = 0;
	channel->out_end = 0;
}

/* What is left moves to the front. */
static void channel_compact(uint8_t *buf, size_t *first, size_t *end)
{
	memmove(buf, buf + *first, *end - *first);
	*end -= *first;
	*first = 0;
}

int channel_receive(struct channel *channel)
{
	ssize_t n;

	channel_compact(channel->in, &channel->in_first, &channel->in_end);
	if (channel->in_end == sizeof(channel->in))
		return 0;	/* a whole frame waits to be read */
	n = read(channel->fd, channel->in + channel->in_end, sizeof(channel->in) - channel->in_end);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	channel->in_end += n;
	return n ? 0 : -ENODATA;
}

static bool channel_is_frame(const struct run_frame *frame)
{
	static const uint8_t zero[sizeof(frame->reserved)];

	return frame->len <= RUN_PAYLOAD_MAX &&
	       !memcmp(frame->reserved, zero, sizeof(zero));
}

int channel_next(struct channel *channel, struct channel_frame *ret)
{
	size_t have = channel->in_end - channel->in_first;
	struct run_frame frame;

	if (have < sizeof(frame))
		return 0;
	memcpy(&frame, channel->in + channel->in_first, sizeof(frame));
	if (!channel_is_frame(&frame))
		return -EPROTO;
	if (have - sizeof(frame) < frame.len)
		return 0;
	*ret = (struct channel_frame){
		.type = frame.type, .len = frame.len,
		.payload = channel->in + channel->in_first + sizeof(frame),
	};
	channel->in_first += sizeof(frame) + frame.len;
	return 1;
}

int channel_payload(const struct channel_frame *frame, void *buf, size_t len)
{
	if (frame->len != len)
		return -EPROTO;
	memcpy(buf, frame->payload, len);
	return 0;
}

int channel_number(const struct channel_frame *frame, uint32_t max, uint32_t *ret)
{
	struct run_number number;
	int err = channel_payload(frame, &number, sizeof(number));

	if (err || number.value > max)
		return -EPROTO;
	*ret = number.value;
	return 0;
}

bool channel_has_room(const struct channel *channel)
{
	return sizeof(channel->out) - (channel->out_end - channel->out_first) >=
	       CHANNEL_FRAME_MAX + CHANNEL_OUT_RESERVE;
}

int channel_flush(struct channel *channel)
{
	while (channel_pending(channel)) {
		ssize_t n = write(channel->fd, channel->out + channel->out_first,
				  channel->out_end - channel->out_first);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		channel->out_first += n;
	}
	return 0;
}

int channel_send(struct channel *channel, enum run_type type, const void *payload, size_t len)
{
	struct run_frame frame = { .type = type, .len = len };

	channel_compact(channel->out, &channel->out_first, &channel->out_end);
	if (sizeof(channel->out) - channel->out_end < sizeof(frame) + len)
		return -ENOBUFS;
	memcpy(channel->out + channel->out_end, &frame, sizeof(frame));
	if (len)
		memcpy(channel->out + channel->out_end + sizeof(frame), payload, len);
	channel->out_end += sizeof(frame) + len;
	return channel_flush(channel);
}

int channel_send_number(struct channel *channel, enum run_type type, uint32_t value)
{
	struct run_number number = { .value = value };

	return channel_send(channel, type, &number, sizeof(number));
}
