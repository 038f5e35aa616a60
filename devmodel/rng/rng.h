/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef DEVMODEL_RNG_RNG_H
#define DEVMODEL_RNG_RNG_H

struct device;

/* A source of the host's random bytes. Return: 0 or a negative errno. */
int rng_create(struct device **ret);

#endif /* DEVMODEL_RNG_RNG_H */
