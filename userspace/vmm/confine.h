/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_CONFINE_H
#define VMM_CONFINE_H

#include <sys/types.h>

/**
 * confine - enter the launcher's own sandbox, for good
 * @uid: to run as, with @gid; both -1: the caller's
 *
 * What the guest is started from is open by then, and there is one thread. Says itself what failed.
 * Return: 0 or a negative errno.
 */
int confine(uid_t uid, gid_t gid);

#endif /* VMM_CONFINE_H */
