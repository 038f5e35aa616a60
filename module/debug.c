// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters for people, in debugfs: moat/<pid of the creator>-<number>/, and in it vcpu<id>/.
 * They are plain integers that their owner counts up; a reader may see one a little late.
 */
#include <linux/debugfs.h>
#include <linux/sched.h>

#include "moat.h"

static struct dentry *debug_root;

void moat_debug_init(void)
{
	debug_root = debugfs_create_dir("moat", NULL);
}

void moat_debug_exit(void)
{
	debugfs_remove(debug_root);
}

void moat_debug_vm_add(struct moat_vm *vm)
{
	struct moat_vm_stats *stats = &vm->stats;
	char name[32];

	snprintf(name, sizeof(name), "%d-%llu", task_tgid_nr(current), vm->number);
	vm->debugfs = debugfs_create_dir(name, debug_root);
	debugfs_create_u64("mmu_notifier", 0400, vm->debugfs, &stats->mmu_notifier);
	debugfs_create_u64("tlb_flushes", 0400, vm->debugfs, &stats->tlb_flushes);
	debugfs_create_u64("pages_4k", 0400, vm->debugfs, (u64 *)&vm->stage2.leaves[1]);
	debugfs_create_u64("pages_2m", 0400, vm->debugfs, (u64 *)&vm->stage2.leaves[2]);
	debugfs_create_u64("pages_1g", 0400, vm->debugfs, (u64 *)&vm->stage2.leaves[3]);
	debugfs_create_u64("tables", 0400, vm->debugfs, (u64 *)&vm->stage2.tables);
}

void moat_debug_vm_remove(struct moat_vm *vm)
{
	debugfs_remove(vm->debugfs);
}

void moat_debug_vcpu_add(struct moat_vcpu *vcpu)
{
	struct moat_vcpu_stats *stats = &vcpu->stats;
	struct dentry *dir;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	dir = debugfs_create_dir(name, vcpu->vm->debugfs);
	debugfs_create_u64("exits", 0400, dir, &stats->exits);
	debugfs_create_u64("slow_exits", 0400, dir, &stats->slow_exits);
	debugfs_create_u64("user_exits", 0400, dir, &stats->user_exits);
	debugfs_create_u64("faults", 0400, dir, &stats->faults);
	debugfs_create_u64("emulations", 0400, dir, &stats->emulations);
	debugfs_create_u64("injections", 0400, dir, &stats->injections);
	debugfs_create_u64("halts", 0400, dir, &stats->halts);
	debugfs_create_u64("polls", 0400, dir, &stats->polls);
	debugfs_create_u64("wakeups", 0400, dir, &stats->wakeups);
	debugfs_create_u64("kicks", 0400, dir, &stats->kicks);
}
