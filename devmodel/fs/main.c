// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-fs: a tree of files for one machine, by the vhost-user protocol. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devmodel/fs/fs.h"
#include "devmodel/fs/table.h"
#include "devmodel/vhost_user/program.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/sandbox.h"

/* With as many files as that by default, the program keeps within 1 MiB. */
#define FS_NODES		16384
#define FS_NODES_LEAST		64
#define FS_HANDLES		1024

/* Descriptors for all else: the front end's, and those that a request takes while it is served. */
#define FS_DESCRIPTORS		128

static const char help[] =
"Usage: moat-fs --tag NAME --directory PATH { --socket PATH | --fd N } [OPTION]...\n"
"Serve a directory and all below it as a virtio file system, to a front end of vhost-user.\n"
"\n"
"  --tag NAME              what the guest mounts it by, 36 bytes at most\n"
"  --directory PATH        the directory; what is mounted below it is empty\n"
"  --read-only             nothing in it can be changed: the default\n"
"  --read-write            it can be changed, with the rights of the user that serves it\n"
"  --queues N              queues of requests, each with a thread; 1 by default, at most 8\n"
"  --files N               the most files that the guest may know at once, 16384 by default;\n"
"                          each takes 44 bytes and a descriptor\n";

enum { FS_TAG = 1, FS_DIRECTORY, FS_READ_ONLY, FS_READ_WRITE, FS_QUEUES, FS_FILES };

static const struct option options[] = {
	{ "tag", required_argument, NULL, FS_TAG },
	{ "directory", required_argument, NULL, FS_DIRECTORY },
	{ "read-only", no_argument, NULL, FS_READ_ONLY },
	{ "read-write", no_argument, NULL, FS_READ_WRITE },
	{ "queues", required_argument, NULL, FS_QUEUES },
	{ "files", required_argument, NULL, FS_FILES },
	{ 0 },
};

static const struct sandbox_call look_calls[] = {
	{ SYS_openat2, 0, "files, by one name below a directory, and anew by their descriptors", 0, 0, 0 },
	{ SYS_readlinkat, 0, "what symbolic links say", 0, 0, 0 },
	{ SYS_faccessat2, 0, "what may be read or written", 0, 0, 0 },
	{ SYS_getdents64, 0, "names in directories", 0, 0, 0 },
	{ SYS_lseek, 0, "where to go on in a directory; holes in files", 0, 0, 0 },
	{ SYS_preadv, 0, "what is in files", 0, 0, 0 },
	{ SYS_umask, 0, "that the guest chooses the modes of files", 0, 0, 0 },
	{ 0 },
};

static const struct sandbox_call change_calls[] = {
	{ SYS_pwritev, 0, "what is to be in files", 0, 0, 0 },
	{ SYS_fallocate, 0, "room for it, and holes", 0, 0, 0 },
	{ SYS_fsync, 0, "that it stays", 0, 0, 0 },
	{ SYS_fdatasync, 0, "the same", 0, 0, 0 },
	{ SYS_syncfs, 0, "the same, of all files", 0, 0, 0 },
	{ SYS_mkdirat, 0, "new directories", 0, 0, 0 },
	{ SYS_symlinkat, 0, "new symbolic links", 0, 0, 0 },
	{ SYS_linkat, 0, "more names for files", 0, 0, 0 },
	{ SYS_renameat2, 0, "other names", 0, 0, 0 },
	{ SYS_unlinkat, 0, "names that go", 0, 0, 0 },
	{ SYS_fchmodat, 0, "modes", 0, 0, 0 },
	{ SYS_fchownat, 0, "groups of the user's", 0, 0, 0 },
	{ SYS_utimensat, 0, "times", 0, 0, 0 },
	{ 0 },
};

/* @self, @empty: what the sandbox leaves */
struct arguments {
	const char *directory;
	int self;
	int empty;
	struct fs_options fs;
	struct sandbox_tree tree;
};

