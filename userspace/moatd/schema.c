// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Structs by tables. What a member may be is judged in one place (row_check()), whether it came from a
 * file, where the error gets the line and column of the node, or in a message.
 *
 * A YAML document is a tree of nodes with their places. Only plain trees are taken: libyaml makes an alias
 * the same node once more, so a short text could be an endless one; they are refused before it is walked.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "userspace/lib/parse.h"
#include "userspace/moatd/definition.h"
#include "userspace/moatd/schema.h"

__attribute__((format(printf, 2, 3)))
static int wrong(struct definition_error *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	return -EINVAL;
}

static uint64_t number_of(const struct schema *row, const void *base)
{
	uint64_t value;

	memcpy(&value, (const char *)base + row->offset, sizeof(value));
	return value;
}

static void number_set(const struct schema *row, void *base, uint64_t value)
{
	memcpy((char *)base + row->offset, &value, sizeof(value));
}

static uint64_t *list_count(const struct schema *row, void *base)
{
	return (uint64_t *)((char *)base + row->count);
}

static void *list_item(const struct schema *row, const void *base, uint64_t i)
{
	return (char *)base + row->offset + i * row->room;
}

void schema_init(const struct schema *rows, void *base)
{
	for (const struct schema *row = rows; row->key; row++) {
		if (row->kind == SCHEMA_MAP)
			schema_init(row->of, (char *)base + row->offset);
		else if (row->kind != SCHEMA_TEXT && row->kind != SCHEMA_LIST)
			number_set(row, base, row->otherwise);
	}
}

/* Checking */

