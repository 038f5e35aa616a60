// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * ELF (System V Application Binary Interface, "Object Files" and "Program Loading"): executables at
 * fixed addresses. Of these, the physical ones count.
 *
 * Notes are looked for in a file of anybody's, so there is a bound on how far: a kernel has a few
 * hundred bytes of them.
 */
#include <errno.h>
#include <string.h>

#include "userspace/vmm/boot_elf.h"
#include "userspace/vmm/boot_parts.h"

#define ELF_NOTES_MAX	(16 << 10)
#define ELF_NAME_MAX	8

static const char elf_cut_short[] = "is cut short";

/* Both forms of a header have the same names in them. */
#define elf_widen_header(from) ((Elf64_Ehdr){							\
	.e_type = (from)->e_type, .e_machine = (from)->e_machine, .e_entry = (from)->e_entry,	\
	.e_phoff = (from)->e_phoff, .e_phentsize = (from)->e_phentsize, .e_phnum = (from)->e_phnum })

#define elf_widen_program(from) ((Elf64_Phdr){							\
	.p_type = (from)->p_type, .p_offset = (from)->p_offset, .p_vaddr = (from)->p_vaddr,	\
	.p_paddr = (from)->p_paddr, .p_filesz = (from)->p_filesz, .p_memsz = (from)->p_memsz,	\
	.p_align = (from)->p_align })

static const char *elf_header_fault(const unsigned char *ident, const Elf64_Ehdr *header)
{
	const size_t entry = ident[EI_CLASS] == ELFCLASS32 ? sizeof(Elf32_Phdr) : sizeof(Elf64_Phdr);

	if (ident[EI_DATA] != ELFDATA2LSB || ident[EI_VERSION] != EV_CURRENT ||
	    (header->e_machine != EM_386 && header->e_machine != EM_X86_64))
		return "is an ELF file for another machine";
	if (header->e_type != ET_EXEC)
		return "is an ELF file, but no executable with fixed addresses";
	if (header->e_phentsize != entry)
		return "has program headers of a size that is none of ELF's";
	if (!header->e_phnum || header->e_phnum > BOOT_SEGMENTS)
		return "has no program headers, or more than 64";
	return NULL;
}

static int elf_read_header(Elf64_Ehdr *header, const unsigned char *ident,
			   const struct boot_file *file)
{
	union { Elf32_Ehdr narrow; Elf64_Ehdr wide; } raw;
	const bool narrow = ident[EI_CLASS] == ELFCLASS32;
	const char *fault;
	int err;

	if (!narrow && ident[EI_CLASS] != ELFCLASS64)
		return boot_refuse(file, "is an ELF file for neither 32 nor 64 bits");
	err = boot_read(file, &raw, narrow ? sizeof(raw.narrow) : sizeof(raw.wide), 0);
	if (err)
		return err == -ENODATA ? boot_refuse(file, elf_cut_short) : err;
	*header = narrow ? elf_widen_header(&raw.narrow) : elf_widen_header(&raw.wide);
	fault = elf_header_fault(ident, header);
	return fault ? boot_refuse(file, fault) : 0;
}

static int elf_read_programs(struct boot_elf *elf, bool narrow, const struct boot_file *file)
{
	const uint64_t offset = elf->header.e_phoff;
	const unsigned int count = elf->header.e_phnum;
	Elf32_Phdr raw[BOOT_SEGMENTS];
	int err;

	if (narrow)
		err = boot_read(file, raw, count * sizeof(*raw), offset);
	else
		err = boot_read(file, elf->program, count * sizeof(*elf->program), offset);
	if (err)
		return err == -ENODATA ? boot_refuse(file, elf_cut_short) : err;
	for (unsigned int i = 0; narrow && i < count; i++)
		elf->program[i] = elf_widen_program(&raw[i]);
	return 0;
}

int boot_elf_read(struct boot_elf *elf, const struct boot_file *file)
{
	unsigned char ident[EI_NIDENT];
	int err = boot_read(file, ident, sizeof(ident), 0);

	if (err)
		return err == -ENODATA ? BOOT_ANOTHER : err;
	if (memcmp(ident, ELFMAG, SELFMAG))
		return BOOT_ANOTHER;
	err = elf_read_header(&elf->header, ident, file);
	return err ? err : elf_read_programs(elf, ident[EI_CLASS] == ELFCLASS32, file);
}

void boot_elf_segments(const struct boot_elf *elf, struct boot_segments *ret)
{
	ret->count = 0;
	for (unsigned int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *program = &elf->program[i];

		if (program->p_type != PT_LOAD || (!program->p_memsz && !program->p_filesz))
			continue;
		ret->segment[ret->count++] = (struct boot_segment){
			.offset = program->p_offset, .size = program->p_filesz,
			.base = program->p_paddr, .room = program->p_memsz,
			.virt = program->p_vaddr,
		};
	}
}

static int elf_read_number(const struct boot_file *file, uint64_t offset, uint32_t size,
			   uint64_t *ret)
{
	uint64_t number = 0;
	int err;

	if (size != 4 && size != 8)
		return boot_refuse(file, "has a note with an address of neither 4 nor 8 bytes");
	err = boot_read(file, &number, size, offset);
	if (err)
		return err == -ENODATA ? boot_refuse(file, elf_cut_short) : err;
	*ret = number;
	return 0;
}

static uint64_t elf_round(uint64_t size, uint64_t align)
{
	return (size + align - 1) & ~(align - 1);
}

/* Names and contents are padded. Those that are longer than the rest of their segment are none. */
static int elf_find_note_in(const struct boot_file *file, const Elf64_Phdr *program,
			    const char *name, uint32_t type, uint64_t *ret)
{
	struct { Elf64_Nhdr header; char name[ELF_NAME_MAX]; } note;
	const uint64_t align = program->p_align == 8 ? 8 : 4;
	const size_t name_size = strlen(name) + 1, len = sizeof(note.header) + name_size;
	uint64_t at = 0, size = program->p_filesz;

	while (size - at >= len) {
		int err = boot_read(file, &note, len, program->p_offset + at);
		uint64_t content, end;

		if (err)
			return err == -ENODATA ? boot_refuse(file, elf_cut_short) : err;
		content = elf_round(at + sizeof(note.header) + note.header.n_namesz, align);
		end = content + note.header.n_descsz;
		if (end > size)
			break;
		if (note.header.n_type == type && note.header.n_namesz == name_size &&
		    !memcmp(note.name, name, name_size))
			return elf_read_number(file, program->p_offset + content,
					       note.header.n_descsz, ret);
		at = elf_round(end, align);
		if (at > size)
			break;
	}
	return BOOT_ANOTHER;
}

int boot_elf_find_note(const struct boot_elf *elf, const struct boot_file *file, const char *name,
		       uint32_t type, uint64_t *ret)
{
	int err = BOOT_ANOTHER;

	for (unsigned int i = 0; i < elf->header.e_phnum && err == BOOT_ANOTHER; i++) {
		const Elf64_Phdr *program = &elf->program[i];

		if (program->p_type != PT_NOTE)
			continue;
		if (program->p_offset > file->size ||
		    program->p_filesz > file->size - program->p_offset)
			return boot_refuse(file, elf_cut_short);
		if (program->p_filesz > ELF_NOTES_MAX)
			return boot_refuse(file, "has more than 16 KiB of notes");
		err = elf_find_note_in(file, program, name, type, ret);
	}
	return err;
}
