/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Rows of struct schema in writing: a key, and which member of which struct it is. */
#ifndef MOATD_SCHEMA_ROWS_H
#define MOATD_SCHEMA_ROWS_H

#include <stddef.h>

#include "userspace/moatd/schema.h"

#define TEXT(key_, type, member, wrong_) \
	{ .key = (key_), .kind = SCHEMA_TEXT, .offset = offsetof(type, member), \
	  .room = sizeof(((type *)0)->member), .wrong = (wrong_) }
#define NUMBER(key_, type, member, min_, max_, otherwise_) \
	{ .key = (key_), .kind = SCHEMA_NUMBER, .offset = offsetof(type, member), .min = (min_), \
	  .max = (max_), .otherwise = (otherwise_) }
#define SIZE(key_, type, member, min_, max_, otherwise_) \
	{ .key = (key_), .kind = SCHEMA_SIZE, .offset = offsetof(type, member), .min = (min_), \
	  .max = (max_), .otherwise = (otherwise_) }
#define FLAG(key_, type, member, otherwise_) \
	{ .key = (key_), .kind = SCHEMA_FLAG, .offset = offsetof(type, member), \
	  .otherwise = (otherwise_) }
#define CHOICE(key_, type, member, choices_) \
	{ .key = (key_), .kind = SCHEMA_CHOICE, .offset = offsetof(type, member), \
	  .choices = (choices_) }
#define MAP(key_, type, member, of_) \
	{ .key = (key_), .kind = SCHEMA_MAP, .offset = offsetof(type, member), .of = (of_) }
#define LIST(key_, type, member, count_, max_, of_) \
	{ .key = (key_), .kind = SCHEMA_LIST, .offset = offsetof(type, member), \
	  .room = sizeof(((type *)0)->member[0]), .count = offsetof(type, count_), .max = (max_), \
	  .of = (of_) }

#endif /* MOATD_SCHEMA_ROWS_H */
