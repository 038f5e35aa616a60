// SPDX-License-Identifier: GPL-2.0-only
/*
 * Windows: pages of a VM's memory that another process, or another VM, may see for a while.
 *
 * A window is an array of entries, each empty or with a pinned page of the guest's. The holder of the
 * control descriptor fills and empties them; the holder of the other descriptor maps the window, and
 * finds in it what the entries say (include/uapi/moat.h).
 *
 * Mappings are of raw frame numbers (VM_PFNMAP): the host's kernel takes no references through them,
 * so no system call that is under way keeps a page after it was revoked, and direct I/O into a window is
 * refused. Each mapping is one VMA from mmap() to munmap(): it cannot be split, grown, moved or
 * inherited. So is there a list of all, and a page that is granted can be put into each.
 *
 * A page is revoked in this order: its entry says so (w->sem for writing); all mappings of its place
 * go, with the second-level mappings of VMs that have it as memory, by way of their
 * owners' notifiers; the pin goes. Whoever puts a page into a mapping looks at the entry and does it in
 * one hold of w->sem for reading: hence before the first step, and it is undone, or after, and
 * there is nothing to put in. Whoever maps it for another VM looks at the entry likewise, and
 * its mmu_seq tells that it was revoked since.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "moat.h"

#define MAX_MAPPINGS	16	/* of a window: each grant goes to all */
#define PIN_PIECE	16	/* pages pinned at a time */

/* Only what is shown goes into mappings. */
enum { ENTRY_EMPTY, ENTRY_SHOWN, ENTRY_LEAVING };

struct window_entry {
	struct page *page;
	u64 gfn;
	u8 state;
	bool writable;
};

struct moat_window {
	refcount_t refs;
	struct mutex lock;		/* one change at a time */
	struct moat_vm *vm;		/* (c) until the control descriptor is closed */
	u32 pages;
	struct window_entry *entry;	/* changed under lock; to ENTRY_SHOWN and from it with sem too */
	struct rw_semaphore sem;	/* see above */
	struct address_space mapping;	/* of all that is mapped: the file's own */
	struct mutex maps_lock;
	struct list_head maps;		/* under maps_lock */
	u32 map_count;			/* the same */
};

/* A mapping: there from mmap() to munmap(). */
struct window_map {
	struct moat_window *window;
	struct list_head link;
	struct vm_area_struct *vma;
	struct mm_struct *mm;
};

/* Those whose pages are to go together. */
struct revoked {
	u32 first, end;
};

static void window_put(struct moat_window *w)
{
	if (!refcount_dec_and_test(&w->refs))
		return;
	kvfree(w->entry);
	kfree(w);
}

/* Mappings */

static vm_fault_t entry_insert(struct vm_area_struct *vma, unsigned long address,
			       const struct window_entry *e)
{
	vm_flags_t flags = e->writable ? vma->vm_flags : vma->vm_flags & ~VM_WRITE;

	return vmf_insert_pfn_prot(vma, address, page_to_pfn(e->page), vm_get_page_prot(flags));
}

/* The entry that a touch finds, or NULL. */
static const struct window_entry *entry_find(struct moat_window *w, unsigned long page, bool write)
{
	const struct window_entry *e;

	lockdep_assert_held_read(&w->sem);
	if (page >= w->pages)
		return NULL;
	e = &w->entry[array_index_nospec(page, w->pages)];
	return e->state == ENTRY_SHOWN && (e->writable || !write) ? e : NULL;
}

static vm_fault_t map_fault(struct vm_fault *vmf)
{
	struct window_map *map = vmf->vma->vm_private_data;
	const struct window_entry *e;
	struct moat_window *w;
	vm_fault_t r;

	if (!map)
		return VM_FAULT_SIGBUS;
	w = map->window;
	down_read(&w->sem);
	e = entry_find(w, vmf->pgoff, vmf->flags & FAULT_FLAG_WRITE);
	r = e ? entry_insert(vmf->vma, vmf->address, e) : VM_FAULT_SIGBUS;
	up_read(&w->sem);
	return r;
}

