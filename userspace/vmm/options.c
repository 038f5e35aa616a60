// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moat/control.h"
#include "userspace/lib/array.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/vhost_device.h"
#include "userspace/vmm/vhost_isolation.h"

#define OPTIONS_NODE		"/dev/moat"
#define OPTIONS_MEMORY		(256ULL << 20)
#define OPTIONS_MEMORY_MIN	(2ULL << 20)
#define OPTIONS_MEMORY_MAX	(1ULL << 40)
#define OPTIONS_PAGE		4096
#define OPTIONS_CPUS_MAX	255	/* an interrupt message can name no more APIC ids */

static const char options_help[] =
"Usage: moat-vmm --kernel PATH [OPTION]...\n"
"Run one virtual machine on a node of Moat's. vmctl is the command for people.\n"
"\n"
"  --kernel PATH          kernel to boot: a bzImage, an ELF file for PVH, or a multiboot kernel\n"
"  --initrd PATH          initial RAM disk; the module of a multiboot kernel\n"
"  --append TEXT          kernel command line\n"
"  --mem SIZE             memory, with a suffix K, M or G; 256M by default\n"
"  --cpus N               virtual CPUs, 1 by default\n"
"  --serial IN,OUT        descriptors of the serial port; 0,1 by default\n"
"  --serial none          what it says is lost\n"
"  --serial served        it is at the other end of terminals that come by --control\n"
"  --disk PATH[,format=raw|qcow2][,ro][,direct][,isolation=grant|shared]\n"
"                         a virtio block device, served by a process, moat-blk, which sees what is in\n"
"                         its requests (grant, the default), or all of the guest's memory (shared), and\n"
"                         is started again where it ends. direct: past the host's page cache. qcow2: by\n"
"                         qemu-storage-daemon; what is not said to be so is raw\n"
"  --net TAP|user[,mac=MAC][,isolation=grant|shared]\n"
"                         a virtio network device on a tap, by its name, that moat-net serves; user:\n"
"                         connections of the guest's become this user's, by passt\n"
"  --fs DIRECTORY[,tag=TAG][,rw][,owner=UID:GID][,isolation=grant|shared]\n"
"                         a directory of the host's as a virtio file system, \"host\" or another tag,\n"
"                         that moat-fs serves, with the rights of owner, or else of --uid; it can only be\n"
"                         read, unless rw is there\n"
"  --device-socket TYPE,PATH[,isolation=grant|shared]\n"
"                         a virtio device that the vhost-user back end listening there serves.\n"
"                         TYPE: blk, net, rng, console, fs, vsock\n"
"  --console FD | IN,OUT  a virtio console on these descriptors\n"
"  --rng                  a virtio entropy source\n"
"  --balloon SIZE         a virtio balloon: the guest is asked to do without so much of its memory, or 0;\n"
"                         and what it has free goes back to the host by itself\n"
"  --control FD           a Unix socket (SOCK_SEQPACKET) that listens: who connects to it controls the\n"
"                         machine, by the messages of include/moat/control.h\n"
"  --ended FD             a file into which is written, last of all, how the machine ended (the same)\n"
"  --supervisor FD        another such socket, for who has devices to be attached by --control served\n"
"  --devices-cgroup FD    a cgroup.procs, open for writing: processes of devices are in that cgroup\n"
"  --device NODE          node to use; MOAT_DEVICE or /dev/moat by default\n"
"  --name NAME            name of the machine, for messages\n"
"  --uid N, --gid N       run as that user and group, and so do the processes of devices; by default\n"
"                         as the caller, without any rights of root's\n"
"  --help                 this text\n"
"\n"
"A PATH, or TAP, of /proc/self/fd/N is the descriptor N that was handed over, itself. Disks, networks\n"
"and sockets may be repeated, and are in the machine in that order. With ,name=NAME behind it, a device has\n"
"that name for --control; else it is device0, device1 and so on.\n"
"\n"
"Exit status: 0 when the guest powers off or asks for a reset; the byte that it wrote to I/O\n"
"port 0xf4, which ends the machine at once; 1 when it crashed or something failed; 2 for a bad\n"
"command line; 128 + N when ended by signal N.\n";

