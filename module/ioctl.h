/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one dispatcher. A row says which command, which lock, which handler; the size of the argument
 * and the directions of copying come from the command's own number.
 */
#ifndef MOAT_IOCTL_H
#define MOAT_IOCTL_H

#include <linux/types.h>

enum moat_ioctl_lock {
	MOAT_LOCK_NONE,
	MOAT_LOCK_VM,		/* vm->lock */
	MOAT_LOCK_VCPU,		/* vcpu->lock, interruptible by a fatal signal: -EINTR */
};

/*
 * A handler. It gets the object, a kernel copy of the argument (zeroed where the command only
 * reads; NULL where the command carries a plain number), and the argument as userspace gave it: the
 * number, or the address behind whose fixed part a variable one follows. The copy goes back to
 * userspace where the command reads and the handler returned 0 or more, or -E2BIG.
 */
typedef long moat_ioctl_fn(void *object, void *arg, unsigned long uarg);

/**
 * struct moat_ioctl - one command of one kind of object
 * @cmd: the number, of <linux/kvm.h>.
 * @lock: held round @handler.
 * @handler: what it does.
 * @optional: a null pointer is an argument too: @handler gets NULL.
 */
struct moat_ioctl {
	u32 cmd;
	u8 lock;
	moat_ioctl_fn *handler;
	bool optional;
};

/* The three tables end with an empty row. -ENOTTY for a command that has none. */
long moat_ioctl(const struct moat_ioctl *table, void *object, struct mutex *lock,
		unsigned int cmd, unsigned long uarg);

extern const struct moat_ioctl moat_system_ioctls[];
extern const struct moat_ioctl moat_vm_ioctls[];
extern const struct moat_ioctl moat_vcpu_ioctls[];

/* KVM_CHECK_EXTENSION of the system and of any VM: 0 for what is not there. */
moat_ioctl_fn moat_check_extension;

#endif
