// SPDX-License-Identifier: MIT OR GPL-2.0
/* Commands by which machines are made, changed, started and ended. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/moatd/definition.h"
#include "userspace/vmctl/client.h"
#include "userspace/vmctl/command.h"
#include "userspace/vmctl/console.h"
#include "userspace/vmctl/kernel.h"

#define APPEND_PLAIN	"console=ttyS0"
#define APPEND_DISK	"console=ttyS0 root=/dev/vda1"

/* Verbs: a method with a name, for each machine that is named */

static const struct {
	const char *name;
	const char *method;
} verbs[] = {
	{ "start", "Start" }, { "stop", "Stop" }, { "kill", "Kill" }, { "reset", "Reset" },
	{ "pause", "Pause" }, { "resume", "Resume" }, { "destroy", "Destroy" },
};

static int verb_main(int argc, char **argv)
{
	const char *method = NULL;
	int status = 0;

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].name, argv[0]))
			method = verbs[i].method;
	if (argc < 2 || *argv[1] == '-')
		return command_usage(argv[0]);
	for (int i = 1; i < argc; i++) {
		const int failed = client_call(method, client_name(argv[i]), NULL);

		status = failed ? failed : status;
	}
	return status;
}

/* create */

static int make_bad(const char *option, const char *value, const char *wanted)
{
	log_error("--%s %s: %s", option, value, wanted);
	return -EINVAL;
}

static int make_number(const char *option, const char *value, uint64_t *ret)
{
	return parse_uint(value, 1, INT32_MAX, ret) ? make_bad(option, value, "give a number") : 0;
}

static int make_size(const char *option, const char *value, uint64_t *ret)
{
	return parse_size(value, 1, INT64_MAX, ret) ? make_bad(option, value, "give a size, as 512M") : 0;
}

static int make_text(const char *option, const char *value, char *to, size_t room)
{
	if (strlen(value) >= room)
		return make_bad(option, value, "too long");
	strcpy(to, value);
	return 0;
}

/* moatd works elsewhere. */
static int make_path(const char *option, const char *value, char *to, size_t room)
{
	char whole[PATH_MAX];

	if (!realpath(value, whole))
		return make_bad(option, value, strerror(errno));
	return make_text(option, whole, to, room);
}

/* Takes ",word" off the end. True: it was there. */
static bool take_word(char *value, const char *word)
{
	char *comma = strrchr(value, ',');

	if (!comma || strcmp(comma + 1, word))
		return false;
	*comma = '\0';
	return true;
}

static int make_disk(struct definition *definition, char *value)
{
	struct definition_disk *disk = &definition->disk[definition->disk_count];

	if (definition->disk_count == DEFINITION_DISKS)
		return make_bad("disk", value, "16 are the most");
	definition->disk_count++;
	/* In any order. */
	for (unsigned int i = 0; i < 3; i++) {
		disk->read_only |= take_word(value, "ro");
		disk->direct |= take_word(value, "direct");
		if (take_word(value, "format=qcow2"))
			disk->format = FORMAT_QCOW2;
	}
	if (definition_name_valid(value) && access(value, F_OK))
		return make_text("disk", value, disk->path, sizeof(disk->path));
	return make_path("disk", value, disk->path, sizeof(disk->path));
}

static int make_network(struct definition *definition, char *value)
{
	struct definition_network *network = &definition->network[definition->network_count];
	char *mac = strstr(value, ",mac=");

	if (definition->network_count == DEFINITION_NETWORKS)
		return make_bad("network", value, "8 are the most");
	definition->network_count++;
	if (mac) {
		*mac = '\0';
		if (make_text("network", mac + strlen(",mac="), network->mac, sizeof(network->mac)))
			return -EINVAL;
	}
	return make_text("network", value, network->network, sizeof(network->network));
}

/* "DIRECTORY[,tag=TAG][,rw]" */
static int make_filesystem(struct definition *definition, char *value)
{
	struct definition_filesystem *filesystem = &definition->filesystem[definition->filesystem_count];
	char *tag;

	if (definition->filesystem_count == DEFINITION_FILESYSTEMS)
		return make_bad("fs", value, "8 are the most");
	definition->filesystem_count++;
	filesystem->writable = take_word(value, "rw");
	tag = strstr(value, ",tag=");
	if (tag)
		*tag = '\0';
	if (make_text("fs", tag ? tag + strlen(",tag=") : "host", filesystem->tag, sizeof(filesystem->tag)))
		return -EINVAL;
	return make_path("fs", value, filesystem->path, sizeof(filesystem->path));
}

