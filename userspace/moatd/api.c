// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What clients can call. Who may is one table: each method's row says whether it is about one machine, which then
 * has to be the caller's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/text.h"
#include "userspace/moatd/api.h"
#include "userspace/moatd/control.h"
#include "userspace/moatd/keep.h"
#include "userspace/moatd/machine.h"
#include "userspace/moatd/networks.h"
#include "userspace/moatd/varlink.h"

#include "org.moat.varlink.h"

#define API_LOG_MAX	(64 << 10)
#define API_MACHINES	256	/* of a user's; root may have any number */

static struct machine *call_machine(const struct call *call)
{
	return machine_find(call_text(call, "name"));
}

void add_text(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value ? value : ""));
}

void add_number(struct json_object *object, const char *key, int64_t value)
{
	json_object_object_add(object, key, json_object_new_int64(value));
}

void reply_text(struct call *call, const char *key, const char *value)
{
	struct json_object *parameters = json_object_new_object();

	add_text(parameters, key, value);
	call_reply(call, parameters);
}

void reply_error(struct call *call, const char *error, const char *key, const char *value)
{
	struct json_object *parameters = json_object_new_object();

	add_text(parameters, key, value);
	call_error(call, error, parameters);
}

void reply_failed(struct call *call, const char *message)
{
	reply_error(call, "Failed", "message", message);
}

/* A machine that is another's is as if it were not there, but for its name, which is taken. */
static bool api_allow(struct call *call)
{
	struct machine *machine;

	if (call_tag(call) == API_ANYONE || (call_tag(call) == API_ROOT && !call_uid(call)))
		return true;
	if (call_tag(call) == API_ROOT) {
		reply_error(call, "PermissionDenied", "message", "it is for root to do");
		return false;
	}
	machine = call_machine(call);
	if (!machine)
		reply_error(call, "NoSuchMachine", "name", call_text(call, "name"));
	else if (!machine_is_of(machine, call_uid(call)))
		reply_error(call, "PermissionDenied", "message", "it is another user's machine");
	else
		return true;
	return false;
}

/* Looking */

static struct json_object *machine_json(const struct machine *machine)
{
	const struct definition *definition = &machine->definition;
	struct json_object *object = json_object_new_object();

	add_text(object, "name", definition->name);
	add_text(object, "uuid", definition->uuid);
	add_number(object, "owner", definition->owner);
	add_text(object, "state", machine_state_name(machine));
	add_number(object, "since", machine->since);
	add_number(object, "cpus", definition->cpus);
	add_number(object, "memory", definition->memory);
	add_text(object, "ended", machine_end_name(machine));
	add_text(object, "why", machine_is_broken(machine) ? machine->error.text : machine->why);
	return object;
}

static void api_list(struct call *call)
{
	struct json_object *reply = json_object_new_object(), *array = json_object_new_array();

	for (const struct machine *machine = machines; machine; machine = machine->next)
		if (machine_is_of(machine, call_uid(call)))
			json_object_array_add(array, machine_json(machine));
	json_object_object_add(reply, "machines", array);
	call_reply(call, reply);
}

static struct json_object *usage_json(const struct keeper_usage *usage)
{
	struct json_object *object = json_object_new_object();

	add_number(object, "cpu_usec", usage->cpu_usec);
	add_number(object, "memory", usage->memory);
	add_number(object, "memory_peak", usage->memory_peak);
	add_number(object, "read_bytes", usage->read_bytes);
	add_number(object, "write_bytes", usage->write_bytes);
	add_number(object, "pids", usage->pids);
	return object;
}

/* A question to the keeper and one to the launcher, for one call; machines are looked up again then. */
struct look {
	struct call *call;
	uint64_t machine;
	const char *program;
	struct json_object *reply;
	uint32_t what;
};

static void look_end(struct look *look)
{
	call_reply(look->call, look->reply);
	free(look);
}

static void stats_add(struct json_object *object, const struct control_stats *stats)
{
	add_number(object, "exits", stats->exits);
	add_number(object, "exits_user", stats->exits_user);
	add_number(object, "halts", stats->halts);
	add_number(object, "interrupts", stats->interrupts);
	add_number(object, "faults", stats->faults);
	add_number(object, "disk_requests", stats->disk_requests);
	add_number(object, "disk_bytes", stats->disk_bytes);
	add_number(object, "net_requests", stats->net_requests);
	add_number(object, "net_bytes", stats->net_bytes);
	add_number(object, "restarts", stats->restarts);
}

