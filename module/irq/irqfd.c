// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lines that an eventfd raises.
 *
 * We wait in the eventfd's queue as a poller does, before all others, and raise the line from the
 * wake-up itself, in whatever context the signal was given: setting a line never sleeps. The line
 * goes up and down again at once. With a second eventfd, to resample, it stays up until the guest
 * has ended the interrupt; then it is let down and the second is signalled, and whoever waits there
 * raises it again if his device still wants something. Lines of that kind have a holder of their
 * own, so that a device of userspace's can share them.
 *
 * Whose eventfd is closed by all is found out in that wake-up too, where nothing can be freed: it
 * is marked, and freed by vm->irqfd_reap.
 *
 * vm->irqfds has those that resample in front. It changes under vm->lock, and is read under
 * vm->srcu by whoever tells of the end of an interrupt.
 */
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/rculist.h>

#include "../compat.h"
#include "irq.h"

/* Each end of an interrupt looks at all that resample, with interrupts off. */
#define MAX_IRQFDS	MOAT_NR_GSIS

struct irqfd {
	struct moat_vm *vm;
	u32 gsi;
	bool dead;			/* (a) */
	struct list_head link;		/* (s) in vm->irqfds */
	struct eventfd_ctx *eventfd;
	struct eventfd_ctx *resample;	/* or NULL */
	wait_queue_entry_t wait;
	poll_table poll;
};

static void irqfd_raise(struct irqfd *irqfd)
{
	if (irqfd->resample) {
		moat_gsi_set(irqfd->vm, irqfd->gsi, MOAT_LINE_RESAMPLE, true, false);
		return;
	}
	moat_gsi_set(irqfd->vm, irqfd->gsi, MOAT_LINE_USER, true, false);
	moat_gsi_set(irqfd->vm, irqfd->gsi, MOAT_LINE_USER, false, false);
}

/* The eventfd's lock is held, interrupts are off. Nobody after us needs to know of a signal. */
static int irqfd_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct irqfd *irqfd = container_of(wait, struct irqfd, wait);
	__poll_t events = key_to_poll(key);
	u64 count;

	if (events & EPOLLHUP) {
		WRITE_ONCE(irqfd->dead, true);
		schedule_work(&irqfd->vm->irqfd_reap);
	}
	if (!(events & EPOLLIN))
		return 0;
	eventfd_ctx_do_read(irqfd->eventfd, &count);
	irqfd_raise(irqfd);
	return 1;
}

void moat_irqfd_acked(struct moat_vm *vm, u32 gsi)
{
	int index = srcu_read_lock(&vm->srcu);
	struct irqfd *irqfd;
	bool lowered = false;

	list_for_each_entry_srcu(irqfd, &vm->irqfds, link, srcu_read_lock_held(&vm->srcu)) {
		if (!irqfd->resample)
			break;
		if (irqfd->gsi != gsi)
			continue;
		if (!lowered)
			moat_gsi_set(vm, gsi, MOAT_LINE_RESAMPLE, false, false);
		lowered = true;
		moat_eventfd_signal(irqfd->resample);
	}
	srcu_read_unlock(&vm->srcu, index);
}

static void irqfd_free(struct irqfd *irqfd)
{
	if (irqfd->resample)
		eventfd_ctx_put(irqfd->resample);
	eventfd_ctx_put(irqfd->eventfd);
	kfree(irqfd);
}

static void irqfd_destroy(struct irqfd *irqfd)
{
	u64 count;

	lockdep_assert_held(&irqfd->vm->lock);
	list_del_rcu(&irqfd->link);
	irqfd->vm->irqfd_count--;
	eventfd_ctx_remove_wait_queue(irqfd->eventfd, &irqfd->wait, &count);
	synchronize_srcu_expedited(&irqfd->vm->srcu);
	if (irqfd->resample) {
		/* It may have held the line up; so may others, who are asked anew. */
		moat_gsi_set(irqfd->vm, irqfd->gsi, MOAT_LINE_RESAMPLE, false, false);
		moat_irqfd_acked(irqfd->vm, irqfd->gsi);
	}
	irqfd_free(irqfd);
}

