// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-fs, the program: in its sandbox, over its socket, with a driver that looks for a way out. */
#include <sched.h>
#include <sys/mount.h>

#include "selftests/unit/fs_client.h"
#include "selftests/unit/program_front.h"

#define PROGRAM	"build/bin/moat-fs"
#define REQUESTS	1	/* the ring */
#define REPLY		(DATA + 16 * PAGE)
#define SOMEBODY	65534

static char tree[64];
static const char *mode;

static uint32_t client_exchange(const void *message, uint32_t len, void *reply, uint32_t room)
{
	int64_t got;

	memcpy(memory + DATA, message, len);
	ring_describe(REQUESTS, 0, DATA, len, VRING_DESC_F_NEXT);
	ring_describe(REQUESTS, 1, REPLY, room, VRING_DESC_F_WRITE);
	ring_submit(REQUESTS, 0);
	got = ring_complete(REQUESTS, TIMEOUT_MS);
	if (!EXPECT(got >= 0))
		return 0;
	memcpy(reply, memory + REPLY, room);
	return got;
}

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

static void start(void)
{
	const char *const as_root[] = {
		PROGRAM, "--tag", "test", "--directory", tree, mode, "--socket", socket_path,
		"--uid", "65534", "--gid", "65534", NULL,
	};
	const char *argv[ARRAY_SIZE(as_root)];

	memcpy(argv, as_root, sizeof(argv));
	if (getuid())
		argv[8] = NULL;
	program_start(argv);
	EXPECT(front_connect());
	front_set_up(0, 2);
}

/* A tree that is this user's, or nobody's where this is root, as it is who serves it. */
static void begin(const char *with)
{
	mode = with;
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	EXPECT(!mkdir(tree, 0755) && !mkdir(in_tree("dir"), 0755) && !mkdir(in_tree("dir/below"), 0755));
	write_file(in_tree("file"), "hello");
	write_file(in_tree("dir/below/file"), "below");
	write_file(in_tree("../outside"), "secret");
	if (!getuid())
		EXPECT(!chown(tree, SOMEBODY, SOMEBODY) && !chown(in_tree("file"), SOMEBODY, SOMEBODY) &&
		       !chown(in_tree("dir"), SOMEBODY, SOMEBODY));
	front_begin();
	start();
	EXPECT(!client_init(7, 37));
}

static void end(void)
{
	char command[128];

	EXPECT(program_end(SIGTERM) == 0);
	front_end();
	snprintf(command, sizeof(command), "rm -rf %s/*", folder);
	EXPECT(!system(command));
}

static uint64_t node_of(uint64_t dir, const char *name)
{
	uint64_t node = 0;

	EXPECT(!client_lookup(dir, name, &node));
	return node;
}

static bool holds(uint64_t node, const char *text)
{
	uint64_t handle = 0;

	return !client_open(FUSE_OPEN, node, O_RDONLY, &handle) &&
	       !client_read(FUSE_READ, node, handle, 0, 100) && client_got == strlen(text) &&
	       !memcmp(client_reply, text, client_got);
}

static void test_serves(void)
{
	uint64_t dir, below, handle;
	struct stat st;

	begin("--read-only");
	EXPECT(holds(node_of(FUSE_ROOT_ID, "file"), "hello"));
	EXPECT(!client_lookup(FUSE_ROOT_ID, "file", &below) && !stat(in_tree("file"), &st));
	EXPECT(client_entry()->attr.uid == st.st_uid && client_entry()->attr.gid == st.st_gid);
	dir = node_of(FUSE_ROOT_ID, "dir");
	below = node_of(dir, "below");
	EXPECT(holds(node_of(below, "file"), "below"));
	EXPECT(!client_open(FUSE_OPENDIR, dir, O_RDONLY, &handle));
	EXPECT(!client_read(FUSE_READDIRPLUS, dir, handle, 0, 4096) && client_find("below", true));
	EXPECT(!client_call(FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, NULL));
	EXPECT(client_mkdir(FUSE_ROOT_ID, "new", 0755) == -EROFS);
	/* What no filter of system calls is in the way of. */
	EXPECT(!client_call(FUSE_ACCESS, dir, &(struct fuse_access_in){ .mask = X_OK }, 8, NULL));
	EXPECT(client_call(FUSE_ACCESS, dir, &(struct fuse_access_in){ .mask = W_OK }, 8, NULL) == -EROFS);
	/* FORGET by the queue of high priority. */
	client_begin(FUSE_FORGET, dir);
	client_add(&(struct fuse_forget_in){ 1000 }, 8);
	memcpy(memory + DATA, client_message, client_len);
	ring_describe(0, 0, DATA, client_len, 0);
	ring_submit(0, 0);
	EXPECT(ring_complete(0, TIMEOUT_MS) == 0 && client_getattr(dir) == -ESTALE);
	end();
}

