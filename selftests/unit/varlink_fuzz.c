// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: varlink's messages and who serves them. The input is what a client sends, in pieces: a byte tells
 * how long the next one is; 255: it goes, and another one comes; 254: a call that is held is ended.
 *
 * What must hold, beside that no sanitizer complains: there is always somebody to connect to, and nothing of a client is
 * left when it has gone.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "userspace/moatd/varlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sd_event *event;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_len = sizeof(sa_family_t);
static struct call *held;

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void serve_echo(struct call *call)
{
	struct json_object *reply = json_object_new_object();
	const char *text = call_text(call, "text");

	must(text && strlen(text) < 1 << 20);
	json_object_object_add(reply, "text", json_object_new_string(text));
	json_object_object_add(reply, "number", json_object_new_int64(call_number(call, "number", 7)));
	json_object_object_add(reply, "flag", json_object_new_boolean(call_flag(call, "flag")));
	json_object_object_add(reply, "list", json_object_get(call_object(call, "list")));
	call_reply(call, reply);
}

static void held_end(void *arg)
{
	struct call *call = held;

	(void)arg;
	held = NULL;
	if (call)
		call_reply(call, NULL);
}

static void serve_hold(struct call *call)
{
	held_end(NULL);
	held = call;
}

static void listener_gone(void *arg)
{
	call_reply(arg, NULL);
}

static void serve_listen(struct call *call)
{
	call_on_gone(call, listener_gone, call);
	call_more(call, NULL);
}

static void serve_take(struct call *call)
{
	int fd = call_upgrade(call);

	if (fd >= 0)
		close(fd);
}

static const struct varlink_method methods[] = {
	{ "Echo", 0, false, false, serve_echo,
	  { { "text", VARLINK_TEXT, true }, { "number", VARLINK_NUMBER, false },
	    { "flag", VARLINK_FLAG, false }, { "list", VARLINK_TEXTS, false } } },
	{ "Hold", 0, false, false, serve_hold, { { 0 } } },
	{ "Listen", 0, true, false, serve_listen, { { 0 } } },
	{ "Take", 0, false, true, serve_take, { { 0 } } },
	{ 0 },
};

static bool allow(struct call *call)
{
	if (!call_text(call, "refuse"))
		return true;
	call_error(call, "Refused", NULL);
	return false;
}

static const struct varlink service = {
	.interface = "t", .description = "interface t", .methods = methods, .allow = allow,
};

static void turn(void)
{
	while (sd_event_run(event, 0) > 0)
		;
}

static int client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	must(fd >= 0 && !connect(fd, (struct sockaddr *)&address, address_len));
	turn();
	return fd;
}

static void start(void)
{
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	must(!bind(listener, (struct sockaddr *)&address, address_len));
	address_len = sizeof(address);
	must(!getsockname(listener, (struct sockaddr *)&address, &address_len) && !listen(listener, 16));
	must(sd_event_new(&event) >= 0 && varlink_serve(&service, event, listener) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char heard[1 << 16];
	int fd;

	if (!event)
		start();
	fd = client();
	while (size) {
		const uint8_t what = *data++;
		size_t len = what < --size ? what : size;

		if (what == 254) {
			held_end(NULL);
		} else if (what == 255) {
			close(fd);
			turn();
			fd = client();
		} else {
			send(fd, data, len, MSG_NOSIGNAL);
			data += len;
			size -= len;
		}
		turn();
		if (recv(fd, heard, sizeof(heard), MSG_DONTWAIT) == 0) {
			close(fd);
			fd = client();
		}
	}
	close(fd);
	turn();
	held_end(NULL);
	return 0;
}
