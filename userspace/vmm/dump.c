// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The file is: headers, a note NT_PRSTATUS for each vCPU, and all of memory, each region at its guest-physical
 * address. What was never touched is a hole in the file as it is in memory. A file may be slow: so this is a
 * thread of its own, and a file that never comes to its end harms only the dump.
 */
#include <elf.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/procfs.h>
#include <time.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/thread.h"
#include "userspace/vmm/dump.h"
#include "userspace/vmm/memory.h"
#include "userspace/vmm/vcpu.h"

#define DUMP_ALIGN	4096
#define DUMP_PIECE	(1 << 20)
#define DUMP_END_SECONDS 2

struct dump_note {
	Elf64_Nhdr head;
	char name[8];
	struct elf_prstatus status;
} __attribute__((packed));

static size_t dump_align(size_t size)
{
	return (size + DUMP_ALIGN - 1) & ~(size_t)(DUMP_ALIGN - 1);
}

/* Headers */

static void dump_set_segments(struct user_regs_struct *user, const struct kvm_sregs *sregs)
{
	user->cs = sregs->cs.selector;
	user->ss = sregs->ss.selector;
	user->ds = sregs->ds.selector;
	user->es = sregs->es.selector;
	user->fs = sregs->fs.selector;
	user->gs = sregs->gs.selector;
	user->fs_base = sregs->fs.base;
	user->gs_base = sregs->gs.base;
}

static int dump_fill_note(struct dump_note *note, const struct vcpu *vcpu)
{
	struct user_regs_struct user = { .orig_rax = -1 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		return -errno;
	user.rax = regs.rax;
	user.rbx = regs.rbx;
	user.rcx = regs.rcx;
	user.rdx = regs.rdx;
	user.rsi = regs.rsi;
	user.rdi = regs.rdi;
	user.rbp = regs.rbp;
	user.rsp = regs.rsp;
	user.r8 = regs.r8;
	user.r9 = regs.r9;
	user.r10 = regs.r10;
	user.r11 = regs.r11;
	user.r12 = regs.r12;
	user.r13 = regs.r13;
	user.r14 = regs.r14;
	user.r15 = regs.r15;
	user.rip = regs.rip;
	user.eflags = regs.rflags;
	dump_set_segments(&user, &sregs);
	*note = (struct dump_note){
		.head = { sizeof("CORE"), sizeof(note->status), NT_PRSTATUS }, .name = "CORE",
	};
	note->status.pr_pid = vcpu->id + 1;
	_Static_assert(sizeof(user) == sizeof(note->status.pr_reg), "the same by another name");
	memcpy(&note->status.pr_reg, &user, sizeof(user));
	return 0;
}

static void dump_fill_elf(Elf64_Ehdr *elf, unsigned int segments)
{
	*elf = (Elf64_Ehdr){
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
		.e_phoff = sizeof(*elf), .e_ehsize = sizeof(*elf),
		.e_phentsize = sizeof(Elf64_Phdr), .e_phnum = segments,
	};
}

static void dump_fill_segments(Elf64_Phdr *segment, const struct dump *dump, size_t notes_at,
			       size_t notes_size)
{
	uint64_t at = dump->head_size;

	*segment++ = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes_size, .p_align = 4,
	};
	for (unsigned int i = 0; i < dump->memory->map.count; i++) {
		const struct dev_region *region = &dump->memory->map.region[i];

		*segment++ = (Elf64_Phdr){
			.p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = at,
			.p_vaddr = region->gpa, .p_paddr = region->gpa,
			.p_filesz = region->size, .p_memsz = region->size, .p_align = DUMP_ALIGN,
		};
		at += region->size;
	}
}

