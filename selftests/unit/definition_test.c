// SPDX-License-Identifier: MIT OR GPL-2.0
/* Definitions: what is wrong is said with its place; what is written is read as the same; files are whole. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/moatd/definition.h"
#include "userspace/moatd/network_definition.h"
#include "userspace/moatd/store.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define KERNEL		"boot:\n  kernel: /k\n"
#define LONG(c)		c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c

struct wrong {
	const char *text;
	unsigned int line;
	unsigned int column;
	const char *says;
};

static const struct wrong wrongs[] = {
	{ "", 0, 0, "there is nothing in it" },
	{ "- a\n", 1, 1, "keys and values belong here" },
	{ "name: [\n", 2, 1, "" },
	{ "name: x\ncolour: red\n", 2, 1, "there is no such key" },
	{ "name: x\nname: y\n", 2, 1, "is there twice" },
	{ "[a]: x\n", 1, 1, "a key is a plain word" },
	{ "\"a\\0b\": x\n", 1, 1, "a key is a plain word" },
	{ "name: \"x\\0y\"\n", 1, 7, "a single value belongs here" },
	{ "name: [x]\n", 1, 7, "a single value belongs here" },
	{ "name: a/b\n", 1, 7, "at most 48 letters" },
	{ "name: " LONG("ab") "\n", 1, 7, "at most 48 characters" },
	{ "cpus: 0\n", 1, 7, "from 1 to 255" },
	{ "cpus: -1\n", 1, 7, "a number" },
	{ "cpus: 99999999999999999999\n", 1, 7, "a number" },
	{ "memory: lots\n", 1, 9, "a size, as 512M or 2G" },
	{ "memory: 1K\n", 1, 9, "from 2M to" },
	{ KERNEL "memory: 4097K\n", 0, 0, "whole pages" },
	{ "balloon: perhaps\n", 1, 10, "yes or no" },
	{ "restart: never\n", 1, 10, "one of no, on-failure, always" },
	{ "boot: /k\n", 1, 7, "keys and values belong here" },
	{ "boot:\n  kernel: k\n", 2, 11, "a path from the root on" },
	{ "boot:\n  kernel: /k\n  append: \"a\\nb\"\n", 3, 11, "control characters" },
	{ "disks: x\n", 1, 8, "a list belongs here" },
	{ "disks:\n- disk: x\n  colour: red\n", 3, 3, "there is no such key in disks" },
	{ KERNEL "disks:\n- format: raw\n", 0, 0, "each needs a disk" },
	{ KERNEL "networks:\n- mac: 52:54:00:12:34:56\n", 0, 0, "each needs a network" },
	{ "networks:\n- network: n\n  mac: 53:54:00:12:34:56\n", 3, 8, "of a single interface" },
	{ "uuid: 1\n", 1, 7, "a UUID" },
	{ "name: x\n", 0, 0, "there is no kernel" },
	{ "a: &x b\nc: *x\n", 2, 4, "aliases are not taken" },
	{ "name: !!str x\n", 1, 7, "tags are not taken" },
	{ "name: x\n---\nname: y\n", 2, 1, "one document is enough" },
	{ "name: \xff\xfe\n", 1, 1, "" },
};

static void test_wrong(void)
{
	struct definition definition;
	struct definition_error error;

	for (size_t i = 0; i < ARRAY_SIZE(wrongs); i++) {
		const struct wrong *w = &wrongs[i];

		EXPECT(definition_read(&definition, w->text, strlen(w->text), &error) == -EINVAL);
		/* Where a reader that finds no YAML stops, is libyaml's. */
		if (!EXPECT(strstr(error.text, w->says) &&
			    (!*w->says || (error.line == w->line && error.column == w->column))))
			printf("# %zu: line %u, column %u: %s\n", i, error.line, error.column, error.text);
	}
}

