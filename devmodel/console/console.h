/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_CONSOLE_CONSOLE_H
#define DEVMODEL_CONSOLE_CONSOLE_H

struct device;

/**
 * console_create - a console: one port, a stream of bytes each way
 * @fd_in: what the guest reads comes from here
 * @fd_out: what the guest writes goes here; may be the same as @fd_in. Both are made non-blocking
 *	and are the device's from here on, but not on failure
 *
 * Return: 0 or a negative errno.
 */
int console_create(int fd_in, int fd_out, struct device **ret);

#endif /* DEVMODEL_CONSOLE_CONSOLE_H */
