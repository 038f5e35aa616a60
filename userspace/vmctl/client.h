/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* vmctl's connection to moatd: org.moat over varlink. */
#ifndef VMCTL_CLIENT_H
#define VMCTL_CLIENT_H

#include <json-c/json.h>
#include <stdbool.h>

enum client_how { CLIENT_ONCE, CLIENT_MORE, CLIENT_UPGRADE };

/**
 * client_call - call a method, and wait for what comes of it
 * @method: of org.moat
 * @parameters: taken over; NULL: none
 * @ret: the reply's parameters, to be put; NULL: not wanted
 *
 * Return: 0; or an exit status, after a line that says what is wrong.
 */
int client_call(const char *method, struct json_object *parameters, struct json_object **ret);

/* The same for a method of which many replies come: @each gets one after the other, until it returns false. */
int client_stream(const char *method, struct json_object *parameters,
		  bool (*each)(struct json_object *reply, void *arg), void *arg);

/* The same for one that makes a stream of the connection: @ret_fd. */
int client_upgrade(const char *method, struct json_object *parameters, int *ret_fd);

/* Parameters of one name. */
struct json_object *client_name(const char *name);

/* What of an object; "" and 0 where it is not there. */
const char *client_text(struct json_object *object, const char *key);
int64_t client_number(struct json_object *object, const char *key);

#endif /* VMCTL_CLIENT_H */
