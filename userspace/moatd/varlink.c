// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Clients are strangers. What one can cost is bounded: how many there are of a user, how long a message is,
 * and how much of answers waits for who does not read them. A message that is none ends its connection,
 * a call that is wrong gets an error; others notice nothing of either.
 *
 * A call belongs to whoever serves it until it is ended. Its client may go before: then answers go nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "moat/version.h"
#include "userspace/moatd/varlink.h"

#define VARLINK_SERVICE		"org.varlink.service"
#define VARLINK_MESSAGE_MAX	(256 << 10)
#define VARLINK_ANSWERS_MAX	(4 << 20)
#define VARLINK_CLIENTS		512	/* root's apart, which are let in always */
#define VARLINK_CLIENTS_OF_USER	64
#define VARLINK_DEPTH		16
#define VARLINK_READ		4096

struct client {
	struct client *next;
	int fd;
	uid_t uid;
	sd_event_source *source;
	struct call *call;	/* that is being served */
	char *in;
	size_t in_len;
	size_t in_room;
	char *out;
	size_t out_len;
	size_t out_room;
};

struct call {
	struct client *client;	/* NULL: it is gone */
	struct call *next;	/* of those whose client is gone */
	uid_t uid;
	const struct varlink_method *method;
	struct json_object *message;
	struct json_object *parameters;
	bool oneway;
	void (*gone)(void *arg);
	void *arg;
};

static const struct varlink *varlink_service;
static sd_event *varlink_event;
static struct client *varlink_clients;
static struct call *varlink_orphans;	/* calls that go on, of clients that are gone */

static const char service_description[] =
"# What every varlink service answers\n"
"interface " VARLINK_SERVICE "\n"
"\n"
"method GetInfo() -> (vendor: string, product: string, version: string, url: string,\n"
"  interfaces: []string)\n"
"method GetInterfaceDescription(interface: string) -> (description: string)\n"
"\n"
"error InterfaceNotFound(interface: string)\n"
"error MethodNotFound(method: string)\n"
"error MethodNotImplemented(method: string)\n"
"error InvalidParameter(parameter: string)\n";

/* Clients */

static void client_destroy(struct client *client)
{
	struct client **at = &varlink_clients;
	struct call *call = client->call;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	sd_event_source_disable_unref(client->source);
	if (client->fd >= 0)
		close(client->fd);
	free(client->in);
	free(client->out);
	free(client);
	if (!call)
		return;
	call->client = NULL;
	call->next = varlink_orphans;
	varlink_orphans = call;
	if (call->gone)
		call->gone(call->arg);
}

/* There is a whole message that nobody has looked at. */
static bool client_has_message(const struct client *client)
{
	return client->in_len && memchr(client->in, 0, client->in_len);
}

/* What the loop is to wait for: room for answers; while no call is served, the next, which may be here. */
static void client_arm(struct client *client)
{
	uint32_t events = !client->call ? EPOLLIN : client->call->gone ? EPOLLRDHUP : 0;

	if (client->out_len || (!client->call && client_has_message(client)))
		events |= EPOLLOUT;
	sd_event_source_set_io_events(client->source, events);
}

/* False: the client is gone. */
static bool client_flush(struct client *client)
{
	while (client->out_len) {
		ssize_t n = send(client->fd, client->out, client->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			client_destroy(client);
			return false;
		}
		client->out_len -= n;
		memmove(client->out, client->out + n, client->out_len);
	}
	client_arm(client);
	return true;
}

static bool buffer_reserve(char **buffer, size_t *room, size_t want)
{
	size_t grown = *room ? *room : VARLINK_READ;
	char *larger;

	if (want <= *room)
		return true;
	while (grown < want)
		grown *= 2;
	larger = realloc(*buffer, grown);
	if (!larger)
		return false;
	*buffer = larger;
	*room = grown;
	return true;
}

/* Takes the object over. False: the client is gone. */
static bool client_send(struct client *client, struct json_object *message)
{
	size_t len = 0;
	const char *text = message ?
		json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN, &len) : NULL;
	const size_t want = client->out_len + len + 1;

	if (!text || want > VARLINK_ANSWERS_MAX ||
	    !buffer_reserve(&client->out, &client->out_room, want)) {
		json_object_put(message);
		client_destroy(client);
		return false;
	}
	memcpy(client->out + client->out_len, text, len + 1);
	client->out_len = want;
	json_object_put(message);
	return client_flush(client);
}

/* Calls */

uid_t call_uid(const struct call *call)
{
	return call->uid;
}