static int options_bad(const char *option, const char *value, const char *wanted)
{
	log_error("--%s %s: %s", option, value, wanted);
	return -EINVAL;
}

/* "IN,OUT"; or, where @single, also "FD" for both. Both must be open. */
static int options_fds(const char *text, bool single, int *ret_in, int *ret_out)
{
	char first[12];
	const char *second;
	uint64_t in, out;
	size_t len = strcspn(text, ",");

	if (len >= sizeof(first) || (!text[len] && !single))
		return -EINVAL;
	memcpy(first, text, len);
	first[len] = '\0';
	second = text[len] ? text + len + 1 : first;
	if (parse_uint(first, 0, INT32_MAX, &in) || parse_uint(second, 0, INT32_MAX, &out))
		return -EINVAL;
	if (fcntl(in, F_GETFD) < 0 || fcntl(out, F_GETFD) < 0)
		return -EBADF;
	*ret_in = in;
	*ret_out = out;
	return 0;
}

static int set_kernel(struct options *options, char *value)
{
	options->kernel = value;
	return 0;
}

static int set_initrd(struct options *options, char *value)
{
	options->initrd = value;
	return 0;
}

static int set_append(struct options *options, char *value)
{
	options->append = value;
	return 0;
}

static int set_device(struct options *options, char *value)
{
	options->node = value;
	return 0;
}

static int set_name(struct options *options, char *value)
{
	options->name = value;
	return 0;
}

static int set_mem(struct options *options, char *value)
{
	uint64_t size;

	if (parse_size(value, OPTIONS_MEMORY_MIN, OPTIONS_MEMORY_MAX, &size) ||
	    size % OPTIONS_PAGE)
		return options_bad("mem", value,
				   "give a size from 2M to 1024G, as 512M or 2G, in whole pages");
	options->memory = size;
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
	options->serial_served = !strcmp(value, "served");
	if (options->serial_served || !strcmp(value, "none")) {
		options->serial_in = -1;
		options->serial_out = -1;
		return 0;
	}
	if (options_fds(value, false, &options->serial_in, &options->serial_out))
		return options_bad("serial", value, "give two open descriptors, as 0,1, or none, or served");
	return 0;
}

static int set_console(struct options *options, char *value)
{
	if (options_fds(value, true, &options->console_in, &options->console_out))
		return options_bad("console", value, "give an open descriptor, or two as 3,4");
	return 0;
}

static int set_balloon(struct options *options, char *value)
{
	options->balloon = true;
	if (!strcmp(value, "0"))
		return 0;
	if (parse_size(value, OPTIONS_PAGE, OPTIONS_MEMORY_MAX, &options->balloon_size) ||
	    options->balloon_size % OPTIONS_PAGE)
		return options_bad("balloon", value, "give a size below that of --mem, or 0");
	return 0;
}

static int set_rng(struct options *options, char *value)
{
	(void)value;
	options->rng = true;
	return 0;
}

static int set_fd(const char *option, const char *value, int *ret_fd)
{
	uint64_t fd;

	if (parse_uint(value, 0, INT32_MAX, &fd) || fcntl(fd, F_GETFD) < 0)
		return options_bad(option, value, "give an open descriptor");
	*ret_fd = fd;
	return 0;
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

/* What may come behind a device's path. False: the value is none. */

static bool take_ro(struct options_device *device, const char *value)
{
	(void)value;
	device->read_only = true;
	return true;
}

static bool take_direct(struct options_device *device, const char *value)
{
	(void)value;
	device->direct = true;
	return true;
}

static bool take_format(struct options_device *device, const char *value)
{
	device->format = strcmp(value, "raw") ? "qcow2" : NULL;
	return !device->format || !strcmp(value, device->format);
}

static bool take_rw(struct options_device *device, const char *value)
{
	(void)value;
	device->writable = true;
	return true;
}

static bool take_tag(struct options_device *device, const char *value)
{
	device->tag = value;
	return *value;
}

static bool take_mac(struct options_device *device, const char *value)
{
	device->mac = value;
	return *value;
}

static bool take_name(struct options_device *device, const char *value)
{
	device->name = value;
	return *value && strlen(value) < CONTROL_NAME;
}

static bool take_isolation(struct options_device *device, const char *value)
{
	static const struct vhost_isolation_ops *const known[] = { &vhost_gate, &vhost_share };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i]->name, value)) {
			device->isolation = known[i];
			return true;
		}
	return false;
}

