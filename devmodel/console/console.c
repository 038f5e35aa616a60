// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-console (virtio 1.2, section 5.3): the device round its ports. A console of one port
 * without a name has two queues and says nothing of ports; any other has those of port 0, two for
 * what is said (control.c), and two for each port more.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/console/port.h"

/* Rings: to the guest, and the next one from it. */
enum { CONSOLE_RING_FIRST = 0, CONSOLE_RING_CONTROL = 2, CONSOLE_RING_OTHERS = 4 };

/* Entries of the array that the thread polls, after the worker's own: of control, and of a port. */
enum { CONTROL_POLL_IN = WORKER_POLL_STOP + 1, CONTROL_POLL_OUT, CONSOLE_POLL_PORTS };
enum { PORT_POLL_IN_KICK, PORT_POLL_IN, PORT_POLL_OUT_KICK, PORT_POLL_OUT, PORT_POLL_COUNT };

#define CONSOLE_POLL_MAX	(CONSOLE_POLL_PORTS + CONSOLE_PORTS_MAX * PORT_POLL_COUNT)

static unsigned int port_ring(unsigned int port)
{
	return port ? CONSOLE_RING_OTHERS + 2 * (port - 1) : CONSOLE_RING_FIRST;
}

static bool console_has_control(const struct console *console)
{
	return console->ops.queue_count > CONSOLE_RING_CONTROL;
}

static void port_serve(struct console *console, struct console_port *port)
{
	const bool in_ended = port->in.ended, out_ended = port->out.ended;

	if (port->open)
		stream_receive(&port->in, &console->worker);
	stream_send(&port->out, &console->worker);
	if (port->in.ended != in_ended || port->out.ended != out_ended)
		control_ended(console, port);
}

/* A port that the guest does not have open waits for that, by what is said, and for no input. */
static void port_expect(const struct console_port *port, struct pollfd *wait)
{
	stream_expect(&port->in, POLLIN, &wait[PORT_POLL_IN_KICK], &wait[PORT_POLL_IN]);
	stream_expect(&port->out, POLLOUT, &wait[PORT_POLL_OUT_KICK], &wait[PORT_POLL_OUT]);
	if (!port->open)
		wait[PORT_POLL_IN].fd = -1;
}

/* Fills in what to wait for. Return: of how many entries. */
static unsigned int console_serve(struct console *console, struct pollfd *wait)
{
	unsigned int count = CONSOLE_POLL_PORTS;

	control_serve(console);
	for (unsigned int i = 0; i < console->ports; i++, count += PORT_POLL_COUNT) {
		port_serve(console, &console->port[i]);
		port_expect(&console->port[i], &wait[count]);
	}
	/* Of ends that were only found now. */
	control_serve(console);
	wait[CONTROL_POLL_IN] = (struct pollfd){ .fd = console->to_driver.vq.kick, .events = POLLIN };
	wait[CONTROL_POLL_OUT] = (struct pollfd){
		.fd = console->from_driver.vq.kick, .events = POLLIN,
	};
	return count;
}

static void kick_quiet(const struct pollfd *kick)
{
	eventfd_t count;

	if (kick->revents)
		eventfd_read(kick->fd, &count);
}

static void *console_run(void *arg)
{
	struct pollfd wait[CONSOLE_POLL_MAX] = { { 0 } };
	struct console *console = arg;

	while (worker_wait(&console->worker, wait, console_serve(console, wait))) {
		kick_quiet(&wait[CONTROL_POLL_IN]);
		kick_quiet(&wait[CONTROL_POLL_OUT]);
		for (unsigned int i = 0; i < console->ports; i++) {
			const unsigned int at = CONSOLE_POLL_PORTS + i * PORT_POLL_COUNT;

			kick_quiet(&wait[at + PORT_POLL_IN_KICK]);
			kick_quiet(&wait[at + PORT_POLL_OUT_KICK]);
		}
	}
	return NULL;
}

/* Of a conversation on a packed ring, nobody could tell later whether it had begun (control.c). */
static uint64_t console_features(struct device *dev)
{
	if (!console_has_control((struct console *)dev))
		return VIRTQ_FEATURES;
	return (VIRTQ_FEATURES & ~(1ULL << VIRTIO_F_RING_PACKED)) |
	       1ULL << VIRTIO_CONSOLE_F_MULTIPORT;
}

