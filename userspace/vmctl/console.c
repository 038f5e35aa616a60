// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Between the terminal and the launcher's serial port are two pipes, or a socket, and this loop: it is what
 * hears the escape, and still does when the guest does not read what is typed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/console.h"
#include "userspace/vmctl/terminal.h"

#define CONSOLE_ESCAPE		0x01	/* Ctrl-A */
#define CONSOLE_LEAVE		'x'
#define CONSOLE_LITERAL		'a'

/* PIPE_BUF: what a pipe that said it has room takes without blocking. */
struct copy {
	int from;
	int to;
	bool broken;	/* nobody takes it any more */
	size_t first;
	size_t end;
	char buf[PIPE_BUF];
};

/**
 * struct console - one run
 * @escapes: input is typed, so the escape counts; @escaped: the last byte was one
 * @left: by the escape; @signal: the signal that ended it
 */
struct console {
	struct launch *launch;
	struct copy in;
	struct copy out;
	int signals;
	int signal;
	bool escapes;
	bool escaped;
	bool left;
};

static void copy_close(struct copy *copy)
{
	fd_close(copy->from);
	fd_close(copy->to);
	copy->from = -1;
	copy->to = -1;
	copy->first = 0;
	copy->end = 0;
}

/* Where nobody takes it, it is dropped: the machine goes on. */
static void copy_write(struct copy *copy)
{
	ssize_t n = write(copy->to, copy->buf + copy->first, copy->end - copy->first);

	if (n >= 0) {
		copy->first += n;
	} else if (errno != EINTR && errno != EAGAIN) {
		copy->first = copy->end;
		copy->broken = true;
	}
}

/* False at the end of what there is to read. */
static bool copy_read(struct copy *copy)
{
	ssize_t n = read(copy->from, copy->buf, sizeof(copy->buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		n = 0;
	else if (n <= 0)
		return false;
	copy->first = 0;
	copy->end = n;
	return true;
}

/* Takes the escapes out of what was typed. */
static void console_filter(struct console *console)
{
	struct copy *in = &console->in;
	size_t kept = 0;

	for (size_t i = 0; i < in->end; i++) {
		char c = in->buf[i];

		if (!console->escaped && c == CONSOLE_ESCAPE) {
			console->escaped = true;
			continue;
		}
		if (console->escaped && c == CONSOLE_LEAVE)
			console->left = true;
		else if (console->escaped && c == CONSOLE_LITERAL)
			in->buf[kept++] = CONSOLE_ESCAPE;
		else
			in->buf[kept++] = c;
		console->escaped = false;
	}
	in->end = kept;
}

static void console_input(struct console *console)
{
	if (!copy_read(&console->in))
		copy_close(&console->in);
	else if (console->escapes)
		console_filter(console);
}

static void console_take_signals(struct console *console)
{
	int number;

	while ((number = terminal_next_signal(console->signals)))
		if (number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT)
			console->signal = number;
}

enum { WAIT_SIGNALS, WAIT_IN, WAIT_OUT, WAIT_READER, WAIT_COUNT };

/* A direction waits for room while it holds something, else for something to hold. */
static struct pollfd copy_wait(const struct copy *copy)
{
	if (copy->first < copy->end)
		return (struct pollfd){ .fd = copy->to, .events = POLLOUT };
	return (struct pollfd){ .fd = copy->from, .events = POLLIN };
}

/*
 * False when all that the launcher said was written, which is after its end; or, where the machine does not
 * end with us, when nobody reads it.
 */
static bool console_step(struct console *console)
{
	struct pollfd wait[WAIT_COUNT] = {
		[WAIT_SIGNALS] = { .fd = console->signals, .events = POLLIN },
		[WAIT_IN] = copy_wait(&console->in),
		[WAIT_OUT] = copy_wait(&console->out),
		[WAIT_READER] = { .fd = console->launch ? -1 : console->out.to },
	};

	if (poll(wait, WAIT_COUNT, -1) < 0)
		return true;
	if (wait[WAIT_SIGNALS].revents)
		console_take_signals(console);
	if (wait[WAIT_IN].revents) {
		if (console->in.first < console->in.end)
			copy_write(&console->in);
		else
			console_input(console);
	}
	if (wait[WAIT_READER].revents & POLLERR)
		return false;
	if (!wait[WAIT_OUT].revents)
		return true;
	if (console->out.first == console->out.end)
		return copy_read(&console->out);
	copy_write(&console->out);
	return console->launch || !console->out.broken;
}

static int console_pipe(struct copy *copy, bool to_launcher, struct launch *launch)
{
	int fds[2], own;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	own = fcntl(to_launcher ? STDIN_FILENO : STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (to_launcher)
		*copy = (struct copy){ .from = own, .to = fds[1] };
	else
		*copy = (struct copy){ .from = fds[0], .to = own };
	launch_keep(launch, fds[!to_launcher]);
	return fds[!to_launcher];
}

static int console_init(struct console *console)
{
	int in, out;

	console->signals = terminal_signals();
	if (console->signals < 0)
		return console->signals;
	in = console_pipe(&console->in, true, console->launch);
	if (in < 0)
		return in;
	out = console_pipe(&console->out, false, console->launch);
	if (out < 0)
		return out;
	launch_add(console->launch, "--serial");
	launch_add(console->launch, "%d,%d", in, out);
	return 0;
}

/* Until the other end has closed, or somebody here has had enough. */
static void console_serve(struct console *console)
{
	console->escapes = isatty(STDIN_FILENO);
	if (console->escapes)
		terminal_set_raw();
	while (!console->left && !console->signal && console_step(console))
		;
	copy_close(&console->in);
	copy_close(&console->out);
}

/* @status: where it was the other end. */
static int console_end(struct console *console, int status)
{
	terminal_restore();
	if (console->left)
		return 0;
	return console->signal ? 128 + console->signal : status;
}

int console_run(struct launch *launch)
{
	static struct console console;
	int err;

	console.launch = launch;
	err = console_init(&console);
	if (err) {
		log_error("cannot make pipes for the serial port: %s", strerror(-err));
		return err;
	}
	err = launch_start(launch);
	if (err)
		return err;
	console_serve(&console);
	launch_finish(launch);
	return console_end(&console, launch->status);
}

int console_attach(int fd)
{
	static struct console console;

	fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
	console.in = (struct copy){ .from = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), .to = fd };
	console.out = (struct copy){
		.from = fcntl(fd, F_DUPFD_CLOEXEC, 3), .to = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3),
	};
	console.signals = terminal_signals();
	if (console.in.from < 0 || console.out.from < 0 || console.out.to < 0 || console.signals < 0) {
		log_error("cannot make a descriptor: %s", strerror(errno));
		return -errno;
	}
	console_serve(&console);
	return console_end(&console, 0);
}