/* "UID:GID" */
static bool take_owner(struct options_device *device, const char *value)
{
	const char *colon = strchr(value, ':');
	char uid[12];
	uint64_t number[2];

	if (!colon || (size_t)(colon - value) >= sizeof(uid))
		return false;
	memcpy(uid, value, colon - value);
	uid[colon - value] = '\0';
	if (parse_uint(uid, 0, UINT32_MAX - 1, &number[0]) ||
	    parse_uint(colon + 1, 0, UINT32_MAX - 1, &number[1]))
		return false;
	device->owned = true;
	device->uid = number[0];
	device->gid = number[1];
	return true;
}

/* A word; or, with an = at its end, a name that has a value behind it. */
struct suffix {
	const char *name;
	bool (*take)(struct options_device *device, const char *value);
};

static const struct suffix disk_suffixes[] = {
	{ "ro", take_ro }, { "direct", take_direct }, { "format=", take_format },
	{ "isolation=", take_isolation }, { "name=", take_name }, { 0 },
};

static const struct suffix net_suffixes[] = {
	{ "mac=", take_mac }, { "isolation=", take_isolation }, { "name=", take_name }, { 0 },
};

static const struct suffix fs_suffixes[] = {
	{ "tag=", take_tag }, { "rw", take_rw }, { "owner=", take_owner },
	{ "isolation=", take_isolation }, { "name=", take_name }, { 0 },
};

static const struct suffix socket_suffixes[] = {
	{ "isolation=", take_isolation }, { "name=", take_name }, { 0 },
};

static const struct suffix *suffix_find(const struct suffix *suffix, const char *text)
{
	for (; suffix->name; suffix++) {
		size_t len = strlen(suffix->name);

		if (!strncmp(suffix->name, text, len) &&
		    (!text[len] || suffix->name[len - 1] == '='))
			return suffix;
	}
	return NULL;
}

/* From the end on; the path is all before, and may have commas of its own. */
static int take_suffixes(struct options_device *device, char *value, const struct suffix *suffixes)
{
	const struct suffix *suffix;
	char *comma;

	while ((comma = strrchr(value, ',')) && (suffix = suffix_find(suffixes, comma + 1))) {
		if (!suffix->take(device, comma + 1 + strlen(suffix->name)))
			return -EINVAL;
		*comma = '\0';
	}
	device->path = value;
	return *value ? 0 : -EINVAL;
}

/* NULL, after a line: there are too many. */
static struct options_device *options_add(struct options *options, const char *option,
					  const char *value, struct options_device device)
{
	if (options->device_count == OPTIONS_DEVICES) {
		options_bad(option, value, "one too many, 24 devices are the most");
		return NULL;
	}
	options->device[options->device_count] = device;
	return &options->device[options->device_count++];
}

static int set_disk(struct options *options, char *value)
{
	struct options_device *device = options_add(options, "disk", value, (struct options_device){
		.type = "blk", .isolation = &vhost_gate,
	});

	if (!device)
		return -EINVAL;
	if (take_suffixes(device, value, disk_suffixes))
		return options_bad("disk", value, "give PATH[,format=raw or qcow2][,ro][,direct]"
				   "[,isolation=grant or shared]");
	if (device->format && device->direct)
		return options_bad("disk", value, "a qcow2 image is not read or written past the page cache");
	return 0;
}

static int set_net(struct options *options, char *value)
{
	struct options_device *device = options_add(options, "net", value, (struct options_device){
		.type = "net", .isolation = &vhost_gate,
	});

	if (!device)
		return -EINVAL;
	if (take_suffixes(device, value, net_suffixes))
		return options_bad("net", value, "give TAP or user[,mac=MAC][,isolation=grant or shared]");
	return 0;
}