int call_tag(const struct call *call)
{
	return call->method->tag;
}

const char *call_method(const struct call *call)
{
	return call->method->name;
}

struct json_object *call_object(const struct call *call, const char *parameter)
{
	return call->parameters ? json_object_object_get(call->parameters, parameter) : NULL;
}

const char *call_text(const struct call *call, const char *parameter)
{
	struct json_object *value = call_object(call, parameter);

	return value ? json_object_get_string(value) : NULL;
}

int64_t call_number(const struct call *call, const char *parameter, int64_t otherwise)
{
	struct json_object *value = call_object(call, parameter);

	return value ? json_object_get_int64(value) : otherwise;
}

bool call_flag(const struct call *call, const char *parameter)
{
	return json_object_get_boolean(call_object(call, parameter));
}

static void orphan_forget(const struct call *call)
{
	struct call **at = &varlink_orphans;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
}

/* Its client, which goes on to the next; NULL where it has gone, or wants no answer. */
static struct client *call_finish(struct call *call, bool *ret_quiet)
{
	struct client *client = call->client;

	*ret_quiet = call->oneway;
	if (client)
		client->call = NULL;
	else
		orphan_forget(call);
	json_object_put(call->message);
	free(call);
	return client;
}

static void call_end(struct call *call, struct json_object *message)
{
	bool quiet;
	struct client *client = call_finish(call, &quiet);

	if (!client || quiet)
		json_object_put(message);
	else if (!client_send(client, message))
		return;
	if (client)
		client_arm(client);
}

void call_reply(struct call *call, struct json_object *parameters)
{
	struct json_object *message = json_object_new_object();

	json_object_object_add(message, "parameters",
			       parameters ? parameters : json_object_new_object());
	call_end(call, message);
}

static void error_reply(struct call *call, const char *interface, const char *error,
			struct json_object *parameters)
{
	struct json_object *message = json_object_new_object();
	char name[128];

	snprintf(name, sizeof(name), "%s.%s", interface, error);
	json_object_object_add(message, "error", json_object_new_string(name));
	json_object_object_add(message, "parameters",
			       parameters ? parameters : json_object_new_object());
	call_end(call, message);
}

void call_error(struct call *call, const char *error, struct json_object *parameters)
{
	error_reply(call, varlink_service->interface, error, parameters);
}

static void standard_error(struct call *call, const char *error, const char *key, const char *value)
{
	struct json_object *parameters = json_object_new_object();

	json_object_object_add(parameters, key, json_object_new_string(value));
	error_reply(call, VARLINK_SERVICE, error, parameters);
}

void call_invalid(struct call *call, const char *parameter)
{
	standard_error(call, "InvalidParameter", "parameter", parameter);
}

bool call_more(struct call *call, struct json_object *parameters)
{
	struct json_object *message;

	if (!call->client) {
		json_object_put(parameters);
		return false;
	}
	message = json_object_new_object();
	json_object_object_add(message, "parameters",
			       parameters ? parameters : json_object_new_object());
	json_object_object_add(message, "continues", json_object_new_boolean(true));
	return client_send(call->client, message);
}

bool call_wants_more(const struct call *call)
{
	return json_object_get_boolean(json_object_object_get(call->message, "more"));
}

void call_on_gone(struct call *call, void (*gone)(void *arg), void *arg)
{
	call->gone = gone;
	call->arg = arg;
	/* Nothing else tells that a client which only listens has gone. */
	if (call->client)
		client_arm(call->client);
}

