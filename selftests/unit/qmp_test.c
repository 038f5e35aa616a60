// SPDX-License-Identifier: MIT OR GPL-2.0
/* What moat-qemu reads from QEMU: pieces, and what no QEMU would say. The test is QEMU; answers are there before the call. */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/qemu_launcher/qmp.h"

static struct qmp qmp;
static int far;

static void begin(void)
{
	int ends[2], room = 4 << 20;

	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	EXPECT(!qmp_init(&qmp, ends[0]));
	far = ends[1];
}

static void end(void)
{
	qmp_finish(&qmp);
	close(far);
}

static void say_bytes(const char *bytes, size_t len)
{
	EXPECT(!fd_write_full(far, bytes, len));
}

static void say(const char *text)
{
	say_bytes(text, strlen(text));
}

static int call(struct json_object **ret)
{
	return qmp_call(&qmp, "query-status", NULL, -1, ret);
}

/* What an event is called that is the next one; "": there is none. */
static const char *next_event(char name[64])
{
	struct json_object *event = qmp_next_event(&qmp);

	snprintf(name, 64, "%s", qmp_text(event, "event"));
	json_object_put(event);
	return name;
}

static void test_call(void)
{
	struct json_object *ret = NULL;
	char said[256];
	ssize_t n;

	begin();
	say("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n{\"return\": {\"status\": \"running\", \"n\": 7}, \"id\": 1}\r\n");
	EXPECT(!call(&ret) && qmp.greeted);
	EXPECT(!strcmp(qmp_text(ret, "status"), "running") && qmp_number(ret, "n") == 7);
	json_object_put(ret);
	n = read(far, said, sizeof(said) - 1);
	said[n < 0 ? 0 : n] = '\0';
	EXPECT(!strcmp(said, "{\"execute\":\"query-status\",\"id\":1}"));
	say("{\"return\": {}, \"id\": 2}\n");
	EXPECT(!call(NULL));
	end();
}

static void test_refused(void)
{
	struct json_object *ret = NULL;

	begin();
	say("{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\r\n");
	EXPECT(call(&ret) == -EIO && !ret && !strcmp(qmp.why, "query-status: no such thing"));
	say("{\"id\": 2, \"error\": 5}\r\n");
	EXPECT(call(NULL) == -EIO);
	EXPECT(qmp.source.fd >= 0);
	end();
}

static void test_descriptor(void)
{
	char said[256];
	int fd = -1;

	begin();
	say("{\"return\": {}, \"id\": 1}\r\n");
	EXPECT(!qmp_call(&qmp, "getfd", json_object_new_object(), STDERR_FILENO, NULL));
	EXPECT(fd_receive(far, said, sizeof(said), &fd) > 0 && fd >= 0);
	fd_close(fd);
	end();
}

static void test_pieces(void)
{
	static const char text[] = "{\"event\": \"A\", \"data\": {\"x\": \"a\\n\\u0041}{\"}}\r\n{\"event\": \"B\"}\n";
	char name[64];

	begin();
	for (size_t i = 0; text[i]; i++) {
		say_bytes(text + i, 1);
		EXPECT(qmp_read(&qmp));
	}
	EXPECT(fd_take_event(qmp.news.fd));
	EXPECT(!strcmp(next_event(name), "A") && !strcmp(next_event(name), "B") && !*next_event(name));
	say("{\"event\": \"C\"}\n{\"event\": \"D\"}\n{\"return\": {}, \"id\": 1}\n{\"event\": \"E\"}\n");
	EXPECT(!call(NULL));
	EXPECT(!strcmp(next_event(name), "C") && !strcmp(next_event(name), "D"));
	end();
}

/* Each ends the connection, and calls from then on fail at once. */
static void test_hostile(void)
{
	static const char *const texts[] = {
		"\n", "{}\n", "[]\n", "5\n", "null\n", "{\"return\": {}}\n", "{\"return\": {}, \"id\": 2}\n",
		"{\"return\": {}, \"id\": \"1\"}\n", "{\"return\": {}, \"id\": -1}\n", "{\"event\": 5}\n", "{\"event\": \"\"}\n",
		"{\"event\": \"A\"} x\n", "{\"event\": \"A\"\n", "{\"event\": \"A\\\n\"}\n", "{'event': 'A'}\n",
		"{\"QMP\": {}}\n{\"QMP\": {}}\n", "{\"QMP\": null}\n", "\xff\xfe\n", "{\"error\": null, \"id\": 1}\n",
		"{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 1}\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		begin();
		say(texts[i]);
		shutdown(far, SHUT_WR);
		call(NULL);
		if (!EXPECT(call(NULL) == -ECONNRESET && qmp.source.fd < 0))
			printf("# %zu: %s", i, texts[i]);
		EXPECT(fd_take_event(qmp.news.fd));
		end();
	}
}

static void test_zero_byte(void)
{
	begin();
	say_bytes("{\"event\": \"A\"}\0\n", 17);
	EXPECT(!qmp_read(&qmp) && qmp.source.fd < 0);
	end();
}

static void test_deep(void)
{
	begin();
	for (int i = 0; i < 10000; i++)
		say("{\"event\":");
	say("\n");
	EXPECT(call(NULL) == -ECONNRESET);
	end();
}

static void test_long(void)
{
	static char spaces[QMP_LINE_MAX];

	memset(spaces, ' ', sizeof(spaces));
	begin();
	say_bytes(spaces, sizeof(spaces) / 2);
	EXPECT(qmp_read(&qmp));
	say("{\"event\": \"A\"}\n");
	EXPECT(qmp_read(&qmp) && json_object_array_length(qmp.events) == 1);
	say_bytes(spaces, sizeof(spaces));
	EXPECT(!qmp_read(&qmp) && qmp.source.fd < 0);
	end();
}

/* Those that nobody takes are not kept without end. */
static void test_flood(void)
{
	begin();
	for (int i = 0; i < 10000; i++) {
		say("{\"event\": \"A\", \"data\": {\"a\": [1, 2, 3]}}\n");
		if (i % 100 == 0)
			qmp_read(&qmp);
	}
	EXPECT(qmp_read(&qmp) && json_object_array_length(qmp.events) == QMP_EVENTS_MAX);
	end();
}

static void test_gone(void)
{
	begin();
	close(far);
	far = dup(STDERR_FILENO);
	EXPECT(call(NULL) == -ECONNRESET);
	end();
}

static void test_types(void)
{
	struct json_object *object = json_tokener_parse("{\"a\": 5, \"b\": \"x\", \"c\": [], \"d\": -1, \"e\": null}");

	EXPECT(!*qmp_text(object, "a") && !qmp_number(object, "b") && !*qmp_text(object, "c"));
	EXPECT(!qmp_number(object, "d") && !qmp_number(object, "e") && !qmp_member(object, "f"));
	EXPECT(!qmp_member(NULL, "a") && !*qmp_text(NULL, "a") && !qmp_number(qmp_member(object, "c"), "a"));
	json_object_put(object);
}

int main(void)
{
	static const struct unit_test tests[] = {
		{ "a call and its answer", test_call },
		{ "a call that is refused", test_refused },
		{ "a call with a descriptor", test_descriptor },
		{ "messages in pieces, and events before an answer", test_pieces },
		{ "what is no message, or not now, ends the connection", test_hostile },
		{ "a zero byte", test_zero_byte },
		{ "objects in objects", test_deep },
		{ "a line that is too long", test_long },
		{ "more events than anybody takes", test_flood },
		{ "QEMU has gone", test_gone },
		{ "members that are something else", test_types },
	};

	return unit_main(tests, ARRAY_SIZE(tests));
}
