// SPDX-License-Identifier: MIT OR GPL-2.0
/* PVH kernels made here, of 32 and 64 bits, and what can be wrong with them. */
#include <elf.h>

#include "userspace/lib/array.h"
#include "userspace/vmm/boot_test.h"

#define ENTRY		(TEST_BASE + 16)
#define BSS		0x3000
#define SECOND		(TEST_BASE + 0x10000)
#define INITRD		"an initial RAM disk"

/* Two segments, of which the second holds the notes too. */
struct image {
	Elf64_Ehdr header;
	Elf64_Phdr first;
	Elf64_Phdr second;
	Elf64_Phdr notes;
	struct {
		Elf64_Nhdr header;
		char name[8];
		char content[4];	/* and a byte of padding in it */
	} other;
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint64_t entry;
	} note;
	char text[64];
};

struct image32 {
	Elf32_Ehdr header;
	Elf32_Phdr program[2];
	struct {
		Elf32_Nhdr header;
		char name[4];
		uint32_t entry;
	} note;
	char text[64];
};

static const struct image good = {
	.header = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
		.e_entry = 0xffffffff81000000, .e_phoff = offsetof(struct image, first),
		.e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3,
	},
	.first = {
		.p_type = PT_LOAD, .p_offset = offsetof(struct image, text), .p_vaddr = 0xffffffff81000000,
		.p_paddr = TEST_BASE, .p_filesz = 64, .p_memsz = BSS,
	},
	.second = {
		.p_type = PT_LOAD, .p_offset = offsetof(struct image, other), .p_paddr = SECOND,
		.p_filesz = 32, .p_memsz = 32,
	},
	.notes = {
		.p_type = PT_NOTE, .p_offset = offsetof(struct image, other), .p_align = 4,
		.p_filesz = offsetof(struct image, text) - offsetof(struct image, other),
	},
	.other = {
		.header = { .n_namesz = 6, .n_descsz = 3, .n_type = 18 }, .name = "Linux", .content = "abc",
	},
	.note = {
		.header = { .n_namesz = 4, .n_descsz = 8, .n_type = 18 }, .name = "Xen", .entry = ENTRY,
	},
	.text = "the text of the kernel",
};

static const struct image32 good32 = {
	.header = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC, .e_machine = EM_386, .e_version = EV_CURRENT,
		.e_phoff = offsetof(struct image32, program), .e_ehsize = sizeof(Elf32_Ehdr),
		.e_phentsize = sizeof(Elf32_Phdr), .e_phnum = 2,
	},
	.program = {
		{
			.p_type = PT_LOAD, .p_offset = offsetof(struct image32, text),
			.p_paddr = TEST_BASE, .p_filesz = 64, .p_memsz = 64,
		}, {
			.p_type = PT_NOTE, .p_offset = offsetof(struct image32, note),
			.p_filesz = sizeof(good32.note),
		},
	},
	.note = {
		.header = { .n_namesz = 4, .n_descsz = 4, .n_type = 18 }, .name = "Xen", .entry = ENTRY,
	},
	.text = "the text of the kernel",
};

/* The start info, by the places that the ABI has for its parts. */
static uint64_t info(unsigned int offset, unsigned int size)
{
	uint64_t value = 0;

	memcpy(&value, test_at(test_entry.rbx + offset, size), size);
	return value;
}

static void test_entered(void)
{
	EXPECT(!test_load(&good, sizeof(good), INITRD, "quiet"));
	EXPECT(test_entry.rip == ENTRY && !test_entry.long_mode && test_entry.rbx < LAYOUT_LOW_END);
	EXPECT(test_holds(TEST_BASE, good.text, 64) && test_zero(TEST_BASE + 64, BSS - 64));
	EXPECT(test_holds(SECOND, &good.other, 32) && test_zero(SECOND + 32, 4096));
	EXPECT(!test_zero(LAYOUT_RESET_VECTOR, 8));
}

static void test_told(void)
{
	EXPECT(!test_load(&good, sizeof(good), INITRD, "quiet"));
	EXPECT(info(0, 4) == 0x336ec578 && info(4, 4) == 1 && info(8, 4) == 0);
	EXPECT(test_holds(info(24, 8), "quiet", 6));
	EXPECT(info(32, 8) == LAYOUT_ACPI);
	EXPECT(info(12, 4) == 1);
	EXPECT(test_holds(info(16, 8), (uint64_t[4]){
		TEST_MEMORY - 4096, strlen(INITRD), 0, 0 }, 32));
	EXPECT(test_holds(TEST_MEMORY - 4096, INITRD, strlen(INITRD)));
}

