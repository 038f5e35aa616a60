// SPDX-License-Identifier: MIT OR GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/moatd/cgroup.h"
#include "userspace/moatd/definition.h"
#include "userspace/moatd/keeper.h"

#define CGROUP_PERIOD_US	100000
#define CGROUP_WEIGHT		100	/* what a group has by itself */
#define CGROUP_WEIGHT_MAX	10000
#define CGROUP_BFQ_MAX		1000
#define CGROUP_POLL_MS		20
#define CGROUP_KILL_MS		10000

static const char *const cgroup_mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
static const char *const cgroup_parts[] = { "/launcher", "/devices", "" };

static int file_write(const char *path, const char *text)
{
	int err, fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	err = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return err;
}

__attribute__((format(printf, 4, 5)))
static int group_write(const char *base, const char *name, const char *file, const char *format, ...)
{
	char path[PATH_MAX], text[128];
	va_list args;

	snprintf(path, sizeof(path), "%s/%s/%s", base, name, file);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return file_write(path, text);
}

/* What the host does not have, is missed only when a limit is asked for. */
static void group_enable(const char *path)
{
	static const char *const controllers[] = { "+cpu", "+memory", "+io", "+cpuset", "+pids" };
	char file[PATH_MAX + 32];

	snprintf(file, sizeof(file), "%s/cgroup.subtree_control", path);
	for (unsigned int i = 0; i < ARRAY_SIZE(controllers); i++)
		file_write(file, controllers[i]);
}

