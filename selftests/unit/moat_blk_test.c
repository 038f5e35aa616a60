// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * moat-blk, the program: in its sandbox, over its socket, with a driver that is this test. It is
 * taken from build/bin.
 */
#include <linux/virtio_blk.h>

#include "selftests/unit/program_front.h"

#define PROGRAM		"build/bin/moat-blk"
#define DISK_SIZE	(1 << 20)

static char disk_path[64];

static void start_with(const char *option)
{
	program_start((const char *[]){ PROGRAM, "--disk", disk_path, "--socket", socket_path,
					option, NULL });
}

static void set_up(void)
{
	front_set_up(1ULL << VIRTIO_BLK_F_FLUSH, 1);
}

/* The status of a request of a sector; 0xff where there is no completion. */
static uint8_t request(uint32_t type, uint64_t sector)
{
	const struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	const uint16_t flags = type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0;
	uint8_t *status = memory + DATA + 2 * PAGE;

	memcpy(memory + DATA, &header, sizeof(header));
	*status = 0xff;
	ring_describe(0, 0, DATA, sizeof(header), VRING_DESC_F_NEXT);
	ring_describe(0, 1, DATA + PAGE, 512, flags | VRING_DESC_F_NEXT);
	ring_describe(0, 2, DATA + 2 * PAGE, 1, VRING_DESC_F_WRITE);
	ring_submit(0, 0);
	ring_complete(0, TIMEOUT_MS);
	return *status;
}

static void begin(void)
{
	int fd = open(disk_path, O_CREAT | O_TRUNC | O_RDWR, 0600);

	EXPECT(!ftruncate(fd, DISK_SIZE));
	close(fd);
	front_begin();
}

static void test_serves(void)
{
	begin();
	start_with("--direct");
	EXPECT(front_connect());
	set_up();
	memset(memory + DATA + PAGE, 0x3c, 512);
	EXPECT(request(VIRTIO_BLK_T_OUT, 9) == VIRTIO_BLK_S_OK);
	EXPECT(request(VIRTIO_BLK_T_FLUSH, 0) == VIRTIO_BLK_S_OK);
	memset(memory + DATA + PAGE, 0, 512);
	EXPECT(request(VIRTIO_BLK_T_IN, 9) == VIRTIO_BLK_S_OK);
	EXPECT(memory[DATA + PAGE] == 0x3c && memory[DATA + PAGE + 511] == 0x3c);
	EXPECT(request(VIRTIO_BLK_T_IN, DISK_SIZE / 512) == VIRTIO_BLK_S_IOERR);
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* What breaks a rule is dropped; the next front end is served, by the same process. */
static void test_drops_and_goes_on(void)
{
	begin();
	start_with("--read-only");
	for (uint32_t i = 0; i < 5; i++) {
		EXPECT(front_connect());
		set_up();
		send_fd(200 + i, "garbage", 7, memory_fd);
		EXPECT(dropped());
		close(front);
		memset(memory, 0, MEMORY_SIZE);
	}
	EXPECT(front_connect());
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	EXPECT(request(VIRTIO_BLK_T_OUT, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(waitpid(child, NULL, WNOHANG) == 0);
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

static void test_once(void)
{
	begin();
	start_with("--once");
	EXPECT(front_connect());
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	shutdown(front, SHUT_RDWR);
	EXPECT(program_ended() == 0);
	front_end();
}

/* A socket that is handed over, already connected. */
static void test_handed_over(void)
{
	char number[16];
	int pair[2];

	begin();
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	snprintf(number, sizeof(number), "%d", pair[1]);
	program_start((const char *[]){ PROGRAM, "--disk", disk_path, "--fd", number, NULL });
	close(pair[1]);
	front = pair[0];
	set_up();
	EXPECT(request(VIRTIO_BLK_T_IN, 0) == VIRTIO_BLK_S_OK);
	shutdown(front, SHUT_RDWR);
	EXPECT(program_ended() == 0);
	front_end();
}

static void test_resize_is_announced(void)
{
	struct { struct vhost_user_config head; } config = { .head.size = 8 };
	struct vhost_user_header header = { 0 };
	uint64_t capacity = 0;
	int pair[2];

	begin();
	start_with(NULL);
	EXPECT(front_connect());
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
	EXPECT(program_end(SIGTERM) == 0);
	front_end();
}

/* kill -9 between two requests: the next process goes on where the ring is. */
static void test_killed_and_started(void)
{
	struct vhost_user_inflight area = { .num_queues = 1, .queue_size = SIZE };
	int fd = -1;

	begin();
	for (unsigned int i = 0; i < 4; i++) {
		start_with(NULL);
		EXPECT(front_connect());
		if (fd < 0) {
			fd = memfd_create("inflight", MFD_CLOEXEC);
			EXPECT(!ftruncate(fd, PAGE));
			area.mmap_size = PAGE;
		}
		send_fd(VHOST_USER_SET_INFLIGHT_FD, &area, sizeof(area), fd);
		set_up();
		EXPECT(request(VIRTIO_BLK_T_IN, i) == VIRTIO_BLK_S_OK);
		EXPECT(((struct vring_used *)ring_page(0, 2))->idx == i + 1);
		EXPECT(program_end(SIGKILL) == -SIGKILL);
		close(front);
	}
	close(fd);
	front_end();
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

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT(program_exits(PROGRAM, bad[i], 2));
	EXPECT(program_exits(PROGRAM, "--help", 0));
	EXPECT(program_exits(PROGRAM, "--disk /none --fd 0", 1));
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

	if (!program_tests_begin())
		return 1;
	snprintf(disk_path, sizeof(disk_path), "%s/disk", folder);
	status = unit_main(tests, ARRAY_SIZE(tests));
	unlink(disk_path);
	program_tests_end();
	return status;
}
