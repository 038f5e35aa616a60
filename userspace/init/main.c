// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-init: process 1 of a guest made by `vmctl run -- cmd`. It starts one command, carries its
 * streams and signals over the channel of include/moat/run.h, reports how it ended, and powers off.
 *
 * The command has pipes for what are no terminals on the host, and one pseudo-terminal for what
 * are. What it wrote is all sent before its end is told. Processes that it has left behind do not
 * hold up the end, as with any machine that is switched off.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "userspace/init/guest.h"
#include "userspace/init/stream.h"
#include "userspace/lib/fd.h"

#define STATUS_CANNOT_EXECUTE	126
#define STATUS_NOT_FOUND	127
#define STATUS_SIGNALLED	128

/* How long a terminal may take to hand on what was written to it before its last user ended. */
#define INIT_LINGER_MS		200

/**
 * struct session - the command and its streams
 * @terminal: the host's side of the pseudo-terminal, -1: there is none
 * @pid: the command, which leads its own process group
 * @status: how it ended, -1: it runs
 */
struct session {
	struct channel channel;
	struct inlet in;
	struct outlet out;
	struct outlet err;
	int terminal;
	int signals;
	pid_t pid;
	int status;
};

static struct session session;

/* Starting the command */

/* The ends of a stream: @mine and @its. */
struct ends {
	int mine;
	int its;
};

static struct ends ends_of_pipe(bool its_reads)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		guest_fail("make", "a pipe");
	fcntl(fds[its_reads], F_SETFL, O_NONBLOCK);
	return (struct ends){ .mine = fds[its_reads], .its = fds[!its_reads] };
}

static struct ends ends_of_terminal(const struct command *command)
{
	struct winsize size = { .ws_row = command->rows, .ws_col = command->columns };
	struct ends ends;
	char *name;

