// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The life of machines, with a keeper and a launcher that are this test: what comes of answers that do not come, come late,
 * or tell of a server that was killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/clock.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"
#include "userspace/moatd/store.h"
#include "userspace/moatd/varlink.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* The keeper: what it was asked for, and not answered yet. */

static struct {
	enum keeper_what what;
	char name[DEFINITION_NAME];
	keep_answer_t then;
	void *arg;
} asked[16];
static unsigned int asked_count;

void keep_ask(enum keeper_what what, const void *carried, size_t len, keep_answer_t then, void *arg)
{
	if (!then && what != KEEPER_BOOTED)
		return;
	asked[asked_count].what = what;
	snprintf(asked[asked_count].name, DEFINITION_NAME, "%s", len ? (const char *)carried : "");
	asked[asked_count].then = then;
	asked[asked_count++].arg = arg;
}

void keep_ask_name(enum keeper_what what, const char *name, keep_answer_t then, void *arg)
{
	keep_ask(what, name, 1, then, arg);
}

/* It is asked for that, and for nothing else. */
static bool wants(enum keeper_what what)
{
	const bool does = asked_count == 1 && asked[0].what == what;

	if (!does)
		printf("# %u requests, the first is %u\n", asked_count, asked[0].what);
	return does;
}

static void answer(const struct keeper_answer *answer, int fd)
{
	const keep_answer_t then = asked[0].then;
	void *arg = asked[0].arg;

	if (!EXPECT(asked_count))
		return;
	if (!answer->more)
		memmove(asked, asked + 1, --asked_count * sizeof(asked[0]));
	if (then)
		then(arg, answer, fd);
}

static void answer_error(int error)
{
	const struct keeper_answer it = { .error = error, .why = "because" };

	answer(&it, -1);
}

static void answer_ended(enum control_end end)
{
	const struct keeper_answer it = { .ended = { .end = end } };

	answer(&it, -1);
}

/* Networks are others' to test. */

void networks_refresh(const struct definition *definition)
{
	(void)definition;
}

int networks_check(const struct definition *definition, char *why, size_t room)
{
	(void)definition;
	(void)why;
	(void)room;
	return 0;
}

int networks_of(struct definition *definition, struct keeper_start *ret, bool *ret_changed, char *why)
{
	(void)why;
	*ret_changed = false;
	ret->definition = *definition;
	return 0;
}

/* Calls: how each ended */

struct call {
	enum { WAITS, DONE, FAILED } end;
};

static void call_finish(struct call *call, struct json_object *parameters, int end)
{
	EXPECT(call->end == WAITS);
	call->end = end;
	json_object_put(parameters);
}

void call_reply(struct call *call, struct json_object *parameters)
{
	call_finish(call, parameters, DONE);
}

void call_error(struct call *call, const char *error, struct json_object *parameters)
{
	(void)error;
	call_finish(call, parameters, FAILED);
}

bool call_more(struct call *call, struct json_object *parameters)
{
	(void)call;
	json_object_put(parameters);
	return true;
}

uid_t call_uid(const struct call *call)
{
	(void)call;
	return 0;
}

void call_on_gone(struct call *call, void (*gone)(void *arg), void *arg)
{
	(void)call;
	(void)gone;
	(void)arg;
}

/* The world */

static char path[] = "/tmp/moat-machine.XXXXXX";
static sd_event *event;
static int dir, launcher = -1;
static bool ready;

static void is_ready(void)
{
	ready = true;
}

static void turn(void)
{
	while (sd_event_run(event, 1000) > 0)
		;
}

static void turn_for(unsigned int ms)
{
	const int64_t end = clock_ms() + ms;

	while (clock_ms() < end)
		sd_event_run(event, 10000);
}

/* A launcher's answer to the request that has come, which is of that kind. */
static void launcher_answers(enum control_what what, uint32_t paused)
{
	struct control_request request;
	struct control_answer answer = { 0 };

	if (!EXPECT(recv(launcher, &request, sizeof(request), MSG_DONTWAIT) == sizeof(request)) ||
	    !EXPECT(request.what == what))
		return;
	answer.what = request.what;
	answer.serial = request.serial;
	if (what == CONTROL_INFO)
		answer.info.paused = paused;
	EXPECT(send(launcher, &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer));
	turn();
}

