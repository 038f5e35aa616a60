// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The file system's requests, as a guest makes them and as none should, in a tree of this test's. Each
 * message lies in memory of exactly its length, in pieces, so that the address sanitizer sees a byte too far.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "devmodel/device.h"
#include "devmodel/fs/files.h"
#include "devmodel/fs/fs.h"
#include "devmodel/fs/tree.h"
#include "selftests/unit/fs_client.h"
#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"

#define NODES		32
#define HANDLES		4
#define SETUID_PROGRAM	04755

static char folder[] = "/tmp/moat-fs.XXXXXX";
static char tree[64];
static int self;
static struct files files;

/* The message in pieces of so many bytes; 0: in one. */
static uint32_t piece_size;

static unsigned int cut(struct iovec *iov, void *bytes, uint32_t len)
{
	unsigned int count = 0;
	uint32_t size = piece_size ? piece_size : len;

	for (uint32_t at = 0; at < len; at += size)
		iov[count++] = (struct iovec){ (char *)bytes + at, at + size < len ? size : len - at };
	return count;
}

static uint32_t client_exchange(const void *message, uint32_t len, void *reply, uint32_t room)
{
	struct virtq_chain *chain = calloc(1, sizeof(*chain));
	struct request *request = malloc(sizeof(*request));
	void *in = malloc(len), *out = malloc(room);
	uint32_t got;

	memcpy(in, message, len);
	chain->readable = chain->iov;
	chain->readable_count = cut(chain->readable, in, len);
	chain->writable = chain->iov + chain->readable_count;
	chain->writable_count = cut(chain->writable, out, room);
	chain->bytes = (uint64_t)len + room;
	got = files_serve(&files, request, chain);
	EXPECT(got <= room);
	memcpy(reply, out, room);
	free(in);
	free(out);
	free(request);
	free(chain);
	return got;
}

/* The tree */

