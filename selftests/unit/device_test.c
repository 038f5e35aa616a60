// SPDX-License-Identifier: MIT OR GPL-2.0
/* The devices, driven over their rings as by a guest's driver, with files and sockets behind. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmodel/blk/blk.h"
#include "devmodel/console/console.h"
#include "devmodel/balloon/balloon.h"
#include "devmodel/rng/rng.h"
#include "selftests/unit/device_driver.h"
#include "userspace/lib/fd.h"

#define DISK_SECTORS	64
#define STREAM_BYTES	300000

/* blk */

static int disk;

static int blk_make(int fd, bool read_only)
{
	const struct blk_options options = {
		.fd = fd, .direct_fd = -1, .read_only = read_only, .queues = 1,
	};

	return blk_create(&options, &device);
}

static void blk_fill(void)
{
	uint8_t sector[512];

	for (unsigned int i = 0; i < DISK_SECTORS; i++) {
		memset(sector, i, sizeof(sector));
		EXPECT(write(disk, sector, sizeof(sector)) == sizeof(sector));
	}
}

static void blk_begin(bool read_only)
{
	begin();
	disk = memfd_create("disk", 0);
	blk_fill();
	EXPECT(!blk_make(dup(disk), read_only));
	start(RING_FEATURES | 1ULL << VIRTIO_BLK_F_FLUSH);
}

static void blk_end(void)
{
	stop();
	end();
	close(disk);
}

/* Return: the status; 0xff, which is none, where no completion comes. */
static uint8_t blk_do(uint32_t type, uint64_t sector, uint32_t len, bool to_guest)
{
	struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	uint8_t *status = at(0, AREA_DATA + 0x8000);

	memcpy(at(0, AREA_DATA), &header, sizeof(header));
	*status = 0xff;
	/* The header in two pieces: framing is the driver's choice. */
	put(0, 0, AREA_DATA, 5, VRING_DESC_F_NEXT);
	put(0, 1, AREA_DATA + 5, sizeof(header) - 5, VRING_DESC_F_NEXT);
	put(0, 2, AREA_DATA + 0x1000, len, VRING_DESC_F_NEXT | (to_guest ? VRING_DESC_F_WRITE : 0));
	put(0, 3, AREA_DATA + 0x8000, 1, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) >= 0);
	return *status;
}

static bool blk_data_is(uint8_t value, uint32_t len)
{
	const uint8_t *data = at(0, AREA_DATA + 0x1000);

	for (uint32_t i = 0; i < len; i++)
		if (data[i] != value)
			return false;
	return true;
}

static uint8_t blk_disk_byte(unsigned int sector)
{
	uint8_t byte = 0;

	EXPECT(pread(disk, &byte, 1, sector * 512) == 1);
	return byte;
}

static void test_blk_transfers(void)
{
	struct virtio_blk_config config;

	blk_begin(false);
	device->ops->config_read(device, 0, &config, sizeof(config));
	EXPECT(config.capacity == DISK_SECTORS && config.blk_size == 512);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 7, 512, true) == VIRTIO_BLK_S_OK && blk_data_is(7, 512));
	memset(at(0, AREA_DATA + 0x1000), 0xab, 1024);
	EXPECT(blk_do(VIRTIO_BLK_T_OUT, 62, 1024, false) == VIRTIO_BLK_S_OK);
	EXPECT(blk_disk_byte(62) == 0xab && blk_disk_byte(63) == 0xab && blk_disk_byte(61) == 61);
	EXPECT(blk_do(VIRTIO_BLK_T_FLUSH, 0, 0, false) == VIRTIO_BLK_S_OK);
	EXPECT(blk_do(VIRTIO_BLK_T_GET_ID, 0, 20, true) == VIRTIO_BLK_S_OK);
	EXPECT(strlen(at(0, AREA_DATA + 0x1000)) == 16);
	EXPECT(blk_do(99, 0, 512, true) == VIRTIO_BLK_S_UNSUPP);
	blk_end();
}

