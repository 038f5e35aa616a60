// SPDX-License-Identifier: MIT OR GPL-2.0
/* What is done with a machine at the request of who controls it, by QMP; and what QEMU has to tell. */
#include <errno.h>
#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/qemu_launcher/launcher.h"
#include "userspace/qemu_launcher/verbs.h"

static int launcher_do(struct launcher *launcher, const char *command)
{
	return qmp_call(&launcher->qmp, command, NULL, -1, NULL);
}

/* Does what QEMU calls its state have that name? */
static bool launcher_is(struct launcher *launcher, const char *state)
{
	struct json_object *status = NULL;
	bool is;

	qmp_call(&launcher->qmp, "query-status", NULL, -1, &status);
	is = !strcmp(qmp_text(status, "status"), state);
	json_object_put(status);
	return is;
}

static unsigned int launcher_devices(const struct launcher *launcher)
{
	unsigned int count = launcher->parts.cdrom_count + launcher->options->rng +
			     launcher->options->balloon;

	for (unsigned int i = 0; i < launcher->ports; i++)
		count += launcher->parts.device[i].fd >= 0;
	return count;
}

static int verb_info(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	const struct options *options = launcher->options;
	struct json_object *balloon = NULL;
	uint64_t actual;

	call->answer.info = (struct control_info){
		.pid = getpid(), .cpus = options->cpus, .memory = options->memory,
		.paused = !launcher_is(launcher, "running"), .devices = launcher_devices(launcher),
		.has_balloon = options->balloon,
	};
	if (options->balloon && !qmp_call(&launcher->qmp, "query-balloon", NULL, -1, &balloon)) {
		actual = qmp_number(balloon, "actual");
		if (actual < options->memory)
			call->answer.info.balloon = options->memory - actual;
		call->answer.info.balloon_wanted = launcher->balloon_wanted;
	}
	json_object_put(balloon);
	return launcher->qmp.source.fd < 0 ? -EIO : 0;
}

/* What the node counts of a vCPU: as Moat calls it, and KVM. */
static const struct {
	const char *name[2];
	size_t offset;
} stats_rows[] = {
	{ { "exits", "exits" }, offsetof(struct control_stats, exits) },
	{ { "user_exits", "user_exits" }, offsetof(struct control_stats, exits_user) },
	{ { "halts", "halt_exits" }, offsetof(struct control_stats, halts) },
	{ { "injections", "irq_injections" }, offsetof(struct control_stats, interrupts) },
	{ { "faults", "pf_taken" }, offsetof(struct control_stats, faults) },
};

static void stats_add(struct control_stats *stats, struct json_object *one)
{
	const char *name = qmp_text(one, "name");

	for (size_t i = 0; i < ARRAY_SIZE(stats_rows); i++)
		if (!strcmp(name, stats_rows[i].name[0]) || !strcmp(name, stats_rows[i].name[1]))
			*(uint64_t *)((char *)stats + stats_rows[i].offset) += qmp_number(one, "value");
}

static void stats_add_disk(struct control_stats *stats, struct json_object *one)
{
	struct json_object *of = qmp_member(one, "stats");

	stats->disk_requests += qmp_number(of, "rd_operations") + qmp_number(of, "wr_operations");
	stats->disk_bytes += qmp_number(of, "rd_bytes") + qmp_number(of, "wr_bytes");
}

static void each_of(struct json_object *array, struct control_stats *stats,
		    void (*each)(struct control_stats *stats, struct json_object *one))
{
	if (json_object_is_type(array, json_type_array))
		for (size_t i = 0; i < json_object_array_length(array); i++)
			each(stats, json_object_array_get_idx(array, i));
}

static void stats_add_vcpu(struct control_stats *stats, struct json_object *vcpu)
{
	each_of(qmp_member(vcpu, "stats"), stats, stats_add);
}

/* Of networks, QEMU counts nothing. */
static int verb_stats(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	struct json_object *arguments = json_object_new_object(), *vcpus = NULL, *disks = NULL;

	call->answer.stats = (struct control_stats){ 0 };
	json_object_object_add(arguments, "target", json_object_new_string("vcpu"));
	qmp_call(&launcher->qmp, "query-stats", arguments, -1, &vcpus);
	qmp_call(&launcher->qmp, "query-blockstats", NULL, -1, &disks);
	each_of(vcpus, &call->answer.stats, stats_add_vcpu);
	each_of(disks, &call->answer.stats, stats_add_disk);
	json_object_put(vcpus);
	json_object_put(disks);
	return launcher->qmp.source.fd < 0 ? -EIO : 0;
}

static int verb_button(struct control_call *call)
{
	return launcher_do(call->owner, "system_powerdown");
}

static int verb_pause(struct control_call *call)
{
	return launcher_do(call->owner, "stop");
}

static int verb_resume(struct control_call *call)
{
	struct launcher *launcher = call->owner;

	return launcher->dumping ? -EBUSY : launcher_do(launcher, "cont");
}

static int verb_stop(struct control_call *call)
{
	struct launcher *launcher = call->owner;

	stop_request(&launcher->stop, CONTROL_END_ASKED, 0);
	return 0;
}

