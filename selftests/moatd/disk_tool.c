// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What moatd does with disks, by hand: the first argument is a command, the second the directory or path.
 * Exit status: 0, or 1 and a line.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "userspace/lib/parse.h"
#include "userspace/moatd/disk.h"
#include "userspace/moatd/seed.h"

/* What a command that is run finds the disk under. */
#define OPEN_FD		9

static char why[DISK_WHY] = "usage";
static int dir = -1;

static enum disk_format format_of(const char *text)
{
	return strcmp(text, "qcow2") ? DISK_RAW : DISK_QCOW2;
}

static uint64_t number(const char *text)
{
	uint64_t value = 0;

	return parse_size(text, 0, UINT64_MAX, &value) ? UINT64_MAX : value;
}

static void tell(void *context, unsigned int hundredths)
{
	*(unsigned int *)context = hundredths;
}

/* DIR NAME FORMAT SIZE OWNER [FROM FROM_FORMAT [reflink]] */
static int do_create(int argc, char **argv)
{
	unsigned int progress = 0;
	struct disk_spec spec = {
		.name = argv[0], .format = format_of(argv[1]), .size = number(argv[2]),
		.owner = number(argv[3]), .from = -1, .progress = tell, .context = &progress,
	};
	int err;

	if (argc > 5) {
		spec.from = open(argv[4], O_RDONLY | O_CLOEXEC);
		spec.from_format = format_of(argv[5]);
		spec.reflink = argc > 6;
		if (spec.from < 0)
			return -errno;
	}
	err = disk_create(dir, &spec, why);
	printf("progress %u\n", progress);
	return err;
}

static int print_disk(void *context, const struct disk_info *info)
{
	(void)context;
	printf("%s %s %" PRIu64 " %" PRIu64 " %u %s %u\n", info->name, info->format ? "qcow2" : "raw",
	       info->size, info->allocated, info->owner, info->in_use ? "used" : "free", info->snapshots);
	return 0;
}

static int do_list(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return disk_list(dir, print_disk, NULL, why);
}

/* DIR NAME SIZE [shrink] */
static int do_resize(int argc, char **argv)
{
	return disk_resize(dir, argv[0], number(argv[1]), argc > 2, why);
}

static int do_delete(int argc, char **argv)
{
	(void)argc;
	return disk_delete(dir, argv[0], why);
}

static int do_sweep(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return disk_sweep(dir, why);
}

/* DIR NAME SNAPSHOT */
static int do_snapshot(int argc, char **argv)
{
	const int ret = disk_snapshot_create(dir, argv[0], argv[1], why);

	(void)argc;
	if (ret == 1)
		puts("a copy");
	return ret < 0 ? ret : 0;
}

static int do_unsnapshot(int argc, char **argv)
{
	(void)argc;
	return disk_snapshot_delete(dir, argv[0], argv[1], why);
}

static int do_revert(int argc, char **argv)
{
	(void)argc;
	return disk_snapshot_revert(dir, argv[0], argv[1], why);
}

static int print_snapshot(void *context, const struct disk_snapshot *snapshot)
{
	(void)context;
	printf("%s %" PRIu64 " %d\n", snapshot->name, snapshot->size, snapshot->seconds > 1000000000);
	return 0;
}

static int do_snapshots(int argc, char **argv)
{
	(void)argc;
	return disk_snapshot_list(dir, argv[0], print_snapshot, NULL, why);
}

static int run_with(int fd, int argc, char **argv)
{
	if (!argc)
		return 0;
	if (dup2(fd, OPEN_FD) < 0)
		return -errno;
	execvp(argv[0], argv);
	return -errno;
}

/* DIR NAME UID GID ro|rw [COMMAND...] */
static int do_open(int argc, char **argv)
{
	const struct disk_user user = { .uid = number(argv[1]), .gid = number(argv[2]) };
	enum disk_format format;
	int fd, err = disk_open(dir, argv[0], &user, !strcmp(argv[3], "ro"), &fd, &format, why);

	return err ? err : run_with(fd, argc - 4, argv + 4);
}

/* PATH FORMAT UID GID ro|rw [COMMAND...] */
static int do_open_path(int argc, char **argv)
{
	const struct disk_user user = { .uid = number(argv[2]), .gid = number(argv[3]) };
	int fd, err = disk_open_path(argv[0], format_of(argv[1]), &user, !strcmp(argv[4], "ro"), &fd, why);

	return err ? err : run_with(fd, argc - 5, argv + 5);
}

/* HOST USER PASSWORD ADDRESS [KEY...], to standard output; "" where there is none */
static int do_seed(int argc, char **argv)
{
	const struct seed_network network = {
		.mac = "02:00:00:00:00:01", .address = argv[3], .gateway = "192.0.2.1",
		.nameserver = "192.0.2.2",
	};
	const struct seed_spec spec = {
		.hostname = argv[0], .user = argv[1], .password_hash = *argv[2] ? argv[2] : NULL,
		.network = *argv[3] ? &network : NULL,
		.keys = (const char *const *)argv + 4, .key_count = argc - 4,
	};
	off_t at = 0;
	int fd, err = seed_create(&spec, &fd, why);

	if (err)
		return err;
	while ((err = sendfile(STDOUT_FILENO, fd, &at, 1 << 20)) > 0)
		;
	return err ? -errno : 0;
}

static const struct {
	const char *name;
	int least;
	bool directory;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "create", 4, true, do_create },
	{ "list", 0, true, do_list },
	{ "resize", 2, true, do_resize },
	{ "delete", 1, true, do_delete },
	{ "sweep", 0, true, do_sweep },
	{ "snapshot", 2, true, do_snapshot },
	{ "unsnapshot", 2, true, do_unsnapshot },
	{ "revert", 2, true, do_revert },
	{ "snapshots", 1, true, do_snapshots },
	{ "open", 4, true, do_open },
	{ "open-path", 5, false, do_open_path },
	{ "seed", 4, false, do_seed },
};

static int run(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (argc < 2 || strcmp(commands[i].name, argv[1]))
			continue;
		argc -= 2 + commands[i].directory;
		if (argc < commands[i].least)
			return -EINVAL;
		if (commands[i].directory)
			dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return commands[i].run(argc, argv + 2 + commands[i].directory);
	}
	return -EINVAL;
}

int main(int argc, char **argv)
{
	const int err = run(argc, argv);

	if (!err)
		return 0;
	fprintf(stderr, "disk_tool: %s (%s)\n", why, strerror(-err));
	return 1;
}
