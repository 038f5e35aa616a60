// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the launcher can still do in its sandbox, and what it cannot: each attempt by a child of its own,
 * as the caller and, where that is root, as another user.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/lib/thread.h"
#include "userspace/vmm/confine.h"

#define SOMEBODY	65534

/* Another process of the same user, as a device's is. */
static pid_t sibling;
static int null, listener;

/* The exit status of @attempt in the sandbox; minus the signal that it died of. */
static int status_as(uid_t id, int (*attempt)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (confine(id, id))
			_exit(99);
		_exit(attempt());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 98;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static bool ends_with(int status, int (*attempt)(void))
{
	return status_as(-1, attempt) == status &&
	       (getuid() || status_as(SOMEBODY, attempt) == status);
}

/* What is refused: these return if it is not. */

static int do_open(void) { return open("/etc/passwd", O_RDONLY); }
static int do_open_root(void) { return syscall(SYS_open, "/", O_RDONLY); }
static int do_stat(void) { char buf[256]; return syscall(SYS_stat, "/", buf); }
static int do_exec(void) { return execl("/bin/true", "true", NULL); }
static int do_fork(void) { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }
static int do_socket(void) { return socket(AF_UNIX, SOCK_STREAM, 0); }
static int do_connect(void) { return syscall(SYS_connect, null, NULL, 0); }
static int do_inet_pair(void) { int fd[2]; return socketpair(AF_INET, SOCK_STREAM, 0, fd); }
static int do_send_to(void) { return sendto(null, "", 1, 0, (void *)&null, 16); }
static int do_ptrace(void) { return ptrace(PTRACE_ATTACH, sibling, 0, 0); }
static int do_kill(void) { return kill(sibling, SIGKILL); }
static int do_tgkill(void) { return syscall(SYS_tgkill, sibling, sibling, SIGKILL); }
static int do_terminal(void) { return ioctl(null, TIOCSTI, "x"); }
static int do_create_vm(void) { return ioctl(null, KVM_CREATE_VM, 0); }
static int do_unshare(void) { return unshare(CLONE_NEWUSER); }
static int do_setuid(void) { return syscall(SYS_setuid, 0); }
static int do_dumpable(void) { return prctl(PR_SET_DUMPABLE, 1); }
static int do_uring(void) { return syscall(SYS_io_uring_setup, 1, NULL); }

static int do_read_other(void)
{
	char byte;
	struct iovec iov = { &byte, 1 };

	return process_vm_readv(sibling, &iov, 1, &iov, 1, 0);
}

static int do_map_code(void)
{
	return !mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int do_make_code(void)
{
	return mprotect((void *)((unsigned long)do_make_code & ~4095UL), 4096,
			PROT_READ | PROT_WRITE | PROT_EXEC);
}

static int (*const refused[])(void) = {
	do_open, do_open_root, do_stat, do_exec, do_fork, do_socket, do_connect, do_inet_pair,
	do_send_to, do_ptrace, do_kill, do_tgkill, do_terminal, do_create_vm, do_unshare, do_setuid,
	do_dumpable, do_uring, do_read_other, do_map_code, do_make_code,
};

static void test_refused(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (!EXPECT(ends_with(-SIGSYS, refused[i])))
			printf("# attempt %zu\n", i);
	EXPECT(!kill(sibling, 0));
}

/* What it takes to run a guest. */

static void *thread(void *arg)
{
	*(bool *)arg = true;
	return NULL;
}

static volatile sig_atomic_t signalled;

static void note_signal(int number)
{
	signalled = number;
}

static int do_threads(void)
{
	bool ran = false;
	pthread_t id;

	if (thread_start(&id, "thread", thread, &ran) || pthread_join(id, NULL) || !ran)
		return 1;
	signal(SIGUSR1, note_signal);
	return pthread_kill(pthread_self(), SIGUSR1) || signalled != SIGUSR1;
}

static int do_memory(void)
{
	int fd = fd_memory("memory", 1 << 20);

	return fd < 0 || mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED;
}

static int do_run(void)
{
	return ioctl(null, KVM_RUN, 0) == 0 || errno != ENOTTY;
}

static int do_channel(void)
{
	int ends[2];

	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ||
	       send(ends[0], "x", 1, MSG_NOSIGNAL) != 1;
}

/* Of a socket that listened before. */
static int do_accept(void)
{
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC) >= 0 || errno != EAGAIN;
}

static int do_date(void)
{
	time_t now = time(NULL);
	struct tm tm;

	return !gmtime_r(&now, &tm);
}

static int (*const allowed[])(void) = { do_threads, do_memory, do_run, do_channel, do_accept,
	do_date };

static void test_allowed(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (!EXPECT(ends_with(0, allowed[i])))
			printf("# attempt %zu\n", i);
}

/* Never what stands for many. */
static void end_child(pid_t pid)
{
	if (!EXPECT(pid > 1))
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* As seen from here: a child in its sandbox, which waits. */
static pid_t confined_child(uid_t id)
{
	int ends[2];
	char byte;
	pid_t pid;

	if (pipe(ends))
		return 0;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (confine(id, id) || write(ends[1], "x", 1) != 1)
			_exit(99);
		poll(NULL, 0, -1);
		_exit(0);
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		return 0;
	close(ends[0]);
	return pid;
}

/* What a file of /proc has from @word on. */
static const char *proc_of(pid_t pid, const char *file, const char *word)
{
	static char text[4096];
	char path[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = '\0';
	fd_close(fd);
	return strstr(text, word);
}

static bool status_has(pid_t pid, const char *line)
{
	return proc_of(pid, "status", line);
}

static void test_rights(void)
{
	char path[64], soft[32] = "", hard[32] = "?";
	const char *limit;
	pid_t pid = confined_child(getuid() ? (uid_t)-1 : SOMEBODY);

	EXPECT(status_has(pid, "\nCapPrm:\t0000000000000000") &&
	       status_has(pid, "\nCapEff:\t0000000000000000") &&
	       status_has(pid, "\nCapBnd:\t0000000000000000") == !getuid() &&
	       status_has(pid, "\nNoNewPrivs:\t1") && status_has(pid, "\nSeccomp:\t2"));
	EXPECT(getuid() || status_has(pid, "\nUid:\t65534\t65534\t65534\t65534"));
	limit = proc_of(pid, "limits", "Max locked memory");
	EXPECT(limit && sscanf(limit, "Max locked memory %31s %31s", soft, hard) == 2 &&
	       !strcmp(soft, hard));
	snprintf(path, sizeof(path), "/proc/%d/root/etc", pid);
	EXPECT(getuid() || access(path, F_OK));
	end_child(pid);
}

/* Who is to end with its parent still is, though it became somebody else meanwhile. */
static void test_parent(void)
{
	struct pollfd wait = { .events = POLLIN };
	int ends[2];
	char byte;
	pid_t pid;

	EXPECT(!pipe(ends));
	wait.fd = ends[0];
	pid = fork();
	if (!pid) {
		pid = confined_child(getuid() ? (uid_t)-1 : SOMEBODY);
		if (write(ends[1], &pid, sizeof(pid)) != sizeof(pid))
			_exit(1);
		_exit(0);	/* so that it has none any more */
	}
	close(ends[1]);
	EXPECT(read(ends[0], &pid, sizeof(pid)) == sizeof(pid));
	/* The pipe has its other end in the grandchild too. */
	if (!EXPECT(poll(&wait, 1, 5000) == 1 && read(ends[0], &byte, 1) == 0))
		end_child(pid);
	close(ends[0]);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static const struct unit_test tests[] = {
	{ "what is not listed kills", test_refused },
	{ "what it takes to run a guest is allowed", test_allowed },
	{ "no rights, and no file, are left", test_rights },
	{ "the parent's end is the end", test_parent },
};

int main(void)
{
	int status;

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	if (bind(listener, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)) ||
	    listen(listener, 1))
		return 1;
	sibling = fork();
	if (!sibling) {
		if (!getuid() && (setgid(SOMEBODY) || setuid(SOMEBODY)))
			_exit(1);
		for (;;)
			pause();
	}
	if (null < 0 || sibling < 0)
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	end_child(sibling);
	return status;
}
