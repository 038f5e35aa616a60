// SPDX-License-Identifier: MIT OR GPL-2.0
/* moat-qcow2, the program: storage daemon in its sandbox, and proxy, with a driver that is this test. */
#include <linux/virtio_blk.h>

#include "selftests/unit/program_front.h"

#define PROGRAM	"build/bin/moat-qcow2"
#define SECTOR	512

static char image[80];

static void image_make(const char *options)
{
	char command[256];

	snprintf(image, sizeof(image), "%s/image", folder);
	snprintf(command, sizeof(command), "qemu-img create -q -f qcow2 %s %s 1M", options, image);
	EXPECT(!system(command));
}

static void start(const char *option)
{
	const struct timeval limit = { .tv_sec = 10 };
	char number[12];
	int ends[2];

	if (!EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends)))
		return;
	front = ends[0];
	fcntl(front, F_SETFD, FD_CLOEXEC);
	setsockopt(front, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	snprintf(number, sizeof(number), "%d", ends[1]);
	program_start((const char *[]){ PROGRAM, "--disk", image, "--fd", number, option, NULL });
	close(ends[1]);
}

/* A request of a sector; its status. */
static int request(uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr *head = (void *)(memory + DATA);
	uint8_t *status = memory + DATA + PAGE;

	*head = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	*status = 0xff;
	ring_describe(0, 0, DATA, sizeof(*head), VRING_DESC_F_NEXT);
	ring_describe(0, 1, DATA + 2 * PAGE, SECTOR, VRING_DESC_F_NEXT |
		      (type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0));
	ring_describe(0, 2, DATA + PAGE, 1, VRING_DESC_F_WRITE);
	ring_submit(0, 0);
	return ring_complete(0, TIMEOUT_MS) < 0 ? -1 : *status;
}

static bool holds(uint64_t sector, uint8_t byte)
{
	uint8_t *data = memory + DATA + 2 * PAGE;

	memset(data, ~byte, SECTOR);
	if (request(VIRTIO_BLK_T_IN, sector))
		return false;
	return data[0] == byte && !memcmp(data, data + 1, SECTOR - 1);
}

static uint64_t features(void)
{
	uint64_t value = 0;

	send_fd(VHOST_USER_GET_FEATURES, NULL, 0, -1);
	EXPECT(receive(&value, sizeof(value)));
	return value;
}

/* Each write is in the file when it is complete, however the daemon ends: no flush is needed. */
static void test_killed(void)
{
	image_make("");
	front_begin();
	for (unsigned int i = 0; i < 5; i++) {
		start(NULL);
		front_set_up(0, 1);
		for (unsigned int k = 0; k < i; k++)
			EXPECT(holds(k * 200, k + 1));
		memset(memory + DATA + 2 * PAGE, i + 1, SECTOR);
		EXPECT(!request(VIRTIO_BLK_T_OUT, i * 200));
		EXPECT(program_end(SIGKILL) == -SIGKILL && dropped());
		close(front);
	}
	front_end();
	unlink(image);
}

/* What the driver could choose, the write cache, is not offered; that it may flush is. */
static void test_features(void)
{
	image_make("");
	start(NULL);
	EXPECT((features() & (1ULL << VIRTIO_BLK_F_CONFIG_WCE | 1ULL << VIRTIO_BLK_F_FLUSH |
			      1ULL << VIRTIO_BLK_F_RO)) == 1ULL << VIRTIO_BLK_F_FLUSH);
	close(front);
	EXPECT(program_ended() == -SIGKILL);
	start("--read-only");
	EXPECT(features() & 1ULL << VIRTIO_BLK_F_RO);
	close(front);
	EXPECT(program_ended() == -SIGKILL);
	unlink(image);
}

static void test_read_only(void)
{
	image_make("");
	front_begin();
	start("--read-only");
	front_set_up(1ULL << VIRTIO_BLK_F_RO, 1);
	EXPECT(holds(0, 0));
	EXPECT(request(VIRTIO_BLK_T_OUT, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(holds(0, 0));
	front_end();
	EXPECT(program_ended() == -SIGKILL);
	unlink(image);
}

/* What is said to it, and is no message, ends both. */
static void test_no_message(void)
{
	const struct vhost_user_header long_one = { VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, 1 << 20 };

	image_make("");
	start(NULL);
	EXPECT(features());
	EXPECT(send(front, &long_one, sizeof(long_one), MSG_NOSIGNAL) == sizeof(long_one));
	EXPECT(dropped());
	close(front);
	EXPECT(program_ended() == -SIGKILL);
	unlink(image);
}

static pid_t proxy_of(pid_t pid)
{
	char path[64], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = '\0';
	close(fd);
	return atoi(text);
}

/* Without its proxy, a daemon is of no use, which the machine finds; it is ended by who started it. */
static void test_proxy_killed(void)
{
	pid_t proxy;

	image_make("");
	start(NULL);
	EXPECT(features());
	proxy = proxy_of(child);
	if (EXPECT(proxy > 1))
		kill(proxy, SIGKILL);
	EXPECT(dropped());
	EXPECT(program_end(SIGKILL) == -SIGKILL);
	close(front);
	unlink(image);
}

static void test_refused(void)
{
	char line[128];

	image_make("-u -b /etc/shadow -F raw");
	snprintf(line, sizeof(line), "--disk %s --fd 1", image);
	EXPECT(program_exits(PROGRAM, line, 1));
	EXPECT(!truncate(image, 0) && !truncate(image, 1 << 20));
	EXPECT(program_exits(PROGRAM, line, 1));
	unlink(image);
	EXPECT(program_exits(PROGRAM, line, 1));
	EXPECT(program_exits(PROGRAM, "", 2));
	EXPECT(program_exits(PROGRAM, "--disk x", 2));
	EXPECT(program_exits(PROGRAM, "--disk x --fd 1 --uid 7", 2));
	EXPECT(program_exits(PROGRAM, "--disk x --fd -1", 2));
	EXPECT(program_exits(PROGRAM, "--disk x --fd 1 more", 2));
	EXPECT(program_exits(PROGRAM, "--help", 0));
}

static const struct unit_test tests[] = {
	{ "a write that is complete is there after the daemon was killed", test_killed },
	{ "the guest is not offered a write cache that would be lost", test_features },
	{ "read-only: nothing is written", test_read_only },
	{ "what is no message ends it", test_no_message },
	{ "a proxy that was killed leaves the connection ended", test_proxy_killed },
	{ "images that name other files, or are none, and command lines that are none", test_refused },
};

int main(void)
{
	int status;

	if (access("/usr/bin/qemu-storage-daemon", X_OK)) {
		puts("1..0 # SKIP there is no qemu-storage-daemon");
		return 0;
	}
	if (!program_tests_begin())
		return 1;
	status = unit_main(tests, ARRAY_SIZE(tests));
	program_tests_end();
	return status;
}
