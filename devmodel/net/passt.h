/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_NET_PASST_H
#define DEVMODEL_NET_PASST_H

/*
 * Starts passt, which makes the guest's connections its own sockets', by the rights of an ordinary user, and ends with
 * the stream. Nothing of the host's loopback is within its reach, and no port of the host's leads to the
 * guest. Return: the stream, or a negative errno.
 */
int passt_start(void);

#endif /* DEVMODEL_NET_PASST_H */