static void test_blk_bounds(void)
{
	blk_begin(false);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, UINT64_MAX, 512, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 1ULL << 55, 512, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 0, 511, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_OUT, DISK_SECTORS, 512, false) == VIRTIO_BLK_S_IOERR);
	EXPECT(lseek(disk, 0, SEEK_END) == DISK_SECTORS * 512);
	EXPECT(!ftruncate(disk, 512));
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 5, 512, true) == VIRTIO_BLK_S_IOERR);
	blk_end();
}

static void test_blk_read_only(void)
{
	blk_begin(true);
	EXPECT(device->ops->features(device) >> VIRTIO_BLK_F_RO & 1);
	EXPECT(blk_do(VIRTIO_BLK_T_OUT, 0, 512, false) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 3, 512, true) == VIRTIO_BLK_S_OK && blk_data_is(3, 512));
	blk_end();
}

static uint8_t blk_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = sector, .num_sectors = sectors, .flags = flags,
	};

	memcpy(at(0, AREA_DATA + 0x1000), &range, sizeof(range));
	return blk_do(type, 0, sizeof(range), false);
}

static void test_blk_ranges(void)
{
	const uint32_t zeroes = VIRTIO_BLK_T_WRITE_ZEROES;

	blk_begin(false);
	EXPECT(blk_range(zeroes, 10, 2, 0) == VIRTIO_BLK_S_OK);
	EXPECT(!blk_disk_byte(10) && !blk_disk_byte(11));
	EXPECT(blk_disk_byte(9) == 9 && blk_disk_byte(12) == 12);
	EXPECT(blk_range(zeroes, 20, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) == VIRTIO_BLK_S_OK);
	EXPECT(!blk_disk_byte(20) && blk_disk_byte(21) == 21);
	EXPECT(blk_range(VIRTIO_BLK_T_DISCARD, 30, 8, 0) == VIRTIO_BLK_S_OK);
	EXPECT(blk_range(zeroes, DISK_SECTORS - 1, 2, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_range(zeroes, UINT64_MAX, UINT32_MAX, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_range(zeroes, 0, 1, 2) == VIRTIO_BLK_S_UNSUPP);
	EXPECT(blk_range(VIRTIO_BLK_T_DISCARD, 0, 1, 1) == VIRTIO_BLK_S_UNSUPP);
	EXPECT(lseek(disk, 0, SEEK_END) == DISK_SECTORS * 512);
	blk_end();
}

/* No header, no status, nothing at all: completed, or dropped, and the next request is served. */
static void test_blk_malformed(void)
{
	blk_begin(false);
	put(0, 0, AREA_DATA, 16, 0);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 0);
	put(0, 0, AREA_DATA, 0, 0);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 0);
	put(0, 0, AREA_DATA, 15, VRING_DESC_F_NEXT);
	put(0, 1, AREA_DATA + 0x8000, 1, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 1);
	EXPECT(*(uint8_t *)at(0, AREA_DATA + 0x8000) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 4, 512, true) == VIRTIO_BLK_S_OK && blk_data_is(4, 512));
	blk_end();
}

/* A broken ring is reported; stop and start make a new one. */
static void test_blk_broken_and_restarted(void)
{
	struct pollfd wait;
	eventfd_t count;

	blk_begin(false);
	kick(0, SIZE);
	wait = (struct pollfd){ .fd = ring[0].err, .events = POLLIN };
	EXPECT(poll(&wait, 1, TIMEOUT_MS) == 1 && !eventfd_read(ring[0].err, &count));
	for (int i = 0; i < 3; i++) {
		stop();
		start(i % 2 ? 0 : RING_FEATURES);
		EXPECT(blk_do(VIRTIO_BLK_T_IN, 9, 512, true) == VIRTIO_BLK_S_OK);
		EXPECT(blk_data_is(9, 512));
	}
	blk_end();
}

static void test_blk_refuses_files(void)
{
	int fd = memfd_create("disk", 0), fds[2];

	EXPECT(blk_make(fd, false) == -EINVAL);
	EXPECT(!ftruncate(fd, 1000) && blk_make(fd, false) == -EINVAL);
	EXPECT(!pipe(fds) && blk_make(fds[0], false) == -ENOTBLK);
	close(fds[0]);
	close(fds[1]);
	close(fd);
}

