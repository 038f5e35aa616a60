// SPDX-License-Identifier: MIT OR GPL-2.0
/* What is done with a machine at the request of who controls it. All of it in the control's thread. */
#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "devmodel/balloon/balloon.h"
#include "userspace/lib/fd.h"
#include "userspace/vmm/control.h"
#include "userspace/vmm/machine.h"
#include "userspace/vmm/verbs.h"

#define VERBS_PAGE	4096

static int verb_info(struct control_call *call)
{
	const struct machine *machine = call->owner;
	uint32_t asked, actual;

	call->answer.info = (struct control_info){
		.pid = getpid(), .paused = pause_is_wanted(&machine->pause),
		.cpus = machine->vcpu_count, .memory = memory_size(&machine->memory),
		.devices = devices_count(&machine->devices),
		.has_balloon = machine->devices.balloon != NULL,
	};
	if (machine->devices.balloon) {
		balloon_look(machine->devices.balloon, &asked, &actual);
		call->answer.info.balloon_wanted = (uint64_t)asked * VERBS_PAGE;
		call->answer.info.balloon = (uint64_t)actual * VERBS_PAGE;
	}
	return 0;
}

static int verb_stats(struct control_call *call)
{
	const struct machine *machine = call->owner;
	struct control_stats *stats = &call->answer.stats;

	*stats = (struct control_stats){ 0 };
	devices_add_stats(&machine->devices, stats);
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		const struct stats *vcpu = &machine->vcpu[i].stats;

		stats->exits += stats_read(vcpu, STATS_EXITS);
		stats->exits_user += stats_read(vcpu, STATS_EXITS_USER);
		stats->halts += stats_read(vcpu, STATS_HALTS);
		stats->interrupts += stats_read(vcpu, STATS_INTERRUPTS);
		stats->faults += stats_read(vcpu, STATS_FAULTS);
	}
	return 0;
}

static int verb_button(struct control_call *call)
{
	struct machine *machine = call->owner;

	events_raise(&machine->events, EVENTS_BUTTON, 1);
	return 0;
}

static int verb_pause(struct control_call *call)
{
	struct machine *machine = call->owner;

	machine->goes_on = false;
	return machine_pause(machine);
}

static int verb_resume(struct control_call *call)
{
	struct machine *machine = call->owner;

	if (machine->dump.running)
		return -EBUSY;
	machine_resume(machine);
	return 0;
}

static int verb_console(struct control_call *call)
{
	struct machine *machine = call->owner;
	int err = serial_add_terminal(&machine->serial, call->descriptor);

	if (!err)
		call->descriptor = -1;
	return err;
}

static int verb_balloon(struct control_call *call)
{
	struct machine *machine = call->owner;

	if (!machine->devices.balloon)
		return -ENODEV;
	if (call->request->value >= memory_size(&machine->memory))
		return -EINVAL;
	balloon_ask(machine->devices.balloon, call->request->value / VERBS_PAGE);
	return 0;
}

static int verb_attach(struct control_call *call)
{
	struct machine *machine = call->owner;
	int err = devices_attach(&machine->devices, call->request->type, call->request->name,
				 call->request->isolation, call->descriptor);

	if (!err)
		call->descriptor = -1;
	return err;
}

static int verb_detach(struct control_call *call)
{
	struct machine *machine = call->owner;

	return devices_detach(&machine->devices, call->request->name);
}

static int verb_dump(struct control_call *call)
{
	struct machine *machine = call->owner;
	int err;

	if (machine->dump.running)
		return -EBUSY;
	machine->goes_on = !pause_is_wanted(&machine->pause);
	err = machine_pause(machine);
	if (!err)
		err = dump_begin(&machine->dump, &machine->memory, machine->vcpu,
				 machine->vcpu_count, call->descriptor);
	if (!err) {
		call->descriptor = -1;
		return CONTROL_LATER;
	}
	if (machine->goes_on)
		machine_resume(machine);
	return err;
}

static int verb_stop(struct control_call *call)
{
	struct machine *machine = call->owner;

	stop_request(&machine->stop, CONTROL_END_ASKED, 0);
	return 0;
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

void verbs_tell_news(struct loop_source *source)
{
	struct machine *machine = (struct machine *)((char *)source -
						     offsetof(struct machine, devices.news));
	char name[CONTROL_NAME];
	enum control_what what;

	if (!fd_take_event(source->fd))
		return;
	while (devices_take_news(&machine->devices, &what, name))
		control_tell(&machine->control, what, name);
}

void verbs_dump_done(struct loop_source *source)
{
	struct machine *machine = (struct machine *)((char *)source -
						     offsetof(struct machine, dump.done));
	int result = dump_end(&machine->dump);

	if (machine->goes_on)
		machine_resume(machine);
	control_finish_late(&machine->control, CONTROL_DUMP, result);
}
