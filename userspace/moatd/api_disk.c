// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/moatd/api.h"
#include "userspace/moatd/keep.h"

static const char *const formats[] = { "raw", "qcow2" };

/* A list that comes from the keeper, an answer each. */
struct gather {
	struct call *call;
	const char *key;
	struct json_object *array;
	uid_t uid;
	struct json_object *(*json)(const struct keeper_answer *answer, uid_t uid);
};

static void gather_answered(void *arg, const struct keeper_answer *answer, int fd)
{
	struct gather *gather = arg;
	struct json_object *item, *reply;

	(void)fd;
	if (answer->more) {
		item = gather->json(answer, gather->uid);
		if (item)
			json_object_array_add(gather->array, item);
		return;
	}
	if (answer->error) {
		reply_failed(gather->call, answer->why);
		json_object_put(gather->array);
	} else {
		reply = json_object_new_object();
		json_object_object_add(reply, gather->key, gather->array);
		call_reply(gather->call, reply);
	}
	free(gather);
}

static void gather_start(struct call *call, const char *key, enum keeper_what what,
			 const struct keeper_disk *disk,
			 struct json_object *(*json)(const struct keeper_answer *answer, uid_t uid))
{
	struct gather *gather = malloc(sizeof(*gather));

	if (!gather) {
		reply_failed(call, strerror(ENOMEM));
		return;
	}
	*gather = (struct gather){ call, key, json_object_new_array(), call_uid(call), json };
	keep_ask(what, disk, disk ? sizeof(*disk) : 0, gather_answered, gather);
}

static struct json_object *disk_json(const struct keeper_answer *answer, uid_t uid)
{
	const struct disk_info *disk = &answer->disk;
	struct json_object *object;

	if (uid && disk->owner != uid)
		return NULL;
	object = json_object_new_object();
	add_text(object, "name", disk->name);
	add_text(object, "format", formats[disk->format == DISK_QCOW2]);
	add_number(object, "size", disk->size);
	add_number(object, "allocated", disk->allocated);
	add_number(object, "owner", disk->owner);
	json_object_object_add(object, "in_use", json_object_new_boolean(disk->in_use));
	add_number(object, "snapshots", disk->snapshots);
	return object;
}

void api_disk_list(struct call *call)
{
	gather_start(call, "disks", KEEPER_DISK_LIST, NULL, disk_json);
}

static struct json_object *snapshot_json(const struct keeper_answer *answer, uid_t uid)
{
	struct json_object *object = json_object_new_object();

	(void)uid;
	add_text(object, "name", answer->snapshot.name);
	add_number(object, "size", answer->snapshot.size);
	add_number(object, "time", answer->snapshot.seconds);
	return object;
}

/* False: the text does not fit, and the call has been ended. */
static bool take_text(struct call *call, const char *parameter, char *to, size_t room)
{
	const char *text = call_text(call, parameter);

	if (text && strlen(text) >= room) {
		call_invalid(call, parameter);
		return false;
	}
	if (text)
		strcpy(to, text);
	return true;
}

static bool take_format(struct call *call, const char *parameter, uint32_t *ret)
{
	const char *text = call_text(call, parameter);

	if (!text)
		return true;
	for (unsigned int i = 0; i < 2; i++)
		if (!strcmp(text, formats[i])) {
			*ret = i ? DISK_QCOW2 : DISK_RAW;
			return true;
		}
	call_invalid(call, parameter);
	return false;
}

static bool call_disk(struct call *call, struct keeper_disk *disk)
{
	memset(disk, 0, sizeof(*disk));
	disk->uid = call_uid(call);
	disk->size = call_number(call, "size", 0);
	disk->shrink = call_flag(call, "shrink");
	if (disk->size > DISK_SIZE_MAX) {
		call_invalid(call, "size");
		return false;
	}
	return take_text(call, "name", disk->name, sizeof(disk->name)) &&
	       take_text(call, "from", disk->from, sizeof(disk->from)) &&
	       take_text(call, "snapshot", disk->snapshot, sizeof(disk->snapshot)) &&
	       take_format(call, "format", &disk->format) &&
	       take_format(call, "from_format", &disk->from_format);
}

static void disk_answered(void *arg, const struct keeper_answer *answer, int fd)
{
	struct call *call = arg;
	struct json_object *progress;

	(void)fd;
	if (answer->more && call_wants_more(call)) {
		progress = json_object_new_object();
		add_number(progress, "hundredths", answer->hundredths);
		call_more(call, progress);
	}
	if (answer->more)
		return;
	if (answer->error)
		reply_failed(call, answer->why);
	else
		call_reply(call, NULL);
}

static void disk_ask(struct call *call, enum keeper_what what)
{
	struct keeper_disk disk;

	if (call_disk(call, &disk))
		keep_ask(what, &disk, sizeof(disk), disk_answered, call);
}

void api_disk_create(struct call *call)
{
	disk_ask(call, KEEPER_DISK_CREATE);
}

void api_disk_resize(struct call *call)
{
	disk_ask(call, KEEPER_DISK_RESIZE);
}

void api_disk_verb(struct call *call)
{
	static const struct {
		const char *method;
		enum keeper_what what;
	} verbs[] = {
		{ "DiskDelete", KEEPER_DISK_DELETE }, { "DiskSnapshot", KEEPER_DISK_SNAPSHOT },
		{ "DiskSnapshotDelete", KEEPER_DISK_SNAPSHOT_DELETE },
		{ "DiskRevert", KEEPER_DISK_REVERT },
	};
	unsigned int i = 0;

	while (strcmp(verbs[i].method, call_method(call)))
		i++;
	disk_ask(call, verbs[i].what);
}

void api_disk_snapshots(struct call *call)
{
	struct keeper_disk disk;

	if (call_disk(call, &disk))
		gather_start(call, "snapshots", KEEPER_DISK_SNAPSHOTS, &disk, snapshot_json);
}
