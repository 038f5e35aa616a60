// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * virtio-vsock (virtio 1.2, section 5.10): the device round its rings. One thread has all: packets
 * from the guest, what happens at sockets, and packets to the guest take turns, a bounded number
 * each.
 *
 * The guest's packets are not taken while answers wait that it gives no buffers for.
 *
 * Connections live as long as this process and the guest's driver. Rings that go on where they
 * were left are of the same driver; where they do not, or the front end has gone in between, all
 * connections are dropped, and the guest is told by an event to drop its own. So it is in a new
 * process, which cannot know whether there was one before; a driver without connections loses
 * nothing by it.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devmodel/device.h"
#include "devmodel/vsock/conn.h"
#include "devmodel/vsock/vsock.h"
#include "devmodel/worker.h"

/* Packets from or to the guest, before others have their turn. */
#define VSOCK_TURN	64

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_RINGS };

enum { VSOCK_POLL_RINGS = WORKER_POLL_STOP + 1, VSOCK_POLL_CONNS = VSOCK_POLL_RINGS + VSOCK_RINGS,
       VSOCK_POLL_COUNT };

/**
 * struct vsock - the device
 * @running: the thread is
 * @left: the rings to and from the guest were served before, up to @left_at
 * @reset: the guest is to be told that there are no connections any more
 * @held: @given was taken from its ring and has nothing yet
 */
struct vsock {
	struct device dev;
	struct worker worker;
	struct dev_memory memory;
	struct virtio_vsock_config config;
	bool running;
	bool left;
	bool reset;
	bool held;
	uint16_t left_at[VSOCK_EVENT];
	struct virtq vq[VSOCK_RINGS];
	struct virtq_chain given;
	struct virtq_chain taken;
	struct vsock_conns conns;
};

/* A chain for a packet to the guest is held: with room for data, so that any packet fits. */
static bool vsock_hold(struct vsock *vsock)
{
	struct virtq *vq = &vsock->vq[VSOCK_RX];
	struct virtq_chain *chain = &vsock->given;

	while (!vsock->held && virtq_pop(vq, chain) > 0) {
		vsock->held = iov_bytes(chain->writable, chain->writable_count) > PACKET_HEADER;
		if (!vsock->held)
			virtq_push(vq, chain, 0);
	}
	return vsock->held;
}

/* True: there is more. */
static bool vsock_give(struct vsock *vsock)
{
	unsigned int packets = 0;

	while (packets < VSOCK_TURN && conns_wait(&vsock->conns) && vsock_hold(vsock)) {
		const uint32_t bytes = conns_give(&vsock->conns, &vsock->given);

		if (!bytes)
			break;
		virtq_push(&vsock->vq[VSOCK_RX], &vsock->given, bytes);
		vsock->held = false;
		packets++;
	}
	virtq_notify(&vsock->vq[VSOCK_RX]);
	return packets == VSOCK_TURN;
}

static bool vsock_take(struct vsock *vsock)
{
	struct virtq *vq = &vsock->vq[VSOCK_TX];
	unsigned int packets = 0;

	while (packets < VSOCK_TURN && conns_can_take(&vsock->conns) &&
	       virtq_pop(vq, &vsock->taken) > 0) {
		conns_take(&vsock->conns, &vsock->taken);
		virtq_push(vq, &vsock->taken, 0);
		packets++;
	}
	virtq_notify(vq);
	return packets == VSOCK_TURN;
}

static void vsock_tell(struct vsock *vsock)
{
	const struct virtio_vsock_event event = {
		.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET),
	};
	struct virtq *vq = &vsock->vq[VSOCK_EVENT];

	if (!vsock->reset || virtq_pop(vq, &vsock->taken) <= 0)
		return;
	virtq_push(vq, &vsock->taken, chain_write(&vsock->taken, &event, sizeof(event)));
	virtq_notify(vq);
	vsock->reset = false;
}

/* Is a buffer or a packet of the guest's waited for? */
static bool vsock_wants(const struct vsock *vsock, unsigned int ring)
{
	switch (ring) {
	case VSOCK_RX:
		return conns_wait(&vsock->conns);
	case VSOCK_TX:
		return conns_can_take(&vsock->conns);
	}
	return vsock->reset;
}

/* Asks for kicks. True: there is something already. */
static bool vsock_kicks_enable(struct vsock *vsock)
{
	bool more = false;

	for (unsigned int i = 0; i < VSOCK_RINGS; i++)
		if (vsock_wants(vsock, i))
			more |= virtq_kick_enable(&vsock->vq[i]);
	return more;
}

/* The event goes first, so that it cannot come behind what is new. */
static void vsock_serve(struct vsock *vsock)
{
	bool more;

	do {
		for (unsigned int i = 0; i < VSOCK_RINGS; i++)
			if (!vsock->vq[i].broken)
				virtq_kick_disable(&vsock->vq[i]);
		vsock_tell(vsock);
		more = vsock_take(vsock);
		conns_hear(&vsock->conns);
		more |= vsock_give(vsock);
		more |= conns_can_accept(&vsock->conns);
	} while (!worker_ends(&vsock->worker) && (more || vsock_kicks_enable(vsock)));
}