static void blk_begin_with(struct blk_options options)
{
	begin();
	disk = memfd_create("disk", 0);
	blk_fill();
	options.fd = dup(disk);
	options.direct_fd = -1;
	EXPECT(!blk_create(&options, &device));
	start(RING_FEATURES | 1ULL << VIRTIO_BLK_F_FLUSH);
}

static void test_blk_serial(void)
{
	blk_begin_with((struct blk_options){ .queues = 1, .serial = "twenty bytes exactly" });
	memset(at(0, AREA_DATA + 0x1000), 0x55, 24);
	EXPECT(blk_do(VIRTIO_BLK_T_GET_ID, 0, 24, true) == VIRTIO_BLK_S_OK);
	EXPECT(!memcmp(at(0, AREA_DATA + 0x1000), "twenty bytes exactly\x55", 21));
	blk_end();
}

/* A read of a sector by any queue, without waiting for it. */
static void blk_submit_read(unsigned int queue, uint16_t head, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN, .sector = sector };
	const uint32_t offset = AREA_DATA + head * 0x400;

	memcpy(at(queue, offset), &header, sizeof(header));
	put(queue, head, offset, sizeof(header), VRING_DESC_F_NEXT);
	put(queue, head + 1, offset + 0x100, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE);
	put(queue, head + 2, offset + 0x300, 1, VRING_DESC_F_WRITE);
	kick(queue, head);
}

static bool blk_read_is(unsigned int queue, uint16_t head, uint8_t value)
{
	const uint8_t *data = at(queue, AREA_DATA + head * 0x400 + 0x100);

	return data[0] == value && data[511] == value && data[0x200] == VIRTIO_BLK_S_OK;
}

static void test_blk_queues(void)
{
	struct virtio_blk_config config;

	blk_begin_with((struct blk_options){ .queues = 2 });
	EXPECT(device->ops->queue_count == 2);
	EXPECT(device->ops->features(device) >> VIRTIO_BLK_F_MQ & 1);
	device->ops->config_read(device, 0, &config, sizeof(config));
	EXPECT(config.num_queues == 2);
	for (unsigned int i = 0; i < 500; i++) {
		blk_submit_read(0, 0, i % 64);
		blk_submit_read(0, 3, (i + 1) % 64);
		blk_submit_read(1, 0, (i + 2) % 64);
		EXPECT(complete(1, TIMEOUT_MS) == 513);
		EXPECT(complete(0, TIMEOUT_MS) == 513 && complete(0, TIMEOUT_MS) == 513);
		EXPECT(blk_read_is(0, 0, i % 64) && blk_read_is(0, 3, (i + 1) % 64));
		EXPECT(blk_read_is(1, 0, (i + 2) % 64));
	}
	blk_end();
}

/* 40 requests of which 100 fit in a second, after a burst of a tenth of one. */
static void test_blk_limits(void)
{
	const struct blk_options limits[] = {
		{ .queues = 1, .ops_per_second = 100 },
		{ .queues = 1, .bytes_per_second = 100 * (16 + 512 + 1) },
	};

	for (unsigned int i = 0; i < 2; i++) {
		uint64_t from, took;

		blk_begin_with(limits[i]);
		from = now_ms();
		for (unsigned int j = 0; j < 40; j++)
			EXPECT(blk_do(VIRTIO_BLK_T_IN, j, 512, true) == VIRTIO_BLK_S_OK);
		took = now_ms() - from;
		EXPECT(took >= 250 && took < 1500);
		blk_end();
	}
}

/* A device that waits for its limit stops all the same, and what it did not take is not lost. */
static void test_blk_stops_within_limit(void)
{
	uint64_t from = now_ms();

	blk_begin_with((struct blk_options){ .queues = 1, .bytes_per_second = 1 });
	blk_submit_read(0, 0, 1);
	EXPECT(complete(0, TIMEOUT_MS) == 513);
	blk_submit_read(0, 3, 2);
	EXPECT(complete(0, QUIET_MS) < 0);
	blk_end();
	EXPECT(now_ms() - from < 1000);
}

