/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Frames over a stream, as QEMU has them (-netdev stream) and passt serves them: each behind its length, 32 bits,
 * the most significant byte first; without a header of virtio's. The descriptors never wait. Where
 * a frame is when a process is killed, nobody knows: its successor needs another stream.
 */
#ifndef DEVMODEL_NET_STREAM_H
#define DEVMODEL_NET_STREAM_H

#include <stdint.h>
#include <sys/uio.h>

#define STREAM_LENGTH	4

/* A frame that comes. @have: bytes of its length and itself that are here. */
struct stream_in {
	uint32_t have;
	uint8_t length[STREAM_LENGTH];
};

/* A frame that was begun. @rest: bytes of it that are still to be sent, the last @left of @size. */
struct stream_out {
	uint32_t left;
	uint32_t size;
	uint8_t *rest;
};

/**
 * stream_read - what there is of a frame
 * @frame: room for it, @max bytes, and the same until it is complete
 *
 * Return: its length; -EAGAIN: it is not complete; -EPROTO: what comes is no frame; -EPIPE: the end, or
 * another negative errno.
 */
int stream_read(int fd, struct stream_in *in, uint8_t *frame, uint32_t min, uint32_t max);

/* The rest of the frame before. Return: 0: there is none; -EAGAIN, or another negative errno. */
int stream_flush(int fd, struct stream_out *out);

/**
 * stream_write - a frame, when there is no rest of another
 * @iov: the frame, @bytes, behind @skip bytes that are left out. At most VIRTQ_IOV_MAX pieces
 * @out: gets what could not be sent: @rest has room for that
 *
 * Return: 0; -EAGAIN: nothing was sent; another negative errno.
 */
int stream_write(int fd, struct stream_out *out, const struct iovec *iov, unsigned int count, uint32_t skip,
		 uint32_t bytes);

#endif /* DEVMODEL_NET_STREAM_H */
