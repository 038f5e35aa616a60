/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The guest that moat-init sets up for its command, and takes down. */
#ifndef INIT_GUEST_H
#define INIT_GUEST_H

#include <stdint.h>

/**
 * struct command - what RUN_COMMAND_FILE says
 * @argv: NULL-terminated, as are the other lists
 * @root: tag of the file system that becomes the root; NULL: the root stays what it is
 * @mounts: what is mounted in there, with the letters that RUN_COMMAND_FILE has for it
 * @terminals: bit N: descriptor N is a terminal
 */
struct command {
	const char *program;
	const char *directory;
	char **argv;
	char **envp;
	char **modules;
	const char *root;
	char **mounts;
	unsigned int terminals;
	uint16_t rows;
	uint16_t columns;
};

/* Says what cannot be on the kernel's console, and ends the machine. */
void guest_fail(const char *what, const char *name) __attribute__((noreturn));

/* File systems, names, loopback. */
void guest_init(void);

/* Reads RUN_COMMAND_FILE, loads its modules, removes RUN_FOLDER, and enters the root that it is to have. */
void guest_load(struct command *command);

/* The channel to the host, in raw mode, when its driver has found it. */
int guest_open_channel(void);

/* Ends all processes but this one, and unmounts what lies on disks. */
void guest_settle(void);

void guest_power_off(void) __attribute__((noreturn));

#endif /* INIT_GUEST_H */
