// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the readers of kernel images. The input is the kernel, all of it; behind it, a hole may
 * make the file longer, by as many pages as its last byte says.
 *
 * What must hold, beside that no sanitizer complains: the kernel is entered in what it may have, or
 * refused by an error that is told; what the launcher itself put into memory stays, and so does what
 * nobody put there; the initial RAM disk is whole.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userspace/lib/log.h"
#include "userspace/vmm/boot.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY	(4 << 20)
#define PAGE	4096
#define INITRD	"an initial RAM disk that has to be whole"
#define TABLES	"tables of the launcher's own"

static struct memory memory;
static unsigned int complaints;

void log_error(const char *format, ...)
{
	(void)format;
	complaints++;
}

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void fill(struct boot_file *file, const void *bytes, size_t size, uint64_t longer)
{
	file->fd = memfd_create("image", MFD_CLOEXEC);
	file->path = "fuzz";
	file->size = size + longer;
	must(file->fd >= 0 && write(file->fd, bytes, size) == (ssize_t)size &&
	     !ftruncate(file->fd, file->size));
}

/* A kernel does not choose where the launcher puts its own. */
static void check_memory(void)
{
	static const char zeroes[LAYOUT_HIGH];
	const char *low = memory_at(&memory, 0, LAYOUT_HIGH);

	must(!memcmp(low, zeroes, LAYOUT_GDT));
	must(!memcmp(low + LAYOUT_LOW_END, zeroes, LAYOUT_ACPI - LAYOUT_LOW_END));
	must(!memcmp(low + LAYOUT_ACPI, TABLES, sizeof(TABLES)));
	must(!memcmp(low + LAYOUT_ACPI + sizeof(TABLES), zeroes,
		     LAYOUT_RESET_VECTOR - LAYOUT_ACPI - sizeof(TABLES)));
}

/* Where a multiboot kernel and a PVH kernel find it. */
static void check_entered(const struct boot_entry *entry)
{
	const uint64_t initrd = (MEMORY - sizeof(INITRD)) & ~(PAGE - 1ULL);

	must(entry->rip >= LAYOUT_HIGH && entry->rip < MEMORY);
	if (!entry->long_mode)
		must(!memcmp(memory_at(&memory, initrd, sizeof(INITRD)), INITRD, sizeof(INITRD)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_image image = { .cmdline = "quiet", .acpi_rsdp = LAYOUT_ACPI };
	struct boot_entry entry;
	int err;

	if (!memory.map.count)
		must(!memory_init(&memory, MEMORY));
	must(!madvise(memory_at(&memory, 0, MEMORY), MEMORY, MADV_REMOVE));
	memcpy(memory_at(&memory, LAYOUT_ACPI, sizeof(TABLES)), TABLES, sizeof(TABLES));
	fill(&image.kernel, data, size, size ? data[size - 1] * PAGE : 0);
	fill(&image.initrd, INITRD, sizeof(INITRD), 0);
	complaints = 0;
	err = boot_load(&memory, &image, &entry);
	boot_close(&image);
	must(err ? err < 0 && complaints == 1 : !complaints);
	check_memory();
	if (!err)
		check_entered(&entry);
	return 0;
}