static void test_map(void)
{
	static const struct { uint64_t start, size; uint32_t type, reserved; } ranges[] = {
		{ 0, LAYOUT_LOW_END, 1, 0 },
		{ LAYOUT_LOW_END, LAYOUT_HIGH - LAYOUT_LOW_END, 2, 0 },
		{ LAYOUT_HIGH, TEST_MEMORY - LAYOUT_HIGH, 1, 0 },
		{ LAYOUT_ECAM, LAYOUT_ECAM_SIZE, 2, 0 },
	};

	EXPECT(!test_load(&good, sizeof(good), NULL, ""));
	EXPECT(info(48, 4) == ARRAY_SIZE(ranges));
	EXPECT(test_holds(info(40, 8), ranges, sizeof(ranges)));
	EXPECT(info(12, 4) == 0 && info(16, 8) == 0);
}

static void test_narrow(void)
{
	EXPECT(!test_load(&good32, sizeof(good32), NULL, ""));
	EXPECT(test_entry.rip == ENTRY && test_holds(TEST_BASE, good32.text, 64));
}

/* Notes with contents at multiples of 8, as p_align says. */
static void test_aligned_note(void)
{
	struct image image = good;

	image.notes.p_align = 8;
	image.notes.p_offset = offsetof(struct image, other.name);
	image.notes.p_filesz = 12 + 4 + 8;
	memcpy(&image.other.name, &good.note, image.notes.p_filesz);
	EXPECT(!test_load(&image, sizeof(image), NULL, "") && test_entry.rip == ENTRY);
	/* Its name is one byte longer, as it were: so its content is elsewhere, and it another one. */
	memcpy(&image.other.name, &(Elf64_Nhdr){ 5, 8, 18 }, sizeof(Elf64_Nhdr));
	EXPECT(test_load(&image, sizeof(image), NULL, "") == -ENOEXEC);
}

static void test_initrd(void)
{
	struct image image = good;

	image.first.p_memsz = TEST_MEMORY - TEST_BASE;
	image.second.p_paddr = LAYOUT_HIGH;
	EXPECT(test_load(&image, sizeof(image), INITRD, "") == -ENOMEM);
	image.first.p_memsz -= 4095;
	EXPECT(test_load(&image, sizeof(image), INITRD, "") == -ENOMEM);
	EXPECT(!test_load(&image, sizeof(image), "", "") && info(12, 4) == 0);
	image.first.p_memsz--;
	EXPECT(!test_load(&image, sizeof(image), INITRD, ""));
	EXPECT(test_holds(TEST_MEMORY - 4096, INITRD, strlen(INITRD)));
}

static void test_cmdline(void)
{
	const size_t most = LAYOUT_LOW_END - LAYOUT_CMDLINE - 1;
	char *cmdline = malloc(most + 2);

	memset(cmdline, 'x', most + 1);
	cmdline[most + 1] = '\0';
	EXPECT(test_load(&good, sizeof(good), NULL, cmdline) == -E2BIG);
	cmdline[most] = '\0';
	EXPECT(!test_load(&good, sizeof(good), NULL, cmdline));
	EXPECT(test_holds(LAYOUT_CMDLINE, cmdline, most + 1));
	EXPECT(test_zero(LAYOUT_LOW_END, LAYOUT_RESET_VECTOR - LAYOUT_LOW_END));
	free(cmdline);
}

#define BAD(what, member, value, err)	LIE(what, struct image, member, value, err)

