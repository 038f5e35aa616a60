// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The supervisor of devices: what it starts, what that gets, and what it does for a machine that asks
 * for something else. The programs that it starts are this one, in the parts of child_main().
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "moat/control.h"
#include "selftests/unit/unit.h"
#include "userspace/lib/arguments.h"
#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/vmm/options.h"
#include "userspace/vmm/program.h"
#include "userspace/vmm/supervisor.h"
#include "userspace/vmm/vhost_isolation.h"

#define CONNECTION	3
#define HANDED		4
#define WAIT_MS		5000

/* What a child has to report, as its whole answer. */
struct report {
	pid_t pid;
	int descriptors;	/* above standard error, the highest */
	int ptrace_error;
	bool blocked;		/* a signal is */
	bool no_new_privs;
	char handed[8];
};

/* The programs */

static int highest_descriptor(void)
{
	int highest = -1;

	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			highest = fd;
	return highest;
}

static void child_report(void)
{
	struct report report = {
		.pid = getpid(), .descriptors = highest_descriptor(),
		.no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
	};
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	report.blocked = sigismember(&mask, SIGTERM);
	if (ptrace(PTRACE_ATTACH, getppid(), 0, 0))
		report.ptrace_error = errno;
	if (report.descriptors >= HANDED)
		pread(HANDED, report.handed, sizeof(report.handed) - 1, 0);
	write(CONNECTION, &report, sizeof(report));
}

static int child_main(const char *part)
{
	char byte;

	if (!strcmp(part, "fails"))
		return 3;
	child_report();
	while (read(CONNECTION, &byte, 1) > 0)
		;
	return 0;
}

static char self[4096];

static void add_part(struct arguments *arguments, const struct options_device *device, int handed)
{
	arguments_add(arguments, "child");
	arguments_add(arguments, "%s", handed < 0 ? device->path : "serves");
}

static const struct program table[] = {
	{ "blk", self, add_part, NULL },
	{ "net", "/nowhere/at/all", add_part, NULL },
	{ 0 },
};

/* The machine's side */

static struct options options = { .supervisor = -1, .devices_cgroup = -1 };
static struct supervisor supervisor;

static void add(struct options_device device)
{
	static const struct vhost_isolation_ops isolation = { .name = "any" };

	device.isolation = &isolation;
	options.device[options.device_count++] = device;
}

static void begin(void)
{
	EXPECT(!supervisor_start(&supervisor, &options, table));
}

static void end(void)
{
	supervisor_finish(&supervisor);
	options.device_count = 0;
}

static int connect_to(unsigned int index)
{
	return supervisor.link[index].origin.connect(&supervisor.link[index].origin);
}

static bool readable(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, WAIT_MS) == 1;
}

static struct report report_of(int fd)
{
	struct report report = { 0 };
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	EXPECT(readable(fd) && read(fd, &report, sizeof(report)) == sizeof(report));
	return report;
}

/* Never what stands for many. */
static void signal_to(pid_t pid, int number)
{
	if (EXPECT(pid > 1))
		kill(pid, number);
}

/* It ends, as a child of ours, which it becomes when its parent's end is complete. */
static bool is_left_to_us(pid_t pid)
{
	for (int i = 0; i < WAIT_MS; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return true;
		usleep(1000);
	}
	return false;
}

/* Within the time that is given: it has gone, and left no zombie. */
static bool goes(pid_t pid)
{
	for (int i = 0; i < WAIT_MS; i++) {
		if (kill(pid, 0) && errno == ESRCH)
			return true;
		usleep(1000);
	}
	return false;
}

static int children(pid_t pid)
{
	char path[64], text[256] = "";
	int fd, count = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return -1;
	close(fd);
	for (const char *at = text; *at; at++)
		count += *at == ' ';
	return count;
}

