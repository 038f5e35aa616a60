// SPDX-License-Identifier: MIT OR GPL-2.0
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmctl/elf.h"

#define ELF_SEGMENTS_MAX	256
#define ELF_DYNAMIC_MAX		4096
#define ELF_STRING_MAX		PATH_MAX

/**
 * struct elf_file - a file while it is read
 * @strings: offset of the dynamic string table in the file, of @strings_size bytes
 */
struct elf_file {
	int fd;
	unsigned int segment_count;
	Elf64_Phdr segment[ELF_SEGMENTS_MAX];
	unsigned int dynamic_count;
	Elf64_Dyn dynamic[ELF_DYNAMIC_MAX];
	uint64_t strings;
	uint64_t strings_size;
};

static int elf_read_at(const struct elf_file *file, void *buf, size_t len, uint64_t offset)
{
	int err;

	if (offset > INT64_MAX - len)
		return -EINVAL;
	err = fd_pread_full(file->fd, buf, len, offset);
	return err == -ENODATA ? -EINVAL : err;
}

static int elf_read_header(struct elf_file *file)
{
	Elf64_Ehdr header;
	int err = fd_pread_full(file->fd, &header, sizeof(header), 0);

	if (err == -ENODATA || (!err && memcmp(header.e_ident, ELFMAG, SELFMAG)))
		return -ENOEXEC;
	if (err)
		return err;
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_machine != EM_X86_64)
		return -ENOTSUP;
	if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
		return -ENOEXEC;
	if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > ELF_SEGMENTS_MAX)
		return -EINVAL;
	file->segment_count = header.e_phnum;
	return elf_read_at(file, file->segment, header.e_phnum * sizeof(Elf64_Phdr),
			   header.e_phoff);
}

static const Elf64_Phdr *elf_segment(const struct elf_file *file, uint32_t type)
{
	for (unsigned int i = 0; i < file->segment_count; i++)
		if (file->segment[i].p_type == type)
			return &file->segment[i];
	return NULL;
}

/* A string of at most @room bytes at @offset, with its end. */
static int elf_read_string(const struct elf_file *file, uint64_t offset, uint64_t room, char **ret)
{
	char buf[ELF_STRING_MAX];
	size_t len = room < sizeof(buf) ? room : sizeof(buf);
	int err = elf_read_at(file, buf, len, offset);

	if (err)
		return err;
	if (strnlen(buf, len) == len)
		return -EINVAL;
	free(*ret);
	*ret = strdup(buf);
	return *ret ? 0 : -ENOMEM;
}

static int elf_read_interp(const struct elf_file *file, struct elf *elf)
{
	const Elf64_Phdr *segment = elf_segment(file, PT_INTERP);

	if (!segment)
		return 0;
	return elf_read_string(file, segment->p_offset, segment->p_filesz, &elf->interp);
}

/* Where in the file the byte is that is loaded at @address; and how many follow it there. */
static int elf_locate(const struct elf_file *file, uint64_t address, uint64_t *ret_offset,
		      uint64_t *ret_room)
{
	for (unsigned int i = 0; i < file->segment_count; i++) {
		const Elf64_Phdr *segment = &file->segment[i];

		if (segment->p_type != PT_LOAD || address < segment->p_vaddr ||
		    address - segment->p_vaddr >= segment->p_filesz)
			continue;
		if (segment->p_offset > INT64_MAX - segment->p_filesz)
			return -EINVAL;
		*ret_offset = segment->p_offset + (address - segment->p_vaddr);
		*ret_room = segment->p_filesz - (address - segment->p_vaddr);
		return 0;
	}
	return -EINVAL;
}

static int elf_read_dynamic(struct elf_file *file)
{
	const Elf64_Phdr *segment = elf_segment(file, PT_DYNAMIC);
	uint64_t room, address = 0, count;
	int err;

	if (!segment)
		return 0;
	count = segment->p_filesz / sizeof(Elf64_Dyn);
	if (count > ELF_DYNAMIC_MAX)
		return -EINVAL;
	err = elf_read_at(file, file->dynamic, count * sizeof(Elf64_Dyn), segment->p_offset);
	if (err)
		return err;
	for (; file->dynamic_count < count; file->dynamic_count++) {
		const Elf64_Dyn *entry = &file->dynamic[file->dynamic_count];

		if (entry->d_tag == DT_NULL)
			break;
		if (entry->d_tag == DT_STRTAB)
			address = entry->d_un.d_ptr;
		if (entry->d_tag == DT_STRSZ)
			file->strings_size = entry->d_un.d_val;
	}
	if (!address)
		return file->dynamic_count ? -EINVAL : 0;
	err = elf_locate(file, address, &file->strings, &room);
	if (!err && file->strings_size > room)
		err = -EINVAL;
	return err;
}

static int elf_read_entry(const struct elf_file *file, const Elf64_Dyn *entry, struct elf *elf)
{
	uint64_t at = entry->d_un.d_val;
	char **to;

	switch (entry->d_tag) {
	case DT_NEEDED:
		if (elf->needed_count == ELF_NEEDED_MAX)
			return -EINVAL;
		to = &elf->needed[elf->needed_count++];
		break;
	case DT_RPATH:
		to = &elf->rpath;
		break;
	case DT_RUNPATH:
		to = &elf->runpath;
		break;
	default:
		return 0;
	}
	if (at >= file->strings_size)
		return -EINVAL;
	return elf_read_string(file, file->strings + at, file->strings_size - at, to);
}

int elf_read(int fd, struct elf *ret)
{
	struct elf_file *file = calloc(1, sizeof(*file));
	struct elf elf = { 0 };
	int err;

	if (!file)
		return -ENOMEM;
	file->fd = fd;
	err = elf_read_header(file);
	if (!err)
		err = elf_read_interp(file, &elf);
	if (!err)
		err = elf_read_dynamic(file);
	for (unsigned int i = 0; !err && i < file->dynamic_count; i++)
		err = elf_read_entry(file, &file->dynamic[i], &elf);
	free(file);
	if (err)
		elf_free(&elf);
	else
		*ret = elf;
	return err;
}

void elf_free(struct elf *elf)
{
	free(elf->interp);
	free(elf->rpath);
	free(elf->runpath);
	for (unsigned int i = 0; i < elf->needed_count; i++)
		free(elf->needed[i]);
}