static int set_fs(struct options *options, char *value)
{
	struct options_device *device = options_add(options, "fs", value, (struct options_device){
		.type = "fs", .tag = "host", .isolation = &vhost_gate,
	});

	if (!device)
		return -EINVAL;
	if (take_suffixes(device, value, fs_suffixes))
		return options_bad("fs", value,
				   "give DIRECTORY[,tag=TAG][,rw][,owner=UID:GID][,isolation=grant or shared]");
	return 0;
}

static int set_device_socket(struct options *options, char *value)
{
	static const char wanted[] = "give TYPE,PATH or TYPE,PATH,isolation=grant or shared, with a "
				     "TYPE of blk, net, rng, console, fs or vsock";
	struct options_device *device = options_add(options, "device-socket", value,
		(struct options_device){ .listens = true, .isolation = &vhost_gate });
	char *path = strchr(value, ',');

	if (!device)
		return -EINVAL;
	if (!path)
		return options_bad("device-socket", value, wanted);
	if (take_suffixes(device, path + 1, socket_suffixes))
		return options_bad("device-socket", value, wanted);
	*path = '\0';
	device->type = value;
	if (!vhost_type_find(value))
		return options_bad("device-socket", value, wanted);
	return 0;
}

static const struct {
	const char *name;
	int has_value;
	int (*set)(struct options *options, char *value);
} options_table[] = {
	{ "kernel",	required_argument,	set_kernel },
	{ "initrd",	required_argument,	set_initrd },
	{ "append",	required_argument,	set_append },
	{ "mem",	required_argument,	set_mem },
	{ "cpus",	required_argument,	set_cpus },
	{ "serial",	required_argument,	set_serial },
	{ "disk",	required_argument,	set_disk },
	{ "net",	required_argument,	set_net },
	{ "fs",		required_argument,	set_fs },
	{ "device-socket", required_argument,	set_device_socket },
	{ "console",	required_argument,	set_console },
	{ "rng",	no_argument,		set_rng },
	{ "balloon",	required_argument,	set_balloon },
	{ "control",	required_argument,	set_control },
	{ "supervisor",	required_argument,	set_supervisor },
	{ "devices-cgroup", required_argument,	set_devices_cgroup },
	{ "ended",	required_argument,	set_ended },
	{ "device",	required_argument,	set_device },
	{ "name",	required_argument,	set_name },
	{ "uid",	required_argument,	set_uid },
	{ "gid",	required_argument,	set_gid },
	{ "help",	no_argument,		NULL },
};

#define OPTIONS_COUNT	ARRAY_SIZE(options_table)

static int options_check(const struct options *options, int argc, char **argv)
{
	if (optind < argc) {
		log_error("%s: not an option; see --help", argv[optind]);
		return -EINVAL;
	}
	if ((options->uid == (uid_t)-1) != (options->gid == (gid_t)-1)) {
		log_error("--uid and --gid go together");
		return -EINVAL;
	}
	if (options->balloon_size >= options->memory) {
		log_error("--balloon: it is not smaller than --mem");
		return -EINVAL;
	}
	if (!options->kernel) {
		log_error("no kernel; name one by --kernel, as /boot/vmlinuz-*");
		return -EINVAL;
	}
	return 0;
}

/* getopt's own words would start with the program's path, and be two lines with a hint. */
static int options_unknown(int c, char **argv)
{
	if (c == ':')
		log_error("%s: a value is missing; see --help", argv[optind - 1]);
	else
		log_error("%s: not known, or not so; see --help", argv[optind - 1]);
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
		if (c)
			return options_unknown(c, argv);
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
	const char *node = getenv("MOAT_DEVICE");

	*options = (struct options){
		.node = node && *node ? node : OPTIONS_NODE,
		.append = "",
		.memory = OPTIONS_MEMORY,
		.cpus = 1,
		.serial_in = 0,
		.serial_out = 1,
		.console_in = -1,
		.console_out = -1,
		.control = -1,
		.ended = -1,
		.supervisor = -1,
		.devices_cgroup = -1,
		.uid = -1,
		.gid = -1,
	};
	return options_read(options, argc, argv);
}
