// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A number is the slot of its entry, and in front of that the entry's generation. Generations never
 * come again while the process lives, and begin at a random one of 2^42: what was forgotten, or told by a
 * process before this one, is not found. Where a slot is, none of that has to be searched for.
 *
 * A file has one node, however often and by whichever name it is looked up: nodes are found by device
 * and inode, too. As each has a descriptor, its inode cannot become another file's meanwhile.
 *
 * The entries are allocated at once. Memory that was never touched costs nothing, and slots are taken
 * from the front: so the table grows by the page, and no entry ever moves.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "devmodel/fs/table.h"

#define SLOT_BITS		20
#define SLOT_MASK		((1U << SLOT_BITS) - 1)

/* So a number is never 0, nor small, as that of the root is. */
#define GENERATION_FLOOR	(1ULL << 43)

static uint32_t *table_bucket(struct table *table, uint32_t dev, uint64_t ino)
{
	const uint64_t hash = (ino + ((uint64_t)dev << 40)) * 0x9e3779b97f4a7c15ULL;

	return &table->bucket[(hash >> 32) & table->mask];
}

int table_init(struct table *table, uint32_t limit)
{
	uint64_t random;
	uint32_t buckets = 1;

	while (buckets < limit)
		buckets *= 2;
	*table = (struct table){
		.lock = PTHREAD_MUTEX_INITIALIZER, .limit = limit, .mask = buckets - 1,
		.bucket = calloc(buckets, sizeof(table->bucket[0])),
		.entry = calloc(limit, sizeof(table->entry[0])),
	};
	if (!table->bucket || !table->entry ||
	    getrandom(&random, sizeof(random), 0) != sizeof(random)) {
		table_finish(table);
		return -ENOMEM;
	}
	table->generation = GENERATION_FLOOR + random % (GENERATION_FLOOR / 2);
	return 0;
}

void table_finish(struct table *table)
{
	if (table->entry)
		table_clear(table);
	free(table->bucket);
	free(table->entry);
}

/* NULL where the table is full. */
static struct entry *entry_create(struct table *table, int fd, enum entry_kind kind)
{
	struct entry *entry;

	if (table->free) {
		entry = &table->entry[table->free - 1];
		table->free = entry->next;
	} else if (table->fresh < table->limit) {
		entry = &table->entry[table->fresh++];
	} else {
		return NULL;
	}
	*entry = (struct entry){
		.id = table->generation++ << SLOT_BITS | (entry - table->entry),
		.fd = fd, .kind = kind, .count = 1,
	};
	return entry;
}

static void entry_unlink(struct table *table, const struct entry *entry)
{
	uint32_t *at = table_bucket(table, entry->dev, entry->ino);

	while (*at != entry - table->entry + 1U)
		at = &table->entry[*at - 1].next;
	*at = entry->next;
}

/* Goes when nobody knows or uses it. */
static void entry_settle(struct table *table, struct entry *entry)
{
	if (entry->count || entry->users)
		return;
	if (entry->kind == ENTRY_NODE)
		entry_unlink(table, entry);
	close(entry->fd);
	entry->id = 0;
	entry->next = table->free;
	table->free = entry - table->entry + 1;
}

static struct entry *table_find_node(struct table *table, const struct stat *st)
{
	uint32_t at = *table_bucket(table, st->st_dev, st->st_ino);

	while (at) {
		struct entry *entry = &table->entry[at - 1];

		if (entry->ino == st->st_ino && entry->dev == (uint32_t)st->st_dev)
			return entry;
		at = entry->next;
	}
	return NULL;
}

static struct entry *table_add_node(struct table *table, int fd, const struct stat *st)
{
	struct entry *entry = entry_create(table, fd, ENTRY_NODE);
	uint32_t *bucket = table_bucket(table, st->st_dev, st->st_ino);

	if (!entry)
		return NULL;
	entry->dev = st->st_dev;
	entry->ino = st->st_ino;
	entry->next = *bucket;
	*bucket = entry - table->entry + 1;
	return entry;
}

int table_enter(struct table *table, int fd, const struct stat *st, uint64_t *ret_id)
{
	struct entry *entry;
	bool taken = false;

	pthread_mutex_lock(&table->lock);
	entry = table_find_node(table, st);
	if (entry) {
		entry->count++;
	} else {
		entry = table_add_node(table, fd, st);
		taken = entry;
	}
	if (entry)
		*ret_id = entry->id;
	pthread_mutex_unlock(&table->lock);
	if (!taken)
		close(fd);
	return entry ? 0 : -ENFILE;
}

int table_open(struct table *table, int fd, enum entry_kind kind, uint64_t *ret_id)
{
	struct entry *entry;

	pthread_mutex_lock(&table->lock);
	entry = entry_create(table, fd, kind);
	if (entry)
		*ret_id = entry->id;
	pthread_mutex_unlock(&table->lock);
	if (!entry)
		close(fd);
	return entry ? 0 : -ENFILE;
}

static struct entry *table_find(struct table *table, uint64_t id)
{
	const uint32_t slot = id & SLOT_MASK;

	return id && slot < table->fresh && table->entry[slot].id == id ? &table->entry[slot] : NULL;
}

/* What is forgotten, and only still in use, is not there. */
struct entry *table_get(struct table *table, uint64_t id)
{
	struct entry *entry;

	pthread_mutex_lock(&table->lock);
	entry = table_find(table, id);
	if (entry && entry->count)
		entry->users++;
	else
		entry = NULL;
	pthread_mutex_unlock(&table->lock);
	return entry;
}

void table_put(struct table *table, struct entry *entry)
{
	pthread_mutex_lock(&table->lock);
	entry->users--;
	entry_settle(table, entry);
	pthread_mutex_unlock(&table->lock);
}

void table_forget(struct table *table, uint64_t id, uint64_t count)
{
	struct entry *entry;

	pthread_mutex_lock(&table->lock);
	entry = table_find(table, id);
	if (entry) {
		entry->count -= count < entry->count ? count : entry->count;
		entry_settle(table, entry);
	}
	pthread_mutex_unlock(&table->lock);
}

void table_clear(struct table *table)
{
	pthread_mutex_lock(&table->lock);
	for (uint32_t i = 0; i < table->fresh; i++) {
		if (!table->entry[i].id)
			continue;
		table->entry[i].count = 0;
		entry_settle(table, &table->entry[i]);
	}
	pthread_mutex_unlock(&table->lock);
}
