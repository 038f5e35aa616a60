// SPDX-License-Identifier: MIT OR GPL-2.0
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "devmodel/net/stream.h"
#include "devmodel/virtq.h"

/* Up to @len bytes. Return: how many, at least one; or a negative errno. */
static int stream_take(int fd, uint8_t *to, uint32_t len)
{
	const struct iovec iov = { .iov_base = to, .iov_len = len };
	const ssize_t n = readv(fd, &iov, 1);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n ? n : -EPIPE;
}

int stream_read(int fd, struct stream_in *in, uint8_t *frame, uint32_t min, uint32_t max)
{
	uint32_t length = 0;
	int n;

	for (;;) {
		if (in->have >= STREAM_LENGTH) {
			memcpy(&length, in->length, sizeof(length));
			length = ntohl(length);
			if (length < min || length > max)
				return -EPROTO;
			if (in->have == STREAM_LENGTH + length)
				break;
			n = stream_take(fd, frame + in->have - STREAM_LENGTH, STREAM_LENGTH + length - in->have);
		} else {
			n = stream_take(fd, in->length + in->have, STREAM_LENGTH - in->have);
		}
		if (n < 0)
			return n;
		in->have += n;
	}
	in->have = 0;
	return length;
}

int stream_flush(int fd, struct stream_out *out)
{
	while (out->left) {
		const struct iovec iov = { .iov_base = out->rest + out->size - out->left, .iov_len = out->left };
		const ssize_t n = writev(fd, &iov, 1);

		if (n < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		out->left -= n;
	}
	return 0;
}

/* The first @skip bytes are left out. Return: pieces that remain, from @to on. */
static unsigned int pieces_skip(struct iovec *to, const struct iovec *iov, unsigned int count, size_t skip)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < count; i++) {
		const size_t some = skip < iov[i].iov_len ? skip : iov[i].iov_len;

		skip -= some;
		if (some < iov[i].iov_len)
			to[kept++] = (struct iovec){ (char *)iov[i].iov_base + some, iov[i].iov_len - some };
	}
	return kept;
}

/* What is kept is the frame's own from now on: the driver may have its memory back. */
static void stream_keep(struct stream_out *out, const struct iovec *iov, unsigned int count)
{
	out->size = 0;
	for (unsigned int i = 0; i < count; i++) {
		memcpy(out->rest + out->size, iov[i].iov_base, iov[i].iov_len);
		out->size += iov[i].iov_len;
	}
	out->left = out->size;
}

int stream_write(int fd, struct stream_out *out, const struct iovec *iov, unsigned int count, uint32_t skip,
		 uint32_t bytes)
{
	struct iovec all[VIRTQ_IOV_MAX + 1], rest[VIRTQ_IOV_MAX + 1];
	uint32_t length = htonl(bytes);
	ssize_t n;

	all[0] = (struct iovec){ &length, sizeof(length) };
	count = 1 + pieces_skip(all + 1, iov, count, skip);
	n = writev(fd, all, count);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n < (ssize_t)(sizeof(length) + bytes))
		stream_keep(out, rest, pieces_skip(rest, all, count, n));
	return 0;
}
