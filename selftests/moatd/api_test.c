// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moatd's interface under strangers: 64 connections, half of them root's, say random things, whole and cut short, many at
 * once, and go, or never read what is answered. Meanwhile two clients that behave are answered within a second. All of
 * the unprivileged half is under the sanitizers: it must not end, and have lost no memory and no descriptor in the end.
 *
 * MOAT_API_SECONDS: for how long (20); MOAT_SEED: of the random numbers.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selftests/moatd/api_world.h"
#include "selftests/unit/unit.h"
#include "userspace/lib/clock.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define STRANGERS	4
#define CONNECTIONS	16
#define USER		23456
#define SECOND_MS	1000
#define PER_MINUTE	10000
#define DESCRIPTORS	8	/* timers and such, beside what there is for machines */

/* Counted by all, each in a place of its own. */
static struct counts {
	unsigned long messages;
	unsigned long cut;
	unsigned long bytes;
	unsigned long connects;
	unsigned long heard;
	long worst;		/* ms */
	unsigned long asked;
	unsigned long late;
} *counts;

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char dir[] = "/dev/shm/moat-api.XXXXXX";
static int64_t end;
static unsigned int seed;

static bool chance(unsigned int percent)
{
	return (unsigned int)rand() % 100 < percent;
}

#define PICK(of)	((of)[rand() % ARRAY_SIZE(of)])

/* What is said */

static const char *const methods[] = {
	"List", "Events", "Create", "Info", "Stats", "GetDefinition", "SetDefinition", "Start", "Stop", "Kill", "Reset",
	"Pause", "Resume", "Destroy", "SetMemory", "Console", "Dump", "Log", "AttachDisk", "DetachDisk",
	"AttachNetwork", "DetachNetwork", "NetworkList", "NetworkInfo", "NetworkDefine", "NetworkDelete", "DiskList",
	"DiskCreate", "DiskResize", "DiskDelete", "DiskSnapshot", "DiskSnapshotDelete", "DiskRevert", "DiskSnapshots",
	"Start", "Start", "Create", "Create", "AttachDisk", "DetachDisk", "AttachNetwork", "DetachNetwork", "Nonsense", "",
};

static const char *const interfaces[] = {
	"org.moat", "org.moat", "org.moat", "org.moat", "org.moat", "org.moat", "org.varlink.service", "org.other", "",
};

