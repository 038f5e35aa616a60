/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_FRONT_H
#define MOATD_FRONT_H

struct keeper_options;

/**
 * front_run - be the unprivileged half: definitions, the life of machines, and who asks for what
 * @link: to the keeper
 * @lock: stays open as long as this goes on
 *
 * Return: the exit status; 0: all of moatd is to end.
 */
int front_run(const struct keeper_options *options, int listener, int link, int lock);

#endif /* MOATD_FRONT_H */
