// SPDX-License-Identifier: MIT OR GPL-2.0
/* What a process can still do once it is in its sandbox: each attempt by a child of its own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/lib/sandbox.h"

#define SOMEBODY	65534

static const struct sandbox_call calls[] = {
	{ SYS_write, 0, "test", 0, 0, 0 },
	{ SYS_getuid, 0, "test", 0, 0, 0 },
	{ SYS_getgroups, 0, "test", 0, 0, 0 },
	{ SYS_capget, 0, "test", 0, 0, 0 },
	{ SYS_prctl, 0, "test", 0, 0, 0 },
	{ SYS_stat, 0, "test", 0, 0, 0 },
	{ SYS_mmap, 0, "test", 3, PROT_EXEC, 0 },
	{ SYS_clone, 0, "test", 1, CLONE_THREAD, CLONE_THREAD },
	{ SYS_openat, EACCES, "test", 0, 0, 0 },
	{ SYS_openat2, 0, "test", 0, 0, 0 },
	{ SYS_socket, 0, "test", 1, ~0ULL, AF_UNIX },
	{ SANDBOX_AND, 0, "test", 2, ~0ULL, SOCK_DGRAM },
	{ SYS_connect, 0, "test", 0, 0, 0 },
	{ SYS_exit_group, 0, "test", 0, 0, 0 },
	{ 0 },
};

/* What the root is; NULL: empty. */
static const struct sandbox_tree *tree;
static int self;
static const struct sockaddr_un somebody = { AF_UNIX, "\0moat-sandbox-test" };
static bool no_network;

/* The exit status of @attempt within the sandbox; minus the signal that it died of. */
static int attempt_status(int (*attempt)(void))
{
	const uid_t uid = getuid() ? (uid_t)-1 : SOMEBODY;
	const struct sandbox sandbox = {
		.uid = uid, .gid = uid, .tree = tree, .no_network = no_network, .calls = { calls },
	};
	const char *step = "";
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (sandbox_enter(&sandbox, &step) < 0)
			_exit(99);
		_exit(attempt());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 98;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int do_nothing(void)
{
	return 0;
}

static int do_look_at_self(void)
{
	unsigned int caps[6] = { 0x20080522, 0 };
	unsigned int data[6] = { 0 };

	if (syscall(SYS_capget, caps, data))
		return 1;
	for (int i = 0; i < 6; i++)
		if (data[i])
			return 2;
	if (syscall(SYS_getuid) == 0 || syscall(SYS_getgroups, 0, NULL) != 0)
		return 3;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 4;
}

static int do_open(void)
{
	return open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES ? 0 : 1;
}

static int do_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}

static int do_other_datagram_socket(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0) < 0;
}

static int do_connect(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	return fd < 0 || connect(fd, (const struct sockaddr *)&somebody, sizeof(somebody));
}

static int do_fork(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0;
}

static int do_exec(void)
{
	return execl("/bin/true", "true", NULL);
}

