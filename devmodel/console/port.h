/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Inside of a console: streams (stream.c), ports and what is said of them (control.c). */
#ifndef DEVMODEL_CONSOLE_PORT_H
#define DEVMODEL_CONSOLE_PORT_H

#include <linux/virtio_console.h>
#include <poll.h>
#include <stdbool.h>

#include "devmodel/console/console.h"
#include "devmodel/device.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

/**
 * struct console_stream - one direction of a port, or of what is said of ports
 * @held: @chain was taken and not yet given back
 * @ended: nothing comes from @fd any more, or nobody reads it
 * @flags: of @fd, from before it was made non-blocking
 */
struct console_stream {
	struct virtq vq;
	struct virtq_chain chain;
	bool held;
	bool ended;
	int fd;
	int flags;
};

/**
 * struct console_port - a port
 * @name: empty: it is a console
 * @open: the guest has it open: before, it would not keep what it gets
 * @pending: a bit for each of the messages of control.c that the guest is to get
 */
struct console_port {
	char name[CONSOLE_NAME_MAX + 1];
	bool open;
	uint8_t pending;
	struct console_stream in;
	struct console_stream out;
};

/**
 * struct console - the device
 * @controlled: the driver knows of ports
 * @known: it has said something of them to this process
 * @to_driver, @from_driver: what is said of ports
 */
struct console {
	struct device dev;
	struct device_ops ops;
	struct worker worker;
	struct dev_memory memory;
	struct virtio_console_config config;
	bool controlled;
	bool known;
	struct console_stream to_driver;
	struct console_stream from_driver;
	unsigned int ports;
	struct console_port port[];
};

/* 0 or a negative errno; the descriptor is the stream's. */
int stream_open(struct console_stream *stream, int fd);

/* The descriptor is as before, and stays open. */
void stream_restore(struct console_stream *stream);

/* A driver may do without a stream: its ring has no entries then. */
int stream_start(struct console_stream *stream, const struct dev_memory *memory, uint64_t features,
		 const struct dev_vring *ring);

/* Hold a chain; where there is none, have the driver kick when there is. */
bool stream_take(struct console_stream *stream);
void stream_give(struct console_stream *stream, uint32_t written);

/* As much as there are chains, and the descriptor has or takes. */
void stream_receive(struct console_stream *in, const struct worker *worker);
void stream_send(struct console_stream *out, const struct worker *worker);

/* What a stream waits for: its kick without a chain, its descriptor with one. */
void stream_expect(const struct console_stream *stream, short events, struct pollfd *kick,
		   struct pollfd *fd);

/* The driver is ready, and @features are what it knows. @begun: it has used the device before. */
void control_start(struct console *console, uint64_t features, bool begun);

/* Hears what the driver has to say, and says what it is to know. */
void control_serve(struct console *console);

/* The host's end of a port is open no longer. */
void control_ended(struct console *console, struct console_port *port);

#endif /* DEVMODEL_CONSOLE_PORT_H */
