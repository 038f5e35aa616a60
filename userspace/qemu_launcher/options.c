// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/ether.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/qemu_launcher/options.h"

#define OPTIONS_NODE		"/dev/moat"
#define OPTIONS_TREE		"/usr"
#define OPTIONS_MEMORY		(512ULL << 20)
#define OPTIONS_MEMORY_MIN	(16ULL << 20)
#define OPTIONS_MEMORY_MAX	(1ULL << 40)
#define OPTIONS_CPUS_MAX	255

static const char options_help[] =
"Usage: moat-qemu --firmware bios|uefi [OPTION]...\n"
"Run one machine with firmware on a node of Moat's, by QEMU in a sandbox. vmctl is the command for people.\n"
"\n"
"  --firmware bios|uefi   what the machine begins with: SeaBIOS, or OVMF\n"
"  --uefi-vars FD         the variables of UEFI, a file that can be written; without it they are forgotten\n"
"  --cdrom PATH           a CD, booted where no disk is; may be repeated\n"
"  --disk PATH[,format=raw|qcow2][,ro][,direct][,name=NAME]\n"
"                         a virtio disk, which QEMU itself serves\n"
"  --net /proc/self/fd/N[,mac=MAC][,name=NAME]\n"
"                         a virtio network device, on a tap that was handed over. Either may have isolation=shared\n"
"                         behind it, which is so anyway: devices are QEMU's, and see all of the guest's memory\n"
"  --mem SIZE             memory, with a suffix K, M or G; 512M by default\n"
"  --cpus N               virtual CPUs, 1 by default\n"
"  --rng                  a virtio entropy source\n"
"  --balloon 0            a virtio balloon\n"
"  --serial served        the serial port is at terminals that come by --control; there is no other way\n"
"  --control FD, --supervisor FD, --ended FD, --device NODE, --name NAME, --uid N, --gid N\n"
"                         as moat-vmm has them\n"
"  --devices-cgroup FD    is not used: devices are in QEMU's process\n"
"  --help                 this text\n"
"\n"
"A PATH of /proc/self/fd/N is the descriptor N that was handed over, itself. QEMU and firmware are those below\n"
"/usr, or $MOAT_QEMU_TREE.\n"
"\n"
"Exit status: 0 when the guest powers off or asks for a reset; 1 when it crashed or something failed; 2 for a\n"
"bad command line; 128 + N when ended by signal N.\n";

static int options_bad(const char *option, const char *value, const char *wanted)
{
	log_error("--%s %s: %s", option, value, wanted);
	return -EINVAL;
}

static int set_firmware(struct options *options, char *value)
{
	if (!strcmp(value, "bios"))
		options->firmware = FIRMWARE_BIOS;
	else if (!strcmp(value, "uefi"))
		options->firmware = FIRMWARE_UEFI;
	else
		return options_bad("firmware", value, "give bios or uefi");
	return 0;
}

static int set_mem(struct options *options, char *value)
{
	if (parse_size(value, OPTIONS_MEMORY_MIN, OPTIONS_MEMORY_MAX, &options->memory))
		return options_bad("mem", value, "give a size from 16M to 1024G");
	return 0;
}

static int set_cpus(struct options *options, char *value)
{
	uint64_t cpus;

	if (parse_uint(value, 1, OPTIONS_CPUS_MAX, &cpus))
		return options_bad("cpus", value, "give a number from 1 to 255");
	options->cpus = cpus;
	return 0;
}

static int set_serial(struct options *options, char *value)
{
	(void)options;
	return strcmp(value, "served") ? options_bad("serial", value, "give served") : 0;
}

static int set_balloon(struct options *options, char *value)
{
	options->balloon = true;
	return strcmp(value, "0") ? options_bad("balloon", value, "give 0") : 0;
}

static int set_rng(struct options *options, char *value)
{
	(void)value;
	options->rng = true;
	return 0;
}

static int set_node(struct options *options, char *value)
{
	options->node = value;
	return 0;
}

static int set_name(struct options *options, char *value)
{
	options->name = value;
	return 0;
}

static int set_cdrom(struct options *options, char *value)
{
	if (options->cdrom_count == OPTIONS_CDROMS)
		return options_bad("cdrom", value, "one too many, 4 are the most");
	options->cdrom[options->cdrom_count++] = value;
	return 0;
}

static int set_fd(const char *option, const char *value, int *ret_fd)
{
	uint64_t fd;

	if (parse_uint(value, STDERR_FILENO + 1, INT32_MAX, &fd) || fcntl(fd, F_GETFD) < 0)
		return options_bad(option, value, "give an open descriptor");
	*ret_fd = fd;
	return 0;
}

static int set_uefi_vars(struct options *options, char *value)
{
	return set_fd("uefi-vars", value, &options->uefi_vars);
}

static int set_control(struct options *options, char *value)
{
	return set_fd("control", value, &options->control);
}

static int set_supervisor(struct options *options, char *value)
{
	return set_fd("supervisor", value, &options->supervisor);
}

static int set_devices_cgroup(struct options *options, char *value)
{
	return set_fd("devices-cgroup", value, &options->devices_cgroup);
}

static int set_ended(struct options *options, char *value)
{
	return set_fd("ended", value, &options->ended);
}

static int set_id(const char *option, const char *value, uint32_t *ret_id)
{
	uint64_t id;

	if (parse_uint(value, 0, UINT32_MAX - 1, &id))
		return options_bad(option, value, "give a number");
	*ret_id = id;
	return 0;
}