static const char *in_tree(const char *name)
{
	static char path[2][PATH_MAX];
	static unsigned int next;
	char *to = path[next++ % 2];

	snprintf(to, PATH_MAX, "%s/%s", tree, name);
	return to;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static bool file_is(const char *path, const char *text)
{
	char have[64] = "";
	int fd = open(path, O_RDONLY | O_NOFOLLOW);
	ssize_t len = fd < 0 ? -1 : read(fd, have, sizeof(have));

	close(fd);
	return len == (ssize_t)strlen(text) && !memcmp(have, text, len);
}

static void make_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	EXPECT(!bind(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);
}

static bool begin(bool writable)
{
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	piece_size = 0;
	client_room = CLIENT_ROOM;
	EXPECT(!mkdir(tree, 0755) && !mkdir(in_tree("dir"), 0755));
	write_file(in_tree("file"), "hello");
	write_file(in_tree("dir/below"), "below");
	files = (struct files){ .self = &self, .writable = writable, .root = { .id = FUSE_ROOT_ID, .count = 1 } };
	files.root.fd = tree_root(tree);
	return EXPECT(files.root.fd >= 0 && !table_init(&files.nodes, NODES) &&
		      !table_init(&files.handles, HANDLES));
}

static void end(void)
{
	char command[128];

	table_finish(&files.handles);
	table_finish(&files.nodes);
	close(files.root.fd);
	snprintf(command, sizeof(command), "rm -rf %s/*", folder);
	EXPECT(!system(command));
}

static uint64_t node_of(const char *name)
{
	uint64_t node = 0;

	EXPECT(!client_lookup(FUSE_ROOT_ID, name, &node));
	return node;
}

/* Rules kept */

static void test_init(void)
{
	const struct fuse_init_out *out = (const void *)client_reply;

	begin(false);
	EXPECT(!client_init(7, 38) && client_got == sizeof(*out) && out->major == 7 && out->minor == 37);
	EXPECT(!(out->flags & (FUSE_POSIX_LOCKS | FUSE_EXPORT_SUPPORT | FUSE_WRITEBACK_CACHE |
			       FUSE_POSIX_ACL | FUSE_MAP_ALIGNMENT | FUSE_SUBMOUNTS | FUSE_INIT_EXT)));
	EXPECT(out->flags & FUSE_MAX_PAGES && out->max_write == out->max_pages * 4096U);
	EXPECT(!client_init(7, 31) && out->minor == 31);
	EXPECT(!client_init(8, 0) && out->major == 7);
	EXPECT(client_init(7, 30) == -EPROTO && client_init(6, 99) == -EPROTO);
	/* As long as before minor 36, as since then, and neither. */
	for (uint32_t len = 0; len <= sizeof(struct fuse_init_in) + 8; len += 8) {
		const struct fuse_init_in in[2] = { { .major = 7, .minor = 31 } };
		bool right = len == 16 || len == sizeof(struct fuse_init_in);

		EXPECT(client_call(FUSE_INIT, 0, in, len, NULL) == (right ? 0 : -EPROTO));
	}
	end();
}

static void test_lookup(void)
{
	uint64_t node, again, dir;
	struct stat st;

	begin(false);
	node = node_of("file");
	stat(in_tree("file"), &st);
	EXPECT(client_got == sizeof(struct fuse_entry_out) && client_entry()->attr.size == 5);
	EXPECT(client_entry()->attr.ino == st.st_ino && client_entry()->attr.mode == st.st_mode);
	EXPECT(client_entry()->attr.uid == st.st_uid && client_entry()->attr.mtime == (uint64_t)st.st_mtime);
	EXPECT(client_entry()->entry_valid == 1 && client_entry()->attr_valid == 1);
	EXPECT(!client_lookup(FUSE_ROOT_ID, "file", &again) && again == node);
	/* The same by another name. */
	EXPECT(!link(in_tree("file"), in_tree("dir/other")));
	dir = node_of("dir");
	EXPECT(dir != node && !client_lookup(dir, "other", &again) && again == node);
	EXPECT(client_lookup(FUSE_ROOT_ID, "none", &again) == -ENOENT);
	EXPECT(client_lookup(node, "below", &again) == -ENOTDIR);
	EXPECT(!client_getattr(node) && client_got == sizeof(struct fuse_attr_out));
	end();
}

/* Told three times, forgotten as often; more is not held against anyone. */
static void test_forget(void)
{
	struct {
		struct fuse_batch_forget_in in;
		struct fuse_forget_one one[2];
	} batch = { .in.count = 2 };
	uint64_t node, dir, again;

	begin(false);
	node = node_of("file");
	dir = node_of("dir");
	EXPECT(node_of("file") == node && node_of("file") == node);
	EXPECT(client_forget(node, 2) == 1 && !client_getattr(node));
	EXPECT(client_forget(node, 1) == 1 && client_getattr(node) == -ESTALE);
	EXPECT(client_forget(node, 1) == 1 && client_forget(dir, ~0ULL) == 1);
	EXPECT(client_getattr(dir) == -ESTALE && client_lookup(dir, "below", &again) == -ESTALE);
	/* The same place, another number. */
	again = node_of("file");
	EXPECT(again != node && client_getattr(node) == -ESTALE && !client_getattr(again));
	EXPECT(client_forget(FUSE_ROOT_ID, ~0ULL) == 1 && !client_getattr(FUSE_ROOT_ID));
	batch.one[0] = (struct fuse_forget_one){ node_of("dir"), 1 };
	batch.one[1] = (struct fuse_forget_one){ again, 1 };
	batch.in.count = 3;
	EXPECT(client_call(FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL) == 1);
	EXPECT(!client_getattr(again));
	batch.in.count = 2;
	EXPECT(client_call(FUSE_BATCH_FORGET, 0, &batch, sizeof(batch), NULL) == 1);
	EXPECT(client_getattr(again) == -ESTALE && client_getattr(batch.one[0].nodeid) == -ESTALE);
	end();
}

static void test_read(void)
{
	uint64_t node, handle;

	begin(false);
	node = node_of("file");
	EXPECT(!client_open(FUSE_OPEN, node, O_RDONLY | O_NONBLOCK | O_APPEND, &handle));
	EXPECT(!client_read(FUSE_READ, node, handle, 0, 100) && client_got == 5);
	EXPECT(!memcmp(client_reply, "hello", 5));
	EXPECT(!client_read(FUSE_READ, node, handle, 1, 3) && client_got == 3);
	EXPECT(!memcmp(client_reply, "ell", 3));
	EXPECT(!client_read(FUSE_READ, node, handle, 5, 3) && !client_got);
	EXPECT(!client_read(FUSE_READ, node, handle, 0, 0) && !client_got);
	EXPECT(client_read(FUSE_READ, node, handle, ~0ULL, 3) == -EINVAL);
	/* No more than there is room for. */
	client_read(FUSE_READ, node, handle, 0, ~0U);
	EXPECT(!client_send(2) && client_got == 2 && !memcmp(client_reply, "he", 2));
	EXPECT(!client_send(0) && !client_got);
	EXPECT(client_call(FUSE_RELEASE, node, &(struct fuse_release_in){ .fh = handle },
			   sizeof(struct fuse_release_in), NULL) == 0);
	EXPECT(client_read(FUSE_READ, node, handle, 0, 3) == -ESTALE);
	end();
}

/* However a message is cut, it says the same. */
static void test_pieces(void)
{
	uint64_t node, handle;

	begin(true);
	client_room = 200;
	for (piece_size = 1; piece_size < 60; piece_size++) {
		node = node_of("file");
		EXPECT(client_entry()->attr.size == 5);
		EXPECT(!client_open(FUSE_OPEN, node, O_RDWR, &handle));
		EXPECT(!client_read(FUSE_READ, node, handle, 0, 5));
		EXPECT(client_got == 5 && !memcmp(client_reply, "hello", 5));
		EXPECT(!client_write(node, handle, 0, "hello"));
		EXPECT(client_got == sizeof(struct fuse_write_out));
		table_clear(&files.handles);
	}
	EXPECT(file_is(in_tree("file"), "hello"));
	end();
}

static void test_directory(void)
{
	const struct fuse_dirent *entry;
	uint64_t handle, node;
	unsigned int names = 0;

	begin(false);
	EXPECT(!client_open(FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY, &handle));
	EXPECT(!client_read(FUSE_READDIR, FUSE_ROOT_ID, handle, 0, 4096));
	EXPECT(client_find(".", false) && client_find("..", false) && client_find("file", false));
	entry = client_find("dir", false);
	EXPECT(entry && entry->type == S_IFDIR >> 12);
	EXPECT(!client_read(FUSE_READDIRPLUS, FUSE_ROOT_ID, handle, 0, 4096));
	entry = client_find("file", true);
	node = ((const struct fuse_entry_out *)entry - 1)->nodeid;
	EXPECT(((const struct fuse_entry_out *)client_find("..", true) - 1)->nodeid == 0);
	EXPECT(!client_getattr(node) && node_of("file") == node);
	/* One after the other. */
	for (uint64_t at = 0;; names++) {
		EXPECT(!client_read(FUSE_READDIR, FUSE_ROOT_ID, handle, at, 39));
		if (!client_got)
			break;
		at = ((const struct fuse_dirent *)client_reply)->off;
	}
	EXPECT(names == 4);
	EXPECT(client_read(FUSE_READDIR, FUSE_ROOT_ID, handle, 0, 24) == -EINVAL);
	EXPECT(client_open(FUSE_OPENDIR, node_of("file"), O_RDONLY, &handle) == -ENOTDIR);
	end();
}

static void test_small(void)
{
	const struct fuse_statfs_out *statfs = (const void *)client_reply;
	struct fuse_access_in access = { .mask = R_OK };
	struct fuse_lseek_in seek = { .whence = SEEK_HOLE };
	uint64_t node, handle;

	begin(false);
	node = node_of("file");
	EXPECT(!client_call(FUSE_STATFS, node, NULL, 0, NULL) && client_got == sizeof(*statfs));
	EXPECT(statfs->st.bsize && statfs->st.namelen == NAME_MAX);
	EXPECT(!client_call(FUSE_ACCESS, node, &access, sizeof(access), NULL));
	access.mask = X_OK;
	EXPECT(client_call(FUSE_ACCESS, node, &access, sizeof(access), NULL) == -EACCES);
	EXPECT(!client_open(FUSE_OPEN, node, O_RDONLY, &handle));
	seek.fh = handle;
	EXPECT(!client_call(FUSE_LSEEK, node, &seek, sizeof(seek), NULL));
	EXPECT(((const struct fuse_lseek_out *)client_reply)->offset == 5);
	seek.whence = SEEK_SET;
	EXPECT(client_call(FUSE_LSEEK, node, &seek, sizeof(seek), NULL) == -EINVAL);
	EXPECT(client_call(FUSE_GETXATTR, node, NULL, 0, NULL) == -ENOSYS);
	EXPECT(client_call(FUSE_IOCTL, node, NULL, 0, NULL) == -ENOSYS);
	EXPECT(client_call(1000000, node, NULL, 0, NULL) == -ENOSYS);
	EXPECT(client_call(FUSE_INTERRUPT, 0, &(struct fuse_interrupt_in){ 1 }, 8, NULL) == 1);
	/* A guest that goes, or comes, knows nothing any more. */
	EXPECT(!client_call(FUSE_DESTROY, 0, NULL, 0, NULL) && client_getattr(node) == -ESTALE);
	node = node_of("file");
	EXPECT(!client_init(7, 37) && client_getattr(node) == -ESTALE);
	end();
}

/* Rules broken */

static void test_names(void)
{
	static const char *const bad[] = { "", ".", "..", "/", "a/b", "/etc", "dir/below", "../x", "dir/.." };
	char name[NAME_MAX + 2];
	uint64_t node;

	begin(true);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT(client_lookup(FUSE_ROOT_ID, bad[i], &node) == -EINVAL);
		EXPECT(client_mkdir(FUSE_ROOT_ID, bad[i], 0755) == -EINVAL);
		EXPECT(client_rename(FUSE_ROOT_ID, "file", FUSE_ROOT_ID, bad[i], 0) == -EINVAL);
		EXPECT(client_rename(FUSE_ROOT_ID, bad[i], FUSE_ROOT_ID, "x", 0) == -EINVAL);
		EXPECT(client_symlink(FUSE_ROOT_ID, bad[i], "x") == -EINVAL);
		EXPECT(client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, bad[i]) == -EINVAL);
		EXPECT(client_call(FUSE_RMDIR, FUSE_ROOT_ID, NULL, 0, bad[i]) == -EINVAL);
	}
	memset(name, 'x', sizeof(name));
	name[NAME_MAX + 1] = 0;
	EXPECT(client_lookup(FUSE_ROOT_ID, name, &node) == -ENAMETOOLONG);
	name[NAME_MAX] = 0;
	EXPECT(client_lookup(FUSE_ROOT_ID, name, &node) == -ENOENT);
	/* Longer than what any request has. */
	client_begin(FUSE_LOOKUP, FUSE_ROOT_ID);
	for (unsigned int i = 0; i < 20; i++)
		client_add(name, NAME_MAX);
	EXPECT(client_send(200) == -ENAMETOOLONG);
	end();
}

