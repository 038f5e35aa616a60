// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The guest is not trusted: it may send anything. What it can reach is standard output, standard
 * error and the exit status; memory that it can fill is bounded by the streams' windows.
 *
 * What its kernel says on the serial port is kept, the last of it, and shown only if the guest ends
 * without having told how the command ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/init/stream.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmctl/session.h"
#include "userspace/vmctl/terminal.h"

#define SESSION_KERNEL_LOG	16384

/* The last bytes of something endless. */
struct tail {
	int fd;
	size_t total;
	char buf[SESSION_KERNEL_LOG];
};

/**
 * struct session - one run
 * @ready: the command was started
 * @ended: the guest has told its @status
 * @signal: the signal that ends it without the guest's help
 * @error: what is wrong with the guest
 */
struct session {
	struct launch *launch;
	struct channel channel;
	struct outlet in;
	struct inlet out;
	struct inlet err;
	struct tail kernel;
	int signals;
	bool ready;
	bool ended;
	bool out_unread;
	bool err_unread;
	uint32_t status;
	int signal;
	int error;
};

const char *session_terminals(void)
{
	static char digits[4];
	size_t count = 0;

	if (!isatty(STDIN_FILENO) || (!isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO)))
		return "";
	for (int fd = 0; fd < 3; fd++)
		if (isatty(fd))
			digits[count++] = '0' + fd;
	digits[count] = '\0';
	return digits;
}

/* The kernel's log */

static void tail_read(struct tail *tail)
{
	size_t at = tail->total % sizeof(tail->buf);
	ssize_t n = read(tail->fd, tail->buf + at, sizeof(tail->buf) - at);

	if (n > 0) {
		tail->total += n;
	} else if (!n || (errno != EAGAIN && errno != EINTR)) {
		fd_close(tail->fd);
		tail->fd = -1;
	}
}

static void tail_show(const struct tail *tail)
{
	size_t at = tail->total % sizeof(tail->buf);

	if (tail->total > sizeof(tail->buf))
		fd_write_full(STDERR_FILENO, tail->buf + at, sizeof(tail->buf) - at);
	fd_write_full(STDERR_FILENO, tail->buf, at);
}

/* What the guest sends */

static int session_ready(struct session *session, const struct channel_frame *frame)
{
	struct run_window_size size = terminal_size();
	uint32_t version;
	int err = channel_number(frame, RUN_VERSION, &version);

	if (err || version != RUN_VERSION || session->ready)
		return -EPROTO;
	session->ready = true;
	return channel_send(&session->channel, RUN_WINDOW_SIZE, &size, sizeof(size));
}

static int session_credit(struct session *session, const struct channel_frame *frame)
{
	struct run_credit credit;
	int err = channel_payload(frame, &credit, sizeof(credit));

	if (err || credit.stream != RUN_STDIN)
		return -EPROTO;
	return outlet_credit(&session->in, &credit);
}

static int session_exit(struct session *session, const struct channel_frame *frame)
{
	session->ended = true;
	return channel_number(frame, 255, &session->status);
}

static int session_frame(struct session *session, const struct channel_frame *frame)
{
	if (frame->type == RUN_READY)
		return session_ready(session, frame);
	if (!session->ready || session->ended)
		return -EPROTO;
	switch (frame->type) {
	case RUN_STDOUT:
		return inlet_accept(&session->out, frame);
	case RUN_STDERR:
		return inlet_accept(&session->err, frame);
	case RUN_CREDIT:
		return session_credit(session, frame);
	case RUN_EXIT:
		return session_exit(session, frame);
	}
	return -EPROTO;
}

static void session_receive(struct session *session)
{
	struct channel_frame frame;
	int more, err = channel_receive(&session->channel);

	while (!err && (more = channel_next(&session->channel, &frame)))
		err = more < 0 ? more : session_frame(session, &frame);
	session->error = err;
}

/* Signals */

static void session_forward(struct session *session, int number)
{
	struct run_window_size size;

	switch (number) {
	case SIGCHLD:
		break;	/* what the launcher has left to say comes first, and then its end */
	case SIGWINCH:
		size = terminal_size();
		if (session->ready)
			channel_send(&session->channel, RUN_WINDOW_SIZE, &size, sizeof(size));
		break;
	case SIGUSR1:
	case SIGUSR2:
		if (session->ready)
			channel_send_number(&session->channel, RUN_SIGNAL, number);
		break;
	case SIGQUIT:
		session->signal = number;
		break;
	default:
		if (session->ready && !session->ended)
			channel_send_number(&session->channel, RUN_SIGNAL, number);
		else
			session->signal = number;
	}
}

static void session_take_signals(struct session *session)
{
	int number;

	while ((number = terminal_next_signal(session->signals)))
		session_forward(session, number);
}

/* The loop */

enum { WAIT_CHANNEL, WAIT_SIGNALS, WAIT_KERNEL, WAIT_IN, WAIT_OUT, WAIT_ERR, WAIT_COUNT };