static int text_check(const struct schema *row, const char *text, struct definition_error *error)
{
	const char *end = memchr(text, 0, row->room);
	const char *wanted;

	if (!end)
		return wrong(error, "%s: at most %zu characters", row->key, row->room - 1);
	for (const char *at = text; at < end; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			return wrong(error, "%s: control characters are not allowed", row->key);
	wanted = *text && row->wrong ? row->wrong(text) : NULL;
	return wanted ? wrong(error, "%s: \"%.60s\": %s", row->key, text, wanted) : 0;
}

static unsigned int choice_count(const struct schema *row)
{
	unsigned int n = 0;

	while (row->choices[n])
		n++;
	return n;
}

static int list_check(const struct schema *row, const void *base, struct definition_error *error)
{
	const uint64_t count = *list_count(row, (void *)base);
	int err = 0;

	if (count > row->max)
		return wrong(error, "%s: at most %llu", row->key, (unsigned long long)row->max);
	for (uint64_t i = 0; i < count && !err; i++)
		err = schema_check(row->of, list_item(row, base, i), error);
	return err;
}

static int number_check(const struct schema *row, uint64_t value, struct definition_error *error)
{
	/* What is not said is right, whatever the range. */
	if (value == row->otherwise || (value >= row->min && value <= row->max))
		return 0;
	if (row->kind == SCHEMA_SIZE)
		return wrong(error, "%s: from %lluM to %lluM", row->key,
			     (unsigned long long)row->min >> 20, (unsigned long long)row->max >> 20);
	return wrong(error, "%s: from %llu to %llu", row->key, (unsigned long long)row->min,
		     (unsigned long long)row->max);
}

static int row_check(const struct schema *row, const void *base, struct definition_error *error)
{
	switch (row->kind) {
	case SCHEMA_TEXT:
		return text_check(row, (const char *)base + row->offset, error);
	case SCHEMA_MAP:
		return schema_check(row->of, (const char *)base + row->offset, error);
	case SCHEMA_LIST:
		return list_check(row, base, error);
	case SCHEMA_FLAG:
		return number_of(row, base) > 1 ? wrong(error, "%s: yes or no", row->key) : 0;
	case SCHEMA_CHOICE:
		return number_of(row, base) < choice_count(row) ? 0 :
		       wrong(error, "%s: no such choice", row->key);
	default:
		return number_check(row, number_of(row, base), error);
	}
}

int schema_check(const struct schema *rows, const void *base, struct definition_error *error)
{
	int err = 0;

	for (const struct schema *row = rows; row->key && !err; row++)
		err = row_check(row, base, error);
	return err;
}

/* Reading */

struct reader {
	yaml_document_t *document;
	struct definition_error *error;
};

static void error_place(struct definition_error *error, yaml_mark_t mark)
{
	error->line = mark.line + 1;
	error->column = mark.column + 1;
}

__attribute__((format(printf, 3, 4)))
static int node_wrong(struct reader *reader, const yaml_node_t *node, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(reader->error->text, sizeof(reader->error->text), format, args);
	va_end(args);
	error_place(reader->error, node->start_mark);
	return -EINVAL;
}

static const char *node_text(const yaml_node_t *node)
{
	return (const char *)node->data.scalar.value;
}

/* libyaml's strings may hold zeroes. */
static bool node_is_text(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE &&
	       strlen(node_text(node)) == node->data.scalar.length;
}

static int read_text(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		     void *base)
{
	const size_t len = strlen(node_text(node));

	if (len >= row->room)
		return node_wrong(reader, node, "%s: at most %zu characters", row->key, row->room - 1);
	memcpy((char *)base + row->offset, node_text(node), len + 1);
	return 0;
}

static int read_choice(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		       void *base)
{
	char names[128] = "";

	for (unsigned int i = 0; row->choices[i]; i++) {
		if (!strcmp(row->choices[i], node_text(node))) {
			number_set(row, base, i);
			return 0;
		}
		strncat(names, i ? ", " : "", sizeof(names) - strlen(names) - 1);
		strncat(names, row->choices[i], sizeof(names) - strlen(names) - 1);
	}
	return node_wrong(reader, node, "%s: \"%.40s\": one of %s", row->key, node_text(node), names);
}

static int read_flag(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		     void *base)
{
	static const char *const yes[] = { "yes", "true", "on" }, *const no[] = { "no", "false", "off" };

	for (unsigned int i = 0; i < 3; i++) {
		if (strcmp(node_text(node), yes[i]) && strcmp(node_text(node), no[i]))
			continue;
		number_set(row, base, !strcmp(node_text(node), yes[i]));
		return 0;
	}
	return node_wrong(reader, node, "%s: \"%.40s\": yes or no", row->key, node_text(node));
}

static int read_number(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		       void *base)
{
	uint64_t value;
	int err;

	if (row->kind == SCHEMA_SIZE)
		err = parse_size(node_text(node), 0, INT64_MAX, &value);
	else
		err = parse_uint(node_text(node), 0, INT64_MAX, &value);
	if (err)
		return node_wrong(reader, node, "%s: \"%.40s\": a %s", row->key, node_text(node),
				  row->kind == SCHEMA_SIZE ? "size, as 512M or 2G" : "number");
	number_set(row, base, value);
	return 0;
}

static int read_scalar(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		       void *base)
{
	int err;

	if (!node_is_text(node))
		return node_wrong(reader, node, "%s: a single value belongs here", row->key);
	if (row->kind == SCHEMA_TEXT)
		err = read_text(reader, node, row, base);
	else if (row->kind == SCHEMA_CHOICE)
		err = read_choice(reader, node, row, base);
	else if (row->kind == SCHEMA_FLAG)
		err = read_flag(reader, node, row, base);
	else
		err = read_number(reader, node, row, base);
	if (err)
		return err;
	err = row_check(row, base, reader->error);
	if (err)
		error_place(reader->error, node->start_mark);
	return err;
}

static int read_map(struct reader *reader, const yaml_node_t *node, const char *key,
		    const struct schema *rows, void *base);

static int read_list(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		     void *base)
{
	uint64_t *count = list_count(row, base);
	int err = 0;

	if (node->type != YAML_SEQUENCE_NODE)
		return node_wrong(reader, node, "%s: a list belongs here", row->key);
	for (const yaml_node_item_t *item = node->data.sequence.items.start;
	     item < node->data.sequence.items.top && !err; item++) {
		const yaml_node_t *of = yaml_document_get_node(reader->document, *item);
		void *to = list_item(row, base, *count);

		if (*count == row->max)
			return node_wrong(reader, of, "%s: at most %llu", row->key,
					  (unsigned long long)row->max);
		if (!*row->of->key) {
			err = read_scalar(reader, of, row->of, to);
		} else {
			schema_init(row->of, to);
			err = read_map(reader, of, row->key, row->of, to);
		}
		++*count;
	}
	return err;
}

static int read_row(struct reader *reader, const yaml_node_t *node, const struct schema *row,
		    void *base)
{
	if (row->kind == SCHEMA_MAP)
		return read_map(reader, node, row->key, row->of, (char *)base + row->offset);
	if (row->kind == SCHEMA_LIST)
		return read_list(reader, node, row, base);
	return read_scalar(reader, node, row, base);
}

static const struct schema *row_find(const struct schema *rows, const char *key)
{
	for (; rows->key; rows++)
		if (!strcmp(rows->key, key))
			return rows;
	return NULL;
}

/* True: an earlier pair of the same map has that key, too. */
static bool key_repeats(struct reader *reader, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
	const char *key = node_text(yaml_document_get_node(reader->document, pair->key));

	for (const yaml_node_pair_t *other = map->data.mapping.pairs.start; other < pair; other++)
		if (!strcmp(node_text(yaml_document_get_node(reader->document, other->key)), key))
			return true;
	return false;
}

static int read_map(struct reader *reader, const yaml_node_t *node, const char *where,
		    const struct schema *rows, void *base)
{
	int err = 0;

	if (node->type != YAML_MAPPING_NODE)
		return node_wrong(reader, node, "%s: keys and values belong here", where);
	for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
	     pair < node->data.mapping.pairs.top && !err; pair++) {
		const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
		const struct schema *row;

		if (!node_is_text(key))
			return node_wrong(reader, key, "%s: a key is a plain word", where);
		row = row_find(rows, node_text(key));
		if (!row)
			return node_wrong(reader, key, "%.40s: there is no such key in %s", node_text(key),
					  where);
		if (key_repeats(reader, node, pair))
			return node_wrong(reader, key, "%s: is there twice", row->key);
		err = read_row(reader, yaml_document_get_node(reader->document, pair->value), row, base);
	}
	return err;
}

