// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Drivers may cut a message into pieces wherever they like. All that counts are the bytes of a part: those
 * that can be read are exactly as many as the header says, and as the request has; each is read once.
 */
#include <errno.h>
#include <string.h>

#include "devmodel/fs/request.h"

/* The place of the reply's header is kept, since it is written last. */
static void request_take_place(struct request *request)
{
	struct virtq_chain *chain = request->chain;
	size_t left = sizeof(struct fuse_out_header);

	request->reply_count = 0;
	if (iov_bytes(chain->writable, chain->writable_count) < left)
		return;
	while (left) {
		struct iovec piece = chain->writable[0];

		if (piece.iov_len > left)
			piece.iov_len = left;
		request->reply[request->reply_count++] = piece;
		left -= piece.iov_len;
		iov_advance(&chain->writable, &chain->writable_count, piece.iov_len);
	}
}

int request_begin(struct request *request, struct virtq_chain *chain)
{
	const uint64_t bytes = iov_bytes(chain->readable, chain->readable_count);

	request->chain = chain;
	request->head = (struct fuse_in_header){ 0 };
	request_take_place(request);
	request->replied = 0;
	chain_read(chain, &request->head, sizeof(request->head));
	return bytes >= sizeof(request->head) && request->head.len == bytes ? 0 : -EPROTO;
}

/* One component of a path, and one that leads nowhere but down. */
static int name_check(const char *name, size_t len)
{
	if (!len || memchr(name, '/', len) || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return len > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* The next of the names in @names, of which @left bytes are left. */
static int request_take_name(struct request *request, unsigned int index, char **at, size_t *left)
{
	size_t len = strnlen(*at, *left);

	if (len == *left)
		return -EPROTO;
	request->name[index] = *at;
	*at += len + 1;
	*left -= len + 1;
	return 0;
}

/* They end where the request does, each with a NUL. */
static int request_read_names(struct request *request, enum request_tail tail)
{
	const unsigned int count = tail == TAIL_NAME ? 1 : 2;
	size_t left = iov_bytes(request->chain->readable, request->chain->readable_count);
	char *at = request->names;
	int err = 0;

	if (left > sizeof(request->names))
		return -ENAMETOOLONG;
	chain_read(request->chain, request->names, left);
	for (unsigned int i = 0; i < count && !err; i++)
		err = request_take_name(request, i, &at, &left);
	if (err || left)
		return -EPROTO;
	for (unsigned int i = 0; i < (tail == TAIL_NAMES ? 2 : 1) && !err; i++)
		err = name_check(request->name[i], strlen(request->name[i]));
	return err;
}

int request_read(struct request *request, const struct request_shape *shape)
{
	struct virtq_chain *chain = request->chain;

	if (!shape->quiet && (!request->reply_count || request_room(request) < shape->room))
		return -EPROTO;
	if (chain_read(chain, &request->body, shape->body) != shape->body)
		return -EPROTO;
	switch (shape->tail) {
	case TAIL_NONE:
		return chain->readable_count ? -EPROTO : 0;
	case TAIL_DATA:
		return 0;
	default:
		return request_read_names(request, shape->tail);
	}
}

uint64_t request_room(const struct request *request)
{
	return iov_bytes(request->chain->writable, request->chain->writable_count);
}

void request_put(struct request *request, const void *bytes, uint32_t len)
{
	request->replied += chain_write(request->chain, bytes, len);
}

uint32_t request_reply(struct request *request, int err)
{
	const struct fuse_out_header out = {
		.len = sizeof(out) + (err ? 0 : request->replied),
		.error = err, .unique = request->head.unique,
	};
	const char *from = (const char *)&out;

	if (!request->reply_count)
		return 0;
	for (unsigned int i = 0; i < request->reply_count; i++) {
		memcpy(request->reply[i].iov_base, from, request->reply[i].iov_len);
		from += request->reply[i].iov_len;
	}
	return out.len;
}
