// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Each direction holds at most one chain, taken from its queue, and waits for its descriptor with
 * that. So nothing is read that the guest has no room for, and a chain is given back only when all
 * of it was written: the pace is the slower side's, and no byte is lost or kept here.
 *
 * A descriptor that has ended (end of file, or nobody reads it any more) stays so: the guest then
 * gets no more input, or what it sends is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "devmodel/console/port.h"

int stream_open(struct console_stream *stream, int fd)
{
	stream->fd = fd;
	stream->flags = fcntl(fd, F_GETFL);
	if (stream->flags < 0 || fcntl(fd, F_SETFL, stream->flags | O_NONBLOCK))
		return -errno;
	return 0;
}

void stream_restore(struct console_stream *stream)
{
	fcntl(stream->fd, F_SETFL, stream->flags);
}

int stream_start(struct console_stream *stream, const struct dev_memory *memory, uint64_t features,
		 const struct dev_vring *ring)
{
	stream->held = false;
	if (!ring->size) {
		stream->vq = (struct virtq){ .broken = true, .kick = -1, .call = -1, .err = -1 };
		return 0;
	}
	return virtq_init(&stream->vq, memory, ring, features);
}

bool stream_take(struct console_stream *stream)
{
	struct virtq *vq = &stream->vq;

	if (stream->held)
		return true;
	do {
		if (virtq_pop(vq, &stream->chain) > 0) {
			virtq_kick_disable(vq);
			stream->held = true;
			return true;
		}
	} while (virtq_kick_enable(vq));
	return false;
}

void stream_give(struct console_stream *stream, uint32_t written)
{
	virtq_push(&stream->vq, &stream->chain, written);
	virtq_notify(&stream->vq);
	stream->held = false;
}

static bool stream_again(void)
{
	return errno == EINTR || errno == EAGAIN;
}

/* One chain's worth of input. False: there is no more for now. */
static bool stream_receive_one(struct console_stream *in)
{
	ssize_t n;

	if (!in->chain.writable_count) {
		stream_give(in, 0);
		return true;
	}
	n = readv(in->fd, in->chain.writable, in->chain.writable_count);
	if (n > 0) {
		stream_give(in, n);
		return true;
	}
	in->ended = !n || !stream_again();
	return false;
}

void stream_receive(struct console_stream *in, const struct worker *worker)
{
	while (!in->ended && !worker_ends(worker) && stream_take(in))
		if (!stream_receive_one(in))
			return;
}

/* What is left of a chain. False: the descriptor takes no more for now. */
static bool stream_send_one(struct console_stream *out)
{
	struct virtq_chain *chain = &out->chain;

	while (chain->readable_count && !out->ended) {
		ssize_t n = writev(out->fd, chain->readable, chain->readable_count);

		if (n < 0 && stream_again())
			return false;
		if (n < 0)
			out->ended = true;
		else
			iov_advance(&chain->readable, &chain->readable_count, n);
	}
	stream_give(out, 0);
	return true;
}

void stream_send(struct console_stream *out, const struct worker *worker)
{
	while (!worker_ends(worker) && stream_take(out))
		if (!stream_send_one(out))
			return;
}

void stream_expect(const struct console_stream *stream, short events, struct pollfd *kick,
		   struct pollfd *fd)
{
	*kick = (struct pollfd){ .fd = stream->vq.kick, .events = POLLIN };
	*fd = (struct pollfd){
		.fd = stream->held && !stream->ended ? stream->fd : -1, .events = events,
	};
}
