/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Files of disks: what disk.c and snapshot.c share. */
#ifndef MOATD_DISK_FILE_H
#define MOATD_DISK_FILE_H

#include "userspace/moatd/disk.h"

/* NAME@SNAPSHOT.qcow2, and a zero. */
#define DISK_FILE	(2 * DISK_NAME_MAX + 8)

/**
 * struct disk_file - an open one
 * @file: its name in the directory
 */
struct disk_file {
	int dir;
	int fd;
	enum disk_format format;
	char file[DISK_FILE];
};

/* @err, after @why was set. */
int disk_fail(char *why, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Both names: how a file is called. @snapshot: NULL: the disk itself. */
void disk_file_name(char *ret, const char *name, const char *snapshot, enum disk_format format);

/* Open a disk, whatever its format; not locked. */
int disk_find(int dir, const char *name, int flags, struct disk_file *ret, char *why);

/* Is it still what has its name? */
bool disk_is_current(const struct disk_file *disk);

/* Open the disk to change it, locked: nobody else has it. */
int disk_take(int dir, const char *name, struct disk_file *ret, char *why);

/* A new one, that has a name of no disk until it is published; locked, and the owner's. */
int disk_new(int dir, uid_t owner, struct disk_file *ret, char *why);

/*
 * It is complete: on the disk, and from then on called @file. @replace: what has that name goes. It is
 * closed in any case, and where it fails removed.
 */
int disk_publish(struct disk_file *disk, const char *file, bool replace, char *why);
void disk_drop(struct disk_file *disk);

/* Each snapshot of a raw disk, by its file. @each: as in disk_list(). */
int disk_each_raw_snapshot(int dir, const char *name,
			   int (*each)(void *context, int dir, const char *file, const char *snapshot),
			   void *context);

#endif /* MOATD_DISK_FILE_H */
