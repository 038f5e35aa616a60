/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What a machine is: a file in YAML that a person can read and edit, and the same as a struct, which has no
 * pointers, so that it is also the message by which the keeper is told of it.
 */
#ifndef MOATD_DEFINITION_H
#define MOATD_DEFINITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEFINITION_NAME		49
#define DEFINITION_PATH		256
#define DEFINITION_TEXT_MAX	(64 << 10)
#define DEFINITION_DISKS	16
#define DEFINITION_NETWORKS	8
#define DEFINITION_FILESYSTEMS	8
#define DEFINITION_KEYS		8

/* Choices; what they are called is in definition.c. */
enum definition_format { FORMAT_RAW, FORMAT_QCOW2 };
enum definition_firmware { FIRMWARE_NONE, FIRMWARE_BIOS, FIRMWARE_UEFI };
enum definition_isolation { ISOLATION_GRANT, ISOLATION_SHARED };
enum definition_restart { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

/* @path: absolute; else the name of a disk that moatd made */
struct definition_disk {
	char path[DEFINITION_PATH];
	uint64_t format;
	uint64_t read_only;
	uint64_t direct;
	uint64_t isolation;
};

/* That of a user without rights, by passt, in place of a network's name. */
#define DEFINITION_USER_NETWORK	"user"

/* @address: that it has by DHCP; empty: moatd chooses one at the start, and keeps it */
struct definition_network {
	char network[16];
	char mac[18];
	char address[16];
	uint64_t isolation;
};

struct definition_filesystem {
	char path[DEFINITION_PATH];
	char tag[36];
	uint64_t writable;
	uint64_t isolation;
};

/* With firmware, it is that which finds what to boot, on a disk or the CD, and there is no kernel here. */
struct definition_boot {
	uint64_t firmware;
	char cdrom[DEFINITION_PATH];
	char kernel[DEFINITION_PATH];
	char initrd[DEFINITION_PATH];
	char append[1024];
};

/* Numbers of 0: no limit, or the kernel's own default. @cpu_cap: percent of one CPU. @pin: as "0-3,8" */
struct definition_limits {
	uint64_t cpu_weight;
	uint64_t cpu_cap;
	char pin[64];
	uint64_t memory;
	uint64_t io_weight;
};

struct definition_key {
	char key[800];
};

/* What cloud-init is told; empty without @user and @hostname. */
struct definition_seed {
	char hostname[64];
	char user[33];
	uint64_t key_count;
	struct definition_key key[DEFINITION_KEYS];
};

/**
 * struct definition
 * @owner: uid, whose rights its files are opened with
 * @memory: bytes; @stop_timeout: seconds that a guest has between the button and its end
 */
struct definition {
	char name[DEFINITION_NAME];
	char uuid[37];
	uint64_t owner;
	uint64_t cpus;
	uint64_t memory;
	uint64_t balloon;
	uint64_t autostart;
	uint64_t restart;
	uint64_t stop_timeout;
	struct definition_boot boot;
	uint64_t disk_count;
	struct definition_disk disk[DEFINITION_DISKS];
	uint64_t network_count;
	struct definition_network network[DEFINITION_NETWORKS];
	uint64_t filesystem_count;
	struct definition_filesystem filesystem[DEFINITION_FILESYSTEMS];
	struct definition_limits limits;
	struct definition_seed seed;
};

/**
 * struct definition_error - what is wrong with a definition, and where
 * @line, @column: from 1 on; 0: nowhere in particular
 */
struct definition_error {
	unsigned int line;
	unsigned int column;
	char text[200];
};

/* A name for a machine: letters, digits, '-', '_', '.'; at most 48, the first a letter or digit. */
bool definition_name_valid(const char *name);

/* All as it is where nothing is said. */
void definition_init(struct definition *definition);

/**
 * definition_read - read a file's text
 * @text: @len bytes of it
 *
 * Each key has to be known, each value to be right. What is left out has its default; of the name,
 * UUID and MAC addresses see definition_complete(). Return: 0, or -EINVAL, and @error tells.
 */
int definition_read(struct definition *definition, const char *text, size_t len,
		    struct definition_error *error);

/**
 * definition_check - is what no single field tells all right?
 *
 * Also of a struct that came from elsewhere: afterwards all strings end, numbers are in range.
 */
int definition_check(const struct definition *definition, struct definition_error *error);

/* Makes up what was left out, and what a person leaves to moatd: UUID, MAC addresses. 0 or a negative errno. */
int definition_complete(struct definition *definition);

/* Its text, to be freed; NULL: no memory. What has its default is left out. */
char *definition_write(const struct definition *definition);

/* The program that is its launcher: Moat's own, or the one that has QEMU do it. */
const char *definition_launcher(const struct definition *definition);

/* Is that entry one of no network of moatd's, but DEFINITION_USER_NETWORK? */
bool definition_network_is_user(const struct definition_network *network);

/* What a disk is called as a device of its machine: @ret of 64 bytes. */
void definition_disk_device(const struct definition_disk *disk, char *ret);

struct json_object;

/* The same as an object, with all that is in it. NULL: no memory. */
struct json_object *definition_json(const struct definition *definition);

#endif /* MOATD_DEFINITION_H */
