// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/moatd/keep.h"

/* An answer that is waited for. */
struct keep_wait {
	struct keep_wait *next;
	uint32_t what;
	uint32_t serial;
	keep_answer_t then;
	void *arg;
};

static int keep_link = -1;
static uint32_t keep_serial;
static struct keep_wait *keep_waits;

static void keep_deliver(const struct keeper_answer *answer, int fd)
{
	struct keep_wait **at = &keep_waits;
	struct keep_wait *wait;

	while (*at && ((*at)->serial != answer->serial || (*at)->what != answer->what))
		at = &(*at)->next;
	wait = *at;
	if (!wait) {
		fd_close(fd);
		return;
	}
	if (!answer->more)
		*at = wait->next;
	if (wait->then)
		wait->then(wait->arg, answer, fd);
	else
		fd_close(fd);
	if (!answer->more)
		free(wait);
}

static int keep_ready(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct keeper_answer answer;
	ssize_t n;

	(void)fd;
	(void)revents;
	(void)arg;
	n = fd_receive(keep_link, &answer, sizeof(answer), &fd);
	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n != sizeof(answer)) {
		if (n)
			log_error("the privileged half talks nonsense");
		return sd_event_exit(sd_event_source_get_event(source), 1);
	}
	keep_deliver(&answer, fd);
	return 0;
}

int keep_init(sd_event *event, int link)
{
	keep_link = link;
	return sd_event_add_io(event, NULL, link, EPOLLIN, keep_ready, NULL);
}

void keep_ask(enum keeper_what what, const void *carried, size_t len, keep_answer_t then, void *arg)
{
	struct keeper_head head = { .what = what, .serial = ++keep_serial };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)carried, len } };
	struct keep_wait *wait = malloc(sizeof(*wait));

	if (wait) {
		*wait = (struct keep_wait){ keep_waits, what, head.serial, then, arg };
		if (writev(keep_link, iov, len ? 2 : 1) == (ssize_t)(sizeof(head) + len)) {
			keep_waits = wait;
			return;
		}
		free(wait);
	}
	if (then) {
		const struct keeper_answer answer = {
			.what = what, .error = -ENOMEM, .why = "moatd is out of memory, or of its other half",
		};

		then(arg, &answer, -1);
	}
}

void keep_ask_name(enum keeper_what what, const char *name, keep_answer_t then, void *arg)
{
	struct keeper_name carried = { 0 };

	snprintf(carried.name, sizeof(carried.name), "%s", name);
	keep_ask(what, &carried, sizeof(carried), then, arg);
}