/* All that changes is allowed by the filter, and done with the rights of who serves. */
static void test_changes(void)
{
	struct fuse_setattr_in in = { .valid = FATTR_MODE | FATTR_MTIME | FATTR_UID, .mode = 0600, .mtime = 9 };
	struct fuse_fallocate_in room = { .length = 4096 };
	struct fuse_fsync_in fsync = { 0 };
	uint64_t node, handle, dir;
	struct stat st;

	begin("--read-write");
	EXPECT(!client_create(FUSE_ROOT_ID, "new", O_RDWR, 0666, &node, &handle));
	EXPECT(!client_write(node, handle, 0, "text") && holds(node, "text"));
	EXPECT(!stat(in_tree("new"), &st) && st.st_uid == (getuid() ? getuid() : SOMEBODY));
	EXPECT((st.st_mode & 07777) == 0666 && st.st_size == 4);
	in.uid = st.st_uid;
	EXPECT(!client_setattr(node, &in));
	in.valid = FATTR_SIZE;
	EXPECT(!client_setattr(node, &in));
	in = (struct fuse_setattr_in){ .valid = FATTR_UID };
	EXPECT(client_setattr(node, &in) == -EPERM);
	room.fh = fsync.fh = handle;
	EXPECT(!client_call(FUSE_FALLOCATE, node, &room, sizeof(room), NULL));
	EXPECT(!client_call(FUSE_FLUSH, node, &(struct fuse_flush_in){ .fh = handle }, 24, NULL));
	EXPECT(!client_call(FUSE_FSYNC, node, &fsync, sizeof(fsync), NULL));
	fsync.fsync_flags = 1;
	EXPECT(!client_call(FUSE_FSYNC, node, &fsync, sizeof(fsync), NULL));
	EXPECT(!client_call(FUSE_SYNCFS, FUSE_ROOT_ID, &(struct fuse_syncfs_in){ 0 }, 8, NULL));
	EXPECT(!client_mkdir(FUSE_ROOT_ID, "newdir", 0755));
	dir = node_of(FUSE_ROOT_ID, "newdir");
	EXPECT(!client_link(node, dir, "link") && !client_symlink(dir, "symlink", "/etc"));
	EXPECT(!client_rename(dir, "link", FUSE_ROOT_ID, "renamed", 0));
	EXPECT(!client_rename(dir, "symlink", FUSE_ROOT_ID, "new2", 1));
	EXPECT(!client_call(FUSE_RMDIR, FUSE_ROOT_ID, NULL, 0, "newdir"));
	EXPECT(!client_call(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "renamed"));
	/* Not its own. */
	EXPECT(getuid() || client_mkdir(node_of(node_of(FUSE_ROOT_ID, "dir"), "below"), "x", 0755) == -EACCES);
	end();
}

/* Directories that others move out of the tree, and what was known of them. */
static void test_moved_out(void)
{
	uint64_t dir, below, handle, node;

	begin("--read-write");
	dir = node_of(FUSE_ROOT_ID, "dir");
	below = node_of(dir, "below");
	EXPECT(!client_open(FUSE_OPENDIR, below, O_RDONLY, &handle));
	EXPECT(!rename(in_tree("dir"), in_tree("../moved")));
	write_file(in_tree("../moved/below/new"), "secret");
	EXPECT(client_lookup(dir, "below", &node) == -ESTALE);
	EXPECT(client_lookup(below, "new", &node) == -ESTALE);
	EXPECT(client_read(FUSE_READDIR, below, handle, 0, 4096) == -ESTALE);
	EXPECT(client_open(FUSE_OPENDIR, below, O_RDONLY, &handle) == -ESTALE);
	EXPECT(client_create(dir, "x", O_RDWR, 0644, &node, &handle) == -ESTALE);
	EXPECT(client_mkdir(dir, "x", 0755) == -ESTALE);
	EXPECT(client_call(FUSE_UNLINK, below, NULL, 0, "new") == -ESTALE);
	EXPECT(client_rename(FUSE_ROOT_ID, "file", dir, "x", 0) == -ESTALE);
	EXPECT(client_link(node_of(FUSE_ROOT_ID, "file"), dir, "x") == -ESTALE);
	/* And back. */
	EXPECT(!rename(in_tree("../moved"), in_tree("dir")));
	EXPECT(holds(node_of(below, "new"), "secret"));
	end();
}