static int make_key(struct definition *definition, const char *path)
{
	struct definition_seed *seed = &definition->seed;
	FILE *file = fopen(path, "re");
	char *line;

	if (!file)
		return make_bad("ssh-key", path, strerror(errno));
	while (seed->key_count < DEFINITION_KEYS) {
		line = seed->key[seed->key_count].key;
		if (!fgets(line, sizeof(seed->key[0].key), file))
			break;
		line[strcspn(line, "\n")] = '\0';
		if (*line && *line != '#')
			seed->key_count++;
		else
			*line = '\0';
	}
	fclose(file);
	return 0;
}

enum {
	MAKE_CPUS = 1, MAKE_MEMORY, MAKE_DISK, MAKE_NETWORK, MAKE_KERNEL, MAKE_INITRD, MAKE_APPEND,
	MAKE_AUTOSTART, MAKE_RESTART, MAKE_HOSTNAME, MAKE_USER, MAKE_KEY, MAKE_WEIGHT, MAKE_CAP,
	MAKE_PIN, MAKE_LIMIT, MAKE_IO, MAKE_STOP, MAKE_FS, MAKE_FILE, MAKE_FIRMWARE, MAKE_CDROM,
};

static const struct option make_options[] = {
	{ "cpus", 1, NULL, MAKE_CPUS }, { "memory", 1, NULL, MAKE_MEMORY },
	{ "disk", 1, NULL, MAKE_DISK }, { "network", 1, NULL, MAKE_NETWORK },
	{ "kernel", 1, NULL, MAKE_KERNEL }, { "initrd", 1, NULL, MAKE_INITRD },
	{ "append", 1, NULL, MAKE_APPEND }, { "autostart", 0, NULL, MAKE_AUTOSTART },
	{ "restart", 1, NULL, MAKE_RESTART }, { "hostname", 1, NULL, MAKE_HOSTNAME },
	{ "user", 1, NULL, MAKE_USER }, { "ssh-key", 1, NULL, MAKE_KEY },
	{ "cpu-weight", 1, NULL, MAKE_WEIGHT }, { "cpu-cap", 1, NULL, MAKE_CAP },
	{ "pin", 1, NULL, MAKE_PIN }, { "memory-limit", 1, NULL, MAKE_LIMIT },
	{ "io-weight", 1, NULL, MAKE_IO }, { "stop-timeout", 1, NULL, MAKE_STOP },
	{ "fs", 1, NULL, MAKE_FS }, { "file", 1, NULL, MAKE_FILE },
	{ "firmware", 1, NULL, MAKE_FIRMWARE }, { "cdrom", 1, NULL, MAKE_CDROM }, { 0 },
};

static int make_choice(const char *option, const char *value, const char *const names[3], uint64_t *ret)
{
	char wanted[64];

	for (size_t i = 0; i < 3; i++)
		if (!strcmp(names[i], value)) {
			*ret = i;
			return 0;
		}
	snprintf(wanted, sizeof(wanted), "give %s, %s or %s", names[0], names[1], names[2]);
	return make_bad(option, value, wanted);
}

static const char *const make_restarts[] = { "no", "on-failure", "always" };
static const char *const make_firmwares[] = { "none", "bios", "uefi" };

static int make_option(struct definition *d, int option, char *value)
{
	switch (option) {
	case MAKE_CPUS: return make_number("cpus", value, &d->cpus);
	case MAKE_MEMORY: return make_size("memory", value, &d->memory);
	case MAKE_DISK: return make_disk(d, value);
	case MAKE_NETWORK: return make_network(d, value);
	case MAKE_FS: return make_filesystem(d, value);
	case MAKE_KERNEL: return make_path("kernel", value, d->boot.kernel, sizeof(d->boot.kernel));
	case MAKE_INITRD: return make_path("initrd", value, d->boot.initrd, sizeof(d->boot.initrd));
	case MAKE_APPEND: return make_text("append", value, d->boot.append, sizeof(d->boot.append));
	case MAKE_AUTOSTART: d->autostart = true; return 0;
	case MAKE_RESTART: return make_choice("restart", value, make_restarts, &d->restart);
	case MAKE_FIRMWARE: return make_choice("firmware", value, make_firmwares, &d->boot.firmware);
	case MAKE_CDROM: return make_path("cdrom", value, d->boot.cdrom, sizeof(d->boot.cdrom));
	case MAKE_HOSTNAME: return make_text("hostname", value, d->seed.hostname, sizeof(d->seed.hostname));
	case MAKE_USER: return make_text("user", value, d->seed.user, sizeof(d->seed.user));
	case MAKE_KEY: return make_key(d, value);
	case MAKE_WEIGHT: return make_number("cpu-weight", value, &d->limits.cpu_weight);
	case MAKE_CAP: return make_number("cpu-cap", value, &d->limits.cpu_cap);
	case MAKE_PIN: return make_text("pin", value, d->limits.pin, sizeof(d->limits.pin));
	case MAKE_LIMIT: return make_size("memory-limit", value, &d->limits.memory);
	case MAKE_IO: return make_number("io-weight", value, &d->limits.io_weight);
	case MAKE_STOP: return make_number("stop-timeout", value, &d->stop_timeout);
	default: return -EINVAL;
	}
}

