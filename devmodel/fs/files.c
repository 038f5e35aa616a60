// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Nothing is remembered of a guest but what it knows by number. So a process that takes the place of
 * one that was killed serves requests at once, without the INIT that it has not seen; numbers that are not
 * its own are stale (ESTALE), for which the guest's kernel looks names up anew, from the root.
 *
 * Nothing is cached here. What the guest may keep is told with each reply: names and attributes for a
 * second, what is in a file from its opening on, while its size and its time do not change.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "devmodel/fs/files.h"
#include "devmodel/fs/tree.h"
#include "userspace/lib/array.h"

#define FILES_VALID_SECONDS	1

/**
 * struct operation - what is done for a request
 * @changes: something in the tree, which has to be writable
 */
struct operation {
	struct request_shape shape;
	bool changes;
	int (*serve)(struct files *files, struct request *request);
};

#define ENTRY	sizeof(struct fuse_entry_out)
#define ATTR	sizeof(struct fuse_attr_out)
#define OPEN	sizeof(struct fuse_open_out)
#define IN(of)	sizeof(struct fuse_##of##_in)

static const struct operation operations[] = {
	[FUSE_LOOKUP] = { { 0, ENTRY, TAIL_NAME, false }, false, look_lookup },
	[FUSE_FORGET] = { { IN(forget), 0, TAIL_NONE, true }, false, look_forget },
	[FUSE_GETATTR] = { { IN(getattr), ATTR, TAIL_NONE, false }, false, look_getattr },
	[FUSE_SETATTR] = { { IN(setattr), ATTR, TAIL_NONE, false }, true, change_setattr },
	[FUSE_READLINK] = { { 0, 0, TAIL_NONE, false }, false, look_readlink },
	[FUSE_SYMLINK] = { { 0, ENTRY, TAIL_LINK, false }, true, change_symlink },
	[FUSE_MKNOD] = { { IN(mknod), ENTRY, TAIL_NAME, false }, true, change_mknod },
	[FUSE_MKDIR] = { { IN(mkdir), ENTRY, TAIL_NAME, false }, true, change_mkdir },
	[FUSE_UNLINK] = { { 0, 0, TAIL_NAME, false }, true, change_unlink },
	[FUSE_RMDIR] = { { 0, 0, TAIL_NAME, false }, true, change_rmdir },
	[FUSE_RENAME] = { { IN(rename), 0, TAIL_NAMES, false }, true, change_rename },
	[FUSE_LINK] = { { IN(link), ENTRY, TAIL_NAME, false }, true, change_link },
	[FUSE_OPEN] = { { IN(open), OPEN, TAIL_NONE, false }, false, look_open },
	[FUSE_READ] = { { IN(read), 0, TAIL_NONE, false }, false, look_read },
	[FUSE_WRITE] = { { IN(write), sizeof(struct fuse_write_out), TAIL_DATA, false }, true,
			 change_write },
	[FUSE_STATFS] = { { 0, sizeof(struct fuse_statfs_out), TAIL_NONE, false }, false,
			  look_statfs },
	[FUSE_RELEASE] = { { IN(release), 0, TAIL_NONE, false }, false, look_release },
	[FUSE_FSYNC] = { { IN(fsync), 0, TAIL_NONE, false }, false, change_fsync },
	[FUSE_FLUSH] = { { IN(flush), 0, TAIL_NONE, false }, false, change_flush },
	[FUSE_INIT] = { { REQUEST_INIT_SIZE, sizeof(struct fuse_init_out), TAIL_DATA, false }, false,
			look_init },
	[FUSE_OPENDIR] = { { IN(open), OPEN, TAIL_NONE, false }, false, look_opendir },
	[FUSE_READDIR] = { { IN(read), 0, TAIL_NONE, false }, false, look_readdir },
	[FUSE_RELEASEDIR] = { { IN(release), 0, TAIL_NONE, false }, false, look_release },
	[FUSE_FSYNCDIR] = { { IN(fsync), 0, TAIL_NONE, false }, false, change_fsyncdir },
	[FUSE_ACCESS] = { { IN(access), 0, TAIL_NONE, false }, false, look_access },
	[FUSE_CREATE] = { { IN(create), ENTRY + OPEN, TAIL_NAME, false }, true, change_create },
	[FUSE_INTERRUPT] = { { IN(interrupt), 0, TAIL_NONE, true }, false, look_nothing },
	[FUSE_DESTROY] = { { 0, 0, TAIL_NONE, false }, false, look_destroy },
	[FUSE_BATCH_FORGET] = { { IN(batch_forget), 0, TAIL_DATA, true }, false,
				look_batch_forget },
	[FUSE_FALLOCATE] = { { IN(fallocate), 0, TAIL_NONE, false }, true, change_fallocate },
	[FUSE_READDIRPLUS] = { { IN(read), 0, TAIL_NONE, false }, false, look_readdir },
	[FUSE_RENAME2] = { { IN(rename2), 0, TAIL_NAMES, false }, true, change_rename2 },
	[FUSE_LSEEK] = { { IN(lseek), sizeof(struct fuse_lseek_out), TAIL_NONE, false }, false,
			 look_lseek },
	[FUSE_SYNCFS] = { { IN(syncfs), 0, TAIL_NONE, false }, false, change_syncfs },
};

