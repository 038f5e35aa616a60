/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What a driver knows by numbers: files that it has looked up, or opened. table.c tells how. */
#ifndef DEVMODEL_FS_TABLE_H
#define DEVMODEL_FS_TABLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define TABLE_LIMIT_MAX	(1 << 20)

/* A file by where it is; a file, or a directory, that is open. */
enum entry_kind { ENTRY_NODE, ENTRY_FILE, ENTRY_DIRECTORY };

/**
 * struct entry - a descriptor of this process, and what the driver calls it
 * @id: its number; 0 where there is no entry
 * @count: how often the driver was told of it, and has not forgotten it since
 * @ino: with @dev, of a node: the file that it is
 * @next: slot of the next one in the same bucket, or of the next free one; plus one
 * @users: threads that use it now
 */
struct entry {
	uint64_t id;
	uint64_t count;
	uint64_t ino;
	uint32_t dev;
	uint32_t next;
	int fd;
	uint16_t users;
	uint8_t kind;
};

/**
 * struct table - so many entries
 * @generation: of the next entry; begins anywhere
 * @fresh: slots from here on were never used
 * @free: the first one that was, and is not any more; plus one
 * @bucket: the first slot of each, plus one; @mask buckets and one
 * @lock: guards all of it but the kind and the descriptor of an entry that is in use
 */
struct table {
	pthread_mutex_t lock;
	uint64_t generation;
	uint32_t limit;
	uint32_t fresh;
	uint32_t free;
	uint32_t mask;
	uint32_t *bucket;
	struct entry *entry;
};

/* For up to @limit entries, TABLE_LIMIT_MAX at most. 0 or -ENOMEM. */
int table_init(struct table *table, uint32_t limit);

/* Only when no entry is in use. */
void table_finish(struct table *table);

/**
 * table_enter - tell the driver of a node
 * @fd: a descriptor of it, taken in any case: of one that is there already there is no need
 *
 * Return: 0 or -ENFILE.
 */
int table_enter(struct table *table, int fd, const struct stat *st, uint64_t *ret_id);

/* The same for what is open: a new entry, counted once. */
int table_open(struct table *table, int fd, enum entry_kind kind, uint64_t *ret_id);

/* The entry, which stays until table_put(); NULL: there is none of that number. */
struct entry *table_get(struct table *table, uint64_t id);
void table_put(struct table *table, struct entry *entry);

/* The driver forgets so many times that it was told; all, if it says more. */
void table_forget(struct table *table, uint64_t id, uint64_t count);

/* The driver has forgotten all. */
void table_clear(struct table *table);

#endif /* DEVMODEL_FS_TABLE_H */