/* A NUL that is missing, in the middle, or one too many. */
static void test_name_ends(void)
{
	static const struct {
		uint32_t opcode, body, len;
		const char *tail;
		int err;
	} cases[] = {
		{ FUSE_LOOKUP, 0, 5, "file", 0 },
		{ FUSE_LOOKUP, 0, 4, "file", -EPROTO },
		{ FUSE_LOOKUP, 0, 6, "file\0", -EPROTO },
		{ FUSE_LOOKUP, 0, 9, "file\0x\0y", -EPROTO },
		{ FUSE_LOOKUP, 0, 0, "", -EPROTO },
		{ FUSE_SYMLINK, 0, 3, "a\0b", -EPROTO },
		{ FUSE_SYMLINK, 0, 2, "a", -EPROTO },
		{ FUSE_SYMLINK, 0, 5, "a\0b\0", -EPROTO },
		{ FUSE_RENAME, 8, 2, "a", -EPROTO },
		{ FUSE_RENAME, 8, 4, "a\0b", -ESTALE },
		{ FUSE_RENAME, 8, 6, "a\0b\0c", -EPROTO },
	};

	begin(true);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		static const uint8_t body[8];

		client_begin(cases[i].opcode, FUSE_ROOT_ID);
		client_add(body, cases[i].body);
		client_add(cases[i].tail, cases[i].len);
		EXPECT(client_send(200) == cases[i].err);
	}
	end();
}

