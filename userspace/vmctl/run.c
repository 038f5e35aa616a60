// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "userspace/lib/fd.h"
#include "userspace/lib/lock.h"
#include "userspace/lib/log.h"
#include "userspace/lib/parse.h"
#include "userspace/lib/qcow2.h"
#include "userspace/vmctl/console.h"
#include "userspace/vmctl/guest.h"
#include "userspace/vmctl/kernel.h"
#include "userspace/vmctl/launch.h"
#include "userspace/vmctl/run.h"
#include "userspace/vmctl/session.h"

#define RUN_NODE		"/dev/moat"
#define RUN_DEVICES_MAX		24
#define RUN_ENV_MAX		256
#define RUN_MOUNTS_MAX		24
#define RUN_ROOT_TAG		"root"
#define RUN_SECTOR		512
#define RUN_MEMORY_MIN		(16ULL << 20)
#define RUN_MEMORY_MAX		(1ULL << 40)
#define RUN_CPUS_MAX		255

/* A panic ends the machine at once, rather than have it hang. */
#define RUN_APPEND_CONSOLE	"console=ttyS0 panic=-1"
#define RUN_APPEND_COMMAND	"console=ttyS0 quiet panic=-1 rdinit=/init"

const char run_help[] =
"Usage: vmctl run [OPTION]... [-- COMMAND [ARG]...]\n"
"Start a machine and stay until it ends. With COMMAND: run that program of this host's in a machine of\n"
"its own, with its libraries, this directory's path, and a busybox, or (--root) with all that there is\n"
"here; without: boot a kernel with its serial console here. There, Ctrl-A x ends the machine and Ctrl-A a\n"
"sends Ctrl-A.\n"
"\n"
"  --kernel FILE     kernel to boot: a bzImage, or without a command also an ELF file for PVH or a\n"
"                    multiboot kernel; else the host's own, $MOAT_KERNEL, or the lab's\n"
"  --initrd FILE     initial RAM disk; only without COMMAND\n"
"  --root            COMMAND sees this host's files, and can change none; /tmp, /var/tmp and /run are\n"
"                    its own, and gone with it. What is mounted below / is not there\n"
"  --rw DIRECTORY    --root, but that what is in there can be changed; may be repeated\n"
"  --tmpfs DIRECTORY  --root, but that this one is empty, and gone afterwards; may be repeated\n"
"  --fs DIRECTORY[,tag=TAG][,rw][,isolation=grant|shared]\n"
"                    a directory that the guest can mount: mount -t virtiofs TAG; \"host\" by default\n"
"  --disk FILE[,format=raw|qcow2][,ro][,direct][,isolation=grant|shared]\n"
"                    a disk, /dev/vda and so on in the guest; may be repeated. It is a process of its\n"
"                    own, which sees what is in its requests (grant, the default), or all of the guest's\n"
"                    memory (shared), and is started again where it ends. direct: past the page cache.\n"
"                    qcow2: by qemu-storage-daemon. What is not said to be so is raw\n"
"  --net TAP|user[,mac=MAC][,isolation=grant|shared]\n"
"                    a network device on a tap, by its name, as such a process; user: connections of the\n"
"                    guest's become this user's, by passt; may be repeated\n"
"  --device-socket TYPE,SOCKET[,isolation=grant|shared]\n"
"                    a device that the vhost-user back end listening there serves.\n"
"                    TYPE: blk, net, rng, console, fs, vsock; may be repeated\n"
"  --mem SIZE        memory, with a suffix K, M or G; 256M by default\n"
"  --balloon SIZE    a balloon: the guest is to do without so much of its memory, or 0; and what it has\n"
"                    free goes back to this host by itself\n"
"  --cpus N          CPUs, 1 by default\n"
"  --append TEXT     more for the kernel's command line\n"
"  --env NAME[=VAL]  a variable for COMMAND; may be repeated. TERM and LANG are passed anyway\n"
"  --device NODE     node to use; $MOAT_DEVICE or /dev/moat by default\n"
"  --uid N, --gid N  whom the machine and its devices run as, once all is open; root's to say\n"
"  --help            this text\n"
"\n"
"Exit status: the guest's or COMMAND's; 125 when vmctl failed, 126 when COMMAND cannot be\n"
"executed, 127 when it is not found.\n";

