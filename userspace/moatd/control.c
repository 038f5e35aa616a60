// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/moatd/control.h"

#define CONTROL_INTERVAL_US	100000
#define CONTROL_BURST		100

struct control_wait {
	struct control_wait *next;
	uint32_t what;
	uint32_t serial;
	control_answer_t then;
	void *arg;
};

/* @first: of those that wait, the oldest request's: answers come in their order */
struct control {
	int fd;
	sd_event_source *source;
	const struct control_ops *ops;
	void *arg;
	uint32_t serial;
	struct control_wait *first;
	struct control_wait **last;
};

static struct control_wait *control_pop(struct control *control)
{
	struct control_wait *wait = control->first;

	control->first = wait->next;
	if (!control->first)
		control->last = &control->first;
	return wait;
}

/* False: it is what no launcher of ours says. */
static bool control_take(struct control *control, const struct control_answer *answer)
{
	struct control_wait *wait;

	if (answer->what == CONTROL_DETACHED || answer->what == CONTROL_RESTARTED) {
		if (!memchr(answer->name, 0, sizeof(answer->name)))
			return false;
		if (control->ops->event)
			control->ops->event(control->arg, answer);
		return true;
	}
	if (!control->first || control->first->serial != answer->serial ||
	    control->first->what != answer->what || answer->error > 0)
		return false;
	wait = control_pop(control);
	if (wait->then)
		wait->then(wait->arg, answer);
	free(wait);
	return true;
}

static int control_ready(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct control *control = arg;
	struct control_answer answer;
	ssize_t n = recv(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_TRUNC);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == sizeof(answer) && control_take(control, &answer))
		return 0;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	control->ops->ended(control->arg);
	return 0;
}

struct control *control_create(sd_event *event, int fd, const struct control_ops *ops, void *arg)
{
	struct control *control = calloc(1, sizeof(*control));

	if (!control) {
		close(fd);
		return NULL;
	}
	control->fd = fd;
	control->ops = ops;
	control->arg = arg;
	control->last = &control->first;
	/* A launcher that talks all the time keeps nobody else waiting. */
	if (sd_event_add_io(event, &control->source, fd, EPOLLIN, control_ready, control) < 0 ||
	    sd_event_source_set_ratelimit(control->source, CONTROL_INTERVAL_US, CONTROL_BURST) < 0) {
		sd_event_source_disable_unref(control->source);
		close(fd);
		free(control);
		return NULL;
	}
	return control;
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	sd_event_source_disable_unref(control->source);
	close(control->fd);
	while (control->first) {
		struct control_wait *wait = control_pop(control);

		if (wait->then)
			wait->then(wait->arg, NULL);
		free(wait);
	}
	free(control);
}

int control_ask(struct control *control, const struct control_request *request, int fd,
		control_answer_t then, void *arg)
{
	struct control_request numbered = *request;
	struct control_wait *wait = malloc(sizeof(*wait));
	int err;

	if (!wait)
		return -ENOMEM;
	numbered.serial = ++control->serial;
	*wait = (struct control_wait){ NULL, numbered.what, numbered.serial, then, arg };
	err = fd_send(control->fd, &numbered, sizeof(numbered), fd);
	if (err) {
		free(wait);
		return err;
	}
	*control->last = wait;
	control->last = &wait->next;
	return 0;
}
