/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_OWNER_H
#define MOATD_OWNER_H

#include <sys/types.h>

/**
 * owner_open - open a regular file, block device or directory with its user's rights
 * @owner: whose; the calling process, of one thread, is root
 * @flags: as of open(); O_CLOEXEC is added
 *
 * Return: a descriptor, or a negative errno; -EINVAL: it is something else.
 */
int owner_open(uid_t owner, const char *path, int flags);

/* The user's own group. */
gid_t owner_group(uid_t owner);

#endif /* MOATD_OWNER_H */
