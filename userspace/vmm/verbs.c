// SPDX-License-Identifier: MIT OR GPL-2.0
/* What is done with a machine at the request of who controls it. All of it in the control's thread. */
#include <errno.h>
#include <unistd.h>

#include "userspace/vmm/control.h"
#include "userspace/vmm/machine.h"
#include "userspace/vmm/verbs.h"

static int verb_info(void *owner, const struct control_request *request, int *descriptor,
		     struct control_answer *answer)
{
	const struct machine *machine = owner;
	const struct dev_memory *memory = &machine->memory.map;

	(void)request;
	(void)descriptor;
	answer->info = (struct control_info){
		.pid = getpid(), .paused = pause_is_wanted(&machine->pause),
		.cpus = machine->vcpu_count, .devices = machine->virtio_count,
	};
	for (unsigned int i = 0; i < memory->count; i++)
		answer->info.memory += memory->region[i].size;
	return 0;
}

static int verb_stats(void *owner, const struct control_request *request, int *descriptor,
		      struct control_answer *answer)
{
	const struct machine *machine = owner;
	struct control_stats *stats = &answer->stats;

	(void)request;
	(void)descriptor;
	*stats = (struct control_stats){ 0 };
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

static int verb_pause(void *owner, const struct control_request *request, int *descriptor,
		      struct control_answer *answer)
{
	(void)request;
	(void)descriptor;
	(void)answer;
	return machine_pause(owner);
}

static int verb_resume(void *owner, const struct control_request *request, int *descriptor,
		       struct control_answer *answer)
{
	(void)request;
	(void)descriptor;
	(void)answer;
	machine_resume(owner);
	return 0;
}

static int verb_console(void *owner, const struct control_request *request, int *descriptor,
			struct control_answer *answer)
{
	struct machine *machine = owner;
	int err = serial_add_terminal(&machine->serial, *descriptor);

	(void)request;
	(void)answer;
	if (!err)
		*descriptor = -1;
	return err;
}

static int verb_stop(void *owner, const struct control_request *request, int *descriptor,
		     struct control_answer *answer)
{
	struct machine *machine = owner;

	(void)request;
	(void)descriptor;
	(void)answer;
	stop_request(&machine->stop, CONTROL_END_ASKED, 0);
	return 0;
}

const struct control_verb verbs[CONTROL_DUMP + 1] = {
	[CONTROL_INFO]		= { .act = verb_info },
	[CONTROL_STATS]		= { .act = verb_stats },
	[CONTROL_PAUSE]		= { .act = verb_pause },
	[CONTROL_RESUME]	= { .act = verb_resume },
	[CONTROL_STOP]		= { .act = verb_stop },
	[CONTROL_CONSOLE]	= { .act = verb_console, .descriptor = true },
};
