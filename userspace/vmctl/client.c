// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"

#define CLIENT_SOCKET		"/run/moat/control"
#define CLIENT_INTERFACE	"org.moat."
#define CLIENT_MESSAGE_MAX	(8 << 20)

/* @single: bytes are read one by one, since what is behind the reply is not for us */
struct client {
	int fd;
	bool single;
	char *in;
	size_t len;
	size_t room;
};

const char *client_text(struct json_object *object, const char *key)
{
	struct json_object *value = json_object_object_get(object, key);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

int64_t client_number(struct json_object *object, const char *key)
{
	return json_object_get_int64(json_object_object_get(object, key));
}

struct json_object *client_name(const char *name)
{
	struct json_object *parameters = json_object_new_object();

	json_object_object_add(parameters, "name", json_object_new_string(name));
	return parameters;
}

static int client_open(struct client *client)
{
	const char *path = getenv("MOAT_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	*client = (struct client){ .fd = -1 };
	if (!path)
		path = CLIENT_SOCKET;
	if (strlen(path) >= sizeof(address.sun_path)) {
		log_error("%s: too long for a socket's path", path);
		return STATUS_NO_MOATD;
	}
	strcpy(address.sun_path, path);
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd >= 0 && !connect(client->fd, (struct sockaddr *)&address, sizeof(address)))
		return 0;
	log_error("cannot reach moatd at %s: %s%s", path, strerror(errno),
		  errno == EACCES ? " (users of the group moat may)" :
		  errno == ENOENT || errno == ECONNREFUSED ? " (is it running?)" : "");
	fd_close(client->fd);
	client->fd = -1;
	return STATUS_NO_MOATD;
}

static void client_close(struct client *client)
{
	fd_close(client->fd);
	client->fd = -1;
	free(client->in);
}

static int client_send(struct client *client, const char *method, struct json_object *parameters,
		       enum client_how how)
{
	struct json_object *message = json_object_new_object();
	char name[64] = CLIENT_INTERFACE;
	const char *text;
	size_t len;
	int err;

	strncat(name, method, sizeof(name) - sizeof(CLIENT_INTERFACE));
	json_object_object_add(message, "method", json_object_new_string(name));
	json_object_object_add(message, "parameters",
			       parameters ? parameters : json_object_new_object());
	if (how != CLIENT_ONCE)
		json_object_object_add(message, how == CLIENT_MORE ? "more" : "upgrade",
				       json_object_new_boolean(true));
	text = json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN, &len);
	err = text ? fd_write_full(client->fd, text, len + 1) : -ENOMEM;
	json_object_put(message);
	return err;
}

/* True: there is more of it now. */
static bool client_read(struct client *client)
{
	char *larger;
	ssize_t n;

	if (client->len == client->room) {
		if (client->room >= CLIENT_MESSAGE_MAX)
			return false;
		larger = realloc(client->in, client->room ? 2 * client->room : 4096);
		if (!larger)
			return false;
		client->in = larger;
		client->room = client->room ? 2 * client->room : 4096;
	}
	do {
		n = read(client->fd, client->in + client->len,
			 client->single ? 1 : client->room - client->len);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		client->len += n;
	return n > 0;
}

/* The next message; NULL: there is none, the connection is lost. */
static struct json_object *client_receive(struct client *client)
{
	struct json_object *message;
	char *end;

	while (!(end = client->len ? memchr(client->in, 0, client->len) : NULL))
		if (!client_read(client))
			return NULL;
	message = json_tokener_parse(client->in);
	client->len -= end + 1 - client->in;
	memmove(client->in, end + 1, client->len);
	if (json_object_is_type(message, json_type_object))
		return message;
	json_object_put(message);
	return NULL;
}

/* What an error means, in words; its parameters are in the message, which "message" is the best of. */
static void client_complain(const char *error, struct json_object *parameters)
{
	const char *dot = strrchr(error, '.'), *what = dot ? dot + 1 : error;
	const char *name = client_text(parameters, "name");

	if (!strcmp(what, "NoSuchNetwork"))
		log_error("%s: there is no such network", name);
	else if (!strcmp(what, "NoSuchMachine"))
		log_error("%s: there is no such machine", name);
	else if (!strcmp(what, "MachineExists"))
		log_error("%s: there is a machine of that name", name);
	else if (!strcmp(what, "InvalidState"))
		log_error("%s: it is %s, so there is nothing to %s", name,
			  client_text(parameters, "state"), client_text(parameters, "verb"));
	else if (!strcmp(what, "InvalidDefinition") && client_number(parameters, "line"))
		log_error("line %lld, column %lld: %s", (long long)client_number(parameters, "line"),
			  (long long)client_number(parameters, "column"),
			  client_text(parameters, "message"));
	else if (!strcmp(what, "InvalidParameter"))
		log_error("%s: moatd does not take that", client_text(parameters, "parameter"));
	else if (*client_text(parameters, "message"))
		log_error("%s", client_text(parameters, "message"));
	else
		log_error("moatd says %s", what);
}

/* One reply: 0 and its parameters, borrowed from *@ret_message; or a status. */
static int client_reply(struct client *client, struct json_object **ret_message,
			struct json_object **ret_parameters)
{
	struct json_object *message = client_receive(client), *error;

	if (!message) {
		log_error("moatd has hung up; see its own log");
		return STATUS_NO_MOATD;
	}
	*ret_parameters = json_object_object_get(message, "parameters");
	error = json_object_object_get(message, "error");
	if (!error) {
		*ret_message = message;
		return 0;
	}
	client_complain(json_object_get_string(error), *ret_parameters);
	json_object_put(message);
	return STATUS_REFUSED;
}

static int client_begin(struct client *client, const char *method, struct json_object *parameters,
			enum client_how how)
{
	int status = client_open(client);

	if (status) {
		json_object_put(parameters);
		return status;
	}
	if (!client_send(client, method, parameters, how))
		return 0;
	log_error("moatd does not listen");
	client_close(client);
	return STATUS_NO_MOATD;
}

int client_call(const char *method, struct json_object *parameters, struct json_object **ret)
{
	struct json_object *message, *reply;
	struct client client;
	int status = client_begin(&client, method, parameters, CLIENT_ONCE);

	if (status)
		return status;
	status = client_reply(&client, &message, &reply);
	client_close(&client);
	if (status)
		return status;
	if (ret)
		*ret = json_object_get(reply);
	json_object_put(message);
	return 0;
}

int client_stream(const char *method, struct json_object *parameters,
		  bool (*each)(struct json_object *reply, void *arg), void *arg)
{
	struct json_object *message, *reply;
	struct client client;
	int status = client_begin(&client, method, parameters, CLIENT_MORE);
	bool more = !status;

	while (more) {
		status = client_reply(&client, &message, &reply);
		if (status)
			break;
		more = each(reply, arg) &&
		       json_object_get_boolean(json_object_object_get(message, "continues"));
		json_object_put(message);
	}
	if (client.fd >= 0)
		client_close(&client);
	return status;
}

int client_upgrade(const char *method, struct json_object *parameters, int *ret_fd)
{
	struct json_object *message, *reply;
	struct client client;
	int status = client_begin(&client, method, parameters, CLIENT_UPGRADE);

	if (status)
		return status;
	client.single = true;
	status = client_reply(&client, &message, &reply);
	if (status) {
		client_close(&client);
		return status;
	}
	json_object_put(message);
	free(client.in);
	*ret_fd = client.fd;
	return 0;
}
