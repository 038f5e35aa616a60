// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/qemu_launcher/qmp.h"

#define QMP_ANSWER_MS	30000
#define QMP_DEPTH	16
#define QMP_PIECE	4096
#define QMP_TURN	64	/* pieces, before others have theirs */

struct json_object *qmp_member(struct json_object *object, const char *key)
{
	struct json_object *value = NULL;

	return json_object_is_type(object, json_type_object) &&
	       json_object_object_get_ex(object, key, &value) ? value : NULL;
}

const char *qmp_text(struct json_object *object, const char *key)
{
	struct json_object *value = qmp_member(object, key);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

uint64_t qmp_number(struct json_object *object, const char *key)
{
	struct json_object *value = qmp_member(object, key);

	return json_object_is_type(value, json_type_int) ? json_object_get_uint64(value) : 0;
}

static void qmp_end(struct qmp *qmp, const char *why)
{
	if (qmp->source.fd < 0)
		return;
	if (why)
		log_error("QEMU: %s", why);
	fd_close(qmp->source.fd);
	qmp->source.fd = -1;
	fd_signal_event(qmp->news.fd);
}

/* Messages */

static void qmp_keep_event(struct qmp *qmp, struct json_object *event)
{
	if (json_object_array_length(qmp->events) >= QMP_EVENTS_MAX) {
		json_object_put(event);
		return;
	}
	json_object_array_add(qmp->events, event);
	fd_signal_event(qmp->news.fd);
}

/* Takes it over. False: it is no message, or none that can come now. */
static bool qmp_take(struct qmp *qmp, struct json_object *message)
{
	if (*qmp_text(message, "event")) {
		qmp_keep_event(qmp, message);
		return true;
	}
	if (qmp_member(message, "QMP") && !qmp->greeted) {
		qmp->greeted = true;
		json_object_put(message);
		return true;
	}
	if ((json_object_object_get_ex(message, "return", NULL) || qmp_member(message, "error")) &&
	    !qmp->answer && qmp->serial && qmp_number(message, "id") == qmp->serial) {
		qmp->answer = message;
		return true;
	}
	json_object_put(message);
	return false;
}

/* One line, without its end. */
static bool qmp_parse(struct qmp *qmp, const char *line, size_t len)
{
	struct json_tokener *tokener;
	struct json_object *message;
	bool whole;

	if (len && line[len - 1] == '\r')
		len--;
	tokener = json_tokener_new_ex(QMP_DEPTH);
	if (!tokener)
		return false;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	message = json_tokener_parse_ex(tokener, line, len);
	whole = message && json_tokener_get_parse_end(tokener) == len &&
		json_object_is_type(message, json_type_object);
	json_tokener_free(tokener);
	if (whole)
		return qmp_take(qmp, message);
	json_object_put(message);
	return false;
}

/* All complete lines, of which the first new byte is at @from. */
static bool qmp_split(struct qmp *qmp, size_t from)
{
	size_t begin = 0;
	char *end;

	while ((end = memchr(qmp->line + from, '\n', qmp->length - from))) {
		if (!qmp_parse(qmp, qmp->line + begin, end - qmp->line - begin))
			return false;
		begin = from = end - qmp->line + 1;
	}
	qmp->length -= begin;
	memmove(qmp->line, qmp->line + begin, qmp->length);
	return true;
}

static bool qmp_make_room(struct qmp *qmp)
{
	char *line;

	if (qmp->room - qmp->length >= QMP_PIECE)
		return true;
	if (qmp->room >= QMP_LINE_MAX)
		return qmp->length < qmp->room;
	line = realloc(qmp->line, qmp->room ? qmp->room * 2 : QMP_PIECE * 2);
	if (!line)
		return false;
	qmp->line = line;
	qmp->room = qmp->room ? qmp->room * 2 : QMP_PIECE * 2;
	return true;
}

bool qmp_read(struct qmp *qmp)
{
	ssize_t n;

	for (unsigned int i = 0; i < QMP_TURN && qmp->source.fd >= 0; i++) {
		if (!qmp_make_room(qmp)) {
			qmp_end(qmp, "it said more in a line than it may");
			break;
		}
		n = recv(qmp->source.fd, qmp->line + qmp->length, qmp->room - qmp->length, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n <= 0) {
			qmp_end(qmp, NULL);
			break;
		}
		qmp->length += n;
		if (!qmp_split(qmp, qmp->length - n))
			qmp_end(qmp, "what it said was no message");
	}
	return qmp->source.fd >= 0;
}

static void qmp_ready(struct loop_source *source)
{
	qmp_read((struct qmp *)source);
}

struct json_object *qmp_next_event(struct qmp *qmp)
{
	struct json_object *event;

	if (!json_object_array_length(qmp->events))
		return NULL;
	event = json_object_get(json_object_array_get_idx(qmp->events, 0));
	json_object_array_del_idx(qmp->events, 0, 1);
	return event;
}

/* Calls */

static int qmp_send(struct qmp *qmp, const char *command, struct json_object *arguments, int fd)
{
	struct json_object *call = json_object_new_object();
	const char *text;
	int err;

	qmp->serial += 1 + (qmp->serial == UINT32_MAX);
	json_object_object_add(call, "execute", json_object_new_string(command));
	if (arguments)
		json_object_object_add(call, "arguments", arguments);
	json_object_object_add(call, "id", json_object_new_int64(qmp->serial));
	text = json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN);
	err = text ? fd_send(qmp->source.fd, text, strlen(text), fd) : -ENOMEM;
	json_object_put(call);
	return err;
}

static void qmp_wait(struct qmp *qmp)
{
	const int64_t deadline = clock_ms() + QMP_ANSWER_MS;

	while (qmp->source.fd >= 0 && !qmp->answer) {
		struct pollfd wait = { .fd = qmp->source.fd, .events = POLLIN };
		const int64_t left = deadline - clock_ms();

		if (left <= 0 || (poll(&wait, 1, left) <= 0 && errno != EINTR)) {
			qmp_end(qmp, "it does not answer");
			return;
		}
		qmp_read(qmp);
	}
}

int qmp_call(struct qmp *qmp, const char *command, struct json_object *arguments, int fd,
	     struct json_object **ret)
{
	struct json_object *error;

	*qmp->why = '\0';
	if (qmp->source.fd < 0) {
		json_object_put(arguments);
		return -ECONNRESET;
	}
	if (qmp_send(qmp, command, arguments, fd))
		qmp_end(qmp, "it takes no calls");
	qmp_wait(qmp);
	if (!qmp->answer)
		return -ECONNRESET;
	error = qmp_member(qmp->answer, "error");
	if (error)
		snprintf(qmp->why, sizeof(qmp->why), "%s: %.*s", command, QMP_WHY - 40,
			 qmp_text(error, "desc"));
	else if (ret)
		*ret = json_object_get(qmp_member(qmp->answer, "return"));
	json_object_put(qmp->answer);
	qmp->answer = NULL;
	return error ? -EIO : 0;
}

int qmp_init(struct qmp *qmp, int fd)
{
	*qmp = (struct qmp){
		.source = { .fd = fd, .ready = qmp_ready },
		.news = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) },
		.events = json_object_new_array(),
	};
	return qmp->news.fd < 0 || !qmp->events ? -ENOMEM : 0;
}

void qmp_finish(struct qmp *qmp)
{
	fd_close(qmp->source.fd);
	fd_close(qmp->news.fd);
	json_object_put(qmp->events);
	json_object_put(qmp->answer);
	free(qmp->line);
	*qmp = (struct qmp){ .source = { .fd = -1 }, .news = { .fd = -1 } };
}