/* Of machines, networks and disks; the first ones often are. */
static const char *const names[] = {
	"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "lan", "default", "disk", "/dev/x", "52:54:00:00:00:01",
	"", "..", "a/b", "\\u0000", "\\\"", "\xc3\xa4", "\xff",
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static const char *const keys[] = {
	"name", "definition", "disk", "format", "read_only", "network", "mac", "memory", "offset", "size", "from",
	"from_format", "shrink", "snapshot", "interface", "nonsense",
};

static const char *name(void)
{
	return chance(80) ? names[rand() % 14] : PICK(names);
}

static void write_definition(FILE *to)
{
	fprintf(to, "\"name: %s\\nboot:\\n  kernel: /k\\n", name());
	if (chance(40))
		fprintf(to, "restart: %s\\n", chance(50) ? "always" : "on-failure");
	if (chance(40))
		fprintf(to, "networks:\\n- network: %s\\n", chance(80) ? "lan" : name());
	if (chance(40))
		fprintf(to, "disks:\\n- disk: %s\\n", name());
	if (chance(20))
		fprintf(to, "%s\\n", name());
	fprintf(to, "\"");
}

static void write_network(FILE *to)
{
	fprintf(to, "\"name: %s\\naddress: 10.%d.0.1/%d\\nopen: yes\\nforwards:\\n- host-port: %d\\n  machine: %s\\n\"",
		chance(80) ? "lan" : name(), rand() % 256, 16 + rand() % 18, rand() % 70000, name());
}

static void write_nested(FILE *to)
{
	const int deep = rand() % 40;

	for (int i = 0; i < deep; i++)
		fputc('[', to);
	for (int i = 0; i < deep; i++)
		fputc(']', to);
}

static void write_value(FILE *to, const char *key)
{
	switch (chance(85) ? 0 : rand() % 6) {
	case 0:
		if (!strcmp(key, "definition") && chance(80))
			write_definition(to);
		else if (!strcmp(key, "definition"))
			write_network(to);
		else if (!strcmp(key, "memory") || !strcmp(key, "size") || !strcmp(key, "offset"))
			fprintf(to, "%ld", chance(70) ? (long)rand() : chance(50) ? -1 : 0x7fffffffffffffffL);
		else if (!strcmp(key, "read_only") || !strcmp(key, "shrink"))
			fprintf(to, chance(50) ? "true" : "false");
		else if (!strcmp(key, "format"))
			fprintf(to, chance(50) ? "\"raw\"" : "\"qcow2\"");
		else
			fprintf(to, "\"%s\"", name());
		break;
	case 1:
		fprintf(to, "null");
		break;
	case 2:
		fprintf(to, "%d", rand());
		break;
	case 3:
		write_nested(to);
		break;
	case 4:
		fprintf(to, "\"%*d\"", rand() % 3000, 7);
		break;
	default:
		fprintf(to, "{\"a\":[1,2.5,{}]}");
	}
}

static bool method_has(const char *method, const char *key)
{
	static const struct {
		const char *method;
		const char *keys;
	} has[] = {
		{ "Create", "definition" }, { "SetDefinition", "name definition" }, { "SetMemory", "name memory" },
		{ "Log", "name offset" }, { "AttachDisk", "name disk" }, { "DetachDisk", "name disk" },
		{ "AttachNetwork", "name network" }, { "DetachNetwork", "name mac" },
		{ "NetworkDefine", "definition" }, { "DiskCreate", "name size format" },
		{ "DiskResize", "name size" }, { "DiskSnapshot", "name snapshot" }, { "List", "" },
		{ "Events", "" }, { "NetworkList", "" }, { "DiskList", "" },
		{ "DiskRevert", "name snapshot" }, { "DiskSnapshotDelete", "name snapshot" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(has); i++)
		if (!strcmp(has[i].method, method))
			return strstr(has[i].keys, key) && (strcmp(key, "disk") || strstr(has[i].keys, " disk"));
	return !strcmp(key, "name");
}

static void write_message(FILE *to)
{
	const char *method = PICK(methods), *comma = "";

	fprintf(to, "{\"method\":\"%s.%s\"", PICK(interfaces), method);
	if (chance(95)) {
		fprintf(to, ",\"parameters\":{");
		for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
			if (method_has(method, keys[i]) ? chance(3) : chance(99))
				continue;
			fprintf(to, "%s\"%s\":", comma, keys[i]);
			write_value(to, !strcmp(method, "NetworkDefine") ? "network" : keys[i]);
			comma = ",";
		}
		fprintf(to, "}");
	}
	if (!strcmp(method, "Events") ? chance(90) : chance(10))
		fprintf(to, ",\"more\":true");
	if (!strcmp(method, "Console") || !strcmp(method, "Dump") ? chance(90) : chance(2))
		fprintf(to, ",\"upgrade\":true");
	if (chance(3))
		fprintf(to, ",\"oneway\":true");
	fprintf(to, "}");
	fputc(0, to);
}

/* Who says it */

struct connection {
	int fd;		/* -1: none */
	bool deaf;	/* it never reads */
};

static void connection_close(struct connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
}

static void connection_open(struct connection *connection, struct counts *own)
{
	connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	connection->deaf = chance(10);
	own->connects++;
	if (connect(connection->fd, (struct sockaddr *)&address, sizeof(address)))
		connection_close(connection);
}

static void say(struct connection *connection, struct counts *own)
{
	unsigned int n = chance(20) ? 1 + rand() % 20 : 1;
	char *text = NULL;
	size_t len = 0;
	FILE *to = open_memstream(&text, &len);

	own->messages += n;
	while (n--)
		write_message(to);
	fclose(to);
	if (chance(15)) {
		len = rand() % len;
		own->cut++;
	}
	if (chance(5) && len)
		text[rand() % len] = rand();
	own->bytes += len;
	if (send(connection->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len || chance(10))
		connection_close(connection);
	free(text);
}

static void say_noise(struct connection *connection, struct counts *own)
{
	static char noise[40000];
	const size_t len = rand() % sizeof(noise);

	own->messages++;
	memset(noise, chance(50) ? 'x' : '[', sizeof(noise));
	own->bytes += len;
	if (send(connection->fd, noise, len, MSG_NOSIGNAL) < 0)
		connection_close(connection);
}

static void hear(struct connection *connection, struct counts *own)
{
	static char text[1 << 16];
	ssize_t n = recv(connection->fd, text, sizeof(text), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++)
		own->heard += !text[i];
	if (!n || (n < 0 && errno != EAGAIN))
		connection_close(connection);
}

static void stranger(struct counts *own)
{
	struct connection connection[CONNECTIONS];

	for (unsigned int i = 0; i < CONNECTIONS; i++)
		connection[i].fd = -1;
	while (clock_ms() < end) {
		struct connection *of = &PICK(connection);

		if (of->fd < 0)
			connection_open(of, own);
		else if (!of->deaf && chance(50))
			hear(of, own);
		else if (chance(95))
			say(of, own);
		else if (chance(50))
			say_noise(of, own);
		else
			connection_close(of);
		poll(NULL, 0, 2);
	}
}

/* Who behaves */

/* One call, and the length of its answer's text; 0: there was none in time. */
static size_t ask(int fd, const char *call, char *text, size_t room)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	size_t len = 0;

	if (send(fd, call, strlen(call) + 1, MSG_NOSIGNAL) < 0)
		return 0;
	while (len < room && poll(&wait, 1, 10 * SECOND_MS) == 1) {
		ssize_t n = recv(fd, text + len, room - len, MSG_DONTWAIT);

		if (n <= 0)
			return 0;
		len += n;
		if (!text[len - 1])
			return len;
	}
	return 0;
}

static void probe(struct counts *own)
{
	static const char *const calls[] = {
		"{\"method\":\"org.moat.List\"}", "{\"method\":\"org.moat.NetworkList\"}",
		"{\"method\":\"org.varlink.service.GetInfo\"}",
	};
	static char text[1 << 20];

	while (clock_ms() < end) {
		const int64_t began = clock_ms();
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		const bool good = !connect(fd, (struct sockaddr *)&address, sizeof(address)) &&
				  ask(fd, calls[own->asked % 3], text, sizeof(text)) &&
				  strstr(text, "\"parameters\":{");
		const long took = clock_ms() - began;

		own->asked++;
		own->worst = took > own->worst ? took : own->worst;
		own->late += !good || took > SECOND_MS;
		close(fd);
		poll(NULL, 0, 20);
	}
}

static pid_t start(void (*run)(struct counts *), unsigned int i, uid_t uid)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	srand(seed + i);
	if (uid && (setgroups(0, NULL) || setgid(uid) || setuid(uid)))
		_exit(1);
	run(&counts[i]);
	_exit(0);
}