/* An option of the launcher's, which judges what it says. */
struct run_device {
	const char *option;
	char *value;
};

#define RUN_TYPE_MAX		16

struct run_options {
	const char *kernel;
	const char *initrd;
	const char *append;
	const char *node;
	const char *uid;
	const char *gid;
	uint64_t memory;
	uint64_t cpus;
	struct run_device device[RUN_DEVICES_MAX];
	unsigned int devices;
	char types[RUN_DEVICES_MAX * RUN_TYPE_MAX];	/* of these, each with a comma after it */
	bool root;
	char *mounts[RUN_MOUNTS_MAX];	/* as RUN_COMMAND_FILE has them */
	unsigned int mount_count;
	char *env[RUN_ENV_MAX];
	unsigned int env_count;
	char **command;
};

/* Options */

static int run_bad(const char *option, const char *value, const char *wanted)
{
	log_error("--%s %s: %s", option, value, wanted);
	return -EINVAL;
}

static int set_kernel(struct run_options *options, char *value)
{
	options->kernel = value;
	return 0;
}

static int set_initrd(struct run_options *options, char *value)
{
	options->initrd = value;
	return 0;
}

static int set_append(struct run_options *options, char *value)
{
	options->append = value;
	return 0;
}

static int set_device(struct run_options *options, char *value)
{
	options->node = value;
	return 0;
}

static int set_uid(struct run_options *options, char *value)
{
	options->uid = value;
	return 0;
}

static int set_gid(struct run_options *options, char *value)
{
	options->gid = value;
	return 0;
}

static int set_memory(struct run_options *options, char *value)
{
	if (parse_size(value, RUN_MEMORY_MIN, RUN_MEMORY_MAX, &options->memory) ||
	    options->memory % 4096)
		return run_bad("mem", value, "give a size from 16M to 1024G, as 512M or 2G");
	return 0;
}

static int set_cpus(struct run_options *options, char *value)
{
	if (parse_uint(value, 1, RUN_CPUS_MAX, &options->cpus))
		return run_bad("cpus", value, "give a number from 1 to 255");
	return 0;
}

static int run_add_device(struct run_options *options, const char *option, char *value,
			  const char *type)
{
	const size_t at = strlen(options->types);

	if (options->devices == RUN_DEVICES_MAX)
		return run_bad(option, value, "one too many, 24 devices are the most");
	options->device[options->devices++] = (struct run_device){ option, value };
	snprintf(options->types + at, RUN_TYPE_MAX, "%.*s,", RUN_TYPE_MAX - 2, type);
	return 0;
}

static int set_balloon(struct run_options *options, char *value)
{
	return run_add_device(options, "balloon", value, "balloon");
}

static int set_disk(struct run_options *options, char *value)
{
	return run_add_device(options, "disk", value, "blk");
}

static int set_net(struct run_options *options, char *value)
{
	return run_add_device(options, "net", value, "net");
}

static int set_fs(struct run_options *options, char *value)
{
	return run_add_device(options, "fs", value, "fs");
}

/* The root is a device as others are, once. */
static int set_root(struct run_options *options, char *value)
{
	static char root[] = "/,tag=" RUN_ROOT_TAG;

	(void)value;
	if (options->root)
		return 0;
	options->root = true;
	return set_fs(options, root);
}

/* Something that is mounted in there: kind and text are RUN_COMMAND_FILE's. */
static int run_add_mount(struct run_options *options, const char *option, char kind,
			 const char *text)
{
	int err = set_root(options, NULL);

	if (err)
		return err;
	if (options->mount_count == RUN_MOUNTS_MAX)
		return run_bad(option, text, "one too many, 24 is the most");
	if (asprintf(&options->mounts[options->mount_count], "%c%s", kind, text) < 0)
		return -ENOMEM;
	options->mount_count++;
	return 0;
}