	ends.mine = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (ends.mine < 0 || unlockpt(ends.mine))
		guest_fail("make", "a terminal");
	name = ptsname(ends.mine);
	ends.its = name ? open(name, O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;
	if (ends.its < 0)
		guest_fail("open", "a terminal");
	ioctl(ends.mine, TIOCSWINSZ, &size);
	return ends;
}

static int child_exec(const struct command *command)
{
	execve(command->program, command->argv, command->envp);
	dprintf(STDERR_FILENO, "vmctl: cannot execute %s: %s\n", command->program, strerror(errno));
	return errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_EXECUTE;
}

static void child_run(const struct command *command, const int *its, int terminal)
{
	sigset_t none;

	setsid();
	if (terminal >= 0)
		ioctl(terminal, TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		dup2(its[i], i);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (chdir(command->directory))
		dprintf(STDERR_FILENO, "vmctl: cannot enter %s: %s\n", command->directory,
			strerror(errno));
	_exit(child_exec(command));
}

/*
 * All terminals are one, read as one stream: it goes to standard output if that is one, else to
 * standard error. Its input and its output have a descriptor each, since each closes its own.
 */
static void session_streams(const struct command *command, int *its, int *ret_terminal)
{
	struct ends terminal = { -1, -1 }, pipes[3] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	unsigned int terminals = command->terminals;
	bool out = terminals & 2;

	if (terminals)
		terminal = ends_of_terminal(command);
	for (int i = 0; i < 3; i++) {
		if (!(terminals >> i & 1))
			pipes[i] = ends_of_pipe(i == 0);
		its[i] = terminals >> i & 1 ? terminal.its : pipes[i].its;
	}
	session.terminal = terminal.mine;
	inlet_init(&session.in, RUN_STDIN, terminals & 1 ?
		   fcntl(terminal.mine, F_DUPFD_CLOEXEC, 3) : pipes[0].mine);
	outlet_init(&session.out, RUN_STDOUT, out ?
		    fcntl(terminal.mine, F_DUPFD_CLOEXEC, 3) : pipes[1].mine);
	outlet_init(&session.err, RUN_STDERR, terminals & 4 && !out ?
		    fcntl(terminal.mine, F_DUPFD_CLOEXEC, 3) : pipes[2].mine);
	*ret_terminal = terminal.its;
}

static void session_start(const struct command *command)
{
	int its[3], terminal;

	session_streams(command, its, &terminal);
	session.status = -1;
	session.pid = fork();
	if (session.pid < 0)
		guest_fail("start", command->program);
	if (!session.pid)
		child_run(command, its, terminal);
	for (int i = 0; i < 3; i++)
		if (its[i] != terminal)
			close(its[i]);
	fd_close(terminal);
}

/* What the host sends */

static int session_signal(const struct channel_frame *frame)
{
	uint32_t number;
	int err = channel_number(frame, NSIG - 1, &number);

	if (!err && session.status < 0)
		kill(-session.pid, number);
	return err;
}

static int session_resize(const struct channel_frame *frame)
{
	struct run_window_size to;
	int err = channel_payload(frame, &to, sizeof(to));
	struct winsize size = {
		.ws_row = to.rows, .ws_col = to.columns,
		.ws_xpixel = to.width, .ws_ypixel = to.height,
	};

	if (!err && session.terminal >= 0)
		ioctl(session.terminal, TIOCSWINSZ, &size);
	return err;
}

static int session_credit(const struct channel_frame *frame)
{
	struct run_credit credit;
	int err = channel_payload(frame, &credit, sizeof(credit));

	if (err)
		return err;
	if (credit.stream == RUN_STDOUT)
		return outlet_credit(&session.out, &credit);
	return credit.stream == RUN_STDERR ? outlet_credit(&session.err, &credit) : -EPROTO;
}

/* A terminal has no end of input but that its user has gone. */
static int session_input(const struct channel_frame *frame)
{
	if (!frame->len && session.terminal >= 0 && session.status < 0)
		kill(-session.pid, SIGHUP);
	return inlet_accept(&session.in, frame);
}

static int session_unread(struct outlet *outlet, const struct channel_frame *frame)
{
	outlet_close(outlet);
	return frame->len ? -EPROTO : 0;
}

static int session_frame(const struct channel_frame *frame)
{
	switch (frame->type) {
	case RUN_STDIN:
		return session_input(frame);
	case RUN_STDOUT:
		return session_unread(&session.out, frame);
	case RUN_STDERR:
		return session_unread(&session.err, frame);
	case RUN_CREDIT:
		return session_credit(frame);
	case RUN_SIGNAL:
		return session_signal(frame);
	case RUN_WINDOW_SIZE:
		return session_resize(frame);
	}
	return -EPROTO;
}

/* The end of the stream, or nonsense: the host is gone, and with it the reason to be here. */
static void session_receive(void)
{
	struct channel_frame frame;
	int more, err = channel_receive(&session.channel);

	while (!err && (more = channel_next(&session.channel, &frame)))
		err = more < 0 ? more : session_frame(&frame);
	if (err) {
		errno = -err;
		guest_fail("understand", "the host");
	}
}

/* Running */

static void session_reap(void)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(session.signals, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == session.pid)
			session.status = WIFSIGNALED(status) ?
					 STATUS_SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
}

enum session_wait { WAIT_CHANNEL, WAIT_SIGNALS, WAIT_IN, WAIT_OUT, WAIT_ERR, WAIT_COUNT };

static struct pollfd poll_if(bool wanted, int fd, short events)
{
	return (struct pollfd){ .fd = wanted ? fd : -1, .events = events };
}

static int session_poll(struct pollfd *wait, int timeout)
{
	const struct channel *channel = &session.channel;
	short out = channel_pending(channel) ? POLLOUT : 0;

	wait[WAIT_CHANNEL] = poll_if(true, channel->fd, POLLIN | out);
	wait[WAIT_SIGNALS] = poll_if(true, session.signals, POLLIN);
	wait[WAIT_IN] = poll_if(session.in.count, session.in.fd, POLLOUT);
	wait[WAIT_OUT] = poll_if(outlet_wants(&session.out, channel), session.out.fd, POLLIN);
	wait[WAIT_ERR] = poll_if(outlet_wants(&session.err, channel), session.err.fd, POLLIN);
	return poll(wait, WAIT_COUNT, timeout);
}

/* Once the command has ended, no more input is asked for. False: nothing came until @timeout. */
static bool session_step(int timeout)
{
	struct pollfd wait[WAIT_COUNT];

	if (session_poll(wait, timeout) <= 0)
		return false;
	if (wait[WAIT_CHANNEL].revents & ~POLLOUT)
		session_receive();
	if (wait[WAIT_SIGNALS].revents)
		session_reap();
	if (wait[WAIT_IN].revents)
		inlet_pump(&session.in);
	if (wait[WAIT_OUT].revents)
		outlet_pump(&session.out, &session.channel);
	if (wait[WAIT_ERR].revents)
		outlet_pump(&session.err, &session.channel);
	if (session.status < 0)
		inlet_acknowledge(&session.in, &session.channel);
	if (channel_flush(&session.channel))
		guest_fail("write to", RUN_CHANNEL);
	return true;
}

static bool session_blocked(const struct outlet *outlet)
{
	return outlet->fd >= 0 && !outlet_wants(outlet, &session.channel);
}

/* All that the command itself has written is in the pipes by now; while the host is slow, wait. */
static void session_drain(void)
{
	int linger = session.terminal >= 0 ? INIT_LINGER_MS : 0;

	while (session.out.fd >= 0 || session.err.fd >= 0) {
		bool blocked = session_blocked(&session.out) || session_blocked(&session.err);

		if (!session_step(blocked ? -1 : linger))
			return;
	}
}

static void session_end(void)
{
	guest_settle();
	channel_send_number(&session.channel, RUN_EXIT, session.status);
	while (channel_pending(&session.channel))
		session_step(-1);
	tcdrain(session.channel.fd);
}

static int session_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int main(void)
{
	struct command command;

	if (getpid() != 1) {
		fputs("moat-init: this is process 1 of guests that vmctl run makes\n", stderr);
		return 1;
	}
	guest_init();
	guest_load(&command);
	channel_init(&session.channel, guest_open_channel());
	session.signals = session_signals();
	if (session.signals < 0)
		guest_fail("make", "a signal descriptor");
	session_start(&command);
	channel_send_number(&session.channel, RUN_READY, RUN_VERSION);
	while (session.status < 0)
		session_step(-1);
	session_drain();
	session_end();
	guest_power_off();
}
