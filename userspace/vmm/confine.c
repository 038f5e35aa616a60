// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the launcher can still do when the first byte that is not its own comes in, be it the kernel
 * image, the guest's, or a device's: run its guest, on descriptors that are open. There is no file, no
 * socket and no process that it could reach.
 *
 * A namespace of processes would be for children only, of which there are none, and threads could not
 * be made any more: so there is none. What it would hide cannot be called for (kill, ptrace).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "include/uapi/moat.h"
#include "userspace/lib/log.h"
#include "userspace/lib/sandbox.h"
#include "userspace/vmm/confine.h"

#define WHOLE	~0ULL

static const struct sandbox_call confine_ioctls[] = {
	{ SYS_ioctl, 0, "running the guest", 2, WHOLE, KVM_RUN },
	{ SYS_ioctl, 0, "its memory", 2, WHOLE, KVM_SET_USER_MEMORY_REGION },
	{ SYS_ioctl, 0, "a vCPU", 2, WHOLE, KVM_CREATE_VCPU },
	{ SYS_ioctl, 0, "what it says it is", 2, WHOLE, KVM_SET_CPUID2 },
	{ SYS_ioctl, 0, "its state at the start", 2, WHOLE, KVM_SET_MSRS },
	{ SYS_ioctl, 0, "the same", 2, WHOLE, KVM_GET_SREGS },
	{ SYS_ioctl, 0, "the same", 2, WHOLE, KVM_SET_SREGS },
	{ SYS_ioctl, 0, "the same", 2, WHOLE, KVM_SET_REGS },
	{ SYS_ioctl, 0, "where it was when it crashed", 2, WHOLE, KVM_GET_REGS },
	{ SYS_ioctl, 0, "what the node counts of it", 2, WHOLE, KVM_GET_STATS_FD },
	{ SYS_ioctl, 0, "that it stood still for a while", 2, WHOLE, KVM_KVMCLOCK_CTRL },
	{ SYS_ioctl, 0, "an interrupt that the kernel sends by itself", 2, WHOLE, KVM_IRQFD },
	{ SYS_ioctl, 0, "which one that is", 2, WHOLE, KVM_SET_GSI_ROUTING },
	{ SYS_ioctl, 0, "an interrupt from here", 2, WHOLE, KVM_SIGNAL_MSI },
	{ SYS_ioctl, 0, "a doorbell", 2, WHOLE, KVM_IOEVENTFD },
	{ SYS_ioctl, 0, "a window for a device", 2, WHOLE, MOAT_CREATE_WINDOW },
	{ SYS_ioctl, 0, "what is seen in it", 2, WHOLE, MOAT_WINDOW_CHANGE },
	{ 0 },
};

static const struct sandbox_call confine_calls[] = {
	{ SYS_pread64, 0, "the headers of the kernel image; what the node counts", 0, 0, 0 },
	{ SYS_sendfile, 0, "it, and the initial RAM disk, into guest memory", 0, 0, 0 },
	{ SYS_lseek, 0, "where to", 0, 0, 0 },
	{ SYS_read, 0, "serial port, signals, timers, eventfds", 0, 0, 0 },
	{ SYS_write, 0, "serial port, eventfds, and what there is to say", 0, 0, 0 },
	{ SYS_readv, 0, "console", 0, 0, 0 },
	{ SYS_writev, 0, "console", 0, 0, 0 },
	{ SYS_preadv2, 0, "eventfds that a device has too", 0, 0, 0 },
	{ SYS_getrandom, 0, "the guest's entropy", 0, 0, 0 },
	{ SYS_poll, 0, "waiting", 0, 0, 0 },
	{ SYS_sched_yield, 0, "the gate gives way, for more requests to come", 0, 0, 0 },
	{ SYS_epoll_create1, 0, "waiting, a device's thread", 0, 0, 0 },
	{ SYS_epoll_ctl, 0, "the same", 0, 0, 0 },
	{ SYS_epoll_wait, 0, "the same", 0, 0, 0 },
	{ SYS_eventfd2, 0, "doorbells, interrupts, telling a thread to end", 0, 0, 0 },
	{ SYS_timerfd_create, 0, "when to look for a device's process again", 0, 0, 0 },
	{ SYS_timerfd_settime, 0, "the same", 0, 0, 0 },
	{ SYS_memfd_create, 0, "guest memory; a device's record of requests in flight", 0, 0, 0 },
	{ SYS_ftruncate, 0, "their size", 0, 0, 0 },
	{ SYS_fcntl, 0, "their seals; copies of descriptors; that nothing waits for one", 0, 0, 0 },
	{ SYS_close, 0, "what is not needed any more", 0, 0, 0 },
	{ SYS_accept4, 0, "who controls the machine", 0, 0, 0 },
	{ SYS_recvmsg, 0, "what he asks; what devices and the supervisor answer", 0, 0, 0 },
	{ SYS_sendmsg, 0, "what devices are told", 0, 0, 0 },
	{ SYS_recvfrom, 0, "has a device gone?", 0, 0, 0 },
	{ SYS_sendto, 0, "requests to the supervisor; answers to who controls the machine", 5, WHOLE, 0 },
	{ SYS_socketpair, 0, "a device's requests of its own", 1, WHOLE, AF_UNIX },
	{ SYS_wait4, 0, "the end of the supervisor", 0, 0, 0 },
	{ SYS_getpid, 0, "libc, before it signals a thread", 0, 0, 0 },
	{ SYS_gettid, 0, "the same, of itself, as abort() does", 0, 0, 0 },
	{ SYS_rt_sigreturn, 0, "a vCPU that was brought out of the guest", 0, 0, 0 },
	{ 0 },
};

/* Windows count what they pin; only the rights that are given up now raise the limit. */
static void confine_raise_limit(void)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	if (!setrlimit(RLIMIT_MEMLOCK, &limit) || getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

int confine(uid_t uid, gid_t gid)
{
	const struct sandbox_call own[] = {
		{ SYS_tgkill, 0, "bringing a vCPU out of the guest", 1, WHOLE, getpid() },
		{ 0 },
	};
	const struct sandbox sandbox = {
		.uid = uid, .gid = gid,
		.calls = { confine_ioctls, confine_calls, sandbox_libc, own },
	};
	const char *step;
	int err;

	/* Libc would look for the time zone's file when it is first asked for a date. */
	tzset();
	confine_raise_limit();
	err = sandbox_enter(&sandbox, &step);
	if (err < 0)
		log_error("no sandbox: %s: %s", step, strerror(-err));
	else if (err)
		log_error("this host lets a user have no empty root; the rest of the sandbox holds");
	malloc_trim(0);
	return err < 0 ? err : 0;
}