/* Without links, since these would be looked up in the guest. NULL: there is none such, which is said. */
static char *run_directory(const char *option, const char *value)
{
	char *real = realpath(value, NULL);
	struct stat st;

	if (real && !stat(real, &st) && S_ISDIR(st.st_mode))
		return real;
	run_bad(option, value, real ? "it is no directory" : strerror(errno));
	free(real);
	return NULL;
}

static int set_rw(struct run_options *options, char *value)
{
	char *real = run_directory("rw", value), *device, *mount;
	const unsigned int number = options->mount_count;
	int err;

	if (!real)
		return -EINVAL;
	if (asprintf(&device, "%s,tag=rw%u,rw", real, number) < 0 ||
	    asprintf(&mount, "rw%u %s", number, real) < 0)
		return -ENOMEM;
	free(real);
	err = run_add_mount(options, "rw", 'f', mount);
	free(mount);
	return err ? err : set_fs(options, device);
}

static int set_tmpfs(struct run_options *options, char *value)
{
	char *real = run_directory("tmpfs", value);
	int err;

	if (!real)
		return -EINVAL;
	err = run_add_mount(options, "tmpfs", 'y', real);
	free(real);
	return err;
}

static int set_device_socket(struct run_options *options, char *value)
{
	char type[RUN_TYPE_MAX] = "";

	strncat(type, value, strcspn(value, ",") < RUN_TYPE_MAX ? strcspn(value, ",") : 0);
	return run_add_device(options, "device-socket", value, type);
}

static int set_env(struct run_options *options, char *value)
{
	if (!*value || *value == '=')
		return run_bad("env", value, "give NAME=VALUE, or NAME to pass it as it is here");
	if (options->env_count == RUN_ENV_MAX)
		return run_bad("env", value, "one too many, 256 is the most");
	options->env[options->env_count++] = value;
	return 0;
}

static const struct {
	const char *name;
	int has_value;
	int (*set)(struct run_options *options, char *value);
} run_table[] = {
	{ "kernel",	required_argument,	set_kernel },
	{ "initrd",	required_argument,	set_initrd },
	{ "disk",	required_argument,	set_disk },
	{ "net",	required_argument,	set_net },
	{ "root",	no_argument,		set_root },
	{ "rw",		required_argument,	set_rw },
	{ "tmpfs",	required_argument,	set_tmpfs },
	{ "fs",		required_argument,	set_fs },
	{ "device-socket", required_argument,	set_device_socket },
	{ "mem",	required_argument,	set_memory },
	{ "balloon",	required_argument,	set_balloon },
	{ "cpus",	required_argument,	set_cpus },
	{ "append",	required_argument,	set_append },
	{ "env",	required_argument,	set_env },
	{ "device",	required_argument,	set_device },
	{ "uid",	required_argument,	set_uid },
	{ "gid",	required_argument,	set_gid },
	{ "help",	no_argument,		NULL },
};

#define RUN_OPTIONS	(sizeof(run_table) / sizeof(run_table[0]))

/* What comes after the options must have "--" before it, so that a mistyped one is no command. */
static int run_take_command(struct run_options *options, int argc, char **argv)
{
	bool dashes = optind > 1 && !strcmp(argv[optind - 1], "--");

	if (optind < argc && !dashes) {
		log_error("%s: not an option; a command comes after --, see vmctl run --help",
			  argv[optind]);
		return -EINVAL;
	}
	if (optind == argc && dashes) {
		log_error("no command after --");
		return -EINVAL;
	}
	options->command = optind < argc ? argv + optind : NULL;
	if (options->root && !options->command) {
		log_error("--root, --rw and --tmpfs are for a command: give one after --");
		return -EINVAL;
	}
	if (options->command && options->initrd) {
		log_error("--initrd: a command brings its own; leave one of them out");
		return -EINVAL;
	}
	return 0;
}

