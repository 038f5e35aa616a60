// SPDX-License-Identifier: MIT OR GPL-2.0
/* Multiboot kernels made here, ELF and flat ones, and what can be wrong with them. */
#include <elf.h>

#include "userspace/lib/array.h"
#include "userspace/vmm/boot_test.h"

#define MAGIC		0x1badb002
#define ASKS		3U
#define ADDRESSES	(1U << 16)
#define SEARCHED	8192
#define INITRD		"an initial RAM disk"
#define VIRTUAL		0xc0200000

struct header {
	uint32_t magic, flags, checksum;
	uint32_t header, load, load_end, bss_end, entry;
};

/* Some bytes that are not loaded, then the header, then what the kernel is. */
struct flat {
	char before[32];
	char start[16];
	struct header header;
	char text[64];
};

/* It starts with what is before its header: that is at TEST_BASE. */
#define FLAT_ADDRESS(member) (TEST_BASE + offsetof(struct flat, member) - offsetof(struct flat, start))

static const struct flat flat = {
	.start = "before it",
	.header = {
		.magic = MAGIC, .flags = ASKS | ADDRESSES, .checksum = -(MAGIC + (ASKS | ADDRESSES)),
		.header = FLAT_ADDRESS(header), .load = TEST_BASE,
		.load_end = FLAT_ADDRESS(text) + 60, .bss_end = TEST_BASE + 0x1000,
		.entry = FLAT_ADDRESS(text),
	},
	.text = "text of a flat kernel",
};

#define FLAT_LOADED	(flat.header.load_end - TEST_BASE)

struct elf {
	Elf32_Ehdr elf;
	Elf32_Phdr program;
	uint32_t header[3];
	char text[64];
};

static const struct elf good_elf = {
	.elf = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC, .e_machine = EM_386, .e_version = EV_CURRENT,
		.e_entry = VIRTUAL + 16, .e_phoff = offsetof(struct elf, program),
		.e_ehsize = sizeof(Elf32_Ehdr), .e_phentsize = sizeof(Elf32_Phdr), .e_phnum = 1,
	},
	.program = {
		.p_type = PT_LOAD, .p_offset = offsetof(struct elf, text), .p_vaddr = VIRTUAL,
		.p_paddr = TEST_BASE, .p_filesz = 64, .p_memsz = 128,
	},
	.header = { MAGIC, ASKS, -(MAGIC + ASKS) },
	.text = "text of an ELF kernel",
};

/* What the kernel is told, by the places that the specification has for it. */
static uint32_t told(unsigned int offset)
{
	uint32_t value;

	memcpy(&value, test_at(test_entry.rbx + offset, sizeof(value)), sizeof(value));
	return value;
}

static void test_flat(void)
{
	EXPECT(!test_load(&flat, sizeof(flat), NULL, ""));
	EXPECT(test_entry.rip == FLAT_ADDRESS(text) && test_entry.rax == 0x2badb002);
	EXPECT(!test_entry.long_mode && test_entry.rbx < LAYOUT_LOW_END);
	EXPECT(test_holds(TEST_BASE, flat.start, FLAT_LOADED));
	EXPECT(test_zero(TEST_BASE + FLAT_LOADED, 0x1000));
}

/* No end of its bytes is the file's, no end of its memory that of its bytes. */
static void test_flat_open(void)
{
	struct flat image = flat;

	image.header.load_end = 0;
	EXPECT(!test_load(&image, sizeof(image), NULL, ""));
	EXPECT(test_holds(TEST_BASE, image.start, sizeof(image) - 32));
	image.header.bss_end = 0;
	EXPECT(!test_load(&image, sizeof(image), NULL, ""));
	EXPECT(test_holds(TEST_BASE, image.start, sizeof(image) - 32));
}

static void test_elf(void)
{
	EXPECT(!test_load(&good_elf, sizeof(good_elf), NULL, ""));
	EXPECT(test_entry.rip == TEST_BASE + 16 && test_entry.rax == 0x2badb002);
	EXPECT(test_holds(TEST_BASE, good_elf.text, 64) && test_zero(TEST_BASE + 64, 4096));
}

static void test_elf_physical_entry(void)
{
	struct elf image = good_elf;

	image.elf.e_entry = TEST_BASE + 63;
	EXPECT(!test_load(&image, sizeof(image), NULL, "") && test_entry.rip == TEST_BASE + 63);
}

static void test_elf64(void)
{
	struct {
		Elf64_Ehdr elf;
		Elf64_Phdr program;
		uint32_t header[3];
		char text[64];
	} image = {
		.elf = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_entry = ~0ULL - 63,
			.e_phoff = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
		},
		.program = {
			.p_type = PT_LOAD, .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + 12,
			.p_vaddr = ~0ULL - 63, .p_paddr = TEST_BASE, .p_filesz = 64, .p_memsz = 64,
		},
		.header = { MAGIC, ASKS, -(MAGIC + ASKS) },
		.text = "text of 64 bits",
	};

	EXPECT(!test_load(&image, sizeof(image), NULL, "") && test_entry.rip == TEST_BASE);
	EXPECT(test_holds(TEST_BASE, image.text, 64));
}

