// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Starting a machine. Whatever can be refused is refused before there is a process; all that is made
 * belongs to the machine's place or cgroup, so that whoever comes later, after a crash at any line of
 * this, finds it by its name and can take it away.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "include/moat/control.h"
#include "userspace/lib/arguments.h"
#include "userspace/lib/beside.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/fd.h"
#include "userspace/moatd/cgroup.h"
#include "userspace/moatd/disk.h"
#include "userspace/moatd/keeper.h"
#include "userspace/moatd/launch.h"
#include "userspace/moatd/network_lock.h"
#include "userspace/moatd/owner.h"
#include "userspace/moatd/place.h"
#include "userspace/moatd/seed.h"
#include "userspace/moatd/serve.h"
#include "userspace/moatd/why.h"

#define LAUNCH_DESCRIPTORS	48	/* of all devices that a definition can have, and some */
#define LAUNCH_VARIABLES	"nvram"
#define LAUNCH_ANSWER_MS	30000
#define LAUNCH_LOG_MAX		(4 << 20)
#define LAUNCH_FAILED		125

/**
 * struct launch - a start under way
 * @keep: descriptors that the launcher is to have
 */
struct launch {
	const struct keeper_options *options;
	const struct definition *definition;
	const struct network_spec *networks;
	char *why;
	uint32_t uid;
	struct arguments arguments;
	unsigned int count;
	int keep[LAUNCH_DESCRIPTORS];
};

__attribute__((format(printf, 3, 4)))
static int launch_fail(struct launch *launch, int err, const char *format, ...)
{
	va_list args;
	size_t len;

	va_start(args, format);
	vsnprintf(launch->why, KEEPER_WHY, format, args);
	va_end(args);
	len = strlen(launch->why);
	snprintf(launch->why + len, KEEPER_WHY - len, ": %s", strerror(-err));
	return err;
}

/* Takes the descriptor over. Return: it, or a negative errno. */
static int launch_keep(struct launch *launch, int fd)
{
	if (fd < 0)
		return fd;
	if (launch->count == LAUNCH_DESCRIPTORS) {
		close(fd);
		return -EMFILE;
	}
	launch->keep[launch->count++] = fd;
	return fd;
}

static void launch_add(struct launch *launch, const char *option, const char *value)
{
	arguments_add(&launch->arguments, "%s", option);
	arguments_add(&launch->arguments, "%s", value);
}

static void launch_add_fd(struct launch *launch, const char *option, int fd)
{
	arguments_add(&launch->arguments, "%s", option);
	arguments_add(&launch->arguments, "%d", fd);
}

/* What the guest is made of */

static const char *isolation(uint64_t value)
{
	return value == ISOLATION_SHARED ? ",isolation=shared" : "";
}

static int add_file(struct launch *launch, const char *option, const char *path)
{
	int fd = launch_keep(launch, owner_open(launch->definition->owner, path, O_RDONLY));

	if (fd < 0)
		return launch_fail(launch, fd, "boot: %s", path);
	arguments_add(&launch->arguments, "%s", option);
	arguments_add(&launch->arguments, "/proc/self/fd/%d", fd);
	return 0;
}

static void variables_path(const struct keeper_options *options, const char *name, char *ret)
{
	snprintf(ret, PATH_MAX, "%s/" LAUNCH_VARIABLES "/%s.fd", options->state, name);
}

/* What UEFI is to remember; the launcher fills in what an empty file is to have. */
static int add_variables(struct launch *launch)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/" LAUNCH_VARIABLES, launch->options->state);
	if (mkdir(path, 0700) && errno != EEXIST)
		return launch_fail(launch, -errno, "%s", path);
	variables_path(launch->options, launch->definition->name, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	fd = launch_keep(launch, fd < 0 ? -errno : fd);
	if (fd < 0)
		return launch_fail(launch, fd, "%s", path);
	launch_add_fd(launch, "--uefi-vars", fd);
	return 0;
}

static int add_firmware(struct launch *launch)
{
	const struct definition_boot *boot = &launch->definition->boot;
	const bool uefi = boot->firmware == FIRMWARE_UEFI;
	int err = 0;

	launch_add(launch, "--firmware", uefi ? "uefi" : "bios");
	if (*boot->cdrom)
		err = add_file(launch, "--cdrom", boot->cdrom);
	return err || !uefi ? err : add_variables(launch);
}

