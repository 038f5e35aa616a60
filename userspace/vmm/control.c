// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Who speaks here can do with the machine what can be done with it, and no harm to others who speak here: what
 * is no request ends the connection that it came by, and so does not to take answers. Nothing here waits
 * for a connection. Verbs that take their time hold up the other connections, and nothing else: the loop
 * is a thread of its own, beside the one that waits for the machine's end.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/vmm/control.h"

#define CONTROL_VERBS	(CONTROL_DUMP + 1)

static bool text_is_legal(const char *text, size_t size, bool wanted)
{
	size_t len = strnlen(text, size);

	if (len == size || !len == wanted)
		return false;
	for (; len < size; len++)
		if (text[len])
			return false;
	return true;
}

bool control_is_legal(const struct control_request *request, const struct control_verb *verb,
		      bool descriptor)
{
	return verb->act && !request->reserved && descriptor == verb->descriptor &&
	       (verb->value || !request->value) &&
	       request->isolation <= (verb->isolation ? CONTROL_SHARED : CONTROL_GRANT) &&
	       text_is_legal(request->type, sizeof(request->type), verb->type) &&
	       text_is_legal(request->name, sizeof(request->name), verb->name);
}

static void client_drop(struct control_client *client)
{
	fd_close(client->source.fd);
	client->source.fd = -1;
	client->late = 0;
}

static void client_send(struct control_client *client, const struct control_answer *answer)
{
	if (fd_send(client->source.fd, answer, sizeof(*answer), -1))
		client_drop(client);
}

/* Nothing more is read until it has been answered. */
static void client_wait(struct control_client *client, const struct control_request *request)
{
	client->late = request->what;
	client->serial = request->serial;
	loop_remove(&client->control->loop, &client->source);
}

static void client_serve(struct control_client *client, struct control_call *call)
{
	const struct control_request *request = call->request;
	int result = client->control->verbs[request->what].act(call);

	if (result == CONTROL_LATER) {
		client_wait(client, request);
		return;
	}
	call->answer.what = request->what;
	call->answer.serial = request->serial;
	call->answer.error = result;
	client_send(client, &call->answer);
}

static void client_ready(struct loop_source *source)
{
	struct control_client *client = (struct control_client *)source;
	const struct control *control = client->control;
	struct control_request request;
	struct control_call call = { .owner = control->owner, .request = &request };
	ssize_t n;

	if (source->fd < 0 || client->late)
		return;
	n = fd_receive(source->fd, &request, sizeof(request), &call.descriptor);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n == sizeof(request) && request.what < CONTROL_VERBS &&
	    control_is_legal(&request, &control->verbs[request.what], call.descriptor >= 0))
		client_serve(client, &call);
	else
		client_drop(client);
	fd_close(call.descriptor);
}

/* One too many finds its connection closed. */
static void listener_ready(struct loop_source *source)
{
	struct control *control = (struct control *)((char *)source -
						     offsetof(struct control, listener));
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned int i = 0; i < CONTROL_CLIENTS && fd >= 0; i++) {
		struct control_client *client = &control->client[i];

		if (client->source.fd >= 0)
			continue;
		client->source.fd = fd;
		if (loop_add(&control->loop, &client->source))
			client_drop(client);
		return;
	}
	fd_close(fd);
}

int control_init(struct control *control, int listener, const struct control_verb *verbs,
		 void *owner)
{
	int err = loop_init(&control->loop);

	fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK);
	control->listener = (struct loop_source){ .fd = listener, .ready = listener_ready };
	control->verbs = verbs;
	control->owner = owner;
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++)
		control->client[i] = (struct control_client){
			.source = { .fd = -1, .ready = client_ready }, .control = control,
		};
	return err;
}

int control_listen(struct control *control)
{
	int err = loop_add(&control->loop, &control->listener);

	return err ? err : loop_start(&control->loop, "control");
}

void control_finish_late(struct control *control, uint32_t what, int error)
{
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *client = &control->client[i];
		const struct control_answer answer = {
			.what = what, .serial = client->serial, .error = error,
		};

		if (client->late != what)
			continue;
		client->late = 0;
		if (loop_add(&control->loop, &client->source))
			client_drop(client);
		else
			client_send(client, &answer);
	}
}

void control_tell(struct control *control, uint32_t what, const char *name)
{
	struct control_answer event = { .what = what };

	strncpy(event.name, name, sizeof(event.name) - 1);
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++)
		if (control->client[i].source.fd >= 0)
			client_send(&control->client[i], &event);
}

void control_finish(struct control *control)
{
	loop_finish(&control->loop);
	for (unsigned int i = 0; i < CONTROL_CLIENTS; i++)
		client_drop(&control->client[i]);
}
