// SPDX-License-Identifier: MIT OR GPL-2.0
/* Requests that change nothing in the tree. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devmodel/fs/files.h"
#include "devmodel/fs/tree.h"

/* The protocol as Linux 6.1 has it; the first minor of it for virtio, since which nothing has changed. */
#define LOOK_MINOR		37
#define LOOK_MINOR_LEAST	31

/* What a guest may read or write at once, by as many pages. */
#define LOOK_PAGES		256
#define LOOK_PAGE		4096

#define LOOK_FLAGS	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | \
			 FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | \
			 FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | \
			 FUSE_CACHE_SYMLINKS)

/* Of a directory, at a time. */
#define LOOK_ENTRIES_SIZE	4096

static void forget_all(struct files *files)
{
	table_clear(&files->handles);
	table_clear(&files->nodes);
}

/* A guest that begins anew knows nothing of before. The struct has been longer since minor 36. */
int look_init(struct files *files, struct request *request)
{
	const struct fuse_init_in *in = &request->body.init;
	const uint64_t more = iov_bytes(request->chain->readable, request->chain->readable_count);
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION, .minor = LOOK_MINOR,
		.max_readahead = in->max_readahead, .flags = in->flags & LOOK_FLAGS,
		.max_write = LOOK_PAGES * LOOK_PAGE, .max_pages = LOOK_PAGES, .time_gran = 1,
	};

	if (more && more != sizeof(*in) - REQUEST_INIT_SIZE)
		return -EPROTO;
	if (in->major < FUSE_KERNEL_VERSION ||
	    (in->major == FUSE_KERNEL_VERSION && in->minor < LOOK_MINOR_LEAST))
		return -EPROTO;
	if (in->major == FUSE_KERNEL_VERSION && in->minor < LOOK_MINOR)
		out.minor = in->minor;
	forget_all(files);
	request_put(request, &out, sizeof(out));
	return 0;
}

int look_destroy(struct files *files, struct request *request)
{
	(void)request;
	forget_all(files);
	return 0;
}

/* Nothing takes long enough to be interrupted. */
int look_nothing(struct files *files, struct request *request)
{
	(void)files;
	(void)request;
	return 0;
}

int look_lookup(struct files *files, struct request *request)
{
	struct fuse_entry_out out;
	struct entry *dir;
	int err = files_directory(files, request->head.nodeid, &dir);

	if (err)
		return err;
	err = files_tell_name(files, dir->fd, request->name[0], &out);
	files_put(files, dir);
	if (!err)
		request_put(request, &out, sizeof(out));
	return err;
}

int look_forget(struct files *files, struct request *request)
{
	table_forget(&files->nodes, request->head.nodeid, request->body.forget.nlookup);
	return 0;
}

int look_batch_forget(struct files *files, struct request *request)
{
	struct virtq_chain *chain = request->chain;
	struct fuse_forget_one one;

	if (iov_bytes(chain->readable, chain->readable_count) !=
	    (uint64_t)request->body.batch_forget.count * sizeof(one))
		return -EPROTO;
	while (chain_read(chain, &one, sizeof(one)) == sizeof(one))
		table_forget(&files->nodes, one.nodeid, one.nlookup);
	return 0;
}

int look_getattr(struct files *files, struct request *request)
{
	struct entry *node = files_node(files, request->head.nodeid);
	int err = node ? files_reply_attributes(request, node) : -ESTALE;

	files_put(files, node);
	return err;
}

static int node_readlink(const struct entry *node, struct request *request)
{
	ssize_t len = readlinkat(node->fd, "", request->names, sizeof(request->names));

	if (len < 0)
		return errno == ENOENT ? -EINVAL : -errno;	/* which is no link */
	if ((uint64_t)len > request_room(request))
		return -ENAMETOOLONG;
	request_put(request, request->names, len);
	return 0;
}

int look_readlink(struct files *files, struct request *request)
{
	struct entry *node = files_node(files, request->head.nodeid);
	int err = node ? node_readlink(node, request) : -ESTALE;

	files_put(files, node);
	return err;
}

/* Programs are not run from here: so whether they can be is for the mode to tell. */
static int node_access(const struct entry *node, uint32_t mask)
{
	struct stat st;

	if (fstat(node->fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && mask & X_OK) {
		if (!(st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)))
			return -EACCES;
		mask &= ~X_OK;
	}
	return syscall(SYS_faccessat2, node->fd, "", mask, AT_EMPTY_PATH) ? -errno : 0;
}

int look_access(struct files *files, struct request *request)
{
	struct entry *node = files_node(files, request->head.nodeid);
	int err = node ? node_access(node, request->body.access.mask) : -ESTALE;

	files_put(files, node);
	return err;
}

static int node_statfs(const struct entry *node, struct request *request)
{
	struct fuse_statfs_out out;
	struct statfs st;

	if (fstatfs(node->fd, &st))
		return -errno;
	out.st = (struct fuse_kstatfs){
		.blocks = st.f_blocks, .bfree = st.f_bfree, .bavail = st.f_bavail,
		.files = st.f_files, .ffree = st.f_ffree, .bsize = st.f_bsize,
		.namelen = st.f_namelen, .frsize = st.f_frsize,
	};
	request_put(request, &out, sizeof(out));
	return 0;
}

int look_statfs(struct files *files, struct request *request)
{
	struct entry *node = files_node(files, request->head.nodeid);
	int err = node ? node_statfs(node, request) : -ESTALE;

	files_put(files, node);
	return err;
}

/* Files */

