// SPDX-License-Identifier: MIT OR GPL-2.0
/* The reader of programs: this one, pieces of it, and this one with bytes changed at random. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/fd.h"
#include "userspace/vmctl/elf.h"

#define PIECE		8192	/* the headers and, in most, the dynamic strings */
#define FUZZ_ROUNDS	20000

static uint8_t *image;
static uint64_t image_size;
static int copy;

static void read_image(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	EXPECT(fd >= 0 && !fd_size(fd, &image_size));
	image = malloc(image_size);
	EXPECT(!fd_pread_full(fd, image, image_size, 0));
	close(fd);
	copy = memfd_create("copy", 0);
	EXPECT(!fd_write_full(copy, image, image_size));
}

static void test_this_program(void)
{
	bool libc = false;
	struct elf elf;

	read_image();
	if (!EXPECT(!elf_read(copy, &elf)))
		return;
	EXPECT(elf.interp && strstr(elf.interp, "/ld-linux-x86-64.so.2"));
	for (unsigned int i = 0; i < elf.needed_count; i++)
		libc |= !strcmp(elf.needed[i], "libc.so.6");
	EXPECT(libc);
	elf_free(&elf);
}

static void test_no_program(void)
{
	int fd = memfd_create("none", 0);
	struct elf elf;

	EXPECT(elf_read(fd, &elf) == -ENOEXEC);
	EXPECT(!fd_write_full(fd, "#!/bin/sh\n", 10) && elf_read(fd, &elf) == -ENOEXEC);
	EXPECT(!fd_write_full(fd, image, 100) && elf_read(fd, &elf) == -ENOEXEC);
	close(fd);
	fd = memfd_create("32", 0);
	EXPECT(!fd_write_full(fd, image, PIECE) && pwrite(fd, "\1", 1, 4) == 1);
	EXPECT(elf_read(fd, &elf) == -ENOTSUP);
	close(fd);
}

/* Never whole, never read past its end. */
static void test_truncated(void)
{
	unsigned int refused = 0, rounds = 0;
	int fd = memfd_create("piece", 0);
	struct elf elf;

	EXPECT(!fd_write_full(fd, image, PIECE));
	for (off_t len = PIECE; len >= 0; len -= 13, rounds++) {
		EXPECT(!ftruncate(fd, len));
		if (elf_read(fd, &elf))
			refused++;
		else
			elf_free(&elf);
	}
	EXPECT(refused > rounds / 2);
	close(fd);
}

/* Where most of what is read lies; each change is undone, so that they do not pile up. */
static void test_random(void)
{
	unsigned int refused = 0, read = 0;
	struct elf elf;

	srandom(2);
	for (int round = 0; round < FUZZ_ROUNDS; round++) {
		off_t at[4];

		for (int i = 0; i < 4; i++) {
			uint8_t byte = random() % 2 ? random() : 0xff;

			at[i] = random() % (random() % 2 ? 0x400 : PIECE);
			EXPECT(pwrite(copy, &byte, 1, at[i]) == 1);
		}
		if (elf_read(copy, &elf)) {
			refused++;
		} else {
			read++;
			elf_free(&elf);
		}
		for (int i = 0; i < 4; i++)
			EXPECT(pwrite(copy, image + at[i], 1, at[i]) == 1);
	}
	EXPECT(refused > FUZZ_ROUNDS / 100 && read > FUZZ_ROUNDS / 100);
	EXPECT(!elf_read(copy, &elf));
	elf_free(&elf);
	free(image);
	close(copy);
}

static const struct unit_test tests[] = {
	{ "this program", test_this_program },
	{ "what is no program", test_no_program },
	{ "truncated programs", test_truncated },
	{ "changed programs", test_random },
};

int main(void)
{
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