/* Its addresses count for more than ELF's. */
static void test_elf_addresses(void)
{
	struct { struct elf elf; struct flat flat; } image = { good_elf, flat };

	image.elf.header[0] = 0;
	EXPECT(!test_load(&image, sizeof(image), NULL, ""));
	EXPECT(test_entry.rip == FLAT_ADDRESS(text) && test_holds(TEST_BASE, flat.start, FLAT_LOADED));
}

static void test_told(void)
{
	const uint32_t module[4] = { TEST_MEMORY - 4096, TEST_MEMORY - 4096 + strlen(INITRD) };

	EXPECT(!test_load(&flat, sizeof(flat), INITRD, "a=1 b"));
	EXPECT(told(0) == (1 << 0 | 1 << 2 | 1 << 3 | 1 << 6));
	EXPECT(told(4) == 639 && told(8) == (TEST_MEMORY >> 10) - 1024);
	EXPECT(test_holds(told(16), "a=1 b", 6));
	EXPECT(told(20) == 1 && test_holds(told(24), module, 8));
	EXPECT(*(char *)test_at(*(uint32_t *)test_at(told(24) + 8, 4), 1) == '\0');
	EXPECT(test_holds(module[0], INITRD, strlen(INITRD)));
	EXPECT(!test_load(&flat, sizeof(flat), NULL, "") && told(20) == 0);
}

static void test_map(void)
{
	static const struct {
		uint32_t rest;
		uint64_t start, size;
		uint32_t type;
	} __attribute__((packed)) ranges[] = {
		{ 20, 0, LAYOUT_LOW_END, 1 },
		{ 20, LAYOUT_LOW_END, LAYOUT_HIGH - LAYOUT_LOW_END, 2 },
		{ 20, LAYOUT_HIGH, TEST_MEMORY - LAYOUT_HIGH, 1 },
		{ 20, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, 2 },
	};

	EXPECT(!test_load(&flat, sizeof(flat), NULL, ""));
	EXPECT(told(44) == sizeof(ranges) && test_holds(told(48), ranges, sizeof(ranges)));
}

/* A header whose last byte is at @end; the kernel is it and nothing else. */
static int load_with_header_at(size_t end, size_t size)
{
	struct header header = flat.header;
	char *image = calloc(1, size);
	int err;

	header.header = header.load = header.entry = TEST_BASE;
	header.load_end = header.bss_end = 0;
	memcpy(image + end - sizeof(header), &header, sizeof(header));
	err = test_load(image, size, NULL, "");
	free(image);
	return err;
}

static void test_search(void)
{
	EXPECT(!load_with_header_at(SEARCHED, 2 * SEARCHED));
	EXPECT(load_with_header_at(SEARCHED + 4, 2 * SEARCHED) == -ENOEXEC);
	EXPECT(load_with_header_at(SEARCHED - 2, 2 * SEARCHED) == -ENOEXEC);
	EXPECT(!load_with_header_at(36, 36));
	EXPECT(!load_with_header_at(36, 39));
}

/* What looks like a header by chance. */
static void test_decoy(void)
{
	struct flat image = flat;
	const uint32_t decoy[4] = { MAGIC, ASKS, 1, MAGIC };

	memcpy(image.before, decoy, sizeof(decoy));
	EXPECT(!test_load(&image, sizeof(image), NULL, "") && test_entry.rip == FLAT_ADDRESS(text));
}

/* Each of the lower half's that is not known has to be refused; those of the upper are to be passed over. */
static void test_flags(void)
{
	for (unsigned int bit = 0; bit < 32; bit++) {
		struct flat image = flat;

		image.header.flags = 1U << bit | ADDRESSES;
		image.header.checksum = -(MAGIC + image.header.flags);
		EXPECT(test_load(&image, sizeof(image), NULL, "") ==
		       (bit >= 2 && bit < 16 ? -ENOEXEC : 0));
	}
}

static void test_neither(void)
{
	struct flat image = flat;

	image.header.flags = ASKS;
	image.header.checksum = -(MAGIC + ASKS);
	EXPECT(test_load(&image, sizeof(image), NULL, "") == -ENOEXEC);
}

#define BAD(what, member, value, err)	LIE(what, struct flat, header.member, value, err)

