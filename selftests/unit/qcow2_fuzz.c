// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the reader of qcow2 images, which the input is.
 *
 * What must hold, beside that no sanitizer complains: an image that is taken names no other file; names of
 * snapshots are printable, and each one moves on.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userspace/lib/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_snapshots(int fd, const struct qcow2 *image)
{
	uint64_t at = image->snapshots_at;
	struct qcow2_snapshot snapshot;

	for (uint32_t i = 0; i < image->snapshots; i++) {
		const uint64_t before = at;

		if (qcow2_read_snapshot(fd, &at, &snapshot))
			return;
		must(at > before && strlen(snapshot.name) < QCOW2_NAME_MAX);
		for (const char *c = snapshot.name; *c; c++)
			must(*c > ' ' && *c <= '~');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t zeroes[12];
	struct qcow2 image;
	const char *why = NULL;
	int err, fd = memfd_create("image", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	err = qcow2_read(fd, &image, &why);
	must(!err == !why);
	if (!err) {
		must(image.size && !memcmp(data + 8, zeroes, 12) && !(data[7] == 3 && data[79] & 4));
		check_snapshots(fd, &image);
	}
	close(fd);
	return 0;
}
