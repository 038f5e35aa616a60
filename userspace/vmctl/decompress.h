/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMCTL_DECOMPRESS_H
#define VMCTL_DECOMPRESS_H

#include <stddef.h>

/**
 * decompress_file - what is in a file, after xz, zstd or gzip if its name ends so
 * @ret: to be freed
 *
 * Return: 0; -EINVAL for what does not decompress; -EFBIG for more than 256 MiB; another errno.
 */
int decompress_file(const char *path, void **ret, size_t *ret_size);

#endif /* VMCTL_DECOMPRESS_H */
