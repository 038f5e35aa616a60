// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the front end of vhost-user, and a back end that answers what the input says. That
 * is records: request, flags, number of descriptors, length, payload. All are in the sockets before
 * the front end says anything, so that it never waits; then it says all that there is to be said,
 * up to the first error. Those marked as requests of the back end's own come on the channel for
 * these.
 *
 * What must hold, beside that no sanitizer complains: no descriptor stays open, and nobody waits.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "userspace/lib/array.h"
#include "userspace/lib/clock.h"
#include "userspace/lib/log.h"
#include "userspace/vmm/vhost_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATIENCE_MS	10000
#define FDS_MAX		10
#define CONFIG		60

#define RECORD_OWN	0x80	/* a request of the back end's own */
#define RECORD_LIES	0x40	/* of its length */
#define RECORD_APART	0x20	/* payload and header, each with the descriptors */
#define RECORD_FDS	0x0f

struct record {
	uint8_t request;
	uint8_t flags;
	uint8_t how;
	uint8_t size;
};

static struct vhost_user user;
static int back, event;

/* What it complains of is of no interest. */
void log_error(const char *format, ...)
{
	(void)format;
}

/* The back end */

static void back_send(int to, const void *bytes, size_t len, unsigned int fds)
{
	union {
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr head;
	} control = { .head = {
		.cmsg_len = CMSG_LEN(fds * sizeof(int)), .cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	} };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	for (unsigned int i = 0; i < fds; i++)
		memcpy(CMSG_DATA(&control.head) + i * sizeof(int), &event, sizeof(int));
	if (fds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
	}
	sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void back_send_record(int to, const struct record *record, const uint8_t *payload,
			     size_t size)
{
	struct {
		struct vhost_user_header header;
		uint8_t payload[256];
	} message = { .header = { record->request, record->flags, record->size } };
	const unsigned int fds = (record->how & RECORD_FDS) % (FDS_MAX + 1);

	if (record->how & RECORD_LIES)
		message.header.size *= 0x01010101;
	memcpy(message.payload, payload, size);
	if (!(record->how & RECORD_APART)) {
		back_send(to, &message, sizeof(message.header) + size, fds);
		return;
	}
	back_send(to, &message.header, sizeof(message.header), fds);
	back_send(to, message.payload, size, fds);
}

/* The records of one of the two kinds, and the end of the stream. */
static void back_say(int to, const uint8_t *data, size_t size, uint8_t own)
{
	struct record record;

	while (size >= sizeof(record)) {
		size_t len;

		memcpy(&record, data, sizeof(record));
		data += sizeof(record);
		size -= sizeof(record);
		len = record.size < size ? record.size : size;
		if ((record.how & RECORD_OWN) == own)
			back_send_record(to, &record, data, len);
		data += len;
		size -= len;
	}
	shutdown(to, SHUT_WR);
}

/* What the front end has said. Return: its channel for requests, where that was among it; or -1. */
static int back_hear(void)
{
	struct { struct vhost_user_header header; uint8_t payload[512]; } message;
	union {
		char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr head;
	} control;
	struct iovec iov = { &message, sizeof(message.header) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	int fd, channel = -1;

	while (msg.msg_controllen = sizeof(control),
	       recvmsg(back, &msg, MSG_DONTWAIT) == sizeof(message.header)) {
		const struct cmsghdr *head = CMSG_FIRSTHDR(&msg);

		recv(back, message.payload, message.header.size, MSG_DONTWAIT);
		for (size_t i = 0; head && CMSG_LEN(i * sizeof(int)) < head->cmsg_len; i++) {
			memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(fd));
			if (message.header.request == VHOST_USER_SET_BACKEND_REQ_FD && channel < 0)
				channel = fd;
			else
				close(fd);
		}
	}
	return channel;
}

/* The front end */

static int say_memory(void)
{
	const struct vhost_user_map map = { .size = 4096, .fd = event };
	uint64_t size;
	int err = vhost_user_set_features(&user, user.features);

	if (!err)
		err = vhost_user_set_memory(&user, &map, 1);
	if (!err)
		err = vhost_user_get_inflight(&user, 1, 64, &size);
	return err ? err : vhost_user_set_inflight(&user, event, size, 1, 64);
}

static int say_rings(void)
{
	const struct vhost_user_vring vring = {
		.size = 64, .kick = event, .call = event, .err = event,
	};
	uint16_t base;
	int err = vhost_user_set_vring(&user, 0, &vring);

	if (!err)
		err = vhost_user_enable_vring(&user, 0, true);
	return err ? err : vhost_user_stop_vring(&user, 0, &base);
}

static int say_config(void)
{
	uint8_t config[CONFIG];
	int err = vhost_user_get_config(&user, config, sizeof(config));

	return err ? err : vhost_user_set_config(&user, 8, config, 8);
}

static int take_requests(void)
{
	int result;

	do {
		result = vhost_user_take_request(&user);
	} while (result > 0);
	return result;
}

static int sync_and_check(void)
{
	int err = vhost_user_sync(&user);

	return err ? err : vhost_user_check(&user);
}

static void front_run(const uint8_t *data, size_t size)
{
	static int (*const steps[])(void) = {
		say_config, say_memory, say_rings, take_requests, sync_and_check,
	};
	int channel, err = vhost_user_negotiate(&user);

	channel = back_hear();
	if (channel >= 0)
		back_say(channel, data, size, RECORD_OWN);
	for (unsigned int i = 0; i < ARRAY_SIZE(steps) && !err; i++)
		err = steps[i]();
	close(channel);
}

/* The lowest number that is free tells whether one was lost. */
static int next_descriptor(void)
{
	int fd = dup(event);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int ends[2], next;
	int64_t from = clock_ms();

	if (!event)
		event = memfd_create("any", MFD_CLOEXEC);
	next = next_descriptor();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		abort();
	back = ends[1];
	user.name = "fuzz";
	vhost_user_connect(&user, ends[0]);
	vhost_user_begin(&user, PATIENCE_MS);
	back_say(back, data, size, 0);
	front_run(data, size);
	vhost_user_disconnect(&user);
	back_hear();
	close(back);
	if (next_descriptor() != next || clock_ms() - from >= PATIENCE_MS)
		abort();
	return 0;
}