static void test_too_much(void)
{
	struct definition definition;
	struct definition_error error;
	char text[4096] = KERNEL "disks:\n";

	for (unsigned int i = 0; i <= DEFINITION_DISKS; i++)
		strcat(text, "- disk: a\n");
	EXPECT(definition_read(&definition, text, strlen(text), &error) == -EINVAL);
	EXPECT(strstr(error.text, "at most 16") && error.line == 4 + DEFINITION_DISKS && error.column == 3);
	EXPECT(definition_read(&definition, text, DEFINITION_TEXT_MAX + 1, &error) == -EINVAL);
	EXPECT(strstr(error.text, "at most 64K"));
}

static const char whole[] =
"name: web-1.x\nuuid: 123e4567-e89b-42d3-a456-426614174000\nowner: 1000\ncpus: 3\nmemory: 1G\nballoon: no\n"
"autostart: yes\nrestart: always\nstop-timeout: 7\n"
"boot:\n  kernel: /boot/v\n  initrd: /boot/i\n  append: 'a: \"b\" # c'\n"
"disks:\n- disk: one\n  format: qcow2\n  read-only: yes\n- disk: /dev/x\n  direct: yes\n"
"networks:\n- network: default\n  mac: 52:54:00:12:34:56\n  address: 10.0.0.2\n"
"filesystems:\n- directory: /srv\n  tag: srv\n  writable: yes\n"
"limits:\n  cpu-weight: 5\n  cpu-cap: 250\n  pin: 0-3,8\n  memory: 2G\n  io-weight: 9\n"
"cloud-init:\n  hostname: web\n  user: me\n  ssh-keys:\n  - ssh-ed25519 AAAA x\n  - 'yes'\n";

/* What is left out of a text is as what is there by itself. */
static bool again(const struct definition *definition)
{
	char *text = definition_write(definition);
	struct definition_error error;
	struct definition read;
	bool same = EXPECT(text) && EXPECT(!definition_read(&read, text, strlen(text), &error)) &&
		    EXPECT(!memcmp(&read, definition, sizeof(read)));

	free(text);
	return same;
}

static void test_write(void)
{
	struct definition definition;
	struct definition_error error;
	struct json_object *object;

	EXPECT(!definition_read(&definition, whole, strlen(whole), &error));
	EXPECT(definition.cpus == 3 && definition.disk_count == 2 && definition.seed.key_count == 2);
	EXPECT(again(&definition));
	object = definition_json(&definition);
	EXPECT(json_object_get_int64(json_object_object_get(object, "cpus")) == 3);
	json_object_put(object);
	EXPECT(!definition_read(&definition, KERNEL, strlen(KERNEL), &error) && again(&definition));
	EXPECT(!definition_complete(&definition) && again(&definition));
	/* Texts that YAML would take for something else. */
	strcpy(definition.boot.append, "- [x: &y *z] !t '\" #\\ ~");
	EXPECT(again(&definition));
	memset(definition.boot.append, 0, sizeof(definition.boot.append));
	strcpy(definition.boot.append, "  null ");
	EXPECT(again(&definition));
}

/* What a message may carry: no text ends, numbers are out of all ranges. */
static void test_struct(void)
{
	struct definition definition;
	struct definition_error error;

	memset(&definition, 0xff, sizeof(definition));
	EXPECT(definition_check(&definition, &error) == -EINVAL);
	EXPECT(!definition_read(&definition, KERNEL, strlen(KERNEL), &error));
	definition.disk_count = UINT64_MAX;
	EXPECT(definition_check(&definition, &error) == -EINVAL);
	definition.disk_count = 0;
	definition.restart = 3;
	EXPECT(definition_check(&definition, &error) == -EINVAL);
	definition.restart = 0;
	memset(definition.boot.append, 'a', sizeof(definition.boot.append));
	EXPECT(definition_check(&definition, &error) == -EINVAL);
}

