// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A machine's life is the table below: what is done in which state when something happens. Nothing here is
 * lost with this process: definitions are files, and whether a machine runs is what its place and its
 * launcher say; that one is to be started again, which has neither for a while, a mark says. So whoever begins
 * anew finds the same as was there before, wherever it was cut off.
 *
 * The end is one road for all: the launcher hangs up, or is killed; what is left is reaped, its record is read,
 * and then it is cleaned up, and started again where it is to be.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "userspace/lib/clock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/text.h"
#include "userspace/moatd/control.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"
#include "userspace/moatd/store.h"
#include "userspace/moatd/varlink.h"

#define MACHINE_SOON_MS		10000	/* who ends before that has failed */
#define MACHINE_PAUSE_MS	1000	/* doubles with each failure */
#define MACHINE_PAUSE_DOUBLINGS	6
#define MACHINE_STARTS_MAX	8	/* at once: each is to be whole before the keeper gives it up */
#define MACHINE_DETACH_US	(30 * 1000000ULL)
#define MACHINE_AGAIN_MS	1000	/* what has to come about, and did not */
#define MACHINES_LOOK_US	(5 * 1000000ULL)

/* A call that waits for a machine to come to a state. */
struct machine_wait {
	struct machine_wait *next;
	struct call *call;
	enum machine_state wanted;
};

/* Somebody waits for a guest to let a device go. */
struct detach {
	struct detach *next;
	struct machine *machine;
	char device[CONTROL_NAME];
	sd_event_source *timer;
	void (*then)(void *arg, int error);
	void *arg;
};

struct listener {
	struct listener *next;
	struct call *call;
};

struct machine *machines;
static sd_event *machine_loop;
static int machine_dir = -1;
static struct listener *machine_listeners;
static struct detach *machine_detaches;
static void (*machines_ready)(void);
static unsigned int machines_unknown;	/* of which it is not known yet whether they run */
static unsigned int machines_booting;
static uint64_t machines_serial;
static bool machines_first;
static bool machines_begun;
static sd_event_source *machines_timer;	/* until then it is waited for that all is known */
static uint64_t machines_health_ms;
static unsigned int machines_starting;

static const char *const state_names[MACHINE_STATES] = {
	[MACHINE_OFF] = "off", [MACHINE_BROKEN] = "broken", [MACHINE_STARTING] = "starting",
	[MACHINE_RUNNING] = "running", [MACHINE_PAUSED] = "paused", [MACHINE_STOPPING] = "stopping",
	[MACHINE_ENDING] = "ending", [MACHINE_WAITING] = "waiting",
};

static const char *const event_names[MACHINE_ASKED] = {
	[MACHINE_START] = "start", [MACHINE_STOP] = "stop", [MACHINE_KILL] = "kill",
	[MACHINE_RESET] = "reset", [MACHINE_PAUSE] = "pause", [MACHINE_RESUME] = "resume",
	[MACHINE_DESTROY] = "destroy",
};

static const char *const end_names[] = {
	[0] = "killed", [CONTROL_END_OFF] = "powered off", [CONTROL_END_RESET] = "reset",
	[CONTROL_END_CRASH] = "crashed", [CONTROL_END_STATUS] = "ended with a status",
	[CONTROL_END_ASKED] = "stopped", [CONTROL_END_FAILED] = "failed",
};

static int definition_save(const struct definition *definition);
static void detaches_end(const struct machine *machine, const char *device, int error);
static void machine_start(struct machine *machine);
static void machines_start_queued(void);
static void machine_happen(struct machine *machine, enum machine_event event);

const char *machine_state_name(const struct machine *machine)
{
	return state_names[machine->state];
}

const char *machine_end_name(const struct machine *machine)
{
	return machine->has_ended ? end_names[machine->ended.end] : NULL;
}

struct machine *machine_find(const char *name)
{
	for (struct machine *machine = machines; machine; machine = machine->next)
		if (!strcmp(machine->definition.name, name))
			return machine;
	return NULL;
}

struct machine *machine_find_serial(uint64_t serial)
{
	for (struct machine *machine = machines; machine; machine = machine->next)
		if (machine->serial == serial)
			return machine;
	return NULL;
}

bool machine_is_broken(const struct machine *machine)
{
	return *machine->error.text;
}