/*
 * Each request of all lengths: of those without a name only the one length is right. And with a header
 * that says another.
 */
static void test_lengths(void)
{
	static const uint8_t length[] = {
		[FUSE_GETATTR] = 16, [FUSE_SETATTR] = 88, [FUSE_OPEN] = 8, [FUSE_READ] = 40,
		[FUSE_RELEASE] = 24, [FUSE_FSYNC] = 16, [FUSE_FLUSH] = 24, [FUSE_OPENDIR] = 8,
		[FUSE_READDIR] = 40, [FUSE_RELEASEDIR] = 24, [FUSE_FSYNCDIR] = 16, [FUSE_ACCESS] = 8,
		[FUSE_FALLOCATE] = 32, [FUSE_READDIRPLUS] = 40, [FUSE_LSEEK] = 24, [FUSE_SYNCFS] = 8,
	};
	static const uint8_t zeroes[256];

	begin(true);
	for (uint32_t opcode = 0; opcode < 60; opcode++)
		for (uint32_t len = 0; len < 160; len++) {
			client_begin(opcode, 12345);
			client_add(zeroes, len);
			if (opcode < ARRAY_SIZE(length) && length[opcode])
				EXPECT((client_send(200) == -EPROTO) == (len != length[opcode]));
			else
				client_send(200);
			((struct fuse_in_header *)client_message)->len++;
			EXPECT(client_send(200) == -EPROTO);
			((struct fuse_in_header *)client_message)->len -= 2;
			EXPECT(client_send(200) == -EPROTO);
		}
	for (uint32_t len = 0; len < sizeof(struct fuse_in_header); len++) {
		uint8_t reply[200] = { 0 };

		EXPECT(client_exchange(client_message, len, reply, sizeof(reply)) == 16);
		EXPECT(((struct fuse_out_header *)reply)->error == -EPROTO);
	}
	end();
}

/* Without room for what it tells, nothing is done. */
static void test_room(void)
{
	uint8_t reply[16];
	uint64_t handle;

	begin(true);
	client_begin(FUSE_LOOKUP, FUSE_ROOT_ID);
	client_add("file", 5);
	for (uint32_t room = 0; room < sizeof(struct fuse_entry_out); room++)
		EXPECT(client_send(room) == -EPROTO);
	for (uint32_t room = 0; room < sizeof(struct fuse_out_header); room++)
		EXPECT(client_exchange(client_message, client_len, reply, room) == 0);
	client_begin(FUSE_MKDIR, FUSE_ROOT_ID);
	client_add(&(struct fuse_mkdir_in){ .mode = 0755 }, sizeof(struct fuse_mkdir_in));
	client_add("new", 4);
	EXPECT(client_send(sizeof(struct fuse_entry_out) - 1) == -EPROTO && access(in_tree("new"), F_OK));
	EXPECT(!client_send(sizeof(struct fuse_entry_out)) && !access(in_tree("new"), F_OK));
	EXPECT(!client_open(FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY, &handle));
	client_read(FUSE_READDIR, FUSE_ROOT_ID, handle, 0, 4096);
	EXPECT(client_send(8) == -EINVAL);
	EXPECT(!symlink("nowhere", in_tree("link")));
	client_call(FUSE_READLINK, node_of("link"), NULL, 0, NULL);
	EXPECT(client_send(6) == -ENAMETOOLONG && !client_send(7) && client_got == 7);
	end();
}

static void test_kinds(void)
{
	struct fuse_fsync_in fsync = { 0 };
	uint64_t file, dir, of_file, of_dir, none;

	begin(true);
	file = node_of("file");
	dir = node_of("dir");
	EXPECT(!client_open(FUSE_OPEN, file, O_RDONLY, &of_file));
	EXPECT(!client_open(FUSE_OPENDIR, dir, O_RDONLY, &of_dir));
	EXPECT(client_open(FUSE_OPEN, dir, O_RDONLY, &none) == -EISDIR);
	EXPECT(client_read(FUSE_READ, file, of_dir, 0, 10) == -EBADF);
	EXPECT(client_read(FUSE_READDIR, dir, of_file, 0, 100) == -EBADF);
	EXPECT(client_read(FUSE_READDIRPLUS, dir, of_file, 0, 100) == -EBADF);
	EXPECT(client_write(file, of_dir, 0, "x") == -EBADF);
	EXPECT(client_write(file, of_file, 0, "x") == -EBADF);	/* open to be read */
	fsync.fh = of_file;
	EXPECT(client_call(FUSE_FSYNCDIR, dir, &fsync, sizeof(fsync), NULL) == -EBADF);
	EXPECT(!client_call(FUSE_FSYNC, dir, &fsync, sizeof(fsync), NULL));
	/* Numbers of nodes are none of handles, and the other way round; nor are slots. */
	EXPECT(client_read(FUSE_READ, file, file, 0, 10) == -ESTALE);
	EXPECT(client_getattr(of_file) == -ESTALE);
	for (uint64_t i = 0; i < 2 * NODES; i++)
		EXPECT(i == FUSE_ROOT_ID || client_getattr(i) == -ESTALE);
	end();
}