/* Without a kernel, the host's own, with its initial RAM disk; with firmware, none. */
static int make_kernel(struct definition *definition)
{
	struct definition_boot *boot = &definition->boot;
	char initrd[PATH_MAX];
	struct kernel kernel;

	if (boot->firmware != FIRMWARE_NONE)
		return 0;
	if (!*boot->append)
		strcpy(boot->append, definition->disk_count ? APPEND_DISK : APPEND_PLAIN);
	if (*boot->kernel)
		return 0;
	if (kernel_open(NULL, &kernel))
		return -ENOENT;
	close(kernel.fd);
	if (make_text("kernel", kernel.path, boot->kernel, sizeof(boot->kernel)))
		return -EINVAL;
	snprintf(initrd, sizeof(initrd), "/boot/initrd.img-%s", kernel.version);
	if (!*boot->initrd && !access(initrd, R_OK))
		return make_text("initrd", initrd, boot->initrd, sizeof(boot->initrd));
	return 0;
}

char *file_text(const char *path)
{
	char *text = calloc(1, DEFINITION_TEXT_MAX + 2);
	FILE *file = strcmp(path, "-") ? fopen(path, "re") : stdin;

	if (text && file && fread(text, 1, DEFINITION_TEXT_MAX + 1, file) <= DEFINITION_TEXT_MAX &&
	    !ferror(file)) {
		if (file != stdin)
			fclose(file);
		return text;
	}
	log_error("%s: %s", path, !file ? strerror(errno) : "too long for a definition");
	if (file && file != stdin)
		fclose(file);
	free(text);
	return NULL;
}

static int create_text(const char *text)
{
	struct json_object *parameters = json_object_new_object();

	json_object_object_add(parameters, "definition", json_object_new_string(text));
	return client_call("Create", parameters, NULL);
}

static int create_main(int argc, char **argv)
{
	static struct definition definition;
	const char *file = NULL;
	char *text;
	int c, status;

	definition_init(&definition);
	while ((c = getopt_long(argc, argv, "", make_options, NULL)) >= 0) {
		if (c == MAKE_FILE)
			file = optarg;
		else if (c == '?' || make_option(&definition, c, optarg))
			return c == '?' ? command_usage(argv[0]) : STATUS_USAGE;
	}
	if (optind + !file != argc)
		return command_usage(argv[0]);
	if (!file && (make_text("name", argv[optind], definition.name, sizeof(definition.name)) ||
		      make_kernel(&definition)))
		return STATUS_USAGE;
	text = file ? file_text(file) : definition_write(&definition);
	if (!text)
		return STATUS_REFUSED;
	status = create_text(text);
	free(text);
	return status;
}

/* edit */

static int edit_set(const char *name, const char *text)
{
	struct json_object *parameters = client_name(name);

	json_object_object_add(parameters, "definition", json_object_new_string(text));
	return client_call("SetDefinition", parameters, NULL);
}

static int edit_run(const char *path)
{
	const char *editor = getenv("VISUAL");
	char command[PATH_MAX + 64];
	int status;

	if (!editor)
		editor = getenv("EDITOR");
	snprintf(command, sizeof(command), "%s '%s'", editor ? editor : "vi", path);
	status = system(command);
	if (status)
		log_error("%s: the editor failed, nothing was changed", editor ? editor : "vi");
	return status;
}

static int edit_file(const char *path, const char *again, int (*set)(const char *, const char *),
		     const char *name)
{
	char *before = file_text(path), *after = NULL;
	int status = STATUS_REFUSED;

	if (before && !edit_run(path))
		after = file_text(path);
	if (before && after)
		status = strcmp(before, after) ? set(name, after) : 0;
	if (status && after)
		log_error("what you wrote is in %s; once it is right: vmctl %s %s", path, again, path);
	else
		unlink(path);
	free(before);
	free(after);
	return status;
}