static const struct operation *operation_find(uint32_t opcode)
{
	return opcode < ARRAY_SIZE(operations) && operations[opcode].serve ? &operations[opcode] : NULL;
}

uint32_t files_serve(struct files *files, struct request *request, struct virtq_chain *chain)
{
	const struct operation *operation;
	int err = request_begin(request, chain);

	if (err)
		return request_reply(request, err);
	operation = operation_find(request->head.opcode);
	if (!operation)
		return request_reply(request, -ENOSYS);
	err = request_read(request, &operation->shape);
	if (!err)
		err = operation->changes && !files->writable ? -EROFS :
							       operation->serve(files, request);
	return operation->shape.quiet ? 0 : request_reply(request, err);
}

struct entry *files_node(struct files *files, uint64_t id)
{
	return id == FUSE_ROOT_ID ? &files->root : table_get(&files->nodes, id);
}

void files_put(struct files *files, struct entry *node)
{
	if (node && node != &files->root)
		table_put(&files->nodes, node);
}

int files_directory(struct files *files, uint64_t id, struct entry **ret_node)
{
	struct entry *node = files_node(files, id);
	int err;

	if (!node)
		return -ESTALE;
	err = node == &files->root ? 0 : tree_within(node->fd);
	if (err) {
		files_put(files, node);
		return err == -ENOENT ? -ESTALE : err;
	}
	*ret_node = node;
	return 0;
}

int files_handle(struct files *files, uint64_t id, enum entry_kind kind, struct entry **ret_handle)
{
	struct entry *handle = table_get(&files->handles, id);

	if (!handle)
		return -ESTALE;
	if (handle->kind != kind) {
		table_put(&files->handles, handle);
		return -EBADF;
	}
	*ret_handle = handle;
	return 0;
}

void files_attributes(const struct stat *st, struct fuse_attr *ret)
{
	*ret = (struct fuse_attr){
		.ino = st->st_ino, .size = st->st_size, .blocks = st->st_blocks,
		.atime = st->st_atim.tv_sec, .atimensec = st->st_atim.tv_nsec,
		.mtime = st->st_mtim.tv_sec, .mtimensec = st->st_mtim.tv_nsec,
		.ctime = st->st_ctim.tv_sec, .ctimensec = st->st_ctim.tv_nsec,
		.mode = st->st_mode, .nlink = st->st_nlink, .uid = st->st_uid, .gid = st->st_gid,
		.rdev = st->st_rdev, .blksize = st->st_blksize,
	};
}

int files_reply_attributes(struct request *request, const struct entry *node)
{
	struct fuse_attr_out out = { .attr_valid = FILES_VALID_SECONDS };
	struct stat st;

	if (fstat(node->fd, &st))
		return -errno;
	files_attributes(&st, &out.attr);
	request_put(request, &out, sizeof(out));
	return 0;
}

static int files_enter(struct files *files, int fd, const struct stat *st, struct fuse_entry_out *ret)
{
	*ret = (struct fuse_entry_out){
		.entry_valid = FILES_VALID_SECONDS, .attr_valid = FILES_VALID_SECONDS,
	};
	files_attributes(st, &ret->attr);
	return table_enter(&files->nodes, fd, st, &ret->nodeid);
}

int files_tell(struct files *files, int fd, struct fuse_entry_out *ret)
{
	struct stat st;
	int err;

	if (!fstat(fd, &st))
		return files_enter(files, fd, &st, ret);
	err = -errno;
	close(fd);
	return err;
}

/*
 * Where another file system is mounted there is an empty directory. As the guest knows a directory by one
 * name only, each of these is another one: its number comes from its place.
 */
static int files_tell_mount(struct files *files, int dir, const char *name,
			    struct fuse_entry_out *ret)
{
	int fd = fcntl(*files->empty, F_DUPFD_CLOEXEC, 0);
	struct stat st, parent;
	uint64_t number;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || fstat(dir, &parent)) {
		close(fd);
		return -EIO;
	}
	for (number = parent.st_ino ^ parent.st_dev << 32; *name; name++)
		number = (number ^ (uint8_t)*name) * 0x100000001b3;
	st.st_ino = number;
	return files_enter(files, fd, &st, ret);
}

int files_tell_name(struct files *files, int dir, const char *name, struct fuse_entry_out *ret)
{
	int fd = tree_find(dir, name);

	if (fd == -EXDEV)
		return files_tell_mount(files, dir, name, ret);
	return fd < 0 ? fd : files_tell(files, fd, ret);
}
