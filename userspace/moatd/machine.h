/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Machines and their lives: which there are, in which state, and what comes of what happens to them. */
#ifndef MOATD_MACHINE_H
#define MOATD_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "include/moat/control.h"
#include "userspace/moatd/definition.h"

struct call;
struct control;
struct json_object;

/* Their names, machine_state_name(). */
enum machine_state {
	MACHINE_OFF,
	MACHINE_BROKEN,		/* its definition cannot be read */
	MACHINE_STARTING,
	MACHINE_RUNNING,
	MACHINE_PAUSED,
	MACHINE_STOPPING,	/* the button was pressed */
	MACHINE_ENDING,		/* what is left of it is taken away */
	MACHINE_WAITING,	/* it ended, and will be started again */
	MACHINE_STATES,
};

/* What may happen to a machine: somebody asks for the first ones, the others come by themselves. */
enum machine_event {
	MACHINE_START,
	MACHINE_STOP,
	MACHINE_KILL,
	MACHINE_RESET,
	MACHINE_PAUSE,
	MACHINE_RESUME,
	MACHINE_DESTROY,
	MACHINE_ASKED,		/* so many */
	MACHINE_TIMEOUT = MACHINE_ASKED,
	MACHINE_LOST,		/* its launcher has hung up */
	MACHINE_EVENTS,
};

struct machine_wait;

/**
 * struct machine
 * @serial: another one for each that ever was: names come again
 * @error: of a broken definition; its @text is empty where it is not
 * @since: seconds of the epoch, when it came to its state
 * @control: to its launcher; NULL: there is none
 * @ended: how it ended last; @end is 0 where it has not, or was killed
 * @failures: starts in a row that came to nothing soon
 * @began: on the clock of clock_ms(), when it was started last
 * @again: it is to be started once it has ended
 * @marked: that is written down (store_mark()), so that whoever begins anew does it; until it runs, or is not to
 * @asked: somebody wanted its end, so it is not to be started again by itself
 * @changing: what its definition becomes while a disk or network comes or goes: nobody else changes it
 *	meanwhile, nor takes the addresses in there. NULL: none
 * @ending: what the keeper is asked for, and again until it is done, while it ends
 * @booting: it is one of those that start with the host, and has not come to anything yet
 * @silent: the launcher has been asked how it is, and has not answered
 * @destroy: it is to be forgotten then
 * @queued: it is to be started when fewer others are
 * @why: what a person is told where it could not be started
 */
struct machine {
	struct machine *next;
	uint64_t serial;
	struct definition definition;
	struct definition_error error;
	enum machine_state state;
	int64_t since;
	struct control *control;
	struct control_ended ended;
	bool has_ended;
	unsigned int failures;
	int64_t began;
	bool again;
	bool marked;
	bool asked;
	uint32_t ending;
	bool booting;
	const struct definition *changing;
	bool silent;
	bool destroy;
	bool queued;
	char why[256];
	sd_event_source *timer;
	struct machine_wait *waits;
};

extern struct machine *machines;

/**
 * machines_init - find all that there are, running ones too
 * @dir: of definitions
 * @first: those that are to be are started by themselves
 * @health: seconds; a launcher that does not answer for that long is ended
 * @ready: called when all is known
 */
int machines_init(sd_event *event, int dir, bool first, uint64_t health, void (*ready)(void));

struct machine *machine_find(const char *name);

/* The same one as before, if it is still there. */
struct machine *machine_find_serial(uint64_t serial);

/* Is what its definition says known? */
bool machine_is_broken(const struct machine *machine);
const char *machine_state_name(const struct machine *machine);

/* Is there a launcher that can be asked? */
bool machine_runs(const struct machine *machine);

/**
 * machine_ask - somebody wants something of a machine
 * @call: gets its reply when it has come to that, or the error
 */
void machine_ask(struct machine *machine, enum machine_event event, struct call *call);

/* Make one; it is on the disk then. 0 or a negative errno. */
int machine_create(const struct definition *definition);

/* Have it be otherwise from its next start on; limits at once. */
int machine_change(struct machine *machine, const struct definition *definition);

/* The text of its definition as it lies there, to be freed; NULL: it cannot be read. */
char *machine_text(const struct machine *machine);

/*
 * Who waits for a device of the machine to be gone: @then is called with 0 then, or with -EBUSY when the time that a
 * guest has for that is over, or with -ECONNRESET when the machine ends.
 */
int machine_detach(struct machine *machine, const char *device, void (*then)(void *arg, int error),
		   void *arg);

/* Who listens to what happens, from now on; @call is called once for each, until its client goes. */
void machine_listen(struct call *call);

/* Tell them. */
void machine_tell(const struct machine *machine, const char *what, const char *detail);

/* May this user do things to it? */
bool machine_is_of(const struct machine *machine, uid_t uid);

/* What a person wants to know of its last end; NULL: it has not ended. */
const char *machine_end_name(const struct machine *machine);

#endif /* MOATD_MACHINE_H */