static const struct lie lies[] = {
	BAD("no ELF", header.e_ident[0], 0x7e, -ENOEXEC),
	BAD("neither 32 nor 64 bits", header.e_ident[EI_CLASS], 3, -ENOEXEC),
	BAD("the other byte order", header.e_ident[EI_DATA], ELFDATA2MSB, -ENOEXEC),
	BAD("no version", header.e_ident[EI_VERSION], 0, -ENOEXEC),
	BAD("64 bits told to be 32", header.e_ident[EI_CLASS], ELFCLASS32, -ENOEXEC),
	BAD("another machine", header.e_machine, EM_AARCH64, -ENOEXEC),
	BAD("a shared object", header.e_type, ET_DYN, -ENOEXEC),
	BAD("short program headers", header.e_phentsize, sizeof(Elf32_Phdr), -ENOEXEC),
	BAD("program headers of no size", header.e_phentsize, 0, -ENOEXEC),
	BAD("no program headers", header.e_phnum, 0, -ENOEXEC),
	BAD("too many", header.e_phnum, 65, -ENOEXEC),
	BAD("as many as there are", header.e_phnum, 0xffff, -ENOEXEC),
	BAD("more than are in the file", header.e_phnum, 64, -ENOEXEC),
	BAD("beyond the file", header.e_phoff, sizeof(struct image), -ENOEXEC),
	BAD("that end beyond it", header.e_phoff, sizeof(struct image) - 1, -ENOEXEC),
	BAD("that wrap", header.e_phoff, ~0ULL, -ENOEXEC),
	BAD("that wrap, by their end", header.e_phoff, -3 * sizeof(Elf64_Phdr), -ENOEXEC),
	BAD("more bytes than memory", first.p_memsz, 63, -ENOEXEC),
	BAD("bytes and no memory", first.p_memsz, 0, -ENOEXEC),
	BAD("bytes beyond the file", first.p_offset, sizeof(struct image) - 63, -ENOEXEC),
	BAD("bytes from beyond the file", second.p_offset, sizeof(struct image) + 1, -ENOEXEC),
	BAD("bytes that wrap", first.p_offset, ~0ULL, -ENOEXEC),
	BAD("bytes that wrap, by their end", first.p_offset, -64, -ENOEXEC),
	BAD("more bytes than there are", first.p_filesz, 65, -ENOEXEC),
	BAD("bytes without end", first.p_filesz, ~0ULL, -ENOEXEC),
	BAD("over what the launcher needs", first.p_paddr, 0, -ENOEXEC),
	BAD("over its boot parameters", second.p_paddr, LAYOUT_BOOT_PARAMS, -ENOEXEC),
	BAD("over the last byte of it", first.p_paddr, LAYOUT_HIGH - 1, -ENOEXEC),
	BAD("behind memory", first.p_paddr, TEST_MEMORY, -ENOMEM),
	BAD("behind memory, by a byte", first.p_paddr, TEST_MEMORY - BSS + 1, -ENOMEM),
	BAD("in the hole", first.p_paddr, LAYOUT_HOLE, -ENOMEM),
	BAD("past it", first.p_paddr, LAYOUT_HOLE + 1ULL, -ENOEXEC),
	BAD("past 4 GiB", first.p_paddr, 1ULL << 32, -ENOEXEC),
	BAD("where it would wrap", first.p_paddr, -64ULL, -ENOEXEC),
	BAD("more than memory, by a byte", first.p_memsz, TEST_MEMORY - TEST_BASE + 1, -ENOMEM),
	BAD("memory into the hole", first.p_memsz, LAYOUT_HOLE, -ENOMEM),
	BAD("memory that wraps", first.p_memsz, ~0ULL, -ENOMEM),
	BAD("memory that wraps to its start", first.p_memsz, -(uint64_t)TEST_BASE, -ENOMEM),
	BAD("one on the other", second.p_paddr, TEST_BASE, -ENOEXEC),
	BAD("in the middle of it", second.p_paddr, TEST_BASE + 256, -ENOEXEC),
	BAD("over its last byte", second.p_paddr, TEST_BASE + BSS - 1, -ENOEXEC),
	BAD("over its first byte", second.p_paddr, TEST_BASE - 31, -ENOEXEC),
	BAD("nothing at the entry", first.p_type, PT_NULL, -ENOEXEC),
	BAD("notes beyond the file", notes.p_offset, sizeof(struct image) - 63, -ENOEXEC),
	BAD("notes that wrap", notes.p_offset, ~0ULL, -ENOEXEC),
	BAD("notes that wrap, by their end", notes.p_offset, -72ULL, -ENOEXEC),
	BAD("notes without end", notes.p_filesz, ~0ULL, -ENOEXEC),
	BAD("notes cut short", notes.p_filesz, offsetof(struct image, text) - 1 -
	    offsetof(struct image, other), -ENOEXEC),
	BAD("no notes", notes.p_filesz, 0, -ENOEXEC),
	BAD("no note segment", notes.p_type, PT_NULL, -ENOEXEC),
	BAD("a name without end before it", other.header.n_namesz, ~0U, -ENOEXEC),
	BAD("a name that leads back", other.header.n_namesz, -12U, -ENOEXEC),
	BAD("contents without end before it", other.header.n_descsz, ~0U, -ENOEXEC),
	BAD("contents that lead back", other.header.n_descsz, -20U, -ENOEXEC),
	BAD("a name that is another", note.name[0], 'X' + 1, -ENOEXEC),
	BAD("a name that goes on", note.name[3], 'o', -ENOEXEC),
	BAD("a name that is longer", note.header.n_namesz, 5, -ENOEXEC),
	BAD("another type", note.header.n_type, 17, -ENOEXEC),
	BAD("an address of no byte", note.header.n_descsz, 0, -ENOEXEC),
	BAD("an address of 5 bytes", note.header.n_descsz, 5, -ENOEXEC),
	BAD("an address of too many", note.header.n_descsz, 9, -ENOEXEC),
	BAD("an entry before the kernel", note.entry, TEST_BASE - 1, -ENOEXEC),
	BAD("an entry behind its bytes", note.entry, TEST_BASE + 64, -ENOEXEC),
	BAD("an entry past 4 GiB", note.entry, ENTRY + (1ULL << 32), -ENOEXEC),
	BAD("an entry in the launcher's own", note.entry, LAYOUT_RESET_VECTOR, -ENOEXEC),
	BAD("an entry at the end of all", note.entry, ~0ULL, -ENOEXEC),
};

