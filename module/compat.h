/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between kernel versions, and the only place for it. Each piece is there as the
 * newest supported kernel names it, and made up for the older ones.
 */
#ifndef MOAT_COMPAT_H
#define MOAT_COMPAT_H

#include <linux/version.h>

#ifdef __ASSEMBLY__

#include <asm/alternative.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>
#include <asm/segment.h>

#ifndef X86_FEATURE_CLEAR_CPU_BUF_VM
#define X86_FEATURE_CLEAR_CPU_BUF_VM X86_FEATURE_CLEAR_CPU_BUF
#endif

/* VERW on a selector of our own: the kernel's is for KVM alone on new kernels. */
.pushsection .rodata
.Lmoat_verw_selector:
	.word __KERNEL_DS
.popsection

.macro MOAT_CLEAR_CPU_BUFFERS
	ALTERNATIVE "jmp .Lmoat_no_verw_\@", "", X86_FEATURE_CLEAR_CPU_BUF_VM
	verw .Lmoat_verw_selector(%rip)
.Lmoat_no_verw_\@:
.endm

.macro MOAT_FILL_RETURN_BUFFER reg:req
	FILL_RETURN_BUFFER \reg, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT
.endm

.macro MOAT_UNTRAIN_RET
#ifdef UNTRAIN_RET_VM
	UNTRAIN_RET_VM
#else
	UNTRAIN_RET
#endif
.endm

#else /* C */

#include <linux/eventfd.h>
#include <linux/interrupt.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/task_work.h>
#include <linux/thread_info.h>

/* Newer headers rename the member for kernel code, so that nobody reads it carelessly. */
static inline bool moat_immediate_exit(const struct kvm_run *run)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
	return READ_ONCE(run->immediate_exit__unsafe);
#else
	return READ_ONCE(run->immediate_exit);
#endif
}

/* A signal counts for one; older kernels let the caller say for how many. */
static inline void moat_eventfd_signal(struct eventfd_ctx *eventfd)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	eventfd_signal(eventfd);
#else
	eventfd_signal(eventfd, 1);
#endif
}

/* Flags of a mapping, by functions of late. */
static inline void moat_vma_flags(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(vma, set, clear);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
#endif
}

/* Older kernels could tell of the mappings too. With mmap_lock, which is held after it. */
static inline long moat_pin_remote(struct mm_struct *mm, unsigned long start, unsigned long count,
				   unsigned int flags, struct page **pages)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return pin_user_pages_remote(mm, start, count, flags, pages, NULL);
#else
	return pin_user_pages_remote(mm, start, count, flags, pages, NULL, NULL);
#endif
}

/* Verdicts of the ageing notifiers. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
typedef bool moat_young_t;
#else
typedef int moat_young_t;
#endif

/*
 * Is a signal pending, or work of this thread's on its way to userspace (CPU-time timers, NUMA
 * balancing)? A guest decides whether its vCPU's thread ever goes there, so it is made to. The rest
 * of _TIF_NOTIFY_RESUME (restartable sequences, throttling by memory.high) waits.
 */
#define MOAT_USER_WORK	(_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL)

static inline bool moat_user_work_pending(void)
{
	return (read_thread_flags() & MOAT_USER_WORK) || task_work_pending(current);
}

/* The same, or another thread to run: what makes a vCPU's thread leave the inner loop. */
static inline bool moat_work_pending(void)
{
	return (read_thread_flags() & (MOAT_USER_WORK | _TIF_NEED_RESCHED)) ||
	       task_work_pending(current);
}

/* The callback was set by hand before there was hrtimer_setup(). */
static inline void moat_hrtimer_setup(struct hrtimer *timer,
				      enum hrtimer_restart (*fn)(struct hrtimer *timer),
				      clockid_t clock, enum hrtimer_mode mode)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	hrtimer_setup(timer, fn, clock, mode);
#else
	hrtimer_init(timer, clock, mode);
	timer->function = fn;
#endif
}

#endif
#endif
