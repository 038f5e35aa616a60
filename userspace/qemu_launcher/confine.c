// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the launcher can still do once QEMU has been started, and before it is listened to: speak on descriptors that
 * are open, and end that one process. There is no file, no socket and no program that it could reach. It has neither
 * the guest's memory nor the node.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"
#include "userspace/qemu_launcher/confine.h"

#define WHOLE	~0ULL

static const struct sandbox_call confine_calls[] = {
	{ SYS_read, 0, "signals, eventfds, what QEMU says; heads of images that come", 0, 0, 0 },
	{ SYS_pread64, 0, "the last", 0, 0, 0 },
	{ SYS_preadv2, 0, "eventfds", 0, 0, 0 },
	{ SYS_write, 0, "eventfds, and what there is to say", 0, 0, 0 },
	{ SYS_poll, 0, "waiting", 0, 0, 0 },
	{ SYS_epoll_create1, 0, "waiting, who controls the machine", 0, 0, 0 },
	{ SYS_epoll_ctl, 0, "the same", 0, 0, 0 },
	{ SYS_epoll_wait, 0, "the same", 0, 0, 0 },
	{ SYS_eventfd2, 0, "telling a thread", 0, 0, 0 },
	{ SYS_fcntl, 0, "that nothing waits for a descriptor; locks of disks that come", 0, 0, 0 },
	{ SYS_newfstatat, 0, "what has come, by its descriptor", 4, 0x1000, 0x1000 },
	{ SYS_fstat, 0, "the same", 0, 0, 0 },
	{ SYS_clock_nanosleep, 0, "waiting for a lock", 0, 0, 0 },
	{ SYS_close, 0, "what is not needed any more", 0, 0, 0 },
	{ SYS_accept4, 0, "who controls the machine", 0, 0, 0 },
	{ SYS_recvmsg, 0, "what he asks", 0, 0, 0 },
	{ SYS_sendmsg, 0, "answers; what QEMU is told", 0, 0, 0 },
	{ SYS_recvfrom, 0, "what QEMU answers; terminals", 0, 0, 0 },
	{ SYS_sendto, 0, "terminals", 5, WHOLE, 0 },
	{ SYS_socketpair, 0, "the link of a device that comes", 1, WHOLE, AF_UNIX },
	{ SYS_wait4, 0, "the end of QEMU", 0, 0, 0 },
	{ SYS_pidfd_send_signal, 0, "which is its own process", 0, 0, 0 },
	{ SYS_getpid, 0, "what it is, for who asks", 0, 0, 0 },
	{ SYS_gettid, 0, "libc, as abort() does", 0, 0, 0 },
	{ 0 },
};

/* What libraries read from files when they are first needed, they read now. */
static void confine_prepare(void)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "seed", json_object_new_int(0));
	json_object_put(object);
	tzset();
}

int confine(uid_t uid, gid_t gid)
{
	const struct sandbox sandbox = {
		.uid = uid, .gid = gid, .calls = { confine_calls, sandbox_libc },
	};
	const char *step;
	int err;

	confine_prepare();
	err = sandbox_enter(&sandbox, &step);
	if (err < 0)
		log_error("no sandbox: %s: %s", step, strerror(-err));
	else if (err)
		log_error("this host lets a user have no empty root; the rest of the sandbox holds");
	return err < 0 ? err : 0;
}