static int do_map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int do_map_data(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

/* Raw, since libc may take another call. */
static int do_look_for_files(void)
{
	char buf[256];

	return syscall(SYS_stat, "/etc", buf) == 0 || syscall(SYS_stat, "/proc", buf) == 0 ||
	       syscall(SYS_stat, "/tmp", buf) == 0 || syscall(SYS_stat, "/../etc", buf) == 0;
}

static bool opens(int dir, const char *path, int flags)
{
	struct open_how how = { .flags = flags, .mode = flags & O_CREAT ? 0644 : 0 };

	return syscall(SYS_openat2, dir, path, &how, sizeof(how)) >= 0;
}

/* The tree is all that there is; no link leads anywhere, and nothing can be made. */
static int do_look_at_tree(void)
{
	if (!opens(AT_FDCWD, "/file", O_RDONLY) || !opens(AT_FDCWD, "/../dir", O_RDONLY | O_DIRECTORY))
		return 1;
	if (opens(AT_FDCWD, "/etc", O_PATH) || opens(AT_FDCWD, "/proc", O_PATH))
		return 2;
	if (opens(AT_FDCWD, "/link", O_RDONLY) || errno != ELOOP)
		return 3;
	return opens(AT_FDCWD, "/new", O_WRONLY | O_CREAT) || errno != EROFS ? 4 : 0;
}

static int do_write_in_tree(void)
{
	return opens(AT_FDCWD, "/new", O_WRONLY | O_CREAT) && opens(AT_FDCWD, "/new", O_RDWR) ? 0 : 1;
}

/* What there is of /proc are own descriptors. */
static int do_look_at_self_fd(void)
{
	if (!opens(self, "2", O_PATH) || !opens(self, "..", O_PATH))
		return 1;
	return opens(self, "../stat", O_PATH) || opens(self, "../fd", O_PATH) ||
	       opens(self, "../../self", O_PATH) || opens(self, "../root", O_PATH) ||
	       opens(self, "9999", O_PATH) ? 2 : 0;
}

static void test_allowed(void)
{
	EXPECT(attempt_status(do_nothing) == 0);
	EXPECT(attempt_status(do_map_data) == 0);
}

static void test_nobody(void)
{
	EXPECT(attempt_status(do_look_at_self) == 0);
}

static void test_killed(void)
{
	EXPECT(attempt_status(do_socket) == -SIGSYS);
	EXPECT(attempt_status(do_fork) == -SIGSYS);
	EXPECT(attempt_status(do_exec) == -SIGSYS);
	EXPECT(attempt_status(do_map_code) == -SIGSYS);
}

/* Each of its two arguments is another one. */
static void test_arguments(void)
{
	EXPECT(attempt_status(do_socket) == -SIGSYS);
	EXPECT(attempt_status(do_other_datagram_socket) == -SIGSYS);
}

static void test_no_network(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	EXPECT(!bind(fd, (const struct sockaddr *)&somebody, sizeof(somebody)));
	EXPECT(do_connect() == 0);
	no_network = true;
	EXPECT(getuid() || attempt_status(do_connect) == 1);
	no_network = false;
	close(fd);
}

static void test_refused(void)
{
	EXPECT(attempt_status(do_open) == 0);
}

/* Where the host refuses it to this user, there is nothing to see here. */
static void test_empty_root(void)
{
	EXPECT(getuid() || attempt_status(do_look_for_files) == 0);
}

/* With a user namespace, it takes one: where there is none, the process cannot begin. */
static void test_tree(void)
{
	char path[] = "/tmp/moat-sandbox.XXXXXX";
	int empty;
	struct sandbox_tree with = { .path = path, .ret_self = &self, .ret_empty = &empty };

	EXPECT(mkdtemp(path) && !chmod(path, 0777));
	EXPECT(!chdir(path) && !mkdir("dir", 0755) && !symlink("file", "link"));
	close(open("file", O_WRONLY | O_CREAT, 0644));
	tree = &with;
	if (!getuid() || attempt_status(do_nothing) != 99) {
		EXPECT(attempt_status(do_look_at_tree) == 0);
		EXPECT(attempt_status(do_look_at_self_fd) == 0);
		with.writable = true;
		EXPECT(attempt_status(do_write_in_tree) == 0);
	}
	with.path = "none";
	EXPECT(attempt_status(do_nothing) == 99);
	tree = NULL;
	unlink("file");
	unlink("link");
	unlink("new");
	rmdir("dir");
	rmdir(path);
}

static const struct unit_test tests[] = {
	{ "what is listed is allowed", test_allowed },
	{ "no user, groups, capabilities, or new ones", test_nobody },
	{ "what is not listed kills", test_killed },
	{ "what is listed with two arguments kills with another", test_arguments },
	{ "what is listed to fail fails", test_refused },
	{ "without a network there are no names of sockets", test_no_network },
	{ "the root is empty", test_empty_root },
	{ "the root is a directory of the host's, and no more", test_tree },
};

int main(void)
{
	return unit_main(tests, ARRAY_SIZE(tests));
}
