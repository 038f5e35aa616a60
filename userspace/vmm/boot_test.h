/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Kernels made by tests, good ones and their lies: changes of some bytes. */
#ifndef VMM_BOOT_TEST_H
#define VMM_BOOT_TEST_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#define TEST_MEMORY	(16 << 20)
#define TEST_BASE	0x200000

/* What is wrong in an image: @value in the @size bytes at @offset; and what becomes of it. */
struct lie {
	const char *what;
	size_t offset;
	size_t size;
	uint64_t value;
	int err;
};

#define LIE(what, image, member, value, err) \
	{ what, offsetof(image, member), sizeof(((image *)0)->member), value, err }

static struct memory test_memory;
static struct boot_entry test_entry;

static inline void *test_at(uint64_t gpa, uint64_t len)
{
	void *at = memory_at(&test_memory, gpa, len);

	if (!at)
		abort();
	return at;
}

/* As @gpa is given by the guest's own structures. */
static inline bool test_holds(uint64_t gpa, const void *bytes, uint64_t len)
{
	const void *at = memory_at(&test_memory, gpa, len);

	return at && !memcmp(at, bytes, len);
}

static inline bool test_zero(uint64_t gpa, uint64_t len)
{
	const char *at = test_at(gpa, len);

	return !*at && !memcmp(at, at + 1, len - 1);
}

static inline void test_fill(struct boot_file *file, const void *bytes, size_t size)
{
	file->path = "made here";
	file->size = size;
	file->fd = memfd_create("image", MFD_CLOEXEC);
	if (file->fd < 0 || write(file->fd, bytes, size) != (ssize_t)size)
		abort();
}

/* Into memory that is all zeroes. An @initrd of NULL is none. */
static inline int test_load(const void *kernel, size_t size, const char *initrd, const char *cmdline)
{
	struct boot_image image = { .cmdline = cmdline, .acpi_rsdp = LAYOUT_ACPI };
	int err;

	if (madvise(test_at(0, TEST_MEMORY), TEST_MEMORY, MADV_REMOVE))
		abort();
	test_fill(&image.kernel, kernel, size);
	image.initrd.fd = -1;
	if (initrd)
		test_fill(&image.initrd, initrd, strlen(initrd));
	test_entry = (struct boot_entry){ 0 };
	err = boot_load(&test_memory, &image, &test_entry);
	boot_close(&image);
	return err;
}

/* Refused, and nothing is in memory of it. */
static inline void test_lies(const void *good, size_t size, const struct lie *lies, size_t count)
{
	char *image = malloc(size);

	for (size_t i = 0; i < count; i++) {
		const struct lie *lie = &lies[i];
		int err;

		memcpy(image, good, size);
		memcpy(image + lie->offset, &lie->value, lie->size);
		err = test_load(image, size, NULL, "");
		if (!EXPECT(err == lie->err))
			printf("# %s: %d\n", lie->what, err);
		if (!EXPECT(test_zero(0, TEST_MEMORY)))
			printf("# %s\n", lie->what);
	}
	free(image);
}

/* Cut short anywhere. */
static inline void test_cuts(const void *good, size_t size)
{
	for (size_t len = 0; len < size; len++) {
		int err = test_load(good, len, NULL, "");

		if (!EXPECT(err == -ENOEXEC))
			printf("# %zu bytes of it: %d\n", len, err);
	}
}

static inline int test_main(const struct unit_test *tests, size_t count)
{
	int status;

	if (memory_init(&test_memory, TEST_MEMORY))
		return 1;
	status = unit_main(tests, count);
	memory_finish(&test_memory);
	return status;
}

#endif /* VMM_BOOT_TEST_H */
