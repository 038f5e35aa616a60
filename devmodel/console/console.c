// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-console (virtio 1.2, section 5.3), one port: queue 0 to the guest, queue 1 from it.
 *
 * Each direction holds at most one chain, taken from its queue, and waits for its descriptor with
 * that. So nothing is read that the guest has no room for, and a chain is given back only when all
 * of it was written: the pace is the slower side's, and no byte is lost or kept here.
 *
 * A descriptor that has ended (end of file, or nobody reads it any more) stays so: the guest then
 * gets no more input, or what it sends is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/console/console.h"
#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

#define CONSOLE_QUEUE_IN	0
#define CONSOLE_QUEUE_OUT	1
#define CONSOLE_QUEUES		2

/* Entries of the array that the thread polls, after the worker's own. */
enum console_poll {
	CONSOLE_POLL_IN_KICK = WORKER_POLL_STOP + 1,
	CONSOLE_POLL_OUT_KICK,
	CONSOLE_POLL_IN,
	CONSOLE_POLL_OUT,
	CONSOLE_POLL_COUNT
};

/**
 * struct console_stream - one direction
 * @held: @chain was taken and not yet given back
 * @flags: the descriptor's, from before it was made non-blocking
 */
struct console_stream {
	struct virtq vq;
	struct virtq_chain chain;
	bool held;
	bool ended;
	int fd;
	int flags;
};

struct console {
	struct device dev;
	struct worker worker;
	struct dev_memory memory;
	struct console_stream in;
	struct console_stream out;
};

/* Hold a chain; where there is none, have the driver kick when there is. */
static bool stream_take(struct console_stream *stream)
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

static void stream_give(struct console_stream *stream, uint32_t written)
{
	virtq_push(&stream->vq, &stream->chain, written);
	virtq_notify(&stream->vq);
	stream->held = false;
}

static bool console_again(void)
{
	return errno == EINTR || errno == EAGAIN;
}

/* One chain's worth of input. False: there is no more for now. */
static bool console_receive_one(struct console_stream *in)
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
	in->ended = !n || !console_again();
	return false;
}

static void console_receive(struct console *console)
{
	while (!console->in.ended && !worker_ends(&console->worker) && stream_take(&console->in))
		if (!console_receive_one(&console->in))
			return;
}

/* What is left of a chain. False: the descriptor takes no more for now. */
static bool console_send_one(struct console_stream *out)
{
	struct virtq_chain *chain = &out->chain;

	while (chain->readable_count && !out->ended) {
		ssize_t n = writev(out->fd, chain->readable, chain->readable_count);

		if (n < 0 && console_again())
			return false;
		if (n < 0)
			out->ended = true;
		else
			iov_advance(&chain->readable, &chain->readable_count, n);
	}
	stream_give(out, 0);
	return true;
}

static void console_send(struct console *console)
{
	while (!worker_ends(&console->worker) && stream_take(&console->out))
		if (!console_send_one(&console->out))
			return;
}

/* A descriptor is waited for only with a chain at hand, a kick only without. */
static void console_expect(struct pollfd *kick, struct pollfd *wait,
			   const struct console_stream *stream, short events)
{
	*kick = (struct pollfd){ .fd = stream->vq.kick, .events = POLLIN };
	*wait = (struct pollfd){
		.fd = stream->held && !stream->ended ? stream->fd : -1, .events = events,
	};
}

static void console_quiet(const struct pollfd *kick)
{
	eventfd_t count;

	if (kick->revents)
		eventfd_read(kick->fd, &count);
}

static void *console_run(void *arg)
{
	struct pollfd wait[CONSOLE_POLL_COUNT];
	struct console *console = arg;

	do {
		console_receive(console);
		console_send(console);
		console_expect(&wait[CONSOLE_POLL_IN_KICK], &wait[CONSOLE_POLL_IN],
			       &console->in, POLLIN);
		console_expect(&wait[CONSOLE_POLL_OUT_KICK], &wait[CONSOLE_POLL_OUT],
			       &console->out, POLLOUT);
		if (!worker_wait(&console->worker, wait, CONSOLE_POLL_COUNT))
			return NULL;
		console_quiet(&wait[CONSOLE_POLL_IN_KICK]);
		console_quiet(&wait[CONSOLE_POLL_OUT_KICK]);
	} while (true);
}

static uint64_t console_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

/* A driver may do without a direction. */
static int stream_start(struct console_stream *stream, const struct console *console,
			uint64_t features, const struct dev_vring *ring)
{
	stream->held = false;
	if (!ring->size) {
		stream->vq = (struct virtq){ .broken = true, .kick = -1, .call = -1, .err = -1 };
		return 0;
	}
	return virtq_init(&stream->vq, &console->memory, ring, features);
}

static int console_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
			 const struct dev_vring *rings)
{
	struct console *console = (struct console *)dev;
	int err;

	console->memory = *memory;
	err = stream_start(&console->in, console, features, &rings[CONSOLE_QUEUE_IN]);
	if (!err)
		err = stream_start(&console->out, console, features, &rings[CONSOLE_QUEUE_OUT]);
	return err ? err : worker_start(&console->worker, "console", console_run, console);
}

static void console_stop(struct device *dev)
{
	worker_stop(&((struct console *)dev)->worker);
}

static void console_destroy(struct device *dev)
{
	struct console *console = (struct console *)dev;

	fcntl(console->out.fd, F_SETFL, console->out.flags);
	fcntl(console->in.fd, F_SETFL, console->in.flags);
	if (console->out.fd != console->in.fd)
		close(console->out.fd);
	close(console->in.fd);
	free(console);
}

static const struct device_ops console_ops = {
	.name = "console",
	.virtio_id = VIRTIO_ID_CONSOLE,
	.queue_count = CONSOLE_QUEUES,
	.queue_size_max = 64,
	.features = console_features,
	.start = console_start,
	.stop = console_stop,
	.destroy = console_destroy,
};

static int stream_open(struct console_stream *stream, int fd)
{
	stream->fd = fd;
	stream->flags = fcntl(fd, F_GETFL);
	if (stream->flags < 0 || fcntl(fd, F_SETFL, stream->flags | O_NONBLOCK))
		return -errno;
	return 0;
}

int console_create(int fd_in, int fd_out, struct device **ret)
{
	struct console *console = calloc(1, sizeof(*console));
	int err;

	if (!console)
		return -ENOMEM;
	console->dev.ops = &console_ops;
	err = stream_open(&console->in, fd_in);
	if (err)
		goto free_console;
	err = stream_open(&console->out, fd_out);
	if (err)
		goto restore_in;
	*ret = &console->dev;
	return 0;

restore_in:
	fcntl(fd_in, F_SETFL, console->in.flags);
free_console:
	free(console);
	return err;
}
