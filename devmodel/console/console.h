/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_CONSOLE_CONSOLE_H
#define DEVMODEL_CONSOLE_CONSOLE_H

#define CONSOLE_PORTS_MAX	8
#define CONSOLE_NAME_MAX	31

struct device;

/**
 * struct console_end - the host's end of a port
 * @name: what programs of the guest find the port by; NULL: it is a console, for a terminal
 * @in: what the guest reads comes from here
 * @out: what the guest writes goes here; may be the same as @in
 */
struct console_end {
	const char *name;
	int in;
	int out;
};

/**
 * console_create - a console: one port, a stream of bytes each way
 * @fd_in, @fd_out: its end. Both are made non-blocking and are the device's from here on, but not
 *	on failure
 *
 * Return: 0 or a negative errno.
 */
int console_create(int fd_in, int fd_out, struct device **ret);

/**
 * console_create_ports - the same with ports, to drivers that know of such; others see the first
 * @ends: of @count ports, 1 to CONSOLE_PORTS_MAX
 *
 * Return: 0; -EINVAL for a number, or a length of a name, that there cannot be; another errno.
 */
int console_create_ports(const struct console_end *ends, unsigned int count, struct device **ret);

#endif /* DEVMODEL_CONSOLE_CONSOLE_H */
