// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Requests that change the tree, with the rights of this process's user and no more: new files are its
 * own. What could do harm on the host by being there is refused: devices, FIFOs and sockets,
 * and programs that run with their owner's rights.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devmodel/fs/files.h"
#include "devmodel/fs/tree.h"

#define CHANGE_MODE		07777
#define CHANGE_OWNER_RIGHTS	(S_ISUID | S_ISGID)

#define CHANGE_SETATTR	(FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME | \
			 FATTR_FH | FATTR_ATIME_NOW | FATTR_MTIME_NOW | FATTR_LOCKOWNER | FATTR_CTIME | \
			 FATTR_KILL_SUIDGID)

static int result(int returned)
{
	return returned ? -errno : 0;
}

/* Names */

/* What now has the request's name in a directory is the reply. */
static int reply_name(struct files *files, struct request *request, const struct entry *dir)
{
	struct fuse_entry_out out;
	int err = files_tell_name(files, dir->fd, request->name[0], &out);

	if (!err)
		request_put(request, &out, sizeof(out));
	return err;
}

/* Do @make in the request's directory, and reply with what it has made, if that is @told. */
static int change_names(struct files *files, struct request *request,
			int (*make)(struct files *files, struct request *request, int dir), bool told)
{
	struct entry *dir;
	int err = files_directory(files, request->head.nodeid, &dir);

	if (err)
		return err;
	err = make(files, request, dir->fd);
	if (!err && told)
		err = reply_name(files, request, dir);
	files_put(files, dir);
	return err;
}

static int make_directory(struct files *files, struct request *request, int dir)
{
	(void)files;
	return result(mkdirat(dir, request->name[0], request->body.mkdir.mode & CHANGE_MODE));
}

static int make_symlink(struct files *files, struct request *request, int dir)
{
	(void)files;
	return result(symlinkat(request->name[1], dir, request->name[0]));
}

static int make_link(struct files *files, struct request *request, int dir)
{
	struct entry *node = files_node(files, request->body.link.oldnodeid);
	int err;

	if (!node)
		return -ESTALE;
	err = result(linkat(*files->self, tree_name(node->fd).text, dir, request->name[0],
			    AT_SYMLINK_FOLLOW));
	files_put(files, node);
	return err;
}

static int unmake_file(struct files *files, struct request *request, int dir)
{
	(void)files;
	return result(unlinkat(dir, request->name[0], 0));
}

static int unmake_directory(struct files *files, struct request *request, int dir)
{
	(void)files;
	return result(unlinkat(dir, request->name[0], AT_REMOVEDIR));
}

int change_mkdir(struct files *files, struct request *request)
{
	return change_names(files, request, make_directory, true);
}

int change_symlink(struct files *files, struct request *request)
{
	return change_names(files, request, make_symlink, true);
}

int change_link(struct files *files, struct request *request)
{
	return change_names(files, request, make_link, true);
}

int change_unlink(struct files *files, struct request *request)
{
	return change_names(files, request, unmake_file, false);
}

int change_rmdir(struct files *files, struct request *request)
{
	return change_names(files, request, unmake_directory, false);
}

static int rename_name(struct files *files, struct request *request, uint64_t to_id, uint32_t flags)
{
	struct entry *from, *to;
	int err;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	err = files_directory(files, request->head.nodeid, &from);
	if (err)
		return err;
	err = files_directory(files, to_id, &to);
	if (!err) {
		err = result(syscall(SYS_renameat2, from->fd, request->name[0], to->fd,
				     request->name[1], flags));
		files_put(files, to);
	}
	files_put(files, from);
	return err;
}

int change_rename(struct files *files, struct request *request)
{
	return rename_name(files, request, request->body.rename.newdir, 0);
}

int change_rename2(struct files *files, struct request *request)
{
	return rename_name(files, request, request->body.rename2.newdir, request->body.rename2.flags);
}

/* New files */

