// SPDX-License-Identifier: MIT OR GPL-2.0
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/unit/vhost_mock.h"

#define FDS	20

struct header {
	uint32_t request, flags, size;
};

/* What a message is to be, and its answer; a size of ANY is told by the message itself. */
#define ANY	-1

static const struct rule {
	int size;
	int fds;
	int reply;	/* bytes of an answer; 0: only an acknowledgement */
} rules[MOCK_REQUESTS] = {
	[1] = { 0, 0, 8 },		/* GET_FEATURES */
	[2] = { 8, 0, 0 },		/* SET_FEATURES */
	[3] = { 0, 0, 0 },		/* SET_OWNER */
	[5] = { ANY, ANY, 0 },		/* SET_MEM_TABLE */
	[8] = { 8, 0, 0 },		/* SET_VRING_NUM */
	[9] = { 40, 0, 0 },		/* SET_VRING_ADDR */
	[10] = { 8, 0, 0 },		/* SET_VRING_BASE */
	[11] = { 8, 0, 8 },		/* GET_VRING_BASE */
	[12] = { 8, 1, 0 },		/* SET_VRING_KICK */
	[13] = { 8, 1, 0 },		/* SET_VRING_CALL */
	[14] = { 8, 1, 0 },		/* SET_VRING_ERR */
	[15] = { 0, 0, 8 },		/* GET_PROTOCOL_FEATURES */
	[16] = { 8, 0, 0 },		/* SET_PROTOCOL_FEATURES */
	[17] = { 0, 0, 8 },		/* GET_QUEUE_NUM */
	[18] = { 8, 0, 0 },		/* SET_VRING_ENABLE */
	[21] = { 0, 1, 0 },		/* SET_BACKEND_REQ_FD */
	[24] = { ANY, 0, ANY },		/* GET_CONFIG */
	[25] = { ANY, 0, 0 },		/* SET_CONFIG */
	[31] = { 24, 0, 24 },		/* GET_INFLIGHT_FD */
	[32] = { 24, 1, 0 },		/* SET_INFLIGHT_FD */
};

struct message {
	struct header header;
	uint8_t payload[512];
	unsigned int fds;
	int fd[FDS];
};

static bool receive(struct mock *mock, struct message *message)
{
	char space[CMSG_SPACE(FDS * sizeof(int))];
	struct iovec iov = { &message->header, sizeof(message->header) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
		.msg_controllen = sizeof(space),
	};
	struct cmsghdr *c;

	message->fds = 0;
	if (recvmsg(mock->fd, &msg, MSG_WAITALL) != sizeof(message->header) ||
	    message->header.size > sizeof(message->payload))
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c) {
		message->fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(message->fd, CMSG_DATA(c), message->fds * sizeof(int));
	}
	return !message->header.size ||
	       recv(mock->fd, message->payload, message->header.size, MSG_WAITALL) ==
	       (ssize_t)message->header.size;
}

