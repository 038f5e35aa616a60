// SPDX-License-Identifier: MIT OR GPL-2.0
/* varlink's messages: in pieces, many at once, broken; calls whose client goes before their end. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/moatd/varlink.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static sd_event *event;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_len;
static struct call *held;	/* a call that is not ended yet */
static bool gone;

static void serve_echo(struct call *call)
{
	struct json_object *reply = json_object_new_object();

	json_object_object_add(reply, "text", json_object_new_string(call_text(call, "text")));
	call_reply(call, reply);
}

static void serve_hold(struct call *call)
{
	held = call;
}

static void held_gone(void *arg)
{
	(void)arg;
	gone = true;
	call_reply(held, NULL);
	held = NULL;
}

static void serve_listen(struct call *call)
{
	held = call;
	call_on_gone(call, held_gone, NULL);
}

static void serve_big(struct call *call)
{
	char *text = malloc(1 << 20);
	struct json_object *reply = json_object_new_object();

	memset(text, 'x', 1 << 20);
	json_object_object_add(reply, "text", json_object_new_string_len(text, 1 << 20));
	free(text);
	call_reply(call, reply);
}

static void serve_take(struct call *call)
{
	int fd = call_upgrade(call);

	if (fd >= 0)
		EXPECT(write(fd, "raw", 3) == 3 && !close(fd));
}

static const struct varlink_method methods[] = {
	{ "Echo", 0, false, false, serve_echo, { { "text", VARLINK_TEXT, true } } },
	{ "Hold", 0, false, false, serve_hold, { { "number", VARLINK_NUMBER, false } } },
	{ "Listen", 0, true, false, serve_listen, { { 0 } } },
	{ "Big", 0, false, false, serve_big, { { 0 } } },
	{ "Take", 0, false, true, serve_take, { { 0 } } },
	{ 0 },
};

static bool allow(struct call *call)
{
	(void)call;
	return true;
}

static const struct varlink service = {
	.interface = "org.test", .description = "", .methods = methods, .allow = allow,
};

/* Until there is nothing to do. */
static void turn(void)
{
	while (sd_event_run(event, 1000) > 0)
		;
}

static int client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	EXPECT(!connect(fd, (struct sockaddr *)&address, address_len));
	turn();
	return fd;
}

static void say_len(int fd, const char *text, size_t len)
{
	EXPECT(send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len);
	turn();
}

static void say(int fd, const char *text)
{
	say_len(fd, text, strlen(text) + 1);
}

