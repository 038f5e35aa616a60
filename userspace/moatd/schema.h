/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Structs that are read from YAML, and written, by tables: which keys there are, and what they may be. */
#ifndef MOATD_SCHEMA_H
#define MOATD_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

struct definition_error;
struct json_object;

enum schema_kind {
	SCHEMA_TEXT,	/* char[room] */
	SCHEMA_NUMBER,	/* the others are uint64_t */
	SCHEMA_SIZE,	/* bytes, with a suffix K, M or G */
	SCHEMA_FLAG,	/* yes or no */
	SCHEMA_CHOICE,
	SCHEMA_MAP,	/* a struct in the struct */
	SCHEMA_LIST,	/* an array of structs, and how many */
};

/**
 * struct schema - a key, and the member that it is
 * @key: NULL ends a table. In a list's table of one row, "" means that its items are that one, plain
 * @offset: of the member
 * @room: bytes: of a text, or of a list's item
 * @count: offset of the member that counts a list's items
 * @min, @max: of a number, a size; most items of a list
 * @otherwise: the number where the key is missing
 * @choices: their names, NULL at the end
 * @of: rows of a map, or of a list's items
 * @wrong: of a text that is not empty: what should be there in its place; NULL: it is right
 */
struct schema {
	const char *key;
	enum schema_kind kind;
	size_t offset;
	size_t room;
	size_t count;
	uint64_t min;
	uint64_t max;
	uint64_t otherwise;
	const char *const *choices;
	const struct schema *of;
	const char *(*wrong)(const char *text);
};

/* Set all to what it is where nothing is said; the struct is all zeroes before. */
void schema_init(const struct schema *rows, void *base);

/* Read a text in YAML: a map. -EINVAL, and @error tells. Aliases, tags and second documents are refused. */
int schema_read(const struct schema *rows, void *base, const char *text, size_t len,
		struct definition_error *error);

/* Is each member what its row says, whoever filled it in? -EINVAL, and @error tells. */
int schema_check(const struct schema *rows, const void *base, struct definition_error *error);

/* Its text, to be freed, without what is as schema_init() has it. NULL: no memory. */
char *schema_write(const struct schema *rows, const void *base);

/* All of it, as an object. NULL: no memory. */
struct json_object *schema_json(const struct schema *rows, const void *base);

#endif /* MOATD_SCHEMA_H */
