// SPDX-License-Identifier: MIT OR GPL-2.0
/* Loading kernels made here, good ones and bad ones, from memory files. */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userspace/vmm/boot.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define TEST_MEMORY	(64 << 20)
#define TEST_BASE	0x1000000
#define TEST_INIT_SIZE	(8 << 20)
#define TEST_SIZE	(2 * 512 + 4096)	/* a boot sector, a setup sector, and the rest */

static unsigned int checks, failures;

static void check(bool good, const char *what)
{
	checks++;
	failures += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", checks, what);
}

static void test_header(struct setup_header *header)
{
	*header = (struct setup_header){
		.setup_sects = 1, .boot_flag = 0xaa55, .header = 0x53726448, .version = 0x020f,
		.jump = 0x6aeb, .loadflags = LOADED_HIGH, .xloadflags = XLF_KERNEL_64,
		.initrd_addr_max = 0x7fffffff, .cmdline_size = 2047,
		.pref_address = TEST_BASE, .init_size = TEST_INIT_SIZE,
	};
}

/* A file of @size bytes that starts like a bzImage with this header; its path. */
static const char *test_file(const struct setup_header *header, size_t size)
{
	static char path[32];
	char image[TEST_SIZE];
	int fd = memfd_create("image", 0);

	memset(image, 'k', sizeof(image));
	memcpy(image + offsetof(struct boot_params, hdr), header, sizeof(*header));
	if (fd < 0 || write(fd, image, size < sizeof(image) ? size : sizeof(image)) < 0 ||
	    ftruncate(fd, size))
		exit(1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static struct memory memory;

static int test_load(const struct setup_header *header, size_t size, const char *initrd,
		     const char *cmdline)
{
	struct boot_image image = {
		.kernel = { .path = test_file(header, size) }, .initrd = { .path = initrd },
		.cmdline = cmdline, .acpi_rsdp = LAYOUT_ACPI,
	};
	struct boot_entry entry = { 0 };
	int err = boot_open(&image);

	if (!err)
		err = boot_load(&memory, &image, &entry);
	boot_close(&image);

	check(err || (entry.rip == TEST_BASE + 0x200 && entry.rsi == LAYOUT_BOOT_PARAMS),
	      "no entry but the right one");
	check(err || (entry.long_mode && !entry.rax && !entry.rbx), "in long mode");
	close(atoi(image.kernel.path + strlen("/proc/self/fd/")));
	return err;
}

static void test_good(void)
{
	struct setup_header header;
	struct boot_params *params = memory_at(&memory, LAYOUT_BOOT_PARAMS, sizeof(*params));
	char initrd[32], *kernel = memory_at(&memory, TEST_BASE, 4096);
	int fd = memfd_create("initrd", 0);

	test_header(&header);
	if (fd < 0 || pwrite(fd, "end", 3, 10000) != 3)
		exit(1);
	snprintf(initrd, sizeof(initrd), "/proc/self/fd/%d", fd);
	check(!test_load(&header, TEST_SIZE, initrd, "quiet"), "a good kernel is loaded");
	check(kernel[0] == 'k' && kernel[4095] == 'k', "where it prefers");
	check(!strcmp(memory_at(&memory, params->hdr.cmd_line_ptr, 6), "quiet"),
	      "its command line");
	check(params->hdr.ramdisk_size == 10003 &&
	      params->hdr.ramdisk_image + 12288 == TEST_MEMORY &&
	      !memcmp(memory_at(&memory, params->hdr.ramdisk_image + 10000, 3), "end", 3),
	      "its initrd at the top of memory");
	check(params->acpi_rsdp_addr == LAYOUT_ACPI, "the ACPI tables");
	check(params->e820_entries == 4 && params->e820_table[2].addr == LAYOUT_HIGH &&
	      params->e820_table[2].size == TEST_MEMORY - LAYOUT_HIGH, "the memory map");
	header.initrd_addr_max = TEST_BASE + TEST_INIT_SIZE + 3 * 4096 - 1;
	check(!test_load(&header, TEST_SIZE, initrd, "") &&
	      params->hdr.ramdisk_image == TEST_BASE + TEST_INIT_SIZE, "an initrd that just fits");
	header.initrd_addr_max--;
	check(test_load(&header, TEST_SIZE, initrd, "") == -ENOMEM, "and one that just does not");
	close(fd);
}

/* One thing wrong in each. */
static void test_bad(void)
{
	struct setup_header good, header;
	char cmdline[4096];

	memset(cmdline, 'x', sizeof(cmdline));
	cmdline[2048] = '\0';
	test_header(&good);
	check(test_load(&good, TEST_SIZE, NULL, cmdline) == -E2BIG, "a command line too long");
	cmdline[2047] = '\0';
	check(!test_load(&good, TEST_SIZE, NULL, cmdline), "the longest one");
	check(test_load(&good, TEST_SIZE, "/nonexistent", "") == -ENOENT, "no initrd");
	check(test_load(&good, 100, NULL, "") == -ENOEXEC, "no room for a header");
	check(test_load(&good, 1024, NULL, "") == -ENOEXEC, "nothing behind the header");
	check(test_load(&good, 1024 + 512, NULL, "") == -ENOEXEC, "nothing at its entry");
	check(test_load(&good, 1 << 30, NULL, "") == -ENOMEM, "larger than memory");
	header = good;
	header.header = 0;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOEXEC, "no magic");
	header = good;
	header.version = 0x020b;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOEXEC, "a protocol too old");
	header = good;
	header.xloadflags = 0;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOEXEC, "a 32-bit kernel");
	header = good;
	header.init_size = TEST_MEMORY - TEST_BASE + 1;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOMEM, "too little memory, by a byte");
	header = good;
	header.init_size = 0xffffffff;
	header.pref_address = ~0ULL;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOEXEC, "an address that wraps");
	header.pref_address = 0;
	check(test_load(&header, TEST_SIZE, NULL, "") == -ENOEXEC, "an address over the tables");
}

int main(void)
{
	if (memory_init(&memory, TEST_MEMORY))
		return 1;
	test_good();
	test_bad();
	memory_finish(&memory);
	printf("1..%u\n", checks);
	return failures ? 1 : 0;
}
