// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a guest does with its network, and the other end of that.
 *
 * Guest and host have some TCP connections, on each of which both send as fast as they can, what
 * follows from the number of the connection, the side, and the place in the stream; each checks all
 * that it gets. The guest stops when the time is up, the host when the guest has, and each reads on
 * until the other's end. Both print what they sent and received, which must be the same.
 *
 *	init SECONDS		as process 1 of a guest, with modules in /modules
 *	net_work tap NAME	outside: make a tap with the host's address, which stays
 *	net_work serve		outside: the host's end
 *	net_work work SECONDS	in a guest that is up: the guest's end
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "selftests/vhost/guest.h"
#include "selftests/vhost/net.h"

#define STREAMS		4
#define PIECE_WORDS	8192

/* @side: 0 for the guest */
struct stream {
	pthread_t sender;
	pthread_t receiver;
	int fd;
	unsigned int number;
	unsigned int side;
	uint64_t sent;
	uint64_t received;
	atomic_bool ended;
};

static struct stream streams[STREAMS];
static time_t end_time;
static atomic_uint errors;

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

/* The words of one side's stream from @offset, in bytes, on. */
static void words_fill(uint64_t *words, size_t count, const struct stream *stream,
		       unsigned int side, uint64_t offset)
{
	const uint64_t seed = (uint64_t)(stream->number * 2 + side + 1) << 48;

	for (size_t i = 0; i < count; i++)
		words[i] = mix(seed + offset / 8 + i);
}

static void fail(const struct stream *stream, const char *what)
{
	if (errors++ < 10)
		printf("error: stream %u: %s: %s\n", stream->number, what, strerror(errno));
}

static bool sender_goes_on(const struct stream *stream)
{
	return !errors && (stream->side ? !stream->ended : time(NULL) < end_time);
}

static bool send_all(const struct stream *stream, const void *from, size_t len)
{
	while (len) {
		ssize_t n = send(stream->fd, from, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		from = (const char *)from + n;
		len -= n;
	}
	return true;
}

static void *sender_run(void *arg)
{
	static _Thread_local uint64_t words[PIECE_WORDS];
	struct stream *stream = arg;

	while (sender_goes_on(stream)) {
		words_fill(words, PIECE_WORDS, stream, stream->side, stream->sent);
		if (!send_all(stream, words, sizeof(words))) {
			fail(stream, "send");
			break;
		}
		stream->sent += sizeof(words);
	}
	shutdown(stream->fd, SHUT_WR);
	return NULL;
}

/* A piece always begins where a word does, and ends so but for the last. */
static ssize_t receive_piece(const struct stream *stream, uint64_t *words)
{
	size_t have = 0;

	do {
		ssize_t n = recv(stream->fd, (char *)words + have, PIECE_WORDS * 8 - have, 0);

		if (n < 0)
			return n;
		if (!n)
			break;
		have += n;
	} while (have % 8);
	return have;
}

static void *receiver_run(void *arg)
{
	static _Thread_local uint64_t words[PIECE_WORDS], wanted[PIECE_WORDS];
	struct stream *stream = arg;
	ssize_t n;

	while ((n = receive_piece(stream, words)) > 0) {
		words_fill(wanted, (n + 7) / 8, stream, !stream->side, stream->received);
		errno = 0;
		if (memcmp(words, wanted, n))
			fail(stream, "wrong data");
		stream->received += n;
	}
	if (n < 0)
		fail(stream, "receive");
	stream->ended = true;
	return NULL;
}

static void streams_run(unsigned int side)
{
	for (unsigned int i = 0; i < STREAMS; i++) {
		streams[i].number = i;
		streams[i].side = side;
		pthread_create(&streams[i].sender, NULL, sender_run, &streams[i]);
		pthread_create(&streams[i].receiver, NULL, receiver_run, &streams[i]);
	}
	for (unsigned int i = 0; i < STREAMS; i++) {
		pthread_join(streams[i].sender, NULL);
		pthread_join(streams[i].receiver, NULL);
	}
	printf("errors: %u\nsent:", errors);
	for (unsigned int i = 0; i < STREAMS; i++)
		printf(" %llu", (unsigned long long)streams[i].sent);
	printf(" end\nreceived:");
	for (unsigned int i = 0; i < STREAMS; i++)
		printf(" %llu", (unsigned long long)streams[i].received);
	printf(" end\n");
}

static int serve(void)
{
	int fd = net_listen();

	if (fd < 0)
		return 1;
	for (unsigned int i = 0; i < STREAMS; i++) {
		streams[i].fd = accept(fd, NULL, NULL);
		if (streams[i].fd < 0)
			return 1;
	}
	streams_run(1);
	return errors > 0;
}

/* One after the other, so that both sides have the same order. */
static bool stream_connect(struct stream *stream)
{
	stream->fd = net_connect();
	if (stream->fd < 0)
		fail(stream, "connect");
	return stream->fd >= 0;
}

/* The guest's half. */
static int work(unsigned int seconds)
{
	net_guest_begin();
	for (unsigned int i = 0; i < STREAMS; i++)
		if (!stream_connect(&streams[i]))
			return 1;
	printf("working\n");
	end_time = time(NULL) + seconds;
	streams_run(0);
	return errors > 0;
}

static void guest_run(unsigned int seconds)
{
	guest_begin();
	work(seconds);
	guest_end();
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		guest_run(argc > 1 ? atoi(argv[1]) : 10);
	if (argc == 3 && !strcmp(argv[1], "tap"))
		return net_tap_make(argv[2], true);
	if (argc == 2 && !strcmp(argv[1], "serve"))
		return serve();
	if (argc == 3 && !strcmp(argv[1], "work"))
		return work(atoi(argv[2]));
	fprintf(stderr, "usage: net_work { tap NAME | serve | work SECONDS }\n");
	return 2;
}
