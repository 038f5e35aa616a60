// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * In this order, since each step needs what the next ones take away: an empty root, identity and
 * capabilities, no_new_privs, and the filter of system calls.
 */
#include <cap-ng.h>
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "userspace/lib/sandbox.h"

/* Any directory will do to mount on. */
#define SANDBOX_ROOT	"/tmp"

static int root_mount(void)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", SANDBOX_ROOT, "tmpfs", flags, "mode=555,nr_inodes=1,size=4k"))
		return -errno;
	return 0;
}

/* The old root goes on top of the new one, and away. */
static int root_pivot(void)
{
	if (chdir(SANDBOX_ROOT) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chdir("/"))
		return -errno;
	return 0;
}

/* 1: the host lets us have no root of our own. */
static int sandbox_root(void)
{
	int err;

	if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)))
		return 1;
	err = root_mount();
	if (err)
		return err == -EPERM || err == -EACCES ? 1 : err;
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

static int filter_add(scmp_filter_ctx filter, const struct sandbox_call *call)
{
	const struct scmp_arg_cmp check = {
		.arg = call->argument - 1, .op = SCMP_CMP_MASKED_EQ,
		.datum_a = call->mask, .datum_b = call->value,
	};

	return seccomp_rule_add_array(filter,
				      call->error ? SCMP_ACT_ERRNO(call->error) : SCMP_ACT_ALLOW,
				      call->number, !!call->argument, &check);
}

static int filter_add_lists(scmp_filter_ctx filter, const struct sandbox *sandbox)
{
	for (unsigned int i = 0; i < SANDBOX_LISTS_MAX && sandbox->calls[i]; i++)
		for (const struct sandbox_call *call = sandbox->calls[i]; call->why; call++) {
			int err = filter_add(filter, call);

			if (err)
				return err;
		}
	return 0;
}

static int sandbox_filter(const struct sandbox *sandbox)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err;

	if (!filter)
		return -ENOMEM;
	err = filter_add_lists(filter, sandbox);
	if (!err)
		err = seccomp_load(filter);
	seccomp_release(filter);
	return err;
}

int sandbox_enter(const struct sandbox *sandbox, const char **ret_step)
{
	int bare, err;

	*ret_step = "an empty root";
	/* What libcap-ng reads of /proc, it reads now. */
	capng_get_caps_process();
	bare = sandbox_root();
	if (bare < 0)
		return bare;
	*ret_step = "giving up user, groups and capabilities";
	err = sandbox_identity(sandbox->uid, sandbox->gid);
	if (err)
		return err;
	*ret_step = "giving up new privileges";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	*ret_step = "the filter of system calls";
	err = sandbox_filter(sandbox);
	return err ? err : bare;
}
