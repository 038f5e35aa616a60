// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "userspace/init/stream.h"
#include "userspace/lib/fd.h"

void outlet_init(struct outlet *outlet, enum run_type type, int fd)
{
	*outlet = (struct outlet){ .type = type, .fd = fd, .credit = RUN_WINDOW };
}

bool outlet_wants(const struct outlet *outlet, const struct channel *channel)
{
	return outlet->fd >= 0 && outlet->credit && channel_has_room(channel);
}

void outlet_close(struct outlet *outlet)
{
	fd_close(outlet->fd);
	outlet->fd = -1;
}

/* A terminal whose other end is closed says EIO: its end, as anything else that cannot be read. */
int outlet_pump(struct outlet *outlet, struct channel *channel)
{
	uint8_t buf[RUN_PAYLOAD_MAX];
	size_t len = outlet->credit < sizeof(buf) ? outlet->credit : sizeof(buf);
	ssize_t n = read(outlet->fd, buf, len);
	int err;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		outlet_close(outlet);
		return channel_send(channel, outlet->type, NULL, 0);
	}
	outlet->credit -= n;
	err = channel_send(channel, outlet->type, buf, n);
	return err ? err : 1;
}

int outlet_credit(struct outlet *outlet, const struct run_credit *credit)
{
	if (!credit->bytes || credit->bytes > RUN_WINDOW - outlet->credit)
		return -EPROTO;
	outlet->credit += credit->bytes;
	return 0;
}

void inlet_init(struct inlet *inlet, enum run_type type, int fd)
{
	inlet->type = type;
	inlet->fd = fd;
	inlet->ended = false;
	inlet->first = 0;
	inlet->count = 0;
	inlet->due = 0;
}

static void inlet_take(struct inlet *inlet, uint32_t bytes)
{
	inlet->first = (inlet->first + bytes) % RUN_WINDOW;
	inlet->count -= bytes;
	inlet->due += bytes;
}

static void inlet_close(struct inlet *inlet)
{
	fd_close(inlet->fd);
	inlet->fd = -1;
}

static void inlet_settle(struct inlet *inlet)
{
	if (inlet->fd < 0)
		inlet_take(inlet, inlet->count);
	else if (inlet->ended && !inlet->count)
		inlet_close(inlet);
}

int inlet_accept(struct inlet *inlet, const struct channel_frame *frame)
{
	uint32_t end, part;

	if (inlet->ended || frame->len > RUN_WINDOW - inlet->count - inlet->due)
		return -EPROTO;
	if (!frame->len)
		inlet->ended = true;
	end = (inlet->first + inlet->count) % RUN_WINDOW;
	part = frame->len < RUN_WINDOW - end ? frame->len : RUN_WINDOW - end;
	memcpy(inlet->buf + end, frame->payload, part);
	memcpy(inlet->buf, frame->payload + part, frame->len - part);
	inlet->count += frame->len;
	inlet_settle(inlet);
	return 0;
}

/* At most so much at once that a blocking pipe that said it has room does not block. */
void inlet_pump(struct inlet *inlet)
{
	uint32_t part = RUN_WINDOW - inlet->first;
	ssize_t n;

	if (part > inlet->count)
		part = inlet->count;
	if (part > PIPE_BUF)
		part = PIPE_BUF;
	if (part && inlet->fd >= 0) {
		n = write(inlet->fd, inlet->buf + inlet->first, part);
		if (n >= 0)
			inlet_take(inlet, n);
		else if (errno != EAGAIN && errno != EINTR)
			inlet_close(inlet);
	}
	inlet_settle(inlet);
}

/* In few frames: when a good part of the window is due, or the sender may be waiting. */
int inlet_acknowledge(struct inlet *inlet, struct channel *channel)
{
	struct run_credit credit = { .stream = inlet->type, .bytes = inlet->due };

	if (!inlet->due || inlet->ended || (inlet->due < RUN_WINDOW / 4 && inlet->count) ||
	    !channel_has_room(channel))
		return 0;
	inlet->due = 0;
	return channel_send(channel, RUN_CREDIT, &credit, sizeof(credit));
}
