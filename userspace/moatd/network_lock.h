/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_NETWORK_LOCK_H
#define MOATD_NETWORK_LOCK_H

struct keeper_options;

/* Nobody else changes networks until it is closed. A descriptor, or a negative errno. */
int network_lock(const struct keeper_options *options);

#endif /* MOATD_NETWORK_LOCK_H */
