// SPDX-License-Identifier: MIT OR GPL-2.0
/* Frames and streams of include/moat/run.h between peers that keep the rules, and that do not. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "selftests/unit/unit.h"
#include "userspace/init/stream.h"

#define STREAM_BYTES	1000000
#define FUZZ_ROUNDS	2000
#define FUZZ_BYTES	20000

static struct channel here, there;
static int sockets[2];

static void begin(void)
{
	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets));
	channel_init(&here, sockets[0]);
	channel_init(&there, sockets[1]);
}

static void end(void)
{
	close(sockets[0]);
	close(sockets[1]);
}

/* The next frame that @there has; NULL: none. */
static const struct channel_frame *next(int *ret_err)
{
	static struct channel_frame frame;
	int err = channel_receive(&there);

	if (!err)
		err = channel_next(&there, &frame);
	*ret_err = err;
	return err == 1 ? &frame : NULL;
}

static void test_frames(void)
{
	const struct channel_frame *frame;
	uint32_t number = 0;
	int err;

	begin();
	EXPECT(!channel_send_number(&here, RUN_EXIT, 77));
	EXPECT(!channel_send(&here, RUN_STDOUT, "text", 4));
	EXPECT(!channel_send(&here, RUN_STDOUT, NULL, 0));
	frame = next(&err);
	if (EXPECT(frame)) {
		EXPECT(frame->type == RUN_EXIT && !channel_number(frame, 255, &number));
		EXPECT(number == 77 && channel_number(frame, 76, &number) == -EPROTO);
	}
	frame = next(&err);
	EXPECT(frame && frame->len == 4 && !memcmp(frame->payload, "text", 4));
	EXPECT(frame && channel_number(frame, UINT32_MAX, &number) == 0);
	frame = next(&err);
	EXPECT(frame && !frame->len && channel_number(frame, UINT32_MAX, &number) == -EPROTO);
	EXPECT(!next(&err) && !err);
	close(sockets[0]);
	EXPECT(!next(&err) && err == -ENODATA);
	end();
}

/* A byte at a time: nothing is a frame before its last byte. */
static void test_pieces(void)
{
	struct run_frame header = { .type = RUN_STDIN, .len = 3 };
	uint8_t bytes[sizeof(header) + 3] = { 0 };
	int err;

	begin();
	memcpy(bytes, &header, sizeof(header));
	for (size_t i = 0; i < sizeof(bytes); i++) {
		EXPECT(!next(&err) && !err);
		EXPECT(write(sockets[0], &bytes[i], 1) == 1);
	}
	EXPECT(next(&err));
	end();
}

static void refuse(struct run_frame header)
{
	int err;

	begin();
	EXPECT(write(sockets[0], &header, sizeof(header)) == sizeof(header));
	EXPECT(!next(&err) && err == -EPROTO);
	end();
}

static void test_refuses_frames(void)
{
	refuse((struct run_frame){ .type = RUN_STDIN, .len = RUN_PAYLOAD_MAX + 1 });
	refuse((struct run_frame){ .type = RUN_STDIN, .len = UINT32_MAX });
	refuse((struct run_frame){ .type = RUN_STDIN, .reserved = { 0, 0, 1 } });
}

static void test_refuses_more_than_window(void)
{
	static struct inlet inlet;
	static uint8_t bytes[RUN_PAYLOAD_MAX];
	struct channel_frame frame = { RUN_STDIN, sizeof(bytes), bytes };
	int fds[2];

	EXPECT(!pipe(fds));
	inlet_init(&inlet, RUN_STDIN, fds[1]);
	for (int i = 0; i < RUN_WINDOW / RUN_PAYLOAD_MAX; i++)
		EXPECT(!inlet_accept(&inlet, &frame));
	frame.len = 1;
	EXPECT(inlet_accept(&inlet, &frame) == -EPROTO);
	/* What was taken but not yet acknowledged is still under way. */
	inlet_pump(&inlet);
	EXPECT(inlet.due && inlet_accept(&inlet, &frame) == -EPROTO);
	frame.len = 0;
	EXPECT(!inlet_accept(&inlet, &frame));
	EXPECT(inlet_accept(&inlet, &frame) == -EPROTO);
	close(fds[0]);
	close(fds[1]);
}

static void test_refuses_credit(void)
{
	struct run_credit credit = { .stream = RUN_STDOUT };
	struct outlet outlet;

	outlet_init(&outlet, RUN_STDOUT, -1);
	EXPECT(outlet_credit(&outlet, &credit) == -EPROTO);
	credit.bytes = 1;
	EXPECT(outlet_credit(&outlet, &credit) == -EPROTO);
	outlet.credit -= 100;
	credit.bytes = 101;
	EXPECT(outlet_credit(&outlet, &credit) == -EPROTO);
	credit.bytes = UINT32_MAX;
	EXPECT(outlet_credit(&outlet, &credit) == -EPROTO);
	credit.bytes = 100;
	EXPECT(!outlet_credit(&outlet, &credit) && outlet.credit == RUN_WINDOW);
}