static int dump_make_head(struct dump *dump, const struct vcpu *vcpu, unsigned int cpus)
{
	const unsigned int segments = 1 + dump->memory->map.count;
	const size_t notes_at = sizeof(Elf64_Ehdr) + segments * sizeof(Elf64_Phdr);
	const size_t notes_size = cpus * sizeof(struct dump_note);
	int err = 0;

	dump->head_size = dump_align(notes_at + notes_size);
	dump->head = calloc(1, dump->head_size);
	if (!dump->head)
		return -ENOMEM;
	dump_fill_elf(dump->head, segments);
	dump_fill_segments((Elf64_Phdr *)((char *)dump->head + sizeof(Elf64_Ehdr)), dump, notes_at,
			   notes_size);
	for (unsigned int i = 0; i < cpus && !err; i++) {
		struct dump_note note;

		err = dump_fill_note(&note, &vcpu[i]);
		memcpy((char *)dump->head + notes_at + i * sizeof(note), &note, sizeof(note));
	}
	return err;
}

/* Memory */

static int dump_write(struct dump *dump, const char *bytes, uint64_t len)
{
	int err = 0;

	while (len && !err) {
		const size_t piece = len < DUMP_PIECE ? len : DUMP_PIECE;

		if (__atomic_load_n(&dump->ends, __ATOMIC_SEQ_CST))
			return -ECANCELED;
		err = fd_write_full(dump->fd, bytes, piece);
		bytes += piece;
		len -= piece;
	}
	return err;
}

/* The next bytes that are no hole, from @at on and before @end: from *@at to *@ret_end. False: there are none. */
static bool dump_find_data(const struct memory *memory, uint64_t *at, uint64_t end,
			   uint64_t *ret_end)
{
	off_t from = lseek(memory->fd, *at, SEEK_DATA), to;

	if (from < 0 || (uint64_t)from >= end)
		return false;
	to = lseek(memory->fd, from, SEEK_HOLE);
	*at = from;
	*ret_end = to < 0 || (uint64_t)to > end ? end : (uint64_t)to;
	return true;
}

/* A region, which begins at @begin of the memory's file. */
static int dump_write_region(struct dump *dump, const struct dev_region *region, uint64_t begin)
{
	uint64_t at = begin, data_end;
	int err = 0;

	while (!err && dump_find_data(dump->memory, &at, begin + region->size, &data_end)) {
		if (lseek(dump->fd, dump->head_size + at, SEEK_SET) < 0)
			return -errno;
		err = dump_write(dump, (const char *)region->hva + (at - begin), data_end - at);
		at = data_end;
	}
	return err;
}

static void *dump_run(void *arg)
{
	struct dump *dump = arg;
	const struct dev_memory *map = &dump->memory->map;
	uint64_t begin = 0;
	int err = dump_write(dump, dump->head, dump->head_size);

	for (unsigned int i = 0; i < map->count && !err; i++) {
		err = dump_write_region(dump, &map->region[i], begin);
		begin += map->region[i].size;
	}
	dump->result = err;
	eventfd_write(dump->done.fd, 1);
	return NULL;
}

int dump_init(struct dump *dump)
{
	*dump = (struct dump){ .done = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) } };
	return dump->done.fd < 0 ? -errno : 0;
}

int dump_begin(struct dump *dump, const struct memory *memory, const struct vcpu *vcpu,
	       unsigned int cpus, int fd)
{
	int err;

	dump->memory = memory;
	dump->fd = fd;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	err = dump_make_head(dump, vcpu, cpus);
	if (!err && (ftruncate(fd, 0) || ftruncate(fd, dump->head_size + memory_size(memory))))
		err = -errno;
	if (!err)
		err = thread_start(&dump->thread, "dump", dump_run, dump);
	dump->running = !err;
	if (err)
		free(dump->head);
	return err;
}

int dump_end(struct dump *dump)
{
	fd_take_event(dump->done.fd);
	pthread_join(dump->thread, NULL);
	dump->running = false;
	free(dump->head);
	fd_close(dump->fd);
	return dump->result;
}

void dump_finish(struct dump *dump)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += DUMP_END_SECONDS;
	__atomic_store_n(&dump->ends, true, __ATOMIC_SEQ_CST);
	/* One that hangs in a write ends with the process. */
	if (dump->running && !pthread_timedjoin_np(dump->thread, NULL, &limit))
		fd_close(dump->fd);
	fd_close(dump->done.fd);
}
