/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Streams over a channel, with the credit that include/moat/run.h tells of: an outlet reads from a
 * descriptor and sends, an inlet receives and writes to a descriptor. Either side has both.
 */
#ifndef INIT_STREAM_H
#define INIT_STREAM_H

#include "userspace/init/channel.h"

/**
 * struct outlet - a stream that is sent
 * @fd: where it comes from; -1 once it has ended
 * @credit: bytes that may be sent
 */
struct outlet {
	enum run_type type;
	int fd;
	uint32_t credit;
};

/**
 * struct inlet - a stream that is received
 * @fd: where it goes; -1 once nobody takes it any more, or all was written
 * @count: bytes in @buf, from @first on, round its end
 * @due: bytes that were taken and that the sender has not been told of
 * @ended: no more will be received
 */
struct inlet {
	enum run_type type;
	int fd;
	bool ended;
	uint32_t first;
	uint32_t count;
	uint32_t due;
	uint8_t buf[RUN_WINDOW];
};

void outlet_init(struct outlet *outlet, enum run_type type, int fd);

/* Is it time to wait for its descriptor? */
bool outlet_wants(const struct outlet *outlet, const struct channel *channel);

/* Send a frame of what can be read. Return: 1: of data; 0: none for now, or its end; an errno. */
int outlet_pump(struct outlet *outlet, struct channel *channel);

/* A RUN_CREDIT for it has come. 0 or -EPROTO. */
int outlet_credit(struct outlet *outlet, const struct run_credit *credit);

/* Closes its descriptor without a word. */
void outlet_close(struct outlet *outlet);

void inlet_init(struct inlet *inlet, enum run_type type, int fd);

/* A frame of data has come. 0 or -EPROTO. */
int inlet_accept(struct inlet *inlet, const struct channel_frame *frame);

/* Write some; what nobody takes is dropped. Closes the descriptor after the last byte. */
void inlet_pump(struct inlet *inlet);

/* Tell the sender of what was taken. 0 or a negative errno. */
int inlet_acknowledge(struct inlet *inlet, struct channel *channel);

#endif /* INIT_STREAM_H */