bool machine_runs(const struct machine *machine)
{
	return machine->control;
}

bool machine_is_of(const struct machine *machine, uid_t uid)
{
	return !uid || machine->definition.owner == uid;
}

/* Who listens */

static void listener_gone(void *arg)
{
	struct listener *listener = arg, **at = &machine_listeners;

	while (*at != listener)
		at = &(*at)->next;
	*at = listener->next;
	call_reply(listener->call, NULL);
	free(listener);
}

void machine_listen(struct call *call)
{
	struct listener *listener = malloc(sizeof(*listener));

	if (!listener) {
		call_error(call, "Failed", NULL);
		return;
	}
	*listener = (struct listener){ machine_listeners, call };
	machine_listeners = listener;
	call_on_gone(call, listener_gone, listener);
}

void machine_tell(const struct machine *machine, const char *what, const char *detail)
{
	struct listener *next;

	for (struct listener *at = machine_listeners; at; at = next) {
		struct json_object *event;

		next = at->next;
		if (!machine_is_of(machine, call_uid(at->call)))
			continue;
		event = json_object_new_object();
		json_object_object_add(event, "machine", json_object_new_string(machine->definition.name));
		json_object_object_add(event, "event", json_object_new_string(what));
		json_object_object_add(event, "detail", json_object_new_string(detail ? detail : ""));
		json_object_object_add(event, "time", json_object_new_int64(time(NULL)));
		call_more(at->call, event);
	}
}

/* Who waits */

static void call_fail(struct call *call, const char *why)
{
	struct json_object *parameters = json_object_new_object();

	json_object_object_add(parameters, "message", json_object_new_string(why));
	call_error(call, "Failed", parameters);
}

static void machine_wait(struct machine *machine, struct call *call, enum machine_state wanted)
{
	struct machine_wait *wait = malloc(sizeof(*wait));

	if (!wait) {
		call_fail(call, strerror(ENOMEM));
		return;
	}
	*wait = (struct machine_wait){ machine->waits, call, wanted };
	machine->waits = wait;
}

/* Off, whatever its definition is. */
static bool machine_is_off(const struct machine *machine)
{
	return machine->state == MACHINE_OFF || machine->state == MACHINE_BROKEN;
}

static bool machine_came_to(const struct machine *machine, enum machine_state wanted)
{
	return machine->state == wanted || (wanted == MACHINE_OFF && machine_is_off(machine));
}

/* Has it come to rest, elsewhere than who waits for it wanted? */
static bool machine_missed(const struct machine *machine, enum machine_state wanted)
{
	return wanted != MACHINE_OFF && (machine_is_off(machine) || machine->state == MACHINE_WAITING);
}