static void irqfd_enqueue(struct file *file, wait_queue_head_t *queue, poll_table *poll)
{
	add_wait_queue_priority(queue, &container_of(poll, struct irqfd, poll)->wait);
}

static bool irqfd_exists(const struct moat_vm *vm, const struct eventfd_ctx *eventfd)
{
	const struct irqfd *irqfd;

	list_for_each_entry(irqfd, &vm->irqfds, link)
		if (irqfd->eventfd == eventfd)
			return true;
	return false;
}

/* Those that resample in front. A signal that was given already counts. */
static void irqfd_publish(struct irqfd *irqfd, struct file *file)
{
	struct list_head *irqfds = &irqfd->vm->irqfds;

	list_add_rcu(&irqfd->link, irqfd->resample ? irqfds : irqfds->prev);
	init_waitqueue_func_entry(&irqfd->wait, irqfd_wake);
	init_poll_funcptr(&irqfd->poll, irqfd_enqueue);
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
		irqfd_raise(irqfd);
}

static int irqfd_assign(struct moat_vm *vm, const struct kvm_irqfd *args, struct file *file)
{
	struct irqfd *irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);
	int r = -EBUSY;

	if (!irqfd)
		return -ENOMEM;
	if (vm->irqfd_count == MAX_IRQFDS) {
		kfree(irqfd);
		return -ENOSPC;
	}
	irqfd->vm = vm;
	irqfd->gsi = args->gsi;
	irqfd->eventfd = eventfd_ctx_fileget(file);
	if (args->flags & KVM_IRQFD_FLAG_RESAMPLE)
		irqfd->resample = eventfd_ctx_fdget(args->resamplefd);
	if (IS_ERR(irqfd->resample)) {
		r = PTR_ERR(irqfd->resample);
		irqfd->resample = NULL;
	} else if (!irqfd_exists(vm, irqfd->eventfd)) {
		irqfd_publish(irqfd, file);
		vm->irqfd_count++;
		return 0;
	}
	irqfd_free(irqfd);
	return r;
}

/* One, and those whose eventfd is gone; or all. */
static void irqfds_remove(struct moat_vm *vm, const struct eventfd_ctx *eventfd, u32 gsi, bool all)
{
	struct irqfd *irqfd, *next;

	list_for_each_entry_safe(irqfd, next, &vm->irqfds, link)
		if (all || READ_ONCE(irqfd->dead) ||
		    (irqfd->eventfd == eventfd && irqfd->gsi == gsi))
			irqfd_destroy(irqfd);
}

long moat_vm_irqfd(void *object, void *arg, unsigned long uarg)
{
	const struct kvm_irqfd *args = arg;
	struct moat_vm *vm = object;
	struct eventfd_ctx *eventfd;
	struct file *file;
	int r = 0;

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	if (!vm->irqchip || ((args->flags & KVM_IRQFD_FLAG_RESAMPLE) && !vm->chips))
		return -EINVAL;
	file = eventfd_fget(args->fd);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN) {
		eventfd = eventfd_ctx_fileget(file);
		irqfds_remove(vm, eventfd, args->gsi, false);
		eventfd_ctx_put(eventfd);
	} else {
		r = irqfd_assign(vm, args, file);
	}
	fput(file);
	return r;
}

static void irqfds_reap(struct work_struct *work)
{
	struct moat_vm *vm = container_of(work, struct moat_vm, irqfd_reap);

	mutex_lock(&vm->lock);
	irqfds_remove(vm, NULL, 0, false);
	mutex_unlock(&vm->lock);
}

void moat_irqfd_init(struct moat_vm *vm)
{
	INIT_LIST_HEAD(&vm->irqfds);
	INIT_WORK(&vm->irqfd_reap, irqfds_reap);
}

void moat_irqfd_destroy(struct moat_vm *vm)
{
	mutex_lock(&vm->lock);
	irqfds_remove(vm, NULL, 0, true);
	mutex_unlock(&vm->lock);
	cancel_work_sync(&vm->irqfd_reap);
}