/* A write to what is there to be read. */
static vm_fault_t map_write_refused(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static int map_may_split(struct vm_area_struct *vma, unsigned long address)
{
	return -EINVAL;
}

static int map_may_move(struct vm_area_struct *vma)
{
	return -EINVAL;
}

/* mremap() copies before it asks whether it may: the copy, which goes again, is no mapping of ours. */
static void map_open(struct vm_area_struct *vma)
{
	vma->vm_private_data = NULL;
}

static void map_close(struct vm_area_struct *vma)
{
	struct window_map *map = vma->vm_private_data;
	struct moat_window *w;

	if (!map)
		return;
	w = map->window;
	mutex_lock(&w->maps_lock);
	list_del(&map->link);
	w->map_count--;
	mutex_unlock(&w->maps_lock);
	mmdrop(map->mm);
	kfree(map);
}

static const struct vm_operations_struct map_ops = {
	.open = map_open,
	.close = map_close,
	.may_split = map_may_split,
	.mremap = map_may_move,
	.fault = map_fault,
	.pfn_mkwrite = map_write_refused,
};

static bool map_add(struct moat_window *w, struct window_map *map)
{
	bool room;

	mutex_lock(&w->maps_lock);
	room = w->map_count < MAX_MAPPINGS;
	if (room) {
		list_add(&map->link, &w->maps);
		w->map_count++;
	}
	mutex_unlock(&w->maps_lock);
	return room;
}

static int map_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct moat_window *w = file->private_data;
	struct window_map *map;

	if (!(vma->vm_flags & VM_SHARED) || (vma->vm_flags & VM_EXEC))
		return -EPERM;
	if (vma->vm_pgoff >= w->pages || vma_pages(vma) > w->pages - vma->vm_pgoff)
		return -EINVAL;
	map = kzalloc(sizeof(*map), GFP_KERNEL_ACCOUNT);
	if (!map)
		return -ENOMEM;
	map->window = w;
	map->vma = vma;
	map->mm = vma->vm_mm;
	if (!map_add(w, map)) {
		kfree(map);
		return -ENOSPC;
	}
	mmgrab(map->mm);
	moat_vma_flags(vma, VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP, VM_MAYEXEC);
	vma->vm_private_data = map;
	vma->vm_ops = &map_ops;
	return 0;
}

/* The pages from first to end go into a mapping. Those that do not, do when they are touched. */
static void map_fill(struct window_map *map, u32 first, u32 end)
{
	struct vm_area_struct *vma = map->vma;
	struct moat_window *w = map->window;
	unsigned long page, start = max_t(unsigned long, first, vma->vm_pgoff);

	down_read(&w->sem);
	for (page = start; page < min(end, vma->vm_pgoff + vma_pages(vma)); page++) {
		const struct window_entry *e = entry_find(w, page, false);

		if (e)
			entry_insert(vma, vma->vm_start + ((page - vma->vm_pgoff) << PAGE_SHIFT), e);
	}
	up_read(&w->sem);
}

/*
 * Nobody is waited for: whoever keeps his address space locked, to hold up those who grant, gets his
 * pages later.
 */
static void maps_fill(struct moat_window *w, u32 first, u32 end)
{
	struct window_map *map;

	mutex_lock(&w->maps_lock);
	list_for_each_entry(map, &w->maps, link) {
		if (!mmget_not_zero(map->mm))
			continue;
		if (mmap_read_trylock(map->mm)) {
			map_fill(map, first, end);
			mmap_read_unlock(map->mm);
		}
		mmput_async(map->mm);
	}
	mutex_unlock(&w->maps_lock);
}

int moat_window_get_page(struct mm_struct *mm, unsigned long hva, bool write, struct page **page)
{
	const struct window_entry *e = NULL;
	struct vm_area_struct *vma;
	struct window_map *map;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, hva);
	map = vma && vma->vm_ops == &map_ops ? vma->vm_private_data : NULL;
	if (map && (!write || (vma->vm_flags & VM_WRITE))) {
		down_read(&map->window->sem);
		e = entry_find(map->window, vma->vm_pgoff + ((hva - vma->vm_start) >> PAGE_SHIFT), write);
		if (e) {
			get_page(e->page);
			*page = e->page;
		}
		up_read(&map->window->sem);
	}
	mmap_read_unlock(mm);
	return e ? 0 : -EFAULT;
}

/* Revoking */

static void dirty_mark(struct moat_vm *vm, u64 gfn)
{
	const struct moat_slot *slot;
	int idx = srcu_read_lock(&vm->srcu);

	slot = moat_slot_find(srcu_dereference(vm->slots, &vm->srcu), gfn);
	if (slot && slot->dirty)
		set_bit(gfn - slot->gfn, slot->dirty);
	srcu_read_unlock(&vm->srcu, idx);
}

static void entry_clear(struct moat_window *w, struct window_entry *e)
{
	if (e->writable)
		dirty_mark(w->vm, e->gfn);
	unpin_user_pages_dirty_lock(&e->page, 1, e->writable);
	atomic64_dec(&w->vm->mm->pinned_vm);
	e->state = ENTRY_EMPTY;
}

/* Nobody can reach them any more when this returns. */
static void revoked_flush(struct moat_window *w, struct revoked *r)
{
	u32 page;

	lockdep_assert_held(&w->lock);
	if (r->first == r->end)
		return;
	unmap_mapping_range(&w->mapping, (loff_t)r->first << PAGE_SHIFT,
			    (loff_t)(r->end - r->first) << PAGE_SHIFT, 1);
	for (page = r->first; page < r->end; page++) {
		if (w->entry[page].state == ENTRY_LEAVING)
			entry_clear(w, &w->entry[page]);
		cond_resched();
	}
	r->first = r->end;
}