/* @fd: what is open now, or a negative errno. */
static int reply_open(struct files *files, struct request *request, int fd, enum entry_kind kind)
{
	struct fuse_open_out out = { 0 };
	int err = fd < 0 ? fd : table_open(&files->handles, fd, kind, &out.fh);

	if (!err)
		request_put(request, &out, sizeof(out));
	return err;
}

/* What else is in the flags is the guest's own affair: where to append, what to cache. */
int look_open(struct files *files, struct request *request)
{
	const uint32_t flags = request->body.open.flags & (O_ACCMODE | O_TRUNC);
	struct entry *node;
	int fd;

	if (flags != O_RDONLY && !files->writable)
		return -EROFS;
	node = files_node(files, request->head.nodeid);
	if (!node)
		return -ESTALE;
	fd = tree_open(*files->self, node->fd, flags);
	files_put(files, node);
	return reply_open(files, request, fd, ENTRY_FILE);
}

int look_release(struct files *files, struct request *request)
{
	table_forget(&files->handles, request->body.release.fh, 1);
	return 0;
}

/* The first @len bytes of some pieces: how many pieces that is, the last of which is cut. */
static unsigned int pieces_cut(struct iovec *iov, unsigned int count, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < count && len; i++) {
		if (iov[i].iov_len > len)
			iov[i].iov_len = len;
		len -= iov[i].iov_len;
	}
	return i;
}

int look_read(struct files *files, struct request *request)
{
	const struct fuse_read_in *in = &request->body.read;
	struct virtq_chain *chain = request->chain;
	unsigned int count = pieces_cut(chain->writable, chain->writable_count, in->size);
	struct entry *handle;
	ssize_t got;
	int err = files_handle(files, in->fh, ENTRY_FILE, &handle);

	if (err)
		return err;
	got = preadv(handle->fd, chain->writable, count, in->offset);
	err = got < 0 ? -errno : 0;
	table_put(&files->handles, handle);
	if (!err)
		request->replied = got;
	return err;
}

int look_lseek(struct files *files, struct request *request)
{
	const struct fuse_lseek_in *in = &request->body.lseek;
	struct fuse_lseek_out out;
	struct entry *handle;
	off_t at;
	int err;

	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	err = files_handle(files, in->fh, ENTRY_FILE, &handle);
	if (err)
		return err;
	at = lseek(handle->fd, in->offset, in->whence);
	err = at < 0 ? -errno : 0;
	table_put(&files->handles, handle);
	if (err)
		return err;
	out.offset = at;
	request_put(request, &out, sizeof(out));
	return 0;
}

/* Directories */

int look_opendir(struct files *files, struct request *request)
{
	struct entry *node;
	int fd, err = files_directory(files, request->head.nodeid, &node);

	if (err)
		return err;
	fd = tree_open_directory(node->fd);
	files_put(files, node);
	return reply_open(files, request, fd, ENTRY_DIRECTORY);
}

static bool name_is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/*
 * One name, and with READDIRPLUS what a lookup would tell; where it would fail, and for the two that are
 * never looked up, the node is 0, and the guest knows no more than the name. False: there is no room.
 */
static bool put_name(struct files *files, struct request *request, int dir,
		     const struct dirent64 *name)
{
	static const char padding[sizeof(uint64_t)];
	const bool plus = request->head.opcode == FUSE_READDIRPLUS;
	const uint32_t len = strlen(name->d_name);
	const struct fuse_dirent out = {
		.ino = name->d_ino, .off = name->d_off, .namelen = len, .type = name->d_type,
	};
	const uint64_t size = (plus ? sizeof(struct fuse_entry_out) : 0) + FUSE_DIRENT_SIZE(&out);
	struct fuse_entry_out entry = { 0 };

	if (size > request_room(request) || request->replied + size > request->body.read.size)
		return false;
	if (plus) {
		if (!name_is_dots(name->d_name) && files_tell_name(files, dir, name->d_name, &entry))
			entry = (struct fuse_entry_out){ 0 };
		request_put(request, &entry, sizeof(entry));
	}
	request_put(request, &out, FUSE_NAME_OFFSET);
	request_put(request, name->d_name, len);
	request_put(request, padding, FUSE_DIRENT_SIZE(&out) - FUSE_NAME_OFFSET - len);
	return true;
}

/* 1: there was room for all of them; 0: for some. */
static int put_names(struct files *files, struct request *request, int dir, const char *names,
		     size_t size)
{
	for (size_t at = 0; at < size;) {
		const struct dirent64 *name = (const struct dirent64 *)(names + at);

		if (!put_name(files, request, dir, name))
			return request->replied ? 0 : -EINVAL;
		at += name->d_reclen;
	}
	return 1;
}

/*
 * Threads that read by one handle at once would take each other's place. Drivers have one after the
 * other do so; what else comes of it is only wrong.
 */
static int put_directory(struct files *files, struct request *request, int dir)
{
	_Alignas(struct dirent64) char names[LOOK_ENTRIES_SIZE];
	ssize_t size;
	int more;

	if (lseek(dir, request->body.read.offset, SEEK_SET) < 0)
		return -errno;
	do {
		size = getdents64(dir, names, sizeof(names));
		if (size <= 0)
			return size && !request->replied ? -errno : 0;
		more = put_names(files, request, dir, names, size);
	} while (more > 0);
	return more;
}

int look_readdir(struct files *files, struct request *request)
{
	struct entry *handle;
	int err = files_handle(files, request->body.read.fh, ENTRY_DIRECTORY, &handle);

	if (err)
		return err;
	err = tree_within(handle->fd);
	err = err ? (err == -ENOENT ? -ESTALE : err) : put_directory(files, request, handle->fd);
	table_put(&files->handles, handle);
	return err;
}