static void answer_launcher(void)
{
	const struct keeper_answer it = { 0 };
	int ends[2];

	EXPECT(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	launcher = ends[0];
	answer(&it, ends[1]);
}

static void launcher_ends(void)
{
	close(launcher);
	launcher = -1;
	turn();
}

/* A machine that is off. */
static struct machine *made(const char *name, const char *more)
{
	static const char form[] = "name: %s\nboot:\n  kernel: /k\n%s";
	struct definition definition;
	struct definition_error error;
	char text[256];

	snprintf(text, sizeof(text), form, name, more);
	EXPECT(!definition_read(&definition, text, strlen(text), &error) && !machine_create(&definition));
	return machine_find(name);
}

static struct machine *made_running(const char *more)
{
	struct call call = { 0 };
	struct machine *machine = made("web", more);

	machine_ask(machine, MACHINE_START, &call);
	EXPECT(wants(KEEPER_START));
	answer_launcher();
	EXPECT(call.end == DONE && machine->state == MACHINE_RUNNING);
	return machine;
}

static void forget(const char *name)
{
	struct machine *machine = machine_find(name);
	const uint64_t serial = machine->serial;
	struct call call = { 0 };

	machine_ask(machine, MACHINE_DESTROY, &call);
	while (asked_count)
		answer_ended(CONTROL_END_ASKED);
	EXPECT(call.end == DONE && !machine_find_serial(serial));
	if (launcher >= 0)
		launcher_ends();
}

/* The tests */

/* Begins anew with what there is; the listing has these names, each answered by its first letter. */
static void begin(bool first)
{
	ready = false;
	EXPECT(!machines_init(event, dir, first, 60, is_ready));
	EXPECT(wants(KEEPER_LIST) && !ready);
}

static void list(const char *name)
{
	struct keeper_answer it = { .more = 1 };

	snprintf(it.name, sizeof(it.name), "%s", name);
	answer(&it, -1);
}

static void test_nothing(void)
{
	begin(false);
	answer_error(0);
	EXPECT(ready && wants(KEEPER_BOOTED));
	answer_error(0);
}

static void test_killed_start(void)
{
	struct call call = { 0 };
	struct machine *machine = made("web", "restart: always\n");

	machine_ask(machine, MACHINE_START, &call);
	answer_error(-EIO);
	EXPECT(wants(KEEPER_CLEAN) && machine->state == MACHINE_ENDING && call.end == WAITS);
	answer_error(0);
	EXPECT(call.end == FAILED && machine->state == MACHINE_OFF && !asked_count);
	forget("web");
}

static void test_end_that_fails(void)
{
	struct call kill = { 0 }, start = { 0 };
	struct machine *machine = made_running("restart: on-failure\n");

	machine_ask(machine, MACHINE_KILL, &kill);
	EXPECT(wants(KEEPER_KILL));
	answer_error(-EIO);
	EXPECT(!asked_count && machine->state == MACHINE_ENDING);
	turn_for(1200);
	EXPECT(wants(KEEPER_KILL));
	answer_ended(CONTROL_END_ASKED);
	EXPECT(wants(KEEPER_CLEAN));
	answer_error(-EBUSY);
	machine_ask(machine, MACHINE_START, &start);
	EXPECT(start.end == FAILED && kill.end == WAITS);
	turn_for(1200);
	EXPECT(wants(KEEPER_CLEAN));
	answer_error(0);
	EXPECT(kill.end == DONE && machine->state == MACHINE_OFF && !asked_count);
	launcher_ends();
	forget("web");
}

/* Who wants it off while it ends for another reason, gets that; who wanted it on, an error. */
static void test_kill_in_reset(void)
{
	struct call reset = { 0 }, kill = { 0 };
	struct machine *machine = made_running("");

	machine_ask(machine, MACHINE_RESET, &reset);
	machine_ask(machine, MACHINE_KILL, &kill);
	answer_ended(CONTROL_END_ASKED);
	answer_error(0);
	EXPECT(machine->state == MACHINE_OFF && kill.end == DONE && reset.end == FAILED && !asked_count);
	launcher_ends();
	forget("web");
}

static void test_reset_in_stop(void)
{
	struct call stop = { 0 }, reset = { 0 }, pause = { 0 };
	struct machine *machine = made_running("");

	machine_ask(machine, MACHINE_PAUSE, &pause);
	machine_ask(machine, MACHINE_STOP, &stop);
	EXPECT(machine->state == MACHINE_STOPPING);
	launcher_answers(CONTROL_PAUSE, 0);
	launcher_answers(CONTROL_RESUME, 0);
	launcher_answers(CONTROL_BUTTON, 0);
	machine_ask(machine, MACHINE_RESET, &reset);
	EXPECT(stop.end == FAILED && pause.end == FAILED);
	answer_ended(CONTROL_END_ASKED);
	answer_error(0);
	EXPECT(wants(KEEPER_START));
	launcher_ends();
	answer_launcher();
	EXPECT(reset.end == DONE && machine->state == MACHINE_RUNNING);
	forget("web");
}

/* What a launcher says that is no answer is its end, and of no text that it sends anything else than text is told. */
static void test_nonsense(void)
{
	struct control_answer answer = { .what = 4711 };
	struct machine *machine = made_running("");

	send(launcher, &answer, sizeof(answer), 0);
	turn();
	EXPECT(wants(KEEPER_REAP) && machine->state == MACHINE_ENDING);
	forget("web");
	machine = made_running("");
	answer.what = CONTROL_INFO;	/* nobody asked */
	send(launcher, &answer, sizeof(answer), 0);
	turn();
	EXPECT(wants(KEEPER_REAP) && machine->state == MACHINE_ENDING);
	forget("web");
	machine = made_running("");
	answer.what = CONTROL_RESTARTED;
	for (unsigned int i = 0; i < 1000; i++)
		send(launcher, &answer, sizeof(answer), MSG_DONTWAIT);
	turn_for(100);
	EXPECT(machine->state == MACHINE_RUNNING);
	memset(&answer.space, 'x', sizeof(answer.space));
	do {
		turn_for(100);
	} while (send(launcher, &answer, sizeof(answer), MSG_DONTWAIT) < 0);
	turn_for(500);
	EXPECT(wants(KEEPER_REAP) && machine->state == MACHINE_ENDING);
	forget("web");
}

static int detach_error;

static void detached(void *arg, int error)
{
	(void)arg;
	detach_error = error;
}

static void test_detach_at_the_end(void)
{
	struct machine *machine = made_running("");

	detach_error = 1;
	EXPECT(!machine_detach(machine, "disk-x", detached, NULL) && detach_error == 1);
	launcher_answers(CONTROL_DETACH, 0);
	EXPECT(detach_error == 1);
	launcher_ends();
	EXPECT(detach_error == -ECONNRESET && wants(KEEPER_REAP));
	forget("web");
	machine = made_running("");
	EXPECT(!machine_detach(machine, "disk-x", detached, NULL));
	forget("web");
	EXPECT(detach_error == -ECONNRESET);
}

/* Names come again, machines do not. */
static void test_serial(void)
{
	const uint64_t before = made("web", "")->serial;

	EXPECT(machine_find_serial(before) == machine_find("web"));
	forget("web");
	EXPECT(made("web", "")->serial != before && !machine_find_serial(before));
	forget("web");
}

/* The next ones are about who begins anew: the list of machines is forgotten, as by another process. */

static void forget_all(void)
{
	while (machines)
		forget(machines->definition.name);
}

/* Somewhere they are, so that they are not taken for leaks. */
static void drop_all(void)
{
	static struct machine *dropped;

	while (machines) {
		struct machine *machine = machines;

		machines = machine->next;
		machine->timer = sd_event_source_disable_unref(machine->timer);
		machine->next = dropped;
		dropped = machine;
	}
}

static void test_connect_again(void)
{
	struct machine *machine;

	made("web", "restart: always\n");
	drop_all();
	begin(false);
	list("web");
	EXPECT(asked_count == 2 && asked[1].what == KEEPER_CONNECT);
	answer_error(0);
	machine = machine_find("web");
	/* No room, or the server was killed: it may run all the same. */
	answer_error(-EAGAIN);
	EXPECT(!asked_count && machine->state == MACHINE_ENDING);
	turn_for(1200);
	EXPECT(wants(KEEPER_CONNECT));
	answer_error(-EIO);
	turn_for(1200);
	EXPECT(wants(KEEPER_CONNECT));
	answer_launcher();
	launcher_answers(CONTROL_INFO, 1);
	EXPECT(machine->state == MACHINE_PAUSED);
	turn();
	while (asked_count)
		answer_error(0);
	forget_all();
}

static void test_connect_refused(void)
{
	made("web", "restart: always\n");
	drop_all();
	begin(true);
	list("web");
	answer_error(0);
	EXPECT(wants(KEEPER_CONNECT));
	answer_error(-ECONNREFUSED);
	EXPECT(asked_count == 2 && asked[0].what == KEEPER_REAP && asked[1].what == KEEPER_BOOTED);
	answer_ended(0);
	answer_error(0);
	EXPECT(wants(KEEPER_CLEAN));
	answer_error(0);
	EXPECT(wants(KEEPER_START));
	answer_launcher();
	forget_all();
}

static void test_silent_launcher(void)
{
	made("web", "");
	drop_all();
	begin(false);
	list("web");
	answer_error(0);
	answer_launcher();
	EXPECT(!ready);
	turn_for(5500);
	EXPECT(ready && wants(KEEPER_BOOTED) && machine_find("web")->state == MACHINE_RUNNING);
	answer_error(0);
	launcher_answers(CONTROL_INFO, 1);
	EXPECT(machine_find("web")->state == MACHINE_PAUSED && !asked_count);
	forget_all();
}

/* That those which start with the host have been started, is said when they have. */
static void test_booted(void)
{
	made("one", "autostart: yes\n");
	made("two", "autostart: yes\n");
	drop_all();
	begin(true);
	answer_error(0);
	EXPECT(asked_count == 2 && asked[0].what == KEEPER_START && asked[1].what == KEEPER_START);
	answer_error(-EIO);
	EXPECT(asked_count == 2 && asked[1].what == KEEPER_CLEAN);
	answer_launcher();
	EXPECT(asked_count == 2 && asked[0].what == KEEPER_CLEAN && asked[1].what == KEEPER_BOOTED);
	while (asked_count)
		answer_error(0);
	forget_all();
}

/* A machine runs whose file somebody has broken: it is looked after all the same, and what is in the file is kept. */
static void test_broken_runs(void)
{
	struct call stop = { 0 };
	struct machine *machine;
	int fd = openat(dir, "web.yaml", O_WRONLY | O_CREAT, 0600);
	char *text;

	EXPECT(write(fd, "name: [", 7) == 7 && !close(fd));
	begin(false);
	list("web");
	answer_error(0);
	answer_launcher();
	launcher_answers(CONTROL_INFO, 0);
	answer_error(0);
	machine = machine_find("web");
	EXPECT(machine->state == MACHINE_RUNNING && machine_is_broken(machine));
	EXPECT(machine->definition.stop_timeout == 60);
	text = machine_text(machine);
	EXPECT(text && !strcmp(text, "name: ["));
	free(text);
	machine_ask(machine, MACHINE_KILL, &stop);
	answer_ended(CONTROL_END_ASKED);
	answer_error(0);
	EXPECT(machine->state == MACHINE_BROKEN && stop.end == DONE);
	launcher_ends();
	forget_all();
}

/* What is to be started again is so by who begins anew, but not by another run of the host. */
static void test_again(void)
{
	for (unsigned int i = 0; i < 4; i++) {
		struct call reset = { 0 }, kill = { 0 };
		struct machine *machine = made_running("");

		machine_ask(machine, MACHINE_RESET, &reset);
		if (i < 3)
			answer_ended(CONTROL_END_ASKED);
		if (i == 2)
			machine_ask(machine, MACHINE_KILL, &kill);
		if (i == 2)
			answer_error(0);
		asked_count = 0;
		launcher_ends();
		drop_all();
		begin(i == 1);
		if (i == 3) {
			list("web");
			answer_error(0);
			answer_error(-ECONNREFUSED);
			EXPECT(asked_count == 2 && asked[0].what == KEEPER_REAP);
			answer_ended(CONTROL_END_ASKED);
			answer_error(0);
			EXPECT(wants(KEEPER_CLEAN));
		}
		answer_error(0);
		if (i == 0)
			EXPECT(asked_count == 2 && asked[0].what == KEEPER_BOOTED);
		if (i != 3)
			answer_error(0);
		if (i == 0 || i == 3) {
			EXPECT(wants(KEEPER_START));
			answer_launcher();
		}
		EXPECT(!asked_count && machine_find("web")->state == (i == 1 || i == 2 ? MACHINE_OFF : MACHINE_RUNNING));
		EXPECT(!store_marked(dir, "web"));
		forget_all();
	}
}

static void test_list_cut_short(void)
{
	int code;

	begin(false);
	answer_error(-EIO);
	EXPECT(!ready && !asked_count);
	EXPECT(sd_event_loop(event) == 1 && sd_event_get_exit_code(event, &code) >= 0 && code == 1);
}

static const struct unit_test tests[] = {
	{ "there are none", test_nothing },
	{ "a start whose server is killed leaves nothing", test_killed_start },
	{ "an end that fails is asked for again", test_end_that_fails },
	{ "a kill during a reset", test_kill_in_reset },
	{ "a reset during a stop, and a pause before it", test_reset_in_stop },
	{ "a launcher that talks nonsense, or too much", test_nonsense },
	{ "a device that is waited for when its machine ends", test_detach_at_the_end },
	{ "another machine of the same name", test_serial },
	{ "a connection that cannot be made is no end", test_connect_again },
	{ "one that is refused is", test_connect_refused },
	{ "a launcher that does not answer holds up nobody", test_silent_launcher },
	{ "what starts with the host", test_booted },
	{ "a machine that runs without a definition that can be read", test_broken_runs },
	{ "what is to be started again", test_again },
	{ "a listing that is cut short is none", test_list_cut_short },
};

int main(void)
{
	int status;

	dir = open(mkdtemp(path), O_RDONLY | O_DIRECTORY);
	if (dir < 0 || sd_event_new(&event) < 0)
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	drop_all();
	sd_event_unref(event);
	close(dir);
	rmdir(path);
	return status;
}