/* Of a text that is none, or one with aliases or tags: what libyaml's events say. */
static int events_check(yaml_parser_t *parser, struct definition_error *error)
{
	yaml_event_type_t type = YAML_NO_EVENT;
	unsigned int documents = 0;
	int err = 0;

	while (!err && type != YAML_STREAM_END_EVENT) {
		yaml_event_t event;

		if (!yaml_parser_parse(parser, &event)) {
			error_place(error, parser->problem_mark);
			return wrong(error, "%s", parser->problem ? parser->problem : "not YAML");
		}
		type = event.type;
		error_place(error, event.start_mark);
		if (type == YAML_ALIAS_EVENT)
			err = wrong(error, "aliases are not taken here");
		else if ((type == YAML_SCALAR_EVENT && event.data.scalar.tag) ||
			 (type == YAML_SEQUENCE_START_EVENT && event.data.sequence_start.tag) ||
			 (type == YAML_MAPPING_START_EVENT && event.data.mapping_start.tag))
			err = wrong(error, "tags are not taken here");
		else if (type == YAML_DOCUMENT_START_EVENT && documents++)
			err = wrong(error, "one document is enough");
		yaml_event_delete(&event);
	}
	return err;
}

static int text_parse(const char *text, size_t len, int (*with)(yaml_parser_t *, void *), void *arg)
{
	yaml_parser_t parser;
	int err;

	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	err = with(&parser, arg);
	yaml_parser_delete(&parser);
	return err;
}

static int with_events(yaml_parser_t *parser, void *error)
{
	return events_check(parser, error);
}

struct whole {
	const struct schema *rows;
	void *base;
	struct definition_error *error;
};

static int with_document(yaml_parser_t *parser, void *arg)
{
	struct whole *whole = arg;
	yaml_document_t document;
	struct reader reader = { .document = &document, .error = whole->error };
	yaml_node_t *root;
	int err = 0;

	if (!yaml_parser_load(parser, &document))
		return wrong(whole->error, "not YAML");
	root = yaml_document_get_root_node(&document);
	if (!root)
		err = wrong(whole->error, "there is nothing in it");
	else
		err = read_map(&reader, root, "a definition", whole->rows, whole->base);
	yaml_document_delete(&document);
	return err;
}

int schema_read(const struct schema *rows, void *base, const char *text, size_t len,
		struct definition_error *error)
{
	struct whole whole = { rows, base, error };
	int err = text_parse(text, len, with_events, error);

	if (err)
		return err;
	error->line = 0;
	error->column = 0;
	schema_init(rows, base);
	return text_parse(text, len, with_document, &whole);
}

/* Writing */

struct writer {
	yaml_document_t document;
	bool failed;
};

static int write_scalar(struct writer *writer, const char *text)
{
	int node = yaml_document_add_scalar(&writer->document, NULL, (const unsigned char *)text, -1,
					    YAML_ANY_SCALAR_STYLE);

	writer->failed |= !node;
	return node;
}

/* As a person writes it. */
static void size_text(uint64_t bytes, char *text, size_t room)
{
	static const char suffix[] = "GMK";

	for (unsigned int i = 0; i < 3; i++) {
		const uint64_t unit = 1ULL << (30 - 10 * i);

		if (bytes && bytes % unit == 0) {
			snprintf(text, room, "%llu%c", (unsigned long long)(bytes / unit), suffix[i]);
			return;
		}
	}
	snprintf(text, room, "%llu", (unsigned long long)bytes);
}

static int write_value(struct writer *writer, const struct schema *row, const void *base)
{
	const uint64_t value = row->kind == SCHEMA_TEXT ? 0 : number_of(row, base);
	char text[32];

	switch (row->kind) {
	case SCHEMA_TEXT:
		return write_scalar(writer, (const char *)base + row->offset);
	case SCHEMA_CHOICE:
		return write_scalar(writer, row->choices[value]);
	case SCHEMA_FLAG:
		return write_scalar(writer, value ? "yes" : "no");
	case SCHEMA_SIZE:
		size_text(value, text, sizeof(text));
		return write_scalar(writer, text);
	default:
		snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
		return write_scalar(writer, text);
	}
}

