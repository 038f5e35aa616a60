/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Programs of devices: which there are, and what their command lines are. */
#ifndef VMM_PROGRAM_H
#define VMM_PROGRAM_H

struct arguments;
struct options_device;

/**
 * struct program - a program that serves a type of device over vhost-user
 * @type: as vhost_type_find() knows it; NULL ends a table
 * @name: beside moat-vmm, else in PATH; or a path
 * @add: adds what the device itself takes. A descriptor that the device's path names is the number
 *	@handed in the program, which is -1 where the path names none
 * @format: of a disk; NULL: raw, or it is no disk
 */
struct program {
	const char *type;
	const char *name;
	void (*add)(struct arguments *arguments, const struct options_device *device, int handed);
	const char *format;
};

/* Those of Moat's. */
extern const struct program programs[];

/* The one of a table for a device, by its type and format; NULL: there is none. */
const struct program *program_of(const struct program *table, const struct options_device *device);

#endif /* VMM_PROGRAM_H */