int cgroup_find(char *ret, size_t room)
{
	struct statfs fs;

	for (unsigned int i = 0; i < ARRAY_SIZE(cgroup_mounts); i++) {
		if (statfs(cgroup_mounts[i], &fs) || fs.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		snprintf(ret, room, "%s/moat", cgroup_mounts[i]);
		group_enable(cgroup_mounts[i]);
		if (mkdir(ret, 0755) && errno != EEXIST)
			return -errno;
		group_enable(ret);
		return 0;
	}
	return -ENOENT;
}

int cgroup_create(const char *base, const char *name)
{
	char path[PATH_MAX];

	for (int i = ARRAY_SIZE(cgroup_parts) - 1; i >= 0; i--) {
		snprintf(path, sizeof(path), "%s/%s%s", base, name, cgroup_parts[i]);
		if (mkdir(path, 0755)) {
			const int err = -errno;

			if (*cgroup_parts[i])
				cgroup_remove(base, name);
			return err;
		}
		if (!*cgroup_parts[i])
			group_enable(path);
	}
	return 0;
}

/* Numbers of 0: back to what the kernel has by itself, where that is there at all. */
static int limit_number(const char *base, const char *name, const char *file, uint64_t value,
			const char *otherwise)
{
	if (value)
		return group_write(base, name, file, "%llu", (unsigned long long)value);
	group_write(base, name, file, "%s", otherwise);
	return 0;
}

static int limit_cap(const char *base, const char *name, uint64_t percent)
{
	if (percent)
		return group_write(base, name, "cpu.max", "%llu %u",
				   (unsigned long long)percent * (CGROUP_PERIOD_US / 100),
				   CGROUP_PERIOD_US);
	group_write(base, name, "cpu.max", "max %u", CGROUP_PERIOD_US);
	return 0;
}

static int limit_pin(const char *base, const char *name, const char *pin)
{
	int err = group_write(base, name, "cpuset.cpus", "%s\n", pin);

	return *pin ? err : 0;
}

static int limit_failed(char *why, const char *what, int err)
{
	snprintf(why, KEEPER_WHY, "limits: %s: %s", what,
		 err == -ENOENT ? "this host has no controller for it" : strerror(-err));
	return err;
}

/* io.weight is of the cost model (iocost); where BFQ shares a disk it has a file of its own, up to 1000. */
static int limit_io(const char *base, const char *name, uint64_t weight)
{
	const uint64_t low = weight < CGROUP_WEIGHT ? weight : CGROUP_WEIGHT;
	const uint64_t bfq = low + (weight - low) * (CGROUP_BFQ_MAX - CGROUP_WEIGHT) /
			     (CGROUP_WEIGHT_MAX - CGROUP_WEIGHT);
	int err = limit_number(base, name, "io.weight", weight, "100");
	int other = limit_number(base, name, "io.bfq.weight", bfq, "100");

	/* One of them does. */
	return err == -ENOENT ? other : other == -ENOENT ? err : err ? err : other;
}

int cgroup_limit(const char *base, const char *name, const struct definition_limits *limits,
		 char *why)
{
	int err = limit_number(base, name, "cpu.weight", limits->cpu_weight, "100");

	if (err)
		return limit_failed(why, "cpu-weight", err);
	err = limit_cap(base, name, limits->cpu_cap);
	if (err)
		return limit_failed(why, "cpu-cap", err);
	err = limit_pin(base, name, limits->pin);
	if (err)
		return limit_failed(why, "pin", err);
	err = limit_number(base, name, "memory.max", limits->memory, "max");
	if (err)
		return limit_failed(why, "memory", err);
	err = limit_io(base, name, limits->io_weight);
	return err ? limit_failed(why, "io-weight", err) : 0;
}

int cgroup_open(const char *base, const char *name, const char *part)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s/cgroup.procs", base, name, part);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The number behind a word of a file of lines "word number"; 0: it is not there. */
static uint64_t group_read(const char *base, const char *name, const char *file, const char *word)
{
	char path[PATH_MAX], line[256];
	const size_t len = strlen(word);
	uint64_t value = 0;
	FILE *from;

	snprintf(path, sizeof(path), "%s/%s/%s", base, name, file);
	from = fopen(path, "re");
	if (!from)
		return 0;
	while (fgets(line, sizeof(line), from))
		if (!strncmp(line, word, len) && (!len || line[len] == ' '))
			value = strtoull(line + len, NULL, 10);
	fclose(from);
	return value;
}

void cgroup_wait(const char *base, const char *name, int ms)
{
	for (int waited = 0; waited < ms; waited += CGROUP_POLL_MS) {
		if (!group_read(base, name, "cgroup.events", "populated"))
			return;
		poll(NULL, 0, CGROUP_POLL_MS);
	}
}

int cgroup_kill(const char *base, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	if (access(path, F_OK))
		return 0;
	for (int waited = 0; waited < CGROUP_KILL_MS; waited += CGROUP_POLL_MS) {
		int err = group_write(base, name, "cgroup.kill", "1");

		if (err)
			return err;
		if (!group_read(base, name, "cgroup.events", "populated"))
			return 0;
		poll(NULL, 0, CGROUP_POLL_MS);
	}
	return -ETIMEDOUT;
}

int cgroup_remove(const char *base, const char *name)
{
	char path[PATH_MAX];

	for (unsigned int i = 0; i < ARRAY_SIZE(cgroup_parts); i++) {
		snprintf(path, sizeof(path), "%s/%s%s", base, name, cgroup_parts[i]);
		if (rmdir(path) && errno != ENOENT)
			return -errno;
	}
	return 0;
}

/* Of all devices: lines "major:minor rbytes=N wbytes=N ...". */
static void usage_io(const char *base, const char *name, struct keeper_usage *usage)
{
	char path[PATH_MAX], line[512];
	FILE *from;

	snprintf(path, sizeof(path), "%s/%s/io.stat", base, name);
	from = fopen(path, "re");
	if (!from)
		return;
	while (fgets(line, sizeof(line), from)) {
		const char *read = strstr(line, "rbytes="), *written = strstr(line, "wbytes=");

		if (read)
			usage->read_bytes += strtoull(read + strlen("rbytes="), NULL, 10);
		if (written)
			usage->write_bytes += strtoull(written + strlen("wbytes="), NULL, 10);
	}
	fclose(from);
}

int cgroup_usage(const char *base, const char *name, struct keeper_usage *ret)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	if (access(path, F_OK))
		return -errno;
	*ret = (struct keeper_usage){
		.cpu_usec = group_read(base, name, "cpu.stat", "usage_usec"),
		.memory = group_read(base, name, "memory.current", ""),
		.memory_peak = group_read(base, name, "memory.peak", ""),
		.pids = group_read(base, name, "pids.current", ""),
	};
	usage_io(base, name, ret);
	return 0;
}
