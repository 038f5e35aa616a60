// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/boot_parts.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define BOOT_PAGE	4096ULL

static unsigned long long boot_mib(uint64_t bytes)
{
	return (bytes >> 20) + !!(bytes & ((1 << 20) - 1));
}

int boot_refuse(const struct boot_file *file, const char *fault)
{
	log_error("kernel %s %s", file->path, fault);
	return -ENOEXEC;
}

int boot_read(const struct boot_file *file, void *to, size_t len, uint64_t offset)
{
	int err;

	if (offset > file->size || len > file->size - offset)
		return -ENODATA;
	err = fd_pread_full(file->fd, to, len, offset);
	if (err && err != -ENODATA)
		log_error("cannot read kernel %s: %s", file->path, strerror(-err));
	return err;
}

static int file_load(const struct boot_file *file, const char *what, const struct memory *memory,
		     uint64_t gpa, uint64_t len, uint64_t offset)
{
	int err = memory_load(memory, gpa, len, file->fd, offset);

	if (err)
		log_error("cannot read %s %s: %s", what, file->path,
			  err == -ENODATA ? "it is cut short" : strerror(-err));
	return err;
}

int boot_load_file(const struct memory *memory, const struct boot_file *file, uint64_t gpa,
		   uint64_t len, uint64_t offset)
{
	return file_load(file, "kernel", memory, gpa, len, offset);
}

int boot_check_room(const struct memory *memory, const struct boot_file *file, uint64_t base,
		    uint64_t room)
{
	if (base < LAYOUT_HIGH || base > LAYOUT_HOLE) {
		log_error("kernel %s wants to be loaded at %#llx, where no memory for it is",
			  file->path, (unsigned long long)base);
		return -ENOEXEC;
	}
	if (room > LAYOUT_HOLE - base) {
		log_error("kernel %s wants %llu MiB of memory from %#llx on, more than is there",
			  file->path, boot_mib(room), (unsigned long long)base);
		return -ENOMEM;
	}
	if (base + room > memory_low_end(memory)) {
		log_error("kernel %s needs at least %llu MiB of memory; give it more by --mem",
			  file->path, boot_mib(base + room));
		return -ENOMEM;
	}
	return 0;
}

static int boot_place_initrd(const struct memory *memory, const struct boot_file *file,
			     uint64_t start, uint64_t top, uint64_t *ret_base)
{
	if (top > memory_low_end(memory))
		top = memory_low_end(memory);
	start = (start + BOOT_PAGE - 1) & ~(BOOT_PAGE - 1);
	top &= ~(BOOT_PAGE - 1);
	if (start > top || file->size > top - start) {
		log_error("initrd %s does not fit beside the kernel; raise --mem to %lluM",
			  file->path, boot_mib(start + file->size));
		return -ENOMEM;
	}
	*ret_base = (top - file->size) & ~(BOOT_PAGE - 1);
	return 0;
}

int boot_load_initrd(const struct memory *memory, const struct boot_file *file, uint64_t start,
		     uint64_t top, struct boot_module *ret)
{
	uint64_t base;
	int err;

	*ret = (struct boot_module){ 0 };
	if (!file->path || !file->size)
		return 0;
	err = boot_place_initrd(memory, file, start, top, &base);
	if (!err)
		err = file_load(file, "initrd", memory, base, file->size, 0);
	if (!err)
		*ret = (struct boot_module){ .base = base, .size = file->size };
	return err;
}

int boot_set_cmdline(const struct memory *memory, const char *cmdline, size_t most)
{
	size_t len = strlen(cmdline);

	if (most > LAYOUT_LOW_END - LAYOUT_CMDLINE - 1)
		most = LAYOUT_LOW_END - LAYOUT_CMDLINE - 1;
	if (len > most) {
		log_error("the kernel's command line is %zu bytes long, %zu fit; shorten --append",
			  len, most);
		return -E2BIG;
	}
	memcpy(memory_at(memory, LAYOUT_CMDLINE, len + 1), cmdline, len + 1);
	return 0;
}

unsigned int boot_ranges(const struct memory *memory, struct boot_range *ranges)
{
	const uint64_t low_end = memory_low_end(memory);
	unsigned int count = 0;

	ranges[count++] = (struct boot_range){ 0, LAYOUT_LOW_END, BOOT_RAM };
	ranges[count++] = (struct boot_range){
		LAYOUT_LOW_END, LAYOUT_HIGH - LAYOUT_LOW_END, BOOT_RESERVED,
	};
	ranges[count++] = (struct boot_range){ LAYOUT_HIGH, low_end - LAYOUT_HIGH, BOOT_RAM };
	ranges[count++] = (struct boot_range){ LAYOUT_ECAM, LAYOUT_ECAM_SIZE, BOOT_RESERVED };
	for (unsigned int i = 1; i < memory->map.count && count < BOOT_RANGES; i++)
		ranges[count++] = (struct boot_range){
			memory->map.region[i].gpa, memory->map.region[i].size, BOOT_RAM,
		};
	return count;
}