static void vsock_expect(const struct vsock *vsock, struct pollfd *wait)
{
	for (unsigned int i = 0; i < VSOCK_RINGS; i++)
		wait[VSOCK_POLL_RINGS + i] = (struct pollfd){
			.fd = vsock_wants(vsock, i) ? vsock->vq[i].kick : -1, .events = POLLIN,
		};
	wait[VSOCK_POLL_CONNS] = (struct pollfd){ .fd = vsock->conns.poll, .events = POLLIN };
}

static void *vsock_run(void *arg)
{
	struct pollfd wait[VSOCK_POLL_COUNT] = { { 0 } };
	struct vsock *vsock = arg;
	eventfd_t count;

	do {
		for (unsigned int i = 0; i < VSOCK_RINGS; i++)
			if (wait[VSOCK_POLL_RINGS + i].revents)
				eventfd_read(vsock->vq[i].kick, &count);
		vsock_serve(vsock);
		vsock_expect(vsock, wait);
	} while (worker_wait(&vsock->worker, wait, VSOCK_POLL_COUNT));
	return NULL;
}

/* The device, for its transport */

static uint64_t vsock_features(struct device *dev)
{
	(void)dev;
	return VIRTQ_FEATURES;
}

static void vsock_config_read(struct device *dev, uint32_t offset, void *buf, uint32_t len)
{
	memcpy(buf, (char *)&((struct vsock *)dev)->config + offset, len);
}

/* A front end may have no ring for events, or not yet. */
static int ring_init(struct vsock *vsock, unsigned int index, uint64_t features,
		     const struct dev_vring *ring)
{
	if (ring->size)
		return virtq_init(&vsock->vq[index], &vsock->memory, ring, features);
	vsock->vq[index] = (struct virtq){ .broken = true, .kick = -1, .call = -1, .err = -1 };
	return 0;
}

static bool vsock_goes_on(const struct vsock *vsock)
{
	return vsock->left && vsock->vq[VSOCK_RX].next_used == vsock->left_at[VSOCK_RX] &&
	       vsock->vq[VSOCK_TX].next_used == vsock->left_at[VSOCK_TX];
}

/* Rings become ready one after the other: it takes the first two of them to do anything. */
static int vsock_start(struct device *dev, const struct dev_memory *memory, uint64_t features,
		       const struct dev_vring *rings)
{
	struct vsock *vsock = (struct vsock *)dev;
	int err = 0;

	if (!rings[VSOCK_RX].size || !rings[VSOCK_TX].size)
		return 0;
	vsock->memory = *memory;
	vsock->held = false;
	for (unsigned int i = 0; i < VSOCK_RINGS && !err; i++)
		err = ring_init(vsock, i, features, &rings[i]);
	if (err)
		return err;
	if (!vsock_goes_on(vsock)) {
		conns_drop(&vsock->conns);
		vsock->reset = true;
	}
	err = worker_start(&vsock->worker, "vsock", vsock_run, vsock);
	vsock->running = !err;
	return err;
}

static void vsock_stop(struct device *dev)
{
	struct vsock *vsock = (struct vsock *)dev;

	if (!vsock->running)
		return;
	worker_stop(&vsock->worker);
	vsock->running = false;
	vsock->left = true;
	for (unsigned int i = 0; i < VSOCK_EVENT; i++)
		vsock->left_at[i] = vsock->vq[i].next_used;
}

static void vsock_leave(struct device *dev)
{
	struct vsock *vsock = (struct vsock *)dev;

	conns_drop(&vsock->conns);
	vsock->left = false;
}

static void vsock_destroy(struct device *dev)
{
	struct vsock *vsock = (struct vsock *)dev;

	conns_drop(&vsock->conns);
	conns_finish(&vsock->conns);
	close(vsock->conns.host.listener);
	free(vsock);
}

static const struct device_ops vsock_ops = {
	.name = "vsock",
	.virtio_id = VIRTIO_ID_VSOCK,
	.queue_count = VSOCK_RINGS,
	.queue_size_max = VIRTQ_SIZE_MAX,
	.config_size = sizeof(struct virtio_vsock_config),
	.features = vsock_features,
	.config_read = vsock_config_read,
	.start = vsock_start,
	.stop = vsock_stop,
	.leave = vsock_leave,
	.destroy = vsock_destroy,
};

int vsock_create(uint64_t cid, const char *path, int listener, struct device **ret)
{
	struct vsock *vsock;
	int err;

	if (cid < VSOCK_CID_MIN || cid > VSOCK_CID_MAX)
		return -EINVAL;
	vsock = calloc(1, sizeof(*vsock));
	if (!vsock)
		return -ENOMEM;
	vsock->dev.ops = &vsock_ops;
	vsock->config.guest_cid = htole64(cid);
	vsock->conns.guest_cid = cid;
	err = host_init(&vsock->conns.host, path, listener);
	if (!err)
		err = conns_init(&vsock->conns);
	if (err)
		free(vsock);
	else
		*ret = &vsock->dev;
	return err;
}
