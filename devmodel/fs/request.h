/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The messages of FUSE in a chain: a request is read whole before anything is done for it. */
#ifndef DEVMODEL_FS_REQUEST_H
#define DEVMODEL_FS_REQUEST_H

#include <limits.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>

#include "devmodel/virtq.h"

/* What follows the struct of a request. */
enum request_tail {
	TAIL_NONE,
	TAIL_NAME,		/* of a file in a directory */
	TAIL_NAMES,		/* of two */
	TAIL_LINK,		/* of one, and what a symbolic link says */
	TAIL_DATA,		/* stays in the chain */
};

/**
 * struct request_shape - how long the parts of a request are
 * @body: the struct behind the header
 * @room: what there must be for the reply behind its header
 * @quiet: there is no reply, and no header of one
 */
struct request_shape {
	uint16_t body;
	uint16_t room;
	enum request_tail tail;
	bool quiet;
};

union request_body {
	struct fuse_access_in access;
	struct fuse_batch_forget_in batch_forget;
	struct fuse_create_in create;
	struct fuse_fallocate_in fallocate;
	struct fuse_flush_in flush;
	struct fuse_forget_in forget;
	struct fuse_fsync_in fsync;
	struct fuse_init_in init;
	struct fuse_link_in link;
	struct fuse_lseek_in lseek;
	struct fuse_mkdir_in mkdir;
	struct fuse_mknod_in mknod;
	struct fuse_open_in open;
	struct fuse_read_in read;
	struct fuse_release_in release;
	struct fuse_rename_in rename;
	struct fuse_rename2_in rename2;
	struct fuse_setattr_in setattr;
	struct fuse_write_in write;
};

/* Of an INIT, what its struct had before it became longer. */
#define REQUEST_INIT_SIZE	offsetof(struct fuse_init_in, flags2)

/**
 * struct request - a request, and where the reply goes
 * @chain: what is left of the parts: data, and room for what is replied behind the header
 * @head: the request's header
 * @name: in @names, one or two
 * @reply: where the reply's header goes, in so many pieces
 * @replied: bytes that are written behind that
 */
struct request {
	struct virtq_chain *chain;
	struct fuse_in_header head;
	union request_body body;
	const char *name[2];
	struct iovec reply[sizeof(struct fuse_out_header)];
	unsigned int reply_count;
	uint32_t replied;
	char names[NAME_MAX + 1 + PATH_MAX];
};

/* Take the header, and the place for that of the reply, if there is one. 0 or -EPROTO. */
int request_begin(struct request *request, struct virtq_chain *chain);

/**
 * request_read - read what is behind the header
 *
 * Return: 0; -EPROTO where a length is another than @shape says; for names that are none of a file
 * in a directory, -EINVAL or -ENAMETOOLONG.
 */
int request_read(struct request *request, const struct request_shape *shape);

/* How much more room for a reply there is. */
uint64_t request_room(const struct request *request);

/* The next bytes of the reply, for which there is room. */
void request_put(struct request *request, const void *bytes, uint32_t len);

/**
 * request_reply - write the header of the reply; what is behind it is there already
 * @err: 0 or a negative errno; with one, what is behind it does not count
 *
 * Return: bytes of the whole reply, 0 where there is no place for it.
 */
uint32_t request_reply(struct request *request, int err);

#endif /* DEVMODEL_FS_REQUEST_H */
