// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What driver and device say to each other of ports (virtio 1.2, section 5.3.6.2).
 *
 * The driver says that it is ready, and is told of each port; it says that a port is ready, and is
 * told its name, or that it is a console, and that the host has it open. What is to be said is a
 * bit of the port, so that nothing here grows with what a driver asks for.
 *
 * A process that comes after another one finds a driver that has said all this, and does not know
 * what the guest has open. It tells of each port anew, which drivers take in their stride, and
 * takes each for open: a program that waits for input gets it.
 */
#include <string.h>

#include "devmodel/console/port.h"
#include "userspace/lib/array.h"

/* In the order in which they are to be said. */
enum control_message { CONTROL_ADD, CONTROL_CONSOLE, CONTROL_NAME, CONTROL_OPEN };

static const uint16_t control_events[] = {
	[CONTROL_ADD] = VIRTIO_CONSOLE_PORT_ADD,
	[CONTROL_CONSOLE] = VIRTIO_CONSOLE_CONSOLE_PORT,
	[CONTROL_NAME] = VIRTIO_CONSOLE_PORT_NAME,
	[CONTROL_OPEN] = VIRTIO_CONSOLE_PORT_OPEN,
};

/* One descriptor for both has ended with its input: there is nobody any more. */
static bool port_ended(const struct console_port *port)
{
	return port->in.ended && (port->out.ended || port->out.fd == port->in.fd);
}

void control_start(struct console *console, uint64_t features, bool begun)
{
	console->controlled = features >> VIRTIO_CONSOLE_F_MULTIPORT & 1;
	begun &= console->controlled;
	if (begun && console->known)
		return;
	console->known = begun;
	for (unsigned int i = 0; i < console->ports; i++) {
		console->port[i].open = begun || !console->controlled;
		console->port[i].pending = begun << CONTROL_ADD;
	}
}

static void control_hear(struct console *console, const struct virtio_console_control *said)
{
	struct console_port *port = said->id < console->ports ? &console->port[said->id] : NULL;

	console->known = true;
	if (said->event == VIRTIO_CONSOLE_DEVICE_READY && said->value)
		for (unsigned int i = 0; i < console->ports; i++)
			console->port[i].pending |= 1 << CONTROL_ADD;
	if (said->event == VIRTIO_CONSOLE_PORT_READY && said->value && port)
		port->pending |= 1 << CONTROL_OPEN |
				 1 << (*port->name ? CONTROL_NAME : CONTROL_CONSOLE);
	if (said->event == VIRTIO_CONSOLE_PORT_OPEN && port)
		port->open = said->value;
}

/* What is no message is not heard. */
static void control_receive(struct console *console)
{
	struct console_stream *from = &console->from_driver;
	struct virtio_console_control said;

	while (!worker_ends(&console->worker) && stream_take(from)) {
		if (chain_read(&from->chain, &said, sizeof(said)) == sizeof(said))
			control_hear(console, &said);
		stream_give(from, 0);
	}
}

static void control_say(struct console *console, unsigned int id, enum control_message message)
{
	const struct console_port *port = &console->port[id];
	struct console_stream *to = &console->to_driver;
	const struct virtio_console_control said = {
		.id = id, .event = control_events[message],
		.value = message != CONTROL_OPEN || !port_ended(port),
	};
	uint32_t written = chain_write(&to->chain, &said, sizeof(said));

	if (message == CONTROL_NAME)
		written += chain_write(&to->chain, port->name, strlen(port->name));
	stream_give(to, written);
}

/* False: the driver has no room for more. */
static bool control_send_port(struct console *console, unsigned int id)
{
	struct console_port *port = &console->port[id];

	for (unsigned int i = 0; i < ARRAY_SIZE(control_events); i++) {
		if (!(port->pending >> i & 1))
			continue;
		if (!stream_take(&console->to_driver))
			return false;
		control_say(console, id, i);
		port->pending &= ~(1 << i);
	}
	return true;
}

void control_serve(struct console *console)
{
	if (!console->controlled)
		return;
	control_receive(console);
	for (unsigned int i = 0; i < console->ports; i++)
		if (!control_send_port(console, i))
			return;
}

void control_ended(struct console *console, struct console_port *port)
{
	if (console->controlled && port_ended(port))
		port->pending |= 1 << CONTROL_OPEN;
}