/* The judge */

static unsigned int descriptors(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *list;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	list = opendir(path);
	while (list && readdir(list))
		n++;
	if (list)
		closedir(list);
	return n;
}

/* Machines that there is a connection for. */
static unsigned int machines_on(void)
{
	static char text[1 << 20];
	static const char *const states[] = { "\"running\"", "\"paused\"", "\"stopping\"" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned int n = 0;

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    !ask(fd, "{\"method\":\"org.moat.List\"}", text, sizeof(text)))
		n = 1000;
	close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		for (const char *at = text; (at = strstr(at, states[i])); at++)
			n++;
	return n;
}

static unsigned int setting(const char *variable, unsigned int otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 10) : otherwise;
}

static int listener_make(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", dir);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(address.sun_path, 0666) ||
	    listen(fd, 128))
		return -1;
	return fd;
}

static struct counts sum(void)
{
	struct counts all = { 0 };

	for (unsigned int i = 0; i < STRANGERS; i++) {
		all.messages += counts[i].messages;
		all.cut += counts[i].cut;
		all.bytes += counts[i].bytes;
		all.connects += counts[i].connects;
		all.heard += counts[i].heard;
	}
	return all;
}

static unsigned int seconds;
static pid_t front, keeper;

static void test_strangers(void)
{
	const uid_t user = getuid() ? 0 : USER;	/* who is not root can only be who it is */
	struct counts all;
	pid_t pid[STRANGERS + 2];
	unsigned long minute;

	for (unsigned int i = 0; i < STRANGERS; i++)
		pid[i] = start(stranger, i, i & 1 ? user : 0);
	pid[STRANGERS] = start(probe, STRANGERS, 0);
	pid[STRANGERS + 1] = start(probe, STRANGERS + 1, user ? USER + 1 : 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(pid); i++) {
		int status;

		EXPECT(waitpid(pid[i], &status, 0) == pid[i] && !status);
	}
	all = sum();
	minute = all.messages * 60 / seconds;
	printf("# seed %u: %u s, %lu messages, %lu a minute, of %lu bytes, %lu of them in pieces; %lu connections, %lu answers "
	       "read\n", seed, seconds, all.messages, minute, all.bytes, all.cut, all.connects, all.heard);
	EXPECT(minute >= PER_MINUTE && all.heard > all.messages / 20);
}

