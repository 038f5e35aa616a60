// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters: for people in debugfs, moat/<pid of the creator>-<number>/ and in it vcpu<id>/; for
 * programs through KVM_GET_STATS_FD. They are plain integers, and nobody waits for another to count
 * them up: one may be a little late, or a little low.
 *
 * What such a descriptor reads is a header, an identity, a description of each counter and their
 * values, made anew at each read.
 */
#include <linux/anon_inodes.h>
#include <linux/debugfs.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/sched.h>

#include "moat.h"

#define NAME_SIZE 48

struct stat_row {
	const char *name;
	u32 offset;		/* in the object */
	u32 flags;		/* KVM_STATS_* */
};

#define VM_STAT(name, member) { name, offsetof(struct moat_vm, member), KVM_STATS_TYPE_CUMULATIVE }
#define VM_LEVEL(name, member) { name, offsetof(struct moat_vm, member), KVM_STATS_TYPE_INSTANT }
#define VCPU_STAT(member) \
	{ #member, offsetof(struct moat_vcpu, stats.member), KVM_STATS_TYPE_CUMULATIVE }

static const struct stat_row vm_stats[] = {
	VM_STAT("mmu_notifier", stats.mmu_notifier),
	VM_STAT("tlb_flushes", stats.tlb_flushes),
	VM_LEVEL("pages_4k", stage2.leaves[1]),
	VM_LEVEL("pages_2m", stage2.leaves[2]),
	VM_LEVEL("pages_1g", stage2.leaves[3]),
	VM_LEVEL("tables", stage2.tables),
};

static const struct stat_row vcpu_stats[] = {
	VCPU_STAT(exits), VCPU_STAT(slow_exits), VCPU_STAT(user_exits), VCPU_STAT(faults),
	VCPU_STAT(emulations), VCPU_STAT(injections), VCPU_STAT(halts), VCPU_STAT(polls),
	VCPU_STAT(wakeups), VCPU_STAT(kicks),
};

/* For people */

static struct dentry *stats_root;

void moat_stats_init(void)
{
	stats_root = debugfs_create_dir("moat", NULL);
}

void moat_stats_exit(void)
{
	debugfs_remove(stats_root);
}

static void stats_show(struct dentry *dir, void *object, const struct stat_row *rows, u32 count)
{
	for (; count--; rows++)
		debugfs_create_u64(rows->name, 0400, dir, object + rows->offset);
}

void moat_stats_vm_add(struct moat_vm *vm)
{
	char name[32];

	snprintf(name, sizeof(name), "%d-%llu", task_tgid_nr(current), vm->number);
	vm->debugfs = debugfs_create_dir(name, stats_root);
	stats_show(vm->debugfs, vm, vm_stats, ARRAY_SIZE(vm_stats));
}

void moat_stats_vcpu_add(struct moat_vcpu *vcpu)
{
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	stats_show(debugfs_create_dir(name, vcpu->vm->debugfs), vcpu, vcpu_stats,
		   ARRAY_SIZE(vcpu_stats));
}

/* For programs */

struct stats_file {
	struct moat_vm *vm;		/* a reference */
	const void *object;
	const struct stat_row *rows;
	u32 count;
	char id[NAME_SIZE];
};

/* struct kvm_stats_desc, which in newer kernels has a name of another length. */
struct stats_desc {
	u32 flags;
	s16 exponent;
	u16 size;
	u32 offset;
	u32 bucket_size;
	char name[NAME_SIZE];
};

struct stats_image {
	struct kvm_stats_header header;
	char id[NAME_SIZE];
	struct stats_desc desc[];	/* and then the values */
};

static_assert(offsetof(struct stats_desc, name) == offsetof(struct kvm_stats_desc, name));
static_assert(offsetof(struct stats_image, desc) % sizeof(u64) == 0);

static void image_fill(struct stats_image *image, const struct stats_file *stats)
{
	u64 *value = (u64 *)&image->desc[stats->count];
	u32 i;

	image->header = (struct kvm_stats_header) {
		.name_size = NAME_SIZE,
		.num_desc = stats->count,
		.id_offset = offsetof(struct stats_image, id),
		.desc_offset = offsetof(struct stats_image, desc),
		.data_offset = (void *)value - (void *)image,
	};
	memcpy(image->id, stats->id, NAME_SIZE);
	for (i = 0; i < stats->count; i++) {
		image->desc[i].flags = stats->rows[i].flags;
		image->desc[i].size = 1;
		image->desc[i].offset = i * sizeof(*value);
		strscpy(image->desc[i].name, stats->rows[i].name, NAME_SIZE);
		value[i] = READ_ONCE(*(const u64 *)(stats->object + stats->rows[i].offset));
	}
}

static ssize_t stats_read(struct file *file, char __user *user, size_t len, loff_t *pos)
{
	const struct stats_file *stats = file->private_data;
	size_t size = sizeof(struct stats_image) +
		      stats->count * (sizeof(struct stats_desc) + sizeof(u64));
	struct stats_image *image = kzalloc(size, GFP_KERNEL_ACCOUNT);
	ssize_t r;

	if (!image)
		return -ENOMEM;
	image_fill(image, stats);
	r = simple_read_from_buffer(user, len, pos, image, size);
	kfree(image);
	return r;
}

static int stats_release(struct inode *inode, struct file *file)
{
	struct stats_file *stats = file->private_data;

	moat_vm_put(stats->vm);
	kfree(stats);
	return 0;
}

static const struct file_operations stats_fops = {
	.owner = THIS_MODULE,
	.read = stats_read,
	.release = stats_release,
	.llseek = noop_llseek,
};

static long stats_open(const struct stats_file *as)
{
	struct stats_file *stats = kmemdup(as, sizeof(*as), GFP_KERNEL_ACCOUNT);
	struct file *file;
	int fd;

	if (!stats)
		return -ENOMEM;
	fd = moat_file_prepare("moat-stats", &stats_fops, stats, O_RDONLY, &file);
	if (fd < 0) {
		kfree(stats);
		return fd;
	}
	file->f_mode |= FMODE_PREAD;
	moat_vm_get(stats->vm);
	fd_install(fd, file);
	return fd;
}

long moat_vm_get_stats_fd(void *object, void *arg, unsigned long uarg)
{
	struct moat_vm *vm = object;
	struct stats_file stats = {
		.vm = vm, .object = vm, .rows = vm_stats, .count = ARRAY_SIZE(vm_stats),
	};

	snprintf(stats.id, NAME_SIZE, "kvm-%llu", vm->number);
	return stats_open(&stats);
}

long moat_vcpu_get_stats_fd(void *object, void *arg, unsigned long uarg)
{
	struct moat_vcpu *vcpu = object;
	struct stats_file stats = {
		.vm = vcpu->vm, .object = vcpu, .rows = vcpu_stats,
		.count = ARRAY_SIZE(vcpu_stats),
	};

	snprintf(stats.id, NAME_SIZE, "kvm-%llu/vcpu-%u", vcpu->vm->number, vcpu->id);
	return stats_open(&stats);
}
