/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_WARDS_H
#define VMM_WARDS_H

struct options;
struct program;

/**
 * wards_run - be the supervisor
 * @socket: for each device of the options, its link's end; -1: the device is not looked after
 * @life: a pipe that the machine has the other end of
 *
 * Does not return: ends when the pipe and all links have.
 */
_Noreturn void wards_run(const struct options *options, const struct program *programs,
			 const int *socket, int life);

#endif /* VMM_WARDS_H */
