// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-vmm: the launcher of one virtual machine. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/machine.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/program.h"
#include "userspace/vmm/supervisor.h"

#define STATUS_FAILED	1
#define STATUS_USAGE	2

/* Blocked in every thread from here on, so that they come to the descriptor and nowhere else. */
static int main_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		log_error("cannot make a signal descriptor: %s", strerror(errno));
	return fd;
}

/* The machine's whole life. */
static void main_run(const struct options *options, struct control_ended *ended)
{
	static struct supervisor supervisor;
	static struct machine machine;
	int signals = main_signals();

	if (signals < 0)
		return;
	if (!supervisor_start(&supervisor, options, programs) &&
	    !machine_init(&machine, options, &supervisor)) {
		ended->status = machine_run(&machine, signals);
		ended->end = machine.stop.end;
		memcpy(ended->text, machine.stop.text, sizeof(ended->text));
		machine_finish(&machine);
	}
	supervisor_finish(&supervisor);
	fd_close(signals);
}

int main(int argc, char **argv)
{
	struct control_ended ended = { .end = CONTROL_END_FAILED, .status = STATUS_FAILED };
	struct options options;
	int err;

	log_name("moat-vmm", NULL);
	err = options_parse(&options, argc, argv);
	if (err > 0)
		return 0;
	mallopt(M_ARENA_MAX, 1);	/* little is allocated, by one thread */
	if (err) {
		ended.status = STATUS_USAGE;
	} else {
		log_name("moat-vmm", options.name);
		main_run(&options, &ended);
	}
	if (ended.end == CONTROL_END_FAILED && !*ended.text)
		log_last(ended.text, sizeof(ended.text));
	if (options.ended >= 0)
		fd_write_full(options.ended, &ended, sizeof(ended));
	return ended.status;
}