static int set_uid(struct options *options, char *value)
{
	return set_id("uid", value, &options->uid);
}

static int set_gid(struct options *options, char *value)
{
	return set_id("gid", value, &options->gid);
}

bool options_mac_legal(const char *mac)
{
	return strlen(mac) == 17 && strspn(mac, "0123456789abcdefABCDEF:") == 17 && ether_aton(mac);
}

/* Devices: what comes behind the path. False: it is not for such a device, or not right. */
static bool device_take(struct options_device *device, const char *word)
{
	const bool disk = !device->network;

	if (!strncmp(word, "name=", 5))
		return word[5] && snprintf(device->name, CONTROL_NAME, "%s", word + 5) < CONTROL_NAME;
	if (!strncmp(word, "mac=", 4)) {
		device->mac = word + 4;
		return device->network && options_mac_legal(device->mac);
	}
	if (!strcmp(word, "isolation=shared"))
		return true;
	if (!strcmp(word, "ro"))
		device->read_only = true;
	else if (!strcmp(word, "direct"))
		device->direct = true;
	else if (!strcmp(word, "format=qcow2"))
		device->qcow2 = true;
	else if (strcmp(word, "format=raw"))
		return false;
	return disk;
}

static int device_add(struct options *options, const char *option, char *value, bool network)
{
	struct options_device *device = &options->device[options->device_count];
	char *word, *rest = value;

	if (options->device_count == OPTIONS_DEVICES)
		return options_bad(option, value, "one too many, 24 are the most");
	device->network = network;
	device->path = strsep(&rest, ",");
	while ((word = strsep(&rest, ",")))
		if (!device_take(device, word))
			return options_bad(option, word, "not known of such a device, or not so");
	if (network && fd_number(device->path) < 0)
		return options_bad(option, device->path, "give /proc/self/fd/N, a tap that is open");
	if (!*device->name)
		snprintf(device->name, CONTROL_NAME, "device%u", options->device_count);
	options->device_count++;
	return 0;
}

static int set_disk(struct options *options, char *value)
{
	return device_add(options, "disk", value, false);
}

static int set_net(struct options *options, char *value)
{
	return device_add(options, "net", value, true);
}

static const struct {
	const char *name;
	int has_value;
	int (*set)(struct options *options, char *value);
} options_table[] = {
	{ "firmware",	required_argument,	set_firmware },
	{ "uefi-vars",	required_argument,	set_uefi_vars },
	{ "cdrom",	required_argument,	set_cdrom },
	{ "disk",	required_argument,	set_disk },
	{ "net",	required_argument,	set_net },
	{ "mem",	required_argument,	set_mem },
	{ "cpus",	required_argument,	set_cpus },
	{ "rng",	no_argument,		set_rng },
	{ "balloon",	required_argument,	set_balloon },
	{ "serial",	required_argument,	set_serial },
	{ "control",	required_argument,	set_control },
	{ "supervisor",	required_argument,	set_supervisor },
	{ "devices-cgroup", required_argument,	set_devices_cgroup },
	{ "ended",	required_argument,	set_ended },
	{ "device",	required_argument,	set_node },
	{ "name",	required_argument,	set_name },
	{ "uid",	required_argument,	set_uid },
	{ "gid",	required_argument,	set_gid },
	{ "help",	no_argument,		NULL },
};

#define OPTIONS_COUNT	ARRAY_SIZE(options_table)

static int options_check(const struct options *options, int argc, char **argv)
{
	if (optind < argc)
		log_error("%s: not an option; see --help", argv[optind]);
	else if (options->firmware == FIRMWARE_NONE)
		log_error("no firmware; name one by --firmware: bios, or uefi");
	else if (options->uefi_vars >= 0 && options->firmware != FIRMWARE_UEFI)
		log_error("--uefi-vars: they are of --firmware uefi");
	else if ((options->uid == (uid_t)-1) != (options->gid == (gid_t)-1))
		log_error("--uid and --gid go together");
	else
		return 0;
	return -EINVAL;
}

static int options_read(struct options *options, int argc, char **argv)
{
	struct option known[OPTIONS_COUNT + 1] = { 0 };
	int c, index = 0, err;

	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		known[i] = (struct option){
			.name = options_table[i].name, .has_arg = options_table[i].has_value,
		};
	while ((c = getopt_long(argc, argv, "+:", known, &index)) != -1) {
		if (c) {
			log_error("%s: not known, or not so; see --help", argv[optind - 1]);
			return -EINVAL;
		}
		if (!options_table[index].set) {
			fputs(options_help, stdout);
			return 1;
		}
		err = options_table[index].set(options, optarg);
		if (err)
			return err;
	}
	return options_check(options, argc, argv);
}

int options_parse(struct options *options, int argc, char **argv)
{
	const char *node = getenv("MOAT_DEVICE"), *tree = getenv("MOAT_QEMU_TREE");

	*options = (struct options){
		.node = node && *node ? node : OPTIONS_NODE,
		.tree = tree && *tree ? tree : OPTIONS_TREE,
		.memory = OPTIONS_MEMORY, .cpus = 1, .uefi_vars = -1, .control = -1, .ended = -1,
		.supervisor = -1, .devices_cgroup = -1, .uid = -1, .gid = -1,
	};
	return options_read(options, argc, argv);
}