static int open_existing(struct files *files, int dir, const char *name, uint32_t flags)
{
	int fd, found = tree_find(dir, name);

	if (found < 0)
		return found;
	fd = tree_open(*files->self, found, flags & (O_ACCMODE | O_TRUNC));
	close(found);
	return fd;
}

/* Opened is what was made, or was there and is a file; and that is told of, whoever has its name now. */
static int create_file(struct files *files, struct request *request, uint32_t flags, uint32_t mode,
		       struct fuse_entry_out *ret)
{
	struct entry *dir;
	int fd, path, err = files_directory(files, request->head.nodeid, &dir);

	if (err)
		return err;
	fd = tree_create(dir->fd, request->name[0], flags & O_ACCMODE, mode & CHANGE_MODE);
	if (fd == -EEXIST && !(flags & O_EXCL))
		fd = open_existing(files, dir->fd, request->name[0], flags);
	files_put(files, dir);
	if (fd < 0)
		return fd;
	path = tree_path(*files->self, fd);
	err = path < 0 ? path : files_tell(files, path, ret);
	if (!err)
		return fd;
	close(fd);
	return err;
}

int change_create(struct files *files, struct request *request)
{
	const struct fuse_create_in *in = &request->body.create;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	int err, fd;

	if (in->mode & CHANGE_OWNER_RIGHTS)
		return -EPERM;
	fd = create_file(files, request, in->flags, in->mode, &out.entry);
	if (fd < 0)
		return fd;
	err = table_open(&files->handles, fd, ENTRY_FILE, &out.open.fh);
	if (err)
		table_forget(&files->nodes, out.entry.nodeid, 1);
	else
		request_put(request, &out, sizeof(out));
	return err;
}

int change_mknod(struct files *files, struct request *request)
{
	const uint32_t mode = request->body.mknod.mode;
	struct fuse_entry_out out;
	int fd;

	if (!S_ISREG(mode) || mode & CHANGE_OWNER_RIGHTS)
		return -EPERM;
	fd = create_file(files, request, O_WRONLY | O_EXCL, mode, &out);
	if (fd < 0)
		return fd;
	close(fd);
	request_put(request, &out, sizeof(out));
	return 0;
}

/* Attributes. Each is 0 where there is nothing to do. */

static int set_mode(const struct files *files, const struct entry *node,
		    const struct fuse_setattr_in *in)
{
	struct stat st;

	if (!(in->valid & FATTR_MODE))
		return 0;
	if (fstat(node->fd, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode) && (!S_ISREG(st.st_mode) || in->mode & CHANGE_OWNER_RIGHTS))
		return -EPERM;
	return result(fchmodat(*files->self, tree_name(node->fd).text, in->mode & CHANGE_MODE, 0));
}

static int set_owner(const struct entry *node, const struct fuse_setattr_in *in)
{
	const uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	const gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;

	if (!(in->valid & (FATTR_UID | FATTR_GID)))
		return 0;
	return result(fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH));
}

static int set_size_by_handle(struct files *files, const struct fuse_setattr_in *in)
{
	struct entry *handle;
	int err = files_handle(files, in->fh, ENTRY_FILE, &handle);

	if (err)
		return err;
	err = result(ftruncate(handle->fd, in->size));
	table_put(&files->handles, handle);
	return err;
}

static int set_size(struct files *files, const struct entry *node, const struct fuse_setattr_in *in)
{
	int err, fd;

	if (!(in->valid & FATTR_SIZE))
		return 0;
	if (in->valid & FATTR_FH)
		return set_size_by_handle(files, in);
	fd = tree_open(*files->self, node->fd, O_WRONLY);
	if (fd < 0)
		return fd;
	err = result(ftruncate(fd, in->size));
	close(fd);
	return err;
}

static struct timespec time_of(bool set, bool now, uint64_t seconds, uint32_t ns)
{
	if (!set)
		return (struct timespec){ .tv_nsec = UTIME_OMIT };
	return now ? (struct timespec){ .tv_nsec = UTIME_NOW } :
		     (struct timespec){ .tv_sec = seconds, .tv_nsec = ns };
}