static void machine_serve_waits(struct machine *machine)
{
	struct machine_wait **at = &machine->waits;

	while (*at) {
		struct machine_wait *wait = *at;
		const bool missed = machine_missed(machine, wait->wanted);

		if (!machine_came_to(machine, wait->wanted) && !missed) {
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		if (missed)
			call_fail(wait->call, *machine->why ? machine->why : "it ended at once; see its log");
		else
			call_reply(wait->call, NULL);
		free(wait);
	}
}

/* Of those that wait for that state, all are told that it will not be. */
static void machine_fail_waits(struct machine *machine, enum machine_state wanted, const char *why)
{
	struct machine_wait **at = &machine->waits;

	while (*at) {
		struct machine_wait *wait = *at;

		if (wait->wanted != wanted) {
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		call_fail(wait->call, why);
		free(wait);
	}
}

static int timer_fired(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	machine_happen(arg, MACHINE_TIMEOUT);
	return 0;
}

/* In the state that it is in. */
static void machine_set_timer(struct machine *machine, uint64_t ms)
{
	sd_event_source_disable_unref(machine->timer);
	machine->timer = NULL;
	if (sd_event_add_time_relative(machine_loop, &machine->timer, CLOCK_MONOTONIC, ms * 1000, 0,
				       timer_fired, machine) < 0)
		log_error("%s: no timer", machine->definition.name);
}

static void machine_mark(struct machine *machine, bool marked)
{
	if (machine->marked != marked)
		store_mark(machine_dir, machine->definition.name, marked);
	machine->marked = marked;
}

/* Those that start with the host have been started once each of them runs, or does not. */
static void machine_booted(struct machine *machine)
{
	machine->booting = false;
	if (!--machines_booting)
		keep_ask(KEEPER_BOOTED, NULL, 0, NULL, NULL);
}

static void machine_enter(struct machine *machine, enum machine_state state)
{
	machine->timer = sd_event_source_disable_unref(machine->timer);
	if (state == MACHINE_OFF && machine_is_broken(machine))
		state = MACHINE_BROKEN;
	if (machine->booting && state != MACHINE_STARTING)
		machine_booted(machine);
	machine->state = state;
	if (state == MACHINE_RUNNING || machine_is_off(machine)) {
		machine->again = false;
		machine_mark(machine, false);
	}
	machine->since = time(NULL);
	machine->silent = false;
	if (state == MACHINE_RUNNING || state == MACHINE_PAUSED)
		machine_set_timer(machine, machines_health_ms);
	machine_serve_waits(machine);
}

/* The end */

static void machine_forget(struct machine *machine)
{
	static struct keeper_start start;
	struct machine **at = &machines;
	bool changed;
	int err;

	if (!networks_of(&machine->definition, &start, &changed, machine->why))
		keep_ask(KEEPER_FORGET, &start, sizeof(start), NULL, NULL);
	err = store_remove(machine_dir, machine->definition.name);
	if (err && err != -ENOENT)
		log_error("%s: cannot remove its definition: %s", machine->definition.name,
			  strerror(-err));
	machine_tell(machine, "destroyed", NULL);
	machine_enter(machine, MACHINE_OFF);
	while (*at != machine)
		at = &(*at)->next;
	*at = machine->next;
	free(machine);
}

static void machine_reaped(void *arg, const struct keeper_answer *answer, int fd);
static void machine_cleaned(void *arg, const struct keeper_answer *answer, int fd);

static void do_end(struct machine *machine)
{
	keep_ask_name(machine->ending, machine->definition.name,
		      machine->ending == KEEPER_CLEAN ? machine_cleaned : machine_reaped, machine);
}

static void machine_clean(struct machine *machine)
{
	machine->ending = KEEPER_CLEAN;
	do_end(machine);
}

/* Until all is gone it has not ended: nobody starts it, or forgets it, over what is left. */
static bool machine_ends_later(struct machine *machine, const struct keeper_answer *answer)
{
	if (answer->error) {
		log_error("%s: %s: once more", machine->definition.name, answer->why);
		machine_set_timer(machine, MACHINE_AGAIN_MS);
	}
	return answer->error;
}

static void machine_cleaned(void *arg, const struct keeper_answer *answer, int fd)
{
	struct machine *machine = arg;

	(void)fd;
	if (machine_ends_later(machine, answer))
		return;
	if (machine->destroy) {
		machine_forget(machine);
		return;
	}
	if (!machine->again) {
		machine_enter(machine, MACHINE_OFF);
		return;
	}
	machine->again = false;
	if (!machine->failures) {
		machine_start(machine);
		return;
	}
	machine_enter(machine, MACHINE_WAITING);
	machine_set_timer(machine, MACHINE_PAUSE_MS <<
			  (machine->failures < MACHINE_PAUSE_DOUBLINGS ? machine->failures - 1 :
			   MACHINE_PAUSE_DOUBLINGS));
}

/* Is it to be started again by itself? A reset is the guest's way to ask for that. */
static bool machine_restarts(const struct machine *machine)
{
	if (machine->destroy || machine->asked || machine->ended.end == CONTROL_END_ASKED)
		return false;
	if (machine->ended.end == CONTROL_END_RESET)
		return true;
	if (machine->definition.restart == RESTART_ALWAYS)
		return true;
	return machine->definition.restart == RESTART_ON_FAILURE &&
	       machine->ended.end != CONTROL_END_OFF &&
	       !(machine->ended.end == CONTROL_END_STATUS && !machine->ended.status);
}

static void machine_reaped(void *arg, const struct keeper_answer *answer, int fd)
{
	struct machine *machine = arg;
	const bool soon = machine->began && clock_ms() - machine->began < MACHINE_SOON_MS;

	(void)fd;
	if (machine_ends_later(machine, answer))
		return;
	machine->ended = answer->ended;
	machine->has_ended = true;
	machine->failures = soon ? machine->failures + 1 : 0;
	if (machine->again)
		machine->failures = 0;
	snprintf(machine->why, sizeof(machine->why), "%s%s%s", machine_end_name(machine),
		 *machine->ended.text ? ": " : "", machine->ended.text);
	machine_tell(machine, "ended", machine->why);
	machine->again |= machine_restarts(machine);
	machine_mark(machine, machine->again);
	machine_clean(machine);
}

/* By KEEPER_REAP, or KEEPER_KILL. */
static void machine_end(struct machine *machine, enum keeper_what how)
{
	control_destroy(machine->control);
	machine->control = NULL;
	detaches_end(machine, NULL, -ECONNRESET);
	machine_fail_waits(machine, MACHINE_PAUSED, "it has ended");
	machine_enter(machine, MACHINE_ENDING);
	machine->ending = how;
	do_end(machine);
}

/* Devices */

static void detach_end(struct detach *detach, int error)
{
	struct detach **at = &machine_detaches;

	while (*at != detach)
		at = &(*at)->next;
	*at = detach->next;
	sd_event_source_disable_unref(detach->timer);
	detach->then(detach->arg, error);
	free(detach);
}

/* All of a machine's, or those of one device. */
static void detaches_end(const struct machine *machine, const char *device, int error)
{
	struct detach *next;

	for (struct detach *at = machine_detaches; at; at = next) {
		next = at->next;
		if (at->machine == machine && (!device || !strcmp(at->device, device)))
			detach_end(at, error);
	}
}

static int detach_late(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	detach_end(arg, -EBUSY);
	return 0;
}

struct detach_asked {
	struct machine *machine;
	char device[CONTROL_NAME];
};

static void detach_answered(void *arg, const struct control_answer *answer)
{
	struct detach_asked *asked = arg;

	if (answer && answer->error)
		detaches_end(asked->machine, asked->device, answer->error);
	free(asked);
}

int machine_detach(struct machine *machine, const char *device, void (*then)(void *arg, int error),
		   void *arg)
{
	struct control_request request = { .what = CONTROL_DETACH };
	struct detach_asked *asked = calloc(1, sizeof(*asked));
	struct detach *detach = calloc(1, sizeof(*detach));

	snprintf(request.name, sizeof(request.name), "%s", device);
	if (asked && detach &&
	    sd_event_add_time_relative(machine_loop, &detach->timer, CLOCK_MONOTONIC, MACHINE_DETACH_US, 0,
				       detach_late, detach) >= 0) {
		*asked = (struct detach_asked){ .machine = machine };
		memcpy(asked->device, request.name, sizeof(asked->device));
		detach->machine = machine;
		memcpy(detach->device, request.name, sizeof(detach->device));
		detach->then = then;
		detach->arg = arg;
		if (!control_ask(machine->control, &request, -1, detach_answered, asked)) {
			detach->next = machine_detaches;
			machine_detaches = detach;
			return 0;
		}
		sd_event_source_disable_unref(detach->timer);
	}
	free(asked);
	free(detach);
	return -ENOMEM;
}

static void machine_lost(void *arg)
{
	machine_happen(arg, MACHINE_LOST);
}

static void machine_said(void *arg, const struct control_answer *event)
{
	char name[CONTROL_NAME];

	snprintf(name, sizeof(name), "%s", event->name);
	text_clean(name, strlen(name));
	machine_tell(arg, event->what == CONTROL_DETACHED ? "device detached" : "device restarted", name);
	if (event->what == CONTROL_DETACHED)
		detaches_end(arg, event->name, 0);
}

static const struct control_ops machine_control = { machine_said, machine_lost };

/* The beginning */

static void machine_connect(struct machine *machine, int fd)
{
	machine->control = control_create(machine_loop, fd, &machine_control, machine);
	if (!machine->control)
		log_error("%s: no memory to control it: ended", machine->definition.name);
}

/* Where it was not to be, whoever was at it may have been cut off: what there is of it goes. */
static void machine_started(void *arg, const struct keeper_answer *answer, int fd)
{
	struct machine *machine = arg;

	machines_starting--;
	machines_start_queued();
	if (!answer->error)
		machine_connect(machine, fd);
	if (!answer->error && !machine->control) {
		machine_end(machine, KEEPER_KILL);
		return;
	}
	if (answer->error) {
		snprintf(machine->why, sizeof(machine->why), "%s", answer->why);
		machine_tell(machine, "failed", machine->why);
		machine_enter(machine, MACHINE_ENDING);
		machine_clean(machine);
		return;
	}
	machine_tell(machine, "started", NULL);
	machine_enter(machine, MACHINE_RUNNING);
}

/* With what the keeper has to know of its networks. False: it cannot be started; @why tells. */
static bool machine_prepare(struct machine *machine, struct keeper_start *start)
{
	bool changed;

	if (networks_check(&machine->definition, machine->why, sizeof(machine->why)) ||
	    networks_of(&machine->definition, start, &changed, machine->why))
		return false;
	if (!changed)
		return true;
	if (definition_save(&machine->definition)) {
		snprintf(machine->why, sizeof(machine->why), "its definition cannot be written");
		return false;
	}
	networks_refresh(&machine->definition);
	return true;
}

static void machine_launch(struct machine *machine)
{
	static struct keeper_start start;

	machine->queued = false;
	machine->began = clock_ms();
	if (!machine_prepare(machine, &start)) {
		machine_enter(machine, MACHINE_OFF);
		return;
	}
	machines_starting++;
	keep_ask(KEEPER_START, &start, sizeof(start), machine_started, machine);
}

/* As many as may be at once. */
static void machines_start_queued(void)
{
	struct machine *next;

	for (struct machine *at = machines; at && machines_starting < MACHINE_STARTS_MAX; at = next) {
		next = at->next;
		if (at->queued)
			machine_launch(at);
	}
}

static void machine_start(struct machine *machine)
{
	machine->again = false;
	machine->asked = false;
	*machine->why = '\0';
	machine_enter(machine, MACHINE_STARTING);
	machine->queued = true;
	machines_start_queued();
}

/* Actions: what the table names. */

static void do_start(struct machine *machine)
{
	machine->failures = 0;
	machine_start(machine);
}

static void do_kill(struct machine *machine)
{
	machine->asked = true;
	machine_end(machine, KEEPER_KILL);
}

static void do_reset(struct machine *machine)
{
	machine->again = true;
	machine_mark(machine, true);
	machine_fail_waits(machine, MACHINE_OFF, "it is reset");
	machine_end(machine, KEEPER_KILL);
}

static void do_reap(struct machine *machine)
{
	machine_end(machine, KEEPER_REAP);
}

static void do_give_up(struct machine *machine)
{
	machine_enter(machine, MACHINE_OFF);
}

static void do_again(struct machine *machine)
{
	machine_start(machine);
}

static void do_forget(struct machine *machine)
{
	machine_forget(machine);
}

static void do_kill_forget(struct machine *machine)
{
	machine->destroy = true;
	do_kill(machine);
}

static void do_forget_later(struct machine *machine)
{
	machine->destroy = true;
}

/* It ends already, and does not begin again after that. */
static void do_stay_off(struct machine *machine)
{
	machine->asked = true;
	machine->again = false;
}

static void do_nothing(struct machine *machine)
{
	(void)machine;
}

/* A guest that does not hear of it is stopped when its time is over. */
static void button_answered(void *arg, const struct control_answer *answer)
{
	struct machine *machine = arg;

	if (answer && answer->error)
		log_error("%s: its power button: %s", machine->definition.name, strerror(-answer->error));
}

static void do_button(struct machine *machine)
{
	const struct control_request button = { .what = CONTROL_BUTTON };
	const struct control_request resume = { .what = CONTROL_RESUME };

	machine->asked = true;
	/* It may have been asked to pause, and not have answered yet. */
	control_ask(machine->control, &resume, -1, NULL, NULL);
	machine_enter(machine, MACHINE_STOPPING);
	machine_set_timer(machine, machine->definition.stop_timeout * 1000);
	machine_tell(machine, "stopping", NULL);
	control_ask(machine->control, &button, -1, button_answered, machine);
}

static void paused(void *arg, const struct control_answer *answer)
{
	struct machine *machine = arg;

	if (answer && answer->error)
		machine_fail_waits(machine, MACHINE_PAUSED, strerror(-answer->error));
	if (!answer || answer->error || machine->state != MACHINE_RUNNING)
		return;
	machine_tell(machine, "paused", NULL);
	machine_enter(machine, MACHINE_PAUSED);
}

static void do_pause(struct machine *machine)
{
	const struct control_request request = { .what = CONTROL_PAUSE };
	int err = control_ask(machine->control, &request, -1, paused, machine);

	if (err)
		machine_fail_waits(machine, MACHINE_PAUSED, strerror(-err));
}

static void resumed(void *arg, const struct control_answer *answer)
{
	struct machine *machine = arg;

	if (answer && answer->error)
		machine_fail_waits(machine, MACHINE_RUNNING, strerror(-answer->error));
	if (!answer || answer->error || machine->state != MACHINE_PAUSED)
		return;
	machine_tell(machine, "resumed", NULL);
	machine_enter(machine, MACHINE_RUNNING);
}

static void do_resume(struct machine *machine)
{
	const struct control_request request = { .what = CONTROL_RESUME };
	int err = control_ask(machine->control, &request, -1, resumed, machine);

	if (err)
		machine_fail_waits(machine, MACHINE_RUNNING, strerror(-err));
}

/* Health: a launcher that answers nothing for that long is of no use to its guest. */

static void health_answered(void *arg, const struct control_answer *answer)
{
	struct machine *machine = arg;

	if (answer)
		machine->silent = false;
}

static void do_look(struct machine *machine)
{
	const struct control_request look = { .what = CONTROL_INFO };

	if (machine->silent || control_ask(machine->control, &look, -1, health_answered, machine)) {
		machine_tell(machine, "stuck", "its launcher does not answer");
		machine_end(machine, KEEPER_REAP);
		return;
	}
	machine->silent = true;
	machine_set_timer(machine, machines_health_ms);
}

/* The table. What is not in it is refused where somebody asked for it, and else means nothing. */

static void (*const machine_actions[MACHINE_STATES][MACHINE_EVENTS])(struct machine *) = {
	[MACHINE_OFF] = { [MACHINE_START] = do_start, [MACHINE_DESTROY] = do_forget },
	[MACHINE_BROKEN] = { [MACHINE_DESTROY] = do_forget },
	[MACHINE_RUNNING] = {
		[MACHINE_STOP] = do_button, [MACHINE_KILL] = do_kill, [MACHINE_RESET] = do_reset,
		[MACHINE_PAUSE] = do_pause, [MACHINE_DESTROY] = do_kill_forget, [MACHINE_LOST] = do_reap,
		[MACHINE_TIMEOUT] = do_look,
	},
	[MACHINE_PAUSED] = {
		[MACHINE_STOP] = do_button, [MACHINE_KILL] = do_kill, [MACHINE_RESET] = do_reset,
		[MACHINE_RESUME] = do_resume, [MACHINE_DESTROY] = do_kill_forget,
		[MACHINE_LOST] = do_reap, [MACHINE_TIMEOUT] = do_look,
	},
	[MACHINE_STOPPING] = {
		[MACHINE_STOP] = do_nothing, [MACHINE_KILL] = do_kill, [MACHINE_RESET] = do_reset,
		[MACHINE_DESTROY] = do_kill_forget, [MACHINE_TIMEOUT] = do_kill,
		[MACHINE_LOST] = do_reap,
	},
	[MACHINE_ENDING] = {
		[MACHINE_STOP] = do_stay_off, [MACHINE_KILL] = do_stay_off,
		[MACHINE_DESTROY] = do_forget_later, [MACHINE_TIMEOUT] = do_end,
	},
	[MACHINE_WAITING] = {
		[MACHINE_START] = do_start, [MACHINE_STOP] = do_give_up, [MACHINE_KILL] = do_give_up,
		[MACHINE_DESTROY] = do_forget, [MACHINE_TIMEOUT] = do_again,
	},
};

/* Where who asked waits for it to come to. */
static const enum machine_state machine_wanted[MACHINE_ASKED] = {
	[MACHINE_START] = MACHINE_RUNNING, [MACHINE_STOP] = MACHINE_OFF, [MACHINE_KILL] = MACHINE_OFF,
	[MACHINE_RESET] = MACHINE_RUNNING, [MACHINE_PAUSE] = MACHINE_PAUSED,
	[MACHINE_RESUME] = MACHINE_RUNNING, [MACHINE_DESTROY] = MACHINE_OFF,
};

static void machine_happen(struct machine *machine, enum machine_event event)
{
	void (*action)(struct machine *) = machine_actions[machine->state][event];

	if (action)
		action(machine);
}

void machine_ask(struct machine *machine, enum machine_event event, struct call *call)
{
	struct json_object *parameters;

	if (machine_actions[machine->state][event]) {
		machine_wait(machine, call, machine_wanted[event]);
		machine_happen(machine, event);
		return;
	}
	parameters = json_object_new_object();
	json_object_object_add(parameters, "name", json_object_new_string(machine->definition.name));
	json_object_object_add(parameters, "state", json_object_new_string(machine_state_name(machine)));
	json_object_object_add(parameters, "verb", json_object_new_string(event_names[event]));
	call_error(call, "InvalidState", parameters);
}

/* Definitions */

static struct machine *machine_add(const struct definition *definition)
{
	struct machine *machine = calloc(1, sizeof(*machine)), **at = &machines;

	if (!machine)
		return NULL;
	machine->serial = ++machines_serial;
	machine->definition = *definition;
	machine->since = time(NULL);
	while (*at && strcmp((*at)->definition.name, definition->name) < 0)
		at = &(*at)->next;
	machine->next = *at;
	*at = machine;
	return machine;
}

static int definition_save(const struct definition *definition)
{
	char *text = definition_write(definition);
	int err = text ? store_save(machine_dir, definition->name, text) : -ENOMEM;

	free(text);
	return err;
}

int machine_create(const struct definition *definition)
{
	struct machine *machine;
	int err = definition_save(definition);

	if (err)
		return err;
	machine = machine_add(definition);
	if (!machine) {
		store_remove(machine_dir, definition->name);
		return -ENOMEM;
	}
	machine_tell(machine, "created", NULL);
	return 0;
}

/* Who asked has been answered: that the definition is changed. */
static void limits_answered(void *arg, const struct keeper_answer *answer, int fd)
{
	char *name = arg;

	(void)fd;
	if (answer->error)
		log_error("%s: %s", name ? name : "a machine", answer->why);
	free(name);
}

int machine_change(struct machine *machine, const struct definition *definition)
{
	int err = definition_save(definition);

	if (err)
		return err;
	machine->definition = *definition;
	memset(&machine->error, 0, sizeof(machine->error));
	if (machine->state == MACHINE_BROKEN)
		machine_enter(machine, MACHINE_OFF);
	if (machine_runs(machine))
		keep_ask(KEEPER_LIMITS, definition, sizeof(*definition), limits_answered,
			 strdup(definition->name));
	machine_tell(machine, "changed", NULL);
	return 0;
}

char *machine_text(const struct machine *machine)
{
	size_t len;
	char *text;

	return store_load(machine_dir, machine->definition.name, &text, &len) ? NULL : text;
}

/* What cannot be read is there all the same, so that nobody makes another one of that name. */
static void machine_load(void *arg, const char *name)
{
	struct definition definition;
	struct definition_error error = { 0 };
	struct machine *machine;
	size_t len;
	char *text;
	int err = store_load(machine_dir, name, &text, &len);

	(void)arg;
	if (err) {
		snprintf(error.text, sizeof(error.text), "%s", strerror(-err));
	} else {
		err = definition_read(&definition, text, len, &error);
		free(text);
	}
	if (!err && strcmp(definition.name, name)) {
		err = -EINVAL;
		snprintf(error.text, sizeof(error.text), "name: is not that of the file");
	}
	if (err) {
		definition_init(&definition);
		snprintf(definition.name, sizeof(definition.name), "%s", name);
	}
	machine = machine_add(&definition);
	if (!machine)
		return;
	machine->marked = store_marked(machine_dir, name);
	if (machines_first)
		machine_mark(machine, false);
	machine->again = machine->marked;
	if (!err)
		return;
	machine->state = MACHINE_BROKEN;
	machine->error = error;
	log_error("%s: line %u, column %u: %s", name, error.line, error.column, error.text);
}

/* Taking over */

static bool machine_boots(const struct machine *machine)
{
	return machines_first && machine->state == MACHINE_OFF && machine->definition.autostart;
}

static void machines_start(void)
{
	machines_begun = true;
	machines_timer = sd_event_source_disable_unref(machines_timer);
	for (struct machine *machine = machines; machine; machine = machine->next) {
		machine->booting = machine_boots(machine);
		machines_booting += machine->booting;
	}
	if (!machines_booting)
		keep_ask(KEEPER_BOOTED, NULL, 0, NULL, NULL);
	for (struct machine *machine = machines; machine; machine = machine->next)
		if (machine->booting || (machine->state == MACHINE_OFF && machine->again))
			machine_happen(machine, MACHINE_START);
	machines_ready();
}

static void machines_know(void)
{
	if (!--machines_unknown && !machines_begun)
		machines_start();
}

/* One launcher that does not answer is no reason to hear nobody. */
static int machines_late(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	(void)arg;
	machines_start();
	return 0;
}

static void machine_looked(void *arg, const struct control_answer *answer)
{
	struct machine *machine = arg;

	if (answer && !answer->error && answer->info.paused && machine->state == MACHINE_RUNNING)
		machine_enter(machine, MACHINE_PAUSED);
	machines_know();
}

static void machine_find_launcher(struct machine *machine);

static int machine_connect_again(sd_event_source *source, uint64_t usec, void *arg)
{
	(void)source;
	(void)usec;
	machine_find_launcher(arg);
	return 0;
}

/* That the keeper could not tell is no sign of a launcher's end. */
static void machine_connect_late(struct machine *machine)
{
	machine->timer = sd_event_source_disable_unref(machine->timer);
	if (sd_event_add_time_relative(machine_loop, &machine->timer, CLOCK_MONOTONIC, MACHINE_AGAIN_MS * 1000,
				       0, machine_connect_again, machine) < 0)
		sd_event_exit(machine_loop, 1);
}

static void machine_connected(void *arg, const struct keeper_answer *answer, int fd)
{
	const struct control_request look = { .what = CONTROL_INFO };
	struct machine *machine = arg;

	if (answer->error && answer->error != -ECONNREFUSED && answer->error != -ENOENT) {
		log_error("%s: %s: once more", machine->definition.name, answer->why);
		machine_connect_late(machine);
		return;
	}
	if (!answer->error)
		machine_connect(machine, fd);
	if (!machine->control || machine->asked || machine->destroy) {
		machine_end(machine, machine->control ? KEEPER_KILL : KEEPER_REAP);
		machines_know();
		return;
	}
	machine_enter(machine, MACHINE_RUNNING);
	if (control_ask(machine->control, &look, -1, machine_looked, machine))
		machines_know();
}

static void machine_find_launcher(struct machine *machine)
{
	keep_ask_name(KEEPER_CONNECT, machine->definition.name, machine_connected, machine);
}

static void orphan_killed(void *arg, const struct keeper_answer *answer, int fd)
{
	char *name = arg;

	(void)answer;
	(void)fd;
	keep_ask_name(KEEPER_CLEAN, name, NULL, NULL);
	free(name);
}

/* An answer to KEEPER_LIST. */
static void machine_listed(void *arg, const struct keeper_answer *answer, int fd)
{
	struct machine *machine;

	(void)arg;
	(void)fd;
	if (answer->error) {
		log_error("which machines run: %s", answer->why);
		sd_event_exit(machine_loop, 1);
		return;
	}
	if (!answer->more) {
		sd_event_add_time_relative(machine_loop, &machines_timer, CLOCK_MONOTONIC, MACHINES_LOOK_US, 0,
					   machines_late, NULL);
		machines_know();
		return;
	}
	machine = machine_find(answer->name);
	if (!machine) {
		log_error("%s: runs without a definition: ended", answer->name);
		keep_ask_name(KEEPER_KILL, answer->name, orphan_killed, strdup(answer->name));
		return;
	}
	machines_unknown++;
	machine_enter(machine, MACHINE_ENDING);
	machine_find_launcher(machine);
}

int machines_init(sd_event *event, int dir, bool first, uint64_t health, void (*ready)(void))
{
	int err;

	machine_loop = event;
	machine_dir = dir;
	machines_first = first;
	machines_begun = false;
	machines_health_ms = health * 1000;
	machines_ready = ready;
	err = store_list(dir, machine_load, NULL);
	if (err)
		return err;
	machines_unknown = 1;
	keep_ask(KEEPER_LIST, NULL, 0, machine_listed, NULL);
	return 0;
}
