/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What the guest does with the tree: requests of FUSE, each from its chain to its reply. */
#ifndef DEVMODEL_FS_FILES_H
#define DEVMODEL_FS_FILES_H

#include "devmodel/fs/request.h"
#include "devmodel/fs/table.h"

/**
 * struct files - a tree, and what the guest knows of it
 * @self: where a descriptor of /proc/self/fd is found
 * @empty: where one of an empty directory is, which is shown where something is mounted
 * @root: the node of FUSE_ROOT_ID, which is known without being told of
 * @nodes: all others
 * @handles: what is open
 */
struct files {
	const int *self;
	const int *empty;
	bool writable;
	struct entry root;
	struct table nodes;
	struct table handles;
};

/* A request, for which @request is room. Return: bytes of the reply. Threads may do so at once. */
uint32_t files_serve(struct files *files, struct request *request, struct virtq_chain *chain);

/*
 * What is below is for those that serve requests. They return 0 or a negative errno, and with 0 the reply
 * is in the request.
 */

/* The node of a number, until files_put(); NULL: it is stale. */
struct entry *files_node(struct files *files, uint64_t id);
void files_put(struct files *files, struct entry *node);

/* The same for one to look for names in: it is in the tree. */
int files_directory(struct files *files, uint64_t id, struct entry **ret_node);

/* What is open, until table_put(). -ESTALE, -EBADF for one of another kind. */
int files_handle(struct files *files, uint64_t id, enum entry_kind kind, struct entry **ret_handle);

/* Tell the guest of a node, by a descriptor that is taken; or by the name it has in a directory. */
int files_tell(struct files *files, int fd, struct fuse_entry_out *ret);
int files_tell_name(struct files *files, int dir, const char *name, struct fuse_entry_out *ret);

/* What fuse_attr says of a file. */
void files_attributes(const struct stat *st, struct fuse_attr *ret);

/* The attributes of a node are the reply. */
int files_reply_attributes(struct request *request, const struct entry *node);

int look_access(struct files *files, struct request *request);
int look_batch_forget(struct files *files, struct request *request);
int look_destroy(struct files *files, struct request *request);
int look_forget(struct files *files, struct request *request);
int look_getattr(struct files *files, struct request *request);
int look_init(struct files *files, struct request *request);
int look_lookup(struct files *files, struct request *request);
int look_lseek(struct files *files, struct request *request);
int look_nothing(struct files *files, struct request *request);
int look_open(struct files *files, struct request *request);
int look_opendir(struct files *files, struct request *request);
int look_read(struct files *files, struct request *request);
int look_readdir(struct files *files, struct request *request);
int look_readlink(struct files *files, struct request *request);
int look_release(struct files *files, struct request *request);
int look_statfs(struct files *files, struct request *request);

int change_create(struct files *files, struct request *request);
int change_fallocate(struct files *files, struct request *request);
int change_flush(struct files *files, struct request *request);
int change_fsync(struct files *files, struct request *request);
int change_fsyncdir(struct files *files, struct request *request);
int change_link(struct files *files, struct request *request);
int change_mkdir(struct files *files, struct request *request);
int change_mknod(struct files *files, struct request *request);
int change_rename(struct files *files, struct request *request);
int change_rename2(struct files *files, struct request *request);
int change_rmdir(struct files *files, struct request *request);
int change_setattr(struct files *files, struct request *request);
int change_symlink(struct files *files, struct request *request);
int change_syncfs(struct files *files, struct request *request);
int change_unlink(struct files *files, struct request *request);
int change_write(struct files *files, struct request *request);

#endif /* DEVMODEL_FS_FILES_H */
