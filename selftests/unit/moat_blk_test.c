// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-blk, the program: in its sandbox, over its socket, with a driver that is this test. It is
 * taken from build/bin.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/moat/vhost_user.h"
#include "devmodel/virtq.h"
#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"

#define PROGRAM		"build/bin/moat-blk"
#define SIZE		16
#define PAGE		4096
#define MEMORY_SIZE	(16 * PAGE)
#define DISK_SIZE	(1 << 20)
#define UVA		0x100000
#define TIMEOUT_MS	5000

static char folder[] = "/tmp/moat-blk.XXXXXX";
static char disk_path[64], socket_path[64];
static pid_t child;
static int front = -1, memory_fd, call, kick;
static uint8_t *memory;

/* One message, and where it has one the reply. */
static void send_fd(uint32_t request, const void *payload, uint32_t size, int fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control = { .head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct vhost_user_header header = { request, VHOST_USER_VERSION, size };
	struct iovec iov[] = { { &header, sizeof(header) }, { (void *)payload, size } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	EXPECT(sendmsg(front, &msg, MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + size));
}

static void send_u64(uint32_t request, uint64_t value, int fd)
{
	send_fd(request, &value, sizeof(value), fd);
}

static void send_state(uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_user_vring_state state = { index, num };

	send_fd(request, &state, sizeof(state), -1);
}

static bool receive(void *buf, size_t len)
{
	struct vhost_user_header header;

	return recv(front, &header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
	       header.size == len && recv(front, buf, len, MSG_WAITALL) == (ssize_t)len;
}

/* The end of the stream, which a front end that is dropped gets. */
static bool dropped(void)
{
	struct pollfd wait = { .fd = front, .events = POLLIN };
	char byte;

	return poll(&wait, 1, TIMEOUT_MS) == 1 && recv(front, &byte, 1, 0) <= 0;
}

static void start_with(const char *option, int fd)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", fd);
	child = fork();
	if (child)
		return;
	if (fd >= 0)
		execl(PROGRAM, PROGRAM, "--disk", disk_path, "--fd", number, option, NULL);
	execl(PROGRAM, PROGRAM, "--disk", disk_path, "--socket", socket_path, option, NULL);
	_exit(127);
}

static bool attach(void)
{
	const struct timeval limit = { .tv_sec = 5 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, socket_path);
	for (int i = 0; i < 100; i++) {
		front = socket(AF_UNIX, SOCK_STREAM, 0);
		setsockopt(front, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (!connect(front, (struct sockaddr *)&address, sizeof(address)))
			return true;
		close(front);
		usleep(50000);
	}
	return false;
}

static int ended(void)
{
	int status = 0;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* One ring, at the start of memory: descriptors, driver area, device area, a page each. */
static void set_up(void)
{
	const struct vhost_user_memory table = {
		.nregions = 1, .regions = { { 0, MEMORY_SIZE, UVA, 0 } },
	};
	const struct vhost_user_vring_addr addr = {
		.desc = UVA, .avail = UVA + PAGE, .used = UVA + 2 * PAGE,
	};

	send_u64(VHOST_USER_SET_FEATURES, 1ULL << VHOST_USER_F_PROTOCOL_FEATURES |
		 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_BLK_F_FLUSH, -1);
	send_fd(VHOST_USER_SET_MEM_TABLE, &table, 40, memory_fd);
	send_state(VHOST_USER_SET_VRING_NUM, 0, SIZE);
	send_state(VHOST_USER_SET_VRING_BASE, 0, 0);
	send_fd(VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	send_u64(VHOST_USER_SET_VRING_CALL, 0, call);
	send_u64(VHOST_USER_SET_VRING_KICK, 0, kick);
	send_state(VHOST_USER_SET_VRING_ENABLE, 0, 1);
}

/* The status of a request of a sector; 0xff where there is no completion. */
static uint8_t request(uint32_t type, uint64_t sector)
{
	const struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	const uint16_t flags = type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0;
	struct vring_desc *desc = (void *)memory;
	struct vring_avail *avail = (void *)(memory + PAGE);
	const struct vring_used *used = (void *)(memory + 2 * PAGE);
	struct pollfd wait = { .fd = call, .events = POLLIN };
	eventfd_t count;

	memcpy(memory + 4 * PAGE, &header, sizeof(header));
	memory[6 * PAGE] = 0xff;
	desc[0] = (struct vring_desc){ 4 * PAGE, sizeof(header), VRING_DESC_F_NEXT, 1 };
	desc[1] = (struct vring_desc){ 5 * PAGE, 512, flags | VRING_DESC_F_NEXT, 2 };
	desc[2] = (struct vring_desc){ 6 * PAGE, 1, VRING_DESC_F_WRITE, 0 };
	avail->ring[avail->idx % SIZE] = 0;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_SEQ_CST);
	eventfd_write(kick, 1);
	while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != avail->idx &&
	       poll(&wait, 1, TIMEOUT_MS) == 1)
		eventfd_read(call, &count);
	return memory[6 * PAGE];
}

static void begin(void)
{
	int fd = open(disk_path, O_CREAT | O_TRUNC | O_RDWR, 0600);

	EXPECT(!ftruncate(fd, DISK_SIZE));
	close(fd);
	memory_fd = memfd_create("guest", MFD_CLOEXEC);
	EXPECT(!ftruncate(memory_fd, MEMORY_SIZE));
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void end(void)
{
	close(front);
	close(call);
	close(kick);
	munmap(memory, MEMORY_SIZE);
	close(memory_fd);
}

static void test_serves(void)
{
	begin();
	start_with("--direct", -1);
	EXPECT(attach());
	set_up();
	memset(memory + 5 * PAGE, 0x3c, 512);
	EXPECT(request(VIRTIO_BLK_T_OUT, 9) == VIRTIO_BLK_S_OK);
	EXPECT(request(VIRTIO_BLK_T_FLUSH, 0) == VIRTIO_BLK_S_OK);
	memset(memory + 5 * PAGE, 0, 512);
	EXPECT(request(VIRTIO_BLK_T_IN, 9) == VIRTIO_BLK_S_OK);
	EXPECT(memory[5 * PAGE] == 0x3c && memory[5 * PAGE + 511] == 0x3c);
	EXPECT(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512) == VIRTIO_BLK_S_IOERR);
	kill(child, SIGTERM);
	EXPECT(ended() == 0);
	end();
}

/* What breaks a rule is dropped; the next front end is served, by the same process. */
static void test_drops_and_goes_on(void)
{
	begin();
	start_with("--read-only", -1);
	for (uint32_t i = 0; i < 5; i++) {
		EXPECT(attach());
		set_up();
		send_fd(200 + i, "garbage", 7, memory_fd);
		EXPECT(dropped());
		close(front);
		memset(memory, 0, MEMORY_SIZE);
	}
	EXPECT(attach());
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	EXPECT(request(VIRTIO_BLK_T_OUT, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(waitpid(child, NULL, WNOHANG) == 0);
	kill(child, SIGTERM);
	EXPECT(ended() == 0);
	end();
}

static void test_once(void)
{
	begin();
	start_with("--once", -1);
	EXPECT(attach());
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	shutdown(front, SHUT_RDWR);
	EXPECT(ended() == 0);
	end();
}

/* A socket that is handed over, already connected. */
static void test_handed_over(void)
{
	int pair[2];

	begin();
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	start_with(NULL, pair[1]);
	close(pair[1]);
	front = pair[0];
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	shutdown(front, SHUT_RDWR);
	EXPECT(ended() == 0);
	end();
}

static void test_resize_is_announced(void)
{
	struct { struct vhost_user_config head; } config = { .head.size = 8 };
	struct vhost_user_header header = { 0 };
	uint64_t capacity = 0;
	int pair[2];

	begin();
	start_with(NULL, -1);
	EXPECT(attach());
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	send_u64(VHOST_USER_SET_PROTOCOL_FEATURES, 1ULL << VHOST_USER_PROTOCOL_F_CONFIG |
		 1ULL << VHOST_USER_PROTOCOL_F_BACKEND_REQ, -1);
	send_fd(VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, pair[1]);
	close(pair[1]);
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	EXPECT(!truncate(disk_path, 3 * DISK_SIZE));
	kill(child, SIGHUP);
	EXPECT(recv(pair[0], &header, sizeof(header), MSG_WAITALL) == sizeof(header));
	EXPECT(header.request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
	send_fd(VHOST_USER_GET_CONFIG, &config, VHOST_USER_CONFIG_HEAD + 8, -1);
	EXPECT(receive(&config, VHOST_USER_CONFIG_HEAD + 8));
	memcpy(&capacity, config.head.region, sizeof(capacity));
	EXPECT(capacity == 3 * DISK_SIZE / 512);
	EXPECT(request(VIRTIO_BLK_T_IN, capacity - 1) == VIRTIO_BLK_S_OK);
	close(pair[0]);
	kill(child, SIGTERM);
	EXPECT(ended() == 0);
	end();
}

/* kill -9 between two requests: the next process goes on where the ring is. */
static void test_killed_and_started(void)
{
	struct vhost_user_inflight area = { .num_queues = 1, .queue_size = SIZE };
	int fd = -1;

	begin();
	for (unsigned int i = 0; i < 4; i++) {
		start_with(NULL, -1);
		EXPECT(attach());
		if (fd < 0) {
			fd = memfd_create("inflight", MFD_CLOEXEC);
			EXPECT(!ftruncate(fd, PAGE));
			area.mmap_size = PAGE;
		}
		send_fd(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd);
		set_up();
		EXPECT(request(VIRTIO_BLK_T_IN, i) == VIRTIO_BLK_S_OK);
		EXPECT(((struct vring_used *)(memory + 2 * PAGE))->idx == i + 1);
		kill(child, SIGKILL);
		EXPECT(ended() == -SIGKILL);
		close(front);
	}
	close(fd);
	end();
}

static void test_command_line(void)
{
	static const char *const bad[] = {
		"", "--disk x", "--disk x --fd 0 --socket y", "--disk x --fd -1", "--disk x --socket y z",
		"--disk x --fd 3 --queues 0", "--disk x --fd 3 --queues 17", "--disk x --fd 3 --uid -1",
		"--disk x --fd 3 --uid 1",
		"--disk x --fd 3 --bytes-per-second 0", "--disk x --fd 3 --nonsense",
		"--disk x --fd 3 --serial more-than-twenty-bytes",
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		char line[256];

		snprintf(line, sizeof(line), PROGRAM " %s 2>/dev/null", bad[i]);
		EXPECT(WEXITSTATUS(system(line)) == 2);
	}
	EXPECT(WEXITSTATUS(system(PROGRAM " --help >/dev/null")) == 0);
	EXPECT(WEXITSTATUS(system(PROGRAM " --disk /none --fd 0 2>/dev/null")) == 1);
}

static const struct unit_test tests[] = {
	{ "a disk is served", test_serves },
	{ "a front end that breaks a rule is dropped, the next one served", test_drops_and_goes_on },
	{ "--once", test_once },
	{ "a connected socket, handed over", test_handed_over },
	{ "another size is announced", test_resize_is_announced },
	{ "killed and started again", test_killed_and_started },
	{ "command lines that are none", test_command_line },
};

int main(void)
{
	int status;

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(folder))
		return 1;
	snprintf(disk_path, sizeof(disk_path), "%s/disk", folder);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	status = unit_main(tests, ARRAY_SIZE(tests));
	unlink(disk_path);
	unlink(socket_path);
	rmdir(folder);
	return status;
}