static void test_blk_resize(void)
{
	struct virtio_blk_config config;

	blk_begin(false);
	EXPECT(blk_resize(device) == 0);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true) == VIRTIO_BLK_S_IOERR);
	EXPECT(!ftruncate(disk, 2 * DISK_SECTORS * 512) && blk_resize(device) == 1);
	device->ops->config_read(device, 0, &config, sizeof(config));
	EXPECT(config.capacity == 2 * DISK_SECTORS);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true) == VIRTIO_BLK_S_OK);
	EXPECT(!ftruncate(disk, 100) && blk_resize(device) == -EINVAL);
	blk_end();
}

/* Memory of the kernel's own, which direct I/O refuses as it does a window of Moat's. */
static void *unpinnable_page(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	void *page = NULL;
	char line[256];

	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "[vvar]"))
			page = (void *)strtoul(line, NULL, 16);
	fclose(maps);
	return page;
}

/* A write of 512 bytes from @gpa, which is in the second region. */
static uint8_t blk_write_from(uint64_t gpa, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_OUT, .sector = sector };
	uint8_t *status = at(0, AREA_DATA + 0x8000);

	memcpy(at(0, AREA_DATA), &header, sizeof(header));
	*status = 0xff;
	put(0, 0, AREA_DATA, sizeof(header), VRING_DESC_F_NEXT);
	put(0, 1, 0, 512, VRING_DESC_F_NEXT);
	((struct vring_desc *)at(0, 0))[1].addr = gpa;
	put(0, 2, AREA_DATA + 0x8000, 1, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) >= 0);
	return *status;
}

/* Where direct I/O is not possible, of one request or of this memory at all, it is not needed. */
static void test_blk_direct(void)
{
	char path[] = "/tmp/moat-disk.XXXXXX";
	struct blk_options options = { .queues = 1 };
	void *page = unpinnable_page();

	begin();
	disk = mkstemp(path);
	blk_fill();
	options.fd = dup(disk);
	options.direct_fd = open(path, O_RDWR | O_DIRECT);
	EXPECT(!blk_create(&options, &device));
	memory.count = page ? 2 : 1;
	memory.region[1] = (struct dev_region){ .gpa = 1 << 30, .size = 4096, .hva = page };
	start(RING_FEATURES | 1ULL << VIRTIO_BLK_F_FLUSH);
	/* test memory comes from malloc(): rarely aligned */
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 7, 512, true) == VIRTIO_BLK_S_OK && blk_data_is(7, 512));
	memset(at(0, AREA_DATA + 0x1000), 0xab, 1024);
	EXPECT(blk_do(VIRTIO_BLK_T_OUT, 62, 1024, false) == VIRTIO_BLK_S_OK);
	EXPECT(blk_disk_byte(62) == 0xab && blk_disk_byte(63) == 0xab);
	if (page)
		EXPECT(blk_write_from(1 << 30, 3) == VIRTIO_BLK_S_OK);
	EXPECT(blk_do(VIRTIO_BLK_T_IN, 5, 512, true) == VIRTIO_BLK_S_OK && blk_data_is(5, 512));
	memory.count = 1;
	unlink(path);
	blk_end();
}

/* balloon */

/* In memory that can have holes. How many of its pages from @first on are there? */
static unsigned int pages_present(unsigned int first, unsigned int count)
{
	unsigned char present[MEMORY_SIZE / 4096];
	unsigned int sum = 0;

	mincore((char *)memory.region[0].hva + first * 4096, count * 4096, present);
	for (unsigned int i = 0; i < count; i++)
		sum += present[i] & 1;
	return sum;
}

