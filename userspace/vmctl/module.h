/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Kernel modules for a guest: which files, in which order. */
#ifndef VMCTL_MODULE_H
#define VMCTL_MODULE_H

#include <stdbool.h>
#include <stddef.h>

/* Modules in the order in which they are to be loaded; paths of their files. */
struct module_list {
	char **files;
	size_t count;
};

/* What a guest should have. Without an optional one it still works. */
struct module_wanted {
	const char *name;
	bool optional;
};

/**
 * module_resolve - find modules with all that they need; what is built in needs no file
 * @directory: lib/modules/VERSION
 * @ret: to be given to module_list_free(), also on failure
 *
 * Return: 0 or a negative errno, after a line that says what is wrong.
 */
int module_resolve(const char *directory, const struct module_wanted *wanted, size_t count,
		   struct module_list *ret);

void module_list_free(struct module_list *list);

#endif /* VMCTL_MODULE_H */