/* 0; 1: only help was wanted; a negative errno after a line. */
static int run_parse(struct run_options *options, int argc, char **argv)
{
	struct option known[RUN_OPTIONS + 1] = { 0 };
	int c, index = 0, err;

	for (size_t i = 0; i < RUN_OPTIONS; i++)
		known[i] = (struct option){
			.name = run_table[i].name, .has_arg = run_table[i].has_value,
		};
	while ((c = getopt_long(argc, argv, "+:", known, &index)) != -1) {
		if (c) {
			log_error("%s: %s; see vmctl run --help", argv[optind - 1],
				  c == ':' ? "a value is missing" : "not an option, or not so");
			return -EINVAL;
		}
		if (!run_table[index].set) {
			fputs(run_help, stdout);
			return 1;
		}
		err = run_table[index].set(options, optarg);
		if (err)
			return err;
	}
	return run_take_command(options, argc, argv);
}

/* What the machine is made of */

static int run_check_node(const char *node)
{
	int fd = open(node, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EACCES)
		log_error("cannot open %s: %s (be root, or of its group)", node, strerror(errno));
	else
		log_error("cannot open %s: %s (is moat.ko loaded? insmod moat.ko)", node,
			  strerror(errno));
	return -EIO;
}

static int run_disk_size(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, ret) ? -errno : 0;
	*ret = st.st_size;
	return S_ISREG(st.st_mode) ? 0 : -ENOTBLK;
}

static int run_check_raw(const char *path, uint64_t size)
{
	if (size && size % RUN_SECTOR == 0)
		return 0;
	log_error("disk %s has %llu bytes, not whole sectors: truncate -s %%512 helps", path,
		  (unsigned long long)size);
	return -EINVAL;
}

static int run_check_qcow2(const char *path, int fd)
{
	struct qcow2 qcow2;
	const char *why;
	int err = qcow2_read(fd, &qcow2, &why);

	if (err)
		log_error("disk %s: %s", path, why);
	return err;
}

static int run_check_disk_file(const char *path, bool read_only, bool is_qcow2, int fd)
{
	uint64_t size;
	int err = run_disk_size(fd, &size);

	if (err)
		log_error("disk %s is neither a file nor a block device", path);
	else
		err = is_qcow2 ? run_check_qcow2(path, fd) : run_check_raw(path, size);
	if (!err && lock_take(fd, read_only)) {
		err = -EBUSY;
		log_error("disk %s is in use by another machine: end that, or give ,ro to both",
			  path);
	}
	return err;
}

/* A disk's suffixes, which are the launcher's to judge, are off its path from here on. */
static void run_disk_suffixes(char *path, bool *ret_read_only, bool *ret_qcow2)
{
	char *comma;

	while ((comma = strrchr(path, ','))) {
		if (!strcmp(comma, ",ro"))
			*ret_read_only = true;
		else if (!strcmp(comma, ",format=qcow2"))
			*ret_qcow2 = true;
		else if (strcmp(comma, ",direct") && strncmp(comma, ",isolation=", 11) &&
			 strncmp(comma, ",format=", 8))
			break;
		*comma = '\0';
	}
}

/*
 * What can be said before anything is started. Who serves the disk opens it by its path, and locks it:
 * moat-blk tells by that lock whether the I/O of one that was killed is over.
 */
static int run_check_disk(const char *value)
{
	char path[PATH_MAX];
	bool read_only = false, is_qcow2 = false;
	int err, fd;

	snprintf(path, sizeof(path), "%s", value);
	run_disk_suffixes(path, &read_only, &is_qcow2);
	fd = fd_open(path, read_only ? O_RDONLY : O_RDWR);
	if (fd < 0) {
		log_error("cannot open disk %s: %s", path, strerror(-fd));
		return fd;
	}
	err = run_check_disk_file(path, read_only, is_qcow2, fd);
	close(fd);
	return err;
}