static void test_balloon(void)
{
	uint32_t *number, config[2] = { 0 }, asked, actual;
	void *heap;

	begin();
	heap = memory.region[0].hva;
	memory.region[0].hva = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(!balloon_create(77, &device));
	device->ops->config_read(device, 0, config, 8);
	EXPECT(config[0] == 77 && device->ops->config_size == 8);
	config[1] = 5;
	device->ops->config_write(device, 4, &config[1], 4);
	device->ops->config_write(device, 0, &config[1], 4);
	device->ops->config_read(device, 0, config, 8);
	EXPECT(config[0] == 77 && config[1] == 5);
	EXPECT(!fd_take_event(balloon_config_event(device)));
	balloon_ask(device, 9);
	EXPECT(fd_take_event(balloon_config_event(device)));
	device->ops->config_read(device, 0, config, 8);
	balloon_look(device, &asked, &actual);
	EXPECT(config[0] == 9 && asked == 9 && actual == 5);
	start(0);
	memset(at(4, 0), 0x5a, 0x40000);	/* pages 64 to 127 */
	number = at(0, AREA_DATA);
	memcpy(number, (uint32_t[]){ 70, 71, 72, 90, 0xffffffff, 0x40000, 100 }, 28);
	put(0, 0, AREA_DATA, 28, 0);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 0);
	EXPECT(pages_present(64, 64) == 59 && pages_present(70, 3) == 0);
	EXPECT(!pages_present(90, 1) && !pages_present(100, 1) && *(char *)at(4, 0x6000) == 0);
	put(2, 0, 0x38800, 0x3000, VRING_DESC_F_WRITE);		/* half of 122, 123 and 124, half of 125 */
	((struct vring_desc *)at(2, 0))->addr = 122 * 4096 + 2048;
	kick(2, 0);
	EXPECT(complete(2, TIMEOUT_MS) == 0);
	EXPECT(!pages_present(123, 2) && pages_present(122, 1) && pages_present(125, 1));
	put(1, 0, AREA_DATA, 28, 0);
	kick(1, 0);
	EXPECT(complete(1, TIMEOUT_MS) == 0);
	stop();
	munmap(memory.region[0].hva, MEMORY_SIZE);
	memory.region[0].hva = heap;
	end();
}

/* rng */

static void test_rng(void)
{
	static const uint8_t zero[64];

	begin();
	EXPECT(!rng_create(&device));
	start(RING_FEATURES);
	put(0, 0, AREA_DATA, sizeof(zero), VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == sizeof(zero));
	EXPECT(memcmp(at(0, AREA_DATA), zero, sizeof(zero)));
	EXPECT(!memcmp(at(0, AREA_DATA + sizeof(zero)), zero, sizeof(zero)));
	put(0, 0, AREA_DATA, sizeof(zero), 0);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 0);
	stop();
	end();
}

/* console */

static int host;

static void console_begin(void)
{
	int fds[2], small = 4096;

	begin();
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	EXPECT(!console_create(fds[0], fds[0], &device));
	host = fds[1];
	start(RING_FEATURES);
}

static void console_end(void)
{
	stop();
	end();
	close(host);
}

static void test_console_in(void)
{
	console_begin();
	put(0, 0, AREA_DATA, 4, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, QUIET_MS) < 0);
	EXPECT(write(host, "abcdef", 6) == 6);
	EXPECT(complete(0, TIMEOUT_MS) == 4 && !memcmp(at(0, AREA_DATA), "abcd", 4));
	/* Nobody had room for the rest, and it is still there. */
	put(0, 0, AREA_DATA, 4, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, TIMEOUT_MS) == 2 && !memcmp(at(0, AREA_DATA), "ef", 2));
	console_end();
}

/* The guest sends faster than the host reads: it waits, and no byte is lost. */
static void test_console_out(void)
{
	static uint8_t got[STREAM_BYTES];
	size_t sent = 0, have = 0, pending = 0;

	console_begin();
	while (have < sizeof(got)) {
		ssize_t n;

		if (!pending && sent < sizeof(got)) {
			pending = sizeof(got) - sent < 0x4000 ? sizeof(got) - sent : 0x4000;
			for (size_t i = 0; i < pending; i++)
				*(uint8_t *)at(1, AREA_DATA + i) = (sent + i) % 251;
			put(1, 0, AREA_DATA, pending, 0);
			kick(1, 0);
		}
		if (pending && complete(1, have % 2 ? 0 : 1) >= 0) {
			sent += pending;
			pending = 0;
		}
		n = recv(host, got + have, have % 1000 + 500 < sizeof(got) - have ?
			 have % 1000 + 500 : sizeof(got) - have, MSG_DONTWAIT);
		have += n > 0 ? n : 0;
	}
	for (size_t i = 0; i < sizeof(got); i++)
		if (got[i] != i % 251) {
			EXPECT(!"a byte was lost or changed");
			break;
		}
	console_end();
}