/* The pages' end has begun; it comes with the next revoked_flush(), by one flush for all that adjoin. */
static void revoke(struct moat_window *w, u32 first, u32 end, struct revoked *r)
{
	u32 page;

	if (r->end != first) {
		revoked_flush(w, r);
		r->first = first;
	}
	r->end = end;
	down_write(&w->sem);
	for (page = first; page < end; page++)
		if (w->entry[page].state == ENTRY_SHOWN)
			w->entry[page].state = ENTRY_LEAVING;
	up_write(&w->sem);
}

/* Granting */

/* Counted where the owner's other pinned memory is. */
static bool pins_count(struct moat_vm *vm, u32 pages)
{
	u64 limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(pages, &vm->mm->pinned_vm) <= limit || capable(CAP_IPC_LOCK))
		return true;
	atomic64_sub(pages, &vm->mm->pinned_vm);
	return false;
}

static long pages_pin(struct moat_vm *vm, unsigned long hva, u32 count, unsigned int flags,
		      struct page **pages)
{
	long r;

	if (vm->mm == current->mm)
		return pin_user_pages_fast(hva, count, flags, pages);
	if (!mmget_not_zero(vm->mm))
		return -EAGAIN;
	mmap_read_lock(vm->mm);
	r = moat_pin_remote(vm->mm, hva, count, flags, pages);
	mmap_read_unlock(vm->mm);
	mmput(vm->mm);
	return r;
}

static void pages_show(struct moat_window *w, u32 first, struct page **pages, u32 count, u64 gfn,
		       bool writable)
{
	u32 i;

	down_write(&w->sem);
	for (i = 0; i < count; i++)
		w->entry[first + i] = (struct window_entry) {
			.page = pages[i], .gfn = gfn + i, .state = ENTRY_SHOWN, .writable = writable,
		};
	up_write(&w->sem);
}

/*
 * Memory that can be written is pinned for writing, to be read too: it is the guest's own page then, and
 * stays so, not one that the guest's next write would replace.
 */
static long slot_grant(struct moat_window *w, const struct moat_window_change *c,
		       const struct moat_slot *slot)
{
	unsigned int flags = slot->flags & KVM_MEM_READONLY ? 0 : FOLL_WRITE;
	bool writable = c->op == MOAT_WINDOW_GRANT_WRITE;
	u64 gfn = c->gpa >> PAGE_SHIFT;
	struct page *pages[PIN_PIECE];
	u32 i, done = 0;
	long r;

	if (c->pages > slot->gfn + slot->npages - gfn || (writable && !flags))
		return -EFAULT;
	if (writable && w->vm->dirty_ring_bytes)	/* rings are of vCPUs */
		return -EOPNOTSUPP;
	while (done < c->pages) {
		r = pages_pin(w->vm, moat_slot_hva(slot, c->gpa) + ((u64)done << PAGE_SHIFT),
			      min_t(u32, c->pages - done, PIN_PIECE), flags, pages);
		if (r <= 0)
			return r == -EAGAIN ? r : -EFAULT;
		pages_show(w, c->page + done, pages, r, gfn + done, writable);
		done += r;
	}
	for (i = 0; writable && slot->dirty && i < done; i++)
		set_bit(gfn + i - slot->gfn, slot->dirty);
	return 0;
}

static long grant(struct moat_window *w, const struct moat_window_change *c)
{
	struct moat_vm *vm = w->vm;
	const struct moat_slot *slot;
	u32 page, end = c->page + c->pages;
	int idx;
	long r;

	for (page = c->page; page < end; page++)
		if (w->entry[page].state != ENTRY_EMPTY)
			return -EEXIST;
	if (!pins_count(vm, c->pages))
		return -ENOMEM;
	idx = srcu_read_lock(&vm->srcu);
	slot = moat_slot_find(srcu_dereference(vm->slots, &vm->srcu), c->gpa >> PAGE_SHIFT);
	r = slot ? slot_grant(w, c, slot) : -EFAULT;
	srcu_read_unlock(&vm->srcu, idx);
	if (!r) {
		maps_fill(w, c->page, end);
		return 0;
	}
	/* Those that were pinned before it failed; the count is theirs then. */
	for (page = c->page; page < end && w->entry[page].state == ENTRY_SHOWN; page++)
		;
	atomic64_sub(end - page, &vm->mm->pinned_vm);
	if (page > c->page) {
		struct revoked done = { 0 };

		revoke(w, c->page, page, &done);
		revoked_flush(w, &done);
	}
	return r;
}

