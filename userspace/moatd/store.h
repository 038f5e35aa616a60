/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The directory of definitions: NAME.yaml each. What is there is whole, whenever the host stops. */
#ifndef MOATD_STORE_H
#define MOATD_STORE_H

#include <stdbool.h>
#include <stddef.h>

/* Removes what a store_save() that was cut short has left, and calls @each for the name of each definition. */
int store_list(int dir, void (*each)(void *arg, const char *name), void *arg);

/* Return: 0 and the text, to be freed, with a zero behind it; or a negative errno. */
int store_load(int dir, const char *name, char **ret_text, size_t *ret_len);

/* On the disk when it returns 0; what was there is as before when it returns a negative errno. */
int store_save(int dir, const char *name, const char *text);

int store_remove(int dir, const char *name);

/*
 * A mark beside a definition: what is under way with its machine. It lasts as long as the host runs, at least. Errors are
 * as if nothing had been marked.
 */
void store_mark(int dir, const char *name, bool marked);
bool store_marked(int dir, const char *name);

#endif /* MOATD_STORE_H */