static int verb_balloon(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	struct json_object *arguments;
	int err;

	if (!launcher->options->balloon)
		return -ENODEV;
	if (call->request->value >= launcher->options->memory)
		return -EINVAL;
	arguments = json_object_new_object();
	json_object_object_add(arguments, "value", json_object_new_int64(launcher->options->memory -
									 call->request->value));
	err = qmp_call(&launcher->qmp, "balloon", arguments, -1, NULL);
	if (!err)
		launcher->balloon_wanted = call->request->value;
	return err;
}

static int verb_console(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	int err = line_add(&launcher->line, call->descriptor);

	if (!err)
		call->descriptor = -1;
	return err;
}

/* QEMU writes from begin to end, so it may be a stream, too. */
static bool dump_fits(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && (S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode));
}

/* QEMU stops the guest for it, and lets it go on if it did before. */
static int verb_dump(struct control_call *call)
{
	struct launcher *launcher = call->owner;
	struct json_object *arguments;
	int err;

	if (launcher->dumping || !dump_fits(call->descriptor))
		return launcher->dumping ? -EBUSY : -ESPIPE;
	arguments = json_object_new_object();
	json_object_object_add(arguments, "fdname", json_object_new_string("dump"));
	err = qmp_call(&launcher->qmp, "getfd", arguments, call->descriptor, NULL);
	if (err)
		return err;
	arguments = json_object_new_object();
	json_object_object_add(arguments, "paging", json_object_new_boolean(false));
	json_object_object_add(arguments, "protocol", json_object_new_string("fd:dump"));
	json_object_object_add(arguments, "detach", json_object_new_boolean(true));
	err = qmp_call(&launcher->qmp, "dump-guest-memory", arguments, -1, NULL);
	if (err)
		return err;
	launcher->dumping = true;
	return CONTROL_LATER;
}

const struct control_verb verbs[CONTROL_DUMP + 1] = {
	[CONTROL_INFO]		= { .act = verb_info },
	[CONTROL_STATS]		= { .act = verb_stats },
	[CONTROL_BUTTON]	= { .act = verb_button },
	[CONTROL_PAUSE]		= { .act = verb_pause },
	[CONTROL_RESUME]	= { .act = verb_resume },
	[CONTROL_STOP]		= { .act = verb_stop },
	[CONTROL_BALLOON]	= { .act = verb_balloon, .value = true },
	[CONTROL_CONSOLE]	= { .act = verb_console, .descriptor = true },
	[CONTROL_ATTACH]	= {
		.act = verb_attach, .descriptor = true, .isolation = true, .type = true, .name = true,
	},
	[CONTROL_DETACH]	= { .act = verb_detach, .name = true },
	[CONTROL_DUMP]		= { .act = verb_dump, .descriptor = true },
};

/* What QEMU tells */

static void news_shutdown(struct launcher *launcher, struct json_object *data)
{
	const char *reason = qmp_text(data, "reason");

	if (!strcmp(reason, "guest-reset") || !strcmp(reason, "subsystem-reset")) {
		log_error("the guest asked for a reset: ended, start it again");
		stop_request(&launcher->stop, CONTROL_END_RESET, 0);
	} else if (!strcmp(reason, "guest-shutdown")) {
		stop_request(&launcher->stop, CONTROL_END_OFF, 0);
	} else {
		log_error("QEMU ended the machine: %.32s", reason);
		stop_request(&launcher->stop, CONTROL_END_FAILED, 1);
	}
}

static void news_panicked(struct launcher *launcher, struct json_object *data)
{
	(void)data;
	log_error("the guest's kernel panicked");
	stop_request(&launcher->stop, CONTROL_END_CRASH, 1);
}

/* By whom, it does not say; one who could not go on is not there to be resumed. */
static void news_stopped(struct launcher *launcher, struct json_object *data)
{
	(void)data;
	if (!launcher_is(launcher, "internal-error"))
		return;
	log_error("the guest did what the node cannot go on from");
	stop_request(&launcher->stop, CONTROL_END_CRASH, 1);
}

static void news_dumped(struct launcher *launcher, struct json_object *data)
{
	const char *status = qmp_text(qmp_member(data, "result"), "status");

	if (!launcher->dumping)
		return;
	launcher->dumping = false;
	control_finish_late(&launcher->control, CONTROL_DUMP, strcmp(status, "completed") ? -EIO : 0);
}

static void news_gone(struct launcher *launcher, struct json_object *data)
{
	attach_gone(launcher, qmp_text(data, "device"));
}

static const struct {
	const char *event;
	void (*take)(struct launcher *launcher, struct json_object *data);
} news_rows[] = {
	{ "SHUTDOWN", news_shutdown }, { "GUEST_PANICKED", news_panicked }, { "STOP", news_stopped },
	{ "DUMP_COMPLETED", news_dumped }, { "DEVICE_DELETED", news_gone },
};

static void news_take(struct launcher *launcher, struct json_object *event)
{
	const char *name = qmp_text(event, "event");

	for (size_t i = 0; i < ARRAY_SIZE(news_rows); i++)
		if (!strcmp(news_rows[i].event, name))
			news_rows[i].take(launcher, qmp_member(event, "data"));
}

void verbs_take_news(struct loop_source *source)
{
	struct launcher *launcher = (struct launcher *)((char *)source -
							offsetof(struct launcher, qmp.news));
	struct json_object *event;

	fd_take_event(source->fd);
	while ((event = qmp_next_event(&launcher->qmp))) {
		news_take(launcher, event);
		json_object_put(event);
	}
	if (launcher->qmp.source.fd < 0)
		fd_signal_event(launcher->lost);
}
