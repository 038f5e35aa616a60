/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A front end, and a driver, for tests of device programs: the program is a process of its own, in
 * its sandbox; this test is all that it meets.
 */
#ifndef MOAT_PROGRAM_FRONT_H
#define MOAT_PROGRAM_FRONT_H

#include <fcntl.h>
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

#include "devmodel/virtq.h"
#include "include/moat/vhost_user.h"
#include "selftests/unit/unit.h"
#include "userspace/lib/array.h"

#define RINGS_MAX	6
#define SIZE		16
#define PAGE		4096
#define DATA		(4 * RINGS_MAX * PAGE)	/* what the rings leave of memory */
#define MEMORY_SIZE	(DATA + 64 * PAGE)
#define UVA		0x100000
#define TIMEOUT_MS	5000
#define QUIET_MS	200

static char folder[] = "/tmp/moat-device.XXXXXX";
static char socket_path[64];
static pid_t child;
static int front = -1, memory_fd, call[RINGS_MAX], kick[RINGS_MAX];
static uint16_t used_seen[RINGS_MAX];
static uint8_t *memory;

/* Messages */

static inline void send_fd(uint32_t request, const void *payload, uint32_t size, int fd)
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

static inline void send_u64(uint32_t request, uint64_t value, int fd)
{
	send_fd(request, &value, sizeof(value), fd);
}

static inline void send_state(uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_user_vring_state state = { index, num };

	send_fd(request, &state, sizeof(state), -1);
}

static inline bool receive(void *buf, size_t len)
{
	struct vhost_user_header header;

	return recv(front, &header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
	       header.size == len && recv(front, buf, len, MSG_WAITALL) == (ssize_t)len;
}

/* The end of the stream, which a front end that is dropped gets. */
static inline bool dropped(void)
{
	struct pollfd wait = { .fd = front, .events = POLLIN };
	char byte;

	return poll(&wait, 1, TIMEOUT_MS) == 1 && recv(front, &byte, 1, 0) <= 0;
}

/* The program */

/* @argv begins with the program's path, and ends with NULL. */
static inline void program_start(const char *const *argv)
{
	child = fork();
	if (child)
		return;
	signal(SIGPIPE, SIG_DFL);
	execv(argv[0], (char **)argv);
	_exit(127);
}

/* Its exit status; minus the signal that it died of. */
static inline int program_ended(void)
{
	int status = 0;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline int program_end(int signal)
{
	kill(child, signal);
	return program_ended();
}

/* Started with a command line, does it end with a status? */
static inline bool program_exits(const char *path, const char *line, int status)
{
	char command[256];

	snprintf(command, sizeof(command), "%s %s >/dev/null 2>&1", path, line);
	return WEXITSTATUS(system(command)) == status;
}

static inline bool front_connect(void)
{
	const struct timeval limit = { .tv_sec = 5 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, socket_path);
	for (int i = 0; i < 100; i++) {
		front = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(front, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (!connect(front, (struct sockaddr *)&address, sizeof(address)))
			return true;
		close(front);
		usleep(50000);
	}
	return false;
}

/* Rings: descriptors, driver area, device area, a page each, and one between them */

static inline void *ring_page(unsigned int ring, unsigned int page)
{
	return memory + (4 * ring + page) * PAGE;
}

static inline void ring_set_up(unsigned int ring)
{
	const uint64_t base = UVA + 4 * ring * PAGE;
	const struct vhost_user_vring_addr addr = {
		.index = ring, .desc = base, .avail = base + PAGE, .used = base + 2 * PAGE,
	};
	const struct vring_used *used = ring_page(ring, 2);

	used_seen[ring] = used->idx;
	send_state(VHOST_USER_SET_VRING_NUM, ring, SIZE);
	send_state(VHOST_USER_SET_VRING_BASE, ring, used->idx);
	send_fd(VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	send_u64(VHOST_USER_SET_VRING_CALL, ring, call[ring]);
	send_u64(VHOST_USER_SET_VRING_KICK, ring, kick[ring]);
	send_state(VHOST_USER_SET_VRING_ENABLE, ring, 1);
}

static inline void front_set_up(uint64_t features, unsigned int rings)
{
	const struct vhost_user_memory table = {
		.nregions = 1, .regions = { { 0, MEMORY_SIZE, UVA, 0 } },
	};

	send_u64(VHOST_USER_SET_FEATURES, features | 1ULL << VHOST_USER_F_PROTOCOL_FEATURES |
		 1ULL << VIRTIO_F_VERSION_1, -1);
	send_fd(VHOST_USER_SET_MEM_TABLE, &table, 40, memory_fd);
	for (unsigned int i = 0; i < rings; i++)
		ring_set_up(i);
}

static inline void ring_describe(unsigned int ring, uint16_t index, uint64_t address, uint32_t len,
				 uint16_t flags)
{
	((struct vring_desc *)ring_page(ring, 0))[index] = (struct vring_desc){
		.addr = address, .len = len, .flags = flags, .next = index + 1,
	};
}

static inline void ring_submit(unsigned int ring, uint16_t head)
{
	struct vring_avail *avail = ring_page(ring, 1);

	avail->ring[avail->idx % SIZE] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_SEQ_CST);
	eventfd_write(kick[ring], 1);
}

/* Waits for the next completion, whose length is returned; -1 where none comes. */
static inline int64_t ring_complete(unsigned int ring, int timeout)
{
	const struct vring_used *used = ring_page(ring, 2);
	struct pollfd wait = { .fd = call[ring], .events = POLLIN };
	eventfd_t count;

	while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == used_seen[ring]) {
		if (poll(&wait, 1, timeout) != 1)
			return -1;
		eventfd_read(call[ring], &count);
	}
	return used->ring[used_seen[ring]++ % SIZE].len;
}

/* The test */

static inline void front_begin(void)
{
	memory_fd = memfd_create("guest", MFD_CLOEXEC);
	EXPECT(!ftruncate(memory_fd, MEMORY_SIZE));
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
	for (unsigned int i = 0; i < RINGS_MAX; i++) {
		call[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
}

static inline void front_end(void)
{
	close(front);
	for (unsigned int i = 0; i < RINGS_MAX; i++) {
		close(call[i]);
		close(kick[i]);
	}
	munmap(memory, MEMORY_SIZE);
	close(memory_fd);
}

/* A folder for the socket, and for files of the test, which are gone before the end. */
static inline bool program_tests_begin(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(folder))
		return false;
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	return true;
}

static inline void program_tests_end(void)
{
	unlink(socket_path);
	rmdir(folder);
}

#endif