static int run_check_disks(const struct run_options *options)
{
	int err = 0;

	for (unsigned int i = 0; i < options->devices && !err; i++)
		if (!strcmp(options->device[i].option, "disk"))
			err = run_check_disk(options->device[i].value);
	return err;
}

static void run_add_file(struct launch *launch, const char *option, int fd)
{
	launch_add(launch, "--%s", option);
	launch_add(launch, "/proc/self/fd/%d", fd);
	launch_keep(launch, fd);
}

static int run_add_initrd(struct launch *launch, const struct run_options *options)
{
	int fd;

	if (!options->initrd)
		return 0;
	fd = fd_open(options->initrd, O_RDONLY);
	if (fd < 0) {
		log_error("cannot open the initial RAM disk %s: %s", options->initrd,
			  strerror(-fd));
		return fd;
	}
	run_add_file(launch, "initrd", fd);
	return 0;
}

static int run_add_guest(struct launch *launch, const struct run_options *options,
			 const struct kernel *kernel)
{
	struct guest guest = {
		.kernel = kernel, .argv = options->command, .env = (char **)options->env,
		.env_count = options->env_count, .types = options->types,
		.root = options->root ? RUN_ROOT_TAG : NULL, .mounts = (char **)options->mounts,
		.mount_count = options->mount_count,
		.terminals = session_terminals(),
	};
	int fd = guest_pack(&guest);

	if (fd < 0)
		return fd;
	run_add_file(launch, "initrd", fd);
	return 0;
}

/* Nothing, where there is no value. */
static void run_add_value(struct launch *launch, const char *option, const char *value)
{
	if (!value)
		return;
	launch_add(launch, "--%s", option);
	launch_add(launch, "%s", value);
}

static void run_add_machine(struct launch *launch, const struct run_options *options)
{
	run_add_value(launch, "device", options->node);
	run_add_value(launch, "uid", options->uid);
	run_add_value(launch, "gid", options->gid);
	launch_add(launch, "--mem");
	launch_add(launch, "%lluK", (unsigned long long)(options->memory >> 10));
	launch_add(launch, "--cpus");
	launch_add(launch, "%llu", (unsigned long long)options->cpus);
	launch_add(launch, "--append");
	launch_add(launch, "%s%s%s", options->command ? RUN_APPEND_COMMAND : RUN_APPEND_CONSOLE,
		   *options->append ? " " : "", options->append);
	launch_add(launch, "--rng");
	for (unsigned int i = 0; i < options->devices; i++)
		run_add_value(launch, options->device[i].option, options->device[i].value);
}

static int run_status(int err)
{
	switch (err) {
	case -ENOENT:
		return STATUS_NOT_FOUND;
	case -EACCES:
		return STATUS_CANNOT_EXECUTE;
	}
	return err < 0 ? STATUS_FAILED : err;
}

static int run_machine(const struct run_options *options)
{
	struct launch launch;
	struct kernel kernel;
	int err;

	if (run_check_node(options->node) || run_check_disks(options) ||
	    kernel_open(options->kernel, &kernel))
		return STATUS_FAILED;
	launch_init(&launch);
	run_add_machine(&launch, options);
	if (options->command) {
		err = run_add_guest(&launch, options, &kernel);
		if (err)
			return run_status(err);
	} else if (run_add_initrd(&launch, options)) {
		return STATUS_FAILED;
	}
	run_add_file(&launch, "kernel", kernel.fd);
	err = options->command ? session_run(&launch) : console_run(&launch);
	return err < 0 ? STATUS_FAILED : err;
}

int run_main(int argc, char **argv)
{
	const char *node = getenv("MOAT_DEVICE");
	struct run_options options = {
		.append = "",
		.node = node && *node ? node : RUN_NODE,
		.memory = 256 << 20,
		.cpus = 1,
	};
	int err = run_parse(&options, argc, argv);

	if (err)
		return err < 0 ? STATUS_FAILED : 0;
	return run_machine(&options);
}
