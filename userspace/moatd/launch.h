/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_LAUNCH_H
#define MOATD_LAUNCH_H

struct keeper_options;
struct keeper_start;

/**
 * launch_start - start a machine's launcher, with its place, its cgroup, and all that it is made of
 * @start: its definition as definition_check() has found it right, its networks as network_check() has
 * @why: of KEEPER_WHY bytes, what a person is told where it fails
 *
 * Return: a connection to its control socket, where it has answered; or a negative errno, and then
 * nothing is left of it. -EEXIST: it was started before.
 */
int launch_start(const struct keeper_options *options, const struct keeper_start *start, char *why);

/**
 * launch_attach - give a machine that runs one disk more, or one network
 * @start: as above, with that one and no other
 *
 * It is in the guest's hands when this returns 0.
 */
int launch_attach(const struct keeper_options *options, const struct keeper_start *start, char *why);

/* Networks need not know the machine any more, and what UEFI remembered goes. */
void launch_forget(const struct keeper_options *options, const struct keeper_start *start);

#endif /* MOATD_LAUNCH_H */