static struct json_object *info_json(const struct control_info *info, const char *program)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "program", program);
	add_number(object, "pid", info->pid);
	add_number(object, "devices", info->devices);
	add_number(object, "memory", info->memory);
	add_number(object, "balloon", info->balloon);
	add_number(object, "balloon_wanted", info->balloon_wanted);
	return object;
}

static void look_answered(void *arg, const struct control_answer *answer)
{
	struct look *look = arg;
	struct json_object *stats;

	if (answer && !answer->error && look->what == CONTROL_INFO)
		json_object_object_add(look->reply, "launcher", info_json(&answer->info, look->program));
	if (answer && !answer->error && look->what == CONTROL_STATS) {
		stats = json_object_object_get(look->reply, "stats");
		stats_add(stats, &answer->stats);
	}
	look_end(look);
}

static void look_used(void *arg, const struct keeper_answer *answer, int fd)
{
	struct look *look = arg;
	struct machine *machine = machine_find_serial(look->machine);
	const struct control_request request = { .what = look->what };

	(void)fd;
	if (!answer->error)
		json_object_object_add(look->reply, look->what == CONTROL_INFO ? "usage" : "stats",
				       usage_json(&answer->usage));
	if (answer->error || !machine || !machine_runs(machine) ||
	    control_ask(machine->control, &request, -1, look_answered, look))
		look_end(look);
}

/* @reply, with what the cgroup and the launcher say, if it runs. */
static void look_start(struct call *call, const struct machine *machine, uint32_t what,
		       struct json_object *reply)
{
	struct look *look = machine_runs(machine) ? malloc(sizeof(*look)) : NULL;

	if (!look) {
		call_reply(call, reply);
		return;
	}
	*look = (struct look){
		.call = call, .machine = machine->serial, .reply = reply, .what = what,
		.program = definition_launcher(&machine->definition),
	};
	keep_ask_name(KEEPER_USAGE, machine->definition.name, look_used, look);
}

static void api_info(struct call *call)
{
	const struct machine *machine = call_machine(call);
	struct json_object *reply = json_object_new_object();

	json_object_object_add(reply, "machine", machine_json(machine));
	json_object_object_add(reply, "definition", definition_json(&machine->definition));
	look_start(call, machine, CONTROL_INFO, reply);
}

static void api_stats(struct call *call)
{
	struct json_object *reply = json_object_new_object();

	json_object_object_add(reply, "stats", json_object_new_object());
	look_start(call, call_machine(call), CONTROL_STATS, reply);
}

/* Definitions */

void reply_definition_error(struct call *call, const struct definition_error *error)
{
	struct json_object *parameters = json_object_new_object();

	add_number(parameters, "line", error->line);
	add_number(parameters, "column", error->column);
	add_text(parameters, "message", error->text);
	call_error(call, "InvalidDefinition", parameters);
}

/* False: the call has been ended. */
static bool call_definition(struct call *call, struct definition *definition)
{
	const char *text = call_text(call, "definition");
	struct definition_error error;

	if (!definition_read(definition, text, strlen(text), &error))
		return true;
	reply_definition_error(call, &error);
	return false;
}

/* With what was left out made up. False: the call has been ended. */
static bool call_complete(struct call *call, struct definition *definition)
{
	struct definition_error error = { 0 };

	if (definition_complete(definition)) {
		reply_failed(call, "no random numbers to be had");
		return false;
	}
	if (!networks_check(definition, error.text, sizeof(error.text)))
		return true;
	reply_definition_error(call, &error);
	return false;
}

static unsigned int machines_of(uid_t owner)
{
	unsigned int count = 0;

	for (const struct machine *machine = machines; machine; machine = machine->next)
		count += machine->definition.owner == owner;
	return count;
}

static void api_create(struct call *call)
{
	struct definition definition;
	int err;

	if (!call_definition(call, &definition))
		return;
	if (!*definition.name) {
		const struct definition_error error = { .text = "name: there is none" };

		reply_definition_error(call, &error);
		return;
	}
	if (machine_find(definition.name)) {
		reply_error(call, "MachineExists", "name", definition.name);
		return;
	}
	if (call_uid(call) && machines_of(call_uid(call)) >= API_MACHINES) {
		reply_failed(call, "a user cannot have more machines than these");
		return;
	}
	if (call_uid(call))
		definition.owner = call_uid(call);
	if (!call_complete(call, &definition))
		return;
	err = machine_create(&definition);
	if (err)
		reply_failed(call, strerror(-err));
	else
		reply_text(call, "name", definition.name);
}

