// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Talks to a program by a script, as a person at its terminal would.
 * usage: dialogue SCRIPT COMMAND [ARGS...]
 *
 * A line of SCRIPT is one of
 *
 *	wait SECONDS TEXT	the command prints TEXT, after what the last wait found
 *	send TEXT		TEXT and a newline go into its standard input
 *	end SECONDS		it ends by itself, with status 0
 *
 * What the command prints goes to stdout as it comes. When each wait was over is told on stderr, as
 * is why the script could not go on. Exit status: 0 where all of it could. The command is killed
 * where it is not at its end by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct command {
	pid_t pid;
	int to;			/* its standard input */
	int from;		/* its standard output and error, -1 after their end */
	char *text;		/* all that it printed */
	size_t size;
	size_t room;
	size_t seen;		/* how much of that is behind the last wait */
};

static struct command command = { .from = -1 };
static struct timespec started;

static double seconds_passed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - started.tv_sec + (now.tv_nsec - started.tv_nsec) / 1e9;
}

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "dialogue: after %.1f s: ", seconds_passed());
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	if (command.pid > 0)
		kill(command.pid, SIGKILL);
	exit(1);
}

static void command_start(char **argv)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		fail("pipe: %s", strerror(errno));
	command.pid = fork();
	if (command.pid < 0)
		fail("fork: %s", strerror(errno));
	if (command.pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(out[1], STDERR_FILENO);
		execvp(argv[0], argv);
		dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	command.to = in[1];
	command.from = out[0];
}

static void text_reserve(void)
{
	if (command.room - command.size >= 4096)
		return;
	command.room += 65536;
	command.text = realloc(command.text, command.room);
	if (!command.text)
		fail("no memory");
}

/* Takes what the command has printed, waiting for it until @deadline; false where that is over. */
static bool command_read(double deadline)
{
	struct pollfd fd = { .fd = command.from, .events = POLLIN };
	double left = deadline - seconds_passed();
	ssize_t n;

	if (left <= 0 || poll(&fd, 1, left * 1000 + 1) == 0)
		return false;
	text_reserve();
	n = read(command.from, command.text + command.size, 4096);
	if (n < 0 && errno != EINTR)
		fail("read: %s", strerror(errno));
	if (n == 0) {
		close(command.from);
		command.from = -1;
		return true;
	}
	if (n > 0) {
		fwrite(command.text + command.size, 1, n, stdout);
		fflush(stdout);
		command.size += n;
	}
	return true;
}

/* whether @text is in what was printed and not yet seen; it then is seen */
static bool text_find(const char *text)
{
	size_t length = strlen(text);
	char *found;

	found = memmem(command.text + command.seen, command.size - command.seen, text, length);
	if (!found)
		return false;
	command.seen = found - command.text + length;
	return true;
}

static void step_wait(double seconds, const char *text)
{
	double deadline = seconds_passed() + seconds;

	text_reserve();
	while (!text_find(text)) {
		if (command.from < 0)
			fail("the command ended before it said \"%s\"", text);
		if (!command_read(deadline))
			fail("no \"%s\" within %.0f s", text, seconds);
	}
	fprintf(stderr, "%.1f s: %s\n", seconds_passed(), text);
}

static void step_send(const char *text)
{
	if (dprintf(command.to, "%s\n", text) < 0)
		fail("the command does not read: %s", strerror(errno));
}

static void step_end(double seconds)
{
	double deadline = seconds_passed() + seconds;
	int status;

	while (command.from >= 0) {
		if (!command_read(deadline))
			fail("the command has not ended within %.0f s", seconds);
	}
	if (waitpid(command.pid, &status, 0) != command.pid)
		fail("wait: %s", strerror(errno));
	command.pid = 0;
	if (WIFSIGNALED(status))
		fail("the command died of signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		fail("the command ended with status %d", WEXITSTATUS(status));
	fprintf(stderr, "%.1f s: ended\n", seconds_passed());
}

static void step_run(const char *line)
{
	double seconds;
	int text = 0;

	if (!strncmp(line, "send ", 5))
		step_send(line + 5);
	else if (sscanf(line, "wait %lf %n", &seconds, &text) == 1 && text && line[text])
		step_wait(seconds, line + text);
	else if (sscanf(line, "end %lf", &seconds) == 1)
		step_end(seconds);
	else
		fail("no step of a script: %s", line);
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t room = 0;
	FILE *script;

	clock_gettime(CLOCK_MONOTONIC, &started);
	if (argc < 3)
		fail("usage: dialogue SCRIPT COMMAND [ARGS...]");
	script = fopen(argv[1], "re");
	if (!script)
		fail("%s: %s", argv[1], strerror(errno));
	signal(SIGPIPE, SIG_IGN);
	command_start(argv + 2);
	while (getline(&line, &room, script) > 0) {
		line[strcspn(line, "\n")] = '\0';
		step_run(line);
	}
	if (command.pid > 0)
		kill(command.pid, SIGKILL);
	return 0;
}