/* The receiving side of a stream, once round. */
static void stream_receive(struct inlet *inlet)
{
	const struct channel_frame *frame;
	int err;

	while ((frame = next(&err)))
		EXPECT(!inlet_accept(inlet, frame));
	inlet_pump(inlet);
	EXPECT(!inlet_acknowledge(inlet, &there) && !channel_flush(&there));
}

static void stream_take_credit(struct outlet *outlet)
{
	struct channel_frame frame;
	struct run_credit credit;

	EXPECT(!channel_receive(&here));
	while (channel_next(&here, &frame) == 1)
		EXPECT(frame.type == RUN_CREDIT &&
		       !channel_payload(&frame, &credit, sizeof(credit)) &&
		       !outlet_credit(outlet, &credit));
}

/* A file through both ends, against a reader that takes odd pieces. */
static void test_stream(void)
{
	static struct inlet inlet;
	static uint8_t sent[STREAM_BYTES], got[STREAM_BYTES + 1];
	struct outlet outlet;
	FILE *file = tmpfile();
	size_t have = 0;
	int fds[2];

	begin();
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = i * 2654435761u >> 13;
	fwrite(sent, sizeof(sent), 1, file);
	rewind(file);
	EXPECT(!pipe2(fds, O_NONBLOCK));
	outlet_init(&outlet, RUN_STDIN, dup(fileno(file)));
	inlet_init(&inlet, RUN_STDIN, fds[1]);
	for (int round = 0; inlet.fd >= 0 && round < STREAM_BYTES; round++) {
		ssize_t n = read(fds[0], got + have, 1 + round % 3000);

		have += n > 0 ? n : 0;
		if (outlet_wants(&outlet, &here))
			EXPECT(outlet_pump(&outlet, &here) >= 0);
		EXPECT(!channel_flush(&here));
		stream_receive(&inlet);
		stream_take_credit(&outlet);
	}
	for (ssize_t n; (n = read(fds[0], got + have, sizeof(got) - have)) > 0;)
		have += n;
	EXPECT(have == sizeof(sent) && !memcmp(sent, got, sizeof(sent)));
	EXPECT(outlet.fd < 0 && inlet.fd < 0);
	close(fds[0]);
	fclose(file);
	end();
}

/* A reader that goes away holds up nobody. */
static void test_stream_unread(void)
{
	static struct inlet inlet;
	struct outlet outlet;
	unsigned int sent = 0;
	int fds[2];

	begin();
	EXPECT(!pipe2(fds, O_NONBLOCK));
	close(fds[0]);
	outlet_init(&outlet, RUN_STDOUT, open("/dev/zero", O_RDONLY));
	inlet_init(&inlet, RUN_STDOUT, fds[1]);
	for (int round = 0; round < 1000; round++) {
		if (outlet_wants(&outlet, &here))
			sent += outlet_pump(&outlet, &here);
		stream_receive(&inlet);
		stream_take_credit(&outlet);
	}
	EXPECT(inlet.fd < 0 && sent * RUN_PAYLOAD_MAX > 4 * RUN_WINDOW);
	outlet_close(&outlet);
	end();
}

/* Random bytes, most of them in plausible headers; the sanitizers watch. */
static void test_random(void)
{
	static uint8_t bytes[FUZZ_BYTES];
	static struct inlet inlet;
	unsigned int frames = 0, refused = 0;

	srandom(20);
	for (int round = 0; round < FUZZ_ROUNDS; round++) {
		const struct channel_frame *frame;
		size_t at = 0, sent = 0;
		int err = 0;

		begin();
		inlet_init(&inlet, RUN_STDIN, -1);
		while (at + sizeof(struct run_frame) < sizeof(bytes)) {
			struct run_frame header = { .type = random() % 10, .len = random() % 200 };

			if (!(random() % 64))
				header.len = random();
			memcpy(bytes + at, &header, sizeof(header));
			at += sizeof(header) + random() % 200;
		}
		while (!err && sent < sizeof(bytes)) {
			ssize_t n = write(sockets[0], bytes + sent, 1 + random() % 500);

			sent += n > 0 ? n : 0;
			while ((frame = next(&err))) {
				frames++;
				if (inlet_accept(&inlet, frame))
					break;
			}
		}
		refused += err < 0;
		end();
	}
	EXPECT(frames > FUZZ_ROUNDS && refused > FUZZ_ROUNDS / 2);
}

static const struct unit_test tests[] = {
	{ "frames arrive as they were sent", test_frames },
	{ "frames arrive in pieces", test_pieces },
	{ "what is no frame is refused", test_refuses_frames },
	{ "more than the window is refused", test_refuses_more_than_window },
	{ "credit for what was not sent is refused", test_refuses_credit },
	{ "a stream is carried whole", test_stream },
	{ "a stream that nobody reads goes on", test_stream_unread },
	{ "random frames", test_random },
};

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_main(tests, sizeof(tests) / sizeof(tests[0]));
}
