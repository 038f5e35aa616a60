// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the back end of vhost-user. The input is one message after the other: request,
 * number of descriptors (and whether a reply is asked for), length, payload. Behind is a device
 * that takes what is in its rings and gives it back; guest memory is a file that begins with the
 * input, and so is the record of requests in flight. No descriptor may stay open.
 */
#include <errno.h>
#include <stdbool.h>

#include "devmodel/virtq.h"
#include "selftests/unit/vhost_user_front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define QUEUES		2
#define MEMORY_SIZE	0x10000

struct record {
	uint8_t request;
	uint8_t fds;
	uint16_t size;
};

static uint64_t fuzz_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

static void fuzz_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	static const char config[60];

	(void)dev;
	memcpy(buf, config + offset, len);
}

static void fuzz_serve(struct virtq *vq)
{
	static struct virtq_chain chain;
	uint8_t buf[64];

	for (unsigned int i = 0; i < 64 && virtq_pop(vq, &chain) > 0; i++) {
		chain_read(&chain, buf, sizeof(buf));
		virtq_push(vq, &chain, chain_write(&chain, buf, sizeof(buf)));
		virtq_notify(vq);
	}
	virtq_kick_enable(vq);
}

static int fuzz_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		      const struct dev_vring *rings)
{
	static struct virtq vq;

	(void)dev;
	for (unsigned int i = 0; i < QUEUES; i++) {
		int err = rings[i].size ? virtq_init(&vq, memory, &rings[i], features) : 0;

		if (err)
			return err;
		if (rings[i].size)
			fuzz_serve(&vq);
	}
	return 0;
}

static void fuzz_stop(struct device *dev)
{
	(void)dev;
}

static const struct device_ops fuzz_ops = {
	.name = "fuzz", .queue_count = QUEUES, .queue_size_max = VIRTQ_SIZE_MAX,
	.config_size = 60, .features = fuzz_features, .config_read = fuzz_config_read,
	.start = fuzz_start, .stop = fuzz_stop,
};

static struct device device = { .ops = &fuzz_ops };

static void fuzz_message(const struct record *record, const uint8_t *payload, size_t size,
			 const int *fds)
{
	static uint8_t replies[8192];

	front_send(record->request, record->fds & 0x80 ? VHOST_USER_FLAG_NEED_REPLY : 0, payload,
		   size, fds, record->fds % 10);
	if (backend_serve(backend) < 0) {
		front_detach();
		front_attach();
	}
	while (recv(front, replies, sizeof(replies), MSG_DONTWAIT) > 0)
		;
}

/* The lowest number that is free tells whether one was lost. */
static int next_descriptor(void)
{
	int fd = dup(STDIN_FILENO);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const int next = next_descriptor();
	struct record record;
	int fds[9];

	for (unsigned int i = 0; i < 9; i++)
		fds[i] = memfd_create("guest", MFD_CLOEXEC);
	if (ftruncate(fds[0], MEMORY_SIZE) || pwrite(fds[0], data, size, 0) < 0 ||
	    backend_create(&device, &backend))
		abort();
	for (unsigned int i = 1; i < 9; i++)
		dup2(fds[0], fds[i]);
	front_attach();
	while (size >= sizeof(record)) {
		memcpy(&record, data, sizeof(record));
		data += sizeof(record);
		size -= sizeof(record);
		record.size = record.size % 512 < size ? record.size % 512 : size;
		fuzz_message(&record, data, record.size, fds);
		data += record.size;
		size -= record.size;
	}
	front_detach();
	backend_destroy(backend);
	for (unsigned int i = 0; i < 9; i++)
		close(fds[i]);
	if (next_descriptor() != next)
		abort();
	return 0;
}