/* What has come, with line ends for zeroes; "": nothing; NULL: and never will. */
static const char *heard(int fd)
{
	static char text[8192];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	if (!n)
		return NULL;
	for (ssize_t i = 0; i < n; i++)
		if (!text[i])
			text[i] = '\n';
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static bool hears(int fd, const char *wanted)
{
	const char *text = heard(fd);
	const bool same = wanted ? text && strstr(text, wanted) : !text;

	if (!same)
		printf("# heard: %s\n", text ? text : "the end");
	return same;
}

#define ECHO(text)	"{\"method\":\"org.test.Echo\",\"parameters\":{\"text\":\"" text "\"}}"

static void test_pieces(void)
{
	static const char call[] = ECHO("a");
	int fd = client();

	for (size_t i = 0; i < sizeof(call); i++) {
		EXPECT(!*heard(fd));
		say_len(fd, call + i, 1);
	}
	EXPECT(hears(fd, "{\"parameters\":{\"text\":\"a\"}}\n"));
	say_len(fd, ECHO("b") "\0" ECHO("c") "\0" ECHO("d"), 3 * sizeof(ECHO("b")));
	EXPECT(hears(fd, "{\"parameters\":{\"text\":\"b\"}}\n{\"parameters\":{\"text\":\"c\"}}\n"
			 "{\"parameters\":{\"text\":\"d\"}}\n"));
	close(fd);
	turn();
}

/* What is no call ends the connection. */
static void test_broken(void)
{
	static const char *const texts[] = {
		"", "x", "[]", "1", "{", "{}", "{\"method\":1}", "{\"method\":\"a.b\",\"parameters\":[]}", "{}}",
		ECHO("\xff"), "{\"method\":\"org.test.Echo\"} x",
		"{\"method\":\"a.b\",\"parameters\":{\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		int fd = client();

		say(fd, texts[i]);
		if (!EXPECT(hears(fd, NULL)))
			printf("# after %s\n", texts[i]);
		close(fd);
	}
}

static void test_wrong(void)
{
	static const struct {
		const char *call;
		const char *error;
	} wrongs[] = {
		{ "{\"method\":\"\"}", "InterfaceNotFound" },
		{ "{\"method\":\".\"}", "InterfaceNotFound" },
		{ "{\"method\":\"org.other.Echo\"}", "InterfaceNotFound" },
		{ "{\"method\":\"org.test.\"}", "MethodNotFound" },
		{ "{\"method\":\"org.test.Echo\"}", "InvalidParameter\",\"parameters\":{\"parameter\":\"text\"" },
		{ "{\"method\":\"org.test.Echo\",\"parameters\":{\"text\":null}}", "InvalidParameter" },
		{ "{\"method\":\"org.test.Echo\",\"parameters\":{\"text\":\"a\\u0000b\"}}", "InvalidParameter" },
		{ "{\"method\":\"org.test.Echo\",\"parameters\":{\"text\":\"a\",\"b\":1}}", "\"parameter\":\"b\"" },
		{ "{\"method\":\"org.test.Hold\",\"parameters\":{\"number\":1.5}}", "\"parameter\":\"number\"" },
		{ "{\"method\":\"org.test.Listen\"}", "\"parameter\":\"more\"" },
		{ "{\"method\":\"org.test.Take\"}", "\"parameter\":\"upgrade\"" },
	};
	int fd = client();

	for (size_t i = 0; i < ARRAY_SIZE(wrongs); i++) {
		say(fd, wrongs[i].call);
		EXPECT(hears(fd, wrongs[i].error));
	}
	say(fd, ECHO("still"));
	EXPECT(hears(fd, "still"));
	close(fd);
	turn();
}

/* A call is ended after its client has gone; and the next one waits for the end of the one before. */
static void test_held(void)
{
	int fd = client();

	say(fd, "{\"method\":\"org.test.Hold\"}");
	say(fd, ECHO("next"));
	EXPECT(held && !*heard(fd));
	call_reply(held, NULL);
	turn();
	EXPECT(hears(fd, "{\"parameters\":{}}\n{\"parameters\":{\"text\":\"next\"}}"));
	say(fd, "{\"method\":\"org.test.Hold\"}");
	close(fd);
	turn();
	EXPECT(call_uid(held) == getuid());
	EXPECT(!call_more(held, NULL));
	call_error(held, "Late", NULL);
	fd = client();
	say(fd, "{\"method\":\"org.test.Hold\",\"oneway\":true}");
	call_reply(held, NULL);
	turn();
	EXPECT(!*heard(fd));
	close(fd);
	turn();
}

/* Who listens may go in any way, before anything was said and after. */
static void test_listens(void)
{
	for (unsigned int i = 0; i < 4; i++) {
		int fd = client();

		say(fd, "{\"method\":\"org.test.Listen\",\"more\":true}");
		if (i & 1)
			EXPECT(call_more(held, NULL) && hears(fd, "\"continues\":true"));
		gone = false;
		if (i & 2)
			shutdown(fd, SHUT_WR);
		else
			close(fd);
		turn();
		EXPECT(gone);
		if (i & 2)
			close(fd);
		turn();
	}
}

/* Who does not read is cut off, at some point; who sends no end, too. */
static void test_much(void)
{
	static char text[300 << 10];
	int fd = client();

	for (unsigned int i = 0; i < 8; i++)
		send(fd, "{\"method\":\"org.test.Big\"}", 26, MSG_NOSIGNAL);
	turn();
	EXPECT(send(fd, "x", 1, MSG_NOSIGNAL) < 0);
	close(fd);
	fd = client();
	memset(text, 'x', sizeof(text));
	for (size_t sent = 0; sent < sizeof(text);) {
		ssize_t n = send(fd, text + sent, sizeof(text) - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		turn();
		if (n < 0)
			break;
		sent += n;
	}
	EXPECT(send(fd, "x", 1, MSG_NOSIGNAL) < 0);
	close(fd);
	turn();
}

static void test_upgrade(void)
{
	static const char take[] = "{\"method\":\"org.test.Take\",\"upgrade\":true}";
	int fd = client();

	say(fd, take);
	EXPECT(hears(fd, "{\"parameters\":{}}\nraw"));
	EXPECT(hears(fd, NULL));
	close(fd);
	/* What comes at once behind it would be lost: so it is refused. */
	fd = client();
	say_len(fd, "{\"method\":\"org.test.Take\",\"upgrade\":true}\0raw", sizeof(take) + 3);
	EXPECT(hears(fd, NULL));
	close(fd);
}

static const struct unit_test tests[] = {
	{ "messages in pieces, and many at once", test_pieces },
	{ "what is no message ends the connection", test_broken },
	{ "calls that are wrong get an error", test_wrong },
	{ "a call whose client goes before its end", test_held },
	{ "who listens, and goes", test_listens },
	{ "who never reads, or never ends", test_much },
	{ "a connection that is handed over", test_upgrade },
};

int main(void)
{
	int status, listener = socket(AF_UNIX, SOCK_STREAM, 0);

	address_len = sizeof(sa_family_t);	/* a name of the kernel's */
	if (bind(listener, (struct sockaddr *)&address, address_len))
		return 1;
	address_len = sizeof(address);
	getsockname(listener, (struct sockaddr *)&address, &address_len);
	if (listen(listener, 16) || sd_event_new(&event) < 0 || varlink_serve(&service, event, listener) < 0)
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	sd_event_unref(event);
	return status;
}