static int add_boot(struct launch *launch)
{
	const struct definition_boot *boot = &launch->definition->boot;
	int err;

	if (boot->firmware != FIRMWARE_NONE)
		return add_firmware(launch);
	err = add_file(launch, "--kernel", boot->kernel);
	if (!err && *boot->initrd)
		err = add_file(launch, "--initrd", boot->initrd);
	if (!err && *boot->append)
		launch_add(launch, "--append", boot->append);
	return err;
}

/* By its path; or one that moatd keeps, by its name, whose format is then its own. */
static int disk_take(struct launch *launch, const struct definition_disk *disk,
		     enum disk_format *format, int *ret_fd)
{
	const uid_t owner = launch->definition->owner;
	const struct disk_user user = { .uid = owner, .gid = owner_group(owner) };
	int dir, err;

	*format = disk->format == FORMAT_QCOW2 ? DISK_QCOW2 : DISK_RAW;
	if (*disk->path == '/')
		return disk_open_path(disk->path, *format, &user, disk->read_only, ret_fd, launch->why);
	dir = disk_directory(launch->options);
	if (dir < 0)
		return launch_fail(launch, dir, "disks");
	err = disk_open(dir, disk->path, &user, disk->read_only, ret_fd, format, launch->why);
	close(dir);
	return err;
}

static int add_disk(struct launch *launch, const struct definition_disk *disk)
{
	char device[CONTROL_NAME];
	enum disk_format format;
	int err, fd;

	err = disk_take(launch, disk, &format, &fd);
	if (err)
		return err;
	fd = launch_keep(launch, fd);
	if (fd < 0)
		return launch_fail(launch, fd, "disk %s", disk->path);
	arguments_add(&launch->arguments, "--disk");
	definition_disk_device(disk, device);
	arguments_add(&launch->arguments, "/proc/self/fd/%d%s%s%s%s,name=%s", fd,
		      format == DISK_QCOW2 ? ",format=qcow2" : "", disk->read_only ? ",ro" : "",
		      disk->direct ? ",direct" : "", isolation(disk->isolation), device);
	return 0;
}

static int add_disks(struct launch *launch)
{
	int err = 0;

	for (uint64_t i = 0; i < launch->definition->disk_count && !err; i++)
		err = add_disk(launch, &launch->definition->disk[i]);
	return err;
}

/* What cloud-init reads: the last of the disks. */
static int add_seed(struct launch *launch)
{
	const struct definition_seed *from = &launch->definition->seed;
	const char *keys[DEFINITION_KEYS];
	const struct seed_spec seed = {
		.instance = launch->definition->uuid,
		.hostname = *from->hostname ? from->hostname : launch->definition->name,
		.user = *from->user ? from->user : NULL, .keys = keys, .key_count = from->key_count,
	};
	int err, fd;

	if (!*from->hostname && !*from->user)
		return 0;
	for (uint64_t i = 0; i < from->key_count; i++)
		keys[i] = from->key[i].key;
	err = seed_create(&seed, &fd, launch->why);
	if (!err)
		err = launch_keep(launch, fd);
	if (err < 0)
		return err;
	arguments_add(&launch->arguments, "--disk");
	arguments_add(&launch->arguments, "/proc/self/fd/%d,ro", fd);
	return 0;
}

/* Directories are served with their owner's rights, who may have others' there not see them. */
static int add_filesystem(struct launch *launch, const struct definition_filesystem *from)
{
	const uid_t owner = launch->definition->owner;
	int fd = launch_keep(launch, owner_open(owner, from->path, O_RDONLY | O_DIRECTORY));

	if (fd < 0)
		return launch_fail(launch, fd, "filesystem %s", from->path);
	arguments_add(&launch->arguments, "--fs");
	arguments_add(&launch->arguments, "/proc/self/fd/%d,tag=%s%s,owner=%u:%u%s,name=fs-%s", fd,
		      from->tag, from->writable ? ",rw" : "", owner, owner_group(owner),
		      isolation(from->isolation), from->tag);
	return 0;
}

static int add_filesystems(struct launch *launch)
{
	int err = 0;

	for (uint64_t i = 0; i < launch->definition->filesystem_count && !err; i++)
		err = add_filesystem(launch, &launch->definition->filesystem[i]);
	return err;
}

/* Networks */

/* What the machine is called there: names of machines may be none for hosts. */
static void network_host_name(const char *machine, char *name, size_t room)
{
	snprintf(name, room, "%s%s", isalpha((unsigned char)*machine) ? "" : "m-", machine);
	for (char *at = name; *at; at++)
		if (!isalnum((unsigned char)*at))
			*at = '-';
	if (name[strlen(name) - 1] == '-')
		name[strlen(name) - 1] = '0';
}

