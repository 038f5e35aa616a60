/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_API_H
#define MOATD_API_H

#include <stdint.h>

#include "userspace/moatd/varlink.h"

struct definition_error;

/* Whom a method is for. */
enum api_role {
	API_ANYONE,
	API_OWNER,	/* of the machine that "name" names; and root */
	API_ROOT,
};

/* org.moat, as org.moat.varlink describes it. */
extern const struct varlink api;

/* Handlers, by what they are about: api_network.c, api_disk.c, api_attach.c; api.c has the rest, and the table. */
void api_network_list(struct call *call);
void api_network_info(struct call *call);
void api_network_define(struct call *call);
void api_network_delete(struct call *call);
void api_attach_disk(struct call *call);
void api_detach_disk(struct call *call);
void api_attach_network(struct call *call);
void api_detach_network(struct call *call);
void api_disk_list(struct call *call);
void api_disk_create(struct call *call);
void api_disk_resize(struct call *call);
void api_disk_verb(struct call *call);
void api_disk_snapshots(struct call *call);

/* Members of objects, and the ends of calls. */
void add_text(struct json_object *object, const char *key, const char *value);
void add_number(struct json_object *object, const char *key, int64_t value);
void reply_text(struct call *call, const char *key, const char *value);
void reply_error(struct call *call, const char *error, const char *key, const char *value);
void reply_failed(struct call *call, const char *message);
void reply_definition_error(struct call *call, const struct definition_error *error);

#endif /* MOATD_API_H */
