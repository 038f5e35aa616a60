/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Disks: files of a directory, given by its descriptor. NAME.raw or NAME.qcow2, of which each belongs to a
 * user, as the file does (mode 0600); snapshots of a raw one are NAME@SNAPSHOT.raw, of a qcow2 one in it.
 *
 * All functions return 0, or a negative errno and in @why a line for people (DISK_WHY bytes). Each is
 * complete or has not happened, whenever this process may be killed: what is not complete has a name that
 * no disk has, and goes with the next disk_sweep(). They wait for the disk, which may be long: who has
 * others to answer calls them in a process of its own.
 *
 * Whose disk it is, is for the caller to ask (disk_look()); disk_open() opens as that user would.
 */
#ifndef MOATD_DISK_H
#define MOATD_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define DISK_WHY	160
#define DISK_NAME_MAX	48
#define DISK_SIZE_MAX	(1ULL << 46)
#define DISK_SECTOR	512

enum disk_format { DISK_RAW, DISK_QCOW2 };

/* Letters, digits and "-_.", a letter or digit first, DISK_NAME_MAX at most. 0 or -EINVAL. */
int disk_name_check(const char *name);

/**
 * struct disk_spec - a disk that is to be
 * @size: in bytes, whole sectors; 0: the image's
 * @owner: whose it is to be
 * @from: an image, a regular file, open for reading; -1: none, it is empty
 * @from_format: of that, as its owner says: it is not looked at for what else it might be
 * @reflink: it shares its blocks with the image, or is not made (-EOPNOTSUPP)
 * @progress: is called as it goes, with hundredths of a per cent; may be NULL
 */
struct disk_spec {
	const char *name;
	enum disk_format format;
	uint64_t size;
	uid_t owner;
	int from;
	enum disk_format from_format;
	bool reflink;
	void (*progress)(void *context, unsigned int hundredths);
	void *context;
};

/* -EEXIST: there is one of that name. */
int disk_create(int dir, const struct disk_spec *spec, char *why);

/**
 * struct disk_info - a disk that is there
 * @size: that a guest sees, bytes; 0: the image cannot be read
 * @allocated: what it takes of the directory's file system, bytes, without a raw one's snapshots
 * @in_use: some process has it locked
 */
struct disk_info {
	char name[DISK_NAME_MAX + 1];
	enum disk_format format;
	uint64_t size;
	uint64_t allocated;
	uid_t owner;
	bool in_use;
	unsigned int snapshots;
};

int disk_look(int dir, const char *name, struct disk_info *ret, char *why);

/* Each of them, in no order. @each ends it by what is not 0, which is then returned. */
int disk_list(int dir, int (*each)(void *context, const struct disk_info *info), void *context,
	      char *why);

/* -EBUSY: it is in use; this holds for all below but disk_open() of two that only read. */
int disk_resize(int dir, const char *name, uint64_t size, bool shrink, char *why);

/* With its snapshots. */
int disk_delete(int dir, const char *name, char *why);

/* Remove what a process that was killed left half done; what others are doing stays. */
int disk_sweep(int dir, char *why);

/**
 * struct disk_user - who opens a disk, without any rights of root's, unless that is root
 */
struct disk_user {
	uid_t uid;
	gid_t gid;
};

/**
 * disk_open - open a disk of the directory for a device's process, and lock it
 *
 * The lock is the descriptor's (lib/lock.h), and gone when the last one that has it is.
 */
int disk_open(int dir, const char *name, const struct disk_user *user, bool read_only, int *ret_fd,
	      enum disk_format *ret_format, char *why);

/* The same of any file, or block device, that the user may open, by its whole path. */
int disk_open_path(const char *path, enum disk_format format, const struct disk_user *user,
		   bool read_only, int *ret_fd, char *why);

/* Snapshots; a name is like a disk's, with a letter first. */

/* 1: it is a copy, whole but for holes, since the file system cannot share blocks. */
int disk_snapshot_create(int dir, const char *name, const char *snapshot, char *why);
int disk_snapshot_delete(int dir, const char *name, const char *snapshot, char *why);

/* The disk becomes what it was. Its snapshots stay. */
int disk_snapshot_revert(int dir, const char *name, const char *snapshot, char *why);

struct disk_snapshot {
	char name[DISK_NAME_MAX + 1];
	uint64_t size;
	uint64_t seconds;		/* when, since 1970 */
};

int disk_snapshot_list(int dir, const char *name,
		       int (*each)(void *context, const struct disk_snapshot *snapshot),
		       void *context, char *why);

#endif /* MOATD_DISK_H */