static int descriptors(pid_t pid)
{
	char path[32];
	int count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

/* The supervisor's, once it has no child, as those end that have lost their connection. */
static int idle_descriptors(void)
{
	for (int i = 0; i < WAIT_MS && children(supervisor.pid); i++)
		usleep(1000);
	return descriptors(supervisor.pid);
}

/* A request as it stands, with descriptors that nobody wants. */
static void ask(unsigned int index, const void *data, size_t len, int fds)
{
	char space[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fds) {
		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){ CMSG_LEN(fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memset(CMSG_DATA(c), 0, fds * sizeof(int));
	}
	EXPECT(sendmsg(supervisor.link[index].socket, &msg, 0) == (ssize_t)len);
}

static struct supervisor_answer answer_of(unsigned int index)
{
	struct supervisor_answer answer = { 0 };

	EXPECT(readable(supervisor.link[index].socket));
	EXPECT(recv(supervisor.link[index].socket, &answer, sizeof(answer), 0) == sizeof(answer));
	return answer;
}

/* Tests */

static void test_start(void)
{
	int extra = fcntl(STDERR_FILENO, F_DUPFD, 500), fd;
	struct report report;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	add((struct options_device){ .type = "blk", .path = "serves" });
	begin();
	fd = connect_to(0);
	report = report_of(fd);
	EXPECT(report.descriptors == CONNECTION && !report.blocked && report.no_new_privs);
	EXPECT(report.ptrace_error == EPERM);
	EXPECT(children(supervisor.pid) == 1);
	close(fd);
	end();
	EXPECT(goes(report.pid));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	close(extra);
}

static void test_handed(void)
{
	int file = memfd_create("handed", 0), copy = fcntl(file, F_DUPFD_CLOEXEC, 0), fd;
	char path[32];
	struct report report;

	EXPECT(pwrite(file, "so it is", 8, 0) == 8);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	add((struct options_device){ .type = "blk", .path = path });
	begin();
	EXPECT(fcntl(file, F_GETFD) < 0);	/* the machine has it no more */
	fd = connect_to(0);
	report = report_of(fd);
	EXPECT(report.descriptors == HANDED && !strcmp(report.handed, "so it i"));
	close(fd);
	end();
	close(copy);
}

/* However a process ends: it is reaped at once, the next one comes, and the former's end is told. */
static void test_again(void)
{
	const struct supervisor_request request = { SUPERVISOR_START, 1000 };
	struct supervisor_answer answer;
	struct report report;
	int fd;

	add((struct options_device){ .type = "blk", .path = "serves" });
	add((struct options_device){ .type = "blk", .path = "fails" });
	begin();
	report = report_of(fd = connect_to(0));
	for (int i = 0; i < 3; i++) {
		signal_to(report.pid, SIGKILL);
		EXPECT(goes(report.pid));
		close(fd);
		report = report_of(fd = connect_to(0));
	}
	signal_to(report.pid, SIGTERM);
	EXPECT(goes(report.pid));
	ask(0, &request, sizeof(request), 0);
	answer = answer_of(0);
	EXPECT(answer.serial == 1000 && !answer.error && answer.former == FORMER_ENDED &&
	       WIFSIGNALED(answer.status) && WTERMSIG(answer.status) == SIGTERM);
	ask(0, &request, sizeof(request), 0);
	EXPECT(answer_of(0).former != FORMER_NONE);
	close(fd);
	fd = connect_to(1);
	EXPECT(readable(fd));
	close(fd);
	ask(1, &request, sizeof(request), 0);
	answer = answer_of(1);
	EXPECT(answer.former == FORMER_ENDED && WEXITSTATUS(answer.status) == 3);
	end();
}

/* A process that is there still is killed for its successor. */
static void test_replaced(void)
{
	const struct supervisor_request request = { SUPERVISOR_START, 7 };
	struct supervisor_answer answer;
	struct report report;
	int fd;

	add((struct options_device){ .type = "blk", .path = "serves" });
	begin();
	report = report_of(fd = connect_to(0));
	signal_to(report.pid, SIGSTOP);	/* it would not end by itself */
	ask(0, &request, sizeof(request), 0);
	answer = answer_of(0);
	EXPECT(answer.former == FORMER_KILLED && WTERMSIG(answer.status) == SIGKILL);
	EXPECT(goes(report.pid));
	close(fd);
	end();
}

static void test_missing(void)
{
	add((struct options_device){ .type = "net", .path = "tap0" });
	add((struct options_device){ .type = "blk", .path = "/nowhere", .listens = true });
	begin();
	EXPECT(connect_to(0) == -ENOENT && connect_to(0) == -ENOENT);
	EXPECT(connect_to(1) == -ENOENT);
	EXPECT(children(supervisor.pid) == 0);
	end();
}

static void test_listening(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, peer, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/supervisor_test.%d", getpid());
	EXPECT(!bind(listener, (struct sockaddr *)&address, sizeof(address)) &&
	       !listen(listener, 1));
	add((struct options_device){ .type = "blk", .path = address.sun_path, .listens = true });
	begin();
	fd = connect_to(0);
	peer = accept(listener, NULL, NULL);
	EXPECT(fd >= 0 && write(fd, "x", 1) == 1 && readable(peer));
	close(fd);
	close(peer);
	close(listener);
	unlink(address.sun_path);
	EXPECT(connect_to(0) == -ENOENT);
	end();
}

/* A connection that was handed over takes no supervisor, and is the only one. */
static void test_connected(void)
{
	char path[32];
	int ends[2], fd;

	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
	add((struct options_device){ .type = "blk", .path = path, .listens = true });
	begin();
	EXPECT(!supervisor.pid && supervisor.link[0].origin.last);
	fd = connect_to(0);
	EXPECT(fd >= 0 && write(fd, "x", 1) == 1 && readable(ends[1]));
	close(fd);
	close(ends[0]);
	close(ends[1]);
	end();
}

/* Each wrong request is the last of its device, whose process goes; another device's stays. */
static void test_wrong(void)
{
	static const struct { uint32_t word[3]; size_t len; } wrong[] = {
		{ { SUPERVISOR_START }, 4 }, { { SUPERVISOR_START, 1 }, 7 },
		{ { SUPERVISOR_START, 1, 1 }, 12 }, { { 0, 1 }, 8 }, { { 2, 1 }, 8 },
		{ { SUPERVISOR_START, 0 }, 8 },
	};
	struct report report;
	char byte;
	int fd, other;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		add((struct options_device){ .type = "blk", .path = "serves" });
		add((struct options_device){ .type = "blk", .path = "serves" });
		begin();
		report = report_of(fd = connect_to(0));
		ask(0, wrong[i].word, wrong[i].len, 0);
		EXPECT(readable(supervisor.link[0].socket));
		EXPECT(recv(supervisor.link[0].socket, &byte, 1, 0) <= 0);
		EXPECT(goes(report.pid) && connect_to(0) < 0 && supervisor.link[0].origin.last);
		report_of(other = connect_to(1));
		close(other);
		close(fd);
		end();
	}
}

static void test_descriptors(void)
{
	const struct supervisor_request request = { SUPERVISOR_START, 9 };
	int before;

	add((struct options_device){ .type = "blk", .path = "serves" });
	begin();
	close(connect_to(0));
	before = idle_descriptors();
	for (int i = 0; i < 50; i++) {
		ask(0, &request, sizeof(request), 16);
		answer_of(0);
	}
	EXPECT(idle_descriptors() == before && children(supervisor.pid) == 0);
	end();
}

/* The machine goes, in whatever way: so does all else. */
static void test_machine_ends(void)
{
	struct report report;
	pid_t pid;
	int fd;

	add((struct options_device){ .type = "blk", .path = "serves" });
	begin();
	report = report_of(fd = connect_to(0));
	signal_to(report.pid, SIGSTOP);
	pid = supervisor.pid;
	close(supervisor.link[0].socket);
	supervisor.link[0].socket = -1;
	EXPECT(goes(report.pid));
	end();
	EXPECT(goes(pid));
	close(fd);
}

/* Without the supervisor what there is goes on, and nothing else comes. */
static void test_supervisor_dies(void)
{
	struct report report;
	char byte;
	int fd;

	add((struct options_device){ .type = "blk", .path = "serves" });
	begin();
	report = report_of(fd = connect_to(0));
	signal_to(supervisor.pid, SIGKILL);
	EXPECT(connect_to(0) < 0 && supervisor.link[0].origin.last);
	EXPECT(report.pid > 1 && !kill(report.pid, 0) && recv(fd, &byte, 1, MSG_DONTWAIT) < 0);
	shutdown(fd, SHUT_RDWR);
	EXPECT(is_left_to_us(report.pid));
	close(fd);
	end();
}

/* Devices that come later */

static struct sockaddr_un adders = { .sun_family = AF_UNIX };

static void begin_listening(void)
{
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(adders.sun_path + 1, sizeof(adders.sun_path) - 1, "supervisor_test.%d", getpid());
	EXPECT(!bind(listener, (struct sockaddr *)&adders, sizeof(adders)) && !listen(listener, 8));
	options.supervisor = listener;
	begin();
	EXPECT(fcntl(listener, F_GETFD) < 0);	/* the machine has it no more */
	options.supervisor = -1;
}

static int adder(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	EXPECT(!connect(fd, (struct sockaddr *)&adders, sizeof(adders)));
	return fd;
}

/* The link, or the error; -EPIPE: the connection is closed. */
static int add_over(int fd, const struct supervisor_add *add, size_t len, int handed)
{
	struct supervisor_added added;
	int link;

	EXPECT(!fd_send(fd, add, len, handed) && readable(fd));
	if (fd_receive(fd, &added, sizeof(added), &link) != sizeof(added))
		return -EPIPE;
	return added.error ? added.error : link;
}

static void test_added(void)
{
	const struct supervisor_add add = { .type = "blk" };
	int fd, file = memfd_create("handed", MFD_CLOEXEC), link, before;
	struct supervisor_link one;
	struct report report;

	EXPECT(pwrite(file, "so it is", 8, 0) == 8);
	begin_listening();
	EXPECT(supervisor.pid > 1);
	fd = adder();
	before = -1;
	for (int i = 0; i < 40; i++) {
		link = add_over(fd, &add, sizeof(add), file);
		if (!EXPECT(link >= 0))
			break;
		supervisor_link_adopt(&one, "blk", "disk", link);
		link = one.origin.connect(&one.origin);
		report = report_of(link);
		EXPECT(report.descriptors == HANDED && !strcmp(report.handed, "so it i"));
		if (i == 20) {
			signal_to(report.pid, SIGKILL);
			close(link);
			report = report_of(link = one.origin.connect(&one.origin));
		}
		supervisor_link_close(&one);
		EXPECT(goes(report.pid));
		close(link);
		if (before < 0)
			before = idle_descriptors();
	}
	EXPECT(idle_descriptors() == before);
	close(fd);
	close(file);
	end();
}

static void test_added_many(void)
{
	const struct supervisor_add wanted = { .type = "blk" };
	int fd, link[OPTIONS_DEVICES], file = memfd_create("handed", MFD_CLOEXEC);

	add((struct options_device){ .type = "blk", .path = "serves" });
	begin_listening();
	fd = adder();
	for (int i = 1; i < OPTIONS_DEVICES; i++)
		EXPECT((link[i] = add_over(fd, &wanted, sizeof(wanted), file)) >= 0);
	EXPECT(add_over(fd, &wanted, sizeof(wanted), file) == -ENOSPC);
	close(link[5]);
	for (int i = 0; i < WAIT_MS; i++) {
		link[5] = add_over(fd, &wanted, sizeof(wanted), file);
		if (link[5] >= 0)
			break;
		usleep(1000);
	}
	EXPECT(link[5] >= 0);
	close(connect_to(0));
	for (int i = 1; i < OPTIONS_DEVICES; i++)
		close(link[i]);
	close(fd);
	close(file);
	end();
}

static void test_added_wrong(void)
{
	struct supervisor_add wrong[6];
	int other, fd, file = memfd_create("handed", MFD_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		wrong[i] = (struct supervisor_add){ .type = "blk" };
	strcpy(wrong[0].type, "vsock");
	memset(wrong[1].type, 'x', sizeof(wrong[1].type));
	memset(wrong[2].mac, 'x', sizeof(wrong[2].mac));
	memset(wrong[3].tag, 'x', sizeof(wrong[3].tag));
	wrong[4].flags = 1u << 3;
	*wrong[5].type = '\0';
	begin_listening();
	other = adder();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		fd = adder();
		EXPECT(add_over(fd, &wrong[i], sizeof(wrong[i]), file) == -EPIPE);
		close(fd);
	}
	strcpy(wrong[0].type, "blk");
	for (size_t len = 0; len <= sizeof(wrong[0]) + 4; len += 4) {
		fd = adder();
		EXPECT(add_over(fd, &wrong[0], len, len == sizeof(wrong[0]) ? -1 : file) == -EPIPE);
		close(fd);
	}
	fd = add_over(other, &wrong[0], sizeof(wrong[0]), file);
	EXPECT(fd >= 0);
	close(fd);
	close(other);
	close(file);
	end();
}

/* It has nobody to look after, and goes with the machine all the same. */
static void test_idle_ends(void)
{
	pid_t pid;
	int fd;

	begin_listening();
	pid = supervisor.pid;
	fd = adder();
	close(supervisor.life);
	supervisor.life = -1;
	EXPECT(readable(fd) && is_left_to_us(pid));
	close(fd);
	end();
}

static const struct unit_test tests[] = {
	{ "a process gets its connection, and nothing else", test_start },
	{ "and a descriptor that its device names", test_handed },
	{ "it ends, and comes again", test_again },
	{ "it does not end, and comes again", test_replaced },
	{ "programs and sockets that are not there", test_missing },
	{ "somebody who listens", test_listening },
	{ "a connection that was handed over", test_connected },
	{ "requests that are none", test_wrong },
	{ "requests with descriptors", test_descriptors },
	{ "the machine ends", test_machine_ends },
	{ "the supervisor dies", test_supervisor_dies },
	{ "a device comes later, and goes", test_added },
	{ "so many, and no more", test_added_many },
	{ "messages that add none", test_added_wrong },
	{ "without devices it ends with the machine", test_idle_ends },
};

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "child"))
		_exit(child_main(argv[2]));	/* with no look for leaks, which takes ptrace() */
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 1;
	if (!getenv("VERBOSE") && !freopen("/dev/null", "w", stderr))
		return 1;
	/* What the supervisor leaves behind is ours to wait for. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	return unit_main(tests, ARRAY_SIZE(tests));
}