static void test_console_host_gone(void)
{
	console_begin();
	close(host);
	put(0, 0, AREA_DATA, 4, VRING_DESC_F_WRITE);
	kick(0, 0);
	EXPECT(complete(0, QUIET_MS) < 0);
	for (int i = 0; i < 100; i++) {
		put(1, 0, AREA_DATA, 4096, 0);
		kick(1, 0);
		EXPECT(complete(1, TIMEOUT_MS) == 0);
	}
	host = -1;
	console_end();
}

/* stop() comes back although the host reads nothing, and the next start is a fresh one. */
static void test_console_stop_while_blocked(void)
{
	char buf[65536];

	console_begin();
	do {
		put(1, 0, AREA_DATA, 0x8000, 0);
		kick(1, 0);
	} while (complete(1, QUIET_MS) >= 0);
	stop();
	while (recv(host, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	start(RING_FEATURES);
	memcpy(at(1, AREA_DATA), "again", 5);
	put(1, 0, AREA_DATA, 5, 0);
	kick(1, 0);
	EXPECT(complete(1, TIMEOUT_MS) == 0);
	EXPECT(recv(host, buf, sizeof(buf), 0) == 5 && !memcmp(buf, "again", 5));
	console_end();
}

/* console, with ports */

#define PORTS	3

enum { CONTROL_IN = 2, CONTROL_OUT = 3 };

static int far_end[PORTS];

static void ports_make(void)
{
	struct console_end ends[PORTS] = { { .name = NULL }, { .name = "agent" }, { .name = "log" } };

	for (unsigned int i = 0; i < PORTS; i++) {
		int fds[2];

		EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
		ends[i].in = fds[0];
		ends[i].out = fds[0];
		far_end[i] = fds[1];
	}
	EXPECT(!console_create_ports(ends, PORTS, &device));
}

static void ports_begin(uint64_t features)
{
	begin();
	ports_make();
	start(features);
}

static void ports_end(void)
{
	stop();
	end();
	for (unsigned int i = 0; i < PORTS; i++)
		close(far_end[i]);
}

static void control_say(uint32_t id, uint16_t event, uint16_t value)
{
	const struct virtio_console_control said = { .id = id, .event = event, .value = value };

	memcpy(at(CONTROL_OUT, AREA_DATA), &said, sizeof(said));
	put(CONTROL_OUT, 0, AREA_DATA, sizeof(said), 0);
	kick(CONTROL_OUT, 0);
	EXPECT(complete(CONTROL_OUT, TIMEOUT_MS) == 0);
}

/* Is that the next thing that the device says? With @name behind it. */
static bool control_hears(uint32_t id, uint16_t event, uint16_t value, const char *name)
{
	struct virtio_console_control said;
	int64_t len;

	put(CONTROL_IN, 0, AREA_DATA, 64, VRING_DESC_F_WRITE);
	kick(CONTROL_IN, 0);
	len = complete(CONTROL_IN, TIMEOUT_MS);
	memcpy(&said, at(CONTROL_IN, AREA_DATA), sizeof(said));
	return len == (int64_t)(sizeof(said) + strlen(name)) && said.id == id &&
	       said.event == event && said.value == value &&
	       !memcmp(at(CONTROL_IN, AREA_DATA + sizeof(said)), name, strlen(name));
}

static bool control_hears_all(void)
{
	bool all = true;

	for (unsigned int i = 0; i < PORTS; i++)
		all &= control_hears(i, VIRTIO_CONSOLE_PORT_ADD, 1, "");
	return all;
}

/* What is written to the other end arrives in a port's ring. */
static bool port_hears(unsigned int port, int timeout)
{
	const unsigned int queue = port ? 2 + 2 * port : 0;

	put(queue, 0, AREA_DATA, 16, VRING_DESC_F_WRITE);
	kick(queue, 0);
	return complete(queue, timeout) == 5 && !memcmp(at(queue, AREA_DATA), "hello", 5);
}

static bool port_says(unsigned int port)
{
	const unsigned int queue = port ? 3 + 2 * port : 1;
	char got[8];

	memcpy(at(queue, AREA_DATA), "world", 5);
	put(queue, 0, AREA_DATA, 5, 0);
	kick(queue, 0);
	return complete(queue, TIMEOUT_MS) == 0 &&
	       recv(far_end[port], got, sizeof(got), 0) == 5 && !memcmp(got, "world", 5);
}

static void test_ports(void)
{
	const uint64_t multiport = 1ULL << VIRTIO_CONSOLE_F_MULTIPORT;
	struct virtio_console_config config;

	ports_begin(RING_FEATURES | multiport);
	EXPECT(device->ops->features(device) & multiport && device->ops->queue_count == 8);
	device->ops->config_read(device, 0, &config, sizeof(config));
	EXPECT(config.max_nr_ports == PORTS);
	control_say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	EXPECT(control_hears_all());
	control_say(0, VIRTIO_CONSOLE_PORT_READY, 1);
	EXPECT(control_hears(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, ""));
	EXPECT(control_hears(0, VIRTIO_CONSOLE_PORT_OPEN, 1, ""));
	control_say(1, VIRTIO_CONSOLE_PORT_READY, 1);
	EXPECT(control_hears(1, VIRTIO_CONSOLE_PORT_NAME, 1, "agent"));
	EXPECT(control_hears(1, VIRTIO_CONSOLE_PORT_OPEN, 1, ""));
	/* Until the guest has a port open, there is nobody to hear. */
	for (unsigned int i = 0; i < PORTS; i++) {
		EXPECT(write(far_end[i], "hello", 5) == 5);
		EXPECT(port_says(i));
		EXPECT(!port_hears(i, QUIET_MS));
		control_say(i, VIRTIO_CONSOLE_PORT_OPEN, 1);
		EXPECT(complete(i ? 2 + 2 * i : 0, TIMEOUT_MS) == 5);
		EXPECT(write(far_end[i], "hello", 5) == 5 && port_hears(i, TIMEOUT_MS));
	}
	control_say(2, VIRTIO_CONSOLE_PORT_OPEN, 0);
	EXPECT(write(far_end[2], "hello", 5) == 5 && !port_hears(2, QUIET_MS));
	/* The host's end is gone: the guest is told, and other ports go on. */
	shutdown(far_end[1], SHUT_RDWR);
	EXPECT(!port_hears(1, QUIET_MS));
	EXPECT(control_hears(1, VIRTIO_CONSOLE_PORT_OPEN, 0, ""));
	EXPECT(port_says(0));
	ports_end();
}

/* A driver that knows nothing of ports has the first; one that talks nonsense gets no answer. */
static void test_ports_unknown(void)
{
	ports_begin(RING_FEATURES);
	EXPECT(write(far_end[0], "hello", 5) == 5 && port_hears(0, TIMEOUT_MS) && port_says(0));
	stop();
	start(RING_FEATURES | 1ULL << VIRTIO_CONSOLE_F_MULTIPORT);
	control_say(PORTS, VIRTIO_CONSOLE_PORT_READY, 1);
	control_say(UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control_say(0, 99, 1);
	put(CONTROL_OUT, 0, AREA_DATA, 7, 0);
	kick(CONTROL_OUT, 0);
	EXPECT(complete(CONTROL_OUT, TIMEOUT_MS) == 0);
	for (unsigned int i = 0; i < 100; i++)
		control_say(2, VIRTIO_CONSOLE_PORT_READY, 1);
	EXPECT(control_hears(2, VIRTIO_CONSOLE_PORT_NAME, 1, "log"));
	/* No room for all of what is said. */
	put(CONTROL_IN, 0, AREA_DATA, 3, VRING_DESC_F_WRITE);
	kick(CONTROL_IN, 0);
	EXPECT(complete(CONTROL_IN, TIMEOUT_MS) == 3);
	put(CONTROL_IN, 0, AREA_DATA, 64, VRING_DESC_F_WRITE);
	kick(CONTROL_IN, 0);
	EXPECT(complete(CONTROL_IN, QUIET_MS) < 0);
	ports_end();
}

/* A process that finds the conversation begun tells of all ports anew, and takes them for open. */
static void test_ports_taken_over(void)
{
	const uint64_t features = RING_FEATURES | 1ULL << VIRTIO_CONSOLE_F_MULTIPORT;

	ports_begin(features);
	control_say(0, VIRTIO_CONSOLE_PORT_OPEN, 0);
	stop();
	for (unsigned int i = 0; i < PORTS; i++)
		close(far_end[i]);
	device->ops->destroy(device);
	ports_make();
	start_again(features);
	EXPECT(write(far_end[1], "hello", 5) == 5 && port_hears(1, TIMEOUT_MS));
	EXPECT(control_hears_all());
	ports_end();
}

static void test_ports_refused(void)
{
	const struct console_end ends[CONSOLE_PORTS_MAX + 1] = { { .name = "", .in = 0, .out = 1 } };
	const struct console_end long_name = { .name = "a name of exactly 32 characters.", .in = 0 };
	const struct console_end closed[2] = { { .in = 0, .out = 1 }, { .in = 0, .out = -1 } };

	EXPECT(console_create_ports(ends, 0, &device) == -EINVAL);
	EXPECT(console_create_ports(ends, CONSOLE_PORTS_MAX + 1, &device) == -EINVAL);
	EXPECT(console_create_ports(ends, 1, &device) == -EINVAL);
	EXPECT(console_create_ports(&long_name, 1, &device) == -EINVAL);
	EXPECT(console_create_ports(closed, 2, &device) == -EBADF);
}

static void pack_rings(void)
{
	packed = true;
}

#define EACH_DEVICE \
	{ "blk: reads, writes, flushes", test_blk_transfers }, \
	{ "blk: sectors past the end are refused", test_blk_bounds }, \
	{ "blk: read-only", test_blk_read_only }, \
	{ "blk: discard and write zeroes", test_blk_ranges }, \
	{ "blk: malformed requests", test_blk_malformed }, \
	{ "blk: a broken ring, and a fresh start", test_blk_broken_and_restarted }, \
	{ "blk: files of no whole sectors are refused", test_blk_refuses_files }, \
	{ "blk: the serial number", test_blk_serial }, \
	{ "blk: queues beside each other", test_blk_queues }, \
	{ "blk: limits are kept", test_blk_limits }, \
	{ "blk: stops while a limit holds it back", test_blk_stops_within_limit }, \
	{ "blk: another size", test_blk_resize }, \
	{ "blk: direct I/O where it can be", test_blk_direct }, \
	{ "rng: fills what it may write, no more", test_rng }, \
	{ "console: input waits for room", test_console_in }, \
	{ "console: output waits for the reader", test_console_out }, \
	{ "console: goes on without a reader", test_console_host_gone }, \
	{ "console: stops while the reader sleeps", test_console_stop_while_blocked }, \
	{ "console: ports, and what is said of them", test_ports }, \
	{ "console: drivers without ports, and with nonsense", test_ports_unknown }, \
	{ "console: ports of a process before", test_ports_taken_over }, \
	{ "console: ports that cannot be", test_ports_refused }

static const struct unit_test tests[] = {
	EACH_DEVICE,
	{ "balloon: what is given up is there no more", test_balloon },
	{ "console: ports, and what is said of them", test_ports },
	{ "console: drivers without ports, and with nonsense", test_ports_unknown },
	{ "console: ports of a process before", test_ports_taken_over },
	{ "console: ports that cannot be", test_ports_refused },
	{ "from here on with packed rings:", pack_rings },
	EACH_DEVICE,
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
