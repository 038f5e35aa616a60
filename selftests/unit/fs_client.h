/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * FUSE's requests, for tests of the file system. Whoever includes this has a function that hands a message
 * over, and returns how long the reply is.
 */
#ifndef MOAT_FS_CLIENT_H
#define MOAT_FS_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLIENT_ROOM	8192
#define CLIENT_UNIQUE	0x1234567890ULL

static uint32_t client_exchange(const void *message, uint32_t len, void *reply, uint32_t room);

/* What is behind the header of the last reply; and how long that is. */
static uint8_t client_reply[CLIENT_ROOM];
static uint32_t client_got;

/* Room for that, unless a test says another. */
static uint32_t client_room = CLIENT_ROOM;

/* A message, made of up to three parts. */
static uint8_t client_message[CLIENT_ROOM];
static uint32_t client_len;

static inline void client_add(const void *bytes, uint32_t len)
{
	if (len)
		memcpy(client_message + client_len, bytes, len);
	client_len += len;
	((struct fuse_in_header *)client_message)->len = client_len;
}

static inline void client_begin(uint32_t opcode, uint64_t node)
{
	const struct fuse_in_header head = {
		.opcode = opcode, .unique = CLIENT_UNIQUE, .nodeid = node,
	};

	client_len = 0;
	client_add(&head, sizeof(head));
}

/* The message, with room for @room bytes behind the reply's header. The error it tells; 1: none came. */
static inline int client_send(uint32_t room)
{
	uint8_t bytes[sizeof(struct fuse_out_header) + CLIENT_ROOM];
	struct fuse_out_header head;
	uint32_t got = client_exchange(client_message, client_len, bytes, sizeof(head) + room);

	memcpy(&head, bytes, sizeof(head));
	if (got < sizeof(head) || head.len != got || head.unique != CLIENT_UNIQUE ||
	    (head.error && got != sizeof(head)))
		return 1;
	client_got = got - sizeof(head);
	memcpy(client_reply, bytes + sizeof(head), client_got);
	return head.error;
}

static inline int client_call(uint32_t opcode, uint64_t node, const void *body, uint32_t size,
			      const char *name)
{
	client_begin(opcode, node);
	client_add(body, size);
	if (name)
		client_add(name, strlen(name) + 1);
	return client_send(client_room);
}

static inline int client_init(uint32_t major, uint32_t minor)
{
	const struct fuse_init_in in = { .major = major, .minor = minor, .flags = ~0U };

	return client_call(FUSE_INIT, 0, &in, sizeof(in), NULL);
}

static inline const struct fuse_entry_out *client_entry(void)
{
	return (const struct fuse_entry_out *)client_reply;
}

/* Of what there is none, the number is 0. */

static inline int client_lookup(uint64_t dir, const char *name, uint64_t *ret_node)
{
	int err = client_call(FUSE_LOOKUP, dir, NULL, 0, name);

	*ret_node = err ? 0 : client_entry()->nodeid;
	return err;
}

static inline int client_open(uint32_t opcode, uint64_t node, uint32_t flags, uint64_t *ret_handle)
{
	const struct fuse_open_in in = { .flags = flags };
	int err = client_call(opcode, node, &in, sizeof(in), NULL);

	*ret_handle = err ? 0 : ((const struct fuse_open_out *)client_reply)->fh;
	return err;
}

static inline int client_read(uint32_t opcode, uint64_t node, uint64_t handle, uint64_t offset,
			      uint32_t size)
{
	const struct fuse_read_in in = { .fh = handle, .offset = offset, .size = size };

	return client_call(opcode, node, &in, sizeof(in), NULL);
}

static inline int client_write(uint64_t node, uint64_t handle, uint64_t offset, const char *text)
{
	const struct fuse_write_in in = { .fh = handle, .offset = offset, .size = strlen(text) };

	client_begin(FUSE_WRITE, node);
	client_add(&in, sizeof(in));
	client_add(text, strlen(text));
	return client_send(client_room);
}

static inline int client_create(uint64_t dir, const char *name, uint32_t flags, uint32_t mode,
				uint64_t *ret_node, uint64_t *ret_handle)
{
	const struct fuse_create_in in = { .flags = flags, .mode = S_IFREG | mode };
	int err = client_call(FUSE_CREATE, dir, &in, sizeof(in), name);
	const struct fuse_open_out *open = (const void *)(client_reply + sizeof(struct fuse_entry_out));

	*ret_node = err ? 0 : client_entry()->nodeid;
	*ret_handle = err ? 0 : open->fh;
	return err;
}

static inline int client_forget(uint64_t node, uint64_t count)
{
	const struct fuse_forget_in in = { .nlookup = count };

	return client_call(FUSE_FORGET, node, &in, sizeof(in), NULL);
}

static inline int client_getattr(uint64_t node)
{
	const struct fuse_getattr_in in = { 0 };

	return client_call(FUSE_GETATTR, node, &in, sizeof(in), NULL);
}

static inline int client_setattr(uint64_t node, const struct fuse_setattr_in *in)
{
	return client_call(FUSE_SETATTR, node, in, sizeof(*in), NULL);
}

/* RENAME2 where there are @flags. */
static inline int client_rename(uint64_t dir, const char *name, uint64_t to_dir, const char *to,
				uint32_t flags)
{
	const struct fuse_rename2_in in = { .newdir = to_dir, .flags = flags };

	client_begin(flags ? FUSE_RENAME2 : FUSE_RENAME, dir);
	client_add(&in, flags ? sizeof(in) : sizeof(struct fuse_rename_in));
	client_add(name, strlen(name) + 1);
	client_add(to, strlen(to) + 1);
	return client_send(client_room);
}

static inline int client_symlink(uint64_t dir, const char *name, const char *target)
{
	client_begin(FUSE_SYMLINK, dir);
	client_add(name, strlen(name) + 1);
	client_add(target, strlen(target) + 1);
	return client_send(client_room);
}

static inline int client_link(uint64_t node, uint64_t dir, const char *name)
{
	const struct fuse_link_in in = { .oldnodeid = node };

	return client_call(FUSE_LINK, dir, &in, sizeof(in), name);
}

static inline int client_mknod(uint64_t dir, const char *name, uint32_t mode)
{
	const struct fuse_mknod_in in = { .mode = mode };

	return client_call(FUSE_MKNOD, dir, &in, sizeof(in), name);
}

static inline int client_mkdir(uint64_t dir, const char *name, uint32_t mode)
{
	const struct fuse_mkdir_in in = { .mode = mode };

	return client_call(FUSE_MKDIR, dir, &in, sizeof(in), name);
}

/* The entry of READDIRPLUS or READDIR in the last reply that has a name; NULL: there is none. */
static inline const struct fuse_dirent *client_find(const char *name, bool plus)
{
	const uint32_t before = plus ? sizeof(struct fuse_entry_out) : 0;

	for (uint32_t at = before; at < client_got;) {
		const struct fuse_dirent *entry = (const void *)(client_reply + at);

		if (entry->namelen == strlen(name) && !memcmp(entry->name, name, entry->namelen))
			return entry;
		at += FUSE_DIRENT_SIZE(entry) + before;
	}
	return NULL;
}

#endif
