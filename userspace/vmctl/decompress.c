// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmctl/decompress.h"

#define DECOMPRESS_MAX	(256 << 20)

/* Memory that grows by halves as there is more to put into it. */
struct growing {
	uint8_t *data;
	size_t size;
	size_t room;
};

static int growing_more(struct growing *to)
{
	size_t room = to->room ? 2 * to->room : 1 << 20;
	uint8_t *data;

	if (to->size < to->room)
		return 0;
	if (room > DECOMPRESS_MAX)
		return -EFBIG;
	data = realloc(to->data, room);
	if (!data)
		return -ENOMEM;
	to->data = data;
	to->room = room;
	return 0;
}

static int decompress_xz(const struct growing *from, struct growing *to)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	lzma_ret done = LZMA_OK;
	int err = 0;

	if (lzma_stream_decoder(&stream, UINT64_MAX, LZMA_CONCATENATED) != LZMA_OK)
		return -ENOMEM;
	stream.next_in = from->data;
	stream.avail_in = from->size;
	while (!err && done == LZMA_OK) {
		err = growing_more(to);
		if (err)
			break;
		stream.next_out = to->data + to->size;
		stream.avail_out = to->room - to->size;
		done = lzma_code(&stream, LZMA_FINISH);
		to->size = to->room - stream.avail_out;
	}
	lzma_end(&stream);
	return err || done == LZMA_STREAM_END ? err : -EINVAL;
}

static int decompress_zstd(const struct growing *from, struct growing *to)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = { from->data, from->size, 0 };
	size_t left = 1;
	int err = stream ? 0 : -ENOMEM;

	while (!err && left) {
		ZSTD_outBuffer out;
		size_t before = in.pos;

		err = growing_more(to);
		if (err)
			break;
		out = (ZSTD_outBuffer){ to->data, to->room, to->size };
		left = ZSTD_decompressStream(stream, &out, &in);
		if (ZSTD_isError(left) || (left && in.pos == before && out.pos == to->size))
			err = -EINVAL;
		to->size = out.pos;
	}
	ZSTD_freeDStream(stream);
	return err;
}

static int decompress_gzip(const struct growing *from, struct growing *to)
{
	z_stream stream = { .next_in = from->data, .avail_in = from->size };
	int err = 0, done = Z_OK;

	if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	while (!err && done == Z_OK) {
		err = growing_more(to);
		if (err)
			break;
		stream.next_out = to->data + to->size;
		stream.avail_out = to->room - to->size;
		done = inflate(&stream, Z_NO_FLUSH);
		to->size = to->room - stream.avail_out;
	}
	inflateEnd(&stream);
	return err || done == Z_STREAM_END ? err : -EINVAL;
}

static const struct {
	const char *suffix;
	int (*decompress)(const struct growing *from, struct growing *to);
} decompress_formats[] = {
	{ ".xz", decompress_xz },
	{ ".zst", decompress_zstd },
	{ ".gz", decompress_gzip },
};

#define DECOMPRESS_FORMATS	(sizeof(decompress_formats) / sizeof(decompress_formats[0]))

static int decompress_read(const char *path, struct growing *to)
{
	int err, fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t size;

	if (fd < 0)
		return -errno;
	err = fd_size(fd, &size);
	if (!err && size > DECOMPRESS_MAX)
		err = -EFBIG;
	if (!err) {
		to->data = malloc(size + 1);
		to->size = size;
		err = to->data ? fd_pread_full(fd, to->data, size, 0) : -ENOMEM;
	}
	close(fd);
	return err;
}

int decompress_file(const char *path, void **ret, size_t *ret_size)
{
	struct growing from = { 0 }, to = { 0 };
	size_t len = strlen(path);
	int err = decompress_read(path, &from);

	for (size_t i = 0; !err && i < DECOMPRESS_FORMATS; i++) {
		const char *suffix = decompress_formats[i].suffix;

		if (len < strlen(suffix) || strcmp(path + len - strlen(suffix), suffix))
			continue;
		err = decompress_formats[i].decompress(&from, &to);
		free(from.data);
		from = to;
		break;
	}
	if (err) {
		free(from.data);
		return err;
	}
	*ret = from.data;
	*ret_size = from.size;
	return 0;
}
