// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/thread.h"
#include "userspace/qemu_launcher/line.h"

#define LINE_PIECE	4096

enum { PLAN_WAKE, PLAN_LINE, PLAN_TERMINALS, PLAN_COUNT = PLAN_TERMINALS + TERMINALS_MAX };

static void line_drop(struct line *line)
{
	fd_close(line->fd);
	line->fd = -1;
}

/* False: there is nothing to hear now. */
static bool line_hear(struct line *line)
{
	uint8_t piece[LINE_PIECE];
	ssize_t n = recv(line->fd, piece, sizeof(piece), MSG_DONTWAIT);

	if (n > 0)
		terminals_say(line->terminals, piece, n);
	else if (!n || (errno != EAGAIN && errno != EINTR))
		line_drop(line);
	return n > 0;
}

static void line_type(struct line *line)
{
	ssize_t n = send(line->fd, line->typed, line->count, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n <= 0)
		return;		/* who has gone is told by what is heard */
	line->count -= n;
	memmove(line->typed, line->typed + n, line->count);
}

static void line_plan(struct line *line, struct pollfd *plan)
{
	plan[PLAN_WAKE] = (struct pollfd){ .fd = line->wake, .events = POLLIN };
	plan[PLAN_LINE] = (struct pollfd){
		.fd = line->fd, .events = POLLIN | (line->count ? POLLOUT : 0),
	};
	terminals_plan(line->terminals, plan + PLAN_TERMINALS, line->count < LINE_TYPED);
}

static void line_turn(struct line *line)
{
	struct pollfd plan[PLAN_COUNT];
	eventfd_t count;

	line_plan(line, plan);
	if (poll(plan, PLAN_COUNT, -1) < 0)
		return;
	if (plan[PLAN_WAKE].revents)
		eventfd_read(line->wake, &count);
	if (plan[PLAN_LINE].revents & ~POLLOUT)
		line_hear(line);
	line->count += terminals_take(line->terminals, plan + PLAN_TERMINALS,
				      line->typed + line->count, LINE_TYPED - line->count);
	if (line->fd < 0)
		line->count = 0;	/* as on a line that nobody is at */
	else if (line->count)
		line_type(line);
	terminals_send(line->terminals);
}

static void *line_run(void *arg)
{
	struct line *line = arg;

	while (!__atomic_load_n(&line->ending, __ATOMIC_ACQUIRE))
		line_turn(line);
	while (line->fd >= 0 && line_hear(line))
		terminals_send(line->terminals);
	return NULL;
}

int line_init(struct line *line, int fd)
{
	int err = -ENOMEM;

	*line = (struct line){
		.fd = fd, .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .terminals = terminals_create(),
	};
	if (line->wake >= 0 && line->terminals)
		err = thread_start(&line->thread, "line", line_run, line);
	if (!err)
		return 0;
	line->thread = 0;
	line_finish(line);
	return err;
}

int line_add(struct line *line, int fd)
{
	int err = terminals_add(line->terminals, fd);

	if (!err)
		fd_signal_event(line->wake);
	return err;
}

void line_finish(struct line *line)
{
	if (line->thread) {
		__atomic_store_n(&line->ending, true, __ATOMIC_RELEASE);
		fd_signal_event(line->wake);
		pthread_join(line->thread, NULL);
	}
	terminals_destroy(line->terminals);
	fd_close(line->wake);
	line_drop(line);
	line->thread = 0;
	line->terminals = NULL;
	line->wake = -1;
}
