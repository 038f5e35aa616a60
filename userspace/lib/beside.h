/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_BESIDE_H
#define LIB_BESIDE_H

/* The path of a file that lies beside the running program's own; PATH_MAX bytes. 0 or a negative errno. */
int beside_path(const char *name, char *ret);

/*
 * The path of another program of Moat's: beside this one, or where `make install` puts it. PATH_MAX bytes. 0, or a
 * negative errno: -ENOENT where it is in none of these places.
 */
int beside_program(const char *name, char *ret);

#endif /* LIB_BESIDE_H */