/* What a process before this one has told of. */
static void test_stale(void)
{
	uint64_t node, handle, again;

	begin(true);
	node = node_of("file");
	EXPECT(!client_open(FUSE_OPEN, node, O_RDWR, &handle));
	table_finish(&files.nodes);
	table_finish(&files.handles);
	EXPECT(!table_init(&files.nodes, NODES) && !table_init(&files.handles, HANDLES));
	again = node_of("file");
	EXPECT(again != node && client_getattr(node) == -ESTALE);
	EXPECT(client_read(FUSE_READ, node, handle, 0, 5) == -ESTALE);
	EXPECT(client_write(node, handle, 0, "x") == -ESTALE);
	EXPECT(client_open(FUSE_OPEN, node, O_RDWR, &handle) == -ESTALE);
	EXPECT(client_link(node, FUSE_ROOT_ID, "link") == -ESTALE);
	EXPECT(client_rename(FUSE_ROOT_ID, "file", node, "x", 0) == -ESTALE);
	EXPECT(file_is(in_tree("file"), "hello"));
	end();
}

static void test_limits(void)
{
	uint64_t node, handle, last = 0;
	const struct fuse_dirent *entry;
	unsigned int told = 0;
	char name[16];

	begin(false);
	for (unsigned int i = 0; i < NODES + 3; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		write_file(in_tree(name), name);
		if (!client_lookup(FUSE_ROOT_ID, name, &node)) {
			last = node;
			told++;
		}
	}
	EXPECT(told == NODES && client_lookup(FUSE_ROOT_ID, name, &node) == -ENFILE);
	/* Names are still there to see. */
	EXPECT(!client_open(FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY, &handle));
	EXPECT(!client_read(FUSE_READDIRPLUS, FUSE_ROOT_ID, handle, 0, 8192));
	entry = client_find(name, true);
	EXPECT(entry && ((const struct fuse_entry_out *)entry - 1)->nodeid == 0);
	for (unsigned int i = 1; i < HANDLES; i++)
		EXPECT(!client_open(FUSE_OPEN, last, O_RDONLY, &handle));
	EXPECT(client_open(FUSE_OPEN, last, O_RDONLY, &handle) == -ENFILE);
	/* And as many again, where some have gone. */
	EXPECT(client_forget(last, ~0ULL) == 1 && !client_lookup(FUSE_ROOT_ID, name, &node));
	end();
}

/* Ways out */