static void send_with(struct mock *mock, const void *data, size_t len, unsigned int fds)
{
	char space[CMSG_SPACE(FDS * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fds) {
		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_len = CMSG_LEN(fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		for (unsigned int i = 0; i < fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &mock->fd, sizeof(int));
	}
	sendmsg(mock->fd, &msg, MSG_NOSIGNAL);
}

static void drip(struct mock *mock, const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		usleep(20000);
		if (send(mock->fd, (const char *)data + i, 1, MSG_NOSIGNAL) != 1)
			return;
	}
}

/* The answer, with the fault. False: it was the last thing. */
static bool answer(struct mock *mock, struct message *message, uint32_t size, unsigned int fds,
		   enum mock_fault fault)
{
	static const uint64_t noise[8];
	struct header *header = &message->header;

	header->flags = 1 | 1 << 2;
	header->size = size;
	switch (fault) {
	case MOCK_SILENT:
		return true;
	case MOCK_DRIP:
		drip(mock, message, sizeof(*header) + size);
		return true;
	case MOCK_DEAD:
		return false;
	case MOCK_DEAD_HEADER:
		send_with(mock, header, 7, fds);
		return false;
	case MOCK_DEAD_PAYLOAD:
		send_with(mock, header, sizeof(*header), fds);
		return false;
	case MOCK_SHORT:
		header->size = size - 1;
		break;
	case MOCK_LONG:
		header->size = size + 8;
		break;
	case MOCK_EMPTY:
		header->size = 0;
		break;
	case MOCK_HUGE:
		header->size = UINT32_MAX;
		break;
	case MOCK_OTHER:
		header->request++;
		break;
	case MOCK_NO_REPLY:
		header->flags = 1;
		break;
	case MOCK_BAD_VERSION:
		header->flags = 2 | 1 << 2;
		break;
	case MOCK_FD:
		fds++;
		break;
	case MOCK_FDS:
		fds = FDS;
		break;
	case MOCK_NO_FD:
		fds = 0;
		break;
	case MOCK_NOISE:
		send_with(mock, noise, sizeof(noise), 0);
		break;
	default:
		break;
	}
	send_with(mock, message, sizeof(*header) + (header->size < 400 ? header->size : size),
		  fds);
	return true;
}

static void keep(int *where, int fd)
{
	if (*where >= 0)
		close(*where);
	*where = fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* What the front end said. */
static void note(struct mock *mock, struct message *message)
{
	uint32_t word[2];
	uint64_t number;

	memcpy(word, message->payload, sizeof(word));
	memcpy(&number, message->payload, sizeof(number));
	switch (message->header.request) {
	case 5:
		keep(&mock->memory, message->fd[0]);
		break;
	case 10:
		mock->base[word[0] % MOCK_QUEUES] = word[1];
		break;
	case 12:
		keep(&mock->kick[word[0] % MOCK_QUEUES], message->fd[0]);
		break;
	case 13:
		keep(&mock->call[word[0] % MOCK_QUEUES], message->fd[0]);
		break;
	case 16:
		mock->ack = number >> 3 & 1;
		break;
	case 18:
		__atomic_add_fetch(&mock->enabled, word[1], __ATOMIC_SEQ_CST);
		break;
	case 21:
		keep(&mock->requests, message->fd[0]);
		break;
	case 32:
		keep(&mock->inflight, message->fd[0]);
		break;
	}
}

static void fill(struct mock *mock, struct message *message)
{
	uint64_t inflight[3] = { mock->inflight_size, 0, 0 };

	switch (message->header.request) {
	case 1:
		memcpy(message->payload, &mock->features, 8);
		break;
	case 15:
		memcpy(message->payload, &mock->protocol, 8);
		break;
	case 17:
		memcpy(message->payload, &mock->queues, 8);
		break;
	case 24:
		memcpy(message->payload + 12, mock->config, message->header.size - 12);
		break;
	case 31:
		memcpy(message->payload, inflight, sizeof(inflight));
		break;
	}
}

static bool right(const struct mock *mock, const struct message *message)
{
	const struct rule *rule = &rules[message->header.request % MOCK_REQUESTS];
	bool needs = message->header.request != 16 && mock->ack && !rule->reply;

	return message->header.request < MOCK_REQUESTS &&
	       (rule->size == ANY || message->header.size == (uint32_t)rule->size) &&
	       (rule->fds == ANY || message->fds == (unsigned int)rule->fds) &&
	       message->header.flags == (needs ? 1 | 1 << 3 : 1);
}

static bool handle(struct mock *mock, struct message *message)
{
	uint32_t request = message->header.request;
	const struct rule *rule = &rules[request % MOCK_REQUESTS];
	enum mock_fault fault = request == mock->at ? mock->fault : MOCK_GOOD;
	uint64_t status = fault == MOCK_REFUSE;
	bool needs = message->header.flags >> 3 & 1;

	mock->wrong += !right(mock, message);
	mock->seen[request % MOCK_REQUESTS]++;
	mock->faulty |= fault != MOCK_GOOD && (rule->reply || needs || fault == MOCK_DEAD);
	note(mock, message);
	for (unsigned int i = 0; i < message->fds; i++)
		close(message->fd[i]);
	if (rule->reply) {
		uint32_t size = rule->reply == ANY ? message->header.size : (uint32_t)rule->reply;

		fill(mock, message);
		return answer(mock, message, size, request == 31, fault);
	}
	if (!needs)
		return fault != MOCK_DEAD;
	memcpy(message->payload, &status, sizeof(status));
	return answer(mock, message, sizeof(status), 0, fault);
}

void mock_init(struct mock *mock, int fd)
{
	*mock = (struct mock){
		.fd = fd, .features = MOCK_FEATURES, .protocol = MOCK_PROTOCOL, .queues = 1,
		.inflight_size = MOCK_INFLIGHT, .requests = -1, .memory = -1, .inflight = -1,
	};
	memset(mock->config, 0x5a, sizeof(mock->config));
	for (unsigned int i = 0; i < MOCK_QUEUES; i++)
		mock->kick[i] = mock->call[i] = -1;
}

void mock_serve(struct mock *mock)
{
	struct message message;

	while (receive(mock, &message) && handle(mock, &message))
		;
	shutdown(mock->fd, SHUT_RDWR);
}

static void *mock_run(void *arg)
{
	mock_serve(arg);
	return NULL;
}

void mock_start(struct mock *mock)
{
	pthread_create(&mock->thread, NULL, mock_run, mock);
}

void mock_join(struct mock *mock)
{
	pthread_join(mock->thread, NULL);
}

void mock_finish(struct mock *mock)
{
	int *fds[] = { &mock->fd, &mock->requests, &mock->memory, &mock->inflight };

	for (unsigned int i = 0; i < 4; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	for (unsigned int i = 0; i < MOCK_QUEUES; i++) {
		if (mock->kick[i] >= 0)
			close(mock->kick[i]);
		if (mock->call[i] >= 0)
			close(mock->call[i]);
		mock->kick[i] = mock->call[i] = -1;
	}
}

unsigned int mock_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}