static void test_behaves(void)
{
	for (unsigned int i = STRANGERS; i < STRANGERS + 2; i++) {
		printf("# %s: %lu calls, the longest took %ld ms, %lu were late\n", i == STRANGERS ? "root" : "a user",
		       counts[i].asked, counts[i].worst, counts[i].late);
		EXPECT(counts[i].asked > seconds && !counts[i].late);
	}
}

/* Late answers have come by then. */
static void test_descriptors(void)
{
	unsigned int there = 0, on = 0;

	for (unsigned int i = 0; i < 20; i++) {
		poll(NULL, 0, SECOND_MS);
		on = machines_on();
		there = descriptors(front);
		if (there <= on + DESCRIPTORS + 10)
			break;
	}
	printf("# %u descriptors, %u machines are on\n", there, on);
	EXPECT(there && there <= on + DESCRIPTORS + 10);
}

static void test_leaks(void)
{
	int status = -1;

	EXPECT(waitpid(front, &status, WNOHANG) == 0);
	kill(keeper, SIGKILL);
	EXPECT(waitpid(front, &status, 0) == front);
	printf("# its status is %#x\n", status);
	EXPECT(!status);
	waitpid(keeper, NULL, 0);
}

static const struct unit_test tests[] = {
	{ "strangers say what they like", test_strangers },
	{ "who behaves is answered within a second", test_behaves },
	{ "no descriptor is left over", test_descriptors },
	{ "it is still there, and has lost no memory", test_leaks },
};

int main(void)
{
	char command[64];
	int status, listener;

	counts = mmap(NULL, sizeof(*counts) * (STRANGERS + 2), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED || !mkdtemp(dir) || chmod(dir, 0755))
		return 1;
	seconds = setting("MOAT_API_SECONDS", 20);
	seed = setting("MOAT_SEED", getpid());
	listener = listener_make();
	if (listener < 0)
		return 1;
	fflush(stdout);
	front = api_world_start(dir, listener, seed, &keeper);
	close(listener);
	end = clock_ms() + seconds * 1000LL;
	status = unit_main(tests, ARRAY_SIZE(tests));
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) ? 1 : status;
}