static void api_get_definition(struct call *call)
{
	const struct machine *machine = call_machine(call);
	char *text = machine_is_broken(machine) ? machine_text(machine) :
						  definition_write(&machine->definition);

	if (text)
		reply_text(call, "definition", text);
	else
		reply_failed(call, "its definition cannot be read");
	free(text);
}

static void api_set_definition(struct call *call)
{
	struct machine *machine = call_machine(call);
	struct definition definition;
	int err;

	if (machine->changing) {
		reply_failed(call, "another change of it is under way");
		return;
	}
	if (!call_definition(call, &definition))
		return;
	if (strcmp(definition.name, machine->definition.name)) {
		const struct definition_error error = { .text = "name: cannot be changed" };

		reply_definition_error(call, &error);
		return;
	}
	if (call_uid(call))
		definition.owner = machine->definition.owner;
	if (!*definition.uuid)
		memcpy(definition.uuid, machine->definition.uuid, sizeof(definition.uuid));
	if (!call_complete(call, &definition))
		return;
	err = machine_change(machine, &definition);
	if (err)
		reply_failed(call, strerror(-err));
	else
		call_reply(call, NULL);
}

/* Life */

static const struct {
	const char *method;
	enum machine_event event;
} api_verbs[] = {
	{ "Start", MACHINE_START }, { "Stop", MACHINE_STOP }, { "Kill", MACHINE_KILL },
	{ "Reset", MACHINE_RESET }, { "Pause", MACHINE_PAUSE }, { "Resume", MACHINE_RESUME },
	{ "Destroy", MACHINE_DESTROY },
};

static void api_verb(struct call *call)
{
	unsigned int i = 0;

	while (strcmp(api_verbs[i].method, call_method(call)))
		i++;
	machine_ask(call_machine(call), api_verbs[i].event, call);
}

/* False: the call has been ended. */
static bool call_running(struct call *call)
{
	if (machine_runs(call_machine(call)))
		return true;
	reply_failed(call, "it does not run");
	return false;
}

static void memory_answered(void *arg, const struct control_answer *answer)
{
	struct call *call = arg;

	if (answer && !answer->error)
		call_reply(call, NULL);
	else
		reply_failed(call, !answer ? "it has ended" : answer->error == -ENODEV ?
			     "it has no balloon" : strerror(-answer->error));
}

static void api_set_memory(struct call *call)
{
	const struct machine *machine = call_machine(call);
	const int64_t memory = call_number(call, "memory", 0);
	const struct control_request request = {
		.what = CONTROL_BALLOON, .value = machine->definition.memory - memory,
	};

	if (!call_running(call))
		return;
	if (memory <= 0 || (uint64_t)memory > machine->definition.memory)
		call_invalid(call, "memory");
	else if (control_ask(machine->control, &request, -1, memory_answered, call))
		reply_failed(call, "its launcher does not listen");
}

/*
 * The client's connection goes to the launcher, and nothing of it stays here: so it lasts as long as those two,
 * whatever becomes of moatd.
 */
static void hand_over(struct call *call, uint32_t what)
{
	const struct control_request request = { .what = what };
	struct control *control = call_machine(call)->control;
	int fd;

	if (!call_running(call))
		return;
	fd = call_upgrade(call);
	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	control_ask(control, &request, fd, NULL, NULL);
	close(fd);
}

static void api_console(struct call *call)
{
	hand_over(call, CONTROL_CONSOLE);
}

static void api_dump(struct call *call)
{
	hand_over(call, CONTROL_DUMP);
}

static void log_reply(struct call *call, int fd)
{
	int64_t offset = call_number(call, "offset", -1);
	struct json_object *reply;
	struct stat st;
	ssize_t n = -1;
	char *text;

	/* There may have been another's machine of that name. */
	if (fstat(fd, &st) || (call_uid(call) && st.st_uid != call_uid(call))) {
		reply_failed(call, "it has no log yet");
		return;
	}
	if (offset < 0 || offset > st.st_size)
		offset = st.st_size > API_LOG_MAX ? st.st_size - API_LOG_MAX : 0;
	text = malloc(API_LOG_MAX);
	if (text)
		n = pread(fd, text, API_LOG_MAX, offset);
	if (n < 0) {
		free(text);
		reply_failed(call, "its log cannot be read");
		return;
	}
	text_clean(text, n);
	reply = json_object_new_object();
	json_object_object_add(reply, "text", json_object_new_string_len(text, n));
	add_number(reply, "offset", offset + n);
	free(text);
	call_reply(call, reply);
}

static void log_opened(void *arg, const struct keeper_answer *answer, int fd)
{
	struct call *call = arg;

	if (answer->error) {
		reply_failed(call, answer->why);
		return;
	}
	log_reply(call, fd);
	close(fd);
}

