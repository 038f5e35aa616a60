/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note OR MIT */
/*
 * Moat's own ioctls, beside those of KVM's ABI (<linux/kvm.h>).
 *
 * Reserved members have to be 0, and so has every bit of flags that is not named here: -EINVAL
 * otherwise. A page is 4096 bytes.
 */
#ifndef MOAT_UAPI_H
#define MOAT_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MOAT_IOC	0xbd

/*
 * On the node: the version of this interface, which is MOAT_VERSION_NOW. Whatever is added leaves the
 * number as it is; one that is higher may have taken something away.
 */
#define MOAT_GET_VERSION	_IO(MOAT_IOC, 0x00)
#define MOAT_VERSION_NOW	1

/**
 * struct moat_window_create - a window on the memory of a VM (MOAT_CREATE_WINDOW, on the VM)
 * @pages: how long it is, 1 to MOAT_WINDOW_MAX_PAGES.
 * @flags: 0.
 * @control: out: a descriptor for MOAT_WINDOW_CHANGE. When it is closed for the last time, all that the
 *	window shows is taken back, and it shows nothing any more.
 * @map: out: a descriptor that can only be mapped: shared, without PROT_EXEC, from offset 0 to @pages
 *	pages; its length is what lseek() to its end tells. For a device's process, say. The mapping is not inherited by a child, is not in core
 *	dumps, and can only be unmapped as a whole. What is touched where the window shows nothing, or
 *	written where it shows something to be read, is SIGBUS to whoever does; a system call that is
 *	given such an address ends with EFAULT, and none can keep hold of a page.
 * @reserved: 0.
 *
 * A mapping may also back a memory slot of another VM (KVM_SET_USER_MEMORY_REGION): that is then the
 * one that sees what is shown.
 *
 * 0, or -EINVAL for @pages, @flags or @reserved, -EMFILE or -ENFILE for want of descriptors, -ENOMEM.
 */
struct moat_window_create {
	__u32 pages;
	__u32 flags;
	__s32 control;
	__s32 map;
	__u64 reserved[2];
};

#define MOAT_WINDOW_MAX_PAGES	(1u << 20)
#define MOAT_CREATE_WINDOW	_IOWR(MOAT_IOC, 0x10, struct moat_window_create)

/* What becomes of some pages of the window. */
#define MOAT_WINDOW_REVOKE	0	/* they show nothing; those that did not before stay so */
#define MOAT_WINDOW_GRANT_READ	1	/* they show guest memory, to be read */
#define MOAT_WINDOW_GRANT_WRITE	2	/* ... or written as well */

/**
 * struct moat_window_change - one change
 * @gpa: where the guest's memory begins that is shown, a page's address; 0 for MOAT_WINDOW_REVOKE.
 * @page: the window's first page.
 * @pages: how many, at least one.
 * @op: MOAT_WINDOW_REVOKE, MOAT_WINDOW_GRANT_READ or MOAT_WINDOW_GRANT_WRITE.
 * @reserved: 0.
 *
 * Which page of the window shows which of the guest's is the caller's to say: those of one request
 * that are next to each other in the window are taken back by one flush of translations, wherever they
 * are in the guest.
 *
 * Granted pages are pinned until they are revoked, and counted against RLIMIT_MEMLOCK of the VM's owner
 * as the caller has it. They are in all mappings that there are when the call returns. The guest's
 * memory is looked up when it is granted: slots that change afterwards change nothing of it. What is
 * granted for writing counts as written: a dirty log has it when it is granted, and again when it is
 * revoked.
 */
struct moat_window_change {
	__u64 gpa;
	__u32 page;
	__u32 pages;
	__u32 op;
	__u32 reserved;
};

/**
 * struct moat_window_batch - changes, made in this order (MOAT_WINDOW_CHANGE, on the control descriptor)
 * @changes: address of an array of struct moat_window_change.
 * @count: its length, 1 to MOAT_WINDOW_MAX_CHANGES.
 * @reserved: 0.
 *
 * How many were made, where the first was: one that cannot be made ends the batch. Else, for the first:
 * -EINVAL for a member that is wrong, or pages outside of the window, -EEXIST where a page of the window
 * shows something already, -EFAULT where the guest has no memory, or only such that cannot be written,
 * -EOPNOTSUPP for writing to memory of a VM that has dirty rings, -ENOMEM beyond the limit, -EAGAIN
 * where the VM's owner is about to end. When the call returns, nobody can reach what it has revoked.
 */
struct moat_window_batch {
	__u64 changes;
	__u32 count;
	__u32 reserved;
};

#define MOAT_WINDOW_MAX_CHANGES	1024
#define MOAT_WINDOW_CHANGE	_IOW(MOAT_IOC, 0x11, struct moat_window_batch)

#endif
