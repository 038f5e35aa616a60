// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "userspace/lib/fd.h"
#include "userspace/vmm/terminals.h"

struct terminals *terminals_create(void)
{
	struct terminals *terminals = calloc(1, sizeof(*terminals));

	if (!terminals)
		return NULL;
	pthread_mutex_init(&terminals->lock, NULL);
	for (unsigned int i = 0; i < TERMINALS_MAX; i++)
		terminals->terminal[i].fd = -1;
	return terminals;
}

static void terminal_drop(struct terminal *terminal)
{
	fd_close(terminal->fd);
	terminal->fd = -1;
}

void terminals_destroy(struct terminals *terminals)
{
	for (unsigned int i = 0; terminals && i < TERMINALS_MAX; i++)
		terminal_drop(&terminals->terminal[i]);
	free(terminals);
}

int terminals_add(struct terminals *terminals, int fd)
{
	int err = -EMFILE;

	pthread_mutex_lock(&terminals->lock);
	for (unsigned int i = 0; i < TERMINALS_MAX && err; i++) {
		struct terminal *terminal = &terminals->terminal[i];

		if (terminal->fd >= 0)
			continue;
		*terminal = (struct terminal){
			.fd = fd, .next = terminals->said > TERMINALS_KEPT ?
					  terminals->said - TERMINALS_KEPT : 0,
		};
		err = 0;
	}
	pthread_mutex_unlock(&terminals->lock);
	return err;
}

void terminals_say(struct terminals *terminals, const uint8_t *bytes, size_t count)
{
	pthread_mutex_lock(&terminals->lock);
	for (size_t i = 0; i < count; i++)
		terminals->room[terminals->said++ % TERMINALS_ROOM] = bytes[i];
	for (unsigned int i = 0; i < TERMINALS_MAX; i++) {
		struct terminal *terminal = &terminals->terminal[i];

		if (terminal->fd >= 0 && terminals->said - terminal->next > TERMINALS_ROOM)
			terminal_drop(terminal);
	}
	pthread_mutex_unlock(&terminals->lock);
}

void terminals_plan(struct terminals *terminals, struct pollfd *plan, bool typing)
{
	pthread_mutex_lock(&terminals->lock);
	for (unsigned int i = 0; i < TERMINALS_MAX; i++) {
		const struct terminal *terminal = &terminals->terminal[i];
		const bool behind = terminal->next < terminals->said;

		/* One that is silent is waited for, even so: it may go altogether. */
		plan[i] = (struct pollfd){ .fd = terminal->fd, .events = behind ? POLLOUT : 0 };
		if (typing && !terminal->silent)
			plan[i].events |= POLLIN;
		else if (!behind && !terminal->silent)
			plan[i].fd = -1;
	}
	pthread_mutex_unlock(&terminals->lock);
}

/* The next piece. False: it takes no more, or has gone. */
static bool terminal_send(struct terminals *terminals, struct terminal *terminal)
{
	const size_t at = terminal->next % TERMINALS_ROOM;
	size_t count = terminals->said - terminal->next;
	ssize_t n;

	if (count > TERMINALS_ROOM - at)
		count = TERMINALS_ROOM - at;
	n = send(terminal->fd, terminals->room + at, count, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		terminal->next += n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		terminal_drop(terminal);
	return n > 0;
}

void terminals_send(struct terminals *terminals)
{
	pthread_mutex_lock(&terminals->lock);
	for (unsigned int i = 0; i < TERMINALS_MAX; i++) {
		struct terminal *terminal = &terminals->terminal[i];

		while (terminal->fd >= 0 && terminal->next < terminals->said &&
		       terminal_send(terminals, terminal))
			;
	}
	pthread_mutex_unlock(&terminals->lock);
}

static size_t terminal_take(struct terminal *terminal, uint8_t *bytes, size_t room)
{
	ssize_t n = recv(terminal->fd, bytes, room, MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		terminal_drop(terminal);
	if (!n)
		terminal->silent = true;
	return n < 0 ? 0 : n;
}

size_t terminals_take(struct terminals *terminals, const struct pollfd *ready, uint8_t *bytes,
		      size_t room)
{
	size_t count = 0;

	pthread_mutex_lock(&terminals->lock);
	for (unsigned int i = 0; i < TERMINALS_MAX; i++) {
		struct terminal *terminal = &terminals->terminal[i];

		if (ready[i].fd < 0 || terminal->fd != ready[i].fd)
			continue;
		if ((ready[i].revents & POLLIN) && count < room)
			count += terminal_take(terminal, bytes + count, room - count);
		else if ((ready[i].revents & (POLLHUP | POLLERR)) && !(ready[i].revents & POLLIN))
			terminal_drop(terminal);
	}
	pthread_mutex_unlock(&terminals->lock);
	return count;
}