int edit_text(const char *text, const char *again, int (*set)(const char *name, const char *text),
	      const char *name)
{
	char path[] = "/tmp/vmctl-XXXXXX.yaml";
	int fd = mkostemps(path, 5, O_CLOEXEC);
	int err = fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));

	fd_close(fd);
	if (!err)
		return edit_file(path, again, set, name);
	log_error("%s: %s", path, strerror(-err));
	return STATUS_REFUSED;
}

static int edit_new(const char *name)
{
	char again[DEFINITION_NAME + 32];
	struct json_object *reply;
	int status = client_call("GetDefinition", client_name(name), &reply);

	if (status)
		return status;
	snprintf(again, sizeof(again), "edit %.48s --file", name);
	status = edit_text(client_text(reply, "definition"), again, edit_set, name);
	json_object_put(reply);
	return status;
}

static int edit_main(int argc, char **argv)
{
	char *text;
	int status;

	if (argc == 2 && *argv[1] != '-')
		return edit_new(argv[1]);
	if (argc != 4 || strcmp(argv[2], "--file"))
		return command_usage(argv[0]);
	text = file_text(argv[3]);
	if (!text)
		return STATUS_REFUSED;
	status = edit_set(argv[1], text);
	free(text);
	return status;
}

/* The others */

static int set_memory_main(int argc, char **argv)
{
	struct json_object *parameters;
	uint64_t memory;

	if (argc != 3 || *argv[1] == '-')
		return command_usage(argv[0]);
	if (parse_size(argv[2], 1, INT64_MAX, &memory)) {
		log_error("%s: give a size, as 512M", argv[2]);
		return STATUS_USAGE;
	}
	parameters = client_name(argv[1]);
	json_object_object_add(parameters, "memory", json_object_new_int64(memory));
	return client_call("SetMemory", parameters, NULL);
}

static int console_main(int argc, char **argv)
{
	int fd, status;

	if (argc != 2 || *argv[1] == '-')
		return command_usage(argv[0]);
	status = client_upgrade("Console", client_name(argv[1]), &fd);
	if (status)
		return status;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "The console of %s; Ctrl-A x leaves it.\r\n", argv[1]);
	status = console_attach(fd);
	return status < 0 ? STATUS_REFUSED : status;
}

/* What the guest's memory holds is for its owner's eyes. */
static int dump_copy(int from, const char *path)
{
	int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err = to < 0 ? -errno : 0;
	static char buffer[256 << 10];
	const bool people = isatty(STDERR_FILENO);
	uint64_t done = 0;
	ssize_t n;

	while (!err && (n = read(from, buffer, sizeof(buffer)))) {
		if (n < 0) {
			err = errno == EINTR ? 0 : -errno;
			continue;
		}
		err = fd_write_full(to, buffer, n);
		done += n;
		if (people)
			fprintf(stderr, "\r%llu MiB", (unsigned long long)done >> 20);
	}
	if (people)
		fputs("\r\n", stderr);
	fd_close(to);
	if (!err && !done)
		err = -ENODATA;
	return err;
}

static int dump_main(int argc, char **argv)
{
	int err, fd, status;

	if (argc != 3 || *argv[1] == '-')
		return command_usage(argv[0]);
	status = client_upgrade("Dump", client_name(argv[1]), &fd);
	if (status)
		return status;
	err = dump_copy(fd, argv[2]);
	close(fd);
	if (err)
		log_error("%s: %s", argv[2], strerror(-err));
	return err ? STATUS_REFUSED : 0;
}

/* Disks and networks that come and go */

/* As moatd has it: by its whole path, or by its name. */
static int disk_name(const char *value, char *ret)
{
	if (definition_name_valid(value) && access(value, F_OK))
		return make_text("disk", value, ret, DEFINITION_PATH);
	return make_path("disk", value, ret, DEFINITION_PATH);
}