static void network_mac(const char *text, uint8_t *mac)
{
	struct ether_addr address = { 0 };

	ether_aton_r(text, &address);
	memcpy(mac, address.ether_addr_octet, ETH_ALEN);
}

/* The tap of the machine's i-th network, where it may be who it is and nobody else. */
static int network_join(struct launch *launch, uint64_t i, int *ret_fd)
{
	const struct definition_network *entry = &launch->definition->network[i];
	const struct network_spec *spec = &launch->networks[i];
	char tap[IFNAMSIZ], name[DEFINITION_NAME + 2];
	uint8_t mac[ETH_ALEN];
	uint32_t address = 0;
	int err, server;

	network_mac(entry->mac, mac);
	network_address(entry->address, &address);
	network_host_name(launch->definition->name, name, sizeof(name));
	snprintf(tap, sizeof(tap), "mt%02x%02x%02x%02x%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
	err = network_watch(spec, &server, launch->why);
	if (err >= 0 && spec->mode != NETWORK_BRIDGE)
		err = network_host(spec, mac, name, address, launch->why);
	fd_close(server);
	if (err >= 0)
		err = network_tap(spec, tap, -1, 1, ret_fd, launch->why);
	if (!err && spec->mode != NETWORK_BRIDGE) {
		err = network_guard(spec, tap, mac, address, launch->why);
		if (err)
			close(*ret_fd);
	}
	return err;
}

static int add_network(struct launch *launch, uint64_t i)
{
	const struct definition_network *entry = &launch->definition->network[i];
	int err, fd, lock;

	if (definition_network_is_user(entry)) {
		arguments_add(&launch->arguments, "--net");
		arguments_add(&launch->arguments, "user,mac=%s%s,name=%s", entry->mac,
			      isolation(entry->isolation), entry->mac);
		return 0;
	}
	lock = network_lock(launch->options);
	if (lock < 0)
		return launch_fail(launch, lock, "networks");
	err = network_join(launch, i, &fd);
	close(lock);
	if (!err)
		err = launch_keep(launch, fd);
	if (err < 0)
		return err;
	arguments_add(&launch->arguments, "--net");
	arguments_add(&launch->arguments, "/proc/self/fd/%d,mac=%s%s,name=%s", fd, entry->mac,
		      isolation(entry->isolation), entry->mac);
	return 0;
}

static int add_networks(struct launch *launch)
{
	int err = 0;

	for (uint64_t i = 0; i < launch->definition->network_count && !err; i++)
		err = add_network(launch, i);
	return err;
}

void launch_forget(const struct keeper_options *options, const struct keeper_start *start)
{
	int lock = network_lock(options);
	char why[WHY_SIZE], path[PATH_MAX];
	uint8_t mac[ETH_ALEN];

	variables_path(options, start->definition.name, path);
	unlink(path);
	for (uint64_t i = 0; i < start->definition.network_count; i++) {
		if (start->network[i].mode == NETWORK_BRIDGE ||
		    definition_network_is_user(&start->definition.network[i]))
			continue;
		network_mac(start->definition.network[i].mac, mac);
		network_host_remove(&start->network[i], mac, why);
	}
	fd_close(lock);
}

static void add_machine(struct launch *launch)
{
	const struct definition *definition = launch->definition;

	arguments_add(&launch->arguments, "%s", definition_launcher(definition));
	launch_add(launch, "--name", definition->name);
	launch_add(launch, "--device", launch->options->node);
	arguments_add(&launch->arguments, "--cpus");
	arguments_add(&launch->arguments, "%u", (unsigned int)definition->cpus);
	arguments_add(&launch->arguments, "--mem");
	arguments_add(&launch->arguments, "%lluK", (unsigned long long)definition->memory >> 10);
	arguments_add(&launch->arguments, "--uid");
	arguments_add(&launch->arguments, "%u", launch->uid);
	arguments_add(&launch->arguments, "--gid");
	arguments_add(&launch->arguments, "%u", launch->uid);
	launch_add(launch, "--serial", "served");
	arguments_add(&launch->arguments, "--rng");
	if (definition->balloon)
		launch_add(launch, "--balloon", "0");
}

/* What moatd reaches it by. */
static int add_sockets(struct launch *launch)
{
	const struct keeper_options *options = launch->options;
	const char *name = launch->definition->name;
	const struct {
		const char *option;
		int fd;
	} added[] = {
		{ "--control", place_listen(options, name, PLACE_CONTROL) },
		{ "--supervisor", place_listen(options, name, PLACE_SUPERVISOR) },
		{ "--ended", place_open_ended(options, name) },
		{ "--devices-cgroup", cgroup_open(options->cgroup, name, "devices") },
	};
	int err = 0;

	for (unsigned int i = 0; i < sizeof(added) / sizeof(added[0]); i++) {
		int fd = launch_keep(launch, added[i].fd);

		if (fd < 0 && !err)
			err = launch_fail(launch, fd, "%s", added[i].option + 2);
		launch_add_fd(launch, added[i].option, fd);
	}
	return err;
}

/* The process */

/* What it says; of what it said before, not more than some, and nothing of another owner's machine of that name. */
static int launch_open_log(const struct launch *launch)
{
	const uid_t owner = launch->definition->owner;
	char path[PATH_MAX];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s.log", launch->options->log, launch->definition->name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && (st.st_uid != owner || st.st_size > LAUNCH_LOG_MAX) &&
	    (ftruncate(fd, 0) || fchown(fd, owner, -1))) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static int child_files(const struct launch *launch, int log)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
	    dup2(log, STDERR_FILENO) < 0)
		return -errno;
	for (unsigned int i = 0; i < launch->count; i++)
		if (fcntl(launch->keep[i], F_SETFD, 0))
			return -errno;
	fd_close_but(STDERR_FILENO + 1, launch->keep, launch->count);
	return 0;
}