static void test_links(void)
{
	uint64_t node, below;

	begin(true);
	write_file(in_tree("../outside"), "secret");
	EXPECT(!symlink("../outside", in_tree("up")) && !symlink("/etc", in_tree("etc")));
	EXPECT(!symlink("dir", in_tree("inside")));
	node = node_of("etc");
	EXPECT(S_ISLNK(client_entry()->attr.mode));
	EXPECT(!client_call(FUSE_READLINK, node, NULL, 0, NULL));
	EXPECT(client_got == 4 && !memcmp(client_reply, "/etc", 4));
	EXPECT(client_lookup(node, "passwd", &below) == -ENOTDIR);
	EXPECT(client_open(FUSE_OPENDIR, node, O_RDONLY, &below) == -ENOTDIR);
	EXPECT(client_lookup(node_of("inside"), "below", &below) == -ENOTDIR);
	EXPECT(client_open(FUSE_OPEN, node_of("up"), O_RDONLY, &below) == -ELOOP);
	EXPECT(client_create(FUSE_ROOT_ID, "up", O_RDWR | O_TRUNC, 0644, &node, &below) == -ELOOP);
	EXPECT(client_setattr(node_of("up"), &(struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -ELOOP);
	EXPECT(client_setattr(node_of("up"), &(struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 }) ==
	       -EPERM);
	/* What is renamed, linked and removed is the link. */
	EXPECT(!client_link(node_of("up"), FUSE_ROOT_ID, "up2") && S_ISLNK(client_entry()->attr.mode));
	EXPECT(!client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "up"));
	EXPECT(client_call(FUSE_READLINK, node_of("file"), NULL, 0, NULL) == -EINVAL);
	EXPECT(file_is(in_tree("../outside"), "secret"));
	end();
}

/* A link of a directory's in its place, between a look-up and the next. */
static void test_exchanged(void)
{
	uint64_t dir, node;

	begin(false);
	dir = node_of("dir");
	EXPECT(!rename(in_tree("dir"), in_tree("moved")) && !symlink("/etc", in_tree("dir")));
	EXPECT(!client_lookup(dir, "below", &node) && client_lookup(dir, "passwd", &node) == -ENOENT);
	EXPECT(client_lookup(node_of("dir"), "passwd", &node) == -ENOTDIR);
	end();
}

static void test_special(void)
{
	uint64_t node, handle;
	struct stat st;

	begin(true);
	EXPECT(!mkfifo(in_tree("fifo"), 0666));
	make_socket(in_tree("socket"));
	node = node_of("fifo");
	EXPECT(S_ISFIFO(client_entry()->attr.mode));
	/* None of this waits for the other end. */
	EXPECT(client_open(FUSE_OPEN, node, O_RDONLY, &handle) == -ENXIO);
	EXPECT(client_open(FUSE_OPEN, node, O_WRONLY, &handle) == -ENXIO);
	EXPECT(client_create(FUSE_ROOT_ID, "fifo", O_RDWR, 0644, &node, &handle) == -ENXIO);
	EXPECT(client_setattr(node_of("fifo"), &(struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -ENXIO);
	EXPECT(client_open(FUSE_OPEN, node_of("socket"), O_RDWR, &handle) == -ENXIO);
	if (!mknod(in_tree("null"), S_IFCHR | 0666, 0x103)) {
		node = node_of("null");
		EXPECT(S_ISCHR(client_entry()->attr.mode) && client_entry()->attr.rdev == 0x103);
		EXPECT(client_open(FUSE_OPEN, node, O_RDONLY, &handle) == -ENXIO);
		EXPECT(client_open(FUSE_OPENDIR, node, O_RDONLY, &handle) == -ENOTDIR);
	}
	/* And none of it is made. */
	EXPECT(client_mknod(FUSE_ROOT_ID, "new", S_IFCHR | 0666) == -EPERM);
	EXPECT(client_mknod(FUSE_ROOT_ID, "new", S_IFIFO | 0666) == -EPERM);
	EXPECT(client_mknod(FUSE_ROOT_ID, "new", S_IFSOCK | 0666) == -EPERM);
	EXPECT(client_mknod(FUSE_ROOT_ID, "new", S_IFREG | SETUID_PROGRAM) == -EPERM);
	EXPECT(client_create(FUSE_ROOT_ID, "new", O_RDWR, SETUID_PROGRAM, &node, &handle) == -EPERM);
	EXPECT(stat(in_tree("new"), &st) && errno == ENOENT);
	EXPECT(client_setattr(node_of("file"),
			      &(struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = SETUID_PROGRAM }) == -EPERM);
	end();
}

/* What changes a tree, each of which a read-only one refuses before anything else. */
static void test_read_only(void)
{
	const struct fuse_setattr_in mode = { .valid = FATTR_MODE, .mode = 0777 };
	const struct fuse_fallocate_in room = { .length = 100 };
	uint64_t node, handle;

	begin(false);
	node = node_of("file");
	EXPECT(client_open(FUSE_OPEN, node, O_WRONLY, &handle) == -EROFS);
	EXPECT(client_open(FUSE_OPEN, node, O_RDWR, &handle) == -EROFS);
	EXPECT(client_open(FUSE_OPEN, node, O_RDONLY | O_TRUNC, &handle) == -EROFS);
	EXPECT(!client_open(FUSE_OPEN, node, O_RDONLY, &handle));
	EXPECT(client_write(node, handle, 0, "x") == -EROFS);
	EXPECT(client_create(FUSE_ROOT_ID, "new", O_RDONLY, 0644, &node, &handle) == -EROFS);
	EXPECT(client_mknod(FUSE_ROOT_ID, "new", S_IFREG | 0644) == -EROFS);
	EXPECT(client_mkdir(FUSE_ROOT_ID, "new", 0755) == -EROFS);
	EXPECT(client_symlink(FUSE_ROOT_ID, "new", "file") == -EROFS);
	EXPECT(client_link(node, FUSE_ROOT_ID, "new") == -EROFS);
	EXPECT(client_rename(FUSE_ROOT_ID, "file", FUSE_ROOT_ID, "new", 0) == -EROFS);
	EXPECT(client_rename(FUSE_ROOT_ID, "file", FUSE_ROOT_ID, "new", 1) == -EROFS);
	EXPECT(client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "file") == -EROFS);
	EXPECT(client_call(FUSE_RMDIR, FUSE_ROOT_ID, NULL, 0, "dir") == -EROFS);
	EXPECT(client_setattr(node, &mode) == -EROFS);
	EXPECT(client_call(FUSE_FALLOCATE, node, &room, sizeof(room), NULL) == -EROFS);
	EXPECT(file_is(in_tree("file"), "hello"));
	end();
}

/* Changes */

static void test_create(void)
{
	uint64_t node, handle, again;
	struct stat st;

	begin(true);
	EXPECT(!client_create(FUSE_ROOT_ID, "new", O_RDWR, 0604, &node, &handle));
	EXPECT(client_got == sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out));
	EXPECT(!stat(in_tree("new"), &st) && (st.st_mode & 07777) == 0604);
	EXPECT(!client_write(node, handle, 0, "first") && client_got == sizeof(struct fuse_write_out));
	EXPECT(((const struct fuse_write_out *)client_reply)->size == 5);
	EXPECT(!client_write(node, handle, 3, "more") && file_is(in_tree("new"), "firmore"));
	EXPECT(!client_read(FUSE_READ, node, handle, 2, 10) && client_got == 5);
	EXPECT(node_of("new") == node && client_entry()->attr.size == 7);
	/* What is there already is opened, unless the guest wants its own. */
	EXPECT(client_create(FUSE_ROOT_ID, "new", O_RDWR | O_EXCL, 0600, &again, &handle) == -EEXIST);
	EXPECT(!client_create(FUSE_ROOT_ID, "new", O_RDWR, 0600, &again, &handle) && again == node);
	EXPECT(file_is(in_tree("new"), "firmore"));
	EXPECT(!client_create(FUSE_ROOT_ID, "new", O_WRONLY | O_TRUNC, 0600, &again, &handle));
	EXPECT(file_is(in_tree("new"), ""));
	EXPECT(client_create(FUSE_ROOT_ID, "dir", O_WRONLY, 0600, &again, &handle) == -EISDIR);
	EXPECT(!client_mknod(FUSE_ROOT_ID, "other", S_IFREG | 0600) && file_is(in_tree("other"), ""));
	/* A size that lies. */
	client_write(node, handle, 0, "hello");
	client_message[sizeof(struct fuse_in_header) + offsetof(struct fuse_write_in, size)] = 4;
	EXPECT(client_send(100) == -EPROTO);
	client_message[sizeof(struct fuse_in_header) + offsetof(struct fuse_write_in, size)] = 6;
	EXPECT(client_send(100) == -EPROTO);
	/* The last handle; and then none, which leaves no node behind that nobody knows of. */
	EXPECT(!client_create(FUSE_ROOT_ID, "a", O_RDWR, 0600, &node, &handle));
	EXPECT(client_create(FUSE_ROOT_ID, "b", O_RDWR, 0600, &again, &handle) == -ENFILE);
	end();
}

static void test_change_names(void)
{
	uint64_t dir, node, other;

	begin(true);
	node = node_of("file");
	EXPECT(!client_mkdir(FUSE_ROOT_ID, "new", 0711) && S_ISDIR(client_entry()->attr.mode));
	dir = client_entry()->nodeid;
	EXPECT(client_mkdir(FUSE_ROOT_ID, "new", 0711) == -EEXIST);
	EXPECT(!client_rename(FUSE_ROOT_ID, "file", dir, "renamed", 0));
	EXPECT(!client_lookup(dir, "renamed", &other) && other == node && !client_getattr(node));
	EXPECT(!client_link(node, FUSE_ROOT_ID, "link") && client_entry()->nodeid == node);
	EXPECT(client_entry()->attr.nlink == 2 && file_is(in_tree("link"), "hello"));
	EXPECT(client_link(dir, FUSE_ROOT_ID, "link2") == -EPERM);
	EXPECT(client_rename(dir, "renamed", FUSE_ROOT_ID, "link", 1) == -EEXIST);	/* NOREPLACE */
	EXPECT(!client_rename(dir, "renamed", FUSE_ROOT_ID, "dir", 2));		/* EXCHANGE */
	EXPECT(client_rename(dir, "renamed", FUSE_ROOT_ID, "x", 4) == -EINVAL);	/* WHITEOUT */
	EXPECT(file_is(in_tree("dir"), "hello") && file_is(in_tree("new/renamed/below"), "below"));
	EXPECT(client_rename(FUSE_ROOT_ID, "new", dir, "itself", 0) == -EINVAL);
	EXPECT(!client_symlink(dir, "symbolic", "/any/where/../at/all") && S_ISLNK(client_entry()->attr.mode));
	EXPECT(client_symlink(dir, "empty", "") == -ENOENT);
	EXPECT(client_call(FUSE_RMDIR, FUSE_ROOT_ID, NULL, 0, "new") == -ENOTEMPTY);
	EXPECT(client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "new") == -EISDIR);
	EXPECT(client_call(FUSE_RMDIR, FUSE_ROOT_ID, NULL, 0, "link") == -ENOTDIR);
	EXPECT(!client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "link"));
	EXPECT(!client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "dir"));
	/* A file without a name is still there for who has it. */
	EXPECT(!client_getattr(node) && !client_open(FUSE_OPEN, node, O_RDWR, &other));
	EXPECT(!client_read(FUSE_READ, node, other, 0, 10) && client_got == 5);
	end();
}

