// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Where programs of Moat's find each other: this one is copied to where they are installed, and asked there.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/beside.h"

#define FIND	"--find"

static char top[] = "/tmp/moat-beside.XXXXXX";

/* ret: PATH_MAX bytes; so everywhere here. */
static void place(const char *name, char *ret)
{
	snprintf(ret, PATH_MAX, "%s/%s", top, name);
}

static void put(const char *name, mode_t mode)
{
	char path[PATH_MAX], command[3 * PATH_MAX];

	place(name, path);
	snprintf(command, sizeof(command), "mkdir -p $(dirname %s) && cp /proc/%d/exe %s", path, getpid(), path);
	EXPECT(!system(command) && !chmod(path, mode));
}

/* What the copy at @from finds: 0 where that is the file @wanted; else its errno. */
static int found(const char *from, const char *name, const char *wanted)
{
	char program[PATH_MAX], path[PATH_MAX];
	int status;
	pid_t pid;

	place(from, program);
	place(wanted, path);
	pid = fork();
	if (!pid) {
		execl(program, program, FIND, name, path, NULL);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

static int find_main(const char *name, const char *wanted)
{
	char path[PATH_MAX], real[PATH_MAX];
	int err = beside_program(name, path);

	if (err)
		return -err;
	return realpath(path, real) && !strcmp(real, wanted) ? 0 : 126;
}

static void test_installed(void)
{
	put("usr/bin/vmctl", 0755);
	put("usr/bin/moat-vmm", 0755);
	put("usr/sbin/moatd", 0755);
	put("usr/libexec/moat/moat-init", 0755);
	EXPECT(found("usr/bin/vmctl", "moat-vmm", "usr/bin/moat-vmm") == 0);
	EXPECT(found("usr/bin/vmctl", "moat-init", "usr/libexec/moat/moat-init") == 0);
	EXPECT(found("usr/sbin/moatd", "moat-vmm", "usr/bin/moat-vmm") == 0);
	EXPECT(found("usr/sbin/moatd", "moat-init", "usr/libexec/moat/moat-init") == 0);
}

/* What lies beside comes first. */
static void test_build_tree(void)
{
	put("build/bin/vmctl", 0755);
	put("build/bin/moat-init", 0755);
	put("build/libexec/moat/moat-init", 0755);
	EXPECT(found("build/bin/vmctl", "moat-init", "build/bin/moat-init") == 0);
}

static void test_nowhere(void)
{
	char name[PATH_MAX];

	EXPECT(found("usr/bin/vmctl", "moat-none", "") == ENOENT);
	put("usr/bin/moat-text", 0644);
	EXPECT(found("usr/bin/vmctl", "moat-text", "") == ENOENT);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	EXPECT(found("usr/bin/vmctl", name, "") == ENAMETOOLONG);
}

static const struct unit_test tests[] = {
	{ "programs as they are installed", test_installed },
	{ "programs in the build tree", test_build_tree },
	{ "what is in no place, or no program", test_nowhere },
};

int main(int argc, char **argv)
{
	char command[PATH_MAX];
	int status;

	if (argc == 4 && !strcmp(argv[1], FIND))
		return find_main(argv[2], argv[3]);
	if (!mkdtemp(top))
		return 1;
	status = unit_main(tests, sizeof(tests) / sizeof(tests[0]));
	snprintf(command, sizeof(command), "rm -r %s", top);
	return system(command) ? 1 : status;
}
