/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* moatd's unprivileged half as it is, beside a keeper and launchers that answer at random. */
#ifndef API_WORLD_H
#define API_WORLD_H

#include <sys/types.h>

/* Starts both. @dir: for definitions. They end with the second, whose pid is @ret_keeper. Return: that of the first. */
pid_t api_world_start(const char *dir, int listener, unsigned int seed, pid_t *ret_keeper);

#endif /* API_WORLD_H */
