// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * In this order, since each step needs what the next ones take away: an empty root, or one that is a
 * directory of the host's, identity and capabilities, no_new_privs, and the filter of system calls.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "userspace/lib/sandbox.h"

/* A system call has no more arguments. */
#define SANDBOX_CHECKS_MAX	6

/* Any directory will do to mount on. */
#define SANDBOX_ROOT	"/tmp"

const struct sandbox_call sandbox_libc[] = {
	{ SYS_mmap, 0, "memory of others, stacks of threads, the heap; no code", 3, PROT_EXEC, 0 },
	{ SYS_mprotect, 0, "guard pages of stacks, growth of the heap; no code", 3, PROT_EXEC, 0 },
	{ SYS_munmap, 0, "memory of others, stacks", 0, 0, 0 },
	{ SYS_madvise, 0, "stacks that are kept for the next thread", 0, 0, 0 },
	{ SYS_brk, 0, "the heap", 0, 0, 0 },
	{ SYS_clone, 0, "threads, and never processes", 1, CLONE_THREAD, CLONE_THREAD },
	{ SYS_clone3, ENOSYS, "libc then takes clone(), whose flags can be seen here", 0, 0, 0 },
	{ SYS_prctl, 0, "a thread's name", 1, ~0ULL, PR_SET_NAME },
	{ SYS_set_robust_list, 0, "libc, in each new thread", 0, 0, 0 },
	{ SYS_rseq, 0, "libc, in each new thread", 0, 0, 0 },
	{ SYS_rt_sigaction, 0, "libc, before the first thread", 0, 0, 0 },
	{ SYS_rt_sigprocmask, 0, "libc, round making and ending a thread", 0, 0, 0 },
	{ SYS_futex, 0, "locks, and waiting for a thread's end", 0, 0, 0 },
	{ SYS_clock_gettime, 0, "the time, where the kernel's page has no clock", 0, 0, 0 },
	{ SYS_restart_syscall, 0, "waiting, after the process was stopped", 0, 0, 0 },
	{ SYS_exit, 0, "a thread's end", 0, 0, 0 },
	{ SYS_exit_group, 0, "the end", 0, 0, 0 },
	{ 0 },
};

static int root_mount_empty(void)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	return mount("none", SANDBOX_ROOT, "tmpfs", flags, "mode=555,nr_inodes=1,size=4k") ? -errno : 0;
}

/*
 * A descriptor that was handed over, as /proc/self/fd/N, is of the mount namespace from before, of which nothing
 * can be cloned. So the directory is looked up by its name there; it has to be the same one here.
 */
static int tree_open(const char *path)
{
	int fd, given = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char link[32], name[PATH_MAX];
	struct stat here, there;
	ssize_t n;

	if (given < 0)
		return -errno;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", given);
	n = readlink(link, name, sizeof(name) - 1);
	name[n < 0 ? 0 : n] = '\0';
	fd = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && (fstat(given, &there) || fstat(fd, &here) || here.st_dev != there.st_dev ||
			here.st_ino != there.st_ino)) {
		close(fd);
		fd = -1;
		errno = ESTALE;
	}
	close(given);
	return fd < 0 ? -errno : fd;
}

/* All below comes along: a user namespace may not look under what is mounted there. */
static int tree_clone(const struct sandbox_tree *tree)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
			    (tree->programs ? 0 : MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW) |
			    (tree->writable ? 0 : MOUNT_ATTR_RDONLY),
	};
	int err = 0, fd, directory = tree_open(tree->path);

	if (directory < 0)
		return directory;
	fd = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
		       AT_RECURSIVE);
	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)))
		err = -errno;
	close(directory);
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

/* What is left beside the tree. The empty directory is where the tree will be. */
static int tree_leave(const struct sandbox_tree *tree)
{
	int err;

	if (tree->ret_self) {
		*tree->ret_self = open_tree(AT_FDCWD, "/proc/self/fd",
					    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (*tree->ret_self < 0)
			return -errno;
	}
	if (!tree->ret_empty)
		return 0;
	err = root_mount_empty();
	if (err)
		return err;
	*tree->ret_empty = open(SANDBOX_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *tree->ret_empty < 0 ? -errno : 0;
}

static int root_mount_tree(const struct sandbox_tree *tree)
{
	int err, fd = tree_clone(tree);

	if (fd < 0)
		return fd;
	err = tree_leave(tree);
	if (!err && move_mount(fd, "", AT_FDCWD, SANDBOX_ROOT, MOVE_MOUNT_F_EMPTY_PATH))
		err = -errno;
	close(fd);
	return err;
}

static int root_mount(const struct sandbox_tree *tree)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	return tree ? root_mount_tree(tree) : root_mount_empty();
}

/* The old root goes on top of the new one, and away. */
static int root_pivot(void)
{
	if (chdir(SANDBOX_ROOT) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chdir("/"))
		return -errno;
	return 0;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = dprintf(fd, "%s", text) < 0 ? -errno : 0;
	close(fd);
	return err;
}

/* In a namespace of its own, the user is known by the number it had, so that files show their owner. */
static int root_map_user(uid_t uid, gid_t gid)
{
	char users[32], groups[32];
	int err;

	snprintf(users, sizeof(users), "%u %u 1", uid, uid);
	snprintf(groups, sizeof(groups), "%u %u 1", gid, gid);
	err = write_text("/proc/self/setgroups", "deny");
	if (!err)
		err = write_text("/proc/self/uid_map", users);
	return err ? err : write_text("/proc/self/gid_map", groups);
}

/* 1: the host lets us have no root of our own. */
static int sandbox_root(const struct sandbox *sandbox)
{
	const struct sandbox_tree *tree = sandbox->tree;
	const uid_t uid = geteuid();
	const gid_t gid = getegid();
	const int mounts = CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0);
	int err;

	if (unshare(mounts | CLONE_NEWNET | CLONE_NEWIPC) && (sandbox->no_network || unshare(mounts)))
		return tree ? -errno : 1;
	err = uid && tree ? root_map_user(uid, gid) : 0;
	if (!err)
		err = root_mount(tree);
	if (err)
		return !tree && (err == -EPERM || err == -EACCES) ? 1 : err;
	return root_pivot();
}