static const struct lie lies[] = {
	BAD("no magic", magic, MAGIC + 1, -ENOEXEC),
	BAD("a wrong checksum", checksum, 0, -ENOEXEC),
	BAD("a header before its start", header, TEST_BASE - 1, -ENOEXEC),
	BAD("a start before the file's", header, TEST_BASE + 49, -ENOEXEC),
	BAD("a start far before it", header, ~0U, -ENOEXEC),
	BAD("a load address above it", load, FLAT_ADDRESS(header) + 1, -ENOEXEC),
	BAD("a load address of 0", load, 0, -ENOEXEC),
	BAD("the end of its bytes before their start", load_end, TEST_BASE - 1, -ENOEXEC),
	BAD("no bytes at all", load_end, TEST_BASE, -ENOEXEC),
	BAD("bytes beyond the file", load_end, FLAT_ADDRESS(text) + 65, -ENOEXEC),
	BAD("bytes without end", load_end, ~0U, -ENOEXEC),
	BAD("less memory than bytes", bss_end, FLAT_ADDRESS(text) + 59, -ENOEXEC),
	BAD("memory that ends before it starts", bss_end, 1, -ENOEXEC),
	BAD("more than memory, by a byte", bss_end, TEST_MEMORY + 1, -ENOMEM),
	BAD("memory into the hole", bss_end, ~0U, -ENOMEM),
	BAD("an entry before it", entry, TEST_BASE - 1, -ENOEXEC),
	BAD("an entry behind its bytes", entry, FLAT_ADDRESS(text) + 60, -ENOEXEC),
	BAD("an entry in the launcher's own", entry, LAYOUT_RESET_VECTOR, -ENOEXEC),
};

#define BAD_ELF(what, member, value, err)	LIE(what, struct elf, member, value, err)

static const struct lie elf_lies[] = {
	BAD_ELF("another machine", elf.e_machine, EM_ARM, -ENOEXEC),
	BAD_ELF("no checksum", header[2], 0, -ENOEXEC),
	BAD_ELF("nothing to load", program.p_type, PT_NULL, -ENOEXEC),
	BAD_ELF("over what the launcher needs", program.p_paddr, 0x7000, -ENOEXEC),
	BAD_ELF("behind memory", program.p_paddr, TEST_MEMORY - 127, -ENOMEM),
	BAD_ELF("less memory than bytes", program.p_memsz, 63, -ENOEXEC),
	BAD_ELF("bytes beyond the file", program.p_offset, sizeof(struct elf) - 63, -ENOEXEC),
	BAD_ELF("an entry outside", elf.e_entry, 0, -ENOEXEC),
	BAD_ELF("an entry behind its bytes", elf.e_entry, VIRTUAL + 64, -ENOEXEC),
	BAD_ELF("an entry where the launcher's own is", elf.e_entry, LAYOUT_GDT, -ENOEXEC),
};

/* The same address moved as a whole: so that the header is where it says. */
static void test_moved(void)
{
	static const struct { uint32_t base; int err; } moved[] = {
		{ LAYOUT_HIGH, 0 }, { LAYOUT_HIGH - 1, -ENOEXEC }, { 0, -ENOEXEC },
		{ LAYOUT_BOOT_PARAMS, -ENOEXEC }, { TEST_MEMORY - 0x1000, 0 },
		{ TEST_MEMORY - 0xfff, -ENOMEM }, { LAYOUT_HOLE, -ENOMEM },
		{ LAYOUT_HOLE + 1, -ENOEXEC }, { 0xffffe000, -ENOEXEC },
	};

	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		const uint32_t by = moved[i].base - TEST_BASE;
		struct flat image = flat;

		image.header.header += by;
		image.header.load += by;
		image.header.load_end += by;
		image.header.bss_end += by;
		image.header.entry += by;
		EXPECT(test_load(&image, sizeof(image), NULL, "") == moved[i].err);
		EXPECT(moved[i].err || test_holds(moved[i].base, flat.start, 16));
	}
}

static void test_refused(void)
{
	test_lies(&flat, sizeof(flat), lies, ARRAY_SIZE(lies));
	test_lies(&good_elf, sizeof(good_elf), elf_lies, ARRAY_SIZE(elf_lies));
}

static void test_cut(void)
{
	test_cuts(&flat, sizeof(flat) - 4);
	test_cuts(&good_elf, sizeof(good_elf));
}

int main(void)
{
	static const struct unit_test tests[] = {
		{ "a flat kernel is loaded where its header says", test_flat },
		{ "one that does not say where it ends", test_flat_open },
		{ "an ELF kernel is loaded by ELF's headers, and its entry translated", test_elf },
		{ "an entry that is a physical address already", test_elf_physical_entry },
		{ "an ELF kernel of 64 bits", test_elf64 },
		{ "addresses in the header count for more than ELF's", test_elf_addresses },
		{ "it is told its command line, module and memory", test_told },
		{ "and the map of memory", test_map },
		{ "a header is found in the first 8 KiB, at a multiple of 4, and not elsewhere", test_search },
		{ "what only looks like a header is passed over", test_decoy },
		{ "what a kernel asks for and does not get is refused", test_flags },
		{ "neither addresses nor ELF", test_neither },
		{ "where it may be loaded, and where not", test_moved },
		{ "each lie is refused before anything is loaded", test_refused },
		{ "a file cut short anywhere is refused", test_cut },
	};

	return test_main(tests, ARRAY_SIZE(tests));
}