#define BAD32(what, member, value, err)	LIE(what, struct image32, member, value, err)

static const struct lie lies32[] = {
	BAD32("beyond the file", header.e_phoff, ~0U, -ENOEXEC),
	BAD32("long program headers", header.e_phentsize, sizeof(Elf64_Phdr), -ENOEXEC),
	BAD32("more than are in the file", header.e_phnum, 64, -ENOEXEC),
	BAD32("bytes that wrap at 4 GiB", program[0].p_offset, -64U, -ENOEXEC),
	BAD32("memory that wraps at 4 GiB", program[0].p_memsz, -TEST_BASE, -ENOMEM),
	BAD32("where it would wrap", program[0].p_paddr, -64U, -ENOEXEC),
	BAD32("notes that wrap at 4 GiB", program[1].p_offset, -8U, -ENOEXEC),
	BAD32("an entry outside", note.entry, ~0U, -ENOEXEC),
};

static void test_refused(void)
{
	test_lies(&good, sizeof(good), lies, ARRAY_SIZE(lies));
}

static void test_refused32(void)
{
	test_lies(&good32, sizeof(good32), lies32, ARRAY_SIZE(lies32));
}

/* More notes than anybody has, all there in the file. */
static void test_many_notes(void)
{
	const size_t size = sizeof(good) + (16 << 10);
	struct image *image = calloc(1, size);

	*image = good;
	image->notes.p_filesz = 16 << 10;
	EXPECT(!test_load(image, size, NULL, ""));
	image->notes.p_filesz++;
	EXPECT(test_load(image, size, NULL, "") == -ENOEXEC);
	image->notes.p_filesz--;
	image->note.header.n_type++;
	EXPECT(test_load(image, size, NULL, "") == -ENOEXEC);
	free(image);
}

static void test_cut(void)
{
	test_cuts(&good, sizeof(good));
	test_cuts(&good32, sizeof(good32));
}

int main(void)
{
	static const struct unit_test tests[] = {
		{ "a kernel of 64 bits is loaded, and entered where its note says", test_entered },
		{ "it is told its command line, initrd and ACPI tables", test_told },
		{ "and what memory there is", test_map },
		{ "a kernel of 32 bits is", test_narrow },
		{ "a note that is aligned to 8 bytes is found", test_aligned_note },
		{ "an initrd that just fits is loaded, one that just does not is not", test_initrd },
		{ "the longest command line, and a longer one", test_cmdline },
		{ "each lie is refused before anything is loaded", test_refused },
		{ "each lie of 32 bits is, too", test_refused32 },
		{ "no more notes are read than a kernel has", test_many_notes },
		{ "a file cut short anywhere is refused", test_cut },
	};

	return test_main(tests, ARRAY_SIZE(tests));
}
