/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef QEMU_LAUNCHER_CONFINE_H
#define QEMU_LAUNCHER_CONFINE_H

#include <sys/types.h>

/* From here on the launcher can only do what confine.c lists. With one thread. 0 or a negative errno. */
int confine(uid_t uid, gid_t gid);

#endif /* QEMU_LAUNCHER_CONFINE_H */