/* Without @uid, the user stays, and loses what capabilities there are. */
static int sandbox_identity(uid_t uid, gid_t gid)
{
	capng_clear(CAPNG_SELECT_ALL);
	if (uid != (uid_t)-1 || gid != (gid_t)-1)
		return capng_change_id(uid, gid, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING |
				       CAPNG_CLEAR_AMBIENT) ? -EPERM : 0;
	/* The bounding set is only root's to change. */
	return capng_apply(geteuid() ? CAPNG_SELECT_CAPS : CAPNG_SELECT_ALL) ? -EPERM : 0;
}

/*
 * Whoever was to be signalled at its parent's end still is: the kernel forgets that with a change of
 * identity, or a user namespace.
 */
static int sandbox_become(const struct sandbox *sandbox, int *ret_bare)
{
	int err, death = 0;
	pid_t parent = getppid();

	if (prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0))
		return -errno;
	*ret_bare = sandbox_root(sandbox);
	if (*ret_bare < 0)
		return *ret_bare;
	err = sandbox_identity(sandbox->uid, sandbox->gid);
	if (!err && death) {
		prctl(PR_SET_PDEATHSIG, death, 0, 0, 0);
		if (getppid() != parent)
			raise(death);
	}
	return err;
}

static uint32_t filter_action(int error)
{
	if (error == SANDBOX_ASK)
		return SCMP_ACT_NOTIFY;
	return error ? SCMP_ACT_ERRNO(error) : SCMP_ACT_ALLOW;
}

/* Of one call, which has @count rows. */
static int filter_add(scmp_filter_ctx filter, const struct sandbox_call *call, unsigned int count)
{
	struct scmp_arg_cmp check[SANDBOX_CHECKS_MAX];

	for (unsigned int i = 0; i < count; i++)
		check[i] = (struct scmp_arg_cmp){
			.arg = call[i].argument - 1, .op = SCMP_CMP_MASKED_EQ,
			.datum_a = call[i].mask, .datum_b = call[i].value,
		};
	return seccomp_rule_add_array(filter, filter_action(call->error), call->number,
				      call->argument ? count : 0, check);
}

static int filter_add_list(scmp_filter_ctx filter, const struct sandbox_call *call)
{
	int err = 0;

	while (call->why && !err) {
		unsigned int count = 1;

		while (count < SANDBOX_CHECKS_MAX && call[count].number == SANDBOX_AND)
			count++;
		err = filter_add(filter, call, count);
		call += count;
	}
	return err;
}

static int filter_add_lists(scmp_filter_ctx filter, const struct sandbox *sandbox)
{
	int err = 0;

	for (unsigned int i = 0; i < SANDBOX_LISTS_MAX && sandbox->calls[i] && !err; i++)
		err = filter_add_list(filter, sandbox->calls[i]);
	return err;
}

static int filter_listener(scmp_filter_ctx filter, int *ret_listener)
{
	*ret_listener = fcntl(seccomp_notify_fd(filter), F_DUPFD_CLOEXEC, 0);
	return *ret_listener < 0 ? -errno : 0;
}

/* A tree, since what depends on arguments, as ioctl() does, is looked up each time. */
static int filter_load(const struct sandbox *sandbox)
{
	scmp_filter_ctx filter = seccomp_init(sandbox->forbids ? SCMP_ACT_ALLOW :
					      SCMP_ACT_KILL_PROCESS);
	int err;

	if (!filter)
		return -ENOMEM;
	err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = filter_add_lists(filter, sandbox);
	if (!err)
		err = seccomp_load(filter);
	if (!err && sandbox->ret_listener)
		err = filter_listener(filter, sandbox->ret_listener);
	seccomp_release(filter);
	return err;
}

void sandbox_allow(struct sandbox *sandbox, const struct sandbox_call *calls)
{
	unsigned int i = 0;

	while (sandbox->calls[i])
		i++;
	sandbox->calls[i] = calls;
}

int sandbox_enter(const struct sandbox *sandbox, const char **ret_step)
{
	int bare = 0, err;

	*ret_step = sandbox->tree ? "a root of its own, user, groups and capabilities" :
				  "an empty root, user, groups and capabilities";
	/* What libcap-ng reads of /proc, it reads now. */
	capng_get_caps_process();
	err = sandbox_become(sandbox, &bare);
	if (err)
		return err;
	*ret_step = "giving up new privileges";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	*ret_step = "the filter of system calls";
	err = filter_load(sandbox);
	return err ? err : bare;
}

int sandbox_forbid(const struct sandbox_call *calls)
{
	const struct sandbox sandbox = { .forbids = true, .calls = { calls } };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return filter_load(&sandbox);
}