static bool change_is_legal(const struct moat_window *w, const struct moat_window_change *c)
{
	if (c->op > MOAT_WINDOW_GRANT_WRITE || c->reserved || !PAGE_ALIGNED(c->gpa))
		return false;
	if (c->op == MOAT_WINDOW_REVOKE && c->gpa)
		return false;
	return c->page < w->pages && c->pages && c->pages <= w->pages - c->page;
}

static long change(struct moat_window *w, const struct moat_window_change *c, struct revoked *r)
{
	if (!change_is_legal(w, c))
		return -EINVAL;
	if (c->op == MOAT_WINDOW_REVOKE) {
		revoke(w, c->page, c->page + c->pages, r);
		return 0;
	}
	revoked_flush(w, r);
	return grant(w, c);
}

static long window_change(void *object, void *arg, unsigned long uarg)
{
	const struct moat_window_batch *batch = arg;
	struct moat_window_change *changes;
	struct moat_window *w = object;
	struct revoked revoked = { 0 };
	u32 done = 0;
	long r = 0;

	if (!batch->count || batch->count > MOAT_WINDOW_MAX_CHANGES || batch->reserved)
		return -EINVAL;
	changes = memdup_user(u64_to_user_ptr(batch->changes), batch->count * sizeof(*changes));
	if (IS_ERR(changes))
		return PTR_ERR(changes);
	while (done < batch->count && !fatal_signal_pending(current)) {
		r = change(w, &changes[done], &revoked);
		if (r)
			break;
		done++;
	}
	revoked_flush(w, &revoked);
	kfree(changes);
	return done ? done : r;
}

/* Life */

static const struct moat_ioctl window_ioctls[] = {
	{ MOAT_WINDOW_CHANGE, MOAT_LOCK_VM, window_change },
	{ }
};

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct moat_window *w = file->private_data;

	return moat_ioctl(window_ioctls, w, &w->lock, cmd, uarg);
}

static int control_release(struct inode *inode, struct file *file)
{
	struct moat_window *w = file->private_data;
	struct revoked all = { 0 };

	mutex_lock(&w->lock);
	revoke(w, 0, w->pages, &all);
	revoked_flush(w, &all);
	mutex_unlock(&w->lock);
	moat_vm_put(w->vm);
	window_put(w);
	return 0;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = control_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = control_release,
	.llseek = noop_llseek,
};

/* Who maps a file may want to know how long it is. */
static loff_t map_llseek(struct file *file, loff_t offset, int whence)
{
	struct moat_window *w = file->private_data;

	return fixed_size_llseek(file, offset, whence, (loff_t)w->pages << PAGE_SHIFT);
}

static int map_release(struct inode *inode, struct file *file)
{
	window_put(file->private_data);
	return 0;
}

static const struct file_operations map_fops = {
	.owner = THIS_MODULE,
	.mmap = map_mmap,
	.release = map_release,
	.llseek = map_llseek,
};

static struct moat_window *window_alloc(struct moat_vm *vm, u32 pages)
{
	struct moat_window *w = kzalloc(sizeof(*w), GFP_KERNEL_ACCOUNT);

	if (!w)
		return NULL;
	w->entry = kvcalloc(pages, sizeof(*w->entry), GFP_KERNEL_ACCOUNT);
	if (!w->entry) {
		kfree(w);
		return NULL;
	}
	refcount_set(&w->refs, 1);
	mutex_init(&w->lock);
	init_rwsem(&w->sem);
	mutex_init(&w->maps_lock);
	INIT_LIST_HEAD(&w->maps);
	address_space_init_once(&w->mapping);
	w->mapping.a_ops = &empty_aops;
	w->pages = pages;
	w->vm = vm;
	moat_vm_get(vm);
	return w;
}

/* Each of the two files has a reference. */
long moat_vm_create_window(void *object, void *arg, unsigned long uarg)
{
	struct moat_window_create *create = arg;
	struct file *control, *map;
	struct moat_window *w;

	if (!create->pages || create->pages > MOAT_WINDOW_MAX_PAGES || create->flags ||
	    create->reserved[0] || create->reserved[1])
		return -EINVAL;
	w = window_alloc(object, create->pages);
	if (!w)
		return -ENOMEM;
	create->control = moat_file_prepare("moat-window-control", &control_fops, w, O_RDWR, &control);
	if (create->control < 0) {
		moat_vm_put(w->vm);
		window_put(w);
		return create->control;
	}
	create->map = moat_file_prepare("moat-window", &map_fops, w, O_RDWR, &map);
	if (create->map < 0) {
		put_unused_fd(create->control);
		fput(control);
		return create->map;
	}
	refcount_inc(&w->refs);
	w->mapping.host = file_inode(map);
	map->f_mapping = &w->mapping;
	fd_install(create->control, control);
	fd_install(create->map, map);
	return 0;
}
