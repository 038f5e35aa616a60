// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/loop.h"
#include "userspace/lib/thread.h"

#define LOOP_BATCH	16

static int loop_watch(struct loop *loop, int fd, uint32_t events, void *data)
{
	struct epoll_event event = { .events = events, .data.ptr = data };

	return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int loop_init(struct loop *loop)
{
	int err;

	*loop = (struct loop){ .epoll = -1, .stop = -1 };
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0)
		return -errno;
	loop->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->stop < 0) {
		err = -errno;
		goto close_epoll;
	}
	err = loop_watch(loop, loop->stop, EPOLLIN, NULL);
	if (err)
		goto close_stop;
	return 0;

close_stop:
	fd_close(loop->stop);
close_epoll:
	fd_close(loop->epoll);
	return err;
}

int loop_add(struct loop *loop, struct loop_source *source)
{
	return loop_watch(loop, source->fd, EPOLLIN, source);
}

int loop_add_edge(struct loop *loop, struct loop_source *source)
{
	return loop_watch(loop, source->fd, EPOLLIN | EPOLLET, source);
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
}

struct loop_barrier {
	struct loop_source source;
	sem_t passed;
};

static void loop_passed(struct loop_source *source)
{
	eventfd_t count;

	if (!eventfd_read(source->fd, &count))
		sem_post(&((struct loop_barrier *)source)->passed);
}

/* An event of one that is added now comes in no batch that was begun before. */
int loop_sync(struct loop *loop)
{
	struct loop_barrier barrier = {
		.source = { .fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .ready = loop_passed },
	};
	int err = barrier.source.fd < 0 ? -errno : 0;

	sem_init(&barrier.passed, 0, 0);
	if (!err)
		err = loop_add_edge(loop, &barrier.source);
	while (!err && sem_wait(&barrier.passed))
		;
	fd_close(barrier.source.fd);
	sem_destroy(&barrier.passed);
	return err;
}

static void *loop_run(void *arg)
{
	struct epoll_event events[LOOP_BATCH];
	struct loop *loop = arg;

	for (;;) {
		int n = epoll_wait(loop->epoll, events, LOOP_BATCH, -1);

		for (int i = 0; i < n; i++) {
			struct loop_source *source = events[i].data.ptr;

			if (!source)
				return NULL;
			source->ready(source);
		}
	}
}

int loop_start(struct loop *loop, const char *name)
{
	return thread_start(&loop->thread, name, loop_run, loop);
}

void loop_finish(struct loop *loop)
{
	if (loop->thread) {
		eventfd_write(loop->stop, 1);
		pthread_join(loop->thread, NULL);
	}
	fd_close(loop->stop);
	fd_close(loop->epoll);
}