static int set_times(const struct entry *node, const struct fuse_setattr_in *in)
{
	const struct timespec times[2] = {
		time_of(in->valid & (FATTR_ATIME | FATTR_ATIME_NOW), in->valid & FATTR_ATIME_NOW,
			in->atime, in->atimensec),
		time_of(in->valid & (FATTR_MTIME | FATTR_MTIME_NOW), in->valid & FATTR_MTIME_NOW,
			in->mtime, in->mtimensec),
	};

	if (!(in->valid & (FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME | FATTR_MTIME_NOW)))
		return 0;
	return result(utimensat(node->fd, "", times, AT_EMPTY_PATH));
}

int change_setattr(struct files *files, struct request *request)
{
	const struct fuse_setattr_in *in = &request->body.setattr;
	struct entry *node;
	int err;

	if (in->valid & ~CHANGE_SETATTR)
		return -EINVAL;
	node = files_node(files, request->head.nodeid);
	if (!node)
		return -ESTALE;
	err = set_mode(files, node, in);
	if (!err)
		err = set_owner(node, in);
	if (!err)
		err = set_size(files, node, in);
	if (!err)
		err = set_times(node, in);
	if (!err)
		err = files_reply_attributes(request, node);
	files_put(files, node);
	return err;
}

/* What is in files */

int change_write(struct files *files, struct request *request)
{
	const struct fuse_write_in *in = &request->body.write;
	struct virtq_chain *chain = request->chain;
	struct fuse_write_out out = { 0 };
	struct entry *handle;
	ssize_t put;
	int err;

	if (iov_bytes(chain->readable, chain->readable_count) != in->size)
		return -EPROTO;
	err = files_handle(files, in->fh, ENTRY_FILE, &handle);
	if (err)
		return err;
	put = pwritev(handle->fd, chain->readable, chain->readable_count, in->offset);
	err = put < 0 ? -errno : 0;
	table_put(&files->handles, handle);
	if (err)
		return err;
	out.size = put;
	request_put(request, &out, sizeof(out));
	return 0;
}

int change_fallocate(struct files *files, struct request *request)
{
	const struct fuse_fallocate_in *in = &request->body.fallocate;
	struct entry *handle;
	int err;

	if (in->mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	err = files_handle(files, in->fh, ENTRY_FILE, &handle);
	if (err)
		return err;
	err = result(fallocate(handle->fd, in->mode, in->offset, in->length));
	table_put(&files->handles, handle);
	return err;
}

/* Here, and for what syncs: of a tree that is only read nothing is to be kept. */

/* Some file systems tell only when a descriptor is closed that they could not keep what was written. */
int change_flush(struct files *files, struct request *request)
{
	struct entry *handle;
	int copy, err;

	if (!files->writable)
		return 0;
	err = files_handle(files, request->body.flush.fh, ENTRY_FILE, &handle);
	if (err)
		return err;
	copy = fcntl(handle->fd, F_DUPFD_CLOEXEC, 0);
	err = result(copy < 0 || close(copy));
	table_put(&files->handles, handle);
	return err;
}

static int sync_handle(struct files *files, const struct fuse_fsync_in *in, enum entry_kind kind)
{
	struct entry *handle;
	int err;

	if (!files->writable)
		return 0;
	err = files_handle(files, in->fh, kind, &handle);
	if (err)
		return err;
	err = result(in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(handle->fd) :
							      fsync(handle->fd));
	table_put(&files->handles, handle);
	return err;
}

int change_fsync(struct files *files, struct request *request)
{
	return sync_handle(files, &request->body.fsync, ENTRY_FILE);
}

int change_fsyncdir(struct files *files, struct request *request)
{
	return sync_handle(files, &request->body.fsync, ENTRY_DIRECTORY);
}

/* The tree has one file system. */
int change_syncfs(struct files *files, struct request *request)
{
	int err, fd;

	(void)request;
	if (!files->writable)
		return 0;
	fd = tree_open_directory(files->root.fd);
	if (fd < 0)
		return fd;
	err = result(syncfs(fd));
	close(fd);
	return err;
}
