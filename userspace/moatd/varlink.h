/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A service that speaks varlink (varlink.org): JSON objects, each with a zero behind it, over a Unix socket.
 * A client's calls are served one after the other; its user is what the kernel says.
 */
#ifndef MOATD_VARLINK_H
#define MOATD_VARLINK_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#define VARLINK_PARAMETERS	16

struct call;

enum varlink_type { VARLINK_TEXT, VARLINK_NUMBER, VARLINK_FLAG, VARLINK_TEXTS };

/* @name: NULL ends a list */
struct varlink_parameter {
	const char *name;
	enum varlink_type type;
	bool needed;
};

/**
 * struct varlink_method - a row of the table of an interface
 * @name: without the interface's; NULL ends the table
 * @tag: the service's own, call_tag() tells it
 * @streams: it can only be called with "more"
 * @upgrades: it can only be called with "upgrade"
 * @serve: takes the call; later, if not at once, it is ended by one of the functions below
 */
struct varlink_method {
	const char *name;
	int tag;
	bool streams;
	bool upgrades;
	void (*serve)(struct call *call);
	struct varlink_parameter parameter[VARLINK_PARAMETERS];
};

/**
 * struct varlink - a service
 * @interface: its name
 * @description: its text in varlink's language
 * @allow: called before each call is served: true, or it has ended the call with an error
 */
struct varlink {
	const char *interface;
	const char *description;
	const struct varlink_method *methods;
	bool (*allow)(struct call *call);
};

/* Serves whoever connects to @listener. The service must stay. 0 or a negative errno. */
int varlink_serve(const struct varlink *service, sd_event *event, int listener);

/* What was called */
uid_t call_uid(const struct call *call);
int call_tag(const struct call *call);
const char *call_method(const struct call *call);
const char *call_text(const struct call *call, const char *parameter);	/* NULL: it is not there */
int64_t call_number(const struct call *call, const char *parameter, int64_t otherwise);
bool call_flag(const struct call *call, const char *parameter);
struct json_object *call_object(const struct call *call, const char *parameter);

/* The ends of a call; each takes over the object, which may be NULL. */
void call_reply(struct call *call, struct json_object *parameters);
void call_error(struct call *call, const char *error, struct json_object *parameters);

/* An error of varlink's own: a parameter is not what it should be. */
void call_invalid(struct call *call, const char *parameter);

/**
 * call_upgrade - the end of a call: it is answered, and its connection is the caller's from now on
 *
 * Return: the descriptor; or a negative errno, where the client has gone, or takes nothing.
 */
int call_upgrade(struct call *call);

/* One more answer of a call that streams; false: its client is gone, and it is to be ended. */
bool call_more(struct call *call, struct json_object *parameters);

/* Did the client ask for many answers? */
bool call_wants_more(const struct call *call);

/* Have @gone called when the client goes before the call's end; it ends the call. */
void call_on_gone(struct call *call, void (*gone)(void *arg), void *arg);

#endif /* MOATD_VARLINK_H */