static void console_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct console *)dev)->config + offset, len);
}

/* Two rings of a port, or of what is said of ports. */
static int streams_start(const struct console *console, struct console_stream *in,
			 struct console_stream *out, uint64_t features,
			 const struct dev_vring *rings)
{
	int err = stream_start(in, &console->memory, features, &rings[0]);

	return err ? err : stream_start(out, &console->memory, features, &rings[1]);
}

static int control_streams_start(struct console *console, uint64_t features,
				 const struct dev_vring *rings)
{
	static const struct dev_vring none[2] = { { .size = 0 } };

	return streams_start(console, &console->to_driver, &console->from_driver, features,
			     console_has_control(console) ? &rings[CONSOLE_RING_CONTROL] : none);
}

/* Has the driver got anything back from a device, this one or one before it? */
static bool console_has_begun(const struct console *console)
{
	bool is_new = virtq_is_new(&console->to_driver.vq) &&
		      virtq_is_new(&console->from_driver.vq);

	for (unsigned int i = 0; i < console->ports; i++)
		is_new &= virtq_is_new(&console->port[i].in.vq) &&
			  virtq_is_new(&console->port[i].out.vq);
	return !is_new;
}

static int console_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
			 const struct dev_vring *rings)
{
	struct console *console = (struct console *)dev;
	int err;

	console->memory = *memory;
	err = control_streams_start(console, features, rings);
	for (unsigned int i = 0; i < console->ports && !err; i++)
		err = streams_start(console, &console->port[i].in, &console->port[i].out, features,
				    &rings[port_ring(i)]);
	if (err)
		return err;
	control_start(console, features, console_has_begun(console));
	return worker_start(&console->worker, "console", console_run, console);
}

static void console_stop(struct device *dev)
{
	worker_stop(&((struct console *)dev)->worker);
}

static void console_destroy(struct device *dev)
{
	struct console *console = (struct console *)dev;

	for (unsigned int i = 0; i < console->ports; i++) {
		struct console_port *port = &console->port[i];

		stream_restore(&port->out);
		stream_restore(&port->in);
		if (port->out.fd != port->in.fd)
			close(port->out.fd);
		close(port->in.fd);
	}
	free(console);
}

static const struct device_ops console_ops = {
	.name = "console",
	.virtio_id = VIRTIO_ID_CONSOLE,
	.queue_size_max = 64,
	.config_size = sizeof(struct virtio_console_config),
	.features = console_features,
	.config_read = console_config_read,
	.start = console_start,
	.stop = console_stop,
	.destroy = console_destroy,
};

static int port_open(struct console_port *port, const struct console_end *end)
{
	int err;

	if (end->name && (!*end->name || strlen(end->name) > CONSOLE_NAME_MAX))
		return -EINVAL;
	if (end->name)
		strcpy(port->name, end->name);
	err = stream_open(&port->in, end->in);
	if (err)
		return err;
	err = stream_open(&port->out, end->out);
	if (err)
		stream_restore(&port->in);
	return err;
}

static int ports_open(struct console *console, const struct console_end *ends, unsigned int count)
{
	for (; console->ports < count; console->ports++) {
		int err = port_open(&console->port[console->ports], &ends[console->ports]);

		if (!err)
			continue;
		while (console->ports--) {
			stream_restore(&console->port[console->ports].out);
			stream_restore(&console->port[console->ports].in);
		}
		return err;
	}
	return 0;
}

int console_create_ports(const struct console_end *ends, unsigned int count, struct device **ret)
{
	struct console *console;
	int err;

	if (!count || count > CONSOLE_PORTS_MAX)
		return -EINVAL;
	console = calloc(1, sizeof(*console) + count * sizeof(console->port[0]));
	if (!console)
		return -ENOMEM;
	console->dev.ops = &console->ops;
	console->ops = console_ops;
	console->ops.queue_count = count == 1 && !ends->name ? CONSOLE_RING_CONTROL :
							       port_ring(count);
	console->config.max_nr_ports = count;
	err = ports_open(console, ends, count);
	if (err)
		free(console);
	else
		*ret = &console->dev;
	return err;
}

int console_create(int fd_in, int fd_out, struct device **ret)
{
	const struct console_end end = { .in = fd_in, .out = fd_out };

	return console_create_ports(&end, 1, ret);
}