static void api_log(struct call *call)
{
	keep_ask_name(KEEPER_LOG, call_text(call, "name"), log_opened, call);
}

static void api_events(struct call *call)
{
	machine_listen(call);
}

#define NAME		{ "name", VARLINK_TEXT, true }
#define SNAPSHOT	{ "snapshot", VARLINK_TEXT, true }

static const struct varlink_method api_methods[] = {
	{ "List", API_ANYONE, false, false, api_list, { { 0 } } },
	{ "Events", API_ANYONE, true, false, api_events, { { 0 } } },
	{ "Create", API_ANYONE, false, false, api_create, { { "definition", VARLINK_TEXT, true } } },
	{ "Info", API_OWNER, false, false, api_info, { NAME } },
	{ "Stats", API_OWNER, false, false, api_stats, { NAME } },
	{ "GetDefinition", API_OWNER, false, false, api_get_definition, { NAME } },
	{ "SetDefinition", API_OWNER, false, false, api_set_definition,
	  { NAME, { "definition", VARLINK_TEXT, true } } },
	{ "Start", API_OWNER, false, false, api_verb, { NAME } },
	{ "Stop", API_OWNER, false, false, api_verb, { NAME } },
	{ "Kill", API_OWNER, false, false, api_verb, { NAME } },
	{ "Reset", API_OWNER, false, false, api_verb, { NAME } },
	{ "Pause", API_OWNER, false, false, api_verb, { NAME } },
	{ "Resume", API_OWNER, false, false, api_verb, { NAME } },
	{ "Destroy", API_OWNER, false, false, api_verb, { NAME } },
	{ "SetMemory", API_OWNER, false, false, api_set_memory,
	  { NAME, { "memory", VARLINK_NUMBER, true } } },
	{ "Console", API_OWNER, false, true, api_console, { NAME } },
	{ "Dump", API_OWNER, false, true, api_dump, { NAME } },
	{ "Log", API_OWNER, false, false, api_log, { NAME, { "offset", VARLINK_NUMBER, true } } },
	{ "AttachDisk", API_OWNER, false, false, api_attach_disk,
	  { NAME, { "disk", VARLINK_TEXT, true }, { "format", VARLINK_TEXT, false },
	    { "read_only", VARLINK_FLAG, false } } },
	{ "DetachDisk", API_OWNER, false, false, api_detach_disk, { NAME, { "disk", VARLINK_TEXT, true } } },
	{ "AttachNetwork", API_OWNER, false, false, api_attach_network,
	  { NAME, { "network", VARLINK_TEXT, true }, { "mac", VARLINK_TEXT, false } } },
	{ "DetachNetwork", API_OWNER, false, false, api_detach_network,
	  { NAME, { "mac", VARLINK_TEXT, true } } },
	{ "NetworkList", API_ANYONE, false, false, api_network_list, { { 0 } } },
	{ "NetworkInfo", API_ANYONE, false, false, api_network_info, { NAME } },
	{ "NetworkDefine", API_ROOT, false, false, api_network_define,
	  { { "definition", VARLINK_TEXT, true } } },
	{ "NetworkDelete", API_ROOT, false, false, api_network_delete, { NAME } },
	{ "DiskList", API_ANYONE, false, false, api_disk_list, { { 0 } } },
	{ "DiskCreate", API_ANYONE, false, false, api_disk_create,
	  { NAME, { "format", VARLINK_TEXT, false }, { "size", VARLINK_NUMBER, false },
	    { "from", VARLINK_TEXT, false }, { "from_format", VARLINK_TEXT, false } } },
	{ "DiskResize", API_ANYONE, false, false, api_disk_resize,
	  { NAME, { "size", VARLINK_NUMBER, true }, { "shrink", VARLINK_FLAG, false } } },
	{ "DiskDelete", API_ANYONE, false, false, api_disk_verb, { NAME } },
	{ "DiskSnapshot", API_ANYONE, false, false, api_disk_verb, { NAME, SNAPSHOT } },
	{ "DiskSnapshotDelete", API_ANYONE, false, false, api_disk_verb, { NAME, SNAPSHOT } },
	{ "DiskRevert", API_ANYONE, false, false, api_disk_verb, { NAME, SNAPSHOT } },
	{ "DiskSnapshots", API_ANYONE, false, false, api_disk_snapshots, { NAME } },
	{ 0 },
};

const struct varlink api = {
	.interface = "org.moat", .description = api_description, .methods = api_methods,
	.allow = api_allow,
};