/* The cgroup comes first: from then on it is found there. */
static _Noreturn void child_run(struct launch *launch, int cgroup, int log)
{
	const char *program = definition_launcher(launch->definition);
	char path[PATH_MAX];
	sigset_t none;

	if (write(cgroup, "0", 1) != 1 || child_files(launch, log))
		_exit(LAUNCH_FAILED);
	prctl(PR_SET_PDEATHSIG, 0);
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!beside_program(program, path))
		execv(path, launch->arguments.value);
	execvp(program, launch->arguments.value);
	dprintf(STDERR_FILENO, "cannot execute %s: %s\n", program, strerror(errno));
	_exit(LAUNCH_FAILED);
}

static int launch_spawn(struct launch *launch)
{
	int cgroup, log, err = launch->arguments.err;
	pid_t pid;

	if (err)
		return launch_fail(launch, err, "the launcher's command line");
	cgroup = cgroup_open(launch->options->cgroup, launch->definition->name, "launcher");
	log = launch_open_log(launch);
	if (cgroup < 0 || log < 0) {
		err = launch_fail(launch, cgroup < 0 ? cgroup : log, "%s", cgroup < 0 ? "cgroup" : "log");
	} else {
		pid = fork();
		if (!pid)
			child_run(launch, cgroup, log);
		if (pid < 0)
			err = launch_fail(launch, -errno, "a process");
	}
	fd_close(cgroup);
	fd_close(log);
	return err;
}

/* The launcher answers when the machine is whole; it hangs up when it was not to be. */
static int launch_wait(struct launch *launch)
{
	const struct control_request request = { .what = CONTROL_INFO };
	struct control_answer answer;
	struct pollfd wait;

	wait.fd = place_connect(launch->options, launch->definition->name, PLACE_CONTROL);
	wait.events = POLLIN;
	if (wait.fd < 0)
		return -ECONNRESET;
	if (send(wait.fd, &request, sizeof(request), MSG_NOSIGNAL) == sizeof(request) &&
	    poll(&wait, 1, LAUNCH_ANSWER_MS) > 0 &&
	    recv(wait.fd, &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer) && !answer.error)
		return wait.fd;
	close(wait.fd);
	return -ECONNRESET;
}

/* Why the launcher gave up, in its own words. */
static int launch_explain(struct launch *launch)
{
	struct control_ended ended;

	if (!place_ended(launch->options, launch->definition->name, &ended) && *ended.text)
		snprintf(launch->why, KEEPER_WHY, "%s", ended.text);
	else
		snprintf(launch->why, KEEPER_WHY, "the launcher did not come up; see its log");
	return -EIO;
}

/* With its place. */
static int launch_in_place(struct launch *launch)
{
	const char *base = launch->options->cgroup, *name = launch->definition->name;
	int err = cgroup_create(base, name);

	if (err)
		return launch_fail(launch, err, "cgroup");
	err = cgroup_limit(base, name, &launch->definition->limits, launch->why);
	if (err)
		return err;
	add_machine(launch);
	err = add_boot(launch);
	if (!err)
		err = add_disks(launch);
	if (!err)
		err = add_seed(launch);
	if (!err)
		err = add_filesystems(launch);
	if (!err)
		err = add_networks(launch);
	if (!err)
		err = add_sockets(launch);
	return err ? err : launch_spawn(launch);
}

