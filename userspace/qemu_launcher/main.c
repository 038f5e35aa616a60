// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-qemu: the launcher of a machine that has firmware and legacy devices, which QEMU is made of.
 *
 * QEMU is a process in a sandbox of its own (process.c), which has the guest. This one speaks to it by QMP, and with
 * who controls the machine as moat-vmm does; it has nothing of the guest's, and trusts QEMU no more than the
 * guest. Either ends with the other.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/qemu_launcher/confine.h"
#include "userspace/qemu_launcher/launcher.h"
#include "userspace/qemu_launcher/verbs.h"

#define STATUS_FAILED		1
#define STATUS_USAGE		2
#define STATUS_SIGNALLED	128

#define MAIN_BEGIN_MS		60000
#define MAIN_END_MS		5000

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

/* Until QEMU says hello: it has opened by then what it opens. */
static int launcher_greet(struct launcher *launcher)
{
	struct process *process = &launcher->process;

	while (!launcher->qmp.greeted) {
		struct pollfd wait[] = {
			{ .fd = process->listener, .events = POLLIN },
			{ .fd = launcher->qmp.source.fd, .events = POLLIN },
			{ .fd = process->pidfd, .events = POLLIN },
			{ .fd = process->output, .events = POLLIN },
		};

		if (!poll(wait, 4, MAIN_BEGIN_MS)) {
			log_error("QEMU does not come up");
			return -ETIMEDOUT;
		}
		if ((wait[0].revents & POLLIN) && !process_answer(process, launcher->parts.node))
			process_close_listener(process);
		if (wait[3].revents & POLLIN)
			process_hear(process);
		if (wait[2].revents || (wait[1].revents && !qmp_read(&launcher->qmp)))
			return -ECONNRESET;
	}
	process_close_listener(process);
	return 0;
}

/* From here on the node is QEMU's alone. Descriptors of disks are kept for their locks. */
static int launcher_begin(struct launcher *launcher)
{
	int err = launcher_greet(launcher);

	if (!err)
		err = qmp_call(&launcher->qmp, "qmp_capabilities", NULL, -1, NULL);
	fd_close(launcher->parts.node);
	launcher->parts.node = -1;
	if (!err)
		err = confine(launcher->options->uid, launcher->options->gid);
	return err;
}

static int launcher_serve(struct launcher *launcher)
{
	struct loop *loop = &launcher->control.loop;
	int err = line_init(&launcher->line, launcher->process.line);

	launcher->process.line = -1;
	if (!err)
		err = control_init(&launcher->control, launcher->options->control, verbs, launcher);
	launcher->qmp.news.ready = verbs_take_news;
	if (!err)
		err = loop_add(loop, &launcher->qmp.source);
	if (!err)
		err = loop_add(loop, &launcher->qmp.news);
	if (!err)
		err = attach_listen(launcher);
	if (!err)
		err = qmp_call(&launcher->qmp, "cont", NULL, -1, NULL);
	if (!err)
		err = control_listen(&launcher->control);
	launcher->controlled = !err;
	if (err)
		log_error("cannot serve the control socket: %s", strerror(-err));
	return err;
}

static int launcher_init(struct launcher *launcher, const struct options *options)
{
	int err;

	launcher->options = options;
	launcher->ports = options->device_count + PARTS_SPARE;
	launcher->lost = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = launcher->lost < 0 ? -errno : stop_init(&launcher->stop);
	if (!err)
		err = parts_open(&launcher->parts, options);
	if (!err)
		err = process_start(&launcher->process, options, &launcher->parts);
	if (err)
		return err;
	err = qmp_init(&launcher->qmp, launcher->process.qmp);
	if (!err)
		err = launcher_begin(launcher);
	return err ? err : launcher_serve(launcher);
}

static void launcher_signalled(struct launcher *launcher, int signals)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) == sizeof(info))
		stop_request(&launcher->stop, CONTROL_END_ASKED, STATUS_SIGNALLED + info.ssi_signo);
}

/* QEMU has ended, or has hung up: what it said last is why. */
static void launcher_failed(struct launcher *launcher)
{
	process_end(&launcher->process, MAIN_END_MS);
	stop_request(&launcher->stop, CONTROL_END_FAILED, STATUS_FAILED);
}

static void launcher_run(struct launcher *launcher, int signals)
{
	struct pollfd wait[] = {
		{ .fd = launcher->stop.event, .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
		{ .fd = launcher->process.output, .events = POLLIN },
		{ .fd = launcher->process.pidfd, .events = POLLIN },
		{ .fd = launcher->lost, .events = POLLIN },
	};

	while (stop_status(&launcher->stop) < 0) {
		if (poll(wait, 5, -1) <= 0)
			continue;
		if (wait[1].revents)
			launcher_signalled(launcher, signals);
		if (wait[2].revents && !process_hear(&launcher->process))
			wait[2].fd = -1;
		if (wait[3].revents || wait[4].revents)
			launcher_failed(launcher);
	}
}

/* QEMU is asked to write out what it has of disks, and is waited for, though not for ever. */
static void launcher_finish(struct launcher *launcher)
{
	if (launcher->controlled)
		control_finish(&launcher->control);
	if (launcher->process.pid && launcher->qmp.greeted)
		qmp_call(&launcher->qmp, "quit", NULL, -1, NULL);
	process_end(&launcher->process, launcher->qmp.greeted ? MAIN_END_MS : 0);
	line_finish(&launcher->line);
	qmp_finish(&launcher->qmp);
	parts_close(&launcher->parts);
}

static void main_run(const struct options *options, struct control_ended *ended)
{
	static struct launcher launcher = {
		.process = { .pidfd = -1, .output = -1, .listener = -1, .qmp = -1, .line = -1 },
		.parts = { .node = -1, .vars = -1 }, .line = { .fd = -1, .wake = -1 },
		.qmp = { .source = { .fd = -1 }, .news = { .fd = -1 } },
	};
	int signals = main_signals();

	if (signals < 0)
		return;
	if (!launcher_init(&launcher, options)) {
		launcher_run(&launcher, signals);
		ended->status = stop_status(&launcher.stop);
		ended->end = launcher.stop.end;
		memcpy(ended->text, launcher.stop.text, sizeof(ended->text));
	}
	launcher_finish(&launcher);
}

int main(int argc, char **argv)
{
	struct control_ended ended = { .end = CONTROL_END_FAILED, .status = STATUS_FAILED };
	struct options options;
	int err;

	log_name("moat-qemu", NULL);
	err = options_parse(&options, argc, argv);
	if (err > 0)
		return 0;
	if (!err && options.control < 0) {
		log_error("--control is missing: there is no other way to speak to the machine");
		err = -EINVAL;
	}
	if (err) {
		ended.status = STATUS_USAGE;
	} else {
		log_name("moat-qemu", options.name);
		fd_close(options.devices_cgroup);
		main_run(&options, &ended);
	}
	if (ended.end == CONTROL_END_FAILED && !*ended.text)
		log_last(ended.text, sizeof(ended.text));
	if (options.ended >= 0)
		fd_write_full(options.ended, &ended, sizeof(ended));
	return ended.status;
}