int call_upgrade(struct call *call)
{
	static const char answer[] = "{\"parameters\":{}}";
	bool quiet;
	struct client *client = call_finish(call, &quiet);
	int fd;

	if (!client)
		return -ECONNRESET;
	fd = client->fd;
	if (client->out_len || client->in_len ||
	    send(fd, answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(answer)) {
		client_destroy(client);
		return -ECONNRESET;
	}
	/* The loop has to let it go before its number is nobody's. */
	sd_event_source_disable_unref(client->source);
	client->source = NULL;
	client->fd = -1;
	client_destroy(client);
	return fd;
}

/* The service that all have */

static void serve_info(struct call *call)
{
	struct json_object *info = json_object_new_object(), *interfaces = json_object_new_array();

	json_object_array_add(interfaces, json_object_new_string(VARLINK_SERVICE));
	json_object_array_add(interfaces, json_object_new_string(varlink_service->interface));
	json_object_object_add(info, "vendor", json_object_new_string("Moat"));
	json_object_object_add(info, "product", json_object_new_string("moatd"));
	json_object_object_add(info, "version", json_object_new_string(MOAT_VERSION));
	json_object_object_add(info, "url", json_object_new_string(""));
	json_object_object_add(info, "interfaces", interfaces);
	call_reply(call, info);
}

static void serve_description(struct call *call)
{
	const char *name = call_text(call, "interface"), *text = NULL;
	struct json_object *description;

	if (!strcmp(name, VARLINK_SERVICE))
		text = service_description;
	else if (!strcmp(name, varlink_service->interface))
		text = varlink_service->description;
	if (!text) {
		standard_error(call, "InterfaceNotFound", "interface", name);
		return;
	}
	description = json_object_new_object();
	json_object_object_add(description, "description", json_object_new_string(text));
	call_reply(call, description);
}

static const struct varlink_method service_methods[] = {
	{ .name = "GetInfo", .serve = serve_info },
	{ .name = "GetInterfaceDescription", .serve = serve_description,
	  .parameter = { { "interface", VARLINK_TEXT, true } } },
	{ 0 },
};

/* Dispatch */

static bool texts_right(struct json_object *value)
{
	if (!json_object_is_type(value, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(value); i++)
		if (!json_object_is_type(json_object_array_get_idx(value, i), json_type_string))
			return false;
	return true;
}

/* Texts with zeroes in them would end elsewhere for who compares them. */
static bool value_right(struct json_object *value, enum varlink_type type)
{
	if (type == VARLINK_NUMBER)
		return json_object_is_type(value, json_type_int);
	if (type == VARLINK_FLAG)
		return json_object_is_type(value, json_type_boolean);
	if (type == VARLINK_TEXTS)
		return texts_right(value);
	return json_object_is_type(value, json_type_string) &&
	       strlen(json_object_get_string(value)) == (size_t)json_object_get_string_len(value);
}

static const struct varlink_parameter *parameter_find(const struct varlink_method *method,
						      const char *name)
{
	for (const struct varlink_parameter *at = method->parameter; at->name; at++)
		if (!strcmp(at->name, name))
			return at;
	return NULL;
}

/* What is null is as if it were not there. Return: the name of what is wrong; NULL: nothing. */
static const char *parameters_wrong(const struct call *call)
{
	if (call->parameters) {
		json_object_object_foreach(call->parameters, name, value) {
			const struct varlink_parameter *parameter = parameter_find(call->method, name);

			if (!parameter || (value && !value_right(value, parameter->type)))
				return name;
		}
	}
	for (const struct varlink_parameter *at = call->method->parameter; at->name; at++)
		if (at->needed && !call_object(call, at->name))
			return at->name;
	return NULL;
}

static const struct varlink_method *method_find(const char *name, bool *ret_interface)
{
	const char *dot = strrchr(name, '.');
	const struct varlink_method *methods;
	const size_t len = dot ? dot - name : 0;

	*ret_interface = true;
	if (len == strlen(VARLINK_SERVICE) && !strncmp(name, VARLINK_SERVICE, len))
		methods = service_methods;
	else if (len && len == strlen(varlink_service->interface) &&
		 !strncmp(name, varlink_service->interface, len))
		methods = varlink_service->methods;
	else
		methods = NULL;
	*ret_interface = methods;
	for (; methods && methods->name; methods++)
		if (!strcmp(methods->name, dot + 1))
			return methods;
	return NULL;
}

static bool message_flag(struct json_object *message, const char *name)
{
	return json_object_get_boolean(json_object_object_get(message, name));
}

static void call_dispatch(struct call *call, const char *method)
{
	static const struct varlink_method none = { .name = "" };
	const char *bad;
	bool interface;

	call->method = method_find(method, &interface);
	if (!call->method) {
		call->method = &none;
		standard_error(call, interface ? "MethodNotFound" : "InterfaceNotFound",
			       interface ? "method" : "interface", method);
		return;
	}
	bad = parameters_wrong(call);
	if (!bad && call->method->streams && !message_flag(call->message, "more"))
		bad = "more";
	if (!bad && call->method->upgrades && !message_flag(call->message, "upgrade"))
		bad = "upgrade";
	if (bad)
		call_invalid(call, bad);
	else if (varlink_service->allow(call))
		call->method->serve(call);
}

/* False: it is no call. The message is taken over. */
static bool client_call(struct client *client, struct json_object *message)
{
	struct json_object *method = json_object_object_get(message, "method");
	struct json_object *parameters = json_object_object_get(message, "parameters");
	struct call *call;

	if (!json_object_is_type(method, json_type_string) ||
	    (parameters && !json_object_is_type(parameters, json_type_object)))
		return false;
	call = calloc(1, sizeof(*call));
	if (!call)
		return false;
	*call = (struct call){
		.client = client, .uid = client->uid, .message = json_object_get(message), .parameters = parameters,
		.oneway = message_flag(message, "oneway"),
	};
	client->call = call;
	client_arm(client);
	call_dispatch(call, json_object_get_string(method));
	return true;
}

/* The text ends with a zero. NULL: it is no object. */
static struct json_object *message_parse(const char *text, size_t len)
{
	struct json_tokener *tokener = json_tokener_new_ex(VARLINK_DEPTH);
	struct json_object *message;

	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	message = json_tokener_parse_ex(tokener, text, len + 1);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    !json_object_is_type(message, json_type_object)) {
		json_object_put(message);
		message = NULL;
	}
	json_tokener_free(tokener);
	return message;
}

/* False: there is no more to serve now, or the client is gone. */
static bool client_serve_next(struct client *client)
{
	const char *end = client->in_len ? memchr(client->in, 0, client->in_len) : NULL;
	struct json_object *message;
	size_t len;

	if (!end) {
		if (client->in_len < VARLINK_MESSAGE_MAX)
			return false;
		client_destroy(client);
		return false;
	}
	len = end - client->in;
	message = message_parse(client->in, len);
	client->in_len -= len + 1;
	memmove(client->in, client->in + len + 1, client->in_len);
	if (!message) {
		client_destroy(client);
		return false;
	}
	/* The call may end the client. */
	if (!client_call(client, message)) {
		json_object_put(message);
		client_destroy(client);
		return false;
	}
	json_object_put(message);
	return true;
}

static bool client_is_there(const struct client *client)
{
	for (const struct client *at = varlink_clients; at; at = at->next)
		if (at == client)
			return true;
	return false;
}

static void client_serve(struct client *client)
{
	while (client_is_there(client) && !client->call && client_serve_next(client))
		;
	if (client_is_there(client))
		client_arm(client);
}

static void client_read(struct client *client)
{
	ssize_t n;

	if (!buffer_reserve(&client->in, &client->in_room, client->in_len + VARLINK_READ)) {
		client_destroy(client);
		return;
	}
	n = recv(client->fd, client->in + client->in_len, VARLINK_READ, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_destroy(client);
		return;
	}
	client->in_len += n;
	client_serve(client);
}

static int client_ready(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct client *client = arg;

	(void)source;
	(void)fd;
	if ((revents & EPOLLOUT) && !client_flush(client))
		return 0;
	if (client->call) {
		/* A program that has closed its end for writing may wait for its answer all the same. */
		if ((revents & (EPOLLHUP | EPOLLERR)) || ((revents & EPOLLRDHUP) && client->call->gone))
			client_destroy(client);
		return 0;
	}
	if (client_has_message(client))
		client_serve(client);
	else if (revents & ~EPOLLOUT)
		client_read(client);
	return 0;
}

/* What a client asked for and did not wait for counts as if it was there. */
static bool client_is_too_many(uid_t uid)
{
	unsigned int own = 0, all = 0;

	for (const struct client *at = varlink_clients; at; at = at->next) {
		own += at->uid == uid;
		all += at->uid != 0;
	}
	for (const struct call *at = varlink_orphans; at; at = at->next) {
		own += at->uid == uid;
		all += at->uid != 0;
	}
	return uid && (own >= VARLINK_CLIENTS_OF_USER || all >= VARLINK_CLIENTS);
}

static void client_create(int fd)
{
	struct client *client;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ||
	    client_is_too_many(cred.uid)) {
		close(fd);
		return;
	}
	client = calloc(1, sizeof(*client));
	if (!client || sd_event_add_io(varlink_event, &client->source, fd, EPOLLIN, client_ready,
				       client) < 0) {
		free(client);
		close(fd);
		return;
	}
	client->fd = fd;
	client->uid = cred.uid;
	client->next = varlink_clients;
	varlink_clients = client;
}

static int listener_ready(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)source;
	(void)revents;
	(void)arg;
	if (client >= 0)
		client_create(client);
	return 0;
}

int varlink_serve(const struct varlink *service, sd_event *event, int listener)
{
	varlink_service = service;
	varlink_event = event;
	fcntl(listener, F_SETFL, O_NONBLOCK);
	return sd_event_add_io(event, NULL, listener, EPOLLIN, listener_ready, NULL);
}
