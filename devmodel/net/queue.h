/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A ring of a network device, its thread, and the frames that it passes; queue.c, rx.c and tx.c. */
#ifndef DEVMODEL_NET_QUEUE_H
#define DEVMODEL_NET_QUEUE_H

#include <linux/virtio_net.h>
#include <poll.h>
#include <stdbool.h>

#include "devmodel/limit.h"
#include "devmodel/net/net.h"
#include "devmodel/net/stream.h"
#include "devmodel/virtq.h"
#include "devmodel/worker.h"

/* The longest frame: an IP packet as long as there can be, in Ethernet with a VLAN tag. */
#define NET_FRAME_MAX	(65535 + ETH_HLEN + 4)
#define NET_HEADER_MAX	sizeof(struct virtio_net_hdr_v1)

/* What became of an attempt to pass a frame: passed, or dropped; or what it takes to try again. */
enum net_step { NET_PASSED, NET_NEEDS_BUFFERS, NET_NEEDS_TAP, NET_TAP_GONE };

/**
 * struct net_queue - what both directions have
 * @header: bytes in front of each frame
 * @tap_events: that the tap is waited for
 * @stream: the tap is a stream; @gone is called, unless NULL, where that ends
 * @step: pass one frame
 * @counts: changed by the queue's thread alone
 */
struct net_queue {
	struct worker worker;
	struct virtq vq;
	struct virtq_chain chain;
	int tap;
	short tap_events;
	bool stream;
	void (*gone)(void);
	uint32_t header;
	struct limit *limit;
	enum net_step (*step)(struct net_queue *queue);
	struct net_counts counts;
};

/* For one more chain, whatever it is, and what does not fit into those that there are. */
#define NET_RX_PIECES	(2 * VIRTQ_IOV_MAX - 1)

/**
 * struct net_rx - a ring of buffers for frames to the guest
 * @merges: a frame may be spread over several chains
 * @chains: that were taken and are empty, in @held; their @pieces are in @iov, @room bytes in all
 * @frame: bytes of a frame, with its header, that waits for more chains; 0: none does
 * @placed: of that frame, what is in the chains; the rest is in @spill, the frame of which begins at @spilled
 * @in: of a stream: a frame of which a part is in @spill
 */
struct net_rx {
	struct net_queue queue;
	bool merges;
	unsigned int chains;
	unsigned int pieces;
	uint64_t room;
	uint32_t frame;
	uint32_t placed;
	uint32_t spilled;
	struct stream_in in;
	struct net_rx_chain {
		uint16_t head;
		uint16_t pieces;
		uint32_t room;
	} held[VIRTQ_SIZE_MAX];
	struct iovec iov[NET_RX_PIECES + 1];
	uint8_t spill[NET_HEADER_MAX + NET_FRAME_MAX];
};

/*
 * A ring of frames from the guest. @held: a chain was taken, and is still to be written. @out: of a stream: a
 * frame of which a part is in @rest.
 */
struct net_tx {
	struct net_queue queue;
	bool held;
	struct stream_out out;
	uint8_t rest[STREAM_LENGTH + NET_FRAME_MAX];
};

void rx_init(struct net_rx *rx, int tap, const struct net_options *options, struct limit *limit);
void tx_init(struct net_tx *tx, int tap, const struct net_options *options, struct limit *limit);

int rx_start(struct net_rx *rx, const struct dev_memory *memory, const struct dev_vring *ring,
	     uint64_t features);
int tx_start(struct net_tx *tx, const struct dev_memory *memory, const struct dev_vring *ring,
	     uint64_t features);

/* What was taken and not given back counts as not taken. */
void queue_stop(struct net_queue *queue);

/* For rx.c and tx.c */

/* Bytes of the header by what was negotiated. */
uint32_t queue_header(uint64_t features);

int queue_start(struct net_queue *queue, const char *name);

/* A frame of @bytes, with its header, has passed. */
void queue_passed(struct net_queue *queue, uint32_t bytes);

enum net_step queue_dropped(struct net_queue *queue);

/* The other end of a stream is not there any more, or says what it must not. */
enum net_step queue_gone(struct net_queue *queue);

#endif /* DEVMODEL_NET_QUEUE_H */