static void test_network(void)
{
	static const char text[] = "name: lan\nmode: isolated\naddress: 10.1.0.1/24\ndhcp: 10.1.0.5-10.1.0.9\nopen: yes\n"
				   "forwards:\n- host-port: 80\n  machine: web\n";
	static const struct wrong bad[] = {
		{ "name: toolonganame\n", 1, 7, "characters" },
		{ "name: 1a\n", 1, 7, "at most 10 letters" },
		{ "name: a\naddress: 10.0.0.1\n", 2, 10, "an address with a prefix" },
		{ "name: a\naddress: 10.0.0.1/24\nforwards:\n- host-port: 80\n", 0, 0, "needs a host-port and a machine" },
	};
	struct network_definition network, read;
	struct definition_error error;
	char *written;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT(network_definition_read(&network, bad[i].text, strlen(bad[i].text), &error) == -EINVAL);
		if (!EXPECT(strstr(error.text, bad[i].says) && error.line == bad[i].line &&
			    error.column == bad[i].column))
			printf("# line %u, column %u: %s\n", error.line, error.column, error.text);
	}
	EXPECT(!network_definition_read(&network, text, strlen(text), &error));
	written = network_definition_write(&network);
	EXPECT(!network_definition_read(&read, written, strlen(written), &error));
	EXPECT(!memcmp(&read, &network, sizeof(read)));
	free(written);
}

/* Files */

static char store_path[] = "/tmp/moat-store.XXXXXX";
static unsigned int listed;

static void count(void *arg, const char *name)
{
	(void)arg;
	listed += !strcmp(name, "web");
	EXPECT(!strcmp(name, "web"));
}

static void put(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	EXPECT(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* A save that was cut short, at any point before its end, has left this: what was there before, and a rest. */
static void test_cut_short(void)
{
	int dir = open(mkdtemp(store_path), O_RDONLY | O_DIRECTORY);
	char *text;
	size_t len;

	EXPECT(!store_save(dir, "web", "name: web\n"));
	put(dir, ".new-web.yaml", "name: w");
	put(dir, "other.txt", "x");
	put(dir, "..yaml", "x");
	listed = 0;
	EXPECT(!store_list(dir, count, NULL) && listed == 1);
	EXPECT(faccessat(dir, ".new-web.yaml", F_OK, 0) && errno == ENOENT);
	EXPECT(!store_load(dir, "web", &text, &len) && !strcmp(text, "name: web\n") && len == 10);
	free(text);
	/* A name that cannot be written to leaves what there is. */
	EXPECT(!mkdirat(dir, ".new-web.yaml", 0700));
	EXPECT(store_save(dir, "web", "name: other\n") < 0);
	EXPECT(!unlinkat(dir, ".new-web.yaml", AT_REMOVEDIR));
	EXPECT(!store_load(dir, "web", &text, &len) && !strcmp(text, "name: web\n"));
	free(text);
	close(dir);
}

static void test_odd_files(void)
{
	int fd, dir = open(store_path, O_RDONLY | O_DIRECTORY);
	char *text;
	size_t len;

	EXPECT(store_load(dir, "none", &text, &len) == -ENOENT);
	EXPECT(!symlinkat("/etc/passwd", dir, "link.yaml") && store_load(dir, "link", &text, &len) == -ELOOP);
	EXPECT(!mkfifoat(dir, "fifo.yaml", 0600) && store_load(dir, "fifo", &text, &len) < 0);
	put(dir, "huge.yaml", "");
	fd = openat(dir, "huge.yaml", O_WRONLY);
	EXPECT(!ftruncate(fd, DEFINITION_TEXT_MAX + 1) && store_load(dir, "huge", &text, &len) == -EFBIG);
	close(fd);
	EXPECT(!store_remove(dir, "web") && store_remove(dir, "web") == -ENOENT);
	for (const char *const *file = (const char *const[]){ "link.yaml", "fifo.yaml", "huge.yaml", "other.txt",
							       "..yaml", NULL }; *file; file++)
		unlinkat(dir, *file, 0);
	close(dir);
	EXPECT(!rmdir(store_path));
}

static const struct unit_test tests[] = {
	{ "what is wrong is said, with its line and column", test_wrong },
	{ "too many of something, or too much of all", test_too_much },
	{ "what is written is read as the same", test_write },
	{ "a struct that anybody may have made", test_struct },
	{ "the same of networks", test_network },
	{ "a save that is cut short leaves what was there", test_cut_short },
	{ "files that are none of ours", test_odd_files },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