static int write_map(struct writer *writer, const struct schema *rows, const void *base);

static int write_list(struct writer *writer, const struct schema *row, const void *base)
{
	const uint64_t count = *list_count(row, (void *)base);
	int list = yaml_document_add_sequence(&writer->document, NULL, YAML_BLOCK_SEQUENCE_STYLE);

	for (uint64_t i = 0; i < count && list; i++) {
		const void *item = list_item(row, base, i);
		int node = *row->of->key ? write_map(writer, row->of, item) :
					   write_value(writer, row->of, item);

		if (!node || !yaml_document_append_sequence_item(&writer->document, list, node))
			writer->failed = true;
	}
	writer->failed |= !list;
	return list;
}

/* Is there nothing to say? */
static bool row_plain(const struct schema *row, const void *base)
{
	if (row->kind == SCHEMA_TEXT)
		return !((const char *)base)[row->offset];
	if (row->kind == SCHEMA_LIST)
		return !*list_count(row, (void *)base);
	if (row->kind != SCHEMA_MAP)
		return number_of(row, base) == row->otherwise;
	for (const struct schema *of = row->of; of->key; of++)
		if (!row_plain(of, (const char *)base + row->offset))
			return false;
	return true;
}

static int write_map(struct writer *writer, const struct schema *rows, const void *base)
{
	int map = yaml_document_add_mapping(&writer->document, NULL, YAML_BLOCK_MAPPING_STYLE);

	for (const struct schema *row = rows; row->key && map; row++) {
		int key, value;

		if (row_plain(row, base))
			continue;
		key = write_scalar(writer, row->key);
		if (row->kind == SCHEMA_MAP)
			value = write_map(writer, row->of, (const char *)base + row->offset);
		else if (row->kind == SCHEMA_LIST)
			value = write_list(writer, row, base);
		else
			value = write_value(writer, row, base);
		if (!key || !value ||
		    !yaml_document_append_mapping_pair(&writer->document, map, key, value))
			writer->failed = true;
	}
	writer->failed |= !map;
	return map;
}

static int write_out(void *data, unsigned char *buffer, size_t size)
{
	return fwrite(buffer, 1, size, data) == size;
}

/* The emitter takes the document, whatever comes of it. */
static bool document_emit(yaml_document_t *document, FILE *out)
{
	yaml_emitter_t emitter;
	bool good;

	if (!yaml_emitter_initialize(&emitter)) {
		yaml_document_delete(document);
		return false;
	}
	yaml_emitter_set_output(&emitter, write_out, out);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	good = yaml_emitter_open(&emitter) && yaml_emitter_dump(&emitter, document) &&
	       yaml_emitter_close(&emitter);
	yaml_emitter_delete(&emitter);
	return good;
}

char *schema_write(const struct schema *rows, const void *base)
{
	struct writer writer = { 0 };
	char *text = NULL;
	size_t len;
	FILE *out;
	bool good;

	out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	if (!yaml_document_initialize(&writer.document, NULL, NULL, NULL, 1, 1)) {
		good = false;
	} else {
		write_map(&writer, rows, base);
		good = document_emit(&writer.document, out);
	}
	if (fclose(out) || !good || writer.failed) {
		free(text);
		return NULL;
	}
	return text;
}

/* JSON */

static struct json_object *json_value(const struct schema *row, const void *base);

struct json_object *schema_json(const struct schema *rows, const void *base)
{
	struct json_object *object = json_object_new_object();

	for (const struct schema *row = rows; object && row->key; row++)
		json_object_object_add(object, row->key, json_value(row, base));
	return object;
}

static struct json_object *json_list(const struct schema *row, const void *base)
{
	const uint64_t count = *list_count(row, (void *)base);
	struct json_object *array = json_object_new_array();

	for (uint64_t i = 0; array && i < count; i++) {
		const void *item = list_item(row, base, i);

		json_object_array_add(array, *row->of->key ? schema_json(row->of, item) :
							     json_value(row->of, item));
	}
	return array;
}

static struct json_object *json_value(const struct schema *row, const void *base)
{
	switch (row->kind) {
	case SCHEMA_TEXT:
		return json_object_new_string((const char *)base + row->offset);
	case SCHEMA_MAP:
		return schema_json(row->of, (const char *)base + row->offset);
	case SCHEMA_LIST:
		return json_list(row, base);
	case SCHEMA_CHOICE:
		return json_object_new_string(row->choices[number_of(row, base)]);
	case SCHEMA_FLAG:
		return json_object_new_boolean(number_of(row, base));
	default:
		return json_object_new_int64(number_of(row, base));
	}
}