/* Other file systems, which take root to mount. */
static void test_mounted(void)
{
	uint64_t node, other, handle;

	if (getuid())
		return;
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	EXPECT(!mkdir(tree, 0755) && !mkdir(in_tree("proc"), 0755) && !mkdir(in_tree("tmpfs"), 0755));
	EXPECT(!mount("none", in_tree("proc"), "proc", 0, NULL) && !mount("none", in_tree("tmpfs"), "tmpfs", 0, NULL));
	mode = "--read-write";
	front_begin();
	start();
	/* Each is an empty directory, and none is the other. */
	EXPECT(!client_lookup(FUSE_ROOT_ID, "proc", &node) && !client_lookup(FUSE_ROOT_ID, "tmpfs", &other));
	EXPECT(node != other && client_lookup(node, "self", &other) == -ENOENT);
	EXPECT(client_lookup(node, "..", &other) < 0);
	EXPECT(!client_open(FUSE_OPENDIR, node, O_RDONLY, &handle));
	EXPECT(client_call(FUSE_MKDIR, node, &(struct fuse_mkdir_in){ 0755, 0 }, sizeof(struct fuse_mkdir_in), "x") < 0);
	EXPECT(!client_open(FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY, &handle));
	EXPECT(!client_read(FUSE_READDIRPLUS, FUSE_ROOT_ID, handle, 0, 4096));
	EXPECT(((const struct fuse_entry_out *)client_find("proc", true) - 1)->nodeid == node);
	EXPECT(program_exits(PROGRAM, "--tag t --directory /proc --fd 0", 1));
	EXPECT(!umount(in_tree("proc")) && !umount(in_tree("tmpfs")));
	end();
}

/* Numbers of the process before are stale; nothing that they could mean is another file. */
static void test_killed_and_started(void)
{
	uint64_t node[5], handle[5];

	begin("--read-write");
	for (unsigned int i = 0; i < ARRAY_SIZE(node); i++) {
		node[i] = node_of(FUSE_ROOT_ID, "file");
		EXPECT(!client_open(FUSE_OPEN, node[i], O_RDWR, &handle[i]));
		for (unsigned int j = 0; j < i; j++) {
			EXPECT(client_getattr(node[j]) == -ESTALE && node[i] != node[j]);
			EXPECT(client_write(node[j], handle[j], 0, "x") == -ESTALE);
			EXPECT(client_open(FUSE_OPEN, node[j], O_RDWR, &handle[j]) == -ESTALE);
		}
		EXPECT(holds(node[i], "hello") && program_end(SIGKILL) == -SIGKILL);
		close(front);
		start();
	}
	end();
}

/* By an ordinary user, where the host has user namespaces for these; files still show whose they are. */
static void test_ordinary_user(void)
{
	char path[PATH_MAX];
	struct stat st;

	if (getuid() || !EXPECT(realpath(PROGRAM, path)))
		return;
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	EXPECT(!mkdir(tree, 0755) && !chown(folder, SOMEBODY, SOMEBODY));
	write_file(in_tree("own"), "hello");
	write_file(in_tree("foreign"), "hello");
	EXPECT(!chown(in_tree("own"), SOMEBODY - 1, SOMEBODY - 1));
	EXPECT(!chown(folder, SOMEBODY - 1, SOMEBODY - 1));
	front_begin();
	child = fork();
	if (!child) {
		if (setgid(SOMEBODY - 1) || setuid(SOMEBODY - 1))
			_exit(126);
		execl(path, path, "--tag", "test", "--directory", tree, "--socket", socket_path, NULL);
		_exit(127);
	}
	EXPECT(front_connect());
	front_set_up(0, 2);
	EXPECT(holds(node_of(FUSE_ROOT_ID, "own"), "hello"));
	node_of(FUSE_ROOT_ID, "own");
	EXPECT(!stat(in_tree("own"), &st) && client_entry()->attr.uid == st.st_uid &&
	       client_entry()->attr.gid == st.st_gid);
	node_of(FUSE_ROOT_ID, "foreign");
	EXPECT(client_entry()->attr.uid == SOMEBODY);	/* of whom the namespace knows nothing */
	end();
}

static void test_command_line(void)
{
	EXPECT(program_exits(PROGRAM, "--fd 0", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --tag x", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory /", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory / --tag ''", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory / --tag 1234567890123456789012345678901234567", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory / --tag x --queues 0", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory / --tag x --queues 9", 2));
	EXPECT(program_exits(PROGRAM, "--fd 0 --directory / --tag x --files 63", 2));
	EXPECT(program_exits(PROGRAM, "--socket /none/none --directory /none --tag x", 1));
	EXPECT(program_exits(PROGRAM, "--socket /none/none --directory /etc/passwd --tag x", 1));
	EXPECT(program_exits(PROGRAM, "--help", 0));
}

static const struct unit_test tests[] = {
	{ "files are served", test_serves },
	{ "files are changed, with the rights of who serves them", test_changes },
	{ "directories that leave the tree", test_moved_out },
	{ "what is mounted below is left out", test_mounted },
	{ "killed and started again", test_killed_and_started },
	{ "started by an ordinary user", test_ordinary_user },
	{ "command lines that are none", test_command_line },
};

int main(void)
{
	int status;

	umask(0);
	/* What is mounted here is nobody else's. */
	if (!getuid() && (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)))
		return 1;
	if (!program_tests_begin() || chmod(folder, 0755))
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	program_tests_end();
	return status;
}