static int attach_disk_main(int argc, char **argv)
{
	struct definition_disk disk = { 0 };
	struct json_object *parameters;
	char path[DEFINITION_PATH];

	if (argc < 3 || *argv[1] == '-')
		return command_usage(argv[0]);
	for (int i = 3; i < argc; i++) {
		if (!strcmp(argv[i], "--read-only"))
			disk.read_only = true;
		else if (!strcmp(argv[i], "--qcow2"))
			disk.format = FORMAT_QCOW2;
		else
			return command_usage(argv[0]);
	}
	if (disk_name(argv[2], path))
		return STATUS_USAGE;
	parameters = client_name(argv[1]);
	json_object_object_add(parameters, "disk", json_object_new_string(path));
	json_object_object_add(parameters, "read_only", json_object_new_boolean(disk.read_only));
	if (disk.format == FORMAT_QCOW2)
		json_object_object_add(parameters, "format", json_object_new_string("qcow2"));
	return client_call("AttachDisk", parameters, NULL);
}

static int detach_disk_main(int argc, char **argv)
{
	struct json_object *parameters;
	char path[DEFINITION_PATH];

	if (argc != 3 || *argv[1] == '-')
		return command_usage(argv[0]);
	if (disk_name(argv[2], path))
		return STATUS_USAGE;
	parameters = client_name(argv[1]);
	json_object_object_add(parameters, "disk", json_object_new_string(path));
	return client_call("DetachDisk", parameters, NULL);
}

static int net_main(int argc, char **argv)
{
	const bool attach = !strcmp(argv[0], "attach-net");
	struct json_object *parameters, *reply;
	int status;

	if (argc != 3 || *argv[1] == '-')
		return command_usage(argv[0]);
	parameters = client_name(argv[1]);
	json_object_object_add(parameters, attach ? "network" : "mac", json_object_new_string(argv[2]));
	status = client_call(attach ? "AttachNetwork" : "DetachNetwork", parameters, &reply);
	if (status)
		return status;
	if (attach)
		puts(client_text(reply, "mac"));
	json_object_put(reply);
	return 0;
}

#define VERB_USAGE	"MACHINE..."

const struct command machine_commands[] = {
	{ "create", "make a machine", "NAME [--cpus N] [--memory SIZE] [--disk DISK[,format=qcow2][,ro]"
	  "[,direct]]...\n"
	  "  [--network NETWORK[,mac=MAC]]... [--fs DIRECTORY[,tag=TAG][,rw]]... [--kernel FILE]\n"
	  "  [--initrd FILE] [--append TEXT]\n"
	  "  [--firmware bios|uefi [--cdrom FILE]]\n"
	  "  [--autostart] [--restart no|on-failure|always] [--stop-timeout SECONDS]\n"
	  "  [--hostname NAME] [--user NAME] [--ssh-key FILE]... [--cpu-weight N] [--cpu-cap PERCENT]\n"
	  "  [--pin CPUS] [--memory-limit SIZE] [--io-weight N]\n"
	  "vmctl create --file DEFINITION.yaml (- is standard input)\n\n"
	  "Without a kernel it is the host's own, with its initial RAM disk; the command line is then\n"
	  "\"" APPEND_DISK "\", without a disk \"" APPEND_PLAIN "\".\n"
	  "With firmware, it boots from its disks, or else from the cdrom, with QEMU as its launcher.", create_main },
	{ "start", "start machines, and wait until they run", VERB_USAGE, verb_main },
	{ "stop", "press their power buttons, and wait until they are off", VERB_USAGE, verb_main },
	{ "kill", "end them at once", VERB_USAGE, verb_main },
	{ "reset", "end them at once, and start them anew", VERB_USAGE, verb_main },
	{ "pause", "have their CPUs stand still", VERB_USAGE, verb_main },
	{ "resume", "have them go on", VERB_USAGE, verb_main },
	{ "destroy", "end them, and forget them; their disks stay", VERB_USAGE, verb_main },
	{ "edit", "change a machine's definition in an editor", "MACHINE [--file DEFINITION.yaml]",
	  edit_main },
	{ "attach-disk", "give it a disk, also while it runs", "MACHINE DISK [--read-only] [--qcow2]",
	  attach_disk_main },
	{ "detach-disk", "take one away, once its guest has let it go", "MACHINE DISK", detach_disk_main },
	{ "attach-net", "put it on a network more; prints the address (MAC) that it has there",
	  "MACHINE NETWORK", net_main },
	{ "detach-net", "take it off one, by that address", "MACHINE MAC", net_main },
	{ "set-memory", "have a guest do with so much memory", "MACHINE SIZE", set_memory_main },
	{ "console", "a machine's serial port; Ctrl-A x leaves it", "MACHINE", console_main },
	{ "dump", "a guest's memory and CPUs into a file, an ELF core", "MACHINE FILE", dump_main },
	{ 0 },
};