static struct pollfd poll_if(bool wanted, int fd, short events)
{
	return (struct pollfd){ .fd = wanted ? fd : -1, .events = events };
}

static int session_poll(const struct session *session, struct pollfd *wait)
{
	const struct channel *channel = &session->channel;
	short out = channel_pending(channel) ? POLLOUT : 0;

	wait[WAIT_CHANNEL] = poll_if(!session->ended, channel->fd, POLLIN | out);
	wait[WAIT_SIGNALS] = poll_if(true, session->signals, POLLIN);
	wait[WAIT_KERNEL] = poll_if(true, session->kernel.fd, POLLIN);
	wait[WAIT_IN] = poll_if(session->ready && !session->ended &&
				outlet_wants(&session->in, channel), session->in.fd, POLLIN);
	wait[WAIT_OUT] = poll_if(session->out.count, session->out.fd, POLLOUT);
	wait[WAIT_ERR] = poll_if(session->err.count, session->err.fd, POLLOUT);
	return poll(wait, WAIT_COUNT, -1);
}

/* Where nobody reads a stream any more, the command is to know, as it would without a guest. */
static void session_unread(struct session *session, const struct inlet *inlet, bool *told)
{
	if (inlet->fd >= 0 || inlet->ended || *told || !channel_has_room(&session->channel))
		return;
	*told = true;
	channel_send(&session->channel, inlet->type, NULL, 0);
}

static int session_answer(struct session *session)
{
	int err = inlet_acknowledge(&session->out, &session->channel);

	if (!err)
		err = inlet_acknowledge(&session->err, &session->channel);
	session_unread(session, &session->out, &session->out_unread);
	session_unread(session, &session->err, &session->err_unread);
	return err ? err : channel_flush(&session->channel);
}

static void session_step(struct session *session)
{
	struct pollfd wait[WAIT_COUNT];

	if (session_poll(session, wait) < 0)
		return;
	if (wait[WAIT_SIGNALS].revents)
		session_take_signals(session);
	if (wait[WAIT_KERNEL].revents)
		tail_read(&session->kernel);
	if (wait[WAIT_IN].revents)
		outlet_pump(&session->in, &session->channel);
	if (wait[WAIT_OUT].revents)
		inlet_pump(&session->out);
	if (wait[WAIT_ERR].revents)
		inlet_pump(&session->err);
	/* Last: what was received before the launcher's end is still to be read. */
	if (wait[WAIT_CHANNEL].revents & ~POLLOUT)
		session_receive(session);
	if (!session->error && !session->ended && session_answer(session))
		session_receive(session);
}

static bool session_goes_on(const struct session *session)
{
	if (session->signal || session->error)
		return false;
	return !session->ended || session->out.count || session->err.count;
}

static int session_init(struct session *session)
{
	int sockets[2], pipes[2], null;

	session->signals = terminal_signals();
	if (session->signals < 0)
		return session->signals;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) ||
	    pipe2(pipes, O_CLOEXEC))
		return -errno;
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0 || fcntl(sockets[0], F_SETFL, O_NONBLOCK))
		return -errno;
	channel_init(&session->channel, sockets[0]);
	session->kernel.fd = pipes[0];
	launch_add(session->launch, "--console");
	launch_add(session->launch, "%d", sockets[1]);
	launch_keep(session->launch, sockets[1]);
	launch_add(session->launch, "--serial");
	launch_add(session->launch, "%d,%d", null, pipes[1]);
	launch_keep(session->launch, null);
	launch_keep(session->launch, pipes[1]);
	outlet_init(&session->in, RUN_STDIN, fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
	inlet_init(&session->out, RUN_STDOUT, fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
	inlet_init(&session->err, RUN_STDERR, fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
	return 0;
}

/* A launcher that failed has said why. */
static void session_explain(struct session *session)
{
	if (session->error == -EPROTO) {
		log_error("the guest sent what it must not; its machine was ended");
		return;
	}
	while (session->kernel.fd >= 0)
		tail_read(&session->kernel);
	tail_show(&session->kernel);
	if (session->launch->status && !session->kernel.total)
		return;
	log_error("the guest ended before the command %s; above is the last that its kernel said",
		  session->ready ? "did" : "was started");
}

static int session_end(struct session *session)
{
	launch_finish(session->launch);
	terminal_restore();
	if (session->signal)
		return 128 + session->signal;
	if (session->ended && !session->error)
		return session->status;
	session_explain(session);
	return -EIO;
}

int session_run(struct launch *launch)
{
	static struct session session;
	int err;

	session.launch = launch;
	err = session_init(&session);
	if (err) {
		log_error("cannot make a channel to the guest: %s", strerror(-err));
		return err;
	}
	err = launch_start(launch);
	if (err)
		return err;
	if (*session_terminals())
		terminal_set_raw();
	while (session_goes_on(&session))
		session_step(&session);
	return session_end(&session);
}