/* The place goes last: by it, what is left is found. */
static void launch_undo(struct launch *launch)
{
	const char *name = launch->definition->name;

	if (!cgroup_kill(launch->options->cgroup, name) && !cgroup_remove(launch->options->cgroup, name))
		place_remove(launch->options, name);
}

static void launch_finish(struct launch *launch)
{
	while (launch->count)
		close(launch->keep[--launch->count]);
	arguments_finish(&launch->arguments);
}

int launch_start(const struct keeper_options *options, const struct keeper_start *start, char *why)
{
	struct launch launch = {
		.options = options, .definition = &start->definition, .networks = start->network,
		.why = why,
	};
	int ret = place_create(options, start->definition.name, &launch.uid);

	if (ret)
		return launch_fail(&launch, ret, ret == -EEXIST ? "it has been started" : "its place");
	ret = launch_in_place(&launch);
	launch_finish(&launch);
	if (!ret)
		ret = launch_wait(&launch);
	if (ret == -ECONNRESET)
		ret = launch_explain(&launch);
	if (ret < 0)
		launch_undo(&launch);
	return ret;
}

/* More for a machine that runs */

/* One message there and one back, on a connection of its own. Return: 0, or what went wrong. */
static int launch_talk(struct launch *launch, const char *socket, const void *message, size_t len,
		       int fd, void *ret_answer, size_t answer_len, int *ret_fd)
{
	struct pollfd wait = {
		.fd = place_connect(launch->options, launch->definition->name, socket),
		.events = POLLIN,
	};
	int err = wait.fd < 0 ? wait.fd : fd_send(wait.fd, message, len, fd);

	if (!err && poll(&wait, 1, LAUNCH_ANSWER_MS) != 1)
		err = -ETIMEDOUT;
	if (!err && fd_receive(wait.fd, ret_answer, answer_len, ret_fd) != (ssize_t)answer_len)
		err = -ECONNRESET;
	fd_close(wait.fd);
	return err ? launch_fail(launch, err, "the launcher") : 0;
}

/* The supervisor looks after what serves the device, the launcher gives it to the guest. */
static int attach(struct launch *launch, const struct supervisor_add *add, int fd, const char *name)
{
	struct control_request request = { .what = CONTROL_ATTACH };
	struct control_answer answer = { 0 };
	struct supervisor_added added = { 0 };
	int link = -1, none = -1, err;

	memcpy(request.type, add->type, sizeof(request.type));
	snprintf(request.name, sizeof(request.name), "%s", name);
	err = launch_talk(launch, PLACE_SUPERVISOR, add, sizeof(*add), fd, &added, sizeof(added), &link);
	if (!err)
		err = added.error;
	if (!err)
		err = launch_talk(launch, PLACE_CONTROL, &request, sizeof(request), link, &answer,
				  sizeof(answer), &none);
	if (!err)
		err = answer.error;
	fd_close(link);
	fd_close(none);
	return err && !*launch->why ? launch_fail(launch, err, "%s", name) : err;
}

static int attach_disk(struct launch *launch)
{
	const struct definition_disk *disk = &launch->definition->disk[0];
	struct supervisor_add add = { .type = "blk" };
	char name[CONTROL_NAME];
	enum disk_format format;
	int fd, err = disk_take(launch, disk, &format, &fd);

	if (err)
		return err;
	add.flags = (disk->read_only ? SUPERVISOR_ADD_READ_ONLY : 0) |
		    (disk->direct ? SUPERVISOR_ADD_DIRECT : 0) |
		    (format == DISK_QCOW2 ? SUPERVISOR_ADD_QCOW2 : 0);
	definition_disk_device(disk, name);
	err = attach(launch, &add, fd, name);
	close(fd);
	return err;
}

static int attach_network(struct launch *launch)
{
	const struct definition_network *network = &launch->definition->network[0];
	struct supervisor_add add = { .type = "net" };
	int err, fd, lock = network_lock(launch->options);

	if (lock < 0)
		return launch_fail(launch, lock, "networks");
	err = network_join(launch, 0, &fd);
	close(lock);
	if (err)
		return err;
	snprintf(add.mac, sizeof(add.mac), "%s", network->mac);
	err = attach(launch, &add, fd, network->mac);
	close(fd);
	return err;
}

int launch_attach(const struct keeper_options *options, const struct keeper_start *start, char *why)
{
	struct launch launch = {
		.options = options, .definition = &start->definition, .networks = start->network,
		.why = why,
	};
	int err = 0;

	if (start->definition.disk_count)
		err = attach_disk(&launch);
	if (!err && start->definition.network_count)
		err = attach_network(&launch);
	return err;
}
