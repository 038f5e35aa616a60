// SPDX-License-Identifier: GPL-2.0-only
/*
 * The dispatcher: copy in once, lock, handle, unlock, copy out.
 */
#include <linux/errno.h>
#include <linux/kvm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "ioctl.h"

/* Arguments up to this size live on the stack; the largest of all is struct kvm_xsave, 4 KiB. */
#define ARG_ON_STACK	320

static const struct moat_ioctl *ioctl_find(const struct moat_ioctl *row, unsigned int cmd)
{
	for (; row->handler; row++)
		if (row->cmd == cmd)
			return row;
	return NULL;
}

static long ioctl_call(const struct moat_ioctl *row, void *object, struct mutex *lock, void *arg,
		       unsigned long uarg)
{
	long r;

	if (row->lock == MOAT_LOCK_NONE)
		return row->handler(object, arg, uarg);
	if (mutex_lock_killable(lock))
		return -EINTR;
	r = row->handler(object, arg, uarg);
	mutex_unlock(lock);
	return r;
}

static long ioctl_with_arg(const struct moat_ioctl *row, void *object, struct mutex *lock,
			   unsigned long uarg, void *arg)
{
	void __user *user = (void __user *)uarg;
	size_t size = _IOC_SIZE(row->cmd);
	/* The number of KVM_SET_IRQCHIP says the wrong one. */
	unsigned int direction = row->cmd == KVM_SET_IRQCHIP ? _IOC_WRITE : _IOC_DIR(row->cmd);
	long r;

	if (direction & _IOC_WRITE) {
		if (copy_from_user(arg, user, size))
			return -EFAULT;
	} else {
		memset(arg, 0, size);
	}
	r = ioctl_call(row, object, lock, arg, uarg);
	if ((direction & _IOC_READ) && (r >= 0 || r == -E2BIG) &&
	    copy_to_user(user, arg, size))
		return -EFAULT;
	return r;
}

/* By itself, so that KVM_RUN, which has no argument, does not pay for the compiler's clearing. */
static noinline long ioctl_with_small(const struct moat_ioctl *row, void *object,
				      struct mutex *lock, unsigned long uarg)
{
	u8 small[ARG_ON_STACK] __aligned(8);

	return ioctl_with_arg(row, object, lock, uarg, small);
}

long moat_ioctl(const struct moat_ioctl *table, void *object, struct mutex *lock,
		unsigned int cmd, unsigned long uarg)
{
	const struct moat_ioctl *row = ioctl_find(table, cmd);
	void *large;
	long r;

	if (!row)
		return -ENOTTY;
	if (!_IOC_SIZE(cmd) || (row->optional && !uarg))
		return ioctl_call(row, object, lock, NULL, uarg);
	if (_IOC_SIZE(cmd) <= ARG_ON_STACK)
		return ioctl_with_small(row, object, lock, uarg);
	large = kmalloc(_IOC_SIZE(cmd), GFP_KERNEL_ACCOUNT);
	if (!large)
		return -ENOMEM;
	r = ioctl_with_arg(row, object, lock, uarg, large);
	kfree(large);
	return r;
}
