// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Nothing here waits for the keeper, which may be waiting for its answers to be taken: what does not go out at once
 * is sent when there is room.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

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

/* A request that has not gone out yet. */
struct keep_packet {
	struct keep_packet *next;
	size_t len;
	unsigned char data[];
};

static int keep_link = -1;
static sd_event_source *keep_source;
static struct keep_packet *keep_first, **keep_last = &keep_first;
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

/* False: it will not go out at all. */
static bool keep_send(const struct iovec *iov)
{
	const size_t len = iov[0].iov_len + iov[1].iov_len;
	struct keep_packet *packet;

	if (!keep_first) {
		if (writev(keep_link, iov, iov[1].iov_len ? 2 : 1) == (ssize_t)len)
			return true;
		if (errno != EAGAIN)
			return false;
	}
	packet = malloc(sizeof(*packet) + len);
	if (!packet)
		return false;
	packet->next = NULL;
	packet->len = len;
	memcpy(packet->data, iov[0].iov_base, iov[0].iov_len);
	memcpy(packet->data + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
	*keep_last = packet;
	keep_last = &packet->next;
	sd_event_source_set_io_events(keep_source, EPOLLIN | EPOLLOUT);
	return true;
}

/* What cannot be sent, but for want of room, is the end of the link: reading it tells. */
static void keep_flush(void)
{
	struct keep_packet *packet;

	while ((packet = keep_first)) {
		if (send(keep_link, packet->data, packet->len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return;
		keep_first = packet->next;
		free(packet);
	}
	keep_last = &keep_first;
	sd_event_source_set_io_events(keep_source, EPOLLIN);
}

static int keep_ready(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	struct keeper_answer answer;
	ssize_t n;

	(void)fd;
	(void)arg;
	if (revents & EPOLLOUT)
		keep_flush();
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
	int err = sd_event_add_io(event, &keep_source, link, EPOLLIN, keep_ready, NULL);

	keep_link = link;
	/* Answers come before new requests. */
	return err < 0 ? err : sd_event_source_set_priority(keep_source, SD_EVENT_PRIORITY_IMPORTANT);
}

void keep_ask(enum keeper_what what, const void *carried, size_t len, keep_answer_t then, void *arg)
{
	struct keeper_head head = { .what = what, .serial = ++keep_serial };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)carried, len } };
	struct keep_wait *wait = malloc(sizeof(*wait));

	if (wait) {
		*wait = (struct keep_wait){ keep_waits, what, head.serial, then, arg };
		if (keep_send(iov)) {
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
