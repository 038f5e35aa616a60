/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_VSOCK_VSOCK_H
#define DEVMODEL_VSOCK_VSOCK_H

#include <stdint.h>

/* From here on, context IDs are those of guests; up to the largest of 32 bits but one. */
#define VSOCK_CID_MIN	3
#define VSOCK_CID_MAX	0xfffffffe

struct device;

/**
 * vsock_create - stream sockets between a guest and programs of the host
 * @cid: the guest's, VSOCK_CID_MIN to VSOCK_CID_MAX
 * @path: of the socket that @listener is, as this process will see it when it serves: what the
 *	guest connects to on port P is the socket "PATH_P". Short enough for an address with any port
 * @listener: where programs of the host come to be connected. Made non-blocking, and the device's
 *	from here on, but not on failure
 *
 * Return: 0 or a negative errno; -ENAMETOOLONG.
 */
int vsock_create(uint64_t cid, const char *path, int listener, struct device **ret);

#endif /* DEVMODEL_VSOCK_VSOCK_H */