static void test_setattr(void)
{
	struct fuse_setattr_in in = { .valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME, .mode = S_IFREG | 0640,
				      .size = 2, .mtime = 1000, .mtimensec = 5 };
	const struct fuse_attr *attr = &((const struct fuse_attr_out *)client_reply)->attr;
	uint64_t node, handle;
	struct stat st;

	begin(true);
	node = node_of("file");
	EXPECT(!client_setattr(node, &in) && !stat(in_tree("file"), &st));
	EXPECT(attr->size == 2 && attr->mtime == 1000 && attr->mtimensec == 5);
	EXPECT((st.st_mode & 07777) == 0640 && st.st_size == 2 && st.st_mtim.tv_sec == 1000);
	in = (struct fuse_setattr_in){ .valid = FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME | FATTR_MTIME_NOW };
	EXPECT(!client_setattr(node, &in) && attr->mtime > 1000 && attr->size == 2);
	EXPECT(!client_open(FUSE_OPEN, node, O_RDWR, &handle));
	in = (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .size = 10, .fh = handle };
	EXPECT(!client_setattr(node, &in) && attr->size == 10);
	in.fh++;
	EXPECT(client_setattr(node, &in) == -ESTALE);
	in = (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = ~0ULL };
	EXPECT(client_setattr(node, &in) == -EINVAL);
	in = (struct fuse_setattr_in){ .valid = FATTR_UID | FATTR_GID, .uid = getuid(), .gid = getgid() };
	EXPECT(!client_setattr(node, &in) && attr->uid == getuid());
	in = (struct fuse_setattr_in){ .valid = 1U << 20 };
	EXPECT(client_setattr(node, &in) == -EINVAL);
	in = (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = S_IFDIR | 03777 };
	EXPECT(!client_setattr(node_of("dir"), &in) && (attr->mode & 07777) == 03777);
	end();
}