static int take_number(const char *value, uint64_t min, uint64_t max, uint32_t *ret)
{
	uint64_t number;

	if (parse_uint(value, min, max, &number))
		return -EINVAL;
	*ret = number;
	return 0;
}

static int take_option(void *to, int option, const char *value)
{
	struct arguments *arguments = to;
	struct fs_options *fs = &arguments->fs;

	switch (option) {
	case FS_TAG:
		fs->tag = value;
		return *value && strlen(value) <= FS_TAG_MAX ? 0 : -EINVAL;
	case FS_DIRECTORY:
		arguments->directory = value;
		return 0;
	case FS_READ_ONLY:
	case FS_READ_WRITE:
		fs->writable = option == FS_READ_WRITE;
		return 0;
	case FS_QUEUES:
		return take_number(value, 1, FS_QUEUES_MAX, &fs->queues);
	case FS_FILES:
		return take_number(value, FS_NODES_LEAST, TABLE_LIMIT_MAX, &fs->nodes);
	}
	return -EINVAL;
}

static int check_options(const void *from)
{
	const struct arguments *arguments = from;

	if (arguments->directory && arguments->fs.tag)
		return 0;
	log_error("it takes --tag and --directory: see --help");
	return -EINVAL;
}

/* A procfs would show this process itself. */
static int check_directory(const char *path)
{
	struct statfs st;
	int err, fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		err = -errno;
		log_error("cannot open %s: %s", path, strerror(-err));
		return err;
	}
	err = fstatfs(fd, &st) ? -errno : st.f_type == PROC_SUPER_MAGIC ? -EINVAL : 0;
	if (err)
		log_error("%s cannot be served: %s", path, strerror(-err));
	close(fd);
	return err;
}

/* Each file that the guest knows takes a descriptor. Root may raise the limit. */
static int take_descriptors(struct fs_options *fs)
{
	const rlim_t other = fs->handles + FS_DESCRIPTORS, want = fs->nodes + other;
	const struct rlimit all = { want, want };
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return -errno;
	if (limit.rlim_max < want && !setrlimit(RLIMIT_NOFILE, &all))
		return 0;
	limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		return -errno;
	if (limit.rlim_cur < other + FS_NODES_LEAST) {
		log_error("it takes more descriptors than this user may have (ulimit -n)");
		return -EMFILE;
	}
	if (limit.rlim_cur < want) {
		fs->nodes = limit.rlim_cur - other;
		log_error("the guest may know %u files only: the limit of descriptors (ulimit -n)", fs->nodes);
	}
	return 0;
}

static int open_device(void *from, struct device **ret)
{
	struct arguments *arguments = from;
	int err = check_directory(arguments->directory);

	if (err)
		return err;
	err = take_descriptors(&arguments->fs);
	if (err)
		return err;
	signal(SIGXFSZ, SIG_IGN);	/* a limit on the size of files is an error, and not the end */
	err = fs_create(&arguments->fs, ret);
	if (err)
		log_error("cannot make a file system: %s", strerror(-err));
	return err;
}

static void confine(void *from, struct sandbox *sandbox)
{
	struct arguments *arguments = from;

	arguments->tree = (struct sandbox_tree){
		.path = arguments->directory, .writable = arguments->fs.writable,
		.ret_self = &arguments->self, .ret_empty = &arguments->empty,
	};
	sandbox->tree = &arguments->tree;
	if (arguments->fs.writable)
		sandbox_allow(sandbox, change_calls);
}

static const struct program program = {
	.name = "moat-fs", .help = help, .options = options,
	.take = take_option, .check = check_options, .open = open_device,
	.calls = look_calls, .confine = confine,
};

int main(int argc, char **argv)
{
	struct arguments arguments = {
		.fs = {
			.root = "/", .self = &arguments.self, .empty = &arguments.empty, .queues = 1,
			.nodes = FS_NODES, .handles = FS_HANDLES,
		},
	};

	return program_main(&program, &arguments, argc, argv);
}