static void test_sync_and_room(void)
{
	struct fuse_fallocate_in room = { .length = 100 };
	struct fuse_flush_in flush = { 0 };
	struct fuse_fsync_in fsync = { 0 };
	uint64_t node, handle, dir;

	begin(true);
	node = node_of("file");
	EXPECT(!client_open(FUSE_OPEN, node, O_RDWR, &handle));
	EXPECT(!client_open(FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY, &dir));
	room.fh = flush.fh = fsync.fh = handle;
	EXPECT(!client_call(FUSE_FALLOCATE, node, &room, sizeof(room), NULL));
	EXPECT(!client_getattr(node) && ((const struct fuse_attr_out *)client_reply)->attr.size == 100);
	room.mode = 0x8;	/* COLLAPSE_RANGE */
	EXPECT(client_call(FUSE_FALLOCATE, node, &room, sizeof(room), NULL) == -EOPNOTSUPP);
	EXPECT(!client_call(FUSE_FLUSH, node, &flush, sizeof(flush), NULL));
	EXPECT(!client_call(FUSE_FSYNC, node, &fsync, sizeof(fsync), NULL));
	fsync.fsync_flags = 1;
	EXPECT(!client_call(FUSE_FSYNC, node, &fsync, sizeof(fsync), NULL));
	fsync.fh = dir;
	EXPECT(!client_call(FUSE_FSYNCDIR, FUSE_ROOT_ID, &fsync, sizeof(fsync), NULL));
	EXPECT(!client_call(FUSE_SYNCFS, FUSE_ROOT_ID, &(struct fuse_syncfs_in){ 0 }, 8, NULL));
	flush.fh = dir;
	EXPECT(client_call(FUSE_FLUSH, node, &flush, sizeof(flush), NULL) == -EBADF);
	end();
}

/* Threads that look up, use and forget the same few files, and one that forgets all. */

#define RACERS		4
#define RACE_ROUNDS	20000

static void race_use(struct files *of, uint64_t node)
{
	struct entry *entry = files_node(of, node);
	struct stat st;

	if (!entry)
		return;
	EXPECT(!fstat(entry->fd, &st) && st.st_ino == entry->ino);
	files_put(of, entry);
}

static void *race(void *arg)
{
	static const char *const names[] = { "file", "dir", "none" };
	const unsigned int own = (uintptr_t)arg;
	struct fuse_entry_out out;

	for (unsigned int i = 0; i < RACE_ROUNDS; i++) {
		if (files_tell_name(&files, files.root.fd, names[(i + own) % 3], &out))
			continue;
		race_use(&files, out.nodeid);
		table_forget(&files.nodes, out.nodeid, 1);
		race_use(&files, out.nodeid);
		if (!own && i % 100 == 0)
			table_clear(&files.nodes);
	}
	return NULL;
}

static void test_race(void)
{
	pthread_t thread[RACERS];
	uint64_t node;

	begin(true);
	for (uintptr_t i = 0; i < RACERS; i++)
		EXPECT(!pthread_create(&thread[i], NULL, race, (void *)i));
	for (unsigned int i = 0; i < RACERS; i++)
		pthread_join(thread[i], NULL);
	/* All slots are there again. */
	table_clear(&files.nodes);
	for (unsigned int i = 0; i < NODES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		write_file(in_tree(name), "");
		EXPECT(!client_lookup(FUSE_ROOT_ID, name, &node));
	}
	end();
}

static void test_options(void)
{
	struct fs_options options = {
		.tag = "tag", .root = "/none", .self = &self, .queues = 2, .nodes = 10, .handles = 10,
	};
	static const char long_tag[] = "a tag of thirty-six characters or so.";
	struct device *dev;
	char config[40];

	EXPECT(!fs_create(&options, &dev));
	dev->ops->config_read(dev, 0, config, sizeof(config));
	EXPECT(dev->ops->queue_count == 3 && !strcmp(config, "tag") && config[36] == 2);
	/* The root that is not there. */
	EXPECT(dev->ops->start(dev, &(struct dev_memory){ 0 }, 0, NULL) == -ENOENT);
	dev->ops->destroy(dev);
	options.tag = long_tag;
	EXPECT(strlen(long_tag) == 37 && fs_create(&options, &dev) == -EINVAL);
	options.tag = "";
	EXPECT(fs_create(&options, &dev) == -EINVAL);
	options.tag = long_tag + 1;
	options.queues = 0;
	EXPECT(fs_create(&options, &dev) == -EINVAL);
	options.queues = FS_QUEUES_MAX;
	EXPECT(!fs_create(&options, &dev));
	dev->ops->destroy(dev);
	options.nodes = TABLE_LIMIT_MAX + 1;
	EXPECT(fs_create(&options, &dev) == -EINVAL);
}

static const struct unit_test tests[] = {
	{ "a guest begins", test_init },
	{ "files are found, and are one by whatever name", test_lookup },
	{ "what is forgotten is gone, and its number with it", test_forget },
	{ "files are read", test_read },
	{ "messages in pieces", test_pieces },
	{ "directories are read, by one name at least", test_directory },
	{ "other requests, and those that there are not", test_small },
	{ "names that are none", test_names },
	{ "names that do not end where they should", test_name_ends },
	{ "lengths that lie", test_lengths },
	{ "no room for the reply", test_room },
	{ "numbers of another kind", test_kinds },
	{ "numbers of a process before", test_stale },
	{ "no more than so many files", test_limits },
	{ "symbolic links lead nowhere", test_links },
	{ "a link in the place of a directory", test_exchanged },
	{ "what is no file is not opened, nor made", test_special },
	{ "a read-only tree stays as it is", test_read_only },
	{ "files are made and written", test_create },
	{ "names are changed", test_change_names },
	{ "attributes are changed", test_setattr },
	{ "room in files, and syncing", test_sync_and_room },
	{ "threads in the table of nodes", test_race },
	{ "options that are none", test_options },
};

int main(void)
{
	int status;

	umask(0);
	self = open("/proc/self/fd", O_PATH | O_DIRECTORY);
	if (self < 0 || !mkdtemp(folder))
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	rmdir(folder);
	return status;
}
